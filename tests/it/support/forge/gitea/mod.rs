//! The fake Gitea: routes, authentication, identity. With another version it is Forgejo.

pub(crate) mod data;
mod hooks;
mod refs;
pub(super) mod refusal;
mod repositories;
pub(crate) mod tokens;

use std::io;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::hooks::{HookIds, Hooks};
use super::refs::Refs;
use super::wire::{Query, Reply, Seen};
use super::{ForgeConfig, broken, lock};
use data::{Data, OWNER_ID};
use refusal::{JSON, bare, outside, unrouted};
use tokens::{GiteaToken, GiteaTokenState, issue};

/// `DEFAULT_PAGING_NUM`.
const DEFAULT_ITEMS: usize = 30;

/// The fake Gitea of one forge.
#[derive(Debug)]
pub(super) struct Instance {
    config: super::GiteaConfig,
    product: Product,
    data: Data,
    refs: Refs,
    tokens: Mutex<Vec<GiteaToken>>,
    /// The webhooks that it keeps.
    pub(super) hooks: Hooks,
    user: Value,
}

impl Instance {
    /// Reads the recorded answers.
    pub(super) fn build(config: &ForgeConfig, origin: &str) -> io::Result<Self> {
        let root = config.gitea.root_url.clone().unwrap_or_else(|| format!("{origin}/gitea"));
        let user = recorded!("gitea/exchanges/user_200.json");
        let user: Value = serde_json::from_str(user).map_err(|error| broken("user_200.json", error))?;
        Ok(Self {
            product: Product::of(&config.gitea.version),
            data: Data::build(&config.gitea, root)?,
            refs: Refs::new(config.branches, config.tags),
            tokens: Mutex::new(issue()),
            hooks: Hooks::new(HookIds::Number),
            user: user["response"]["body"].clone(),
            config: config.gitea.clone(),
        })
    }

    /// Changes a token.
    pub(super) fn edit_token(&self, token: &str, edit: impl FnOnce(&mut GiteaToken)) {
        if let Some(known) = lock(&self.tokens).iter_mut().find(|known| known.token == token) {
            edit(known);
        }
    }

    /// Answers a request; `path` is what follows the root.
    pub(super) fn answer(&self, path: &str, seen: &Seen) -> Reply {
        let reply = self.route(path, seen).unwrap_or_else(|refusal| refusal);
        reply.header("cache-control", "max-age=0, private, must-revalidate, no-transform")
    }

    fn route(&self, path: &str, seen: &Seen) -> Result<Reply, Reply> {
        let Some(api) = path.strip_prefix("/api/v1/") else {
            return Err(outside());
        };
        let caller = self.caller(seen)?;
        let caller = caller.as_ref();
        let segments: Vec<&str> = api.split('/').collect();
        let query = seen.params();
        match (seen.method.as_str(), segments.as_slice()) {
            ("GET", ["version"]) => self.version(caller),
            ("GET", ["settings", "api"]) => Ok(self.settings()),
            ("GET", ["user"]) => self.own_user(caller),
            ("GET", ["token"]) if self.product.has_token() => self.own_token(caller),
            ("GET", ["user", "repos"]) => self.own_repositories(caller, seen, &query),
            ("GET", ["user", "orgs"]) => self.own_organizations(caller, seen, &query),
            ("GET", ["notifications", "new"]) => {
                self.member(caller, "read:notification")?;
                Ok(Reply::new(200, JSON, json!({"new": 0}).to_string()))
            }
            ("GET", ["admin", "cron"]) => {
                self.member(caller, "read:admin")?;
                Err(self.message(403, "user should be the site admin"))
            }
            ("GET", ["repos", "search"]) => self.search(caller, seen, &query),
            ("GET", ["repositories", id]) => self.by_id(caller, id),
            (method, ["repos", owner, name, rest @ ..]) => {
                self.repository(method, (owner, name), rest, caller, seen, &query)
            }
            _ => Err(unrouted()),
        }
    }

    // --- who asks ---

    /// The token of a request: `None` is anonymous, where that is allowed. What stands in the query is ignored: it is
    /// deprecated, and can be switched off.
    fn caller(&self, seen: &Seen) -> Result<Option<GiteaToken>, Reply> {
        let Some(value) = seen.header("authorization") else {
            if self.config.sign_in_required {
                return Err(bare(403, "Only signed in user is allowed to call APIs."));
            }
            return Ok(None);
        };
        let wrong = || self.message(401, "invalid username, password or token");
        let (scheme, token) = value.split_once(' ').ok_or_else(wrong)?;
        let fits = match scheme.to_ascii_lowercase().as_str() {
            // An OAuth2 access token is a JSON Web Token.
            "token" => !token.contains('.'),
            "bearer" => true,
            _ => false,
        };
        let known = lock(&self.tokens).iter().find(|known| fits && known.token == token).cloned();
        let known = known.ok_or_else(wrong)?;
        match known.state {
            GiteaTokenState::Active => Ok(Some(known)),
            GiteaTokenState::Deleted => Err(wrong()),
            GiteaTokenState::Blocked => Err(bare(
                403,
                "This account is prohibited from signing in, please contact your site administrator.",
            )),
            GiteaTokenState::Inactive => Err(bare(403, "This account is not activated.")),
            GiteaTokenState::Password => {
                let page = format!("{}/user/change_password", self.data.root);
                Err(bare(403, &format!("You must change your password. Change it at: {page}")))
            }
        }
    }

    /// A caller with the scope; anonymous is refused.
    fn member<'a>(&self, caller: Option<&'a GiteaToken>, scope: &str) -> Result<&'a GiteaToken, Reply> {
        let token = caller.ok_or_else(|| self.message(401, "token is required"))?;
        self.check_scope(token, scope)?;
        Ok(token)
    }

    /// The number of a caller with the scope, or 0 for a stranger.
    fn anybody(&self, caller: Option<&GiteaToken>, scope: &str) -> Result<u64, Reply> {
        match caller {
            None => Ok(0),
            Some(token) => self.check_scope(token, scope).map(|()| token.user_id),
        }
    }

    // --- identity ---

    fn version(&self, caller: Option<&GiteaToken>) -> Result<Reply, Reply> {
        // Mended in 1.20.1 (go-gitea/gitea#26035).
        if let Some(token) = caller.filter(|_| self.config.version == "1.20.0") {
            self.check_scope(token, "read:misc")?;
        }
        Ok(Reply::new(200, JSON, json!({"version": self.config.version}).to_string()))
    }

    fn settings(&self) -> Reply {
        let body = json!({"max_response_items": self.config.max_response_items,
            "default_paging_num": DEFAULT_ITEMS, "default_git_trees_per_page": 1000,
            "default_max_blob_size": 10_485_760, "default_max_response_size": 104_857_600});
        Reply::new(200, JSON, body.to_string())
    }

    fn own_user(&self, caller: Option<&GiteaToken>) -> Result<Reply, Reply> {
        let token = self.member(caller, "read:user")?;
        let mut body = self.user.clone();
        for (name, value) in [
            ("id", json!(token.user_id)),
            ("login", json!(token.login)),
            ("username", json!(token.login)),
            ("full_name", json!(token.name)),
            ("email", json!(token.email)),
            ("avatar_url", json!(format!("{}/avatars/{}", self.data.root, token.user_id))),
            ("html_url", json!(format!("{}/{}", self.data.root, token.login))),
        ] {
            body[name] = value;
        }
        Ok(Reply::new(200, JSON, body.to_string()))
    }

    fn own_token(&self, caller: Option<&GiteaToken>) -> Result<Reply, Reply> {
        let token = caller.ok_or_else(|| self.message(401, "token is required"))?;
        let body = json!({"id": 17, "name": "forge", "scopes": token.scopes,
            "created_at": "2026-01-15T08:00:00Z", "last_used_at": "2026-11-20T17:58:37Z",
            "user": {"id": token.user_id, "login": token.login}});
        Ok(Reply::new(200, JSON, body.to_string()))
    }

    fn own_organizations(
        &self,
        caller: Option<&GiteaToken>,
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        self.member(caller, "read:user")?;
        let token = self.member(caller, "read:organization")?;
        let organizations = self.data.owners.iter().filter(|owner| !owner.is_user);
        let rows: Vec<Value> = organizations
            .filter(|_| token.user_id == OWNER_ID)
            .map(|owner| data::organization(owner, &self.data.root))
            .collect();
        let paging = Paging::read(query, self.config.max_response_items);
        let reply = Reply::new(200, JSON, Value::from(paging.slice(&rows)).to_string());
        Ok(self.counted(reply, &paging, seen, query, rows.len(), true))
    }

    /// The headers of a page. Links are built from the configured URL, keep the size that was asked for, and count in
    /// the one that was given.
    fn counted(
        &self,
        reply: Reply,
        paging: &Paging,
        seen: &Seen,
        query: &Query,
        total: usize,
        with_links: bool,
    ) -> Reply {
        let last = total.div_ceil(paging.size).max(1);
        let mut links = Vec::new();
        let path = seen.path.trim_start_matches("/gitea");
        let mut link = |page: usize, relation: &str| {
            let query = query.with("page", page).encode();
            links.push(format!("<{}{path}?{query}>; rel=\"{relation}\"", self.data.root));
        };
        if paging.page < last {
            link(paging.page + 1, "next");
            link(last, "last");
        }
        if paging.page > 1 {
            link(1, "first");
            link(paging.page.min(last + 1) - 1, "prev");
        }
        let mut reply = reply;
        let mut exposed = "X-Total-Count";
        if with_links && !links.is_empty() {
            reply = reply.header("link", links.join(","));
            exposed = "Link, X-Total-Count";
        }
        if self.config.strips_totals {
            return reply;
        }
        reply.header("x-total-count", total).header("access-control-expose-headers", exposed)
    }
}

/// Which program and version it is.
#[derive(Debug, Clone, Copy)]
struct Product {
    forgejo: bool,
    major: u32,
    minor: u32,
}

impl Product {
    fn of(version: &str) -> Self {
        let mut numbers = version.split(['.', '+', '-']).map_while(|part| part.parse().ok());
        let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Self { forgejo: version.contains("+gitea-"), major, minor }
    }

    fn is_gitea_from(self, minor: u32) -> bool {
        !self.forgejo && (self.major, self.minor) >= (1, minor)
    }

    /// `/token`.
    fn has_token(self) -> bool {
        self.is_gitea_from(27)
    }

    /// The scopes of the token in refusals.
    fn tells_scopes(self) -> bool {
        self.is_gitea_from(23)
    }

    /// `q` of branches; others ignore it.
    fn searches_branches(self) -> bool {
        self.is_gitea_from(27)
    }
}

/// Page and size as `GetListOptions` reads them: nothing is an error.
#[derive(Debug, Clone, Copy)]
struct Paging {
    page: usize,
    size: usize,
}

impl Paging {
    fn read(query: &Query, most: usize) -> Self {
        let number = |name: &str| query.first(name).and_then(|value| value.parse::<usize>().ok());
        let size = number("limit").filter(|size| *size > 0).unwrap_or(DEFAULT_ITEMS);
        Self { page: number("page").unwrap_or(1).max(1), size: size.min(most) }
    }

    fn slice<T>(self, rows: &[T]) -> &[T] {
        let start = (self.page - 1).saturating_mul(self.size).min(rows.len());
        &rows[start..(start + self.size).min(rows.len())]
    }
}
