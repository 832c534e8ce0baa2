//! The checks of a token: does it work, whose is it, what may it do, until when.

use std::time::Duration;

use time::OffsetDateTime;

use super::endpoint::is_cloud;
use super::listing::{hidden_organizations, users_listing};
use super::refusal::{accepted, granted, holds, is_for_users_only, speaks_github};
use super::rows::{self, MetaRow, RepositoryRow, UserRow};
use super::{MINIMUM_VERSION, get, media_type};
use crate::domain::credential::{Account, Capabilities, Capability, CapabilityType, ExpireTimeSource};
use crate::domain::repository::Permission;
use crate::domain::timestamp::Timestamp;
use crate::domain::verification::{Check, CheckResult};
use crate::provider::api::{Answer, Api};
use crate::provider::inspection::{
    Heard, clean, failed, named_user, nobody, release, skip_rest, warned, warned_of_links, webhooks_checked,
};
use crate::provider::{Inspection, ProviderError, Restriction, paging};

/// What one of the small answers may have at most, in bytes; a name of a megabyte is cut, not refused.
const SMALL: usize = 2 * 1_024 * 1_024;
/// How many repositories are looked at for one that tells what the token may do.
const SAMPLE: usize = 30;
/// What a fine-grained token or an App needs to read code, in the words of `x-accepted-github-permissions`.
const READ_CODE: &str = "contents=read";
/// What it needs to manage webhooks.
const MANAGE_WEBHOOKS: &str = "repository_hooks=write";

/// Runs all checks. What does not depend on another answer is asked side by side.
pub(super) async fn inspect(api: &Api, wanted: &[CapabilityType]) -> Inspection {
    let heard = Interview::conduct(api).await;
    let mut found = Inspection::default();
    for answer in heard.answers() {
        found.server_time = answer.date().or(found.server_time);
        found.rate_limit = answer.rate_limit.or(found.rate_limit);
    }
    let (check, mismatch) = heard.provider_match();
    found.checks.push(check);
    if let Some(error) = mismatch {
        skip_rest(&mut found, Check::ServerVersion);
        found.failure = Some(error);
        return found;
    }
    if let Some(error) = heard.server_version(api, &mut found) {
        skip_rest(&mut found, Check::Authentication);
        found.failure = Some(error);
        return found;
    }
    let user = heard.token_user();
    if let Some(error) = authentication(&mut found, &heard, &user) {
        skip_rest(&mut found, Check::Identity);
        found.failure = Some(error);
        return found;
    }
    identity(&mut found, &heard, user);
    let sample = Sample::of(&heard);
    let scopes = heard.scopes();
    let (code, hooks) =
        tokio::join!(code(api, &sample, scopes.as_deref()), hooks(api, &sample, scopes.as_deref()));
    capabilities(&mut found, &sample, &code, &hooks);
    scopes_check(&mut found, scopes, &code, &hooks, wanted);
    list_check(&mut found, api, &heard, &sample, wanted);
    webhook_check(&mut found, hooks, wanted);
    found
}

/// Everything that was asked.
struct Interview {
    /// `/user`.
    user: Heard,
    /// The first repositories, of the user or of an App's installation.
    list: Heard,
    /// `/meta`, where no other answer told the version of the server.
    meta: Option<Heard>,
}

impl Interview {
    async fn conduct(api: &Api) -> Self {
        let (user, list) = tokio::join!(
            Heard::of(get(api, &["user"]).limit(SMALL), accepted),
            Heard::of(users_listing(api, SAMPLE), accepted)
        );
        let mut heard = Self { user, list, meta: None };
        let asks_version = !api.base().host_str().is_some_and(is_cloud)
            && heard.answers().all(|answer| version(answer).is_none());
        let is_installation = heard.list.answer.as_ref().is_ok_and(is_for_users_only);
        let installation = async {
            let call = get(api, &["installation", "repositories"]).query("per_page", SAMPLE.to_string());
            if is_installation { Some(Heard::of(call, accepted).await) } else { None }
        };
        let meta = async {
            // A server before 3.9 may not take a version of the API at all, and has to be told from the others.
            let call = media_type(api.get(&["meta"])).limit(SMALL);
            if asks_version { Some(Heard::of(call, accepted).await) } else { None }
        };
        let (installation, meta) = tokio::join!(installation, meta);
        heard.list = installation.unwrap_or(heard.list);
        heard.meta = meta;
        heard
    }

    fn all(&self) -> impl Iterator<Item = &Heard> {
        [&self.user, &self.list].into_iter().chain(&self.meta)
    }

    fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.all().filter_map(|heard| heard.answer.as_ref().ok())
    }

    /// The scopes of a classic token; `None` for a token that has permissions instead.
    fn scopes(&self) -> Option<Vec<String>> {
        self.answers().find_map(granted)
    }

    /// Whether it is GitHub that answers, and what ends the inspection if it is not.
    fn provider_match(&self) -> (CheckResult, Option<ProviderError>) {
        let check = Check::ProviderMatch;
        let has_shape = || self.user.accepted().is_ok_and(|answer| answer.json::<UserRow>().is_ok());
        if self.answers().any(speaks_github) || has_shape() {
            return (CheckResult::pass(check, "GitHub answers").with_duration(self.user.took), None);
        }
        // An error says more of the server than the silence of the other calls.
        if let Some(error) = self.all().find_map(|heard| heard.answer.as_ref().err()) {
            return (failed(check, error), Some(error.clone()));
        }
        let json = self.answers().find(|answer| answer.is_json() && answer.status.is_success());
        let error = if let Some(answer) = json {
            ProviderError::Failed {
                problem: "its answers are not those that GitHub documents",
                status: Some(answer.status.as_u16()),
            }
        } else if self.answers().any(Answer::is_json) {
            ProviderError::Mismatch { found: "another API" }
        } else {
            ProviderError::Mismatch { found: "a web page" }
        };
        (with_status(failed(check, &error), &self.user), Some(error))
    }

    /// Checks the version, and answers what ends the inspection if it is too low.
    fn server_version(&self, api: &Api, found: &mut Inspection) -> Option<ProviderError> {
        let check = Check::ServerVersion;
        let told = self.answers().find_map(version).map(str::to_owned);
        let told = match (told, &self.meta) {
            (Some(told), _) => told,
            (None, None) => String::new(),
            (None, Some(meta)) => match meta.accepted().and_then(|answer| answer.json::<MetaRow>()) {
                Ok(row) => row.installed_version.unwrap_or_default(),
                Err(ProviderError::CredentialRejected { .. }) => {
                    let message = "the version is told to good tokens alone";
                    found.checks.push(CheckResult::skipped(check, message));
                    return None;
                }
                Err(error) => {
                    found.checks.push(warned(check, &error));
                    return None;
                }
            },
        };
        let told = clean(&told);
        if told.is_empty() {
            let is_gateway = !api.base().host_str().is_some_and(is_cloud);
            let cloud =
                if is_gateway { "GitHub's own cloud, behind a gateway," } else { "GitHub's own cloud" };
            found.checks.push(CheckResult::skipped(check, format!("{cloud} has no version")));
            return None;
        }
        found.server_version.clone_from(&told);
        match (release(&told), release(MINIMUM_VERSION)) {
            (Some(release), Some(minimum)) if release < minimum => {
                let error = ProviderError::VersionUnsupported { found: told, minimum: MINIMUM_VERSION };
                found.checks.push(failed(check, &error));
                Some(error)
            }
            (Some(_), _) => {
                found.checks.push(CheckResult::pass(check, format!("GitHub Enterprise Server {told}")));
                None
            }
            (None, _) => {
                found.checks.push(CheckResult::warn(
                    check,
                    "PROVIDER_VERSION_UNKNOWN",
                    "the version that the server tells is none",
                    format!(
                        "Make sure that the server has GitHub Enterprise Server {MINIMUM_VERSION} or later."
                    ),
                ));
                None
            }
        }
    }

    /// What the token's user is, as far as the token may ask.
    fn token_user(&self) -> User {
        match self.user.accepted() {
            Ok(answer) => user_of(&answer),
            Err(ProviderError::ScopeMissing { .. }) => User::MayNotAsk,
            // That a repository is shut says nothing of the token.
            Err(error @ ProviderError::Restricted { by: Restriction::RepositoryBlocked }) => {
                User::Refused(error)
            }
            Err(error @ ProviderError::Restricted { .. }) => User::Restricted(error),
            Err(error) => User::Refused(error),
        }
    }
}

/// The version that an answer of Enterprise Server tells (microsoft/vscode-pull-request-github#3983).
fn version(answer: &Answer) -> Option<&str> {
    answer.header("x-github-enterprise-version")
}

/// What `/user` said.
enum User {
    Named(Account),
    /// Refused in words that only an accepted token gets: that of an App's installation.
    MayNotAsk,
    /// Accepted, but a rule stands against its use.
    Restricted(ProviderError),
    /// The token is refused, nobody stands behind it, or the question was not answered.
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

fn with_status(result: CheckResult, heard: &Heard) -> CheckResult {
    match heard.status() {
        Some(status) => result.with_status(status),
        None => result,
    }
}

/// The token works if GitHub names its user, or refuses to in words that only an accepted token gets. Answers what
/// ends the inspection if it does not.
fn authentication(found: &mut Inspection, heard: &Interview, user: &User) -> Option<ProviderError> {
    let check = Check::Authentication;
    if let User::Refused(error) = user {
        found.checks.push(failed(check, error));
        return Some(error.clone());
    }
    let result = CheckResult::pass(check, "GitHub accepts the token").with_duration(heard.user.took);
    found.checks.push(with_status(result, &heard.user));
    found.expire_time = heard.answers().find_map(expire_time);
    if found.expire_time.is_some() {
        found.expire_time_source = ExpireTimeSource::Provider;
    }
    None
}

/// When the token ends: `2024-06-17 10:06:09 +0100` or `2023-01-31 23:00:00 UTC`. The present time was seen here
/// (google/go-github#3708), but a token that works has not ended.
fn expire_time(answer: &Answer) -> Option<Timestamp> {
    const SLACK: Duration = Duration::from_secs(60);
    let format = time::macros::format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
    );
    let text = answer.header("github-authentication-token-expiration")?.trim();
    let text = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |text| format!("{text}+0000"));
    let end = OffsetDateTime::parse(&text, &format).ok()?;
    let end = Timestamp::from_unix_seconds(end.unix_timestamp());
    (end > answer.date()?.saturating_add(SLACK)).then_some(end)
}

fn identity(found: &mut Inspection, heard: &Interview, user: User) {
    let check = Check::Identity;
    let result = match user {
        User::Named(account) => {
            found.account = Some(account);
            CheckResult::pass(check, "GitHub names the token's user").with_duration(heard.user.took)
        }
        User::MayNotAsk => {
            CheckResult::skipped(check, "the token is of an App's installation, which is no user")
        }
        User::Restricted(error) | User::Refused(error) => warned(check, &error),
    };
    found.checks.push(with_status(result, &heard.user));
}

/// The first repositories that the token sees.
struct Sample {
    rows: Result<Vec<RepositoryRow>, ProviderError>,
    /// Whether there are no others.
    is_all: bool,
}

impl Sample {
    fn of(heard: &Interview) -> Self {
        let answer = heard.list.accepted();
        let is_all = answer.as_ref().is_ok_and(|answer| paging::target(&answer.headers, "next").is_none());
        Self { rows: answer.and_then(|answer| rows::repositories(&answer)).map(|(rows, _)| rows), is_all }
    }

    /// The first one whose settings and code can be asked for and that `fits`.
    fn find(&self, fits: impl Fn(&RepositoryRow) -> bool) -> Option<&RepositoryRow> {
        self.rows.as_ref().ok()?.iter().find(|row| row.is_open() && fits(row))
    }
}

/// Whether the token may read code: a classic one by its scopes, another one by reading that of a private repository,
/// for anybody reads what is public.
async fn code(api: &Api, sample: &Sample, scopes: Option<&[String]>) -> Result<Capability, ProviderError> {
    if let Some(scopes) = scopes {
        return if holds(scopes, "public_repo") {
            Ok(Capability::Yes)
        } else {
            Err(ProviderError::ScopeMissing { scopes: vec!["repo".to_owned()] })
        };
    }
    let Some(row) = sample.find(|row| row.private == Some(true)) else { return Ok(Capability::Unknown) };
    let id = row.id.0.to_string();
    let call = get(api, &["repositories", &id, "branches"]).query("per_page", "1").limit(SMALL);
    match call.send().await.and_then(accepted) {
        // Of an empty repository it says 409.
        Ok(_) | Err(ProviderError::Failed { status: Some(409), .. }) => Ok(Capability::Yes),
        Err(ProviderError::ScopeMissing { .. } | ProviderError::Forbidden) => {
            Err(ProviderError::ScopeMissing { scopes: vec![READ_CODE.to_owned()] })
        }
        Err(_) => Ok(Capability::Unknown),
    }
}

/// Whether webhooks can be managed anywhere. `permissions.admin` says what the user may do, so the token is asked
/// about the hooks of such a repository; there a 404 means that it may not.
async fn hooks(api: &Api, sample: &Sample, scopes: Option<&[String]>) -> Result<Capability, ProviderError> {
    if let Some(scopes) = scopes
        && !holds(scopes, "admin:repo_hook")
        && !holds(scopes, "public_repo")
    {
        return Err(ProviderError::ScopeMissing { scopes: vec!["admin:repo_hook".to_owned()] });
    }
    let administered = sample.find(|row| row.permission() == Permission::Admin);
    // The rows of an App's installation name no role. About a repository that the user does not administer, the refusal
    // of a fine-grained token would say nothing of the token.
    let asked = administered
        .or_else(|| sample.find(|row| scopes.is_none() && row.permission() == Permission::Unknown));
    let nowhere = || match (&sample.rows, sample.is_all) {
        (Ok(rows), true) if !rows.is_empty() => Err(ProviderError::Forbidden),
        _ => Ok(Capability::Unknown),
    };
    let Some(row) = asked else { return nowhere() };
    let id = row.id.0.to_string();
    let call = get(api, &["repositories", &id, "hooks"]).query("per_page", "1").limit(SMALL);
    match call.send().await.and_then(accepted) {
        Ok(_) if scopes.is_some() => Ok(Capability::Yes),
        // Hooks that may be read may not be written by a fine-grained token.
        Ok(_) => Ok(Capability::Unknown),
        Err(ProviderError::ScopeMissing { .. }) if scopes.is_none() => {
            Err(ProviderError::ScopeMissing { scopes: vec![MANAGE_WEBHOOKS.to_owned()] })
        }
        Err(ProviderError::NotFound) if administered.is_none() => nowhere(),
        Err(ProviderError::NotFound) => Err(ProviderError::Forbidden),
        Err(error) => Err(error),
    }
}

fn capabilities(
    found: &mut Inspection,
    sample: &Sample,
    code: &Result<Capability, ProviderError>,
    hooks: &Result<Capability, ProviderError>,
) {
    let of = |outcome: &Result<Capability, ProviderError>| match outcome {
        Ok(capability) => *capability,
        Err(
            ProviderError::ScopeMissing { .. } | ProviderError::Forbidden | ProviderError::Restricted { .. },
        ) => Capability::No,
        Err(_) => Capability::Unknown,
    };
    found.capabilities = Capabilities {
        list_repositories: of(&sample.rows.as_ref().map(|_| Capability::Yes).map_err(Clone::clone)),
        read_code: of(code),
        manage_webhooks: of(hooks),
    };
}

/// Compares what the token may do with the wanted capabilities. A token that is good for none of them is of no use.
fn scopes_check(
    found: &mut Inspection,
    scopes: Option<Vec<String>>,
    code: &Result<Capability, ProviderError>,
    hooks: &Result<Capability, ProviderError>,
    wanted: &[CapabilityType],
) {
    let check = Check::Scopes;
    let lacks = |capability: CapabilityType| {
        let outcome = match capability {
            CapabilityType::ListRepositories => return None,
            CapabilityType::ReadCode => code,
            CapabilityType::ManageWebhooks => hooks,
        };
        match outcome {
            Err(ProviderError::ScopeMissing { scopes }) => Some((capability, scopes.join(" or "))),
            _ => None,
        }
    };
    let lacking: Vec<(CapabilityType, String)> = wanted.iter().copied().filter_map(lacks).collect();
    found.missing_scopes = lacking.iter().map(|(_, scope)| scope.clone()).collect();
    if !lacking.is_empty() {
        let needs: Vec<String> = lacking
            .iter()
            .map(|(capability, scope)| format!("{} needs {scope}", capability.as_str()))
            .collect();
        let message = format!("the token lacks scopes: {}", needs.join("; "));
        let missing = found.missing_scopes.join(", ");
        let remedy = format!("Make a token that has {missing} too, and replace this one.");
        let reason = "CREDENTIAL_SCOPE_MISSING";
        found.checks.push(if lacking.len() == wanted.len() {
            found.failure = Some(ProviderError::ScopeMissing { scopes: found.missing_scopes.clone() });
            CheckResult::fail(check, reason, message, remedy)
        } else {
            CheckResult::warn(check, reason, message, remedy)
        });
    }
    let result = match &scopes {
        None => CheckResult::skipped(check, "GitHub tells the permissions of such a token nowhere"),
        Some(scopes) if !holds(scopes, "repo") => CheckResult::warn(
            check,
            "PUBLIC_REPOSITORIES_ONLY",
            "without the scope repo, only public repositories are seen",
            "If private repositories belong to it, make a token that has repo, and replace this one.",
        ),
        Some(scopes) => CheckResult::pass(check, format!("the token has the scopes: {}", scopes.join(", "))),
    };
    if lacking.is_empty() {
        found.checks.push(result);
    }
    found.granted_scopes = scopes.unwrap_or_default();
}

fn list_check(
    found: &mut Inspection,
    api: &Api,
    heard: &Interview,
    sample: &Sample,
    wanted: &[CapabilityType],
) {
    let check = Check::ListRepositories;
    let is_wanted = wanted.contains(&CapabilityType::ListRepositories);
    let result = match &sample.rows {
        Ok(rows) => hidden_check(heard)
            .or_else(|| rows.first().and_then(|row| foreign_links(row, api)))
            .unwrap_or_else(|| CheckResult::pass(check, "repositories can be listed"))
            .with_status(200),
        Err(ProviderError::ScopeMissing { .. }) if !is_wanted => {
            CheckResult::skipped(check, "the token may not list repositories, and need not")
        }
        Err(error) if !is_wanted => warned(check, error),
        Err(error) => {
            found.failure.get_or_insert_with(|| error.clone());
            failed(check, error)
        }
    };
    found.checks.push(result.with_duration(heard.list.took));
}

/// A warning if GitHub left organizations out.
fn hidden_check(heard: &Interview) -> Option<CheckResult> {
    let warning = heard.answers().find_map(hidden_organizations)?;
    let remedy = "Authorize the token for the organizations' single sign-on, or leave it: they stay hidden.";
    Some(CheckResult::warn(Check::ListRepositories, warning.reason, warning.message, remedy))
}

/// A warning if the server's own links name another host: the server was not told its own address.
fn foreign_links(row: &RepositoryRow, api: &Api) -> Option<CheckResult> {
    // Through a gateway the cloud keeps its own name, which nobody can set.
    let hosts: Vec<String> = row.link_hosts().into_iter().filter(|host| !is_cloud(host)).collect();
    warned_of_links(
        &hosts,
        api,
        "Set the host name of the server in its Management Console (Settings, Hostname) to the one that people use. Or \
         connect to the host that it names.",
    )
}

fn webhook_check(
    found: &mut Inspection,
    hooks: Result<Capability, ProviderError>,
    wanted: &[CapabilityType],
) {
    let is_wanted = wanted.contains(&CapabilityType::ManageWebhooks);
    found.checks.push(webhooks_checked(hooks, is_wanted, || {
        CheckResult::warn(
            Check::Webhooks,
            "WEBHOOK_PERMISSION_MISSING",
            "the token's user administers no repository that was asked for",
            "Give the token's user the role Admin, or set up webhooks by hand.",
        )
        .with_status(404)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    #[test]
    fn the_end_of_a_token_is_read_in_both_forms() {
        let end = |text: &str| {
            let headers =
                [("github-authentication-token-expiration", text), ("date", "Mon, 10 Jun 2024 09:07:17 GMT")];
            expire_time(&test_answer(200, &headers, "{}")).map(Timestamp::unix_seconds)
        };
        // `exchanges/user-200-fine-grained-pat.json`.
        assert_eq!(end("2024-06-17 10:06:09 +0100"), Some(1_718_615_169));
        assert_eq!(end("2024-06-17 09:06:09 UTC"), Some(1_718_615_169));
        assert_eq!(end("2024-06-10 09:07:17 UTC"), None, "the present time");
        assert_eq!(end("2020-01-01 00:00:00 UTC"), None, "a token that works has not ended");
        for odd in ["", "never", "2024-06-17", "2024-06-17T10:06:09Z"] {
            assert_eq!(end(odd), None, "{odd}");
        }
        let undated = [("github-authentication-token-expiration", "2024-06-17 09:06:09 UTC")];
        assert_eq!(expire_time(&test_answer(200, &undated, "{}")), None);
    }

    #[test]
    fn ac_18_h48_a_bare_200_names_nobody() {
        let user = |body: &str| user_of(&test_answer(200, &[("content-type", "application/json")], body));
        let nobody = |body| matches!(user(body), User::Refused(ProviderError::CredentialRejected { .. }));
        assert!(nobody("null") && nobody(r#"{"id":null,"login":null}"#) && nobody(r#"{"id":1,"login":""}"#));
        let garbled = |body| matches!(user(body), User::Refused(ProviderError::Failed { .. }));
        assert!(garbled("{}") && garbled("[]") && garbled("<html>") && garbled(r#"{"id":"1","login":"x"}"#));
        assert!(matches!(user(r#"{"id":1,"login":"sam"}"#), User::Named(account) if account.login == "sam"));
    }
}
