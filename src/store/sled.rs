//! The embedded backend: one directory, no server.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};

use self::committer::{Answer, Committer, FORGET_ROUND, Job, Progress};
use self::watermark::Watermark;
use super::bell::Bell;
use super::layout::{self, Rows, Visit, links};
use super::record::StoreRow;
use super::trail::{self, no_chain};
use super::{
    Chain, Change, Due, Listed, ListedEvent, ListedLink, RecordProblem, Remembered, Store, StoreError,
    TrailsReport, UnreadableRecord,
};
use crate::domain::connection::{ConnectionId, ConnectionName, ConnectionRecord, ProviderId, TenantId};
use crate::domain::credential::Sealed;
use crate::domain::link::{LinkId, LinkName, LinkRecord};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{WebhookKey, WebhookRecord};

mod committer;
mod watermark;

/// How much of the store sled keeps in memory unless told otherwise. It fills on demand: a store of 10,000
/// connections takes about 11 MiB of it, one of 100,000 about 100 MiB, and then a read among these costs
/// 4 us instead of 15.
pub const DEFAULT_CACHE_BYTES: u64 = 128 * 1024 * 1024;

/// Commits that may wait for the committer; more wait in their callers.
const QUEUE: usize = 256;
/// How long a commit waits for the disk, and an orderly end for the committer.
const DISK_LIMIT: Duration = Duration::from_secs(30);
/// The file in which sled keeps its log. The name is part of its format 0.34.
const LOG_FILE: &str = "db";
/// Where sled keeps what is too large for its log.
const BLOBS: &str = "blobs";

/// Where the store is and how much memory it may take.
#[derive(Debug, Clone)]
pub struct SledConfig {
    /// A directory of its own; made (mode 0700) if it is not there.
    pub path: PathBuf,
    /// Upper limit of sled's page cache, in bytes; see [`DEFAULT_CACHE_BYTES`].
    pub cache_bytes: u64,
}

/// Why the store could not be opened. Nothing was written by this program; sled itself cuts its log off at
/// the first damaged place when it opens it, so a damaged directory is to be copied before it is opened again.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is held by another process; two services cannot share a store", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The operating system refuses: no permission, a read-only or full disk, not a directory.
    #[error("cannot open the store at {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{} is damaged: {problem}; restore the directory from a backup", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it, without any content.
        problem: String,
    },
    /// The file is older than what was acknowledged as durable.
    #[error(
        "{} lacks the last {missing} of {known} commits: its end is damaged, or the file alone was replaced by an \
         older one; restore the directory from a backup",
        path.display()
    )]
    CommitsMissing {
        /// The file that lacks them.
        path: PathBuf,
        /// How many commits are gone.
        missing: u64,
        /// How many there were.
        known: u64,
    },
    /// A newer version of this program wrote it.
    #[error("{}: {problem}", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Which version was found, and which is known.
        problem: RecordProblem,
    },
}

/// A store in a directory, on sled 0.34.
///
/// Dropping it waits for the committer to finish what was queued (at most 30 seconds), so prefer
/// [`Store::close`] first where blocking the thread matters.
pub struct SledStore {
    disk: Arc<Disk>,
    progress: Arc<Progress>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    committer: Mutex<Option<Running>>,
    // Last, so that it is let go after everything else.
    _lock: File,
}

/// The committer's thread, and a channel that closes when it ends.
struct Running {
    thread: JoinHandle<()>,
    ended: std::sync::mpsc::Receiver<()>,
}

impl Running {
    fn wait(self) {
        // A thread that hangs in the disk is left to the end of the process: waiting longer helps nobody.
        if self.ended.recv_timeout(DISK_LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("the store's committer did not end in time");
        } else if self.thread.join().is_err() {
            tracing::error!("the store's committer panicked");
        }
    }
}

impl SledStore {
    /// Opens the store, or makes it. Blocks on the disk: reads the log's tail and walks over all connections
    /// to see that none is missing (about 1 µs each).
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. An error never leaves the directory locked.
    pub fn open(config: &SledConfig) -> Result<Self, OpenError> {
        Self::open_with(config, true)
    }

    /// Opens a store that is there without counting its rows: for a look at the audit trails, which says better what
    /// is missing.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; where there is none, none is made.
    pub fn open_to_check(config: &SledConfig) -> Result<Self, OpenError> {
        let log = config.path.join(LOG_FILE);
        File::open(&log).map_err(|source| OpenError::Io { path: log, source })?;
        Self::open_with(config, false)
    }

    fn open_with(config: &SledConfig, count: bool) -> Result<Self, OpenError> {
        let SledConfig { path, cache_bytes } = config;
        make_directory(path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let lock = lock(&path.join("lock"))?;
        let log_path = path.join(LOG_FILE);
        let opened = catch_unwind(AssertUnwindSafe(|| open_checked(path, &log_path, *cache_bytes, count)));
        let (disk, log, watermark, commits) = opened.unwrap_or_else(|_| {
            Err(OpenError::Corrupt {
                path: log_path.clone(),
                problem: "sled panicked while it read it".to_owned(),
            })
        })?;
        let disk = Arc::new(disk);
        let progress = Arc::new(Progress {
            applied: AtomicU64::new(commits),
            durable: watch::Sender::new(Ok(commits)),
            bell: Bell::default(),
        });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let committer =
            Committer::new(disk.clone(), progress.clone(), log, path.join(BLOBS), watermark, commits);
        let (ending, ended) = std::sync::mpsc::sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || {
                let _closes_at_the_end = ending;
                committer.run(jobs);
            })
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        Ok(Self {
            disk,
            progress,
            queue: Mutex::new(Some(queue)),
            committer: Mutex::new(Some(Running { thread, ended })),
            _lock: lock,
        })
    }

    /// Hands a job to the committer and waits for its answer.
    async fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, StoreError> {
        let closed =
            || StoreError::Unavailable { problem: format!("{} was closed", self.disk.file.display()) };
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        let asked = async {
            queue.send(job(answer)).await.map_err(|_| closed())?;
            drop(queue);
            answered.await.map_err(|_| closed())?
        };
        tokio::time::timeout(DISK_LIMIT, asked).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable {
                problem: format!("{}: the disk did not answer in time", self.disk.file.display()),
            })
        })
    }

    /// Waits until what a reader may have seen up to now is on disk.
    async fn settled(&self) -> Result<(), StoreError> {
        let seen = self.progress.applied.load(Ordering::SeqCst);
        let mut durable = self.progress.durable.subscribe();
        let reached = durable.wait_for(|durable| durable.as_ref().map_or(true, |commits| *commits >= seen));
        match tokio::time::timeout(DISK_LIMIT, reached).await {
            Ok(Ok(durable)) => match &*durable {
                Ok(_) => Ok(()),
                Err(problem) => Err(StoreError::Unavailable { problem: problem.clone() }),
            },
            Ok(Err(_)) | Err(_) => Err(StoreError::Unavailable {
                problem: format!("{}: the disk did not answer in time", self.disk.file.display()),
            }),
        }
    }
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").field("file", &self.disk.file).finish_non_exhaustive()
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.queue.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = self.committer.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            running.wait();
        }
    }
}

/// Reads run on the calling thread: most are answered from sled's own cache or the kernel's in a few
/// microseconds, less than a trip to a blocking thread and back costs.
#[async_trait]
impl Store for SledStore {
    async fn connection(&self, name: &ConnectionName) -> Result<Arc<ConnectionRecord>, StoreError> {
        layout::connection(&*self.disk, name).map(Arc::new)
    }

    async fn connections(
        &self,
        tenant: &TenantId,
        after: Option<&ConnectionId>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        layout::connections(&*self.disk, tenant, after, limit)
    }

    async fn name_owner(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        folded: &str,
    ) -> Result<Option<ConnectionId>, StoreError> {
        layout::name_owner(&*self.disk, tenant, provider, folded)
    }

    async fn id_taken(&self, name: &ConnectionName) -> Result<bool, StoreError> {
        layout::id_taken(&*self.disk, name)
    }

    async fn remembered(
        &self,
        tenant: &TenantId,
        request_id: &str,
    ) -> Result<Option<Remembered>, StoreError> {
        let remembered = layout::remembered(&*self.disk, tenant, request_id)?;
        if remembered.is_some() {
            // Its answer is about to be given as a success, which it is only once it is on disk.
            self.settled().await?;
        }
        Ok(remembered)
    }

    async fn tenants(&self, after: Option<&TenantId>, limit: usize) -> Result<Vec<TenantId>, StoreError> {
        layout::tenants(&*self.disk, after, limit)
    }

    async fn events(
        &self,
        tenant: &TenantId,
        connection: Option<&ConnectionId>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<ListedEvent>, StoreError> {
        let events = trail::events(&*self.disk, tenant, connection, after, limit)?;
        if !events.is_empty() {
            // Whoever goes on behind an event must not meet another one under its number after a power cut.
            self.settled().await?;
        }
        Ok(events)
    }

    async fn event_range(&self, tenant: &TenantId) -> Result<RangeInclusive<u64>, StoreError> {
        let range = trail::range(&*self.disk, tenant)?;
        self.settled().await?;
        Ok(range)
    }

    fn appended(&self, tenant: &TenantId) -> watch::Receiver<()> {
        self.progress.bell.listen(tenant)
    }

    fn chain_with(&self, chain: Chain) {
        // An error means that it is known already.
        let _ = self.disk.chain.set(chain);
    }

    async fn check_trails(&self) -> Result<TrailsReport, StoreError> {
        trail::check(&*self.disk, self.disk.chain.get().ok_or_else(no_chain)?)
    }

    async fn link(&self, name: &LinkName) -> Result<Arc<LinkRecord>, StoreError> {
        links::link(&*self.disk, name).map(Arc::new)
    }

    async fn links(
        &self,
        tenant: &TenantId,
        after: Option<&LinkId>,
        limit: usize,
    ) -> Result<Vec<ListedLink>, StoreError> {
        links::links(&*self.disk, tenant, after, limit)
    }

    async fn links_of(
        &self,
        connection: &ConnectionName,
        after: Option<&LinkId>,
        limit: usize,
    ) -> Result<Vec<LinkId>, StoreError> {
        links::links_of(&*self.disk, connection, after, limit)
    }

    async fn link_count(&self, connection: &ConnectionName) -> Result<u64, StoreError> {
        links::link_count(&*self.disk, connection)
    }

    async fn link_of(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        instance: &str,
        repository_id: &str,
    ) -> Result<Option<LinkId>, StoreError> {
        links::link_of(&*self.disk, tenant, provider, instance, repository_id)
    }

    async fn link_id_taken(&self, name: &LinkName) -> Result<bool, StoreError> {
        links::link_id_taken(&*self.disk, name)
    }

    async fn webhook(&self, key: &WebhookKey) -> Result<Arc<WebhookRecord>, StoreError> {
        links::webhook(&*self.disk, key).map(Arc::new)
    }

    async fn due(&self, until: Timestamp, limit: usize) -> Result<Vec<(Timestamp, Due)>, StoreError> {
        links::due(&*self.disk, until, limit)
    }

    async fn identity(&self) -> Result<Option<Sealed>, StoreError> {
        layout::identity(&*self.disk)
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.ask(|answer| Job::Commit { changes, answer }).await
    }

    async fn forget_requests(&self, before: Timestamp) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        loop {
            let round = self.ask(|answer| Job::Forget { before, answer }).await?;
            forgotten += round;
            if round < FORGET_ROUND {
                return Ok(forgotten);
            }
        }
    }

    async fn forget_events(&self, tenant: &TenantId, before: Timestamp) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        // Most tenants have nothing that is old enough, and the committer has other things to do.
        while trail::has_old(&*self.disk, tenant, before)? {
            let tenant = tenant.clone();
            let round = self.ask(|answer| Job::ForgetEvents { tenant, before, answer }).await?;
            forgotten += round;
            if round == 0 {
                break;
            }
        }
        Ok(forgotten)
    }

    async fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let running = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            // An error means that the runtime is going down: then dropping the store is all that is left.
            let _ = tokio::task::spawn_blocking(move || running.wait()).await;
        }
    }
}

/// sled's rows, with its errors and panics turned into ours.
struct Disk {
    tree: ::sled::Db,
    file: PathBuf,
    chain: OnceLock<Chain>,
}

impl Disk {
    fn failed(&self, error: &::sled::Error) -> StoreError {
        let problem = match error {
            // What sled says of a damaged place may quote it.
            ::sled::Error::Corruption { .. } => "it is damaged".to_owned(),
            ::sled::Error::Io(error) => error.to_string(),
            ::sled::Error::CollectionNotFound(_)
            | ::sled::Error::Unsupported(_)
            | ::sled::Error::ReportableBug(_) => "sled could not read it".to_owned(),
        };
        unavailable(&self.file, &problem)
    }

    fn panicked(&self) -> String {
        format!("{}: sled panicked, so the file is probably damaged", self.file.display())
    }

    /// sled panics at some kinds of damage instead of returning an error; its data is only read here, so
    /// nothing is left half done.
    fn guarded<T>(&self, read: impl FnOnce() -> Result<T, ::sled::Error>) -> Result<T, StoreError> {
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(StoreError::Unavailable { problem: self.panicked() }),
        }
    }
}

impl Rows for Disk {
    type Value = ::sled::IVec;

    fn get(&self, key: &[u8]) -> Result<Option<::sled::IVec>, StoreError> {
        self.guarded(|| self.tree.get(key))
    }

    fn walk(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        self.guarded(|| {
            for row in self.tree.range(from..to) {
                let (key, bytes) = row?;
                if visit(&key, &bytes).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}

fn unavailable(file: &Path, problem: &impl fmt::Display) -> StoreError {
    StoreError::Unavailable { problem: format!("{}: {problem}", file.display()) }
}

fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    // The new directory's own entry must survive a power cut too.
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// sled locks its log too, but reports that as text alone, and only after it touched other files.
fn lock(path: &Path) -> Result<File, OpenError> {
    let refused = |source| OpenError::Io { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(refused(source)),
    }
}

/// Opens sled's files, checks that no commit is missing, and if they are to be counted, no row.
fn open_checked(
    path: &Path,
    log_path: &Path,
    cache_bytes: u64,
    count: bool,
) -> Result<(Disk, File, Watermark, u64), OpenError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let corrupt = |problem: String| OpenError::Corrupt { path: log_path.to_owned(), problem };
    let watermark_path = path.join("watermark");
    let mut watermark = Watermark::open(&watermark_path).map_err(refused(&watermark_path))?;
    let known = watermark.read().map_err(refused(&watermark_path))?;
    // Without this check sled would make a new, empty log in place of the lost one.
    if known > 0 && !log_path.exists() {
        return Err(OpenError::CommitsMissing { path: log_path.to_owned(), missing: known, known });
    }
    let tree = open_sled(path, log_path, cache_bytes)?;
    let disk = Disk { tree, file: log_path.to_owned(), chain: OnceLock::new() };

    let readable = |error| match error {
        StoreError::Unreadable(UnreadableRecord {
            problem: problem @ RecordProblem::TooNew { .. }, ..
        }) => OpenError::TooNew { path: log_path.to_owned(), problem },
        error => corrupt(error.to_string()),
    };
    let row = match layout::store_row(&disk).map_err(readable)? {
        Some(row) => row,
        None if disk.tree.is_empty() => {
            let row = StoreRow::default();
            disk.tree
                .insert(layout::STORE, super::record::wrap(layout::STORE, &row))
                .and_then(|_| disk.tree.flush())
                .map_err(|error| sled_error(log_path, error))?;
            row
        }
        None => return Err(corrupt("the row that speaks of the whole store is missing".to_owned())),
    };
    if row.commits < known {
        let missing = known - row.commits;
        return Err(OpenError::CommitsMissing { path: log_path.to_owned(), missing, known });
    }
    if count && let Some(problem) = layout::missing(&disk, row).map_err(readable)? {
        return Err(corrupt(problem));
    }

    // What sled's recovery and the lines above wrote becomes durable before the first commit builds on it.
    let log = File::open(log_path).map_err(refused(log_path))?;
    log.sync_data().map_err(refused(log_path))?;
    let settings = path.join("conf");
    File::open(&settings).and_then(|file| file.sync_all()).map_err(refused(&settings))?;
    sync_directory(path).map_err(refused(path))?;
    watermark.write(row.commits).map_err(refused(&watermark_path))?;
    Ok((disk, log, watermark, row.commits))
}

fn open_sled(path: &Path, log_path: &Path, cache_bytes: u64) -> Result<::sled::Db, OpenError> {
    // The committer flushes; a second flusher of sled's own would only get in its way.
    let config = ::sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
    let mut attempts = 0;
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            // Our own lock is held, so the only one who can hold sled's is the last store of this process, whose
            // worker threads let go of the file a moment after it was dropped.
            Err(::sled::Error::Io(error)) if error.kind() == io::ErrorKind::Other && attempts < 100 => {
                attempts += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(sled_error(log_path, error)),
        }
    }
}

fn sled_error(log_path: &Path, error: ::sled::Error) -> OpenError {
    let path = log_path.to_owned();
    match error {
        ::sled::Error::Io(source) => OpenError::Io { path, source },
        ::sled::Error::Corruption { .. } => {
            OpenError::Corrupt { path, problem: "sled found a wrong checksum".to_owned() }
        }
        error @ (::sled::Error::CollectionNotFound(_)
        | ::sled::Error::Unsupported(_)
        | ::sled::Error::ReportableBug(_)) => OpenError::Corrupt { path, problem: error.to_string() },
    }
}
