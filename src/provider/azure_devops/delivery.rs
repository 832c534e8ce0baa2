//! Azure DevOps' webhook deliveries: how they prove themselves, and what they tell.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::rows::is_guid;
use crate::domain::credential::{Account, Secret};
use crate::domain::delivery::{
    Delivery, DeliveryHeaders, DeliveryRefusal, Presented, Proof, PullRequest, PullRequestState, RefChange,
};
use crate::domain::webhook::WebhookEvent;
use crate::provider::deliveries::{Rows, branch, commit_id, event_of, name, object};
use crate::provider::fields::{Id, lenient};
use crate::provider::inspection::clean;

/// What a delivery presents: the password of basic authentication. Its user name is compared by nobody.
pub(super) fn proof(headers: &DeliveryHeaders) -> Result<Proof, DeliveryRefusal> {
    let header = headers.get("authorization").ok_or(DeliveryRefusal::Unsigned)?;
    let password = password(header).ok_or(DeliveryRefusal::ProofMalformed)?;
    Ok(Proof { presented: Presented::Secret(password), sent_time: None })
}

fn password(header: &str) -> Option<Secret> {
    let (_, pair) = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))?;
    let pair = Zeroizing::new(STANDARD.decode(pair.trim()).ok()?);
    let (_, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some(Secret::new(password.to_owned()))
}

/// The body of a delivery.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    event_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    created_date: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    resource: Option<Resource>,
}

/// A push, or a pull request.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<Repository>,
    #[serde(default, deserialize_with = "lenient")]
    ref_updates: Option<Rows<RefUpdate>>,
    #[serde(default, deserialize_with = "lenient")]
    pushed_by: Option<Person>,
    #[serde(default, deserialize_with = "lenient")]
    pull_request_id: Option<Id>,
    #[serde(default, deserialize_with = "lenient")]
    status: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    created_by: Option<Person>,
    #[serde(default, deserialize_with = "lenient")]
    closed_by: Option<Person>,
    #[serde(default, deserialize_with = "lenient")]
    source_ref_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    target_ref_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    last_merge_source_commit: Option<Commit>,
    // Of a comment on a pull request.
    #[serde(default, deserialize_with = "lenient")]
    pull_request: Option<Commented>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    id: Option<String>,
    name: Option<String>,
    project: Option<Project>,
}

#[derive(Debug, Deserialize)]
struct Project {
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefUpdate {
    name: Option<String>,
    old_object_id: Option<String>,
    new_object_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Person {
    id: Option<String>,
    display_name: Option<String>,
    unique_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Commit {
    commit_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Commented {
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<Repository>,
}

/// What a delivery tells.
pub(super) fn delivery(body: &[u8]) -> Result<Delivery, DeliveryRefusal> {
    let body: Body = object(body)?;
    let word = body.event_type.unwrap_or_default();
    let mut resource = body.resource.unwrap_or_default();
    let commented = resource.pull_request.take().and_then(|commented| commented.repository);
    let repository = resource.repository.take().or(commented);
    let (repository_id, full_name) = repository.map(Repository::named).unwrap_or_default();
    let mut told = Delivery {
        event: WebhookEvent::Other,
        action: String::new(),
        repository_id,
        full_name,
        changes: Vec::new(),
        actor: None,
        pull_request: None,
        moment: String::new(),
        delivery_id: guid(body.id.as_deref()),
    };
    if word == "git.push" {
        told.changes = changes(resource.ref_updates);
        told.event = event_of(&told.changes);
        told.actor = resource.pushed_by.and_then(Person::account);
    } else if let Some(action) = word.strip_prefix("git.pullrequest.") {
        told.event = WebhookEvent::PullRequest;
        told.action = name(Some(action));
        told.pull_request = pull_request(&resource);
        // Of the event; the pull request itself says only when it was opened and closed.
        told.moment = name(body.created_date.as_deref());
        // Nothing names who changed it; who opened it did so only when it was new.
        let person = if action == "created" { resource.created_by } else { resource.closed_by };
        told.actor = person.and_then(Person::account);
    } else {
        told.action = name(Some(&word));
    }
    Ok(told)
}

/// The refs of a push, all-zero ids standing for none.
fn changes(updates: Option<Rows<RefUpdate>>) -> Vec<RefChange> {
    let updates = updates.map_or_else(Vec::new, |rows| rows.0).into_iter();
    let change = |update: RefUpdate| RefChange {
        git_ref: name(update.name.as_deref()),
        before: commit_id(update.old_object_id.as_deref()),
        after: commit_id(update.new_object_id.as_deref()),
    };
    updates.map(change).filter(|change| !change.git_ref.is_empty()).collect()
}

fn pull_request(resource: &Resource) -> Option<PullRequest> {
    let head = resource.last_merge_source_commit.as_ref();
    Some(PullRequest {
        number: i64::try_from(resource.pull_request_id?.0).ok()?,
        // A merge is only attempted while it is open: the event's own name says nothing of the state.
        state: match resource.status.as_deref() {
            Some("completed") => PullRequestState::Merged,
            Some("abandoned") => PullRequestState::Closed,
            _ => PullRequestState::Open,
        },
        source_ref: branch(resource.source_ref_name.as_deref()),
        target_ref: branch(resource.target_ref_name.as_deref()),
        head_commit_id: commit_id(head.and_then(|commit| commit.commit_id.as_deref())),
    })
}

impl Repository {
    /// Its id, and its full name.
    fn named(self) -> (String, String) {
        let project = self.project.and_then(|project| project.name);
        let full_name = project.zip(self.name).map(|(project, name)| format!("{project}/{name}"));
        (guid(self.id.as_deref()), name(full_name.as_deref()))
    }
}

impl Person {
    /// The account, without an address: what is called a unique name mostly is one.
    fn account(self) -> Option<Account> {
        let id = guid(self.id.as_deref());
        let login =
            self.unique_name.filter(|login| !login.contains('@')).as_deref().map_or_else(String::new, clean);
        if id.is_empty() && login.is_empty() {
            return None;
        }
        let display_name = self.display_name.filter(|name| !name.contains('@'));
        let display_name = display_name.as_deref().map_or_else(String::new, clean);
        Some(Account { id, login, display_name, ..Account::default() })
    }
}

/// An id in lower case; empty for anything but a GUID.
fn guid(text: Option<&str>) -> String {
    text.filter(|text| is_guid(text)).map_or_else(String::new, str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::proves;

    macro_rules! recorded {
        ($name:literal) => {
            include_bytes!(concat!("../../../tests/fixtures/providers/azure-devops/go-scm/webhooks/", $name))
        };
    }

    fn told(body: &[u8]) -> Delivery {
        delivery(body).expect("a delivery")
    }

    #[test]
    fn a_recorded_push_tells_its_refs() {
        let push = told(recorded!("push.json"));
        assert_eq!((push.event, push.action.as_str()), (WebhookEvent::Push, ""));
        assert_eq!(push.repository_id, "278d5cd2-584d-4b63-824a-2ba458937249");
        assert_eq!(push.full_name, "Fabrikam-Fiber-Git/Fabrikam-Fiber-Git");
        assert_eq!(push.delivery_id, "03c164c2-8912-4d5e-8009-3707d5f83734");
        let change = RefChange {
            git_ref: "refs/heads/master".to_owned(),
            before: "aad331d8d3b131fa9ae03cf5e53965b51942618a".to_owned(),
            after: "33b55f7cb7e7e245323987634f960cf4a6e6bc74".to_owned(),
        };
        assert_eq!(push.changes, [change]);
        // The recording has an address in place of the id, and another one behind the domain: nobody can be named.
        assert_eq!(push.actor, None);
    }

    #[test]
    fn a_push_of_several_refs_keeps_all_and_is_one_of_tags_only_if_all_are() {
        let zero = "0".repeat(40);
        let id = "33b55f7cb7e7e245323987634f960cf4a6e6bc74";
        let update = |name: &str, old: &str, new: &str| {
            format!(r#"{{"name":"{name}","oldObjectId":"{old}","newObjectId":"{new}"}}"#)
        };
        let push = |updates: &[String]| {
            let person = r#"{"id":"54D125F7-69F7-4191-904F-C5B96B6261C8","displayName":"Jamal Hartnett",
                "uniqueName":"masked@example.com"}"#;
            let updates = updates.join(",");
            let body = format!(
                r#"{{"eventType":"git.push","resource":{{"refUpdates":[{updates}],"pushedBy":{person}}}}}"#
            );
            told(body.as_bytes())
        };
        let made = update("refs/tags/v1", &zero, id);
        let gone = update("refs/tags/v0", id, &zero);
        let tags = push(&[made.clone(), gone]);
        assert_eq!((tags.event, tags.changes.len()), (WebhookEvent::Tag, 2));
        assert_eq!((tags.changes[0].before.as_str(), tags.changes[0].after.as_str()), ("", id));
        assert_eq!((tags.changes[1].before.as_str(), tags.changes[1].after.as_str()), (id, ""));
        let both = push(&[made, update("refs/heads/main", id, id)]);
        assert_eq!((both.event, both.changes.len()), (WebhookEvent::Push, 2));
        let actor = both.actor.expect("who pushed");
        assert_eq!(actor.id, "54d125f7-69f7-4191-904f-c5b96b6261c8");
        assert_eq!((actor.login.as_str(), actor.display_name.as_str()), ("", "Jamal Hartnett"));
    }

    #[test]
    fn recorded_pull_requests_tell_number_and_state() {
        for (body, action, state, opener) in [
            (&recorded!("pr_created.json")[..], "created", PullRequestState::Open, true),
            (recorded!("pr_updated.json"), "updated", PullRequestState::Merged, false),
            (recorded!("pr_merged.json"), "merged", PullRequestState::Merged, false),
        ] {
            let told = told(body);
            assert_eq!((told.event, told.action.as_str()), (WebhookEvent::PullRequest, action));
            assert_eq!(told.repository_id, "4bc14d40-c903-45e2-872e-0462c7748079");
            let wanted = PullRequest {
                number: 1,
                state,
                source_ref: "mytopic".to_owned(),
                target_ref: "master".to_owned(),
                head_commit_id: "53d54ac915144006c2c9e90d2c7d3880920db49c".to_owned(),
            };
            assert_eq!(told.pull_request, Some(wanted), "{action}");
            assert!(told.moment.starts_with("2016-09-19T13:03:27."), "{}", told.moment);
            // Who opened it did not merge it.
            assert_eq!(told.actor.is_some(), opener, "{action}");
        }
        let state = |status: &str| {
            let body = format!(
                r#"{{"eventType":"git.pullrequest.merged","resource":{{"pullRequestId":7,"status":"{status}"}}}}"#
            );
            told(body.as_bytes()).pull_request.expect("a pull request").state
        };
        assert_eq!(state("active"), PullRequestState::Open);
        assert_eq!(state("abandoned"), PullRequestState::Closed);
    }

    #[test]
    fn what_is_missing_or_odd_stays_empty() {
        let comment = told(recorded!("issue_comment.json"));
        assert_eq!(comment.event, WebhookEvent::Other);
        assert_eq!(comment.action, "ms.vss-code.git-pullrequest-comment-event");
        assert!(is_guid(&comment.repository_id), "{}", comment.repository_id);
        let odd = told(
            br#"{"eventType":"git.push","id":"../x","resource":{"repository":{"id":"1"},"refUpdates":7}}"#,
        );
        assert_eq!(
            (odd.event, odd.repository_id.as_str(), odd.delivery_id.as_str()),
            (WebhookEvent::Push, "", "")
        );
        assert_eq!(told(br#"{"eventType":"git.pullrequest.created","resource":null}"#).pull_request, None);
        for bad in [&b"[]"[..], b"", b"null", b"{\"eventType\":\"git.push\""] {
            assert_eq!(delivery(bad), Err(DeliveryRefusal::BodyMalformed));
        }
    }

    #[test]
    fn the_password_of_basic_authentication_is_the_proof() {
        let proof =
            |value: &str| proof(&DeliveryHeaders::new([("AUTHORIZATION".to_owned(), value.to_owned())]));
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let proved = |value: &str, secret: &str| {
            proves(&proof(value).expect("a proof").presented, &Secret::new(secret.to_owned()), b"")
        };
        assert!(proved(&basic("gitmoor:secret"), "secret"));
        assert!(proved(&basic("anybody:secret").replace("Basic", "basic"), "secret"));
        assert!(proved(&basic("gitmoor:se:cret"), "se:cret"));
        assert!(!proved(&basic("gitmoor:secrex"), "secret"));
        assert!(!proved(&basic("gitmoor:"), "secret"));
        for bad in
            ["Basic", "Basic !", "Bearer secret", &basic("no colon"), "Basic /w==", "Basic YTpi, Basic YTpi"]
        {
            assert_eq!(proof(bad).err(), Some(DeliveryRefusal::ProofMalformed), "{bad}");
        }
        assert_eq!(proof("").err(), Some(DeliveryRefusal::Unsigned));
    }
}
