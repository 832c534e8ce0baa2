//! Repository links: create, read, list, update, delete.

mod create;
mod draft;
mod listing;
mod look;
mod migrate;
mod rouse;
mod shown;
mod switch;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use create::{Create, CreateBatch, Selector};
pub use draft::{LinkDraft, WebhookWish};
pub use listing::LinksPage;
pub use migrate::{Became, Migrate, Migrated};
pub use shown::ShownLink;
pub(super) use switch::mark_seen;
pub use switch::{ListTargets, Switch, SwitchTarget, SwitchTargetsPage};
pub use update::{Edit, Update};

use super::audit::{Subject, event, link_summary};
use super::error::Error;
use super::{Context, Core, etag_of};
use crate::domain::connection::Revision;
use crate::domain::event::EventType;
use crate::domain::link::{Link, LinkName, LinkRecord, LinkState};
use crate::domain::timestamp::Timestamp;
use crate::store::{Change, StoreError};

/// How often a change is tried again over what somebody else wrote in between: another link of the same webhook, or the
/// background work for this one.
const MAX_ROUNDS: usize = 8;

/// The operations on repository links.
#[derive(Debug, Clone)]
pub struct Links(Arc<Core>);

impl Links {
    /// The operations on the links of `core`.
    #[must_use]
    pub const fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// The link of that name; one that is being unlinked, too.
    ///
    /// # Errors
    ///
    /// [`Error::LinkNotFound`], [`Error::Unreadable`], [`Error::StoreUnavailable`].
    pub async fn read(&self, name: &LinkName) -> Result<ShownLink, Error> {
        let record = self.0.link(name).await?;
        self.0.show_link(Arc::unwrap_or_clone(record).link, &mut shown::Known::default()).await
    }

    /// Unlinks a repository. Its webhook goes in the background, unless other links count on it; until it is gone the
    /// link is shown as UNLINKING. Unlinking it again then changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::LinkNotFound`], [`Error::Stale`], [`Error::StoreUnavailable`].
    pub async fn delete(&self, context: &Context, name: &LinkName, etag: &str) -> Result<(), Error> {
        let core = &*self.0;
        for _ in 0..MAX_ROUNDS {
            let record = core.link(name).await?;
            if !record.link.is_live() {
                return Ok(());
            }
            check_etag(&record.link, etag)?;
            let changes = core.unlinked(context, &record, core.clock.now()).await?;
            match core.store.commit(changes).await {
                Ok(()) => {
                    core.work.wake();
                    return Ok(());
                }
                Err(StoreError::Stale | StoreError::NotFound) => {}
                Err(error) => return Err(Error::from_link_store(error, name)),
            }
        }
        Err(Error::Stale { name: name.to_string() })
    }
}

impl Core {
    /// The changes that unlink a live link and tell of it: it goes with its last webhook, or at once.
    pub(super) async fn unlinked(
        &self,
        context: &Context,
        record: &LinkRecord,
        now: Timestamp,
    ) -> Result<Vec<Change>, Error> {
        let shared = self.share_webhooks(Some(&record.link), None, now).await?;
        let gone = link_summary(&record.link);
        let subject = Subject::link(&record.link);
        let event = event(context, EventType::RepositoryUnlinked, subject, gone, BTreeMap::new(), now);
        let change = if shared.removal {
            let mut link = record.link.clone();
            link.state = LinkState::Unlinking;
            link.update_time = now;
            link.generation += 1;
            replace_change(record, link, None, 0)
        } else {
            Change::RemoveLink { name: record.link.name.clone(), expected: record.revision }
        };
        let mut changes = vec![change, Change::Append(event)];
        changes.extend(shared.changes);
        Ok(changes)
    }

    /// The stored link of that name.
    pub(super) async fn link(&self, name: &LinkName) -> Result<Arc<LinkRecord>, Error> {
        self.store.link(name).await.map_err(|error| Error::from_link_store(error, name))
    }

    /// The same, if it is not being unlinked: what a change of it begins with.
    pub(super) async fn live_link(&self, name: &LinkName) -> Result<Arc<LinkRecord>, Error> {
        let record = self.link(name).await?;
        if record.link.is_live() { Ok(record) } else { Err(Error::LinkNotFound(name.to_string())) }
    }
}

/// The etag of a link: it changes with everything that a reader can see of it, and not with the state of its webhook or
/// its connection.
#[must_use]
pub fn etag(link: &Link) -> String {
    etag_of(link.generation)
}

/// Refuses an etag that is not that of the link; an empty one stands for any.
pub(super) fn check_etag(link: &Link, sent: &str) -> Result<(), Error> {
    if sent.is_empty() || sent == etag(link) {
        Ok(())
    } else {
        Err(Error::Stale { name: link.name.to_string() })
    }
}

/// The change that puts `link` in the place of `record`.
pub(super) fn replace_change(
    record: &LinkRecord,
    link: Link,
    due: Option<Timestamp>,
    attempts: u32,
) -> Change {
    let revision = Revision(record.revision.0 + 1);
    let next = LinkRecord { link, due, attempts, revision };
    Change::ReplaceLink { record: Box::new(next), expected: record.revision }
}
