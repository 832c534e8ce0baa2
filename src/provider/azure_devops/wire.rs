//! One call to Azure DevOps: its version, and what its answer means.

use std::time::Duration;

use http::header::{LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rows::{ANONYMOUS_ID, ConnectionRow, ErrorRow, Identity};
use crate::provider::api::{Answer, Api};
use crate::provider::{ProviderError, RejectionCause};

/// The lowest supported server.
pub(super) const MINIMUM: &str = "5.0 (Azure DevOps Server 2019)";
/// What each call asks for. Every later server accepts the version of an earlier one, and everything that is
/// mapped is in 5.0 already, so that no call has to know or to negotiate the server's version. The rows of
/// newer versions differ in nothing that is read here.
pub(super) const API_VERSION: &str = "5.0";
/// The versions to try for the report of the server's version, newest first.
const LADDER: [Version; 5] = [Version(7, 1), Version(7, 0), Version(6, 0), Version(5, 1), Version(5, 0)];
/// The list of a project comes in one piece, however long: 10,000 repositories have about 10 MiB. Up to four
/// such lists are read side by side.
const PROJECT_LIST_LIMIT: usize = 16 * 1024 * 1024;
/// So does the list of the whole organization, which is read alone.
const WHOLE_LIST_LIMIT: usize = 64 * 1024 * 1024;
/// The end of the path of a list of repositories.
pub(super) const REPOSITORIES: [&str; 3] = ["_apis", "git", "repositories"];
/// The pause where a refusal names none: the window of the service's limits is five minutes.
const DEFAULT_PAUSE: Duration = Duration::from_secs(30);

/// What decides where webhooks may go.
const PUBLIC_TARGETS: &str = "Azure DevOps Services delivers to public addresses alone, never to loopback or special \
                              ranges: give the webhook a public https URL.";

/// The version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl Version {
    /// The lowest version that is supported.
    pub(super) const FLOOR: Self = Self(5, 0);

    /// The release of the server that brought it, for people.
    pub(super) fn release(self) -> String {
        let release = match self {
            Self(7, 1..) | Self(8.., _) => "2022.1",
            Self(7, _) => "2022",
            Self(6, _) => "2020",
            Self(5, 1..) => "2019 Update 1",
            Self(5, _) => "2019",
            Self(4, _) => "2018",
            Self(..=3, _) => "2017 or older",
        };
        format!("{release} (API {}.{})", self.0, self.1)
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim_end_matches('.').split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// A GET below the endpoint, with [`API_VERSION`] unless `version` says otherwise; its answer is not judged.
pub(super) async fn get(
    api: &Api,
    path: &[&str],
    query: &[(&str, &str)],
    version: &str,
) -> Result<Answer, ProviderError> {
    // A redirect leads to a sign-in page, so following one would turn a refusal into a page of HTML.
    let mut call = api.get(path).return_redirects();
    if path.ends_with(&REPOSITORIES) {
        call = call.limit(list_limit(path));
    }
    for (name, value) in query {
        call = call.query(name, value);
    }
    call.query("api-version", version).send().await
}

/// The largest list of repositories that is read, in bytes.
const fn list_limit(path: &[&str]) -> usize {
    if path.len() > REPOSITORIES.len() { PROJECT_LIST_LIMIT } else { WHOLE_LIST_LIMIT }
}

/// The rows of a good answer, with the answer itself. A 401 is told apart: the service words a missing
/// scope and a dead token alike, and connectionData needs no scope.
pub(super) async fn fetch<T: DeserializeOwned>(
    api: &Api,
    path: &[&str],
    query: &[(&str, &str)],
    scopes: &[&str],
) -> Result<(T, Answer), ProviderError> {
    let outcome = accepted(get(api, path, query, API_VERSION).await?);
    let answer = told_apart(api, outcome, scopes).await?;
    let rows = answer.json()?;
    Ok((rows, answer))
}

/// The rows of a good answer to a call with a body; as [`fetch`].
pub(super) async fn send<T: DeserializeOwned>(
    api: &Api,
    method: Method,
    path: &[&str],
    body: &impl Serialize,
    scopes: &[&str],
) -> Result<T, ProviderError> {
    let call = api.call(method, path).return_redirects().query("api-version", API_VERSION);
    let outcome = accepted(call.json(body)?.send().await?);
    told_apart(api, outcome, scopes).await?.json()
}

/// Removes something; errors as [`fetch`]. Whether a removal is answered with 200 or 204 is documented in both ways.
pub(super) async fn remove(api: &Api, path: &[&str], scopes: &[&str]) -> Result<(), ProviderError> {
    let call = api.call(Method::DELETE, path).return_redirects().query("api-version", API_VERSION);
    let answer = call.send().await?;
    let nothing = matches!(answer.status, StatusCode::OK | StatusCode::NO_CONTENT) && answer.body.is_empty();
    if nothing && !is_anonymous(&answer) {
        return Ok(());
    }
    told_apart(api, accepted(answer), scopes).await.map(drop)
}

/// An outcome whose 401 is told apart.
async fn told_apart(
    api: &Api,
    outcome: Result<Answer, ProviderError>,
    scopes: &[&str],
) -> Result<Answer, ProviderError> {
    match outcome {
        Err(ProviderError::CredentialRejected { .. }) => {
            who(api).await?;
            Err(ProviderError::ScopeMissing { scopes: owned(scopes) })
        }
        other => other,
    }
}

/// Like [`fetch`], and sure that the rows were not given to an anonymous caller: an organization with public
/// projects answers a dead token with a shorter list, and leaves out the header that names the caller.
pub(super) async fn fetch_as_somebody<T: DeserializeOwned>(
    api: &Api,
    path: &[&str],
    query: &[(&str, &str)],
    scopes: &[&str],
) -> Result<(T, Answer), ProviderError> {
    let found = fetch(api, path, query, scopes).await?;
    if user_of(&found.1).is_none() {
        who(api).await?;
    }
    Ok(found)
}

/// Scopes as an error holds them.
pub(super) fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Whose token it is, as `connectionData` tells, with its answer.
///
/// # Errors
///
/// `CredentialRejected` also for the 200 that an organization with public projects gives to anybody.
pub(super) async fn who(api: &Api) -> Result<Who, ProviderError> {
    // It is a preview in every version, so it is asked without one.
    let call = api.get(&["_apis", "connectionData"]).return_redirects();
    identified(call.send().await?)
}

/// What `connectionData` told.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) account: crate::domain::credential::Account,
    /// The stable id of the organization or collection; empty if it did not tell.
    pub(super) instance_id: String,
    /// Whether Services answers, if it told.
    pub(super) hosted: Option<bool>,
    pub(super) answer: Answer,
}

pub(super) fn identified(answer: Answer) -> Result<Who, ProviderError> {
    let answer = accepted(answer).map_err(|error| match error {
        ProviderError::NotFound => ProviderError::Mismatch {
            found: "Azure DevOps without an organization or collection of that name",
        },
        other => other,
    })?;
    let row: ConnectionRow =
        answer.json().map_err(|_| ProviderError::Mismatch { found: "JSON that is not Azure DevOps'" })?;
    let instance_id = row.instance_id.clone().unwrap_or_default();
    let hosted = row.deployment_type.as_ref().map(|kind| kind.eq_ignore_ascii_case("hosted"));
    match row.identity() {
        Identity::Known(account) => Ok(Who { account, instance_id, hosted, answer }),
        Identity::Anonymous => Err(rejected(answer.status)),
        // Somebody who says yes to everything is no proof of a token, and no other product either (H48).
        Identity::Absent => Err(ProviderError::garbled("it named no user where one belongs")),
    }
}

/// An answer that means success: 200 and JSON, and not given to an anonymous caller. Everything else becomes
/// the error that it stands for; a 401 is `CredentialRejected` here, whatever its cause.
pub(super) fn accepted(answer: Answer) -> Result<Answer, ProviderError> {
    let status = answer.status;
    let failed = |problem| ProviderError::Failed { problem, status: Some(status.as_u16()) };
    Err(match status {
        StatusCode::OK if answer.is_json() => {
            if is_anonymous(&answer) {
                return Err(rejected(status));
            }
            return Ok(answer);
        }
        // Only the sign-in page has this status.
        StatusCode::NON_AUTHORITATIVE_INFORMATION | StatusCode::UNAUTHORIZED => rejected(status),
        _ if status.is_success() || status.is_redirection() => {
            if is_marked(&answer) {
                rejected(status)
            } else if answer.leads_elsewhere() {
                failed("it redirects to another origin, which is never followed")
            } else {
                ProviderError::Mismatch { found: "a page that is not Azure DevOps'" }
            }
        }
        StatusCode::BAD_REQUEST => match newest_version(&answer) {
            Some(found) => ProviderError::VersionUnsupported {
                found: found.map_or_else(|| "unknown".to_owned(), Version::release),
                minimum: MINIMUM,
            },
            None if is_missing_project(&answer) => ProviderError::NotFound,
            // Of the inputs of a subscription only the URL is not the provider's own.
            None if error_of(&answer).type_key.as_deref() == Some("SubscriptionInputException") => {
                ProviderError::WebhookTargetRefused { setting: PUBLIC_TARGETS }
            }
            None => failed("it refused the request as malformed"),
        },
        StatusCode::FORBIDDEN if is_marked(&answer) => ProviderError::Forbidden,
        StatusCode::FORBIDDEN => ProviderError::Mismatch { found: "a server that refuses all of its paths" },
        StatusCode::NOT_FOUND => {
            if is_marked(&answer) {
                ProviderError::NotFound
            } else {
                ProviderError::Mismatch { found: "a server that knows none of its paths" }
            }
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            ProviderError::RateLimited { after: seconds.map_or(DEFAULT_PAUSE, Duration::from_secs) }
        }
        _ => failed("it answered with a status that it does not document"),
    })
}

/// For one call, which versions the server knows: the first answer whose version is not too high, and the
/// newest version of the server, as far as it told.
pub(super) async fn newest(
    api: &Api,
    path: &[&str],
    query: &[(&str, &str)],
) -> Result<(Answer, Version), ProviderError> {
    let mut told = None;
    for version in LADDER {
        if told.is_some_and(|newest| version > newest) {
            continue;
        }
        let text = format!("{}.{}", version.0, version.1);
        let answer = get(api, path, query, &text).await?;
        match newest_version(&answer) {
            None => return Ok((answer, told.unwrap_or(version))),
            Some(Some(newest)) => told = Some(newest),
            Some(None) => {}
        }
        if told.is_some_and(|newest| newest < Version::FLOOR) {
            break;
        }
    }
    Err(ProviderError::VersionUnsupported {
        found: told.map_or_else(|| "unknown".to_owned(), Version::release),
        minimum: MINIMUM,
    })
}

/// Whether the answer refuses the version as too high, and the newest version that it names then.
pub(super) fn newest_version(answer: &Answer) -> Option<Option<Version>> {
    if answer.status != StatusCode::BAD_REQUEST {
        return None;
    }
    let error = error_of(answer);
    // "The requested REST API version of 7.2 is out of range for this server. The latest REST API version this
    // server supports is 7.1."
    let message = error.message.unwrap_or_default();
    (error.type_key.as_deref() == Some("VssVersionOutOfRangeException"))
        .then(|| message.split_whitespace().last().and_then(Version::parse))
}

/// Whether the header that names the caller, or the text of a refusal, names the anonymous one.
pub(super) fn is_anonymous(answer: &Answer) -> bool {
    user_of(answer).is_some_and(|user| user.eq_ignore_ascii_case(ANONYMOUS_ID))
}

/// The id of the caller in `x-vss-userdata: {id}:{account}`, which Services sends with each reply to a
/// caller that it knows, and a server never.
pub(super) fn user_of(answer: &Answer) -> Option<&str> {
    answer.header("x-vss-userdata").map(|data| data.split(':').next().unwrap_or("").trim())
}

/// Whether anything in the answer is Azure DevOps' own.
pub(super) fn is_marked(answer: &Answer) -> bool {
    let own_header = answer.headers.keys().any(|name| {
        let name = name.as_str();
        name.starts_with("x-vss-") || name.starts_with("x-tfs-") || name == "activityid"
    });
    let sign_in = answer.headers.get_all(LOCATION).iter().filter_map(|value| value.to_str().ok()).any(|to| {
        let to = to.to_ascii_lowercase();
        to.contains("/_signin") || to.contains(".visualstudio.com/") || to.contains("//dev.azure.com/")
    });
    let challenge =
        answer.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).any(
            |value| {
                let value = value.to_ascii_lowercase();
                value.starts_with("tfs-federated")
                    || value.starts_with("bearer authorization_uri=")
                    || value.starts_with("ntlm")
                    || value.contains(".visualstudio.com")
            },
        );
    own_header || sign_in || challenge || error_of(answer).type_key.is_some() || has_own_page(&answer.body)
}

/// Whether the first part of a page names the product; what follows is long.
fn has_own_page(body: &[u8]) -> bool {
    let start = body.get(..4_096).unwrap_or(body);
    let start = String::from_utf8_lossy(start);
    ["Azure DevOps", "Team Foundation Server", "visualstudio.com"].iter().any(|mark| start.contains(mark))
}

fn is_missing_project(answer: &Answer) -> bool {
    let error = error_of(answer);
    error.message.is_some_and(|message| message.starts_with("TF200016"))
        || error.type_key.is_some_and(|key| key.starts_with("ProjectDoesNotExist"))
}

fn error_of(answer: &Answer) -> ErrorRow {
    if answer.is_json() { answer.json().unwrap_or_default() } else { ErrorRow::default() }
}

/// The provider never says more about a refused token than that it refuses it.
const fn rejected(status: StatusCode) -> ProviderError {
    ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status: status.as_u16() }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let pairs = headers.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        Answer {
            url: url::Url::parse("https://dev.azure.test/contoso").expect("a URL"),
            status: StatusCode::from_u16(status).expect("a status"),
            headers: pairs.collect::<HeaderMap>(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            rate_limit: None,
        }
    }

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8; api-version=5.0");
    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");

    fn error(status: u16, headers: &[(&str, &str)], body: &str) -> ProviderError {
        accepted(answer(status, headers, body)).expect_err("refused")
    }

    fn is_rejected(error: &ProviderError) -> bool {
        matches!(error, ProviderError::CredentialRejected { cause: RejectionCause::Unknown, .. })
    }

    #[test]
    fn ac_17_a_sign_in_page_is_a_rejected_credential() {
        let page =
            "<!DOCTYPE html><html lang=\"en-US\"><head><title>Azure DevOps Services | Sign In</title></head>";
        let location = ("location", "https://spsprodcus1.vssps.visualstudio.com/_signin?realm=dev.azure.com");
        for refused in [
            error(203, &[HTML], page),
            error(203, &[JSON], "{}"),
            error(200, &[HTML], page),
            error(302, &[HTML, location], "<html><head><title>Object moved</title></head></html>"),
            error(302, &[("location", "/_signin?x")], ""),
        ] {
            assert!(is_rejected(&refused), "{refused:?}");
        }
    }

    #[test]
    fn a_page_of_something_else_is_another_product() {
        for other in [
            error(200, &[HTML], "<html><title>Welcome to nginx</title></html>"),
            error(302, &[("location", "/login")], ""),
            error(404, &[HTML], "<html>Not Found</html>"),
            identified(answer(200, &[JSON], "[1]")).expect_err("no object"),
        ] {
            assert!(matches!(other, ProviderError::Mismatch { .. }), "{other:?}");
        }
    }

    #[test]
    fn h01_h48_a_redirect_elsewhere_and_a_yes_to_everything_are_failures() {
        for odd in [
            error(302, &[("location", "https://login.other.test/")], ""),
            identified(answer(200, &[JSON], "{}")).expect_err("no user"),
        ] {
            assert!(matches!(odd, ProviderError::Failed { .. }), "{odd:?}");
        }
    }

    #[test]
    fn ac_18_rows_for_an_anonymous_caller_are_a_rejected_credential() {
        let anonymous = ("x-vss-userdata", "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:Anonymous");
        assert!(is_rejected(&error(200, &[JSON, anonymous], r#"{"count":0,"value":[]}"#)));
        let user = ("x-vss-userdata", "473dec3e-03d7-6147-b106-0b0a7f766a92:masked@example.com");
        assert!(accepted(answer(200, &[JSON, user], r#"{"count":0,"value":[]}"#)).is_ok());
        let body = r#"{"authenticatedUser":{"id":"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"}}"#;
        assert!(is_rejected(&identified(answer(200, &[JSON], body)).expect_err("nobody")));
    }

    #[test]
    fn lists_that_are_read_side_by_side_are_smaller_than_the_one_that_is_read_alone() {
        let [apis, git, repositories] = REPOSITORIES;
        assert_eq!(list_limit(&["a project", apis, git, repositories]) * 4, list_limit(&REPOSITORIES));
    }

    #[test]
    fn each_refusal_of_the_provider_is_told_apart() {
        let body =
            |key: &str, message: &str| format!(r#"{{"$id":"1","message":"{message}","typeKey":"{key}"}}"#);
        let tf400813 = body("UnauthorizedRequestException", "TF400813: The user '' is not authorized.");
        assert!(is_rejected(&error(401, &[JSON], &tf400813)));
        assert!(is_rejected(&error(401, &[("www-authenticate", "NTLM")], "")));
        let right = body("AccessCheckException", "VS403403: The identity needs GenericRead.");
        assert_eq!(error(403, &[JSON], &right), ProviderError::Forbidden);
        let missing = body("GitRepositoryNotFoundException", "TF401019: does not exist");
        assert_eq!(error(404, &[JSON], &missing), ProviderError::NotFound);
        let project = body("ProjectDoesNotExistWithNameException", "TF200016: The following project");
        assert_eq!(error(400, &[JSON], &project), ProviderError::NotFound);
        assert_eq!(
            error(429, &[JSON, ("retry-after", "7")], &body("RequestBlockedException", "TF400733")),
            ProviderError::RateLimited { after: Duration::from_secs(7) }
        );
        assert!(matches!(error(409, &[JSON], "{}"), ProviderError::Failed { status: Some(409), .. }));
        let host = body("HostRoutingException", "TF400367: host type mismatch");
        let error = identified(answer(404, &[JSON], &host)).expect_err("no collection");
        assert!(matches!(error, ProviderError::Mismatch { .. }));
    }

    #[test]
    fn ac_11_a_version_that_is_too_high_names_the_newest_one() {
        let body = |newest: &str| {
            format!(
                r#"{{"message":"The requested REST API version of 7.1 is out of range for this server. The latest REST API version this server supports is {newest}.","typeKey":"VssVersionOutOfRangeException"}}"#
            )
        };
        assert_eq!(newest_version(&answer(400, &[JSON], &body("6.1"))), Some(Some(Version(6, 1))));
        assert_eq!(newest_version(&answer(400, &[JSON], &body("soon"))), Some(None));
        assert_eq!(newest_version(&answer(400, &[JSON], "{}")), None);
        assert_eq!(
            error(400, &[JSON], &body("4.1")),
            ProviderError::VersionUnsupported { found: "2018 (API 4.1)".into(), minimum: MINIMUM }
        );
        assert_eq!(Version(6, 1).release(), "2020 (API 6.1)");
        assert_eq!(Version(7, 2).release(), "2022.1 (API 7.2)");
        assert_eq!(Version(5, 2).release(), "2019 Update 1 (API 5.2)");
    }
}
