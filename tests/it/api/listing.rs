//! ListConnections: pages, tokens, filters, order. And what the providers are told to be.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gitmoor::proto::v1;
use tonic::{Code, Status};

use super::fixture::{azure, gitlab, started};
use crate::support::app::{Running, refused};
use crate::support::forge::Forge;

fn all() -> v1::ListConnectionsRequest {
    v1::ListConnectionsRequest { parent: "tenants/default".into(), ..Default::default() }
}

async fn list(
    app: &Running,
    request: v1::ListConnectionsRequest,
) -> Result<v1::ListConnectionsResponse, Status> {
    app.connections().list_connections(request).await.map(tonic::Response::into_inner)
}

async fn names(app: &Running, filter: &str, order_by: &str) -> Vec<String> {
    let request = v1::ListConnectionsRequest { filter: filter.into(), order_by: order_by.into(), ..all() };
    let page = list(app, request).await.expect(filter);
    page.connections.into_iter().map(|connection| connection.display_name).collect()
}

/// Seven connections, made without asking anybody.
async fn seven(app: &Running, forge: &Forge) {
    for (index, name) in ["g", "c", "f", "a", "e", "b", "d"].into_iter().enumerate() {
        app.clock.advance(Duration::from_secs(1));
        let side = if index % 2 == 0 { gitlab(forge) } else { azure(forge) };
        let mut connection = side.asleep(name);
        connection.labels = [("parity".to_owned(), (index % 2).to_string())].into();
        app.create(connection).await.expect("created");
    }
}

#[tokio::test]
async fn pages_join_to_the_whole_in_every_order() {
    let (forge, app) = started().await;
    seven(&app, &forge).await;
    for (order, expected) in [
        ("", "gcfaebd"),
        ("create_time", "gcfaebd"),
        ("create_time desc", "dbeafcg"),
        ("update_time", "gcfaebd"),
        ("display_name", "abcdefg"),
        ("display_name desc", "gfedcba"),
    ] {
        for size in [1, 3, 7] {
            let mut request = v1::ListConnectionsRequest { page_size: size, order_by: order.into(), ..all() };
            let mut found = String::new();
            loop {
                let page = list(&app, request.clone()).await.expect("a page");
                assert!(page.connections.len() <= size as usize);
                found.extend(page.connections.iter().map(|c| c.display_name.as_str()));
                if page.next_page_token.is_empty() {
                    break;
                }
                assert_eq!(page.connections.len(), size as usize, "only the last page is short");
                request.page_token = page.next_page_token;
            }
            assert_eq!(found, expected, "{order} by {size}");
        }
    }
    for order in ["name", "display_name asc", "display_name, create_time", "desc"] {
        let refusal =
            refused(list(&app, v1::ListConnectionsRequest { order_by: order.into(), ..all() }).await);
        assert_eq!(refusal.violations, [("order_by".to_owned(), "MALFORMED".to_owned())], "{order}");
    }
}

#[tokio::test]
async fn page_sizes_are_coerced_and_negative_ones_refused() {
    let (forge, app) = started().await;
    seven(&app, &forge).await;
    for size in [0, 500, 501, i32::MAX] {
        let page = list(&app, v1::ListConnectionsRequest { page_size: size, ..all() }).await.expect("a page");
        assert_eq!((page.connections.len(), page.next_page_token.as_str()), (7, ""));
    }
    for size in [-1, i32::MIN] {
        let refusal = refused(list(&app, v1::ListConnectionsRequest { page_size: size, ..all() }).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
        assert_eq!(refusal.violations, [("page_size".to_owned(), "OUT_OF_RANGE".to_owned())]);
    }
    let unknown = v1::ListConnectionsRequest { parent: "tenants/nobody".into(), ..Default::default() };
    assert!(list(&app, unknown).await.expect("an unknown tenant has nothing").connections.is_empty());
}

#[tokio::test]
async fn t03_t04_a_page_token_serves_the_request_that_it_was_issued_for() {
    let (forge, app) = started().await;
    seven(&app, &forge).await;
    let first = v1::ListConnectionsRequest { page_size: 2, ..all() };
    let token = list(&app, first.clone()).await.expect("a page").next_page_token;
    let with = |token: &str| v1::ListConnectionsRequest { page_token: token.into(), ..first.clone() };
    let second = list(&app, with(&token)).await.expect("the next page");
    let wider = v1::ListConnectionsRequest { page_size: 500, ..with(&token) };
    let rest = list(&app, wider).await.expect("another size is the same request");
    assert_eq!(rest.connections[..2], second.connections[..]);
    assert_eq!(rest.connections.len(), 5);

    let mut wrong = Vec::new();
    let bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64url without padding");
    for place in 0..bytes.len() {
        let mut edited = bytes.clone();
        edited[place] ^= 1 << (place % 8);
        wrong.push(with(&URL_SAFE_NO_PAD.encode(edited)));
    }
    wrong.push(with(&format!("{token}=")));
    wrong.push(with(&token[..token.len() - 1]));
    wrong.push(with("x"));
    wrong.push(with(&"A".repeat(100_000)));
    wrong.push(v1::ListConnectionsRequest { filter: "provider = \"gitlab\"".into(), ..with(&token) });
    wrong.push(v1::ListConnectionsRequest { order_by: "display_name".into(), ..with(&token) });
    wrong.push(v1::ListConnectionsRequest { parent: "tenants/other".into(), ..with(&token) });
    for request in wrong {
        let refusal = refused(list(&app, request).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "PAGE_TOKEN_INVALID"));
    }
    app.clock.advance(Duration::from_secs(3_599));
    list(&app, with(&token)).await.expect("within the hour");
    app.clock.advance(Duration::from_secs(2));
    assert_eq!(refused(list(&app, with(&token)).await).reason, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn t04_a_token_of_another_method_is_refused() {
    let (forge, app) = started().await;
    let created = app.create(gitlab(&forge).connection("x")).await.expect("created");
    let repositories =
        v1::ListRepositoriesRequest { parent: created.name.clone(), page_size: 2, ..Default::default() };
    let token = app.repositories_of(repositories.clone()).await.expect("a page").next_page_token;
    assert!(!token.is_empty());
    let namespaces = v1::ListNamespacesRequest {
        parent: created.name.clone(),
        page_size: 2,
        page_token: token.clone(),
        ..Default::default()
    };
    let mut service = app.repositories();
    let others = [
        service.list_namespaces(namespaces).await.map(drop),
        list(&app, v1::ListConnectionsRequest { page_token: token.clone(), ..all() }).await.map(drop),
        app.repositories_of(v1::ListRepositoriesRequest {
            page_token: token.clone(),
            query: "repo".into(),
            ..repositories.clone()
        })
        .await
        .map(drop),
        app.repositories_of(v1::ListRepositoriesRequest {
            page_token: token.clone(),
            include_archived: true,
            ..repositories.clone()
        })
        .await
        .map(drop),
    ];
    for other in others {
        assert_eq!(refused(other).reason, "PAGE_TOKEN_INVALID");
    }
    let next = v1::ListRepositoriesRequest { page_token: token, ..repositories };
    assert_eq!(app.repositories_of(next).await.expect("its own request").repositories.len(), 2);
}

#[tokio::test]
async fn a_filter_narrows_by_every_documented_field() {
    let (forge, app) = started().await;
    seven(&app, &forge).await;
    app.create(gitlab(&forge).connection("awake")).await.expect("created");
    for (filter, expected) in [
        ("provider = \"gitlab\"", "awake d e f g"),
        ("provider != \"gitlab\"", "a b c"),
        ("provider = \"gitlab\" AND disabled = true", "d e f g"),
        ("disabled = false", "awake"),
        ("state = \"PENDING\"", "a b c d e f g"),
        ("state != \"PENDING\"", "awake"),
        ("state = \"ACTIVE\" AND hosting = \"SELF_HOSTED\"", "awake"),
        ("hosting = \"CLOUD\"", ""),
        ("display_name = \"d\"", "d"),
        ("labels.parity = \"1\"", "a b c"),
        ("labels.parity != \"1\"", "awake d e f g"),
        ("labels.none = \"\"", ""),
    ] {
        assert_eq!(names(&app, filter, "display_name").await.join(" "), expected, "{filter}");
    }
    let twenty = ["provider = \"gitlab\""; 20].join(" AND ");
    assert_eq!(names(&app, &twenty, "").await.len(), 5);
    for (wrong, reason) in [
        ("nonsense = \"x\"".to_owned(), "MALFORMED"),
        ("provider".to_owned(), "MALFORMED"),
        ("provider = \"gitlab".to_owned(), "MALFORMED"),
        ("provider = \"gitlab\" OR state = \"ACTIVE\"".to_owned(), "MALFORMED"),
        ("provider : \"gitlab\"".to_owned(), "MALFORMED"),
        (format!("{twenty} AND provider = \"gitlab\""), "TOO_MANY"),
        (format!("display_name = \"{}\"", "x".repeat(2_048)), "TOO_LONG"),
    ] {
        let refusal =
            refused(list(&app, v1::ListConnectionsRequest { filter: wrong.clone(), ..all() }).await);
        assert_eq!(refusal.violations, [("filter".to_owned(), reason.to_owned())], "{wrong}");
    }
}

#[tokio::test]
async fn providers_tell_what_a_form_is_built_from() {
    let (_forge, app) = started().await;
    let mut service = app.connections();
    let listed = service.list_providers(v1::ListProvidersRequest {}).await.expect("a list").into_inner();
    let ids: Vec<_> = listed.providers.iter().map(|provider| provider.name.as_str()).collect();
    assert_eq!(
        ids,
        ["azure-devops", "bitbucket-cloud", "bitbucket-data-center", "gitea", "github", "gitlab"]
            .map(|id| format!("providers/{id}"))
    );
    for provider in &listed.providers {
        let name = provider.name.clone();
        let one = service.get_provider(v1::GetProviderRequest { name }).await.expect("it").into_inner();
        assert_eq!(&one, provider);
        // Not every provider has a cloud of its own.
        assert!(provider.cloud_base_url.is_empty() || provider.cloud_base_url.starts_with("https://"));
        assert!(!provider.title.is_empty());
        // A cloud alone has no version.
        let is_cloud_alone = provider.name == "providers/bitbucket-cloud";
        assert_eq!(provider.minimum_server_version.is_empty(), is_cloud_alone);
        assert!(provider.max_page_size > 0);
        assert!(provider.documentation_urls.iter().all(|url| url.starts_with("https://")));
        assert!(!provider.documentation_urls.is_empty());
        let telling = ["providers/github", "providers/gitlab"];
        assert_eq!(provider.tells_expiry, telling.contains(&provider.name.as_str()));
        let telling =
            ["providers/bitbucket-cloud", "providers/gitea", "providers/github", "providers/gitlab"];
        let tells_scopes = telling.contains(&provider.name.as_str());
        assert_eq!(provider.tells_scopes, tells_scopes);
        let capabilities: Vec<_> = provider.capability_scopes.iter().map(|c| c.capability()).collect();
        for capability in [
            v1::CapabilityType::ListRepositories,
            v1::CapabilityType::ReadCode,
            v1::CapabilityType::ManageWebhooks,
        ] {
            assert!(capabilities.contains(&capability), "{provider:?}");
        }
        assert!(provider.capability_scopes.iter().all(|c| !c.scopes.is_empty()));
        for event in
            [v1::WebhookEventType::Push, v1::WebhookEventType::Tag, v1::WebhookEventType::PullRequest]
        {
            assert!(provider.webhook_events.contains(&(event as i32)), "{provider:?}");
        }
        let kinds: Vec<_> = provider.credential_kinds.iter().map(|kind| kind.kind()).collect();
        // There the token of a person goes with an address.
        let personal = match is_cloud_alone {
            true => v1::CredentialKind::EmailApiToken,
            false => v1::CredentialKind::PersonalAccessToken,
        };
        assert!(kinds.contains(&personal));
        for kind in &provider.credential_kinds {
            assert!(!kind.title.is_empty());
            let token = kind.fields.iter().find(|field| field.name == "token").expect("a token field");
            assert!(token.required && token.secret && !token.description.is_empty());
            assert!(kind.fields.iter().filter(|field| field.name != "token").all(|field| !field.secret));
        }
    }
    let refusal =
        refused(service.get_provider(v1::GetProviderRequest { name: "providers/cvs".into() }).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::NotFound, "PROVIDER_NOT_FOUND"));
    assert!(refusal.details.contains(&"ResourceInfo".to_owned()));
    for wrong in ["gitlab", "providers/", "", "providers/gitlab/x"] {
        let refusal = refused(service.get_provider(v1::GetProviderRequest { name: wrong.into() }).await);
        assert_eq!(refusal.reason, "INVALID_FIELDS", "{wrong}");
    }
}

#[tokio::test]
async fn a_page_ends_before_its_message_grows_too_large_for_a_client() {
    let (forge, app) = started().await;
    let note = "n".repeat(4_096);
    let mut expected = Vec::new();
    for index in 0..24 {
        let mut connection = gitlab(&forge).asleep(&format!("x-{index}"));
        connection.annotations = (0..60).map(|key| (format!("key-{key}"), note.clone())).collect();
        expected.push(app.create(connection).await.expect("created").name);
    }
    let mut request = v1::ListConnectionsRequest { page_size: 500, ..all() };
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = list(&app, request.clone()).await.expect("a page that a client takes");
        assert!(!page.connections.is_empty(), "each page leads on");
        found.extend(page.connections.into_iter().map(|connection| connection.name));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(found, expected, "nothing twice, nothing lost");
    assert!(pages > 1, "more than 5 MB is no one message");
}
