//! Gitea from 1.20 and Forgejo from 7 on: one API, which tells the two apart by its version alone.
//!
//! Three things set it apart. A page is cut without a word to a size that each server chooses. A refusal for want
//! of a scope is a sentence, and the only place where most versions tell the scopes of a token. The permissions of
//! a row are the user's, whatever the token may do.

mod delivery;
mod endpoint;
mod inspect;
mod interview;
mod listing;
mod lookup;
mod refs;
mod refusal;
mod rows;
mod webhooks;

use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use url::Url;

use super::api::{Api, authorize_with};
use super::credential::is_jwt;
use super::{
    About, CredentialFieldAbout, CredentialKindAbout, Endpoint, Inspection, List, Lookup, Presence, Provider,
    ProviderError, RefList,
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

/// Names the token's user, and by it the user's repositories.
const READ_USER: &str = "read:user";
/// Lists, reads and clones.
const READ_REPOSITORY: &str = "read:repository";
/// Manages webhooks, where the user administers the repository.
const WRITE_REPOSITORY: &str = "write:repository";

static ABOUT: About = About {
    id: "gitea",
    title: "Gitea / Forgejo",
    // There are public instances, but none that an omitted URL could mean.
    cloud_base_url: "",
    credential_kinds: &[CredentialKindAbout {
        kind: CredentialKind::PersonalAccessToken,
        title: "Access token",
        fields: &[CredentialFieldAbout {
            name: "token",
            title: "Access token",
            description: "With the scopes read:user, write:repository and read:organization (read:repository \
                          without webhooks). An OAuth2 access token works, too.",
            required: true,
            secret: true,
        }],
    }],
    capability_scopes: &[
        (CapabilityType::ListRepositories, &[READ_USER, READ_REPOSITORY]),
        (CapabilityType::ReadCode, &[READ_REPOSITORY]),
        (CapabilityType::ManageWebhooks, &[WRITE_REPOSITORY]),
    ],
    minimum_server_version: "Gitea 1.20, Forgejo 7",
    webhook_events: &WebhookEvent::CHOSEN,
    webhook_secret: SecretUpdate::NewHook,
    tells_expiry: false,
    tells_scopes: true,
    max_page_size: 50,
    documentation_urls: &[
        "https://docs.gitea.com/development/api-usage",
        "https://docs.gitea.com/development/oauth2-provider",
        "https://forgejo.org/docs/latest/user/api-usage/",
        "https://forgejo.org/docs/latest/user/token-scope/",
    ],
    // No limit is built in, and pages are counted, so that they can be read side by side.
    concurrency: 8,
    attempt_timeout: Duration::from_secs(10),
};

/// The driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gitea;

#[async_trait]
impl Provider for Gitea {
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
        let answer = api.get(&["version"]).return_redirects().send().await?;
        Ok(if interview::is_version(&answer) || refusal::speaks_gitea(&answer) {
            Presence::Here
        } else {
            Presence::Elsewhere
        })
    }

    fn accepts(&self, credential: &Credential) -> Result<(), Refusal> {
        let problem = match credential.form {
            CredentialForm::PersonalAccessToken { .. } => return Ok(()),
            CredentialForm::EmailApiToken { .. } => "Gitea has no tokens that go with an e-mail address",
            CredentialForm::ResourceToken { .. } => "Gitea has no tokens of a repository or an organization",
        };
        Err(Refusal::new(
            FieldReason::UnsupportedForProvider,
            format!("{problem}; send a personal_access_token"),
        ))
    }

    /// `token` is the documented scheme of an access token, `Bearer` that of an OAuth2 access token.
    fn authorize(&self, credential: &Credential, headers: &mut HeaderMap) {
        let token = credential.token.expose();
        let scheme = if is_jwt(token) { "Bearer" } else { "token" };
        authorize_with(scheme, token, headers);
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
        Ok(lookup::by_id(api, id).await?.into_repository(api.base()))
    }

    async fn lookup(&self, api: &Api, what: &Lookup) -> Result<Repository, ProviderError> {
        lookup::find(api, what).await
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

    /// The token is the password, and any name goes with it (as recorded); the login is what people see in logs.
    fn git_login(&self, form: &CredentialForm, account: Option<&Account>) -> GitLogin {
        let named = match form {
            CredentialForm::PersonalAccessToken { username: Some(name) } => Some(name.as_str()),
            _ => account.map(|account| account.login.as_str()),
        };
        // The name that is documented for OAuth2 tokens.
        let username = named.filter(|name| !name.is_empty()).unwrap_or("oauth2").to_owned();
        GitLogin { username, scheme: AuthScheme::Basic }
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

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::domain::credential::{ResourceType, Secret};

    fn credential(form: CredentialForm, token: &str) -> Credential {
        Credential { form, token: Secret::new(token.to_owned()) }
    }

    #[test]
    fn only_a_personal_access_token_is_accepted() {
        let personal = CredentialForm::PersonalAccessToken { username: Some("ignored".to_owned()) };
        assert_eq!(Gitea.accepts(&credential(personal, "t")), Ok(()));
        for form in [
            CredentialForm::EmailApiToken { email: "a@b.example".to_owned() },
            CredentialForm::ResourceToken {
                resource_type: ResourceType::Repository,
                resource: "a/b".to_owned(),
            },
        ] {
            let refusal = Gitea.accepts(&credential(form, "t")).expect_err("refused");
            assert_eq!(refusal.reason, FieldReason::UnsupportedForProvider);
        }
    }

    #[test]
    fn the_token_travels_in_one_sensitive_header_of_its_own_scheme() {
        for (token, text) in [
            ("0123456789abcdef0123456789abcdef01234567", "token 0123456789abcdef0123456789abcdef01234567"),
            ("eyJhbGciOiJSUzI1NiJ9.eyJnbnQiOjF9.c2ln", "Bearer eyJhbGciOiJSUzI1NiJ9.eyJnbnQiOjF9.c2ln"),
        ] {
            let mut headers = HeaderMap::new();
            let form = CredentialForm::PersonalAccessToken { username: None };
            Gitea.authorize(&credential(form, token), &mut headers);
            assert_eq!((headers.len(), headers[AUTHORIZATION].to_str().ok()), (1, Some(text)));
            assert!(headers[AUTHORIZATION].is_sensitive() && !format!("{headers:?}").contains(token));
        }
    }
}
