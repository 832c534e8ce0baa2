//! What every store promises (`all`), and what the embedded one promises beyond that.

use std::future::Future;
use std::sync::Arc;

use gitmoor::domain::connection::{ConnectionId, DisplayName, ProviderId, Revision, State};
use gitmoor::domain::credential::Sealed;
use gitmoor::domain::event::Event;
use gitmoor::domain::timestamp::Timestamp;
use gitmoor::store::sled::{OpenError, SledStore};
use gitmoor::store::{Change, Remembered, Store, StoreError};

use self::fixture::{
    config, created, event, events, id, insert, memory, name, open, record, remembered, remove, replace,
    tenant,
};

mod crash;
pub(crate) mod damage;
pub(crate) mod fixture;
mod links;
pub(crate) mod trail;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_promises() {
    all(|| async { Fresh { store: Arc::new(memory()), _directory: None } }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sled_keeps_the_promises() {
    all(|| async {
        let directory = tempfile::tempdir().expect("a directory");
        Fresh { store: Arc::new(open(directory.path())), _directory: Some(directory) }
    })
    .await;
}

/// An empty store, and what must outlive it.
struct Fresh {
    store: Arc<dyn Store>,
    _directory: Option<tempfile::TempDir>,
}

/// The conformance suite; `factory` makes an empty store.
async fn all<F: Future<Output = Fresh>>(factory: impl Fn() -> F) {
    macro_rules! run {
        ($($case:path),+ $(,)?) => {
            $({
                println!("{}", stringify!($case));
                let fresh = factory().await;
                $case(&fresh.store).await;
            })+
        };
    }
    run!(
        what_is_inserted_is_found,
        a_taken_id_is_refused,
        ac_01_a_taken_display_name_is_refused_whatever_its_case,
        a_stale_revision_is_refused,
        what_is_missing_is_not_found,
        ac_05_a_deleted_name_is_free_and_its_id_is_not,
        a_rename_moves_the_claim,
        a_change_that_fails_leaves_nothing,
        changes_of_one_commit_see_each_other,
        events_are_numbered_without_gaps,
        ac_35_tenants_are_apart,
        a_listing_pages_in_the_order_of_ids,
        old_requests_are_forgotten_and_young_ones_kept,
        the_identity_is_kept_once_set,
        sixteen_writers_lose_nothing,
        one_name_goes_to_one_of_many,
        t16_a_hundred_equal_requests_have_one_effect,
        after_the_close_nothing_is_accepted,
        links::a_link_is_found_by_name_repository_and_connection,
        links::a_repository_is_linked_once_in_a_tenant,
        links::ids_of_links_are_not_used_again,
        links::a_stale_link_is_refused,
        links::a_switch_moves_the_link_and_its_claims,
        links::ac_32_a_connection_in_use_cannot_be_removed,
        links::what_was_proven_holds_for_one_credential,
        links::a_webhook_is_put_replaced_and_removed,
        links::due_work_comes_in_the_order_of_its_time,
        links::links_page_in_the_order_of_their_ids,
        links::one_repository_goes_to_one_of_many,
        links::changes_of_one_commit_see_each_others_links,
    );
    trail::all(&factory).await;
}

async fn what_is_inserted_is_found(store: &Arc<dyn Store>) {
    let record = record("acme", "one", "One");
    store.commit(vec![insert(&record)]).await.expect("inserted");
    let name = &record.connection.name;
    assert_eq!(*store.connection(name).await.expect("found"), record);
    assert!(store.id_taken(name).await.expect("asked"));
    assert_eq!(owner(store, "acme", "one").await, Some(id("one")));

    let mut changed = record.clone();
    changed.revision = Revision(2);
    changed.connection.state = State::AuthFailed;
    store.commit(vec![replace(&changed)]).await.expect("replaced");
    assert_eq!(*store.connection(name).await.expect("found"), changed);

    store.commit(vec![remove(&changed)]).await.expect("removed");
    assert!(matches!(store.connection(name).await, Err(StoreError::NotFound)));
}

async fn a_taken_id_is_refused(store: &Arc<dyn Store>) {
    store.commit(vec![insert(&record("acme", "one", "One"))]).await.expect("inserted");
    let again = store.commit(vec![insert(&record("acme", "one", "Two"))]).await;
    assert!(matches!(again, Err(StoreError::IdTaken)), "{again:?}");
    let mut wrong = record("acme", "two", "Two");
    wrong.revision = Revision(2);
    let outcome = store.commit(vec![insert(&wrong)]).await;
    assert!(matches!(outcome, Err(StoreError::Stale)), "{outcome:?}");
}

async fn ac_01_a_taken_display_name_is_refused_whatever_its_case(store: &Arc<dyn Store>) {
    store.commit(vec![insert(&record("acme", "one", "Instance"))]).await.expect("inserted");
    let taken = store.commit(vec![insert(&record("acme", "two", " iNSTANCE "))]).await;
    assert!(matches!(&taken, Err(StoreError::NameTaken { owner }) if *owner == id("one")), "{taken:?}");
    let mut elsewhere = record("acme", "two", "Instance");
    elsewhere.connection.provider = ProviderId::new("azure-devops");
    store.commit(vec![insert(&elsewhere)]).await.expect("another provider has names of its own");
}

async fn a_stale_revision_is_refused(store: &Arc<dyn Store>) {
    let first = record("acme", "one", "One");
    store.commit(vec![insert(&first)]).await.expect("inserted");
    let mut second = first.clone();
    second.revision = Revision(2);
    store.commit(vec![replace(&second)]).await.expect("replaced");
    for stale in [
        replace(&second),
        remove(&first),
        Change::Replace { record: Box::new(second.clone()), expected: Revision(2) },
        Change::Replace { record: Box::new(second.clone()), expected: Revision(u64::MAX) },
    ] {
        let outcome = store.commit(vec![stale]).await;
        assert!(matches!(outcome, Err(StoreError::Stale)), "{outcome:?}");
    }
    assert_eq!(*store.connection(&second.connection.name).await.expect("found"), second);
}

async fn what_is_missing_is_not_found(store: &Arc<dyn Store>) {
    let mut never = record("acme", "never", "Never");
    assert!(matches!(store.commit(vec![remove(&never)]).await, Err(StoreError::NotFound)));
    never.revision = Revision(2);
    assert!(matches!(store.commit(vec![replace(&never)]).await, Err(StoreError::NotFound)));
    assert!(!store.id_taken(&never.connection.name).await.expect("asked"));
    assert_eq!(store.remembered(&tenant("acme"), "never").await.expect("asked"), None);
    assert!(store.connections(&tenant("acme"), None, 10).await.expect("listed").is_empty());
    assert!(events(&**store, "acme", 0, 10).await.is_empty());
}

async fn ac_05_a_deleted_name_is_free_and_its_id_is_not(store: &Arc<dyn Store>) {
    let first = record("acme", "one", "Instance");
    store.commit(vec![insert(&first)]).await.expect("inserted");
    store.commit(vec![remove(&first)]).await.expect("removed");
    assert_eq!(owner(store, "acme", "instance").await, None);
    assert!(store.id_taken(&first.connection.name).await.expect("asked"));
    let again = store.commit(vec![insert(&first)]).await;
    assert!(matches!(again, Err(StoreError::IdTaken)), "{again:?}");
    store.commit(vec![insert(&record("acme", "two", "Instance"))]).await.expect("the name is free");
    assert_eq!(owner(store, "acme", "instance").await, Some(id("two")));
}

async fn a_rename_moves_the_claim(store: &Arc<dyn Store>) {
    let one = record("acme", "one", "One");
    let two = record("acme", "two", "Two");
    store.commit(vec![insert(&one), insert(&two)]).await.expect("inserted");
    let mut renamed = one.clone();
    renamed.revision = Revision(2);
    renamed.connection.display_name = DisplayName::parse("TWO").expect("valid");
    let taken = store.commit(vec![replace(&renamed)]).await;
    assert!(matches!(&taken, Err(StoreError::NameTaken { owner }) if *owner == id("two")), "{taken:?}");
    // Only the case: the claim stays where it is.
    renamed.connection.display_name = DisplayName::parse("ONE").expect("valid");
    store.commit(vec![replace(&renamed)]).await.expect("renamed");
    assert_eq!(owner(store, "acme", "one").await, Some(id("one")));
    renamed.revision = Revision(3);
    renamed.connection.display_name = DisplayName::parse("Three").expect("valid");
    store.commit(vec![replace(&renamed)]).await.expect("renamed");
    assert_eq!(owner(store, "acme", "one").await, None);
    assert_eq!(owner(store, "acme", "three").await, Some(id("one")));
    store.commit(vec![insert(&record("acme", "four", "one"))]).await.expect("the old name is free");
}

async fn a_change_that_fails_leaves_nothing(store: &Arc<dyn Store>) {
    store.commit(vec![insert(&record("acme", "one", "One"))]).await.expect("inserted");
    let mut all = created("acme", "two", "Two", "request");
    all.push(insert(&record("acme", "three", "one")));
    let outcome = store.commit(all).await;
    assert!(matches!(outcome, Err(StoreError::NameTaken { .. })), "{outcome:?}");
    let two = name("acme", "two");
    assert!(matches!(store.connection(&two).await, Err(StoreError::NotFound)));
    assert!(!store.id_taken(&two).await.expect("asked"));
    assert_eq!(owner(store, "acme", "two").await, None);
    assert!(events(&**store, "acme", 0, 10).await.is_empty());
    assert_eq!(store.remembered(&two.tenant, "request").await.expect("asked"), None);
    store.commit(created("acme", "two", "Two", "request")).await.expect("it can be done again");
    assert_eq!(events(&**store, "acme", 0, 10).await.len(), 1);
}

async fn changes_of_one_commit_see_each_other(store: &Arc<dyn Store>) {
    let one = record("acme", "one", "One");
    let mut again = one.clone();
    again.revision = Revision(2);
    let two = record("acme", "two", "One");
    store.commit(vec![insert(&one), replace(&again), remove(&again), insert(&two)]).await.expect("committed");
    assert!(matches!(store.connection(&one.connection.name).await, Err(StoreError::NotFound)));
    assert_eq!(owner(store, "acme", "one").await, Some(id("two")));
}

async fn events_are_numbered_without_gaps(store: &Arc<dyn Store>) {
    let all: Vec<Event> = (0..7).map(|at| event("acme", &format!("c{at}"))).collect();
    store.commit(all[..3].iter().cloned().map(Change::Append).collect()).await.expect("appended");
    let failing = vec![Change::Append(event("acme", "lost")), remove(&record("acme", "never", "Never"))];
    store.commit(failing).await.expect_err("refused");
    store.commit(vec![Change::Append(event("other", "c0"))]).await.expect("appended");
    for event in &all[3..] {
        store.commit(vec![Change::Append(event.clone())]).await.expect("appended");
    }
    let found = events(&**store, "acme", 0, 100).await;
    let wanted: Vec<_> = (1..).zip(all.iter().cloned()).collect();
    assert_eq!(found, wanted);
    assert_eq!(events(&**store, "acme", 2, 3).await, wanted[2..5]);
    assert!(events(&**store, "acme", 7, 3).await.is_empty());
    assert!(events(&**store, "acme", 0, 0).await.is_empty());
    assert!(events(&**store, "acme", u64::MAX, 3).await.is_empty());
}

async fn ac_35_tenants_are_apart(store: &Arc<dyn Store>) {
    // One tenant's id is the beginning of the other's: neither may see a row of the other.
    for tenant in ["a", "a-b", "b"] {
        store
            .commit(created(tenant, "one", "Instance", "request"))
            .await
            .expect("each has its own names and ids");
    }
    let a = record("a", "one", "Instance");
    store.commit(vec![remove(&a)]).await.expect("removed");
    assert!(store.connections(&tenant("a"), None, 10).await.expect("listed").is_empty());
    for other in ["a-b", "b"] {
        let listed = store.connections(&tenant(other), None, 10).await.expect("listed");
        assert_eq!(listed.len(), 1);
        assert_eq!(events(&**store, other, 0, 10).await.len(), 1);
        assert_eq!(owner(store, other, "instance").await, Some(id("one")));
        let remembered =
            store.remembered(&tenant(other), "request").await.expect("asked").expect("remembered");
        assert_eq!(remembered.tenant, tenant(other));
    }
}

async fn a_listing_pages_in_the_order_of_ids(store: &Arc<dyn Store>) {
    let mut ids: Vec<String> = (0..25).map(|at| format!("c-{:02}", (at * 7) % 25)).collect();
    for id in &ids {
        store.commit(vec![insert(&record("acme", id, id))]).await.expect("inserted");
    }
    store.commit(vec![insert(&record("acme-2", "other", "other"))]).await.expect("inserted");
    ids.sort();
    let mut found = Vec::new();
    loop {
        let after = found.last().map(|last: &String| id(last));
        let page = store.connections(&tenant("acme"), after.as_ref(), 10).await.expect("listed");
        found.extend(
            page.iter().map(|row| row.as_ref().expect("readable").connection.name.id.as_str().to_owned()),
        );
        if page.len() < 10 {
            break;
        }
    }
    assert_eq!(found, ids);
    assert!(store.connections(&tenant("acme"), None, 0).await.expect("listed").is_empty());
}

async fn old_requests_are_forgotten_and_young_ones_kept(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    for at in [-5_i64, 0, 10, 20, 30] {
        let remembered =
            Remembered { time: Timestamp::from_unix_micros(at), ..remembered("acme", &format!("r{at}")) };
        store.commit(vec![Change::Remember(remembered)]).await.expect("remembered");
    }
    assert_eq!(store.forget_requests(Timestamp::from_unix_micros(20)).await.expect("forgotten"), 3);
    assert_eq!(store.forget_requests(Timestamp::from_unix_micros(20)).await.expect("forgotten"), 0);
    for (at, there) in [(-5, false), (0, false), (10, false), (20, true), (30, true)] {
        let found = store.remembered(&acme, &format!("r{at}")).await.expect("asked");
        assert_eq!(found.is_some(), there, "{at}");
    }
    store
        .commit(vec![Change::Remember(remembered("acme", "r10"))])
        .await
        .expect("a forgotten id is free again");
}

async fn the_identity_is_kept_once_set(store: &Arc<dyn Store>) {
    assert_eq!(store.identity().await.expect("asked"), None);
    store.commit(vec![Change::Identify(Sealed(vec![1, 2]))]).await.expect("set");
    let again = vec![Change::Identify(Sealed(vec![3])), insert(&record("acme", "one", "One"))];
    store.commit(again).await.expect("the rest of the commit goes on");
    assert_eq!(store.identity().await.expect("asked"), Some(Sealed(vec![1, 2])));
    assert!(store.connection(&name("acme", "one")).await.is_ok());
}

async fn sixteen_writers_lose_nothing(store: &Arc<dyn Store>) {
    const EACH: usize = 20;
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for at in 0..EACH {
                    let label = format!("w{writer}-{at}");
                    store.commit(created("acme", &label, &label, &label)).await.expect("created");
                    store.connection(&name("acme", &label)).await.expect("what was acknowledged is seen");
                    if at % 4 == 0 {
                        store.commit(vec![remove(&record("acme", &label, &label))]).await.expect("removed");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    let listed = store.connections(&tenant("acme"), None, usize::MAX).await.expect("listed");
    assert_eq!(listed.len(), 16 * EACH * 3 / 4);
    let events = events(&**store, "acme", 0, usize::MAX).await;
    assert_eq!(
        events.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(),
        (1..=320).collect::<Vec<_>>()
    );
}

async fn one_name_goes_to_one_of_many(store: &Arc<dyn Store>) {
    let rivals = (0..32).map(|at| {
        let store = store.clone();
        tokio::spawn(
            async move { store.commit(vec![insert(&record("acme", &format!("c{at}"), "Same"))]).await },
        )
    });
    let mut winners = 0;
    for rival in rivals.collect::<Vec<_>>() {
        match rival.await.expect("no panic") {
            Ok(()) => winners += 1,
            Err(StoreError::NameTaken { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(store.connections(&tenant("acme"), None, 100).await.expect("listed").len(), 1);
}

async fn t16_a_hundred_equal_requests_have_one_effect(store: &Arc<dyn Store>) {
    let equals = (0..100).map(|at| {
        let store = store.clone();
        tokio::spawn(async move {
            let label = format!("c{at}");
            store.commit(created("acme", &label, &label, "same-request")).await
        })
    });
    let mut winners = 0;
    for equal in equals.collect::<Vec<_>>() {
        match equal.await.expect("no panic") {
            Ok(()) => winners += 1,
            Err(StoreError::RequestRemembered) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(store.connections(&tenant("acme"), None, 200).await.expect("listed").len(), 1);
    assert_eq!(events(&**store, "acme", 0, 200).await.len(), 1);
    assert!(store.remembered(&tenant("acme"), "same-request").await.expect("asked").is_some());
}

async fn after_the_close_nothing_is_accepted(store: &Arc<dyn Store>) {
    store.commit(created("acme", "one", "One", "request")).await.expect("created");
    store.close().await;
    store.close().await;
    let late = store.commit(created("acme", "two", "Two", "late")).await;
    assert!(matches!(late, Err(StoreError::Unavailable { .. })), "{late:?}");
    let late = store.forget_requests(Timestamp::from_unix_micros(0)).await;
    assert!(matches!(late, Err(StoreError::Unavailable { .. })), "{late:?}");
    assert!(store.connection(&name("acme", "one")).await.is_ok(), "reads go on");
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let directory = tempfile::tempdir().expect("a directory");
    for round in 0..3 {
        let store = open(directory.path());
        let label = format!("c{round}");
        for before in 0..round {
            let found = store.connection(&name("acme", &format!("c{before}"))).await.expect("kept");
            assert_eq!(*found, record("acme", &format!("c{before}"), &format!("c{before}")));
        }
        store.commit(created("acme", &label, &label, &label)).await.expect("created");
        let again = store.commit(created("acme", "late", "Late", &label)).await;
        assert!(matches!(again, Err(StoreError::RequestRemembered)), "{again:?}");
        assert_eq!(events(&store, "acme", 0, 10).await.len(), round + 1);
        if round == 1 {
            // In every second way of ending, nobody closes it.
            store.close().await;
        }
    }
}

#[tokio::test]
async fn more_requests_than_one_round_are_forgotten() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let all = (0..2_500).map(|at| Change::Remember(remembered("acme", &format!("r{at}"))));
    store.commit(all.collect()).await.expect("remembered");
    assert_eq!(
        store.forget_requests(Timestamp::from_unix_seconds(i64::MAX)).await.expect("forgotten"),
        2_500
    );
    assert_eq!(store.remembered(&tenant("acme"), "r2499").await.expect("asked"), None);
}

#[tokio::test]
async fn a_record_of_a_mebibyte_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut large = record("acme", "large", "Large");
    large.connection.annotations = (0..64).map(|at| (format!("k{at}"), "x".repeat(4_096))).collect();
    large.connection.ca_certificates_pem = "y".repeat(700 * 1024);
    let store = open(directory.path());
    store.commit(vec![insert(&large)]).await.expect("inserted");
    large.revision = Revision(2);
    store.commit(vec![replace(&large)]).await.expect("replaced");
    drop(store);
    let store = open(directory.path());
    assert_eq!(*store.connection(&large.connection.name).await.expect("kept"), large);
}

#[tokio::test]
async fn k04_a_second_opener_is_refused_and_the_first_works_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let refused = SledStore::open(&config(directory.path())).expect_err("locked");
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    assert!(refused.to_string().contains("lock"), "{refused}");
    store.commit(created("acme", "one", "One", "request")).await.expect("unaffected");
}

async fn owner(store: &Arc<dyn Store>, of: &str, folded: &str) -> Option<ConnectionId> {
    store.name_owner(&tenant(of), &ProviderId::new("gitlab"), folded).await.expect("asked")
}
