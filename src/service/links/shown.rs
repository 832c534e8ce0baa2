//! What a reader sees of a link: what is stored, and how its connection and its webhook fare now.

use std::collections::HashMap;
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

/// What becomes of one reading: the connections that were read for it, each once.
pub(super) type Connections = HashMap<ConnectionName, Option<Arc<ConnectionRecord>>>;

impl Core {
    /// The link as a reader sees it now. `known` keeps the connections for the next link of the same reading.
    pub(super) async fn show_link(&self, link: Link, known: &mut Connections) -> Result<ShownLink, Error> {
        let webhook = match link.webhook_key() {
            Some(key) => self.webhook_record(&key).await?,
            None => None,
        };
        let name = link.connection_name();
        if !known.contains_key(&name) {
            let record = match self.store.connection(&name).await {
                Ok(record) => Some(record),
                Err(StoreError::NotFound | StoreError::Unreadable(_)) => None,
                Err(error) => return Err(store_down(error)),
            };
            known.insert(name.clone(), record);
        }
        let connection = known.get(&name).and_then(Option::as_ref).map(|record| &record.connection);
        Ok(show(link, connection, webhook.as_ref(), self.clock.now()))
    }

    /// The link as a reader will see it once `changes` are committed.
    pub(super) async fn show_changed_link(
        &self,
        link: &Link,
        changes: &[Change],
    ) -> Result<ShownLink, Error> {
        let key = link.webhook_key();
        let put = changes.iter().find_map(|change| match change {
            Change::PutWebhook { record, .. } if Some(&record.key) == key.as_ref() => Some(record),
            _ => None,
        });
        let Some(webhook) = put else { return self.show_link(link.clone(), &mut Connections::new()).await };
        let connection = match self.store.connection(&link.connection_name()).await {
            Ok(record) => Some(record),
            Err(StoreError::NotFound | StoreError::Unreadable(_)) => None,
            Err(error) => return Err(store_down(error)),
        };
        let connection = connection.as_ref().map(|record| &record.connection);
        Ok(show(link.clone(), connection, Some(webhook), self.clock.now()))
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
