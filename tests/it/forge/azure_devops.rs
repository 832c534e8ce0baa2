//! The fake Azure DevOps against its recordings.

use serde_json::Value;

use super::{ask, assert_documented, azure, basic, documented, fixture, keys};
use crate::support::forge::{AzureConfig, Forge, ForgeConfig, Hook, azure_tokens};

#[tokio::test]
async fn rows_have_every_recorded_member_and_no_undocumented_one() {
    let forge = Forge::small().await.expect("the forge starts");
    let recorded = fixture("azure-devops/exchanges/repo-get-200.json");
    let recorded = recorded["response"]["body"].clone();
    let described = fixture("azure-devops/openapi/git-services-7.1.trimmed.json");
    let described = keys(&described["definitions"]["GitRepository"]["properties"]);
    let rows = azure(&forge, azure_tokens::GOOD, "_apis/git/repositories?api-version=7.1").await.json();
    assert_eq!(rows["count"], 20);
    let list = rows["value"].as_array().expect("a list");
    assert_eq!(list.len(), 20, "what nobody may read is left out");
    for row in list {
        let mut wanted = keys(&recorded);
        wanted.remove("_links");
        // Lists may leave it out.
        wanted.remove("size");
        let row_keys = keys(row);
        let missing: Vec<_> = wanted.difference(&row_keys).collect();
        assert!(missing.is_empty(), "missing {missing:?}");
        let foreign: Vec<_> =
            row_keys.iter().filter(|key| !wanted.contains(*key) && !described.contains(*key)).collect();
        assert!(foreign.is_empty(), "undocumented {foreign:?}");
        assert_eq!(keys(&row["project"]), keys(&recorded["project"]));
    }
    let id = list[0]["id"].as_str().expect("an id");
    let single = azure(&forge, azure_tokens::GOOD, &format!("_apis/git/repositories/{id}")).await.json();
    assert_eq!(keys(&single["_links"]), keys(&recorded["_links"]));
    let empty = list.iter().filter(|row| row.get("defaultBranch").is_none()).count();
    assert!(empty >= 2, "an empty and a disabled repository have no default branch");
}

#[tokio::test]
async fn subscriptions_have_every_recorded_member_and_a_masked_password() {
    let forge = Forge::small().await.expect("the forge starts");
    let rows = azure(&forge, azure_tokens::GOOD, "_apis/git/repositories?api-version=7.1").await.json();
    let repository = rows["value"][0]["id"].as_str().expect("an id");
    let secret = "a-password-nobody-is-told";
    let mut hook = Hook::new("https://example.com/hook", &["git.push"], Some(secret));
    let project = rows["value"][0]["project"]["id"].as_str().expect("an id");
    hook.more.insert("projectId".to_owned(), project.to_owned());
    forge.hooks("azure-devops").add(repository, hook);
    let path = "_apis/hooks/subscriptions?eventType=git.push&consumerId=webHooks&api-version=7.1";
    let answer = azure(&forge, azure_tokens::GOOD, path).await;
    assert!(!String::from_utf8_lossy(&answer.body).contains(secret));
    let row = &answer.json()["value"][0];
    assert_eq!(keys(row), keys(&fixture("azure-devops/go-scm/hook.json")));
    let documented = fixture("azure-devops/documented/hooks--subscriptions--GET__hooks_subscriptions_.json");
    let masked = &documented["responses"]["200"]["body"]["value"][1]["consumerInputs"]["password"];
    assert_eq!(&row["consumerInputs"]["basicAuthPassword"], masked);
    let other = "_apis/hooks/subscriptions?eventType=git.pullrequest.created&api-version=7.1";
    assert_eq!(azure(&forge, azure_tokens::GOOD, other).await.json()["count"], 0);
}

#[tokio::test]
async fn projects_are_paged_by_a_header_that_the_last_page_lacks() {
    let config = ForgeConfig {
        azure: AzureConfig {
            projects: 230,
            repositories_per_project: 1,
            unreadable: false,
            server_continuation: false,
            ..AzureConfig::default()
        },
        ..ForgeConfig::default()
    };
    let forge = Forge::start(config).await.expect("the forge starts");
    let first = azure(&forge, azure_tokens::GOOD, "_apis/projects").await;
    assert_eq!(
        (&first.json()["count"], first.header("x-ms-continuationtoken")),
        (&Value::from(100), Some("100"))
    );
    let next = azure(&forge, azure_tokens::GOOD, "_apis/projects?continuationToken=100&$top=200").await;
    assert_eq!((&next.json()["count"], next.header("x-ms-continuationtoken")), (&Value::from(130), None));
    let basic = basic(azure_tokens::GOOD);
    let target = "/azure-server/tfs/DefaultCollection/_apis/projects?$skip=200";
    let server = ask(&forge, "GET", target, &[("authorization", &basic)]).await;
    assert_eq!((&server.json()["count"], server.header("x-ms-continuationtoken")), (&Value::from(30), None));
    assert_eq!(server.header("x-vss-userdata"), None, "only Services names the caller in a header");
}

#[tokio::test]
async fn refuses_a_dead_token_with_a_page_unless_told_not_to() {
    let forge = Forge::small().await.expect("the forge starts");
    let refused = azure(&forge, azure_tokens::EXPIRED, "_apis/connectionData").await;
    assert_documented("azure-devops", "unauthorized-json", &refused);
    let dead = basic(azure_tokens::EXPIRED);
    let page = ask(&forge, "GET", "/azure/contoso/_apis/projects", &[("authorization", &dead)]).await;
    let wanted = documented("azure-devops", "sign-in-page");
    assert_eq!(wanted["status"], page.status);
    assert_eq!(wanted["bodyText"].as_str().map(str::as_bytes), Some(page.body.as_slice()));
    let write = ask(&forge, "POST", "/azure/contoso/_apis/projects", &[("authorization", &dead)]).await;
    assert_eq!(write.status, 401);

    let narrow = azure(&forge, azure_tokens::READ_ONLY, "_apis/projects").await;
    assert_documented("azure-devops", "unauthorized-json", &narrow);
    let known = azure(&forge, azure_tokens::READ_ONLY, "_apis/connectionData").await;
    assert_eq!(known.status, 200, "a missing scope is not a dead token");
    assert!(known.header("x-vss-userdata").is_some());
}

#[tokio::test]
async fn organization_with_public_projects_answers_strangers() {
    let config = ForgeConfig {
        azure: AzureConfig { public: true, ..AzureConfig::default() },
        ..ForgeConfig::default()
    };
    let forge = Forge::start(config).await.expect("the forge starts");
    for token in [azure_tokens::UNKNOWN, azure_tokens::EXPIRED] {
        let who = azure(&forge, token, "_apis/connectionData").await;
        assert_eq!(who.status, 200);
        assert_eq!(who.json()["authenticatedUser"]["providerDisplayName"], "Anonymous");
        assert_eq!(who.header("x-vss-userdata"), None);
        let projects = azure(&forge, token, "_apis/projects").await.json();
        assert_eq!(projects["count"], 2, "short, not refused");
    }
}

#[tokio::test]
async fn versions_projects_and_repositories_are_refused_as_seen() {
    let forge = Forge::small().await.expect("the forge starts");
    let key = async |path: &str| {
        let answer = azure(&forge, azure_tokens::GOOD, path).await;
        let key = answer.json()["typeKey"].as_str().unwrap_or_default().to_owned();
        (answer.status, key)
    };
    assert_eq!(key("_apis/projects?api-version=9.0").await, (400, "VssVersionOutOfRangeException".into()));
    assert_eq!(
        key("_apis/connectionData?api-version=7.1").await,
        (400, "VssInvalidPreviewVersionException".into())
    );
    assert_eq!(key("_apis/connectionData?api-version=7.1-preview").await.0, 200);
    assert_eq!(key("Restricted/_apis/git/repositories").await, (403, "AccessCheckException".into()));
    assert_eq!(key("Restricted%20too/_apis/git/repositories").await.0, 404);
    assert_eq!(
        key("Nothing/_apis/git/repositories").await,
        (404, "ProjectDoesNotExistWithNameException".into())
    );
    let disabled = key("Fabrikam%20Fiber/_apis/git/repositories/repo-0000-0001").await;
    assert_eq!(disabled, key("Fabrikam%20Fiber/_apis/git/repositories/nothing").await);
    assert_eq!(disabled, (404, "GitRepositoryNotFoundException".into()));
    assert_eq!(
        key("Fabrikam%20Fibre%20%28old%29/_apis/git/repositories").await.0,
        200,
        "the old name answers"
    );
    assert_eq!(
        key("sg%20test%20with%20many%20%20%20%20%20%20%20%20%20%20%20spaces/_apis/git/repositories").await.0,
        200
    );
    let basic = basic(azure_tokens::GOOD);
    let left_out = ask(&forge, "GET", "/azure-server/tfs/_apis/projects", &[("authorization", &basic)]).await;
    assert!(left_out.json()["message"].as_str().is_some_and(|text| text.starts_with("TF400367")));
    let root = ask(&forge, "GET", "/azure-server/", &[("authorization", &basic)]).await;
    assert_eq!((root.status, root.body.len()), (401, 0));
}
