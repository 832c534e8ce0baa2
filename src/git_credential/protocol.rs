//! The protocol between git and a credential helper: gitcredentials(7), git-credential(1).
//!
//! Lines of `key=value`, ended by an empty one. Keys that are not known are for somebody else. A value ends its line, so
//! one with a line break or a NUL in it cannot be told.

use std::fmt::Write as _;
use std::io::{self, BufRead};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;
use zeroize::Zeroizing;

/// The most that is read of a question. Git's own lines are short; `wwwauth[]` repeats what a server said.
const MAX_BYTES: u64 = 1 << 20;

/// What may stand in a path as it is: git decoded what it found in the URL.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What git wants a credential for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// Scheme, host and port, and the path if git told it: a URL without user info.
    url: Url,
    /// Whether it named a repository, which it does with `credential.useHttpPath` alone.
    pub(crate) names_repository: bool,
    /// Whether git takes a credential that is no password (2.46 and above).
    pub(crate) knows_authtype: bool,
}

impl Question {
    /// Reads what git asks, up to an empty line or the end. `None` if that is nothing that a token could be for:
    /// another protocol than HTTP, a host that is none.
    ///
    /// # Errors
    ///
    /// The input cannot be read.
    pub(crate) fn read(input: impl BufRead) -> io::Result<Option<Self>> {
        let (mut protocol, mut host, mut path, mut knows_authtype) = (None, None, None, false);
        for line in input.take(MAX_BYTES).split(b'\n') {
            // Git may say a password, too.
            let line = Zeroizing::new(line?);
            if line.is_empty() {
                break;
            }
            let Some((key, value)) = std::str::from_utf8(&line).ok().and_then(|line| line.split_once('='))
            else {
                continue;
            };
            match key {
                "protocol" => protocol = Some(value.to_owned()),
                "host" => host = Some(value.to_owned()),
                "path" => path = Some(value.to_owned()),
                // A list; an empty value empties it.
                "capability[]" => {
                    knows_authtype = !value.is_empty() && (knows_authtype || value == "authtype")
                }
                _ => {}
            }
        }
        Ok(protocol
            .zip(host)
            .and_then(|(protocol, host)| Self::of(&protocol, &host, path.as_deref(), knows_authtype)))
    }

    fn of(protocol: &str, host: &str, path: Option<&str>, knows_authtype: bool) -> Option<Self> {
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        if !matches!(protocol, "http" | "https") || host.is_empty() || !host.chars().all(is_host) {
            return None;
        }
        let repository = path.map(repository_of).unwrap_or_default();
        let mut url = Url::parse(&format!("{protocol}://{host}")).ok()?;
        url.set_path(&utf8_percent_encode(repository, PATH).to_string());
        Some(Self { url, names_repository: !repository.is_empty(), knows_authtype })
    }

    /// The URL that git was told to clone, as far as it said.
    pub(crate) fn clone_url(&self) -> &str {
        self.url.as_str()
    }

    /// Where git would send the credential, for people.
    pub(crate) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Whether git would send the credential through TLS.
    pub(crate) fn is_private(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether git would send the credential to where `clone_url` is.
    pub(crate) fn is_at_origin_of(&self, clone_url: &str) -> bool {
        Url::parse(clone_url).is_ok_and(|url| url.origin().is_tuple() && url.origin() == self.url.origin())
    }
}

/// The repository of a path: large files are asked for below it, with a credential of their own.
fn repository_of(path: &str) -> &str {
    let end = path.find("/info/lfs").unwrap_or(path.len());
    path[..end].trim_matches('/')
}

/// What git is told. It holds a secret.
pub(crate) struct Answer {
    /// The user name that goes with the secret.
    pub(crate) username: String,
    /// The secret.
    pub(crate) password: Zeroizing<String>,
    /// Whether it travels as `Authorization: Bearer`, for a git that can.
    pub(crate) is_bearer: bool,
    /// When it ends, in seconds of Unix time.
    pub(crate) expires: Option<i64>,
}

impl Answer {
    /// The lines for git; `None` if a value cannot stand in one.
    pub(crate) fn lines(&self, question: &Question) -> Option<Zeroizing<String>> {
        let is_told = |value: &str| !value.contains(['\n', '\r', '\0']);
        if self.password.is_empty() || !is_told(&self.password) || !is_told(&self.username) {
            return None;
        }
        // Made large enough at once, so that no copy of the secret stays behind.
        let mut lines =
            Zeroizing::new(String::with_capacity(self.password.len() + self.username.len() + 256));
        let secret = self.password.as_str();
        // Writing to a string cannot fail.
        let _ = if self.is_bearer && question.knows_authtype {
            // What is ephemeral is stored by no other helper.
            writeln!(lines, "capability[]=authtype\nauthtype=Bearer\nephemeral=1\ncredential={secret}")
        } else {
            writeln!(lines, "username={}\npassword={secret}", self.username)
        };
        if let Some(expires) = self.expires {
            let _ = writeln!(lines, "password_expiry_utc={expires}");
        }
        Some(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Question> {
        Question::read(text.as_bytes()).expect("readable")
    }

    #[test]
    fn a_question_is_read_as_git_asks_it() {
        let asked = read("capability[]=authtype\ncapability[]=state\nprotocol=https\nhost=git.test:8443\n\
                          path=group/My project/_git/repo\nusername=casey\nwwwauth[]=Basic realm=\"x\"\n\nhost=evil.test\n")
            .expect("a question");
        assert_eq!(asked.clone_url(), "https://git.test:8443/group/My%20project/_git/repo");
        assert_eq!(asked.origin(), "https://git.test:8443");
        assert!(asked.names_repository && asked.knows_authtype && asked.is_private());
        let bare = read("protocol=http\nhost=127.0.0.1:9001\n").expect("a question");
        assert_eq!(bare.clone_url(), "http://127.0.0.1:9001/");
        assert!(!bare.names_repository && !bare.knows_authtype && !bare.is_private());
        assert!(
            !read("protocol=https\nhost=h\ncapability[]=authtype\ncapability[]=\n")
                .expect("it")
                .knows_authtype
        );
        // Git decodes the path once.
        let percent = read("protocol=https\nhost=h\npath=a%20b/c?d#e.git\n").expect("a question");
        assert_eq!(percent.clone_url(), "https://h/a%2520b/c%3Fd%23e.git");
    }

    #[test]
    fn large_files_are_asked_for_below_their_repository() {
        for path in ["a/b.git", "/a/b.git/", "a/b.git/info/lfs", "a/b.git/info/lfs/objects/batch"] {
            let asked = read(&format!("protocol=https\nhost=h\npath={path}\n")).expect("a question");
            assert_eq!(asked.clone_url(), "https://h/a/b.git", "{path}");
        }
    }

    #[test]
    fn nothing_is_known_of_what_is_no_question_of_http() {
        for text in [
            "",
            "\n",
            "protocol=https\n",
            "host=h\n",
            "protocol=ssh\nhost=h\n",
            "protocol=file\nhost=\npath=/etc/passwd\n",
            "protocol=https\nhost=\n",
            "protocol=https\nhost=a@b\n",
            "protocol=https\nhost=a/b\n",
            "protocol=https\nhost=a b\n",
            "protocol=https\nhost=h:99999\n",
            "protocol=https\n\nhost=h\n",
            "protocol=https=\nhost=h\n",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
        let mut bytes = b"protocol=https\n\xff\xfe=x\nhost=h\n".to_vec();
        assert!(
            Question::read(&*bytes).expect("readable").is_some(),
            "a line of no text is for somebody else"
        );
        bytes.splice(0..0, std::iter::repeat_n(b'x', 2 << 20));
        assert_eq!(Question::read(&*bytes).expect("readable"), None, "too much is read no further");
    }

    #[test]
    fn the_credential_goes_to_the_very_origin() {
        let asked = read("protocol=http\nhost=git.test:3000\npath=a/b\n").expect("a question");
        assert!(asked.is_at_origin_of("http://git.test:3000/other/path"));
        for other in
            ["https://git.test:3000/a/b", "http://git.test/a/b", "http://evil.test:3000/a/b", "git.test", ""]
        {
            assert!(!asked.is_at_origin_of(other), "{other}");
        }
    }

    #[test]
    fn an_answer_fits_the_git_that_asked() {
        let old = read("protocol=https\nhost=h\n").expect("a question");
        let new = Question { knows_authtype: true, ..old.clone() };
        let mut answer = Answer {
            username: "casey".into(),
            password: Zeroizing::new("the-secret".into()),
            is_bearer: false,
            expires: None,
        };
        let lines = |answer: &Answer, question| answer.lines(question).map(|lines| lines.to_string());
        assert_eq!(lines(&answer, &new).as_deref(), Some("username=casey\npassword=the-secret\n"));
        (answer.is_bearer, answer.expires) = (true, Some(1_760_000_000));
        assert_eq!(
            lines(&answer, &new).as_deref(),
            Some(
                "capability[]=authtype\nauthtype=Bearer\nephemeral=1\ncredential=the-secret\npassword_expiry_utc=1760000000\n"
            )
        );
        assert_eq!(
            lines(&answer, &old).as_deref(),
            Some("username=casey\npassword=the-secret\npassword_expiry_utc=1760000000\n")
        );
        for (username, password) in [("a\nhost=evil.test", "x"), ("a", "x\nquit=1"), ("a", ""), ("a", "x\0")]
        {
            let bad =
                Answer { username: username.into(), password: Zeroizing::new(password.into()), ..answer };
            assert!(bad.lines(&old).is_none(), "{username:?} {password:?}");
            answer = Answer { ..bad };
        }
    }
}
