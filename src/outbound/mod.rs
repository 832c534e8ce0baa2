//! The way out: one stack of layers that every provider call goes through.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;

use crate::domain::verification::Certificate;

/// How far a call came before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Resolving the host name.
    Dns,
    /// Connecting to the address.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Reading the answer.
    Read,
}

impl Phase {
    /// The stable word of this phase, such as `dns`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Read => "read",
        }
    }
}

/// How a call failed below HTTP, or because of a rule of this service. Free of secrets by its types:
/// enums, numbers and fixed words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The egress policy refused the target; nothing was dialled.
    #[error("the outbound policy refused the target: {rule}")]
    Denied {
        /// The rule, never the resolved address.
        rule: String,
    },
    /// Not reached, or the connection broke before a whole answer was there.
    #[error("unreachable ({})", phase.as_str())]
    Unreachable {
        /// How far it came.
        phase: Phase,
    },
    /// The certificate is not trusted, or the server's TLS is too old.
    #[error("the certificate is not trusted")]
    TlsUntrusted {
        /// The certificate, if one was presented.
        certificate: Option<Box<Certificate>>,
    },
    /// The request was sent, and the answer, or the rest of it, did not come in time.
    #[error("timed out")]
    Timeout,
    /// The provider asked for a pause that is longer than the call may wait.
    #[error("rate limited")]
    RateLimited {
        /// How long to wait.
        after: Duration,
    },
    /// The answer broke a rule: a refused redirect, an unknown content coding, too large, no HTTP.
    #[error("{problem}")]
    Garbled {
        /// Which rule, in fixed words.
        problem: &'static str,
    },
}

/// Until when a request must be answered; an extension of each request.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

/// What happens to a redirect; an extension of a request. Only GET is ever followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    /// Follow up to three on the same origin; any other is an error.
    Follow,
    /// Hand the redirect to the caller as it is.
    Return,
}

/// The stack for one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transport {}

impl Transport {
    /// Sends one request through the stack.
    ///
    /// # Errors
    ///
    /// See [`TransportError`].
    pub async fn send(&self, _request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        Err(TransportError::Timeout)
    }
}

/// The decoded body of an answer, bounded in time.
#[derive(Debug)]
pub struct Body {}

impl Body {
    /// Reads the whole body.
    ///
    /// # Errors
    ///
    /// `Garbled` over `limit` bytes, `Timeout`, `Unreachable` with phase `Read`.
    pub async fn collect(self, _limit: usize) -> Result<Bytes, TransportError> {
        Err(TransportError::Timeout)
    }
}
