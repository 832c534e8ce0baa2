//! Another connection for a link, another credential for a connection, another instance, and none at all.

use std::time::Duration;

use gitmoor::domain::event::{Event, EventType};
use gitmoor::proto::v1;
use gitmoor::proto::v1::affected_link::Outcome as Affected;
use gitmoor::proto::v1::migrate_repository_links_response::Outcome as Moved;
use gitmoor::proto::v1::replace_credential_request::CheckLinks;
use gitmoor::proto::v1::repository_link::State;
use tonic::{Code, Response, Status};

use super::fixture::{Side, gitlab, request_ids, sides, started};
use super::webhooks::with_webhook;
use crate::support::app::{Refused, Running, TestApp, refused};
use crate::support::forge::{Forge, azure_tokens};

/// How often, and how many times at most, a test looks for work of the background.
const LOOKS: (Duration, usize) = (Duration::from_millis(20), 1_000);

/// Two connections of one instance, of two accounts.
struct Pair {
    first: v1::Connection,
    second: v1::Connection,
    /// Repositories that both see, as the first shows them.
    common: Vec<v1::Repository>,
    /// Repositories that the second does not see.
    hidden: Vec<v1::Repository>,
}

async fn pair(forge: &Forge, app: &Running, side: &Side) -> Pair {
    forge.edit_azure_token(azure_tokens::SECOND, |token| token.outsider = true);
    let first = app.create(side.connection("first")).await.expect("created");
    let second = app.create(side.with_token("second", side.second)).await.expect("created");
    let seen: Vec<_> = app.stream(&second.name).await.expect("a stream");
    let seen: Vec<_> = seen.into_iter().map(|row| row.provider_id).collect();
    let rows = app.stream(&first.name).await.expect("a stream");
    let rows = rows.into_iter().filter(|row| !row.disabled && row.archived != Some(true));
    let mut hidden = Vec::new();
    let mut common = Vec::new();
    for row in rows {
        if seen.contains(&row.provider_id) {
            common.push(row);
        } else if app.repository(&row.name.replace(&first.name, &second.name)).await.is_err() {
            // A public repository can be read without being listed.
            hidden.push(row);
        }
        if common.len() >= 3 && hidden.len() >= 2 {
            break;
        }
    }
    assert!(common.len() >= 3 && hidden.len() >= 2, "{}: {common:?} {hidden:?}", side.provider);
    Pair { first, second, common, hidden }
}

fn to(link: &v1::RepositoryLink, connection: &str) -> v1::SwitchConnectionRequest {
    v1::SwitchConnectionRequest {
        name: link.name.clone(),
        connection: connection.to_owned(),
        ..Default::default()
    }
}

impl Running {
    async fn switch(&self, request: v1::SwitchConnectionRequest) -> Result<v1::RepositoryLink, Status> {
        self.repositories().switch_connection(request).await.map(Response::into_inner)
    }

    async fn targets(
        &self,
        request: v1::ListSwitchTargetsRequest,
    ) -> Result<v1::ListSwitchTargetsResponse, Status> {
        self.repositories().list_switch_targets(request).await.map(Response::into_inner)
    }

    async fn migrate(
        &self,
        source: &str,
        target: &str,
        validate_only: bool,
    ) -> Result<Vec<v1::MigrateRepositoryLinksResponse>, Status> {
        let request = v1::MigrateRepositoryLinksRequest {
            parent: "tenants/default".to_owned(),
            source_connection: source.to_owned(),
            target_connection: target.to_owned(),
            validate_only,
        };
        let mut stream = self.repositories().migrate_repository_links(request).await?.into_inner();
        let mut told = Vec::new();
        while let Some(message) = stream.message().await? {
            told.push(message);
        }
        Ok(told)
    }

    async fn force_delete(&self, name: &str) -> Result<(), Status> {
        let request =
            v1::DeleteConnectionRequest { name: name.to_owned(), force: true, ..Default::default() };
        self.connections().delete_connection(request).await.map(Response::into_inner)
    }

    async fn events_of(&self, resource: &str, kind: EventType) -> Vec<Event> {
        let events = self.events("default").await.into_iter();
        events.filter(|event| event.resource.starts_with(resource) && event.event_type == kind).collect()
    }

    /// Waits until an event about the resource was told.
    async fn awaited(&self, resource: &str, kind: EventType) -> Event {
        for _ in 0..LOOKS.1 {
            if let Some(event) = self.events_of(resource, kind).await.pop() {
                return event;
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        panic!("no {kind:?} of {resource}: {:?}", self.events("default").await.last());
    }

    /// Links a repository that the good token administers, and waits until its webhook is there.
    async fn hooked(
        &self,
        forge: &Forge,
        side: &Side,
    ) -> (v1::Connection, v1::Repository, v1::RepositoryLink) {
        let row = self.administered(side, "hooked").await;
        let made = self.link_with(with_webhook(&row)).await.expect("linked");
        let connection = self.get(&made.connection).await.expect("there");
        let settled = self.settled_link(&made.name).await;
        assert!(
            !forge.hooks(side.provider).of(&row.provider_id).is_empty(),
            "{}: {settled:?}",
            side.provider
        );
        (connection, row, settled)
    }

    /// The link once nothing is under way for its webhook.
    async fn settled_link(&self, name: &str) -> v1::RepositoryLink {
        for _ in 0..LOOKS.1 {
            let shown = self.get_link(name).await.expect("a link");
            if !shown.reconciling {
                return shown;
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        panic!("{name} does not settle: {:?}", self.get_link(name).await);
    }
}

fn assert_refused(refusal: &Refused, reason: &str, side: &Side) {
    assert_eq!((refusal.code, &*refusal.reason), (Code::FailedPrecondition, reason), "{}", side.provider);
    assert_eq!(refusal.preconditions.first().map(|found| found.0.as_str()), Some(reason), "{refusal:?}");
}

#[tokio::test]
async fn ac_20_the_settings_of_a_link_show_its_account_and_the_other_connections() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let Pair { first, second, common, .. } = pair(&forge, &app, &side).await;
        let asleep = app.create(side.asleep("asleep")).await.expect("created");
        let linked = app.link(&common[0]).await.expect("linked");
        forge.forget_requests();
        let request = |page_size, page_token: &str| v1::ListSwitchTargetsRequest {
            parent: linked.name.clone(),
            page_size,
            page_token: page_token.to_owned(),
        };
        let all = app.targets(request(0, "")).await.expect("targets");
        assert!(forge.requests().is_empty() && all.next_page_token.is_empty());
        let mut wanted = [&first, &second, &asleep];
        wanted.sort_by(|one, other| one.name.cmp(&other.name));
        let names: Vec<_> = all.switch_targets.iter().map(|target| &target.connection).collect();
        assert_eq!(names, wanted.map(|connection| &connection.name), "{}", side.provider);
        for (target, connection) in all.switch_targets.iter().zip(wanted) {
            let info = connection.credential_info.as_ref().expect("info");
            assert_eq!(target.account, info.account);
            assert_eq!(target.obfuscated_token, info.obfuscated_token);
            assert!(!target.obfuscated_token.is_empty());
            assert_eq!(
                (&target.display_name, &target.base_url),
                (&connection.display_name, &connection.base_url)
            );
            assert_eq!(target.state, connection.state);
            assert_eq!(target.current, connection.name == first.name);
            assert!(target.same_instance);
        }
        // Page by page, and the token is for this very request.
        let (mut rows, mut token) = (Vec::new(), String::new());
        for _ in 0..3 {
            let page = app.targets(request(1, &token)).await.expect("a page");
            rows.extend(page.switch_targets);
            token = page.next_page_token;
        }
        assert_eq!(rows, all.switch_targets);
        assert!(token.is_empty());
        let page = app.targets(request(2, "")).await.expect("a page");
        let other = app.link(&common[1]).await.expect("linked");
        let stolen = v1::ListSwitchTargetsRequest { parent: other.name, ..request(2, &page.next_page_token) };
        assert_eq!(refused(app.targets(stolen).await).reason, "PAGE_TOKEN_INVALID");
    }
}

#[tokio::test]
async fn ac_21_the_only_connection_of_a_provider_has_no_alternate() {
    let (forge, app) = started().await;
    let all = sides(&forge);
    let mut before: Option<v1::Connection> = None;
    for side in &all {
        let (connection, rows) = app.with_repositories(side, "only", 1).await;
        let linked = app.link(&rows[0]).await.expect("linked");
        forge.forget_requests();
        let missing = "tenants/default/connections/missing".to_owned();
        for target in [Some(missing), before.map(|connection| connection.name)].into_iter().flatten() {
            let refusal = refused(app.switch(to(&linked, &target)).await);
            assert_refused(&refusal, "NO_ALTERNATE_CONNECTION", side);
            assert_eq!(refusal.preconditions[0].1, linked.name);
        }
        assert_eq!(app.switch(to(&linked, &connection.name)).await.expect("the current one"), linked);
        assert!(forge.requests().is_empty());
        before = Some(connection);
    }
}

#[tokio::test]
async fn ac_22_ac_42_a_switch_moves_one_link_and_keeps_its_history() {
    let (forge, app) = started().await;
    for (side, request_id) in sides(&forge).into_iter().zip(request_ids()) {
        let Pair { first, second, common, .. } = pair(&forge, &app, &side).await;
        let linked = app.link(&common[0]).await.expect("linked");
        let sibling = app.link(&common[1]).await.expect("linked");
        let request = v1::SwitchConnectionRequest {
            etag: linked.etag.clone(),
            request_id,
            ..to(&linked, &second.name)
        };
        forge.forget_requests();
        let switched = app.switch(request.clone()).await.expect("switched");
        for seen in forge.requests() {
            assert!(!format!("{seen:?}").contains(side.good), "the current token is not used");
        }
        assert_eq!((&switched.connection, &switched.uid), (&second.name, &linked.uid));
        assert_ne!(switched.etag, linked.etag);
        assert_eq!(app.get_link(&linked.name).await.expect("stored"), switched);
        assert_eq!(app.get_link(&sibling.name).await.expect("there"), sibling, "the other one is untouched");
        let history: Vec<_> = switched.connection_history.iter().map(|entry| &entry.connection).collect();
        assert_eq!(history, [&first.name, &second.name]);
        assert!(switched.connection_history.iter().all(|entry| !entry.actor.is_empty()));
        // What is read through the link is read with the second token from now on.
        let snapshot = switched.repository.clone().expect("a snapshot");
        let repository = v1::Repository { repository_link: linked.name.clone(), ..snapshot };
        assert!(repository.name.starts_with(&second.name));
        assert_eq!(app.repository(&repository.name).await.expect("seen"), repository);

        // The same request has no second effect; another one sees the new etag.
        forge.forget_requests();
        assert_eq!(app.switch(request.clone()).await.expect("again"), switched);
        assert!(forge.requests().is_empty());
        let reused = v1::SwitchConnectionRequest { connection: first.name.clone(), ..request.clone() };
        assert_eq!(refused(app.switch(reused.clone()).await).reason, "REQUEST_ID_REUSED");
        let stale = v1::SwitchConnectionRequest { request_id: String::new(), ..reused };
        let refusal = refused(app.switch(stale).await);
        assert_eq!((refusal.code, &*refusal.reason), (Code::Aborted, "ETAG_MISMATCH"));

        let events = app.events_of(&linked.name, EventType::ConnectionSwitched).await;
        assert_eq!(events.len(), 1);
        assert_eq!(
            (&events[0].before["connection"], &events[0].after["connection"]),
            (&first.name, &second.name)
        );
        assert_eq!(events[0].connections.len(), 2, "it shows in both trails");
        assert!(!events[0].actor.is_empty() && !events[0].request_id.is_empty());

        // There is something to switch back to, and twenty switches are remembered.
        for round in 0..20 {
            let target = if round % 2 == 0 { &first } else { &second };
            app.switch(to(&linked, &target.name)).await.expect("switched");
            if side.provider != "gitlab" {
                break;
            }
        }
        let back = app.get_link(&linked.name).await.expect("there");
        let expected = if side.provider == "gitlab" { 20 } else { 3 };
        assert_eq!(back.connection_history.len(), expected);
    }
}

#[tokio::test]
async fn ac_23_a_target_that_does_not_see_the_repository_is_refused() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let Pair { second, hidden, .. } = pair(&forge, &app, &side).await;
        let linked = app.link(&hidden[0]).await.expect("linked");
        let refusal = refused(app.switch(to(&linked, &second.name)).await);
        assert_refused(&refusal, "REPOSITORY_NOT_ACCESSIBLE", &side);
        assert_eq!(app.get_link(&linked.name).await.expect("there"), linked, "the old connection stays");
        assert!(app.events_of(&linked.name, EventType::ConnectionSwitched).await.is_empty());
    }
}

#[tokio::test]
async fn ac_24_the_checks_of_a_switch_come_in_the_most_useful_order() {
    let (forge, app) = started_with_two().await;
    let (forge, elsewhere) = forge;
    let all = sides(&forge);
    let others = sides(&elsewhere);
    for (index, (side, other)) in all.iter().zip(&others).enumerate() {
        let Pair { first, second, common, .. } = pair(&forge, &app, side).await;
        let linked = app.link(&common[0]).await.expect("linked");
        // The current one: no change, whatever it is like.
        assert_eq!(app.switch(to(&linked, &first.name)).await.expect("no change"), linked);
        let reason = |outcome: Result<v1::RepositoryLink, Status>| refused(outcome).reason;
        let missing = app.switch(to(&linked, "tenants/default/connections/missing")).await;
        assert_eq!(reason(missing), "CONNECTION_NOT_FOUND");
        let stranger = &all[(index + 1) % all.len()];
        let stranger = app.create(stranger.connection(&format!("stranger {index}"))).await.expect("created");
        let refusal = refused(app.switch(to(&linked, &stranger.name)).await);
        assert_refused(&refusal, "CONNECTION_PROVIDER_MISMATCH", side);
        let far = app.create(other.connection("far")).await.expect("created");
        let refusal = refused(app.switch(to(&linked, &far.name)).await);
        assert_refused(&refusal, "REPOSITORY_NOT_ACCESSIBLE", side);
        let targets = v1::ListSwitchTargetsRequest { parent: linked.name.clone(), ..Default::default() };
        let targets = app.targets(targets).await.expect("targets").switch_targets;
        let far = targets.iter().find(|target| target.connection == far.name).expect("listed");
        assert!(!far.same_instance && !far.current);

        let disabled = v1::Connection { disabled: true, ..second.clone() };
        app.update(disabled, &["disabled"]).await.expect("disabled");
        forge.forget_requests();
        assert_refused(&refused(app.switch(to(&linked, &second.name)).await), "CONNECTION_DISABLED", side);
        assert!(forge.requests().is_empty());
        assert_eq!(app.get_link(&linked.name).await.expect("there"), linked);

        // Nobody's link, and nobody's connection.
        let mut nowhere = to(&linked, &second.name);
        nowhere.name = "tenants/default/repositoryLinks/missing".into();
        assert_eq!(reason(app.switch(nowhere).await), "REPOSITORY_LINK_NOT_FOUND");
        let mut foreign = to(&linked, &second.name);
        foreign.name = linked.name.replace("tenants/default/", "tenants/other/");
        foreign.connection = second.name.replace("tenants/default/", "tenants/other/");
        assert_eq!(reason(app.switch(foreign.clone()).await), "REPOSITORY_LINK_NOT_FOUND", "AC-35");
        let foreign = v1::SwitchConnectionRequest { name: linked.name.clone(), ..foreign };
        assert_eq!(reason(app.switch(foreign).await), "INVALID_FIELDS", "AC-35");
    }
}

/// Two forges of the same content, and a service that may reach both.
async fn started_with_two() -> ((Forge, Forge), Running) {
    let (forge, elsewhere) = (Forge::small().await.expect("a forge"), Forge::small().await.expect("a forge"));
    let app = TestApp::new()
        .allow(forge.origin())
        .allow(elsewhere.origin())
        .allow_target("https://hooks.platform.example")
        .start()
        .await;
    ((forge, elsewhere), app)
}

#[tokio::test]
async fn ac_25_a_link_whose_token_is_dead_can_be_switched_and_unlinked() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let Pair { first, second, common, .. } = pair(&forge, &app, &side).await;
        let links = [
            app.link(&common[0]).await.expect("linked"),
            app.link(&common[1]).await.expect("linked"),
            app.link(&common[2]).await.expect("linked"),
        ];
        (side.revoke)(&forge);
        let switched = app.switch(to(&links[0], &second.name)).await.expect("switched");
        assert_eq!((&switched.connection, switched.state()), (&second.name, State::Linked));
        app.unlink(&links[1].name).await.expect("unlinked");
        let disabled = v1::Connection { disabled: true, ..first.clone() };
        let disabled = v1::Connection { etag: String::new(), ..disabled };
        app.update(disabled, &["disabled"]).await.expect("disabled");
        app.switch(to(&links[2], &second.name)).await.expect("switched from a disabled one");
        // Back to the dead one: it is asked for its own reason.
        let enabled = v1::Connection { disabled: false, etag: String::new(), ..first.clone() };
        app.update(enabled, &["disabled"]).await.expect("enabled");
        let refusal = refused(app.switch(to(&links[0], &first.name)).await);
        assert_eq!(refusal.code, Code::FailedPrecondition, "{refusal:?}");
        assert!(["CREDENTIAL_INVALID", "CREDENTIAL_EXPIRED"].contains(&&*refusal.reason), "{refusal:?}");
        assert_eq!(app.get_link(&links[0].name).await.expect("there"), switched);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_switches_and_an_unlink_leave_one_winner() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let Pair { first, second, common, .. } = pair(&forge, &app, &side).await;
    let third = app.create(side.connection("third")).await.expect("created");
    for round in 0..8 {
        let linked = app.link(&common[0]).await.expect("linked");
        let replace = v1::ReplaceCredentialRequest {
            name: third.name.clone(),
            credential: Some(side.credential(side.good)),
            ..Default::default()
        };
        let guarded =
            |target: &str| v1::SwitchConnectionRequest { etag: linked.etag.clone(), ..to(&linked, target) };
        let unlink =
            async { if round % 2 == 0 { app.unlink(&linked.name).await.map(|()| true) } else { Ok(false) } };
        let (one, other, unlinked, replaced) = tokio::join!(
            app.switch(guarded(&second.name)),
            app.switch(guarded(&third.name)),
            unlink,
            app.replace(replace),
        );
        replaced.expect("replaced");
        let switches = usize::from(one.is_ok()) + usize::from(other.is_ok());
        assert!(switches <= 1, "with one etag one wins: {one:?} {other:?}");
        let told = app.events_of(&linked.name, EventType::ConnectionSwitched).await;
        assert_eq!(told.len(), switches);
        for lost in [&one, &other].into_iter().filter_map(|outcome| outcome.as_ref().err()) {
            let reason = Refused::from(lost).reason;
            assert!(["ETAG_MISMATCH", "REPOSITORY_LINK_NOT_FOUND"].contains(&&*reason), "{reason}");
        }
        if unlinked.expect("unlinked") {
            assert_eq!(refused(app.get_link(&linked.name).await).code, Code::NotFound);
        } else {
            let winner = one.or(other).expect("one wins");
            let kept = app.get_link(&linked.name).await.expect("there");
            assert_eq!((&kept.connection, kept.connection_history.len()), (&winner.connection, 2));
            app.unlink(&linked.name).await.expect("unlinked");
        }
    }
    app.delete(&first.name).await.expect("no link is left");
}

#[tokio::test]
async fn a_migration_tells_of_each_link_and_goes_on_where_it_ended() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let Pair { first, second, common, hidden } = pair(&forge, &app, &side).await;
        let mut links = Vec::new();
        for row in [&common[0], &hidden[0], &common[1], &common[2]] {
            links.push(app.link(row).await.expect("linked").name);
        }
        let refusing = links[1].clone();
        let told = app.migrate(&first.name, &second.name, true).await.expect("a dry run");
        let of = |told: &[v1::MigrateRepositoryLinksResponse], outcome: Moved| {
            let rows = told.iter().filter(|message| message.outcome() == outcome);
            rows.map(|message| message.repository_link.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(&told, Moved::WouldMove).len(), 3, "{}: {told:?}", side.provider);
        assert_eq!(of(&told, Moved::Refused), std::slice::from_ref(&refusing));
        let progress: Vec<_> =
            told.iter().map(|told| told.progress.map(|progress| (progress.done, progress.total))).collect();
        assert_eq!(progress, [1, 2, 3, 4].map(|done| Some((done, 4))));
        for name in &links {
            assert_eq!(
                app.get_link(name).await.expect("there").connection,
                first.name,
                "a dry run moves nothing"
            );
        }

        // One reader goes away early; what moved stays moved, and the next one does the rest.
        let request = v1::MigrateRepositoryLinksRequest {
            parent: "tenants/default".into(),
            source_connection: first.name.clone(),
            target_connection: second.name.clone(),
            validate_only: false,
        };
        let mut stream =
            app.repositories().migrate_repository_links(request).await.expect("a stream").into_inner();
        stream.message().await.expect("a message").expect("a first one");
        drop(stream);
        let mut told = app.migrate(&first.name, &second.name, false).await.expect("the rest");
        if told.iter().any(|told| told.reason == "ETAG_MISMATCH") {
            // A call of the reader that went away was still on its way.
            told = app.migrate(&first.name, &second.name, false).await.expect("the rest");
        }
        assert_eq!(of(&told, Moved::Refused), std::slice::from_ref(&refusing), "{told:?}");
        assert!(
            told.iter()
                .filter(|told| told.outcome() == Moved::Refused)
                .all(|told| { told.reason == "REPOSITORY_NOT_ACCESSIBLE" && !told.message.is_empty() })
        );
        for name in &links {
            let wanted = if *name == refusing { &first.name } else { &second.name };
            assert_eq!(app.get_link(name).await.expect("there").connection, *wanted);
            let events = app.events_of(name, EventType::ConnectionSwitched).await;
            assert_eq!(events.len(), usize::from(*name != refusing));
        }
        let again = app.migrate(&first.name, &second.name, false).await.expect("once more");
        assert_eq!(of(&again, Moved::Refused), [refusing]);
        assert_eq!(again.len(), 1, "what has moved is no longer at the source");
    }
}

#[tokio::test]
async fn a_migration_between_unfit_connections_moves_nothing() {
    let (forge, app) = started_with_two().await;
    let (forge, elsewhere) = forge;
    let all = sides(&forge);
    let others = sides(&elsewhere);
    for (index, (side, other)) in all.iter().zip(&others).enumerate() {
        let Pair { first, second, common, .. } = pair(&forge, &app, side).await;
        let linked = app.link(&common[0]).await.expect("linked");
        let far = app.create(other.connection("far")).await.expect("created");
        let stranger = &all[(index + 1) % all.len()];
        let stranger = app.create(stranger.connection(&format!("stranger {index}"))).await.expect("created");
        let disabled = v1::Connection { disabled: true, ..second.clone() };
        app.update(disabled, &["disabled"]).await.expect("disabled");
        forge.forget_requests();
        for (target, reason) in [
            (first.name.as_str(), "INVALID_FIELDS"),
            ("tenants/other/connections/x", "INVALID_FIELDS"),
            ("tenants/default/connections/missing", "CONNECTION_NOT_FOUND"),
            (&stranger.name, "CONNECTION_PROVIDER_MISMATCH"),
            (&far.name, "REPOSITORY_NOT_ACCESSIBLE"),
            (&second.name, "CONNECTION_DISABLED"),
        ] {
            assert_eq!(refused(app.migrate(&first.name, target, false).await).reason, reason, "{target}");
        }
        assert!(forge.requests().is_empty());
        assert_eq!(app.get_link(&linked.name).await.expect("there"), linked);
    }
}

#[tokio::test]
async fn ac_30_ac_31_a_replacement_tells_what_becomes_of_the_links() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let Pair { first, common, hidden, .. } = pair(&forge, &app, &side).await;
        let kept = app.link(&common[0]).await.expect("linked");
        let lost = app.link(&hidden[0]).await.expect("linked");
        let request = |token: &str, check_links: CheckLinks, validate_only| v1::ReplaceCredentialRequest {
            name: first.name.clone(),
            credential: Some(side.credential(token)),
            allow_account_change: true,
            check_links: check_links as i32,
            validate_only,
            ..Default::default()
        };
        let outcomes = |answer: &v1::ReplaceCredentialResponse| {
            let mut rows: Vec<_> = answer
                .affected_links
                .iter()
                .map(|link| (link.repository_link.clone(), link.outcome(), link.reason.clone()))
                .collect();
            rows.sort_by_key(|row| row.0 != kept.name);
            rows
        };
        let row = |link: &v1::RepositoryLink, outcome, reason: &str| {
            (link.name.clone(), outcome, reason.to_owned())
        };

        let dry = app.replace(request(side.second, CheckLinks::Unspecified, true)).await.expect("a dry run");
        let lost_row = row(&lost, Affected::Lost, "REPOSITORY_NOT_ACCESSIBLE");
        assert_eq!(outcomes(&dry), [row(&kept, Affected::Kept, ""), lost_row], "{}", side.provider);
        assert!(dry.affected_links.iter().all(|link| !link.full_name.is_empty()));
        assert_eq!(app.get(&first.name).await.expect("there").etag, first.etag, "a dry run changes nothing");

        let refusal = refused(app.replace(request(side.second, CheckLinks::All, false)).await);
        assert_refused(&refusal, "REPOSITORY_NOT_ACCESSIBLE", &side);
        let precondition = ("REPOSITORY_NOT_ACCESSIBLE".to_owned(), lost.name.clone());
        assert_eq!(refusal.preconditions, [precondition]);
        assert_eq!(app.get(&first.name).await.expect("there").etag, first.etag, "the old credential stays");
        app.repository(&hidden[0].name).await.expect("the old token works");

        // A lookup that tells nothing: the dry run says so, the real call changes nothing.
        forge.forget_requests();
        app.replace(request(side.good, CheckLinks::None, true)).await.expect("nobody is asked");
        let unchecked = forge.requests().len();
        forge.forget_requests();
        let all = app.replace(request(side.good, CheckLinks::All, true)).await.expect("asked");
        assert!(forge.requests().len() > unchecked, "{}", side.provider);
        assert_eq!(outcomes(&all), [row(&kept, Affected::Kept, ""), row(&lost, Affected::Kept, "")]);

        let forced = app.replace(request(side.second, CheckLinks::None, false)).await.expect("replaced");
        let unasked = [row(&kept, Affected::Unchecked, ""), row(&lost, Affected::Unchecked, "")];
        assert_eq!(outcomes(&forced), unasked);
        let etag = forced.connection.expect("it").etag;
        forge.forget_requests();
        app.repository(&common[0].name).await.expect("the new token works");
        for seen in forge.requests() {
            assert!(!format!("{seen:?}").contains(side.good), "all of them use the new secret");
        }
        let back = v1::ReplaceCredentialRequest { etag, ..request(side.good, CheckLinks::All, false) };
        let back = app.replace(back).await.expect("the first one sees all");
        assert_eq!(outcomes(&back), [row(&kept, Affected::Kept, ""), row(&lost, Affected::Kept, "")]);
        let unknown =
            v1::ReplaceCredentialRequest { check_links: 99, ..request(side.good, CheckLinks::All, true) };
        assert_eq!(refused(app.replace(unknown).await).violations[0].0, "check_links");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_32_a_connection_in_use_lists_its_links_and_force_unlinks_them() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (connection, row, linked) = app.hooked(&forge, &side).await;
        let rows = app.stream(&connection.name).await.expect("a stream");
        let other = rows.iter().find(|found| found.provider_id != row.provider_id).expect("another");
        let plain = app.link(other).await.expect("linked");
        let refusal = refused(app.delete(&connection.name).await);
        assert_refused(&refusal, "CONNECTION_IN_USE", &side);
        let mut subjects: Vec<_> = refusal.preconditions.iter().map(|found| found.1.as_str()).collect();
        subjects.sort_unstable();
        let mut wanted = [linked.name.as_str(), plain.name.as_str()];
        wanted.sort_unstable();
        assert_eq!((subjects.as_slice(), refusal.metadata["linkCount"].as_str()), (&wanted[..], "2"));
        app.get(&connection.name).await.expect("it is there");

        app.force_delete(&connection.name).await.expect("deleted");
        assert_eq!(refused(app.get(&connection.name).await).reason, "CONNECTION_NOT_FOUND");
        assert_eq!(refused(app.get_link(&plain.name).await).reason, "REPOSITORY_LINK_NOT_FOUND");
        app.gone(&linked.name).await;
        assert!(forge.hooks(side.provider).of(&row.provider_id).is_empty(), "{}", side.provider);
        for (link, hooks) in [(&linked, 1), (&plain, 0)] {
            assert_eq!(app.events_of(&link.name, EventType::RepositoryUnlinked).await.len(), 1);
            assert_eq!(app.events_of(&link.name, EventType::WebhookRemoved).await.len(), hooks);
        }
        assert_eq!(app.events_of(&connection.name, EventType::ConnectionDeleted).await.len(), 1);

        // Unlinked one by one, it goes without force, and the webhook that is still to be removed goes through what is
        // left of it.
        let (connection, row, linked) = app.hooked(&forge, &side).await;
        app.unlink(&linked.name).await.expect("unlinked");
        app.delete(&connection.name).await.expect("deleted");
        app.gone(&linked.name).await;
        assert!(forge.hooks(side.provider).of(&row.provider_id).is_empty(), "{}", side.provider);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_32_a_webhook_that_cannot_be_removed_for_a_day_is_told_as_orphaned() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (connection, row, linked) = app.hooked(&forge, &side).await;
        let hooks = forge.hooks(side.provider).of(&row.provider_id);
        (side.revoke)(&forge);
        forge.forget_requests();
        app.force_delete(&connection.name).await.expect("deleted");
        for _ in 0..LOOKS.1 {
            if !forge.requests_to(side.path).is_empty() {
                break;
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        assert_eq!(app.get_link(&linked.name).await.expect("still there").state(), State::Unlinking);
        app.clock.advance(Duration::from_secs(23 * 3_600));
        assert!(app.events_of(&linked.name, EventType::WebhookOrphaned).await.is_empty(), "not before a day");
        app.clock.advance(Duration::from_secs(2 * 3_600));
        let orphaned = app.awaited(&linked.name, EventType::WebhookOrphaned).await;
        let told = format!("{:?}", orphaned.before);
        assert!(told.contains(&hooks[0].id), "the id of the hook is told: {told}");
        app.gone(&linked.name).await;
        assert_eq!(forge.hooks(side.provider).of(&row.provider_id), hooks);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_33_a_disabled_connection_says_so_on_its_links_and_enabling_restores_them() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (connection, row, linked) = app.hooked(&forge, &side).await;
        let ready = |link: &v1::RepositoryLink| {
            let found = link.conditions.iter().find(|found| found.r#type == "CONNECTION_READY");
            found.expect("told").reason.clone()
        };
        let disabled = v1::Connection { disabled: true, etag: String::new(), ..connection.clone() };
        app.update(disabled, &["disabled"]).await.expect("disabled");
        assert_eq!(ready(&app.get_link(&linked.name).await.expect("there")), "CONNECTION_DISABLED");
        forge.forget_requests();
        // Somebody removes the hook meanwhile, and the scheduled look comes by.
        for hook in forge.hooks(side.provider).of(&row.provider_id) {
            forge.hooks(side.provider).remove(&row.provider_id, &hook.id);
        }
        app.clock.advance(Duration::from_secs(12 * 3_600));
        assert_eq!(refused(app.repository(&row.name).await).reason, "CONNECTION_DISABLED");
        assert!(forge.requests().is_empty(), "no call reaches the provider");

        let enabled = v1::Connection { disabled: false, etag: String::new(), ..connection.clone() };
        app.update(enabled, &["disabled"]).await.expect("enabled");
        for _ in 0..LOOKS.1 {
            if !forge.hooks(side.provider).of(&row.provider_id).is_empty() {
                break;
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        assert!(!forge.hooks(side.provider).of(&row.provider_id).is_empty(), "{}", side.provider);
        let shown = app.settled_link(&linked.name).await;
        assert_eq!((ready(&shown).as_str(), shown.uid.as_str()), ("CONNECTION_READY", linked.uid.as_str()));
        app.force_delete(&connection.name).await.expect("deleted");
        app.gone(&linked.name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_36_a_connection_with_links_moves_only_to_where_each_repository_is() {
    let (forge, app) = started_with_two().await;
    let (forge, elsewhere) = forge;
    elsewhere.edit_azure_token(azure_tokens::SECOND, |token| token.outsider = true);
    for (side, there) in sides(&forge).iter().zip(&sides(&elsewhere)) {
        let Pair { first, hidden, .. } = pair(&forge, &app, side).await;
        let out_of_sight = app.link(&hidden[0]).await.expect("linked");
        let wish = |token: &str, disabled| v1::Connection {
            base_url: there.url.clone(),
            credential: Some(there.credential(token)),
            etag: String::new(),
            disabled,
            ..first.clone()
        };
        let paths = ["base_url", "credential", "disabled"];
        let bare = v1::Connection { credential: None, ..wish(there.good, false) };
        let refusal = refused(app.update(bare, &["base_url"]).await);
        assert_eq!(refusal.reason, "CREDENTIAL_REQUIRED_FOR_NEW_HOST");
        // The second account does not see it there either; and a disabled connection asks nobody.
        for (token, disabled) in [(there.second, false), (there.good, true)] {
            let refusal = refused(app.update(wish(token, disabled), &paths).await);
            // Where the URL alone does not tell the instance, a disabled connection is refused for that.
            if disabled && refusal.reason != "CONNECTION_IN_USE" {
                continue;
            }
            assert_refused(&refusal, "CONNECTION_IN_USE", side);
            assert_eq!(refusal.preconditions[0].1, out_of_sight.name);
        }
        assert_eq!(app.get(&first.name).await.expect("there").effective_api_url, first.effective_api_url);
        let moved = app.update(wish(there.good, false), &paths).await.expect("every repository is there");
        assert_ne!(moved.effective_api_url, first.effective_api_url);
        let shown = app.get_link(&out_of_sight.name).await.expect("there");
        assert_eq!((shown.state(), &shown.uid), (State::Linked, &out_of_sight.uid));
        let events = app.events_of(&out_of_sight.name, EventType::RepositoryLinkUpdated).await;
        assert_eq!(events[0].after["instance"], moved.effective_api_url);
        // Its claim moved too: the old place is free, the new one taken.
        let again = app.create(side.connection("again")).await.expect("created");
        let row =
            v1::Repository { name: hidden[0].name.replace(&first.name, &again.name), ..hidden[0].clone() };
        app.link(&row).await.expect("another instance's repository");
        let far = app.create(there.connection("far")).await.expect("created");
        let row =
            v1::Repository { name: hidden[0].name.replace(&first.name, &far.name), ..hidden[0].clone() };
        assert_eq!(refused(app.link(&row).await).reason, "REPOSITORY_ALREADY_LINKED");
        for name in [&first.name, &again.name] {
            app.force_delete(name).await.expect("deleted");
        }

        // A webhook moves along, with its secret.
        let (connection, row, linked) = app.hooked(&forge, side).await;
        let secret = forge.hooks(side.provider).of(&row.provider_id)[0].secret.clone();
        let wish = v1::Connection { name: connection.name.clone(), ..wish(there.good, false) };
        app.update(wish, &["base_url", "credential"]).await.expect("moved");
        for _ in 0..LOOKS.1 {
            if !elsewhere.hooks(side.provider).of(&row.provider_id).is_empty() {
                break;
            }
            tokio::time::sleep(LOOKS.0).await;
        }
        app.settled_link(&linked.name).await;
        let hooks = elsewhere.hooks(side.provider).of(&row.provider_id);
        assert_eq!(hooks.first().map(|hook| hook.secret.clone()), Some(secret), "{}", side.provider);
    }
}
