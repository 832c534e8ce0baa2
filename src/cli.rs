//! The command line: what can be asked, and what each exit code means.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use gitmoor::config::value::Setting as _;
use gitmoor::config::{Environment, Flags, ListenAddress};

use crate::dial::usual_address;
use crate::git_credential::{Ask, Through};

/// Self-hosted connection service between a platform and its Git hosts.
#[derive(Debug, Parser)]
#[command(name = "gitmoor", disable_version_flag = true, after_long_help = EXIT_CODES, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the gRPC API
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<Flags>),
    /// Make key files
    #[command(subcommand)]
    Keys(Keys),
    /// Ask a running server whether it is ready: exit code 0 if it is, 1 if not
    #[command(after_help = HEALTHCHECK_EXAMPLES)]
    Healthcheck(Healthcheck),
    /// Look at the audit trail
    #[command(subcommand)]
    Audit(Audit),
    /// Give git the credential for a repository: a credential helper of git
    #[command(after_help = GIT_CREDENTIAL_EXAMPLES, after_long_help = GIT_CREDENTIAL_HELP)]
    GitCredential(GitCredential),
    /// Look at the configuration that `serve` would run with
    #[command(subcommand)]
    Config(Config),
    /// Print the version
    Version,
}

/// What can be done about keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key file with one new key, mode 0600. An existing file is never changed
    #[command(after_help = "Example:\n  gitmoor keys init --key-file /etc/gitmoor/gitmoor.key")]
    Init {
        /// The file to make. Keep a copy apart from the data: without the key the stored tokens are lost
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
}

/// What can be asked about the audit trail.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Check that every audit event is what was written, in its place: exit code 0 if so, 7 if not
    #[command(after_help = AUDIT_VERIFY_NOTES)]
    Verify {
        /// The folder of the embedded store, of a server that is stopped
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,

        /// The key file of the server
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
}

/// Whom to ask, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Healthcheck {
    /// Where the server listens: IP:PORT or unix:PATH [default: the first of GITMOOR_LISTEN, or 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    pub(crate) address: Option<ListenAddress>,

    /// How many seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

impl Healthcheck {
    /// How long to wait for the answer.
    pub(crate) const fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// Whom git's question is passed to.
#[derive(Debug, Args)]
pub(crate) struct GitCredential {
    /// Where the server listens: IP:PORT or unix:PATH [env: GITMOOR_ADDRESS] [default: the first of GITMOOR_LISTEN, or
    /// 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    address: Option<ListenAddress>,

    /// Whose connections are looked through [env: GITMOOR_TENANT] [default: default]
    #[arg(long, value_name = "TENANT", conflicts_with_all = ["connection", "link"])]
    tenant: Option<String>,

    /// Use this connection and no other: tenants/TENANT/connections/CONNECTION [env: GITMOOR_CONNECTION]
    #[arg(long, value_name = "NAME", conflicts_with = "link")]
    connection: Option<String>,

    /// Clone through this link: tenants/TENANT/repositoryLinks/LINK [env: GITMOOR_LINK]
    #[arg(long, value_name = "NAME")]
    link: Option<String>,

    /// How many seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,

    /// What git wants, which it puts last: get. Nothing is done for store, erase and whatever else there may be
    operation: String,
}

impl GitCredential {
    /// Whether there is something to be answered.
    pub(crate) fn is_get(&self) -> bool {
        self.operation == "get"
    }

    /// What is asked of the server: flags, then variables. A flag about the repository wins over all variables about it.
    ///
    /// # Errors
    ///
    /// A variable that is no address.
    pub(crate) fn ask(&self, environment: &Environment) -> Result<Ask, String> {
        let address = match (&self.address, environment.key("address")) {
            (Some(address), _) => address.clone(),
            (None, Some(text)) => {
                listen_address(text).map_err(|problem| format!("address (GITMOOR_ADDRESS): {problem}"))?
            }
            (None, None) => usual_address(environment)?,
        };
        let variable = |key| environment.key(key).map(str::to_owned);
        let through = |link: Option<String>, connection: Option<String>, tenant: Option<String>| {
            let link = link.map(Through::Link);
            link.or_else(|| connection.map(Through::Connection)).or_else(|| tenant.map(Through::Tenant))
        };
        let through = through(self.link.clone(), self.connection.clone(), self.tenant.clone())
            .or_else(|| through(variable("link"), variable("connection"), variable("tenant")))
            .unwrap_or_else(|| Through::Tenant("default".to_owned()));
        Ok(Ask { address, through, timeout: Duration::from_secs(self.timeout) })
    }
}

fn listen_address(text: &str) -> Result<ListenAddress, String> {
    ListenAddress::parse(text).ok_or_else(|| format!("expected {}", ListenAddress::EXPECTED))
}

/// What can be asked about the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print the values in effect and where each came from, as a configuration file
    #[command(after_help = "Example:\n  gitmoor config print --config /etc/gitmoor/config.toml")]
    Print(Box<Flags>),
    /// Tell all mistakes at once: exit code 0 if there is none, 3 otherwise
    #[command(after_help = "Example:\n  gitmoor config check --config /etc/gitmoor/config.toml")]
    Check(Box<Flags>),
}

/// How the process ends when nothing went wrong, or with a reason that a script can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; for `serve`: ended by a signal, also where the drain had to be cut short.
    Ok = 0,
    /// `healthcheck`: not serving. Anything else: an error that has no code of its own.
    Failed = 1,
    /// The configuration.
    Config = 3,
    /// The key file.
    Key = 4,
    /// The store.
    Store = 5,
    /// `audit verify`: an audit trail is not what was written.
    Tampered = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for serve: ended by a signal
  1  healthcheck: not serving; otherwise an unexpected error
  2  a mistake on the command line
  3  a mistake in the configuration
  4  the key file is missing, unsafe, damaged, or not the one of this store
  5  the store is in use by another process, damaged, or the disk refuses
  6  cannot listen at an address
  7  audit verify: an audit trail is not what was written

Tokens and keys are never given on the command line: keys are in the key file, tokens come in with calls.";

const SERVE_EXAMPLES: &str = "\
Examples:
  gitmoor serve --dev
  gitmoor serve --data-dir /var/lib/gitmoor --key-file /etc/gitmoor/gitmoor.key
  gitmoor serve --config /etc/gitmoor/config.toml --listen unix:/run/gitmoor/gitmoor.sock
  gitmoor serve --dev --egress-allow http://127.0.0.1:9001

A flag wins over its variable, which wins over the file. See deploy/config.example.toml.";

const AUDIT_VERIFY_NOTES: &str = "\
Names for each tenant the first event that was edited, moved, put in or taken away, at the end of the trail too.
Events that the retention let go are not missed. What it cannot notice: that the whole store was replaced by an older
copy of itself, or a tenant's whole trail by its own rows of before; compare the numbers with those of the last time.

Example:
  gitmoor audit verify --data-dir /var/lib/gitmoor --key-file /etc/gitmoor/gitmoor.key";

const GIT_CREDENTIAL_EXAMPLES: &str = "\
Example:
  git config --global credential.https://git.example.useHttpPath true
  git config --global credential.https://git.example.helper '/usr/local/bin/gitmoor git-credential'
  git clone https://git.example/group/project.git

See gitmoor git-credential --help.";

const GIT_CREDENTIAL_HELP: &str = "\
Git asks on stdin and reads the answer from stdout, as gitcredentials(7) says. Set up git once for each host:

  git config --global credential.https://git.example.useHttpPath true
  git config --global credential.https://git.example.helper ''
  git config --global --add credential.https://git.example.helper '/usr/local/bin/gitmoor git-credential'
  git clone https://git.example/group/project.git

useHttpPath lets git say which repository it wants: it is found by its clone URL, and the credential is that of the
tenant's link to it, or of the only connection that sees it. Among several none is chosen: name one with --connection,
or the link with --link, for a host or for one repository:

  git config --global credential.https://git.example/group/project.git.helper \
    '/usr/local/bin/gitmoor git-credential --link tenants/default/repositoryLinks/project'

The empty helper takes the other helpers of that host out: they would store the credential. Nothing is stored by this
one, and no secret is in an argument, a file or a log. Git of version 2.46 and above gets a Bearer token where the
server wants one. A server with a certificate of its own needs http.https://git.example.sslCAInfo as well. Over http://
a credential is given for the very origin that the connection has, and for no other.

Exit codes:
  0  git was answered, or there is nothing to answer: git asks its next helper, or the person
  1  the server cannot be reached, or refuses; stderr tells why
  2  a mistake on the command line
  3  a mistake in a variable";

const HEALTHCHECK_EXAMPLES: &str = "\
Examples:
  gitmoor healthcheck
  gitmoor healthcheck --address unix:/run/gitmoor/gitmoor.sock";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn s19_no_flag_takes_a_secret() {
        fn walk(command: &clap::Command, flags: &mut Vec<String>) {
            flags.extend(command.get_arguments().filter_map(clap::Arg::get_long).map(str::to_owned));
            command.get_subcommands().for_each(|command| walk(command, flags));
        }
        let mut flags = Vec::new();
        walk(&Cli::command(), &mut flags);
        assert!(flags.contains(&"key-file".to_owned()));
        for flag in flags.iter().filter(|flag| !flag.ends_with("-file")) {
            for word in ["token", "secret", "password", "key", "credential"] {
                assert!(!flag.contains(word), "--{flag}");
            }
        }
    }

    #[test]
    fn every_configuration_key_is_a_flag_of_serve() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").expect("serve");
        for key in gitmoor::config::KEYS {
            let flag = key.replace('_', "-");
            assert!(serve.get_arguments().any(|argument| argument.get_long() == Some(&flag)), "{key}");
        }
    }
}
