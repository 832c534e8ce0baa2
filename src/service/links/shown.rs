//! What a reader sees of a link: what is stored, and how its connection and its webhook fare now.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::domain::connection::{
    Condition, ConditionStatus, Connection, ConnectionName, ConnectionRecord, State,
};
use crate::domain::link::{Link, LinkState};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{WebhookRecord, WebhookState};
use crate::service::error::Error;
use crate::service::verify::present;
use crate::service::{Core, store_down};
use crate::store::{Change, StoreError};

/// The condition that tells whether the repository can be read.
pub(super) const ACCESSIBLE: &str = "REPOSITORY_ACCESSIBLE";
const CONNECTION_READY: &str = "CONNECTION_READY";
const WEBHOOK_READY: &str = "WEBHOOK_READY";

/// A link as a reader sees it.
#[derive(Debug, Clone)]
pub struct ShownLink {
    /// The link, with the conditions that are only made for a reader.
    pub link: Link,
    /// Work for its webhook is under way in the background.
    pub reconciling: bool,
}

/// The connections that were read for one answer, each once; `None` for one that is gone.
pub(super) type Known = HashMap<ConnectionName, Option<Arc<ConnectionRecord>>>;

impl Core {
    /// The link as a reader sees it now. `known` keeps the connections for the next link of the same answer.
    pub(super) async fn show_link(&self, link: Link, known: &mut Known) -> Result<ShownLink, Error> {
        let webhook = match link.webhook_key() {
            Some(key) => self.webhook_record(&key).await?,
            None => None,
        };
        let connection = self.connection_of(&link, known).await?;
        Ok(show(link, connection, webhook.as_ref(), self.clock.now()))
    }

    /// The link as a reader will see it once `changes` are committed.
    pub(in crate::service) async fn show_changed_link(
        &self,
        link: &Link,
        changes: &[Change],
    ) -> Result<ShownLink, Error> {
        let key = link.webhook_key();
        let put = changes.iter().find_map(|change| match change {
            Change::PutWebhook { record, .. } if Some(&record.key) == key.as_ref() => Some(record),
            _ => None,
        });
        let mut known = Known::default();
        let Some(webhook) = put else { return self.show_link(link.clone(), &mut known).await };
        let connection = self.connection_of(link, &mut known).await?;
        Ok(show(link.clone(), connection, Some(webhook), self.clock.now()))
    }

    /// The connection of a link; `None` if it is gone or cannot be read.
    async fn connection_of<'k>(
        &self,
        link: &Link,
        known: &'k mut Known,
    ) -> Result<Option<&'k Connection>, Error> {
        let found = match known.entry(link.connection_name()) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => {
                let record = match self.store.connection(place.key()).await {
                    Ok(record) => Some(record),
                    Err(StoreError::NotFound | StoreError::Unreadable(_)) => None,
                    Err(error) => return Err(store_down(error)),
                };
                place.insert(record)
            }
        };
        Ok(found.as_ref().map(|record| &record.connection))
    }
}

fn show(
    mut link: Link,
    connection: Option<&Connection>,
    webhook: Option<&WebhookRecord>,
    now: Timestamp,
) -> ShownLink {
    link.conditions.push(connection_ready(connection, &link, now));
    if let Some(webhook) = webhook.filter(|_| link.is_live()) {
        link.conditions.push(webhook_ready(webhook));
    }
    let reconciling = link.state == LinkState::Unlinking || webhook.is_some_and(is_under_way);
    ShownLink { link, reconciling }
}

fn is_under_way(webhook: &WebhookRecord) -> bool {
    let state = match webhook.state {
        WebhookState::Pending
        | WebhookState::Missing
        | WebhookState::DisabledByProvider
        | WebhookState::Drifted
        | WebhookState::Deleting => true,
        WebhookState::Active | WebhookState::ManualRequired => false,
    };
    state || webhook.next.is_some() || webhook.making.is_some() || !webhook.leaving.is_empty()
}

/// What the connection of a link says of it. One that works in part is ready: what is missing may not be needed.
fn connection_ready(connection: Option<&Connection>, link: &Link, now: Timestamp) -> Condition {
    let (status, reason, message, since) = match connection.map(|found| present(found.clone(), now)) {
        None => (
            ConditionStatus::False,
            "CONNECTION_NOT_FOUND".to_owned(),
            "The connection is gone. Switch the link to another one.".to_owned(),
            link.update_time,
        ),
        Some(connection) if connection.disabled => (
            ConditionStatus::False,
            "CONNECTION_DISABLED".to_owned(),
            "The connection is disabled: its provider is not called until it is enabled.".to_owned(),
            connection.update_time,
        ),
        Some(connection) => {
            let about = match connection.state {
                State::AuthFailed => Some("CREDENTIAL_VALID"),
                State::Unreachable => Some("REACHABLE"),
                State::Pending | State::Active | State::Degraded | State::Disabled => None,
            };
            let failing = about.and_then(|about| {
                connection
                    .conditions
                    .into_iter()
                    .find(|found| found.condition_type == about && found.status == ConditionStatus::False)
            });
            match failing {
                Some(Condition { reason, message, last_transition_time, .. }) => {
                    (ConditionStatus::False, reason, message, last_transition_time)
                }
                None => (
                    ConditionStatus::True,
                    "CONNECTION_READY".to_owned(),
                    String::new(),
                    connection.last_verify_time.unwrap_or(connection.create_time),
                ),
            }
        }
    };
    let condition_type = CONNECTION_READY.to_owned();
    Condition { condition_type, status, reason, message, last_transition_time: since }
}

fn webhook_ready(webhook: &WebhookRecord) -> Condition {
    let condition_type = WEBHOOK_READY.to_owned();
    let since = webhook.last_check_time.unwrap_or(webhook.create_time);
    if webhook.state == WebhookState::Active {
        return Condition {
            condition_type,
            status: ConditionStatus::True,
            reason: webhook.state.as_str().to_owned(),
            message: String::new(),
            last_transition_time: since,
        };
    }
    match webhook.conditions.iter().find(|found| found.status == ConditionStatus::False) {
        Some(why) => Condition { condition_type, ..why.clone() },
        None => Condition {
            condition_type,
            status: ConditionStatus::False,
            reason: webhook.state.as_str().to_owned(),
            message: String::new(),
            last_transition_time: since,
        },
    }
}
