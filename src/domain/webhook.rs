//! Webhooks: what a link wants to be told, and how a provider shows that it tells.

use std::collections::BTreeSet;

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
