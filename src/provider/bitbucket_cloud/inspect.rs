//! The checks of a token: does it work, whose is it, what may it do. When it ends, nothing tells.

use super::endpoint::is_cloud;
use super::interview::{Interview, SMALL, User, missing};
use super::refusal::{accepted, speaks_bitbucket};
use super::rows::{RepositoryRow, UserRow};
use crate::domain::credential::{Capabilities, Capability, CapabilityType};
use crate::domain::verification::{Check, CheckResult};
use crate::provider::api::{Answer, Api};
use crate::provider::inspection::{failed, lacks_scopes, skip_rest, warned, webhooks_checked};
use crate::provider::{Inspection, ProviderError};

const TOKEN_REMEDY: &str = "Bitbucket says no more than that it refuses the token. Check that an API token goes with the \
    e-mail address of its Atlassian account (email_api_token) and was made with scopes, and that an access token of a \
    repository, project or workspace is sent as resource_token; either may have ended (API tokens after a year at \
    most). App passwords were removed: create an API token.";

/// Runs all checks.
pub(super) async fn inspect(api: &Api, wanted: &[CapabilityType]) -> Inspection {
    let heard = Interview::conduct(api).await;
    let mut found = Inspection::default();
    heard.note_clock_and_quota(&mut found);

    let (check, mismatch) = provider_match(&heard, api);
    found.checks.push(check);
    if let Some(error) = mismatch {
        skip_rest(&mut found, Check::ServerVersion);
        found.failure = Some(error);
        return found;
    }
    found.checks.push(CheckResult::skipped(Check::ServerVersion, "Bitbucket Cloud tells no version"));
    let user = heard.token_user();
    if let Some(error) = authentication(&mut found, &heard, &user) {
        skip_rest(&mut found, Check::Identity);
        found.failure = Some(error);
        return found;
    }
    identity(&mut found, &heard, user);
    let granted = heard.granted();
    let rows = heard.repositories();
    let hooks =
        hooks(api, &heard, granted.as_deref(), rows.as_ref().ok().and_then(|rows| rows.first())).await;
    found.capabilities = capabilities(api, &heard, granted.as_deref(), &rows, &hooks);
    scopes(&mut found, api, granted, wanted);
    list_check(&mut found, &heard, rows, wanted);
    webhook_check(&mut found, hooks, wanted);
    found
}

/// Whether it is Bitbucket Cloud that answers, and what ends the inspection if it is not.
fn provider_match(heard: &Interview, api: &Api) -> (CheckResult, Option<ProviderError>) {
    let check = Check::ProviderMatch;
    let has_shape = heard.user.accepted().is_ok_and(|answer| answer.json::<UserRow>().is_ok());
    if heard.answers().any(speaks_bitbucket) || has_shape {
        let result = CheckResult::pass(check, "Bitbucket Cloud answers");
        return (result.with_duration(heard.user.took), None);
    }
    // An error says more of the server than the silence of the other calls.
    let error = heard.all().find_map(|heard| heard.answer.as_ref().err());
    let error = if let Some(error) = error {
        error.clone()
    } else if let Some(answer) = heard.answers().find(|answer| answer.is_json() && answer.status.is_success())
    {
        ProviderError::Failed {
            problem: "its answers are not those that Bitbucket Cloud documents",
            status: Some(answer.status.as_u16()),
        }
    } else if is_cloud(api.base()) {
        // Nobody else has the certificate of that name.
        ProviderError::Failed {
            problem: "something in front of it answered in its place",
            status: heard.user.status(),
        }
    } else if heard.answers().any(Answer::is_json) {
        ProviderError::Mismatch { found: "another API" }
    } else {
        ProviderError::Mismatch { found: "a web page" }
    };
    let result = failed(check, &error);
    let result = match heard.user.status() {
        Some(status) => result.with_status(status),
        None => result,
    };
    (result, Some(error))
}

/// The token works if its user is named, if that is refused in words that only an accepted token gets, or if another
/// answer names the kind of the credential. Answers what ends the inspection if it does not.
fn authentication(found: &mut Inspection, heard: &Interview, user: &User) -> Option<ProviderError> {
    let check = Check::Authentication;
    let error = match user {
        User::Refused(error) => error,
        User::Unanswered(error) if heard.kind().is_none() => error,
        User::Named(_) | User::MayNotAsk | User::Unanswered(_) => {
            let message = match heard.kind() {
                Some(kind) => format!("Bitbucket accepts the token ({})", kind_words(kind)),
                None => "Bitbucket accepts the token".to_owned(),
            };
            let result = CheckResult::pass(check, message).with_duration(heard.user.took);
            found.checks.push(match heard.user.status() {
                Some(status) => result.with_status(status),
                None => result,
            });
            return None;
        }
    };
    let result = failed(check, error);
    let is_rejected = matches!(error, ProviderError::CredentialRejected { .. });
    found.checks.push(if is_rejected {
        CheckResult { remedy: TOKEN_REMEDY.to_owned(), ..result }
    } else {
        result
    });
    Some(error.clone())
}

/// The kinds of credentials, in words of ours.
fn kind_words(kind: &str) -> &'static str {
    match kind {
        "api_token" => "an API token",
        "repo_access_token" => "an access token of a repository",
        "project_access_token" => "an access token of a project",
        "workspace_access_token" => "an access token of a workspace",
        _ => "of a kind that is not known here",
    }
}

fn identity(found: &mut Inspection, heard: &Interview, user: User) {
    let check = Check::Identity;
    let result = match user {
        User::Named(account) => {
            found.account = Some(account);
            CheckResult::pass(check, "Bitbucket names the token's user").with_duration(heard.user.took)
        }
        User::MayNotAsk | User::Refused(_) => match heard.kind() {
            Some(kind) if kind.ends_with("access_token") => CheckResult::skipped(
                check,
                "an access token of a repository, project or workspace has no user",
            ),
            _ => CheckResult::skipped(
                check,
                "the token may not ask whose it is; read:user:bitbucket would allow it",
            ),
        },
        User::Unanswered(error) => warned(check, &error),
    };
    found.checks.push(match heard.user.status() {
        Some(status) => result.with_status(status),
        None => result,
    });
}

/// Whether the token may manage webhooks anywhere: where its user administers a repository, else the exact question
/// about one, which a token of a resource can ask, too.
async fn hooks(
    api: &Api,
    heard: &Interview,
    granted: Option<&[String]>,
    row: Option<&RepositoryRow>,
) -> Result<Capability, ProviderError> {
    let lacking = granted.map(|granted| missing(api, granted, CapabilityType::ManageWebhooks));
    let known = match lacking {
        Some(scopes) if !scopes.is_empty() => return Err(ProviderError::ScopeMissing { scopes }),
        lacking => lacking.is_some(),
    };
    let administered = heard.administered();
    if known && administered.is_some() {
        return Ok(Capability::Yes);
    }
    let Some(row) = administered.as_ref().or(row) else { return Ok(Capability::Unknown) };
    let path = ["repositories", row.workspace_segment(), &row.uuid.0, "hooks"];
    match api.get(&path).query("pagelen", "1").limit(SMALL).send().await.and_then(accepted) {
        Ok(_) if known => Ok(Capability::Yes),
        // Hooks that may be read may not be written.
        Ok(_) => Ok(Capability::Unknown),
        // Where it was not asked, the user may administer one.
        Err(ProviderError::Forbidden) if administered.is_none() && !heard.is_whole() => {
            Ok(Capability::Unknown)
        }
        Err(error) => Err(error),
    }
}

fn capabilities(
    api: &Api,
    heard: &Interview,
    granted: Option<&[String]>,
    rows: &Result<Vec<RepositoryRow>, ProviderError>,
    hooks: &Result<Capability, ProviderError>,
) -> Capabilities {
    let by_scopes = |capability| match granted {
        Some(granted) if missing(api, granted, capability).is_empty() => Capability::Yes,
        Some(_) => Capability::No,
        None => Capability::Unknown,
    };
    // Where there is no workspace nothing was read.
    let was_read = rows.is_ok() && !heard.lists.is_empty();
    let list_repositories = match rows {
        Ok(_) if was_read => Capability::Yes,
        Ok(_) => by_scopes(CapabilityType::ListRepositories),
        Err(ProviderError::ScopeMissing { .. }) => Capability::No,
        Err(ProviderError::Forbidden | ProviderError::NotFound) if heard.is_whole() => Capability::No,
        Err(_) => Capability::Unknown,
    };
    let read_code = if was_read { Capability::Yes } else { by_scopes(CapabilityType::ReadCode) };
    let manage_webhooks = match hooks {
        Ok(capability) => *capability,
        Err(ProviderError::ScopeMissing { .. } | ProviderError::Forbidden) => Capability::No,
        Err(_) => Capability::Unknown,
    };
    Capabilities { list_repositories, read_code, manage_webhooks }
}

/// Compares the scopes with the wanted capabilities. A token that is good for none of them is of no use.
fn scopes(found: &mut Inspection, api: &Api, granted: Option<Vec<String>>, wanted: &[CapabilityType]) {
    let check = Check::Scopes;
    let Some(granted) = granted else {
        found.checks.push(CheckResult::skipped(check, "no answer told the scopes of this token"));
        return;
    };
    let lacking: Vec<(CapabilityType, Vec<String>)> = wanted
        .iter()
        .map(|capability| (*capability, missing(api, &granted, *capability)))
        // What was done counts before what the names of the scopes say.
        .filter(|(capability, scopes)| {
            !scopes.is_empty() && found.capabilities.of(*capability) != Capability::Yes
        })
        .collect();
    for scope in lacking.iter().flat_map(|(_, scopes)| scopes) {
        if !found.missing_scopes.contains(scope) {
            found.missing_scopes.push(scope.clone());
        }
    }
    let told = granted.join(", ");
    found.granted_scopes = granted;
    if lacking.is_empty() {
        found.checks.push(CheckResult::pass(check, format!("the token has the scopes: {told}")));
        return;
    }
    let needs: Vec<String> = lacking
        .iter()
        .map(|(capability, scopes)| format!("{} needs {}", capability.as_str(), scopes.join(", ")))
        .collect();
    lacks_scopes(found, &needs, lacking.len() == wanted.len());
}

fn list_check(
    found: &mut Inspection,
    heard: &Interview,
    rows: Result<Vec<RepositoryRow>, ProviderError>,
    wanted: &[CapabilityType],
) {
    let check = Check::ListRepositories;
    let is_wanted = wanted.contains(&CapabilityType::ListRepositories);
    let result = match rows {
        Ok(_) if heard.lists.is_empty() => {
            CheckResult::skipped(check, "the token's user has no workspace that could hold repositories")
        }
        Ok(_) => CheckResult::pass(check, "repositories can be listed").with_status(200),
        Err(ProviderError::ScopeMissing { .. }) if !is_wanted => {
            CheckResult::skipped(check, "the token may not list repositories, and need not")
        }
        Err(error) if !is_wanted => warned(check, &error),
        Err(ProviderError::NotFound) => {
            found.failure.get_or_insert(ProviderError::NotFound);
            CheckResult::fail(
                check,
                "REPOSITORY_NOT_ACCESSIBLE",
                "the workspace, project or repository that the connection names does not exist, or the token does \
                 not see it",
                "Check the workspace in base_url, scope.workspaces, and the `resource` of the token.",
            )
            .with_status(404)
        }
        Err(error) => {
            let result = failed(check, &error);
            // A missing scope was judged with the others; anything else leaves the connection without use.
            if !matches!(error, ProviderError::ScopeMissing { .. } | ProviderError::Forbidden) {
                found.failure.get_or_insert(error);
            }
            result
        }
    };
    found.checks.push(match heard.lists.first() {
        Some(first) => result.with_duration(first.took),
        None => result,
    });
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
            "the token may not manage the webhooks of the repositories that were asked for",
            "Give the token's user the role admin on the repositories, or set up webhooks by hand.",
        )
        .with_status(403)
    }));
}
