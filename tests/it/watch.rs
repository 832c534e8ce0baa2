//! A watch without the wire, where time can be paused: heartbeats, slow readers, credentials that end.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use gitmoor::clock::Clock as _;
use gitmoor::domain::connection::ConnectionRecord;
use gitmoor::domain::event::{Event, EventType};
use gitmoor::domain::webhook_target::TargetPolicy;
use gitmoor::outbound::{Outbound, OutboundConfig};
use gitmoor::provider::Providers;
use gitmoor::provider::gateway::Gateway;
use gitmoor::seal::{KeyFile, KeyRing, ServiceSecret};
use gitmoor::service::connections::Connections;
use gitmoor::service::error::Error;
use gitmoor::service::housekeeping::Retention;
use gitmoor::service::usage::Usage;
use gitmoor::service::watch::{Kind, News, Notice, Watch};
use gitmoor::service::work::Work;
use gitmoor::service::{Context, Core};
use gitmoor::store::Change;
use tokio::time::Instant;

use crate::store::fixture::{chain, event, events, id, memory, record, tenant};
use crate::support::app::TestClock;

const DAY: Duration = Duration::from_secs(86_400);

/// The service over a store in memory, without the wire.
struct Bench {
    core: Arc<Core>,
    clock: Arc<TestClock>,
}

type Notices = Pin<Box<dyn Stream<Item = Result<Notice, Error>> + Send>>;

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        KeyFile::create(&path, gitmoor::clock::SystemClock.now()).expect("a key file");
        let clock = TestClock::now();
        let outbound = Outbound::new(OutboundConfig::default()).expect("a way out");
        let core = Core {
            store: Arc::new(memory()),
            keys: KeyRing::load(&path).expect("a key ring"),
            secret: ServiceSecret::generate().expect("a secret"),
            gateway: Gateway::new(Providers::builtin(), outbound),
            targets: TargetPolicy::default(),
            clock: clock.clone(),
            usage: Usage::default(),
            work: Work::default(),
        };
        core.store.chain_with(chain());
        Self { core: Arc::new(core), clock }
    }

    async fn watch(&self, resume_token: &str, include_initial: bool) -> Result<Notices, Error> {
        let context = Context {
            actor: "anonymous".to_owned(),
            request_id: "request".to_owned(),
            deadline: Instant::now() + Duration::from_secs(60),
            stream_deadline: None,
        };
        let watch = Watch { tenant: tenant("acme"), resume_token: resume_token.to_owned(), include_initial };
        Ok(Box::pin(Connections::new(self.core.clone()).watch(&context, watch).await?))
    }

    async fn append(&self, events: impl IntoIterator<Item = Event>) {
        self.core.store.commit(events.into_iter().map(Change::Append).collect()).await.expect("appended");
    }

    async fn insert(&self, connection: &str, change: impl FnOnce(&mut ConnectionRecord)) {
        let mut record = record("acme", connection, connection);
        change(&mut record);
        let created = event("acme", connection);
        let changes = vec![Change::Insert(Box::new(record)), Change::Append(created)];
        self.core.store.commit(changes).await.expect("inserted");
    }
}

fn updated(connection: &str) -> Event {
    Event { event_type: EventType::ConnectionUpdated, ..event("acme", connection) }
}

async fn next(notices: &mut Notices) -> Result<Notice, Error> {
    notices.next().await.expect("a watch has no end of its own")
}

/// The kind of a notice and the connection that it is about.
fn told(notice: &Notice) -> (&'static str, String) {
    match &notice.news {
        News::Connection(kind, shown) => {
            let kind = match kind {
                Kind::Added => "added",
                Kind::Modified => "modified",
                Kind::StateChanged => "state changed",
                Kind::CredentialExpiring => "credential expiring",
            };
            (kind, shown.connection.name.id.to_string())
        }
        News::Deleted(gone) => ("deleted", gone.name.id.to_string()),
        News::InitialDone => ("initial done", String::new()),
        News::Heartbeat => ("heartbeat", String::new()),
    }
}

#[tokio::test(start_paused = true)]
async fn after_15_seconds_of_silence_comes_a_heartbeat_with_a_fresh_token() {
    let bench = Bench::new();
    bench.insert("one", |_| {}).await;
    let mut notices = bench.watch("", false).await.expect("a watch");
    let greeting = next(&mut notices).await.expect("a notice");
    assert_eq!(told(&greeting).0, "heartbeat", "the first one comes at once, for its token");
    let begun = Instant::now();
    // What is for nobody who watches connections does not count as news, but as progress.
    let read = Event { event_type: EventType::WebhookSecretRead, ..event("acme", "one") };
    bench.append([read]).await;
    let mut tokens = vec![greeting.resume_token];
    for beat in 1..=3 {
        let notice = next(&mut notices).await.expect("a notice");
        assert_eq!(told(&notice).0, "heartbeat");
        assert_eq!(begun.elapsed().as_secs(), 15 * beat);
        tokens.push(notice.resume_token);
    }
    assert!(tokens[0] != tokens[1] && tokens[1] == tokens[2], "{tokens:?}");
    bench.append([updated("one")]).await;
    assert_eq!(told(&next(&mut notices).await.expect("a notice")), ("modified", "one".to_owned()));
    assert_eq!(begun.elapsed().as_secs(), 45, "news are told at once");
    let silent = Instant::now();
    assert_eq!(told(&next(&mut notices).await.expect("a notice")).0, "heartbeat");
    assert_eq!(silent.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_pauses_for_a_minute_is_told_to_resume() {
    let bench = Bench::new();
    bench.insert("one", |_| {}).await;
    let mut notices = bench.watch("", true).await.expect("a watch");
    assert_eq!(told(&next(&mut notices).await.expect("a notice")).0, "added");
    // Slow, and still fast enough.
    tokio::time::advance(Duration::from_secs(59)).await;
    let done = next(&mut notices).await.expect("a notice");
    assert_eq!(told(&done).0, "initial done");
    bench.append([updated("one")]).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    let Err(Error::WatcherTooSlow { resume_token }) = next(&mut notices).await else { panic!("too slow") };
    assert_eq!(resume_token, done.resume_token, "behind the last message");
    assert!(notices.next().await.is_none(), "and nothing comes any more");
    let mut notices = bench.watch(&resume_token, false).await.expect("a watch");
    assert_eq!(told(&next(&mut notices).await.expect("a notice")), ("modified", "one".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_always_late_still_gets_on() {
    let bench = Bench::new();
    for connection in ["a", "b", "c"] {
        bench.insert(connection, |_| {}).await;
    }
    let mut notices = bench.watch("", true).await.expect("a watch");
    let mut seen = Vec::new();
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(30)).await;
        seen.push(told(&next(&mut notices).await.expect("a notice")).0);
    }
    assert_eq!(seen, ["added", "added", "added", "initial done"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_falls_behind_by_10_000_events_is_told_to_resume_and_may() {
    let bench = Bench::new();
    bench.insert("one", |_| {}).await;
    let mut notices = bench.watch("", true).await.expect("a watch");
    assert_eq!(told(&next(&mut notices).await.expect("a notice")).0, "added");
    let done = next(&mut notices).await.expect("a notice");
    assert_eq!(told(&done).0, "initial done");
    bench.append((0..10_000).map(|_| updated("one"))).await;
    let first = next(&mut notices).await.expect("10,000 are not too many");
    assert_eq!(told(&first).0, "modified");
    bench.append((0..40).map(|_| updated("one"))).await;
    let slow = loop {
        match next(&mut notices).await {
            Ok(notice) => assert_eq!(told(&notice).0, "modified"),
            Err(Error::WatcherTooSlow { resume_token }) => break resume_token,
            Err(other) => panic!("{other}"),
        }
    };
    // Who comes back for all of them is not behind: that is where it begins.
    let mut notices = bench.watch(&slow, false).await.expect("a watch");
    for _ in 0..2_000 {
        assert_eq!(told(&next(&mut notices).await.expect("a notice")).0, "modified");
    }
    let mut notices = bench.watch(&done.resume_token, false).await.expect("a watch");
    for _ in 0..10_040 {
        assert_eq!(told(&next(&mut notices).await.expect("a notice")).0, "modified");
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_during_the_initial_state_is_told_after_it() {
    let bench = Bench::new();
    for connection in ["b", "d"] {
        bench.insert(connection, |_| {}).await;
    }
    let mut notices = bench.watch("", true).await.expect("a watch");
    let mut seen = vec![told(&next(&mut notices).await.expect("a notice"))];
    // Before and behind the place where the listing is.
    for connection in ["a", "c"] {
        bench.insert(connection, |_| {}).await;
    }
    for _ in 0..5 {
        seen.push(told(&next(&mut notices).await.expect("a notice")));
    }
    let names: Vec<_> = seen.iter().map(|(kind, name)| format!("{kind} {name}")).collect();
    assert_eq!(names, ["added b", "added c", "added d", "initial done ", "added a", "added c"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_about_two_connections_can_be_resumed_between_them() {
    let bench = Bench::new();
    for connection in ["a", "b"] {
        bench.insert(connection, |_| {}).await;
    }
    let mut notices = bench.watch("", false).await.expect("a watch");
    next(&mut notices).await.expect("the greeting");
    let switched = Event {
        event_type: EventType::ConnectionSwitched,
        connections: vec![id("a"), id("b")],
        ..event("acme", "a")
    };
    bench.append([switched]).await;
    let first = next(&mut notices).await.expect("a notice");
    let second = next(&mut notices).await.expect("a notice");
    assert_eq!((told(&first).1, told(&second).1), ("a".to_owned(), "b".to_owned()));
    let mut again = bench.watch(&first.resume_token, false).await.expect("a watch");
    assert_eq!(told(&next(&mut again).await.expect("a notice")).1, "a", "at least once");
    assert_eq!(told(&next(&mut again).await.expect("a notice")).1, "b");
    let mut again = bench.watch(&second.resume_token, false).await.expect("a watch");
    assert_eq!(told(&next(&mut again).await.expect("a notice")).0, "heartbeat");
}

#[tokio::test(start_paused = true)]
async fn many_links_in_a_row_are_told_together() {
    let bench = Bench::new();
    bench.insert("a", |_| {}).await;
    let mut notices = bench.watch("", false).await.expect("a watch");
    next(&mut notices).await.expect("the greeting");
    let linked = || Event { event_type: EventType::RepositoryLinked, ..event("acme", "a") };
    bench.append((0..20).map(|_| linked())).await;
    assert_eq!(told(&next(&mut notices).await.expect("a notice")), ("modified", "a".to_owned()));
    assert_eq!(told(&next(&mut notices).await.expect("a notice")).0, "heartbeat");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_gone_ends_a_watch_instead_of_being_passed_over() {
    let bench = Bench::new();
    bench.insert("one", |_| {}).await;
    let mut notices = bench.watch("", true).await.expect("a watch");
    let added = next(&mut notices).await.expect("a notice");
    let done = next(&mut notices).await.expect("a notice");
    bench.append([updated("one"), updated("one")]).await;
    let later = bench.clock.now();
    assert_eq!(bench.core.store.forget_events(&tenant("acme"), later).await.expect("forgotten"), 3);
    assert!(matches!(next(&mut notices).await, Err(Error::ResumeTokenExpired)));
    for token in [added.resume_token, done.resume_token] {
        assert!(matches!(bench.watch(&token, false).await.err(), Some(Error::ResumeTokenExpired)));
    }
    let mut notices = bench.watch("", true).await.expect("a start again");
    assert_eq!(told(&next(&mut notices).await.expect("a notice")).0, "added");
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_ends_within_14_days_is_told_once_for_each_version() {
    let bench = Bench::new();
    let end = |bench: &Bench, days: u32| Some(bench.clock.now().saturating_add(DAY * days));
    bench.insert("soon", |record| record.connection.credential.expire_time = end(&bench, 20)).await;
    bench.insert("late", |record| record.connection.credential.expire_time = end(&bench, 200)).await;
    bench.insert("never", |record| record.connection.credential.expire_time = None).await;
    let mut notices = bench.watch("", false).await.expect("a watch");
    next(&mut notices).await.expect("the greeting");

    let core = bench.core.clone();
    let keep = Retention { events: DAY * 400, requests: DAY };
    let house = tokio::spawn(async move { core.keep_house(keep).await });
    let told_of = async || {
        // Rounds come by the hour.
        tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
        let all = events(&*bench.core.store, "acme", 0, 100).await.into_iter().map(|(_, event)| event);
        all.filter(|event| event.event_type == EventType::CredentialExpiring).collect::<Vec<_>>()
    };
    assert_eq!(told_of().await, []);
    bench.clock.advance(DAY * 7);
    let [only] = told_of().await.try_into().expect("one event");
    assert_eq!((only.resource.as_str(), only.actor.as_str()), ("tenants/acme/connections/soon", "system"));
    assert_eq!(only.after["credential.version"], "1");
    assert_eq!(told_of().await.len(), 1, "once");
    bench.clock.advance(DAY * 7);
    assert_eq!(told_of().await.len(), 1, "also when the end comes nearer");

    // Another credential is another matter.
    let name = record("acme", "soon", "soon").connection.name;
    let mut next_one = Arc::unwrap_or_clone(bench.core.store.connection(&name).await.expect("it"));
    let expected = next_one.revision;
    next_one.revision.0 += 1;
    next_one.connection.credential.version = 2;
    next_one.connection.credential.expiry_told = false;
    next_one.connection.credential.expire_time = end(&bench, 3);
    let change = Change::Replace { record: Box::new(next_one), expected };
    bench.core.store.commit(vec![change]).await.expect("replaced");
    assert_eq!(told_of().await.len(), 2);
    house.abort();

    // The watcher slept too long to go on, and finds both behind its token.
    let Err(Error::WatcherTooSlow { resume_token }) = next(&mut notices).await else { panic!("too slow") };
    let mut notices = bench.watch(&resume_token, false).await.expect("a watch");
    for _ in 0..2 {
        let notice = next(&mut notices).await.expect("a notice");
        assert_eq!(told(&notice), ("credential expiring", "soon".to_owned()));
    }
}
