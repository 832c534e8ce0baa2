//! The webhooks of a project.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::super::hooks::{Hook, HookState};
use super::super::wire::{Query, Reply, Seen};
use super::Instance;
use super::projects::List;
use super::refusal::{insufficient_granular, invalid, message, unrouted};
use super::tokens::GitlabToken;

/// The events of a project's webhook that can be set.
const EVENTS: &[&str] = &[
    "push_events",
    "tag_push_events",
    "merge_requests_events",
    "issues_events",
    "confidential_issues_events",
    "note_events",
    "confidential_note_events",
    "job_events",
    "pipeline_events",
    "wiki_page_events",
    "deployment_events",
    "feature_flag_events",
    "releases_events",
    "milestone_events",
    "emoji_events",
    "resource_access_token_events",
    "resource_deploy_token_events",
    "vulnerability_events",
];
/// Members of a webhook that are texts, and shown as they were sent.
const TEXTS: &[&str] = &[
    "name",
    "description",
    "push_events_branch_filter",
    "branch_filter_strategy",
    "custom_webhook_template",
];
/// What a signing token begins with.
const SIGNING: &str = "whsec_";

impl Instance {
    /// `…/hooks` and below, for a project that the caller sees; `level` is what he may do there.
    pub(super) fn webhooks(
        &self,
        caller: &GitlabToken,
        (index, level): (usize, u8),
        rest: &[&str],
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let reads = matches!(seen.method.as_str(), "GET" | "HEAD");
        if !reads && caller.granular {
            return Err(insufficient_granular());
        }
        if !reads && !caller.has(&["api"]) {
            return Err(insufficient_scope());
        }
        if level < 40 {
            return Err(message(403, "403 Forbidden"));
        }
        let of = self.data.id(index).to_string();
        let missing = || message(404, "404 Not found");
        let find = |id: &str| self.hooks.find(&of, id).ok_or_else(missing);
        match (seen.method.as_str(), rest) {
            ("GET" | "HEAD", []) => {
                let list = List::parse(query)?;
                let all = self.hooks.of(&of);
                let rows = list.range(all.len()).map(|place| self.hook_row(&of, &all[place])).collect();
                let reply = Reply::json(200, &Value::Array(rows));
                Ok(self.offset_headers(reply, seen, query, &list, all.len()))
            }
            ("GET" | "HEAD", [id]) => Ok(Reply::json(200, &self.hook_row(&of, &find(id)?))),
            ("POST", []) => {
                let body = read(seen)?;
                let mut hook = Hook::new("", &["push_events"], None);
                if !body.contains_key("url") {
                    return Err(invalid("url", "is missing"));
                }
                self.change(&mut hook, &body)?;
                if self.hooks.of(&of).len() >= self.config.hook_limit {
                    let limit = self.config.hook_limit;
                    let text = format!("Maximum number of project hooks ({limit}) exceeded");
                    return Err(Reply::json(422, &json!({"error": text})));
                }
                Ok(Reply::json(201, &self.hook_row(&of, &self.hooks.add(&of, hook))))
            }
            ("PUT", [id]) => {
                let mut hook = find(id)?;
                let body = read(seen)?;
                if body.is_empty() {
                    let names =
                        "url, token, push_events are missing, at least one parameter must be provided";
                    return Err(Reply::json(400, &json!({"error": names})));
                }
                // Another URL could be anybody's: the secret stays behind unless it comes along.
                if body.get("url").is_some_and(|url| url.as_str() != Some(&hook.url)) {
                    hook.secret = None;
                    hook.more.clear();
                }
                self.change(&mut hook, &body)?;
                let hook = self.hooks.edit(&of, id, |known| *known = hook).ok_or_else(missing)?;
                Ok(Reply::json(200, &self.hook_row(&of, &hook)))
            }
            ("DELETE", [id]) if self.hooks.remove(&of, id) => {
                Ok(Reply { status: 204, headers: Vec::new(), body: "".into() })
            }
            ("DELETE", [_]) => Err(missing()),
            ("POST", [id, "test", trigger]) => {
                if !EVENTS.contains(trigger) {
                    return Err(invalid("trigger", "does not have a valid value"));
                }
                find(id)?;
                if self.config.receivers_fail {
                    return Err(message(422, "the receiver's own words"));
                }
                // A success forgets the failures.
                self.hooks.edit(&of, id, |hook| hook.state = HookState::Working).ok_or_else(missing)?;
                Ok(Reply::json(201, &json!({"message": "201 Created"})))
            }
            _ => Err(unrouted()),
        }
    }

    /// Takes over what a body names; what no version knows, it ignores without a word.
    fn change(&self, hook: &mut Hook, body: &Map<String, Value>) -> Result<(), Reply> {
        for (name, value) in body {
            let flag = || value.as_bool().ok_or_else(|| invalid(name, "is invalid"));
            let text = || value.as_str().map(str::to_owned).ok_or_else(|| invalid(name, "is invalid"));
            match name.as_str() {
                "url" => hook.url = text()?,
                "enable_ssl_verification" => hook.verifies_tls = flag()?,
                "token" => {
                    let token = Some(text()?).filter(|token| !token.is_empty());
                    if signs(hook) {
                        hook.more.extend(token.map(|token| ("token".to_owned(), token)));
                    } else {
                        hook.secret = token;
                    }
                }
                "signing_token" if self.takes_signing_tokens() => {
                    let token = text()?;
                    let key = token.strip_prefix(SIGNING).and_then(|key| STANDARD.decode(key).ok());
                    if key.is_none_or(|key| key.len() != 32) {
                        return Err(message(422, "Signing token is invalid"));
                    }
                    let before = hook.secret.replace(token);
                    let before = before.filter(|before| !before.starts_with(SIGNING));
                    hook.more.extend(before.map(|token| ("token".to_owned(), token)));
                }
                event if EVENTS.contains(&event) => {
                    if flag()? {
                        hook.events.insert(event.to_owned());
                    } else {
                        hook.events.remove(event);
                    }
                }
                known if TEXTS.contains(&known) => {
                    let told = text()?;
                    if known == "branch_filter_strategy" {
                        let strategies = ["wildcard", "regex", "all_branches"];
                        if !strategies.contains(&told.as_str()) {
                            return Err(invalid(name, "does not have a valid value"));
                        }
                    }
                    hook.more.insert(name.clone(), told);
                }
                _ => {}
            }
        }
        let parsed = url::Url::parse(&hook.url).ok();
        let fits = parsed.is_some_and(|url| {
            matches!(url.scheme(), "http" | "https") && (self.config.local_targets || !is_local(&url))
        });
        if fits { Ok(()) } else { Err(Reply::json(422, &json!({"error": "Invalid url given"}))) }
    }

    fn takes_signing_tokens(&self) -> bool {
        !self.older_than(19, 0) && self.config.signing_tokens
    }

    /// With the members of the description; never a secret.
    fn hook_row(&self, project: &str, hook: &Hook) -> Value {
        let number = |text: &str| text.parse::<u64>().unwrap_or(0);
        let (status, until) = match hook.state {
            HookState::Suspended => ("temporarily_disabled", json!("2026-11-22T08:00:00.000Z")),
            HookState::Dead => ("disabled", Value::Null),
            HookState::Working | HookState::SwitchedOff => ("executable", Value::Null),
        };
        let text = |name: &str| hook.more.get(name).map_or(Value::Null, |text| json!(text));
        let mut row = json!({"id": number(&hook.id), "url": hook.url, "name": text("name"),
            "description": text("description"), "created_at": "2026-11-20T17:58:37.550Z",
            "project_id": number(project), "enable_ssl_verification": hook.verifies_tls,
            "repository_update_events": false, "alert_status": status, "disabled_until": until,
            "url_variables": [], "custom_headers": [],
            "push_events_branch_filter": text("push_events_branch_filter"),
            "custom_webhook_template": text("custom_webhook_template"),
            "branch_filter_strategy": hook.more.get("branch_filter_strategy").map_or("wildcard", String::as_str)});
        for event in EVENTS {
            row[*event] = json!(hook.events.contains(*event));
        }
        if !self.older_than(19, 0) {
            let has_token = hook.secret.is_some() && !signs(hook) || hook.more.contains_key("token");
            row["token_present"] = json!(has_token);
            row["signing_token_present"] = json!(signs(hook));
        }
        row
    }
}

/// Whether deliveries of a webhook are signed.
fn signs(hook: &Hook) -> bool {
    hook.secret.as_ref().is_some_and(|secret| secret.starts_with(SIGNING))
}

/// Whether a URL names this machine or its network.
pub(crate) fn is_local(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => {
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_unspecified()
        }
        Some(url::Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
        None => true,
    }
}

/// All scopes of the route are named, those for reading too.
fn insufficient_scope() -> Reply {
    let body = json!({"error": "insufficient_scope",
        "error_description": "The request requires higher privileges than provided by the access token.",
        "scope": "api read_api"});
    Reply::json(403, &body)
}

/// The parameters of a request.
fn read(seen: &Seen) -> Result<Map<String, Value>, Reply> {
    let is_json = seen.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    let body = if is_json { serde_json::from_slice(&seen.body).ok() } else { None };
    body.ok_or_else(|| Reply::json(400, &json!({"error": "Problems parsing JSON"})))
}
