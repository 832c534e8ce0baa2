//! The fake Bitbucket Cloud: routes, authentication, identity, workspaces.

pub(crate) mod data;
mod hooks;
pub(super) mod paging;
mod query;
mod refs;
pub(super) mod refusal;
mod repositories;
pub(crate) mod tokens;

use std::io;
use std::sync::Mutex;

use base64::Engine;
use serde_json::{Value, json};

use super::hooks::{HookIds, Hooks};
use super::refs::Refs;
use super::wire::{Query, Reply, Seen, decode};
use super::{ForgeConfig, broken, lock};
use data::{API, Data, Workspace, WorkspaceState};
use refusal::{error, refused, removed, scope_missing, unrouted};
use tokens::{BitbucketToken, issue};

/// Pages above this size are refused.
const MAX_PAGE: usize = 100;

/// The fake Bitbucket Cloud of one forge.
#[derive(Debug)]
pub(super) struct Instance {
    config: super::BitbucketCloudConfig,
    data: Data,
    refs: Refs,
    tokens: Mutex<Vec<BitbucketToken>>,
    /// The webhooks that it keeps.
    pub(super) hooks: Hooks,
    user: Value,
}

impl Instance {
    /// Reads the recorded answers.
    pub(super) fn build(config: &ForgeConfig) -> io::Result<Self> {
        let user = recorded!("bitbucket-cloud/exchanges/user-200-app-password.json");
        let user: Value = serde_json::from_str(user).map_err(|error| broken("user-200", error))?;
        Ok(Self {
            data: Data::build(&config.bitbucket_cloud)?,
            refs: Refs::new(config.branches, config.tags),
            tokens: Mutex::new(issue()),
            hooks: Hooks::new(HookIds::BracedUuid),
            user: user["response"]["body"].clone(),
            config: config.bitbucket_cloud.clone(),
        })
    }

    /// Changes a token.
    pub(super) fn edit_token(&self, token: &str, edit: impl FnOnce(&mut BitbucketToken)) {
        if let Some(known) = lock(&self.tokens).iter_mut().find(|known| known.token == token) {
            edit(known);
        }
    }

    /// Answers a request; `path` is what follows the prefix.
    pub(super) fn answer(&self, path: &str, seen: &Seen) -> Reply {
        // Beside the API there is only this.
        let Some(path) = path.strip_prefix("/2.0/") else { return error(403, "Forbidden") };
        let caller = self.caller(seen);
        let reply = match &caller {
            Ok(caller) => self.route(path, caller.as_ref(), seen).unwrap_or_else(|refusal| refusal),
            Err(refusal) => refusal.clone(),
        };
        let reply = match caller.ok().flatten() {
            Some(token) if !self.config.silent_headers => reply
                .header("x-credential-type", token.kind.word())
                .header("x-oauth-scopes", token.scopes.join(", "))
                .header("x-accepted-oauth-scopes", "repository"),
            _ => reply,
        };
        let reply = match self.config.scaled_limit {
            Some(limit) => reply
                .header("x-ratelimit-limit", limit)
                .header("x-ratelimit-resource", "api-repositories")
                .header("x-ratelimit-nearlimit", "false"),
            None => reply,
        };
        reply
            .header("server", "nginx")
            .header("vary", "Authorization, Origin, cookie, user-context, Accept-Encoding")
            .header("x-request-count", "1299")
    }

    /// Whose request it is: `None` is anonymous. API tokens go with the address in Basic, tokens of resources in Bearer.
    fn caller(&self, seen: &Seen) -> Result<Option<BitbucketToken>, Reply> {
        let Some((scheme, value)) = seen.header("authorization").and_then(|value| value.split_once(' '))
        else {
            return Ok(None);
        };
        let basic = scheme.eq_ignore_ascii_case("basic");
        let (user, token) = if basic {
            let clear = base64::engine::general_purpose::STANDARD.decode(value).unwrap_or_default();
            let clear = String::from_utf8_lossy(&clear).into_owned();
            clear.split_once(':').map(|(user, token)| (user.to_owned(), token.to_owned())).unwrap_or_default()
        } else {
            (String::new(), value.to_owned())
        };
        let known = lock(&self.tokens).iter().find(|known| known.token == token).cloned();
        match known {
            Some(known) if known.alive => {
                let fits = if known.has_user() { basic && user == known.email } else { !basic };
                if fits { Ok(Some(known)) } else { Err(refused(None)) }
            }
            dead => Err(refused(dead.as_ref())),
        }
    }

    fn route(&self, path: &str, caller: Option<&BitbucketToken>, seen: &Seen) -> Result<Reply, Reply> {
        let is_read = matches!(seen.method.as_str(), "GET" | "HEAD");
        let segments: Vec<String> = path.split('/').map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let query = seen.params();
        match segments.as_slice() {
            ["repositories", workspace, name, "hooks", uid @ ..] if uid.len() <= 1 => {
                let caller = caller.ok_or_else(|| refused(None))?;
                self.hooks(seen, (workspace, name), uid.first().copied(), caller, &query)
            }
            _ if !is_read => Err(error(405, "Method not allowed")),
            ["user"] => self.own_user(caller),
            ["user", "workspaces"] => self.own_workspaces(seen, caller, &query),
            ["user", "workspaces", workspace, "permissions", "repositories"] => {
                let caller = user(caller)?;
                need(caller, "read:repository:bitbucket", "repository")?;
                self.permissions(seen, workspace, caller, &query)
            }
            ["workspaces", workspace] => self.one_workspace(workspace, caller),
            ["repositories", workspace] => {
                self.reads(caller)?;
                self.repositories(seen, workspace, caller, &query)
            }
            ["repositories", workspace, name] => {
                self.reads(caller)?;
                self.repository(workspace, name, caller)
            }
            ["repositories", workspace, name, "refs", kind @ ("branches" | "tags")] => {
                self.reads(caller)?;
                self.repository_refs(seen, (workspace, name), *kind == "tags", caller, &query)
            }
            ["workspaces"] | ["repositories"] | ["user", "permissions", ..] => Err(removed()),
            _ => Err(unrouted()),
        }
    }

    /// Anybody may read what is public; a token needs the scope for it.
    fn reads(&self, caller: Option<&BitbucketToken>) -> Result<(), Reply> {
        caller.map_or(Ok(()), |token| need(token, "read:repository:bitbucket", "repository"))
    }

    fn own_user(&self, caller: Option<&BitbucketToken>) -> Result<Reply, Reply> {
        if self.config.user_gone {
            return Err(error(410, "Gone"));
        }
        let caller = user(caller)?;
        need(caller, "read:user:bitbucket", "account")?;
        let mut body = self.user.clone();
        for (name, value) in [
            ("uuid", &caller.uuid),
            ("username", &caller.username),
            ("nickname", &caller.username),
            ("display_name", &caller.display_name),
        ] {
            body[name] = json!(value);
        }
        Ok(Reply::json(200, &body))
    }

    fn own_workspaces(
        &self,
        seen: &Seen,
        caller: Option<&BitbucketToken>,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let caller = user(caller)?;
        need(caller, "read:workspace:bitbucket", "account")?;
        match query.first("sort") {
            None | Some("slug") => {}
            Some(other) => return Err(error(400, &format!("Invalid sort field: {other}"))),
        }
        let mut all: Vec<&Workspace> =
            self.data.workspaces.iter().filter(|workspace| self.belongs(caller, workspace)).collect();
        all.sort_by(|a, b| a.slug.cmp(&b.slug));
        let rows: Vec<Value> = all
            .into_iter()
            .map(|workspace| {
                let own = workspace.slug == caller.username;
                json!({"type": "workspace_access", "administrator": own,
                    "workspace": {"type": "workspace_base", "uuid": workspace.uuid, "slug": workspace.slug,
                        "links": links(workspace)}})
            })
            .collect();
        self.listed(seen, query, &rows)
    }

    fn one_workspace(&self, name: &str, caller: Option<&BitbucketToken>) -> Result<Reply, Reply> {
        let missing = || error(404, &format!("No workspace with identifier '{name}'."));
        let workspace = self.data.workspace(name).ok_or_else(missing)?;
        let open = workspace.state == WorkspaceState::Strangers;
        if !open && caller.is_none_or(|token| !self.belongs(token, workspace)) {
            return Err(missing());
        }
        let body = json!({"type": "workspace", "uuid": workspace.uuid, "slug": workspace.slug, "name": workspace.name,
            "is_private": false, "created_on": "2024-01-01T00:00:00.000000+00:00", "links": links(workspace)});
        Ok(Reply::json(200, &body))
    }
}

/// A caller behind whom somebody stands; tokens of resources are refused on every call about the user.
fn user(caller: Option<&BitbucketToken>) -> Result<&BitbucketToken, Reply> {
    let caller = caller.ok_or_else(|| refused(None))?;
    if caller.has_user() { Ok(caller) } else { Err(scope_missing(caller, "account")) }
}

fn need(token: &BitbucketToken, of_api_token: &str, of_access_token: &str) -> Result<(), Reply> {
    let needed = if token.has_user() { of_api_token } else { of_access_token };
    if token.scopes.iter().any(|scope| scope == needed) { Ok(()) } else { Err(scope_missing(token, needed)) }
}

fn links(workspace: &Workspace) -> Value {
    json!({"self": {"href": format!("{API}/workspaces/{}", workspace.slug)},
        "html": {"href": format!("https://bitbucket.org/{}/", workspace.slug)}})
}
