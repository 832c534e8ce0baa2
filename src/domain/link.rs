//! A repository link: a tenant's stored choice of one repository, reached through one connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::connection::{
    Condition, ConnectionId, ConnectionName, ProviderId, Revision, TenantId, parse_chosen_id, parse_id,
};
use super::repository::Repository;
use super::timestamp::Timestamp;
use super::violation::Refusal;
use super::webhook::{WebhookEvent, WebhookKey};

/// How many switches a link remembers.
pub const MAX_HISTORY: usize = 20;
/// How many former names of its repository a link remembers, the newest ones.
pub const MAX_PREVIOUS_NAMES: usize = 20;

/// The id of a link inside its tenant; never used again after the link is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(String);

impl LinkId {
    /// Parses an id that a caller chose: `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`.
    ///
    /// # Errors
    ///
    /// `MALFORMED` or `TOKEN_IN_TEXT`.
    pub fn parse_chosen(text: &str) -> Result<Self, Refusal> {
        parse_chosen_id(text, "link").map(Self)
    }

    /// Parses an id as it may stand in a resource name: a chosen one, or a generated UUID in lower case.
    ///
    /// # Errors
    ///
    /// `MALFORMED` or `TOKEN_IN_TEXT`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        parse_id(text, "link").map(Self)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a link is found: its tenant and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkName {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which one.
    pub id: LinkId,
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/repositoryLinks/{}", self.tenant, self.id)
    }
}

/// What becomes of the webhook of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookMode {
    /// This service makes it and keeps it alive.
    Auto,
    /// A person makes it; this service holds the secret and verifies deliveries.
    Manual,
    /// There is none.
    None,
}

impl WebhookMode {
    /// The stable word of this mode, such as `AUTO`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "AUTO",
            Self::Manual => "MANUAL",
            Self::None => "NONE",
        }
    }
}

/// How a link fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// The repository was not seen yet through the link's connection as it is now.
    Pending,
    /// The connection sees the repository.
    Linked,
    /// The connection is refused, or sees nothing where another connection of the tenant sees the repository.
    AccessLost,
    /// There is no such repository any more, as far as a credential that works can see.
    NotFound,
    /// It was unlinked, and its webhook is still being removed. It holds nothing any more.
    Unlinking,
}

impl LinkState {
    /// The stable word of this state, such as `ACCESS_LOST`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Linked => "LINKED",
            Self::AccessLost => "ACCESS_LOST",
            Self::NotFound => "NOT_FOUND",
            Self::Unlinking => "UNLINKING",
        }
    }
}

/// One connection that a link had, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The connection.
    pub connection: ConnectionId,
    /// Who chose it.
    pub actor: String,
    /// When.
    pub time: Timestamp,
}

/// A repository link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Tenant and id.
    pub name: LinkName,
    /// A UUIDv7 of its own.
    pub uid: String,
    /// The connection of the same tenant that reaches the repository.
    pub connection: ConnectionId,
    /// The provider of both; never changes.
    pub provider: ProviderId,
    /// The instance that holds the repository: `effective_api_url` of the connection when access was last proven.
    pub instance: String,
    /// The repository as it was last seen.
    pub repository: Repository,
    /// What becomes of its webhook.
    pub webhook_mode: WebhookMode,
    /// What the webhook tells; empty without one.
    pub webhook_events: BTreeSet<WebhookEvent>,
    /// Where the webhook delivers to, canonical; empty without one.
    pub webhook_target_url: String,
    /// How the link fares.
    pub state: LinkState,
    /// Why.
    pub conditions: Vec<Condition>,
    /// The connections that it had, oldest first, the current one last; at most [`MAX_HISTORY`].
    pub connection_history: Vec<HistoryEntry>,
    /// The names that its repository had before, oldest first; at most [`MAX_PREVIOUS_NAMES`].
    pub previous_full_names: Vec<String>,
    /// Short texts to select by.
    pub labels: BTreeMap<String, String>,
    /// Texts that this service keeps without reading them.
    pub annotations: BTreeMap<String, String>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When a caller last changed it, or its repository was last found changed.
    pub update_time: Timestamp,
    /// Counts the changes that a reader can see, from 1 on; the etag is made of it.
    pub generation: u64,
}

impl Link {
    /// The connection that reaches the repository.
    #[must_use]
    pub fn connection_name(&self) -> ConnectionName {
        ConnectionName { tenant: self.name.tenant.clone(), id: self.connection.clone() }
    }

    /// The webhook that the link counts on, if it has one.
    #[must_use]
    pub fn webhook_key(&self) -> Option<WebhookKey> {
        (self.webhook_mode != WebhookMode::None).then(|| self.target_key()).flatten()
    }

    /// The webhook of the link's target, also one that the link does not count on any more.
    #[must_use]
    pub fn target_key(&self) -> Option<WebhookKey> {
        (!self.webhook_target_url.is_empty()).then(|| WebhookKey {
            provider: self.provider.clone(),
            instance: self.instance.clone(),
            repository_id: self.repository.provider_id.clone(),
            target_url: self.webhook_target_url.clone(),
        })
    }

    /// Takes the repository as it was just seen, and remembers the name that it had before. One that it gets back, it has
    /// now and not before.
    pub fn see(&mut self, repository: Repository) {
        let before = std::mem::replace(&mut self.repository, repository).full_name;
        let now = &self.repository.full_name;
        if before != *now {
            self.previous_full_names.retain(|name| *name != before && name != now);
            self.previous_full_names.push(before);
            let surplus = self.previous_full_names.len().saturating_sub(MAX_PREVIOUS_NAMES);
            self.previous_full_names.drain(..surplus);
        }
    }

    /// Gives the link to another connection of the same instance, and remembers who did it.
    pub fn switch_to(&mut self, connection: ConnectionId, actor: String, time: Timestamp) {
        self.connection = connection.clone();
        self.connection_history.push(HistoryEntry { connection, actor, time });
        let surplus = self.connection_history.len().saturating_sub(MAX_HISTORY);
        self.connection_history.drain(..surplus);
    }

    /// Whether the link holds its repository: one that is being unlinked does not.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state != LinkState::Unlinking
    }
}

/// A link as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRecord {
    /// The link.
    pub link: Link,
    /// When its repository is to be looked at again; `None` while the link is being unlinked.
    pub due: Option<Timestamp>,
    /// Looks in a row that told nothing: they come further and further apart.
    pub attempts: u32,
    /// Counts the writes; the store compares it.
    pub revision: Revision,
}
