//! Errors of the service as gRPC statuses: the only place where they meet.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::{StatusExt as _, pb};

use super::convert;
use crate::domain::verification::Certificate;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::proto::v1::ErrorReason;
use crate::provider::{ProviderError, RejectionCause};
use crate::service::error::{CredentialOrigin, Error};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "gitmoor.dev";
/// How long a caller should wait where nobody knows better.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// How long a caller should wait for a provider that fails.
const RETRY_LATER: Duration = Duration::from_secs(10);

/// Why a call failed, where that is for the log and not for the caller. It travels as the source of the status,
/// so that the inbound layers write it once, together with the request id.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

impl Cause {
    /// The cause of a status, if it has one.
    #[must_use]
    pub fn of(status: &Status) -> Option<&Self> {
        std::error::Error::source(status).and_then(<dyn std::error::Error>::downcast_ref)
    }
}

/// Most resources that one answer names: details travel in headers, which clients bound.
const MAX_PRECONDITIONS: usize = 25;
/// The types of resources, as they stand in the proto files.
const CONNECTION: &str = "gitmoor.dev/Connection";
const LINK: &str = "gitmoor.dev/RepositoryLink";

/// The reason of a status of this service, such as `PROVIDER_TIMEOUT`.
#[must_use]
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The status of an error.
#[must_use]
pub fn of(error: Error) -> Status {
    match error {
        Error::Invalid(violations) => invalid(violations),
        Error::ProviderNotFound(id) => Answer::new(
            Code::NotFound,
            ErrorReason::ProviderNotFound,
            format!("There is no provider `{}`. ListProviders lists them.", shown(&id)),
        )
        .resource("gitmoor.dev/Provider", format!("providers/{}", shown(&id)))
        .status(),
        Error::ConnectionNotFound(name) => {
            Answer::new(Code::NotFound, ErrorReason::ConnectionNotFound, format!("There is no connection {name}."))
                .resource("gitmoor.dev/Connection", name)
                .status()
        }
        Error::RepositoryNotFound { connection, repository } => Answer::new(
            Code::NotFound,
            ErrorReason::RepositoryNotFound,
            format!(
                "{connection} shows no repository `{}`: it does not exist, or the token does not see it.",
                shown(&repository)
            ),
        )
        .resource("gitmoor.dev/Repository", shown(&repository))
        .status(),
        Error::NameTaken { owner, provider } => Answer::new(
            Code::AlreadyExists,
            ErrorReason::ConnectionNameTaken,
            "Another connection of this tenant and provider has that display_name (letter case and outer spaces do \
             not count). Choose another one."
                .to_owned(),
        )
        .meta("provider", provider)
        .resource("gitmoor.dev/Connection", owner.to_string())
        .status(),
        Error::IdTaken { name } => Answer::new(
            Code::AlreadyExists,
            ErrorReason::ResourceIdTaken,
            format!("The id of {name} is or was used, and ids are never used again. Choose another id."),
        )
        .resource(if name.contains("/repositoryLinks/") { LINK } else { CONNECTION }, name)
        .status(),
        Error::LinkNotFound(name) => Answer::new(
            Code::NotFound,
            ErrorReason::RepositoryLinkNotFound,
            format!("There is no repository link {name}."),
        )
        .resource(LINK, name)
        .status(),
        Error::AlreadyLinked { owner } => Answer::new(
            Code::AlreadyExists,
            ErrorReason::RepositoryAlreadyLinked,
            format!("The repository is linked already, by {owner}. Use that link, or unlink it first."),
        )
        .resource(LINK, owner.to_string())
        .status(),
        Error::InUse { name, links, count } => {
            let answer = Answer::new(
                Code::FailedPrecondition,
                ErrorReason::ConnectionInUse,
                format!(
                    "{name} is in use by {count} repository links. Unlink or switch them first; DeleteConnection with \
                     `force` unlinks them."
                ),
            )
            .meta("linkCount", count.to_string());
            let told = "The link uses the connection.";
            answer
                .preconditions("CONNECTION_IN_USE", links.iter().map(|link| (link.to_string(), told.to_owned())))
                .status()
        }
        Error::NoAlternate { link, provider } => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::NoAlternateConnection,
            format!("The tenant has no other connection of {} to switch {link} to. Create one first.", shown(&provider)),
        )
        .precondition("NO_ALTERNATE_CONNECTION", link.to_string(), "There is no other connection of the provider.")
        .status(),
        Error::ProviderMismatch { connection, found, wanted } => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::ConnectionProviderMismatch,
            format!("{connection} is of {}, the link of {}. Choose a connection of the same provider.", shown(&found), shown(&wanted)),
        )
        .precondition("CONNECTION_PROVIDER_MISMATCH", connection.to_string(), "The connection is of another provider.")
        .status(),
        Error::NotAccessible { connection, lost } => {
            let answer = Answer::new(
                Code::FailedPrecondition,
                ErrorReason::RepositoryNotAccessible,
                match lost.as_slice() {
                    [(_, why)] => format!("{connection} does not reach the repository: {why}"),
                    _ => format!("{connection} would not reach {} linked repositories.", lost.len()),
                },
            );
            answer
                .meta("linkCount", lost.len().to_string())
                .preconditions("REPOSITORY_NOT_ACCESSIBLE", lost)
                .status()
        }
        Error::WebhookPermissionMissing { link, told } => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::WebhookPermissionMissing,
            format!("The token may not manage the webhooks of the repository of {link}. {told}"),
        )
        .help("Give the token the rights that GetProvider lists under MANAGE_WEBHOOKS, or follow GetWebhookSetup.", "")
        .status(),
        Error::Stale { name } => Answer::new(
            Code::Aborted,
            ErrorReason::EtagMismatch,
            format!("{name} was changed in between. Read it again, then repeat the change with its new etag."),
        )
        .status(),
        Error::RequestIdReused => Answer::new(
            Code::InvalidArgument,
            ErrorReason::RequestIdReused,
            "This request_id was used for another request. Use a new UUID for each new request.".to_owned(),
        )
        .status(),
        // Answered from memory before it comes here.
        Error::AlreadyAnswered => internal("a remembered request was not answered from memory"),
        Error::PageTokenInvalid => Answer::new(
            Code::InvalidArgument,
            ErrorReason::PageTokenInvalid,
            "The page_token does not belong to this request, or is older than an hour. Start again without one."
                .to_owned(),
        )
        .status(),
        Error::ResumeTokenExpired => Answer::new(
            Code::OutOfRange,
            ErrorReason::ResumeTokenExpired,
            "The changes behind this resume_token are no longer kept. Start again without one and with include_initial."
                .to_owned(),
        )
        .status(),
        Error::WatcherTooSlow { resume_token } => Answer::new(
            Code::OutOfRange,
            ErrorReason::WatcherTooSlow,
            "The messages of this watch were not read as fast as connections change. Start again with the resume_token \
             of the last message that was read; the metadata `resumeToken` is that of the last one that was sent."
                .to_owned(),
        )
        .meta("resumeToken", resume_token)
        .status(),
        Error::Disabled { name } => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::ConnectionDisabled,
            format!("{name} is disabled. Set `disabled` to false with UpdateConnection to use it."),
        )
        .precondition("CONNECTION_DISABLED", name.to_string(), "The connection is disabled.")
        .status(),
        Error::AccountChanged { name, current, supplied } => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::CredentialAccountChanged,
            format!(
                "The credential belongs to {}, the connection's to {}. Set allow_account_change if that is intended.",
                shown(&supplied),
                shown(&current)
            ),
        )
        .help("Set allow_account_change in ReplaceCredential to accept another account.", "")
        .precondition("CREDENTIAL_ACCOUNT_CHANGED", name.to_string(), "The credential is of another account.")
        .status(),
        Error::Provider { error, credential, provider } => provider_error(error, credential, provider),
        Error::CredentialExpired { name, expire_time } => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::CredentialExpired,
            format!("The token of {name} has ended. {}", cause_remedy(RejectionCause::Expired)),
        )
        .meta("cause", RejectionCause::Expired.as_str().to_owned())
        .meta("expireTime", convert::time(expire_time).to_string())
        .help(cause_remedy(RejectionCause::Expired), "")
        .status(),
        Error::KeyUnavailable { key_id } => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::EncryptionKeyUnavailable,
            format!("The credential is sealed with the key `{key_id}`, which is not in the server's key file."),
        )
        .meta("keyId", key_id)
        .status(),
        Error::Unreadable { name, problem } => {
            Answer::new(
                Code::DataLoss,
                ErrorReason::CredentialUnreadable,
                "The stored record does not open: it is damaged or was moved. Restore the store from a backup; the \
                 server's log names the record."
                    .to_owned(),
            )
            .cause(format!("the record of {name} cannot be read: {problem}"))
            .status()
        }
        Error::StoreUnavailable { problem } => {
            Answer::new(
                Code::Unavailable,
                ErrorReason::StoreUnavailable,
                "The store is not available. Whether a change was made is open: repeat it with the same request_id, \
                 or read it back. The server's log tells why."
                    .to_owned(),
            )
            .retry(RETRY_LATER)
            .cause(problem)
            .status()
        }
        Error::DeadlineExceeded => Answer::new(
            Code::DeadlineExceeded,
            ErrorReason::ProviderTimeout,
            "The deadline passed before the provider answered.".to_owned(),
        )
        .status(),
        Error::Entry { index, error } => in_entry(&of(*error), index),
        Error::Bug { problem } => internal(&problem),
    }
}

/// The same status, saying which entry of a batch it is about.
fn in_entry(status: &Status, index: usize) -> Status {
    let entry = format!("requests[{index}]");
    let message = format!("{entry}: {}", status.message());
    // Made by this file a moment ago, so it decodes.
    let mut wire = pb::Status::decode(status.details()).unwrap_or_default();
    for detail in wire.details.iter_mut().filter(|detail| detail.type_url.ends_with("/google.rpc.ErrorInfo"))
    {
        let mut info = pb::ErrorInfo::decode(detail.value.as_slice()).unwrap_or_default();
        info.metadata.insert("entry".to_owned(), entry.clone());
        detail.value = info.encode_to_vec();
    }
    wire.message.clone_from(&message);
    let mut answer = Status::with_details(status.code(), message, Bytes::from(wire.encode_to_vec()));
    if let Some(Cause(cause)) = Cause::of(status) {
        answer.set_source(std::sync::Arc::new(Cause(cause.clone())));
    }
    answer
}

/// The status for a server that has too much to do.
#[must_use]
pub fn overloaded() -> Status {
    Answer::new(
        Code::Unavailable,
        ErrorReason::ServerOverloaded,
        "The server has too many calls under way. Try again in a moment.".to_owned(),
    )
    .retry(RETRY_SOON)
    .status()
}

/// The status for a server that is about to stop.
#[must_use]
pub fn draining() -> Status {
    Answer::new(
        Code::Unavailable,
        ErrorReason::ServerDraining,
        "The server is stopping. Try again: another one will answer.".to_owned(),
    )
    .retry(RETRY_SOON)
    .status()
}

/// The status for a defect.
#[must_use]
pub fn internal(problem: &str) -> Status {
    Answer::new(
        Code::Internal,
        ErrorReason::Internal,
        "Internal error. The server's log has the cause under the request id of this call.".to_owned(),
    )
    .cause(problem.to_owned())
    .status()
}

fn invalid(violations: Vec<FieldViolation>) -> Status {
    // One violation with a reason of its own rank is answered with that reason.
    let reason = match violations.as_slice() {
        [one] => match one.reason {
            FieldReason::EndpointNotAllowed => ErrorReason::EndpointNotAllowed,
            FieldReason::CredentialRequiredForNewHost => ErrorReason::CredentialRequiredForNewHost,
            FieldReason::WebhookTargetNotAllowed => ErrorReason::WebhookTargetNotAllowed,
            _ => ErrorReason::InvalidFields,
        },
        _ => ErrorReason::InvalidFields,
    };
    let told: Vec<_> = violations
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect();
    Answer::new(Code::InvalidArgument, reason, format!("The request is not valid. {}.", told.join("; ")))
        .bad_request(
            violations.into_iter().map(|violation| {
                (violation.field, violation.reason.as_str().to_owned(), violation.description)
            }),
        )
        .status()
}

fn provider_error(error: ProviderError, credential: CredentialOrigin, provider: &'static str) -> Status {
    let supplied = match credential {
        CredentialOrigin::Supplied { field } => Some(field),
        CredentialOrigin::Stored { .. } => None,
    };
    let refused_code = if supplied.is_some() { Code::InvalidArgument } else { Code::FailedPrecondition };
    match error {
        ProviderError::EndpointDenied { rule } => Answer::new(
            Code::InvalidArgument,
            ErrorReason::EndpointNotAllowed,
            format!("The outbound policy does not admit this endpoint: {rule}. An operator can list it with --egress-allow."),
        )
        .bad_request([("connection.base_url".to_owned(), "ENDPOINT_NOT_ALLOWED".to_owned(), rule)])
        .status(),
        ProviderError::Unreachable { phase } => Answer::new(
            Code::Unavailable,
            ErrorReason::ProviderUnreachable,
            format!("{provider} cannot be reached: {} failed. VerifyConnection reports each step.", phase_words(phase.as_str())),
        )
        .meta("phase", phase.as_str().to_owned())
        .retry(RETRY_LATER)
        .status(),
        ProviderError::TlsUntrusted { certificate } => tls_untrusted(certificate.as_deref(), provider),
        ProviderError::Timeout => Answer::new(
            Code::DeadlineExceeded,
            ErrorReason::ProviderTimeout,
            format!("{provider} did not answer in time. It may still have done what it was asked."),
        )
        .status(),
        ProviderError::RateLimited { after } => Answer::new(
            Code::ResourceExhausted,
            ErrorReason::ProviderRateLimited,
            format!("{provider}'s rate limit is reached. Try again in {} s.", after.as_secs().max(1)),
        )
        .retry(after)
        .quota(provider)
        .status(),
        ProviderError::Failed { problem, status } => {
            let answer = Answer::new(
                Code::Unavailable,
                ErrorReason::ProviderError,
                format!("{provider} failed: {problem}."),
            )
            .meta("phase", "read".to_owned())
            .retry(RETRY_LATER);
            match status {
                Some(status) => answer.meta("httpStatus", status.to_string()),
                None => answer,
            }
            .status()
        }
        ProviderError::CredentialRejected { cause, status } => {
            let reason = match (supplied.is_some(), cause) {
                (true, _) => ErrorReason::CredentialRejected,
                (false, RejectionCause::Expired) => ErrorReason::CredentialExpired,
                (false, _) => ErrorReason::CredentialInvalid,
            };
            let told = format!("{provider} refuses the token{}.", cause_words(cause));
            let answer = Answer::new(refused_code, reason, format!("{told} {}", cause_remedy(cause)))
                .meta("cause", cause.as_str().to_owned())
                .meta("httpStatus", status.to_string());
            match credential {
                CredentialOrigin::Supplied { field } => {
                    answer.bad_request([(field.to_owned(), "CREDENTIAL_REJECTED".to_owned(), told)])
                }
                CredentialOrigin::Stored { expire_time: Some(time) } => {
                    answer.meta("expireTime", convert::time(time).to_string()).help(cause_remedy(cause), "")
                }
                CredentialOrigin::Stored { expire_time: None } => answer.help(cause_remedy(cause), ""),
            }
            .status()
        }
        ProviderError::ScopeMissing { scopes } => {
            let told = format!("The token is good but lacks a scope that {provider} wants for this");
            let told = if scopes.is_empty() { format!("{told}.") } else { format!("{told}: {}.", scopes.join(", ")) };
            Answer::new(refused_code, ErrorReason::CredentialScopeMissing, told)
                .meta("missingScopes", scopes.join(" "))
                .help("Make a token with these scopes and store it with ReplaceCredential.", "")
                .status()
        }
        ProviderError::Forbidden => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::RepositoryNotAccessible,
            format!("{provider} accepts the token, but its user has no right to do this."),
        )
        .precondition("REPOSITORY_NOT_ACCESSIBLE", provider.to_owned(), "The token's user lacks the right.")
        .status(),
        ProviderError::Restricted { by } => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::RepositoryNotAccessible,
            format!("{provider} accepts the token, but {}. {}", by.words(), by.remedy()),
        )
        .precondition(by.as_str(), provider.to_owned(), by.words())
        .help(by.remedy(), "")
        .status(),
        ProviderError::Mismatch { found } => Answer::new(
            Code::InvalidArgument,
            ErrorReason::ProviderMismatch,
            format!("What answers at this URL is not {provider}: {found}. Check base_url and provider."),
        )
        .bad_request([("connection.base_url".to_owned(), "PROVIDER_MISMATCH".to_owned(), found.to_owned())])
        .status(),
        ProviderError::VersionUnsupported { found, minimum } => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::ProviderVersionUnsupported,
            format!("{provider} {} is older than the lowest supported version {minimum}. Upgrade the server.", shown(&found)),
        )
        .meta("found", shown(&found))
        .meta("minimum", minimum.to_owned())
        .status(),
        ProviderError::NotFound => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::RepositoryNotAccessible,
            format!("{provider} shows nothing there to this token."),
        )
        .precondition("REPOSITORY_NOT_ACCESSIBLE", provider.to_owned(), "It does not exist, or the token does not see it.")
        .status(),
        ProviderError::WebhookTargetRefused { setting } => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::WebhookTargetRefused,
            format!("{provider} does not deliver to the webhook's target. {setting}"),
        )
        .help(setting, "")
        .status(),
        ProviderError::WebhookLimitReached => Answer::new(
            Code::FailedPrecondition,
            ErrorReason::WebhookLimitReached,
            format!("The repository has as many webhooks as {provider} allows."),
        )
        .help("Remove webhooks of the repository that nobody needs any more, then call EnsureWebhook.", "")
        .status(),
        // The caller finds the webhook by listing, so this is only seen where the listing does not show it.
        ProviderError::WebhookExists => Answer::new(
            Code::Unavailable,
            ErrorReason::ProviderError,
            format!("{provider} says that it has such a webhook already, and does not show it."),
        )
        .meta("phase", "read".to_owned())
        .retry(RETRY_LATER)
        .status(),
        ProviderError::Unsupported => Answer::new(
            Code::Unimplemented,
            ErrorReason::ProviderCapabilityUnsupported,
            format!("{provider} cannot do this."),
        )
        .status(),
    }
}

fn tls_untrusted(certificate: Option<&Certificate>, provider: &str) -> Status {
    let answer = Answer::new(
        Code::FailedPrecondition,
        ErrorReason::ProviderTlsUntrusted,
        match certificate {
            Some(certificate) => format!(
                "The certificate of this {provider} server is not trusted (issuer: {}; SHA-256: {}). If it is the \
                 right one, put the issuing CA into tls.ca_certificates_pem.",
                shown(&certificate.issuer),
                certificate.sha256
            ),
            None => {
                format!("This {provider} server offers no TLS that can be trusted; TLS 1.2 is the lowest.")
            }
        },
    );
    match certificate {
        Some(certificate) => {
            answer.meta("issuer", shown(&certificate.issuer)).meta("sha256", certificate.sha256.clone())
        }
        None => answer,
    }
    .status()
}

fn phase_words(phase: &str) -> &str {
    match phase {
        "dns" => "resolving its host name",
        "connect" => "connecting to it",
        "tls" => "the TLS handshake",
        _ => "reading its answer",
    }
}

const fn cause_words(cause: RejectionCause) -> &'static str {
    match cause {
        RejectionCause::Unknown => "",
        RejectionCause::Expired => ": it has expired",
        RejectionCause::Revoked => ": it was revoked",
        RejectionCause::Blocked => ": its user is blocked, deleted or has yet to be confirmed",
    }
}

const fn cause_remedy(cause: RejectionCause) -> &'static str {
    match cause {
        RejectionCause::Unknown => {
            "Check that it was copied whole, belongs to this instance, and still exists."
        }
        RejectionCause::Expired | RejectionCause::Revoked => "Make a new token.",
        RejectionCause::Blocked => "Have the user unblocked, or use another user's token.",
    }
}

/// A text from outside, made fit for a message: no control characters, at most 200 characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// A status under construction.
struct Answer {
    code: Code,
    message: String,
    info: pb::ErrorInfo,
    details: Vec<Any>,
    cause: Option<String>,
}

impl Answer {
    fn new(code: Code, reason: ErrorReason, message: String) -> Self {
        let info = pb::ErrorInfo {
            reason: reason.bare_name().to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: HashMap::new(),
        };
        Self { code, message, info, details: Vec::new(), cause: None }
    }

    fn cause(mut self, cause: String) -> Self {
        self.cause = Some(cause);
        self
    }

    fn meta(mut self, key: &str, value: String) -> Self {
        self.info.metadata.insert(key.to_owned(), value);
        self
    }

    fn detail<M: Message>(mut self, name: &str, detail: &M) -> Self {
        self.details.push(Any {
            type_url: format!("type.googleapis.com/google.rpc.{name}"),
            value: detail.encode_to_vec(),
        });
        self
    }

    fn retry(self, after: Duration) -> Self {
        let delay = prost_types::Duration::try_from(after).ok();
        self.detail("RetryInfo", &pb::RetryInfo { retry_delay: delay })
    }

    fn resource(self, resource_type: &str, resource_name: String) -> Self {
        let info = pb::ResourceInfo {
            resource_type: resource_type.to_owned(),
            resource_name,
            owner: String::new(),
            description: String::new(),
        };
        self.detail("ResourceInfo", &info)
    }

    fn precondition(self, kind: &str, subject: String, description: &str) -> Self {
        self.preconditions(kind, [(subject, description.to_owned())])
    }

    /// Subject and description of each, at most [`MAX_PRECONDITIONS`].
    fn preconditions(self, kind: &str, found: impl IntoIterator<Item = (String, String)>) -> Self {
        let violation = |(subject, description)| pb::precondition_failure::Violation {
            r#type: kind.to_owned(),
            subject,
            description,
        };
        let violations = found.into_iter().take(MAX_PRECONDITIONS).map(violation).collect();
        self.detail("PreconditionFailure", &pb::PreconditionFailure { violations })
    }

    fn quota(self, subject: &str) -> Self {
        let violation = pb::quota_failure::Violation {
            subject: subject.to_owned(),
            description: "The provider allows no more requests for now.".to_owned(),
            ..Default::default()
        };
        self.detail("QuotaFailure", &pb::QuotaFailure { violations: vec![violation] })
    }

    fn help(self, description: &str, url: &str) -> Self {
        let link = pb::help::Link { description: description.to_owned(), url: url.to_owned() };
        self.detail("Help", &pb::Help { links: vec![link] })
    }

    /// Field, reason, description.
    fn bad_request(self, violations: impl IntoIterator<Item = (String, String, String)>) -> Self {
        let field_violations = violations
            .into_iter()
            .map(|(field, reason, description)| pb::bad_request::FieldViolation {
                field,
                reason,
                description,
                ..Default::default()
            })
            .collect();
        self.detail("BadRequest", &pb::BadRequest { field_violations })
    }

    fn status(self) -> Status {
        let Self { code, message, info, details, cause } = self;
        let mut all = vec![Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: info.encode_to_vec(),
        }];
        all.extend(details);
        let status = pb::Status { code: code as i32, message: message.clone(), details: all };
        let mut answer = Status::with_details(code, message, Bytes::from(status.encode_to_vec()));
        if let Some(cause) = cause {
            answer.set_source(std::sync::Arc::new(Cause(cause)));
        }
        answer
    }
}
