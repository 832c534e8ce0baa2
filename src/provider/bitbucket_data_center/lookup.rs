//! One repository: by number, by full name, by clone URL.

use futures_util::StreamExt;
use http::header::LOCATION;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::endpoint::{Place, root};
use super::listing::{MAX_PAGE_SIZE, continued};
use super::rows::RepositoryRow;
use super::wire::{PageRow, page, read};
use crate::domain::page::Cursor;
use crate::domain::repository::{Permission, Repository};
use crate::provider::api::Api;
use crate::provider::fields::Id;
use crate::provider::links::CloneUrl;
use crate::provider::session::Pages;
use crate::provider::{Lookup, ProviderError};

/// How many pages a look through all repositories may have: 100,000 repositories.
const MAX_SCANNED_PAGES: usize = 100;
/// How often a repository can have moved.
const MAX_MOVES: usize = 3;

/// The repository of that number.
pub(super) async fn by_id(api: &Api, id: &str) -> Result<Repository, ProviderError> {
    let row = scan(api, id).await?;
    completed(api, row).await
}

/// The repository of that number, last seen as `known_name`. What is there, or where it has moved to since, is taken if it
/// has the number; else all are looked through.
pub(super) async fn known(api: &Api, id: &str, known_name: &str) -> Result<Repository, ProviderError> {
    if !Id::is_canonical(id) {
        return Err(ProviderError::NotFound);
    }
    let there = match Place::parse(known_name) {
        Ok(place) => at(api, place).await,
        Err(error) => Err(error),
    };
    let missed = match there {
        Ok(row) if row.id.0.to_string() == id => return completed(api, row).await,
        // Another one has come to its place, or a redirect leads nowhere: neither says anything of the repository.
        Ok(_) | Err(ProviderError::NotFound) => ProviderError::NotFound,
        Err(ProviderError::Failed { status: Some(status), .. }) if status < 500 => ProviderError::NotFound,
        // A right is missing, if it is still there. It may be somewhere else.
        Err(ProviderError::Forbidden) => ProviderError::Forbidden,
        Err(error) => return Err(error),
    };
    match by_id(api, id).await {
        Err(ProviderError::NotFound) => Err(missed),
        outcome => outcome,
    }
}

/// The repository of a full name or a clone URL.
pub(super) async fn find(api: &Api, what: &Lookup) -> Result<Repository, ProviderError> {
    match what {
        Lookup::FullName(name) => {
            let row = at(api, Place::parse(name)?).await?;
            completed(api, row).await
        }
        Lookup::CloneUrl(text) => {
            let url = CloneUrl::parse(text)?;
            let (place, said) = Place::of_clone_url(&url)?;
            let row = at(api, place).await?;
            let found = completed(api, row).await?;
            let shown = CloneUrl::parse(&found.clone_https_url)
                .and_then(|shown| Place::of_clone_url(&shown))
                .map_or_else(|_| String::new(), |(_, root)| root);
            // Two instances can lie on one host, below different context paths.
            let is_here = !url.is_web() || said == root(api.base()) || said == shown;
            if is_here && url.is_at(api.base(), &[&found.clone_https_url, &found.clone_ssh_url]) {
                Ok(found)
            } else {
                Err(ProviderError::NotFound)
            }
        }
    }
}

/// The row of that number. No call takes one, so all repositories that the token sees are looked through, the public
/// ones of others, too.
pub(super) async fn scan(api: &Api, id: &str) -> Result<RepositoryRow, ProviderError> {
    let id = id.parse::<u64>().ok().filter(|_| Id::is_canonical(id)).ok_or(ProviderError::NotFound)?;
    let mut pages = Pages::new(
        1,
        |(_, key): &(RepositoryRow, String)| key,
        |cursor: Option<Cursor>| async move {
            let start = cursor.and_then(|cursor| cursor.0.parse().ok()).unwrap_or(0);
            let call = api.get(&["repos"]).query("archived", "ALL");
            let found = page::<RepositoryRow>(api, call, start, MAX_PAGE_SIZE).await?;
            let rows = found.rows.into_iter().map(|row| {
                let key = row.id.0.to_string();
                (row, key)
            });
            Ok(continued(rows.collect(), found.next))
        },
    );
    for _ in 0..MAX_SCANNED_PAGES {
        let Some(page) = pages.next().await else { return Err(ProviderError::NotFound) };
        if let Some((row, _)) = page?.items.into_iter().find(|(row, _)| row.id.0 == id) {
            return Ok(row);
        }
    }
    Err(ProviderError::garbled("it has more repositories than are looked through for one"))
}

/// The row of the repository at a place, or where it has moved to since.
pub(super) async fn at(api: &Api, mut place: Place) -> Result<RepositoryRow, ProviderError> {
    for _ in 0..=MAX_MOVES {
        let ask = |path: &[&str]| api.get(path).return_redirects();
        let answer = match (ask(&place.segments()).send().await, place.personal_segments()) {
            // A personal repository that has moved fails under its usual path, and redirects under the other one
            // (BSERV-11763).
            (Err(ProviderError::Failed { status: Some(500), .. }), Some(path)) => ask(&path).send().await?,
            (answer, _) => answer?,
        };
        let moved = if answer.status.is_redirection() {
            answer.headers.get(LOCATION).and_then(|to| to.to_str().ok()).and_then(Place::of_location)
        } else {
            None
        };
        match moved {
            Some(to) => place = to,
            None => return read(api, answer).await.map(|(row, _)| row),
        }
    }
    Err(ProviderError::garbled("its redirects led from one repository to another and back"))
}

/// The row with its default branch, which listings do not tell.
async fn completed(api: &Api, row: RepositoryRow) -> Result<Repository, ProviderError> {
    let place = row.place()?;
    let found = row.into_repository(api.base(), Permission::Unknown);
    let default_branch = if found.disabled { None } else { default_branch(api, &place).await? };
    Ok(Repository { default_branch, ..found })
}

#[derive(Debug, Deserialize)]
struct RefRow {
    id: String,
}

/// The configured default branch. An empty repository has one, too, but no branch, so that is asked beside it.
async fn default_branch(api: &Api, place: &Place) -> Result<Option<String>, ProviderError> {
    let [projects, key, repos, slug] = place.segments();
    let (configured, any) = tokio::join!(
        async {
            let answer = api.get(&[projects, key, repos, slug, "default-branch"]).send().await?;
            read::<RefRow>(api, answer).await
        },
        async {
            let call = api.get(&[projects, key, repos, slug, "branches"]).query("limit", "1");
            read::<PageRow<IgnoredAny>>(api, call.send().await?).await
        },
    );
    let told = |error| match error {
        // None is set, or what is set does not exist; or nothing was made of the repository yet.
        ProviderError::NotFound | ProviderError::Forbidden => Ok(None),
        error => Err(error),
    };
    match (configured, any) {
        (Ok((branch, _)), Ok((branches, _))) => {
            let name = branch.id.strip_prefix("refs/heads/").unwrap_or(&branch.id).to_owned();
            Ok((!name.is_empty() && !branches.values.is_empty()).then_some(name))
        }
        (Err(error), _) | (_, Err(error)) => told(error),
    }
}
