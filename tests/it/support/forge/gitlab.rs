//! The fake GitLab: authentication, identity, projects, groups.

use std::io;
use std::sync::Mutex;

use base64::Engine;
use serde_json::{Value, json};

use super::gitlab_data::{Access, Data, OLD_PATH, OWNER, View};
use super::wire::{Query, Reply, Seen, decode};
use super::{ForgeConfig, broken, lock};

/// The tokens that the fake GitLab knows. They look right and are worth nothing anywhere else.
pub(crate) mod tokens {
    /// Scope `api`, ends in 300 days.
    pub(crate) const GOOD: &str = "glpat-forgeGoodApi00000001";
    /// Scopes `read_api` and `read_repository`.
    pub(crate) const READ_ONLY: &str = "glpat-forgeReadOnly0000002";
    /// Scope `read_repository` only: clones, but sees no API beyond itself.
    pub(crate) const NARROW: &str = "glpat-forgeNarrowGit000003";
    /// Scope `read_user` only.
    pub(crate) const USER_ONLY: &str = "glpat-forgeReadUser0000013";
    /// Scope `api`, ends in 7 days.
    pub(crate) const EXPIRING: &str = "glpat-forgeExpiresSoon0004";
    /// A service account's, without an end.
    pub(crate) const ENDLESS: &str = "glpat-forgeNoExpiry0000014";
    /// Ended yesterday.
    pub(crate) const EXPIRED: &str = "glpat-forgeExpired00000005";
    /// Revoked.
    pub(crate) const REVOKED: &str = "glpat-forgeRevoked00000006";
    /// Good, but its user is blocked.
    pub(crate) const BLOCKED: &str = "glpat-forgeBlockedUser0007";
    /// Fine-grained: may list projects, nothing about itself.
    pub(crate) const GRANULAR: &str = "glpat-forgeFineGrained0008";
    /// A project access token of the first project.
    pub(crate) const PROJECT: &str = "glpat-forgeProjectBot00009";
    /// A group access token of the first group and its subgroups.
    pub(crate) const GROUP: &str = "glpat-forgeGroupBot0000010";
    /// Another person's, scope `api`.
    pub(crate) const SECOND: &str = "glpat-forgeSecondUser00011";
    /// An OAuth access token of the first person.
    pub(crate) const OAUTH: &str = "5f0e0c7e1d2b4a6988776655443322110f0e0d0c0b0a09080706050403020100";
    /// What no server knows.
    pub(crate) const UNKNOWN: &str = "glpat-forgeNobodyKnows0012";

    /// Every token with what it is, for a person to read.
    pub(crate) const ALL: &[(&str, &str)] = &[
        (GOOD, "api"),
        (READ_ONLY, "read_api, read_repository"),
        (NARROW, "read_repository only"),
        (USER_ONLY, "read_user only"),
        (EXPIRING, "api, ends in 7 days"),
        (ENDLESS, "api, service account, never ends"),
        (EXPIRED, "expired"),
        (REVOKED, "revoked"),
        (BLOCKED, "its user is blocked"),
        (GRANULAR, "fine-grained"),
        (PROJECT, "project access token (bot, one repository)"),
        (GROUP, "group access token (bot)"),
        (SECOND, "api, another user"),
        (OAUTH, "OAuth access token"),
    ];
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A person's or service account's.
    Personal,
    /// Of the first project.
    Project,
    /// Of the first group.
    Group,
    /// From the OAuth flow.
    OAuth,
}

/// Whether a token works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenState {
    /// It does.
    Active,
    /// Past its end.
    Expired,
    /// Taken back.
    Revoked,
    /// Its user is blocked.
    Blocked,
}

/// A token and its user.
#[derive(Clone, Debug)]
pub(crate) struct GitlabToken {
    /// The token.
    pub(crate) token: String,
    /// What it is.
    pub(crate) kind: TokenKind,
    /// Whether it works.
    pub(crate) state: TokenState,
    /// Its scopes.
    pub(crate) scopes: Vec<String>,
    /// Whether it is fine-grained (permissions instead of scopes).
    pub(crate) granular: bool,
    /// `expires_at`, a date; it ends at 00:00 UTC of that day.
    pub(crate) expires_at: Option<String>,
    /// The number of the token itself.
    pub(crate) id: u64,
    /// The user's number.
    pub(crate) user_id: u64,
    /// The user's login.
    pub(crate) username: String,
    /// The user's display name.
    pub(crate) name: String,
    /// The user's address.
    pub(crate) email: String,
}

impl GitlabToken {
    fn has(&self, wanted: &[&str]) -> bool {
        self.scopes.iter().any(|scope| wanted.contains(&scope.as_str()))
    }

    fn bot(&self) -> bool {
        matches!(self.kind, TokenKind::Project | TokenKind::Group)
    }
}

/// Scopes that open the reading API.
const READING: &[&str] = &["api", "read_api"];
/// Scopes that open `/user`, `/metadata` and `/version`.
const IDENTITY: &[&str] = &["api", "read_api", "read_user"];
/// Pages are cut at this size.
const MAX_PAGE: usize = 100;

/// The fake GitLab of one forge.
#[derive(Debug)]
pub(super) struct Instance {
    config: super::GitlabConfig,
    pub(super) data: Data,
    tokens: Mutex<Vec<GitlabToken>>,
    user: Value,
    metadata: Value,
}

impl Instance {
    /// Reads the recorded answers.
    pub(super) fn build(config: &ForgeConfig, origin: &str) -> io::Result<Self> {
        let external = config.gitlab.external_url.clone();
        let external = external.unwrap_or_else(|| format!("{origin}/gitlab"));
        let user = include_str!("../../../fixtures/providers/gitlab/go-scm/user.json");
        let metadata = include_str!("../../../fixtures/providers/gitlab/gitlab4j/metadata.json");
        Ok(Self {
            data: Data::build(&config.gitlab, external)?,
            tokens: Mutex::new(issue(config.today)),
            user: serde_json::from_str(user).map_err(|error| broken("user.json", error))?,
            metadata: serde_json::from_str(metadata).map_err(|error| broken("metadata.json", error))?,
            config: config.gitlab.clone(),
        })
    }

    /// Changes a token.
    pub(super) fn edit_token(&self, token: &str, edit: impl FnOnce(&mut GitlabToken)) {
        if let Some(known) = lock(&self.tokens).iter_mut().find(|known| known.token == token) {
            edit(known);
        }
    }

    /// Answers a request; `path` is what follows the relative root.
    pub(super) fn answer(&self, path: &str, seen: &Seen) -> Reply {
        let reply = self.route(path, seen).unwrap_or_else(|refusal| refusal);
        // Set on every real answer; nothing is in them for a client, but it must bear them.
        reply
            .header("cache-control", "max-age=0, private, must-revalidate")
            .header("vary", "Origin")
            .header("x-request-id", "01JFORGE0000000000000000")
            .header("x-runtime", "0.031337")
    }

    fn route(&self, path: &str, seen: &Seen) -> Result<Reply, Reply> {
        if path == "/oauth/token/info" {
            return self.token_info(seen);
        }
        let Some(api) = path.strip_prefix("/api/v4/") else {
            return Err(outside(path));
        };
        let segments: Vec<&str> = api.split('/').collect();
        let query = seen.params();
        match (seen.method.as_str(), segments.as_slice()) {
            ("GET" | "HEAD", ["version" | "metadata"]) => self.version(segments[0], seen),
            ("GET" | "HEAD", ["personal_access_tokens", "self"]) => self.own_token(seen),
            ("GET" | "HEAD", ["user"]) => self.own_user(seen),
            ("GET" | "HEAD", ["projects"]) => self.projects(seen, &query),
            (method, ["projects", id, rest @ ..]) => self.project(method, id, rest, seen, &query),
            ("GET" | "HEAD", ["groups"]) => self.groups(seen, &query),
            ("GET" | "HEAD", ["groups", id]) => self.group(id, seen),
            ("GET" | "HEAD", ["groups", id, "projects"]) => self.group_projects(id, seen, &query),
            ("GET" | "HEAD", ["users", id, "projects"]) => self.user_projects(id, seen, &query),
            ("GET" | "HEAD", ["namespaces"]) => self.namespaces(seen, &query),
            _ => Err(unrouted()),
        }
    }

    // --- who asks ---

    /// The token of a request: `None` is anonymous, which a missing or empty token and Basic are as well.
    fn caller(&self, seen: &Seen) -> Result<Option<GitlabToken>, Reply> {
        let private = seen.header("private-token").filter(|token| !token.is_empty());
        let (token, bearer) = match (private, seen.header("authorization")) {
            (Some(token), _) => (token, false),
            (None, Some(value)) => match value.split_once(' ') {
                Some((scheme, token))
                    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() =>
                {
                    (token.trim(), true)
                }
                _ => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let known = lock(&self.tokens).iter().find(|known| known.token == token).cloned();
        let Some(known) = known.filter(|known| bearer || known.kind != TokenKind::OAuth) else {
            return Err(unauthorized());
        };
        match known.state {
            TokenState::Active => Ok(Some(known)),
            TokenState::Expired => {
                Err(invalid_token("Token is expired. You can either do re-authorization or token refresh."))
            }
            TokenState::Revoked => {
                Err(invalid_token("Token was revoked. You have to re-authorize from the user."))
            }
            TokenState::Blocked => Err(message(403, "403 Forbidden - Your account has been blocked.")),
        }
    }

    /// A caller with one of the scopes; anonymous is refused.
    fn member(&self, seen: &Seen, scopes: &[&str]) -> Result<GitlabToken, Reply> {
        let token = self.caller(seen)?.ok_or_else(unauthorized)?;
        check_scope(&token, scopes)?;
        Ok(token)
    }

    /// A caller with one of the scopes, or anonymous.
    fn anybody(&self, seen: &Seen) -> Result<Option<GitlabToken>, Reply> {
        let caller = self.caller(seen)?;
        if let Some(token) = caller.as_ref().filter(|token| !token.granular) {
            check_scope(token, READING)?;
        }
        Ok(caller)
    }

    /// What a caller may do in a project.
    fn access(&self, caller: Option<&GitlabToken>, index: usize) -> Access {
        let direct = |level| Access { project: Some(level), ..Access::default() };
        match caller {
            None => Access::default(),
            Some(token) => match token.kind {
                TokenKind::Project if index == 0 => direct(40),
                TokenKind::Group if self.below_first_group(index) => direct(40),
                TokenKind::Project | TokenKind::Group => Access::default(),
                _ if token.username == "robin" => {
                    let member = index.is_multiple_of(3) && index < self.data.members();
                    if member { direct(20) } else { Access::default() }
                }
                _ => self.data.owner_access(index),
            },
        }
    }

    fn below_first_group(&self, index: usize) -> bool {
        let path = &self.data.namespace(index).full_path;
        index < self.data.members() && (path == "acme" || path.starts_with("acme/"))
    }

    fn visible(&self, caller: Option<&GitlabToken>, index: usize) -> bool {
        let open = match self.data.visibility(index) {
            "public" => true,
            "internal" => caller.is_some_and(|token| !token.bot()),
            _ => false,
        };
        open || self.access(caller, index).level() > 0
    }

    // --- identity ---

    fn version(&self, what: &str, seen: &Seen) -> Result<Reply, Reply> {
        let metadata = what == "metadata";
        if metadata && self.older_than(15, 2) {
            return Err(unrouted());
        }
        self.member(seen, IDENTITY)?;
        let revision = self.metadata["revision"].clone();
        let version = &self.config.version;
        let body = if metadata {
            let mut body = self.metadata.clone();
            body["version"] = json!(version);
            body["enterprise"] = json!(version.ends_with("-ee"));
            body
        } else {
            json!({"version": version, "revision": revision})
        };
        Ok(Reply::json(200, &body))
    }

    fn older_than(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.config.version.split(['.', '-']).map_while(|n| n.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (major, minor)
    }

    fn own_token(&self, seen: &Seen) -> Result<Reply, Reply> {
        if self.older_than(15, 5) {
            return Err(unrouted());
        }
        let token = self.caller(seen)?.ok_or_else(unauthorized)?;
        if token.granular {
            return Err(insufficient_granular());
        }
        if token.kind == TokenKind::OAuth {
            let text = "400 Bad request - This endpoint requires token type to be a personal access token";
            return Err(message(400, text));
        }
        let body = json!({"id": token.id, "name": "forge", "description": null, "revoked": false,
            "created_at": "2026-01-15T08:00:00.000Z", "scopes": token.scopes, "user_id": token.user_id,
            "last_used_at": "2026-11-20T17:58:37.550Z", "active": true, "expires_at": token.expires_at,
            "granular": token.granular});
        Ok(Reply::json(200, &body))
    }

    fn own_user(&self, seen: &Seen) -> Result<Reply, Reply> {
        let token = self.member(seen, IDENTITY)?;
        let mut body = self.user.clone();
        let web = format!("{}/{}", self.data.external, token.username);
        for (name, value) in [
            ("id", json!(token.user_id)),
            ("username", json!(token.username)),
            ("name", json!(token.name)),
            ("email", json!(token.email)),
            ("public_email", json!(token.email)),
            ("commit_email", json!(token.email)),
            ("avatar_url", Value::Null),
            ("web_url", json!(web)),
            ("bot", json!(token.bot())),
            ("locked", json!(false)),
            ("namespace_id", json!(63_972)),
            ("identities", json!([])),
        ] {
            body[name] = value;
        }
        Ok(Reply::json(200, &body))
    }

    /// `/oauth/token/info`: the recorded answer for an OAuth token, Doorkeeper's 401 for the rest.
    fn token_info(&self, seen: &Seen) -> Result<Reply, Reply> {
        let caller = self.caller(seen)?;
        let Some(token) = caller.filter(|token| token.kind == TokenKind::OAuth) else {
            return Err(invalid_token("The access token is invalid"));
        };
        let body = json!({"resource_owner_id": token.user_id, "scope": token.scopes, "expires_in": 7_100,
            "application": {"uid": "masked"}, "created_at": 1_790_000_000_u64, "scopes": token.scopes,
            "expires_in_seconds": 7_100});
        Ok(Reply::json(200, &body))
    }

    // --- projects ---

    fn projects(&self, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
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
    fn matches(&self, index: usize, filter: &Filter) -> bool {
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
    fn page(
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
        let start = ((list.page - 1) * list.per_page).min(total);
        let rows = &rows[start..(start + list.per_page).min(total)];
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
    fn offset_headers(&self, reply: Reply, seen: &Seen, query: &Query, list: &List, total: usize) -> Reply {
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
    fn link(&self, seen: &Seen, query: &str, relation: &str) -> String {
        let path = seen.path.trim_start_matches("/gitlab");
        format!("<{}{path}?{query}>; rel=\"{relation}\"", self.data.external)
    }

    fn project(
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
            ("GET" | "HEAD", ["hooks"]) => {
                let list = List::parse(query)?;
                if caller.is_none() {
                    return Err(unauthorized());
                }
                if self.access(caller, index).level() < 40 {
                    return Err(message(403, "403 Forbidden"));
                }
                let reply = Reply::new(200, "application/json", "[]");
                Ok(self.offset_headers(reply, seen, query, &list, 0))
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

    // --- groups ---

    fn groups(&self, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
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

    fn group(&self, id: &str, seen: &Seen) -> Result<Reply, Reply> {
        self.member(seen, READING)?;
        Ok(Reply::json(200, &self.group_row(self.find_group(id)?)))
    }

    /// Offset only, whatever is asked for, and rows without `permissions`.
    fn group_projects(&self, id: &str, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
        let caller = self.anybody(seen)?;
        let group = self.data.namespaces[self.find_group(id)?].full_path.clone();
        let below = format!("{group}/");
        let (page, per_page) = page_of(query)?;
        let list = List {
            descending: query.first("sort").is_none_or(|sort| sort == "desc"),
            ..List::offset(page, per_page)
        };
        let filter = Filter::read(query);
        let subgroups = query.flag("include_subgroups");
        let keep = |index: usize| {
            let path = &self.data.namespace(index).full_path;
            let inside = *path == group || subgroups && path.starts_with(&below);
            inside && self.visible(caller.as_ref(), index) && self.matches(index, &filter)
        };
        self.page(seen, query, &list, caller.as_ref(), false, keep)
    }

    fn user_projects(&self, id: &str, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
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

    fn namespaces(&self, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
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

/// The number of the good token's user.
const OWNER_ID: u64 = 57_658;

/// What a listing of projects is narrowed by.
#[derive(Debug)]
struct Filter {
    archived: Option<bool>,
    visibility: Option<String>,
    active: bool,
    /// In lower case.
    search: Option<String>,
    namespaces: bool,
}

impl Filter {
    fn read(query: &Query) -> Self {
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
struct List {
    keyset: bool,
    by_name: bool,
    descending: bool,
    page: usize,
    per_page: usize,
}

impl List {
    fn offset(page: usize, per_page: usize) -> Self {
        Self { keyset: false, by_name: false, descending: false, page, per_page }
    }

    /// Grape's checks of the values, then the one of the pager.
    fn parse(query: &Query) -> Result<Self, Reply> {
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

fn one_of<'a>(query: &'a Query, name: &str, known: &[&str]) -> Result<Option<&'a str>, Reply> {
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
fn page_of(query: &Query) -> Result<(usize, usize), Reply> {
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

fn cursor(query: &Query) -> Result<usize, Reply> {
    let Some(cursor) = query.first("cursor") else {
        return Ok(0);
    };
    let clear = base64::engine::general_purpose::URL_SAFE.decode(cursor).ok();
    let value = clear.and_then(|clear| serde_json::from_slice::<Value>(&clear).ok());
    let at = value.and_then(|value| value["at"].as_u64());
    at.and_then(|at| usize::try_from(at).ok()).ok_or_else(|| invalid("cursor", "is invalid"))
}

fn number(value: &str, name: &str) -> Result<u64, Reply> {
    value.parse().map_err(|_| invalid(name, "is invalid"))
}

fn check_scope(token: &GitlabToken, scopes: &[&str]) -> Result<(), Reply> {
    if token.granular {
        return Err(insufficient_granular());
    }
    if token.has(scopes) {
        return Ok(());
    }
    let body = json!({"error": "insufficient_scope",
        "error_description": "The request requires higher privileges than provided by the access token.",
        "scope": scopes.join(" ")});
    Err(Reply::json(403, &body))
}

fn insufficient_granular() -> Reply {
    let body = json!({"error": "insufficient_granular_scope",
        "error_description": "Access denied: Your Personal Access Token lacks the required permissions for this operation."});
    Reply::json(403, &body)
}

fn message(status: u16, text: &str) -> Reply {
    Reply::json(status, &json!({"message": text}))
}

fn unauthorized() -> Reply {
    message(401, "401 Unauthorized")
}

fn invalid_token(description: &str) -> Reply {
    let realm = format!(
        "Bearer realm=\"Protected by OAuth 2.0\", error=\"invalid_token\", error_description=\"{description}\""
    );
    let body = json!({"error": "invalid_token", "error_description": description});
    Reply::json(401, &body).header("www-authenticate", realm)
}

fn invalid(name: &str, what: &str) -> Reply {
    Reply::json(400, &json!({"error": format!("{name} {what}")}))
}

fn no_keyset() -> Reply {
    let text = "Keyset pagination is not yet available for this type of request";
    Reply::json(405, &json!({"error": text}))
}

fn too_deep(limit: u64) -> Reply {
    let text = format!(
        "Offset pagination has a maximum allowed offset of {limit} for requests that return objects of type Project. Remaining records can be retrieved using keyset pagination."
    );
    Reply::json(405, &json!({"error": text}))
}

/// A route that the API does not have.
fn unrouted() -> Reply {
    Reply::json(404, &json!({"error": "404 Not Found"}))
}

/// A page of the web interface: the sign-in for what needs one, as for any group or project URL.
fn outside(path: &str) -> Reply {
    if path.starts_with("/users/sign_in") {
        return Reply::html(200, "<!DOCTYPE html><html><head><title>Sign in · GitLab</title></head></html>");
    }
    Reply::html(302, "<html><body>You are being redirected.</body></html>")
        .header("location", "/gitlab/users/sign_in")
}

/// The tokens of a new forge.
fn issue(today: time::Date) -> Vec<GitlabToken> {
    use TokenKind::{Group, OAuth, Personal, Project};
    use TokenState::{Active, Blocked, Expired, Revoked};
    let day = |days: i64| Some((today + time::Duration::days(days)).to_string());
    let casey = (OWNER_ID, OWNER, "Casey Example");
    let robin = (63_001, "robin", "Robin Example");
    let api = &["api"][..];
    [
        (tokens::GOOD, Personal, Active, api, day(300), casey),
        (tokens::READ_ONLY, Personal, Active, &["read_api", "read_repository"][..], day(300), casey),
        (tokens::NARROW, Personal, Active, &["read_repository"][..], day(300), casey),
        (tokens::USER_ONLY, Personal, Active, &["read_user"][..], day(300), casey),
        (tokens::EXPIRING, Personal, Active, api, day(7), casey),
        (
            tokens::ENDLESS,
            Personal,
            Active,
            api,
            None,
            (70_001, "service_account_group_1_ab12", "Deploy service"),
        ),
        (tokens::EXPIRED, Personal, Expired, api, day(-1), casey),
        (tokens::REVOKED, Personal, Revoked, api, day(300), casey),
        (tokens::BLOCKED, Personal, Blocked, api, day(300), (63_002, "blake", "Blake Example")),
        (tokens::GRANULAR, Personal, Active, &[][..], day(300), casey),
        (
            tokens::PROJECT,
            Project,
            Active,
            api,
            day(200),
            (70_002, "project_1003_bot_4ffca233d8298ea1", "Project token"),
        ),
        (
            tokens::GROUP,
            Group,
            Active,
            api,
            day(200),
            (70_003, "group_120836_bot_2fca233d8298ea11", "Group token"),
        ),
        (tokens::SECOND, Personal, Active, api, day(300), robin),
        (tokens::OAUTH, OAuth, Active, &["read_user", "read_api", "api"][..], None, casey),
    ]
    .into_iter()
    .enumerate()
    .map(|(place, (token, kind, state, scopes, expires_at, (user_id, username, name)))| GitlabToken {
        token: token.to_owned(),
        kind,
        state,
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        granular: token == tokens::GRANULAR,
        expires_at,
        id: 4_200 + place as u64,
        user_id,
        username: username.to_owned(),
        name: name.to_owned(),
        email: format!("{username}@forge.example"),
    })
    .collect()
}
