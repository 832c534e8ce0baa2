//! The checks of a token: does it work, whose is it, what may it do.
//!
//! Tokens do not end. Their scopes are told by `/token` since 1.27, by refusals since 1.23, and by nobody before and
//! in Forgejo: there only what was refused or allowed is known.

use super::interview::{Granted, Interview, User, is_version};
use super::refusal::{accepted, speaks_gitea};
use super::rows::{RepositoryRow, UserRow, VersionRow};
use super::{READ_REPOSITORY, WRITE_REPOSITORY};
use crate::domain::credential::{Capabilities, Capability, CapabilityType};
use crate::domain::verification::{Check, CheckResult};
use crate::provider::api::{Answer, Api};
use crate::provider::inspection::{clean, failed, lacks_scopes, release, skip_rest, warned, warned_of_links};
use crate::provider::{Inspection, ProviderError, Restriction};

/// The lowest version of Gitea: its tokens have the scopes of today.
const MINIMUM_GITEA: &str = "1.20";
/// The lowest version of Forgejo, the first with numbers of its own.
const MINIMUM_FORGEJO: &str = "7.0";
/// Behind the last page of every listing of webhooks: whether they may be read is all that is asked, and each would
/// bring what is sent along with its deliveries.
const NO_WEBHOOKS_PAGE: &str = "1000000";

/// Runs all checks.
pub(super) async fn inspect(api: &Api, wanted: &[CapabilityType]) -> Inspection {
    let heard = Interview::conduct(api).await;
    let mut found = Inspection::default();
    heard.note_clock_and_quota(&mut found);

    let (check, mismatch) = provider_match(&heard);
    found.checks.push(check);
    if let Some(error) = mismatch {
        skip_rest(&mut found, Check::ServerVersion);
        found.failure = Some(error);
        return found;
    }
    if let Some(error) = server_version(&mut found, &heard) {
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
    let granted = heard.granted();
    let rows = heard.repositories();
    let hooks = hooks(api, &granted, &heard, rows.as_deref().unwrap_or_default()).await;
    capabilities(&mut found, &granted, &rows, &hooks);
    scopes(&mut found, &granted, wanted);
    list_check(&mut found, api, &heard, rows, wanted);
    webhook_check(&mut found, hooks, wanted);
    found
}

/// Whether it is Gitea or Forgejo that answers, and what ends the inspection if it is neither.
fn provider_match(heard: &Interview) -> (CheckResult, Option<ProviderError>) {
    let check = Check::ProviderMatch;
    let answers: Vec<&Answer> = heard.all().filter_map(|heard| heard.answer.as_ref().ok()).collect();
    let names_user = heard.user.accepted().is_ok_and(|answer| answer.json::<UserRow>().is_ok());
    // Others tell a version at that path, too; they have no users there.
    let tells_version =
        heard.version.answer.as_ref().is_ok_and(is_version) && heard.user.status() != Some(404);
    if names_user || tells_version || answers.iter().any(|answer| speaks_gitea(answer)) {
        let result = CheckResult::pass(check, "Gitea or Forgejo answers");
        return (result.with_duration(heard.version.took), None);
    }
    // An error says more of the server than the silence of the other calls.
    if let Some(error) = heard.all().find_map(|heard| heard.answer.as_ref().err()) {
        return (failed(check, error), Some(error.clone()));
    }
    let json = answers.iter().find(|answer| answer.is_json() && answer.status.is_success());
    let error = if let Some(answer) = json {
        ProviderError::Failed {
            problem: "its answers are not those that Gitea documents",
            status: Some(answer.status.as_u16()),
        }
    } else if answers.iter().any(|answer| answer.is_json()) {
        ProviderError::Mismatch { found: "another API" }
    } else {
        ProviderError::Mismatch { found: "a web page" }
    };
    let result = failed(check, &error);
    let result = match heard.version.status() {
        Some(status) => result.with_status(status),
        None => result,
    };
    (result, Some(error))
}

/// Checks the version, and answers what ends the inspection if it is too low.
fn server_version(found: &mut Inspection, heard: &Interview) -> Option<ProviderError> {
    let check = Check::ServerVersion;
    let row = heard.version.accepted().and_then(|answer| answer.json::<VersionRow>());
    let version = match row {
        Ok(row) => clean(&row.version),
        Err(ProviderError::CredentialRejected { .. } | ProviderError::ScopeMissing { .. }) => {
            found.checks.push(CheckResult::skipped(check, "the version is told to good tokens alone"));
            return None;
        }
        Err(error) => {
            found.checks.push(warned(check, &error));
            return None;
        }
    };
    found.server_version.clone_from(&version);
    let product = Product::of(&version);
    let minimum = product.minimum();
    match (release(product.version), release(minimum)) {
        (Some(release), Some(lowest)) if release < lowest => {
            let error = ProviderError::VersionUnsupported { found: version, minimum };
            found.checks.push(failed(check, &error).with_status(200));
            Some(error)
        }
        (Some(_), _) => {
            let result = CheckResult::pass(check, format!("{} {}", product.name(), product.version));
            found.checks.push(result.with_status(200).with_duration(heard.version.took));
            None
        }
        (None, _) => {
            found.checks.push(CheckResult::warn(
                check,
                "PROVIDER_VERSION_UNKNOWN",
                "the version that the server tells is none",
                format!("Make sure that the server has {} {minimum} or later.", product.name()),
            ));
            None
        }
    }
}

/// Which of the two programs answers, in which version of its own.
#[derive(Debug, PartialEq, Eq)]
struct Product<'a> {
    version: &'a str,
    is_forgejo: bool,
}

impl<'a> Product<'a> {
    /// Reads `1.27.0`, `1.26.0+dev-123-gabc`, and `11.0.3+gitea-1.22.0`: Forgejo tells its own version first, then
    /// that of Gitea whose API it keeps to.
    fn of(text: &'a str) -> Self {
        let (version, build) = text.split_once('+').unwrap_or((text, ""));
        Self { version, is_forgejo: build.contains("gitea-") }
    }

    const fn name(&self) -> &'static str {
        if self.is_forgejo { "Forgejo" } else { "Gitea" }
    }

    const fn minimum(&self) -> &'static str {
        if self.is_forgejo { MINIMUM_FORGEJO } else { MINIMUM_GITEA }
    }
}

/// The token works if its user is named, or refused in words that only an accepted token gets. Answers what ends the
/// inspection if it does not.
fn authentication(found: &mut Inspection, heard: &Interview, user: &User) -> Option<ProviderError> {
    let check = Check::Authentication;
    match user {
        User::Named(_) | User::MayNotAsk => {
            let result = CheckResult::pass(check, "the server accepts the token");
            let result = result.with_duration(heard.user.took);
            found.checks.push(match heard.user.status() {
                Some(status) => result.with_status(status),
                None => result,
            });
            None
        }
        User::Refused(error) | User::Unanswered(error) => {
            found.checks.push(failed(check, error));
            Some(error.clone())
        }
    }
}

fn identity(found: &mut Inspection, heard: &Interview, user: User) {
    let check = Check::Identity;
    let result = if let User::Named(account) = user {
        found.account = Some(account);
        CheckResult::pass(check, "the server names the token's user").with_duration(heard.user.took)
    } else {
        CheckResult::skipped(check, "the token may not ask whose it is; read:user would allow it")
    };
    found.checks.push(match heard.user.status() {
        Some(status) => result.with_status(status),
        None => result,
    });
}

/// What is known of webhooks.
enum Hooks {
    /// They can be managed somewhere, or nobody told.
    Told(Capability),
    /// They cannot, or the question failed.
    Not(ProviderError),
    /// The administrator switched them off for everybody.
    SwitchedOff,
}

/// Whether the token's user may manage webhooks anywhere: the scope, a repository that the user administers, and the
/// exact question about it, for the permissions of a row are the user's and not the token's.
async fn hooks(api: &Api, granted: &Granted, heard: &Interview, rows: &[RepositoryRow]) -> Hooks {
    let scope = granted.holds(WRITE_REPOSITORY);
    if scope == Capability::No {
        return Hooks::Not(ProviderError::ScopeMissing { scopes: vec![WRITE_REPOSITORY.to_owned()] });
    }
    // A token for public repositories is refused at the others, although it lists them.
    let open = |row: &&RepositoryRow| !(granted.is_public_only() && row.is_private());
    let Some(row) = rows.iter().filter(open).find(|row| row.is_administered()) else {
        let total = heard.list.accepted().and_then(|answer| answer.count("x-total-count"));
        let is_all = matches!(total, Ok(Some(total)) if total <= rows.len() as u64);
        return if is_all && !rows.is_empty() {
            Hooks::Not(ProviderError::Forbidden)
        } else {
            Hooks::Told(Capability::Unknown)
        };
    };
    let Some((owner, name)) = row.full_name.split_once('/') else {
        return Hooks::Told(Capability::Unknown);
    };
    let call = api.get(&["repos", owner, name, "hooks"]).query("page", NO_WEBHOOKS_PAGE).query("limit", "1");
    match call.send().await.and_then(accepted) {
        Err(ProviderError::Restricted { by: Restriction::WebhooksDisabled }) => Hooks::SwitchedOff,
        // Hooks that may be read may not be written; only a told scope is sure.
        answer => answer.map_or_else(Hooks::Not, |_| Hooks::Told(scope)),
    }
}

fn capabilities(
    found: &mut Inspection,
    granted: &Granted,
    rows: &Result<Vec<RepositoryRow>, ProviderError>,
    hooks: &Hooks,
) {
    found.capabilities = Capabilities {
        list_repositories: match rows {
            Ok(_) => Capability::Yes,
            Err(ProviderError::ScopeMissing { .. } | ProviderError::Forbidden) => Capability::No,
            Err(_) => Capability::Unknown,
        },
        read_code: granted.holds(READ_REPOSITORY),
        manage_webhooks: match hooks {
            Hooks::Told(capability) => *capability,
            Hooks::Not(ProviderError::ScopeMissing { .. } | ProviderError::Forbidden)
            | Hooks::SwitchedOff => Capability::No,
            Hooks::Not(_) => Capability::Unknown,
        },
    };
}

/// The scope without which a capability is out of reach. Its user's name is not needed to list repositories, only to
/// list all of them.
const fn needed(capability: CapabilityType) -> &'static str {
    match capability {
        CapabilityType::ListRepositories | CapabilityType::ReadCode => READ_REPOSITORY,
        CapabilityType::ManageWebhooks => WRITE_REPOSITORY,
    }
}

/// Compares the scopes with the wanted capabilities. A token that is good for none of them is of no use.
fn scopes(found: &mut Inspection, granted: &Granted, wanted: &[CapabilityType]) {
    let check = Check::Scopes;
    found.granted_scopes = granted.told.clone().unwrap_or_default();
    let lacking: Vec<CapabilityType> = wanted
        .iter()
        .copied()
        .filter(|capability| granted.holds(needed(*capability)) == Capability::No)
        .collect();
    let mut missing: Vec<String> = lacking.iter().map(|capability| needed(*capability).to_owned()).collect();
    missing.dedup();
    found.missing_scopes = missing;
    if lacking.is_empty() {
        found.checks.push(match &granted.told {
            None => CheckResult::skipped(check, "the server does not tell the scopes of this token"),
            Some(_) if granted.is_public_only() => CheckResult::warn(
                check,
                "CREDENTIAL_PUBLIC_ONLY",
                "the token is limited to public repositories: private ones are neither listed nor opened",
                "Make a token without that limit (scope public-only) and replace this one.",
            ),
            Some(told) => CheckResult::pass(check, format!("the token has the scopes: {}", told.join(", "))),
        });
        return;
    }
    let needs: Vec<String> = lacking
        .iter()
        .map(|capability| format!("{} needs {}", capability.as_str(), needed(*capability)))
        .collect();
    lacks_scopes(found, &needs, lacking.len() == wanted.len());
}

fn list_check(
    found: &mut Inspection,
    api: &Api,
    heard: &Interview,
    rows: Result<Vec<RepositoryRow>, ProviderError>,
    wanted: &[CapabilityType],
) {
    let check = Check::ListRepositories;
    let is_wanted = wanted.contains(&CapabilityType::ListRepositories);
    let result = match rows {
        Ok(_) if heard.search.is_some() => CheckResult::warn(
            check,
            "CREDENTIAL_SCOPE_MISSING",
            "the token may not name its user, so public repositories that the user may only read are not listed",
            "Make a token that has read:user too, and replace this one.",
        )
        .with_status(200),
        Ok(rows) => {
            let user = heard.user.accepted().and_then(|answer| answer.json::<UserRow>());
            let hosts = rows.first().map(RepositoryRow::link_hosts);
            // Without a repository the link to the user still names the configured URL.
            let hosts = hosts.unwrap_or_else(|| user.ok().and_then(|user| user.link_host()).into_iter().collect());
            let remedy = "Set ROOT_URL in the section [server] of the server's app.ini to the URL that people use.";
            warned_of_links(&hosts, api, remedy)
                .unwrap_or_else(|| CheckResult::pass(check, "repositories can be listed"))
                .with_status(200)
        }
        Err(ProviderError::ScopeMissing { .. }) if !is_wanted => {
            CheckResult::skipped(check, "the token may not list repositories, and need not")
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
    let took = heard.search.as_ref().map_or(heard.list.took, |search| search.took);
    found.checks.push(result.with_duration(took));
}

fn webhook_check(found: &mut Inspection, hooks: Hooks, wanted: &[CapabilityType]) {
    let check = Check::Webhooks;
    let is_wanted = wanted.contains(&CapabilityType::ManageWebhooks);
    found.checks.push(match hooks {
        Hooks::Told(Capability::Yes) => {
            CheckResult::pass(check, "webhooks can be managed where the user is an administrator")
        }
        Hooks::Told(_) => CheckResult::skipped(check, "nothing tells whether webhooks can be managed"),
        Hooks::SwitchedOff | Hooks::Not(_) if !is_wanted => {
            CheckResult::skipped(check, "webhooks cannot be managed, and need not")
        }
        Hooks::SwitchedOff => CheckResult::warn(
            check,
            "WEBHOOK_PERMISSION_MISSING",
            "the server's administrator switched webhooks off",
            "Ask the administrator to set DISABLE_WEBHOOKS to false in the server's app.ini.",
        )
        .with_status(403),
        Hooks::Not(ProviderError::Forbidden) => CheckResult::warn(
            check,
            "WEBHOOK_PERMISSION_MISSING",
            "the token's user is an administrator of no repository",
            "Give the token's user administrator access, or set up webhooks by hand.",
        ),
        Hooks::Not(error) => warned(check, &error),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ac_11_forgejo_is_told_by_what_it_is_compatible_with() {
        let product = |text| {
            let product = Product::of(text);
            (product.name(), product.version, release(product.version) < release(product.minimum()))
        };
        assert_eq!(product("1.27.0"), ("Gitea", "1.27.0", false));
        assert_eq!(product("1.26.0+dev-123-g3db3c05"), ("Gitea", "1.26.0", false));
        assert_eq!(product("1.19.4"), ("Gitea", "1.19.4", true));
        assert_eq!(product("11.0.3+gitea-1.22.0"), ("Forgejo", "11.0.3", false));
        assert_eq!(product("7.0.0+gitea-1.22.0"), ("Forgejo", "7.0.0", false));
        // Before 7 the two counted alike, so this is older than it looks.
        assert_eq!(product("1.21.11-1+0-gitea-1.21.11"), ("Forgejo", "1.21.11-1", true));
    }
}
