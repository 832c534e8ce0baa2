//! What a token is: the checks of an inspection.

use gitmoor::domain::credential::{Capability, CapabilityType, ExpireTimeSource};
use gitmoor::domain::verification::{Check, CheckResult, Outcome};
use gitmoor::provider::{Inspection, Provider, ProviderError, RejectionCause, Restriction};

use super::{API, Fault, Github, GithubConfig, Setup, Walk, known, list};

const JSON: [(&str, &str); 1] = [("content-type", "application/json; charset=utf-8")];

fn check(inspection: &Inspection, check: Check) -> &CheckResult {
    inspection.checks.iter().find(|result| result.check == check).expect("the check was made")
}

fn outcome(inspection: &Inspection, of: Check) -> (Outcome, &str) {
    let result = check(inspection, of);
    (result.outcome, result.reason.as_str())
}

fn can(inspection: &Inspection) -> [Capability; 3] {
    CapabilityType::ALL.map(|which| inspection.capabilities.of(which))
}

#[tokio::test]
async fn a_good_token_passes_every_check() {
    let setup = Setup::small().await;
    let found = setup.inspect(known::GOOD).await;
    assert_eq!(found.failure, None);
    let not_passed: Vec<_> = found.checks.iter().filter(|check| check.outcome != Outcome::Pass).collect();
    assert!(not_passed.is_empty(), "{not_passed:?}");
    assert_eq!(found.checks.len(), 7);
    let account = found.account.clone().expect("an account");
    assert_eq!((account.login.as_str(), account.bot), ("casey", false));
    // A hidden address is null.
    assert_eq!(account.email, "");
    assert_eq!(found.granted_scopes, ["repo", "read:org"]);
    assert!(found.missing_scopes.is_empty());
    assert_eq!(can(&found), [Capability::Yes; 3]);
    assert_eq!(found.expire_time_source, ExpireTimeSource::Provider);
    // 10:06:09 +0100.
    assert_eq!(found.expire_time.expect("an end").unix_seconds() % 86_400, 9 * 3_600 + 6 * 60 + 9);
    assert_eq!(found.server_version, "3.14.2");
    assert!(found.server_time.is_some());
    // The version stands in a header of every answer, so nothing more is asked for it.
    assert!(setup.forge.requests_to(&format!("{API}/meta")).is_empty());
    assert_eq!(setup.forge.requests().len(), 3);
}

#[tokio::test]
async fn ac_10_ac_16_a_refused_token_names_its_cause() {
    let setup = Setup::small().await;
    for (token, cause, status) in [
        (known::UNKNOWN, RejectionCause::Unknown, 401),
        // GitHub words all three alike.
        (known::EXPIRED, RejectionCause::Unknown, 401),
        (known::REVOKED, RejectionCause::Unknown, 401),
        (known::SUSPENDED, RejectionCause::Blocked, 403),
    ] {
        let found = setup.inspect(token).await;
        assert_eq!(found.failure, Some(ProviderError::CredentialRejected { cause, status }));
        assert_eq!(outcome(&found, Check::ProviderMatch).0, Outcome::Pass);
        let result = check(&found, Check::Authentication);
        assert_eq!((result.outcome, result.reason.as_str()), (Outcome::Fail, "CREDENTIAL_REJECTED"));
        assert_eq!(result.http_status, Some(status));
        assert!(!result.remedy.is_empty());
        assert_eq!(outcome(&found, Check::Webhooks).0, Outcome::Skipped);
        assert!(found.account.is_none());
    }
}

#[tokio::test]
async fn ac_15_ac_19_a_classic_token_can_do_what_its_scopes_hold() {
    use Capability::{No, Yes};
    let setup = Setup::small().await;
    for (token, expected, missing, scopes) in [
        (known::GOOD, [Yes, Yes, Yes], &[][..], (Outcome::Pass, "")),
        (known::OAUTH, [Yes, Yes, Yes], &[], (Outcome::Pass, "")),
        (known::OLD_FORM, [Yes, Yes, Yes], &[], (Outcome::Pass, "")),
        (known::PUBLIC, [Yes, Yes, Yes], &[], (Outcome::Warn, "PUBLIC_REPOSITORIES_ONLY")),
        (
            known::READ_ONLY,
            [Yes, No, No],
            &["repo", "admin:repo_hook"],
            (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"),
        ),
        (
            known::SCOPELESS,
            [Yes, No, No],
            &["repo", "admin:repo_hook"],
            (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"),
        ),
    ] {
        let found = setup.inspect(token).await;
        assert_eq!(found.failure, None, "{token}");
        assert_eq!(can(&found), expected, "{token}");
        assert_eq!(found.missing_scopes, missing, "{token}");
        assert_eq!(outcome(&found, Check::Scopes), scopes, "{token}");
        assert_eq!(outcome(&found, Check::ListRepositories).0, Outcome::Pass, "{token}");
    }
    let useless = [CapabilityType::ReadCode];
    let found = Github.inspect(&setup.api(known::SCOPELESS), &useless).await;
    assert_eq!(found.failure, Some(ProviderError::ScopeMissing { scopes: vec!["repo".to_owned()] }));
    assert_eq!(outcome(&found, Check::Scopes), (Outcome::Fail, "CREDENTIAL_SCOPE_MISSING"));
    let enough = Github.inspect(&setup.api(known::SCOPELESS), &[CapabilityType::ListRepositories]).await;
    assert!(enough.failure.is_none() && enough.missing_scopes.is_empty());
    assert!(enough.checks.iter().all(|check| check.outcome != Outcome::Fail));
}

#[tokio::test]
async fn ac_18_a_fine_grained_token_shows_by_its_calls_what_it_may_do() {
    let setup = Setup::small().await;
    let found = setup.inspect(known::FINE).await;
    assert_eq!(found.failure, None);
    assert_eq!(found.account.clone().map(|account| account.login).as_deref(), Some("casey"));
    assert!(found.granted_scopes.is_empty() && found.missing_scopes.is_empty());
    assert_eq!(outcome(&found, Check::Scopes).0, Outcome::Skipped);
    // Hooks that may be read may not be written.
    assert_eq!(can(&found), [Capability::Yes, Capability::Yes, Capability::Unknown]);

    let weak = setup.inspect(known::FINE_METADATA).await;
    assert_eq!(weak.failure, None);
    assert_eq!(can(&weak), [Capability::Yes, Capability::No, Capability::No]);
    assert_eq!(weak.missing_scopes, ["contents=read", "repository_hooks=write"]);
    assert_eq!(outcome(&weak, Check::Scopes), (Outcome::Warn, "CREDENTIAL_SCOPE_MISSING"));
}

#[tokio::test]
async fn an_installation_token_is_good_although_it_has_no_user() {
    let setup = Setup::small().await;
    let found = setup.inspect(known::INSTALLATION).await;
    assert_eq!(found.failure, None);
    assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Pass);
    assert_eq!(outcome(&found, Check::Identity).0, Outcome::Skipped);
    assert_eq!(outcome(&found, Check::ListRepositories).0, Outcome::Pass);
    assert_eq!(found.account, None);
    assert_eq!(can(&found), [Capability::Yes, Capability::Yes, Capability::Unknown]);
    // A 403 alone is no proof: only these words are.
    for _ in 0..2 {
        setup.forge.respond_once("GET", &format!("{API}/user"), 403, &JSON, r#"{"message":"Forbidden"}"#);
    }
    let found = setup.inspect(known::INSTALLATION).await;
    assert_eq!(found.failure, Some(ProviderError::Forbidden));
}

#[tokio::test]
async fn the_end_of_a_token_is_told_unless_it_has_none() {
    let setup = Setup::small().await;
    for (token, ends) in [
        (known::GOOD, true),
        (known::EXPIRING, true),
        (known::FINE, true),
        (known::ENDLESS, false),
        (known::OAUTH, false),
    ] {
        let found = setup.inspect(token).await;
        assert_eq!(found.expire_time.is_some(), ends, "{token}");
        let source = if ends { ExpireTimeSource::Provider } else { ExpireTimeSource::Unknown };
        assert_eq!(found.expire_time_source, source, "{token}");
    }
    // The present time was seen there, on a token that works.
    setup
        .forge
        .edit_github_token(known::GOOD, |token| token.expires = Some("2020-01-01 00:00:00 UTC".to_owned()));
    let found = setup.inspect(known::GOOD).await;
    assert_eq!((found.expire_time, found.expire_time_source), (None, ExpireTimeSource::Unknown));
}

#[tokio::test]
async fn ac_11_an_old_server_is_refused_with_both_versions() {
    // It refuses the version of the API, too, with a 400 that still bears its own version.
    let old = GithubConfig { version: Some("3.8.17".to_owned()), ..GithubConfig::default() };
    let found = Setup::new(old).await.inspect(known::GOOD).await;
    let refused = ProviderError::VersionUnsupported { found: "3.8.17".to_owned(), minimum: "3.9" };
    assert_eq!(found.failure, Some(refused.clone()));
    assert_eq!(outcome(&found, Check::ServerVersion), (Outcome::Fail, "PROVIDER_VERSION_UNSUPPORTED"));
    assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Skipped);
    let newest = GithubConfig { version: Some("3.21.0".to_owned()), ..GithubConfig::default() };
    assert_eq!(Setup::new(newest).await.inspect(known::GOOD).await.failure, None);

    // Behind a proxy that drops the header, the body of /meta tells.
    let setup = Setup::new(GithubConfig { version: None, ..GithubConfig::default() }).await;
    setup.forge.respond_once("GET", &format!("{API}/meta"), 200, &JSON, r#"{"installed_version":"3.8.17"}"#);
    assert_eq!(setup.inspect(known::GOOD).await.failure, Some(refused));
    let meta = setup.forge.requests_to(&format!("{API}/meta"));
    assert_eq!(meta.len(), 1);
    assert_eq!(meta[0].header("x-github-api-version"), None);
    // Without any version it is the cloud behind a gateway.
    let found = setup.inspect(known::GOOD).await;
    assert_eq!((found.failure, found.server_version.as_str()), (None, ""));
    setup.forge.respond_once("GET", &format!("{API}/meta"), 200, &JSON, r#"{"installed_version":"odd"}"#);
    let found = setup.inspect(known::GOOD).await;
    assert_eq!(outcome(&found, Check::ServerVersion), (Outcome::Warn, "PROVIDER_VERSION_UNKNOWN"));
}

#[tokio::test]
async fn ac_14_links_that_name_localhost_are_told() {
    for (external, expected) in [
        ("http://localhost", (Outcome::Warn, "PROVIDER_LINKS_LOCALHOST")),
        ("https://other.example", (Outcome::Warn, "PROVIDER_LINKS_FOREIGN_HOST")),
        // Through a gateway the cloud keeps its own name.
        ("https://github.com", (Outcome::Pass, "")),
        ("https://acme.ghe.com", (Outcome::Pass, "")),
    ] {
        let config = GithubConfig { external_url: Some(external.to_owned()), ..GithubConfig::default() };
        let found = Setup::new(config).await.inspect(known::GOOD).await;
        assert_eq!(found.failure, None);
        assert_eq!(outcome(&found, Check::ListRepositories), expected, "{external}");
    }
}

#[tokio::test]
async fn organizations_that_single_sign_on_hides_are_a_warning() {
    let setup = Setup::small().await;
    let found = setup.inspect(known::UNAUTHORIZED_SSO).await;
    assert_eq!(found.failure, None);
    assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Warn, "SINGLE_SIGN_ON_REQUIRED"));
    assert!(check(&found, Check::ListRepositories).message.contains("21955866"));
    assert_eq!(can(&found)[0], Capability::Yes);
}

#[tokio::test]
async fn a_rule_of_an_organization_is_no_missing_right() {
    for (words, by) in [
        (
            "`acme` forbids access via a personal access token (classic). Please use a GitHub App",
            Restriction::TokenPolicy,
        ),
        ("the `acme` organization has an IP allow list enabled", Restriction::AddressList),
        ("the `acme` organization has enabled OAuth App access restrictions", Restriction::AppPolicy),
        ("Resource protected by organization SAML enforcement.", Restriction::SingleSignOn),
    ] {
        let setup = Setup::small().await;
        setup.forge.edit_github_token(known::GOOD, |token| token.refused_with = Some(words.to_owned()));
        let found = setup.inspect(known::GOOD).await;
        let error = ProviderError::Restricted { by };
        assert_eq!(found.failure, Some(error.clone()), "{words}");
        assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Pass);
        assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Fail, by.as_str()));
        assert!(!check(&found, Check::ListRepositories).remedy.is_empty());
        assert_eq!(setup.rows(&list(Walk::Chain)).await, Err(error));
    }
}

#[tokio::test]
async fn h34_every_form_of_a_limit_is_a_limit_and_no_dead_token() {
    let words = r#"{"message":"You have exceeded a secondary rate limit. Please wait a few minutes."}"#;
    let locked = r#"{"message":"Maximum number of login attempts exceeded. Please try again later."}"#;
    let denied = r#"{"message":"Must have push access to repository"}"#;
    let reset = (std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs()
        + 900)
        .to_string();
    let primary =
        [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)];
    let remaining =
        [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "4000"), ("retry-after", "900")];
    for (status, headers, body, seconds) in [
        (403, &[][..], words, 60..=60),
        (403, &[("gh-limited-by", "search-elapsed-time-shared-grouped")][..], denied, 60..=60),
        (403, &[][..], locked, 60..=60),
        (403, &primary[..], "", 800..=900),
        (429, &primary[..], denied, 800..=900),
        // `exchanges/abuse-403-retry-after.json`: with these words.
        (403, &remaining[..], denied, 900..=900),
    ] {
        let setup = Setup::small().await;
        setup.forge.respond_once(
            "GET",
            &format!("{API}/user/repos"),
            status,
            &[&JSON, headers].concat(),
            body,
        );
        match setup.rows(&list(Walk::Chain)).await {
            Err(ProviderError::RateLimited { after }) => {
                assert!(seconds.contains(&after.as_secs()), "{after:?}")
            }
            other => panic!("{status} {headers:?} {body}: {other:?}"),
        }
    }
    let setup = Setup::small().await;
    setup.forge.set_fault(Fault::RateLimited(Some("3600".to_owned())));
    let found = setup.inspect(known::GOOD).await;
    assert!(matches!(found.failure, Some(ProviderError::RateLimited { .. })), "{:?}", found.failure);
    assert_eq!(outcome(&found, Check::ProviderMatch), (Outcome::Fail, "PROVIDER_RATE_LIMITED"));
}

#[tokio::test]
async fn the_quota_is_told_where_there_is_one() {
    let rate_limit = Some((5_000, 4_982, 4_102_444_800));
    let setup = Setup::new(GithubConfig { rate_limit, ..GithubConfig::default() }).await;
    let told = setup.inspect(known::GOOD).await.rate_limit.expect("a quota");
    assert_eq!((told.limit, told.remaining), (5_000, 4_982));
    // Enterprise Server has none unless its administrator sets one.
    assert_eq!(Setup::small().await.inspect(known::GOOD).await.rate_limit, None);
}

#[tokio::test]
async fn ac_18_h48_a_bare_success_is_no_identity() {
    let setup = Setup::small().await;
    setup.forge.set_fault(Fault::FakeSuccess);
    let found = setup.inspect(known::GOOD).await;
    assert!(matches!(found.failure, Some(ProviderError::Failed { .. })), "{:?}", found.failure);
    setup.forge.clear_faults();
    for (body, rejected) in [("null", true), ("{\"id\":null}", true), ("{\"name\":\"x\"}", false)] {
        setup.forge.respond_once("GET", &format!("{API}/user"), 200, &JSON, body);
        // The first prefix fits the listing, too, so the identity is asked for first and alone.
        let found = setup.inspect(known::GOOD).await;
        let is_rejected = matches!(found.failure, Some(ProviderError::CredentialRejected { .. }));
        assert_eq!(is_rejected, rejected, "{body}: {:?}", found.failure);
        assert!(found.failure.is_some() && found.account.is_none());
    }
    setup.forge.assert_no_leftovers();
}

#[tokio::test]
async fn ac_18_what_is_shut_for_everybody_proves_no_token() {
    let blocked = r#"{"message":"Repository access blocked","block":{"reason":"tos"}}"#;
    for (status, body) in [(451, "{}"), (403, blocked)] {
        let setup = Setup::small().await;
        setup.forge.respond_once("GET", &format!("{API}/user"), status, &JSON, body);
        let found = setup.inspect(known::GOOD).await;
        let by = Restriction::RepositoryBlocked;
        assert_eq!(found.failure, Some(ProviderError::Restricted { by }));
        assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Fail);
        setup.forge.assert_no_leftovers();
    }
}

#[tokio::test]
async fn what_is_no_github_is_a_mismatch() {
    for fault in [Fault::HtmlOk, Fault::HtmlSignIn, Fault::NotFoundHtml] {
        let setup = Setup::small().await;
        setup.forge.set_fault(fault.clone());
        let found = setup.inspect(known::GOOD).await;
        assert!(
            matches!(found.failure, Some(ProviderError::Mismatch { .. })),
            "{fault:?}: {:?}",
            found.failure
        );
        assert_eq!(outcome(&found, Check::ProviderMatch), (Outcome::Fail, "PROVIDER_MISMATCH"));
        assert_eq!(found.checks.len(), 7);
    }
}

#[tokio::test]
async fn a_failing_listing_leaves_the_connection_without_use() {
    let setup = Setup::small().await;
    setup.forge.fault_on(&format!("{API}/user/repos"), Fault::GarbageJson, usize::MAX);
    let found = setup.inspect(known::GOOD).await;
    assert_eq!(outcome(&found, Check::Authentication).0, Outcome::Pass);
    assert_eq!(outcome(&found, Check::ListRepositories), (Outcome::Fail, "PROVIDER_ERROR"));
    assert!(matches!(found.failure, Some(ProviderError::Failed { .. })));
}

#[tokio::test]
async fn webhooks_need_an_administrator_and_the_exact_question_decides() {
    let setup = Setup::small().await;
    // The second user may only read, everywhere, and that is all there is.
    let found = setup.inspect(known::SECOND).await;
    assert_eq!(found.failure, None);
    assert_eq!(can(&found)[2], Capability::No);
    assert_eq!(outcome(&found, Check::Webhooks), (Outcome::Warn, "WEBHOOK_PERMISSION_MISSING"));
    // Among many repositories, the first ones without the role prove nothing.
    let setup = Setup::of(200).await;
    let found = setup.inspect(known::SECOND).await;
    assert_eq!((can(&found)[2], outcome(&found, Check::Webhooks).0), (Capability::Unknown, Outcome::Skipped));
    // Of a fine-grained token, the refusal for a repository that the user does not administer says nothing.
    let setup = Setup::of(1_000).await;
    setup.forge.edit_github_token(known::FINE_METADATA, |token| token.login = "robin".to_owned());
    let found = setup.inspect(known::FINE_METADATA).await;
    assert_eq!((can(&found)[2], outcome(&found, Check::Webhooks).0), (Capability::Unknown, Outcome::Skipped));
    assert_eq!(found.missing_scopes, ["contents=read"]);
    // `permissions.admin` speaks of the user; the token may still be refused.
    let setup = Setup::small().await;
    setup.forge.fault_on(&format!("{API}/repositories/"), Fault::ServerError, usize::MAX);
    let found = setup.inspect(known::GOOD).await;
    assert_eq!((can(&found)[2], outcome(&found, Check::Webhooks).0), (Capability::Unknown, Outcome::Warn));
    setup.forge.clear_faults();
    setup.forge.respond_once(
        "GET",
        &format!("{API}/repositories/"),
        404,
        &JSON,
        r#"{"message":"Not Found"}"#,
    );
    let found = setup.inspect(known::GOOD).await;
    assert_eq!(can(&found)[2], Capability::No);
    assert_eq!(outcome(&found, Check::Webhooks), (Outcome::Warn, "WEBHOOK_PERMISSION_MISSING"));
}

#[tokio::test]
async fn h21_h42_an_account_is_taken_over_clean() {
    let setup = Setup::small().await;
    setup.forge.edit_github_token(known::GOOD, |token| {
        token.name = format!("\u{1b}[31mred\u{202e} {}", "x".repeat(1_000_000));
        token.email = Some(known::GOOD.to_owned());
    });
    let account = setup.inspect(known::GOOD).await.account.expect("an account");
    assert!(account.display_name.starts_with("[31mred xxx"));
    assert!(account.display_name.chars().count() <= 256);
    assert_eq!(account.email, "");
}
