//! Links are changed.

use gitmoor::domain::event::EventType;
use gitmoor::proto::v1;
use gitmoor::proto::v1::repository_link::WebhookMode;

use super::condition;
use crate::api::fixture::{TARGET, gitlab, request_ids, sides, started, update_link};
use crate::support::app::refused;

fn of(link: &v1::RepositoryLink) -> v1::RepositoryLink {
    v1::RepositoryLink { name: link.name.clone(), ..Default::default() }
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_asks_nobody() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (_, rows) = app.with_repositories(&side, "x", 1).await;
        let before = app.link(&rows[0]).await.expect("linked");
        forge.forget_requests();
        let labels = [("team".to_owned(), "web".to_owned())];
        let wish = v1::RepositoryLink {
            labels: labels.clone().into(),
            webhook_target_url: TARGET.into(),
            webhook_mode: WebhookMode::Manual as i32,
            ..of(&before)
        };
        let only_labels = app.update_link(wish.clone(), &["labels", "state", "etag"]).await.expect("updated");
        assert_eq!(only_labels.labels, labels.clone().into());
        assert!(only_labels.webhook_target_url.is_empty());
        assert_ne!(only_labels.etag, before.etag);
        let all = app.update_link(wish, &[]).await.expect("updated");
        assert_eq!((all.webhook_mode(), all.webhook_target_url.as_str()), (WebhookMode::Manual, TARGET));
        assert_eq!(condition(&all, "WEBHOOK_READY").expect("told").reason, "MANUAL_REQUIRED");
        assert_eq!(app.get_link(&before.name).await.expect("stored"), all);
        // The same once more is no change.
        let again = app.update_link(all.clone(), &["webhook_mode", "labels"]).await.expect("updated");
        assert_eq!(again.etag, all.etag);
        // The target is kept for another time.
        let off = v1::RepositoryLink { webhook_mode: WebhookMode::None as i32, ..of(&before) };
        let off = app.update_link(off, &["webhook_mode"]).await.expect("updated");
        assert_eq!((off.webhook_target_url.as_str(), off.reconciling), (TARGET, false));
        assert!(condition(&off, "WEBHOOK_READY").is_none());
        assert!(forge.requests().is_empty(), "nothing is asked of the provider");
        let on = app.update_link(of(&before), &["webhook_mode"]).await.expect("updated");
        assert_eq!((on.webhook_mode(), on.reconciling), (WebhookMode::Auto, true));
        let cleared = app.update_link(of(&before), &["*"]).await.expect("updated");
        assert_eq!(cleared.webhook_mode(), WebhookMode::None);
        assert!(cleared.labels.is_empty() && cleared.webhook_target_url.is_empty());
        assert!(cleared.webhook_events.is_empty());
        assert_eq!(cleared.connection, before.connection);

        let events = app.events("default").await;
        let mine: Vec<_> = events
            .iter()
            .filter(|event| event.resource == before.name)
            .filter(|event| event.event_type == EventType::RepositoryLinkUpdated)
            .collect();
        assert_eq!(mine.len(), 5);
        assert_eq!(mine[1].before["webhook_mode"], "NONE");
        assert_eq!(mine[1].after["webhook_target_url"], TARGET);
    }
}

#[tokio::test]
async fn what_an_update_may_not_do_is_refused() {
    let (forge, app) = started().await;
    let (_, rows) = app.with_repositories(&gitlab(&forge), "x", 1).await;
    let before = app.link(&rows[0]).await.expect("linked");
    let wish = v1::RepositoryLink {
        connection: "tenants/default/connections/other".into(),
        webhook_mode: WebhookMode::Manual as i32,
        ..of(&before)
    };
    let refusal = refused(app.update_link(wish, &["webhook_mode", "repository.full_name"]).await);
    let mut found: Vec<_> =
        refusal.violations.iter().map(|(field, reason)| (field.as_str(), reason.as_str())).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("repository_link.connection", "IMMUTABLE"),
            ("repository_link.webhook_target_url", "REQUIRED"),
            ("update_mask", "UNKNOWN_PATH"),
        ]
    );
    let stale = v1::RepositoryLink { etag: "\"0\"".into(), ..of(&before) };
    assert_eq!(refused(app.update_link(stale, &["labels"]).await).reason, "ETAG_MISMATCH");
    assert_eq!(app.get_link(&before.name).await.expect("there"), before);
}

#[tokio::test]
async fn the_same_request_id_changes_a_link_once() {
    let (forge, app) = started().await;
    let (_, rows) = app.with_repositories(&gitlab(&forge), "x", 1).await;
    let before = app.link(&rows[0]).await.expect("linked");
    let wish = |value: &str| v1::RepositoryLink {
        labels: [("team".to_owned(), value.to_owned())].into(),
        ..of(&before)
    };
    let request_id = request_ids().next().expect("an id");
    let request = v1::UpdateRepositoryLinkRequest {
        request_id: request_id.clone(),
        ..update_link(wish("a"), &["labels"])
    };
    let first = app.update_link_with(request.clone()).await.expect("updated");
    app.update_link(wish("b"), &["labels"]).await.expect("updated");
    assert_eq!(app.update_link_with(request).await.expect("again"), first);
    assert_eq!(app.get_link(&before.name).await.expect("there").labels["team"], "b");
    let other = v1::UpdateRepositoryLinkRequest { request_id, ..update_link(wish("c"), &["labels"]) };
    assert_eq!(refused(app.update_link_with(other).await).reason, "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn changes_of_many_at_once_are_all_kept() {
    let (forge, app) = started().await;
    let app = std::sync::Arc::new(app);
    let (_, rows) = app.with_repositories(&gitlab(&forge), "x", 1).await;
    let before = app.link(&rows[0]).await.expect("linked");
    let writers: Vec<_> = (0..4)
        .map(|at| {
            let (app, mut wish) = (app.clone(), of(&before));
            let path = match at {
                0 => "labels",
                1 => "annotations",
                _ => "webhook_target_url",
            };
            wish.labels = [("a".to_owned(), "1".to_owned())].into();
            wish.annotations = [("b".to_owned(), "2".to_owned())].into();
            wish.webhook_target_url = TARGET.into();
            tokio::spawn(async move { app.update_link(wish, &[path]).await })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic").expect("updated");
    }
    let after = app.get_link(&before.name).await.expect("there");
    assert_eq!((after.labels.len(), after.annotations.len()), (1, 1));
    assert_eq!(after.webhook_target_url, TARGET);
    assert_eq!(after.webhook_mode(), WebhookMode::None, "the target alone switches nothing on");
}

#[tokio::test]
async fn ac_33_a_disabled_connection_shows_on_its_links() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (connection, rows) = app.with_repositories(&side, "x", 2).await;
        let linked = app.link(&rows[0]).await.expect("linked");
        let off = v1::Connection { name: connection.name.clone(), disabled: true, ..Default::default() };
        app.update(off, &["disabled"]).await.expect("disabled");
        forge.forget_requests();
        let shown = app.get_link(&linked.name).await.expect("there");
        let ready = condition(&shown, "CONNECTION_READY").expect("told");
        assert_eq!(
            (ready.status(), ready.reason.as_str()),
            (v1::condition::Status::False, "CONNECTION_DISABLED")
        );
        assert_eq!(shown.etag, linked.etag, "the link itself is as it was");
        assert_eq!(refused(app.link(&rows[1]).await).reason, "CONNECTION_DISABLED");
        let refs = v1::ListRefsRequest { parent: linked.name.clone(), ..Default::default() };
        let outcome = app.repositories().list_refs(refs.clone()).await;
        assert_eq!(refused(outcome).reason, "CONNECTION_DISABLED");
        assert!(forge.requests().is_empty(), "no call reaches the provider");
        let on = v1::Connection { name: connection.name.clone(), ..Default::default() };
        app.update(on, &["disabled"]).await.expect("enabled");
        assert_eq!(app.get_link(&linked.name).await.expect("there").conditions, linked.conditions);
        let refs = app.repositories().list_refs(refs).await.expect("refs by the link").into_inner().refs;
        let direct = v1::ListRefsRequest { parent: rows[0].name.clone(), ..Default::default() };
        let direct = app.repositories().list_refs(direct).await.expect("refs").into_inner().refs;
        assert_eq!(refs, direct);
    }
}
