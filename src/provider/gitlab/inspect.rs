//! The checks of a token: does it work, whose is it, what may it do, until when.

use super::MINIMUM_VERSION;
use super::endpoint::is_cloud;
use super::interview::{Details, Interview, SMALL, User};
use super::refusal::{accepted, speaks_gitlab};
use super::rows::{self, ProjectRow, TokenRow, UserRow, VersionRow};
use crate::domain::credential::{Account, Capabilities, Capability, CapabilityType, ExpireTimeSource};
use crate::domain::verification::{Check, CheckResult};
use crate::provider::api::{Answer, Api};
use crate::provider::inspection::{
    Heard, clean, failed, lacks_scopes, release, skip_rest, warned, warned_of_links, webhooks_checked,
};
use crate::provider::links::host;
use crate::provider::{Inspection, ProviderError, paging};

/// Runs all checks. The calls do not depend on each other and run side by side; two more follow where an
/// answer leaves a question open.
pub(super) async fn inspect(api: &Api, wanted: &[CapabilityType]) -> Inspection {
    let heard = Interview::conduct(api).await;
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

impl Interview {
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
    let maintained = maintained.as_ref().ok().and_then(|rows| rows.first());
    if known && maintained.is_some() {
        return Ok(Capability::Yes);
    }
    let Some(project) = maintained.or(project) else { return Ok(Capability::Unknown) };
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
    lacks_scopes(found, &needs, lacking.len() == wanted.len());
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
            .map(ProjectRow::link_hosts)
            // Without a project the link to the first page still names the configured URL.
            .or_else(|| heard.list.answer.as_ref().ok().and_then(link_host).map(|host| vec![host]))
            .and_then(|hosts| foreign_links(&hosts, api))
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

/// A warning if the server's own links name another host: the server was not told its own address.
fn foreign_links(hosts: &[String], api: &Api) -> Option<CheckResult> {
    // Through a gateway the cloud keeps its own name, which nobody can set.
    let hosts = hosts.iter().filter(|host| !is_cloud(host));
    warned_of_links(
        hosts,
        api,
        "Set `external_url` in the server's gitlab.rb (Helm: global.hosts) to the URL that people use, and \
         check the custom clone URL for HTTP(S) in its visibility and access settings.",
    )
}

/// The host of the first link to a page.
fn link_host(answer: &Answer) -> Option<String> {
    host(paging::target(&answer.headers, "first")?)
}

fn webhook_check(
    found: &mut Inspection,
    hooks: Result<Capability, ProviderError>,
    wanted: &[CapabilityType],
) {
    let is_wanted = wanted.contains(&CapabilityType::ManageWebhooks);
    if is_wanted && hooks == Err(ProviderError::Forbidden) {
        found.capabilities.manage_webhooks = Capability::No;
    }
    found.checks.push(webhooks_checked(hooks, is_wanted, || {
        CheckResult::warn(
            Check::Webhooks,
            "WEBHOOK_PERMISSION_MISSING",
            "the token's user is Maintainer of no project that was asked for",
            "Give the token's user the role Maintainer, or set up webhooks by hand.",
        )
        .with_status(403)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

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
