//! Webhooks at GitHub: what sets them apart from those of other providers. What all share is in the provider's suite.

use std::collections::BTreeSet;

use gitmoor::domain::credential::{AuthScheme, CredentialForm, GitLogin, Secret};
use gitmoor::domain::repository::Repository;
use gitmoor::domain::webhook::{RemoteWebhook, WantedWebhook, WebhookEvent};
use gitmoor::provider::github::Github;
use gitmoor::provider::{Lookup, Provider, ProviderError, Restriction};
use serde_json::Value;

use super::{API, Setup, described, known};
use crate::support::forge::{Fault, GithubConfig, Hook, Seen};
use crate::support::openapi::Description;

const TARGET: &str = "https://hooks.example.test/in";
const SECRET: &str = "5ec7e7000000000000000000000000000000000000000000000000000000c0de";

fn wanted(events: &[WebhookEvent]) -> WantedWebhook {
    WantedWebhook {
        target_url: TARGET.to_owned(),
        events: events.iter().copied().collect(),
        server_version: String::new(),
    }
}

impl Setup {
    async fn repository(&self, full_name: &str) -> Repository {
        self.lookup(Lookup::FullName(full_name.to_owned())).await.expect("a repository")
    }

    async fn create(&self, token: &str, of: &Repository) -> Result<RemoteWebhook, ProviderError> {
        let secret = Secret::new(SECRET.to_owned());
        Github.create_webhook(&self.api(token), of, &wanted(&WebhookEvent::CHOSEN), &secret).await
    }

    async fn webhooks(&self, token: &str, of: &Repository) -> Result<Vec<RemoteWebhook>, ProviderError> {
        Github.webhooks(&self.api(token), of, &wanted(&WebhookEvent::CHOSEN)).await
    }
}

fn scopes(missing: &[&str]) -> ProviderError {
    ProviderError::ScopeMissing { scopes: missing.iter().map(|scope| (*scope).to_owned()).collect() }
}

#[tokio::test]
async fn ac_51_a_404_of_all_webhooks_is_a_missing_role_or_a_missing_scope() {
    let setup = Setup::small().await;
    // Pushes there, and administers nothing.
    let pushed = setup.repository("org-002/.github").await;
    assert_eq!(setup.webhooks(known::GOOD, &pushed).await, Err(ProviderError::Forbidden));
    assert_eq!(setup.create(known::GOOD, &pushed).await, Err(ProviderError::Forbidden));
    // Public, and administered by the user; the token may only read webhooks.
    let open = setup.repository("platform/repo-00005").await;
    let hook = setup.create(known::GOOD, &open).await.expect("made");
    assert_eq!(setup.webhooks(known::READ_ONLY, &open).await, Ok(vec![hook.clone()]));
    let writes = ["admin:repo_hook", "public_repo", "repo", "write:repo_hook"];
    assert_eq!(setup.create(known::READ_ONLY, &open).await, Err(scopes(&writes)));
    let api = setup.api(known::READ_ONLY);
    let deleted = Github.delete_webhook(&api, &open, &hook.id).await;
    assert_eq!(deleted, Err(scopes(&["admin:repo_hook", "public_repo", "repo"])));
    // Enough for webhooks of public repositories.
    assert_eq!(setup.webhooks(known::PUBLIC, &open).await, Ok(vec![hook]));
    // A fine-grained token is told the permission.
    let own = setup.repository("acme/website").await;
    let refused = setup.webhooks(known::FINE_METADATA, &own).await;
    assert_eq!(refused, Err(scopes(&["repository_hooks=read"])));
    assert!(setup.create(known::FINE, &own).await.is_ok());
    assert_eq!(setup.webhooks(known::INSTALLATION, &own).await.map(|found| found.len()), Ok(1));
}

#[tokio::test]
async fn an_archived_repository_is_told_as_such() {
    let setup = Setup::of(50).await;
    let archived = setup.repository("org-003/repo-00047").await;
    assert_eq!(archived.archived, Some(true));
    let refused = setup.create(known::GOOD, &archived).await;
    assert_eq!(refused, Err(ProviderError::Restricted { by: Restriction::RepositoryArchived }));
    assert_eq!(setup.webhooks(known::GOOD, &archived).await, Ok(Vec::new()), "it can be looked at");
}

#[tokio::test]
async fn a_twin_is_refused_and_the_first_one_found() {
    let setup = Setup::small().await;
    let of = setup.repository("acme/website").await;
    let made = setup.create(known::GOOD, &of).await.expect("made");
    assert_eq!(setup.create(known::GOOD, &of).await, Err(ProviderError::WebhookExists));
    assert_eq!(setup.webhooks(known::GOOD, &of).await, Ok(vec![made]));
}

#[tokio::test]
async fn one_event_at_its_limit_is_enough_to_be_refused() {
    let setup = Setup::new(GithubConfig { hooks_per_event: 2, ..GithubConfig::default() }).await;
    let of = setup.repository("acme/website").await;
    for number in 0..2 {
        let url = format!("https://stranger.example.test/{number}");
        setup.forge.hooks("github").add(&of.provider_id, Hook::new(&url, &["pull_request"], None));
    }
    assert_eq!(setup.create(known::GOOD, &of).await, Err(ProviderError::WebhookLimitReached));
    let secret = Secret::new(SECRET.to_owned());
    let pushes = wanted(&[WebhookEvent::Push, WebhookEvent::Tag]);
    let made = Github.create_webhook(&setup.api(known::GOOD), &of, &pushes, &secret).await;
    assert_eq!(made.map(|hook| hook.drift), Ok(Vec::new()));
}

/// A webhook that a person made without a word on its form, its secret or its certificates.
#[tokio::test]
async fn what_a_person_left_out_is_named_and_mended() {
    let setup = Setup::small().await;
    let of = setup.repository("acme/website").await;
    let hand_made = Hook {
        content_type: "form".to_owned(),
        verifies_tls: false,
        ..Hook::new(TARGET, &["push", "issues"], None)
    };
    setup.forge.hooks("github").add(&of.provider_id, hand_made);
    let found = setup.webhooks(known::GOOD, &of).await.expect("a listing").remove(0);
    assert_eq!(found.drift, ["events", "content type", "TLS verification", "secret"]);
    assert_eq!(found.secret_set, Some(false));
    let secret = Secret::new(SECRET.to_owned());
    let wanted = wanted(&WebhookEvent::CHOSEN);
    let mended = Github.update_webhook(&setup.api(known::GOOD), &of, &found, &wanted, &secret).await;
    assert_eq!(mended.map(|hook| (hook.drift, hook.secret_set)), Ok((Vec::new(), Some(true))));
    let kept = setup.forge.hooks("github").of(&of.provider_id).remove(0);
    assert_eq!(kept.secret.as_deref(), Some(SECRET));
}

#[tokio::test]
async fn ac_64_the_webhooks_of_a_renamed_repository_are_found_by_its_number() {
    let setup = Setup::small().await;
    let mut of = setup.repository("acme/website").await;
    of.full_name = "acme/old-website".to_owned();
    let made = setup.create(known::GOOD, &of).await.expect("made");
    assert_eq!(setup.webhooks(known::GOOD, &of).await, Ok(vec![made.clone()]));
    let deleted = Github.delete_webhook(&setup.api(known::GOOD), &of, &made.id).await;
    assert_eq!(deleted, Ok(()));
}

#[tokio::test]
async fn h07_a_list_of_webhooks_that_leads_elsewhere_or_nowhere_ends() {
    let setup = Setup::small().await;
    let of = setup.repository("acme/website").await;
    for number in 0..250 {
        let url = format!("https://stranger.example.test/{number}");
        setup.forge.hooks("github").add(&of.provider_id, Hook::new(&url, &["push"], None));
    }
    for fault in [
        Fault::SelfNextLink,
        Fault::CursorCycle,
        Fault::ForeignNextLink("https://elsewhere.test".to_owned()),
        Fault::BadNextPage("abc".to_owned()),
    ] {
        setup.forge.set_fault(fault.clone());
        let found = setup.webhooks(known::GOOD, &of).await;
        assert!(matches!(found, Err(ProviderError::Failed { .. })), "{fault:?}: {found:?}");
        setup.forge.clear_faults();
    }
    assert_eq!(setup.webhooks(known::GOOD, &of).await, Ok(Vec::new()));
}

#[tokio::test]
async fn calls_of_webhooks_are_as_described_and_a_secret_stands_in_the_body_alone() {
    let setup = Setup::small().await;
    let of = setup.repository("acme/website").await;
    setup.forge.forget_requests();
    let made = setup.create(known::GOOD, &of).await.expect("made");
    setup.webhooks(known::GOOD, &of).await.expect("a listing");
    let secret = Secret::new(SECRET.to_owned());
    let api = setup.api(known::GOOD);
    Github.update_webhook(&api, &of, &made, &wanted(&WebhookEvent::CHOSEN), &secret).await.expect("updated");
    Github.delete_webhook(&api, &of, &made.id).await.expect("removed");
    let requests: Vec<Seen> = setup.forge.requests();
    assert_eq!(requests.len(), 4);
    for text in [
        include_str!("../../fixtures/providers/github/openapi/api.github.com.trimmed.json"),
        include_str!("../../fixtures/providers/github/openapi/ghes-3.19.trimmed.json"),
    ] {
        let description = Description::read(text);
        let root: Value = serde_json::from_str(text).expect("a description");
        for seen in &requests {
            assert!(seen.path.starts_with(API) && !seen.target().contains(SECRET));
            assert!(seen.headers.iter().all(|(_, value)| !value.contains(SECRET)));
            let problems = description.problems(seen, &described(&seen.path), &[]);
            assert!(problems.is_empty(), "{problems:#?}");
            let place = match seen.method.as_str() {
                "POST" => "/paths/~1repos~1{owner}~1{repo}~1hooks/post",
                "PATCH" => "/paths/~1repos~1{owner}~1{repo}~1hooks~1{hook_id}/patch",
                _ => continue,
            };
            let schema = &root.pointer(place).expect("the call")["requestBody"]["content"]["application/json"]
                ["schema"];
            let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
            let unknown = |sent: &Value, known: &Value| {
                let sent: BTreeSet<_> = sent.as_object().expect("an object").keys().cloned().collect();
                let known: BTreeSet<_> =
                    known.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
                sent.difference(&known).cloned().collect::<Vec<_>>()
            };
            assert_eq!(unknown(&body, &schema["properties"]), Vec::<String>::new());
            let config = &schema["properties"]["config"];
            let config = match config["$ref"].as_str() {
                Some(reference) => root.pointer(reference.trim_start_matches('#')).expect("a schema"),
                None => config,
            };
            assert_eq!(unknown(&body["config"], &config["properties"]), Vec::<String>::new());
            assert_eq!(seen.header("content-type"), Some("application/json"));
        }
    }
}

#[test]
fn git_signs_in_with_the_name_that_fits_every_token() {
    let form = CredentialForm::PersonalAccessToken { username: Some("ignored".to_owned()) };
    let login = GitLogin { username: "x-access-token".to_owned(), scheme: AuthScheme::Basic };
    assert_eq!(Github.git_login(&form, None), login);
}
