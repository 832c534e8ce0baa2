//! What is GitLab's own about webhooks: two kinds of secret, hooks that sleep, and what its versions leave out.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gitmoor::domain::credential::{AuthScheme, CredentialForm, ResourceType, Secret};
use gitmoor::domain::delivery::DeliveryHeaders;
use gitmoor::domain::repository::Repository;
use gitmoor::domain::webhook::{RemoteWebhook, SecretScheme, WantedWebhook, WebhookEvent, WebhookHealth};
use gitmoor::provider::{Lookup, ProviderError};
use gitmoor::seal::proves;
use ring::hmac;
use serde_json::Value;

use super::{Setup, tokens};
use crate::support::forge::{GitlabConfig, Hook, HookState};

const TARGET: &str = "https://hooks.example.test/in";
const SECRET: &str = "5ec7e7000000000000000000000000000000000000000000000000000000c0de";
const OTHER_SECRET: &str = "5ec7e70111111111111111111111111111111111111111111111111111111ace";

fn wanted(version: &str) -> WantedWebhook {
    WantedWebhook {
        target_url: TARGET.to_owned(),
        events: BTreeSet::from(WebhookEvent::CHOSEN),
        server_version: version.to_owned(),
    }
}

fn at_version(version: &str) -> GitlabConfig {
    GitlabConfig { version: version.to_owned(), ..GitlabConfig::default() }
}

async fn website(setup: &Setup) -> Repository {
    setup.lookup(Lookup::FullName("acme/website".to_owned())).await.expect("a project")
}

async fn created(setup: &Setup, wanted: &WantedWebhook) -> RemoteWebhook {
    let (api, project) = (setup.api(tokens::GOOD), website(setup).await);
    setup.forge.forget_requests();
    let secret = Secret::new(SECRET.to_owned());
    setup.driver().create_webhook(&api, &project, wanted, &secret).await.expect("made")
}

/// The one webhook that the forge keeps.
fn kept(setup: &Setup) -> Hook {
    let mut all = setup.forge.hooks("gitlab").all();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).1
}

fn methods(setup: &Setup) -> Vec<String> {
    setup.forge.requests().into_iter().map(|seen| seen.method).collect()
}

/// The calls that nothing else makes, for the check against the description.
pub(super) async fn call_everything(setup: &Setup) {
    let (api, project, wanted) = (setup.api(tokens::GOOD), website(setup).await, wanted("19.0.0"));
    let (driver, secret) = (setup.driver(), Secret::new(SECRET.to_owned()));
    let made = driver.create_webhook(&api, &project, &wanted, &secret).await.expect("made");
    driver.webhooks(&api, &project, &wanted).await.expect("a list");
    driver.update_webhook(&api, &project, &made, &wanted, &secret).await.expect("updated");
    driver.wake_webhook(&api, &project, &made.id).await.expect("woken");
    driver.delete_webhook(&api, &project, &made.id).await.expect("removed");
}

#[tokio::test]
async fn from_19_0_on_a_webhook_signs_under_the_bytes_of_its_secret() {
    let setup = Setup::new(at_version("19.0.1-ee")).await;
    let made = created(&setup, &wanted("19.0.1-ee")).await;
    assert_eq!((made.scheme, made.secret_set), (SecretScheme::SigningToken, Some(true)));
    assert_eq!(methods(&setup), ["POST"]);
    // What the server signs with is what a delivery is checked with.
    let token = kept(&setup).secret.expect("a secret");
    let key = STANDARD.decode(token.strip_prefix("whsec_").expect("a signing token")).expect("base64");
    assert_eq!(key.len(), 32);
    let body = br#"{"object_kind":"push"}"#;
    let text = [&b"msg_1.1614265330."[..], body].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &text);
    let headers = DeliveryHeaders::new([
        ("webhook-id".to_owned(), "msg_1".to_owned()),
        ("webhook-timestamp".to_owned(), "1614265330".to_owned()),
        ("webhook-signature".to_owned(), format!("v1,{}", STANDARD.encode(tag))),
    ]);
    let proof = setup.driver().proof(made.scheme, &headers, body).expect("a proof");
    assert!(proves(&proof.presented, &Secret::new(SECRET.to_owned()), body));
    assert!(!proves(&proof.presented, &Secret::new(OTHER_SECRET.to_owned()), body));
}

#[tokio::test]
async fn a_server_that_ignores_signing_tokens_gets_the_old_one_by_a_second_call() {
    let setup = Setup::new(GitlabConfig { signing_tokens: false, ..at_version("19.0.1-ee") }).await;
    let made = created(&setup, &wanted("19.0.1-ee")).await;
    assert_eq!((made.scheme, made.secret_set), (SecretScheme::Token, Some(true)));
    assert_eq!(methods(&setup), ["POST", "PUT"]);
    assert_eq!(kept(&setup).secret.as_deref(), Some(SECRET));
    assert!(made.drift.is_empty());
}

#[tokio::test]
async fn a_half_made_webhook_without_a_secret_is_shown_as_such_and_repaired() {
    let setup = Setup::new(GitlabConfig { signing_tokens: false, ..at_version("19.0.1-ee") }).await;
    let (api, project, wanted) = (setup.api(tokens::GOOD), website(&setup).await, wanted("19.0.1-ee"));
    setup.forge.respond_once("PUT", "/", 502, &[], "");
    let secret = Secret::new(SECRET.to_owned());
    let lost = setup.driver().create_webhook(&api, &project, &wanted, &secret).await.expect_err("lost");
    assert!(lost.leaves_open(), "{lost:?}");
    let found = setup.driver().webhooks(&api, &project, &wanted).await.expect("a list").remove(0);
    assert_eq!((found.secret_set, found.drift.as_slice()), (Some(false), &["secret"][..]));
    let updated = setup.driver().update_webhook(&api, &project, &found, &wanted, &secret).await;
    assert_eq!(updated.expect("updated").secret_set, Some(true));
    assert_eq!(kept(&setup).secret.as_deref(), Some(SECRET));
}

#[tokio::test]
async fn an_older_or_unknown_server_is_sent_the_token_alone() {
    for (version, told) in [("18.11.3-ee", "18.11.3-ee"), ("19.0.1-ee", "")] {
        let setup = Setup::new(at_version(version)).await;
        let made = created(&setup, &wanted(told)).await;
        assert_eq!(made.scheme, SecretScheme::Token, "{version}");
        assert_eq!((methods(&setup), kept(&setup).secret.as_deref()), (vec!["POST".into()], Some(SECRET)));
        let body: Value = serde_json::from_slice(&setup.forge.requests()[0].body).expect("JSON");
        assert!(body.get("signing_token").is_none(), "{body}");
    }
}

#[tokio::test]
async fn a_webhook_that_signs_goes_on_signing_whatever_is_known_of_the_server() {
    let setup = Setup::new(at_version("19.0.1-ee")).await;
    let made = created(&setup, &wanted("19.0.1-ee")).await;
    let before = kept(&setup).secret;
    let (api, project) = (setup.api(tokens::GOOD), website(&setup).await);
    let secret = Secret::new(OTHER_SECRET.to_owned());
    let updated = setup.driver().update_webhook(&api, &project, &made, &wanted(""), &secret).await;
    let updated = updated.expect("updated");
    assert_eq!((updated.scheme, &updated.id), (SecretScheme::SigningToken, &made.id));
    let after = kept(&setup).secret;
    assert!(after != before && after.is_some_and(|token| token.starts_with("whsec_")));
}

#[tokio::test]
async fn ac_59_a_hook_that_gitlab_suspended_wakes_by_a_test_call() {
    let setup = Setup::small().await;
    let wanted = wanted("18.1.0-ee");
    let made = created(&setup, &wanted).await;
    let (api, project) = (setup.api(tokens::GOOD), website(&setup).await);
    for state in [HookState::Suspended, HookState::Dead] {
        setup.forge.hooks("gitlab").edit_all(&project.provider_id, |hook| hook.state = state);
        let found = setup.driver().webhooks(&api, &project, &wanted).await.expect("a list").remove(0);
        assert_eq!((found.health, found.drift.len()), (WebhookHealth::Suspended, 0));
        // An update does not wake it.
        let secret = Secret::new(SECRET.to_owned());
        let updated = setup.driver().update_webhook(&api, &project, &found, &wanted, &secret).await;
        assert_eq!(updated.expect("updated").health, WebhookHealth::Suspended);
        setup.driver().wake_webhook(&api, &project, &found.id).await.expect("woken");
        let found = setup.driver().webhooks(&api, &project, &wanted).await.expect("a list").remove(0);
        assert_eq!(found, made);
    }
    let wake = setup.driver().wake_webhook(&api, &project, "999").await;
    assert_eq!(wake, Err(ProviderError::NotFound));
}

#[tokio::test]
async fn a_receiver_that_still_fails_leaves_the_hook_asleep() {
    let setup = Setup::new(GitlabConfig { receivers_fail: true, ..GitlabConfig::default() }).await;
    let made = created(&setup, &wanted("")).await;
    let (api, project) = (setup.api(tokens::GOOD), website(&setup).await);
    setup.forge.hooks("gitlab").edit_all(&project.provider_id, |hook| hook.state = HookState::Suspended);
    let refused = setup.driver().wake_webhook(&api, &project, &made.id).await;
    assert!(matches!(refused, Err(ProviderError::Failed { status: Some(422), .. })), "{refused:?}");
    assert_eq!(kept(&setup).state, HookState::Suspended);
}

#[tokio::test]
async fn an_update_leaves_the_url_alone_because_gitlab_drops_the_secret_with_it() {
    let setup = Setup::small().await;
    let made = created(&setup, &wanted("")).await;
    let (api, project) = (setup.api(tokens::GOOD), website(&setup).await);
    let spelling = "HTTPS://hooks.example.test:443/in";
    setup.forge.hooks("gitlab").edit_all(&project.provider_id, |hook| hook.url = spelling.to_owned());
    let secret = Secret::new(OTHER_SECRET.to_owned());
    let updated = setup.driver().update_webhook(&api, &project, &made, &wanted(""), &secret).await;
    assert!(updated.expect("updated").drift.is_empty());
    let hook = kept(&setup);
    assert_eq!((hook.url.as_str(), hook.secret.as_deref()), (spelling, Some(OTHER_SECRET)));
}

#[tokio::test]
async fn ac_59_filters_and_templates_are_taken_away() {
    let setup = Setup::small().await;
    let made = created(&setup, &wanted("")).await;
    let (api, project) = (setup.api(tokens::GOOD), website(&setup).await);
    setup.forge.hooks("gitlab").edit_all(&project.provider_id, |hook| {
        hook.verifies_tls = false;
        hook.events.insert("issues_events".to_owned());
        hook.more.insert("push_events_branch_filter".to_owned(), "main".to_owned());
        hook.more.insert("branch_filter_strategy".to_owned(), "wildcard".to_owned());
        hook.more.insert("custom_webhook_template".to_owned(), "{}".to_owned());
    });
    let found = setup.driver().webhooks(&api, &project, &wanted("")).await.expect("a list").remove(0);
    assert_eq!(found.drift, ["events", "branch filter", "payload template", "TLS verification"]);
    let secret = Secret::new(SECRET.to_owned());
    let updated = setup.driver().update_webhook(&api, &project, &found, &wanted(""), &secret).await;
    assert_eq!(updated.expect("updated"), made);
    let found = setup.driver().webhooks(&api, &project, &wanted("")).await.expect("a list").remove(0);
    assert_eq!(found, made);
}

#[tokio::test]
async fn ac_56_an_administrator_can_admit_local_targets() {
    let setup = Setup::new(GitlabConfig { local_targets: true, ..GitlabConfig::default() }).await;
    let local = WantedWebhook { target_url: "http://127.0.0.1:9001/in".to_owned(), ..wanted("") };
    assert!(created(&setup, &local).await.drift.is_empty());
    let setup = Setup::small().await;
    let (api, project) = (setup.api(tokens::GOOD), website(&setup).await);
    let secret = Secret::new(SECRET.to_owned());
    match setup.driver().create_webhook(&api, &project, &local, &secret).await {
        Err(ProviderError::WebhookTargetRefused { setting }) => {
            assert!(setting.contains("Admin > Settings > Network > Outbound requests"), "{setting}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_role_and_a_missing_scope_are_told_apart() {
    let setup = Setup::small().await;
    let wanted = wanted("");
    let made = created(&setup, &wanted).await;
    let project = website(&setup).await;
    let secret = Secret::new(SECRET.to_owned());
    let lacks_api = ProviderError::ScopeMissing { scopes: vec!["api".to_owned()] };
    for (token, listed, refused) in [
        // Reads hooks, and its refusal of a write names the scope for reading too.
        (tokens::READ_ONLY, None, lacks_api),
        // A reporter of the project.
        (tokens::SECOND, Some(ProviderError::Forbidden), ProviderError::Forbidden),
        (tokens::GRANULAR, None, ProviderError::ScopeMissing { scopes: Vec::new() }),
    ] {
        let api = setup.api(token);
        assert_eq!(setup.driver().webhooks(&api, &project, &wanted).await.err(), listed, "{token}");
        let outcomes = [
            setup.driver().create_webhook(&api, &project, &wanted, &secret).await.err(),
            setup.driver().update_webhook(&api, &project, &made, &wanted, &secret).await.err(),
            setup.driver().delete_webhook(&api, &project, &made.id).await.err(),
            setup.driver().wake_webhook(&api, &project, &made.id).await.err(),
        ];
        for outcome in outcomes {
            assert_eq!(outcome.as_ref(), Some(&refused), "{token}");
        }
    }
    assert_eq!(kept(&setup).secret.as_deref(), Some(SECRET));
}

#[tokio::test]
async fn a_project_with_more_hooks_than_are_read_is_no_list_of_all() {
    let setup = Setup::new(GitlabConfig { hook_limit: 3_000, ..GitlabConfig::default() }).await;
    let (api, project) = (setup.api(tokens::GOOD), website(&setup).await);
    for number in 0..2_100 {
        let url = format!("https://stranger.example.test/{number}");
        setup.forge.hooks("gitlab").add(&project.provider_id, Hook::new(&url, &["push_events"], None));
    }
    let found = setup.driver().webhooks(&api, &project, &wanted("")).await;
    assert!(matches!(found, Err(ProviderError::Failed { .. })), "{found:?}");
}

#[test]
fn git_signs_in_with_any_of_the_tokens_in_one_way() {
    let forms = [
        CredentialForm::PersonalAccessToken { username: Some("casey".to_owned()) },
        CredentialForm::ResourceToken { resource_type: ResourceType::Group, resource: String::new() },
    ];
    for form in forms {
        let login = gitmoor::provider::Provider::git_login(&gitmoor::provider::gitlab::Gitlab, &form, None);
        assert_eq!((login.username.as_str(), login.scheme), ("oauth2", AuthScheme::Basic));
    }
}
