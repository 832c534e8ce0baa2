//! Webhooks of a repository.
//!
//! Nothing keeps two of them from having one target. A change replaces the whole webhook, so everything goes along each
//! time. The answers show the secret in clear: it is never read, only that there is one. A webhook that fails is skipped
//! for up to ten hours, never disabled, so there is none to wake.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::endpoint::Place;
use super::listing::MAX_PAGE_SIZE;
use super::wire::{self, page, read};
use crate::domain::credential::Secret;
use crate::domain::repository::Repository;
use crate::domain::webhook::{
    RemoteWebhook, SecretScheme, WantedWebhook, WebhookEvent, WebhookHealth, WebhookSetup,
};
use crate::provider::ProviderError;
use crate::provider::api::{Answer, Api, Call};
use crate::provider::deliveries::same_target;
use crate::provider::error::Restriction;
use crate::provider::fields::Id;

/// What is told of branches and of tags.
const PUSH_EVENT: &str = "repo:refs_changed";
/// What is told of pull requests. Servers before 7.0, which are too old for all of this, lack the second one.
pub(super) const PULL_REQUEST_EVENTS: [&str; 6] =
    ["pr:opened", "pr:from_ref_updated", "pr:modified", "pr:merged", "pr:declined", "pr:deleted"];
/// What people see of a webhook in its list.
const NAME: &str = "Gitmoor";
/// Most pages of webhooks that are read: the administrator may have set small ones.
const MAX_PAGES: usize = 50;
/// Without it a change is taken for one that a page in a browser forged.
const NO_CHECK: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-atlassian-token"), HeaderValue::from_static("no-check"));
/// What the administrator can do about a target that is refused.
const TARGET_RULE: &str = "Have the server's administrator admit the target for webhooks.";

/// The webhooks with the wanted target. Those of the project deliver, too, but are not the repository's to change.
pub(super) async fn list(
    api: &Api,
    repository: &Repository,
    wanted: &WantedWebhook,
) -> Result<Vec<RemoteWebhook>, ProviderError> {
    let place = Place::parse(&repository.full_name)?;
    let (mut found, mut start) = (Vec::new(), 0);
    for _ in 0..MAX_PAGES {
        let call = hooks(api, Method::GET, &place, &[]);
        let page = page::<WebhookRow>(api, call, start, MAX_PAGE_SIZE).await?;
        let fits = |row: &WebhookRow| row.is_own() && same_target(&row.url, &wanted.target_url);
        found.extend(page.rows.into_iter().filter(fits));
        let Some(next) = page.next else {
            // In the order of their making, and each once: pages can overlap.
            found.sort_by_key(|row| row.id);
            found.dedup_by_key(|row| row.id);
            return Ok(found.into_iter().map(|row| row.webhook(wanted)).collect());
        };
        start = next;
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
    let place = Place::parse(&repository.full_name)?;
    let call = hooks(api, Method::POST, &place, &[]).header(NO_CHECK.0, NO_CHECK.1);
    written(api, repository, call.json(&Body::of(wanted, secret))?, wanted).await
}

/// Makes the webhook of that id as it is wanted.
pub(super) async fn update(
    api: &Api,
    repository: &Repository,
    id: &str,
    wanted: &WantedWebhook,
    secret: &Secret,
) -> Result<RemoteWebhook, ProviderError> {
    let place = Place::parse(&repository.full_name)?;
    let call = hooks(api, Method::PUT, &place, &[checked(id)?]).header(NO_CHECK.0, NO_CHECK.1);
    written(api, repository, call.json(&Body::of(wanted, secret))?, wanted).await
}

/// Removes the webhook of that id.
pub(super) async fn delete(api: &Api, repository: &Repository, id: &str) -> Result<(), ProviderError> {
    let place = Place::parse(&repository.full_name)?;
    let call = hooks(api, Method::DELETE, &place, &[checked(id)?]).header(NO_CHECK.0, NO_CHECK.1);
    let answer = call.send().await?;
    if answer.status == StatusCode::NO_CONTENT {
        return Ok(());
    }
    Err(match refused(repository, &answer) {
        Some(error) => error,
        None => match read::<IgnoredAny>(api, answer).await {
            Ok(_) => ProviderError::garbled("it answered the removal of a webhook with something else"),
            Err(error) => error,
        },
    })
}

fn hooks<'a>(api: &'a Api, method: Method, place: &Place, more: &[&str]) -> Call<'a> {
    let segments: Vec<&str> = place.segments().iter().chain(&["webhooks"]).chain(more).copied().collect();
    api.call(method, &segments)
}

/// An id that may become a part of a path.
fn checked(id: &str) -> Result<&str, ProviderError> {
    if Id::is_canonical(id) { Ok(id) } else { Err(ProviderError::NotFound) }
}

/// Sends a change and reads the webhook that its answer shows.
async fn written(
    api: &Api,
    repository: &Repository,
    call: Call<'_>,
    wanted: &WantedWebhook,
) -> Result<RemoteWebhook, ProviderError> {
    let answer = call.send().await?;
    if let Some(error) = refused(repository, &answer) {
        return Err(error);
    }
    read::<WebhookRow>(api, answer).await.map(|(row, _)| row.webhook(wanted))
}

/// What a refusal means here alone; `None` if it is one like any other, or none.
fn refused(repository: &Repository, answer: &Answer) -> Option<ProviderError> {
    match answer.status {
        StatusCode::BAD_REQUEST if wire::complains_of(answer, "url") => {
            Some(ProviderError::WebhookTargetRefused { setting: TARGET_RULE })
        }
        // The words for it are not documented; it is one of three conflicts, and no other fits.
        StatusCode::CONFLICT if repository.archived == Some(true) => {
            Some(ProviderError::Restricted { by: Restriction::RepositoryArchived })
        }
        _ => None,
    }
}

/// The events of the provider that the wanted ones are. One of them stands for branches and tags.
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
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    name: &'static str,
    url: &'a str,
    active: bool,
    events: BTreeSet<&'static str>,
    configuration: Configuration<'a>,
    ssl_verification_required: bool,
}

/// An empty secret would be answered with a server error.
#[derive(Serialize)]
struct Configuration<'a> {
    secret: &'a str,
}

impl<'a> Body<'a> {
    fn of(wanted: &'a WantedWebhook, secret: &'a Secret) -> Self {
        Self {
            name: NAME,
            url: &wanted.target_url,
            active: true,
            events: events(wanted),
            configuration: Configuration { secret: secret.expose() },
            ssl_verification_required: true,
        }
    }
}

/// A webhook as it is shown. The official description leaves the id out, the servers do not.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WebhookRow {
    id: Id,
    url: String,
    active: bool,
    events: BTreeSet<String>,
    configuration: Option<ShownConfiguration>,
    ssl_verification_required: Option<bool>,
    scope_type: Option<String>,
}

/// What is shown of a secret is the secret itself, so nothing is kept but that it is there.
#[derive(Debug, Deserialize)]
struct ShownConfiguration {
    secret: Option<IgnoredAny>,
}

impl WebhookRow {
    /// Whether it is the repository's and not one that it has from its project. Older versions do not say.
    fn is_own(&self) -> bool {
        self.scope_type.as_deref().is_none_or(|scope| scope.eq_ignore_ascii_case("repository"))
    }

    fn webhook(self, wanted: &WantedWebhook) -> RemoteWebhook {
        let secret_set = self.configuration.map(|shown| shown.secret.is_some());
        let mut drift = Vec::new();
        if !self.events.iter().map(String::as_str).eq(events(wanted)) {
            drift.push("events");
        }
        if self.ssl_verification_required == Some(false) {
            drift.push("TLS verification");
        }
        if secret_set == Some(false) {
            drift.push("secret");
        }
        RemoteWebhook {
            id: self.id.0.to_string(),
            health: if self.active { WebhookHealth::Working } else { WebhookHealth::SwitchedOff },
            drift,
            scheme: SecretScheme::HmacSha256,
            secret_set,
        }
    }
}

/// What a person does on the provider's pages.
pub(super) fn setup(repository: &Repository, wanted: &WantedWebhook) -> WebhookSetup {
    let place = if repository.web_url.is_empty() { &repository.full_name } else { &repository.web_url };
    let mut boxes = Vec::new();
    if wanted.events.contains(&WebhookEvent::Push) || wanted.events.contains(&WebhookEvent::Tag) {
        boxes.push("under Repository: Push (it covers tags)");
    }
    if wanted.events.contains(&WebhookEvent::PullRequest) {
        boxes.push(
            "under Pull request: Opened, Source branch updated, Modified, Merged, Declined and Deleted",
        );
    }
    WebhookSetup {
        scheme: SecretScheme::HmacSha256,
        content_type: "application/json",
        steps: vec![
            format!(
                "As an administrator of the repository open {place}, go to Repository settings > Webhooks and choose Create \
                 webhook."
            ),
            format!("Name: {NAME}. URL: {}", wanted.target_url),
            "Secret: enter the secret that comes with these steps. Authentication: leave it as None."
                .to_owned(),
            "Status: keep Active ticked. Leave the verification of the SSL certificate on.".to_owned(),
            format!("Events: tick {}.", boxes.join(", and ")),
            "Choose Create. Bitbucket sends JSON; there is no content type to choose.".to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::provider::api::test_answer;

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../../tests/fixtures/providers/bitbucket-data-center/", $name))
        };
    }

    fn wanted(events: &[WebhookEvent]) -> WantedWebhook {
        WantedWebhook {
            target_url: "http://example.com".to_owned(),
            events: events.iter().copied().collect(),
            server_version: "9.4.1".to_owned(),
        }
    }

    fn shown(edit: impl FnOnce(&mut Value)) -> WebhookRow {
        let mut row: Value = serde_json::from_str(fixture!("go-scm/webhook.json")).expect("fixture");
        edit(&mut row);
        serde_json::from_str(&row.to_string()).expect("a row")
    }

    fn repository(archived: Option<bool>) -> Repository {
        let row = r#"{"id":1,"slug":"my-repo","project":{"key":"PRJ","id":2}}"#;
        let row: super::super::rows::RepositoryRow = serde_json::from_str(row).expect("a row");
        let api = url::Url::parse("https://git.example/rest/api/latest").expect("a URL");
        Repository { archived, ..row.into_repository(&api, crate::domain::repository::Permission::Unknown) }
    }

    #[test]
    fn w07_a_secret_that_is_shown_is_not_kept() {
        for text in
            [fixture!("go-scm/webhooks.json"), fixture!("bitbucket-rest/repository-webhook-page.json")]
        {
            let page: wire::PageRow<WebhookRow> = serde_json::from_str(text).expect("fixture");
            for row in page.values {
                let row = format!("{row:?}");
                assert!(!row.contains("12345") && !row.contains("password"), "{row}");
            }
        }
        let recorded = shown(|_| {}).webhook(&wanted(&WebhookEvent::CHOSEN));
        assert_eq!((recorded.id.as_str(), recorded.secret_set), ("1", Some(true)));
        assert_eq!((recorded.drift.as_slice(), recorded.health), (&["events"][..], WebhookHealth::Working));
    }

    #[test]
    fn ac_59_events_are_compared_as_sets() {
        let with = |name: &str, value: Value| {
            let row = shown(|row| {
                let mut events: Vec<&str> = PULL_REQUEST_EVENTS.into_iter().rev().collect();
                events.push(PUSH_EVENT);
                row["events"] = events.into();
                row["sslVerificationRequired"] = true.into();
                row[name] = value;
            });
            row.webhook(&wanted(&WebhookEvent::CHOSEN))
        };
        assert_eq!(with("scopeType", json!("repository")).drift, [""; 0]);
        assert_eq!(with("sslVerificationRequired", json!(false)).drift, ["TLS verification"]);
        assert_eq!(with("configuration", json!({})).drift, ["secret"]);
        assert_eq!(with("configuration", json!({"createdBy": "x", "secret": null})).secret_set, Some(false));
        assert_eq!(with("configuration", Value::Null).secret_set, None);
        let off = with("active", json!(false));
        assert_eq!((off.health, off.drift.len()), (WebhookHealth::SwitchedOff, 0));
        assert_eq!(events(&wanted(&[WebhookEvent::Tag])), BTreeSet::from([PUSH_EVENT]));
        assert!(shown(|row| row["scopeType"] = json!("REPOSITORY")).is_own());
        assert!(!shown(|row| row["scopeType"] = json!("project")).is_own());
    }

    #[test]
    fn a_refusal_of_the_target_and_of_an_archived_repository_is_told() {
        let answer = |status, context: &str| {
            let body =
                format!(r#"{{"errors":[{{"context":"{context}","message":"No.","exceptionName":null}}]}}"#);
            test_answer(status, &[("content-type", "application/json")], &body)
        };
        let open = repository(Some(false));
        let target = Some(ProviderError::WebhookTargetRefused { setting: TARGET_RULE });
        assert_eq!(refused(&open, &answer(400, "url")), target);
        assert_eq!(refused(&open, &answer(400, "events")), None);
        assert_eq!(refused(&open, &answer(409, "url")), None);
        let archived = Some(ProviderError::Restricted { by: Restriction::RepositoryArchived });
        assert_eq!(refused(&repository(Some(true)), &answer(409, "")), archived);
    }

    #[test]
    fn the_steps_name_target_and_events() {
        let all = setup(&repository(None), &wanted(&WebhookEvent::CHOSEN)).steps.join("\n");
        for word in
            ["/projects/PRJ/repos/my-repo", "http://example.com", "Push", "Source branch updated", "Secret"]
        {
            assert!(all.contains(word), "{word}");
        }
        let pushes = setup(&repository(None), &wanted(&[WebhookEvent::Push])).steps.join("\n");
        assert!(!pushes.contains("Pull request"));
    }
}
