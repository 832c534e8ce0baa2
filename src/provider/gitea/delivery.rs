//! What the deliveries of Gitea and Forgejo prove and tell.

use serde::Deserialize;

use crate::domain::credential::Account;
use crate::domain::delivery::{
    Delivery, DeliveryHeaders, DeliveryRefusal, Proof, PullRequest, PullRequestState, RefChange,
};
use crate::domain::webhook::{SecretScheme, WebhookEvent};
use crate::provider::deliveries::{branch, commit_id, event_of, hmac_proof, name, object};
use crate::provider::fields::{Id, lenient};
use crate::provider::inspection::clean;

/// The headers of the bare signature: every version sends the first, Forgejo the second, too.
const SIGNATURES: [&str; 3] = ["x-gitea-signature", "x-forgejo-signature", "x-gogs-signature"];
/// The header of GitHub's form, and what stands before the digits. It is sent without digits where there is no secret.
const GITHUB_FORM: (&str, &str) = ("x-hub-signature-256", "sha256=");

/// The signature of a delivery. Without a secret its headers are there, and empty.
pub(super) fn proof(scheme: SecretScheme, headers: &DeliveryHeaders) -> Result<Proof, DeliveryRefusal> {
    if scheme != SecretScheme::HmacSha256 {
        return Err(DeliveryRefusal::Unsigned);
    }
    if let Some(bare) = SIGNATURES.iter().find_map(|name| headers.get(name)) {
        return hmac_proof(Some(bare), "");
    }
    let (header, prefix) = GITHUB_FORM;
    hmac_proof(headers.get(header).filter(|value| *value != prefix), prefix)
}

/// What a delivery tells. A tag that is pushed is told by `push`, and by `create` where somebody chose that: both become
/// the same change.
pub(super) fn read(headers: &DeliveryHeaders, body: &[u8]) -> Result<Delivery, DeliveryRefusal> {
    let body: Body = object(body)?;
    let header = |names: [&str; 3]| names.iter().find_map(|name| headers.get(name)).unwrap_or("");
    let kind = header(["x-gitea-event", "x-forgejo-event", "x-gogs-event"]);
    let delivery_id = header(["x-gitea-delivery", "x-forgejo-delivery", "x-gogs-delivery"]);
    let mut told = Delivery {
        event: WebhookEvent::Other,
        action: String::new(),
        repository_id: body.repository.as_ref().map_or_else(String::new, |row| row.id.0.to_string()),
        full_name: name(body.repository.as_ref().and_then(|row| row.full_name.as_deref())),
        changes: Vec::new(),
        actor: body.sender.as_ref().map(SenderRow::account),
        pull_request: None,
        moment: String::new(),
        delivery_id: name(Some(delivery_id)),
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

/// The members that are read, of any event. Old versions repeat the secret in the body; it is left there.
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
    /// The commit of what was created.
    #[serde(default, deserialize_with = "lenient")]
    sha: Option<String>,
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
    #[serde(default, deserialize_with = "lenient")]
    full_name: Option<String>,
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

    /// The ref that was made or deleted, which is told without its place; of a deleted one no commit is told.
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
            after: commit_id(self.sha.as_deref()),
        })
    }
}

impl SenderRow {
    fn account(&self) -> Account {
        Account {
            id: self.id.0.to_string(),
            login: clean(&self.login),
            display_name: self.full_name.as_deref().map_or_else(String::new, clean),
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

    const COMMIT: &str = "c8615853cab64e75826b5bc393c2225ebd047702";

    fn headers(pairs: &[(&str, &str)]) -> DeliveryHeaders {
        DeliveryHeaders::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn told(event: &str, body: &str) -> Delivery {
        read(&headers(&[("X-Gitea-Event", event)]), body.as_bytes()).expect("a delivery")
    }

    #[test]
    fn a_tag_that_is_told_twice_is_the_same_change() {
        let zeros = "0".repeat(40);
        let pushed = format!(r#"{{"ref":"refs/tags/v1","before":"{zeros}","after":"{COMMIT}"}}"#);
        let pushed = told("push", &pushed);
        let created = told("create", &format!(r#"{{"ref":"v1","ref_type":"tag","sha":"{COMMIT}"}}"#));
        let all = |told: &Delivery| (told.event, told.action.clone(), told.changes.clone());
        assert_eq!(all(&pushed), all(&created));
        let gone =
            told("push", &format!(r#"{{"ref":"refs/tags/v1","before":"{COMMIT}","after":"{zeros}"}}"#));
        let deleted = told("delete", r#"{"ref":"v1","ref_type":"tag"}"#);
        // Only one of the two tells what was there before.
        let now = |told: &Delivery| {
            let change = &told.changes[0];
            (told.event, told.action.clone(), change.git_ref.clone(), change.after.clone())
        };
        assert_eq!(now(&gone), now(&deleted));
        assert_ne!(now(&gone), now(&created));
        // Made by a version that told no commit of a new branch: it is not gone.
        let old = told("create", r#"{"ref":"v1","ref_type":"tag"}"#);
        assert_ne!(now(&gone), now(&old));
    }

    #[test]
    fn empty_signatures_are_none() {
        let proof = |pairs: &[(&str, &str)]| proof(SecretScheme::HmacSha256, &headers(pairs)).err();
        let unsigned = [
            ("X-Gitea-Signature", ""),
            ("X-Gogs-Signature", ""),
            ("X-Hub-Signature", "sha1="),
            ("X-Hub-Signature-256", "sha256="),
        ];
        assert_eq!(proof(&unsigned), Some(DeliveryRefusal::Unsigned));
        assert_eq!(proof(&[]), Some(DeliveryRefusal::Unsigned));
        let digits = "0f".repeat(32);
        for name in SIGNATURES {
            assert_eq!(proof(&[(name, &digits)]), None, "{name}");
            let prefixed = format!("sha256={digits}");
            assert_eq!(proof(&[(name, &prefixed)]), Some(DeliveryRefusal::ProofMalformed), "{name}");
        }
        assert_eq!(proof(&[("x-hub-signature-256", &format!("sha256={digits}"))]), None);
    }

    #[test]
    fn forgejo_is_read_by_its_own_headers_too() {
        let forgejo = headers(&[("X-Forgejo-Event", "push"), ("X-Forgejo-Delivery", "a-b")]);
        let body = format!(r#"{{"ref":"refs/heads/main","after":"{COMMIT}"}}"#);
        let told = read(&forgejo, body.as_bytes()).expect("a delivery");
        assert_eq!((told.event, told.delivery_id.as_str()), (WebhookEvent::Push, "a-b"));
    }

    #[test]
    fn a_half_told_change_is_something_else() {
        for (event, body) in [
            ("push", r#"{"ref":"main"}"#),
            ("create", r#"{"ref":"v1","ref_type":"wiki"}"#),
            ("delete", r#"{"ref_type":"tag"}"#),
            ("pull_request", r#"{"number":1}"#),
        ] {
            let told = told(event, body);
            assert_eq!(told.event, WebhookEvent::Other, "{event} {body}");
        }
    }
}
