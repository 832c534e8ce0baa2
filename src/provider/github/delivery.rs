//! What GitHub's deliveries prove and tell (webhook-events-and-payloads, validating-webhook-deliveries).

use serde::Deserialize;

use crate::domain::credential::Account;
use crate::domain::delivery::{
    Delivery, DeliveryHeaders, DeliveryRefusal, Proof, PullRequest, PullRequestState, RefChange,
};
use crate::domain::webhook::{SecretScheme, WebhookEvent};
use crate::provider::deliveries::{branch, commit_id, event_of, hmac_proof, name, object};
use crate::provider::fields::{Id, lenient};
use crate::provider::inspection::clean;

/// The signature of a delivery. The one of SHA-1 beside it proves nothing any more.
pub(super) fn proof(scheme: SecretScheme, headers: &DeliveryHeaders) -> Result<Proof, DeliveryRefusal> {
    if scheme != SecretScheme::HmacSha256 {
        return Err(DeliveryRefusal::Unsigned);
    }
    hmac_proof(headers.get("x-hub-signature-256"), "sha256=")
}

/// What a delivery tells.
pub(super) fn read(headers: &DeliveryHeaders, body: &[u8]) -> Result<Delivery, DeliveryRefusal> {
    let body: Body = object(body)?;
    let kind = headers.get("x-github-event").unwrap_or("");
    let mut told = Delivery {
        event: WebhookEvent::Other,
        action: String::new(),
        repository_id: body.repository.as_ref().map_or_else(String::new, |row| row.id.0.to_string()),
        full_name: name(body.repository.as_ref().and_then(|row| row.full_name.as_deref())),
        changes: Vec::new(),
        actor: body.sender.as_ref().map(SenderRow::account),
        pull_request: None,
        moment: String::new(),
        delivery_id: name(headers.get("x-github-delivery")),
    };
    match kind {
        "push" => told.changes.extend(body.pushed()),
        "create" | "delete" => told.changes.extend(body.made_or_deleted()),
        "pull_request" => {
            if let Some((pull_request, moment)) = body.pull_request.and_then(PullRequestRow::told) {
                told.pull_request = Some(pull_request);
                told.moment = moment;
            }
        }
        _ => {}
    }
    if !told.changes.is_empty() {
        told.event = event_of(&told.changes);
        // Without a commit it would look like a ref that is gone.
        if kind == "create" && told.changes.iter().any(|change| change.after.is_empty()) {
            kind.clone_into(&mut told.action);
        }
        return Ok(told);
    }
    if told.pull_request.is_some() {
        told.event = WebhookEvent::PullRequest;
    }
    told.action = name(body.action.as_deref().or(Some(kind)));
    Ok(told)
}

/// The members that are read, of any event.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default, deserialize_with = "lenient")]
    action: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<RepositoryRow>,
    #[serde(default, deserialize_with = "lenient")]
    sender: Option<SenderRow>,
    #[serde(default, deserialize_with = "lenient", rename = "ref")]
    git_ref: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    ref_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    before: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    after: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pull_request: Option<PullRequestRow>,
}

#[derive(Debug, Deserialize)]
struct RepositoryRow {
    id: Id,
    #[serde(default, deserialize_with = "lenient")]
    full_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SenderRow {
    id: Id,
    login: String,
    #[serde(default, deserialize_with = "lenient", rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PullRequestRow {
    number: i64,
    state: String,
    #[serde(default, deserialize_with = "lenient")]
    merged: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    updated_at: Option<String>,
    head: EndRow,
    base: EndRow,
}

/// One end of a pull request.
#[derive(Debug, Deserialize)]
struct EndRow {
    #[serde(rename = "ref")]
    git_ref: String,
    sha: String,
}

impl Body {
    /// The ref of a push, in full; of a deleted one the commit is zeros.
    fn pushed(&self) -> Option<RefChange> {
        let git_ref = name(self.git_ref.as_deref());
        git_ref.starts_with("refs/").then(|| RefChange {
            git_ref,
            before: commit_id(self.before.as_deref()),
            after: commit_id(self.after.as_deref()),
        })
    }

    /// The ref that was made or deleted, which is told without its place. No commit is told, not even of a new one.
    fn made_or_deleted(&self) -> Option<RefChange> {
        let place = match self.ref_type.as_deref()? {
            "branch" => "refs/heads/",
            "tag" => "refs/tags/",
            _ => return None,
        };
        let short = name(self.git_ref.as_deref());
        (!short.is_empty()).then(|| RefChange {
            git_ref: format!("{place}{short}"),
            before: String::new(),
            after: String::new(),
        })
    }
}

impl SenderRow {
    fn account(&self) -> Account {
        Account {
            id: self.id.0.to_string(),
            login: clean(&self.login),
            bot: self.kind.as_deref() == Some("Bot"),
            ..Account::default()
        }
    }
}

impl PullRequestRow {
    /// The pull request, and when it was last changed.
    fn told(self) -> Option<(PullRequest, String)> {
        let state = match (self.merged, self.state.as_str()) {
            (Some(true), _) => PullRequestState::Merged,
            (_, "closed") => PullRequestState::Closed,
            _ => PullRequestState::Open,
        };
        let pull_request = PullRequest {
            number: self.number,
            state,
            source_ref: branch(Some(&self.head.git_ref)),
            target_ref: branch(Some(&self.base.git_ref)),
            head_commit_id: commit_id(Some(&self.head.sha)),
        };
        (self.number > 0).then(|| (pull_request, name(self.updated_at.as_deref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(event: &str) -> DeliveryHeaders {
        DeliveryHeaders::new([("X-GitHub-Event".to_owned(), event.to_owned())])
    }

    #[test]
    fn an_event_of_an_organization_names_no_repository() {
        let body = br#"{"action":"deleted","hook_id":1,"sender":{"login":"casey","id":2,"type":"User"}}"#;
        let told = read(&headers("meta"), body).expect("a delivery");
        assert_eq!((told.event, told.action.as_str()), (WebhookEvent::Other, "deleted"));
        assert_eq!(told.repository_id, "");
        assert_eq!(told.actor.expect("an actor").login, "casey");
    }

    #[test]
    fn a_half_told_change_is_something_else() {
        for (event, body) in [
            ("push", r#"{"ref":"main","after":"40e7580cf11311d84a6e5e97e2cbba6df1675750"}"#),
            ("push", r#"{"ref":"refs/heads/a\nb"}"#),
            ("create", r#"{"ref":"v1","ref_type":"repository"}"#),
            ("delete", r#"{"ref":"","ref_type":"tag"}"#),
            ("pull_request", r#"{"number":1,"pull_request":{"number":1,"state":"open"}}"#),
        ] {
            let told = read(&headers(event), body.as_bytes()).expect("a delivery");
            assert_eq!(told.event, WebhookEvent::Other, "{event} {body}");
            assert!(told.changes.is_empty() && told.pull_request.is_none(), "{event} {body}");
        }
    }

    #[test]
    fn a_signature_of_sha1_alone_proves_nothing() {
        let old = ("X-Hub-Signature".to_owned(), format!("sha1={}", "0".repeat(40)));
        let found = proof(SecretScheme::HmacSha256, &DeliveryHeaders::new([old]));
        assert_eq!(found.err(), Some(DeliveryRefusal::Unsigned));
    }
}
