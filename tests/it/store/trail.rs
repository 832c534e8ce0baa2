//! The audit trail: what every store promises of it (`all`), and that nobody can touch a row without its key.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use gitmoor::domain::event::{Event, EventType};
use gitmoor::domain::timestamp::Timestamp;
use gitmoor::store::memory::MemoryStore;
use gitmoor::store::sled::SledStore;
use gitmoor::store::{Change, RecordProblem, Store, StoreError, TrailFault, TrailProblem, TrailsReport};
use prost::Message;

use super::Fresh;
use super::damage::raw_sled;
use super::fixture::{chain, config, created, event, events, id, open, tenant};

/// The promises about trails.
pub(super) async fn all<F: Future<Output = Fresh>>(factory: &impl Fn() -> F) {
    macro_rules! run {
        ($($case:ident),+ $(,)?) => {
            $({
                println!("{}", stringify!($case));
                let fresh = factory().await;
                $case(&fresh.store).await;
            })+
        };
    }
    run!(
        a_chain_holds,
        a_trail_of_one_connection,
        tenants_are_listed_in_order,
        old_events_are_forgotten_and_the_rest_is_proven,
        a_trail_may_become_empty_and_goes_on,
        those_who_wait_are_woken,
    );
}

async fn append(store: &Arc<dyn Store>, event: Event) {
    store.commit(vec![Change::Append(event)]).await.expect("appended");
}

fn at(seconds: i64, of: &str, connection: &str) -> Event {
    Event { time: Timestamp::from_unix_seconds(seconds), ..event(of, connection) }
}

/// What is found of one tenant's trail: the number of events, how many are older than the chain, where it begins,
/// and what is wrong with it.
async fn checked(store: &dyn Store, of: &str) -> (u64, u64, u64, Option<TrailProblem>) {
    let report = store.check_trails().await.expect("checked");
    assert_eq!(report.problem, None);
    let trail = report.tenants.into_iter().find(|trail| trail.tenant == tenant(of)).expect("a trail");
    (trail.events, trail.unchained, trail.first, trail.problem)
}

async fn a_chain_holds(store: &Arc<dyn Store>) {
    let empty = TrailsReport { tenants: Vec::new(), problem: None };
    assert_eq!(store.check_trails().await.expect("checked"), empty);
    for at in 0..3 {
        append(store, event("acme", &format!("a{at}"))).await;
        append(store, event("other", "c")).await;
    }
    let several = (0..4).map(|at| Change::Append(event("acme", &format!("b{at}")))).collect();
    store.commit(several).await.expect("appended");
    assert_eq!(checked(&**store, "acme").await, (7, 0, 1, None));
    assert_eq!(checked(&**store, "other").await, (3, 0, 1, None));
    let entries = store.events(&tenant("acme"), None, 0, 10).await.expect("listed");
    let mut hashes: Vec<_> = entries.into_iter().map(|row| row.expect("readable").hash).collect();
    assert!(hashes.iter().all(|hash| hash.len() == 32));
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 7, "equal events do not have equal hashes");
}

async fn a_trail_of_one_connection(store: &Arc<dyn Store>) {
    for at in 0..30 {
        let mut one = event("acme", &format!("c{}", at % 3));
        if at == 15 {
            one.event_type = EventType::ConnectionSwitched;
            one.resource = "tenants/acme/repositoryLinks/web".to_owned();
            one.connections = vec![id("c0"), id("c1")];
        }
        append(store, one).await;
    }
    // The beginning of an id is not the id.
    append(store, event("acme", "c")).await;
    append(store, event("acme", "c01")).await;
    let trail = async |connection: &str, after, limit| {
        let listed =
            store.events(&tenant("acme"), Some(&id(connection)), after, limit).await.expect("listed");
        listed.into_iter().map(|row| row.expect("readable").sequence).collect::<Vec<_>>()
    };
    let every_third = |from: u64| (from..=30).step_by(3).collect::<Vec<_>>();
    assert_eq!(trail("c0", 0, 100).await, every_third(1));
    let mut second = every_third(2);
    second.push(16);
    second.sort_unstable();
    assert_eq!(trail("c1", 0, 100).await, second, "what is about two shows with both");
    assert_eq!(trail("c0", 7, 3).await, [10, 13, 16]);
    assert_eq!(trail("c", 0, 3).await, [31]);
    assert!(trail("never", 0, 3).await.is_empty() && trail("c0", 0, 0).await.is_empty());
}

async fn tenants_are_listed_in_order(store: &Arc<dyn Store>) {
    for tenant in ["b", "a", "a-b", "c"] {
        append(store, event(tenant, "one")).await;
    }
    let listed = async |after: Option<&str>, limit| {
        let found = store.tenants(after.map(tenant).as_ref(), limit).await.expect("listed");
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(listed(None, 10).await, ["a", "a-b", "b", "c"]);
    assert_eq!(listed(Some("a"), 2).await, ["a-b", "b"]);
    assert!(listed(Some("c"), 2).await.is_empty() && listed(None, 0).await.is_empty());
}

async fn old_events_are_forgotten_and_the_rest_is_proven(store: &Arc<dyn Store>) {
    for time in 1..=10 {
        append(store, at(time, "acme", &format!("c{}", time % 2))).await;
        append(store, at(time, "other", "c")).await;
    }
    let before = Timestamp::from_unix_seconds(5);
    assert_eq!(store.forget_events(&tenant("acme"), before).await.expect("forgotten"), 4);
    assert_eq!(store.forget_events(&tenant("acme"), before).await.expect("forgotten"), 0);
    assert_eq!(store.forget_events(&tenant("nobody"), before).await.expect("forgotten"), 0);
    assert_eq!(checked(&**store, "acme").await, (6, 0, 5, None));
    assert_eq!(checked(&**store, "other").await, (10, 0, 1, None), "of one tenant alone");
    let left: Vec<_> = events(&**store, "acme", 0, 100).await.into_iter().map(|(at, _)| at).collect();
    assert_eq!(left, [5, 6, 7, 8, 9, 10]);
    let trail = store.events(&tenant("acme"), Some(&id("c0")), 0, 100).await.expect("listed");
    assert_eq!(trail.into_iter().map(|row| row.expect("readable").sequence).collect::<Vec<_>>(), [6, 8, 10]);
    append(store, at(11, "acme", "c0")).await;
    assert_eq!(checked(&**store, "acme").await, (7, 0, 5, None));
}

async fn a_trail_may_become_empty_and_goes_on(store: &Arc<dyn Store>) {
    append(store, at(1, "acme", "c")).await;
    append(store, at(2, "acme", "c")).await;
    let later = Timestamp::from_unix_seconds(100);
    assert_eq!(store.forget_events(&tenant("acme"), later).await.expect("forgotten"), 2);
    assert!(events(&**store, "acme", 0, 100).await.is_empty());
    assert_eq!(checked(&**store, "acme").await, (0, 0, 3, None));
    append(store, at(101, "acme", "c")).await;
    assert_eq!(events(&**store, "acme", 0, 100).await[0].0, 3, "no number is given out twice");
    assert_eq!(checked(&**store, "acme").await, (1, 0, 3, None));
}

async fn those_who_wait_are_woken(store: &Arc<dyn Store>) {
    let mut acme = store.appended(&tenant("acme"));
    let mut twice = store.appended(&tenant("acme"));
    let other = store.appended(&tenant("other"));
    append(store, event("acme", "one")).await;
    acme.changed().await.expect("woken");
    twice.changed().await.expect("both are");
    assert_eq!(events(&**store, "acme", 0, 10).await.len(), 1, "and what happened can be read");
    assert!(!other.has_changed().expect("alive"), "another tenant is another bell");
    store.commit(created("acme", "one", "One", "request")).await.expect("created");
    assert!(acme.has_changed().expect("alive"));
}

#[tokio::test]
async fn nothing_is_appended_without_the_key() {
    let store = MemoryStore::new();
    let refused = store.commit(vec![Change::Append(event("acme", "one"))]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert!(matches!(store.check_trails().await, Err(StoreError::Unavailable { .. })));
}

#[tokio::test]
async fn more_events_than_one_round_are_forgotten_and_survive_a_restart_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    for hundred in 0..25 {
        let some = (0..100).map(|more| Change::Append(at(hundred * 100 + more, "acme", "c"))).collect();
        store.commit(some).await.expect("appended");
    }
    let before = Timestamp::from_unix_seconds(2_300);
    assert_eq!(store.forget_events(&tenant("acme"), before).await.expect("forgotten"), 2_300);
    store.close().await;
    drop(store);
    let store = open(directory.path());
    assert_eq!(checked(&store, "acme").await, (200, 0, 2_301, None));
    let all = Timestamp::from_unix_seconds(i64::MAX / 1_000_000);
    assert_eq!(store.forget_events(&tenant("acme"), all).await.expect("forgotten"), 200);
    drop(store);
    assert_eq!(checked(&open(directory.path()), "acme").await, (0, 0, 2_501, None));
}

// ---------------------------------------------------------------- T22: rows that somebody touched

/// An event and its hash as they stand in a row.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Chained {
    #[prost(bytes = "vec", tag = "101")]
    pub(crate) event: Vec<u8>,
    #[prost(bytes = "vec", tag = "102")]
    hash: Vec<u8>,
}

/// The head of a trail.
#[derive(Clone, PartialEq, Eq, Message)]
struct Head {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(bytes = "vec", tag = "2")]
    before: Vec<u8>,
    #[prost(uint64, tag = "3")]
    chained: u64,
    #[prost(uint64, tag = "4")]
    last: u64,
    #[prost(bytes = "vec", tag = "5")]
    hash: Vec<u8>,
    #[prost(uint64, tag = "6")]
    broken: u64,
    #[prost(bytes = "vec", tag = "7")]
    mac: Vec<u8>,
}

/// What of a tenant's row these tests change.
#[derive(Clone, PartialEq, Eq, Message)]
struct Tenant {
    #[prost(uint64, tag = "4")]
    last_event: u64,
}

const HEAD: &[u8] = b"aacme";
const TENANT: &[u8] = b"sacme";

/// Rows as somebody sees them who has the files and not the key.
pub(crate) struct Raw(pub(crate) sled::Db);

impl Raw {
    pub(crate) fn key(sequence: u64) -> Vec<u8> {
        [b"eacme\0".as_slice(), &sequence.to_be_bytes()].concat()
    }

    pub(crate) fn read<M: Message + Default>(&self, key: &[u8]) -> M {
        let bytes = self.0.get(key).expect("readable").expect("a row");
        M::decode(&bytes[1..bytes.len() - 4]).expect("a message")
    }

    /// Writes a row whose checksum is right.
    pub(crate) fn write(&self, key: &[u8], message: &impl Message) {
        self.write_as(2, key, &message.encode_to_vec());
    }

    pub(crate) fn write_as(&self, version: u8, key: &[u8], message: &[u8]) {
        let mut row = [&[version], message].concat();
        let checksum = crc32fast::hash(&[key, &row].concat());
        row.extend_from_slice(&checksum.to_le_bytes());
        self.0.insert(key, row).expect("written");
    }

    pub(crate) fn event(&self, sequence: u64) -> Chained {
        self.read(&Self::key(sequence))
    }

    pub(crate) fn remove(&self, sequence: u64) {
        self.0.remove(Self::key(sequence)).expect("removed").expect("it was there");
    }

    fn head(&self, change: impl FnOnce(&mut Head)) {
        let mut head = self.read(HEAD);
        change(&mut head);
        self.write(HEAD, &head);
    }
}

/// Ten events, then `touch`; what the check finds.
async fn touched(touch: impl FnOnce(&Raw)) -> TrailsReport {
    let directory = tempfile::tempdir().expect("a directory");
    ten(directory.path()).await;
    let raw = Raw(raw_sled(directory.path()));
    touch(&raw);
    drop(raw);
    check(directory.path()).await
}

async fn ten(path: &Path) {
    let store = open(path);
    for at in 1..=10 {
        store.commit(vec![Change::Append(event("acme", &format!("c{at}")))]).await.expect("appended");
    }
    assert_eq!(checked(&store, "acme").await, (10, 0, 1, None));
    store.close().await;
}

async fn check(path: &Path) -> TrailsReport {
    let store = SledStore::open_to_check(&config(path)).expect("opens");
    store.chain_with(chain());
    store.check_trails().await.expect("checked")
}

fn first_fault(report: TrailsReport) -> (u64, TrailFault) {
    assert_eq!(report.problem, None);
    let [trail] = report.tenants.try_into().expect("one tenant");
    let problem = trail.problem.expect("a problem");
    assert!(problem.to_string().contains(&problem.sequence.to_string()), "{problem} names no event");
    (problem.sequence, problem.fault)
}

#[tokio::test]
async fn t22_an_event_that_was_edited_is_named() {
    let report = touched(|raw| {
        let mut event = raw.event(5);
        let place = event.event.windows(5).position(|bytes| bytes == b"local").expect("an actor");
        event.event[place..place + 5].copy_from_slice(b"marvi");
        raw.write(&Raw::key(5), &event);
    });
    assert_eq!(first_fault(report.await), (5, TrailFault::Altered));
    let report = touched(|raw| {
        let mut event = raw.event(7);
        event.hash[3] ^= 1;
        raw.write(&Raw::key(7), &event);
    });
    assert_eq!(first_fault(report.await), (7, TrailFault::Altered));
}

#[tokio::test]
async fn t22_an_event_that_was_deleted_is_named() {
    for gone in [1, 5, 10] {
        let report = touched(|raw| raw.remove(gone)).await;
        assert_eq!(first_fault(report), (gone, TrailFault::Missing));
    }
    // The others moved up.
    let report = touched(|raw| {
        for at in 5..10 {
            raw.write(&Raw::key(at), &raw.event(at + 1));
        }
        raw.remove(10);
    });
    assert_eq!(first_fault(report.await), (5, TrailFault::Altered));
}

#[tokio::test]
async fn t22_events_that_changed_places_are_named() {
    let report = touched(|raw| {
        let (third, fourth) = (raw.event(3), raw.event(4));
        raw.write(&Raw::key(3), &fourth);
        raw.write(&Raw::key(4), &third);
    });
    assert_eq!(first_fault(report.await), (3, TrailFault::Altered));
}

#[tokio::test]
async fn t22_an_event_that_was_truncated_is_named() {
    let report = touched(|raw| {
        let key = Raw::key(6);
        let bytes = raw.0.get(&key).expect("readable").expect("a row");
        raw.0.insert(&key, &bytes[..bytes.len() / 2]).expect("written");
    });
    assert_eq!(first_fault(report.await), (6, TrailFault::Unreadable(RecordProblem::Damaged)));
    // With a checksum that fits, and still a message.
    let report = touched(|raw| raw.write(&Raw::key(6), &Chained { hash: Vec::new(), ..raw.event(6) }));
    assert_eq!(first_fault(report.await), (6, TrailFault::Altered));
}

#[tokio::test]
async fn t22_a_tail_that_was_cut_off_is_noticed() {
    let cut = |raw: &Raw| {
        (8..=10).for_each(|gone| raw.remove(gone));
        raw.write(TENANT, &Tenant { last_event: 7 });
    };
    let report = touched(cut).await;
    assert_eq!(first_fault(report), (8, TrailFault::Missing));
    // The head too, as well as it can be without the key.
    let and_the_head = |raw: &Raw| {
        cut(raw);
        let hash = raw.event(7).hash;
        raw.head(|head| (head.last, head.hash) = (7, hash));
    };
    assert_eq!(first_fault(touched(and_the_head).await), (7, TrailFault::Head));

    // Nor does the service vouch for it by going on.
    let directory = tempfile::tempdir().expect("a directory");
    ten(directory.path()).await;
    and_the_head(&Raw(raw_sled(directory.path())));
    for _ in 0..2 {
        let store = open(directory.path());
        store.commit(vec![Change::Append(event("acme", "later"))]).await.expect("appended");
        store.close().await;
    }
    assert_eq!(first_fault(check(directory.path()).await), (8, TrailFault::Resumed));
}

#[tokio::test]
async fn t22_a_start_that_was_cut_off_is_noticed() {
    let report = touched(|raw| {
        let before = raw.event(3).hash;
        (1..=3).for_each(|gone| raw.remove(gone));
        raw.head(|head| (head.first, head.before) = (4, before));
    });
    assert_eq!(first_fault(report.await), (10, TrailFault::Head));
}

#[tokio::test]
async fn t22_an_event_that_was_put_in_is_named() {
    let report = touched(|raw| raw.write(&Raw::key(11), &raw.event(10)));
    assert_eq!(first_fault(report.await), (11, TrailFault::Surplus));
    let report = touched(|raw| {
        raw.write(&Raw::key(11), &raw.event(10));
        raw.write(TENANT, &Tenant { last_event: 11 });
        raw.head(|head| head.last = 11);
    });
    assert_eq!(first_fault(report.await), (11, TrailFault::Altered));
}

#[tokio::test]
async fn t22_a_trail_that_is_gone_as_a_whole_is_noticed() {
    let strip = |raw: &Raw| {
        (1..=10).for_each(|gone| raw.remove(gone));
        raw.0.remove(HEAD).expect("removed").expect("it was there");
        raw.write(TENANT, &Tenant { last_event: 0 });
    };
    let gone = |report: TrailsReport| report.problem.expect("a problem");
    assert_eq!(gone(touched(strip).await), "0 audit trails are there and 1 should be");

    // Or made to look as if it were older than the chain.
    let older = |raw: &Raw| {
        for at in 1..=10 {
            raw.write_as(1, &Raw::key(at), &raw.event(at).event);
        }
        raw.0.remove(HEAD).expect("removed").expect("it was there");
    };
    assert_eq!(gone(touched(older).await), "0 audit trails are there and 1 should be");
    let directory = tempfile::tempdir().expect("a directory");
    ten(directory.path()).await;
    older(&Raw(raw_sled(directory.path())));
    let store = open(directory.path());
    store.commit(vec![Change::Append(event("acme", "later"))]).await.expect("appended");
    let report = store.check_trails().await.expect("checked");
    assert_eq!(gone(report), "1 audit trails are there and 2 should be");
}

#[tokio::test]
async fn t22_an_event_that_a_connections_trail_lacks_is_named() {
    let report = touched(|raw| {
        let key = [b"bacme\0c4\0".as_slice(), &4_u64.to_be_bytes()].concat();
        raw.0.remove(key).expect("removed").expect("it was there");
    });
    assert_eq!(first_fault(report.await), (4, TrailFault::NotIndexed(id("c4"))));
}

#[tokio::test]
async fn t22_another_key_proves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    ten(directory.path()).await;
    let store = open_with_another_key(directory.path());
    let report = store.check_trails().await.expect("checked");
    assert!(report.problem.is_some());
    assert_eq!(report.tenants[0].problem.as_ref().map(|problem| problem.sequence), Some(1));
}

fn open_with_another_key(path: &Path) -> SledStore {
    let store = SledStore::open(&config(path)).expect("opens");
    store.chain_with(gitmoor::store::Chain::new(|content| [content.len() as u8; 32]));
    store
}

// ---------------------------------------------------------------- events that are older than the chain

/// An event of version 1, about the connection `c`, of that time.
fn of_version_1(seconds: i64) -> Vec<u8> {
    #[derive(Clone, PartialEq, Eq, Message)]
    struct Old {
        #[prost(string, tag = "1")]
        uid: String,
        #[prost(string, tag = "2")]
        connection: String,
        #[prost(int32, tag = "3")]
        event_type: i32,
        #[prost(int64, tag = "5")]
        time: i64,
    }
    let (uid, connection) = (format!("old {seconds}"), "c".to_owned());
    Old { uid, connection, event_type: 2, time: seconds * 1_000_000 }.encode_to_vec()
}

#[tokio::test]
async fn a_chain_begins_behind_events_that_are_older_and_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    store.commit(vec![super::insert(&super::record("acme", "c", "C"))]).await.expect("inserted");
    store.close().await;
    drop(store);
    let raw = Raw(raw_sled(directory.path()));
    for at in 1..=4 {
        raw.write_as(1, &Raw::key(at), &of_version_1(i64::try_from(at).expect("small")));
    }
    #[derive(Clone, PartialEq, Eq, Message)]
    struct OldTenant {
        #[prost(uint64, tag = "1")]
        connections: u64,
        #[prost(uint64, tag = "2")]
        names: u64,
        #[prost(uint64, tag = "4")]
        last_event: u64,
    }
    raw.write_as(1, TENANT, &OldTenant { connections: 1, names: 1, last_event: 4 }.encode_to_vec());
    drop(raw);

    let store = open(directory.path());
    assert_eq!(checked(&store, "acme").await, (4, 4, 1, None));
    store.commit(vec![Change::Append(event("acme", "d"))]).await.expect("appended");
    store.commit(vec![Change::Append(event("acme", "c"))]).await.expect("appended");
    assert_eq!(checked(&store, "acme").await, (6, 4, 1, None));
    let entries = store.events(&tenant("acme"), None, 0, 10).await.expect("listed");
    let hashed: Vec<_> = entries.iter().map(|row| !row.as_ref().expect("readable").hash.is_empty()).collect();
    assert_eq!(hashed, [false, false, false, false, true, true]);
    // They are not in the index either, and show all the same.
    let trail = store.events(&tenant("acme"), Some(&id("c")), 0, 10).await.expect("listed");
    let trail: Vec<_> = trail.into_iter().map(|row| row.expect("readable")).collect();
    assert_eq!(trail.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 6]);
    assert_eq!(trail[0].event.resource, "tenants/acme/connections/c");
    assert_eq!(trail[0].event.connections, [id("c")]);
    let three = store.events(&tenant("acme"), Some(&id("c")), 2, 3).await.expect("listed");
    assert_eq!(three.len(), 3, "a page goes over the border");

    let before = Timestamp::from_unix_seconds(4);
    assert_eq!(store.forget_events(&tenant("acme"), before).await.expect("forgotten"), 3);
    assert_eq!(checked(&store, "acme").await, (3, 1, 4, None));
    drop(store);
    // What is older than the chain is proven by nothing, but none of it can be taken away.
    let raw = Raw(raw_sled(directory.path()));
    raw.remove(4);
    drop(raw);
    assert_eq!(first_fault(check(directory.path()).await), (4, TrailFault::Missing));
}

#[tokio::test]
async fn events_that_are_older_than_the_chain_can_be_forgotten_before_it_begins() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    store.commit(vec![super::insert(&super::record("acme", "c", "C"))]).await.expect("inserted");
    drop(store);
    let raw = Raw(raw_sled(directory.path()));
    let mut row = raw.read::<Tenant>(TENANT);
    for at in 1..=3 {
        raw.write_as(1, &Raw::key(at), &of_version_1(i64::try_from(at).expect("small")));
    }
    row.last_event = 3;
    raw.write(TENANT, &row);
    drop(raw);
    let store = SledStore::open_to_check(&config(directory.path())).expect("opens");
    store.chain_with(chain());
    let before = Timestamp::from_unix_seconds(3);
    assert_eq!(store.forget_events(&tenant("acme"), before).await.expect("forgotten"), 2);
    assert_eq!(checked(&store, "acme").await, (1, 1, 3, None));
    store.commit(vec![Change::Append(event("acme", "c"))]).await.expect("appended");
    assert_eq!(checked(&store, "acme").await, (2, 1, 3, None));
}
