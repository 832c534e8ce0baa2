//! VerifyDelivery over the real surface: is it genuine, and what does it say?

use std::time::Duration;

use gitmoor::proto::v1;
use tonic::{Code, Response, Status};

use super::fixture::{Side, link, sides, started};
use super::webhooks::{kept, rotation, with_webhook};
use crate::provider::deliveries::push_about;
use crate::support::app::{Running, refused};
use crate::support::forge::Forge;

impl Running {
    async fn deliver(
        &self,
        name: &str,
        (headers, body): (Vec<(String, String)>, Vec<u8>),
    ) -> Result<v1::VerifyDeliveryResponse, Status> {
        let headers = headers.into_iter().collect();
        let request = v1::VerifyDeliveryRequest { name: name.to_owned(), headers, body };
        self.webhooks().verify_delivery(request).await.map(Response::into_inner)
    }
}

/// The secret that the forge has for the one webhook of a repository.
fn secret(forge: &Forge, side: &Side, repository: &v1::Repository) -> String {
    let hooks = kept(forge, side, repository);
    hooks.first().and_then(|hook| hook.secret.clone()).expect("a webhook with a secret")
}

fn webhook_of(link: &v1::RepositoryLink) -> String {
    format!("{}/webhook", link.name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_under_the_webhooks_secret_is_genuine_and_any_other_is_not() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let provider = side.provider;
        let (repository, linked) = app.linked_with_webhook(&side).await;
        let secret = secret(&forge, &side, &repository);
        let sent = push_about(provider, &repository.provider_id, &secret);
        let told = app.deliver(&webhook_of(&linked), sent.clone()).await.expect("an answer");
        assert!(told.valid && told.reason.is_empty(), "{provider}: {told:?}");
        assert_eq!(told.repository_link, linked.name);
        let event = told.event.expect("an event");
        assert_eq!(
            (event.r#type(), &event.repository_id),
            (v1::WebhookEventType::Push, &repository.provider_id)
        );
        assert!(!event.changes.is_empty() && event.dedupe_key.len() == 64, "{provider}: {event:?}");

        // The same once more has the same key.
        let again = app.deliver(&webhook_of(&linked), sent.clone()).await.expect("an answer");
        assert_eq!(again.event.expect("an event").dedupe_key, event.dedupe_key);

        let wrong = push_about(provider, &repository.provider_id, &"0".repeat(64));
        let told = app.deliver(&webhook_of(&linked), wrong).await.expect("an answer");
        assert_eq!((told.valid, told.reason.as_str()), (false, "SIGNATURE_MISMATCH"), "{provider}");
        assert!(told.event.is_none() && told.repository_link.is_empty(), "{provider}: {told:?}");

        let (headers, mut body) = sent.clone();
        *body.last_mut().expect("a body") ^= 1;
        let told = app.deliver(&webhook_of(&linked), (headers, body)).await.expect("an answer");
        let covered = provider != "azure-devops" && provider != "gitlab";
        let reason = if covered { "SIGNATURE_MISMATCH" } else { "BODY_MALFORMED" };
        assert_eq!((told.valid, told.reason.as_str()), (false, reason), "{provider}");

        let told = app.deliver(&webhook_of(&linked), (Vec::new(), sent.1)).await.expect("an answer");
        assert_eq!((told.valid, told.reason.as_str()), (false, "SIGNATURE_MISSING"), "{provider}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_58_among_all_links_a_delivery_finds_its_own_by_the_repositorys_id() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let provider = side.provider;
        let (repository, linked) = app.linked_with_webhook(&side).await;
        let rows = app.stream(&linked.connection).await.expect("a stream");
        let other = rows.iter().find(|row| row.provider_id != repository.provider_id).expect("another");
        let without = app.link(other).await.expect("linked without a webhook");
        let secret = secret(&forge, &side, &repository);
        let sent = push_about(provider, &repository.provider_id, &secret);
        let told = app.deliver("tenants/default/repositoryLinks/-", sent.clone()).await.expect("an answer");
        assert!(told.valid, "{provider}: {told:?}");
        assert_eq!(told.repository_link, linked.name, "{provider}");

        // Another tenant has no such webhook, and a repository without one has none either.
        let told = app.deliver("tenants/other/repositoryLinks/-", sent).await.expect("an answer");
        assert_eq!((told.valid, told.reason.as_str()), (false, "WEBHOOK_NOT_FOUND"), "{provider}");
        let stray = push_about(provider, &other.provider_id, &secret);
        let told = app.deliver("tenants/default/repositoryLinks/-", stray.clone()).await.expect("an answer");
        assert_eq!((told.valid, told.reason.as_str()), (false, "WEBHOOK_NOT_FOUND"), "{provider}");
        let told = app.deliver(&webhook_of(&linked), stray).await.expect("an answer");
        assert_eq!((told.valid, told.reason.as_str()), (false, "REPOSITORY_MISMATCH"), "{provider}");
        let told = app.deliver(&webhook_of(&without), (Vec::new(), b"{}".to_vec())).await.expect("an answer");
        assert_eq!((told.valid, told.reason.as_str()), (false, "WEBHOOK_NOT_FOUND"), "{provider}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_55_both_secrets_verify_until_the_overlap_ends() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let provider = side.provider;
        let (repository, linked) = app.linked_with_webhook(&side).await;
        let old = secret(&forge, &side, &repository);
        app.rotate(rotation(&linked.name, 3_600, "")).await.expect("rotated");
        let new = secret(&forge, &side, &repository);
        assert_ne!(old, new, "{provider}");
        let valid = async |secret: &str| {
            let sent = push_about(provider, &repository.provider_id, secret);
            app.deliver(&webhook_of(&linked), sent).await.expect("an answer").valid
        };
        assert!(valid(&old).await && valid(&new).await, "{provider}: both in the overlap");
        app.clock.advance(Duration::from_secs(3_599));
        assert!(valid(&old).await && valid(&new).await, "{provider}: a second before its end");
        app.clock.advance(Duration::from_secs(1));
        assert!(!valid(&old).await && valid(&new).await, "{provider}: the overlap is over");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_made_by_hand_is_active_once_it_delivers() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let repository = app.administered(&side, "x").await;
        let mut request = with_webhook(&repository);
        request.repository_link.as_mut().expect("a link").webhook_mode =
            v1::repository_link::WebhookMode::Manual as i32;
        let linked = app.link_with(request).await.expect("linked");
        let shown = app.webhook(&linked.name).await.expect("there");
        assert_eq!(shown.state(), v1::webhook::State::ManualRequired, "{}", side.provider);
        assert!(kept(&forge, &side, &repository).is_empty(), "{}", side.provider);
        let request = v1::GetWebhookSetupRequest { name: webhook_of(&linked) };
        let setup = app.webhooks().get_webhook_setup(request).await.expect("a setup").into_inner();
        let secret = if setup.secret.is_empty() { setup.password } else { setup.secret };
        let sent = push_about(side.provider, &repository.provider_id, &secret);
        assert!(app.deliver(&webhook_of(&linked), sent).await.expect("an answer").valid, "{}", side.provider);
        assert_eq!(app.webhook(&linked.name).await.expect("there").state(), v1::webhook::State::Active);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g01_a_delivery_may_have_26_mib_and_no_more() {
    let (forge, app) = started().await;
    let side = &sides(&forge)[0];
    let (repository, linked) = app.linked_with_webhook(side).await;
    let secret = secret(&forge, side, &repository);
    let (headers, body) = push_about(side.provider, &repository.provider_id, &secret);
    let padded = |bytes: usize| {
        let mut padded = body.clone();
        padded.resize(bytes, b' ');
        (headers.clone(), padded)
    };
    let large = app.deliver(&webhook_of(&linked), padded(25 * 1024 * 1024)).await.expect("an answer");
    assert!(large.valid, "{large:?}");
    let refused = app.deliver(&webhook_of(&linked), padded(27 * 1024 * 1024)).await.expect_err("too large");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
}

#[tokio::test]
async fn a_request_that_names_no_webhook_is_refused() {
    let (forge, app) = started().await;
    let side = &sides(&forge)[0];
    let (_, rows) = app.with_repositories(side, "x", 1).await;
    let linked = app.link_with(link(&rows[0])).await.expect("linked");
    let nothing = || (Vec::new(), Vec::new());
    for name in ["", "tenants/default", linked.name.as_str(), "tenants/root/repositoryLinks/-"] {
        let refusal = refused(app.deliver(name, nothing()).await);
        assert_eq!((refusal.code, &*refusal.reason), (Code::InvalidArgument, "INVALID_FIELDS"), "{name}");
    }
    let unknown = "tenants/default/repositoryLinks/nobody/webhook";
    assert_eq!(refused(app.deliver(unknown, nothing()).await).reason, "REPOSITORY_LINK_NOT_FOUND");
}
