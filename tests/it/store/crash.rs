//! A writer is killed with SIGKILL at random moments; the same directory is opened again each time.
//!
//! The writer is this test binary itself, started once more with the directory in an environment variable.
//! It prints what it is about to do and what was acknowledged; the pipe keeps that when it dies.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gitmoor::domain::connection::{ProviderId, Revision};
use gitmoor::store::sled::SledStore;
use gitmoor::store::{Store, StoreError};

use super::fixture::{created, events, id, name, open, record, remove, replace, tenant};

const DIRECTORY: &str = "GITMOOR_CRASH_DIRECTORY";
const ROUND: &str = "GITMOOR_CRASH_ROUND";
/// How many rounds; the default keeps `cargo test` short.
const ROUNDS: &str = "GITMOOR_CRASH_ROUNDS";
const WRITERS: usize = 16;

/// What is known of one connection: the last acknowledged state, and the one that was begun after it.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    acknowledged: Option<Step>,
    begun: Option<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Created,
    Replaced,
    Removed,
}

impl Step {
    const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
        }
    }

    fn parse(word: &str) -> Self {
        [Self::Created, Self::Replaced, Self::Removed]
            .into_iter()
            .find(|step| step.word() == word)
            .expect("a word of the writer's")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    let rounds = std::env::var(ROUNDS).map_or(3, |rounds| rounds.parse::<u64>().expect("a number of rounds"));
    let directory = tempfile::tempdir().expect("a directory");
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut random = uuid::Uuid::new_v4().as_u64_pair().0 | 1;
    for round in 0..rounds {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        kill_a_writer(directory.path(), round, Duration::from_millis(5 + random % 150), &mut known);
        let store = open(directory.path());
        check(&store, &mut known).await;
        store.close().await;
    }
    let acknowledged = known.values().filter(|known| known.acknowledged.is_some()).count();
    println!("{rounds} rounds, {acknowledged} connections acknowledged");
    assert!(acknowledged > 0, "the writer was never acknowledged anything");
}

/// Lets a writer work for `after` from its first acknowledgement on, then kills it.
fn kill_a_writer(directory: &Path, round: u64, after: Duration, known: &mut BTreeMap<String, Known>) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["store::crash::the_writer", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    let mut killed_at = None;
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("text");
        let mut words = line.split(' ');
        if let (Some(mark @ ("begin" | "done")), Some(step), Some(label)) =
            (words.next(), words.next(), words.next())
        {
            let known = known.entry(label.to_owned()).or_default();
            if mark == "begin" {
                known.begun = Some(Step::parse(step));
            } else {
                known.acknowledged = Some(Step::parse(step));
                let started = *killed_at.get_or_insert_with(Instant::now);
                if started.elapsed() >= after {
                    // A second kill of a process that is gone already does nothing.
                    let _ = child.kill();
                }
            }
        }
    }
    let status = child.wait().expect("the writer ended");
    assert!(!status.success(), "the writer ends by the kill alone");
}

async fn check(store: &SledStore, known: &mut BTreeMap<String, Known>) {
    for (label, known) in known.iter_mut() {
        let name = name("acme", label);
        let found = match store.connection(&name).await {
            Ok(found) if found.revision == Revision(1) => Some(Step::Created),
            Ok(_) => Some(Step::Replaced),
            Err(StoreError::NotFound) if store.id_taken(&name).await.expect("asked") => Some(Step::Removed),
            Err(StoreError::NotFound) => None,
            Err(other) => panic!("{label}: {other}"),
        };
        assert!(
            found == known.acknowledged || found == known.begun,
            "{label}: found {found:?}, but acknowledged {:?} and begun {:?}",
            known.acknowledged,
            known.begun
        );
        let owner =
            store.name_owner(&tenant("acme"), &ProviderId::new("gitlab"), label).await.expect("asked");
        let there = matches!(found, Some(Step::Created | Step::Replaced));
        assert_eq!(owner, there.then(|| id(label)), "{label}: the display name follows the connection");
        let remembered = store.remembered(&tenant("acme"), label).await.expect("asked");
        assert_eq!(remembered.is_some(), found.is_some(), "{label}: so does the request id");
        // What is there now was flushed with the next start, so it must stay.
        *known = Known { acknowledged: found, begun: found };
    }
    let created = known.values().filter(|known| known.acknowledged.is_some()).count();
    let events = events(store, "acme", 0, usize::MAX).await;
    assert_eq!(events.len(), created, "one event for each connection that ever was");
    let trails = store.check_trails().await.expect("checked");
    assert!(
        trails.problem.is_none() && trails.tenants.iter().all(|trail| trail.problem.is_none()),
        "{trails:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that a_killed_writer_loses_nothing_that_was_acknowledged starts and kills"]
async fn the_writer() {
    let (Ok(directory), Ok(round)) = (std::env::var(DIRECTORY), std::env::var(ROUND)) else { return };
    let store = Arc::new(open(Path::new(&directory)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, round) = (store.clone(), round.clone());
            tokio::spawn(async move {
                for at in 0_u64.. {
                    let label = format!("r{round}-w{writer}-{at}");
                    let first = record("acme", &label, &label);
                    let mut second = first.clone();
                    second.revision = Revision(2);
                    act(&store, Step::Created, &label, created("acme", &label, &label, &label)).await;
                    if at % 2 == 0 {
                        act(&store, Step::Replaced, &label, vec![replace(&second)]).await;
                    }
                    if at % 4 == 0 {
                        act(&store, Step::Removed, &label, vec![remove(&second)]).await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
}

async fn act(store: &SledStore, step: Step, label: &str, changes: Vec<gitmoor::store::Change>) {
    say("begin", step, label);
    store.commit(changes).await.expect("committed");
    say("done", step, label);
}

/// One write call a line, so that no line is torn by the kill.
fn say(mark: &str, step: Step, label: &str) {
    std::io::stdout()
        .write_all(format!("{mark} {} {label}\n", step.word()).as_bytes())
        .expect("the parent reads");
}
