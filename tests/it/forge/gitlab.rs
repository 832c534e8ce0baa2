//! The fake GitLab against its recordings.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ask, assert_documented, documented, fixture, gitlab, keys};
use crate::support::forge::{Forge, ForgeConfig, GitlabConfig, Hook, gitlab_tokens};

#[tokio::test]
async fn rows_have_every_recorded_member_and_no_undocumented_one() {
    let forge = Forge::small().await.expect("the forge starts");
    let rows = gitlab(&forge, gitlab_tokens::GOOD, "projects?membership=true&statistics=true&per_page=100")
        .await
        .json();
    let recorded = keys(&fixture("gitlab/go-scm/repo.json"));
    let described = fixture("gitlab/openapi/gitlab.trimmed.json");
    let described = keys(&described["components"]["schemas"]["APIEntitiesProjectWithAccess"]["properties"]);
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 25);
    for row in rows {
        let row = keys(row);
        let missing: Vec<_> = recorded.difference(&row).filter(|key| *key != "default_branch").collect();
        assert!(missing.is_empty(), "missing {missing:?}");
        let foreign: Vec<_> =
            row.iter().filter(|key| !recorded.contains(*key) && !described.contains(*key)).collect();
        assert!(foreign.is_empty(), "undocumented {foreign:?}");
    }

    let stranger = ask(&forge, "GET", "/gitlab/api/v4/projects?per_page=1", &[]).await.json();
    let recorded = fixture("gitlab/exchanges/project-200-unauthenticated.json");
    let missing: Vec<_> =
        keys(&recorded["response"]["body"]).difference(&keys(&stranger[0])).cloned().collect();
    assert!(missing.is_empty(), "missing {missing:?}");
    assert!(stranger[0].get("visibility").is_none(), "strangers are told no visibility");
}

#[tokio::test]
async fn webhooks_have_every_recorded_member_no_undocumented_one_and_no_secret() {
    let described = fixture("gitlab/openapi/gitlab.trimmed.json");
    let described = keys(&described["components"]["schemas"]["APIEntitiesProjectHook"]["properties"]);
    let recorded = fixture("gitlab/go-scm/hooks.json");
    for (version, tells_secrets) in [("18.1.0-ee", false), ("19.0.0-ee", true)] {
        let gitlab_config = GitlabConfig { version: version.to_owned(), ..GitlabConfig::default() };
        let config = ForgeConfig { gitlab: gitlab_config, ..ForgeConfig::default() };
        let forge = Forge::start(config).await.expect("the forge starts");
        let project = gitlab(&forge, gitlab_tokens::GOOD, "projects/acme%2Fwebsite").await.json();
        let secret = "a-secret-nobody-is-told";
        let hook = Hook::new("http://example.com/hook", &["push_events"], Some(secret));
        forge.hooks("gitlab").add(&project["id"].to_string(), hook);
        let answer = gitlab(&forge, gitlab_tokens::GOOD, "projects/acme%2Fwebsite/hooks").await;
        assert!(!String::from_utf8_lossy(&answer.body).contains(secret));
        let row = keys(&answer.json()[0]);
        let missing: Vec<_> = keys(&recorded[0]).difference(&row).cloned().collect();
        assert!(missing.is_empty(), "missing {missing:?}");
        let foreign: Vec<_> = row.difference(&described).collect();
        assert!(foreign.is_empty(), "undocumented {foreign:?}");
        assert_eq!(row.contains("signing_token_present"), tells_secrets, "{version}");
    }
}

#[tokio::test]
async fn identity_answers_have_the_recorded_members() {
    let forge = Forge::small().await.expect("the forge starts");
    let user = gitlab(&forge, gitlab_tokens::GOOD, "user").await.json();
    let own = gitlab(&forge, gitlab_tokens::GOOD, "personal_access_tokens/self").await.json();
    let metadata = gitlab(&forge, gitlab_tokens::GOOD, "metadata").await.json();
    for (answer, recorded) in [
        (&user, "gitlab/go-scm/user.json"),
        (&own, "gitlab/gitlab4j/personal-access-token.json"),
        (&metadata, "gitlab/gitlab4j/metadata.json"),
    ] {
        let mut recorded = keys(&fixture(recorded));
        // Told only when a token is made.
        recorded.remove("token");
        let missing: Vec<_> = recorded.difference(&keys(answer)).cloned().collect();
        assert!(missing.is_empty(), "missing {missing:?}");
    }
    let info = ask(
        &forge,
        "GET",
        "/gitlab/oauth/token/info",
        &[("authorization", &format!("Bearer {}", gitlab_tokens::OAUTH))],
    )
    .await;
    let recorded = fixture("gitlab/exchanges/oauth-token-info-200.json");
    assert_eq!(keys(&info.json()), keys(&recorded["response"]["body"]));
}

#[tokio::test]
async fn refuses_in_the_recorded_words() {
    let forge = Forge::small().await.expect("the forge starts");
    let unknown = gitlab(&forge, gitlab_tokens::UNKNOWN, "user").await;
    assert_documented("gitlab", "unauthorized", &unknown);
    let expired = gitlab(&forge, gitlab_tokens::EXPIRED, "personal_access_tokens/self").await;
    assert_documented("gitlab", "token-expired", &expired);
    assert!(expired.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer realm=")));
    let revoked = gitlab(&forge, gitlab_tokens::REVOKED, "user").await;
    assert_documented("gitlab", "token-revoked", &revoked);
    let missing = gitlab(&forge, gitlab_tokens::GOOD, "projects/acme%2Fnothing").await;
    assert_documented("gitlab", "project-not-found", &missing);
    let weak = gitlab(&forge, gitlab_tokens::GOOD, "projects/acme%2Fwebsite/hooks?per_page=1").await;
    assert_eq!(weak.status, 200);
    let narrow = gitlab(&forge, gitlab_tokens::NARROW, "projects").await;
    assert_eq!((narrow.status, &narrow.json()["scope"]), (403, &Value::from("api read_api")));
    let own = gitlab(&forge, gitlab_tokens::NARROW, "personal_access_tokens/self").await;
    assert_eq!(own.status, 200, "any scope reads its own token");
    let granular = gitlab(&forge, gitlab_tokens::GRANULAR, "personal_access_tokens/self").await;
    assert_eq!(granular.json()["error"], "insufficient_granular_scope");
    let oauth = gitlab(&forge, gitlab_tokens::OAUTH, "user").await;
    assert_eq!(oauth.status, 401, "an OAuth token is no private token");
    let bearer = format!("Bearer {}", gitlab_tokens::OAUTH);
    let own =
        ask(&forge, "GET", "/gitlab/api/v4/personal_access_tokens/self", &[("authorization", &bearer)]).await;
    assert_eq!(own.status, 400);
}

#[tokio::test]
async fn runs_a_call_without_a_token_anonymously() {
    let forge = Forge::small().await.expect("the forge starts");
    for headers in [&[][..], &[("private-token", "")], &[("authorization", "Basic eDp5")]] {
        let answer = ask(&forge, "GET", "/gitlab/api/v4/projects?membership=true", headers).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"[]"[..]));
        let public = ask(&forge, "GET", "/gitlab/api/v4/projects", headers).await;
        assert!(public.json().as_array().is_some_and(|rows| !rows.is_empty()));
        let user = ask(&forge, "GET", "/gitlab/api/v4/user", headers).await;
        assert_eq!(user.status, 401);
    }
}

#[tokio::test]
async fn keyset_pages_lead_to_an_empty_page_without_a_link() {
    let config = ForgeConfig {
        gitlab: GitlabConfig {
            repositories: 250,
            external_url: Some("https://configured.example/elsewhere".into()),
            ..GitlabConfig::default()
        },
        ..ForgeConfig::default()
    };
    let forge = Forge::start(config).await.expect("the forge starts");
    for (sort, cursor) in [("asc", "id_after"), ("desc", "id_before")] {
        let mut query = format!("membership=true&pagination=keyset&order_by=id&sort={sort}&per_page=1000");
        let (mut ids, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let answer = gitlab(&forge, gitlab_tokens::GOOD, &format!("projects?{query}")).await;
            let page = answer.json();
            let page = page.as_array().expect("a list");
            sizes.push(page.len());
            ids.extend(page.iter().filter_map(|row| row["id"].as_u64()));
            let Some(link) = answer.header("link") else {
                break;
            };
            let next = link.strip_prefix("<https://configured.example/elsewhere/api/v4/projects?");
            let (next, _) =
                next.and_then(|next| next.split_once(">; rel=\"next\"")).expect("only a next link");
            assert!(next.contains(cursor), "{next}");
            query = next.to_owned();
        }
        assert_eq!(sizes, [100, 100, 50, 0], "cut at 100; the last page with a row has a link");
        let distinct: BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), 250);
        assert_eq!(ids.is_sorted(), sort == "asc");
    }
    let other = gitlab(&forge, gitlab_tokens::GOOD, "projects?pagination=keyset&order_by=name").await;
    assert_eq!(other.status, 405);
}

#[tokio::test]
async fn offset_pages_bear_the_documented_headers_and_lose_the_totals_above_the_limit() {
    let config = |total_limit, offset_limit| ForgeConfig {
        gitlab: GitlabConfig { repositories: 8, total_limit, offset_limit, ..GitlabConfig::default() },
        ..ForgeConfig::default()
    };
    let names = ["x-next-page", "x-page", "x-per-page", "x-prev-page", "x-total", "x-total-pages"];
    let recorded = fixture("gitlab/documented/offset-pagination-headers.json");
    let forge = Forge::start(config(8, None)).await.expect("the forge starts");
    let page = gitlab(&forge, gitlab_tokens::GOOD, "projects?membership=true&per_page=3&page=2").await;
    for name in names {
        assert_eq!(page.header(name), recorded["response"]["headers"][name].as_str(), "{name}");
    }
    let last = gitlab(&forge, gitlab_tokens::GOOD, "projects?membership=true&per_page=3&page=9").await;
    assert_eq!((last.header("x-next-page"), last.body.as_slice()), (Some(""), &b"[]"[..]));

    let forge = Forge::start(config(7, Some(6))).await.expect("the forge starts");
    let page = gitlab(&forge, gitlab_tokens::GOOD, "projects?membership=true&per_page=3&page=2").await;
    assert_eq!((page.header("x-total"), page.header("x-next-page")), (None, Some("3")));
    assert!(page.header("link").is_some_and(|link| !link.contains("rel=\"last\"")));
    let deep = gitlab(&forge, gitlab_tokens::GOOD, "projects?membership=true&per_page=3&page=3").await;
    let wanted = documented("gitlab", "offset-too-deep");
    assert_eq!(wanted["status"], deep.status);
    let text = wanted["body"]["error"].as_str().map(|text| text.replace("50000", "6"));
    assert_eq!(deep.json()["error"].as_str(), text.as_deref());
}

#[tokio::test]
async fn lists_what_filters_ask_for() {
    let forge = Forge::small().await.expect("the forge starts");
    let count = async |token: &str, query: &str| {
        let answer = gitlab(&forge, token, &format!("projects?per_page=100&{query}")).await;
        answer.json().as_array().map(Vec::len)
    };
    let good = gitlab_tokens::GOOD;
    assert_eq!(count(good, "membership=true").await, Some(25));
    assert_eq!(count(good, "").await, Some(30), "without membership strangers' public projects come too");
    assert_eq!(count(gitlab_tokens::PROJECT, "membership=true").await, Some(1));
    let archived = count(good, "membership=true&archived=true").await;
    let active = count(good, "membership=true&archived=false").await;
    assert_eq!(archived.zip(active).map(|(a, b)| a + b), Some(25));
    assert!(archived > Some(0));
    let admin = count(good, "min_access_level=40").await;
    assert!(admin > Some(0) && admin < Some(25), "{admin:?}");
    assert_eq!(count(good, "membership=true&search=WEBSITE").await, Some(1));
    assert_eq!(count(good, "membership=true&search=acme%2Fplatform%2Fdeep").await, Some(0));
    assert!(count(good, "membership=true&search=acme/platform/deep&search_namespaces=true").await > Some(0));
    let bad = gitlab(&forge, good, "projects?min_access_level=7").await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn moved_project_answers_in_plain_text_with_the_configured_url() {
    let forge = Forge::small().await.expect("the forge starts");
    let moved = gitlab(&forge, gitlab_tokens::GOOD, "projects/acme%2Fold-website?statistics=true").await;
    assert_eq!((moved.status, moved.header("content-type")), (301, Some("text/plain")));
    let location = moved.header("location").expect("a location");
    let target = location.strip_prefix(forge.origin()).expect("this origin");
    let found = ask(&forge, "GET", target, &[("private-token", gitlab_tokens::GOOD)]).await;
    assert_eq!(found.json()["path_with_namespace"], "acme/website");
    let write = [("private-token", gitlab_tokens::GOOD)];
    let write = ask(&forge, "PUT", "/gitlab/api/v4/projects/acme%2Fold-website", &write).await;
    assert_eq!(write.status, 405);
    let hidden = gitlab(&forge, gitlab_tokens::GROUP, "projects/casey%2Frepo-00009").await;
    assert_eq!(hidden.status, 404);
}

#[tokio::test]
async fn a_million_projects_are_paged_from_both_ends() {
    let config = ForgeConfig {
        gitlab: GitlabConfig { repositories: 1_000_001, ..GitlabConfig::default() },
        ..ForgeConfig::default()
    };
    let forge = Forge::start(config).await.expect("the forge starts");
    let list = "projects?membership=true&pagination=keyset&order_by=id&per_page=1";
    let first = gitlab(&forge, gitlab_tokens::GOOD, &format!("{list}&sort=asc")).await.json();
    let last = gitlab(&forge, gitlab_tokens::GOOD, &format!("{list}&sort=desc")).await.json();
    let (first, last) = (first[0]["id"].as_u64(), last[0]["id"].as_u64());
    assert!(last > first.map(|first| first + 7_000_000 - 7), "{first:?} {last:?}");
    for (id, from) in [(first, "id_before"), (last, "id_after")] {
        let id = id.expect("a number");
        let beyond = gitlab(&forge, gitlab_tokens::GOOD, &format!("{list}&sort=asc&{from}={id}")).await;
        assert_eq!((beyond.body.as_slice(), beyond.header("link")), (&b"[]"[..], None));
        let single = gitlab(&forge, gitlab_tokens::GOOD, &format!("projects/{id}")).await.json();
        assert_eq!(single["id"], id);
    }
}
