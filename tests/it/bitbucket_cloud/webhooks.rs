//! Webhooks, beyond what the suite of all providers asks; and the repository at its last known place.

use std::collections::BTreeSet;

use gitmoor::domain::webhook::{RemoteWebhook, WantedWebhook, WebhookEvent, WebhookHealth};
use serde_json::Value;

use super::*;
use crate::support::forge::{Hook, HookState};

const ID: &str = "bitbucket-cloud";
const TARGET: &str = "https://hooks.example.test/in";

/// Something that somebody does to a webhook.
type Edit = fn(&mut Hook);

fn wanted(events: &[WebhookEvent]) -> WantedWebhook {
    WantedWebhook {
        target_url: TARGET.to_owned(),
        events: events.iter().copied().collect(),
        server_version: String::new(),
    }
}

fn secret() -> Secret {
    Secret::new("5ec7e7".repeat(10))
}

async fn named(setup: &Setup, name: &str) -> Repository {
    setup.lookup(Lookup::FullName(name.to_owned())).await.expect("a repository")
}

async fn made(setup: &Setup, api: &Api, events: &[WebhookEvent]) -> Result<RemoteWebhook, ProviderError> {
    let repository = named(setup, "acme/website").await;
    BitbucketCloud.create_webhook(api, &repository, &wanted(events), &secret()).await
}

fn missing(scope: &str) -> ProviderError {
    ProviderError::ScopeMissing { scopes: vec![scope.to_owned()] }
}

/// The requests for hooks: method, path.
fn hook_calls(setup: &Setup) -> Vec<(String, String)> {
    let seen = setup.forge.requests().into_iter();
    seen.filter(|seen| seen.path.contains("/hooks")).map(|seen| (seen.method, seen.path)).collect()
}

#[tokio::test]
async fn a_repository_is_named_by_its_id_or_by_name_to_its_own_token() {
    let setup = Setup::small().await;
    let repository = named(&setup, "acme/website").await;
    let id = repository.provider_id.trim_matches(['{', '}']).to_owned();
    let own = setup.resource(ResourceType::Repository, "acme/website", tokens::REPOSITORY);
    for (api, path) in [
        (setup.api(tokens::GOOD), format!("{PREFIX}/repositories/acme/%7B{id}%7D/hooks")),
        (own, format!("{PREFIX}/repositories/acme/website/hooks")),
    ] {
        setup.forge.forget_requests();
        let all = wanted(&WebhookEvent::CHOSEN);
        let hook = BitbucketCloud.create_webhook(&api, &repository, &all, &secret()).await.expect("made");
        BitbucketCloud.update_webhook(&api, &repository, &hook, &all, &secret()).await.expect("updated");
        BitbucketCloud.webhooks(&api, &repository, &all).await.expect("hooks");
        BitbucketCloud.delete_webhook(&api, &repository, &hook.id).await.expect("removed");
        let calls = hook_calls(&setup);
        assert_eq!(calls.len(), 4);
        assert!(calls.iter().all(|(_, called)| called.starts_with(&path)), "{calls:?}");
    }
    let hostile = Repository { provider_id: "../../user".to_owned(), ..repository.clone() };
    let nowhere = Repository { full_name: "website".to_owned(), ..repository };
    setup.forge.forget_requests();
    for odd in [hostile, nowhere] {
        let found =
            BitbucketCloud.webhooks(&setup.api(tokens::GOOD), &odd, &wanted(&[WebhookEvent::Push])).await;
        assert_eq!(found, Err(ProviderError::NotFound));
    }
    assert!(setup.forge.requests().is_empty());
}

#[tokio::test]
async fn what_is_sent_is_what_bitbucket_describes() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    let hook = made(&setup, &api, &[WebhookEvent::Push, WebhookEvent::Tag]).await.expect("made");
    let repository = named(&setup, "acme/website").await;
    let all = wanted(&WebhookEvent::CHOSEN);
    BitbucketCloud.update_webhook(&api, &repository, &hook, &all, &secret()).await.expect("updated");
    let bodies: Vec<Value> = setup
        .forge
        .requests()
        .iter()
        .filter(|seen| !seen.body.is_empty())
        .map(|seen| serde_json::from_slice(&seen.body).expect("JSON"))
        .collect();
    // Both mean the same event, and a list that names it twice is refused.
    assert_eq!(bodies[0]["events"], serde_json::json!(["repo:push"]));
    assert_eq!(bodies[1]["events"].as_array().map(Vec::len), Some(5));
    for body in &bodies {
        assert_eq!((&body["url"], &body["active"]), (&Value::from(TARGET), &Value::from(true)));
        assert_eq!(
            (&body["skip_cert_verification"], &body["secret"]),
            (&Value::from(false), &Value::from(secret().expose()))
        );
    }
}

#[tokio::test]
async fn ac_51_the_scope_that_is_missing_is_named() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    let hook = made(&setup, &api, &WebhookEvent::CHOSEN).await.expect("made");
    let repository = named(&setup, "acme/website").await;
    let without = |scope: &'static str| {
        setup.forge.edit_bitbucket_cloud_token(tokens::GOOD, |token| token.scopes.retain(|had| had != scope));
    };
    let give = |scope: &'static str| {
        setup.forge.edit_bitbucket_cloud_token(tokens::GOOD, |token| token.scopes.push(scope.to_owned()));
    };
    // Making a webhook needs the scope of each of its events.
    without("read:pullrequest:bitbucket");
    let refused = made(&setup, &api, &WebhookEvent::CHOSEN).await;
    assert_eq!(refused, Err(missing("read:pullrequest:bitbucket")));
    let pushes = made(&setup, &api, &[WebhookEvent::Push]).await.expect("made");
    give("read:pullrequest:bitbucket");
    without("write:webhook:bitbucket");
    assert_eq!(made(&setup, &api, &[WebhookEvent::Push]).await, Err(missing("write:webhook:bitbucket")));
    // Reading, and removing, take scopes of their own.
    let all = wanted(&WebhookEvent::CHOSEN);
    assert_eq!(BitbucketCloud.webhooks(&api, &repository, &all).await.expect("hooks").len(), 2);
    without("delete:webhook:bitbucket");
    let refused = BitbucketCloud.delete_webhook(&api, &repository, &hook.id).await;
    assert_eq!(refused, Err(missing("delete:webhook:bitbucket")));
    give("delete:webhook:bitbucket");
    without("read:webhook:bitbucket");
    assert_eq!(BitbucketCloud.delete_webhook(&api, &repository, &pushes.id).await, Ok(()));
    assert_eq!(
        BitbucketCloud.webhooks(&api, &repository, &all).await,
        Err(missing("read:webhook:bitbucket"))
    );
}

#[tokio::test]
async fn ac_51_only_administrators_have_webhooks() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    // Which the first person may write, and read.
    for name in ["casey/ubersicht", "team-002/dotted.name_v2"] {
        let repository = named(&setup, name).await;
        let pushes = wanted(&[WebhookEvent::Push]);
        let refused = BitbucketCloud.webhooks(&api, &repository, &pushes).await;
        assert_eq!(refused, Err(ProviderError::Forbidden), "{name}");
        let refused = BitbucketCloud.create_webhook(&api, &repository, &pushes, &secret()).await;
        assert_eq!(refused, Err(ProviderError::Forbidden), "{name}");
    }
    // Tokens of the resource have no user who could be one.
    for (kind, resource, token) in [
        (ResourceType::Repository, "acme/website", tokens::REPOSITORY),
        (ResourceType::Project, "acme/WEB", tokens::PROJECT),
        (ResourceType::Workspace, "acme", tokens::WORKSPACE),
    ] {
        made(&setup, &setup.resource(kind, resource, token), &WebhookEvent::CHOSEN).await.expect("made");
    }
    let reads = setup.resource(ResourceType::Workspace, "acme", tokens::WORKSPACE_READ);
    assert_eq!(made(&setup, &reads, &[WebhookEvent::Push]).await, Err(missing("webhook")));
}

#[tokio::test]
async fn ac_59_what_somebody_changed_is_noticed() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    let hook = made(&setup, &api, &WebhookEvent::CHOSEN).await.expect("made");
    let repository = named(&setup, "acme/website").await;
    let all = wanted(&WebhookEvent::CHOSEN);
    let edits: [(Edit, &[&str]); 4] = [
        (|hook| hook.verifies_tls = false, &["TLS verification"]),
        (|hook| hook.secret = None, &["secret"]),
        (|hook| hook.events = BTreeSet::from(["repo:fork".to_owned()]), &["events"]),
        (|hook| hook.state = HookState::SwitchedOff, &[]),
    ];
    for (edit, drift) in edits {
        setup.forge.hooks(ID).edit(&repository.provider_id, &hook.id, edit);
        let found = BitbucketCloud.webhooks(&api, &repository, &all).await.expect("hooks").remove(0);
        assert_eq!(found.drift, drift);
        assert_eq!(found.health == WebhookHealth::SwitchedOff, drift.is_empty());
        let updated = BitbucketCloud.update_webhook(&api, &repository, &found, &all, &secret()).await;
        assert_eq!(updated, Ok(hook.clone()));
        let kept = setup.forge.hooks(ID).find(&repository.provider_id, &hook.id).expect("kept");
        assert_eq!((kept.secret.as_deref(), kept.verifies_tls), (Some(secret().expose()), true));
    }
}

#[tokio::test]
async fn rows_have_the_recorded_members_and_never_the_secret() {
    let setup = Setup::small().await;
    made(&setup, &setup.api(tokens::GOOD), &WebhookEvent::CHOSEN).await.expect("made");
    let id = named(&setup, "acme/website").await.provider_id;
    let recorded: Value =
        serde_json::from_str(include_str!("../../fixtures/providers/bitbucket-cloud/go-scm/hook.json"))
            .expect("fixture");
    let answer =
        setup.api(tokens::GOOD).get(&["repositories", "acme", &id, "hooks"]).send().await.expect("an answer");
    let page: Value = answer.json().expect("JSON");
    let names =
        |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    assert!(names(&recorded).is_subset(&names(&page["values"][0])), "{page}");
    assert!(!page.to_string().contains(secret().expose()));
}

#[tokio::test]
async fn ac_61_a_link_to_another_origin_is_never_followed_for_webhooks() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    let repository = named(&setup, "acme/website").await;
    for number in 0..150 {
        let hook = Hook::new(&format!("https://stranger.example.test/{number}"), &["repo:push"], None);
        setup.forge.hooks(ID).add(&repository.provider_id, hook);
    }
    for fault in [
        Fault::ForeignNextLink("https://elsewhere.test".to_owned()),
        Fault::BadNextPage("https://api.bitbucket.org/internal/x".to_owned()),
        Fault::SelfNextLink,
    ] {
        setup.forge.set_fault(fault.clone());
        let found = BitbucketCloud.webhooks(&api, &repository, &wanted(&WebhookEvent::CHOSEN)).await;
        assert!(matches!(found, Err(ProviderError::Failed { .. })), "{fault:?}: {found:?}");
        setup.forge.clear_faults();
    }
}

// --- the last known place ---

async fn known(setup: &Setup, api: &Api, id: &str, name: &str) -> Result<Repository, ProviderError> {
    setup.forge.forget_requests();
    BitbucketCloud.known_repository(api, id, name).await
}

#[tokio::test]
async fn ac_64_a_repository_is_looked_for_at_its_last_known_place_first() {
    let setup = Setup::new(BitbucketCloudConfig { redirects: true, ..BitbucketCloudConfig::default() }).await;
    let api = setup.api(tokens::GOOD);
    let website = named(&setup, "acme/website").await;
    // What is there, and the permission; not each workspace.
    assert_eq!(known(&setup, &api, &website.provider_id, "acme/website").await, Ok(website.clone()));
    assert_eq!(setup.forge.requests().len(), 2);
    // A former name, where it redirects.
    assert_eq!(known(&setup, &api, &website.provider_id, "acme/old-website").await, Ok(website.clone()));
    assert_eq!(setup.forge.requests().len(), 3);
    // Nothing there, another one there, no name: each workspace is asked for the id.
    for name in ["acme/nothing", "casey/ubersicht", "nowhere/website", "website", "", "../user"] {
        assert_eq!(known(&setup, &api, &website.provider_id, name).await, Ok(website.clone()), "{name}");
        assert!(setup.forge.requests_to(&format!("{PREFIX}/user/workspaces")).len() > 1, "{name}");
    }
    let unknown = "{00000000-0000-4000-8000-000000000000}";
    assert_eq!(known(&setup, &api, unknown, "acme/website").await, Err(ProviderError::NotFound));
    assert_eq!(known(&setup, &api, "acme", "acme/website").await, Err(ProviderError::NotFound));
    assert!(setup.forge.requests().is_empty());
}

#[tokio::test]
async fn a_last_known_place_outside_of_the_connection_does_not_count() {
    let setup = Setup::small().await;
    let website = named(&setup, "acme/website").await;
    let elsewhere = setup.api(tokens::GOOD).within(within(&["casey"]));
    let found = known(&setup, &elsewhere, &website.provider_id, "acme/website").await;
    assert_eq!(found, Err(ProviderError::NotFound));
    let here = setup.api(tokens::GOOD).within(within(&["acme"]));
    assert_eq!(known(&setup, &here, &website.provider_id, "acme/website").await, Ok(website.clone()));
    // Its own token sees it alone, in one call.
    let own = setup.resource(ResourceType::Repository, "acme/website", tokens::REPOSITORY);
    let found = known(&setup, &own, &website.provider_id, "acme/website").await.expect("found");
    assert_eq!((found.provider_id, setup.forge.requests().len()), (website.provider_id, 1));
}

#[tokio::test]
async fn a_place_that_fails_is_no_reason_to_look_elsewhere() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    let website = named(&setup, "acme/website").await;
    let place = format!("{PREFIX}/repositories/acme/website");
    setup.forge.fault_on(&place, Fault::ServerError, usize::MAX);
    let found = known(&setup, &api, &website.provider_id, "acme/website").await;
    assert!(matches!(found, Err(ProviderError::Failed { status: Some(500..), .. })), "{found:?}");
    assert!(setup.forge.requests_to(&format!("{PREFIX}/user")).is_empty());
    setup.forge.clear_faults();
    // A workspace that was marked as spam says so of each of its repositories; another may have it by now.
    setup.forge.respond_once(
        "GET",
        &place,
        410,
        &[("content-type", "application/json")],
        r#"{"type":"error"}"#,
    );
    assert_eq!(known(&setup, &api, &website.provider_id, "acme/website").await, Ok(website));
}
