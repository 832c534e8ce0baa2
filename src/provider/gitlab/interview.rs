//! What GitLab says of a token: the questions, and the answers that count.

use std::time::Duration;

use super::refusal::accepted;
use super::rows::{OauthRow, TokenRow, UserRow};
use crate::domain::credential::{Account, Capability};
use crate::domain::timestamp::Timestamp;
use crate::provider::api::{Answer, Api, Call};
use crate::provider::inspection::{Heard, is_scope, named_user, nobody};
use crate::provider::{Inspection, ProviderError, RejectionCause};

/// Most scopes that are taken over; GitLab has about 20.
const MAX_SCOPES: usize = 64;
/// What one of these small answers may have at most, in bytes; a name of a megabyte is cut, not refused.
pub(super) const SMALL: usize = 2 * 1_024 * 1_024;

/// Everything that was asked.
pub(super) struct Interview {
    /// `/metadata`, or `/version`.
    pub(super) version: Heard,
    /// `/personal_access_tokens/self`.
    pub(super) token: Heard,
    /// `/user`.
    pub(super) user: Heard,
    /// One project that the user is a member of.
    pub(super) list: Heard,
    /// One project that the user is at least Maintainer of.
    pub(super) maintained: Heard,
}

impl Interview {
    /// Asks everything that does not depend on another answer, side by side.
    pub(super) async fn conduct(api: &Api) -> Self {
        let (version, token, user, list, maintained) = tokio::join!(
            version(api),
            heard(api.get(&["personal_access_tokens", "self"]).limit(SMALL)),
            heard(api.get(&["user"]).limit(SMALL)),
            heard(one_project(api)),
            heard(one_project(api).query("min_access_level", "40")),
        );
        Self { version, token, user, list, maintained }
    }

    /// All that was heard.
    pub(super) fn all(&self) -> [&Heard; 5] {
        [&self.version, &self.token, &self.user, &self.list, &self.maintained]
    }

    /// Takes over the server's clock and what it said of the quota.
    pub(super) fn note_clock_and_quota(&self, found: &mut Inspection) {
        for answer in self.all().into_iter().filter_map(|heard| heard.answer.as_ref().ok()) {
            found.server_time = answer.date().or(found.server_time);
            found.rate_limit = answer.rate_limit.or(found.rate_limit);
        }
    }

    /// What the token tells of itself. OAuth tokens are asked elsewhere.
    pub(super) async fn token_details(&self, api: &Api) -> Details {
        match self.token.accepted() {
            Ok(answer) => match answer.json::<TokenRow>() {
                Ok(row) => details_of(row),
                Err(error) => Details::Refused(error),
            },
            Err(ProviderError::ScopeMissing { .. }) => Details::Accepted { user_id: None, expire_time: None },
            Err(ProviderError::Failed { status: Some(400), .. }) => oauth_details(api).await,
            Err(error @ ProviderError::CredentialRejected { .. }) => Details::Refused(error),
            Err(error) => Details::Unanswered(error),
        }
    }

    /// What the token's user is, as far as the token may ask.
    pub(super) fn token_user(&self) -> User {
        match self.user.accepted() {
            Ok(answer) => user_of(&answer),
            Err(ProviderError::ScopeMissing { .. }) => User::MayNotAsk,
            Err(error @ ProviderError::CredentialRejected { .. }) => User::Refused(error),
            Err(error) => User::Unanswered(error),
        }
    }
}

async fn heard(call: Call<'_>) -> Heard {
    Heard::of(call, accepted).await
}

/// The version; servers before 15.2 have no `/metadata`.
async fn version(api: &Api) -> Heard {
    let metadata = heard(api.get(&["metadata"]).limit(SMALL)).await;
    if metadata.status() == Some(404) { heard(api.get(&["version"]).limit(SMALL)).await } else { metadata }
}

fn one_project(api: &Api) -> Call<'_> {
    api.get(&["projects"])
        .query("membership", "true")
        .query("order_by", "id")
        .query("sort", "asc")
        .query("per_page", "1")
}

/// What is known of the token itself.
#[derive(Debug)]
pub(super) enum Details {
    /// It has scopes.
    Known { scopes: Vec<String>, expire_time: Option<Timestamp>, user_id: Option<String> },
    /// The provider accepted it and says no more: a fine-grained token, an old server.
    Accepted { user_id: Option<String>, expire_time: Option<Timestamp> },
    /// The question was not answered; the token may still be good.
    Unanswered(ProviderError),
    /// The token is refused.
    Refused(ProviderError),
}

impl Details {
    /// Its scopes, if it has any that are told.
    pub(super) const fn scopes(&self) -> Option<&Vec<String>> {
        match self {
            Self::Known { scopes, .. } => Some(scopes),
            _ => None,
        }
    }

    /// The number of its user, if it was told.
    pub(super) const fn user_id(&self) -> Option<&String> {
        match self {
            Self::Known { user_id, .. } | Self::Accepted { user_id, .. } => user_id.as_ref(),
            _ => None,
        }
    }

    /// When it ends, if it was told.
    pub(super) const fn expire_time(&self) -> Option<Timestamp> {
        match self {
            Self::Known { expire_time, .. } | Self::Accepted { expire_time, .. } => *expire_time,
            _ => None,
        }
    }

    /// Whether it has one of the scopes.
    pub(super) fn holds(&self, any_of: &[&str]) -> Capability {
        self.scopes().map_or(Capability::Unknown, |scopes| {
            if scopes.iter().any(|scope| any_of.contains(&scope.as_str())) {
                Capability::Yes
            } else {
                Capability::No
            }
        })
    }
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

fn details_of(row: TokenRow) -> Details {
    let refused = |cause| Details::Refused(ProviderError::CredentialRejected { cause, status: 200 });
    let (expire_time, user_id) = (row.expire_time(), row.user_id.map(|id| id.0.to_string()));
    if row.revoked == Some(true) {
        return refused(RejectionCause::Revoked);
    }
    if row.active == Some(false) {
        return refused(RejectionCause::Unknown);
    }
    if row.granular == Some(true) {
        return Details::Accepted { user_id, expire_time };
    }
    Details::Known { scopes: sane(row.scopes), expire_time, user_id }
}

/// `{base}/oauth/token/info`, beside the API.
async fn oauth_details(api: &Api) -> Details {
    let answer = api.get_above(2, &["oauth", "token", "info"]).limit(SMALL).send().await.and_then(accepted);
    let row = answer.and_then(|answer| Ok((answer.date(), answer.json::<OauthRow>()?)));
    match row {
        Ok((date, row)) => Details::Known {
            scopes: sane(row.scope),
            // What is left is told, so it counts from the server's own clock.
            expire_time: row
                .expires_in
                .and_then(|seconds| u64::try_from(seconds).ok())
                .zip(date)
                .map(|(seconds, date)| date.saturating_add(Duration::from_secs(seconds))),
            user_id: row.resource_owner_id.map(|id| id.0.to_string()),
        },
        // A token that this refuses is no OAuth token; whether it is a good one is for `/user` to say.
        Err(error) => Details::Unanswered(error),
    }
}

fn sane(scopes: Vec<String>) -> Vec<String> {
    scopes.into_iter().filter(|scope| is_scope(scope)).take(MAX_SCOPES).collect()
}

/// A good answer alone proves nothing: it must name a user.
fn user_of(answer: &Answer) -> User {
    let row: UserRow = match named_user(answer, "id") {
        Ok(row) => row,
        Err(error) => return User::Refused(error),
    };
    if row.is_blocked() {
        return User::Refused(ProviderError::CredentialRejected {
            cause: RejectionCause::Blocked,
            status: 200,
        });
    }
    let account = row.account();
    if account.login.is_empty() { User::Refused(nobody()) } else { User::Named(account) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    fn user(body: &str) -> User {
        user_of(&test_answer(200, &[("content-type", "application/json")], body))
    }

    #[test]
    fn ac_18_h48_a_bare_200_names_nobody() {
        let nobody = |body| matches!(user(body), User::Refused(ProviderError::CredentialRejected { .. }));
        assert!(nobody("null") && nobody(r#"{"id":null,"username":null}"#));
        assert!(nobody(r#"{"id":1,"username":""}"#));
        let garbled = |body| matches!(user(body), User::Refused(ProviderError::Failed { .. }));
        assert!(
            garbled("{}") && garbled("[]") && garbled("<html>") && garbled(r#"{"id":"1","username":"x"}"#)
        );
        assert!(
            matches!(user(r#"{"id":1,"username":"sam"}"#), User::Named(account) if account.login == "sam")
        );
    }

    #[test]
    fn ac_16_a_blocked_user_is_refused_by_state_too() {
        let body = r#"{"id":1,"username":"sam","state":"blocked"}"#;
        assert!(matches!(
            user(body),
            User::Refused(ProviderError::CredentialRejected { cause: RejectionCause::Blocked, .. })
        ));
    }

    #[test]
    fn a_token_that_calls_itself_dead_is_dead() {
        let details = |body: &str| details_of(serde_json::from_str(body).expect("a token"));
        assert!(matches!(
            details(r#"{"id":1,"scopes":["api"],"revoked":true}"#),
            Details::Refused(ProviderError::CredentialRejected { cause: RejectionCause::Revoked, .. })
        ));
        assert!(matches!(details(r#"{"id":1,"scopes":["api"],"active":false}"#), Details::Refused(_)));
        // A fine-grained token has permissions instead of scopes.
        assert!(matches!(
            details(r#"{"id":1,"scopes":["granular"],"granular":true,"user_id":7}"#),
            Details::Accepted { user_id: Some(id), .. } if id == "7"
        ));
    }
}
