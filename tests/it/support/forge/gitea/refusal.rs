//! How Gitea says no.

use serde_json::json;

use super::super::wire::Reply;
use super::Instance;
use super::tokens::GiteaToken;

/// Every JSON of the real one says so.
pub(super) const JSON: &str = "application/json;charset=utf-8";

impl Instance {
    /// A refusal in the form that most have: it names the server's own description.
    pub(super) fn message(&self, status: u16, text: &str) -> Reply {
        let body = json!({"message": text, "url": format!("{}/api/swagger", self.data.root)});
        Reply::new(status, JSON, body.to_string())
    }

    pub(super) fn not_found(&self) -> Reply {
        let url = format!("{}/api/swagger", self.data.root);
        let body = json!({"errors": null, "message": "not found", "url": url});
        Reply::new(404, JSON, body.to_string())
    }

    /// Refuses a token without a scope, in the words of the version.
    pub(super) fn check_scope(&self, token: &GiteaToken, scope: &str) -> Result<(), Reply> {
        if token.has(scope) {
            return Ok(());
        }
        let lacks = "token does not have at least one of required scope(s)";
        let text = if self.product.tells_scopes() {
            format!("{lacks}, required=[{scope}], token scope={}", token.scopes.join(","))
        } else {
            format!("{lacks}: [{scope}]")
        };
        Err(self.message(403, &text))
    }
}

/// A refusal that comes before the API, and names nothing.
pub(super) fn bare(status: u16, text: &str) -> Reply {
    Reply::new(status, JSON, json!({ "message": text }).to_string())
}

/// A call that this version does not have.
pub(super) fn unrouted() -> Reply {
    Reply::new(404, "text/plain; charset=utf-8", "404 page not found\n")
}

/// A page of the web interface.
pub(super) fn outside() -> Reply {
    Reply::html(
        404,
        "<!DOCTYPE html><html lang=\"en-US\"><head><title>Page Not Found - Gitea</title></head></html>",
    )
}

/// How a proxy before a public instance limits: the program itself has no limits.
pub(in super::super) fn limited() -> Reply {
    Reply::html(429, "<html><head><title>429 Too Many Requests</title></head><body></body></html>")
}

/// An error of the program: it keeps the cause to itself.
pub(in super::super) fn failed() -> Reply {
    Reply::new(500, JSON, json!({"message": "", "url": "https://git.forge.example/api/swagger"}).to_string())
}
