//! What Bitbucket Cloud delivers to a webhook (its page "Event payloads").
//!
//! What happened stands in a header alone, `X-Event-Key`, which the signature does not cover: the body's own members
//! decide whether that can be so. The signature has the header in which GitHub sends its old one of SHA-1.

use serde::Deserialize;

use super::rows::Uuid;
use crate::domain::credential::Account;
use crate::domain::delivery::{
    Delivery, DeliveryHeaders, DeliveryRefusal, Proof, PullRequest, PullRequestState, RefChange,
};
use crate::domain::webhook::WebhookEvent;
use crate::provider::deliveries::{Rows, branch, commit_id, event_of, hmac_proof, name, object};
use crate::provider::fields::lenient;
use crate::provider::inspection::clean;

/// The signature of a delivery; a webhook without a secret sends none.
pub(super) fn proof(headers: &DeliveryHeaders) -> Result<Proof, DeliveryRefusal> {
    hmac_proof(headers.get("x-hub-signature"), "sha256=")
}

/// What a delivery tells.
pub(super) fn delivery(headers: &DeliveryHeaders, body: &[u8]) -> Result<Delivery, DeliveryRefusal> {
    let body: Body = object(body)?;
    let repository = body.repository.unwrap_or_default();
    let key = headers.get("x-event-key").unwrap_or("");
    let mut told = Delivery {
        event: WebhookEvent::Other,
        action: name(Some(key)),
        repository_id: repository.uuid.map_or_else(String::new, |uuid| uuid.0),
        full_name: name(repository.full_name.as_deref()),
        changes: Vec::new(),
        actor: body.actor.map(ActorRow::account),
        pull_request: None,
        moment: String::new(),
        delivery_id: name(headers.get("x-request-uuid")),
    };
    match (key.split_once(':'), body.push, body.pullrequest) {
        (Some(("repo", "push")) | None, Some(push), _) => {
            let changes = push.changes.map_or_else(Vec::new, |rows| rows.0);
            told.changes = changes.into_iter().filter_map(ChangeRow::change).collect();
            told.event = event_of(&told.changes);
            told.action = String::new();
        }
        (Some(("pullrequest", action)), _, Some(row)) if is_told(action) => {
            told.moment = name(row.updated_on.as_deref());
            told.pull_request = row.pull_request();
            told.action = name(Some(action));
        }
        (None, None, Some(row)) => {
            told.moment = name(row.updated_on.as_deref());
            told.pull_request = row.pull_request();
        }
        _ => {}
    }
    if told.pull_request.is_some() {
        told.event = WebhookEvent::PullRequest;
    }
    Ok(told)
}

/// Whether an event of a pull request is one that a webhook of ours asks for. Others, such as comments, have the pull
/// request, too.
fn is_told(action: &str) -> bool {
    super::webhooks::PULL_REQUEST_EVENTS
        .iter()
        .any(|event| event.split_once(':') == Some(("pullrequest", action)))
}

#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default, deserialize_with = "lenient")]
    repository: Option<Repository>,
    #[serde(default, deserialize_with = "lenient")]
    actor: Option<ActorRow>,
    #[serde(default, deserialize_with = "lenient")]
    push: Option<PushRow>,
    #[serde(default, deserialize_with = "lenient")]
    pullrequest: Option<PullRequestRow>,
}

#[derive(Debug, Default, Deserialize)]
struct Repository {
    #[serde(default, deserialize_with = "lenient")]
    uuid: Option<Uuid>,
    #[serde(default, deserialize_with = "lenient")]
    full_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PushRow {
    #[serde(default, deserialize_with = "lenient")]
    changes: Option<Rows<ChangeRow>>,
}

/// A ref that changed: what it was, `null` for a new one, and what it is, `null` for one that is gone.
#[derive(Debug, Deserialize)]
struct ChangeRow {
    #[serde(default, deserialize_with = "lenient")]
    old: Option<RefRow>,
    #[serde(default, deserialize_with = "lenient")]
    new: Option<RefRow>,
}

#[derive(Debug, Deserialize)]
struct RefRow {
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    target: Option<CommitRow>,
}

#[derive(Debug, Deserialize)]
struct CommitRow {
    #[serde(default, deserialize_with = "lenient")]
    hash: Option<String>,
}

impl ChangeRow {
    /// The change; `None` if it names no ref.
    fn change(self) -> Option<RefChange> {
        let named = self.new.as_ref().or(self.old.as_ref())?;
        let short = name(named.name.as_deref());
        let folder = if named.kind.as_deref() == Some("tag") { "tags" } else { "heads" };
        let commit = |row: &Option<RefRow>| {
            let target = row.as_ref().and_then(|row| row.target.as_ref());
            commit_id(target.and_then(|target| target.hash.as_deref()))
        };
        (!short.is_empty()).then(|| RefChange {
            git_ref: format!("refs/{folder}/{short}"),
            before: commit(&self.old),
            after: commit(&self.new),
        })
    }
}

#[derive(Debug, Deserialize)]
struct PullRequestRow {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<i64>,
    #[serde(default, deserialize_with = "lenient")]
    state: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    updated_on: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    source: Option<EndRow>,
    #[serde(default, deserialize_with = "lenient")]
    destination: Option<EndRow>,
}

/// One end of a pull request. Its commit is shortened to 12 digits.
#[derive(Debug, Default, Deserialize)]
struct EndRow {
    #[serde(default, deserialize_with = "lenient")]
    branch: Option<BranchRow>,
    #[serde(default, deserialize_with = "lenient")]
    commit: Option<CommitRow>,
}

#[derive(Debug, Deserialize)]
struct BranchRow {
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
}

impl EndRow {
    fn branch(&self) -> String {
        branch(self.branch.as_ref().and_then(|branch| branch.name.as_deref()))
    }
}

impl PullRequestRow {
    /// The pull request; `None` without a number.
    fn pull_request(self) -> Option<PullRequest> {
        let (source, target) = (self.source.unwrap_or_default(), self.destination.unwrap_or_default());
        Some(PullRequest {
            number: self.id.filter(|number| *number > 0)?,
            state: match self.state.as_deref() {
                Some("MERGED") => PullRequestState::Merged,
                // Another pull request of the same branches took its place, or somebody declined it.
                Some("DECLINED" | "SUPERSEDED") => PullRequestState::Closed,
                _ => PullRequestState::Open,
            },
            source_ref: source.branch(),
            target_ref: target.branch(),
            head_commit_id: commit_id(source.commit.as_ref().and_then(|commit| commit.hash.as_deref())),
        })
    }
}

/// Who did it: a user, or an app, as which tokens of resources act.
#[derive(Debug, Deserialize)]
struct ActorRow {
    #[serde(default, deserialize_with = "lenient")]
    uuid: Option<Uuid>,
    #[serde(default, deserialize_with = "lenient")]
    username: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    nickname: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    display_name: Option<String>,
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    kind: Option<String>,
}

impl ActorRow {
    fn account(self) -> Account {
        let text = |text: Option<String>| text.as_deref().map_or_else(String::new, clean);
        Account {
            id: self.uuid.map_or_else(String::new, |uuid| uuid.0),
            login: text(self.username.or(self.nickname)),
            display_name: text(self.display_name),
            email: String::new(),
            bot: self.kind.is_some_and(|kind| !matches!(kind.as_str(), "user" | "team")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::delivery::Presented;

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../../tests/fixtures/providers/bitbucket-cloud/", $name))
        };
    }

    const ID: &str = "{bc771cbf-829e-4c4b-b71f-a0eb3ac2b860}";
    const COMMIT: &str = "141977fedf5cf35aa290ac87d4b5177ac4cd9de1";

    fn headers(key: &str) -> DeliveryHeaders {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        DeliveryHeaders::new([
            pair("X-Event-Key", key),
            pair("X-Request-UUID", "req-1"),
            pair("X-Attempt-Number", "2"),
        ])
    }

    fn told(key: &str, body: &str) -> Delivery {
        delivery(&headers(key), body.as_bytes()).expect("a delivery")
    }

    fn change(git_ref: &str, before: &str, after: &str) -> RefChange {
        let [git_ref, before, after] = [git_ref, before, after].map(str::to_owned);
        RefChange { git_ref, before, after }
    }

    #[test]
    fn recorded_pushes_tell_their_refs() {
        let before = "40e7580cf11311d84a6e5e97e2cbba6df1675750";
        for (body, event, wanted) in [
            (
                fixture!("go-scm/webhooks/push.json"),
                WebhookEvent::Push,
                change("refs/heads/master", before, COMMIT),
            ),
            (
                fixture!("go-scm/webhooks/push_branch_create.json"),
                WebhookEvent::Push,
                change("refs/heads/develop", "", COMMIT),
            ),
            (
                fixture!("go-scm/webhooks/push_branch_delete.json"),
                WebhookEvent::Push,
                change("refs/heads/develop", COMMIT, ""),
            ),
            (
                fixture!("go-scm/webhooks/push_tag_create.json"),
                WebhookEvent::Tag,
                change("refs/tags/feature/x", "", COMMIT),
            ),
            (
                fixture!("go-scm/webhooks/push_tag_delete.json"),
                WebhookEvent::Tag,
                change("refs/tags/feature/x", COMMIT, ""),
            ),
        ] {
            let told = told("repo:push", body);
            assert_eq!((told.event, told.changes.as_slice()), (event, &[wanted][..]));
            assert_eq!((told.repository_id.as_str(), told.full_name.as_str()), (ID, "brydzewski/foo"));
            assert_eq!(
                (told.action.as_str(), told.delivery_id.as_str(), told.pull_request),
                ("", "req-1", None)
            );
            let actor = told.actor.expect("an actor");
            assert_eq!(actor.id, "{87bb15eb-47c1-49b3-9f16-ca824a2979a4}");
            assert_eq!((actor.login.as_str(), actor.email.as_str(), actor.bot), ("brydzewski", "", false));
        }
        // Newer ones name no login.
        for (body, git_ref) in [
            (fixture!("jenkins/webhook/tag_created.json"), "refs/tags/simple-tag"),
            (fixture!("jenkins/webhook/branch_created.json"), "refs/heads/feature/test"),
        ] {
            let told = told("repo:push", body);
            assert_eq!(told.changes[0].git_ref, git_ref);
            assert_eq!(told.actor.expect("an actor").login, "Nikolas Falco");
        }
    }

    #[test]
    fn recorded_pull_requests_tell_number_and_state() {
        use PullRequestState::{Closed, Merged, Open};
        for (action, body, state, head) in [
            ("created", fixture!("go-scm/webhooks/pr_created.json"), Open, "507a576e59b3"),
            ("updated", fixture!("go-scm/webhooks/pr_updated.json"), Open, "0704fc5beccc"),
            ("fulfilled", fixture!("go-scm/webhooks/pr_fulfilled.json"), Merged, "0704fc5beccc"),
            ("rejected", fixture!("go-scm/webhooks/pr_declined.json"), Closed, "6ca9fe26898a"),
        ] {
            let told = told(&format!("pullrequest:{action}"), body);
            assert_eq!((told.event, told.action.as_str()), (WebhookEvent::PullRequest, action));
            assert!(
                told.moment.starts_with("2018-07-0") && told.moment.ends_with("+00:00"),
                "{}",
                told.moment
            );
            assert_eq!((told.repository_id.as_str(), told.changes.len()), (ID, 0));
            let found = told.pull_request.expect("a pull request");
            assert_eq!((found.state, found.head_commit_id.as_str()), (state, head), "{action}");
            assert_eq!((found.source_ref.as_str(), found.target_ref.as_str()), ("develop", "master"));
        }
        let told = told("pullrequest:created", fixture!("jenkins/webhook/pullrequest_created.json"));
        let found = told.pull_request.expect("a pull request");
        assert_eq!((found.number, found.source_ref.as_str()), (735, "feature/test"));
    }

    #[test]
    fn anything_else_is_told_as_such() {
        let told_of = |key: &str, body| {
            let told = told(key, body);
            (told.event, told.action, told.repository_id)
        };
        let other = |action: &str| (WebhookEvent::Other, action.to_owned(), ID.to_owned());
        let comment = fixture!("go-scm/webhooks/pr_comment_created.json");
        let comment = told("pullrequest:comment_created", comment);
        assert_eq!((comment.event, comment.pull_request), (WebhookEvent::Other, None));
        assert_eq!(comment.action, "pullrequest:comment_created");
        assert_eq!(comment.repository_id, "{4402cbae-7790-453a-b29e-5fcab61a84df}");
        // The key is not signed: it makes no push of what is none.
        let created = fixture!("go-scm/webhooks/pr_created.json");
        assert_eq!(told_of("repo:push", created), other("repo:push"));
        assert_eq!(
            told_of("pullrequest:created", fixture!("go-scm/webhooks/push.json")),
            other("pullrequest:created")
        );
        // Dropped on the way, it is made up for.
        assert_eq!(told("", created).event, WebhookEvent::PullRequest);
        assert_eq!(told("", fixture!("go-scm/webhooks/push.json")).event, WebhookEvent::Push);
        let nothing = told("", "{}");
        assert_eq!((nothing.event, nothing.repository_id.as_str()), (WebhookEvent::Other, ""));
        assert_eq!(nothing.actor, None);
    }

    #[test]
    fn ac_58_several_refs_are_told_in_order_and_odd_rows_left_out() {
        let row = |kind: &str, name: &str| json!({"type": kind, "name": name, "target": {"hash": COMMIT}});
        let mut body: Value = serde_json::from_str(fixture!("go-scm/webhooks/push.json")).expect("fixture");
        body["push"]["changes"] = json!([
            {"old": null, "new": row("tag", "v1")},
            {"old": null, "new": null},
            {"old": {"name": 7}, "new": "x"},
            {"new": row("branch", "line\nbreak")},
            {"old": row("branch", "gr\u{fc}n"), "new": null},
        ]);
        body["actor"] = json!({"type": "app_user", "display_name": "ci\u{7}", "uuid": "17"});
        body["repository"]["uuid"] = json!(ID.to_uppercase());
        let told = told("repo:push", &body.to_string());
        assert_eq!(told.event, WebhookEvent::Push);
        assert_eq!(
            told.changes,
            [change("refs/tags/v1", "", COMMIT), change("refs/heads/gr\u{fc}n", COMMIT, "")]
        );
        assert_eq!(told.repository_id, ID);
        let actor = told.actor.expect("an actor");
        assert_eq!((actor.id.as_str(), actor.display_name.as_str(), actor.bot), ("", "ci", true));
        for bad in ["", "[]", "payload=x", "{\"push\":"] {
            let refused = delivery(&headers("repo:push"), bad.as_bytes());
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
        // That of SHA-1, which is GitHub's.
        assert_eq!(proof(&format!("sha1={}", "0f".repeat(20))).err(), Some(DeliveryRefusal::ProofMalformed));
    }
}
