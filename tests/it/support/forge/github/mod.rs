//! The fake GitHub: routes, authentication, identity, pages. It is an Enterprise Server behind a gateway with a path.

pub(crate) mod data;
mod hooks;
mod refusal;
mod repositories;
pub(crate) mod tokens;

use std::io;
use std::ops::Range;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::hooks::{HookIds, Hooks};
use super::refs::Refs;
use super::wire::{Query, Reply, Seen};
use super::{ForgeConfig, broken, lock};
use data::Data;
use refusal::{
    bad_credentials, json_reply, message, not_accessible, not_found, page, requires_authentication, unnamed,
};
use tokens::{GithubToken, TokenKind, TokenState, issue};

/// Pages are cut at this size.
const MAX_PAGE: usize = 100;
/// The version of the API that every supported server knows.
const API_VERSION: &str = "2022-11-28";

/// The fake GitHub of one forge.
#[derive(Debug)]
pub(super) struct Instance {
    config: super::GithubConfig,
    data: Data,
    refs: Refs,
    tokens: Mutex<Vec<GithubToken>>,
    /// The webhooks that it keeps.
    pub(super) hooks: Hooks,
    user: Value,
}

impl Instance {
    /// Reads the recorded answers.
    pub(super) fn build(config: &ForgeConfig, origin: &str) -> io::Result<Self> {
        let web = config.github.external_url.clone().unwrap_or_else(|| format!("{origin}/github"));
        let user = recorded!("github/exchanges/user-200-fine-grained-pat.json");
        let user: Value = serde_json::from_str(user).map_err(|error| broken("user-200", error))?;
        Ok(Self {
            data: Data::build(&config.github, web)?,
            refs: Refs::new(config.branches, config.tags),
            tokens: Mutex::new(issue(config.today)),
            hooks: Hooks::new(HookIds::Number),
            user: user["response"]["body"].clone(),
            config: config.github.clone(),
        })
    }

    /// Changes a token.
    pub(super) fn edit_token(&self, token: &str, edit: impl FnOnce(&mut GithubToken)) {
        if let Some(known) = lock(&self.tokens).iter_mut().find(|known| known.token == token) {
            edit(known);
        }
    }

    /// Answers a request; `path` is what follows the prefix of the gateway.
    pub(super) fn answer(&self, path: &str, seen: &Seen) -> Reply {
        let Some(api) = path.strip_prefix("/api/v3/") else {
            return page(self.config.private_mode);
        };
        if seen.header("user-agent").is_none_or(str::is_empty) {
            return unnamed();
        }
        let caller = self.caller(seen);
        let known = caller.as_ref().ok().and_then(Option::as_ref);
        let reply = self.version(seen).and_then(|()| self.route(api, seen, caller.clone()));
        let reply = reply.unwrap_or_else(|refusal| refusal);
        self.signed(reply, known)
    }

    /// The headers that every answer of the API bears.
    fn signed(&self, reply: Reply, caller: Option<&GithubToken>) -> Reply {
        let mut reply = reply
            .header("server", "GitHub.com")
            .header("x-github-media-type", "github.v3; format=json")
            .header("x-github-api-version-selected", API_VERSION)
            .header("x-github-request-id", "914E:19FF74:39926C:39E38C:6666C245")
            .header(
                "vary",
                "Accept, Authorization, Cookie, X-GitHub-OTP, Accept-Encoding, Accept, X-Requested-With",
            );
        if let Some(version) = &self.config.version {
            reply = reply.header("x-github-enterprise-version", version);
        }
        if let Some((limit, remaining, reset)) = self.config.rate_limit {
            reply = reply
                .header("x-ratelimit-limit", limit)
                .header("x-ratelimit-remaining", remaining)
                .header("x-ratelimit-reset", reset)
                .header("x-ratelimit-used", limit.saturating_sub(remaining))
                .header("x-ratelimit-resource", "core");
        }
        let Some(token) = caller else { return reply };
        if token.kind == TokenKind::Classic {
            reply = reply.header("x-oauth-scopes", token.grants.join(", "));
            if reply.value("x-accepted-oauth-scopes").is_none() {
                reply = reply.header("x-accepted-oauth-scopes", "");
            }
        } else if reply.value("x-accepted-github-permissions").is_none() {
            reply = reply.header("x-accepted-github-permissions", "metadata=read");
        }
        match &token.expires {
            Some(end) => reply.header("github-authentication-token-expiration", end),
            None => reply,
        }
    }

    /// Servers before 3.9 know no versions of the API; what they make of one is nowhere told, so this refuses it.
    fn version(&self, seen: &Seen) -> Result<(), Reply> {
        let Some(asked) = seen.header("x-github-api-version") else { return Ok(()) };
        let number = |text: &str| text.parse::<u32>().unwrap_or(0);
        let release = self.config.version.as_deref().and_then(|version| version.split_once('.'));
        let release =
            release.map(|(major, rest)| (number(major), number(rest.split('.').next().unwrap_or(""))));
        if release.is_some_and(|release| release < (3, 9)) || asked != API_VERSION {
            return Err(message(
                400,
                &format!("\"{asked}\" is not a supported version. Supported versions are: \"{API_VERSION}\""),
            ));
        }
        Ok(())
    }

    /// The token of a request: `None` is anonymous. Of Basic, the password counts.
    fn caller(&self, seen: &Seen) -> Result<Option<GithubToken>, Reply> {
        let Some((scheme, value)) = seen.header("authorization").and_then(|value| value.split_once(' '))
        else {
            return Ok(None);
        };
        if !scheme.eq_ignore_ascii_case("bearer") && !scheme.eq_ignore_ascii_case("token") {
            return Err(bad_credentials());
        }
        let known = lock(&self.tokens).iter().find(|known| known.token == value.trim()).cloned();
        match known.map(|known| (known.state, known)) {
            Some((TokenState::Active, known)) => Ok(Some(known)),
            Some((TokenState::Suspended, _)) => Err(message(403, "Sorry. Your account was suspended.")),
            Some((TokenState::Dead, _)) | None => Err(bad_credentials()),
        }
    }

    fn route(
        &self,
        api: &str,
        seen: &Seen,
        caller: Result<Option<GithubToken>, Reply>,
    ) -> Result<Reply, Reply> {
        let segments: Vec<&str> = api.split('/').collect();
        // A trailing slash is a path of its own, which does not exist.
        if segments.last().is_some_and(|last| last.is_empty()) {
            return Err(not_found());
        }
        let caller = caller?;
        if segments == ["meta"] && (caller.is_some() || !self.config.private_mode) {
            return Ok(self.meta());
        }
        let caller = &caller.ok_or_else(requires_authentication)?;
        if segments == ["user"] {
            return self.own_user(caller);
        }
        if let Some(words) = &caller.refused_with {
            return Err(message(403, words));
        }
        let query = &seen.params();
        match (seen.method.as_str(), segments.as_slice()) {
            ("GET" | "HEAD", ["user", "repos"]) => self.own_repositories(caller, query),
            ("GET" | "HEAD", ["user", id, "repos"])
                if self.config.moved_links && *id == caller.user_id.to_string() =>
            {
                self.own_repositories(caller, query)
            }
            ("GET" | "HEAD", ["user", "orgs"]) => self.organizations(caller, query),
            ("GET" | "HEAD", ["installation", "repositories"]) => self.installation(caller, query),
            (_, ["repos", owner, name, rest @ ..]) => self.by_name(caller, owner, name, rest, seen, query),
            (_, ["repositories", id, rest @ ..]) => self.by_id(caller, id, rest, seen, query),
            ("GET" | "HEAD", ["rate_limit"]) => self.rate_limit(),
            _ => Err(not_found()),
        }
    }

    fn meta(&self) -> Reply {
        let mut body = json!({"verifiable_password_authentication": true});
        if let Some(version) = &self.config.version {
            body["installed_version"] = json!(version);
        }
        json_reply(200, &body)
    }

    fn rate_limit(&self) -> Result<Reply, Reply> {
        let (limit, remaining, reset) =
            self.config.rate_limit.ok_or_else(|| message(404, "Rate limiting is not enabled."))?;
        let core = json!({"limit": limit, "remaining": remaining, "reset": reset, "used": limit - remaining});
        Ok(json_reply(200, &json!({"resources": {"core": core}, "rate": core})))
    }

    fn own_user(&self, caller: &GithubToken) -> Result<Reply, Reply> {
        if caller.kind == TokenKind::Installation {
            return Err(not_accessible("integration", "allows_permissionless_access=true"));
        }
        let text = self.user.to_string();
        let text = text
            .replace("https://api.github.com", &self.data.api)
            .replace("https://github.com", &self.data.web)
            .replace("fv316", &caller.login);
        let mut body: Value = serde_json::from_str(&text).map_err(|_| message(500, "Server Error"))?;
        body["id"] = json!(caller.user_id);
        body["login"] = json!(caller.login);
        body["name"] = json!(caller.name);
        body["email"] = json!(caller.email);
        Ok(json_reply(200, &body))
    }

    /// A fine-grained token gets an empty list, a classic one without the scope a 403.
    fn organizations(&self, caller: &GithubToken, query: &Query) -> Result<Reply, Reply> {
        match caller.kind {
            TokenKind::Installation => return Err(not_accessible("integration", "members=read")),
            TokenKind::FineGrained => return Ok(json_reply(200, &json!([]))),
            TokenKind::Classic => {}
        }
        if !caller.has(&["read:org", "write:org", "admin:org", "user"]) {
            let text = "You need at least read:org scope or user scope to list your organizations.";
            return Err(
                message(403, text).header("x-accepted-oauth-scopes", "admin:org, read:org, user, write:org")
            );
        }
        let own = self.data.owners.len() - 1;
        let all = &self.data.owners[..own];
        let all: Vec<_> =
            all.iter().enumerate().filter(|(at, _)| caller.single_sign_on || *at != 1).collect();
        let paged = Paged::of(query, all.len());
        let rows: Vec<Value> = all[paged.range.clone()]
            .iter()
            .map(|(_, owner)| {
                let url = format!("{}/orgs/{}", self.data.api, owner.login);
                json!({"login": owner.login, "id": owner.id, "node_id": "O_kgDO", "url": url,
                    "repos_url": format!("{url}/repos"), "events_url": format!("{url}/events"),
                    "hooks_url": format!("{url}/hooks"), "issues_url": format!("{url}/issues"),
                    "members_url": format!("{url}/members{{/member}}"),
                    "public_members_url": format!("{url}/public_members{{/member}}"),
                    "avatar_url": format!("{}/images/error/octocat_happy.gif", self.data.web),
                    "description": "An organization"})
            })
            .collect();
        let reply = self.linked(json_reply(200, &Value::Array(rows)), "/user/orgs", query, &paged);
        Ok(self.hidden(reply, caller))
    }

    /// Adds the links of a page; without any where one page holds all.
    fn linked(&self, reply: Reply, path: &str, query: &Query, paged: &Paged) -> Reply {
        let last = paged.total.div_ceil(paged.per_page).max(1);
        let mut links = Vec::new();
        let mut link = |page: usize, relation: &str| {
            let query = query.with("page", page).encode();
            links.push(format!("<{}{path}?{query}>; rel=\"{relation}\"", self.data.api));
        };
        if paged.page > 1 {
            link((paged.page - 1).min(last), "prev");
        }
        if paged.page < last {
            link(paged.page + 1, "next");
            link(last, "last");
        }
        if paged.page > 1 {
            link(1, "first");
        }
        if links.is_empty() { reply } else { reply.header("link", links.join(", ")) }
    }
}

/// Which rows a page has.
#[derive(Clone, Debug)]
struct Paged {
    page: usize,
    per_page: usize,
    total: usize,
    range: Range<usize>,
}

impl Paged {
    /// 30 rows by default, cut at 100 without a word; what is no number counts as left out.
    fn of(query: &Query, total: usize) -> Self {
        let number = |name: &str, default: usize| {
            let value = query.first(name).and_then(|value| value.parse::<usize>().ok());
            value.filter(|value| *value > 0).unwrap_or(default)
        };
        let (page, per_page) = (number("page", 1), number("per_page", 30).min(MAX_PAGE));
        let start = (page - 1).saturating_mul(per_page).min(total);
        Self { page, per_page, total, range: start..(start + per_page).min(total) }
    }
}
