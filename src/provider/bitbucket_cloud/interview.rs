//! What Bitbucket Cloud says of a token: the questions, and the answers that count.

use futures_util::future::join_all;

use super::places::{Part, Section, first_workspaces, has_user, named};
use super::refusal::{accepted, credential_type, granted};
use super::rows::{self, AccessRow, Envelope, REPOSITORY_FIELDS, RepositoryRow, UserRow};
use crate::domain::credential::{Account, CapabilityType, CredentialForm};
use crate::provider::api::{Answer, Api, Call};
use crate::provider::inspection::{Heard, named_user};
use crate::provider::{Inspection, ProviderError, RejectionCause};

/// In how many workspaces repositories are looked for: the first one may be empty, or closed to this user.
const PROBED: usize = 4;
/// What one of these small answers may have at most, in bytes; a name of a megabyte is cut, not refused.
pub(super) const SMALL: usize = 2 * 1_024 * 1_024;

/// Everything that was asked.
pub(super) struct Interview {
    /// `/user`, which a token of a resource may not ask, and which tells of it all the same.
    pub(super) user: Heard,
    /// `/user/workspaces`, unless the connection names its workspaces.
    workspaces: Option<Heard>,
    /// One repository of each of the first workspaces.
    pub(super) lists: Vec<Heard>,
    /// One repository that the user administers, of each of them.
    administered: Vec<Heard>,
    /// Whether there are workspaces that were not looked into.
    is_sample: bool,
}

impl Interview {
    /// Asks whose the token is and where it may look, then looks there.
    pub(super) async fn conduct(api: &Api) -> Self {
        let sections = named(api);
        let (user, workspaces) = tokio::join!(heard(api.get(&["user"]).limit(SMALL)), async {
            match &sections {
                Some(_) => None,
                None => Some(heard(first_workspaces(api, 100)).await),
            }
        });
        let mut heard_all =
            Self { user, workspaces, lists: Vec::new(), administered: Vec::new(), is_sample: false };
        if matches!(heard_all.user.accepted(), Err(ProviderError::CredentialRejected { .. })) {
            return heard_all;
        }
        let sections = match sections {
            Some(sections) => sections,
            None => heard_all.probed().unwrap_or_default(),
        };
        heard_all.is_sample = sections.len() > PROBED;
        let ask = |role: Option<&'static str>| {
            let calls = sections.iter().take(PROBED).map(move |section| one_repository(api, section, role));
            join_all(calls.map(heard))
        };
        let administered = async { if has_user(api) { ask(Some("admin")).await } else { Vec::new() } };
        (heard_all.lists, heard_all.administered) = tokio::join!(ask(None), administered);
        heard_all
    }

    /// All that was heard.
    pub(super) fn all(&self) -> impl Iterator<Item = &Heard> {
        let first = std::iter::once(&self.user).chain(&self.workspaces);
        first.chain(&self.lists).chain(&self.administered)
    }

    /// The answers, of whatever status.
    pub(super) fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.all().filter_map(|heard| heard.answer.as_ref().ok())
    }

    /// Takes over the provider's clock and what it said of the quota.
    pub(super) fn note_clock_and_quota(&self, found: &mut Inspection) {
        for answer in self.answers() {
            found.server_time = answer.date().or(found.server_time);
            found.rate_limit = answer.rate_limit.or(found.rate_limit);
        }
    }

    /// The workspaces to look into: those that the user administers before the others.
    fn probed(&self) -> Result<Vec<Section>, ProviderError> {
        let Some(heard) = &self.workspaces else { return Ok(Vec::new()) };
        let page: Envelope<AccessRow> = rows::page(&heard.accepted()?)?;
        let mut rows = page.values;
        rows.sort_by_key(|row| row.administrator != Some(true));
        Ok(rows.into_iter().map(|row| row.workspace.into_section()).collect())
    }

    /// Whether every workspace was looked into, so that what was not found is nowhere.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_sample && self.administered.iter().all(|heard| heard.answer.is_ok())
    }

    /// The kind of the credential, such as `repo_access_token`.
    pub(super) fn kind(&self) -> Option<&str> {
        self.answers().find_map(credential_type)
    }

    /// The scopes of the credential; `None` if no answer told them.
    pub(super) fn granted(&self) -> Option<Vec<String>> {
        self.answers().find_map(granted)
    }

    /// What the token's user is, as far as the token may ask.
    pub(super) fn token_user(&self) -> User {
        match self.user.accepted() {
            Ok(answer) => user_of(&answer),
            Err(ProviderError::ScopeMissing { .. }) => User::MayNotAsk,
            Err(error @ ProviderError::CredentialRejected { .. }) => User::Refused(error),
            // Only an accepted token is told its kind. Without it, this is what a token that was made without scopes
            // gets.
            Err(ProviderError::Forbidden) => match self.user.answer.as_ref().ok().and_then(credential_type) {
                Some(_) => User::MayNotAsk,
                None => User::Refused(ProviderError::CredentialRejected {
                    cause: RejectionCause::Unknown,
                    status: 403,
                }),
            },
            Err(error) => User::Unanswered(error),
        }
    }

    /// A repository, if there is one in any of the workspaces that were looked into.
    pub(super) fn repositories(&self) -> Result<Vec<RepositoryRow>, ProviderError> {
        self.probed()?;
        first_of(&self.lists)
    }

    /// A repository that the user administers.
    pub(super) fn administered(&self) -> Option<RepositoryRow> {
        first_of(&self.administered).ok()?.into_iter().next()
    }
}

async fn heard(call: Call<'_>) -> Heard {
    Heard::of(call, accepted).await
}

fn one_repository<'a>(api: &'a Api, section: &Section, role: Option<&str>) -> Call<'a> {
    if let Part::Repository(slug) = &section.part {
        return api.get(&["repositories", &section.workspace, slug]);
    }
    let mut call = api
        .get(&["repositories", &section.workspace])
        .query("pagelen", "1")
        .query("fields", REPOSITORY_FIELDS);
    if let Part::Project(key) = &section.part {
        call = call.query("q", format!("project.key=\"{key}\""));
    }
    match role {
        Some(role) => call.query("role", role),
        None => call,
    }
}

/// The rows of the first answer that has any; of none, the first good answer or the first error.
fn first_of(lists: &[Heard]) -> Result<Vec<RepositoryRow>, ProviderError> {
    let mut outcome = if lists.is_empty() { Some(Ok(Vec::new())) } else { None };
    for heard in lists {
        let rows = heard.accepted().and_then(|answer| rows_of(&answer));
        match (&rows, &outcome) {
            (Ok(found), _) if !found.is_empty() => return rows,
            (Ok(_), _) | (Err(_), None) => outcome = Some(rows),
            (Err(_), Some(_)) => {}
        }
    }
    outcome.unwrap_or(Ok(Vec::new()))
}

/// A page of repositories, or one alone.
fn rows_of(answer: &Answer) -> Result<Vec<RepositoryRow>, ProviderError> {
    match rows::page(answer) {
        Ok(page) => Ok(page.values),
        Err(error) => answer.json().map(|row| vec![row]).map_err(|_| error),
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

/// A good answer alone proves nothing: it must name a user.
fn user_of(answer: &Answer) -> User {
    let row: UserRow = match named_user(answer, "uuid") {
        Ok(row) => row,
        Err(error) => return User::Refused(error),
    };
    let blocked = ProviderError::CredentialRejected { cause: RejectionCause::Blocked, status: 200 };
    if row.is_blocked() { User::Refused(blocked) } else { User::Named(row.account()) }
}

/// Something that a token must be allowed, by the name of the scope in each of the two families.
#[derive(Debug, PartialEq, Eq)]
struct Need {
    /// At an API token, whose scopes do not imply each other.
    api_token: &'static str,
    /// At a token of a resource.
    access_token: &'static str,
    /// Scopes that include it.
    also: &'static [&'static str],
}

const READ_WORKSPACES: Need =
    Need { api_token: "read:workspace:bitbucket", access_token: "account", also: &["account:write"] };
const READ_REPOSITORIES: Need = Need {
    api_token: "read:repository:bitbucket",
    access_token: "repository",
    // `repository:admin` does not; `project` was recorded alone in answers that list repositories.
    also: &["repository:write", "project"],
};
const READ_PULL_REQUESTS: Need = Need {
    api_token: "read:pullrequest:bitbucket",
    access_token: "pullrequest",
    also: &["pullrequest:write"],
};
const READ_WEBHOOKS: Need = Need { api_token: "read:webhook:bitbucket", access_token: "webhook", also: &[] };
const WRITE_WEBHOOKS: Need =
    Need { api_token: "write:webhook:bitbucket", access_token: "webhook", also: &[] };
const DELETE_WEBHOOKS: Need =
    Need { api_token: "delete:webhook:bitbucket", access_token: "webhook", also: &[] };

impl Need {
    fn is_met_by(&self, granted: &[String]) -> bool {
        granted.iter().any(|scope| {
            scope == self.api_token || scope == self.access_token || self.also.contains(&scope.as_str())
        })
    }
}

/// Whether the scope `granted` includes `scope`, which is one of an API token: a token of a resource names its own
/// otherwise.
pub(super) fn includes(granted: &str, scope: &str) -> bool {
    let needs = [
        READ_WORKSPACES,
        READ_REPOSITORIES,
        READ_PULL_REQUESTS,
        READ_WEBHOOKS,
        WRITE_WEBHOOKS,
        DELETE_WEBHOOKS,
    ];
    granted == scope
        || needs.iter().any(|need| need.api_token == scope && need.is_met_by(&[granted.to_owned()]))
}

/// The scopes that a capability needs beyond those granted, in the names of the token's own family. Making a webhook
/// needs the scope of each event, too.
pub(super) fn missing(api: &Api, granted: &[String], capability: CapabilityType) -> Vec<String> {
    let needs: &[Need] = match capability {
        CapabilityType::ListRepositories if named(api).is_none() => &[READ_WORKSPACES, READ_REPOSITORIES],
        CapabilityType::ListRepositories | CapabilityType::ReadCode => &[READ_REPOSITORIES],
        CapabilityType::ManageWebhooks => {
            &[READ_WEBHOOKS, WRITE_WEBHOOKS, DELETE_WEBHOOKS, READ_REPOSITORIES, READ_PULL_REQUESTS]
        }
    };
    let is_api_token = matches!(api.credential_form(), Some(CredentialForm::EmailApiToken { .. }));
    let mut missing: Vec<String> = needs
        .iter()
        .filter(|need| !need.is_met_by(granted))
        .map(|need| if is_api_token { need.api_token } else { need.access_token })
        .map(str::to_owned)
        .collect();
    missing.dedup();
    missing
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
        assert!(nobody("null") && nobody(r#"{"uuid":null}"#));
        let garbled = |body| matches!(user(body), User::Refused(ProviderError::Failed { .. }));
        assert!(garbled("{}") && garbled("[]") && garbled("<html>") && garbled(r#"{"uuid":"17"}"#));
        let named = r#"{"uuid":"{4b85b785-1433-4092-8512-20302f4a03be}","nickname":"sam"}"#;
        assert!(matches!(user(named), User::Named(account) if account.login == "sam"));
    }

    #[test]
    fn ac_16_a_closed_account_is_refused() {
        let closed = r#"{"uuid":"{4b85b785-1433-4092-8512-20302f4a03be}","account_status":"inactive"}"#;
        assert!(matches!(
            user(closed),
            User::Refused(ProviderError::CredentialRejected { cause: RejectionCause::Blocked, .. })
        ));
    }

    #[test]
    fn either_family_of_scopes_is_understood() {
        let met = |need: Need, scope: &str| need.is_met_by(&[scope.to_owned()]);
        assert!(met(READ_REPOSITORIES, "read:repository:bitbucket") && met(READ_REPOSITORIES, "project"));
        assert!(
            !met(READ_REPOSITORIES, "repository:admin")
                && !met(READ_REPOSITORIES, "admin:repository:bitbucket")
        );
        assert!(met(DELETE_WEBHOOKS, "webhook") && !met(READ_WEBHOOKS, "write:webhook:bitbucket"));
        // What is known as missing is told by the scopes of an API token.
        assert!(includes("webhook", "write:webhook:bitbucket"));
        assert!(includes("repository:write", "read:repository:bitbucket"));
        assert!(!includes("repository", "read:webhook:bitbucket"));
    }
}
