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
