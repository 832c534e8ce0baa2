//! Rules of every request: violations, etags, masks, dry runs, request ids.

use gitmoor::domain::event::EventType;
use gitmoor::proto::v1;
use gitmoor::proto::v1::connection::State;
use tonic::Code;

use super::fixture::{Side, gitlab, request_ids, sides, started, update};
use crate::support::app::{Running, pat, refused};
use crate::support::forge::gitlab_tokens;

const ONE: &str = "01234567-89ab-4def-8123-456789abcdef";

fn create(connection: v1::Connection, request_id: &str) -> v1::CreateConnectionRequest {
    v1::CreateConnectionRequest {
        parent: "tenants/default".into(),
        connection: Some(connection),
        request_id: request_id.into(),
        ..Default::default()
    }
}

fn replace(name: &str, side: &Side, token: &str) -> v1::ReplaceCredentialRequest {
    v1::ReplaceCredentialRequest {
        name: name.into(),
        credential: Some(side.credential(token)),
        ..Default::default()
    }
}

/// Etag and number of events: what a call without effect leaves as it was.
async fn state(app: &Running, name: &str) -> (String, usize) {
    (app.get(name).await.expect("it is there").etag, app.events("default").await.len())
}

#[tokio::test]
async fn every_violation_is_told_in_one_answer_before_any_call() {
    let (forge, app) = started().await;
    let wrong = v1::CreateConnectionRequest {
        parent: "tenants/root".into(),
        connection_id: "Not-An-Id".into(),
        request_id: "not-a-uuid".into(),
        connection: Some(v1::Connection {
            display_name: " ".into(),
            provider: "sourceforge".into(),
            credential: Some(pat("two words")),
            labels: [("note".to_owned(), gitlab_tokens::GOOD.to_owned())].into(),
            owner: "bell\u{7}".into(),
            required_capabilities: vec![99],
            tls: Some(v1::connection::Tls { ca_certificates_pem: "no certificate".into() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let refusal = refused(app.create_with(wrong).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
    let mut found: Vec<_> =
        refusal.violations.iter().map(|(field, reason)| (field.as_str(), reason.as_str())).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("connection.credential.personal_access_token.token", "TOKEN_MALFORMED"),
            ("connection.display_name", "REQUIRED"),
            ("connection.labels[note]", "TOKEN_IN_TEXT"),
            ("connection.owner", "CONTROL_CHARACTER"),
            ("connection.provider", "UNKNOWN_VALUE"),
            ("connection.required_capabilities", "UNKNOWN_VALUE"),
            ("connection.tls.ca_certificates_pem", "CA_CERTIFICATE_MALFORMED"),
            ("connection_id", "MALFORMED"),
            ("parent", "RESERVED"),
            ("request_id", "MALFORMED"),
        ]
    );
    assert!(!refusal.message.contains(gitlab_tokens::GOOD) && !refusal.message.contains("two words"));
    assert!(forge.requests().is_empty());
    app.assert_nothing_stored("invalid").await;
}

#[tokio::test]
async fn a_credential_of_another_kind_is_refused_by_name() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let mut wrong = side.connection("x");
        let email = v1::credential::Kind::EmailApiToken(v1::EmailApiToken {
            email: "casey@forge.example".into(),
            token: side.good.into(),
        });
        // The one that has such tokens has no others of a person.
        wrong.credential = Some(match side.provider {
            "bitbucket-cloud" => pat(side.good),
            _ => v1::Credential { kind: Some(email), declared_expire_time: None },
        });
        let refusal = refused(app.create(wrong).await);
        assert_eq!(refusal.reason, "INVALID_FIELDS");
        assert_eq!(refusal.violations[0].1, "UNSUPPORTED_FOR_PROVIDER", "{refusal:?}");
    }
}

#[tokio::test]
async fn a_stale_etag_is_aborted_everywhere() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let renamed = v1::Connection { display_name: "y".into(), ..created.clone() };
        let current = app.update(renamed.clone(), &["display_name"]).await.expect("a fresh etag passes");
        assert_ne!(current.etag, created.etag);
        let stale = created.etag.clone();
        let calls = forge.requests().len();
        let attempts = [
            app.update(renamed, &["owner"]).await.map(drop),
            app.replace(v1::ReplaceCredentialRequest {
                etag: stale.clone(),
                ..replace(&created.name, &side, side.good)
            })
            .await
            .map(drop),
            app.connections()
                .delete_connection(v1::DeleteConnectionRequest {
                    name: created.name.clone(),
                    etag: stale,
                    force: false,
                })
                .await
                .map(drop),
        ];
        for attempt in attempts {
            let refusal = refused(attempt);
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Aborted, "ETAG_MISMATCH"));
        }
        assert_eq!(forge.requests().len(), calls, "told before the provider is asked");
        assert_eq!(app.get(&created.name).await.expect("it is there"), current);
    }
}

#[tokio::test]
async fn t21_of_two_updates_with_one_etag_exactly_one_wins() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).asleep("x")).await.expect("created");
    for round in 0..20 {
        let current = app.get(&created.name).await.expect("it is there");
        let with = |owner: String| v1::Connection { owner, ..current.clone() };
        let (one, two) = tokio::join!(
            app.update(with(format!("one-{round}")), &["owner"]),
            app.update(with(format!("two-{round}")), &["owner"]),
        );
        let (winner, loser) = match (one, two) {
            (Ok(winner), Err(loser)) | (Err(loser), Ok(winner)) => (winner, loser),
            other => panic!("{other:?}"),
        };
        let loser = refused::<()>(Err(loser));
        assert_eq!((loser.code, loser.reason.as_str()), (Code::Aborted, "ETAG_MISMATCH"));
        assert_eq!(app.get(&created.name).await.expect("it is there"), winner);
    }
}

#[tokio::test]
async fn a_mask_names_what_changes() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).asleep("x")).await.expect("created");
    let set = |edit: fn(&mut v1::Connection)| {
        let mut connection = v1::Connection { name: created.name.clone(), ..Default::default() };
        edit(&mut connection);
        connection
    };
    // Without a mask: all populated fields.
    let all = set(|c| {
        c.owner = "team-a".into();
        c.labels = [("env".to_owned(), "test".to_owned())].into();
    });
    let updated = app.update(all, &[]).await.expect("updated");
    assert_eq!((updated.owner.as_str(), updated.display_name.as_str()), ("team-a", "x"));
    assert_eq!(updated.labels["env"], "test");
    // With a mask: those alone, empty ones too.
    let some = set(|c| c.display_name = "ignored".into());
    let updated = app.update(some, &["owner"]).await.expect("updated");
    assert_eq!((updated.owner.as_str(), updated.display_name.as_str()), ("", "x"));
    assert_eq!(updated.labels["env"], "test");
    // Output fields may be named and change nothing.
    let output = app.update(updated.clone(), &["state", "create_time", "etag", "labels"]).await;
    assert_eq!(output.expect("no change"), updated);
    for path in ["nonsense", "credential_info.version", "labels.env.x", "Owner"] {
        let refusal = refused(app.update(set(|_| ()), &[path]).await);
        assert_eq!(refusal.reason, "INVALID_FIELDS");
        assert_eq!(refusal.violations, [("update_mask".to_owned(), "UNKNOWN_PATH".to_owned())], "{path}");
    }
}

#[tokio::test]
async fn s04_the_provider_is_immutable_with_or_without_a_token() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let other = if side.provider == "gitlab" { "azure-devops" } else { "gitlab" };
        for credential in [None, Some(side.credential(side.good))] {
            let changed = v1::Connection {
                name: created.name.clone(),
                provider: other.into(),
                credential,
                ..Default::default()
            };
            for paths in [&["provider"][..], &["provider", "credential"], &[]] {
                let refusal = refused(app.update(changed.clone(), paths).await);
                assert_eq!(
                    (refusal.code, refusal.reason.as_str()),
                    (Code::InvalidArgument, "INVALID_FIELDS")
                );
                let immutable = ("connection.provider".to_owned(), "IMMUTABLE".to_owned());
                assert!(refusal.violations.contains(&immutable), "{paths:?}: {refusal:?}");
            }
        }
        let same = v1::Connection {
            name: created.name.clone(),
            provider: side.provider.into(),
            ..Default::default()
        };
        assert_eq!(app.update(same, &["provider"]).await.expect("no change"), created);
    }
}

#[tokio::test]
async fn a_credential_alone_is_no_update() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let created = app.create(side.connection("x")).await.expect("created");
    let alone = v1::Connection {
        name: created.name.clone(),
        credential: Some(side.credential(side.second)),
        ..Default::default()
    };
    let refusal = refused(app.update(alone, &["credential"]).await);
    assert_eq!(refusal.reason, "INVALID_FIELDS");
    assert_eq!(refusal.violations, [("connection.credential".to_owned(), "CONFLICTING".to_owned())]);
    assert_eq!(app.get(&created.name).await.expect("it is there"), created);
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_keeps_nothing() {
    let (forge, app) = started().await;
    for (side, id) in sides(&forge).iter().zip(request_ids()) {
        let id = id.as_str();
        let events = app.events("default").await.len();
        let dry = v1::CreateConnectionRequest { validate_only: true, ..create(side.connection("x"), id) };
        let shown = app.create_with(dry.clone()).await.expect("it would work");
        assert_eq!(shown.state(), State::Active);
        assert!(app.list("default").await.is_empty());
        assert_eq!(app.events("default").await.len(), events);
        let wrong = v1::CreateConnectionRequest {
            connection: Some(side.with_token("x", side.unknown)),
            ..dry.clone()
        };
        assert_eq!(refused(app.create_with(wrong).await).reason, "CREDENTIAL_REJECTED");
        // A dry run is not remembered: the same id may do it for real.
        let real = v1::CreateConnectionRequest { validate_only: false, ..dry };
        let created = app.create_with(real).await.expect("created");

        let before = state(&app, &created.name).await;
        let renamed = v1::Connection { display_name: "y".into(), ..created.clone() };
        let dry = v1::UpdateConnectionRequest { validate_only: true, ..update(renamed, &["display_name"]) };
        assert_eq!(app.update_with(dry).await.expect("it would work").display_name, "y");
        assert_eq!(state(&app, &created.name).await, before);

        let dry = v1::ReplaceCredentialRequest {
            validate_only: true,
            allow_account_change: true,
            ..replace(&created.name, side, side.second)
        };
        let shown = app.replace(dry).await.expect("it would work");
        let info = shown.connection.and_then(|c| c.credential_info).expect("info");
        assert!(info.account.expect("an account").display_name.contains("Robin"));
        assert_eq!(shown.report.expect("a report").checks.len(), 11);
        assert_eq!(state(&app, &created.name).await, before);
        let wrong = v1::ReplaceCredentialRequest {
            validate_only: true,
            ..replace(&created.name, side, side.unknown)
        };
        assert_eq!(refused(app.replace(wrong).await).reason, "CREDENTIAL_REJECTED");
        app.delete(&created.name).await.expect("deleted");
    }
}

#[tokio::test]
async fn t16_one_request_sent_a_hundred_times_has_one_effect_and_one_answer() {
    let (forge, app) = started().await;
    for (side, id) in sides(&forge).iter().zip(request_ids()) {
        let id = id.as_str();
        let calls = (0..100).map(|_| app.create_with(create(side.connection("x"), id)));
        let answers = futures_util::future::join_all(calls).await;
        let first = answers[0].as_ref().expect("created").clone();
        for answer in answers {
            assert_eq!(answer.expect("the same answer"), first);
        }
        let later = app.create_with(create(side.connection("x"), id)).await.expect("remembered");
        assert_eq!(later, first);
    }
    let all = sides(&forge).len();
    assert_eq!((app.list("default").await.len(), app.events("default").await.len()), (all, all));
}

#[tokio::test]
async fn a_request_id_with_another_content_is_refused() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let created = app.create_with(create(side.asleep("x"), ONE)).await.expect("created");
    let others = [
        app.create_with(create(side.asleep("y"), ONE)).await.map(drop),
        app.create_with(create(
            v1::Connection { credential: Some(side.credential(side.second)), ..side.asleep("x") },
            ONE,
        ))
        .await
        .map(drop),
        app.update_with(v1::UpdateConnectionRequest {
            request_id: ONE.into(),
            ..update(v1::Connection { owner: "o".into(), ..created.clone() }, &["owner"])
        })
        .await
        .map(drop),
    ];
    for other in others {
        let refusal = refused(other);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    }
    assert_eq!(app.list("default").await.len(), 1);
}

#[tokio::test]
async fn a_repeated_update_and_replacement_have_no_second_effect() {
    let (forge, app) = started().await;
    let mut ids = request_ids();
    for side in &sides(&forge) {
        let ids = [ids.next().expect("an id"), ids.next().expect("an id")];
        let created = app.create(side.connection("x")).await.expect("created");
        let request = v1::UpdateConnectionRequest {
            request_id: ids[0].clone(),
            ..update(v1::Connection { owner: "team".into(), ..created.clone() }, &["owner"])
        };
        let updated = app.update_with(request.clone()).await.expect("updated");
        let again = app.update_with(request).await.expect("the same answer, though its etag is old now");
        assert_eq!(again, updated);
        let request = v1::ReplaceCredentialRequest {
            allow_account_change: true,
            request_id: ids[1].clone(),
            ..replace(&created.name, side, side.second)
        };
        let replaced = app.replace(request.clone()).await.expect("replaced");
        let (before, calls) = (state(&app, &created.name).await, forge.requests().len());
        assert_eq!(app.replace(request).await.expect("the same answer"), replaced);
        assert_eq!(state(&app, &created.name).await, before);
        assert_eq!(forge.requests().len(), calls, "the provider is not asked again");
    }
    let kinds: Vec<_> = app.events("default").await.into_iter().map(|event| event.event_type).collect();
    let once = [EventType::ConnectionCreated, EventType::ConnectionUpdated, EventType::CredentialReplaced];
    assert_eq!(kinds, once.repeat(sides(&forge).len()));
}

#[tokio::test]
async fn t18_a_request_id_belongs_to_its_tenant() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let of = |tenant: &str, name: &str| v1::CreateConnectionRequest {
        parent: format!("tenants/{tenant}"),
        ..create(side.asleep(name), ONE)
    };
    let first = app.create_with(of("a", "x")).await.expect("created");
    let second = app.create_with(of("b", "y")).await.expect("another tenant, another request");
    assert_ne!(first.uid, second.uid);
    assert_eq!(app.create_with(of("a", "x")).await.expect("remembered"), first);
}

#[tokio::test]
async fn t19_a_request_is_remembered_after_the_delete() {
    let (forge, app) = started().await;
    for (side, id) in sides(&forge).iter().zip(request_ids()) {
        let id = id.as_str();
        let created = app.create_with(create(side.asleep("x"), id)).await.expect("created");
        app.delete(&created.name).await.expect("deleted");
        let again = app.create_with(create(side.asleep("x"), id)).await.expect("the first answer");
        assert_eq!(again, created);
        assert_eq!(refused(app.get(&created.name).await).reason, "CONNECTION_NOT_FOUND", "no second effect");
    }
}

#[tokio::test]
async fn a_request_id_has_one_canonical_form() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let first = app.create_with(create(side.asleep("x"), ONE)).await.expect("created");
    let upper = app.create_with(create(side.asleep("x"), &ONE.to_uppercase())).await;
    assert_eq!(upper.expect("the same id"), first);
    for wrong in ["{01234567-89ab-4def-8123-456789abcdef}", "0123456789ab4def8123456789abcdef", "x"] {
        let refusal = refused(app.create_with(create(side.asleep("y"), wrong)).await);
        assert_eq!(refusal.violations, [("request_id".to_owned(), "MALFORMED".to_owned())], "{wrong}");
    }
}
