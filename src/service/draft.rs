//! A connection as a caller described it, and what is wrong with it: all of it, in one answer.

use std::collections::BTreeMap;

use crate::domain::base_url::BaseUrl;
use crate::domain::connection::{
    DisplayName, MAX_ANNOTATION_BYTES, MAX_LABEL_BYTES, MAX_MAP_ENTRIES, Scope, check_text,
};
use crate::domain::credential::{CapabilityType, Credential, CredentialForm, Secret, looks_like_token};
use crate::domain::timestamp::Timestamp;
use crate::domain::violation::{FieldReason, FieldViolation, Refusal};
use crate::provider::gateway::Gateway;
use crate::provider::{Endpoint, Provider};

/// Largest bundle of certificates, in bytes: about 40 certificates.
const MAX_CA_BYTES: usize = 64 * 1024;
/// Longest owner, organization, collection, project or workspace, in bytes.
const MAX_TEXT_BYTES: usize = 256;
/// Most projects and most workspaces of one connection.
const MAX_SCOPE_ENTRIES: usize = 100;
/// Most API roots that a pasted URL may stand for.
const MAX_ENDPOINTS: usize = 8;

/// A connection as a caller described it, not looked at yet.
#[derive(Debug, Clone, Default)]
pub struct ConnectionDraft {
    /// See `Connection.display_name`.
    pub display_name: String,
    /// See `Connection.provider`.
    pub provider: String,
    /// See `Connection.base_url`.
    pub base_url: String,
    /// See `Connection.scope`.
    pub scope: Scope,
    /// See `Connection.credential`.
    pub credential: Option<CredentialDraft>,
    /// See `Connection.tls`.
    pub ca_certificates_pem: String,
    /// See `Connection.required_capabilities`.
    pub required_capabilities: Vec<CapabilityType>,
    /// See `Connection.disabled`.
    pub disabled: bool,
    /// See `Connection.labels`.
    pub labels: BTreeMap<String, String>,
    /// See `Connection.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// See `Connection.owner`.
    pub owner: String,
}

/// A credential as a caller sent it, not looked at yet.
#[derive(Debug, Clone)]
pub struct CredentialDraft {
    /// All but the secret.
    pub form: CredentialForm,
    /// The secret.
    pub token: Secret,
    /// When the caller says that it ends.
    pub declared_expire_time: Option<Timestamp>,
}

/// A credential whose form is right and which the provider knows.
#[derive(Debug, Clone)]
pub struct CheckedCredential {
    /// Form and secret.
    pub credential: Credential,
    /// When the caller says that it ends.
    pub declared_expire_time: Option<Timestamp>,
}

/// A connection that may be tried: every field is right, and the provider knows what it names.
#[derive(Debug)]
pub struct CheckedDraft<'g> {
    /// The driver.
    pub provider: &'g dyn Provider,
    /// The name.
    pub display_name: DisplayName,
    /// What the URL can mean, best guess first; at least one.
    pub endpoints: Vec<Endpoint>,
    /// The credential.
    pub credential: CheckedCredential,
    /// The other fields.
    pub rest: ConnectionDraft,
}

/// Checks a whole connection. `None` only if there is at least one violation.
pub(super) fn check<'g>(
    gateway: &'g Gateway,
    mut draft: ConnectionDraft,
    violations: &mut Violations,
) -> Option<CheckedDraft<'g>> {
    let provider = provider(gateway, &draft.provider, violations);
    let display_name = display_name(&draft.display_name, violations);
    check_rest(gateway, &draft, violations);
    let endpoints = provider.map_or_else(Vec::new, |provider| {
        endpoints(gateway, provider, &draft.base_url, &draft.scope, violations)
    });
    let credential = match draft.credential.take() {
        Some(found) => credential(provider, found, "connection.credential", violations),
        None => {
            violations.push(credential_required("connection.credential"));
            None
        }
    };
    Some(CheckedDraft {
        provider: provider?,
        display_name: display_name?,
        endpoints: Some(endpoints).filter(|found| !found.is_empty())?,
        credential: credential?,
        rest: draft,
    })
}

/// The violation of a request without a credential at `field`.
pub(super) fn credential_required(field: &str) -> FieldViolation {
    FieldViolation::new(
        field,
        FieldReason::Required,
        "send the credential, such as `personal_access_token {token: ...}`; GetProvider tells the kinds",
    )
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// Starts with those that were found while the message was read.
    #[must_use]
    pub const fn starting_with(found: Vec<FieldViolation>) -> Self {
        Self(found)
    }

    /// Notes a violation.
    pub fn push(&mut self, violation: FieldViolation) {
        self.0.push(violation);
    }

    /// Takes the value, or notes why there is none.
    pub fn take<T>(&mut self, field: &str, parsed: Result<T, Refusal>) -> Option<T> {
        parsed.map_err(|refusal| self.0.push(refusal.at(field))).ok()
    }

    /// Notes violations of a part of the request, at their places below `prefix`.
    pub fn extend_at(&mut self, prefix: &str, found: Vec<FieldViolation>) {
        self.0.extend(
            found.into_iter().map(|violation| FieldViolation {
                field: format!("{prefix}{}", violation.field),
                ..violation
            }),
        );
    }

    /// What was found, for a later step to add to.
    #[must_use]
    pub fn into_found(self) -> Vec<FieldViolation> {
        self.0
    }

    /// Whether anything is wrong.
    ///
    /// # Errors
    ///
    /// Everything that is.
    pub fn finish(self) -> Result<(), super::error::Error> {
        if self.0.is_empty() { Ok(()) } else { Err(super::error::Error::Invalid(self.0)) }
    }
}

/// Finds the driver that a request names.
fn provider<'g>(gateway: &'g Gateway, id: &str, violations: &mut Violations) -> Option<&'g dyn Provider> {
    if id.is_empty() {
        violations.push(FieldViolation::new(
            "connection.provider",
            FieldReason::Required,
            "name the provider, such as `gitlab`; ListProviders lists them",
        ));
        return None;
    }
    let found = gateway.providers().find(id);
    if found.is_none() {
        let known: Vec<_> = gateway.providers().iter().map(|provider| provider.about().id).collect();
        violations.push(FieldViolation::new(
            "connection.provider",
            FieldReason::UnknownValue,
            format!("no such provider; this server knows {}", known.join(", ")),
        ));
    }
    found
}

/// The endpoints that URL and scope can mean, each admitted by the outbound policy.
pub(super) fn endpoints(
    gateway: &Gateway,
    provider: &dyn Provider,
    base_url: &str,
    scope: &Scope,
    violations: &mut Violations,
) -> Vec<Endpoint> {
    let mut parsed = None;
    if !base_url.is_empty() {
        let rewritten = provider.pasted(base_url);
        parsed =
            violations.take("connection.base_url", BaseUrl::parse(rewritten.as_deref().unwrap_or(base_url)));
        if parsed.is_none() {
            return Vec::new();
        }
    }
    if parsed.is_some() && looks_like_token(base_url) {
        violations.push(FieldViolation::new(
            "connection.base_url",
            FieldReason::TokenInText,
            "the URL looks like it holds a token; tokens go into `credential` alone. Revoke this one if it is real",
        ));
        return Vec::new();
    }
    if let Some(url) = &parsed
        && violations.take("connection.base_url", gateway.admit(url.url())).is_none()
    {
        return Vec::new();
    }
    match provider.endpoints(parsed.as_ref(), scope) {
        Ok(mut found) => {
            found.truncate(MAX_ENDPOINTS);
            found
        }
        Err(found) => {
            for violation in found {
                violations.push(violation);
            }
            Vec::new()
        }
    }
}

/// A credential that the provider knows the form of. `field` is where it stands in the request.
pub(super) fn credential(
    provider: Option<&dyn Provider>,
    draft: CredentialDraft,
    field: &str,
    violations: &mut Violations,
) -> Option<CheckedCredential> {
    let kind = match &draft.form {
        CredentialForm::PersonalAccessToken { .. } => "personal_access_token",
        CredentialForm::EmailApiToken { .. } => "email_api_token",
        CredentialForm::ResourceToken { .. } => "resource_token",
    };
    let texts: Vec<(&str, &str)> = match &draft.form {
        CredentialForm::PersonalAccessToken { username } => {
            vec![("username", username.as_deref().unwrap_or(""))]
        }
        CredentialForm::EmailApiToken { email } => vec![("email", email)],
        CredentialForm::ResourceToken { resource, .. } => vec![("resource", resource)],
    };
    for (name, text) in texts {
        check_short_text(&format!("{field}.{kind}.{name}"), text, violations);
    }
    let CredentialDraft { form, token, declared_expire_time } = draft;
    let token =
        violations.take(&format!("{field}.{kind}.token"), Secret::token(token.expose().to_owned()))?;
    let credential = Credential { form, token };
    if let Some(provider) = provider {
        violations.take(field, provider.accepts(&credential))?;
    }
    Some(CheckedCredential { credential, declared_expire_time })
}

/// The display name, or why it is none.
pub(super) fn display_name(text: &str, violations: &mut Violations) -> Option<DisplayName> {
    violations.take("connection.display_name", DisplayName::parse(text))
}

/// Checks what needs no provider: scope, certificates, labels, annotations, owner.
pub(super) fn check_rest(gateway: &Gateway, draft: &ConnectionDraft, violations: &mut Violations) {
    check_short_text("connection.owner", &draft.owner, violations);
    check_short_text("connection.scope.organization", &draft.scope.organization, violations);
    check_short_text("connection.scope.collection", &draft.scope.collection, violations);
    for (field, entries) in [("projects", &draft.scope.projects), ("workspaces", &draft.scope.workspaces)] {
        let field = format!("connection.scope.{field}");
        if entries.len() > MAX_SCOPE_ENTRIES {
            violations.push(FieldViolation::new(&field, FieldReason::TooMany, "at most 100 entries"));
        }
        for entry in entries {
            if entry.is_empty() {
                violations.push(FieldViolation::new(
                    &field,
                    FieldReason::Malformed,
                    "an entry is empty; remove it",
                ));
            }
            check_short_text(&field, entry, violations);
        }
    }
    check_certificates(gateway, &draft.ca_certificates_pem, violations);
    check_map("connection.labels", &draft.labels, MAX_LABEL_BYTES, violations);
    check_map("connection.annotations", &draft.annotations, MAX_ANNOTATION_BYTES, violations);
}

fn check_short_text(field: &str, text: &str, violations: &mut Violations) {
    if text.len() > MAX_TEXT_BYTES {
        violations.push(FieldViolation::new(field, FieldReason::TooLong, "at most 256 bytes"));
    }
    violations.take(field, check_text(text));
}

fn check_certificates(gateway: &Gateway, pem: &str, violations: &mut Violations) {
    const FIELD: &str = "connection.tls.ca_certificates_pem";
    if pem.is_empty() {
        return;
    }
    if pem.len() > MAX_CA_BYTES {
        violations.push(FieldViolation::new(FIELD, FieldReason::TooLong, "at most 64 KiB of certificates"));
    } else if pem.contains("PRIVATE KEY") {
        let told =
            "the text holds a private key; send certificates alone, and replace this key if it is real";
        violations.push(FieldViolation::new(FIELD, FieldReason::CaCertificateMalformed, told));
    } else {
        violations.take(FIELD, gateway.check_certificates(pem));
    }
}

/// Checks labels or annotations, whose values have at most `max_value` bytes.
pub(super) fn check_map(
    field: &str,
    map: &BTreeMap<String, String>,
    max_value: usize,
    violations: &mut Violations,
) {
    if map.len() > MAX_MAP_ENTRIES {
        violations.push(FieldViolation::new(field, FieldReason::TooMany, "at most 64 entries"));
    }
    for (key, value) in map {
        if !is_map_key(key) {
            violations.push(FieldViolation::new(
                field,
                FieldReason::Malformed,
                "a key has 1 to 63 characters of a-z, A-Z, 0-9, `_`, `-`, `.` and `/`, and starts with a letter or digit",
            ));
            continue;
        }
        let entry = format!("{field}[{key}]");
        if value.len() > max_value {
            violations.push(FieldViolation::new(
                &entry,
                FieldReason::TooLong,
                format!("at most {max_value} bytes"),
            ));
        }
        // Annotations may have several lines.
        violations.take(&entry, check_text(&value.replace(['\n', '\r', '\t'], " ")));
        violations.take(field, check_text(key));
    }
}

fn is_map_key(key: &str) -> bool {
    (1..=63).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
}
