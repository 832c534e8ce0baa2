//! Listings: the page size that each server chooses, totals, filters.

use std::collections::BTreeSet;

use gitmoor::domain::page::Cursor;
use gitmoor::domain::repository::{NamespaceKind, Permission, Repository};
use gitmoor::provider::{List, ProviderError, Walk};

use super::{JSON, small, started, tokens};
use crate::support::drive::{ids, list};
use crate::support::forge::{Fault, GiteaConfig, Seen, WrongId};

const SEARCH: &str = "/gitea/api/v1/repos/search";

#[tokio::test]
async fn ac_60_both_walks_list_what_the_user_owns_or_contributes_to() {
    let drive = small().await;
    let chain = drive.rows(&list(Walk::Chain)).await.expect("rows");
    assert_eq!(chain.len(), 25);
    assert_eq!(drive.rows(&list(Walk::Fan)).await.expect("rows"), chain);
    let searches = drive.forge.requests_to(SEARCH);
    assert!(searches.iter().all(|seen| seen.param("uid").as_deref() == Some("2")));
    assert!(chain.iter().all(|row| !row.foreign_clone_host && row.permission != Permission::Unknown));
    // Two repositories of one name are two.
    assert_eq!(chain.iter().filter(|row| row.full_name.ends_with("/twin")).count(), 2);
}

#[tokio::test]
async fn a_page_that_is_cut_without_a_word_is_not_the_last_one() {
    for most in [50, 25, 100, 1_000, 7] {
        let config = GiteaConfig { repositories: 210, max_response_items: most, ..GiteaConfig::default() };
        let drive = started(config).await;
        let rows = drive.rows(&list(Walk::Fan)).await.expect("rows");
        assert_eq!(ids(&rows).into_iter().collect::<BTreeSet<_>>().len(), 210, "{most}");
        let given = most.min(200);
        let calls = drive.forge.requests_to(SEARCH).len();
        assert_eq!(calls, 210_usize.div_ceil(given), "{most}: no call too many");
        assert_eq!(
            drive.rows(&List { page_size: 100, ..list(Walk::Chain) }).await.expect("rows"),
            rows,
            "{most}"
        );
        // Without totals, as behind a proxy that strips them.
        let config = GiteaConfig {
            repositories: 210,
            max_response_items: most,
            strips_totals: true,
            ..GiteaConfig::default()
        };
        let drive = started(config).await;
        for walk in [Walk::Chain, Walk::Fan] {
            assert_eq!(drive.rows(&list(walk)).await.expect("rows").len(), 210, "{most}, no totals");
        }
    }
}

#[tokio::test]
async fn ac_61_counted_pages_are_fetched_side_by_side() {
    let drive = started(GiteaConfig { repositories: 1_050, ..GiteaConfig::default() }).await;
    let api = drive.api(tokens::GOOD);
    let first = drive.driver.repositories(&api, &list(Walk::Fan), None).await.expect("a page");
    assert_eq!((first.items.len(), first.total, first.next.len()), (50, Some(1_050), 20));
    // The first page is there after two calls: who asks, and what they have.
    assert_eq!(drive.forge.requests().len(), 2);
    drive.forge.set_latency(std::time::Duration::from_millis(20));
    drive.forge.reset_max_in_flight();
    let rows = drive.rows(&list(Walk::Fan)).await.expect("rows");
    assert_eq!(rows.len(), 1_050);
    assert!(rows.is_sorted_by_key(|row| row.provider_id.parse::<u64>().expect("a number")));
    assert_eq!(drive.forge.max_in_flight(), 8);
    assert_eq!(rows, drive.rows(&List { page_size: 100, ..list(Walk::Chain) }).await.expect("rows"));
}

#[tokio::test]
async fn a_token_that_may_not_name_its_user_lists_what_is_more_than_public() {
    let drive = small().await;
    let all = drive.rows(&list(Walk::Chain)).await.expect("rows");
    for walk in [Walk::Chain, Walk::Fan] {
        let rows = drive.rows_of(tokens::REPOSITORY_ONLY, &list(walk)).await.expect("rows");
        let wanted: Vec<&Repository> = all
            .iter()
            .filter(|row| {
                row.visibility == gitmoor::domain::repository::Visibility::Private
                    || row.permission >= Permission::Write
            })
            .collect();
        assert_eq!(rows.iter().collect::<Vec<_>>(), wanted, "{walk:?}");
    }
    let api = drive.api(tokens::REPOSITORY_ONLY);
    let page = drive.driver.repositories(&api, &list(Walk::Fan), None).await.expect("a page");
    assert_eq!((page.warnings[0].reason, page.total), ("LISTING_INCOMPLETE", None));
    let refused = drive.driver.repositories(&drive.api(tokens::USER_ONLY), &list(Walk::Fan), None).await;
    assert_eq!(refused, Err(ProviderError::ScopeMissing { scopes: vec!["read:repository".to_owned()] }));
}

/// The rows as a search answers them, of which one was deleted.
fn without(rows: &[Repository], gone: usize, page: usize, size: usize) -> String {
    let left = rows.iter().enumerate().filter(|(index, _)| *index != gone).map(|(_, row)| row);
    let shown = left.skip((page - 1) * size).take(size);
    let rows: Vec<_> = shown
        .map(|row| {
            let id = row.provider_id.parse::<u64>().expect("a number");
            serde_json::json!({"id": id, "full_name": row.full_name})
        })
        .collect();
    serde_json::json!({"ok": true, "data": rows}).to_string()
}

#[tokio::test]
async fn rows_that_move_to_the_page_before_are_not_lost() {
    let drive = started(GiteaConfig { repositories: 130, ..GiteaConfig::default() }).await;
    let all = drive.rows(&list(Walk::Chain)).await.expect("rows");
    let headers = [JSON, &[("x-total-count", "129")]].concat();
    for (walk, size) in [(Walk::Fan, 50), (Walk::Chain, 50)] {
        let wanted = List { page_size: size, ..list(walk) };
        let api = drive.api(tokens::GOOD);
        let first = drive.driver.repositories(&api, &wanted, None).await.expect("a page");
        // A repository of the first page is deleted before the second one is read.
        for page in [2, 1] {
            let prefix = format!("{SEARCH}?sort=id&order=asc&page={page}&");
            drive.forge.respond_once("GET", &prefix, 200, &headers, without(&all, 3, page, size));
        }
        let second = drive.driver.repositories(&api, &wanted, first.next.first()).await.expect("a page");
        drive.forge.assert_no_leftovers();
        assert!(second.overlaps);
        let both: BTreeSet<_> = ids(&first.items).into_iter().chain(ids(&second.items)).collect();
        assert_eq!(both.len(), 101, "{walk:?}: with the one that moved over");
        assert!(both.contains(all[50].provider_id.as_str()), "{walk:?}");
    }
}

#[tokio::test]
async fn a_listing_that_grows_is_read_to_its_new_end() {
    let drive = started(GiteaConfig { repositories: 130, ..GiteaConfig::default() }).await;
    let api = drive.api(tokens::GOOD);
    // As if there had been two pages when the first one was read.
    let stale = Cursor("r:2:2:50:100:0".to_owned());
    let page = drive.driver.repositories(&api, &list(Walk::Fan), Some(&stale)).await.expect("a page");
    assert_eq!((page.items.len(), page.next.len(), page.overlaps), (50, 1, false));
}

#[tokio::test]
async fn h28_totals_that_lie_end_with_the_rows() {
    let drive = small().await;
    drive.forge.fault_on(SEARCH, Fault::InflatedTotal, usize::MAX);
    for walk in [Walk::Chain, Walk::Fan] {
        assert_eq!(drive.rows(&list(walk)).await.expect("rows").len(), 25, "{walk:?}");
    }
    drive.forge.clear_faults();
    drive.forge.forget_requests();
    let headers = [JSON, &[("x-total-count", "999999999999999999")]].concat();
    drive.forge.respond_once("GET", SEARCH, 200, &headers, r#"{"ok":true,"data":[]}"#);
    assert_eq!(drive.rows(&list(Walk::Fan)).await, Ok(Vec::new()));
    assert_eq!(drive.forge.requests_to(SEARCH).len(), 1);
    // One row, and more pages than there are: as many as are named at a time are asked for, and found empty.
    let one = r#"{"ok":true,"data":[{"id":1,"full_name":"a/b"}]}"#;
    drive.forge.respond_once("GET", SEARCH, 200, &headers, one);
    let first = drive.driver.repositories(&drive.api(tokens::GOOD), &list(Walk::Fan), None).await;
    assert_eq!(first.expect("a page").next.len(), 1_000);
}

#[tokio::test]
async fn ac_61_h24_h25_h27_h31_odd_paging_ends_or_goes_on() {
    for walk in [Walk::Chain, Walk::Fan] {
        let drive = started(GiteaConfig { repositories: 350, ..GiteaConfig::default() }).await;
        drive.forge.fault_on(SEARCH, Fault::SamePageForever, usize::MAX);
        let outcome = drive.rows(&list(walk)).await;
        assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{walk:?}");
        assert!(drive.forge.requests().len() < 40, "{walk:?}");
        for bad in ["abc", "-1", "18446744073709551616", "1.5"] {
            let headers = [JSON, &[("x-total-count", bad)]].concat();
            drive.forge.respond_once("GET", SEARCH, 200, &headers, r#"{"ok":true,"data":[]}"#);
            let outcome = drive.rows(&list(walk)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{walk:?} {bad}");
        }
        // Pages are counted: what links say is nothing to follow.
        for fault in [
            Fault::SelfNextLink,
            Fault::CursorCycle,
            Fault::ForeignNextLink("https://elsewhere.test".to_owned()),
            Fault::BadNextPage("abc".to_owned()),
        ] {
            drive.forge.clear_faults();
            drive.forge.set_fault(fault.clone());
            assert_eq!(drive.rows(&list(walk)).await.expect("rows").len(), 350, "{walk:?} {fault:?}");
        }
    }
}

#[tokio::test]
async fn h27_rows_that_do_not_rise_are_an_error() {
    let drive = small().await;
    let body = r#"{"ok":true,"data":[{"id":2,"full_name":"a/b"},{"id":1,"full_name":"a/c"}]}"#;
    drive.forge.respond_once("GET", SEARCH, 200, JSON, body);
    let outcome = drive.rows(&list(Walk::Fan)).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
}

#[tokio::test]
async fn h19_an_id_of_a_wrong_type_is_a_typed_error() {
    for wrong in [WrongId::String, WrongId::Float, WrongId::Huge, WrongId::Exponent, WrongId::Null] {
        let drive = small().await;
        drive.forge.fault_on(SEARCH, Fault::WrongTypes(wrong), usize::MAX);
        for walk in [Walk::Chain, Walk::Fan] {
            let outcome = drive.rows(&list(walk)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{wrong:?}");
        }
        drive.forge.set_fault(Fault::WrongTypes(wrong));
        assert!(drive.inspect(tokens::GOOD).await.failure.is_some(), "{wrong:?}");
    }
}

#[tokio::test]
async fn h22_hostile_rows_are_kept_as_they_are() {
    let drive = started(GiteaConfig { hostile_rows: true, ..GiteaConfig::default() }).await;
    let rows = drive.rows(&list(Walk::Fan)).await.expect("rows");
    assert_eq!(rows.len(), 25);
    assert_eq!(rows[0].full_name, "acme/..%2f..%2fetc");
    // Such a name is encoded whole, and finds its own repository.
    let what = gitmoor::provider::Lookup::FullName(rows[0].full_name.clone());
    assert_eq!(drive.lookup(what).await.map(|row| row.full_name), Ok(rows[0].full_name.clone()));
    let seen: Vec<Seen> = drive.forge.requests();
    assert!(seen.iter().all(|seen| seen.path.starts_with("/gitea/api/v1/")), "{seen:?}");
}

#[tokio::test]
async fn filters_leave_the_same_rows_as_reading_all() {
    let drive = started(GiteaConfig { repositories: 120, ..GiteaConfig::default() }).await;
    let all = drive.rows(&list(Walk::Chain)).await.expect("rows");
    let query = |query: &str| List { query: query.to_owned(), ..list(Walk::Chain) };
    let namespace = |namespace: &str| List { namespace: namespace.to_owned(), ..list(Walk::Chain) };
    let least = |min_permission| List { min_permission, ..list(Walk::Chain) };
    for filter in [
        query("WEBSITE"),
        query("acme"),
        query("CME/web"),
        query("e/repo-0001"),
        query("acme/"),
        query("a/b/c"),
        query("me/twin,website"),
        query("no such thing"),
        namespace("acme"),
        namespace("casey"),
        namespace("ACME"),
        least(Permission::Read),
        least(Permission::Write),
        least(Permission::Admin),
        List { include_archived: false, ..list(Walk::Chain) },
    ] {
        let wanted: Vec<Repository> = all.iter().filter(|row| filter.keeps(row)).cloned().collect();
        for walk in [Walk::Chain, Walk::Fan] {
            let filter = List { walk, ..filter.clone() };
            assert_eq!(drive.rows(&filter).await.expect("rows"), wanted, "{filter:?}");
        }
    }
    // What stands behind a slash is searched for at the server.
    drive.forge.forget_requests();
    drive.rows(&List { walk: Walk::Fan, ..query("acme/website") }).await.expect("rows");
    assert_eq!(drive.forge.requests_to(SEARCH).len(), 1);
}

#[tokio::test]
async fn a_chain_can_be_taken_up_with_another_page_size() {
    let drive = started(GiteaConfig { repositories: 60, ..GiteaConfig::default() }).await;
    let api = drive.api(tokens::GOOD);
    let first = drive.driver.repositories(&api, &list(Walk::Chain), None).await.expect("a page");
    assert_eq!((first.items.len(), first.next.len()), (10, 1));
    let wide = List { page_size: 5_000, ..list(Walk::Chain) };
    let second = drive.driver.repositories(&api, &wide, first.next.first()).await.expect("a page");
    assert_eq!((second.items.len(), second.next.len()), (10, 1));
    assert!(ids(&first.items).iter().all(|id| !ids(&second.items).contains(id)));
    let elsewhere = drive.driver.repositories(&api, &wide, Some(&Cursor("o:2:50".to_owned()))).await;
    assert!(matches!(elsewhere, Err(ProviderError::Failed { .. })));
}

#[tokio::test]
async fn namespaces_start_with_the_users_own() {
    for (organizations, most) in [(30, 50), (30, 8), (1, 50)] {
        let config = GiteaConfig { organizations, max_response_items: most, ..GiteaConfig::default() };
        let drive = started(config).await;
        let api = drive.api(tokens::GOOD);
        let (mut all, mut at) = (Vec::new(), None);
        loop {
            let page = drive.driver.namespaces(&api, &list(Walk::Chain), at.as_ref()).await.expect("a page");
            all.extend(page.items);
            at = page.next.into_iter().next();
            if at.is_none() {
                break;
            }
        }
        assert_eq!(all.len(), organizations + 1);
        assert_eq!((all[0].full_path.as_str(), all[0].kind), ("casey", NamespaceKind::User));
        assert_eq!((all[1].full_path.as_str(), all[1].kind), ("acme", NamespaceKind::Organization));
        let paths: BTreeSet<_> = all.iter().map(|space| space.full_path.as_str()).collect();
        assert_eq!(paths.len(), all.len());
    }
    let drive = small().await;
    for token in [tokens::REPOSITORY_ONLY, tokens::PUBLIC_ONLY] {
        let refused = drive.driver.namespaces(&drive.api(token), &list(Walk::Chain), None).await;
        assert!(matches!(refused, Err(ProviderError::ScopeMissing { .. })), "{refused:?}");
    }
}
