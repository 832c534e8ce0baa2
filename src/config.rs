//! The configuration of `gitmoor serve`: flag, then environment, then file, then default.
//!
//! Every problem is reported at once, so that one look at the output is enough. A problem names the key,
//! where it was set and what is expected; it never repeats the value. What can be printed implements
//! [`value::Setting`]; a type for secrets does not, so a secret cannot be printed by mistake. There is none
//! here anyway: keys live in a file of their own, and a flag or a variable for them does not exist.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::webhook_target::TargetRule;
use crate::outbound::AllowRule;

pub mod file;
mod resolve;
pub mod value;

use resolve::Resolver;
use value::{Bytes, Count, Level, Path, Span};
pub use value::{ListenAddress, LogFormat};

/// The folder that `--dev` uses when no other is given.
const DEV_DATA_DIR: &str = "gitmoor-dev";

/// The name of the key file that `--dev` makes in the data folder when no other is given.
const DEV_KEY_FILE: &str = "dev.key";

/// A day, in seconds.
const DAY: u64 = 86_400;

/// What starts the name of every variable that is read, except `RUST_LOG`.
const PREFIX: &str = "GITMOOR_";

/// All keys, in the order in which they are printed and documented.
pub const KEYS: &[&str] = &[
    "listen",
    "data_dir",
    "key_file",
    "egress_allow",
    "webhook_target_allow",
    "log_format",
    "log_level",
    "drain_timeout",
    "stream_timeout",
    "audit_retention",
    "request_retention",
    "max_concurrent_calls",
    "store_cache_bytes",
];

/// Keys that a file cannot hold: where the file is, and whether this is an installation to try things out.
const NOT_IN_FILE: &[&str] = &["config", "dev"];

/// The flags of `gitmoor serve`. All are texts here; they are read together with the other sources.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Read settings from this TOML file [env: GITMOOR_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,

    /// Try things out: makes ./gitmoor-dev and a key in it. Not for real tokens [env: GITMOOR_DEV]
    #[arg(long)]
    pub dev: bool,

    /// Where to accept calls: IP:PORT on loopback, or unix:PATH. Repeatable [env: GITMOOR_LISTEN, comma-separated]
    /// [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,

    /// The folder of the embedded store; required without --dev [env: GITMOOR_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,

    /// The key file, see `gitmoor keys init`; required without --dev [env: GITMOOR_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<String>,

    /// Admit calls to a Git server that is not public: HOST, HOST:PORT, a network such as 10.1.0.0/16, or
    /// http://HOST:PORT for plain text to exactly that origin. Repeatable [env: GITMOOR_EGRESS_ALLOW, comma-separated]
    #[arg(long, value_name = "RULE")]
    pub egress_allow: Vec<String>,

    /// Admit webhooks that deliver to this target: `https://HOST[:PORT][/PATH]`, or `http://HOST:PORT` for plain text to
    /// exactly that origin. Without one no webhook can be asked for. Repeatable
    /// [env: GITMOOR_WEBHOOK_TARGET_ALLOW, comma-separated]
    #[arg(long, value_name = "URL")]
    pub webhook_target_allow: Vec<String>,

    /// How log lines look, json or text [env: GITMOOR_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// The least severe log lines to write: off, error, warn, info, debug or trace. RUST_LOG wins
    /// [env: GITMOOR_LOG_LEVEL] [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// How long calls in flight may take to finish after SIGTERM [env: GITMOOR_DRAIN_TIMEOUT] [default: 15s]
    #[arg(long, value_name = "SPAN")]
    pub drain_timeout: Option<String>,

    /// How long one stream may last altogether [env: GITMOOR_STREAM_TIMEOUT] [default: 1h]
    #[arg(long, value_name = "SPAN")]
    pub stream_timeout: Option<String>,

    /// How long audit events are kept [env: GITMOOR_AUDIT_RETENTION] [default: 400d]
    #[arg(long, value_name = "SPAN")]
    pub audit_retention: Option<String>,

    /// How long the outcome of a request is remembered under its request_id [env: GITMOOR_REQUEST_RETENTION]
    /// [default: 24h]
    #[arg(long, value_name = "SPAN")]
    pub request_retention: Option<String>,

    /// How many calls are worked on at once; more are refused at once [env: GITMOOR_MAX_CONCURRENT_CALLS]
    /// [default: 1024]
    #[arg(long, value_name = "NUMBER")]
    pub max_concurrent_calls: Option<String>,

    /// How much memory the store may use as a cache [env: GITMOOR_STORE_CACHE_BYTES] [default: 32MiB]
    #[arg(long, value_name = "SIZE")]
    pub store_cache_bytes: Option<String>,
}

/// The variables of the environment that count. Passed in, so that tests set none.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    fn text(&self, name: &str) -> Option<Result<&str, NotText>> {
        // Empty means unset: it is what `VAR= command` and an empty line in a manifest are meant to say.
        self.0.get(name).filter(|value| !value.is_empty()).map(|value| value.to_str().ok_or(NotText))
    }

    /// The value of `GITMOOR_` and the key in capitals, if it is set and UTF-8.
    #[must_use]
    pub fn key(&self, key: &str) -> Option<&str> {
        self.text(&variable(key))?.ok()
    }
}

/// A variable that is not UTF-8.
#[derive(Debug, Clone, Copy)]
struct NotText;

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Self {
        let ours = |name: &String| name.starts_with(PREFIX) || name == "RUST_LOG";
        Self(
            variables
                .into_iter()
                .filter_map(|(name, value)| Some((name.into_string().ok().filter(ours)?, value)))
                .collect(),
        )
    }
}

/// What `gitmoor serve` runs with: complete and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeConfig {
    /// Whether this is an installation to try things out.
    pub dev: bool,
    /// Where to accept calls: at least one, none twice, TCP on loopback only.
    pub listen: Vec<ListenAddress>,
    /// The folder of the store. It may not exist yet.
    pub data_dir: PathBuf,
    /// The key file. It exists, unless it is the one that `dev` makes.
    pub key_file: PathBuf,
    /// What the outbound policy admits beyond public addresses.
    pub egress_allow: Vec<AllowRule>,
    /// Where webhooks may deliver to.
    pub webhook_target_allow: Vec<TargetRule>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written: directives as in `RUST_LOG`.
    pub log_directives: String,
    /// How long calls in flight may take to finish after the signal to end.
    pub drain_timeout: Duration,
    /// How long one stream may last altogether.
    pub stream_timeout: Duration,
    /// How long audit events are kept.
    pub audit_retention: Duration,
    /// How long the outcome of a request is remembered under its request id.
    pub request_retention: Duration,
    /// How many calls are worked on at once.
    pub max_concurrent_calls: usize,
    /// How much memory the store may use as a cache.
    pub store_cache_bytes: u64,
}

/// A configuration together with where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: ServeConfig,
    shown: Vec<Shown>,
    /// What looks like a mistake but may be none, such as a misspelt variable. To be logged.
    pub warnings: Vec<String>,
}

/// One line of `gitmoor config print`.
#[derive(Debug, Clone)]
struct Shown {
    key: &'static str,
    value: String,
    source: Source,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Flag(&'static str),
    Variable(String),
    File { path: PathBuf, line: usize },
    Dev,
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Dev => f.write_str("--dev"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Everything that is wrong with a configuration, one problem per line when printed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} problem{}:{}", .0.len(), if .0.len() == 1 { "" } else { "s" }, lines(.0))]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    /// The problems, one text each, without any value that was set.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.0
    }
}

fn lines(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}

impl Loaded {
    /// Puts flags, environment, the file that they name and the defaults together. Reads that file and nothing else.
    ///
    /// # Errors
    ///
    /// All problems of all sources at once.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        let mut resolver = Resolver::new(flags, environment);
        let config = resolver.serve_config();
        let warnings = resolver.unknown_variables();
        let (mut shown, problems) = resolver.finish();
        match config {
            Some(config) if problems.is_empty() => {
                shown.sort_by_key(|shown| KEYS.iter().position(|key| *key == shown.key));
                Ok(Self { config, shown, warnings })
            }
            _ => Err(ConfigError(problems)),
        }
    }
}

/// The values as a TOML file that gives the same configuration, each with its source as a comment.
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Shown { key, value, source } in &self.shown {
            // A path may hold a line break, and a comment ends with the line.
            let source = source.to_string().replace(char::is_control, "?");
            writeln!(f, "{key} = {value} # {source}")?;
        }
        Ok(())
    }
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase())
}

/// The name of `names` that was probably meant by `unknown`.
fn nearest<'a>(unknown: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Hyphens and capitals are the common slips, and no reason to find nothing.
    let unknown = unknown.to_ascii_lowercase().replace('-', "_");
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&unknown, name), name))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

impl Resolver<'_> {
    /// Reads every key. `None` if one of them has no value; the problems say which.
    fn serve_config(&mut self) -> Option<ServeConfig> {
        let dev = self.dev();
        let flags = self.flags;
        let loopback = ListenAddress::DEFAULT;
        let listen = self.list("listen", &flags.listen, vec![loopback]);
        self.check_listen(&listen);

        let data_dir = self.path(
            "data_dir",
            flags.data_dir.as_ref(),
            dev.then(|| DEV_DATA_DIR.into()),
            "--data-dir DIR",
        );
        let dev_key = data_dir.as_ref().filter(|_| dev).map(|dir| dir.join(DEV_KEY_FILE));
        let how = "--key-file FILE; `gitmoor keys init --key-file FILE` makes one";
        let key_file = self.path("key_file", flags.key_file.as_ref(), dev_key, how);

        let egress_allow = self.list("egress_allow", &flags.egress_allow, Vec::new());
        let webhook_target_allow = self.list("webhook_target_allow", &flags.webhook_target_allow, Vec::new());
        let log_format = self.one("log_format", flags.log_format.as_ref(), LogFormat::Text);
        let log_level = self.one("log_level", flags.log_level.as_ref(), Level::Info);
        let log_directives = self.log_directives(log_level);
        let drain_timeout = self.one("drain_timeout", flags.drain_timeout.as_ref(), Span::seconds(15));
        let stream_timeout = self.one("stream_timeout", flags.stream_timeout.as_ref(), Span::seconds(3_600));
        let audit = self.one("audit_retention", flags.audit_retention.as_ref(), Span::seconds(400 * DAY));
        let requests = self.one("request_retention", flags.request_retention.as_ref(), Span::seconds(DAY));
        let max_calls = self.one("max_concurrent_calls", flags.max_concurrent_calls.as_ref(), Count(1_024));
        let cache = self.one("store_cache_bytes", flags.store_cache_bytes.as_ref(), Bytes(32 << 20));

        self.check_range("drain_timeout", drain_timeout.0 <= Duration::from_secs(3_600), "at most 1h");
        let minute_to_day = Duration::from_secs(60)..=Duration::from_secs(DAY);
        let day_to_century = Duration::from_secs(DAY)..=Duration::from_secs(36_500 * DAY);
        let hour_to_year = Duration::from_secs(3_600)..=Duration::from_secs(365 * DAY);
        self.check_range("stream_timeout", minute_to_day.contains(&stream_timeout.0), "between 1m and 24h");
        self.check_range("audit_retention", day_to_century.contains(&audit.0), "between 1d and 36500d");
        self.check_range("request_retention", hour_to_year.contains(&requests.0), "between 60m and 365d");
        self.check_range(
            "max_concurrent_calls",
            (1..=1_000_000).contains(&max_calls.0),
            "between 1 and 1000000",
        );
        self.check_range(
            "store_cache_bytes",
            (1 << 20..=1 << 40).contains(&cache.0),
            "between 1MiB and 1024GiB",
        );

        Some(ServeConfig {
            dev,
            listen,
            data_dir: data_dir?,
            key_file: key_file?,
            egress_allow,
            webhook_target_allow,
            log_format,
            log_directives,
            drain_timeout: drain_timeout.0,
            stream_timeout: stream_timeout.0,
            audit_retention: audit.0,
            request_retention: requests.0,
            max_concurrent_calls: max_calls.0,
            store_cache_bytes: cache.0,
        })
    }

    /// A path that must be given, unless there is a default.
    fn path(
        &mut self,
        key: &'static str,
        flag: Option<&String>,
        default: Option<PathBuf>,
        how: &str,
    ) -> Option<PathBuf> {
        let path = self.optional::<Path>(key, flag, default.map(Path));
        if path.is_none() && !self.is_set(key) {
            self.problem(format!("{key} is required: give {how}, or try things out with --dev"));
        }
        path.map(|path| path.0)
    }

    /// The directives of the log filter: `RUST_LOG`, or the level with the libraries kept quiet.
    fn log_directives(&mut self, level: Level) -> String {
        let quiet = crate::telemetry::quiet_directives(level.as_str());
        match self.environment.text("RUST_LOG") {
            None => quiet,
            Some(Ok(text)) if crate::telemetry::is_filter(text) => {
                self.warn_if(self.is_set("log_level"), "log_level has no effect, because RUST_LOG is set");
                text.to_owned()
            }
            Some(_) => {
                self.problem(
                    "RUST_LOG must be log directives, such as info or gitmoor=debug,h2=warn".to_owned(),
                );
                quiet
            }
        }
    }

    fn check_listen(&mut self, addresses: &[ListenAddress]) {
        for (index, address) in addresses.iter().enumerate() {
            let entry = index + 1;
            if !address.is_private() {
                self.problem(format!(
                    "listen, entry {entry}: callers are not authenticated yet, so TCP is accepted on loopback only \
                     (127.0.0.1 or [::1]); for other machines put a proxy that authenticates in front, or use unix:PATH"
                ));
            }
            if addresses.iter().take(index).any(|other| other == address && !address.is_any_port()) {
                self.problem(format!("listen, entry {entry}: it is there twice"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
