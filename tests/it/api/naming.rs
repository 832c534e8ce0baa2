//! Names and instances: AC-1 to AC-9.

use crate::support::app::{TestApp, connection, refused};
use crate::support::forge::{Forge, azure_tokens, gitlab_tokens};

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
