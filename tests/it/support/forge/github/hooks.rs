//! The webhooks of a repository.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::hooks::{Hook, HookState};
use super::super::wire::{Query, Reply, Seen};
use super::data::{Data, Role};
use super::refusal::{hook_invalid, json_reply, message, not_found};
use super::repositories::need;
use super::tokens::{GithubToken, TokenKind};
use super::{Instance, Paged};

/// What stands for a secret in an answer; sent back, it becomes the secret.
const STARS: &str = "********";
/// Some of the events that there are.
const EVENTS: &[&str] = &[
    "*",
    "create",
    "delete",
    "issues",
    "issue_comment",
    "ping",
    "pull_request",
    "pull_request_review",
    "push",
    "release",
];

impl Instance {
    /// `…/hooks` and below, for a repository that the caller sees.
    pub(super) fn webhooks(
        &self,
        caller: &GithubToken,
        index: usize,
        rest: &[&str],
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let (permission, scopes) = match seen.method.as_str() {
            "GET" | "HEAD" => (
                "repository_hooks=read",
                "admin:repo_hook, public_repo, read:repo_hook, repo, write:repo_hook",
            ),
            "DELETE" => ("repository_hooks=write", "admin:repo_hook, public_repo, repo"),
            _ => ("repository_hooks=write", "admin:repo_hook, public_repo, repo, write:repo_hook"),
        };
        need(caller, usize::MAX, permission)?;
        let reply =
            self.permitted(caller, index, scopes).and_then(|()| self.webhook(index, rest, seen, query));
        let accepted = |reply: Reply| match caller.kind {
            TokenKind::Classic => reply.header("x-accepted-oauth-scopes", scopes),
            _ => reply,
        };
        reply.map(accepted).map_err(accepted)
    }

    /// Whether the caller may do what one of the scopes stands for: 404 where he may not.
    fn permitted(&self, caller: &GithubToken, index: usize, scopes: &str) -> Result<(), Reply> {
        let is_open = Data::visibility(index) == "public";
        let scopes: Vec<&str> =
            scopes.split(", ").filter(|scope| is_open || *scope != "public_repo").collect();
        let has_scope = caller.kind != TokenKind::Classic || caller.has(&scopes);
        let has_role = caller.kind == TokenKind::Installation || self.role(caller, index) == Role::Admin;
        if has_scope && has_role && !caller.reads_only { Ok(()) } else { Err(not_found()) }
    }

    fn webhook(&self, index: usize, rest: &[&str], seen: &Seen, query: &Query) -> Result<Reply, Reply> {
        let of = Data::id(index).to_string();
        if Data::archived(index) && seen.method != "GET" {
            return Err(message(403, "Repository was archived so is read-only."));
        }
        match (seen.method.as_str(), rest) {
            ("GET", []) => {
                let all = self.hooks.of(&of);
                let paged = Paged::of(query, all.len());
                let rows = all[paged.range.clone()].iter().map(|hook| self.hook_row(index, hook)).collect();
                let reply = json_reply(200, &Value::Array(rows));
                Ok(self.linked(reply, &format!("/repositories/{of}/hooks"), query, &paged))
            }
            ("POST", []) => {
                let body = read(seen)?;
                if body["name"].as_str().is_some_and(|name| name != "web") {
                    return Err(hook_invalid(&["name is not valid"]));
                }
                let mut hook = Hook::new("", &["push"], None);
                change(&mut hook, &body)?;
                self.fits(&of, &hook)?;
                let hook = self.hooks.add(&of, hook);
                let row = self.hook_row(index, &hook);
                let location = row["url"].as_str().unwrap_or("").to_owned();
                Ok(json_reply(201, &row).header("location", location))
            }
            ("GET", [id]) => {
                let hook = self.hooks.find(&of, id).ok_or_else(not_found)?;
                Ok(json_reply(200, &self.hook_row(index, &hook)))
            }
            ("PATCH", [id]) => {
                let mut hook = self.hooks.find(&of, id).ok_or_else(not_found)?;
                change(&mut hook, &read(seen)?)?;
                let hook = self.hooks.edit(&of, id, |known| *known = hook).ok_or_else(not_found)?;
                Ok(json_reply(200, &self.hook_row(index, &hook)))
            }
            ("DELETE", [id]) if self.hooks.remove(&of, id) => {
                Ok(Reply { status: 204, headers: Vec::new(), body: "".into() })
            }
            _ => Err(not_found()),
        }
    }

    /// Neither a twin nor one too many.
    fn fits(&self, of: &str, hook: &Hook) -> Result<(), Reply> {
        let others = self.hooks.of(of);
        let full: Vec<String> = hook
            .events
            .iter()
            .filter(|event| {
                others.iter().filter(|other| other.events.contains(*event)).count()
                    >= self.config.hooks_per_event
            })
            .map(|event| {
                format!("The \"{event}\" event cannot have more than {} hooks", self.config.hooks_per_event)
            })
            .collect();
        if !full.is_empty() {
            return Err(hook_invalid(&full.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        let is_twin = |other: &Hook| {
            other.url == hook.url
                && other.content_type == hook.content_type
                && other.verifies_tls == hook.verifies_tls
                && !other.events.is_disjoint(&hook.events)
        };
        if others.iter().any(is_twin) {
            return Err(hook_invalid(&["Hook already exists on this repository"]));
        }
        Ok(())
    }

    /// With the members of `exchanges/hook-create-201.json`.
    fn hook_row(&self, index: usize, hook: &Hook) -> Value {
        let url = format!("{}/repos/{}/hooks/{}", self.data.api, self.data.full_name(index), hook.id);
        let id: u64 = hook.id.parse().unwrap_or(0);
        let mut config = json!({"url": hook.url, "content_type": hook.content_type,
            "insecure_ssl": if hook.verifies_tls { "0" } else { "1" }});
        if hook.secret.is_some() {
            config["secret"] = STARS.into();
        }
        json!({"type": "Repository", "id": id, "name": "web", "active": hook.state == HookState::Working,
            "events": hook.events, "config": config,
            "updated_at": "2021-09-24T05:58:37Z", "created_at": "2021-09-24T05:58:37Z",
            "url": url, "test_url": format!("{url}/test"), "ping_url": format!("{url}/pings"),
            "deliveries_url": format!("{url}/deliveries"),
            "last_response": {"code": null, "status": "unused", "message": null}})
    }
}

fn read(seen: &Seen) -> Result<Value, Reply> {
    serde_json::from_slice(&seen.body).map_err(|_| message(400, "Problems parsing JSON"))
}

/// What a body says, over what is there. `config` and `events` are replaced as a whole.
fn change(hook: &mut Hook, body: &Value) -> Result<(), Reply> {
    if let Some(active) = body["active"].as_bool() {
        hook.state = if active { HookState::Working } else { HookState::SwitchedOff };
    }
    if let Some(events) = body["events"].as_array() {
        let events: BTreeSet<String> = events.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if events.is_empty() || events.iter().any(|event| !EVENTS.contains(&event.as_str())) {
            return Err(hook_invalid(&["events are not valid"]));
        }
        hook.events = events;
    }
    let config = &body["config"];
    if config.is_object() {
        hook.url = config["url"].as_str().unwrap_or("").to_owned();
        hook.content_type = config["content_type"].as_str().unwrap_or("form").to_owned();
        hook.secret = config["secret"].as_str().filter(|secret| !secret.is_empty()).map(str::to_owned);
        hook.verifies_tls = !matches!(config["insecure_ssl"].to_string().trim_matches('"'), "1" | "1.0");
    }
    let host = url::Url::parse(&hook.url).ok().and_then(|url| url.host_str().map(str::to_owned));
    match host.as_deref() {
        None => Err(hook_invalid(&["config is missing url"])),
        Some(host @ ("localhost" | "127.0.0.1" | "[::1]")) => Err(hook_invalid(&[&format!(
            "Sorry, the URL host {host} is not supported because it isn't reachable over the public Internet"
        )])),
        Some(_) => Ok(()),
    }
}
