//! How fast the whole service is, as ratios taken in one run on one machine, against something that does the
//! least that could be done in its place: a bare echo, a small store, the latency of the provider itself.
//!
//! `cargo bench --bench service`, about three minutes; `GITMOOR_BENCH_QUICK=1` for less than one. The service is the
//! program itself with everything switched on (store on disk, JSON log lines at `info`); echo and forge are
//! child processes of this one, so each has a process of its own and the client is the same for all.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    reason = "a bench that cannot go on should say where; it is a main of its own, and shares parts of the tests"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gitmoor::clock::{Clock as _, SystemClock};
use gitmoor::domain::connection::{ConnectionRecord, DisplayName, Revision};
use gitmoor::proto::v1;
use gitmoor::proto::v1::connection_service_client::ConnectionServiceClient;
use gitmoor::proto::v1::connection_service_server::{ConnectionService, ConnectionServiceServer};
use gitmoor::proto::v1::repository_service_client::RepositoryServiceClient;
use gitmoor::seal::KeyFile;
use gitmoor::store::{Change, Remembered, Store as _};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use self::fixture::{event, insert, name, open, remembered};
use self::forge::{
    Forge, ForgeConfig, azure_tokens, bitbucket_cloud_tokens, data_center_tokens, gitea_tokens,
    github_tokens, gitlab_tokens,
};

#[path = "../tests/it/store/fixture.rs"]
mod fixture;
#[path = "../tests/it/support/forge/mod.rs"]
mod forge;

/// Names what a child process is; the parent has none.
const ROLE: &str = "GITMOOR_BENCH_ROLE";
/// The file that holds the echo's answer.
const ANSWER: &str = "GITMOOR_BENCH_ANSWER";
/// HTTP/2 connections, and calls in flight on each.
const CHANNELS: usize = 4;
const IN_FLIGHT: usize = 32;
/// Latency of one provider call.
const LATENCY: Duration = Duration::from_millis(50);
const REPOSITORIES: usize = 10_000;
const AZURE_PROJECTS: usize = 100;
/// Rounds of provider calls that must follow one another. GitLab: the first page, then 99 of them 16 side by side.
const GITLAB_ROUNDS: u32 = 1 + 99_u32.div_ceil(16);
/// GitHub: the same, found by its links.
const GITHUB_ROUNDS: u32 = GITLAB_ROUNDS;
/// Azure DevOps: the projects, then one call for each of them, 4 side by side.
const AZURE_ROUNDS: u32 = 1 + 100_u32.div_ceil(4);
/// Gitea: the first page, then 199 of them 8 side by side. Who asks is one call more, before the first page.
const GITEA_ROUNDS: u32 = 1 + 199_u32.div_ceil(8);
/// Bitbucket Cloud: the workspaces, then 25 pages of each of four, 4 side by side.
const BITBUCKET_CLOUD_ROUNDS: u32 = 1 + 100_u32.div_ceil(4);
const WORKSPACES: usize = 4;
/// Bitbucket Data Center: one chain of ten pages, for only the server knows where the next one starts.
const DATA_CENTER_ROUNDS: u32 = 10;
const TENANT: &str = "default";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match std::env::var(ROLE).as_deref() {
            Ok("echo") => serve_echo().await,
            Ok("forge") => serve_forge().await,
            _ => {
                let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
                let mut interrupt = signal(SignalKind::interrupt()).expect("a signal handler");
                // Whichever way this ends, the children are dropped, which ends them.
                tokio::select! {
                    () = measure() => {}
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
        }
    });
}

/// How much is measured.
struct Effort {
    round: Duration,
    rounds: usize,
    runs: usize,
}

impl Effort {
    fn chosen() -> Self {
        if std::env::var_os("GITMOOR_BENCH_QUICK").is_some_and(|value| value == "1") {
            Self { round: Duration::from_millis(500), rounds: 5, runs: 3 }
        } else {
            Self { round: Duration::from_secs(2), rounds: 9, runs: 7 }
        }
    }
}

async fn measure() {
    let effort = Effort::chosen();
    // Under the build directory: a temporary directory may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let bench = Bench { folder: folder.path().to_owned() };
    KeyFile::create(&bench.key_file(), SystemClock.now()).expect("a key file");
    println!("{:<58} {:>9} {:>9}  (least .. most)", "measured", "aim", "median");
    bench.discovery(&effort).await;
    let template = bench.template().await;
    for (data, count) in [("few", 1_000), ("some", 10_000), ("many", 100_000)] {
        bench.fill(data, count, &template).await;
    }
    bench.idle(&effort).await;
    bench.reads(&effort).await;
}

struct Bench {
    folder: PathBuf,
}

impl Bench {
    fn key_file(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// Starts the program on a data directory, and waits until it serves.
    async fn service(&self, data: &str, allow: Option<&str>) -> Running {
        let address = free_address();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gitmoor"));
        command
            .arg("serve")
            .args(["--listen", &address.to_string(), "--log-format", "json", "--log-level", "info"])
            .arg("--data-dir")
            .arg(self.folder.join(data))
            .arg("--key-file")
            .arg(self.key_file())
            .env_remove("RUST_LOG")
            .stdout(Stdio::null());
        if let Some(rule) = allow {
            command.args(["--egress-allow", rule]);
        }
        let started = Instant::now();
        let process = Process::start(command);
        let channel = serving(address).await;
        Running { process, address, channel, ready_after: started.elapsed() }
    }

    /// 10,000 repositories at 50 ms for each provider call, all of them through one stream.
    async fn discovery(&self, effort: &Effort) {
        let forge = Role::start("forge", None);
        let hosts = [
            ("gitlab", format!("{}/gitlab", forge.line), gitlab_tokens::GOOD, GITLAB_ROUNDS),
            (
                "azure-devops",
                format!("{}/azure/{}", forge.line, forge::ORGANIZATION),
                azure_tokens::GOOD,
                AZURE_ROUNDS,
            ),
            (
                "bitbucket-cloud",
                format!("{}/bitbucket-cloud", forge.line),
                bitbucket_cloud_tokens::GOOD,
                BITBUCKET_CLOUD_ROUNDS,
            ),
            (
                "bitbucket-data-center",
                format!("{}/bitbucket", forge.line),
                data_center_tokens::GOOD,
                DATA_CENTER_ROUNDS,
            ),
            ("gitea", format!("{}/gitea", forge.line), gitea_tokens::GOOD, GITEA_ROUNDS),
            ("github", format!("{}/github", forge.line), github_tokens::GOOD, GITHUB_ROUNDS),
        ];
        for (provider, url, token, rounds) in hosts {
            let created = {
                let service = self.service("discovery", Some(&forge.line)).await;
                create(&service.channel, provider, &url, token).await
            };
            let (mut first, mut total, mut grown) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..effort.runs {
                // A new process for each run: what one leaves in memory or in its connection pool helps no other.
                let service = self.service("discovery", Some(&forge.line)).await;
                let run = stream(&service, &created.name).await;
                assert_eq!(run.repositories, REPOSITORIES, "all of them arrive");
                first.push(run.first.as_secs_f64() / LATENCY.as_secs_f64());
                total.push(run.total.as_secs_f64() / (LATENCY * rounds).as_secs_f64());
                grown.push(run.grown_kib as f64 / 1_024.0);
            }
            let limit = (LATENCY * rounds).as_secs_f64();
            println!(
                "{provider}: {REPOSITORIES} repositories, {LATENCY:?} a call; the limit is {limit:.2} s"
            );
            row("  first batch, in provider round trips", "<= 2", first);
            // A chain of ten calls is bound by each of them; more leave room to be fast or slow in.
            let aim = if rounds == DATA_CENTER_ROUNDS { "" } else { "<= 1.15" };
            row("  all repositories / the limit", aim, total);
            row("  growth of resident memory, MiB", "< 24", grown);
        }
    }

    /// What CreateConnection leaves in the store, to be stored again under other names.
    async fn template(&self) -> Arc<ConnectionRecord> {
        let store = open(&self.folder.join("discovery/store"));
        let listed = store.connections(&fixture::tenant(TENANT), None, 10).await.expect("connections");
        let records = listed.into_iter().map(|record| record.expect("readable"));
        let mut of_gitlab = records.filter(|record| record.connection.provider.as_str() == "gitlab");
        of_gitlab.next().expect("the connection of the discovery")
    }

    /// A store of so many connections.
    async fn fill(&self, data: &str, count: usize, template: &ConnectionRecord) {
        let store = open(&self.folder.join(data).join("store"));
        for first in (0..count).step_by(500) {
            let changes = (first..first + 500).flat_map(|at| {
                let label = format!("c{at}");
                let mut record = template.clone();
                record.connection.name = name(TENANT, &label);
                record.connection.display_name = DisplayName::parse(&label).expect("a display name");
                record.revision = Revision(1);
                [
                    insert(&record),
                    Change::Append(event(TENANT, &label)),
                    // Old ones would be forgotten while something else is measured.
                    Change::Remember(Remembered { time: SystemClock.now(), ..remembered(TENANT, &label) }),
                ]
            });
            store.commit(changes.collect()).await.expect("stored");
        }
        store.close().await;
    }

    /// Start and memory of a service that nobody uses.
    async fn idle(&self, effort: &Effort) {
        for (data, what) in [("none", "without a connection"), ("some", "with 10,000 connections")] {
            let (mut ready, mut resident) = (Vec::new(), Vec::new());
            for _ in 0..effort.runs {
                let service = self.service(data, None).await;
                ready.push(service.ready_after.as_secs_f64() * 1e3);
                tokio::time::sleep(Duration::from_millis(300)).await;
                resident.push(service.process.resident_kib() as f64 / 1_024.0);
            }
            println!("idle, {what}");
            row("  from its start to the first healthy answer, ms", "< 300", ready);
            row("  resident memory, MiB", "< 25", resident);
        }
    }

    /// GetConnection with 128 calls in flight, against the echo and among more connections.
    async fn reads(&self, effort: &Effort) {
        let few = self.service("few", None).await;
        let answer = get(&few.channel, &connection_name(7)).await;
        let file = self.folder.join("answer");
        fs::write(&file, answer.encode_to_vec()).expect("the answer is written");
        println!(
            "GetConnection, {} in flight over {CHANNELS} connections, {} bytes each",
            CHANNELS * IN_FLIGHT,
            answer.encoded_len()
        );
        let echo = Role::start("echo", Some(&file));
        let echo = Load::connect(echo.line.parse().expect("an address"), echo.process).await;
        let few = Load::connect(few.address, few.process).await;
        let (ours, theirs) = alternate(effort, (&few, 1_000), (&echo, 1_000)).await;
        row("  at 1,000 connections / bare tonic echo", ">= 0.70", ratios(&ours, &theirs));
        row("  calls/s of the service", "", ours);
        row("  calls/s of the echo", "", theirs);
        drop(echo);
        let many = self.service("many", None).await;
        let many = Load::connect(many.address, many.process).await;
        let (at_many, at_few) = alternate(effort, (&many, 100_000), (&few, 1_000)).await;
        row("  at 100,000 connections / at 1,000", ">= 0.9", ratios(&at_many, &at_few));
        row("  calls/s at 100,000 connections", "", at_many);
        println!(
            "  resident memory afterwards: {:.1} MiB at 1,000, {:.1} MiB at 100,000",
            few.process.resident_kib() as f64 / 1_024.0,
            many.process.resident_kib() as f64 / 1_024.0
        );
    }
}

/// Rounds of both in turn, so that what else the machine does touches both; calls per second of each round.
async fn alternate(effort: &Effort, a: (&Load, u64), b: (&Load, u64)) -> (Vec<f64>, Vec<f64>) {
    for (load, connections) in [a, b] {
        load.per_second(connections, effort.round).await;
    }
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        of_a.push(a.0.per_second(a.1, effort.round).await);
        of_b.push(b.0.per_second(b.1, effort.round).await);
    }
    (of_a, of_b)
}

fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

fn row(what: &str, aim: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let shown = |value: f64| if value >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    let (least, most) = (values[0], values[values.len() - 1]);
    let median = shown(values[values.len() / 2]);
    println!("{what:<58} {aim:>9} {median:>9}  ({} .. {})", shown(least), shown(most));
}

/// A process that ends, and is waited for, when this is dropped.
struct Process(Child);

impl Process {
    fn start(mut command: Command) -> Self {
        // Log lines are written, and go nowhere.
        Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process"))
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for a process that has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This program in another role, with the line that it told on stdout.
struct Role {
    process: Process,
    line: String,
}

impl Role {
    fn start(role: &str, answer: Option<&Path>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.env(ROLE, role).stdout(Stdio::piped());
        if let Some(answer) = answer {
            command.env(ANSWER, answer);
        }
        let mut process = Process::start(command);
        let mut line = String::new();
        let stdout = process.0.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        Self { process, line: line.trim().to_owned() }
    }
}

/// The service, serving.
struct Running {
    process: Process,
    address: SocketAddr,
    channel: Channel,
    ready_after: Duration,
}

/// Nobody else here takes a port between this and the use of it.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// Asks until the health service answers.
async fn serving(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an endpoint");
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(channel) = endpoint.connect().await
            && HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.is_ok()
        {
            return channel;
        }
        assert!(Instant::now() < limit, "the service does not start; is its command line right?");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn create(channel: &Channel, provider: &str, base_url: &str, token: &str) -> v1::Connection {
    let token = token.to_owned();
    let kind = if provider == "bitbucket-cloud" {
        let email = bitbucket_cloud_tokens::EMAIL.to_owned();
        v1::credential::Kind::EmailApiToken(v1::EmailApiToken { email, token })
    } else {
        v1::credential::Kind::PersonalAccessToken(v1::PersonalAccessToken { token, username: None })
    };
    let credential = v1::Credential { kind: Some(kind), declared_expire_time: None };
    let connection = v1::Connection {
        provider: provider.to_owned(),
        display_name: provider.to_owned(),
        base_url: base_url.to_owned(),
        credential: Some(credential),
        ..Default::default()
    };
    let request = v1::CreateConnectionRequest {
        parent: format!("tenants/{TENANT}"),
        connection: Some(connection),
        ..Default::default()
    };
    let mut client = ConnectionServiceClient::new(channel.clone());
    client.create_connection(request).await.expect("created").into_inner()
}

fn connection_name(at: u64) -> String {
    format!("tenants/{TENANT}/connections/c{at}")
}

async fn get(channel: &Channel, name: &str) -> v1::Connection {
    let request = v1::GetConnectionRequest { name: name.to_owned() };
    ConnectionServiceClient::new(channel.clone()).get_connection(request).await.expect("found").into_inner()
}

/// What one discovery took.
struct Discovery {
    repositories: usize,
    first: Duration,
    total: Duration,
    grown_kib: u64,
}

async fn stream(service: &Running, parent: &str) -> Discovery {
    let before = service.process.resident_kib();
    let most = AtomicU64::new(before);
    let watching = async {
        loop {
            most.fetch_max(service.process.resident_kib(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reading = async {
        let request = v1::StreamRepositoriesRequest {
            parent: parent.to_owned(),
            include_archived: true,
            ..Default::default()
        };
        let started = Instant::now();
        let mut client = RepositoryServiceClient::new(service.channel.clone());
        let mut batches = client.stream_repositories(request).await.expect("a stream").into_inner();
        let (mut repositories, mut first) = (0, None);
        while let Some(batch) = batches.message().await.expect("a batch") {
            repositories += batch.repositories.len();
            if repositories > 0 {
                first.get_or_insert_with(|| started.elapsed());
            }
        }
        (repositories, first.expect("a batch"), started.elapsed())
    };
    let (repositories, first, total) = tokio::select! {
        told = reading => told,
        () = watching => unreachable!("it never ends"),
    };
    let after = most.into_inner().max(service.process.resident_kib());
    Discovery { repositories, first, total, grown_kib: after - before }
}

/// A server and the connections to it.
struct Load {
    process: Process,
    channels: Vec<Channel>,
}

impl Load {
    async fn connect(address: SocketAddr, process: Process) -> Self {
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).expect("an endpoint").tcp_nodelay(true);
        let mut channels = Vec::new();
        for _ in 0..CHANNELS {
            channels.push(endpoint.connect().await.expect("it listens"));
        }
        Self { process, channels }
    }

    /// GetConnection of names drawn at random among so many, for one round; calls per second.
    async fn per_second(&self, connections: u64, round: Duration) -> f64 {
        let over = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let callers: Vec<_> = (0..CHANNELS * IN_FLIGHT)
            .map(|caller| {
                let mut client = ConnectionServiceClient::new(self.channels[caller % CHANNELS].clone());
                let over = over.clone();
                tokio::spawn(async move {
                    let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(caller as u64 + 1);
                    let mut calls = 0_u64;
                    while !over.load(Ordering::Relaxed) {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let name = connection_name(random % connections);
                        client.get_connection(v1::GetConnectionRequest { name }).await.expect("found");
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        tokio::time::sleep(round).await;
        over.store(true, Ordering::Relaxed);
        let mut calls = 0;
        for caller in callers {
            calls += caller.await.expect("no panic");
        }
        calls as f64 / started.elapsed().as_secs_f64()
    }
}

/// The forge as a process: tells its origin, and serves until it is killed.
async fn serve_forge() {
    let mut config = ForgeConfig { latency: LATENCY, ..ForgeConfig::default() };
    config.bitbucket_cloud.repositories = REPOSITORIES;
    config.bitbucket_cloud.workspaces = WORKSPACES;
    config.bitbucket_data_center.repositories = REPOSITORIES;
    config.gitea.repositories = REPOSITORIES;
    config.github.repositories = REPOSITORIES;
    config.gitlab.repositories = REPOSITORIES;
    config.azure.projects = AZURE_PROJECTS;
    config.azure.repositories_per_project = REPOSITORIES / AZURE_PROJECTS;
    config.azure.unreadable = false;
    let forge = Forge::start(config).await.expect("a forge");
    println!("{}", forge.origin());
    std::future::pending::<()>().await;
}

/// The least that can answer GetConnection: the generated server with one prepared answer.
async fn serve_echo() {
    let path = std::env::var_os(ANSWER).expect("the file of the answer");
    let answer = fs::read(path).expect("the answer");
    let answer = v1::Connection::decode(answer.as_slice()).expect("a connection");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    // As in the service: without it, an answer waits for the acknowledgement of the one before.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = tonic::transport::Server::builder()
        .add_service(ConnectionServiceServer::new(Echo(answer)))
        .serve_with_incoming(incoming);
    served.await.expect("it serves");
}

struct Echo(v1::Connection);

type Answer<T> = Result<Response<T>, Status>;

/// What the echo does not do.
fn nothing<T>() -> Answer<T> {
    Err(Status::unimplemented("an echo"))
}

#[tonic::async_trait]
impl ConnectionService for Echo {
    type WatchConnectionsStream = tokio_stream::Empty<Result<v1::WatchConnectionsResponse, Status>>;

    async fn get_connection(&self, _: Request<v1::GetConnectionRequest>) -> Answer<v1::Connection> {
        Ok(Response::new(self.0.clone()))
    }

    async fn list_providers(
        &self,
        _: Request<v1::ListProvidersRequest>,
    ) -> Answer<v1::ListProvidersResponse> {
        nothing()
    }

    async fn get_provider(&self, _: Request<v1::GetProviderRequest>) -> Answer<v1::Provider> {
        nothing()
    }

    async fn create_connection(&self, _: Request<v1::CreateConnectionRequest>) -> Answer<v1::Connection> {
        nothing()
    }

    async fn list_connections(
        &self,
        _: Request<v1::ListConnectionsRequest>,
    ) -> Answer<v1::ListConnectionsResponse> {
        nothing()
    }

    async fn update_connection(&self, _: Request<v1::UpdateConnectionRequest>) -> Answer<v1::Connection> {
        nothing()
    }

    async fn replace_credential(
        &self,
        _: Request<v1::ReplaceCredentialRequest>,
    ) -> Answer<v1::ReplaceCredentialResponse> {
        nothing()
    }

    async fn delete_connection(&self, _: Request<v1::DeleteConnectionRequest>) -> Answer<()> {
        nothing()
    }

    async fn verify_connection(
        &self,
        _: Request<v1::VerifyConnectionRequest>,
    ) -> Answer<v1::VerifyConnectionResponse> {
        nothing()
    }

    async fn watch_connections(
        &self,
        _: Request<v1::WatchConnectionsRequest>,
    ) -> Answer<Self::WatchConnectionsStream> {
        nothing()
    }

    async fn list_connection_events(
        &self,
        _: Request<v1::ListConnectionEventsRequest>,
    ) -> Answer<v1::ListConnectionEventsResponse> {
        nothing()
    }
}
