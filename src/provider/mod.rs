//! The Git hosts: one trait, one file for each kind of host, and what they share.
//!
//! A driver is stateless. It knows URLs, headers, paths and JSON of one provider, and turns its answers
//! into plain data; everything else (connecting, waiting, retrying, walking pages) is shared.

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::HeaderMap;
use url::Url;

use crate::domain::base_url::BaseUrl;
use crate::domain::connection::{Hosting, RateLimit, Scope};
use crate::domain::credential::{
    Account, Capabilities, CapabilityType, Credential, CredentialForm, CredentialKind, ExpireTimeSource,
    GitLogin, Secret,
};
use crate::domain::delivery::{Delivery, DeliveryHeaders, DeliveryRefusal, Proof};
use crate::domain::page::{Cursor, Page};
use crate::domain::refs::{Ref, RefKind};
use crate::domain::repository::{Namespace, Permission, Repository};
use crate::domain::timestamp::Timestamp;
use crate::domain::verification::CheckResult;
use crate::domain::violation::{FieldViolation, Refusal};
use crate::domain::webhook::{
    RemoteWebhook, SecretScheme, SecretUpdate, WantedWebhook, WebhookEvent, WebhookSetup,
};

pub mod api;
pub mod azure_devops;
pub mod bitbucket_cloud;
pub mod bitbucket_data_center;
mod credential;
mod deliveries;
mod endpoint;
pub mod error;
mod fields;
pub mod gateway;
mod git_hosts;
pub mod gitea;
pub mod github;
pub mod gitlab;
mod inspection;
mod links;
mod mask;
mod paging;
pub mod session;

pub use error::{ProviderError, RejectionCause, Restriction};
pub use git_hosts::GitHosts;
pub use links::CloneAddress;

use api::Api;

/// One kind of Git host.
///
/// Every call ends by the deadline of its [`Api`]. Dropping a future cancels the call behind it.
#[async_trait]
pub trait Provider: Send + Sync + std::fmt::Debug {
    /// What can be said of the provider without asking it.
    fn about(&self) -> &'static About;

    /// What a text that is no URL of an instance, but that people copy from the provider's own pages, stands
    /// for; asked before the strict check of the text. `None` leaves the text as it is.
    fn pasted(&self, text: &str) -> Option<String> {
        let _ = text;
        None
    }

    /// What a connection is limited to: `scope`, and what its URL says beyond an instance.
    fn scope(&self, base_url: &str, scope: &Scope) -> Scope {
        let _ = base_url;
        scope.clone()
    }

    /// The endpoints that `base_url` (`None`: the provider's own cloud) and `scope` can mean, best guess
    /// first. With more than one, [`Provider::answers`] decides.
    ///
    /// # Errors
    ///
    /// Violations of `connection.base_url` and `connection.scope.*`.
    fn endpoints(
        &self,
        base_url: Option<&BaseUrl>,
        scope: &Scope,
    ) -> Result<Vec<Endpoint>, Vec<FieldViolation>>;

    /// Whether [`Provider::answers`] is told nothing without the token: a provider that refuses a stranger
    /// before it looks at the path. All candidates are of the origin for which the token was entered.
    fn answers_only_with_token(&self) -> bool {
        false
    }

    /// Whether the provider answers below the endpoint of `api`. Only asked where a URL leaves it open.
    ///
    /// # Errors
    ///
    /// The endpoint could not be asked.
    async fn answers(&self, api: &Api) -> Result<Presence, ProviderError>;

    /// Refuses a credential of a form that the provider does not have.
    ///
    /// # Errors
    ///
    /// What is wrong with it, about `credential`.
    fn accepts(&self, credential: &Credential) -> Result<(), Refusal>;

    /// Adds the headers that carry the credential, marked as sensitive.
    fn authorize(&self, credential: &Credential, headers: &mut HeaderMap);

    /// Whether the scope `granted` includes `scope`: providers show the outermost ones alone.
    fn includes(&self, granted: &str, scope: &str) -> bool {
        granted == scope
    }

    /// Runs the provider's own checks: does the token work, whose is it, what may it do, until when.
    /// A failed check is in the answer, not an error.
    async fn inspect(&self, api: &Api, wanted: &[CapabilityType]) -> Inspection;

    /// One page of the places that hold repositories; `at` is `None` for the first one.
    ///
    /// # Errors
    ///
    /// See [`ProviderError`].
    async fn namespaces(
        &self,
        api: &Api,
        list: &List,
        at: Option<&Cursor>,
    ) -> Result<Page<Namespace>, ProviderError>;

    /// One page of repositories; `at` is `None` for the first one.
    ///
    /// With [`Walk::Chain`] the answer has at most one following cursor and about `list.page_size` rows.
    /// With [`Walk::Fan`] it may have many, and the driver takes the largest pages that the provider has.
    /// Filters are hints: a driver applies what the provider can filter exactly or as a superset, and
    /// [`List::keeps`] decides for each row afterwards.
    ///
    /// # Errors
    ///
    /// See [`ProviderError`].
    async fn repositories(
        &self,
        api: &Api,
        list: &List,
        at: Option<&Cursor>,
    ) -> Result<Page<Repository>, ProviderError>;

    /// The repository of that stable id.
    ///
    /// # Errors
    ///
    /// [`ProviderError::NotFound`] if the token sees none of that id; see [`ProviderError`].
    async fn repository(&self, api: &Api, id: &str) -> Result<Repository, ProviderError>;

    /// The repository of that stable id, last seen as `full_name`. Where the provider has no call by id, that place is
    /// tried first, and what is there is only taken if it has the id; then as [`Provider::repository`].
    ///
    /// # Errors
    ///
    /// As [`Provider::repository`].
    async fn known_repository(
        &self,
        api: &Api,
        id: &str,
        full_name: &str,
    ) -> Result<Repository, ProviderError> {
        let _ = full_name;
        self.repository(api, id).await
    }

    /// The repository of that full name or clone URL.
    ///
    /// # Errors
    ///
    /// [`ProviderError::NotFound`] if the token sees none there, or the clone URL is of another host; see
    /// [`ProviderError`].
    async fn lookup(&self, api: &Api, what: &Lookup) -> Result<Repository, ProviderError>;

    /// Where the instance of `api_url` serves git. By default where its API is.
    fn git_hosts(&self, api_url: &Url) -> GitHosts {
        GitHosts::of(api_url)
    }

    /// The full name of the repository that a clone URL (without user info) names at the instance of `api_url`, or a
    /// page of it, by the form of the URL alone. `None` if it can name none there: another host, path or organization.
    fn named(&self, api_url: &Url, clone_url: &str) -> Option<String>;

    /// One page of the branches or tags of the repository of that stable id; `at` is `None` for the first one. The
    /// answer has at most one following cursor and about `list.page_size` rows.
    ///
    /// The query is a hint: a driver searches at the provider where that finds every wanted ref, and [`RefList::keeps`]
    /// decides for each row afterwards.
    ///
    /// # Errors
    ///
    /// As [`Provider::repository`].
    async fn refs(
        &self,
        api: &Api,
        repository: &str,
        list: &RefList,
        at: Option<&Cursor>,
    ) -> Result<Page<Ref>, ProviderError>;

    /// How git signs in with a credential of that form, whose account is `account` as far as is known.
    fn git_login(&self, form: &CredentialForm, account: Option<&Account>) -> GitLogin;

    /// The webhooks of the repository that deliver to `wanted.target_url`, all pages, in the order of their making as
    /// far as the provider tells it. `repository` was read a moment ago: its full name is the current one.
    ///
    /// # Errors
    ///
    /// The rights are missing: [`ProviderError::ScopeMissing`], [`ProviderError::Forbidden`] or
    /// [`ProviderError::Restricted`]. See [`ProviderError`].
    async fn webhooks(
        &self,
        api: &Api,
        repository: &Repository,
        wanted: &WantedWebhook,
    ) -> Result<Vec<RemoteWebhook>, ProviderError>;

    /// Makes the webhook. Never sent twice by the layers below; where the answer is lost, whether it was made is for
    /// [`Provider::webhooks`] to say. Where one webhook is several subscriptions, a failure can leave some of them: the
    /// next listing shows them as one hook whose events drifted.
    ///
    /// # Errors
    ///
    /// As [`Provider::webhooks`], and [`ProviderError::WebhookTargetRefused`], [`ProviderError::WebhookLimitReached`],
    /// [`ProviderError::WebhookExists`].
    async fn create_webhook(
        &self,
        api: &Api,
        repository: &Repository,
        wanted: &WantedWebhook,
        secret: &Secret,
    ) -> Result<RemoteWebhook, ProviderError>;

    /// Makes the webhook `hook` as it is wanted, in place: events, activity, content type, TLS verification, and its
    /// secret where the provider can ([`About::webhook_secret`]). Repeating it changes nothing more. The secret is
    /// always sent, because some providers drop it otherwise.
    ///
    /// # Errors
    ///
    /// As [`Provider::create_webhook`]; [`ProviderError::NotFound`] if there is no such webhook.
    async fn update_webhook(
        &self,
        api: &Api,
        repository: &Repository,
        hook: &RemoteWebhook,
        wanted: &WantedWebhook,
        secret: &Secret,
    ) -> Result<RemoteWebhook, ProviderError>;

    /// Removes the webhook of that [`RemoteWebhook::id`].
    ///
    /// # Errors
    ///
    /// [`ProviderError::NotFound`] if there is none: whether it is gone or out of sight is for a listing to say.
    async fn delete_webhook(&self, api: &Api, repository: &Repository, id: &str)
    -> Result<(), ProviderError>;

    /// Wakes a webhook that the provider suspended, with a test delivery. Only called for
    /// [`crate::domain::webhook::WebhookHealth::Suspended`].
    ///
    /// # Errors
    ///
    /// [`ProviderError::Unsupported`] where the provider suspends none.
    async fn wake_webhook(&self, api: &Api, repository: &Repository, id: &str) -> Result<(), ProviderError> {
        let _ = (api, repository, id);
        Err(ProviderError::Unsupported)
    }

    /// What a person does to make the webhook by hand.
    fn webhook_setup(&self, repository: &Repository, wanted: &WantedWebhook) -> WebhookSetup;

    /// What a delivery presents as its proof, if it is signed by `scheme`.
    ///
    /// # Errors
    ///
    /// `Unsigned` or `ProofMalformed`.
    fn proof(
        &self,
        scheme: SecretScheme,
        headers: &DeliveryHeaders,
        body: &[u8],
    ) -> Result<Proof, DeliveryRefusal>;

    /// What a delivery tells. Lenient: a field that is missing stays empty, an unknown event is
    /// [`WebhookEvent::Other`].
    ///
    /// # Errors
    ///
    /// `BodyMalformed`.
    fn delivery(&self, headers: &DeliveryHeaders, body: &[u8]) -> Result<Delivery, DeliveryRefusal>;
}

/// Whether a provider answers at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Here,
    /// Its host refuses to say: the place is taken if no other one is surer.
    Perhaps,
    /// Something else answers, or nothing of this kind.
    Elsewhere,
}

/// What can be said of a provider without asking it.
#[derive(Debug)]
pub struct About {
    /// Its id in resource names, such as `gitlab`.
    pub id: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Its own cloud; empty if it has none.
    pub cloud_base_url: &'static str,
    /// The credentials that it accepts.
    pub credential_kinds: &'static [CredentialKindAbout],
    /// The scopes that each capability needs.
    pub capability_scopes: &'static [(CapabilityType, &'static [&'static str])],
    /// The lowest server version that is supported; empty for a cloud alone.
    pub minimum_server_version: &'static str,
    /// The webhook events that it can send.
    pub webhook_events: &'static [WebhookEvent],
    /// Whether it takes another secret for a webhook that exists.
    pub webhook_secret: SecretUpdate,
    /// Whether it tells when a token ends.
    pub tells_expiry: bool,
    /// Whether it tells the scopes of a token.
    pub tells_scopes: bool,
    /// The most rows that it gives in one page.
    pub max_page_size: i32,
    /// Its own documentation.
    pub documentation_urls: &'static [&'static str],
    /// How many calls may be under way side by side for one connection.
    pub concurrency: usize,
    /// How long one attempt may take to the head of its answer.
    pub attempt_timeout: std::time::Duration,
}

/// A kind of credential and the fields that a form for it has.
#[derive(Debug)]
pub struct CredentialKindAbout {
    /// Which kind.
    pub kind: CredentialKind,
    /// Its name for people.
    pub title: &'static str,
    /// What must be asked for.
    pub fields: &'static [CredentialFieldAbout],
}

/// One field of a form for a credential.
#[derive(Debug)]
pub struct CredentialFieldAbout {
    /// The field of the message, such as `token`.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What belongs there.
    pub description: &'static str,
    /// Whether it must be filled.
    pub required: bool,
    /// Whether it must not be shown.
    pub secret: bool,
}

/// Where an instance is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The canonical URL below which the API calls go, without a slash at its end; with the provider it
    /// is the instance.
    pub api_url: Url,
    /// Who runs it.
    pub hosting: Hosting,
}

/// What a driver found about a token.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// Whose token it is; `None` if an accepted token may not ask.
    pub account: Option<Account>,
    /// What the provider said that the token may do.
    pub granted_scopes: Vec<String>,
    /// What the wanted capabilities need beyond that.
    pub missing_scopes: Vec<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// When it ends.
    pub expire_time: Option<Timestamp>,
    /// Who said so.
    pub expire_time_source: ExpireTimeSource,
    /// The server's version; empty if it did not tell.
    pub server_version: String,
    /// What the provider last said of its quota.
    pub rate_limit: Option<RateLimit>,
    /// One result for each check from `PROVIDER_MATCH` to `WEBHOOKS`.
    pub checks: Vec<CheckResult>,
    /// The provider's own clock, from the `Date` header of its last answer.
    pub server_time: Option<Timestamp>,
    /// The first thing that makes the connection unusable; `None` if it can be used for something.
    pub failure: Option<ProviderError>,
}

/// How a listing is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// One page after the other, so that a caller can stop at each and come back.
    Chain,
    /// All of them, side by side where the provider allows it.
    Fan,
}

/// What a listing is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Case-insensitive substring of the full name; empty for all.
    pub query: String,
    /// Exactly this `Repository::namespace`; empty for all.
    pub namespace: String,
    /// Archived ones too.
    pub include_archived: bool,
    /// At least this permission; `Unknown` for all.
    pub min_permission: Permission,
    /// The projects or workspaces that the connection is limited to.
    pub scope: Scope,
    /// How many rows a page should have, with [`Walk::Chain`].
    pub page_size: usize,
    /// How it is read.
    pub walk: Walk,
}

impl List {
    /// Whether a row belongs to the listing, whatever the provider filtered.
    #[must_use]
    pub fn keeps(&self, repository: &Repository) -> bool {
        (self.query.is_empty() || contains_ignoring_case(&repository.full_name, &self.query))
            && (self.namespace.is_empty() || repository.namespace == self.namespace)
            && (self.include_archived || repository.archived != Some(true))
            && (self.min_permission == Permission::Unknown || repository.permission >= self.min_permission)
    }

    /// Whether a namespace belongs to the listing: its full path holds the query.
    #[must_use]
    pub fn keeps_namespace(&self, namespace: &Namespace) -> bool {
        self.query.is_empty() || contains_ignoring_case(&namespace.full_path, &self.query)
    }
}

/// Which refs are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefList {
    /// Branches or tags.
    pub kind: RefKind,
    /// Case-insensitive substring of the name; empty for all.
    pub query: String,
    /// How many rows a page should have.
    pub page_size: usize,
}

impl RefList {
    /// The longest part of the query that a provider's search can hardly read in another way: every wanted ref has it
    /// in its name, in some case. `None` if there is no such part.
    #[must_use]
    pub fn plain_part(&self) -> Option<&str> {
        self.query
            .split(|c: char| !(c.is_ascii_alphanumeric() || "-_./".contains(c)))
            .filter(|word| !word.is_empty())
            .max_by_key(|word| word.len())
    }

    /// Whether a row belongs to the listing, whatever the provider searched.
    #[must_use]
    pub fn keeps(&self, row: &Ref) -> bool {
        self.query.is_empty() || contains_ignoring_case(&row.name, &self.query)
    }
}

fn contains_ignoring_case(text: &str, part: &str) -> bool {
    caseless::default_case_fold_str(text).contains(&caseless::default_case_fold_str(part))
}

/// How one repository is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// By namespace and name.
    FullName(String),
    /// By any form of clone URL that the provider shows.
    CloneUrl(String),
}

/// The providers that this program knows.
#[derive(Debug)]
pub struct Providers(BTreeMap<&'static str, Box<dyn Provider>>);

impl Providers {
    /// All of them.
    #[must_use]
    pub fn builtin() -> Self {
        Self::of([
            Box::new(azure_devops::AzureDevOps) as Box<dyn Provider>,
            Box::new(bitbucket_cloud::BitbucketCloud),
            Box::new(bitbucket_data_center::BitbucketDataCenter),
            Box::new(gitea::Gitea),
            Box::new(github::Github),
            Box::new(gitlab::Gitlab),
        ])
    }

    /// The given ones.
    #[must_use]
    pub fn of(providers: impl IntoIterator<Item = Box<dyn Provider>>) -> Self {
        Self(providers.into_iter().map(|provider| (provider.about().id, provider)).collect())
    }

    /// The provider of that id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&dyn Provider> {
        self.0.get(id).map(AsRef::as_ref)
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Provider> {
        self.0.values().map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_searched_part_of_a_query_is_plain_text() {
        let list = |query: &str| RefList { kind: RefKind::Branch, query: query.to_owned(), page_size: 1 };
        assert_eq!(list("").plain_part(), None);
        assert_eq!(list("^*$").plain_part(), None);
        assert_eq!(list("^feature/x$").plain_part(), Some("feature/x"));
        assert_eq!(list("gr\u{fc}n-lang").plain_part(), Some("n-lang"));
    }
}
