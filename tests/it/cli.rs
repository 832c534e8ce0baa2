//! The real program: its help, its exit codes, its files. Ports are chosen by the operating system.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

const OK: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const CONFIG: i32 = 3;
const KEY: i32 = 4;

/// A call of the program in a folder of its own, without the variables of whoever runs the tests.
fn gitmoor(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gitmoor"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("ended by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
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
    for word in ["keys", "healthcheck", "config", "version", "Exit codes:", "6  cannot listen"] {
        assert!(stdout(&help).contains(word), "{word}");
    }
    let help = stdout(&gitmoor(folder.path(), &["config", "check", "--help"], &[]));
    for key in gitmoor::config::KEYS {
        assert!(help.contains(&format!("--{} ", key.replace('_', "-"))), "{key}");
        assert!(help.contains(&format!("GITMOOR_{}", key.to_ascii_uppercase())), "{key}");
    }
    assert!(help.contains("Example"));
    assert_eq!(code(&gitmoor(folder.path(), &[], &[])), USAGE);
    assert_eq!(code(&gitmoor(folder.path(), &["config", "check", "--token", "x"], &[])), USAGE);
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
