//! Where an instance serves git: who may be sent its token, and whose clone URLs are its own.

use url::{Origin, Url};

use super::links;

/// The origins and hosts under which an instance serves git.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitHosts {
    /// Over HTTP: scheme, host and port.
    web: Vec<Origin>,
    /// Over SSH, in lower case. Its port says nothing.
    ssh: Vec<String>,
}

impl GitHosts {
    /// Those of an instance that has one host for everything, whose API or pages are at `url`.
    #[must_use]
    pub fn of(url: &Url) -> Self {
        let ssh = url.host_str().map(str::to_ascii_lowercase).into_iter().collect();
        Self { web: vec![url.origin()], ssh }
    }

    /// Those of a provider's own cloud, which has several names.
    #[must_use]
    pub fn named(web: &[&str], ssh: &[&str]) -> Self {
        let origin = |host: &&str| Url::parse(&format!("https://{host}")).ok().map(|url| url.origin());
        Self {
            web: web.iter().filter_map(origin).collect(),
            ssh: ssh.iter().map(|host| (*host).to_owned()).collect(),
        }
    }

    /// The same with the SSH hosts of `other`, too.
    #[must_use]
    pub fn with_ssh_of(mut self, other: Self) -> Self {
        self.ssh.extend(other.ssh);
        self
    }

    /// Whether git, asked to clone `url`, would send a token to the instance and to nobody else: the same scheme, host
    /// and port. What a token is good for is nobody else's to try.
    #[must_use]
    pub fn take_token_of(&self, url: &str) -> bool {
        let url =
            Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        url.is_some_and(|url| self.web.contains(&url.origin()))
    }

    /// Whether a clone URL of any form names one of the hosts: over HTTP with its scheme and port, over SSH by its name
    /// alone.
    #[must_use]
    pub fn serve(&self, clone_url: &str) -> bool {
        let is_web = clone_url.split_once("://").is_some_and(|(scheme, _)| {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        });
        if is_web {
            return self.take_token_of(clone_url);
        }
        links::host(clone_url).is_some_and(|host| self.ssh.contains(&host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_the_very_origin_alone() {
        let hosts = GitHosts::of(&Url::parse("https://Git.test/gitlab/api/v4").expect("a URL"));
        for own in ["https://git.test/a/b.git", "https://git.test:443/a/b.git", "HTTPS://GIT.TEST/a"] {
            assert!(hosts.take_token_of(own) && hosts.serve(own), "{own}");
        }
        for other in [
            "http://git.test/a/b.git",
            "http://git.test:443/a/b.git",
            "https://git.test:8443/a/b.git",
            "https://git.test.evil.test/a/b.git",
            "https://git.test@evil.test/a/b.git",
            "https://evil.test/git.test/b.git",
            "file:///git.test/a",
            "git.test",
            "",
        ] {
            assert!(!hosts.take_token_of(other) && !hosts.serve(other), "{other}");
        }
        // SSH is found by its host, and gets no token.
        for ssh in ["git@git.test:a/b.git", "ssh://git@GIT.test:2222/a/b.git"] {
            assert!(hosts.serve(ssh) && !hosts.take_token_of(ssh), "{ssh}");
        }
        assert!(!hosts.serve("git@evil.test:a/b.git"));
    }

    #[test]
    fn plain_text_is_an_origin_of_its_own() {
        let hosts = GitHosts::of(&Url::parse("http://127.0.0.1:3000/api/v1").expect("a URL"));
        assert!(hosts.take_token_of("http://127.0.0.1:3000/a/b.git"));
        assert!(!hosts.take_token_of("https://127.0.0.1:3000/a/b.git"));
        assert!(!hosts.take_token_of("http://127.0.0.1/a/b.git"));
    }
}
