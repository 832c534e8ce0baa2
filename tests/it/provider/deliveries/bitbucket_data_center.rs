//! Deliveries of Bitbucket Data Center: one that it signed, and recorded bodies that are signed here.

use gitmoor::domain::credential::Account;
use gitmoor::domain::delivery::{Delivery, PullRequest, PullRequestState, RefChange};
use gitmoor::domain::webhook::{SecretScheme, WebhookEvent};

use super::{SECRET, Sample, change, hmac_hex};

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../fixtures/providers/bitbucket-data-center/", $name)).as_slice()
    };
}

const REQUEST: &str = "c8d32c1c-1a2b-4c3d-9e4f-5a6b7c8d9e0f";
const FIRST: &str = "823b2230a56056231c9425d63758fa87078a66b4";
const SECOND: &str = "208b0a5c05eddadad01f2aed8802fe0c3b3eaf5e";
const HEAD: &str = "b9eaed50a03c073b20dfa82e5e753d295e7f0e56";

pub(super) fn samples() -> Vec<Sample> {
    use PullRequestState::{Closed, Merged, Open};
    let develop = |number, state, head| (number, state, "develop", head);
    vec![
        signed(),
        push(
            "a branch made",
            fixture!("go-scm/webhooks/push_branch_create.json"),
            change("refs/heads/develop", "", SECOND),
        ),
        push(
            "a branch deleted",
            fixture!("go-scm/webhooks/push_branch_delete.json"),
            change("refs/heads/develop", SECOND, ""),
        ),
        push(
            "a tag made",
            fixture!("go-scm/webhooks/push_tag_create.json"),
            change("refs/tags/v1.1.0", "", FIRST),
        ),
        push(
            "a tag deleted",
            fixture!("go-scm/webhooks/push_tag_delete.json"),
            change("refs/tags/v1.1.0", FIRST, ""),
        ),
        pull_request("opened", fixture!("go-scm/webhooks/pr_open.json"), develop(2, Open, SECOND)),
        // As versions from 10.3 on write dates.
        pull_request("opened", fixture!("go-scm/webhooks/pr_open_iso_dates.json"), develop(2, Open, SECOND)),
        pull_request(
            "from_ref_updated",
            fixture!("go-scm/webhooks/pr_from_ref_updated.json"),
            (2, Open, "feature-2", "c00d0f269a9844dd168f72f6a9d78a9cff49a318"),
        ),
        // From a fork, whose repository has another number.
        pull_request(
            "modified",
            fixture!("go-scm/webhooks/pr_modified_meta.json"),
            (6, Open, "cleanup", "a268fca7b65055e13f60ac1a2c9a527615f113ca"),
        ),
        pull_request("merged", fixture!("go-scm/webhooks/pr_merged.json"), develop(3, Merged, HEAD)),
        pull_request("declined", fixture!("go-scm/webhooks/pr_declined.json"), develop(2, Closed, HEAD)),
        pull_request("deleted", fixture!("go-scm/webhooks/pr_deleted.json"), develop(2, Closed, HEAD)),
        ping(),
    ]
}

/// The one that Bitbucket signed, with the secret and the signature of `signature-vectors.json`.
fn signed() -> Sample {
    let vectors: serde_json::Value =
        serde_json::from_slice(fixture!("signature-vectors.json")).expect("vectors");
    let vector = &vectors["vectors"][0];
    let text = |name: &str| vector[name].as_str().expect("a text").to_owned();
    let before = "5c64a07cd6c0f21b753bf261ef059c7e7633c50a";
    let expected = Delivery {
        event: WebhookEvent::Push,
        changes: vec![change("refs/heads/master", before, FIRST)],
        ..told()
    };
    let proof = (text("secret"), text("value"));
    sample("signed by Bitbucket", "repo:refs_changed", fixture!("signed/push.json"), proof, expected)
}

fn push(name: &'static str, body: &[u8], change: RefChange) -> Sample {
    let event = if change.git_ref.starts_with("refs/tags/") { WebhookEvent::Tag } else { WebhookEvent::Push };
    signed_here(name, "repo:refs_changed", body, Delivery { event, changes: vec![change], ..told() })
}

fn pull_request(
    action: &'static str,
    body: &[u8],
    (number, state, source, head): (i64, PullRequestState, &str, &str),
) -> Sample {
    let recorded: serde_json::Value = serde_json::from_slice(body).expect("a body");
    let date = &recorded["pullRequest"]["updatedDate"];
    let expected = Delivery {
        event: WebhookEvent::PullRequest,
        action: action.to_owned(),
        pull_request: Some(PullRequest {
            number,
            state,
            source_ref: source.to_owned(),
            target_ref: "master".to_owned(),
            head_commit_id: head.to_owned(),
        }),
        // Numbers up to 10.2, and texts.
        moment: date.as_str().map_or_else(|| date.to_string(), str::to_owned),
        ..told()
    };
    signed_here(action, &format!("pr:{action}"), body, expected)
}

/// A test of the connection. Servers send it without a signature, too.
fn ping() -> Sample {
    let key = "diagnostics:ping";
    let expected = Delivery {
        action: key.to_owned(),
        repository_id: String::new(),
        full_name: String::new(),
        actor: None,
        ..told()
    };
    signed_here("a test of the connection", key, fixture!("jenkins/webhook/ping.json"), expected)
}

/// What the recorded bodies have in common.
fn told() -> Delivery {
    Delivery {
        event: WebhookEvent::Other,
        action: String::new(),
        repository_id: "1".to_owned(),
        full_name: "PRJ/my-repo".to_owned(),
        changes: Vec::new(),
        actor: Some(Account {
            id: "1".to_owned(),
            login: "jcitizen".to_owned(),
            display_name: "Jane Citizen".to_owned(),
            email: "jane@example.com".to_owned(),
            bot: false,
        }),
        pull_request: None,
        moment: String::new(),
        delivery_id: REQUEST.to_owned(),
    }
}

fn signed_here(name: &'static str, key: &str, body: &[u8], expected: Delivery) -> Sample {
    let signature = format!("sha256={}", hmac_hex(SECRET.as_bytes(), &[body]));
    sample(name, key, body, (SECRET.to_owned(), signature), expected)
}

fn sample(
    name: &'static str,
    key: &str,
    body: &[u8],
    (secret, signature): (String, String),
    expected: Delivery,
) -> Sample {
    let headers = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("X-Event-Key", key),
        ("X-Request-Id", REQUEST),
        ("X-Hub-Signature", signature.as_str()),
    ];
    Sample {
        name,
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: body.to_vec(),
        scheme: SecretScheme::HmacSha256,
        secret,
        proof_headers: &["x-hub-signature"],
        sent_at: None,
        expected,
    }
}
