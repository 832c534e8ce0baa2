//! Listing projects and groups: keyset pages in a chain, or ranges of ids side by side.

use super::refusal::accepted;
use super::rows::{self, GroupRow, ProjectRow, UserRow};
use crate::domain::page::{Cursor, Page, Warning};
use crate::domain::repository::{Namespace, Permission, Repository};
use crate::provider::api::{Answer, Api, Call};
use crate::provider::fields::Id;
use crate::provider::{List, ProviderError, Walk, paging};

/// The most rows of one page.
pub(super) const MAX_PAGE_SIZE: u64 = 100;
/// Rows beyond this offset are refused with a 405 (since 15 at the latest).
const MAX_OFFSET: u64 = 50_000;
/// Into how many ranges of ids the rest is split where GitLab does not count it.
const MAX_SEGMENTS: u64 = 16;
/// How many rows a range should have about: enough for a few pages, few enough for GitLab to count them.
const SEGMENT_ROWS: u64 = 1_000;

/// One page of the projects that the token's user is a member of. Without `membership` the whole instance's
/// public projects would be listed.
pub(super) async fn repositories(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Repository>, ProviderError> {
    match (list.walk, at.map(|cursor| Position::parse(&cursor.0)).transpose()?) {
        (Walk::Chain, None) => chain(api, list, 0).await,
        (Walk::Chain, Some(Position::After(id))) => chain(api, list, id).await,
        (Walk::Fan, None) => segment(api, list, Segment::ALL).await,
        (Walk::Fan, Some(Position::Segment(range))) => segment(api, list, range).await,
        (Walk::Fan, Some(Position::Page { range, page, total })) => {
            counted_page(api, list, range, page, total).await
        }
        _ => Err(FOREIGN_CURSOR),
    }
}

const FOREIGN_CURSOR: ProviderError = ProviderError::garbled("the cursor is none of this listing");
const STUCK: ProviderError = ProviderError::garbled("its pages do not advance");
const GARBLED_PAGING: ProviderError = ProviderError::garbled("its paging headers make no sense");

/// The ids strictly between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    after: u64,
    before: Option<u64>,
}

impl Segment {
    const ALL: Self = Self { after: 0, before: None };
}

/// Where a listing goes on; the text of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Keyset: `a:{id}`.
    After(u64),
    /// A range of ids from its start: `s:{after}:{before}`.
    Segment(Segment),
    /// A page of a range that GitLab counted: `p:{after}:{before}:{page}:{total}`.
    Page { range: Segment, page: u64, total: u64 },
}

impl Position {
    fn parse(text: &str) -> Result<Self, ProviderError> {
        let number = |part: &str| part.parse::<u64>().map_err(|_| FOREIGN_CURSOR);
        let range = |after: &str, before: &str| -> Result<Segment, ProviderError> {
            let before = if before.is_empty() { None } else { Some(number(before)?) };
            Ok(Segment { after: number(after)?, before })
        };
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            ["a", id] => Ok(Self::After(number(id)?)),
            ["s", after, before] => Ok(Self::Segment(range(after, before)?)),
            ["p", after, before, page, total] => {
                Ok(Self::Page { range: range(after, before)?, page: number(page)?, total: number(total)? })
            }
            _ => Err(FOREIGN_CURSOR),
        }
    }

    fn cursor(self) -> Cursor {
        let range = |range: Segment| {
            format!("{}:{}", range.after, range.before.map_or_else(String::new, |id| id.to_string()))
        };
        Cursor(match self {
            Self::After(id) => format!("a:{id}"),
            Self::Segment(segment) => format!("s:{}", range(segment)),
            Self::Page { range: segment, page, total } => format!("p:{}:{page}:{total}", range(segment)),
        })
    }
}

/// A call of `/projects` with everything that the listing is narrowed by.
fn call<'a>(api: &'a Api, list: &List, sort: &str) -> Call<'a> {
    let mut call =
        api.get(&["projects"]).query("membership", "true").query("order_by", "id").query("sort", sort);
    if !list.include_archived {
        call = call.query("archived", "false");
    }
    // Counts inherited and invited groups too, so it keeps every row whose own levels suffice.
    let level = match list.min_permission {
        Permission::Unknown => None,
        Permission::Read => Some("10"),
        Permission::Write => Some("30"),
        Permission::Admin => Some("40"),
    };
    if let Some(level) = level {
        call = call.query("min_access_level", level);
    }
    match search_word(list) {
        Some(word) => call.query("search", word).query("search_namespaces", "true"),
        None => call,
    }
}

/// A word that every wanted row has in its full path, so that GitLab's search leaves out none of them.
///
/// The search takes words of three characters or more, splits at spaces and quotation marks, and ignores
/// the case of ASCII at least. A namespace is not asked for through `/groups/{id}/projects`: its rows have no
/// `permissions`, and it lists projects that the user is no member of.
fn search_word(list: &List) -> Option<&str> {
    list.query
        .split('/')
        .chain(list.namespace.split('/'))
        .filter(|word| word.len() >= 3)
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)))
        .max_by_key(|word| word.len())
}

/// One keyset page.
async fn chain(api: &Api, list: &List, after: u64) -> Result<Page<Repository>, ProviderError> {
    let size = (list.page_size as u64).clamp(1, MAX_PAGE_SIZE);
    let mut call = call(api, list, "asc").query("pagination", "keyset").query("per_page", size.to_string());
    if after > 0 {
        call = call.query("id_after", after.to_string());
    }
    let answer = accepted(call.send().await?)?;
    let rows = ascending(rows::projects(&answer)?, Segment { after, before: None })?;
    let link = next_link(&answer, after)?;
    // Every page with a row has a next link, the last one too; where a proxy drops the header, a full page
    // is not the last one.
    let size = link.and_then(|link| link.per_page).map_or(size, |granted| granted.clamp(1, size));
    let next =
        rows.last().filter(|_| rows.len() as u64 >= size).map(|row| Position::After(row.id.0).cursor());
    Ok(Page { next: next.into_iter().collect(), ..Page::last(into_repositories(rows, api)) })
}

/// What the link to the next keyset page says.
#[derive(Debug, Clone, Copy)]
struct NextLink {
    per_page: Option<u64>,
}

/// The link to the next page, of which only the query counts: its origin is the configured one, which can be
/// out of reach, or anybody's.
fn next_link(answer: &Answer, after: u64) -> Result<Option<NextLink>, ProviderError> {
    let Some(target) = paging::target(&answer.headers, "next") else { return Ok(None) };
    let value = |name: &str| paging::parameter(target, name);
    match value("id_after").map(|id| id.parse::<u64>()) {
        Some(Ok(id)) if id > after => {}
        Some(Ok(_)) => return Err(STUCK),
        _ => return Err(GARBLED_PAGING),
    }
    Ok(Some(NextLink { per_page: value("per_page").and_then(|size| size.parse().ok()) }))
}

/// The first page of a range of ids, and how its rest is read: by page numbers if GitLab counted it, else by
/// smaller ranges.
async fn segment(api: &Api, list: &List, range: Segment) -> Result<Page<Repository>, ProviderError> {
    let answer = accepted(offset_call(api, list, range, 1).send().await?)?;
    let paging = Paging::of(&answer, 1)?;
    let rows = ascending(rows::projects(&answer)?, range)?;
    let last = rows.last().map(|row| row.id.0);
    let full = rows.len() as u64 >= paging.per_page || paging.next_page.is_some();
    let next = match (paging.total, last) {
        (_, None) => Vec::new(),
        (Some(total), _) if total <= MAX_OFFSET && paging.per_page == MAX_PAGE_SIZE => (2..=total
            .div_ceil(MAX_PAGE_SIZE))
            .map(|page| Position::Page { range, page, total }.cursor())
            .collect(),
        (_, Some(_)) if !full => Vec::new(),
        (_, Some(last)) => {
            let rest = Segment { after: last, before: Some(upper_bound(api, list, range).await?) };
            let parts = if range == Segment::ALL {
                MAX_SEGMENTS
            } else {
                // As dense as the ids of this page, the rest has about so many rows.
                let width = rest.before.unwrap_or(last).saturating_sub(last);
                let density =
                    u128::from(width) * rows.len() as u128 / u128::from((last - range.after).max(1));
                u64::try_from(density).unwrap_or(u64::MAX).div_ceil(SEGMENT_ROWS).clamp(1, MAX_SEGMENTS)
            };
            split(rest, parts).into_iter().map(|part| Position::Segment(part).cursor()).collect()
        }
    };
    let total = if range == Segment::ALL { paging.total } else { None };
    Ok(Page { next, total, ..Page::last(into_repositories(rows, api)) })
}

/// The first id that is beyond a range: its own bound, or one above the highest id that there is.
async fn upper_bound(api: &Api, list: &List, range: Segment) -> Result<u64, ProviderError> {
    if let Some(before) = range.before {
        return Ok(before);
    }
    let answer = accepted(call(api, list, "desc").query("per_page", "1").send().await?)?;
    Ok(rows::projects(&answer)?.first().map_or(0, |row| row.id.0).saturating_add(1))
}

/// At most `parts` ranges of one width that cover `range`; none if no id can lie in it.
fn split(range: Segment, parts: u64) -> Vec<Segment> {
    let before = range.before.unwrap_or(u64::MAX);
    // The ids after + 1 to before - 1.
    let ids = before.saturating_sub(range.after).saturating_sub(1);
    if ids == 0 {
        return Vec::new();
    }
    let width = ids.div_ceil(parts.max(1));
    (0..ids.div_ceil(width))
        .map(|part| {
            let after = range.after + part * width;
            let end = after.saturating_add(width).saturating_add(1).min(before);
            Segment { after, before: Some(end) }
        })
        .collect()
}

/// A later page of a range that GitLab counted. If the count has changed since, rows have moved to other pages:
/// the page before is read again, and pages that were added at the end follow.
async fn counted_page(
    api: &Api,
    list: &List,
    range: Segment,
    page: u64,
    expected: u64,
) -> Result<Page<Repository>, ProviderError> {
    if page < 2 || page.saturating_mul(MAX_PAGE_SIZE) > MAX_OFFSET {
        return Err(FOREIGN_CURSOR);
    }
    let answer = accepted(offset_call(api, list, range, page).send().await?)?;
    let paging = Paging::of(&answer, page)?;
    let mut rows = ascending(rows::projects(&answer)?, range)?;
    let (mut next, mut overlaps) = (Vec::new(), false);
    if let Some(total) = paging.total.filter(|total| *total != expected) {
        let earlier = accepted(offset_call(api, list, range, page - 1).send().await?)?;
        let mut both = ascending(rows::projects(&earlier)?, range)?;
        let newest = both.last().map_or(0, |row| row.id.0);
        both.extend(rows.into_iter().filter(|row| row.id.0 > newest));
        rows = both;
        overlaps = true;
        if page == expected.div_ceil(MAX_PAGE_SIZE) {
            let last = total.min(MAX_OFFSET).div_ceil(MAX_PAGE_SIZE);
            next.extend((page + 1..=last).map(|page| Position::Page { range, page, total }.cursor()));
        }
    }
    Ok(Page { next, overlaps, ..Page::last(into_repositories(rows, api)) })
}

fn offset_call<'a>(api: &'a Api, list: &List, range: Segment, page: u64) -> Call<'a> {
    let mut call =
        call(api, list, "asc").query("per_page", MAX_PAGE_SIZE.to_string()).query("page", page.to_string());
    if range.after > 0 {
        call = call.query("id_after", range.after.to_string());
    }
    if let Some(before) = range.before {
        call = call.query("id_before", before.to_string());
    }
    call
}

/// What the headers of an offset page say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Paging {
    /// Left out above 10,000 rows.
    total: Option<u64>,
    per_page: u64,
    next_page: Option<u64>,
}

impl Paging {
    fn of(answer: &Answer, page: u64) -> Result<Self, ProviderError> {
        let total = answer.count("x-total")?;
        answer.count("x-total-pages")?;
        let per_page = answer.count("x-per-page")?.unwrap_or(MAX_PAGE_SIZE);
        let next_page = answer.count("x-next-page")?;
        if per_page == 0 || next_page.is_some_and(|next| next <= page) {
            return Err(GARBLED_PAGING);
        }
        Ok(Self { total, per_page: per_page.min(MAX_PAGE_SIZE), next_page })
    }
}

/// The rows, if their ids rise within the bounds: a server that ignores the bounds would never end.
fn ascending(rows: Vec<ProjectRow>, range: Segment) -> Result<Vec<ProjectRow>, ProviderError> {
    let mut before = Id(range.after);
    for row in &rows {
        if row.id <= before || range.before.is_some_and(|end| row.id.0 >= end) {
            return Err(STUCK);
        }
        before = row.id;
    }
    Ok(rows)
}

fn into_repositories(rows: Vec<ProjectRow>, api: &Api) -> Vec<Repository> {
    rows.into_iter().map(|row| row.into_repository(api.base())).collect()
}

/// One page of the groups that the token's user is a member of, after the user's own space. Offset pages:
/// groups have a keyset only by name.
pub(super) async fn namespaces(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Namespace>, ProviderError> {
    let (page, size) = match at {
        None => (1, (list.page_size as u64).clamp(1, MAX_PAGE_SIZE)),
        Some(cursor) => group_page(&cursor.0)?,
    };
    let groups = api
        .get(&["groups"])
        .query("min_access_level", "10")
        .query("all_available", "false")
        .query("order_by", "id")
        .query("sort", "asc")
        .query("per_page", size.to_string())
        .query("page", page.to_string());
    let (answer, own) = if page == 1 {
        let (answer, own) = tokio::join!(groups.send(), own_namespace(api));
        (answer?, own?)
    } else {
        (groups.send().await?, None)
    };
    let answer = accepted(answer)?;
    let rows = rows::groups(&answer)?;
    let next_page = match answer.count("x-next-page")? {
        Some(next) if next <= page => return Err(STUCK),
        Some(_) => Some(page + 1),
        // An empty header is the end; without any, a full page is not.
        None if answer.headers.contains_key("x-next-page") => None,
        None => Some(page + 1).filter(|_| rows.len() as u64 >= size),
    };
    let reachable = next_page.filter(|next| next.saturating_mul(size) <= MAX_OFFSET);
    let mut warnings = Vec::new();
    if next_page.is_some() && reachable.is_none() {
        warnings.push(Warning {
            reason: "LISTING_TRUNCATED",
            message: "GitLab lists at most 50,000 groups; the others are left out".to_owned(),
        });
    }
    let rows = rows.into_iter().map(GroupRow::into_namespace);
    Ok(Page {
        next: reachable.map(|next| Cursor(format!("g:{next}:{size}"))).into_iter().collect(),
        warnings,
        ..Page::last(own.into_iter().chain(rows).collect())
    })
}

/// The page and the page size of a cursor: a caller may change its page size on the way, which would shift
/// the pages.
fn group_page(text: &str) -> Result<(u64, u64), ProviderError> {
    let parts: Vec<&str> = text.split(':').collect();
    let ["g", page, size] = parts.as_slice() else { return Err(FOREIGN_CURSOR) };
    match (page.parse::<u64>(), size.parse::<u64>()) {
        (Ok(page), Ok(size))
            if page > 1 && (1..=MAX_PAGE_SIZE).contains(&size) && page.saturating_mul(size) <= MAX_OFFSET =>
        {
            Ok((page, size))
        }
        _ => Err(FOREIGN_CURSOR),
    }
}

/// The space of the token's user, if the token may name the user; bots have none.
async fn own_namespace(api: &Api) -> Result<Option<Namespace>, ProviderError> {
    match accepted(api.get(&["user"]).send().await?) {
        Ok(answer) => Ok(answer.json::<UserRow>()?.into_namespace()),
        Err(ProviderError::ScopeMissing { .. } | ProviderError::Forbidden) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    fn list(query: &str, namespace: &str) -> List {
        List {
            query: query.to_owned(),
            namespace: namespace.to_owned(),
            include_archived: true,
            min_permission: Permission::Unknown,
            scope: crate::domain::connection::Scope::default(),
            page_size: 50,
            walk: Walk::Chain,
        }
    }

    #[test]
    fn cursors_come_back_as_they_went() {
        for position in [
            Position::After(7),
            Position::Segment(Segment { after: 3, before: Some(9) }),
            Position::Segment(Segment::ALL),
            Position::Page { range: Segment { after: 3, before: None }, page: 2, total: 250 },
        ] {
            assert_eq!(Position::parse(&position.cursor().0), Ok(position));
        }
        for bad in ["", "a", "a:", "a:x", "s:1", "s:-1:", "p:1:2:3", "z:1"] {
            assert!(Position::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_split_covers_each_id_once() {
        for (after, before, parts) in [(0, 2, 16), (0, 1_000, 16), (10, 27, 16), (5, 7, 3), (0, 100, 1)] {
            let segments = split(Segment { after, before: Some(before) }, parts);
            assert!(segments.len() as u64 <= parts);
            let ids: Vec<u64> = segments
                .iter()
                .flat_map(|segment| segment.after + 1..segment.before.expect("bounded"))
                .collect();
            assert_eq!(ids, (after + 1..before).collect::<Vec<_>>());
        }
        assert!(split(Segment { after: 5, before: Some(6) }, 16).is_empty());
        assert!(split(Segment { after: 5, before: Some(0) }, 16).is_empty());
        assert_eq!(split(Segment { after: 0, before: Some(u64::MAX) }, 16).len(), 16);
    }

    #[test]
    fn the_search_word_never_leaves_out_a_wanted_row() {
        assert_eq!(search_word(&list("", "")), None);
        assert_eq!(search_word(&list("ab", "")), None);
        assert_eq!(search_word(&list("site", "")), Some("site"));
        assert_eq!(search_word(&list("my site", "")), None);
        assert_eq!(search_word(&list("oup/platf", "")), Some("platf"));
        assert_eq!(search_word(&list("\"site\"", "")), None);
        assert_eq!(search_word(&list("stra\u{df}e", "")), None);
        assert_eq!(search_word(&list("web", "acme/platform")), Some("platform"));
    }

    #[test]
    fn h31_a_header_that_is_no_number_is_an_error() {
        let paging = |headers: &[(&str, &str)]| Paging::of(&test_answer(200, headers, "[]"), 1);
        let fixture = include_str!(
            "../../../tests/fixtures/providers/gitlab/documented/offset-pagination-headers.json"
        );
        let fixture: serde_json::Value = serde_json::from_str(fixture).expect("fixture");
        let documented: Vec<(&str, &str)> = fixture["response"]["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
            .collect();
        assert_eq!(paging(&documented), Ok(Paging { total: Some(8), per_page: 3, next_page: Some(3) }));
        for bad in ["abc", "-1", "18446744073709551616", "1.5", "0x10", "9999999999999999999"] {
            for name in ["x-total", "x-next-page", "x-total-pages"] {
                assert_eq!(paging(&[(name, bad)]), Err(GARBLED_PAGING), "{name}: {bad}");
            }
        }
        assert_eq!(paging(&[("x-next-page", "1")]), Err(GARBLED_PAGING));
        assert_eq!(
            paging(&[("x-next-page", "")]),
            Ok(Paging { total: None, per_page: 100, next_page: None })
        );
    }

    #[test]
    fn h24_a_next_link_that_does_not_advance_is_an_error() {
        let link = |link: &str, after| {
            next_link(&test_answer(200, &[("link", link)], "[]"), after).map(|link| link.is_some())
        };
        let next = "<https://elsewhere.test/api/v4/projects?id_after=42&per_page=100>; rel=\"next\"";
        assert_eq!(link(next, 41), Ok(true));
        assert_eq!(link(next, 42), Err(STUCK));
        assert_eq!(link("<https://x/?page=1>; rel=\"first\"", 0), Ok(false));
        assert_eq!(link("<https://x/?id_after=abc>; rel=\"next\"", 0), Err(GARBLED_PAGING));
        assert_eq!(link("<https://x/>; rel=\"next\"", 0), Err(GARBLED_PAGING));
    }

    #[test]
    fn h27_rows_that_do_not_rise_are_an_error() {
        let rows = |ids: &[u64], after, before| {
            let rows: Vec<serde_json::Value> =
                ids.iter().map(|id| serde_json::json!({"id": id, "path_with_namespace": "a/b"})).collect();
            let rows = serde_json::from_value(rows.into()).expect("rows");
            ascending(rows, Segment { after, before }).map(|rows| rows.len())
        };
        assert_eq!(rows(&[3, 5, 9], 2, Some(10)), Ok(3));
        assert_eq!(rows(&[3, 5], 3, None), Err(STUCK));
        assert_eq!(rows(&[3, 3], 0, None), Err(STUCK));
        assert_eq!(rows(&[3, 10], 0, Some(10)), Err(STUCK));
    }

    #[test]
    fn a_group_cursor_keeps_its_page_size() {
        assert_eq!(group_page("g:2:50"), Ok((2, 50)));
        for bad in ["g:1:50", "g:2:0", "g:2:101", "g:501:100", "g:2", "a:2", "g:x:50"] {
            assert!(group_page(bad).is_err(), "{bad}");
        }
    }
}
