//! Who counts on a webhook: links of one repository that deliver to one target share it (AC-53).

use uuid::Uuid;

use crate::domain::connection::Revision;
use crate::domain::link::{Link, WebhookMode};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{WebhookKey, WebhookRecord, WebhookState, WebhookUser};
use crate::seal::Binding;
use crate::service::error::Error;
use crate::service::{Core, origin_of};
use crate::store::{Change, StoreError};

/// The field of a record whose secret is sealed.
const SECRET_FIELD: &str = "webhook_secret";

/// What a change of a link means for webhooks.
#[derive(Debug, Default)]
pub(in crate::service) struct Shared {
    /// The changes to commit together with that of the link.
    pub(in crate::service) changes: Vec<Change>,
    /// A webhook has to be removed at the provider: a link that goes waits for it.
    pub(in crate::service) removal: bool,
}

impl Core {
    /// What becomes of webhooks when the link `before` turns into `after`; `None` where there is no such link. Reads the
    /// store; a commit of the changes fails as stale if somebody else changes the webhook meanwhile.
    pub(in crate::service) async fn share_webhooks(
        &self,
        before: Option<&Link>,
        after: Option<&Link>,
        now: Timestamp,
    ) -> Result<Shared, Error> {
        let (left, joined) = (before.and_then(Link::webhook_key), after.and_then(Link::webhook_key));
        let mut shared = Shared::default();
        if let (Some(left), Some(link)) = (&left, before)
            && joined.as_ref() != Some(left)
            && let Some(record) = self.webhook_record(left).await?
        {
            let (change, removal) = leave(record, link, now);
            shared.changes.push(change);
            shared.removal = removal;
        }
        if let (Some(joined), Some(link)) = (joined, after) {
            let record = self.webhook_record(&joined).await?;
            let wanted = user_of(link);
            if record.as_ref().is_none_or(|record| record.users.get(&link.name) != Some(&wanted)) {
                shared.changes.push(match record {
                    Some(record) => join(record, link, wanted, now),
                    None => Change::PutWebhook {
                        record: Box::new(self.new_webhook(joined, link, wanted, now)?),
                        expected: None,
                    },
                });
            }
        }
        Ok(shared)
    }

    /// The stored webhook of that key, if there is one.
    pub(in crate::service) async fn webhook_record(
        &self,
        key: &WebhookKey,
    ) -> Result<Option<WebhookRecord>, Error> {
        match self.store.webhook(key).await {
            Ok(record) => Ok(Some(std::sync::Arc::unwrap_or_clone(record))),
            Err(StoreError::NotFound) => Ok(None),
            Err(StoreError::Unreadable(record)) => {
                Err(Error::Unreadable { name: record.key, problem: record.problem.to_string() })
            }
            Err(error) => Err(Error::StoreUnavailable { problem: error.to_string() }),
        }
    }

    fn new_webhook(
        &self,
        key: WebhookKey,
        link: &Link,
        user: WebhookUser,
        now: Timestamp,
    ) -> Result<WebhookRecord, Error> {
        let uid = Uuid::now_v7().to_string();
        let secret = self.keys.draw_webhook_secret().map_err(unsealed)?;
        let origin = origin_of(&key.instance)?;
        let sealed = self.keys.seal(&secret, &binding(&uid, &origin)).map_err(unsealed)?;
        let auto = user.auto;
        Ok(WebhookRecord {
            key,
            uid,
            users: [(link.name.clone(), user)].into(),
            departing: Vec::new(),
            via: None,
            farewell: None,
            full_name: link.repository.full_name.clone(),
            sealed,
            scheme: None,
            secret_version: 1,
            former: Vec::new(),
            next: None,
            rotated_by: String::new(),
            remote_id: None,
            making: None,
            leaving: Vec::new(),
            state: if auto { WebhookState::Pending } else { WebhookState::ManualRequired },
            conditions: Vec::new(),
            adopted: false,
            create_time: now,
            last_check_time: None,
            last_wake_time: None,
            due: auto.then_some(now),
            attempts: 0,
            generation: 1,
            revision: Revision(1),
        })
    }
}

/// What the secrets of a webhook are bound to: the record, which survives a switch of its links, and where it is told.
pub(in crate::service) fn binding<'a>(uid: &'a str, origin: &'a str) -> Binding<'a> {
    Binding { tenant: "", uid, field: SECRET_FIELD, origin }
}

/// A secret could not be drawn or sealed.
pub(in crate::service) fn unsealed(error: crate::seal::SealError) -> Error {
    Error::Bug { problem: format!("a webhook's secret could not be made: {error}") }
}

/// What `link` wants of its webhook.
fn user_of(link: &Link) -> WebhookUser {
    WebhookUser {
        connection: link.connection.clone(),
        auto: link.webhook_mode == WebhookMode::Auto,
        events: link.webhook_events.clone(),
    }
}

/// The record as the next write of it begins.
pub(in crate::service) fn next(record: &WebhookRecord) -> WebhookRecord {
    let mut next = record.clone();
    next.generation += 1;
    next.revision = Revision(record.revision.0 + 1);
    next
}

fn join(record: WebhookRecord, link: &Link, user: WebhookUser, now: Timestamp) -> Change {
    let expected = Some(record.revision);
    let mut next = next(&record);
    let was_kept = record.is_kept();
    next.users.insert(link.name.clone(), user);
    next.departing.retain(|name| *name != link.name);
    next.full_name.clone_from(&link.repository.full_name);
    next.via = None;
    next.farewell = None;
    next.attempts = 0;
    if next.is_kept() {
        // A removal that was under way is overtaken; what became of it, a look at the provider tells.
        if record.state == WebhookState::Deleting || !was_kept && record.remote_id.is_none() {
            next.state = WebhookState::Pending;
        }
        next.due = Some(now);
    } else {
        let_go(&mut next, now);
    }
    Change::PutWebhook { record: Box::new(next), expected }
}

fn leave(record: WebhookRecord, link: &Link, now: Timestamp) -> (Change, bool) {
    let expected = record.revision;
    let mut next = next(&record);
    next.users.remove(&link.name);
    if next.users.is_empty() {
        if !next.may_be_there() {
            return (Change::RemoveWebhook { key: record.key, expected }, false);
        }
        next.departing.push(link.name.clone());
        next.via = Some(link.connection_name());
        next.state = WebhookState::Deleting;
        next.attempts = 0;
        next.due = Some(now);
        return (Change::PutWebhook { record: Box::new(next), expected: Some(expected) }, true);
    }
    // The others may want less to be told, or have nobody who keeps it any more.
    if next.is_kept() {
        next.due = Some(now);
    } else {
        let_go(&mut next, now);
    }
    (Change::PutWebhook { record: Box::new(next), expected: Some(expected) }, false)
}

/// Nobody is left for whom this service keeps the webhook: from now on only a delivery tells that it is there.
fn let_go(next: &mut WebhookRecord, now: Timestamp) {
    if next.state != WebhookState::Active {
        next.state = WebhookState::ManualRequired;
        next.conditions.clear();
    }
    // Links that wait for its removal wait no longer, which a last pass writes down.
    next.due = (!next.departing.is_empty()).then_some(now);
}
