//! Deliveries of Azure DevOps.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gitmoor::domain::credential::Account;
use gitmoor::domain::delivery::{Delivery, PullRequest, PullRequestState, RefChange};
use gitmoor::domain::webhook::{SecretScheme, WebhookEvent};
use serde_json::{Value, json};

use super::{SECRET, Sample, change};

const PUSH: &str = "03c164c2-8912-4d5e-8009-3707d5f83734";
const FIRST: &str = "aad331d8d3b131fa9ae03cf5e53965b51942618a";
const SECOND: &str = "33b55f7cb7e7e245323987634f960cf4a6e6bc74";

macro_rules! body {
    ($name:literal) => {
        serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/providers/azure-devops/go-scm/webhooks/",
            $name,
            ".json"
        )))
        .expect("a body")
    };
}

/// A delivery with the password of a webhook that was made here.
fn sample(name: &'static str, body: &Value, expected: Delivery) -> Sample {
    let password = format!("Basic {}", STANDARD.encode(format!("gitmoor:{SECRET}")));
    Sample {
        name,
        headers: vec![
            ("User-Agent".to_owned(), "VSServices/18.0".to_owned()),
            ("Authorization".to_owned(), password),
        ],
        body: body.to_string().into_bytes(),
        scheme: SecretScheme::BasicAuth,
        secret: SECRET.to_owned(),
        proof_headers: &["authorization"],
        sent_at: None,
        expected,
    }
}

/// The recorded push with other refs.
fn pushed(updates: &Value) -> Value {
    let mut body: Value = body!("push");
    body["resource"]["refUpdates"] = updates.clone();
    // The recording has an address in place of the id.
    body["resource"]["pushedBy"]["id"] = json!("54D125F7-69F7-4191-904F-C5B96B6261C8");
    body
}

fn told(event: WebhookEvent, changes: Vec<RefChange>) -> Delivery {
    Delivery {
        event,
        action: String::new(),
        repository_id: "278d5cd2-584d-4b63-824a-2ba458937249".to_owned(),
        full_name: "Fabrikam-Fiber-Git/Fabrikam-Fiber-Git".to_owned(),
        changes,
        // Never the address that the service calls a unique name.
        actor: Some(Account {
            id: "54d125f7-69f7-4191-904f-c5b96b6261c8".to_owned(),
            display_name: "Jamal Hartnett".to_owned(),
            ..Account::default()
        }),
        pull_request: None,
        moment: String::new(),
        delivery_id: PUSH.to_owned(),
    }
}

fn told_of(action: &str, id: &str, moment: &str, state: PullRequestState) -> Delivery {
    let opener = told(WebhookEvent::PullRequest, Vec::new());
    Delivery {
        action: action.to_owned(),
        repository_id: "4bc14d40-c903-45e2-872e-0462c7748079".to_owned(),
        full_name: "Fabrikam/Fabrikam".to_owned(),
        actor: if action == "created" { opener.actor.clone() } else { None },
        pull_request: Some(PullRequest {
            number: 1,
            state,
            source_ref: "mytopic".to_owned(),
            target_ref: "master".to_owned(),
            head_commit_id: "53d54ac915144006c2c9e90d2c7d3880920db49c".to_owned(),
        }),
        moment: moment.to_owned(),
        delivery_id: id.to_owned(),
        ..opener
    }
}

pub(super) fn samples() -> Vec<Sample> {
    use WebhookEvent::{Other, Push, Tag};
    let zero = "0".repeat(40);
    let update =
        |name: &str, old: &str, new: &str| json!({"name": name, "oldObjectId": old, "newObjectId": new});
    let (branch, tag) = ("refs/heads/master", "refs/tags/v1");
    let (made, gone) = (update(tag, &zero, SECOND), update("refs/tags/v0", FIRST, &zero));
    let moved = update(branch, FIRST, SECOND);
    let (created, updated, merged): (Value, Value, Value) =
        (body!("pr_created"), body!("pr_updated"), body!("pr_merged"));
    let mut abandoned = updated.clone();
    abandoned["resource"]["status"] = json!("abandoned");
    let mut attempted = merged.clone();
    attempted["resource"]["status"] = json!("active");
    let updated_id = "af07be1b-f3ad-44c8-a7f1-c4835f2df06b";
    let merged_id = "6872ee8c-b333-4eff-bfb9-0d5274943566";
    let (updated_at, merged_at) = ("2016-09-19T13:03:27.2813828Z", "2016-09-19T13:03:27.3156388Z");
    let comment: Value = body!("issue_comment");
    let commented = &comment["resource"]["pullRequest"]["repository"];
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    vec![
        sample(
            "a push as recorded",
            &body!("push"),
            Delivery { actor: None, ..told(Push, vec![change(branch, FIRST, SECOND)]) },
        ),
        sample("a push", &pushed(&json!([moved])), told(Push, vec![change(branch, FIRST, SECOND)])),
        sample(
            "a new tag and a deleted one",
            &pushed(&json!([made, gone])),
            told(Tag, vec![change(tag, "", SECOND), change("refs/tags/v0", FIRST, "")]),
        ),
        sample(
            "a branch and a tag",
            &pushed(&json!([made, moved])),
            told(Push, vec![change(tag, "", SECOND), change(branch, FIRST, SECOND)]),
        ),
        sample(
            "a new pull request",
            &created,
            told_of(
                "created",
                "2ab4e3d3-b7a6-425e-92b1-5a9982c1269e",
                "2016-09-19T13:03:27.2879096Z",
                PullRequestState::Open,
            ),
        ),
        sample(
            "a completed pull request",
            &updated,
            told_of("updated", updated_id, updated_at, PullRequestState::Merged),
        ),
        sample(
            "an abandoned pull request",
            &abandoned,
            told_of("updated", updated_id, updated_at, PullRequestState::Closed),
        ),
        sample("a merge", &merged, told_of("merged", merged_id, merged_at, PullRequestState::Merged)),
        // A merge is attempted with each push to a pull request.
        sample(
            "an attempted merge",
            &attempted,
            told_of("merged", merged_id, merged_at, PullRequestState::Open),
        ),
        sample(
            "a comment",
            &comment,
            Delivery {
                repository_id: text(&commented["id"]),
                full_name: format!("{}/{}", text(&commented["project"]["name"]), text(&commented["name"])),
                action: text(&comment["eventType"]),
                actor: None,
                delivery_id: text(&comment["id"]),
                ..told(Other, Vec::new())
            },
        ),
    ]
}
