//! How fast the store is, as ratios taken in one run on one machine: durable commits against a plain grouped
//! write-ahead log that writes the same bytes, and reads among 100,000 connections against reads among 1,000.
//!
//! `cargo bench --bench store`; about half a minute.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    reason = "a bench that cannot go on should say where; it shares the fixture of the tests"
)]

use std::fs::File;
use std::future::Future;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gitmoor::store::Store;
use gitmoor::store::sled::SledStore;
use tokio::sync::{mpsc, oneshot};

use self::fixture::{created, name, open};

#[path = "../tests/it/store/fixture.rs"]
mod fixture;

const WRITERS: usize = 16;
const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
const READS: usize = 200_000;

fn main() {
    // Under the build directory: a temporary directory may be memory, which syncs for nothing.
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        commits(base).await;
        reads(base).await;
    });
}

async fn commits(base: &Path) {
    let bytes = bytes_of_a_commit(base).await;
    let directory = tempfile::tempdir_in(base).expect("a directory");
    let store = Arc::new(open(&directory.path().join("store")));
    let log = Wal::start(&directory.path().join("wal"));
    let serial = Arc::new(AtomicU64::new(0));
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let log = log.clone();
        let plain = per_second(move || {
            let log = log.clone();
            async move { log.append(vec![0xa5; bytes]).await }
        })
        .await;
        let (store, serial) = (store.clone(), serial.clone());
        let ours = per_second(move || {
            let (store, serial) = (store.clone(), serial.clone());
            async move {
                let label = format!("c{}", serial.fetch_add(1, Ordering::Relaxed));
                store.commit(created("acme", &label, &label, &label)).await.expect("created");
            }
        })
        .await;
        println!("commits/s from {WRITERS} writers, {bytes} bytes each: {ours:.0}, plain log {plain:.0}");
        ratios.push(ours / plain);
    }
    ratios.sort_by(f64::total_cmp);
    println!("store commits / plain grouped log: {:.2} (aim: 0.5)", ratios[ROUNDS / 2]);
}

/// Keys and rows that one CreateConnection leaves, without the counters.
async fn bytes_of_a_commit(base: &Path) -> usize {
    let directory = tempfile::tempdir_in(base).expect("a directory");
    let store = open(directory.path());
    store
        .commit(created("acme", "c1234", "c1234", "0190a6c0-0000-7000-8000-00000000000a"))
        .await
        .expect("created");
    drop(store);
    let raw = sled::open(directory.path()).expect("opens");
    raw.iter().map(|row| row.expect("readable")).map(|(key, bytes)| key.len() + bytes.len()).sum()
}

async fn per_second<F: Future<Output = ()> + Send + 'static>(
    act: impl Fn() -> F + Clone + Send + 'static,
) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (act, done) = (act.clone(), done.clone());
            tokio::spawn(async move {
                while start.elapsed() < ROUND {
                    act().await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

async fn reads(base: &Path) {
    let directory = tempfile::tempdir_in(base).expect("a directory");
    let few = filled(&directory.path().join("few"), 1_000).await;
    let many = filled(&directory.path().join("many"), 100_000).await;
    let ten_thousand = directory.path().join("ten_thousand");
    drop(filled(&ten_thousand, 10_000).await);
    let start = Instant::now();
    drop(open(&ten_thousand));
    println!("opened with 10,000 connections in {} ms", start.elapsed().as_millis());
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let (few, many) = (read(&few, 1_000).await, read(&many, 100_000).await);
        println!("one read among 1,000: {few:.2} us, among 100,000: {many:.2} us");
        ratios.push(few / many);
    }
    ratios.sort_by(f64::total_cmp);
    println!("reads at 100,000 / at 1,000, the store alone: {:.2}", ratios[ROUNDS / 2]);
}

async fn filled(path: &Path, connections: usize) -> SledStore {
    let store = open(path);
    for first in (0..connections).step_by(500) {
        let changes = (first..first + 500).flat_map(|at| {
            let label = format!("c{at}");
            created("acme", &label, &label, &label)
        });
        store.commit(changes.collect()).await.expect("created");
    }
    store
}

/// Microseconds of one read at random.
async fn read(store: &SledStore, connections: u64) -> f64 {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let start = Instant::now();
    for _ in 0..READS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        black_box(
            store.connection(&name("acme", &format!("c{}", random % connections))).await.expect("found"),
        );
    }
    start.elapsed().as_secs_f64() * 1e6 / READS as f64
}

/// The least that a durable log does: append what waits, one fdatasync, answer.
#[derive(Clone)]
struct Wal(mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>);

impl Wal {
    fn start(path: &Path) -> Self {
        let mut file = File::create(path).expect("a file");
        let (sender, mut receiver) = mpsc::channel::<(Vec<u8>, oneshot::Sender<()>)>(256);
        std::thread::spawn(move || {
            while let Some(first) = receiver.blocking_recv() {
                let mut group = vec![first];
                while let Ok(next) = receiver.try_recv() {
                    group.push(next);
                }
                let bytes: Vec<u8> = group.iter().flat_map(|(bytes, _)| bytes).copied().collect();
                file.write_all(&bytes).expect("written");
                file.sync_data().expect("synced");
                for (_, answer) in group {
                    let _ = answer.send(());
                }
            }
        });
        Self(sender)
    }

    async fn append(&self, bytes: Vec<u8>) {
        let (answer, answered) = oneshot::channel();
        self.0.send((bytes, answer)).await.expect("the log runs");
        answered.await.expect("the log answers");
    }
}
