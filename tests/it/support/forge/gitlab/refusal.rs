//! How GitLab says no.

use serde_json::json;

use super::super::wire::Reply;
use super::tokens::GitlabToken;

pub(super) fn check_scope(token: &GitlabToken, scopes: &[&str]) -> Result<(), Reply> {
    if token.granular {
        return Err(insufficient_granular());
    }
    if token.has(scopes) {
        return Ok(());
    }
    let body = json!({"error": "insufficient_scope",
        "error_description": "The request requires higher privileges than provided by the access token.",
        "scope": scopes.join(" ")});
    Err(Reply::json(403, &body))
}

pub(super) fn insufficient_granular() -> Reply {
    let body = json!({"error": "insufficient_granular_scope",
        "error_description": "Access denied: Your Personal Access Token lacks the required permissions for this operation."});
    Reply::json(403, &body)
}

pub(super) fn message(status: u16, text: &str) -> Reply {
    Reply::json(status, &json!({"message": text}))
}

pub(super) fn unauthorized() -> Reply {
    message(401, "401 Unauthorized")
}

pub(super) fn invalid_token(description: &str) -> Reply {
    let realm = format!(
        "Bearer realm=\"Protected by OAuth 2.0\", error=\"invalid_token\", error_description=\"{description}\""
    );
    let body = json!({"error": "invalid_token", "error_description": description});
    Reply::json(401, &body).header("www-authenticate", realm)
}

pub(super) fn invalid(name: &str, what: &str) -> Reply {
    Reply::json(400, &json!({"error": format!("{name} {what}")}))
}

pub(super) fn no_keyset() -> Reply {
    let text = "Keyset pagination is not yet available for this type of request";
    Reply::json(405, &json!({"error": text}))
}

pub(super) fn too_deep(limit: u64) -> Reply {
    let text = format!(
        "Offset pagination has a maximum allowed offset of {limit} for requests that return objects of type Project. Remaining records can be retrieved using keyset pagination."
    );
    Reply::json(405, &json!({"error": text}))
}

/// A route that the API does not have.
pub(super) fn unrouted() -> Reply {
    Reply::json(404, &json!({"error": "404 Not Found"}))
}

/// A page of the web interface: the sign-in for what needs one, as for any group or project URL.
pub(super) fn outside(path: &str) -> Reply {
    if path.starts_with("/users/sign_in") {
        return Reply::html(200, "<!DOCTYPE html><html><head><title>Sign in · GitLab</title></head></html>");
    }
    Reply::html(302, "<html><body>You are being redirected.</body></html>")
        .header("location", "/gitlab/users/sign_in")
}
