//! How GitHub says no.

use serde_json::json;

use super::super::wire::Reply;

const DOCUMENTATION: &str = "https://docs.github.com/rest";

/// An error in GitHub's form.
pub(super) fn message(status: u16, text: &str) -> Reply {
    let body = json!({"message": text, "documentation_url": DOCUMENTATION, "status": status.to_string()});
    json_reply(status, &body)
}

/// JSON of GitHub's content type.
pub(super) fn json_reply(status: u16, body: &serde_json::Value) -> Reply {
    Reply::new(status, "application/json; charset=utf-8", body.to_string())
}

pub(super) fn not_found() -> Reply {
    message(404, "Not Found")
}

pub(super) fn requires_authentication() -> Reply {
    message(401, "Requires authentication")
}

pub(super) fn bad_credentials() -> Reply {
    message(401, "Bad credentials")
}

/// A call that the token lacks a permission for; `wanted` is what the endpoint wants.
pub(super) fn not_accessible(by: &str, wanted: &str) -> Reply {
    message(403, &format!("Resource not accessible by {by}")).header("x-accepted-github-permissions", wanted)
}

/// The organization wants the token authorized (`documented/errors.json`).
pub(super) fn single_sign_on(web: &str, organization: &str) -> Reply {
    let text = "Resource protected by organization SAML enforcement. You must grant your Personal Access token access \
                to an organization within this enterprise.";
    let url = format!("{web}/orgs/{organization}/sso?authorization_request=AAAA");
    message(403, text).header("x-github-sso", format!("required; url={url}"))
}

/// A webhook that cannot be (`documented/errors.json`): one entry for each thing that is wrong.
pub(super) fn hook_invalid(texts: &[&str]) -> Reply {
    let errors: Vec<_> =
        texts.iter().map(|text| json!({"resource": "Hook", "code": "custom", "message": text})).collect();
    let body = json!({"message": "Validation Failed", "errors": errors, "documentation_url": DOCUMENTATION,
        "status": "422"});
    json_reply(422, &body)
}

/// A repository that GitHub has shut.
pub(super) fn blocked() -> Reply {
    let block = json!({"reason": "tos", "created_at": "2024-01-01T00:00:00Z", "html_url": null});
    json_reply(403, &json!({"message": "Repository access blocked", "block": block}))
}

/// A client that does not name itself.
pub(super) fn unnamed() -> Reply {
    Reply::html(
        403,
        "Request forbidden by administrative rules. Please make sure your request has a User-Agent header \
         (https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required).",
    )
}

/// A page of the web interface, and what a path that is no API leads to.
pub(super) fn page(private_mode: bool) -> Reply {
    if private_mode {
        return Reply::html(401, "<!DOCTYPE html><html><head><title>Sign in to GitHub</title></head></html>");
    }
    Reply::html(404, "<!DOCTYPE html><html><head><title>Page not found \u{b7} GitHub</title></head></html>")
}
