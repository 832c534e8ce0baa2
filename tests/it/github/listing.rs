//! Listing repositories and namespaces.

use std::collections::BTreeSet;
use std::time::Duration;

use gitmoor::domain::page::{Cursor, Page};
use gitmoor::domain::repository::{NamespaceKind, Permission};
use gitmoor::proto::v1;
use gitmoor::provider::{List, Lookup, Provider, ProviderError, Walk};

use super::{API, Fault, Forge, ForgeConfig, Github, GithubConfig, Setup, ids, known, list};
use crate::support::app::{TestApp, connection};
use crate::support::forge::WrongId;

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

#[tokio::test]
async fn ac_60_both_walks_list_what_the_user_sees_in_the_order_of_making() {
    let setup = Setup::small().await;
    let chain = setup.rows(&list(Walk::Chain)).await.expect("rows");
    assert_eq!(chain.len(), 25);
    assert_eq!(setup.rows(&list(Walk::Fan)).await.expect("rows"), chain);
    let listings = setup.forge.requests_to(&format!("{API}/user/repos?"));
    assert!(listings.iter().all(|seen| seen.param("sort").as_deref() == Some("created")));
    assert!(listings.iter().all(|seen| seen.param("type").is_none()), "it excludes the other filters");
    assert!(chain.is_sorted_by_key(|row| row.provider_id.parse::<u64>().expect("a number")));
    assert!(chain.iter().all(|row| !row.foreign_clone_host));
    assert_eq!(chain[1].description, "\u{dc}bersicht & Pr\u{fc}fung \u{1f600}");
}

#[tokio::test]
async fn ac_61_known_pages_are_fetched_side_by_side() {
    let config = GithubConfig { repositories: 2_050, ..GithubConfig::default() };
    let setup = Setup::start(ForgeConfig {
        github: config,
        latency: Duration::from_millis(20),
        ..ForgeConfig::default()
    })
    .await;
    let first = setup.first(known::GOOD, &list(Walk::Fan)).await.expect("a page");
    // One round trip to the first rows, which name the last page.
    assert_eq!((first.items.len(), first.next.len(), setup.forge.requests().len()), (100, 20, 1));
    setup.forge.forget_requests();
    setup.forge.reset_max_in_flight();
    let rows = setup.rows(&list(Walk::Fan)).await.expect("rows");
    assert_eq!(ids(&rows).into_iter().collect::<BTreeSet<_>>().len(), 2_050);
    assert_eq!(setup.forge.requests().len(), 21, "each page once");
    let side_by_side = setup.forge.max_in_flight();
    assert!((2..=16).contains(&side_by_side), "{side_by_side} calls at once");
    assert_eq!(rows, setup.rows(&List { page_size: 100, ..list(Walk::Chain) }).await.expect("rows"));
}

#[tokio::test]
async fn ac_60_an_installation_token_lists_what_its_app_was_given() {
    let setup = Setup::of(1_000).await;
    for walk in [Walk::Chain, Walk::Fan] {
        let (rows, warnings) = setup.read(known::INSTALLATION, &list(walk)).await.expect("rows");
        assert_eq!(rows.len(), 250, "{walk:?}");
        assert!(rows.iter().all(|row| row.namespace == "acme") && warnings.is_empty());
    }
    setup.forge.forget_requests();
    let first = setup.first(known::INSTALLATION, &list(Walk::Fan)).await.expect("a page");
    assert_eq!((first.items.len(), first.total, first.next.len()), (100, Some(250), 2));
    // The first rows come after two round trips.
    assert_eq!(setup.forge.requests().len(), 2);
    // A fine-grained token has one owner, too.
    let (rows, _) = setup.read(known::FINE, &list(Walk::Fan)).await.expect("rows");
    assert_eq!(rows.len(), 250);
}

#[tokio::test]
async fn links_that_change_their_form_are_followed_as_given() {
    let setup =
        Setup::new(GithubConfig { repositories: 350, moved_links: true, ..GithubConfig::default() }).await;
    for walk in [Walk::Chain, Walk::Fan] {
        setup.forge.forget_requests();
        assert_eq!(setup.rows(&list(walk)).await.expect("rows").len(), 350);
        let moved = setup.forge.requests_to(&format!("{API}/user/1958953/repos?"));
        assert_eq!(moved.len(), setup.forge.requests().len() - 1);
    }
}

#[tokio::test]
async fn a_short_page_is_not_the_last_one() {
    // Above 100 the size is cut without a word, and some rows are null.
    let setup =
        Setup::new(GithubConfig { repositories: 250, null_rows: true, ..GithubConfig::default() }).await;
    for walk in [Walk::Chain, Walk::Fan] {
        let wide = List { page_size: 5_000, ..list(walk) };
        assert_eq!(setup.rows(&wide).await.expect("rows").len(), 250, "{walk:?}");
    }
    // Not even an empty one is.
    let next = format!("<{}{API}/user/repos?per_page=100&page=2>; rel=\"next\"", setup.forge.origin());
    setup.forge.respond_once("GET", &format!("{API}/user/repos"), 200, &[JSON, ("link", &next)], "[null]");
    let rows = setup.rows(&List { page_size: 100, ..list(Walk::Chain) }).await.expect("rows");
    assert_eq!(rows.len(), 150);
}

#[tokio::test]
async fn pages_that_come_or_go_meanwhile_do_no_harm() {
    let setup = Setup::of(250).await;
    let link = |page: u64, relation: &str| {
        let base = format!("{}{API}/user/repos", setup.forge.origin());
        format!("<{base}?direction=asc&page={page}&per_page=100&sort=created>; rel=\"{relation}\"")
    };
    // As if the second page had been the last one: its successor is followed.
    let grown = format!("{}, {}", link(2, "next"), link(2, "last"));
    setup.forge.respond_once("GET", &format!("{API}/user/repos"), 200, &[JSON, ("link", &grown)], "[]");
    assert_eq!(setup.rows(&list(Walk::Fan)).await.expect("rows").len(), 150);
    // As if there had been five pages: what lies beyond the end is empty, or is not there.
    let five = format!("{}, {}", link(2, "next"), link(5, "last"));
    for beyond in [None, Some(404)] {
        setup.forge.respond_once("GET", &format!("{API}/user/repos"), 200, &[JSON, ("link", &five)], "[]");
        if let Some(status) = beyond {
            let last = format!("{API}/user/repos?direction=asc&page=5");
            setup.forge.respond_once("GET", &last, status, &[JSON], r#"{"message":"Not Found"}"#);
        }
        assert_eq!(setup.rows(&list(Walk::Fan)).await.expect("rows").len(), 150, "{beyond:?}");
        setup.forge.assert_no_leftovers();
    }
}

#[tokio::test]
async fn a_page_that_takes_too_long_is_asked_for_with_fewer_rows() {
    let setup =
        Setup::new(GithubConfig { repositories: 100, slow_above: Some(50), ..GithubConfig::default() }).await;
    assert_eq!(setup.rows(&list(Walk::Fan)).await.expect("rows").len(), 100);
    let sizes: BTreeSet<_> =
        setup.forge.requests().iter().filter_map(|seen| seen.param("per_page")).collect();
    assert_eq!(sizes, ["100", "30"].map(str::to_owned).into());
}

#[tokio::test]
async fn organizations_that_single_sign_on_hides_are_named_once() {
    let setup = Setup::of(350).await;
    for walk in [Walk::Chain, Walk::Fan] {
        let wide = List { page_size: 100, ..list(walk) };
        let (rows, warnings) = setup.read(known::UNAUTHORIZED_SSO, &wide).await.expect("rows");
        assert!(!rows.is_empty() && rows.iter().all(|row| row.namespace != "platform"));
        assert!(warnings.iter().all(|warning| warning.reason == "SINGLE_SIGN_ON_REQUIRED"));
        assert!(warnings[0].message.contains("21955866"));
        // Each page of a chain is an answer of its own.
        assert_eq!(warnings.len(), if walk == Walk::Fan { 1 } else { 3 }, "{walk:?}");
    }
    let spaces = Github.namespaces(&setup.api(known::UNAUTHORIZED_SSO), &list(Walk::Chain), None).await;
    assert_eq!(spaces.expect("a page").warnings.len(), 1);
    assert!(setup.read(known::GOOD, &list(Walk::Fan)).await.expect("rows").1.is_empty());
}

#[tokio::test]
async fn what_single_sign_on_hides_is_told_in_the_answers_of_the_service() {
    let config = GithubConfig { repositories: 350, ..GithubConfig::default() };
    let forge =
        Forge::start(ForgeConfig { github: config, ..ForgeConfig::default() }).await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    let made = app
        .create(connection("github", "Hidden", &forge.github_url(), known::UNAUTHORIZED_SSO))
        .await
        .expect("made");
    assert_eq!(made.state(), v1::connection::State::Active);
    let request = v1::ListRepositoriesRequest {
        parent: made.name.clone(),
        query: "repo".to_owned(),
        page_size: 100,
        ..Default::default()
    };
    let page = app.repositories().list_repositories(request).await.expect("a page").into_inner();
    // Two pages of the provider made this one; both said so.
    let reasons: Vec<_> = page.warnings.iter().map(|warning| warning.reason.as_str()).collect();
    assert_eq!(reasons, ["SINGLE_SIGN_ON_REQUIRED"]);
    let request = v1::VerifyConnectionRequest { name: made.name, ..Default::default() };
    let report = app.connections().verify_connection(request).await.expect("a report").into_inner().report;
    assert_eq!(report.expect("a report").result(), v1::Outcome::Warn);
}

#[tokio::test]
async fn ac_61_h24_h25_h27_h31_odd_paging_ends() {
    for walk in [Walk::Chain, Walk::Fan] {
        for fault in [
            Fault::SelfNextLink,
            Fault::CursorCycle,
            Fault::SamePageForever,
            Fault::BadNextPage("abc".to_owned()),
            Fault::BadNextPage("-1".to_owned()),
            Fault::BadNextPage("18446744073709551616".to_owned()),
        ] {
            let setup = Setup::of(350).await;
            setup.forge.set_fault(fault.clone());
            let outcome = setup.rows(&list(walk)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{walk:?} {fault:?}: {outcome:?}");
            assert!(setup.forge.requests().len() < 40, "{walk:?} {fault:?}");
        }
        // A link is followed as given, so one to elsewhere ends the listing; it is never dialled.
        let setup = Setup::of(350).await;
        let other = Forge::small().await.expect("a forge");
        setup.forge.set_fault(Fault::ForeignNextLink(other.origin().to_owned()));
        assert!(matches!(setup.rows(&list(walk)).await, Err(ProviderError::Failed { .. })));
        assert!(other.requests().is_empty());
    }
}

#[tokio::test]
async fn h28_a_last_page_that_lies_ends_with_the_rows() {
    let setup = Setup::of(150).await;
    let link = |page: &str, relation: &str| {
        format!("<{}{API}/user/repos?page={page}>; rel=\"{relation}\"", setup.forge.origin())
    };
    for last in ["abc", "18446744073709551616"] {
        let odd = format!("{}, {}", link("2", "next"), link(last, "last"));
        setup.forge.respond_once("GET", &format!("{API}/user/repos"), 200, &[JSON, ("link", &odd)], "[]");
        let outcome = setup.rows(&list(Walk::Fan)).await;
        assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{last}: {outcome:?}");
    }
    // So many pages are not asked for side by side.
    let far = format!("{}, {}", link("2", "next"), link("999999999999", "last"));
    setup.forge.respond_once("GET", &format!("{API}/user/repos"), 200, &[JSON, ("link", &far)], "[]");
    assert!(setup.rows(&list(Walk::Fan)).await.is_ok());
    // Without a last page there is only the next one: `last` may be missing.
    let next = link("2", "next");
    setup.forge.respond_once("GET", &format!("{API}/user/repos"), 200, &[JSON, ("link", &next)], "[]");
    assert!(setup.rows(&list(Walk::Fan)).await.is_ok());
}

#[tokio::test]
async fn h19_an_id_of_a_wrong_type_is_a_typed_error() {
    for wrong in [WrongId::String, WrongId::Float, WrongId::Huge, WrongId::Exponent, WrongId::Null] {
        let setup = Setup::small().await;
        setup.forge.set_fault(Fault::WrongTypes(wrong));
        for walk in [Walk::Chain, Walk::Fan] {
            let outcome = setup.rows(&list(walk)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{wrong:?}");
        }
        assert!(setup.inspect(known::GOOD).await.failure.is_some(), "{wrong:?}");
    }
}

#[tokio::test]
async fn h21_h22_hostile_rows_are_kept_as_they_are_and_clean_for_people() {
    let setup = Setup::new(GithubConfig { hostile_rows: true, ..GithubConfig::default() }).await;
    let rows = setup.rows(&list(Walk::Fan)).await.expect("rows");
    assert_eq!(rows.len(), 25);
    assert_eq!(rows[0].full_name, "acme/..%2f..%2fetc");
    assert_eq!(
        (rows[3].display_name.as_str(), rows[4].description.as_str()),
        ("bell[31mtxt.exe", "nulbyte and a line")
    );
    // Such a name is encoded whole, and finds its own repository or none.
    let found = setup.lookup(Lookup::FullName(rows[0].full_name.clone())).await;
    assert!(
        found == Err(ProviderError::NotFound) || found.is_ok_and(|row| row.full_name == rows[0].full_name)
    );
    for seen in setup.forge.requests() {
        assert!(seen.path.starts_with(API) && !seen.path.contains("..%2f.."), "{}", seen.path);
    }
}

#[tokio::test]
async fn h42_a_token_of_an_unknown_form_is_never_given_back() {
    const TOKEN: &str = "corp_n0.known.prefix-1";
    let setup = Setup::small().await;
    let api = setup.api(TOKEN);
    let escaped = TOKEN.replace('c', "\\u0063");
    let body = format!(
        r#"[{{"id":1,"full_name":"acme/{TOKEN}","name":"{escaped}","description":"it is {TOKEN}","clone_url":"https://{TOKEN}@git.test/a"}}]"#
    );
    setup.forge.respond_once("GET", &format!("{API}/user/repos"), 200, &[JSON, ("x-echo", TOKEN)], body);
    let page = Github.repositories(&api, &list(Walk::Fan), None).await.expect("a page");
    assert_eq!(page.items[0].description, format!("it is {}", "*".repeat(TOKEN.len())));
    for told in [format!("{page:?}"), format!("{api:?}")] {
        assert!(!told.contains(TOKEN), "{told}");
    }
}

#[tokio::test]
async fn filters_leave_the_same_rows_as_reading_all() {
    let setup = Setup::of(120).await;
    let all = setup.rows(&list(Walk::Chain)).await.expect("rows");
    let query = |query: &str| List { query: query.to_owned(), ..list(Walk::Chain) };
    let namespace = |namespace: &str| List { namespace: namespace.to_owned(), ..list(Walk::Chain) };
    let least = |min_permission| List { min_permission, ..list(Walk::Chain) };
    for filter in [
        query("WEBSITE"),
        query("me/we"),
        query("o-0"),
        query("no such thing"),
        namespace("acme"),
        namespace("casey"),
        namespace("ACME"),
        least(Permission::Read),
        least(Permission::Write),
        least(Permission::Admin),
        List { include_archived: false, ..list(Walk::Chain) },
    ] {
        let wanted: Vec<_> = all.iter().filter(|row| filter.keeps(row)).cloned().collect();
        for walk in [Walk::Chain, Walk::Fan] {
            let filter = List { walk, ..filter.clone() };
            assert_eq!(setup.rows(&filter).await.expect("rows"), wanted, "{filter:?}");
        }
    }
}

#[tokio::test]
async fn a_chain_goes_on_in_the_size_that_it_had() {
    let setup = Setup::of(60).await;
    let api = setup.api(known::GOOD);
    let first = Github.repositories(&api, &list(Walk::Chain), None).await.expect("a page");
    assert_eq!((first.items.len(), first.next.len(), first.total), (10, 1, None));
    let wide = List { page_size: 5_000, ..list(Walk::Chain) };
    let rest = Github.repositories(&api, &wide, first.next.first()).await.expect("a page");
    assert_eq!((rest.items.len(), rest.next.len()), (10, 1));
    for foreign in ["", "x:/user/repos", "n:", "n:../../admin", "n://elsewhere.test/"] {
        let outcome = Github.repositories(&api, &wide, Some(&Cursor(foreign.to_owned()))).await;
        assert!(
            matches!(outcome, Err(ProviderError::Failed { .. })) || outcome == Ok(Page::last(Vec::new())),
            "{foreign}"
        );
    }
}

#[tokio::test]
async fn namespaces_start_with_the_users_own() {
    let setup = Setup::new(GithubConfig { organizations: 30, ..GithubConfig::default() }).await;
    let api = setup.api(known::GOOD);
    let (mut all, mut at) = (Vec::new(), None);
    loop {
        let page = Github.namespaces(&api, &list(Walk::Chain), at.as_ref()).await.expect("a page");
        assert!(page.warnings.is_empty());
        all.extend(page.items);
        at = page.next.into_iter().next();
        if at.is_none() {
            break;
        }
    }
    assert_eq!(all.len(), 31);
    assert_eq!((all[0].full_path.as_str(), all[0].kind), ("casey", NamespaceKind::User));
    let acme = all.iter().find(|space| space.full_path == "acme").expect("the organization");
    assert_eq!((acme.kind, acme.parent_path.as_str()), (NamespaceKind::Organization, ""));
    assert_eq!(acme.web_url, format!("{}/acme", setup.forge.github_url()));
}

#[tokio::test]
async fn a_token_that_is_not_told_its_organizations_shows_the_owners_of_its_repositories() {
    let setup = Setup::of(1_000).await;
    for (token, names, warned) in [
        // 200 and an empty list.
        (known::FINE, &["casey", "acme"][..], true),
        // 403 for want of read:org.
        (known::SCOPELESS, &["casey", "acme", "platform", "org-002", "org-003"], true),
        // 403, and no user either.
        (known::INSTALLATION, &["acme"], true),
    ] {
        let page = Github.namespaces(&setup.api(token), &list(Walk::Chain), None).await.expect("a page");
        let found: BTreeSet<_> = page.items.iter().map(|space| space.full_path.as_str()).collect();
        assert_eq!(found, names.iter().copied().collect(), "{token}");
        let reasons: Vec<_> = page.warnings.iter().map(|warning| warning.reason).collect();
        assert_eq!(reasons == ["NAMESPACES_NOT_LISTED"], warned, "{token}");
    }
    // With all repositories looked at, nothing is left out.
    let setup = Setup::small().await;
    let page = Github.namespaces(&setup.api(known::FINE), &list(Walk::Chain), None).await.expect("a page");
    assert!(page.warnings.is_empty());
    let dead = Github.namespaces(&setup.api(known::UNKNOWN), &list(Walk::Chain), None).await;
    assert!(matches!(dead, Err(ProviderError::CredentialRejected { .. })));
}
