//! How the fakes let git in: each as its provider's documentation says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::ask;
use crate::support::forge::{
    DataCenterConfig, Forge, ForgeConfig, azure_tokens, bitbucket_cloud_tokens, data_center_tokens,
    gitea_tokens, github_tokens, gitlab_tokens,
};

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn each_provider_lets_git_in_in_its_own_way() {
    let with_basic = ForgeConfig {
        bitbucket_data_center: DataCenterConfig { basic: true, ..Default::default() },
        ..ForgeConfig::default()
    };
    let (forge, modern) =
        (Forge::start(with_basic).await.expect("a forge"), Forge::small().await.expect("a forge"));
    let gitlab = |user, token| ("/gitlab/acme/website.git", basic(user, token));
    let github = |user, token| ("/github/acme/website.git", basic(user, token));
    let gitea = |user, token| ("/gitea/acme/website.git", basic(user, token));
    let bitbucket = |user, token| ("/bitbucket-cloud/acme/website.git", basic(user, token));
    let server = |user: &str, token: &str| ("/bitbucket/scm/web/acme-website.git", basic(user, token));
    let bearer = |token: &str| ("/bitbucket/scm/web/acme-website.git", format!("Bearer {token}"));
    for ((path, authorization), status) in [
        (gitlab("oauth2", gitlab_tokens::GOOD), 200),
        (gitlab("anybody", gitlab_tokens::PROJECT), 200),
        (gitlab("", gitlab_tokens::GOOD), 401),
        (gitlab("oauth2", gitlab_tokens::REVOKED), 401),
        (gitlab(gitlab_tokens::GOOD, ""), 401),
        (github("x-access-token", github_tokens::GOOD), 200),
        (github("", github_tokens::GOOD), 401),
        (github("x-access-token", github_tokens::EXPIRED), 401),
        (gitea("casey", gitea_tokens::GOOD), 200),
        (gitea(gitea_tokens::GOOD, ""), 200),
        (gitea("casey", gitea_tokens::UNKNOWN), 401),
        (gitea("casey", gitea_tokens::USER_ONLY), 403),
        (bitbucket("x-bitbucket-api-token-auth", bitbucket_cloud_tokens::GOOD), 200),
        (bitbucket("casey", bitbucket_cloud_tokens::GOOD), 200),
        (bitbucket("x-token-auth", bitbucket_cloud_tokens::WORKSPACE), 200),
        (bitbucket(bitbucket_cloud_tokens::EMAIL, bitbucket_cloud_tokens::GOOD), 401),
        (bitbucket("x-token-auth", bitbucket_cloud_tokens::GOOD), 401),
        (server("casey", data_center_tokens::GOOD), 200),
        (server("robin", data_center_tokens::GOOD), 401),
        (server("x-token-auth", data_center_tokens::PROJECT), 401),
        (bearer(data_center_tokens::PROJECT), 200),
        (bearer(data_center_tokens::GOOD), 200),
    ] {
        let target = format!("{path}/info/refs?service=git-upload-pack");
        let answer = ask(&forge, "GET", &target, &[("authorization", &authorization)]).await;
        assert_eq!(answer.status, status, "{path} {authorization}: {}", answer.head);
        if status == 200 {
            let kind = answer.header("content-type");
            assert_eq!(kind, Some("application/x-git-upload-pack-advertisement"), "{path}");
        }
        let stranger = ask(&forge, "GET", &target, &[]).await;
        assert_eq!(stranger.status, 401, "{path}");
        assert!(stranger.header("www-authenticate").is_some_and(|way| way.starts_with("Basic ")), "{path}");
    }
    // As version 10 comes.
    let (path, authorization) = server("casey", data_center_tokens::GOOD);
    let target = format!("{path}/info/refs?service=git-upload-pack");
    let answer = ask(&modern, "GET", &target, &[("authorization", &authorization)]).await;
    assert_eq!(answer.status, 403, "{}", answer.head);
    let (_, authorization) = bearer(data_center_tokens::GOOD);
    assert_eq!(ask(&modern, "GET", &target, &[("authorization", &authorization)]).await.status, 200);
}

#[tokio::test]
async fn an_organization_of_azure_lets_any_user_in() {
    let forge = Forge::small().await.expect("a forge");
    let list = "/azure/contoso/_apis/git/repositories?api-version=7.1";
    let authorization = basic("", azure_tokens::GOOD);
    let rows = ask(&forge, "GET", list, &[("authorization", &authorization)]).await.json();
    let url = rows["value"][0]["remoteUrl"].as_str().expect("a clone URL").to_owned();
    let (_, path) = url.split_once("/azure/").expect("a path");
    let target = format!("/azure/{path}/info/refs?service=git-upload-pack");
    for (user, token, status) in [
        ("git", azure_tokens::GOOD, 200),
        ("", azure_tokens::GOOD, 200),
        ("git", azure_tokens::REVOKED, 401),
        ("git", azure_tokens::NO_CODE, 401),
    ] {
        let answer = ask(&forge, "GET", &target, &[("authorization", &basic(user, token))]).await;
        assert_eq!(answer.status, status, "{user}: {}", answer.head);
    }
}
