//! Repository links: made, read, changed, removed.

use gitmoor::domain::event::EventType;
use gitmoor::proto::v1;
use gitmoor::proto::v1::create_repository_link_request::Selector;
use gitmoor::proto::v1::repository_link::{State, WebhookMode};
use tonic::Code;

use super::fixture::{TARGET, link, request_ids, sides, started};
use crate::support::app::refused;

/// The condition of that type.
fn condition<'a>(link: &'a v1::RepositoryLink, kind: &str) -> Option<&'a v1::Condition> {
    link.conditions.iter().find(|found| found.r#type == kind)
}

#[tokio::test]
async fn a_repository_is_linked_by_name_full_name_or_clone_url() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (connection, rows) = app.with_repositories(&side, "x", 3).await;
        let selectors = [
            Selector::Repository(rows[0].name.clone()),
            Selector::FullName(rows[1].full_name.clone()),
            Selector::CloneUrl(rows[2].clone_https_url.clone()),
        ];
        for (row, selector) in rows.iter().zip(selectors) {
            let request = v1::CreateRepositoryLinkRequest { selector: Some(selector), ..link(row) };
            let linked = app.link_with(request).await.expect("linked");
            let seen = app.repository(&row.name).await.expect("the repository");
            assert_eq!(linked.repository, Some(seen), "{}", side.provider);
            assert_eq!(
                (linked.connection.as_str(), linked.provider.as_str()),
                (&*connection.name, side.provider)
            );
            assert_eq!((linked.state(), linked.webhook_mode()), (State::Linked, WebhookMode::None));
            assert!(linked.webhook_events.is_empty() && linked.webhook_target_url.is_empty());
            assert!(!linked.reconciling && linked.previous_full_names.is_empty());
            assert_eq!(linked.connection_history.len(), 1);
            assert_eq!(linked.connection_history[0].connection, connection.name);
            for kind in ["REPOSITORY_ACCESSIBLE", "CONNECTION_READY"] {
                let found = condition(&linked, kind).expect(kind);
                assert_eq!(found.status(), v1::condition::Status::True, "{found:?}");
            }
            assert!(condition(&linked, "WEBHOOK_READY").is_none());
            assert_eq!(app.get_link(&linked.name).await.expect("stored"), linked);
        }
    }
}

#[tokio::test]
async fn a_link_with_a_target_gets_a_webhook_to_be_made() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (_, rows) = app.with_repositories(&side, "x", 1).await;
        let mut request = link(&rows[0]);
        request.repository_link.as_mut().expect("a link").webhook_target_url = TARGET.into();
        let dry =
            app.link_with(v1::CreateRepositoryLinkRequest { validate_only: true, ..request.clone() }).await;
        let dry = dry.expect("valid");
        assert_eq!(refused(app.get_link(&dry.name).await).reason, "REPOSITORY_LINK_NOT_FOUND");
        let linked = app.link_with(request).await.expect("linked");
        assert_eq!((linked.webhook_mode(), linked.reconciling), (WebhookMode::Auto, true));
        assert_eq!((dry.webhook_mode(), dry.reconciling), (WebhookMode::Auto, true));
        assert_eq!(linked.webhook_target_url, TARGET);
        assert_eq!(linked.webhook_events().count(), 3);
        let ready = condition(&linked, "WEBHOOK_READY").expect("told");
        assert_eq!((ready.status(), ready.reason.as_str()), (v1::condition::Status::False, "PENDING"));
    }
}

#[tokio::test]
async fn a_repository_is_linked_once_in_a_tenant_whichever_connection_sees_it() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (_, rows) = app.with_repositories(&side, "x", 1).await;
        let linked = app.link(&rows[0]).await.expect("linked");
        let second = app.create(side.connection("y")).await.expect("created");
        let mut other = rows[0].clone();
        other.name =
            format!("{}/repositories/{}", second.name, other.name.rsplit('/').next().expect("an id"));
        forge.forget_requests();
        for row in [&rows[0], &other] {
            let refusal = refused(app.link(row).await);
            assert_eq!(
                (refusal.code, refusal.reason.as_str()),
                (Code::AlreadyExists, "REPOSITORY_ALREADY_LINKED")
            );
            assert!(refusal.message.contains(&linked.name), "{}", refusal.message);
        }
        assert!(forge.requests().is_empty(), "no need to ask");
        let by_name = Selector::FullName(rows[0].full_name.clone());
        let request = v1::CreateRepositoryLinkRequest { selector: Some(by_name), ..link(&other) };
        assert_eq!(refused(app.link_with(request).await).reason, "REPOSITORY_ALREADY_LINKED");
        app.unlink(&linked.name).await.expect("unlinked");
        let again = app.link(&other).await.expect("free again");
        assert_ne!((&again.name, &again.uid), (&linked.name, &linked.uid));
    }
}

#[tokio::test]
async fn ac_34_ac_42_unlinking_one_repository_leaves_its_siblings_alone() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (connection, rows) = app.with_repositories(&side, "x", 2).await;
        let mut request = link(&rows[0]);
        request.repository_link_id = format!("web-{}", side.provider);
        let first = app.link_with(request.clone()).await.expect("linked");
        let second = app.link(&rows[1]).await.expect("linked");
        forge.forget_requests();
        let stale = v1::DeleteRepositoryLinkRequest { name: first.name.clone(), etag: "\"0\"".into() };
        let outcome = app.repositories().delete_repository_link(stale).await;
        assert_eq!(refused(outcome).reason, "ETAG_MISMATCH");
        app.unlink(&first.name).await.expect("unlinked");
        assert_eq!(refused(app.get_link(&first.name).await).reason, "REPOSITORY_LINK_NOT_FOUND");
        assert_eq!(refused(app.unlink(&first.name).await).code, Code::NotFound);
        assert_eq!(app.get_link(&second.name).await.expect("there"), second);
        assert!(forge.requests().is_empty(), "nothing is asked of the provider");
        assert_eq!(
            refused(app.link_with(request).await).reason,
            "RESOURCE_ID_TAKEN",
            "ids are not used again"
        );

        let id = connection.name.rsplit('/').next().expect("an id");
        let mine = |event: &gitmoor::domain::event::Event| {
            event.connections.iter().any(|found| found.as_str() == id) && event.resource == first.name
        };
        let events: Vec<_> = app.events("default").await.into_iter().filter(mine).collect();
        let types: Vec<_> = events.iter().map(|event| event.event_type).collect();
        assert_eq!(types, [EventType::RepositoryLinked, EventType::RepositoryUnlinked]);
        assert!(events[0].before.is_empty() && events[1].after.is_empty());
        assert_eq!(events[0].after, events[1].before);
        assert_eq!(events[0].after["repository.full_name"], rows[0].full_name);
        assert!(!events[0].actor.is_empty() && !events[0].request_id.is_empty());
    }
}

#[tokio::test]
async fn the_same_request_id_links_once_and_answers_the_same() {
    let (forge, app) = started().await;
    for (side, request_id) in sides(&forge).into_iter().zip(request_ids()) {
        let (_, rows) = app.with_repositories(&side, "x", 2).await;
        let request = v1::CreateRepositoryLinkRequest { request_id: request_id.clone(), ..link(&rows[0]) };
        let linked = app.link_with(request.clone()).await.expect("linked");
        forge.forget_requests();
        assert_eq!(app.link_with(request).await.expect("again"), linked);
        assert!(forge.requests().is_empty());
        let other = v1::CreateRepositoryLinkRequest { request_id, ..link(&rows[1]) };
        assert_eq!(refused(app.link_with(other).await).reason, "REQUEST_ID_REUSED");
    }
}
