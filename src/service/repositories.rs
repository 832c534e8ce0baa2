//! Repositories, namespaces and refs of a connection, as its provider shows them now.

mod across;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::error::Error;
use super::page_token::{self, Binding as TokenBinding};
use super::reach::{Reach, stored};
use super::{Context, Core, store_down};
use crate::domain::connection::{ConnectionName, ConnectionRecord, Scope, TenantId};
use crate::domain::link::LinkName;
use crate::domain::page::{Cursor, Page, Warning};
use crate::domain::refs::{Ref, RefKind};
use crate::domain::repository::{Namespace, Permission, Repository};
use crate::provider::api::Api;
use crate::provider::session::Pages;
use crate::provider::{List, Lookup, ProviderError, RefList, Walk};

/// Rows of one page where the caller names no number.
const DEFAULT_PAGE_SIZE: usize = 50;
/// Most rows of one page; larger wishes are cut to it.
const MAX_PAGE_SIZE: usize = 100;
/// Most provider pages that are looked through for one page of an answer. A filter that few rows pass ends in a
/// short page with a token instead of a call that never ends.
const MAX_CALLS_PER_PAGE: usize = 20;
/// How long one step of a stream may take, retries included.
const STREAM_STEP: Duration = Duration::from_secs(60);

/// Which repositories are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Case-insensitive substring of the full name; empty for all.
    pub query: String,
    /// Exactly this namespace; empty for all.
    pub namespace: String,
    /// Archived ones too.
    pub include_archived: bool,
    /// At least this permission; `Unknown` for all.
    pub min_permission: Permission,
}

/// Which page of a listing.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Rows of the page; 0 for the default.
    pub size: usize,
    /// Where the last page ended; empty for the first.
    pub token: String,
    /// What the token is bound to.
    pub binding: TokenBinding,
}

/// Whose repositories are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// Those of one connection.
    Connection(ConnectionName),
    /// Those of all connections of a tenant, one connection after the other in the order of their ids.
    Tenant(TenantId),
}

/// One page of a listing of repositories.
#[derive(Debug)]
pub struct RepositoriesPage {
    /// The rows, by their connections.
    pub sections: Vec<Section>,
    /// Leads to the next page; empty after the last.
    pub next_page_token: String,
}

/// A repository, and whether the tenant has linked it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The repository.
    pub repository: Repository,
    /// The tenant's link to it.
    pub link: Option<LinkName>,
}

/// What one connection brought to a listing.
#[derive(Debug)]
pub struct Section {
    /// Which connection.
    pub connection: ConnectionName,
    /// Its rows.
    pub repositories: Vec<Found>,
    /// What a reader should know about rows that are missing.
    pub warnings: Vec<Warning>,
    /// Why the rest of its rows is missing. Only among several connections: alone, its failure is the call's.
    pub failure: Option<Error>,
}

/// One page of a listing.
#[derive(Debug)]
pub struct Listing<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Leads to the next page; empty after the last.
    pub next_page_token: String,
    /// What a reader should know about rows that are missing.
    pub warnings: Vec<Warning>,
}

/// What arrives of a stream at a time: one page of a provider, or the end of a connection that failed.
#[derive(Debug)]
pub struct Batch {
    /// The wanted rows of the page.
    pub section: Section,
    /// How many rows were looked at so far.
    pub seen: u64,
    /// How many there are in all, if the provider told; never among several connections.
    pub total: Option<u64>,
}

/// The operations on repositories.
#[derive(Debug, Clone)]
pub struct Repositories(Arc<Core>);

impl Repositories {
    /// The operations on the repositories behind the connections of `core`.
    #[must_use]
    pub const fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// One page of the repositories of a connection, or of all connections of a tenant. May be short, even empty,
    /// with a token: then a filter passed few rows of what was looked at, or a provider took its time.
    ///
    /// # Errors
    ///
    /// [`Error::PageTokenInvalid`]; of one connection [`Error::ConnectionNotFound`], [`Error::Disabled`],
    /// [`Error::Provider`], which among several are told in their sections.
    pub async fn list(
        &self,
        context: &Context,
        parent: Parent,
        wanted: Wanted,
        page: PageRequest,
    ) -> Result<RepositoriesPage, Error> {
        let connection = match parent {
            Parent::Connection(name) => name,
            Parent::Tenant(tenant) => return self.list_across(context, tenant, wanted, page).await,
        };
        let reach = self.0.reach(&connection, context.deadline).await?;
        let (at, extent) = (self.start(&page)?, Extent::new(&page, context.deadline));
        let Walked { rows, warnings, next } = section(&reach, wanted, at, extent).await?;
        let repositories = with_links(&self.0, &reach.record, rows).await?;
        let section = Section { connection, repositories, warnings, failure: None };
        let next_page_token = self.token(&page, next.map(|next| next.encode()));
        Ok(RepositoriesPage { sections: vec![section], next_page_token })
    }

    /// One page of the places that hold repositories.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    pub async fn namespaces(
        &self,
        context: &Context,
        name: &ConnectionName,
        query: String,
        page: PageRequest,
    ) -> Result<Listing<Namespace>, Error> {
        let reach = self.0.reach(name, context.deadline).await?;
        let wanted = Wanted { query, ..Wanted::everything() };
        let list = wanted.into_list(&reach.record.connection.scope, Walk::Chain);
        self.walk(
            page,
            context.deadline,
            &reach,
            |row| list.keeps_namespace(row),
            |at, page_size| {
                let (reach, list) = (&reach, List { page_size, ..list.clone() });
                async move {
                    let page = reach.provider.namespaces(&reach.api, &list, at.as_ref()).await;
                    page.map_err(|error| reach.failed(error))
                }
            },
        )
        .await
    }

    /// One page of the branches or tags of the repository of that stable id; short or empty as [`Self::list`] says.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and [`Error::PageTokenInvalid`].
    pub async fn refs(
        &self,
        context: &Context,
        name: &ConnectionName,
        id: &str,
        kind: RefKind,
        query: String,
        page: PageRequest,
    ) -> Result<Listing<Ref>, Error> {
        let reach = self.0.reach(name, context.deadline).await?;
        let list = RefList { kind, query, page_size: MAX_PAGE_SIZE };
        self.walk(
            page,
            context.deadline,
            &reach,
            |row| list.keeps(row),
            |at, page_size| {
                let (reach, list) = (&reach, RefList { page_size, ..list.clone() });
                async move {
                    let page = reach.provider.refs(&reach.api, id, &list, at.as_ref()).await;
                    page.map_err(|error| reach.failed_about(error, id))
                }
            },
        )
        .await
    }

    /// The same of the repository of a link, through its connection.
    ///
    /// # Errors
    ///
    /// As [`Self::refs`], and [`Error::LinkNotFound`].
    pub async fn linked_refs(
        &self,
        context: &Context,
        name: &LinkName,
        kind: RefKind,
        query: String,
        page: PageRequest,
    ) -> Result<Listing<Ref>, Error> {
        let record = self.0.live_link(name).await?;
        let (connection, id) = (record.link.connection_name(), &record.link.repository.provider_id);
        self.refs(context, &connection, id, kind, query, page).await
    }

    /// One page of an answer out of one connection.
    async fn walk<T, Fut>(
        &self,
        page: PageRequest,
        deadline: Instant,
        reach: &Reach<'_>,
        keeps: impl FnMut(&T) -> bool,
        fetch: impl Fn(Option<Cursor>, usize) -> Fut,
    ) -> Result<Listing<T>, Error>
    where
        Fut: Future<Output = Result<Page<T>, Error>>,
    {
        let (at, extent) = (self.start(&page)?, Extent::new(&page, deadline));
        let Walked { rows, warnings, next } = walk(reach, at, extent, keeps, fetch).await?;
        let next_page_token = self.token(&page, next.map(|next| next.encode()));
        Ok(Listing { rows, next_page_token, warnings })
    }

    /// Where a page of one connection begins.
    fn start(&self, page: &PageRequest) -> Result<Position, Error> {
        match self.opened(page)? {
            None => Ok(Position::first(page_size(page.size))),
            Some(bytes) => Position::decode(&bytes).ok_or(Error::PageTokenInvalid),
        }
    }

    /// What the token of a page holds; `None` for the first one.
    fn opened(&self, page: &PageRequest) -> Result<Option<Vec<u8>>, Error> {
        if page.token.is_empty() {
            return Ok(None);
        }
        page_token::open(&self.0.secret, &page.binding, &page.token, self.0.clock.now()).map(Some)
    }

    /// The token that leads on to `next`; empty after the last page.
    fn token(&self, page: &PageRequest, next: Option<Vec<u8>>) -> String {
        next.map_or_else(String::new, |next| {
            page_token::issue(&self.0.secret, &page.binding, &next, self.0.clock.now())
        })
    }

    /// All wanted repositories, in the provider's order, a batch for each of its pages. Fetched side by side where
    /// the provider allows it, never further ahead of the reader than a few pages; a reader that stops
    /// reading stops the fetching, and dropping the stream cancels it. The first error is the last item; among
    /// several connections a failure is told in its section instead, and the next connection follows.
    ///
    /// # Errors
    ///
    /// Before the first batch: as [`Self::list`].
    pub async fn stream(
        &self,
        context: &Context,
        parent: Parent,
        wanted: Wanted,
    ) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        match parent {
            Parent::Connection(name) => self.stream_one(context.deadline, name, wanted).await,
            Parent::Tenant(tenant) => Ok(self.stream_across(context.deadline, tenant, wanted)),
        }
    }

    async fn stream_one(
        &self,
        until: Instant,
        connection: ConnectionName,
        wanted: Wanted,
    ) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        let Reach { record, provider, api } = self.0.reach(&connection, until).await?;
        let about = provider.about();
        let list = Arc::new(wanted.into_list(&record.connection.scope, Walk::Fan));
        let (core, id, walked) = (self.0.clone(), about.id, list.clone());
        let pages = Pages::new(
            about.concurrency,
            |row: &Repository| row.provider_id.as_str(),
            move |at| {
                let step = api.until(until.min(Instant::now() + STREAM_STEP));
                let (core, list) = (core.clone(), walked.clone());
                beside(async move { page_of(&core, id, &step, &list, at.as_ref()).await })
            },
        );
        let (mut seen, mut total, mut warned) = (0_u64, None, false);
        let core = self.0.clone();
        let batches = pages.then(move |page| {
            let batch = page.map(|page| {
                seen += page.items.len() as u64;
                total = total.or(page.total);
                let mut warnings = page.warnings;
                if !warned {
                    let hidden =
                        page.items.iter().filter(|row| hidden_for_unknown_permission(&list, row)).count();
                    warned = hidden > 0;
                    warnings.extend(permission_warning(hidden));
                }
                let rows: Vec<_> = page.items.into_iter().filter(|row| list.keeps(row)).collect();
                (rows, warnings, seen, total)
            });
            let (core, record, connection) = (core.clone(), record.clone(), connection.clone());
            async move {
                let (rows, warnings, seen, total) = batch.map_err(|error| stored(error, about, &record))?;
                let repositories = with_links(&core, &record, rows).await?;
                Ok(Batch {
                    section: Section { connection, repositories, warnings, failure: None },
                    seen,
                    total,
                })
            }
        });
        Ok(batches.boxed())
    }

    /// The repository of that stable id.
    ///
    /// # Errors
    ///
    /// [`Error::RepositoryNotFound`], and as [`Self::list`].
    pub async fn read(&self, context: &Context, name: &ConnectionName, id: &str) -> Result<Found, Error> {
        let reach = self.0.reach(name, context.deadline).await?;
        let found = reach.provider.repository(&reach.api, id).await;
        with_link(&self.0, &reach.record, found.map_err(|error| reach.failed_about(error, id))?).await
    }

    /// The repository of that full name or clone URL.
    ///
    /// # Errors
    ///
    /// [`Error::RepositoryNotFound`], and as [`Self::list`].
    pub async fn lookup(
        &self,
        context: &Context,
        name: &ConnectionName,
        what: &Lookup,
    ) -> Result<Found, Error> {
        let reach = self.0.reach(name, context.deadline).await?;
        let text = match what {
            Lookup::FullName(text) => text,
            // Not echoed: a pasted clone URL may hold a password.
            Lookup::CloneUrl(_) => "of that clone URL",
        };
        let found = reach.provider.lookup(&reach.api, what).await;
        with_link(&self.0, &reach.record, found.map_err(|error| reach.failed_about(error, text))?).await
    }
}

impl Wanted {
    /// No filter at all.
    #[must_use]
    pub const fn everything() -> Self {
        Self {
            query: String::new(),
            namespace: String::new(),
            include_archived: true,
            min_permission: Permission::Unknown,
        }
    }

    fn into_list(self, scope: &Scope, walk: Walk) -> List {
        let Self { query, namespace, include_archived, min_permission } = self;
        List {
            query,
            namespace,
            include_archived,
            min_permission,
            scope: scope.clone(),
            page_size: MAX_PAGE_SIZE,
            walk,
        }
    }
}

/// The repository as it is told: the store knows whether it is linked.
async fn with_link(core: &Core, record: &ConnectionRecord, repository: Repository) -> Result<Found, Error> {
    let connection = &record.connection;
    let tenant = &connection.name.tenant;
    let (instance, id) = (&connection.effective_api_url, &repository.provider_id);
    let link = core.store.link_of(tenant, &connection.provider, instance, id).await.map_err(store_down)?;
    let link = link.map(|id| LinkName { tenant: tenant.clone(), id });
    Ok(Found { repository, link })
}

async fn with_links(
    core: &Core,
    record: &ConnectionRecord,
    rows: Vec<Repository>,
) -> Result<Vec<Found>, Error> {
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        found.push(with_link(core, record, row).await?);
    }
    Ok(found)
}

/// What was found for one page of an answer.
struct Walked<T> {
    rows: Vec<T>,
    warnings: Vec<Warning>,
    /// Where the rest is.
    next: Option<Position>,
}

/// How much of one page of an answer is still to be found.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Rows that are missing.
    room: usize,
    /// Rows that a page of the provider should have.
    page_size: usize,
    /// The moment after which the page is handed out as it is, with a token.
    half_time: Instant,
}

impl Extent {
    fn new(page: &PageRequest, deadline: Instant) -> Self {
        let size = page_size(page.size);
        Self { room: size, page_size: size, half_time: half_time(deadline) }
    }

    /// The same for a part of the page that has to be there by `deadline`.
    fn within(self, deadline: Instant) -> Self {
        Self { half_time: self.half_time.min(half_time(deadline)), ..self }
    }
}

fn half_time(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// The wanted repositories of one connection, from `at` on.
async fn section(
    reach: &Reach<'_>,
    wanted: Wanted,
    at: Position,
    extent: Extent,
) -> Result<Walked<Repository>, Error> {
    let list = wanted.into_list(&reach.record.connection.scope, Walk::Chain);
    let mut unknown_permission = 0_usize;
    let mut walked = walk(
        reach,
        at,
        extent,
        |row| {
            unknown_permission += usize::from(hidden_for_unknown_permission(&list, row));
            list.keeps(row)
        },
        |at, page_size| {
            let list = List { page_size, ..list.clone() };
            async move {
                let page = reach.provider.repositories(&reach.api, &list, at.as_ref()).await;
                page.map_err(|error| reach.failed(error))
            }
        },
    )
    .await?;
    walked.warnings.extend(permission_warning(unknown_permission));
    Ok(walked)
}

/// Collects the rows of `extent` from as many pages of the provider as it takes, up to a bound. `fetch` gets the
/// cursor and how many rows the provider's page should have.
async fn walk<T, Fut>(
    reach: &Reach<'_>,
    mut at: Position,
    extent: Extent,
    mut keeps: impl FnMut(&T) -> bool,
    fetch: impl Fn(Option<Cursor>, usize) -> Fut,
) -> Result<Walked<T>, Error>
where
    Fut: Future<Output = Result<Page<T>, Error>>,
{
    let mut walked = Walked { rows: Vec::new(), warnings: Vec::new(), next: None };
    for call in 1.. {
        let found = fetch(at.cursor.clone(), at.size).await?;
        for warning in found.warnings {
            // A provider may say the same on each of its pages.
            if !walked.warnings.contains(&warning) {
                walked.warnings.push(warning);
            }
        }
        let rows = found.items.len();
        let mut cut = None;
        for (index, row) in found.items.into_iter().enumerate().skip(at.skip) {
            if keeps(&row) {
                walked.rows.push(row);
            }
            if walked.rows.len() == extent.room && index + 1 < rows {
                cut = Some(index + 1);
                break;
            }
        }
        let next = match (cut, found.next.into_iter().next()) {
            (Some(skip), _) => Position { skip, ..at },
            (None, Some(cursor)) if at.cursor.as_ref() == Some(&cursor) => {
                let told = "its paging led back to a page that was read already";
                return Err(reach.failed(ProviderError::garbled(told)));
            }
            (None, Some(cursor)) => Position { cursor: Some(cursor), skip: 0, size: extent.page_size },
            (None, None) => return Ok(walked),
        };
        if walked.rows.len() >= extent.room
            || call >= MAX_CALLS_PER_PAGE
            || Instant::now() >= extent.half_time
        {
            walked.next = Some(next);
            return Ok(walked);
        }
        at = next;
    }
    Ok(walked)
}

/// Runs a call on a task of its own, which begins at once: the request is on its way before the answers that lie ready
/// are read, and the pages of one listing are read on all processors. The task ends with the future that waits for it.
fn beside<T: Send + 'static>(
    call: impl Future<Output = Result<T, ProviderError>> + Send + 'static,
) -> impl Future<Output = Result<T, ProviderError>> + Send {
    let mut task = JoinSet::new();
    task.spawn(call.in_current_span());
    async move {
        match task.join_next().await {
            Some(Ok(outcome)) => outcome,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only the end of the process takes a task from its owner.
            Some(Err(_)) | None => Err(ProviderError::garbled("the call was broken off")),
        }
    }
}

/// Looks the driver up again: a stream outlives the borrow of the one it was made with.
async fn page_of(
    core: &Core,
    provider: &str,
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Repository>, ProviderError> {
    match core.gateway.providers().find(provider) {
        Some(provider) => provider.repositories(api, list, at).await,
        None => Err(ProviderError::Unsupported),
    }
}

/// Where a listing goes on: a page of the provider, and how many of its rows were used. The page is asked for in the
/// size that it had then, for only so its rows stand where they stood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    cursor: Option<Cursor>,
    skip: usize,
    size: usize,
}

impl Position {
    const fn first(size: usize) -> Self {
        Self { cursor: None, skip: 0, size }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = (self.skip as u32).to_be_bytes().to_vec();
        // At most MAX_PAGE_SIZE.
        bytes.push(u8::try_from(self.size).unwrap_or(u8::MAX));
        if let Some(Cursor(cursor)) = &self.cursor {
            bytes.push(1);
            bytes.extend_from_slice(cursor.as_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (skip, rest) = bytes.split_at_checked(4)?;
        let skip = usize::try_from(u32::from_be_bytes(skip.try_into().ok()?)).ok()?;
        let (&size, rest) = rest.split_first()?;
        let size = page_size(usize::from(size));
        let cursor = match rest.split_first() {
            None => None,
            Some((1, text)) => Some(Cursor(String::from_utf8(text.to_vec()).ok()?)),
            Some(_) => return None,
        };
        Some(Self { cursor, skip, size })
    }
}

const fn page_size(wish: usize) -> usize {
    match wish {
        0 => DEFAULT_PAGE_SIZE,
        1..MAX_PAGE_SIZE => wish,
        _ => MAX_PAGE_SIZE,
    }
}

fn hidden_for_unknown_permission(list: &List, row: &Repository) -> bool {
    list.min_permission != Permission::Unknown && row.permission == Permission::Unknown
}

fn permission_warning(hidden: usize) -> Option<Warning> {
    (hidden > 0).then(|| Warning {
        reason: "PERMISSION_UNKNOWN",
        message: "Repositories whose permission the provider does not tell were left out; list without \
                  min_permission to see them."
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_a_token() {
        for at in [
            Position { cursor: None, skip: 0, size: 50 },
            Position { cursor: None, skip: 7, size: 1 },
            Position { cursor: Some(Cursor(String::new())), skip: 0, size: 100 },
            Position { cursor: Some(Cursor("after:9".into())), skip: 99, size: 7 },
        ] {
            assert_eq!(Position::decode(&at.encode()), Some(at));
        }
        assert_eq!(Position::decode(&[0, 0, 0]), None);
        assert_eq!(Position::decode(&[0, 0, 0, 0]), None);
        assert_eq!(Position::decode(&[0, 0, 0, 0, 50, 2]), None);
    }

    #[test]
    fn a_page_size_is_cut_not_refused() {
        assert_eq!([0, 1, 99, 100, 1_000_000].map(page_size), [50, 1, 99, 100, 100]);
    }
}
