//! The fake Bitbucket Cloud against its recordings.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Answer, ask, assert_documented, basic_of, documented, fixture, keys};
use crate::support::forge::{
    BitbucketCloudConfig, Forge, ForgeConfig, IdOrder, bitbucket_cloud_tokens as tokens,
};

/// Asks as an API token of the first person.
pub(super) async fn bitbucket(forge: &Forge, token: &str, path: &str) -> Answer {
    let basic = basic_of(tokens::EMAIL, token);
    ask(forge, "GET", &format!("/bitbucket-cloud/2.0/{path}"), &[("authorization", &basic)]).await
}

/// Asks as a token of a resource.
async fn bearer(forge: &Forge, token: &str, path: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    ask(forge, "GET", &format!("/bitbucket-cloud/2.0/{path}"), &[("authorization", &bearer)]).await
}

async fn with(bitbucket_cloud: BitbucketCloudConfig) -> Forge {
    Forge::start(ForgeConfig { bitbucket_cloud, ..ForgeConfig::default() }).await.expect("the forge starts")
}

fn values(answer: &Answer) -> Vec<Value> {
    answer.json()["values"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn rows_have_every_recorded_member_and_no_undocumented_one() {
    let forge = Forge::small().await.expect("the forge starts");
    let recorded = fixture("bitbucket-cloud/exchanges/repos-page1-200.json");
    let recorded = &recorded["response"]["body"];
    let described = fixture("bitbucket-cloud/openapi/bitbucket-cloud.trimmed.json");
    let described = keys(&described["components"]["schemas"]["repository"]["allOf"][1]["properties"]);
    let page = bitbucket(&forge, tokens::GOOD, "repositories/acme?pagelen=5").await;
    assert_eq!(keys(&page.json()), keys(recorded));
    let known = keys(&recorded["values"][0]);
    for row in values(&page) {
        let row = keys(&row);
        let missing: Vec<_> = known.difference(&row).collect();
        assert!(missing.is_empty(), "missing {missing:?}");
        let foreign: Vec<_> =
            row.iter().filter(|key| !known.contains(*key) && !described.contains(*key)).collect();
        assert!(foreign.is_empty(), "undocumented {foreign:?}");
    }
    let row = &values(&page)[0];
    assert_eq!(row["full_name"], "acme/website");
    assert_eq!(row["links"]["clone"][0]["href"], "https://casey@bitbucket.org/acme/website.git");
    assert_eq!(row["links"]["clone"][1]["href"], "git@ssh.bitbucket.org:acme/website.git");
    assert!(!row.to_string().contains("sourcegraph"));
}

#[tokio::test]
async fn identity_answers_have_the_recorded_members() {
    let forge = Forge::small().await.expect("the forge starts");
    let user = bitbucket(&forge, tokens::GOOD, "user").await;
    let recorded = fixture("bitbucket-cloud/exchanges/user-200-app-password.json");
    assert_eq!(keys(&user.json()), keys(&recorded["response"]["body"]));
    assert_eq!(user.header("x-credential-type"), Some("api_token"));
    assert!(user.header("x-oauth-scopes").is_some_and(|scopes| scopes.contains("read:user:bitbucket, ")));
    // A token of a resource has no user, and its kind stands on the refusal.
    let refused = bearer(&forge, tokens::REPOSITORY, "user").await;
    assert_eq!((refused.status, refused.header("x-credential-type")), (403, Some("repo_access_token")));
    let workspaces = values(&bitbucket(&forge, tokens::GOOD, "user/workspaces?sort=slug").await);
    let slugs: Vec<&str> = workspaces.iter().filter_map(|row| row["workspace"]["slug"].as_str()).collect();
    assert_eq!(slugs, ["acme", "casey", "team-002"]);
    let second = ask(
        &forge,
        "GET",
        "/bitbucket-cloud/2.0/user/workspaces",
        &[("authorization", &basic_of(tokens::SECOND_EMAIL, tokens::SECOND))],
    )
    .await;
    assert_eq!(values(&second).len(), 1);
}

#[tokio::test]
async fn refuses_in_the_recorded_words() {
    let forge = Forge::small().await.expect("the forge starts");
    let plain = documented("bitbucket-cloud", "token-refused");
    let good = basic_of("casey", tokens::GOOD);
    let wrong_user = ask(&forge, "GET", "/bitbucket-cloud/2.0/user", &[("authorization", &good)]).await;
    for dead in [
        bitbucket(&forge, tokens::UNKNOWN, "user").await,
        bitbucket(&forge, tokens::EXPIRED, "user").await,
        bitbucket(&forge, tokens::SCOPELESS, "user").await,
        // Not the e-mail address, not the right header.
        wrong_user,
        bearer(&forge, tokens::GOOD, "user").await,
        bitbucket(&forge, tokens::WORKSPACE, "repositories/acme").await,
    ] {
        assert_eq!((dead.status, dead.header("content-type")), (401, Some("text/plain")));
        assert_eq!(dead.body, plain["bodyText"].as_str().expect("text").as_bytes());
        assert_eq!(dead.header("www-authenticate"), Some("Basic realm=\"Bitbucket.org HTTP\""));
    }
    assert_eq!(bitbucket(&forge, tokens::APP_PASSWORD, "user").await.status, 401);
    for path in ["workspaces", "repositories?role=member", "user/permissions/workspaces"] {
        assert_documented(
            "bitbucket-cloud",
            "cross-workspace-gone",
            &bitbucket(&forge, tokens::GOOD, path).await,
        );
    }
    let weak = bitbucket(&forge, tokens::USER_ONLY, "repositories/acme").await.json();
    assert_eq!(keys(&weak["error"]), keys(&documented("bitbucket-cloud", "missing-scope")["body"]["error"]));
    assert_eq!(weak["error"]["detail"]["required"][0], "read:repository:bitbucket");
    let role = bitbucket(&forge, tokens::GOOD, "repositories/casey/ubersicht/hooks").await.json();
    assert!(role["error"]["detail"].is_string(), "{role}");
    let missing = bitbucket(&forge, tokens::GOOD, "repositories/acme/null").await;
    assert_eq!(missing.json()["error"]["message"], "Repository acme/null not found");
    // Beside the API every call is refused so.
    let beside = ask(&forge, "GET", "/bitbucket-cloud/user", &[]).await;
    assert_eq!((beside.status, beside.json()["error"]["message"].clone()), (403, "Forbidden".into()));
}

#[tokio::test]
async fn pages_are_linked_and_too_large_ones_refused() {
    let forge =
        with(BitbucketCloudConfig { repositories: 250, workspaces: 1, ..BitbucketCloudConfig::default() })
            .await;
    let first = bitbucket(&forge, tokens::GOOD, "repositories/acme").await.json();
    assert_eq!((first["pagelen"].as_u64(), first["size"].as_u64()), (Some(10), Some(250)));
    let next = first["next"].as_str().expect("a link");
    assert_eq!(next, "https://api.bitbucket.org/2.0/repositories/acme?page=2&pagelen=10");
    let mut path = "repositories/acme?pagelen=100&sort=uuid".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = bitbucket(&forge, tokens::GOOD, &path).await.json();
        seen.extend(page["values"].as_array().expect("rows").iter().map(|row| row["uuid"].to_string()));
        match page["next"].as_str() {
            Some(next) => path = next.trim_start_matches("https://api.bitbucket.org/2.0/").to_owned(),
            None => break,
        }
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 250);
    assert!(seen.is_sorted());
    for bad in ["pagelen=101", "pagelen=0", "pagelen=x", "page=0", "sort=stars", "q=stars>5", "role=boss"] {
        let answer = bitbucket(&forge, tokens::GOOD, &format!("repositories/acme?{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    let last = &seen[99].trim_matches('"').replace('{', "%7B").replace('}', "%7D");
    let rest =
        bitbucket(&forge, tokens::GOOD, &format!("repositories/acme?q=uuid%20%3E%20%22{last}%22&pagelen=1"))
            .await;
    assert_eq!(rest.json()["size"], 150);
    let bare = with(BitbucketCloudConfig {
        counted: false,
        id_order: IdOrder::Refused,
        ..BitbucketCloudConfig::default()
    })
    .await;
    assert_eq!(bitbucket(&bare, tokens::GOOD, "repositories/acme?sort=uuid").await.status, 400);
    let page = bitbucket(&bare, tokens::GOOD, "repositories/acme?pagelen=2").await.json();
    assert_eq!(keys(&page), ["next", "pagelen", "values"].map(str::to_owned).into());
}

#[tokio::test]
async fn a_partial_answer_has_what_was_asked_for() {
    let forge = Forge::small().await.expect("the forge starts");
    let path =
        "repositories/acme?fields=next,values.uuid,values.links.clone,values.mainbranch.name&pagelen=2";
    let page = bitbucket(&forge, tokens::GOOD, path).await.json();
    assert_eq!(keys(&page), ["next", "values"].map(str::to_owned).into());
    assert_eq!(keys(&page["values"][0]), ["links", "mainbranch", "uuid"].map(str::to_owned).into());
    assert_eq!(keys(&page["values"][0]["links"]), ["clone".to_owned()].into());
    let path = "repositories/acme/website/refs/branches?fields=values.name,values.target.hash&pagelen=1";
    let page = bitbucket(&forge, tokens::GOOD, path).await.json();
    assert_eq!(keys(&page["values"][0]), ["name", "target"].map(str::to_owned).into());
    assert_eq!(keys(&page["values"][0]["target"]), ["hash".to_owned()].into());
}

#[tokio::test]
async fn refs_have_the_members_that_are_read_of_recorded_ones() {
    let forge = Forge::small().await.expect("the forge starts");
    for (kind, recorded) in
        [("branches", "bitbucket-cloud/go-scm/branches.json"), ("tags", "bitbucket-cloud/go-scm/tags.json")]
    {
        let page =
            bitbucket(&forge, tokens::GOOD, &format!("repositories/acme/website/refs/{kind}?pagelen=100"))
                .await;
        let recorded = keys(&fixture(recorded)["values"][0]);
        for row in values(&page) {
            let foreign: Vec<_> = keys(&row).difference(&recorded).cloned().collect();
            assert!(foreign.is_empty(), "{kind}: {foreign:?}");
            assert!(row["target"]["hash"].is_string());
        }
    }
    let found =
        bitbucket(&forge, tokens::GOOD, "repositories/acme/website/refs/branches?q=name~%22HOTFIX%22").await;
    assert_eq!(values(&found)[0]["name"], "Hotfix/Login");
    let hooks = bitbucket(&forge, tokens::GOOD, "repositories/acme/website/hooks").await.json();
    assert!(keys(&fixture("bitbucket-cloud/go-scm/hooks.json")).is_subset(&keys(&hooks)));
}

#[tokio::test]
async fn each_token_sees_what_it_belongs_to() {
    let forge = Forge::small().await.expect("the forge starts");
    let count = async |token, path: &str| values(&bearer(&forge, token, path).await).len();
    assert_eq!(count(tokens::WORKSPACE, "repositories/acme?pagelen=100").await, 9);
    // Only where the question is narrowed.
    assert_eq!(count(tokens::REPOSITORY, "repositories/acme?pagelen=100").await, 0);
    assert_eq!(count(tokens::REPOSITORY, "repositories/acme?q=slug=%22website%22").await, 1);
    assert_eq!(bearer(&forge, tokens::REPOSITORY, "repositories/acme/website").await.status, 200);
    let project = count(tokens::PROJECT, "repositories/acme?pagelen=100").await;
    assert!((1..9).contains(&project));
    assert_eq!(bearer(&forge, tokens::WORKSPACE, "repositories/casey").await.status, 404);
    for role in ["member", "contributor", "admin"] {
        let rows = values(
            &bitbucket(&forge, tokens::GOOD, &format!("repositories/acme?pagelen=100&role={role}")).await,
        );
        assert!((1..9).contains(&rows.len()), "{role}");
    }
    assert_eq!(
        ask(&forge, "GET", "/bitbucket-cloud/2.0/repositories/strangers/repo-00025", &[]).await.status,
        200
    );
}
