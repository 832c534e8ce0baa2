//! From protobuf: what makes no sense is noted, not guessed.

use std::collections::BTreeMap;

use crate::domain::connection::Scope;
use crate::domain::credential::{CapabilityType, CredentialForm, ResourceType, Secret};
use crate::domain::refs::RefKind;
use crate::domain::repository::Permission;
use crate::domain::timestamp::Timestamp;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::proto::v1;
use crate::service::connections::Edit;
use crate::service::draft::{ConnectionDraft, CredentialDraft, Violations};

/// A connection as a caller described it. Enum numbers and times that make no sense are noted.
pub(in crate::grpc) fn draft(connection: v1::Connection, violations: &mut Violations) -> ConnectionDraft {
    let required_capabilities = capabilities(&connection.required_capabilities, violations);
    let scope = connection.scope.unwrap_or_default();
    ConnectionDraft {
        display_name: connection.display_name,
        provider: connection.provider,
        base_url: connection.base_url,
        scope: Scope {
            organization: scope.organization,
            collection: scope.collection,
            projects: scope.projects,
            workspaces: scope.workspaces,
        },
        credential: connection
            .credential
            .and_then(|credential| credential_draft(credential, "connection.credential", violations)),
        ca_certificates_pem: connection.tls.unwrap_or_default().ca_certificates_pem,
        required_capabilities,
        disabled: connection.disabled,
        labels: connection.labels.into_iter().collect(),
        annotations: connection.annotations.into_iter().collect(),
        owner: connection.owner,
    }
}

/// A credential as a caller sent it; `None` if no kind is set, which whoever asks for one notes.
pub(in crate::grpc) fn credential_draft(
    credential: v1::Credential,
    field: &str,
    violations: &mut Violations,
) -> Option<CredentialDraft> {
    let declared_expire_time = credential
        .declared_expire_time
        .and_then(|time| timestamp(time, &format!("{field}.declared_expire_time"), violations));
    let (form, token) = match credential.kind? {
        v1::credential::Kind::PersonalAccessToken(pat) => {
            let username = pat.username.filter(|name| !name.is_empty());
            (CredentialForm::PersonalAccessToken { username }, pat.token)
        }
        v1::credential::Kind::EmailApiToken(api) => {
            if api.email.is_empty() {
                let told = "the e-mail address of the token's account";
                violations.push(FieldViolation::new(
                    format!("{field}.email_api_token.email"),
                    FieldReason::Required,
                    told,
                ));
            }
            (CredentialForm::EmailApiToken { email: api.email }, api.token)
        }
        v1::credential::Kind::ResourceToken(resource) => {
            let resource_type = match resource.resource_type() {
                v1::resource_token::ResourceType::Repository => ResourceType::Repository,
                v1::resource_token::ResourceType::Project => ResourceType::Project,
                v1::resource_token::ResourceType::Workspace => ResourceType::Workspace,
                v1::resource_token::ResourceType::Group => ResourceType::Group,
                v1::resource_token::ResourceType::Unspecified => {
                    let field = format!("{field}.resource_token.resource_type");
                    violations.push(unknown_or_missing(&field, resource.resource_type));
                    ResourceType::Repository
                }
            };
            (CredentialForm::ResourceToken { resource_type, resource: resource.resource }, resource.token)
        }
    };
    Some(CredentialDraft { form, token: Secret::new(token), declared_expire_time })
}

/// The fields of an update. `None` for the mask: all populated fields; `*`: all of them.
pub(in crate::grpc) fn edit(
    connection: v1::Connection,
    mask: Option<&[String]>,
    violations: &mut Violations,
) -> Edit {
    let all = mask.is_some_and(|paths| paths.iter().any(|path| path == "*"));
    let named = |path: &str| mask.is_some_and(|paths| paths.iter().any(|named| named == path));
    // A path takes everything below it along.
    let below = |whole: &str, part: &str| named(whole) || named(&format!("{whole}.{part}"));
    for path in mask.unwrap_or_default() {
        check_path(path, violations);
    }
    let required = capabilities(&connection.required_capabilities, violations);
    let scope = connection.scope.unwrap_or_default();
    let tls = connection.tls.unwrap_or_default();
    let wants_credential = all || mask.is_none() || named("credential");
    let credential = connection
        .credential
        .filter(|_| wants_credential)
        .and_then(|credential| credential_draft(credential, "connection.credential", violations));
    let text =
        |set: bool, value: String| (all || set || (mask.is_none() && !value.is_empty())).then_some(value);
    let list = |set: bool, value: Vec<String>| {
        (all || set || (mask.is_none() && !value.is_empty())).then_some(value)
    };
    let map = |set: bool, value: BTreeMap<String, String>| {
        (all || set || (mask.is_none() && !value.is_empty())).then_some(value)
    };
    Edit {
        display_name: text(named("display_name"), connection.display_name),
        // An update with `*` may leave the provider out: it cannot change anyway.
        provider: (!connection.provider.is_empty()).then_some(connection.provider),
        base_url: text(named("base_url"), connection.base_url),
        organization: text(below("scope", "organization"), scope.organization),
        collection: text(below("scope", "collection"), scope.collection),
        projects: list(below("scope", "projects"), scope.projects),
        workspaces: list(below("scope", "workspaces"), scope.workspaces),
        credential,
        ca_certificates_pem: text(below("tls", "ca_certificates_pem"), tls.ca_certificates_pem),
        required_capabilities: (all
            || named("required_capabilities")
            || (mask.is_none() && !required.is_empty()))
        .then_some(required),
        disabled: (all || named("disabled") || (mask.is_none() && connection.disabled))
            .then_some(connection.disabled),
        labels: map(named("labels"), connection.labels.into_iter().collect()),
        annotations: map(named("annotations"), connection.annotations.into_iter().collect()),
        owner: text(named("owner"), connection.owner),
    }
}

/// Paths that an update may name. Those of output fields are allowed and change nothing (AIP-203).
fn check_path(path: &str, violations: &mut Violations) {
    const INPUT: [&str; 17] = [
        "*",
        "display_name",
        "provider",
        "base_url",
        "scope",
        "scope.organization",
        "scope.collection",
        "scope.projects",
        "scope.workspaces",
        "credential",
        "tls",
        "tls.ca_certificates_pem",
        "required_capabilities",
        "disabled",
        "labels",
        "annotations",
        "owner",
    ];
    const OUTPUT: [&str; 13] = [
        "name",
        "uid",
        "effective_api_url",
        "credential_info",
        "server_version",
        "hosting",
        "state",
        "conditions",
        "rate_limit",
        "create_time",
        "update_time",
        "last_verify_time",
        "etag",
    ];
    if !INPUT.contains(&path) && !OUTPUT.contains(&path) {
        violations.push(FieldViolation::new(
            "update_mask",
            FieldReason::UnknownPath,
            format!("a path is not a field of Connection; the paths are {}", INPUT.join(", ")),
        ));
    }
}

/// The permission of a filter; unset means no filter, and UNKNOWN is nothing to ask for.
pub(in crate::grpc) fn min_permission(number: i32, violations: &mut Violations) -> Permission {
    match v1::Permission::try_from(number) {
        Ok(v1::Permission::Read) => Permission::Read,
        Ok(v1::Permission::Write) => Permission::Write,
        Ok(v1::Permission::Admin) => Permission::Admin,
        Ok(v1::Permission::Unspecified) => Permission::Unknown,
        Ok(v1::Permission::Unknown) | Err(_) => {
            violations.push(FieldViolation::new(
                "min_permission",
                FieldReason::UnknownValue,
                "must be READ, WRITE or ADMIN; leave it out for all",
            ));
            Permission::Unknown
        }
    }
}

/// The type of a listing of refs; unset means branches.
pub(in crate::grpc) fn ref_type(number: i32, violations: &mut Violations) -> RefKind {
    match v1::RefType::try_from(number) {
        Ok(v1::RefType::Branch | v1::RefType::Unspecified) => RefKind::Branch,
        Ok(v1::RefType::Tag) => RefKind::Tag,
        Err(_) => {
            violations.push(FieldViolation::new(
                "type",
                FieldReason::UnknownValue,
                "must be BRANCH or TAG; leave it out for branches",
            ));
            RefKind::Branch
        }
    }
}

/// A page size: negative ones are refused (AIP-158).
pub(in crate::grpc) fn page_size(number: i32, violations: &mut Violations) -> usize {
    usize::try_from(number).unwrap_or_else(|_| {
        let told = "must not be negative; 0 means the default";
        violations.push(FieldViolation::new("page_size", FieldReason::OutOfRange, told));
        0
    })
}

fn capabilities(numbers: &[i32], violations: &mut Violations) -> Vec<CapabilityType> {
    const FIELD: &str = "connection.required_capabilities";
    let mut found: Vec<CapabilityType> = numbers
        .iter()
        .filter_map(|&number| match v1::CapabilityType::try_from(number) {
            Ok(v1::CapabilityType::ListRepositories) => Some(CapabilityType::ListRepositories),
            Ok(v1::CapabilityType::ReadCode) => Some(CapabilityType::ReadCode),
            Ok(v1::CapabilityType::ManageWebhooks) => Some(CapabilityType::ManageWebhooks),
            Ok(v1::CapabilityType::Unspecified) | Err(_) => {
                violations.push(unknown_or_missing(FIELD, number));
                None
            }
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn timestamp(time: prost_types::Timestamp, field: &str, violations: &mut Violations) -> Option<Timestamp> {
    // The range of google.protobuf.Timestamp: years 1 to 9999.
    let in_range = (-62_135_596_800..=253_402_300_799).contains(&time.seconds)
        && (0..1_000_000_000).contains(&time.nanos);
    if !in_range {
        violations.push(FieldViolation::new(
            field,
            FieldReason::OutOfRange,
            "not a time between the years 1 and 9999",
        ));
        return None;
    }
    Some(Timestamp::from_unix_micros(time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000))
}

fn unknown_or_missing(field: &str, number: i32) -> FieldViolation {
    if number == 0 {
        return FieldViolation::new(field, FieldReason::Required, "must be one of the enum's values");
    }
    FieldViolation::new(
        field,
        FieldReason::UnknownValue,
        format!("this server does not know the value {number}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_reasons_are_those_of_the_contract() {
        for number in 1.. {
            let Ok(wire) = v1::FieldReason::try_from(number) else { break };
            let name = wire.as_str_name().trim_start_matches("FIELD_REASON_");
            assert!(
                DOMAIN_REASONS.iter().any(|reason| reason.as_str() == name),
                "{name} is in the contract alone"
            );
        }
        for reason in DOMAIN_REASONS {
            let name = format!("FIELD_REASON_{}", reason.as_str());
            assert!(v1::FieldReason::from_str_name(&name).is_some(), "{name} is not in the contract");
        }
    }

    const DOMAIN_REASONS: [FieldReason; 23] = [
        FieldReason::Required,
        FieldReason::Malformed,
        FieldReason::TooLong,
        FieldReason::TooMany,
        FieldReason::OutOfRange,
        FieldReason::UnknownValue,
        FieldReason::UnknownPath,
        FieldReason::Immutable,
        FieldReason::ControlCharacter,
        FieldReason::TokenInText,
        FieldReason::Conflicting,
        FieldReason::UnsupportedForProvider,
        FieldReason::Reserved,
        FieldReason::UrlMalformed,
        FieldReason::UrlSchemeForbidden,
        FieldReason::UrlUserinfoForbidden,
        FieldReason::UrlPortForbidden,
        FieldReason::UrlTooLong,
        FieldReason::TokenMalformed,
        FieldReason::CaCertificateMalformed,
        FieldReason::EndpointNotAllowed,
        FieldReason::CredentialRequiredForNewHost,
        FieldReason::WebhookTargetNotAllowed,
    ];

    #[test]
    fn an_update_without_a_mask_takes_populated_fields_alone() {
        let wire = v1::Connection { display_name: "New".into(), ..Default::default() };
        let mut violations = Violations::default();
        let edit = edit(wire, None, &mut violations);
        assert_eq!(edit.display_name.as_deref(), Some("New"));
        assert!(edit.owner.is_none() && edit.disabled.is_none() && edit.labels.is_none());
    }

    #[test]
    fn a_mask_can_empty_a_field_and_names_only_fields_that_exist() {
        let mut violations = Violations::default();
        let mask = ["owner", "scope.projects", "state", "tokens"].map(str::to_owned);
        let edit = edit(v1::Connection::default(), Some(&mask), &mut violations);
        assert_eq!((edit.owner.as_deref(), edit.projects), (Some(""), Some(Vec::new())));
        assert!(edit.organization.is_none());
        let Err(crate::service::error::Error::Invalid(found)) = violations.finish() else {
            panic!("refused")
        };
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].reason, FieldReason::UnknownPath);
    }
}
