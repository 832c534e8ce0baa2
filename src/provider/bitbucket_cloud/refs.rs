//! Branches and tags of a repository.

use serde::{Deserialize, Serialize};

use super::endpoint::is_uuid;
use super::lookup::row_of_id;
use super::places::{MAX_PAGE_SIZE, place_of};
use super::refusal::accepted;
use super::rows::{self, Envelope};
use crate::domain::page::{Cursor, Page};
use crate::domain::refs::{Ref, RefKind};
use crate::provider::api::Api;
use crate::provider::inspection::clean_ref;
use crate::provider::paging::carried;
use crate::provider::{ProviderError, RefList};

/// A branch or a tag; the target of a tag is the commit, also where the tag is annotated.
#[derive(Debug, Deserialize)]
struct RefRow {
    name: String,
    target: Option<TargetRow>,
}

#[derive(Debug, Deserialize)]
struct TargetRow {
    hash: String,
}

/// Where a listing goes on. Rows do not name the default branch, so it travels along.
#[derive(Debug, Serialize, Deserialize)]
struct At {
    default_branch: String,
    place: String,
}

/// One page of the refs of a repository.
pub(super) async fn refs(
    api: &Api,
    repository: &str,
    list: &RefList,
    at: Option<&Cursor>,
) -> Result<Page<Ref>, ProviderError> {
    if !is_uuid(repository) {
        return Err(ProviderError::NotFound);
    }
    let (default_branch, call) = match at {
        None => {
            let row = row_of_id(api, repository).await?;
            let default_branch = carried(row.default_branch().unwrap_or_default().to_owned());
            let kind = match list.kind {
                RefKind::Branch => "branches",
                RefKind::Tag => "tags",
            };
            let size = list.page_size.clamp(1, MAX_PAGE_SIZE);
            let mut call = api
                .get(&["repositories", row.workspace_segment(), repository, "refs", kind])
                .query("pagelen", size.to_string())
                .query("fields", "next,values.name,values.target.hash");
            // `~` is a substring in any case, and no part of this text needs to be escaped.
            if let Some(word) = list.plain_part() {
                call = call.query("q", format!("name ~ \"{word}\""));
            }
            (default_branch, call)
        }
        Some(at) => {
            let at: At = serde_json::from_str(&at.0)
                .map_err(|_| ProviderError::garbled("the cursor is none of this listing"))?;
            let call = api.get_place(&at.place)?;
            (at.default_branch, call)
        }
    };
    let page: Envelope<RefRow> = rows::page(&accepted(call.send().await?)?)?;
    let next = page.next().map(|link| place_of(api, link)).transpose()?;
    let next = next.map(|place| At { default_branch: default_branch.clone(), place });
    let next = next.map(|at| serde_json::to_string(&at)).transpose();
    let next = next.map_err(|_| ProviderError::garbled("a cursor could not be written"))?;
    let refs = page.values.into_iter().filter_map(|row| {
        clean_ref(Ref {
            is_default: list.kind == RefKind::Branch && row.name == default_branch,
            name: row.name,
            kind: list.kind,
            commit_id: row.target.map(|target| target.hash).unwrap_or_default(),
            // Branch restrictions are another API, which only administrators may read.
            protected: None,
        })
    });
    Ok(Page { next: next.map(Cursor).into_iter().collect(), ..Page::last(refs.collect()) })
}
