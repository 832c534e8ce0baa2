//! Webhooks of links: made in the background, kept alive, removed, verified.

use std::time::Duration;

use gitmoor::domain::event::EventType;
use gitmoor::proto::v1;
use gitmoor::proto::v1::ensure_webhook_response::Outcome;
use gitmoor::proto::v1::repository_link::WebhookMode;
use gitmoor::proto::v1::webhook::State;
use gitmoor::proto::v1::webhook_service_client::WebhookServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::fixture::{Side, TARGET, link, request_ids, sides, started};
use crate::support::app::{Running, TestApp, refused};
use crate::support::forge::{Forge, Hook, HookState};

/// How often, and how many times at most, a test looks for work of the background.
const LOOKS: (Duration, usize) = (Duration::from_millis(20), 1_000);
/// More than the time between two scheduled looks.
const A_WHILE: Duration = Duration::from_secs(12 * 3_600);

impl Running {
    pub(in crate::api) fn webhooks(&self) -> WebhookServiceClient<Channel> {
        WebhookServiceClient::new(self.channel.clone()).max_encoding_message_size(32 * 1024 * 1024)
    }

    pub(super) async fn webhook(&self, link: &str) -> Result<v1::Webhook, Status> {
        let request = v1::GetWebhookRequest { name: format!("{link}/webhook") };
        self.webhooks().get_webhook(request).await.map(Response::into_inner)
    }

    pub(super) async fn ensure(&self, link: &str) -> Result<v1::EnsureWebhookResponse, Status> {
        let request = v1::EnsureWebhookRequest { name: format!("{link}/webhook") };
        self.webhooks().ensure_webhook(request).await.map(Response::into_inner)
    }

    async fn setup(&self, link: &str) -> Result<v1::GetWebhookSetupResponse, Status> {
        let request = v1::GetWebhookSetupRequest { name: format!("{link}/webhook") };
        self.webhooks().get_webhook_setup(request).await.map(Response::into_inner)
    }

    pub(super) async fn rotate(
        &self,
        request: v1::RotateWebhookSecretRequest,
    ) -> Result<v1::RotateWebhookSecretResponse, Status> {
        self.webhooks().rotate_webhook_secret(request).await.map(Response::into_inner)
    }

    /// Links an administered repository with a webhook, and waits until the background is done.
    pub(super) async fn linked_with_webhook(&self, side: &Side) -> (v1::Repository, v1::RepositoryLink) {
        let repository = self.administered(side, "x").await;
        let made = self.link_with(with_webhook(&repository)).await.expect("linked");
        let settled = self.settled(&made.name).await;
        assert_eq!(settled.state(), State::Active, "{}: {settled:?}", side.provider);
        (repository, self.get_link(&made.name).await.expect("there"))
    }

    /// A repository that the good token of a new connection administers.
    pub(super) async fn administered(&self, side: &Side, display_name: &str) -> v1::Repository {
        let connection = self.create(side.connection(display_name)).await.expect("created");
        let rows = self.stream(&connection.name).await.expect("a stream");
        let usable = |row: &&v1::Repository| row.archived != Some(true) && !row.disabled;
        let full_name = administered(side.provider);
        let found = rows.iter().filter(usable).find(|row| row.full_name == full_name);
        found.unwrap_or_else(|| panic!("{}: {full_name} is not listed", side.provider)).clone()
    }

    /// The webhook once nothing is under way for it.
    pub(super) async fn settled(&self, link: &str) -> v1::Webhook {
        for _ in 0..LOOKS.1 {
            let shown = self.get_link(link).await.expect("a link");
            let webhook = self.webhook(link).await.expect("a webhook");
            if !shown.reconciling && webhook.state() != State::Pending && webhook.state() != State::Deleting {
                return webhook;
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        panic!("{link} does not settle: {:?}", self.webhook(link).await);
    }

    /// Waits until something holds that the background brings about.
    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..LOOKS.1 {
            if holds() {
                return;
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        panic!("{what} does not come about");
    }

    /// Waits until a link is gone.
    pub(super) async fn gone(&self, link: &str) {
        for _ in 0..LOOKS.1 {
            if self.get_link(link).await.is_err() {
                return;
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        panic!("{link} stays: {:?}", self.get_link(link).await);
    }
}

/// A repository that the good token administers.
fn administered(provider: &str) -> &'static str {
    match provider {
        "azure-devops" => "Fabrikam Fiber/Fabrikam Fiber",
        "bitbucket-data-center" => "WEB/acme-website",
        _ => "acme/website",
    }
}

pub(super) fn with_webhook(repository: &v1::Repository) -> v1::CreateRepositoryLinkRequest {
    let mut request = link(repository);
    request.repository_link.as_mut().expect("a link").webhook_target_url = TARGET.to_owned();
    request
}

/// What the forge keeps for a repository.
pub(super) fn kept(forge: &Forge, side: &Side, repository: &v1::Repository) -> Vec<Hook> {
    forge.hooks(side.provider).of(&repository.provider_id)
}

/// How many rows one webhook is.
fn rows_of_one(provider: &str, hooks: &[Hook]) -> usize {
    // Azure DevOps has one subscription for each event.
    if provider == "azure-devops" { hooks.len().max(2) } else { 1 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_50_an_auto_link_gets_one_webhook_with_the_wanted_events() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (repository, linked) = app.linked_with_webhook(&side).await;
        let webhook = app.webhook(&linked.name).await.expect("a webhook");
        assert_eq!((webhook.target_url.as_str(), webhook.events().count()), (TARGET, 3));
        assert!(webhook.secret_set && !webhook.adopted && webhook.conditions.is_empty(), "{webhook:?}");
        assert_eq!(webhook.secret_version, 1);
        assert!(!webhook.provider_id.is_empty() && webhook.last_check_time.is_some());
        let hooks = kept(&forge, &side, &repository);
        assert_eq!(hooks.len(), rows_of_one(side.provider, &hooks), "{}: {hooks:?}", side.provider);
        for hook in &hooks {
            assert_eq!((hook.url.as_str(), hook.state), (TARGET, HookState::Working), "{hook:?}");
            assert!(hook.secret.is_some() && hook.verifies_tls, "{hook:?}");
        }
        // Nothing more is done, whoever asks.
        let again = app.ensure(&linked.name).await.expect("ensured");
        assert_eq!(again.outcome(), Outcome::None, "{}: {again:?}", side.provider);
        assert_eq!(kept(&forge, &side, &repository), hooks);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_54_a_healthy_webhook_is_never_touched() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (repository, linked) = app.linked_with_webhook(&side).await;
        let before = kept(&forge, &side, &repository);
        let checked = app.webhook(&linked.name).await.expect("a webhook").last_check_time;
        app.clock.advance(A_WHILE);
        for _ in 0..LOOKS.1 {
            if app.webhook(&linked.name).await.expect("a webhook").last_check_time != checked {
                break;
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        let after = app.webhook(&linked.name).await.expect("a webhook");
        assert_ne!(after.last_check_time, checked, "{}: no scheduled look", side.provider);
        assert_eq!(kept(&forge, &side, &repository), before, "{}", side.provider);
        app.verify(&linked.connection).await.expect("verified");
        assert_eq!(kept(&forge, &side, &repository), before, "{}", side.provider);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_51_without_rights_the_link_works_and_a_person_makes_the_webhook() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        forge.lower_to_read_only(side.provider, side.good);
        let row = &app.administered(&side, "weak").await;
        let linked = app.link_with(with_webhook(row)).await.expect("linked");
        assert_eq!(linked.state(), v1::repository_link::State::Linked);
        let webhook = app.settled(&linked.name).await;
        assert_eq!(webhook.state(), State::ManualRequired, "{}: {webhook:?}", side.provider);
        assert_eq!(webhook.conditions[0].reason, "WEBHOOK_PERMISSION_MISSING", "{webhook:?}");
        assert_eq!(app.ensure(&linked.name).await.expect("asked").outcome(), Outcome::ManualRequired);
        assert!(kept(&forge, &side, row).is_empty(), "{}", side.provider);

        let setup = app.setup(&linked.name).await.expect("a setup");
        assert_eq!((setup.target_url.as_str(), setup.events().count()), (TARGET, 3));
        assert!(setup.steps.len() >= 3, "{setup:?}");
        // AC-57: Azure DevOps signs nothing, so it gets the form of basic authentication.
        let (secret, other) = match side.provider {
            "azure-devops" => (&setup.password, &setup.secret),
            _ => (&setup.secret, &setup.password),
        };
        assert!(secret.len() >= 43 && other.is_empty(), "{}", side.provider);
        assert_eq!(side.provider == "azure-devops", !setup.username.is_empty());
        let events = app.events("default").await;
        let read = events.iter().filter(|event| event.event_type == EventType::WebhookSecretRead);
        let read: Vec<_> = read.filter(|event| event.resource.starts_with(&linked.name)).collect();
        assert_eq!(read.len(), 1, "AC-42: each use of a secret is one event");
        assert!(!format!("{events:?}").contains(secret.as_str()));

        let refusal = refused(app.rotate(rotation(&linked.name, 60, "")).await);
        assert_eq!(
            (refusal.code, &*refusal.reason),
            (Code::FailedPrecondition, "WEBHOOK_PERMISSION_MISSING")
        );
        assert_eq!(app.webhook(&linked.name).await.expect("there").secret_version, 1);
    }
}

pub(super) fn rotation(link: &str, overlap: i64, request_id: &str) -> v1::RotateWebhookSecretRequest {
    v1::RotateWebhookSecretRequest {
        name: format!("{link}/webhook"),
        overlap: Some(prost_types::Duration { seconds: overlap, nanos: 0 }),
        request_id: request_id.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_52_a_token_that_lost_its_rights_leaves_the_webhook_as_it_is() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (repository, linked) = app.linked_with_webhook(&side).await;
        let before = kept(&forge, &side, &repository);
        forge.lower_to_read_only(side.provider, side.good);
        let ensured = app.ensure(&linked.name).await.expect("asked");
        assert_eq!(ensured.outcome(), Outcome::None, "{}", side.provider);
        assert_eq!(ensured.webhook.expect("told").state(), State::Active, "{}", side.provider);
        assert_eq!(kept(&forge, &side, &repository), before, "{}", side.provider);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_53_two_tenants_share_one_webhook_and_the_last_one_removes_it() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (repository, first) = app.linked_with_webhook(&side).await;
        let before = kept(&forge, &side, &repository);
        let other = app.create_in("other", side.connection("x")).await.expect("created");
        let mut there = repository.clone();
        there.name = repository.name.replace(&first.connection, &other.name);
        let mut request = with_webhook(&there);
        request.repository_link.as_mut().expect("a link").webhook_events =
            vec![v1::WebhookEventType::Push as i32];
        let second = app.link_with(request).await.expect("linked");
        assert_eq!(app.settled(&second.name).await.state(), State::Active);
        assert_eq!(kept(&forge, &side, &repository), before, "{}: one webhook for both", side.provider);

        app.unlink(&first.name).await.expect("unlinked");
        app.gone(&first.name).await;
        assert_eq!(app.settled(&second.name).await.state(), State::Active);
        let left = kept(&forge, &side, &repository);
        assert!(!left.is_empty() && left.iter().all(|hook| hook.url == TARGET), "{}", side.provider);

        app.unlink(&second.name).await.expect("unlinked");
        app.gone(&second.name).await;
        assert!(kept(&forge, &side, &repository).is_empty(), "{}", side.provider);
        let events = app.events("other").await;
        assert!(events.iter().any(|event| event.event_type == EventType::WebhookRemoved), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_53_a_webhook_made_by_hand_is_adopted() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        // What a webhook looks like at this provider, from one that was made and forgotten.
        let (repository, first) = app.linked_with_webhook(&side).await;
        let by_hand = kept(&forge, &side, &repository);
        app.unlink(&first.name).await.expect("unlinked");
        app.gone(&first.name).await;
        for hook in by_hand {
            let hook = Hook { secret: Some("by hand".to_owned()), ..hook };
            forge.hooks(side.provider).add(&repository.provider_id, hook);
        }
        let linked = app.link_with(with_webhook(&repository)).await.expect("linked");
        let webhook = app.settled(&linked.name).await;
        assert_eq!((webhook.state(), webhook.adopted), (State::Active, true), "{}", side.provider);
        app.until("one webhook", || {
            let hooks = kept(&forge, &side, &repository);
            hooks.len() == rows_of_one(side.provider, &hooks)
        })
        .await;
        let hooks = kept(&forge, &side, &repository);
        assert!(hooks.iter().all(|hook| hook.secret.as_deref() != Some("by hand")), "{}", side.provider);
        assert_eq!(app.ensure(&linked.name).await.expect("asked").outcome(), Outcome::None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_59_what_somebody_deleted_or_altered_is_noticed_and_repaired() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (repository, linked) = app.linked_with_webhook(&side).await;
        let hooks = forge.hooks(side.provider);
        let id = &repository.provider_id;

        // Altered: one event less, or of Azure DevOps one subscription less.
        let before = kept(&forge, &side, &repository);
        if side.provider == "azure-devops" {
            assert!(hooks.remove(id, &before[0].id));
        } else {
            hooks.edit_all(id, |hook| {
                hook.events.pop_last();
            });
        }
        let ensured = app.ensure(&linked.name).await.expect("ensured");
        assert_eq!(ensured.outcome(), Outcome::Updated, "{}", side.provider);
        let events = |rows: &[Hook]| {
            rows.iter().flat_map(|hook| hook.events.clone()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(events(&kept(&forge, &side, &repository)), events(&before), "{}", side.provider);

        // Deleted: the scheduled look makes it again.
        for hook in kept(&forge, &side, &repository) {
            hooks.remove(id, &hook.id);
        }
        app.clock.advance(A_WHILE);
        app.until("the webhook again", || kept(&forge, &side, &repository).len() == before.len()).await;
        let webhook = app.settled(&linked.name).await;
        assert_eq!((webhook.state(), webhook.secret_version), (State::Active, 1), "{}", side.provider);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_55_after_a_rotation_the_provider_has_the_new_secret_and_one_webhook() {
    let (forge, app) = started().await;
    let mut ids = request_ids();
    for side in sides(&forge) {
        let (repository, linked) = app.linked_with_webhook(&side).await;
        let before = kept(&forge, &side, &repository);
        let request = rotation(&linked.name, 3_600, &ids.next().expect("an id"));
        let rotated = app.rotate(request.clone()).await.expect("rotated");
        assert!(rotated.overlap_end_time.is_some());
        assert_eq!(rotated.webhook.as_ref().expect("told").secret_version, 2, "{}", side.provider);
        assert_eq!(app.rotate(request).await.expect("the same answer"), rotated);
        let after = kept(&forge, &side, &repository);
        assert_eq!(after.len(), before.len(), "{}: {after:?}", side.provider);
        for (old, new) in before.iter().zip(&after) {
            assert_ne!(old.secret, new.secret, "{}", side.provider);
        }
        let replaced = side.provider == "gitea";
        assert_eq!(before[0].id != after[0].id, replaced, "{}: in place where it can", side.provider);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_webhook_sets_the_mode_of_its_link_and_removes_it() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (repository, linked) = app.linked_with_webhook(&side).await;
        let shown = app.webhook(&linked.name).await.expect("there");
        let name = shown.name.clone();
        let stale = v1::DeleteWebhookRequest { name: name.clone(), etag: "other".to_owned() };
        assert_eq!(refused(app.webhooks().delete_webhook(stale).await).reason, "ETAG_MISMATCH");
        let request = v1::DeleteWebhookRequest { name, etag: shown.etag };
        app.webhooks().delete_webhook(request).await.expect("deleted");
        assert_eq!(app.get_link(&linked.name).await.expect("stays").webhook_mode(), WebhookMode::None);
        assert_eq!(app.settled(&linked.name).await.state(), State::Absent, "{}", side.provider);
        assert!(kept(&forge, &side, &repository).is_empty(), "{}", side.provider);
        let refusal = refused(app.ensure(&linked.name).await);
        assert_eq!((refusal.code, &*refusal.reason), (Code::InvalidArgument, "INVALID_FIELDS"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_25_a_link_with_a_dead_token_is_unlinked_and_its_webhook_goes_when_it_can() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (repository, linked) = app.linked_with_webhook(&side).await;
        (side.revoke)(&forge);
        app.unlink(&linked.name).await.expect("unlinked with a dead token");
        let shown = app.get_link(&linked.name).await.expect("still shown");
        assert_eq!(shown.state(), v1::repository_link::State::Unlinking, "{}", side.provider);
        assert!(!kept(&forge, &side, &repository).is_empty());
        (side.revive)(&forge);
        app.clock.advance(A_WHILE);
        app.gone(&linked.name).await;
        assert!(kept(&forge, &side, &repository).is_empty(), "{}", side.provider);
    }
}

#[tokio::test]
async fn a_webhook_of_another_tenant_is_not_there() {
    let (forge, app) = started().await;
    let side = &sides(&forge)[0];
    let (_, linked) = app.linked_with_webhook(side).await;
    let foreign = linked.name.replace("tenants/default", "tenants/other");
    let refusals = [
        refused(app.webhook(&foreign).await),
        refused(app.ensure(&foreign).await),
        refused(app.setup(&foreign).await),
        refused(app.rotate(rotation(&foreign, 60, "")).await),
    ];
    for refusal in refusals {
        assert_eq!((refusal.code, &*refusal.reason), (Code::NotFound, "REPOSITORY_LINK_NOT_FOUND"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_56_a_target_that_the_provider_does_not_deliver_to_is_told_with_its_setting() {
    const LOCAL: &str = "https://127.0.0.1:9443/in";
    let forge = Forge::small().await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).allow_target("https://127.0.0.1:9443").start().await;
    let refusing = ["gitlab", "azure-devops", "github", "bitbucket-cloud"];
    for side in sides(&forge).into_iter().filter(|side| refusing.contains(&side.provider)) {
        let repository = app.administered(&side, "x").await;
        let mut request = link(&repository);
        request.repository_link.as_mut().expect("a link").webhook_target_url = LOCAL.to_owned();
        let linked = app.link_with(request).await.expect("linked");
        let refusal = refused(app.ensure(&linked.name).await);
        assert_eq!((refusal.code, &*refusal.reason), (Code::FailedPrecondition, "WEBHOOK_TARGET_REFUSED"));
        assert!(refusal.details.contains(&"Help".to_owned()), "{refusal:?}");
        let webhook = app.webhook(&linked.name).await.expect("there");
        assert_eq!(webhook.state(), State::Pending, "{}", side.provider);
        assert_eq!(webhook.conditions[0].reason, "WEBHOOK_TARGET_REFUSED", "{webhook:?}");
        assert!(kept(&forge, &side, &repository).is_empty(), "{}", side.provider);
        if side.provider == "gitlab" {
            assert!(refusal.message.contains("Outbound requests"), "{}", refusal.message);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_59_a_webhook_that_was_disabled_is_revived() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let provider = side.provider;
        let (repository, linked) = app.linked_with_webhook(&side).await;
        let id = &repository.provider_id;
        let (state, outcome) = match provider {
            // A test call wakes it; an update would not.
            "gitlab" => (HookState::Suspended, Outcome::Updated),
            // Only new subscriptions help.
            "azure-devops" => (HookState::Dead, Outcome::Updated),
            _ => (HookState::SwitchedOff, Outcome::Updated),
        };
        let count = kept(&forge, &side, &repository).len();
        forge.hooks(provider).edit_all(id, |hook| hook.state = state);
        assert_eq!(app.ensure(&linked.name).await.expect("revived").outcome(), outcome, "{provider}");
        let hooks = kept(&forge, &side, &repository);
        assert_eq!(hooks.len(), count, "{provider}");
        assert!(hooks.iter().all(|hook| hook.state == HookState::Working), "{provider}: {hooks:?}");
        assert_eq!(app.webhook(&linked.name).await.expect("there").state(), State::Active, "{provider}");
        if provider == "gitlab" {
            // Once an hour at most: a target that does not answer is not called in a loop.
            forge.hooks(provider).edit_all(id, |hook| hook.state = HookState::Suspended);
            let asleep = app.ensure(&linked.name).await.expect("asked");
            assert_eq!(asleep.outcome(), Outcome::None);
            assert_eq!(asleep.webhook.expect("told").state(), State::DisabledByProvider);
            app.clock.advance(Duration::from_secs(3_601));
            app.until("another call", || {
                kept(&forge, &side, &repository).iter().all(|hook| hook.state == HookState::Working)
            })
            .await;
        }
    }
}
