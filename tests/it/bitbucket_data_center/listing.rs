//! Repositories and projects.

use super::*;

#[tokio::test]
async fn ac_60_a_token_lists_what_it_was_given() {
    let setup = Setup::small().await;
    let all = setup.all().await;
    assert_eq!(all.len(), 25);
    assert!(all.iter().all(|row| row.namespace != "PUB"));
    assert_eq!(
        names(&setup.rows(tokens::REPOSITORY, &list(Walk::Fan)).await.expect("rows")),
        ["WEB/acme-website"]
    );
    let project = setup.rows(tokens::PROJECT, &list(Walk::Fan)).await.expect("rows");
    assert!(project.len() > 1 && project.iter().all(|row| row.namespace == "WEB"));
}

#[tokio::test]
async fn archived_repositories_come_only_if_asked_for_in_words() {
    let setup = Setup::small().await;
    let all = setup.all().await;
    let archived = all.iter().filter(|row| row.archived == Some(true)).count();
    assert!(archived > 0);
    let active = List { include_archived: false, ..list(Walk::Fan) };
    let active = setup.rows(tokens::GOOD, &active).await.expect("rows");
    assert_eq!(active.len(), all.len() - archived);
    // Left out, the parameter would mean ACTIVE.
    assert!(setup.forge.requests().iter().all(|seen| seen.param("archived").is_some()));
}

#[tokio::test]
async fn rows_are_mapped_as_documented() {
    let setup = Setup::small().await;
    let all = setup.all().await;
    let row = |name: &str| all.iter().find(|row| row.full_name == name).expect("the row");
    let base = setup.forge.bitbucket_data_center_url();
    let first = row("WEB/acme-website");
    assert_eq!(
        (first.display_name.as_str(), first.description.as_str()),
        ("Acme Website", "What Acme Website is about")
    );
    assert_eq!(first.clone_https_url, format!("{base}/scm/web/acme-website.git"));
    assert_eq!(first.clone_ssh_url, "ssh://git@127.0.0.1:7999/web/acme-website.git");
    assert_eq!(first.web_url, format!("{base}/projects/WEB/repos/acme-website/browse"));
    assert_eq!((first.visibility, first.fork, first.disabled), (Visibility::Private, Some(false), false));
    assert_eq!((first.permission, first.size_kib, first.update_time), (Permission::Unknown, None, None));
    // The link carries the caller's name there.
    let other = row("PLAT/ubersicht-prufung");
    assert_eq!(other.display_name, "Übersicht & Prüfung");
    assert_eq!(other.clone_https_url, format!("{base}/scm/plat/ubersicht-prufung.git"));
    let personal = row("~casey/dotted.name_v2");
    assert_eq!((personal.namespace.as_str(), personal.visibility), ("~casey", Visibility::Public));
    assert!(all.iter().any(|row| row.disabled) && all.iter().any(|row| row.fork == Some(true)));
}

#[tokio::test]
async fn without_http_only_ssh_is_shown() {
    let setup = Setup::new(DataCenterConfig { ssh_only: true, ..DataCenterConfig::default() }).await;
    let all = setup.all().await;
    assert!(all.iter().all(|row| row.clone_https_url.is_empty() && !row.clone_ssh_url.is_empty()));
    assert!(!all[0].foreign_clone_host);
    let found = setup.lookup(Lookup::CloneUrl(all[0].clone_ssh_url.clone())).await;
    assert_eq!(found.map(|row| row.full_name), Ok("WEB/acme-website".to_owned()));
}

#[tokio::test]
async fn pages_start_where_the_server_says() {
    let config = DataCenterConfig { repositories: 120, strangers: 30, ..DataCenterConfig::default() };
    let setup = Setup::new(config).await;
    let all = setup.all().await;
    assert_eq!(all.len(), 120);
    for page_size in [1, 7, 119, 120, 5_000] {
        let chain = List { page_size, ..list(Walk::Chain) };
        assert_eq!(setup.rows(tokens::GOOD, &chain).await.as_ref(), Ok(&all), "{page_size}");
    }
    // Hidden rows count, so the starts are not multiples of the size.
    let starts = setup.forge.requests_to(&format!("{API}/repos"));
    let odd = |seen: &Seen| {
        let number = |name| seen.param(name).and_then(|text: String| text.parse::<usize>().ok());
        number("limit") == Some(7) && number("start").is_some_and(|start| start % 7 != 0)
    };
    assert!(starts.iter().any(odd));
}

#[tokio::test]
async fn a_server_with_smaller_pages_is_read_whole() {
    let config = DataCenterConfig { repositories: 130, page_cap: 25, ..DataCenterConfig::default() };
    let setup = Setup::new(config).await;
    assert_eq!(setup.all().await.len(), 130);
    assert_eq!(setup.forge.requests().len(), 6);
}

#[tokio::test]
async fn ac_61_ten_thousand_repositories_are_one_chain_of_large_pages() {
    let config = DataCenterConfig { repositories: 10_000, ..DataCenterConfig::default() };
    let setup = Setup::new(config).await;
    let rows = setup.all().await;
    let unique: BTreeSet<&str> = rows.iter().map(|row| row.provider_id.as_str()).collect();
    assert_eq!((rows.len(), unique.len()), (10_000, 10_000));
    assert_eq!(setup.forge.requests().len(), 10);
    assert!(setup.forge.requests().iter().all(|seen| seen.param("limit").as_deref() == Some("1000")));
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
            Fault::BadNextPage("1.5".to_owned()),
            Fault::BadNextPage("null".to_owned()),
            Fault::BadNextPage("18446744073709551616".to_owned()),
        ] {
            let config = DataCenterConfig { repositories: 350, page_cap: 100, ..DataCenterConfig::default() };
            let setup = Setup::new(config).await;
            setup.forge.set_fault(fault.clone());
            let outcome = setup.rows(tokens::GOOD, &list(walk)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{walk:?} {fault:?}");
            assert!(setup.forge.requests().len() < 10, "{walk:?} {fault:?}");
        }
    }
}

#[tokio::test]
async fn h19_an_id_of_a_wrong_type_is_a_typed_error() {
    for wrong in [WrongId::String, WrongId::Float, WrongId::Huge, WrongId::Exponent, WrongId::Null] {
        let setup = Setup::small().await;
        setup.forge.set_fault(Fault::WrongTypes(wrong));
        for walk in [Walk::Chain, Walk::Fan] {
            let outcome = setup.rows(tokens::GOOD, &list(walk)).await;
            assert!(matches!(outcome, Err(ProviderError::Failed { .. })), "{wrong:?}");
        }
        assert!(setup.inspect(tokens::GOOD).await.failure.is_some(), "{wrong:?}");
    }
}

#[tokio::test]
async fn filters_leave_the_same_rows_as_reading_all() {
    let setup = Setup::new(DataCenterConfig { repositories: 120, ..DataCenterConfig::default() }).await;
    let all = setup.all().await;
    let query = |query: &str| List { query: query.to_owned(), ..list(Walk::Chain) };
    let namespace = |namespace: &str| List { namespace: namespace.to_owned(), ..list(Walk::Chain) };
    for filter in [
        query("WEBSITE"),
        query("b/acme"),
        // Only the display name begins with it.
        query("acme w"),
        query("no such thing"),
        namespace("WEB"),
        namespace("~casey"),
        namespace("web"),
        List { include_archived: false, ..list(Walk::Chain) },
    ] {
        let wanted: Vec<Repository> = all.iter().filter(|row| filter.keeps(row)).cloned().collect();
        for walk in [Walk::Chain, Walk::Fan] {
            let filter = List { walk, ..filter.clone() };
            assert_eq!(setup.rows(tokens::GOOD, &filter).await.expect("rows"), wanted, "{filter:?}");
        }
    }
    setup.forge.forget_requests();
    setup.rows(tokens::GOOD, &query("website")).await.expect("rows");
    assert_eq!(setup.forge.requests().len(), 1, "a search has the largest pages");
}

#[tokio::test]
async fn a_permission_is_asked_of_the_server_and_told_of_the_rows() {
    let setup = Setup::small().await;
    for (permission, token, some) in [
        (Permission::Read, tokens::GOOD, true),
        (Permission::Write, tokens::GOOD, true),
        (Permission::Admin, tokens::GOOD, true),
        (Permission::Admin, tokens::READ_ONLY, false),
        (Permission::Write, tokens::SECOND, false),
    ] {
        let list = List { min_permission: permission, ..list(Walk::Fan) };
        let rows = setup.rows(token, &list).await.expect("rows");
        assert_eq!(!rows.is_empty(), some, "{permission:?}");
        assert!(rows.len() < 25 || permission == Permission::Read);
        assert!(rows.iter().all(|row| row.permission == permission));
    }
}

#[tokio::test]
async fn h22_hostile_rows_are_kept_as_they_are() {
    let setup = Setup::new(DataCenterConfig { hostile_rows: true, ..DataCenterConfig::default() }).await;
    let rows = setup.all().await;
    assert_eq!(rows.len(), 25);
    assert_eq!((rows[0].full_name.as_str(), rows[1].full_name.as_str()), ("WEB/..", "PLAT/a%2f..%2fb"));
    assert_eq!(rows[3].display_name, "bell [31mred[0m txt.exe");
    // What cannot be a segment of a path is asked for nowhere; what can is encoded whole.
    assert_eq!(setup.by_name("WEB/..").await, Err(ProviderError::NotFound));
    assert_eq!(
        setup.by_name("PLAT/a%2f..%2fb").await,
        Ok(Repository { default_branch: Some("main".into()), ..rows[1].clone() })
    );
    let api = setup.api(tokens::GOOD);
    assert_eq!(setup.driver().repository(&api, &rows[0].provider_id).await, Err(ProviderError::NotFound));
    for seen in setup.forge.requests() {
        assert!(seen.path.starts_with(API), "{}", seen.path);
    }
}

#[tokio::test]
async fn h42_a_token_of_an_unknown_form_is_never_given_back() {
    const TOKEN: &str = "corp_n0.known.prefix-1";
    let setup = Setup::small().await;
    let api = setup.api(TOKEN);
    let headers = [JSON, ("x-ausername", TOKEN), ("x-echo", TOKEN)];
    let row = format!(
        r#"{{"id":1,"slug":"{TOKEN}","name":"{TOKEN}","description":"it is {TOKEN}","project":{{"key":"PRJ"}}}}"#
    );
    let page = format!(r#"{{"values":[{row}],"isLastPage":true}}"#);
    setup.forge.respond_once("GET", &format!("{API}/repos"), 200, &headers, page.clone());
    let listed = setup.driver().repositories(&api, &list(Walk::Fan), None).await.expect("a page");
    assert_eq!(listed.items[0].description, format!("it is {}", "*".repeat(TOKEN.len())));
    let version = format!(r#"{{"version":"{TOKEN}","buildNumber":"1"}}"#);
    setup.forge.respond_once("GET", &format!("{API}/application-properties"), 200, &headers, version);
    for _ in 0..2 {
        setup.forge.respond_once("GET", &format!("{API}/repos"), 200, &headers, page.clone());
    }
    let inspection = setup.driver().inspect(&api, &CapabilityType::ALL).await;
    for told in [format!("{listed:?}"), format!("{inspection:?}"), format!("{api:?}")] {
        assert!(!told.contains(TOKEN), "{told}");
    }
}

#[tokio::test]
async fn namespaces_start_with_the_users_own() {
    for lists_personal in [false, true] {
        let config = DataCenterConfig {
            projects: 30,
            repositories: 90,
            lists_personal,
            ..DataCenterConfig::default()
        };
        let setup = Setup::new(config).await;
        let rows = setup.all().await;
        // A project is seen with any repository in it, also one that is public.
        let wanted: BTreeSet<&str> = rows.iter().map(|row| row.namespace.as_str()).chain(["PUB"]).collect();
        assert!(wanted.len() > 20);
        for page_size in [7, 100] {
            let all = setup.namespaces(tokens::GOOD, page_size).await;
            let keys: Vec<&str> = all.iter().map(|space| space.full_path.as_str()).collect();
            let unique: BTreeSet<&str> = keys.iter().copied().collect();
            assert_eq!((keys.len(), &unique), (unique.len(), &wanted));
            assert_eq!((keys[0], all[0].kind), ("~casey", NamespaceKind::User));
            assert_eq!((keys[1], all[1].kind), ("WEB", NamespaceKind::Project));
            assert_eq!(all[1].display_name, "Web & Söhne");
            assert!(all[1].web_url.ends_with("/bitbucket/projects/WEB"));
            assert!(all.iter().all(|space| space.parent_path.is_empty()));
        }
        // A project's token has no user with a project.
        setup.forge.forget_requests();
        let all = setup.namespaces(tokens::PROJECT, 100).await;
        assert!(all.iter().any(|space| space.full_path == "WEB"));
        assert_eq!(setup.forge.requests().len(), 1);
    }
}
