//! WatchConnections over the wire: initial state, changes, tokens, tenants, the end.

use std::sync::Arc;
use std::time::Duration;

use gitmoor::clock::Clock as _;
use gitmoor::proto::v1;
use gitmoor::proto::v1::connection::State;
use gitmoor::proto::v1::watch_connections_response::Type;
use gitmoor::seal::{KeyFile, KeyRing};
use gitmoor::store::sled::{DEFAULT_CACHE_BYTES, SledConfig, SledStore};
use tonic::{Code, Status, Streaming};

use super::fixture::{gitlab, sides, started};
use crate::support::app::{Refused, Running, TestApp, refused};
use crate::support::forge::Forge;

/// Longer than any message takes that is to come.
const PATIENCE: Duration = Duration::from_secs(60);

struct Watching(Streaming<v1::WatchConnectionsResponse>);

impl Running {
    async fn try_watch(&self, tenant: &str, resume_token: &str, initial: bool) -> Result<Watching, Status> {
        let request = v1::WatchConnectionsRequest {
            parent: format!("tenants/{tenant}"),
            resume_token: resume_token.to_owned(),
            include_initial: initial,
        };
        self.connections().watch_connections(request).await.map(|answer| Watching(answer.into_inner()))
    }

    /// All connections of the tenant `default` first.
    async fn watch(&self) -> Watching {
        self.try_watch("default", "", true).await.expect("a watch")
    }

    /// Behind a message.
    async fn resume(&self, message: &v1::WatchConnectionsResponse) -> Watching {
        self.try_watch("default", &message.resume_token, false).await.expect("a watch")
    }
}

impl Watching {
    async fn message(&mut self) -> Result<v1::WatchConnectionsResponse, Status> {
        let message = tokio::time::timeout(PATIENCE, self.0.message()).await.expect("a message in time")?;
        Ok(message.expect("a watch has no end of its own"))
    }

    /// The next message that tells something.
    async fn next(&mut self) -> v1::WatchConnectionsResponse {
        loop {
            let message = self.message().await.expect("a message");
            assert!(!message.resume_token.is_empty() && message.event_time.is_some(), "{message:?}");
            if message.r#type() != Type::Heartbeat {
                return message;
            }
        }
    }

    async fn take(&mut self, count: usize) -> Vec<v1::WatchConnectionsResponse> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.push(self.next().await);
        }
        messages
    }
}

fn it(message: &v1::WatchConnectionsResponse) -> &v1::Connection {
    message.connection.as_ref().expect("a connection")
}

/// What a message tells, and of which connection.
fn told(message: &v1::WatchConnectionsResponse) -> (Type, String) {
    (message.r#type(), message.connection.as_ref().map(|it| it.name.clone()).unwrap_or_default())
}

#[tokio::test]
async fn a_watch_tells_all_connections_and_then_each_change() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        app.create(side.connection("before")).await.expect("created");
    }
    let mut watching = app.watch().await;
    let all = app.list("default").await;
    let mut seen = Vec::new();
    for _ in &all {
        let message = watching.next().await;
        assert_eq!(message.r#type(), Type::Added);
        seen.push(it(&message).clone());
    }
    let mut sorted = all.clone();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(seen, sorted, "what is told is what a listing shows");
    assert_eq!(told(&watching.next().await), (Type::InitialDone, String::new()));

    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let name = created.name.clone();
        let message = watching.next().await;
        assert_eq!(told(&message), (Type::Added, name.clone()));
        assert_eq!(*it(&message), created);

        let edited = v1::Connection { owner: "team".into(), ..created.clone() };
        let updated = app.update(edited, &["owner"]).await.expect("updated");
        let message = watching.next().await;
        assert_eq!(told(&message), (Type::Modified, name.clone()));
        assert_eq!(*it(&message), updated);

        app.replace(v1::ReplaceCredentialRequest {
            name: name.clone(),
            credential: Some(side.credential(side.second)),
            allow_account_change: true,
            ..Default::default()
        })
        .await
        .expect("replaced");
        let message = watching.next().await;
        assert_eq!(told(&message), (Type::Modified, name.clone()));
        assert_eq!(it(&message).credential_info.as_ref().expect("info").version, 2);

        app.delete(&name).await.expect("deleted");
        let message = watching.next().await;
        assert_eq!(told(&message), (Type::Deleted, name));
        let gone = it(&message);
        assert_eq!((&gone.uid, &gone.display_name), (&created.uid, &created.display_name));
        assert_eq!((&gone.provider, &gone.base_url), (&created.provider, &created.base_url));
        assert_eq!(
            (gone.effective_api_url.as_str(), gone.owner.as_str()),
            (&*created.effective_api_url, "team")
        );
        let text = format!("{seen:?} {message:?}");
        assert!(!text.contains(side.good) && !text.contains(side.second));
    }
}

#[tokio::test]
async fn a_verification_that_changes_the_state_is_told() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let created = app.create(side.connection("x")).await.expect("created");
    let mut watching = app.watch().await;
    watching.take(2).await;
    app.verify(&created.name).await.expect("a report");
    (side.revoke)(&forge);
    app.verify(&created.name).await.expect("a report");
    let message = watching.next().await;
    assert_eq!(told(&message), (Type::StateChanged, created.name), "the first one changed nothing");
    assert_eq!(it(&message).state(), State::AuthFailed);
}

#[tokio::test]
async fn without_the_initial_state_a_watch_begins_now_with_a_token() {
    let (forge, app) = started().await;
    app.create(gitlab(&forge).connection("before")).await.expect("created");
    let mut watching = app.try_watch("default", "", false).await.expect("a watch");
    // As soon as there is a stream, nothing is missed.
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    let greeting = watching.message().await.expect("a message");
    assert_eq!(told(&greeting), (Type::Heartbeat, String::new()));
    assert_eq!(told(&watching.next().await), (Type::Added, created.name.clone()));
    assert_eq!(told(&app.resume(&greeting).await.next().await), (Type::Added, created.name));
}

#[tokio::test]
async fn a_watch_goes_on_behind_any_message_and_over_a_restart() {
    let forge = Forge::small().await.expect("a forge");
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    KeyFile::create(&keys, gitmoor::clock::SystemClock.now()).expect("a key file");
    let data = folder.path().join("data");
    let start = || {
        let keys = KeyRing::load(&keys).expect("a key ring");
        let config = SledConfig { path: data.clone(), cache_bytes: DEFAULT_CACHE_BYTES };
        let store = SledStore::open(&config).expect("a store");
        TestApp::new().allow(forge.origin()).keys(keys).store(Arc::new(store)).start()
    };
    let app = start().await;
    for name in ["one", "two", "three"] {
        app.create(gitlab(&forge).connection(name)).await.expect("created");
    }
    let mut watching = app.watch().await;
    let mut messages = watching.take(4).await;
    for connection in app.list("default").await {
        app.update(v1::Connection { owner: "team".into(), ..connection }, &["owner"]).await.expect("updated");
    }
    messages.extend(watching.take(3).await);
    let all: Vec<_> = messages.iter().map(told).collect();
    for (at, message) in messages.iter().enumerate().take(messages.len() - 1) {
        let rest = app.resume(message).await.take(messages.len() - 1 - at).await;
        assert_eq!(rest.iter().map(told).collect::<Vec<_>>(), all[at + 1..], "behind message {at}");
    }
    drop(watching);
    app.stop().await.expect("a clean stop");

    let app = start().await;
    let mut watching = app.resume(&messages[6]).await;
    let created = app.create(gitlab(&forge).connection("four")).await.expect("created");
    assert_eq!(told(&watching.next().await), (Type::Added, created.name.clone()));
    let rest = app.resume(&messages[1]).await.take(6).await;
    let mut wanted = all[2..].to_vec();
    wanted.push((Type::Added, created.name));
    // The initial state goes on where it was, and finds what came since.
    let added = |messages: &[(Type, String)]| {
        let names = messages.iter().filter(|(kind, _)| *kind == Type::Added).map(|(_, name)| name.clone());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let rest: Vec<_> = rest.iter().map(told).collect();
    assert_eq!(added(&rest), added(&wanted));
}

#[tokio::test]
async fn a_token_that_is_not_ours_or_too_old_is_refused() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    let mut watching = app.watch().await;
    let added = watching.next().await;
    let mut damaged = added.resume_token.clone().into_bytes();
    damaged[3] ^= 1;
    let damaged = String::from_utf8(damaged).expect("text");
    let page =
        v1::ListConnectionsRequest { parent: "tenants/default".into(), page_size: 1, ..Default::default() };
    app.create(gitlab(&forge).connection("y")).await.expect("created");
    let page = app.connections().list_connections(page).await.expect("a page").into_inner().next_page_token;
    for (tenant, token) in [
        ("default", "x"),
        ("default", damaged.as_str()),
        ("default", page.as_str()),
        ("other", added.resume_token.as_str()),
    ] {
        let refusal = Refused::from(&app.try_watch(tenant, token, false).await.err().expect("refused"));
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
        assert_eq!(refusal.violations, [("resume_token".to_owned(), "MALFORMED".to_owned())]);
    }

    // What the token is behind is no longer kept.
    app.delete(&created.name).await.expect("deleted");
    let tenant = gitmoor::domain::connection::TenantId::parse("default").expect("a tenant");
    let later = gitmoor::domain::timestamp::Timestamp::from_unix_seconds(4_102_444_800);
    app.store.forget_events(&tenant, later).await.expect("forgotten");
    let outcome = app.try_watch("default", &added.resume_token, false).await;
    let refusal = Refused::from(&outcome.err().expect("refused"));
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::OutOfRange, "RESUME_TOKEN_EXPIRED"));
}

#[tokio::test]
async fn ac_35_a_watch_tells_of_its_own_tenant_alone() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    app.create_in("a", side.connection("x")).await.expect("created");
    let mut watching = app.try_watch("a", "", true).await.expect("a watch");
    let mut stranger = app.try_watch("b", "", true).await.expect("a watch");
    watching.take(2).await;
    assert_eq!(told(&stranger.next().await), (Type::InitialDone, String::new()));
    let other = app.create_in("b", side.connection("x")).await.expect("created");
    app.delete(&other.name).await.expect("deleted");
    let mine = app.create_in("a", side.connection("y")).await.expect("created");
    assert_eq!(told(&watching.next().await), (Type::Added, mine.name), "nothing of the other tenant before");
    let deleted = loop {
        // The first change may be told before the second is made, or not at all.
        let message = stranger.next().await;
        assert_eq!(it(&message).name, other.name);
        if message.r#type() == Type::Deleted {
            break message;
        }
    };
    assert_eq!(it(&deleted).display_name, "x");
    let refusal = refused(app.try_watch("-", "", true).await.map(|_| ()));
    assert_eq!(refusal.violations, [("parent".to_owned(), "MALFORMED".to_owned())]);
}

#[tokio::test]
async fn linked_repositories_change_what_a_watcher_sees() {
    let (forge, app) = started().await;
    let (connection, repositories) = app.with_repositories(&gitlab(&forge), "x", 1).await;
    let mut watching = app.watch().await;
    watching.take(2).await;
    app.link(&repositories[0]).await.expect("linked");
    let message = watching.next().await;
    assert_eq!(told(&message), (Type::Modified, connection.name));
    assert_eq!(it(&message).linked_repository_count, 1);
}

#[tokio::test]
async fn the_drain_ends_a_watch_with_a_word() {
    let (forge, app) = started().await;
    app.create(gitlab(&forge).connection("x")).await.expect("created");
    let mut watching = app.watch().await;
    watching.take(2).await;
    let stopping = tokio::spawn(app.stop());
    let status = loop {
        match watching.message().await {
            Ok(message) => assert_eq!(message.r#type(), Type::Heartbeat),
            Err(status) => break status,
        }
    };
    let refusal = Refused::from(&status);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "SERVER_DRAINING"));
    stopping.await.expect("no panic").expect("a clean stop");
}

#[tokio::test]
async fn a_watch_is_one_of_the_calls_under_way_and_leaves_when_it_is_dropped() {
    let app = TestApp::new().max_calls(2).start().await;
    let one = app.watch().await;
    let two = app.watch().await;
    let refusal = Refused::from(&app.try_watch("default", "", true).await.err().expect("refused"));
    assert_eq!(refusal.reason, "SERVER_OVERLOADED");
    drop((one, two));
    // The server hears of it a moment later.
    let mut left = 1_000;
    while app.try_watch("default", "", true).await.is_err() {
        left -= 1;
        assert!(left > 0, "the places never came free");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_slow_reader_is_told_how_to_go_on() {
    let error = gitmoor::service::error::Error::WatcherTooSlow { resume_token: "abc".to_owned() };
    let refusal = Refused::from(&gitmoor::grpc::status::of(error));
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::OutOfRange, "WATCHER_TOO_SLOW"));
    assert_eq!(refusal.metadata["resumeToken"], "abc");
}
