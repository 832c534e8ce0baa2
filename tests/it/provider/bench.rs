//! A driver by itself against the fake of its provider, reached as the service reaches it.

use std::time::Duration;

use gitmoor::domain::base_url::BaseUrl;
use gitmoor::domain::connection::Scope;
use gitmoor::domain::credential::{CapabilityType, Credential, CredentialForm, Secret};
use gitmoor::domain::repository::Repository;
use gitmoor::outbound::{AllowRule, Outbound, OutboundConfig};
use gitmoor::provider::api::Api;
use gitmoor::provider::gateway::{Gateway, Peer};
use gitmoor::provider::{Lookup, Presence, Provider, Providers};
use tokio::time::Instant;
use url::Url;

use super::{Subject, subject};
use crate::support::forge::{Forge, ForgeConfig, Hooks};

/// A forge, and the way of one driver to it.
pub(super) struct Bench {
    pub(super) id: &'static str,
    pub(super) forge: Forge,
    pub(super) subject: Subject,
    gateway: Gateway,
    base_url: String,
    api_url: Url,
    /// As the server tells it.
    pub(super) server_version: String,
}

impl Bench {
    pub(super) async fn start(id: &'static str, config: ForgeConfig) -> Self {
        let forge = Forge::start(config).await.expect("a forge");
        let rule = AllowRule::parse(forge.origin()).expect("a rule");
        let outbound = Outbound::new(OutboundConfig { allow: vec![rule], ..OutboundConfig::default() });
        let gateway = Gateway::new(Providers::builtin(), outbound.expect("a way out"));
        let subject = subject(gateway.providers().find(id).expect("a provider").about());
        let base_url = (subject.url)(&forge);
        let mut bench = Self {
            id,
            api_url: Url::parse(&base_url).expect("a URL"),
            forge,
            subject,
            gateway,
            base_url,
            server_version: String::new(),
        };
        let parsed = BaseUrl::parse(&bench.base_url).expect("a URL");
        let candidates = bench.driver().endpoints(Some(&parsed), &Scope::default()).expect("endpoints");
        for candidate in candidates {
            bench.api_url = candidate.api_url;
            if bench.driver().answers(&bench.api(bench.subject.good)).await == Ok(Presence::Here) {
                break;
            }
        }
        let inspection = bench.driver().inspect(&bench.api(bench.subject.good), &CapabilityType::ALL).await;
        assert_eq!(inspection.failure, None, "{id}");
        bench.server_version = inspection.server_version;
        bench
    }

    pub(super) fn driver(&self) -> &dyn Provider {
        self.gateway.providers().find(self.id).expect("a provider")
    }

    /// The API with a token of the form that the provider's tokens have.
    pub(super) fn api(&self, token: &str) -> Api {
        let form = match self.subject.email {
            "" => CredentialForm::PersonalAccessToken { username: None },
            email => CredentialForm::EmailApiToken { email: email.to_owned() },
        };
        let credential = Credential { form, token: Secret::new(token.to_owned()) };
        let peer = Peer {
            provider: self.driver(),
            api_url: &self.api_url,
            base_url: &self.base_url,
            scope: &Scope::default(),
            ca_certificates_pem: "",
            account: token,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        self.gateway.api(peer, Some(&credential), deadline).expect("the policy admits the forge")
    }

    /// The API with the token that may do everything.
    pub(super) fn good(&self) -> Api {
        self.api(self.subject.good)
    }

    /// A repository as the good token finds it.
    pub(super) async fn repository(&self, full_name: &str) -> Repository {
        let found = self.driver().lookup(&self.good(), &Lookup::FullName(full_name.to_owned())).await;
        found.unwrap_or_else(|error| panic!("{}: {full_name}: {error}", self.id))
    }

    /// What the fake keeps.
    pub(super) fn hooks(&self) -> &Hooks {
        self.forge.hooks(self.id)
    }
}
