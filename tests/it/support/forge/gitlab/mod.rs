//! The fake GitLab: routes, authentication, identity.

pub(crate) mod data;
mod groups;
pub(super) mod hooks;
mod projects;
mod refs;
mod refusal;
pub(crate) mod tokens;

use std::io;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::hooks::{HookIds, Hooks};
use super::refs::Refs;
use super::wire::{Reply, Seen};
use super::{ForgeConfig, broken, lock};
use data::{Access, Data};
use refusal::{check_scope, insufficient_granular, invalid_token, message, outside, unauthorized, unrouted};
use tokens::{GitlabToken, TokenKind, TokenState, issue};

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
    data: Data,
    refs: Refs,
    tokens: Mutex<Vec<GitlabToken>>,
    /// The webhooks that it keeps.
    pub(super) hooks: Hooks,
    user: Value,
    metadata: Value,
}

impl Instance {
    /// Reads the recorded answers.
    pub(super) fn build(config: &ForgeConfig, origin: &str) -> io::Result<Self> {
        let external = config.gitlab.external_url.clone();
        let external = external.unwrap_or_else(|| format!("{origin}/gitlab"));
        let user = recorded!("gitlab/go-scm/user.json");
        let metadata = recorded!("gitlab/gitlab4j/metadata.json");
        Ok(Self {
            data: Data::build(&config.gitlab, external)?,
            refs: Refs::new(config.branches, config.tags),
            tokens: Mutex::new(issue(config.today)),
            hooks: Hooks::new(HookIds::Number),
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
        let reply = match self.config.rate_limit {
            Some((limit, remaining, reset)) => reply
                .header("ratelimit-limit", limit)
                .header("ratelimit-name", "throttle_authenticated_api")
                .header("ratelimit-observed", limit.saturating_sub(remaining))
                .header("ratelimit-remaining", remaining)
                .header("ratelimit-reset", reset),
            None => reply,
        };
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
                    let member = index.is_multiple_of(6) && index < self.data.members();
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
}
