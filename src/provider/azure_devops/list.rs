//! Listing: projects in pages, the repositories of each in one piece.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::rows::{ProjectRow, RepositoryRow, Rows, is_guid};
use super::url::{is_cloud, last_segment};
use super::wire::{REPOSITORIES, fetch, fetch_as_somebody, owned, user_of, who};
use super::{CODE, PROJECT};
use crate::domain::page::{Cursor, Page, Warning};
use crate::domain::repository::{Namespace, NamespaceKind, Permission, Repository};
use crate::provider::api::Api;
use crate::provider::{List, ProviderError};

/// Projects in one page of a parallel listing.
const PROJECTS_A_PAGE: usize = 500;
/// Projects that one page of a chain looks at, at most.
const PROJECTS_A_STEP: usize = 25;
/// Calls side by side within one page: the provider counts all calls of an identity.
const SIDE_BY_SIDE: usize = 4;
/// No organization has more projects (the provider's limit is 1,000), so a server that pages on is broken.
const MOST_PROJECTS: usize = 100_000;

/// Where a listing goes on.
#[derive(Debug, Serialize, Deserialize)]
enum At {
    /// The page of projects behind the project `after`.
    Projects { next: Next, after: String },
    /// A project's repositories.
    Project { id: String, name: String },
    /// The repositories of a project that the connection is limited to.
    Named { name: String },
    /// A chain: so many projects are done, the last of them was `behind`; of the next one, if it is still
    /// `project`, the rows up to `after`.
    Chain { skip: usize, behind: String, project: String, after: String },
    /// A chain over the list of the whole organization, behind the row `after`.
    Whole { after: String },
    /// A chain of projects, of which the last one was `behind`.
    Namespaces { skip: usize, behind: String },
}

/// How the next page of projects is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Next {
    /// By what the provider gave for it, behind so many projects.
    Token { token: String, skipped: usize },
    /// By counting: older servers give nothing.
    Skip(usize),
}

/// One project to read: its path segment, what to call it, and what it means if it is not there.
struct Target {
    segment: String,
    shown: String,
    missing: Missing,
    /// The projects that the connection is limited to; one project can be among them by name and by id.
    limits: Arc<[String]>,
}

impl Target {
    /// A project that was listed.
    fn listed(row: ProjectRow) -> Self {
        Self { segment: row.id, shown: row.name, missing: Missing::Hidden, limits: Arc::default() }
    }

    /// Whether a row comes a second time, under another entry of the limits: by the project's id, else by its
    /// present name.
    fn is_told_elsewhere(&self, row: &RepositoryRow) -> bool {
        let is_limit = |text: &str| self.limits.iter().any(|limit| is_alike(limit, text));
        let (id, name) = (&row.project.id, &row.project.name);
        !is_alike(&self.segment, id) && (is_limit(id) || (!is_alike(&self.segment, name) && is_limit(name)))
    }
}

/// Names ignore case.
fn is_alike(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!(a.is_ascii() && b.is_ascii()) && a.to_lowercase() == b.to_lowercase())
}

enum Missing {
    /// It was listed, so its code is hidden from this user.
    Hidden,
    /// The connection is limited to it, so somebody should know.
    Gone,
    /// A filter that nothing matches.
    Nothing,
}

/// One page of a parallel listing: the first one brings a cursor for each project.
pub(super) async fn fan(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Repository>, ProviderError> {
    let (next, after) = match at.map(parse).transpose()? {
        None if list.min_permission != Permission::Unknown => return Ok(no_permissions()),
        None => match selected(list) {
            Some(targets) => return named(api, targets).await,
            None => (Next::Skip(0), String::new()),
        },
        Some(At::Projects { next, after }) => (next, after),
        Some(At::Project { id, name }) => {
            let target =
                Target { segment: id, shown: name, missing: Missing::Hidden, limits: Arc::default() };
            return read(api, &target, false).await;
        }
        Some(At::Named { name }) => {
            let limits = list.scope.projects.as_slice().into();
            let target = Target { segment: name.clone(), shown: name, missing: Missing::Gone, limits };
            return read(api, &target, true).await;
        }
        Some(_) => return Err(foreign_cursor()),
    };
    let (projects, more) = match projects(api, &next, PROJECTS_A_PAGE, at.is_none()).await {
        // A token for code alone may not see projects, but all repositories at once.
        Err(ProviderError::ScopeMissing { .. }) if at.is_none() => {
            return whole(api).await.map(|rows| Page::last(mapped(api, rows)));
        }
        other => other?,
    };
    let projects = behind(projects, &after)?;
    let last = projects.last().map(|project| project.id.clone()).unwrap_or_default();
    let mut cursors: Vec<Cursor> = projects
        .into_iter()
        .map(|project| cursor(&At::Project { id: project.id, name: project.name }))
        .collect::<Result<_, _>>()?;
    if let Some(next) = more {
        cursors.push(cursor(&At::Projects { next, after: last })?);
    }
    Ok(Page { next: cursors, ..Page::last(Vec::new()) })
}

/// The projects that a listing is limited to: alone at once, several side by side.
async fn named(api: &Api, targets: Vec<Target>) -> Result<Page<Repository>, ProviderError> {
    if let [target] = targets.as_slice() {
        return read(api, target, true).await;
    }
    let next = targets
        .into_iter()
        .map(|target| cursor(&At::Named { name: target.segment }))
        .collect::<Result<_, _>>()?;
    Ok(Page { next, ..Page::last(Vec::new()) })
}

/// One page of a chain: whole projects, side by side, until the page is full. It stops in the middle of a
/// project that does not fit; the next page reads that project again, for the provider does not page it.
pub(super) async fn chain(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Repository>, ProviderError> {
    let (mut skip, mut last, resumed, after) = match at.map(parse).transpose()? {
        None if list.min_permission != Permission::Unknown => return Ok(no_permissions()),
        None => (0, String::new(), String::new(), String::new()),
        Some(At::Chain { skip, behind, project, after }) => (skip, behind, project, after),
        Some(At::Whole { after }) => return whole_chain(api, list, &after).await,
        Some(_) => return Err(foreign_cursor()),
    };
    let selected = selected(list);
    let is_selection = selected.is_some();
    let (targets, more) = match selected {
        Some(targets) => {
            let end = targets.len().min(skip.saturating_add(PROJECTS_A_STEP));
            let more = end < targets.len();
            (targets.into_iter().take(end).skip(skip).collect::<Vec<_>>(), more)
        }
        None => match projects(api, &Next::Skip(skip), PROJECTS_A_STEP, at.is_none()).await {
            Err(ProviderError::ScopeMissing { .. }) if at.is_none() => {
                return whole_chain(api, list, "").await;
            }
            other => {
                let (rows, more) = other?;
                let count = rows.len();
                let rows = behind(rows, &last)?;
                skip += count - rows.len();
                (rows.into_iter().map(Target::listed).collect(), more.is_some())
            }
        },
    };
    // Projects come and go between two pages; the one that was begun is looked for by its id.
    let begun = targets.iter().position(|target| !resumed.is_empty() && target.segment == resumed);
    let start = begun.unwrap_or(0);
    let count = targets.len();
    let room = list.page_size.max(1);
    let mut page = Page::last(Vec::new());
    let waiting = targets.into_iter().enumerate().skip(start);
    let mut reads = stream::iter(waiting)
        .map(|(place, target)| async move {
            let page = read(api, &target, is_selection).await?;
            Ok::<_, ProviderError>((place, target.segment, page))
        })
        .buffered(SIDE_BY_SIDE);
    while let Some((place, project, found)) = reads.try_next().await? {
        page.warnings.extend(found.warnings);
        let is_begun = begun == Some(place);
        let rows = found.items.into_iter().filter(|row| !is_begun || row.provider_id > after);
        let mut rows = rows.filter(|row| list.keeps(row)).peekable();
        while page.items.len() < room
            && let Some(row) = rows.next()
        {
            page.items.push(row);
        }
        if rows.peek().is_some() {
            let after = page.items.last().map(|row| row.provider_id.clone()).unwrap_or_default();
            page.next = vec![cursor(&At::Chain { skip: skip + place, behind: last, project, after })?];
            return Ok(page);
        }
        last = project;
        if page.items.len() >= room && (place + 1 < count || more) {
            page.next = vec![from_project(skip + place + 1, last)?];
            return Ok(page);
        }
    }
    if more && count > 0 {
        page.next = vec![from_project(skip + count, last)?];
    }
    Ok(page)
}

fn from_project(skip: usize, behind: String) -> Result<Cursor, ProviderError> {
    cursor(&At::Chain { skip, behind, project: String::new(), after: String::new() })
}

/// One page out of the list of the whole organization, which comes in one piece: each page reads all of it.
/// Only a token that may not list projects needs it.
async fn whole_chain(api: &Api, list: &List, after: &str) -> Result<Page<Repository>, ProviderError> {
    let rows = mapped(api, whole(api).await?);
    let mut rows =
        rows.into_iter().filter(|row| row.provider_id.as_str() > after && list.keeps(row)).peekable();
    let mut page = Page::last(Vec::new());
    while page.items.len() < list.page_size.max(1)
        && let Some(row) = rows.next()
    {
        page.items.push(row);
    }
    if rows.peek().is_some()
        && let Some(last) = page.items.last()
    {
        page.next = vec![cursor(&At::Whole { after: last.provider_id.clone() })?];
    }
    Ok(page)
}

/// One page of the places that hold repositories; the first one starts with the organization or collection.
pub(super) async fn namespaces(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Namespace>, ProviderError> {
    let (skip, last) = match at.map(parse).transpose()? {
        None => (0, String::new()),
        Some(At::Namespaces { skip, behind }) => (skip, behind),
        Some(_) => return Err(foreign_cursor()),
    };
    let parent = last_segment(api.base());
    let mut page = Page::last(Vec::new());
    if at.is_none() {
        let who = who(api).await?;
        page.items.push(Namespace {
            provider_id: if who.instance_id.is_empty() { parent.clone() } else { who.instance_id },
            full_path: parent.clone(),
            display_name: parent.clone(),
            kind: if who.hosted.unwrap_or_else(|| is_cloud(api.base())) {
                NamespaceKind::Organization
            } else {
                NamespaceKind::Collection
            },
            parent_path: String::new(),
            web_url: api.base().as_str().to_owned(),
        });
    }
    let namespace = |row: ProjectRow| row.into_namespace(api.base(), &parent);
    if !list.scope.projects.is_empty() {
        let mut reads = stream::iter(list.scope.projects.clone())
            .map(|name| async move { one_project(api, &name).await })
            .buffered(SIDE_BY_SIDE);
        while let Some(found) = reads.next().await {
            match found? {
                // One project can be named twice: by its name and by its id.
                Ok(row) if page.items.iter().any(|known| known.provider_id == row.id) => {}
                Ok(row) => page.items.push(namespace(row)),
                Err(warning) => page.warnings.push(warning),
            }
        }
        return Ok(page);
    }
    match projects(api, &Next::Skip(skip), list.page_size.clamp(1, PROJECTS_A_PAGE), false).await {
        Ok((rows, more)) => {
            let skip = skip + rows.len();
            let rows = behind(rows, &last)?;
            if let Some(last) = rows.last().filter(|_| more.is_some()) {
                page.next = vec![cursor(&At::Namespaces { skip, behind: last.id.clone() })?];
            }
            page.items.extend(rows.into_iter().map(namespace));
        }
        // Those that hold a repository can be told without the scope.
        Err(ProviderError::ScopeMissing { .. }) if at.is_none() => {
            let mut rows: Vec<ProjectRow> = whole(api).await?.into_iter().map(|row| row.project).collect();
            rows.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id)));
            rows.dedup_by(|a, b| a.id == b.id);
            page.items.extend(rows.into_iter().map(namespace));
            page.warnings.push(Warning {
                reason: "PROJECTS_NOT_LISTED",
                message:
                    "the token may not list projects (vso.project): only those that hold a repository are \
                          shown"
                        .to_owned(),
            });
        }
        Err(error) => return Err(error),
    }
    Ok(page)
}

/// A project that the connection is limited to, or the warning that it is gone.
async fn one_project(api: &Api, name: &str) -> Result<Result<ProjectRow, Warning>, ProviderError> {
    match fetch::<ProjectRow>(api, &["_apis", "projects", name], &[], &[PROJECT]).await {
        Ok((row, _)) => Ok(Ok(row)),
        Err(ProviderError::NotFound) => Ok(Err(gone(name))),
        Err(error) => Err(error),
    }
}

/// The repository of that id in the lists, where disabled ones are, too.
pub(super) async fn find_by_id(api: &Api, id: &str) -> Result<Repository, ProviderError> {
    let is_it = |row: &RepositoryRow| row.id.eq_ignore_ascii_case(id);
    match whole(api).await {
        Ok(rows) => rows
            .into_iter()
            .find(is_it)
            .map(|row| row.into_repository(api.base()))
            .ok_or(ProviderError::NotFound),
        // Too large, or not there: this call is not in the official description.
        Err(ProviderError::Failed { .. } | ProviderError::NotFound | ProviderError::Mismatch { .. }) => {
            find_in_projects(api, id).await
        }
        Err(error) => Err(error),
    }
}

async fn find_in_projects(api: &Api, id: &str) -> Result<Repository, ProviderError> {
    let (mut next, mut after) = (Next::Skip(0), String::new());
    loop {
        let (rows, more) = projects(api, &next, PROJECTS_A_PAGE, false).await?;
        let rows = behind(rows, &after)?;
        after = rows.last().map(|row| row.id.clone()).unwrap_or_default();
        let mut reads = stream::iter(rows.into_iter().map(Target::listed))
            .map(|target| async move { read(api, &target, false).await })
            .buffered(SIDE_BY_SIDE);
        while let Some(page) = reads.try_next().await? {
            if let Some(found) = page.items.into_iter().find(|row| row.provider_id.eq_ignore_ascii_case(id)) {
                return Ok(found);
            }
        }
        next = more.ok_or(ProviderError::NotFound)?;
    }
}

/// The repository of that name in its project's list, where disabled ones are, too.
pub(super) async fn find_by_name(api: &Api, project: &str, name: &str) -> Result<Repository, ProviderError> {
    let (rows, _) = fetch::<Rows<RepositoryRow>>(api, &project_path(project), &[], &[CODE]).await?;
    rows.value
        .into_iter()
        .find(|row| row.name.to_lowercase() == name.to_lowercase())
        .map(|row| row.into_repository(api.base()))
        .ok_or(ProviderError::NotFound)
}

/// One page of projects, and how the next one is asked for. `confirm` makes sure that the caller is known.
async fn projects(
    api: &Api,
    next: &Next,
    top: usize,
    confirm: bool,
) -> Result<(Vec<ProjectRow>, Option<Next>), ProviderError> {
    let size = top.to_string();
    let (name, value) = match next {
        Next::Token { token, .. } => ("continuationToken", token.clone()),
        Next::Skip(skip) => ("$skip", skip.to_string()),
    };
    let mut query = vec![("stateFilter", "wellFormed"), ("$top", size.as_str())];
    if value != "0" {
        query.push((name, value.as_str()));
    }
    let path = ["_apis", "projects"];
    let (rows, answer) = fetch::<Rows<ProjectRow>>(api, &path, &query, &[PROJECT]).await?;
    if confirm && user_of(&answer).is_none() {
        who(api).await?;
    }
    let token = answer.header("x-ms-continuationtoken").filter(|token| !token.is_empty());
    let more = following(next, top, rows.value.len(), token)?;
    Ok((rows.value, more))
}

/// How the page of projects after one of `count` rows is asked for; `None` if there is none.
fn following(
    next: &Next,
    top: usize,
    count: usize,
    token: Option<&str>,
) -> Result<Option<Next>, ProviderError> {
    let (Next::Token { skipped, .. } | Next::Skip(skipped)) = next;
    let skipped = skipped.saturating_add(count);
    if skipped > MOST_PROJECTS {
        return Err(ProviderError::garbled("it lists more projects than an organization can have"));
    }
    Ok(match (token, next) {
        _ if count == 0 => None,
        (Some(token), _) => Some(Next::Token { token: token.to_owned(), skipped }),
        // Behind a page that a token brought, no token means the end.
        (None, Next::Token { .. }) => None,
        // Otherwise it can be an older server; one that caps its pages does so at a round number.
        (None, Next::Skip(_)) => (count >= top || count.is_multiple_of(100)).then_some(Next::Skip(skipped)),
    })
}

/// The projects behind the last one of the page before: a project that was made meanwhile shifts them.
fn behind(mut projects: Vec<ProjectRow>, after: &str) -> Result<Vec<ProjectRow>, ProviderError> {
    if let Some(known) = projects.iter().position(|project| !after.is_empty() && project.id == after) {
        projects.drain(..=known);
        if projects.is_empty() {
            return Err(ProviderError::garbled("it answers the same page of projects again"));
        }
    }
    Ok(projects)
}

/// The repositories of one project. A project that cannot be read is a warning, not the end of a listing.
async fn read(api: &Api, target: &Target, confirm: bool) -> Result<Page<Repository>, ProviderError> {
    let path = project_path(&target.segment);
    let outcome = if confirm {
        fetch_as_somebody::<Rows<RepositoryRow>>(api, &path, &[], &[CODE]).await
    } else {
        fetch(api, &path, &[], &[CODE]).await
    };
    let warning = match (outcome, &target.missing) {
        (Ok((mut rows, _)), _) => {
            rows.value.retain(|row| !target.is_told_elsewhere(row));
            return Ok(Page::last(mapped(api, rows.value)));
        }
        (Err(ProviderError::NotFound), Missing::Nothing) => return Ok(Page::last(Vec::new())),
        (Err(ProviderError::NotFound), Missing::Gone) => gone(&target.shown),
        (Err(ProviderError::Forbidden | ProviderError::NotFound), _) => Warning {
            reason: "PROJECT_NOT_READABLE",
            message: format!(
                "the repositories of the project \"{}\" are left out: the token's user may not read them",
                shown(&target.shown)
            ),
        },
        (Err(error), _) => return Err(error),
    };
    Ok(Page { warnings: vec![warning], ..Page::last(Vec::new()) })
}

/// All repositories at once. Not in the official description, but what clients call; unpaged, so that it may
/// be too large.
async fn whole(api: &Api) -> Result<Vec<RepositoryRow>, ProviderError> {
    match fetch_as_somebody::<Rows<RepositoryRow>>(api, &REPOSITORIES, &[], &[PROJECT, CODE]).await {
        Ok((rows, _)) => Ok(rows.value),
        // Whoever comes here from a refused list of projects is told of both scopes.
        Err(ProviderError::ScopeMissing { .. }) => {
            Err(ProviderError::ScopeMissing { scopes: owned(&[PROJECT, CODE]) })
        }
        Err(error) => Err(error),
    }
}

/// Rows in the order of their ids, so that a list that is read again continues where it was left.
fn mapped(api: &Api, rows: Vec<RepositoryRow>) -> Vec<Repository> {
    let mut rows: Vec<Repository> = rows.into_iter().map(|row| row.into_repository(api.base())).collect();
    rows.sort_by(|a, b| a.provider_id.cmp(&b.provider_id));
    rows
}

fn project_path(segment: &str) -> [&str; 4] {
    let [apis, git, repositories] = REPOSITORIES;
    [segment, apis, git, repositories]
}

/// The projects that the filter and the limits of the connection leave; `None` for all of them.
fn selected(list: &List) -> Option<Vec<Target>> {
    let mut names: Vec<&str> = Vec::new();
    for name in &list.scope.projects {
        if !names.iter().any(|known| is_alike(known, name)) {
            names.push(name);
        }
    }
    let limits: Arc<[String]> = list.scope.projects.as_slice().into();
    let target = |name: &str, missing| {
        let limits = Arc::clone(&limits);
        Target { segment: name.to_owned(), shown: name.to_owned(), missing, limits }
    };
    if list.namespace.is_empty() {
        let targets = || names.into_iter().map(|name| target(name, Missing::Gone)).collect();
        return (!list.scope.projects.is_empty()).then(targets);
    }
    if names.is_empty() {
        return Some(vec![target(&list.namespace, Missing::Nothing)]);
    }
    // An id in the limits can be that of the wanted project; its rows tell.
    let may_be = |name: &&str| is_alike(name, &list.namespace) || is_guid(name);
    Some(names.into_iter().filter(may_be).map(|name| target(name, Missing::Nothing)).collect())
}

fn no_permissions() -> Page<Repository> {
    let warning = Warning {
        reason: "PERMISSION_UNKNOWN",
        message: "Azure DevOps does not tell what a token may do with a repository, so min_permission leaves all of \
                  them out"
            .to_owned(),
    };
    Page { warnings: vec![warning], ..Page::last(Vec::new()) }
}

fn gone(name: &str) -> Warning {
    Warning {
        reason: "PROJECT_NOT_FOUND",
        message: format!(
            "the connection is limited to the project \"{}\", which is gone or hidden from the token's user",
            shown(name)
        ),
    }
}

/// A name in a message: bounded, and without what would turn or break the line.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h27_projects_are_counted_however_they_are_paged() {
        let (mut next, mut pages) = (Next::Skip(0), 0);
        let error = loop {
            match following(&next, 500, 500, Some(&pages.to_string())) {
                Ok(more) => next = more.expect("a token for ever"),
                Err(error) => break error,
            }
            pages += 1;
        };
        assert!(matches!(error, ProviderError::Failed { .. }));
        assert_eq!(pages, MOST_PROJECTS / 500);
        assert_eq!(following(&next, 500, 0, None), Ok(None));
        assert_eq!(following(&Next::Skip(25), 25, 25, None), Ok(Some(Next::Skip(50))));
        assert_eq!(following(&Next::Skip(25), 25, 24, None), Ok(None));
    }
}
