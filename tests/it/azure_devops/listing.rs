//! Listing and finding: every row once, in order, whatever the form of the instance.

use super::*;

#[tokio::test]
async fn a_token_for_code_alone_lists_all_repositories_in_one_call() {
    let bench = Bench::small().await;
    let (all, _) = fan(&bench.services(tokens::GOOD), &list(Walk::Fan, 10)).await.expect("rows");
    let api = bench.services(tokens::READ_ONLY);
    let (rows, _) = fan(&api, &list(Walk::Fan, 10)).await.expect("rows");
    assert_eq!(ids(&rows), ids(&all));
    let pages = chain(&api, &list(Walk::Chain, 7)).await;
    assert!(pages.iter().all(|page| page.items.len() <= 7));
    assert_eq!(ids(pages.iter().flat_map(|page| &page.items)), ids(&all));
    let page = AzureDevOps.namespaces(&api, &list(Walk::Chain, 50), None).await.expect("namespaces");
    assert_eq!(page.items.len(), 6, "the organization and five projects");
    assert_eq!(page.warnings[0].reason, "PROJECTS_NOT_LISTED");
}

#[tokio::test]
async fn links_of_the_cloud_lead_through_the_gateway() {
    let external = Some("https://dev.azure.com/contoso".to_owned());
    let bench = Bench::start(AzureConfig { external_url: external, ..AzureConfig::default() }).await;
    let (rows, _) = fan(&bench.services(tokens::GOOD), &list(Walk::Fan, 10)).await.expect("rows");
    let prefix = format!("{}/", bench.forge.azure_url());
    for row in rows {
        assert!(row.clone_https_url.starts_with(&prefix) && !row.foreign_clone_host, "{row:?}");
        assert!(row.web_url.starts_with(&prefix));
    }
}

#[tokio::test]
async fn ac_60_all_projects_are_listed_and_the_closed_ones_are_named() {
    let bench = Bench::small().await;
    let (rows, warnings) = fan(&bench.services(tokens::GOOD), &list(Walk::Fan, 10)).await.expect("rows");
    assert_eq!(rows.len(), 20);
    assert_eq!(ids(&rows).len(), 20);
    let words: Vec<&str> = warnings.iter().map(|warning| warning.reason).collect();
    assert_eq!(words, ["PROJECT_NOT_READABLE"; 2]);
    assert!(warnings[0].message.contains("Restricted"));
    assert!(bench.forge.max_in_flight() <= 4);

    let row = rows.iter().find(|row| row.full_name.ends_with("/name with   several spaces")).expect("a row");
    assert_eq!(
        (row.namespace.as_str(), row.display_name.as_str()),
        ("Fabrikam Fiber", "name with   several spaces")
    );
    assert!(
        row.clone_https_url
            .ends_with("/azure/contoso/Fabrikam%20Fiber/_git/name%20with%20%20%20several%20spaces")
    );
    assert!(!row.clone_https_url.contains('@') && !row.clone_https_url.contains('+'));
    assert_eq!(row.default_branch.as_deref(), Some("main"));
    assert_eq!((row.archived, row.permission), (None, Permission::Unknown));
    assert!(row.size_kib.is_some() && row.update_time.is_some() && !row.foreign_clone_host);
    assert!(rows.iter().any(|row| row.disabled && row.default_branch.is_none()));
    assert!(rows.iter().any(|row| row.visibility == Visibility::Internal));
    assert!(rows.iter().any(|row| row.namespace == "Größe & Проект"));
}

#[tokio::test]
async fn ac_12_server_links_hold_the_prefix_once() {
    let bench = Bench::small().await;
    let api = bench.server(tokens::GOOD);
    let (rows, _) = fan(&api, &list(Walk::Fan, 10)).await.expect("rows");
    let prefix = format!("{}/", bench.forge.azure_server_url());
    for row in &rows {
        assert!(row.clone_https_url.starts_with(&prefix));
        assert_eq!(row.clone_https_url.matches("/tfs/").count(), 1);
        assert!(!row.clone_https_url[8..].contains("//"));
        assert!(!row.clone_https_url.ends_with(".git"));
    }
    for seen in bench.forge.requests() {
        assert_eq!(seen.path.matches("tfs/DefaultCollection").count(), 1, "{}", seen.path);
        assert!(!seen.path.contains("//"));
    }
}

#[tokio::test]
async fn hundreds_of_projects_are_read_side_by_side_in_order() {
    for continuation in [true, false] {
        let config = AzureConfig {
            projects: 611,
            repositories_per_project: 1,
            unreadable: false,
            server_continuation: continuation,
            ..AzureConfig::default()
        };
        let bench = Bench::start(config).await;
        let (rows, warnings) = fan(&bench.server(tokens::GOOD), &list(Walk::Fan, 10)).await.expect("rows");
        assert_eq!((rows.len(), warnings.len()), (611, 0));
        let names: Vec<&str> = rows.iter().skip(3).map(|row| row.namespace.as_str()).collect();
        assert!(names.is_sorted(), "in the provider's order");
        assert!(bench.forge.max_in_flight() <= 4);
        let pages = bench.forge.requests_to("/azure-server/tfs/DefaultCollection/_apis/projects");
        assert_eq!(pages.len(), 2);
    }
}

#[tokio::test]
async fn a_chain_gives_every_row_once_in_pages_of_the_asked_size() {
    let bench = Bench::start(AzureConfig { projects: 30, ..AzureConfig::default() }).await;
    let api = bench.services(tokens::GOOD);
    let (all, _) = fan(&api, &list(Walk::Fan, 10)).await.expect("rows");
    for size in [3, 4, 50, 1_000] {
        let pages = chain(&api, &list(Walk::Chain, size)).await;
        let rows: Vec<&Repository> = pages.iter().flat_map(|page| &page.items).collect();
        assert!(pages.iter().all(|page| page.items.len() <= size));
        assert_eq!(
            rows.iter().map(|row| &row.provider_id).collect::<Vec<_>>(),
            all.iter().map(|row| &row.provider_id).collect::<Vec<_>>()
        );
        assert_eq!(pages.iter().flat_map(|page| &page.warnings).count(), 2);
        let full = pages.iter().filter(|page| page.items.len() == size).count();
        assert!(size > 50 || full + 3 >= all.len() / size, "pages are filled across projects");
    }
    let wanted = List { query: "REPO-0007".into(), ..list(Walk::Chain, 2) };
    let found: Vec<_> = chain(&api, &wanted).await.into_iter().flat_map(|page| page.items).collect();
    assert_eq!(found.len(), 3);
}

#[tokio::test]
async fn a_namespace_reads_that_project_alone() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    for walk in [Walk::Fan, Walk::Chain] {
        bench.forge.forget_requests();
        let name = "sg test with many           spaces".to_owned();
        let page = AzureDevOps
            .repositories(&api, &List { namespace: name.clone(), ..list(walk, 50) }, None)
            .await
            .expect("a page");
        assert_eq!(page.items.len(), 4);
        assert!(page.next.is_empty() && page.items.iter().all(|row| row.namespace == name));
        let seen = bench.forge.requests();
        assert_eq!(seen.len(), 1);
        assert!(seen[0].path.contains("sg%20test%20with%20many%20%20%20"), "{}", seen[0].path);
        let nothing = List { namespace: "no such project".into(), ..list(walk, 50) };
        assert_eq!(AzureDevOps.repositories(&api, &nothing, None).await, Ok(Page::last(Vec::new())));
    }
}

#[tokio::test]
async fn a_connection_that_is_limited_to_projects_reads_them_and_names_the_lost_one() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let projects = ["Fabrikam Fiber", "Gone", "fabrikam fiber", "Project 0003"];
    let scope = Scope { projects: projects.map(str::to_owned).to_vec(), ..Scope::default() };
    let limited = List { scope, ..list(Walk::Fan, 3) };
    let (rows, warnings) = fan(&api, &limited).await.expect("rows");
    assert_eq!(rows.len(), 8);
    assert_eq!(warnings.iter().map(|warning| warning.reason).collect::<Vec<_>>(), ["PROJECT_NOT_FOUND"]);
    assert!(bench.forge.requests_to("/azure/contoso/_apis/projects").is_empty());
    let pages = chain(&api, &List { walk: Walk::Chain, ..limited.clone() }).await;
    assert_eq!(ids(pages.iter().flat_map(|page| &page.items)), ids(&rows));
    assert_eq!(pages.iter().flat_map(|page| &page.warnings).count(), 1);
    let outside = List { namespace: "Größe & Проект".into(), ..limited.clone() };
    assert_eq!(fan(&api, &outside).await.expect("rows").0.len(), 0);
    let page =
        AzureDevOps.namespaces(&api, &List { walk: Walk::Chain, ..limited }, None).await.expect("a page");
    let paths: BTreeSet<&str> = page.items.iter().map(|namespace| namespace.full_path.as_str()).collect();
    assert!(paths.contains("Fabrikam Fiber") && paths.contains("Project 0003"), "{paths:?}");
    assert_eq!(page.warnings.len(), 1);
}

#[tokio::test]
async fn a_least_permission_leaves_all_rows_out_and_says_why() {
    let bench = Bench::small().await;
    let wanted = List { min_permission: Permission::Read, ..list(Walk::Fan, 10) };
    let (rows, warnings) = fan(&bench.services(tokens::GOOD), &wanted).await.expect("a page");
    assert!(rows.is_empty());
    assert_eq!(warnings[0].reason, "PERMISSION_UNKNOWN");
    assert!(bench.forge.requests().is_empty());
}

#[tokio::test]
async fn namespaces_are_the_organization_and_its_projects() {
    let bench = Bench::start(AzureConfig { projects: 12, unreadable: false, ..AzureConfig::default() }).await;
    for (api, kind, top) in [
        (bench.services(tokens::GOOD), NamespaceKind::Organization, "contoso"),
        (bench.server(tokens::GOOD), NamespaceKind::Collection, "DefaultCollection"),
    ] {
        let (mut found, mut at, mut pages) = (Vec::new(), None, 0);
        loop {
            let page =
                AzureDevOps.namespaces(&api, &list(Walk::Chain, 5), at.as_ref()).await.expect("a page");
            found.extend(page.items);
            pages += 1;
            at = page.next.into_iter().next();
            if at.is_none() {
                break;
            }
        }
        assert_eq!((found.len(), pages), (13, 3));
        assert_eq!(
            (found[0].kind, found[0].full_path.as_str(), found[0].parent_path.as_str()),
            (kind, top, "")
        );
        assert!(found[1..].iter().all(|n| n.kind == NamespaceKind::Project && n.parent_path == top));
        assert!(
            found[2].web_url.ends_with("/sg%20test%20with%20many%20%20%20%20%20%20%20%20%20%20%20spaces")
        );
    }
}

#[tokio::test]
async fn a_repository_is_found_by_id_full_name_and_clone_url() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let (rows, _) = fan(&api, &list(Walk::Fan, 10)).await.expect("rows");
    for row in &rows {
        let by_id = AzureDevOps.repository(&api, &row.provider_id).await.expect("by id");
        assert_eq!(by_id.full_name, row.full_name);
        for what in [
            Lookup::FullName(row.full_name.clone()),
            Lookup::FullName(row.full_name.to_ascii_uppercase()),
            Lookup::CloneUrl(row.clone_https_url.clone()),
            Lookup::CloneUrl(row.clone_https_url.replacen("://", "://contoso@", 1)),
        ] {
            let found = AzureDevOps.lookup(&api, &what).await.unwrap_or_else(|e| panic!("{what:?}: {e}"));
            assert_eq!(found.provider_id, row.provider_id);
            assert_eq!(found.disabled, row.disabled);
        }
    }
    assert!(rows.iter().any(|row| row.disabled), "a disabled one is among them");
    let old = Lookup::FullName("Fabrikam Fibre (old)/Fabrikam Fiber".into());
    let found = AzureDevOps.lookup(&api, &old).await.expect("under the old name of its project");
    assert_eq!(found.full_name, "Fabrikam Fiber/Fabrikam Fiber");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    for id in ["11111111-1111-1111-1111-111111111111", "42", "", "../../x", "Fabrikam Fiber"] {
        assert_eq!(AzureDevOps.repository(&api, id).await.err(), Some(ProviderError::NotFound), "{id}");
    }
    let (rows, _) = fan(&api, &list(Walk::Fan, 10)).await.expect("rows");
    let elsewhere = rows[0].clone_https_url.replace("/contoso/", "/fabrikam/");
    for what in [
        Lookup::FullName("Fabrikam Fiber/none".into()),
        Lookup::FullName("none/none".into()),
        Lookup::FullName("../Fabrikam Fiber".into()),
        Lookup::FullName("Fabrikam Fiber".into()),
        Lookup::CloneUrl(elsewhere),
        Lookup::CloneUrl("https://dev.azure.com/contoso/Fabrikam%20Fiber/_git/Fabrikam%20Fiber".into()),
        Lookup::CloneUrl("git@github.com:a/b.git".into()),
    ] {
        assert_eq!(AzureDevOps.lookup(&api, &what).await.err(), Some(ProviderError::NotFound), "{what:?}");
    }
    let closed = Lookup::FullName("Restricted/Restricted".into());
    assert_eq!(AzureDevOps.lookup(&api, &closed).await.err(), Some(ProviderError::Forbidden));
}

#[tokio::test]
async fn a_disabled_repository_is_found_although_the_long_list_fails() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let (rows, _) = fan(&api, &list(Walk::Fan, 10)).await.expect("rows");
    let disabled = rows.iter().find(|row| row.disabled).expect("a disabled one");
    bench.forge.fault_on("/azure/contoso/_apis/git/repositories?", Fault::GarbageJson, usize::MAX);
    let found = AzureDevOps.repository(&api, &disabled.provider_id).await.expect("in its project's list");
    assert!(found.disabled);
}

#[tokio::test]
async fn ac_61_paging_that_leads_in_circles_ends_with_an_error() {
    for fault in [Fault::SelfNextLink, Fault::CursorCycle, Fault::SamePageForever] {
        let config = AzureConfig { projects: 1_100, repositories_per_project: 1, ..AzureConfig::default() };
        let bench = Bench::start(config).await;
        bench.forge.fault_on("/azure/contoso/_apis/projects", fault.clone(), usize::MAX);
        let error = fan(&bench.services(tokens::GOOD), &list(Walk::Fan, 10)).await.expect_err("a circle");
        assert!(matches!(error, ProviderError::Failed { .. }), "{fault:?} {error:?}");
    }
}

#[tokio::test]
async fn h27_a_chain_over_a_server_that_ignores_skip_ends_with_an_error() {
    let config = AzureConfig { projects: 40, repositories_per_project: 1, ..AzureConfig::default() };
    for page_size in [1_000, 10] {
        let bench = Bench::start(config.clone()).await;
        bench.forge.fault_on("/azure/contoso/_apis/projects", Fault::SamePageForever, usize::MAX);
        let (api, list) = (bench.services(tokens::GOOD), list(Walk::Chain, page_size));
        let (mut at, mut rows, mut pages) = (None, BTreeSet::new(), 0);
        let error = loop {
            match AzureDevOps.repositories(&api, &list, at.as_ref()).await {
                Ok(page) => {
                    assert!(page.items.iter().all(|row| rows.insert(row.provider_id.clone())), "a row again");
                    at = Some(page.next.first().expect("it never ends").clone());
                }
                Err(error) => break error,
            }
            pages += 1;
            assert!(pages < 10);
        };
        assert!(matches!(error, ProviderError::Failed { .. }), "{error:?}");
        let wanted = List { page_size: 25, ..list };
        let first = AzureDevOps.namespaces(&api, &wanted, None).await.expect("a page");
        let error = AzureDevOps.namespaces(&api, &wanted, first.next.first()).await.expect_err("the same");
        assert!(matches!(error, ProviderError::Failed { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_project_that_is_named_twice_is_listed_once() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let places = AzureDevOps.namespaces(&api, &list(Walk::Chain, 50), None).await.expect("a page").items;
    let id = |name: &str| {
        let place = places.iter().find(|place| place.full_path == name).expect("a project");
        place.provider_id.to_ascii_uppercase()
    };
    for projects in [
        vec!["Project 0003".to_owned(), id("Project 0003")],
        vec![id("Project 0003"), "PROJECT 0003".to_owned()],
        // The former name of a project answers for it, too.
        vec!["Fabrikam Fibre (old)".to_owned(), "Fabrikam Fiber".to_owned()],
        vec![id("Fabrikam Fiber"), "Fabrikam Fiber".to_owned(), "Fabrikam Fibre (old)".to_owned()],
    ] {
        let scope = Scope { projects: projects.clone(), ..Scope::default() };
        let limited = List { scope, ..list(Walk::Fan, 3) };
        let (rows, _) = fan(&api, &limited).await.expect("rows");
        assert_eq!((rows.len(), ids(&rows).len()), (4, 4), "{projects:?}");
        let pages = chain(&api, &List { walk: Walk::Chain, ..limited.clone() }).await;
        let chained: Vec<&Repository> = pages.iter().flat_map(|page| &page.items).collect();
        assert_eq!(chained.len(), 4, "{projects:?}");
        let page = AzureDevOps.namespaces(&api, &limited, None).await.expect("a page");
        assert_eq!(page.items.len(), 2, "the organization and the project: {projects:?}");
    }
}

#[tokio::test]
async fn ids_that_are_no_guids_never_become_a_path() {
    let bench = Bench::small().await;
    let body = r#"{"count":1,"value":[{"id":"../../secret","name":"x"}]}"#;
    let headers =
        [("content-type", "application/json"), ("x-vss-userdata", "473dec3e-03d7-6147-b106-0b0a7f766a92:x")];
    bench.forge.respond_once("GET", "/azure/contoso/_apis/projects", 200, &headers, body);
    let error = fan(&bench.services(tokens::GOOD), &list(Walk::Fan, 10)).await.expect_err("garbled");
    assert!(matches!(error, ProviderError::Failed { .. }));
    assert_eq!(bench.forge.requests().len(), 1);
}

#[tokio::test]
async fn a_disabled_repository_has_no_refs_to_read() {
    let bench = Bench::small().await;
    let api = bench.services(tokens::GOOD);
    let (rows, _) = fan(&api, &list(Walk::Fan, 10)).await.expect("rows");
    let disabled = rows.into_iter().find(|row| row.disabled).expect("a disabled repository");
    let wanted = RefList { kind: RefKind::Branch, query: String::new(), page_size: 5 };
    let outcome = AzureDevOps.refs(&api, &disabled.provider_id, &wanted, None).await;
    assert_eq!(outcome, Err(ProviderError::Forbidden));
}
