//! What a verification leaves behind: states, conditions and facts, and what takes them back.

use std::sync::Arc;
use std::time::Duration;

use gitmoor::clock::Clock as _;
use gitmoor::proto::v1;
use gitmoor::proto::v1::check_result::Check;
use gitmoor::proto::v1::condition::Status as ConditionStatus;
use gitmoor::proto::v1::connection::State;
use gitmoor::seal::{KeyFile, KeyRing};
use gitmoor::store::sled::{DEFAULT_CACHE_BYTES, SledConfig, SledStore};
use tonic::Code;

use super::fixture::{azure, check, gitlab, sides, started};
use crate::support::app::{Running, TestApp, refused};
use crate::support::forge::{
    Fault, Forge, ForgeConfig, GitlabConfig, TokenState, azure_tokens, gitlab_tokens,
};

const ACCOUNT_CHANGED: &str = "CREDENTIAL_ACCOUNT_CHANGED";
const HOUR: Duration = Duration::from_secs(3_600);

fn status(connection: &v1::Connection, which: &str) -> Option<ConditionStatus> {
    connection.conditions.iter().find(|found| found.r#type == which).map(v1::Condition::status)
}

fn info(connection: &v1::Connection) -> &v1::CredentialInfo {
    connection.credential_info.as_ref().expect("info")
}

/// Verifies and returns the connection as it is then.
async fn verified(app: &Running, name: &str) -> v1::Connection {
    app.verify(name).await.expect("a report").connection.expect("it")
}

#[tokio::test]
async fn a_rate_limited_verification_says_nothing_of_the_token() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        // Another account: those of one share their limits.
        let fine = app.create(side.with_token("fine", side.second)).await.expect("created");
        let dead = app.create(side.connection("dead")).await.expect("created");
        let limited = || forge.fault_on(side.path, Fault::RateLimited(Some("900".into())), usize::MAX);
        limited();
        let shown = verified(&app, &fine.name).await;
        assert_eq!(
            (shown.state(), status(&shown, "CREDENTIAL_VALID")),
            (fine.state(), Some(ConditionStatus::True))
        );
        assert_ne!(fine.state(), State::Unreachable);
        forge.clear_faults();

        (side.revoke)(&forge);
        let before = verified(&app, &dead.name).await;
        assert_eq!(before.state(), State::AuthFailed);
        limited();
        let answer = app.verify(&dead.name).await.expect("a report");
        let report = answer.report.expect("a report");
        assert_eq!(report.result(), v1::Outcome::Fail, "the report tells what happened");
        assert!(report.checks.iter().any(|found| found.reason == "PROVIDER_RATE_LIMITED"), "{report:?}");
        for shown in [answer.connection.expect("it"), app.get(&dead.name).await.expect("it is there")] {
            assert_eq!(shown.state(), State::AuthFailed, "{shown:?}");
            assert_eq!(status(&shown, "CREDENTIAL_VALID"), Some(ConditionStatus::False));
            assert_eq!(shown.last_verify_time, before.last_verify_time);
        }
        forge.clear_faults();
    }
}

#[tokio::test]
async fn h49_only_a_replacement_takes_back_that_the_account_changed() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        (side.hand_over)(&forge);
        let shown = verified(&app, &created.name).await;
        assert_eq!(
            (shown.state(), status(&shown, ACCOUNT_CHANGED)),
            (State::Degraded, Some(ConditionStatus::True))
        );
        forge.fault_on(side.path, Fault::ServerError, usize::MAX);
        let shown = verified(&app, &created.name).await;
        assert_ne!(shown.state(), State::Degraded, "it cannot be reached");
        assert_eq!(status(&shown, ACCOUNT_CHANGED), Some(ConditionStatus::True), "{shown:?}");
        forge.clear_faults();
        let shown = verified(&app, &created.name).await;
        assert_eq!(
            (shown.state(), status(&shown, ACCOUNT_CHANGED)),
            (State::Degraded, Some(ConditionStatus::True)),
            "a good verification of the new account is no consent"
        );
        let edited =
            v1::Connection { name: created.name.clone(), owner: "team".into(), ..Default::default() };
        let shown = app.update(edited, &["owner"]).await.expect("updated");
        assert_eq!(
            (shown.state(), status(&shown, ACCOUNT_CHANGED)),
            (State::Degraded, Some(ConditionStatus::True)),
            "nor is an update"
        );
        let accept = v1::ReplaceCredentialRequest {
            name: created.name.clone(),
            credential: Some(side.credential(side.good)),
            allow_account_change: true,
            ..Default::default()
        };
        let shown = app.replace(accept).await.expect("replaced").connection.expect("it");
        assert_eq!(
            (shown.state(), status(&shown, ACCOUNT_CHANGED)),
            (State::Active, Some(ConditionStatus::False))
        );
    }
}

#[tokio::test]
async fn h49_the_report_warns_of_the_other_account() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        (side.hand_over)(&forge);
        let report = app.verify(&created.name).await.expect("a report").report.expect("a report");
        let identity = check(&report, Check::Identity);
        assert_eq!((identity.outcome(), identity.reason.as_str()), (v1::Outcome::Warn, ACCOUNT_CHANGED));
        assert!(!identity.message.is_empty() && !identity.remedy.is_empty(), "{identity:?}");
        assert_eq!(report.result(), v1::Outcome::Warn, "{report:?}");
    }
}

#[tokio::test]
async fn ac_36_a_connection_that_moved_carries_nothing_of_the_old_instance() {
    let first = Forge::small().await.expect("a forge");
    let config = ForgeConfig {
        gitlab: GitlabConfig { version: "17.2.1-ee".into(), ..GitlabConfig::default() },
        ..ForgeConfig::default()
    };
    let second = Forge::start(config).await.expect("another");
    let app = TestApp::new().allow(first.origin()).allow(second.origin()).start().await;
    for (side, there) in sides(&first).iter().zip(sides(&second)) {
        let mut names = Vec::new();
        for display_name in ["awake", "asleep"] {
            names.push(app.create(side.connection(display_name)).await.expect("created").name);
        }
        (side.hand_over)(&first);
        for name in &names {
            let flagged = verified(&app, name).await;
            assert_eq!(status(&flagged, ACCOUNT_CHANGED), Some(ConditionStatus::True));
        }
        let moved = |name: &str| v1::Connection {
            name: name.to_owned(),
            base_url: there.url.clone(),
            credential: Some(there.credential(there.good)),
            disabled: name == names[1],
            ..Default::default()
        };
        let paths = ["base_url", "credential", "disabled"];

        let awake = app.update(moved(&names[0]), &paths).await.expect("moved");
        assert_eq!(
            (awake.state(), status(&awake, ACCOUNT_CHANGED)),
            (State::Active, Some(ConditionStatus::False)),
            "{awake:?}"
        );
        if side.provider == "gitlab" {
            assert!(awake.server_version.starts_with("17.2.1"), "{}", awake.server_version);
        }

        second.forget_requests();
        let asleep = app.update(moved(&names[1]), &paths).await.expect("moved");
        assert!(asleep.effective_api_url.starts_with(second.origin()));
        assert_eq!(asleep.state(), State::Pending, "{asleep:?}");
        assert!(asleep.conditions.is_empty(), "{asleep:?}");
        assert_eq!((asleep.server_version.as_str(), asleep.last_verify_time), ("", None));
        assert!(asleep.rate_limit.is_none());
        let credential = info(&asleep);
        assert!(credential.account.is_none() && credential.granted_scopes.is_empty(), "{credential:?}");
        assert!(second.requests().is_empty(), "a disabled one asks nobody");
    }
}

#[tokio::test]
async fn ac_33_other_certificates_count_as_never_verified() {
    let start = || Forge::start(ForgeConfig { tls: true, ..ForgeConfig::default() });
    let (forge, other) = (start().await.expect("a forge"), start().await.expect("another"));
    let app = TestApp::new().allow(&forge.address().to_string()).start().await;
    let tls = |forge: &Forge| {
        Some(v1::connection::Tls { ca_certificates_pem: forge.ca_pem().expect("a CA").to_owned() })
    };
    for side in sides(&forge) {
        let created = v1::Connection { tls: tls(&forge), ..side.connection("x") };
        let created = app.create(created).await.expect("created");
        assert_eq!(created.state(), State::Active);
        let switch = |disabled| v1::Connection { name: created.name.clone(), disabled, ..Default::default() };
        app.update(switch(true), &["disabled"]).await.expect("disabled");
        let untrusted = v1::Connection { tls: tls(&other), ..switch(true) };
        app.update(untrusted, &["tls"]).await.expect("changed, and nobody asked");
        let on = app.update(switch(false), &["disabled"]).await.expect("enabled");
        assert_eq!((on.state(), on.last_verify_time), (State::Pending, None), "{on:?}");
        assert!(on.conditions.is_empty(), "{on:?}");
        assert_eq!(verified(&app, &created.name).await.state(), State::Unreachable);
    }
}

#[tokio::test]
async fn a_stored_token_that_expired_is_told_with_its_end() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    let end = info(&created).expire_time.expect("GitLab tells it");
    forge.edit_gitlab_token(gitlab_tokens::GOOD, |token| token.state = TokenState::Expired);
    let refusal = refused(app.stream(&created.name).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "CREDENTIAL_EXPIRED"));
    assert_eq!(refusal.metadata["expireTime"], end.to_string());
    assert!(refusal.details.contains(&"Help".to_owned()), "{refusal:?}");
}

#[tokio::test]
async fn a_token_past_the_end_that_its_provider_told_is_not_valid() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    assert_eq!(status(&created, "CREDENTIAL_VALID"), Some(ConditionStatus::True));
    let end = info(&created).expire_time.expect("GitLab tells it");
    let left = u64::try_from(end.seconds - app.clock.now().unix_seconds()).expect("it lies ahead");
    app.clock.advance(Duration::from_secs(left + 1));
    let shown = app.get(&created.name).await.expect("it is there");
    assert_eq!(
        (shown.state(), status(&shown, "CREDENTIAL_VALID")),
        (State::AuthFailed, Some(ConditionStatus::False)),
        "{shown:?}"
    );
    let valid = shown.conditions.iter().find(|found| found.r#type == "CREDENTIAL_VALID").expect("it");
    assert_eq!(valid.reason, "CREDENTIAL_EXPIRED");
}

#[tokio::test]
async fn wider_requirements_name_the_scopes_that_are_missing() {
    let (forge, app) = started().await;
    for (side, token, missing) in [
        (gitlab(&forge), gitlab_tokens::READ_ONLY, "api"),
        (azure(&forge), azure_tokens::READ_ONLY, "vso.project"),
    ] {
        let mut narrow = side.with_token("x", token);
        narrow.required_capabilities = vec![v1::CapabilityType::ReadCode as i32];
        let created = app.create(narrow).await.expect("created");
        assert_eq!(created.state(), State::Active, "{created:?}");
        assert!(info(&created).missing_scopes.is_empty(), "{created:?}");
        forge.forget_requests();
        let wanting = |required_capabilities| v1::Connection {
            name: created.name.clone(),
            required_capabilities,
            ..Default::default()
        };
        let wide = app.update(wanting(Vec::new()), &["required_capabilities"]).await.expect("updated");
        assert_eq!(wide.state(), State::Degraded, "{wide:?}");
        assert_eq!(info(&wide).missing_scopes, [missing]);
        let narrow = wanting(created.required_capabilities.clone());
        let narrow = app.update(narrow, &["required_capabilities"]).await.expect("updated");
        assert_eq!(narrow.state(), State::Active);
        assert!(info(&narrow).missing_scopes.is_empty(), "{narrow:?}");
        assert!(forge.requests().is_empty(), "nobody is asked");
    }
}

#[tokio::test]
async fn a_role_that_is_missing_is_no_missing_scope() {
    let (forge, app) = started().await;
    // Bitbucket Data Center tells neither the token's permissions nor the user's, so it names what would do.
    for side in sides(&forge).into_iter().filter(|side| side.provider != "bitbucket-data-center") {
        let created = app.create(side.with_token("x", side.second)).await.expect("created");
        let before = info(&created).missing_scopes.clone();
        let with = |owner: &str, required_capabilities| v1::Connection {
            name: created.name.clone(),
            owner: owner.into(),
            required_capabilities,
            ..Default::default()
        };
        let paths = ["owner", "required_capabilities"];
        let read = vec![v1::CapabilityType::ReadCode as i32];
        for step in [with("team", Vec::new()), with("", read), with("", Vec::new())] {
            let updated = app.update(step, &paths).await.expect("updated");
            assert_eq!(info(&updated).missing_scopes, before, "{updated:?}");
        }
    }
}

#[tokio::test]
async fn the_last_use_is_kept_to_the_hour_and_over_a_restart() {
    let forge = Forge::small().await.expect("a forge");
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    KeyFile::create(&keys, gitmoor::clock::SystemClock.now()).expect("a key file");
    let data = folder.path().join("data");
    let start = || {
        let keys = KeyRing::load(&keys).expect("a key ring");
        let config = SledConfig { path: data.clone(), cache_bytes: DEFAULT_CACHE_BYTES };
        let store = SledStore::open(&config).expect("a store");
        TestApp::new().allow(forge.origin()).keys(keys).store(Arc::new(store)).start()
    };
    let app = start().await;
    let hour = |app: &Running| app.clock.now().unix_seconds().div_euclid(3_600) * 3_600;
    let last_use = |connection: &v1::Connection| info(connection).last_use_time.map(|time| time.seconds);
    let mut created = Vec::new();
    for side in sides(&forge) {
        created.push(app.create(side.connection("x")).await.expect("created"));
    }
    for created in &created {
        assert_eq!(last_use(created), Some(hour(&app)), "the creation was a use");
    }
    app.clock.advance(2 * HOUR);
    for created in &created {
        assert!(!app.stream(&created.name).await.expect("a stream").is_empty());
    }
    let used = hour(&app);
    app.stop().await.expect("a clean stop");
    let app = start().await;
    for created in &created {
        let shown = app.get(&created.name).await.expect("it is there");
        assert_eq!(last_use(&shown), Some(used));
        assert_eq!(shown.etag, created.etag, "a use is nobody's change");
    }
}
