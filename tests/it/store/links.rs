//! What every store promises of links, webhooks and the work that is due for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use gitmoor::domain::connection::{ConnectionRecord, ProviderId, Revision};
use gitmoor::domain::credential::Sealed;
use gitmoor::domain::link::{HistoryEntry, Link, LinkId, LinkName, LinkRecord, LinkState, WebhookMode};
use gitmoor::domain::repository::{Permission, Repository, Visibility};
use gitmoor::domain::timestamp::Timestamp;
use gitmoor::domain::webhook::{WebhookEvent, WebhookKey, WebhookRecord, WebhookState, WebhookUser};
use gitmoor::store::sled::{OpenError, SledStore};
use gitmoor::store::{Change, Due, RecordProblem, Store, StoreError};

use super::damage::raw_sled;
use super::fixture::{config, id, insert, name, open, record, remove, replace, tenant};

const INSTANCE: &str = "https://git.corp.example/gitlab/api/v4";
const TARGET: &str = "https://hooks.corp.example/git";

fn link_id(text: &str) -> LinkId {
    LinkId::parse(text).expect("valid")
}

pub(super) fn link_name(of: &str, link: &str) -> LinkName {
    LinkName { tenant: tenant(of), id: link_id(link) }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_760_000_000 + seconds)
}

/// A link of the tenant's connection `main` to the repository of that id.
pub(super) fn link(of: &str, link: &str, repository: &str) -> LinkRecord {
    LinkRecord {
        link: Link {
            name: link_name(of, link),
            uid: format!("uid of {link}"),
            connection: id("main"),
            provider: ProviderId::new("gitlab"),
            instance: INSTANCE.to_owned(),
            repository: Repository {
                provider_id: repository.to_owned(),
                full_name: format!("acme/{link}"),
                namespace: "acme".to_owned(),
                display_name: link.to_owned(),
                description: String::new(),
                default_branch: Some("main".to_owned()),
                clone_https_url: format!("https://git.corp.example/gitlab/acme/{link}.git"),
                clone_ssh_url: String::new(),
                web_url: String::new(),
                visibility: Visibility::Private,
                archived: Some(false),
                disabled: false,
                fork: None,
                size_kib: None,
                foreign_clone_host: false,
                update_time: None,
                permission: Permission::Admin,
            },
            webhook_mode: WebhookMode::Auto,
            webhook_events: WebhookEvent::CHOSEN.into(),
            webhook_target_url: TARGET.to_owned(),
            state: LinkState::Linked,
            conditions: Vec::new(),
            connection_history: vec![HistoryEntry {
                connection: id("main"),
                actor: "local".to_owned(),
                time: at(0),
            }],
            previous_full_names: Vec::new(),
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            annotations: BTreeMap::new(),
            create_time: at(0),
            update_time: at(0),
            generation: 1,
        },
        due: Some(at(100)),
        attempts: 0,
        revision: Revision(1),
    }
}

pub(super) fn insert_link(record: &LinkRecord) -> Change {
    Change::InsertLink(Box::new(record.clone()))
}

/// The same record one write later.
fn next(record: &LinkRecord, edit: impl FnOnce(&mut LinkRecord)) -> LinkRecord {
    let mut next = record.clone();
    next.revision.0 += 1;
    edit(&mut next);
    next
}

fn replace_link(record: &LinkRecord) -> Change {
    Change::ReplaceLink { record: Box::new(record.clone()), expected: Revision(record.revision.0 - 1) }
}

fn remove_link(record: &LinkRecord) -> Change {
    Change::RemoveLink { name: record.link.name.clone(), expected: record.revision }
}

pub(super) fn webhook(repository: &str) -> WebhookRecord {
    let user = WebhookUser { connection: id("main"), auto: true, events: WebhookEvent::CHOSEN.into() };
    WebhookRecord {
        key: WebhookKey {
            provider: ProviderId::new("gitlab"),
            instance: INSTANCE.to_owned(),
            repository_id: repository.to_owned(),
            target_url: TARGET.to_owned(),
        },
        uid: format!("uid of the webhook of {repository}"),
        users: BTreeMap::from([(link_name("acme", "one"), user)]),
        departing: Vec::new(),
        via: None,
        farewell: None,
        full_name: "acme/one".to_owned(),
        sealed: Sealed(vec![7; 100]),
        scheme: None,
        secret_version: 1,
        former: Vec::new(),
        next: None,
        rotated_by: String::new(),
        remote_id: None,
        making: None,
        leaving: Vec::new(),
        state: WebhookState::Pending,
        conditions: Vec::new(),
        adopted: false,
        create_time: at(0),
        last_check_time: None,
        last_wake_time: None,
        due: Some(at(0)),
        attempts: 0,
        generation: 1,
        revision: Revision(1),
    }
}

pub(super) fn put(record: &WebhookRecord) -> Change {
    let expected = (record.revision.0 > 1).then(|| Revision(record.revision.0 - 1));
    Change::PutWebhook { record: Box::new(record.clone()), expected }
}

/// A store with the connection `main` of the tenant `acme`.
pub(super) async fn with_connection(store: &Arc<dyn Store>) -> ConnectionRecord {
    let main = record("acme", "main", "Main");
    store.commit(vec![insert(&main)]).await.expect("inserted");
    main
}

async fn owner(store: &Arc<dyn Store>, of: &str, instance: &str, repository: &str) -> Option<LinkId> {
    store.link_of(&tenant(of), &ProviderId::new("gitlab"), instance, repository).await.expect("asked")
}

async fn count(store: &Arc<dyn Store>, connection: &str) -> u64 {
    store.link_count(&name("acme", connection)).await.expect("asked")
}

async fn links_of(store: &Arc<dyn Store>, connection: &str) -> Vec<String> {
    let found = store.links_of(&name("acme", connection), None, 100).await.expect("listed");
    found.iter().map(|id| id.as_str().to_owned()).collect()
}

async fn due(store: &Arc<dyn Store>, until: i64) -> Vec<(Timestamp, Due)> {
    store.due(at(until), 100).await.expect("asked")
}

pub(super) async fn a_link_is_found_by_name_repository_and_connection(store: &Arc<dyn Store>) {
    with_connection(store).await;
    let one = link("acme", "one", "42");
    store.commit(vec![insert_link(&one)]).await.expect("linked");
    let name = &one.link.name;
    assert_eq!(*store.link(name).await.expect("found"), one);
    assert!(store.link_id_taken(name).await.expect("asked"));
    assert_eq!(owner(store, "acme", INSTANCE, "42").await, Some(link_id("one")));
    assert_eq!(owner(store, "acme", INSTANCE, "4").await, None);
    assert_eq!(owner(store, "other", INSTANCE, "42").await, None);
    assert_eq!((links_of(store, "main").await, count(store, "main").await), (vec!["one".to_owned()], 1));

    let changed = next(&one, |record| {
        record.link.state = LinkState::AccessLost;
        record.due = None;
    });
    store.commit(vec![replace_link(&changed)]).await.expect("replaced");
    assert_eq!(*store.link(name).await.expect("found"), changed);
    assert_eq!(count(store, "main").await, 1);

    store.commit(vec![remove_link(&changed)]).await.expect("unlinked");
    assert!(matches!(store.link(name).await, Err(StoreError::NotFound)));
    assert_eq!(owner(store, "acme", INSTANCE, "42").await, None);
    assert_eq!((links_of(store, "main").await.len(), count(store, "main").await), (0, 0));
}

pub(super) async fn a_repository_is_linked_once_in_a_tenant(store: &Arc<dyn Store>) {
    with_connection(store).await;
    store.commit(vec![insert(&record("acme", "second", "Second"))]).await.expect("inserted");
    store.commit(vec![insert(&record("other", "main", "Main"))]).await.expect("inserted");
    store.commit(vec![insert_link(&link("acme", "one", "42"))]).await.expect("linked");
    for through in ["main", "second"] {
        let mut again = link("acme", "two", "42");
        again.link.connection = id(through);
        let outcome = store.commit(vec![insert_link(&again)]).await;
        assert!(
            matches!(&outcome, Err(StoreError::RepositoryLinked { owner }) if *owner == link_id("one")),
            "{outcome:?}"
        );
    }
    let mut elsewhere = link("acme", "two", "42");
    elsewhere.link.instance = "https://other.example/api/v4".to_owned();
    store.commit(vec![insert_link(&elsewhere)]).await.expect("the same id of another instance");
    store.commit(vec![insert_link(&link("other", "one", "42"))]).await.expect("another tenant");
    let none = store.commit(vec![insert_link(&link("nobody", "one", "42"))]).await;
    assert!(matches!(none, Err(StoreError::NotFound)), "no such connection: {none:?}");
}

pub(super) async fn ids_of_links_are_not_used_again(store: &Arc<dyn Store>) {
    with_connection(store).await;
    let one = link("acme", "one", "42");
    store.commit(vec![insert_link(&one)]).await.expect("linked");
    let twice = store.commit(vec![insert_link(&link("acme", "one", "43"))]).await;
    assert!(matches!(twice, Err(StoreError::IdTaken)), "{twice:?}");
    store.commit(vec![remove_link(&one)]).await.expect("unlinked");
    assert!(store.link_id_taken(&one.link.name).await.expect("asked"));
    let again = store.commit(vec![insert_link(&one)]).await;
    assert!(matches!(again, Err(StoreError::IdTaken)), "{again:?}");
    store.commit(vec![insert_link(&link("acme", "two", "42"))]).await.expect("the repository is free");
    assert!(!store.id_taken(&name("acme", "one")).await.expect("asked"), "connections have ids of their own");
}

pub(super) async fn a_stale_link_is_refused(store: &Arc<dyn Store>) {
    with_connection(store).await;
    let one = link("acme", "one", "42");
    let wrong = next(&one, |_| {});
    let mut unlinking = one.clone();
    unlinking.link.state = LinkState::Unlinking;
    for wrong in [insert_link(&wrong), insert_link(&unlinking)] {
        let outcome = store.commit(vec![wrong]).await;
        assert!(matches!(outcome, Err(StoreError::Stale)), "{outcome:?}");
    }
    for missing in [replace_link(&wrong), remove_link(&one)] {
        let outcome = store.commit(vec![missing]).await;
        assert!(matches!(outcome, Err(StoreError::NotFound)), "{outcome:?}");
    }
    store.commit(vec![insert_link(&one)]).await.expect("linked");
    store.commit(vec![replace_link(&wrong)]).await.expect("replaced");
    for stale in [replace_link(&wrong), remove_link(&one)] {
        let outcome = store.commit(vec![stale]).await;
        assert!(matches!(outcome, Err(StoreError::Stale)), "{outcome:?}");
    }
}

pub(super) async fn a_switch_moves_the_link_and_its_claims(store: &Arc<dyn Store>) {
    with_connection(store).await;
    let second = record("acme", "second", "Second");
    store.commit(vec![insert(&second)]).await.expect("inserted");
    let one = link("acme", "one", "42");
    store.commit(vec![insert_link(&one)]).await.expect("linked");
    let switched = next(&one, |record| record.link.connection = id("second"));
    store.commit(vec![replace_link(&switched)]).await.expect("switched");
    assert_eq!((links_of(store, "main").await.len(), count(store, "main").await), (0, 0));
    assert_eq!((links_of(store, "second").await.len(), count(store, "second").await), (1, 1));
    assert_eq!(owner(store, "acme", INSTANCE, "42").await, Some(link_id("one")));

    let nowhere = next(&switched, |record| record.link.connection = id("nobody"));
    let outcome = store.commit(vec![replace_link(&nowhere)]).await;
    assert!(matches!(outcome, Err(StoreError::NotFound)), "{outcome:?}");

    let other = "https://other.example/api/v4";
    let moved = next(&switched, |record| record.link.instance = other.to_owned());
    store.commit(vec![replace_link(&moved)]).await.expect("moved to another instance");
    assert_eq!(owner(store, "acme", INSTANCE, "42").await, None);
    assert_eq!(owner(store, "acme", other, "42").await, Some(link_id("one")));
    store.commit(vec![insert_link(&link("acme", "two", "42"))]).await.expect("free again");
    let back = next(&moved, |record| record.link.instance = INSTANCE.to_owned());
    let outcome = store.commit(vec![replace_link(&back)]).await;
    assert!(matches!(outcome, Err(StoreError::RepositoryLinked { .. })), "{outcome:?}");
    assert_eq!(*store.link(&moved.link.name).await.expect("as it was"), moved);
}

pub(super) async fn ac_32_a_connection_in_use_cannot_be_removed(store: &Arc<dyn Store>) {
    let main = with_connection(store).await;
    let one = link("acme", "one", "42");
    store.commit(vec![insert_link(&one)]).await.expect("linked");
    let in_use = store.commit(vec![remove(&main)]).await;
    assert!(matches!(in_use, Err(StoreError::InUse)), "{in_use:?}");
    // What is being unlinked holds neither the connection nor the repository.
    let leaving = next(&one, |record| {
        record.link.state = LinkState::Unlinking;
        record.due = None;
    });
    store.commit(vec![replace_link(&leaving)]).await.expect("unlinking");
    assert_eq!((links_of(store, "main").await.len(), count(store, "main").await), (1, 0));
    assert_eq!(owner(store, "acme", INSTANCE, "42").await, None);
    store.commit(vec![insert_link(&link("acme", "two", "42"))]).await.expect("linked anew");
    let two = link("acme", "two", "42");
    // In one commit, in the order of the changes.
    store.commit(vec![remove_link(&two), remove(&main)]).await.expect("unlinked and deleted");
    assert_eq!(*store.link(&leaving.link.name).await.expect("it waits on"), leaving);
    store.commit(vec![remove_link(&leaving)]).await.expect("gone");
    assert!(links_of(store, "main").await.is_empty());
}

pub(super) async fn what_was_proven_holds_for_one_credential(store: &Arc<dyn Store>) {
    let main = with_connection(store).await;
    let require = |uid: &str, version: i64| Change::Require {
        connection: main.connection.name.clone(),
        uid: uid.to_owned(),
        credential_version: version,
    };
    let one = link("acme", "one", "42");
    let uid = main.connection.uid.clone();
    for wrong in [require(&uid, 2), require("another uid", 1)] {
        let outcome = store.commit(vec![insert_link(&one), wrong]).await;
        assert!(matches!(outcome, Err(StoreError::Stale)), "{outcome:?}");
        assert!(matches!(store.link(&one.link.name).await, Err(StoreError::NotFound)), "nothing is left");
    }
    let mut off = main.clone();
    off.connection.disabled = true;
    off.revision = Revision(2);
    store.commit(vec![replace(&off)]).await.expect("disabled");
    let outcome = store.commit(vec![insert_link(&one), require(&uid, 1)]).await;
    assert!(matches!(outcome, Err(StoreError::Stale)), "{outcome:?}");
    off.connection.disabled = false;
    off.revision = Revision(3);
    store.commit(vec![replace(&off)]).await.expect("enabled");
    store.commit(vec![insert_link(&one), require(&uid, 1)]).await.expect("it holds");
    let gone = Change::Require { connection: name("acme", "gone"), uid, credential_version: 1 };
    let outcome = store.commit(vec![gone]).await;
    assert!(matches!(outcome, Err(StoreError::NotFound)), "{outcome:?}");
}

pub(super) async fn a_webhook_is_put_replaced_and_removed(store: &Arc<dyn Store>) {
    let first = webhook("42");
    assert!(matches!(store.webhook(&first.key).await, Err(StoreError::NotFound)));
    store.commit(vec![put(&first)]).await.expect("put");
    assert_eq!(*store.webhook(&first.key).await.expect("found"), first);
    let again = store.commit(vec![put(&first)]).await;
    assert!(matches!(again, Err(StoreError::Stale)), "{again:?}");
    let mut second = first.clone();
    second.revision = Revision(2);
    second.state = WebhookState::Active;
    second.remote_id = Some("7".to_owned());
    second.due = None;
    store.commit(vec![put(&second)]).await.expect("replaced");
    assert_eq!(*store.webhook(&first.key).await.expect("found"), second);
    let stale = Change::RemoveWebhook { key: first.key.clone(), expected: Revision(1) };
    assert!(matches!(store.commit(vec![stale]).await, Err(StoreError::Stale)));
    let mut other = webhook("42");
    other.key.target_url = "https://hooks.corp.example/other".to_owned();
    store.commit(vec![put(&other)]).await.expect("another target is another webhook");
    let gone = Change::RemoveWebhook { key: first.key.clone(), expected: Revision(2) };
    store.commit(vec![gone.clone()]).await.expect("removed");
    assert!(matches!(store.commit(vec![gone]).await, Err(StoreError::NotFound)));
    assert!(store.webhook(&other.key).await.is_ok());
    store.commit(vec![put(&first)]).await.expect("made anew");
}

pub(super) async fn due_work_comes_in_the_order_of_its_time(store: &Arc<dyn Store>) {
    with_connection(store).await;
    let (one, two) = (link("acme", "one", "1"), link("acme", "two", "2"));
    let mut early = webhook("1");
    early.due = Some(at(-1_760_000_001));
    store.commit(vec![insert_link(&one), insert_link(&two), put(&early)]).await.expect("committed");
    let hook = (at(-1_760_000_001), Due::Webhook(early.key.clone()));
    let of = |record: &LinkRecord, time: i64| (at(time), Due::Link(record.link.name.clone()));
    assert_eq!(due(store, 99).await, std::slice::from_ref(&hook), "before 1970, and nothing too early");
    assert_eq!(due(store, 100).await, [hook.clone(), of(&one, 100), of(&two, 100)], "to the very moment");
    assert_eq!(store.due(at(100), 2).await.expect("asked").len(), 2);
    assert!(store.due(at(100), 0).await.expect("asked").is_empty());

    let later = next(&one, |record| record.due = Some(at(300)));
    let mut done = early.clone();
    (done.revision, done.due) = (Revision(2), None);
    store.commit(vec![replace_link(&later), put(&done)]).await.expect("moved");
    assert_eq!(due(store, 1_000).await, [of(&two, 100), of(&one, 300)]);
    // A change that fails moves nothing.
    let failed = vec![remove_link(&two), remove_link(&one)];
    assert!(matches!(store.commit(failed).await, Err(StoreError::Stale)));
    assert_eq!(due(store, 1_000).await.len(), 2);
    store.commit(vec![remove_link(&two), remove_link(&later)]).await.expect("unlinked");
    assert!(due(store, 1_000).await.is_empty());
    let mut again = done.clone();
    (again.revision, again.due) = (Revision(3), Some(at(5)));
    store.commit(vec![put(&again)]).await.expect("due again");
    assert_eq!(due(store, 5).await.len(), 1);
    store
        .commit(vec![Change::RemoveWebhook { key: again.key, expected: Revision(3) }])
        .await
        .expect("removed");
    assert!(due(store, 1_000).await.is_empty());
}

pub(super) async fn links_page_in_the_order_of_their_ids(store: &Arc<dyn Store>) {
    with_connection(store).await;
    let mut ids: Vec<String> = (0..25).map(|at| format!("l-{:02}", (at * 7) % 25)).collect();
    for id in &ids {
        store.commit(vec![insert_link(&link("acme", id, id))]).await.expect("linked");
    }
    // One tenant's id is the beginning of the other's, one connection's that of another's.
    store.commit(vec![insert(&record("acme-2", "main", "Main"))]).await.expect("inserted");
    store.commit(vec![insert_link(&link("acme-2", "other", "1"))]).await.expect("linked");
    store.commit(vec![insert(&record("acme", "main-2", "Main 2"))]).await.expect("inserted");
    let mut near = link("acme", "near", "near");
    near.link.connection = id("main-2");
    store.commit(vec![insert_link(&near)]).await.expect("linked");
    ids.sort();
    let (mut all, mut of_main): (Vec<LinkId>, Vec<LinkId>) = (Vec::new(), Vec::new());
    loop {
        let page = store.links(&tenant("acme"), all.last(), 10).await.expect("listed");
        let more = page.len() == 10;
        all.extend(page.into_iter().map(|row| row.expect("readable").link.name.id.clone()));
        let page = store.links_of(&name("acme", "main"), of_main.last(), 10).await.expect("listed");
        of_main.extend(page);
        if !more {
            break;
        }
    }
    let texts = |ids: &[LinkId]| ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(texts(&of_main), ids);
    ids.push("near".to_owned());
    assert_eq!(texts(&all), ids);
    assert!(store.links(&tenant("acme"), None, 0).await.expect("listed").is_empty());
    assert!(store.links_of(&name("acme", "main"), None, 0).await.expect("listed").is_empty());
    assert_eq!((count(store, "main").await, count(store, "main-2").await), (25, 1));
}

pub(super) async fn one_repository_goes_to_one_of_many(store: &Arc<dyn Store>) {
    with_connection(store).await;
    let rivals = (0..32).map(|at| {
        let store = store.clone();
        tokio::spawn(
            async move { store.commit(vec![insert_link(&link("acme", &format!("l{at}"), "42"))]).await },
        )
    });
    let mut winners = 0;
    for rival in rivals.collect::<Vec<_>>() {
        match rival.await.expect("no panic") {
            Ok(()) => winners += 1,
            Err(StoreError::RepositoryLinked { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((winners, count(store, "main").await), (1, 1));
    assert_eq!(store.links(&tenant("acme"), None, 100).await.expect("listed").len(), 1);
}

pub(super) async fn changes_of_one_commit_see_each_others_links(store: &Arc<dyn Store>) {
    let (main, one) = (record("acme", "main", "Main"), link("acme", "one", "42"));
    let two = link("acme", "two", "42");
    let all = vec![insert(&main), insert_link(&one), remove_link(&one), insert_link(&two)];
    store.commit(all).await.expect("in this order it fits");
    assert_eq!(owner(store, "acme", INSTANCE, "42").await, Some(link_id("two")));
    let both = vec![insert_link(&link("acme", "three", "43")), insert_link(&link("acme", "four", "43"))];
    let outcome = store.commit(both).await;
    assert!(matches!(outcome, Err(StoreError::RepositoryLinked { .. })), "{outcome:?}");
    assert_eq!((count(store, "main").await, owner(store, "acme", INSTANCE, "43").await), (1, None));
}

#[tokio::test]
async fn a_restart_keeps_links_webhooks_and_what_is_due() {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, two) = (link("acme", "one", "1"), link("acme", "two", "2"));
    let hook = webhook("1");
    {
        let store: Arc<dyn Store> = Arc::new(open(directory.path()));
        with_connection(&store).await;
        store.commit(vec![insert_link(&one), insert_link(&two), put(&hook)]).await.expect("committed");
        store.commit(vec![remove_link(&two)]).await.expect("unlinked");
    }
    for _ in 0..2 {
        let store: Arc<dyn Store> = Arc::new(open(directory.path()));
        assert_eq!(*store.link(&one.link.name).await.expect("kept"), one);
        assert_eq!(*store.webhook(&hook.key).await.expect("kept"), hook);
        assert_eq!(due(&store, 1_000).await.len(), 2);
        assert_eq!((count(&store, "main").await, links_of(&store, "main").await.len()), (1, 1));
        assert!(store.link_id_taken(&two.link.name).await.expect("asked"), "an id stays taken");
        let again = store.commit(vec![insert_link(&link("acme", "three", "1"))]).await;
        assert!(matches!(again, Err(StoreError::RepositoryLinked { .. })), "{again:?}");
        store.close().await;
    }
}

/// Three links, one of them gone.
async fn fill(store: &Arc<dyn Store>) {
    with_connection(store).await;
    for at in ["1", "2", "3", "4"] {
        store.commit(vec![insert_link(&link("acme", &format!("l{at}"), at))]).await.expect("linked");
    }
    store.commit(vec![remove_link(&link("acme", "l4", "4"))]).await.expect("unlinked");
}

#[tokio::test]
async fn a_row_of_a_link_that_is_gone_is_noticed_at_the_start() {
    for (kind, told) in [(b'l', "repository links"), (b'u', "linked repositories"), (b'j', "deleted links")] {
        let directory = tempfile::tempdir().expect("a directory");
        {
            let store: Arc<dyn Store> = Arc::new(open(directory.path()));
            fill(&store).await;
        }
        let raw = raw_sled(directory.path());
        let (key, _) = raw.scan_prefix([kind]).next_back().expect("a row").expect("readable");
        raw.remove(key).expect("removed");
        drop(raw);
        let refused = SledStore::open(&config(directory.path())).expect_err("refused");
        assert!(matches!(refused, OpenError::Corrupt { .. }), "{}: {refused}", char::from(kind));
        assert!(refused.to_string().contains(told), "{refused}");
    }
}

#[tokio::test]
async fn one_unreadable_link_does_not_stop_the_others() {
    let directory = tempfile::tempdir().expect("a directory");
    {
        let store: Arc<dyn Store> = Arc::new(open(directory.path()));
        fill(&store).await;
    }
    let raw = raw_sled(directory.path());
    let (key, bytes) = raw.scan_prefix(b"l").nth(1).expect("a row").expect("readable");
    let mut damaged = bytes.to_vec();
    damaged[20] ^= 1;
    raw.insert(&key, damaged).expect("written");
    drop(raw);
    let store: Arc<dyn Store> = Arc::new(open(directory.path()));
    let listed = store.links(&tenant("acme"), None, 10).await.expect("listed");
    assert_eq!(listed.len(), 3);
    assert_eq!(**listed[0].as_ref().expect("readable"), link("acme", "l1", "1"));
    let problem = listed[1].as_ref().expect_err("unreadable");
    assert_eq!(
        (problem.key.as_str(), problem.problem.clone()),
        ("tenants/acme/repositoryLinks/l2", RecordProblem::Damaged)
    );
    assert_eq!(problem.link, Some(link_id("l2")));
    assert_eq!(**listed[2].as_ref().expect("readable"), link("acme", "l3", "3"));
    let single = store.link(&link_name("acme", "l2")).await;
    assert!(matches!(&single, Err(StoreError::Unreadable(found)) if found == problem), "{single:?}");
    store.commit(vec![remove_link(&link("acme", "l1", "1"))]).await.expect("the others can be changed");
}
