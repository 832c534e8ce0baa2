//! Webhooks of a repository: nothing keeps two from having one target, a change that leaves the secret out keeps it, and
//! the secret is never shown. Of their limit nothing is documented but that there may be one, so there is none here.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::hooks::{Hook, HookState};
use super::super::wire::{Query, Reply, Seen};
use super::Instance;
use super::data::{API, Repository};
use super::refusal::{error, forbidden, invalid, scope_missing};
use super::tokens::BitbucketToken;

/// The recorded webhook, whose members every row has.
const ROW: &str = recorded!("bitbucket-cloud/go-scm/hook.json");
/// The events that the official description lists, as far as they matter here, and the scope that each needs.
const EVENTS: &[(&str, [&str; 2])] = &[
    ("repo:push", REPOSITORY),
    ("repo:fork", REPOSITORY),
    ("repo:updated", REPOSITORY),
    ("pullrequest:created", PULL_REQUEST),
    ("pullrequest:updated", PULL_REQUEST),
    ("pullrequest:approved", PULL_REQUEST),
    ("pullrequest:fulfilled", PULL_REQUEST),
    ("pullrequest:rejected", PULL_REQUEST),
];
const REPOSITORY: [&str; 2] = ["read:repository:bitbucket", "repository"];
const PULL_REQUEST: [&str; 2] = ["read:pullrequest:bitbucket", "pullrequest"];

impl Instance {
    /// `/repositories/{workspace}/{name}/hooks` and below, for administrators and for tokens of the resource.
    pub(super) fn hooks(
        &self,
        seen: &Seen,
        (workspace, name): (&str, &str),
        uid: Option<&str>,
        caller: &BitbucketToken,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let need = |scopes: [&str; 2]| {
            let needed = if caller.has_user() { scopes[0] } else { scopes[1] };
            let has = caller.scopes.iter().any(|scope| scope == needed);
            if has { Ok(()) } else { Err(scope_missing(caller, needed)) }
        };
        if seen.method == "DELETE" {
            need(["delete:webhook:bitbucket", "webhook"])?;
        } else {
            need(["read:webhook:bitbucket", "webhook"])?;
        }
        if matches!(seen.method.as_str(), "POST" | "PUT") {
            need(["write:webhook:bitbucket", "webhook"])?;
        }
        let (workspace, index) = self.find(workspace, name, Some(caller))?;
        if caller.has_user() && self.granted(Some(caller), index) != Some("admin") {
            return Err(forbidden("You must be an administrator of the repository."));
        }
        let repository = self.data.repository(index);
        let full_name = format!("{}/{}", workspace.slug, repository.slug);
        let of = &repository.uuid;
        let shown = |hook: &Hook| row(hook, &full_name, &repository);
        let known = |uid: &str| {
            let missing = || error(404, &format!("{uid} is not a valid webhook"));
            self.hooks.find(of, uid).ok_or_else(missing)
        };
        match (seen.method.as_str(), uid) {
            ("GET" | "HEAD", None) => {
                let rows: Vec<Value> = self.hooks.of(of).iter().map(shown).collect();
                self.listed(seen, query, &rows)
            }
            ("POST", None) => {
                let mut hook = Hook::new("", &[], None);
                apply(&mut hook, seen, need)?;
                let hook = self.hooks.add(of, hook);
                let at = format!("{API}/repositories/{full_name}/hooks/{}", hook.id);
                Ok(Reply::json(201, &shown(&hook)).header("location", at))
            }
            ("GET" | "HEAD", Some(uid)) => Ok(Reply::json(200, &shown(&known(uid)?))),
            ("PUT", Some(uid)) => {
                let mut hook = known(uid)?;
                apply(&mut hook, seen, need)?;
                let changed = self.hooks.edit(of, uid, |kept| *kept = hook.clone());
                Ok(Reply::json(200, &shown(&changed.unwrap_or(hook))))
            }
            ("DELETE", Some(uid)) => {
                known(uid)?;
                self.hooks.remove(of, uid);
                Ok(Reply::new(204, "application/json", ""))
            }
            _ => Err(error(405, "Method not allowed")),
        }
    }
}

/// Takes over what a body says.
fn apply(hook: &mut Hook, seen: &Seen, need: impl Fn([&str; 2]) -> Result<(), Reply>) -> Result<(), Reply> {
    let body: Value = match seen.header("content-type") {
        Some("application/json") => serde_json::from_slice(&seen.body).unwrap_or_default(),
        _ => Value::Null,
    };
    if !body.is_object() {
        return Err(error(400, "Bad request"));
    }
    let url =
        body["url"].as_str().ok_or_else(|| invalid("url", "Required field: \"url\" is not present."))?;
    if !is_routed(url) {
        return Err(invalid("url", "The URL must resolve, and cannot be an internal, non-routed address."));
    }
    let named: Vec<&str> =
        body["events"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let events: BTreeSet<String> = named.iter().map(|event| (*event).to_owned()).collect();
    if events.is_empty() || events.len() < named.len() {
        return Err(invalid("events", "Events must be given, each once."));
    }
    for event in &events {
        let known = EVENTS.iter().find(|(name, _)| name == event);
        need(known.ok_or_else(|| invalid("events", "Unknown event."))?.1)?;
    }
    match &body["secret"] {
        Value::String(secret) if secret.len() > 128 => return Err(invalid("secret", "Too long.")),
        Value::String(secret) if !secret.is_empty() => hook.secret = Some(secret.clone()),
        Value::Null if body.get("secret").is_none() => {}
        _ => hook.secret = None,
    }
    hook.url = url.to_owned();
    hook.events = events;
    hook.state = if body["active"] == json!(false) { HookState::SwitchedOff } else { HookState::Working };
    if let Some(skips) = body["skip_cert_verification"].as_bool() {
        hook.verifies_tls = !skips;
    }
    if let Some(text) = body["description"].as_str() {
        hook.more.insert("description".to_owned(), text.to_owned());
    }
    Ok(())
}

/// Whether anybody reaches a target. No name is resolved: those for tests alone pass.
fn is_routed(target: &str) -> bool {
    let Ok(url) = url::Url::parse(target) else { return false };
    matches!(url.scheme(), "http" | "https")
        && match url.host() {
            Some(url::Host::Domain(name)) => name.contains('.') && !name.ends_with(".localhost"),
            Some(url::Host::Ipv4(address)) => !address.is_loopback() && !address.is_private(),
            _ => false,
        }
}

/// The recorded row with what the webhook has.
fn row(hook: &Hook, full_name: &str, repository: &Repository) -> Value {
    let mut row: Value = serde_json::from_str(ROW).unwrap_or_default();
    let own = format!("{API}/repositories/{full_name}");
    let number = hook
        .id
        .rsplit('-')
        .next()
        .and_then(|digits| u32::from_str_radix(digits.trim_end_matches('}'), 16).ok());
    let number = number.unwrap_or(0);
    for (name, value) in [
        ("uuid", json!(hook.id)),
        ("url", json!(hook.url)),
        ("description", json!(hook.more.get("description").map_or("", String::as_str))),
        ("active", json!(hook.state == HookState::Working)),
        ("events", json!(hook.events.iter().rev().collect::<Vec<_>>())),
        ("skip_cert_verification", json!(!hook.verifies_tls)),
        (
            "created_at",
            json!(format!(
                "2026-01-01T{:02}:{:02}:{:02}.048096Z",
                number / 3_600 % 24,
                number / 60 % 60,
                number % 60
            )),
        ),
        ("links", json!({"self": {"href": format!("{own}/hooks/{}", hook.id)}})),
        ("secret_set", json!(hook.secret.is_some())),
        ("subject_type", json!("repository")),
        ("history_enabled", json!(false)),
    ] {
        row[name] = value;
    }
    for (name, value) in [
        ("name", json!(repository.name)),
        ("full_name", json!(full_name)),
        ("uuid", json!(repository.uuid)),
        ("links", json!({"self": {"href": own}})),
    ] {
        row["subject"][name] = value;
    }
    row
}
