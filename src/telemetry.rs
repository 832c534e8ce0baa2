//! Log lines: on stderr, one per event, written off the request path.
//!
//! An event is formatted where it happens and put in a bounded queue; a thread of its own writes it. When the
//! reader of stderr is too slow, lines are dropped instead of calls delayed, and their number is told as soon
//! as there is room.
//!
//! Two filters decide what is written. The operator's ([`quiet_directives`] or `RUST_LOG`) can be as talkative
//! as they like with this program's own modules. A fixed one stands above it: the libraries that see requests
//! and headers in clear stay below the level at which they might print them, whatever `RUST_LOG` says.

use std::io::{self, BufWriter, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

use crate::config::LogFormat;

/// How many lines may wait to be written; at about 300 bytes each, below 3 MB.
const QUEUE_LINES: usize = 8_192;

/// How long the writing thread lets lines gather after it wrote what there was.
const GATHER: Duration = Duration::from_millis(5);

/// Libraries that are chatty at `info` or `debug` and say little about this program.
const CHATTY: &[&str] = &[
    "h2",
    "hickory_net",
    "hickory_proto",
    "hickory_resolver",
    "hyper",
    "hyper_util",
    "reqwest",
    "sled",
    "tonic",
    "tower",
];

/// Libraries through which requests, headers or records pass in clear. Never below `debug`.
const CAPPED: &[&str] =
    &["h2", "hyper", "hyper_util", "reqwest", "rustls", "sled", "tokio_rustls", "tonic", "tower"];

/// Keeps the writing thread alive. When it is dropped, what waits is written, for about a second at most.
#[derive(Debug)]
#[must_use = "log lines are lost once this is dropped"]
pub struct Logs {
    _guard: WorkerGuard,
}

/// Why logs could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives do not parse. The configuration checks them first.
    #[error("the log filter does not parse")]
    Filter,
    /// They were started before; there is one set per process.
    #[error("logs were started twice")]
    Twice(#[from] TryInitError),
}

/// Starts the logs of the process. `directives` as in `RUST_LOG`.
///
/// # Errors
///
/// [`TelemetryError`].
pub fn start(format: LogFormat, directives: &str) -> Result<Logs, TelemetryError> {
    let (writer, guard) = queue(BufWriter::with_capacity(64 << 10, io::stderr()), format, QUEUE_LINES);
    let filter = EnvFilter::try_new(directives).map_err(|_| TelemetryError::Filter)?;
    let lines = match format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(move || writer.clone())
            .boxed(),
        LogFormat::Text => fmt::layer().with_ansi(false).with_writer(move || OneLine(writer.clone())).boxed(),
    };
    tracing_subscriber::registry().with(cap()).with(filter).with(lines).try_init()?;
    Ok(Logs { _guard: guard })
}

/// The directives for a level without `RUST_LOG`: this program at that level, chatty libraries at `warn` at most.
#[must_use]
pub fn quiet_directives(level: &str) -> String {
    match level {
        "off" | "error" | "warn" => level.to_owned(),
        _ => CHATTY.iter().fold(level.to_owned(), |directives, library| directives + "," + library + "=warn"),
    }
}

/// Whether a text is a list of log directives.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}

/// Replaces the message of a panic by one line in the log. The message is only kept where it is part of the
/// program text: one that was put together at run time may hold anything, such as a token.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic_text(panic);
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if tracing::dispatcher::has_been_set() {
            tracing::error!(place, "panic: {message}");
        } else {
            // A panic must not panic again because stderr is closed.
            let _ = writeln!(io::stderr(), "panic at {place}: {message}");
        }
    }));
}

fn panic_text(panic: &PanicHookInfo<'_>) -> &'static str {
    panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(the message is withheld)")
}

fn cap() -> Targets {
    Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_targets(CAPPED.iter().map(|library| (*library, LevelFilter::DEBUG)))
}

/// A writer into a bounded queue in front of `out`. It never waits.
fn queue<W: Write + Send + 'static>(out: W, format: LogFormat, lines: usize) -> (NonBlocking, WorkerGuard) {
    let dropped = Arc::new(OnceLock::new());
    let output = Output { out, dropped: Arc::clone(&dropped), told: 0, format };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(lines)
        .thread_name("logs")
        .finish(output);
    // Cannot be set already: this is the only place that sets it.
    let _ = dropped.set(writer.error_counter());
    (writer, guard)
}

/// The end of the queue, on the thread that writes: tells how many lines were dropped before the next one.
struct Output<W> {
    out: W,
    dropped: Arc<OnceLock<ErrorCounter>>,
    told: usize,
    format: LogFormat,
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let dropped = self.dropped.get().map_or(0, ErrorCounter::dropped_lines);
        if dropped > self.told {
            let count = dropped - self.told;
            match self.format {
                LogFormat::Json => writeln!(
                    self.out,
                    r#"{{"level":"WARN","message":"log lines were dropped","count":{count},"target":"gitmoor::telemetry"}}"#
                ),
                LogFormat::Text => {
                    writeln!(self.out, "WARN gitmoor::telemetry: log lines were dropped count={count}")
                }
            }?;
            self.told = dropped;
        }
        self.out.write_all(line)?;
        Ok(line.len())
    }

    /// Called when the queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        // Lines that come within this time find nobody to wake, and are written together: under load, a wake-up
        // and a write for each line cost more than everything else about it.
        std::thread::sleep(GATHER);
        Ok(())
    }
}

/// Keeps an event in text form on one line: what a caller or a provider sent can neither forge a line nor steer a
/// terminal. (JSON does that by itself.)
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // The subscriber hands over one whole event with its line end.
        let text = String::from_utf8_lossy(event.strip_suffix(b"\n").unwrap_or(event));
        if text.contains(char::is_control) {
            let mut line = String::with_capacity(text.len() + 16);
            for letter in text.chars() {
                if letter.is_control() {
                    line.extend(letter.escape_default());
                } else {
                    line.push(letter);
                }
            }
            line.push('\n');
            self.0.write_all(line.as_bytes())?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    #[test]
    fn an_event_stays_on_one_line_and_steers_no_terminal() {
        let mut out = Vec::new();
        OneLine(&mut out).write_all(b"INFO a\nFORGED \x1b[31mred\x07 \xc2\x9b\ttab\r\n").expect("written");
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "INFO a\\nFORGED \\u{1b}[31mred\\u{7} \\u{9b}\\ttab\\r\n"
        );
        let mut out = Vec::new();
        OneLine(&mut out).write_all("INFO grün\n".as_bytes()).expect("written");
        assert_eq!(out, "INFO grün\n".as_bytes());
    }

    /// Blocks in its first write until told to go on.
    struct Slow {
        started: SyncSender<()>,
        go_on: Option<Receiver<()>>,
        out: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(go_on) = self.go_on.take() {
                self.started.send(()).expect("the test listens");
                go_on.recv().expect("the test answers");
            }
            self.out.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_reader_costs_lines_and_not_time_and_the_loss_is_told() {
        let (started, has_started) = sync_channel(1);
        let (go, go_on) = sync_channel(1);
        let out = Arc::new(Mutex::new(Vec::new()));
        let slow = Slow { started, go_on: Some(go_on), out: Arc::clone(&out) };
        let (mut writer, guard) = queue(slow, LogFormat::Text, 2);
        writer.write_all(b"first\n").expect("queued");
        has_started.recv().expect("the thread writes");
        for line in [b"a\n", b"b\n", b"c\n", b"d\n"] {
            writer.write_all(line).expect("never waits");
        }
        go.send(()).expect("the thread waits");
        drop(writer);
        drop(guard);
        let out = String::from_utf8(out.lock().expect("lock").clone()).expect("UTF-8");
        assert_eq!(out, "first\nWARN gitmoor::telemetry: log lines were dropped count=2\na\nb\n");
    }

    #[test]
    fn s13_libraries_that_see_secrets_never_log_at_trace() {
        for library in CAPPED {
            assert!(!cap().would_enable(library, &tracing::Level::TRACE), "{library}");
            assert!(!cap().would_enable(&format!("{library}::inner"), &tracing::Level::TRACE), "{library}");
        }
        assert!(cap().would_enable("gitmoor::service", &tracing::Level::TRACE));
    }

    #[test]
    fn every_level_is_a_filter() {
        for level in ["off", "error", "warn", "info", "debug", "trace"] {
            assert!(is_filter(&quiet_directives(level)), "{level}");
        }
        assert!(!is_filter("gitmoor=loud"));
    }
}
