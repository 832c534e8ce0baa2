//! Sockets: HTTP/1.1 through hyper, with a way to take the socket back for a raw answer.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::raw::{self, Step};
use super::{Answer, ForgeConfig, Seen, Shared, broken};

/// The largest request body the forge reads.
const BODY_LIMIT: usize = 4 << 20;

/// A stream under HTTP.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The socket below.
    fn tcp(&self) -> &TcpStream;
}

impl Io for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Io for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A certificate authority made for one forge, and the acceptor of a leaf that it signed.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) ca_pem: String,
    pub(crate) leaf_der: Vec<u8>,
}

impl Tls {
    /// Draws the keys.
    pub(crate) fn generate(config: &ForgeConfig) -> io::Result<Self> {
        Self::build(config).map_err(|error| broken("certificate", error))
    }

    fn build(config: &ForgeConfig) -> Result<Self, Box<dyn std::error::Error>> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "Forge Test CA");
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);

        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(config.tls_names.clone())?;
        if config.tls_expired {
            leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
            leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        leaf.distinguished_name.push(DnType::CommonName, "forge.test");
        let chain = vec![leaf.signed_by(&key, &issuer)?.der().clone()];
        let leaf_der = chain[0].to_vec();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, ca_pem, leaf_der })
    }
}

/// Accepts until aborted; the connections are owned here and end with it.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        // Without it the last segment of a page waits for an acknowledgement; nothing fails if it is refused.
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        match tls.clone() {
            None => connections.spawn(connection(stream, shared)),
            Some(tls) => connections.spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    connection(stream, shared).await;
                }
            }),
        };
    }
}

/// Serves one connection. A raw answer ends it: the service hands its steps over and waits to be dropped.
async fn connection<S: Io>(stream: S, shared: Arc<Shared>) {
    let (hijack, mut hijacked) = mpsc::channel::<Vec<Step>>(1);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        let hijack = hijack.clone();
        async move {
            let answer = match seen(request).await {
                Some(seen) => shared.answer(seen).await,
                None => Answer::Raw(Vec::new()),
            };
            match answer {
                Answer::Reply(reply) => Ok::<_, Infallible>(reply.into_response()),
                Answer::Raw(steps) => {
                    // The receiver lives as long as this service.
                    let _ = hijack.send(steps).await;
                    pending().await
                }
            }
        }
    });
    let mut http = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let steps = tokio::select! {
        // A client that breaks off is no concern of the forge.
        _ = &mut http => return,
        Some(steps) = hijacked.recv() => steps,
    };
    raw::play(http.into_parts().io.into_inner(), steps).await;
}

/// Reads a request; `None` if the client broke off or sent too much.
async fn seen(request: http::Request<Incoming>) -> Option<Seen> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_LIMIT).collect().await.ok()?;
    let headers = head.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    Some(Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: body.to_bytes(),
    })
}
