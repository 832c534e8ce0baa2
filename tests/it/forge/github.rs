//! The fake GitHub against its recordings.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Answer, ask, assert_documented, documented, fixture, keys, tell};
use crate::support::forge::{Forge, ForgeConfig, GithubConfig, github_tokens as known};

async fn github(forge: &Forge, token: &str, path: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("user-agent", "test")];
    ask(forge, "GET", &format!("/github/api/v3/{path}"), &headers).await
}

async fn started(github: GithubConfig) -> Forge {
    Forge::start(ForgeConfig { github, ..ForgeConfig::default() }).await.expect("the forge starts")
}

#[tokio::test]
async fn rows_have_every_recorded_member_and_no_undocumented_one() {
    let forge = Forge::small().await.expect("the forge starts");
    let rows = github(&forge, known::GOOD, "user/repos?per_page=100").await.json();
    let recorded = fixture("github/exchanges/user-repos-page1-200.json");
    let recorded = keys(&recorded["response"]["body"][0]);
    let description = fixture("github/openapi/api.github.com.trimmed.json");
    let described = keys(&description["components"]["schemas"]["repository"]["properties"]);
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 25);
    for row in rows {
        let row = keys(row);
        let missing: Vec<_> = recorded.difference(&row).collect();
        assert!(missing.is_empty(), "missing {missing:?}");
        let foreign: Vec<_> = row.difference(&described).collect();
        assert!(foreign.is_empty(), "undocumented {foreign:?}");
    }
    let text = rows[0].to_string();
    assert!(!text.contains("github.com") && !text.contains("beautifier"), "a recorded place is left: {text}");
    let tags = fixture("github/exchanges/tags-page1-200.json")["response"]["body"][0].clone();
    for (kind, recorded) in [("branches", fixture("github/go-scm/branches.json")[0].clone()), ("tags", tags)]
    {
        let path = format!("repos/acme/website/{kind}?per_page=1");
        let found = github(&forge, known::GOOD, &path).await.json();
        let missing: Vec<_> = keys(&recorded).difference(&keys(&found[0])).cloned().collect();
        assert!(missing.is_empty(), "{kind}: missing {missing:?}");
    }
    let organizations = github(&forge, known::GOOD, "user/orgs").await.json();
    assert!(keys(&fixture("github/go-scm/orgs.json")[0]).is_subset(&keys(&organizations[0])));
}

#[tokio::test]
async fn webhooks_are_made_listed_and_refused_as_recorded() {
    let forge = started(GithubConfig { hooks_per_event: 2, ..GithubConfig::default() }).await;
    let authorization = format!("Bearer {}", known::GOOD);
    let headers = [("authorization", authorization.as_str()), ("user-agent", "test")];
    let hooks = "/github/api/v3/repos/acme/website/hooks";
    let ask_with = async |method: &str, below: &str, body: &Value| {
        tell(&forge, method, &format!("{hooks}{below}"), &headers, body).await
    };
    let exchange = fixture("github/exchanges/hook-create-201.json");
    let made = ask_with("POST", "", &exchange["request"]["body"]).await;
    assert_eq!(made.status, 201);
    for name in ["location", "x-oauth-scopes", "x-accepted-oauth-scopes"] {
        assert!(made.header(name).is_some(), "{name}");
    }
    let (row, recorded) = (made.json(), &exchange["response"]["body"]);
    assert_eq!(keys(&row), keys(recorded));
    for name in ["type", "name", "active", "events", "config", "last_response"] {
        assert_eq!(row[name], recorded[name], "{name}");
    }
    let description = fixture("github/openapi/api.github.com.trimmed.json");
    let described = keys(&description["components"]["schemas"]["hook"]["properties"]);
    assert!(keys(&row).is_subset(&described));

    let twin = ask_with("POST", "", &exchange["request"]["body"]).await;
    assert_eq!(twin.json()["errors"], documented("github", "hook-already-exists")["body"]["errors"]);
    let other = json!({"events": ["push"], "config": {"url": "https://other.example", "secret": "in clear"}});
    let other = ask_with("POST", "", &other).await;
    assert_eq!((other.status, &other.json()["config"]["secret"]), (201, &json!("********")));
    let third = ask_with("POST", "", &json!({"config": {"url": "https://third.example"}})).await;
    let limit = &documented("github", "hook-limit")["body"]["errors"][0]["message"];
    let limit = limit.as_str().expect("a text").replace("20", "2");
    assert_eq!((third.status, &third.json()["errors"][0]["message"]), (422, &json!(limit)));

    // A configuration is replaced as a whole: the secret that is not sent is gone.
    let id = other.json()["id"].to_string();
    let same = ask_with("PATCH", &format!("/{id}"), &json!({"active": false})).await.json();
    assert_eq!((&same["active"], &same["config"]["secret"]), (&json!(false), &json!("********")));
    let config = json!({"config": {"url": "https://other.example"}});
    let bare = ask_with("PATCH", &format!("/{id}"), &config).await.json();
    assert_eq!(
        bare["config"],
        json!({"url": "https://other.example", "content_type": "form", "insecure_ssl": "0"})
    );
    assert_eq!(ask(&forge, "DELETE", &format!("{hooks}/{id}"), &headers).await.status, 204);
    let gone = fixture("github/exchanges/hook-get-404-after-delete.json");
    let again = ask(&forge, "GET", &format!("{hooks}/{id}"), &headers).await;
    assert_eq!((again.status, &again.json()["message"]), (404, &gone["response"]["body"]["message"]));
    let local = ask_with("POST", "", &json!({"config": {"url": "http://localhost:1/x"}})).await;
    assert_eq!(local.status, 422);
}

#[tokio::test]
async fn identity_answers_have_the_recorded_members_and_headers() {
    let forge = Forge::small().await.expect("the forge starts");
    for (token, recorded) in
        [(known::GOOD, "user-200-classic-pat"), (known::FINE, "user-200-fine-grained-pat")]
    {
        let found = github(&forge, token, "user").await;
        let recorded = fixture(&format!("github/exchanges/{recorded}.json"));
        let missing: Vec<_> =
            keys(&recorded["response"]["body"]).difference(&keys(&found.json())).cloned().collect();
        // Members that only the user's own view has, with the scope `user`.
        assert!(
            missing.iter().all(|key| [
                "two_factor_authentication",
                "plan",
                "collaborators",
                "disk_usage",
                "owned_private_repos",
                "total_private_repos",
                "private_gists"
            ]
            .contains(&key.as_str())),
            "{missing:?}"
        );
        for name in keys(&recorded["response"]["headers"]).iter().filter(|name| {
            name.starts_with("x-oauth")
                || name.starts_with("x-accepted")
                || name.starts_with("github-authentication")
        }) {
            assert!(found.header(name).is_some(), "{token}: {name}");
        }
    }
    assert_eq!(github(&forge, known::SCOPELESS, "user").await.header("x-oauth-scopes"), Some(""));
    assert_eq!(github(&forge, known::FINE, "user").await.header("x-oauth-scopes"), None);
    assert_eq!(github(&forge, known::INSTALLATION, "user").await.status, 403);
    assert_eq!(github(&forge, known::FINE, "user/orgs").await.body, b"[]");
    assert_eq!(github(&forge, known::SCOPELESS, "user/orgs").await.status, 403);
}

#[tokio::test]
async fn refuses_in_the_recorded_words() {
    let forge = Forge::small().await.expect("the forge starts");
    for token in [known::UNKNOWN, known::EXPIRED, known::REVOKED] {
        assert_documented("github", "bad-credentials", &github(&forge, token, "user").await);
    }
    assert_documented(
        "github",
        "not-found-hides-forbidden",
        &github(&forge, known::GOOD, "repos/acme/no").await,
    );
    let hidden = github(&forge, known::UNAUTHORIZED_SSO, "repos/platform/Dotted.Name_v2").await;
    let wanted = documented("github", "saml-enforced");
    assert_eq!((hidden.status, &hidden.json()["message"]), (403, &wanted["body"]["message"]));
    assert!(hidden.header("x-github-sso").is_some_and(|value| value.starts_with("required; url=")));
    let partial = github(&forge, known::UNAUTHORIZED_SSO, "user/repos").await;
    assert_eq!(
        (partial.status, partial.header("x-github-sso")),
        (200, Some("partial-results; organizations=21955866"))
    );
    let fine = github(&forge, known::FINE_METADATA, "repos/acme/website/branches").await;
    assert_eq!(
        fine.json()["message"],
        documented("github", "fine-grained-missing-permission")["body"]["message"]
    );
    assert_eq!(fine.header("x-accepted-github-permissions"), Some("contents=read"));
    // Not an administrator, or not the scope: both look like nothing.
    assert_eq!(github(&forge, known::SECOND, "repos/acme/website/hooks").await.status, 404);
    assert_eq!(github(&forge, known::GOOD, "repos/acme/website/hooks").await.body, b"[]");
    let both = github(&forge, known::GOOD, "user/repos?type=all&visibility=public").await;
    assert_eq!(both.status, 422);
    assert_eq!(github(&forge, known::GOOD, "user/repos/").await.status, 404, "a slash at the end");
    assert_eq!(
        github(&forge, known::GOOD, "rate_limit").await.json()["message"],
        "Rate limiting is not enabled."
    );
}

#[tokio::test]
async fn refuses_what_the_real_one_refuses() {
    let forge = Forge::small().await.expect("the forge starts");
    let bearer = format!("Bearer {}", known::GOOD);
    let unnamed = ask(&forge, "GET", "/github/api/v3/user", &[("authorization", &bearer)]).await;
    assert_eq!((unnamed.status, unnamed.header("content-type")), (403, Some("text/html; charset=utf-8")));
    let strange = ask(&forge, "GET", "/github/api/v3/user", &[("user-agent", "test")]).await;
    assert_eq!((strange.status, &strange.json()["message"]), (401, &Value::from("Requires authentication")));
    let token = format!("token {}", known::GOOD);
    let answer =
        ask(&forge, "GET", "/github/api/v3/user", &[("user-agent", "x"), ("authorization", &token)]).await;
    assert_eq!(answer.status, 200);
    for (version, status) in [("2022-11-28", 200), ("2099-01-01", 400)] {
        let headers =
            [("authorization", bearer.as_str()), ("user-agent", "test"), ("x-github-api-version", version)];
        assert_eq!(ask(&forge, "GET", "/github/api/v3/user", &headers).await.status, status, "{version}");
    }
    let web = ask(&forge, "GET", "/github/acme/website", &[("user-agent", "test")]).await;
    assert_eq!(web.status, 404);
    let forge = started(GithubConfig { private_mode: true, ..GithubConfig::default() }).await;
    for path in ["/github/api/v3/meta", "/github/acme"] {
        assert_eq!(ask(&forge, "GET", path, &[("user-agent", "test")]).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn pages_are_cut_at_100_and_linked_as_recorded() {
    let config = ForgeConfig {
        github: GithubConfig { repositories: 250, ..GithubConfig::default() },
        tags: 92,
        ..ForgeConfig::default()
    };
    let forge = Forge::start(config).await.expect("the forge starts");
    let (mut ids, mut sizes) = (BTreeSet::new(), Vec::new());
    let mut target = "user/repos?per_page=1000&sort=created&direction=asc".to_owned();
    loop {
        let answer = github(&forge, known::GOOD, &target).await;
        let rows = answer.json();
        sizes.push(rows.as_array().map_or(0, Vec::len));
        ids.extend(rows.as_array().into_iter().flatten().filter_map(|row| row["id"].as_u64()));
        let link = answer.header("link").expect("links").to_owned();
        let Some(next) = link.split(", ").find_map(|link| link.strip_suffix(">; rel=\"next\"")) else {
            break;
        };
        target = next.split_once("/api/v3/").expect("a path").1.to_owned();
    }
    assert_eq!((ids.len(), sizes), (250, vec![100, 100, 50]));
    let single = github(&forge, known::GOOD, "user/orgs").await;
    assert_eq!(single.header("link"), None, "one page holds all");
    // The links of the recorded pages of tags, in their order.
    let id = ids.first().expect("an id");
    for page in 1..=3 {
        let recorded = fixture(&format!("github/exchanges/tags-page{page}-200.json"));
        let recorded = recorded["response"]["headers"]["link"].as_str().expect("links").to_owned();
        let found =
            github(&forge, known::GOOD, &format!("repos/acme/website/tags?per_page=33&page={page}")).await;
        let found = found.header("link").expect("links").to_owned();
        let relations = |links: &str| -> Vec<(String, Option<String>)> {
            let links = links.split(", ").map(|link| link.split_once(">; ").expect("a link"));
            let page =
                |link: &str| link.split(['?', '&']).find(|part| part.starts_with("page=")).map(str::to_owned);
            links.map(|(link, relation)| (relation.to_owned(), page(link))).collect()
        };
        assert_eq!(relations(&found), relations(&recorded));
        assert!(found.contains(&format!("/repositories/{id}/tags?")), "{found}");
    }
}

#[tokio::test]
async fn a_moved_repository_redirects_to_its_number() {
    let forge = Forge::small().await.expect("the forge starts");
    let moved = github(&forge, known::GOOD, "repos/acme/old-website").await;
    let recorded = fixture("github/exchanges/repo-301-renamed.json");
    assert_eq!(recorded["response"]["status"], moved.status);
    assert_eq!(keys(&recorded["response"]["body"]), keys(&moved.json()));
    let location = moved.header("location").expect("a location").to_owned();
    let path = location.split_once("/api/v3/").expect("a path").1;
    assert_eq!(github(&forge, known::GOOD, path).await.json()["full_name"], "acme/website");
    let headers = [("user-agent", "test"), ("authorization", &format!("Bearer {}", known::GOOD))];
    let write = ask(&forge, "DELETE", "/github/api/v3/repos/acme/old-website/hooks/1", &headers).await;
    assert_eq!((write.status, &write.json()["message"]), (307, &Value::from("Moved Permanently")));
}

#[tokio::test]
async fn an_apps_listing_comes_in_an_envelope() {
    let forge = Forge::small().await.expect("the forge starts");
    let own = github(&forge, known::INSTALLATION, "user/repos").await;
    assert_eq!(own.json()["message"], "Resource not accessible by integration");
    let listed = github(&forge, known::INSTALLATION, "installation/repositories?per_page=2").await.json();
    let recorded = fixture("github/go-scm/github_app_repos.json");
    assert!(keys(&listed).is_subset(&keys(&recorded)) && listed["total_count"].as_u64() > Some(2));
    assert_eq!(listed["repositories"].as_array().map(Vec::len), Some(2));
    assert_eq!(github(&forge, known::GOOD, "installation/repositories").await.status, 403);
    let rows = github(&forge, known::PUBLIC, "user/repos?per_page=100").await.json();
    assert!(rows.as_array().is_some_and(|rows| rows.iter().all(|row| row["private"] == false)));
}
