//! What CreateConnection and VerifyConnection say of each way in which an instance can be out of order.

use std::net::SocketAddr;
use std::sync::Arc;

use gitmoor::clock::{Clock, SystemClock};
use gitmoor::proto::v1;
use gitmoor::proto::v1::check_result::Check;
use gitmoor::proto::v1::connection::State;
use gitmoor::seal::{KeyFile, KeyRing};
use gitmoor::store::memory::MemoryStore;
use tokio::net::TcpListener;
use tonic::Code;

use super::fixture::{assert_fails_at, azure, check, gitlab, sides, started};
use crate::support::app::{Refused, Running, TestApp, connection, refused};
use crate::support::forge::{Fault, Forge, ForgeConfig, azure_tokens, gitlab_tokens};

/// Checks a refusal of CreateConnection and that it left nothing.
async fn assert_refused(app: &Running, wanted: v1::Connection, code: Code, reason: &str) -> Refused {
    let refusal = refused(app.create(wanted).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{refusal:?}");
    assert_eq!(refusal.domain, "gitmoor.dev");
    assert!(!refusal.message.is_empty());
    app.assert_nothing_stored(reason).await;
    refusal
}

async fn assert_draft_fails_at(app: &Running, wanted: v1::Connection, which: Check, reasons: &[&str]) {
    let verified = app.verify_draft(wanted).await.expect("a report, not an error");
    assert_fails_at(&verified.report.expect("a report"), which, reasons);
    assert!(verified.connection.is_none_or(|shown| shown.name.is_empty() && shown.credential.is_none()));
    app.assert_nothing_stored("a draft").await;
}

#[tokio::test]
async fn a_wrong_token_is_rejected_at_authentication() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let wrong = side.with_token("x", side.unknown);
        assert_draft_fails_at(
            &app,
            wrong.clone(),
            Check::Authentication,
            &["CREDENTIAL_REJECTED", "CREDENTIAL_INVALID"],
        )
        .await;
        let refusal = assert_refused(&app, wrong, Code::InvalidArgument, "CREDENTIAL_REJECTED").await;
        assert!(refusal.details.contains(&"BadRequest".to_owned()));
        let (field, reason) = &refusal.violations[0];
        assert!(field.starts_with("connection.credential"), "{field}");
        assert_eq!(reason, "CREDENTIAL_REJECTED");
    }
}

#[tokio::test]
async fn a_closed_port_is_unreachable_at_connect() {
    // Freed at once: nobody listens there now.
    let address = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let origin = format!("http://{address}");
    let app = TestApp::new().allow(&origin).start().await;
    for (provider, path, token) in
        [("gitlab", "", gitlab_tokens::GOOD), ("azure-devops", "/contoso", azure_tokens::GOOD)]
    {
        let dead = connection(provider, "x", &format!("{origin}{path}"), token);
        assert_draft_fails_at(&app, dead.clone(), Check::Connect, &["PROVIDER_UNREACHABLE"]).await;
        let refusal = assert_refused(&app, dead, Code::Unavailable, "PROVIDER_UNREACHABLE").await;
        assert_eq!(refusal.metadata["phase"], "connect");
        assert!(refusal.details.contains(&"RetryInfo".to_owned()));
    }
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_unreachable_at_dns() {
    let app = TestApp::new().allow("no-such-host.invalid").start().await;
    for (provider, path, token) in
        [("gitlab", "", gitlab_tokens::GOOD), ("azure-devops", "/contoso", azure_tokens::GOOD)]
    {
        let dead = connection(provider, "x", &format!("https://no-such-host.invalid{path}"), token);
        assert_draft_fails_at(&app, dead.clone(), Check::Dns, &["PROVIDER_UNREACHABLE"]).await;
        let refusal = assert_refused(&app, dead, Code::Unavailable, "PROVIDER_UNREACHABLE").await;
        assert_eq!(refusal.metadata["phase"], "dns");
    }
}

#[tokio::test]
async fn a_web_page_is_not_the_provider() {
    let (forge, app) = started().await;
    for fault in [Fault::HtmlOk, Fault::NotFoundHtml] {
        forge.clear_faults();
        forge.set_fault(fault.clone());
        let side = gitlab(&forge);
        assert_draft_fails_at(&app, side.connection("x"), Check::ProviderMatch, &["PROVIDER_MISMATCH"]).await;
        let refusal =
            assert_refused(&app, side.connection("x"), Code::InvalidArgument, "PROVIDER_MISMATCH").await;
        assert_eq!(refusal.violations[0].0, "connection.base_url", "{fault:?}");
    }
    // At Azure DevOps the sign-in page is what a refused token gets.
    forge.clear_faults();
    forge.set_fault(Fault::HtmlSignIn);
    let side = azure(&forge);
    assert_refused(&app, side.connection("x"), Code::InvalidArgument, "CREDENTIAL_REJECTED").await;
    forge.clear_faults();
    forge.set_fault(Fault::NotFoundHtml);
    assert_draft_fails_at(&app, side.connection("x"), Check::ProviderMatch, &["PROVIDER_MISMATCH"]).await;
    assert_refused(&app, side.connection("x"), Code::InvalidArgument, "PROVIDER_MISMATCH").await;
}

#[tokio::test]
async fn another_provider_is_a_mismatch() {
    let (forge, app) = started().await;
    let crossed = connection("gitlab", "x", &forge.azure_url(), gitlab_tokens::GOOD);
    assert_refused(&app, crossed, Code::InvalidArgument, "PROVIDER_MISMATCH").await;
    let crossed = connection("azure-devops", "x", &format!("{}/x", forge.gitlab_url()), azure_tokens::GOOD);
    assert_refused(&app, crossed, Code::InvalidArgument, "PROVIDER_MISMATCH").await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_shown() {
    let forge = Forge::start(ForgeConfig { tls: true, ..ForgeConfig::default() }).await.expect("a forge");
    let app = TestApp::new().allow(&forge.address().to_string()).start().await;
    let sha256 = ring::digest::digest(&ring::digest::SHA256, forge.leaf_der());
    let hex: String = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let bare = |text: &str| text.replace(':', "").to_lowercase();
    for side in sides(&forge) {
        let verified = app.verify_draft(side.connection("x")).await.expect("a report");
        let report = verified.report.expect("a report");
        assert_fails_at(&report, Check::Tls, &["PROVIDER_TLS_UNTRUSTED"]);
        let shown = report.certificate.expect("the certificate that was reached");
        assert!(shown.issuer.contains("Forge Test CA") && shown.subject.contains("forge.test"), "{shown:?}");
        assert_eq!(bare(&shown.sha256), hex);
        assert!(shown.not_after.is_some());
        let refusal =
            assert_refused(&app, side.connection("x"), Code::FailedPrecondition, "PROVIDER_TLS_UNTRUSTED")
                .await;
        assert!(refusal.metadata["issuer"].contains("Forge Test CA"), "{refusal:?}");
        assert_eq!(bare(&refusal.metadata["sha256"]), hex);
    }
    assert!(forge.requests().is_empty(), "nothing is sent before the certificate is trusted");
}

#[tokio::test]
async fn a_private_address_is_refused_by_rule() {
    let app = TestApp::new().start().await;
    for url in ["https://10.0.0.1/x", "https://127.0.0.1:8443/x", "https://[::1]/x", "https://localhost/x"] {
        for (provider, token) in [("gitlab", gitlab_tokens::GOOD), ("azure-devops", azure_tokens::GOOD)] {
            let private = connection(provider, "x", url, token);
            let refusal = assert_refused(&app, private, Code::InvalidArgument, "ENDPOINT_NOT_ALLOWED").await;
            assert_eq!(
                refusal.violations,
                [("connection.base_url".to_owned(), "ENDPOINT_NOT_ALLOWED".to_owned())]
            );
        }
    }
}

#[tokio::test]
async fn a_taken_name_is_told_with_its_owner() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let owner = app.create(side.connection("Taken")).await.expect("created");
        let calls = forge.requests().len();
        let refusal = refused(app.create(side.connection("taken")).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::AlreadyExists, "CONNECTION_NAME_TAKEN"));
        assert!(refusal.details.contains(&"ResourceInfo".to_owned()));
        assert_eq!(forge.requests().len(), calls, "the store is asked before the provider");
        assert_eq!(app.list("default").await.iter().filter(|c| c.provider == side.provider).count(), 1);
        assert_eq!(app.get(&owner.name).await.expect("it is there"), owner);
    }
    assert_eq!(app.events("default").await.len(), sides(&forge).len());
}

#[tokio::test]
async fn a_connection_in_order_passes_every_check() {
    for tls in [false, true] {
        let forge = Forge::start(ForgeConfig { tls, ..ForgeConfig::default() }).await.expect("a forge");
        let rule = if tls { forge.address().to_string() } else { forge.origin().to_owned() };
        let app = TestApp::new().allow(&rule).start().await;
        let ca = forge.ca_pem().unwrap_or_default().to_owned();
        for side in sides(&forge) {
            let mut wanted = side.connection("x");
            wanted.tls = Some(v1::connection::Tls { ca_certificates_pem: ca.clone() });
            let draft = app.verify_draft(wanted.clone()).await.expect("a report").report.expect("a report");
            let created = app.create(wanted).await.expect("created");
            let stored = app.verify(&created.name).await.expect("a report").report.expect("a report");
            for report in [draft, stored] {
                assert_eq!(report.result(), v1::Outcome::Pass, "{report:?}");
                let order: Vec<i32> = report.checks.iter().map(|result| result.check).collect();
                assert_eq!(order, (1..=11).collect::<Vec<i32>>(), "each check once, in order");
                for result in &report.checks {
                    let bare = !tls && result.check() == Check::Tls;
                    // A cloud tells no version, and a Data Center no permissions of a token.
                    let silent = matches!(
                        (side.provider, result.check()),
                        ("bitbucket-cloud", Check::ServerVersion) | ("bitbucket-data-center", Check::Scopes)
                    );
                    let wanted = if bare || silent { v1::Outcome::Skipped } else { v1::Outcome::Pass };
                    assert_eq!(result.outcome(), wanted, "{result:?}");
                }
                for which in [Check::Dns, Check::Connect] {
                    assert!(check(&report, which).duration.is_some(), "{which:?}");
                }
                assert_eq!(check(&report, Check::Tls).duration.is_some(), tls);
                assert_eq!(report.certificate.is_some(), tls);
            }
        }
    }
}

/// A connection that worked, and what becomes of it.
#[tokio::test]
async fn a_stored_connection_names_the_step_that_fails_now() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let expect = |verified: v1::VerifyConnectionResponse, which, reasons: &[&str], state| {
            assert_fails_at(verified.report.as_ref().expect("a report"), which, reasons);
            assert_eq!(verified.connection.expect("it").state(), state);
        };
        forge.fault_on(side.path, Fault::NotFoundHtml, usize::MAX);
        let verified = app.verify(&created.name).await.expect("a report");
        expect(verified, Check::ProviderMatch, &["PROVIDER_MISMATCH"], State::Unreachable);
        assert_eq!(app.get(&created.name).await.expect("it").state(), State::Unreachable, "stored");
        forge.clear_faults();
        let verified = app.verify(&created.name).await.expect("a report");
        assert_eq!(verified.connection.expect("it").state(), State::Active, "well again");
        (side.revoke)(&forge);
        let verified = app.verify(&created.name).await.expect("a report");
        let reasons = ["CREDENTIAL_REJECTED", "CREDENTIAL_INVALID"];
        expect(verified, Check::Authentication, &reasons, State::AuthFailed);
    }
}

#[tokio::test]
async fn a_stored_connection_whose_host_is_gone_or_forbidden_names_that_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    KeyFile::create(&path, SystemClock.now()).expect("a key file");
    let keys = || KeyRing::load(&path).expect("a key ring");
    let store = Arc::new(MemoryStore::new());
    let tls = |listen: SocketAddr| ForgeConfig { tls: true, listen, ..ForgeConfig::default() };
    let forge = Forge::start(tls(SocketAddr::from(([127, 0, 0, 1], 0)))).await.expect("a forge");
    let address = forge.address();
    let start = |rule: Option<String>| {
        let app = TestApp::new().store(store.clone()).keys(keys());
        let app = match rule {
            Some(rule) => app.allow(&rule),
            None => app,
        };
        app.start()
    };
    let app = start(Some(address.to_string())).await;
    let mut names = Vec::new();
    for side in sides(&forge) {
        let mut wanted = side.connection("x");
        wanted.tls =
            Some(v1::connection::Tls { ca_certificates_pem: forge.ca_pem().expect("a CA").to_owned() });
        names.push(app.create(wanted).await.expect("created").name);
    }
    drop(app);

    // The operator's rule is gone.
    let connections = forge.connections();
    let strict = start(None).await;
    for name in &names {
        let verified = strict.verify(name).await.expect("a report");
        assert_fails_at(verified.report.as_ref().expect("a report"), Check::Dns, &["ENDPOINT_NOT_ALLOWED"]);
        assert_eq!(verified.connection.expect("it").state(), State::Unreachable);
    }
    drop(strict);
    assert_eq!(forge.connections(), connections, "nothing was dialled");

    // Another authority signs for the host now.
    drop(forge);
    let app = start(Some(address.to_string())).await;
    for name in &names {
        let verified = app.verify(name).await.expect("a report");
        assert_fails_at(
            verified.report.as_ref().expect("a report"),
            Check::Connect,
            &["PROVIDER_UNREACHABLE"],
        );
    }
    let _other = Forge::start(tls(address)).await.expect("a forge at the same address");
    for name in &names {
        let verified = app.verify(name).await.expect("a report");
        let report = verified.report.expect("a report");
        assert_fails_at(&report, Check::Tls, &["PROVIDER_TLS_UNTRUSTED"]);
        assert!(report.certificate.is_some());
    }
}
