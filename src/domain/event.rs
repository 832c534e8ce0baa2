//! What the audit trail keeps: one event for each change and for each use of a secret by a person.

use std::collections::BTreeMap;

use super::connection::{ConnectionId, TenantId};
use super::timestamp::Timestamp;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A connection was made.
    ConnectionCreated,
    /// Something other than its credential was changed.
    ConnectionUpdated,
    /// It got another credential.
    CredentialReplaced,
    /// It was deleted.
    ConnectionDeleted,
    /// It was verified, and its state or account is another one than before.
    StateChanged,
}

impl EventType {
    /// The stable word of this type, such as `CONNECTION_CREATED`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionCreated => "CONNECTION_CREATED",
            Self::ConnectionUpdated => "CONNECTION_UPDATED",
            Self::CredentialReplaced => "CREDENTIAL_REPLACED",
            Self::ConnectionDeleted => "CONNECTION_DELETED",
            Self::StateChanged => "STATE_CHANGED",
        }
    }
}

/// One entry of the audit trail. The store gives it its place (a sequence number) when it commits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// A UUIDv7 of its own.
    pub uid: String,
    /// Whose trail it belongs to.
    pub tenant: TenantId,
    /// The connection that it is about.
    pub connection: ConnectionId,
    /// What happened.
    pub event_type: EventType,
    /// Who did it: the caller, or `system`.
    pub actor: String,
    /// When.
    pub time: Timestamp,
    /// The id of the gRPC request that did it; empty for the service's own doings.
    pub request_id: String,
    /// The changed fields as they were: field path to text, never a secret.
    pub before: BTreeMap<String, String>,
    /// The changed fields as they are now.
    pub after: BTreeMap<String, String>,
}
