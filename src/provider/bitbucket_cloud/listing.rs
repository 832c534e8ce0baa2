//! Listing repositories and workspaces: each workspace by itself, by ids in a chain, or by counted pages side by side.

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::places::{
    MAX_PAGE_SIZE, Part, SIDE_BY_SIDE, Section, first_workspaces, has_user, named, place_of, section,
    sections, workspace,
};
use super::refusal::accepted;
use super::rows::{self, AccessRow, Envelope, REPOSITORY_FIELDS, RepositoryRow};
use crate::domain::page::{Cursor, Page, Warning};
use crate::domain::repository::{Namespace, Permission, Repository};
use crate::provider::api::{Answer, Api, Call};
use crate::provider::{List, ProviderError};

/// Workspaces that one page of a chain looks at, at most.
const SECTIONS_A_STEP: usize = 25;
/// Fewest rows that are asked for at a time: whether they are sorted shows by them, and few rows are so by chance.
const MIN_PAGE_SIZE: usize = 10;
/// Beyond this many rows a count is not believed.
const MAX_COUNTED: u64 = 1_000_000;

const STUCK: ProviderError = ProviderError::garbled("its pages do not advance");

/// Where a listing goes on.
#[derive(Debug, Serialize, Deserialize)]
enum At {
    /// A workspace from its start.
    Section { workspace: String },
    /// The rest of a workspace.
    Inside { workspace: String, place: Place },
    /// A page of a workspace whose rows were counted.
    Counted { workspace: String, order: Order, page: u64, total: u64 },
    /// The workspaces behind one.
    Behind { workspace: String },
    /// A page of workspaces, as the provider gave it.
    Workspaces { place: String },
}

/// A place in a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// Behind the row of that id.
    After(String),
    /// A page that the provider gave.
    Link(String),
}

/// How the rows of a workspace are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Order {
    /// By id, so that a page can be asked for by the last row that was read, and rows that come and go leave no gap.
    Id,
    /// The provider's own. That `uuid` can be sorted by is not documented, so a refusal is no end.
    Own,
}

/// One page of a parallel listing: the first brings a cursor for each workspace, the first of a workspace one for each
/// further page of it if its rows were counted.
pub(super) async fn fan(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Repository>, ProviderError> {
    match at.map(parse).transpose()? {
        None => {
            let mut sections = sections(api, &list.namespace).await?;
            if sections.len() == 1 {
                let (page, total) = begin(api, list, &sections.remove(0)).await?;
                return Ok(Page { total, ..page });
            }
            let next = sections.into_iter().map(|section| At::Section { workspace: section.workspace });
            Ok(Page { next: next.map(|at| cursor(&at)).collect::<Result<_, _>>()?, ..Page::last(Vec::new()) })
        }
        Some(At::Section { workspace }) => {
            begin(api, list, &begun(api, &workspace)?).await.map(|(page, _)| page)
        }
        Some(At::Inside { workspace, place }) => {
            let found = read(api, list, &begun(api, &workspace)?, Some(&place), MAX_PAGE_SIZE).await?;
            let next = found.more.map(|place| cursor(&At::Inside { workspace, place })).transpose()?;
            Ok(Page { next: next.into_iter().collect(), ..Page::last(found.rows) })
        }
        Some(At::Counted { workspace, order, page, total }) => {
            counted(api, list, &begun(api, &workspace)?, order, page, total).await
        }
        Some(_) => Err(foreign_cursor()),
    }
}

/// The first page of a workspace with the cursors of its others, and how many rows the workspace has if that was told.
async fn begin(
    api: &Api,
    list: &List,
    section: &Section,
) -> Result<(Page<Repository>, Option<u64>), ProviderError> {
    let found = match start(api, list, section, MAX_PAGE_SIZE).await? {
        Ok(found) => found,
        Err(warning) => return Ok((Page { warnings: vec![warning], ..Page::last(Vec::new()) }, None)),
    };
    let workspace = || section.workspace.clone();
    let next = match (found.more, found.size) {
        (None, _) => Vec::new(),
        (Some(_), Some(total)) if total <= MAX_COUNTED && found.rows.len() == MAX_PAGE_SIZE => {
            let (order, pages) = (found.order, 2..=total.div_ceil(MAX_PAGE_SIZE as u64));
            let at = |page| At::Counted { workspace: workspace(), order, page, total };
            pages.map(|page| cursor(&at(page))).collect::<Result<_, _>>()?
        }
        (Some(place), _) => vec![cursor(&At::Inside { workspace: workspace(), place })?],
    };
    Ok((Page { next, ..Page::last(found.rows) }, found.size))
}

/// A later page of a workspace whose rows were counted. If the count has changed since, or the page is there no more,
/// rows have moved to other pages: the page before is read again, and pages that were added at the end follow.
async fn counted(
    api: &Api,
    list: &List,
    section: &Section,
    order: Order,
    page: u64,
    expected: u64,
) -> Result<Page<Repository>, ProviderError> {
    if page < 2 || expected > MAX_COUNTED {
        return Err(foreign_cursor());
    }
    let (found, size) = numbered(api, list, section, order, page)
        .await?
        .map_or_else(|| (Vec::new(), None), |page| (page.values, page.size));
    let total = size.filter(|total| *total <= MAX_COUNTED).unwrap_or(expected);
    if total == expected && !found.is_empty() {
        return Ok(Page::last(repositories(api, list, section, found)));
    }
    let earlier = numbered(api, list, section, order, page - 1).await?;
    let mut rows = earlier.map(|page| page.values).unwrap_or_default();
    rows.extend(found);
    let mut seen = std::collections::HashSet::new();
    rows.retain(|row| seen.insert(row.uuid.0.clone()));
    let size = MAX_PAGE_SIZE as u64;
    let mut next = Vec::new();
    if page == expected.div_ceil(size) {
        for page in page + 1..=total.div_ceil(size) {
            let workspace = section.workspace.clone();
            next.push(cursor(&At::Counted { workspace, order, page, total })?);
        }
    }
    Ok(Page { next, overlaps: true, ..Page::last(repositories(api, list, section, rows)) })
}

/// A page by its number; `None` beyond the last one, where an empty page and a refusal are both plausible.
async fn numbered(
    api: &Api,
    list: &List,
    section: &Section,
    order: Order,
    page: u64,
) -> Result<Option<Envelope<RepositoryRow>>, ProviderError> {
    let call = call(api, list, section, order, MAX_PAGE_SIZE, None).query("page", page.to_string());
    match accepted(call.send().await?) {
        Ok(answer) => rows::page(&answer).map(Some),
        Err(ProviderError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One page of a chain: it stops where a workspace goes on, or where the page is full.
pub(super) async fn chain(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Repository>, ProviderError> {
    let size = list.page_size.clamp(MIN_PAGE_SIZE, MAX_PAGE_SIZE);
    let behind = match at.map(parse).transpose()? {
        None => String::new(),
        Some(At::Behind { workspace }) => workspace,
        Some(At::Inside { workspace, place }) => {
            let found = read(api, list, &begun(api, &workspace)?, Some(&place), size).await?;
            let at = match found.more {
                Some(place) => Some(At::Inside { workspace, place }),
                None if named(api).is_some_and(|sections| sections.len() == 1) => None,
                None => Some(At::Behind { workspace }),
            };
            let next = at.as_ref().map(cursor).transpose()?;
            return Ok(Page { next: next.into_iter().collect(), ..Page::last(found.rows) });
        }
        Some(_) => return Err(foreign_cursor()),
    };
    let mut sections = sections(api, &list.namespace).await?;
    sections.retain(|section| section.workspace > behind);
    let more = sections.len() > SECTIONS_A_STEP;
    sections.truncate(SECTIONS_A_STEP);
    let count = sections.len();
    let mut page = Page::last(Vec::new());
    let mut reads = stream::iter(sections.into_iter().enumerate())
        .map(|(place, section)| async move {
            let found = start(api, list, &section, size).await;
            (place, section.workspace, found)
        })
        .buffered(SIDE_BY_SIDE);
    while let Some((place, workspace, found)) = reads.next().await {
        let found = match found? {
            Ok(found) => found,
            Err(warning) => {
                page.warnings.push(warning);
                Found::default()
            }
        };
        page.items.extend(found.rows);
        let is_last = place + 1 == count;
        if let Some(place) = found.more {
            page.next = vec![cursor(&At::Inside { workspace, place })?];
            return Ok(page);
        }
        if (is_last && more) || (!is_last && page.items.len() >= size) {
            page.next = vec![cursor(&At::Behind { workspace })?];
            return Ok(page);
        }
    }
    Ok(page)
}

/// What one call brought of a workspace.
#[derive(Debug)]
struct Found {
    rows: Vec<Repository>,
    more: Option<Place>,
    /// How many rows there are in all, if it was told.
    size: Option<u64>,
    order: Order,
}

impl Default for Found {
    fn default() -> Self {
        Self { rows: Vec::new(), more: None, size: None, order: Order::Id }
    }
}

/// The section that a cursor goes on in.
fn begun(api: &Api, workspace: &str) -> Result<Section, ProviderError> {
    section(api, workspace).ok_or(foreign_cursor())
}

/// The first page of a workspace. One that cannot be read is a warning, not the end of a listing.
async fn start(
    api: &Api,
    list: &List,
    section: &Section,
    size: usize,
) -> Result<Result<Found, Warning>, ProviderError> {
    match read(api, list, section, None, size).await {
        Ok(found) => Ok(Ok(found)),
        Err(error) => left_out(api, &section.workspace, error).map(Err),
    }
}

/// The warning that one workspace is left out, if the error is about it alone.
fn left_out(api: &Api, workspace: &str, error: ProviderError) -> Result<Warning, ProviderError> {
    match error {
        ProviderError::NotFound if named(api).is_some() => Ok(Warning {
            reason: "WORKSPACE_NOT_FOUND",
            message: format!(
                "the connection is limited to \"{workspace}\", which is gone or hidden from the token"
            ),
        }),
        // 410: it was marked as spam.
        ProviderError::NotFound
        | ProviderError::Forbidden
        | ProviderError::Failed { status: Some(410), .. } => Ok(Warning {
            reason: "WORKSPACE_NOT_READABLE",
            message: format!("the workspace \"{workspace}\" is left out: the token may not read it"),
        }),
        error => Err(error),
    }
}

/// One page of a workspace, from its start or from a place in it.
async fn read(
    api: &Api,
    list: &List,
    section: &Section,
    place: Option<&Place>,
    size: usize,
) -> Result<Found, ProviderError> {
    // A token of a repository sees itself only where the question names it.
    if let Part::Repository(slug) = &section.part {
        let call = api.get(&["repositories", &section.workspace, slug]);
        let row: RepositoryRow = accepted(call.send().await?)?.json()?;
        return Ok(Found { rows: repositories(api, list, section, vec![row]), ..Found::default() });
    }
    let after = match place {
        None => None,
        Some(Place::After(id)) => Some(id.as_str()),
        Some(Place::Link(link)) => {
            let page = rows::page(&accepted(api.get_place(link)?.send().await?)?)?;
            return found(api, list, section, page, Order::Own);
        }
    };
    match accepted(call(api, list, section, Order::Id, size, after).send().await?) {
        Err(ProviderError::Failed { status: Some(400), .. }) if after.is_none() => {}
        answer => {
            let page: Envelope<RepositoryRow> = rows::page(&answer?)?;
            let ids = page.values.iter().map(|row| row.uuid.0.as_str());
            if after.into_iter().chain(ids).is_sorted_by(|a, b| a < b) {
                return found(api, list, section, page, Order::Id);
            }
            // Neither the order nor the bound can be ignored without losing rows.
            if after.is_some() {
                return Err(STUCK);
            }
        }
    }
    // Whatever order that was, the later pages will be of the provider's own, and so is the first.
    let page = rows::page(&accepted(call(api, list, section, Order::Own, size, None).send().await?)?)?;
    found(api, list, section, page, Order::Own)
}

fn found(
    api: &Api,
    list: &List,
    section: &Section,
    page: Envelope<RepositoryRow>,
    order: Order,
) -> Result<Found, ProviderError> {
    let last = page.values.last().map(|row| row.uuid.0.clone());
    let more = match (page.next(), order, last) {
        (None, _, _) => None,
        (Some(_), Order::Id, Some(last)) => Some(Place::After(last)),
        (Some(_), Order::Id, None) => return Err(STUCK),
        (Some(link), Order::Own, _) => Some(Place::Link(place_of(api, link)?)),
    };
    Ok(Found { more, size: page.size, order, rows: repositories(api, list, section, page.values) })
}

/// A call for repositories of a workspace, with everything that the listing is narrowed by.
///
/// The query is not handed on: `name`, which could be searched, is the name that people chose, and the full name need
/// not hold what it holds.
fn call<'a>(
    api: &'a Api,
    list: &List,
    section: &Section,
    order: Order,
    size: usize,
    after: Option<&str>,
) -> Call<'a> {
    let mut call = api
        .get(&["repositories", &section.workspace])
        .query("pagelen", size.to_string())
        .query("fields", REPOSITORY_FIELDS);
    if order == Order::Id {
        call = call.query("sort", "uuid");
    }
    if let Some(role) = role(api, list) {
        call = call.query("role", role);
    }
    let project = match &section.part {
        Part::Project(key) => Some(format!("project.key=\"{key}\"")),
        Part::Whole | Part::Repository(_) => None,
    };
    let after = after.map(|id| format!("uuid > \"{id}\""));
    match (project, after) {
        (None, None) => call,
        (Some(one), None) | (None, Some(one)) => call.query("q", one),
        (Some(project), Some(after)) => call.query("q", format!("{project} AND {after}")),
    }
}

/// The role that gives the wanted permission. Each includes the higher ones; a token without a user has none.
fn role(api: &Api, list: &List) -> Option<&'static str> {
    if !has_user(api) {
        return None;
    }
    match list.min_permission {
        Permission::Unknown => None,
        Permission::Read => Some("member"),
        Permission::Write => Some("contributor"),
        Permission::Admin => Some("admin"),
    }
}

/// The rows of a section as repositories. They tell no permission; what is known is the role that they were asked by.
fn repositories(api: &Api, list: &List, section: &Section, rows: Vec<RepositoryRow>) -> Vec<Repository> {
    let permission = role(api, list).map_or(Permission::Unknown, |_| list.min_permission);
    // One workspace can be among the limits twice: by its slug, and by its id, under which its rows are told then.
    let is_told_elsewhere = |row: &RepositoryRow| {
        let id = row.workspace.as_ref().map(|owner| &owner.uuid.0);
        id.is_some_and(|id| *id != section.workspace && api.scope().workspaces.contains(id))
    };
    rows.into_iter()
        .filter(|row| !is_told_elsewhere(row))
        .map(|row| row.into_repository(api.base(), permission))
        .collect()
}

/// One page of the workspaces that the connection covers.
pub(super) async fn namespaces(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Namespace>, ProviderError> {
    if let Some(sections) = named(api) {
        return named_workspaces(api, sections).await;
    }
    let call = match at.map(parse).transpose()? {
        None => first_workspaces(api, list.page_size),
        Some(At::Workspaces { place }) => api.get_place(&place)?,
        Some(_) => return Err(foreign_cursor()),
    };
    let answer: Answer = accepted(call.send().await?)?;
    let page: Envelope<AccessRow> = rows::page(&answer)?;
    let next = page.next().map(|link| place_of(api, link)).transpose()?;
    let next = next.map(|place| cursor(&At::Workspaces { place })).transpose()?;
    let rows = page.values.into_iter().map(|row| row.workspace.into_namespace(api.base()));
    Ok(Page { next: next.into_iter().collect(), ..Page::last(rows.collect()) })
}

async fn named_workspaces(api: &Api, sections: Vec<Section>) -> Result<Page<Namespace>, ProviderError> {
    let mut page: Page<Namespace> = Page::last(Vec::new());
    let mut reads = stream::iter(sections)
        .map(|section| async move {
            let found = workspace(api, &section.workspace).await;
            (section.workspace, found)
        })
        .buffered(SIDE_BY_SIDE);
    while let Some((name, found)) = reads.next().await {
        match found {
            // One workspace can be named twice: by its slug and by its id.
            Ok(row) if page.items.iter().any(|known| known.provider_id == row.uuid.0) => {}
            Ok(row) => page.items.push(row.into_namespace(api.base())),
            Err(error) => page.warnings.push(left_out(api, &name, error)?),
        }
    }
    Ok(page)
}

fn cursor(at: &At) -> Result<Cursor, ProviderError> {
    let text =
        serde_json::to_string(at).map_err(|_| ProviderError::garbled("a cursor could not be written"))?;
    Ok(Cursor(text))
}

fn parse(cursor: &Cursor) -> Result<At, ProviderError> {
    serde_json::from_str(&cursor.0).map_err(|_| foreign_cursor())
}

const fn foreign_cursor() -> ProviderError {
    ProviderError::garbled("the place to go on from is not one of this listing")
}
