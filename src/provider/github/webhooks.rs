//! The webhooks of a repository. They are asked for by its number, as GitHub's own redirects are: a name can be another
//! repository's by now.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::listing::next_place;
use super::refusal::{Refused, accepted_as, webhook_refusal};
use super::{MAX_PAGE_SIZE, get, get_place, versioned};
use crate::domain::credential::Secret;
use crate::domain::repository::Repository;
use crate::domain::webhook::{
    RemoteWebhook, SecretScheme, WantedWebhook, WebhookEvent, WebhookHealth, WebhookSetup,
};
use crate::provider::ProviderError;
use crate::provider::api::{Api, Call};
use crate::provider::deliveries::same_target;
use crate::provider::fields::{Id, bounded};

/// Most pages of one repository's webhooks. There are 250 for each event at most (troubleshooting-webhooks).
const MAX_PAGES: usize = 100;

/// The webhooks that deliver to the target, in the order of their numbers.
pub(super) async fn list(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
) -> Result<Vec<RemoteWebhook>, ProviderError> {
    let mut call = get(api, &path(repository)?).query("per_page", MAX_PAGE_SIZE.to_string());
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let answer = call.send().await?;
        let next = next_place(api, &answer)?;
        let answer = accepted_as(answer, StatusCode::OK, |answer| webhook_refusal(answer, Refused::All))?;
        let rows: Vec<Option<HookRow>> = bounded(answer.json()?)?;
        let rows = rows.into_iter().flatten().filter(|row| row.delivers_to(wanted));
        found.extend(rows.map(|row| (row.id, row)));
        let Some(place) = next else {
            found.sort_by_key(|(id, _)| *id);
            // A hook that was removed meanwhile moves the others to the page before, one that was made shifts them.
            found.dedup_by_key(|(id, _)| *id);
            return Ok(found.into_iter().map(|(_, row)| row.into_webhook(wanted)).collect());
        };
        call = get_place(api, &place)?;
    }
    Err(ProviderError::garbled("its list of webhooks does not end"))
}

/// Makes one. It is told nothing of a webhook of the same target that is there already but that there is one.
pub(super) async fn create(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let call = versioned(api.call(Method::POST, &path(repository)?));
    let body = HookBody { name: Some("web"), ..HookBody::new(wanted, secret) };
    let answer = call.json(&body)?.send().await?;
    let answer = accepted_as(answer, StatusCode::CREATED, |answer| webhook_refusal(answer, Refused::All))?;
    made(answer.json()?, wanted)
}

/// Makes one as it is wanted. The secret goes along: `config` is replaced as a whole, so that it would be gone without.
pub(super) async fn update(
    api: &Api,
    repository: &Repository,
    hook: &RemoteWebhook,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let call = one(api, Method::PATCH, repository, &hook.id)?;
    let answer = call.json(&HookBody::new(wanted, secret))?.send().await?;
    let answer = accepted_as(answer, StatusCode::OK, |answer| webhook_refusal(answer, Refused::One))?;
    let row: HookRow = answer.json()?;
    if row.id.0.to_string() != hook.id {
        return Err(ProviderError::garbled("it answered with another webhook"));
    }
    made(row, wanted)
}

/// Removes one.
pub(super) async fn delete(api: &Api, repository: &Repository, id: &str) -> Result<(), ProviderError> {
    let answer = one(api, Method::DELETE, repository, id)?.send().await?;
    accepted_as(answer, StatusCode::NO_CONTENT, |answer| webhook_refusal(answer, Refused::One)).map(|_| ())
}

/// What a person does, in the words of GitHub's page "Add webhook".
pub(super) fn setup(repository: &Repository, wanted: &WantedWebhook) -> WebhookSetup {
    let events: Vec<&str> = [("push", "Pushes"), ("pull_request", "Pull requests")]
        .into_iter()
        .filter(|(event, _)| events(wanted).contains(event))
        .map(|(_, title)| title)
        .collect();
    WebhookSetup {
        scheme: SecretScheme::HmacSha256,
        content_type: "application/json",
        steps: vec![
            format!("Open {}/settings/hooks and choose \"Add webhook\".", repository.web_url),
            format!("Payload URL: {}", wanted.target_url),
            "Content type: application/json".to_owned(),
            "Secret: the secret that comes with these steps.".to_owned(),
            "SSL verification: leave \"Enable SSL verification\" chosen.".to_owned(),
            format!(
                "Choose \"Let me select individual events\" and tick nothing but: {}.",
                events.join(", ")
            ),
            "Leave \"Active\" ticked and choose \"Add webhook\".".to_owned(),
        ],
    }
}

/// The path of a repository's webhooks.
fn path(repository: &Repository) -> Result<[&str; 3], ProviderError> {
    let id = repository.provider_id.as_str();
    if Id::is_canonical(id) { Ok(["repositories", id, "hooks"]) } else { Err(ProviderError::NotFound) }
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
    let [place, number, hooks] = path(repository)?;
    Ok(versioned(api.call(method, &[place, number, hooks, id])))
}

/// GitHub's own events for the wanted ones. `push` tells tags, too, and deletions. `create` and `delete` would tell
/// the same once more, `create` without the commit.
fn events(wanted: &WantedWebhook) -> BTreeSet<&'static str> {
    let own = |event: &WebhookEvent| match event {
        WebhookEvent::Push | WebhookEvent::Tag => Some("push"),
        WebhookEvent::PullRequest => Some("pull_request"),
        WebhookEvent::Other => None,
    };
    wanted.events.iter().filter_map(own).collect()
}

/// A webhook of an answer to the call that made it so.
fn made(row: HookRow, wanted: &WantedWebhook) -> Result<RemoteWebhook, ProviderError> {
    if row.delivers_to(wanted) {
        Ok(row.into_webhook(wanted))
    } else {
        Err(ProviderError::garbled("it answered with a webhook of another target"))
    }
}

/// What is sent to make or change a webhook.
#[derive(Serialize)]
struct HookBody<'a> {
    /// `web`, for a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    active: bool,
    events: BTreeSet<&'static str>,
    config: ConfigBody<'a>,
}

#[derive(Serialize)]
struct ConfigBody<'a> {
    url: &'a str,
    content_type: &'static str,
    secret: &'a str,
    insecure_ssl: &'static str,
}

impl<'a> HookBody<'a> {
    fn new(wanted: &'a WantedWebhook, secret: &'a Secret) -> Self {
        Self {
            name: None,
            active: true,
            events: events(wanted),
            config: ConfigBody {
                url: &wanted.target_url,
                content_type: "json",
                secret: secret.expose(),
                insecure_ssl: "0",
            },
        }
    }
}

/// A webhook as GitHub shows it.
#[derive(Debug, Deserialize)]
struct HookRow {
    id: Id,
    #[serde(default)]
    active: bool,
    #[serde(default)]
    events: BTreeSet<String>,
    #[serde(default)]
    config: ConfigRow,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigRow {
    url: Option<String>,
    content_type: Option<String>,
    /// Stars where there is one; what stands here is not even read.
    secret: Option<serde::de::IgnoredAny>,
    insecure_ssl: Option<Switch>,
}

/// `"0"` or `0`, by the description.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Switch {
    Text(String),
    Number(f64),
}

impl HookRow {
    fn delivers_to(&self, wanted: &WantedWebhook) -> bool {
        self.config.url.as_deref().is_some_and(|url| same_target(url, &wanted.target_url))
    }

    fn into_webhook(self, wanted: &WantedWebhook) -> RemoteWebhook {
        let mut drift = Vec::new();
        if !self.events.iter().map(String::as_str).eq(events(wanted)) {
            drift.push("events");
        }
        // Left out, it is a form.
        if self.config.content_type.as_deref() != Some("json") {
            drift.push("content type");
        }
        let verifies = match &self.config.insecure_ssl {
            None => true,
            Some(Switch::Text(text)) => text == "0",
            Some(Switch::Number(number)) => *number == 0.0,
        };
        if !verifies {
            drift.push("TLS verification");
        }
        if self.config.secret.is_none() {
            drift.push("secret");
        }
        RemoteWebhook {
            id: self.id.0.to_string(),
            health: if self.active { WebhookHealth::Working } else { WebhookHealth::SwitchedOff },
            drift,
            scheme: SecretScheme::HmacSha256,
            secret_set: Some(self.config.secret.is_some()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted(events: &[WebhookEvent]) -> WantedWebhook {
        WantedWebhook {
            target_url: "https://hooks.example/in".to_owned(),
            events: events.iter().copied().collect(),
            server_version: String::new(),
        }
    }

    fn healthy() -> Value {
        json!({"type": "Repository", "id": 7, "name": "web", "active": true, "events": ["push", "pull_request"],
            "config": {"url": "https://hooks.example/in", "content_type": "json", "secret": "********",
                "insecure_ssl": "0"}})
    }

    fn read(row: &Value) -> RemoteWebhook {
        let row: HookRow = serde_json::from_str(&row.to_string()).expect("a row");
        row.into_webhook(&wanted(&WebhookEvent::CHOSEN))
    }

    #[test]
    fn ac_59_what_is_not_as_wanted_is_named() {
        assert_eq!(
            read(&healthy()),
            RemoteWebhook {
                id: "7".to_owned(),
                health: WebhookHealth::Working,
                drift: Vec::new(),
                scheme: SecretScheme::HmacSha256,
                secret_set: Some(true),
            }
        );
        let with = |place: &str, value: Value| {
            let mut row = healthy();
            *row.pointer_mut(place).expect("a member") = value;
            read(&row)
        };
        for (place, value, drift) in [
            ("/events", json!(["pull_request", "push"]), None),
            ("/events", json!(["push"]), Some("events")),
            ("/events", json!(["push", "pull_request", "create"]), Some("events")),
            ("/events", json!(["*"]), Some("events")),
            ("/events", json!([]), Some("events")),
            ("/config/content_type", json!("form"), Some("content type")),
            ("/config/content_type", Value::Null, Some("content type")),
            ("/config/insecure_ssl", json!("1"), Some("TLS verification")),
            ("/config/insecure_ssl", json!(1), Some("TLS verification")),
            ("/config/insecure_ssl", json!(0), None),
            ("/config/insecure_ssl", Value::Null, None),
            ("/config/secret", Value::Null, Some("secret")),
        ] {
            let drift: Vec<&str> = drift.into_iter().collect();
            assert_eq!(with(place, value.clone()).drift, drift, "{place} {value}");
        }
        assert_eq!(with("/active", json!(false)).health, WebhookHealth::SwitchedOff);
    }

    #[test]
    fn tags_are_told_by_pushes() {
        use WebhookEvent::{PullRequest, Push, Tag};
        let own = |list: &[WebhookEvent]| events(&wanted(list)).into_iter().collect::<Vec<_>>();
        assert_eq!(own(&[Tag]), ["push"]);
        assert_eq!(own(&[Push, Tag]), ["push"]);
        assert_eq!(own(&[PullRequest]), ["pull_request"]);
        assert_eq!(own(&WebhookEvent::CHOSEN), ["pull_request", "push"]);
    }

    #[test]
    fn recorded_webhooks_are_read() {
        macro_rules! recorded {
            ($name:literal) => {{
                let text = include_str!(concat!(
                    "../../../tests/fixtures/providers/github/exchanges/",
                    $name,
                    ".json"
                ));
                let exchange: Value = serde_json::from_str(text).expect("fixture");
                exchange["response"]["body"].clone()
            }};
        }
        for row in [recorded!("hook-create-201"), recorded!("hook-get-200")] {
            let found = read(&row);
            assert_eq!(found.id, "319833951");
            assert_eq!(found.drift, ["events", "content type", "secret"]);
            assert_eq!(found.secret_set, Some(false));
        }
        assert_eq!(recorded!("hooks-list-200"), json!([]));
        let row = include_str!("../../../tests/fixtures/providers/github/go-scm/hook.json");
        let found = read(&serde_json::from_str(row).expect("fixture"));
        assert_eq!((found.id.as_str(), found.drift.as_slice()), ("1", &["secret"][..]));
    }

    #[test]
    fn a_secret_that_comes_back_is_not_kept() {
        let mut row = healthy();
        row["config"]["secret"] = json!("in clear");
        let row: HookRow = serde_json::from_str(&row.to_string()).expect("a row");
        assert!(!format!("{row:?}").contains("in clear"));
    }
}
