//! What GitLab's refusals mean: the one place that reads them.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::provider::api::Answer;
use crate::provider::inspection::is_scope;
use crate::provider::{ProviderError, RejectionCause};

/// Most scopes that are read out of a refusal; GitLab has about 20.
const MAX_SCOPES: usize = 32;

/// An error body: GitLab has the key `message` or `error`, and a string or an object of arrays below it.
#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: Value,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    error_description: Value,
    #[serde(default)]
    scope: Value,
}

/// The setting of a server that decides where webhooks may go, and what gitlab.com says in its place.
const OUTBOUND_REQUESTS: &str = "An administrator allows local targets in Admin > Settings > Network > Outbound \
                                 requests, for all of them or by its list; gitlab.com delivers to public addresses \
                                 alone.";

impl ErrorBody {
    /// Whether the error begins with these words, under either key.
    fn says(&self, words: &str) -> bool {
        [&self.error, &self.message].into_iter().filter_map(Value::as_str).any(|text| text.starts_with(words))
    }
}

/// A 200 as it is, every other answer as the error that it stands for.
pub(super) fn accepted(answer: Answer) -> Result<Answer, ProviderError> {
    accepted_as(answer, StatusCode::OK)
}

/// An answer of the status that a call documents for success as it is, every other one as the error that it stands for.
pub(super) fn accepted_as(answer: Answer, success: StatusCode) -> Result<Answer, ProviderError> {
    if answer.status == success { Ok(answer) } else { Err(refusal(&answer)) }
}

/// The error that an answer other than 200 stands for. Nothing of its body gets into the error but scope names.
fn refusal(answer: &Answer) -> ProviderError {
    let status = answer.status.as_u16();
    let failed = |problem| ProviderError::Failed { problem, status: Some(status) };
    let body = body(answer);
    match (answer.status, body) {
        (StatusCode::TOO_MANY_REQUESTS, _) => ProviderError::RateLimited { after: answer.pause() },
        // An empty quota can be told as a 403 too; no other 403 of GitLab asks to wait.
        (StatusCode::FORBIDDEN, _) if answer.headers.contains_key(http::header::RETRY_AFTER) => {
            ProviderError::RateLimited { after: answer.pause() }
        }
        (StatusCode::UNAUTHORIZED, Some(body)) => {
            ProviderError::CredentialRejected { cause: cause(&body), status }
        }
        (StatusCode::FORBIDDEN, Some(body)) => forbidden(&body, status),
        (StatusCode::NOT_FOUND, Some(_)) => ProviderError::NotFound,
        // Without GitLab's own JSON it is a front proxy that speaks, and says nothing of token or project.
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, None) => {
            failed("something in front of it answered in its place")
        }
        (StatusCode::METHOD_NOT_ALLOWED, _) => failed("it refused how the listing was paged"),
        (StatusCode::UNPROCESSABLE_ENTITY, Some(body))
            if body.says("Invalid url given") || body.says("Url is blocked") =>
        {
            ProviderError::WebhookTargetRefused { setting: OUTBOUND_REQUESTS }
        }
        (StatusCode::UNPROCESSABLE_ENTITY, Some(body)) if body.says("Maximum number of project hooks") => {
            ProviderError::WebhookLimitReached
        }
        (StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY, _) => {
            failed("it refused the request as invalid")
        }
        (code, _) if code.is_redirection() => failed("it redirected a call that it should answer"),
        (code, _) if code.is_success() => failed("it answered without the status that it documents"),
        _ => failed("it answered with an unexpected status"),
    }
}

/// GitLab tells the cause of a 401 in words alone; an unknown wording is an unknown cause.
fn cause(body: &ErrorBody) -> RejectionCause {
    let description = body.error_description.as_str().unwrap_or("");
    if description.starts_with("Token is expired") {
        RejectionCause::Expired
    } else if description.starts_with("Token was revoked") {
        RejectionCause::Revoked
    } else {
        RejectionCause::Unknown
    }
}

/// Scope, state of the account, or role: in this order, for only the first two are named.
fn forbidden(body: &ErrorBody, status: u16) -> ProviderError {
    match body.error.as_str() {
        Some("insufficient_scope") => return ProviderError::ScopeMissing { scopes: scopes(&body.scope) },
        Some("insufficient_granular_scope") => return ProviderError::ScopeMissing { scopes: Vec::new() },
        _ => {}
    }
    let message = body.message.as_str().unwrap_or("");
    if message.strip_prefix("403 Forbidden - ").is_some_and(speaks_of_the_account) {
        return ProviderError::CredentialRejected { cause: RejectionCause::Blocked, status };
    }
    ProviderError::Forbidden
}

/// The sentences of GitLab's user access check: blocked, deactivated, pending approval, terms not accepted,
/// e-mail address not confirmed, password expired, internal user. Every call ends with them.
fn speaks_of_the_account(reason: &str) -> bool {
    ["Your account ", "Your password ", "Your primary email ", "This action cannot be performed by internal"]
        .iter()
        .any(|start| reason.starts_with(start))
        || (reason.starts_with("You (") && reason.contains("must accept the Terms"))
}

/// The scopes that would do: GitLab separates them by spaces, newer versions may send an array.
fn scopes(value: &Value) -> Vec<String> {
    let words: Vec<&str> = match value {
        Value::String(text) => text.split_whitespace().collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    words.into_iter().filter(|word| is_scope(word)).take(MAX_SCOPES).map(str::to_owned).collect()
}

fn body(answer: &Answer) -> Option<ErrorBody> {
    if !answer.is_json() {
        return None;
    }
    // A JSON that is no object says as little as a page of HTML.
    answer.json().ok()
}

/// Whether an answer, of whatever status, has a mark that only GitLab leaves: its own header, or an error in
/// its own form, which begins with the status or names the error by a word of its own.
pub(super) fn speaks_gitlab(answer: &Answer) -> bool {
    if answer.headers.contains_key("x-gitlab-meta") {
        return true;
    }
    if answer.status.is_success() {
        return false;
    }
    let Some(body) = body(answer) else { return false };
    let begins_with_status =
        |value: &Value| value.as_str().is_some_and(|text| text.starts_with(answer.status.as_str()));
    begins_with_status(&body.message)
        || begins_with_status(&body.error)
        || matches!(
            body.error.as_str(),
            Some("invalid_token" | "insufficient_scope" | "insufficient_granular_scope" | "dpop_error")
        )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::provider::api::test_answer as answer;

    fn json(status: u16, body: &str) -> ProviderError {
        refusal(&answer(status, &[("content-type", "application/json")], body))
    }

    #[test]
    fn every_documented_error_has_its_meaning() {
        let file = include_str!("../../../tests/fixtures/providers/gitlab/documented/errors.json");
        let file: Value = serde_json::from_str(file).expect("fixture");
        let all = file["errors"].as_array().into_iter().chain(file["assembled"].as_array()).flatten();
        for case in all {
            let headers: Vec<(&str, &str)> = case["headers"]
                .as_object()
                .expect("headers")
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
                .collect();
            let body = case["bodyText"].as_str().map_or_else(|| case["body"].to_string(), str::to_owned);
            let status = u16::try_from(case["status"].as_u64().expect("status")).expect("status");
            let error = refusal(&answer(status, &headers, &body));
            let rejected = |cause| ProviderError::CredentialRejected { cause, status: 401 };
            match case["name"].as_str().expect("name") {
                "unauthorized" => assert_eq!(error, rejected(RejectionCause::Unknown)),
                "token-expired" => assert_eq!(error, rejected(RejectionCause::Expired)),
                "token-revoked" => assert_eq!(error, rejected(RejectionCause::Revoked)),
                "insufficient-scope" => {
                    assert_eq!(error, ProviderError::ScopeMissing { scopes: vec!["api".into()] });
                }
                "project-not-found" => assert_eq!(error, ProviderError::NotFound),
                "forbidden" => assert_eq!(error, ProviderError::Forbidden),
                "throttled" => {
                    assert_eq!(error, ProviderError::RateLimited { after: Duration::from_secs(30) });
                }
                "hook-url-refused" | "hook-url-blocked" => assert!(
                    matches!(error, ProviderError::WebhookTargetRefused { setting } if setting.contains("Outbound requests"))
                ),
                _ => {
                    assert!(matches!(error, ProviderError::Failed { status: Some(s), .. } if s == status));
                }
            }
        }
    }

    #[test]
    fn ac_16_a_blocked_user_is_told_from_a_low_role() {
        for reason in [
            "Your account has been blocked.",
            "Your account has been deactivated by your administrator. Please log back in from a web browser",
            "Your account is pending approval from your administrator and hence blocked.",
            "You (@sam) must accept the Terms of Service in order to perform this action.",
            "Your primary email address is not confirmed. Please check your inbox",
            "Your password expired. Please access GitLab from a web browser to update your password.",
        ] {
            let body = format!("{{\"message\":\"403 Forbidden - {reason}\"}}");
            assert_eq!(
                json(403, &body),
                ProviderError::CredentialRejected { cause: RejectionCause::Blocked, status: 403 }
            );
        }
        assert_eq!(json(403, r#"{"message":"403 Forbidden"}"#), ProviderError::Forbidden);
        assert_eq!(json(403, r#"{"message":"403 Forbidden - Not enough access"}"#), ProviderError::Forbidden);
    }

    #[test]
    fn ac_19_h33_a_missing_scope_is_no_dead_token() {
        let body = r#"{"error":"insufficient_scope","error_description":"x","scope":"api read_api <b>"}"#;
        assert_eq!(
            json(403, body),
            ProviderError::ScopeMissing { scopes: vec!["api".into(), "read_api".into()] }
        );
        let granular = r#"{"error":"insufficient_granular_scope"}"#;
        assert_eq!(json(403, granular), ProviderError::ScopeMissing { scopes: Vec::new() });
    }

    #[test]
    fn h34_h36_a_pause_is_read_and_bounded() {
        let after = |value: &str| match refusal(&answer(
            403,
            &[("retry-after", value), ("date", "Tue, 05 Jan 2021 11:00:00 GMT")],
            "{}",
        )) {
            ProviderError::RateLimited { after } => after.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(after("3"), 3);
        assert_eq!(after("Tue, 05 Jan 2021 11:00:07 GMT"), 7);
        assert_eq!(after("1000000000000"), 3_600);
        assert_eq!(after("-1"), 60);
        assert_eq!(after("abc"), 60);
        // Older versions name no pause with the JSON form.
        let body =
            r#"{"message":{"error":"This endpoint has been requested too many times. Try again later."}}"#;
        assert_eq!(json(429, body), ProviderError::RateLimited { after: Duration::from_secs(60) });
    }

    #[test]
    fn a_front_proxy_says_nothing_of_token_or_project() {
        for status in [401, 403, 404] {
            let error = refusal(&answer(status, &[("content-type", "text/html")], "<html>"));
            assert_eq!(
                error,
                ProviderError::Failed {
                    problem: "something in front of it answered in its place",
                    status: Some(status)
                }
            );
        }
    }

    #[test]
    fn a_full_project_is_told_from_what_is_invalid() {
        let full = r#"{"error":"Maximum number of project hooks (100) exceeded"}"#;
        assert_eq!(json(422, full), ProviderError::WebhookLimitReached);
        let other = json(422, r#"{"error":"Invalid branch filter given"}"#);
        assert!(matches!(other, ProviderError::Failed { status: Some(422), .. }));
    }

    #[test]
    fn gitlab_is_known_by_its_errors() {
        let says =
            |status, body| speaks_gitlab(&answer(status, &[("content-type", "application/json")], body));
        assert!(says(401, r#"{"message":"401 Unauthorized"}"#));
        assert!(says(404, r#"{"error":"404 Not Found"}"#));
        assert!(says(403, r#"{"error":"insufficient_scope"}"#));
        // Mattermost has an API version 4 too.
        assert!(!says(
            404,
            r#"{"id":"api.context.404.app_error","message":"Sorry, we could not find the page."}"#
        ));
        assert!(!says(200, "{}"));
    }
}
