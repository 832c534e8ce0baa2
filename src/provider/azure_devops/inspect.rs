//! What a token is good for.
//!
//! Nothing of it can be read: neither scopes nor expiry. connectionData needs no scope and tells whose token
//! it is; each other call tells by a 401 that its scope is missing.

use http::StatusCode;
use url::Url;

use super::rows::{ProjectRow, RepositoryRow, Rows};
use super::url::{cleaned, is_cloud, is_foreign};
use super::wire::{API_VERSION, Who, accepted, get, newest, who};
use super::{CODE, PROJECT};
use crate::domain::credential::{Capabilities, Capability, CapabilityType};
use crate::domain::verification::{Check, CheckResult};
use crate::provider::api::{Answer, Api};
use crate::provider::inspection::{failed, warned};
use crate::provider::{Inspection, ProviderError};

/// How many projects the probes look at.
const PROBED: &str = "50";
/// In how many of them repositories are read: the first one may be closed to this user.
const READ: usize = 3;
/// No repository has it, so a token with the scope gets a 404 and one without it a 401.
const NO_REPOSITORY: &str = "00000000-0000-0000-0000-000000000000";
/// The security namespace of service hooks, and its bit for "Edit Subscriptions".
const SERVICE_HOOKS: &str = "cb594ebe-87dd-4fc9-ac2c-6a10a4c92046";
const EDIT: &str = "2";
/// The bit for "View Subscriptions".
pub(super) const VIEW: &str = "1";

const TOKEN_REMEDY: &str = "Check that the token was copied whole, has not ended and was not revoked, and that it \
    belongs to this organization: tokens for all organizations stop working on 2026-12-01, and a token that was \
    not used for 90 days may stop. An organization's policies (personal access tokens, conditional access) \
    refuse good tokens in the same words; an administrator of the organization can tell. Else make a new token.";

const URL_REMEDY: &str = "Check the URL: it must name the organization, such as https://dev.azure.com/fabrikam, or a \
    collection of the server, such as https://devops.example.com/tfs/DefaultCollection.";

/// What the probes brought, before it is judged.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) services: bool,
    /// The newest version, and the first projects.
    pub(super) projects: Result<Vec<ProjectRow>, ProviderError>,
    pub(super) version: String,
    /// Repositories of a project, or none where only the scope could be shown.
    pub(super) code: Result<Vec<RepositoryRow>, ProviderError>,
    pub(super) hooks: Result<(), ProviderError>,
    /// Whether the user may edit the subscriptions of one of the projects, if the provider told.
    pub(super) edits_hooks: Option<bool>,
}

/// See [`crate::provider::Provider::inspect`].
pub(super) async fn inspect(api: &Api, wanted: &[CapabilityType]) -> Inspection {
    let hooks = [("publisherId", "tfs"), ("eventType", "git.push"), ("consumerId", "webHooks")];
    let (who, projects, hooks) = tokio::join!(
        who(api),
        newest(api, &["_apis", "projects"], &[("stateFilter", "wellFormed"), ("$top", PROBED)]),
        get(api, &["_apis", "hooks", "subscriptions"], &hooks, API_VERSION),
    );
    let who = match who {
        Ok(who) => who,
        Err(error) => return unusable(error),
    };
    let services = who.hosted.unwrap_or_else(|| is_cloud(api.base()));
    let mut version = String::new();
    let mut last = None;
    let projects = projects.and_then(|(answer, newest)| {
        if answer.status == StatusCode::OK {
            version = if services { format!("API {}.{}", newest.0, newest.1) } else { newest.release() };
        }
        let answer = accepted(answer)?;
        let rows: Rows<ProjectRow> = answer.json()?;
        last = Some(answer);
        Ok(rows.value)
    });
    let probed = projects.as_deref().unwrap_or_default();
    let hooks = hooks.and_then(accepted).map(drop);
    let (code, edits_hooks) = tokio::join!(code(api, probed), async {
        let ids: Vec<&str> = probed.iter().map(|project| project.id.as_str()).collect();
        if hooks.is_ok() { may_with_hooks(api, EDIT, &ids).await } else { None }
    });
    let evidence = Evidence { services, projects, version, code, hooks, edits_hooks };
    judge(api.base(), who, last.as_ref(), evidence, wanted)
}

/// The repositories of the first project that shows any of its own; none of a project, if only the scope shows.
async fn code(api: &Api, projects: &[ProjectRow]) -> Result<Vec<RepositoryRow>, ProviderError> {
    let mut refusal = None;
    for project in projects.iter().take(READ) {
        let path = [project.id.as_str(), "_apis", "git", "repositories"];
        match get(api, &path, &[], API_VERSION).await.and_then(accepted) {
            Ok(answer) => return answer.json::<Rows<RepositoryRow>>().map(|rows| rows.value),
            // The user's rights in one project; the next one can be open to them.
            Err(error @ (ProviderError::Forbidden | ProviderError::NotFound)) => refusal = Some(error),
            Err(error) => return Err(error),
        }
    }
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let path = ["_apis", "git", "repositories", NO_REPOSITORY];
    match get(api, &path, &[], API_VERSION).await.and_then(accepted) {
        Ok(_) | Err(ProviderError::NotFound) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether the user has a right on the subscriptions of any of the projects; `None` if the provider did not tell.
pub(super) async fn may_with_hooks(api: &Api, right: &str, projects: &[&str]) -> Option<bool> {
    if projects.is_empty() {
        return None;
    }
    let tokens: Vec<String> = projects.iter().map(|project| format!("PublisherSecurity/{project}")).collect();
    let path = ["_apis", "permissions", SERVICE_HOOKS, right];
    let answer =
        get(api, &path, &[("tokens", &tokens.join(","))], API_VERSION).await.and_then(accepted).ok()?;
    let rows: Rows<bool> = answer.json().ok()?;
    Some(rows.value.contains(&true))
}

/// Turns what the probes brought into the report. connectionData named a user before, so a 401 of any other
/// call is a missing scope.
pub(super) fn judge(
    base: &Url,
    who: Who,
    last: Option<&Answer>,
    evidence: Evidence,
    wanted: &[CapabilityType],
) -> Inspection {
    let Evidence { services, projects, version, code, hooks, edits_hooks } = evidence;
    let product = if services { "Azure DevOps Services" } else { "Azure DevOps Server" };
    let status = who.answer.status.as_u16();
    let mut checks = vec![
        CheckResult::pass(Check::ProviderMatch, format!("{product} answers")).with_status(status),
        CheckResult::pass(Check::Authentication, "the token is accepted").with_status(status),
        CheckResult::pass(Check::Identity, "the provider names the token's user").with_status(status),
    ];
    let mut found = Inspection {
        server_time: last.and_then(Answer::date).or_else(|| who.answer.date()),
        rate_limit: last.and_then(|answer| answer.rate_limit).or(who.answer.rate_limit),
        account: Some(who.account),
        ..Inspection::default()
    };
    if let Err(error @ ProviderError::VersionUnsupported { found: version, .. }) = &projects {
        checks.push(failed(Check::ServerVersion, error));
        skip(
            &mut checks,
            &[Check::Scopes, Check::ListRepositories, Check::Webhooks],
            "the server is too old",
        );
        found.server_version.clone_from(version);
        found.failure = Some(error.clone());
        found.checks = checks;
        return found;
    }
    checks.push(if version.is_empty() {
        CheckResult::skipped(Check::ServerVersion, "only a token that may list projects can tell")
    } else {
        CheckResult::pass(Check::ServerVersion, format!("{product} knows {version}"))
    });
    found.server_version = version;
    found.capabilities = capabilities(&projects, &code, &hooks, edits_hooks);

    let may_read = !lacks_scope(&code);
    let needs = |capability: CapabilityType| wanted.contains(&capability);
    if lacks_scope(&projects) && needs(CapabilityType::ListRepositories) {
        found.missing_scopes.push(PROJECT.to_owned());
    }
    if !may_read && !wanted.is_empty() || lacks_scope(&hooks) && needs(CapabilityType::ManageWebhooks) {
        found.missing_scopes.push(CODE.to_owned());
    }
    found.failure = failure(&found, &projects, &code, wanted);
    checks.push(scopes_check(&found, &projects, &code, &hooks, wanted));
    checks.push(listing_check(base, &projects, &code));
    checks.push(hooks_check(&hooks, edits_hooks));
    found.checks = checks;
    found
}

fn capabilities(
    projects: &Result<Vec<ProjectRow>, ProviderError>,
    code: &Result<Vec<RepositoryRow>, ProviderError>,
    hooks: &Result<(), ProviderError>,
    edits_hooks: Option<bool>,
) -> Capabilities {
    let read_code = match code {
        Ok(_) => Capability::Yes,
        Err(_) if lacks_scope(code) => Capability::No,
        Err(_) => Capability::Unknown,
    };
    Capabilities {
        read_code,
        // The documented way, project by project, needs both scopes. What a token without vso.project can
        // list is in the report.
        list_repositories: match projects {
            Ok(_) => read_code,
            Err(_) if lacks_scope(projects) => Capability::No,
            Err(_) => Capability::Unknown,
        },
        manage_webhooks: match (hooks, edits_hooks) {
            (Ok(()), Some(true)) => Capability::Yes,
            (Ok(()), None) => Capability::Unknown,
            (Ok(()), Some(false)) | (Err(ProviderError::Forbidden), _) => Capability::No,
            (Err(_), _) if lacks_scope(hooks) => Capability::No,
            (Err(_), _) => Capability::Unknown,
        },
    }
}

/// What makes the connection unusable: nothing that it is wanted for can be done, not even without the
/// documented scopes.
fn failure(
    found: &Inspection,
    projects: &Result<Vec<ProjectRow>, ProviderError>,
    code: &Result<Vec<RepositoryRow>, ProviderError>,
    wanted: &[CapabilityType],
) -> Option<ProviderError> {
    let usable = wanted.iter().any(|capability| match capability {
        CapabilityType::ListRepositories => found.capabilities.read_code == Capability::Yes,
        other => found.capabilities.of(*other) == Capability::Yes,
    });
    if usable || wanted.is_empty() {
        return None;
    }
    if !found.missing_scopes.is_empty() {
        return Some(ProviderError::ScopeMissing { scopes: found.missing_scopes.clone() });
    }
    // Neither a project that is closed to the user nor hooks that nobody could look at end a connection.
    let hindrance =
        |error: &&ProviderError| !matches!(error, ProviderError::Forbidden | ProviderError::NotFound);
    projects.as_ref().err().or(code.as_ref().err()).filter(hindrance).cloned()
}

fn scopes_check(
    found: &Inspection,
    projects: &Result<Vec<ProjectRow>, ProviderError>,
    code: &Result<Vec<RepositoryRow>, ProviderError>,
    hooks: &Result<(), ProviderError>,
    wanted: &[CapabilityType],
) -> CheckResult {
    if found.missing_scopes.is_empty() {
        return CheckResult::pass(
            Check::Scopes,
            "nothing that the connection is for is refused for want of a scope; scopes themselves cannot be read",
        );
    }
    let without = |capability: &CapabilityType| match capability {
        CapabilityType::ListRepositories => lacks_scope(projects) || lacks_scope(code),
        CapabilityType::ReadCode => lacks_scope(code),
        CapabilityType::ManageWebhooks => lacks_scope(hooks),
    };
    let lost: Vec<&str> = wanted
        .iter()
        .filter(|capability| without(capability))
        .map(|capability| capability.as_str())
        .collect();
    let message = format!(
        "the token is good (the provider names its user), but {} is refused for want of {}",
        lost.join(", "),
        found.missing_scopes.join(", ")
    );
    let remedy = "Make a token with the scopes \"Project and Team: Read\" (vso.project) and \"Code: Read\" \
                  (vso.code), or add them to this one; the second one is enough for webhooks.";
    let check = if found.failure.is_some() { CheckResult::fail } else { CheckResult::warn };
    check(Check::Scopes, "CREDENTIAL_SCOPE_MISSING", message, remedy).with_status(401)
}

fn listing_check(
    base: &Url,
    projects: &Result<Vec<ProjectRow>, ProviderError>,
    code: &Result<Vec<RepositoryRow>, ProviderError>,
) -> CheckResult {
    match (projects, code) {
        (Ok(_), Ok(rows)) => links_check(base, rows),
        (_, Err(error)) => listing_failed(error),
        (Err(_), Ok(_)) if lacks_scope(projects) => CheckResult::warn(
            Check::ListRepositories,
            "CREDENTIAL_SCOPE_MISSING",
            "the token may not list projects (vso.project), which LIST_REPOSITORIES needs; its repositories are \
             read in one unpaged call instead, and namespaces are those that hold one of them",
            "Add the scope \"Project and Team: Read\" (vso.project) to the token.",
        )
        .with_status(401),
        (Err(error), Ok(_)) => listing_failed(error),
    }
}

fn listing_failed(error: &ProviderError) -> CheckResult {
    match error {
        ProviderError::CredentialRejected { status, .. } => CheckResult::fail(
            Check::ListRepositories,
            "CREDENTIAL_SCOPE_MISSING",
            "the token may not read repositories (vso.code), which LIST_REPOSITORIES and READ_CODE need",
            "Add the scope \"Code: Read\" (vso.code) to the token.",
        )
        .with_status(*status),
        ProviderError::Forbidden | ProviderError::NotFound => CheckResult::warn(
            Check::ListRepositories,
            "REPOSITORY_NOT_ACCESSIBLE",
            "the token's user may not read the code of the first projects that it sees",
            "Check the user's access level (Stakeholder sees no code) and its \"Read\" right on the repositories.",
        ),
        other => failed(Check::ListRepositories, other),
    }
}

/// A server that does not know its own public address names another one in its clone URLs.
fn links_check(base: &Url, rows: &[RepositoryRow]) -> CheckResult {
    let foreign = rows
        .iter()
        .filter_map(|row| cleaned(base, row.remote_url.as_deref()?))
        .find(|link| is_foreign(base, link));
    let Some(host) = foreign.as_ref().and_then(Url::host_str) else {
        return CheckResult::pass(Check::ListRepositories, "projects and repositories can be listed")
            .with_status(200);
    };
    let is_local =
        host == "localhost" || host.ends_with(".localhost") || host.starts_with("127.") || host == "[::1]";
    let (reason, message) = if is_local {
        (
            "PROVIDER_LINKS_LOCALHOST",
            "the server's clone URLs name localhost: nobody else can clone with them",
        )
    } else {
        ("PROVIDER_LINKS_FOREIGN_HOST", "the server's clone URLs name another host than the connection")
    };
    CheckResult::warn(
        Check::ListRepositories,
        reason,
        message,
        "Set the public URL of the server: Azure DevOps Server Administration Console, Application Tier, \
         \"Change Public URL\". Or connect to the host that it names.",
    )
    .with_status(200)
}

fn hooks_check(hooks: &Result<(), ProviderError>, edits_hooks: Option<bool>) -> CheckResult {
    let right_remedy = "Give the token's user \"View Subscriptions\" and \"Edit Subscriptions\" on the project \
                        (project administrators have both), or add webhooks by hand.";
    match (hooks, edits_hooks) {
        (Ok(()), Some(true)) => CheckResult::pass(Check::Webhooks, "subscriptions can be read and edited"),
        (Ok(()), None) => CheckResult::pass(
            Check::Webhooks,
            "subscriptions can be read; whether the user may edit them was not told",
        ),
        (Ok(()), Some(false)) => CheckResult::warn(
            Check::Webhooks,
            "WEBHOOK_PERMISSION_MISSING",
            "the token's user may not edit the service hook subscriptions of any of the first projects",
            right_remedy,
        ),
        (Err(ProviderError::Forbidden), _) => CheckResult::warn(
            Check::Webhooks,
            "WEBHOOK_PERMISSION_MISSING",
            "the token's user may not view service hook subscriptions",
            right_remedy,
        )
        .with_status(403),
        (Err(ProviderError::CredentialRejected { status, .. }), _) => CheckResult::warn(
            Check::Webhooks,
            "CREDENTIAL_SCOPE_MISSING",
            "the token has no scope that covers service hooks (vso.code), which MANAGE_WEBHOOKS needs",
            "Add the scope \"Code: Read\" (vso.code) to the token; it covers service hooks.",
        )
        .with_status(*status),
        (Err(other), _) => warned(Check::Webhooks, other),
    }
}

fn lacks_scope<T>(probe: &Result<T, ProviderError>) -> bool {
    matches!(probe, Err(ProviderError::CredentialRejected { .. }))
}

/// The report when not even the token's user could be found out.
pub(super) fn unusable(error: ProviderError) -> Inspection {
    let mut checks = Vec::new();
    let refused = matches!(error, ProviderError::CredentialRejected { .. });
    if refused {
        checks.push(CheckResult::pass(Check::ProviderMatch, "Azure DevOps answers"));
        checks.push(CheckResult { remedy: TOKEN_REMEDY.to_owned(), ..failed(Check::Authentication, &error) });
    } else {
        let check = failed(Check::ProviderMatch, &error);
        checks.push(match error {
            ProviderError::Mismatch { .. } => CheckResult { remedy: URL_REMEDY.to_owned(), ..check },
            _ => check,
        });
        skip(&mut checks, &[Check::Authentication], "the provider could not be asked");
    }
    let rest =
        [Check::ServerVersion, Check::Identity, Check::Scopes, Check::ListRepositories, Check::Webhooks];
    skip(&mut checks, &rest, "an earlier step failed");
    Inspection { checks, failure: Some(error), ..Inspection::default() }
}

fn skip(checks: &mut Vec<CheckResult>, which: &[Check], why: &str) {
    checks.extend(which.iter().map(|&check| CheckResult::skipped(check, why)));
}
