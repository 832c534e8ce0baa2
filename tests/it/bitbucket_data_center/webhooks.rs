//! Webhooks, beyond what the suite of all providers asks.

use gitmoor::domain::webhook::{RemoteWebhook, WantedWebhook, WebhookEvent, WebhookHealth};
use gitmoor::provider::Restriction;
use serde_json::{Value, json};

use super::*;
use crate::support::forge::{Hook, HookState};

const ID: &str = "bitbucket-data-center";
const TARGET: &str = "https://hooks.example.test/in";

/// Something that somebody does to a webhook.
type Edit = fn(&mut Hook);

fn wanted() -> WantedWebhook {
    WantedWebhook {
        target_url: TARGET.to_owned(),
        events: WebhookEvent::CHOSEN.into(),
        server_version: "9.4.1".to_owned(),
    }
}

fn secret() -> Secret {
    Secret::new("5ec7e7".repeat(10))
}

impl Setup {
    async fn hooks(&self, token: &str, repository: &Repository) -> Result<Vec<RemoteWebhook>, ProviderError> {
        self.driver().webhooks(&self.api(token), repository, &wanted()).await
    }

    async fn make(&self, token: &str, repository: &Repository) -> Result<RemoteWebhook, ProviderError> {
        self.driver().create_webhook(&self.api(token), repository, &wanted(), &secret()).await
    }
}

#[tokio::test]
async fn a_change_sends_the_whole_webhook_and_the_header_against_forgery() {
    let setup = Setup::small().await;
    let repository = setup.by_name("WEB/acme-website").await.expect("a row");
    let hook = setup.make(tokens::GOOD, &repository).await.expect("made");
    let api = setup.api(tokens::GOOD);
    let updated = setup.driver().update_webhook(&api, &repository, &hook, &wanted(), &secret()).await;
    assert_eq!(updated, Ok(hook.clone()));
    assert_eq!(setup.driver().delete_webhook(&api, &repository, &hook.id).await, Ok(()));
    let requests = setup.forge.requests();
    let changes: Vec<&Seen> = requests.iter().filter(|seen| seen.method != "GET").collect();
    assert_eq!(
        changes.iter().map(|seen| seen.method.as_str()).collect::<Vec<_>>(),
        ["POST", "PUT", "DELETE"]
    );
    assert!(changes.iter().all(|seen| seen.header("x-atlassian-token") == Some("no-check")));
    let mut events = vec!["repo:refs_changed", "pr:opened", "pr:from_ref_updated", "pr:modified"];
    events.extend(["pr:merged", "pr:declined", "pr:deleted"]);
    events.sort_unstable();
    for change in &changes[..2] {
        let body: Value = serde_json::from_slice(&change.body).expect("JSON");
        let whole = json!({"name": "Gitmoor", "url": TARGET, "active": true, "events": events,
            "configuration": {"secret": secret().expose()}, "sslVerificationRequired": true});
        assert_eq!(body, whole);
    }
}

#[tokio::test]
async fn either_good_status_of_a_creation_is_one() {
    let setup = Setup::small().await;
    let repository = setup.by_name("WEB/acme-website").await.expect("a row");
    let recorded = include_str!("../../fixtures/providers/bitbucket-data-center/go-scm/webhook.json");
    for status in [200, 201] {
        setup.forge.respond_once("POST", API, status, &[JSON, USER], recorded);
        let made = setup.make(tokens::GOOD, &repository).await.expect("made");
        assert_eq!((made.id.as_str(), made.secret_set), ("1", Some(true)));
        // It shows a secret, which is no part of what is found.
        assert!(!format!("{made:?}").contains("12345"));
    }
    // An answer as to a stranger is no proof of anything.
    setup.forge.respond_once("POST", API, 201, &[JSON], recorded);
    assert_eq!(setup.make(tokens::GOOD, &repository).await, Err(rejected(RejectionCause::Unknown, 200)));
}

#[tokio::test]
async fn ac_51_only_administrators_have_webhooks_and_a_missing_right_is_no_dead_token() {
    let setup = Setup::small().await;
    let rows = setup.all().await;
    // Of the second one the user is an administrator, of the others not, or the token is weaker.
    for (token, row, may) in [
        (tokens::GOOD, &rows[0], true),
        (tokens::REPOSITORY, &rows[0], true),
        (tokens::PROJECT, &rows[0], true),
        (tokens::OLD_FORM, &rows[1], true),
        (tokens::WRITE, &rows[0], false),
        (tokens::READ_ONLY, &rows[0], false),
        (tokens::SECOND, &rows[0], false),
    ] {
        let outcome = setup.make(token, row).await;
        assert_eq!(outcome.as_ref().err(), (!may).then_some(&ProviderError::Forbidden), "{}", row.full_name);
        assert_eq!(setup.hooks(token, row).await.is_ok(), may);
    }
    for token in [tokens::UNKNOWN, tokens::EXPIRED] {
        let refused = setup.hooks(token, &rows[0]).await;
        assert_eq!(refused, Err(rejected(RejectionCause::Unknown, 401)));
    }
    // Behind a sign-on that drops the token the words are those of a missing right, or of nothing there: one more call
    // decides.
    let config = DataCenterConfig { drops_token: true, ..DataCenterConfig::default() };
    let dropped = Setup::new(config).await;
    let is_public = |row: &&Repository| row.visibility == Visibility::Public;
    for row in [&rows[0], rows.iter().find(is_public).expect("a public one")] {
        assert_eq!(dropped.hooks(tokens::GOOD, row).await, Err(rejected(RejectionCause::Unknown, 200)));
        assert_eq!(dropped.make(tokens::GOOD, row).await, Err(rejected(RejectionCause::Unknown, 200)));
        let removed = dropped.driver().delete_webhook(&dropped.api(tokens::GOOD), row, "1001").await;
        assert_eq!(removed, Err(rejected(RejectionCause::Unknown, 200)));
    }
}

#[tokio::test]
async fn an_archived_repository_takes_no_change() {
    let setup = Setup::small().await;
    let rows = setup.all().await;
    let is_administered =
        |row: &&Repository| row.full_name.starts_with("~casey/") || row.full_name.ends_with("7");
    let archived = rows.iter().filter(|row| row.archived == Some(true));
    let archived: Vec<&Repository> = archived.filter(is_administered).collect();
    assert!(!archived.is_empty());
    for row in archived {
        let hook =
            setup.forge.hooks(ID).add(&row.provider_id, Hook::new(TARGET, &["repo:refs_changed"], None));
        let found = setup.hooks(tokens::GOOD, row).await.expect("hooks");
        assert_eq!(
            (found[0].id.as_str(), found[0].drift.as_slice()),
            (hook.id.as_str(), &["events", "secret"][..])
        );
        let closed = ProviderError::Restricted { by: Restriction::RepositoryArchived };
        assert_eq!(setup.make(tokens::GOOD, row).await.as_ref(), Err(&closed));
        let api = setup.api(tokens::GOOD);
        let updated = setup.driver().update_webhook(&api, row, &found[0], &wanted(), &secret()).await;
        assert_eq!(updated.as_ref(), Err(&closed));
        assert_eq!(setup.driver().delete_webhook(&api, row, &hook.id).await, Err(closed));
    }
}

#[tokio::test]
async fn ac_59_what_somebody_changed_is_noticed() {
    let setup = Setup::small().await;
    let repository = setup.by_name("~casey/dotted.name_v2").await.expect("a row");
    let hook = setup.make(tokens::GOOD, &repository).await.expect("made");
    let edits: [(Edit, &[&str]); 4] = [
        (|hook| hook.verifies_tls = false, &["TLS verification"]),
        (|hook| hook.secret = None, &["secret"]),
        (|hook| hook.events = BTreeSet::from(["pr:merged".to_owned()]), &["events"]),
        (|hook| hook.state = HookState::SwitchedOff, &[]),
    ];
    for (edit, drift) in edits {
        setup.forge.hooks(ID).edit(&repository.provider_id, &hook.id, edit);
        let found = setup.hooks(tokens::GOOD, &repository).await.expect("hooks").remove(0);
        assert_eq!(found.drift, drift);
        assert_eq!(found.health == WebhookHealth::SwitchedOff, drift.is_empty());
        let api = setup.api(tokens::GOOD);
        let updated = setup.driver().update_webhook(&api, &repository, &found, &wanted(), &secret()).await;
        assert_eq!(updated, Ok(hook.clone()));
    }
}

#[tokio::test]
async fn a_webhook_of_the_project_is_not_the_repositorys() {
    let setup = Setup::small().await;
    let repository = setup.by_name("WEB/acme-website").await.expect("a row");
    let row = |id: u64, scope: &str| {
        json!({"id": id, "name": "x", "url": TARGET, "active": true, "events": ["pr:opened"], "scopeType": scope,
            "configuration": {}})
    };
    let page = json!({"size": 3, "limit": 25, "isLastPage": true, "start": 0,
        "values": [row(3, "repository"), row(1, "project"), row(2, "global")]});
    let webhooks = format!("{API}/projects/WEB/repos/acme-website/webhooks");
    setup.forge.respond_once("GET", &webhooks, 200, &[JSON, USER], page.to_string());
    let found = setup.hooks(tokens::GOOD, &repository).await.expect("hooks");
    assert_eq!(found.iter().map(|hook| hook.id.as_str()).collect::<Vec<_>>(), ["3"]);
}

#[tokio::test]
async fn pages_are_as_small_as_the_administrator_set_them() {
    let config = DataCenterConfig { page_cap: 10, ..DataCenterConfig::default() };
    let setup = Setup::new(config).await;
    let repository = setup.by_name("WEB/acme-website").await.expect("a row");
    for number in 0..95 {
        let target = format!("https://stranger.example.test/{number}");
        let hook = Hook::new(&target, &["repo:refs_changed"], Some("theirs"));
        setup.forge.hooks(ID).add(&repository.provider_id, hook);
    }
    let made = setup.make(tokens::GOOD, &repository).await.expect("made");
    setup.forge.forget_requests();
    assert_eq!(setup.hooks(tokens::GOOD, &repository).await, Ok(vec![made]));
    assert_eq!(setup.forge.requests().len(), 10);
    for fault in [Fault::SamePageForever, Fault::SelfNextLink] {
        setup.forge.set_fault(fault.clone());
        let found = setup.hooks(tokens::GOOD, &repository).await;
        assert!(matches!(found, Err(ProviderError::Failed { .. })), "{fault:?}: {found:?}");
        setup.forge.clear_faults();
    }
}

#[tokio::test]
async fn ac_66_a_change_is_not_sent_to_where_a_repository_has_moved() {
    let setup = Setup::small().await;
    let repository = setup.by_name("WEB/acme-website").await.expect("a row");
    let moved = Repository { full_name: "WEB/old-website".to_owned(), ..repository.clone() };
    setup.forge.forget_requests();
    let outcome = setup.make(tokens::GOOD, &moved).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
    assert_eq!(setup.forge.requests().len(), 1);
    assert!(setup.forge.hooks(ID).all().is_empty());
    // No name of a repository is no path.
    for name in ["", "acme-website", "WEB/..", "WEB/a/b"] {
        let odd = Repository { full_name: name.to_owned(), ..repository.clone() };
        assert_eq!(setup.hooks(tokens::GOOD, &odd).await, Err(ProviderError::NotFound), "{name}");
    }
}
