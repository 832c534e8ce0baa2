//! What Bitbucket Cloud's refusals mean: the one place that reads them.

use http::StatusCode;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use serde::Deserialize;
use serde_json::Value;

use crate::provider::api::Answer;
use crate::provider::inspection::is_scope;
use crate::provider::{ProviderError, RejectionCause};

/// Most scopes that are read out of an answer; Bitbucket has about 50.
const MAX_SCOPES: usize = 64;
/// The kind of the credential, on every answer to an accepted one, also on a refusal.
const CREDENTIAL_TYPE: &str = "x-credential-type";
/// What the credential may do, on the same answers.
const SCOPES: &str = "x-oauth-scopes";
/// No setting of anybody's makes Bitbucket deliver elsewhere.
const TARGET_RULE: &str = "Bitbucket Cloud delivers only to addresses that anybody reaches, behind a certificate that anybody \
    trusts: give a target whose name resolves publicly.";

/// An error body: `{"type": "error", "error": {"message", "detail"?}}`.
#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: ErrorRow,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorRow {
    message: Option<String>,
    // The description says that this is a string; a refusal for want of a scope sends an object.
    detail: Value,
    // What is wrong with which member: an object by their names, or a list of texts.
    fields: Value,
}

/// A 200 as it is, every other answer as the error that it stands for.
pub(super) fn accepted(answer: Answer) -> Result<Answer, ProviderError> {
    if answer.status == StatusCode::OK { Ok(answer) } else { Err(refusal(&answer)) }
}

/// The error that an answer other than 200 stands for. Nothing of its body gets into the error but scope names.
pub(super) fn refusal(answer: &Answer) -> ProviderError {
    let status = answer.status.as_u16();
    let failed = |problem| ProviderError::Failed { problem, status: Some(status) };
    match (answer.status, error_of(answer)) {
        (StatusCode::TOO_MANY_REQUESTS, _) => ProviderError::RateLimited { after: answer.pause() },
        // A 401 is plain text, and some are JSON; only a page of HTML is somebody else's.
        (StatusCode::UNAUTHORIZED, _) if !is_html(answer) => {
            ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status }
        }
        (StatusCode::FORBIDDEN, Some(error)) => forbidden(&error),
        (StatusCode::NOT_FOUND, Some(_)) => ProviderError::NotFound,
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, _) => {
            failed("something in front of it answered in its place")
        }
        (StatusCode::GONE, Some(error)) if is_removed_call(&error) => failed("it no longer has this call"),
        (StatusCode::GONE, _) => failed("it says that what was asked for is gone"),
        (StatusCode::BAD_REQUEST, _) => failed("it refused the request as invalid"),
        (code, _) if code.is_redirection() => failed("it redirected a call that it should answer"),
        (code, _) if code.is_success() => failed("it answered without the status that it documents"),
        _ => failed("it answered with an unexpected status"),
    }
}

/// The error of a refused change of a webhook. A 400 speaks of the target if it speaks of its member: it must resolve, to
/// an address that is routed. How the number of webhooks is limited is not documented, nor in which words.
pub(super) fn refused_hook(answer: &Answer) -> ProviderError {
    let told = if answer.status == StatusCode::BAD_REQUEST { error_of(answer) } else { None };
    match told {
        Some(error) if error.names("url") => ProviderError::WebhookTargetRefused { setting: TARGET_RULE },
        Some(error) if error.is_limit() => ProviderError::WebhookLimitReached,
        _ => refusal(answer),
    }
}

impl ErrorRow {
    /// Whether a member of what was sent is named as the one that is wrong.
    fn names(&self, member: &str) -> bool {
        match &self.fields {
            Value::Object(fields) => fields.contains_key(member),
            Value::Array(texts) => texts.iter().filter_map(Value::as_str).any(|text| text.contains(member)),
            _ => false,
        }
    }

    fn is_limit(&self) -> bool {
        let message = self.message.as_deref().unwrap_or("").to_ascii_lowercase();
        message.contains("webhook") && (message.contains("limit") || message.contains("maximum"))
    }
}

/// A scope, or a right of the user: only the first is named.
fn forbidden(error: &ErrorRow) -> ProviderError {
    let required = error.detail.get("required").and_then(Value::as_array);
    let message = error.message.as_deref().unwrap_or("");
    if required.is_some() || message.contains("privilege scopes") {
        let words = required.into_iter().flatten().filter_map(Value::as_str);
        return ProviderError::ScopeMissing { scopes: scopes_of(words) };
    }
    ProviderError::Forbidden
}

/// The announcements of removed calls are numbered; a workspace marked as spam answers 410, too.
fn is_removed_call(error: &ErrorRow) -> bool {
    error
        .message
        .as_deref()
        .is_some_and(|message| message.starts_with("CHANGE-") || message.starts_with("CH-"))
}

fn error_of(answer: &Answer) -> Option<ErrorRow> {
    if !answer.is_json() {
        return None;
    }
    answer.json::<ErrorBody>().ok().map(|body| body.error)
}

fn is_html(answer: &Answer) -> bool {
    answer
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

fn scopes_of<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    words.map(str::trim).filter(|word| is_scope(word)).take(MAX_SCOPES).map(str::to_owned).collect()
}

/// The kind of the credential that an answer names; only an accepted one gets that.
pub(super) fn credential_type(answer: &Answer) -> Option<&str> {
    answer.header(CREDENTIAL_TYPE).map(str::trim).filter(|kind| !kind.is_empty())
}

/// The scopes that an answer says the credential has; `None` if it does not say.
pub(super) fn granted(answer: &Answer) -> Option<Vec<String>> {
    answer.header(SCOPES).map(|list| scopes_of(list.split(',')))
}

/// Whether an answer, of whatever status, has a mark that only Bitbucket Cloud leaves: one of its headers, its
/// realm, an error in its own form, or its words for a refused token.
pub(super) fn speaks_bitbucket(answer: &Answer) -> bool {
    let own_header = [CREDENTIAL_TYPE, SCOPES, "x-accepted-oauth-scopes", "x-view-name"];
    if own_header.iter().any(|name| answer.headers.contains_key(*name)) {
        return true;
    }
    let realm = answer.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    if realm.is_some_and(|realm| realm.contains("Bitbucket")) {
        return true;
    }
    if answer.status.is_success() {
        return false;
    }
    let typed = answer.is_json()
        && answer.json::<Value>().is_ok_and(|body| body["type"] == "error" && body["error"].is_object());
    typed
        || (answer.status == StatusCode::UNAUTHORIZED
            && answer.body.starts_with(b"Token is invalid, expired"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer as answer;

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    fn json(status: u16, body: &str) -> ProviderError {
        refusal(&answer(status, &[JSON], body))
    }

    fn rejected(status: u16) -> ProviderError {
        ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status }
    }

    /// Status, headers and body of a recorded or documented answer.
    fn fixture(case: &Value) -> Answer {
        let headers: Vec<(&str, &str)> = case["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
            .collect();
        let body = case["bodyText"].as_str().map_or_else(|| case["body"].to_string(), str::to_owned);
        answer(u16::try_from(case["status"].as_u64().expect("a status")).expect("a status"), &headers, &body)
    }

    #[test]
    fn every_documented_error_has_its_meaning() {
        let file = include_str!("../../../tests/fixtures/providers/bitbucket-cloud/documented/errors.json");
        let file: Value = serde_json::from_str(file).expect("fixture");
        let all = file["errors"].as_array().into_iter().chain(file["assembled"].as_array()).flatten();
        for case in all {
            let answer = fixture(case);
            let error = refusal(&answer);
            let name = case["name"].as_str().expect("a name");
            match name {
                "cross-workspace-gone" => assert_eq!(
                    error,
                    ProviderError::Failed { problem: "it no longer has this call", status: Some(410) }
                ),
                "missing-scope" => {
                    assert_eq!(error, ProviderError::ScopeMissing { scopes: vec!["account".into()] });
                }
                "token-refused" => assert_eq!(error, rejected(401)),
                "not-found" => assert_eq!(error, ProviderError::NotFound),
                "throttled" => assert!(matches!(error, ProviderError::RateLimited { .. })),
                other => panic!("what does {other} mean?"),
            }
            assert!(name == "throttled" || speaks_bitbucket(&answer), "{name}");
        }
    }

    #[test]
    fn a_refused_token_is_told_in_plain_text() {
        let text = include_str!(
            "../../../tests/fixtures/providers/bitbucket-cloud/exchanges/user-401-text-plain.json"
        );
        let exchange: Value = serde_json::from_str(text).expect("fixture");
        let recorded = fixture(&exchange["response"]);
        assert_eq!(refusal(&recorded), rejected(401));
        assert!(speaks_bitbucket(&recorded) && credential_type(&recorded).is_none());
        // Seen as JSON, too.
        let body = r#"{"type":"error","error":{"message":"Token is invalid, expired, or not supported for this endpoint."}}"#;
        assert_eq!(json(401, body), rejected(401));
    }

    #[test]
    fn detail_is_a_string_or_an_object() {
        let scope = |detail: &str| {
            json(403, &format!(r#"{{"type":"error","error":{{"message":"no","detail":{detail}}}}}"#))
        };
        assert_eq!(
            scope(r#"{"granted":["repository"],"required":["read:webhook:bitbucket","<b>"]}"#),
            ProviderError::ScopeMissing { scopes: vec!["read:webhook:bitbucket".into()] }
        );
        assert_eq!(scope(r#""You need admin access.""#), ProviderError::Forbidden);
        assert_eq!(scope("null"), ProviderError::Forbidden);
        let bare = r#"{"type":"error","error":{"message":"Your credentials lack one or more required privilege scopes."}}"#;
        assert_eq!(json(403, bare), ProviderError::ScopeMissing { scopes: Vec::new() });
    }

    #[test]
    fn ac_56_a_target_that_is_not_delivered_to_is_told() {
        let hook = |status, error: &str| {
            let body = format!(r#"{{"type":"error","error":{{"message":"Bad request",{error}}}}}"#);
            refused_hook(&answer(status, &[JSON], &body))
        };
        let target = ProviderError::WebhookTargetRefused { setting: TARGET_RULE };
        assert_eq!(hook(400, r#""fields":{"url":["The URL must be publicly routable."]}"#), target);
        assert_eq!(hook(400, r#""fields":["Field: url Error: not resolved"]"#), target);
        let other = hook(400, r#""fields":{"events":["unknown"]}"#);
        assert_eq!(
            other,
            ProviderError::Failed { problem: "it refused the request as invalid", status: Some(400) }
        );
        assert_eq!(hook(403, r#""fields":{"url":[]}"#), ProviderError::Forbidden);
        let limit = r#"{"type":"error","error":{"message":"The maximum number of webhooks is reached."}}"#;
        assert_eq!(refused_hook(&answer(400, &[JSON], limit)), ProviderError::WebhookLimitReached);
    }

    #[test]
    fn a_workspace_that_is_gone_is_told_from_a_removed_call() {
        let gone =
            |message: &str| json(410, &format!(r#"{{"type":"error","error":{{"message":"{message}"}}}}"#));
        let problem = |error| match error {
            ProviderError::Failed { problem, .. } => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            problem(gone("This account has been marked as spam")),
            "it says that what was asked for is gone"
        );
        assert_eq!(
            problem(gone("CHANGE-2770 - Functionality has been deprecated")),
            "it no longer has this call"
        );
    }

    #[test]
    fn a_front_proxy_says_nothing_of_token_or_repository() {
        for status in [401, 403, 404] {
            let error = refusal(&answer(status, &[("content-type", "text/html")], "<html>"));
            let problem = "something in front of it answered in its place";
            assert_eq!(error, ProviderError::Failed { problem, status: Some(status) });
        }
    }

    #[test]
    fn bitbucket_is_known_by_its_marks() {
        let says = |status, headers: &[(&str, &str)], body| speaks_bitbucket(&answer(status, headers, body));
        assert!(says(200, &[JSON, (CREDENTIAL_TYPE, "api_token")], "{}"));
        assert!(says(404, &[JSON], r#"{"type":"error","error":{"message":"x"}}"#));
        // Data Center, GitLab, a page.
        assert!(!says(404, &[JSON], r#"{"errors":[{"context":null,"message":"x"}]}"#));
        assert!(!says(401, &[JSON], r#"{"message":"401 Unauthorized"}"#));
        assert!(!says(401, &[("content-type", "text/plain")], "Unauthorized"));
        assert!(!says(200, &[JSON], r#"{"type":"error","error":{}}"#));
    }

    #[test]
    fn scopes_come_in_a_list_with_commas() {
        let list = |value: &str| granted(&answer(200, &[(SCOPES, value)], ""));
        assert_eq!(
            list("pipeline, pullrequest:write, account"),
            Some(vec!["pipeline".into(), "pullrequest:write".into(), "account".into()])
        );
        assert_eq!(list(""), Some(Vec::new()));
        assert_eq!(list("read:user:bitbucket,  <script>"), Some(vec!["read:user:bitbucket".into()]));
        assert_eq!(granted(&answer(200, &[], "")), None);
    }
}
