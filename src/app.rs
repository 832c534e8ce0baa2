//! Puts the parts together: the only place that names implementations.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic_health::server::HealthReporter;

use crate::clock::{Clock, SystemClock};
use crate::config::{ListenAddress, ServeConfig};
use crate::domain::credential::Sealed;
use crate::domain::webhook_target::TargetPolicy;
use crate::grpc::connections::ConnectionHandlers;
use crate::grpc::layers::{Draining, Inbound};
use crate::grpc::repositories::RepositoryHandlers;
use crate::grpc::webhooks::WebhookHandlers;
use crate::outbound::{Outbound, OutboundConfig, OutboundError};
use crate::proto::FILE_DESCRIPTOR_SET;
use crate::proto::v1::connection_service_server::ConnectionServiceServer;
use crate::proto::v1::repository_service_server::RepositoryServiceServer;
use crate::proto::v1::webhook_service_server::WebhookServiceServer;
use crate::provider::Providers;
use crate::provider::gateway::Gateway;
use crate::seal::{KeyFileError, KeyRing, SealError, ServiceSecret};
use crate::service::Core;
use crate::service::connections::Connections;
use crate::service::git::Git;
use crate::service::housekeeping::Retention;
use crate::service::links::Links;
use crate::service::repositories::Repositories;
use crate::service::usage::Usage;
use crate::service::webhooks::Webhooks;
use crate::service::work::{self, Work};
use crate::store::sled::{DEFAULT_CACHE_BYTES, OpenError, SledConfig, SledStore};
use crate::store::{Chain, Change, Store, StoreError, TrailsReport};

/// Largest message that is read from a caller, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Largest message of the service that takes webhook deliveries: GitHub and GitLab send up to 25 MB.
const MAX_DELIVERY_BYTES: usize = 26 * 1024 * 1024;
/// Most calls under way on one HTTP/2 connection.
const MAX_STREAMS: u32 = 200;
/// Largest set of headers of a call, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// How often an idle caller is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long to wait after an accept failed: the process may be out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the times of last use may take to be written at the end.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Why the service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The key file is not the one of this store.
    #[error(
        "the store in {} was sealed with the key `{found}`, but the key file holds {}; start with the key file that \
         belongs to this store", path.display(), known.join(", ")
    )]
    WrongKeyFile {
        /// Where the store is.
        path: PathBuf,
        /// The id of the key that it needs.
        found: String,
        /// The ids of the keys that there are.
        known: Vec<String>,
    },
    /// The key of that id is another one than the store was sealed with.
    #[error(
        "the store in {} does not open with the key `{key}`: the file holds another key under the same id (found: \
         `{key}`), or the store is damaged; start with the key file that belongs to this store", path.display()
    )]
    WrongKey {
        /// Where the store is.
        path: PathBuf,
        /// The id of the key.
        key: String,
    },
    /// No random bytes.
    #[error("the service's own secret could not be made: {0}")]
    Identity(SealError),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store opened but does not answer.
    #[error("the store does not work: {0}")]
    Store(#[from] StoreError),
    /// A store is to be looked at and was never served.
    #[error("the store in {} is empty", path.display())]
    Empty {
        /// Where it is.
        path: PathBuf,
    },
    /// A store is to be looked at while somebody serves it.
    #[error(
        "{0}: stop the server that uses it first, or look at a copy of the folder that was made while it was stopped"
    )]
    InUse(OpenError),
    /// A listener cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The way out cannot be built.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// A listener ended by itself.
    #[error("serving ended: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The reflection data does not decode.
    #[error("server reflection cannot be built: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl Error {
    /// The exit code of the process, as `gitmoor --help` documents it.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Keys(_) | Self::WrongKeyFile { .. } | Self::WrongKey { .. } | Self::Identity(_) => 4,
            Self::Open(_) | Self::Store(_) | Self::Empty { .. } | Self::InUse(_) => 5,
            Self::Listen { .. } => 6,
            Self::Outbound(_) | Self::Serve(_) | Self::Reflection(_) => 1,
        }
    }
}

/// What the service is made of; tests bring their own.
#[derive(Debug)]
pub struct Parts {
    /// Keeps the records.
    pub store: Arc<dyn Store>,
    /// Where the store is, for messages.
    pub store_path: PathBuf,
    /// Seals and opens secrets.
    pub keys: KeyRing,
    /// The way to the providers.
    pub outbound: Outbound,
    /// Where webhooks may deliver to.
    pub webhook_targets: TargetPolicy,
    /// Which providers there are.
    pub providers: Providers,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// What bounds the service.
    pub limits: Limits,
}

/// What bounds the service.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls under way at a time, streams included.
    pub max_calls: usize,
    /// The longest that one stream may take.
    pub stream_total: Duration,
    /// How long calls may go on after the signal to stop.
    pub drain: Duration,
    /// How long things are kept.
    pub keep: Retention,
}

/// Where calls come in.
#[derive(Debug)]
pub enum Listener {
    /// From this machine or, in tests, from anywhere the address says.
    Tcp(TcpListener),
    /// Through a file, which is removed at the end.
    Unix(UnixListener, SocketFile),
}

/// A socket's file; removes it when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing is left to be done if it is gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The service, ready to serve.
#[derive(Debug)]
pub struct App {
    core: Arc<Core>,
    limits: Limits,
}

/// Serves until `shutdown` ends, then drains. Ready when the line `ready` is in the log.
///
/// # Errors
///
/// See [`Error`]; nothing is served and nothing was changed if it cannot start.
pub async fn run(config: ServeConfig, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let keys = KeyRing::load(&config.key_file)?;
    let store_path = config.data_dir.join("store");
    let store =
        SledStore::open(&SledConfig { path: store_path.clone(), cache_bytes: config.store_cache_bytes })?;
    let mut listeners = Vec::with_capacity(config.listen.len());
    for address in &config.listen {
        listeners.push(bind(address).await?);
    }
    let own = listeners.iter().filter_map(Listener::address).collect();
    let outbound =
        Outbound::new(OutboundConfig { allow: config.egress_allow, own, ..OutboundConfig::default() })?;
    let limits = Limits {
        max_calls: config.max_concurrent_calls,
        stream_total: config.stream_timeout,
        drain: config.drain_timeout,
        keep: Retention { events: config.audit_retention, requests: config.request_retention },
    };
    let parts = Parts {
        store: Arc::new(store),
        store_path,
        keys,
        outbound,
        webhook_targets: TargetPolicy::new(config.webhook_target_allow),
        providers: Providers::builtin(),
        clock: Arc::new(SystemClock),
        limits,
    };
    App::build(parts).await?.serve(listeners, shutdown).await
}

/// Looks at the audit trails of a store that no service has open. No row of it is changed.
///
/// # Errors
///
/// See [`Error`]. A trail that is not what was written is no error but part of the report.
pub async fn check_trails(data_dir: &Path, key_file: &Path) -> Result<TrailsReport, Error> {
    let keys = KeyRing::load(key_file)?;
    let path = data_dir.join("store");
    let config = SledConfig { path: path.clone(), cache_bytes: DEFAULT_CACHE_BYTES };
    let store = SledStore::open_to_check(&config).map_err(|error| match error {
        OpenError::Locked { .. } => Error::InUse(error),
        error => Error::Open(error),
    })?;
    let sealed = store.identity().await?.ok_or_else(|| Error::Empty { path: path.clone() })?;
    store.chain_with(chain(&open_identity(&sealed, &keys, &path)?));
    let report = store.check_trails().await?;
    store.close().await;
    Ok(report)
}

impl App {
    /// Puts the parts together. A store that was sealed with another key file is refused, unchanged; a new
    /// store gets its identity.
    ///
    /// # Errors
    ///
    /// [`Error::WrongKeyFile`], [`Error::WrongKey`], [`Error::Store`].
    pub async fn build(parts: Parts) -> Result<Self, Error> {
        let secret = identity(&*parts.store, &parts.keys, &parts.store_path).await?;
        parts.store.chain_with(chain(&secret));
        let core = Core {
            store: parts.store,
            keys: parts.keys,
            secret,
            gateway: Gateway::new(parts.providers, parts.outbound),
            targets: parts.webhook_targets,
            clock: parts.clock,
            usage: Usage::default(),
            work: Work::default(),
        };
        Ok(Self { core: Arc::new(core), limits: parts.limits })
    }

    /// Serves until `shutdown` ends. Then readiness goes off and new calls are turned away at once, calls
    /// under way may finish, and after the drain timeout the rest is cut, whatever a client does.
    ///
    /// # Errors
    ///
    /// A listener that ended by itself.
    pub async fn serve(
        self,
        listeners: Vec<Listener>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let draining = Draining::default();
        let (reporter, health) = tonic_health::server::health_reporter();
        set_health(&reporter, true).await;
        let routes = self.routes(health, &draining)?;
        let (stop, stopped) = watch::channel(false);
        let mut servers = JoinSet::new();
        // One for all listeners: the bound is the process's.
        let inbound = Inbound::new(self.limits.max_calls, draining.clone());
        for listener in listeners {
            let inbound = inbound.clone();
            tracing::info!(address = %listener, "listening");
            let (routes, stopped) = (routes.clone(), stopped.clone());
            match listener {
                Listener::Tcp(listener) => {
                    servers.spawn(serve_one(routes, inbound, tcp_incoming(listener), stopped, None));
                }
                Listener::Unix(listener, file) => {
                    servers.spawn(serve_one(routes, inbound, unix_incoming(listener), stopped, Some(file)));
                }
            }
        }
        let mut housekeeping = JoinSet::new();
        let (core, keep) = (Arc::clone(&self.core), self.limits.keep);
        housekeeping.spawn(async move { core.keep_house(keep).await });
        housekeeping.spawn(work::run(Arc::clone(&self.core)));
        tracing::info!("ready");

        let mut outcome = Ok(());
        tokio::select! {
            () = shutdown => tracing::info!("stopping: no new calls from now on"),
            Some(ended) = servers.join_next() => outcome = joined(ended),
        }
        draining.start();
        set_health(&reporter, false).await;
        // Nobody may be listening any more; then there is nothing to stop.
        let _ = stop.send(true);
        let drained = tokio::time::timeout(self.limits.drain, async {
            while let Some(ended) = servers.join_next().await {
                outcome = std::mem::replace(&mut outcome, Ok(())).and(joined(ended));
            }
        })
        .await;
        if drained.is_err() {
            tracing::warn!("the drain timeout passed; the calls still under way are cut");
            servers.shutdown().await;
        }
        housekeeping.shutdown().await;
        // A disk that hangs must not hold up the end for something that is only nice to know.
        let _ = tokio::time::timeout(LAST_WRITES, self.core.write_uses_or_warn()).await;
        self.core.store.close().await;
        tracing::info!("stopped");
        outcome
    }

    fn routes(
        &self,
        health: tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health>,
        draining: &Draining,
    ) -> Result<Routes, Error> {
        let connections = ConnectionHandlers::new(Connections::new(Arc::clone(&self.core)), draining.clone());
        let repositories = RepositoryHandlers::new(
            Repositories::new(Arc::clone(&self.core)),
            Links::new(Arc::clone(&self.core)),
            Git::new(Arc::clone(&self.core)),
            self.limits.stream_total,
        );
        let webhooks = WebhookHandlers::new(Webhooks::new(Arc::clone(&self.core)));
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        let mut routes = Routes::builder();
        routes
            .add_service(
                ConnectionServiceServer::new(connections).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                RepositoryServiceServer::new(repositories).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(WebhookServiceServer::new(webhooks).max_decoding_message_size(MAX_DELIVERY_BYTES))
            .add_service(health)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        Ok(routes.routes())
    }
}

/// Readiness, overall and of each service.
async fn set_health(reporter: &HealthReporter, serving: bool) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    let status = if serving { Serving } else { NotServing };
    let services = ["ConnectionService", "RepositoryService", "WebhookService"];
    let names = services.iter().map(|service| format!("gitmoor.v1.{service}"));
    for service in std::iter::once(String::new()).chain(names) {
        reporter.set_service_status(service, status).await;
    }
}

/// Opens the store's own secret, or makes one for a new store. It doubles as the proof that the keys are right.
async fn identity(store: &dyn Store, keys: &KeyRing, path: &Path) -> Result<ServiceSecret, Error> {
    if store.identity().await?.is_none() {
        let fresh = ServiceSecret::generate().map_err(Error::Identity)?;
        let sealed = fresh.seal(keys).map_err(Error::Identity)?;
        store.commit(vec![Change::Identify(sealed)]).await?;
    }
    // Read back: somebody else may have been faster, and then theirs counts.
    let Some(sealed) = store.identity().await? else {
        return Err(Error::Identity(SealError::Unreadable));
    };
    open_identity(&sealed, keys, path)
}

fn open_identity(sealed: &Sealed, keys: &KeyRing, path: &Path) -> Result<ServiceSecret, Error> {
    ServiceSecret::open(keys, sealed).map_err(|error| match error {
        SealError::KeyUnavailable { key_id } => Error::WrongKeyFile {
            path: path.to_owned(),
            found: key_id,
            known: keys.key_ids().map(|id| format!("`{id}`")).collect(),
        },
        SealError::Unreadable => Error::WrongKey {
            path: path.to_owned(),
            key: KeyRing::key_id_of(sealed).unwrap_or("unknown").to_owned(),
        },
        other => Error::Identity(other),
    })
}

/// What chains the events of the audit trail.
fn chain(secret: &ServiceSecret) -> Chain {
    let key = secret.audit_key();
    Chain::new(move |content| key.hash(content))
}

fn joined(ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>) -> Result<(), Error> {
    match ended {
        Ok(outcome) => outcome.map_err(Error::Serve),
        // The panic hook has told of it; the others are cut by us.
        Err(_) => Ok(()),
    }
}

async fn serve_one<S, IO>(
    routes: Routes,
    inbound: Inbound,
    incoming: S,
    mut stopped: watch::Receiver<bool>,
    file: Option<SocketFile>,
) -> Result<(), tonic::transport::Error>
where
    S: Stream<Item = io::Result<IO>> + Send,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let outcome = tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .layer(inbound)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that the sender is gone: a reason to stop, too.
            let _ = stopped.wait_for(|stop| *stop).await;
        })
        .await;
    drop(file);
    outcome
}

/// Accepted TCP connections. A failed accept is not the end: it is told, and tried again.
fn tcp_incoming(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send {
    futures_util::stream::unfold(listener, |listener| async move {
        loop {
            let accepted = listener.accept().await.and_then(|(stream, _)| {
                // Small answers must not wait for the acknowledgement of the one before.
                stream.set_nodelay(true)?;
                Ok(stream)
            });
            match accepted {
                Ok(stream) => return Some((Ok(stream), listener)),
                Err(error) => pause_after(&error).await,
            }
        }
    })
}

/// The same for a Unix socket.
fn unix_incoming(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> + Send {
    futures_util::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(error) => pause_after(&error).await,
            }
        }
    })
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Takes an address. A Unix socket gets mode 0660; a file that a dead process left there is removed, one that
/// somebody serves is not.
///
/// # Errors
///
/// [`Error::Listen`].
pub async fn bind(address: &ListenAddress) -> Result<Listener, Error> {
    let failed = |source| Error::Listen { address: address.to_string(), source };
    match address {
        ListenAddress::Tcp(socket) => TcpListener::bind(socket).await.map(Listener::Tcp).map_err(failed),
        ListenAddress::Unix(path) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(failed(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process serves this socket",
                )));
            }
            remove_stale_socket(path).map_err(failed)?;
            let listener = UnixListener::bind(path).map_err(failed)?;
            let file = SocketFile(path.clone());
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
            Ok(Listener::Unix(listener, file))
        }
    }
}

fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

impl Listener {
    /// The TCP address; `None` for a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self, self.address()) {
            (Self::Unix(_, file), _) => write!(f, "unix:{}", file.0.display()),
            (Self::Tcp(_), Some(address)) => write!(f, "{address}"),
            (Self::Tcp(_), None) => f.write_str("a TCP socket"),
        }
    }
}
