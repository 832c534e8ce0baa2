//! The driver behind the service: what a caller of the RPCs sees of it.

use gitmoor::proto::v1;
use gitmoor::proto::v1::connection::{Scope, State};
use tonic::Code;

use crate::support::app::{Running, TestApp, connection, refused};
use crate::support::forge::{BitbucketCloudConfig, Forge, ForgeConfig, bitbucket_cloud_tokens as tokens};

async fn started() -> (Forge, Running) {
    let forge = Forge::small().await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    (forge, app)
}

fn with(forge: &Forge, display_name: &str, kind: v1::credential::Kind) -> v1::Connection {
    let credential = v1::Credential { kind: Some(kind), declared_expire_time: None };
    let made = connection("bitbucket-cloud", display_name, &forge.bitbucket_cloud_url(), "");
    v1::Connection { credential: Some(credential), ..made }
}

fn api_token(token: &str) -> v1::credential::Kind {
    let email = tokens::EMAIL.to_owned();
    v1::credential::Kind::EmailApiToken(v1::EmailApiToken { email, token: token.to_owned() })
}

fn access_token(kind: v1::resource_token::ResourceType, resource: &str, token: &str) -> v1::credential::Kind {
    v1::credential::Kind::ResourceToken(v1::ResourceToken {
        token: token.to_owned(),
        resource_type: kind as i32,
        resource: resource.to_owned(),
    })
}

#[tokio::test]
async fn ac_13_what_goes_with_a_token_is_asked_for_before_anybody_is_called() {
    let (forge, app) = started().await;
    let personal = connection("bitbucket-cloud", "Old", &forge.bitbucket_cloud_url(), tokens::APP_PASSWORD);
    let refusal = refused(app.create(personal).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
    assert!(format!("{refusal:?}").contains("app passwords were removed"), "{refusal:?}");
    for kind in [
        v1::credential::Kind::EmailApiToken(v1::EmailApiToken {
            email: String::new(),
            token: tokens::GOOD.to_owned(),
        }),
        access_token(v1::resource_token::ResourceType::Repository, "", tokens::REPOSITORY),
        access_token(v1::resource_token::ResourceType::Repository, "website", tokens::REPOSITORY),
    ] {
        let refusal = refused(app.create(with(&forge, "Incomplete", kind)).await);
        assert_eq!(refusal.reason, "INVALID_FIELDS", "{refusal:?}");
    }
    assert!(forge.requests().is_empty());
    assert!(app.list("default").await.is_empty());
}

#[tokio::test]
async fn ac_60_a_repository_token_lists_that_one_repository() {
    let (forge, app) = started().await;
    let kind = access_token(v1::resource_token::ResourceType::Repository, "acme/website", tokens::REPOSITORY);
    let made = app.create(with(&forge, "One", kind)).await.expect("created");
    assert_eq!(made.state(), State::Active, "{:?}", made.conditions);
    let info = made.credential_info.expect("what is known");
    assert!(info.account.is_none());
    assert!(info.obfuscated_token.starts_with("ATCTT3****"), "{}", info.obfuscated_token);
    let rows = app.stream(&made.name).await.expect("rows");
    assert_eq!(rows.len(), 1);
    assert!(rows[0].name.contains("/repositories/{"), "{}", rows[0].name);
    let request = v1::GetRepositoryRequest { name: rows[0].name.clone() };
    let found = app.repositories().get_repository(request).await.expect("found").into_inner();
    assert_eq!(found.full_name, "acme/website");
}

#[tokio::test]
async fn workspaces_limit_a_connection_and_can_be_changed() {
    let (forge, app) = started().await;
    let scope = |names: &[&str]| Scope {
        workspaces: names.iter().map(|&name| name.to_owned()).collect(),
        ..Scope::default()
    };
    let wanted = with(&forge, "Limited", api_token(tokens::GOOD));
    let wrong = v1::Connection { scope: Some(scope(&["nowhere"])), ..wanted.clone() };
    let refusal = refused(app.create(wrong).await);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::FailedPrecondition, "REPOSITORY_NOT_ACCESSIBLE")
    );
    let made = app.create(v1::Connection { scope: Some(scope(&["acme"])), ..wanted }).await.expect("created");
    assert_eq!(app.stream(&made.name).await.expect("rows").len(), 9);
    let update = |names: &[&str], made: v1::Connection| v1::UpdateConnectionRequest {
        connection: Some(v1::Connection { scope: Some(scope(names)), ..made }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["scope.workspaces".into()] }),
        ..Default::default()
    };
    let refusal = refused(app.connections().update_connection(update(&["nowhere"], made.clone())).await);
    assert_eq!(refusal.reason, "REPOSITORY_NOT_ACCESSIBLE");
    let wider = update(&["acme", "casey"], made.clone());
    let updated = app.connections().update_connection(wider).await.expect("updated").into_inner();
    assert_eq!(updated.scope.expect("a scope").workspaces, ["acme", "casey"]);
    assert_eq!(app.stream(&made.name).await.expect("rows").len(), 17);
}

#[tokio::test]
async fn an_instance_is_the_same_whatever_was_pasted() {
    let (forge, app) = started().await;
    let made = app.create(with(&forge, "Gateway", api_token(tokens::GOOD))).await.expect("created");
    assert_eq!(made.effective_api_url, format!("{}/2.0", forge.bitbucket_cloud_url()));
    let longer = v1::Connection {
        base_url: format!("{}/2.0/", forge.bitbucket_cloud_url()),
        ..with(&forge, "Gateway too", api_token(tokens::GOOD))
    };
    let longer = app.create(longer).await.expect("created");
    assert_eq!(longer.effective_api_url, made.effective_api_url);
}

#[tokio::test]
async fn closed_workspaces_are_warnings_of_the_listing() {
    let bitbucket_cloud = BitbucketCloudConfig { closed: true, ..BitbucketCloudConfig::default() };
    let forge =
        Forge::start(ForgeConfig { bitbucket_cloud, ..ForgeConfig::default() }).await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    let made = app.create(with(&forge, "Closed", api_token(tokens::GOOD))).await.expect("created");
    let request = v1::ListRepositoriesRequest { parent: made.name, page_size: 100, ..Default::default() };
    let listed = app.repositories().list_repositories(request).await.expect("a page").into_inner();
    assert_eq!(listed.repositories.len(), 25);
    assert_eq!(listed.warnings[0].reason, "WORKSPACE_NOT_READABLE");
}
