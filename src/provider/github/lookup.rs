//! One repository: by number, by full name, by clone URL.

use super::endpoint::{full_name, is_at};
use super::get;
use super::refusal::accepted;
use super::rows::RepositoryRow;
use crate::domain::repository::Repository;
use crate::provider::api::{Answer, Api};
use crate::provider::fields::Id;
use crate::provider::links::CloneUrl;
use crate::provider::{Lookup, ProviderError};

/// The repository of that number.
pub(super) async fn by_id(api: &Api, id: &str) -> Result<Repository, ProviderError> {
    Ok(row(api, id).await?.into_repository(api.base()))
}

/// The row of that number. The call is not described, but GitHub's support has promised that it stays
/// (KnpLabs/php-github-api#579), and every redirect of a renamed repository leads there.
pub(super) async fn row(api: &Api, id: &str) -> Result<RepositoryRow, ProviderError> {
    if !Id::is_canonical(id) {
        return Err(ProviderError::NotFound);
    }
    let row: RepositoryRow = accepted(get(api, &["repositories", id]).send().await?)?.json()?;
    if row.id.0.to_string() != id {
        return Err(ProviderError::garbled("it answered with another repository"));
    }
    Ok(row)
}

/// The repository of a full name or a clone URL.
pub(super) async fn find(api: &Api, what: &Lookup) -> Result<Repository, ProviderError> {
    match what {
        Lookup::FullName(name) => by_name(api, name.trim_matches('/')).await,
        Lookup::CloneUrl(text) => {
            let url = CloneUrl::parse(text)?;
            let name = full_name(&url, api.base()).ok_or(ProviderError::NotFound)?;
            let found = by_name(api, &name).await?;
            if is_at(&url, text, api.base(), &[&found.clone_https_url, &found.clone_ssh_url]) {
                Ok(found)
            } else {
                Err(ProviderError::NotFound)
            }
        }
    }
}

/// The repository of a full name, which may be one that it had before it was renamed or transferred.
async fn by_name(api: &Api, full_name: &str) -> Result<Repository, ProviderError> {
    let (owner, name) = full_name.split_once('/').ok_or(ProviderError::NotFound)?;
    if !is_name(owner) || !is_name(name) {
        return Err(ProviderError::NotFound);
    }
    // A former name answers with a redirect, behind a gateway to the cloud's own origin: the number is enough.
    let answer = get(api, &["repos", owner, name]).return_redirects().send().await?;
    if answer.status.is_redirection() {
        return by_id(api, &moved_to(&answer)?).await;
    }
    let row: RepositoryRow = accepted(answer)?.json()?;
    if caseless::default_case_fold_str(&row.full_name) != caseless::default_case_fold_str(full_name) {
        return Err(ProviderError::NotFound);
    }
    Ok(row.into_repository(api.base()))
}

/// Whether a text can be the name of an owner or a repository: one segment of a path that stays one.
fn is_name(text: &str) -> bool {
    (1..=100).contains(&text.chars().count())
        && !matches!(text, "." | "..")
        && !text.chars().any(|c| c == '/' || c.is_control() || c.is_whitespace())
}

/// The number in the location of a moved repository: `…/repositories/{number}…`
/// (`exchanges/repo-301-renamed.json`).
fn moved_to(answer: &Answer) -> Result<String, ProviderError> {
    let status = Some(answer.status.as_u16());
    let problem = "it redirected the repository to something else";
    let elsewhere = ProviderError::Failed { problem, status };
    let location = answer.header("location").ok_or(elsewhere.clone())?;
    let url = answer.url.join(location).map_err(|_| elsewhere.clone())?;
    let mut segments =
        url.path_segments().ok_or(elsewhere.clone())?.skip_while(|part| *part != "repositories");
    segments.nth(1).filter(|id| Id::is_canonical(id)).map(str::to_owned).ok_or(elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    #[test]
    fn ac_64_the_number_of_a_moved_repository_is_read_from_its_location() {
        let text = include_str!("../../../tests/fixtures/providers/github/exchanges/repo-301-renamed.json");
        let exchange: serde_json::Value = serde_json::from_str(text).expect("fixture");
        let moved = |location: &str| moved_to(&test_answer(301, &[("location", location)], "{}")).ok();
        let recorded = exchange["response"]["headers"]["location"].as_str().expect("a location");
        assert_eq!(moved(recorded).as_deref(), Some("40763577"));
        assert_eq!(moved("/api/v3/repositories/7/hooks?x=1").as_deref(), Some("7"));
        for bad in
            ["", "https://x/login", "https://x/repositories/", "https://x/repositories/a%2Fb", "https://["]
        {
            assert_eq!(moved(bad), None, "{bad}");
        }
    }

    #[test]
    fn h22_a_name_stays_one_segment() {
        for good in ["website", ".github", "a%2f..%2fb", "..x"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a\0b", &"x".repeat(101)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
