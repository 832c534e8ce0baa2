//! What the product does, behind the gRPC surface and in front of store, key ring and providers.

mod audit;
pub mod connections;
pub mod draft;
pub mod error;
mod expiry;
pub mod filter;
pub mod git;
pub mod housekeeping;
pub mod links;
pub mod listing;
pub mod once;
pub mod page_token;
mod reach;
pub mod repositories;
mod resume_token;
pub mod trail;
pub mod usage;
pub mod verify;
pub mod watch;
pub mod webhooks;
pub mod work;

use std::sync::Arc;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::domain::connection::{ConnectionName, ConnectionRecord};
use crate::domain::credential::{Credential, CredentialInfo};
use crate::domain::webhook_target::TargetPolicy;
use crate::provider::Provider;
use crate::provider::gateway::Gateway;
use crate::seal::{Binding, KeyRing, ServiceSecret};
use crate::store::{Store, StoreError};
use error::Error;

/// What every part of the service works with. One for the process.
#[derive(Debug)]
pub struct Core {
    /// Keeps the records.
    pub store: Arc<dyn Store>,
    /// Seals and opens secrets.
    pub keys: KeyRing,
    /// Makes fingerprints and authenticates page tokens.
    pub secret: ServiceSecret,
    /// The way to the providers.
    pub gateway: Gateway,
    /// Where webhooks may deliver to.
    pub targets: TargetPolicy,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Remembers which credentials were used.
    pub usage: usage::Usage,
    /// Wakes whoever does the work that is due.
    pub work: work::Work,
}

/// Who calls, under which id, and until when.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who calls; `anonymous` until callers are authenticated.
    pub actor: String,
    /// The id of this gRPC request, for log and audit.
    pub request_id: String,
    /// When the caller stops waiting for a unary answer; at most the server's own limit.
    pub deadline: Instant,
    /// When the caller stops reading a stream, if it said so.
    pub stream_deadline: Option<Instant>,
}

/// The field of a record whose secret is sealed.
const CREDENTIAL_FIELD: &str = "credential";

impl Core {
    /// The stored connection of that name.
    async fn record(&self, name: &ConnectionName) -> Result<Arc<ConnectionRecord>, Error> {
        self.store.connection(name).await.map_err(|error| Error::from_store(error, name, ""))
    }

    /// The driver of a stored connection.
    fn provider_of(&self, record: &ConnectionRecord) -> Result<&dyn Provider, Error> {
        self.provider(record.connection.provider.as_str())
    }

    /// The driver of a stored record.
    fn provider(&self, id: &str) -> Result<&dyn Provider, Error> {
        self.gateway
            .providers()
            .find(id)
            .ok_or_else(|| Error::Bug { problem: format!("no driver for `{id}`") })
    }

    /// Opens the secret of a stored connection.
    fn credential_of(&self, record: &ConnectionRecord) -> Result<Credential, Error> {
        let connection = &record.connection;
        let origin = origin_of(&connection.effective_api_url)?;
        let binding = Binding {
            tenant: connection.name.tenant.as_str(),
            uid: &connection.uid,
            field: CREDENTIAL_FIELD,
            origin: &origin,
        };
        let token = self
            .keys
            .open(&record.sealed, &binding)
            .map_err(|error| Error::from_seal(error, &connection.name))?;
        Ok(Credential { form: connection.credential.form.clone(), token })
    }
}

/// What the provider counts a credential's calls under: the account, where it named one, else the token itself.
/// Connections of one account at one host share their limits.
fn account_of(credential: &CredentialInfo) -> &str {
    let account = credential.account.as_ref().map_or("", |account| account.id.as_str());
    if account.is_empty() { &credential.fingerprint } else { account }
}

/// The URL of a stored record, which was valid when it was written.
fn parse_stored_url(text: &str) -> Result<url::Url, Error> {
    url::Url::parse(text).map_err(|_| Error::Bug { problem: "a stored API URL does not parse".to_owned() })
}

/// The etag of a resource, of the count of its changes that a reader can see.
fn etag_of(generation: u64) -> String {
    format!("\"{generation:x}\"")
}

/// Scheme, host and port of an API URL, as the sealed secret is bound to them.
fn origin_of(api_url: &str) -> Result<String, Error> {
    Ok(parse_stored_url(api_url)?.origin().ascii_serialization())
}

/// Runs a store call that is not about one connection.
fn store_down(error: StoreError) -> Error {
    Error::StoreUnavailable { problem: error.to_string() }
}

/// What an empty list of violations has vouched for; a hole would be a defect of the checks.
pub(crate) fn checked<T>(found: Option<T>) -> Result<T, Error> {
    found.ok_or_else(|| Error::Bug { problem: "a checked request has holes".to_owned() })
}
