//! The changes of links and webhooks.

use super::Plan;
use crate::domain::connection::{ConnectionName, Revision};
use crate::domain::link::{LinkName, LinkRecord};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{WebhookKey, WebhookRecord};
use crate::store::layout::{self, Rows, links};
use crate::store::record::{self, ConnectionLinksRow, DueRow, IndexRow, NameRow, RetiredRow};
use crate::store::{Due, StoreError};

impl<R: Rows> Plan<'_, R> {
    pub(super) fn insert_link(&mut self, record: &LinkRecord) -> Result<(), StoreError> {
        let name = &record.link.name;
        if record.revision != Revision(1) || !record.link.is_live() {
            return Err(StoreError::Stale);
        }
        if links::link_id_taken(self, name)? {
            return Err(StoreError::IdTaken);
        }
        // The connection must be there when the link is, not only when its maker looked.
        layout::connection(self, &record.link.connection_name())?;
        self.claim(record)?;
        self.put(links::link_index_key(&record.link), &IndexRow {});
        self.put_link(record, None);
        self.count(&name.tenant, |row| row.links += 1)
    }

    pub(super) fn replace_link(&mut self, record: &LinkRecord, expected: Revision) -> Result<(), StoreError> {
        let name = &record.link.name;
        let old = links::link(self, name)?;
        if old.revision != expected || expected.0.checked_add(1) != Some(record.revision.0) {
            return Err(StoreError::Stale);
        }
        if old.link.is_live() {
            self.release(&old)?;
        }
        let moved = old.link.connection != record.link.connection;
        if moved {
            self.staged.writes.insert(links::link_index_key(&old.link), None);
            self.put(links::link_index_key(&record.link), &IndexRow {});
        }
        if record.link.is_live() {
            if moved {
                layout::connection(self, &record.link.connection_name())?;
            }
            self.claim(record)?;
        }
        self.put_link(record, old.due);
        Ok(())
    }

    pub(super) fn remove_link(&mut self, name: &LinkName, expected: Revision) -> Result<(), StoreError> {
        let old = links::link(self, name)?;
        if old.revision != expected {
            return Err(StoreError::Stale);
        }
        if old.link.is_live() {
            self.release(&old)?;
        }
        let key = links::link_key(name);
        self.schedule(&key, old.due, None, || Due::Link(name.clone()));
        self.staged.writes.insert(key, None);
        self.staged.writes.insert(links::link_index_key(&old.link), None);
        self.put(links::retired_link_key(name), &RetiredRow { uid: old.link.uid });
        self.count(&name.tenant, |row| {
            row.links = row.links.saturating_sub(1);
            row.retired_links += 1;
        })
    }

    pub(super) fn put_webhook(
        &mut self,
        record: &WebhookRecord,
        expected: Option<Revision>,
    ) -> Result<(), StoreError> {
        let old = match links::webhook(self, &record.key) {
            Ok(old) => Some(old),
            Err(StoreError::NotFound) => None,
            Err(error) => return Err(error),
        };
        let next = expected.map_or(Some(1), |expected| expected.0.checked_add(1));
        if old.as_ref().map(|old| old.revision) != expected || next != Some(record.revision.0) {
            return Err(StoreError::Stale);
        }
        let key = links::webhook_key(&record.key);
        let due = old.and_then(|old| old.due);
        self.schedule(&key, due, record.due, || Due::Webhook(record.key.clone()));
        let bytes = record::encode_webhook(&key, record);
        self.staged.writes.insert(key, Some(bytes));
        Ok(())
    }

    pub(super) fn remove_webhook(
        &mut self,
        which: &WebhookKey,
        expected: Revision,
    ) -> Result<(), StoreError> {
        let old = links::webhook(self, which)?;
        if old.revision != expected {
            return Err(StoreError::Stale);
        }
        let key = links::webhook_key(which);
        self.schedule(&key, old.due, None, || Due::Webhook(which.clone()));
        self.staged.writes.insert(key, None);
        Ok(())
    }

    /// Refuses a commit that rests on a credential which is not there any more.
    pub(super) fn require(
        &mut self,
        connection: &ConnectionName,
        uid: &str,
        credential_version: i64,
    ) -> Result<(), StoreError> {
        let now = layout::connection(self, connection)?.connection;
        let holds = now.uid == uid && now.credential.version == credential_version && !now.disabled;
        if holds { Ok(()) } else { Err(StoreError::Stale) }
    }

    fn claim(&mut self, record: &LinkRecord) -> Result<(), StoreError> {
        let key = links::claim_key(&record.link);
        if let Some(owner) = links::claimed_by(self, &key)? {
            return Err(StoreError::RepositoryLinked { owner });
        }
        self.put(key, &NameRow { owner: record.link.name.id.as_str().to_owned() });
        self.count(&record.link.name.tenant, |row| row.claims += 1)?;
        self.count_links(&record.link.connection_name(), |links| links.saturating_add(1))
    }

    fn release(&mut self, old: &LinkRecord) -> Result<(), StoreError> {
        self.staged.writes.insert(links::claim_key(&old.link), None);
        self.count(&old.link.name.tenant, |row| row.claims = row.claims.saturating_sub(1))?;
        self.count_links(&old.link.connection_name(), |links| links.saturating_sub(1))
    }

    fn count_links(
        &mut self,
        connection: &ConnectionName,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<(), StoreError> {
        let links = change(links::link_count(self, connection)?);
        let key = links::link_count_key(connection);
        if links == 0 {
            self.staged.writes.insert(key, None);
        } else {
            self.put(key, &ConnectionLinksRow { links });
        }
        Ok(())
    }

    fn put_link(&mut self, record: &LinkRecord, due_before: Option<Timestamp>) {
        let key = links::link_key(&record.link.name);
        self.schedule(&key, due_before, record.due, || Due::Link(record.link.name.clone()));
        let bytes = record::encode_link(&key, record);
        self.staged.writes.insert(key, Some(bytes));
    }

    /// Moves the work for the record at `owner` from one moment to another.
    fn schedule(
        &mut self,
        owner: &[u8],
        before: Option<Timestamp>,
        after: Option<Timestamp>,
        what: impl FnOnce() -> Due,
    ) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.staged.writes.insert(links::due_key(before, owner), None);
        }
        if let Some(after) = after {
            self.put(links::due_key(after, owner), &DueRow::new(after, &what()));
        }
    }
}
