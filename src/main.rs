//! The `gitmoor` program: reads the command line, starts logs, calls the library, maps the outcome to an exit code.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use gitmoor::app;
use gitmoor::clock::{Clock as _, SystemClock};
use gitmoor::config::{Environment, Flags, ListenAddress, Loaded, ServeConfig};
use gitmoor::seal::{KeyFile, KeyFileError};
use gitmoor::store::{TrailReport, TrailsReport};
use gitmoor::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

mod cli;
mod dial;
mod git_credential;

use cli::{Audit, Cli, Command, Config, Exit, GitCredential, Healthcheck, Keys};
use git_credential::{Nothing, Question};

/// How long threads may take to end after the drain is over.
const AFTER_DRAIN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let hardened = harden();
    telemetry::install_panic_hook();
    #[expect(clippy::disallowed_methods, reason = "this is the home of environment reads")]
    let environment: Environment = std::env::vars_os().collect();
    match Cli::parse().command {
        Command::Serve(flags) => serve(&flags, &environment, hardened),
        Command::Keys(Keys::Init { key_file }) => keys_init(&key_file).into(),
        Command::Healthcheck(healthcheck) => check_health(&healthcheck, &environment).into(),
        Command::Audit(Audit::Verify { data_dir, key_file }) => audit_verify(&data_dir, &key_file),
        Command::GitCredential(wanted) => give_credential(&wanted, &environment).into(),
        Command::Config(Config::Print(flags)) => match load(&flags, &environment) {
            Ok(loaded) => print(&loaded).into(),
            Err(exit) => exit.into(),
        },
        Command::Config(Config::Check(flags)) => match load(&flags, &environment) {
            Ok(_) => print(&"the configuration is in order\n").into(),
            Err(exit) => exit.into(),
        },
        Command::Version => {
            let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
            print(&format_args!("gitmoor {} ({arch}-{os})\n", env!("CARGO_PKG_VERSION"))).into()
        }
    }
}

/// Runs the server until SIGTERM or SIGINT. What goes wrong from here on is told in the log.
fn serve(flags: &Flags, environment: &Environment, hardened: io::Result<()>) -> ExitCode {
    let Loaded { config, warnings, .. } = match Loaded::load(flags, environment) {
        Ok(loaded) => loaded,
        Err(error) => return complain(&error, Exit::Config).into(),
    };
    // Held to the end, so that the last lines are written.
    let _logs = match telemetry::start(config.log_format, &config.log_directives) {
        Ok(logs) => logs,
        Err(error) => return complain(&error, Exit::Failed).into(),
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = hardened {
        tracing::warn!(%error, "core files and debuggers could not be kept out of this process");
    }
    match run(config) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// An error with all its causes that say something new.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

/// Sets the process up for the server and runs it.
fn run(config: ServeConfig) -> Result<(), ServeError> {
    if config.dev {
        prepare_dev(&config)?;
    }
    // Fails only where one is installed already, and there is one provider in this program.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Unhandled, it would end the process; there is nothing to read again yet.
        let mut hangup = signal(SignalKind::hangup())?;
        let shutdown = async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = hangup.recv() => tracing::debug!("SIGHUP is ignored: the configuration is read at start"),
                }
            }
        };
        app::run(config, shutdown).await.map_err(ServeError::App)
    });
    // What still runs after the drain, such as a resolver on a thread of its own, does not hold up the end.
    runtime.shutdown_timeout(AFTER_DRAIN);
    outcome
}

/// Makes the data folder and the key file of an installation to try things out, where they are missing, and says so.
fn prepare_dev(config: &ServeConfig) -> Result<(), ServeError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .map_err(|source| ServeError::DataDir { path: config.data_dir.clone(), source })?;
    match KeyFile::create(&config.key_file, SystemClock.now()) {
        Ok(id) => tracing::warn!(key = id, file = %config.key_file.display(), "made a new key"),
        Err(KeyFileError::Exists { .. }) => {}
        Err(error) => return Err(ServeError::Key(error)),
    }
    tracing::warn!(
        data_dir = %config.data_dir.display(),
        key_file = %config.key_file.display(),
        "DEVELOPMENT MODE: the key lies beside the data that it seals. Do not store real tokens here",
    );
    Ok(())
}

/// Why the server did not start or ended early.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("cannot make the data folder {}: {source}", path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Key(KeyFileError),
    #[error("cannot start: {0}")]
    Process(#[from] io::Error),
    #[error(transparent)]
    App(app::Error),
}

impl ServeError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::DataDir { .. } => Exit::Store as u8,
            Self::Key(_) => Exit::Key as u8,
            Self::Process(_) => Exit::Failed as u8,
            Self::App(error) => error.exit_code(),
        }
    }
}

/// Keeps the memory of this process, which holds keys and tokens, out of core files and away from debuggers.
///
/// Returns what could not be done, to be logged: it is no reason not to do what was asked.
fn harden() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn load(flags: &Flags, environment: &Environment) -> Result<Loaded, Exit> {
    let loaded = Loaded::load(flags, environment).map_err(|error| complain(&error, Exit::Config))?;
    for warning in &loaded.warnings {
        tell(&format_args!("warning: {warning}"));
    }
    Ok(loaded)
}

fn keys_init(path: &Path) -> Exit {
    match KeyFile::create(path, SystemClock.now()) {
        Ok(id) => print(&format_args!(
            "Made {} with the key {id}. Keep a copy in a safe place, apart from the data.\n",
            path.display()
        )),
        Err(error) => complain(&error, Exit::Key),
    }
}

/// Checks the audit trails of a stopped server and prints a line for each tenant.
fn audit_verify(data_dir: &Path, key_file: &Path) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, Exit::Failed).into(),
    };
    let report = match runtime.block_on(app::check_trails(data_dir, key_file)) {
        Ok(report) => report,
        Err(error) => {
            tell(&chain(&error));
            return ExitCode::from(error.exit_code());
        }
    };
    let TrailsReport { tenants, problem } = report;
    let mut tampered = problem.is_some();
    let mut text = String::new();
    for TrailReport { tenant, events, first, unchained, problem } in tenants {
        let line = match problem {
            Some(problem) => {
                tampered = true;
                format!("tenant {tenant}: {problem} ({events} events before it are as they were written)")
            }
            None => format!("tenant {tenant}: {events} events, chain intact"),
        };
        text.push_str(&line);
        if first > 1 {
            text.push_str(&format!(", from event {first} on, older ones were let go"));
        }
        if unchained > 0 {
            text.push_str(&format!(", {unchained} of them older than the chain and proven by nothing"));
        }
        text.push('\n');
    }
    text.extend(problem.map(|problem| format!("all tenants: {problem}\n")));
    match print(&text) {
        Exit::Ok if tampered => Exit::Tampered.into(),
        exit => exit.into(),
    }
}

fn check_health(healthcheck: &Healthcheck, environment: &Environment) -> Exit {
    let address = match healthcheck.address.clone().map_or_else(|| dial::usual_address(environment), Ok) {
        Ok(address) => address,
        Err(problem) => return complain(&problem, Exit::Config),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, Exit::Failed),
    };
    let answer = runtime.block_on(async {
        // Made in here, because a timer needs the runtime around it.
        tokio::time::timeout(healthcheck.timeout(), serving_status(&address)).await
    });
    match answer {
        Ok(Ok(ServingStatus::Serving)) => print(&"serving\n"),
        Ok(Ok(_)) => complain(&"not serving", Exit::Failed),
        Ok(Err(problem)) => complain(&format_args!("{address}: {problem}"), Exit::Failed),
        Err(_) => complain(&format_args!("{address}: no answer in time"), Exit::Failed),
    }
}

/// Asks the gRPC health service of a server about the server as a whole.
async fn serving_status(address: &ListenAddress) -> Result<ServingStatus, String> {
    let answer = HealthClient::new(dial::dial(address).await?)
        .check(HealthCheckRequest::default())
        .await
        .map_err(|status| format!("the health service answered {}", status.code()))?;
    Ok(answer.into_inner().status())
}

/// Answers git, which ran this as its credential helper.
fn give_credential(wanted: &GitCredential, environment: &Environment) -> Exit {
    // What git has to say to a helper that stores credentials is not even read.
    if !wanted.is_get() {
        return Exit::Ok;
    }
    let ask = match wanted.ask(environment) {
        Ok(ask) => ask,
        Err(problem) => return complain(&problem, Exit::Config),
    };
    let question = match Question::read(io::stdin().lock()) {
        Ok(Some(question)) => question,
        Ok(None) => return Exit::Ok,
        Err(error) => return complain(&error, Exit::Failed),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, Exit::Failed),
    };
    match runtime.block_on(git_credential::answer(&ask, &question)) {
        Ok(lines) => hand_over(lines.as_bytes()),
        Err(Nothing::Unknown) => Exit::Ok,
        Err(Nothing::Unclear(told)) => complain(&told, Exit::Ok),
        Err(Nothing::Failed(told)) => complain(&told, Exit::Failed),
    }
}

/// Writes on stdout what holds a secret, past the buffer in which it would stay behind.
fn hand_over(lines: &[u8]) -> Exit {
    let written =
        io::stdout().as_fd().try_clone_to_owned().map(File::from).and_then(|mut out| out.write_all(lines));
    match written {
        Ok(()) => Exit::Ok,
        Err(error) => complain(&error, Exit::Failed),
    }
}

/// Prints on stdout. A reader that went away, as in `gitmoor config print | head -1`, is no failure.
fn print(text: &dyn Display) -> Exit {
    match write!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Ok,
    }
}

/// Prints on stderr why a command ends with `exit`.
fn complain(text: &dyn Display, exit: Exit) -> Exit {
    tell(text);
    exit
}

fn tell(text: &dyn Display) {
    // Where stderr is closed, the exit code has to do.
    let _ = writeln!(io::stderr().lock(), "gitmoor: {text}");
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn s15_no_core_file_and_no_debugger_gets_the_memory() {
        super::harden().expect("hardened");
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        #[cfg(target_os = "linux")]
        assert_eq!(
            rustix::process::dumpable_behavior().expect("asked"),
            rustix::process::DumpableBehavior::NotDumpable
        );
    }
}
