//! What is Azure DevOps' own about webhooks: one subscription for each event, and a password instead of a signature.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gitmoor::domain::credential::{AuthScheme, Secret};
use gitmoor::domain::delivery::DeliveryHeaders;
use gitmoor::domain::repository::Repository;
use gitmoor::domain::webhook::{RemoteWebhook, SecretScheme, WantedWebhook, WebhookEvent, WebhookHealth};
use gitmoor::provider::api::Api;
use gitmoor::provider::azure_devops::AzureDevOps;
use gitmoor::provider::{Lookup, Provider, ProviderError};
use gitmoor::seal::proves;
use serde_json::Value;

use super::{Bench, pat, tokens};
use crate::support::forge::{AzureConfig, Fault, Hook, HookState};

const TARGET: &str = "https://hooks.example.test/in";
const SECRET: &str = "5ec7e7000000000000000000000000000000000000000000000000000000c0de";
const OTHER_SECRET: &str = "5ec7e70111111111111111111111111111111111111111111111111111111ace";
/// In a project whose subscriptions the good token's user may edit.
const REPOSITORY: &str = "Fabrikam Fiber/Fabrikam Fiber";

fn wanted() -> WantedWebhook {
    WantedWebhook {
        target_url: TARGET.to_owned(),
        events: BTreeSet::from(WebhookEvent::CHOSEN),
        server_version: String::new(),
    }
}

async fn repository(api: &Api, full_name: &str) -> Repository {
    AzureDevOps.lookup(api, &Lookup::FullName(full_name.to_owned())).await.expect("a repository")
}

async fn create(api: &Api, repository: &Repository) -> Result<RemoteWebhook, ProviderError> {
    AzureDevOps.create_webhook(api, repository, &wanted(), &Secret::new(SECRET.to_owned())).await
}

async fn update(api: &Api, repository: &Repository, hook: &RemoteWebhook, secret: &str) -> RemoteWebhook {
    let secret = Secret::new(secret.to_owned());
    AzureDevOps.update_webhook(api, repository, hook, &wanted(), &secret).await.expect("updated")
}

async fn list(api: &Api, repository: &Repository) -> Result<Vec<RemoteWebhook>, ProviderError> {
    AzureDevOps.webhooks(api, repository, &wanted()).await
}

async fn only(api: &Api, repository: &Repository) -> RemoteWebhook {
    let mut found = list(api, repository).await.expect("a list");
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn kept(bench: &Bench) -> Vec<Hook> {
    bench.forge.hooks("azure-devops").all().into_iter().map(|(_, hook)| hook).collect()
}

/// The calls that nothing else makes, for the check against the description.
pub(super) async fn call_everything(api: &Api, repository: &Repository) {
    list(api, repository).await.expect("a list");
    let made = create(api, repository).await.expect("made");
    update(api, repository, &made, OTHER_SECRET).await;
    AzureDevOps.delete_webhook(api, repository, &made.id).await.expect("removed");
}

#[tokio::test]
async fn one_webhook_is_one_subscription_for_each_event() {
    let bench = Bench::small().await;
    for api in [bench.services(tokens::GOOD), bench.server(tokens::GOOD)] {
        let repository = repository(&api, REPOSITORY).await;
        bench.forge.forget_requests();
        let made = create(&api, &repository).await.expect("made");
        assert_eq!((made.scheme, made.secret_set), (SecretScheme::BasicAuth, Some(true)));
        let events: BTreeSet<String> = kept(&bench).into_iter().flat_map(|hook| hook.events).collect();
        let all =
            ["git.pullrequest.created", "git.pullrequest.merged", "git.pullrequest.updated", "git.push"];
        assert_eq!(events, all.map(str::to_owned).into());
        for seen in bench.forge.requests().iter().filter(|seen| seen.method == "POST") {
            let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
            assert_eq!(body["resourceVersion"], "1.0", "without it the newest one would come");
            let inputs =
                ["publisherInputs", "consumerInputs"].map(|name| body[name].as_object().expect("inputs"));
            assert!(inputs.into_iter().flat_map(|inputs| inputs.values()).all(Value::is_string), "{body}");
            // The secret is the one input that nobody is shown again.
            let shown = body.to_string().replacen(&format!("\"basicAuthPassword\":\"{SECRET}\""), "", 1);
            assert!(!shown.contains(SECRET));
        }
        AzureDevOps.delete_webhook(&api, &repository, &made.id).await.expect("removed");
        assert_eq!(list(&api, &repository).await, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn a_delivery_presents_the_password_of_the_subscription() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let repository = repository(&api, REPOSITORY).await;
    let made = create(&api, &repository).await.expect("made");
    for hook in kept(&bench) {
        let pair = format!("{}:{}", hook.more["with:basicAuthUsername"], hook.secret.expect("a password"));
        let value = format!("Basic {}", STANDARD.encode(pair));
        let headers = DeliveryHeaders::new([("Authorization".to_owned(), value)]);
        let proof = AzureDevOps.proof(made.scheme, &headers, b"{}").expect("a proof");
        assert!(proves(&proof.presented, &Secret::new(SECRET.to_owned()), b"{}"));
        assert!(!proves(&proof.presented, &Secret::new(OTHER_SECRET.to_owned()), b"{}"));
    }
}

#[tokio::test]
async fn half_a_creation_is_completed_and_nothing_is_made_twice() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let repository = repository(&api, REPOSITORY).await;
    for made_before in 0..4 {
        let fault = Fault::CloseBeforeHead;
        bench.forge.fault_after("POST /azure/contoso/_apis/hooks/subscriptions?", made_before, fault, 1);
        let lost = create(&api, &repository).await.expect_err("lost");
        assert!(lost.leaves_open(), "{lost:?}");
        bench.forge.clear_faults();
        let found = only(&api, &repository).await;
        assert_eq!(found.id.split(',').count(), made_before + 1);
        let repaired = update(&api, &repository, &found, SECRET).await;
        assert!(repaired.drift.is_empty() && repaired.id.split(',').count() == 4, "{repaired:?}");
        assert_eq!(kept(&bench).len(), 4);
        AzureDevOps.delete_webhook(&api, &repository, &repaired.id).await.expect("removed");
        assert_eq!(kept(&bench), []);
    }
}

#[tokio::test]
async fn what_there_is_twice_or_for_another_event_is_removed() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let repository = repository(&api, REPOSITORY).await;
    let made = create(&api, &repository).await.expect("made");
    let hooks = bench.forge.hooks("azure-devops");
    let twin = kept(&bench).remove(0);
    hooks.add(&repository.provider_id, twin.clone());
    let comments = ["git.pullrequest.commented".to_owned()].into();
    hooks.add(&repository.provider_id, Hook { events: comments, ..twin });
    let found = only(&api, &repository).await;
    assert_eq!(found.drift, ["events"]);
    assert_eq!(update(&api, &repository, &found, SECRET).await, made);
    assert_eq!(kept(&bench).len(), 4);
}

#[tokio::test]
async fn a_replaced_subscription_gets_its_password_anew_and_keeps_its_headers() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let repository = repository(&api, REPOSITORY).await;
    let made = create(&api, &repository).await.expect("made");
    bench.forge.hooks("azure-devops").edit_all(&repository.provider_id, |hook| {
        hook.verifies_tls = false;
        hook.more.insert("with:httpHeaders".to_owned(), "X-Gateway: 7".to_owned());
        hook.more.insert("with:resourceDetailsToSend".to_owned(), "minimal".to_owned());
        hook.more.insert("of:branch".to_owned(), "main".to_owned());
    });
    let found = only(&api, &repository).await;
    assert_eq!(found.drift, ["filter", "payload", "TLS verification"]);
    assert_eq!(update(&api, &repository, &found, OTHER_SECRET).await, made);
    for hook in kept(&bench) {
        // Not the mask that an answer shows in its place.
        assert_eq!(hook.secret.as_deref(), Some(OTHER_SECRET));
        assert_eq!(hook.more["with:httpHeaders"], "X-Gateway: 7");
        assert!(hook.verifies_tls && hook.more["of:branch"].is_empty());
    }
}

#[tokio::test]
async fn ac_59_what_the_system_disabled_is_made_anew() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let repository = repository(&api, REPOSITORY).await;
    let made = create(&api, &repository).await.expect("made");
    let dead = kept(&bench).remove(1).id;
    bench
        .forge
        .hooks("azure-devops")
        .edit(&repository.provider_id, &dead, |hook| hook.state = HookState::Dead);
    let found = only(&api, &repository).await;
    assert_eq!((found.health, &found.id), (WebhookHealth::Dead, &made.id));
    // A call that replaces it would leave it disabled: it goes, and another one comes.
    let updated = update(&api, &repository, &found, SECRET).await;
    assert_eq!((updated.health, updated.drift.len()), (WebhookHealth::Working, 0));
    assert!(updated.id != made.id && !updated.id.contains(&dead), "{updated:?}");
    assert_eq!(only(&api, &repository).await, updated);
    assert!(kept(&bench).iter().all(|hook| hook.state == HookState::Working));
    // On probation it is still tried.
    bench
        .forge
        .hooks("azure-devops")
        .edit_all(&repository.provider_id, |hook| hook.state = HookState::Suspended);
    assert_eq!(only(&api, &repository).await.health, WebhookHealth::Working);
}

#[tokio::test]
async fn a_password_goes_to_https_targets_alone() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let repository = repository(&api, REPOSITORY).await;
    bench.forge.forget_requests();
    let plain = WantedWebhook { target_url: "http://hooks.example.test/in".to_owned(), ..wanted() };
    let secret = Secret::new(SECRET.to_owned());
    match AzureDevOps.create_webhook(&api, &repository, &plain, &secret).await {
        Err(ProviderError::WebhookTargetRefused { setting }) => {
            assert!(setting.contains("https"), "{setting}")
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.forge.requests().is_empty(), "nothing was sent");
    let setup = AzureDevOps.webhook_setup(&repository, &plain);
    assert!(setup.steps[0].contains("https"), "{:?}", setup.steps);
}

#[tokio::test]
async fn who_may_not_see_subscriptions_is_not_told_that_there_are_none() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let repository = repository(&api, REPOSITORY).await;
    let made = create(&api, &repository).await.expect("made");
    bench.forge.edit_azure_token(tokens::GOOD, |token| token.sees_hooks = false);
    assert_eq!(list(&api, &repository).await, Err(ProviderError::Forbidden));
    assert_eq!(create(&api, &repository).await, Err(ProviderError::Forbidden));
    let gone = AzureDevOps.delete_webhook(&api, &repository, &made.id).await;
    assert_eq!(gone, Err(ProviderError::NotFound));
    assert_eq!(kept(&bench).len(), 4);
}

#[tokio::test]
async fn a_missing_right_a_missing_scope_and_a_dead_token_are_told_apart() {
    let bench = Bench::start(AzureConfig { public: true, ..AzureConfig::default() }).await;
    let good = bench.services(tokens::GOOD);
    let repository = repository(&good, REPOSITORY).await;
    let made = create(&good, &repository).await.expect("made");
    let scope = ProviderError::ScopeMissing { scopes: vec!["vso.code".to_owned()] };
    for (token, refused) in [(tokens::SECOND, ProviderError::Forbidden), (tokens::NO_CODE, scope)] {
        let api = bench.services(token);
        assert_eq!(create(&api, &repository).await, Err(refused.clone()), "{token}");
        let gone = AzureDevOps.delete_webhook(&api, &repository, &made.id).await;
        assert_eq!(gone, Err(refused), "{token}");
    }
    // An organization with public projects answers a dead token as a stranger.
    let api = bench.services(tokens::REVOKED);
    for refused in [
        create(&api, &repository).await.err(),
        list(&api, &repository).await.err(),
        AzureDevOps.delete_webhook(&api, &repository, &made.id).await.err(),
    ] {
        assert!(matches!(refused, Some(ProviderError::CredentialRejected { .. })), "{refused:?}");
    }
    assert_eq!(kept(&bench).len(), 4);
}

#[tokio::test]
async fn the_webhook_of_a_disabled_repository_can_be_seen_and_removed() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let normal = repository(&api, REPOSITORY).await;
    let made = create(&api, &normal).await.expect("made");
    // As a list shows it; every other call says that there is none.
    let disabled = Repository { disabled: true, ..normal.clone() };
    let place = format!("/azure/contoso/_apis/git/repositories/{}", normal.provider_id);
    let body = r#"{"message":"TF401019: does not exist","typeKey":"GitRepositoryNotFoundException"}"#;
    let missing =
        || bench.forge.respond_once("GET", &place, 404, &[("content-type", "application/json")], body);
    assert_eq!(only(&api, &disabled).await, made);
    missing();
    assert_eq!(create(&api, &disabled).await, Err(ProviderError::Forbidden));
    AzureDevOps.delete_webhook(&api, &disabled, &made.id).await.expect("removed");
    missing();
    assert_eq!(list(&api, &disabled).await, Ok(Vec::new()));
    bench.forge.assert_no_leftovers();
}

#[test]
fn git_signs_in_with_any_user_name() {
    let login = AzureDevOps.git_login(&pat(tokens::GOOD).form, None);
    assert!(!login.username.is_empty());
    assert_eq!(login.scheme, AuthScheme::Basic);
}
