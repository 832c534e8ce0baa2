//! GitLab's webhook deliveries: how they prove themselves, and what they tell.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::domain::credential::{Account, Secret};
use crate::domain::delivery::{
    Delivery, DeliveryHeaders, DeliveryRefusal, KeyForm, Presented, Proof, PullRequest, PullRequestState,
    RefChange,
};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{SecretScheme, WebhookEvent};
use crate::provider::deliveries::{branch, commit_id, name, object};
use crate::provider::fields::{Id, lenient};
use crate::provider::inspection::clean;

/// Most signatures that are tried: one for each secret in use.
const MAX_SIGNATURES: usize = 8;

/// What a delivery presents: a token in clear, or signatures of its id, its time and its body.
pub(super) fn proof(scheme: SecretScheme, headers: &DeliveryHeaders) -> Result<Proof, DeliveryRefusal> {
    if scheme == SecretScheme::SigningToken {
        return signatures(headers);
    }
    let token = headers.get("x-gitlab-token").ok_or(DeliveryRefusal::Unsigned)?;
    Ok(Proof { presented: Presented::Secret(Secret::new(token.to_owned())), sent_time: None })
}

/// The Standard Webhooks scheme: `v1,{base64}` for each secret in use, separated by spaces.
fn signatures(headers: &DeliveryHeaders) -> Result<Proof, DeliveryRefusal> {
    let signature = headers.get("webhook-signature").ok_or(DeliveryRefusal::Unsigned)?;
    let malformed = DeliveryRefusal::ProofMalformed;
    let id = headers.get("webhook-id").ok_or(malformed)?;
    let time = headers.get("webhook-timestamp").ok_or(malformed)?;
    // Nothing else of a later version is understood, and need not be while there is one of this.
    let signatures = signature.split(' ').filter_map(|text| text.trim_end_matches(',').strip_prefix("v1,"));
    let tags: Option<Vec<[u8; 32]>> =
        signatures.take(MAX_SIGNATURES).map(|text| STANDARD.decode(text).ok()?.try_into().ok()).collect();
    let tags = tags.filter(|tags| !tags.is_empty()).ok_or(malformed)?;
    let is_time = (1..=11).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: i64 = time.parse().ok().filter(|_| is_time).ok_or(malformed)?;
    Ok(Proof {
        presented: Presented::HmacSha256 {
            prefix: format!("{id}.{time}.").into_bytes(),
            tags,
            key: KeyForm::Hex,
        },
        sent_time: Some(Timestamp::from_unix_seconds(seconds)),
    })
}

/// The body of a delivery. Its own word for what it is counts, not the header's: only the body can be signed.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default, deserialize_with = "lenient")]
    object_kind: Option<String>,
    // Of system hooks, which name some events here alone.
    #[serde(default, deserialize_with = "lenient")]
    event_name: Option<String>,
    #[serde(rename = "ref", default, deserialize_with = "lenient")]
    git_ref: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    before: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    after: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    project_id: Option<Id>,
    #[serde(default, deserialize_with = "lenient")]
    project: Option<Project>,
    #[serde(default, deserialize_with = "lenient")]
    user_id: Option<Id>,
    #[serde(default, deserialize_with = "lenient")]
    user_username: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    user_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    user: Option<User>,
    #[serde(default, deserialize_with = "lenient")]
    object_attributes: Option<Attributes>,
}

#[derive(Debug, Deserialize)]
struct Project {
    id: Option<Id>,
    path_with_namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
struct User {
    id: Option<Id>,
    username: Option<String>,
    name: Option<String>,
}

/// The merge request, or whatever else the delivery is about.
#[derive(Debug, Default, Deserialize)]
struct Attributes {
    #[serde(default, deserialize_with = "lenient")]
    iid: Option<Id>,
    #[serde(default, deserialize_with = "lenient")]
    action: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    state: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    source_branch: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    target_branch: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    target_project_id: Option<Id>,
    #[serde(default, deserialize_with = "lenient")]
    updated_at: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    last_commit: Option<Commit>,
}

#[derive(Debug, Deserialize)]
struct Commit {
    id: Option<String>,
}

/// What a delivery tells.
pub(super) fn delivery(headers: &DeliveryHeaders, body: &[u8]) -> Result<Delivery, DeliveryRefusal> {
    let body: Body = object(body)?;
    let word = body.object_kind.as_deref().or(body.event_name.as_deref());
    let event = match word {
        Some("push") => WebhookEvent::Push,
        Some("tag_push") => WebhookEvent::Tag,
        Some("merge_request") => WebhookEvent::PullRequest,
        _ => WebhookEvent::Other,
    };
    let is_about_refs = matches!(event, WebhookEvent::Push | WebhookEvent::Tag);
    let change = is_about_refs.then(|| RefChange {
        git_ref: name(body.git_ref.as_deref()),
        before: commit_id(body.before.as_deref()),
        after: commit_id(body.after.as_deref()),
    });
    let attributes = body.object_attributes.unwrap_or_default();
    let project = body.project.as_ref();
    let id = project.and_then(|project| project.id).or(body.project_id).or(attributes.target_project_id);
    // Constant when the delivery is sent again; older servers have but an id of the event.
    let delivery_id = ["idempotency-key", "webhook-id", "x-gitlab-event-uuid"]
        .into_iter()
        .find_map(|header| headers.get(header));
    Ok(Delivery {
        event,
        action: match event {
            WebhookEvent::Push | WebhookEvent::Tag => String::new(),
            WebhookEvent::PullRequest => name(attributes.action.as_deref()),
            WebhookEvent::Other => name(attributes.action.as_deref().or(word)),
        },
        repository_id: id.map_or_else(String::new, |id| id.0.to_string()),
        full_name: name(project.and_then(|project| project.path_with_namespace.as_deref())),
        changes: change.into_iter().filter(|change| !change.git_ref.is_empty()).collect(),
        actor: actor(body.user, (body.user_id, body.user_username, body.user_name)),
        pull_request: if event == WebhookEvent::PullRequest { pull_request(&attributes) } else { None },
        moment: if is_about_refs { String::new() } else { name(attributes.updated_at.as_deref()) },
        delivery_id: name(delivery_id),
    })
}

/// Who did it: pushes name the user in members of their own, everything else in one object. The address is left where
/// it is.
fn actor(user: Option<User>, pusher: (Option<Id>, Option<String>, Option<String>)) -> Option<Account> {
    let (id, login, display_name) = match user {
        Some(user) => (user.id, user.username, user.name),
        None => pusher,
    };
    if id.is_none() && login.is_none() {
        return None;
    }
    Some(Account {
        id: id.map_or_else(String::new, |id| id.0.to_string()),
        login: login.as_deref().map_or_else(String::new, clean),
        display_name: display_name.as_deref().map_or_else(String::new, clean),
        ..Account::default()
    })
}

fn pull_request(attributes: &Attributes) -> Option<PullRequest> {
    Some(PullRequest {
        number: i64::try_from(attributes.iid?.0).ok()?,
        state: match attributes.state.as_deref() {
            Some("merged") => PullRequestState::Merged,
            Some("closed") => PullRequestState::Closed,
            // `opened`, and `locked` while it is being merged.
            _ => PullRequestState::Open,
        },
        source_ref: branch(attributes.source_branch.as_deref()),
        target_ref: branch(attributes.target_branch.as_deref()),
        head_commit_id: commit_id(attributes.last_commit.as_ref().and_then(|commit| commit.id.as_deref())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::proves;

    macro_rules! recorded {
        ($name:literal) => {
            include_bytes!(concat!("../../../tests/fixtures/providers/gitlab/go-scm/webhooks/", $name))
        };
    }

    fn headers(pairs: &[(&str, &str)]) -> DeliveryHeaders {
        DeliveryHeaders::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn told(body: &[u8]) -> Delivery {
        delivery(&DeliveryHeaders::default(), body).expect("a delivery")
    }

    fn change(git_ref: &str, before: &str, after: &str) -> RefChange {
        RefChange { git_ref: git_ref.to_owned(), before: before.to_owned(), after: after.to_owned() }
    }

    #[test]
    fn recorded_pushes_tell_their_refs() {
        let old = "9217710ce8c7e1eae7a5d1c45f6e43e1c769f866";
        let new = "2adc9465c4edfc33834e173fe89436a7cb899a1d";
        let feature = "c4c79227ed610f1151f05bbc5be33b4f340d39c8";
        for (body, event, full_name, change) in [
            (
                &recorded!("push.json")[..],
                WebhookEvent::Push,
                "gitlab-org/hello-world",
                change("refs/heads/master", old, new),
            ),
            (
                recorded!("push_subgroup.json"),
                WebhookEvent::Push,
                "group1/group2/group3/grp2repo",
                change("refs/heads/master", old, new),
            ),
            (
                recorded!("branch_create.json"),
                WebhookEvent::Push,
                "gitlab-org/hello-world",
                change("refs/heads/feature", "", feature),
            ),
            (
                recorded!("branch_delete.json"),
                WebhookEvent::Push,
                "gitlab-org/hello-world",
                change("refs/heads/feature", feature, ""),
            ),
            (
                recorded!("tag_create.json"),
                WebhookEvent::Tag,
                "gitlab-org/hello-world",
                change("refs/tags/v1.0.0", "", new),
            ),
            (
                recorded!("tag_delete_subgroup.json"),
                WebhookEvent::Tag,
                "group1/group2/group3/grp2repo",
                change("refs/tags/v1.0.0", new, ""),
            ),
        ] {
            let told = told(body);
            assert_eq!((told.event, told.full_name.as_str()), (event, full_name));
            assert_eq!((told.repository_id.as_str(), told.changes), ("4861503", vec![change]));
            let actor = told.actor.expect("who pushed");
            assert_eq!(
                (actor.id.as_str(), actor.login.as_str(), actor.email.as_str()),
                ("51764", "sytses", "")
            );
        }
    }

    #[test]
    fn recorded_merge_requests_tell_number_and_state() {
        for (body, action, state, moment) in [
            (
                &recorded!("pull_request_create.json")[..],
                "open",
                PullRequestState::Open,
                "2017-12-10 17:01:11 UTC",
            ),
            (
                recorded!("pull_request_merge.json"),
                "merge",
                PullRequestState::Merged,
                "2017-12-10 17:08:07 UTC",
            ),
        ] {
            let told = told(body);
            assert_eq!(told.moment, moment);
            assert_eq!((told.event, told.action.as_str()), (WebhookEvent::PullRequest, action));
            assert_eq!(told.repository_id, "4861503");
            // These recordings are older than the user's number.
            let actor = told.actor.expect("who did it");
            assert_eq!((actor.id.as_str(), actor.login.as_str()), ("", "sytses"));
            let wanted = PullRequest {
                number: 1,
                state,
                source_ref: "feature".to_owned(),
                target_ref: "master".to_owned(),
                head_commit_id: "c4c79227ed610f1151f05bbc5be33b4f340d39c8".to_owned(),
            };
            assert_eq!(told.pull_request, Some(wanted));
        }
        let state = |state: &str| {
            let body = format!(
                r#"{{"object_kind":"merge_request","object_attributes":{{"iid":7,"state":"{state}"}}}}"#
            );
            told(body.as_bytes()).pull_request.expect("a merge request").state
        };
        assert_eq!(state("closed"), PullRequestState::Closed);
        assert_eq!(state("locked"), PullRequestState::Open);
    }

    #[test]
    fn what_is_missing_or_odd_stays_empty() {
        let odd = told(br#"{"object_kind":"pipeline","project":{"id":7,"path_with_namespace":"a/b"}}"#);
        assert_eq!((odd.event, odd.repository_id.as_str()), (WebhookEvent::Other, "7"));
        assert_eq!(odd.action, "pipeline");
        let odd = told(br#"{"object_kind":"push","ref":7,"project":"x","project_id":-1,"user":[]}"#);
        assert_eq!((odd.event, odd.repository_id.as_str(), odd.changes.len()), (WebhookEvent::Push, "", 0));
        let odd = told(br#"{"object_kind":"merge_request","object_attributes":null}"#);
        assert_eq!((odd.event, odd.pull_request), (WebhookEvent::PullRequest, None));
        assert_eq!(told(br#"{"event_name":"tag_push","project_id":8}"#).event, WebhookEvent::Tag);
        for bad in [&b"[]"[..], b"payload=%7B%7D", b"", b"null", b"{\"object_kind\":\"push\""] {
            let refused = delivery(&DeliveryHeaders::default(), bad);
            assert_eq!(refused, Err(DeliveryRefusal::BodyMalformed));
        }
    }

    #[test]
    fn a_delivery_is_known_by_what_stays_the_same_when_it_is_sent_again() {
        let id = |pairs: &[(&str, &str)]| delivery(&headers(pairs), b"{}").expect("a delivery").delivery_id;
        let uuid = ("X-Gitlab-Event-UUID", "of-the-event");
        assert_eq!(id(&[uuid, ("Idempotency-Key", "of-the-delivery")]), "of-the-delivery");
        assert_eq!(id(&[uuid, ("webhook-id", "of-the-delivery")]), "of-the-delivery");
        assert_eq!(id(&[uuid, ("X-Gitlab-Webhook-UUID", "random")]), "of-the-event");
        assert_eq!(id(&[("X-Gitlab-Webhook-UUID", "random")]), "");
    }

    /// The published vectors: the secret is written here as a webhook's is, in hexadecimal.
    fn vector() -> (DeliveryHeaders, Secret, Vec<u8>, i64) {
        let file = include_str!("../../../tests/fixtures/providers/gitlab/signature-vectors.json");
        let file: serde_json::Value = serde_json::from_str(file).expect("fixture");
        let text = |name: &str| file["vectors"][0][name].as_str().expect("a text").to_owned();
        let token = text("signing_token");
        let key = STANDARD.decode(token.strip_prefix("whsec_").expect("a prefix")).expect("base64");
        let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers = DeliveryHeaders::new(headers.map(|name| (name.to_ascii_uppercase(), text(name))));
        let digits = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let time = text("webhook-timestamp").parse().expect("seconds");
        (headers, Secret::new(digits), text("body").into_bytes(), time)
    }

    #[test]
    fn a_published_signature_verifies_and_no_other_body_does() {
        let (headers, secret, body, time) = vector();
        let proof = proof(SecretScheme::SigningToken, &headers).expect("a proof");
        assert_eq!(proof.sent_time, Some(Timestamp::from_unix_seconds(time)));
        assert!(proves(&proof.presented, &secret, &body));
        for at in 0..body.len() {
            let mut other = body.clone();
            other[at] ^= 1;
            assert!(!proves(&proof.presented, &secret, &other), "byte {at}");
        }
    }

    #[test]
    fn a_signature_covers_id_and_time_and_one_of_several_is_enough() {
        let (given, secret, body, _) = vector();
        let with = |changes: &[(&str, &str)]| {
            let mut pairs: Vec<(&str, &str)> = ["webhook-id", "webhook-timestamp", "webhook-signature"]
                .into_iter()
                .filter(|name| !changes.iter().any(|(changed, _)| changed == name))
                .filter_map(|name| given.get(name).map(|value| (name, value)))
                .collect();
            pairs.extend_from_slice(changes);
            proof(SecretScheme::SigningToken, &headers(&pairs))
        };
        let verifies =
            |changes: &[(&str, &str)]| proves(&with(changes).expect("a proof").presented, &secret, &body);
        let right = given.get("webhook-signature").expect("a signature");
        let other = format!("v1,{}", STANDARD.encode([7; 32]));
        assert!(verifies(&[("webhook-signature", &format!("{other} v1a,eA== {right}"))]));
        // Two headers of one name.
        assert!(verifies(&[("webhook-signature", &format!("{other}, {right}"))]));
        assert!(!verifies(&[("webhook-signature", &other)]));
        assert!(!verifies(&[("webhook-id", "another")]));
        assert!(!verifies(&[("webhook-timestamp", "1614265331")]));
        for (name, bad) in [
            ("webhook-id", ""),
            ("webhook-timestamp", "soon"),
            ("webhook-timestamp", "-1614265330"),
            ("webhook-timestamp", "161426533000000"),
            ("webhook-signature", "v1,"),
            ("webhook-signature", "v1,eA=="),
            ("webhook-signature", "v2,eA=="),
            ("webhook-signature", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ] {
            let refused = with(&[(name, bad)]).err();
            assert_eq!(refused, Some(DeliveryRefusal::ProofMalformed), "{name}: {bad}");
        }
        // The secret in clear is no signature.
        let token = headers(&[("X-Gitlab-Token", "secret")]);
        assert_eq!(proof(SecretScheme::SigningToken, &token).err(), Some(DeliveryRefusal::Unsigned));
    }

    #[test]
    fn a_token_is_presented_as_it_is() {
        let found =
            proof(SecretScheme::Token, &headers(&[("x-gitlab-token", "topsecret")])).expect("a proof");
        assert!(proves(&found.presented, &Secret::new("topsecret".to_owned()), b""));
        assert!(!proves(&found.presented, &Secret::new("topsecreT".to_owned()), b""));
        assert!(!format!("{found:?}").contains("topsecret"));
        let none = proof(SecretScheme::Token, &headers(&[("X-Gitlab-Token", "")]));
        assert_eq!(none.err(), Some(DeliveryRefusal::Unsigned));
    }
}
