//! Listing repositories and organizations by page numbers.
//!
//! Repositories come from the search, narrowed to what the token's user owns or contributes to. It answers the same
//! rows as `/user/repos` (both are one query, `routers/api/v1/user/repo.go` and `…/repo/repo.go` of the source), but
//! in the order of their ids: by name, which repositories of two owners can share, rows could come twice or not at all.
//!
//! A server cuts each page to a size of its own. What the first page has is what every page has, so the following
//! ones are asked for in exactly that size. `Link` repeats the size that was asked for, and names the configured host:
//! pages are counted, links never followed.

use super::refusal::accepted;
use super::rows::{self, OrganizationRow, RepositoryRow, UserRow};
use crate::domain::page::{Cursor, Page, Warning};
use crate::domain::repository::{Namespace, Repository};
use crate::provider::api::{Answer, Api};
use crate::provider::{List, ProviderError, Walk};

/// The rows that are asked for in one page: most servers give 50, few give more.
const LARGEST_PAGE: u64 = 200;
/// How many pages are named at a time: a total is only a server's word.
const PAGES_AHEAD: u64 = 1_000;

const FOREIGN_CURSOR: ProviderError = ProviderError::garbled("the cursor is none of this listing");
const STUCK: ProviderError = ProviderError::garbled("its pages do not advance");

/// Where a listing goes on; the text of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    /// The number of the token's user; 0 if the token may not tell it.
    user: u64,
    /// Which page, from 1.
    page: u64,
    /// How many rows each page has.
    size: u64,
    /// How many rows there were in all when this page was named.
    total: Option<u64>,
    /// The last id before it, in a chain.
    after: u64,
}

impl Position {
    fn parse(text: &str) -> Result<Self, ProviderError> {
        let number = |part: &str| part.parse::<u64>().map_err(|_| FOREIGN_CURSOR);
        let ["r", user, page, size, total, after] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(FOREIGN_CURSOR);
        };
        let at = Self {
            user: number(user)?,
            page: number(page)?,
            size: number(size)?,
            total: if total.is_empty() { None } else { Some(number(total)?) },
            after: number(after)?,
        };
        if at.page < 2 || at.size == 0 { Err(FOREIGN_CURSOR) } else { Ok(at) }
    }

    fn cursor(self) -> Cursor {
        let total = self.total.map_or_else(String::new, |total| total.to_string());
        Cursor(format!("r:{}:{}:{}:{total}:{}", self.user, self.page, self.size, self.after))
    }

    /// Whether no page behind this one was named yet.
    fn is_last_named(self) -> bool {
        let ahead = (self.page - 1).div_ceil(PAGES_AHEAD).max(1) * PAGES_AHEAD + 1;
        self.page == ahead || self.total.is_none_or(|total| self.page >= total.div_ceil(self.size))
    }

    /// The pages to name behind this one, if it is known how many there are.
    fn following(self, total: u64) -> impl Iterator<Item = Self> {
        let last = total.div_ceil(self.size).min(self.page.saturating_add(PAGES_AHEAD));
        (self.page + 1..=last).map(move |page| Self { page, total: Some(total), ..self })
    }
}

/// One page of the repositories that the token's user owns or contributes to.
pub(super) async fn repositories(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Repository>, ProviderError> {
    let at = match at {
        Some(cursor) => Position::parse(&cursor.0)?,
        None => {
            let size = match list.walk {
                Walk::Chain => (list.page_size as u64).clamp(1, LARGEST_PAGE),
                Walk::Fan => LARGEST_PAGE,
            };
            Position { user: user(api).await?, page: 1, size, total: None, after: 0 }
        }
    };
    let found = Found::read(api, list, at).await?;
    // What the server gave instead of what it was asked for.
    let granted = match found.rows.len() as u64 {
        0 => at.size,
        rows if at.page == 1 && found.total.is_none_or(|total| total > rows) => rows,
        _ => at.size,
    };
    let at = Position { size: granted, ..at };
    let (total, is_empty) = (found.total, found.rows.is_empty());
    let (rows, overlaps) = found.whole(api, list, at).await?;
    let next: Vec<Cursor> = match (list.walk, total) {
        _ if is_empty => Vec::new(),
        (Walk::Fan, Some(total)) if at.page == 1 || at.is_last_named() => {
            at.following(total).map(Position::cursor).collect()
        }
        (Walk::Fan, Some(_)) => Vec::new(),
        (Walk::Chain, Some(total)) => {
            let after = rows.last().map_or(at.after, |row| row.id.0);
            at.following(total).take(1).map(|next| Position { after, ..next }.cursor()).collect()
        }
        // Without a total, a page that is not full is the last one.
        (_, None) if at.page == 1 || rows.len() as u64 >= granted => {
            let after = rows.last().map_or(at.after, |row| row.id.0);
            vec![Position { page: at.page + 1, after, ..at }.cursor()]
        }
        (_, None) => Vec::new(),
    };
    let is_narrowed = at.user > 0;
    let mut warnings = Vec::new();
    if !is_narrowed && at.page == 1 {
        warnings.push(Warning {
            reason: "LISTING_INCOMPLETE",
            message:
                "the token may not name its user (scope read:user), so public repositories that the user may \
                      only read are left out"
                    .to_owned(),
        });
    }
    let items = rows.into_iter().filter(|row| is_narrowed || row.is_own());
    let items = items.map(|row| row.into_repository(api.base())).collect();
    let total = total.filter(|_| at.page == 1 && is_narrowed);
    Ok(Page { next, total, warnings, overlaps, ..Page::last(items) })
}

/// The number of the token's user; 0 if the token may not tell it.
async fn user(api: &Api) -> Result<u64, ProviderError> {
    match accepted(api.get(&["user"]).send().await?) {
        Ok(answer) => Ok(answer.json::<UserRow>()?.id.0),
        Err(ProviderError::ScopeMissing { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}

/// One page as it was answered.
struct Found {
    /// In the order of their ids.
    rows: Vec<RepositoryRow>,
    total: Option<u64>,
}

impl Found {
    async fn read(api: &Api, list: &List, at: Position) -> Result<Self, ProviderError> {
        let mut call = api
            .get(&["repos", "search"])
            .query("sort", "id")
            .query("order", "asc")
            .query("page", at.page.to_string())
            .query("limit", at.size.to_string());
        if at.user > 0 {
            call = call.query("uid", at.user.to_string());
        }
        if !list.include_archived {
            call = call.query("archived", "false");
        }
        if let Some(word) = search_word(&list.query) {
            call = call.query("q", word);
        }
        let answer = accepted(call.send().await?)?;
        let total = total(&answer)?;
        let rows = rows::searched(&answer)?;
        // A server that ignores the order would also lose rows between pages.
        if !rows.is_sorted_by(|a, b| a.id < b.id) {
            return Err(STUCK);
        }
        Ok(Self { rows, total })
    }

    /// The rows that belong to this page. If there are fewer in all than when the page was named, rows have moved
    /// to the page before, which is read again. Also whether it was.
    async fn whole(
        self,
        api: &Api,
        list: &List,
        at: Position,
    ) -> Result<(Vec<RepositoryRow>, bool), ProviderError> {
        let shrunk = at.page > 1 && matches!((at.total, self.total), (Some(was), Some(is)) if is < was);
        let mut rows = self.rows;
        if shrunk {
            let before = Self::read(api, list, Position { page: at.page - 1, ..at }).await?.rows;
            let newest = before.last().map_or(0, |row| row.id.0);
            let later = rows.into_iter().filter(|row| row.id.0 > newest);
            rows = before.into_iter().chain(later).collect();
        }
        if rows.last().is_some_and(|row| row.id.0 <= at.after) && !shrunk {
            return Err(STUCK);
        }
        rows.retain(|row| row.id.0 > at.after);
        Ok((rows, shrunk))
    }
}

/// How many rows there are in all, if the server tells.
pub(super) fn total(answer: &Answer) -> Result<Option<u64>, ProviderError> {
    answer.count("x-total-count")
}

/// A part of the query that every wanted row has in its name: the search looks at names without their owners, so
/// only what stands behind a slash is surely one. It ignores the case of ASCII at least, and splits at commas.
fn search_word(query: &str) -> Option<&str> {
    let (_, name) = query.split_once('/')?;
    let is_plain =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    is_plain.then_some(name)
}

/// One page of the organizations of the token's user, after the user's own space.
pub(super) async fn namespaces(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Namespace>, ProviderError> {
    let (page, size) = match at {
        None => (1, (list.page_size as u64).clamp(1, LARGEST_PAGE)),
        Some(cursor) => organization_page(&cursor.0)?,
    };
    let organizations =
        api.get(&["user", "orgs"]).query("page", page.to_string()).query("limit", size.to_string());
    let (answer, own) = if page == 1 {
        let (answer, own) = tokio::join!(organizations.send(), api.get(&["user"]).send());
        (answer?, Some(accepted(own?)?.json::<UserRow>()?.into_namespace()))
    } else {
        (organizations.send().await?, None)
    };
    let answer = accepted(answer)?;
    let total = total(&answer)?;
    let rows = rows::organizations(&answer)?;
    let count = rows.len() as u64;
    let granted = if page == 1 && total.is_none_or(|total| total > count) { count } else { size };
    let more = count > 0
        && match total {
            Some(total) => page.saturating_mul(granted) < total,
            None => page == 1 || count >= granted,
        };
    let next = more.then(|| Cursor(format!("o:{}:{granted}", page + 1)));
    let items = own.into_iter().chain(rows.into_iter().filter_map(OrganizationRow::into_namespace));
    Ok(Page { next: next.into_iter().collect(), ..Page::last(items.collect()) })
}

/// The page and the page size of a cursor: a caller may change its page size on the way, which would shift the pages.
fn organization_page(text: &str) -> Result<(u64, u64), ProviderError> {
    let ["o", page, size] = text.split(':').collect::<Vec<_>>()[..] else { return Err(FOREIGN_CURSOR) };
    match (page.parse::<u64>(), size.parse::<u64>()) {
        (Ok(page), Ok(size)) if page > 1 && size > 0 => Ok((page, size)),
        _ => Err(FOREIGN_CURSOR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(page: u64, size: u64, total: Option<u64>) -> Position {
        Position { user: 7, page, size, total, after: 3 }
    }

    #[test]
    fn cursors_come_back_as_they_went() {
        for position in [at(2, 50, Some(120)), at(9, 1, None), Position { user: 0, ..at(2, 50, None) }] {
            assert_eq!(Position::parse(&position.cursor().0), Ok(position));
        }
        for bad in ["", "r", "r:7:1:50:120:3", "r:7:2:0:120:3", "r:7:2:50:x:3", "r:7:2:50:120", "o:2:50"] {
            assert_eq!(Position::parse(bad), Err(FOREIGN_CURSOR), "{bad}");
        }
        assert_eq!(organization_page("o:2:50"), Ok((2, 50)));
        for bad in ["o:1:50", "o:2:0", "o:2", "r:2:50", "o:x:50"] {
            assert_eq!(organization_page(bad), Err(FOREIGN_CURSOR), "{bad}");
        }
    }

    #[test]
    fn h30_each_page_is_named_once_and_a_thousand_at_a_time() {
        for total in [51, 100, 120, 50_000, 50_050, 50_051, 123_456] {
            let (mut named, mut open) = (vec![1], vec![at(1, 50, None)]);
            while let Some(position) = open.pop() {
                if position.page == 1 || position.is_last_named() {
                    let following: Vec<_> = position.following(total).collect();
                    assert!(following.len() as u64 <= PAGES_AHEAD);
                    named.extend(following.iter().map(|next| next.page));
                    open.extend(following);
                }
            }
            named.sort_unstable();
            assert_eq!(named, (1..=u64::div_ceil(total, 50)).collect::<Vec<_>>(), "{total}");
        }
        assert_eq!(at(1, 1, None).following(u64::MAX).count() as u64, PAGES_AHEAD);
    }

    #[test]
    fn the_search_word_never_leaves_out_a_wanted_row() {
        assert_eq!(search_word(""), None);
        assert_eq!(search_word("web"), None);
        assert_eq!(search_word("acme/"), None);
        assert_eq!(search_word("me/web"), Some("web"));
        assert_eq!(search_word("me/web,site"), None);
        assert_eq!(search_word("me/100%"), None);
        assert_eq!(search_word("me/stra\u{df}e"), None);
    }
}
