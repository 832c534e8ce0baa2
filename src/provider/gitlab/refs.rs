//! Branches and tags: keyset pages by name, behind one page of a search.

use serde::Deserialize;

use super::refusal::accepted;
use crate::domain::page::{Cursor, Page};
use crate::domain::refs::{Ref, RefKind};
use crate::provider::api::{Api, Call};
use crate::provider::fields::Id;
use crate::provider::inspection::clean_ref;
use crate::provider::{ProviderError, RefList};

/// The most rows of one page.
const MAX_PAGE_SIZE: usize = 100;
/// Most rows that an answer may have: versions that ignore the paging of refs give all of them.
const MAX_ROWS: usize = 100_000;

/// A branch or a tag; a tag has no `default`. See `go-scm/branches.json` and `go-scm/tags.json` of the fixtures.
#[derive(Debug, Deserialize)]
struct RefRow {
    name: String,
    commit: Option<CommitRow>,
    protected: Option<bool>,
    default: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct CommitRow {
    id: String,
}

/// One page of the refs of a project. The text of a cursor is `a:{name}`: behind the ref of that name.
pub(super) async fn refs(
    api: &Api,
    project: &str,
    list: &RefList,
    at: Option<&Cursor>,
) -> Result<Page<Ref>, ProviderError> {
    if !Id::is_canonical(project) {
        return Err(ProviderError::NotFound);
    }
    let after = match at {
        None => None,
        Some(at) => match at.0.split_once(':') {
            Some(("a", name)) if !name.is_empty() => Some(name),
            _ => return Err(ProviderError::garbled("the cursor is none of this listing")),
        },
    };
    // A search that is left to the rows has to look at many of them.
    let size = if list.query.is_empty() { list.page_size.clamp(1, MAX_PAGE_SIZE) } else { MAX_PAGE_SIZE };
    // `^`, `$` and `*` mean something to GitLab's search, and it ignores the case of ASCII at least.
    match (list.plain_part(), after) {
        (Some(word), None) => search(api, project, list.kind, word).await,
        _ => keyset(api, project, list.kind, size, after).await,
    }
}

/// One page behind a name.
async fn keyset(
    api: &Api,
    project: &str,
    kind: RefKind,
    size: usize,
    after: Option<&str>,
) -> Result<Page<Ref>, ProviderError> {
    let mut call = by_name(api, project, kind, size).query("pagination", "keyset");
    if let Some(name) = after {
        call = call.query("page_token", name);
    }
    let rows = match accepted(call.send().await?) {
        Ok(answer) => rows(answer.json()?)?,
        // `Invalid page token: refs/tags/x`, once the tag is deleted.
        Err(ProviderError::Failed { status: Some(422), .. }) if after.is_some() => {
            let problem = "the ref at which the last page ended is gone; list again from the start";
            return Err(ProviderError::Failed { problem, status: Some(422) });
        }
        Err(error) => return Err(error),
    };
    if after.is_some() && rows.iter().any(|row| Some(row.name.as_str()) == after) {
        return Err(ProviderError::garbled("its pages do not advance"));
    }
    Ok(page(rows, kind, size))
}

/// The first page of a search, which mostly holds all that is found. If it is full, the rest is looked for in the
/// keyset pages behind it: of a search with a keyset many versions answer all matches at once, and of one with page
/// numbers some 19.x answer nothing from page 2 on (GitLab #605032).
async fn search(api: &Api, project: &str, kind: RefKind, word: &str) -> Result<Page<Ref>, ProviderError> {
    let call = by_name(api, project, kind, MAX_PAGE_SIZE).query("search", word);
    let answer = accepted(call.send().await?)?;
    Ok(page(rows(answer.json()?)?, kind, MAX_PAGE_SIZE))
}

/// A call for at most `size` refs in the order of their names.
fn by_name<'a>(api: &'a Api, project: &str, kind: RefKind, size: usize) -> Call<'a> {
    let call = |resource| {
        api.get(&["projects", project, "repository", resource]).query("per_page", size.to_string())
    };
    match kind {
        RefKind::Branch => call("branches").query("sort", "name_asc"),
        RefKind::Tag => call("tags").query("order_by", "name").query("sort", "asc"),
    }
}

fn rows(rows: Vec<RefRow>) -> Result<Vec<RefRow>, ProviderError> {
    if rows.len() > MAX_ROWS {
        return Err(ProviderError::garbled("its page has far more rows than it was asked for"));
    }
    Ok(rows)
}

/// The rows that came for `size` wanted ones. More than that are all of them, from a version that ignores the paging.
fn page(rows: Vec<RefRow>, kind: RefKind, size: usize) -> Page<Ref> {
    let last = rows.last().filter(|_| rows.len() == size);
    let next = last.map(|row| Cursor(format!("a:{}", row.name)));
    let refs = rows.into_iter().filter_map(|row| {
        clean_ref(Ref {
            name: row.name,
            kind,
            commit_id: row.commit.map(|commit| commit.id).unwrap_or_default(),
            protected: row.protected,
            is_default: row.default.unwrap_or(false),
        })
    });
    Page { next: next.into_iter().collect(), ..Page::last(refs.collect()) }
}
