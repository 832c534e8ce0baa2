//! One project: by number, by full path, by clone URL.

use http::header::LOCATION;
use url::Url;

use super::endpoint::full_path;
use super::refusal::accepted;
use super::rows::{self, ProjectRow};
use crate::domain::repository::Repository;
use crate::provider::api::{Answer, Api};
use crate::provider::fields::Id;
use crate::provider::links::CloneUrl;
use crate::provider::{Lookup, ProviderError};

/// Longest full path that is asked for; GitLab's own limit lies far below.
const MAX_PATH_BYTES: usize = 2_048;
/// How many pages a search by name may have before it is given up.
const MAX_SEARCH_PAGES: usize = 5;

/// The project of that number.
pub(super) async fn by_id(api: &Api, id: &str) -> Result<Repository, ProviderError> {
    // A number alone gets into the path; anything else names no project.
    if !Id::is_canonical(id) {
        return Err(ProviderError::NotFound);
    }
    let answer = accepted(api.get(&["projects", id]).query("statistics", "true").send().await?)?;
    let row: ProjectRow = answer.json()?;
    if row.id.0.to_string() != id {
        return Err(ProviderError::garbled("it answered with another project"));
    }
    Ok(row.into_repository(api.base()))
}

/// The project of a full path or a clone URL.
pub(super) async fn find(api: &Api, what: &Lookup) -> Result<Repository, ProviderError> {
    match what {
        Lookup::FullName(path) => by_path(api, path.trim_matches('/')).await,
        Lookup::CloneUrl(text) => {
            let url = CloneUrl::parse(text)?;
            let found = by_path(api, &full_path(&url, api.base())).await?;
            if url.is_at(api.base(), &[&found.clone_https_url, &found.clone_ssh_url]) {
                Ok(found)
            } else {
                Err(ProviderError::NotFound)
            }
        }
    }
}

/// The project of a full path, which may be one that it had before it was renamed or moved.
async fn by_path(api: &Api, path: &str) -> Result<Repository, ProviderError> {
    let segments: Vec<&str> = path.split('/').collect();
    let plausible = segments.len() >= 2
        && path.len() <= MAX_PATH_BYTES
        && !path.chars().any(|c| c.is_control() || c.is_whitespace())
        && !segments.iter().any(|segment| matches!(*segment, "" | "." | ".."));
    if !plausible {
        return Err(ProviderError::NotFound);
    }
    // An old path answers with a redirect to the configured origin, which need not be ours.
    let call = api.get(&["projects", path]).query("statistics", "true").return_redirects();
    let answer = call.send().await?;
    if answer.status.is_redirection() {
        return by_id(api, &moved_to(&answer)?).await;
    }
    match accepted(answer) {
        Ok(answer) => {
            let row: ProjectRow = answer.json()?;
            if is_path(&row, path) {
                Ok(row.into_repository(api.base()))
            } else {
                Err(ProviderError::NotFound)
            }
        }
        // A proxy that decodes `%2F` turns every path into an unknown route, in JSON or in its own words.
        Err(ProviderError::NotFound | ProviderError::Failed { status: Some(400 | 404), .. }) => {
            by_name(api, path).await
        }
        Err(error) => Err(error),
    }
}

fn is_path(row: &ProjectRow, path: &str) -> bool {
    caseless::default_case_fold_str(&row.path_with_namespace) == caseless::default_case_fold_str(path)
}

/// The number in the location of a moved project: `…/api/v4/projects/{number}…`.
fn moved_to(answer: &Answer) -> Result<String, ProviderError> {
    let elsewhere = ProviderError::Failed {
        problem: "it redirected the project to something else",
        status: Some(answer.status.as_u16()),
    };
    let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    // A relative location stands for itself; the base only makes it parse.
    let base = Url::parse("https://gitlab.invalid/").map_err(|_| elsewhere.clone())?;
    let url = base.join(location).map_err(|_| elsewhere.clone())?;
    let segments: Vec<&str> = url.path().split('/').collect();
    segments
        .windows(4)
        .find(|window| window[..3] == ["api", "v4", "projects"])
        .map(|window| window[3])
        .filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_owned)
        .ok_or(elsewhere)
}

/// Searches the user's projects by the last part of the path, and compares the whole of it.
async fn by_name(api: &Api, path: &str) -> Result<Repository, ProviderError> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut after = 0;
    for _ in 0..MAX_SEARCH_PAGES {
        let mut call = api
            .get(&["projects"])
            .query("membership", "true")
            .query("search", name)
            .query("pagination", "keyset")
            .query("order_by", "id")
            .query("sort", "asc")
            .query("per_page", "100");
        if after > 0 {
            call = call.query("id_after", after.to_string());
        }
        let rows = rows::projects(&accepted(call.send().await?)?)?;
        let full = rows.len() >= 100;
        let last = rows.last().map_or(0, |row| row.id.0);
        if let Some(row) = rows.into_iter().find(|row| is_path(row, path)) {
            return Ok(row.into_repository(api.base()));
        }
        if !full || last <= after {
            break;
        }
        after = last;
    }
    Err(ProviderError::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    #[test]
    fn ac_64_the_number_of_a_moved_project_is_read_from_its_location() {
        let moved = |location: &str| moved_to(&test_answer(301, &[("location", location)], "moved")).ok();
        assert_eq!(
            moved("http://configured.example/gitlab/api/v4/projects/1001?statistics=true").as_deref(),
            Some("1001")
        );
        assert_eq!(moved("/api/v4/projects/7/hooks").as_deref(), Some("7"));
        for bad in
            ["", "https://x/users/sign_in", "https://x/api/v4/projects/a%2Fb", "https://x/api/v4/projects/"]
        {
            assert_eq!(moved(bad), None, "{bad}");
        }
    }
}
