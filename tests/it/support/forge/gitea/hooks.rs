//! The webhooks of a repository, with the traps that were recorded: no look for a twin, inactive unless told otherwise,
//! unknown events dropped, a secret that stays what it was.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::super::hooks::{Hook, HookState};
use super::super::wire::{Query, Reply, Seen};
use super::data::Access;
use super::refusal::{JSON, unrouted};
use super::tokens::GiteaToken;
use super::{Instance, Paging};

/// What `pull_request` becomes (`exchanges/hook_create_201.json`).
const OF_PULL_REQUESTS: &[&str] = &[
    "pull_request",
    "pull_request_assign",
    "pull_request_label",
    "pull_request_milestone",
    "pull_request_comment",
    "pull_request_review",
    "pull_request_sync",
    "pull_request_review_request",
];
/// Events that are taken as they are; `pull_request_only` is the first of the above alone.
const PLAIN: &[&str] = &["push", "create", "delete", "fork", "issues", "release", "repository", "wiki"];

/// Moves with every row, so that no two answers have their events in one order.
static TURN: AtomicUsize = AtomicUsize::new(0);

impl Instance {
    /// `…/hooks` and below; for administrators of the repository alone.
    pub(super) fn webhooks(
        &self,
        caller: Option<&GiteaToken>,
        index: usize,
        rest: &[&str],
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        self.open(caller, index)?;
        let scope = if seen.method == "GET" { "read:repository" } else { "write:repository" };
        let user = self.member(caller, scope)?.user_id;
        if self.data.access(user, index) != Some(Access::Admin) {
            let text = "user should be an owner or a collaborator with admin write of a repository";
            return Err(self.message(403, text));
        }
        if self.config.webhooks_disabled {
            return Err(self.message(403, "webhooks disabled by administrator"));
        }
        let of = self.data.id(index).to_string();
        let missing = || self.not_found();
        match (seen.method.as_str(), rest) {
            ("GET", []) => {
                let all = self.hooks.of(&of);
                let paging = Paging::read(query, self.config.max_response_items);
                let rows: Vec<Value> = paging.slice(&all).iter().map(row).collect();
                let reply = Reply::new(200, JSON, Value::Array(rows).to_string());
                // A count, but no links.
                Ok(self.counted(reply, &paging, seen, query, all.len(), false))
            }
            ("POST", []) => {
                let body = self.read_hook(seen)?;
                let kind = body["type"].as_str().unwrap_or("");
                let is_known = match kind {
                    "gitea" | "gogs" | "slack" | "discord" => true,
                    "forgejo" => self.product.forgejo,
                    _ => false,
                };
                if !is_known {
                    return Err(self.message(422, &format!("Invalid hook type: {kind}")));
                }
                for option in ["url", "content_type"] {
                    if !body["config"][option].is_string() {
                        return Err(self.message(422, &format!("Missing config option: {option}")));
                    }
                }
                let mut hook = Hook::new("", &[], body["config"]["secret"].as_str());
                hook.state = HookState::SwitchedOff;
                hook.more.insert("type".to_owned(), kind.to_owned());
                change(&mut hook, &body);
                Ok(Reply::new(201, JSON, row(&self.hooks.add(&of, hook)).to_string()))
            }
            ("GET", [id]) => {
                let hook = self.hooks.find(&of, id).ok_or_else(missing)?;
                Ok(Reply::new(200, JSON, row(&hook).to_string()))
            }
            ("PATCH", [id]) => {
                let body = self.read_hook(seen)?;
                let hook = self.hooks.edit(&of, id, |hook| change(hook, &body)).ok_or_else(missing)?;
                Ok(Reply::new(200, JSON, row(&hook).to_string()))
            }
            ("DELETE", [id]) if self.hooks.remove(&of, id) => {
                Ok(Reply { status: 204, headers: Vec::new(), body: "".into() })
            }
            ("DELETE", [_]) => Err(missing()),
            _ => Err(unrouted()),
        }
    }

    fn read_hook(&self, seen: &Seen) -> Result<Value, Reply> {
        serde_json::from_slice(&seen.body).map_err(|_| self.message(422, "[]: invalid character"))
    }
}

/// What a body says, over what is there. An address or an activity that is left out stays, events become pushes, and
/// what else is left out becomes empty. A secret is never another one.
fn change(hook: &mut Hook, body: &Value) {
    let config = &body["config"];
    if let Some(url) = config["url"].as_str() {
        hook.url = url.to_owned();
    }
    if let Some(content_type) = config["content_type"].as_str() {
        hook.content_type = content_type.to_owned();
    }
    if let Some(active) = body["active"].as_bool() {
        hook.state = if active { HookState::Working } else { HookState::SwitchedOff };
    }
    hook.events = match body["events"].as_array() {
        Some(events) if !events.is_empty() => {
            expanded(&events.iter().filter_map(Value::as_str).collect::<Vec<_>>())
        }
        _ => BTreeSet::from(["push".to_owned()]),
    };
    for name in ["branch_filter", "authorization_header"] {
        let value = body[name].as_str().unwrap_or("");
        hook.more.insert(name.to_owned(), value.to_owned());
    }
}

/// The events as they are kept. Unknown ones are dropped without a word.
fn expanded(events: &[&str]) -> BTreeSet<String> {
    let mut kept = BTreeSet::new();
    for event in events {
        match *event {
            "pull_request" => kept.extend(OF_PULL_REQUESTS.iter().copied()),
            "pull_request_only" => kept.extend(["pull_request"]),
            event => {
                let known = PLAIN.iter().chain(OF_PULL_REQUESTS).copied();
                kept.extend(known.filter(|known| *known == event));
            }
        }
    }
    kept.into_iter().map(str::to_owned).collect()
}

/// With the members of `exchanges/hooks_list.json`. Events come in an order that changes from answer to answer.
fn row(hook: &Hook) -> Value {
    let more = |name: &str| hook.more.get(name).map_or("", String::as_str);
    let mut events: Vec<&String> = hook.events.iter().collect();
    if !events.is_empty() {
        let turn = TURN.fetch_add(1, Ordering::Relaxed) % events.len();
        events.rotate_left(turn);
    }
    let kind = if more("type").is_empty() { "gitea" } else { more("type") };
    json!({"id": hook.id.parse::<u64>().unwrap_or(0), "type": kind, "branch_filter": more("branch_filter"),
        "config": {"content_type": hook.content_type, "url": hook.url}, "events": events,
        "authorization_header": more("authorization_header"), "active": hook.state == HookState::Working,
        "updated_at": "2026-11-21T13:12:20Z", "created_at": "2026-11-21T13:12:20Z"})
}
