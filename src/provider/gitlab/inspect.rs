//! The checks of a token: does it work, whose is it, what may it do, until when.

use std::time::Duration;

use tokio::time::Instant;

use super::MINIMUM_VERSION;
use super::endpoint::is_cloud;
use super::refusal::{accepted, is_scope, speaks_gitlab};
use super::rows::{self, OauthRow, ProjectRow, TokenRow, UserRow, VersionRow};
use crate::domain::credential::{Account, Capabilities, Capability, CapabilityType, ExpireTimeSource};
use crate::domain::timestamp::Timestamp;
use crate::domain::verification::{Check, CheckResult};
use crate::provider::api::{Answer, Api, Call};
use crate::provider::inspection::{clean, failed, warned};
use crate::provider::{Inspection, ProviderError, RejectionCause};

/// Most scopes that are taken over; GitLab has about 20.
const MAX_SCOPES: usize = 64;
/// What one of these small answers may have at most, in bytes; a name of a megabyte is cut, not refused.
const SMALL: usize = 2 * 1_024 * 1_024;

/// An answer of whatever status, and how long it took.
struct Heard {
    answer: Result<Answer, ProviderError>,
    took: Duration,
}

impl Heard {
    async fn of(call: Call<'_>) -> Self {
        let start = Instant::now();
        Self { answer: call.send().await, took: start.elapsed() }
    }

    /// The answer if it is a 200, else the error that it stands for.
    fn accepted(&self) -> Result<Answer, ProviderError> {
        self.answer.clone().and_then(accepted)
    }

    fn status(&self) -> Option<u16> {
        self.answer.as_ref().ok().map(|answer| answer.status.as_u16())
    }
}

/// Everything that was asked.
struct Interview {
    version: Heard,
    token: Heard,
    user: Heard,
    list: Heard,
    maintained: Heard,
}

/// Runs all checks. The calls do not depend on each other and run side by side; two more follow where an
/// answer leaves a question open.
pub(super) async fn inspect(api: &Api, wanted: &[CapabilityType]) -> Inspection {
    let (version, token, user, list, maintained) = tokio::join!(
        version(api),
        Heard::of(api.get(&["personal_access_tokens", "self"]).limit(SMALL)),
        Heard::of(api.get(&["user"]).limit(SMALL)),
        Heard::of(one_project(api)),
        Heard::of(one_project(api).query("min_access_level", "40")),
    );
    let heard = Interview { version, token, user, list, maintained };
    let mut found = Inspection::default();
    heard.note_clock_and_quota(&mut found);

    let (check, mismatch) = heard.provider_match();
    found.checks.push(check);
    if let Some(error) = mismatch {
        skip_rest(&mut found, Check::ServerVersion);
        found.failure = Some(error);
        return found;
    }
    if let Some(error) = heard.server_version(&mut found) {
        skip_rest(&mut found, Check::Authentication);
        found.failure = Some(error);
        return found;
    }
    let details = heard.token_details(api).await;
    let user = heard.token_user();
    if let Some(error) = authentication(&mut found, &heard, &details, &user) {
        skip_rest(&mut found, Check::Identity);
        found.failure = Some(error);
        return found;
    }
    identity(&mut found, &heard, &details, user);
    let rows = heard.list.accepted().and_then(|answer| rows::projects(&answer));
    let hooks = hooks(api, &heard, &details, rows.as_ref().ok().and_then(|rows| rows.first())).await;
    capabilities(&mut found, &details, &rows, hooks.as_ref().copied().unwrap_or_default());
    scopes(&mut found, &details, wanted);
    list_check(&mut found, api, &heard, rows, wanted);
    webhook_check(&mut found, hooks, wanted);
    found
}

/// The version; servers before 15.2 have no `/metadata`.
async fn version(api: &Api) -> Heard {
    let heard = Heard::of(api.get(&["metadata"]).limit(SMALL)).await;
    if heard.status() == Some(404) { Heard::of(api.get(&["version"]).limit(SMALL)).await } else { heard }
}

fn one_project(api: &Api) -> Call<'_> {
    api.get(&["projects"])
        .query("membership", "true")
        .query("order_by", "id")
        .query("sort", "asc")
        .query("per_page", "1")
}

/// The checks behind one that ends the inspection, from `first` on.
fn skip_rest(found: &mut Inspection, first: Check) {
    let rest = [
        Check::ServerVersion,
        Check::Authentication,
        Check::Identity,
        Check::Scopes,
        Check::ListRepositories,
        Check::Webhooks,
    ];
    found.checks.extend(
        rest.into_iter()
            .filter(|check| *check >= first)
            .map(|check| CheckResult::skipped(check, "not tried, because an earlier check failed")),
    );
}

/// What is known of the token itself.
#[derive(Debug)]
enum Details {
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
    const fn scopes(&self) -> Option<&Vec<String>> {
        match self {
            Self::Known { scopes, .. } => Some(scopes),
            _ => None,
        }
    }

    const fn user_id(&self) -> Option<&String> {
        match self {
            Self::Known { user_id, .. } | Self::Accepted { user_id, .. } => user_id.as_ref(),
            _ => None,
        }
    }

    const fn expire_time(&self) -> Option<Timestamp> {
        match self {
            Self::Known { expire_time, .. } | Self::Accepted { expire_time, .. } => *expire_time,
            _ => None,
        }
    }

    fn holds(&self, any_of: &[&str]) -> Capability {
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
enum User {
    Named(Account),
    /// Refused in words that only an accepted token gets.
    MayNotAsk,
    /// The question was not answered; the token may still be good.
    Unanswered(ProviderError),
    /// The token is refused, or nobody stands behind it.
    Refused(ProviderError),
}

impl Interview {
    fn all(&self) -> [&Heard; 5] {
        [&self.version, &self.token, &self.user, &self.list, &self.maintained]
    }

    fn note_clock_and_quota(&self, found: &mut Inspection) {
        for answer in self.all().into_iter().filter_map(|heard| heard.answer.as_ref().ok()) {
            found.server_time = answer.date().or(found.server_time);
            found.rate_limit = answer.rate_limit.or(found.rate_limit);
        }
    }

    /// Whether it is GitLab that answers, and what ends the inspection if it is not.
    fn provider_match(&self) -> (CheckResult, Option<ProviderError>) {
        let check = Check::ProviderMatch;
        let answers: Vec<&Answer> =
            self.all().into_iter().filter_map(|heard| heard.answer.as_ref().ok()).collect();
        if answers.iter().any(|answer| speaks_gitlab(answer)) || self.has_shape() {
            return (CheckResult::pass(check, "GitLab answers").with_duration(self.version.took), None);
        }
        // An error says more of the server than the silence of the other calls.
        let error = self.all().into_iter().find_map(|heard| heard.answer.as_ref().err());
        if let Some(error) = error {
            return (failed(check, error), Some(error.clone()));
        }
        let json = answers.iter().find(|answer| answer.is_json() && answer.status.is_success());
        let error = if let Some(answer) = json {
            ProviderError::Failed {
                problem: "its answers are not those that GitLab documents",
                status: Some(answer.status.as_u16()),
            }
        } else if answers.iter().any(|answer| answer.is_json()) {
            ProviderError::Mismatch { found: "another API" }
        } else {
            ProviderError::Mismatch { found: "a web page" }
        };
        let result = failed(check, &error);
        let result = match self.version.status() {
            Some(status) => result.with_status(status),
            None => result,
        };
        (result, Some(error))
    }

    /// Whether one of the good answers has the shape that GitLab documents.
    fn has_shape(&self) -> bool {
        let json = |heard: &Heard| heard.accepted().ok();
        json(&self.version).is_some_and(|answer| answer.json::<VersionRow>().is_ok())
            || json(&self.token).is_some_and(|answer| answer.json::<TokenRow>().is_ok())
            || json(&self.user).is_some_and(|answer| answer.json::<UserRow>().is_ok())
    }

    /// Checks the version, and answers what ends the inspection if it is too low.
    fn server_version(&self, found: &mut Inspection) -> Option<ProviderError> {
        let check = Check::ServerVersion;
        let row = self.version.accepted().and_then(|answer| answer.json::<VersionRow>());
        let version = match row {
            Ok(row) => clean(&row.version),
            Err(ProviderError::ScopeMissing { .. }) => {
                let message = "the token may not ask for the version; read_user or read_api would allow it";
                found.checks.push(CheckResult::skipped(check, message).with_status(403));
                return None;
            }
            Err(ProviderError::CredentialRejected { .. }) => {
                found.checks.push(CheckResult::skipped(check, "the version is told to good tokens alone"));
                return None;
            }
            Err(error) => {
                found.checks.push(warned(check, &error));
                return None;
            }
        };
        found.server_version.clone_from(&version);
        match (release(&version), release(MINIMUM_VERSION)) {
            (Some(release), Some(minimum)) if release < minimum => {
                let error = ProviderError::VersionUnsupported { found: version, minimum: MINIMUM_VERSION };
                found.checks.push(failed(check, &error).with_status(200));
                Some(error)
            }
            (Some(_), _) => {
                let result = CheckResult::pass(check, format!("GitLab {version}"));
                found.checks.push(result.with_status(200).with_duration(self.version.took));
                None
            }
            (None, _) => {
                found.checks.push(CheckResult::warn(
                    check,
                    "PROVIDER_VERSION_UNKNOWN",
                    "the version that the server tells is none",
                    format!("Make sure that the server has GitLab {MINIMUM_VERSION} or later."),
                ));
                None
            }
        }
    }

    /// What the token tells of itself. OAuth tokens are asked elsewhere.
    async fn token_details(&self, api: &Api) -> Details {
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

    fn token_user(&self) -> User {
        match self.user.accepted() {
            Ok(answer) => user_of(&answer),
            Err(ProviderError::ScopeMissing { .. }) => User::MayNotAsk,
            Err(error @ ProviderError::CredentialRejected { .. }) => User::Refused(error),
            Err(error) => User::Unanswered(error),
        }
    }
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
        Err(error @ ProviderError::CredentialRejected { .. }) => Details::Refused(error),
        Err(error) => Details::Unanswered(error),
    }
}

fn sane(scopes: Vec<String>) -> Vec<String> {
    scopes.into_iter().filter(|scope| is_scope(scope)).take(MAX_SCOPES).collect()
}

/// A good answer alone proves nothing: it must name a user.
fn user_of(answer: &Answer) -> User {
    let nobody = ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status: 200 };
    let value: serde_json::Value = match answer.json() {
        Ok(value) => value,
        Err(error) => return User::Refused(error),
    };
    if value.is_null() || value.get("id").is_some_and(serde_json::Value::is_null) {
        return User::Refused(nobody);
    }
    let Ok(row) = serde_json::from_value::<UserRow>(value) else {
        return User::Refused(ProviderError::Failed {
            problem: "its answer about the token's user is not the one that it documents",
            status: Some(200),
        });
    };
    if row.is_blocked() {
        return User::Refused(ProviderError::CredentialRejected {
            cause: RejectionCause::Blocked,
            status: 200,
        });
    }
    let account = row.account();
    if account.login.is_empty() { User::Refused(nobody) } else { User::Named(account) }
}

/// The token works if the provider tells of it, names its user, or refuses either in words that only an accepted
/// token gets. Answers what ends the inspection if it does not.
fn authentication(
    found: &mut Inspection,
    heard: &Interview,
    details: &Details,
    user: &User,
) -> Option<ProviderError> {
    let check = Check::Authentication;
    let error = match (details, user) {
        (Details::Refused(error), _) | (_, User::Refused(error)) => error,
        (Details::Known { .. } | Details::Accepted { .. }, _) | (_, User::Named(_) | User::MayNotAsk) => {
            let result = CheckResult::pass(check, "GitLab accepts the token");
            let result = result.with_duration(heard.token.took);
            found.checks.push(match heard.token.status() {
                Some(status) => result.with_status(status),
                None => result,
            });
            found.expire_time = details.expire_time();
            if found.expire_time.is_some() {
                found.expire_time_source = ExpireTimeSource::Provider;
            }
            return None;
        }
        (Details::Unanswered(ProviderError::NotFound), User::Unanswered(error))
        | (Details::Unanswered(error), User::Unanswered(_)) => error,
    };
    found.checks.push(failed(check, error));
    Some(error.clone())
}

fn identity(found: &mut Inspection, heard: &Interview, details: &Details, user: User) {
    let check = Check::Identity;
    let result = match user {
        User::Named(account) => {
            found.account = Some(account);
            CheckResult::pass(check, "GitLab names the token's user").with_duration(heard.user.took)
        }
        User::MayNotAsk | User::Refused(_) => match details.user_id() {
            Some(id) => {
                found.account = Some(Account { id: id.clone(), ..Account::default() });
                CheckResult::pass(check, "GitLab names the token's user by number; read_user would tell more")
            }
            None => {
                CheckResult::skipped(check, "the token may not ask whose it is; read_user would allow it")
            }
        },
        User::Unanswered(error) => {
            found.account = details.user_id().map(|id| Account { id: id.clone(), ..Account::default() });
            warned(check, &error)
        }
    };
    found.checks.push(match heard.user.status() {
        Some(status) => result.with_status(status),
        None => result,
    });
}

/// The scopes of which any one gives the capability, the least first.
const fn sufficient(capability: CapabilityType) -> &'static [&'static str] {
    match capability {
        CapabilityType::ListRepositories => &["read_api", "api"],
        CapabilityType::ReadCode => &["read_repository", "write_repository", "read_api", "api"],
        CapabilityType::ManageWebhooks => &["api"],
    }
}

/// Whether the token's user may manage webhooks anywhere: a project where it is Maintainer, else the exact
/// question about one project, which also counts custom roles and administrators.
async fn hooks(
    api: &Api,
    heard: &Interview,
    details: &Details,
    project: Option<&ProjectRow>,
) -> Result<Capability, ProviderError> {
    if details.holds(sufficient(CapabilityType::ManageWebhooks)) == Capability::No {
        return Err(ProviderError::ScopeMissing { scopes: vec!["api".to_owned()] });
    }
    let known = details.scopes().is_some();
    let maintained = heard.maintained.accepted().and_then(|answer| rows::projects(&answer));
    if known && maintained.is_ok_and(|rows| !rows.is_empty()) {
        return Ok(Capability::Yes);
    }
    let Some(project) = project else { return Ok(Capability::Unknown) };
    let id = project.id.0.to_string();
    let call = api.get(&["projects", &id, "hooks"]).query("per_page", "1").limit(SMALL);
    match call.send().await.and_then(accepted) {
        // Hooks that may be read may not be written by a fine-grained token.
        Ok(_) if known => Ok(Capability::Yes),
        Ok(_) => Ok(Capability::Unknown),
        Err(error) => Err(error),
    }
}

fn capabilities(
    found: &mut Inspection,
    details: &Details,
    rows: &Result<Vec<ProjectRow>, ProviderError>,
    hooks: Capability,
) {
    let list_repositories = match rows {
        Ok(_) => Capability::Yes,
        Err(ProviderError::ScopeMissing { .. } | ProviderError::Forbidden) => Capability::No,
        Err(_) => Capability::Unknown,
    };
    found.capabilities = Capabilities {
        list_repositories,
        read_code: details.holds(sufficient(CapabilityType::ReadCode)),
        manage_webhooks: hooks,
    };
    if details.holds(sufficient(CapabilityType::ManageWebhooks)) == Capability::No {
        found.capabilities.manage_webhooks = Capability::No;
    }
}

/// Compares the scopes with the wanted capabilities. A token that is good for none of them is of no use.
fn scopes(found: &mut Inspection, details: &Details, wanted: &[CapabilityType]) {
    let check = Check::Scopes;
    let Some(granted) = details.scopes() else {
        let message = "GitLab does not tell the permissions of this token";
        found.checks.push(CheckResult::skipped(check, message));
        return;
    };
    found.granted_scopes.clone_from(granted);
    let lacking: Vec<CapabilityType> = wanted
        .iter()
        .copied()
        .filter(|capability| details.holds(sufficient(*capability)) == Capability::No)
        .collect();
    let mut missing: Vec<String> = lacking
        .iter()
        .filter_map(|capability| sufficient(*capability).first())
        .map(|scope| (*scope).to_owned())
        .collect();
    missing.dedup();
    found.missing_scopes = missing;
    if lacking.is_empty() {
        found
            .checks
            .push(CheckResult::pass(check, format!("the token has the scopes: {}", granted.join(", "))));
        return;
    }
    let needs: Vec<String> = lacking
        .iter()
        .map(|capability| format!("{} needs {}", capability.as_str(), sufficient(*capability).join(" or ")))
        .collect();
    let message = format!("the token lacks scopes: {}", needs.join("; "));
    let remedy =
        format!("Make a token that has {} too, and replace this one.", found.missing_scopes.join(", "));
    let reason = "CREDENTIAL_SCOPE_MISSING";
    if lacking.len() == wanted.len() {
        found.failure = Some(ProviderError::ScopeMissing { scopes: found.missing_scopes.clone() });
        found.checks.push(CheckResult::fail(check, reason, message, remedy));
    } else {
        found.checks.push(CheckResult::warn(check, reason, message, remedy));
    }
}

fn list_check(
    found: &mut Inspection,
    api: &Api,
    heard: &Interview,
    rows: Result<Vec<ProjectRow>, ProviderError>,
    wanted: &[CapabilityType],
) {
    let check = Check::ListRepositories;
    let is_wanted = wanted.contains(&CapabilityType::ListRepositories);
    let result = match rows {
        Ok(rows) => rows
            .first()
            .and_then(|row| foreign_links(row, api))
            .unwrap_or_else(|| CheckResult::pass(check, "projects can be listed"))
            .with_status(200),
        Err(ProviderError::ScopeMissing { .. }) if !is_wanted => {
            CheckResult::skipped(check, "the token may not list projects, and need not")
        }
        Err(error) if !is_wanted => warned(check, &error),
        Err(error) => {
            let result = failed(check, &error);
            // A missing scope was judged with the others; anything else leaves the connection without use.
            if !matches!(error, ProviderError::ScopeMissing { .. } | ProviderError::Forbidden) {
                found.failure.get_or_insert(error);
            }
            result
        }
    };
    found.checks.push(result.with_duration(heard.list.took));
}

/// A warning if a project's own links name another host: the server was not told its own address.
fn foreign_links(row: &ProjectRow, api: &Api) -> Option<CheckResult> {
    let own = api.base().host_str().unwrap_or("").to_ascii_lowercase();
    let hosts = row.link_hosts();
    // Through a gateway the cloud keeps its own name, which nobody can set.
    let foreign = hosts.iter().find(|host| **host != own && !is_cloud(host))?;
    let (reason, message) = if is_local(foreign) {
        ("PROVIDER_LINKS_LOCALHOST", "the server's links name localhost: nobody else can clone with them")
    } else {
        ("PROVIDER_LINKS_FOREIGN_HOST", "the server's links name another host than the connection")
    };
    Some(CheckResult::warn(
        Check::ListRepositories,
        reason,
        message,
        "Set `external_url` in the server's gitlab.rb (Helm: global.hosts) to the URL that people use, and \
         check the custom clone URL for HTTP(S) in its visibility and access settings.",
    ))
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || host.starts_with("127.") || host == "[::1]"
}

fn webhook_check(
    found: &mut Inspection,
    hooks: Result<Capability, ProviderError>,
    wanted: &[CapabilityType],
) {
    let check = Check::Webhooks;
    let is_wanted = wanted.contains(&CapabilityType::ManageWebhooks);
    found.checks.push(match hooks {
        Ok(Capability::Yes) => CheckResult::pass(check, "webhooks can be managed where the role allows it"),
        Ok(_) => CheckResult::skipped(check, "no project tells whether webhooks can be managed"),
        Err(_) if !is_wanted => CheckResult::skipped(check, "webhooks cannot be managed, and need not"),
        Err(ProviderError::Forbidden) => {
            found.capabilities.manage_webhooks = Capability::No;
            CheckResult::warn(
                check,
                "WEBHOOK_PERMISSION_MISSING",
                "the token's user is Maintainer of no project that was asked for",
                "Give the token's user the role Maintainer, or set up webhooks by hand.",
            )
            .with_status(403)
        }
        Err(error) => warned(check, &error),
    });
}

/// Major and minor number of a version such as `18.1.0-ee`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']);
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::super::refusal::test_answer;
    use super::*;

    fn user(body: &str) -> User {
        user_of(&test_answer(200, &[("content-type", "application/json")], body))
    }

    #[test]
    fn ac_11_releases_compare_as_numbers() {
        assert!(release("9.5.10") < release("15.5"));
        assert!(release("15.4.6-ee") < release("15.5"));
        assert_eq!(release("18.1.0-ee"), Some((18, 1)));
        assert_eq!(release("18.2-pre"), Some((18, 2)));
        for bad in ["", "GitLab", "18", "x.y"] {
            assert_eq!(release(bad), None, "{bad}");
        }
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

    #[test]
    fn every_capability_has_its_scopes() {
        let with =
            |scope: &str| Details::Known { scopes: vec![scope.to_owned()], expire_time: None, user_id: None };
        let can = |scope| CapabilityType::ALL.map(|capability| with(scope).holds(sufficient(capability)));
        assert_eq!(can("api"), [Capability::Yes; 3]);
        assert_eq!(can("read_api"), [Capability::Yes, Capability::Yes, Capability::No]);
        assert_eq!(can("read_repository"), [Capability::No, Capability::Yes, Capability::No]);
        assert_eq!(can("read_user"), [Capability::No; 3]);
    }
}
