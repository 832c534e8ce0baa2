//! The URL of an instance: a text that was checked before anything repaired it.
//!
//! A URL parser repairs much silently: it drops tabs, trims spaces, maps full-width letters, turns one number
//! into an IPv4 address. So the text is checked first, then parsed, and what the parser made of it must be
//! what stood there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::address;
use super::violation::{FieldReason, Refusal};

/// The longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 2_048;

/// The URL of an instance as a caller wrote it, after the strict text check.
///
/// It is http or https, has no user name, query or fragment, and its host is a plain host name or a literal
/// address in its usual form. Whether it may be dialled is for the outbound policy to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    url: Url,
}

impl BaseUrl {
    /// Checks and parses what a caller wrote.
    ///
    /// # Errors
    ///
    /// `URL_TOO_LONG`, `URL_SCHEME_FORBIDDEN`, `URL_USERINFO_FORBIDDEN`, `URL_MALFORMED`, and
    /// `ENDPOINT_NOT_ALLOWED` for a hidden form of a special address, such as one number for 127.0.0.1.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let parts = Parts::split(text)?;
        let host = check_host(parts.host)?;
        check_port(parts.port)?;
        check_path(parts.path)?;
        let url = Url::parse(text).map_err(|_| malformed("the text is not a URL"))?;
        if url.as_str() != parts.canonical(&host) {
            return Err(malformed("the URL would change when it is parsed; write it in its plain form"));
        }
        Ok(Self { text: text.to_owned(), url })
    }

    /// The text as the caller wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parsed form: lower-case scheme and host, no default port.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::of(&self.url)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Scheme, host and port: what a token is bound to.
///
/// Two URLs of one origin have equal values, whatever letter case or default port they were written with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of `url`. A URL without a host has an empty one, and one without a known port has port 0;
    /// neither comes out of [`BaseUrl`].
    #[must_use]
    pub fn of(url: &Url) -> Self {
        Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
        }
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host in lower case; an IPv6 address in its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where the URL leaves it out.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match (self.scheme.as_str(), self.port) {
            ("https", 443) | ("http", 80) => Ok(()),
            (_, port) => write!(f, ":{port}"),
        }
    }
}

/// The pieces of a URL text, cut without changing anything.
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, Refusal> {
        if text.len() > MAX_URL_BYTES {
            return Err(Refusal::new(
                FieldReason::UrlTooLong,
                format!("a URL has at most {MAX_URL_BYTES} bytes"),
            ));
        }
        if text.is_empty() {
            return Err(malformed("the URL is empty; write it as https://git.example.com"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(malformed("a URL holds no spaces, control characters or backslashes"));
        }
        let (scheme, rest) = split_scheme(text)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(Refusal::new(
                FieldReason::UrlUserinfoForbidden,
                "a URL holds no user name and no password; the token has its own field",
            ));
        }
        if path.contains(['?', '#']) {
            return Err(malformed("the URL of an instance has no query (?) and no fragment (#)"));
        }
        let (host, port) = split_port(authority)?;
        Ok(Self { scheme, host, port, path })
    }

    /// What the parser must make of it: only letter case, a default port and an empty path may change.
    fn canonical(&self, host: &str) -> String {
        let scheme = self.scheme.to_ascii_lowercase();
        let default = if scheme == "https" { "443" } else { "80" };
        let port = match self.port {
            Some(port) if port != default => format!(":{port}"),
            _ => String::new(),
        };
        let path = if self.path.is_empty() { "/" } else { self.path };
        format!("{scheme}://{host}{port}{path}")
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), Refusal> {
    const HINT: &str = "write the whole URL, beginning with https://";
    let Some((scheme, rest)) = text.split_once(':') else { return Err(malformed(HINT)) };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if !is_scheme {
        return Err(malformed(HINT));
    }
    let is_web = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    match (is_web, rest.strip_prefix("//")) {
        (true, Some(rest)) => Ok((scheme, rest)),
        (true, None) => Err(malformed("two slashes follow the scheme: https://")),
        // `git.example.com:8443/x` is a host and a port, not a scheme.
        (false, None) if scheme.contains('.') || rest.starts_with(|c: char| c.is_ascii_digit()) => {
            Err(malformed(HINT))
        }
        (false, _) => Err(Refusal::new(
            FieldReason::UrlSchemeForbidden,
            "only https:// is accepted, and http:// towards an origin that the operator listed",
        )),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), Refusal> {
    let host_end = if authority.starts_with('[') {
        authority.find(']').ok_or_else(|| malformed("the bracket of the IPv6 address is not closed"))? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(host_end);
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(malformed("only a port may follow the host")),
    }
}

/// Checks the host and gives back its canonical form.
fn check_host(host: &str) -> Result<String, Refusal> {
    if host.is_empty() {
        return Err(malformed("the URL has no host; write it as https://git.example.com"));
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner
            .parse()
            .map_err(|_| malformed("what stands in the brackets is not an IPv6 address without a zone"))?;
        return Ok(Host::<&str>::Ipv6(address).to_string());
    }
    if !host.is_ascii() {
        return Err(match Host::parse(host) {
            Ok(Host::Domain(ascii)) => malformed(format!("write the host name in its ASCII form: {ascii}")),
            _ => malformed("the host name has characters that no host name has"),
        });
    }
    let lower = host.to_ascii_lowercase();
    if let Ok(address) = lower.parse::<Ipv4Addr>() {
        return Ok(address.to_string());
    }
    // What the parser takes for an IPv4 address in another notation, also behind a final dot.
    if let Ok(Host::Ipv4(address)) = Host::parse(&lower) {
        return Err(hidden_address(IpAddr::V4(address)));
    }
    if let Some(bare) = lower.strip_suffix('.') {
        let is_local = bare == "localhost" || bare.ends_with(".localhost");
        return Err(if is_local {
            Refusal::new(FieldReason::EndpointNotAllowed, "the host name means this machine")
        } else {
            malformed("a host name does not end with a dot")
        });
    }
    if lower.len() > 253 || !lower.split('.').all(is_label) {
        return Err(malformed(
            "a host name has labels of 1 to 63 letters, digits and hyphens, and at most 253 characters",
        ));
    }
    match Host::parse(&lower) {
        Ok(Host::Domain(parsed)) if parsed == lower => Ok(lower),
        _ => Err(malformed("the host is no valid host name")),
    }
}

fn hidden_address(address: IpAddr) -> Refusal {
    match address::classify(address) {
        Some(range) => Refusal::new(
            FieldReason::EndpointNotAllowed,
            format!("the host is another notation of an address that is {}", range.name),
        ),
        None => malformed("write an IPv4 address as four decimal numbers"),
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn check_port(port: Option<&str>) -> Result<(), Refusal> {
    let Some(port) = port else { return Ok(()) };
    let plain = !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
        && (port == "0" || !port.starts_with('0'));
    if plain && port.parse::<u16>().is_ok() {
        return Ok(());
    }
    Err(malformed("a port is a number from 0 to 65535"))
}

fn check_path(path: &str) -> Result<(), Refusal> {
    let trimmed = path.strip_prefix('/').unwrap_or(path);
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    if trimmed.is_empty() {
        return Ok(());
    }
    for segment in trimmed.split('/') {
        if segment.is_empty() {
            return Err(malformed("the path has an empty segment (//)"));
        }
        // Path characters of RFC 3986, with whole percent-encodings.
        let mut bytes = segment.bytes();
        while let Some(byte) = bytes.next() {
            let ok = match byte {
                b'%' => (0..2).all(|_| bytes.next().is_some_and(|b| b.is_ascii_hexdigit())),
                _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte),
            };
            if !ok {
                return Err(malformed("the path has a character that must be percent-encoded"));
            }
        }
        let decoded = percent_decode_str(segment)
            .decode_utf8()
            .map_err(|_| malformed("the path is not UTF-8 behind its percent-encoding"))?;
        if decoded == "." || decoded == ".." || decoded.chars().any(|c| c.is_control() || "/\\".contains(c)) {
            return Err(malformed("the path has a dot segment, or hides a slash or a control character"));
        }
    }
    Ok(())
}

fn malformed(description: impl Into<String>) -> Refusal {
    Refusal::new(FieldReason::UrlMalformed, description)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(text: &str) -> FieldReason {
        match BaseUrl::parse(text) {
            Ok(parsed) => panic!("{text:?} was accepted as {}", parsed.url()),
            Err(refusal) => refusal.reason,
        }
    }

    fn all(reason_wanted: FieldReason, texts: &[&str]) {
        for text in texts {
            assert_eq!(reason(text), reason_wanted, "{text:?}");
        }
    }

    #[test]
    fn u01_plain_http_is_a_url_and_left_to_the_policy() {
        assert!(BaseUrl::parse("http://git.corp.test").is_ok());
    }

    #[test]
    fn u03_u04_u06_u07_other_schemes_are_refused() {
        all(
            FieldReason::UrlSchemeForbidden,
            &[
                "file:///etc/passwd",
                "gopher://x:70/_",
                "unix:///run/x.sock",
                "data:text/plain,x",
                "javascript:alert(1)",
                "jar:https://x!/",
                "ssh://git.test/",
            ],
        );
    }

    #[test]
    fn u09_u10_user_information_is_refused() {
        all(
            FieldReason::UrlUserinfoForbidden,
            &["https://github.com@evil.test/", "https://github.com%2f@evil.test/", "https://a:b@c/"],
        );
    }

    #[test]
    fn u12_u13_fragment_and_query_are_refused() {
        all(
            FieldReason::UrlMalformed,
            &[
                "https://evil.test#@github.com/",
                "https://git.test/?x=1",
                "https://git.test?",
                "https://g.test/#",
            ],
        );
    }

    #[test]
    fn u15_u16_u18_nothing_is_silently_dropped() {
        all(
            FieldReason::UrlMalformed,
            &[
                "https://github.com%00.evil.test/",
                "https://gith\tub.com/",
                " https://github.com",
                "https://github.com ",
                "https://github.com\u{a0}",
                "https://git\u{ad}hub.com",
                "https://git.test\\@evil.test/",
            ],
        );
    }

    #[test]
    fn u19_u21_the_scheme_is_written_out() {
        all(
            FieldReason::UrlMalformed,
            &[
                "https:github.com",
                "https:/github.com",
                "https:///github.com",
                "//github.com",
                "github.com",
                "github.com:443/x",
                "localhost:8080",
                "git@ssh.dev.azure.com:v3/org/project/repo",
                "",
            ],
        );
        let refusal = BaseUrl::parse("github.com").expect_err("refused");
        assert!(refusal.description.contains("https://"), "{}", refusal.description);
    }

    #[test]
    fn u22_u24_ports_are_plain_numbers() {
        all(
            FieldReason::UrlMalformed,
            &[
                "https://git.test:65536/",
                "https://git.test:443:80/",
                "https://git.test:+80/",
                "https://git.test:/",
                "https://git.test:0443/",
                "https://[2606:4700::1]443/",
            ],
        );
        // Which ports may be used is for the policy.
        assert_eq!(BaseUrl::parse("https://git.test:0/").map(|url| url.origin().port()), Ok(0));
    }

    #[test]
    fn u25_u27_u28_u31_hidden_special_addresses_are_refused() {
        all(
            FieldReason::EndpointNotAllowed,
            &[
                "https://2130706433/",
                "https://0x7f000001/",
                "https://0x7f.1/",
                "https://017700000001/",
                "https://127.1/",
                "https://127.0.0.1./",
                "https://0/",
                "https://LOCALHOST./",
                "https://x.localhost./",
            ],
        );
        all(FieldReason::UrlMalformed, &["https://git.test./", "https://1.2.3.4./"]);
    }

    #[test]
    fn u30_u33_odd_ipv4_addresses_are_refused() {
        all(
            FieldReason::UrlMalformed,
            &["https://1.2.3/", "https://256.256.256.256/", "https://1.2.3.4.5/", "https://01.2.3.4/"],
        );
    }

    #[test]
    fn u34_u36_u37_literal_addresses_are_left_to_the_policy() {
        for text in
            ["https://[::1]/", "https://[::]/", "https://[::127.0.0.1]/", "https://[64:ff9b::7f00:1]/"]
        {
            assert!(BaseUrl::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn u39_a_zone_is_refused() {
        all(
            FieldReason::UrlMalformed,
            &["https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://[::1/"],
        );
    }

    #[test]
    fn u45_u46_u48_only_ascii_host_names() {
        all(
            FieldReason::UrlMalformed,
            &[
                "https://g\u{131}thub.com/",
                "https://gith\u{fc}b.com/",
                "https://\u{ff47}\u{ff49}\u{ff54}\u{ff48}\u{ff55}\u{ff42}.com/",
                "https://xn--example-.org/",
                "https://example.org.xn--/",
            ],
        );
        let refusal = BaseUrl::parse("https://gith\u{fc}b.com/").expect_err("refused");
        assert!(refusal.description.contains("xn--githb-nva.com"), "{}", refusal.description);
        assert!(BaseUrl::parse("https://xn--githb-nva.com/").is_ok());
    }

    #[test]
    fn u49_host_names_have_proper_labels() {
        let long_label = format!("https://{}.test/", "a".repeat(64));
        let long_host = format!("https://{}test/", "abcdefg.".repeat(32));
        all(
            FieldReason::UrlMalformed,
            &["https://a..b/", "https://-a.com/", "https://*.evil.test/", &long_label, &long_host],
        );
    }

    #[test]
    fn u51_no_line_break_in_any_form() {
        all(
            FieldReason::UrlMalformed,
            &[
                "https://git.test/\r\nX-Evil: 1",
                "https://git.test/%0d%0aX-Evil:1",
                "https://git.test/a%2fb",
                "https://git.test/../x",
                "https://git.test/%2e%2E/x",
                "https://git.test/%zz",
                "https://git.test/a//b",
                "https://git.test/<x>",
            ],
        );
    }

    #[test]
    fn u52_a_url_has_at_most_2048_bytes() {
        let text = |bytes: usize| format!("https://git.test/{}", "a".repeat(bytes - 17));
        assert!(BaseUrl::parse(&text(2_048)).is_ok());
        for bytes in [2_049, 8_192, 1 << 20] {
            assert_eq!(reason(&text(bytes)), FieldReason::UrlTooLong);
        }
    }

    #[test]
    fn u54_one_origin_has_one_form() {
        let parse = |text| BaseUrl::parse(text).expect("accepted");
        let (shouted, plain) = (parse("HTTPS://Git.Test:443/"), parse("https://git.test"));
        assert_eq!(shouted.as_str(), "HTTPS://Git.Test:443/");
        assert_eq!(shouted.url(), plain.url());
        assert_eq!(shouted.origin(), plain.origin());
        assert_eq!(plain.origin().to_string(), "https://git.test");
        assert_eq!(
            parse("https://[2606:4700:0::1]:8443/git").origin().to_string(),
            "https://[2606:4700::1]:8443"
        );
        assert_ne!(parse("https://git.test:8443").origin(), plain.origin());
        assert_ne!(parse("http://git.test").origin(), plain.origin());
        assert!(parse("https://git.test/tfs/Default%20Collection/").url().path().ends_with("%20Collection/"));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_as_it_was_written(text in "(?i:https?)://[ -~]{1,60}") {
            if let Ok(parsed) = BaseUrl::parse(&text) {
                let again = BaseUrl::parse(parsed.url().as_str()).expect("its canonical form is accepted");
                prop_assert_eq!(again.url(), parsed.url());
                prop_assert_eq!(parsed.as_str(), &text);
                prop_assert!(parsed.url().username().is_empty() && parsed.url().password().is_none());
                prop_assert!(parsed.url().query().is_none() && parsed.url().fragment().is_none());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}", tail in ".{0,20}") {
            let _ = BaseUrl::parse(&text);
            let _ = BaseUrl::parse(&format!("https://{text}{tail}"));
        }

        #[test]
        fn a_host_name_and_a_path_are_accepted(
            host in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]([a-z0-9]{0,10}))",
            port in 1_u16..,
            path in "(/[A-Za-z0-9_.~-]{1,10}x){0,3}/?",
        ) {
            let text = format!("https://{host}:{port}{path}");
            // Some labels that begin with `xn--` are no valid punycode.
            prop_assume!(!host.contains("xn--"));
            let parsed = BaseUrl::parse(&text).expect("accepted");
            let origin = parsed.origin();
            prop_assert_eq!(origin.port(), port);
            prop_assert_eq!(origin.host(), host);
        }
    }
}
