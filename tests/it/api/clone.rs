//! The real git clones through the credential helper, at fakes that serve smart HTTP.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gitmoor::proto::v1;
use gitmoor::proto::v1::connection_service_client::ConnectionServiceClient;
use gitmoor::proto::v1::repository_service_client::RepositoryServiceClient;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tonic::transport::{Channel, Endpoint};

use super::fixture::{Side, gitlab, sides, started};
use crate::cli::{Server, code, forms, stderr, stdout};
use crate::support::app::{Running, TestApp, pat};
use crate::support::forge::{DataCenterConfig, Forge, ForgeConfig, Seen, data_center_tokens, gitlab_tokens};

/// Since this version git takes a credential that is no password.
const AUTHTYPE: (u32, u32) = (2, 46);

/// The version of the git of this machine. It must have one: nothing else would show that the helper works with it.
async fn git_version() -> (u32, u32) {
    let output = Command::new("git").arg("--version").output().await;
    let output = output.expect("git is not installed, and these tests are about it: apt-get install git");
    let text = stdout(&output);
    let mut numbers =
        text.split(' ').nth(2).expect("a version").split('.').map_while(|part| part.parse().ok());
    (numbers.next().expect("a number"), numbers.next().expect("a number"))
}

/// Somebody's git: a home with a configuration, and nothing of whoever runs the tests.
struct Git {
    home: tempfile::TempDir,
}

impl Git {
    /// Its helper is `gitmoor git-credential` with these options; `more` is the rest of the configuration.
    fn new(options: &str, more: &str) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let helper = format!("{} git-credential {options}", env!("CARGO_BIN_EXE_gitmoor"));
        let config = format!("[credential]\n\thelper = \"{helper}\"\n{more}");
        std::fs::write(home.path().join(".gitconfig"), config).expect("written");
        Self { home }
    }

    /// The same, and git tells the helper which repository it wants.
    fn with_path(options: &str) -> Self {
        Self::new(options, "\tuseHttpPath = true\n")
    }

    async fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let command = Command::new("git")
            .args(arguments)
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("a path"))
            .env("HOME", self.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            // Every command that git runs, with its arguments.
            .env("GIT_TRACE", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(Duration::from_secs(60), command).await.expect("git ends").expect("git runs")
    }

    /// Clones, and answers the commit that is there, or what git and its helper said.
    async fn clone_of(&self, url: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let place = format!("clone-{}", std::fs::read_dir(self.home.path()).expect("listed").count());
        let cloned = self.run(&["clone", url, &place], variables).await;
        if !cloned.status.success() {
            return Err(stderr(&cloned));
        }
        let head = self.run(&["-C", &place, "rev-parse", "HEAD"], &[]).await;
        assert_eq!(code(&head), 0, "{}", stderr(&head));
        Ok(stdout(&head).trim().to_owned())
    }
}

/// What the helper says to a git that asks so: exit code, stdout, stderr.
async fn asked(options: &[&str], operation: &str, question: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gitmoor"))
        .arg("git-credential")
        .args(options)
        .arg(operation)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may have gone away already: there are operations that it does not even read.
    let _ = stdin.write_all(question.as_bytes()).await;
    drop(stdin);
    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    let output = ended.expect("it ends").expect("it ran");
    (code(&output), stdout(&output), stderr(&output))
}

/// The question of git for a URL.
fn question(url: &str, capabilities: &str) -> String {
    let (protocol, rest) = url.split_once("://").expect("a URL");
    let (host, path) = rest.split_once('/').expect("a path");
    format!("{capabilities}protocol={protocol}\nhost={host}\npath={path}\n\n")
}

/// How git signed in last.
fn signed_in(forge: &Forge) -> String {
    let of_git = |seen: &&Seen| seen.query.contains("service=git-upload-pack");
    let requests = forge.requests();
    let last = requests.iter().rfind(of_git).expect("git came");
    last.header("authorization").expect("it signed in").to_owned()
}

/// Reads the arguments of all processes below this one, over and over, until it is told to stop.
fn watch_arguments(stop: Arc<AtomicBool>) -> std::thread::JoinHandle<BTreeSet<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        while !stop.load(Ordering::SeqCst) {
            for process in std::fs::read_dir("/proc").expect("a process table").flatten() {
                let id = process.file_name().to_str().and_then(|name| name.parse().ok());
                if id.is_some_and(is_below_us)
                    && let Ok(arguments) = std::fs::read(process.path().join("cmdline"))
                {
                    seen.insert(arguments);
                }
            }
        }
        seen
    })
}

/// Whether a process was started by this one, or by one that was.
fn is_below_us(mut id: u32) -> bool {
    while id > 1 {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
        // The name before it may hold anything, even a bracket.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        match parent {
            Some(parent) if parent == std::process::id() => return true,
            Some(parent) => id = parent,
            None => return false,
        }
    }
    false
}

/// The files below a folder, with what is in them.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("listed").map(|entry| entry.expect("listed")) {
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push((entry.path(), std::fs::read(entry.path()).expect("read")));
            }
        }
    }
    found
}

fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

/// A connection of the side at a server of its own, and one of its repositories.
async fn connected(channel: Channel, side: &Side) -> v1::Repository {
    let request = v1::CreateConnectionRequest {
        parent: "tenants/default".to_owned(),
        connection_id: side.provider.to_owned(),
        connection: Some(side.connection(side.provider)),
        ..Default::default()
    };
    let created =
        ConnectionServiceClient::new(channel.clone()).create_connection(request).await.expect(side.provider);
    let list = v1::ListRepositoriesRequest {
        parent: created.into_inner().name,
        page_size: 100,
        ..Default::default()
    };
    let listed = RepositoryServiceClient::new(channel).list_repositories(list).await.expect(side.provider);
    let mut rows = listed.into_inner().repositories;
    rows.retain(|row| !row.disabled);
    // The one that is hardest to name, if there is one.
    let at = rows.iter().position(|row| row.clone_https_url.contains('%')).unwrap_or(0);
    rows.swap_remove(at)
}

#[tokio::test]
async fn the_real_git_clones_at_every_provider_and_no_token_stays_anywhere() {
    let version = git_version().await;
    let config = ForgeConfig {
        bitbucket_data_center: DataCenterConfig { basic: true, ..Default::default() },
        // So that each helper lives long enough to be looked at.
        latency: Duration::from_millis(60),
        ..ForgeConfig::default()
    };
    let forge = Forge::start(config).await.expect("a forge");
    let folder = tempfile::tempdir().expect("a folder");
    let origin = forge.origin().to_owned();
    let at = folder.path().to_owned();
    let start = move || Server::start(&at, &["--dev", "--egress-allow", &origin], &[("RUST_LOG", "trace")]);
    let server = tokio::task::spawn_blocking(start).await.expect("started");
    let socket = format!("unix:{}", folder.path().join("g.sock").display());
    let channel =
        Endpoint::from_shared(socket.clone()).expect("an address").connect().await.expect("connected");
    let git = Git::with_path(&format!("--address {socket}"));

    let stop = Arc::new(AtomicBool::new(false));
    let watcher = watch_arguments(stop.clone());
    let (mut secrets, mut said) = (Vec::new(), Vec::new());
    for side in sides(&forge) {
        let row = connected(channel.clone(), &side).await;
        forge.forget_requests();
        let place = git.home.path().join(side.provider);
        let place = place.to_str().expect("UTF-8");
        let cloned = git.run(&["clone", &row.clone_https_url, place], &[]).await;
        assert_eq!(code(&cloned), 0, "{}: {}", side.provider, stderr(&cloned));
        let head = git.run(&["-C", place, "rev-parse", "HEAD"], &[]).await;
        let commit = forge.commit_at(&row.clone_https_url).await.expect("a commit");
        assert_eq!(stdout(&head).trim(), commit, "{}", side.provider);
        let text = std::fs::read_to_string(Path::new(place).join("README.md")).expect("a file");
        assert!(text.starts_with("the repository at /"), "{text}");

        let authorization = signed_in(&forge);
        let user = match side.provider {
            "azure-devops" => "git",
            "bitbucket-cloud" => "x-bitbucket-api-token-auth",
            "github" => "x-access-token",
            "gitlab" => "oauth2",
            _ => "casey",
        };
        let basic = format!("Basic {}", BASE64.encode(format!("{user}:{}", side.good)));
        if side.provider == "bitbucket-data-center" && version >= AUTHTYPE {
            assert_eq!(authorization, format!("Bearer {}", side.good));
        } else {
            assert_eq!(authorization, basic, "{}", side.provider);
        }
        // A row of noughts is no part of a token that could be told from other text.
        secrets.extend(forms(side.good).into_iter().filter(|form| !form.bytes().all(|byte| byte == b'0')));
        secrets.push(basic["Basic ".len()..].to_owned());
        said.extend([cloned.stdout, cloned.stderr]);
    }
    stop.store(true, Ordering::SeqCst);
    let arguments = watcher.join().expect("it watched");
    assert!(
        arguments.iter().any(|line| holds(line, "git-credential")),
        "no helper was seen among {arguments:?}"
    );
    let (exit, log) = tokio::task::spawn_blocking(|| server.stop()).await.expect("stopped");
    assert_eq!(exit, Some(0), "{log}");
    assert!(log.contains("GenerateGitCredential") && log.contains("DEBUG"), "it was talkative: {log}");
    // What git traced has the command lines of all that it ran.
    assert!(said.iter().any(|text| holds(text, "git-credential")), "git said nothing");

    let kept = [files(git.home.path()), files(folder.path())].concat();
    assert!(kept.iter().any(|(path, _)| path.ends_with(".git/config")), "nothing was cloned");
    assert!(kept.iter().any(|(path, _)| path.file_name() == Some(OsStr::new("log.txt"))), "no log");
    for secret in &secrets {
        for (path, bytes) in &kept {
            assert!(!holds(bytes, secret), "{} holds a token", path.display());
        }
        assert!(!arguments.iter().any(|line| holds(line, secret)), "a command line holds a token");
        assert!(!said.iter().any(|text| holds(text, secret)), "git said a token");
    }
}

/// A service and a git that asks it.
async fn started_with_git(options: &str) -> (Forge, Running, Git) {
    git_version().await;
    let (forge, app) = started().await;
    let git = Git::with_path(&format!("--address {} {options}", app.address));
    (forge, app, git)
}

#[tokio::test]
async fn a_server_that_refuses_basic_is_cloned_from_with_a_bearer() {
    let version = git_version().await;
    let forge = Forge::small().await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    let url = forge.bitbucket_data_center_url();
    let mut connection =
        crate::support::app::connection("bitbucket-data-center", "dc", &url, data_center_tokens::GOOD);
    connection.credential = Some(pat(data_center_tokens::GOOD));
    let created = app.create(connection).await.expect("created");
    let row = app.stream(&created.name).await.expect("rows").swap_remove(0);
    let address = app.address.to_string();
    let commit = forge.commit_at(&row.clone_https_url).await.expect("a commit");

    let options = ["--address", &address];
    let (exit, told, _) =
        asked(&options, "get", &question(&row.clone_https_url, "capability[]=authtype\n")).await;
    assert_eq!(exit, 0);
    let bearer = format!(
        "capability[]=authtype\nauthtype=Bearer\nephemeral=1\ncredential={}\n",
        data_center_tokens::GOOD
    );
    assert_eq!(told, bearer);
    let (_, told, _) = asked(&options, "get", &question(&row.clone_https_url, "")).await;
    assert_eq!(told, format!("username=casey\npassword={}\n", data_center_tokens::GOOD));

    let git = Git::with_path(&format!("--address {address}"));
    if version >= AUTHTYPE {
        assert_eq!(git.clone_of(&row.clone_https_url, &[]).await, Ok(commit));
        assert_eq!(signed_in(&forge), format!("Bearer {}", data_center_tokens::GOOD));
    } else {
        println!("git {}.{} knows no authtype; its header is set by hand instead", version.0, version.1);
        git.clone_of(&row.clone_https_url, &[]).await.expect_err("Basic is off");
        let header = format!("Authorization: Bearer {}", data_center_tokens::GOOD);
        let variables = [
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "http.extraHeader"),
            ("GIT_CONFIG_VALUE_0", &header),
        ];
        assert_eq!(git.clone_of(&row.clone_https_url, &variables).await, Ok(commit));
    }
}

#[tokio::test]
async fn several_connections_are_no_choice_but_one_that_is_named_or_linked_is() {
    let (forge, app, git) = started_with_git("").await;
    let side = gitlab(&forge);
    let first = app.create(side.connection("first")).await.expect("created");
    let second = app.create(side.with_token("second", gitlab_tokens::READ_ONLY)).await.expect("created");
    let row = app.stream(&first.name).await.expect("rows").swap_remove(0);
    let url = row.clone_https_url.as_str();
    let commit = forge.commit_at(url).await.expect("a commit");
    let token = |authorization: &str| {
        let clear = BASE64.decode(authorization.strip_prefix("Basic ").expect("Basic")).expect("base64");
        String::from_utf8(clear).expect("text").split_once(':').expect("a user").1.to_owned()
    };

    let told = git.clone_of(url, &[]).await.expect_err("nothing is picked");
    assert!(told.contains("is reached by several connections") && told.contains(&second.name), "{told}");
    assert!(
        forge
            .requests()
            .iter()
            .all(|seen| !seen.path.contains(".git") || seen.header("authorization").is_none())
    );

    let named = Git::with_path(&format!("--address {} --connection {}", app.address, second.name));
    assert_eq!(named.clone_of(url, &[]).await.as_ref(), Ok(&commit));
    assert_eq!(token(&signed_in(&forge)), gitlab_tokens::READ_ONLY);

    let link = v1::CreateRepositoryLinkRequest {
        parent: "tenants/default".to_owned(),
        repository_link: Some(v1::RepositoryLink { connection: second.name.clone(), ..Default::default() }),
        selector: Some(v1::create_repository_link_request::Selector::CloneUrl(url.to_owned())),
        ..Default::default()
    };
    let link = app.repositories().create_repository_link(link).await.expect("linked").into_inner();
    assert_eq!(git.clone_of(url, &[]).await.as_ref(), Ok(&commit), "the link is the tenant's choice");
    assert_eq!(token(&signed_in(&forge)), gitlab_tokens::READ_ONLY);

    // With the link named, git need not say which repository it wants.
    let linked = Git::new(&format!("--address {} --link {}", app.address, link.name), "");
    assert_eq!(linked.clone_of(url, &[]).await.as_ref(), Ok(&commit));
}

#[tokio::test]
async fn without_a_path_git_is_told_how_to_say_it() {
    let (forge, app) = started().await;
    git_version().await;
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    let row = app.stream(&created.name).await.expect("rows").swap_remove(0);
    for options in ["", &format!(" --connection {}", created.name)] {
        let git = Git::new(&format!("--address {}{options}", app.address), "");
        let told = git.clone_of(&row.clone_https_url, &[]).await.expect_err("no credential");
        let remedy = format!("git config --global credential.{}.useHttpPath true", forge.origin());
        assert!(told.contains(&remedy), "{told}");
    }
    assert!(
        app.events("default").await.iter().all(|event| event.event_type.as_str() != "GIT_CREDENTIAL_ISSUED")
    );
}

#[tokio::test]
async fn a_credential_is_for_the_very_origin_of_its_connection() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    let row = app.stream(&created.name).await.expect("rows").swap_remove(0);
    let link = v1::CreateRepositoryLinkRequest {
        parent: "tenants/default".to_owned(),
        repository_link: Some(v1::RepositoryLink { connection: created.name.clone(), ..Default::default() }),
        selector: Some(v1::create_repository_link_request::Selector::Repository(row.name.clone())),
        ..Default::default()
    };
    let link = app.repositories().create_repository_link(link).await.expect("linked").into_inner().name;
    let address = app.address.to_string();
    let own = row.clone_https_url.as_str();
    for url in [
        own.replace("http://", "https://"),
        own.replace("127.0.0.1", "localhost"),
        own.replace(forge.origin(), "http://127.0.0.1:1"),
        own.replace(forge.origin(), "http://evil.test"),
    ] {
        let (exit, told, said) = asked(&["--address", &address], "get", &question(&url, "")).await;
        assert_eq!(
            (exit, told.as_str(), said.as_str()),
            (0, "", ""),
            "{url}: it is nothing that the service knows"
        );
        for through in [["--link", link.as_str()], ["--connection", &created.name]] {
            let options = [&["--address", &address][..], &through].concat();
            let (_, told, said) = asked(&options, "get", &question(&url, "")).await;
            assert_eq!(told, "", "{url} {through:?}");
            assert!(said.starts_with("gitmoor: "), "{url} {through:?}: {said}");
        }
    }
    let (exit, told, said) = asked(&["--address", &address], "get", &question(own, "")).await;
    assert_eq!((exit, said.as_str()), (0, ""));
    assert!(
        told.starts_with(&format!("username=oauth2\npassword={}\npassword_expiry_utc=", gitlab_tokens::GOOD))
    );
}

#[tokio::test]
async fn git_may_go_on_without_the_helper() {
    let nobody = ["--address", "unix:/nonexistent/g.sock"];
    let asks = "protocol=https\nhost=git.test\npath=a/b.git\nusername=u\npassword=the-secret\n\n";
    for operation in ["store", "erase", "capability", "whatever"] {
        assert_eq!(asked(&nobody, operation, asks).await, (0, String::new(), String::new()), "{operation}");
    }
    // Nothing that a token is for: nobody is asked.
    for other in ["", "protocol=ssh\nhost=git.test\n\n", "protocol=cert\npath=/key\n\n"] {
        assert_eq!(asked(&nobody, "get", other).await, (0, String::new(), String::new()), "{other:?}");
    }
    let (exit, told, said) = asked(&nobody, "get", asks).await;
    assert_eq!((exit, told.as_str()), (1, ""));
    assert_eq!(said, "gitmoor: unix:/nonexistent/g.sock: cannot connect\n");

    let (forge, app, git) = started_with_git("").await;
    let side = gitlab(&forge);
    let created = app.create(side.connection("x")).await.expect("created");
    let row = app.stream(&created.name).await.expect("rows").swap_remove(0);
    (side.revoke)(&forge);
    let told = git.clone_of(&row.clone_https_url, &[]).await.expect_err("the token is dead");
    assert!(told.contains(&format!("gitmoor: no connection shows {}", row.clone_https_url)), "{told}");
    let named = ["--address", &app.address.to_string(), "--connection", &created.name];
    let (exit, told, said) = asked(&named, "get", &question(&row.clone_https_url, "")).await;
    assert_eq!((exit, told.as_str()), (1, ""));
    assert!(said.starts_with("gitmoor: GitLab refuses the token"), "{said}");
}

#[tokio::test]
async fn flags_win_over_variables_and_what_contradicts_is_refused() {
    let run = |arguments: &'static [&'static str], variables: &'static [(&'static str, &'static str)]| async move {
        let output = Command::new(env!("CARGO_BIN_EXE_gitmoor"))
            .arg("git-credential")
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .await
            .expect("it runs");
        (code(&output), stdout(&output) + &stderr(&output))
    };
    let (exit, help) = run(&["--help"], &[]).await;
    assert_eq!(exit, 0);
    for word in [
        "--address",
        "--tenant",
        "--connection",
        "--link",
        "--timeout",
        "GITMOOR_ADDRESS",
        "GITMOOR_TENANT",
        "GITMOOR_CONNECTION",
        "GITMOOR_LINK",
        "useHttpPath",
        "Exit codes:",
    ] {
        assert!(help.contains(word), "{word} in {help}");
    }
    let two: [&[&str]; 3] = [
        &["--link", "a", "--connection", "b", "get"],
        &["--tenant", "a", "--connection", "b", "get"],
        &["--timeout", "0", "get"],
    ];
    for arguments in two {
        assert_eq!(run(arguments, &[]).await.0, 2, "{arguments:?}");
    }
    assert_eq!(run(&[], &[]).await.0, 2, "git always names an operation");
    let (exit, told) = run(&["get"], &[("GITMOOR_ADDRESS", "localhost")]).await;
    assert_eq!(exit, 3);
    assert!(told.contains("address (GITMOOR_ADDRESS): expected"), "{told}");
    assert_eq!(run(&["--address", "unix:none", "get"], &[("GITMOOR_ADDRESS", "localhost")]).await.0, 0);

    let (forge, app) = started().await;
    let created = app.create_in("acme", gitlab(&forge).connection("x")).await.expect("created");
    let row = app.stream(&created.name).await.expect("rows").swap_remove(0);
    let asks = question(&row.clone_https_url, "");
    let address = app.address.to_string();
    for (options, variables, answered) in [
        (&["--tenant", "acme"][..], &[][..], true),
        (&[], &[("GITMOOR_TENANT", "acme")], true),
        (&["--tenant", "other"], &[("GITMOOR_TENANT", "acme")], false),
        (&[], &[("GITMOOR_CONNECTION", created.name.as_str())], true),
        (&["--tenant", "other"], &[("GITMOOR_CONNECTION", created.name.as_str())], false),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gitmoor"))
            .arg("git-credential")
            .args(options)
            .arg("get")
            .env_clear()
            .env("GITMOOR_LISTEN", &address)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(asks.as_bytes()).await.expect("asked");
        drop(stdin);
        let told = stdout(&child.wait_with_output().await.expect("it ended"));
        assert_eq!(told.contains(gitlab_tokens::GOOD), answered, "{options:?} {variables:?}");
    }
}
