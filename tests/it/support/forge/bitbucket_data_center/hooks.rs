//! Webhooks of a repository, for its administrators: nothing keeps two from having one target, a change replaces the whole
//! webhook, and the secret is shown in clear.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::hooks::{Hook, HookState};
use super::super::wire::{Query, Reply, Seen};
use super::Instance;
use super::data::Data;
use super::refusal::{PageOf, archived, broken, invalid, no_webhook, not_permitted, xsrf};
use super::tokens::{DataCenterToken, Level};

/// The events that it knows, as far as they matter here.
const EVENTS: &[&str] = &[
    "repo:refs_changed",
    "repo:modified",
    "pr:opened",
    "pr:from_ref_updated",
    "pr:modified",
    "pr:merged",
    "pr:declined",
    "pr:deleted",
    "pr:comment:added",
];

impl Instance {
    /// `…/repos/{slug}/webhooks` and below.
    pub(super) fn webhooks(
        &self,
        caller: Option<&DataCenterToken>,
        index: usize,
        id: Option<&str>,
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        if self.data.level(caller, index) < Level::Admin {
            return Err(not_permitted());
        }
        let of = Data::id(index).to_string();
        let known = |id: &str| self.hooks.find(&of, id).ok_or_else(|| no_webhook(id));
        if !matches!(seen.method.as_str(), "GET" | "HEAD") {
            if seen.header("x-atlassian-token") != Some("no-check") {
                return Err(xsrf());
            }
            if Data::is_archived(index) {
                return Err(archived());
            }
        }
        match (seen.method.as_str(), id) {
            ("GET" | "HEAD", None) => {
                let page = PageOf::read(query, self.config.page_cap)?;
                let rows = self.hooks.of(&of).into_iter().enumerate().skip(page.start);
                Ok(page.reply(rows.map(|(place, hook)| (place, row(&hook).to_string()))))
            }
            // 200 is documented, and this is what servers answer.
            ("POST", None) => Ok(reply(201, &self.hooks.add(&of, read(seen)?))),
            ("GET" | "HEAD", Some(id)) => Ok(reply(200, &known(id)?)),
            ("PUT", Some(id)) => {
                let known = known(id)?;
                let hook = Hook { id: known.id, ..read(seen)? };
                let changed = self.hooks.edit(&of, id, |kept| *kept = hook.clone());
                Ok(reply(200, &changed.unwrap_or(hook)))
            }
            ("DELETE", Some(id)) => {
                known(id)?;
                self.hooks.remove(&of, id);
                Ok(Reply::new(204, "application/json;charset=UTF-8", ""))
            }
            _ => Err(Reply::new(405, "application/json;charset=UTF-8", "{}")),
        }
    }
}

/// The webhook that a body describes: what it leaves out is as if it had never been.
fn read(seen: &Seen) -> Result<Hook, Reply> {
    let body: Value = match seen.header("content-type") {
        Some("application/json") => serde_json::from_slice(&seen.body).unwrap_or_default(),
        _ => return Err(Reply::new(415, "application/json;charset=UTF-8", "{}")),
    };
    if body["name"].as_str().is_none_or(str::is_empty) {
        return Err(invalid("name", "The name is required."));
    }
    let url = body["url"].as_str().unwrap_or("");
    if !url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
        return Err(invalid("url", "The URL must be a valid HTTP(S) URL."));
    }
    let events: BTreeSet<&str> =
        body["events"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(unknown) = events.iter().find(|event| !EVENTS.contains(event)) {
        return Err(invalid("events", &format!("{unknown} is unknown")));
    }
    let secret = body["configuration"]["secret"].as_str();
    if secret == Some("") {
        return Err(broken());
    }
    let mut hook = Hook::new(url, &events.into_iter().collect::<Vec<_>>(), secret);
    if body["active"] == json!(false) {
        hook.state = HookState::SwitchedOff;
    }
    hook.verifies_tls = body["sslVerificationRequired"] != json!(false);
    hook.more.insert("name".to_owned(), body["name"].as_str().unwrap_or("").to_owned());
    Ok(hook)
}

fn reply(status: u16, hook: &Hook) -> Reply {
    Reply::new(status, "application/json;charset=UTF-8", row(hook).to_string())
}

fn row(hook: &Hook) -> Value {
    let configuration = match &hook.secret {
        Some(secret) => json!({"secret": secret}),
        None => json!({}),
    };
    json!({"id": hook.id.parse::<u64>().unwrap_or(0), "name": hook.more.get("name"), "createdDate": 1_530_808_365_724_u64,
        "updatedDate": 1_530_808_365_724_u64, "events": hook.events.iter().rev().collect::<Vec<_>>(),
        "configuration": configuration, "url": hook.url, "active": hook.state == HookState::Working,
        "scopeType": "repository", "sslVerificationRequired": hook.verifies_tls})
}
