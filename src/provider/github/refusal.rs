//! What GitHub's refusals mean: the one place that reads them.

use http::StatusCode;
use serde::{Deserialize, Deserializer};

use crate::provider::api::Answer;
use crate::provider::fields::lenient;
use crate::provider::inspection::is_scope;
use crate::provider::{ProviderError, RejectionCause, Restriction};

/// Most scopes or permissions that are read out of one answer; GitHub has about 40.
const MAX_SCOPES: usize = 64;

/// Which scopes a scope holds: a token shows only the outermost ones (scopes-for-oauth-apps).
const HELD: &[(&str, &[&str])] = &[
    (
        "repo",
        &[
            "public_repo",
            "repo:status",
            "repo_deployment",
            "repo:invite",
            "security_events",
            "admin:repo_hook",
        ],
    ),
    ("admin:repo_hook", &["write:repo_hook"]),
    ("write:repo_hook", &["read:repo_hook"]),
    ("admin:org", &["write:org"]),
    ("write:org", &["read:org"]),
    ("user", &["read:user", "user:email", "user:follow"]),
];

/// What a person can do about a target that GitHub refuses (ubccpsc/classy#327); a server of one's own does, too.
const LOCAL_TARGET: &str = "GitHub delivers to no local host: let the webhook's target name an address that GitHub \
                            reaches over the network.";

/// An error body.
#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    /// What exactly is wrong.
    #[serde(default, deserialize_with = "entries")]
    errors: Vec<ErrorEntry>,
    #[serde(default)]
    documentation_url: Option<String>,
    /// Why a repository is shut.
    block: Option<serde_json::Value>,
}

/// What a refused call of webhooks was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// All webhooks of a repository that was seen a moment ago.
    All,
    /// One webhook.
    One,
}

/// A 200 as it is, every other answer as the error that it stands for.
pub(super) fn accepted(answer: Answer) -> Result<Answer, ProviderError> {
    accepted_as(answer, StatusCode::OK, refusal)
}

/// An answer of the documented status as it is, every other one as the error that it stands for.
pub(super) fn accepted_as(
    answer: Answer,
    documented: StatusCode,
    refusal: impl FnOnce(&Answer) -> ProviderError,
) -> Result<Answer, ProviderError> {
    if answer.status == documented { Ok(answer) } else { Err(refusal(&answer)) }
}

/// The error of a call of webhooks. To who may not see them, GitHub says that there are none: 404, for the lack of a
/// scope as for the lack of a role (dwyl/tudo#211).
pub(super) fn webhook_refusal(answer: &Answer, refused: Refused) -> ProviderError {
    let error = refusal(answer);
    match (answer.status, body(answer)) {
        (StatusCode::NOT_FOUND, Some(_)) => match lacking_scopes(answer) {
            Some(scopes) => ProviderError::ScopeMissing { scopes },
            None if refused == Refused::All => ProviderError::Forbidden,
            // The webhook itself may be gone.
            None => error,
        },
        (StatusCode::UNPROCESSABLE_ENTITY, Some(body)) => {
            let says = |words: &str| body.errors.iter().any(|entry| entry.message().contains(words));
            // One entry for each event that is at its limit, and the others may be fine.
            if says("cannot have more than") {
                ProviderError::WebhookLimitReached
            } else if says("already exists on this repository") {
                ProviderError::WebhookExists
            } else if says("reachable over the public Internet") {
                ProviderError::WebhookTargetRefused { setting: LOCAL_TARGET }
            } else {
                error
            }
        }
        _ => error,
    }
}

/// An entry of `errors`, which can be a plain text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ErrorEntry {
    Text(String),
    Object {
        #[serde(default)]
        message: Option<String>,
    },
}

impl ErrorEntry {
    fn message(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Object { message } => message.as_deref().unwrap_or(""),
        }
    }
}

/// The entries, none where they are of another shape: the message beside them still says something.
fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ErrorEntry>, D::Error> {
    lenient(deserializer).map(Option::unwrap_or_default)
}

/// The error that an answer other than 200 stands for. Nothing of its body gets into the error.
fn refusal(answer: &Answer) -> ProviderError {
    let status = answer.status.as_u16();
    let failed = |problem| ProviderError::Failed { problem, status: Some(status) };
    match (answer.status, body(answer)) {
        (StatusCode::TOO_MANY_REQUESTS, _) => ProviderError::RateLimited { after: answer.pause() },
        (StatusCode::FORBIDDEN, body) if is_limit(answer, body.as_ref()) => {
            ProviderError::RateLimited { after: answer.pause() }
        }
        (StatusCode::UNAUTHORIZED, Some(_)) => {
            ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status }
        }
        (StatusCode::FORBIDDEN, Some(body)) => forbidden(answer, &body, status),
        (StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, _) => restricted(Restriction::RepositoryBlocked),
        (StatusCode::NOT_FOUND, Some(_)) => ProviderError::NotFound,
        // Without GitHub's own JSON it is a front proxy that speaks, and says nothing of token or repository.
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, None) => {
            failed("something in front of it answered in its place")
        }
        (StatusCode::GONE, _) => failed("it has no longer what this version of its API asks for"),
        (StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY, _) => {
            failed("it refused the request as invalid")
        }
        (code, _) if code.is_redirection() => failed("it redirected a call that it should answer"),
        (code, _) if code.is_success() => failed("it answered without the status that it documents"),
        _ => failed("it answered with an unexpected status"),
    }
}

/// Whether a 403 is one of GitHub's limits. Those with a pause or an empty quota in their headers were told from a
/// denial before they came here; a secondary limit can have nothing but its words (hub4j/github-api#2009), and after
/// many wrong tokens the right one is refused for a while, too (authenticating-to-the-rest-api).
fn is_limit(answer: &Answer, body: Option<&ErrorBody>) -> bool {
    answer.headers.contains_key("gh-limited-by")
        || body.is_some_and(|body| {
            ["secondary rate limit", "rate limit exceeded", "Maximum number of login attempts exceeded"]
                .iter()
                .any(|words| body.message.contains(words))
        })
}

/// What a 403 in GitHub's own JSON says. Its words are all that tells one cause from the other.
fn forbidden(answer: &Answer, body: &ErrorBody, status: u16) -> ProviderError {
    let says = |words: &str| body.message.contains(words);
    let wants_single_sign_on =
        answer.header("x-github-sso").is_some_and(|value| value.trim_start().starts_with("required"));
    if wants_single_sign_on || says("SAML enforcement") {
        return restricted(Restriction::SingleSignOn);
    }
    if says("forbids access via a") || says("lifetime is greater than") {
        return restricted(Restriction::TokenPolicy);
    }
    if says("IP allow list") {
        return restricted(Restriction::AddressList);
    }
    if says("OAuth App access restrictions") {
        return restricted(Restriction::AppPolicy);
    }
    if says("account was suspended") {
        return ProviderError::CredentialRejected { cause: RejectionCause::Blocked, status };
    }
    if says("archived so is read-only") {
        return restricted(Restriction::RepositoryArchived);
    }
    if body.block.is_some() || says("Repository access blocked") {
        return restricted(Restriction::RepositoryBlocked);
    }
    if says("Resource not accessible by") {
        return ProviderError::ScopeMissing { scopes: wanted_permissions(answer) };
    }
    lacking_scopes(answer).map_or(ProviderError::Forbidden, |scopes| ProviderError::ScopeMissing { scopes })
}

/// The scopes of which any one would have done, if the token has none of them. A classic token tells its scopes with
/// each answer, and the answer those that it wants.
fn lacking_scopes(answer: &Answer) -> Option<Vec<String>> {
    let accepted = scopes_of(answer, "x-accepted-oauth-scopes").unwrap_or_default();
    let granted = granted(answer)?;
    let lacks = !accepted.is_empty() && !accepted.iter().any(|scope| holds(&granted, scope));
    lacks.then_some(accepted)
}

const fn restricted(by: Restriction) -> ProviderError {
    ProviderError::Restricted { by }
}

/// Whether an answer refuses a token of an App's installation, which has listings of its own.
pub(super) fn is_for_users_only(answer: &Answer) -> bool {
    answer.status == StatusCode::FORBIDDEN
        && body(answer).is_some_and(|body| body.message.contains("not accessible by integration"))
}

/// The permissions that a fine-grained token would need: `contents=read; issues=write,pull_requests=write`, where
/// semicolons part alternatives.
fn wanted_permissions(answer: &Answer) -> Vec<String> {
    let is_permission = |word: &&str| {
        word.split_once('=')
            .is_some_and(|(name, level)| is_scope(name) && matches!(level, "read" | "write" | "admin"))
    };
    let header = answer.header("x-accepted-github-permissions").unwrap_or("");
    let words = header.split([';', ',']).map(str::trim).filter(is_permission);
    words.take(MAX_SCOPES).map(str::to_owned).collect()
}

/// The scopes of the token; `None` for one that has permissions instead.
pub(super) fn granted(answer: &Answer) -> Option<Vec<String>> {
    scopes_of(answer, "x-oauth-scopes")
}

fn scopes_of(answer: &Answer, name: &str) -> Option<Vec<String>> {
    let words = answer.header(name)?.split(',').map(str::trim).filter(|word| is_scope(word));
    Some(words.take(MAX_SCOPES).map(str::to_owned).collect())
}

/// Whether a token with the scopes `granted` has `scope`, itself or within another one.
pub(super) fn holds(granted: &[String], scope: &str) -> bool {
    granted.iter().any(|outer| includes(outer, scope))
}

/// Whether a scope includes another one.
pub(super) fn includes(outer: &str, scope: &str) -> bool {
    outer == scope
        || HELD
            .iter()
            .find(|(name, _)| *name == outer)
            .is_some_and(|(_, held)| held.iter().any(|inner| includes(inner, scope)))
}

fn body(answer: &Answer) -> Option<ErrorBody> {
    if !answer.is_json() {
        return None;
    }
    // A JSON that is no object says as little as a page of HTML.
    answer.json().ok()
}

/// Whether an answer, of whatever status, has a mark that only GitHub leaves: a header of its own, or an error that
/// names GitHub's documentation.
pub(super) fn speaks_github(answer: &Answer) -> bool {
    let own = ["x-github-request-id", "x-github-media-type", "x-github-enterprise-version"];
    if own.iter().any(|name| answer.headers.contains_key(*name)) {
        return true;
    }
    !answer.status.is_success()
        && body(answer).and_then(|body| body.documentation_url).is_some_and(|url| {
            ["https://docs.github.com/", "https://developer.github.com/"]
                .iter()
                .any(|own| url.starts_with(own))
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::provider::api::test_answer as answer;

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    fn message(status: u16, headers: &[(&str, &str)], message: &str) -> ProviderError {
        let body =
            serde_json::json!({"message": message, "documentation_url": "https://docs.github.com/rest"});
        refusal(&answer(status, &[&[JSON], headers].concat(), &body.to_string()))
    }

    /// The error that a recorded exchange or a documented error stands for.
    fn replayed(response: &serde_json::Value) -> ProviderError {
        refusal(&answer_of(response))
    }

    fn answer_of(response: &serde_json::Value) -> Answer {
        let headers: Vec<(&str, &str)> = response["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
            .collect();
        let body = response["bodyText"].as_str().map_or_else(|| response["body"].to_string(), str::to_owned);
        let status = u16::try_from(response["status"].as_u64().expect("status")).expect("status");
        answer(status, &headers, &body)
    }

    #[test]
    fn every_documented_error_has_its_meaning() {
        let file = include_str!("../../../tests/fixtures/providers/github/documented/errors.json");
        let file: serde_json::Value = serde_json::from_str(file).expect("fixture");
        let invalid = |error| matches!(error, ProviderError::Failed { status: Some(422), .. });
        for case in ["errors", "assembled"].iter().flat_map(|list| file[list].as_array().expect("a list")) {
            let error = replayed(case);
            match case["name"].as_str().expect("a name") {
                "saml-enforced" => assert_eq!(error, restricted(Restriction::SingleSignOn)),
                "bad-credentials" => assert_eq!(
                    error,
                    ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status: 401 }
                ),
                "fine-grained-missing-permission" => {
                    assert_eq!(error, ProviderError::ScopeMissing { scopes: vec!["metadata=read".into()] });
                }
                "not-found-hides-forbidden" => assert_eq!(error, ProviderError::NotFound),
                name @ ("hook-already-exists" | "hook-limit") => {
                    let meaning = if name == "hook-limit" {
                        ProviderError::WebhookLimitReached
                    } else {
                        ProviderError::WebhookExists
                    };
                    assert_eq!(webhook_refusal(&answer_of(case), Refused::All), meaning);
                    assert!(invalid(error), "of another call it says nothing");
                }
                "saml-partial-list" => {}
                other => panic!("the documented error {other} has no meaning"),
            }
        }
    }

    #[test]
    fn every_recorded_refusal_has_its_meaning() {
        macro_rules! recorded {
            ($name:literal) => {{
                let text = include_str!(concat!(
                    "../../../tests/fixtures/providers/github/exchanges/",
                    $name,
                    ".json"
                ));
                let exchange: serde_json::Value = serde_json::from_str(text).expect("fixture");
                replayed(&exchange["response"])
            }};
        }
        let limited = |seconds| ProviderError::RateLimited { after: Duration::from_secs(seconds) };
        assert_eq!(recorded!("secondary-403-gh-limited-by"), limited(60));
        assert_eq!(recorded!("secondary-429-retry-after"), limited(8));
        assert_eq!(recorded!("traffic-403-push-access-required"), ProviderError::Forbidden);
        assert_eq!(recorded!("collaborator-permission-403"), ProviderError::Forbidden);
        assert_eq!(recorded!("ghes-rate-limit-404-disabled"), ProviderError::NotFound);
        assert_eq!(recorded!("hook-get-404-after-delete"), ProviderError::NotFound);
        assert_eq!(
            recorded!("rate-limit-401-bad-credentials"),
            ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status: 401 }
        );
    }

    #[test]
    fn a_refused_webhook_is_told_by_its_entries() {
        let refused = |errors: serde_json::Value| {
            let body = serde_json::json!({"message": "Validation Failed", "errors": errors}).to_string();
            webhook_refusal(&answer(422, &[JSON], &body), Refused::All)
        };
        let local = ProviderError::WebhookTargetRefused { setting: LOCAL_TARGET };
        for text in [
            "Sorry, the URL host localhost is not supported because it isn't reachable over the public Internet",
            "URL is not supported because it isn't reachable over the public Internet (localhost)",
        ] {
            assert_eq!(refused(serde_json::json!([{"resource": "Hook", "message": text}])), local);
            assert_eq!(refused(serde_json::json!([text])), local, "as a plain text");
        }
        let full = "The \"push\" event cannot have more than 20 hooks";
        let both = serde_json::json!([{"message": null}, {"message": full}]);
        assert_eq!(refused(both), ProviderError::WebhookLimitReached);
        for other in
            [serde_json::json!("text"), serde_json::json!([7]), serde_json::json!([{"code": "invalid"}])]
        {
            assert!(matches!(refused(other), ProviderError::Failed { status: Some(422), .. }));
        }
        let gone =
            answer_of(&serde_json::json!({"status": 404, "headers": {"content-type": "application/json"},
            "body": {"message": "Not Found"}}));
        assert_eq!(webhook_refusal(&gone, Refused::One), ProviderError::NotFound);
        assert_eq!(webhook_refusal(&gone, Refused::All), ProviderError::Forbidden);
        let archived = "Repository was archived so is read-only.";
        assert_eq!(message(403, &[], archived), restricted(Restriction::RepositoryArchived));
    }

    #[test]
    fn h34_a_403_that_asks_to_slow_down_is_no_denial() {
        for words in [
            "You have exceeded a secondary rate limit. Please wait a few minutes before you try again",
            "API rate limit exceeded for user ID 1.",
            "Maximum number of login attempts exceeded. Please try again later.",
        ] {
            assert_eq!(
                message(403, &[], words),
                ProviderError::RateLimited { after: Duration::from_secs(60) }
            );
        }
        let told = message(403, &[("gh-limited-by", "search"), ("retry-after", "7")], "no");
        assert_eq!(told, ProviderError::RateLimited { after: Duration::from_secs(7) });
    }

    #[test]
    fn each_rule_that_stands_against_a_good_token_is_told_apart() {
        for (words, by) in [
            (
                "`acme` forbids access via a personal access token (classic). Please use a GitHub App",
                Restriction::TokenPolicy,
            ),
            (
                "`acme` forbids access via a fine-grained personal access tokens if the token's lifetime is greater \
                 than 366 days. Please adjust your token's lifetime",
                Restriction::TokenPolicy,
            ),
            (
                "Although you appear to have the correct authorization credentials, the `acme` organization has an IP \
                 allow list enabled, and your IP address is not permitted to access this resource.",
                Restriction::AddressList,
            ),
            (
                "Although you appear to have the correct authorization credentials, the `acme` organization has \
                 enabled OAuth App access restrictions",
                Restriction::AppPolicy,
            ),
            ("Resource protected by organization SAML enforcement.", Restriction::SingleSignOn),
            ("Repository access blocked", Restriction::RepositoryBlocked),
        ] {
            assert_eq!(message(403, &[], words), restricted(by), "{words}");
        }
        let sso =
            [("x-github-sso", "required; url=https://github.com/orgs/acme/sso?authorization_request=AAAA")];
        assert_eq!(message(403, &sso, "Forbidden"), restricted(Restriction::SingleSignOn));
        let blocked =
            r#"{"message":"Repository access blocked","block":{"reason":"tos","created_at":"2024-01-01"}}"#;
        assert_eq!(refusal(&answer(403, &[JSON], blocked)), restricted(Restriction::RepositoryBlocked));
        assert_eq!(refusal(&answer(451, &[JSON], "{}")), restricted(Restriction::RepositoryBlocked));
    }

    #[test]
    fn ac_16_a_suspended_account_is_no_missing_right() {
        assert_eq!(
            message(403, &[], "Sorry. Your account was suspended."),
            ProviderError::CredentialRejected { cause: RejectionCause::Blocked, status: 403 }
        );
    }

    #[test]
    fn ac_19_h33_a_missing_scope_is_told_by_what_would_do() {
        let headers =
            [("x-oauth-scopes", "gist, repo"), ("x-accepted-oauth-scopes", "admin:org, read:org, user")];
        assert_eq!(
            message(
                403,
                &headers,
                "You need at least read:org scope or user scope to list your organizations."
            ),
            ProviderError::ScopeMissing {
                scopes: vec!["admin:org".into(), "read:org".into(), "user".into()]
            }
        );
        // A token with no scopes at all has the header, and nothing in it.
        let none = [("x-oauth-scopes", ""), ("x-accepted-oauth-scopes", "repo, <b>")];
        assert_eq!(message(403, &none, "No"), ProviderError::ScopeMissing { scopes: vec!["repo".into()] });
        let within = [("x-oauth-scopes", "repo"), ("x-accepted-oauth-scopes", "read:repo_hook")];
        assert_eq!(message(403, &within, "Must have admin rights to Repository."), ProviderError::Forbidden);
        let permissions = [(
            "x-accepted-github-permissions",
            "contents=read; issues=write,pull_requests=write; allows_permissionless_access=true",
        )];
        assert_eq!(
            message(403, &permissions, "Resource not accessible by personal access token"),
            ProviderError::ScopeMissing {
                scopes: vec!["contents=read".into(), "issues=write".into(), "pull_requests=write".into()]
            }
        );
    }

    #[test]
    fn a_scope_holds_those_within_it() {
        let granted = |text: &str| text.split(", ").map(str::to_owned).collect::<Vec<_>>();
        assert!(holds(&granted("gist, repo"), "read:repo_hook"));
        assert!(holds(&granted("admin:org"), "read:org") && holds(&granted("user"), "read:user"));
        assert!(!holds(&granted("public_repo, read:repo_hook"), "write:repo_hook"));
        assert!(!holds(&[], "repo"));
    }

    #[test]
    fn a_front_proxy_says_nothing_of_token_or_repository() {
        for status in [401, 403, 404] {
            let error = refusal(&answer(status, &[("content-type", "text/html")], "<html>"));
            let problem = "something in front of it answered in its place";
            assert_eq!(error, ProviderError::Failed { problem, status: Some(status) });
        }
        // "Request forbidden by administrative rules" is such a page.
    }

    #[test]
    fn github_is_known_by_its_headers_and_its_documentation() {
        let says = |status, headers: &[(&str, &str)], body| speaks_github(&answer(status, headers, body));
        assert!(says(200, &[("x-github-request-id", "A:B")], "[]"));
        assert!(says(
            401,
            &[JSON],
            r#"{"message":"Bad credentials","documentation_url":"https://docs.github.com/rest"}"#
        ));
        assert!(!says(401, &[JSON], r#"{"message":"401 Unauthorized"}"#));
        assert!(!says(
            404,
            &[JSON],
            r#"{"message":"x","documentation_url":"https://evil.test/docs.github.com/"}"#
        ));
        assert!(!says(200, &[JSON], r#"{"documentation_url":"https://docs.github.com/rest"}"#));
    }
}
