//! The real program: its help, its exit codes, its files. Ports are chosen by the operating system.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gitmoor::proto::v1;
use gitmoor::proto::v1::connection_service_client::ConnectionServiceClient;
use gitmoor::proto::v1::repository_service_client::RepositoryServiceClient;
use rustix::process::{Pid, Signal};
use tonic::transport::Endpoint;

use crate::support::app::{connection, pat};
use crate::support::forge::{Forge, gitlab_tokens};

const OK: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const CONFIG: i32 = 3;
const KEY: i32 = 4;
const STORE: i32 = 5;
const LISTEN: i32 = 6;

/// A call of the program in a folder of its own, without the variables of whoever runs the tests.
pub(crate) fn gitmoor(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gitmoor"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the program starts")
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("ended by itself")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("tempdir")
}

#[test]
fn help_names_every_command_flag_and_exit_code() {
    let folder = folder();
    let help = gitmoor(folder.path(), &["--help"], &[]);
    assert_eq!(code(&help), OK);
    for word in [
        "serve",
        "keys",
        "healthcheck",
        "audit",
        "git-credential",
        "config",
        "version",
        "Exit codes:",
        "6  cannot listen",
    ] {
        assert!(stdout(&help).contains(word), "{word}");
    }
    let help = stdout(&gitmoor(folder.path(), &["serve", "--help"], &[]));
    for key in gitmoor::config::KEYS {
        assert!(help.contains(&format!("--{} ", key.replace('_', "-"))), "{key}");
        assert!(help.contains(&format!("GITMOOR_{}", key.to_ascii_uppercase())), "{key}");
    }
    assert!(help.contains("Examples:"));
    assert_eq!(code(&gitmoor(folder.path(), &[], &[])), USAGE);
    assert_eq!(code(&gitmoor(folder.path(), &["serve", "--token", "x"], &[])), USAGE);
}

#[test]
fn version_names_the_program_and_its_version() {
    let output = gitmoor(folder().path(), &["version"], &[]);
    assert_eq!(code(&output), OK);
    assert!(stdout(&output).starts_with(concat!("gitmoor ", env!("CARGO_PKG_VERSION"), " (")));
}

#[test]
fn o03_a_misspelt_key_is_told_with_the_nearest_one_and_code_3() {
    let folder = folder();
    std::fs::write(folder.path().join("c.toml"), "datadir = '/x'\nkey_file = 'k'\n").expect("written");
    for command in ["check", "print"] {
        let output = gitmoor(folder.path(), &["config", command, "--config", "c.toml"], &[]);
        assert_eq!(code(&output), CONFIG);
        assert!(stderr(&output).contains("c.toml, line 1: unknown key datadir; did you mean data_dir?"));
        assert!(stderr(&output).contains("data_dir is required"), "all at once: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn o04_a_listener_for_other_machines_is_refused_with_code_3() {
    let output = gitmoor(folder().path(), &["config", "check", "--dev", "--listen", "0.0.0.0:50051"], &[]);
    assert_eq!(code(&output), CONFIG);
    assert!(stderr(&output).contains("callers are not authenticated yet"), "{}", stderr(&output));
}

#[test]
fn config_print_shows_values_and_sources_and_no_secret() {
    let folder = folder();
    let key = folder.path().join("the.key");
    let key = key.to_str().expect("UTF-8");
    assert_eq!(code(&gitmoor(folder.path(), &["keys", "init", "--key-file", key], &[])), OK);
    let variables = [("GITMOOR_KEY_FILE", key), ("GITMOOR_DRAIN_TIMEOUT", "20s")];
    let output = gitmoor(folder.path(), &["config", "print", "--data-dir", "d"], &variables);
    assert_eq!(code(&output), OK, "{}", stderr(&output));
    assert!(stdout(&output).contains("data_dir = \"d\" # --data-dir\n"));
    assert!(stdout(&output).contains("drain_timeout = \"20s\" # GITMOOR_DRAIN_TIMEOUT\n"));
    let text = std::fs::read_to_string(key).expect("key file");
    let secret = text.lines().last().and_then(|line| line.split(' ').next_back()).expect("a key");
    assert!(!stdout(&output).contains(secret) && !stderr(&output).contains(secret));
}

#[test]
fn keys_init_makes_a_private_file_once() {
    let folder = folder();
    let arguments = ["keys", "init", "--key-file", "gitmoor.key"];
    let first = gitmoor(folder.path(), &arguments, &[]);
    assert_eq!(code(&first), OK, "{}", stderr(&first));
    let path = folder.path().join("gitmoor.key");
    assert_eq!(std::fs::metadata(&path).expect("made").permissions().mode() & 0o7777, 0o600);
    let text = std::fs::read_to_string(&path).expect("key file");
    let secret = text.lines().last().and_then(|line| line.split(' ').next_back()).expect("a key");
    assert!(!stdout(&first).contains(secret));

    let second = gitmoor(folder.path(), &arguments, &[]);
    assert_eq!(code(&second), KEY);
    assert!(stderr(&second).contains("exists already"), "{}", stderr(&second));
    assert_eq!(std::fs::read_to_string(&path).expect("key file"), text);

    let nowhere = gitmoor(folder.path(), &["keys", "init", "--key-file", "none/x.key"], &[]);
    assert_eq!(code(&nowhere), KEY);
    assert!(stderr(&nowhere).contains("none/x.key"));
}

#[test]
fn healthcheck_of_nothing_is_code_1() {
    let folder = folder();
    // Bound and not listening any more: nobody else gets the port in between.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("address").to_string();
    drop(listener);
    for address in [address.as_str(), "unix:none.sock"] {
        let output = gitmoor(folder.path(), &["healthcheck", "--address", address], &[]);
        assert_eq!(code(&output), FAILED);
        assert_eq!(stderr(&output), format!("gitmoor: {address}: cannot connect\n"));
    }
    let from_variable =
        gitmoor(folder.path(), &["healthcheck"], &[("GITMOOR_LISTEN", "unix:none.sock,127.0.0.1:1")]);
    assert_eq!(stderr(&from_variable), "gitmoor: unix:none.sock: cannot connect\n");
    assert_eq!(code(&gitmoor(folder.path(), &["healthcheck", "--address", "localhost"], &[])), USAGE);
    assert_eq!(code(&gitmoor(folder.path(), &["healthcheck"], &[("GITMOOR_LISTEN", "localhost")])), CONFIG);
}

#[test]
fn healthcheck_of_a_server_tells_whether_it_serves() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let folder = folder();
    let socket = folder.path().join("g.sock");
    let (reporter, service) = tonic_health::server::health_reporter();
    let listener = {
        let _entered = runtime.enter();
        tokio::net::UnixListener::bind(&socket).expect("bound")
    };
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let server =
        runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let address = format!("unix:{}", socket.display());
    for (status, expected) in
        [(tonic_health::ServingStatus::Serving, OK), (tonic_health::ServingStatus::NotServing, FAILED)]
    {
        runtime.block_on(reporter.set_service_status("", status));
        let output = gitmoor(folder.path(), &["healthcheck", "--address", &address], &[]);
        assert_eq!(code(&output), expected, "{}", stderr(&output));
    }
    server.abort();
}

/// A server that is ready, at `unix:g.sock` in its folder. Killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Server {
    pub(crate) fn start(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let log = folder.join("log.txt");
        let child = Command::new(env!("CARGO_BIN_EXE_gitmoor"))
            .args(["serve", "--listen", "unix:g.sock"])
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .envs(variables.iter().copied())
            .stderr(std::fs::File::create(&log).expect("log file"))
            .spawn()
            .expect("the program starts");
        let mut server = Self { child, log };
        while code(&gitmoor(folder, &["healthcheck", "--address", "unix:g.sock"], &[])) != OK {
            assert!(server.child.try_wait().expect("asked").is_none(), "it ended: {}", server.log());
            std::thread::yield_now();
        }
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("log file")
    }

    /// Ends it as an operator would, and returns its exit code and its log.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, Signal::TERM).expect("signalled");
        let status = self.child.wait().expect("ended");
        (status.code(), self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already, if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serve_dev_makes_its_folder_and_key_says_so_and_ends_with_code_0() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--dev"], &[]);
    let key = folder.path().join("gitmoor-dev/dev.key");
    assert_eq!(std::fs::metadata(&key).expect("made").permissions().mode() & 0o7777, 0o600);
    let socket = std::fs::metadata(folder.path().join("g.sock")).expect("bound");
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    let (code, log) = server.stop();
    assert_eq!(code, Some(OK), "{log}");
    assert!(log.contains("DEVELOPMENT MODE"), "{log}");
    let text = std::fs::read_to_string(&key).expect("key file");
    let again = Server::start(folder.path(), &["--dev", "--log-format", "json"], &[]);
    let (code, log) = again.stop();
    assert_eq!(code, Some(OK), "{log}");
    assert_eq!(std::fs::read_to_string(&key).expect("key file"), text, "the key stays");
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("one JSON object per line");
    }
}

#[test]
fn k04_a_second_process_on_the_same_store_is_refused_with_code_5() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--dev"], &[]);
    let second = gitmoor(folder.path(), &["serve", "--dev", "--listen", "unix:other.sock"], &[]);
    assert_eq!(code(&second), STORE, "{}", stderr(&second));
    assert_eq!(code(&gitmoor(folder.path(), &["healthcheck", "--address", "unix:g.sock"], &[])), OK);
    assert_eq!(server.stop().0, Some(OK));
}

#[test]
fn s28_a_wrong_key_at_start_names_both_ids_and_ends_with_code_4() {
    let folder = folder();
    assert_eq!(Server::start(folder.path(), &["--dev"], &[]).stop().0, Some(OK));
    let id =
        |text: &str| text.lines().last().and_then(|line| line.split(' ').next()).expect("an id").to_owned();
    let key = |name: &str| id(&std::fs::read_to_string(folder.path().join(name)).expect("key file"));
    gitmoor(folder.path(), &["keys", "init", "--key-file", "wrong.key"], &[]);
    let arguments =
        ["serve", "--data-dir", "gitmoor-dev", "--key-file", "wrong.key", "--listen", "unix:g.sock"];
    let refused = gitmoor(folder.path(), &arguments, &[]);
    assert_eq!(code(&refused), KEY, "{}", stderr(&refused));
    for id in [key("gitmoor-dev/dev.key"), key("wrong.key")] {
        assert!(stderr(&refused).contains(&id), "{id} in {}", stderr(&refused));
    }
    assert_eq!(Server::start(folder.path(), &["--dev"], &[]).stop().0, Some(OK), "nothing was changed");
}

#[test]
fn a_key_file_that_others_can_read_ends_with_code_4() {
    let folder = folder();
    gitmoor(folder.path(), &["keys", "init", "--key-file", "the.key"], &[]);
    let path = folder.path().join("the.key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let arguments = ["serve", "--data-dir", "d", "--key-file", "the.key", "--listen", "unix:g.sock"];
    let refused = gitmoor(folder.path(), &arguments, &[]);
    assert_eq!(code(&refused), KEY);
    assert!(stderr(&refused).contains("chmod 600 the.key"), "{}", stderr(&refused));
}

#[test]
fn an_address_in_use_ends_with_code_6() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("address").to_string();
    let refused = gitmoor(folder.path(), &["serve", "--dev", "--listen", &address], &[]);
    assert_eq!(code(&refused), LISTEN, "{}", stderr(&refused));
    assert!(stderr(&refused).contains(&address), "{}", stderr(&refused));
}

/// A token that no provider knows; it goes the same ways as a good one.
const CANARY: &str = "glpat-CANARYcanary0123456789";

#[test]
fn s13_s19_at_trace_no_log_line_no_file_and_no_command_line_holds_a_token() {
    let folder = folder();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let forge = runtime.block_on(Forge::small()).expect("forge");
    let arguments = ["--dev", "--egress-allow", forge.origin()];
    let server = Server::start(folder.path(), &arguments, &[("RUST_LOG", "trace")]);
    runtime.block_on(whole_life(&folder.path().join("g.sock"), &forge.gitlab_url()));
    let command_line = std::fs::read(format!("/proc/{}/cmdline", server.child.id())).expect("read");
    let (code, log) = server.stop();
    assert_eq!(code, Some(OK), "{log}");
    assert!(log.contains("DEBUG"), "it was talkative");

    let mut scanned = vec![("log".to_owned(), log.into_bytes()), ("command line".to_owned(), command_line)];
    let mut folders = vec![folder.path().join("gitmoor-dev")];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("listed").map(|entry| entry.expect("listed").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                scanned.push((entry.display().to_string(), std::fs::read(entry).expect("read")));
            }
        }
    }
    assert!(
        scanned.iter().any(|(name, bytes)| name.contains("store") && bytes.len() > 100),
        "it stored something"
    );
    for token in [CANARY, gitlab_tokens::GOOD] {
        for form in forms(token) {
            for (name, bytes) in &scanned {
                assert!(
                    !bytes.windows(form.len()).any(|window| window == form.as_bytes()),
                    "{form} in {name}"
                );
            }
        }
    }
}

/// Everything that touches a token: create, refuse, verify, list, replace, delete.
async fn whole_life(socket: &Path, url: &str) {
    let channel = Endpoint::from_shared(format!("unix:{}", socket.display())).expect("an address");
    let channel = channel.connect().await.expect("connected");
    let mut connections = ConnectionServiceClient::new(channel.clone());
    let parent = "tenants/acme".to_owned();
    let create = |id: &str, token: &str| v1::CreateConnectionRequest {
        parent: parent.clone(),
        connection_id: id.to_owned(),
        connection: Some(connection("gitlab", id, url, token)),
        ..Default::default()
    };
    connections.create_connection(create("bad", CANARY)).await.expect_err("the provider refuses it");
    connections.create_connection(create("kept", gitlab_tokens::GOOD)).await.expect("created");
    let created = connections.create_connection(create("good", gitlab_tokens::GOOD)).await.expect("created");
    let name = created.into_inner().name;
    let verify = v1::VerifyConnectionRequest {
        parent: parent.clone(),
        connection: Some(connection("gitlab", "tried", url, CANARY)),
        ..Default::default()
    };
    connections.verify_connection(verify).await.expect("a report");
    let list = v1::ListRepositoriesRequest { parent: name.clone(), ..Default::default() };
    RepositoryServiceClient::new(channel).list_repositories(list).await.expect("listed");
    for (token, accepted) in [(CANARY, false), (gitlab_tokens::GOOD, true)] {
        let replace = v1::ReplaceCredentialRequest {
            name: name.clone(),
            credential: Some(pat(token)),
            ..Default::default()
        };
        assert_eq!(connections.replace_credential(replace).await.is_ok(), accepted);
    }
    let delete = v1::DeleteConnectionRequest { name, ..Default::default() };
    connections.delete_connection(delete).await.expect("deleted");
}

/// A token as it is, and as an encoding would show it. Base64 depends on where the token begins, so all three are tried,
/// without the letters that its neighbours have a part in.
pub(crate) fn forms(token: &str) -> Vec<String> {
    let hex: String = token.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![token.to_owned(), hex.to_uppercase(), hex, token.replace('-', "%2D")];
    for before in 0..3 {
        let text = BASE64.encode(format!("{}{token}", "x".repeat(before)));
        forms.push(text[4..text.len() - 4].to_owned());
    }
    // In part, too: what is shown of a token is its prefix and its last four letters.
    forms.push(token[6..token.len() - 4].to_owned());
    forms
}
