//! What Bitbucket Data Center delivers to a webhook (its page "Event payload").
//!
//! The body names what happened, so nothing but the id of the delivery is taken from a header. Dates became texts with
//! 10.3. The signature has the header in which GitHub sends its old one of SHA-1.

use serde::Deserialize;

use super::rows::UserRow;
use crate::domain::delivery::{
    Delivery, DeliveryHeaders, DeliveryRefusal, Proof, PullRequest, PullRequestState, RefChange,
};
use crate::domain::webhook::WebhookEvent;
use crate::provider::deliveries::{Rows, branch, commit_id, event_of, hmac_proof, name, object};
use crate::provider::fields::{Id, lenient};

/// The signature of a delivery; a webhook without a secret sends none, nor does a test of the connection.
pub(super) fn proof(headers: &DeliveryHeaders) -> Result<Proof, DeliveryRefusal> {
    hmac_proof(headers.get("x-hub-signature"), "sha256=")
}

/// What a delivery tells.
pub(super) fn delivery(headers: &DeliveryHeaders, body: &[u8]) -> Result<Delivery, DeliveryRefusal> {
    let body: Body = object(body)?;
    // A test of the connection has no more than `{"test": true}`, and its key in the header.
    let key = body.event_key.as_deref().or(headers.get("x-event-key")).unwrap_or("");
    let target = body.pull_request.as_ref().and_then(|row| row.to_ref.as_ref());
    let repository = body.repository.as_ref().or(target.and_then(|end| end.repository.as_ref()));
    let mut told = Delivery {
        event: WebhookEvent::Other,
        action: name(Some(key)),
        repository_id: repository
            .and_then(|row| row.id.as_ref())
            .map_or_else(String::new, |id| id.0.to_string()),
        full_name: repository.map_or_else(String::new, RepositoryRow::full_name),
        changes: Vec::new(),
        actor: body.actor.map(|actor| actor.account()),
        pull_request: None,
        moment: String::new(),
        delivery_id: name(headers.get("x-request-id")),
    };
    match (key.split_once(':'), body.changes, &body.pull_request) {
        (Some(("repo", "refs_changed")), Some(Rows(changes)), _) => {
            told.changes = changes.into_iter().filter_map(ChangeRow::change).collect();
            told.event = event_of(&told.changes);
            told.action = String::new();
        }
        (Some(("pr", action)), _, Some(row)) if is_told(action) => {
            told.pull_request = row.pull_request(action);
            if told.pull_request.is_some() {
                told.event = WebhookEvent::PullRequest;
                told.action = name(Some(action));
                told.moment = row.updated_date.as_ref().map_or_else(String::new, Date::text);
            }
        }
        _ => {}
    }
    Ok(told)
}

/// Whether an event of a pull request is one that a webhook of ours asks for. Others, such as comments, have the pull
/// request, too.
fn is_told(action: &str) -> bool {
    super::webhooks::PULL_REQUEST_EVENTS.iter().any(|event| event.split_once(':') == Some(("pr", action)))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default, deserialize_with = "lenient")]
    event_key: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    actor: Option<UserRow>,
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<RepositoryRow>,
    #[serde(default, deserialize_with = "lenient")]
    changes: Option<Rows<ChangeRow>>,
    #[serde(default, deserialize_with = "lenient")]
    pull_request: Option<PullRequestRow>,
}

#[derive(Debug, Deserialize)]
struct RepositoryRow {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<Id>,
    #[serde(default, deserialize_with = "lenient")]
    slug: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    project: Option<ProjectRow>,
}

#[derive(Debug, Deserialize)]
struct ProjectRow {
    #[serde(default, deserialize_with = "lenient")]
    key: Option<String>,
}

impl RepositoryRow {
    /// Key and slug; empty if one is missing.
    fn full_name(&self) -> String {
        let key = self.project.as_ref().and_then(|project| project.key.as_deref());
        match (key, self.slug.as_deref()) {
            (Some(key), Some(slug)) => name(Some(&format!("{key}/{slug}"))),
            _ => String::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeRow {
    #[serde(default, deserialize_with = "lenient")]
    ref_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    from_hash: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    to_hash: Option<String>,
}

impl ChangeRow {
    /// The change; `None` if it names no ref.
    fn change(self) -> Option<RefChange> {
        let git_ref = name(self.ref_id.as_deref());
        (!git_ref.is_empty()).then(|| RefChange {
            git_ref,
            before: commit_id(self.from_hash.as_deref()),
            after: commit_id(self.to_hash.as_deref()),
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PullRequestRow {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<Id>,
    #[serde(default, deserialize_with = "lenient")]
    state: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    updated_date: Option<Date>,
    #[serde(default, deserialize_with = "lenient")]
    from_ref: Option<EndRow>,
    #[serde(default, deserialize_with = "lenient")]
    to_ref: Option<EndRow>,
}

/// A date: milliseconds, or a text since 10.3.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Date {
    Millis(i64),
    Text(String),
}

impl Date {
    fn text(&self) -> String {
        match self {
            Self::Millis(millis) => millis.to_string(),
            Self::Text(text) => name(Some(text)),
        }
    }
}

/// One end of a pull request; where it goes to is the repository that delivers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndRow {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    latest_commit: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<RepositoryRow>,
}

impl PullRequestRow {
    /// The pull request after `action`; `None` without a number.
    fn pull_request(&self, action: &str) -> Option<PullRequest> {
        let (source, target) = (self.from_ref.as_ref(), self.to_ref.as_ref());
        let branch_of = |end: Option<&EndRow>| branch(end.and_then(|end| end.id.as_deref()));
        Some(PullRequest {
            number: self.id.as_ref().and_then(|id| i64::try_from(id.0).ok())?,
            state: match self.state.as_deref() {
                Some("MERGED") => PullRequestState::Merged,
                Some("DECLINED") => PullRequestState::Closed,
                // While it was open.
                _ if action == "deleted" => PullRequestState::Closed,
                _ => PullRequestState::Open,
            },
            source_ref: branch_of(source),
            target_ref: branch_of(target),
            head_commit_id: commit_id(source.and_then(|end| end.latest_commit.as_deref())),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::delivery::Presented;

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../../tests/fixtures/providers/bitbucket-data-center/", $name))
        };
    }

    fn headers(key: &str) -> DeliveryHeaders {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        DeliveryHeaders::new([pair("X-Event-Key", key), pair("X-Request-Id", "req-1")])
    }

    fn told(body: &str) -> Delivery {
        delivery(&headers("diagnostics:ping"), body.as_bytes()).expect("a delivery")
    }

    fn change(git_ref: &str, before: &str, after: &str) -> RefChange {
        let [git_ref, before, after] = [git_ref, before, after].map(str::to_owned);
        RefChange { git_ref, before, after }
    }

    #[test]
    fn recorded_pushes_tell_their_refs() {
        let (one, two) =
            ("823b2230a56056231c9425d63758fa87078a66b4", "208b0a5c05eddadad01f2aed8802fe0c3b3eaf5e");
        let first = "5c64a07cd6c0f21b753bf261ef059c7e7633c50a";
        use WebhookEvent::{Push, Tag};
        for (body, event, wanted) in [
            (fixture!("signed/push.json"), Push, change("refs/heads/master", first, one)),
            (
                fixture!("go-scm/webhooks/push_branch_create.json"),
                Push,
                change("refs/heads/develop", "", two),
            ),
            (
                fixture!("go-scm/webhooks/push_branch_delete.json"),
                Push,
                change("refs/heads/develop", two, ""),
            ),
            (fixture!("go-scm/webhooks/push_tag_create.json"), Tag, change("refs/tags/v1.1.0", "", one)),
            (fixture!("go-scm/webhooks/push_tag_delete.json"), Tag, change("refs/tags/v1.1.0", one, "")),
        ] {
            let told = told(body);
            assert_eq!((told.event, told.changes.as_slice()), (event, &[wanted][..]));
            assert_eq!((told.repository_id.as_str(), told.full_name.as_str()), ("1", "PRJ/my-repo"));
            assert_eq!(
                (told.action.as_str(), told.delivery_id.as_str(), told.pull_request),
                ("", "req-1", None)
            );
            let actor = told.actor.expect("an actor");
            assert_eq!((actor.id.as_str(), actor.login.as_str(), actor.bot), ("1", "jcitizen", false));
        }
        // Of other versions, with other members beside these.
        for (body, id, git_ref) in [
            (
                fixture!("go-scm/webhooks/push_v5.json"),
                "13027",
                "refs/heads/trangineni/devtfvars-1685475548410",
            ),
            (fixture!("jenkins/webhook/pushPayload.json"), "1", "refs/heads/main"),
            (fixture!("jenkins/webhook/branch_deleted.json"), "2", "refs/heads/feature/BB-1"),
            (fixture!("jenkins/webhook/tag_created.json"), "2", "refs/tags/simple-tag"),
        ] {
            let told = told(body);
            assert_eq!((told.repository_id.as_str(), told.changes[0].git_ref.as_str()), (id, git_ref));
        }
    }

    #[test]
    fn recorded_pull_requests_tell_number_and_state() {
        use PullRequestState::{Closed, Merged, Open};
        assert_eq!(told(fixture!("go-scm/webhooks/pr_open.json")).moment, "1530818490848");
        let newer = told(fixture!("go-scm/webhooks/pr_open_iso_dates.json"));
        assert_eq!(newer.moment, "2018-07-05T19:21:30+0000");
        for (body, action, number, state) in [
            (fixture!("go-scm/webhooks/pr_open.json"), "opened", 2, Open),
            (fixture!("go-scm/webhooks/pr_open_iso_dates.json"), "opened", 2, Open),
            (fixture!("go-scm/webhooks/pr_from_ref_updated.json"), "from_ref_updated", 2, Open),
            (fixture!("go-scm/webhooks/pr_modified_toref.json"), "modified", 2, Open),
            (fixture!("go-scm/webhooks/pr_merged.json"), "merged", 3, Merged),
            (fixture!("go-scm/webhooks/pr_merged_iso_dates.json"), "merged", 3, Merged),
            (fixture!("go-scm/webhooks/pr_declined.json"), "declined", 2, Closed),
            (fixture!("go-scm/webhooks/pr_declined_iso_dates.json"), "declined", 2, Closed),
            (fixture!("go-scm/webhooks/pr_deleted.json"), "deleted", 2, Closed),
        ] {
            let told = told(body);
            assert_eq!((told.event, told.action.as_str()), (WebhookEvent::PullRequest, action));
            assert_eq!((told.repository_id.as_str(), told.full_name.as_str()), ("1", "PRJ/my-repo"));
            let found = told.pull_request.expect("a pull request");
            assert_eq!((found.number, found.state), (number, state), "{action}");
            assert_eq!((found.target_ref.as_str(), found.head_commit_id.len()), ("master", 40));
            assert!(["develop", "feature-2"].contains(&found.source_ref.as_str()), "{}", found.source_ref);
        }
        // From a fork: the repository is the one that it goes to.
        let told = told(fixture!("go-scm/webhooks/pr_modified_meta.json"));
        assert_eq!((told.repository_id.as_str(), told.full_name.as_str()), ("1", "PRJ/my-repo"));
        let found = told.pull_request.expect("a pull request");
        assert_eq!((found.number, found.source_ref.as_str()), (6, "cleanup"));
    }

    #[test]
    fn one_that_was_deleted_while_open_is_closed() {
        let mut body: Value =
            serde_json::from_str(fixture!("go-scm/webhooks/pr_open.json")).expect("fixture");
        body["eventKey"] = json!("pr:deleted");
        let found = told(&body.to_string()).pull_request.expect("a pull request");
        assert_eq!(found.state, PullRequestState::Closed);
        body["eventKey"] = json!("pr:comment:added");
        let other = told(&body.to_string());
        assert_eq!((other.event, other.action.as_str()), (WebhookEvent::Other, "pr:comment:added"));
        assert_eq!((other.repository_id.as_str(), other.pull_request), ("1", None));
    }

    #[test]
    fn a_test_of_the_connection_names_no_repository() {
        let ping = told(fixture!("jenkins/webhook/ping.json"));
        assert_eq!((ping.event, ping.action.as_str()), (WebhookEvent::Other, "diagnostics:ping"));
        assert_eq!((ping.repository_id.as_str(), ping.actor), ("", None));
    }

    #[test]
    fn ac_58_several_refs_are_told_in_order_and_odd_rows_left_out() {
        let hash = "823b2230a56056231c9425d63758fa87078a66b4";
        let mut body: Value = serde_json::from_str(fixture!("signed/push.json")).expect("fixture");
        body["changes"] = json!([
            {"refId": "refs/tags/v1", "fromHash": "0".repeat(40), "toHash": hash},
            {"refId": 7, "toHash": hash},
            {"refId": "refs/heads/a\nb", "toHash": hash},
            {"refId": "refs/heads/x", "fromHash": hash, "toHash": null},
        ]);
        body["repository"]["id"] = json!("1");
        body["actor"]["id"] = json!(-1);
        let told = told(&body.to_string());
        assert_eq!(told.event, WebhookEvent::Push);
        assert_eq!(told.changes, [change("refs/tags/v1", "", hash), change("refs/heads/x", hash, "")]);
        assert_eq!((told.repository_id.as_str(), told.actor), ("", None));
        for bad in ["", "[]", "payload=x", "{\"changes\":"] {
            let refused = delivery(&headers("repo:refs_changed"), bad.as_bytes());
            assert_eq!(refused.err(), Some(DeliveryRefusal::BodyMalformed), "{bad}");
        }
    }

    #[test]
    fn a_delivery_without_a_signature_is_unsigned() {
        let proof =
            |value: &str| proof(&DeliveryHeaders::new([("x-hub-SIGNATURE".to_owned(), value.to_owned())]));
        let right = format!("sha256={}", "0f".repeat(32));
        assert!(matches!(proof(&right).map(|proof| proof.presented), Ok(Presented::HmacSha256 { .. })));
        assert_eq!(proof("").err(), Some(DeliveryRefusal::Unsigned));
        // A recorded one that is too short.
        let short = "sha256=380f462cd2e160b84765144beabdad2e930a7ec5";
        assert_eq!(proof(short).err(), Some(DeliveryRefusal::ProofMalformed));
    }
}
