//! What must outlive the process: records, their unique names, audit events, remembered requests.
//!
//! A backend is one file beside this one. All of them run the same conformance suite
//! (`tests/it/store.rs`), so what is promised here is promised by each.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::domain::connection::{
    ConnectionId, ConnectionName, ConnectionRecord, ProviderId, Revision, TenantId,
};
use crate::domain::credential::Sealed;
use crate::domain::event::{Entry, Event};
use crate::domain::link::{LinkId, LinkName, LinkRecord};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{WebhookKey, WebhookRecord};

mod bell;
mod chain;
mod layout;
pub mod memory;
mod plan;
mod record;
pub mod sled;
mod trail;

pub use chain::Chain;
pub use trail::{TrailFault, TrailProblem, TrailReport, TrailsReport, UnreadableEvent};

/// A place that keeps records. Reads see every commit that was acknowledged before they began, and may see
/// one that is about to be; only [`Store::remembered`] never shows what a power cut could still take back.
///
/// Dropping a future of a read has no effect; dropping one of [`Store::commit`] leaves it open
/// whether the commit happens, but never half of it.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The connection of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]; [`StoreError::Unreadable`] if its record does not decode.
    async fn connection(&self, name: &ConnectionName) -> Result<Arc<ConnectionRecord>, StoreError>;

    /// At most `limit` connections of one tenant in the order of their ids, after the id `after`. A
    /// record that does not decode is an entry of its own and stops nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    async fn connections(
        &self,
        tenant: &TenantId,
        after: Option<&ConnectionId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError>;

    /// Which connection of the tenant has that folded display name at that provider, if any.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    async fn name_owner(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        folded: &str,
    ) -> Result<Option<ConnectionId>, StoreError>;

    /// Whether an id was ever used in the tenant, by a connection that exists or by one that is gone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    async fn id_taken(&self, name: &ConnectionName) -> Result<bool, StoreError>;

    /// What was remembered for a request id of the tenant, if anything.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    async fn remembered(&self, tenant: &TenantId, request_id: &str)
    -> Result<Option<Remembered>, StoreError>;

    /// At most `limit` tenants that anything was ever stored for, in the order of their ids, after `after`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    async fn tenants(&self, after: Option<&TenantId>, limit: usize) -> Result<Vec<TenantId>, StoreError>;

    /// At most `limit` audit events of one tenant, oldest first, after the sequence number `after` (0: from the oldest
    /// one that is kept). With a `connection`, those of its trail; events that are older than the chain may be of
    /// others, too: the caller looks. One that does not decode or is gone is an entry of its own and stops nothing.
    /// An event that is shown is on disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]; [`StoreError::Unreadable`] if what guards the trail does not decode.
    async fn events(
        &self,
        tenant: &TenantId,
        connection: Option<&ConnectionId>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<ListedEvent>, StoreError>;

    /// The sequence numbers of the oldest audit event of a tenant that is kept and of the newest one. Where none is
    /// kept, the first is one more than the last. What is in it is on disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`]; [`StoreError::Unreadable`] if what guards the trail does not decode.
    async fn event_range(&self, tenant: &TenantId) -> Result<RangeInclusive<u64>, StoreError>;

    /// A signal that changes whenever an event of the tenant was appended, from now on.
    fn appended(&self, tenant: &TenantId) -> watch::Receiver<()>;

    /// Gives the store what makes the hashes of the audit trail: always the same for the same store. Before that it
    /// appends and forgets no events; a second one is ignored.
    fn chain_with(&self, chain: Chain);

    /// Looks at every audit event of every tenant: whether each is what was written, in its place. Takes as long as
    /// reading all of them.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], also before [`Store::chain_with`]; [`StoreError::Unreadable`] if what guards a
    /// trail does not decode.
    async fn check_trails(&self) -> Result<TrailsReport, StoreError>;

    /// The link of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]; [`StoreError::Unreadable`] if its record does not decode.
    async fn link(&self, name: &LinkName) -> Result<Arc<LinkRecord>, StoreError>;

    /// At most `limit` links of one tenant in the order of their ids, after the id `after`, as
    /// [`Store::connections`] lists connections.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    async fn links(
        &self,
        tenant: &TenantId,
        after: Option<&LinkId>,
        limit: usize,
    ) -> Result<Vec<ListedLink>, StoreError>;

    /// The ids of at most `limit` links of one connection in their order, after the id `after`; those that are being
    /// unlinked too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], [`StoreError::Unreadable`].
    async fn links_of(
        &self,
        connection: &ConnectionName,
        after: Option<&LinkId>,
        limit: usize,
    ) -> Result<Vec<LinkId>, StoreError>;

    /// How many live links the connection has.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], [`StoreError::Unreadable`].
    async fn link_count(&self, connection: &ConnectionName) -> Result<u64, StoreError>;

    /// Which live link of the tenant has that repository, if any.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], [`StoreError::Unreadable`].
    async fn link_of(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        instance: &str,
        repository_id: &str,
    ) -> Result<Option<LinkId>, StoreError>;

    /// Whether an id was ever used in the tenant, by a link that exists or by one that is gone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    async fn link_id_taken(&self, name: &LinkName) -> Result<bool, StoreError>;

    /// The webhook of that key.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`]; [`StoreError::Unreadable`] if its record does not decode.
    async fn webhook(&self, key: &WebhookKey) -> Result<Arc<WebhookRecord>, StoreError>;

    /// At most `limit` links and webhooks whose work is due at `until` or before, the longest due first, each with the
    /// moment it is due.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    async fn due(&self, until: Timestamp, limit: usize) -> Result<Vec<(Timestamp, Due)>, StoreError>;

    /// The service's own sealed secret, if one was committed; see [`Change::Identify`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    async fn identity(&self) -> Result<Option<Sealed>, StoreError>;

    /// Makes all the changes or none of them; later changes see earlier ones. When it returns `Ok`, they are on disk
    /// and survive a power cut (a backend without a disk: as long as the process).
    ///
    /// # Errors
    ///
    /// [`StoreError::NameTaken`], [`StoreError::IdTaken`], [`StoreError::RepositoryLinked`], [`StoreError::InUse`],
    /// [`StoreError::Stale`], [`StoreError::NotFound`] or
    /// [`StoreError::RequestRemembered`] if a change does not fit what is stored: nothing was changed.
    /// [`StoreError::Unreadable`] if a stored record that a change needs does not decode.
    /// [`StoreError::Unavailable`] if the disk refuses or was not heard of in time: whether the changes were made
    /// is then open until the store is opened again, and a store whose disk refused once takes no more commits.
    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError>;

    /// Forgets remembered requests made before `before`. Returns how many.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    async fn forget_requests(&self, before: Timestamp) -> Result<usize, StoreError>;

    /// Forgets the oldest audit events of a tenant, up to the first one that is not older than `before`. What is left
    /// still proves where it begins. Returns how many.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], also before [`Store::chain_with`]; [`StoreError::Unreadable`] if what guards the
    /// trail does not decode.
    async fn forget_events(&self, tenant: &TenantId, before: Timestamp) -> Result<usize, StoreError>;

    /// Waits until everything committed so far is on disk and no more is accepted: the last call before
    /// the process ends. Later commits fail with [`StoreError::Unavailable`].
    async fn close(&self);
}

/// One row of a listing.
pub type Listed = Result<Arc<ConnectionRecord>, UnreadableRecord>;

/// One event of a trail.
pub type ListedEvent = Result<Entry, UnreadableEvent>;

/// One row of a listing of links.
pub type ListedLink = Result<Arc<LinkRecord>, UnreadableRecord>;

/// What work is due for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Due {
    /// A link's repository is to be looked at.
    Link(LinkName),
    /// A webhook is to be compared with the provider, made, changed or removed.
    Webhook(WebhookKey),
}

/// A record that is there but does not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRecord {
    /// Its key, as text for an operator.
    pub key: String,
    /// The connection that it holds, where the key tells.
    pub connection: Option<ConnectionId>,
    /// The link that it holds, where the key tells.
    pub link: Option<LinkId>,
    /// Why it does not decode, without any of its content.
    pub problem: RecordProblem,
}

/// Why a stored record does not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblem {
    /// Its bytes are not what was written.
    #[error("the record is damaged")]
    Damaged,
    /// It is gone, and should be there.
    #[error("the record is missing")]
    Missing,
    /// A newer version of this program wrote it.
    #[error("the record has format version {found}, this program knows up to {known}; run the newer version")]
    TooNew {
        /// The version that was found.
        found: u8,
        /// The newest version that this program knows.
        known: u8,
    },
}

/// One part of a commit.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds a connection and claims its id and its folded display name. Its revision must be 1.
    Insert(Box<ConnectionRecord>),
    /// Replaces a connection, and moves its name claim if the name changed. The record carries the
    /// revision that it will have, which must be `expected` plus one.
    Replace {
        /// The record as it will be.
        record: Box<ConnectionRecord>,
        /// The revision that must be stored now.
        expected: Revision,
    },
    /// Removes a connection that no live link uses, and frees its display name; its id stays taken for ever.
    Remove {
        /// Which one.
        name: ConnectionName,
        /// The revision that must be stored now.
        expected: Revision,
    },
    /// Appends an audit event, gives it the next sequence number of its tenant, from 1 on, and chains it to the one
    /// before. [`StoreError::Unavailable`] before [`Store::chain_with`].
    Append(Event),
    /// Remembers a request id and its answer.
    Remember(Remembered),
    /// Stores the service's own sealed secret, unless one is stored ([`StoreError::RequestRemembered`] is not
    /// used for that: an existing one is simply kept and the commit goes on).
    Identify(Sealed),
    /// Adds a link and claims its id and its repository. Its revision must be 1, and its connection must be there.
    InsertLink(Box<LinkRecord>),
    /// Replaces a link, and moves its claims: to another connection or instance, or away if it is no longer live.
    ReplaceLink {
        /// The record as it will be, with the revision `expected` plus one.
        record: Box<LinkRecord>,
        /// The revision that must be stored now.
        expected: Revision,
    },
    /// Removes a link with its claims; its id stays taken for ever.
    RemoveLink {
        /// Which one.
        name: LinkName,
        /// The revision that must be stored now.
        expected: Revision,
    },
    /// Adds a webhook (`None`: none must be stored) or replaces it.
    PutWebhook {
        /// The record as it will be, with the revision 1 or `expected` plus one.
        record: Box<WebhookRecord>,
        /// The revision that must be stored now.
        expected: Option<Revision>,
    },
    /// Removes a webhook.
    RemoveWebhook {
        /// Which one.
        key: WebhookKey,
        /// The revision that must be stored now.
        expected: Revision,
    },
    /// Changes nothing, but lets the commit fail as [`StoreError::Stale`] unless the connection is still the one with
    /// that uid and credential, and enabled: what was proven with a credential holds for that one alone.
    Require {
        /// The connection.
        connection: ConnectionName,
        /// Its uid.
        uid: String,
        /// The version of its credential.
        credential_version: i64,
    },
}

/// What is kept of a request that changed something, so that its repetition has no second effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Whose request it was.
    pub tenant: TenantId,
    /// The id that the caller gave it.
    pub request_id: String,
    /// A keyed hash of method and content: tells a repetition from a reuse.
    pub fingerprint: Vec<u8>,
    /// What was answered: the encoded response message.
    pub answer: Vec<u8>,
    /// When.
    pub time: Timestamp,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such record.
    #[error("no such record")]
    NotFound,
    /// Another connection of the tenant and provider has that display name.
    #[error("the display name is taken")]
    NameTaken {
        /// The connection that has it.
        owner: ConnectionId,
    },
    /// The id is or was used.
    #[error("the id is taken")]
    IdTaken,
    /// A live link of the tenant has that repository.
    #[error("the repository is linked already")]
    RepositoryLinked {
        /// The link that has it.
        owner: LinkId,
    },
    /// Live links use the connection.
    #[error("links use the connection")]
    InUse,
    /// Somebody else wrote the record in between.
    #[error("the record has another revision than expected")]
    Stale,
    /// The request id was remembered in between.
    #[error("the request id is remembered already")]
    RequestRemembered,
    /// The record is there but does not decode.
    #[error("record {}: {}", .0.key, .0.problem)]
    Unreadable(UnreadableRecord),
    /// The store cannot work: the disk refuses, or it was closed.
    #[error("the store is not available: {problem}")]
    Unavailable {
        /// What happened, naming the file; no content of records.
        problem: String,
    },
}
