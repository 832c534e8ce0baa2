//! Webhooks: what a link wants to be told, and how a provider shows that it tells.

use std::collections::{BTreeMap, BTreeSet};

use super::connection::{Condition, ConnectionId, ConnectionName, ConnectionRecord, ProviderId, Revision};
use super::credential::Sealed;
use super::link::LinkName;
use super::timestamp::Timestamp;

/// What a provider can tell, in one vocabulary for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WebhookEvent {
    /// Commits were pushed to a branch, or a branch came or went.
    Push,
    /// A tag was created, moved or deleted.
    Tag,
    /// A pull request was opened, changed, merged or closed.
    PullRequest,
    /// Anything else: only told, never chosen.
    Other,
}

impl WebhookEvent {
    /// Those that can be chosen.
    pub const CHOSEN: [Self; 3] = [Self::Push, Self::Tag, Self::PullRequest];

    /// The stable word of this event, such as `PULL_REQUEST`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "PUSH",
            Self::Tag => "TAG",
            Self::PullRequest => "PULL_REQUEST",
            Self::Other => "OTHER",
        }
    }
}

/// How a delivery proves that it comes from the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretScheme {
    /// An HMAC-SHA256 of the body under the text of the secret.
    HmacSha256,
    /// The secret itself in a header (GitLab).
    Token,
    /// An HMAC-SHA256 of id, time and body under the bytes of the secret (GitLab 19.0 and above).
    SigningToken,
    /// The secret as the password of basic authentication (Azure DevOps).
    BasicAuth,
}

/// Whether a provider takes another secret for a hook that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretUpdate {
    /// With the same call that changes the hook.
    InPlace,
    /// Never: another secret needs another hook, and the old one goes.
    NewHook,
}

/// The user name of the basic-authentication form: the provider wants one, nobody compares it.
pub const BASIC_AUTH_USERNAME: &str = "gitmoor";

/// The webhook that a repository should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedWebhook {
    /// Where deliveries go, canonical.
    pub target_url: String,
    /// What is told; never empty, never [`WebhookEvent::Other`].
    pub events: BTreeSet<WebhookEvent>,
    /// The server's version as the connection knows it; empty where unknown. Some servers have more than others.
    pub server_version: String,
}

/// A webhook as the provider shows it. Its secret is never part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteWebhook {
    /// What the provider finds it by. Where one webhook is several subscriptions: their ids, sorted, joined by commas.
    pub id: String,
    /// How it fares.
    pub health: WebhookHealth,
    /// What is not as it is wanted, in fixed words for people, such as `events`; event lists are compared in the
    /// provider's own expansion.
    pub drift: Vec<&'static str>,
    /// How its deliveries prove themselves.
    pub scheme: SecretScheme,
    /// Whether it has a secret, if the provider tells.
    pub secret_set: Option<bool>,
}

/// How a webhook fares at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookHealth {
    /// It delivers.
    Working,
    /// Somebody switched it off; an update switches it on.
    SwitchedOff,
    /// The provider suspended it after failures; a test call wakes it once its receiver answers (GitLab).
    Suspended,
    /// The provider disabled it for good; only a new one helps (Azure DevOps).
    Dead,
}

/// What a person enters to make a webhook by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSetup {
    /// How its deliveries will prove themselves.
    pub scheme: SecretScheme,
    /// The content type to choose.
    pub content_type: &'static str,
    /// What to do, in order, in the provider's own words.
    pub steps: Vec<String>,
}

/// Which webhook: one for each repository and target, whoever links the repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookKey {
    /// The provider.
    pub provider: ProviderId,
    /// The instance: the canonical API URL.
    pub instance: String,
    /// The repository's stable id.
    pub repository_id: String,
    /// Where deliveries go, canonical.
    pub target_url: String,
}

/// How a webhook fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookState {
    /// It is still to be made.
    Pending,
    /// It is there as it is wanted.
    Active,
    /// The token may not make it: a person has to.
    ManualRequired,
    /// Somebody deleted it at the provider, and it was not made again yet.
    Missing,
    /// The provider disabled it, and it was not revived yet.
    DisabledByProvider,
    /// Somebody altered it at the provider, and it was not repaired yet.
    Drifted,
    /// It is being removed.
    Deleting,
}

impl WebhookState {
    /// The stable word of this state, such as `MANUAL_REQUIRED`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Active => "ACTIVE",
            Self::ManualRequired => "MANUAL_REQUIRED",
            Self::Missing => "MISSING",
            Self::DisabledByProvider => "DISABLED_BY_PROVIDER",
            Self::Drifted => "DRIFTED",
            Self::Deleting => "DELETING",
        }
    }
}

/// What a link wants of a webhook that it counts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUser {
    /// The connection that the link has now.
    pub connection: ConnectionId,
    /// Whether this service makes and keeps the webhook for it; else a person does.
    pub auto: bool,
    /// What it wants to be told.
    pub events: BTreeSet<WebhookEvent>,
}

/// Most secrets that verify beside the one in use. More rotations within one overlap end the oldest early.
pub const MAX_FORMER: usize = 8;

/// A secret that was in use before, and verifies for a while longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerSecret {
    /// The secret, sealed.
    pub sealed: Sealed,
    /// How deliveries under it prove themselves.
    pub scheme: SecretScheme,
    /// Until when it verifies.
    pub until: Timestamp,
}

/// A secret that the provider is to be told, and may have been told already: it verifies too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextSecret {
    /// The secret, sealed.
    pub sealed: Sealed,
    /// Until when the secret before it verifies.
    pub overlap_until: Timestamp,
    /// Whether a call that tells it to the provider was ever begun.
    pub told: bool,
}

/// What stands in the store before a webhook is made, so that a lost answer is found by listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Making {
    /// The webhooks of the same target that were there before: any other one is ours.
    pub before: Vec<String>,
    /// When the call began: it may reach the provider a moment after its sender is gone.
    pub since: Timestamp,
}

/// The connection of a webhook's last link, kept for its removal after the connection is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Farewell {
    /// The connection with its sealed credential, as it was.
    pub record: Box<ConnectionRecord>,
    /// When it is given up.
    pub until: Timestamp,
}

/// A webhook as it is kept: who counts on it, its sealed secrets, and what is under way at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRecord {
    /// Which one.
    pub key: WebhookKey,
    /// A UUIDv7 of its own; the secrets are bound to it.
    pub uid: String,
    /// The links that count on it. Empty: it is to be removed.
    pub users: BTreeMap<LinkName, WebhookUser>,
    /// Links that counted on it last and whose trails tell its removal; those that are unlinked wait for it.
    pub departing: Vec<LinkName>,
    /// The connection to remove it through, of the last link that left.
    pub via: Option<ConnectionName>,
    /// See [`Farewell`].
    pub farewell: Option<Farewell>,
    /// The repository's full name as it was last seen.
    pub full_name: String,
    /// The secret in use, sealed.
    pub sealed: Sealed,
    /// How deliveries prove themselves; `None` until the provider made it: then any scheme of the provider will do.
    pub scheme: Option<SecretScheme>,
    /// Counts the secrets, from 1 on.
    pub secret_version: i64,
    /// The secrets before that still verify, the newest last; at most [`MAX_FORMER`].
    pub former: Vec<FormerSecret>,
    /// The secret after.
    pub next: Option<NextSecret>,
    /// The request that made the newest secret; empty where it had no id.
    pub rotated_by: String,
    /// What the provider finds it by, once it is known.
    pub remote_id: Option<String>,
    /// A call to make it may be under way or have ended unheard.
    pub making: Option<Making>,
    /// Webhooks that it took the place of and that have to go.
    pub leaving: Vec<String>,
    /// How it fares.
    pub state: WebhookState,
    /// Why it is not active.
    pub conditions: Vec<Condition>,
    /// Whether it was found at the provider instead of made.
    pub adopted: bool,
    /// When it was first made or adopted.
    pub create_time: Timestamp,
    /// When it was last compared with the provider.
    pub last_check_time: Option<Timestamp>,
    /// When it was last woken with a test delivery.
    pub last_wake_time: Option<Timestamp>,
    /// When it is to be looked at again; `None` where nobody does.
    pub due: Option<Timestamp>,
    /// Tries in a row that failed.
    pub attempts: u32,
    /// Counts the changes that a reader can see, from 1 on; the etag is made of it.
    pub generation: u64,
    /// Counts the writes; the store compares it.
    pub revision: Revision,
}

impl WebhookRecord {
    /// Whether this service makes and keeps it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.users.values().any(|user| user.auto)
    }

    /// What all its links together want to be told.
    #[must_use]
    pub fn events(&self) -> BTreeSet<WebhookEvent> {
        self.users.values().flat_map(|user| user.events.iter().copied()).collect()
    }

    /// Changes with every change that a reader can see.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("{}-{}", self.uid, self.generation)
    }

    /// Whether the provider may have something that has to go once nobody counts on it.
    #[must_use]
    pub fn may_be_there(&self) -> bool {
        self.remote_id.is_some() || self.making.is_some() || !self.leaving.is_empty()
    }
}
