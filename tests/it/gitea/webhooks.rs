//! Webhooks at Gitea and Forgejo: what sets them apart from those of other providers. What all share is in the
//! provider's suite.

use std::collections::BTreeSet;

use gitmoor::domain::credential::{Account, AuthScheme, CredentialForm, Secret};
use gitmoor::domain::repository::Repository;
use gitmoor::domain::webhook::{RemoteWebhook, WantedWebhook, WebhookEvent, WebhookHealth};
use gitmoor::provider::gitea::Gitea;
use gitmoor::provider::{Lookup, Provider, ProviderError, Restriction};
use serde_json::Value;

use super::{small, started, tokens};
use crate::support::drive::Drive;
use crate::support::forge::{Fault, GiteaConfig, Hook, HookState};
use crate::support::openapi::Description;

const TARGET: &str = "https://hooks.example.test/in";
const SECRET: &str = "5ec7e7000000000000000000000000000000000000000000000000000000c0de";

fn wanted() -> WantedWebhook {
    WantedWebhook {
        target_url: TARGET.to_owned(),
        events: WebhookEvent::CHOSEN.into(),
        server_version: String::new(),
    }
}

impl Drive {
    async fn repository(&self, full_name: &str) -> Repository {
        self.lookup(Lookup::FullName(full_name.to_owned())).await.expect("a repository")
    }

    async fn create(&self, token: &str, of: &Repository) -> Result<RemoteWebhook, ProviderError> {
        let secret = Secret::new(SECRET.to_owned());
        self.driver.create_webhook(&self.api(token), of, &wanted(), &secret).await
    }

    async fn webhooks(&self, token: &str, of: &Repository) -> Result<Vec<RemoteWebhook>, ProviderError> {
        self.driver.webhooks(&self.api(token), of, &wanted()).await
    }

    async fn update(&self, of: &Repository, hook: &RemoteWebhook) -> Result<RemoteWebhook, ProviderError> {
        let secret = Secret::new(SECRET.to_owned());
        self.driver.update_webhook(&self.api(tokens::GOOD), of, hook, &wanted(), &secret).await
    }
}

#[tokio::test]
async fn ac_51_a_missing_scope_a_missing_role_and_a_switch_are_told_apart() {
    let drive = small().await;
    let of = drive.repository("acme/website").await;
    let scopes = vec!["write:repository".to_owned()];
    let refused = drive.create(tokens::READ_ONLY, &of).await;
    assert_eq!(refused, Err(ProviderError::ScopeMissing { scopes }));
    assert_eq!(drive.webhooks(tokens::READ_ONLY, &of).await, Ok(Vec::new()), "it may look");
    let pulled = drive.repository("inner/repo-00005").await;
    assert_eq!(drive.create(tokens::GOOD, &pulled).await, Err(ProviderError::Forbidden));
    assert_eq!(drive.webhooks(tokens::GOOD, &pulled).await, Err(ProviderError::Forbidden));
    let disabled = started(GiteaConfig { webhooks_disabled: true, ..GiteaConfig::default() }).await;
    let of = disabled.repository("acme/website").await;
    let restricted = ProviderError::Restricted { by: Restriction::WebhooksDisabled };
    assert_eq!(disabled.create(tokens::GOOD, &of).await, Err(restricted.clone()));
    assert_eq!(disabled.webhooks(tokens::GOOD, &of).await, Err(restricted));
}

#[tokio::test]
async fn pages_are_counted_whatever_their_size_and_whoever_strips_the_totals() {
    for strips_totals in [false, true] {
        for max_response_items in [7, 50] {
            let config = GiteaConfig { strips_totals, max_response_items, ..GiteaConfig::default() };
            let drive = started(config).await;
            let of = drive.repository("acme/website").await;
            assert_eq!(drive.webhooks(tokens::GOOD, &of).await, Ok(Vec::new()));
            for number in 0..2 * max_response_items {
                let url = format!("https://stranger.example.test/{number}");
                drive.forge.hooks("gitea").add(&of.provider_id, Hook::new(&url, &["push"], None));
            }
            let made = drive.create(tokens::GOOD, &of).await.expect("made");
            assert_eq!(drive.webhooks(tokens::GOOD, &of).await, Ok(vec![made]));
        }
    }
}

#[tokio::test]
async fn ac_61_pages_of_webhooks_that_never_end_are_given_up() {
    let config = GiteaConfig { strips_totals: true, ..GiteaConfig::default() };
    let drive = started(config).await;
    let of = drive.repository("acme/website").await;
    drive.create(tokens::GOOD, &of).await.expect("made");
    drive.forge.set_fault(Fault::SamePageForever);
    let found = drive.webhooks(tokens::GOOD, &of).await;
    assert!(matches!(found, Err(ProviderError::Failed { .. })), "{found:?}");
}

/// An update empties what it leaves out, and what a person had sent along for a proxy is not ours to drop.
#[tokio::test]
async fn ac_59_a_repair_keeps_the_header_that_somebody_added() {
    let drive = small().await;
    let of = drive.repository("acme/website").await;
    let made = drive.create(tokens::GOOD, &of).await.expect("made");
    let hooks = drive.forge.hooks("gitea");
    let header = "Bearer of-the-proxy-before-the-target";
    hooks.edit(&of.provider_id, &made.id, |hook| {
        hook.more.insert("authorization_header".to_owned(), header.to_owned());
        hook.more.insert("branch_filter".to_owned(), "main".to_owned());
        hook.state = HookState::SwitchedOff;
    });
    let found = drive.webhooks(tokens::GOOD, &of).await.expect("a listing").remove(0);
    assert_eq!((found.health, found.drift.as_slice()), (WebhookHealth::SwitchedOff, &["branch filter"][..]));
    assert!(!format!("{found:?}").contains(header));
    assert_eq!(drive.update(&of, &found).await, Ok(made.clone()));
    let kept = hooks.find(&of.provider_id, &made.id).expect("kept");
    assert_eq!(kept.more["authorization_header"], header);
    assert_eq!((kept.more["branch_filter"].as_str(), kept.secret.as_deref()), ("*", Some(SECRET)));
    // Nothing is sent in its place where there is none.
    hooks.edit(&of.provider_id, &made.id, |hook| {
        hook.more.insert("authorization_header".to_owned(), String::new());
    });
    assert_eq!(drive.update(&of, &made).await, Ok(made));
}

#[tokio::test]
async fn a_webhook_for_a_chat_is_somebody_elses() {
    let drive = small().await;
    let of = drive.repository("acme/website").await;
    let mut chat = Hook::new(TARGET, &["push"], None);
    chat.more.insert("type".to_owned(), "slack".to_owned());
    drive.forge.hooks("gitea").add(&of.provider_id, chat);
    assert_eq!(drive.webhooks(tokens::GOOD, &of).await, Ok(Vec::new()));
}

#[tokio::test]
async fn an_event_that_was_dropped_without_a_word_is_a_drift() {
    let drive = small().await;
    let of = drive.repository("acme/website").await;
    drive.forge.hooks("gitea").add(&of.provider_id, Hook::new(TARGET, &[], Some(SECRET)));
    let found = drive.webhooks(tokens::GOOD, &of).await.expect("a listing").remove(0);
    assert_eq!(found.drift, ["events"]);
    assert_eq!(drive.update(&of, &found).await.map(|hook| hook.drift), Ok(Vec::new()));
}

#[tokio::test]
async fn a_former_name_makes_no_webhook() {
    let drive = small().await;
    let mut of = drive.repository("acme/website").await;
    of.full_name = "acme/old-website".to_owned();
    let refused = drive.create(tokens::GOOD, &of).await.expect_err("refused");
    assert!(matches!(refused, ProviderError::Failed { .. }), "{refused:?}");
    assert_eq!(drive.forge.hooks("gitea").all(), Vec::new());
}

#[tokio::test]
async fn an_archived_repository_takes_webhooks() {
    let drive = started(GiteaConfig { repositories: 50, ..GiteaConfig::default() }).await;
    let of = drive.repository("org-003/repo-00047").await;
    assert_eq!(of.archived, Some(true));
    assert!(drive.create(tokens::GOOD, &of).await.is_ok());
    // Where a version does not, it has a status of its own for it.
    let json = [("content-type", "application/json;charset=utf-8")];
    drive.forge.respond_once("POST", "/gitea", 423, &json, "{\"message\":\"repo is archived\"}");
    let refused = drive.create(tokens::GOOD, &of).await;
    assert_eq!(refused, Err(ProviderError::Restricted { by: Restriction::RepositoryArchived }));
}

#[tokio::test]
async fn forgejo_keeps_webhooks_alike() {
    let drive = started(GiteaConfig::forgejo()).await;
    let of = drive.repository("acme/website").await;
    let made = drive.create(tokens::GOOD, &of).await.expect("made");
    assert_eq!((made.drift.as_slice(), made.health), (&[][..], WebhookHealth::Working));
    drive.forge.hooks("gitea").edit(&of.provider_id, &made.id, |hook| {
        hook.more.insert("type".to_owned(), "forgejo".to_owned());
    });
    assert_eq!(drive.webhooks(tokens::GOOD, &of).await, Ok(vec![made]));
}

#[tokio::test]
async fn calls_of_webhooks_are_as_described_and_a_secret_stands_in_the_body_alone() {
    let drive = small().await;
    let of = drive.repository("acme/website").await;
    drive.forge.forget_requests();
    let made = drive.create(tokens::GOOD, &of).await.expect("made");
    drive.webhooks(tokens::GOOD, &of).await.expect("a listing");
    drive.update(&of, &made).await.expect("updated");
    drive.driver.delete_webhook(&drive.api(tokens::GOOD), &of, &made.id).await.expect("removed");
    let requests = drive.forge.requests();
    assert_eq!(requests.len(), 5, "the update looks at what is there first");
    for text in [
        include_str!("../../fixtures/providers/gitea/openapi/gitea-1.27.0.trimmed.json"),
        include_str!("../../fixtures/providers/gitea/openapi/gitea-1.22.6.trimmed.json"),
        include_str!("../../fixtures/providers/gitea/openapi/forgejo-11.0.3.trimmed.json"),
    ] {
        let description = Description::read(text);
        let root: Value = serde_json::from_str(text).expect("a description");
        for seen in &requests {
            assert!(!seen.target().contains(SECRET));
            assert!(seen.headers.iter().all(|(_, value)| !value.contains(SECRET)));
            let path = seen.path.strip_prefix("/gitea").expect("below the root");
            let problems = description.problems(seen, path, &[]);
            assert!(problems.is_empty(), "{problems:#?}");
            let option = match seen.method.as_str() {
                "POST" => "CreateHookOption",
                "PATCH" => "EditHookOption",
                _ => continue,
            };
            let known = root["definitions"][option]["properties"].as_object().expect("members");
            let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
            let sent: BTreeSet<&String> = body.as_object().expect("an object").keys().collect();
            let unknown: Vec<_> = sent.into_iter().filter(|name| !known.contains_key(*name)).collect();
            assert!(unknown.is_empty(), "{option}: {unknown:?}");
        }
    }
}

#[test]
fn git_signs_in_by_the_login_as_far_as_it_is_known() {
    let form = |username: Option<&str>| CredentialForm::PersonalAccessToken {
        username: username.map(str::to_owned),
    };
    let account = Account { login: "casey".to_owned(), ..Account::default() };
    let name = |form, account: Option<&Account>| {
        let login = Gitea.git_login(&form, account);
        assert_eq!(login.scheme, AuthScheme::Basic);
        login.username
    };
    assert_eq!(name(form(None), Some(&account)), "casey");
    assert_eq!(name(form(Some("robin")), Some(&account)), "robin");
    assert_eq!(name(form(None), None), "oauth2");
    assert_eq!(name(form(None), Some(&Account::default())), "oauth2");
}
