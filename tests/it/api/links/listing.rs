//! Links are listed.

use gitmoor::proto::v1;

use crate::api::fixture::{link, sides, started};
use crate::support::app::refused;

fn page(filter: &str, order_by: &str) -> v1::ListRepositoryLinksRequest {
    v1::ListRepositoryLinksRequest {
        parent: "tenants/default".into(),
        filter: filter.into(),
        order_by: order_by.into(),
        ..Default::default()
    }
}

fn names(links: &[v1::RepositoryLink]) -> Vec<&str> {
    links.iter().map(|link| link.name.as_str()).collect()
}

/// Whether a link belongs to a listing.
type Check<'a> = &'a dyn Fn(&v1::RepositoryLink) -> bool;
/// What a listing is ordered by.
type Key<'a> = &'a dyn Fn(&v1::RepositoryLink) -> String;

#[tokio::test]
async fn links_are_filtered_ordered_and_paged() {
    let (forge, app) = started().await;
    let mut all = Vec::new();
    for side in sides(&forge) {
        let (_, rows) = app.with_repositories(&side, "x", 3).await;
        for (at, row) in rows.iter().enumerate() {
            let mut request = link(row);
            let wire = request.repository_link.as_mut().expect("a link");
            wire.labels = [("at".to_owned(), at.to_string())].into();
            all.push(app.link_with(request).await.expect("linked"));
            app.clock.advance(std::time::Duration::from_secs(1));
        }
    }
    assert_eq!(app.links("default", "").await, all, "in the order of their making");
    let id = |link: &v1::RepositoryLink| link.repository.clone().expect("seen").provider_id;
    let full_name = |link: &v1::RepositoryLink| link.repository.clone().expect("seen").full_name;
    for one in &all {
        let of_connection = format!("connection = \"{}\"", one.connection);
        let elsewhere = format!("provider != \"{}\"", one.provider);
        let by_id = format!("repository.provider_id = \"{}\"", id(one));
        let by_name = format!("repository.full_name = \"{}\" AND state = LINKED", full_name(one));
        let checks: [(&str, Check<'_>); 7] = [
            (&of_connection, &|link| link.connection == one.connection),
            (&elsewhere, &|link| link.provider != one.provider),
            (&by_id, &|link| id(link) == id(one)),
            (&by_name, &|link| full_name(link) == full_name(one)),
            ("labels.at = \"1\"", &|link| link.labels["at"] == "1"),
            ("labels.none = \"1\"", &|_| false),
            ("labels.none != \"1\" AND state != \"NOT_FOUND\"", &|_| true),
        ];
        for (filter, matches) in checks {
            let wanted: Vec<_> = all.iter().filter(|link| matches(link)).cloned().collect();
            assert_eq!(names(&app.links("default", filter).await), names(&wanted), "{filter}");
        }
    }
    let by_full_name = |link: &v1::RepositoryLink| full_name(link).to_lowercase();
    let by_time = |link: &v1::RepositoryLink| format!("{:?}", link.create_time);
    let orders: [(&str, Key<'_>); 2] = [("full_name", &by_full_name), ("create_time", &by_time)];
    for (order, key) in orders {
        for (order, turned) in [(order.to_owned(), false), (format!("{order} desc"), true)] {
            let mut request = v1::ListRepositoryLinksRequest { page_size: 4, ..page("", &order) };
            let mut found = Vec::new();
            loop {
                let answer = app.repositories().list_repository_links(request.clone()).await.expect("a page");
                let answer = answer.into_inner();
                found.extend(answer.repository_links);
                if answer.next_page_token.is_empty() {
                    break;
                }
                request.page_token = answer.next_page_token;
            }
            let keys: Vec<_> = found.iter().map(key).collect();
            let mut sorted = keys.clone();
            sorted.sort();
            if turned {
                sorted.reverse();
            }
            assert_eq!((found.len(), keys), (all.len(), sorted), "{order}");
        }
    }
}

#[tokio::test]
async fn a_page_of_links_belongs_to_its_request() {
    let (forge, app) = started().await;
    let side = sides(&forge).remove(0);
    let (_, rows) = app.with_repositories(&side, "x", 2).await;
    for row in &rows {
        app.link(row).await.expect("linked");
    }
    let first = v1::ListRepositoryLinksRequest { page_size: 1, ..page("", "") };
    let token = app.repositories().list_repository_links(first.clone()).await.expect("a page");
    let token = token.into_inner().next_page_token;
    assert!(!token.is_empty());
    for other in [
        v1::ListRepositoryLinksRequest { parent: "tenants/other".into(), ..first.clone() },
        v1::ListRepositoryLinksRequest { filter: "state = LINKED".into(), ..first.clone() },
        v1::ListRepositoryLinksRequest { order_by: "full_name".into(), ..first.clone() },
    ] {
        let request = v1::ListRepositoryLinksRequest { page_token: token.clone(), ..other };
        let outcome = app.repositories().list_repository_links(request).await;
        assert_eq!(refused(outcome).reason, "PAGE_TOKEN_INVALID");
    }
    for (bad, field) in [
        (page("name = \"x\"", ""), "filter"),
        (page("", "display_name"), "order_by"),
        (v1::ListRepositoryLinksRequest { page_size: -1, ..page("", "") }, "page_size"),
    ] {
        let refusal = refused(app.repositories().list_repository_links(bad).await);
        assert_eq!(refusal.violations[0].0, field);
    }
}
