//! The types of settings: how each is written, and how it is shown.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::webhook_target::TargetRule;
use crate::outbound::AllowRule;

/// The longest path of a Unix socket on Linux, without the closing NUL.
const MAX_SOCKET_PATH: usize = 107;

/// A value that can be written in a file, a variable or a flag, and that may be shown. Never implemented for a secret.
pub trait Setting: Clone {
    /// What is expected, for a problem: "expected ...".
    const EXPECTED: &'static str;

    /// Whether a file may give it as a bare number too.
    const NUMBER: bool = false;

    /// Reads it; `None` if the text is none.
    fn parse(text: &str) -> Option<Self>;

    /// Writes it as a TOML value that reads back as the same.
    fn show(&self) -> String;
}

fn quoted(text: impl Into<String>) -> String {
    toml::Value::String(text.into()).to_string()
}

/// Where calls are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A TCP socket. Port 0 lets the operating system choose.
    Tcp(SocketAddr),
    /// A Unix socket at that path.
    Unix(PathBuf),
}

impl ListenAddress {
    /// `127.0.0.1:50051`.
    pub const DEFAULT: Self = Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_051));

    /// Whether only this machine can reach it.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether the operating system chooses the port, so that the same text twice means two sockets.
    pub(super) const fn is_any_port(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.port() == 0)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Setting for ListenAddress {
    const EXPECTED: &'static str =
        "an address and a port such as 127.0.0.1:50051, or unix:PATH with a path of at most 107 bytes";

    fn parse(text: &str) -> Option<Self> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().ok().map(Self::Tcp);
        };
        // unix:///path is the other common way to write unix:/path.
        let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
        let is_path = (1..=MAX_SOCKET_PATH).contains(&path.len()) && !path.contains('\0');
        is_path.then(|| Self::Unix(path.into()))
    }

    fn show(&self) -> String {
        quoted(self.to_string())
    }
}

/// A path of a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(pub(super) PathBuf);

impl Setting for Path {
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && !text.contains('\0')).then(|| Self(text.into()))
    }

    fn show(&self) -> String {
        quoted(self.0.to_string_lossy())
    }
}

impl Setting for AllowRule {
    const EXPECTED: &'static str =
        "HOST, HOST:PORT, a network such as 10.1.0.0/16, or http://HOST:PORT for plain text";

    fn parse(text: &str) -> Option<Self> {
        // Its error would quote the text.
        Self::parse(text).ok()
    }

    fn show(&self) -> String {
        quoted(self.to_string())
    }
}

impl Setting for TargetRule {
    const EXPECTED: &'static str =
        "https://HOST, with a port and a path if wanted, or http://HOST:PORT for plain text";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn show(&self) -> String {
        quoted(self.to_string())
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

impl Setting for LogFormat {
    const EXPECTED: &'static str = "json or text";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "json" => Some(Self::Json),
            "text" => Some(Self::Text),
            _ => None,
        }
    }

    fn show(&self) -> String {
        quoted(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// The least severe log lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    const ALL: [Self; 6] = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Setting for Level {
    const EXPECTED: &'static str = "off, error, warn, info, debug or trace";

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    fn show(&self) -> String {
        quoted(self.as_str())
    }
}

/// A span of time, as in `15s`, `500ms`, `2m`, `1h`, `400d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    const UNITS: [(&'static str, u64); 5] =
        [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl Setting for Span {
    const EXPECTED: &'static str = "a whole number with a unit (ms, s, m, h or d), such as 15s";

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let (_, millis) = Self::UNITS.into_iter().find(|(name, _)| *name == unit)?;
        number.checked_mul(millis).map(Duration::from_millis).map(Self)
    }

    fn show(&self) -> String {
        let millis = self.0.as_millis();
        let exact = Self::UNITS.into_iter().rev().find(|(_, unit)| millis.is_multiple_of(u128::from(*unit)));
        let (name, unit) = exact.filter(|_| millis > 0).unwrap_or(("ms", 1));
        quoted(format!("{}{name}", millis / u128::from(unit)))
    }
}

/// A number of bytes, as in `32MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

impl Bytes {
    const UNITS: [(&'static str, u64); 4] = [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
}

impl Setting for Bytes {
    const EXPECTED: &'static str =
        "a whole number of bytes, or one with a unit (KiB, MiB or GiB), such as 32MiB";
    const NUMBER: bool = true;

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let (_, bytes) = Self::UNITS.into_iter().find(|(name, _)| *name == unit)?;
        number.checked_mul(bytes).map(Self)
    }

    fn show(&self) -> String {
        let exact = Self::UNITS.into_iter().rev().find(|(_, unit)| self.0.is_multiple_of(*unit));
        let (name, unit) = exact.filter(|_| self.0 > 0).unwrap_or(("", 1));
        quoted(format!("{}{name}", self.0 / unit))
    }
}

/// A whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) usize);

impl Setting for Count {
    const EXPECTED: &'static str = "a whole number";
    const NUMBER: bool = true;

    fn parse(text: &str) -> Option<Self> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten().map(Self)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reads_back<T: Setting + PartialEq + fmt::Debug>(value: &T) {
        let shown = value.show();
        let table: toml::Table = format!("key = {shown}").parse().expect("TOML");
        let text = match &table["key"] {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(T::parse(&text).as_ref(), Some(value), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(number in 0..u64::MAX >> 20, path in "\\PC{1,50}") {
            reads_back(&Span(Duration::from_millis(number)));
            reads_back(&Bytes(number));
            reads_back(&Count(usize::try_from(number).expect("64 bits")));
            reads_back(&Path(path.into()));
        }

        #[test]
        fn no_text_makes_them_panic(text in "\\PC{0,30}") {
            let _ = (Span::parse(&text), Bytes::parse(&text), Count::parse(&text), ListenAddress::parse(&text));
        }
    }

    #[test]
    fn spans_and_sizes_have_units() {
        assert_eq!(Span::parse("15s"), Some(Span::seconds(15)));
        assert_eq!(Span::parse("2m"), Some(Span::seconds(120)));
        assert_eq!(Span::parse("400d"), Some(Span::seconds(400 * 86_400)));
        for bad in
            ["", "s", "15", "-1s", "1.5s", "15 s", "15S", "99999999999999999999s", "18446744073709551615h"]
        {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
        assert_eq!(Bytes::parse("32MiB"), Some(Bytes(32 << 20)));
        assert_eq!(Bytes::parse("4096"), Some(Bytes(4_096)));
        for bad in ["", "32MB", "MiB", "1e6", "18446744073709551615GiB"] {
            assert_eq!(Bytes::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_is_tcp_or_a_unix_socket() {
        let unix = |path: &str| Some(ListenAddress::Unix(path.into()));
        assert_eq!(ListenAddress::parse("unix:/run/g.sock"), unix("/run/g.sock"));
        assert_eq!(ListenAddress::parse("unix:///run/g.sock"), unix("/run/g.sock"));
        assert_eq!(ListenAddress::parse("unix:g.sock"), unix("g.sock"));
        for bad in
            ["", "unix:", "localhost:50051", "127.0.0.1", ":50051", "http://127.0.0.1:1", "127.0.0.1:65536"]
        {
            assert_eq!(ListenAddress::parse(bad), None, "{bad}");
        }
        assert_eq!(ListenAddress::parse(&format!("unix:/{}", "x".repeat(107))), None);
        for address in ["127.0.0.1:0", "127.8.8.8:1", "[::1]:50051", "[::ffff:127.0.0.1]:1", "unix:/x"] {
            assert!(ListenAddress::parse(address).expect("parses").is_private(), "{address}");
        }
        for address in ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "[::ffff:10.0.0.1]:1", "8.8.8.8:1"] {
            assert!(!ListenAddress::parse(address).expect("parses").is_private(), "{address}");
        }
    }
}
