//! GitHub: github.com, GitHub Enterprise Cloud with data residency (`*.ghe.com`) and Enterprise Server from 3.9 on,
//! through the REST API in its version 2022-11-28.
//!
//! Classic and fine-grained personal access tokens, OAuth tokens and installation tokens of an App all travel as
//! `Authorization: Bearer`. What a token is, the answers tell, never its form: prefixes change, and old tokens have none.

mod delivery;
mod endpoint;
mod inspect;
mod listing;
mod lookup;
mod refs;
mod refusal;
mod rows;
mod webhooks;

use std::time::Duration;

use async_trait::async_trait;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use url::Url;

use super::api::{Api, Call, authorize_with};
use super::{
    About, CredentialFieldAbout, CredentialKindAbout, Endpoint, GitHosts, Inspection, List, Lookup, Presence,
    Provider, ProviderError, RefList,
};
use crate::domain::base_url::BaseUrl;
use crate::domain::connection::Scope;
use crate::domain::credential::{
    Account, AuthScheme, CapabilityType, Credential, CredentialForm, CredentialKind, GitLogin, Secret,
};
use crate::domain::delivery::{Delivery, DeliveryHeaders, DeliveryRefusal, Proof};
use crate::domain::page::{Cursor, Page};
use crate::domain::refs::Ref;
use crate::domain::repository::{Namespace, Repository};
use crate::domain::violation::{FieldReason, FieldViolation, Refusal};
use crate::domain::webhook::{
    RemoteWebhook, SecretScheme, SecretUpdate, WantedWebhook, WebhookEvent, WebhookSetup,
};

/// GitHub's own cloud.
const CLOUD_BASE_URL: &str = "https://github.com";
/// The lowest version of Enterprise Server: the first that knows versions of the API, and fine-grained tokens.
const MINIMUM_VERSION: &str = "3.9";
/// The most rows of one page; larger wishes are cut without a word (github/docs#45189).
const MAX_PAGE_SIZE: usize = 100;

static ABOUT: About = About {
    id: "github",
    title: "GitHub",
    cloud_base_url: CLOUD_BASE_URL,
    credential_kinds: &[CredentialKindAbout {
        kind: CredentialKind::PersonalAccessToken,
        title: "Personal access token",
        fields: &[CredentialFieldAbout {
            name: "token",
            title: "Access token",
            description: "Classic, with the scope repo; or fine-grained, with Contents: read and Webhooks: read and \
                          write; an installation token of a GitHub App does, too",
            required: true,
            secret: true,
        }],
    }],
    capability_scopes: &[
        (CapabilityType::ListRepositories, &["repo"]),
        (CapabilityType::ReadCode, &["repo"]),
        (CapabilityType::ManageWebhooks, &["admin:repo_hook"]),
    ],
    minimum_server_version: MINIMUM_VERSION,
    webhook_events: &WebhookEvent::CHOSEN,
    webhook_secret: SecretUpdate::InPlace,
    tells_expiry: true,
    tells_scopes: true,
    max_page_size: 100,
    documentation_urls: &[
        "https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/managing-your-personal-access-tokens",
        "https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps",
        "https://docs.github.com/en/rest/authentication/permissions-required-for-fine-grained-personal-access-tokens",
        "https://docs.github.com/en/rest",
    ],
    // "No more than 100 concurrent requests are allowed" (rate-limits-for-the-rest-api), of all that use the token:
    // this is a sixth of it.
    concurrency: 16,
    // A reply that takes the server longer is cut off with a 5xx (troubleshooting-the-rest-api).
    attempt_timeout: Duration::from_secs(10),
};

/// The driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct Github;

#[async_trait]
impl Provider for Github {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn endpoints(
        &self,
        base_url: Option<&BaseUrl>,
        scope: &Scope,
    ) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
        endpoint::endpoints(base_url, scope)
    }

    async fn answers(&self, api: &Api) -> Result<Presence, ProviderError> {
        let answer = get(api, &["meta"]).return_redirects().send().await?;
        Ok(match answer.status {
            _ if answer.is_json() && refusal::speaks_github(&answer) => Presence::Here,
            // A server in private mode refuses strangers everywhere, pages of HTML included
            // (microsoft/vscode-pull-request-github#521).
            StatusCode::UNAUTHORIZED => Presence::Perhaps,
            _ => Presence::Elsewhere,
        })
    }

    fn accepts(&self, credential: &Credential) -> Result<(), Refusal> {
        match &credential.form {
            CredentialForm::PersonalAccessToken { .. } => Ok(()),
            CredentialForm::EmailApiToken { .. } | CredentialForm::ResourceToken { .. } => Err(Refusal::new(
                FieldReason::UnsupportedForProvider,
                "GitHub has no such token; use `personal_access_token`",
            )),
        }
    }

    fn authorize(&self, credential: &Credential, headers: &mut HeaderMap) {
        authorize_with("Bearer", credential.token.expose(), headers);
    }

    fn includes(&self, granted: &str, scope: &str) -> bool {
        refusal::includes(granted, scope)
    }

    async fn inspect(&self, api: &Api, wanted: &[CapabilityType]) -> Inspection {
        inspect::inspect(api, wanted).await
    }

    async fn namespaces(
        &self,
        api: &Api,
        list: &List,
        at: Option<&Cursor>,
    ) -> Result<Page<Namespace>, ProviderError> {
        listing::namespaces(api, list, at).await
    }

    async fn repositories(
        &self,
        api: &Api,
        list: &List,
        at: Option<&Cursor>,
    ) -> Result<Page<Repository>, ProviderError> {
        listing::repositories(api, list, at).await
    }

    async fn repository(&self, api: &Api, id: &str) -> Result<Repository, ProviderError> {
        lookup::by_id(api, id).await
    }

    async fn lookup(&self, api: &Api, what: &Lookup) -> Result<Repository, ProviderError> {
        lookup::find(api, what).await
    }

    fn git_hosts(&self, api_url: &Url) -> GitHosts {
        endpoint::git_hosts(api_url)
    }

    fn named(&self, api_url: &Url, clone_url: &str) -> Option<String> {
        endpoint::named(api_url, clone_url)
    }

    async fn refs(
        &self,
        api: &Api,
        repository: &str,
        list: &RefList,
        at: Option<&Cursor>,
    ) -> Result<Page<Ref>, ProviderError> {
        refs::refs(api, repository, list, at).await
    }

    /// One name for all: it is documented for the tokens of an App, and personal ones want any name but an empty one
    /// (authenticating-as-a-github-app-installation).
    fn git_login(&self, _: &CredentialForm, _: Option<&Account>) -> GitLogin {
        GitLogin { username: "x-access-token".to_owned(), scheme: AuthScheme::Basic }
    }

    async fn webhooks(
        &self,
        api: &Api,
        repository: &Repository,
        wanted: &WantedWebhook,
    ) -> Result<Vec<RemoteWebhook>, ProviderError> {
        webhooks::list(api, repository, wanted).await
    }

    async fn create_webhook(
        &self,
        api: &Api,
        repository: &Repository,
        wanted: &WantedWebhook,
        secret: &Secret,
    ) -> Result<RemoteWebhook, ProviderError> {
        webhooks::create(api, repository, wanted, secret).await
    }

    async fn update_webhook(
        &self,
        api: &Api,
        repository: &Repository,
        hook: &RemoteWebhook,
        wanted: &WantedWebhook,
        secret: &Secret,
    ) -> Result<RemoteWebhook, ProviderError> {
        webhooks::update(api, repository, hook, wanted, secret).await
    }

    async fn delete_webhook(
        &self,
        api: &Api,
        repository: &Repository,
        id: &str,
    ) -> Result<(), ProviderError> {
        webhooks::delete(api, repository, id).await
    }

    fn webhook_setup(&self, repository: &Repository, wanted: &WantedWebhook) -> WebhookSetup {
        webhooks::setup(repository, wanted)
    }

    fn proof(
        &self,
        scheme: SecretScheme,
        headers: &DeliveryHeaders,
        _: &[u8],
    ) -> Result<Proof, DeliveryRefusal> {
        delivery::proof(scheme, headers)
    }

    fn delivery(&self, headers: &DeliveryHeaders, body: &[u8]) -> Result<Delivery, DeliveryRefusal> {
        delivery::read(headers, body)
    }
}

/// A GET below the API, as GitHub wants it.
fn get<'a>(api: &'a Api, segments: &[&str]) -> Call<'a> {
    versioned(api.get(segments))
}

/// A GET of a place that one of GitHub's own links named.
fn get_place<'a>(api: &'a Api, place: &str) -> Result<Call<'a>, ProviderError> {
    api.get_place(place).map(versioned)
}

/// Pins the version of the API: it is today's default, and supported until March 2028 at least (api-versions).
fn versioned(call: Call<'_>) -> Call<'_> {
    const VERSION: HeaderName = HeaderName::from_static("x-github-api-version");
    media_type(call).header(VERSION, HeaderValue::from_static("2022-11-28"))
}

fn media_type(call: Call<'_>) -> Call<'_> {
    call.header(ACCEPT, HeaderValue::from_static("application/vnd.github+json"))
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::domain::credential::{ResourceType, Secret};

    fn credential(form: CredentialForm, token: &str) -> Credential {
        Credential { form, token: Secret::new(token.to_owned()) }
    }

    #[test]
    fn only_the_credentials_of_github_are_accepted() {
        let reason = |form| Github.accepts(&credential(form, "ghp_x")).map_err(|refusal| refusal.reason);
        assert_eq!(reason(CredentialForm::PersonalAccessToken { username: Some("ignored".into()) }), Ok(()));
        let unsupported = Err(FieldReason::UnsupportedForProvider);
        assert_eq!(reason(CredentialForm::EmailApiToken { email: "a@b.example".into() }), unsupported);
        let resource_type = ResourceType::Repository;
        assert_eq!(
            reason(CredentialForm::ResourceToken { resource_type, resource: "a/b".into() }),
            unsupported
        );
    }

    #[test]
    fn any_form_of_token_travels_in_one_sensitive_header() {
        let app = format!("ghs_123456_eyJ{}.{}-{}", "a".repeat(200), "b".repeat(200), "c".repeat(86));
        for token in [
            "ghp_abcdefghij0123456789",
            "github_pat_11AAAA_bbbb",
            "0123456789abcdef0123456789abcdef01234567",
            &app,
        ] {
            let mut headers = HeaderMap::new();
            let form = CredentialForm::PersonalAccessToken { username: None };
            Github.authorize(&credential(form, token), &mut headers);
            assert_eq!(headers.len(), 1);
            assert!(headers[AUTHORIZATION].is_sensitive());
            assert_eq!(headers[AUTHORIZATION].to_str().expect("text"), format!("Bearer {token}"));
        }
    }
}
