//! How a provider call can fail: one variant for each thing that somebody can do about it.

use std::time::Duration;

use crate::domain::verification::Certificate;
use crate::outbound::{Phase, TransportError};

/// Why a provider refuses a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionCause {
    /// It knows no such token, or does not say more.
    Unknown,
    /// The token has ended.
    Expired,
    /// Somebody revoked it.
    Revoked,
    /// Its user was blocked or deleted.
    Blocked,
}

impl RejectionCause {
    /// The stable word of this cause, such as `expired`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Blocked => "blocked",
        }
    }
}

/// What stands against a token that is good and has the right, by a rule of the provider or of an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restriction {
    /// An organization wants the token authorized for its single sign-on.
    SingleSignOn,
    /// An organization does not admit tokens of this kind or of this lifetime.
    TokenPolicy,
    /// An organization admits calls from listed addresses alone.
    AddressList,
    /// An organization has not approved the application that made the token.
    AppPolicy,
    /// The provider has shut the repository.
    RepositoryBlocked,
    /// The repository is archived, which makes it read-only.
    RepositoryArchived,
    /// The server's administrator switched webhooks off.
    WebhooksDisabled,
}

impl Restriction {
    /// The stable word of this rule, such as `SINGLE_SIGN_ON_REQUIRED`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SingleSignOn => "SINGLE_SIGN_ON_REQUIRED",
            Self::TokenPolicy => "TOKEN_POLICY",
            Self::AddressList => "ADDRESS_NOT_LISTED",
            Self::AppPolicy => "APPLICATION_NOT_APPROVED",
            Self::RepositoryBlocked => "REPOSITORY_BLOCKED",
            Self::RepositoryArchived => "REPOSITORY_ARCHIVED",
            Self::WebhooksDisabled => "WEBHOOKS_DISABLED",
        }
    }

    /// What the rule says, for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::SingleSignOn => "an organization wants the token authorized for its single sign-on",
            Self::TokenPolicy => "an organization does not admit tokens of this kind or of this lifetime",
            Self::AddressList => "an organization admits calls from its list of addresses alone",
            Self::AppPolicy => "an organization has not approved the application that made the token",
            Self::RepositoryBlocked => "the provider has blocked the repository",
            Self::RepositoryArchived => "the repository is archived and therefore read-only",
            Self::WebhooksDisabled => "the server's administrator switched webhooks off",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::SingleSignOn => {
                "Authorize the token for the organization in the provider's settings of the token."
            }
            Self::TokenPolicy => {
                "Make a token of a kind and a lifetime that the organization admits, and replace this one."
            }
            Self::AddressList => "Have an owner of the organization add this service's address to its list.",
            Self::AppPolicy => {
                "Have an owner of the organization approve the application, or use a personal access token."
            }
            Self::RepositoryBlocked => "Ask the provider's support why.",
            Self::RepositoryArchived => "Unarchive the repository at the provider.",
            Self::WebhooksDisabled => "Have the server's administrator switch webhooks on.",
        }
    }
}

/// How a provider call failed. Made of enums, numbers and safe identifiers only: nothing of a provider's
/// body, no URL, no header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The outbound policy does not admit the endpoint.
    #[error("the outbound policy does not admit the endpoint: {rule}")]
    EndpointDenied {
        /// The rule that refused it.
        rule: String,
    },
    /// Nobody could be reached.
    #[error("the provider cannot be reached ({})", phase.as_str())]
    Unreachable {
        /// How far the call came.
        phase: Phase,
    },
    /// The server's certificate is not trusted, or its TLS is too old.
    #[error("the server's certificate is not trusted")]
    TlsUntrusted {
        /// The certificate, if one was presented.
        certificate: Option<Box<Certificate>>,
    },
    /// The request was sent and no answer came in time.
    #[error("the provider did not answer in time")]
    Timeout,
    /// The provider wants fewer requests.
    #[error("the provider's rate limit is reached")]
    RateLimited {
        /// How long to wait.
        after: Duration,
    },
    /// The provider failed, or its answer made no sense.
    #[error("the provider failed: {problem}")]
    Failed {
        /// What was wrong, in fixed words.
        problem: &'static str,
        /// Its status, if it answered.
        status: Option<u16>,
    },
    /// The provider refuses the token.
    #[error("the provider refuses the token ({})", cause.as_str())]
    CredentialRejected {
        /// Why.
        cause: RejectionCause,
        /// Its status.
        status: u16,
    },
    /// The token is good but may not do this.
    #[error("the token lacks a scope")]
    ScopeMissing {
        /// The scopes that would do.
        scopes: Vec<String>,
    },
    /// The token's user may not do this, whatever the token's scopes.
    #[error("the token's user has no right to do this")]
    Forbidden,
    /// The token is good and has the right, but a rule stands against it.
    #[error("{}", by.words())]
    Restricted {
        /// Which rule.
        by: Restriction,
    },
    /// What answers is another product.
    #[error("what answers is not the provider")]
    Mismatch {
        /// What it looked like, in fixed words.
        found: &'static str,
    },
    /// The server is older than supported.
    #[error("the server's version {found} is older than {minimum}")]
    VersionUnsupported {
        /// The version found, cleaned.
        found: String,
        /// The lowest one supported.
        minimum: &'static str,
    },
    /// There is no such thing, or the token does not see it.
    #[error("not found")]
    NotFound,
    /// The provider does not deliver to the webhook's target.
    #[error("the provider refuses the webhook's target")]
    WebhookTargetRefused {
        /// The provider's setting that decides it, for people.
        setting: &'static str,
    },
    /// The repository has as many webhooks as the provider allows.
    #[error("the repository has as many webhooks as the provider allows")]
    WebhookLimitReached,
    /// The provider has such a webhook already.
    #[error("the provider has such a webhook already")]
    WebhookExists,
    /// The provider has no such function.
    #[error("the provider cannot do this")]
    Unsupported,
}

impl ProviderError {
    /// An answer that was not what the provider documents.
    #[must_use]
    pub const fn garbled(problem: &'static str) -> Self {
        Self::Failed { problem, status: None }
    }

    /// Whether the provider may have done what it was asked although the call failed.
    #[must_use]
    pub const fn leaves_open(&self) -> bool {
        match self {
            Self::Timeout | Self::Failed { .. } => true,
            Self::Unreachable { phase } => matches!(phase, Phase::Read),
            _ => false,
        }
    }

    /// Whether the token, or its user, has no right to do what was asked.
    #[must_use]
    pub const fn lacks_right(&self) -> bool {
        matches!(self, Self::ScopeMissing { .. } | Self::Forbidden | Self::Restricted { .. })
    }
}

impl From<TransportError> for ProviderError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Denied { rule } => Self::EndpointDenied { rule },
            TransportError::Unreachable { phase } => Self::Unreachable { phase },
            TransportError::TlsUntrusted { certificate } => Self::TlsUntrusted { certificate },
            TransportError::Timeout => Self::Timeout,
            TransportError::RateLimited { after } => Self::RateLimited { after },
            TransportError::Garbled { problem } => Self::Failed { problem, status: None },
        }
    }
}
