//! Webhooks of a repository.
//!
//! Nothing keeps two of them from having one target, and a change that leaves the secret out keeps the old one. Bitbucket
//! tells whether there is a secret, never which. It has no test call, and disables none.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::endpoint::{full_name, is_uuid};
use super::places::{MAX_PAGE_SIZE, place_of};
use super::refusal::{accepted, refusal, refused_hook};
use super::rows::{self, Envelope, Uuid};
use crate::domain::credential::{CredentialForm, ResourceType, Secret};
use crate::domain::repository::Repository;
use crate::domain::webhook::{
    RemoteWebhook, SecretScheme, WantedWebhook, WebhookEvent, WebhookHealth, WebhookSetup,
};
use crate::provider::ProviderError;
use crate::provider::api::{Answer, Api, Call};
use crate::provider::deliveries::same_target;

/// What is told of branches and of tags.
const PUSH_EVENT: &str = "repo:push";
/// What is told of pull requests.
pub(super) const PULL_REQUEST_EVENTS: [&str; 4] =
    ["pullrequest:created", "pullrequest:updated", "pullrequest:fulfilled", "pullrequest:rejected"];
/// What people see of a webhook in its list.
const DESCRIPTION: &str = "Gitmoor";
/// Most pages of webhooks that are read; a repository has 50 webhooks at most.
const MAX_PAGES: usize = 20;

/// The webhooks with the wanted target.
pub(super) async fn list(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
) -> Result<Vec<RemoteWebhook>, ProviderError> {
    let (mut found, mut places) = (Vec::new(), BTreeSet::new());
    let mut call = hooks(api, Method::GET, repository, &[])?.query("pagelen", MAX_PAGE_SIZE.to_string());
    for _ in 0..MAX_PAGES {
        let page: Envelope<WebhookRow> = rows::page(&accepted(call.send().await?)?)?;
        let next = page.next().map(|link| place_of(api, link)).transpose()?;
        found.extend(page.values.into_iter().filter(|row| same_target(&row.url, &wanted.target_url)));
        match next {
            Some(place) if !places.contains(&place) => {
                call = api.get_place(&place)?;
                places.insert(place);
            }
            Some(_) => {
                return Err(ProviderError::garbled("its paging led back to a page that was read already"));
            }
            None => {
                // In the order of their making, and each once: pages can overlap.
                found.sort_by(|a, b| (&a.created_at, &a.uuid).cmp(&(&b.created_at, &b.uuid)));
                found.dedup_by(|a, b| a.uuid == b.uuid);
                return Ok(found.into_iter().map(|row| row.webhook(wanted)).collect());
            }
        }
    }
    Err(ProviderError::garbled("its listing has more pages than this service follows"))
}

/// Makes the webhook.
pub(super) async fn create(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let call = hooks(api, Method::POST, repository, &[])?.json(&Body::of(wanted, secret))?;
    written(call.send().await?, wanted)
}

/// Makes the webhook of that id as it is wanted.
pub(super) async fn update(
    api: &Api,
    repository: &Repository,
    id: &str,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let call = hooks(api, Method::PUT, repository, &[checked(id)?])?.json(&Body::of(wanted, secret))?;
    written(call.send().await?, wanted)
}

/// Removes the webhook of that id.
pub(super) async fn delete(api: &Api, repository: &Repository, id: &str) -> Result<(), ProviderError> {
    let answer = hooks(api, Method::DELETE, repository, &[checked(id)?])?.send().await?;
    if answer.status == StatusCode::NO_CONTENT { Ok(()) } else { Err(refusal(&answer)) }
}

/// A call of the webhooks of a repository, which is named by its id: its name could be another one's by now. A token of a
/// repository is only sure to see it by its name.
fn hooks<'a>(
    api: &'a Api,
    method: Method,
    repository: &Repository,
    more: &[&str],
) -> Result<Call<'a>, ProviderError> {
    let (workspace, slug) = full_name(&repository.full_name).ok_or(ProviderError::NotFound)?;
    let is_own = matches!(
        api.credential_form(),
        Some(CredentialForm::ResourceToken { resource_type: ResourceType::Repository, .. })
    );
    let name = if is_own { &slug } else { &repository.provider_id };
    if !is_own && !is_uuid(name) {
        return Err(ProviderError::NotFound);
    }
    let segments: Vec<&str> =
        ["repositories", &workspace, name, "hooks"].iter().chain(more).copied().collect();
    Ok(api.call(method, &segments))
}

/// An id that may become a part of a path.
fn checked(id: &str) -> Result<&str, ProviderError> {
    if is_uuid(id) { Ok(id) } else { Err(ProviderError::NotFound) }
}

/// The webhook that the answer to a change shows: 201 for a new one.
fn written(answer: Answer, wanted: &WantedWebhook) -> Result<RemoteWebhook, ProviderError> {
    match answer.status {
        StatusCode::OK | StatusCode::CREATED => answer.json::<WebhookRow>().map(|row| row.webhook(wanted)),
        _ => Err(refused_hook(&answer)),
    }
}

/// The events of the provider that the wanted ones are. One of them stands for branches and tags, and a list that names
/// it twice is refused.
fn events(wanted: &WantedWebhook) -> BTreeSet<&'static str> {
    let mut events = BTreeSet::new();
    for event in &wanted.events {
        match event {
            WebhookEvent::Push | WebhookEvent::Tag => {
                events.insert(PUSH_EVENT);
            }
            WebhookEvent::PullRequest => events.extend(PULL_REQUEST_EVENTS),
            WebhookEvent::Other => {}
        }
    }
    events
}

/// What a webhook is made with, or becomes.
#[derive(Serialize)]
struct Body<'a> {
    description: &'static str,
    url: &'a str,
    active: bool,
    secret: &'a str,
    events: BTreeSet<&'static str>,
    // Not in the official description, and accepted.
    skip_cert_verification: bool,
}

impl<'a> Body<'a> {
    fn of(wanted: &'a WantedWebhook, secret: &'a Secret) -> Self {
        Self {
            description: DESCRIPTION,
            url: &wanted.target_url,
            active: true,
            secret: secret.expose(),
            events: events(wanted),
            skip_cert_verification: false,
        }
    }
}

/// A webhook as it is shown. Older recordings lack `secret_set`.
#[derive(Debug, Deserialize)]
struct WebhookRow {
    uuid: Uuid,
    url: String,
    active: bool,
    events: BTreeSet<String>,
    secret_set: Option<bool>,
    skip_cert_verification: Option<bool>,
    #[serde(default)]
    created_at: String,
}

impl WebhookRow {
    fn webhook(self, wanted: &WantedWebhook) -> RemoteWebhook {
        let mut drift = Vec::new();
        if !self.events.iter().map(String::as_str).eq(events(wanted)) {
            drift.push("events");
        }
        if self.skip_cert_verification == Some(true) {
            drift.push("TLS verification");
        }
        if self.secret_set == Some(false) {
            drift.push("secret");
        }
        RemoteWebhook {
            id: self.uuid.0,
            health: if self.active { WebhookHealth::Working } else { WebhookHealth::SwitchedOff },
            drift,
            scheme: SecretScheme::HmacSha256,
            secret_set: self.secret_set,
        }
    }
}

/// What a person does on the provider's pages.
pub(super) fn setup(repository: &Repository, wanted: &WantedWebhook) -> WebhookSetup {
    let place = if repository.web_url.is_empty() { &repository.full_name } else { &repository.web_url };
    let mut triggers = Vec::new();
    if wanted.events.contains(&WebhookEvent::Push) || wanted.events.contains(&WebhookEvent::Tag) {
        triggers.push("under Repository: Push (it covers tags)");
    }
    if wanted.events.contains(&WebhookEvent::PullRequest) {
        triggers.push("under Pull request: Created, Updated, Merged and Declined");
    }
    WebhookSetup {
        scheme: SecretScheme::HmacSha256,
        content_type: "application/json",
        steps: vec![
            format!(
                "As an administrator of the repository open {place}, go to Repository settings > Webhooks and choose Add \
                 webhook."
            ),
            format!("Title: {DESCRIPTION}. URL: {}", wanted.target_url),
            "Secret: enter the secret that comes with these steps; do not generate another one.".to_owned(),
            "Status: keep Active ticked. SSL / TLS: leave Skip certificate verification unticked.".to_owned(),
            format!("Triggers: Choose from a full list of triggers, and tick {}.", triggers.join(", and ")),
            "Save. Bitbucket sends JSON; there is no content type to choose.".to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../../tests/fixtures/providers/bitbucket-cloud/", $name))
        };
    }

    fn wanted(events: &[WebhookEvent]) -> WantedWebhook {
        WantedWebhook {
            target_url: "http://example.com/webhook".to_owned(),
            events: events.iter().copied().collect(),
            server_version: String::new(),
        }
    }

    fn drift(edit: impl FnOnce(&mut Value)) -> RemoteWebhook {
        let mut row: Value = serde_json::from_str(fixture!("go-scm/hook.json")).expect("fixture");
        edit(&mut row);
        let row: WebhookRow = serde_json::from_str(&row.to_string()).expect("a row");
        row.webhook(&wanted(&WebhookEvent::CHOSEN))
    }

    #[test]
    fn branches_and_tags_are_one_event() {
        let names =
            |wanted_events: &[WebhookEvent]| events(&wanted(wanted_events)).into_iter().collect::<Vec<_>>();
        use WebhookEvent::{PullRequest, Push, Tag};
        assert_eq!(names(&[Push]), ["repo:push"]);
        assert_eq!(names(&[Push, Tag]), ["repo:push"]);
        assert_eq!(names(&[Tag, PullRequest]).len(), 5);
        assert_eq!(names(&[PullRequest]).len(), 4);
    }

    #[test]
    fn ac_59_events_are_compared_as_sets() {
        let recorded = drift(|_| {});
        assert_eq!((recorded.drift.as_slice(), recorded.health), (&["events"][..], WebhookHealth::Working));
        assert_eq!(recorded.id, "{d53603cc-3f67-45ea-b310-aaa5ef6ec061}");
        assert_eq!(recorded.secret_set, None);
        let all = |row: &mut Value| {
            let mut events: Vec<&str> = PULL_REQUEST_EVENTS.into_iter().rev().collect();
            events.push(PUSH_EVENT);
            row["events"] = events.into();
            row["secret_set"] = true.into();
        };
        assert_eq!(drift(all).drift, [""; 0]);
        let with = |name: &str, value: Value| {
            drift(|row| {
                all(row);
                row[name] = value;
            })
        };
        assert_eq!(with("skip_cert_verification", true.into()).drift, ["TLS verification"]);
        assert_eq!(with("secret_set", false.into()).drift, ["secret"]);
        let off = with("active", false.into());
        assert_eq!((off.health, off.drift.len()), (WebhookHealth::SwitchedOff, 0));
    }

    #[test]
    fn the_steps_name_target_and_triggers() {
        let repository = |web_url: &str| {
            let row = r#"{"uuid":"{bc771cbf-829e-4c4b-b71f-a0eb3ac2b860}","full_name":"acme/website"}"#;
            let row: rows::RepositoryRow = serde_json::from_str(row).expect("a row");
            let api = url::Url::parse("https://api.bitbucket.org/2.0").expect("a URL");
            let found = row.into_repository(&api, crate::domain::repository::Permission::Unknown);
            Repository { web_url: web_url.to_owned(), ..found }
        };
        let all = setup(&repository("https://bitbucket.org/acme/website"), &wanted(&WebhookEvent::CHOSEN));
        let text = all.steps.join("\n");
        for word in
            ["https://bitbucket.org/acme/website", "http://example.com/webhook", "Push", "Merged", "Secret"]
        {
            assert!(text.contains(word), "{word}");
        }
        let pushes = setup(&repository(""), &wanted(&[WebhookEvent::Push])).steps.join("\n");
        assert!(pushes.contains("acme/website") && !pushes.contains("Pull request"));
    }
}
