//! Projects: listings, pages, single ones.

use std::ops::Range;

use super::super::wire::{Query, Reply, Seen, decode};
use super::data::{Data, OLD_PATH, View};
use super::refusal::{invalid, message, no_keyset, too_deep, unauthorized, unrouted};
use super::tokens::GitlabToken;
use super::{Instance, MAX_PAGE};

impl Instance {
    pub(super) fn projects(&self, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
        let caller = self.anybody(seen)?;
        let caller = caller.as_ref();
        let list = List::parse(query)?;
        let member_only = query.flag("membership");
        let least = least_access(query)?;
        let owned = query.flag("owned");
        let filter = Filter::read(query);
        let keep = |index: usize| {
            let level = self.access(caller, index).level();
            let member = match (owned, least) {
                (true, _) => level >= 50,
                (false, Some(least)) => level >= least,
                (false, None) if member_only => level > 0,
                (false, None) => self.visible(caller, index),
            };
            member && self.matches(index, &filter)
        };
        self.page(seen, query, &list, caller, true, keep)
    }

    /// The filters that every project listing has.
    pub(super) fn matches(&self, index: usize, filter: &Filter) -> bool {
        let archived = Data::archived(index);
        filter.archived.is_none_or(|wanted| wanted == archived)
            && filter.visibility.as_deref().is_none_or(|wanted| wanted == self.data.visibility(index))
            && (!filter.active || !(archived || index == 6))
            && filter.search.as_deref().is_none_or(|search| self.found(index, search, filter.namespaces))
    }

    fn found(&self, index: usize, search: &str, namespaces: bool) -> bool {
        let project = self.data.project(index);
        let mut text = format!("{}\n{}\n{}", project.name, project.path, project.description);
        if namespaces {
            text.push('\n');
            text.push_str(&self.data.full_path(index));
        }
        text.to_lowercase().contains(search)
    }

    /// One page of projects: the indexes that `keep` keeps, in the order asked for.
    pub(super) fn page(
        &self,
        seen: &Seen,
        query: &Query,
        list: &List,
        caller: Option<&GitlabToken>,
        permissions: bool,
        keep: impl Fn(usize) -> bool,
    ) -> Result<Reply, Reply> {
        let after = query.first("id_after").map_or(Ok(0), |id| number(id, "id_after"))?;
        let before = query.first("id_before").map_or(Ok(u64::MAX), |id| number(id, "id_before"))?;
        let first = if after == 0 { 0 } else { self.data.first_after(after) };
        let end = match before {
            u64::MAX => self.data.total(),
            before => self.data.first_after(before.saturating_sub(1)),
        };
        let range = first..end.max(first);
        let ascending = range.clone().filter(|index| keep(*index));
        if list.keyset {
            let rows: Vec<usize> = if list.descending {
                range.rev().filter(|index| keep(*index)).take(list.per_page).collect()
            } else {
                ascending.take(list.per_page).collect()
            };
            let reply = self.rows(&rows, query, caller, permissions);
            let Some(last) = rows.last() else {
                return Ok(reply);
            };
            let name = if list.descending { "id_before" } else { "id_after" };
            let next = query.with(name, self.data.id(*last)).encode();
            return Ok(reply.header("link", self.link(seen, &next, "next")));
        }
        if let Some(limit) = self.config.offset_limit
            && (list.page * list.per_page) as u64 > limit
        {
            return Err(too_deep(limit));
        }
        let mut rows: Vec<usize> = ascending.collect();
        let total = rows.len();
        if list.by_name {
            rows.sort_by_cached_key(|index| self.data.project(*index).path);
        }
        if list.descending {
            rows.reverse();
        }
        let rows = &rows[list.range(total)];
        let reply = self.rows(rows, query, caller, permissions);
        Ok(self.offset_headers(reply, seen, query, list, total))
    }

    fn rows(
        &self,
        indexes: &[usize],
        query: &Query,
        caller: Option<&GitlabToken>,
        permissions: bool,
    ) -> Reply {
        let mut body = String::with_capacity(indexes.len() * 2_400 + 2);
        body.push('[');
        for (place, index) in indexes.iter().enumerate() {
            if place > 0 {
                body.push(',');
            }
            let view = self.view(*index, query, caller, permissions);
            self.data.render(&self.data.project(*index), view, &mut body);
        }
        body.push(']');
        Reply::new(200, "application/json", body)
    }

    fn view(&self, index: usize, query: &Query, caller: Option<&GitlabToken>, permissions: bool) -> View {
        let access = self.access(caller, index);
        View {
            simple: query.flag("simple"),
            access: permissions.then_some(access),
            anonymous: caller.is_none(),
            statistics: query.flag("statistics") && access.level() >= 20,
            code: access.level() >= 20 || self.data.visibility(index) != "private",
        }
    }

    /// The header set of an offset page; totals and `last` are left out above the limit.
    pub(super) fn offset_headers(
        &self,
        reply: Reply,
        seen: &Seen,
        query: &Query,
        list: &List,
        total: usize,
    ) -> Reply {
        let pages = total.div_ceil(list.per_page).max(1);
        let counted = total <= self.config.total_limit;
        let next = (list.page < pages).then_some(list.page + 1);
        let previous = (list.page > 1).then(|| (list.page - 1).min(pages));
        let mut links = Vec::new();
        let query = query.with("per_page", list.per_page);
        let mut link = |page: Option<usize>, relation: &str| {
            if let Some(page) = page {
                links.push(self.link(seen, &query.with("page", page).encode(), relation));
            }
        };
        link(previous, "prev");
        link(next, "next");
        link(Some(1), "first");
        link(counted.then_some(pages), "last");
        let text = |page: Option<usize>| page.map(|page| page.to_string()).unwrap_or_default();
        let reply = reply
            .header("link", links.join(", "))
            .header("x-next-page", text(next))
            .header("x-page", list.page)
            .header("x-per-page", list.per_page)
            .header("x-prev-page", text(previous));
        if counted { reply.header("x-total", total).header("x-total-pages", pages) } else { reply }
    }

    /// A link under the configured URL, which need not be the one the client uses.
    pub(super) fn link(&self, seen: &Seen, query: &str, relation: &str) -> String {
        let path = seen.path.trim_start_matches("/gitlab");
        format!("<{}{path}?{query}>; rel=\"{relation}\"", self.data.external)
    }

    pub(super) fn project(
        &self,
        method: &str,
        id: &str,
        rest: &[&str],
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        if self.config.decodes_slashes && id.to_ascii_lowercase().contains("%2f") {
            return Err(unrouted());
        }
        let caller = self.anybody(seen)?;
        let caller = caller.as_ref();
        let path = decode(id);
        let moved = path.eq_ignore_ascii_case(OLD_PATH);
        let index = match id.parse::<u64>() {
            Ok(id) => self.data.of_id(id),
            Err(_) if moved => Some(0),
            Err(_) => self.data.of_path(&path),
        };
        let index = index.filter(|index| *index < self.data.total() && self.visible(caller, *index));
        let Some(index) = index else {
            return Err(message(404, "404 Project Not Found"));
        };
        if moved {
            return Err(self.moved(method, index, rest, seen));
        }
        match (method, rest) {
            ("GET" | "HEAD", []) => {
                let mut body = String::new();
                let view = View { simple: false, ..self.view(index, query, caller, true) };
                self.data.render(&self.data.project(index), view, &mut body);
                Ok(Reply::new(200, "application/json", body))
            }
            ("GET" | "HEAD", ["repository", kind @ ("branches" | "tags")]) => {
                let view = self.view(index, query, caller, true);
                self.repository_refs(&self.data.project(index), view, *kind == "tags", seen, query)
            }
            (_, ["hooks", rest @ ..]) => {
                let caller = caller.ok_or_else(unauthorized)?;
                let level = self.access(Some(caller), index).level();
                self.webhooks(caller, (index, level), rest, seen, query)
            }
            _ => Err(unrouted()),
        }
    }

    /// The old path of a moved project: plain text, and a location under the configured URL.
    fn moved(&self, method: &str, index: usize, rest: &[&str], seen: &Seen) -> Reply {
        if method != "GET" && method != "HEAD" {
            return message(405, "Non GET methods are not allowed for moved projects");
        }
        let tail: String = rest.iter().map(|segment| format!("/{segment}")).collect();
        let query = if seen.query.is_empty() { String::new() } else { format!("?{}", seen.query) };
        let id = self.data.id(index);
        let location = format!("{}/api/v4/projects/{id}{tail}{query}", self.data.external);
        let text = format!("This resource has been moved permanently to {location}.");
        Reply::new(301, "text/plain", text).header("location", location)
    }
}

/// What a listing of projects is narrowed by.
#[derive(Debug)]
pub(super) struct Filter {
    archived: Option<bool>,
    visibility: Option<String>,
    active: bool,
    /// In lower case.
    search: Option<String>,
    namespaces: bool,
}

impl Filter {
    pub(super) fn read(query: &Query) -> Self {
        let search = query.first("search").filter(|search| !search.is_empty());
        Self {
            archived: query.first("archived").and_then(|value| value.parse().ok()),
            visibility: query.first("visibility").map(str::to_owned),
            active: query.flag("active"),
            search: search.map(str::to_lowercase),
            namespaces: query.flag("search_namespaces"),
        }
    }
}

/// How a listing of projects is asked for.
#[derive(Debug)]
pub(super) struct List {
    keyset: bool,
    by_name: bool,
    pub(super) descending: bool,
    page: usize,
    per_page: usize,
}

impl List {
    pub(super) fn offset(page: usize, per_page: usize) -> Self {
        Self { keyset: false, by_name: false, descending: false, page, per_page }
    }

    /// The places of an offset page among so many rows.
    pub(super) fn range(&self, total: usize) -> Range<usize> {
        let start = ((self.page - 1) * self.per_page).min(total);
        start..(start + self.per_page).min(total)
    }

    /// Grape's checks of the values, then the one of the pager.
    pub(super) fn parse(query: &Query) -> Result<Self, Reply> {
        const ORDERS: &[&str] = &[
            "id",
            "name",
            "path",
            "created_at",
            "updated_at",
            "last_activity_at",
            "similarity",
            "star_count",
            "storage_size",
            "repository_size",
            "wiki_size",
            "packages_size",
        ];
        let order = one_of(query, "order_by", ORDERS)?.unwrap_or("created_at");
        let sort = one_of(query, "sort", &["asc", "desc"])?.unwrap_or("desc");
        one_of(query, "visibility", &["private", "internal", "public"])?;
        let keyset = one_of(query, "pagination", &["legacy", "keyset"])? == Some("keyset");
        let (page, per_page) = page_of(query)?;
        if keyset && order != "id" {
            return Err(no_keyset());
        }
        Ok(Self {
            keyset,
            by_name: matches!(order, "name" | "path"),
            descending: sort == "desc",
            page,
            per_page,
        })
    }
}

pub(super) fn one_of<'a>(query: &'a Query, name: &str, known: &[&str]) -> Result<Option<&'a str>, Reply> {
    match query.first(name) {
        Some(value) if !known.contains(&value) => Err(invalid(name, "does not have a valid value")),
        value => Ok(value),
    }
}

fn least_access(query: &Query) -> Result<Option<u8>, Reply> {
    match query.first("min_access_level") {
        None => Ok(None),
        Some(level @ ("10" | "15" | "20" | "30" | "40" | "50")) => Ok(level.parse().ok()),
        Some(_) => Err(invalid("min_access_level", "does not have a valid value")),
    }
}

/// Page and size: 20 by default, cut at 100 without a word.
pub(super) fn page_of(query: &Query) -> Result<(usize, usize), Reply> {
    let read = |name: &str, default: u64| {
        let value = query.first(name).map_or(Ok(default), |value| number(value, name))?;
        match usize::try_from(value) {
            Ok(0) | Err(_) => Err(invalid(name, "does not have a valid value")),
            Ok(value) => Ok(value),
        }
    };
    let (page, per_page) = (read("page", 1)?, read("per_page", 20)?);
    Ok((page.min(u32::MAX as usize), per_page.min(MAX_PAGE)))
}

fn number(value: &str, name: &str) -> Result<u64, Reply> {
    value.parse().map_err(|_| invalid(name, "is invalid"))
}
