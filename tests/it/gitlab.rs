//! The GitLab driver against the fake GitLab.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use gitmoor::domain::base_url::BaseUrl;
use gitmoor::domain::connection::{Hosting, Scope};
use gitmoor::domain::credential::{
    Capability, CapabilityType, Credential, CredentialForm, ExpireTimeSource, Secret,
};
use gitmoor::domain::page::{Cursor, Page};
use gitmoor::domain::refs::RefKind;
use gitmoor::domain::repository::{NamespaceKind, Permission, Repository};
use gitmoor::domain::verification::{Check, CheckResult, Outcome};
use gitmoor::outbound::{AllowRule, Outbound, OutboundConfig, Target};
use gitmoor::provider::api::Api;
use gitmoor::provider::gitlab::Gitlab;
use gitmoor::provider::session::Pages;
use gitmoor::provider::{
    Inspection, List, Lookup, Presence, Provider, ProviderError, RefList, RejectionCause, Walk,
};
use http::HeaderMap;
use tokio::time::Instant;
use url::Url;

use super::support::forge::{
    Fault, Forge, ForgeConfig, GitlabConfig, Seen, WrongId, gitlab_tokens as tokens,
};
use super::support::openapi::Description;

mod webhooks;

/// What the documentation has and the official description lacks.
const DOCUMENTED: &[&str] = &["pagination"];

/// A forge, and the driver's way to it.
struct Setup {
    forge: Forge,
    outbound: Outbound,
}

impl Setup {
    async fn new(gitlab: GitlabConfig) -> Self {
        Self::of(ForgeConfig { gitlab, ..ForgeConfig::default() }).await
    }

    async fn of(config: ForgeConfig) -> Self {
        let forge = Forge::start(config).await.expect("a forge");
        let rule = AllowRule::parse(forge.origin()).expect("a rule");
        let outbound = Outbound::new(OutboundConfig { allow: vec![rule], ..OutboundConfig::default() });
        Self { forge, outbound: outbound.expect("a way out") }
    }

    async fn small() -> Self {
        Self::new(GitlabConfig::default()).await
    }

    fn driver(&self) -> &'static dyn Provider {
        &Gitlab
    }

    fn api(&self, token: &str) -> Api {
        self.api_at(&format!("{}/api/v4", self.forge.gitlab_url()), token)
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
    async fn rows(&self, list: &List) -> Result<Vec<Repository>, ProviderError> {
        let api = self.api(tokens::GOOD);
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

    async fn lookup(&self, what: Lookup) -> Result<Repository, ProviderError> {
        self.driver().lookup(&self.api(tokens::GOOD), &what).await
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

fn ids(rows: &[Repository]) -> Vec<&str> {
    rows.iter().map(|row| row.provider_id.as_str()).collect()
}

// --- where the API is ---

#[tokio::test]
async fn ac_08_the_api_is_found_from_any_pasted_url() {
    let setup = Setup::small().await;
    let right = format!("{}/gitlab/api/v4", setup.forge.origin());
    for tail in
        ["/gitlab", "/gitlab/", "/gitlab/acme/website", "/gitlab/acme/website/-/branches", "/gitlab/api/v4/"]
    {
        let text = format!("{}{tail}", setup.forge.origin());
        let url = BaseUrl::parse(&text).expect("a URL");
        let endpoints = setup.driver().endpoints(Some(&url), &Scope::default()).expect("endpoints");
        assert!(endpoints.iter().all(|endpoint| endpoint.hosting == Hosting::SelfHosted));
        let mut answering = Vec::new();
        for endpoint in endpoints {
            let api = setup.api_at(endpoint.api_url.as_str(), tokens::NARROW);
            if setup.driver().answers(&api).await.expect("an answer") == Presence::Here {
                answering.push(endpoint.api_url.to_string());
            }
        }
        assert_eq!(answering, std::slice::from_ref(&right), "{tail}");
    }
}

// --- what a token is ---

#[tokio::test]
async fn a_good_token_passes_every_check() {
    let setup = Setup::small().await;
    let found = setup.inspect(tokens::GOOD).await;
    assert_eq!(found.failure, None);
    let not_passed: Vec<_> = found.checks.iter().filter(|check| check.outcome != Outcome::Pass).collect();
    assert!(not_passed.is_empty(), "{not_passed:?}");
    assert_eq!(found.checks.len(), 7);
    let account = found.account.expect("an account");
    assert_eq!((account.login.as_str(), account.bot), ("casey", false));
    assert_eq!(found.granted_scopes, ["api"]);
    assert!(found.missing_scopes.is_empty());
    assert_eq!(CapabilityType::ALL.map(|which| found.capabilities.of(which)), [Capability::Yes; 3]);
    assert_eq!(found.expire_time_source, ExpireTimeSource::Provider);
    assert_eq!(found.expire_time.expect("an end").unix_seconds() % 86_400, 0);
    assert_eq!(found.server_version, "18.1.0-ee");
    assert!(found.server_time.is_some());
}

#[tokio::test]
async fn ac_10_ac_16_a_refused_token_names_its_cause() {
    let setup = Setup::small().await;
    for (token, cause, status, reason) in [
        (tokens::UNKNOWN, RejectionCause::Unknown, 401, "CREDENTIAL_REJECTED"),
        (tokens::EXPIRED, RejectionCause::Expired, 401, "CREDENTIAL_EXPIRED"),
        (tokens::REVOKED, RejectionCause::Revoked, 401, "CREDENTIAL_REJECTED"),
        (tokens::BLOCKED, RejectionCause::Blocked, 403, "CREDENTIAL_REJECTED"),
    ] {
        let found = setup.inspect(token).await;
        assert_eq!(found.failure, Some(ProviderError::CredentialRejected { cause, status }));
        assert_eq!(outcome(&found, Check::ProviderMatch).0, Outcome::Pass);
        let result = check(&found, Check::Authentication);
        assert_eq!((result.outcome, result.reason.as_str()), (Outcome::Fail, reason));
        assert_eq!(result.http_status, Some(status));
        assert!(!result.remedy.is_empty());
        assert_eq!(outcome(&found, Check::Webhooks).0, Outcome::Skipped);
        assert!(found.account.is_none());
    }
}

#[tokio::test]
async fn ac_15_ac_19_a_weak_token_works_for_what_it_may_do() {
    let setup = Setup::small().await;
    let found = setup.inspect(tokens::READ_ONLY).await;
    assert_eq!(found.failure, None);
    assert_eq!(found.missing_scopes, ["api"]);
    assert_eq!(outcome(&found, Check::Scopes), (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"));
    assert!(check(&found, Check::Scopes).message.contains("MANAGE_WEBHOOKS needs api"));
    assert_eq!(outcome(&found, Check::ListRepositories).0, Outcome::Pass);
    assert_eq!(outcome(&found, Check::Webhooks), (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"));
    assert_eq!(found.capabilities.manage_webhooks, Capability::No);
    // Nobody asks for hooks that the scopes rule out.
    assert!(setup.forge.requests().iter().all(|seen| !seen.path.contains("/hooks")));
}

#[tokio::test]
async fn ac_18_a_narrow_token_is_accepted_by_what_it_is_refused() {
    let setup = Setup::small().await;
    let found = setup.inspect(tokens::NARROW).await;
    assert_eq!(found.failure, None);
    assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Pass);
    assert_eq!(outcome(&found, Check::ServerVersion).0, Outcome::Skipped);
    assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Fail, "CREDENTIAL_SCOPE_MISSING"));
    // The token's own answer names the user by number.
    let account = found.account.expect("an account");
    assert_eq!((account.id.as_str(), account.login.as_str()), ("57658", ""));
    assert_eq!(
        CapabilityType::ALL.map(|which| found.capabilities.of(which)),
        [Capability::No, Capability::Yes, Capability::No]
    );
    assert_eq!(found.missing_scopes, ["read_api", "api"]);

    let useless = setup.inspect(tokens::USER_ONLY).await;
    assert!(matches!(useless.failure, Some(ProviderError::ScopeMissing { .. })));
    assert_eq!(outcome(&useless, Check::Scopes).0, Outcome::Fail);
    assert!(useless.account.is_some());

    let wanted = [CapabilityType::ReadCode];
    let enough = setup.driver().inspect(&setup.api(tokens::NARROW), &wanted).await;
    assert!(enough.failure.is_none() && enough.missing_scopes.is_empty());
    assert!(enough.checks.iter().all(|check| !matches!(check.outcome, Outcome::Fail | Outcome::Warn)));
}

#[tokio::test]
async fn ac_18_a_fine_grained_token_is_good_although_it_tells_nothing() {
    let setup = Setup::small().await;
    let found = setup.inspect(tokens::GRANULAR).await;
    assert_eq!(found.failure, None);
    assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Pass);
    assert_eq!(outcome(&found, Check::Identity).0, Outcome::Skipped);
    assert_eq!(outcome(&found, Check::Scopes).0, Outcome::Skipped);
    assert_eq!(found.account, None);
    assert_eq!(
        CapabilityType::ALL.map(|which| found.capabilities.of(which)),
        [Capability::Yes, Capability::Unknown, Capability::Unknown]
    );
}

#[tokio::test]
async fn every_kind_of_token_tells_its_user_and_its_end() {
    let setup = Setup::small().await;
    for (token, bot, ends) in [
        (tokens::PROJECT, true, true),
        (tokens::GROUP, true, true),
        (tokens::ENDLESS, true, false),
        (tokens::EXPIRING, false, true),
        (tokens::OAUTH, false, true),
    ] {
        let found = setup.inspect(token).await;
        assert_eq!(found.failure, None, "{token}");
        let account = found.account.expect("an account");
        assert_eq!(account.bot, bot, "{token}");
        assert_eq!(found.expire_time.is_some(), ends, "{token}");
        let source = if ends { ExpireTimeSource::Provider } else { ExpireTimeSource::Unknown };
        assert_eq!(found.expire_time_source, source, "{token}");
    }
    // An OAuth token is asked beside the API, with the same relative root.
    assert_eq!(setup.forge.requests_to("/gitlab/oauth/token/info").len(), 1);
}

#[tokio::test]
async fn ac_11_an_old_server_is_refused_with_both_versions() {
    let old = GitlabConfig { version: "15.4.6-ee".to_owned(), ..GitlabConfig::default() };
    let found = Setup::new(old).await.inspect(tokens::GOOD).await;
    assert_eq!(
        found.failure,
        Some(ProviderError::VersionUnsupported { found: "15.4.6-ee".to_owned(), minimum: "15.5" })
    );
    assert_eq!(outcome(&found, Check::ServerVersion), (Outcome::Fail, "PROVIDER_VERSION_UNSUPPORTED"));
    // Before 15.2 there is no /metadata.
    let older = GitlabConfig { version: "14.10.5".to_owned(), ..GitlabConfig::default() };
    let found = Setup::new(older).await.inspect(tokens::GOOD).await;
    assert_eq!(found.server_version, "14.10.5");
    assert!(matches!(found.failure, Some(ProviderError::VersionUnsupported { .. })));
}

#[tokio::test]
async fn ac_14_links_that_name_localhost_are_told() {
    for (external, reason) in [
        ("http://localhost", "PROVIDER_LINKS_LOCALHOST"),
        ("https://other.example", "PROVIDER_LINKS_FOREIGN_HOST"),
    ] {
        let config = GitlabConfig { external_url: Some(external.to_owned()), ..GitlabConfig::default() };
        let found = Setup::new(config).await.inspect(tokens::GOOD).await;
        assert_eq!(found.failure, None);
        assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Warn, reason));
        assert!(check(&found, Check::ListRepositories).remedy.contains("external_url"));
        // A user without any project is told too.
        let config = GitlabConfig {
            external_url: Some(external.to_owned()),
            repositories: 0,
            ..GitlabConfig::default()
        };
        let found = Setup::new(config).await.inspect(tokens::GOOD).await;
        assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Warn, reason));
    }
}

#[tokio::test]
async fn a_spent_quota_is_no_dead_token() {
    let setup = Setup::small().await;
    setup.forge.set_fault(Fault::RateLimitedText("3600".to_owned()));
    let found = setup.inspect(tokens::GOOD).await;
    assert!(matches!(found.failure, Some(ProviderError::RateLimited { .. })), "{:?}", found.failure);
    assert_eq!(outcome(&found, Check::ProviderMatch), (Outcome::Fail, "PROVIDER_RATE_LIMITED"));
}

#[tokio::test]
async fn ac_18_a_refused_identity_call_outweighs_everything_else() {
    let setup = Setup::small().await;
    // The list of projects answers anybody; the rest does not.
    setup.forge.fault_on("/gitlab/api/v4/personal_access_tokens/self", Fault::NotFoundHtml, 1);
    setup.forge.fault_on("/gitlab/api/v4/user", Fault::HtmlOk, 1);
    let found = setup.inspect(tokens::GOOD).await;
    assert!(found.failure.is_some() && found.account.is_none());
    // Where the token cannot be asked about, its named user is proof enough.
    setup.forge.fault_on("/gitlab/api/v4/personal_access_tokens/self", Fault::NotFoundHtml, 1);
    let found = setup.inspect(tokens::GOOD).await;
    assert_eq!(found.failure, None);
    assert_eq!(outcome(&found, Check::Scopes).0, Outcome::Skipped);
    assert_eq!(found.capabilities.list_repositories, Capability::Yes);
}

#[tokio::test]
async fn ac_18_h48_a_bare_success_is_no_identity() {
    let setup = Setup::small().await;
    setup.forge.set_fault(Fault::FakeSuccess);
    let found = setup.inspect(tokens::GOOD).await;
    assert!(matches!(found.failure, Some(ProviderError::Failed { .. })), "{:?}", found.failure);
    setup.forge.clear_faults();
    for (body, rejected) in [("null", true), ("{\"id\":null}", true), ("{\"name\":\"x\"}", false)] {
        setup.forge.respond_once(
            "GET",
            "/gitlab/api/v4/user",
            200,
            &[("content-type", "application/json")],
            body.to_owned(),
        );
        let found = setup.inspect(tokens::GOOD).await;
        let is_rejected = matches!(found.failure, Some(ProviderError::CredentialRejected { .. }));
        assert_eq!(is_rejected, rejected, "{body}: {:?}", found.failure);
        assert!(found.failure.is_some() && found.account.is_none());
    }
    setup.forge.assert_no_leftovers();
}

#[tokio::test]
async fn what_is_no_gitlab_is_a_mismatch() {
    for fault in [Fault::HtmlOk, Fault::HtmlSignIn, Fault::NotFoundHtml] {
        let setup = Setup::small().await;
        setup.forge.set_fault(fault.clone());
        let found = setup.inspect(tokens::GOOD).await;
        assert!(
            matches!(found.failure, Some(ProviderError::Mismatch { .. })),
            "{fault:?}: {:?}",
            found.failure
        );
        assert_eq!(outcome(&found, Check::ProviderMatch), (Outcome::Fail, "PROVIDER_MISMATCH"));
        assert_eq!(found.checks.len(), 7);
    }
    // The fake Azure DevOps answers in JSON, but not in GitLab's.
    let setup = Setup::small().await;
    let api = setup.api_at(&format!("{}/api/v4", setup.forge.azure_url()), tokens::GOOD);
    let found = setup.driver().inspect(&api, &CapabilityType::ALL).await;
    assert_eq!(outcome(&found, Check::ProviderMatch).0, Outcome::Fail);
    assert!(found.failure.is_some());
}

#[tokio::test]
async fn a_failing_listing_leaves_the_connection_without_use() {
    let setup = Setup::small().await;
    setup.forge.fault_on("/gitlab/api/v4/projects", Fault::GarbageJson, usize::MAX);
    let found = setup.inspect(tokens::GOOD).await;
    assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Pass);
    assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Fail, "PROVIDER_ERROR"));
    assert!(matches!(found.failure, Some(ProviderError::Failed { .. })));
}

#[tokio::test]
async fn webhooks_need_a_role_and_the_exact_question_decides() {
    let setup = Setup::small().await;
    // The second user is Reporter everywhere.
    let found = setup.inspect(tokens::SECOND).await;
    assert_eq!(found.failure, None);
    assert_eq!(found.capabilities.manage_webhooks, Capability::No);
    assert_eq!(outcome(&found, Check::Webhooks), (Outcome::Warn, "WEBHOOK_PERMISSION_MISSING"));
    assert_eq!(setup.forge.requests().iter().filter(|seen| seen.path.ends_with("/hooks")).count(), 1);
}

#[tokio::test]
async fn h21_h42_an_account_is_taken_over_clean() {
    let setup = Setup::small().await;
    setup.forge.edit_gitlab_token(tokens::GOOD, |token| {
        token.name = format!("\u{1b}[31mred\u{202e} {}", "x".repeat(1_000_000));
        token.email = tokens::GOOD.to_owned();
    });
    let account = setup.inspect(tokens::GOOD).await.account.expect("an account");
    assert!(account.display_name.starts_with("[31mred xxx"));
    assert!(account.display_name.chars().count() <= 256);
    assert_eq!(account.email, "");
}

// --- listing ---

#[tokio::test]
async fn ac_60_both_walks_list_what_the_user_is_member_of() {
    let setup = Setup::small().await;
    let chain = setup.rows(&list(Walk::Chain)).await.expect("rows");
    assert_eq!(chain.len(), 25);
    assert_eq!(setup.rows(&list(Walk::Fan)).await.expect("rows"), chain);
    let listings = setup.forge.requests_to("/gitlab/api/v4/projects?");
    assert!(listings.iter().all(|seen| seen.param("membership").as_deref() == Some("true")));
    assert!(chain.iter().all(|row| !row.foreign_clone_host));

    let api = setup.api(tokens::PROJECT);
    let page = setup.driver().repositories(&api, &list(Walk::Fan), None).await.expect("a page");
    assert_eq!((page.items.len(), page.total, page.next.len()), (1, Some(1), 0));
}

#[tokio::test]
async fn ac_61_counted_pages_are_fetched_side_by_side() {
    let setup = Setup::new(GitlabConfig { repositories: 1_050, ..GitlabConfig::default() }).await;
    let api = setup.api(tokens::GOOD);
    let first = setup.driver().repositories(&api, &list(Walk::Fan), None).await.expect("a page");
    assert_eq!((first.items.len(), first.total), (100, Some(1_050)));
    assert_eq!(first.next.len(), 10);
    let rows = setup.rows(&list(Walk::Fan)).await.expect("rows");
    assert_eq!(rows.len(), 1_050);
    assert_eq!(ids(&rows).into_iter().collect::<BTreeSet<_>>().len(), 1_050);
    assert_eq!(rows, setup.rows(&list(Walk::Chain)).await.expect("rows"));
}

#[tokio::test]
async fn ac_61_what_gitlab_does_not_count_is_split_by_ids() {
    let config = GitlabConfig {
        repositories: 3_000,
        total_limit: 400,
        offset_limit: Some(50_000),
        ..GitlabConfig::default()
    };
    let setup = Setup::new(config).await;
    let rows = setup.rows(&list(Walk::Fan)).await.expect("rows");
    assert_eq!(rows.len(), 3_000);
    assert!(rows.is_sorted_by_key(|row| row.provider_id.parse::<u64>().expect("a number")));
    let calls = setup.forge.requests_to("/gitlab/api/v4/projects?").len();
    assert!(calls <= 90, "{calls} calls for 30 pages");

    // Without any totals at all, as behind a proxy that strips them.
    let setup =
        Setup::new(GitlabConfig { repositories: 2_000, total_limit: 0, ..GitlabConfig::default() }).await;
    assert_eq!(setup.rows(&list(Walk::Fan)).await.expect("rows").len(), 2_000);
    let calls = setup.forge.requests_to("/gitlab/api/v4/projects?").len();
    assert!(calls <= 100, "{calls} calls for 20 pages");
}

#[tokio::test]
async fn rows_that_move_between_pages_are_not_lost() {
    let setup = Setup::new(GitlabConfig { repositories: 250, ..GitlabConfig::default() }).await;
    let api = setup.api(tokens::GOOD);
    let first = setup.driver().repositories(&api, &list(Walk::Fan), None).await.expect("a page");
    // As if five rows had been counted that are gone now.
    let stale = Cursor(first.next[0].0.replace(":250", ":255"));
    let page = setup.driver().repositories(&api, &list(Walk::Fan), Some(&stale)).await.expect("a page");
    assert_eq!(page.items.len(), 200);
    assert_eq!(page.items[0], first.items[0]);
    // As if the last page had been the second, and a third one had grown since.
    let grown = Cursor(first.next[0].0.replace(":250", ":180"));
    let page = setup.driver().repositories(&api, &list(Walk::Fan), Some(&grown)).await.expect("a page");
    assert_eq!(page.next.len(), 1);
}

#[tokio::test]
async fn a_last_page_that_is_gone_meanwhile_is_no_repetition() {
    let setup = Setup::new(GitlabConfig { repositories: 101, ..GitlabConfig::default() }).await;
    let all = setup.rows(&list(Walk::Chain)).await.expect("rows");
    setup.forge.forget_requests();
    // The second page finds nothing: the last project was deleted behind the first one.
    let headers = [
        ("content-type", "application/json"),
        ("x-total", "100"),
        ("x-total-pages", "1"),
        ("x-per-page", "100"),
        ("x-next-page", ""),
    ];
    let second = setup.driver().repositories(&setup.api(tokens::GOOD), &list(Walk::Fan), None).await;
    assert_eq!(second.expect("a page").next.len(), 1);
    let prefix = setup.forge.requests()[0].target().replacen("page=1", "page=2", 2);
    let prefix = prefix.replace("per_page=200", "per_page=100");
    setup.forge.respond_once("GET", &prefix, 200, &headers, "[]");
    let rows = setup.rows(&list(Walk::Fan)).await.expect("no error");
    setup.forge.assert_no_leftovers();
    assert_eq!(ids(&rows), ids(&all[..100]));
}

#[tokio::test]
async fn h28_totals_that_lie_end_with_the_rows() {
    let setup = Setup::new(GitlabConfig { repositories: 150, ..GitlabConfig::default() }).await;
    let headers = [
        ("content-type", "application/json"),
        ("x-total", "5000"),
        ("x-total-pages", "50"),
        ("x-per-page", "100"),
    ];
    setup.forge.respond_once("GET", "/gitlab/api/v4/projects", 200, &headers, "[]");
    assert_eq!(setup.rows(&list(Walk::Fan)).await, Ok(Vec::new()));
    assert_eq!(setup.forge.requests().len(), 1);
}

#[tokio::test]
async fn ac_61_h24_h25_h27_h31_odd_paging_ends_or_goes_on() {
    for walk in [Walk::Chain, Walk::Fan] {
        for fault in [
            Fault::SelfNextLink,
            Fault::CursorCycle,
            Fault::SamePageForever,
            Fault::BadNextPage("abc".to_owned()),
            Fault::BadNextPage("-1".to_owned()),
            Fault::BadNextPage("18446744073709551616".to_owned()),
        ] {
            let setup = Setup::new(GitlabConfig { repositories: 350, ..GitlabConfig::default() }).await;
            setup.forge.set_fault(fault.clone());
            let outcome = setup.rows(&list(walk)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{walk:?} {fault:?}");
            assert!(setup.forge.requests().len() < 40, "{walk:?} {fault:?}");
        }
        // The query of a link to elsewhere is enough; the origin stays.
        let setup = Setup::new(GitlabConfig { repositories: 350, ..GitlabConfig::default() }).await;
        setup.forge.set_fault(Fault::ForeignNextLink("https://elsewhere.test".to_owned()));
        assert_eq!(setup.rows(&list(walk)).await.expect("rows").len(), 350);
    }
}

#[tokio::test]
async fn h19_an_id_of_a_wrong_type_is_a_typed_error() {
    for wrong in [WrongId::String, WrongId::Float, WrongId::Huge, WrongId::Exponent, WrongId::Null] {
        let setup = Setup::small().await;
        setup.forge.set_fault(Fault::WrongTypes(wrong));
        for walk in [Walk::Chain, Walk::Fan] {
            let outcome = setup.rows(&list(walk)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{wrong:?}");
        }
        assert!(setup.inspect(tokens::GOOD).await.failure.is_some(), "{wrong:?}");
    }
}

#[tokio::test]
async fn h22_hostile_rows_are_kept_as_they_are() {
    let setup = Setup::new(GitlabConfig { hostile_rows: true, ..GitlabConfig::default() }).await;
    let rows = setup.rows(&list(Walk::Fan)).await.expect("rows");
    assert_eq!(rows.len(), 25);
    assert!(rows[0].full_name.ends_with("/..%2f..%2fetc"));
    // Such a name is encoded whole, and finds its own project or none.
    let found = setup.lookup(Lookup::FullName(rows[0].full_name.clone())).await;
    assert!(
        found == Err(ProviderError::NotFound) || found.is_ok_and(|row| row.full_name == rows[0].full_name)
    );
    for seen in setup.forge.requests() {
        assert!(seen.path.starts_with("/gitlab/api/v4/projects"), "{}", seen.path);
    }
}

#[tokio::test]
async fn h42_a_token_of_an_unknown_form_is_never_given_back() {
    const TOKEN: &str = "corp_n0.known.prefix-1";
    let setup = Setup::small().await;
    let api = setup.api(TOKEN);
    let json = [("content-type", "application/json"), ("x-total", "1"), ("x-echo", TOKEN)];
    let escaped = TOKEN.replace('c', "\\u0063");
    let body = format!(
        r#"[{{"id":1,"path_with_namespace":"acme/{TOKEN}","name":"{escaped}","description":"it is {TOKEN}"}}]"#
    );
    setup.forge.respond_once("GET", "/gitlab/api/v4/projects", 200, &json, body);
    let page = setup.driver().repositories(&api, &list(Walk::Fan), None).await.expect("a page");
    assert_eq!(page.items[0].description, format!("it is {}", "*".repeat(TOKEN.len())));
    let user = format!(r#"{{"id":1,"username":"{TOKEN}","name":"I am {TOKEN}","email":"{TOKEN}@x.test"}}"#);
    for _ in 0..2 {
        setup.forge.respond_once("GET", "/gitlab/api/v4/user", 200, &json, user.clone());
    }
    let inspection = setup.driver().inspect(&api, &CapabilityType::ALL).await;
    for told in [format!("{page:?}"), format!("{inspection:?}"), format!("{api:?}")] {
        assert!(!told.contains(TOKEN), "{told}");
    }
}

#[tokio::test]
async fn filters_leave_the_same_rows_as_reading_all() {
    let setup = Setup::new(GitlabConfig { repositories: 120, ..GitlabConfig::default() }).await;
    let all = setup.rows(&list(Walk::Chain)).await.expect("rows");
    let query = |query: &str| List { query: query.to_owned(), ..list(Walk::Chain) };
    let namespace = |namespace: &str| List { namespace: namespace.to_owned(), ..list(Walk::Chain) };
    let least = |min_permission| List { min_permission, ..list(Walk::Chain) };
    for filter in [
        query("WEBSITE"),
        query("rm/de"),
        query("e-"),
        query("acme/"),
        query("no such thing"),
        namespace("acme"),
        namespace("acme/platform"),
        namespace("casey"),
        namespace("ACME"),
        least(Permission::Read),
        least(Permission::Write),
        least(Permission::Admin),
        List { include_archived: false, ..list(Walk::Chain) },
    ] {
        let wanted: Vec<Repository> = all.iter().filter(|row| filter.keeps(row)).cloned().collect();
        for walk in [Walk::Chain, Walk::Fan] {
            let filter = List { walk, ..filter.clone() };
            assert_eq!(setup.rows(&filter).await.expect("rows"), wanted, "{filter:?}");
        }
    }
}

#[tokio::test]
async fn a_chain_can_be_taken_up_with_another_page_size() {
    let setup = Setup::new(GitlabConfig { repositories: 60, ..GitlabConfig::default() }).await;
    let api = setup.api(tokens::GOOD);
    let first = setup.driver().repositories(&api, &list(Walk::Chain), None).await.expect("a page");
    assert_eq!((first.items.len(), first.next.len(), first.total), (10, 1, None));
    let wide = List { page_size: 5_000, ..list(Walk::Chain) };
    let rest = setup.driver().repositories(&api, &wide, first.next.first()).await.expect("a page");
    assert_eq!((rest.items.len(), rest.next.len()), (50, 0));
    let elsewhere = setup.driver().repositories(&api, &wide, Some(&Cursor("p:0::2:250".to_owned()))).await;
    assert!(matches!(elsewhere, Err(ProviderError::Failed { .. })));
}

#[tokio::test]
async fn namespaces_start_with_the_users_own() {
    let setup = Setup::new(GitlabConfig { groups: 30, ..GitlabConfig::default() }).await;
    let api = setup.api(tokens::GOOD);
    let mut all = Vec::new();
    let mut at = None;
    loop {
        let page: Page<_> =
            setup.driver().namespaces(&api, &list(Walk::Chain), at.as_ref()).await.expect("a page");
        all.extend(page.items);
        at = page.next.into_iter().next();
        if at.is_none() {
            break;
        }
    }
    assert_eq!(all.len(), 31);
    assert_eq!((all[0].full_path.as_str(), all[0].kind), ("casey", NamespaceKind::User));
    let deep = all.iter().find(|space| space.full_path == "acme/platform/deep").expect("the group");
    assert_eq!((deep.kind, deep.parent_path.as_str()), (NamespaceKind::Group, "acme/platform"));
    assert!(deep.web_url.ends_with("/gitlab/groups/acme/platform/deep"));
    // A bot has no space of its own.
    let page =
        setup.driver().namespaces(&setup.api(tokens::GROUP), &list(Walk::Chain), None).await.expect("a page");
    assert!(page.items.iter().all(|space| space.kind == NamespaceKind::Group));
    let refused = setup.driver().namespaces(&setup.api(tokens::NARROW), &list(Walk::Chain), None).await;
    assert!(matches!(refused, Err(ProviderError::ScopeMissing { .. })));
}

// --- one project ---

#[tokio::test]
async fn a_project_is_found_by_number_path_and_clone_url() {
    let setup = Setup::small().await;
    let first = setup.rows(&list(Walk::Chain)).await.expect("rows").remove(0);
    let by_id = setup.driver().repository(&setup.api(tokens::GOOD), &first.provider_id).await.expect("a row");
    assert_eq!(by_id.full_name, "acme/website");
    assert!(by_id.size_kib.is_some());
    for what in [
        Lookup::FullName("acme/website".to_owned()),
        Lookup::FullName("/ACME/Website/".to_owned()),
        Lookup::CloneUrl(first.clone_https_url.clone()),
        Lookup::CloneUrl(first.clone_ssh_url.clone()),
        Lookup::CloneUrl("ssh://git@127.0.0.1:2222/acme/website.git".to_owned()),
        Lookup::CloneUrl(first.clone_https_url.replace("http://", "http://casey:secret@")),
    ] {
        let found = setup.lookup(what.clone()).await;
        assert_eq!(found.map(|row| row.provider_id), Ok(first.provider_id.clone()), "{what:?}");
    }
    for what in [
        Lookup::FullName("acme/nothing".to_owned()),
        Lookup::FullName("website".to_owned()),
        Lookup::FullName("acme/../website".to_owned()),
        Lookup::FullName(String::new()),
        Lookup::CloneUrl("https://elsewhere.test/acme/website.git".to_owned()),
        Lookup::CloneUrl("git@elsewhere.test:acme/website.git".to_owned()),
        Lookup::CloneUrl("file:///etc/passwd".to_owned()),
    ] {
        assert_eq!(setup.lookup(what.clone()).await, Err(ProviderError::NotFound), "{what:?}");
    }
}

#[tokio::test]
async fn h22_an_id_is_a_number_or_nothing() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    for id in
        ["", "0", "01", "-1", "+1", "1/hooks", "acme%2Fwebsite", "..", "99999999999999999999", "\u{661}"]
    {
        assert_eq!(setup.driver().repository(&api, id).await, Err(ProviderError::NotFound), "{id}");
    }
    assert!(setup.forge.requests().is_empty());
    assert_eq!(setup.driver().repository(&api, "999999999").await, Err(ProviderError::NotFound));
}

#[tokio::test]
async fn ac_64_a_moved_project_is_found_by_its_old_path() {
    // The configured URL is out of reach: only the number is taken from it.
    let config =
        GitlabConfig { external_url: Some("https://elsewhere.test".to_owned()), ..GitlabConfig::default() };
    let setup = Setup::new(config).await;
    let found = setup.lookup(Lookup::FullName("acme/old-website".to_owned())).await.expect("a row");
    assert_eq!(found.full_name, "acme/website");
    assert!(found.foreign_clone_host);
    let clone_url = Lookup::CloneUrl("https://elsewhere.test/acme/website.git".to_owned());
    assert_eq!(setup.lookup(clone_url).await.map(|row| row.full_name), Ok("acme/website".to_owned()));
}

#[tokio::test]
async fn a_proxy_that_decodes_slashes_is_got_around() {
    let setup = Setup::new(GitlabConfig { decodes_slashes: true, ..GitlabConfig::default() }).await;
    let found = setup.lookup(Lookup::FullName("acme/website".to_owned())).await.expect("a row");
    assert_eq!(found.full_name, "acme/website");
    let missing = setup.lookup(Lookup::FullName("acme/nothing".to_owned())).await;
    assert_eq!(missing, Err(ProviderError::NotFound));
}

// --- refs ---

#[tokio::test]
async fn ac_62_a_search_with_more_than_one_page_finds_all_in_every_version() {
    for version in ["18.1.0-ee", "19.0.0-ee"] {
        let gitlab = GitlabConfig { version: version.to_owned(), ..GitlabConfig::default() };
        let setup =
            Setup::of(ForgeConfig { gitlab, branches: 350, tags: 250, ..ForgeConfig::default() }).await;
        let id = setup.rows(&list(Walk::Chain)).await.expect("rows")[0].provider_id.clone();
        let api = setup.api(tokens::GOOD);
        for (kind, query, count, calls) in [
            (RefKind::Branch, "Feature", 347, 4),
            (RefKind::Branch, "hotfix", 1, 1),
            (RefKind::Tag, "v1.0", 250, 3),
            (RefKind::Branch, "nothing", 0, 1),
        ] {
            let wanted = RefList { kind, query: query.to_owned(), page_size: 7 };
            setup.forge.forget_requests();
            let (mut found, mut at) = (BTreeSet::new(), None);
            loop {
                let page = setup.driver().refs(&api, &id, &wanted, at.as_ref()).await.expect("a page");
                for row in page.items.into_iter().filter(|row| wanted.keeps(row)) {
                    assert!(found.insert(row.name.clone()), "{version} {query}: {} twice", row.name);
                }
                at = page.next.into_iter().next();
                if at.is_none() {
                    break;
                }
            }
            assert_eq!((found.len(), setup.forge.requests().len()), (count, calls), "{version} {query}");
        }
        for bad in ["", "a", "a:", "p:2:100"] {
            let foreign = Cursor(bad.to_owned());
            let wanted = RefList { kind: RefKind::Branch, query: String::new(), page_size: 7 };
            let outcome = setup.driver().refs(&api, &id, &wanted, Some(&foreign)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{bad}");
        }
    }
}

#[tokio::test]
async fn a_tag_that_went_away_ends_the_listing_that_stood_there() {
    let setup = Setup::small().await;
    let id = setup.rows(&list(Walk::Chain)).await.expect("rows")[0].provider_id.clone();
    let tags = RefList { kind: RefKind::Tag, query: String::new(), page_size: 5 };
    let api = setup.api(tokens::GOOD);
    let gone = Cursor("a:v0.removed".to_owned());
    let outcome = setup.driver().refs(&api, &id, &tags, Some(&gone)).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { status: Some(422), .. })), "{outcome:?}");
    // A branch that went away leaves no gap: the names behind its own follow.
    let branches = RefList { kind: RefKind::Branch, ..tags };
    let gone = Cursor("a:feature/00003x".to_owned());
    let page = setup.driver().refs(&api, &id, &branches, Some(&gone)).await.expect("a page");
    assert_eq!(page.items[0].name, "feature/00004");
}

#[tokio::test]
async fn an_empty_project_and_hidden_code_have_no_refs() {
    let setup = Setup::small().await;
    let rows = setup.rows(&list(Walk::Chain)).await.expect("rows");
    let empty = rows.iter().find(|row| row.default_branch.is_none()).expect("an empty project");
    let branches = RefList { kind: RefKind::Branch, query: String::new(), page_size: 5 };
    let api = setup.api(tokens::GOOD);
    let page = setup.driver().refs(&api, &empty.provider_id, &branches, None).await;
    assert_eq!(page, Ok(Page::last(Vec::new())));
}

// --- what is sent ---

#[tokio::test]
async fn every_request_is_one_that_gitlab_describes() {
    let setup = Setup::new(GitlabConfig {
        repositories: 900,
        total_limit: 300,
        groups: 12,
        ..GitlabConfig::default()
    })
    .await;
    let all = List {
        query: "repo".to_owned(),
        include_archived: false,
        min_permission: Permission::Read,
        ..list(Walk::Fan)
    };
    let rows = setup.rows(&all).await.expect("rows");
    setup.rows(&List { page_size: 100, walk: Walk::Chain, ..all }).await.expect("rows");
    for token in [tokens::GOOD, tokens::SECOND, tokens::OAUTH] {
        setup.inspect(token).await;
    }
    let api = setup.api(tokens::GOOD);
    let page = setup.driver().namespaces(&api, &list(Walk::Chain), None).await.expect("a page");
    setup.driver().namespaces(&api, &list(Walk::Chain), page.next.first()).await.expect("a page");
    setup.driver().answers(&api).await.expect("an answer");
    for path in ["acme/website", "acme/nothing", "acme/old-website"] {
        let _ = setup.lookup(Lookup::FullName(path.to_owned())).await;
    }
    let id = rows.last().expect("a project").provider_id.clone();
    for (kind, query) in
        [RefKind::Branch, RefKind::Tag].into_iter().flat_map(|kind| [(kind, ""), (kind, "0")])
    {
        let wanted = RefList { kind, query: query.to_owned(), page_size: 5 };
        let first = setup.driver().refs(&api, &id, &wanted, None).await.expect("a page");
        setup.driver().refs(&api, &id, &wanted, first.next.first()).await.expect("a page");
    }
    webhooks::call_everything(&setup).await;
    let description =
        Description::read(include_str!("../fixtures/providers/gitlab/openapi/gitlab.trimmed.json"));
    let requests = setup.forge.requests();
    assert!(requests.len() > 30);
    let problems: BTreeSet<String> = requests
        .iter()
        // The OAuth server has no description of this kind; its answer is a recorded one.
        .filter(|seen| seen.path != "/gitlab/oauth/token/info")
        .flat_map(|seen| {
            let path = seen.path.strip_prefix("/gitlab").unwrap_or(&seen.path);
            description.problems(seen, path, DOCUMENTED)
        })
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test]
async fn the_token_stands_in_one_header_and_nowhere_else() {
    let setup = Setup::small().await;
    setup.inspect(tokens::GOOD).await;
    setup.rows(&list(Walk::Fan)).await.expect("rows");
    for seen in setup.forge.requests() {
        let carries =
            |(name, value): &&(String, String)| value.contains(tokens::GOOD) && name != "authorization";
        assert!(seen.headers.iter().find(carries).is_none());
        assert!(!seen.target().contains(tokens::GOOD) && seen.body.is_empty());
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", tokens::GOOD).as_str()));
        assert_eq!(seen.header("private-token"), None);
    }
}

#[tokio::test]
async fn h07_a_redirect_to_another_origin_sees_no_token() {
    let setup = Setup::small().await;
    let other = Forge::small().await.expect("a forge");
    let fault = Fault::RedirectOtherOrigin { status: 302, origin: other.origin().to_owned() };
    setup.forge.set_fault(fault);
    let outcome = setup.rows(&list(Walk::Chain)).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
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
