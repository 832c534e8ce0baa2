//! When each credential was last used: to the hour, written lazily, so that reading repositories costs no write.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Core;
use crate::domain::connection::{ConnectionName, ConnectionRecord, Revision};
use crate::domain::timestamp::Timestamp;
use crate::store::{Change, StoreError};

/// The grain of the time that is kept.
const GRAIN: Duration = Duration::from_secs(3_600);
/// Most connections whose use waits to be written; the use of further ones is noted at their next one.
const MAX_WAITING: usize = 10_000;

/// The uses that are not written yet.
#[derive(Debug, Default)]
pub struct Usage(Mutex<HashMap<ConnectionName, Use>>);

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
            waiting.insert(record.connection.name.clone(), Use { version: credential.version, time: now });
        }
    }

    /// Writes the uses that were noted. Readers see no change of the etag; a connection that somebody writes at
    /// the same time keeps that write, and its use is noted at the next one.
    ///
    /// # Errors
    ///
    /// The store is not available; what was not written yet is forgotten.
    pub async fn write_uses(&self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut *self.usage.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, Use { version, time }) in waiting {
            let record = match self.store.connection(&name).await {
                Ok(record) => record,
                Err(StoreError::NotFound | StoreError::Unreadable(_)) => continue,
                Err(error) => return Err(error),
            };
            if record.connection.credential.version != version {
                continue;
            }
            let mut next = ConnectionRecord::clone(&record);
            next.connection.credential.last_use_time = Some(time);
            next.revision = Revision(record.revision.0 + 1);
            let change = Change::Replace { record: Box::new(next), expected: record.revision };
            match self.store.commit(vec![change]).await {
                Ok(()) | Err(StoreError::Stale | StoreError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
