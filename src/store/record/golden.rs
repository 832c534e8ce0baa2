//! Records of version 2 as they were written once: links and webhooks stay readable.

use std::collections::BTreeMap;

use super::*;
use crate::domain::connection::{
    Condition, ConditionStatus, Connection, ConnectionId, DisplayName, Hosting, ProviderId, Revision, Scope,
    State,
};
use crate::domain::credential::{
    Capabilities, Capability, CredentialForm, CredentialInfo, ExpireTimeSource, Sealed,
};
use crate::domain::link::{HistoryEntry, Link, LinkState, WebhookMode};
use crate::domain::repository::{Permission, Repository, Visibility};
use crate::domain::webhook::{
    Farewell, FormerSecret, Making, NextSecret, SecretScheme, WebhookEvent, WebhookState, WebhookUser,
};

const GOLDEN_V2: &str = include_str!("../../../tests/golden/records_v2.txt");
const KEY: &[u8] = b"l\0key";

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros)
}

fn tenant() -> TenantId {
    TenantId::parse("acme").expect("valid")
}

fn connection(id: &str) -> ConnectionName {
    ConnectionName { tenant: tenant(), id: ConnectionId::parse(id).expect("valid") }
}

fn name(id: &str) -> LinkName {
    LinkName { tenant: tenant(), id: LinkId::parse(id).expect("valid") }
}

fn condition() -> Condition {
    Condition {
        condition_type: "REPOSITORY_ACCESSIBLE".to_owned(),
        status: ConditionStatus::False,
        reason: "REPOSITORY_NOT_FOUND".to_owned(),
        message: "gone".to_owned(),
        last_transition_time: at(1),
    }
}

/// Every field has a value of its own.
fn link() -> LinkRecord {
    LinkRecord {
        link: Link {
            name: name("website"),
            uid: "0190a6c0-0000-7000-8000-000000000004".to_owned(),
            connection: connection("second").id,
            provider: ProviderId::new("gitlab"),
            instance: "https://git.corp.example/gitlab/api/v4".to_owned(),
            repository: Repository {
                provider_id: "1003".to_owned(),
                full_name: "acme/website".to_owned(),
                namespace: "acme".to_owned(),
                display_name: "Website".to_owned(),
                description: "The website".to_owned(),
                default_branch: Some("main".to_owned()),
                clone_https_url: "https://git.corp.example/gitlab/acme/website.git".to_owned(),
                clone_ssh_url: "git@git.corp.example:acme/website.git".to_owned(),
                web_url: "https://git.corp.example/gitlab/acme/website".to_owned(),
                visibility: Visibility::Internal,
                archived: Some(false),
                disabled: true,
                fork: Some(true),
                size_kib: Some(17),
                foreign_clone_host: true,
                update_time: Some(at(-2)),
                permission: Permission::Write,
            },
            webhook_mode: WebhookMode::Manual,
            webhook_events: [WebhookEvent::Push, WebhookEvent::PullRequest].into(),
            webhook_target_url: "https://hooks.corp.example/git".to_owned(),
            state: LinkState::NotFound,
            conditions: vec![condition()],
            connection_history: vec![
                HistoryEntry { connection: connection("first").id, actor: "ada".to_owned(), time: at(2) },
                HistoryEntry { connection: connection("second").id, actor: "sam".to_owned(), time: at(3) },
            ],
            previous_full_names: vec!["acme/old".to_owned(), "acme/older".to_owned()],
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            annotations: BTreeMap::from([("note".to_owned(), "long".to_owned())]),
            create_time: at(4),
            update_time: at(5),
            generation: 6,
        },
        due: Some(at(7)),
        attempts: 8,
        revision: Revision(9),
    }
}

/// Every field has a value of its own.
fn webhook() -> WebhookRecord {
    let user = |id: &str, auto| WebhookUser {
        connection: connection(id).id,
        auto,
        events: [WebhookEvent::Tag].into(),
    };
    WebhookRecord {
        key: WebhookKey {
            provider: ProviderId::new("gitlab"),
            instance: "https://git.corp.example/gitlab/api/v4".to_owned(),
            repository_id: "1003".to_owned(),
            target_url: "https://hooks.corp.example/git".to_owned(),
        },
        uid: "0190a6c0-0000-7000-8000-000000000005".to_owned(),
        users: BTreeMap::from([(name("a"), user("first", true)), (name("b"), user("second", false))]),
        departing: vec![name("c")],
        via: Some(connection("first")),
        farewell: Some(Farewell { record: Box::new(farewell()), until: at(10) }),
        full_name: "acme/website".to_owned(),
        sealed: Sealed(vec![1, 2]),
        scheme: Some(SecretScheme::SigningToken),
        secret_version: 3,
        former: vec![FormerSecret { sealed: Sealed(vec![4]), scheme: SecretScheme::Token, until: at(11) }],
        next: Some(NextSecret { sealed: Sealed(vec![5]), overlap_until: at(12), told: true }),
        rotated_by: "sam".to_owned(),
        remote_id: Some("77".to_owned()),
        making: Some(Making { before: vec!["75".to_owned()], since: at(25) }),
        leaving: vec!["76".to_owned()],
        state: WebhookState::Drifted,
        conditions: vec![condition()],
        adopted: true,
        create_time: at(13),
        last_check_time: Some(at(14)),
        last_wake_time: Some(at(15)),
        due: Some(at(16)),
        attempts: 17,
        generation: 18,
        revision: Revision(19),
    }
}

fn farewell() -> ConnectionRecord {
    ConnectionRecord {
        connection: Connection {
            name: connection("first"),
            uid: "0190a6c0-0000-7000-8000-000000000006".to_owned(),
            display_name: DisplayName::parse("First").expect("valid"),
            provider: ProviderId::new("gitlab"),
            base_url: "https://git.corp.example/gitlab".to_owned(),
            effective_api_url: "https://git.corp.example/gitlab/api/v4".to_owned(),
            scope: Scope::default(),
            ca_certificates_pem: String::new(),
            required_capabilities: Vec::new(),
            credential: CredentialInfo {
                form: CredentialForm::PersonalAccessToken { username: None },
                obfuscated_token: String::new(),
                fingerprint: "f00d".to_owned(),
                account: None,
                granted_scopes: Vec::new(),
                missing_scopes: Vec::new(),
                capabilities: Capabilities {
                    list_repositories: Capability::Yes,
                    read_code: Capability::Yes,
                    manage_webhooks: Capability::Yes,
                },
                expiry_told: false,
                expire_time: None,
                expire_time_source: ExpireTimeSource::Unknown,
                version: 1,
                create_time: at(20),
                last_use_time: None,
            },
            server_version: String::new(),
            hosting: Hosting::SelfHosted,
            state: State::Active,
            conditions: Vec::new(),
            rate_limit: None,
            disabled: false,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            owner: String::new(),
            create_time: at(21),
            update_time: at(22),
            last_verify_time: None,
            generation: 23,
        },
        sealed: Sealed(vec![6]),
        revision: Revision(24),
    }
}

fn golden(which: &str) -> Vec<u8> {
    let line = GOLDEN_V2.lines().find_map(|line| line.strip_prefix(which)).expect("a line").trim();
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).expect("hex")).collect()
}

#[test]
fn golden_records_of_version_2_stay_readable() {
    assert_eq!(decode_link(KEY, name("website"), &golden("link ")), Ok(link()));
    assert_eq!(decode_webhook(KEY, &golden("webhook ")), Ok(webhook()));
}

/// Prints the golden lines; run it by hand when a version is added, never to change an old file.
#[test]
#[ignore = "prints new golden lines for a person to keep; it checks nothing"]
fn print_golden_records() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    println!("link {}", hex(encode_link(KEY, &link())));
    println!("webhook {}", hex(encode_webhook(KEY, &webhook())));
}

#[test]
fn every_field_of_a_link_and_a_webhook_survives() {
    let (mut link, mut webhook) = (link(), webhook());
    assert_eq!(decode_link(KEY, name("website"), &encode_link(KEY, &link)), Ok(link.clone()));
    assert_eq!(decode_webhook(KEY, &encode_webhook(KEY, &webhook)), Ok(webhook.clone()));
    link.due = None;
    link.link.repository.archived = None;
    link.link.repository.default_branch = None;
    link.link.repository.size_kib = None;
    for state in [LinkState::Pending, LinkState::Linked, LinkState::AccessLost, LinkState::Unlinking] {
        link.link.state = state;
        assert_eq!(decode_link(KEY, name("website"), &encode_link(KEY, &link)), Ok(link.clone()));
    }
    webhook.farewell = None;
    webhook.via = None;
    webhook.former = Vec::new();
    webhook.next = None;
    webhook.making = None;
    webhook.remote_id = None;
    webhook.scheme = None;
    webhook.due = None;
    webhook.users.clear();
    for state in [
        WebhookState::Pending,
        WebhookState::Active,
        WebhookState::ManualRequired,
        WebhookState::Missing,
        WebhookState::DisabledByProvider,
        WebhookState::Deleting,
    ] {
        webhook.state = state;
        assert_eq!(decode_webhook(KEY, &encode_webhook(KEY, &webhook)), Ok(webhook.clone()));
    }
}
