//! The driver of Bitbucket Data Center against the fake one.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use gitmoor::domain::base_url::BaseUrl;
use gitmoor::domain::connection::{Hosting, Scope};
use gitmoor::domain::credential::{
    Capability, CapabilityType, Credential, CredentialForm, ExpireTimeSource, Secret,
};
use gitmoor::domain::page::{Cursor, Page};
use gitmoor::domain::refs::{Ref, RefKind};
use gitmoor::domain::repository::{Namespace, NamespaceKind, Permission, Repository, Visibility};
use gitmoor::domain::verification::{Check, CheckResult, Outcome};
use gitmoor::domain::webhook::{WantedWebhook, WebhookEvent};
use gitmoor::outbound::{AllowRule, Outbound, OutboundConfig, Target};
use gitmoor::provider::api::Api;
use gitmoor::provider::bitbucket_data_center::BitbucketDataCenter;
use gitmoor::provider::session::Pages;
use gitmoor::provider::{
    Inspection, List, Lookup, Presence, Provider, ProviderError, RefList, RejectionCause, Walk,
};
use http::HeaderMap;
use tokio::time::Instant;
use url::Url;

use super::support::forge::{
    DataCenterConfig, Fault, Forge, ForgeConfig, Level, Seen, WrongId, data_center_tokens as tokens,
};
use super::support::openapi::Description;

mod listing;
mod lookup;
mod refs;
mod webhooks;

const API: &str = "/bitbucket/rest/api/latest";
const JSON: (&str, &str) = ("content-type", "application/json;charset=UTF-8");
/// The number of the first repository.
const FIRST: &str = "102";
const USER: (&str, &str) = ("x-ausername", "casey");

/// A forge, and the driver's way to it.
struct Setup {
    forge: Forge,
    outbound: Outbound,
}

impl Setup {
    async fn of(config: ForgeConfig) -> Self {
        let forge = Forge::start(config).await.expect("a forge");
        let rule = AllowRule::parse(forge.origin()).expect("a rule");
        let outbound = Outbound::new(OutboundConfig { allow: vec![rule], ..OutboundConfig::default() });
        Self { forge, outbound: outbound.expect("a way out") }
    }

    async fn new(bitbucket_data_center: DataCenterConfig) -> Self {
        Self::of(ForgeConfig { bitbucket_data_center, ..ForgeConfig::default() }).await
    }

    async fn small() -> Self {
        Self::new(DataCenterConfig::default()).await
    }

    fn driver(&self) -> &'static dyn Provider {
        &BitbucketDataCenter
    }

    fn api(&self, token: &str) -> Api {
        self.api_at(&format!("{}{API}", self.forge.origin()), token)
    }

    fn api_at(&self, api_url: &str, token: &str) -> Api {
        let form = CredentialForm::PersonalAccessToken { username: None };
        let credential = Credential { form, token: Secret::new(token.to_owned()) };
        let base = Url::parse(api_url).expect("a URL");
        let about = self.driver().about();
        let transport = self.outbound.transport(Target {
            origin: base.clone(),
            ca_certificates_pem: String::new(),
            account: token.to_owned(),
            attempt_timeout: about.attempt_timeout,
            concurrency: about.concurrency,
        });
        let mut headers = HeaderMap::new();
        self.driver().authorize(&credential, &mut headers);
        let deadline = Instant::now() + Duration::from_secs(60);
        Api::new(base, headers, transport.expect("a transport"), deadline)
    }

    async fn inspect(&self, token: &str) -> Inspection {
        self.driver().inspect(&self.api(token), &CapabilityType::ALL).await
    }

    /// All rows of a listing, in order, read as the service reads them.
    async fn rows(&self, token: &str, list: &List) -> Result<Vec<Repository>, ProviderError> {
        let api = self.api(token);
        let concurrency = if list.walk == Walk::Fan { self.driver().about().concurrency } else { 1 };
        let mut pages = Pages::new(
            concurrency,
            |row: &Repository| row.provider_id.as_str(),
            |at: Option<Cursor>| {
                let (driver, api, list) = (self.driver(), api.clone(), list.clone());
                async move { driver.repositories(&api, &list, at.as_ref()).await }
            },
        );
        let mut rows = Vec::new();
        while let Some(page) = pages.next().await {
            rows.extend(page?.items.into_iter().filter(|row| list.keeps(row)));
        }
        Ok(rows)
    }

    /// All that the good token lists.
    async fn all(&self) -> Vec<Repository> {
        self.rows(tokens::GOOD, &list(Walk::Fan)).await.expect("rows")
    }

    async fn namespaces(&self, token: &str, page_size: usize) -> Vec<Namespace> {
        let (api, list) = (self.api(token), List { page_size, ..list(Walk::Chain) });
        let (mut all, mut at) = (Vec::new(), None);
        for _ in 0..100 {
            let page: Page<_> = self.driver().namespaces(&api, &list, at.as_ref()).await.expect("a page");
            all.extend(page.items);
            at = page.next.into_iter().next();
            if at.is_none() {
                return all;
            }
        }
        panic!("the pages never end");
    }

    async fn lookup(&self, what: Lookup) -> Result<Repository, ProviderError> {
        self.driver().lookup(&self.api(tokens::GOOD), &what).await
    }

    async fn by_name(&self, name: &str) -> Result<Repository, ProviderError> {
        self.lookup(Lookup::FullName(name.to_owned())).await
    }
}

fn list(walk: Walk) -> List {
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

fn check(inspection: &Inspection, check: Check) -> &CheckResult {
    inspection.checks.iter().find(|result| result.check == check).expect("the check was made")
}

fn outcome(inspection: &Inspection, of: Check) -> (Outcome, &str) {
    let result = check(inspection, of);
    (result.outcome, result.reason.as_str())
}

fn names(rows: &[Repository]) -> Vec<&str> {
    rows.iter().map(|row| row.full_name.as_str()).collect()
}

fn rejected(cause: RejectionCause, status: u16) -> ProviderError {
    ProviderError::CredentialRejected { cause, status }
}

// --- where the API is ---

#[tokio::test]
async fn ac_08_the_api_is_found_from_any_pasted_url() {
    // No token goes along while the path is looked for.
    let setup = Setup::new(DataCenterConfig { drops_token: true, ..DataCenterConfig::default() }).await;
    let right = format!("{}{API}", setup.forge.origin());
    for tail in [
        "",
        "/",
        "/projects/WEB/repos/acme-website/browse",
        "/scm/web/acme-website.git",
        "/users/casey/repos/repo-00009",
        "/rest/api/1.0",
        "/dashboard",
        "/unheard/of",
    ] {
        let text = format!("{}{tail}", setup.forge.bitbucket_data_center_url());
        let url = BaseUrl::parse(&text).expect("a URL");
        let endpoints = setup.driver().endpoints(Some(&url), &Scope::default()).expect("endpoints");
        assert!(endpoints.iter().all(|endpoint| endpoint.hosting == Hosting::SelfHosted));
        let mut answering = Vec::new();
        for endpoint in endpoints {
            let api = setup.api_at(endpoint.api_url.as_str(), tokens::UNKNOWN);
            if setup.driver().answers(&api).await.expect("an answer") == Presence::Here {
                answering.push(endpoint.api_url.to_string());
            }
        }
        assert_eq!(answering, std::slice::from_ref(&right), "{tail}");
    }
}

#[tokio::test]
async fn a_sign_on_in_front_leaves_open_where_the_api_is() {
    let setup = Setup::small().await;
    let properties = format!("{API}/application-properties");
    let answers = async || setup.driver().answers(&setup.api(tokens::GOOD)).await.expect("an answer");
    for (status, header) in [(302, ("location", "/sso/login")), (401, ("www-authenticate", "Negotiate"))] {
        setup.forge.respond_once("GET", &properties, status, &[header], "");
        assert_eq!(answers().await, Presence::Perhaps, "{status}");
    }
    setup.forge.respond_once("GET", &properties, 404, &[("content-type", "text/html")], "<html>");
    assert_eq!(answers().await, Presence::Elsewhere);
    assert_eq!(answers().await, Presence::Here);
}

// --- what a token is ---

#[tokio::test]
async fn a_good_token_passes_every_check() {
    let setup = Setup::small().await;
    for token in [tokens::GOOD, tokens::OLD_FORM] {
        let found = setup.inspect(token).await;
        assert_eq!(found.failure, None);
        let not_passed: Vec<_> = found.checks.iter().filter(|check| check.outcome != Outcome::Pass).collect();
        // The permissions of a token cannot be read.
        assert_eq!(not_passed.len(), 1, "{not_passed:?}");
        assert_eq!(outcome(&found, Check::Scopes), (Outcome::Skipped, ""));
        assert_eq!(found.checks.len(), 7);
        let account = found.account.expect("an account");
        assert_eq!((account.id.as_str(), account.login.as_str(), account.bot), ("104", "casey", false));
        assert_eq!(account.display_name, "Casey Example");
        assert!(found.granted_scopes.is_empty() && found.missing_scopes.is_empty());
        assert_eq!(CapabilityType::ALL.map(|which| found.capabilities.of(which)), [Capability::Yes; 3]);
        assert_eq!((found.expire_time, found.expire_time_source), (None, ExpireTimeSource::Unknown));
        assert_eq!(found.server_version, "9.4.1");
    }
}

#[tokio::test]
async fn ac_10_ac_16_a_refused_token_names_its_cause() {
    let setup = Setup::small().await;
    for (token, cause) in [
        (tokens::UNKNOWN, RejectionCause::Unknown),
        (tokens::EXPIRED, RejectionCause::Unknown),
        (tokens::REVOKED, RejectionCause::Unknown),
        // A browser login lifts the captcha.
        (tokens::CAPTCHA, RejectionCause::Blocked),
    ] {
        let found = setup.inspect(token).await;
        assert_eq!(found.failure, Some(rejected(cause, 401)));
        assert_eq!(outcome(&found, Check::ProviderMatch).0, Outcome::Pass);
        let result = check(&found, Check::Authentication);
        assert_eq!((result.outcome, result.reason.as_str()), (Outcome::Fail, "CREDENTIAL_REJECTED"));
        assert_eq!(result.http_status, Some(401));
        assert!(!result.remedy.is_empty() && found.account.is_none());
        assert_eq!(outcome(&found, Check::Webhooks).0, Outcome::Skipped);
    }
}

#[tokio::test]
async fn ac_18_a_200_to_a_stranger_is_no_accepted_token() {
    // A proxy or a single sign-on drops the header: version and public repositories come to anybody.
    let setup = Setup::new(DataCenterConfig { drops_token: true, ..DataCenterConfig::default() }).await;
    let found = setup.inspect(tokens::GOOD).await;
    assert_eq!(found.failure, Some(rejected(RejectionCause::Unknown, 200)));
    let result = check(&found, Check::Authentication);
    assert_eq!((result.outcome, result.reason.as_str()), (Outcome::Fail, "CREDENTIAL_REJECTED"));
    assert!(result.remedy.contains("single sign-on"));
    assert_eq!(found.server_version, "9.4.1");
    // Nor are the rows of a stranger those of the token.
    let stranger = Err(rejected(RejectionCause::Unknown, 200));
    for walk in [Walk::Chain, Walk::Fan] {
        assert_eq!(setup.rows(tokens::GOOD, &list(walk)).await, stranger.clone());
    }
    assert_eq!(setup.by_name("PUB/repo-00007").await.map(drop), stranger.clone().map(drop));
    let api = setup.api(tokens::GOOD);
    assert_eq!(setup.driver().repository(&api, FIRST).await.map(drop), stranger.clone().map(drop));
    let spaces = setup.driver().namespaces(&api, &list(Walk::Chain), None).await;
    assert_eq!(spaces.map(drop), stranger.map(drop));
}

#[tokio::test]
async fn ac_18_h48_a_bare_success_is_no_identity() {
    let setup = Setup::small().await;
    setup.forge.set_fault(Fault::FakeSuccess);
    let found = setup.inspect(tokens::GOOD).await;
    assert!(matches!(found.failure, Some(ProviderError::Failed { .. })), "{:?}", found.failure);
    setup.forge.clear_faults();
    let version = r#"{"version":"9.4.1","buildNumber":"9004001","displayName":"Bitbucket"}"#;
    for user in [None, Some("anonymous"), Some(""), Some("%00")] {
        // All three calls answer a stranger.
        let headers: Vec<(&str, &str)> =
            [JSON].into_iter().chain(user.map(|user| ("x-ausername", user))).collect();
        setup.forge.respond_once("GET", &format!("{API}/application-properties"), 200, &headers, version);
        for _ in 0..2 {
            let empty = r#"{"values":[],"isLastPage":true}"#;
            setup.forge.respond_once("GET", &format!("{API}/repos"), 200, &headers, empty);
        }
        let found = setup.inspect(tokens::GOOD).await;
        assert_eq!(found.failure, Some(rejected(RejectionCause::Unknown, 200)), "{user:?}");
        assert_eq!(found.account, None);
        setup.forge.assert_no_leftovers();
    }
}

#[tokio::test]
async fn ac_15_ac_19_a_weak_token_works_for_what_it_may_do() {
    let setup = Setup::small().await;
    for token in [tokens::READ_ONLY, tokens::WRITE, tokens::SECOND] {
        let found = setup.inspect(token).await;
        assert_eq!(found.failure, None);
        assert_eq!(found.missing_scopes, ["REPO_ADMIN"]);
        assert_eq!(outcome(&found, Check::Scopes), (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"));
        assert!(check(&found, Check::Scopes).message.contains("MANAGE_WEBHOOKS needs REPO_ADMIN"));
        assert_eq!(outcome(&found, Check::ListRepositories).0, Outcome::Pass);
        assert_eq!(outcome(&found, Check::Webhooks), (Outcome::Warn, "WEBHOOK_PERMISSION_MISSING"));
        assert_eq!(
            CapabilityType::ALL.map(|which| found.capabilities.of(which)),
            [Capability::Yes, Capability::Yes, Capability::No]
        );
    }
    let api = setup.api(tokens::READ_ONLY);
    let enough = setup.driver().inspect(&api, &[CapabilityType::ReadCode]).await;
    assert!(enough.failure.is_none() && enough.missing_scopes.is_empty());
    assert!(enough.checks.iter().all(|check| !matches!(check.outcome, Outcome::Fail | Outcome::Warn)));
    let useless = setup.driver().inspect(&api, &[CapabilityType::ManageWebhooks]).await;
    assert!(matches!(useless.failure, Some(ProviderError::ScopeMissing { .. })), "{:?}", useless.failure);
}

#[tokio::test]
async fn ac_19_a_401_for_a_right_is_told_from_one_for_the_token() {
    let setup = Setup::small().await;
    let denied = r#"{"errors":[{"context":null,"message":"You are not permitted to access this resource","exceptionName":"com.atlassian.bitbucket.AuthorisationException"}]}"#;
    let rows = async || setup.rows(tokens::GOOD, &list(Walk::Chain)).await;
    setup.forge.respond_once("GET", &format!("{API}/repos"), 401, &[JSON, USER], denied);
    assert_eq!(rows().await, Err(ProviderError::Forbidden));
    assert_eq!(setup.forge.requests().len(), 1);
    // Without a user one more call decides.
    setup.forge.respond_once("GET", &format!("{API}/repos"), 401, &[JSON], denied);
    assert_eq!(rows().await, Err(ProviderError::Forbidden));
    setup.forge.respond_once("GET", &format!("{API}/repos"), 401, &[JSON], denied);
    let version = r#"{"version":"9.4.1","buildNumber":"9004001"}"#;
    setup.forge.respond_once("GET", &format!("{API}/application-properties"), 200, &[JSON], version);
    assert_eq!(rows().await, Err(rejected(RejectionCause::Unknown, 200)));
    setup.forge.assert_no_leftovers();
}

#[tokio::test]
async fn ac_19_a_check_reads_a_401_as_the_listing_does() {
    let setup = Setup::small().await;
    let denied = r#"{"errors":[{"exceptionName":"com.atlassian.bitbucket.AuthorisationException"}]}"#;
    for _ in 0..2 {
        setup.forge.respond_once("GET", &format!("{API}/repos"), 401, &[JSON], denied);
    }
    let found = setup.inspect(tokens::GOOD).await;
    assert!(matches!(found.failure, Some(ProviderError::ScopeMissing { .. })), "{:?}", found.failure);
    assert_eq!(found.capabilities.list_repositories, Capability::No);
    assert_eq!(found.account.expect("an account").login, "casey");
    // Something that drops the token on the way to the listings alone leaves nothing to list.
    for _ in 0..2 {
        let empty = r#"{"values":[],"isLastPage":true}"#;
        setup.forge.respond_once("GET", &format!("{API}/repos"), 200, &[JSON], empty);
    }
    let found = setup.inspect(tokens::GOOD).await;
    assert_eq!(found.failure, Some(rejected(RejectionCause::Unknown, 200)));
    assert_eq!(found.capabilities.list_repositories, Capability::Unknown);
    setup.forge.assert_no_leftovers();
}

#[tokio::test]
async fn every_kind_of_token_tells_its_user() {
    let setup = Setup::small().await;
    for (token, id, login, shown, bot) in [
        (tokens::SECOND, "105", "robin", "Robin Example", false),
        // The path takes the slug, in which `@` and letters beyond ASCII may be replaced.
        (tokens::MAIL_NAME, "106", "jürgen@corp.example", "Jürgen Example", false),
        (tokens::PROJECT, "201", "access-token-user/1/26", "Project token", true),
        // This token may ask for no user.
        (tokens::REPOSITORY, "202", "access-token-user/2/102", "", true),
    ] {
        let found = setup.inspect(token).await;
        assert_eq!(found.failure, None, "{login}");
        assert_eq!(outcome(&found, Check::Identity), (Outcome::Pass, ""));
        let account = found.account.expect("an account");
        assert_eq!((account.id.as_str(), account.login.as_str()), (id, login));
        assert_eq!((account.display_name.as_str(), account.bot), (shown, bot), "{login}");
    }
}

#[tokio::test]
async fn a_user_whose_slug_is_another_one_is_searched_by_name() {
    let setup = Setup::small().await;
    let slug = format!("{API}/users/j%C3%BCrgen_corp.example");
    let other = r#"{"id":9,"name":"somebody.else","slug":"x","type":"NORMAL"}"#;
    for (status, body) in [(404, r#"{"errors":[{"exceptionName":"x"}]}"#), (200, other)] {
        let user = ("x-ausername", "j%C3%BCrgen%40corp.example");
        setup.forge.respond_once("GET", &slug, status, &[JSON, user], body);
        let found = setup.inspect(tokens::MAIL_NAME).await;
        setup.forge.assert_no_leftovers();
        assert_eq!(found.account.expect("an account").display_name, "Jürgen Example");
    }
    assert_eq!(setup.forge.requests_to(&format!("{API}/users?filter=")).len(), 2);
}

#[tokio::test]
async fn ac_11_an_old_server_is_refused_with_both_versions() {
    for version in ["7.21.5", "4.6.0"] {
        let old = DataCenterConfig { version: version.to_owned(), ..DataCenterConfig::default() };
        let found = Setup::new(old).await.inspect(tokens::GOOD).await;
        let error = ProviderError::VersionUnsupported { found: version.to_owned(), minimum: "8.0" };
        assert_eq!(found.failure, Some(error));
        assert_eq!(outcome(&found, Check::ServerVersion), (Outcome::Fail, "PROVIDER_VERSION_UNSUPPORTED"));
    }
    for version in ["8.0.0", "10.1.2"] {
        let new = DataCenterConfig { version: version.to_owned(), ..DataCenterConfig::default() };
        assert_eq!(Setup::new(new).await.inspect(tokens::GOOD).await.failure, None, "{version}");
    }
}

#[tokio::test]
async fn ac_14_links_that_name_localhost_are_told() {
    for (external, reason) in [
        ("http://localhost:7990", "PROVIDER_LINKS_LOCALHOST"),
        ("https://other.example/bitbucket", "PROVIDER_LINKS_FOREIGN_HOST"),
    ] {
        let config =
            DataCenterConfig { external_url: Some(external.to_owned()), ..DataCenterConfig::default() };
        let found = Setup::new(config).await.inspect(tokens::GOOD).await;
        assert_eq!(found.failure, None);
        assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Warn, reason));
        assert!(check(&found, Check::ListRepositories).remedy.contains("base URL"));
    }
}

#[tokio::test]
async fn an_account_without_repositories_leaves_open_what_it_may() {
    let setup = Setup::new(DataCenterConfig { repositories: 0, ..DataCenterConfig::default() }).await;
    let found = setup.inspect(tokens::GOOD).await;
    assert_eq!(found.failure, None);
    assert_eq!(
        CapabilityType::ALL.map(|which| found.capabilities.of(which)),
        [Capability::Yes, Capability::Unknown, Capability::Unknown]
    );
    assert_eq!(outcome(&found, Check::Webhooks).0, Outcome::Skipped);
    // Strangers' public repositories are there, and are not listed.
    assert_eq!(setup.all().await, []);
}

#[tokio::test]
async fn basic_switched_off_is_no_hindrance() {
    let setup = Setup::small().await;
    // The token as a password is refused, as version 10 does; the driver never sends it so.
    assert_eq!(setup.inspect(tokens::GOOD).await.failure, None);
    for seen in setup.forge.requests() {
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", tokens::GOOD).as_str()));
    }
}

#[tokio::test]
async fn a_spent_quota_is_no_dead_token() {
    let setup = Setup::small().await;
    // The pause of a bucket that never fills again.
    setup.forge.set_fault(Fault::RateLimited(Some("9223372036854775807".to_owned())));
    let found = setup.inspect(tokens::GOOD).await;
    let hour = Duration::from_secs(3_600);
    assert!(
        matches!(found.failure, Some(ProviderError::RateLimited { after }) if after <= hour),
        "{:?}",
        found.failure
    );
    assert_eq!(outcome(&found, Check::ProviderMatch), (Outcome::Fail, "PROVIDER_RATE_LIMITED"));
}

#[tokio::test]
async fn another_product_is_no_bitbucket() {
    let setup = Setup::small().await;
    for (status, content, body, is_mismatch) in [
        // Jira has such a call, too, and says other things of itself.
        (200, "application/json", r#"[{"id":"jira.title","value":"Jira"}]"#, false),
        (401, "application/json", r#"{"errorMessages":["You are not authenticated."]}"#, true),
        (404, "text/html", "<html>", true),
        (200, "text/html", "<html>", true),
    ] {
        let headers = [("content-type", content)];
        for path in ["application-properties", "repos", "repos"] {
            setup.forge.respond_once("GET", &format!("{API}/{path}"), status, &headers, body.to_owned());
        }
        let found = setup.inspect(tokens::GOOD).await;
        setup.forge.assert_no_leftovers();
        assert_eq!(outcome(&found, Check::ProviderMatch).0, Outcome::Fail);
        let mismatch = matches!(found.failure, Some(ProviderError::Mismatch { .. }));
        assert_eq!(mismatch, is_mismatch, "{body}: {:?}", found.failure);
    }
    // A sign-in page is no proof of anything; nor is it followed to another host.
    for (to, is_mismatch) in [("/login", true), ("https://sso.example/", false)] {
        let redirect = [("location", to)];
        setup.forge.respond_once("GET", &format!("{API}/application-properties"), 302, &redirect, "");
        for _ in 0..2 {
            setup.forge.respond_once("GET", &format!("{API}/repos"), 302, &redirect, "");
        }
        let found = setup.inspect(tokens::GOOD).await;
        let mismatch = matches!(found.failure, Some(ProviderError::Mismatch { .. }));
        assert_eq!(mismatch, is_mismatch, "{to}: {:?}", found.failure);
    }
}

// --- what is sent ---

#[tokio::test]
async fn every_request_is_one_that_the_server_describes() {
    let setup =
        Setup::new(DataCenterConfig { repositories: 120, page_cap: 50, ..DataCenterConfig::default() }).await;
    let all = List {
        query: "repo".to_owned(),
        namespace: "WEB".to_owned(),
        include_archived: false,
        min_permission: Permission::Read,
        ..list(Walk::Fan)
    };
    setup.rows(tokens::GOOD, &all).await.expect("rows");
    setup.rows(tokens::GOOD, &List { walk: Walk::Chain, ..all }).await.expect("rows");
    for token in [tokens::GOOD, tokens::MAIL_NAME, tokens::REPOSITORY] {
        setup.inspect(token).await;
    }
    setup.namespaces(tokens::GOOD, 3).await;
    let api = setup.api(tokens::GOOD);
    setup.driver().answers(&api).await.expect("an answer");
    for name in ["WEB/acme-website", "WEB/nothing", "WEB/old-website", "~casey/old-notes"] {
        let _ = setup.by_name(name).await;
    }
    setup.driver().repository(&api, FIRST).await.expect("a row");
    for kind in [RefKind::Branch, RefKind::Tag] {
        let list = RefList { kind, query: "1.0".to_owned(), page_size: 4 };
        let page = setup.driver().refs(&api, FIRST, &list, None).await.expect("a page");
        if let Some(at) = page.next.first() {
            setup.driver().refs(&api, FIRST, &list, Some(at)).await.expect("a page");
        }
    }
    let website = setup.by_name("WEB/acme-website").await.expect("a row");
    setup.driver().known_repository(&api, FIRST, "WEB/acme-website").await.expect("a row");
    let wanted = WantedWebhook {
        target_url: "https://hooks.example.test/in".to_owned(),
        events: WebhookEvent::CHOSEN.into(),
        server_version: String::new(),
    };
    let secret = Secret::new("5ec7e7".repeat(10));
    let hook = setup.driver().create_webhook(&api, &website, &wanted, &secret).await.expect("made");
    setup.driver().webhooks(&api, &website, &wanted).await.expect("hooks");
    setup.driver().update_webhook(&api, &website, &hook, &wanted, &secret).await.expect("updated");
    setup.driver().delete_webhook(&api, &website, &hook.id).await.expect("removed");
    let description = Description::read(include_str!(
        "../fixtures/providers/bitbucket-data-center/openapi/bitbucket-dc-9.4.trimmed.json"
    ));
    let requests = setup.forge.requests();
    assert!(requests.len() > 40);
    let problems: BTreeSet<String> = requests
        .iter()
        // The other path of a personal repository is in no description, but in the report of the defect.
        .filter(|seen| !seen.path.starts_with(&format!("{API}/users/casey/repos/")))
        .flat_map(|seen| {
            let path = seen.path.strip_prefix("/bitbucket/rest").unwrap_or(&seen.path);
            // Webhooks are paged as everything is, which their own entry leaves out.
            let also: &[&str] = if path.ends_with("/webhooks") { &["start", "limit"] } else { &[] };
            description.problems(seen, path, also)
        })
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test]
async fn the_token_stands_in_one_header_and_nowhere_else() {
    let setup = Setup::small().await;
    setup.inspect(tokens::GOOD).await;
    setup.all().await;
    for seen in setup.forge.requests() {
        let carries =
            |(name, value): &&(String, String)| value.contains(tokens::GOOD) && name != "authorization";
        assert!(seen.headers.iter().find(carries).is_none());
        assert!(!seen.target().contains(tokens::GOOD) && seen.body.is_empty());
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", tokens::GOOD).as_str()));
    }
}

#[tokio::test]
async fn h07_a_redirect_to_another_origin_sees_no_token() {
    let setup = Setup::small().await;
    let other = Forge::small().await.expect("a forge");
    let fault = Fault::RedirectOtherOrigin { status: 307, origin: other.origin().to_owned() };
    setup.forge.set_fault(fault);
    let outcome = setup.rows(tokens::GOOD, &list(Walk::Chain)).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
    assert!(setup.by_name("WEB/acme-website").await.is_err());
    assert!(setup.inspect(tokens::GOOD).await.failure.is_some());
    let seen: Vec<Seen> = other.requests();
    assert!(seen.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn h42_h43_nothing_of_a_body_gets_into_an_error() {
    for fault in [Fault::TokenEcho, Fault::Error5Mb] {
        let setup = Setup::small().await;
        setup.forge.set_fault(fault);
        let found = setup.inspect(tokens::GOOD).await;
        let text = format!("{found:?}");
        assert!(!text.contains(tokens::GOOD) && !text.contains("a very long error"));
        assert!(matches!(found.failure, Some(ProviderError::Failed { status: Some(500), .. })));
    }
}
