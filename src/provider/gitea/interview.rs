//! What the server says of a token: the questions, and the answers that count.

use super::refusal::{accepted, told_scopes};
use super::rows::{self, RepositoryRow, TokenRow, UserRow, VersionRow};
use super::{READ_REPOSITORY, READ_USER};
use crate::domain::credential::{Account, Capability};
use crate::provider::api::{Answer, Api, Call};
use crate::provider::inspection::{Heard, is_scope, named_user, nobody};
use crate::provider::{Inspection, ProviderError};

/// Most scopes that are taken over; there are about 20.
const MAX_SCOPES: usize = 64;
/// What one of the small answers may have at most, in bytes; a name of a megabyte is cut, not refused.
const SMALL: usize = 2 * 1_024 * 1_024;
/// How many repositories are looked at for one that the user administers.
const LOOKED_AT: &str = "50";

/// Everything that was asked.
pub(super) struct Interview {
    /// `/version`.
    pub(super) version: Heard,
    /// `/user`.
    pub(super) user: Heard,
    /// `/token`, since 1.27.
    pub(super) token: Heard,
    /// Some repositories of the user.
    pub(super) list: Heard,
    /// Any repository, where the token may not name its user.
    pub(super) search: Option<Heard>,
    /// Calls that say nothing but which scopes the token has, if they are refused.
    revealing: Vec<Heard>,
}

impl Interview {
    /// Asks everything that does not depend on another answer side by side, then what was left open.
    pub(super) async fn conduct(api: &Api) -> Self {
        let (version, user, token, list) = tokio::join!(
            version(api),
            heard(api.get(&["user"]).limit(SMALL)),
            heard(api.get(&["token"]).limit(SMALL)),
            heard(api.get(&["user", "repos"]).query("page", "1").query("limit", LOOKED_AT)),
        );
        let mut interview = Self { version, user, token, list, search: None, revealing: Vec::new() };
        if interview.user_is_nameless() {
            let any = api.get(&["repos", "search"]).query("page", "1").query("limit", "1");
            interview.search = Some(heard(any).await);
        }
        // Few tokens may read notifications, and fewer the server's own tasks. What the others are told is which
        // scopes they have.
        for path in [&["notifications", "new"], &["admin", "cron"]] {
            if !interview.is_good() || interview.scopes().is_some() {
                break;
            }
            let answer = heard(api.get(path).limit(SMALL)).await;
            let is_refused = answer.status() == Some(403);
            interview.revealing.push(answer);
            if is_refused {
                break;
            }
        }
        interview
    }

    /// All that was heard.
    pub(super) fn all(&self) -> impl Iterator<Item = &Heard> {
        [&self.version, &self.user, &self.token, &self.list]
            .into_iter()
            .chain(&self.search)
            .chain(&self.revealing)
    }

    /// Takes over the server's clock and what it said of the quota.
    pub(super) fn note_clock_and_quota(&self, found: &mut Inspection) {
        for answer in self.all().filter_map(|heard| heard.answer.as_ref().ok()) {
            found.server_time = answer.date().or(found.server_time);
            found.rate_limit = answer.rate_limit.or(found.rate_limit);
        }
    }

    /// Who stands behind the token, as far as it may tell.
    pub(super) fn token_user(&self) -> User {
        match self.user.accepted() {
            Ok(answer) => user_of(&answer),
            Err(ProviderError::ScopeMissing { .. }) => {
                let row = self.token.accepted().and_then(|answer| answer.json::<TokenRow>());
                row.ok().and_then(|row| row.user).map_or(User::MayNotAsk, |user| User::Named(user.account()))
            }
            Err(error @ ProviderError::CredentialRejected { .. }) => User::Refused(error),
            Err(error) => User::Unanswered(error),
        }
    }

    fn user_is_nameless(&self) -> bool {
        matches!(self.user.accepted(), Err(ProviderError::ScopeMissing { .. }))
    }

    fn is_good(&self) -> bool {
        matches!(self.token_user(), User::Named(_) | User::MayNotAsk)
    }

    /// The scopes of the token, if the server told them, in whatever answer.
    fn scopes(&self) -> Option<Vec<String>> {
        let row = self.token.accepted().and_then(|answer| answer.json::<TokenRow>());
        row.map_or_else(
            |_| self.all().filter_map(|heard| heard.answer.as_ref().ok()).find_map(told_scopes),
            |row| Some(row.scopes.into_iter().filter(|scope| is_scope(scope)).take(MAX_SCOPES).collect()),
        )
    }

    /// What is known of the token's scopes.
    pub(super) fn granted(&self) -> Granted {
        let mut proven = Vec::new();
        if self.user.accepted().is_ok() {
            proven.push(READ_USER);
        }
        if self.list.accepted().is_ok() || self.search.as_ref().is_some_and(|heard| heard.accepted().is_ok())
        {
            proven.push(READ_REPOSITORY);
        }
        let refused = self.all().filter_map(|heard| match heard.accepted() {
            Err(ProviderError::ScopeMissing { scopes }) => Some(scopes),
            _ => None,
        });
        Granted { told: self.scopes(), proven, refused: refused.flatten().collect() }
    }

    /// Some repositories of the user, or the error that kept them.
    pub(super) fn repositories(&self) -> Result<Vec<RepositoryRow>, ProviderError> {
        match &self.search {
            Some(search) => search.accepted().and_then(|answer| rows::searched(&answer)).map(|_| Vec::new()),
            None => self.list.accepted().and_then(|answer| rows::repositories(&answer)),
        }
    }
}

async fn heard(call: Call<'_>) -> Heard {
    Heard::of(call, accepted).await
}

/// The version. 1.20.0 tells it to a stranger, but not to a token without the right scope.
async fn version(api: &Api) -> Heard {
    let call = || api.get(&["version"]).limit(SMALL);
    let told = heard(call()).await;
    if matches!(told.accepted(), Err(ProviderError::ScopeMissing { .. })) {
        heard(call().anonymously()).await
    } else {
        told
    }
}

/// Whether an answer is that of `/version`.
pub(super) fn is_version(answer: &Answer) -> bool {
    let row = accepted(answer.clone()).and_then(|answer| answer.json::<VersionRow>());
    row.is_ok_and(|row| row.version.starts_with(|c: char| c.is_ascii_digit()))
}

/// What `/user` said.
pub(super) enum User {
    Named(Account),
    /// Refused in words that only an accepted token gets.
    MayNotAsk,
    /// The question was not answered; the token may still be good.
    Unanswered(ProviderError),
    /// The token is refused, or nobody stands behind it.
    Refused(ProviderError),
}

/// A good answer alone proves nothing: it must name a user.
fn user_of(answer: &Answer) -> User {
    let row: UserRow = match named_user(answer, "id") {
        Ok(row) => row,
        Err(error) => return User::Refused(error),
    };
    let account = row.account();
    if account.login.is_empty() { User::Refused(nobody()) } else { User::Named(account) }
}

/// What is known of the scopes of a token.
#[derive(Debug)]
pub(super) struct Granted {
    /// All of them, if the server told.
    pub(super) told: Option<Vec<String>>,
    /// Those that a call needed and that did not fail.
    proven: Vec<&'static str>,
    /// Those for want of which a call was refused.
    refused: Vec<String>,
}

impl Granted {
    /// Whether the token has a scope.
    pub(super) fn holds(&self, scope: &str) -> Capability {
        if let Some(told) = &self.told {
            let has = told.iter().any(|granted| covers(granted, scope));
            return if has { Capability::Yes } else { Capability::No };
        }
        // Who may not read may not write.
        let lacks = self.refused.iter().any(|refused| refused == scope || covers(scope, refused));
        if lacks {
            Capability::No
        } else if self.proven.contains(&scope) {
            Capability::Yes
        } else {
            Capability::Unknown
        }
    }

    /// Whether private repositories are out of the token's reach.
    pub(super) fn is_public_only(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.iter().any(|scope| scope == "public-only"))
    }
}

/// Whether one scope includes another.
fn covers(granted: &str, wanted: &str) -> bool {
    granted == "all"
        || granted == wanted
        || granted
            .strip_prefix("write:")
            .is_some_and(|category| wanted.strip_prefix("read:").is_some_and(|other| category == other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    const JSON: (&str, &str) = ("content-type", "application/json;charset=utf-8");

    #[test]
    fn ac_18_h48_a_bare_200_names_nobody() {
        let user = |body: &str| user_of(&test_answer(200, &[JSON], body));
        let nobody = |body| matches!(user(body), User::Refused(ProviderError::CredentialRejected { .. }));
        assert!(nobody("null") && nobody(r#"{"id":null,"login":null}"#) && nobody(r#"{"id":1,"login":""}"#));
        let garbled = |body| matches!(user(body), User::Refused(ProviderError::Failed { .. }));
        assert!(garbled("{}") && garbled("[]") && garbled("<html>") && garbled(r#"{"id":"1","login":"x"}"#));
        assert!(matches!(user(r#"{"id":1,"login":"sam"}"#), User::Named(account) if account.login == "sam"));
    }

    #[test]
    fn scopes_include_each_other() {
        for (granted, wanted) in
            [("all", "write:repository"), ("write:repository", "read:repository"), ("read:user", "read:user")]
        {
            assert!(covers(granted, wanted), "{granted} {wanted}");
        }
        for (granted, wanted) in [
            ("read:repository", "write:repository"),
            ("write:user", "read:repository"),
            ("public-only", "read:repository"),
        ] {
            assert!(!covers(granted, wanted), "{granted} {wanted}");
        }
    }

    #[test]
    fn what_is_not_told_is_concluded_or_unknown() {
        let granted = Granted {
            told: None,
            proven: vec![READ_USER],
            refused: vec!["read:repository".to_owned(), "read:notification".to_owned()],
        };
        assert_eq!(granted.holds("read:user"), Capability::Yes);
        assert_eq!(granted.holds("read:repository"), Capability::No);
        assert_eq!(granted.holds("write:repository"), Capability::No);
        assert_eq!(granted.holds("read:organization"), Capability::Unknown);
        let told = Granted { told: Some(vec!["all".to_owned()]), ..granted };
        assert_eq!(told.holds("write:repository"), Capability::Yes);
    }

    #[test]
    fn only_a_version_is_one() {
        let is = |body: &str| is_version(&test_answer(200, &[JSON], body));
        assert!(is(r#"{"version":"1.27.0"}"#) && is(r#"{"version":"11.0.3+gitea-1.22.0"}"#));
        assert!(!is("{}") && !is(r#"{"version":7}"#) && !is(r#"{"version":"v2"}"#));
        assert!(!is_version(&test_answer(200, &[("content-type", "text/html")], "<html>")));
    }
}
