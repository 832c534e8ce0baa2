//! The way out: one stack of layers that every provider call goes through.
//!
//! [`Outbound`] is one per process; [`Outbound::transport`] gives the stack for one connection. What leaves here
//! went through the egress policy, was dialled at exactly the address that was checked, and comes back bounded in
//! bytes (by the reader's limit) and in time.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};
use url::Url;

use crate::domain::base_url::Origin;
use crate::domain::connection::RateLimit;
use crate::domain::timestamp::Timestamp;
use crate::domain::verification::Certificate;
use crate::domain::violation::Refusal;

mod body;
mod egress;
mod limit;
mod probe;
mod pushback;
mod redirect;
mod reqwest;
mod resolver;
mod retry;
mod timeout;
mod tls;
mod trace;

pub use body::Body;
pub use egress::{AllowRule, AllowRuleError};
pub use probe::{Probe, Step};
pub use tls::check_ca_bundle;

/// How long a call may take that brings no [`Deadline`].
const DEFAULT_CALL: Duration = Duration::from_secs(60);
/// How long the body of an answer may take, where a request does not say otherwise.
const DEFAULT_BODY: Duration = Duration::from_secs(30);

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

impl TransportError {
    const fn garbled(problem: &'static str) -> Self {
        Self::Garbled { problem }
    }

    const fn unreachable(phase: Phase) -> Self {
        Self::Unreachable { phase }
    }
}

/// Until when a request must be answered; an extension of each request. Without it a call has 60 seconds.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

/// Marks work that nobody waits for; an extension of a request. It yields to callers: it has half of an account's places,
/// and is refused as rate limited while the account's quota is low.
#[derive(Debug, Clone, Copy)]
pub struct Background;

/// What happens to a redirect; an extension of a request. Only GET is ever followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    /// Follow up to three on the same origin; any other is an error.
    Follow,
    /// Hand the redirect to the caller as it is.
    Return,
}

/// How long the body of an answer may take; an extension of a request. Without it a body has 30 seconds.
/// The [`Deadline`] holds all the same.
#[derive(Debug, Clone, Copy)]
pub struct BodyTime(pub Duration);

/// Reads the wall clock; only dates that a provider writes are compared with it.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the way out is made of.
#[derive(Clone)]
pub struct OutboundConfig {
    /// What the operator admits beyond https to the public Internet.
    pub allow: Vec<AllowRule>,
    /// The service's own listeners, which no rule admits. More can follow with [`Outbound::deny_own`].
    pub own: Vec<SocketAddr>,
    /// The DNS server to ask instead of the system's.
    pub dns_server: Option<SocketAddr>,
    /// The wall clock.
    pub wall_clock: WallClock,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self { allow: Vec::new(), own: Vec::new(), dns_server: None, wall_clock: Arc::new(system_time) }
    }
}

impl fmt::Debug for OutboundConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundConfig")
            .field("allow", &self.allow)
            .field("own", &self.own)
            .field("dns_server", &self.dns_server)
            .finish_non_exhaustive()
    }
}

fn system_time() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "only the default: the way out knows no other module's clock"
    )]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().saturating_add(since)
}

/// Why the way out cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The DNS settings of the system cannot be read.
    #[error("the system's DNS settings (/etc/resolv.conf) cannot be read")]
    Dns(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The TLS library refuses its own settings.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Where a connection's calls go, and within which bounds.
#[derive(Debug, Clone)]
pub struct Target {
    /// A URL of the origin; its path does not matter.
    pub origin: Url,
    /// Certificates (PEM) to trust beside the system's; empty for none.
    pub ca_certificates_pem: String,
    /// What shares one limit: the account that the provider counts the calls under.
    pub account: String,
    /// How long one attempt may take to the head of its answer.
    pub attempt_timeout: Duration,
    /// How many calls may be under way side by side.
    pub concurrency: usize,
}

/// The way out of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {
    policy: Arc<egress::Policy>,
    resolver: Arc<resolver::Resolver>,
    clients: Arc<reqwest::Clients>,
    limits: Arc<limit::Limits>,
}

impl Outbound {
    /// Reads the system's DNS settings and trusted certificates once.
    ///
    /// # Errors
    ///
    /// The DNS settings cannot be read, or TLS cannot be set up.
    pub fn new(config: OutboundConfig) -> Result<Self, OutboundError> {
        let policy = Arc::new(egress::Policy::new(config.allow, config.own));
        let resolver = Arc::new(resolver::Resolver::new(Arc::clone(&policy), config.dns_server)?);
        let trust = tls::Trust::of_system().map_err(OutboundError::Tls)?;
        Ok(Self {
            clients: Arc::new(reqwest::Clients::new(Arc::clone(&resolver), trust)),
            limits: Arc::new(limit::Limits::new(config.wall_clock)),
            policy,
            resolver,
        })
    }

    /// The part of the gate that needs no DNS: scheme, port, literal address, names that are never dialled.
    ///
    /// # Errors
    ///
    /// `URL_SCHEME_FORBIDDEN`, `URL_PORT_FORBIDDEN`, `ENDPOINT_NOT_ALLOWED`.
    pub fn admit(&self, url: &Url) -> Result<(), Refusal> {
        self.policy.admit(url)
    }

    /// Adds listeners of this service, which no rule admits.
    pub fn deny_own(&self, listeners: &[SocketAddr]) {
        self.policy.deny_own(listeners);
    }

    /// The stack for one connection. Transports of one origin and one CA bundle share their connections.
    ///
    /// # Errors
    ///
    /// `Denied` by [`Self::admit`], and `Garbled` for a bundle that [`check_ca_bundle`] refuses.
    pub fn transport(&self, target: Target) -> Result<Transport, TransportError> {
        self.policy
            .admit(&target.origin)
            .map_err(|refusal| TransportError::Denied { rule: refusal.description })?;
        let origin = Origin::of(&target.origin);
        let leaf = self.clients.leaf(&origin, &target.ca_certificates_pem)?;
        Ok(stack(leaf, origin, &target, &self.policy, &self.limits))
    }

    /// What the provider at the origin of `url` last said of the account's quota, if this process called it since.
    #[must_use]
    pub fn rate_limit(&self, url: &str, account: &str) -> Option<RateLimit> {
        self.limits.last_told(url, account)
    }

    /// Takes the steps DNS, CONNECT and TLS by themselves, for a report that names the failing one.
    /// Each step ends by `deadline`, and within 10 seconds. Sends no request.
    pub async fn probe(&self, url: &Url, ca_certificates_pem: &str, deadline: Instant) -> Probe {
        probe::probe(&self.policy, &self.resolver, &self.clients, url, ca_certificates_pem, deadline).await
    }
}

/// The order of the layers, outermost first.
fn stack(
    leaf: reqwest::Leaf,
    origin: Origin,
    target: &Target,
    policy: &Arc<egress::Policy>,
    limits: &Arc<limit::Limits>,
) -> Transport {
    let gates = limits.gates(&origin, &target.account, target.concurrency);
    let service = ServiceBuilder::new()
        // One span for a call, whatever becomes of it further in.
        .layer(trace::Layer::new(&origin))
        // Outside the retries: each hop has its own.
        .layer(redirect::Layer)
        .layer(tower::retry::RetryLayer::new(retry::Policy::new(gates.budget())))
        // Inside the retries: a second attempt waits for the provider's pause like any other call.
        .layer(limit::Layer::new(gates))
        // Waiting for a permit is not the provider's fault, so the attempt's time begins behind it.
        .layer(timeout::Layer::new(target.attempt_timeout))
        // Next to the wire: nothing passes it unseen.
        .layer(egress::Layer::new(Arc::clone(policy), origin))
        .service(leaf);
    Transport(BoxCloneSyncService::new(service))
}

/// What a layer gives back.
type Sending = BoxFuture<'static, Result<Response<Body>, TransportError>>;

/// The stack for one connection. Cheap to clone.
#[derive(Clone)]
pub struct Transport(BoxCloneSyncService<Request<Bytes>, Response<Body>, TransportError>);

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

impl Transport {
    /// Sends one request through the stack and waits for the head of its answer. The URI must be absolute and
    /// of the target's origin. Dropping the future drops the call.
    ///
    /// # Errors
    ///
    /// See [`TransportError`]. Every status is an answer, except 429, and 403 with an empty quota or a
    /// `Retry-After`, which are `RateLimited`.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        self.0.clone().oneshot(request).await
    }
}

/// Until when `request` must be answered.
fn deadline_of<B>(request: &Request<B>) -> Instant {
    request
        .extensions()
        .get::<Deadline>()
        .map_or_else(|| Instant::now() + DEFAULT_CALL, |deadline| deadline.0)
}
