//! An in-process fake of the Git hosts, on real sockets: GitHub below `/github`, GitLab below `/gitlab`, Azure DevOps
//! Services below `/azure/contoso`, Azure DevOps Server below `/azure-server/tfs/DefaultCollection`,
//! Gitea or Forgejo below `/gitea`, Bitbucket Cloud below `/bitbucket-cloud` (as behind a gateway: its links name the
//! real one), Bitbucket Data Center below `/bitbucket`.
//!
//! It is an independent peer: it shares no code with the product, its rows are made from the
//! recorded exchanges in `tests/fixtures/providers`, and it answers, pages and refuses as the real
//! hosts were seen to. Its clone URLs lead to the real git. Switches ([`Fault`]) turn it hostile;
//! [`Forge::requests`] tells what arrived.

#![allow(
    dead_code,
    unused_imports,
    clippy::disallowed_methods,
    reason = "shared by the tests, the benches and the example; none of them calls all of it"
)]

/// The text of a recorded file.
macro_rules! recorded {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/providers/", $path))
    };
}

mod azure_devops;
mod bitbucket_cloud;
mod bitbucket_data_center;
mod changes;
mod control;
mod fault;
mod git;
mod gitea;
mod github;
mod gitlab;
mod hold;
mod hooks;
mod raw;
mod refs;
mod server;
mod template;
mod wire;

pub(crate) use azure_devops::data::AzureConfig;
pub(crate) use azure_devops::tokens::{AzureToken, SignIn, known as azure_tokens};
pub(crate) use bitbucket_cloud::data::{BitbucketCloudConfig, IdOrder};
pub(crate) use bitbucket_cloud::tokens::{BitbucketKind, BitbucketToken, known as bitbucket_cloud_tokens};
pub(crate) use bitbucket_data_center::data::DataCenterConfig;
pub(crate) use bitbucket_data_center::tokens::{
    DataCenterToken, DataCenterTokenState, Level, known as data_center_tokens,
};
pub(crate) use fault::{FAULTS, Fault, WrongId};
pub(crate) use gitea::data::GiteaConfig;
pub(crate) use gitea::tokens::{GiteaToken, GiteaTokenState, known as gitea_tokens};
pub(crate) use github::data::GithubConfig;
pub(crate) use github::tokens::{GithubToken, TokenState as GithubTokenState, known as github_tokens};
pub(crate) use gitlab::data::GitlabConfig;
pub(crate) use gitlab::tokens::{GitlabToken, TokenKind, TokenState, known as gitlab_tokens};
pub(crate) use hold::{Doing, Hold, HoldAt, Moment};
pub(crate) use hooks::{Hook, HookState, Hooks};
pub(crate) use wire::{Query, Reply, Seen};

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The organization of the fake Azure DevOps Services.
pub(crate) const ORGANIZATION: &str = "contoso";
/// The collection of the fake Azure DevOps Server, with its virtual directory.
pub(crate) const COLLECTION: &str = "tfs/DefaultCollection";
/// How many requests are remembered; older ones are forgotten first.
const REMEMBERED: usize = 20_000;

/// What a forge serves. The default is a small forge for tests: 25 GitLab projects, 5 Azure DevOps
/// projects of 4 repositories, 25 Bitbucket Cloud repositories in 3 workspaces, no latency, plain HTTP on a free loopback port.
#[derive(Clone, Debug)]
pub(crate) struct ForgeConfig {
    /// The address to bind; port 0 picks a free one.
    pub(crate) listen: SocketAddr,
    /// From a request to its answer, at least; counted as in flight.
    pub(crate) latency: Duration,
    /// Serve TLS with a leaf certificate signed by a CA made for this forge.
    pub(crate) tls: bool,
    /// The names and addresses of that certificate.
    pub(crate) tls_names: Vec<String>,
    /// That certificate ended years ago.
    pub(crate) tls_expired: bool,
    /// The pause between two pieces of a dripping answer.
    pub(crate) drip: Duration,
    /// The day from which token expiries are counted.
    pub(crate) today: time::Date,
    /// Branches of every repository that has code, four at least.
    pub(crate) branches: usize,
    /// Tags of every repository that has code.
    pub(crate) tags: usize,
    /// The fake Gitea.
    pub(crate) gitea: GiteaConfig,
    /// The fake GitHub.
    pub(crate) github: GithubConfig,
    /// The fake GitLab.
    pub(crate) gitlab: GitlabConfig,
    /// The fake Azure DevOps, both forms.
    pub(crate) azure: AzureConfig,
    /// The fake Bitbucket Cloud.
    pub(crate) bitbucket_cloud: BitbucketCloudConfig,
    /// The fake Bitbucket Data Center.
    pub(crate) bitbucket_data_center: DataCenterConfig,
}

impl Default for ForgeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            latency: Duration::ZERO,
            tls: false,
            tls_names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            tls_expired: false,
            drip: Duration::from_secs(1),
            today: time::OffsetDateTime::from(std::time::SystemTime::now()).date(),
            branches: 30,
            tags: 12,
            gitea: GiteaConfig::default(),
            github: GithubConfig::default(),
            gitlab: GitlabConfig::default(),
            azure: AzureConfig::default(),
            bitbucket_cloud: BitbucketCloudConfig::default(),
            bitbucket_data_center: DataCenterConfig::default(),
        }
    }
}

impl ForgeConfig {
    /// So many repositories at each provider, about.
    pub(crate) fn with_repositories(count: usize) -> Self {
        let small = Self::default();
        Self {
            github: GithubConfig { repositories: count, ..small.github },
            gitlab: GitlabConfig { repositories: count, ..small.gitlab },
            gitea: GiteaConfig { repositories: count, ..small.gitea },
            azure: AzureConfig { projects: count.div_ceil(50), repositories_per_project: 50, ..small.azure },
            bitbucket_cloud: BitbucketCloudConfig { repositories: count, ..small.bitbucket_cloud },
            bitbucket_data_center: DataCenterConfig { repositories: count, ..small.bitbucket_data_center },
            ..small
        }
    }
}

/// A running forge. It serves until dropped; dropping it closes the listener and every connection.
#[derive(Debug)]
pub(crate) struct Forge {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca_pem: Option<String>,
    leaf_der: Vec<u8>,
    server: JoinHandle<()>,
}

impl Forge {
    /// Binds and serves. Errors are those of the bind, or a recorded fixture that does not parse.
    pub(crate) async fn start(config: ForgeConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let tls = config.tls.then(|| server::Tls::generate(&config)).transpose()?;
        let scheme = if config.tls { "https" } else { "http" };
        let origin = format!("{scheme}://{address}");
        let shared = Arc::new(Shared {
            gitea: gitea::Instance::build(&config, &origin)?,
            github: github::Instance::build(&config, &origin)?,
            gitlab: gitlab::Instance::build(&config, &origin)?,
            azure: azure_devops::Instance::build(&config, &origin)?,
            bitbucket_cloud: bitbucket_cloud::Instance::build(&config)?,
            bitbucket_data_center: bitbucket_data_center::Instance::build(&config, &origin)?,
            origin,
            git: git::GitServer::default(),
            drip: config.drip,
            control: Mutex::new(Control { latency: config.latency, ..Control::default() }),
            holds: hold::Holds::default(),
            outside: control::Outside::default(),
            in_flight: AtomicUsize::new(0),
            max_in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let leaf_der = tls.as_ref().map(|tls| tls.leaf_der.clone()).unwrap_or_default();
        let ca_pem = tls.as_ref().map(|tls| tls.ca_pem.clone());
        let acceptor = tls.map(|tls| tls.acceptor);
        let server = tokio::spawn(server::serve(listener, acceptor, Arc::clone(&shared)));
        Ok(Self { shared, address, ca_pem, leaf_der, server })
    }

    /// A forge with the defaults.
    pub(crate) async fn small() -> io::Result<Self> {
        Self::start(ForgeConfig::default()).await
    }

    /// `http://127.0.0.1:PORT`, or `https://…`.
    pub(crate) fn origin(&self) -> &str {
        &self.shared.origin
    }

    /// The bound address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a person would paste for the GitHub server, which is behind a gateway with a path.
    pub(crate) fn github_url(&self) -> String {
        format!("{}/github", self.shared.origin)
    }

    /// What a person would paste for the GitLab instance (it has a relative root).
    pub(crate) fn gitlab_url(&self) -> String {
        format!("{}/gitlab", self.shared.origin)
    }

    /// What a person would paste for the Gitea instance (it has a sub-path).
    pub(crate) fn gitea_url(&self) -> String {
        format!("{}/gitea", self.shared.origin)
    }

    /// What a person would paste for the Azure DevOps Services organization.
    pub(crate) fn azure_url(&self) -> String {
        format!("{}/azure/{ORGANIZATION}", self.shared.origin)
    }

    /// What a person would paste for the Azure DevOps Server collection.
    pub(crate) fn azure_server_url(&self) -> String {
        format!("{}/azure-server/{COLLECTION}", self.shared.origin)
    }

    /// Where a gateway to the fake Bitbucket Cloud is.
    pub(crate) fn bitbucket_cloud_url(&self) -> String {
        format!("{}/bitbucket-cloud", self.shared.origin)
    }

    /// What a person would paste for the Bitbucket Data Center instance (it has a context path).
    pub(crate) fn bitbucket_data_center_url(&self) -> String {
        format!("{}/bitbucket", self.shared.origin)
    }

    /// The commit that a branch or a tag of every repository stands for.
    pub(crate) fn commit_of(name: &str) -> String {
        refs::Refs::commit(name)
    }

    /// The commit of the repository that git finds at a clone URL of this forge. Errors are those of running git.
    pub(crate) async fn commit_at(&self, clone_url: &str) -> io::Result<String> {
        let path = clone_url.strip_prefix(self.origin()).unwrap_or(clone_url);
        self.shared.git.commit(path).await
    }

    /// The certificate authority of a TLS forge.
    pub(crate) fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The certificate that a TLS forge shows (DER); empty without TLS.
    pub(crate) fn leaf_der(&self) -> &[u8] {
        &self.leaf_der
    }

    /// The requests so far, oldest first.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.shared.control().seen.iter().cloned().collect()
    }

    /// The requests whose path and query start with `prefix`.
    pub(crate) fn requests_to(&self, prefix: &str) -> Vec<Seen> {
        let mut seen = self.requests();
        seen.retain(|seen| seen.target().starts_with(prefix));
        seen
    }

    /// Forgets the requests so far.
    pub(crate) fn forget_requests(&self) {
        self.shared.control().seen.clear();
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Requests read whose answer is not ready yet, the latency included.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::SeqCst)
    }

    /// The highest value of [`Forge::in_flight`] since the start or the last reset.
    pub(crate) fn max_in_flight(&self) -> usize {
        self.shared.max_in_flight.load(Ordering::SeqCst)
    }

    /// Starts the maximum anew.
    pub(crate) fn reset_max_in_flight(&self) {
        self.shared.max_in_flight.store(0, Ordering::SeqCst);
    }

    /// Changes the latency of the requests to come.
    pub(crate) fn set_latency(&self, latency: Duration) {
        self.shared.control().latency = latency;
    }

    /// Every request from now on meets `fault`.
    pub(crate) fn set_fault(&self, fault: Fault) {
        self.fault_after("/", 0, fault, usize::MAX);
    }

    /// The next `times` requests whose path and query start with `prefix` meet `fault`. A method may stand before it:
    /// `POST /`.
    pub(crate) fn fault_on(&self, prefix: &str, fault: Fault, times: usize) {
        self.fault_after(prefix, 0, fault, times);
    }

    /// As [`Forge::fault_on`], sparing the first `skip` matching requests.
    pub(crate) fn fault_after(&self, prefix: &str, skip: usize, fault: Fault, times: usize) {
        self.shared.control().rules.push(fault::Rule {
            prefix: prefix.to_owned(),
            skip,
            left: times,
            fault,
            first_cursor: None,
        });
    }

    /// All is well again.
    pub(crate) fn clear_faults(&self) {
        self.shared.control().rules.clear();
    }

    /// Answers the next request of `method` whose path and query start with `prefix` with exactly this.
    /// Scripted answers are used in the order of scripting and come before faults.
    pub(crate) fn respond_once(
        &self,
        method: &str,
        prefix: &str,
        status: u16,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.shared.control().scripted.push_back(Scripted {
            method: method.to_owned(),
            prefix: prefix.to_owned(),
            reply: Reply { status, headers, body: body.into() },
        });
    }

    /// Panics if an answer was scripted that nobody asked for.
    #[track_caller]
    pub(crate) fn assert_no_leftovers(&self) {
        let left: Vec<String> = self
            .shared
            .control()
            .scripted
            .iter()
            .map(|scripted| format!("{} {}", scripted.method, scripted.prefix))
            .collect();
        assert!(left.is_empty(), "scripted answers nobody asked for: {left:?}");
    }

    /// The webhooks that a provider (`github`, ...) keeps: to be asked, altered, switched off, removed.
    pub(crate) fn hooks(&self, provider: &str) -> &Hooks {
        self.shared.hooks(provider).unwrap_or_else(|| panic!("there is no fake of {provider}"))
    }

    /// Holds up one call of that kind that is still to come.
    pub(crate) fn hold(&self, at: HoldAt) -> Hold {
        self.shared.holds.set(at)
    }

    /// Takes from a token, or from its user, the right to change webhooks. It still reads what it read before.
    pub(crate) fn lower_to_read_only(&self, provider: &str, token: &str) {
        match provider {
            "azure-devops" => self.edit_azure_token(token, |token| token.admin = false),
            "bitbucket-cloud" => self.edit_bitbucket_cloud_token(token, |token| {
                token.scopes.retain(|scope| !scope.contains("webhook"));
            }),
            "bitbucket-data-center" => self.edit_data_center_token(token, |token| token.level = Level::Read),
            "gitea" => self.edit_gitea_token(token, |token| {
                for scope in &mut token.scopes {
                    *scope = scope.replacen("write:", "read:", 1);
                }
            }),
            "github" => self.edit_github_token(token, |token| token.reads_only = true),
            "gitlab" => self.edit_gitlab_token(token, |token| token.scopes = vec!["read_api".to_owned()]),
            other => panic!("there is no fake of {other}"),
        }
    }

    /// Changes a GitLab token while the forge runs: revoke it, narrow its scopes, give it to another
    /// account, rename its account. Unknown tokens are left alone.
    pub(crate) fn edit_gitlab_token(&self, token: &str, edit: impl FnOnce(&mut GitlabToken)) {
        self.shared.gitlab.edit_token(token, edit);
    }

    /// As [`Forge::edit_gitlab_token`] for Gitea.
    pub(crate) fn edit_gitea_token(&self, token: &str, edit: impl FnOnce(&mut GiteaToken)) {
        self.shared.gitea.edit_token(token, edit);
    }

    /// As [`Forge::edit_gitlab_token`] for GitHub.
    pub(crate) fn edit_github_token(&self, token: &str, edit: impl FnOnce(&mut GithubToken)) {
        self.shared.github.edit_token(token, edit);
    }

    /// As [`Forge::edit_gitlab_token`] for Azure DevOps.
    pub(crate) fn edit_azure_token(&self, token: &str, edit: impl FnOnce(&mut AzureToken)) {
        self.shared.azure.edit_token(token, edit);
    }

    /// As [`Forge::edit_gitlab_token`] for Bitbucket Cloud.
    pub(crate) fn edit_bitbucket_cloud_token(&self, token: &str, edit: impl FnOnce(&mut BitbucketToken)) {
        self.shared.bitbucket_cloud.edit_token(token, edit);
    }

    /// As [`Forge::edit_gitlab_token`] for Bitbucket Data Center.
    pub(crate) fn edit_data_center_token(&self, token: &str, edit: impl FnOnce(&mut DataCenterToken)) {
        self.shared.bitbucket_data_center.edit_token(token, edit);
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What the connections of one forge share.
#[derive(Debug)]
struct Shared {
    origin: String,
    git: git::GitServer,
    drip: Duration,
    gitea: gitea::Instance,
    github: github::Instance,
    gitlab: gitlab::Instance,
    azure: azure_devops::Instance,
    bitbucket_cloud: bitbucket_cloud::Instance,
    bitbucket_data_center: bitbucket_data_center::Instance,
    control: Mutex<Control>,
    holds: hold::Holds,
    outside: control::Outside,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
    connections: AtomicUsize,
}

impl Shared {
    fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    /// The webhooks of a provider, if there is such a fake.
    fn hooks(&self, provider: &str) -> Option<&Hooks> {
        Some(match provider {
            "azure-devops" => &self.azure.hooks,
            "bitbucket-cloud" => &self.bitbucket_cloud.hooks,
            "bitbucket-data-center" => &self.bitbucket_data_center.hooks,
            "gitea" => &self.gitea.hooks,
            "github" => &self.github.hooks,
            "gitlab" => &self.gitlab.hooks,
            _ => return None,
        })
    }

    /// Answers one request, held up where a test wants it.
    async fn answer(self: &Arc<Self>, seen: Seen) -> Answer {
        if let Some(path) = seen.path.strip_prefix("/forge/") {
            return Answer::Reply(control::answer(self, path, &seen).await);
        }
        let _gauge = Gauge::enter(self);
        hold::answer(self, seen).await
    }

    /// Remembered, delayed, then scripted, faulty or true.
    async fn reply(&self, seen: Seen) -> Answer {
        let (latency, scripted, rule) = {
            let mut control = self.control();
            if control.seen.len() == REMEMBERED {
                control.seen.pop_front();
            }
            control.seen.push_back(seen.clone());
            let scripted = control.scripted(&seen);
            let rule = match scripted {
                Some(_) => None,
                None => control.fault(&seen),
            };
            (control.latency, scripted, rule)
        };
        // What it takes to make the answer is a part of the latency, as it is of a real one.
        let ready_at = tokio::time::Instant::now() + latency;
        let answer = match (scripted, rule) {
            (Some(reply), _) => Answer::Reply(reply),
            (None, Some((index, fault))) => fault::apply(self, index, &fault, &seen),
            (None, None) => match self.git_answer(&seen).await {
                Some(reply) => Answer::Reply(reply),
                None => Answer::Reply(self.truth(&seen)),
            },
        };
        if !latency.is_zero() {
            tokio::time::sleep_until(ready_at).await;
        }
        answer
    }

    /// What the real host would say if nothing had changed since it began.
    fn unchanged(&self, seen: &Seen) -> Reply {
        if let Some(rest) = seen.path.strip_prefix("/gitlab") {
            self.gitlab.answer(rest, seen)
        } else if let Some(rest) = seen.path.strip_prefix("/gitea") {
            self.gitea.answer(rest, seen)
        } else if let Some(rest) = seen.path.strip_prefix("/github") {
            self.github.answer(rest, seen)
        } else if seen.path.starts_with("/azure") {
            self.azure.answer(seen)
        } else if let Some(rest) = seen.path.strip_prefix("/bitbucket-cloud") {
            self.bitbucket_cloud.answer(rest, seen)
        } else if let Some(rest) =
            seen.path.strip_prefix("/bitbucket").filter(|rest| rest.is_empty() || rest.starts_with('/'))
        {
            self.bitbucket_data_center.answer(rest, seen)
        } else {
            Reply::html(404, "<html><head><title>404 Not Found</title></head></html>")
        }
    }
}

/// Either an answer for the HTTP library to write, or bytes that no HTTP library would write.
#[derive(Debug)]
enum Answer {
    Reply(Reply),
    Raw(Vec<raw::Step>),
}

#[derive(Debug, Default)]
struct Control {
    seen: VecDeque<Seen>,
    scripted: VecDeque<Scripted>,
    rules: Vec<fault::Rule>,
    changes: Vec<changes::Change>,
    latency: Duration,
}

#[derive(Debug)]
struct Scripted {
    method: String,
    prefix: String,
    reply: Reply,
}

impl Control {
    fn scripted(&mut self, seen: &Seen) -> Option<Reply> {
        let target = seen.target();
        let at =
            self.scripted.iter().position(|s| s.method == seen.method && target.starts_with(&s.prefix))?;
        self.scripted.remove(at).map(|scripted| scripted.reply)
    }

    /// The first rule that still has something to spoil, and its place.
    fn fault(&mut self, seen: &Seen) -> Option<(usize, Fault)> {
        let target = seen.target();
        let with_method = format!("{} {target}", seen.method);
        for (index, rule) in self.rules.iter_mut().enumerate() {
            let is_meant = target.starts_with(&rule.prefix) || with_method.starts_with(&rule.prefix);
            if rule.left == 0 || !is_meant {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.left -= 1;
            return Some((index, rule.fault.clone()));
        }
        None
    }
}

/// Counts one request as in flight; also when the client goes away and the answer is dropped.
struct Gauge<'a>(&'a Shared);

impl<'a> Gauge<'a> {
    fn enter(shared: &'a Shared) -> Self {
        let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        shared.max_in_flight.fetch_max(now, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A panic of one test thread must not hide behind a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fixture that does not parse, as the error of [`Forge::start`].
fn broken(what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {error}"))
}
