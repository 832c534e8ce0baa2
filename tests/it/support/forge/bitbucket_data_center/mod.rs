//! The fake Bitbucket Data Center: routes, authentication, identity, listings.

pub(crate) mod data;
mod hooks;
pub(super) mod refusal;
pub(crate) mod tokens;

use std::io;
use std::sync::Mutex;

use base64::Engine;
use serde_json::{Value, json};

use super::hooks::{HookIds, Hooks};
use super::refs::Refs;
use super::wire::{Query, Reply, Seen, decode, encode};
use super::{ForgeConfig, broken, lock};
use data::{Data, OLD_PATH, OLD_PERSONAL, Project};
use refusal::{
    PageOf, bad_credentials, basic_disabled, captcha, invalid, no_default_branch, no_project, no_repository,
    no_user, not_permitted,
};
use tokens::{DataCenterOwner, DataCenterToken, DataCenterTokenState, Level, issue};

/// The fake Bitbucket Data Center of one forge.
#[derive(Debug)]
pub(super) struct Instance {
    config: super::DataCenterConfig,
    data: Data,
    refs: Refs,
    tokens: Mutex<Vec<DataCenterToken>>,
    /// The webhooks that it keeps.
    pub(super) hooks: Hooks,
    user: Value,
    properties: Value,
}

impl Instance {
    /// Reads the recorded answers.
    pub(super) fn build(config: &ForgeConfig, origin: &str) -> io::Result<Self> {
        let external = config.bitbucket_data_center.external_url.clone();
        let external = external.unwrap_or_else(|| format!("{origin}/bitbucket"));
        let data = Data::build(&config.bitbucket_data_center, external)?;
        let user = recorded!("bitbucket-data-center/go-scm/user.json");
        let exchange = recorded!("bitbucket-data-center/exchanges/application-properties-200.json");
        let exchange: Value =
            serde_json::from_str(exchange).map_err(|error| broken("application-properties", error))?;
        Ok(Self {
            refs: Refs::new(config.branches, config.tags),
            tokens: Mutex::new(issue(data.projects[0].id, Data::id(0))),
            hooks: Hooks::new(HookIds::Number),
            user: serde_json::from_str(user).map_err(|error| broken("user.json", error))?,
            properties: exchange["response"]["body"].clone(),
            config: config.bitbucket_data_center.clone(),
            data,
        })
    }

    /// Changes a token.
    pub(super) fn edit_token(&self, token: &str, edit: impl FnOnce(&mut DataCenterToken)) {
        if let Some(known) = lock(&self.tokens).iter_mut().find(|known| known.token == token) {
            edit(known);
        }
    }

    /// Answers a request; `path` is what follows the context path.
    pub(super) fn answer(&self, path: &str, seen: &Seen) -> Reply {
        let (caller, reply) = match self.caller(seen) {
            Ok(caller) => {
                let reply = self.route(path, seen, caller.as_ref()).unwrap_or_else(|refusal| refusal);
                (caller, reply)
            }
            Err(refusal) => (None, refusal),
        };
        let reply = reply
            .header("cache-control", "private, no-cache, no-cache, no-transform")
            .header("vary", "accept-encoding,x-auserid,cookie,x-ausername,accept-encoding")
            .header("x-arequestid", "@UGPFWVx647x1328455x0")
            .header("x-asessionid", "1ajg59f");
        match caller {
            Some(caller) => {
                reply.header("x-auserid", caller.user_id).header("x-ausername", encode(&caller.user))
            }
            None => reply,
        }
    }

    fn route(&self, path: &str, seen: &Seen, caller: Option<&DataCenterToken>) -> Result<Reply, Reply> {
        if path == "/plugins/servlet/applinks/whoami" {
            let name = caller.map_or("", |caller| caller.user.as_str());
            return Ok(Reply::new(200, "text/plain;charset=UTF-8", name.to_owned()));
        }
        let api = path.strip_prefix("/rest/api/").and_then(|rest| rest.split_once('/'));
        let Some(("latest" | "1.0", api)) = api else { return Err(self.outside(path)) };
        let is_hook = api.split('/').nth(4) == Some("webhooks");
        if !is_hook && seen.method != "GET" && seen.method != "HEAD" {
            return Err(Reply::new(405, "application/json;charset=UTF-8", "{}"));
        }
        let segments: Vec<String> = api.split('/').map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let query = seen.params();
        match segments[..] {
            ["application-properties"] => {
                let mut body = self.properties.clone();
                body["version"] = json!(self.config.version);
                Ok(json_reply(&body))
            }
            ["users"] => self.users(caller, &query),
            ["users", slug] => self.one_user(caller, slug),
            ["users", user, "repos", slug, ref rest @ ..] => {
                self.repository(caller, &format!("~{user}"), slug, rest, seen, &query)
            }
            ["projects"] => self.projects(caller, &query),
            ["projects", key] => Ok(json_text(self.data.project_row(self.visible_project(caller, key)?))),
            ["projects", key, "repos"] => {
                let project = self.visible_project(caller, key)?;
                let page = PageOf::read(&query, self.config.page_cap)?;
                Ok(self.listing(caller, page, |index| {
                    self.data.project(index).id == project.id && self.data.is_visible(caller, index)
                }))
            }
            ["projects", key, "repos", slug, ref rest @ ..] => {
                // A personal repository that has moved redirects under its other path alone.
                if (key, slug) == OLD_PERSONAL {
                    return Err(refusal::broken());
                }
                self.repository(caller, key, slug, rest, seen, &query)
            }
            ["repos"] => self.repositories(caller, &query),
            _ => Err(not_here()),
        }
    }

    /// Pages for people: the sign-in for whoever has no session, and nothing at all.
    fn outside(&self, path: &str) -> Reply {
        if path.starts_with("/login") {
            return Reply::html(
                200,
                "<!DOCTYPE html><html><head><title>Log in - Bitbucket</title></head></html>",
            );
        }
        if ["/dashboard", "/projects", "/users", "/"].iter().any(|page| path.starts_with(page))
            && !path.starts_with("/rest")
        {
            let to = format!("{}/login?next={}", self.data.external, encode(path));
            return Reply::html(302, "").header("location", to);
        }
        not_here()
    }

    // --- who asks ---

    /// The token of a request: `None` is a stranger.
    fn caller(&self, seen: &Seen) -> Result<Option<DataCenterToken>, Reply> {
        let header = seen.header("authorization").filter(|_| !self.config.drops_token);
        let Some((scheme, value)) = header.and_then(|value| value.split_once(' ')) else { return Ok(None) };
        let known = |token: &str| lock(&self.tokens).iter().find(|known| known.token == token).cloned();
        let found = if scheme.eq_ignore_ascii_case("bearer") {
            known(value.trim())
        } else if scheme.eq_ignore_ascii_case("basic") {
            if !self.config.basic {
                return Err(basic_disabled());
            }
            let clear = base64::engine::general_purpose::STANDARD.decode(value.trim()).unwrap_or_default();
            let clear = String::from_utf8_lossy(&clear).into_owned();
            let (user, token) = clear.split_once(':').ok_or_else(bad_credentials)?;
            // A project's or repository's token has no user whom one could name.
            known(token).filter(|known| known.owner == DataCenterOwner::User && known.user == user)
        } else {
            return Ok(None);
        };
        match found {
            Some(found) if found.state == DataCenterTokenState::Active => Ok(Some(found)),
            Some(found) if found.state == DataCenterTokenState::Captcha => Err(captcha()),
            _ => Err(bad_credentials()),
        }
    }

    // --- users ---

    fn users(&self, caller: Option<&DataCenterToken>, query: &Query) -> Result<Reply, Reply> {
        // For strangers, and for the tokens of a repository on some versions.
        if caller.is_none_or(|caller| caller.owner == DataCenterOwner::Repository) {
            return Err(not_permitted());
        }
        let page = PageOf::read(query, self.config.page_cap)?;
        let filter = query.first("filter").unwrap_or("").to_lowercase();
        let mut users: Vec<DataCenterToken> = lock(&self.tokens).clone();
        users.retain(|user| user.owner == DataCenterOwner::User);
        users.sort_by(|a, b| a.user.cmp(&b.user));
        users.dedup_by(|a, b| a.user == b.user);
        let rows = users
            .iter()
            .enumerate()
            .skip(page.start)
            .filter(|(_, user)| user.user.to_lowercase().contains(&filter))
            .map(|(place, user)| (place, self.user_row(user).to_string()));
        Ok(page.reply(rows))
    }

    fn one_user(&self, caller: Option<&DataCenterToken>, slug: &str) -> Result<Reply, Reply> {
        if caller.is_none_or(|caller| caller.owner == DataCenterOwner::Repository) {
            return Err(not_permitted());
        }
        let user = lock(&self.tokens).iter().find(|user| user.slug() == slug).cloned();
        user.map(|user| json_reply(&self.user_row(&user))).ok_or_else(|| no_user(slug))
    }

    fn user_row(&self, user: &DataCenterToken) -> Value {
        let mut row = self.user.clone();
        let is_person = user.owner == DataCenterOwner::User;
        let (page, kind) = if is_person { ("users", "NORMAL") } else { ("bots", "SERVICE") };
        let own = format!("{}/{page}/{}", self.data.external, user.slug());
        for (name, value) in [
            ("id", json!(user.user_id)),
            ("name", json!(user.user)),
            ("slug", json!(user.slug())),
            ("displayName", json!(user.display_name)),
            ("emailAddress", json!(format!("{}@forge.example", user.user_id))),
            ("type", json!(kind)),
            ("links", json!({"self": [{"href": own}]})),
        ] {
            row[name] = value;
        }
        if let Some(row) = row.as_object_mut().filter(|_| !is_person) {
            row.remove("emailAddress");
        }
        row
    }

    // --- projects ---

    fn projects(&self, caller: Option<&DataCenterToken>, query: &Query) -> Result<Reply, Reply> {
        let page = PageOf::read(query, self.config.page_cap)?;
        let rows = (self.data.projects.iter().enumerate().skip(page.start))
            .filter(|(_, project)| self.config.lists_personal || !project.is_personal())
            .filter(|(_, project)| self.sees_project(caller, project))
            .map(|(place, project)| (place, self.data.project_row(project)));
        Ok(page.reply(rows))
    }

    /// A project is seen with any repository in it.
    fn sees_project(&self, caller: Option<&DataCenterToken>, project: &Project) -> bool {
        let in_it = |index: &usize| self.data.project(*index).id == project.id;
        (0..self.data.total()).filter(in_it).any(|index| self.data.is_visible(caller, index))
    }

    fn visible_project(&self, caller: Option<&DataCenterToken>, key: &str) -> Result<&Project, Reply> {
        let found = self.data.projects.iter().find(|project| project.key.eq_ignore_ascii_case(key));
        found.filter(|project| self.sees_project(caller, project)).ok_or_else(|| no_project(key))
    }

    // --- repositories ---

    fn repositories(&self, caller: Option<&DataCenterToken>, query: &Query) -> Result<Reply, Reply> {
        let page = PageOf::read(query, self.config.page_cap)?;
        let least = match query.first("permission") {
            None => None,
            Some("REPO_READ") => Some(Level::Read),
            Some("REPO_WRITE") => Some(Level::Write),
            Some("REPO_ADMIN") => Some(Level::Admin),
            Some(_) => return Err(invalid("permission", "is no permission of a repository")),
        };
        let archived = match query.first("archived").map(str::to_ascii_uppercase).as_deref() {
            None | Some("ACTIVE") => Some(false),
            Some("ARCHIVED") => Some(true),
            Some("ALL") => None,
            Some(_) => return Err(invalid("archived", "is none of ACTIVE, ARCHIVED and ALL")),
        };
        if query.first("visibility").is_some_and(|value| !matches!(value, "public" | "private")) {
            return Err(invalid("visibility", "is neither public nor private"));
        }
        let key = query.first("projectkey").map(str::trim);
        let name = query.first("name").map(|name| name.trim().to_lowercase());
        let state = query.first("state");
        Ok(self.listing(caller, page, |index| {
            least.map_or_else(
                || self.data.is_visible(caller, index),
                |least| self.data.level(caller, index) >= least,
            ) && archived.is_none_or(|archived| archived == Data::is_archived(index))
                && key.is_none_or(|key| self.data.project(index).key.eq_ignore_ascii_case(key))
                && name.as_ref().is_none_or(|name| self.data.name(index).to_lowercase().starts_with(name))
                && state.is_none_or(|state| state == Data::state(index))
        }))
    }

    fn listing(&self, caller: Option<&DataCenterToken>, page: PageOf, keep: impl Fn(usize) -> bool) -> Reply {
        let user = caller.map(|caller| caller.user.as_str());
        let rows = (page.start..self.data.total())
            .filter(|index| keep(*index))
            .map(|index| (index, self.data.row(index, user)));
        page.reply(rows)
    }

    fn repository(
        &self,
        caller: Option<&DataCenterToken>,
        key: &str,
        slug: &str,
        rest: &[&str],
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        if (key, slug) == OLD_PATH || (key, slug) == OLD_PERSONAL {
            let index = if key == OLD_PATH.0 { 0 } else { 2 };
            return Err(self.moved(index, rest, seen));
        }
        let found = self.data.at(key, slug).filter(|index| self.data.is_visible(caller, *index));
        let index = found.ok_or_else(|| no_repository(key, slug))?;
        match rest {
            [] => Ok(json_text(self.data.row(index, caller.map(|caller| caller.user.as_str())))),
            ["default-branch"] if Data::lacks_default(index) => Err(no_default_branch()),
            // An empty repository has one, too.
            ["default-branch"] => {
                Ok(json_reply(&json!({"id": "refs/heads/main", "displayId": "main", "type": "BRANCH"})))
            }
            ["branches" | "tags"] => self.some_refs(index, rest[0] == "tags", query),
            ["webhooks"] => self.webhooks(caller, index, None, seen, query),
            ["webhooks", id] => self.webhooks(caller, index, Some(id), seen, query),
            _ => Err(not_here()),
        }
    }

    fn some_refs(&self, index: usize, tags: bool, query: &Query) -> Result<Reply, Reply> {
        let page = PageOf::read(query, self.config.page_cap)?;
        let fold = |text: &str| {
            if self.config.search_minds_case { text.to_owned() } else { text.to_lowercase() }
        };
        let filter = fold(query.first("filterText").unwrap_or(""));
        let mut names: Vec<&String> = self.refs.names(tags).iter().collect();
        match query.first("orderBy") {
            Some("ALPHABETICAL") => {}
            None | Some("MODIFICATION") => names.reverse(),
            Some(_) => return Err(invalid("orderBy", "is neither ALPHABETICAL nor MODIFICATION")),
        }
        let names = names.into_iter().filter(|name| !Data::is_empty(index) && fold(name).contains(&filter));
        let rows =
            names.enumerate().skip(page.start).map(|(place, name)| (place, ref_row(name, tags, index)));
        Ok(page.reply(rows))
    }

    /// The former place: a redirect below the configured URL.
    fn moved(&self, index: usize, rest: &[&str], seen: &Seen) -> Reply {
        let tail: String = rest.iter().map(|segment| format!("/{segment}")).collect();
        let query = if seen.query.is_empty() { String::new() } else { format!("?{}", seen.query) };
        let (key, slug) = (&self.data.project(index).key, self.data.slug(index));
        let path = match key.strip_prefix('~') {
            Some(user) => format!("users/{user}/repos/{slug}"),
            None => format!("projects/{key}/repos/{slug}"),
        };
        let to = format!("{}/rest/api/latest/{path}{tail}{query}", self.data.external);
        Reply::html(307, "").header("location", to)
    }
}

fn ref_row(name: &str, is_tag: bool, index: usize) -> String {
    let (folder, kind) = if is_tag { ("tags", "TAG") } else { ("heads", "BRANCH") };
    let commit = Refs::commit(name);
    let mut row = json!({"id": format!("refs/{folder}/{name}"), "displayId": name, "type": kind,
        "latestCommit": commit, "latestChangeset": commit});
    if is_tag {
        let object = Refs::tag_object(name);
        row["hash"] = if object == commit { Value::Null } else { json!(object) };
    } else {
        row["isDefault"] = json!(name == "main" && !Data::lacks_default(index));
    }
    row.to_string()
}

fn json_reply(body: &Value) -> Reply {
    json_text(body.to_string())
}

fn json_text(body: String) -> Reply {
    Reply::new(200, "application/json;charset=UTF-8", body)
}

/// A path that the server does not have.
fn not_here() -> Reply {
    Reply::html(404, "<!DOCTYPE html><html><head><title>Not found - Bitbucket</title></head></html>")
}
