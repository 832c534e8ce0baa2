//! Rows in the process's memory, for tests: everything is gone when the process ends.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::bell::Bell;
use super::layout::{self, Rows, Visit, links};
use super::plan::{Finished, Plan, Writes};
use super::trail::{self, no_chain};
use super::{
    Chain, Change, Due, Listed, ListedEvent, ListedLink, Remembered, Store, StoreError, TrailsReport,
};
use crate::domain::connection::{ConnectionId, ConnectionName, ConnectionRecord, ProviderId, TenantId};
use crate::domain::credential::Sealed;
use crate::domain::link::{LinkId, LinkName, LinkRecord};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{WebhookKey, WebhookRecord};

/// A store without a disk. Rows are kept in their stored form, so that what does not survive encoding
/// does not survive here either.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    bell: Bell,
}

#[derive(Default)]
struct State {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    chain: Option<Chain>,
    closed: bool,
}

impl State {
    fn chain(&self) -> Result<Chain, StoreError> {
        self.chain.clone().ok_or_else(no_chain)
    }

    fn apply(&mut self, writes: Writes) {
        for (key, row) in writes {
            match row {
                Some(bytes) => self.rows.insert(key, bytes),
                None => self.rows.remove(&key),
            };
        }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A commit inserts rows one by one into a map, which cannot fail half-way, so the state behind a
    /// poisoned lock is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("rows", &self.state().rows.len()).finish()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn connection(&self, name: &ConnectionName) -> Result<Arc<ConnectionRecord>, StoreError> {
        layout::connection(&self.state().rows, name).map(Arc::new)
    }

    async fn connections(
        &self,
        tenant: &TenantId,
        after: Option<&ConnectionId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        layout::connections(&self.state().rows, tenant, after, limit)
    }

    async fn name_owner(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        folded: &str,
    ) -> Result<Option<ConnectionId>, StoreError> {
        layout::name_owner(&self.state().rows, tenant, provider, folded)
    }

    async fn id_taken(&self, name: &ConnectionName) -> Result<bool, StoreError> {
        layout::id_taken(&self.state().rows, name)
    }

    async fn remembered(
        &self,
        tenant: &TenantId,
        request_id: &str,
    ) -> Result<Option<Remembered>, StoreError> {
        layout::remembered(&self.state().rows, tenant, request_id)
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: usize) -> Result<Vec<TenantId>, StoreError> {
        layout::tenants(&self.state().rows, after, limit)
    }

    async fn events(
        &self,
        tenant: &TenantId,
        connection: Option<&ConnectionId>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<ListedEvent>, StoreError> {
        trail::events(&self.state().rows, tenant, connection, after, limit)
    }

    async fn event_range(&self, tenant: &TenantId) -> Result<RangeInclusive<u64>, StoreError> {
        trail::range(&self.state().rows, tenant)
    }

    fn appended(&self, tenant: &TenantId) -> watch::Receiver<()> {
        self.bell.listen(tenant)
    }

    fn chain_with(&self, chain: Chain) {
        self.state().chain.get_or_insert(chain);
    }

    async fn check_trails(&self) -> Result<TrailsReport, StoreError> {
        let state = self.state();
        trail::check(&state.rows, &state.chain()?)
    }

    async fn link(&self, name: &LinkName) -> Result<Arc<LinkRecord>, StoreError> {
        links::link(&self.state().rows, name).map(Arc::new)
    }

    async fn links(
        &self,
        tenant: &TenantId,
        after: Option<&LinkId>,
        limit: usize,
    ) -> Result<Vec<ListedLink>, StoreError> {
        links::links(&self.state().rows, tenant, after, limit)
    }

    async fn links_of(
        &self,
        connection: &ConnectionName,
        after: Option<&LinkId>,
        limit: usize,
    ) -> Result<Vec<LinkId>, StoreError> {
        links::links_of(&self.state().rows, connection, after, limit)
    }

    async fn link_count(&self, connection: &ConnectionName) -> Result<u64, StoreError> {
        links::link_count(&self.state().rows, connection)
    }

    async fn link_of(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        instance: &str,
        repository_id: &str,
    ) -> Result<Option<LinkId>, StoreError> {
        links::link_of(&self.state().rows, tenant, provider, instance, repository_id)
    }

    async fn link_id_taken(&self, name: &LinkName) -> Result<bool, StoreError> {
        links::link_id_taken(&self.state().rows, name)
    }

    async fn webhook(&self, key: &WebhookKey) -> Result<Arc<WebhookRecord>, StoreError> {
        links::webhook(&self.state().rows, key).map(Arc::new)
    }

    async fn due(&self, until: Timestamp, limit: usize) -> Result<Vec<(Timestamp, Due)>, StoreError> {
        links::due(&self.state().rows, until, limit)
    }

    async fn identity(&self) -> Result<Option<Sealed>, StoreError> {
        layout::identity(&self.state().rows)
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut state = self.open_state()?;
        let chain = state.chain.clone();
        let mut plan = Plan::new(&state.rows, chain.as_ref());
        plan.commit(&changes)?;
        if let Some(Finished { writes, appended, commits: _ }) = plan.finish()? {
            state.apply(writes);
            drop(state);
            for tenant in &appended {
                self.bell.ring(tenant);
            }
        }
        Ok(())
    }

    async fn forget_events(&self, tenant: &TenantId, before: Timestamp) -> Result<usize, StoreError> {
        let mut state = self.open_state()?;
        let gone = trail::forget(&state.rows, &state.chain()?, tenant, before, usize::MAX)?;
        state.apply(gone.writes);
        Ok(gone.events)
    }

    async fn forget_requests(&self, before: Timestamp) -> Result<usize, StoreError> {
        let mut state = self.open_state()?;
        let gone = layout::requests_before(&state.rows, before, usize::MAX)?;
        for keys in &gone {
            state.rows.remove(&keys.time);
            state.rows.remove(&keys.request);
        }
        Ok(gone.len())
    }

    async fn close(&self) {
        self.state().closed = true;
    }
}

impl MemoryStore {
    fn open_state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        if state.closed {
            return Err(StoreError::Unavailable { problem: "it was closed".to_owned() });
        }
        Ok(state)
    }
}

impl Rows for BTreeMap<Vec<u8>, Vec<u8>> {
    type Value = Vec<u8>;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(Self::get(self, key).cloned())
    }

    fn walk(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if from < to {
            for (key, bytes) in self.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
                if visit(key, bytes).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
}
