//! What a test in another process may ask of a forge, below `/forge`: its webhooks with their secrets, the calls that
//! arrived, and holds. JSON in, JSON out.
//!
//! | call | |
//! | --- | --- |
//! | `GET /forge/hooks/PROVIDER` | `made` so far, and the `hooks` that there are |
//! | `POST /forge/hooks/PROVIDER` | makes a working webhook as a person would, of the form of those rows |
//! | `DELETE /forge/hooks/PROVIDER` | removes all webhooks of a `repository` |
//! | `GET /forge/calls/PROVIDER` | the calls that read a repository or had to do with webhooks, oldest first |
//! | `POST /forge/holds` | `{provider, call, moment, skip}`: holds up one call; answers `id` |
//! | `GET /forge/holds/ID?seconds=N` | waits until the call has come: `reached` |
//! | `DELETE /forge/holds/ID` | lets the call go; with `?lost` it never happened |

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::hold::{Doing, Hold, HoldAt, Moment};
use super::{Hook, Reply, Seen, Shared, lock};

/// Holds that were set from outside, by their ids.
#[derive(Debug, Default)]
pub(super) struct Outside {
    last: AtomicU64,
    holds: Mutex<HashMap<u64, Arc<Hold>>>,
}

/// Answers a call to `/forge/` and below; `path` is what follows.
pub(super) async fn answer(shared: &Shared, path: &str, seen: &Seen) -> Reply {
    let segments: Vec<&str> = path.split('/').collect();
    let found = match (seen.method.as_str(), segments.as_slice()) {
        ("GET", ["hooks", provider]) => hooks(shared, provider),
        ("POST", ["hooks", provider]) => add(shared, provider, &seen.body),
        ("DELETE", ["hooks", provider]) => remove(shared, provider, &seen.body),
        ("GET", ["calls", provider]) => Some(calls(shared, provider)),
        ("POST", ["holds"]) => set(shared, &seen.body),
        ("GET", ["holds", id]) => reached(shared, id, seen).await,
        ("DELETE", ["holds", id]) => release(shared, id, seen),
        _ => None,
    };
    found.map_or_else(|| Reply::json(404, &json!({"error": "no such thing"})), |body| Reply::json(200, &body))
}

fn hooks(shared: &Shared, provider: &str) -> Option<Value> {
    let kept = shared.hooks(provider)?;
    let rows = kept.all().into_iter().map(|(repository, hook)| {
        json!({"repository": repository, "id": hook.id, "url": hook.url, "events": hook.events, "secret": hook.secret,
            "state": format!("{:?}", hook.state), "more": hook.more})
    });
    Some(json!({"made": kept.made(), "hooks": rows.collect::<Vec<_>>()}))
}

fn add(shared: &Shared, provider: &str, body: &[u8]) -> Option<Value> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let events: Vec<&str> = body["events"].as_array()?.iter().filter_map(Value::as_str).collect();
    let mut hook = Hook::new(body["url"].as_str()?, &events, body["secret"].as_str());
    let more = body["more"].as_object()?.iter();
    hook.more.extend(more.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))));
    Some(json!({"id": shared.hooks(provider)?.add(body["repository"].as_str()?, hook).id}))
}

fn remove(shared: &Shared, provider: &str, body: &[u8]) -> Option<Value> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let (kept, repository) = (shared.hooks(provider)?, body["repository"].as_str()?);
    let removed = kept.of(repository).into_iter().filter(|hook| kept.remove(repository, &hook.id)).count();
    Some(json!({"removed": removed}))
}

fn calls(shared: &Shared, provider: &str) -> Value {
    let control = shared.control();
    let rows = control.seen.iter().filter_map(|seen| {
        let (at, doing) = Doing::of(seen)?;
        (at == provider)
            .then(|| json!({"call": doing.name(), "method": seen.method, "target": seen.target()}))
    });
    json!({"calls": rows.collect::<Vec<_>>()})
}

fn set(shared: &Shared, body: &[u8]) -> Option<Value> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let at = HoldAt {
        provider: body["provider"].as_str()?.to_owned(),
        doing: named(&Doing::NAMED, &body["call"])?,
        moment: named(&Moment::NAMED, &body["moment"])?,
        skip: usize::try_from(body["skip"].as_u64().unwrap_or(0)).ok()?,
    };
    shared.hooks(&at.provider)?;
    let id = shared.outside.last.fetch_add(1, Ordering::SeqCst) + 1;
    lock(&shared.outside.holds).insert(id, Arc::new(shared.holds.set(at)));
    Some(json!({"id": id}))
}

fn named<T: Copy>(names: &[(&str, T)], name: &Value) -> Option<T> {
    names.iter().find(|(known, _)| name == known).map(|(_, value)| *value)
}

async fn reached(shared: &Shared, id: &str, seen: &Seen) -> Option<Value> {
    let hold = lock(&shared.outside.holds).get(&id.parse().ok()?).cloned()?;
    let seconds = seen.param("seconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(10.0);
    let within = Duration::try_from_secs_f64(seconds).ok()?;
    Some(json!({"reached": hold.reached(within).await}))
}

fn release(shared: &Shared, id: &str, seen: &Seen) -> Option<Value> {
    let hold = lock(&shared.outside.holds).remove(&id.parse().ok()?)?;
    if seen.query == "lost" {
        hold.lose()
    } else {
        hold.let_go()
    }
    Some(json!({}))
}
