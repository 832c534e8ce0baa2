//! The way to a server, one step after the other, for a report that names the step that fails.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use url::Url;

use super::egress::Policy;
use super::reqwest::Clients;
use super::resolver::Resolver;
use super::tls::{describe, handshake_error};
use super::{Phase, TransportError};
use crate::domain::base_url::Origin;
use crate::domain::verification::Certificate;

/// How long one step may take.
const STEP: Duration = Duration::from_secs(10);

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It worked, and took this long.
    Done(Duration),
    /// It did not.
    Failed(TransportError),
    /// An earlier step failed, or there is no such step: plain http has no TLS.
    NotReached,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The name resolves to addresses that may be dialled; a refusal by the egress policy stands here too.
    pub dns: Step,
    /// One of the addresses accepts a connection.
    pub connect: Step,
    /// The handshake ends with a certificate that is trusted.
    pub tls: Step,
    /// The certificate, trusted or not.
    pub certificate: Option<Certificate>,
}

/// See [`super::Outbound::probe`].
pub(super) async fn probe(
    policy: &Policy,
    resolver: &Resolver,
    clients: &Clients,
    url: &Url,
    ca_pem: &str,
    deadline: Instant,
) -> Probe {
    let origin = Origin::of(url);
    let mut probe =
        Probe { dns: Step::NotReached, connect: Step::NotReached, tls: Step::NotReached, certificate: None };
    let dns = async {
        policy.admit(url).map_err(|refusal| TransportError::Denied { rule: refusal.description })?;
        Ok(resolver.addresses(&origin).await?)
    };
    let addresses = match step(Phase::Dns, deadline, dns, &mut probe.dns).await {
        Some(addresses) => addresses,
        None => return probe,
    };
    let Some(stream) = step(Phase::Connect, deadline, dial(&addresses), &mut probe.connect).await else {
        return probe;
    };
    if origin.scheme() == "https" {
        let handshake = handshake(clients, &origin, ca_pem, stream);
        probe.certificate = step(Phase::Tls, deadline, handshake, &mut probe.tls).await.flatten();
        if let Step::Failed(TransportError::TlsUntrusted { certificate }) = &probe.tls {
            probe.certificate = certificate.as_deref().cloned();
        }
    }
    probe
}

/// Takes one step and notes what became of it.
async fn step<T>(
    phase: Phase,
    deadline: Instant,
    work: impl Future<Output = Result<T, TransportError>>,
    note: &mut Step,
) -> Option<T> {
    let start = Instant::now();
    let result = timeout_at(deadline.min(start + STEP), work).await;
    match result.unwrap_or(Err(TransportError::Unreachable { phase })) {
        Ok(value) => {
            *note = Step::Done(start.elapsed());
            Some(value)
        }
        Err(error) => {
            *note = Step::Failed(error);
            None
        }
    }
}

async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, TransportError> {
    TcpStream::connect(addresses).await.map_err(|_| TransportError::unreachable(Phase::Connect))
}

async fn handshake(
    clients: &Clients,
    origin: &Origin,
    ca_pem: &str,
    stream: TcpStream,
) -> Result<Option<Certificate>, TransportError> {
    let config = clients.trust().client_config(ca_pem)?;
    let name = ServerName::try_from(origin.host().trim_matches(['[', ']']).to_owned())
        .map_err(|_| TransportError::unreachable(Phase::Tls))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        tls.map_or(TransportError::unreachable(Phase::Tls), handshake_error)
    })?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(certificates.first().and_then(describe))
}
