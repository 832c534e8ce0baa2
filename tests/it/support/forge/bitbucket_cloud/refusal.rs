//! How Bitbucket Cloud says no.

use serde_json::{Value, json};

use super::super::wire::Reply;
use super::tokens::{BitbucketKind, BitbucketToken};

/// The error envelope.
pub(super) fn error(status: u16, message: &str) -> Reply {
    envelope(status, json!({"message": message}))
}

fn envelope(status: u16, error: Value) -> Reply {
    Reply::json(status, &json!({"type": "error", "error": error}))
}

/// A 401 is plain text, and says the same of every dead token.
pub(super) fn refused(token: Option<&BitbucketToken>) -> Reply {
    let text = match token {
        Some(token) if token.kind == BitbucketKind::AppPassword => {
            "Bitbucket Cloud recently stopped supporting account passwords for API authentication.\nSee our community post for more details: https://atlassian.community/t5/x/x/ba-p/1948231\n"
        }
        _ => "Token is invalid, expired, or not supported for this endpoint.",
    };
    Reply::new(401, "text/plain", text).header("www-authenticate", "Basic realm=\"Bitbucket.org HTTP\"")
}

/// Without one of the scopes: the detail is an object.
pub(super) fn scope_missing(token: &BitbucketToken, required: &str) -> Reply {
    envelope(
        403,
        json!({"message": "Your credentials lack one or more required privilege scopes.",
            "detail": {"granted": token.scopes, "required": [required]}}),
    )
}

/// A right of the user is missing: the detail is a string.
pub(super) fn forbidden(detail: &str) -> Reply {
    envelope(403, json!({"message": "Forbidden", "detail": detail}))
}

/// A member of what was sent is not as it should be.
pub(super) fn invalid(member: &str, problem: &str) -> Reply {
    envelope(400, json!({"message": "Bad request", "fields": {member: [problem]}}))
}

/// The recorded answer of a removed listing across workspaces.
pub(super) fn removed() -> Reply {
    let data =
        json!({"announcement_url": "https://developer.atlassian.com/cloud/bitbucket/changelog#CHANGE-2770"});
    let body = json!({"type": "error", "data": data, "error": {
        "message": "CHANGE-2770 - Functionality has been deprecated",
        "detail": "Please read the changelog entry for more details.", "data": data}});
    Reply::json(410, &body)
}

/// A path that the API does not have.
pub(super) fn unrouted() -> Reply {
    envelope(
        404,
        json!({"message": "Resource not found",
            "detail": "There is no API hosted at this URL.\n\nFor information about our API's, please refer to the documentation at: https://developer.atlassian.com/bitbucket/api/2/reference/"}),
    )
}

/// It broke.
pub(in super::super) fn failed() -> Reply {
    error(500, "Something went wrong")
}

/// The limit of an hour is reached: no JSON.
pub(in super::super) fn limited() -> Reply {
    Reply::new(429, "text/html", "Rate limit for this resource has been exceeded")
}
