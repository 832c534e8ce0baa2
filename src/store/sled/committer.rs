//! The one thread that writes: it takes whatever commits wait, makes them durable together, and answers.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};

use super::watermark::Watermark;
use super::{Disk, unavailable};
use crate::domain::connection::TenantId;
use crate::domain::timestamp::Timestamp;
use crate::store::bell::Bell;
use crate::store::plan::{Finished, Plan, Writes};
use crate::store::trail::{self, no_chain};
use crate::store::{Change, StoreError, layout};

/// Most commits that share one disk flush; bounds the memory of a group and the wait of its first member.
const GROUP: usize = 256;
/// Most requests, or events, that one round forgets, so that commits do not wait long behind it.
pub(super) const FORGET_ROUND: usize = 1_000;

/// Where the outcome of a job goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What waits for the committer. An answer that nobody waits for any more is dropped.
pub(super) enum Job {
    Commit { changes: Vec<Change>, answer: Answer<()> },
    Forget { before: Timestamp, answer: Answer<usize> },
    ForgetEvents { tenant: TenantId, before: Timestamp, answer: Answer<usize> },
}

/// How far the committer is, for the readers.
pub(super) struct Progress {
    /// How many commits a reader may have seen: raised before a group is applied.
    pub(super) applied: AtomicU64,
    /// How many of them are on disk, or why there will be no more.
    pub(super) durable: watch::Sender<Result<u64, String>>,
    /// Tells of new events that are on disk.
    pub(super) bell: Bell,
}

/// Owns the writing side of the store.
pub(super) struct Committer {
    disk: Arc<Disk>,
    progress: Arc<Progress>,
    log: File,
    blobs: PathBuf,
    synced_blobs: HashSet<OsString>,
    watermark: Watermark,
    commits: u64,
    broken: Option<String>,
}

impl Committer {
    pub(super) fn new(
        disk: Arc<Disk>,
        progress: Arc<Progress>,
        log: File,
        blobs: PathBuf,
        watermark: Watermark,
        commits: u64,
    ) -> Self {
        Self { disk, progress, log, blobs, synced_blobs: HashSet::new(), watermark, commits, broken: None }
    }

    /// Works until every sender is gone and the queue is empty, then brings everything to disk.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            // No lingering for more: the flush of one group is the time in which the next one gathers.
            let mut next = Some(first);
            let mut group = Vec::new();
            while let Some(job) = next.take() {
                match job {
                    Job::Commit { changes, answer } => group.push((changes, answer)),
                    Job::Forget { before, answer } => {
                        self.commit_group(std::mem::take(&mut group));
                        let _ = answer.send(self.forget(before));
                    }
                    Job::ForgetEvents { tenant, before, answer } => {
                        self.commit_group(std::mem::take(&mut group));
                        let _ = answer.send(self.forget_events(&tenant, before));
                    }
                }
                if group.len() < GROUP {
                    next = queue.try_recv().ok();
                }
            }
            self.commit_group(group);
        }
        if self.broken.is_none()
            && let Err(error) = self.sync().and_then(|()| self.watermark.sync())
        {
            tracing::error!(%error, "the store could not be brought to disk at its end");
        }
    }

    fn commit_group(&mut self, group: Vec<(Vec<Change>, Answer<()>)>) {
        if group.is_empty() {
            return;
        }
        let (all_changes, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let outcomes = self.attempt(|committer| {
            let rows = &*committer.disk;
            let mut plan = Plan::new(rows, rows.chain.get());
            let outcomes: Vec<_> = all_changes.iter().map(|changes| plan.commit(changes)).collect();
            if let Some(Finished { writes, commits, appended }) = plan.finish()? {
                committer.write(writes, commits)?;
                for tenant in &appended {
                    committer.progress.bell.ring(tenant);
                }
            }
            Ok(outcomes)
        });
        // A commit that was refused because of one in the same group is told so only now that that one is on disk.
        match outcomes {
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(outcome);
                }
            }
            Err(problem) => {
                for answer in answers {
                    let _ = answer.send(Err(StoreError::Unavailable { problem: problem.clone() }));
                }
            }
        }
    }

    fn forget(&mut self, before: Timestamp) -> Result<usize, StoreError> {
        self.attempt(|committer| {
            let gone = layout::requests_before(&*committer.disk, before, FORGET_ROUND)?;
            let count = gone.len();
            if count > 0 {
                let writes =
                    gone.into_iter().flat_map(|keys| [(keys.time, None), (keys.request, None)]).collect();
                committer.write(writes, committer.commits)?;
            }
            Ok(count)
        })
        .map_err(|problem| StoreError::Unavailable { problem })
    }

    fn forget_events(&mut self, tenant: &TenantId, before: Timestamp) -> Result<usize, StoreError> {
        let outcome = self.attempt(|committer| {
            let rows = &*committer.disk;
            let Some(chain) = rows.chain.get() else { return Ok(Err(no_chain())) };
            match trail::forget(rows, chain, tenant, before, FORGET_ROUND) {
                Ok(gone) if gone.events > 0 => {
                    committer.write(gone.writes, committer.commits)?;
                    Ok(Ok(gone.events))
                }
                Ok(_) => Ok(Ok(0)),
                // One damaged trail stops nobody else.
                Err(error @ StoreError::Unreadable(_)) => Ok(Err(error)),
                Err(error) => Err(error),
            }
        });
        outcome.unwrap_or_else(|problem| Err(StoreError::Unavailable { problem }))
    }

    /// Runs one round. If it fails or panics, what is in memory may differ from what is on disk, so no
    /// further round is begun: reads go on, writes need a restart.
    fn attempt<T>(&mut self, round: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, String> {
        if let Some(problem) = &self.broken {
            return Err(problem.clone());
        }
        let problem = match catch_unwind(AssertUnwindSafe(|| round(self))) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(StoreError::Unavailable { problem })) => problem,
            Ok(Err(error)) => error.to_string(),
            Err(_) => self.disk.panicked(),
        };
        tracing::error!(%problem, "the store takes no more writes; restart the service");
        self.broken = Some(problem.clone());
        let _ = self.progress.durable.send_replace(Err(problem.clone()));
        Err(problem)
    }

    fn write(&mut self, writes: Writes, commits: u64) -> Result<(), StoreError> {
        let mut batch = ::sled::Batch::default();
        for (key, row) in writes {
            match row {
                Some(bytes) => batch.insert(key, bytes),
                None => batch.remove(key),
            }
        }
        self.progress.applied.store(commits, Ordering::SeqCst);
        self.disk.tree.apply_batch(batch).map_err(|error| self.disk.failed(&error))?;
        self.sync().map_err(|error| unavailable(&self.disk.file, &error))?;
        self.watermark.write(commits).map_err(|error| unavailable(&self.disk.file, &error))?;
        self.commits = commits;
        let _ = self.progress.durable.send_replace(Ok(commits));
        Ok(())
    }

    /// `flush` hands sled's buffers to the kernel and starts writing; only an fdatasync of the log makes
    /// that survive a power cut.
    fn sync(&mut self) -> io::Result<()> {
        self.disk.tree.flush().map_err(io::Error::other)?;
        self.sync_blobs()?;
        self.log.sync_data()
    }

    /// A tree node above 128 KiB (a connection with very long annotations) goes to a file of its own, which
    /// sled never syncs. There are hardly ever any, so looking is cheap.
    fn sync_blobs(&mut self) -> io::Result<()> {
        let mut present = HashSet::new();
        let mut new = false;
        for entry in fs::read_dir(&self.blobs)? {
            let entry = entry?;
            let name = entry.file_name();
            if !self.synced_blobs.contains(&name) {
                match File::open(entry.path()).and_then(|file| file.sync_data()) {
                    // sled removes a blob as soon as nothing points to it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    outcome => outcome?,
                }
                new = true;
            }
            present.insert(name);
        }
        if new {
            File::open(&self.blobs)?.sync_all()?;
        }
        self.synced_blobs = present;
        Ok(())
    }
}
