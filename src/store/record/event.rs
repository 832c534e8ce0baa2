//! The stored form of an audit event, and of what guards the trail.

use std::collections::BTreeMap;

use prost::Message;

use super::{RecordProblem, Stored, stored, unwrap, wrap};
use crate::domain::connection::{ConnectionId, ConnectionName, TenantId};
use crate::domain::event::{Event, EventType};
use crate::domain::timestamp::Timestamp;

/// An event as it stands in its row.
pub(in crate::store) struct StoredEvent {
    /// What was hashed.
    pub(in crate::store) bytes: Vec<u8>,
    /// Its hash; empty if it is older than the chain.
    pub(in crate::store) hash: Vec<u8>,
    /// What it says.
    pub(in crate::store) event: Event,
}

/// The encoded form of an event: what is hashed. Its tenant stands in its key, and in the hash.
pub(in crate::store) fn encode_event(event: &Event) -> Vec<u8> {
    EventRow::from(event).encode_to_vec()
}

/// The row of an encoded event with its hash.
pub(in crate::store) fn wrap_event(key: &[u8], bytes: Vec<u8>, hash: Vec<u8>) -> Vec<u8> {
    wrap(key, &ChainedRow { event: bytes, hash })
}

/// Reads back what [`wrap_event`] made for the same key, or a row of version 1, which holds the event itself.
pub(in crate::store) fn decode_event(
    key: &[u8],
    tenant: &TenantId,
    row: &[u8],
) -> Result<StoredEvent, RecordProblem> {
    let ChainedRow { event: bytes, hash } = unwrap(key, row)?;
    let event: EventRow = if bytes.is_empty() {
        unwrap(key, row)?
    } else {
        EventRow::decode(bytes.as_slice()).map_err(|_| RecordProblem::Damaged)?
    };
    let event = event.into_event(tenant.clone()).ok_or(RecordProblem::Damaged)?;
    Ok(StoredEvent { bytes, hash, event })
}

/// The head of a tenant's trail: from where to where it goes.
#[derive(Clone, PartialEq, Eq, Message)]
pub(in crate::store) struct TrailRow {
    /// The sequence number of the oldest event that is kept; one more than `last` if none is.
    #[prost(uint64, tag = "1")]
    pub(in crate::store) first: u64,
    /// The hash of the event before it; empty if there was none, or none with a hash.
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::store) before: Vec<u8>,
    /// The sequence number of the first event with a hash: those before it are older than the chain.
    #[prost(uint64, tag = "3")]
    pub(in crate::store) chained: u64,
    /// The sequence number of the newest event.
    #[prost(uint64, tag = "4")]
    pub(in crate::store) last: u64,
    /// Its hash; empty if it has none.
    #[prost(bytes = "vec", tag = "5")]
    pub(in crate::store) hash: Vec<u8>,
    /// The sequence number of the first event that had to be appended to a head that was not ours; 0 if none.
    #[prost(uint64, tag = "6")]
    pub(in crate::store) broken: u64,
    /// Proves the others.
    #[prost(bytes = "vec", tag = "7")]
    pub(in crate::store) mac: Vec<u8>,
}

/// How many heads there are, so that none goes unnoticed.
#[derive(Clone, PartialEq, Eq, Message)]
pub(in crate::store) struct TrailsRow {
    #[prost(uint64, tag = "1")]
    pub(in crate::store) trails: u64,
    /// Whether a head had to be counted onto a number that was not ours.
    #[prost(bool, tag = "2")]
    pub(in crate::store) broken: bool,
    /// Proves the others.
    #[prost(bytes = "vec", tag = "3")]
    pub(in crate::store) mac: Vec<u8>,
}

/// An event and its hash. The event is kept as the very bytes that were hashed. No tag of [`EventRow`] is used, so
/// that a row of version 1, which is one, reads as empty.
#[derive(Clone, PartialEq, Eq, Message)]
struct ChainedRow {
    #[prost(bytes = "vec", tag = "101")]
    event: Vec<u8>,
    #[prost(bytes = "vec", tag = "102")]
    hash: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct EventRow {
    #[prost(string, tag = "1")]
    uid: String,
    /// Version 1 alone: the connection that the event is about.
    #[prost(string, tag = "2")]
    connection: String,
    #[prost(int32, tag = "3")]
    event_type: i32,
    #[prost(string, tag = "4")]
    actor: String,
    #[prost(int64, tag = "5")]
    time: i64,
    #[prost(string, tag = "6")]
    request_id: String,
    #[prost(btree_map = "string, string", tag = "7")]
    before: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "8")]
    after: BTreeMap<String, String>,
    #[prost(string, tag = "9")]
    resource: String,
    #[prost(string, repeated, tag = "10")]
    connections: Vec<String>,
}

impl From<&Event> for EventRow {
    fn from(event: &Event) -> Self {
        let Event {
            uid,
            tenant: _,
            resource,
            connections,
            event_type,
            actor,
            time,
            request_id,
            before,
            after,
        } = event;
        Self {
            uid: uid.clone(),
            connection: String::new(),
            event_type: event_type.number(),
            actor: actor.clone(),
            time: time.unix_micros(),
            request_id: request_id.clone(),
            before: before.clone(),
            after: after.clone(),
            resource: resource.clone(),
            connections: connections.iter().map(|id| id.as_str().to_owned()).collect(),
        }
    }
}

impl EventRow {
    fn into_event(self, tenant: TenantId) -> Option<Event> {
        let ids = self.connections.iter().map(|id| ConnectionId::parse(id).ok());
        let (resource, connections) = if self.connection.is_empty() {
            (self.resource, ids.collect::<Option<_>>()?)
        } else {
            let id = ConnectionId::parse(&self.connection).ok()?;
            let name = ConnectionName { tenant: tenant.clone(), id: id.clone() };
            (name.to_string(), vec![id])
        };
        Some(Event {
            uid: self.uid,
            tenant,
            resource,
            connections,
            event_type: EventType::from_number(self.event_type)?,
            actor: self.actor,
            time: Timestamp::from_unix_micros(self.time),
            request_id: self.request_id,
            before: self.before,
            after: self.after,
        })
    }
}

stored!(EventType {
    ConnectionCreated = 1,
    ConnectionUpdated = 2,
    CredentialReplaced = 3,
    ConnectionDeleted = 4,
    StateChanged = 5,
    CredentialExpiring = 6,
    RepositoryLinked = 7,
    RepositoryLinkUpdated = 8,
    RepositoryUnlinked = 9,
    ConnectionSwitched = 10,
    RepositoryMoved = 11,
    RepositoryAccessChanged = 12,
    WebhookCreated = 13,
    WebhookUpdated = 14,
    WebhookAdopted = 15,
    WebhookRemoved = 16,
    WebhookOrphaned = 17,
    WebhookStateChanged = 18,
    WebhookSecretRotated = 19,
    WebhookSecretRead = 20,
    GitCredentialIssued = 21,
});
