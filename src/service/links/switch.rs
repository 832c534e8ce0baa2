//! ListSwitchTargets and SwitchConnection: another connection of the same instance takes a link over.

use super::create::accessible;
use super::shown::{ACCESSIBLE, ShownLink};
use super::{Links, MAX_ROUNDS, check_etag, replace_change};
use crate::domain::connection::{
    Condition, ConditionStatus, Connection, ConnectionId, ConnectionName, ProviderId, TenantId,
};
use crate::domain::event::EventType;
use crate::domain::link::{Link, LinkName, LinkRecord, LinkState, WebhookMode};
use crate::domain::repository::Repository;
use crate::domain::timestamp::Timestamp;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::provider::ProviderError;
use crate::service::audit::{Subject, difference, event, link_summary};
use crate::service::draft::Violations;
use crate::service::error::Error;
use crate::service::listing::{DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, SCAN_BATCH};
use crate::service::once::{Done, Repeat};
use crate::service::page_token::{self, Binding};
use crate::service::verify::present;
use crate::service::webhooks::share;
use crate::service::work::{LOOK_EVERY, spread};
use crate::service::{Context, Core, checked, store_down};
use crate::store::{Change, StoreError};

/// What SwitchConnection asks for.
#[derive(Debug)]
pub struct Switch {
    /// Which link.
    pub name: Option<LinkName>,
    /// The connection that it is to have.
    pub target: Option<ConnectionName>,
    /// The etag that the caller read; empty for none.
    pub etag: String,
    /// What was found wrong while the message was read.
    pub violations: Violations,
}

/// What ListSwitchTargets asks for.
#[derive(Debug)]
pub struct ListTargets {
    /// Which link.
    pub name: LinkName,
    /// Rows of one page; 0 for the default.
    pub page_size: usize,
    /// Where the last page ended; empty for the first.
    pub page_token: String,
    /// What the token is bound to.
    pub binding: Binding,
}

/// A connection of the link's provider.
#[derive(Debug)]
pub struct SwitchTarget {
    /// The connection as it is presented.
    pub connection: Connection,
    /// It is the one that the link has.
    pub current: bool,
    /// It is of the instance that holds the repository.
    pub same_instance: bool,
}

/// One page of connections.
#[derive(Debug)]
pub struct SwitchTargetsPage {
    /// The rows, in the order of their ids.
    pub targets: Vec<SwitchTarget>,
    /// Leads to the next page; empty after the last.
    pub next_page_token: String,
}

/// That a connection, with the credential that it then had, sees a repository.
#[derive(Debug)]
struct Proof {
    uid: String,
    credential_version: i64,
    repository: Repository,
}

impl Links {
    /// One page of the connections of the link's provider. Asks no provider.
    ///
    /// # Errors
    ///
    /// [`Error::LinkNotFound`], [`Error::PageTokenInvalid`], [`Error::StoreUnavailable`].
    pub async fn switch_targets(&self, request: ListTargets) -> Result<SwitchTargetsPage, Error> {
        let core = &*self.0;
        let link = &core.live_link(&request.name).await?.link;
        let now = core.clock.now();
        let size = match request.page_size {
            0 => DEFAULT_PAGE_SIZE,
            wish => wish.min(MAX_PAGE_SIZE),
        };
        let mut after = if request.page_token.is_empty() {
            None
        } else {
            let cursor = page_token::open(&core.secret, &request.binding, &request.page_token, now)?;
            let id = String::from_utf8(cursor).ok().and_then(|id| ConnectionId::parse(&id).ok());
            Some(id.ok_or(Error::PageTokenInvalid)?)
        };
        let mut page = SwitchTargetsPage { targets: Vec::new(), next_page_token: String::new() };
        loop {
            let batch = core.store.connections(&link.name.tenant, after.as_ref(), SCAN_BATCH).await;
            let batch = batch.map_err(store_down)?;
            let read_all = batch.len() < SCAN_BATCH;
            let mut last = None;
            for listed in batch {
                let record = match listed {
                    Ok(record) => record,
                    Err(unreadable) => {
                        tracing::error!(record = %unreadable.key, problem = %unreadable.problem, "unreadable record left out of a listing");
                        last = unreadable.connection.or(last);
                        continue;
                    }
                };
                let connection = &record.connection;
                last = Some(connection.name.id.clone());
                if connection.provider != link.provider {
                    continue;
                }
                if page.targets.len() == size {
                    // One more than the page has: so there is a next one, behind the last row of this one.
                    if let Some(row) = page.targets.last() {
                        let cursor = row.connection.name.id.as_str().as_bytes();
                        page.next_page_token = page_token::issue(&core.secret, &request.binding, cursor, now);
                    }
                    return Ok(page);
                }
                page.targets.push(SwitchTarget {
                    current: connection.name.id == link.connection,
                    same_instance: connection.effective_api_url == link.instance,
                    connection: present(connection.clone(), now),
                });
            }
            // Without an id to go on from, all that is left has unreadable keys.
            if read_all || last.is_none() {
                return Ok(page);
            }
            after = last;
            // A tenant may have many; other calls want their turn.
            tokio::task::yield_now().await;
        }
    }

    /// Gives a link to another connection after that one proved to see the same repository. The connection that the link
    /// has is never asked: its token may be dead. On failure nothing is changed.
    ///
    /// # Errors
    ///
    /// In this order: [`Error::LinkNotFound`], [`Error::Stale`], [`Error::NoAlternate`], [`Error::ConnectionNotFound`],
    /// [`Error::ProviderMismatch`], [`Error::NotAccessible`] for another instance, [`Error::Disabled`],
    /// [`Error::NotAccessible`] and [`Error::Provider`] for the proof.
    pub async fn switch(
        &self,
        context: &Context,
        mut request: Switch,
        repeat: Option<Repeat<'_, ShownLink>>,
    ) -> Result<Done<ShownLink>, Error> {
        if let (Some(name), Some(target)) = (&request.name, &request.target)
            && name.tenant != target.tenant
        {
            let told = "the connection is of another tenant than the link";
            request.violations.push(FieldViolation::new("connection", FieldReason::Conflicting, told));
        }
        request.violations.finish()?;
        let (name, target) = (checked(request.name)?, checked(request.target)?);
        if let Some(answer) = self.0.answered_before(&name.tenant, repeat.as_ref()).await? {
            return Ok(Done::Before(answer));
        }
        let outcome = self.switch_once(context, &name, &target, &request.etag, repeat.as_ref()).await;
        self.0.done_or_before(&name.tenant, repeat.as_ref(), outcome).await
    }

    async fn switch_once(
        &self,
        context: &Context,
        name: &LinkName,
        target: &ConnectionName,
        etag: &str,
        repeat: Option<&Repeat<'_, ShownLink>>,
    ) -> Result<ShownLink, Error> {
        let core = &*self.0;
        let read = core.live_link(name).await?;
        check_etag(&read.link, etag)?;
        if read.link.connection == target.id {
            let shown = core.show_changed_link(&read.link, &[]).await?;
            if let Some(remember) = core.remember(&name.tenant, repeat, &shown, core.clock.now()) {
                let outcome = core.store.commit(vec![remember]).await;
                outcome.map_err(|error| Error::from_link_store(error, name))?;
            }
            return Ok(shown);
        }
        core.refuse_without_alternate(&read.link, target).await?;
        core.move_link(context, &read, target, repeat).await
    }
}

impl Core {
    /// Refuses a switch to whatever it may be where the tenant has no other connection of the link's provider.
    async fn refuse_without_alternate(&self, link: &Link, target: &ConnectionName) -> Result<(), Error> {
        match self.store.connection(target).await {
            // The rule: the target itself is the alternate.
            Ok(record) if record.connection.provider == link.provider => return Ok(()),
            Ok(_) | Err(StoreError::NotFound | StoreError::Unreadable(_)) => {}
            Err(error) => return Err(store_down(error)),
        }
        if self.has_other(&link.name.tenant, &link.provider, &link.connection).await? {
            return Ok(());
        }
        Err(Error::NoAlternate { link: link.name.clone(), provider: link.provider.as_str().to_owned() })
    }

    /// Whether the tenant has another connection of the provider than `one`.
    async fn has_other(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        one: &ConnectionId,
    ) -> Result<bool, Error> {
        let mut after = None;
        loop {
            let batch =
                self.store.connections(tenant, after.as_ref(), SCAN_BATCH).await.map_err(store_down)?;
            let is_other =
                |connection: &Connection| connection.provider == *provider && connection.name.id != *one;
            if batch.iter().flatten().any(|record| is_other(&record.connection)) {
                return Ok(true);
            }
            after = batch.iter().rev().find_map(|listed| match listed {
                Ok(record) => Some(record.connection.name.id.clone()),
                Err(unreadable) => unreadable.connection.clone(),
            });
            if batch.len() < SCAN_BATCH || after.is_none() {
                return Ok(false);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Proves that the target sees the repository of `read`, and gives it the link, in one commit. Whoever changed the
    /// link since it was read wins; bookkeeping and a webhook's own work in between do not.
    pub(super) async fn move_link(
        &self,
        context: &Context,
        read: &LinkRecord,
        target: &ConnectionName,
        repeat: Option<&Repeat<'_, ShownLink>>,
    ) -> Result<ShownLink, Error> {
        let name = &read.link.name;
        let mut proof: Option<Proof> = None;
        for _ in 0..MAX_ROUNDS {
            let proven = self.prove_access(context, &read.link, target, proof.take()).await?;
            let record = self.live_link(name).await?;
            if record.link.generation != read.link.generation || record.link.uid != read.link.uid {
                break;
            }
            let now = self.clock.now();
            let next = switched(context, &record.link, target, proven.repository.clone(), now);
            let mut changes = vec![Change::Require {
                connection: target.clone(),
                uid: proven.uid.clone(),
                credential_version: proven.credential_version,
            }];
            let due = Some(now.saturating_add(spread(LOOK_EVERY)));
            changes.push(replace_change(&record, next.clone(), due, 0));
            changes.push(Change::Append(switch_event(context, &record.link, &next, now)));
            changes.extend(self.share_webhooks(Some(&record.link), Some(&next), now).await?.changes);
            changes.extend(self.hand_over_removal(&record.link, target, now).await?);
            let shown = self.show_changed_link(&next, &changes).await?;
            changes.splice(0..0, self.remember(&name.tenant, repeat, &shown, now));
            match self.store.commit(changes).await {
                Ok(()) => {
                    self.work.wake();
                    return Ok(shown);
                }
                // The next round tells what it was: somebody's change, or bookkeeping. The proof holds for the
                // credential that it was made with.
                Err(StoreError::Stale | StoreError::NotFound) => proof = Some(proven),
                Err(error) => return Err(Error::from_link_store(error, name)),
            }
        }
        Err(Error::Stale { name: name.to_string() })
    }

    /// Whether the target may take the link over: what [`Core::move_link`] would find, and change nothing.
    pub(super) async fn may_move(
        &self,
        context: &Context,
        link: &Link,
        target: &ConnectionName,
    ) -> Result<(), Error> {
        self.prove_access(context, link, target, None).await.map(drop)
    }

    /// Has the target show the link's repository, unless it did with the credential that it has now.
    async fn prove_access(
        &self,
        context: &Context,
        link: &Link,
        target: &ConnectionName,
        known: Option<Proof>,
    ) -> Result<Proof, Error> {
        let record = self.record(target).await?;
        let connection = &record.connection;
        if connection.provider != link.provider {
            return Err(Error::ProviderMismatch {
                connection: target.clone(),
                found: connection.provider.as_str().to_owned(),
                wanted: link.provider.as_str().to_owned(),
            });
        }
        if connection.effective_api_url != link.instance {
            return Err(not_accessible(target, link, "it is of another instance than the repository."));
        }
        if connection.disabled {
            return Err(Error::Disabled { name: target.clone() });
        }
        let (uid, credential_version) = (connection.uid.clone(), connection.credential.version);
        if let Some(known) = known
            && (&known.uid, known.credential_version) == (&uid, credential_version)
        {
            return Ok(known);
        }
        let reach = self.reach_by(record, context.deadline)?;
        let (id, full_name) = (&link.repository.provider_id, &link.repository.full_name);
        match reach.provider.known_repository(&reach.api, id, full_name).await {
            Ok(found) if found.provider_id == *id => Ok(Proof { uid, credential_version, repository: found }),
            Ok(_) => Err(not_accessible(target, link, "another one is in its place.")),
            Err(ProviderError::NotFound) => {
                let told = "it does not exist any more, or the token does not see it.";
                Err(not_accessible(target, link, told))
            }
            Err(ProviderError::Forbidden) => {
                Err(not_accessible(target, link, "the token's user has no right to read it."))
            }
            Err(error) => Err(reach.failed(error)),
        }
    }

    /// A webhook that the link does not want any more and that is still being removed is removed through the connection
    /// that the link has now: the one before may be gone tomorrow.
    async fn hand_over_removal(
        &self,
        link: &Link,
        target: &ConnectionName,
        now: Timestamp,
    ) -> Result<Option<Change>, Error> {
        if link.webhook_mode != WebhookMode::None {
            return Ok(None);
        }
        let Some(key) = link.target_key() else { return Ok(None) };
        let Some(record) = self.webhook_record(&key).await? else { return Ok(None) };
        if !record.users.is_empty() || record.via != Some(link.connection_name()) {
            return Ok(None);
        }
        let mut next = share::next(&record);
        next.via = Some(target.clone());
        next.attempts = 0;
        next.due = Some(now);
        Ok(Some(Change::PutWebhook { record: Box::new(next), expected: Some(record.revision) }))
    }
}

fn not_accessible(target: &ConnectionName, link: &Link, why: &str) -> Error {
    Error::NotAccessible { connection: target.clone(), lost: vec![(link.name.to_string(), why.to_owned())] }
}

/// The link as the target has it.
fn switched(
    context: &Context,
    link: &Link,
    target: &ConnectionName,
    repository: Repository,
    now: Timestamp,
) -> Link {
    let mut next = link.clone();
    next.see(repository);
    next.switch_to(target.id.clone(), context.actor.clone(), now);
    mark_seen(&mut next, now);
    next.update_time = now;
    next.generation += 1;
    next
}

/// The state and the condition of a link whose repository was just seen.
pub(in crate::service) fn mark_seen(link: &mut Link, now: Timestamp) {
    link.state = LinkState::Linked;
    let is_seen = |condition: &Condition| {
        condition.condition_type == ACCESSIBLE && condition.status == ConditionStatus::True
    };
    if !link.conditions.iter().any(is_seen) {
        link.conditions.retain(|condition| condition.condition_type != ACCESSIBLE);
        link.conditions.insert(0, accessible(now));
    }
}

fn switch_event(
    context: &Context,
    before: &Link,
    after: &Link,
    now: Timestamp,
) -> crate::domain::event::Event {
    let (was, is) = difference(&link_summary(before), &link_summary(after));
    let subject = Subject {
        connections: vec![before.connection.clone(), after.connection.clone()],
        ..Subject::link(after)
    };
    event(context, EventType::ConnectionSwitched, subject, was, is, now)
}
