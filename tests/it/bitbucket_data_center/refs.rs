//! Branches and tags.

use super::*;

fn wanted(kind: RefKind, query: &str, page_size: usize) -> RefList {
    RefList { kind, query: query.to_owned(), page_size }
}

/// All wanted refs of the first repository, in order.
async fn all(setup: &Setup, list: &RefList) -> Vec<Ref> {
    let api = setup.api(tokens::GOOD);
    let (mut rows, mut at) = (Vec::new(), None);
    for _ in 0..1_000 {
        let page: Page<Ref> = setup.driver().refs(&api, FIRST, list, at.as_ref()).await.expect("a page");
        rows.extend(page.items.into_iter().filter(|row| list.keeps(row)));
        at = page.next.into_iter().next();
        if at.is_none() {
            return rows;
        }
    }
    panic!("the pages never end");
}

#[tokio::test]
async fn tags_are_peeled_and_the_default_branch_is_marked() {
    let setup = Setup::small().await;
    let branches = all(&setup, &wanted(RefKind::Branch, "", 7)).await;
    assert_eq!(branches.len(), 30);
    let default: Vec<&str> =
        branches.iter().filter(|row| row.is_default).map(|row| row.name.as_str()).collect();
    assert_eq!(default, ["main"]);
    assert!(branches.iter().all(|row| row.protected.is_none()));
    let tags = all(&setup, &wanted(RefKind::Tag, "", 5)).await;
    assert_eq!(tags.len(), 12);
    assert!(tags.iter().all(|tag| tag.commit_id == Forge::commit_of(&tag.name) && !tag.is_default));
}

#[tokio::test]
async fn ac_62_a_search_finds_all_whether_the_server_minds_the_case_or_not() {
    for search_minds_case in [true, false] {
        let bitbucket_data_center = DataCenterConfig { search_minds_case, ..DataCenterConfig::default() };
        let setup =
            Setup::of(ForgeConfig { branches: 2_500, bitbucket_data_center, ..ForgeConfig::default() }).await;
        for (query, count) in
            [("HOTFIX/login", 1), ("Feature/0001", 10), ("00017", 1), ("GR\u{dc}N", 1), ("nothing", 0)]
        {
            let found = all(&setup, &wanted(RefKind::Branch, query, 4)).await;
            assert_eq!(found.len(), count, "{query}");
        }
    }
}

#[tokio::test]
async fn ac_62_what_has_no_case_is_searched_at_the_server() {
    let setup = Setup::of(ForgeConfig { branches: 10_000, ..ForgeConfig::default() }).await;
    let found = all(&setup, &wanted(RefKind::Branch, "feature/00017", 50)).await;
    assert_eq!(found.len(), 1);
    let searches = setup.forge.requests_to(&format!("{API}/projects/WEB/repos/acme-website/branches"));
    assert_eq!(searches.len(), 1);
    assert_eq!(searches[0].param("filterText").as_deref(), Some("/00017"));
    // Anything else is a look at many rows a time.
    setup.forge.forget_requests();
    assert_eq!(all(&setup, &wanted(RefKind::Branch, "hotfix", 50)).await.len(), 1);
    let pages = setup.forge.requests_to(&format!("{API}/projects/WEB/repos/acme-website/branches"));
    assert_eq!(pages.len(), 10);
}

#[tokio::test]
async fn an_empty_repository_has_no_refs() {
    let setup = Setup::small().await;
    let rows = setup.all().await;
    let empty = rows.iter().find(|row| row.full_name.ends_with("/repo-00004")).expect("the row");
    let api = setup.api(tokens::GOOD);
    let page = setup.driver().refs(&api, &empty.provider_id, &wanted(RefKind::Branch, "", 10), None).await;
    assert_eq!(page.map(|page| (page.items, page.next)), Ok((Vec::new(), Vec::new())));
}

#[tokio::test]
async fn a_further_page_is_of_the_same_repository() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    let list = wanted(RefKind::Branch, "", 10);
    let page = setup.driver().refs(&api, FIRST, &list, None).await.expect("a page");
    let second = setup.driver().refs(&api, FIRST, &list, page.next.first()).await.expect("a page");
    setup.forge.forget_requests();
    // The repository was renamed in between, and its place is taken by another one, or empty, or redirects.
    let place = format!("{API}/projects/WEB/repos/acme-website");
    let other = r#"{"id":7,"slug":"acme-website","project":{"key":"WEB"}}"#;
    let gone =
        r#"{"errors":[{"exceptionName":"com.atlassian.bitbucket.repository.NoSuchRepositoryException"}]}"#;
    for (status, body) in [(200, other), (404, gone)] {
        setup.forge.respond_once(
            "GET",
            &format!("{place}/branches"),
            status,
            &[JSON, USER],
            r#"{"values":[]}"#,
        );
        setup.forge.respond_once("GET", &place, status, &[JSON, USER], body);
        let again = setup.driver().refs(&api, FIRST, &list, page.next.first()).await;
        assert_eq!(again.as_ref(), Ok(&second), "{status}");
        setup.forge.assert_no_leftovers();
        assert_eq!(setup.forge.requests_to(&format!("{API}/repos")).len(), 1, "it is looked for again");
        setup.forge.forget_requests();
    }
    for bad in ["", "10", "x:WEB/acme-website", "10:WEB/..", "10:acme-website"] {
        let outcome = setup.driver().refs(&api, FIRST, &list, Some(&Cursor(bad.to_owned()))).await;
        assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{bad}");
    }
}
