//! GitLab: gitlab.com, GitLab Dedicated and self-managed servers from 15.5 on, through the REST API 4.
//!
//! One form of the credential is sent: `Authorization: Bearer`. GitLab takes personal, project, group and
//! service account tokens in it as well as in its own `PRIVATE-TOKEN`, and OAuth access tokens in it alone; and it is
//! the header that every HTTP library and proxy knows to keep from other origins.

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

/// GitLab's own cloud.
const CLOUD_BASE_URL: &str = "https://gitlab.com";
/// The lowest version: `/personal_access_tokens/self` came with it.
const MINIMUM_VERSION: &str = "15.5";

const TOKEN: CredentialFieldAbout = CredentialFieldAbout {
    name: "token",
    title: "Access token",
    description: "With the scope api (or read_api and read_repository, without webhooks)",
    required: true,
    secret: true,
};

static ABOUT: About = About {
    id: "gitlab",
    title: "GitLab",
    cloud_base_url: CLOUD_BASE_URL,
    credential_kinds: &[
        CredentialKindAbout {
            kind: CredentialKind::PersonalAccessToken,
            title: "Personal access token",
            fields: &[TOKEN],
        },
        CredentialKindAbout {
            kind: CredentialKind::ResourceToken,
            title: "Project or group access token",
            fields: &[
                TOKEN,
                CredentialFieldAbout {
                    name: "resource_type",
                    title: "Kind",
                    description: "PROJECT or GROUP",
                    required: true,
                    secret: false,
                },
                CredentialFieldAbout {
                    name: "resource",
                    title: "Project or group",
                    description: "Its full path, such as group/subgroup/project",
                    required: false,
                    secret: false,
                },
            ],
        },
    ],
    capability_scopes: &[
        (CapabilityType::ListRepositories, &["read_api"]),
        (CapabilityType::ReadCode, &["read_repository"]),
        (CapabilityType::ManageWebhooks, &["api"]),
    ],
    minimum_server_version: MINIMUM_VERSION,
    webhook_events: &WebhookEvent::CHOSEN,
    webhook_secret: SecretUpdate::InPlace,
    tells_expiry: true,
    tells_scopes: true,
    max_page_size: 100,
    documentation_urls: &[
        "https://docs.gitlab.com/user/profile/personal_access_tokens/",
        "https://docs.gitlab.com/user/project/settings/project_access_tokens/",
        "https://docs.gitlab.com/user/group/settings/group_access_tokens/",
        "https://docs.gitlab.com/api/rest/",
    ],
    concurrency: 16,
    attempt_timeout: Duration::from_secs(10),
};

/// The driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gitlab;

#[async_trait]
impl Provider for Gitlab {
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
        // A path that is no API leads to the sign-in page or to a page of HTML.
        let answer = api.get(&["version"]).return_redirects().send().await?;
        let known =
            matches!(answer.status, StatusCode::OK | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        Ok(if known && answer.is_json() { Presence::Here } else { Presence::Elsewhere })
    }

    fn accepts(&self, credential: &Credential) -> Result<(), Refusal> {
        let unsupported = |description| Err(Refusal::new(FieldReason::UnsupportedForProvider, description));
        match &credential.form {
            CredentialForm::PersonalAccessToken { .. } => Ok(()),
            CredentialForm::EmailApiToken { .. } => {
                unsupported("GitLab has no such token; use `personal_access_token`")
            }
            CredentialForm::ResourceToken { resource_type, resource } => match resource_type {
                ResourceType::Project | ResourceType::Group => {
                    full_path(resource, *resource_type == ResourceType::Project)
                }
                ResourceType::Repository | ResourceType::Workspace => unsupported(
                    "GitLab has tokens of a PROJECT and of a GROUP; a repository is a PROJECT there",
                ),
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

    /// GitLab takes any user name with a token, and wants this one with an OAuth access token.
    fn git_login(&self, _form: &CredentialForm, _account: Option<&Account>) -> GitLogin {
        GitLogin { username: "oauth2".to_owned(), scheme: AuthScheme::Basic }
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

    async fn wake_webhook(&self, api: &Api, repository: &Repository, id: &str) -> Result<(), ProviderError> {
        webhooks::wake(api, repository, id).await
    }

    fn webhook_setup(&self, repository: &Repository, wanted: &WantedWebhook) -> WebhookSetup {
        webhooks::setup(repository, wanted)
    }

    fn proof(
        &self,
        scheme: SecretScheme,
        headers: &DeliveryHeaders,
        _body: &[u8],
    ) -> Result<Proof, DeliveryRefusal> {
        delivery::proof(scheme, headers)
    }

    fn delivery(&self, headers: &DeliveryHeaders, body: &[u8]) -> Result<Delivery, DeliveryRefusal> {
        delivery::delivery(headers, body)
    }
}

/// The resource of a token is for people and may be empty; what is there must be a full path.
fn full_path(resource: &str, project: bool) -> Result<(), Refusal> {
    let plain = |c: char| !c.is_control() && !c.is_whitespace();
    let fits = resource.len() <= 2_048
        && resource.chars().all(plain)
        && resource.split('/').all(|segment| !segment.is_empty())
        && (!project || resource.contains('/'));
    if resource.is_empty() || fits {
        return Ok(());
    }
    Err(Refusal::new(
        FieldReason::Malformed,
        "`resource` is the full path without slashes around it, such as group/subgroup/project",
    ))
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    fn credential(form: CredentialForm) -> Credential {
        Credential { form, token: Secret::new("glpat-abcdefghij0123456789".to_owned()) }
    }

    fn resource(resource_type: ResourceType, resource: &str) -> Credential {
        credential(CredentialForm::ResourceToken { resource_type, resource: resource.to_owned() })
    }

    #[test]
    fn only_the_credentials_of_gitlab_are_accepted() {
        let reason = |credential: &Credential| Gitlab.accepts(credential).map_err(|refusal| refusal.reason);
        let personal = CredentialForm::PersonalAccessToken { username: Some("ignored".to_owned()) };
        assert_eq!(reason(&credential(personal)), Ok(()));
        assert_eq!(reason(&resource(ResourceType::Project, "group/project")), Ok(()));
        assert_eq!(reason(&resource(ResourceType::Group, "")), Ok(()));
        assert_eq!(reason(&resource(ResourceType::Project, "project")), Err(FieldReason::Malformed));
        assert_eq!(reason(&resource(ResourceType::Group, "/group/")), Err(FieldReason::Malformed));
        for kind in [ResourceType::Repository, ResourceType::Workspace] {
            assert_eq!(reason(&resource(kind, "a/b")), Err(FieldReason::UnsupportedForProvider));
        }
        let email = CredentialForm::EmailApiToken { email: "a@b.example".to_owned() };
        assert_eq!(reason(&credential(email)), Err(FieldReason::UnsupportedForProvider));
    }

    #[test]
    fn the_token_travels_in_one_sensitive_header() {
        let mut headers = HeaderMap::new();
        Gitlab.authorize(&resource(ResourceType::Group, "g"), &mut headers);
        assert_eq!(headers.len(), 1);
        assert!(headers[AUTHORIZATION].is_sensitive());
        assert_eq!(headers[AUTHORIZATION], "Bearer glpat-abcdefghij0123456789");
        assert!(!format!("{headers:?}").contains("glpat-"));
    }
}
