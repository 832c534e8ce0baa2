//! Listing the repositories of all connections of a tenant.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gitmoor::proto::v1;
use tonic::{Code, Request};

use super::fixture::{all_pages, azure, gitlab, sides, started};
use crate::support::app::{Running, refused};
use crate::support::forge::Fault;

const ALL: &str = "tenants/default/connections/-";

fn everything() -> v1::ListRepositoriesRequest {
    v1::ListRepositoriesRequest { parent: ALL.into(), include_archived: true, ..Default::default() }
}

fn names(rows: &[v1::Repository]) -> Vec<&str> {
    rows.iter().map(|row| row.name.as_str()).collect()
}

/// All messages of the stream over all connections.
async fn streamed(app: &Running) -> Vec<v1::StreamRepositoriesResponse> {
    let request =
        v1::StreamRepositoriesRequest { parent: ALL.into(), include_archived: true, ..Default::default() };
    let mut stream = app.repositories().stream_repositories(request).await.expect("a stream").into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.expect("a message") {
        messages.push(message);
    }
    messages
}

#[tokio::test]
async fn one_connection_comes_after_the_other_in_one_page_sequence() {
    let (forge, app) = started().await;
    let mut expected = Vec::new();
    let mut connections = Vec::new();
    for side in sides(&forge) {
        for display_name in ["one", "two"] {
            connections.push(app.create(side.connection(display_name)).await.expect("created").name);
        }
    }
    connections.sort_unstable();
    for name in &connections {
        expected.extend(app.stream(name).await.expect("a stream").into_iter().map(|row| row.name));
    }
    for page_size in [0, 1, 7, 100] {
        let (rows, _) = all_pages(&app, v1::ListRepositoriesRequest { page_size, ..everything() }).await;
        assert_eq!(names(&rows), expected, "pages of {page_size}");
    }
    let messages = streamed(&app).await;
    let rows: Vec<_> = messages.iter().flat_map(|message| message.repositories.clone()).collect();
    assert_eq!(names(&rows), expected);
    assert!(messages.iter().all(|message| message.unreachable.is_empty()));
    let seen: Vec<i64> = messages.iter().map(|message| message.progress.expect("progress").seen).collect();
    assert!(seen.is_sorted() && *seen.last().expect("messages") == expected.len() as i64, "{seen:?}");
}

#[tokio::test]
async fn a_connection_that_fails_is_named_and_the_others_are_listed() {
    let (forge, app) = started().await;
    let (gitlab, azure) = (gitlab(&forge), azure(&forge));
    let failing = app.create(gitlab.connection("failing")).await.expect("created").name;
    let working = app.create(azure.connection("working")).await.expect("created").name;
    let asleep = app.create(azure.asleep("asleep")).await.expect("created").name;
    (gitlab.revoke)(&forge);
    let expected = app.stream(&working).await.expect("a stream");
    let page = app
        .repositories()
        .list_repositories(v1::ListRepositoriesRequest { page_size: 100, ..everything() })
        .await
        .expect("a page")
        .into_inner();
    assert_eq!(names(&page.repositories), names(&expected));
    assert_eq!(page.unreachable, [failing.as_str()]);
    let told = |warnings: &[v1::RepositoryWarning]| -> BTreeSet<(String, String)> {
        let closed = |warning: &&v1::RepositoryWarning| warning.reason != "PROJECT_NOT_READABLE";
        warnings.iter().filter(closed).map(|w| (w.connection.clone(), w.reason.clone())).collect()
    };
    let reasons = BTreeSet::from([
        (failing.clone(), "CREDENTIAL_INVALID".to_owned()),
        (asleep, "CONNECTION_DISABLED".to_owned()),
    ]);
    assert_eq!(told(&page.warnings), reasons);
    let messages = streamed(&app).await;
    let unreachable: Vec<_> = messages.iter().flat_map(|message| message.unreachable.clone()).collect();
    assert_eq!(unreachable, [failing]);
    let warnings: Vec<_> = messages.iter().flat_map(|message| message.warnings.clone()).collect();
    assert_eq!(told(&warnings), reasons);
    assert_eq!(messages.iter().map(|message| message.repositories.len()).sum::<usize>(), expected.len());
}

#[tokio::test]
async fn a_slow_provider_holds_the_others_no_longer_than_its_share() {
    let (forge, app) = started().await;
    let (gitlab, azure) = (gitlab(&forge), azure(&forge));
    let mut slow = Vec::new();
    for display_name in ["one", "two"] {
        slow.push(app.create(gitlab.connection(display_name)).await.expect("created").name);
    }
    let working = app.create(azure.connection("working")).await.expect("created").name;
    let expected = app.stream(&working).await.expect("a stream");
    forge.fault_on(gitlab.path, Fault::Silent, usize::MAX);
    let begun = Instant::now();
    let (mut rows, mut unreachable, mut page_token) = (Vec::new(), BTreeSet::new(), String::new());
    loop {
        let mut request =
            Request::new(v1::ListRepositoriesRequest { page_size: 100, page_token, ..everything() });
        request.set_timeout(Duration::from_secs(4));
        let page = app.repositories().list_repositories(request).await.expect("a page").into_inner();
        rows.extend(page.repositories);
        unreachable.extend(page.unreachable);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names(&rows), names(&expected));
    assert_eq!(unreachable, slow.into_iter().collect());
    assert!(begun.elapsed() < Duration::from_secs(12), "each page ends before its deadline");
}

#[tokio::test]
async fn a_long_look_at_a_connection_that_answers_makes_it_not_unreachable() {
    let (forge, app) = started().await;
    let side = sides(&forge).into_iter().find(|side| side.provider == "gitea").expect("a side");
    for display_name in ["one", "two", "three"] {
        app.create(side.connection(display_name)).await.expect("created");
    }
    // Each look at all rows takes longer than one connection's share of the deadline, for no row passes the filter.
    forge.set_latency(Duration::from_millis(120));
    let (mut unreachable, mut page_token) = (Vec::new(), String::new());
    loop {
        let mut request = Request::new(v1::ListRepositoriesRequest {
            page_size: 2,
            namespace: "nobody".into(),
            page_token,
            ..everything()
        });
        request.set_timeout(Duration::from_secs(4));
        let page = app.repositories().list_repositories(request).await.expect("a page").into_inner();
        assert!(page.repositories.is_empty());
        unreachable.extend(page.unreachable);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(unreachable, Vec::<String>::new());
}

#[tokio::test]
async fn a_connection_that_goes_away_between_two_pages_is_left_out() {
    let (forge, app) = started().await;
    let side = &sides(&forge)[0];
    let mut connections = Vec::new();
    for display_name in ["one", "two"] {
        connections.push(app.create(side.connection(display_name)).await.expect("created").name);
    }
    connections.sort_unstable();
    let request = v1::ListRepositoriesRequest { page_size: 3, ..everything() };
    let page = app.repositories().list_repositories(request.clone()).await.expect("a page").into_inner();
    assert!(page.repositories.iter().all(|row| row.name.starts_with(&connections[0])));
    let delete = v1::DeleteConnectionRequest { name: connections[0].clone(), ..Default::default() };
    app.connections().delete_connection(delete).await.expect("deleted");
    let request = v1::ListRepositoriesRequest { page_token: page.next_page_token, ..request };
    let page = app.repositories().list_repositories(request).await.expect("a page").into_inner();
    assert!(page.unreachable.is_empty());
    assert_eq!(page.repositories.len(), 3);
    assert!(page.repositories.iter().all(|row| row.name.starts_with(&connections[1])));
}

#[tokio::test]
async fn the_token_of_one_parent_is_none_of_another() {
    let (forge, app) = started().await;
    let created = app.create(sides(&forge)[0].connection("x")).await.expect("created");
    let of = |parent: &str, page_token: &str| v1::ListRepositoriesRequest {
        parent: parent.into(),
        page_size: 2,
        page_token: page_token.into(),
        ..Default::default()
    };
    for (first, second) in [(ALL, created.name.as_str()), (created.name.as_str(), ALL)] {
        let page = app.repositories().list_repositories(of(first, "")).await.expect("a page").into_inner();
        assert!(!page.next_page_token.is_empty());
        let refusal = refused(app.repositories().list_repositories(of(second, &page.next_page_token)).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "PAGE_TOKEN_INVALID"));
    }
}

#[tokio::test]
async fn a_tenant_without_connections_lists_as_empty() {
    let (_forge, app) = started().await;
    let request =
        v1::ListRepositoriesRequest { parent: "tenants/nobody/connections/-".into(), ..Default::default() };
    let page = app.repositories().list_repositories(request).await.expect("a page").into_inner();
    assert_eq!(page, v1::ListRepositoriesResponse::default());
    assert!(streamed(&app).await.is_empty());
}
