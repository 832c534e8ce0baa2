//! The leaf: a client that does nothing by itself. It follows no redirect, uses no proxy, resolves no name but
//! that of its origin, and retries nothing.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ::reqwest::Client;
use ::reqwest::dns::{Addrs, Name, Resolve, Resolving};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Request, Response, Version};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::Service;

use super::resolver::{ResolveError, Resolver};
use super::timeout::Progress;
use super::tls::{Trust, handshake_error};
use super::{Body, BodyTime, DEFAULT_BODY, Phase, Sending, TransportError, deadline_of};
use crate::domain::base_url::Origin;

/// Most clients that are kept, each with its own idle connections.
const MAX_CLIENTS: usize = 256;
/// How long name, connection and handshake may take together.
const CONNECT: Duration = Duration::from_secs(8);
/// How long a connection is kept without use: shorter than what servers and load balancers keep it.
const IDLE: Duration = Duration::from_secs(30);
/// Most idle connections of one client.
const MAX_IDLE: usize = 32;
/// Most headers of one answer.
const MAX_HEADERS: usize = 128;
/// Largest head of one answer over HTTP/2; over HTTP/1 the client's own bound holds (about 400 KiB).
const MAX_HEAD_BYTES: u32 = 64 * 1024;

tokio::task_local! {
    /// How far the attempt came that the current task drives.
    static PROGRESS: Progress;
}

/// Notes that the attempt of the current task entered `phase`; does nothing outside of one.
pub(super) fn enter(phase: Phase) {
    // A connection that outlives its attempt is finished by a task of its own, of which nobody asks.
    let _ = PROGRESS.try_with(|progress| progress.enter(phase));
}

/// The clients of one process: one for each origin and CA bundle, so that a bundle touches no other connection and
/// each client's resolver knows the one host that it may be asked for.
pub(super) struct Clients {
    resolver: Arc<Resolver>,
    trust: Trust,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    clients: HashMap<(Origin, String), (Client, u64)>,
    uses: u64,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Clients {
    pub(super) fn new(resolver: Arc<Resolver>, trust: Trust) -> Self {
        Self { resolver, trust, kept: Mutex::default() }
    }

    /// What connections trust.
    pub(super) const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The client for `origin` that trusts `ca_pem` beside the system's roots.
    pub(super) fn leaf(&self, origin: &Origin, ca_pem: &str) -> Result<Leaf, TransportError> {
        let key = (origin.clone(), ca_pem.to_owned());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        if let Some((client, used)) = kept.clients.get_mut(&key) {
            *used = now;
            return Ok(Leaf { client: client.clone() });
        }
        let client = self.client(origin, ca_pem)?;
        if kept.clients.len() >= MAX_CLIENTS {
            let oldest = kept.clients.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                kept.clients.remove(&oldest);
            }
        }
        kept.clients.insert(key, (client.clone(), now));
        Ok(Leaf { client })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the home of HTTP clients")]
    fn client(&self, origin: &Origin, ca_pem: &str) -> Result<Client, TransportError> {
        let resolver = OriginResolver { resolver: Arc::clone(&self.resolver), origin: origin.clone() };
        Client::builder()
            .tls_backend_preconfigured(self.trust.client_config(ca_pem)?)
            .dns_resolver(Arc::new(resolver))
            .redirect(::reqwest::redirect::Policy::none())
            .retry(::reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("gitmoor/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .tcp_keepalive(IDLE)
            .http1_max_headers(MAX_HEADERS)
            .http2_max_header_list_size(MAX_HEAD_BYTES)
            .build()
            .map_err(|_| TransportError::garbled("the HTTP client cannot be set up"))
    }
}

/// Resolves the host of one origin, and no other.
struct OriginResolver {
    resolver: Arc<Resolver>,
    origin: Origin,
}

impl Resolve for OriginResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, origin) = (Arc::clone(&self.resolver), self.origin.clone());
        Box::pin(async move {
            enter(Phase::Dns);
            if name.as_str() != origin.host() {
                let rule = "the name is not that of the connection".to_owned();
                return Err(ResolveError::Denied { rule }.into());
            }
            let addresses = resolver.addresses(&origin).await?;
            enter(Phase::Connect);
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// One client, as a service.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    client: Client,
}

impl Service<Request<Bytes>> for Leaf {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = Sending;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Sending {
        let client = self.client.clone();
        let progress = request.extensions().get::<Progress>().cloned().unwrap_or_default();
        Box::pin(PROGRESS.scope(progress.clone(), async move {
            let deadline = deadline_of(&request);
            let body_time = request.extensions().get::<BodyTime>().map_or(DEFAULT_BODY, |time| time.0);
            let request = request
                .try_into()
                .map_err(|_| TransportError::garbled("the request would have no valid URL"))?;
            let response = client.execute(request).await.map_err(|error| failure(&error, &progress))?;
            answer(response.into(), deadline.min(Instant::now() + body_time))
        }))
    }
}

/// Checks the head, and puts the bounds on the body.
fn answer(response: Response<::reqwest::Body>, until: Instant) -> Result<Response<Body>, TransportError> {
    if response.version() < Version::HTTP_11 {
        return Err(TransportError::garbled("the answer is older than HTTP/1.1"));
    }
    if response.status().is_informational() {
        return Err(TransportError::garbled("the server wants another protocol"));
    }
    let (mut head, body) = response.into_parts();
    if !is_plain(&head.headers) {
        return Err(TransportError::garbled("the answer has an unknown content coding"));
    }
    // The client decoded what it knows, and took the length of the coded form away with it.
    let declared = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    head.extensions.clear();
    let chunks = stream::unfold(body, |mut body| async move {
        loop {
            match body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some((Ok(data), body)),
                    // Trailers say nothing that is used here.
                    Err(_) => continue,
                },
                Err(error) => return Some((Err(broken(&error)), body)),
            }
        }
    });
    Ok(Response::from_parts(head, Body::new(chunks, declared, until)))
}

/// Whether nothing is left to decode.
fn is_plain(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// The word for an attempt that brought no head. The client's own text holds the URL and is not kept.
fn failure(error: &::reqwest::Error, progress: &Progress) -> TransportError {
    let mut http = None;
    for cause in causes(error) {
        if let Some(resolve) = cause.downcast_ref::<ResolveError>() {
            return resolve.clone().into();
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return if error.is_connect() {
                handshake_error(tls)
            } else {
                TransportError::garbled("the answer is not TLS")
            };
        }
        http = http.or_else(|| cause.downcast_ref::<hyper::Error>());
    }
    if error.is_connect() {
        return match progress.phase() {
            Phase::Read => TransportError::unreachable(Phase::Connect),
            phase => TransportError::unreachable(phase),
        };
    }
    match http {
        Some(http) if http.is_parse() || http.is_parse_too_large() || http.is_parse_status() => {
            TransportError::garbled("the answer is not HTTP")
        }
        _ => TransportError::unreachable(Phase::Read),
    }
}

/// The word for a body that broke off.
fn broken(error: &::reqwest::Error) -> TransportError {
    for cause in causes(error) {
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)
            || cause.is::<rustls::Error>()
        {
            return TransportError::garbled("the answer is not HTTP");
        }
        // What the decoder calls data that is not of its coding; a socket has no such error.
        if cause.downcast_ref::<io::Error>().is_some_and(|error| {
            error.kind() == io::ErrorKind::InvalidInput || error.kind() == io::ErrorKind::InvalidData
        }) {
            return TransportError::garbled("the answer cannot be decoded");
        }
    }
    TransportError::unreachable(Phase::Read)
}

/// An error and what it came from. An I/O error hides the one that it carries from `source`, so it is opened.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(carried) => Some(carried as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}
