//! A connection that moves to another instance, and its links that move along: a server that got another name.

use std::sync::Arc;

use super::affected::LinkCheck;
use super::{Connections, Next};
use crate::domain::connection::{ConnectionRecord, Revision};
use crate::domain::credential::Sealed;
use crate::domain::event::EventType;
use crate::domain::link::{Link, LinkRecord};
use crate::domain::repository::Repository;
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{FormerSecret, NextSecret, WebhookKey, WebhookRecord};
use crate::provider::Provider;
use crate::provider::api::Api;
use crate::service::audit::{Subject, difference, event, link_summary};
use crate::service::error::Error;
use crate::service::links::mark_seen;
use crate::service::webhooks::share;
use crate::service::work::{LOOK_EVERY, spread};
use crate::service::{Context, Core, origin_of};
use crate::store::Change;

/// Most links that a refusal names.
const MAX_NAMED: usize = 25;

impl Connections {
    /// What becomes of the links of a connection that moves to the instance of `next`: each whose repository is there
    /// with the same id and full name moves along with its webhook. What is still to be removed at the old instance keeps
    /// the connection as it was. Without an `api` nobody can be asked.
    ///
    /// A repository that is linked while this looks stays at the old instance, which the next look at it tells.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] with the links whose repositories were not found; [`Error::Provider`].
    pub(super) async fn relocated(
        &self,
        context: &Context,
        record: &ConnectionRecord,
        next: &Next,
        provider: &dyn Provider,
        api: Option<Api>,
        now: Timestamp,
    ) -> Result<Vec<Change>, Error> {
        let core = &*self.0;
        let name = &record.connection.name;
        let mut links = core.links_of(name).await?;
        let mut check = api.map(|api| LinkCheck::new(provider, api, "connection.credential"));
        if let Some(check) = &mut check {
            let live = |links: &[Arc<LinkRecord>]| -> Vec<Arc<LinkRecord>> {
                links.iter().filter(|link| link.link.is_live()).cloned().collect()
            };
            check.look(&live(&links)).await;
            // As they are now: the looks took their time.
            links = core.links_of(name).await?;
            check.look(&live(&links)).await;
        }
        let instance = &next.connection.effective_api_url;
        let (mut changes, mut missing) = (Vec::new(), Vec::new());
        for link in links.iter().filter(|link| link.link.is_live()) {
            let found = match &check {
                Some(check) => check.found(link)?,
                None => None,
            };
            match found.filter(|found| found.full_name == link.link.repository.full_name) {
                Some(found) => {
                    changes.extend(core.relocate_link(context, link, instance, found.clone(), now).await?);
                }
                None => missing.push(link.link.name.clone()),
            }
        }
        if !missing.is_empty() {
            let count = missing.len() as u64;
            missing.truncate(MAX_NAMED);
            return Err(Error::InUse { name: name.clone(), links: missing, count });
        }
        core.bid_farewell(record, &links, &mut changes, now).await?;
        Ok(changes)
    }
}

impl Core {
    async fn relocate_link(
        &self,
        context: &Context,
        record: &LinkRecord,
        instance: &str,
        repository: Repository,
        now: Timestamp,
    ) -> Result<Vec<Change>, Error> {
        let mut link = record.link.clone();
        instance.clone_into(&mut link.instance);
        link.see(repository);
        mark_seen(&mut link, now);
        link.update_time = now;
        link.generation += 1;
        let (was, is) = difference(&link_summary(&record.link), &link_summary(&link));
        let subject = Subject::link(&link);
        let event = event(context, EventType::RepositoryLinkUpdated, subject, was, is, now);
        let mut changes = match self.relocate_webhook(&record.link, &link, now).await? {
            Some(changes) => changes.into(),
            // Others count on it where it is.
            None => self.share_webhooks(Some(&record.link), Some(&link), now).await?.changes,
        };
        changes.push(Change::Append(event));
        changes.push(Change::ReplaceLink {
            record: Box::new(LinkRecord {
                link,
                due: Some(now.saturating_add(spread(LOOK_EVERY))),
                attempts: 0,
                revision: Revision(record.revision.0 + 1),
            }),
            expected: record.revision,
        });
        Ok(changes)
    }

    /// The changes that move the webhook of a link along, with its identity and its secrets: at the provider nothing
    /// changes. `None` where it has none, or shares it with others.
    async fn relocate_webhook(
        &self,
        before: &Link,
        after: &Link,
        now: Timestamp,
    ) -> Result<Option<[Change; 2]>, Error> {
        let (Some(from), Some(to)) = (before.webhook_key(), after.webhook_key()) else { return Ok(None) };
        let Some(record) = self.webhook_record(&from).await? else { return Ok(None) };
        let is_shared = record.users.len() != 1 || !record.users.contains_key(&after.name);
        if is_shared || self.webhook_record(&to).await?.is_some() {
            return Ok(None);
        }
        let expected = record.revision;
        let moved = self.resealed(record, to, &after.repository.full_name, now)?;
        Ok(Some([
            Change::RemoveWebhook { key: from, expected },
            Change::PutWebhook { record: Box::new(moved), expected: None },
        ]))
    }

    /// The record under another key, its secrets bound to the new origin.
    fn resealed(
        &self,
        record: WebhookRecord,
        key: WebhookKey,
        full_name: &str,
        now: Timestamp,
    ) -> Result<WebhookRecord, Error> {
        let origin = origin_of(&key.instance)?;
        let reseal = |sealed: &Sealed| -> Result<Sealed, Error> {
            let secret = self.webhook_secret(&record, sealed)?;
            self.keys.seal(&secret, &share::binding(&record.uid, &origin)).map_err(share::unsealed)
        };
        let sealed = reseal(&record.sealed)?;
        let former = record
            .former
            .iter()
            .map(|former| Ok(FormerSecret { sealed: reseal(&former.sealed)?, ..former.clone() }))
            .collect::<Result<_, Error>>()?;
        let next = match &record.next {
            Some(next) => Some(NextSecret { sealed: reseal(&next.sealed)?, ..next.clone() }),
            None => None,
        };
        let due = record.is_kept().then_some(now);
        Ok(WebhookRecord {
            key,
            sealed,
            former,
            next,
            full_name: full_name.to_owned(),
            due,
            attempts: 0,
            generation: record.generation + 1,
            revision: Revision(1),
            ..record
        })
    }
}
