//! What the audit trail keeps: one event for each change and for each secret that leaves to a caller.

use std::collections::BTreeMap;

use super::connection::{ConnectionId, TenantId};
use super::timestamp::Timestamp;

/// Who did what the service did by itself.
pub const SYSTEM: &str = "system";

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
    /// Its credential ends soon; told once for each version of it.
    CredentialExpiring,
    /// A repository was linked.
    RepositoryLinked,
    /// Something of a link was changed by a caller.
    RepositoryLinkUpdated,
    /// A repository was unlinked.
    RepositoryUnlinked,
    /// A link was moved to another connection.
    ConnectionSwitched,
    /// A linked repository was renamed or transferred at its provider.
    RepositoryMoved,
    /// A linked repository came into sight or out of it: LINKED, `ACCESS_LOST`, `NOT_FOUND`.
    RepositoryAccessChanged,
    /// A webhook was made at the provider.
    WebhookCreated,
    /// A webhook was changed at the provider: repaired, or given other events.
    WebhookUpdated,
    /// A webhook that somebody had made was taken over.
    WebhookAdopted,
    /// A webhook was removed from the provider.
    WebhookRemoved,
    /// A webhook could not be removed in time and stays at the provider.
    WebhookOrphaned,
    /// A webhook was found in another state than before.
    WebhookStateChanged,
    /// A webhook got another secret.
    WebhookSecretRotated,
    /// A caller was told a webhook's secret.
    WebhookSecretRead,
    /// A caller was given a credential for git.
    GitCredentialIssued,
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
            Self::CredentialExpiring => "CREDENTIAL_EXPIRING",
            Self::RepositoryLinked => "REPOSITORY_LINKED",
            Self::RepositoryLinkUpdated => "REPOSITORY_LINK_UPDATED",
            Self::RepositoryUnlinked => "REPOSITORY_UNLINKED",
            Self::ConnectionSwitched => "CONNECTION_SWITCHED",
            Self::RepositoryMoved => "REPOSITORY_MOVED",
            Self::RepositoryAccessChanged => "REPOSITORY_ACCESS_CHANGED",
            Self::WebhookCreated => "WEBHOOK_CREATED",
            Self::WebhookUpdated => "WEBHOOK_UPDATED",
            Self::WebhookAdopted => "WEBHOOK_ADOPTED",
            Self::WebhookRemoved => "WEBHOOK_REMOVED",
            Self::WebhookOrphaned => "WEBHOOK_ORPHANED",
            Self::WebhookStateChanged => "WEBHOOK_STATE_CHANGED",
            Self::WebhookSecretRotated => "WEBHOOK_SECRET_ROTATED",
            Self::WebhookSecretRead => "WEBHOOK_SECRET_READ",
            Self::GitCredentialIssued => "GIT_CREDENTIAL_ISSUED",
        }
    }
}

/// What happened once. The store gives it its place in the audit trail when it commits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// A UUIDv7 of its own.
    pub uid: String,
    /// Whose trail it belongs to.
    pub tenant: TenantId,
    /// The full name of what it is about: a connection, a repository link, a webhook or a
    /// repository.
    pub resource: String,
    /// In whose trails it shows, each once: mostly one connection, two where a link moved from one to the other.
    pub connections: Vec<ConnectionId>,
    /// What happened.
    pub event_type: EventType,
    /// Who did it: the caller, or [`SYSTEM`].
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

/// An event at its place in the audit trail of its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place: 1 for the tenant's first event, without gaps.
    pub sequence: u64,
    /// What happened.
    pub event: Event,
    /// What chains it to the one before; empty if it is older than the chain.
    pub hash: Vec<u8>,
}
