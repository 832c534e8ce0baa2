//! Listing repositories and workspaces.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use gitmoor::domain::credential::ResourceType;
use gitmoor::domain::page::{Cursor, Warning};
use gitmoor::domain::repository::{NamespaceKind, Permission, Repository};
use gitmoor::provider::api::Api;
use gitmoor::provider::bitbucket_cloud::BitbucketCloud;
use gitmoor::provider::session::Pages;
use gitmoor::provider::{List, Provider, ProviderError, Walk};

use super::{PREFIX, Setup, within};
use crate::support::forge::{
    BitbucketCloudConfig, Fault, IdOrder, WrongId, bitbucket_cloud_tokens as tokens,
};

pub(super) fn list(walk: Walk) -> List {
    List {
        query: String::new(),
        namespace: String::new(),
        include_archived: true,
        min_permission: Permission::Unknown,
        scope: gitmoor::domain::connection::Scope::default(),
        page_size: 10,
        walk,
    }
}

/// All rows of a listing, in order, read as the service reads them.
pub(super) async fn rows(api: &Api, list: &List) -> Result<Vec<Repository>, ProviderError> {
    read(api, list).await.map(|(rows, _)| rows)
}

async fn read(api: &Api, list: &List) -> Result<(Vec<Repository>, Vec<Warning>), ProviderError> {
    let concurrency = if list.walk == Walk::Fan { BitbucketCloud.about().concurrency } else { 1 };
    let mut pages = Pages::new(
        concurrency,
        |row: &Repository| row.provider_id.as_str(),
        |at: Option<Cursor>| {
            let (api, list) = (api.clone(), list.clone());
            async move { BitbucketCloud.repositories(&api, &list, at.as_ref()).await }
        },
    );
    let (mut rows, mut warnings) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page?;
        warnings.extend(page.warnings);
        rows.extend(page.items.into_iter().filter(|row| list.keeps(row)));
    }
    Ok((rows, warnings))
}

fn config(repositories: usize, workspaces: usize) -> BitbucketCloudConfig {
    BitbucketCloudConfig { repositories, workspaces, ..BitbucketCloudConfig::default() }
}

fn names(rows: &[Repository]) -> Vec<&str> {
    rows.iter().map(|row| row.full_name.as_str()).collect()
}

#[tokio::test]
async fn ac_61_every_walk_brings_the_same_rows_in_the_same_order_once() {
    for (counted, id_order) in [
        (true, IdOrder::Sorted),
        (false, IdOrder::Sorted),
        (true, IdOrder::Refused),
        (false, IdOrder::Refused),
        (true, IdOrder::Ignored),
        (false, IdOrder::Ignored),
        (true, IdOrder::Odd),
        (false, IdOrder::Odd),
    ] {
        for (repositories, workspaces) in [(0, 3), (1, 1), (25, 3), (430, 2), (300, 1), (60, 40)] {
            let setup =
                Setup::new(BitbucketCloudConfig { counted, id_order, ..config(repositories, workspaces) })
                    .await;
            let api = setup.api(tokens::GOOD);
            let what = format!("{counted} {id_order:?} {repositories} in {workspaces}");
            let fan = rows(&api, &list(Walk::Fan)).await.expect("rows");
            assert_eq!(fan.len(), repositories, "{what}");
            let unique: BTreeSet<&str> = fan.iter().map(|row| row.provider_id.as_str()).collect();
            assert_eq!(unique.len(), repositories, "{what}");
            // One row alone is sorted in any order.
            for page_size in [1, 100] {
                let chain = List { page_size, ..list(Walk::Chain) };
                assert_eq!(
                    names(&rows(&api, &chain).await.expect("rows")),
                    names(&fan),
                    "{what}, {page_size}"
                );
            }
        }
    }
}

#[tokio::test]
async fn pages_are_read_side_by_side_and_no_more_of_them_than_there_are() {
    let setup = Setup::new(config(2_000, 2)).await;
    setup.forge.set_latency(Duration::from_millis(20));
    let found = rows(&setup.api(tokens::GOOD), &list(Walk::Fan)).await.expect("rows");
    assert_eq!(found.len(), 2_000);
    // The list of workspaces, and ten pages of each.
    assert_eq!(setup.forge.requests().len(), 21);
    assert_eq!(setup.forge.max_in_flight(), 4);
    // What is not read is not sent.
    let row = setup.forge.requests_to(&format!("{PREFIX}/repositories/acme"));
    assert!(row[0].param("fields").is_some_and(|fields| fields.contains("values.uuid")));
    let first = BitbucketCloud.repositories(&setup.api(tokens::GOOD), &list(Walk::Fan), None).await;
    assert_eq!(first.map(|page| page.next.len()), Ok(2));
    let alone = setup.api(tokens::GOOD).within(within(&["acme"]));
    let first = BitbucketCloud.repositories(&alone, &list(Walk::Fan), None).await.expect("a page");
    assert_eq!((first.items.len(), first.next.len(), first.total), (100, 9, Some(1_000)));
}

#[tokio::test]
async fn rows_that_move_while_pages_are_read_are_read_again() {
    let setup = Setup::new(config(300, 1)).await;
    let api = setup.api(tokens::GOOD);
    let first = BitbucketCloud.repositories(&api, &list(Walk::Fan), None).await.expect("a page");
    let (second, third) = (&first.next[0], &first.next[1]);
    // Meanwhile one row less: the last of the first page has come from the second one.
    let row = r#"{"uuid":"{ffffffff-1433-4092-8512-20302f4a03be}","full_name":"acme/late"}"#;
    let moved = format!(r#"{{"values":[{row}],"size":299,"next":"https://api.bitbucket.org/2.0/x"}}"#);
    setup.forge.respond_once("GET", PREFIX, 200, &[("content-type", "application/json")], moved);
    let page = BitbucketCloud.repositories(&api, &list(Walk::Fan), Some(second)).await.expect("a page");
    assert!(page.overlaps);
    assert_eq!(page.items.len(), 101);
    assert!(first.items.iter().all(|row| page.items.contains(row)));
    // A page that is there no more, whichever way it is told: its rows may have come to the one before.
    for (status, body) in
        [(404, r#"{"type":"error","error":{"message":"Invalid page"}}"#), (200, r#"{"values":[]}"#)]
    {
        setup.forge.respond_once("GET", PREFIX, status, &[("content-type", "application/json")], body);
        let page = BitbucketCloud.repositories(&api, &list(Walk::Fan), Some(third)).await.expect("a page");
        assert!(page.overlaps && page.next.is_empty());
        assert_eq!(page.items.len(), 100, "{status}");
        assert!(first.items.iter().all(|row| !page.items.contains(row)));
    }
    // Pages that were added at the end are read, too.
    let grown = format!(r#"{{"values":[{row}],"size":450}}"#);
    setup.forge.respond_once("GET", PREFIX, 200, &[("content-type", "application/json")], grown);
    let page = BitbucketCloud.repositories(&api, &list(Walk::Fan), Some(third)).await.expect("a page");
    assert_eq!(page.next.len(), 2);
}

#[tokio::test]
async fn a_workspace_that_cannot_be_read_is_a_warning() {
    let setup = Setup::new(BitbucketCloudConfig { closed: true, spam: true, ..config(25, 3) }).await;
    let api = setup.api(tokens::GOOD);
    for walk in [Walk::Fan, Walk::Chain] {
        let (found, warnings) = read(&api, &list(walk)).await.expect("rows");
        assert_eq!(found.len(), 25);
        let told: Vec<_> = warnings.iter().map(|warning| warning.reason).collect();
        assert_eq!(told, ["WORKSPACE_NOT_READABLE"; 2], "{walk:?}");
        assert!(warnings[0].message.contains("closed-shop") && warnings[1].message.contains("spam-shop"));
        let limited = setup.api(tokens::GOOD).within(within(&["acme", "nowhere"]));
        let places = BitbucketCloud.namespaces(&limited, &list(walk), None).await.expect("a page");
        assert_eq!((places.items.len(), places.warnings[0].reason), (1, "WORKSPACE_NOT_FOUND"));
        let (found, warnings) = read(&limited, &list(walk)).await.expect("rows");
        assert_eq!((found.len(), warnings[0].reason), (9, "WORKSPACE_NOT_FOUND"));
        assert!(warnings[0].message.contains("nowhere"));
    }
    let narrow = setup.api(tokens::USER_ONLY);
    assert!(matches!(rows(&narrow, &list(Walk::Fan)).await, Err(ProviderError::ScopeMissing { .. })));
}

#[tokio::test]
async fn limits_name_workspaces_by_slug_or_id_and_tell_none_twice() {
    let setup = Setup::small().await;
    let all =
        BitbucketCloud.namespaces(&setup.api(tokens::GOOD), &list(Walk::Chain), None).await.expect("a page");
    let id = &all.items[0].provider_id;
    for names in [&["acme"][..], &[id], &["acme", id], &[id, "acme", "acme"], &["acme", "ACME"]] {
        let api = setup.api(tokens::GOOD).within(within(names));
        for walk in [Walk::Fan, Walk::Chain] {
            let found = rows(&api, &list(walk)).await.expect("rows");
            assert_eq!(found.len(), 9, "{names:?}");
            assert!(found.iter().all(|row| row.namespace == "acme"));
        }
        let places = BitbucketCloud.namespaces(&api, &list(Walk::Chain), None).await.expect("a page");
        assert_eq!(places.items.len(), 1);
    }
    // No list of workspaces is asked for where they are named.
    assert_eq!(setup.forge.requests_to(&format!("{PREFIX}/user/workspaces")).len(), 1);
}

#[tokio::test]
async fn ac_60_a_token_of_a_resource_lists_its_resource() {
    let setup = Setup::small().await;
    let expected = [
        (ResourceType::Repository, "acme/website", tokens::REPOSITORY, 1),
        (ResourceType::Project, "acme/WEB", tokens::PROJECT, 5),
        (ResourceType::Workspace, "acme", tokens::WORKSPACE, 9),
    ];
    for (kind, resource, token, count) in expected {
        let api = setup.resource(kind, resource, token);
        for walk in [Walk::Fan, Walk::Chain] {
            let found = rows(&api, &List { page_size: 2, ..list(walk) }).await.expect("rows");
            assert_eq!(found.len(), count, "{resource}");
        }
        // It has no user whose role could be asked by.
        let wanted = List { min_permission: Permission::Admin, ..list(Walk::Fan) };
        assert_eq!(rows(&api, &wanted).await, Ok(Vec::new()));
        let page = BitbucketCloud.repositories(&api, &wanted, None).await.expect("a page");
        assert!(page.items.iter().all(|row| row.permission == Permission::Unknown));
        let places = BitbucketCloud.namespaces(&api, &list(Walk::Chain), None).await.expect("a page");
        assert_eq!(places.items[0].full_path, "acme");
    }
    assert!(setup.forge.requests().iter().all(|seen| seen.param("role").is_none()));
    assert!(setup.forge.requests_to(&format!("{PREFIX}/user")).is_empty());
    // A namespace that is another one holds nothing.
    let api = setup.resource(ResourceType::Workspace, "acme", tokens::WORKSPACE);
    let elsewhere = List { namespace: "casey".to_owned(), ..list(Walk::Fan) };
    assert_eq!(rows(&api, &elsewhere).await, Ok(Vec::new()));
}

#[tokio::test]
async fn filters_leave_the_same_rows_as_reading_all() {
    let setup = Setup::new(config(120, 3)).await;
    let api = setup.api(tokens::GOOD);
    let all = rows(&api, &list(Walk::Chain)).await.expect("rows");
    let query = |query: &str| List { query: query.to_owned(), ..list(Walk::Chain) };
    let namespace = |namespace: &str| List { namespace: namespace.to_owned(), ..list(Walk::Chain) };
    for filter in [
        query("WEBSITE"),
        query("me/web"),
        query("dotted.name_v2"),
        query("no such thing"),
        namespace("acme"),
        namespace("team-002"),
        namespace("ACME"),
        // Its repositories are public, but the user is no member.
        namespace("strangers"),
        List { include_archived: false, ..list(Walk::Chain) },
    ] {
        let wanted: Vec<Repository> = all.iter().filter(|row| filter.keeps(row)).cloned().collect();
        for walk in [Walk::Chain, Walk::Fan] {
            let filter = List { walk, ..filter.clone() };
            assert_eq!(rows(&api, &filter).await.expect("rows"), wanted, "{filter:?}");
        }
    }
    setup.forge.forget_requests();
    rows(&api, &List { walk: Walk::Fan, ..namespace("casey") }).await.expect("rows");
    assert!(setup.forge.requests_to(&format!("{PREFIX}/repositories/acme")).is_empty());
}

#[tokio::test]
async fn a_wanted_permission_is_asked_for_as_a_role() {
    let setup = Setup::new(config(60, 3)).await;
    let api = setup.api(tokens::GOOD);
    let mut counts = Vec::new();
    for (permission, role) in
        [(Permission::Read, "member"), (Permission::Write, "contributor"), (Permission::Admin, "admin")]
    {
        setup.forge.forget_requests();
        let wanted = List { min_permission: permission, ..list(Walk::Fan) };
        let found = rows(&api, &wanted).await.expect("rows");
        assert!(found.iter().all(|row| row.permission == permission));
        assert_eq!(
            names(&rows(&api, &List { walk: Walk::Chain, ..wanted }).await.expect("rows")),
            names(&found)
        );
        for seen in setup.forge.requests_to(&format!("{PREFIX}/repositories")) {
            assert_eq!(seen.param("role").as_deref(), Some(role));
        }
        counts.push(found.len());
    }
    // Public ones without a grant are in none of them.
    assert!(60 > counts[0] && counts[0] > counts[1] && counts[1] > counts[2] && counts[2] > 0, "{counts:?}");
}

#[tokio::test]
async fn workspaces_are_the_namespaces_in_pages_that_are_followed() {
    let setup = Setup::new(config(25, 12)).await;
    let api = setup.api(tokens::GOOD);
    let mut all = Vec::new();
    let mut at = None;
    loop {
        let wanted = List { page_size: 5, ..list(Walk::Chain) };
        let page = BitbucketCloud.namespaces(&api, &wanted, at.as_ref()).await.expect("a page");
        all.extend(page.items);
        at = page.next.into_iter().next();
        if at.is_none() {
            break;
        }
    }
    assert_eq!(all.len(), 12);
    assert_eq!((all[0].full_path.as_str(), all[0].kind), ("acme", NamespaceKind::Workspace));
    assert_eq!(all[0].web_url, format!("{}/acme/", setup.forge.bitbucket_cloud_url()));
    let refused = BitbucketCloud.namespaces(&setup.api(tokens::NARROW), &list(Walk::Chain), None).await;
    assert!(matches!(refused, Err(ProviderError::ScopeMissing { .. })));
    let foreign = Cursor(r#"{"Behind":{"workspace":"acme"}}"#.to_owned());
    let outcome = BitbucketCloud.namespaces(&api, &list(Walk::Chain), Some(&foreign)).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })));
}

#[tokio::test]
async fn h24_h25_h27_paging_that_leads_in_circles_ends_with_an_error_or_not_at_all() {
    for id_order in [IdOrder::Sorted, IdOrder::Refused] {
        let setup = Setup::new(BitbucketCloudConfig { counted: false, id_order, ..config(60, 1) }).await;
        let api = setup.api(tokens::GOOD).within(within(&["acme"]));
        let all = names(&rows(&api, &list(Walk::Chain)).await.expect("rows")).len();
        for fault in [Fault::SelfNextLink, Fault::CursorCycle, Fault::SamePageForever] {
            setup.forge.set_fault(fault.clone());
            match rows(&api, &list(Walk::Chain)).await {
                Err(ProviderError::Failed { .. }) => {}
                // Who goes on by ids takes no notice of the links.
                Ok(found) => assert_eq!((id_order, found.len()), (IdOrder::Sorted, all), "{fault:?}"),
                other => panic!("{fault:?}: {other:?}"),
            }
            setup.forge.clear_faults();
        }
        setup.forge.set_fault(Fault::ForeignNextLink("https://elsewhere.test".to_owned()));
        let outcome = rows(&api, &list(Walk::Chain)).await;
        assert_eq!(outcome.is_ok(), id_order == IdOrder::Sorted);
    }
    // A list of workspaces has nothing but the links.
    let setup = Setup::new(config(25, 120)).await;
    for fault in [Fault::SelfNextLink, Fault::ForeignNextLink("https://elsewhere.test".to_owned())] {
        setup.forge.fault_on(&format!("{PREFIX}/user/workspaces"), fault, usize::MAX);
        let outcome = rows(&setup.api(tokens::GOOD), &list(Walk::Fan)).await;
        assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
        setup.forge.clear_faults();
    }
    assert_eq!(rows(&setup.api(tokens::GOOD), &list(Walk::Fan)).await.map(|rows| rows.len()), Ok(25));
}

#[tokio::test]
async fn h28_a_count_that_is_too_large_ends_on_an_empty_page() {
    let setup = Setup::new(config(250, 1)).await;
    setup.forge.set_fault(Fault::InflatedTotal);
    assert_eq!(rows(&setup.api(tokens::GOOD), &list(Walk::Fan)).await.map(|rows| rows.len()), Ok(250));
}

#[tokio::test]
async fn h19_a_wrong_id_is_an_error_and_never_another_row() {
    let setup = Setup::small().await;
    for wrong in [WrongId::String, WrongId::Float, WrongId::Huge, WrongId::Exponent, WrongId::Null] {
        setup.forge.set_fault(Fault::WrongTypes(wrong));
        for walk in [Walk::Chain, Walk::Fan] {
            let outcome = rows(&setup.api(tokens::GOOD), &list(walk)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{wrong:?}");
        }
        assert!(setup.inspect(tokens::GOOD).await.failure.is_some(), "{wrong:?}");
    }
}

#[tokio::test]
async fn h22_hostile_rows_are_kept_as_they_are() {
    let setup = Setup::new(BitbucketCloudConfig { hostile_rows: true, ..config(25, 3) }).await;
    let api = setup.api(tokens::GOOD);
    let found = rows(&api, &list(Walk::Fan)).await.expect("rows");
    assert_eq!(found.len(), 25);
    let hostile = found.iter().find(|row| row.full_name == "acme/..%2f..%2fetc").expect("the row");
    // By id it is found; its name never gets into a path.
    let again = BitbucketCloud.repository(&api, &hostile.provider_id).await.expect("a row");
    assert_eq!(again.full_name, hostile.full_name);
    let what = gitmoor::provider::Lookup::FullName(hostile.full_name.clone());
    assert_eq!(setup.lookup(what).await, Err(ProviderError::NotFound));
    for seen in setup.forge.requests() {
        assert!(!seen.path.contains("..") && !seen.path.contains("etc"), "{}", seen.path);
    }
}

#[tokio::test]
async fn a_foreign_cursor_is_refused() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    for text in [
        "",
        "{}",
        r#"{"Workspaces":{"place":"/user/workspaces"}}"#,
        r#"{"Counted":{"workspace":"acme","order":"Id","page":1,"total":5}}"#,
        r#"{"Counted":{"workspace":"acme","order":"Id","page":2,"total":99999999}}"#,
    ] {
        let at = Cursor(text.to_owned());
        for walk in [Walk::Fan, Walk::Chain] {
            let outcome = BitbucketCloud.repositories(&api, &list(walk), Some(&at)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{text}");
        }
    }
    // The limits of a connection may change between two pages.
    let limited = setup.api(tokens::GOOD).within(within(&["casey"]));
    let at = Cursor(
        r#"{"Inside":{"workspace":"acme","place":{"After":"{4b85b785-1433-4092-8512-20302f4a03be}"}}}"#
            .to_owned(),
    );
    for walk in [Walk::Fan, Walk::Chain] {
        let outcome = BitbucketCloud.repositories(&limited, &list(walk), Some(&at)).await;
        assert!(matches!(outcome, Err(ProviderError::Failed { .. })));
    }
    assert!(setup.forge.requests().is_empty());
}
