//! The door to the providers: the drivers together with the way out.

use http::HeaderMap;
use tokio::time::Instant;
use url::Url;

use super::api::Api;
use super::{About, Provider, ProviderError, Providers};
use crate::domain::connection::RateLimit;
use crate::domain::connection::Scope;
use crate::domain::credential::Credential;
use crate::domain::violation::Refusal;
use crate::outbound::{Outbound, Target, check_ca_bundle};

pub use crate::outbound::{Probe, Step};

/// The drivers together with the way out. One for the process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {
    providers: std::sync::Arc<Providers>,
    outbound: Outbound,
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// The driver.
    pub provider: &'a dyn Provider,
    /// The endpoint below which the calls go.
    pub api_url: &'a Url,
    /// The URL as its caller wrote it; empty for the provider's own cloud.
    pub base_url: &'a str,
    /// What the connection is limited to.
    pub scope: &'a Scope,
    /// The certificates of the connection (PEM); empty for none.
    pub ca_certificates_pem: &'a str,
    /// What the provider counts the calls under: those of one account at one host share their limits.
    pub account: &'a str,
}

impl Gateway {
    /// A door to `providers` through `outbound`.
    #[must_use]
    pub fn new(providers: Providers, outbound: Outbound) -> Self {
        Self { providers: std::sync::Arc::new(providers), outbound }
    }

    /// The drivers.
    #[must_use]
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// What can be said of a URL without resolving or dialling anything.
    ///
    /// # Errors
    ///
    /// `URL_SCHEME_FORBIDDEN`, `URL_PORT_FORBIDDEN` or `ENDPOINT_NOT_ALLOWED`.
    pub fn admit(&self, url: &Url) -> Result<(), Refusal> {
        self.outbound.admit(url)
    }

    /// Checks the certificates that a connection would add to the system's.
    ///
    /// # Errors
    ///
    /// `CA_CERTIFICATE_MALFORMED`.
    pub fn check_certificates(&self, pem: &str) -> Result<(), Refusal> {
        check_ca_bundle(pem)
    }

    /// The endpoint of `peer`, whose calls carry the credential (`None`: none at all) and end by `deadline`.
    ///
    /// # Errors
    ///
    /// The policy does not admit the endpoint, or the certificates are none.
    pub fn api(
        &self,
        peer: Peer<'_>,
        credential: Option<&Credential>,
        deadline: Instant,
    ) -> Result<Api, ProviderError> {
        let about = peer.provider.about();
        let transport = self.outbound.transport(Target {
            origin: peer.api_url.clone(),
            ca_certificates_pem: peer.ca_certificates_pem.to_owned(),
            account: counted_under(about, peer.account),
            attempt_timeout: about.attempt_timeout,
            concurrency: about.concurrency,
        })?;
        let mut headers = HeaderMap::new();
        if let Some(credential) = credential {
            peer.provider.authorize(credential, &mut headers);
        }
        let api = Api::new(peer.api_url.clone(), headers, transport, deadline)
            .within(peer.provider.scope(peer.base_url, peer.scope));
        Ok(match credential {
            Some(credential) => api.masking(&credential.token).with_form(credential.form.clone()),
            None => api,
        })
    }

    /// What `provider` at `api_url` last said of the account's quota, if this process called it since.
    #[must_use]
    pub fn rate_limit(&self, provider: &str, api_url: &str, account: &str) -> Option<RateLimit> {
        let about = self.providers.find(provider)?.about();
        self.outbound.rate_limit(api_url, &counted_under(about, account))
    }

    /// Takes the steps to a working TLS connection one by one and times them.
    pub async fn probe(&self, peer: Peer<'_>, deadline: Instant) -> Probe {
        self.outbound.probe(peer.api_url, peer.ca_certificates_pem, deadline).await
    }
}

/// One origin can hold several products, below paths of their own, and their account ids are numbers.
fn counted_under(about: &About, account: &str) -> String {
    format!("{}/{account}", about.id)
}
