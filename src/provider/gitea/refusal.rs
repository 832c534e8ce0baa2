//! What Gitea's refusals mean: the one place that reads its sentences.

use http::StatusCode;
use serde::Deserialize;

use crate::provider::api::Answer;
use crate::provider::inspection::is_scope;
use crate::provider::{ProviderError, RejectionCause, Restriction};

/// Most scopes that are read out of a refusal; there are about 20.
const MAX_SCOPES: usize = 64;
/// What begins a refusal for want of a scope, in every version since 1.19.
const LACKS_SCOPE: &str = "token does not have at least one of required scope(s)";
/// What begins a refusal of a private repository to a token with the scope `public-only`.
const PUBLIC_ONLY: &str = "token scope is limited to public";
/// What everybody is told, the version included, where the server shows itself to nobody.
const SIGN_IN: &str = "Only signed in user is allowed to call APIs.";

/// What everybody is told of webhooks where the administrator switched them off.
const NO_WEBHOOKS: &str = "webhooks disabled by administrator";

/// An error body.
#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    /// The API description of the server.
    url: Option<String>,
}

/// A 200 in JSON as it is, every other answer as the error that it stands for.
pub(super) fn accepted(answer: Answer) -> Result<Answer, ProviderError> {
    accepted_as(answer, StatusCode::OK)
}

/// An answer of the documented status as it is, in JSON unless it has no content; every other one as the error that it
/// stands for.
pub(super) fn accepted_as(answer: Answer, documented: StatusCode) -> Result<Answer, ProviderError> {
    let is_json = answer.is_json() || documented == StatusCode::NO_CONTENT;
    if answer.status == documented && is_json { Ok(answer) } else { Err(refusal(&answer)) }
}

/// The error that an answer stands for. Nothing of its body gets into the error but scope names.
fn refusal(answer: &Answer) -> ProviderError {
    let status = answer.status.as_u16();
    let failed = |problem| ProviderError::Failed { problem, status: Some(status) };
    match (answer.status, body(answer)) {
        (StatusCode::TOO_MANY_REQUESTS, _) => ProviderError::RateLimited { after: answer.pause() },
        (StatusCode::UNAUTHORIZED, Some(_)) => {
            ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status }
        }
        (StatusCode::FORBIDDEN, Some(body)) => forbidden(&body.message, status),
        (StatusCode::NOT_FOUND, Some(_)) => ProviderError::NotFound,
        // A call that this version does not have is answered in plain text, a missing thing sometimes with nothing.
        (StatusCode::NOT_FOUND, None) if answer.body.is_empty() || is_plain(answer) => {
            ProviderError::NotFound
        }
        // Without Gitea's own words it is a front proxy that speaks, and says nothing of token or repository.
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, None) => {
            failed("something in front of it answered in its place")
        }
        (StatusCode::LOCKED, Some(_)) => ProviderError::Restricted { by: Restriction::RepositoryArchived },
        (StatusCode::UNPROCESSABLE_ENTITY, _) => failed("it refused the request as invalid"),
        // A page that asks whether the caller is a robot has the status 200.
        (StatusCode::OK | StatusCode::CREATED, _) => failed("it answered with a page instead of JSON"),
        (code, _) if code.is_redirection() => failed("it redirected a call that it should answer"),
        _ => failed("it answered with an unexpected status"),
    }
}

/// Scope, state of the account, or right: in this order, for only the first two are worded alike in all versions.
fn forbidden(message: &str, status: u16) -> ProviderError {
    if message.starts_with(LACKS_SCOPE) {
        return ProviderError::ScopeMissing { scopes: required(message) };
    }
    if message.starts_with(PUBLIC_ONLY) {
        return ProviderError::ScopeMissing { scopes: Vec::new() };
    }
    if message == SIGN_IN {
        return ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status };
    }
    if speaks_of_the_account(message) {
        return ProviderError::CredentialRejected { cause: RejectionCause::Blocked, status };
    }
    if message == NO_WEBHOOKS {
        return ProviderError::Restricted { by: Restriction::WebhooksDisabled };
    }
    ProviderError::Forbidden
}

/// Blocked, not activated, a password to change, two-factor authentication to set up: every call ends with it.
fn speaks_of_the_account(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.starts_with("this account is ")
        || message.starts_with("you must change your password")
        || message.contains("two-factor")
        || message.contains("two factor")
}

/// The scopes that a refused call needs, one of which would do: `…: [a,b]` up to 1.22 and in Forgejo,
/// `…, required=[a,b], token scope=…` since 1.23.
fn required(message: &str) -> Vec<String> {
    let list = message.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    list.map_or_else(Vec::new, |(list, _)| scopes(list))
}

/// The scopes of the token itself, if the answer is a refusal that tells them, as Gitea's do since 1.23. A list of
/// another form tells nothing: what of it were read would make the rest look missing.
pub(super) fn told_scopes(answer: &Answer) -> Option<Vec<String>> {
    let message = body(answer)?.message;
    if answer.status != StatusCode::FORBIDDEN || !message.starts_with(LACKS_SCOPE) {
        return None;
    }
    let (_, list) = message.split_once("token scope=")?;
    let is_read = list.split([',', ' ']).all(|word| word.is_empty() || is_scope(word));
    is_read.then(|| scopes(list))
}

fn scopes(list: &str) -> Vec<String> {
    let words = list.split([',', ' ']).map(str::trim).filter(|word| is_scope(word));
    words.take(MAX_SCOPES).map(str::to_owned).collect()
}

/// Whether an answer is a refusal that only Gitea words so: it names its own API description, or it is one of the
/// sentences that come without.
pub(super) fn speaks_gitea(answer: &Answer) -> bool {
    if answer.status.is_success() {
        return false;
    }
    body(answer).is_some_and(|body| {
        body.url.is_some_and(|url| url.ends_with("/api/swagger"))
            || body.message == SIGN_IN
            || body.message.starts_with(LACKS_SCOPE)
            || body.message.starts_with("This account is ")
            || body.message.starts_with("You must change your password")
    })
}

fn body(answer: &Answer) -> Option<ErrorBody> {
    if !answer.is_json() {
        return None;
    }
    // A JSON that is no object says as little as a page of HTML.
    answer.json().ok()
}

fn is_plain(answer: &Answer) -> bool {
    answer.header("content-type").is_some_and(|value| value.starts_with("text/plain"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::provider::api::test_answer;

    const JSON: (&str, &str) = ("content-type", "application/json;charset=utf-8");

    fn json(status: u16, body: &str) -> ProviderError {
        refusal(&test_answer(status, &[JSON], body))
    }

    fn message(text: &str) -> ProviderError {
        json(403, &serde_json::json!({ "message": text }).to_string())
    }

    /// The answer of a recorded exchange.
    fn recorded(text: &str) -> Answer {
        let exchange: Value = serde_json::from_str(text).expect("fixture");
        let response = &exchange["response"];
        let headers: Vec<(&str, &str)> = response["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
            .collect();
        let body = response["bodyText"].as_str().map_or_else(|| response["body"].to_string(), str::to_owned);
        let status = u16::try_from(response["status"].as_u64().expect("status")).expect("status");
        test_answer(status, &headers, &body)
    }

    macro_rules! exchange {
        ($name:literal) => {
            recorded(include_str!(concat!(
                "../../../tests/fixtures/providers/gitea/exchanges/",
                $name,
                ".json"
            )))
        };
    }

    fn scope_missing(scope: &str) -> ProviderError {
        ProviderError::ScopeMissing { scopes: vec![scope.to_owned()] }
    }

    #[test]
    fn every_recorded_refusal_has_its_meaning() {
        let rejected = |cause, status| ProviderError::CredentialRejected { cause, status };
        for (answer, meaning) in [
            (exchange!("user_unknown_token_401"), rejected(RejectionCause::Unknown, 401)),
            (exchange!("user_anonymous_401"), rejected(RejectionCause::Unknown, 401)),
            (exchange!("tokens_list_with_token"), rejected(RejectionCause::Unknown, 401)),
            (exchange!("signin_view_anonymous_api_v1_version"), rejected(RejectionCause::Unknown, 403)),
            (exchange!("user_prohibit_login"), rejected(RejectionCause::Blocked, 403)),
            (exchange!("user_403_scope"), scope_missing("read:user")),
            (exchange!("hooks_403_scope"), scope_missing("read:repository")),
            (exchange!("hook_create_403_scope"), scope_missing("write:repository")),
            (exchange!("hook_create_403_not_admin"), ProviderError::Forbidden),
            (exchange!("hooks_disabled"), ProviderError::Restricted { by: Restriction::WebhooksDisabled }),
            (exchange!("hook_missing_404"), ProviderError::NotFound),
            (exchange!("hook_delete_again_404"), ProviderError::NotFound),
            (exchange!("repo_missing_404"), ProviderError::NotFound),
            (exchange!("repo_by_id_404"), ProviderError::NotFound),
            (exchange!("repo_hidden_404"), ProviderError::NotFound),
            (exchange!("token_404"), ProviderError::NotFound),
        ] {
            assert_eq!(refusal(&answer), meaning, "{answer:?}");
            // Only the text that a call is unknown could be anybody's.
            assert_eq!(speaks_gitea(&answer), answer.is_json(), "{answer:?}");
        }
    }

    #[test]
    fn every_documented_error_has_its_meaning() {
        let file = include_str!("../../../tests/fixtures/providers/gitea/documented/errors.json");
        let file: Value = serde_json::from_str(file).expect("fixture");
        for case in file["errors"].as_array().into_iter().chain(file["assembled"].as_array()).flatten() {
            let status = u16::try_from(case["status"].as_u64().expect("status")).expect("status");
            let error = json(status, &case["body"].to_string());
            let rejected = ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status };
            match case["name"].as_str().expect("name") {
                "token-required" | "bad-token" => assert_eq!(error, rejected),
                "missing-scope" => assert_eq!(error, scope_missing("read:user")),
                "not-found" => assert_eq!(error, ProviderError::NotFound),
                _ => assert!(matches!(error, ProviderError::Failed { status: Some(422), .. })),
            }
        }
    }

    #[test]
    fn ac_19_h33_the_scopes_of_a_refusal_are_read_in_either_form() {
        let told = |text: &str| {
            let body = serde_json::json!({ "message": text }).to_string();
            told_scopes(&test_answer(403, &[JSON], &body))
        };
        assert_eq!(told_scopes(&exchange!("user_403_scope")), Some(vec!["read:repository".to_owned()]));
        assert_eq!(
            told_scopes(&exchange!("hook_create_403_scope")).map(|scopes| scopes.join(" ")),
            Some("read:organization read:repository read:user".to_owned())
        );
        let old = "token does not have at least one of required scope(s): [read:user, <b>]";
        assert_eq!((message(old), told(old)), (scope_missing("read:user"), None));
        // A third form is a missing scope all the same.
        let third = "token does not have at least one of required scope(s)";
        assert_eq!((message(third), told(third)), (ProviderError::ScopeMissing { scopes: Vec::new() }, None));
        let none =
            "token does not have at least one of required scope(s), required=[read:user], token scope=";
        assert_eq!(told(none), Some(Vec::new()));
        for odd in ["[read:user write:repository]", "read:user, \"write:repository\"", "read:user; all"] {
            let odd = format!("{LACKS_SCOPE}, required=[read:user], token scope={odd}");
            assert_eq!((message(&odd), told(&odd)), (scope_missing("read:user"), None), "{odd}");
        }
        assert_eq!(
            message("token scope is limited to public repos"),
            ProviderError::ScopeMissing { scopes: Vec::new() }
        );
    }

    #[test]
    fn ac_16_a_blocked_user_is_told_from_a_missing_right() {
        for text in [
            "This account is prohibited from signing in, please contact your site administrator.",
            "This account is not activated.",
            "You must change your password. Change it at: https://git.test/user/change_password",
            "Two-factor authentication is required",
        ] {
            let blocked = ProviderError::CredentialRejected { cause: RejectionCause::Blocked, status: 403 };
            assert_eq!(message(text), blocked, "{text}");
        }
        assert_eq!(message("user should be the site admin"), ProviderError::Forbidden);
    }

    #[test]
    fn a_front_proxy_says_nothing_of_token_or_repository() {
        for status in [200, 401, 403, 404] {
            let error = refusal(&test_answer(status, &[("content-type", "text/html")], "<html>"));
            assert!(matches!(error, ProviderError::Failed { status: Some(s), .. } if s == status));
        }
        assert_eq!(refusal(&test_answer(404, &[], "")), ProviderError::NotFound);
        let limited = refusal(&test_answer(429, &[("retry-after", "7")], "<html>"));
        assert_eq!(limited, ProviderError::RateLimited { after: Duration::from_secs(7) });
    }

    #[test]
    fn gitea_is_known_by_its_refusals_alone() {
        let says = |status, body| speaks_gitea(&test_answer(status, &[JSON], body));
        assert!(says(404, r#"{"message":"not found","url":"https://git.test/sub/api/swagger"}"#));
        assert!(!says(404, r#"{"message":"Not Found","documentation_url":"https://docs.test"}"#));
        assert!(!says(200, r#"{"url":"https://git.test/api/swagger"}"#) && !says(404, "[]"));
    }
}
