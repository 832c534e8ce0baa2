//! Branches and tags of a project.

use serde_json::{Value, json};

use super::super::refs::Refs;
use super::super::wire::{Query, Reply, Seen};
use super::Instance;
use super::data::{Project, View};
use super::projects::{List, one_of, page_of};
use super::refusal::{message, unrouted};

impl Instance {
    /// `repository/branches` and `repository/tags`, as `branches_finder.rb` and `tags_finder.rb` answer: a keyset by
    /// name, except in a search, which answers everything at once then and else counts all refs.
    pub(super) fn repository_refs(
        &self,
        project: &Project,
        view: View,
        tags: bool,
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        if !view.code {
            return Err(message(403, "403 Forbidden"));
        }
        const KNOWN: &[&str] =
            &["page", "per_page", "search", "regex", "sort", "page_token", "pagination", "order_by"];
        if query.names().any(|name| !KNOWN.contains(&name)) {
            return Err(unrouted());
        }
        if tags {
            one_of(query, "order_by", &["name", "updated", "version"])?;
            one_of(query, "sort", &["asc", "desc"])?;
        } else {
            one_of(query, "sort", &["name_asc", "updated_asc", "updated_desc"])?;
        }
        let keyset = one_of(query, "pagination", &["legacy", "keyset"])? == Some("keyset");
        let (page, per_page) = page_of(query)?;
        let all: &[String] = if project.empty { &[] } else { self.refs.names(tags) };
        let search = query.first("search").map(str::to_lowercase);
        let found: Vec<&str> = all
            .iter()
            .map(String::as_str)
            .filter(|name| search.as_ref().is_none_or(|search| is_found(&name.to_lowercase(), search)))
            .collect();
        if keyset && search.is_some() {
            return Ok(rows(&found, tags));
        }
        if keyset {
            let start = match query.first("page_token") {
                None => 0,
                Some(after) => match found.iter().position(|name| *name == after) {
                    Some(at) => at + 1,
                    None if tags => {
                        return Err(message(422, &format!("Invalid page token: refs/tags/{after}")));
                    }
                    None => found.partition_point(|name| *name <= after),
                },
            };
            let end = found.len().min(start + per_page);
            let reply = rows(&found[start..end], tags);
            if end == found.len() || start == end {
                return Ok(reply);
            }
            let next = query.with("page_token", found[end - 1]).encode();
            return Ok(reply.header("link", self.link(seen, &next, "next")));
        }
        // Some 19.x have nothing behind the first page (GitLab #605032).
        let is_broken = page > 1 && self.config.version.starts_with("19.");
        let start = if is_broken { found.len() } else { ((page - 1) * per_page).min(found.len()) };
        let reply = rows(&found[start..found.len().min(start + per_page)], tags);
        Ok(self.offset_headers(reply, seen, query, &List::offset(page, per_page), all.len()))
    }
}

/// The operators of the search: `^prefix`, `suffix$`.
fn is_found(name: &str, search: &str) -> bool {
    match (search.strip_prefix('^'), search.strip_suffix('$')) {
        (Some(prefix), _) => name.starts_with(prefix),
        (None, Some(suffix)) => name.ends_with(suffix),
        (None, None) => name.contains(search),
    }
}

fn rows(names: &[&str], tags: bool) -> Reply {
    let commit = |name: &str| {
        let id = Refs::commit(name);
        json!({"id": id, "short_id": &id[..8], "title": "Add the page", "parent_ids": [], "message": "Add the page\n",
            "author_name": "Casey", "author_email": "masked@example.com", "committed_date": "2026-02-01T09:00:00.000Z"})
    };
    let rows: Vec<Value> = names
        .iter()
        .map(|&name| {
            if tags {
                json!({"name": name, "message": null, "target": Refs::tag_object(name), "commit": commit(name),
                    "release": null, "protected": false})
            } else {
                json!({"name": name, "merged": false, "protected": Refs::is_protected(name),
                    "developers_can_push": false, "developers_can_merge": false, "can_push": true,
                    "default": name == "main", "commit": commit(name)})
            }
        })
        .collect();
    Reply::json(200, &Value::Array(rows))
}
