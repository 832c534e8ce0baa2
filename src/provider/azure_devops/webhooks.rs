//! A repository's service hook subscriptions.
//!
//! One subscription tells one event, so one webhook is up to four of them: those of a repository that go to one target.
//! What is left of a half-made webhook is one whose events drifted, and is completed instead of made again: the
//! provider takes duplicates, and delivers twice. Nothing is signed; the secret is the password of basic
//! authentication, the only input that the provider masks.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::CODE;
use super::inspect::{VIEW, may_with_hooks};
use super::rows::{RepositoryRow, guid, is_guid};
use super::wire::{fetch_as_somebody, remove, send};
use crate::domain::credential::Secret;
use crate::domain::repository::Repository;
use crate::domain::webhook::{
    BASIC_AUTH_USERNAME, RemoteWebhook, SecretScheme, WantedWebhook, WebhookEvent, WebhookHealth,
    WebhookSetup,
};
use crate::provider::ProviderError;
use crate::provider::api::Api;
use crate::provider::deliveries::same_target;
use crate::provider::fields::bounded;

/// Where subscriptions are.
const SUBSCRIPTIONS: [&str; 3] = ["_apis", "hooks", "subscriptions"];
/// What sends the events, and what takes them.
const PUBLISHER: &str = "tfs";
const CONSUMER: &str = "webHooks";
const ACTION: &str = "httpRequest";
/// The version of the events that are read; without it the newest one would come.
const RESOURCE_VERSION: &str = "1.0";

const PUSH: &str = "git.push";
const CREATED: &str = "git.pullrequest.created";
const UPDATED: &str = "git.pullrequest.updated";
const MERGED: &str = "git.pullrequest.merged";

/// Inputs that narrow what is told, with the events that have them. An empty one narrows nothing.
const FILTERS: [(&str, &[&str]); 6] = [
    ("branch", &[PUSH, CREATED, UPDATED, MERGED]),
    ("pushedBy", &[PUSH]),
    ("pullrequestCreatedBy", &[CREATED, UPDATED, MERGED]),
    ("pullrequestReviewersContains", &[CREATED, UPDATED, MERGED]),
    ("notificationType", &[UPDATED]),
    ("mergeResult", &[MERGED]),
];

/// Why a target of plain http is none.
const HTTPS_TARGET: &str = "Azure DevOps sends the password of a webhook to https URLs alone: give the webhook an \
                            https target.";

/// The answer of the query for subscriptions: the query itself, with what it found.
#[derive(Debug, Deserialize)]
struct Found {
    // It may be null, but not missing: an answer of another kind must not mean that there are none.
    #[serde(deserialize_with = "Option::deserialize")]
    results: Option<Vec<SubscriptionRow>>,
}

/// One subscription. Its status and its inputs are open lists.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubscriptionRow {
    #[serde(deserialize_with = "guid")]
    id: String,
    status: Option<String>,
    publisher_id: Option<String>,
    event_type: Option<String>,
    consumer_id: Option<String>,
    #[serde(default)]
    publisher_inputs: Map<String, Value>,
    #[serde(default)]
    consumer_inputs: Map<String, Value>,
}

impl SubscriptionRow {
    fn event(&self) -> &str {
        self.event_type.as_deref().unwrap_or("")
    }

    fn told_of(&self, name: &str) -> &str {
        text(&self.publisher_inputs, name)
    }

    fn sent_with(&self, name: &str) -> &str {
        text(&self.consumer_inputs, name)
    }

    /// Whether it is of that repository and goes to that target.
    fn fits(&self, repository: &str, target: &str) -> bool {
        let is = |found: &Option<String>, wanted: &str| {
            found.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(wanted))
        };
        is(&self.publisher_id, PUBLISHER)
            && is(&self.consumer_id, CONSUMER)
            && self.told_of("repository").eq_ignore_ascii_case(repository)
            && same_target(self.sent_with("url"), target)
    }

    fn health(&self) -> WebhookHealth {
        match self.status.as_deref().unwrap_or("") {
            "disabledBySystem" | "disabledByInactiveIdentity" => WebhookHealth::Dead,
            "disabledByUser" => WebhookHealth::SwitchedOff,
            // On probation it is tried again for 36 hours, and one success restores it.
            _ => WebhookHealth::Working,
        }
    }

    /// Whether it has a password. The user name stands for it where an answer leaves masked inputs out.
    fn has_password(&self) -> bool {
        !self.sent_with("basicAuthPassword").is_empty() || !self.sent_with("basicAuthUsername").is_empty()
    }
}

fn text<'a>(inputs: &'a Map<String, Value>, name: &str) -> &'a str {
    inputs.get(name).and_then(Value::as_str).unwrap_or("")
}

/// The webhook that the subscriptions of a repository to one target are.
fn compared(rows: &[SubscriptionRow], wanted: &WantedWebhook) -> RemoteWebhook {
    let events: BTreeSet<&str> = rows.iter().map(SubscriptionRow::event).collect();
    let secret_set = rows.iter().all(SubscriptionRow::has_password);
    let is_filtered =
        |row: &SubscriptionRow| FILTERS.into_iter().any(|(name, _)| !row.told_of(name).is_empty());
    let is_cut = |row: &SubscriptionRow| {
        matches!(row.sent_with("resourceDetailsToSend").to_ascii_lowercase().as_str(), "minimal" | "none")
    };
    let trusts_all =
        |row: &SubscriptionRow| row.sent_with("acceptUntrustedCerts").eq_ignore_ascii_case("true");
    let drift = [
        // Twice the same event would be told twice.
        (events != wanted_events(wanted) || events.len() != rows.len(), "events"),
        (rows.iter().any(is_filtered), "filter"),
        (rows.iter().any(is_cut), "payload"),
        (rows.iter().any(trusts_all), "TLS verification"),
        (!secret_set, "secret"),
    ];
    let health = |which| rows.iter().any(|row| row.health() == which);
    let mut ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    ids.sort_unstable();
    RemoteWebhook {
        id: ids.join(","),
        health: [WebhookHealth::Dead, WebhookHealth::SwitchedOff]
            .into_iter()
            .find(|which| health(*which))
            .unwrap_or(WebhookHealth::Working),
        drift: drift.into_iter().filter(|(drifted, _)| *drifted).map(|(_, words)| words).collect(),
        scheme: SecretScheme::BasicAuth,
        secret_set: Some(secret_set),
    }
}

/// The webhook of the repository that delivers to the wanted target, if there is one.
pub(super) async fn list(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
) -> Result<Vec<RemoteWebhook>, ProviderError> {
    let rows = subscriptions(api, repository, wanted).await?;
    if !rows.is_empty() {
        return Ok(vec![compared(&rows, wanted)]);
    }
    // Who may not see subscriptions is shown none: nothing would be made twice, and called gone while it is there.
    match project_of(api, repository).await {
        Ok(project) if may_with_hooks(api, VIEW, &[&project]).await == Some(false) => {
            Err(ProviderError::Forbidden)
        }
        // A disabled repository cannot be read, so that nobody tells.
        Ok(_) | Err(ProviderError::NotFound | ProviderError::Forbidden) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Makes the subscriptions, one after the other.
pub(super) async fn create(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let order = Order::of(api, repository, wanted, secret).await?;
    let mut rows = Vec::new();
    for event in wanted_events(wanted) {
        match order.make(event).await {
            Ok(row) => rows.push(row),
            // What was made so far is there, so the failure leaves open how much: a listing tells.
            Err(_) if !rows.is_empty() => {
                return Err(ProviderError::garbled("some of the webhook's subscriptions could not be made"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(compared(&rows, wanted))
}

/// Makes the subscriptions as they are wanted: replaces those that fit, makes those that are missing, removes the rest.
pub(super) async fn update(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let mut found = subscriptions(api, repository, wanted).await?;
    if found.is_empty() {
        return Err(ProviderError::NotFound);
    }
    let order = Order::of(api, repository, wanted, secret).await?;
    let mut rows = Vec::new();
    for event in wanted_events(wanted) {
        // No call revives one that the provider disabled, so it goes with the rest.
        let fits = |row: &SubscriptionRow| row.event() == event && row.health() != WebhookHealth::Dead;
        rows.push(match found.iter().position(fits) {
            Some(at) => order.replace(&found.swap_remove(at)).await?,
            None => order.make(event).await?,
        });
    }
    for row in found {
        match remove_one(api, &row.id).await {
            Ok(()) | Err(ProviderError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(compared(&rows, wanted))
}

/// Removes the subscriptions of those ids, joined by commas. If one was not there, so is none of them for the caller:
/// a listing has to tell.
pub(super) async fn delete(api: &Api, ids: &str) -> Result<(), ProviderError> {
    let mut outcome = Ok(());
    for id in ids.split(',') {
        match remove_one(api, id).await {
            Ok(()) => {}
            Err(ProviderError::NotFound) => outcome = Err(ProviderError::NotFound),
            Err(error) => return Err(error),
        }
    }
    outcome
}

async fn remove_one(api: &Api, id: &str) -> Result<(), ProviderError> {
    if !is_guid(id) {
        return Err(ProviderError::NotFound);
    }
    let [apis, hooks, subscriptions] = SUBSCRIPTIONS;
    remove(api, &[apis, hooks, subscriptions, id], &[CODE]).await
}

/// The subscriptions of the repository to the target, in the order of their ids. The provider searches: a list of all
/// would be one of the whole organization, unpaged.
async fn subscriptions(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
) -> Result<Vec<SubscriptionRow>, ProviderError> {
    let id = &repository.provider_id;
    if !is_guid(id) {
        return Err(ProviderError::NotFound);
    }
    let condition = json!({"inputId": "repository", "operator": "equals", "inputValue": id});
    let query = json!({
        "publisherId": PUBLISHER,
        "consumerId": CONSUMER,
        "consumerActionId": ACTION,
        "publisherInputFilters": [{"conditions": [condition]}],
    });
    let path = ["_apis", "hooks", "subscriptionsquery"];
    let found: Found = send(api, Method::POST, &path, &query, &[CODE]).await?;
    let mut rows = bounded(found.results.unwrap_or_default())?;
    rows.retain(|row| row.fits(id, &wanted.target_url));
    rows.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(rows)
}

/// The id of the repository's project: a subscription has to name it, and a rename of the project must not matter.
async fn project_of(api: &Api, repository: &Repository) -> Result<String, ProviderError> {
    let path = ["_apis", "git", "repositories", repository.provider_id.as_str()];
    match fetch_as_somebody::<RepositoryRow>(api, &path, &[], &[CODE]).await {
        Ok((row, _)) => Ok(row.project.id),
        // It is missing everywhere but in lists.
        Err(ProviderError::NotFound) if repository.disabled => Err(ProviderError::Forbidden),
        Err(error) => Err(error),
    }
}

/// What every subscription of one webhook has.
struct Order<'a> {
    api: &'a Api,
    repository: &'a str,
    project: String,
    target: &'a str,
    secret: &'a Secret,
}

impl<'a> Order<'a> {
    async fn of(
        api: &'a Api,
        repository: &'a Repository,
        wanted: &'a WantedWebhook,
        secret: &'a Secret,
    ) -> Result<Self, ProviderError> {
        if !is_guid(&repository.provider_id) {
            return Err(ProviderError::NotFound);
        }
        if !wanted.target_url.starts_with("https://") {
            return Err(ProviderError::WebhookTargetRefused { setting: HTTPS_TARGET });
        }
        let project = project_of(api, repository).await?;
        Ok(Self { api, repository: &repository.provider_id, project, target: &wanted.target_url, secret })
    }

    async fn make(&self, event: &str) -> Result<SubscriptionRow, ProviderError> {
        send(self.api, Method::POST, &SUBSCRIPTIONS, &self.body(event, ""), &[CODE]).await
    }

    /// A replaced one has nothing but what is sent, so the password is sent always, and headers that somebody added are
    /// sent back.
    async fn replace(&self, row: &SubscriptionRow) -> Result<SubscriptionRow, ProviderError> {
        let headers = row.sent_with("httpHeaders");
        let headers = if headers.bytes().all(|byte| byte == b'*') { "" } else { headers };
        let [apis, hooks, subscriptions] = SUBSCRIPTIONS;
        let path = [apis, hooks, subscriptions, row.id.as_str()];
        send(self.api, Method::PUT, &path, &self.body(row.event(), headers), &[CODE]).await
    }

    /// A subscription; every input is a string.
    fn body(&self, event: &str, headers: &str) -> Value {
        let mut told_of: BTreeMap<&str, &str> = FILTERS
            .into_iter()
            .filter(|(_, events)| events.contains(&event))
            .map(|(name, _)| (name, ""))
            .collect();
        told_of.insert("projectId", &self.project);
        told_of.insert("repository", self.repository);
        let mut sent_with = BTreeMap::from([
            ("url", self.target),
            ("basicAuthUsername", BASIC_AUTH_USERNAME),
            ("basicAuthPassword", self.secret.expose()),
            ("acceptUntrustedCerts", "false"),
            ("resourceDetailsToSend", "all"),
            ("messagesToSend", "none"),
            ("detailedMessagesToSend", "none"),
        ]);
        if !headers.is_empty() {
            sent_with.insert("httpHeaders", headers);
        }
        json!({
            "status": "enabled",
            "publisherId": PUBLISHER,
            "eventType": event,
            "resourceVersion": RESOURCE_VERSION,
            "consumerId": CONSUMER,
            "consumerActionId": ACTION,
            "publisherInputs": told_of,
            "consumerInputs": sent_with,
        })
    }
}

/// What is wanted in the provider's own events: tags are told with branches.
fn wanted_events(wanted: &WantedWebhook) -> BTreeSet<&'static str> {
    let events = |event: &WebhookEvent| match event {
        WebhookEvent::Push | WebhookEvent::Tag => &[PUSH][..],
        WebhookEvent::PullRequest => &[CREATED, UPDATED, MERGED],
        WebhookEvent::Other => &[],
    };
    wanted.events.iter().flat_map(events).copied().collect()
}

/// What a person does to make the webhook: the form of basic authentication.
pub(super) fn setup(repository: &Repository, wanted: &WantedWebhook) -> WebhookSetup {
    let project = repository.web_url.split("/_git/").next().unwrap_or("");
    let told = wanted_events(wanted);
    let triggers: Vec<&str> = [
        (PUSH, "Code pushed"),
        (CREATED, "Pull request created"),
        (UPDATED, "Pull request updated"),
        (MERGED, "Pull request merge attempted"),
    ]
    .into_iter()
    .filter(|(event, _)| told.contains(event))
    .map(|(_, title)| title)
    .collect();
    let (first, others) = triggers.split_first().unwrap_or((&"", &[]));
    let mut steps = Vec::new();
    if !wanted.target_url.starts_with("https://") {
        steps.push(HTTPS_TARGET.to_owned());
    }
    steps.extend([
        format!(
            "As an administrator of the project open Project settings > Service hooks ({project}/_settings/serviceHooks) and select Create subscription."
        ),
        "Service: Web Hooks; then Next.".to_owned(),
        format!(
            "Trigger on this type of event: {first}. Repository: {} ({}). Leave every other filter at [Any]; then Next.",
            repository.display_name, repository.web_url
        ),
        format!("URL: {}", wanted.target_url),
        "Leave Accept untrusted SSL certificates clear, and HTTP headers empty.".to_owned(),
        format!("Basic authentication username: {BASIC_AUTH_USERNAME}"),
        "Basic authentication password: the secret.".to_owned(),
        "Resource details to send: All; the payload is JSON. Then Finish.".to_owned(),
    ]);
    if !others.is_empty() {
        steps.push(format!("Do the same once more for each of: {}.", others.join(", ")));
    }
    WebhookSetup { scheme: SecretScheme::BasicAuth, content_type: "application/json", steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "https://hooks.example/in";
    const REPOSITORY: &str = "fde2d21f-13b9-4864-a995-83329045289a";

    fn wanted(events: &[WebhookEvent]) -> WantedWebhook {
        WantedWebhook {
            target_url: TARGET.to_owned(),
            events: events.iter().copied().collect(),
            server_version: String::new(),
        }
    }

    /// A row as the provider shows it, made of a recorded one.
    fn row(number: u8, event: &str, changes: &[(&str, &str)]) -> SubscriptionRow {
        let text = include_str!("../../../tests/fixtures/providers/azure-devops/go-scm/hook.json");
        let mut row: Value = serde_json::from_str(text).expect("fixture");
        row["id"] = format!("00000000-0000-4000-8000-0000000000{number:02}").into();
        row["eventType"] = event.into();
        row["consumerInputs"] = json!({"url": TARGET, "basicAuthUsername": BASIC_AUTH_USERNAME,
            "basicAuthPassword": "********", "acceptUntrustedCerts": "false", "resourceDetailsToSend": "all"});
        for (pointer, value) in changes {
            match row.pointer_mut(pointer) {
                Some(place) => *place = (*value).into(),
                None => {
                    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
                    row.pointer_mut(parent).expect("a parent")[name] = (*value).into();
                }
            }
        }
        serde_json::from_str(&row.to_string()).expect("a row")
    }

    fn all(changes: &[(&str, &str)]) -> Vec<SubscriptionRow> {
        vec![row(1, CREATED, &[]), row(2, MERGED, &[]), row(3, PUSH, changes), row(4, UPDATED, &[])]
    }

    #[test]
    fn ac_54_four_subscriptions_are_one_healthy_webhook() {
        let found = compared(&all(&[]), &wanted(&WebhookEvent::CHOSEN));
        assert_eq!(found.id.split(',').count(), 4);
        assert_eq!((found.health, found.drift.len()), (WebhookHealth::Working, 0));
        assert_eq!((found.scheme, found.secret_set), (SecretScheme::BasicAuth, Some(true)));
        // Branches come with tags.
        let tags = [row(1, PUSH, &[])];
        for events in
            [&[WebhookEvent::Tag][..], &[WebhookEvent::Push], &[WebhookEvent::Push, WebhookEvent::Tag]]
        {
            assert!(compared(&tags, &wanted(events)).drift.is_empty(), "{events:?}");
        }
        for healthy in [
            &[("/status", "onProbation")][..],
            &[("/consumerInputs/acceptUntrustedCerts", "False"), ("/publisherInputs/pushedBy", "")],
            &[("/consumerInputs/resourceDetailsToSend", ""), ("/consumerInputs/basicAuthPassword", "")],
        ] {
            let found = compared(&all(healthy), &wanted(&WebhookEvent::CHOSEN));
            assert_eq!((found.drift.len(), found.health), (0, WebhookHealth::Working), "{healthy:?}");
        }
    }

    #[test]
    fn ac_59_each_alteration_is_named() {
        let drift = |rows: &[SubscriptionRow]| compared(rows, &wanted(&WebhookEvent::CHOSEN)).drift;
        for (pointer, value, words) in [
            ("/eventType", "git.pullrequest.commented", "events"),
            ("/publisherInputs/branch", "main", "filter"),
            ("/consumerInputs/resourceDetailsToSend", "Minimal", "payload"),
            ("/consumerInputs/acceptUntrustedCerts", "True", "TLS verification"),
        ] {
            assert_eq!(drift(&all(&[(pointer, value)])), [words], "{pointer}");
        }
        let open = [("/consumerInputs/basicAuthUsername", ""), ("/consumerInputs/basicAuthPassword", "")];
        assert_eq!(drift(&all(&open)), ["secret"]);
        // Half made, and made twice.
        assert_eq!(drift(&all(&[])[..3]), ["events"]);
        let mut twice = all(&[]);
        twice.push(row(5, PUSH, &[]));
        assert_eq!(drift(&twice), ["events"]);
        for (status, health) in [
            ("disabledByUser", WebhookHealth::SwitchedOff),
            ("disabledBySystem", WebhookHealth::Dead),
            ("disabledByInactiveIdentity", WebhookHealth::Dead),
        ] {
            let found = compared(&all(&[("/status", status)]), &wanted(&WebhookEvent::CHOSEN));
            assert_eq!(found.health, health, "{status}");
        }
    }

    #[test]
    fn only_subscriptions_of_the_repository_to_the_target_count() {
        let fits = |changes: &[(&str, &str)]| row(1, PUSH, changes).fits(REPOSITORY, TARGET);
        assert!(fits(&[]) && fits(&[("/publisherInputs/repository", &REPOSITORY.to_uppercase())]));
        assert!(fits(&[("/consumerInputs/url", "https://hooks.example:443/in")]));
        for (pointer, value) in [
            ("/publisherInputs/repository", ""),
            ("/publisherInputs/repository", "fde2d21f-13b9-4864-a995-83329045289b"),
            ("/consumerInputs/url", "https://hooks.example/other"),
            ("/consumerId", "jenkins"),
            ("/publisherId", "rm"),
        ] {
            assert!(!fits(&[(pointer, value)]), "{pointer}");
        }
    }

    #[test]
    fn ac_57_the_form_for_a_person_is_the_one_of_basic_authentication() {
        let text = include_str!("../../../tests/fixtures/providers/azure-devops/exchanges/repo-get-200.json");
        let exchange: Value = serde_json::from_str(text).expect("fixture");
        let base = url::Url::parse("https://dev.azure.com/contoso").expect("a URL");
        let row: RepositoryRow =
            serde_json::from_str(&exchange["response"]["body"].to_string()).expect("a row");
        let repository = row.into_repository(&base);
        let (project, _) = repository.web_url.split_once("/_git/").expect("a page");
        let page = format!("{project}/_settings/serviceHooks");
        let setup = setup(&repository, &wanted(&WebhookEvent::CHOSEN));
        let steps = setup.steps.join("\n");
        assert_eq!(setup.scheme, SecretScheme::BasicAuth);
        for part in [
            page.as_str(),
            TARGET,
            "Basic authentication username: gitmoor",
            "Code pushed",
            "Pull request created, Pull request updated, Pull request merge attempted",
        ] {
            assert!(steps.contains(part), "{part} is not in\n{steps}");
        }
    }
}
