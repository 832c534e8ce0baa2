//! Bitbucket Data Center from 8.0 on, through its REST API.
//!
//! Three things set it apart. The server answers anybody, so that a good status proves nothing: only the user that
//! its header names does. No call takes a repository's id: a repository is found by a look through all of them.
//! And a missing right is worded like a refused token. `wire` holds the first and the last of them, `lookup` the
//! second.
//!
//! One form of the credential is sent: `Authorization: Bearer`. Every kind of token is taken in it. A token of a
//! project or a repository has no user whom Basic could name, and from version 10 on Basic is off unless the
//! administrator turns it on.

mod delivery;
mod endpoint;
mod inspect;
mod listing;
mod lookup;
mod refs;
mod rows;
mod webhooks;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, StatusCode};
use url::Url;

use super::api::{Api, authorize_with};
use super::{
    About, CredentialFieldAbout, CredentialKindAbout, Endpoint, Inspection, List, Lookup, Presence, Provider,
    ProviderError, RefList,
};
use crate::domain::base_url::BaseUrl;
use crate::domain::connection::Scope;
use crate::domain::credential::{
    Account, AuthScheme, CapabilityType, Credential, CredentialForm, CredentialKind, GitLogin, ResourceType,
    Secret,
};
use crate::domain::delivery::{Delivery, DeliveryHeaders, DeliveryRefusal, Proof};
use crate::domain::page::{Cursor, Page};
use crate::domain::refs::Ref;
use crate::domain::repository::{Namespace, Repository};
use crate::domain::violation::{FieldReason, FieldViolation, Refusal};
use crate::domain::webhook::{
    RemoteWebhook, SecretScheme, SecretUpdate, WantedWebhook, WebhookEvent, WebhookSetup,
};

/// The lowest version: archived repositories and the filter by project key came with it.
const MINIMUM_VERSION: &str = "8.0";
/// What listing and cloning need.
const READ: &str = "REPO_READ";
/// What webhooks need, even to be looked at.
const ADMIN: &str = "REPO_ADMIN";

const TOKEN: CredentialFieldAbout = CredentialFieldAbout {
    name: "token",
    title: "HTTP access token",
    description: "With the permission Repository admin (or Repository read, without webhooks)",
    required: true,
    secret: true,
};

static ABOUT: About = About {
    id: "bitbucket-data-center",
    title: "Bitbucket Data Center",
    cloud_base_url: "",
    credential_kinds: &[
        CredentialKindAbout {
            kind: CredentialKind::PersonalAccessToken,
            title: "HTTP access token of a user",
            fields: &[TOKEN],
        },
        CredentialKindAbout {
            kind: CredentialKind::ResourceToken,
            title: "HTTP access token of a project or a repository",
            fields: &[
                TOKEN,
                CredentialFieldAbout {
                    name: "resource_type",
                    title: "Kind",
                    description: "PROJECT or REPOSITORY",
                    required: true,
                    secret: false,
                },
                CredentialFieldAbout {
                    name: "resource",
                    title: "Project or repository",
                    description: "The key of the project, or key and repository, such as PRJ/my-repo",
                    required: false,
                    secret: false,
                },
            ],
        },
    ],
    capability_scopes: &[
        (CapabilityType::ListRepositories, &[READ]),
        (CapabilityType::ReadCode, &[READ]),
        (CapabilityType::ManageWebhooks, &[ADMIN]),
    ],
    minimum_server_version: MINIMUM_VERSION,
    webhook_events: &WebhookEvent::CHOSEN,
    webhook_secret: SecretUpdate::InPlace,
    tells_expiry: false,
    tells_scopes: false,
    max_page_size: 1_000,
    documentation_urls: &[
        "https://confluence.atlassian.com/display/BITBUCKETSERVER093/Managing+HTTP+access+tokens",
        "https://developer.atlassian.com/server/bitbucket/rest/",
    ],
    // The limit counts a user's calls on each node, git over HTTP among them.
    concurrency: 4,
    attempt_timeout: Duration::from_secs(10),
};

/// The driver. An endpoint is `{base}/rest/api/latest`, which is the same API as `/1.0`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BitbucketDataCenter;

#[async_trait]
impl Provider for BitbucketDataCenter {
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
        let answer = wire::properties(api).send().await?;
        Ok(if wire::speaks_bitbucket(&answer) {
            Presence::Here
        } else if answer.status.is_redirection()
            || matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        {
            // The call is open to anybody, so it is a sign-on in front that refuses a stranger, on any path.
            Presence::Perhaps
        } else {
            Presence::Elsewhere
        })
    }

    fn accepts(&self, credential: &Credential) -> Result<(), Refusal> {
        let unsupported = |description| Err(Refusal::new(FieldReason::UnsupportedForProvider, description));
        match &credential.form {
            CredentialForm::PersonalAccessToken { .. } => Ok(()),
            CredentialForm::EmailApiToken { .. } => unsupported(
                "Bitbucket Data Center has no such token; use `personal_access_token` with an HTTP access token",
            ),
            CredentialForm::ResourceToken { resource_type, resource } => match resource_type {
                ResourceType::Project => endpoint::check_resource(resource, 1),
                ResourceType::Repository => endpoint::check_resource(resource, 2),
                ResourceType::Workspace | ResourceType::Group => {
                    unsupported("Bitbucket Data Center has tokens of a PROJECT and of a REPOSITORY")
                }
            },
        }
    }

    fn authorize(&self, credential: &Credential, headers: &mut HeaderMap) {
        authorize_with("Bearer", credential.token.expose(), headers);
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

    async fn known_repository(
        &self,
        api: &Api,
        id: &str,
        full_name: &str,
    ) -> Result<Repository, ProviderError> {
        lookup::known(api, id, full_name).await
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

    /// `Bearer` first: every kind of token is taken in it, and Basic may be off. A client that knows Basic alone needs the
    /// name of the token's user, or where it has none a name that some versions take for it.
    fn git_login(&self, form: &CredentialForm, account: Option<&Account>) -> GitLogin {
        const NOBODY: &str = "x-token-auth";
        let own = account.map(|account| account.login.as_str()).filter(|login| !rows::is_token_user(login));
        let username = match form {
            CredentialForm::PersonalAccessToken { username } => {
                let given = username.as_deref().filter(|name| !name.is_empty());
                given.or(own).filter(|name| !name.is_empty()).unwrap_or(NOBODY)
            }
            CredentialForm::EmailApiToken { .. } | CredentialForm::ResourceToken { .. } => NOBODY,
        };
        GitLogin { username: username.to_owned(), scheme: AuthScheme::Bearer }
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
        webhooks::update(api, repository, &hook.id, wanted, secret).await
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
        _scheme: SecretScheme,
        headers: &DeliveryHeaders,
        _body: &[u8],
    ) -> Result<Proof, DeliveryRefusal> {
        delivery::proof(headers)
    }

    fn delivery(&self, headers: &DeliveryHeaders, body: &[u8]) -> Result<Delivery, DeliveryRefusal> {
        delivery::delivery(headers, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::credential::Secret;

    fn reason(form: CredentialForm) -> Result<(), FieldReason> {
        let token = Secret::new("BBDC-MjUyOTczNTE1MDAxOmZvcmdlVW5pdFRlc3QwMDAw".to_owned());
        BitbucketDataCenter.accepts(&Credential { form, token }).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn git_goes_with_bearer_and_the_name_of_the_user_if_there_is_one() {
        let named = |login: &str| Account { login: login.to_owned(), ..Account::default() };
        let login = |form: CredentialForm, account: Option<&Account>| {
            let login = BitbucketDataCenter.git_login(&form, account);
            assert_eq!(login.scheme, AuthScheme::Bearer);
            login.username
        };
        let personal = |username: Option<&str>| CredentialForm::PersonalAccessToken {
            username: username.map(str::to_owned),
        };
        let casey = named("casey");
        assert_eq!(login(personal(None), Some(&casey)), "casey");
        assert_eq!(login(personal(Some("robin")), Some(&casey)), "robin");
        assert_eq!(login(personal(Some("")), None), "x-token-auth");
        let token_user = named("access-token-user/2/102");
        assert_eq!(login(personal(None), Some(&token_user)), "x-token-auth");
        let resource = CredentialForm::ResourceToken {
            resource_type: ResourceType::Repository,
            resource: "PRJ/my-repo".to_owned(),
        };
        assert_eq!(login(resource, Some(&token_user)), "x-token-auth");
    }

    #[test]
    fn only_the_credentials_of_the_product_are_accepted() {
        let resource = |resource_type, resource: &str| {
            reason(CredentialForm::ResourceToken { resource_type, resource: resource.to_owned() })
        };
        assert_eq!(reason(CredentialForm::PersonalAccessToken { username: Some("casey".into()) }), Ok(()));
        assert_eq!(resource(ResourceType::Project, "PRJ"), Ok(()));
        assert_eq!(resource(ResourceType::Project, "~casey"), Ok(()));
        assert_eq!(resource(ResourceType::Repository, "PRJ/my-repo"), Ok(()));
        assert_eq!(resource(ResourceType::Repository, ""), Ok(()));
        for (kind, text) in [
            (ResourceType::Project, "PRJ/my-repo"),
            (ResourceType::Repository, "my-repo"),
            (ResourceType::Repository, "PRJ//my-repo"),
            (ResourceType::Project, "P RJ"),
            (ResourceType::Repository, "PRJ/.."),
        ] {
            assert_eq!(resource(kind, text), Err(FieldReason::Malformed), "{text}");
        }
        for kind in [ResourceType::Workspace, ResourceType::Group] {
            assert_eq!(resource(kind, "PRJ"), Err(FieldReason::UnsupportedForProvider));
        }
        let email = CredentialForm::EmailApiToken { email: "a@b.example".to_owned() };
        assert_eq!(reason(email), Err(FieldReason::UnsupportedForProvider));
    }
}
