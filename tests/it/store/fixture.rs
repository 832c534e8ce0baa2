//! Records as CreateConnection makes them, for the tests and the benchmark of the store.

use std::collections::BTreeMap;
use std::path::Path;

use gitmoor::domain::connection::{
    Connection, ConnectionId, ConnectionName, ConnectionRecord, DisplayName, Hosting, ProviderId, Revision,
    Scope, State, TenantId,
};
use gitmoor::domain::credential::{
    Account, Capabilities, Capability, CredentialForm, CredentialInfo, ExpireTimeSource, Sealed,
};
use gitmoor::domain::event::{Event, EventType};
use gitmoor::domain::timestamp::Timestamp;
use gitmoor::store::memory::MemoryStore;
use gitmoor::store::sled::{DEFAULT_CACHE_BYTES, SledConfig, SledStore};
use gitmoor::store::{Chain, Change, Remembered, Store};
use ring::hmac;

pub(crate) fn config(path: &Path) -> SledConfig {
    SledConfig { path: path.to_owned(), cache_bytes: DEFAULT_CACHE_BYTES }
}

pub(crate) fn open(path: &Path) -> SledStore {
    let store = SledStore::open(&config(path)).expect("opens");
    store.chain_with(chain());
    store
}

pub(crate) fn memory() -> MemoryStore {
    let store = MemoryStore::new();
    store.chain_with(chain());
    store
}

/// What chains the events of these tests.
pub(crate) fn chain() -> Chain {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"the key of these tests");
    Chain::new(move |content| hmac::sign(&key, content).as_ref().try_into().expect("32 bytes"))
}

/// The events of a tenant, each of which must be readable, with their numbers.
pub(crate) async fn events(store: &dyn Store, of: &str, after: u64, limit: usize) -> Vec<(u64, Event)> {
    let listed = store.events(&tenant(of), None, after, limit).await.expect("listed");
    listed.into_iter().map(|row| row.map(|entry| (entry.sequence, entry.event)).expect("readable")).collect()
}

pub(crate) fn tenant(text: &str) -> TenantId {
    TenantId::parse(text).expect("valid")
}

pub(crate) fn id(text: &str) -> ConnectionId {
    ConnectionId::parse(text).expect("valid")
}

pub(crate) fn name(of: &str, connection: &str) -> ConnectionName {
    ConnectionName { tenant: tenant(of), id: id(connection) }
}

pub(crate) fn insert(record: &ConnectionRecord) -> Change {
    Change::Insert(Box::new(record.clone()))
}

pub(crate) fn replace(record: &ConnectionRecord) -> Change {
    Change::Replace { record: Box::new(record.clone()), expected: Revision(record.revision.0 - 1) }
}

pub(crate) fn remove(record: &ConnectionRecord) -> Change {
    Change::Remove { name: record.connection.name.clone(), expected: record.revision }
}

/// What CreateConnection commits.
pub(crate) fn created(of: &str, connection: &str, display_name: &str, request: &str) -> Vec<Change> {
    vec![
        insert(&record(of, connection, display_name)),
        Change::Append(event(of, connection)),
        Change::Remember(remembered(of, request)),
    ]
}

pub(crate) fn event(of: &str, connection: &str) -> Event {
    Event {
        uid: format!("event of {connection}"),
        tenant: tenant(of),
        resource: name(of, connection).to_string(),
        connections: vec![id(connection)],
        event_type: EventType::ConnectionCreated,
        actor: "local".to_owned(),
        time: Timestamp::from_unix_seconds(1_760_000_000),
        request_id: "0190a6c0-0000-7000-8000-00000000000a".to_owned(),
        before: BTreeMap::new(),
        after: BTreeMap::from([("display_name".to_owned(), connection.to_owned())]),
    }
}

pub(crate) fn remembered(of: &str, request: &str) -> Remembered {
    Remembered {
        tenant: tenant(of),
        request_id: request.to_owned(),
        fingerprint: vec![7; 32],
        answer: vec![42; 300],
        time: Timestamp::from_unix_seconds(1_760_000_000),
    }
}

pub(crate) fn record(of: &str, connection: &str, display_name: &str) -> ConnectionRecord {
    let at = Timestamp::from_unix_seconds(1_760_000_000);
    ConnectionRecord {
        connection: Connection {
            name: name(of, connection),
            uid: "0190a6c0-0000-7000-8000-00000000000b".to_owned(),
            display_name: DisplayName::parse(display_name).expect("valid"),
            provider: ProviderId::new("gitlab"),
            base_url: "https://git.corp.example/gitlab".to_owned(),
            effective_api_url: "https://git.corp.example/gitlab/api/v4".to_owned(),
            scope: Scope::default(),
            ca_certificates_pem: String::new(),
            required_capabilities: Vec::new(),
            credential: CredentialInfo {
                form: CredentialForm::PersonalAccessToken { username: None },
                obfuscated_token: "glpat-****x9Qa".to_owned(),
                fingerprint: "0f".repeat(16),
                account: Some(Account {
                    id: "4711".to_owned(),
                    login: "ada".to_owned(),
                    display_name: "Ada Lovelace".to_owned(),
                    email: "ada@corp.example".to_owned(),
                    bot: false,
                }),
                granted_scopes: vec!["api".to_owned()],
                missing_scopes: Vec::new(),
                capabilities: Capabilities {
                    list_repositories: Capability::Yes,
                    read_code: Capability::Yes,
                    manage_webhooks: Capability::Yes,
                },
                expiry_told: false,
                expire_time: Some(at),
                expire_time_source: ExpireTimeSource::Provider,
                version: 1,
                create_time: at,
                last_use_time: None,
            },
            server_version: "17.5.0-ee".to_owned(),
            hosting: Hosting::SelfHosted,
            state: State::Active,
            conditions: Vec::new(),
            rate_limit: None,
            disabled: false,
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            annotations: BTreeMap::new(),
            owner: "team-a".to_owned(),
            create_time: at,
            update_time: at,
            last_verify_time: Some(at),
            generation: 1,
        },
        sealed: Sealed(vec![0xa5; 180]),
        revision: Revision(1),
    }
}
