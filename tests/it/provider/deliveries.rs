//! Deliveries: each provider's own become one normal form, and prove where they come from.

mod azure_devops;
mod bitbucket_cloud;
mod bitbucket_data_center;
mod gitea;
mod github;
mod gitlab;

use std::collections::BTreeSet;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gitmoor::domain::credential::Secret;
use gitmoor::domain::delivery::{
    Delivery, DeliveryHeaders, DeliveryRefusal, PullRequest, PullRequestState, RefChange,
};
use gitmoor::domain::webhook::{BASIC_AUTH_USERNAME, SecretScheme, WebhookEvent};
use gitmoor::provider::{Provider, Providers};
use gitmoor::seal::proves;
use ring::hmac;

/// A delivery as a provider sends it, and what it tells.
struct Sample {
    name: &'static str,
    /// In the provider's own letter case, the proof included.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    scheme: SecretScheme,
    secret: String,
    /// The headers that carry the proof: without them the delivery is unsigned. Lower case.
    proof_headers: &'static [&'static str],
    /// What the proof says of its time, in Unix seconds.
    sent_at: Option<i64>,
    expected: Delivery,
}

fn samples(id: &str) -> Vec<Sample> {
    match id {
        "azure-devops" => azure_devops::samples(),
        "bitbucket-cloud" => bitbucket_cloud::samples(),
        "bitbucket-data-center" => bitbucket_data_center::samples(),
        "gitea" => gitea::samples(),
        "github" => github::samples(),
        "gitlab" => gitlab::samples(),
        other => panic!("the provider {other} has no deliveries here: write a module of them"),
    }
}

/// The secret of samples that were not signed by their provider.
const SECRET: &str = "5ec7e7000000000000000000000000000000000000000000000000000000c0de";

/// The HMAC-SHA256 of `parts`, one after the other, in hexadecimal digits.
fn hmac_hex(key: &[u8], parts: &[&[u8]]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    parts.iter().for_each(|part| context.update(part));
    context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A push or the like, of one ref.
fn change(git_ref: &str, before: &str, after: &str) -> RefChange {
    RefChange { git_ref: git_ref.to_owned(), before: before.to_owned(), after: after.to_owned() }
}

fn pull_request(number: i64, state: PullRequestState, source: &str, target: &str, head: &str) -> PullRequest {
    PullRequest {
        number,
        state,
        source_ref: source.to_owned(),
        target_ref: target.to_owned(),
        head_commit_id: head.to_owned(),
    }
}

impl Sample {
    fn headers(&self) -> DeliveryHeaders {
        DeliveryHeaders::new(self.headers.clone())
    }

    fn covers_body(&self) -> bool {
        matches!(self.scheme, SecretScheme::HmacSha256 | SecretScheme::SigningToken)
    }

    /// Whether the delivery with these headers and this body is proven.
    fn is_proven(
        &self,
        driver: &dyn Provider,
        headers: &DeliveryHeaders,
        body: &[u8],
        secret: &str,
    ) -> Result<bool, DeliveryRefusal> {
        let proof = driver.proof(self.scheme, headers, body)?;
        Ok(proves(&proof.presented, &Secret::new(secret.to_owned()), body))
    }
}

/// What `check` says of every sample of every provider.
fn each(check: impl Fn(&dyn Provider, &Sample, &str)) {
    for provider in Providers::builtin().iter() {
        for sample in samples(provider.about().id) {
            check(provider, &sample, &format!("{} {}", provider.about().id, sample.name));
        }
    }
}

#[test]
fn every_delivery_becomes_its_normal_form() {
    each(|driver, sample, name| {
        assert_eq!(driver.delivery(&sample.headers(), &sample.body).as_ref(), Ok(&sample.expected), "{name}");
    });
}

#[test]
fn the_samples_have_every_event_and_every_state() {
    for provider in Providers::builtin().iter() {
        let id = provider.about().id;
        let samples = samples(id);
        let events: BTreeSet<WebhookEvent> = samples.iter().map(|sample| sample.expected.event).collect();
        for event in provider.about().webhook_events {
            assert!(events.contains(event), "{id}: no sample of {event:?}");
        }
        assert!(events.contains(&WebhookEvent::Other), "{id}: no sample of something else");
        let has = |state| {
            samples.iter().any(|sample| {
                sample.expected.pull_request.as_ref().is_some_and(|pull_request| pull_request.state == state)
            })
        };
        for state in [PullRequestState::Open, PullRequestState::Closed, PullRequestState::Merged] {
            assert!(has(state), "{id}: no sample of a pull request that is {state:?}");
        }
        let changes = || samples.iter().flat_map(|sample| &sample.expected.changes);
        assert!(changes().any(|change| change.before.is_empty()), "{id}: nothing is created");
        assert!(changes().any(|change| change.after.is_empty()), "{id}: nothing is deleted");
    }
}

#[test]
fn what_a_delivery_tells_has_one_form() {
    each(|driver, sample, name| {
        let told = driver.delivery(&sample.headers(), &sample.body).expect("a delivery");
        assert_eq!(
            told.pull_request.is_some(),
            told.event == WebhookEvent::PullRequest,
            "{name}: a pull request where there is one"
        );
        assert_eq!(!told.moment.is_empty(), told.pull_request.is_some(), "{name}: when it was changed");
        let of_refs = matches!(told.event, WebhookEvent::Push | WebhookEvent::Tag);
        assert_eq!(!told.changes.is_empty(), of_refs, "{name}: refs where they changed");
        for change in &told.changes {
            let place = if told.event == WebhookEvent::Tag { "refs/tags/" } else { "refs/" };
            assert!(change.git_ref.starts_with(place), "{name}: {change:?}");
            for commit in [&change.before, &change.after] {
                assert!(commit.is_empty() || commit.bytes().any(|digit| digit != b'0'), "{name}: {change:?}");
            }
        }
        if let Some(pull_request) = &told.pull_request {
            assert!(pull_request.number > 0 && !pull_request.head_commit_id.is_empty(), "{name}");
            let refs = [&pull_request.source_ref, &pull_request.target_ref];
            assert!(refs.iter().all(|name| !name.is_empty() && !name.starts_with("refs/")), "{name}");
        }
    });
}

#[test]
fn every_delivery_proves_itself_with_its_secret_alone() {
    each(|driver, sample, name| {
        let headers = sample.headers();
        let proven = |secret: &str| sample.is_proven(driver, &headers, &sample.body, secret);
        assert_eq!(proven(&sample.secret), Ok(true), "{name}");
        for wrong in [format!("{}0", sample.secret), sample.secret[1..].to_owned(), String::new()] {
            assert_eq!(proven(&wrong), Ok(false), "{name}");
        }
        let proof = driver.proof(sample.scheme, &headers, &sample.body).expect("a proof");
        assert_eq!(proof.sent_time.map(|time| time.unix_micros() / 1_000_000), sample.sent_at, "{name}");
        assert!(!format!("{proof:?}").contains(&sample.secret), "{name}: the proof prints its secret");
    });
}

/// The known answers of the fixtures: bodies, public test secrets, and what came with them.
#[test]
fn every_recorded_signature_is_checked_as_it_should_be() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/providers"));
    for provider in Providers::builtin().iter() {
        let id = provider.about().id;
        let folder = folder.join(id);
        let Ok(text) = std::fs::read_to_string(folder.join("signature-vectors.json")) else { continue };
        let vectors: serde_json::Value = serde_json::from_str(&text).expect("vectors");
        // Others have no body in a file; they are checked where their driver is.
        let of_files =
            vectors["vectors"].as_array().expect("a list").iter().filter(|row| row["file"].is_string());
        for vector in of_files {
            let text = |name: &str| vector[name].as_str().expect("a text");
            let body = std::fs::read(folder.join(text("file"))).expect("a body");
            let headers = DeliveryHeaders::new([(text("header").to_owned(), text("value").to_owned())]);
            let proven = provider
                .proof(SecretScheme::HmacSha256, &headers, &body)
                .map(|proof| proves(&proof.presented, &Secret::new(text("secret").to_owned()), &body));
            if text("value").starts_with("sha1=") {
                assert_eq!(proven, Err(DeliveryRefusal::Unsigned), "{id} {vector}");
            } else {
                assert_eq!(proven.unwrap_or(false), vector["valid"] == true, "{id} {vector}");
            }
        }
    }
}

#[test]
fn a_changed_byte_is_noticed_where_the_proof_covers_the_body() {
    each(|driver, sample, name| {
        let headers = sample.headers();
        let proven = |body: &[u8]| sample.is_proven(driver, &headers, body, &sample.secret);
        let length = sample.body.len();
        for at in [0, 1, length / 3, length / 2, length - 2, length - 1] {
            let mut body = sample.body.clone();
            body[at] ^= 1;
            assert_eq!(proven(&body), Ok(!sample.covers_body()), "{name}: byte {at}");
        }
        for body in [&sample.body[..length - 1], &[sample.body.as_slice(), b" "].concat(), b""] {
            assert_eq!(proven(body), Ok(!sample.covers_body()), "{name}: {} bytes", body.len());
        }
    });
}

#[test]
fn headers_are_found_in_any_case() {
    each(|driver, sample, name| {
        for case in [str::to_ascii_lowercase, str::to_ascii_uppercase] {
            let headers = sample.headers.iter().map(|(name, value)| (case(name), value.clone()));
            let headers = DeliveryHeaders::new(headers);
            assert_eq!(driver.delivery(&headers, &sample.body).as_ref(), Ok(&sample.expected), "{name}");
            assert_eq!(sample.is_proven(driver, &headers, &sample.body, &sample.secret), Ok(true), "{name}");
        }
    });
}

#[test]
fn a_delivery_without_its_proof_is_unsigned() {
    each(|driver, sample, name| {
        let carries = |header: &str| sample.proof_headers.contains(&header.to_ascii_lowercase().as_str());
        assert!(sample.headers.iter().any(|(header, _)| carries(header)), "{name}");
        let with = |value: Option<&str>| {
            let headers = sample.headers.iter().filter_map(|(header, told)| {
                let value = if carries(header) { value? } else { told };
                Some((header.clone(), value.to_owned()))
            });
            driver.proof(sample.scheme, &DeliveryHeaders::new(headers), &sample.body).err()
        };
        assert_eq!(with(None), Some(DeliveryRefusal::Unsigned), "{name}");
        assert_eq!(with(Some(" ")), Some(DeliveryRefusal::Unsigned), "{name}");
        if sample.covers_body() {
            let digits = "0".repeat(63);
            for malformed in ["x", &*digits, &*format!("sha256={digits}"), &*format!("v1,{digits}"), "\u{e9}"]
            {
                assert_eq!(
                    with(Some(malformed)),
                    Some(DeliveryRefusal::ProofMalformed),
                    "{name}: {malformed}"
                );
            }
        }
    });
}

#[test]
fn h18_a_body_that_is_no_json_object_is_refused() {
    each(|driver, sample, name| {
        let deep = format!("{{\"repository\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let bodies: [&[u8]; 8] = [
            b"",
            b"{",
            b"[]",
            b"null",
            b"\"text\"",
            b"payload=%7B%7D",
            deep.as_bytes(),
            b"{\"repository\":\"\xff\"}",
        ];
        for body in bodies {
            let told = driver.delivery(&sample.headers(), body);
            assert_eq!(told.err(), Some(DeliveryRefusal::BodyMalformed), "{name}");
        }
    });
}

/// What is missing stays empty, and nothing is made up.
#[test]
fn a_delivery_that_tells_nothing_is_something_else() {
    each(|driver, sample, name| {
        let told = driver.delivery(&sample.headers(), b"{}");
        let told = told.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        assert!(told.repository_id.is_empty() && told.full_name.is_empty(), "{name}: {told:?}");
        assert!(
            told.changes.is_empty() && told.pull_request.is_none() && told.actor.is_none(),
            "{name}: {told:?}"
        );
        let told = driver.delivery(&DeliveryHeaders::default(), b"{}").expect("a delivery");
        assert_eq!((told.event, told.delivery_id.as_str()), (WebhookEvent::Other, ""), "{name}");
    });
}

#[test]
fn members_of_another_kind_are_no_reason_to_refuse() {
    each(|driver, sample, name| {
        let odd = r#"{"repository":7,"resource":[],"project":"x","sender":[],"actor":1,"user":null,"pull_request":"no",
            "pullRequest":[],"object_attributes":3,"ref":{},"before":1,"after":[],"changes":7,"push":"x","action":{},
            "number":"one","eventKey":3,"eventType":[]}"#;
        let told = driver.delivery(&sample.headers(), odd.as_bytes());
        let told = told.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        assert!(told.repository_id.is_empty() && told.actor.is_none(), "{name}: {told:?}");
    });
}

/// A push as the provider of that id would deliver it about the repository `id`, proven with `secret`: headers and body.
pub(crate) fn push_about(provider: &str, id: &str, secret: &str) -> (Vec<(String, String)>, Vec<u8>) {
    let usable = |sample: &Sample| {
        // A signature that covers a time is the driver's own test.
        sample.expected.event == WebhookEvent::Push && sample.scheme != SecretScheme::SigningToken
    };
    let sample = samples(provider).into_iter().find(usable).expect("a sample of a push");
    let mut body: serde_json::Value = serde_json::from_slice(&sample.body).expect("JSON");
    rename(&mut body, &sample.expected.repository_id, id);
    let body = serde_json::to_vec(&body).expect("JSON");
    let proof = |header: &str, was: &str| match sample.scheme {
        SecretScheme::BasicAuth => {
            format!("Basic {}", STANDARD.encode(format!("{BASIC_AUTH_USERNAME}:{secret}")))
        }
        SecretScheme::Token => secret.to_owned(),
        _ if header == "x-hub-signature" && was.starts_with("sha1=") => was.to_owned(),
        _ => {
            let prefix = if was.starts_with("sha256=") { "sha256=" } else { "" };
            format!("{prefix}{}", hmac_hex(secret.as_bytes(), &[&body]))
        }
    };
    let headers = sample.headers.iter().map(|(name, value)| {
        let lower = name.to_ascii_lowercase();
        let carries = sample.proof_headers.contains(&lower.as_str());
        (name.clone(), if carries { proof(&lower, value) } else { value.clone() })
    });
    (headers.collect(), body)
}

/// Puts the id `new` wherever `old` stands.
fn rename(value: &mut serde_json::Value, old: &str, new: &str) {
    use serde_json::Value;
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| rename(value, old, new)),
        Value::Object(members) => members.values_mut().for_each(|value| rename(value, old, new)),
        Value::Number(number) if number.to_string() == old => {
            *value = new.parse::<u64>().expect("a number").into();
        }
        Value::String(text) if text == old => new.clone_into(text),
        _ => {}
    }
}
