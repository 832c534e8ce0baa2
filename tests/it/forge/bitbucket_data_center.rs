//! The fake Bitbucket Data Center against the recorded exchanges, the documented errors and itself.

use super::*;
use crate::support::forge::{DataCenterConfig, Level, data_center_tokens as tokens};

async fn start(bitbucket_data_center: DataCenterConfig) -> Forge {
    let config = ForgeConfig { bitbucket_data_center, ..ForgeConfig::default() };
    Forge::start(config).await.expect("the forge starts")
}

async fn bitbucket(forge: &Forge, token: &str, path: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let target = format!("/bitbucket/rest/api/latest/{path}");
    ask(forge, "GET", &target, &[("authorization", &bearer)]).await
}

async fn stranger(forge: &Forge, path: &str) -> Answer {
    ask(forge, "GET", &format!("/bitbucket/rest/api/latest/{path}"), &[]).await
}

#[tokio::test]
async fn answers_have_the_recorded_members_and_headers() {
    let forge = start(DataCenterConfig::default()).await;
    let recorded = fixture("bitbucket-data-center/exchanges/application-properties-200.json");
    let answer = bitbucket(&forge, tokens::GOOD, "application-properties").await;
    assert_eq!(keys(&answer.json()), keys(&recorded["response"]["body"]));
    for name in ["cache-control", "content-type", "vary"] {
        assert_eq!(answer.header(name), recorded["response"]["headers"][name].as_str(), "{name}");
    }
    assert_eq!((answer.header("x-ausername"), answer.header("x-auserid")), (Some("casey"), Some("104")));

    let recorded = fixture("bitbucket-data-center/exchanges/project-repos-200.json");
    let recorded = &recorded["response"]["body"];
    let page = bitbucket(&forge, tokens::GOOD, "projects/WEB/repos?limit=1000").await.json();
    let mut members = keys(&page);
    assert!(members.remove("nextPageStart"));
    assert_eq!(members, keys(recorded));
    let (row, wanted) = (&page["values"][0], &recorded["values"][0]);
    assert!(keys(wanted).is_subset(&keys(row)), "{row}");
    assert!(keys(&wanted["project"]).is_subset(&keys(&row["project"])));
    assert_eq!(keys(&wanted["links"]), keys(&row["links"]));
    // The links change their places.
    let rows = bitbucket(&forge, tokens::GOOD, "repos?limit=1000").await.json();
    let first: BTreeSet<&str> = rows["values"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["links"]["clone"][0]["name"].as_str())
        .collect();
    assert_eq!(first, BTreeSet::from(["http", "ssh"]));
    let user = bitbucket(&forge, tokens::GOOD, "users/casey").await.json();
    assert_eq!(keys(&user), keys(&fixture("bitbucket-data-center/go-scm/user.json")));
    for (kind, name) in [("branches", "branches"), ("tags", "tags")] {
        let page = bitbucket(&forge, tokens::GOOD, &format!("projects/WEB/repos/acme-website/{kind}")).await;
        let recorded = fixture(&format!("bitbucket-data-center/go-scm/{name}.json"));
        assert_eq!(keys(&page.json()["values"][0]), keys(&recorded["values"][0]), "{kind}");
    }
}

#[tokio::test]
async fn refusals_are_the_documented_ones() {
    let forge = start(DataCenterConfig::default()).await;
    const PROVIDER: &str = "bitbucket-data-center";
    for token in [tokens::UNKNOWN, tokens::EXPIRED, tokens::REVOKED] {
        let answer = bitbucket(&forge, token, "application-properties").await;
        assert_documented(PROVIDER, "bad-credentials", &answer);
        assert_eq!(answer.header("x-ausername"), None);
    }
    assert_documented(PROVIDER, "no-permission-is-401", &stranger(&forge, "users").await);
    let answer = bitbucket(&forge, tokens::READ_ONLY, "projects/WEB/repos/acme-website/webhooks").await;
    assert_documented(PROVIDER, "no-permission-is-401", &answer);
    assert_eq!(answer.header("x-ausername"), Some("casey"));
    let answer = bitbucket(&forge, tokens::GOOD, "projects/dev").await;
    assert_documented(PROVIDER, "project-missing", &answer);
    let answer = bitbucket(&forge, tokens::GOOD, "projects/SOUR/repos/invalidslug").await;
    assert_documented(PROVIDER, "repository-missing", &answer);
    forge.set_fault(Fault::RateLimited(Some("5".to_owned())));
    let answer = bitbucket(&forge, tokens::GOOD, "repos").await;
    assert_documented(PROVIDER, "throttled", &answer);
    for (name, value) in documented(PROVIDER, "throttled")["headers"].as_object().expect("headers") {
        if name != "content-type" {
            assert_eq!(answer.header(name), value.as_str(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_stranger_gets_a_good_status_and_little_else() {
    for forge in [
        start(DataCenterConfig::default()).await,
        start(DataCenterConfig { drops_token: true, ..DataCenterConfig::default() }).await,
    ] {
        let answer = bitbucket_or_stranger(&forge, "application-properties").await;
        assert_eq!((answer.status, answer.header("x-ausername")), (200, None));
        let rows = |answer: Answer| answer.json()["values"].as_array().map(Vec::len);
        assert_eq!(rows(bitbucket_or_stranger(&forge, "repos?permission=REPO_READ").await), Some(0));
        let public = bitbucket_or_stranger(&forge, "repos?limit=1000").await.json();
        let public = public["values"].as_array().expect("rows").clone();
        assert!(!public.is_empty());
        assert!(public.iter().all(|row| row["public"] == true || row["project"]["public"] == true));
        let whoami = ask(&forge, "GET", "/bitbucket/plugins/servlet/applinks/whoami", &[]).await;
        assert_eq!((whoami.status, whoami.body.as_slice()), (200, &b""[..]));
    }
}

/// Without a token, unless the forge drops it.
async fn bitbucket_or_stranger(forge: &Forge, path: &str) -> Answer {
    let with_token = bitbucket(forge, tokens::GOOD, path).await;
    if with_token.header("x-ausername").is_none() { with_token } else { stranger(forge, path).await }
}

#[tokio::test]
async fn basic_is_off_unless_the_administrator_turns_it_on() {
    let basic = |user: &str, token: &str| {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{token}")))
    };
    let status = async |forge: &Forge, header: &str| {
        let target = "/bitbucket/rest/api/latest/repos?limit=1";
        ask(forge, "GET", target, &[("authorization", header)]).await
    };
    let off = start(DataCenterConfig::default()).await;
    let answer = status(&off, &basic("casey", tokens::GOOD)).await;
    assert_eq!(answer.status, 403);
    assert_eq!(keys(&answer.json()), BTreeSet::from(["message".to_owned()]));
    let on = start(DataCenterConfig { basic: true, ..DataCenterConfig::default() }).await;
    for (user, token, wanted) in [
        ("casey", tokens::GOOD, 200),
        ("robin", tokens::GOOD, 401),
        ("x-token-auth", tokens::REPOSITORY, 401),
        ("access-token-user/2/102", tokens::REPOSITORY, 401),
    ] {
        assert_eq!(status(&on, &basic(user, token)).await.status, wanted, "{user}");
    }
}

#[tokio::test]
async fn listings_are_filtered_and_paged_as_documented() {
    let forge = start(DataCenterConfig { page_cap: 10, ..DataCenterConfig::default() }).await;
    let rows = async |token: &str, query: &str| {
        let (mut all, mut start) = (Vec::new(), 0);
        loop {
            let page =
                bitbucket(&forge, token, &format!("repos?limit=1000&start={start}&{query}")).await.json();
            assert_eq!(page["limit"], 10);
            all.extend(page["values"].as_array().expect("rows").clone());
            match page["nextPageStart"].as_u64() {
                Some(next) => start = next,
                None => return (page["isLastPage"] == true).then_some(all).expect("the last page"),
            }
        }
    };
    assert_eq!(rows(tokens::GOOD, "permission=REPO_READ&archived=ALL").await.len(), 25);
    let active = rows(tokens::GOOD, "permission=REPO_READ").await;
    assert!(active.len() < 25 && active.iter().all(|row| row["archived"] == false));
    let archived = rows(tokens::GOOD, "permission=REPO_READ&archived=archived").await;
    assert_eq!(active.len() + archived.len(), 25);
    let admin = rows(tokens::GOOD, "permission=REPO_ADMIN&archived=ALL").await;
    assert!(!admin.is_empty() && admin.len() < 25);
    assert_eq!(rows(tokens::READ_ONLY, "permission=REPO_ADMIN&archived=ALL").await.len(), 0);
    assert_eq!(rows(tokens::REPOSITORY, "permission=REPO_READ").await.len(), 1);
    let key = rows(tokens::GOOD, "projectkey=web&archived=ALL").await;
    assert!(!key.is_empty() && key.iter().all(|row| row["project"]["key"] == "WEB"));
    assert_eq!(rows(tokens::GOOD, "name=acme%20W").await.len(), 1);
    for bad in ["permission=PROJECT_ADMIN", "archived=yes", "visibility=internal", "start=-1", "limit=x"] {
        assert_eq!(bitbucket(&forge, tokens::GOOD, &format!("repos?{bad}")).await.status, 400, "{bad}");
    }
    let page = bitbucket(&forge, tokens::GOOD, "repos").await.json();
    assert_eq!(page["limit"], 10, "25 by default, cut at what the administrator set");
    forge.edit_data_center_token(tokens::GOOD, |token| token.level = Level::None);
    assert_eq!(rows(tokens::GOOD, "permission=REPO_READ").await.len(), 0);
}

#[tokio::test]
async fn a_moved_repository_redirects_and_a_personal_one_fails() {
    let external = Some("https://configured.example/git".to_owned());
    let forge = start(DataCenterConfig { external_url: external, ..DataCenterConfig::default() }).await;
    let moved = bitbucket(&forge, tokens::GOOD, "projects/WEB/repos/old-website/branches?limit=2").await;
    let to =
        "https://configured.example/git/rest/api/latest/projects/WEB/repos/acme-website/branches?limit=2";
    assert_eq!((moved.status, moved.header("location")), (307, Some(to)));
    assert_eq!(bitbucket(&forge, tokens::GOOD, "projects/~casey/repos/old-notes").await.status, 500);
    let moved = bitbucket(&forge, tokens::GOOD, "users/casey/repos/old-notes").await;
    let to = "https://configured.example/git/rest/api/latest/users/casey/repos/dotted.name_v2";
    assert_eq!((moved.status, moved.header("location")), (307, Some(to)));
    let found = bitbucket(&forge, tokens::GOOD, "users/casey/repos/dotted.name_v2").await.json();
    assert_eq!(found["project"]["key"], "~casey");
}

#[tokio::test]
async fn default_branches_are_configured_also_where_none_exists() {
    let forge = start(DataCenterConfig::default()).await;
    let rows = bitbucket(&forge, tokens::GOOD, "repos?limit=1000&archived=ALL").await.json();
    let ask = async |slug: &str, what: &str| {
        let row = rows["values"].as_array().and_then(|rows| rows.iter().find(|row| row["slug"] == slug));
        let key = row.expect("the row")["project"]["key"].as_str().expect("a key").to_owned();
        bitbucket(&forge, tokens::GOOD, &format!("projects/{key}/repos/{slug}/{what}")).await
    };
    assert_eq!(ask("repo-00004", "default-branch").await.json()["displayId"], "main");
    assert_eq!(ask("repo-00004", "branches").await.json()["size"], 0);
    let none = ask("repo-00008", "default-branch").await;
    assert_eq!(none.status, 404);
    let exception = none.json()["errors"][0]["exceptionName"].as_str().map(str::to_owned);
    assert!(exception.is_some_and(|name| name.ends_with("NoDefaultBranchException")));
}

#[tokio::test]
async fn every_fault_spoils_a_listing() {
    let config = ForgeConfig { drip: Duration::ZERO, ..ForgeConfig::default() };
    let forge = Forge::start(config).await.expect("the forge starts");
    for (name, _) in FAULTS.iter().filter(|(name, _)| *name != "silent") {
        let ask = async || bitbucket(&forge, tokens::GOOD, "repos?limit=2&start=0").await;
        forge.clear_faults();
        let truth = ask().await;
        forge.set_fault(Fault::named(name).expect("listed"));
        let (first, second) = (ask().await, ask().await);
        let spoiled = |answer: &Answer| {
            answer.status != truth.status || answer.undated() != truth.undated() || answer.body != truth.body
        };
        // There are neither links nor totals; a cycle needs a second page; dripping does not show in the bytes.
        let exempt = ["foreign-next-link", "inflated-total", "cursor-cycle", "drip-body", "drip-headers"];
        assert!(exempt.contains(name) || spoiled(&first) || spoiled(&second), "{name} changes nothing");
    }
}
