//! Which row stands at which key, and the reads that every backend with ordered rows shares.
//!
//! ```text
//! a                                 how many audit trails there are
//! a tenant                          the head of a tenant's audit trail
//! b tenant 0 id 0 sequence (8)      the audit events by connection
//! c tenant 0 id                     a connection with its sealed secret
//! e tenant 0 sequence (8)           an audit event
//! h provider 0 instance 0 repository 0 target   a webhook with its sealed secrets
//! i tenant 0 id                     an id whose connection is gone
//! j tenant 0 id                     an id whose link is gone
//! k                                 the service's own sealed secret
//! l tenant 0 id                     a repository link
//! m                                 the store itself: layout version, number of commits and of tenants
//! n tenant 0 provider 0 name        a claimed display name, folded
//! r tenant 0 request id             a remembered request
//! s tenant                          how many rows of each kind the tenant has
//! t time (8) tenant 0 request id    the remembered requests by time
//! u tenant 0 provider 0 instance 0 repository   a linked repository, claimed by its link
//! w time (8) key of a record        the work that is due for a link or a webhook
//! x tenant 0 connection 0 id        the links by connection
//! y tenant 0 connection             how many live links the connection has
//! ```
//!
//! Numbers are big endian, so that the order of keys is theirs. Neither tenants nor ids nor names nor URLs can
//! hold the separator: the first two are letters, digits and `-`, the others have no control characters.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::record::{self, IdentityRow, NameRow, StoreRow, TenantRow, TrailRow, TrailsRow};
use super::{Listed, RecordProblem, Remembered, StoreError, UnreadableRecord};
use crate::domain::connection::{ConnectionId, ConnectionName, ConnectionRecord, ProviderId, TenantId};
use crate::domain::credential::Sealed;
use crate::domain::timestamp::Timestamp;

pub(super) mod links;

/// Rows in the order of their keys.
pub(super) trait Rows {
    /// What a row's bytes are held in.
    type Value: AsRef<[u8]>;

    /// The row at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Self::Value>, StoreError>;

    /// Shows the rows from `from` up to, but not including, `to` until `visit` breaks off.
    fn walk(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;
}

/// Is shown a key and its row, and says whether to go on.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// The keys of one remembered request.
pub(super) struct RequestKeys {
    /// Its place in the index by time.
    pub(super) time: Vec<u8>,
    /// Where it is found by its id.
    pub(super) request: Vec<u8>,
}

/// The key of the row that speaks of the whole store.
pub(super) const STORE: &[u8] = b"m";
/// The key of the service's own sealed secret.
pub(super) const IDENTITY: &[u8] = b"k";

/// The key of the row that counts the audit trails.
pub(super) const TRAILS: &[u8] = b"a";

/// The kind of the heads of audit trails.
pub(super) const TRAIL: u8 = b'a';
/// The kind of the rows of tenants.
pub(super) const TENANT: u8 = b's';
const TRAIL_INDEX: u8 = b'b';
const CONNECTION: u8 = b'c';
const EVENT: u8 = b'e';
const WEBHOOK: u8 = b'h';
const RETIRED: u8 = b'i';
const RETIRED_LINK: u8 = b'j';
const LINK: u8 = b'l';
const NAME: u8 = b'n';
const REQUEST: u8 = b'r';
const REQUEST_TIME: u8 = b't';
const CLAIM: u8 = b'u';
const DUE: u8 = b'w';
const LINK_INDEX: u8 = b'x';
const LINK_COUNT: u8 = b'y';

pub(super) fn connection_key(name: &ConnectionName) -> Vec<u8> {
    key(CONNECTION, &[name.tenant.as_str().as_bytes(), name.id.as_str().as_bytes()])
}

pub(super) fn retired_key(name: &ConnectionName) -> Vec<u8> {
    key(RETIRED, &[name.tenant.as_str().as_bytes(), name.id.as_str().as_bytes()])
}

pub(super) fn name_key(tenant: &TenantId, provider: &ProviderId, folded: &str) -> Vec<u8> {
    key(NAME, &[tenant.as_str().as_bytes(), provider.as_str().as_bytes(), folded.as_bytes()])
}

pub(super) fn event_key(tenant: &TenantId, sequence: u64) -> Vec<u8> {
    key(EVENT, &[tenant.as_str().as_bytes(), &sequence.to_be_bytes()])
}

/// Where the events of a tenant end.
pub(super) fn events_end(tenant: &TenantId) -> Vec<u8> {
    range_of(EVENT, tenant).1
}

/// The sequence number at the end of the key of an event, or of one in the index.
pub(super) fn sequence_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

pub(super) fn trail_key(tenant: &TenantId) -> Vec<u8> {
    key(TRAIL, &[tenant.as_str().as_bytes()])
}

pub(super) fn trail_index_key(tenant: &TenantId, connection: &ConnectionId, sequence: u64) -> Vec<u8> {
    let (tenant, connection) = (tenant.as_str().as_bytes(), connection.as_str().as_bytes());
    key(TRAIL_INDEX, &[tenant, connection, &sequence.to_be_bytes()])
}

/// The range of the index of a connection, from an event on.
pub(super) fn trail_index_range(
    tenant: &TenantId,
    connection: &ConnectionId,
    from: u64,
) -> (Vec<u8>, Vec<u8>) {
    let mut end = key(TRAIL_INDEX, &[tenant.as_str().as_bytes(), connection.as_str().as_bytes()]);
    end.push(1);
    (trail_index_key(tenant, connection, from), end)
}

pub(super) fn request_key(tenant: &TenantId, request_id: &str) -> Vec<u8> {
    key(REQUEST, &[tenant.as_str().as_bytes(), request_id.as_bytes()])
}

pub(super) fn tenant_key(tenant: &TenantId) -> Vec<u8> {
    key(TENANT, &[tenant.as_str().as_bytes()])
}

pub(super) fn request_time_key(time: Timestamp, tenant: &TenantId, request_id: &str) -> Vec<u8> {
    let mut bytes = request_time_prefix(time);
    bytes.extend_from_slice(tenant.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(request_id.as_bytes());
    bytes
}

/// Where the time index begins for requests of the moment `time`.
fn request_time_prefix(time: Timestamp) -> Vec<u8> {
    moment(REQUEST_TIME, time)
}

/// Where an index by time begins for the moment `time`.
fn moment(kind: u8, time: Timestamp) -> Vec<u8> {
    let mut bytes = vec![kind];
    // With the sign turned over, moments before 1970 sort before later ones.
    bytes.extend_from_slice(&(time.unix_micros().cast_unsigned() ^ (1 << 63)).to_be_bytes());
    bytes
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    bytes.push(kind);
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            bytes.push(0);
        }
        bytes.extend_from_slice(part);
    }
    bytes
}

/// The range of keys of one kind and tenant.
fn range_of(kind: u8, tenant: &TenantId) -> (Vec<u8>, Vec<u8>) {
    let mut from = key(kind, &[tenant.as_str().as_bytes()]);
    let mut to = from.clone();
    from.push(0);
    to.push(1);
    (from, to)
}

/// A key as text for an operator.
fn readable(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

/// A row that does not decode.
pub(super) fn unreadable(key: &[u8]) -> impl Fn(RecordProblem) -> StoreError {
    move |problem| {
        StoreError::Unreadable(UnreadableRecord { key: readable(key), connection: None, link: None, problem })
    }
}

/// See [`super::Store::connection`].
pub(super) fn connection(rows: &impl Rows, name: &ConnectionName) -> Result<ConnectionRecord, StoreError> {
    let key = connection_key(name);
    let bytes = rows.get(&key)?.ok_or(StoreError::NotFound)?;
    record::decode_connection(&key, name.clone(), bytes.as_ref())
        .map_err(|problem| StoreError::Unreadable(unreadable_connection(name, problem)))
}

fn unreadable_connection(name: &ConnectionName, problem: RecordProblem) -> UnreadableRecord {
    UnreadableRecord { key: name.to_string(), connection: Some(name.id.clone()), link: None, problem }
}

/// See [`super::Store::connections`].
pub(super) fn connections(
    rows: &impl Rows,
    tenant: &TenantId,
    after: Option<&ConnectionId>,
    limit: usize,
) -> Result<Vec<Listed>, StoreError> {
    let (first, to) = range_of(CONNECTION, tenant);
    let prefix = first.len();
    let from = after.map_or(first, |id| {
        let mut next = connection_key(&ConnectionName { tenant: tenant.clone(), id: id.clone() });
        next.push(0);
        next
    });
    let mut listed = Vec::new();
    if limit == 0 {
        return Ok(listed);
    }
    rows.walk(&from, &to, &mut |key, bytes| {
        let id = key.get(prefix..).and_then(|id| std::str::from_utf8(id).ok());
        listed.push(match id.and_then(|id| ConnectionId::parse(id).ok()) {
            Some(id) => {
                let name = ConnectionName { tenant: tenant.clone(), id };
                record::decode_connection(key, name.clone(), bytes)
                    .map(Arc::new)
                    .map_err(|problem| unreadable_connection(&name, problem))
            }
            None => Err(UnreadableRecord {
                key: readable(key),
                connection: None,
                link: None,
                problem: RecordProblem::Damaged,
            }),
        });
        if listed.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(listed)
}

/// See [`super::Store::name_owner`].
pub(super) fn name_owner(
    rows: &impl Rows,
    tenant: &TenantId,
    provider: &ProviderId,
    folded: &str,
) -> Result<Option<ConnectionId>, StoreError> {
    owner(rows, &name_key(tenant, provider, folded))
}

/// Whose the display name is that is claimed at `key`.
pub(super) fn owner(rows: &impl Rows, key: &[u8]) -> Result<Option<ConnectionId>, StoreError> {
    let Some(bytes) = rows.get(key)? else { return Ok(None) };
    let row: NameRow = record::unwrap(key, bytes.as_ref()).map_err(unreadable(key))?;
    let owner = ConnectionId::parse(&row.owner).map_err(|_| unreadable(key)(RecordProblem::Damaged))?;
    Ok(Some(owner))
}

/// See [`super::Store::id_taken`].
pub(super) fn id_taken(rows: &impl Rows, name: &ConnectionName) -> Result<bool, StoreError> {
    Ok(rows.get(&connection_key(name))?.is_some() || rows.get(&retired_key(name))?.is_some())
}

/// See [`super::Store::remembered`].
pub(super) fn remembered(
    rows: &impl Rows,
    tenant: &TenantId,
    request_id: &str,
) -> Result<Option<Remembered>, StoreError> {
    let key = request_key(tenant, request_id);
    let Some(bytes) = rows.get(&key)? else { return Ok(None) };
    record::decode_remembered(&key, tenant, request_id, bytes.as_ref()).map(Some).map_err(unreadable(&key))
}

/// See [`super::Store::tenants`].
pub(super) fn tenants(
    rows: &impl Rows,
    after: Option<&TenantId>,
    limit: usize,
) -> Result<Vec<TenantId>, StoreError> {
    let from = after.map_or(vec![TENANT], |tenant| {
        let mut next = tenant_key(tenant);
        next.push(0);
        next
    });
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    rows.walk(&from, &[TENANT + 1], &mut |key, _| {
        found.extend(tenant_of(key));
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

/// The tenants that have a row of `kind`, which has one for each.
pub(super) fn tenants_of(rows: &impl Rows, kind: u8) -> Result<Vec<TenantId>, StoreError> {
    let mut found = Vec::new();
    rows.walk(&[kind], &[kind + 1], &mut |key, _| {
        found.extend(tenant_of(key));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn tenant_of(key: &[u8]) -> Option<TenantId> {
    TenantId::parse(std::str::from_utf8(key.get(1..)?).ok()?).ok()
}

/// See [`super::Store::identity`].
pub(super) fn identity(rows: &impl Rows) -> Result<Option<Sealed>, StoreError> {
    let Some(bytes) = rows.get(IDENTITY)? else { return Ok(None) };
    let row: IdentityRow = record::unwrap(IDENTITY, bytes.as_ref()).map_err(unreadable(IDENTITY))?;
    Ok(Some(Sealed(row.sealed)))
}

/// The tenant's row, or `None` for a tenant that nothing was ever stored for.
pub(super) fn tenant_row(rows: &impl Rows, tenant: &TenantId) -> Result<Option<TenantRow>, StoreError> {
    let key = tenant_key(tenant);
    let Some(bytes) = rows.get(&key)? else { return Ok(None) };
    record::unwrap(&key, bytes.as_ref()).map(Some).map_err(unreadable(&key))
}

/// The store's own row, or `None` in an empty store.
pub(super) fn store_row(rows: &impl Rows) -> Result<Option<StoreRow>, StoreError> {
    let Some(bytes) = rows.get(STORE)? else { return Ok(None) };
    record::unwrap(STORE, bytes.as_ref()).map(Some).map_err(unreadable(STORE))
}

/// The remembered requests made before `before`, oldest first, at most `limit`.
pub(super) fn requests_before(
    rows: &impl Rows,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<RequestKeys>, StoreError> {
    let prefix = request_time_prefix(before).len();
    let mut found = Vec::new();
    rows.walk(&[REQUEST_TIME], &request_time_prefix(before), &mut |key, _| {
        let mut request = vec![REQUEST];
        request.extend_from_slice(key.get(prefix..).unwrap_or_default());
        found.push(RequestKeys { time: key.to_vec(), request });
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

/// Counts what is there and compares it with what should be: every connection, link, claimed name and
/// repository, retired id and tenant, and the newest event of each tenant. Events in between are not walked, so that
/// the age of a store does not slow its start: whoever reads them notices their gaps. Costs one walk over the
/// connections.
///
/// Returns what is wrong, in words for an operator.
pub(super) fn missing(rows: &impl Rows, store: StoreRow) -> Result<Option<String>, StoreError> {
    let mut found: BTreeMap<Vec<u8>, TenantRow> = BTreeMap::new();
    for kind in [CONNECTION, NAME, RETIRED, LINK, CLAIM, RETIRED_LINK] {
        rows.walk(&[kind], &[kind + 1], &mut |key, _| {
            let tenant = key.get(1..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
            let row = match found.get_mut(tenant) {
                Some(row) => row,
                None => found.entry(tenant.to_vec()).or_default(),
            };
            match kind {
                CONNECTION => row.connections += 1,
                NAME => row.names += 1,
                RETIRED => row.retired += 1,
                LINK => row.links += 1,
                CLAIM => row.claims += 1,
                _ => row.retired_links += 1,
            }
            ControlFlow::Continue(())
        })?;
    }
    if let Some(bytes) = rows.get(TRAILS)?
        && record::unwrap::<TrailsRow>(TRAILS, bytes.as_ref()).is_err()
    {
        return Ok(Some("the number of audit trails is damaged".to_owned()));
    }
    let mut tenants = Vec::new();
    rows.walk(&[TENANT], &[TENANT + 1], &mut |key, bytes| {
        tenants.push((key.to_vec(), record::unwrap::<TenantRow>(key, bytes)));
        ControlFlow::Continue(())
    })?;
    if tenants.len() as u64 != store.tenants {
        return Ok(Some(format!("{} tenants are there and {} should be", tenants.len(), store.tenants)));
    }
    for (key, row) in tenants {
        let id = key.get(1..).unwrap_or_default();
        let tenant = id.escape_ascii();
        let Ok(wanted) = row else { return Ok(Some(format!("the row of tenant {tenant} is damaged"))) };
        let found = found.remove(id).unwrap_or_default();
        for (what, found, wanted) in [
            ("connections", found.connections, wanted.connections),
            ("display names", found.names, wanted.names),
            ("ids of deleted connections", found.retired, wanted.retired),
            ("repository links", found.links, wanted.links),
            ("linked repositories", found.claims, wanted.claims),
            ("ids of deleted links", found.retired_links, wanted.retired_links),
        ] {
            if found != wanted {
                return Ok(Some(format!("tenant {tenant} has {found} {what} and should have {wanted}")));
            }
        }
        let trail_key = self::key(TRAIL, &[id]);
        let first = match rows.get(&trail_key)? {
            Some(bytes) => match record::unwrap::<TrailRow>(&trail_key, bytes.as_ref()) {
                Ok(row) => row.first,
                Err(_) => {
                    return Ok(Some(format!("the head of the audit trail of tenant {tenant} is damaged")));
                }
            },
            None => 1,
        };
        if first <= wanted.last_event {
            let newest = self::key(EVENT, &[id, &wanted.last_event.to_be_bytes()]);
            if rows.get(&newest)?.is_none() {
                return Ok(Some(format!("audit event {} of tenant {tenant} is missing", wanted.last_event)));
            }
        }
    }
    Ok(found.keys().next().map(|id| format!("tenant {} has rows and should have none", id.escape_ascii())))
}
