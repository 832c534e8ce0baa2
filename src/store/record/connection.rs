//! The stored form of a connection with its sealed secret.

use std::collections::BTreeMap;

use prost::Message;

use super::{Stored, stored};
use crate::domain::connection::{
    Condition, ConditionStatus, Connection, ConnectionName, ConnectionRecord, DisplayName, Hosting,
    ProviderId, RateLimit, Revision, Scope, State,
};
use crate::domain::credential::{
    Account, Capabilities, Capability, CapabilityType, CredentialForm, CredentialInfo, ExpireTimeSource,
    ResourceType, Sealed,
};
use crate::domain::timestamp::Timestamp;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ConnectionRow {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(string, tag = "2")]
    display_name: String,
    #[prost(string, tag = "3")]
    provider: String,
    #[prost(string, tag = "4")]
    base_url: String,
    #[prost(string, tag = "5")]
    effective_api_url: String,
    #[prost(message, optional, tag = "6")]
    scope: Option<ScopeRow>,
    #[prost(string, tag = "7")]
    ca_certificates_pem: String,
    #[prost(int32, repeated, tag = "8")]
    required_capabilities: Vec<i32>,
    #[prost(message, optional, tag = "9")]
    credential: Option<CredentialRow>,
    #[prost(string, tag = "10")]
    server_version: String,
    #[prost(int32, tag = "11")]
    hosting: i32,
    #[prost(int32, tag = "12")]
    state: i32,
    #[prost(message, repeated, tag = "13")]
    conditions: Vec<ConditionRow>,
    #[prost(message, optional, tag = "14")]
    rate_limit: Option<RateLimitRow>,
    #[prost(bool, tag = "15")]
    disabled: bool,
    #[prost(btree_map = "string, string", tag = "16")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "17")]
    annotations: BTreeMap<String, String>,
    #[prost(string, tag = "18")]
    owner: String,
    #[prost(int64, tag = "19")]
    create_time: i64,
    #[prost(int64, tag = "20")]
    update_time: i64,
    #[prost(int64, optional, tag = "21")]
    last_verify_time: Option<i64>,
    #[prost(bytes = "vec", tag = "22")]
    sealed: Vec<u8>,
    #[prost(uint64, tag = "23")]
    revision: u64,
    #[prost(uint64, tag = "24")]
    generation: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ScopeRow {
    #[prost(string, tag = "1")]
    organization: String,
    #[prost(string, tag = "2")]
    collection: String,
    #[prost(string, repeated, tag = "3")]
    projects: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    workspaces: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct CredentialRow {
    #[prost(int32, tag = "1")]
    form: i32,
    #[prost(string, optional, tag = "2")]
    username: Option<String>,
    #[prost(string, tag = "3")]
    email: String,
    #[prost(int32, tag = "4")]
    resource_type: i32,
    #[prost(string, tag = "5")]
    resource: String,
    #[prost(string, tag = "6")]
    obfuscated_token: String,
    #[prost(string, tag = "7")]
    fingerprint: String,
    #[prost(message, optional, tag = "8")]
    account: Option<AccountRow>,
    #[prost(string, repeated, tag = "9")]
    granted_scopes: Vec<String>,
    #[prost(string, repeated, tag = "10")]
    missing_scopes: Vec<String>,
    #[prost(int32, tag = "11")]
    list_repositories: i32,
    #[prost(int32, tag = "12")]
    read_code: i32,
    #[prost(int32, tag = "13")]
    manage_webhooks: i32,
    #[prost(int64, optional, tag = "14")]
    expire_time: Option<i64>,
    #[prost(int32, tag = "15")]
    expire_time_source: i32,
    #[prost(int64, tag = "16")]
    version: i64,
    #[prost(int64, tag = "17")]
    create_time: i64,
    #[prost(int64, optional, tag = "18")]
    last_use_time: Option<i64>,
    #[prost(bool, tag = "19")]
    expiry_told: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct AccountRow {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    login: String,
    #[prost(string, tag = "3")]
    display_name: String,
    #[prost(string, tag = "4")]
    email: String,
    #[prost(bool, tag = "5")]
    bot: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ConditionRow {
    #[prost(string, tag = "1")]
    condition_type: String,
    #[prost(int32, tag = "2")]
    status: i32,
    #[prost(string, tag = "3")]
    reason: String,
    #[prost(string, tag = "4")]
    message: String,
    #[prost(int64, tag = "5")]
    last_transition_time: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct RateLimitRow {
    #[prost(int64, tag = "1")]
    limit: i64,
    #[prost(int64, tag = "2")]
    remaining: i64,
    #[prost(int64, optional, tag = "3")]
    reset_time: Option<i64>,
    #[prost(int64, tag = "4")]
    observe_time: i64,
}

impl From<&ConnectionRecord> for ConnectionRow {
    fn from(record: &ConnectionRecord) -> Self {
        // Taken apart by name, so that a new field cannot be forgotten here.
        let ConnectionRecord { connection, sealed, revision } = record;
        let Connection {
            name: _,
            uid,
            display_name,
            provider,
            base_url,
            effective_api_url,
            scope,
            ca_certificates_pem,
            required_capabilities,
            credential,
            server_version,
            hosting,
            state,
            conditions,
            rate_limit,
            disabled,
            labels,
            annotations,
            owner,
            create_time,
            update_time,
            last_verify_time,
            generation,
        } = connection;
        Self {
            uid: uid.clone(),
            display_name: display_name.as_str().to_owned(),
            provider: provider.as_str().to_owned(),
            base_url: base_url.clone(),
            effective_api_url: effective_api_url.clone(),
            scope: (*scope != Scope::default()).then(|| ScopeRow::from(scope)),
            ca_certificates_pem: ca_certificates_pem.clone(),
            required_capabilities: required_capabilities.iter().map(|it| it.number()).collect(),
            credential: Some(CredentialRow::from(credential)),
            server_version: server_version.clone(),
            hosting: hosting.number(),
            state: state.number(),
            conditions: conditions.iter().map(ConditionRow::from).collect(),
            rate_limit: rate_limit.map(RateLimitRow::from),
            disabled: *disabled,
            labels: labels.clone(),
            annotations: annotations.clone(),
            owner: owner.clone(),
            create_time: create_time.unix_micros(),
            update_time: update_time.unix_micros(),
            last_verify_time: last_verify_time.map(Timestamp::unix_micros),
            sealed: sealed.0.clone(),
            revision: revision.0,
            generation: *generation,
        }
    }
}

impl ConnectionRow {
    pub(super) fn into_record(self, name: ConnectionName) -> Option<ConnectionRecord> {
        let required_capabilities = self
            .required_capabilities
            .iter()
            .map(|number| CapabilityType::from_number(*number))
            .collect::<Option<_>>()?;
        let conditions =
            self.conditions.into_iter().map(ConditionRow::into_condition).collect::<Option<_>>()?;
        let connection = Connection {
            name,
            uid: self.uid,
            display_name: DisplayName::from_stored(self.display_name),
            provider: ProviderId::new(self.provider),
            base_url: self.base_url,
            effective_api_url: self.effective_api_url,
            scope: self.scope.map(Scope::from).unwrap_or_default(),
            ca_certificates_pem: self.ca_certificates_pem,
            required_capabilities,
            credential: self.credential?.into_info()?,
            server_version: self.server_version,
            hosting: Hosting::from_number(self.hosting)?,
            state: State::from_number(self.state)?,
            conditions,
            rate_limit: self.rate_limit.map(RateLimit::from),
            disabled: self.disabled,
            labels: self.labels,
            annotations: self.annotations,
            owner: self.owner,
            create_time: Timestamp::from_unix_micros(self.create_time),
            update_time: Timestamp::from_unix_micros(self.update_time),
            last_verify_time: self.last_verify_time.map(Timestamp::from_unix_micros),
            generation: self.generation,
        };
        Some(ConnectionRecord { connection, sealed: Sealed(self.sealed), revision: Revision(self.revision) })
    }
}

impl From<&Scope> for ScopeRow {
    fn from(scope: &Scope) -> Self {
        let Scope { organization, collection, projects, workspaces } = scope.clone();
        Self { organization, collection, projects, workspaces }
    }
}

impl From<ScopeRow> for Scope {
    fn from(row: ScopeRow) -> Self {
        let ScopeRow { organization, collection, projects, workspaces } = row;
        Self { organization, collection, projects, workspaces }
    }
}

impl From<&CredentialInfo> for CredentialRow {
    fn from(info: &CredentialInfo) -> Self {
        let CredentialInfo {
            form,
            obfuscated_token,
            fingerprint,
            account,
            granted_scopes,
            missing_scopes,
            capabilities: Capabilities { list_repositories, read_code, manage_webhooks },
            expiry_told,
            expire_time,
            expire_time_source,
            version,
            create_time,
            last_use_time,
        } = info;
        let mut row = Self {
            obfuscated_token: obfuscated_token.clone(),
            fingerprint: fingerprint.clone(),
            account: account.as_ref().map(AccountRow::from),
            granted_scopes: granted_scopes.clone(),
            missing_scopes: missing_scopes.clone(),
            list_repositories: list_repositories.number(),
            read_code: read_code.number(),
            manage_webhooks: manage_webhooks.number(),
            expiry_told: *expiry_told,
            expire_time: expire_time.map(Timestamp::unix_micros),
            expire_time_source: expire_time_source.number(),
            version: *version,
            create_time: create_time.unix_micros(),
            last_use_time: last_use_time.map(Timestamp::unix_micros),
            ..Self::default()
        };
        match form {
            CredentialForm::PersonalAccessToken { username } => {
                row.form = FORM_PERSONAL_ACCESS_TOKEN;
                row.username.clone_from(username);
            }
            CredentialForm::EmailApiToken { email } => {
                row.form = FORM_EMAIL_API_TOKEN;
                row.email.clone_from(email);
            }
            CredentialForm::ResourceToken { resource_type, resource } => {
                row.form = FORM_RESOURCE_TOKEN;
                row.resource_type = resource_type.number();
                row.resource.clone_from(resource);
            }
        }
        row
    }
}

impl CredentialRow {
    fn into_info(self) -> Option<CredentialInfo> {
        let form = match self.form {
            FORM_PERSONAL_ACCESS_TOKEN => CredentialForm::PersonalAccessToken { username: self.username },
            FORM_EMAIL_API_TOKEN => CredentialForm::EmailApiToken { email: self.email },
            FORM_RESOURCE_TOKEN => CredentialForm::ResourceToken {
                resource_type: ResourceType::from_number(self.resource_type)?,
                resource: self.resource,
            },
            _ => return None,
        };
        Some(CredentialInfo {
            form,
            obfuscated_token: self.obfuscated_token,
            fingerprint: self.fingerprint,
            account: self.account.map(Account::from),
            granted_scopes: self.granted_scopes,
            missing_scopes: self.missing_scopes,
            capabilities: Capabilities {
                list_repositories: Capability::from_number(self.list_repositories)?,
                read_code: Capability::from_number(self.read_code)?,
                manage_webhooks: Capability::from_number(self.manage_webhooks)?,
            },
            expiry_told: self.expiry_told,
            expire_time: self.expire_time.map(Timestamp::from_unix_micros),
            expire_time_source: ExpireTimeSource::from_number(self.expire_time_source)?,
            version: self.version,
            create_time: Timestamp::from_unix_micros(self.create_time),
            last_use_time: self.last_use_time.map(Timestamp::from_unix_micros),
        })
    }
}

impl From<&Account> for AccountRow {
    fn from(account: &Account) -> Self {
        let Account { id, login, display_name, email, bot } = account.clone();
        Self { id, login, display_name, email, bot }
    }
}

impl From<AccountRow> for Account {
    fn from(row: AccountRow) -> Self {
        let AccountRow { id, login, display_name, email, bot } = row;
        Self { id, login, display_name, email, bot }
    }
}

impl From<&Condition> for ConditionRow {
    fn from(condition: &Condition) -> Self {
        let Condition { condition_type, status, reason, message, last_transition_time } = condition.clone();
        Self {
            condition_type,
            status: status.number(),
            reason,
            message,
            last_transition_time: last_transition_time.unix_micros(),
        }
    }
}

impl ConditionRow {
    pub(super) fn into_condition(self) -> Option<Condition> {
        Some(Condition {
            condition_type: self.condition_type,
            status: ConditionStatus::from_number(self.status)?,
            reason: self.reason,
            message: self.message,
            last_transition_time: Timestamp::from_unix_micros(self.last_transition_time),
        })
    }
}

impl From<RateLimit> for RateLimitRow {
    fn from(limit: RateLimit) -> Self {
        let RateLimit { limit, remaining, reset_time, observe_time } = limit;
        Self {
            limit,
            remaining,
            reset_time: reset_time.map(Timestamp::unix_micros),
            observe_time: observe_time.unix_micros(),
        }
    }
}

impl From<RateLimitRow> for RateLimit {
    fn from(row: RateLimitRow) -> Self {
        Self {
            limit: row.limit,
            remaining: row.remaining,
            reset_time: row.reset_time.map(Timestamp::from_unix_micros),
            observe_time: Timestamp::from_unix_micros(row.observe_time),
        }
    }
}

const FORM_PERSONAL_ACCESS_TOKEN: i32 = 1;
const FORM_EMAIL_API_TOKEN: i32 = 2;
const FORM_RESOURCE_TOKEN: i32 = 3;

stored!(ResourceType { Repository = 1, Project = 2, Workspace = 3, Group = 4 });
stored!(CapabilityType { ListRepositories = 1, ReadCode = 2, ManageWebhooks = 3 });
stored!(Capability { Yes = 1, No = 2, Unknown = 3 });
stored!(ExpireTimeSource { Provider = 1, Declared = 2, Unknown = 3 });
stored!(Hosting { Cloud = 1, SelfHosted = 2 });
stored!(State { Pending = 1, Active = 2, Degraded = 3, AuthFailed = 4, Unreachable = 5, Disabled = 6 });
stored!(ConditionStatus { True = 1, False = 2, Unknown = 3 });
