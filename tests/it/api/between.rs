//! What comes between a read and its write: bookkeeping, and the same request a second time.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use gitmoor::domain::connection::{
    ConnectionId, ConnectionName, ConnectionRecord, ProviderId, Revision, TenantId,
};
use gitmoor::domain::credential::Sealed;
use gitmoor::domain::link::{LinkId, LinkName, LinkRecord};
use gitmoor::domain::timestamp::Timestamp;
use gitmoor::domain::webhook::{WebhookKey, WebhookRecord};
use gitmoor::proto::v1;
use gitmoor::store::memory::MemoryStore;
use gitmoor::store::{
    Chain, Change, Due, Listed, ListedEvent, ListedLink, Remembered, Store, StoreError, TrailsReport,
};
use tokio::sync::{Barrier, watch};

use super::fixture::{gitlab, request_ids, sides, update};
use crate::support::app::{Running, TestApp};
use crate::support::forge::Forge;

/// A request id.
const ONE: &str = "01234567-89ab-4def-8123-456789abcdef";
/// Another.
const TWO: &str = "11234567-89ab-4def-8123-456789abcdef";

/// A store in which something happens at the worst moment.
#[derive(Debug)]
struct Meddled {
    inner: MemoryStore,
    /// So many commits find that the last use was written since their read.
    bookkeeping: AtomicUsize,
    /// So many commits wait until two of them are there.
    commits_meet: AtomicUsize,
    /// So many looks for a remembered request wait until two of them are there.
    looks_meet: AtomicUsize,
    pair: Barrier,
}

impl Meddled {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            bookkeeping: AtomicUsize::new(0),
            commits_meet: AtomicUsize::new(0),
            looks_meet: AtomicUsize::new(0),
            pair: Barrier::new(2),
        })
    }

    /// What the service's own bookkeeping does: another last use, another revision, the same generation.
    async fn bookkeep(&self, changes: &[Change]) {
        for change in changes {
            let name = match change {
                Change::Replace { record, .. } => &record.connection.name,
                Change::Remove { name, .. } => name,
                _ => continue,
            };
            let stored = self.inner.connection(name).await.expect("it is there");
            let mut used = Arc::unwrap_or_clone(stored);
            let expected = used.revision;
            used.connection.credential.last_use_time = Some(Timestamp::from_unix_seconds(4_102_444_800));
            used.revision = Revision(expected.0 + 1);
            let change = Change::Replace { record: Box::new(used), expected };
            self.inner.commit(vec![change]).await.expect("nobody is faster");
        }
    }
}

/// Takes one of what is left, if anything is.
fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl Store for Meddled {
    async fn connection(&self, name: &ConnectionName) -> Result<Arc<ConnectionRecord>, StoreError> {
        self.inner.connection(name).await
    }

    async fn connections(
        &self,
        tenant: &TenantId,
        after: Option<&ConnectionId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.inner.connections(tenant, after, limit).await
    }

    async fn name_owner(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        folded: &str,
    ) -> Result<Option<ConnectionId>, StoreError> {
        self.inner.name_owner(tenant, provider, folded).await
    }

    async fn id_taken(&self, name: &ConnectionName) -> Result<bool, StoreError> {
        self.inner.id_taken(name).await
    }

    async fn remembered(
        &self,
        tenant: &TenantId,
        request_id: &str,
    ) -> Result<Option<Remembered>, StoreError> {
        let found = self.inner.remembered(tenant, request_id).await;
        if take(&self.looks_meet) {
            self.pair.wait().await;
        }
        found
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: usize) -> Result<Vec<TenantId>, StoreError> {
        self.inner.tenants(after, limit).await
    }

    async fn events(
        &self,
        tenant: &TenantId,
        connection: Option<&ConnectionId>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<ListedEvent>, StoreError> {
        self.inner.events(tenant, connection, after, limit).await
    }

    async fn event_range(&self, tenant: &TenantId) -> Result<RangeInclusive<u64>, StoreError> {
        self.inner.event_range(tenant).await
    }

    fn appended(&self, tenant: &TenantId) -> watch::Receiver<()> {
        self.inner.appended(tenant)
    }

    fn chain_with(&self, chain: Chain) {
        self.inner.chain_with(chain);
    }

    async fn check_trails(&self) -> Result<TrailsReport, StoreError> {
        self.inner.check_trails().await
    }

    async fn link(&self, name: &LinkName) -> Result<Arc<LinkRecord>, StoreError> {
        self.inner.link(name).await
    }

    async fn links(
        &self,
        tenant: &TenantId,
        after: Option<&LinkId>,
        limit: usize,
    ) -> Result<Vec<ListedLink>, StoreError> {
        self.inner.links(tenant, after, limit).await
    }

    async fn links_of(
        &self,
        connection: &ConnectionName,
        after: Option<&LinkId>,
        limit: usize,
    ) -> Result<Vec<LinkId>, StoreError> {
        self.inner.links_of(connection, after, limit).await
    }

    async fn link_count(&self, connection: &ConnectionName) -> Result<u64, StoreError> {
        self.inner.link_count(connection).await
    }

    async fn link_of(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        instance: &str,
        repository_id: &str,
    ) -> Result<Option<LinkId>, StoreError> {
        self.inner.link_of(tenant, provider, instance, repository_id).await
    }

    async fn link_id_taken(&self, name: &LinkName) -> Result<bool, StoreError> {
        self.inner.link_id_taken(name).await
    }

    async fn webhook(&self, key: &WebhookKey) -> Result<Arc<WebhookRecord>, StoreError> {
        self.inner.webhook(key).await
    }

    async fn due(&self, until: Timestamp, limit: usize) -> Result<Vec<(Timestamp, Due)>, StoreError> {
        self.inner.due(until, limit).await
    }

    async fn identity(&self) -> Result<Option<Sealed>, StoreError> {
        self.inner.identity().await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        if take(&self.commits_meet) {
            self.pair.wait().await;
        }
        if take(&self.bookkeeping) {
            self.bookkeep(&changes).await;
        }
        self.inner.commit(changes).await
    }

    async fn forget_requests(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.inner.forget_requests(before).await
    }

    async fn forget_events(&self, tenant: &TenantId, before: Timestamp) -> Result<usize, StoreError> {
        self.inner.forget_events(tenant, before).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

async fn meddled() -> (Forge, Arc<Meddled>, Running) {
    let forge = Forge::small().await.expect("a forge");
    let store = Meddled::new();
    let app = TestApp::new().allow(forge.origin()).store(store.clone()).start().await;
    (forge, store, app)
}

#[tokio::test]
async fn bookkeeping_in_between_makes_no_change_fail() {
    let (forge, store, app) = meddled().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let once = || store.bookkeeping.store(1, Ordering::SeqCst);
        let met = |what: &str| assert_eq!(store.bookkeeping.load(Ordering::SeqCst), 0, "{what} met it");

        once();
        let edited = v1::Connection { owner: "team".into(), ..created.clone() };
        let updated = app.update(edited, &["owner"]).await.expect("updated with the etag of before");
        met("the update");
        let kept = app.get(&created.name).await.expect("it is there");
        assert_eq!((kept.owner.as_str(), kept.etag.as_str()), ("team", updated.etag.as_str()));
        let last_use = kept.credential_info.and_then(|info| info.last_use_time).expect("a use");
        assert_eq!(last_use.seconds, 4_102_444_800, "and the bookkeeping is kept");

        once();
        let replaced = app
            .replace(v1::ReplaceCredentialRequest {
                name: created.name.clone(),
                credential: Some(side.credential(side.good)),
                etag: updated.etag.clone(),
                ..Default::default()
            })
            .await
            .expect("replaced with the etag of before");
        met("the replacement");
        let etag = replaced.connection.expect("it").etag;

        once();
        let verified = app.verify(&created.name).await.expect("verified").connection.expect("it");
        met("the verification");
        assert_ne!(verified.etag, etag);

        once();
        let deletion = v1::DeleteConnectionRequest {
            name: created.name.clone(),
            etag: verified.etag,
            ..Default::default()
        };
        app.connections().delete_connection(deletion).await.expect("deleted with the etag of before");
        met("the deletion");
        app.get(&created.name).await.expect_err("it is gone");
    }
}

#[tokio::test]
async fn the_same_update_twice_at_once_gets_one_answer() {
    let (forge, store, app) = meddled().await;
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    let request = |etag: &str, owner: &str, id: &str| v1::UpdateConnectionRequest {
        request_id: id.into(),
        ..update(v1::Connection { owner: owner.into(), etag: etag.into(), ..created.clone() }, &["owner"])
    };
    // Both have read before either writes.
    store.commits_meet.store(2, Ordering::SeqCst);
    let first = request(&created.etag, "team", ONE);
    let (one, other) = tokio::join!(app.update_with(first.clone()), app.update_with(first));
    let one = one.expect("an answer");
    assert_eq!(other.expect("the same answer"), one);
    // Neither was remembered when both looked, but one may be done before the other reads.
    store.looks_meet.store(2, Ordering::SeqCst);
    let second = request(&one.etag, "others", TWO);
    let (one, other) = tokio::join!(app.update_with(second.clone()), app.update_with(second));
    let one = one.expect("an answer");
    assert_eq!(other.expect("the same answer"), one);
    assert_eq!(app.get(&created.name).await.expect("it is there"), one);
    assert_eq!(app.events("default").await.len(), 3, "one event for each effect");
}

#[tokio::test]
async fn an_update_without_effect_is_remembered_too() {
    let (forge, _, app) = meddled().await;
    for (side, id) in sides(&forge).iter().zip(request_ids()) {
        let created = app.create(side.connection("x")).await.expect("created");
        let same = v1::UpdateConnectionRequest {
            request_id: id,
            ..update(v1::Connection { etag: String::new(), ..created.clone() }, &["owner"])
        };
        assert_eq!(app.update_with(same.clone()).await.expect("nothing to do"), created);
        let edited = v1::Connection { owner: "team".into(), ..created.clone() };
        let updated = app.update(edited, &["owner"]).await.expect("updated");
        assert_eq!(app.update_with(same).await.expect("the first answer"), created);
        assert_eq!(app.get(&created.name).await.expect("it is there"), updated, "no second effect");
    }
}
