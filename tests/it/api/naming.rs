//! Names and instances: AC-1 to AC-9.

use gitmoor::proto::v1;
use gitmoor::proto::v1::connection::{Hosting, State};
use prost::Message as _;
use tonic::Code;

use super::fixture::{Side, azure, gitlab, sides, started};
use crate::support::app::{TestApp, connection, refused};
use crate::support::forge::{
    AzureConfig, BitbucketCloudConfig, DataCenterConfig, Forge, ForgeConfig, GiteaConfig, GithubConfig,
    GitlabConfig, azure_tokens, gitlab_tokens,
};

#[tokio::test]
async fn ac_01_a_display_name_is_taken_in_any_letter_case() {
    let forge = Forge::small().await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    let url = forge.gitlab_url();
    let created =
        app.create(connection("gitlab", "Instance", &url, gitlab_tokens::GOOD)).await.expect("created");
    assert_eq!(created.display_name, "Instance");
    for name in ["Instance", "instance", " Instance "] {
        let refused = refused(app.create(connection("gitlab", name, &url, gitlab_tokens::GOOD)).await);
        assert_eq!(refused.reason, "CONNECTION_NAME_TAKEN", "{name:?}");
    }
    assert_eq!(app.list("default").await.len(), 1);
}

#[tokio::test]
async fn ac_02_two_providers_may_have_connections_of_one_name() {
    let forge = Forge::small().await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    app.create(connection("azure-devops", "Instance", &forge.azure_url(), azure_tokens::GOOD))
        .await
        .expect("azure");
    app.create(connection("gitlab", "Instance", &forge.gitlab_url(), gitlab_tokens::GOOD))
        .await
        .expect("gitlab");
    assert_eq!(app.list("default").await.len(), 2);
}

#[tokio::test]
async fn ac_03_two_hosts_of_one_provider_stand_side_by_side() {
    let (first, second) = (Forge::small().await.expect("a forge"), Forge::small().await.expect("a forge"));
    let app = TestApp::new().allow(first.origin()).allow(second.origin()).start().await;
    for (one, two) in sides(&first).iter().zip(&sides(&second)) {
        app.create(one.connection("dev1")).await.expect("the first host");
        app.create(two.connection("dev2")).await.expect("the second host");
        let request = v1::ListConnectionsRequest {
            parent: "tenants/default".into(),
            filter: format!("provider = \"{}\"", one.provider),
            order_by: "display_name".into(),
            ..Default::default()
        };
        let listed = app.connections().list_connections(request).await.expect("a list").into_inner();
        let names: Vec<_> =
            listed.connections.iter().map(|c| (c.display_name.as_str(), c.base_url.as_str())).collect();
        assert_eq!(names, [("dev1", one.url.as_str()), ("dev2", two.url.as_str())]);
    }
}

#[tokio::test]
async fn ac_04_cloud_and_self_hosted_differ_in_the_base_url_alone() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let own = app.create(side.connection("own")).await.expect("self-hosted");
        assert_eq!(own.hosting(), Hosting::SelfHosted);
        let mut cloud = v1::Connection { base_url: String::new(), ..side.asleep("cloud") };
        if side.provider == "azure-devops" {
            cloud.scope =
                Some(v1::connection::Scope { organization: "contoso".into(), ..Default::default() });
        }
        if side.cloud.is_empty() {
            let refusal = refused(app.create(cloud).await);
            let missing = ("connection.base_url".to_owned(), "REQUIRED".to_owned());
            assert_eq!(refusal.violations, [missing], "{}", side.provider);
            continue;
        }
        let cloud = app.create(cloud).await.expect("cloud");
        assert_eq!(cloud.hosting(), Hosting::Cloud);
        assert_eq!(cloud.effective_api_url, side.cloud);
    }
}

#[tokio::test]
async fn ac_05_a_deleted_connection_frees_its_name_and_never_its_id() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let request = || v1::CreateConnectionRequest {
            parent: "tenants/default".into(),
            connection_id: format!("first-{}", side.provider),
            connection: Some(side.connection("Instance")),
            ..Default::default()
        };
        let first = app.create_with(request()).await.expect("created");
        app.delete(&first.name).await.expect("deleted");
        assert_eq!(refused(app.get(&first.name).await).reason, "CONNECTION_NOT_FOUND");
        let again = refused(app.create_with(request()).await);
        assert_eq!((again.code, again.reason.as_str()), (Code::AlreadyExists, "RESOURCE_ID_TAKEN"));
        assert!(again.details.contains(&"ResourceInfo".to_owned()));
        let second = app.create(side.connection("INSTANCE")).await.expect("the name is free");
        assert_ne!(second.name, first.name);
    }
}

#[tokio::test]
async fn ac_06_a_connection_needs_no_repository() {
    let config = ForgeConfig {
        gitlab: GitlabConfig { repositories: 0, strangers: 0, ..GitlabConfig::default() },
        azure: AzureConfig { projects: 0, unreadable: false, ..AzureConfig::default() },
        github: GithubConfig { repositories: 0, ..GithubConfig::default() },
        gitea: GiteaConfig { repositories: 0, strangers: 0, ..GiteaConfig::default() },
        bitbucket_cloud: BitbucketCloudConfig { repositories: 0, ..BitbucketCloudConfig::default() },
        bitbucket_data_center: DataCenterConfig { repositories: 0, ..DataCenterConfig::default() },
        ..ForgeConfig::default()
    };
    let forge = Forge::start(config).await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    for side in sides(&forge) {
        let created = app.create(side.connection("empty")).await.expect("created");
        assert_eq!(created.state(), State::Active, "{created:?}");
        let request = v1::ListRepositoriesRequest { parent: created.name.clone(), ..Default::default() };
        let page = app.repositories_of(request).await.expect("a page");
        assert!(page.repositories.is_empty() && page.next_page_token.is_empty(), "{page:?}");
        assert!(app.stream(&created.name).await.expect("a stream").is_empty());
    }
}

#[tokio::test]
async fn ac_07_a_name_over_64_characters_is_refused_at_create_and_update_alike() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let longest = "\u{e9}".repeat(64);
        let created = app.create(side.asleep(&longest)).await.expect("64 characters fit");
        assert_eq!(created.display_name, longest);
        let longer = format!("{longest}x");
        let at_create = refused(app.create(side.asleep(&longer)).await);
        let renamed = v1::Connection { name: created.name, display_name: longer, ..Default::default() };
        let at_update = refused(app.update(renamed, &["display_name"]).await);
        for refusal in [at_create, at_update] {
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
            assert_eq!(refusal.violations, [("connection.display_name".to_owned(), "TOO_LONG".to_owned())]);
        }
    }
}

#[tokio::test]
async fn ac_08_ports_prefixes_and_single_labels_pass_the_format_rules() {
    let forge = Forge::small().await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).allow("git").start().await;
    for (name, provider, url, api) in [
        (
            "a",
            "gitlab",
            "https://git.corp.example:8443/gitlab/",
            "https://git.corp.example:8443/gitlab/api/v4",
        ),
        ("b", "gitlab", "https://git", "https://git/api/v4"),
        ("c", "gitlab", "https://git.corp.example/api/v4/", "https://git.corp.example/api/v4"),
        ("d", "azure-devops", "https://dev.azure.com/contoso/", "https://dev.azure.com/contoso"),
        ("e", "azure-devops", "https://dev.azure.com/contoso/web/_git/repo", "https://dev.azure.com/contoso"),
    ] {
        let token = if provider == "gitlab" { gitlab_tokens::GOOD } else { azure_tokens::GOOD };
        let asleep = v1::Connection { disabled: true, ..connection(provider, name, url, token) };
        let created = app.create(asleep).await.expect(url);
        assert_eq!(created.base_url, url, "given back as sent");
        assert_eq!(created.effective_api_url, api, "{url}");
    }
}

#[tokio::test]
async fn ac_08_pasted_suffixes_never_break_the_api_url() {
    let (forge, app) = started().await;
    let server = Side { url: forge.azure_server_url(), path: "/azure-server", ..azure(&forge) };
    for (side, suffixes) in [
        (gitlab(&forge), &["/", "/api/v4", "/api/v4/"][..]),
        (azure(&forge), &["/"]),
        (server, &["/", "/Fabrikam%20Fiber", "/Fabrikam%20Fiber/_git/Fabrikam%20Fiber", "/_git/repo"]),
    ] {
        let plain = app.create(side.connection(&side.url)).await.expect("plain");
        for suffix in suffixes {
            let pasted = v1::Connection {
                base_url: format!("{}{suffix}", side.url),
                ..side.connection(&format!("{}{suffix} pasted", side.path))
            };
            let created = app.create(pasted).await.expect(suffix);
            assert_eq!(created.effective_api_url, plain.effective_api_url, "{suffix}");
            assert!(!app.stream(&created.name).await.expect("a stream").is_empty(), "{suffix}");
        }
    }
    for seen in forge.requests() {
        assert!(!seen.path.contains("//"), "{}", seen.path);
    }
}

#[tokio::test]
async fn ac_09_a_listing_tells_what_a_person_needs_and_no_secret() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        app.create(side.connection(side.provider)).await.expect("created");
    }
    let listed = app.list("default").await;
    assert_eq!(listed.len(), sides(&forge).len());
    for (row, side) in listed.iter().zip(sides(&forge)) {
        assert_eq!((row.provider.as_str(), &row.base_url), (side.provider, &side.url));
        assert_eq!(row.hosting(), Hosting::SelfHosted);
        assert!(row.credential.is_none());
        let info = row.credential_info.as_ref().expect("what is known of the credential");
        let kind = match side.provider {
            "bitbucket-cloud" => v1::CredentialKind::EmailApiToken,
            _ => v1::CredentialKind::PersonalAccessToken,
        };
        assert_eq!(info.kind(), kind);
        assert!(!info.fingerprint.is_empty() && info.version == 1);
        assert!(info.obfuscated_token.ends_with(&side.good[side.good.len() - 4..]), "{info:?}");
        let account = info.account.as_ref().expect("an account");
        assert!(!account.id.is_empty() && account.display_name.contains("Casey"), "{account:?}");
        let bytes = row.encode_to_vec();
        assert!(!bytes.windows(side.good.len()).any(|part| part == side.good.as_bytes()));
    }
}
