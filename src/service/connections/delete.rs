//! DeleteConnection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Connections, check_etag};
use crate::domain::connection::{ConnectionName, ConnectionRecord};
use crate::domain::event::EventType;
use crate::domain::link::{LinkName, LinkRecord};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{Farewell, WebhookKey};
use crate::service::audit::{self, Subject};
use crate::service::error::Error;
use crate::service::webhooks::share;
use crate::service::{Context, Core, store_down};
use crate::store::{Change, StoreError};

/// How often a deletion is tried again over bookkeeping, and over the work of the background, which writes the records
/// of many webhooks.
const MAX_ROUNDS: usize = 32;
/// Most links that a refusal names.
const MAX_NAMED: usize = 25;
/// How long the credential of a connection that is gone is kept to remove webhooks with.
const FAREWELL: Duration = Duration::from_secs(24 * 3_600);

impl Connections {
    /// Deletes a connection with its sealed secret. Its display name is free again, its id never. With `force` the
    /// repositories that are linked through it are unlinked in the same commit. Where webhooks are still to be removed
    /// through it, each keeps the sealed credential for at most a day.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionNotFound`], [`Error::Stale`], [`Error::StoreUnavailable`]; [`Error::InUse`] without `force`.
    pub async fn delete(
        &self,
        context: &Context,
        name: &ConnectionName,
        etag: &str,
        force: bool,
    ) -> Result<(), Error> {
        let core = &*self.0;
        let read = core.record(name).await?;
        check_etag(&read.connection, etag)?;
        let mut record = Arc::clone(&read);
        for _ in 0..MAX_ROUNDS {
            if !force {
                core.refuse_in_use(name).await?;
            }
            let now = core.clock.now();
            let links = core.links_of(name).await?;
            let mut changes = Vec::new();
            for link in links.iter().filter(|link| link.link.is_live()) {
                changes.extend(core.unlinked(context, link, now).await?);
            }
            if !changes.is_empty() && !force {
                // Linked since the look.
                continue;
            }
            core.bid_farewell(&record, &links, &mut changes, now).await?;
            changes.push(Change::Remove { name: name.clone(), expected: record.revision });
            changes.push(Change::Append(audit::event(
                context,
                EventType::ConnectionDeleted,
                Subject::connection(name),
                audit::summary(&record.connection),
                BTreeMap::new(),
                now,
            )));
            match core.store.commit(changes).await {
                Ok(()) => {
                    core.work.wake();
                    return Ok(());
                }
                Err(StoreError::Stale | StoreError::InUse | StoreError::NotFound) => {}
                Err(error) => return Err(Error::from_store(error, name, "")),
            }
            record = core.record(name).await?;
            // Bookkeeping in between is no change that somebody could mind.
            if record.connection.generation != read.connection.generation {
                break;
            }
        }
        Err(Error::Stale { name: name.to_string() })
    }
}

impl Core {
    /// Refuses a connection that live links use, and names some of them.
    async fn refuse_in_use(&self, name: &ConnectionName) -> Result<(), Error> {
        let count = self.store.link_count(name).await.map_err(store_down)?;
        if count == 0 {
            return Ok(());
        }
        let (mut links, mut after) = (Vec::new(), None);
        while links.len() < MAX_NAMED {
            let ids = self.store.links_of(name, after.as_ref(), MAX_NAMED).await.map_err(store_down)?;
            let at_end = ids.len() < MAX_NAMED;
            after = ids.last().cloned();
            for id in ids {
                let link = LinkName { tenant: name.tenant.clone(), id };
                match self.store.link(&link).await {
                    Ok(record) if !record.link.is_live() => {}
                    Ok(_) | Err(StoreError::Unreadable(_)) => links.push(link),
                    Err(StoreError::NotFound) => {}
                    Err(error) => return Err(store_down(error)),
                }
            }
            if at_end {
                break;
            }
        }
        links.truncate(MAX_NAMED);
        Err(Error::InUse { name: name.clone(), links, count })
    }

    /// Gives the connection, as `record` has it, to the webhooks that are to be removed through it: to those that
    /// `changes` leave without a link, and to those whose removal is under way. It will not be there any more, or of
    /// another instance.
    pub(super) async fn bid_farewell(
        &self,
        record: &ConnectionRecord,
        links: &[Arc<LinkRecord>],
        changes: &mut Vec<Change>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let farewell = || Farewell { record: Box::new(record.clone()), until: now.saturating_add(FAREWELL) };
        let via = Some(record.connection.name.clone());
        let mut dealt_with: BTreeSet<WebhookKey> = BTreeSet::new();
        for change in changes.iter_mut() {
            match change {
                Change::PutWebhook { record, .. } => {
                    if record.users.is_empty() && record.via == via {
                        record.farewell = Some(farewell());
                    }
                    dealt_with.insert(record.key.clone());
                }
                Change::RemoveWebhook { key, .. } => {
                    dealt_with.insert(key.clone());
                }
                _ => {}
            }
        }
        for key in links.iter().filter_map(|link| link.link.target_key()) {
            if !dealt_with.insert(key.clone()) {
                continue;
            }
            let Some(webhook) = self.webhook_record(&key).await? else { continue };
            if !webhook.users.is_empty() || webhook.via != via || webhook.farewell.is_some() {
                continue;
            }
            let mut next = share::next(&webhook);
            next.farewell = Some(farewell());
            next.attempts = 0;
            next.due = Some(now);
            changes.push(Change::PutWebhook { record: Box::new(next), expected: Some(webhook.revision) });
        }
        Ok(())
    }
}
