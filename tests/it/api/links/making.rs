//! Links are made and removed.

use gitmoor::domain::event::EventType;
use gitmoor::proto::v1;
use gitmoor::proto::v1::create_repository_link_request::Selector;
use gitmoor::proto::v1::repository_link::{State, WebhookMode};
use tonic::Code;

use super::condition;
use crate::api::fixture::{TARGET, gitlab, link, request_ids, sides, started};
use crate::support::app::refused;

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
            assert_eq!(seen.repository_link, linked.name);
            let seen = v1::Repository { repository_link: String::new(), ..seen };
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

#[tokio::test]
async fn what_is_wrong_with_a_link_is_told_at_once_before_any_call() {
    let (forge, app) = started().await;
    let (_, rows) = app.with_repositories(&gitlab(&forge), "x", 1).await;
    forge.forget_requests();
    let wrong = v1::CreateRepositoryLinkRequest {
        parent: "tenants/default".into(),
        repository_link_id: "Not-An-Id".into(),
        repository_link: Some(v1::RepositoryLink {
            connection: "connections/x".into(),
            webhook_mode: 99,
            webhook_events: vec![v1::WebhookEventType::Push as i32, v1::WebhookEventType::Other as i32, 0],
            webhook_target_url: "https://user:secret@hooks.platform.example/".into(),
            labels: [("no key".to_owned(), String::new())].into(),
            ..Default::default()
        }),
        request_id: "not-a-uuid".into(),
        ..Default::default()
    };
    let refusal = refused(app.link_with(wrong).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
    let mut found: Vec<_> =
        refusal.violations.iter().map(|(field, reason)| (field.as_str(), reason.as_str())).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("repository", "REQUIRED"),
            ("repository_link.connection", "MALFORMED"),
            ("repository_link.labels", "MALFORMED"),
            ("repository_link.webhook_events", "UNKNOWN_VALUE"),
            ("repository_link.webhook_events", "UNKNOWN_VALUE"),
            ("repository_link.webhook_mode", "UNKNOWN_VALUE"),
            ("repository_link.webhook_target_url", "URL_USERINFO_FORBIDDEN"),
            ("repository_link_id", "MALFORMED"),
            ("request_id", "MALFORMED"),
        ]
    );
    assert!(!refusal.message.contains("secret"));

    // Each alone, against a request that is right otherwise.
    let right = link(&rows[0]);
    let with = |edit: &dyn Fn(&mut v1::CreateRepositoryLinkRequest)| {
        let mut request = right.clone();
        edit(&mut request);
        request
    };
    let own = |request: &mut v1::CreateRepositoryLinkRequest| request.repository_link.take().expect("a link");
    for (request, field, reason) in [
        (
            with(&|r| r.repository_link = Some(v1::RepositoryLink { webhook_mode: 1, ..own(r) })),
            "repository_link.webhook_target_url",
            "REQUIRED",
        ),
        (
            with(&|r| r.repository_link = Some(v1::RepositoryLink { webhook_events: vec![1], ..own(r) })),
            "repository_link.webhook_events",
            "CONFLICTING",
        ),
        (
            with(&|r| {
                r.selector =
                    Some(Selector::Repository("tenants/default/connections/other/repositories/1".into()))
            }),
            "repository",
            "CONFLICTING",
        ),
        (with(&|r| r.parent = "tenants/other".into()), "repository_link.connection", "CONFLICTING"),
        (with(&|r| r.selector = Some(Selector::FullName("https://a/b".into()))), "full_name", "MALFORMED"),
        (
            with(&|r| r.selector = Some(Selector::CloneUrl("https://a:b@c/d".into()))),
            "clone_url",
            "URL_USERINFO_FORBIDDEN",
        ),
    ] {
        let refusal = refused(app.link_with(request).await);
        assert_eq!(refusal.violations, [(field.to_owned(), reason.to_owned())], "{}", refusal.message);
    }
    assert!(forge.requests().is_empty(), "nothing is asked of the provider");
    let nowhere = with(&|r| r.selector = Some(Selector::FullName("acme/there-is-none".into())));
    assert_eq!(refused(app.link_with(nowhere).await).reason, "REPOSITORY_NOT_FOUND");
    let nobody = "tenants/default/connections/nobody".to_owned();
    let none = v1::RepositoryLink { connection: nobody, ..Default::default() };
    let nobody = v1::CreateRepositoryLinkRequest {
        repository_link: Some(none),
        selector: Some(Selector::FullName("acme/website".into())),
        ..right.clone()
    };
    assert_eq!(refused(app.link_with(nobody).await).reason, "CONNECTION_NOT_FOUND");
    assert_eq!(app.events("default").await.len(), 1, "the connection alone");
}

#[tokio::test]
async fn w01_a_target_that_no_rule_admits_is_refused() {
    let (forge, app) = started().await;
    let (_, rows) = app.with_repositories(&gitlab(&forge), "x", 1).await;
    for (target, reason) in [
        ("http://hooks.platform.example/git", "WEBHOOK_TARGET_NOT_ALLOWED"),
        ("https://10.0.0.1/git", "WEBHOOK_TARGET_NOT_ALLOWED"),
        ("https://127.0.0.1/git", "WEBHOOK_TARGET_NOT_ALLOWED"),
        ("https://[::1]/git", "WEBHOOK_TARGET_NOT_ALLOWED"),
        ("https://169.254.169.254/latest/meta-data/", "WEBHOOK_TARGET_NOT_ALLOWED"),
        ("https://hooks.elsewhere.example/git", "WEBHOOK_TARGET_NOT_ALLOWED"),
        ("https://hooks.platform.example.evil.example/git", "WEBHOOK_TARGET_NOT_ALLOWED"),
        ("https://hooks.platform.example:8443/git", "WEBHOOK_TARGET_NOT_ALLOWED"),
        ("https://2130706433/git", "WEBHOOK_TARGET_NOT_ALLOWED"),
        ("https://hooks.platform.example@evil.example/", "URL_USERINFO_FORBIDDEN"),
        ("file:///etc/passwd", "URL_SCHEME_FORBIDDEN"),
        ("https://hooks.platform.example//git", "URL_MALFORMED"),
    ] {
        let mut request = link(&rows[0]);
        request.repository_link.as_mut().expect("a link").webhook_target_url = target.into();
        let refusal = refused(app.link_with(request).await);
        let own = reason == "WEBHOOK_TARGET_NOT_ALLOWED";
        assert_eq!(refusal.code, Code::InvalidArgument, "{target}");
        assert_eq!(refusal.reason, if own { reason } else { "INVALID_FIELDS" }, "{target}");
        assert_eq!(
            refusal.violations,
            [("repository_link.webhook_target_url".to_owned(), reason.to_owned())]
        );
    }
    let mut request = link(&rows[0]);
    request.repository_link.as_mut().expect("a link").webhook_target_url =
        "HTTPS://Hooks.Platform.Example:443".into();
    let linked = app.link_with(request).await.expect("admitted");
    assert_eq!(linked.webhook_target_url, "https://hooks.platform.example/");
}

#[tokio::test]
async fn ac_58_repositories_of_one_name_are_told_apart_by_their_ids() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (_, rows) = app.with_repositories(&side, "x", 2).await;
        let (first, second) = (app.link(&rows[0]).await.expect("a"), app.link(&rows[1]).await.expect("b"));
        let id = |link: &v1::RepositoryLink| link.repository.as_ref().expect("seen").provider_id.clone();
        assert_eq!((id(&first), id(&second)), (rows[0].provider_id.clone(), rows[1].provider_id.clone()));
        for row in &rows {
            // The tenant's link shows on the row itself, whichever way it is found.
            let link = if row.provider_id == id(&first) { &first } else { &second };
            assert_eq!(app.repository(&row.name).await.expect("there").repository_link, link.name);
            let listed =
                app.stream(row.name.split_once("/repositories/").expect("a name").0).await.expect("all");
            let listed = listed.iter().find(|found| found.provider_id == row.provider_id).expect("listed");
            assert_eq!(listed.repository_link, link.name);
        }
    }
}

#[tokio::test]
async fn of_many_at_once_one_links_the_repository() {
    let (forge, app) = started().await;
    let app = std::sync::Arc::new(app);
    for side in sides(&forge) {
        let (connection, rows) = app.with_repositories(&side, "x", 1).await;
        let rivals: Vec<_> = (0..16)
            .map(|at| {
                let (app, mut request) = (app.clone(), link(&rows[0]));
                let wire = request.repository_link.as_mut().expect("a link");
                // Half of them share a webhook.
                wire.webhook_target_url = if at % 2 == 0 { TARGET.into() } else { String::new() };
                tokio::spawn(async move { app.link_with(request).await })
            })
            .collect();
        let mut winners = Vec::new();
        for rival in rivals {
            match rival.await.expect("no panic") {
                Ok(link) => winners.push(link),
                Err(status) => {
                    assert_eq!(refused::<()>(Err(status)).reason, "REPOSITORY_ALREADY_LINKED");
                }
            }
        }
        assert_eq!(winners.len(), 1, "{}", side.provider);
        assert_eq!(app.get(&connection.name).await.expect("there").linked_repository_count, 1);
    }
}

#[tokio::test]
async fn links_of_one_target_share_a_webhook_without_a_lost_one() {
    let (forge, app) = started().await;
    let app = std::sync::Arc::new(app);
    // Many tenants link one repository with one target at once: all of them count on one webhook.
    let side = gitlab(&forge);
    let mut requests = Vec::new();
    for tenant in 0..8 {
        let tenant = format!("t{tenant}");
        let connection = app.create_in(&tenant, side.connection("x")).await.expect("created");
        let row = app.stream(&connection.name).await.expect("a stream").remove(0);
        let mut request = link(&row);
        request.repository_link.as_mut().expect("a link").webhook_target_url = TARGET.into();
        requests.push(request);
    }
    let all = requests.into_iter().map(|request| {
        let app = app.clone();
        tokio::spawn(async move { app.link_with(request).await })
    });
    for one in all.collect::<Vec<_>>() {
        let linked = one.await.expect("no panic").expect("linked");
        assert!(condition(&linked, "WEBHOOK_READY").is_some(), "{linked:?}");
    }
}

#[tokio::test]
async fn ac_35_links_of_other_tenants_are_as_if_not_there() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let connection = app.create_in("a", side.connection("x")).await.expect("created");
        let row = app.stream(&connection.name).await.expect("a stream").remove(0);
        let linked = app.link(&row).await.expect("linked");
        let id = linked.name.rsplit('/').next().expect("an id");
        let foreign = format!("tenants/b/repositoryLinks/{id}");
        let missing = format!("tenants/b/repositoryLinks/{}", uuid::Uuid::now_v7());
        for name in [&foreign, &missing] {
            let label = v1::RepositoryLink {
                name: name.clone(),
                labels: [("a".to_owned(), "b".to_owned())].into(),
                ..Default::default()
            };
            let refs = v1::ListRefsRequest { parent: name.clone(), ..Default::default() };
            for outcome in [
                app.get_link(name).await.map(drop),
                app.unlink(name).await,
                app.update_link(label, &["labels"]).await.map(drop),
                app.repositories().list_refs(refs).await.map(drop),
            ] {
                let refusal = refused(outcome);
                assert_eq!(refusal.reason, "REPOSITORY_LINK_NOT_FOUND");
                assert!(refusal.message.contains(name.as_str()));
            }
        }
        assert!(app.links("b", "").await.is_empty());
        // Another tenant may link the same repository, through its own connection.
        let theirs = app.create_in("b", side.connection("x")).await.expect("created");
        let row = app.stream(&theirs.name).await.expect("a stream").remove(0);
        assert!(row.repository_link.is_empty(), "a tenant sees its own links alone");
        let theirs = app.link(&row).await.expect("its own link");
        assert_ne!(theirs.uid, linked.uid);
        app.unlink(&theirs.name).await.expect("unlinked");
        assert_eq!(app.get_link(&linked.name).await.expect("there"), linked);
        app.unlink(&linked.name).await.expect("unlinked");
    }
}
