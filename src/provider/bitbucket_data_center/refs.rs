//! Branches and tags of a repository.

use serde::Deserialize;

use super::endpoint::Place;
use super::listing::MAX_PAGE_SIZE;
use super::lookup::{at, scan};
use super::rows::RepositoryRow;
use super::wire::{Rows, page};
use crate::domain::page::{Cursor, Page};
use crate::domain::refs::{Ref, RefKind};
use crate::provider::api::Api;
use crate::provider::fields::Id;
use crate::provider::inspection::clean_ref;
use crate::provider::{ProviderError, RefList};

/// A branch or a tag. The official description calls the mark of a default branch `default`, recordings `isDefault`.
/// The commit of a tag is that behind its object; `hash` would be the object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefRow {
    id: String,
    latest_commit: Option<String>,
    is_default: Option<bool>,
    default: Option<bool>,
}

/// One page of the refs of a repository. No call takes its id: the first page looks for the place, which then travels
/// along, and each further page makes sure that no other repository has come to it since.
pub(super) async fn refs(
    api: &Api,
    repository: &str,
    list: &RefList,
    cursor: Option<&Cursor>,
) -> Result<Page<Ref>, ProviderError> {
    if !Id::is_canonical(repository) {
        return Err(ProviderError::NotFound);
    }
    let (start, known) = match cursor {
        None => (0, None),
        Some(cursor) => position(&cursor.0).map(|(start, place)| (start, Some(place)))?,
    };
    if let Some(place) = known {
        let (row, rows) = tokio::join!(at(api, place.clone()), rows(api, &place, list, start));
        let is_still_there = |row: &RepositoryRow| {
            row.id.0.to_string() == repository && row.place().is_ok_and(|now| now == place)
        };
        match row {
            Ok(row) if is_still_there(&row) => return Ok(into_page(rows?, &place, list)),
            Ok(_) | Err(ProviderError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    let place = scan(api, repository).await?.place()?;
    let rows = rows(api, &place, list, start).await?;
    Ok(into_page(rows, &place, list))
}

async fn rows(api: &Api, place: &Place, list: &RefList, start: u64) -> Result<Rows<RefRow>, ProviderError> {
    let [projects, key, repos, slug] = place.segments();
    let kind = match list.kind {
        RefKind::Branch => "branches",
        RefKind::Tag => "tags",
    };
    let part = searched(&list.query);
    let mut call = api.get(&[projects, key, repos, slug, kind]).query("orderBy", "ALPHABETICAL");
    if !part.is_empty() {
        call = call.query("filterText", part);
    }
    // A search that is left to the rows has to look at many of them.
    let limit = if part == list.query { list.page_size as u64 } else { MAX_PAGE_SIZE };
    page(api, call, start, limit.clamp(1, MAX_PAGE_SIZE)).await
}

fn into_page(rows: Rows<RefRow>, place: &Place, list: &RefList) -> Page<Ref> {
    let prefix = match list.kind {
        RefKind::Branch => "refs/heads/",
        RefKind::Tag => "refs/tags/",
    };
    let refs = rows.rows.into_iter().filter_map(|row| {
        clean_ref(Ref {
            name: row.id.strip_prefix(prefix).unwrap_or(&row.id).to_owned(),
            kind: list.kind,
            commit_id: row.latest_commit.unwrap_or_default(),
            // Branch permissions are another API.
            protected: None,
            is_default: list.kind == RefKind::Branch && row.is_default.or(row.default) == Some(true),
        })
    });
    let next = rows.next.map(|start| Cursor(format!("{start}:{place}")));
    Page { next: next.into_iter().collect(), ..Page::last(refs.collect()) }
}

/// The start and the place of a cursor.
fn position(text: &str) -> Result<(u64, Place), ProviderError> {
    let foreign = ProviderError::garbled("the cursor is none of this listing");
    let (start, place) = text.split_once(':').ok_or(foreign.clone())?;
    match (start.parse(), Place::parse(place)) {
        (Ok(start), Ok(place)) => Ok((start, place)),
        _ => Err(foreign),
    }
}

/// The part of the query that the server is asked for: whether its search minds the case is not documented, so it is
/// text without any.
fn searched(query: &str) -> &str {
    query
        .split(|c: char| !(c.is_ascii_digit() || "-_./".contains(c)))
        .max_by_key(|part| part.len())
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::super::wire::PageRow;
    use super::*;

    #[test]
    fn only_text_without_case_is_searched_at_the_provider() {
        assert_eq!(searched("2026.1/"), "2026.1/");
        assert_eq!(searched("JIRA-1234-x"), "-1234-");
        for other in ["", "main", "gr\u{fc}n"] {
            assert_eq!(searched(other), "", "{other}");
        }
    }

    #[test]
    fn a_cursor_keeps_start_and_place() {
        let (start, place) = position("1000:PRJ/my-repo").expect("a position");
        assert_eq!((start, place.to_string().as_str()), (1_000, "PRJ/my-repo"));
        for bad in ["", "1000", "x:PRJ/my-repo", "1:PRJ", "1:PRJ/..", "-1:a/b", "1:a/b/c"] {
            assert!(position(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn recorded_refs_are_read_in_both_spellings() {
        let place = Place::parse("PRJ/my-repo").expect("a place");
        let read = |kind, text: &str| {
            let page: PageRow<RefRow> = serde_json::from_str(text).expect("fixture");
            let list = RefList { kind, query: String::new(), page_size: 25 };
            into_page(Rows { rows: page.values, next: None, user: String::new() }, &place, &list).items
        };
        macro_rules! fixture {
            ($name:literal) => {
                include_str!(concat!("../../../tests/fixtures/providers/bitbucket-data-center/", $name))
            };
        }
        let branch = read(RefKind::Branch, fixture!("go-scm/branches.json")).remove(0);
        assert_eq!((branch.name.as_str(), branch.is_default, branch.protected), ("master", true, None));
        assert_eq!(branch.commit_id, "11ce869211917dd65610e70fcee454943b35ac6e");
        let described = r#"{"values":[{"id":"refs/heads/x","default":true}]}"#;
        let described = read(RefKind::Branch, described).remove(0);
        assert_eq!((described.is_default, described.commit_id.as_str()), (true, ""));
        let tag = read(RefKind::Tag, fixture!("go-scm/tags.json")).remove(0);
        assert_eq!((tag.name.as_str(), tag.is_default), ("v1.0.0", false));
        // One recording has the two names the other way round.
        let tag = read(RefKind::Tag, fixture!("bitbucket-rest/tag-page.json")).remove(0);
        assert_eq!(tag.name, "release-2.0.0");
        assert_eq!(tag.commit_id, "8d351a10fb428c0c1239530256e21cf24f136e73");
    }
}
