//! Deliveries of GitLab.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gitmoor::domain::credential::Account;
use gitmoor::domain::delivery::{Delivery, PullRequest, PullRequestState, RefChange};
use gitmoor::domain::webhook::{SecretScheme, WebhookEvent};
use ring::hmac;
use serde_json::Value;

use super::{SECRET, Sample, change};

const DELIVERY: &str = "f5e5f430-f57b-4e6e-9fac-d9128cd7232f";
const TIME: &str = "1795000000";
const FIRST: &str = "9217710ce8c7e1eae7a5d1c45f6e43e1c769f866";
const SECOND: &str = "2adc9465c4edfc33834e173fe89436a7cb899a1d";
const FEATURE: &str = "c4c79227ed610f1151f05bbc5be33b4f340d39c8";

macro_rules! body {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/providers/gitlab/", $name, ".json"))
    };
}

/// A delivery with the secret in clear, as every version sends it.
fn sample(name: &'static str, event: &str, body: &str, expected: Delivery) -> Sample {
    let headers = [
        ("X-Gitlab-Event", event),
        ("X-Gitlab-Event-UUID", "13792a34-cac6-4fda-95a8-c58e00a3954e"),
        ("X-Gitlab-Instance", "https://gitlab.com"),
        ("X-Gitlab-Webhook-UUID", "02affd2d-2cba-4033-917d-ec22d5dc4b38"),
        ("Idempotency-Key", DELIVERY),
        ("X-Gitlab-Token", SECRET),
    ];
    Sample {
        name,
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        body: body.as_bytes().to_vec(),
        scheme: SecretScheme::Token,
        secret: SECRET.to_owned(),
        proof_headers: &["x-gitlab-token"],
        sent_at: None,
        expected,
    }
}

/// The same delivery as 19.0 and above signs it: under the bytes of the secret.
fn signed(sample: Sample) -> Sample {
    let key: Vec<u8> = (0..sample.secret.len() / 2)
        .map(|at| u8::from_str_radix(&sample.secret[2 * at..2 * at + 2], 16).expect("digits"))
        .collect();
    let text = [format!("{DELIVERY}.{TIME}.").as_bytes(), &sample.body].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &text);
    let mut headers = sample.headers;
    headers.retain(|(name, _)| name != "X-Gitlab-Token");
    headers.extend([
        ("webhook-id".to_owned(), DELIVERY.to_owned()),
        ("webhook-timestamp".to_owned(), TIME.to_owned()),
        ("webhook-signature".to_owned(), format!("v1,{}", STANDARD.encode(tag))),
    ]);
    Sample {
        headers,
        scheme: SecretScheme::SigningToken,
        proof_headers: &["webhook-signature"],
        sent_at: TIME.parse().ok(),
        ..sample
    }
}

fn told(event: WebhookEvent, id: &str, changes: Vec<RefChange>) -> Delivery {
    Delivery {
        event,
        action: String::new(),
        repository_id: "4861503".to_owned(),
        full_name: "gitlab-org/hello-world".to_owned(),
        changes,
        actor: Some(Account {
            id: id.to_owned(),
            login: "sytses".to_owned(),
            display_name: "Sid Sijbrandij".to_owned(),
            ..Account::default()
        }),
        pull_request: None,
        moment: String::new(),
        delivery_id: DELIVERY.to_owned(),
    }
}

/// The recorded merge request, whose user has no number yet.
fn told_of(action: &str, moment: &str, state: PullRequestState) -> Delivery {
    Delivery {
        action: action.to_owned(),
        moment: moment.to_owned(),
        pull_request: Some(PullRequest {
            number: 1,
            state,
            source_ref: "feature".to_owned(),
            target_ref: "master".to_owned(),
            head_commit_id: FEATURE.to_owned(),
        }),
        ..told(WebhookEvent::PullRequest, "", Vec::new())
    }
}

/// The published example of the scheme that GitLab adopted, with its own secret.
fn published() -> Sample {
    let vectors: Value = serde_json::from_str(body!("signature-vectors")).expect("vectors");
    let vector = &vectors["vectors"][0];
    let text = |name: &str| vector[name].as_str().expect("a text").to_owned();
    let token = text("signing_token");
    let key = STANDARD.decode(token.strip_prefix("whsec_").expect("a signing token")).expect("base64");
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    Sample {
        name: "the published vector",
        headers: names.map(|name| (name.to_owned(), text(name))).to_vec(),
        body: text("body").into_bytes(),
        scheme: SecretScheme::SigningToken,
        secret: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        proof_headers: &["webhook-signature"],
        sent_at: text("webhook-timestamp").parse().ok(),
        expected: Delivery {
            repository_id: String::new(),
            full_name: String::new(),
            actor: None,
            delivery_id: text("webhook-id"),
            ..told(WebhookEvent::Other, "", Vec::new())
        },
    }
}

pub(super) fn samples() -> Vec<Sample> {
    use WebhookEvent::{Other, Push, Tag};
    let (branch, tag) = ("refs/heads/feature", "refs/tags/v1.0.0");
    let push = "Push Hook";
    let request = "Merge Request Hook";
    let opened = body!("go-scm/webhooks/pull_request_create");
    let closed = opened.replace("\"state\": \"opened\"", "\"state\": \"closed\"");
    let closed = closed.replace("\"action\": \"open\"", "\"action\": \"close\"");
    let pipeline = r#"{"object_kind":"pipeline","object_attributes":{"id":31,"iid":3,"status":"success"},
        "user":{"id":51764,"name":"Sid Sijbrandij","username":"sytses"},
        "project":{"id":4861503,"path_with_namespace":"gitlab-org/hello-world"}}"#;
    let all = || {
        vec![
            sample(
                "a push",
                push,
                body!("go-scm/webhooks/push"),
                told(Push, "51764", vec![change("refs/heads/master", FIRST, SECOND)]),
            ),
            sample(
                "a push in a subgroup",
                push,
                body!("go-scm/webhooks/push_subgroup"),
                Delivery {
                    full_name: "group1/group2/group3/grp2repo".to_owned(),
                    ..told(Push, "51764", vec![change("refs/heads/master", FIRST, SECOND)])
                },
            ),
            sample(
                "a new branch",
                push,
                body!("go-scm/webhooks/branch_create"),
                told(Push, "51764", vec![change(branch, "", FEATURE)]),
            ),
            sample(
                "a deleted branch",
                push,
                body!("go-scm/webhooks/branch_delete"),
                told(Push, "51764", vec![change(branch, FEATURE, "")]),
            ),
            sample(
                "a new tag",
                "Tag Push Hook",
                body!("go-scm/webhooks/tag_create"),
                told(Tag, "51764", vec![change(tag, "", SECOND)]),
            ),
            sample(
                "a deleted tag",
                "Tag Push Hook",
                body!("go-scm/webhooks/tag_delete"),
                told(Tag, "51764", vec![change(tag, SECOND, "")]),
            ),
            sample(
                "an opened merge request",
                request,
                opened,
                told_of("open", "2017-12-10 17:01:11 UTC", PullRequestState::Open),
            ),
            sample(
                "a closed merge request",
                request,
                &closed,
                told_of("close", "2017-12-10 17:01:11 UTC", PullRequestState::Closed),
            ),
            sample(
                "a merged merge request",
                request,
                body!("go-scm/webhooks/pull_request_merge"),
                told_of("merge", "2017-12-10 17:08:07 UTC", PullRequestState::Merged),
            ),
            sample(
                "a pipeline",
                "Pipeline Hook",
                pipeline,
                Delivery { action: "pipeline".to_owned(), ..told(Other, "51764", Vec::new()) },
            ),
        ]
    };
    all().into_iter().chain(all().into_iter().map(signed)).chain([published()]).collect()
}
