//! Branches and tags of a repository.

use serde::{Deserialize, Serialize};

use super::rows::{RepositoryRow, Rows, is_guid};
use super::wire::{fetch, fetch_as_somebody};
use super::{CODE, list};
use crate::domain::page::{Cursor, Page};
use crate::domain::refs::{Ref, RefKind};
use crate::provider::api::Api;
use crate::provider::inspection::clean_ref;
use crate::provider::paging::carried;
use crate::provider::{ProviderError, RefList};

/// The most rows of one page.
const MAX_PAGE_SIZE: usize = 1_000;

/// A branch or a tag.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefRow {
    name: String,
    object_id: String,
    peeled_object_id: Option<String>,
}

/// Where a listing goes on. Rows name neither the project that the path needs nor the default branch, so both travel
/// along instead of being read again.
#[derive(Debug, Serialize, Deserialize)]
struct At {
    project: String,
    default_branch: String,
    token: String,
}

/// One page of the refs of a repository.
pub(super) async fn refs(
    api: &Api,
    repository: &str,
    list: &RefList,
    at: Option<&Cursor>,
) -> Result<Page<Ref>, ProviderError> {
    if !is_guid(repository) {
        return Err(ProviderError::NotFound);
    }
    let at = match at {
        None => start(api, repository).await?,
        Some(at) => serde_json::from_str(&at.0)
            .ok()
            .filter(|at: &At| is_guid(&at.project) && !at.token.is_empty())
            .ok_or(ProviderError::garbled("the cursor is none of this listing"))?,
    };
    let (prefix, filter) = match list.kind {
        RefKind::Branch => ("refs/heads/", "heads/"),
        RefKind::Tag => ("refs/tags/", "tags/"),
    };
    let searched = searched(&list.query);
    // A search that is left to the rows has to look at many of them.
    let size = if list.query.is_empty() || searched.is_some() { list.page_size } else { MAX_PAGE_SIZE };
    let size = size.clamp(1, MAX_PAGE_SIZE).to_string();
    let mut query = vec![("filter", filter), ("$top", size.as_str())];
    if list.kind == RefKind::Tag {
        query.push(("peelTags", "true"));
    }
    if let Some(text) = searched {
        query.push(("filterContains", text));
    }
    if !at.token.is_empty() {
        query.push(("continuationToken", at.token.as_str()));
    }
    let path = [at.project.as_str(), "_apis", "git", "repositories", repository, "refs"];
    let (rows, answer) = fetch::<Rows<RefRow>>(api, &path, &query, &[CODE]).await?;
    let token = answer.header("x-ms-continuationtoken").filter(|token| !token.is_empty()).map(str::to_owned);
    if token.as_ref() == Some(&at.token) {
        return Err(ProviderError::garbled("its paging led back to a page that was read already"));
    }
    // The filter is a prefix of the whole name, so nothing else should come; what does is left out.
    let refs = rows.value.into_iter().filter_map(|row| {
        let name = row.name.strip_prefix(prefix)?;
        clean_ref(Ref {
            name: name.to_owned(),
            kind: list.kind,
            commit_id: row.peeled_object_id.unwrap_or(row.object_id),
            // Branch policies are another API, with a scope of its own.
            protected: None,
            is_default: list.kind == RefKind::Branch && name == at.default_branch,
        })
    });
    let refs = refs.collect();
    // A page may be empty and not the last: whether the filters come before the paging is not documented.
    let next = token.map(|token| At { token, ..at });
    let next = next.map(|at| serde_json::to_string(&at)).transpose();
    let next = next.map_err(|_| ProviderError::garbled("a cursor could not be written"))?;
    Ok(Page { next: next.map(Cursor).into_iter().collect(), ..Page::last(refs) })
}

/// What the first page has to know of the repository.
async fn start(api: &Api, repository: &str) -> Result<At, ProviderError> {
    let path = ["_apis", "git", "repositories", repository];
    match fetch_as_somebody::<RepositoryRow>(api, &path, &[], &[CODE]).await {
        Ok((row, _)) => Ok(At {
            default_branch: carried(row.default_branch().unwrap_or_default().to_owned()),
            project: row.project.id,
            token: String::new(),
        }),
        // A disabled repository is missing everywhere but in lists.
        Err(ProviderError::NotFound) => {
            list::find_by_id(api, repository).await.and(Err(ProviderError::Forbidden))
        }
        Err(error) => Err(error),
    }
}

/// The query, if the provider can search for it: whether `filterContains` minds the case is not documented, so it is
/// only asked for text that has none.
fn searched(query: &str) -> Option<&str> {
    Some(query).filter(|query| {
        !query.is_empty() && query.bytes().all(|byte| byte.is_ascii_digit() || b"-_./".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_without_case_is_searched_at_the_provider() {
        assert_eq!(searched("2026.1/"), Some("2026.1/"));
        for other in ["", "main", "1.0-Beta", "gr\u{fc}n"] {
            assert_eq!(searched(other), None, "{other}");
        }
    }
}
