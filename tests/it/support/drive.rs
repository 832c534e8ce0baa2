//! A driver by itself, on its way to a forge, read as the service reads it.

use std::time::Duration;

use futures_util::StreamExt;
use gitmoor::domain::connection::Scope;
use gitmoor::domain::credential::{CapabilityType, Credential, CredentialForm, Secret};
use gitmoor::domain::page::Cursor;
use gitmoor::domain::refs::{Ref, RefKind};
use gitmoor::domain::repository::{Permission, Repository};
use gitmoor::domain::verification::{Check, CheckResult, Outcome};
use gitmoor::outbound::{AllowRule, Outbound, OutboundConfig, Target};
use gitmoor::provider::api::Api;
use gitmoor::provider::session::Pages;
use gitmoor::provider::{Inspection, List, Lookup, Provider, ProviderError, RefList, Walk};
use http::HeaderMap;
use tokio::time::Instant;
use url::Url;

use super::forge::{Forge, ForgeConfig};

/// A forge, and a driver's way to it.
pub(crate) struct Drive {
    pub(crate) forge: Forge,
    pub(crate) driver: &'static dyn Provider,
    outbound: Outbound,
    api_url: String,
    good: &'static str,
}

impl Drive {
    /// A driver whose API is at what `api_url` says of the forge, with a token that is good there.
    pub(crate) async fn start(
        driver: &'static dyn Provider,
        config: ForgeConfig,
        api_url: fn(&Forge) -> String,
        good: &'static str,
    ) -> Self {
        let forge = Forge::start(config).await.expect("a forge");
        let rule = AllowRule::parse(forge.origin()).expect("a rule");
        let outbound = Outbound::new(OutboundConfig { allow: vec![rule], ..OutboundConfig::default() });
        let api_url = api_url(&forge);
        Self { forge, driver, outbound: outbound.expect("a way out"), api_url, good }
    }

    /// The API with a personal access token.
    pub(crate) fn api(&self, token: &str) -> Api {
        self.api_at(&self.api_url, token)
    }

    /// The API at another place.
    pub(crate) fn api_at(&self, api_url: &str, token: &str) -> Api {
        let form = CredentialForm::PersonalAccessToken { username: None };
        let credential = Credential { form, token: Secret::new(token.to_owned()) };
        let base = Url::parse(api_url).expect("a URL");
        let about = self.driver.about();
        let transport = self.outbound.transport(Target {
            origin: base.clone(),
            ca_certificates_pem: String::new(),
            account: token.to_owned(),
            attempt_timeout: about.attempt_timeout,
            concurrency: about.concurrency,
        });
        let mut headers = HeaderMap::new();
        self.driver.authorize(&credential, &mut headers);
        let deadline = Instant::now() + Duration::from_secs(60);
        Api::new(base, headers, transport.expect("a transport"), deadline)
    }

    /// What the driver finds about a token.
    pub(crate) async fn inspect(&self, token: &str) -> Inspection {
        self.driver.inspect(&self.api(token), &CapabilityType::ALL).await
    }

    /// All rows of a listing of the good token, in order.
    pub(crate) async fn rows(&self, list: &List) -> Result<Vec<Repository>, ProviderError> {
        self.rows_of(self.good, list).await
    }

    /// All rows of a listing, in order.
    pub(crate) async fn rows_of(&self, token: &str, list: &List) -> Result<Vec<Repository>, ProviderError> {
        let api = self.api(token);
        let concurrency = if list.walk == Walk::Fan { self.driver.about().concurrency } else { 1 };
        let mut pages = Pages::new(
            concurrency,
            |row: &Repository| row.provider_id.as_str(),
            |at: Option<Cursor>| {
                let (driver, api, list) = (self.driver, api.clone(), list.clone());
                async move { driver.repositories(&api, &list, at.as_ref()).await }
            },
        );
        let mut rows = Vec::new();
        while let Some(page) = pages.next().await {
            rows.extend(page?.items.into_iter().filter(|row| list.keeps(row)));
        }
        Ok(rows)
    }

    /// All wanted refs of a repository of the good token, page by page.
    pub(crate) async fn refs(&self, repository: &str, list: &RefList) -> Result<Vec<Ref>, ProviderError> {
        let api = self.api(self.good);
        let (mut rows, mut at) = (Vec::new(), None);
        for _ in 0..1_000 {
            let page = self.driver.refs(&api, repository, list, at.as_ref()).await?;
            rows.extend(page.items.into_iter().filter(|row| list.keeps(row)));
            at = page.next.into_iter().next();
            if at.is_none() {
                return Ok(rows);
            }
        }
        panic!("the pages never end");
    }

    /// A repository as the good token finds it.
    pub(crate) async fn lookup(&self, what: Lookup) -> Result<Repository, ProviderError> {
        self.driver.lookup(&self.api(self.good), &what).await
    }
}

/// Everything, in pages of ten.
pub(crate) fn list(walk: Walk) -> List {
    List {
        query: String::new(),
        namespace: String::new(),
        include_archived: true,
        min_permission: Permission::Unknown,
        scope: Scope::default(),
        page_size: 10,
        walk,
    }
}

/// All refs of a kind, in pages of so many.
pub(crate) fn refs(kind: RefKind, page_size: usize) -> RefList {
    RefList { kind, query: String::new(), page_size }
}

/// The result of a check.
pub(crate) fn check(inspection: &Inspection, check: Check) -> &CheckResult {
    inspection.checks.iter().find(|result| result.check == check).expect("the check was made")
}

/// How a check ended, and its reason.
pub(crate) fn outcome(inspection: &Inspection, of: Check) -> (Outcome, &str) {
    let result = check(inspection, of);
    (result.outcome, result.reason.as_str())
}

/// The ids of rows.
pub(crate) fn ids(rows: &[Repository]) -> Vec<&str> {
    rows.iter().map(|row| row.provider_id.as_str()).collect()
}
