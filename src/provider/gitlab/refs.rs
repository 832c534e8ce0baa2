//! Branches and tags: keyset pages by name, or counted pages of a search.

use serde::Deserialize;

use super::refusal::accepted;
use crate::domain::page::{Cursor, Page};
use crate::domain::refs::{Ref, RefKind};
use crate::provider::api::Api;
use crate::provider::fields::Id;
use crate::provider::inspection::clean_ref;
use crate::provider::{ProviderError, RefList};

/// The most rows of one page.
const MAX_PAGE_SIZE: usize = 100;
/// Most rows that an answer may have: versions that ignore the paging of refs give all of them.
const MAX_ROWS: usize = 100_000;

const FOREIGN_CURSOR: ProviderError = ProviderError::garbled("the cursor is none of this listing");

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

/// Where a listing goes on; the text of a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Position {
    /// Behind the ref of that name: `a:{name}`.
    After(String),
    /// A page of a search: `p:{page}:{size}`.
    Page { page: u64, size: usize },
}

impl Position {
    fn parse(text: &str) -> Result<Self, ProviderError> {
        match text.split_once(':') {
            Some(("a", name)) if !name.is_empty() => Ok(Self::After(name.to_owned())),
            Some(("p", rest)) => {
                let (page, size) = rest.split_once(':').ok_or(FOREIGN_CURSOR)?;
                match (page.parse(), size.parse()) {
                    (Ok(page), Ok(size)) if page > 1 && (1..=MAX_PAGE_SIZE).contains(&size) => {
                        Ok(Self::Page { page, size })
                    }
                    _ => Err(FOREIGN_CURSOR),
                }
            }
            _ => Err(FOREIGN_CURSOR),
        }
    }

    fn cursor(&self) -> Cursor {
        Cursor(match self {
            Self::After(name) => format!("a:{name}"),
            Self::Page { page, size } => format!("p:{page}:{size}"),
        })
    }
}

/// One page of the refs of a project.
pub(super) async fn refs(
    api: &Api,
    project: &str,
    list: &RefList,
    at: Option<&Cursor>,
) -> Result<Page<Ref>, ProviderError> {
    if !Id::is_canonical(project) {
        return Err(ProviderError::NotFound);
    }
    let size = list.page_size.clamp(1, MAX_PAGE_SIZE);
    // `^`, `$` and `*` mean something to GitLab's search, and it ignores the case of ASCII at least.
    match (list.plain_part(), at.map(|at| Position::parse(&at.0)).transpose()?) {
        (None, None) => keyset(api, project, list, size, None).await,
        (None, Some(Position::After(name))) => keyset(api, project, list, size, Some(name)).await,
        (Some(word), None) => search(api, project, list, word, 1, size).await,
        (Some(word), Some(Position::Page { page, size })) => {
            search(api, project, list, word, page, size).await
        }
        _ => Err(FOREIGN_CURSOR),
    }
}

/// One page behind a name.
async fn keyset(
    api: &Api,
    project: &str,
    list: &RefList,
    size: usize,
    after: Option<String>,
) -> Result<Page<Ref>, ProviderError> {
    let mut call = api
        .get(&["projects", project, "repository", resource(list.kind)])
        .query("pagination", "keyset")
        .query("per_page", size.to_string());
    call = match list.kind {
        RefKind::Branch => call.query("sort", "name_asc"),
        RefKind::Tag => call.query("order_by", "name").query("sort", "asc"),
    };
    if let Some(name) = &after {
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
    if after.is_some() && rows.iter().any(|row| Some(&row.name) == after.as_ref()) {
        return Err(ProviderError::garbled("its pages do not advance"));
    }
    // More rows than were asked for are all of them, from a version that ignores the paging.
    let next = rows.last().filter(|_| rows.len() == size).map(|row| Position::After(row.name.clone()));
    Ok(page(rows, list.kind, next))
}

/// One page of a search, by its number: with a keyset, many versions answer all matches at once.
async fn search(
    api: &Api,
    project: &str,
    list: &RefList,
    word: &str,
    page_number: u64,
    size: usize,
) -> Result<Page<Ref>, ProviderError> {
    let call = api
        .get(&["projects", project, "repository", resource(list.kind)])
        .query("search", word)
        .query("page", page_number.to_string())
        .query("per_page", size.to_string());
    let answer = accepted(call.send().await?)?;
    let rows = rows(answer.json()?)?;
    // These endpoints count all refs instead of the matches, so a page that is not full is the end whatever they say.
    let more = rows.len() == size
        && match answer.count("x-next-page")? {
            Some(next) if next <= page_number => {
                return Err(ProviderError::garbled("its pages do not advance"));
            }
            Some(_) => true,
            None => !answer.headers.contains_key("x-next-page"),
        };
    let next = more.then_some(Position::Page { page: page_number + 1, size });
    Ok(page(rows, list.kind, next))
}

const fn resource(kind: RefKind) -> &'static str {
    match kind {
        RefKind::Branch => "branches",
        RefKind::Tag => "tags",
    }
}

fn rows(rows: Vec<RefRow>) -> Result<Vec<RefRow>, ProviderError> {
    if rows.len() > MAX_ROWS {
        return Err(ProviderError::garbled("its page has far more rows than it was asked for"));
    }
    Ok(rows)
}

fn page(rows: Vec<RefRow>, kind: RefKind, next: Option<Position>) -> Page<Ref> {
    let refs = rows.into_iter().filter_map(|row| {
        clean_ref(Ref {
            name: row.name,
            kind,
            commit_id: row.commit.map(|commit| commit.id).unwrap_or_default(),
            protected: row.protected,
            is_default: row.default.unwrap_or(false),
        })
    });
    Page { next: next.iter().map(Position::cursor).collect(), ..Page::last(refs.collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_went() {
        for at in [Position::After("feature/a:b".to_owned()), Position::Page { page: 2, size: 100 }] {
            assert_eq!(Position::parse(&at.cursor().0), Ok(at));
        }
        for bad in ["", "a", "a:", "p:1:50", "p:2:0", "p:2:101", "p:2", "x:1"] {
            assert!(Position::parse(bad).is_err(), "{bad}");
        }
    }
}
