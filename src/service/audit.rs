//! Makes the events of the audit trail.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use uuid::Uuid;

use crate::domain::connection::{Connection, ConnectionId, ConnectionName, TenantId};
use crate::domain::credential::{Capabilities, CredentialInfo, ExpireTimeSource};
use crate::domain::event::{Event, EventType, SYSTEM};
use crate::domain::link::Link;
use crate::domain::timestamp::Timestamp;
use crate::service::Context;

/// Field path to text.
pub(super) type Fields = BTreeMap<String, String>;

/// What the audit trail keeps of a connection: enough to tell what changed, and no secret.
pub(super) fn summary(connection: &Connection) -> Fields {
    let credential: &CredentialInfo = &connection.credential;
    let account = credential.account.clone().unwrap_or_default();
    let Capabilities { list_repositories, read_code, manage_webhooks } = credential.capabilities;
    let expires = match credential.expire_time_source {
        ExpireTimeSource::Unknown => String::new(),
        _ => credential.expire_time.map(|time| time.unix_seconds().to_string()).unwrap_or_default(),
    };
    [
        ("uid", connection.uid.clone()),
        ("display_name", connection.display_name.as_str().to_owned()),
        ("provider", connection.provider.to_string()),
        ("base_url", connection.base_url.clone()),
        ("effective_api_url", connection.effective_api_url.clone()),
        ("scope", format!("{:?}", connection.scope)),
        ("tls.ca_certificates_pem", digest(&connection.ca_certificates_pem)),
        ("required_capabilities", format!("{:?}", connection.required_capabilities)),
        ("disabled", connection.disabled.to_string()),
        ("labels", format!("{:?}", connection.labels)),
        ("annotations", digest(&connection.annotations)),
        ("owner", connection.owner.clone()),
        ("state", connection.state.as_str().to_owned()),
        ("credential.version", credential.version.to_string()),
        ("credential.fingerprint", credential.fingerprint.clone()),
        ("credential.account.id", account.id),
        ("credential.account.login", account.login),
        ("credential.capabilities", format!("{list_repositories:?} {read_code:?} {manage_webhooks:?}")),
        ("credential.expire_time", expires),
    ]
    .into_iter()
    .map(|(field, value)| (field.to_owned(), value))
    .collect()
}

/// The same of a repository link.
pub(super) fn link_summary(link: &Link) -> Fields {
    let events: Vec<_> = link.webhook_events.iter().map(|event| event.as_str()).collect();
    [
        ("connection", link.connection_name().to_string()),
        ("provider", link.provider.to_string()),
        ("instance", link.instance.clone()),
        ("repository.provider_id", link.repository.provider_id.clone()),
        ("repository.full_name", link.repository.full_name.clone()),
        ("webhook_mode", link.webhook_mode.as_str().to_owned()),
        ("webhook_events", events.join(" ")),
        ("webhook_target_url", link.webhook_target_url.clone()),
        ("state", link.state.as_str().to_owned()),
        ("labels", format!("{:?}", link.labels)),
        ("annotations", digest(&link.annotations)),
    ]
    .into_iter()
    .map(|(field, value)| (field.to_owned(), value))
    .collect()
}

/// Tells one value from another without keeping it: it may be long, and is nobody's to read here.
fn digest(value: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("#{:016x}", hasher.finish())
}

/// The entries of both maps that are not the same.
pub(super) fn difference(before: &Fields, after: &Fields) -> (Fields, Fields) {
    let only = |these: &Fields, those: &Fields| {
        these
            .iter()
            .filter(|(field, value)| those.get(*field) != Some(value))
            .map(|(f, v)| (f.clone(), v.clone()))
            .collect()
    };
    (only(before, after), only(after, before))
}

/// What an event speaks of.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// Whose it is.
    pub(super) tenant: TenantId,
    /// Its full name.
    pub(super) resource: String,
    /// The connections in whose trails the event shows, each once.
    pub(super) connections: Vec<ConnectionId>,
}

impl Subject {
    /// A connection itself.
    pub(super) fn connection(name: &ConnectionName) -> Self {
        Self { tenant: name.tenant.clone(), resource: name.to_string(), connections: vec![name.id.clone()] }
    }

    /// A link, in the trail of its connection.
    pub(super) fn link(link: &Link) -> Self {
        Self {
            tenant: link.name.tenant.clone(),
            resource: link.name.to_string(),
            connections: vec![link.connection.clone()],
        }
    }
}

/// The event of what the caller behind `context` did.
pub(super) fn event(
    context: &Context,
    event_type: EventType,
    subject: Subject,
    before: Fields,
    after: Fields,
    now: Timestamp,
) -> Event {
    Event {
        actor: context.actor.clone(),
        request_id: context.request_id.clone(),
        ..own_event(event_type, subject, before, after, now)
    }
}

/// The event of what the service did by itself.
pub(super) fn own_event(
    event_type: EventType,
    subject: Subject,
    before: Fields,
    after: Fields,
    now: Timestamp,
) -> Event {
    let Subject { tenant, resource, connections } = subject;
    Event {
        uid: Uuid::now_v7().to_string(),
        tenant,
        resource,
        connections,
        event_type,
        actor: SYSTEM.to_owned(),
        time: now,
        request_id: String::new(),
        before,
        after,
    }
}
