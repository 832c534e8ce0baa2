//! What becomes due at once when a connection works again: its links and their webhooks.

use std::sync::Arc;

use crate::domain::connection::{ConnectionName, Revision};
use crate::domain::link::{LinkName, LinkRecord};
use crate::domain::timestamp::Timestamp;
use crate::service::error::Error;
use crate::service::{Core, store_down};
use crate::store::{Change, StoreError};

/// Links that are read from the store at a time.
const BATCH: usize = 256;
/// Links whose work is made due in one commit.
const GROUP: usize = 32;

impl Core {
    /// The links of a connection in the order of their ids, those that are being unlinked too.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`] for one that does not decode: whoever asks for all of them must not go on without it.
    pub(in crate::service) async fn links_of(
        &self,
        connection: &ConnectionName,
    ) -> Result<Vec<Arc<LinkRecord>>, Error> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let batch = self.store.links_of(connection, after.as_ref(), BATCH).await.map_err(store_down)?;
            let at_end = batch.len() < BATCH;
            after = batch.last().cloned();
            for id in batch {
                let name = LinkName { tenant: connection.tenant.clone(), id };
                match self.store.link(&name).await {
                    // It was moved between the two reads.
                    Ok(record) if record.link.connection != connection.id => {}
                    Ok(record) => found.push(record),
                    Err(StoreError::NotFound) => {}
                    Err(error) => return Err(Error::from_link_store(error, &name)),
                }
            }
            if at_end {
                return Ok(found);
            }
            // A connection may have many; other calls want their turn.
            tokio::task::yield_now().await;
        }
    }

    /// Has the links of a connection and their webhooks looked at now, in as many commits as it takes. What somebody
    /// writes at the same time is left to its own schedule, and so is the rest if the store fails: the change that
    /// called for it is done.
    pub(in crate::service) async fn rouse(&self, connection: &ConnectionName) {
        if let Err(error) = self.try_rouse(connection).await {
            tracing::warn!(%connection, %error, "links are left to their own schedule");
        }
        self.work.wake();
    }

    async fn try_rouse(&self, connection: &ConnectionName) -> Result<(), Error> {
        let now = self.clock.now();
        for group in self.links_of(connection).await?.chunks(GROUP) {
            let mut each = Vec::with_capacity(group.len());
            for record in group {
                each.push(self.roused(record, now).await?);
            }
            let all: Vec<Change> = each.iter().flatten().cloned().collect();
            if self.commit_unless_stale(all).await? {
                continue;
            }
            for changes in each {
                self.commit_unless_stale(changes).await?;
            }
        }
        Ok(())
    }

    /// The changes that make the work for one link due.
    async fn roused(&self, record: &LinkRecord, now: Timestamp) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        if record.link.is_live() {
            changes.push(super::replace_change(record, record.link.clone(), Some(now), 0));
        }
        let webhook = match record.link.target_key() {
            Some(key) => self.webhook_record(&key).await?,
            None => None,
        };
        if let Some(mut webhook) = webhook.filter(|found| found.is_kept() || found.users.is_empty()) {
            let expected = webhook.revision;
            webhook.revision = Revision(expected.0 + 1);
            webhook.due = Some(now);
            webhook.attempts = 0;
            changes.push(Change::PutWebhook { record: Box::new(webhook), expected: Some(expected) });
        }
        Ok(changes)
    }

    /// Whether nobody wrote one of the records in between.
    async fn commit_unless_stale(&self, changes: Vec<Change>) -> Result<bool, Error> {
        if changes.is_empty() {
            return Ok(true);
        }
        match self.store.commit(changes).await {
            Ok(()) => Ok(true),
            Err(StoreError::Stale | StoreError::NotFound) => Ok(false),
            Err(error) => Err(store_down(error)),
        }
    }
}
