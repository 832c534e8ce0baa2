//! Branches and tags, page by page.

use super::listing::{Position, later, next};
use super::refusal::accepted;
use super::rows::RefRow;
use super::{MAX_PAGE_SIZE, get, lookup};
use crate::domain::page::{Cursor, Page};
use crate::domain::refs::{Ref, RefKind};
use crate::provider::api::{Answer, Api};
use crate::provider::fields::{Id, bounded};
use crate::provider::paging::carried;
use crate::provider::{ProviderError, RefList};

/// One page of the refs of a repository. GitHub searches none: `matching-refs` finds beginnings alone, is not paged,
/// and gives the objects of annotated tags instead of their commits.
pub(super) async fn refs(
    api: &Api,
    repository: &str,
    list: &RefList,
    at: Option<&Cursor>,
) -> Result<Page<Ref>, ProviderError> {
    if let Some(at) = at {
        // The default branch goes along, so that no page asks for it again; no name of a branch has a line break.
        let (default_branch, at) =
            at.0.split_once('\n').ok_or(ProviderError::garbled("the cursor is none of this listing"))?;
        let Some(answer) = later(api, &Position::parse(&Cursor(at.to_owned()))?).await? else {
            return Ok(Page::last(Vec::new()));
        };
        return page(api, &answer, list.kind, default_branch);
    }
    if !Id::is_canonical(repository) {
        return Err(ProviderError::NotFound);
    }
    let resource = match list.kind {
        RefKind::Branch => "branches",
        RefKind::Tag => "tags",
    };
    // A search looks at every ref, so it takes the largest pages.
    let size = if list.query.is_empty() { list.page_size.clamp(1, MAX_PAGE_SIZE) } else { MAX_PAGE_SIZE };
    let call = get(api, &["repositories", repository, resource]).query("per_page", size.to_string());
    let (answer, default_branch) = tokio::join!(call.send(), default_branch(api, repository, list.kind));
    let default_branch = default_branch?;
    match accepted(answer?) {
        Ok(answer) => page(api, &answer, list.kind, &default_branch),
        // "Git Repository is empty.", which other calls of this kind are known to answer.
        Err(ProviderError::Failed { status: Some(409), .. }) => Ok(Page::last(Vec::new())),
        Err(error) => Err(error),
    }
}

/// The name of the default branch; empty for tags, of which none is the default.
async fn default_branch(api: &Api, repository: &str, kind: RefKind) -> Result<String, ProviderError> {
    if kind == RefKind::Tag {
        return Ok(String::new());
    }
    Ok(carried(lookup::row(api, repository).await?.default_branch()))
}

fn page(api: &Api, answer: &Answer, kind: RefKind, default_branch: &str) -> Result<Page<Ref>, ProviderError> {
    let rows: Vec<RefRow> = bounded(answer.json()?)?;
    let next = next(api, answer)?.map(|Cursor(at)| Cursor(format!("{default_branch}\n{at}")));
    let refs = rows.into_iter().filter_map(|row| row.into_ref(kind, default_branch)).collect();
    Ok(Page { next: next.into_iter().collect(), ..Page::last(refs) })
}
