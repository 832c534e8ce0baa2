//! Damaged, cut, missing, foreign and full: never wrong data, never a panic, always said.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gitmoor::domain::connection::ConnectionRecord;
use gitmoor::store::sled::{OpenError, SledStore};
use gitmoor::store::{Change, RecordProblem, Store, StoreError};

use super::fixture::{chain, config, created, events, name, open, record, remove, tenant};

/// How many bytes are flipped, one at a time; the default keeps `cargo test` short.
const FLIPS: &str = "GITMOOR_FLIPS";
const DIRECTORY: &str = "GITMOOR_FULL_DIRECTORY";
const CONNECTIONS: usize = 120;

#[tokio::test]
async fn k01_a_flipped_byte_is_never_read_as_data() {
    let flips = std::env::var(FLIPS).map_or(200, |flips| flips.parse::<u64>().expect("a number of flips"));
    let base = tempfile::tempdir().expect("a directory");
    let whole = base.path().join("whole");
    let wanted = fill(&whole).await;
    let files: Vec<PathBuf> = files(&whole).into_iter().filter(|file| length(file) > 0).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let (mut refused, mut noticed, mut harmless) = (0, 0, 0);
    for flip in 0..flips {
        let copy = base.path().join(format!("flip-{flip}"));
        copy_directory(&whole, &copy);
        // Half of the flips go to the log, the others to each file in turn. The log is mostly unused space at
        // its end, so places are drawn from its used part.
        let file = if flip % 2 == 0 { &whole.join("db") } else { &files[(flip / 2) as usize % files.len()] };
        let target = copy.join(file.strip_prefix(&whole).expect("inside"));
        let place = next() % used(file);
        flip_byte(&target, place, (next() % 255) as u8 + 1);
        let at = format!("{} byte {place}", target.display());
        match SledStore::open(&config(&copy)) {
            Err(error) => {
                assert!(
                    error.to_string().contains(copy.to_str().expect("text")),
                    "{at}: {error} names no file"
                );
                refused += 1;
            }
            Ok(store) => {
                store.chain_with(chain());
                if all_is_there(&store, &wanted, &at).await {
                    harmless += 1;
                } else {
                    noticed += 1;
                }
            }
        }
        fs::remove_dir_all(&copy).expect("removed");
    }
    println!(
        "{flips} flips: {refused} refused at open, {noticed} reported by reads, {harmless} without effect"
    );
    assert!(refused > 0, "some flips must matter");
}

/// Every record is right, or its loss is said. Returns whether all were right.
async fn all_is_there(store: &SledStore, wanted: &[ConnectionRecord], at: &str) -> bool {
    let mut all = true;
    for record in wanted {
        match store.connection(&record.connection.name).await {
            Ok(found) => assert_eq!(*found, *record, "{at}"),
            Err(StoreError::Unavailable { .. } | StoreError::Unreadable(_)) => all = false,
            Err(other) => panic!("{at}: {} is silently gone: {other}", record.connection.name),
        }
    }
    match store.connections(&tenant("acme"), None, usize::MAX).await {
        Ok(listed) => assert_eq!(listed.len(), wanted.len(), "{at}"),
        Err(StoreError::Unavailable { .. }) => all = false,
        Err(other) => panic!("{at}: {other}"),
    }
    match store.events(&tenant("acme"), None, 0, usize::MAX).await {
        Ok(events) => {
            assert_eq!(events.len(), CONNECTIONS, "{at}");
            all &= events.iter().all(Result::is_ok);
        }
        Err(StoreError::Unavailable { .. } | StoreError::Unreadable(_)) => all = false,
        Err(other) => panic!("{at}: {other}"),
    }
    all
}

#[tokio::test]
async fn a_log_without_its_end_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).await;
    let log = directory.path().join("db");
    // Recovery stops at the first damaged message and cuts off what follows.
    flip_byte(&log, used(&log) / 2, 0xff);
    let refused = SledStore::open(&config(directory.path())).expect_err("refused");
    assert!(matches!(refused, OpenError::CommitsMissing { missing: 1.., .. }), "{refused}");
    assert!(refused.to_string().contains("db lacks the last"), "{refused}");
}

#[tokio::test]
async fn a_log_that_is_gone_is_refused_and_not_made_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).await;
    let log = directory.path().join("db");
    fs::remove_file(&log).expect("removed");
    let refused = SledStore::open(&config(directory.path())).expect_err("refused");
    assert!(matches!(refused, OpenError::CommitsMissing { .. }), "{refused}");
    assert!(!log.exists());
}

/// The files as sled sees them. The threads of a store that was dropped let go of them a moment later.
pub(crate) fn raw_sled(path: &Path) -> sled::Db {
    for _ in 0..500 {
        match sled::open(path) {
            Ok(raw) => return raw,
            Err(sled::Error::Io(_)) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the files are still held after five seconds")
}

#[tokio::test]
async fn a_row_that_is_gone_is_noticed_at_the_start() {
    for kind in [b'c', b'n', b'i', b'e', b's', b'm'] {
        let directory = tempfile::tempdir().expect("a directory");
        fill(directory.path()).await;
        let raw = raw_sled(directory.path());
        let (key, _) = raw.scan_prefix([kind]).next_back().expect("a row").expect("readable");
        raw.remove(key).expect("removed");
        drop(raw);
        let refused = SledStore::open(&config(directory.path())).expect_err("refused");
        assert!(matches!(refused, OpenError::Corrupt { .. }), "{}: {refused}", char::from(kind));
    }
}

#[tokio::test]
async fn an_event_that_is_gone_is_noticed_when_read() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).await;
    let raw = raw_sled(directory.path());
    let (key, _) = raw.scan_prefix(b"e").nth(5).expect("a row").expect("readable");
    raw.remove(key).expect("removed");
    drop(raw);
    let store = open(directory.path());
    let listed = store.events(&tenant("acme"), None, 0, 100).await.expect("listed");
    assert_eq!(listed.len(), 100);
    for (at, row) in listed.into_iter().enumerate() {
        match row {
            Ok(entry) => assert_eq!(entry.sequence, at as u64 + 1),
            Err(lost) => {
                assert_eq!((at, lost.sequence, lost.problem), (5, 6, RecordProblem::Missing));
            }
        }
    }
    assert_eq!(events(&store, "acme", 6, 5).await.len(), 5, "behind the gap");
}

#[tokio::test]
async fn one_unreadable_record_does_not_stop_the_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let wanted = fill(directory.path()).await;
    let raw = raw_sled(directory.path());
    let (key, bytes) = raw.scan_prefix(b"c").nth(3).expect("a row").expect("readable");
    let mut damaged = bytes.to_vec();
    damaged[20] ^= 1;
    raw.insert(&key, damaged).expect("written");
    let (key, bytes) = raw.scan_prefix(b"c").nth(5).expect("a row").expect("readable");
    let mut newer = bytes[..bytes.len() - 4].to_vec();
    newer[0] = 200;
    let checksum = crc32fast::hash(&[key.as_ref(), &newer].concat());
    newer.extend_from_slice(&checksum.to_le_bytes());
    raw.insert(&key, newer).expect("written");
    drop(raw);

    let store = open(directory.path());
    let listed = store.connections(&tenant("acme"), None, usize::MAX).await.expect("listed");
    assert_eq!(listed.len(), wanted.len());
    for (at, (row, wanted)) in listed.into_iter().zip(&wanted).enumerate() {
        let single = store.connection(&wanted.connection.name).await;
        match at {
            3 | 5 => {
                let problem = row.expect_err("unreadable");
                assert_eq!(problem.key, wanted.connection.name.to_string());
                let right = match at {
                    3 => problem.problem == RecordProblem::Damaged,
                    _ => matches!(problem.problem, RecordProblem::TooNew { found: 200, .. }),
                };
                assert!(right, "{problem:?}");
                assert!(matches!(single, Err(StoreError::Unreadable(found)) if found == problem));
            }
            _ => {
                assert_eq!(*row.expect("readable"), *wanted);
                assert_eq!(*single.expect("readable"), *wanted);
            }
        }
    }
    store.commit(vec![remove(&wanted[0])]).await.expect("the others can be changed");
    store.commit(vec![remove(&wanted[3])]).await.expect_err("its revision cannot be told");
}

#[tokio::test]
async fn k03_an_older_copy_of_the_whole_directory_opens() {
    let base = tempfile::tempdir().expect("a directory");
    let (live, copy) = (base.path().join("live"), base.path().join("copy"));
    let wanted = fill(&live).await;
    copy_directory(&live, &copy);
    let store = open(&live);
    store.commit(created("acme", "later", "Later", "later")).await.expect("created");
    drop(store);
    let store = open(&copy);
    assert!(all_is_there(&store, &wanted, "the copy").await);
    drop(store);
    // The log alone is another matter: the watermark beside it knows better.
    fs::copy(copy.join("db"), live.join("db")).expect("copied");
    assert!(SledStore::open(&config(&live)).is_err());
}

#[tokio::test]
async fn k06_a_layout_of_the_future_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).await;
    let raw = raw_sled(directory.path());
    let mut row = vec![7, 0xff];
    row.extend_from_slice(&crc32fast::hash(&[b"m".as_slice(), &row].concat()).to_le_bytes());
    raw.insert(b"m", row).expect("written");
    drop(raw);
    let refused = SledStore::open(&config(directory.path())).expect_err("refused");
    assert!(matches!(refused, OpenError::TooNew { .. }), "{refused}");
    assert!(refused.to_string().contains("version 7"), "{refused}");
}

#[test]
fn a_directory_that_cannot_be_one_is_a_clear_error() {
    let base = tempfile::tempdir().expect("a directory");
    let file = base.path().join("file");
    fs::write(&file, "not a directory").expect("written");
    for path in [file.clone(), file.join("below")] {
        let refused = SledStore::open(&config(&path)).expect_err("refused");
        assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
        assert!(refused.to_string().contains("file"), "{refused}");
    }
    assert_eq!(fs::read(&file).expect("kept"), b"not a directory");
}

/// A mount that is read-only stops every user, root too, whom the mode of a directory does not stop.
#[tokio::test]
async fn a_read_only_directory_is_a_clear_error_and_nothing_is_changed() {
    let base = tempfile::tempdir().expect("a directory");
    let path = base.path().join("store");
    fill(&path).await;
    let before = contents(&path);
    let namespaces = ["--mount", "--map-root-user"];
    let can_mount = Command::new("unshare").args(namespaces).arg("true").output();
    if !can_mount.is_ok_and(|output| output.status.success()) {
        // A container may forbid namespaces; then the mode of the directory has to do, which stops all but root.
        return refused_by_mode(&path);
    }
    let output = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c"])
        .arg("mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$0\" \"$@\"")
        .arg(std::env::current_exe().expect("this binary"))
        .arg(&path)
        .args(["store::damage::the_opener_on_a_read_only_disk", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, &path)
        .output()
        .expect("unshare, of util-linux, runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(contents(&path), before);
}

fn refused_by_mode(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o500)).expect("set");
    if fs::File::create(path.join("probe")).is_ok() {
        eprintln!("NOT CHECKED: root without namespaces may write to a read-only directory");
        return;
    }
    let refused = SledStore::open(&config(path)).expect_err("refused");
    assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("set");
}

#[test]
#[ignore = "the process that a_read_only_directory_is_a_clear_error_and_nothing_is_changed starts"]
fn the_opener_on_a_read_only_disk() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let refused = SledStore::open(&config(Path::new(&directory))).expect_err("refused");
    assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
    assert!(refused.to_string().contains(&directory), "{refused}");
}

/// The limit of a file's size stands for a full disk: a write fails in the middle of the work.
#[tokio::test]
async fn a_full_disk_refuses_commits_and_keeps_what_was_acknowledged() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 3000; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this binary"))
        .args(["store::damage::the_writer_on_a_full_disk", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .stderr(Stdio::piped())
        .output()
        .expect("the writer runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let done: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("done ")).collect();
    assert!(!done.is_empty(), "{said}");
    let store = open(directory.path());
    for label in done {
        store.connection(&name("acme", label)).await.expect("what was acknowledged is there");
    }
}

#[tokio::test]
#[ignore = "the process that a_full_disk_refuses_commits_and_keeps_what_was_acknowledged starts"]
async fn the_writer_on_a_full_disk() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = open(Path::new(&directory));
    for at in 0..20_000 {
        let label = format!("c{at}");
        match store.commit(created("acme", &label, &label, &label)).await {
            Ok(()) => println!("\ndone {label}"),
            Err(StoreError::Unavailable { problem }) => {
                assert!(problem.contains(&directory), "{problem}");
                let later = store.commit(created("acme", "later", "later", "later")).await;
                assert!(matches!(later, Err(StoreError::Unavailable { .. })), "{later:?}");
                return;
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the disk never became full");
}

/// A closed store of many connections, one deleted one, and several starts; returns the connections in the
/// order of their ids.
async fn fill(path: &Path) -> Vec<ConnectionRecord> {
    let mut wanted = Vec::new();
    for half in 0..2 {
        let store = open(path);
        for at in (half * CONNECTIONS / 2)..((half + 1) * CONNECTIONS / 2) {
            let label = format!("c{at:04}");
            store.commit(created("acme", &label, &label, &label)).await.expect("created");
            wanted.push(record("acme", &label, &label));
        }
        if half == 0 {
            let gone = record("acme", "gone", "Gone");
            store.commit(vec![Change::Insert(Box::new(gone.clone()))]).await.expect("inserted");
            store.commit(vec![remove(&gone)]).await.expect("removed");
        }
        store.close().await;
    }
    wanted
}

fn flip_byte(file: &Path, place: u64, with: u8) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).expect("read");
    file.write_all_at(&[byte[0] ^ with], place).expect("written");
}

/// Up to where a file holds something other than padding.
fn used(file: &Path) -> u64 {
    let bytes = fs::read(file).expect("read");
    let padding = bytes.last().copied().expect("not empty");
    let used = bytes.iter().rposition(|byte| *byte != padding).unwrap_or(0);
    used as u64 + 1
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).expect("there").len()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found
}

fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(directory)
        .into_iter()
        .filter(|file| !file.ends_with("probe"))
        .map(|file| (file.clone(), fs::read(&file).expect("read")))
        .collect()
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("copied");
    }
}
