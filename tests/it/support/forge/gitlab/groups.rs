//! Groups and namespaces.

use base64::Engine;
use serde_json::{Value, json};

use super::super::lock;
use super::super::wire::{Query, Reply, Seen, decode};
use super::data::OWNER;
use super::projects::{Filter, List, page_of};
use super::refusal::{invalid, message, no_keyset};
use super::tokens::{OWNER_ID, TokenKind};
use super::{Instance, READING};

impl Instance {
    pub(super) fn groups(&self, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
        let caller = self.anybody(seen)?;
        let (page, per_page) = page_of(query)?;
        let own = self.data.namespaces.len() - 1;
        let search = query.first("search").unwrap_or_default().to_lowercase();
        let mut rows: Vec<usize> = (0..own)
            .filter(|place| {
                let group = &self.data.namespaces[*place];
                let open = match &caller {
                    None => false,
                    Some(token) => match token.kind {
                        TokenKind::Project => false,
                        TokenKind::Group => group.full_path.starts_with("acme"),
                        _ => true,
                    },
                };
                let top = !query.flag("top_level_only") || group.parent.is_none();
                open && top && group.full_name.to_lowercase().contains(&search)
            })
            .collect();
        rows.sort_by_key(|place| &self.data.namespaces[*place].name);
        if query.first("sort") == Some("desc") {
            rows.reverse();
        }
        let total = rows.len();
        let keyset = query.first("pagination") == Some("keyset");
        if keyset && query.first("order_by").is_some_and(|order| order != "name") {
            return Err(no_keyset());
        }
        let start = if keyset { cursor(query)? } else { (page - 1) * per_page };
        let start = start.min(total);
        let end = (start + per_page).min(total);
        let body: Vec<Value> = rows[start..end].iter().map(|place| self.group_row(*place)).collect();
        let reply = Reply::json(200, &Value::from(body));
        if !keyset {
            let list = List::offset(page, per_page);
            return Ok(self.offset_headers(reply, seen, query, &list, total));
        }
        if end == total {
            return Ok(reply);
        }
        let next =
            base64::engine::general_purpose::URL_SAFE.encode(json!({"_kd": "n", "at": end}).to_string());
        let next = query.with("cursor", next).encode();
        Ok(reply.header("link", self.link(seen, &next, "next")))
    }

    fn group_row(&self, place: usize) -> Value {
        let group = &self.data.namespaces[place];
        json!({"id": group.id, "name": group.name, "path": group.path, "description": "", "visibility": "private",
            "share_with_group_lock": false, "require_two_factor_authentication": false, "lfs_enabled": true,
            "avatar_url": null, "web_url": format!("{}/groups/{}", self.data.external, group.full_path),
            "request_access_enabled": false, "full_name": group.full_name, "full_path": group.full_path,
            "created_at": "2020-01-15T12:36:29.590Z", "parent_id": group.parent, "archived": false})
    }

    /// The place of a group, by number or encoded full path.
    fn find_group(&self, id: &str) -> Result<usize, Reply> {
        let path = decode(id);
        let found = self.data.namespaces.iter().position(|group| {
            !group.user && (group.id.to_string() == path || group.full_path.eq_ignore_ascii_case(&path))
        });
        found.ok_or_else(|| message(404, "404 Group Not Found"))
    }

    pub(super) fn group(&self, id: &str, seen: &Seen) -> Result<Reply, Reply> {
        self.member(seen, READING)?;
        Ok(Reply::json(200, &self.group_row(self.find_group(id)?)))
    }

    /// Offset only, whatever is asked for, and rows without `permissions`.
    pub(super) fn group_projects(&self, id: &str, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
        let caller = self.anybody(seen)?;
        let group = self.data.namespaces[self.find_group(id)?].full_path.clone();
        let below = format!("{group}/");
        let (page, per_page) = page_of(query)?;
        let mut list = List::offset(page, per_page);
        list.descending = query.first("sort").is_none_or(|sort| sort == "desc");
        let filter = Filter::read(query);
        let subgroups = query.flag("include_subgroups");
        let keep = |index: usize| {
            let path = &self.data.namespace(index).full_path;
            let inside = *path == group || subgroups && path.starts_with(&below);
            inside && self.visible(caller.as_ref(), index) && self.matches(index, &filter)
        };
        self.page(seen, query, &list, caller.as_ref(), false, keep)
    }

    pub(super) fn user_projects(&self, id: &str, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
        let caller = self.anybody(seen)?;
        let list = List::parse(query)?;
        let known =
            lock(&self.tokens).iter().any(|token| token.username == id || token.user_id.to_string() == id);
        if !known {
            return Err(message(404, "404 User Not Found"));
        }
        let owner = id == OWNER || id == OWNER_ID.to_string();
        let filter = Filter::read(query);
        let keep = |index: usize| {
            let own = owner && self.data.namespace(index).user;
            own && self.visible(caller.as_ref(), index) && self.matches(index, &filter)
        };
        self.page(seen, query, &list, caller.as_ref(), true, keep)
    }

    pub(super) fn namespaces(&self, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
        let token = self.member(seen, READING)?;
        let (page, per_page) = page_of(query)?;
        let search = query.first("search").unwrap_or_default().to_lowercase();
        let rows: Vec<Value> = self
            .data
            .namespaces
            .iter()
            .filter(|space| !token.bot() && (!space.user || token.username == OWNER))
            .filter(|space| space.full_path.contains(&search))
            .map(|space| {
                let below = if space.user { String::new() } else { "groups/".to_owned() };
                let kind = if space.user { "user" } else { "group" };
                json!({"id": space.id, "name": space.name, "path": space.path, "kind": kind,
                    "full_path": space.full_path, "parent_id": space.parent, "avatar_url": null,
                    "web_url": format!("{}/{below}{}", self.data.external, space.full_path),
                    "billable_members_count": 2, "plan": "default", "trial": false})
            })
            .collect();
        let total = rows.len();
        let start = ((page - 1) * per_page).min(total);
        let body = Value::from(&rows[start..(start + per_page).min(total)]);
        let list = List::offset(page, per_page);
        Ok(self.offset_headers(Reply::json(200, &body), seen, query, &list, total))
    }
}

fn cursor(query: &Query) -> Result<usize, Reply> {
    let Some(cursor) = query.first("cursor") else {
        return Ok(0);
    };
    let clear = base64::engine::general_purpose::URL_SAFE.decode(cursor).ok();
    let value = clear.and_then(|clear| serde_json::from_slice::<Value>(&clear).ok());
    let at = value.and_then(|value| value["at"].as_u64());
    at.and_then(|at| usize::try_from(at).ok()).ok_or_else(|| invalid("cursor", "is invalid"))
}
