//! Branches and tags by page numbers.

use super::listing::total;
use super::lookup::by_id;
use super::refusal::accepted;
use super::rows;
use crate::domain::page::{Cursor, Page};
use crate::domain::refs::{Ref, RefKind};
use crate::provider::api::Api;
use crate::provider::inspection::clean_ref;
use crate::provider::{ProviderError, RefList};

/// The most rows that are asked for in one page; most servers give 50.
const LARGEST_PAGE: u64 = 100;
/// The fewest. Branches whose commit is gone are left out of their page: a page of one row could be empty long before
/// the end, and an empty page ends the listing, whatever the total says.
const SMALLEST_PAGE: u64 = 10;

/// Where a listing goes on; the text of a cursor: `p:{page}:{size}:{last name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    page: u64,
    size: u64,
    /// The name at which the page before ended.
    after: String,
}

impl Position {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let (Some("p"), Some(page), Some(size), Some(after)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let at = Self { page: page.parse().ok()?, size: size.parse().ok()?, after: after.to_owned() };
        (at.page > 1 && at.size > 0).then_some(at)
    }

    fn cursor(&self) -> Cursor {
        Cursor(format!("p:{}:{}:{}", self.page, self.size, self.after))
    }
}

/// One page of the refs of a repository. It is asked for by its number first: the name that the calls below take can
/// have changed, and only the repository tells its default branch.
pub(super) async fn refs(
    api: &Api,
    repository: &str,
    list: &RefList,
    at: Option<&Cursor>,
) -> Result<Page<Ref>, ProviderError> {
    let at = match at {
        Some(at) => Position::parse(&at.0)
            .ok_or(const { ProviderError::garbled("the cursor is none of this listing") })?,
        None => {
            let size = match searched(list) {
                // A search that is left to the rows has to look at many of them.
                None if !list.query.is_empty() => LARGEST_PAGE,
                _ => (list.page_size as u64).clamp(SMALLEST_PAGE, LARGEST_PAGE),
            };
            Position { page: 1, size, after: String::new() }
        }
    };
    let row = by_id(api, repository).await?;
    let (owner, name) = row.full_name.split_once('/').ok_or(ProviderError::NotFound)?;
    let resource = match list.kind {
        RefKind::Branch => "branches",
        RefKind::Tag => "tags",
    };
    let mut call = api
        .get(&["repos", owner, name, resource])
        .query("page", at.page.to_string())
        .query("limit", at.size.to_string());
    if let Some(word) = searched(list) {
        call = call.query("q", word);
    }
    let answer = accepted(call.send().await?)?;
    let total = total(&answer)?;
    let mut rows = rows::refs(&answer)?;
    let count = rows.len() as u64;
    // The server cuts a page to a size of its own. It also leaves out branches whose commit is gone: after a first
    // page that was short for that, the next one begins with what is known already.
    let size = if at.page == 1 && total.is_none_or(|total| total > count) { count } else { at.size };
    if let Some(known) = rows.iter().position(|row| row.name == at.after) {
        rows.drain(..=known);
    }
    // A last page can hold nothing else; a full one that does is the same page again.
    if rows.is_empty() && count > 0 && count >= at.size {
        return Err(ProviderError::garbled("its pages do not advance"));
    }
    let more = count > 0
        && match total {
            Some(total) => at.page.saturating_mul(size) < total,
            None => at.page == 1 || count >= size,
        };
    let next = rows
        .last()
        .filter(|_| more)
        .map(|last| Position { page: at.page + 1, size, after: last.name.clone() }.cursor());
    let default = row.default_branch.filter(|_| list.kind == RefKind::Branch);
    let refs = rows.into_iter().filter_map(|row| {
        clean_ref(Ref {
            is_default: default.as_ref() == Some(&row.name),
            kind: list.kind,
            commit_id: row.commit.and_then(|commit| commit.sha.or(commit.id)).unwrap_or_default(),
            protected: row.protected.filter(|_| list.kind == RefKind::Branch),
            name: row.name,
        })
    });
    Ok(Page { next: next.into_iter().collect(), ..Page::last(refs.collect()) })
}

/// The query, if the server's search surely finds every wanted ref: branches since 1.27, by a comparison that minds
/// the case in some databases. Older versions ignore it.
fn searched(list: &RefList) -> Option<&str> {
    let is_caseless = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b"-./".contains(&byte));
    Some(list.query.as_str())
        .filter(|query| list.kind == RefKind::Branch && !query.is_empty() && is_caseless(query))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_went() {
        let at = Position { page: 2, size: 50, after: "feature/a:b".to_owned() };
        assert_eq!(Position::parse(&at.cursor().0), Some(at));
        for bad in ["", "p", "p:1:50:a", "p:2:0:a", "p:2:50", "x:2:50:a", "p:x:50:a"] {
            assert_eq!(Position::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_a_text_without_case_is_searched_for() {
        let search = |kind, query: &str| {
            let list = RefList { kind, query: query.to_owned(), page_size: 10 };
            searched(&list).map(str::to_owned)
        };
        assert_eq!(search(RefKind::Branch, "2.0").as_deref(), Some("2.0"));
        for (kind, query) in
            [(RefKind::Branch, "main"), (RefKind::Branch, ""), (RefKind::Branch, "1%"), (RefKind::Tag, "1.0")]
        {
            assert_eq!(search(kind, query), None, "{query}");
        }
    }
}
