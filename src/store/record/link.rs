//! The stored form of a repository link.

use std::collections::BTreeMap;

use prost::Message;

use super::connection::ConditionRow;
use super::webhook::events_of;
use super::{Stored, stored};
use crate::domain::connection::{ConnectionId, ProviderId, Revision};
use crate::domain::link::{HistoryEntry, Link, LinkName, LinkRecord, LinkState, WebhookMode};
use crate::domain::repository::{Permission, Repository, Visibility};
use crate::domain::timestamp::Timestamp;

/// A link. Its name is its key and is not repeated.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LinkRow {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(string, tag = "2")]
    connection: String,
    #[prost(string, tag = "3")]
    provider: String,
    #[prost(string, tag = "4")]
    instance: String,
    #[prost(message, optional, tag = "5")]
    repository: Option<RepositoryRow>,
    #[prost(int32, tag = "6")]
    webhook_mode: i32,
    #[prost(int32, repeated, tag = "7")]
    webhook_events: Vec<i32>,
    #[prost(string, tag = "8")]
    webhook_target_url: String,
    #[prost(int32, tag = "9")]
    state: i32,
    #[prost(message, repeated, tag = "10")]
    conditions: Vec<ConditionRow>,
    #[prost(message, repeated, tag = "11")]
    connection_history: Vec<HistoryRow>,
    #[prost(string, repeated, tag = "12")]
    previous_full_names: Vec<String>,
    #[prost(btree_map = "string, string", tag = "13")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "14")]
    annotations: BTreeMap<String, String>,
    #[prost(int64, tag = "15")]
    create_time: i64,
    #[prost(int64, tag = "16")]
    update_time: i64,
    #[prost(uint64, tag = "17")]
    generation: u64,
    #[prost(int64, optional, tag = "18")]
    due: Option<i64>,
    #[prost(uint32, tag = "19")]
    attempts: u32,
    #[prost(uint64, tag = "20")]
    revision: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct HistoryRow {
    #[prost(string, tag = "1")]
    connection: String,
    #[prost(string, tag = "2")]
    actor: String,
    #[prost(int64, tag = "3")]
    time: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RepositoryRow {
    #[prost(string, tag = "1")]
    provider_id: String,
    #[prost(string, tag = "2")]
    full_name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "4")]
    display_name: String,
    #[prost(string, tag = "5")]
    description: String,
    #[prost(string, optional, tag = "6")]
    default_branch: Option<String>,
    #[prost(string, tag = "7")]
    clone_https_url: String,
    #[prost(string, tag = "8")]
    clone_ssh_url: String,
    #[prost(string, tag = "9")]
    web_url: String,
    #[prost(int32, tag = "10")]
    visibility: i32,
    #[prost(bool, optional, tag = "11")]
    archived: Option<bool>,
    #[prost(bool, tag = "12")]
    disabled: bool,
    #[prost(bool, optional, tag = "13")]
    fork: Option<bool>,
    #[prost(int64, optional, tag = "14")]
    size_kib: Option<i64>,
    #[prost(bool, tag = "15")]
    foreign_clone_host: bool,
    #[prost(int64, optional, tag = "16")]
    update_time: Option<i64>,
    #[prost(int32, tag = "17")]
    permission: i32,
}

impl From<&LinkRecord> for LinkRow {
    fn from(record: &LinkRecord) -> Self {
        let LinkRecord { link, due, attempts, revision } = record;
        let Link {
            name: _,
            uid,
            connection,
            provider,
            instance,
            repository,
            webhook_mode,
            webhook_events,
            webhook_target_url,
            state,
            conditions,
            connection_history,
            previous_full_names,
            labels,
            annotations,
            create_time,
            update_time,
            generation,
        } = link;
        Self {
            uid: uid.clone(),
            connection: connection.as_str().to_owned(),
            provider: provider.as_str().to_owned(),
            instance: instance.clone(),
            repository: Some(RepositoryRow::from(repository)),
            webhook_mode: webhook_mode.number(),
            webhook_events: webhook_events.iter().map(|event| event.number()).collect(),
            webhook_target_url: webhook_target_url.clone(),
            state: state.number(),
            conditions: conditions.iter().map(ConditionRow::from).collect(),
            connection_history: connection_history.iter().map(HistoryRow::from).collect(),
            previous_full_names: previous_full_names.clone(),
            labels: labels.clone(),
            annotations: annotations.clone(),
            create_time: create_time.unix_micros(),
            update_time: update_time.unix_micros(),
            generation: *generation,
            due: due.map(Timestamp::unix_micros),
            attempts: *attempts,
            revision: revision.0,
        }
    }
}

impl LinkRow {
    pub(super) fn into_record(self, name: LinkName) -> Option<LinkRecord> {
        Some(LinkRecord {
            link: Link {
                name,
                uid: self.uid,
                connection: ConnectionId::parse(&self.connection).ok()?,
                provider: ProviderId::new(self.provider),
                instance: self.instance,
                repository: self.repository?.into_repository()?,
                webhook_mode: WebhookMode::from_number(self.webhook_mode)?,
                webhook_events: events_of(&self.webhook_events)?,
                webhook_target_url: self.webhook_target_url,
                state: LinkState::from_number(self.state)?,
                conditions: self
                    .conditions
                    .into_iter()
                    .map(ConditionRow::into_condition)
                    .collect::<Option<_>>()?,
                connection_history: self
                    .connection_history
                    .into_iter()
                    .map(HistoryRow::into_entry)
                    .collect::<Option<_>>()?,
                previous_full_names: self.previous_full_names,
                labels: self.labels,
                annotations: self.annotations,
                create_time: Timestamp::from_unix_micros(self.create_time),
                update_time: Timestamp::from_unix_micros(self.update_time),
                generation: self.generation,
            },
            due: self.due.map(Timestamp::from_unix_micros),
            attempts: self.attempts,
            revision: Revision(self.revision),
        })
    }
}

impl From<&HistoryEntry> for HistoryRow {
    fn from(entry: &HistoryEntry) -> Self {
        let HistoryEntry { connection, actor, time } = entry;
        Self { connection: connection.as_str().to_owned(), actor: actor.clone(), time: time.unix_micros() }
    }
}

impl HistoryRow {
    fn into_entry(self) -> Option<HistoryEntry> {
        let Self { connection, actor, time } = self;
        let connection = ConnectionId::parse(&connection).ok()?;
        Some(HistoryEntry { connection, actor, time: Timestamp::from_unix_micros(time) })
    }
}

impl From<&Repository> for RepositoryRow {
    fn from(repository: &Repository) -> Self {
        let Repository {
            provider_id,
            full_name,
            namespace,
            display_name,
            description,
            default_branch,
            clone_https_url,
            clone_ssh_url,
            web_url,
            visibility,
            archived,
            disabled,
            fork,
            size_kib,
            foreign_clone_host,
            update_time,
            permission,
        } = repository.clone();
        Self {
            provider_id,
            full_name,
            namespace,
            display_name,
            description,
            default_branch,
            clone_https_url,
            clone_ssh_url,
            web_url,
            visibility: visibility.number(),
            archived,
            disabled,
            fork,
            size_kib,
            foreign_clone_host,
            update_time: update_time.map(Timestamp::unix_micros),
            permission: permission.number(),
        }
    }
}

impl RepositoryRow {
    fn into_repository(self) -> Option<Repository> {
        Some(Repository {
            provider_id: self.provider_id,
            full_name: self.full_name,
            namespace: self.namespace,
            display_name: self.display_name,
            description: self.description,
            default_branch: self.default_branch,
            clone_https_url: self.clone_https_url,
            clone_ssh_url: self.clone_ssh_url,
            web_url: self.web_url,
            visibility: Visibility::from_number(self.visibility)?,
            archived: self.archived,
            disabled: self.disabled,
            fork: self.fork,
            size_kib: self.size_kib,
            foreign_clone_host: self.foreign_clone_host,
            update_time: self.update_time.map(Timestamp::from_unix_micros),
            permission: Permission::from_number(self.permission)?,
        })
    }
}

stored!(WebhookMode { Auto = 1, Manual = 2, None = 3 });
stored!(LinkState { Pending = 1, Linked = 2, AccessLost = 3, NotFound = 4, Unlinking = 5 });
stored!(Visibility { Public = 1, Internal = 2, Private = 3, Unknown = 4 });
stored!(Permission { Unknown = 1, Read = 2, Write = 3, Admin = 4 });
