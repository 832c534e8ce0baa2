//! CreateRepositoryLink and BatchCreateRepositoryLinks.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use uuid::Uuid;

use super::draft::{self, LinkDraft, WebhookChoice};
use super::shown::{ACCESSIBLE, ShownLink};
use super::{Links, MAX_ROUNDS};
use crate::domain::connection::{Condition, ConditionStatus, ConnectionName, ProviderId, Revision, TenantId};
use crate::domain::event::EventType;
use crate::domain::link::{HistoryEntry, Link, LinkId, LinkName, LinkRecord, LinkState};
use crate::domain::repository::Repository;
use crate::domain::timestamp::Timestamp;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::domain::webhook_target::TargetPolicy;
use crate::provider::{Lookup, ProviderError};
use crate::service::audit::{Subject, event, link_summary};
use crate::service::draft::Violations;
use crate::service::error::Error;
use crate::service::once::{Done, Repeat};
use crate::service::reach::Reach;
use crate::service::work::{LOOK_EVERY, spread};
use crate::service::{Context, Core, checked, store_down};
use crate::store::{Change, StoreError};

/// Most links of one batch.
const MAX_BATCH: usize = 100;
/// How often access is proven again because the connection changed in between.
const MAX_PROOFS: usize = 3;

/// What CreateRepositoryLink asks for.
#[derive(Debug)]
pub struct Create {
    /// Whose link it will be.
    pub tenant: Option<TenantId>,
    /// The id that the caller chose; empty to have one made.
    pub link_id: String,
    /// The link.
    pub draft: LinkDraft,
    /// Which repository.
    pub selector: Option<Selector>,
    /// What was found wrong while the message was read.
    pub violations: Vec<FieldViolation>,
    /// Check everything, store nothing.
    pub validate_only: bool,
}

/// What BatchCreateRepositoryLinks asks for.
#[derive(Debug)]
pub struct CreateBatch {
    /// Whose links they will be.
    pub tenant: Option<TenantId>,
    /// The links.
    pub requests: Vec<Create>,
    /// What was found wrong with the batch while the message was read.
    pub violations: Vec<FieldViolation>,
}

/// How the repository of a new link is found.
#[derive(Debug)]
pub enum Selector {
    /// By its name, of this connection and with this id.
    Name(ConnectionName, String),
    /// By full name or clone URL.
    Lookup(Lookup),
}

impl Selector {
    /// Where it stands in the request.
    const fn field(&self) -> &'static str {
        match self {
            Self::Name(..) => "repository",
            Self::Lookup(Lookup::FullName(_)) => "full_name",
            Self::Lookup(Lookup::CloneUrl(_)) => "clone_url",
        }
    }
}

/// A link whose fields are right, before its repository was seen.
#[derive(Debug)]
struct Entry {
    name: LinkName,
    connection: ConnectionName,
    selector: Selector,
    webhook: WebhookChoice,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// What a request that comes again is recognised by, and how its answer is encoded.
type Again<'a> = Repeat<'a, [ShownLink]>;

impl Links {
    /// Links a repository after the provider showed it to the connection. On failure nothing is stored.
    ///
    /// Dropped before the commit it leaves nothing; dropped in the commit it leaves all or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyLinked`], [`Error::IdTaken`], [`Error::RepositoryNotFound`]; see [`Error`].
    pub async fn create(
        &self,
        context: &Context,
        request: Create,
        repeat: Option<Again<'_>>,
    ) -> Result<Done<ShownLink>, Error> {
        let validate_only = request.validate_only;
        let mut violations = Violations::default();
        let entry = check(request, &self.0.targets, &mut violations);
        violations.finish()?;
        let entry = checked(entry)?;
        let tenant = entry.name.tenant.clone();
        let created = self.create_once(context, &tenant, &[entry], validate_only, repeat.as_ref()).await;
        match created.map_err(Error::without_entry)? {
            Done::Now(mut links) => Ok(Done::Now(checked(links.pop())?)),
            Done::Before(answer) => Ok(Done::Before(answer)),
        }
    }

    /// Links several repositories, all or none, and answers them in the order of the requests.
    ///
    /// # Errors
    ///
    /// As [`Self::create`]; violations name the entry.
    pub async fn create_batch(
        &self,
        context: &Context,
        batch: CreateBatch,
        repeat: Option<Again<'_>>,
    ) -> Result<Done<Vec<ShownLink>>, Error> {
        let mut violations = Violations::starting_with(batch.violations);
        if !(1..=MAX_BATCH).contains(&batch.requests.len()) {
            let (reason, told) = if batch.requests.is_empty() {
                (FieldReason::Required, "a batch has at least one request")
            } else {
                (FieldReason::TooMany, "a batch has at most 100 requests")
            };
            violations.push(FieldViolation::new("requests", reason, told));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(batch.requests.len());
        let mut ids = BTreeMap::new();
        for (index, request) in batch.requests.into_iter().take(MAX_BATCH).enumerate() {
            let mut found = Violations::default();
            let entry = check(request, &self.0.targets, &mut found);
            if let Some(entry) = entry {
                if let Some(first) = ids.insert(entry.name.id.clone(), index) {
                    let told = format!("requests[{first}] has the same id");
                    found.push(FieldViolation::new("repository_link_id", FieldReason::Conflicting, told));
                }
                entries.push(entry);
            }
            violations.extend_at(&format!("requests[{index}]."), found.into_found());
        }
        violations.finish()?;
        let tenant = checked(batch.tenant)?;
        self.create_once(context, &tenant, &entries, false, repeat.as_ref()).await
    }

    async fn create_once(
        &self,
        context: &Context,
        tenant: &TenantId,
        entries: &[Entry],
        validate_only: bool,
        repeat: Option<&Again<'_>>,
    ) -> Result<Done<Vec<ShownLink>>, Error> {
        if let Some(answer) = self.0.answered_before(tenant, repeat).await? {
            return Ok(Done::Before(answer));
        }
        let outcome = self.create_all(context, tenant, entries, validate_only, repeat).await;
        self.0.done_or_before(tenant, repeat, outcome).await
    }

    async fn create_all(
        &self,
        context: &Context,
        tenant: &TenantId,
        entries: &[Entry],
        validate_only: bool,
        repeat: Option<&Again<'_>>,
    ) -> Result<Vec<ShownLink>, Error> {
        let core = &*self.0;
        refuse_taken_ids(core, entries).await?;
        for _ in 0..MAX_PROOFS {
            let reaches = reaches(core, entries, context).await?;
            let repositories = prove(core, entries, &reaches).await?;
            refuse_doubles(entries, &reaches, &repositories)?;
            for _ in 0..MAX_ROUNDS {
                let now = core.clock.now();
                let mut changes = Vec::new();
                let mut shown = Vec::with_capacity(entries.len());
                for (entry, repository) in entries.iter().zip(&repositories) {
                    let reach = reach_of(&reaches, entry)?;
                    let link = new_link(context, entry, reach, repository.clone(), now);
                    let shared = core.share_webhooks(None, Some(&link), now).await?;
                    shown.push(core.show_changed_link(&link, &shared.changes).await?);
                    changes.extend(linked(context, link, now));
                    changes.extend(shared.changes);
                }
                if validate_only {
                    return Ok(shown);
                }
                changes.extend(reaches.values().map(required));
                if let Some(remember) = core.remember(tenant, repeat, shown.as_slice(), now) {
                    changes.insert(0, remember);
                }
                match core.store.commit(changes).await {
                    Ok(()) => {
                        core.work.wake();
                        return Ok(shown);
                    }
                    Err(StoreError::Stale) if still_hold(core, &reaches).await? => {}
                    // What was proven was proven with another credential: once more, from the start.
                    Err(StoreError::Stale | StoreError::NotFound) => break,
                    Err(error) => return Err(commit_failed(core, error, entries).await),
                }
            }
        }
        let name = entries.first().map(|entry| entry.connection.to_string()).unwrap_or_default();
        Err(Error::Stale { name })
    }
}

/// Everything that can be said of a new link without asking anybody. `None` only if there is at least one violation.
fn check(request: Create, targets: &TargetPolicy, violations: &mut Violations) -> Option<Entry> {
    for violation in request.violations {
        violations.push(violation);
    }
    let id = match request.link_id.as_str() {
        "" => LinkId::parse(&Uuid::now_v7().to_string()),
        chosen => LinkId::parse_chosen(chosen),
    };
    let id = violations.take("repository_link_id", id);
    let LinkDraft { connection, webhook, labels, annotations } = request.draft;
    let webhook = draft::webhook(webhook, targets, violations);
    draft::check_maps(&labels, &annotations, violations);
    let (tenant, connection) = (request.tenant?, connection?);
    if connection.tenant != tenant {
        let told = "the connection is of another tenant than the link";
        let field = "repository_link.connection";
        violations.push(FieldViolation::new(field, FieldReason::Conflicting, told));
        return None;
    }
    let selector = request.selector?;
    if let Selector::Name(of, _) = &selector
        && *of != connection
    {
        let told = "the repository is named under another connection than the link's";
        violations.push(FieldViolation::new("repository", FieldReason::Conflicting, told));
        return None;
    }
    let name = LinkName { tenant, id: id? };
    Some(Entry { name, connection, selector, webhook: webhook?, labels, annotations })
}

type Reaches<'a> = BTreeMap<ConnectionName, Reach<'a>>;

/// The connections of the entries, each once.
async fn reaches<'a>(core: &'a Core, entries: &[Entry], context: &Context) -> Result<Reaches<'a>, Error> {
    let mut reaches = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        if !reaches.contains_key(&entry.connection) {
            let reach = core.reach(&entry.connection, context.deadline).await;
            let reach = reach.map_err(|error| error.in_entry(index))?;
            reaches.insert(entry.connection.clone(), reach);
        }
    }
    Ok(reaches)
}

fn reach_of<'r, 'a>(reaches: &'r Reaches<'a>, entry: &Entry) -> Result<&'r Reach<'a>, Error> {
    checked(reaches.get(&entry.connection))
}

/// Has the providers show the repositories, side by side, in the order of the entries.
async fn prove(core: &Core, entries: &[Entry], reaches: &Reaches<'_>) -> Result<Vec<Repository>, Error> {
    let side_by_side = reaches.values().map(|reach| reach.provider.about().concurrency).min().unwrap_or(1);
    let proofs: Vec<_> = entries.iter().enumerate().map(|entry| prove_one(core, entry, reaches)).collect();
    stream::iter(proofs).buffered(side_by_side).try_collect().await
}

async fn prove_one(
    core: &Core,
    (index, entry): (usize, &Entry),
    reaches: &Reaches<'_>,
) -> Result<Repository, Error> {
    let reach = reach_of(reaches, entry)?;
    find(core, entry, reach).await.map_err(|error| error.in_entry(index))
}

async fn find(core: &Core, entry: &Entry, reach: &Reach<'_>) -> Result<Repository, Error> {
    let (found, what): (Result<_, ProviderError>, &str) = match &entry.selector {
        Selector::Name(_, id) => {
            refuse_linked(core, reach, id).await?;
            (reach.provider.repository(&reach.api, id).await, id)
        }
        Selector::Lookup(lookup) => {
            let what = match lookup {
                Lookup::FullName(text) => text,
                // Not echoed: a pasted clone URL may hold a password.
                Lookup::CloneUrl(_) => "of that clone URL",
            };
            (reach.provider.lookup(&reach.api, lookup).await, what)
        }
    };
    let repository = found.map_err(|error| reach.failed_about(error, what))?;
    refuse_linked(core, reach, &repository.provider_id).await?;
    Ok(repository)
}

/// Refuses a repository that the tenant has linked.
async fn refuse_linked(core: &Core, reach: &Reach<'_>, id: &str) -> Result<(), Error> {
    let connection = &reach.record.connection;
    let tenant = &connection.name.tenant;
    let owner = core.store.link_of(tenant, &connection.provider, &connection.effective_api_url, id).await;
    match owner.map_err(store_down)? {
        Some(id) => Err(Error::AlreadyLinked { owner: LinkName { tenant: tenant.clone(), id } }),
        None => Ok(()),
    }
}

/// Refuses a batch that links a repository twice.
fn refuse_doubles(entries: &[Entry], reaches: &Reaches<'_>, found: &[Repository]) -> Result<(), Error> {
    let mut violations = Violations::default();
    let mut seen: BTreeMap<(ProviderId, String, &str), usize> = BTreeMap::new();
    for (index, (entry, repository)) in entries.iter().zip(found).enumerate() {
        let connection = &reach_of(reaches, entry)?.record.connection;
        let instance = connection.effective_api_url.clone();
        let key = (connection.provider.clone(), instance, repository.provider_id.as_str());
        if let Some(first) = seen.insert(key, index) {
            let field = format!("requests[{index}].{}", entry.selector.field());
            let told = format!("requests[{first}] names the same repository");
            violations.push(FieldViolation::new(field, FieldReason::Conflicting, told));
        }
    }
    violations.finish()
}

fn new_link(
    context: &Context,
    entry: &Entry,
    reach: &Reach<'_>,
    repository: Repository,
    now: Timestamp,
) -> Link {
    let connection = &reach.record.connection;
    let WebhookChoice { mode, events, target_url } = entry.webhook.clone();
    Link {
        name: entry.name.clone(),
        uid: Uuid::now_v7().to_string(),
        connection: connection.name.id.clone(),
        provider: connection.provider.clone(),
        instance: connection.effective_api_url.clone(),
        repository,
        webhook_mode: mode,
        webhook_events: events,
        webhook_target_url: target_url,
        state: LinkState::Linked,
        conditions: vec![accessible(now)],
        connection_history: vec![HistoryEntry {
            connection: connection.name.id.clone(),
            actor: context.actor.clone(),
            time: now,
        }],
        previous_full_names: Vec::new(),
        labels: entry.labels.clone(),
        annotations: entry.annotations.clone(),
        create_time: now,
        update_time: now,
        generation: 1,
    }
}

/// The condition of a repository that was seen.
pub(super) fn accessible(since: Timestamp) -> Condition {
    Condition {
        condition_type: ACCESSIBLE.to_owned(),
        status: ConditionStatus::True,
        reason: LinkState::Linked.as_str().to_owned(),
        message: String::new(),
        last_transition_time: since,
    }
}

/// The changes that make the link and tell of it.
fn linked(context: &Context, link: Link, now: Timestamp) -> [Change; 2] {
    let (subject, summary) = (Subject::link(&link), link_summary(&link));
    let event = event(context, EventType::RepositoryLinked, subject, BTreeMap::new(), summary, now);
    let due = Some(now.saturating_add(spread(LOOK_EVERY)));
    let record = LinkRecord { link, due, attempts: 0, revision: Revision(1) };
    [Change::InsertLink(Box::new(record)), Change::Append(event)]
}

/// Access holds for the credential that it was proven with.
fn required(reach: &Reach<'_>) -> Change {
    let connection = &reach.record.connection;
    Change::Require {
        connection: connection.name.clone(),
        uid: connection.uid.clone(),
        credential_version: connection.credential.version,
    }
}

/// Whether all connections are still what access was proven with.
async fn still_hold(core: &Core, reaches: &Reaches<'_>) -> Result<bool, Error> {
    for reach in reaches.values() {
        let was = &reach.record.connection;
        let is: Arc<_> = core.record(&was.name).await?;
        let is = &is.connection;
        if is.uid != was.uid || is.credential.version != was.credential.version || is.disabled {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A commit that failed for good. Of a taken id the store does not say which one it is.
async fn commit_failed(core: &Core, error: StoreError, entries: &[Entry]) -> Error {
    if matches!(error, StoreError::IdTaken)
        && let Err(error) = refuse_taken_ids(core, entries).await
    {
        return error;
    }
    match entries {
        [first, ..] => Error::from_link_store(error, &first.name),
        [] => store_down(error),
    }
}

async fn refuse_taken_ids(core: &Core, entries: &[Entry]) -> Result<(), Error> {
    for (index, entry) in entries.iter().enumerate() {
        if core.store.link_id_taken(&entry.name).await.map_err(store_down)? {
            return Err(Error::IdTaken { name: entry.name.to_string() }.in_entry(index));
        }
    }
    Ok(())
}
