//! The end of a token, seen coming.

use std::time::Duration;

use gitmoor::proto::v1;
use gitmoor::proto::v1::condition::Status as ConditionStatus;
use gitmoor::proto::v1::connection::State;
use gitmoor::proto::v1::credential_info::ExpireTimeSource;

use super::fixture::{azure, gitlab, started};
use crate::support::app::{Running, pat};
use crate::support::forge::gitlab_tokens;

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn condition<'a>(connection: &'a v1::Connection, which: &str) -> Option<&'a v1::Condition> {
    connection.conditions.iter().find(|condition| condition.r#type == which)
}

/// In so many days by the clock of the test.
fn in_days(app: &Running, days: u64) -> prost_types::Timestamp {
    use gitmoor::clock::Clock as _;
    let end = app.clock.now().saturating_add(DAY * u32::try_from(days).expect("days"));
    prost_types::Timestamp { seconds: end.unix_seconds(), nanos: 0 }
}

#[tokio::test]
async fn a_token_that_ends_within_14_days_degrades_the_connection() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).with_token("x", gitlab_tokens::EXPIRING)).await.expect("created");
    assert_eq!(created.state(), State::Degraded);
    let expiring = condition(&created, "CREDENTIAL_EXPIRING").expect("a condition");
    assert_eq!(expiring.status(), ConditionStatus::True);
    assert!(!expiring.message.is_empty() && expiring.last_transition_time.is_some());
    let info = created.credential_info.expect("info");
    assert_eq!(info.expire_time_source(), ExpireTimeSource::Provider);
    assert!(info.expire_time.is_some());
    assert!(!app.stream(&created.name).await.expect("it still works").is_empty());
}

#[tokio::test]
async fn a_token_without_an_end_never_expires() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).with_token("x", gitlab_tokens::ENDLESS)).await.expect("created");
    let info = created.credential_info.clone().expect("info");
    assert_eq!((info.expire_time_source(), info.expire_time), (ExpireTimeSource::Unknown, None));
    app.clock.advance(DAY * 4_000);
    let later = app.get(&created.name).await.expect("it is there");
    assert_eq!(later.state(), created.state());
    assert!(condition(&later, "CREDENTIAL_EXPIRING").is_none());
}

#[tokio::test]
async fn the_state_ages_with_the_clock_and_without_a_call() {
    let (forge, app) = started().await;
    let mut declared = azure(&forge).connection("azure");
    declared.credential =
        Some(v1::Credential { declared_expire_time: Some(in_days(&app, 300)), ..pat(azure(&forge).good) });
    let provider = app.create(gitlab(&forge).connection("gitlab")).await.expect("created");
    let declared = app.create(declared).await.expect("created");
    forge.forget_requests();
    for (created, source) in
        [(&provider, ExpireTimeSource::Provider), (&declared, ExpireTimeSource::Declared)]
    {
        assert_eq!(created.credential_info.as_ref().expect("info").expire_time_source(), source);
        assert_eq!(created.state(), State::Active);
        assert!(
            condition(created, "CREDENTIAL_EXPIRING").is_none_or(|c| c.status() != ConditionStatus::True)
        );
    }
    app.clock.advance(DAY * 280);
    for created in [&provider, &declared] {
        assert_eq!(app.get(&created.name).await.expect("it").state(), State::Active, "20 days before");
    }
    app.clock.advance(DAY * 7);
    for created in [&provider, &declared] {
        let shown = app.get(&created.name).await.expect("it");
        assert_eq!(shown.state(), State::Degraded, "13 days before");
        assert_eq!(condition(&shown, "CREDENTIAL_EXPIRING").expect("it").reason, "CREDENTIAL_EXPIRING");
        let filter = "state = \"DEGRADED\"";
        let request = v1::ListConnectionsRequest {
            parent: "tenants/default".into(),
            filter: filter.into(),
            ..Default::default()
        };
        let listed = app.connections().list_connections(request).await.expect("a list").into_inner();
        assert_eq!(listed.connections.len(), 2, "a listing sees it too");
    }
    app.clock.advance(DAY * 14);
    for (created, ended) in [(&provider, State::AuthFailed), (&declared, State::Degraded)] {
        let shown = app.get(&created.name).await.expect("it");
        assert_eq!(shown.state(), ended, "behind the end: what a person declared is no proof");
        assert_eq!(condition(&shown, "CREDENTIAL_EXPIRING").expect("it").reason, "CREDENTIAL_EXPIRED");
    }
    assert!(forge.requests().is_empty());
}

#[tokio::test]
async fn the_providers_word_on_the_end_counts_before_the_callers() {
    let (forge, app) = started().await;
    let mut both = gitlab(&forge).connection("x");
    both.credential =
        Some(v1::Credential { declared_expire_time: Some(in_days(&app, 3)), ..pat(gitlab_tokens::GOOD) });
    let created = app.create(both).await.expect("created");
    let info = created.credential_info.clone().expect("info");
    assert_eq!(info.expire_time_source(), ExpireTimeSource::Provider);
    assert_ne!(info.expire_time, Some(in_days(&app, 3)));
    assert_eq!(created.state(), State::Active);
}
