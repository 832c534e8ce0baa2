//! Branches and tags.

use gitmoor::domain::page::Cursor;
use gitmoor::domain::refs::{Ref, RefKind};
use gitmoor::provider::gitea::Gitea;
use gitmoor::provider::{ProviderError, RefList, Walk};

use super::{small, started, tokens};
use crate::support::drive::{Drive, list, refs};
use crate::support::forge::{Fault, ForgeConfig, GiteaConfig};

fn names(rows: &[Ref]) -> Vec<&str> {
    rows.iter().map(|row| row.name.as_str()).collect()
}

async fn first_id(drive: &Drive) -> String {
    drive.rows(&list(Walk::Chain)).await.expect("rows").remove(0).provider_id
}

#[tokio::test]
async fn pages_that_are_cut_are_read_to_the_end() {
    for most in [50, 7] {
        let drive = started(GiteaConfig { max_response_items: most, ..GiteaConfig::default() }).await;
        let id = first_id(&drive).await;
        for (kind, count) in [(RefKind::Branch, 30), (RefKind::Tag, 12)] {
            let all = drive.refs(&id, &refs(kind, 100)).await.expect("refs");
            assert_eq!(all.len(), count, "{most}");
            assert_eq!(drive.refs(&id, &refs(kind, 5)).await.expect("refs"), all, "{most}");
            assert!(all.iter().all(|row| row.protected.is_some() == (kind == RefKind::Branch)));
        }
    }
    let drive = started(GiteaConfig { strips_totals: true, ..GiteaConfig::default() }).await;
    let id = first_id(&drive).await;
    assert_eq!(drive.refs(&id, &refs(RefKind::Branch, 10)).await.expect("refs").len(), 30);
}

#[tokio::test]
async fn a_branch_whose_commit_is_gone_shortens_its_page_and_no_other() {
    for (lost, page_size) in [
        ("Hotfix/Login", 1),
        ("feature/00001", 1),
        ("feature/00001", 10),
        ("feature/00001", 30),
        ("main", 10),
        ("release/2.0", 29),
    ] {
        let config = GiteaConfig { lost_branch: Some(lost.to_owned()), ..GiteaConfig::default() };
        let drive = started(config).await;
        let id = first_id(&drive).await;
        let rows = drive.refs(&id, &refs(RefKind::Branch, page_size)).await.expect("refs");
        let mut names = names(&rows);
        assert_eq!(names.len(), 29, "{lost}, {page_size}");
        names.dedup();
        assert_eq!(names.len(), 29, "{lost}, {page_size}: once each");
    }
}

#[tokio::test]
async fn an_empty_repository_has_no_refs_and_one_without_code_refuses() {
    for gitea in [GiteaConfig::default(), GiteaConfig::forgejo()] {
        let drive = started(gitea).await;
        let rows = drive.rows(&list(Walk::Chain)).await.expect("rows");
        let empty = rows.iter().find(|row| row.default_branch.is_none()).expect("an empty one");
        for kind in [RefKind::Branch, RefKind::Tag] {
            assert_eq!(drive.refs(&empty.provider_id, &refs(kind, 10)).await, Ok(Vec::new()));
        }
        let disabled = rows.iter().find(|row| row.disabled).expect("one without code");
        let outcome = drive.refs(&disabled.provider_id, &refs(RefKind::Branch, 10)).await;
        assert_eq!(outcome, Err(ProviderError::Forbidden));
    }
}

#[tokio::test]
async fn ac_62_a_page_of_many_branches_takes_two_calls_and_a_search_one_page() {
    let config = ForgeConfig { branches: 10_000, ..ForgeConfig::default() };
    let drive =
        Drive::start(&Gitea, config, |forge| format!("{}/api/v1", forge.gitea_url()), tokens::GOOD).await;
    let id = first_id(&drive).await;
    drive.forge.forget_requests();
    let api = drive.api(tokens::GOOD);
    let page = drive.driver.refs(&api, &id, &refs(RefKind::Branch, 50), None).await.expect("a page");
    assert_eq!((page.items.len(), page.next.len(), drive.forge.requests().len()), (50, 1, 2));
    drive.forge.forget_requests();
    let wanted = RefList { query: "/00017".to_owned(), ..refs(RefKind::Branch, 50) };
    let found = drive.refs(&id, &wanted).await.expect("refs");
    assert_eq!(names(&found), ["feature/00017"]);
    assert_eq!(drive.forge.requests().len(), 2, "what has no case is searched for by the server");
}

#[tokio::test]
async fn a_search_finds_the_same_whatever_the_server_does_with_it() {
    for gitea in [
        GiteaConfig::default(),
        // It ignores the search.
        GiteaConfig { version: "1.26.0".to_owned(), ..GiteaConfig::default() },
        GiteaConfig::forgejo(),
    ] {
        let drive = started(gitea).await;
        let id = first_id(&drive).await;
        for (query, count) in
            [("2.0", 1), ("0000", 10), ("GR\u{dc}N", 1), ("hotfix/login", 1), ("%", 0), ("feature", 27)]
        {
            let wanted = RefList { query: query.to_owned(), ..refs(RefKind::Branch, 4) };
            assert_eq!(drive.refs(&id, &wanted).await.expect("refs").len(), count, "{query}");
        }
    }
}

#[tokio::test]
async fn a_renamed_repository_keeps_its_refs() {
    let drive = small().await;
    let id = first_id(&drive).await;
    let api = drive.api(tokens::GOOD);
    // Between two calls it was renamed: the old name redirects below, too.
    let body = format!(r#"{{"id":{id},"full_name":"acme/old-website","default_branch":"main"}}"#);
    drive.forge.respond_once("GET", "/gitea/api/v1/repositories/", 200, super::JSON, body);
    let page = drive.driver.refs(&api, &id, &refs(RefKind::Branch, 50), None).await.expect("a page");
    assert_eq!(page.items.len(), 30);
    assert!(page.items.iter().any(|row| row.is_default && row.name == "main"));
}

#[tokio::test]
async fn h27_a_server_that_repeats_its_page_ends_the_listing() {
    let drive = small().await;
    let id = first_id(&drive).await;
    drive.forge.set_fault(Fault::SamePageForever);
    let outcome = drive.refs(&id, &refs(RefKind::Branch, 10)).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
    let foreign = Cursor("r:2:2:50:100:0".to_owned());
    drive.forge.clear_faults();
    let api = drive.api(tokens::GOOD);
    let outcome = drive.driver.refs(&api, &id, &refs(RefKind::Tag, 10), Some(&foreign)).await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })));
}
