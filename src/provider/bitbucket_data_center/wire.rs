//! One call, and what its answer means: the one place that reads refusals and the header that names the user.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::rows::PropertiesRow;
use crate::provider::api::{Answer, Api, Call};
use crate::provider::fields::bounded;
use crate::provider::{ProviderError, RejectionCause};

/// What one of the small answers may have at most, in bytes.
pub(super) const SMALL: usize = 2 * 1_024 * 1_024;
/// What a page of 1,000 rows may have at most: with descriptions and forks it has about 3 MB.
const PAGE_LIMIT: usize = 16 * 1_024 * 1_024;
/// Longest name of a user that is read, in bytes of the header.
const MAX_USER_BYTES: usize = 1_024;
/// The packages of the product's own exceptions, the second of its former name.
const PACKAGES: [&str; 2] = ["com.atlassian.bitbucket.", "com.atlassian.stash."];

/// A page of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageRow<T> {
    pub(super) values: Vec<T>,
    is_last_page: Option<bool>,
    next_page_start: Option<u64>,
}

/// The rows of a page, and where the next one starts.
#[derive(Debug)]
pub(super) struct Rows<T> {
    pub(super) rows: Vec<T>,
    pub(super) next: Option<u64>,
    /// Whose rows they are.
    pub(super) user: String,
}

/// The call that is open to anybody: version, and in its header the user. A redirect of it leads to a sign-in page.
pub(super) fn properties(api: &Api) -> Call<'_> {
    api.get(&["application-properties"]).return_redirects().limit(SMALL)
}

/// Sends a call and reads its answer, which must be for somebody; see [`read`].
///
/// # Errors
///
/// `Forbidden` for a right that is missing, which the server words like a refused token: one more call decides.
pub(super) async fn fetch<T: DeserializeOwned>(api: &Api, call: Call<'_>) -> Result<T, ProviderError> {
    read(api, call.send().await?).await.map(|(value, _)| value)
}

/// Reads an answer, and tells whom it was for. Without a user it was given as to a stranger, by a server that does
/// not know the token or behind a proxy that dropped it: its rows are the public ones alone, and what it does not find may
/// only be hidden from strangers.
pub(super) async fn read<T: DeserializeOwned>(
    api: &Api,
    answer: Answer,
) -> Result<(T, String), ProviderError> {
    let is_denied = answer.status == StatusCode::UNAUTHORIZED && is_unclear(&answer);
    if is_denied || is_hidden(&answer) {
        let known = properties(api).send().await.and_then(accepted)?;
        let meant = if is_denied { ProviderError::Forbidden } else { ProviderError::NotFound };
        return Err(if user_of(&known).is_some() { meant } else { nobody() });
    }
    let answer = accepted(answer)?;
    let value = answer.json()?;
    Ok((value, user_of(&answer).ok_or_else(nobody)?))
}

/// One page of a listing from `start` on, of at most `limit` rows. The server may give fewer, and skips rows that
/// are not for this user: only it knows where the next page starts.
///
/// # Errors
///
/// See [`fetch`]; `Failed` for a page that leads back or has far too many rows.
pub(super) async fn page<T: DeserializeOwned>(
    api: &Api,
    call: Call<'_>,
    start: u64,
    limit: u64,
) -> Result<Rows<T>, ProviderError> {
    let call = call.query("start", start.to_string()).query("limit", limit.to_string()).limit(PAGE_LIMIT);
    let (page, user) = read::<PageRow<T>>(api, call.send().await?).await?;
    let next = match (page.is_last_page, page.next_page_start) {
        (Some(true), _) | (None, None) => None,
        (_, Some(next)) if next > start => Some(next),
        (_, Some(_)) => return Err(ProviderError::garbled("its pages do not advance")),
        (Some(false), None) => {
            return Err(ProviderError::garbled("it does not tell where its next page starts"));
        }
    };
    Ok(Rows { rows: bounded(page.values)?, next, user })
}

/// A 200 as it is, or the 201 that servers answer where 200 is documented; every other answer as the error that it stands
/// for. Says nothing of the user.
pub(super) fn accepted(answer: Answer) -> Result<Answer, ProviderError> {
    match answer.status {
        StatusCode::OK | StatusCode::CREATED => Ok(answer),
        _ => Err(refusal(&answer)),
    }
}

/// The error of an answer that names no user.
pub(super) const fn nobody() -> ProviderError {
    rejected(RejectionCause::Unknown, StatusCode::OK)
}

const fn rejected(cause: RejectionCause, status: StatusCode) -> ProviderError {
    ProviderError::CredentialRejected { cause, status: status.as_u16() }
}

/// The error that an answer other than 200 stands for. Nothing of its body gets into the error. A 429 never comes
/// here.
fn refusal(answer: &Answer) -> ProviderError {
    let failed = |problem| ProviderError::Failed { problem, status: Some(answer.status.as_u16()) };
    let told = error_of(answer);
    match answer.status {
        StatusCode::UNAUTHORIZED if user_of(answer).is_some() => ProviderError::Forbidden,
        StatusCode::UNAUTHORIZED => match told {
            // Until the user signs in with a browser.
            Some(error) if error.is("CaptchaRequiredAuthenticationException") => {
                rejected(RejectionCause::Blocked, answer.status)
            }
            Some(_) => rejected(RejectionCause::Unknown, answer.status),
            None => failed(IN_FRONT),
        },
        // A right, a licence, or Basic switched off, which no call of this driver uses.
        StatusCode::FORBIDDEN if told.is_some() => ProviderError::Forbidden,
        StatusCode::NOT_FOUND if told.is_some() => ProviderError::NotFound,
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => failed(IN_FRONT),
        StatusCode::BAD_REQUEST => failed("it refused the request as invalid"),
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_ACCEPTABLE | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            failed("its API is not where it was expected")
        }
        status if status.is_redirection() => failed("it redirected a call that it should answer"),
        status if status.is_success() => failed("it answered without the status that it documents"),
        _ => failed("it answered with an unexpected status"),
    }
}

/// Without the product's own JSON it is a front proxy that speaks, and says nothing of token or repository.
const IN_FRONT: &str = "something in front of it answered in its place";

/// Whether a 401 speaks neither of the token nor of a user: a stranger and a user without the right get the same
/// words.
pub(super) fn is_unclear(answer: &Answer) -> bool {
    user_of(answer).is_none() && error_of(answer).is_some_and(|error| error.is("AuthorisationException"))
}

/// Whether a 404 was given as to a stranger, from whom more is hidden.
fn is_hidden(answer: &Answer) -> bool {
    answer.status == StatusCode::NOT_FOUND && user_of(answer).is_none() && error_of(answer).is_some()
}

/// Whom the server took the caller for: a user name, with the percent-encoding undone. `None` for a stranger. The
/// header of a project's or repository's token reads `access-token-user%2F2%2F11754`.
pub(super) fn user_of(answer: &Answer) -> Option<String> {
    let encoded = answer.header("x-ausername")?.trim();
    let name = percent_decode_str(encoded).decode_utf8().ok()?;
    let is_name = !name.is_empty()
        && encoded.len() <= MAX_USER_BYTES
        && !name.chars().any(char::is_control)
        && !name.eq_ignore_ascii_case("anonymous");
    is_name.then(|| name.into_owned())
}

/// The number of the user, if the server told it.
pub(super) fn user_id_of(answer: &Answer) -> Option<String> {
    let id = answer.header("x-auserid")?.trim();
    let is_number = (1..=19).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| id.to_owned())
}

/// An error body. Most have `errors`; that of Basic switched off has `message` alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorRow>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorRow {
    context: Option<String>,
    exception_name: Option<String>,
}

impl ErrorBody {
    /// Whether one of the errors is of that exception, of whatever package.
    fn is(&self, exception: &str) -> bool {
        self.exceptions().any(|name| name.rsplit('.').next() == Some(exception))
    }

    fn exceptions(&self) -> impl Iterator<Item = &str> {
        self.errors.iter().filter_map(|error| error.exception_name.as_deref())
    }
}

/// Whether a refusal names that member of what was sent as the one that is wrong.
pub(super) fn complains_of(answer: &Answer, member: &str) -> bool {
    let told = error_of(answer);
    told.is_some_and(|error| error.errors.iter().any(|row| row.context.as_deref() == Some(member)))
}

fn error_of(answer: &Answer) -> Option<ErrorBody> {
    if answer.status.is_success() || !answer.is_json() {
        return None;
    }
    let body: ErrorBody = answer.json().ok()?;
    (!body.errors.is_empty() || body.message.is_some()).then_some(body)
}

/// Whether an answer has a mark that only this product leaves: the shape of its properties, or one of its own
/// exceptions.
pub(super) fn speaks_bitbucket(answer: &Answer) -> bool {
    match error_of(answer) {
        Some(error) => {
            error.exceptions().any(|name| PACKAGES.iter().any(|package| name.starts_with(package)))
        }
        None => answer.status == StatusCode::OK && answer.json::<PropertiesRow>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer as answer;

    const JSON: (&str, &str) = ("content-type", "application/json;charset=UTF-8");
    const USER: (&str, &str) = ("x-ausername", "casey");

    fn exception(name: &str) -> String {
        format!(r#"{{"errors":[{{"context":null,"message":"No.","exceptionName":"{name}"}}]}}"#)
    }

    #[test]
    fn every_documented_error_has_its_meaning() {
        let file =
            include_str!("../../../tests/fixtures/providers/bitbucket-data-center/documented/errors.json");
        let file: serde_json::Value = serde_json::from_str(file).expect("fixture");
        for case in file["errors"].as_array().expect("errors") {
            let headers: Vec<(&str, &str)> = case["headers"]
                .as_object()
                .expect("headers")
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
                .collect();
            let status = u16::try_from(case["status"].as_u64().expect("status")).expect("status");
            let answer = answer(status, &headers, &case["body"].to_string());
            let error = refusal(&answer);
            match case["name"].as_str().expect("name") {
                "bad-credentials" => {
                    assert_eq!(error, rejected(RejectionCause::Unknown, StatusCode::UNAUTHORIZED));
                    assert!(!is_unclear(&answer) && speaks_bitbucket(&answer));
                }
                "no-permission-is-401" => assert!(is_unclear(&answer) && speaks_bitbucket(&answer)),
                "project-missing" | "repository-missing" => assert_eq!(error, ProviderError::NotFound),
                "validation" => {
                    assert!(matches!(error, ProviderError::Failed { status: Some(400), .. }));
                    assert!(!speaks_bitbucket(&answer));
                }
                other => panic!("a new case: {other}"),
            }
        }
    }

    #[test]
    fn ac_19_a_right_that_is_missing_is_no_refused_token() {
        let denied = exception("com.atlassian.bitbucket.AuthorisationException");
        assert_eq!(refusal(&answer(401, &[JSON, USER], &denied)), ProviderError::Forbidden);
        // With a user even an unknown wording is about the right.
        assert_eq!(refusal(&answer(401, &[USER], "no")), ProviderError::Forbidden);
        assert!(!is_unclear(&answer(401, &[JSON, USER], &denied)));
    }

    #[test]
    fn ac_18_what_a_stranger_does_not_find_may_be_hidden() {
        let missing = exception("com.atlassian.bitbucket.repository.NoSuchRepositoryException");
        assert!(is_hidden(&answer(404, &[JSON], &missing)));
        assert!(!is_hidden(&answer(404, &[JSON, USER], &missing)));
        assert!(!is_hidden(&answer(404, &[("content-type", "text/html")], "<html>")));
    }

    #[test]
    fn ac_16_a_captcha_waits_for_the_user() {
        let captcha = exception("com.atlassian.bitbucket.auth.CaptchaRequiredAuthenticationException");
        let error = refusal(&answer(401, &[JSON], &captcha));
        assert_eq!(error, rejected(RejectionCause::Blocked, StatusCode::UNAUTHORIZED));
    }

    #[test]
    fn basic_switched_off_is_told_without_a_list_of_errors() {
        let body = r#"{"message":"Basic Authentication has been disabled on this instance."}"#;
        assert_eq!(refusal(&answer(403, &[JSON], body)), ProviderError::Forbidden);
    }

    #[test]
    fn a_front_proxy_says_nothing_of_token_or_repository() {
        for status in [401, 403, 404] {
            let error = refusal(&answer(status, &[("content-type", "text/html")], "<html>"));
            assert_eq!(error, ProviderError::Failed { problem: IN_FRONT, status: Some(status) });
        }
    }

    #[test]
    fn the_user_of_the_header_is_decoded() {
        let user = |value: &str| user_of(&answer(200, &[("x-ausername", value)], "{}"));
        assert_eq!(user("casey").as_deref(), Some("casey"));
        assert_eq!(user("access-token-user%2F2%2F11754").as_deref(), Some("access-token-user/2/11754"));
        assert_eq!(user("j%C3%BCrgen%40corp.example").as_deref(), Some("jürgen@corp.example"));
        for nobody in ["", " ", "anonymous", "Anonymous", "%ff", "a%00b", &"x".repeat(2_000)] {
            assert_eq!(user(nobody), None, "{nobody}");
        }
        assert_eq!(user_of(&answer(200, &[], "{}")), None);
        let id = |value: &str| user_id_of(&answer(200, &[("x-auserid", value)], "{}"));
        assert_eq!(id("104").as_deref(), Some("104"));
        assert!([("", None), ("-1", None), ("1a", None)].iter().all(|(text, none)| id(text) == *none));
    }

    #[test]
    fn a_recorded_version_is_one_of_the_product() {
        for text in [
            include_str!(
                "../../../tests/fixtures/providers/bitbucket-data-center/bitbucket-rest/version.json"
            ),
            r#"{"version":"9.4.1","buildNumber":9004001,"buildDate":1,"displayName":"Bitbucket"}"#,
        ] {
            assert!(speaks_bitbucket(&answer(200, &[JSON], text)), "{text}");
        }
        for text in ["{}", "[]", r#"{"version":"1.21.0"}"#, "<html>", r#"{"version":9,"buildNumber":"1"}"#] {
            assert!(!speaks_bitbucket(&answer(200, &[JSON], text)), "{text}");
        }
    }
}
