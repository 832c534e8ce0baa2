//! Listing repositories and organizations: numbered pages, found by the links between them.

use http::StatusCode;

use super::endpoint::cloud_api;
use super::refusal::{accepted, granted, is_for_users_only};
use super::rows::{self, RepositoryRow, UserRow};
use super::{MAX_PAGE_SIZE, get, get_place};
use crate::domain::page::{Cursor, Page, Warning};
use crate::domain::repository::{Namespace, Permission, Repository};
use crate::provider::api::{Answer, Api, Call};
use crate::provider::{List, ProviderError, Walk, paging};

/// The size of a page that GitHub can make in time where it cannot make a full one: its own default.
const SMALL_PAGE_SIZE: usize = 30;
/// Most pages that are asked for side by side, and the longest place of them: each has a cursor of its own. Behind that
/// one page follows the other.
const MAX_FAN_PAGES: u64 = 20_000;
const MAX_FAN_PLACE_BYTES: usize = 256;
/// Most organizations that a warning names; the header has no bound.
const MAX_NAMED_ORGANIZATIONS: usize = 10;

const FOREIGN_CURSOR: ProviderError = ProviderError::garbled("the cursor is none of this listing");
const STUCK: ProviderError = ProviderError::garbled("its pages do not advance");
const GARBLED_PAGING: ProviderError = ProviderError::garbled("its paging links make no sense");

/// Where a listing goes on; the text of a cursor. A place is what GitHub's own link named, whatever its form: the
/// pages of an organization are at `/organizations/{id}/repos` (and those of tags at `/repositories/{id}/tags`:
/// `exchanges/tags-page1-200.json`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Position {
    /// A page whose link to the next one is followed: `n:{place}`.
    Next(String),
    /// One of the pages between the first and the last, which are all known: `p:{place}`.
    Between(String),
}

impl Position {
    pub(super) fn parse(cursor: &Cursor) -> Result<Self, ProviderError> {
        match cursor.0.split_once(':') {
            Some(("n", place)) => Ok(Self::Next(place.to_owned())),
            Some(("p", place)) => Ok(Self::Between(place.to_owned())),
            _ => Err(FOREIGN_CURSOR),
        }
    }

    pub(super) fn cursor(&self) -> Cursor {
        Cursor(match self {
            Self::Next(place) => format!("n:{place}"),
            Self::Between(place) => format!("p:{place}"),
        })
    }

    fn place(&self) -> &str {
        match self {
            Self::Next(place) | Self::Between(place) => place,
        }
    }
}

/// One page of what the token sees.
pub(super) async fn repositories(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Repository>, ProviderError> {
    let Some(at) = at.map(Position::parse).transpose()? else { return first(api, list).await };
    let Some(answer) = later(api, &at).await? else { return Ok(Page::last(Vec::new())) };
    let next = match at {
        Position::Next(_) => next(api, &answer)?.into_iter().collect(),
        Position::Between(_) => Vec::new(),
    };
    let mut page = page(api, &answer, next)?;
    if list.walk == Walk::Fan {
        // The first page of a walk has said so already.
        page.warnings.clear();
    }
    Ok(page)
}

async fn first(api: &Api, list: &List) -> Result<Page<Repository>, ProviderError> {
    let answer = listing(api, page_size(list)).await?;
    let next = match list.walk {
        Walk::Chain => next(api, &answer)?.into_iter().collect(),
        Walk::Fan => all_next(api, &answer)?,
    };
    page(api, &answer, next)
}

/// How many rows a page should have: where a filter passes few of them, as many as there can be.
fn page_size(list: &List) -> usize {
    let is_filtered =
        !list.query.is_empty() || !list.namespace.is_empty() || list.min_permission != Permission::Unknown;
    match list.walk {
        Walk::Chain if !is_filtered => list.page_size.clamp(1, MAX_PAGE_SIZE),
        _ => MAX_PAGE_SIZE,
    }
}

/// The first page of the token's own listing: a user's, or that of an App's installation, which GitHub tells apart
/// by refusing the wrong one.
pub(super) async fn listing(api: &Api, size: usize) -> Result<Answer, ProviderError> {
    let answer = match users_listing(api, size).send().await {
        // A reply that takes GitHub more than ten seconds is cut off; fewer rows may not (troubleshooting-the-rest-api).
        Err(ProviderError::Failed { status: Some(500..=599), .. }) if size > SMALL_PAGE_SIZE => {
            users_listing(api, SMALL_PAGE_SIZE).send().await?
        }
        other => other?,
    };
    if is_for_users_only(&answer) {
        let call = get(api, &["installation", "repositories"]).query("per_page", size.to_string());
        return accepted(call.send().await?);
    }
    accepted(answer)
}

/// Rows in the order of their making: new ones come last, so that no row moves to another page while the pages are
/// read. Nothing but the owner's own filters is asked for: a search finds words and 1,000 rows at most, and an
/// organization's listing has public repositories that this one has not.
pub(super) fn users_listing(api: &Api, size: usize) -> Call<'_> {
    get(api, &["user", "repos"])
        .query("sort", "created")
        .query("direction", "asc")
        .query("per_page", size.to_string())
}

/// A page behind the first one; `None` where there is none any more, for which GitHub has no documented answer.
pub(super) async fn later(api: &Api, at: &Position) -> Result<Option<Answer>, ProviderError> {
    match accepted(get_place(api, at.place())?.send().await?) {
        Err(ProviderError::NotFound) => Ok(None),
        other => other.map(Some),
    }
}

fn page(api: &Api, answer: &Answer, next: Vec<Cursor>) -> Result<Page<Repository>, ProviderError> {
    let (rows, total) = rows::repositories(answer)?;
    let items = rows.into_iter().map(|row| row.into_repository(api.base())).collect();
    Ok(Page {
        next,
        total,
        warnings: hidden_organizations(answer).into_iter().collect(),
        ..Page::last(items)
    })
}

/// The page behind an answer. A short page is not the last one: only the links tell.
pub(super) fn next(api: &Api, answer: &Answer) -> Result<Option<Cursor>, ProviderError> {
    Ok(next_place(api, answer)?.map(|place| Position::Next(place).cursor()))
}

/// All pages behind the first one, side by side if GitHub names the last one by its number.
fn all_next(api: &Api, answer: &Answer) -> Result<Vec<Cursor>, ProviderError> {
    let Some(next) = next_place(api, answer)? else { return Ok(Vec::new()) };
    let last = paging::target(&answer.headers, "last").map(|link| place(api, link)).transpose()?;
    let numbered = last.and_then(|last| Some((number(&last)?, last)));
    let can_fan =
        |count, last: &str| (3..=MAX_FAN_PAGES).contains(&count) && last.len() <= MAX_FAN_PLACE_BYTES;
    match (number(&next), numbered) {
        (_, Some((Err(error), _))) => Err(error),
        (Some(Ok(2)), Some((Ok(count), last))) if can_fan(count, &last) => {
            let pages = (2..=count).map(|page| {
                let place = with_number(&last, page);
                // The last one may have got a successor meanwhile.
                if page < count { Position::Between(place) } else { Position::Next(place) }
            });
            Ok(pages.map(|at| at.cursor()).collect())
        }
        _ => Ok(vec![Position::Next(next).cursor()]),
    }
}

/// The place of the page behind an answer, if there is one.
pub(super) fn next_place(api: &Api, answer: &Answer) -> Result<Option<String>, ProviderError> {
    let Some(link) = paging::target(&answer.headers, "next") else { return Ok(None) };
    let place = place(api, link)?;
    let current = number(answer.url.as_str()).transpose()?.unwrap_or(1);
    match number(&place).transpose()? {
        Some(next) if next <= current => Err(STUCK),
        _ => Ok(Some(place)),
    }
}

fn place(api: &Api, link: &str) -> Result<String, ProviderError> {
    paging::below(api.base(), link, cloud_api(link).as_slice())
}

/// The number of a page, if its place has one.
fn number(place: &str) -> Option<Result<u64, ProviderError>> {
    let text = paging::parameter(place, "page")?;
    let is_number = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    Some(if is_number { text.parse().map_err(|_| GARBLED_PAGING) } else { Err(GARBLED_PAGING) })
}

/// The place of another page of the same listing.
fn with_number(place: &str, page: u64) -> String {
    let (path, query) = place.split_once('?').unwrap_or((place, ""));
    let pairs = url::form_urlencoded::parse(query.as_bytes()).map(|(name, value)| {
        let value = if name == "page" { page.to_string().into() } else { value };
        (name, value)
    });
    format!("{path}?{}", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}

/// A warning if organizations were left out of a list because the token is not authorized for their single
/// sign-on: `partial-results; organizations=21955855,20582480`, with a status of 200 (troubleshooting-the-rest-api).
pub(super) fn hidden_organizations(answer: &Answer) -> Option<Warning> {
    let value = answer.header("x-github-sso")?.trim();
    let rest = value.strip_prefix("partial-results")?;
    let is_number = |id: &&str| (1..=20).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
    let ids: Vec<&str> = rest
        .split_once("organizations=")
        .map_or("", |(_, ids)| ids)
        .split(',')
        .map(str::trim)
        .filter(is_number)
        .take(MAX_NAMED_ORGANIZATIONS)
        .collect();
    let which = if ids.is_empty() { String::new() } else { format!(" (numbers {})", ids.join(", ")) };
    Some(Warning {
        reason: "SINGLE_SIGN_ON_REQUIRED",
        message: format!(
            "GitHub left out the repositories of organizations{which} for whose single sign-on the token is not \
             authorized. Authorize it in GitHub's settings of the token, under \"Configure SSO\"."
        ),
    })
}

/// One page of the organizations of the token's user, after the user's own space.
pub(super) async fn namespaces(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Namespace>, ProviderError> {
    if let Some(at) = at.map(Position::parse).transpose()? {
        let Some(answer) = later(api, &at).await? else { return Ok(Page::last(Vec::new())) };
        return organizations(api, &answer);
    }
    let size = list.page_size.clamp(1, MAX_PAGE_SIZE).to_string();
    let orgs = get(api, &["user", "orgs"]).query("per_page", size);
    let (own, orgs) = tokio::join!(own_namespace(api), orgs.send());
    let (own, orgs) = (own?, orgs?);
    let mut page = match organizations_or_none(api, orgs)? {
        Some(page) => page,
        None => owners(api).await?,
    };
    if let Some(own) = own {
        page.items.retain(|space| space.provider_id != own.provider_id);
        page.items.insert(0, own);
    }
    Ok(page)
}

fn organizations(api: &Api, answer: &Answer) -> Result<Page<Namespace>, ProviderError> {
    let rows = rows::organizations(answer)?;
    Ok(Page {
        next: next(api, answer)?.into_iter().collect(),
        warnings: hidden_organizations(answer).into_iter().collect(),
        ..Page::last(rows.into_iter().map(|row| row.into_namespace(api.base())).collect())
    })
}

/// The first page of organizations; `None` where the token is not told them. A fine-grained token gets none at all,
/// with a 200 (OpenAPI description of `/user/orgs`).
fn organizations_or_none(api: &Api, answer: Answer) -> Result<Option<Page<Namespace>>, ProviderError> {
    if answer.status == StatusCode::OK {
        let has_scopes = granted(&answer).is_some();
        let page = organizations(api, &answer)?;
        return Ok(Some(page).filter(|page| has_scopes || !page.items.is_empty()));
    }
    match accepted(answer) {
        Err(ProviderError::ScopeMissing { .. } | ProviderError::Forbidden) => Ok(None),
        Err(error) => Err(error),
        Ok(_) => Ok(None),
    }
}

/// The owners of the first repositories, for a token that is not told its organizations. Such a token has one owner.
async fn owners(api: &Api) -> Result<Page<Namespace>, ProviderError> {
    let answer = listing(api, MAX_PAGE_SIZE).await?;
    let (rows, _) = rows::repositories(&answer)?;
    let mut owners: Vec<Namespace> = Vec::new();
    for owner in rows.iter().filter_map(RepositoryRow::owner) {
        if owners.iter().all(|known| known.provider_id != owner.provider_id) {
            owners.push(owner);
        }
    }
    let mut page = Page::last(owners);
    page.warnings.extend(hidden_organizations(&answer));
    if next_place(api, &answer)?.is_some() {
        page.warnings.push(Warning {
            reason: "NAMESPACES_NOT_LISTED",
            message: "GitHub does not tell this token its organizations: only the owners of its first 100 \
                      repositories are shown. A classic token with the scope read:org would be told all."
                .to_owned(),
        });
    }
    Ok(page)
}

/// The space of the token's user; an App's installation has none.
async fn own_namespace(api: &Api) -> Result<Option<Namespace>, ProviderError> {
    match accepted(get(api, &["user"]).send().await?) {
        Ok(answer) => Ok(Some(answer.json::<UserRow>()?.into_namespace())),
        Err(ProviderError::ScopeMissing { .. } | ProviderError::Forbidden) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    #[test]
    fn cursors_come_back_as_they_went() {
        for at in [Position::Next("/user/repos?page=2".into()), Position::Between("/x?a=b:c&page=3".into())] {
            assert_eq!(Position::parse(&at.cursor()), Ok(at));
        }
        for bad in ["", "n", "x:/user", "/user"] {
            assert!(Position::parse(&Cursor(bad.to_owned())).is_err(), "{bad}");
        }
    }

    #[test]
    fn h31_the_number_of_a_page_is_a_number() {
        assert_eq!(number("/x?per_page=100&page=12"), Some(Ok(12)));
        assert_eq!(number("/x?per_page=100&after=abc"), None);
        for bad in ["abc", "-1", "", "18446744073709551616", "1.5"] {
            assert_eq!(number(&format!("/x?page={bad}")), Some(Err(GARBLED_PAGING)), "{bad}");
        }
        assert_eq!(with_number("/x?a=b%20c&page=9&per_page=100", 2), "/x?a=b+c&page=2&per_page=100");
    }

    #[test]
    fn a_list_without_some_organizations_says_so() {
        let file = include_str!("../../../tests/fixtures/providers/github/documented/errors.json");
        let file: serde_json::Value = serde_json::from_str(file).expect("fixture");
        let case = file["assembled"].as_array().expect("a list").iter();
        let case = case.clone().find(|case| case["name"] == "saml-partial-list").expect("the case");
        let value = case["headers"]["x-github-sso"].as_str().expect("text");
        let warning = |value: &str| hidden_organizations(&test_answer(200, &[("x-github-sso", value)], "[]"));
        let told = warning(value).expect("a warning");
        assert_eq!(told.reason, "SINGLE_SIGN_ON_REQUIRED");
        assert!(told.message.contains("21955855, 20582480"));
        assert!(warning("partial-results").is_some());
        assert!(
            warning("partial-results; organizations=<b>,1x").is_some_and(|told| !told.message.contains('<'))
        );
        assert_eq!(warning("required; url=https://github.com/orgs/x/sso"), None);
    }
}
