//! A project's webhooks.
//!
//! GitLab has no check for duplicates, never shows a secret again, and ignores what it does not know without a word: a
//! server older than 19.0 takes a signing token and signs nothing. What a hook is worth is therefore read from the
//! answer, never from what was sent.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::refusal::{accepted, accepted_as};
use crate::domain::credential::Secret;
use crate::domain::repository::Repository;
use crate::domain::webhook::{
    RemoteWebhook, SecretScheme, WantedWebhook, WebhookEvent, WebhookHealth, WebhookSetup,
};
use crate::provider::ProviderError;
use crate::provider::api::{Answer, Api, Call};
use crate::provider::deliveries::same_target;
use crate::provider::fields::{Id, bounded};
use crate::provider::inspection::release;

/// The most rows of one page.
const PAGE_SIZE: usize = 100;
/// How many pages of hooks are read. gitlab.com allows a project 100 hooks; the administrator of a server may allow
/// more.
const MAX_PAGES: usize = 20;
/// The first version with signing tokens.
const SIGNING: (u32, u32) = (19, 0);
/// The events of a project's webhook that a call can set. Those that a version does not have, it ignores.
const EVENTS: [&str; 18] = [
    PUSH,
    TAG,
    MERGE_REQUEST,
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
const PUSH: &str = "push_events";
const TAG: &str = "tag_push_events";
const MERGE_REQUEST: &str = "merge_requests_events";

/// A webhook as GitLab shows it. Most of its members are looked up by name: which there are depends on the version.
#[derive(Debug, Deserialize)]
struct HookRow {
    id: Id,
    url: String,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl HookRow {
    fn flag(&self, name: &str) -> Option<bool> {
        self.more.get(name).and_then(Value::as_bool)
    }

    fn text(&self, name: &str) -> &str {
        self.more.get(name).and_then(Value::as_str).unwrap_or("")
    }

    fn signs(&self) -> bool {
        self.flag("signing_token_present") == Some(true)
    }

    /// The row beside what is wanted.
    fn compared(&self, wanted: &WantedWebhook) -> RemoteWebhook {
        let told: BTreeSet<&str> =
            EVENTS.into_iter().filter(|event| self.flag(event) == Some(true)).collect();
        let is_filtered = !self.text("push_events_branch_filter").is_empty()
            && self.text("branch_filter_strategy") != "all_branches";
        // Servers older than 19.0 tell nothing of it.
        let secret_set = self.flag("token_present").map(|present| present || self.signs());
        let drift = [
            (told != wanted_events(wanted), "events"),
            (is_filtered, "branch filter"),
            (!self.text("custom_webhook_template").is_empty(), "payload template"),
            (self.flag("enable_ssl_verification") == Some(false), "TLS verification"),
            (secret_set == Some(false), "secret"),
        ];
        RemoteWebhook {
            id: self.id.0.to_string(),
            health: match self.text("alert_status").trim_start_matches(':') {
                // A successful test call resets either; before 17.11 there was no way back from the second one but it.
                "temporarily_disabled" | "disabled" => WebhookHealth::Suspended,
                // Not told, or `executable`.
                _ => WebhookHealth::Working,
            },
            drift: drift.into_iter().filter(|(drifted, _)| *drifted).map(|(_, words)| words).collect(),
            scheme: if self.signs() { SecretScheme::SigningToken } else { SecretScheme::Token },
            secret_set,
        }
    }
}

/// The webhooks of the project that deliver to the wanted target.
pub(super) async fn list(
    api: &Api,
    project: &Repository,
    wanted: &WantedWebhook,
) -> Result<Vec<RemoteWebhook>, ProviderError> {
    let id = number(&project.provider_id)?;
    let mut found = Vec::new();
    for page in 1..=MAX_PAGES {
        let call = api.get(&["projects", id, "hooks"]);
        let call = call.query("per_page", PAGE_SIZE.to_string()).query("page", page.to_string());
        let answer = accepted(call.send().await?)?;
        let rows: Vec<HookRow> = bounded(answer.json()?)?;
        let is_last = answer.count("x-next-page")?.is_none() && rows.len() < PAGE_SIZE;
        let fitting = rows.iter().filter(|row| same_target(&row.url, &wanted.target_url));
        found.extend(fitting.map(|row| row.compared(wanted)));
        if is_last || rows.is_empty() {
            return Ok(found);
        }
    }
    // What lies behind could be ours, so that this is no list of all.
    Err(ProviderError::garbled("the project has more webhooks than are read"))
}

/// Makes the webhook.
pub(super) async fn create(
    api: &Api,
    project: &Repository,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let mut settings = events(wanted);
    settings.insert("url".to_owned(), wanted.target_url.as_str().into());
    settings.insert("enable_ssl_verification".to_owned(), true.into());
    insert_secret(&mut settings, may_sign(wanted), secret);
    let call = api.call(Method::POST, &["projects", number(&project.provider_id)?, "hooks"]);
    let row: HookRow = written(call, settings, StatusCode::CREATED).await?.json()?;
    // It is there by now, so a failure of the second call leaves open in which form: a listing tells.
    let half = |_| ProviderError::garbled("the webhook was made, and its secret could not be set");
    proven(api, project, row, wanted, secret).await.map_err(half)
}

/// Makes the webhook as it is wanted. Its URL is not sent: it fits already, and GitLab drops the secret and the headers
/// of a webhook whose URL changes by a letter.
pub(super) async fn update(
    api: &Api,
    project: &Repository,
    hook: &RemoteWebhook,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let mut settings = events(wanted);
    settings.insert("enable_ssl_verification".to_owned(), true.into());
    for (name, value) in [
        ("push_events_branch_filter", ""),
        ("branch_filter_strategy", "all_branches"),
        ("custom_webhook_template", ""),
    ] {
        settings.insert(name.to_owned(), value.into());
    }
    // A hook that signs goes on signing under an old secret if only the other token is set.
    let signs = may_sign(wanted) || hook.scheme == SecretScheme::SigningToken;
    insert_secret(&mut settings, signs, secret);
    let row: HookRow = put(api, project, &hook.id, settings).await?.json()?;
    proven(api, project, row, wanted, secret).await
}

/// Removes the webhook.
pub(super) async fn delete(api: &Api, project: &Repository, id: &str) -> Result<(), ProviderError> {
    let call = one(api, Method::DELETE, project, id, &[])?;
    accepted_as(call.send().await?, StatusCode::NO_CONTENT).map_err(lacks_api).map(drop)
}

/// Wakes the webhook with a test delivery: one that is answered with success resets its failures.
pub(super) async fn wake(api: &Api, project: &Repository, id: &str) -> Result<(), ProviderError> {
    let call = one(api, Method::POST, project, id, &["test", PUSH])?;
    match accepted_as(call.send().await?, StatusCode::CREATED) {
        Err(ProviderError::Failed { status: Some(422), .. }) => Err(ProviderError::Failed {
            problem: "its test delivery was not answered with success",
            status: Some(422),
        }),
        other => other.map_err(lacks_api).map(drop),
    }
}

/// The row of a webhook that was just written, after its secret was set in the old way where the server took no
/// signing token.
async fn proven(
    api: &Api,
    project: &Repository,
    row: HookRow,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    if row.signs() || !may_sign(wanted) {
        return Ok(row.compared(wanted));
    }
    let mut settings = Map::new();
    insert_secret(&mut settings, false, secret);
    let row: HookRow = put(api, project, &row.id.0.to_string(), settings).await?.json()?;
    Ok(row.compared(wanted))
}

async fn put(
    api: &Api,
    project: &Repository,
    id: &str,
    settings: Map<String, Value>,
) -> Result<Answer, ProviderError> {
    written(one(api, Method::PUT, project, id, &[])?, settings, StatusCode::OK).await
}

async fn written(
    call: Call<'_>,
    settings: Map<String, Value>,
    success: StatusCode,
) -> Result<Answer, ProviderError> {
    accepted_as(call.json(&settings)?.send().await?, success).map_err(lacks_api)
}

/// A call to one webhook.
fn one<'a>(
    api: &'a Api,
    method: Method,
    project: &Repository,
    id: &str,
    rest: &[&str],
) -> Result<Call<'a>, ProviderError> {
    let start = ["projects", number(&project.provider_id)?, "hooks", number(id)?];
    Ok(api.call(method, &[&start[..], rest].concat()))
}

/// A number for a path; anything else is the number of nothing.
fn number(id: &str) -> Result<&str, ProviderError> {
    if Id::is_canonical(id) { Ok(id) } else { Err(ProviderError::NotFound) }
}

/// A refusal of a write names the scopes of the whole route, those for reading too.
fn lacks_api(error: ProviderError) -> ProviderError {
    match error {
        ProviderError::ScopeMissing { scopes } if !scopes.is_empty() => {
            ProviderError::ScopeMissing { scopes: vec!["api".to_owned()] }
        }
        other => other,
    }
}

/// What is wanted in GitLab's own events.
fn wanted_events(wanted: &WantedWebhook) -> BTreeSet<&'static str> {
    let event = |event: &WebhookEvent| match event {
        WebhookEvent::Push => Some(PUSH),
        WebhookEvent::Tag => Some(TAG),
        WebhookEvent::PullRequest => Some(MERGE_REQUEST),
        WebhookEvent::Other => None,
    };
    wanted.events.iter().filter_map(event).collect()
}

/// Every event, switched on or off: left out, pushes would be told always.
fn events(wanted: &WantedWebhook) -> Map<String, Value> {
    let told = wanted_events(wanted);
    EVENTS.into_iter().map(|event| (event.to_owned(), told.contains(event).into())).collect()
}

fn may_sign(wanted: &WantedWebhook) -> bool {
    release(&wanted.server_version).is_some_and(|release| release >= SIGNING)
}

fn insert_secret(settings: &mut Map<String, Value>, signs: bool, secret: &Secret) {
    let signing_token = if signs { signing_token(secret) } else { None };
    let (name, text) = match signing_token {
        Some(text) => ("signing_token", text),
        None => ("token", secret.expose().to_owned()),
    };
    settings.insert(name.to_owned(), text.into());
}

/// The secret in the form of a signing token: `whsec_` and its 32 bytes in base64. `None` for a secret of another form.
fn signing_token(secret: &Secret) -> Option<String> {
    let digits = secret.expose().as_bytes().chunks_exact(2);
    let mut bytes = Zeroizing::new(Vec::with_capacity(32));
    for pair in digits {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?);
    }
    (secret.expose().len() == 64).then(|| format!("whsec_{}", STANDARD.encode(bytes.as_slice())))
}

/// What a person does to make the webhook. The secret token works with every version; a signing token would have to be
/// drawn by GitLab.
pub(super) fn setup(project: &Repository, wanted: &WantedWebhook) -> WebhookSetup {
    let told = wanted_events(wanted);
    let boxes: Vec<&str> = [
        (PUSH, "Push events (All branches)"),
        (TAG, "Tag push events"),
        (MERGE_REQUEST, "Merge request events"),
    ]
    .into_iter()
    .filter(|(event, _)| told.contains(event))
    .map(|(_, title)| title)
    .collect();
    WebhookSetup {
        scheme: SecretScheme::Token,
        content_type: "application/json",
        steps: vec![
            format!(
                "As a Maintainer or Owner of the project open Settings > Webhooks ({}/-/hooks) and select Add new webhook.",
                project.web_url
            ),
            format!("URL: {}", wanted.target_url),
            "Secret token: the secret.".to_owned(),
            format!("Trigger: tick {}; clear every other box.", boxes.join(", ")),
            "Leave Custom webhook template empty; the payload stays JSON.".to_owned(),
            "SSL verification: keep Enable SSL verification ticked.".to_owned(),
            "Select Add webhook.".to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(version: &str) -> WantedWebhook {
        WantedWebhook {
            target_url: "https://hooks.example/in".to_owned(),
            events: BTreeSet::from(WebhookEvent::CHOSEN),
            server_version: version.to_owned(),
        }
    }

    fn compared(changes: &[(&str, Value)]) -> RemoteWebhook {
        let mut row = json!({"id": 7, "url": "https://hooks.example/in", "push_events": true,
            "tag_push_events": true, "merge_requests_events": true, "repository_update_events": true,
            "issues_events": false, "enable_ssl_verification": true, "alert_status": "executable",
            "push_events_branch_filter": null, "branch_filter_strategy": "wildcard", "token_present": true,
            "signing_token_present": false, "custom_headers": [{"key": "X-A"}]});
        for (name, value) in changes {
            row[*name] = value.clone();
        }
        let row: HookRow = serde_json::from_str(&row.to_string()).expect("a row");
        row.compared(&wanted("19.1.0-ee"))
    }

    #[test]
    fn ac_54_a_healthy_hook_has_no_drift() {
        let found = compared(&[]);
        assert_eq!((found.id.as_str(), found.health, found.drift.len()), ("7", WebhookHealth::Working, 0));
        assert_eq!((found.scheme, found.secret_set), (SecretScheme::Token, Some(true)));
        let signing = [("token_present", json!(false)), ("signing_token_present", json!(true))];
        let signing = compared(&signing);
        assert_eq!((signing.scheme, signing.secret_set), (SecretScheme::SigningToken, Some(true)));
        assert!(signing.drift.is_empty());
        // A filter that is not in force, and the words of older versions.
        for healthy in [
            &[("push_events_branch_filter", json!("x")), ("branch_filter_strategy", json!("all_branches"))][..],
            &[("alert_status", Value::Null), ("enable_ssl_verification", Value::Null)],
            &[("alert_status", json!(":executable")), ("push_events_branch_filter", json!(""))],
        ] {
            let found = compared(healthy);
            assert_eq!((found.drift.len(), found.health), (0, WebhookHealth::Working), "{healthy:?}");
        }
        assert_eq!(compared(&[("token_present", Value::Null)]).secret_set, None);
    }

    #[test]
    fn ac_59_each_alteration_is_named() {
        for (name, value, drift) in [
            ("push_events", json!(false), "events"),
            ("issues_events", json!(true), "events"),
            ("push_events_branch_filter", json!("main"), "branch filter"),
            ("custom_webhook_template", json!("{}"), "payload template"),
            ("enable_ssl_verification", json!(false), "TLS verification"),
            ("token_present", json!(false), "secret"),
        ] {
            assert_eq!(compared(&[(name, value)]).drift, [drift], "{name}");
        }
        for status in ["temporarily_disabled", "disabled", ":disabled"] {
            assert_eq!(compared(&[("alert_status", json!(status))]).health, WebhookHealth::Suspended);
        }
    }

    #[test]
    fn a_signing_token_is_the_bytes_of_the_secret() {
        let token = |text: &str| signing_token(&Secret::new(text.to_owned()));
        assert_eq!(token(&"00".repeat(32)), Some(format!("whsec_{}=", "A".repeat(43))));
        for other in ["", "00", &"0g".repeat(32), &"0".repeat(63), &"00".repeat(33), &"\u{e9}".repeat(32)] {
            assert_eq!(token(other), None, "{other}");
        }
        for (version, signs) in
            [("19.0.0", true), ("19.2.1-ee", true), ("18.11.3-ee", false), ("9.9", false), ("", false)]
        {
            assert_eq!(may_sign(&wanted(version)), signs, "{version}");
        }
    }

    #[test]
    fn a_webhook_is_sent_as_the_wanted_events_and_no_others() {
        let only = |event| WantedWebhook { events: BTreeSet::from([event]), ..wanted("") };
        for (event, name) in
            [(WebhookEvent::Push, PUSH), (WebhookEvent::Tag, TAG), (WebhookEvent::PullRequest, MERGE_REQUEST)]
        {
            let on: Vec<String> = events(&only(event))
                .into_iter()
                .filter(|(_, value)| *value == json!(true))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(on, [name]);
        }
    }
}
