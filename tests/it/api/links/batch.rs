//! Batches of links: all or none.

use gitmoor::domain::event::EventType;
use gitmoor::proto::v1;
use gitmoor::proto::v1::create_repository_link_request::Selector;
use gitmoor::proto::v1::repository_link::WebhookMode;
use tonic::Code;

use crate::api::fixture::{TARGET, gitlab, link, request_ids, sides, started};
use crate::support::app::refused;

fn batch(requests: Vec<v1::CreateRepositoryLinkRequest>) -> v1::BatchCreateRepositoryLinksRequest {
    v1::BatchCreateRepositoryLinksRequest {
        parent: "tenants/default".into(),
        requests,
        request_id: String::new(),
    }
}

/// The request that links the repository with a webhook that a person makes, as an entry of a batch.
fn entry(row: &v1::Repository) -> v1::CreateRepositoryLinkRequest {
    let mut request = v1::CreateRepositoryLinkRequest { parent: String::new(), ..link(row) };
    let link = request.repository_link.as_mut().expect("a link");
    link.webhook_target_url = TARGET.into();
    link.set_webhook_mode(WebhookMode::Manual);
    request
}

#[tokio::test]
async fn a_batch_links_all_and_answers_in_order() {
    let (forge, app) = started().await;
    for (side, request_id) in sides(&forge).into_iter().zip(request_ids()) {
        let (connection, rows) = app.with_repositories(&side, "x", 4).await;
        let mut requests: Vec<_> = rows.iter().rev().map(entry).collect();
        requests[1].selector = Some(Selector::FullName(rows[2].full_name.clone()));
        requests[2].selector = Some(Selector::CloneUrl(rows[1].clone_https_url.clone()));
        requests[3].repository_link_id = format!("last-{}", side.provider);
        let request = v1::BatchCreateRepositoryLinksRequest { request_id, ..batch(requests) };
        let links = app.link_batch(request.clone()).await.expect("linked");
        let found: Vec<_> =
            links.iter().map(|link| &link.repository.as_ref().expect("seen").provider_id).collect();
        let wanted: Vec<_> = rows.iter().rev().map(|row| &row.provider_id).collect();
        assert_eq!(found, wanted);
        assert!(links[3].name.ends_with(&format!("/last-{}", side.provider)));
        for link in &links {
            assert_eq!((link.webhook_target_url.as_str(), link.reconciling), (TARGET, false));
            assert_eq!(&app.get_link(&link.name).await.expect("stored"), link);
        }
        assert_eq!(app.get(&connection.name).await.expect("there").linked_repository_count, 4);
        forge.forget_requests();
        assert_eq!(app.link_batch(request).await.expect("again"), links);
        assert!(forge.requests().is_empty(), "answered from memory");
        let events = app.events("default").await;
        let mine = |name: &str| events.iter().filter(|event| event.resource == name).count();
        assert!(links.iter().all(|link| mine(&link.name) == 1));
    }
}

#[tokio::test]
async fn a_batch_that_fails_in_one_entry_leaves_nothing() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (connection, rows) = app.with_repositories(&side, "x", 3).await;
        let taken = app.link(&rows[2]).await.expect("linked");
        let mut nowhere = entry(&rows[1]);
        nowhere.selector = Some(Selector::FullName(format!("{}-there-is-none", rows[1].full_name)));
        let refusal = refused(app.link_batch(batch(vec![entry(&rows[0]), nowhere])).await);
        assert_eq!(refusal.reason, "REPOSITORY_NOT_FOUND", "{}", side.provider);
        assert_eq!(refusal.metadata["entry"], "requests[1]");
        let refusal = refused(app.link_batch(batch(vec![entry(&rows[0]), entry(&rows[2])])).await);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::AlreadyExists, "REPOSITORY_ALREADY_LINKED")
        );
        assert!(refusal.message.contains(&taken.name));
        assert_eq!(refusal.metadata["entry"], "requests[1]");

        let mut twice = entry(&rows[0]);
        twice.selector = Some(Selector::CloneUrl(rows[0].clone_https_url.clone()));
        let refusal = refused(app.link_batch(batch(vec![entry(&rows[0]), entry(&rows[1]), twice])).await);
        assert_eq!(refusal.violations, [("requests[2].clone_url".to_owned(), "CONFLICTING".to_owned())]);
        assert_eq!(app.get(&connection.name).await.expect("there").linked_repository_count, 1);
        assert!(app.repository(&rows[0].name).await.expect("there").repository_link.is_empty());
        app.unlink(&taken.name).await.expect("unlinked");
    }
    let linked = app.events("default").await;
    let linked = linked.iter().filter(|event| event.event_type == EventType::RepositoryLinked).count();
    assert_eq!(linked, sides(&forge).len());
}

#[tokio::test]
async fn violations_name_the_entry() {
    let (forge, app) = started().await;
    let (_, rows) = app.with_repositories(&gitlab(&forge), "x", 2).await;
    forge.forget_requests();
    assert_eq!(
        refused(app.link_batch(batch(Vec::new())).await).violations,
        [("requests".to_owned(), "REQUIRED".to_owned())]
    );
    let many = refused(app.link_batch(batch(vec![entry(&rows[0]); 101])).await);
    assert_eq!(many.violations[0], ("requests".to_owned(), "TOO_MANY".to_owned()));
    let named =
        |id: &str| v1::CreateRepositoryLinkRequest { repository_link_id: id.into(), ..entry(&rows[0]) };
    let mut wrong = entry(&rows[1]);
    wrong.parent = "tenants/other".into();
    wrong.request_id = "01234567-89ab-4def-8123-456789abcdef".into();
    wrong.validate_only = true;
    wrong.repository_link.as_mut().expect("a link").webhook_target_url = "https://elsewhere.example/".into();
    let refusal = refused(app.link_batch(batch(vec![named("a"), named("a"), wrong])).await);
    let mut found: Vec<_> =
        refusal.violations.iter().map(|(field, reason)| (field.as_str(), reason.as_str())).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("requests[1].repository_link_id", "CONFLICTING"),
            ("requests[2].parent", "CONFLICTING"),
            ("requests[2].repository_link.webhook_target_url", "WEBHOOK_TARGET_NOT_ALLOWED"),
            ("requests[2].request_id", "CONFLICTING"),
            ("requests[2].validate_only", "CONFLICTING"),
        ]
    );
    assert!(forge.requests().is_empty());
}
