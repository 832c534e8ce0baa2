//! Connections: create, read, list, update, replace the credential, verify, delete.

mod affected;
mod commit;
mod create;
mod credential;
mod delete;
mod listing;
mod relocate;
mod update;
mod verification;

use std::sync::Arc;

pub use affected::{Affected, AffectedOutcome, CheckLinks};
pub use create::Create;
pub use credential::{Replace, Replaced};
pub use listing::ConnectionsPage;
pub use update::{Edit, Update};
pub(crate) use verification::UNNAMED;
pub use verification::Verified;

use super::draft::{CheckedCredential, CheckedDraft};
use super::error::{CredentialOrigin, Error};
use super::verify::present;
use super::{CREDENTIAL_FIELD, Core, account_of, etag_of, origin_of, parse_stored_url, store_down};
use crate::domain::connection::{
    Connection, ConnectionName, ConnectionRecord, DisplayName, ProviderId, Revision, State,
};
use crate::domain::credential::{Credential, CredentialInfo, Sealed};
use crate::domain::timestamp::Timestamp;
use crate::provider::gateway::Peer;
use crate::provider::{About, Endpoint, Inspection, Provider, ProviderError};
use crate::seal::Binding;
use crate::store::{Change, StoreError};

/// A connection as a reader sees it.
#[derive(Debug, Clone)]
pub struct ShownConnection {
    /// The connection, presented.
    pub connection: Connection,
    /// How many repositories are linked through it.
    pub linked_repositories: u64,
}

/// The operations on connections.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Core>);

impl Connections {
    /// The operations on the connections of `core`.
    #[must_use]
    pub const fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// What the service works with.
    pub(super) fn core(&self) -> &Core {
        &self.0
    }

    /// All providers, in the order of their ids.
    pub fn providers(&self) -> impl Iterator<Item = &'static About> {
        self.0.gateway.providers().iter().map(Provider::about)
    }

    /// The provider of that id.
    ///
    /// # Errors
    ///
    /// [`Error::ProviderNotFound`].
    pub fn provider(&self, id: &str) -> Result<&'static About, Error> {
        let found = self.0.gateway.providers().find(id).map(Provider::about);
        found.ok_or_else(|| Error::ProviderNotFound(id.to_owned()))
    }

    /// The connection of that name.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionNotFound`], [`Error::Unreadable`], [`Error::StoreUnavailable`].
    pub async fn read(&self, name: &ConnectionName) -> Result<ShownConnection, Error> {
        let record = self.0.record(name).await?;
        let shown = present(Arc::unwrap_or_clone(record).connection, self.0.clock.now());
        self.0.count_links(self.with_quota(shown)).await
    }

    /// The connection with what its provider said of the quota since the connection was verified, if it did.
    fn with_quota(&self, mut shown: Connection) -> Connection {
        let (provider, api_url) = (shown.provider.as_str(), &shown.effective_api_url);
        if let Some(told) = self.0.gateway.rate_limit(provider, api_url, account_of(&shown.credential))
            && shown.rate_limit.is_none_or(|stored| stored.observe_time < told.observe_time)
        {
            shown.rate_limit = Some(told);
        }
        shown
    }

    /// Refuses a display name that another connection of the tenant and provider has.
    async fn check_name_free(
        &self,
        name: &ConnectionName,
        provider: &str,
        display_name: &DisplayName,
    ) -> Result<(), Error> {
        let id = ProviderId::new(provider);
        match self.0.store.name_owner(&name.tenant, &id, &display_name.fold()).await.map_err(store_down)? {
            Some(owner) if owner != name.id => Err(Error::NameTaken {
                owner: ConnectionName { tenant: name.tenant.clone(), id: owner },
                provider: provider.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Seals a credential for the connection and its origin.
    fn seal(&self, connection: &Connection, credential: &Credential) -> Result<Sealed, Error> {
        let origin = origin_of(&connection.effective_api_url)?;
        let binding = Binding {
            tenant: connection.name.tenant.as_str(),
            uid: &connection.uid,
            field: CREDENTIAL_FIELD,
            origin: &origin,
        };
        let sealed = self.0.keys.seal(&credential.token, &binding);
        sealed.map_err(|error| Error::from_seal(error, &connection.name))
    }

    /// Puts a new credential, and the instance that it is for, into the connection.
    fn take_credential(
        &self,
        connection: &mut Connection,
        endpoint: &Endpoint,
        credential: &CheckedCredential,
        inspection: &Inspection,
        now: Timestamp,
    ) -> Result<Sealed, Error> {
        let api_url = api_url_text(endpoint);
        if api_url != connection.effective_api_url {
            // What was found at the old instance says nothing of the new one.
            connection.effective_api_url = api_url;
            connection.server_version.clear();
            connection.rate_limit = None;
            forget_findings(connection);
        }
        connection.hosting = endpoint.hosting;
        let version = connection.credential.version + 1;
        connection.credential = self.0.credential_info(credential, inspection, version, now);
        self.seal(connection, &credential.credential)
    }
}

impl Core {
    /// A stored connection as a reader sees it now.
    async fn show_connection(
        &self,
        connection: Connection,
        now: Timestamp,
    ) -> Result<ShownConnection, Error> {
        self.count_links(present(connection, now)).await
    }

    /// Adds the number of links to a connection that is presented.
    async fn count_links(&self, connection: Connection) -> Result<ShownConnection, Error> {
        let linked_repositories = match self.store.link_count(&connection.name).await {
            Ok(count) => count,
            // One damaged count hides no connection.
            Err(StoreError::Unreadable(record)) => {
                tracing::error!(record = %record.key, problem = %record.problem, "unreadable count of links");
                0
            }
            Err(error) => return Err(store_down(error)),
        };
        Ok(ShownConnection { connection, linked_repositories })
    }
}

/// The record as an operation would leave it.
struct Next {
    connection: Connection,
    sealed: Sealed,
    /// What changes with it: the links that move along.
    also: Vec<Change>,
}

/// Back to never verified: what was found no longer speaks of this connection.
fn forget_findings(connection: &mut Connection) {
    connection.state = State::Pending;
    connection.conditions.clear();
    connection.last_verify_time = None;
}

/// A connection as it begins, before any verification.
fn new_connection(
    name: ConnectionName,
    uid: String,
    draft: CheckedDraft<'_>,
    endpoint: &Endpoint,
    credential: CredentialInfo,
    now: Timestamp,
) -> Connection {
    let CheckedDraft { provider, display_name, rest, .. } = draft;
    Connection {
        name,
        uid,
        display_name,
        provider: ProviderId::new(provider.about().id),
        base_url: rest.base_url,
        effective_api_url: api_url_text(endpoint),
        scope: rest.scope,
        ca_certificates_pem: rest.ca_certificates_pem,
        required_capabilities: rest.required_capabilities,
        credential,
        server_version: String::new(),
        hosting: endpoint.hosting,
        state: State::Pending,
        conditions: Vec::new(),
        rate_limit: None,
        disabled: rest.disabled,
        labels: rest.labels,
        annotations: rest.annotations,
        owner: rest.owner,
        create_time: now,
        update_time: now,
        last_verify_time: None,
        generation: 1,
    }
}

/// The etag of a connection: it changes with everything that somebody did, and not with the time of the last use.
#[must_use]
pub fn etag(connection: &Connection) -> String {
    etag_of(connection.generation)
}

fn check_etag(connection: &Connection, sent: &str) -> Result<(), Error> {
    if sent.is_empty() || sent == etag(connection) {
        Ok(())
    } else {
        Err(Error::Stale { name: connection.name.to_string() })
    }
}

fn supplied(error: ProviderError, provider: &dyn Provider, field: &'static str) -> Error {
    Error::Provider {
        error,
        credential: CredentialOrigin::Supplied { field },
        provider: provider.about().title,
    }
}

fn api_url_text(endpoint: &Endpoint) -> String {
    endpoint.api_url.as_str().trim_end_matches('/').to_owned()
}

fn stored_endpoint(connection: &Connection) -> Result<Endpoint, Error> {
    Ok(Endpoint { api_url: parse_stored_url(&connection.effective_api_url)?, hosting: connection.hosting })
}

fn peer<'a>(
    provider: &'a dyn Provider,
    connection: &'a Connection,
    endpoint: &'a Endpoint,
    account: &'a str,
) -> Peer<'a> {
    Peer {
        provider,
        api_url: &endpoint.api_url,
        base_url: &connection.base_url,
        scope: &connection.scope,
        ca_certificates_pem: &connection.ca_certificates_pem,
        account,
    }
}

fn replace_change(record: &ConnectionRecord, connection: Connection, sealed: Sealed) -> Change {
    Change::Replace {
        record: Box::new(ConnectionRecord { connection, sealed, revision: Revision(record.revision.0 + 1) }),
        expected: record.revision,
    }
}
