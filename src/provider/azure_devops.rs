//! Azure DevOps, Services and Server.
//!
//! Four things set it apart. There is no instance without an organization (Services) or a collection
//! (Server). A refused token looks like success unless one asks otherwise, and a missing scope looks like a
//! refused token. Repositories are listed project by project and unpaged. Rows name no permission, and
//! nothing tells scopes or expiry. `wire` holds the first of these rules, `inspect` the second.

mod delivery;
mod inspect;
mod list;
mod refs;
mod rows;
mod url;
mod webhooks;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use self::rows::{RepositoryRow, is_guid};
use self::url::{clone_target, is_name};
use self::wire::{fetch_as_somebody, identified, is_marked};
use super::api::Api;
use super::credential::is_jwt;
use super::{
    About, CredentialFieldAbout, CredentialKindAbout, Endpoint, GitHosts, Inspection, List, Lookup, Presence,
    Provider, ProviderError, RefList, Walk,
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

/// "Project and Team: Read".
const PROJECT: &str = "vso.project";
/// "Code: Read"; it covers service hooks, too.
const CODE: &str = "vso.code";

/// Makes the service say 401 to a refused token, and not send a sign-in page.
const FED_AUTH_REDIRECT: HeaderName = HeaderName::from_static("x-tfs-fedauthredirect");
/// Lets personal Microsoft accounts through, as the provider's own clients do.
const FORCE_MSA: HeaderName = HeaderName::from_static("x-vss-forcemsapassthrough");

static ABOUT: About = About {
    id: "azure-devops",
    title: "Azure DevOps",
    cloud_base_url: "https://dev.azure.com",
    credential_kinds: &[CredentialKindAbout {
        kind: CredentialKind::PersonalAccessToken,
        title: "Personal access token",
        fields: &[CredentialFieldAbout {
            name: "token",
            title: "Token",
            description: "A personal access token of the organization or collection, with the scopes Project and \
                          Team: Read, and Code: Read. An access token of Microsoft Entra ID works, too.",
            required: true,
            secret: true,
        }],
    }],
    capability_scopes: &[
        (CapabilityType::ListRepositories, &[PROJECT, CODE]),
        (CapabilityType::ReadCode, &[CODE]),
        (CapabilityType::ManageWebhooks, &[CODE]),
    ],
    minimum_server_version: wire::MINIMUM,
    webhook_events: &WebhookEvent::CHOSEN,
    webhook_secret: SecretUpdate::InPlace,
    tells_expiry: false,
    tells_scopes: false,
    max_page_size: 1_000,
    documentation_urls: &[
        "https://learn.microsoft.com/azure/devops/organizations/accounts/use-personal-access-tokens-to-authenticate",
        "https://learn.microsoft.com/rest/api/azure/devops/git/repositories",
    ],
    // The provider delays a busy identity by up to 30 s before it refuses, and counts all of its tokens.
    concurrency: 4,
    attempt_timeout: Duration::from_secs(40),
};

/// The driver of Azure DevOps.
///
/// An endpoint is `https://dev.azure.com/{organization}`, also where the organization was typed with its
/// older host (`{organization}.visualstudio.com`): both answer, and one organization is one instance. At a
/// server, or a gateway, it is `{origin}{prefix}/{collection}` as typed.
#[derive(Debug, Clone, Copy, Default)]
pub struct AzureDevOps;

#[async_trait]
impl Provider for AzureDevOps {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn pasted(&self, text: &str) -> Option<String> {
        url::pasted(text)
    }

    fn endpoints(
        &self,
        base_url: Option<&BaseUrl>,
        scope: &Scope,
    ) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
        url::endpoints(base_url, scope)
    }

    /// A server answers 401 to a stranger, whatever the path.
    fn answers_only_with_token(&self) -> bool {
        true
    }

    /// A collection answers connectionData; a project in it has no such call. A 401 counts as an answer if it
    /// is Azure DevOps' own, so that a refused token is told from a wrong URL.
    async fn answers(&self, api: &Api) -> Result<Presence, ProviderError> {
        let answer = api.get(&["_apis", "connectionData"]).return_redirects().send().await?;
        let refused = answer.status == StatusCode::UNAUTHORIZED && is_marked(&answer);
        match identified(answer) {
            Ok(_) => Ok(Presence::Here),
            // A stranger is refused on any path, so this tells of the host alone.
            Err(ProviderError::CredentialRejected { status: 401, .. }) if !refused => Ok(Presence::Elsewhere),
            Err(ProviderError::CredentialRejected { .. }) => Ok(Presence::Perhaps),
            Err(error @ (ProviderError::RateLimited { .. } | ProviderError::Failed { .. })) => Err(error),
            Err(_) => Ok(Presence::Elsewhere),
        }
    }

    fn accepts(&self, credential: &Credential) -> Result<(), Refusal> {
        let problem = match credential.form {
            CredentialForm::PersonalAccessToken { .. } => return Ok(()),
            CredentialForm::EmailApiToken { .. } => "API tokens with an e-mail address are Bitbucket Cloud's",
            CredentialForm::ResourceToken { .. } => "Azure DevOps has no tokens of a project or a repository",
        };
        Err(Refusal::new(
            FieldReason::UnsupportedForProvider,
            format!("{problem}; send a personal_access_token"),
        ))
    }

    /// A personal access token goes into Basic with an empty user, an access token of Entra ID is a Bearer.
    fn authorize(&self, credential: &Credential, headers: &mut HeaderMap) {
        let token = credential.token.expose();
        let text = zeroize::Zeroizing::new(if is_jwt(token) {
            format!("Bearer {token}")
        } else {
            let pair = zeroize::Zeroizing::new(format!(":{token}"));
            format!("Basic {}", STANDARD.encode(pair.as_bytes()))
        });
        // A token is visible ASCII (`Secret::token`), so this cannot fail; without the header the answer would
        // be a refusal.
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers.insert(FED_AUTH_REDIRECT, HeaderValue::from_static("Suppress"));
        headers.insert(FORCE_MSA, HeaderValue::from_static("true"));
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
        list::namespaces(api, list, at).await
    }

    async fn repositories(
        &self,
        api: &Api,
        list: &List,
        at: Option<&Cursor>,
    ) -> Result<Page<Repository>, ProviderError> {
        match list.walk {
            Walk::Fan => list::fan(api, list, at).await,
            Walk::Chain => list::chain(api, list, at).await,
        }
    }

    async fn repository(&self, api: &Api, id: &str) -> Result<Repository, ProviderError> {
        if !is_guid(id) {
            return Err(ProviderError::NotFound);
        }
        let path = ["_apis", "git", "repositories", id];
        match fetch_as_somebody::<RepositoryRow>(api, &path, &[], &[CODE]).await {
            Ok((row, _)) => Ok(row.into_repository(api.base())),
            // A disabled repository is missing everywhere but in lists.
            Err(ProviderError::NotFound) => list::find_by_id(api, id).await,
            Err(error) => Err(error),
        }
    }

    async fn lookup(&self, api: &Api, what: &Lookup) -> Result<Repository, ProviderError> {
        let (project, name) = match what {
            Lookup::FullName(full_name) => {
                let (project, name) = full_name.split_once('/').ok_or(ProviderError::NotFound)?;
                (project.to_owned(), name.to_owned())
            }
            Lookup::CloneUrl(text) => clone_target(api.base(), text).ok_or(ProviderError::NotFound)?,
        };
        if !is_name(&project) || !is_name(&name) {
            return Err(ProviderError::NotFound);
        }
        by_name(api, &project, &name).await
    }

    fn git_hosts(&self, api_url: &::url::Url) -> GitHosts {
        url::git_hosts(api_url)
    }

    fn named(&self, api_url: &::url::Url, clone_url: &str) -> Option<String> {
        url::named(api_url, clone_url)
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

    /// Azure DevOps takes any user name with a personal access token, and with an access token of Entra ID.
    fn git_login(&self, _form: &CredentialForm, _account: Option<&Account>) -> GitLogin {
        GitLogin { username: "git".to_owned(), scheme: AuthScheme::Basic }
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
        _hook: &RemoteWebhook,
        wanted: &WantedWebhook,
        secret: &Secret,
    ) -> Result<RemoteWebhook, ProviderError> {
        webhooks::update(api, repository, wanted, secret).await
    }

    async fn delete_webhook(
        &self,
        api: &Api,
        _repository: &Repository,
        id: &str,
    ) -> Result<(), ProviderError> {
        webhooks::delete(api, id).await
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

    fn delivery(&self, _headers: &DeliveryHeaders, body: &[u8]) -> Result<Delivery, DeliveryRefusal> {
        delivery::delivery(body)
    }
}

/// The repository of that name; a project answers under its former name, too.
async fn by_name(api: &Api, project: &str, name: &str) -> Result<Repository, ProviderError> {
    let path = [project, "_apis", "git", "repositories", name];
    match fetch_as_somebody::<RepositoryRow>(api, &path, &[], &[CODE]).await {
        Ok((row, _)) => Ok(row.into_repository(api.base())),
        Err(ProviderError::NotFound) => list::find_by_name(api, project, name).await,
        Err(error) => Err(error),
    }
}
