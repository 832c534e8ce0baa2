//! How a change of a connection is committed.

use std::sync::Arc;

use super::{Connections, Next, replace_change};
use crate::domain::connection::{Connection, ConnectionRecord};
use crate::domain::event::Event;
use crate::domain::timestamp::Timestamp;
use crate::service::error::Error;
use crate::service::once::Repeat;
use crate::store::Change;

/// How often a change is tried again over bookkeeping that came in between. One round is the rule: bookkeeping comes
/// once an hour.
const MAX_REBASES: usize = 3;

impl Connections {
    /// Commits the changes about `connection`, and remembers the answer if the request may come again.
    pub(super) async fn commit<T>(
        &self,
        connection: &Connection,
        mut changes: Vec<Change>,
        repeat: Option<&Repeat<'_, T>>,
        answer: &T,
        now: Timestamp,
    ) -> Result<(), Error> {
        let name = &connection.name;
        if let Some(remember) = self.0.remember(&name.tenant, repeat, answer, now) {
            changes.insert(0, remember);
        }
        let outcome = self.0.store.commit(changes).await;
        outcome.map_err(|error| Error::from_store(error, name, connection.provider.as_str()))
    }

    /// Replaces the record that was read. Somebody else's change in between is [`Error::Stale`]; bookkeeping, which no
    /// reader sees in the etag, is not, and is kept.
    pub(super) async fn replace<T>(
        &self,
        read: &ConnectionRecord,
        next: Next,
        event: Event,
        repeat: Option<&Repeat<'_, T>>,
        answer: &T,
        now: Timestamp,
    ) -> Result<(), Error> {
        let name = &next.connection.name;
        let mut current = Arc::new(read.clone());
        for _ in 0..MAX_REBASES {
            let mut connection = next.connection.clone();
            let known = &current.connection.credential;
            if connection.credential.version == known.version {
                connection.credential.last_use_time =
                    connection.credential.last_use_time.max(known.last_use_time);
                connection.credential.expiry_told |= known.expiry_told;
            }
            let change = replace_change(&current, connection, next.sealed.clone());
            let mut changes = vec![change, Change::Append(event.clone())];
            changes.extend(next.also.iter().cloned());
            match self.commit(&next.connection, changes, repeat, answer, now).await {
                // What is gone may be a link that was to move along.
                Err(Error::Stale { .. } | Error::ConnectionNotFound(_)) => {
                    current = self.0.record(name).await?;
                    if current.connection.generation != read.connection.generation {
                        break;
                    }
                }
                outcome => return outcome,
            }
        }
        Err(Error::Stale { name: name.to_string() })
    }
}
