//! To protobuf.

use crate::domain::connection::{
    Condition, ConditionStatus, ConnectionName, Hosting, RateLimit, Scope, State,
};
use crate::domain::credential::{
    Account, Capability, CapabilityType, CredentialInfo, CredentialKind, ExpireTimeSource,
};
use crate::domain::page::Warning;
use crate::domain::refs::{Ref, RefKind};
use crate::domain::repository::{Namespace, NamespaceKind, Permission, Repository, Visibility};
use crate::domain::timestamp::Timestamp;
use crate::domain::verification::{Check, CheckResult, Outcome, VerificationReport};
use crate::domain::webhook::WebhookEvent;
use crate::grpc::names::repository_name;
use crate::proto::v1;
use crate::provider::About;
use crate::service::connections::{ShownConnection, etag};
use crate::service::repositories::Found;

/// A connection as it is presented; `credential` is input only and stays empty.
pub(in crate::grpc) fn connection(shown: ShownConnection) -> v1::Connection {
    let ShownConnection { connection, linked_repositories } = shown;
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
        state: connection_state(connection.state),
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
        linked_repository_count: i64::try_from(linked_repositories).unwrap_or(i64::MAX),
    }
}

pub(super) fn connection_state(state: State) -> i32 {
    let wire = match state {
        State::Pending => v1::connection::State::Pending,
        State::Active => v1::connection::State::Active,
        State::Degraded => v1::connection::State::Degraded,
        State::AuthFailed => v1::connection::State::AuthFailed,
        State::Unreachable => v1::connection::State::Unreachable,
        State::Disabled => v1::connection::State::Disabled,
    };
    wire as i32
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

pub(in crate::grpc) fn account(account: Account) -> v1::Account {
    v1::Account {
        id: account.id,
        login: account.login,
        display_name: account.display_name,
        email: account.email,
        bot: account.bot,
    }
}

pub(in crate::grpc) fn condition(condition: Condition) -> v1::Condition {
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
pub(in crate::grpc) fn report(report: &VerificationReport) -> v1::VerificationReport {
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
pub(in crate::grpc) fn provider(about: &About) -> v1::Provider {
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
        webhook_events: about.webhook_events.iter().map(|&event| webhook_event(event)).collect(),
        tells_expiry: about.tells_expiry,
        tells_scopes: about.tells_scopes,
        max_page_size: about.max_page_size,
        documentation_urls: about.documentation_urls.iter().map(|&url| url.to_owned()).collect(),
    }
}

pub(in crate::grpc) const fn webhook_event(event: WebhookEvent) -> i32 {
    (match event {
        WebhookEvent::Push => v1::WebhookEventType::Push,
        WebhookEvent::Tag => v1::WebhookEventType::Tag,
        WebhookEvent::PullRequest => v1::WebhookEventType::PullRequest,
        WebhookEvent::Other => v1::WebhookEventType::Other,
    }) as i32
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
        repository_link: String::new(),
    }
}

/// The same, and whether the tenant has linked it.
pub(in crate::grpc) fn found(connection: &ConnectionName, found: Found) -> v1::Repository {
    let link = found.link.map(|link| link.to_string()).unwrap_or_default();
    v1::Repository { repository_link: link, ..repository(connection, found.repository) }
}

/// A place that holds repositories.
pub(in crate::grpc) fn namespace(namespace: Namespace) -> v1::Namespace {
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

/// A branch or a tag.
pub(in crate::grpc) fn git_ref(row: Ref) -> v1::Ref {
    v1::Ref {
        name: row.name,
        r#type: match row.kind {
            RefKind::Branch => v1::RefType::Branch,
            RefKind::Tag => v1::RefType::Tag,
        } as i32,
        commit_id: row.commit_id,
        protected: row.protected,
        is_default: row.is_default,
    }
}

/// Something a reader of a listing should know.
pub(in crate::grpc) fn warning(connection: &ConnectionName, warning: Warning) -> v1::RepositoryWarning {
    v1::RepositoryWarning {
        connection: connection.to_string(),
        reason: warning.reason.to_owned(),
        message: warning.message,
    }
}

pub(in crate::grpc) const fn time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.unix_seconds(), nanos: time.subsecond_nanos() }
}
