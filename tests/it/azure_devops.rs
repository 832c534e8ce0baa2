//! The driver of Azure DevOps against the fake one, over real sockets and the whole way out.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use http::HeaderMap;
use tokio::time::Instant;
use url::Url;

use gitmoor::domain::base_url::BaseUrl;
use gitmoor::domain::connection::Scope;
use gitmoor::domain::credential::{Capability, CapabilityType, Credential, CredentialForm, Secret};
use gitmoor::domain::page::{Page, Warning};
use gitmoor::domain::refs::RefKind;
use gitmoor::domain::repository::{NamespaceKind, Permission, Repository, Visibility};
use gitmoor::domain::verification::{Check, CheckResult, Outcome};
use gitmoor::outbound::{AllowRule, Outbound, OutboundConfig, Target};
use gitmoor::provider::api::Api;
use gitmoor::provider::azure_devops::AzureDevOps;
use gitmoor::provider::session::Pages;
use gitmoor::provider::{
    Inspection, List, Lookup, Presence, Provider, ProviderError, RefList, RejectionCause, Walk,
};

use crate::support::forge::{AzureConfig, Fault, Forge, ForgeConfig, azure_tokens as tokens};
use crate::support::openapi::Description;

mod listing;
mod service;
mod webhooks;

const ALL: &[CapabilityType] = &CapabilityType::ALL;

/// A forge, and the way out to it.
struct Bench {
    forge: Forge,
    outbound: Outbound,
}

impl Bench {
    async fn start(azure: AzureConfig) -> Self {
        let forge = Forge::start(ForgeConfig { azure, ..ForgeConfig::default() }).await.expect("a forge");
        let allow = vec![AllowRule::parse(forge.origin()).expect("a rule")];
        let outbound =
            Outbound::new(OutboundConfig { allow, ..OutboundConfig::default() }).expect("a way out");
        Self { forge, outbound }
    }

    async fn small() -> Self {
        Self::start(AzureConfig::default()).await
    }

    fn at(&self, base: &str, token: &str) -> Api {
        let base = Url::parse(base).expect("a URL");
        let about = AzureDevOps.about();
        let target = Target {
            origin: base.clone(),
            ca_certificates_pem: String::new(),
            account: token.to_owned(),
            attempt_timeout: about.attempt_timeout,
            concurrency: about.concurrency,
        };
        let transport = self.outbound.transport(target).expect("admitted");
        let mut headers = HeaderMap::new();
        AzureDevOps.authorize(&pat(token), &mut headers);
        Api::new(base, headers, transport, Instant::now() + Duration::from_secs(30))
    }

    fn services(&self, token: &str) -> Api {
        self.at(&self.forge.azure_url(), token)
    }

    fn server(&self, token: &str) -> Api {
        self.at(&self.forge.azure_server_url(), token)
    }
}

fn pat(token: &str) -> Credential {
    let form = CredentialForm::PersonalAccessToken { username: None };
    Credential { form, token: Secret::new(token.to_owned()) }
}

fn list(walk: Walk, page_size: usize) -> List {
    List {
        query: String::new(),
        namespace: String::new(),
        include_archived: true,
        min_permission: Permission::Unknown,
        scope: Scope::default(),
        page_size,
        walk,
    }
}

/// All rows and warnings of a parallel listing, in order.
async fn fan(api: &Api, list: &List) -> Result<(Vec<Repository>, Vec<Warning>), ProviderError> {
    let fetch = |at| async move { AzureDevOps.repositories(api, list, Option::as_ref(&at)).await };
    let mut pages = Pages::new(AzureDevOps.about().concurrency, |row: &Repository| &row.provider_id, fetch);
    let (mut rows, mut warnings) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page?;
        rows.extend(page.items);
        warnings.extend(page.warnings);
    }
    Ok((rows, warnings))
}

/// The pages of a chain.
async fn chain(api: &Api, list: &List) -> Vec<Page<Repository>> {
    let (mut pages, mut at) = (Vec::<Page<Repository>>::new(), None);
    loop {
        let page = AzureDevOps.repositories(api, list, at.as_ref()).await.expect("a page");
        assert!(page.next.len() <= 1 && pages.len() < 1_000);
        at = page.next.first().cloned();
        pages.push(page);
        if at.is_none() {
            return pages;
        }
    }
}

fn ids<'a>(rows: impl IntoIterator<Item = &'a Repository>) -> BTreeSet<String> {
    rows.into_iter().map(|row| row.provider_id.clone()).collect()
}

fn check(found: &Inspection, which: Check) -> &CheckResult {
    found.checks.iter().find(|result| result.check == which).expect("the check was made")
}

fn is_rejected(error: Option<&ProviderError>) -> bool {
    matches!(error, Some(ProviderError::CredentialRejected { cause: RejectionCause::Unknown, .. }))
}

#[tokio::test]
async fn a_good_token_passes_every_check() {
    let bench = Bench::small().await;
    for token in [tokens::GOOD, tokens::GOOD_LONG, tokens::ENTRA] {
        let found = AzureDevOps.inspect(&bench.services(token), ALL).await;
        assert_eq!(found.failure, None, "{:?}", found.checks);
        let not_passed: Vec<_> = found.checks.iter().filter(|c| c.outcome != Outcome::Pass).collect();
        assert!(not_passed.is_empty(), "{not_passed:?}");
        assert_eq!(found.checks.len(), 7);
        let account = found.account.expect("a user");
        assert_eq!(account.id, "473dec3e-03d7-6147-b106-0b0a7f766a92");
        assert_eq!(
            (account.email.as_str(), account.display_name.as_str()),
            ("casey@forge.example", "Casey Example")
        );
        for capability in ALL {
            assert_eq!(found.capabilities.of(*capability), Capability::Yes, "{capability:?}");
        }
        assert_eq!(found.server_version, "API 7.1");
        assert_eq!(found.expire_time, None);
        assert!(found.missing_scopes.is_empty() && found.granted_scopes.is_empty());
    }
}

#[tokio::test]
async fn a_token_travels_in_basic_with_an_empty_user_and_an_entra_token_as_bearer() {
    let bench = Bench::small().await;
    for (token, scheme) in [(tokens::GOOD, "Basic Om"), (tokens::ENTRA, "Bearer eyJ")] {
        bench.forge.forget_requests();
        AzureDevOps.inspect(&bench.services(token), ALL).await;
        for seen in bench.forge.requests() {
            assert!(seen.header("authorization").expect("a header").starts_with(scheme));
            assert_eq!(seen.header("x-tfs-fedauthredirect"), Some("Suppress"));
            assert_eq!(seen.header("x-vss-forcemsapassthrough"), Some("true"));
        }
    }
}

#[tokio::test]
async fn ac_10_a_dead_token_is_rejected_with_what_to_do_about_it() {
    let bench = Bench::small().await;
    for token in [tokens::EXPIRED, tokens::REVOKED, tokens::UNKNOWN] {
        for api in [bench.services(token), bench.server(token)] {
            let found = AzureDevOps.inspect(&api, ALL).await;
            assert!(is_rejected(found.failure.as_ref()), "{:?}", found.failure);
            assert_eq!(check(&found, Check::ProviderMatch).outcome, Outcome::Pass);
            let authentication = check(&found, Check::Authentication);
            assert_eq!((authentication.outcome, authentication.http_status), (Outcome::Fail, Some(401)));
            assert_eq!(authentication.reason, "CREDENTIAL_REJECTED");
            for hint in ["2026-12-01", "policies", "90 days"] {
                assert!(authentication.remedy.contains(hint), "{hint}");
            }
            assert_eq!(check(&found, Check::Scopes).outcome, Outcome::Skipped);
            assert!(found.account.is_none());
        }
    }
}

#[tokio::test]
async fn ac_17_a_sign_in_page_or_a_redirect_to_one_is_a_rejected_credential() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    for fault in [Fault::HtmlSignIn, Fault::HtmlOk] {
        bench.forge.clear_faults();
        bench.forge.set_fault(fault);
        let found = AzureDevOps.inspect(&api, ALL).await;
        assert!(is_rejected(found.failure.as_ref()), "{:?}", found.failure);
        let error = fan(&api, &list(Walk::Fan, 100)).await.expect_err("refused");
        assert!(is_rejected(Some(&error)));
    }
    bench.forge.clear_faults();
    bench.forge.forget_requests();
    bench.forge.respond_once(
        "GET",
        "/azure/contoso/_apis/connectionData",
        302,
        &[("location", "https://spsprodcus1.vssps.visualstudio.com/_signin?realm=dev.azure.com")],
        "",
    );
    let found = AzureDevOps.inspect(&api, ALL).await;
    assert!(is_rejected(found.failure.as_ref()), "{:?}", found.failure);
    bench.forge.assert_no_leftovers();
}

#[tokio::test]
async fn a_page_that_is_not_the_providers_is_a_mismatch() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    for fault in [Fault::NotFoundHtml, Fault::GarbageJson] {
        bench.forge.clear_faults();
        bench.forge.set_fault(fault.clone());
        let found = AzureDevOps.inspect(&api, ALL).await;
        assert!(
            matches!(found.failure, Some(ProviderError::Mismatch { .. })),
            "{fault:?} {:?}",
            found.failure
        );
        assert_eq!(check(&found, Check::ProviderMatch).reason, "PROVIDER_MISMATCH");
    }
    // A collection that is left out of the URL.
    bench.forge.clear_faults();
    let api = bench.at(&format!("{}/azure-server/tfs", bench.forge.origin()), tokens::GOOD);
    let found = AzureDevOps.inspect(&api, ALL).await;
    assert!(matches!(found.failure, Some(ProviderError::Mismatch { .. })), "{:?}", found.failure);
}

#[tokio::test]
async fn h48_a_server_that_says_yes_to_everything_convinces_nobody() {
    let bench = Bench::small().await;
    bench.forge.set_fault(Fault::FakeSuccess);
    let found = AzureDevOps.inspect(&bench.services(tokens::GOOD), ALL).await;
    assert!(matches!(found.failure, Some(ProviderError::Failed { .. })), "{:?}", found.failure);
}

#[tokio::test]
async fn ac_18_an_organization_with_public_projects_answers_anybody_and_convinces_nobody() {
    let bench = Bench::start(AzureConfig { public: true, ..AzureConfig::default() }).await;
    for token in [tokens::UNKNOWN, tokens::REVOKED] {
        let api = bench.services(token);
        let found = AzureDevOps.inspect(&api, ALL).await;
        assert!(is_rejected(found.failure.as_ref()), "{:?}", found.failure);
        assert!(found.account.is_none());
        for walk in [Walk::Fan, Walk::Chain] {
            let error = AzureDevOps.repositories(&api, &list(walk, 10), None).await.expect_err("refused");
            assert!(is_rejected(Some(&error)));
        }
        let limited = List { namespace: "Fabrikam Fiber".into(), ..list(Walk::Fan, 10) };
        assert!(is_rejected(AzureDevOps.repositories(&api, &limited, None).await.err().as_ref()));
        assert!(is_rejected(AzureDevOps.namespaces(&api, &list(Walk::Chain, 10), None).await.err().as_ref()));
        let what = Lookup::FullName("Fabrikam Fiber/Fabrikam Fiber".into());
        assert!(is_rejected(AzureDevOps.lookup(&api, &what).await.err().as_ref()));
    }
    assert_eq!(AzureDevOps.inspect(&bench.services(tokens::GOOD), ALL).await.failure, None);
}

#[tokio::test]
async fn ac_15_ac_19_a_missing_scope_is_told_from_a_dead_token() {
    let bench = Bench::small().await;
    let found = AzureDevOps.inspect(&bench.services(tokens::READ_ONLY), ALL).await;
    assert_eq!(found.failure, None);
    assert_eq!(found.missing_scopes, ["vso.project"]);
    assert_eq!(found.capabilities.list_repositories, Capability::No);
    assert_eq!(found.capabilities.read_code, Capability::Yes);
    assert_eq!(check(&found, Check::Authentication).outcome, Outcome::Pass);
    let scopes = check(&found, Check::Scopes);
    assert_eq!((scopes.outcome, scopes.reason.as_str()), (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"));
    assert!(scopes.message.contains("LIST_REPOSITORIES") && scopes.message.contains("vso.project"));
    assert_eq!(check(&found, Check::ListRepositories).reason, "CREDENTIAL_SCOPE_MISSING");

    let found = AzureDevOps.inspect(&bench.services(tokens::NO_CODE), ALL).await;
    assert_eq!(found.failure, Some(ProviderError::ScopeMissing { scopes: vec!["vso.code".into()] }));
    assert_eq!(found.missing_scopes, ["vso.code"]);
    assert_eq!(check(&found, Check::Scopes).outcome, Outcome::Fail);
    assert!(found.account.is_some());

    let error = fan(&bench.services(tokens::NO_CODE), &list(Walk::Fan, 10)).await.expect_err("refused");
    assert_eq!(error, ProviderError::ScopeMissing { scopes: vec!["vso.code".into()] });
}

#[tokio::test]
async fn a_user_without_the_right_to_edit_subscriptions_has_no_webhooks() {
    let bench = Bench::small().await;
    let found = AzureDevOps.inspect(&bench.services(tokens::SECOND), ALL).await;
    assert_eq!(found.failure, None);
    assert_eq!(found.capabilities.manage_webhooks, Capability::No);
    assert_eq!(check(&found, Check::Webhooks).reason, "WEBHOOK_PERMISSION_MISSING");
    assert!(found.missing_scopes.is_empty());
}

#[tokio::test]
async fn ac_11_an_old_server_is_refused_with_found_and_minimum() {
    let bench = Bench::start(AzureConfig { server_api_version: (4, 1), ..AzureConfig::default() }).await;
    let found = AzureDevOps.inspect(&bench.server(tokens::GOOD), ALL).await;
    let minimum = "5.0 (Azure DevOps Server 2019)";
    let wanted = ProviderError::VersionUnsupported { found: "2018 (API 4.1)".into(), minimum };
    assert_eq!(found.failure, Some(wanted));
    assert_eq!(check(&found, Check::ServerVersion).reason, "PROVIDER_VERSION_UNSUPPORTED");
    let error = fan(&bench.server(tokens::GOOD), &list(Walk::Fan, 10)).await.expect_err("refused");
    assert!(matches!(error, ProviderError::VersionUnsupported { .. }));
}

#[tokio::test]
async fn every_supported_server_works_and_tells_its_version() {
    for (version, told) in [
        ((5, 0), "2019 (API 5.0)"),
        ((5, 1), "2019 Update 1 (API 5.1)"),
        ((6, 0), "2020 (API 6.0)"),
        ((7, 0), "2022 (API 7.0)"),
        ((7, 1), "2022.1 (API 7.1)"),
    ] {
        let config =
            AzureConfig { server_api_version: version, server_continuation: false, ..AzureConfig::default() };
        let bench = Bench::start(config).await;
        let api = bench.server(tokens::GOOD);
        let found = AzureDevOps.inspect(&api, ALL).await;
        assert_eq!((found.failure, found.server_version.as_str()), (None, told), "{version:?}");
        assert_eq!(fan(&api, &list(Walk::Fan, 10)).await.expect("rows").0.len(), 20);
    }
}

#[tokio::test]
async fn ac_14_a_server_that_calls_itself_localhost_is_warned_about() {
    for (external, reason) in [
        ("http://localhost:8080/tfs/DefaultCollection", "PROVIDER_LINKS_LOCALHOST"),
        ("https://other.test/tfs/DefaultCollection", "PROVIDER_LINKS_FOREIGN_HOST"),
    ] {
        let bench =
            Bench::start(AzureConfig { external_url: Some(external.into()), ..AzureConfig::default() }).await;
        let found = AzureDevOps.inspect(&bench.services(tokens::GOOD), ALL).await;
        assert_eq!(found.failure, None);
        let listing = check(&found, Check::ListRepositories);
        assert_eq!((listing.outcome, listing.reason.as_str()), (Outcome::Warn, reason));
        assert!(listing.remedy.contains("Change Public URL"));
        let (rows, _) = fan(&bench.services(tokens::GOOD), &list(Walk::Fan, 10)).await.expect("rows");
        assert!(rows.iter().all(|row| row.foreign_clone_host));
    }
}

#[tokio::test]
async fn a_url_with_a_project_in_it_is_shortened_to_its_collection() {
    let bench = Bench::small().await;
    let origin = bench.forge.origin();
    for (typed, want) in [
        (format!("{origin}/azure/contoso/Fabrikam%20Fiber/_git/x"), bench.forge.azure_url()),
        (format!("{origin}/azure/contoso"), bench.forge.azure_url()),
        (format!("{}/Project%200003", bench.forge.azure_server_url()), bench.forge.azure_server_url()),
    ] {
        let typed = BaseUrl::parse(&typed).expect("a URL");
        let endpoints = AzureDevOps.endpoints(Some(&typed), &Scope::default()).expect("endpoints");
        let mut answering = None;
        for endpoint in endpoints {
            let api = bench.at(endpoint.api_url.as_str(), tokens::GOOD);
            if AzureDevOps.answers(&api).await.expect("asked") == Presence::Here {
                answering = Some(endpoint.api_url.to_string());
                break;
            }
        }
        assert_eq!(answering, Some(want));
    }
    // A refused token still tells that it is Azure DevOps; another page tells that it is not.
    assert_eq!(AzureDevOps.answers(&bench.services(tokens::UNKNOWN)).await, Ok(Presence::Perhaps));
    assert_eq!(
        AzureDevOps.answers(&bench.at(&format!("{origin}/elsewhere"), tokens::GOOD)).await,
        Ok(Presence::Elsewhere)
    );
}

#[tokio::test]
async fn every_request_is_in_the_official_description() {
    let bench = Bench::small().await;
    for api in [bench.services(tokens::GOOD), bench.server(tokens::GOOD)] {
        AzureDevOps.inspect(&api, ALL).await;
        let (rows, _) = fan(&api, &list(Walk::Fan, 10)).await.expect("rows");
        chain(&api, &list(Walk::Chain, 10)).await;
        AzureDevOps.namespaces(&api, &list(Walk::Chain, 3), None).await.expect("a page");
        let limited = Scope { projects: vec!["Fabrikam Fiber".into()], ..Scope::default() };
        AzureDevOps
            .namespaces(&api, &List { scope: limited, ..list(Walk::Chain, 3) }, None)
            .await
            .expect("a page");
        AzureDevOps.repository(&api, &rows[0].provider_id).await.expect("a repository");
        for (kind, query) in [(RefKind::Branch, ""), (RefKind::Tag, ""), (RefKind::Branch, "2.0")] {
            let wanted = RefList { kind, query: query.to_owned(), page_size: 5 };
            let first = AzureDevOps.refs(&api, &rows[0].provider_id, &wanted, None).await.expect("a page");
            if let Some(next) = first.next.first() {
                AzureDevOps.refs(&api, &rows[0].provider_id, &wanted, Some(next)).await.expect("a page");
            }
        }
        AzureDevOps.lookup(&api, &Lookup::FullName(rows[0].full_name.clone())).await.expect("a repository");
        webhooks::call_everything(&api, &rows[0]).await;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/providers/azure-devops/openapi");
    let mut descriptions = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the descriptions") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a file");
        descriptions.push(Description::read(&text));
    }
    let (mut described, mut beside) = (0, BTreeSet::new());
    for seen in bench.forge.requests() {
        let path = ["/azure/contoso", "/azure-server/tfs/DefaultCollection"]
            .iter()
            .find_map(|prefix| seen.path.strip_prefix(prefix))
            .expect("below the endpoint");
        // Both forms are described with the organization or collection as the first part.
        let (services, server) =
            (format!("/contoso{path}"), format!("/DefaultCollection/DefaultCollection{path}"));
        let fits = |description: &Description| {
            [&services, &server].iter().any(|path| description.problems(&seen, path, &[]).is_empty())
        };
        if descriptions.iter().any(fits) {
            described += 1;
        } else {
            let id = path.split('/').next_back().expect("a part");
            beside.insert(if id.len() == 36 { path.replace(id, "{id}") } else { path.to_owned() });
        }
    }
    assert!(described > 20);
    // What clients call beyond the description: the identity, and repositories without their project.
    let known = ["/_apis/connectionData", "/_apis/git/repositories", "/_apis/git/repositories/{id}"];
    assert!(beside.iter().all(|path| known.contains(&path.as_str())), "{beside:?}");
}
