//! The fake Gitea against its recordings.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Answer, ask, documented, fixture, keys, tell};
use crate::support::forge::{Forge, ForgeConfig, GiteaConfig, gitea_tokens};

async fn gitea(forge: &Forge, token: &str, path: &str) -> Answer {
    let value = format!("token {token}");
    ask(forge, "GET", &format!("/gitea/api/v1/{path}"), &[("authorization", &value)]).await
}

async fn started(gitea: GiteaConfig) -> Forge {
    Forge::start(ForgeConfig { gitea, ..ForgeConfig::default() }).await.expect("the forge starts")
}

fn recorded(name: &str) -> Value {
    fixture(&format!("gitea/exchanges/{name}.json"))["response"].clone()
}

/// The answer has the recorded status, and the recorded sentence or text.
fn assert_recorded(name: &str, answer: &Answer) {
    let wanted = recorded(name);
    assert_eq!(wanted["status"], answer.status, "{name}");
    assert_eq!(wanted["headers"]["content-type"].as_str(), answer.header("content-type"), "{name}");
    match wanted["bodyText"].as_str() {
        Some(text) => assert_eq!(text.as_bytes(), answer.body, "{name}"),
        None => {
            assert_eq!(keys(&wanted["body"]), keys(&answer.json()), "{name}");
            assert_eq!(wanted["body"]["message"], answer.json()["message"], "{name}");
        }
    }
}

#[tokio::test]
async fn answers_have_every_recorded_member_and_no_other() {
    let forge = started(GiteaConfig { version: "1.26.0".to_owned(), ..GiteaConfig::default() }).await;
    let rows = gitea(&forge, gitea_tokens::GOOD, "user/repos?limit=50").await.json();
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 25);
    let wanted = recorded("repo_200")["body"].clone();
    for row in rows {
        assert_eq!(keys(row), keys(&wanted));
        assert_eq!(keys(&row["owner"]), keys(&wanted["owner"]));
    }
    let id = rows[0]["id"].as_u64().expect("a number");
    let one = gitea(&forge, gitea_tokens::GOOD, &format!("repositories/{id}")).await.json();
    assert_eq!(one, rows[0]);
    let search = gitea(&forge, gitea_tokens::GOOD, "repos/search?limit=1").await.json();
    assert_eq!(keys(&search), BTreeSet::from(["data".to_owned(), "ok".to_owned()]));
    for (path, name) in [("user", "user_200"), ("settings/api", "settings_api")] {
        let answer = gitea(&forge, gitea_tokens::GOOD, path).await.json();
        assert_eq!(keys(&answer), keys(&recorded(name)["body"]), "{path}");
    }
    for (path, name) in [
        ("user/orgs", "user_orgs_page1"),
        ("repos/acme/website/branches", "branches_page1"),
        ("repos/acme/website/tags", "tags_page1"),
    ] {
        let answer = gitea(&forge, gitea_tokens::GOOD, path).await.json();
        assert_eq!(keys(&answer[0]), keys(&recorded(name)["body"][0]), "{path}");
    }
}

#[tokio::test]
async fn refuses_in_the_recorded_words() {
    let forge = started(GiteaConfig { version: "1.26.0".to_owned(), ..GiteaConfig::default() }).await;
    for (token, path, name) in [
        (gitea_tokens::UNKNOWN, "user", "user_unknown_token_401"),
        (gitea_tokens::DELETED, "user", "user_unknown_token_401"),
        // Also where a stranger is answered.
        (gitea_tokens::UNKNOWN, "version", "user_unknown_token_401"),
        (gitea_tokens::BLOCKED, "user", "user_prohibit_login"),
        (gitea_tokens::REPOSITORY_ONLY, "user", "user_403_scope"),
        (gitea_tokens::GOOD, "token", "token_404"),
        (gitea_tokens::GOOD, "repos/acme/nope", "repo_missing_404"),
        (gitea_tokens::SECOND, "repos/casey/repo-00009", "repo_hidden_404"),
        (gitea_tokens::GOOD, "repositories/999999", "repo_by_id_404"),
        (gitea_tokens::GOOD, "repos/inner/repo-00005/hooks", "hook_create_403_not_admin"),
    ] {
        assert_recorded(name, &gitea(&forge, token, path).await);
    }
    assert_recorded("user_anonymous_401", &ask(&forge, "GET", "/gitea/api/v1/user", &[]).await);
    let disabled = started(GiteaConfig { webhooks_disabled: true, ..GiteaConfig::default() }).await;
    let hooks = gitea(&disabled, gitea_tokens::GOOD, "repos/acme/website/hooks").await;
    assert_recorded("hooks_disabled", &hooks);
    let closed = started(GiteaConfig { sign_in_required: true, ..GiteaConfig::default() }).await;
    for path in ["version", "user", "repos/search?limit=1"] {
        let answer = ask(&closed, "GET", &format!("/gitea/api/v1/{path}"), &[]).await;
        assert_recorded("signin_view_anonymous_api_v1_version", &answer);
    }
    let forgejo = started(GiteaConfig::forgejo()).await;
    let weak = gitea(&forgejo, gitea_tokens::REPOSITORY_ONLY, "user").await;
    let wanted = fixture("gitea/documented/errors.json")["errors"][1]["body"]["message"].clone();
    assert_eq!((weak.status, weak.json()["message"].clone()), (403, wanted));
    assert_eq!(gitea(&forgejo, gitea_tokens::GOOD, "token").await.status, 404);
    let bad = ask(&forge, "GET", "/gitea/api/v1/user", &[("authorization", "Basic eDp5")]).await;
    assert_eq!(bad.json()["message"], documented("gitea", "bad-token")["body"]["message"]);
}

#[tokio::test]
async fn webhooks_are_made_changed_and_refused_as_recorded() {
    let forge = started(GiteaConfig { version: "1.26.0".to_owned(), ..GiteaConfig::default() }).await;
    let ask_with = async |token: &str, name: &str, of: &str, below: &str| {
        let request = fixture(&format!("gitea/exchanges/{name}.json"))["request"].clone();
        let value = format!("token {token}");
        let target = format!("/gitea/api/v1/repos/{of}/hooks{below}");
        let method = request["method"].as_str().expect("a method");
        tell(&forge, method, &target, &[("authorization", value.as_str())], &request["body"]).await
    };
    let without_order = |row: &Value| {
        let mut row = row.clone();
        let events = row["events"].as_array_mut().expect("events");
        events.sort_by_key(Value::to_string);
        for name in ["id", "created_at", "updated_at"] {
            row[name].take();
        }
        row
    };
    let own = "acme/website";
    for name in ["hook_create_201", "hook_create_again"] {
        let made = ask_with(gitea_tokens::GOOD, name, own, "").await;
        assert_eq!(made.status, 201, "{name}");
        assert_eq!(without_order(&made.json()), without_order(&recorded(name)["body"]), "{name}");
    }
    let rows = gitea(&forge, gitea_tokens::GOOD, "repos/acme/website/hooks").await;
    assert_eq!((rows.header("x-total-count"), rows.header("link")), (Some("2"), None));
    let second = rows.json()[1]["id"].to_string();
    let patched = ask_with(gitea_tokens::GOOD, "hook_patch_events", own, &format!("/{second}")).await;
    assert_eq!(without_order(&patched.json()), without_order(&recorded("hook_patch_events")["body"]));
    assert_eq!(forge.hooks("gitea").all()[1].1.secret.as_deref(), Some("s3cr3t"), "it is never another one");
    for (token, name, of, below) in [
        (gitea_tokens::GOOD, "hook_no_url_422", own, ""),
        (gitea_tokens::GOOD, "hook_bad_type_422", own, ""),
        (gitea_tokens::READ_ONLY, "hook_create_403_scope", own, ""),
        (gitea_tokens::GOOD, "hook_create_403_not_admin", "inner/repo-00005", ""),
        (gitea_tokens::GOOD, "hook_missing_404", own, "/99999"),
        (gitea_tokens::GOOD, "hook_delete_again_404", own, "/99999"),
    ] {
        assert_recorded(name, &ask_with(token, name, of, below).await);
    }
}

#[tokio::test]
async fn a_token_comes_in_one_header_of_its_own_scheme() {
    let forge = started(GiteaConfig::default()).await;
    let status = async |target: &str, header: Option<(&str, String)>| {
        let headers: Vec<_> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ask(&forge, "GET", &format!("/gitea/api/v1/user{target}"), &headers).await.status
    };
    let authorization = |scheme: &str, token: &str| Some(("authorization", format!("{scheme} {token}")));
    assert_eq!(status("", authorization("token", gitea_tokens::GOOD)).await, 200);
    assert_eq!(status("", authorization("Bearer", gitea_tokens::GOOD)).await, 200);
    assert_eq!(status("", authorization("Bearer", gitea_tokens::OAUTH)).await, 200);
    assert_eq!(status("", authorization("token", gitea_tokens::OAUTH)).await, 401);
    assert_eq!(status("", Some(("private-token", gitea_tokens::GOOD.to_owned()))).await, 401);
    assert_eq!(status(&format!("?token={}", gitea_tokens::GOOD), None).await, 401);
}

#[tokio::test]
async fn pages_are_cut_without_a_word_and_links_keep_what_was_asked_for() {
    let config = GiteaConfig {
        repositories: 138,
        root_url: Some("http://127.0.0.1:3300".to_owned()),
        ..GiteaConfig::default()
    };
    let forge = started(config).await;
    for name in ["user_repos_limit_cut", "user_repos_page2"] {
        let wanted = fixture(&format!("gitea/exchanges/{name}.json"));
        let url = wanted["request"]["url"].as_str().expect("a URL");
        let path = url.strip_prefix("http://127.0.0.1:3300/api/v1/").expect("a path");
        let answer = gitea(&forge, gitea_tokens::GOOD, path).await;
        for header in ["link", "x-total-count", "access-control-expose-headers"] {
            let wanted = wanted["response"]["headers"][header].as_str().map(str::to_owned);
            assert_eq!(wanted.as_deref(), answer.header(header), "{name}: {header}");
        }
    }
    let count = async |query: &str| {
        let answer = gitea(&forge, gitea_tokens::GOOD, &format!("user/repos?{query}")).await;
        answer.json().as_array().map(Vec::len)
    };
    for (query, rows) in [
        ("limit=100", 50),
        ("", 30),
        ("limit=0", 30),
        ("limit=-1", 30),
        ("page=0&limit=7", 7),
        ("page=3&limit=50", 38),
        ("page=9&limit=50", 0),
    ] {
        assert_eq!(count(query).await, Some(rows), "{query}");
    }
    // By name, and two have one name.
    let rows = gitea(&forge, gitea_tokens::GOOD, "user/repos?limit=50").await.json();
    let names: Vec<_> = rows.as_array().expect("rows").iter().map(|row| row["name"].to_string()).collect();
    assert!(names.is_sorted());
}

#[tokio::test]
async fn a_search_is_narrowed_sorted_and_checked() {
    let forge = started(GiteaConfig::default()).await;
    let count = async |token: &str, query: &str| {
        let answer = gitea(&forge, token, &format!("repos/search?limit=50&{query}")).await;
        answer.json()["data"].as_array().map(Vec::len)
    };
    let good = gitea_tokens::GOOD;
    assert_eq!(count(good, "uid=2").await, Some(25));
    assert_eq!(count(good, "").await, Some(30), "strangers' public repositories come too");
    let archived = count(good, "uid=2&archived=true").await;
    let active = count(good, "uid=2&archived=false").await;
    assert_eq!(archived.zip(active).map(|(a, b)| a + b), Some(25));
    assert!(archived > Some(0));
    assert_eq!(count(good, "uid=2&q=WEBSITE").await, Some(1));
    assert_eq!(count(good, "uid=2&q=acme").await, Some(0), "owners are not searched");
    assert_eq!(count(good, "uid=2&q=acme/web").await, Some(1));
    let all = count(good, "").await;
    assert!(count(gitea_tokens::PUBLIC_ONLY, "").await < all, "private ones are hidden without a word");
    assert!(count(gitea_tokens::PUBLIC_ONLY, "uid=2").await > Some(0));
    let own = gitea(&forge, gitea_tokens::PUBLIC_ONLY, "user/repos?limit=50").await.json();
    assert_eq!(own.as_array().map(Vec::len), Some(25), "here they are listed all the same");
    for bad in ["sort=nonsense", "sort=id&order=sideways"] {
        assert_eq!(gitea(&forge, good, &format!("repos/search?{bad}")).await.status, 422, "{bad}");
    }
    let rows = gitea(&forge, good, "repos/search?sort=id&order=asc&limit=50").await.json();
    let ids: Vec<_> = rows["data"].as_array().expect("rows").iter().map(|row| row["id"].as_u64()).collect();
    assert!(ids.is_sorted());
}

#[tokio::test]
async fn an_old_name_redirects_every_method_and_everybody() {
    let forge = started(GiteaConfig::default()).await;
    let value = format!("token {}", gitea_tokens::GOOD);
    for (method, headers, tail) in [
        ("GET", &[("authorization", value.as_str())][..], ""),
        ("POST", &[("authorization", value.as_str())][..], "/hooks"),
        ("GET", &[][..], "/branches"),
    ] {
        let target = format!("/gitea/api/v1/repos/acme/old-website{tail}");
        let moved = ask(&forge, method, &target, headers).await;
        let to = format!("/gitea/api/v1/repos/acme/website{tail}");
        assert_eq!((moved.status, moved.header("location")), (301, Some(to.as_str())));
        assert_eq!(moved.header("content-type"), Some("text/html; charset=utf-8"));
    }
}

#[tokio::test]
async fn refs_of_an_empty_repository_and_a_lost_branch() {
    let lost = GiteaConfig { lost_branch: Some("feature/00001".to_owned()), ..GiteaConfig::default() };
    let forge = started(lost).await;
    let empty = "repos/acme/repo-00004";
    for (path, name) in [("branches", "empty_branches"), ("tags", "empty_tags")] {
        let answer = gitea(&forge, gitea_tokens::GOOD, &format!("{empty}/{path}")).await;
        let wanted = recorded(name);
        assert_eq!((wanted["status"].as_u64(), &wanted["body"]), (Some(200), &answer.json()), "{path}");
        assert_eq!(answer.header("x-total-count"), Some("0"));
    }
    let page = gitea(&forge, gitea_tokens::GOOD, "repos/acme/website/branches?limit=10").await;
    assert_eq!(page.json().as_array().map(Vec::len), Some(9));
    assert_eq!(page.header("x-total-count"), Some("30"));
    let tags = gitea(&forge, gitea_tokens::GOOD, "repos/acme/website/tags?limit=5").await;
    assert_eq!((tags.header("link"), tags.header("x-total-count")), (None, Some("12")));
    let old = started(GiteaConfig { version: "1.26.0".to_owned(), ..GiteaConfig::default() }).await;
    let ignored = gitea(&old, gitea_tokens::GOOD, "repos/acme/website/branches?q=2.0&limit=50").await;
    assert_eq!(ignored.json().as_array().map(Vec::len), Some(30));
}

#[tokio::test]
async fn the_version_of_1_20_0_is_closed_to_narrow_tokens() {
    let forge = started(GiteaConfig { version: "1.20.0".to_owned(), ..GiteaConfig::default() }).await;
    assert_eq!(gitea(&forge, gitea_tokens::GOOD, "version").await.status, 403);
    assert_eq!(gitea(&forge, gitea_tokens::ALL_SCOPES, "version").await.status, 200);
    assert_eq!(ask(&forge, "GET", "/gitea/api/v1/version", &[]).await.status, 200);
}
