//! A stored connection, ready to be called.

use std::sync::Arc;

use tokio::time::Instant;

use super::error::{CredentialOrigin, Error};
use super::{Core, account_of, parse_stored_url};
use crate::domain::connection::{ConnectionName, ConnectionRecord};
use crate::domain::credential::looks_like_token;
use crate::provider::api::Api;
use crate::provider::gateway::Peer;
use crate::provider::{About, Provider, ProviderError};

/// A stored connection, ready to be called.
pub(super) struct Reach<'a> {
    pub(super) record: Arc<ConnectionRecord>,
    pub(super) provider: &'a dyn Provider,
    pub(super) api: Api,
}

impl Core {
    /// Everything a call to the provider of a stored connection needs; refuses a disabled one.
    pub(super) async fn reach(&self, name: &ConnectionName, deadline: Instant) -> Result<Reach<'_>, Error> {
        let record = self.record(name).await?;
        if record.connection.disabled {
            return Err(Error::Disabled { name: name.clone() });
        }
        self.reach_by(record, deadline)
    }

    /// The same for a record that was read, and whatever it says: also of a connection that is gone by now.
    pub(super) fn reach_by(
        &self,
        record: Arc<ConnectionRecord>,
        deadline: Instant,
    ) -> Result<Reach<'_>, Error> {
        let provider = self.provider_of(&record)?;
        let credential = self.credential_of(&record)?;
        let api_url = parse_stored_url(&record.connection.effective_api_url)?;
        let peer = Peer {
            provider,
            api_url: &api_url,
            base_url: &record.connection.base_url,
            scope: &record.connection.scope,
            ca_certificates_pem: &record.connection.ca_certificates_pem,
            account: account_of(&record.connection.credential),
        };
        let api = self
            .gateway
            .api(peer, Some(&credential), deadline)
            .map_err(|error| stored(error, provider.about(), &record))?;
        self.note_use(&record);
        Ok(Reach { record, provider, api })
    }
}

impl Reach<'_> {
    /// A failed call as an error of the service.
    pub(super) fn failed(&self, error: ProviderError) -> Error {
        stored(error, self.provider.about(), &self.record)
    }

    /// The same for a call about one repository, which its caller named as `what`.
    pub(super) fn failed_about(&self, error: ProviderError, what: &str) -> Error {
        match error {
            ProviderError::NotFound => {
                // A token that was pasted into the wrong field goes into no message.
                let what = if looks_like_token(what) { "of that name" } else { what };
                let connection = self.record.connection.name.clone();
                Error::RepositoryNotFound { connection, repository: what.to_owned() }
            }
            other => self.failed(other),
        }
    }
}

/// A failed call with a stored credential as an error of the service.
pub(super) fn stored(error: ProviderError, about: &About, record: &ConnectionRecord) -> Error {
    let error = match error {
        // The instance was proven when it was stored, so the call's fields are not at fault: something stands in its
        // way now.
        ProviderError::Mismatch { found } => ProviderError::garbled(found),
        other => other,
    };
    let credential = CredentialOrigin::Stored { expire_time: record.connection.credential.expire_time };
    Error::Provider { error, credential, provider: about.title }
}
