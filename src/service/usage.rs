//! When each credential was last used: to the hour, written lazily, so that reading repositories costs no write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Core;
use crate::domain::connection::{ConnectionName, ConnectionRecord, Revision};
use crate::domain::timestamp::Timestamp;
use crate::store::{Change, StoreError};

/// The grain of the time that is kept.
const GRAIN: Duration = Duration::from_secs(3_600);
/// Connections whose use is written in one commit.
const GROUP: usize = 64;
/// Most connections whose use waits to be written; the use of further ones is noted at their next one.
const MAX_WAITING: usize = 10_000;

/// The uses that are not written yet.
#[derive(Debug, Default)]
pub struct Usage(Mutex<HashMap<ConnectionName, Use>>);

/// The hour that `time` lies in.
pub(super) fn to_the_hour(time: Timestamp) -> Timestamp {
    const HOUR: i64 = 3_600;
    Timestamp::from_unix_seconds(time.unix_seconds().div_euclid(HOUR) * HOUR)
}

#[derive(Debug, Clone, Copy)]
struct Use {
    /// Of which version of the credential.
    version: i64,
    time: Timestamp,
}

impl Core {
    /// Notes that the credential of `record` was used now.
    pub(super) fn note_use(&self, record: &ConnectionRecord) {
        let now = self.clock.now();
        let credential = &record.connection.credential;
        if credential.last_use_time.is_some_and(|last| now.since(last) < GRAIN) {
            return;
        }
        let mut waiting = self.usage.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_WAITING || waiting.contains_key(&record.connection.name) {
            waiting.insert(
                record.connection.name.clone(),
                Use { version: credential.version, time: to_the_hour(now) },
            );
        }
    }

    /// Writes the uses that were noted, many at a time. Readers see no change of the etag. Where somebody writes a
    /// connection at the same time, its group is left: the uses are noted again with the next calls.
    ///
    /// # Errors
    ///
    /// The store is not available; what was not written yet is forgotten.
    pub async fn write_uses(&self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut *self.usage.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut waiting = waiting.into_iter().peekable();
        while waiting.peek().is_some() {
            let mut changes = Vec::with_capacity(GROUP);
            for (name, Use { version, time }) in waiting.by_ref().take(GROUP) {
                let record = match self.store.connection(&name).await {
                    Ok(record) if record.connection.credential.version == version => record,
                    Ok(_) | Err(StoreError::NotFound | StoreError::Unreadable(_)) => continue,
                    Err(error) => return Err(error),
                };
                let expected = record.revision;
                let mut next = Arc::unwrap_or_clone(record);
                next.connection.credential.last_use_time = Some(time);
                next.revision = Revision(expected.0 + 1);
                changes.push(Change::Replace { record: Box::new(next), expected });
            }
            match self.store.commit(changes).await {
                Ok(()) | Err(StoreError::Stale | StoreError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
