//! Tenants do not see each other: AC-35, and names that are none.

use gitmoor::proto::v1;
use gitmoor::proto::v1::lookup_repository_request::Selector;
use tonic::{Code, Status};

use super::fixture::{Side, gitlab, sides, started};
use crate::support::app::{Running, refused};

/// The RPCs that take all connections of a tenant at once, too.
const OVER_ALL: [&str; 2] = ["ListRepositories", "StreamRepositories"];

/// Every RPC that takes the name of a connection, tried on `name`.
async fn attempts(app: &Running, side: &Side, name: &str) -> Vec<(&'static str, Result<(), Status>)> {
    let renamed = v1::Connection { name: name.into(), display_name: "mine".into(), ..Default::default() };
    let disabled = v1::Connection { name: name.into(), disabled: true, ..Default::default() };
    let replace = v1::ReplaceCredentialRequest {
        name: name.into(),
        credential: Some(side.credential(side.good)),
        ..Default::default()
    };
    let pages = v1::ListRepositoriesRequest { parent: name.into(), ..Default::default() };
    let namespaces = v1::ListNamespacesRequest { parent: name.into(), ..Default::default() };
    let row = format!("{name}/repositories/1");
    let refs = v1::ListRefsRequest { parent: row.clone(), ..Default::default() };
    vec![
        ("GetConnection", app.get(name).await.map(drop)),
        ("UpdateConnection", app.update(renamed, &["display_name"]).await.map(drop)),
        ("UpdateConnection", app.update(disabled, &["disabled"]).await.map(drop)),
        ("ReplaceCredential", app.replace(replace).await.map(drop)),
        ("VerifyConnection", app.verify(name).await.map(drop)),
        ("ListRepositories", app.repositories_of(pages).await.map(drop)),
        ("StreamRepositories", app.stream(name).await.map(drop)),
        ("ListNamespaces", app.repositories().list_namespaces(namespaces).await.map(drop)),
        ("GetRepository", app.repository(&row).await.map(drop)),
        ("ListRefs", app.repositories().list_refs(refs).await.map(drop)),
        ("LookupRepository", app.lookup(name, Selector::FullName("a/b".into())).await.map(drop)),
        ("DeleteConnection", app.delete(name).await),
    ]
}

#[tokio::test]
async fn ac_35_t01_a_foreign_connection_is_like_one_that_is_not_there() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create_in("a", side.connection("x")).await.expect("created");
        forge.forget_requests();
        let id = created.name.rsplit('/').next().expect("an id");
        let random = uuid::Uuid::now_v7().to_string();
        let foreign = attempts(&app, &side, &format!("tenants/b/connections/{id}")).await;
        let missing = attempts(&app, &side, &format!("tenants/b/connections/{random}")).await;
        for ((method, foreign), (_, missing)) in foreign.into_iter().zip(missing) {
            let (foreign, missing) = (foreign.expect_err(method), missing.expect_err(method));
            assert_eq!(foreign.code(), Code::NotFound, "{method}");
            assert_eq!(refused::<()>(Err(foreign.clone())).reason, "CONNECTION_NOT_FOUND", "{method}");
            // The same bytes but for the id that was asked for, which has the same length.
            assert_eq!(foreign.message().replace(id, &random), missing.message(), "{method}");
            let details = String::from_utf8_lossy(foreign.details()).replace(id, &random);
            assert_eq!(details, String::from_utf8_lossy(missing.details()), "{method}");
        }
        assert!(forge.requests().is_empty(), "the provider is not asked");
        assert_eq!(app.get(&created.name).await.expect("untouched"), created);
    }
}

#[tokio::test]
async fn ac_35_names_ids_listings_and_events_are_a_tenants_own() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let request = |tenant: &str| v1::CreateConnectionRequest {
            parent: format!("tenants/{tenant}"),
            connection_id: format!("main-{}", side.provider),
            connection: Some(side.connection("Instance")),
            ..Default::default()
        };
        let a = app.create_with(request("a")).await.expect("a");
        let b = app.create_with(request("b")).await.expect("the same name and id in another tenant");
        assert_ne!(a.uid, b.uid);
        let info = |c: &v1::Connection| c.credential_info.clone().expect("info");
        assert_eq!(info(&a).obfuscated_token, info(&b).obfuscated_token);
        app.delete(&b.name).await.expect("deleted");
        assert_eq!(app.get(&a.name).await.expect("untouched"), a);
    }
    let all = sides(&forge).len();
    assert_eq!((app.list("a").await.len(), app.list("b").await.len()), (all, 0));
    assert_eq!((app.events("a").await.len(), app.events("b").await.len()), (all, 2 * all));
    assert!(app.list("c").await.is_empty() && app.events("c").await.is_empty());
}

#[tokio::test]
async fn t06_an_id_has_one_form() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let created = app.create(side.asleep("x")).await.expect("created");
    let id = created.name.rsplit('/').next().expect("an id").to_owned();
    for variant in [
        id.to_uppercase(),
        format!("{{{id}}}"),
        format!("urn:uuid:{id}"),
        format!("{id} "),
        format!(" {id}"),
        id.replace('-', ""),
        id.replace('0', "\u{660}"),
        format!("{id}\0"),
        format!("%{:02x}{}", id.as_bytes()[0], &id[1..]),
    ] {
        let refusal = refused(app.get(&format!("tenants/default/connections/{variant}")).await);
        // Without hyphens it is the form of a chosen id, if it starts with a letter.
        let known = ["INVALID_FIELDS", "CONNECTION_NOT_FOUND"];
        assert!(known.contains(&refusal.reason.as_str()), "{variant:?}: {refusal:?}");
        let bare = variant.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !bare {
            assert_eq!(refusal.reason, "INVALID_FIELDS", "{variant:?}");
            assert_eq!(refusal.violations[0].0, "name");
        }
    }
    for chosen in ["A", "-a", "a-", "1a", "a_b", "a.b", "\u{e4}", &"a".repeat(64), "a/b", "a b"] {
        let request = v1::CreateConnectionRequest {
            parent: "tenants/default".into(),
            connection_id: chosen.into(),
            connection: Some(side.asleep("y")),
            ..Default::default()
        };
        let refusal = refused(app.create_with(request).await);
        assert_eq!(refusal.violations, [("connection_id".to_owned(), "MALFORMED".to_owned())], "{chosen}");
    }
}

#[tokio::test]
async fn t07_reserved_names_and_foreign_forms_are_refused_everywhere() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    for name in [
        "tenants/root/connections/a",
        "tenants/-/connections/a",
        "tenants/*/connections/a",
        "tenants/./connections/a",
        "tenants/../connections/a",
        "tenants/default/connections/-",
        "tenants/default/connections/*",
        "tenants/default/connections/.",
        "tenants/default/connections/..",
        "tenants/default/connections/",
        "tenants/default/connections",
        "/tenants/default/connections/a",
        "tenants/default/connections/a/",
        "tenants/default//connections/a",
        "tenants/Default/connections/a",
        "projects/default/connections/a",
        "a",
        "",
    ] {
        for (method, outcome) in attempts(&app, &side, name).await {
            // Listings of repositories alone can go over all connections.
            if name.ends_with("/connections/-") && OVER_ALL.contains(&method) {
                assert!(outcome.is_ok(), "{method} {name:?}: {outcome:?}");
                continue;
            }
            let refusal = refused(outcome);
            assert_eq!(
                (refusal.code, refusal.reason.as_str()),
                (Code::InvalidArgument, "INVALID_FIELDS"),
                "{method} {name:?}"
            );
        }
    }
    for tenant in ["root", "-", "*", ".", "..", "", "A", &"a".repeat(64)] {
        assert_eq!(
            refused(app.create_in(tenant, side.asleep("x")).await).reason,
            "INVALID_FIELDS",
            "{tenant}"
        );
        let request =
            v1::ListConnectionsRequest { parent: format!("tenants/{tenant}"), ..Default::default() };
        let refusal = refused(app.connections().list_connections(request).await);
        assert_eq!(refusal.violations[0].0, "parent", "{tenant}");
    }
    assert!(forge.requests().is_empty());
}
