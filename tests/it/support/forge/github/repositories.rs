//! Repositories: listings, pages, single ones, their branches, tags and hooks.

use serde_json::{Value, json};

use super::super::refs::Refs;
use super::super::wire::{Query, Reply, Seen, decode};
use super::data::{Data, OLD_NAME, Role};
use super::refusal::{blocked, json_reply, message, not_accessible, not_found, single_sign_on};
use super::tokens::{GithubToken, TokenKind};
use super::{Instance, Paged};

impl Instance {
    /// `/user/repos`.
    pub(super) fn own_repositories(&self, caller: &GithubToken, query: &Query) -> Result<Reply, Reply> {
        if caller.kind == TokenKind::Installation {
            return Err(not_accessible("integration", "metadata=read"));
        }
        let exclusive = query.first("type").is_some()
            && (query.first("visibility").is_some() || query.first("affiliation").is_some());
        if exclusive {
            let text = "If you specify visibility or affiliation, you cannot specify type.";
            return Err(message(422, text));
        }
        let (sort, direction) = (query.first("sort").unwrap_or("full_name"), query.first("direction"));
        let descending = direction.map_or(sort != "full_name", |direction| direction == "desc");
        let owned = query.first("affiliation") == Some("owner");
        let mut rows = self.seen_by(caller);
        rows.retain(|index| !owned || self.data.owner(*index).user);
        if sort == "full_name" {
            rows.sort_by_cached_key(|index| self.data.full_name(*index).to_lowercase());
        }
        if descending {
            rows.reverse();
        }
        let path = if self.config.moved_links {
            format!("/user/{}/repos", caller.user_id)
        } else {
            "/user/repos".to_owned()
        };
        let paged = Paged::of(query, rows.len());
        if self.config.slow_above.is_some_and(|most| paged.per_page > most) {
            return Err(Reply::html(502, "<html><head><title>502 Bad Gateway</title></head></html>"));
        }
        let body = self.rows(caller, &rows[paged.range.clone()]);
        let reply = Reply::new(200, "application/json; charset=utf-8", body);
        Ok(self.hidden(self.linked(reply, &path, query, &paged), caller))
    }

    /// `/installation/repositories`.
    pub(super) fn installation(&self, caller: &GithubToken, query: &Query) -> Result<Reply, Reply> {
        if caller.kind != TokenKind::Installation {
            return Err(message(
                403,
                "You must authenticate with an installation access token in order to list repositories for an installation.",
            ));
        }
        let rows = self.seen_by(caller);
        let paged = Paged::of(query, rows.len());
        let body = format!(
            "{{\"total_count\":{},\"repositories\":{}}}",
            rows.len(),
            self.rows(caller, &rows[paged.range.clone()])
        );
        let reply = Reply::new(200, "application/json; charset=utf-8", body);
        Ok(self.linked(reply, "/installation/repositories", query, &paged))
    }

    /// Names the organizations that were left out of a list.
    pub(super) fn hidden(&self, reply: Reply, caller: &GithubToken) -> Reply {
        if caller.single_sign_on {
            return reply;
        }
        let hidden = self.data.owners[1].id;
        reply.header("x-github-sso", format!("partial-results; organizations={hidden}"))
    }

    /// What a caller sees, in the order of making.
    fn seen_by(&self, caller: &GithubToken) -> Vec<usize> {
        (0..self.data.count())
            .filter(|index| self.role(caller, *index) > Role::Stranger)
            .filter(|index| caller.single_sign_on || self.data.owner(*index).id != self.data.owners[1].id)
            .collect()
    }

    /// The role of a caller in a repository.
    pub(super) fn role(&self, caller: &GithubToken, index: usize) -> Role {
        let public = Data::visibility(index) == "public";
        let role = match caller.kind {
            // Both are of one owner, here the first organization.
            TokenKind::FineGrained | TokenKind::Installation
                if self.data.owner(index).id != self.data.owners[0].id =>
            {
                Role::Stranger
            }
            TokenKind::Installation => Role::Pull,
            _ if caller.login == "robin" && index.is_multiple_of(3) => Role::Pull,
            _ if caller.login == "robin" => Role::Stranger,
            _ => Data::role(index),
        };
        let role = if caller.reads_only { role.min(Role::Pull) } else { role };
        let private_too = caller.kind != TokenKind::Classic || caller.has(&["repo"]);
        if private_too || public { role } else { Role::Stranger }
    }

    fn rows(&self, caller: &GithubToken, indexes: &[usize]) -> String {
        let mut body = String::with_capacity(indexes.len() * 5_600 + 2);
        body.push('[');
        for (place, index) in indexes.iter().enumerate() {
            if place > 0 {
                body.push(',');
            }
            if self.config.null_rows && place % 10 == 9 {
                body.push_str("null,");
            }
            self.data.render(*index, self.shown_role(caller, *index), &mut body);
        }
        body.push(']');
        body
    }

    /// A row shows the role of the user, whatever the token may do; that of an App's installation shows none.
    fn shown_role(&self, caller: &GithubToken, index: usize) -> Role {
        if caller.kind == TokenKind::Installation { Role::Stranger } else { self.role(caller, index) }
    }

    /// `/repos/{owner}/{name}/…`.
    pub(super) fn by_name(
        &self,
        caller: &GithubToken,
        owner: &str,
        name: &str,
        rest: &[&str],
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let (owner, name) = (decode(owner), decode(name));
        if format!("{owner}/{name}").eq_ignore_ascii_case(OLD_NAME) && self.data.count() > 0 {
            return Err(self.moved(&seen.method, 0, rest));
        }
        let index = self.data.of_name(&owner, &name).ok_or_else(not_found)?;
        self.repository(caller, index, rest, seen, query)
    }

    /// A redirect, whose body calls itself permanent for every method (`exchanges/repo-301-renamed.json`).
    fn moved(&self, method: &str, index: usize, rest: &[&str]) -> Reply {
        let tail: String = rest.iter().map(|segment| format!("/{segment}")).collect();
        let url = format!("{}/repositories/{}{tail}", self.data.api, Data::id(index));
        let status = if method == "GET" || method == "HEAD" { 301 } else { 307 };
        let body = json!({"message": "Moved Permanently", "url": url,
            "documentation_url": "https://docs.github.com/rest/guides/best-practices-for-using-the-rest-api#follow-redirects"});
        json_reply(status, &body).header("location", url)
    }

    /// `/repositories/{id}/…`.
    pub(super) fn by_id(
        &self,
        caller: &GithubToken,
        id: &str,
        rest: &[&str],
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let index = id.parse().ok().and_then(|id| self.data.of_id(id)).ok_or_else(not_found)?;
        self.repository(caller, index, rest, seen, query)
    }

    fn repository(
        &self,
        caller: &GithubToken,
        index: usize,
        rest: &[&str],
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let role = self.role(caller, index);
        if role == Role::Stranger {
            return Err(not_found());
        }
        let owner = self.data.owner(index);
        if !caller.single_sign_on && owner.id == self.data.owners[1].id {
            return Err(single_sign_on(&self.data.web, &owner.login));
        }
        if Data::blocked(index) {
            return Err(blocked());
        }
        match (seen.method.as_str(), rest) {
            ("GET" | "HEAD", []) => {
                let mut body = String::new();
                self.data.render(index, self.shown_role(caller, index), &mut body);
                Ok(Reply::new(200, "application/json; charset=utf-8", body))
            }
            ("GET" | "HEAD", [kind @ ("branches" | "tags")]) => {
                need(caller, index, "contents=read")?;
                Ok(self.references(index, kind, query))
            }
            (_, ["hooks", rest @ ..]) => self.webhooks(caller, index, rest, seen, query),
            _ => Err(not_found()),
        }
    }

    /// Branches and tags; their pages are linked by the number of the repository (`exchanges/tags-page1-200.json`).
    fn references(&self, index: usize, kind: &str, query: &Query) -> Reply {
        let all: &[String] = if Data::empty(index) { &[] } else { self.refs.names(kind == "tags") };
        let paged = Paged::of(query, all.len());
        let base = format!("{}/repos/{}", self.data.api, self.data.full_name(index));
        let rows: Vec<Value> = all[paged.range.clone()]
            .iter()
            .map(|name| {
                let sha = Refs::commit(name);
                let commit = json!({"sha": sha, "url": format!("{base}/commits/{sha}")});
                if kind == "tags" {
                    json!({"name": name, "commit": commit, "zipball_url": format!("{base}/zipball/refs/tags/{name}"),
                        "tarball_url": format!("{base}/tarball/refs/tags/{name}"), "node_id": "REF_kwDO"})
                } else {
                    json!({"name": name, "commit": commit, "protected": Refs::is_protected(name),
                        "protection": {"enabled": false, "required_status_checks": {"enforcement_level": "off",
                            "contexts": [], "checks": []}},
                        "protection_url": format!("{base}/branches/{name}/protection")})
                }
            })
            .collect();
        let path = format!("/repositories/{}/{kind}", Data::id(index));
        self.linked(json_reply(200, &Value::Array(rows)), &path, query, &paged)
    }
}

/// Refuses a token without scopes that lacks a permission; what is public, anybody reads.
pub(super) fn need(caller: &GithubToken, index: usize, wanted: &str) -> Result<(), Reply> {
    let is_public = index != usize::MAX && Data::visibility(index) == "public";
    let by = match caller.kind {
        TokenKind::Classic => return Ok(()),
        TokenKind::FineGrained => "personal access token",
        TokenKind::Installation => "integration",
    };
    if is_public || caller.has(&[wanted]) { Ok(()) } else { Err(not_accessible(by, wanted)) }
}
