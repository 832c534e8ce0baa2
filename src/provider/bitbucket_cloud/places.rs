//! Which workspaces a connection covers, and which part of each.
//!
//! The listings across workspaces were removed (410 since 2026-04-14, CHANGE-2770): what the token's user is a member
//! of is asked for first, then each workspace by itself. A token of a repository, a project or a workspace has no user,
//! so what it belongs to is told by its credential.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};

use super::endpoint::{cloud_api, is_place, is_uuid};
use super::refusal::accepted;
use super::rows::{self, AccessRow, Envelope, RepositoryRow, WorkspaceRow};
use crate::domain::credential::{CredentialForm, ResourceType};
use crate::provider::api::{Api, Call};
use crate::provider::{ProviderError, paging};

/// The most rows of one page; more are refused.
pub(super) const MAX_PAGE_SIZE: usize = 100;
/// Calls side by side. All API tokens of a user share 1,000 calls an hour, so more would gain nothing.
pub(super) const SIDE_BY_SIDE: usize = 4;
/// Most pages of workspaces that are read.
const MAX_WORKSPACE_PAGES: usize = 50;

/// A workspace, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// Its slug, or its UUID in braces.
    pub(super) workspace: String,
    pub(super) part: Part,
}

/// Which part of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All that the token sees.
    Whole,
    /// The project of that key.
    Project(String),
    /// The repository of that slug.
    Repository(String),
}

/// The sections that the connection covers; `None` for every workspace of the token's user.
pub(super) fn named(api: &Api) -> Option<Vec<Section>> {
    if let Some(CredentialForm::ResourceToken { resource_type, resource }) = api.credential_form() {
        let (workspace, name) = resource.split_once('/').unwrap_or((resource, ""));
        let part = match resource_type {
            ResourceType::Repository => Part::Repository(name.to_owned()),
            ResourceType::Project => Part::Project(name.to_owned()),
            ResourceType::Workspace | ResourceType::Group => Part::Whole,
        };
        return Some(vec![Section { workspace: workspace.to_owned(), part }]);
    }
    let mut names = api.scope().workspaces.clone();
    names.sort();
    // The letter case of a slug says nothing.
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.to_ascii_lowercase()));
    (!names.is_empty())
        .then(|| names.into_iter().map(|workspace| Section { workspace, part: Part::Whole }).collect())
}

/// Whether somebody stands behind the token: tokens of resources have no user, and may not ask about one.
pub(super) fn has_user(api: &Api) -> bool {
    !matches!(api.credential_form(), Some(CredentialForm::ResourceToken { .. }))
}

/// The sections that can hold repositories of `namespace` (empty: of any), in the order of their names, in which a
/// chain of pages goes from one to the next.
pub(super) async fn sections(api: &Api, namespace: &str) -> Result<Vec<Section>, ProviderError> {
    let may_be = |section: &Section| {
        namespace.is_empty()
            || is_uuid(&section.workspace)
            || section.workspace.eq_ignore_ascii_case(namespace)
    };
    let mut sections = match named(api) {
        Some(sections) => sections,
        None => workspaces(api).await?.into_iter().map(WorkspaceRow::into_section).collect(),
    };
    sections.retain(may_be);
    sections.sort_by(|a, b| a.workspace.cmp(&b.workspace));
    Ok(sections)
}

/// The section of that workspace, which a cursor named; `None` if the connection was limited to others since.
pub(super) fn section(api: &Api, workspace: &str) -> Option<Section> {
    match named(api) {
        Some(sections) => sections.into_iter().find(|section| section.workspace == workspace),
        None => Some(Section { workspace: workspace.to_owned(), part: Part::Whole }),
    }
}

impl WorkspaceRow {
    /// The whole workspace, under its slug if that can stand in a path.
    pub(super) fn into_section(self) -> Section {
        let workspace = if is_place(&self.slug) { self.slug } else { self.uuid.0 };
        Section { workspace, part: Part::Whole }
    }
}

/// Every workspace of the token's user.
async fn workspaces(api: &Api) -> Result<Vec<WorkspaceRow>, ProviderError> {
    let mut all = Vec::new();
    let mut call = first_workspaces(api, MAX_PAGE_SIZE);
    for _ in 0..MAX_WORKSPACE_PAGES {
        let page: Envelope<AccessRow> = rows::page(&accepted(call.send().await?)?)?;
        let next = page.next().map(|link| place_of(api, link)).transpose()?;
        all.extend(page.values.into_iter().map(|row| row.workspace));
        match next {
            Some(place) => call = api.get_place(&place)?,
            None => {
                // Pages can overlap where workspaces came meanwhile.
                all.sort_by(|a: &WorkspaceRow, b| a.uuid.cmp(&b.uuid));
                all.dedup_by(|a, b| a.uuid == b.uuid);
                return Ok(all);
            }
        }
    }
    Err(ProviderError::garbled("its listing has more pages than this service follows"))
}

/// The first page of the workspaces of the token's user.
pub(super) fn first_workspaces(api: &Api, size: usize) -> Call<'_> {
    api.get(&["user", "workspaces"])
        .query("pagelen", size.clamp(1, MAX_PAGE_SIZE).to_string())
        .query("sort", "slug")
}

/// The place that a link to more names, as an answer gave it: links are followed, not made.
pub(super) fn place_of(api: &Api, link: &str) -> Result<String, ProviderError> {
    paging::below(api.base(), link, std::slice::from_ref(&cloud_api()?))
}

/// One workspace.
pub(super) async fn workspace(api: &Api, name: &str) -> Result<WorkspaceRow, ProviderError> {
    accepted(api.get(&["workspaces", name]).send().await?)?.json()
}

impl Section {
    /// Whether a repository lies in the workspace.
    pub(super) fn holds(&self, row: &RepositoryRow) -> bool {
        let is_owner = row.workspace.as_ref().is_some_and(|owner| owner.uuid.0 == self.workspace);
        is_owner || self.workspace.eq_ignore_ascii_case(row.workspace_slug())
    }
}

/// What `ask` finds first in any of the sections, a few of them side by side; `NotFound` if it is in none that can
/// be read.
pub(super) async fn find<'a, T, Fut>(
    sections: Vec<Section>,
    ask: impl Fn(Section) -> Fut + 'a,
) -> Result<T, ProviderError>
where
    Fut: Future<Output = Result<T, ProviderError>> + 'a,
{
    let mut asked = stream::iter(sections).map(ask).buffer_unordered(SIDE_BY_SIDE);
    let mut failed = None;
    while let Some(outcome) = asked.next().await {
        match outcome {
            Ok(found) => return Ok(found),
            Err(ProviderError::NotFound | ProviderError::Forbidden) => {}
            Err(ProviderError::Failed { status: Some(410), .. }) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or(ProviderError::NotFound))
}
