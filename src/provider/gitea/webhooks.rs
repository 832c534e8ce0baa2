//! The webhooks of a repository. They have no call by the repository's number, so its name must be a fresh one.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::listing::total;
use super::refusal::{accepted, accepted_as};
use crate::domain::credential::Secret;
use crate::domain::repository::Repository;
use crate::domain::webhook::{
    RemoteWebhook, SecretScheme, WantedWebhook, WebhookEvent, WebhookHealth, WebhookSetup,
};
use crate::provider::ProviderError;
use crate::provider::api::{Api, Call};
use crate::provider::deliveries::same_target;
use crate::provider::fields::{Id, bounded, lenient};

/// The rows that are asked for; most servers give no more.
const PAGE_SIZE: u64 = 50;
/// Most pages of one repository's webhooks.
const MAX_PAGES: u64 = 100;
/// Every branch and tag.
const EVERY_BRANCH: &str = "*";
/// The kinds of webhooks that deliver Gitea's own bodies. Others translate them for a chat.
const OWN_KINDS: [&str; 2] = ["gitea", "forgejo"];

/// The webhooks that deliver to the target, in the order of their numbers. No page links the next one, and each is cut
/// to a size of the server's.
pub(super) async fn list(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
) -> Result<Vec<RemoteWebhook>, ProviderError> {
    let path = path(repository)?;
    let mut found: Vec<HookRow> = Vec::new();
    let mut seen = BTreeSet::new();
    for page in 1..=MAX_PAGES {
        let call = api.get(&path).query("page", page.to_string()).query("limit", PAGE_SIZE.to_string());
        let answer = accepted(call.send().await?)?;
        let total = total(&answer)?;
        let rows: Option<Vec<HookRow>> = answer.json()?;
        let rows = bounded(rows.unwrap_or_default())?;
        let (known, count) = (seen.len(), rows.len());
        seen.extend(rows.iter().map(|row| row.id));
        found.extend(rows.into_iter().filter(|row| row.delivers_to(wanted)));
        let is_last = count == 0 || total.is_some_and(|total| seen.len() as u64 >= total);
        if is_last {
            found.sort_by_key(|row| row.id);
            // A hook that was made or removed meanwhile moves the others from page to page.
            found.dedup_by_key(|row| row.id);
            return Ok(found.into_iter().map(|row| row.into_webhook(wanted)).collect());
        }
        if seen.len() == known {
            return Err(ProviderError::garbled("its pages do not advance"));
        }
    }
    Err(ProviderError::garbled("its list of webhooks does not end"))
}

/// Makes one, whether there is one of the same target or not: Gitea does not look.
pub(super) async fn create(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let body = HookBody { kind: Some(OWN_KINDS[0]), ..HookBody::new(wanted, secret) };
    let answer = api.call(Method::POST, &path(repository)?).json(&body)?.send().await?;
    made(accepted_as(answer, StatusCode::CREATED)?.json()?, wanted)
}

/// Makes one as it is wanted, but for its secret, of which Gitea takes no other. What an update leaves out becomes
/// empty, so the header that somebody may have set for a proxy before the target is sent back as it was.
pub(super) async fn update(
    api: &Api,
    repository: &Repository,
    hook: &RemoteWebhook,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let known = accepted(one(api, Method::GET, repository, &hook.id)?.send().await?)?;
    let header: HeaderRow = known.json()?;
    let header = header.authorization_header.map(Secret::new);
    let body = HookBody {
        authorization_header: header.as_ref().map(Secret::expose),
        ..HookBody::new(wanted, secret)
    };
    let answer = one(api, Method::PATCH, repository, &hook.id)?.json(&body)?.send().await?;
    let row: HookRow = accepted(answer)?.json()?;
    if row.id.0.to_string() != hook.id {
        return Err(ProviderError::garbled("it answered with another webhook"));
    }
    made(row, wanted)
}

/// Removes one.
pub(super) async fn delete(api: &Api, repository: &Repository, id: &str) -> Result<(), ProviderError> {
    let answer = one(api, Method::DELETE, repository, id)?.send().await?;
    accepted_as(answer, StatusCode::NO_CONTENT).map(|_| ())
}

/// What a person does, in the words of Gitea's page "Add Webhook".
pub(super) fn setup(repository: &Repository, wanted: &WantedWebhook) -> WebhookSetup {
    let (pushes, pull_requests) = chosen(wanted);
    let mut events = Vec::new();
    if pushes {
        events.push("Push");
    }
    if pull_requests {
        events.extend(["Pull Request", "Pull Request Synchronized"]);
    }
    WebhookSetup {
        scheme: SecretScheme::HmacSha256,
        content_type: "application/json",
        steps: vec![
            format!(
                "Open {}/settings/hooks, choose \"Add Webhook\" and there \"Gitea\" (\"Forgejo\" where there is none).",
                repository.web_url
            ),
            format!("Target URL: {}", wanted.target_url),
            "HTTP Method: POST. POST Content Type: application/json.".to_owned(),
            "Secret: the secret that comes with these steps.".to_owned(),
            format!(
                "Trigger On: choose \"Custom Events...\" and tick nothing but: {}. Leave the branch filter at *.",
                events.join(", ")
            ),
            "Leave \"Active\" ticked and choose \"Add Webhook\".".to_owned(),
            "If nothing arrives, ask the server's administrator: ALLOWED_HOST_LIST in [webhook] names the hosts that \
             webhooks may go to, and the target's certificate must be one that the server trusts."
                .to_owned(),
        ],
    }
}

/// The path of a repository's webhooks.
fn path(repository: &Repository) -> Result<[&str; 4], ProviderError> {
    let (owner, name) = repository.full_name.split_once('/').ok_or(ProviderError::NotFound)?;
    Ok(["repos", owner, name, "hooks"])
}

/// A call of one webhook.
fn one<'a>(
    api: &'a Api,
    method: Method,
    repository: &Repository,
    id: &str,
) -> Result<Call<'a>, ProviderError> {
    // A number alone gets into the path; anything else names no webhook.
    if !Id::is_canonical(id) {
        return Err(ProviderError::NotFound);
    }
    let [repos, owner, name, hooks] = path(repository)?;
    Ok(api.call(method, &[repos, owner, name, hooks, id]))
}

/// Whether pushes are wanted, and pull requests. A push tells tags, too, and deletions: `create` and `delete` would tell
/// the same once more.
fn chosen(wanted: &WantedWebhook) -> (bool, bool) {
    let pushes = [WebhookEvent::Push, WebhookEvent::Tag].iter().any(|event| wanted.events.contains(event));
    (pushes, wanted.events.contains(&WebhookEvent::PullRequest))
}

/// Gitea's own events for the wanted ones, as they are sent.
fn events(wanted: &WantedWebhook) -> Vec<&'static str> {
    let (pushes, pull_requests) = chosen(wanted);
    let own = [(pushes, "push"), (pull_requests, "pull_request")];
    own.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, event)| event).collect()
}

/// Whether the events of a webhook are the wanted ones. `pull_request` comes back as about nine, one for each thing that
/// can happen to one, in any order, and other versions have others: those of opening, closing and pushing are needed.
fn are_wanted(events: &BTreeSet<String>, wanted: &WantedWebhook) -> bool {
    let (pushes, pull_requests) = chosen(wanted);
    let has = |event: &str| events.contains(event);
    let is_of_pull_requests = |event: &&String| event.starts_with("pull_request");
    let others = events.iter().filter(|event| !is_of_pull_requests(event) && *event != "push").count();
    let fits = if pull_requests {
        has("pull_request") && has("pull_request_sync")
    } else {
        !events.iter().any(|event| is_of_pull_requests(&event))
    };
    others == 0 && fits && has("push") == pushes
}

/// A webhook of an answer to the call that made it so.
fn made(row: HookRow, wanted: &WantedWebhook) -> Result<RemoteWebhook, ProviderError> {
    if row.delivers_to(wanted) {
        Ok(row.into_webhook(wanted))
    } else {
        Err(ProviderError::garbled("it answered with a webhook of another target"))
    }
}

/// What is sent to make or change a webhook. Left out, `active` is false, and `events` are pushes alone.
#[derive(Serialize)]
struct HookBody<'a> {
    /// For a new one.
    #[serde(skip_serializing_if = "Option::is_none", rename = "type")]
    kind: Option<&'static str>,
    active: bool,
    events: Vec<&'static str>,
    branch_filter: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_header: Option<&'a str>,
    config: ConfigBody<'a>,
}

#[derive(Serialize)]
struct ConfigBody<'a> {
    url: &'a str,
    content_type: &'static str,
    secret: &'a str,
}

impl<'a> HookBody<'a> {
    fn new(wanted: &'a WantedWebhook, secret: &'a Secret) -> Self {
        Self {
            kind: None,
            active: true,
            events: events(wanted),
            branch_filter: EVERY_BRANCH,
            authorization_header: None,
            config: ConfigBody { url: &wanted.target_url, content_type: "json", secret: secret.expose() },
        }
    }
}

/// A webhook as Gitea shows it. What is sent along with its deliveries is not read: it is in clear.
#[derive(Debug, Deserialize)]
struct HookRow {
    id: Id,
    #[serde(default, deserialize_with = "lenient", rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    active: bool,
    #[serde(default, deserialize_with = "lenient")]
    events: Option<BTreeSet<String>>,
    #[serde(default, deserialize_with = "lenient")]
    branch_filter: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    config: Option<ConfigRow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigRow {
    url: Option<String>,
    content_type: Option<String>,
}

/// What somebody had sent along with the deliveries.
#[derive(Deserialize)]
struct HeaderRow {
    #[serde(default, deserialize_with = "lenient")]
    authorization_header: Option<String>,
}

impl HookRow {
    fn delivers_to(&self, wanted: &WantedWebhook) -> bool {
        let url = self.config.as_ref().and_then(|config| config.url.as_deref());
        self.kind.as_deref().is_none_or(|kind| OWN_KINDS.contains(&kind))
            && url.is_some_and(|url| same_target(url, &wanted.target_url))
    }

    fn into_webhook(self, wanted: &WantedWebhook) -> RemoteWebhook {
        let mut drift = Vec::new();
        if !are_wanted(&self.events.unwrap_or_default(), wanted) {
            drift.push("events");
        }
        if !matches!(self.branch_filter.as_deref(), None | Some("" | EVERY_BRANCH)) {
            drift.push("branch filter");
        }
        if self.config.and_then(|config| config.content_type).as_deref() != Some("json") {
            drift.push("content type");
        }
        RemoteWebhook {
            id: self.id.0.to_string(),
            health: if self.active { WebhookHealth::Working } else { WebhookHealth::SwitchedOff },
            drift,
            scheme: SecretScheme::HmacSha256,
            secret_set: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted(events: &[WebhookEvent], target: &str) -> WantedWebhook {
        WantedWebhook {
            target_url: target.to_owned(),
            events: events.iter().copied().collect(),
            server_version: String::new(),
        }
    }

    macro_rules! recorded {
        ($name:literal) => {{
            let text =
                include_str!(concat!("../../../tests/fixtures/providers/gitea/exchanges/", $name, ".json"));
            let exchange: Value = serde_json::from_str(text).expect("fixture");
            exchange["response"]["body"].clone()
        }};
    }

    fn read(row: &Value, wanted: &WantedWebhook) -> Option<RemoteWebhook> {
        let row: HookRow = serde_json::from_str(&row.to_string()).expect("a row");
        row.delivers_to(wanted).then(|| row.into_webhook(wanted))
    }

    #[test]
    fn recorded_webhooks_are_read() {
        let wanted = wanted(&WebhookEvent::CHOSEN, "http://127.0.0.1:3399/in");
        let found = read(&recorded!("hook_create_201"), &wanted).expect("the target");
        // It also tells `create` and `delete`, and was made inactive for want of a word.
        assert_eq!((found.id.as_str(), found.drift.as_slice()), ("1", &["events"][..]));
        assert_eq!((found.health, found.secret_set), (WebhookHealth::SwitchedOff, None));
        let found = read(&recorded!("hook_create_again"), &wanted).expect("the target");
        assert_eq!((found.id.as_str(), found.health), ("2", WebhookHealth::Working));
        let rows = recorded!("hooks_list");
        let found: Vec<_> =
            rows.as_array().expect("a list").iter().map(|row| read(row, &wanted).is_some()).collect();
        assert!(found.len() >= 5 && found.contains(&true), "{found:?}");
    }

    #[test]
    fn ac_59_events_are_compared_in_the_expansion_of_the_server() {
        let row = recorded!("hook_create_201");
        let expanded = row["events"].as_array().expect("events").iter().filter_map(Value::as_str);
        let expanded: Vec<&str> = expanded.filter(|event| !matches!(*event, "create" | "delete")).collect();
        assert!(expanded.len() > 8, "{expanded:?}");
        let fits = |events: &[&str], chosen: &[WebhookEvent]| {
            let events = events.iter().map(|event| (*event).to_owned()).collect();
            are_wanted(&events, &wanted(chosen, ""))
        };
        use WebhookEvent::{PullRequest, Push, Tag};
        let reversed: Vec<&str> = expanded.iter().rev().copied().collect();
        assert!(fits(&expanded, &WebhookEvent::CHOSEN) && fits(&reversed, &[Tag, PullRequest]));
        // Ticked by a person: what is told is the same.
        assert!(fits(&["push", "pull_request", "pull_request_sync"], &WebhookEvent::CHOSEN));
        assert!(fits(&["push"], &[Push]) && fits(&["push"], &[Tag]));
        for (events, chosen) in [
            (&["push"][..], &WebhookEvent::CHOSEN[..]),
            (&["push", "pull_request"], &WebhookEvent::CHOSEN),
            (&["push", "pull_request_sync"], &WebhookEvent::CHOSEN),
            (&["pull_request", "pull_request_sync"], &WebhookEvent::CHOSEN),
            (&["push", "create"], &[Push]),
            (&["push", "pull_request"], &[Push]),
            (&[], &[Push]),
            // An unknown name is dropped without a word: such a hook never fires.
            (&[], &WebhookEvent::CHOSEN),
        ] {
            assert!(!fits(events, chosen), "{events:?} {chosen:?}");
        }
    }

    #[test]
    fn what_is_not_as_wanted_is_named() {
        let wanted = wanted(&[WebhookEvent::Push], "https://hooks.example/in");
        let healthy = json!({"id": 3, "type": "gitea", "branch_filter": "*", "events": ["push"], "active": true,
            "config": {"content_type": "json", "url": "https://hooks.example/in"}});
        assert_eq!(read(&healthy, &wanted).map(|found| found.drift), Some(Vec::new()));
        let with = |place: &str, value: Value| {
            let mut row = healthy.clone();
            *row.pointer_mut(place).expect("a member") = value;
            read(&row, &wanted)
        };
        for (place, value, drift) in [
            ("/branch_filter", json!(""), &[][..]),
            ("/branch_filter", json!("main"), &["branch filter"]),
            ("/config/content_type", json!("form"), &["content type"]),
            ("/events", Value::Null, &["events"]),
            ("/type", json!("forgejo"), &[]),
        ] {
            assert_eq!(with(place, value.clone()).expect("the target").drift, drift, "{place} {value}");
        }
        for (place, value) in
            [("/type", json!("slack")), ("/config", Value::Null), ("/config/url", json!("x"))]
        {
            assert_eq!(with(place, value.clone()), None, "{place} {value}");
        }
    }
}
