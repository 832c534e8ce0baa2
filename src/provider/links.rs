//! Links that a provider shows: cleaned before they are given on, and compared with the endpoint.

use percent_encoding::percent_decode_str;
use url::Url;

use super::ProviderError;
use crate::domain::violation::{FieldReason, Refusal};

/// A link for a browser or for git over HTTP(S), without user info; empty if it is none.
pub(crate) fn web_link(text: &str) -> String {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return String::new();
    }
    if plain_host(text).is_some() {
        return text.to_owned();
    }
    match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => String::new(),
        Ok(url) if url.username().is_empty() && url.password().is_none() => text.to_owned(),
        Ok(mut url) => match (url.set_username(""), url.set_password(None)) {
            (Ok(()), Ok(())) => url.into(),
            _ => String::new(),
        },
        Err(_) => String::new(),
    }
}

/// An SSH URL in either form, without a password; empty if it is none. Its user stays: git needs it.
pub(crate) fn ssh_link(text: &str) -> String {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) || text.starts_with('-') {
        return String::new();
    }
    if text.contains("://") {
        return match Url::parse(text) {
            Ok(url) if url.scheme() != "ssh" => String::new(),
            Ok(url) if url.password().is_none() => text.to_owned(),
            Ok(mut url) => url.set_password(None).map_or_else(|()| String::new(), |()| url.into()),
            Err(_) => String::new(),
        };
    }
    // `transport::address` has git run a program of that name.
    let is_scp = text.split_once(':').is_some_and(|(before, path)| {
        let host = before.rsplit_once('@').map_or(before, |(_, host)| host);
        let is_helper = path.starts_with(':') && !host.starts_with('[');
        !host.is_empty() && !host.starts_with('-') && !host.contains('/') && !is_helper
    });
    if is_scp { text.to_owned() } else { String::new() }
}

/// Whether a clone URL names another host than the endpoint at `api`.
pub(crate) fn is_foreign(clone_url: &str, api: &Url) -> bool {
    let own = api.host_str().map(str::to_ascii_lowercase);
    if let Some(host) = plain_host(clone_url) {
        return Some(host) != own.as_deref();
    }
    host(clone_url).is_some_and(|host| Some(host) != own)
}

/// The host that a URL of any form names, in lower case; `None` for a text that is no URL.
pub(crate) fn host(text: &str) -> Option<String> {
    CloneUrl::parse(text).ok().map(|url| url.site.host)
}

/// The host of a web URL that needs no parser to be known as one without user info: each row of a listing has several,
/// and nearly all of them look like this. `None` is for everything else.
fn plain_host(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let (authority, _) = rest.split_once('/')?;
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_label = |label: &str| {
        let plain = label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        !label.is_empty() && plain && !label.starts_with("xn--")
    };
    // A last label that begins with a digit could be a part of an address, in one of its many forms.
    let is_name = host.split('.').all(is_label)
        && host.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_lowercase()));
    let is_host = is_name || host.parse::<std::net::Ipv4Addr>().is_ok();
    (is_host && port.is_none_or(is_port)).then_some(host)
}

/// Whether a host is the machine itself.
pub(crate) fn is_local(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || host.starts_with("127.") || host == "[::1]"
}

/// The host and the port of a URL, as far as they tell one web server from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Site {
    host: String,
    /// `None` for SSH, whose port says nothing about the web server.
    port: Option<u16>,
}

impl Site {
    fn of(url: &Url) -> Option<Self> {
        let host = url.host_str()?.to_ascii_lowercase();
        let web = matches!(url.scheme(), "http" | "https");
        let port = if web { url.port_or_known_default() } else { None };
        Some(Self { host, port })
    }

    /// Whether both can be the same machine: the same host, and the same port where both name one.
    fn fits(&self, other: &Self) -> bool {
        self.host == other.host && (self.port.is_none() || other.port.is_none() || self.port == other.port)
    }
}

/// What a clone URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CloneUrl {
    site: Site,
    /// The path without percent-encoding and without slashes around it.
    path: String,
}

impl CloneUrl {
    /// Reads `https://host[:port]/path.git`, `ssh://git@host[:port]/path.git` and `git@host:path.git`.
    ///
    /// # Errors
    ///
    /// `NotFound`: a text of another form names no repository.
    pub(crate) fn parse(text: &str) -> Result<Self, ProviderError> {
        let (site, path) = if text.contains("://") {
            let url = Url::parse(text).map_err(|_| ProviderError::NotFound)?;
            if !matches!(url.scheme(), "http" | "https" | "ssh") {
                return Err(ProviderError::NotFound);
            }
            let path = percent_decode_str(url.path()).decode_utf8().map_err(|_| ProviderError::NotFound)?;
            (Site::of(&url).ok_or(ProviderError::NotFound)?, path.into_owned())
        } else {
            let (before, path) = text.split_once(':').ok_or(ProviderError::NotFound)?;
            let host = before.rsplit_once('@').map_or(before, |(_, host)| host).to_ascii_lowercase();
            if host.is_empty() || host.contains('/') {
                return Err(ProviderError::NotFound);
            }
            (Site { host, port: None }, path.to_owned())
        };
        Ok(Self { site, path: path.trim_matches('/').to_owned() })
    }

    /// The path below `root`, which is empty or begins with a slash: web URLs carry it, SSH ones do not.
    pub(crate) fn path_below(&self, root: &str) -> &str {
        let inside = self.path.strip_prefix(root.trim_matches('/')).and_then(|rest| rest.strip_prefix('/'));
        match (self.site.port, inside) {
            (Some(_), Some(inside)) if !root.is_empty() => inside,
            _ => &self.path,
        }
    }

    /// Whether the path of a web URL lies below `root`; SSH ones have none.
    pub(crate) fn is_below(&self, root: &str) -> bool {
        let inside = self.path.strip_prefix(root.trim_matches('/'));
        !self.is_web() || root.is_empty() || inside.is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether it is a URL for a browser or for git over HTTP(S), not for SSH.
    pub(crate) const fn is_web(&self) -> bool {
        self.site.port.is_some()
    }

    /// Whether the URL names the instance of `api` itself, or the place of one of `shown`: the clone URLs
    /// of the repository that was found. The administrator can set another clone root.
    pub(crate) fn is_at(&self, api: &Url, shown: &[&str]) -> bool {
        Site::of(api).is_some_and(|site| site.fits(&self.site))
            || shown.iter().any(|text| Self::parse(text).is_ok_and(|other| other.site.fits(&self.site)))
    }
}

/// A clone URL as it is asked about: of a form that git takes, without a password and without the name of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneAddress(String);

impl CloneAddress {
    /// Takes `https://host/path`, `ssh://git@host/path` or `git@host:path`. Whoever the user info named is forgotten;
    /// over SSH it is always `git`.
    ///
    /// # Errors
    ///
    /// `URL_MALFORMED`; the text is not echoed.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        Self::cleaned(text).map(Self).ok_or_else(|| {
            let told =
                "send the clone URL as the provider shows it, such as https://git.example/group/project.git";
            Refusal::new(FieldReason::UrlMalformed, told)
        })
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn cleaned(text: &str) -> Option<String> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return None;
        }
        let link = if text.contains("://") {
            let mut url = Url::parse(text).ok()?;
            // What git would take for an option is no host.
            url.host_str().filter(|host| !host.is_empty() && !host.starts_with('-'))?;
            let user = if url.scheme() == "ssh" { "git" } else { "" };
            url.set_password(None).ok()?;
            url.set_username(user).ok()?;
            url.set_query(None);
            url.set_fragment(None);
            if user.is_empty() { web_link(url.as_str()) } else { ssh_link(url.as_str()) }
        } else {
            let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
            let (_, place) = authority.split_once('@').unwrap_or(("", authority));
            ssh_link(&format!("git@{place}{path}"))
        };
        (CloneUrl::parse(&link).is_ok()).then_some(link)
    }
}

/// A path without `.git` at its end.
pub(crate) fn without_git(path: &str) -> &str {
    path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_carry_no_user_and_no_script() {
        assert_eq!(web_link("https://oauth2:secret@git.test/a/b.git"), "https://git.test/a/b.git");
        assert_eq!(ssh_link("ssh://git:secret@git.test:2222/a/b.git"), "ssh://git@git.test:2222/a/b.git");
        for good in ["git@git.test:a/b.git", "git.test:a", "git@[::1]:a/b.git"] {
            assert_eq!(ssh_link(good), good);
        }
        for bad in ["javascript:alert(1)", "https://a b/", "ext::sh -c", "no link", ""] {
            assert_eq!(web_link(bad), "", "{bad}");
        }
        for bad in [
            "-oProxyCommand=x:y",
            "git@-oProxyCommand=x:y",
            "ext::sh",
            ":a",
            "./a:b",
            "https://git.test/a",
            "no link",
            "a\nb:c",
        ] {
            assert_eq!(ssh_link(bad), "", "{bad}");
        }
    }

    #[test]
    fn a_clone_address_forgets_whose_it_was() {
        for (text, kept) in [
            ("https://git.test/a/b.git", "https://git.test/a/b.git"),
            ("https://oauth2:secret@git.test:8443/a/b.git?x=secret#secret", "https://git.test:8443/a/b.git"),
            ("https://secret@git.test/a/b", "https://git.test/a/b"),
            ("HTTP://Git.test/a/b", "http://git.test/a/b"),
            ("ssh://casey:secret@git.test:2222/a/b.git", "ssh://git@git.test:2222/a/b.git"),
            ("ssh://git.test/a/b.git", "ssh://git@git.test/a/b.git"),
            ("git@git.test:a/b.git", "git@git.test:a/b.git"),
            ("secret@git.test:a/b.git", "git@git.test:a/b.git"),
            ("casey:secret@git.test:a/b.git", "git@git.test:a/b.git"),
            ("git.test:a/b.git", "git@git.test:a/b.git"),
            // Azure DevOps' names may hold spaces.
            ("https://git.test/a%20b/_git/c", "https://git.test/a%20b/_git/c"),
        ] {
            assert_eq!(CloneAddress::parse(text).map(|url| url.0).as_deref(), Ok(kept), "{text}");
        }
        for bad in [
            "",
            "git.test/a/b",
            "file:///a/b",
            "ext::sh -c x",
            "ftp://git.test/a/b",
            "https://",
            "https://git.test/a b",
            "git@-oProxyCommand=x:a",
            "secret@",
            "ssh://-oProxyCommand=x/a",
        ] {
            let refusal = CloneAddress::parse(bad).map(|url| url.0).expect_err(bad);
            assert!(!refusal.description.contains("secret"));
        }
    }

    proptest::proptest! {
        #[test]
        fn a_clone_address_holds_no_user_info(user in "[a-z0-9:%]{1,9}", path in "[a-z/@:.]{0,9}", form in 0..3) {
            let text = match form {
                0 => format!("https://secret{user}@git.test/{path}"),
                1 => format!("ssh://secret{user}@git.test/{path}"),
                _ => format!("secret{user}@git.test:{path}"),
            };
            if let Ok(CloneAddress(kept)) = CloneAddress::parse(&text) {
                proptest::prop_assert!(!kept.contains("secret"), "{kept}");
                let again = CloneAddress::parse(&kept);
                proptest::prop_assert_eq!(again.map(|url| url.0), Ok(kept));
            }
        }

        /// What is called plain is what a parser makes of it.
        #[test]
        fn a_plain_host_is_the_one_that_a_parser_finds(
            text in "(https?|HTTPS|ssh|ftp)://([a-z0-9.@:-]{0,12}|(xn--)?[a-zA-Z]{1,4}\\.(test|[0-9]{1,3}|0x1f)|[0-9.]{1,15})(:[0-9]{0,6})?[/?#\\\\]{0,2}[a-z@:]{0,4}"
        ) {
            if let Some(host) = plain_host(&text) {
                let url = Url::parse(&text).expect("a URL");
                proptest::prop_assert_eq!(url.host_str(), Some(host));
                proptest::prop_assert!(url.username().is_empty() && url.password().is_none());
                proptest::prop_assert!(matches!(url.scheme(), "http" | "https"));
            }
        }
    }

    #[test]
    fn a_plain_host_needs_no_parser() {
        for (text, host) in [
            ("https://git.test/a/b.git", Some("git.test")),
            ("http://127.0.0.1:3000/a", Some("127.0.0.1")),
            ("https://git.test", None),
            ("https://u@git.test/a", None),
            ("https://Git.test/a", None),
            ("https://127.1/a", None),
            ("https://git.test:99999/a", None),
            ("https://xn--bcher-kva.test/a", None),
            ("ssh://git.test/a", None),
        ] {
            assert_eq!(plain_host(text), host, "{text}");
        }
    }

    #[test]
    fn a_clone_url_of_another_host_is_foreign() {
        let api = Url::parse("https://Git.test:8443/api").expect("a URL");
        assert!(!is_foreign("https://git.test/a/b.git", &api) && !is_foreign("git@git.test:a/b.git", &api));
        assert!(is_foreign("http://localhost:3000/a/b.git", &api) && !is_foreign("", &api));
    }
}
