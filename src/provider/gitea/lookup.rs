//! One repository: by number, by full name, by clone URL.

use http::header::LOCATION;
use percent_encoding::percent_decode_str;

use super::endpoint::root;
use super::refusal::accepted;
use super::rows::RepositoryRow;
use crate::domain::repository::Repository;
use crate::provider::api::{Answer, Api};
use crate::provider::fields::Id;
use crate::provider::links::{CloneUrl, without_git};
use crate::provider::{Lookup, ProviderError};

/// Longest name that is asked for; Gitea's own limits are 40 for an owner and 100 for a repository.
const MAX_NAME_BYTES: usize = 1_024;
/// How often a repository can have been renamed or moved before its old name is given up.
const MAX_MOVES: usize = 3;

/// The repository of that number, as it is shown.
pub(super) async fn by_id(api: &Api, id: &str) -> Result<RepositoryRow, ProviderError> {
    // A number alone gets into the path; anything else names no repository.
    if !Id::is_canonical(id) {
        return Err(ProviderError::NotFound);
    }
    let answer = accepted(api.get(&["repositories", id]).send().await?)?;
    let row: RepositoryRow = answer.json()?;
    if row.id.0.to_string() != id {
        return Err(ProviderError::garbled("it answered with another repository"));
    }
    Ok(row)
}

/// The repository of a full name or a clone URL.
pub(super) async fn find(api: &Api, what: &Lookup) -> Result<Repository, ProviderError> {
    match what {
        Lookup::FullName(name) => {
            let name = name.trim_matches('/');
            let (owner, repository) = name.split_once('/').ok_or(ProviderError::NotFound)?;
            by_name(api, owner, repository).await
        }
        Lookup::CloneUrl(text) => {
            let url = CloneUrl::parse(text)?;
            // A page of the repository may have been copied with it.
            let mut segments = url.path_below(root(api.base())).split('/');
            let (Some(owner), Some(repository)) = (segments.next(), segments.next()) else {
                return Err(ProviderError::NotFound);
            };
            let found = by_name(api, owner, without_git(repository)).await?;
            if url.is_at(api.base(), &[&found.clone_https_url, &found.clone_ssh_url]) {
                Ok(found)
            } else {
                Err(ProviderError::NotFound)
            }
        }
    }
}

/// The repository of a name, which may be one that it had before it was renamed or transferred: that answers with a
/// redirect, also to people who may not see the repository.
async fn by_name(api: &Api, owner: &str, name: &str) -> Result<Repository, ProviderError> {
    let (mut owner, mut name) = (owner.to_owned(), name.to_owned());
    for moves in 0..=MAX_MOVES {
        if !is_name(&owner) || !is_name(&name) {
            return Err(ProviderError::NotFound);
        }
        let answer = api.get(&["repos", &owner, &name]).return_redirects().send().await?;
        if answer.status.is_redirection() {
            (owner, name) = moved_to(&answer)?;
            continue;
        }
        let row: RepositoryRow = accepted(answer)?.json()?;
        // Names are found without regard to case.
        let wanted = caseless::default_case_fold_str(&format!("{owner}/{name}"));
        if moves == 0 && caseless::default_case_fold_str(&row.full_name) != wanted {
            return Err(ProviderError::NotFound);
        }
        return Ok(row.into_repository(api.base()));
    }
    Err(ProviderError::garbled("the repository's old names lead in a circle"))
}

fn is_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text.len() <= MAX_NAME_BYTES
        && !text.chars().any(|c| c == '/' || c.is_control() || c.is_whitespace())
}

/// Owner and name in the location of a moved repository, `…/api/v1/repos/{owner}/{name}`. Only they are taken from it:
/// behind a proxy its path need not be the one that leads here.
fn moved_to(answer: &Answer) -> Result<(String, String), ProviderError> {
    let elsewhere = ProviderError::Failed {
        problem: "it redirected the repository to something else",
        status: Some(answer.status.as_u16()),
    };
    let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    let url = answer.url.join(location).map_err(|_| elsewhere.clone())?;
    let segments: Vec<&str> = url.path().split('/').collect();
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    segments
        .windows(5)
        .find(|window| window[..3] == ["api", "v1", "repos"])
        .and_then(|window| decoded(window[3]).zip(decoded(window[4])))
        .ok_or(elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    #[test]
    fn ac_64_the_name_of_a_moved_repository_is_read_from_its_location() {
        let moved = |location: &str| moved_to(&test_answer(301, &[("location", location)], "moved")).ok();
        let renamed = Some(("alice".to_owned(), "renamed".to_owned()));
        assert_eq!(moved("/api/v1/repos/alice/renamed"), renamed);
        assert_eq!(moved("/sub/api/v1/repos/alice/renamed?x=1"), renamed);
        assert_eq!(moved("https://configured.example/api/v1/repos/alice/renamed/branches"), renamed);
        assert_eq!(
            moved("/api/v1/repos/alice/gr%C3%BCn%2Fb").map(|(_, name)| name),
            Some("gr\u{fc}n/b".into())
        );
        for bad in ["", "/user/login", "/api/v1/repos/alice", "/api/v1/orgs/a/b/c"] {
            assert_eq!(moved(bad), None, "{bad}");
        }
    }
}
