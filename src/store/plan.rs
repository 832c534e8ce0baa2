//! Turns changes into rows to write: every check of a commit, once for all backends.

use std::collections::{BTreeMap, HashMap};

use super::chain::Chain;
use super::layout::{self, Rows, Visit};
use super::record::{self, IdentityRow, IndexRow, NameRow, RetiredRow, StoreRow, TenantRow};
use super::trail::{self, Head};
use super::{Change, Remembered, StoreError};
use crate::domain::connection::{ConnectionName, ConnectionRecord, Revision, TenantId};
use crate::domain::credential::Sealed;
use crate::domain::event::Event;

mod links;

/// What commits will write, on top of the rows that are there. Each commit sees the ones before it; one
/// that fails leaves nothing.
pub(super) struct Plan<'a, R> {
    below: &'a R,
    chain: Option<&'a Chain>,
    settled: Planned,
    staged: Planned,
    commits: u64,
}

/// Rows by key, and the counts of tenants and the heads of their trails, which nearly every change touches: they are
/// encoded once, at the end.
#[derive(Default)]
struct Planned {
    writes: Writes,
    tenants: HashMap<TenantId, Counts>,
    heads: HashMap<TenantId, Head>,
}

/// What is to be done after all commits were planned.
pub(super) struct Finished {
    /// The rows to write, all at once.
    pub(super) writes: Writes,
    /// How many commits the store has then seen.
    pub(super) commits: u64,
    /// Who has a new event then.
    pub(super) appended: Vec<TenantId>,
}

#[derive(Clone, Copy)]
struct Counts {
    row: TenantRow,
    is_new: bool,
}

/// Rows in the order of their keys, in which a tree takes them fastest; `None` where the row goes.
pub(super) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl<'a, R: Rows> Plan<'a, R> {
    /// An empty plan over the rows of a backend. Without a chain no event can be appended.
    pub(super) fn new(below: &'a R, chain: Option<&'a Chain>) -> Self {
        Self { below, chain, settled: Planned::default(), staged: Planned::default(), commits: 0 }
    }

    /// Adds all the changes or none of them.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let outcome = changes.iter().try_for_each(|change| self.stage(change));
        if outcome.is_ok() {
            self.commits += 1;
            self.settled.writes.append(&mut self.staged.writes);
            self.settled.tenants.extend(self.staged.tenants.drain());
            self.settled.heads.extend(self.staged.heads.drain());
        } else {
            self.staged.writes.clear();
            self.staged.tenants.clear();
            self.staged.heads.clear();
        }
        outcome
    }

    /// What is to be done; `None` if no commit succeeded.
    pub(super) fn finish(self) -> Result<Option<Finished>, StoreError> {
        if self.commits == 0 {
            return Ok(None);
        }
        let Planned { mut writes, tenants, heads } = self.settled;
        let mut store: StoreRow = layout::store_row(self.below)?.unwrap_or_default();
        store.commits += self.commits;
        for (tenant, counts) in tenants {
            store.tenants += u64::from(counts.is_new);
            let key = layout::tenant_key(&tenant);
            let bytes = record::wrap(&key, &counts.row);
            writes.insert(key, Some(bytes));
        }
        writes.insert(layout::STORE.to_vec(), Some(record::wrap(layout::STORE, &store)));
        let mut appended = Vec::with_capacity(heads.len());
        if let Some(chain) = self.chain {
            let new = heads.values().filter(|head| head.is_new).count() as u64;
            if new > 0 {
                let (key, bytes) = trail::count_heads(self.below, chain, new)?;
                writes.insert(key, Some(bytes));
            }
            for (tenant, head) in heads {
                let (key, bytes) = head.write(chain, &tenant);
                writes.insert(key, Some(bytes));
                appended.push(tenant);
            }
        }
        Ok(Some(Finished { writes, commits: store.commits, appended }))
    }

    fn stage(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Insert(record) => self.insert(record),
            Change::Replace { record, expected } => self.replace(record, *expected),
            Change::Remove { name, expected } => self.remove(name, *expected),
            Change::Append(event) => self.append(event),
            Change::Remember(remembered) => self.remember(remembered),
            Change::Identify(sealed) => self.identify(sealed),
            Change::InsertLink(record) => self.insert_link(record),
            Change::ReplaceLink { record, expected } => self.replace_link(record, *expected),
            Change::RemoveLink { name, expected } => self.remove_link(name, *expected),
            Change::PutWebhook { record, expected } => self.put_webhook(record, *expected),
            Change::RemoveWebhook { key, expected } => self.remove_webhook(key, *expected),
            Change::Require { connection, uid, credential_version } => {
                self.require(connection, uid, *credential_version)
            }
        }
    }

    fn insert(&mut self, record: &ConnectionRecord) -> Result<(), StoreError> {
        let name = &record.connection.name;
        if record.revision != Revision(1) {
            return Err(StoreError::Stale);
        }
        if layout::id_taken(self, name)? {
            return Err(StoreError::IdTaken);
        }
        self.claim_name(claimed_by(record), record)?;
        self.put_connection(record);
        self.count(&name.tenant, |row| {
            row.connections += 1;
            row.names += 1;
        })
    }

    fn replace(&mut self, record: &ConnectionRecord, expected: Revision) -> Result<(), StoreError> {
        let old = layout::connection(self, &record.connection.name)?;
        if old.revision != expected || expected.0.checked_add(1) != Some(record.revision.0) {
            return Err(StoreError::Stale);
        }
        let (freed, claimed) = (claimed_by(&old), claimed_by(record));
        if freed != claimed {
            self.claim_name(claimed, record)?;
            self.staged.writes.insert(freed, None);
        }
        self.put_connection(record);
        Ok(())
    }

    fn remove(&mut self, name: &ConnectionName, expected: Revision) -> Result<(), StoreError> {
        let old = layout::connection(self, name)?;
        if old.revision != expected {
            return Err(StoreError::Stale);
        }
        if layout::links::link_count(self, name)? > 0 {
            return Err(StoreError::InUse);
        }
        self.staged.writes.insert(claimed_by(&old), None);
        self.staged.writes.insert(layout::connection_key(name), None);
        self.put(layout::retired_key(name), &RetiredRow { uid: old.connection.uid });
        self.count(&name.tenant, |row| {
            // Saturating: a count that is wrong is for the check at the next start, not for a panic here.
            row.connections = row.connections.saturating_sub(1);
            row.names = row.names.saturating_sub(1);
            row.retired += 1;
        })
    }

    fn append(&mut self, event: &Event) -> Result<(), StoreError> {
        let tenant = &event.tenant;
        let chain = self.chain.ok_or_else(trail::no_chain)?;
        let mut head = self.head(chain, tenant)?;
        let sequence = head.row.last.saturating_add(1);
        let bytes = record::encode_event(event);
        let hash = chain.link(&head.row.hash, tenant, sequence, &bytes);
        head.row.last = sequence;
        head.row.hash.clone_from(&hash);
        let key = layout::event_key(tenant, sequence);
        let row = record::wrap_event(&key, bytes, hash);
        self.staged.writes.insert(key, Some(row));
        for connection in &event.connections {
            self.put(layout::trail_index_key(tenant, connection, sequence), &IndexRow {});
        }
        self.staged.heads.insert(tenant.clone(), head);
        self.count(tenant, |row| row.last_event = sequence)
    }

    /// The head of a tenant's trail as it is planned.
    fn head(&self, chain: &Chain, tenant: &TenantId) -> Result<Head, StoreError> {
        if let Some(planned) = self.staged.heads.get(tenant).or_else(|| self.settled.heads.get(tenant)) {
            return Ok(planned.clone());
        }
        let last = layout::tenant_row(self.below, tenant)?.unwrap_or_default().last_event;
        let mut head = trail::head(self.below, tenant, last)?;
        head.take_over(chain, tenant, last);
        Ok(head)
    }

    fn remember(&mut self, remembered: &Remembered) -> Result<(), StoreError> {
        let Remembered { tenant, request_id, time, .. } = remembered;
        let key = layout::request_key(tenant, request_id);
        if self.get(&key)?.is_some() {
            return Err(StoreError::RequestRemembered);
        }
        let bytes = record::encode_remembered(&key, remembered);
        self.staged.writes.insert(key, Some(bytes));
        self.put(layout::request_time_key(*time, tenant, request_id), &IndexRow {});
        Ok(())
    }

    fn identify(&mut self, sealed: &Sealed) -> Result<(), StoreError> {
        if layout::identity(self)?.is_none() {
            self.put(layout::IDENTITY.to_vec(), &IdentityRow { sealed: sealed.0.clone() });
        }
        Ok(())
    }

    fn claim_name(&mut self, claimed: Vec<u8>, record: &ConnectionRecord) -> Result<(), StoreError> {
        if let Some(owner) = layout::owner(self, &claimed)? {
            return Err(StoreError::NameTaken { owner });
        }
        self.put(claimed, &NameRow { owner: record.connection.name.id.as_str().to_owned() });
        Ok(())
    }

    fn count(&mut self, tenant: &TenantId, change: impl FnOnce(&mut TenantRow)) -> Result<(), StoreError> {
        let planned = self.staged.tenants.get(tenant).or_else(|| self.settled.tenants.get(tenant)).copied();
        let mut counts = match planned {
            Some(counts) => counts,
            None => {
                let row = layout::tenant_row(self.below, tenant)?;
                Counts { row: row.unwrap_or_default(), is_new: row.is_none() }
            }
        };
        change(&mut counts.row);
        self.staged.tenants.insert(tenant.clone(), counts);
        Ok(())
    }

    fn put_connection(&mut self, record: &ConnectionRecord) {
        let key = layout::connection_key(&record.connection.name);
        let bytes = record::encode_connection(&key, record);
        self.staged.writes.insert(key, Some(bytes));
    }

    fn put(&mut self, key: Vec<u8>, row: &impl prost::Message) {
        let bytes = record::wrap(&key, row);
        self.staged.writes.insert(key, Some(bytes));
    }
}

fn claimed_by(record: &ConnectionRecord) -> Vec<u8> {
    let connection = &record.connection;
    layout::name_key(&connection.name.tenant, &connection.provider, &connection.display_name.fold())
}

/// Reads of single rows see what is planned.
impl<R: Rows> Rows for Plan<'_, R> {
    type Value = Vec<u8>;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.staged.writes.get(key).or_else(|| self.settled.writes.get(key)) {
            Some(planned) => Ok(planned.clone()),
            None => Ok(self.below.get(key)?.map(|bytes| bytes.as_ref().to_vec())),
        }
    }

    /// No check of a commit walks, so this shows what was there before it.
    fn walk(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.below.walk(from, to, visit)
    }
}
