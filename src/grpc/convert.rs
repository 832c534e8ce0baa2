//! Protobuf to domain and back: the only place where they meet.

use std::collections::BTreeMap;

use crate::domain::connection::{
    Condition, ConditionStatus, Connection, ConnectionName, Hosting, RateLimit, Scope, State,
};
use crate::domain::credential::{
    Account, Capability, CapabilityType, CredentialForm, CredentialInfo, CredentialKind, ExpireTimeSource,
    ResourceType, Secret,
};
use crate::domain::page::Warning;
use crate::domain::repository::{Namespace, NamespaceKind, Permission, Repository, Visibility};
use crate::domain::timestamp::Timestamp;
use crate::domain::verification::{Check, CheckResult, Outcome, VerificationReport};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::proto::v1;
use crate::provider::About;
use crate::service::connections::{Edit, etag};
use crate::service::draft::{ConnectionDraft, CredentialDraft, Violations};

use super::names::repository_name;

// ---- from protobuf ----

/// A connection as a caller described it. Enum numbers and times that make no sense are noted.
pub(super) fn draft(connection: v1::Connection, violations: &mut Violations) -> ConnectionDraft {
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
pub(super) fn credential_draft(
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
pub(super) fn edit(connection: v1::Connection, mask: Option<&[String]>, violations: &mut Violations) -> Edit {
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
pub(super) fn min_permission(number: i32, violations: &mut Violations) -> Permission {
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

/// A page size: negative ones are refused (AIP-158).
pub(super) fn page_size(number: i32, violations: &mut Violations) -> usize {
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

// ---- to protobuf ----

/// A connection as it is presented; `credential` is input only and stays empty.
pub(super) fn connection(connection: Connection) -> v1::Connection {
    let etag = etag(&connection);
    v1::Connection {
        name: connection.name.to_string(),
        uid: connection.uid,
        display_name: connection.display_name.as_str().to_owned(),
        provider: connection.provider.as_str().to_owned(),
        base_url: connection.base_url,
        effective_api_url: connection.effective_api_url,
        scope: (connection.scope != Scope::default()).then_some(v1::connection::Scope {
            organization: connection.scope.organization,
            collection: connection.scope.collection,
            projects: connection.scope.projects,
            workspaces: connection.scope.workspaces,
        }),
        credential: None,
        credential_info: Some(credential_info(connection.credential)),
        tls: (!connection.ca_certificates_pem.is_empty())
            .then_some(v1::connection::Tls { ca_certificates_pem: connection.ca_certificates_pem }),
        required_capabilities: connection
            .required_capabilities
            .iter()
            .map(|&which| capability_type(which))
            .collect(),
        server_version: connection.server_version,
        hosting: match connection.hosting {
            Hosting::Cloud => v1::connection::Hosting::Cloud,
            Hosting::SelfHosted => v1::connection::Hosting::SelfHosted,
        } as i32,
        state: match connection.state {
            State::Pending => v1::connection::State::Pending,
            State::Active => v1::connection::State::Active,
            State::Degraded => v1::connection::State::Degraded,
            State::AuthFailed => v1::connection::State::AuthFailed,
            State::Unreachable => v1::connection::State::Unreachable,
            State::Disabled => v1::connection::State::Disabled,
        } as i32,
        conditions: connection.conditions.into_iter().map(condition).collect(),
        rate_limit: connection.rate_limit.map(rate_limit),
        disabled: connection.disabled,
        labels: connection.labels.into_iter().collect(),
        annotations: connection.annotations.into_iter().collect(),
        owner: connection.owner,
        create_time: Some(time(connection.create_time)),
        update_time: Some(time(connection.update_time)),
        last_verify_time: connection.last_verify_time.map(time),
        etag,
    }
}

fn credential_info(info: CredentialInfo) -> v1::CredentialInfo {
    v1::CredentialInfo {
        kind: credential_kind(info.form.kind()),
        obfuscated_token: info.obfuscated_token,
        fingerprint: info.fingerprint,
        account: info.account.map(account),
        granted_scopes: info.granted_scopes,
        missing_scopes: info.missing_scopes,
        capabilities: Some(v1::Capabilities {
            list_repositories: capability(info.capabilities.list_repositories),
            read_code: capability(info.capabilities.read_code),
            manage_webhooks: capability(info.capabilities.manage_webhooks),
        }),
        expire_time: info.expire_time.map(time),
        expire_time_source: match info.expire_time_source {
            ExpireTimeSource::Provider => v1::credential_info::ExpireTimeSource::Provider,
            ExpireTimeSource::Declared => v1::credential_info::ExpireTimeSource::Declared,
            ExpireTimeSource::Unknown => v1::credential_info::ExpireTimeSource::Unknown,
        } as i32,
        version: info.version,
        create_time: Some(time(info.create_time)),
        last_use_time: info.last_use_time.map(time),
    }
}

fn account(account: Account) -> v1::Account {
    v1::Account {
        id: account.id,
        login: account.login,
        display_name: account.display_name,
        email: account.email,
        bot: account.bot,
    }
}

fn condition(condition: Condition) -> v1::Condition {
    v1::Condition {
        r#type: condition.condition_type,
        status: match condition.status {
            ConditionStatus::True => v1::condition::Status::True,
            ConditionStatus::False => v1::condition::Status::False,
            ConditionStatus::Unknown => v1::condition::Status::Unknown,
        } as i32,
        reason: condition.reason,
        message: condition.message,
        last_transition_time: Some(time(condition.last_transition_time)),
    }
}

fn rate_limit(limit: RateLimit) -> v1::connection::RateLimit {
    v1::connection::RateLimit {
        limit: limit.limit,
        remaining: limit.remaining,
        reset_time: limit.reset_time.map(time),
        observe_time: Some(time(limit.observe_time)),
    }
}

/// What a verification found.
pub(super) fn report(report: &VerificationReport) -> v1::VerificationReport {
    v1::VerificationReport {
        result: outcome(report.result),
        checks: report.checks.iter().map(check_result).collect(),
        certificate: report.certificate.as_ref().map(|certificate| v1::verification_report::Certificate {
            issuer: certificate.issuer.clone(),
            subject: certificate.subject.clone(),
            not_after: certificate.not_after.map(time),
            sha256: certificate.sha256.clone(),
        }),
    }
}

fn check_result(result: &CheckResult) -> v1::CheckResult {
    use v1::check_result::Check as Wire;
    v1::CheckResult {
        check: match result.check {
            Check::Dns => Wire::Dns,
            Check::Connect => Wire::Connect,
            Check::Tls => Wire::Tls,
            Check::ProviderMatch => Wire::ProviderMatch,
            Check::ServerVersion => Wire::ServerVersion,
            Check::Authentication => Wire::Authentication,
            Check::Identity => Wire::Identity,
            Check::Scopes => Wire::Scopes,
            Check::ListRepositories => Wire::ListRepositories,
            Check::Webhooks => Wire::Webhooks,
            Check::Clock => Wire::Clock,
        } as i32,
        outcome: outcome(result.outcome),
        reason: result.reason.clone(),
        message: result.message.clone(),
        remedy: result.remedy.clone(),
        http_status: result.http_status.map_or(0, i32::from),
        duration: result.duration.and_then(|duration| duration.try_into().ok()),
    }
}

const fn outcome(outcome: Outcome) -> i32 {
    (match outcome {
        Outcome::Pass => v1::Outcome::Pass,
        Outcome::Warn => v1::Outcome::Warn,
        Outcome::Fail => v1::Outcome::Fail,
        Outcome::Skipped => v1::Outcome::Skipped,
    }) as i32
}

/// What is known of a provider without asking it.
pub(super) fn provider(about: &About) -> v1::Provider {
    v1::Provider {
        name: format!("providers/{}", about.id),
        title: about.title.to_owned(),
        cloud_base_url: about.cloud_base_url.to_owned(),
        credential_kinds: about
            .credential_kinds
            .iter()
            .map(|kind| v1::provider::CredentialKindInfo {
                kind: credential_kind(kind.kind),
                title: kind.title.to_owned(),
                fields: kind
                    .fields
                    .iter()
                    .map(|field| v1::provider::CredentialField {
                        name: field.name.to_owned(),
                        title: field.title.to_owned(),
                        description: field.description.to_owned(),
                        required: field.required,
                        secret: field.secret,
                    })
                    .collect(),
            })
            .collect(),
        capability_scopes: about
            .capability_scopes
            .iter()
            .map(|(which, scopes)| v1::provider::CapabilityScopes {
                capability: capability_type(*which),
                scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            })
            .collect(),
        minimum_server_version: about.minimum_server_version.to_owned(),
        webhook_events: about
            .webhook_events
            .iter()
            .filter_map(|name| v1::WebhookEventType::from_str_name(&format!("WEBHOOK_EVENT_TYPE_{name}")))
            .map(|event| event as i32)
            .collect(),
        tells_expiry: about.tells_expiry,
        tells_scopes: about.tells_scopes,
        max_page_size: about.max_page_size,
        documentation_urls: about.documentation_urls.iter().map(|&url| url.to_owned()).collect(),
    }
}

const fn credential_kind(kind: CredentialKind) -> i32 {
    (match kind {
        CredentialKind::PersonalAccessToken => v1::CredentialKind::PersonalAccessToken,
        CredentialKind::EmailApiToken => v1::CredentialKind::EmailApiToken,
        CredentialKind::ResourceToken => v1::CredentialKind::ResourceToken,
    }) as i32
}

const fn capability_type(which: CapabilityType) -> i32 {
    (match which {
        CapabilityType::ListRepositories => v1::CapabilityType::ListRepositories,
        CapabilityType::ReadCode => v1::CapabilityType::ReadCode,
        CapabilityType::ManageWebhooks => v1::CapabilityType::ManageWebhooks,
    }) as i32
}

const fn capability(capability: Capability) -> i32 {
    (match capability {
        Capability::Yes => v1::capabilities::Capability::Yes,
        Capability::No => v1::capabilities::Capability::No,
        Capability::Unknown => v1::capabilities::Capability::Unknown,
    }) as i32
}

/// A repository as `connection` shows it.
pub(super) fn repository(connection: &ConnectionName, row: Repository) -> v1::Repository {
    v1::Repository {
        name: repository_name(connection, &row.provider_id),
        provider_id: row.provider_id,
        full_name: row.full_name,
        namespace: row.namespace,
        display_name: row.display_name,
        description: row.description,
        default_branch: row.default_branch.unwrap_or_default(),
        clone_https_url: row.clone_https_url,
        clone_ssh_url: row.clone_ssh_url,
        web_url: row.web_url,
        visibility: match row.visibility {
            Visibility::Public => v1::repository::Visibility::Public,
            Visibility::Internal => v1::repository::Visibility::Internal,
            Visibility::Private => v1::repository::Visibility::Private,
            Visibility::Unknown => v1::repository::Visibility::Unknown,
        } as i32,
        archived: row.archived,
        disabled: row.disabled,
        fork: row.fork,
        size_kib: row.size_kib,
        foreign_clone_host: row.foreign_clone_host,
        update_time: row.update_time.map(time),
        permission: match row.permission {
            Permission::Unknown => v1::Permission::Unknown,
            Permission::Read => v1::Permission::Read,
            Permission::Write => v1::Permission::Write,
            Permission::Admin => v1::Permission::Admin,
        } as i32,
    }
}

/// A place that holds repositories.
pub(super) fn namespace(namespace: Namespace) -> v1::Namespace {
    v1::Namespace {
        provider_id: namespace.provider_id,
        full_path: namespace.full_path,
        display_name: namespace.display_name,
        kind: match namespace.kind {
            NamespaceKind::User => v1::namespace::Kind::User,
            NamespaceKind::Organization => v1::namespace::Kind::Organization,
            NamespaceKind::Group => v1::namespace::Kind::Group,
            NamespaceKind::Workspace => v1::namespace::Kind::Workspace,
            NamespaceKind::Project => v1::namespace::Kind::Project,
            NamespaceKind::Collection => v1::namespace::Kind::Collection,
        } as i32,
        parent_path: namespace.parent_path,
        web_url: namespace.web_url,
    }
}

/// Something a reader of a listing should know.
pub(super) fn warning(connection: &ConnectionName, warning: Warning) -> v1::RepositoryWarning {
    v1::RepositoryWarning {
        connection: connection.to_string(),
        reason: warning.reason.to_owned(),
        message: warning.message,
    }
}

pub(super) const fn time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.unix_seconds(), nanos: time.subsecond_nanos() }
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

    const DOMAIN_REASONS: [FieldReason; 22] = [
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
