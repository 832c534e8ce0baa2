//! Repositories and namespaces as the provider shows them.

use std::collections::BTreeSet;

use gitmoor::proto::v1;
use gitmoor::proto::v1::lookup_repository_request::Selector;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use super::fixture::{Side, all_pages, azure, gitlab, sides, started};
use crate::support::app::{Refused, TestApp, refused};
use crate::support::forge::{AzureConfig, Forge, ForgeConfig, GitlabConfig, gitlab_tokens};

/// What the forge itself answers, over a plain socket: the rows by id and full name.
async fn truth(forge: &Forge, side: &Side) -> BTreeSet<(String, String)> {
    use base64::Engine as _;
    let (path, header) = match side.provider {
        "gitlab" => (
            "/gitlab/api/v4/projects?membership=true&order_by=id&sort=asc&per_page=100",
            format!("private-token: {}", side.good),
        ),
        _ => {
            let basic = base64::engine::general_purpose::STANDARD.encode(format!(":{}", side.good));
            ("/azure/contoso/_apis/git/repositories?api-version=7.1", format!("authorization: Basic {basic}"))
        }
    };
    let mut socket = TcpStream::connect(forge.address()).await.expect("the forge listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: forge\r\nconnection: close\r\n{header}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("read");
    let answer = String::from_utf8(answer).expect("text");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let rows: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let rows = rows.as_array().or_else(|| rows["value"].as_array()).expect("rows").clone();
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    rows.iter()
        .map(|row| match side.provider {
            "gitlab" => (row["id"].to_string(), text(&row["path_with_namespace"])),
            _ => (text(&row["id"]), format!("{}/{}", text(&row["project"]["name"]), text(&row["name"]))),
        })
        .collect()
}

fn everything(parent: &str) -> v1::ListRepositoriesRequest {
    v1::ListRepositoriesRequest { parent: parent.into(), include_archived: true, ..Default::default() }
}

fn ids(rows: &[v1::Repository]) -> Vec<&str> {
    rows.iter().map(|row| row.provider_id.as_str()).collect()
}

#[tokio::test]
async fn ac_60_ac_61_pages_the_stream_and_the_provider_agree() {
    let (forge, app) = started().await;
    for side in [gitlab(&forge), azure(&forge)] {
        let created = app.create(side.connection("x")).await.expect("created");
        let streamed = app.stream(&created.name).await.expect("a stream");
        let found: BTreeSet<_> =
            streamed.iter().map(|row| (row.provider_id.clone(), row.full_name.clone())).collect();
        assert_eq!(found.len(), streamed.len(), "each row once");
        assert_eq!(found, truth(&forge, &side).await, "{}", side.provider);
        for size in [1, 7, 100, 1_000] {
            let request = v1::ListRepositoriesRequest { page_size: size, ..everything(&created.name) };
            let (paged, warnings) = all_pages(&app, request).await;
            assert_eq!(ids(&paged), ids(&streamed), "{} by {size}", side.provider);
            assert_eq!(paged, streamed);
            // Two projects of the forge show their names and not their code.
            let expected: &[&str] = match side.provider {
                "gitlab" => &[],
                _ => &["PROJECT_NOT_READABLE", "PROJECT_NOT_READABLE"],
            };
            let told: Vec<_> = warnings.iter().map(|warning| warning.reason.as_str()).collect();
            assert_eq!(told, expected, "{warnings:?}");
            assert!(warnings.iter().all(|warning| warning.connection == created.name));
        }
        for row in &streamed {
            assert!(row.name.starts_with(&format!("{}/repositories/", created.name)), "{row:?}");
            assert!(row.full_name.starts_with(&format!("{}/", row.namespace)), "{row:?}");
            for url in [&row.clone_https_url, &row.web_url] {
                assert!(url.starts_with(forge.origin()) && !url.contains('@'), "{row:?}");
            }
            assert!(!row.clone_ssh_url.is_empty() && !row.foreign_clone_host, "{row:?}");
            assert_ne!(row.visibility(), v1::repository::Visibility::Unspecified);
            assert_ne!(row.permission(), v1::Permission::Unspecified);
        }
    }
}

#[tokio::test]
async fn ac_60_a_repository_token_lists_that_one_repository() {
    let (forge, app) = started().await;
    let mut project = gitlab(&forge).connection("project");
    project.credential = Some(v1::Credential {
        kind: Some(v1::credential::Kind::ResourceToken(v1::ResourceToken {
            token: gitlab_tokens::PROJECT.into(),
            resource_type: v1::resource_token::ResourceType::Project as i32,
            resource: "acme/website".into(),
        })),
        declared_expire_time: None,
    });
    let created = app.create(project).await.expect("created");
    let info = created.credential_info.clone().expect("info");
    assert!(info.account.expect("an account").bot, "nobody's own");
    let rows = app.stream(&created.name).await.expect("a stream");
    assert_eq!(rows.iter().map(|row| row.full_name.as_str()).collect::<Vec<_>>(), ["acme/website"]);
}

#[tokio::test]
async fn ac_61_many_pages_come_in_order_and_side_by_side() {
    let config = ForgeConfig {
        latency: std::time::Duration::from_millis(20),
        gitlab: GitlabConfig { repositories: 1_234, ..GitlabConfig::default() },
        azure: AzureConfig { projects: 60, repositories_per_project: 9, ..AzureConfig::default() },
        ..ForgeConfig::default()
    };
    let forge = Forge::start(config).await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    for (side, total) in [(gitlab(&forge), 1_234), (azure(&forge), 540)] {
        let created = app.create(side.connection("x")).await.expect("created");
        forge.reset_max_in_flight();
        let rows = app.stream(&created.name).await.expect("a stream");
        assert!(forge.max_in_flight() > 1, "{}", side.provider);
        assert_eq!(rows.len(), total);
        assert_eq!(rows.iter().map(|row| &row.provider_id).collect::<BTreeSet<_>>().len(), total);
        let again = app.stream(&created.name).await.expect("a stream");
        assert_eq!(ids(&again), ids(&rows), "the order is the provider's, not that of arrival");
        let request = v1::ListRepositoriesRequest { page_size: 100, ..everything(&created.name) };
        let (paged, _) = all_pages(&app, request).await;
        assert_eq!(ids(&paged), ids(&rows));
    }
}

#[tokio::test]
async fn a_stream_tells_its_progress_in_every_message() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let request = v1::StreamRepositoriesRequest {
            parent: created.name,
            include_archived: true,
            ..Default::default()
        };
        let stream = app.repositories().stream_repositories(request).await.expect("a stream");
        let (mut stream, mut rows, mut seen) = (stream.into_inner(), 0, 0);
        while let Some(message) = stream.message().await.expect("a message") {
            rows += message.repositories.len();
            let progress = message.progress.expect("progress");
            assert!(progress.seen >= seen);
            seen = progress.seen;
            assert!(progress.total.is_none_or(|total| total >= seen));
        }
        assert_eq!(i64::try_from(rows).expect("rows"), seen);
    }
}

#[tokio::test]
async fn filters_narrow_pages_and_streams_alike() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let all = app.stream(&created.name).await.expect("a stream");
        let namespace = all[all.len() / 2].namespace.clone();
        let base = everything(&created.name);
        let known =
            |row: &v1::Repository| matches!(row.permission(), v1::Permission::Write | v1::Permission::Admin);
        type Keeps<'a> = Box<dyn Fn(&v1::Repository) -> bool + 'a>;
        let mut cases: Vec<(v1::ListRepositoriesRequest, Keeps<'_>)> = vec![
            (
                v1::ListRepositoriesRequest { query: "REPO-0".into(), ..base.clone() },
                Box::new(|row| row.full_name.to_lowercase().contains("repo-0")),
            ),
            (
                v1::ListRepositoriesRequest { query: "o/r".into(), ..base.clone() },
                Box::new(|row| row.full_name.to_lowercase().contains("o/r")),
            ),
            (
                v1::ListRepositoriesRequest { query: "no such thing".into(), ..base.clone() },
                Box::new(|_| false),
            ),
            (
                v1::ListRepositoriesRequest { namespace: namespace.clone(), ..base.clone() },
                Box::new(|row| row.namespace == namespace),
            ),
            (
                v1::ListRepositoriesRequest { namespace: "no/such".into(), ..base.clone() },
                Box::new(|_| false),
            ),
            (
                v1::ListRepositoriesRequest { include_archived: false, ..base.clone() },
                Box::new(|row| row.archived != Some(true)),
            ),
        ];
        // Both Bitbuckets tell the permission of a row only where it is asked for.
        if !side.provider.starts_with("bitbucket") {
            let min_permission = v1::Permission::Write as i32;
            cases.push((v1::ListRepositoriesRequest { min_permission, ..base.clone() }, Box::new(known)));
        }
        for (request, keeps) in cases {
            let expected: Vec<&str> =
                all.iter().filter(|row| keeps(row)).map(|row| row.provider_id.as_str()).collect();
            for size in [3, 100] {
                let paged = v1::ListRepositoriesRequest { page_size: size, ..request.clone() };
                let (rows, warnings) = all_pages(&app, paged).await;
                assert_eq!(ids(&rows), expected, "{request:?}");
                let hidden = request.min_permission != 0
                    && all.iter().any(|row| row.permission() == v1::Permission::Unknown);
                let told = warnings.iter().any(|warning| warning.reason == "PERMISSION_UNKNOWN");
                assert_eq!(told, hidden, "{request:?} {warnings:?}");
                assert!(warnings.iter().all(|w| !w.reason.is_empty() && !w.message.is_empty()));
            }
            let streamed = v1::StreamRepositoriesRequest {
                parent: request.parent.clone(),
                query: request.query.clone(),
                namespace: request.namespace.clone(),
                include_archived: request.include_archived,
                min_permission: request.min_permission,
            };
            let stream = app.repositories().stream_repositories(streamed).await.expect("a stream");
            let (mut stream, mut rows) = (stream.into_inner(), Vec::new());
            while let Some(message) = stream.message().await.expect("a message") {
                rows.extend(message.repositories);
            }
            assert_eq!(ids(&rows), expected, "{request:?}");
        }
    }
}

#[tokio::test]
async fn a_filter_that_makes_no_sense_is_refused() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    let base = everything(&created.name);
    for (request, field) in [
        (v1::ListRepositoriesRequest { min_permission: 77, ..base.clone() }, "min_permission"),
        (v1::ListRepositoriesRequest { page_size: -1, ..base.clone() }, "page_size"),
        (v1::ListRepositoriesRequest { query: "x".repeat(2_049), ..base.clone() }, "query"),
        (v1::ListRepositoriesRequest { namespace: "a\u{0}b".into(), ..base.clone() }, "namespace"),
    ] {
        let refusal = refused(app.repositories_of(request).await);
        assert_eq!(refusal.reason, "INVALID_FIELDS");
        assert_eq!(refusal.violations[0].0, field);
    }
}

#[tokio::test]
async fn a_repository_is_found_by_id_name_and_every_clone_url() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let rows = app.stream(&created.name).await.expect("a stream");
        for row in rows.iter().filter(|row| !row.disabled).take(5) {
            let by_id = app.repository(&row.name).await.expect("by id");
            assert_eq!(
                (&by_id.provider_id, &by_id.full_name, &by_id.clone_https_url),
                (&row.provider_id, &row.full_name, &row.clone_https_url)
            );
            let mut selectors = vec![
                Selector::FullName(row.full_name.clone()),
                Selector::CloneUrl(row.clone_https_url.clone()),
                Selector::CloneUrl(row.clone_https_url.replace("http://", "HTTP://")),
                Selector::CloneUrl(row.clone_https_url.replace("http://", "http://casey@")),
                Selector::CloneUrl(format!("{}/", row.clone_https_url)),
            ];
            // Nothing tells whether Bitbucket Data Center minds the case.
            if side.provider != "bitbucket-data-center" {
                selectors.push(Selector::FullName(row.full_name.to_uppercase()));
            }
            if side.provider == "gitlab" {
                selectors.push(Selector::CloneUrl(row.clone_ssh_url.clone()));
                selectors.push(Selector::CloneUrl(row.clone_https_url.replace(".git", "")));
                selectors.push(Selector::CloneUrl(row.web_url.clone()));
            }
            for (at, selector) in selectors.into_iter().enumerate() {
                let found = app.lookup(&created.name, selector.clone()).await;
                let found = found.unwrap_or_else(|error| {
                    panic!("{} {at} {}: {error:?}", side.provider, row.clone_https_url)
                });
                assert_eq!(found.provider_id, row.provider_id, "{selector:?}");
                assert_eq!(found.name, row.name);
            }
        }
        for selector in [
            Selector::FullName("no/such/thing".into()),
            Selector::FullName("thing".into()),
            Selector::CloneUrl("https://elsewhere.test/acme/website.git".into()),
            Selector::CloneUrl("not a url".into()),
        ] {
            let refusal = refused(app.lookup(&created.name, selector.clone()).await);
            let known = ["REPOSITORY_NOT_FOUND", "INVALID_FIELDS"];
            assert!(known.contains(&refusal.reason.as_str()), "{selector:?}: {refusal:?}");
        }
        let neither = v1::LookupRepositoryRequest { parent: created.name.clone(), selector: None };
        assert_eq!(refused(app.repositories().lookup_repository(neither).await).reason, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn an_unknown_id_is_not_found_and_a_strange_one_never_a_path() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        forge.forget_requests();
        for id in [
            "999999999",
            "00000000-0000-4000-8000-000000000001",
            "..",
            "..%2f..%2fuser",
            "acme%2Fwebsite",
            "1%3Fx=1",
            "%2e%2e",
        ] {
            let refusal = refused(app.repository(&format!("{}/repositories/{id}", created.name)).await);
            assert_eq!(
                (refusal.code, refusal.reason.as_str()),
                (Code::NotFound, "REPOSITORY_NOT_FOUND"),
                "{} {id}",
                side.provider
            );
            assert!(refusal.details.contains(&"ResourceInfo".to_owned()));
        }
        for seen in forge.requests() {
            assert!(!seen.path.contains(".."), "{}", seen.path);
        }
        for wrong in ["", "a/b", "%00", "%ff"] {
            let refusal = refused(app.repository(&format!("{}/repositories/{wrong}", created.name)).await);
            assert_eq!(refusal.reason, "INVALID_FIELDS", "{wrong}");
        }
    }
}

#[tokio::test]
async fn a_renamed_repository_is_found_by_its_old_name() {
    let (forge, app) = started().await;
    for (side, old) in
        [(gitlab(&forge), "acme/old-website"), (azure(&forge), "Fabrikam Fibre (old)/Fabrikam Fiber")]
    {
        let created = app.create(side.connection("x")).await.expect("created");
        let found = app.lookup(&created.name, Selector::FullName(old.into())).await.expect(old);
        assert_ne!(found.full_name, old);
        let by_id = app.repository(&found.name).await.expect("by id");
        assert_eq!(by_id.full_name, found.full_name);
    }
}

#[tokio::test]
async fn a_disabled_azure_repository_is_listed_and_found() {
    let (forge, app) = started().await;
    let created = app.create(azure(&forge).connection("x")).await.expect("created");
    let rows = app.stream(&created.name).await.expect("a stream");
    let disabled: Vec<_> = rows.iter().filter(|row| row.disabled).collect();
    assert!(!disabled.is_empty(), "the forge has some");
    for row in disabled {
        let found = app.repository(&row.name).await.expect("only the project's list has it");
        assert!(found.disabled && found.full_name == row.full_name, "{found:?}");
        let found = app.lookup(&created.name, Selector::FullName(row.full_name.clone())).await;
        assert_eq!(found.expect("by name").provider_id, row.provider_id);
    }
}

#[tokio::test]
async fn namespaces_are_paged_and_searched() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let repositories = app.stream(&created.name).await.expect("a stream");
        let used: BTreeSet<_> = repositories.iter().map(|row| row.namespace.as_str()).collect();
        let mut whole = Vec::new();
        for size in [100, 2] {
            let mut request = v1::ListNamespacesRequest {
                parent: created.name.clone(),
                page_size: size,
                ..Default::default()
            };
            let mut rows = Vec::new();
            loop {
                let page = app.repositories().list_namespaces(request.clone()).await.expect("a page");
                let page = page.into_inner();
                assert!(page.namespaces.len() <= size as usize);
                rows.extend(page.namespaces);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            let paths: BTreeSet<_> = rows.iter().map(|row| row.full_path.as_str()).collect();
            assert_eq!(paths.len(), rows.len(), "each once");
            assert!(used.iter().all(|path| paths.contains(path)), "{used:?} {paths:?}");
            assert!(rows.iter().all(|row| row.kind() != v1::namespace::Kind::Unspecified));
            assert!(rows.iter().all(|row| !row.provider_id.is_empty() && !row.display_name.is_empty()));
            if !whole.is_empty() {
                assert_eq!(rows, whole, "{} by {size}", side.provider);
            }
            whole = rows;
        }
        let part: String = whole[0].full_path.chars().take(5).collect();
        let request = v1::ListNamespacesRequest {
            parent: created.name.clone(),
            query: part.to_uppercase(),
            page_size: 100,
            ..Default::default()
        };
        let found = app.repositories().list_namespaces(request).await.expect("a page").into_inner();
        let expected: Vec<_> = whole
            .iter()
            .filter(|row| row.full_path.to_lowercase().contains(&part.to_lowercase()))
            .cloned()
            .collect();
        assert_eq!(found.namespaces, expected, "{part}");
    }
}

#[tokio::test]
async fn a_token_used_with_another_page_size_neither_repeats_nor_loses_a_row() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        // What a filter leaves out lets a page of the answer end within a page of the provider.
        for query in ["", "e", "a", "o", "1"] {
            let repositories = async |page_size, page_token| {
                let request = v1::ListRepositoriesRequest {
                    parent: created.name.clone(),
                    include_archived: true,
                    query: query.into(),
                    page_size,
                    page_token,
                    ..Default::default()
                };
                let page = app.repositories_of(request).await.expect("a page");
                (page.repositories, page.next_page_token)
            };
            assert_sizes_may_alternate(repositories, &format!("{} {query:?}", side.provider)).await;
            let namespaces = async |page_size, page_token| {
                let request = v1::ListNamespacesRequest {
                    parent: created.name.clone(),
                    query: query.into(),
                    page_size,
                    page_token,
                };
                let page = app.repositories().list_namespaces(request).await.expect("a page").into_inner();
                (page.namespaces, page.next_page_token)
            };
            assert_sizes_may_alternate(namespaces, &format!("{} {query:?}", side.provider)).await;
        }
    }
}

/// Asserts that pages of changing sizes join to the one large page.
async fn assert_sizes_may_alternate<T: PartialEq + std::fmt::Debug>(
    list: impl AsyncFn(i32, String) -> (Vec<T>, String),
    what: &str,
) {
    let (whole, token) = list(100, String::new()).await;
    assert_eq!(token, "", "{what}: a forge this small fits a page");
    for sizes in [[7, 3, 5, 1], [1, 9, 2, 4], [2, 100, 1, 1]] {
        let (mut rows, mut token) = (Vec::new(), String::new());
        for size in sizes.into_iter().cycle().take(1_000) {
            let (page, next) = list(size, token).await;
            assert!(page.len() <= usize::try_from(size).expect("positive"), "{what}");
            rows.extend(page);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(token, "", "{what}: the listing has an end");
        assert_eq!(rows, whole, "{what} by {sizes:?}");
    }
}

#[tokio::test]
async fn a_min_permission_that_nobody_has_is_refused() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        forge.forget_requests();
        for unknown in [v1::Permission::Unknown as i32, 99, -1] {
            let pages = v1::ListRepositoriesRequest {
                parent: created.name.clone(),
                min_permission: unknown,
                ..Default::default()
            };
            let stream = v1::StreamRepositoriesRequest {
                parent: created.name.clone(),
                min_permission: unknown,
                ..Default::default()
            };
            for attempt in [
                app.repositories_of(pages).await.map(drop),
                app.repositories().stream_repositories(stream).await.map(drop),
            ] {
                let refusal = refused(attempt);
                assert_eq!(
                    (refusal.code, refusal.reason.as_str()),
                    (Code::InvalidArgument, "INVALID_FIELDS")
                );
                assert_eq!(refusal.violations, [("min_permission".to_owned(), "UNKNOWN_VALUE".to_owned())]);
            }
        }
        assert!(forge.requests().is_empty(), "told before the provider is asked");
    }
}

#[tokio::test]
async fn a_pasted_url_with_a_password_is_refused_and_not_echoed() {
    const PASSWORD: &str = "hunter2-correct-horse";
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("x")).await.expect("created");
        let row = app.stream(&created.name).await.expect("a stream").remove(0);
        let (scheme, rest) = row.clone_https_url.split_once("://").expect("a URL");
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let pasted = format!("{scheme}://casey:{PASSWORD}@{host}");
        forge.forget_requests();
        for (selector, field, reason) in [
            (Selector::CloneUrl(pasted.clone()), "clone_url", "URL_USERINFO_FORBIDDEN"),
            (Selector::FullName(pasted.clone()), "full_name", "MALFORMED"),
        ] {
            let status = app.lookup(&created.name, selector).await.expect_err("must be refused");
            let refusal = Refused::from(&status);
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
            assert_eq!(refusal.violations, [(field.to_owned(), reason.to_owned())]);
            let told = format!("{status:?} {}", String::from_utf8_lossy(status.details()));
            assert!(!told.contains(PASSWORD), "{told}");
        }
        assert!(forge.requests().is_empty(), "told before the provider is asked");
    }
}
