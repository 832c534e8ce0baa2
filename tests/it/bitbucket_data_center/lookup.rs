//! One repository: by number, by name, by clone URL.

use super::*;

#[tokio::test]
async fn a_repository_is_found_by_number_name_and_clone_url() {
    let setup = Setup::small().await;
    let first = setup.all().await.remove(0);
    let by_id = setup.driver().repository(&setup.api(tokens::GOOD), &first.provider_id).await.expect("a row");
    assert_eq!(
        (by_id.full_name.as_str(), by_id.default_branch.as_deref()),
        ("WEB/acme-website", Some("main"))
    );
    let base = setup.forge.bitbucket_data_center_url();
    for what in [
        Lookup::FullName("WEB/acme-website".to_owned()),
        Lookup::FullName("/web/acme-website/".to_owned()),
        Lookup::CloneUrl(first.clone_https_url.clone()),
        Lookup::CloneUrl(first.clone_ssh_url.clone()),
        Lookup::CloneUrl(first.web_url.clone()),
        Lookup::CloneUrl("git@127.0.0.1:web/acme-website.git".to_owned()),
        Lookup::CloneUrl(first.clone_https_url.replace("http://", "http://casey:secret@")),
    ] {
        let found = setup.lookup(what.clone()).await;
        assert_eq!(found, Ok(by_id.clone()), "{what:?}");
    }
    for what in [
        Lookup::FullName("WEB/nothing".to_owned()),
        Lookup::FullName("NOTHING/acme-website".to_owned()),
        Lookup::FullName("acme-website".to_owned()),
        Lookup::FullName("WEB/../acme-website".to_owned()),
        Lookup::FullName(String::new()),
        Lookup::CloneUrl("https://elsewhere.test/bitbucket/scm/web/acme-website.git".to_owned()),
        // Another instance on the same host.
        Lookup::CloneUrl(format!("{}/other/scm/web/acme-website.git", setup.forge.origin())),
        Lookup::CloneUrl(format!("{base}/web/acme-website.git")),
        Lookup::CloneUrl("file:///etc/passwd".to_owned()),
    ] {
        assert_eq!(setup.lookup(what.clone()).await, Err(ProviderError::NotFound), "{what:?}");
    }
    let personal = setup.by_name("~casey/dotted.name_v2").await.expect("a row");
    let url = format!("{base}/users/casey/repos/dotted.name_v2/browse");
    assert_eq!(setup.lookup(Lookup::CloneUrl(url)).await, Ok(personal));
}

#[tokio::test]
async fn h22_an_id_is_a_number_or_nothing() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    for id in
        ["", "0", "01", "-1", "+1", "1/hooks", "WEB/acme-website", "..", "99999999999999999999", "\u{661}"]
    {
        assert_eq!(setup.driver().repository(&api, id).await, Err(ProviderError::NotFound), "{id}");
    }
    assert!(setup.forge.requests().is_empty());
    assert_eq!(setup.driver().repository(&api, "999999999").await, Err(ProviderError::NotFound));
    assert_eq!(setup.forge.requests().len(), 1);
}

#[tokio::test]
async fn a_number_is_looked_for_page_by_page() {
    let config = DataCenterConfig { repositories: 3_500, ..DataCenterConfig::default() };
    let setup = Setup::new(config).await;
    let wanted = setup.all().await.remove(2_500);
    setup.forge.forget_requests();
    let api = setup.api(tokens::GOOD);
    let found = setup.driver().repository(&api, &wanted.provider_id).await.expect("a row");
    assert_eq!(found.full_name, wanted.full_name);
    let scanned = setup.forge.requests_to(&format!("{API}/repos"));
    assert_eq!(scanned.len(), 3);
    // Not only what was given: a public repository of others that was found by its name has a number, too.
    assert!(scanned.iter().all(|seen| seen.param("permission").is_none()));
    let public = setup.by_name("PUB/repo-00007").await.expect("a row");
    let again = setup.driver().repository(&api, &public.provider_id).await;
    assert_eq!(again, Ok(public));
    // A server whose listing never ends is given up.
    setup.forge.set_fault(Fault::SamePageForever);
    let outcome = setup.driver().repository(&api, "999999999").await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
}

#[tokio::test]
async fn ac_64_a_moved_repository_is_found_by_its_old_name() {
    // The redirect names the configured URL, which is out of reach: only the path is taken from it.
    for external in [None, Some("https://elsewhere.test/bitbucket".to_owned())] {
        let config = DataCenterConfig { external_url: external, ..DataCenterConfig::default() };
        let setup = Setup::new(config).await;
        let found = setup.by_name("WEB/old-website").await.expect("a row");
        assert_eq!(found.full_name, "WEB/acme-website");
        // A personal one fails under its usual path.
        let found = setup.by_name("~casey/old-notes").await.expect("a row");
        assert_eq!(found.full_name, "~casey/dotted.name_v2");
        let old =
            Lookup::CloneUrl(format!("{}/scm/web/old-website.git", setup.forge.bitbucket_data_center_url()));
        assert_eq!(setup.lookup(old).await.map(|row| row.full_name), Ok("WEB/acme-website".to_owned()));
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let setup = Setup::small().await;
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")] {
        let to = format!("{API}/projects/LOOP/repos/{to}");
        let path = format!("{API}/projects/LOOP/repos/{from}");
        setup.forge.respond_once("GET", &path, 307, &[("location", &to)], "");
    }
    let outcome = setup.by_name("LOOP/a").await;
    assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{outcome:?}");
    setup.forge.assert_no_leftovers();
    // A redirect to no repository is not followed.
    let path = format!("{API}/projects/LOOP/repos/a");
    setup.forge.respond_once("GET", &path, 302, &[("location", "/bitbucket/login")], "");
    let outcome = setup.by_name("LOOP/a").await;
    assert!(matches!(outcome, Err(ProviderError::Failed { status: Some(302), .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_default_branch_that_does_not_exist_is_none() {
    let setup = Setup::small().await;
    let rows = setup.all().await;
    let default = async |index: usize| {
        let name = format!("repo-{index:05}");
        let row = rows.iter().find(|row| row.full_name.ends_with(&name)).expect("the row");
        setup.by_name(&row.full_name).await.expect("a row").default_branch
    };
    assert_eq!(default(5).await.as_deref(), Some("main"));
    // Nothing was pushed, though a branch is configured.
    assert_eq!(default(4).await, None);
    // The configured one was deleted.
    assert_eq!(default(8).await, None);
    // A repository that cannot serve is not asked.
    setup.forge.forget_requests();
    assert_eq!(default(6).await, None);
    assert_eq!(setup.forge.requests().len(), 1);
}

#[tokio::test]
async fn rights_that_change_change_what_is_found() {
    let setup = Setup::small().await;
    assert!(setup.by_name("WEB/acme-website").await.is_ok());
    setup.forge.edit_data_center_token(tokens::GOOD, |token| token.level = Level::None);
    assert_eq!(setup.by_name("WEB/acme-website").await, Err(ProviderError::NotFound));
    assert_eq!(setup.all().await, []);
}

// --- the last known place ---

#[tokio::test]
async fn ac_64_a_repository_is_looked_for_at_its_last_known_place_first() {
    let setup = Setup::small().await;
    let website = setup.by_name("WEB/acme-website").await.expect("a row");
    let notes = setup.by_name("~casey/dotted.name_v2").await.expect("a row");
    let api = setup.api(tokens::GOOD);
    let known = async |id: &str, name: &str| {
        setup.forge.forget_requests();
        setup.driver().known_repository(&api, id, name).await
    };
    let looked_through = || setup.forge.requests_to(&format!("{API}/repos")).len();
    // What is there, and its default branch; a redirect besides where it has moved since.
    for (id, name, found, calls) in [
        (FIRST, "WEB/acme-website", &website, 3),
        (FIRST, "web/acme-website", &website, 3),
        (FIRST, "WEB/old-website", &website, 4),
        (&*notes.provider_id, "~casey/old-notes", &notes, 7),
    ] {
        assert_eq!(known(id, name).await.as_ref(), Ok(found), "{name}");
        assert!(setup.forge.requests().len() <= calls, "{name}: {}", setup.forge.requests().len());
        assert_eq!(looked_through(), 0, "{name}");
    }
    // Nothing there, another one there, no name at all: all are looked through.
    for name in ["WEB/nothing", "~casey/dotted.name_v2", "acme-website", "", "WEB/.."] {
        assert_eq!(known(FIRST, name).await.as_ref(), Ok(&website), "{name}");
        assert_eq!(looked_through(), 1, "{name}");
    }
    assert_eq!(known("999999999", "WEB/acme-website").await, Err(ProviderError::NotFound));
    assert_eq!(known("0", "WEB/acme-website").await, Err(ProviderError::NotFound));
    assert!(setup.forge.requests().is_empty());
}

#[tokio::test]
async fn a_last_known_place_that_refuses_is_told_as_refused() {
    let setup = Setup::small().await;
    let api = setup.api(tokens::GOOD);
    let place = format!("{API}/projects/GONE/repos/x");
    let denied = r#"{"errors":[{"exceptionName":"com.atlassian.bitbucket.AuthorisationException"}]}"#;
    let refuse = || setup.forge.respond_once("GET", &place, 401, &[JSON, USER], denied);
    refuse();
    let found = setup.driver().known_repository(&api, "999999999", "GONE/x").await;
    assert_eq!(found, Err(ProviderError::Forbidden));
    // It may have moved to where it is seen.
    refuse();
    let found = setup.driver().known_repository(&api, FIRST, "GONE/x").await.expect("a row");
    assert_eq!(found.full_name, "WEB/acme-website");
    // What fails may succeed again, and says nothing of where else to look.
    setup.forge.fault_on(&place, Fault::ServerError, usize::MAX);
    setup.forge.forget_requests();
    let found = setup.driver().known_repository(&api, FIRST, "GONE/x").await;
    assert!(matches!(found, Err(ProviderError::Failed { status: Some(500..), .. })), "{found:?}");
    assert!(setup.forge.requests_to(&format!("{API}/repos")).is_empty());
}
