//! The driver behind the service: what a caller of the RPCs sees of it.

use gitmoor::proto::v1;

use crate::support::app::{TestApp, connection, refused};
use crate::support::forge::{Forge, azure_tokens as tokens};

#[tokio::test]
async fn ac_08_a_pasted_repository_url_becomes_its_organization_and_stays_it() {
    let forge = Forge::small().await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    let pasted = format!("{}/Fabrikam%20Fiber/_git/Fabrikam%20Fiber", forge.azure_url());
    let created =
        app.create(connection("azure-devops", "Pasted", &pasted, tokens::GOOD)).await.expect("created");
    assert_eq!(created.effective_api_url, forge.azure_url());
    assert_eq!(created.base_url, pasted);
    assert_eq!(created.state(), v1::connection::State::Active);
    assert_eq!(app.stream(&created.name).await.expect("rows").len(), 20);

    let shorter =
        v1::Connection { base_url: format!("{}/Fabrikam%20Fiber", forge.azure_url()), ..created.clone() };
    let update = |connection| v1::UpdateConnectionRequest {
        connection: Some(connection),
        update_mask: Some(prost_types::FieldMask { paths: vec!["base_url".into()] }),
        ..Default::default()
    };
    let updated = app.connections().update_connection(update(shorter)).await.expect("the same instance");
    let updated = updated.into_inner();
    assert_eq!(updated.effective_api_url, forge.azure_url());

    let other = v1::Connection { base_url: format!("{}/azure/fabrikam", forge.origin()), ..updated };
    let refused = refused(app.connections().update_connection(update(other)).await);
    assert_eq!(refused.reason, "CREDENTIAL_REQUIRED_FOR_NEW_HOST");
}

#[tokio::test]
async fn ac_10_ac_15_tokens_that_do_less_are_refused_or_degraded() {
    let forge = Forge::small().await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    let url = forge.azure_url();
    for (token, reason) in [
        (tokens::EXPIRED, "CREDENTIAL_REJECTED"),
        (tokens::UNKNOWN, "CREDENTIAL_REJECTED"),
        (tokens::NO_CODE, "CREDENTIAL_SCOPE_MISSING"),
    ] {
        let refused = refused(app.create(connection("azure-devops", "Refused", &url, token)).await);
        assert_eq!(refused.reason, reason);
    }
    assert!(app.list("default").await.is_empty());
    let created =
        app.create(connection("azure-devops", "Code", &url, tokens::READ_ONLY)).await.expect("created");
    assert_eq!(created.state(), v1::connection::State::Degraded);
    let info = created.credential_info.expect("what is known of the token");
    assert_eq!(info.missing_scopes, ["vso.project"]);
    assert_eq!(app.stream(&created.name).await.expect("rows").len(), 20);
}
