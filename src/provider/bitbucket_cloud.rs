//! Bitbucket Cloud, through the REST API 2.0.
//!
//! Three things set it apart. Repositories are listed workspace by workspace, and found by id by asking each (`places`).
//! The headers of every answer tell the kind and the scopes of a credential, also those of a refusal, so that a token
//! of a resource, which has no user, is known by the 403 of `/user` (`inspect`). And an API token goes with the e-mail
//! address of its owner; with git it goes with a fixed name instead.

mod delivery;
mod endpoint;
mod inspect;
mod interview;
mod listing;
mod lookup;
mod places;
mod refs;
mod refusal;
mod rows;
mod webhooks;

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use url::Url;
use zeroize::Zeroizing;

use super::api::{Api, authorize_with};
use super::{
    About, CredentialFieldAbout, CredentialKindAbout, Endpoint, GitHosts, Inspection, List, Lookup, Presence,
    Provider, ProviderError, RefList, Walk,
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

static ABOUT: About = About {
    id: "bitbucket-cloud",
    title: "Bitbucket Cloud",
    cloud_base_url: "https://bitbucket.org",
    credential_kinds: &[
        CredentialKindAbout {
            kind: CredentialKind::EmailApiToken,
            title: "API token with scopes",
            fields: &[
                CredentialFieldAbout {
                    name: "email",
                    title: "E-mail address",
                    description: "The address of the Atlassian account that the token belongs to, not its user name",
                    required: true,
                    secret: false,
                },
                CredentialFieldAbout {
                    name: "token",
                    title: "API token",
                    description: "With the scopes read:user, read:workspace and read:repository, and for webhooks \
                                  read:webhook, write:webhook, delete:webhook and read:pullrequest, each with \
                                  :bitbucket at its end",
                    required: true,
                    secret: true,
                },
            ],
        },
        CredentialKindAbout {
            kind: CredentialKind::ResourceToken,
            title: "Repository, project or workspace access token",
            fields: &[
                CredentialFieldAbout {
                    name: "token",
                    title: "Access token",
                    description: "With the scope repository, and for webhooks webhook and pullrequest",
                    required: true,
                    secret: true,
                },
                CredentialFieldAbout {
                    name: "resource_type",
                    title: "Kind",
                    description: "REPOSITORY, PROJECT or WORKSPACE",
                    required: true,
                    secret: false,
                },
                CredentialFieldAbout {
                    name: "resource",
                    title: "Repository, project or workspace",
                    description: "workspace/repository, workspace/KEY or workspace",
                    required: true,
                    secret: false,
                },
            ],
        },
    ],
    // Those of an API token; interview.rs has the others.
    capability_scopes: &[
        (CapabilityType::ListRepositories, &["read:workspace:bitbucket", "read:repository:bitbucket"]),
        (CapabilityType::ReadCode, &["read:repository:bitbucket"]),
        (
            CapabilityType::ManageWebhooks,
            &[
                "read:webhook:bitbucket",
                "write:webhook:bitbucket",
                "delete:webhook:bitbucket",
                "read:repository:bitbucket",
                "read:pullrequest:bitbucket",
            ],
        ),
    ],
    minimum_server_version: "",
    webhook_events: &WebhookEvent::CHOSEN,
    webhook_secret: SecretUpdate::InPlace,
    tells_expiry: false,
    tells_scopes: true,
    max_page_size: 100,
    documentation_urls: &[
        "https://support.atlassian.com/bitbucket-cloud/docs/using-api-tokens/",
        "https://support.atlassian.com/bitbucket-cloud/docs/repository-access-tokens/",
        "https://support.atlassian.com/bitbucket-cloud/docs/project-access-tokens/",
        "https://support.atlassian.com/bitbucket-cloud/docs/workspace-access-tokens/",
        "https://developer.atlassian.com/cloud/bitbucket/rest/intro/",
    ],
    concurrency: places::SIDE_BY_SIDE,
    attempt_timeout: Duration::from_secs(10),
};

/// The driver.
///
/// There is one instance, `https://api.bitbucket.org/2.0`, whatever page of the site was pasted; a workspace in the
/// page limits the connection to it. A gateway has `/2.0` below its own path.
#[derive(Debug, Clone, Copy, Default)]
pub struct BitbucketCloud;

#[async_trait]
impl Provider for BitbucketCloud {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn pasted(&self, text: &str) -> Option<String> {
        endpoint::pasted(text)
    }

    fn scope(&self, base_url: &str, scope: &Scope) -> Scope {
        endpoint::scope(base_url, scope)
    }

    fn endpoints(
        &self,
        base_url: Option<&BaseUrl>,
        scope: &Scope,
    ) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
        endpoint::endpoints(base_url, scope)
    }

    async fn answers(&self, api: &Api) -> Result<Presence, ProviderError> {
        let answer = api.get(&["user"]).return_redirects().send().await?;
        Ok(if refusal::speaks_bitbucket(&answer) { Presence::Here } else { Presence::Elsewhere })
    }

    fn accepts(&self, credential: &Credential) -> Result<(), Refusal> {
        // What begins so is an app password, whatever it was sent as.
        if credential.token.expose().starts_with("ATBB") {
            return Err(removed());
        }
        match &credential.form {
            CredentialForm::PersonalAccessToken { .. } => Err(removed()),
            CredentialForm::EmailApiToken { email } => check_email(email),
            CredentialForm::ResourceToken { resource_type, resource } => {
                check_resource(*resource_type, resource)
            }
        }
    }

    /// Basic with the e-mail address for an API token, Bearer for a token of a resource.
    fn authorize(&self, credential: &Credential, headers: &mut HeaderMap) {
        let token = credential.token.expose();
        match &credential.form {
            CredentialForm::EmailApiToken { email } => {
                let pair = Zeroizing::new(format!("{email}:{token}"));
                let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
                authorize_with("Basic", &pair, headers);
            }
            CredentialForm::PersonalAccessToken { .. } | CredentialForm::ResourceToken { .. } => {
                authorize_with("Bearer", token, headers);
            }
        }
    }

    fn includes(&self, granted: &str, scope: &str) -> bool {
        interview::includes(granted, scope)
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
        match list.walk {
            Walk::Fan => listing::fan(api, list, at).await,
            Walk::Chain => listing::chain(api, list, at).await,
        }
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
        lookup::find_by(api, what).await
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

    /// The names are fixed ones: with the e-mail address git is refused.
    fn git_login(&self, form: &CredentialForm, _account: Option<&Account>) -> GitLogin {
        let username = match form {
            CredentialForm::EmailApiToken { .. } => "x-bitbucket-api-token-auth",
            CredentialForm::PersonalAccessToken { .. } | CredentialForm::ResourceToken { .. } => {
                "x-token-auth"
            }
        };
        GitLogin { username: username.to_owned(), scheme: AuthScheme::Basic }
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

fn removed() -> Refusal {
    Refusal::new(
        FieldReason::UnsupportedForProvider,
        "app passwords were removed by Bitbucket Cloud on 2026-07-28; create an API token with scopes and send it as \
         email_api_token, or an access token of a repository, project or workspace as resource_token",
    )
}

fn check_email(email: &str) -> Result<(), Refusal> {
    if email.is_empty() {
        return Err(Refusal::new(
            FieldReason::Required,
            "an API token needs `email`, the address of the Atlassian account that it belongs to",
        ));
    }
    // A colon would end the name in the header.
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
    let is_address = email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    if is_address && email.chars().all(plain) {
        return Ok(());
    }
    Err(Refusal::new(
        FieldReason::Malformed,
        "`email` is the address of the Atlassian account; Bitbucket refuses an API token with a user name",
    ))
}

/// A token of a resource has no user whose workspaces could be asked for, so its resource must be given.
fn check_resource(resource_type: ResourceType, resource: &str) -> Result<(), Refusal> {
    let (parts, form) = match resource_type {
        ResourceType::Repository => (2, "workspace/repository"),
        ResourceType::Project => (2, "workspace/KEY"),
        ResourceType::Workspace => (1, "workspace"),
        ResourceType::Group => {
            return Err(Refusal::new(
                FieldReason::UnsupportedForProvider,
                "Bitbucket Cloud has tokens of a REPOSITORY, of a PROJECT and of a WORKSPACE",
            ));
        }
    };
    if resource.is_empty() {
        let description = format!("the token does not tell what it belongs to; give `resource` as {form}");
        return Err(Refusal::new(FieldReason::Required, description));
    }
    if resource.split('/').count() == parts && resource.split('/').all(endpoint::is_place) {
        return Ok(());
    }
    Err(Refusal::new(
        FieldReason::Malformed,
        format!("`resource` has the form {form}, without slashes around it"),
    ))
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::domain::credential::Secret;

    const TOKEN: &str = "ATATT3xFfGF0abcdefghij0123456789=0A1B2C3D";

    fn credential(form: CredentialForm, token: &str) -> Credential {
        Credential { form, token: Secret::new(token.to_owned()) }
    }

    fn email(email: &str) -> CredentialForm {
        CredentialForm::EmailApiToken { email: email.to_owned() }
    }

    fn resource(resource_type: ResourceType, resource: &str) -> CredentialForm {
        CredentialForm::ResourceToken { resource_type, resource: resource.to_owned() }
    }

    fn reason(form: CredentialForm) -> Option<FieldReason> {
        BitbucketCloud.accepts(&credential(form, TOKEN)).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn ac_13_an_api_token_needs_the_e_mail() {
        assert_eq!(reason(email("casey@forge.example")), None);
        assert_eq!(reason(email("")), Some(FieldReason::Required));
        for bad in ["casey", "@", "casey@", "a:b@c", "a b@c"] {
            assert_eq!(reason(email(bad)), Some(FieldReason::Malformed), "{bad}");
        }
    }

    #[test]
    fn ac_13_a_token_of_a_resource_needs_its_workspace() {
        for (kind, right, wrong) in [
            (ResourceType::Repository, "acme/website", "website"),
            (ResourceType::Project, "acme/WEB", "acme"),
            (ResourceType::Workspace, "acme", "acme/website"),
        ] {
            assert_eq!(reason(resource(kind, right)), None);
            assert_eq!(reason(resource(kind, "")), Some(FieldReason::Required));
            assert_eq!(reason(resource(kind, wrong)), Some(FieldReason::Malformed));
            assert_eq!(reason(resource(kind, "acme/../x")), Some(FieldReason::Malformed));
        }
        let id = "{4b85b785-1433-4092-8512-20302f4a03be}";
        assert_eq!(reason(resource(ResourceType::Workspace, id)), None);
        assert_eq!(reason(resource(ResourceType::Group, "acme")), Some(FieldReason::UnsupportedForProvider));
    }

    #[test]
    fn ac_13_an_app_password_is_refused_as_removed() {
        let app_password = "ATBBabcdefghij0123456789abcdefgh01234567";
        for (form, token) in [
            (CredentialForm::PersonalAccessToken { username: Some("casey".to_owned()) }, TOKEN),
            (CredentialForm::PersonalAccessToken { username: None }, app_password),
            (email("casey@forge.example"), app_password),
            (resource(ResourceType::Workspace, "acme"), app_password),
        ] {
            let refusal = BitbucketCloud.accepts(&credential(form, token)).expect_err("refused");
            assert_eq!(refusal.reason, FieldReason::UnsupportedForProvider);
            assert!(refusal.description.contains("app passwords were removed"));
            assert!(!refusal.description.contains(token));
        }
    }

    #[test]
    fn git_takes_fixed_names() {
        for (form, username) in [
            (email("c@d.example"), "x-bitbucket-api-token-auth"),
            (resource(ResourceType::Repository, "acme/website"), "x-token-auth"),
            (resource(ResourceType::Workspace, "acme"), "x-token-auth"),
        ] {
            let login = BitbucketCloud.git_login(&form, None);
            assert_eq!((login.username.as_str(), login.scheme), (username, AuthScheme::Basic));
        }
    }

    #[test]
    fn a_token_travels_in_the_form_that_fits_it() {
        let sent = |form| {
            let mut headers = HeaderMap::new();
            BitbucketCloud.authorize(&credential(form, TOKEN), &mut headers);
            assert_eq!(headers.len(), 1);
            assert!(headers[AUTHORIZATION].is_sensitive());
            assert!(!format!("{headers:?}").contains("ATATT3"));
            headers[AUTHORIZATION].to_str().expect("text").to_owned()
        };
        let basic = format!("Basic {}", STANDARD.encode(format!("c@d.example:{TOKEN}")));
        assert_eq!(sent(email("c@d.example")), basic);
        assert_eq!(sent(resource(ResourceType::Repository, "acme/website")), format!("Bearer {TOKEN}"));
    }
}
