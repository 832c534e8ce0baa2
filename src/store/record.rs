//! The stored form of a row: one version byte, a protobuf message, and a checksum.
//!
//! ```text
//! version (1) | protobuf message | CRC-32 of key, version and message (4, little endian)
//! ```
//!
//! The checksum covers the row's key too, so neither a flipped bit nor a row that stands at another
//! key can be read as data. This envelope is the same for all versions; only what is inside may
//! change with the version byte. Within a version the messages grow by new tags alone: an older row
//! then decodes with the new field empty. A new *number* of an enumeration, or a field that an older
//! program must not drop, takes a new version.

use prost::Message;

use self::connection::ConnectionRow;
use self::link::LinkRow;
use self::webhook::{KeyRow, WebhookRow};
use super::{Due, RecordProblem, Remembered};
use crate::domain::connection::{ConnectionName, ConnectionRecord, TenantId};
use crate::domain::link::{LinkId, LinkName, LinkRecord};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{WebhookKey, WebhookRecord};

mod connection;
mod event;
mod link;
mod webhook;

pub(super) use event::{TrailRow, TrailsRow, decode_event, encode_event, wrap_event};

/// The version that this program writes, and the newest that it reads. Version 2 knows more types of events,
/// events of more than connections, and their chain.
pub(super) const VERSION: u8 = 2;
/// The oldest version that this program reads.
const OLDEST: u8 = 1;

const CHECKSUM_BYTES: usize = 4;

/// The stored form of a connection. Its name is its key and is not repeated.
pub(super) fn encode_connection(key: &[u8], record: &ConnectionRecord) -> Vec<u8> {
    wrap(key, &ConnectionRow::from(record))
}

/// Reads back what [`encode_connection`] made for the same key.
pub(super) fn decode_connection(
    key: &[u8],
    name: ConnectionName,
    bytes: &[u8],
) -> Result<ConnectionRecord, RecordProblem> {
    unwrap::<ConnectionRow>(key, bytes)?.into_record(name).ok_or(RecordProblem::Damaged)
}

/// The stored form of a link. Its name is its key and is not repeated.
pub(super) fn encode_link(key: &[u8], record: &LinkRecord) -> Vec<u8> {
    wrap(key, &LinkRow::from(record))
}

/// Reads back what [`encode_link`] made for the same key.
pub(super) fn decode_link(key: &[u8], name: LinkName, bytes: &[u8]) -> Result<LinkRecord, RecordProblem> {
    unwrap::<LinkRow>(key, bytes)?.into_record(name).ok_or(RecordProblem::Damaged)
}

/// The stored form of a webhook.
pub(super) fn encode_webhook(key: &[u8], record: &WebhookRecord) -> Vec<u8> {
    wrap(key, &WebhookRow::from(record))
}

/// Reads back what [`encode_webhook`] made for the same key.
pub(super) fn decode_webhook(key: &[u8], bytes: &[u8]) -> Result<WebhookRecord, RecordProblem> {
    unwrap::<WebhookRow>(key, bytes)?.into_record().ok_or(RecordProblem::Damaged)
}

/// The stored form of a remembered request. Its tenant and its id stand in its key.
pub(super) fn encode_remembered(key: &[u8], remembered: &Remembered) -> Vec<u8> {
    wrap(
        key,
        &RememberedRow {
            fingerprint: remembered.fingerprint.clone(),
            answer: remembered.answer.clone(),
            time: remembered.time.unix_micros(),
        },
    )
}

/// Reads back what [`encode_remembered`] made for the same key.
pub(super) fn decode_remembered(
    key: &[u8],
    tenant: &TenantId,
    request_id: &str,
    bytes: &[u8],
) -> Result<Remembered, RecordProblem> {
    let row: RememberedRow = unwrap(key, bytes)?;
    Ok(Remembered {
        tenant: tenant.clone(),
        request_id: request_id.to_owned(),
        fingerprint: row.fingerprint,
        answer: row.answer,
        time: Timestamp::from_unix_micros(row.time),
    })
}

/// What stands at a claimed display name or repository: whose it is.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct NameRow {
    #[prost(string, tag = "1")]
    pub(super) owner: String,
}

/// What stands at the id of a connection or link that is gone.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct RetiredRow {
    /// The uid that it had.
    #[prost(string, tag = "1")]
    pub(super) uid: String,
}

/// What stands where the key tells everything: nothing but the guard.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct IndexRow {}

/// How many live links a connection has.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct ConnectionLinksRow {
    #[prost(uint64, tag = "1")]
    pub(super) links: u64,
}

/// Work that is due: when, and for which link or webhook.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DueRow {
    #[prost(int64, tag = "1")]
    time: i64,
    #[prost(string, tag = "2")]
    tenant: String,
    #[prost(string, tag = "3")]
    link: String,
    #[prost(message, optional, tag = "4")]
    webhook: Option<KeyRow>,
}

impl DueRow {
    pub(super) fn new(time: Timestamp, due: &Due) -> Self {
        let row = Self { time: time.unix_micros(), ..Self::default() };
        match due {
            Due::Link(name) => {
                Self { tenant: name.tenant.as_str().to_owned(), link: name.id.as_str().to_owned(), ..row }
            }
            Due::Webhook(key) => Self { webhook: Some(KeyRow::from(key)), ..row },
        }
    }

    pub(super) fn into_due(self) -> Option<(Timestamp, Due)> {
        let due = match self.webhook {
            Some(key) => Due::Webhook(WebhookKey::from(key)),
            None => {
                let (tenant, id) = (TenantId::parse(&self.tenant).ok()?, LinkId::parse(&self.link).ok()?);
                Due::Link(LinkName { tenant, id })
            }
        };
        Some((Timestamp::from_unix_micros(self.time), due))
    }
}

/// The service's own sealed secret.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct IdentityRow {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) sealed: Vec<u8>,
}

/// How many rows a tenant has: what tells that one is missing.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct TenantRow {
    #[prost(uint64, tag = "1")]
    pub(super) connections: u64,
    #[prost(uint64, tag = "2")]
    pub(super) names: u64,
    #[prost(uint64, tag = "3")]
    pub(super) retired: u64,
    /// The sequence number of the newest audit event.
    #[prost(uint64, tag = "4")]
    pub(super) last_event: u64,
    /// Links, those that are being unlinked too.
    #[prost(uint64, tag = "20")]
    pub(super) links: u64,
    /// Repositories that live links claim.
    #[prost(uint64, tag = "21")]
    pub(super) claims: u64,
    #[prost(uint64, tag = "22")]
    pub(super) retired_links: u64,
}

/// The row that speaks of the whole store. Its version byte is the version of the layout.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct StoreRow {
    /// How many commits there were.
    #[prost(uint64, tag = "1")]
    pub(super) commits: u64,
    /// How many tenants have a row.
    #[prost(uint64, tag = "2")]
    pub(super) tenants: u64,
}

/// Puts a message into the envelope that belongs to `key`.
pub(super) fn wrap(key: &[u8], message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len() + CHECKSUM_BYTES);
    bytes.push(VERSION);
    // `encode` fails for want of room alone, and a `Vec` grows.
    let _ = message.encode(&mut bytes);
    let checksum = checksum(key, &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Takes a message out of the envelope that belongs to `key`.
pub(super) fn unwrap<M: Message + Default>(key: &[u8], bytes: &[u8]) -> Result<M, RecordProblem> {
    let (covered, found) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(RecordProblem::Damaged)?;
    if checksum(key, covered) != u32::from_le_bytes(*found) {
        return Err(RecordProblem::Damaged);
    }
    let (&version, message) = covered.split_first().ok_or(RecordProblem::Damaged)?;
    match version {
        OLDEST..=VERSION => M::decode(message).map_err(|_| RecordProblem::Damaged),
        newer if newer > VERSION => Err(RecordProblem::TooNew { found: newer, known: VERSION }),
        _ => Err(RecordProblem::Damaged),
    }
}

fn checksum(key: &[u8], covered: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(covered);
    hasher.finalize()
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RememberedRow {
    #[prost(bytes = "vec", tag = "1")]
    fingerprint: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    answer: Vec<u8>,
    #[prost(int64, tag = "3")]
    time: i64,
}

/// A value of an enumeration as a number. Numbers are never changed and never used again.
trait Stored: Sized {
    fn number(self) -> i32;
    fn from_number(number: i32) -> Option<Self>;
}

/// Both directions from one list; a value that the list lacks does not compile.
macro_rules! stored {
    ($type:ident { $($value:ident = $number:literal),+ $(,)? }) => {
        impl Stored for $type {
            fn number(self) -> i32 {
                match self {
                    $(Self::$value => $number,)+
                }
            }

            fn from_number(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$value),)+
                    _ => None,
                }
            }
        }
    };
}
use stored;

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::connection::{
        Condition, ConditionStatus, Connection, ConnectionId, DisplayName, Hosting, ProviderId, RateLimit,
        Revision, Scope, State,
    };
    use crate::domain::credential::{
        Account, Capabilities, Capability, CapabilityType, CredentialForm, CredentialInfo, ExpireTimeSource,
        ResourceType, Sealed,
    };
    use crate::domain::event::{Event, EventType};

    const GOLDEN_V1: &str = include_str!("../../tests/golden/records_v1.txt");
    const GOLDEN_V2: &str = include_str!("../../tests/golden/records_v2.txt");
    const KEY: &[u8] = b"c\0key";

    fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn name() -> ConnectionName {
        ConnectionName {
            tenant: TenantId::parse("acme").expect("valid"),
            id: ConnectionId::parse("corp-gitlab").expect("valid"),
        }
    }

    /// Every field has a value of its own.
    fn full() -> ConnectionRecord {
        let at = Timestamp::from_unix_micros;
        ConnectionRecord {
            connection: Connection {
                name: name(),
                uid: "0190a6c0-0000-7000-8000-000000000001".to_owned(),
                display_name: DisplayName::parse("Caf\u{e9} GitLab").expect("valid"),
                provider: ProviderId::new("gitlab"),
                base_url: "https://git.corp.example/gitlab".to_owned(),
                effective_api_url: "https://git.corp.example/gitlab/api/v4".to_owned(),
                scope: Scope {
                    organization: "org".to_owned(),
                    collection: "collection".to_owned(),
                    projects: vec!["p1".to_owned(), "p2".to_owned()],
                    workspaces: vec!["w1".to_owned()],
                },
                ca_certificates_pem: "-----BEGIN CERTIFICATE-----".to_owned(),
                required_capabilities: vec![CapabilityType::ReadCode, CapabilityType::ManageWebhooks],
                credential: CredentialInfo {
                    form: CredentialForm::ResourceToken {
                        resource_type: ResourceType::Group,
                        resource: "corp/team".to_owned(),
                    },
                    obfuscated_token: "glpat-****x9Qa".to_owned(),
                    fingerprint: "f00d".to_owned(),
                    account: Some(Account {
                        id: "42".to_owned(),
                        login: "bot".to_owned(),
                        display_name: "Bot".to_owned(),
                        email: "bot@corp.example".to_owned(),
                        bot: true,
                    }),
                    granted_scopes: vec!["read_api".to_owned()],
                    missing_scopes: vec!["api".to_owned()],
                    capabilities: Capabilities {
                        list_repositories: Capability::Yes,
                        read_code: Capability::Unknown,
                        manage_webhooks: Capability::No,
                    },
                    expiry_told: false,
                    expire_time: Some(at(1)),
                    expire_time_source: ExpireTimeSource::Declared,
                    version: 3,
                    create_time: at(-2),
                    last_use_time: Some(at(3)),
                },
                server_version: "17.5.0-ee".to_owned(),
                hosting: Hosting::SelfHosted,
                state: State::Degraded,
                conditions: vec![Condition {
                    condition_type: "CAPABILITIES".to_owned(),
                    status: ConditionStatus::False,
                    reason: "SCOPE_MISSING".to_owned(),
                    message: "the token lacks api".to_owned(),
                    last_transition_time: at(4),
                }],
                rate_limit: Some(RateLimit {
                    limit: 2_000,
                    remaining: 1_999,
                    reset_time: Some(at(5)),
                    observe_time: at(6),
                }),
                disabled: true,
                labels: texts(&[("env", "prod")]),
                annotations: texts(&[("note", "long")]),
                owner: "team-a".to_owned(),
                create_time: at(7),
                update_time: at(8),
                last_verify_time: Some(at(9)),
                generation: 10,
            },
            sealed: Sealed(vec![1, 2, 3, 255]),
            revision: Revision(11),
        }
    }

    fn event() -> Event {
        Event {
            uid: "0190a6c0-0000-7000-8000-000000000002".to_owned(),
            tenant: name().tenant,
            resource: name().to_string(),
            connections: vec![name().id],
            event_type: EventType::CredentialReplaced,
            actor: "local".to_owned(),
            time: Timestamp::from_unix_micros(12),
            request_id: "req-1".to_owned(),
            before: texts(&[("credential.version", "2")]),
            after: texts(&[("credential.version", "3")]),
        }
    }

    fn remembered() -> Remembered {
        Remembered {
            tenant: name().tenant,
            request_id: "0190a6c0-0000-4000-8000-000000000003".to_owned(),
            fingerprint: vec![9; 4],
            answer: vec![8; 5],
            time: Timestamp::from_unix_micros(13),
        }
    }

    fn golden(file: &str, which: &str) -> Vec<u8> {
        let line = file.lines().find_map(|line| line.strip_prefix(which)).expect("a line").trim();
        (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).expect("hex")).collect()
    }

    #[test]
    fn golden_records_of_version_1_stay_readable() {
        assert_eq!(decode_connection(KEY, name(), &golden(GOLDEN_V1, "connection ")), Ok(full()));
        let event_v1 = decode_event(KEY, &name().tenant, &golden(GOLDEN_V1, "event ")).expect("readable");
        assert_eq!((event_v1.event, event_v1.hash), (event(), Vec::new()));
        let Remembered { tenant, request_id, .. } = remembered();
        assert_eq!(
            decode_remembered(KEY, &tenant, &request_id, &golden(GOLDEN_V1, "remembered ")),
            Ok(remembered())
        );
    }

    fn head() -> (TrailRow, TrailsRow) {
        let [before, hash, mac, all] = [1, 2, 3, 4].map(|byte| vec![byte; 32]);
        let row = TrailRow { first: 3, before, chained: 2, last: 9, hash, broken: 7, mac };
        (row, TrailsRow { trails: 5, broken: true, mac: all })
    }

    #[test]
    fn golden_records_of_version_2_stay_readable() {
        let stored = decode_event(KEY, &name().tenant, &golden(GOLDEN_V2, "event ")).expect("readable");
        assert_eq!((stored.event, stored.hash), (event(), vec![6; 32]));
        assert_eq!(stored.bytes, encode_event(&event()), "what is hashed stays the same");
        assert_eq!(unwrap(KEY, &golden(GOLDEN_V2, "trail ")), Ok(head().0));
        assert_eq!(unwrap(KEY, &golden(GOLDEN_V2, "trails ")), Ok(head().1));
    }

    /// Prints the golden lines; run it by hand when a version is added, never to change an old file.
    #[test]
    #[ignore = "prints new golden lines for a person to keep; it checks nothing"]
    fn print_golden_records() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        println!("connection {}", hex(encode_connection(KEY, &full())));
        println!("event {}", hex(wrap_event(KEY, encode_event(&event()), vec![6; 32])));
        println!("trail {}", hex(wrap(KEY, &head().0)));
        println!("trails {}", hex(wrap(KEY, &head().1)));
        println!("remembered {}", hex(encode_remembered(KEY, &remembered())));
    }

    #[test]
    fn every_field_survives_and_every_form_of_credential() {
        let mut record = full();
        assert_eq!(decode_connection(KEY, name(), &encode_connection(KEY, &record)), Ok(record.clone()));
        for form in [
            CredentialForm::PersonalAccessToken { username: None },
            CredentialForm::PersonalAccessToken { username: Some(String::new()) },
            CredentialForm::EmailApiToken { email: "a@b.example".to_owned() },
        ] {
            record.connection.credential.form = form;
            record.connection.credential.account = None;
            record.connection.rate_limit = None;
            record.connection.scope = Scope::default();
            assert_eq!(decode_connection(KEY, name(), &encode_connection(KEY, &record)), Ok(record.clone()));
        }
    }

    #[test]
    fn an_event_shows_in_as_many_trails_as_it_was_written_for() {
        let mut event = event();
        event.event_type = EventType::ConnectionSwitched;
        event.resource = "tenants/acme/repositoryLinks/web".to_owned();
        let other = ConnectionId::parse("other").expect("valid");
        for connections in [vec![], vec![name().id], vec![name().id, other]] {
            event.connections = connections;
            let bytes = encode_event(&event);
            let row = wrap_event(KEY, bytes.clone(), vec![6; 32]);
            let stored = decode_event(KEY, &name().tenant, &row).expect("readable");
            assert_eq!((stored.bytes, stored.hash, stored.event), (bytes, vec![6; 32], event.clone()));
        }
    }

    #[test]
    fn k01_no_flipped_bit_and_no_cut_and_no_other_key_is_read_as_data() {
        let bytes = encode_connection(KEY, &full());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(
                    decode_connection(KEY, name(), &flipped),
                    Err(RecordProblem::Damaged),
                    "{at}.{bit}"
                );
            }
            assert_eq!(decode_connection(KEY, name(), &bytes[..at]), Err(RecordProblem::Damaged));
        }
        assert_eq!(decode_connection(b"c\0other", name(), &bytes), Err(RecordProblem::Damaged));
    }

    #[test]
    fn k06_a_newer_version_is_named_not_guessed() {
        let mut bytes = vec![VERSION + 1, 0xff, 0xff];
        let sum = checksum(KEY, &bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let problem = decode_connection(KEY, name(), &bytes).expect_err("too new");
        assert_eq!(problem, RecordProblem::TooNew { found: VERSION + 1, known: VERSION });
        let told = [format!("version {}", VERSION + 1), format!("up to {VERSION}")];
        assert!(told.iter().all(|told| problem.to_string().contains(told)), "{problem}");
    }
}
