//! Tells once that a credential ends soon.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Core;
use super::audit::{Subject, own_event};
use super::listing::SCAN_BATCH;
use super::verify::EXPIRY_WARNING;
use crate::domain::connection::{ConnectionRecord, Revision, TenantId};
use crate::domain::event::EventType;
use crate::store::{Change, StoreError};

impl Core {
    /// Appends an event for each credential of the tenant that ends soon, or has ended, and was not told of. Returns how
    /// many. Where somebody writes a connection at the same time, it is left for the next round.
    ///
    /// # Errors
    ///
    /// The store is not available.
    pub(super) async fn tell_expiring(&self, tenant: &TenantId) -> Result<usize, StoreError> {
        let mut told = 0;
        let mut after = None;
        loop {
            let batch = self.store.connections(tenant, after.as_ref(), SCAN_BATCH).await?;
            let end = batch.len() < SCAN_BATCH;
            after = batch.iter().rev().find_map(|listed| match listed {
                Ok(record) => Some(record.connection.name.id.clone()),
                Err(unreadable) => unreadable.connection.clone(),
            });
            for record in batch.into_iter().flatten() {
                if !self.ends_soon(&record) {
                    continue;
                }
                match self.store.commit(told_of(record, self)).await {
                    Ok(()) => told += 1,
                    Err(StoreError::Stale | StoreError::NotFound | StoreError::Unreadable(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            // Without an id to go on from, all that is left has unreadable keys.
            if end || after.is_none() {
                return Ok(told);
            }
            // There may be many; other calls want their turn.
            tokio::task::yield_now().await;
        }
    }

    fn ends_soon(&self, record: &ConnectionRecord) -> bool {
        let credential = &record.connection.credential;
        let limit = self.clock.now().saturating_add(EXPIRY_WARNING);
        !credential.expiry_told && credential.expire_time.is_some_and(|end| end < limit)
    }
}

/// The event, and the record that notes it. Readers see no change of the etag.
fn told_of(record: Arc<ConnectionRecord>, core: &Core) -> Vec<Change> {
    let expected = record.revision;
    let mut next = Arc::unwrap_or_clone(record);
    next.revision = Revision(expected.0 + 1);
    let connection = &mut next.connection;
    connection.credential.expiry_told = true;
    let end = connection.credential.expire_time.map(|end| end.unix_seconds().to_string());
    let after = BTreeMap::from([
        ("credential.version".to_owned(), connection.credential.version.to_string()),
        ("credential.expire_time".to_owned(), end.unwrap_or_default()),
    ]);
    let event = own_event(
        EventType::CredentialExpiring,
        Subject::connection(&connection.name),
        BTreeMap::new(),
        after,
        core.clock.now(),
    );
    vec![Change::Replace { record: Box::new(next), expected }, Change::Append(event)]
}
