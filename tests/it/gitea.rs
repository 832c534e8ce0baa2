//! The Gitea driver against the fake Gitea, and the fake Forgejo.

mod listing;
mod refs;
mod webhooks;

use std::collections::BTreeSet;

use gitmoor::domain::base_url::BaseUrl;
use gitmoor::domain::connection::{Hosting, Scope};
use gitmoor::domain::credential::{Capability, CapabilityType, ExpireTimeSource};
use gitmoor::domain::refs::RefKind;
use gitmoor::domain::verification::{Check, Outcome};
use gitmoor::provider::gitea::Gitea;
use gitmoor::provider::{Inspection, List, Lookup, Presence, ProviderError, RejectionCause, Walk};

use super::support::drive::{self, Drive, check, list, outcome};
use super::support::forge::{Fault, Forge, ForgeConfig, GiteaConfig, Seen, gitea_tokens as tokens};
use super::support::openapi::Description;

/// What the descriptions at hand leave out: they were cut to what this project calls. Both paths are of the source
/// (`routers/api/v1/api.go`), and only ever asked for the refusal.
const REVEALING: &[&str] = &["/gitea/api/v1/notifications/new", "/gitea/api/v1/admin/cron"];

const JSON: &[(&str, &str)] = &[("content-type", "application/json;charset=utf-8")];

async fn started(gitea: GiteaConfig) -> Drive {
    let config = ForgeConfig { gitea, ..ForgeConfig::default() };
    Drive::start(&Gitea, config, |forge| format!("{}/api/v1", forge.gitea_url()), tokens::GOOD).await
}

async fn small() -> Drive {
    started(GiteaConfig::default()).await
}

async fn version(version: &str) -> Drive {
    started(GiteaConfig { version: version.to_owned(), ..GiteaConfig::default() }).await
}

fn can(found: &Inspection) -> [Capability; 3] {
    CapabilityType::ALL.map(|which| found.capabilities.of(which))
}

// --- where the API is ---

#[tokio::test]
async fn ac_08_the_api_is_found_from_any_pasted_url() {
    let open = small().await;
    let closed = started(GiteaConfig { sign_in_required: true, ..GiteaConfig::default() }).await;
    for drive in [&open, &closed] {
        let right = format!("{}/gitea/api/v1", drive.forge.origin());
        for tail in [
            "/gitea",
            "/gitea/",
            "/gitea/acme",
            "/gitea/acme/website",
            "/gitea/acme/website.git",
            "/gitea/api/swagger",
        ] {
            let url = BaseUrl::parse(&format!("{}{tail}", drive.forge.origin())).expect("a URL");
            let endpoints = drive.driver.endpoints(Some(&url), &Scope::default()).expect("endpoints");
            assert!(endpoints.iter().all(|endpoint| endpoint.hosting == Hosting::SelfHosted));
            let mut answering = Vec::new();
            for endpoint in endpoints {
                let api = drive.api_at(endpoint.api_url.as_str(), tokens::REPOSITORY_ONLY);
                if drive.driver.answers(&api).await.expect("an answer") == Presence::Here {
                    answering.push(endpoint.api_url.to_string());
                }
            }
            assert_eq!(answering, std::slice::from_ref(&right), "{tail}");
        }
    }
    // A stranger, too: where nobody is told the version, the refusal is Gitea's own.
    let url = format!("{}/gitea/api/v1", closed.forge.origin());
    closed.forge.respond_once(
        "GET",
        "/gitea/api/v1/version",
        403,
        JSON,
        r#"{"message":"Only signed in user is allowed to call APIs."}"#,
    );
    let presence = closed.driver.answers(&closed.api_at(&url, tokens::GOOD)).await;
    assert_eq!(presence, Ok(Presence::Here));
}

// --- what a token is ---

#[tokio::test]
async fn a_good_token_passes_every_check() {
    for (told, product) in [("1.27.0", "Gitea 1.27.0"), ("1.26.0", "Gitea 1.26.0")] {
        let found = version(told).await.inspect(tokens::GOOD).await;
        assert_eq!(found.failure, None);
        let not_passed: Vec<_> = found.checks.iter().filter(|check| check.outcome != Outcome::Pass).collect();
        assert!(not_passed.is_empty(), "{not_passed:?}");
        assert_eq!(found.checks.len(), 7);
        let account = found.account.as_ref().expect("an account");
        assert_eq!((account.id.as_str(), account.login.as_str(), account.bot), ("2", "casey", false));
        assert_eq!(found.granted_scopes, ["read:organization", "read:user", "write:repository"]);
        assert!(found.missing_scopes.is_empty());
        assert_eq!(can(&found), [Capability::Yes; 3]);
        // Tokens do not end, and nobody says so.
        assert_eq!((found.expire_time, found.expire_time_source), (None, ExpireTimeSource::Unknown));
        assert_eq!(found.server_version, told);
        assert_eq!(check(&found, Check::ServerVersion).message, product);
        assert!(found.server_time.is_some());
    }
}

#[tokio::test]
async fn forgejo_is_told_by_its_version_and_tells_no_scopes() {
    let drive = started(GiteaConfig::forgejo()).await;
    let found = drive.inspect(tokens::GOOD).await;
    assert_eq!(found.failure, None);
    assert_eq!(check(&found, Check::ServerVersion).message, "Forgejo 11.0.3");
    assert_eq!(found.server_version, "11.0.3+gitea-1.22.0");
    assert_eq!(outcome(&found, Check::Scopes).0, Outcome::Skipped);
    assert!(found.granted_scopes.is_empty() && found.missing_scopes.is_empty());
    // What the calls needed is proven; that hooks can be read does not prove that they can be written.
    assert_eq!(can(&found), [Capability::Yes, Capability::Yes, Capability::Unknown]);
    // What a refused call needed is missing.
    let found = drive.inspect(tokens::USER_ONLY).await;
    assert_eq!(can(&found), [Capability::No; 3]);
    assert_eq!(found.missing_scopes, ["read:repository", "write:repository"]);
    assert!(matches!(found.failure, Some(ProviderError::ScopeMissing { .. })));
}

#[tokio::test]
async fn scopes_are_read_from_one_refusal() {
    for told in ["1.23.0", "1.26.0"] {
        let drive = version(told).await;
        for (token, scopes, calls) in [
            (tokens::REPOSITORY_ONLY, &["read:repository"][..], 0),
            (tokens::GOOD, &["read:organization", "read:user", "write:repository"][..], 1),
            // It may read notifications, so something else must refuse it.
            (tokens::NOTIFIED, &["read:notification", "read:user", "write:repository"][..], 2),
            // Nothing does.
            (tokens::ALL_SCOPES, &[][..], 2),
        ] {
            drive.forge.forget_requests();
            let found = drive.inspect(token).await;
            assert_eq!(
                (found.failure, found.granted_scopes),
                (None, scopes.iter().map(|s| (*s).to_owned()).collect())
            );
            let requests = drive.forge.requests();
            assert_eq!(requests.iter().filter(|seen| REVEALING.contains(&seen.path.as_str())).count(), calls);
        }
    }
    // From 1.27 on the token tells of itself.
    let drive = version("1.27.1").await;
    let found = drive.inspect(tokens::ALL_SCOPES).await;
    assert_eq!((found.granted_scopes, found.missing_scopes), (vec!["all".to_owned()], Vec::new()));
    assert!(drive.forge.requests().iter().all(|seen| !REVEALING.contains(&seen.path.as_str())));
}

#[tokio::test]
async fn ac_10_ac_16_a_refused_token_names_its_cause() {
    let drive = small().await;
    for (token, cause, status) in [
        (tokens::UNKNOWN, RejectionCause::Unknown, 401),
        (tokens::DELETED, RejectionCause::Unknown, 401),
        (tokens::BLOCKED, RejectionCause::Blocked, 403),
        (tokens::INACTIVE, RejectionCause::Blocked, 403),
        (tokens::PASSWORD, RejectionCause::Blocked, 403),
    ] {
        let found = drive.inspect(token).await;
        assert_eq!(found.failure, Some(ProviderError::CredentialRejected { cause, status }), "{token}");
        let result = check(&found, Check::Authentication);
        assert_eq!((result.outcome, result.reason.as_str()), (Outcome::Fail, "CREDENTIAL_REJECTED"));
        assert_eq!(result.http_status, Some(status));
        assert_eq!(outcome(&found, Check::Webhooks).0, Outcome::Skipped);
        assert!(found.account.is_none());
    }
    // A refused token is asked for nothing more.
    assert!(drive.forge.requests().iter().all(|seen| !REVEALING.contains(&seen.path.as_str())));
}

#[tokio::test]
async fn ac_15_ac_19_a_weak_token_works_for_what_it_may_do() {
    for told in ["1.27.0", "1.23.0"] {
        let drive = version(told).await;
        let found = drive.inspect(tokens::READ_ONLY).await;
        assert_eq!(found.failure, None);
        assert_eq!(found.missing_scopes, ["write:repository"]);
        assert_eq!(outcome(&found, Check::Scopes), (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"));
        assert!(check(&found, Check::Scopes).message.contains("MANAGE_WEBHOOKS needs write:repository"));
        // The rows say that its user is an administrator; the token is none.
        assert_eq!(can(&found), [Capability::Yes, Capability::Yes, Capability::No]);
        assert_eq!(outcome(&found, Check::Webhooks), (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"));
        assert!(drive.forge.requests().iter().all(|seen| !seen.path.contains("/hooks")));
    }
}

#[tokio::test]
async fn ac_18_a_token_that_may_not_name_its_user_is_accepted_by_what_it_is_refused() {
    for gitea in
        [GiteaConfig { version: "1.26.0".to_owned(), ..GiteaConfig::default() }, GiteaConfig::forgejo()]
    {
        let drive = started(gitea).await;
        let found = drive.inspect(tokens::REPOSITORY_ONLY).await;
        assert_eq!(found.failure, None);
        assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Pass);
        assert_eq!(outcome(&found, Check::Identity).0, Outcome::Skipped);
        assert_eq!(found.account, None);
        assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"));
        assert_eq!(can(&found)[..2], [Capability::Yes, Capability::Yes]);
    }
    // From 1.27 on the token names its user all the same.
    let found = small().await.inspect(tokens::REPOSITORY_ONLY).await;
    assert_eq!(found.account.map(|account| account.login).as_deref(), Some("casey"));

    let useless = small().await.inspect(tokens::USER_ONLY).await;
    assert!(matches!(useless.failure, Some(ProviderError::ScopeMissing { .. })));
    assert_eq!(outcome(&useless, Check::Scopes).0, Outcome::Fail);
    assert!(useless.account.is_some());

    let drive = small().await;
    let wanted = [CapabilityType::ReadCode];
    let enough = drive.driver.inspect(&drive.api(tokens::READ_ONLY), &wanted).await;
    assert!(enough.failure.is_none() && enough.missing_scopes.is_empty());
    assert!(enough.checks.iter().all(|check| !matches!(check.outcome, Outcome::Fail | Outcome::Warn)));
}

#[tokio::test]
async fn a_token_for_public_repositories_is_told_as_such() {
    for told in ["1.27.0", "1.23.0"] {
        let drive = version(told).await;
        let found = drive.inspect(tokens::PUBLIC_ONLY).await;
        assert_eq!(found.failure, None);
        assert_eq!(outcome(&found, Check::Scopes), (Outcome::Warn, "CREDENTIAL_PUBLIC_ONLY"));
        // Its user's own listing shows private ones, which it may not open.
        assert_eq!(outcome(&found, Check::Webhooks).0, Outcome::Pass);
        let rows = drive.rows_of(tokens::PUBLIC_ONLY, &list(Walk::Fan)).await.expect("rows");
        let all = drive.rows(&list(Walk::Fan)).await.expect("rows");
        assert!(!rows.is_empty() && rows.len() < all.len());
        let hidden = all.iter().find(|row| !rows.contains(row)).expect("a private one");
        let refused = drive.driver.repository(&drive.api(tokens::PUBLIC_ONLY), &hidden.provider_id).await;
        assert_eq!(refused, Err(ProviderError::ScopeMissing { scopes: Vec::new() }));
    }
}

#[tokio::test]
async fn ac_11_an_old_server_is_refused_with_both_versions() {
    for (told, minimum) in
        [("1.19.4", "1.20"), ("6.0.2+gitea-1.21.8", "7.0"), ("1.21.11-1+0-gitea-1.21.11", "7.0")]
    {
        let found = version(told).await.inspect(tokens::GOOD).await;
        let error = ProviderError::VersionUnsupported { found: told.to_owned(), minimum };
        assert_eq!(found.failure, Some(error), "{told}");
        assert_eq!(outcome(&found, Check::ServerVersion), (Outcome::Fail, "PROVIDER_VERSION_UNSUPPORTED"));
    }
    for told in ["1.20.1", "7.0.0+gitea-1.22.0", "1.26.0+dev-123-g3db3c05", "26.0.0"] {
        let found = version(told).await.inspect(tokens::GOOD).await;
        assert_eq!((&found.failure, found.server_version.as_str()), (&None, told));
    }
    let found = version("nonsense").await.inspect(tokens::GOOD).await;
    assert_eq!(outcome(&found, Check::ServerVersion), (Outcome::Warn, "PROVIDER_VERSION_UNKNOWN"));
}

#[tokio::test]
async fn a_version_that_is_closed_to_narrow_tokens_is_asked_without() {
    let drive = version("1.20.0").await;
    let found = drive.inspect(tokens::GOOD).await;
    assert_eq!((&found.failure, found.server_version.as_str()), (&None, "1.20.0"));
    let asked = drive.forge.requests_to("/gitea/api/v1/version");
    assert_eq!(
        asked.iter().map(|seen| seen.header("authorization").is_some()).collect::<Vec<_>>(),
        [true, false]
    );
    // Where strangers are told nothing either, it stays unknown.
    let closed =
        GiteaConfig { version: "1.20.0".to_owned(), sign_in_required: true, ..GiteaConfig::default() };
    let found = started(closed).await.inspect(tokens::GOOD).await;
    assert_eq!((&found.failure, found.server_version.as_str()), (&None, ""));
    assert_eq!(outcome(&found, Check::ServerVersion).0, Outcome::Skipped);
}

#[tokio::test]
async fn ac_14_links_that_name_localhost_are_told() {
    for (root, reason) in [
        ("http://localhost:3000", "PROVIDER_LINKS_LOCALHOST"),
        ("https://other.example/git", "PROVIDER_LINKS_FOREIGN_HOST"),
    ] {
        // A user without any repository is told, too.
        for repositories in [25, 0] {
            let config =
                GiteaConfig { root_url: Some(root.to_owned()), repositories, ..GiteaConfig::default() };
            let drive = started(config).await;
            let found = drive.inspect(tokens::GOOD).await;
            assert_eq!(found.failure, None);
            assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Warn, reason));
            assert!(check(&found, Check::ListRepositories).remedy.contains("ROOT_URL"));
            let rows = drive.rows(&list(Walk::Fan)).await.expect("rows");
            assert!(rows.iter().all(|row| row.foreign_clone_host));
        }
    }
}

#[tokio::test]
async fn webhooks_need_an_administrator_and_a_server_that_has_them() {
    let drive = small().await;
    // The second user may only read.
    let found = drive.inspect(tokens::SECOND).await;
    assert_eq!((&found.failure, found.capabilities.manage_webhooks), (&None, Capability::No));
    assert_eq!(outcome(&found, Check::Webhooks), (Outcome::Warn, "WEBHOOK_PERMISSION_MISSING"));
    // More repositories than were looked at: one of them may do.
    let many = started(GiteaConfig { repositories: 900, ..GiteaConfig::default() }).await;
    let found = many.inspect(tokens::SECOND).await;
    assert_eq!(found.capabilities.manage_webhooks, Capability::Unknown);
    let disabled = started(GiteaConfig { webhooks_disabled: true, ..GiteaConfig::default() }).await;
    let found = disabled.inspect(tokens::GOOD).await;
    assert_eq!((&found.failure, found.capabilities.manage_webhooks), (&None, Capability::No));
    assert!(check(&found, Check::Webhooks).remedy.contains("DISABLE_WEBHOOKS"));
    // What is sent along with deliveries stands in every hook, so none is ever read.
    let asked = drive.forge.requests();
    assert!(asked.iter().filter(|seen| seen.path.ends_with("/hooks")).all(|seen| {
        seen.param("page").is_some_and(|page| page.parse::<u64>().is_ok_and(|page| page > 1_000))
    }));
}

/// Scripts the answer of `/user`, and before it that of the longer path.
fn answer_user(drive: &Drive, status: u16, body: &'static str) {
    drive.forge.respond_once("GET", "/gitea/api/v1/user/repos", 200, JSON, "[]");
    drive.forge.respond_once("GET", "/gitea/api/v1/user", status, JSON, body);
}

#[tokio::test]
async fn ac_18_h48_a_bare_success_is_no_identity() {
    let drive = small().await;
    drive.forge.set_fault(Fault::FakeSuccess);
    let found = drive.inspect(tokens::GOOD).await;
    assert!(matches!(found.failure, Some(ProviderError::Failed { .. })), "{:?}", found.failure);
    drive.forge.clear_faults();
    for (body, rejected) in [("null", true), (r#"{"id":null}"#, true), (r#"{"login":"x"}"#, false)] {
        answer_user(&drive, 200, body);
        let found = drive.inspect(tokens::GOOD).await;
        let is_rejected = matches!(found.failure, Some(ProviderError::CredentialRejected { .. }));
        assert_eq!(is_rejected, rejected, "{body}: {:?}", found.failure);
        assert!(found.failure.is_some() && found.account.is_none());
    }
    drive.forge.assert_no_leftovers();
}

#[tokio::test]
async fn what_is_no_gitea_is_a_mismatch() {
    for fault in [Fault::HtmlOk, Fault::HtmlSignIn, Fault::NotFoundHtml] {
        let drive = small().await;
        drive.forge.set_fault(fault.clone());
        let found = drive.inspect(tokens::GOOD).await;
        let is_mismatch = matches!(found.failure, Some(ProviderError::Mismatch { .. }));
        assert!(is_mismatch, "{fault:?}: {:?}", found.failure);
        assert_eq!(found.checks.len(), 7);
    }
    // Others tell a version at that path, too.
    let drive = small().await;
    drive.forge.set_fault(Fault::NotFoundHtml);
    drive.forge.respond_once("GET", "/gitea/api/v1/version", 200, JSON, r#"{"version":"2.3.0"}"#);
    let found = drive.inspect(tokens::GOOD).await;
    assert_ne!(outcome(&found, Check::ProviderMatch).0, Outcome::Pass);
}

#[tokio::test]
async fn a_proxy_that_asks_for_a_person_is_no_dead_token() {
    let drive = small().await;
    drive.forge.fault_on("/gitea/api/v1/user", Fault::HtmlOk, usize::MAX);
    let found = drive.inspect(tokens::GOOD).await;
    assert!(
        matches!(found.failure, Some(ProviderError::Failed { status: Some(200), .. })),
        "{:?}",
        found.failure
    );
    drive.forge.clear_faults();
    drive.forge.set_fault(Fault::RateLimited(Some("3600".to_owned())));
    let found = drive.inspect(tokens::GOOD).await;
    assert!(matches!(found.failure, Some(ProviderError::RateLimited { .. })), "{:?}", found.failure);
}

#[tokio::test]
async fn h21_h42_an_account_is_taken_over_clean() {
    let drive = small().await;
    drive.forge.edit_gitea_token(tokens::GOOD, |token| {
        token.name = format!("\u{1b}[31mred\u{202e} {}", "x".repeat(1_000_000));
        token.email = tokens::GOOD.to_owned();
    });
    let account = drive.inspect(tokens::GOOD).await.account.expect("an account");
    assert!(account.display_name.starts_with("[31mred xxx"));
    assert!(account.display_name.chars().count() <= 256);
    assert!(!account.email.contains(tokens::GOOD));
}

// --- one repository ---

#[tokio::test]
async fn a_repository_is_found_by_number_name_and_clone_url() {
    let drive = small().await;
    let first = drive.rows(&list(Walk::Chain)).await.expect("rows").remove(0);
    assert_eq!(first.full_name, "acme/website");
    for what in [
        Lookup::FullName("acme/website".to_owned()),
        Lookup::FullName("/ACME/Website/".to_owned()),
        Lookup::CloneUrl(first.clone_https_url.clone()),
        Lookup::CloneUrl(first.clone_ssh_url.clone()),
        Lookup::CloneUrl("ssh://git@127.0.0.1:2222/acme/website.git".to_owned()),
        Lookup::CloneUrl(first.clone_https_url.replace("http://", "http://casey:secret@")),
        Lookup::CloneUrl(first.clone_https_url.replace(".git", "/src/branch/main")),
    ] {
        let found = drive.lookup(what.clone()).await;
        assert_eq!(found.map(|row| row.provider_id), Ok(first.provider_id.clone()), "{what:?}");
    }
    for what in [
        Lookup::FullName("acme/nothing".to_owned()),
        Lookup::FullName("website".to_owned()),
        Lookup::FullName("acme/web/site".to_owned()),
        Lookup::FullName("acme/..".to_owned()),
        Lookup::FullName(String::new()),
        Lookup::CloneUrl("https://elsewhere.test/acme/website.git".to_owned()),
        Lookup::CloneUrl("git@elsewhere.test:acme/website.git".to_owned()),
        Lookup::CloneUrl("file:///etc/passwd".to_owned()),
    ] {
        assert_eq!(drive.lookup(what.clone()).await, Err(ProviderError::NotFound), "{what:?}");
    }
}

#[tokio::test]
async fn h22_an_id_is_a_number_or_nothing() {
    let drive = small().await;
    let api = drive.api(tokens::GOOD);
    for id in ["", "0", "01", "-1", "+1", "1/hooks", "..", "99999999999999999999", "\u{661}"] {
        assert_eq!(drive.driver.repository(&api, id).await, Err(ProviderError::NotFound), "{id}");
    }
    assert!(drive.forge.requests().is_empty());
    assert_eq!(drive.driver.repository(&api, "999999999").await, Err(ProviderError::NotFound));
}

#[tokio::test]
async fn ac_64_a_renamed_repository_is_found_by_its_old_name() {
    // The configured URL is out of reach and has no sub-path: only the name is taken from the location.
    let config =
        GiteaConfig { root_url: Some("https://elsewhere.test".to_owned()), ..GiteaConfig::default() };
    let drive = started(config).await;
    let found = drive.lookup(Lookup::FullName("acme/old-website".to_owned())).await.expect("a row");
    assert_eq!(found.full_name, "acme/website");
    let clone_url = Lookup::CloneUrl("https://elsewhere.test/acme/old-website.git".to_owned());
    assert_eq!(drive.lookup(clone_url).await.map(|row| row.full_name), Ok("acme/website".to_owned()));
    // Old names that lead to each other end.
    drive.forge.forget_requests();
    for _ in 0..9 {
        let headers = [("location", "/api/v1/repos/acme/website")];
        drive.forge.respond_once("GET", "/gitea/api/v1/repos/acme/website", 301, &headers, "");
    }
    let outcome = drive.lookup(Lookup::FullName("acme/website".to_owned())).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
    assert!(drive.forge.requests().len() < 6);
}

// --- what is sent ---

#[tokio::test]
async fn every_request_is_one_that_all_descriptions_have() {
    let drive = started(GiteaConfig { repositories: 220, organizations: 12, ..GiteaConfig::default() }).await;
    let all = List { query: "e/repo".to_owned(), include_archived: false, ..list(Walk::Fan) };
    drive.rows(&all).await.expect("rows");
    let rows = drive.rows(&list(Walk::Chain)).await.expect("rows");
    for token in [tokens::GOOD, tokens::SECOND, tokens::OAUTH, tokens::REPOSITORY_ONLY] {
        drive.inspect(token).await;
    }
    drive.rows_of(tokens::REPOSITORY_ONLY, &list(Walk::Fan)).await.expect("rows");
    let api = drive.api(tokens::GOOD);
    let page = drive.driver.namespaces(&api, &list(Walk::Chain), None).await.expect("a page");
    drive.driver.namespaces(&api, &list(Walk::Chain), page.next.first()).await.expect("a page");
    drive.driver.answers(&api).await.expect("an answer");
    for name in ["acme/website", "acme/nothing", "acme/old-website"] {
        let _ = drive.lookup(Lookup::FullName(name.to_owned())).await;
    }
    for kind in [RefKind::Branch, RefKind::Tag] {
        drive.refs(&rows[0].provider_id, &drive::refs(kind, 7)).await.expect("refs");
    }
    let requests = drive.forge.requests();
    assert!(requests.len() > 40);
    for (description, lacks_token) in [
        (include_str!("../fixtures/providers/gitea/openapi/gitea-1.27.0.trimmed.json"), false),
        (include_str!("../fixtures/providers/gitea/openapi/gitea-1.22.6.trimmed.json"), true),
        (include_str!("../fixtures/providers/gitea/openapi/forgejo-11.0.3.trimmed.json"), true),
    ] {
        let description = Description::read(description);
        let problems: BTreeSet<String> = requests
            .iter()
            .filter(|seen| !REVEALING.contains(&seen.path.as_str()))
            // Asked of every version: one that does not have it says so.
            .filter(|seen| !(lacks_token && seen.path.ends_with("/token")))
            .flat_map(|seen| {
                let path = seen.path.strip_prefix("/gitea").unwrap_or(&seen.path);
                description.problems(seen, path, &[])
            })
            .collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

#[tokio::test]
async fn the_token_stands_in_one_header_and_nowhere_else() {
    let drive = small().await;
    for (token, scheme) in [(tokens::GOOD, "token"), (tokens::OAUTH, "Bearer")] {
        drive.forge.forget_requests();
        assert_eq!(drive.inspect(token).await.failure, None);
        drive.rows_of(token, &list(Walk::Fan)).await.expect("rows");
        for seen in drive.forge.requests() {
            let carries =
                |(name, value): &&(String, String)| value.contains(token) && name != "authorization";
            assert!(seen.headers.iter().find(carries).is_none());
            assert!(!seen.target().contains(token) && seen.body.is_empty());
            assert_eq!(seen.header("authorization"), Some(format!("{scheme} {token}").as_str()));
        }
    }
}

#[tokio::test]
async fn h07_a_redirect_to_another_origin_sees_no_token() {
    let drive = small().await;
    let other = Forge::small().await.expect("a forge");
    let fault = Fault::RedirectOtherOrigin { status: 302, origin: other.origin().to_owned() };
    drive.forge.set_fault(fault);
    let outcome = drive.rows(&list(Walk::Chain)).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
    assert!(drive.inspect(tokens::GOOD).await.failure.is_some());
    let _ = drive.lookup(Lookup::FullName("acme/website".to_owned())).await;
    let seen: Vec<Seen> = other.requests();
    assert!(seen.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn h42_h43_nothing_of_a_body_gets_into_an_error() {
    for fault in [Fault::TokenEcho, Fault::Error5Mb] {
        let drive = small().await;
        drive.forge.set_fault(fault);
        let found = drive.inspect(tokens::GOOD).await;
        let text = format!("{found:?}");
        assert!(!text.contains(tokens::GOOD) && !text.contains("a very long error"));
        assert!(matches!(found.failure, Some(ProviderError::Failed { status: Some(500), .. })));
    }
}
