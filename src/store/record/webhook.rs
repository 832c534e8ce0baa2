//! The stored form of a webhook with its sealed secrets.

use std::collections::BTreeSet;

use prost::Message;

use super::connection::{ConditionRow, ConnectionRow};
use super::{Stored, stored};
use crate::domain::connection::{ConnectionId, ConnectionName, ProviderId, Revision, TenantId};
use crate::domain::credential::Sealed;
use crate::domain::link::{LinkId, LinkName};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{
    Farewell, FormerSecret, Making, NextSecret, SecretScheme, WebhookEvent, WebhookKey, WebhookRecord,
    WebhookState, WebhookUser,
};

/// A webhook. Its key is repeated in the row, because a key of bytes cannot be taken apart again.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WebhookRow {
    #[prost(message, optional, tag = "1")]
    key: Option<KeyRow>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(message, repeated, tag = "3")]
    users: Vec<UserRow>,
    #[prost(message, repeated, tag = "4")]
    departing: Vec<NameRow>,
    #[prost(message, optional, tag = "5")]
    via: Option<NameRow>,
    #[prost(message, optional, tag = "6")]
    farewell: Option<FarewellRow>,
    #[prost(string, tag = "7")]
    full_name: String,
    #[prost(bytes = "vec", tag = "8")]
    sealed: Vec<u8>,
    #[prost(int32, optional, tag = "9")]
    scheme: Option<i32>,
    #[prost(int64, tag = "10")]
    secret_version: i64,
    #[prost(message, repeated, tag = "11")]
    former: Vec<SecretRow>,
    #[prost(message, optional, tag = "12")]
    next: Option<SecretRow>,
    #[prost(string, optional, tag = "13")]
    remote_id: Option<String>,
    #[prost(message, optional, tag = "14")]
    making: Option<MakingRow>,
    #[prost(string, repeated, tag = "15")]
    leaving: Vec<String>,
    #[prost(int32, tag = "16")]
    state: i32,
    #[prost(message, repeated, tag = "17")]
    conditions: Vec<ConditionRow>,
    #[prost(bool, tag = "18")]
    adopted: bool,
    #[prost(int64, tag = "19")]
    create_time: i64,
    #[prost(int64, optional, tag = "20")]
    last_check_time: Option<i64>,
    #[prost(int64, optional, tag = "21")]
    last_wake_time: Option<i64>,
    #[prost(int64, optional, tag = "22")]
    due: Option<i64>,
    #[prost(uint32, tag = "23")]
    attempts: u32,
    #[prost(uint64, tag = "24")]
    generation: u64,
    #[prost(uint64, tag = "25")]
    revision: u64,
    #[prost(string, tag = "26")]
    rotated_by: String,
}

/// Which webhook.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct KeyRow {
    #[prost(string, tag = "1")]
    provider: String,
    #[prost(string, tag = "2")]
    instance: String,
    #[prost(string, tag = "3")]
    repository_id: String,
    #[prost(string, tag = "4")]
    target_url: String,
}

/// A resource of a tenant.
#[derive(Clone, PartialEq, Eq, Message)]
struct NameRow {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(string, tag = "2")]
    id: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct UserRow {
    #[prost(message, optional, tag = "1")]
    link: Option<NameRow>,
    #[prost(string, tag = "2")]
    connection: String,
    #[prost(bool, tag = "3")]
    auto: bool,
    #[prost(int32, repeated, tag = "4")]
    events: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct FarewellRow {
    #[prost(message, optional, tag = "1")]
    name: Option<NameRow>,
    #[prost(message, optional, tag = "2")]
    record: Option<ConnectionRow>,
    #[prost(int64, tag = "3")]
    until: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct SecretRow {
    #[prost(bytes = "vec", tag = "1")]
    sealed: Vec<u8>,
    /// Of a former secret alone.
    #[prost(int32, tag = "2")]
    scheme: i32,
    #[prost(int64, tag = "3")]
    until: i64,
    /// Of the next secret alone.
    #[prost(bool, tag = "4")]
    told: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct MakingRow {
    #[prost(string, repeated, tag = "1")]
    before: Vec<String>,
    #[prost(int64, tag = "2")]
    since: i64,
}

impl From<&WebhookRecord> for WebhookRow {
    fn from(record: &WebhookRecord) -> Self {
        let WebhookRecord {
            key,
            uid,
            users,
            departing,
            via,
            farewell,
            full_name,
            sealed,
            scheme,
            secret_version,
            former,
            next,
            rotated_by,
            remote_id,
            making,
            leaving,
            state,
            conditions,
            adopted,
            create_time,
            last_check_time,
            last_wake_time,
            due,
            attempts,
            generation,
            revision,
        } = record;
        Self {
            key: Some(KeyRow::from(key)),
            uid: uid.clone(),
            users: users.iter().map(UserRow::from).collect(),
            departing: departing.iter().map(NameRow::from).collect(),
            via: via.as_ref().map(NameRow::from),
            farewell: farewell.as_ref().map(FarewellRow::from),
            full_name: full_name.clone(),
            sealed: sealed.0.clone(),
            scheme: scheme.map(Stored::number),
            secret_version: *secret_version,
            former: former
                .iter()
                .map(|former| SecretRow {
                    sealed: former.sealed.0.clone(),
                    scheme: former.scheme.number(),
                    until: former.until.unix_micros(),
                    told: false,
                })
                .collect(),
            next: next.as_ref().map(|next| SecretRow {
                sealed: next.sealed.0.clone(),
                scheme: 0,
                until: next.overlap_until.unix_micros(),
                told: next.told,
            }),
            rotated_by: rotated_by.clone(),
            remote_id: remote_id.clone(),
            making: making
                .as_ref()
                .map(|making| MakingRow { before: making.before.clone(), since: making.since.unix_micros() }),
            leaving: leaving.clone(),
            state: state.number(),
            conditions: conditions.iter().map(ConditionRow::from).collect(),
            adopted: *adopted,
            create_time: create_time.unix_micros(),
            last_check_time: last_check_time.map(Timestamp::unix_micros),
            last_wake_time: last_wake_time.map(Timestamp::unix_micros),
            due: due.map(Timestamp::unix_micros),
            attempts: *attempts,
            generation: *generation,
            revision: revision.0,
        }
    }
}

impl WebhookRow {
    pub(super) fn into_record(self) -> Option<WebhookRecord> {
        let former = |row: SecretRow| {
            Some(FormerSecret {
                sealed: Sealed(row.sealed),
                scheme: SecretScheme::from_number(row.scheme)?,
                until: Timestamp::from_unix_micros(row.until),
            })
        };
        let next = |row: SecretRow| NextSecret {
            sealed: Sealed(row.sealed),
            overlap_until: Timestamp::from_unix_micros(row.until),
            told: row.told,
        };
        let scheme = match self.scheme {
            Some(number) => Some(SecretScheme::from_number(number)?),
            None => None,
        };
        Some(WebhookRecord {
            key: WebhookKey::from(self.key?),
            uid: self.uid,
            users: self.users.into_iter().map(UserRow::into_user).collect::<Option<_>>()?,
            departing: self.departing.into_iter().map(NameRow::into_link).collect::<Option<_>>()?,
            via: or_none(self.via, NameRow::into_connection)?,
            farewell: or_none(self.farewell, FarewellRow::into_farewell)?,
            full_name: self.full_name,
            sealed: Sealed(self.sealed),
            scheme,
            secret_version: self.secret_version,
            former: self.former.into_iter().map(former).collect::<Option<_>>()?,
            next: self.next.map(next),
            rotated_by: self.rotated_by,
            remote_id: self.remote_id,
            making: self
                .making
                .map(|row| Making { before: row.before, since: Timestamp::from_unix_micros(row.since) }),
            leaving: self.leaving,
            state: WebhookState::from_number(self.state)?,
            conditions: self
                .conditions
                .into_iter()
                .map(ConditionRow::into_condition)
                .collect::<Option<_>>()?,
            adopted: self.adopted,
            create_time: Timestamp::from_unix_micros(self.create_time),
            last_check_time: self.last_check_time.map(Timestamp::from_unix_micros),
            last_wake_time: self.last_wake_time.map(Timestamp::from_unix_micros),
            due: self.due.map(Timestamp::from_unix_micros),
            attempts: self.attempts,
            generation: self.generation,
            revision: Revision(self.revision),
        })
    }
}

/// A row that may be missing; one that is there must be whole. The outer `None` is a damaged one.
fn or_none<R, T>(row: Option<R>, whole: impl FnOnce(R) -> Option<T>) -> Option<Option<T>> {
    row.map_or(Some(None), |row| whole(row).map(Some))
}

impl From<&WebhookKey> for KeyRow {
    fn from(key: &WebhookKey) -> Self {
        let WebhookKey { provider, instance, repository_id, target_url } = key.clone();
        Self { provider: provider.as_str().to_owned(), instance, repository_id, target_url }
    }
}

impl From<KeyRow> for WebhookKey {
    fn from(row: KeyRow) -> Self {
        let KeyRow { provider, instance, repository_id, target_url } = row;
        Self { provider: ProviderId::new(provider), instance, repository_id, target_url }
    }
}

impl From<&LinkName> for NameRow {
    fn from(name: &LinkName) -> Self {
        Self { tenant: name.tenant.as_str().to_owned(), id: name.id.as_str().to_owned() }
    }
}

impl From<&ConnectionName> for NameRow {
    fn from(name: &ConnectionName) -> Self {
        Self { tenant: name.tenant.as_str().to_owned(), id: name.id.as_str().to_owned() }
    }
}

impl NameRow {
    fn into_link(self) -> Option<LinkName> {
        Some(LinkName { tenant: TenantId::parse(&self.tenant).ok()?, id: LinkId::parse(&self.id).ok()? })
    }

    fn into_connection(self) -> Option<ConnectionName> {
        let (tenant, id) = (TenantId::parse(&self.tenant).ok()?, ConnectionId::parse(&self.id).ok()?);
        Some(ConnectionName { tenant, id })
    }
}

impl From<(&LinkName, &WebhookUser)> for UserRow {
    fn from((link, user): (&LinkName, &WebhookUser)) -> Self {
        Self {
            link: Some(NameRow::from(link)),
            connection: user.connection.as_str().to_owned(),
            auto: user.auto,
            events: user.events.iter().map(|event| event.number()).collect(),
        }
    }
}

impl UserRow {
    fn into_user(self) -> Option<(LinkName, WebhookUser)> {
        let user = WebhookUser {
            connection: ConnectionId::parse(&self.connection).ok()?,
            auto: self.auto,
            events: events_of(&self.events)?,
        };
        Some((self.link?.into_link()?, user))
    }
}

impl From<&Farewell> for FarewellRow {
    fn from(farewell: &Farewell) -> Self {
        Self {
            name: Some(NameRow::from(&farewell.record.connection.name)),
            record: Some(ConnectionRow::from(&*farewell.record)),
            until: farewell.until.unix_micros(),
        }
    }
}

impl FarewellRow {
    fn into_farewell(self) -> Option<Farewell> {
        let record = self.record?.into_record(self.name?.into_connection()?)?;
        Some(Farewell { record: Box::new(record), until: Timestamp::from_unix_micros(self.until) })
    }
}

/// The events behind stored numbers.
pub(super) fn events_of(numbers: &[i32]) -> Option<BTreeSet<WebhookEvent>> {
    numbers.iter().map(|&number| WebhookEvent::from_number(number)).collect()
}

stored!(WebhookEvent { Push = 1, Tag = 2, PullRequest = 3, Other = 4 });
stored!(SecretScheme { HmacSha256 = 1, Token = 2, SigningToken = 3, BasicAuth = 4 });
stored!(WebhookState {
    Pending = 1,
    Active = 2,
    ManualRequired = 3,
    Missing = 4,
    DisabledByProvider = 5,
    Drifted = 6,
    Deleting = 7,
});
