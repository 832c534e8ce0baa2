//! The Bitbucket Cloud driver against the fake Bitbucket Cloud, as behind a gateway.

mod listing;
mod service;
mod webhooks;

use std::collections::BTreeSet;
use std::time::Duration;

use gitmoor::domain::base_url::BaseUrl;
use gitmoor::domain::connection::Scope;
use gitmoor::domain::credential::{
    Capability, CapabilityType, Credential, CredentialForm, ExpireTimeSource, ResourceType, Secret,
};
use gitmoor::domain::refs::RefKind;
use gitmoor::domain::repository::{Permission, Repository};
use gitmoor::domain::verification::{Check, CheckResult, Outcome};
use gitmoor::domain::webhook::{WantedWebhook, WebhookEvent};
use gitmoor::outbound::{AllowRule, Outbound, OutboundConfig, Target};
use gitmoor::provider::api::Api;
use gitmoor::provider::bitbucket_cloud::BitbucketCloud;
use gitmoor::provider::{
    Inspection, List, Lookup, Presence, Provider, ProviderError, RefList, RejectionCause, Walk,
};
use http::HeaderMap;
use tokio::time::Instant;
use url::Url;

use super::support::forge::{
    BitbucketCloudConfig, Fault, Forge, ForgeConfig, IdOrder, Seen, bitbucket_cloud_tokens as tokens,
};
use super::support::openapi::Description;

/// What the narrative chapters of the description have, which its operations leave out.
const DOCUMENTED: &[&str] = &["pagelen", "page", "fields"];
const PREFIX: &str = "/bitbucket-cloud/2.0";

/// A forge, and the driver's way to it.
struct Setup {
    forge: Forge,
    outbound: Outbound,
}

impl Setup {
    async fn new(bitbucket_cloud: BitbucketCloudConfig) -> Self {
        Self::of(ForgeConfig { bitbucket_cloud, ..ForgeConfig::default() }).await
    }

    async fn of(config: ForgeConfig) -> Self {
        let forge = Forge::start(config).await.expect("a forge");
        let rule = AllowRule::parse(forge.origin()).expect("a rule");
        let outbound = Outbound::new(OutboundConfig { allow: vec![rule], ..OutboundConfig::default() });
        Self { forge, outbound: outbound.expect("a way out") }
    }

    async fn small() -> Self {
        Self::new(BitbucketCloudConfig::default()).await
    }

    /// The way of an API token of the first person.
    fn api(&self, token: &str) -> Api {
        self.api_of(email(tokens::EMAIL), token)
    }

    /// The way of a token of a resource.
    fn resource(&self, resource_type: ResourceType, resource: &str, token: &str) -> Api {
        self.api_of(CredentialForm::ResourceToken { resource_type, resource: resource.to_owned() }, token)
    }

    fn api_of(&self, form: CredentialForm, token: &str) -> Api {
        let credential = Credential { form: form.clone(), token: Secret::new(token.to_owned()) };
        let base = Url::parse(&format!("{}/2.0", self.forge.bitbucket_cloud_url())).expect("a URL");
        let about = BitbucketCloud.about();
        let transport = self.outbound.transport(Target {
            origin: base.clone(),
            ca_certificates_pem: String::new(),
            account: token.to_owned(),
            attempt_timeout: about.attempt_timeout,
            concurrency: about.concurrency,
        });
        let mut headers = HeaderMap::new();
        BitbucketCloud.authorize(&credential, &mut headers);
        let deadline = Instant::now() + Duration::from_secs(60);
        Api::new(base, headers, transport.expect("a transport"), deadline)
            .masking(&credential.token)
            .with_form(form)
    }

    async fn inspect(&self, token: &str) -> Inspection {
        inspect(&self.api(token)).await
    }

    async fn lookup(&self, what: Lookup) -> Result<Repository, ProviderError> {
        BitbucketCloud.lookup(&self.api(tokens::GOOD), &what).await
    }
}

fn email(address: &str) -> CredentialForm {
    CredentialForm::EmailApiToken { email: address.to_owned() }
}

async fn inspect(api: &Api) -> Inspection {
    BitbucketCloud.inspect(api, &CapabilityType::ALL).await
}

/// A scope that is limited to these workspaces.
fn within(workspaces: &[&str]) -> Scope {
    Scope { workspaces: workspaces.iter().map(|&name| name.to_owned()).collect(), ..Scope::default() }
}

fn check(inspection: &Inspection, check: Check) -> &CheckResult {
    inspection.checks.iter().find(|result| result.check == check).expect("the check was made")
}

fn outcome(inspection: &Inspection, of: Check) -> (Outcome, &str) {
    let result = check(inspection, of);
    (result.outcome, result.reason.as_str())
}

fn capabilities(inspection: &Inspection) -> [Capability; 3] {
    CapabilityType::ALL.map(|which| inspection.capabilities.of(which))
}

// --- what a token is ---

#[tokio::test]
async fn a_good_token_passes_every_check() {
    let setup = Setup::small().await;
    let found = setup.inspect(tokens::GOOD).await;
    assert_eq!(found.failure, None);
    let not_passed: Vec<_> = found.checks.iter().filter(|check| check.outcome != Outcome::Pass).collect();
    // Nothing tells a version.
    assert!(matches!(*not_passed, [only] if only.check == Check::ServerVersion), "{not_passed:?}");
    assert_eq!(found.checks.len(), 7);
    assert!(check(&found, Check::Authentication).message.contains("an API token"));
    let account = found.account.as_ref().expect("an account");
    assert_eq!((account.login.as_str(), account.display_name.as_str()), ("casey", "Casey Example"));
    assert!(account.id.starts_with('{') && !account.bot);
    assert_eq!(found.granted_scopes.len(), 8);
    assert!(found.missing_scopes.is_empty());
    assert_eq!(capabilities(&found), [Capability::Yes; 3]);
    // Nothing tells an end.
    assert_eq!((found.expire_time, found.expire_time_source), (None, ExpireTimeSource::Unknown));
    assert!(found.server_time.is_some() && found.server_version.is_empty());
}

#[tokio::test]
async fn ac_10_a_refused_token_is_told_in_plain_text_and_never_why() {
    let setup = Setup::small().await;
    let rejected = ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status: 401 };
    for api in [
        setup.api(tokens::UNKNOWN),
        setup.api(tokens::EXPIRED),
        setup.api(tokens::REVOKED),
        // Made without scopes: refused like a dead one.
        setup.api(tokens::SCOPELESS),
        // Without the prefix that gives it away, an app password looks like any token.
        setup.api(tokens::APP_PASSWORD),
        // The user name instead of the address, and the header of the other kind.
        setup.api_of(email("casey"), tokens::GOOD),
        setup.resource(ResourceType::Workspace, "acme", tokens::GOOD),
        setup.api(tokens::WORKSPACE),
    ] {
        setup.forge.forget_requests();
        let found = inspect(&api).await;
        assert_eq!(found.failure.as_ref(), Some(&rejected));
        assert_eq!(outcome(&found, Check::ProviderMatch).0, Outcome::Pass);
        let result = check(&found, Check::Authentication);
        assert_eq!((result.outcome, result.reason.as_str()), (Outcome::Fail, "CREDENTIAL_REJECTED"));
        assert_eq!(result.http_status, Some(401));
        for word in ["e-mail", "resource_token", "with scopes", "App passwords were removed"] {
            assert!(result.remedy.contains(word), "{word}");
        }
        assert_eq!(outcome(&found, Check::Webhooks).0, Outcome::Skipped);
        assert!(found.account.is_none());
        // Nothing is asked with a token that is dead.
        assert!(setup.forge.requests().len() <= 2);
    }
}

#[tokio::test]
async fn ac_15_a_weak_token_works_for_what_it_may_do() {
    let setup = Setup::small().await;
    let found = setup.inspect(tokens::READ_ONLY).await;
    assert_eq!(found.failure, None);
    // No scope of an API token implies another one, and a webhook needs that of each event.
    assert_eq!(
        found.missing_scopes,
        [
            "read:webhook:bitbucket",
            "write:webhook:bitbucket",
            "delete:webhook:bitbucket",
            "read:pullrequest:bitbucket"
        ]
    );
    assert_eq!(outcome(&found, Check::Scopes), (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"));
    assert!(check(&found, Check::Scopes).message.contains("MANAGE_WEBHOOKS needs read:webhook:bitbucket"));
    assert_eq!(outcome(&found, Check::Webhooks), (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"));
    assert_eq!(capabilities(&found), [Capability::Yes, Capability::Yes, Capability::No]);
    // Nobody asks for hooks that the scopes rule out.
    assert!(setup.forge.requests().iter().all(|seen| !seen.path.contains("/hooks")));
}

#[tokio::test]
async fn ac_18_ac_19_a_narrow_token_is_accepted_by_what_it_is_refused() {
    let setup = Setup::small().await;
    let found = setup.inspect(tokens::NARROW).await;
    assert_eq!(found.failure, None);
    assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Pass);
    assert_eq!(check(&found, Check::Identity).outcome, Outcome::Skipped);
    assert!(check(&found, Check::Identity).message.contains("read:user:bitbucket"));
    // It cannot find out which workspaces there are; code it can read.
    assert_eq!(capabilities(&found), [Capability::No, Capability::Yes, Capability::No]);
    assert!(found.missing_scopes.contains(&"read:workspace:bitbucket".to_owned()));
    assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Fail, "CREDENTIAL_SCOPE_MISSING"));
    // Told where to look, it lists.
    let found = inspect(&setup.api(tokens::NARROW).within(within(&["acme"]))).await;
    assert_eq!(capabilities(&found), [Capability::Yes, Capability::Yes, Capability::No]);
    assert!(!found.missing_scopes.contains(&"read:workspace:bitbucket".to_owned()));

    let useless = setup.inspect(tokens::USER_ONLY).await;
    assert!(matches!(useless.failure, Some(ProviderError::ScopeMissing { .. })), "{:?}", useless.failure);
    assert_eq!(outcome(&useless, Check::Scopes).0, Outcome::Fail);
    assert!(useless.account.is_some());

    let api = setup.api(tokens::NARROW).within(within(&["acme"]));
    let enough = BitbucketCloud.inspect(&api, &[CapabilityType::ReadCode]).await;
    assert!(enough.failure.is_none() && enough.missing_scopes.is_empty());
    assert!(enough.checks.iter().all(|check| !matches!(check.outcome, Outcome::Fail | Outcome::Warn)));
}

#[tokio::test]
async fn ac_18_a_token_of_a_resource_is_known_by_the_refusal_of_its_identity() {
    let setup = Setup::small().await;
    for (kind, resource, token, words) in [
        (ResourceType::Repository, "acme/website", tokens::REPOSITORY, "of a repository"),
        (ResourceType::Project, "acme/WEB", tokens::PROJECT, "of a project"),
        (ResourceType::Workspace, "acme", tokens::WORKSPACE, "of a workspace"),
    ] {
        let found = inspect(&setup.resource(kind, resource, token)).await;
        assert_eq!(found.failure, None, "{words}");
        let result = check(&found, Check::Authentication);
        assert_eq!((result.outcome, result.http_status), (Outcome::Pass, Some(403)));
        assert!(result.message.contains(words), "{}", result.message);
        assert_eq!(check(&found, Check::Identity).outcome, Outcome::Skipped);
        assert!(found.account.is_none());
        assert_eq!(found.granted_scopes, ["repository", "pullrequest", "webhook"]);
        assert_eq!(capabilities(&found), [Capability::Yes; 3], "{words}");
    }
    // What it has by its own names is not missing by those of an API token.
    for (_, scopes) in BitbucketCloud.about().capability_scopes {
        let held = |scope: &&str| {
            let all = ["account", "repository", "pullrequest", "webhook"];
            all.iter().any(|granted| BitbucketCloud.includes(granted, scope))
        };
        assert!(scopes.iter().all(held), "{scopes:?}");
    }
    let weak = setup.resource(ResourceType::Workspace, "acme", tokens::WORKSPACE_READ);
    let weak = inspect(&weak).await;
    // In the words of its own kind.
    assert_eq!(weak.missing_scopes, ["webhook", "pullrequest"]);
    assert_eq!(capabilities(&weak), [Capability::Yes, Capability::Yes, Capability::No]);
    // It has no user, so nothing about one is asked but whose it is.
    for seen in setup.forge.requests_to(&format!("{PREFIX}/user")) {
        assert_eq!(seen.path, format!("{PREFIX}/user"));
    }
}

#[tokio::test]
async fn ac_18_a_bare_refusal_or_a_bare_success_is_no_identity() {
    let setup = Setup::small().await;
    let user = format!("{PREFIX}/user");
    // Else the list of workspaces is asked for at the same time.
    let api = setup.api(tokens::GOOD).within(within(&["acme"]));
    let json = [("content-type", "application/json")];
    let bare = r#"{"type":"error","error":{"message":"Forbidden"}}"#;
    setup.forge.respond_once("GET", &user, 403, &json, bare);
    let found = inspect(&api).await;
    let rejected = ProviderError::CredentialRejected { cause: RejectionCause::Unknown, status: 403 };
    assert_eq!(found.failure, Some(rejected));
    setup.forge.respond_once("GET", &user, 200, &json, "null");
    let found = inspect(&api).await;
    assert!(matches!(found.failure, Some(ProviderError::CredentialRejected { status: 200, .. })));
    setup.forge.set_fault(Fault::FakeSuccess);
    let found = inspect(&api).await;
    assert!(matches!(found.failure, Some(ProviderError::Failed { .. })), "{:?}", found.failure);
}

#[tokio::test]
async fn an_identity_call_that_is_gone_is_no_dead_token() {
    let gone = BitbucketCloudConfig { user_gone: true, ..BitbucketCloudConfig::default() };
    let setup = Setup::new(gone.clone()).await;
    for api in [
        setup.api(tokens::GOOD),
        setup.resource(ResourceType::Repository, "acme/website", tokens::REPOSITORY),
    ] {
        let found = inspect(&api).await;
        assert_eq!(found.failure, None);
        assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Pass);
        assert_eq!(check(&found, Check::Identity).outcome, Outcome::Warn);
        assert_eq!(capabilities(&found), [Capability::Yes; 3]);
    }
    // Where no header says that anybody was recognised, a list that answers proves nothing.
    let setup = Setup::new(BitbucketCloudConfig { silent_headers: true, ..gone }).await;
    let found = setup.inspect(tokens::GOOD).await;
    assert!(
        matches!(found.failure, Some(ProviderError::Failed { status: Some(410), .. })),
        "{:?}",
        found.failure
    );
}

#[tokio::test]
async fn a_gateway_that_drops_the_headers_leaves_scopes_unknown() {
    let config = BitbucketCloudConfig { silent_headers: true, ..BitbucketCloudConfig::default() };
    let setup = Setup::new(config).await;
    let found = setup.inspect(tokens::GOOD).await;
    assert_eq!(found.failure, None);
    assert_eq!(check(&found, Check::Scopes).outcome, Outcome::Skipped);
    // Hooks that may be read may not be written.
    assert_eq!(capabilities(&found), [Capability::Yes, Capability::Yes, Capability::Unknown]);
    // A refusal that names a scope is given to an accepted token alone.
    let narrow = inspect(&setup.api(tokens::NARROW).within(within(&["acme"]))).await;
    assert_eq!(narrow.failure, None);
    assert_eq!(capabilities(&narrow), [Capability::Yes, Capability::Yes, Capability::No]);
    let second = setup.api_of(email(tokens::SECOND_EMAIL), tokens::SECOND);
    let second = inspect(&second).await;
    assert_eq!(outcome(&second, Check::Webhooks), (Outcome::Warn, "WEBHOOK_PERMISSION_MISSING"));
    assert_eq!(second.capabilities.manage_webhooks, Capability::No);
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_told_as_sure() {
    // Without a workspace nothing is read, so the scopes alone tell.
    let setup = Setup::new(BitbucketCloudConfig { workspaces: 0, ..BitbucketCloudConfig::default() }).await;
    assert_eq!(capabilities(&setup.inspect(tokens::READ_ONLY).await)[..2], [Capability::Yes; 2]);
    setup.forge.edit_bitbucket_cloud_token(tokens::READ_ONLY, |token| {
        token.scopes.retain(|scope| scope != "read:repository:bitbucket");
    });
    let found = setup.inspect(tokens::READ_ONLY).await;
    assert_eq!(capabilities(&found), [Capability::No; 3]);
    assert!(found.missing_scopes.iter().any(|scope| scope == "read:repository:bitbucket"));
    assert_eq!(check(&found, Check::ListRepositories).outcome, Outcome::Skipped);

    // The user administers something in `acme` and `team-005` alone, of which neither is looked into.
    let config = BitbucketCloudConfig { repositories: 40, workspaces: 10, ..BitbucketCloudConfig::default() };
    let setup = Setup::new(config).await;
    let (acme, json) = (format!("{PREFIX}/repositories/acme"), [("content-type", "application/json")]);
    for _ in 0..2 {
        let closed = r#"{"type":"error","error":{"message":"Forbidden"}}"#;
        setup.forge.respond_once("GET", &acme, 403, &json, closed);
    }
    let found = setup.inspect(tokens::GOOD).await;
    assert_eq!(found.capabilities.manage_webhooks, Capability::Unknown);
    assert_eq!(check(&found, Check::Webhooks).outcome, Outcome::Skipped);
    setup.forge.assert_no_leftovers();
}

#[tokio::test]
async fn a_wrong_workspace_is_told_before_it_is_stored() {
    let setup = Setup::small().await;
    for api in [
        setup.api(tokens::GOOD).within(within(&["nowhere"])),
        setup.resource(ResourceType::Workspace, "casey", tokens::WORKSPACE),
        setup.resource(ResourceType::Repository, "acme/nothing", tokens::REPOSITORY),
    ] {
        let found = inspect(&api).await;
        assert_eq!(found.failure, Some(ProviderError::NotFound));
        let result = check(&found, Check::ListRepositories);
        assert_eq!((result.outcome, result.reason.as_str()), (Outcome::Fail, "REPOSITORY_NOT_ACCESSIBLE"));
        assert!(result.remedy.contains("scope.workspaces"));
    }
}

#[tokio::test]
async fn a_spent_quota_is_no_dead_token() {
    let setup = Setup::small().await;
    // No JSON, and no header says how long.
    setup.forge.set_fault(Fault::RateLimited(None));
    let found = setup.inspect(tokens::GOOD).await;
    assert!(matches!(found.failure, Some(ProviderError::RateLimited { .. })), "{:?}", found.failure);
    assert_eq!(outcome(&found, Check::ProviderMatch), (Outcome::Fail, "PROVIDER_RATE_LIMITED"));
    // Scaled limits are told without what is left of them.
    let config = BitbucketCloudConfig { scaled_limit: Some(2_000), ..BitbucketCloudConfig::default() };
    let found = Setup::new(config).await.inspect(tokens::GOOD).await;
    assert_eq!((found.failure, found.rate_limit), (None, None));
}

#[tokio::test]
async fn the_api_is_known_by_its_own_words() {
    let setup = Setup::small().await;
    let answers = async |at: &str| {
        let base = Url::parse(&format!("{}{at}", setup.forge.origin())).expect("a URL");
        let transport = setup.outbound.transport(Target {
            origin: base.clone(),
            ca_certificates_pem: String::new(),
            account: String::new(),
            attempt_timeout: Duration::from_secs(10),
            concurrency: 1,
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        BitbucketCloud
            .answers(&Api::new(base, HeaderMap::new(), transport.expect("a transport"), deadline))
            .await
    };
    assert_eq!(answers(PREFIX).await, Ok(Presence::Here));
    assert_eq!(answers("/gitlab/2.0").await, Ok(Presence::Elsewhere));
    let url = BaseUrl::parse(&format!("{}/", setup.forge.bitbucket_cloud_url())).expect("a URL");
    let endpoints = BitbucketCloud.endpoints(Some(&url), &Scope::default()).expect("endpoints");
    assert_eq!(endpoints[0].api_url.path(), PREFIX);
}

// --- one repository ---

#[tokio::test]
async fn a_repository_is_found_by_id_name_and_clone_url() {
    let setup = Setup::small().await;
    let found = setup.lookup(Lookup::FullName("acme/website".to_owned())).await.expect("a row");
    assert_eq!(found.permission, Permission::Admin);
    // Links that name Bitbucket itself lead to the gateway, without the name of the token's owner.
    assert_eq!(found.clone_https_url, format!("{}/acme/website.git", setup.forge.bitbucket_cloud_url()));
    assert_eq!(found.web_url, format!("{}/acme/website", setup.forge.bitbucket_cloud_url()));
    assert_eq!(found.clone_ssh_url, "git@ssh.bitbucket.org:acme/website.git");
    assert!(!found.foreign_clone_host);
    let by_id = BitbucketCloud.repository(&setup.api(tokens::GOOD), &found.provider_id).await;
    assert_eq!(by_id.as_ref(), Ok(&found));
    for what in [
        Lookup::FullName("/ACME/Website/".to_owned()),
        Lookup::CloneUrl(found.clone_https_url.clone()),
        Lookup::CloneUrl(found.clone_ssh_url.clone()),
        Lookup::CloneUrl("git@bitbucket.org:acme/website.git".to_owned()),
        Lookup::CloneUrl("https://casey@bitbucket.org/acme/website.git".to_owned()),
        Lookup::CloneUrl("ssh://git@altssh.bitbucket.org:443/acme/website.git".to_owned()),
    ] {
        let again = setup.lookup(what.clone()).await;
        assert_eq!(again.map(|row| row.provider_id), Ok(found.provider_id.clone()), "{what:?}");
    }
    for what in [
        Lookup::FullName("acme/nothing".to_owned()),
        Lookup::FullName("website".to_owned()),
        Lookup::FullName("acme/../website".to_owned()),
        Lookup::FullName(String::new()),
        Lookup::CloneUrl("https://elsewhere.test/acme/website.git".to_owned()),
        // Public, so that anybody sees it, but in no workspace of the user.
        Lookup::FullName("strangers/repo-00025".to_owned()),
    ] {
        assert_eq!(setup.lookup(what.clone()).await, Err(ProviderError::NotFound), "{what:?}");
    }
}

#[tokio::test]
async fn ac_64_an_id_is_looked_for_in_each_workspace() {
    let closed = BitbucketCloudConfig { closed: true, spam: true, ..BitbucketCloudConfig::default() };
    let setup = Setup::new(closed).await;
    let api = setup.api(tokens::GOOD);
    let other = setup.lookup(Lookup::FullName("team-002/dotted.name_v2".to_owned())).await.expect("a row");
    let found = BitbucketCloud.repository(&api, &other.provider_id).await.expect("a row");
    assert_eq!(found.full_name, "team-002/dotted.name_v2");
    // Workspaces that cannot be read are not in the way; limits are.
    let limited = setup.api(tokens::GOOD).within(within(&["acme", "closed-shop"]));
    let outcome = BitbucketCloud.repository(&limited, &other.provider_id).await;
    assert_eq!(outcome, Err(ProviderError::NotFound));
    let outcome = BitbucketCloud.lookup(&limited, &Lookup::FullName(other.full_name.clone())).await;
    assert_eq!(outcome, Err(ProviderError::NotFound));
    // A token of a resource looks where it belongs.
    let website = setup.lookup(Lookup::FullName("acme/website".to_owned())).await.expect("a row");
    for (kind, resource, token) in [
        (ResourceType::Repository, "acme/website", tokens::REPOSITORY),
        (ResourceType::Project, "acme/WEB", tokens::PROJECT),
        (ResourceType::Workspace, "acme", tokens::WORKSPACE),
    ] {
        let api = setup.resource(kind, resource, token);
        let found = BitbucketCloud.repository(&api, &website.provider_id).await.expect("a row");
        // It may not ask for permissions.
        assert_eq!((found.full_name.as_str(), found.permission), ("acme/website", Permission::Unknown));
        let found = BitbucketCloud.lookup(&api, &Lookup::FullName("acme/website".to_owned())).await;
        assert_eq!(found.map(|row| row.provider_id), Ok(website.provider_id.clone()));
        let outcome = BitbucketCloud.repository(&api, &other.provider_id).await;
        assert_eq!(outcome, Err(ProviderError::NotFound));
    }
}

#[tokio::test]
async fn ac_60_a_repository_token_finds_no_other_repository_that_anybody_sees() {
    let setup = Setup::small().await;
    let api = setup.resource(ResourceType::Repository, "acme/website", tokens::REPOSITORY);
    let body =
        r#"{"uuid":"{4b85b785-1433-4092-8512-20302f4a03be}","full_name":"acme/public","is_private":false}"#;
    let json = [("content-type", "application/json")];
    setup.forge.respond_once("GET", &format!("{PREFIX}/repositories/acme/public"), 200, &json, body);
    let outcome = BitbucketCloud.lookup(&api, &Lookup::FullName("acme/public".to_owned())).await;
    assert_eq!(outcome, Err(ProviderError::NotFound));
}

#[tokio::test]
async fn ac_64_a_former_name_is_followed_where_it_redirects() {
    let old = || Lookup::FullName("acme/old-website".to_owned());
    assert_eq!(Setup::small().await.lookup(old()).await, Err(ProviderError::NotFound));
    let config = BitbucketCloudConfig { redirects: true, ..BitbucketCloudConfig::default() };
    let setup = Setup::new(config).await;
    // The location names Bitbucket itself, which is reached through the gateway alone.
    assert_eq!(setup.lookup(old()).await.map(|row| row.full_name), Ok("acme/website".to_owned()));
    let path = format!("{PREFIX}/repositories/acme/old-website");
    for location in ["https://elsewhere.test/2.0/repositories/acme/website", "/bitbucket-cloud/login", ""] {
        setup.forge.respond_once("GET", &path, 301, &[("location", location)], "");
        let outcome = setup.lookup(old()).await;
        assert!(
            matches!(outcome, Err(ProviderError::Failed { status: Some(301), .. })),
            "{location}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn h22_an_id_is_a_uuid_in_braces_or_nothing() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    let branches = RefList { kind: RefKind::Branch, query: String::new(), page_size: 5 };
    for id in [
        "",
        "42",
        "..",
        "{}",
        "4b85b785-1433-4092-8512-20302f4a03be",
        "{4B85B785-1433-4092-8512-20302F4A03BE}",
        "{4b85b785-1433-4092-8512-20302f4a03be}/hooks",
        "{../../../../../../../../../../../../..}",
    ] {
        assert_eq!(BitbucketCloud.repository(&api, id).await, Err(ProviderError::NotFound), "{id}");
        assert_eq!(BitbucketCloud.refs(&api, id, &branches, None).await, Err(ProviderError::NotFound));
    }
    assert!(setup.forge.requests().is_empty());
    let nowhere = "{4b85b785-1433-4092-8512-20302f4a03be}";
    assert_eq!(BitbucketCloud.repository(&api, nowhere).await, Err(ProviderError::NotFound));
}

#[tokio::test]
async fn an_ssh_link_of_the_former_host_is_moved() {
    let config = BitbucketCloudConfig { old_ssh: true, ..BitbucketCloudConfig::default() };
    let found = Setup::new(config).await.lookup(Lookup::FullName("acme/website".to_owned())).await;
    assert_eq!(found.expect("a row").clone_ssh_url, "git@ssh.bitbucket.org:acme/website.git");
}

// --- refs ---

#[tokio::test]
async fn refs_are_searched_at_the_provider_and_paged_by_its_links() {
    let setup = Setup::of(ForgeConfig { branches: 1_000, ..ForgeConfig::default() }).await;
    let api = setup.api(tokens::GOOD);
    let id = setup.lookup(Lookup::FullName("acme/website".to_owned())).await.expect("a row").provider_id;
    let wanted = |query: &str| RefList { kind: RefKind::Branch, query: query.to_owned(), page_size: 100 };
    setup.forge.forget_requests();
    let page = BitbucketCloud.refs(&api, &id, &wanted("RELEASE/2"), None).await.expect("a page");
    assert_eq!((page.items.len(), page.next.len()), (1, 0));
    let asked = setup.forge.requests().last().and_then(|seen| seen.param("q"));
    assert_eq!(asked.as_deref(), Some("name ~ \"RELEASE/2\""));
    // What could end the text or mean something is not handed on.
    for (query, part) in
        [("ab\"c", Some("name ~ \"ab\"")), ("\\", None), ("gr\u{fc}n", Some("name ~ \"gr\""))]
    {
        BitbucketCloud.refs(&api, &id, &wanted(query), None).await.expect("a page");
        let asked = setup.forge.requests().last().and_then(|seen| seen.param("q"));
        assert_eq!(asked.as_deref(), part, "{query}");
    }
    let first = BitbucketCloud.refs(&api, &id, &wanted(""), None).await.expect("a page");
    let next = first.next.first().expect("more");
    let second = BitbucketCloud.refs(&api, &id, &wanted(""), Some(next)).await.expect("a page");
    assert_eq!((first.items.len(), second.items.len()), (100, 100));
    assert_ne!(first.items[0], second.items[0]);
    assert!(first.items.iter().chain(&second.items).all(|row| row.protected.is_none()));
    for cursor in ["", "{}", r#"{"default_branch":"main","place":"/../../admin"}"#] {
        let at = gitmoor::domain::page::Cursor(cursor.to_owned());
        let outcome = BitbucketCloud.refs(&api, &id, &wanted(""), Some(&at)).await;
        assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{cursor}");
    }
}

#[tokio::test]
async fn a_default_branch_as_long_as_no_name_does_not_travel() {
    let setup = Setup::of(ForgeConfig { branches: 1_000, ..ForgeConfig::default() }).await;
    let api = setup.api(tokens::GOOD).within(within(&["acme"]));
    let id = setup.lookup(Lookup::FullName("acme/website".to_owned())).await.expect("a row").provider_id;
    let long = "x".repeat(1_000_000);
    let body = format!(r#"{{"uuid":"{id}","full_name":"acme/website","mainbranch":{{"name":"{long}"}}}}"#);
    let json = [("content-type", "application/json")];
    setup.forge.respond_once("GET", &format!("{PREFIX}/repositories/acme"), 200, &json, body);
    let branches = RefList { kind: RefKind::Branch, query: String::new(), page_size: 100 };
    let page = BitbucketCloud.refs(&api, &id, &branches, None).await.expect("a page");
    assert!(page.next[0].0.len() < 1_000 && page.items.iter().all(|row| !row.is_default));
}

#[tokio::test]
async fn ac_61_a_link_to_another_origin_is_never_followed() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    let id = setup.lookup(Lookup::FullName("acme/website".to_owned())).await.expect("a row").provider_id;
    let wanted = RefList { kind: RefKind::Branch, query: String::new(), page_size: 5 };
    for fault in [
        Fault::ForeignNextLink("https://elsewhere.test".to_owned()),
        Fault::BadNextPage("abc".to_owned()),
        Fault::BadNextPage("https://api.bitbucket.org/internal/x".to_owned()),
        Fault::BadNextPage("https://api.bitbucket.org@elsewhere.test/2.0/x".to_owned()),
    ] {
        setup.forge.fault_on(&format!("{PREFIX}/repositories/acme/%7B"), fault.clone(), 2);
        let outcome = BitbucketCloud.refs(&api, &id, &wanted, None).await;
        assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{fault:?}: {outcome:?}");
        setup.forge.clear_faults();
    }
}

// --- what is sent ---

#[tokio::test]
async fn every_request_is_one_that_bitbucket_describes_and_none_is_one_that_it_removed() {
    let config = BitbucketCloudConfig { repositories: 450, ..BitbucketCloudConfig::default() };
    let setup = Setup::new(config).await;
    let all = List { min_permission: Permission::Read, ..listing::list(Walk::Fan) };
    listing::rows(&setup.api(tokens::GOOD), &all).await.expect("rows");
    let chain = List { page_size: 100, ..listing::list(Walk::Chain) };
    let rows = listing::rows(&setup.api(tokens::GOOD), &chain).await.expect("rows");
    let bare = BitbucketCloudConfig { id_order: IdOrder::Refused, ..BitbucketCloudConfig::default() };
    let bare = Setup::new(bare).await;
    listing::rows(&bare.api(tokens::GOOD), &chain).await.expect("rows");
    let project = setup.resource(ResourceType::Project, "acme/WEB", tokens::PROJECT);
    listing::rows(&project, &chain).await.expect("rows");
    for api in [setup.api(tokens::GOOD), setup.api(tokens::READ_ONLY), project] {
        inspect(&api).await;
        let named = BitbucketCloud.namespaces(&api, &chain, None).await.expect("a page");
        assert!(!named.items.is_empty());
    }
    let api = setup.api(tokens::GOOD);
    BitbucketCloud.answers(&api).await.expect("an answer");
    BitbucketCloud.lookup(&api, &Lookup::FullName(rows[0].full_name.clone())).await.expect("a row");
    for kind in [RefKind::Branch, RefKind::Tag] {
        let wanted = RefList { kind, query: "0".to_owned(), page_size: 5 };
        let first = BitbucketCloud.refs(&api, &rows[1].provider_id, &wanted, None).await.expect("a page");
        if let Some(next) = first.next.first() {
            BitbucketCloud.refs(&api, &rows[1].provider_id, &wanted, Some(next)).await.expect("a page");
        }
    }
    let website =
        BitbucketCloud.lookup(&api, &Lookup::FullName("acme/website".to_owned())).await.expect("a row");
    BitbucketCloud.known_repository(&api, &website.provider_id, "acme/website").await.expect("a row");
    let wanted = WantedWebhook {
        target_url: "https://hooks.example.test/in".to_owned(),
        events: WebhookEvent::CHOSEN.into(),
        server_version: String::new(),
    };
    let secret = Secret::new("5ec7e7".repeat(10));
    let hook = BitbucketCloud.create_webhook(&api, &website, &wanted, &secret).await.expect("made");
    BitbucketCloud.webhooks(&api, &website, &wanted).await.expect("hooks");
    BitbucketCloud.update_webhook(&api, &website, &hook, &wanted, &secret).await.expect("updated");
    BitbucketCloud.delete_webhook(&api, &website, &hook.id).await.expect("removed");
    let text = include_str!("../fixtures/providers/bitbucket-cloud/openapi/bitbucket-cloud.trimmed.json");
    let description = Description::read(text);
    let removed: serde_json::Value = serde_json::from_str(text).expect("a description");
    let mut requests = setup.forge.requests();
    requests.extend(bare.forge.requests());
    assert!(requests.len() > 30);
    let problems: BTreeSet<String> = requests
        .iter()
        .flat_map(|seen| {
            let path = seen.path.strip_prefix(PREFIX).unwrap_or(&seen.path);
            let is_removed = removed["paths"][path]["get"]["deprecated"] == true;
            let mut problems = description.problems(seen, path, DOCUMENTED);
            problems.extend(is_removed.then(|| format!("{path} was removed")));
            problems
        })
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test]
async fn the_token_stands_in_one_header_and_nowhere_else() {
    let setup = Setup::small().await;
    setup.inspect(tokens::GOOD).await;
    listing::rows(&setup.api(tokens::GOOD), &listing::list(Walk::Fan)).await.expect("rows");
    for seen in setup.forge.requests() {
        let names: Vec<&str> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.iter().filter(|name| **name == "authorization").count(), 1);
        assert!(seen.header("authorization").is_some_and(|value| value.starts_with("Basic ")));
        assert!(!seen.target().contains("ATATT3") && !seen.target().contains(tokens::EMAIL));
        assert!(seen.body.is_empty());
    }
}

#[tokio::test]
async fn h07_a_redirect_to_another_origin_sees_no_token() {
    let setup = Setup::small().await;
    let other = Forge::small().await.expect("a forge");
    setup.forge.set_fault(Fault::RedirectOtherOrigin { status: 302, origin: other.origin().to_owned() });
    let outcome = listing::rows(&setup.api(tokens::GOOD), &listing::list(Walk::Chain)).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
    assert!(setup.lookup(Lookup::FullName("acme/website".to_owned())).await.is_err());
    assert!(setup.inspect(tokens::GOOD).await.failure.is_some());
    let seen: Vec<Seen> = other.requests();
    assert!(seen.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn h42_h43_nothing_of_a_body_and_no_token_gets_into_what_is_told() {
    for fault in [Fault::TokenEcho, Fault::Error5Mb] {
        let setup = Setup::small().await;
        setup.forge.set_fault(fault);
        let found = setup.inspect(tokens::GOOD).await;
        let text = format!("{found:?}");
        assert!(!text.contains(tokens::GOOD) && !text.contains("a very long error"));
        assert!(matches!(found.failure, Some(ProviderError::Failed { status: Some(500), .. })));
    }
    let setup = Setup::small().await;
    let json = [("content-type", "application/json")];
    let body = format!(
        r#"{{"values":[{{"uuid":"{{4b85b785-1433-4092-8512-20302f4a03be}}","full_name":"acme/x","description":"it is {}"}}]}}"#,
        tokens::GOOD
    );
    setup.forge.respond_once("GET", &format!("{PREFIX}/repositories/acme"), 200, &json, body);
    let api = setup.api(tokens::GOOD).within(within(&["acme"]));
    let page = BitbucketCloud.repositories(&api, &listing::list(Walk::Fan), None).await.expect("a page");
    assert_eq!(page.items[0].description, format!("it is {}", "*".repeat(tokens::GOOD.len())));
}
