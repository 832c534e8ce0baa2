//! What the drivers' own checks share: words for what went wrong, and cleaning of texts that a provider sent.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::domain::credential::{Capability, looks_like_token};
use crate::domain::refs::Ref;
use crate::domain::repository::{Namespace, Repository};
use crate::domain::verification::{Check, CheckResult};

use super::api::{Answer, Api, Call};
use super::links::is_local;
use super::mask::is_masked;
use super::{Inspection, ProviderError, RejectionCause};

/// Longest name, e-mail address, scope or version that is taken over from a provider, in characters.
const MAX_TEXT_CHARS: usize = 256;

/// What one question of an inspection brought, and how long it took.
#[derive(Debug)]
pub(crate) struct Heard {
    /// The answer, of whatever status below 500.
    pub(crate) answer: Result<Answer, ProviderError>,
    /// The time to the end of the answer.
    pub(crate) took: Duration,
    accept: fn(Answer) -> Result<Answer, ProviderError>,
}

impl Heard {
    /// Asks. `accept` is how the driver tells a good answer from a refusal.
    pub(crate) async fn of(call: Call<'_>, accept: fn(Answer) -> Result<Answer, ProviderError>) -> Self {
        let start = Instant::now();
        Self { answer: call.send().await, took: start.elapsed(), accept }
    }

    /// The answer if it is a good one, else the error that it stands for.
    pub(crate) fn accepted(&self) -> Result<Answer, ProviderError> {
        self.answer.clone().and_then(self.accept)
    }

    /// The status, if there was an answer.
    pub(crate) fn status(&self) -> Option<u16> {
        self.answer.as_ref().ok().map(|answer| answer.status.as_u16())
    }
}

/// The checks behind one that ends the inspection, from `first` on.
pub(crate) fn skip_rest(found: &mut Inspection, first: Check) {
    let rest = [
        Check::ServerVersion,
        Check::Authentication,
        Check::Identity,
        Check::Scopes,
        Check::ListRepositories,
        Check::Webhooks,
    ];
    found.checks.extend(
        rest.into_iter()
            .filter(|check| *check >= first)
            .map(|check| CheckResult::skipped(check, "not tried, because an earlier check failed")),
    );
}

/// A warning if one of the hosts that the server's own links name is not that of the endpoint: the server was not
/// told its own address. `remedy` names the provider's setting.
pub(crate) fn warned_of_links<'a>(
    hosts: impl IntoIterator<Item = &'a String>,
    api: &Api,
    remedy: &str,
) -> Option<CheckResult> {
    let own = api.base().host_str().unwrap_or("").to_ascii_lowercase();
    let foreign = hosts.into_iter().find(|host| **host != own)?;
    let (reason, message) = if is_local(foreign) {
        ("PROVIDER_LINKS_LOCALHOST", "the server's links name localhost: nobody else can clone with them")
    } else {
        ("PROVIDER_LINKS_FOREIGN_HOST", "the server's links name another host than the connection")
    };
    Some(CheckResult::warn(Check::ListRepositories, reason, message, remedy))
}

/// Major and minor number of a version such as `18.1.0-ee`.
pub(crate) fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']);
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor))
}

/// Whether a text has the form of a scope name; nothing else of a provider's words is passed on.
pub(crate) fn is_scope(word: &str) -> bool {
    (1..=64).contains(&word.len())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_:-.".contains(&byte))
}

/// The failed check that `error` makes of `check`, with the reasons of the contract.
pub(crate) fn failed(check: Check, error: &ProviderError) -> CheckResult {
    let (reason, message, remedy) = words(error);
    let result = CheckResult::fail(check, reason, message, remedy);
    match status(error) {
        Some(status) => result.with_status(status),
        None => result,
    }
}

/// Like [`failed`], as something to look at: the connection works without it.
pub(crate) fn warned(check: Check, error: &ProviderError) -> CheckResult {
    let (reason, message, remedy) = words(error);
    let result = CheckResult::warn(check, reason, message, remedy);
    match status(error) {
        Some(status) => result.with_status(status),
        None => result,
    }
}

/// Reason, message and remedy of an error.
fn words(error: &ProviderError) -> (&'static str, String, &'static str) {
    let message = || error.to_string();
    match error {
        ProviderError::EndpointDenied { .. } => {
            ("ENDPOINT_NOT_ALLOWED", message(), "Ask the operator to admit the address with `egress_allow`.")
        }
        ProviderError::Unreachable { .. } => (
            "PROVIDER_UNREACHABLE",
            message(),
            "Check the address, the network and the firewall, then try again.",
        ),
        ProviderError::TlsUntrusted { .. } => (
            "PROVIDER_TLS_UNTRUSTED",
            message(),
            "Put the certificate of the server's own authority into `tls.ca_certificates_pem`.",
        ),
        ProviderError::Timeout => ("PROVIDER_TIMEOUT", message(), "Try again later."),
        ProviderError::RateLimited { after } => (
            "PROVIDER_RATE_LIMITED",
            format!("the provider's rate limit is reached; it asks for {} s", seconds(*after)),
            "Wait that long, then try again.",
        ),
        ProviderError::Failed { .. } => (
            "PROVIDER_ERROR",
            message(),
            "Try again later; if it stays, look at the server and at proxies before it.",
        ),
        ProviderError::CredentialRejected { cause: RejectionCause::Expired, .. } => (
            "CREDENTIAL_EXPIRED",
            "the token has expired".to_owned(),
            "Make a new token and replace this one.",
        ),
        ProviderError::CredentialRejected { cause: RejectionCause::Revoked, .. } => (
            "CREDENTIAL_REJECTED",
            "the token was revoked".to_owned(),
            "Make a new token and replace this one.",
        ),
        ProviderError::CredentialRejected { cause: RejectionCause::Blocked, .. } => (
            "CREDENTIAL_REJECTED",
            "the token's user is blocked, deactivated or has something to confirm first".to_owned(),
            "Have the user sign in at the provider in a browser, or use a token of another user.",
        ),
        ProviderError::CredentialRejected { cause: RejectionCause::Unknown, .. } => (
            "CREDENTIAL_REJECTED",
            "the provider does not accept the token".to_owned(),
            "Copy the token again as the provider showed it, or make a new one.",
        ),
        ProviderError::ScopeMissing { scopes } if scopes.is_empty() => (
            "CREDENTIAL_SCOPE_MISSING",
            "the token is good, but its permissions do not cover this".to_owned(),
            "Make a token with more permissions and replace this one.",
        ),
        ProviderError::ScopeMissing { scopes } => (
            "CREDENTIAL_SCOPE_MISSING",
            format!("the token is good, but lacks the scope: one of {}", scopes.join(", ")),
            "Make a token with that scope and replace this one.",
        ),
        ProviderError::Forbidden => (
            "PROVIDER_FORBIDDEN",
            message(),
            "Give the token's user a higher role, or use a token of another user.",
        ),
        ProviderError::Restricted { by } => (by.as_str(), message(), by.remedy()),
        ProviderError::Mismatch { found } => (
            "PROVIDER_MISMATCH",
            format!("what answers is not the provider but {found}"),
            "Check `base_url` and `provider`: the URL must be the one that the server shows in a browser.",
        ),
        ProviderError::VersionUnsupported { .. } => {
            ("PROVIDER_VERSION_UNSUPPORTED", message(), "Upgrade the server.")
        }
        ProviderError::NotFound => {
            ("PROVIDER_ERROR", "the provider does not know this call".to_owned(), "Check `base_url`.")
        }
        ProviderError::WebhookTargetRefused { setting } => ("WEBHOOK_TARGET_REFUSED", message(), setting),
        ProviderError::WebhookLimitReached => {
            ("WEBHOOK_LIMIT_REACHED", message(), "Remove webhooks that nobody needs any more.")
        }
        ProviderError::WebhookExists => ("PROVIDER_ERROR", message(), "Try again later."),
        ProviderError::Unsupported => ("PROVIDER_CAPABILITY_UNSUPPORTED", message(), "Upgrade the server."),
    }
}

fn seconds(span: Duration) -> u64 {
    span.as_secs().max(1)
}

fn status(error: &ProviderError) -> Option<u16> {
    match error {
        ProviderError::Failed { status, .. } => *status,
        ProviderError::CredentialRejected { status, .. } => Some(*status),
        ProviderError::ScopeMissing { .. } | ProviderError::Forbidden | ProviderError::Restricted { .. } => {
            Some(403)
        }
        ProviderError::NotFound => Some(404),
        ProviderError::RateLimited { .. } => Some(429),
        _ => None,
    }
}

/// The user that a good answer tells of, whose id is the member `id`. The answer by itself proves nothing: it must name
/// one (AC-18).
///
/// # Errors
///
/// [`nobody`] if it names none, `Failed` for an answer of another shape.
pub(crate) fn named_user<T: DeserializeOwned>(answer: &Answer, id: &str) -> Result<T, ProviderError> {
    let value: serde_json::Value = answer.json()?;
    if value.is_null() || value.get(id).is_some_and(serde_json::Value::is_null) {
        return Err(nobody());
    }
    serde_json::from_value(value).map_err(|_| ProviderError::Failed {
        problem: "its answer about the token's user is not the one that it documents",
        status: Some(200),
    })
}

/// The refusal that a good answer amounts to behind which nobody stands.
pub(crate) const fn nobody() -> ProviderError {
    ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status: 200 }
}

/// Notes that the token lacks the missing scopes of `found`; `needs` says which capability needs which. A token that is
/// good for nothing that is wanted is of no use.
pub(crate) fn lacks_scopes(found: &mut Inspection, needs: &[String], is_useless: bool) {
    let message = format!("the token lacks scopes: {}", needs.join("; "));
    let remedy =
        format!("Make a token that has {} too, and replace this one.", found.missing_scopes.join(", "));
    let reason = "CREDENTIAL_SCOPE_MISSING";
    found.checks.push(if is_useless {
        found.failure = Some(ProviderError::ScopeMissing { scopes: found.missing_scopes.clone() });
        CheckResult::fail(Check::Scopes, reason, message, remedy)
    } else {
        CheckResult::warn(Check::Scopes, reason, message, remedy)
    });
}

/// The check of webhooks where a repository was asked; `forbidden` is what a refused role means at the provider.
pub(crate) fn webhooks_checked(
    hooks: Result<Capability, ProviderError>,
    is_wanted: bool,
    forbidden: impl FnOnce() -> CheckResult,
) -> CheckResult {
    let check = Check::Webhooks;
    match hooks {
        Ok(Capability::Yes) => CheckResult::pass(check, "webhooks can be managed where the role allows it"),
        Ok(_) => CheckResult::skipped(check, "no repository tells whether webhooks can be managed"),
        Err(_) if !is_wanted => CheckResult::skipped(check, "webhooks cannot be managed, and need not"),
        Err(ProviderError::Forbidden) => forbidden(),
        Err(error) => warned(check, &error),
    }
}

/// A provider's text for people, fit to be stored and shown: without control characters and marks that turn
/// the reading direction, at most 256 characters, and empty if it looks like a token (a server may echo one).
pub(crate) fn clean(text: &str) -> String {
    let kept: String =
        text.chars().filter(|c| !c.is_control() && !turns_direction(*c)).take(MAX_TEXT_CHARS).collect();
    let kept = kept.trim();
    if looks_like_token(kept) || is_masked(kept) { String::new() } else { kept.to_owned() }
}

/// A row as every driver gives it. Its texts for people lose control characters and the marks that turn the
/// reading direction, and line breaks become spaces; links and the branch lose control characters, which
/// neither can have. Its id and the names that it is looked up by stay as they are: they are opaque.
pub(crate) fn clean_repository(mut row: Repository) -> Repository {
    for text in [&mut row.display_name, &mut row.description] {
        strip_for_people(text);
    }
    for text in [&mut row.clone_https_url, &mut row.clone_ssh_url, &mut row.web_url] {
        strip(text);
    }
    if let Some(branch) = &mut row.default_branch {
        strip(branch);
    }
    row
}

/// Like [`clean_repository`].
pub(crate) fn clean_namespace(mut row: Namespace) -> Namespace {
    strip_for_people(&mut row.display_name);
    strip(&mut row.web_url);
    row
}

/// A row as every driver gives it; `None` if its name is none that git allows (empty, or with control characters). A
/// commit id that is no hash of git's is left out.
pub(crate) fn clean_ref(mut row: Ref) -> Option<Ref> {
    let is_hash =
        matches!(row.commit_id.len(), 40 | 64) && row.commit_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hash {
        row.commit_id.clear();
    }
    Some(row).filter(|row| !row.name.is_empty() && !row.name.chars().any(char::is_control))
}

fn strip(text: &mut String) {
    // Nearly no text has any, so nothing is moved.
    if text.chars().any(char::is_control) {
        text.retain(|c| !c.is_control());
    }
}

fn strip_for_people(text: &mut String) {
    if text.chars().any(|c| c.is_control() || turns_direction(c)) {
        *text = text
            .chars()
            .map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c })
            .filter(|c| !c.is_control() && !turns_direction(*c))
            .collect();
    }
}

const fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h21_a_name_is_stored_clean() {
        assert_eq!(clean("bell\u{7} \u{1b}[31mred\u{202e}txt"), "bell [31mredtxt");
        assert_eq!(clean(&"x".repeat(1_000_000)).len(), MAX_TEXT_CHARS);
        assert_eq!(clean("  Jos\u{e9} \u{1f600} "), "Jos\u{e9} \u{1f600}");
    }

    #[test]
    fn ac_11_releases_compare_as_numbers() {
        assert!(release("9.5.10") < release("15.5"));
        assert!(release("15.4.6-ee") < release("15.5"));
        assert_eq!(release("18.1.0-ee"), Some((18, 1)));
        assert_eq!(release("18.2-pre"), Some((18, 2)));
        for bad in ["", "GitLab", "18", "x.y"] {
            assert_eq!(release(bad), None, "{bad}");
        }
    }

    #[test]
    fn h42_a_token_in_a_name_is_not_stored() {
        assert_eq!(clean("no such user: glpat-abcdefghij0123456789"), "");
    }

    #[test]
    fn a_failed_check_names_reason_status_and_remedy() {
        let check = failed(
            Check::Authentication,
            &ProviderError::CredentialRejected { cause: RejectionCause::Expired, status: 401 },
        );
        assert_eq!((check.reason.as_str(), check.http_status), ("CREDENTIAL_EXPIRED", Some(401)));
        assert!(!check.remedy.is_empty());
        let check = warned(Check::Webhooks, &ProviderError::ScopeMissing { scopes: vec!["api".to_owned()] });
        assert_eq!(check.reason, "CREDENTIAL_SCOPE_MISSING");
        assert!(check.message.contains("api"));
    }
}
