//! The whole service in this process: real gRPC over loopback, any store, a clock that the test sets.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use gitmoor::app::{App, Limits, Listener, Parts};
use gitmoor::clock::Clock;
use gitmoor::domain::timestamp::Timestamp;
use gitmoor::domain::webhook_target::{TargetPolicy, TargetRule};
use gitmoor::outbound::{AllowRule, Outbound, OutboundConfig};
use gitmoor::proto::v1;
use gitmoor::proto::v1::connection_service_client::ConnectionServiceClient;
use gitmoor::proto::v1::repository_service_client::RepositoryServiceClient;
use gitmoor::provider::Providers;
use gitmoor::seal::{KeyFile, KeyRing};
use gitmoor::service::housekeeping::Retention;
use gitmoor::store::Store;
use gitmoor::store::memory::MemoryStore;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::pb;

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    /// Stands at the real time of its making: provider dates are real too.
    pub(crate) fn now() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(gitmoor::clock::SystemClock.now().unix_micros())))
    }

    pub(crate) fn advance(&self, span: Duration) {
        self.0.fetch_add(i64::try_from(span.as_micros()).expect("a span of a test"), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.0.load(Ordering::SeqCst))
    }
}

/// What a test wants of the service.
pub(crate) struct TestApp {
    allow: Vec<String>,
    webhook_targets: Vec<String>,
    store: Arc<dyn Store>,
    keys: KeyRing,
    max_calls: usize,
    keep: Retention,
    clock: Arc<TestClock>,
}

impl TestApp {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        KeyFile::create(&path, gitmoor::clock::SystemClock.now()).expect("a key file");
        Self {
            allow: Vec::new(),
            webhook_targets: Vec::new(),
            store: Arc::new(MemoryStore::new()),
            keys: KeyRing::load(&path).expect("a key ring"),
            max_calls: 1_024,
            keep: Retention {
                events: Duration::from_secs(400 * 86_400),
                requests: Duration::from_secs(86_400),
            },
            clock: TestClock::now(),
        }
    }

    /// Admits an origin, a host or a network, as `--egress-allow` does.
    pub(crate) fn allow(mut self, rule: &str) -> Self {
        self.allow.push(rule.to_owned());
        self
    }

    /// Admits a webhook target, as `--webhook-target-allow` does.
    pub(crate) fn allow_target(mut self, rule: &str) -> Self {
        self.webhook_targets.push(rule.to_owned());
        self
    }

    pub(crate) fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = store;
        self
    }

    pub(crate) fn keys(mut self, keys: KeyRing) -> Self {
        self.keys = keys;
        self
    }

    pub(crate) fn max_calls(mut self, calls: usize) -> Self {
        self.max_calls = calls;
        self
    }

    pub(crate) async fn start(self) -> Running {
        let rules = self.allow.iter().map(|rule| AllowRule::parse(rule).expect("an egress rule")).collect();
        let targets =
            self.webhook_targets.iter().map(|rule| TargetRule::parse(rule).expect("a webhook target"));
        let outbound =
            Outbound::new(OutboundConfig { allow: rules, ..OutboundConfig::default() }).expect("a way out");
        let app = App::build(Parts {
            store: self.store.clone(),
            store_path: "memory".into(),
            keys: self.keys,
            outbound,
            webhook_targets: TargetPolicy::new(targets.collect()),
            providers: Providers::builtin(),
            clock: self.clock.clone(),
            limits: Limits {
                max_calls: self.max_calls,
                stream_total: Duration::from_secs(600),
                drain: Duration::from_secs(2),
                keep: self.keep,
            },
        })
        .await
        .expect("the parts fit");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let ended = async {
                // An error means that the test dropped its end.
                let _ = stopped.await;
            };
            app.serve(vec![Listener::Tcp(listener)], ended).await
        });
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .expect("an endpoint")
            .connect()
            .await
            .expect("the service listens");
        Running { address, channel, store: self.store, clock: self.clock, stop: Some(stop), task: Some(task) }
    }
}

/// The service, running until it is stopped or dropped.
pub(crate) struct Running {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) channel: Channel,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<TestClock>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), gitmoor::app::Error>>>,
}

impl Running {
    pub(crate) fn connections(&self) -> ConnectionServiceClient<Channel> {
        ConnectionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn repositories(&self) -> RepositoryServiceClient<Channel> {
        RepositoryServiceClient::new(self.channel.clone())
    }

    /// Creates a connection in the tenant `default`.
    pub(crate) async fn create(&self, connection: v1::Connection) -> Result<v1::Connection, Status> {
        self.create_in("default", connection).await
    }

    pub(crate) async fn create_in(
        &self,
        tenant: &str,
        connection: v1::Connection,
    ) -> Result<v1::Connection, Status> {
        let request = v1::CreateConnectionRequest {
            parent: format!("tenants/{tenant}"),
            connection: Some(connection),
            ..Default::default()
        };
        self.connections().create_connection(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn get(&self, name: &str) -> Result<v1::Connection, Status> {
        let request = v1::GetConnectionRequest { name: name.to_owned() };
        self.connections().get_connection(request).await.map(tonic::Response::into_inner)
    }

    /// All connections of a tenant, one page.
    pub(crate) async fn list(&self, tenant: &str) -> Vec<v1::Connection> {
        let request = v1::ListConnectionsRequest {
            parent: format!("tenants/{tenant}"),
            page_size: 500,
            ..Default::default()
        };
        self.connections().list_connections(request).await.expect("a listing").into_inner().connections
    }

    /// All repositories of a connection, from the stream.
    pub(crate) async fn stream(&self, parent: &str) -> Result<Vec<v1::Repository>, Status> {
        let request = v1::StreamRepositoriesRequest {
            parent: parent.to_owned(),
            include_archived: true,
            ..Default::default()
        };
        let mut stream = self.repositories().stream_repositories(request).await?.into_inner();
        let mut rows = Vec::new();
        while let Some(message) = stream.message().await? {
            rows.extend(message.repositories);
        }
        Ok(rows)
    }

    /// Stops it as SIGTERM would and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<(), gitmoor::app::Error> {
        drop(self.stop.take());
        self.task.take().expect("it runs").await.expect("it does not panic")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// A connection with a Personal Access Token.
pub(crate) fn connection(provider: &str, display_name: &str, base_url: &str, token: &str) -> v1::Connection {
    v1::Connection {
        provider: provider.to_owned(),
        display_name: display_name.to_owned(),
        base_url: base_url.to_owned(),
        credential: Some(pat(token)),
        ..Default::default()
    }
}

/// A Personal Access Token.
pub(crate) fn pat(token: &str) -> v1::Credential {
    v1::Credential {
        kind: Some(v1::credential::Kind::PersonalAccessToken(v1::PersonalAccessToken {
            token: token.to_owned(),
            username: None,
        })),
        declared_expire_time: None,
    }
}

/// A refusal, taken apart.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) domain: String,
    pub(crate) metadata: HashMap<String, String>,
    /// Field and reason of each violation.
    pub(crate) violations: Vec<(String, String)>,
    /// Type and subject of each precondition that does not hold.
    pub(crate) preconditions: Vec<(String, String)>,
    /// The short names of all details.
    pub(crate) details: Vec<String>,
    pub(crate) message: String,
}

impl Refused {
    /// Takes a status apart; it must carry exactly one `ErrorInfo`.
    pub(crate) fn from(status: &Status) -> Self {
        let wire = pb::Status::decode(status.details()).expect("details");
        let short = |url: &str| url.rsplit('.').next().unwrap_or_default().to_owned();
        let details: Vec<String> = wire.details.iter().map(|any| short(&any.type_url)).collect();
        assert_eq!(details.iter().filter(|name| *name == "ErrorInfo").count(), 1, "{details:?}");
        let mut refused = Self {
            code: status.code(),
            reason: String::new(),
            domain: String::new(),
            metadata: HashMap::new(),
            violations: Vec::new(),
            preconditions: Vec::new(),
            details,
            message: status.message().to_owned(),
        };
        for any in &wire.details {
            match short(&any.type_url).as_str() {
                "ErrorInfo" => {
                    let info = pb::ErrorInfo::decode(any.value.as_slice()).expect("ErrorInfo");
                    refused.reason = info.reason;
                    refused.domain = info.domain;
                    refused.metadata = info.metadata.into_iter().collect();
                }
                "BadRequest" => {
                    let bad = pb::BadRequest::decode(any.value.as_slice()).expect("BadRequest");
                    refused.violations =
                        bad.field_violations.into_iter().map(|v| (v.field, v.reason)).collect();
                }
                "PreconditionFailure" => {
                    let failure =
                        pb::PreconditionFailure::decode(any.value.as_slice()).expect("PreconditionFailure");
                    refused.preconditions =
                        failure.violations.into_iter().map(|v| (v.r#type, v.subject)).collect();
                }
                _ => {}
            }
        }
        refused
    }
}

/// The refusal of a call that must be refused.
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Refused {
    Refused::from(&outcome.expect_err("must be refused"))
}
