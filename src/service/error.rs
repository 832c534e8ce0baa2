//! What can go wrong, one variant for each thing that a caller can do about it.

use crate::domain::connection::ConnectionName;
use crate::domain::link::LinkName;
use crate::domain::timestamp::Timestamp;
use crate::domain::violation::FieldViolation;
use crate::provider::ProviderError;
use crate::seal::SealError;
use crate::store::StoreError;

/// Why a call was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are wrong; all of them are listed.
    #[error("the request has invalid fields")]
    Invalid(Vec<FieldViolation>),
    /// There is no such provider.
    #[error("there is no provider `{0}`")]
    ProviderNotFound(String),
    /// The tenant has no such connection.
    #[error("there is no connection {0}")]
    ConnectionNotFound(String),
    /// The connection shows no such repository.
    #[error("the connection {connection} shows no repository `{repository}`")]
    RepositoryNotFound {
        /// Which connection.
        connection: ConnectionName,
        /// What was looked for.
        repository: String,
    },
    /// Another connection of the tenant and provider has that display name.
    #[error("another connection has that display name")]
    NameTaken {
        /// The one that has it.
        owner: ConnectionName,
        /// The provider of both.
        provider: String,
    },
    /// The id is or was used.
    #[error("the id is or was used")]
    IdTaken {
        /// The name that cannot be had.
        name: String,
    },
    /// The events behind a resume token are no longer kept.
    #[error("the events behind the resume token are no longer kept")]
    ResumeTokenExpired,
    /// A watcher reads slower than connections change.
    #[error("the watcher is too slow")]
    WatcherTooSlow {
        /// Goes on behind the last message that it was sent.
        resume_token: String,
    },
    /// The tenant has no such repository link, or it is being unlinked.
    #[error("there is no repository link {0}")]
    LinkNotFound(String),
    /// The tenant has a link to this repository.
    #[error("the repository is linked already")]
    AlreadyLinked {
        /// The link that has it.
        owner: LinkName,
    },
    /// Repositories are linked through the connection.
    #[error("repositories are linked through the connection")]
    InUse {
        /// Which connection.
        name: ConnectionName,
        /// Some of the links.
        links: Vec<LinkName>,
        /// How many there are.
        count: u64,
    },
    /// The tenant has no other connection of the provider to switch to.
    #[error("there is no other connection of the provider")]
    NoAlternate {
        /// The link.
        link: LinkName,
        /// The provider's id.
        provider: String,
    },
    /// The connection is of another provider than the link.
    #[error("the connection is of another provider")]
    ProviderMismatch {
        /// The connection.
        connection: ConnectionName,
        /// The provider of the connection.
        found: String,
        /// The provider of the link.
        wanted: String,
    },
    /// A connection does not reach repositories that it has to reach.
    #[error("the connection does not reach the repository")]
    NotAccessible {
        /// The connection.
        connection: ConnectionName,
        /// What it does not reach, and why: the subject of a precondition, and its words.
        lost: Vec<(String, String)>,
    },
    /// The token may not manage the repository's webhooks.
    #[error("the token may not manage the repository's webhooks")]
    WebhookPermissionMissing {
        /// The link.
        link: LinkName,
        /// What is missing, for people.
        told: String,
    },
    /// The etag is not that of the stored resource, or somebody wrote it in between.
    #[error("the resource changed in between")]
    Stale {
        /// Which resource.
        name: String,
    },
    /// The request id came before, with another content.
    #[error("the request id was used for another request")]
    RequestIdReused,
    /// The same request came twice at once, and the other one was answered.
    #[error("the request was answered in between")]
    AlreadyAnswered,
    /// The page token is damaged, too old, or of another request.
    #[error("the page token does not belong to this request")]
    PageTokenInvalid,
    /// The connection is switched off.
    #[error("the connection is disabled")]
    Disabled {
        /// Which one.
        name: ConnectionName,
    },
    /// The new credential is of another account.
    #[error("the new credential belongs to another account")]
    AccountChanged {
        /// Which connection.
        name: ConnectionName,
        /// The account now, for people.
        current: String,
        /// The account of the new credential, for people.
        supplied: String,
    },
    /// A provider call failed.
    #[error("{error}")]
    Provider {
        /// How.
        error: ProviderError,
        /// Whose credential it was.
        credential: CredentialOrigin,
        /// The provider's title, for people.
        provider: &'static str,
    },
    /// The connection's token has ended, by the provider's own word of its time.
    #[error("the connection's token has ended")]
    CredentialExpired {
        /// Which connection.
        name: ConnectionName,
        /// When it ended.
        expire_time: Timestamp,
    },
    /// The key that seals the record is not in the key ring.
    #[error("the key {key_id} is not in the key file")]
    KeyUnavailable {
        /// The id of the key.
        key_id: String,
    },
    /// The stored record or its sealed secret does not open.
    #[error("the stored record cannot be read")]
    Unreadable {
        /// Which connection.
        name: String,
        /// Why, for the log.
        problem: String,
    },
    /// The store cannot work.
    #[error("the store is not available")]
    StoreUnavailable {
        /// Why, for the log.
        problem: String,
    },
    /// The caller's deadline passed.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// One entry of a batch failed, and so did the batch.
    #[error("requests[{index}]: {error}")]
    Entry {
        /// Which one, from 0 on.
        index: usize,
        /// How.
        error: Box<Self>,
    },
    /// A defect of this program.
    #[error("internal error")]
    Bug {
        /// What, for the log.
        problem: String,
    },
}

/// Where the credential of a provider call came from; the same refusal is answered differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialOrigin {
    /// The caller sent it with this call.
    Supplied {
        /// The path of the field in the request, such as `connection.credential`.
        field: &'static str,
    },
    /// It was stored.
    Stored {
        /// When it ends, as far as is known.
        expire_time: Option<Timestamp>,
    },
}

impl Error {
    /// One violation as an error.
    #[must_use]
    pub fn invalid(violation: FieldViolation) -> Self {
        Self::Invalid(vec![violation])
    }

    /// The failure of an entry of a batch.
    #[must_use]
    pub fn in_entry(self, index: usize) -> Self {
        match self {
            // Violations name their entries themselves.
            Self::Invalid(_) | Self::Entry { .. } => self,
            error => Self::Entry { index, error: Box::new(error) },
        }
    }

    /// The same failure, of a request that was no batch.
    #[must_use]
    pub fn without_entry(self) -> Self {
        match self {
            Self::Entry { error, .. } => *error,
            error => error,
        }
    }

    /// A store error about the connection `name`.
    #[must_use]
    pub fn from_store(error: StoreError, name: &ConnectionName, provider: &str) -> Self {
        match error {
            StoreError::NotFound => Self::ConnectionNotFound(name.to_string()),
            StoreError::NameTaken { owner } => Self::NameTaken {
                owner: ConnectionName { tenant: name.tenant.clone(), id: owner },
                provider: provider.to_owned(),
            },
            StoreError::IdTaken => Self::IdTaken { name: name.to_string() },
            StoreError::Stale => Self::Stale { name: name.to_string() },
            StoreError::InUse => Self::InUse { name: name.clone(), links: Vec::new(), count: 0 },
            // Its links moved along to another instance, where one of the repositories has a link.
            StoreError::RepositoryLinked { owner } => {
                Self::AlreadyLinked { owner: LinkName { tenant: name.tenant.clone(), id: owner } }
            }
            StoreError::RequestRemembered => Self::AlreadyAnswered,
            StoreError::Unreadable(record) => {
                Self::Unreadable { name: name.to_string(), problem: record.problem.to_string() }
            }
            StoreError::Unavailable { problem } => Self::StoreUnavailable { problem },
        }
    }

    /// A store error about the link `name` (or its webhook).
    #[must_use]
    pub fn from_link_store(error: StoreError, name: &LinkName) -> Self {
        match error {
            StoreError::NotFound => Self::LinkNotFound(name.to_string()),
            StoreError::IdTaken => Self::IdTaken { name: name.to_string() },
            StoreError::RepositoryLinked { owner } => {
                Self::AlreadyLinked { owner: LinkName { tenant: name.tenant.clone(), id: owner } }
            }
            StoreError::Stale => Self::Stale { name: name.to_string() },
            StoreError::RequestRemembered => Self::AlreadyAnswered,
            StoreError::Unreadable(record) => {
                Self::Unreadable { name: name.to_string(), problem: record.problem.to_string() }
            }
            StoreError::Unavailable { problem } => Self::StoreUnavailable { problem },
            StoreError::NameTaken { .. } | StoreError::InUse => {
                Self::Bug { problem: "a commit about a link failed as one about a connection".to_owned() }
            }
        }
    }

    /// An error of sealing or opening the secret of the connection `name`.
    #[must_use]
    pub fn from_seal(error: SealError, name: &ConnectionName) -> Self {
        match error {
            SealError::KeyUnavailable { key_id } => Self::KeyUnavailable { key_id },
            other => Self::Unreadable { name: name.to_string(), problem: other.to_string() },
        }
    }
}
