//! The link to the next page, which stands in the body.

use serde_json::{Value, json};

use super::super::Shared;
use super::super::fault::Fault;
use super::super::wire::{Query, Reply, Seen};
use super::data::API;

/// A listing that does not end as `fault` demands; `None` if the fault is no such. `first` is what the cycle leads
/// back to.
pub(in super::super) fn spoiled(
    forge: &Shared,
    fault: &Fault,
    seen: &Seen,
    first: impl FnOnce(Option<String>) -> Option<String>,
) -> Option<Reply> {
    let own = || {
        let rest = seen.target();
        format!("{API}{}", rest.strip_prefix("/bitbucket-cloud/2.0").unwrap_or(&rest))
    };
    let truth = || forge.truth(seen);
    let with = |next: &str| {
        let mut reply = truth();
        if next_of(&reply).is_some() {
            set(&mut reply, "next", json!(next));
        }
        reply
    };
    Some(match fault {
        Fault::SelfNextLink => with(&own()),
        Fault::CursorCycle => {
            let mut reply = truth();
            let next = next_of(&reply);
            if let Some(first) = next.clone().and_then(|_| first(next)) {
                set(&mut reply, "next", json!(first));
            }
            reply
        }
        Fault::SamePageForever => {
            let query = Query::parse(&seen.query);
            let page: usize = query.first("page").and_then(|page| page.parse().ok()).unwrap_or(1);
            let fixed = query.without("page").without("q").encode();
            let mut reply = forge.truth(&Seen { query: fixed, ..seen.clone() });
            if next_of(&reply).is_some() {
                let next = query.with("page", page + 1).encode();
                let path = seen.path.strip_prefix("/bitbucket-cloud/2.0").unwrap_or(&seen.path);
                set(&mut reply, "next", json!(format!("{API}{path}?{next}")));
            }
            reply
        }
        Fault::ForeignNextLink(origin) => {
            let mut reply = truth();
            if let Some(next) = next_of(&reply) {
                set(&mut reply, "next", json!(next.replace("https://api.bitbucket.org", origin)));
            }
            reply
        }
        Fault::BadNextPage(next) => with(next),
        Fault::InflatedTotal => {
            let mut reply = truth();
            let size = body(&reply)["size"].as_u64();
            if let Some(size) = size {
                set(&mut reply, "size", json!(size * 10));
            }
            reply
        }
        _ => return None,
    })
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}

fn next_of(reply: &Reply) -> Option<String> {
    body(reply)["next"].as_str().map(str::to_owned)
}

fn set(reply: &mut Reply, name: &str, value: Value) {
    let mut body = body(reply);
    body[name] = value;
    reply.body = body.to_string().into();
}
