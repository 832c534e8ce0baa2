//! The background looks at linked repositories: names are followed, lost access is told.

use std::time::Duration;

use gitmoor::domain::event::{Event, EventType};
use gitmoor::proto::v1;
use gitmoor::proto::v1::repository_link::State;

use super::condition;
use crate::api::fixture::{Side, sides, started, update_link};
use crate::support::app::Running;
use crate::support::forge::Forge;

/// More than the time from one look to the next.
const A_WHILE: Duration = Duration::from_secs(8 * 3_600);

/// A connection, and a linked repository whose last part of the name nothing else at the provider has.
async fn linked(app: &Running, side: &Side) -> (v1::Connection, v1::Repository, v1::RepositoryLink) {
    let connection = app.create(side.connection("x")).await.expect("created");
    let rows = app.stream(&connection.name).await.expect("a stream");
    let row = rows.into_iter().find(|row| last_part(row).starts_with("repo-")).expect("a plain name");
    let link = app.link(&row).await.expect("linked");
    (connection, row, link)
}

fn last_part(row: &v1::Repository) -> &str {
    row.full_name.rsplit('/').next().expect("a name")
}

/// Lets the next look come due and waits until the link is as it should be.
async fn after_a_look(
    app: &Running,
    name: &str,
    holds: impl Fn(&v1::RepositoryLink) -> bool,
) -> v1::RepositoryLink {
    app.clock.advance(A_WHILE);
    until(app, name, holds).await
}

async fn until(app: &Running, name: &str, holds: impl Fn(&v1::RepositoryLink) -> bool) -> v1::RepositoryLink {
    let mut last = None;
    for _ in 0..1_000 {
        let link = app.get_link(name).await.expect("it is there");
        if holds(&link) {
            return link;
        }
        last = Some(link);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it stays {last:#?}");
}

async fn events_of(app: &Running, link: &v1::RepositoryLink, event_type: EventType) -> Vec<Event> {
    let all = app.events("default").await;
    all.into_iter().filter(|event| event.resource == link.name && event.event_type == event_type).collect()
}

#[tokio::test]
async fn ac_64_a_renamed_repository_is_followed_and_its_old_name_found() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (_, row, link) = linked(&app, &side).await;
        let old = row.full_name.clone();
        let new = old.replace(last_part(&row), "moved-away");
        forge.rename(side.path, &row.provider_id, last_part(&row), "moved-away");
        let seen = |name: &str| {
            let name = name.to_owned();
            move |link: &v1::RepositoryLink| link.repository.as_ref().is_some_and(|row| row.full_name == name)
        };
        let moved = after_a_look(&app, &link.name, seen(&new)).await;
        assert_eq!(moved.previous_full_names, [old.as_str()], "{}", side.provider);
        assert_eq!(moved.state(), State::Linked);
        assert_ne!(moved.etag, link.etag);
        let id = |link: &v1::RepositoryLink| link.repository.clone().expect("seen").provider_id;
        assert_eq!(id(&moved), id(&link));
        for name in [&old, &new] {
            let found = app.links("default", &format!("repository.full_name = \"{name}\"")).await;
            assert_eq!(found.len(), 1, "{name}");
        }
        let events = events_of(&app, &link, EventType::RepositoryMoved).await;
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].before["repository.full_name"], old);
        assert_eq!((events[0].after["repository.full_name"].as_str(), &*events[0].actor), (&*new, "system"));

        // Back again: a name that it has is none that it had.
        forge.forget_changes();
        let back = after_a_look(&app, &link.name, seen(&old)).await;
        assert_eq!(back.previous_full_names, [new.as_str()]);
        app.unlink(&link.name).await.expect("unlinked");
    }
}

#[tokio::test]
async fn a_look_that_finds_nothing_new_leaves_the_etag() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (_, _, link) = linked(&app, &side).await;
        forge.forget_requests();
        app.clock.advance(A_WHILE);
        for _ in 0..500 {
            if !forge.requests_to(side.path).is_empty() && forge.in_flight() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!forge.requests_to(side.path).is_empty(), "{} was looked at", side.provider);
        assert_eq!(app.get_link(&link.name).await.expect("there"), link);
        app.unlink(&link.name).await.expect("unlinked");
    }
}

#[tokio::test]
async fn lost_access_is_told_apart_from_a_repository_that_is_gone() {
    let (forge, app) = started().await;
    let mut witnessed = Vec::new();
    for side in sides(&forge) {
        let (connection, row, link) = linked(&app, &side).await;
        // Nobody else can see it: it is gone.
        forge.hide(side.path, &row.provider_id, last_part(&row), None);
        let gone = after_a_look(&app, &link.name, |link| link.state() != State::Linked).await;
        assert_eq!(gone.state(), State::NotFound, "{}", side.provider);
        let told = condition(&gone, "REPOSITORY_ACCESSIBLE").expect("told");
        assert_eq!((told.status(), &*told.reason), (v1::condition::Status::False, "REPOSITORY_NOT_FOUND"));
        assert_eq!(gone.repository.as_ref().expect("as last seen").full_name, row.full_name);

        // It comes back.
        forge.forget_changes();
        let back = after_a_look(&app, &link.name, |link| link.state() == State::Linked).await;
        assert_eq!(
            condition(&back, "REPOSITORY_ACCESSIBLE").expect("told").status(),
            v1::condition::Status::True
        );

        // Another connection sees it: it is the access that is lost.
        let witness = app.create(side.with_token("witness", side.second)).await.expect("created");
        if app.repository(&format!("{}/repositories/{}", witness.name, id_of(&row))).await.is_ok() {
            forge.hide(side.path, &row.provider_id, last_part(&row), Some(side.good));
            let lost = after_a_look(&app, &link.name, |link| link.state() != State::Linked).await;
            assert_eq!(lost.state(), State::AccessLost, "{}", side.provider);
            let told = condition(&lost, "REPOSITORY_ACCESSIBLE").expect("told");
            assert!(told.message.contains(&witness.name), "{told:?}");
            witnessed.push(side.provider);
            forge.forget_changes();
            after_a_look(&app, &link.name, |link| link.state() == State::Linked).await;
        }

        // A token that is refused says nothing of the repository.
        (side.revoke)(&forge);
        let refused = after_a_look(&app, &link.name, |link| link.state() != State::Linked).await;
        assert_eq!(refused.state(), State::AccessLost, "{}", side.provider);
        let told = condition(&refused, "REPOSITORY_ACCESSIBLE").expect("told");
        assert_eq!(told.reason, "CREDENTIAL_INVALID");
        let states: Vec<_> = events_of(&app, &link, EventType::RepositoryAccessChanged)
            .await
            .iter()
            .map(|event| event.after["state"].clone())
            .collect();
        assert_eq!(states[..2], ["NOT_FOUND", "LINKED"]);
        assert_eq!(states.last().expect("told"), "ACCESS_LOST");

        // A new credential brings it back without a wait.
        let replace = v1::ReplaceCredentialRequest {
            name: connection.name.clone(),
            credential: Some(side.credential(side.second)),
            allow_account_change: true,
            check_links: v1::replace_credential_request::CheckLinks::None as i32,
            ..Default::default()
        };
        app.replace(replace).await.expect("replaced");
        if app.repository(&row.name).await.is_ok() {
            until(&app, &link.name, |link| link.state() == State::Linked).await;
        }
        // A link that is out of reach is unlinked as any other (AC-25).
        app.unlink(&link.name).await.expect("unlinked");
    }
    assert!(witnessed.len() >= 3, "two accounts of {witnessed:?} alone see a repository both");
}

fn id_of(row: &v1::Repository) -> &str {
    row.name.rsplit('/').next().expect("an id")
}

#[tokio::test]
async fn a_provider_that_fails_says_nothing_of_the_repository() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (_, _, link) = linked(&app, &side).await;
        forge.forget_requests();
        forge.set_fault(crate::support::forge::Fault::Unavailable);
        app.clock.advance(A_WHILE);
        asked(&forge, side.path, 1).await;
        assert_eq!(app.get_link(&link.name).await.expect("there"), link, "{}", side.provider);
        forge.clear_faults();
        // The next look comes after a pause that is far shorter than the usual one.
        forge.forget_requests();
        app.clock.advance(Duration::from_secs(60));
        asked(&forge, side.path, 1).await;
        app.unlink(&link.name).await.expect("unlinked");
    }
}

/// Waits until so many requests went to the provider.
async fn asked(forge: &Forge, path: &str, times: usize) {
    for _ in 0..1_000 {
        if forge.requests_to(path).len() >= times && forge.in_flight() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody asks");
}

#[tokio::test]
async fn ac_33_nothing_is_asked_through_a_disabled_connection_until_it_is_enabled() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (connection, row, link) = linked(&app, &side).await;
        let switch =
            |disabled| v1::Connection { name: connection.name.clone(), disabled, ..Default::default() };
        app.update(switch(true), &["disabled"]).await.expect("disabled");
        forge.forget_requests();
        forge.rename(side.path, &row.provider_id, last_part(&row), "moved-away");
        // Another provider's link is looked at in the same while, which shows that the looks go on.
        let other = sides(&forge).into_iter().find(|other| other.provider != side.provider).expect("another");
        let (_, _, busy) = linked_as(&app, &other, "busy").await;
        app.clock.advance(A_WHILE);
        asked(&forge, other.path, 1).await;
        let label = v1::RepositoryLink { name: link.name.clone(), ..Default::default() };
        app.update_link_with(update_link(label, &["labels"])).await.expect("wakes the looks once more");
        assert!(forge.requests_to(side.path).is_empty(), "{}", side.provider);
        assert_eq!(app.get_link(&link.name).await.expect("there").state(), State::Linked);

        app.update(switch(false), &["disabled"]).await.expect("enabled");
        let seen = until(&app, &link.name, |link| !link.previous_full_names.is_empty()).await;
        assert_eq!(seen.previous_full_names, [row.full_name.as_str()]);
        forge.forget_changes();
        for name in [&link.name, &busy.name] {
            app.unlink(name).await.expect("unlinked");
        }
        app.delete(&busy.connection).await.expect("deleted");
    }
}

async fn linked_as(
    app: &Running,
    side: &Side,
    display_name: &str,
) -> (v1::Connection, v1::Repository, v1::RepositoryLink) {
    let (connection, rows) = app.with_repositories(side, display_name, 1).await;
    let link = app.link(&rows[0]).await.expect("linked");
    (connection, rows[0].clone(), link)
}
