//! One repository: by id in any of the workspaces, by full name, by clone URL.

use http::header::LOCATION;

use super::endpoint::{cleaned, clone_target, full_name, is_uuid};
use super::places::{Part, find, has_user, named, sections};
use super::refusal::accepted;
use super::rows::{self, Envelope, PermissionRow, RepositoryRow};
use crate::domain::repository::{Permission, Repository};
use crate::provider::api::{Answer, Api};
use crate::provider::{Lookup, ProviderError};

/// The repository of that id.
pub(super) async fn by_id(api: &Api, id: &str) -> Result<Repository, ProviderError> {
    let row = row_of_id(api, id).await?;
    told(api, row).await
}

/// The repository of that id, last seen as `known_name`. What is there is taken if it has the id and lies in a workspace
/// that the connection covers; else each workspace is asked for the id.
pub(super) async fn known(api: &Api, id: &str, known_name: &str) -> Result<Repository, ProviderError> {
    let sections = named(api).unwrap_or_default();
    // A token of a repository is asked for that one alone, which is one call as it is.
    let is_own = sections.iter().any(|section| matches!(section.part, Part::Repository(_)));
    if let Some((workspace, name)) = full_name(known_name).filter(|_| is_uuid(id) && !is_own) {
        match row_of_name(api, &workspace, &name).await {
            Ok(row) if row.uuid.0 == id => {
                if sections.is_empty() || sections.iter().any(|section| section.holds(&row)) {
                    return told(api, row).await;
                }
            }
            // Renamed, or out of sight; or what was there makes no sense, and says nothing of the rest.
            Ok(_) | Err(ProviderError::NotFound | ProviderError::Forbidden) => {}
            Err(ProviderError::Failed { status: Some(status), .. }) if status < 500 => {}
            Err(error) => return Err(error),
        }
    }
    by_id(api, id).await
}

/// The row of the repository of that id. There is no call by id alone, so each workspace is asked for it.
pub(super) async fn row_of_id(api: &Api, id: &str) -> Result<RepositoryRow, ProviderError> {
    if !is_uuid(id) {
        return Err(ProviderError::NotFound);
    }
    let sections = sections(api, "").await?;
    find(sections, |section| async move {
        let name = match &section.part {
            // A token of a repository is only sure to see itself under its own name.
            Part::Repository(slug) => slug,
            Part::Whole | Part::Project(_) => id,
        };
        let row: RepositoryRow =
            accepted(api.get(&["repositories", &section.workspace, name]).send().await?)?.json()?;
        if row.uuid.0 == id { Ok(row) } else { Err(ProviderError::NotFound) }
    })
    .await
}

/// The repository of a full name or a clone URL, in a workspace that the connection covers: elsewhere, public ones
/// are seen by anybody, and could not be found by id again.
pub(super) async fn find_by(api: &Api, what: &Lookup) -> Result<Repository, ProviderError> {
    let (workspace, name) = match what {
        Lookup::FullName(path) => full_name(path.trim_matches('/')).ok_or(ProviderError::NotFound)?,
        Lookup::CloneUrl(text) => clone_target(api.base(), text)?,
    };
    let (row, sections) = tokio::join!(row_of_name(api, &workspace, &name), sections(api, ""));
    let row = row?;
    let Some(section) = sections?.into_iter().find(|section| section.holds(&row)) else {
        return Err(ProviderError::NotFound);
    };
    match section.part {
        // The workspace can have others that anybody sees.
        Part::Repository(_) => by_id(api, &row.uuid.0).await,
        Part::Whole | Part::Project(_) => told(api, row).await,
    }
}

/// The row of a name. Whether a former name redirects is not documented; where it does, the link may name
/// Bitbucket itself although the connection goes through a gateway.
async fn row_of_name(api: &Api, workspace: &str, name: &str) -> Result<RepositoryRow, ProviderError> {
    let answer = api.get(&["repositories", workspace, name]).return_redirects().send().await?;
    let answer = if answer.status.is_redirection() {
        let moved = moved_to(api, &answer).ok_or(ProviderError::Failed {
            problem: "it redirected the repository to something else",
            status: Some(answer.status.as_u16()),
        })?;
        api.get(&["repositories", &moved.0, &moved.1]).return_redirects().send().await?
    } else {
        answer
    };
    accepted(answer)?.json()
}

/// Workspace and name in the location of a redirect: `{api}/repositories/{workspace}/{name}`.
fn moved_to(api: &Api, answer: &Answer) -> Option<(String, String)> {
    let location = answer.headers.get(LOCATION)?.to_str().ok()?;
    let url = answer.url.join(location).ok()?;
    let url = cleaned(api.base(), url.as_str()).filter(|url| url.origin() == api.base().origin())?;
    let path = percent_encoding::percent_decode_str(url.path()).decode_utf8().ok()?;
    full_name(path.strip_prefix(api.base().path())?.strip_prefix("/repositories/")?)
}

/// The row with what the token's user may do, which is a question of its own.
async fn told(api: &Api, row: RepositoryRow) -> Result<Repository, ProviderError> {
    let permission = permission(api, &row).await.unwrap_or(Permission::Unknown);
    Ok(row.into_repository(api.base(), permission))
}

/// The permission, if it was told: a token without a user may not ask, and a public repository without a grant is
/// not in that list.
async fn permission(api: &Api, row: &RepositoryRow) -> Option<Permission> {
    if !has_user(api) {
        return None;
    }
    let call = api
        .get(&["user", "workspaces", row.workspace_segment(), "permissions", "repositories"])
        .query("q", format!("repository.uuid=\"{}\"", row.uuid.0));
    let answer = call.send().await.and_then(accepted).ok()?;
    let page: Envelope<PermissionRow> = rows::page(&answer).ok()?;
    page.values.iter().find_map(|found| found.of(&row.uuid))
}
