//! `gitmoor audit verify`: the real program on the files of a stopped server.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use gitmoor::clock::{Clock as _, SystemClock};
use gitmoor::domain::event::Event;
use gitmoor::seal::{KeyFile, KeyRing};
use gitmoor::store::Change;
use gitmoor::store::sled::{DEFAULT_CACHE_BYTES, SledConfig, SledStore};

use crate::store::damage::raw_sled;
use crate::store::fixture::{event, tenant};
use crate::store::trail::Raw;
use crate::support::app::{Running, TestApp};

const OK: i32 = 0;
const KEY: i32 = 4;
const STORE: i32 = 5;
const TAMPERED: i32 = 7;

/// A data folder, and a key file beside it.
struct Installation {
    folder: tempfile::TempDir,
}

impl Installation {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        KeyFile::create(&folder.path().join("key"), SystemClock.now()).expect("a key file");
        std::fs::create_dir(folder.path().join("data")).expect("made");
        Self { folder }
    }

    fn store(&self) -> std::path::PathBuf {
        self.folder.path().join("data/store")
    }

    async fn serve(&self) -> Running {
        let config = SledConfig { path: self.store(), cache_bytes: DEFAULT_CACHE_BYTES };
        let store = SledStore::open(&config).expect("opens");
        let keys = KeyRing::load(&self.folder.path().join("key")).expect("a key ring");
        TestApp::new().store(Arc::new(store)).keys(keys).start().await
    }

    /// Five events of one tenant and one of another, and no server any more.
    async fn fill(&self) {
        let app = self.serve().await;
        for at in 1..=5 {
            app.store.commit(vec![days_ago(1, "acme", &format!("c{at}"))]).await.expect("appended");
        }
        app.store.commit(vec![days_ago(1, "other", "c")]).await.expect("appended");
        app.stop().await.expect("stopped");
    }

    fn verify(&self) -> (i32, String, String) {
        verify(&self.folder.path().join("data"), &self.folder.path().join("key"))
    }

    fn touch(&self, touch: impl FnOnce(&Raw)) {
        touch(&Raw(raw_sled(&self.store())));
    }
}

/// An event of so many days ago, appended.
fn days_ago(days: u64, of: &str, connection: &str) -> Change {
    let time = SystemClock.now().saturating_sub(Duration::from_secs(days * 86_400));
    Change::Append(Event { time, ..event(of, connection) })
}

fn verify(data: &Path, key: &Path) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_gitmoor"))
        .args(["audit", "verify", "--data-dir"])
        .arg(data)
        .arg("--key-file")
        .arg(key)
        .env_clear()
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("ended by itself"), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t22_audit_verify_tells_of_every_tenant() {
    let installation = Installation::new();
    installation.fill().await;
    let intact = "tenant acme: 5 events, chain intact\ntenant other: 1 events, chain intact\n";
    assert_eq!(installation.verify(), (OK, intact.to_owned(), String::new()));

    installation.touch(|raw| {
        let mut event = raw.event(3);
        let place = event.event.windows(5).position(|bytes| bytes == b"local").expect("an actor");
        event.event[place] ^= 1;
        raw.write(&Raw::key(3), &event);
    });
    let (code, told, _) = installation.verify();
    assert_eq!(code, TAMPERED);
    assert_eq!(
        told,
        "tenant acme: event 3 is not what was written there: it was edited, moved or put in (2 events before it are \
         as they were written)\ntenant other: 1 events, chain intact\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t22_audit_verify_names_what_the_start_would_only_miss() {
    let installation = Installation::new();
    installation.fill().await;
    installation.touch(|raw| raw.remove(5));
    let (code, told, _) = installation.verify();
    assert_eq!(code, TAMPERED);
    assert!(told.starts_with("tenant acme: event 5 is missing (4 events before it"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_retention_let_go_is_not_missed() {
    let installation = Installation::new();
    let app = installation.serve().await;
    for days in [30, 20, 10, 3, 2, 1] {
        app.store.commit(vec![days_ago(days, "acme", "c")]).await.expect("appended");
    }
    let before = SystemClock.now().saturating_sub(Duration::from_secs(5 * 86_400));
    assert_eq!(app.store.forget_events(&tenant("acme"), before).await.expect("forgotten"), 3);
    app.stop().await.expect("stopped");
    let told = "tenant acme: 3 events, chain intact, from event 4 on, older ones were let go\n";
    assert_eq!(installation.verify(), (OK, told.to_owned(), String::new()));
    // Nobody else may let go of one.
    installation.touch(|raw| raw.remove(4));
    assert_eq!(installation.verify().0, TAMPERED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn housekeeping_lets_go_of_events_that_are_older_than_the_retention() {
    let installation = Installation::new();
    let app = installation.serve().await;
    for days in [500, 401, 399, 0] {
        app.store.commit(vec![days_ago(days, "acme", "c")]).await.expect("appended");
    }
    app.stop().await.expect("stopped");
    // The first round comes with the start.
    let app = installation.serve().await;
    while app.store.events(&tenant("acme"), None, 0, 10).await.expect("listed").len() > 2 {
        tokio::task::yield_now().await;
    }
    app.stop().await.expect("stopped");
    let (code, told, _) = installation.verify();
    assert_eq!(
        (code, told.as_str()),
        (OK, "tenant acme: 2 events, chain intact, from event 3 on, older ones were let go\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k04_audit_verify_wants_a_stopped_server_its_folder_and_its_key() {
    let installation = Installation::new();
    let app = installation.serve().await;
    let (code, told, problem) = installation.verify();
    assert_eq!((code, told.as_str()), (STORE, ""));
    assert!(problem.contains("held by another process") && problem.contains("stop the server"), "{problem}");
    app.stop().await.expect("stopped");

    let other = installation.folder.path().join("other");
    KeyFile::create(&other, SystemClock.now()).expect("a key file");
    let (code, _, problem) = verify(&installation.folder.path().join("data"), &other);
    assert_eq!(code, KEY, "{problem}");

    let nowhere = installation.folder.path().join("nowhere");
    let (code, _, problem) = verify(&nowhere, &installation.folder.path().join("key"));
    assert_eq!(code, STORE);
    assert!(problem.contains("nowhere"), "{problem}");
    assert!(!nowhere.exists(), "and none is made");
}
