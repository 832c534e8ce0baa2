//! Deliveries of Bitbucket Cloud: one that it signed, and recorded bodies that are signed here.

use gitmoor::domain::credential::Account;
use gitmoor::domain::delivery::{Delivery, PullRequest, PullRequestState, RefChange};
use gitmoor::domain::webhook::{SecretScheme, WebhookEvent};

use super::{SECRET, Sample, change, hmac_hex};

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../fixtures/providers/bitbucket-cloud/", $name)).as_slice()
    };
}

const REQUEST: &str = "5b60e0b8-6b7e-4b1f-8f5e-0c2a1e9d7f11";
const BEFORE: &str = "40e7580cf11311d84a6e5e97e2cbba6df1675750";
const AFTER: &str = "141977fedf5cf35aa290ac87d4b5177ac4cd9de1";

pub(super) fn samples() -> Vec<Sample> {
    use PullRequestState::{Closed, Merged, Open};
    vec![
        signed(),
        push("push", fixture!("go-scm/webhooks/push.json"), change("refs/heads/master", BEFORE, AFTER)),
        push(
            "a branch made",
            fixture!("go-scm/webhooks/push_branch_create.json"),
            change("refs/heads/develop", "", AFTER),
        ),
        push(
            "a branch deleted",
            fixture!("go-scm/webhooks/push_branch_delete.json"),
            change("refs/heads/develop", AFTER, ""),
        ),
        push(
            "a tag made",
            fixture!("go-scm/webhooks/push_tag_create.json"),
            change("refs/tags/feature/x", "", AFTER),
        ),
        push(
            "a tag deleted",
            fixture!("go-scm/webhooks/push_tag_delete.json"),
            change("refs/tags/feature/x", AFTER, ""),
        ),
        pull_request("created", fixture!("go-scm/webhooks/pr_created.json"), Open, "507a576e59b3"),
        pull_request("updated", fixture!("go-scm/webhooks/pr_updated.json"), Open, "0704fc5beccc"),
        pull_request("fulfilled", fixture!("go-scm/webhooks/pr_fulfilled.json"), Merged, "0704fc5beccc"),
        pull_request("rejected", fixture!("go-scm/webhooks/pr_declined.json"), Closed, "6ca9fe26898a"),
        comment(),
    ]
}

/// The one that Bitbucket signed, with the secret and the signature of `signature-vectors.json`.
fn signed() -> Sample {
    let vectors: serde_json::Value =
        serde_json::from_slice(fixture!("signature-vectors.json")).expect("vectors");
    let vector = &vectors["vectors"][0];
    let text = |name: &str| vector[name].as_str().expect("a text").to_owned();
    let hash = "d7f300a32270053bdfd97a6d64113f58202c33e7";
    let expected = Delivery {
        event: WebhookEvent::Push,
        action: String::new(),
        repository_id: "{3deb8c29-778a-450c-8f69-3e50a18079df}".to_owned(),
        full_name: "nfalco79/test-repos".to_owned(),
        changes: vec![change("refs/heads/feature/webhook", "", hash)],
        actor: Some(Account {
            id: "{7d3a178a-a087-4756-b2da-2f9eadf50ba8}".to_owned(),
            login: "Nikolas Falco".to_owned(),
            display_name: "Nikolas Falco".to_owned(),
            ..Account::default()
        }),
        pull_request: None,
        moment: String::new(),
        delivery_id: REQUEST.to_owned(),
    };
    let body = fixture!("signed/signed_payload.json");
    let signature = text("value");
    sample("signed by Bitbucket", "repo:push", body, (text("secret"), signature), expected)
}

fn push(name: &'static str, body: &[u8], change: RefChange) -> Sample {
    let event = if change.git_ref.starts_with("refs/tags/") { WebhookEvent::Tag } else { WebhookEvent::Push };
    signed_here(name, "repo:push", body, Delivery { event, changes: vec![change], ..told() })
}

fn pull_request(action: &'static str, body: &[u8], state: PullRequestState, head: &str) -> Sample {
    let recorded: serde_json::Value = serde_json::from_slice(body).expect("a body");
    let expected = Delivery {
        event: WebhookEvent::PullRequest,
        action: action.to_owned(),
        pull_request: Some(PullRequest {
            number: recorded["pullrequest"]["id"].as_i64().expect("a number"),
            state,
            source_ref: "develop".to_owned(),
            target_ref: "master".to_owned(),
            head_commit_id: head.to_owned(),
        }),
        moment: recorded["pullrequest"]["updated_on"].as_str().expect("a date").to_owned(),
        ..told()
    };
    signed_here(action, &format!("pullrequest:{action}"), body, expected)
}

/// It has a pull request, too, and is not about it.
fn comment() -> Sample {
    let key = "pullrequest:comment_created";
    let body = fixture!("go-scm/webhooks/pr_comment_created.json");
    let expected = Delivery {
        action: key.to_owned(),
        repository_id: "{4402cbae-7790-453a-b29e-5fcab61a84df}".to_owned(),
        full_name: "rutvijmehta-harness/spring-cloud-alibaba".to_owned(),
        actor: Some(Account {
            id: "{145a94da-035e-42d6-bf85-296cea8005ba}".to_owned(),
            login: "Rutvij Mehta".to_owned(),
            display_name: "Rutvij Mehta".to_owned(),
            ..Account::default()
        }),
        ..told()
    };
    signed_here("a comment", key, body, expected)
}

/// What the recorded bodies have in common.
fn told() -> Delivery {
    Delivery {
        event: WebhookEvent::Other,
        action: String::new(),
        repository_id: "{bc771cbf-829e-4c4b-b71f-a0eb3ac2b860}".to_owned(),
        full_name: "brydzewski/foo".to_owned(),
        changes: Vec::new(),
        actor: Some(Account {
            id: "{87bb15eb-47c1-49b3-9f16-ca824a2979a4}".to_owned(),
            login: "brydzewski".to_owned(),
            display_name: "Brad Rydzewski".to_owned(),
            ..Account::default()
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
        ("X-Hook-UUID", "d53603cc-3f67-45ea-b310-aaa5ef6ec061"),
        ("X-Request-UUID", REQUEST),
        ("X-Attempt-Number", "1"),
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
