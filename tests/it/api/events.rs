//! ListConnectionEvents: what the audit trail tells, and of whom.

use gitmoor::clock::{Clock as _, SystemClock};
use gitmoor::domain::connection::TenantId;
use gitmoor::domain::event::{Event, EventType};
use gitmoor::proto::v1;
use gitmoor::store::Change;
use tonic::{Code, Response, Status};

use super::fixture::{gitlab, sides, started};
use crate::store::fixture;
use crate::support::app::{Running, TestApp, refused};

impl Running {
    async fn trail_with(
        &self,
        request: v1::ListConnectionEventsRequest,
    ) -> Result<v1::ListConnectionEventsResponse, Status> {
        self.connections().list_connection_events(request).await.map(Response::into_inner)
    }

    /// A whole trail, page by page.
    async fn trail(&self, parent: &str, filter: &str, page_size: i32) -> Vec<v1::ConnectionEvent> {
        let mut request = v1::ListConnectionEventsRequest {
            parent: parent.to_owned(),
            filter: filter.to_owned(),
            page_size,
            ..Default::default()
        };
        let mut all = Vec::new();
        loop {
            let page = self.trail_with(request.clone()).await.expect("a page");
            assert!(page_size == 0 || page.connection_events.len() <= page_size as usize);
            all.extend(page.connection_events);
            if page.next_page_token.is_empty() {
                return all;
            }
            request.page_token = page.next_page_token;
        }
    }
}

/// An event of now: older ones may go at any moment.
fn event(connection: &str) -> Event {
    Event { time: SystemClock.now(), ..fixture::event("default", connection) }
}

const ALL: &str = "tenants/default/connections/-";

fn types(events: &[v1::ConnectionEvent]) -> Vec<&str> {
    events.iter().map(|event| event.r#type.as_str()).collect()
}

/// The field of one side of an event; empty where it is not there.
fn field(side: Option<&prost_types::Struct>, path: &str) -> String {
    match side.and_then(|side| side.fields.get(path)).and_then(|value| value.kind.clone()) {
        Some(prost_types::value::Kind::StringValue(text)) => text,
        None => String::new(),
        Some(other) => panic!("{path} is no text: {other:?}"),
    }
}

#[tokio::test]
async fn ac_42_each_change_of_a_connection_leaves_one_event() {
    let (forge, app) = started().await;
    let mut begun = 0;
    for side in sides(&forge) {
        let connection = app.create(side.connection("x")).await.expect("created");
        let name = connection.name.clone();
        let edited = v1::Connection { display_name: "y".into(), ..connection.clone() };
        let updated = app.update(edited.clone(), &["display_name"]).await.expect("updated");
        app.update(updated, &["display_name"]).await.expect("nothing to update");
        let replace = v1::ReplaceCredentialRequest {
            name: name.clone(),
            credential: Some(side.credential(side.second)),
            allow_account_change: true,
            ..Default::default()
        };
        let dry = v1::ReplaceCredentialRequest { validate_only: true, ..replace.clone() };
        app.replace(dry).await.expect("a dry run");
        app.replace(replace.clone()).await.expect("replaced");
        let refused = v1::ReplaceCredentialRequest {
            credential: Some(side.credential(side.unknown)),
            ..replace.clone()
        };
        app.replace(refused).await.expect_err("refused");
        let back = v1::ReplaceCredentialRequest { credential: Some(side.credential(side.good)), ..replace };
        app.replace(back).await.expect("replaced again");
        app.verify(&name).await.expect("a report without news");
        (side.revoke)(&forge);
        app.verify(&name).await.expect("a report");
        app.delete(&name).await.expect("deleted");

        let events = app.trail(&name, "", 0).await;
        assert_eq!(
            types(&events),
            [
                "CONNECTION_CREATED",
                "CONNECTION_UPDATED",
                "CREDENTIAL_REPLACED",
                "CREDENTIAL_REPLACED",
                "STATE_CHANGED",
                "CONNECTION_DELETED"
            ],
            "{}",
            side.provider
        );
        let [created, updated, replaced, _, state, deleted] = events.as_slice() else { panic!("six events") };
        let (before, after) = (
            |event: &v1::ConnectionEvent, path: &str| field(event.before.as_ref(), path),
            |event: &v1::ConnectionEvent, path: &str| field(event.after.as_ref(), path),
        );
        assert!(created.before.is_none() && deleted.after.is_none());
        assert_eq!(after(created, "display_name"), "x");
        assert_eq!(after(created, "uid"), connection.uid);
        assert_eq!(
            (before(updated, "display_name").as_str(), after(updated, "display_name").as_str()),
            ("x", "y")
        );
        assert_eq!(updated.after.as_ref().expect("after").fields.len(), 1, "what changed and nothing else");
        assert_ne!(before(replaced, "credential.fingerprint"), after(replaced, "credential.fingerprint"));
        assert_eq!(after(replaced, "credential.version"), "2");
        assert_eq!(after(state, "state"), "AUTH_FAILED");
        assert_eq!(before(deleted, "display_name"), "y");
        for (at, event) in events.iter().enumerate() {
            assert_eq!(event.sequence, begun + at as i64 + 1, "in the order of the tenant, without gaps");
            assert_eq!((event.resource.as_str(), event.actor.as_str()), (name.as_str(), "anonymous"));
            assert!(!event.uid.is_empty() && !event.request_id.is_empty() && event.event_time.is_some());
            assert_eq!(event.hash.len(), 32);
            let text = format!("{event:?}");
            for token in [side.good, side.second, side.unknown] {
                assert!(!text.contains(token), "{text}");
            }
        }
        begun += events.len() as i64;
    }
    let all = app.trail(ALL, "", 7).await;
    assert_eq!(all.len() as i64, begun);
    assert!(all.is_sorted_by_key(|event| event.sequence), "oldest first");
    let trails = app.store.check_trails().await.expect("checked");
    assert!(
        trails.problem.is_none() && trails.tenants.iter().all(|trail| trail.problem.is_none()),
        "{trails:?}"
    );
}

#[tokio::test]
async fn a_trail_is_found_for_every_id_that_was_ever_used() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    app.delete(&created.name).await.expect("deleted");
    assert_eq!(app.trail(&created.name, "", 0).await.len(), 2);
    let list = |parent: &str| v1::ListConnectionEventsRequest { parent: parent.into(), ..Default::default() };
    let refusal = refused(app.trail_with(list("tenants/default/connections/never")).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::NotFound, "CONNECTION_NOT_FOUND"));
    assert!(app.trail("tenants/nobody/connections/-", "", 0).await.is_empty());
    let elsewhere = created.name.replace("tenants/default", "tenants/other");
    assert_eq!(refused(app.trail_with(list(&elsewhere)).await).reason, "CONNECTION_NOT_FOUND");
    let refusal = refused(app.trail_with(list("tenants/default")).await);
    assert_eq!(refusal.violations, [("parent".to_owned(), "MALFORMED".to_owned())]);
}

#[tokio::test]
async fn a_filter_selects_by_type_and_actor() {
    let app = TestApp::new().start().await;
    for at in 0..10 {
        let actor = if at % 2 == 0 { "ada" } else { "system" };
        let event_type = if at % 3 == 0 { EventType::StateChanged } else { EventType::WebhookCreated };
        let event = Event { actor: actor.to_owned(), event_type, ..event("c") };
        app.store.commit(vec![Change::Append(event)]).await.expect("appended");
    }
    let found = async |filter: &str| {
        let events = app.trail(ALL, filter, 2).await;
        events.iter().map(|event| event.sequence).collect::<Vec<_>>()
    };
    assert_eq!(found("type = \"STATE_CHANGED\"").await, [1, 4, 7, 10]);
    assert_eq!(found("type = \"STATE_CHANGED\" AND actor != \"system\"").await, [1, 7]);
    assert_eq!(found("actor = \"nobody\"").await, [0; 0]);
    assert_eq!(found("").await.len(), 10);
    for (filter, reason) in [("resource = \"x\"", "MALFORMED"), ("type", "MALFORMED")] {
        let request = v1::ListConnectionEventsRequest {
            parent: ALL.into(),
            filter: filter.into(),
            ..Default::default()
        };
        let refusal = refused(app.trail_with(request).await);
        assert_eq!(refusal.violations, [("filter".to_owned(), reason.to_owned())]);
        assert!(
            refusal.message.contains("type, actor") || refusal.message.contains("example"),
            "{}",
            refusal.message
        );
    }
}

#[tokio::test]
async fn pages_hold_at_most_500_rows_and_tokens_belong_to_their_request() {
    let app = TestApp::new().start().await;
    for _ in 0..6 {
        let hundred = (0..100).map(|_| Change::Append(event("c"))).collect();
        app.store.commit(hundred).await.expect("appended");
    }
    let request = |page_size, page_token: &str, filter: &str| v1::ListConnectionEventsRequest {
        parent: ALL.into(),
        page_size,
        page_token: page_token.into(),
        filter: filter.into(),
    };
    let default = app.trail_with(request(0, "", "")).await.expect("a page");
    assert_eq!(default.connection_events.len(), 50);
    let large = app.trail_with(request(5_000, "", "")).await.expect("a page");
    assert_eq!(large.connection_events.len(), 500);
    let rest = app.trail_with(request(5_000, &large.next_page_token, "")).await.expect("a page");
    assert_eq!((rest.connection_events.len(), rest.next_page_token.as_str()), (100, ""));
    assert_eq!(rest.connection_events[0].sequence, 501);
    let whole = app.trail_with(request(100, &large.next_page_token, "")).await.expect("a page");
    assert_eq!((whole.connection_events.len(), whole.next_page_token.as_str()), (100, ""), "no empty page");
    let other = refused(app.trail_with(request(10, &large.next_page_token, "actor = \"x\"")).await);
    assert_eq!(other.reason, "PAGE_TOKEN_INVALID");
    assert_eq!(refused(app.trail_with(request(-1, "", "")).await).reason, "INVALID_FIELDS");
    app.clock.advance(std::time::Duration::from_secs(3_600));
    let old = refused(app.trail_with(request(10, &large.next_page_token, "")).await);
    assert_eq!(old.reason, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn one_connection_is_found_among_many_events_and_a_rare_type_takes_more_pages() {
    let app = TestApp::new().start().await;
    let (rare, common) = ("rare", "common");
    for at in 0..60 {
        let events = (0..200).map(|_| Change::Append(event(common)));
        let mut changes: Vec<_> = events.collect();
        if at % 20 == 0 {
            let event = Event { event_type: EventType::WebhookOrphaned, ..event(rare) };
            changes.push(Change::Append(event));
        }
        app.store.commit(changes).await.expect("appended");
    }
    let tenant = TenantId::parse("default").expect("a tenant");
    let id = gitmoor::domain::connection::ConnectionId::parse(rare).expect("an id");
    let found = app.store.events(&tenant, Some(&id), 0, 1_000).await.expect("listed");
    assert_eq!(found.len(), 3, "nothing else is looked at");

    let mut request = v1::ListConnectionEventsRequest {
        parent: ALL.into(),
        filter: "type = \"WEBHOOK_ORPHANED\"".into(),
        ..Default::default()
    };
    let (mut pages, mut rows) = (0, 0);
    loop {
        let page = app.trail_with(request.clone()).await.expect("a page");
        (pages, rows) = (pages + 1, rows + page.connection_events.len());
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(rows, 3);
    assert!((2..10).contains(&pages), "{pages} pages: each looks at a bounded number of events");
}
