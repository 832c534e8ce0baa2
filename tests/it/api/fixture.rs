//! What the tests of the surface share: the providers as a table, the calls in short form, reports.

use gitmoor::domain::connection::TenantId;
use gitmoor::domain::event::Event;
use gitmoor::proto::v1;
use gitmoor::proto::v1::check_result::Check;
use gitmoor::provider::Providers;
use tonic::{Response, Status};

use crate::support::app::{Running, TestApp, connection, pat};
use crate::support::forge::{
    DataCenterTokenState, Forge, GiteaTokenState, GithubTokenState, TokenState, azure_tokens,
    bitbucket_cloud_tokens, data_center_tokens, gitea_tokens, github_tokens, gitlab_tokens,
};

/// One provider of a forge, for rules that hold for all.
pub(super) struct Side {
    pub(super) provider: &'static str,
    /// What a person would paste.
    pub(super) url: String,
    /// Where its paths begin at the forge.
    pub(super) path: &'static str,
    pub(super) good: &'static str,
    /// Good, of another account.
    pub(super) second: &'static str,
    pub(super) unknown: &'static str,
    /// The API of the provider's own cloud; empty if it has none.
    pub(super) cloud: &'static str,
    /// Gives the token `good` to another person.
    pub(super) hand_over: fn(&Forge),
    /// Has the token `good` refused from now on.
    pub(super) revoke: fn(&Forge),
    /// Has it accepted again.
    pub(super) revive: fn(&Forge),
}

impl Side {
    /// A connection of this provider with its good token.
    pub(super) fn connection(&self, display_name: &str) -> v1::Connection {
        self.with_token(display_name, self.good)
    }

    /// The same with another token.
    pub(super) fn with_token(&self, display_name: &str, token: &str) -> v1::Connection {
        v1::Connection {
            credential: Some(self.credential(token)),
            ..connection(self.provider, display_name, &self.url, token)
        }
    }

    /// A credential of the kind that the tokens are.
    pub(super) fn credential(&self, token: &str) -> v1::Credential {
        if self.provider != "bitbucket-cloud" {
            return pat(token);
        }
        let second = token == self.second;
        let email = if second { bitbucket_cloud_tokens::SECOND_EMAIL } else { bitbucket_cloud_tokens::EMAIL };
        let kind = v1::credential::Kind::EmailApiToken(v1::EmailApiToken {
            email: email.to_owned(),
            token: token.to_owned(),
        });
        v1::Credential { kind: Some(kind), declared_expire_time: None }
    }

    /// The field of a token in a credential of that kind.
    pub(super) fn token_field(&self) -> String {
        let kind =
            if self.provider == "bitbucket-cloud" { "email_api_token" } else { "personal_access_token" };
        format!("credential.{kind}.token")
    }

    /// A connection that is stored without a call to the provider.
    pub(super) fn asleep(&self, display_name: &str) -> v1::Connection {
        let mut connection = self.connection(display_name);
        if self.provider == "github" {
            // Its server has no context path, so nothing but a call could tell that the forge has one.
            connection.base_url.push_str("/api/v3");
        }
        v1::Connection { disabled: true, ..connection }
    }
}

pub(super) fn gitlab(forge: &Forge) -> Side {
    Side {
        provider: "gitlab",
        url: forge.gitlab_url(),
        path: "/gitlab",
        good: gitlab_tokens::GOOD,
        second: gitlab_tokens::SECOND,
        unknown: gitlab_tokens::UNKNOWN,
        cloud: "https://gitlab.com/api/v4",
        hand_over: |forge| {
            forge.edit_gitlab_token(gitlab_tokens::GOOD, |token| {
                token.user_id = 99_001;
                token.username = "eve".into();
            });
        },
        revoke: |forge| {
            forge.edit_gitlab_token(gitlab_tokens::GOOD, |token| token.state = TokenState::Revoked);
        },
        revive: |forge| {
            forge.edit_gitlab_token(gitlab_tokens::GOOD, |token| token.state = TokenState::Active);
        },
    }
}

pub(super) fn azure(forge: &Forge) -> Side {
    Side {
        provider: "azure-devops",
        url: forge.azure_url(),
        path: "/azure",
        good: azure_tokens::GOOD,
        second: azure_tokens::SECOND,
        unknown: azure_tokens::UNKNOWN,
        cloud: "https://dev.azure.com/contoso",
        hand_over: |forge| {
            forge.edit_azure_token(azure_tokens::GOOD, |token| {
                token.user_id = "99999999-3d03-4147-8106-0b0a7f766a92".into();
                token.account = "eve@forge.example".into();
            });
        },
        revoke: |forge| forge.edit_azure_token(azure_tokens::GOOD, |token| token.alive = false),
        revive: |forge| forge.edit_azure_token(azure_tokens::GOOD, |token| token.alive = true),
    }
}

fn github(forge: &Forge) -> Side {
    Side {
        provider: "github",
        url: forge.github_url(),
        path: "/github",
        good: github_tokens::GOOD,
        second: github_tokens::SECOND,
        unknown: github_tokens::UNKNOWN,
        cloud: "https://api.github.com",
        hand_over: |forge| {
            forge.edit_github_token(github_tokens::GOOD, |token| {
                token.user_id = 99_001;
                token.login = "eve".into();
            });
        },
        revoke: |forge| {
            forge.edit_github_token(github_tokens::GOOD, |token| token.state = GithubTokenState::Dead);
        },
        revive: |forge| {
            forge.edit_github_token(github_tokens::GOOD, |token| token.state = GithubTokenState::Active);
        },
    }
}

fn gitea(forge: &Forge) -> Side {
    Side {
        provider: "gitea",
        url: forge.gitea_url(),
        path: "/gitea",
        good: gitea_tokens::GOOD,
        second: gitea_tokens::SECOND,
        unknown: gitea_tokens::UNKNOWN,
        cloud: "",
        hand_over: |forge| {
            forge.edit_gitea_token(gitea_tokens::GOOD, |token| {
                token.user_id = 99_001;
                token.login = "eve".into();
            });
        },
        revoke: |forge| {
            forge.edit_gitea_token(gitea_tokens::GOOD, |token| token.state = GiteaTokenState::Deleted);
        },
        revive: |forge| {
            forge.edit_gitea_token(gitea_tokens::GOOD, |token| token.state = GiteaTokenState::Active);
        },
    }
}

fn bitbucket_cloud(forge: &Forge) -> Side {
    Side {
        provider: "bitbucket-cloud",
        url: forge.bitbucket_cloud_url(),
        path: "/bitbucket-cloud",
        good: bitbucket_cloud_tokens::GOOD,
        second: bitbucket_cloud_tokens::SECOND,
        unknown: bitbucket_cloud_tokens::UNKNOWN,
        cloud: "https://api.bitbucket.org/2.0",
        hand_over: |forge| {
            forge.edit_bitbucket_cloud_token(bitbucket_cloud_tokens::GOOD, |token| {
                token.uuid = "{99999999-9a2c-4d2f-8f0e-57658c0ffee0}".into();
                token.username = "eve".into();
            });
        },
        revoke: |forge| {
            forge.edit_bitbucket_cloud_token(bitbucket_cloud_tokens::GOOD, |token| token.alive = false);
        },
        revive: |forge| {
            forge.edit_bitbucket_cloud_token(bitbucket_cloud_tokens::GOOD, |token| token.alive = true);
        },
    }
}

fn bitbucket_data_center(forge: &Forge) -> Side {
    Side {
        provider: "bitbucket-data-center",
        url: forge.bitbucket_data_center_url(),
        path: "/bitbucket/",
        good: data_center_tokens::GOOD,
        second: data_center_tokens::SECOND,
        unknown: data_center_tokens::UNKNOWN,
        cloud: "",
        hand_over: |forge| {
            forge.edit_data_center_token(data_center_tokens::GOOD, |token| {
                token.user_id = 99_001;
                token.user = "eve".into();
            });
        },
        revoke: |forge| {
            forge.edit_data_center_token(data_center_tokens::GOOD, |token| {
                token.state = DataCenterTokenState::Dead;
            });
        },
        revive: |forge| {
            forge.edit_data_center_token(data_center_tokens::GOOD, |token| {
                token.state = DataCenterTokenState::Active;
            });
        },
    }
}

/// All providers.
pub(super) fn sides(forge: &Forge) -> Vec<Side> {
    let sides = vec![
        gitlab(forge),
        azure(forge),
        github(forge),
        gitea(forge),
        bitbucket_cloud(forge),
        bitbucket_data_center(forge),
    ];
    assert_eq!(sides.len(), Providers::builtin().iter().count(), "a provider without a side");
    sides
}

/// Request ids: more than there are providers.
pub(super) fn request_ids() -> impl Iterator<Item = String> {
    (0..).map(|number: u32| format!("01234567-89ab-4def-8123-{number:012x}"))
}

/// A target that [`started`] admits.
pub(super) const TARGET: &str = "https://hooks.platform.example/git";

/// A small forge and a service that may reach it.
pub(super) async fn started() -> (Forge, Running) {
    let forge = Forge::small().await.expect("a forge");
    let app =
        TestApp::new().allow(forge.origin()).allow_target("https://hooks.platform.example").start().await;
    (forge, app)
}

/// The calls, with their answers unwrapped from their envelopes.
impl Running {
    pub(super) async fn create_with(
        &self,
        request: v1::CreateConnectionRequest,
    ) -> Result<v1::Connection, Status> {
        self.connections().create_connection(request).await.map(Response::into_inner)
    }

    /// An update of the fields that `paths` name; all populated ones if it is empty.
    pub(super) async fn update(
        &self,
        connection: v1::Connection,
        paths: &[&str],
    ) -> Result<v1::Connection, Status> {
        self.update_with(update(connection, paths)).await
    }

    pub(super) async fn update_with(
        &self,
        request: v1::UpdateConnectionRequest,
    ) -> Result<v1::Connection, Status> {
        self.connections().update_connection(request).await.map(Response::into_inner)
    }

    pub(super) async fn replace(
        &self,
        request: v1::ReplaceCredentialRequest,
    ) -> Result<v1::ReplaceCredentialResponse, Status> {
        self.connections().replace_credential(request).await.map(Response::into_inner)
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), Status> {
        let request = v1::DeleteConnectionRequest { name: name.to_owned(), ..Default::default() };
        self.connections().delete_connection(request).await.map(Response::into_inner)
    }

    /// Verifies a stored connection.
    pub(super) async fn verify(&self, name: &str) -> Result<v1::VerifyConnectionResponse, Status> {
        let request = v1::VerifyConnectionRequest { name: name.to_owned(), ..Default::default() };
        self.connections().verify_connection(request).await.map(Response::into_inner)
    }

    /// Verifies a whole connection that is not stored.
    pub(super) async fn verify_draft(
        &self,
        connection: v1::Connection,
    ) -> Result<v1::VerifyConnectionResponse, Status> {
        let request = v1::VerifyConnectionRequest {
            parent: "tenants/default".to_owned(),
            connection: Some(connection),
            ..Default::default()
        };
        self.connections().verify_connection(request).await.map(Response::into_inner)
    }

    pub(super) async fn repositories_of(
        &self,
        request: v1::ListRepositoriesRequest,
    ) -> Result<v1::ListRepositoriesResponse, Status> {
        self.repositories().list_repositories(request).await.map(Response::into_inner)
    }

    pub(super) async fn repository(&self, name: &str) -> Result<v1::Repository, Status> {
        let request = v1::GetRepositoryRequest { name: name.to_owned() };
        self.repositories().get_repository(request).await.map(Response::into_inner)
    }

    pub(super) async fn lookup(
        &self,
        parent: &str,
        selector: v1::lookup_repository_request::Selector,
    ) -> Result<v1::Repository, Status> {
        let request = v1::LookupRepositoryRequest { parent: parent.to_owned(), selector: Some(selector) };
        self.repositories().lookup_repository(request).await.map(Response::into_inner)
    }

    pub(super) async fn link_with(
        &self,
        request: v1::CreateRepositoryLinkRequest,
    ) -> Result<v1::RepositoryLink, Status> {
        self.repositories().create_repository_link(request).await.map(Response::into_inner)
    }

    /// Links a repository that was found through a connection.
    pub(super) async fn link(&self, repository: &v1::Repository) -> Result<v1::RepositoryLink, Status> {
        self.link_with(link(repository)).await
    }

    pub(super) async fn link_batch(
        &self,
        request: v1::BatchCreateRepositoryLinksRequest,
    ) -> Result<Vec<v1::RepositoryLink>, Status> {
        let answer = self.repositories().batch_create_repository_links(request).await?;
        Ok(answer.into_inner().repository_links)
    }

    pub(super) async fn get_link(&self, name: &str) -> Result<v1::RepositoryLink, Status> {
        let request = v1::GetRepositoryLinkRequest { name: name.to_owned() };
        self.repositories().get_repository_link(request).await.map(Response::into_inner)
    }

    /// An update of the fields that `paths` name; all populated ones if it is empty.
    pub(super) async fn update_link(
        &self,
        link: v1::RepositoryLink,
        paths: &[&str],
    ) -> Result<v1::RepositoryLink, Status> {
        self.update_link_with(update_link(link, paths)).await
    }

    pub(super) async fn update_link_with(
        &self,
        request: v1::UpdateRepositoryLinkRequest,
    ) -> Result<v1::RepositoryLink, Status> {
        self.repositories().update_repository_link(request).await.map(Response::into_inner)
    }

    /// The links of a tenant that a filter lets through, one page.
    pub(super) async fn links(&self, tenant: &str, filter: &str) -> Vec<v1::RepositoryLink> {
        let request = v1::ListRepositoryLinksRequest {
            parent: format!("tenants/{tenant}"),
            filter: filter.to_owned(),
            page_size: 500,
            ..Default::default()
        };
        self.repositories()
            .list_repository_links(request)
            .await
            .expect("a page")
            .into_inner()
            .repository_links
    }

    pub(super) async fn unlink(&self, name: &str) -> Result<(), Status> {
        let request = v1::DeleteRepositoryLinkRequest { name: name.to_owned(), ..Default::default() };
        self.repositories().delete_repository_link(request).await.map(Response::into_inner)
    }

    /// A connection and the first `count` repositories that it shows.
    pub(super) async fn with_repositories(
        &self,
        side: &Side,
        display_name: &str,
        count: usize,
    ) -> (v1::Connection, Vec<v1::Repository>) {
        let connection = self.create(side.connection(display_name)).await.expect("created");
        let mut rows = self.stream(&connection.name).await.expect("a stream");
        assert!(rows.len() >= count, "{} shows {} repositories", side.provider, rows.len());
        rows.truncate(count);
        (connection, rows)
    }

    /// The audit trail of a tenant.
    pub(super) async fn events(&self, tenant: &str) -> Vec<Event> {
        let tenant = TenantId::parse(tenant).expect("a tenant");
        let rows = self.store.events(&tenant, None, 0, 10_000).await.expect("events");
        rows.into_iter().map(|row| row.expect("readable").event).collect()
    }

    /// Asserts that the tenant `default` has nothing: no connection and no event.
    pub(super) async fn assert_nothing_stored(&self, why: &str) {
        assert!(self.list("default").await.is_empty(), "{why}: a connection was stored");
        assert!(self.events("default").await.is_empty(), "{why}: an event was stored");
    }
}

/// The request that links a repository as it was found.
pub(super) fn link(repository: &v1::Repository) -> v1::CreateRepositoryLinkRequest {
    let mut parts = repository.name.split('/');
    let tenant = parts.by_ref().take(2).collect::<Vec<_>>().join("/");
    let (connection, _) = repository.name.split_once("/repositories/").expect("a name");
    v1::CreateRepositoryLinkRequest {
        parent: tenant,
        repository_link: Some(v1::RepositoryLink { connection: connection.into(), ..Default::default() }),
        selector: Some(v1::create_repository_link_request::Selector::Repository(repository.name.clone())),
        ..Default::default()
    }
}

pub(super) fn update(connection: v1::Connection, paths: &[&str]) -> v1::UpdateConnectionRequest {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    v1::UpdateConnectionRequest {
        connection: Some(connection),
        update_mask: (!paths.is_empty()).then_some(prost_types::FieldMask { paths }),
        ..Default::default()
    }
}

pub(super) fn update_link(link: v1::RepositoryLink, paths: &[&str]) -> v1::UpdateRepositoryLinkRequest {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    v1::UpdateRepositoryLinkRequest {
        repository_link: Some(link),
        update_mask: (!paths.is_empty()).then_some(prost_types::FieldMask { paths }),
        ..Default::default()
    }
}

/// All rows of a connection that a filter lets through, page by page.
pub(super) async fn all_pages(
    app: &Running,
    mut request: v1::ListRepositoriesRequest,
) -> (Vec<v1::Repository>, Vec<v1::RepositoryWarning>) {
    let (mut rows, mut warnings) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        let page = app.repositories_of(request.clone()).await.expect("a page");
        rows.extend(page.repositories);
        warnings.extend(page.warnings);
        if page.next_page_token.is_empty() {
            return (rows, warnings);
        }
        request.page_token = page.next_page_token;
    }
    panic!("the listing has no end");
}

/// The result of one check.
pub(super) fn check(report: &v1::VerificationReport, which: Check) -> &v1::CheckResult {
    report.checks.iter().find(|result| result.check() == which).expect("every check is reported")
}

/// Asserts that `which` is the step that fails: with a remedy, and with everything behind it skipped.
pub(super) fn assert_fails_at(report: &v1::VerificationReport, which: Check, reasons: &[&str]) {
    assert_eq!(report.result(), v1::Outcome::Fail, "{report:?}");
    assert_eq!(report.checks.len(), 11, "{report:?}");
    let failing = check(report, which);
    assert_eq!(failing.outcome(), v1::Outcome::Fail, "{report:?}");
    assert!(reasons.contains(&failing.reason.as_str()), "{failing:?}");
    assert!(!failing.remedy.is_empty() && !failing.message.is_empty(), "{failing:?}");
    for result in &report.checks {
        let behind = result.check > which as i32 && result.check() != Check::Clock;
        if behind {
            assert_eq!(result.outcome(), v1::Outcome::Skipped, "{result:?}");
        } else if result.check < which as i32 {
            assert_ne!(result.outcome(), v1::Outcome::Fail, "{result:?}");
        }
    }
}
