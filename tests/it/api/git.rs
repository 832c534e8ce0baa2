//! Which connection reaches a clone URL, and what git is given for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gitmoor::clock::Clock as _;
use gitmoor::domain::connection::{ConnectionId, Revision, TenantId};
use gitmoor::domain::event::EventType;
use gitmoor::domain::link::{Link, LinkId, LinkName, LinkRecord, LinkState, WebhookMode};
use gitmoor::domain::repository::{Permission, Repository, Visibility};
use gitmoor::proto::v1;
use gitmoor::proto::v1::connection_candidate::Match;
use gitmoor::proto::v1::generate_git_credential_response::AuthScheme;
use gitmoor::store::Change;
use tonic::{Code, Response, Status};

use super::fixture::{Side, gitlab, sides, started, update};
use crate::support::app::{Running, TestApp, connection, pat, refused};
use crate::support::forge::{
    AzureConfig, DataCenterConfig, Fault, Forge, ForgeConfig, GitlabConfig, gitlab_tokens,
};

impl Running {
    async fn find(&self, clone_url: &str) -> Result<Vec<v1::ConnectionCandidate>, Status> {
        let request = v1::FindConnectionsRequest {
            parent: "tenants/default".to_owned(),
            clone_url: clone_url.to_owned(),
        };
        let found = self.repositories().find_connections(request).await?;
        Ok(found.into_inner().candidates)
    }

    async fn git_credential(&self, name: &str) -> Result<v1::GenerateGitCredentialResponse, Status> {
        let request = v1::GenerateGitCredentialRequest { name: name.to_owned() };
        self.repositories().generate_git_credential(request).await.map(Response::into_inner)
    }

    /// Events of credentials that were given out.
    async fn issued(&self) -> Vec<gitmoor::domain::event::Event> {
        let mut events = self.events("default").await;
        events.retain(|event| event.event_type == EventType::GitCredentialIssued);
        events
    }

    /// Puts a link into the store as it would be after it was seen in that state.
    async fn put_link(&self, id: &str, connection: &v1::Connection, row: &v1::Repository, state: LinkState) {
        let now = self.clock.now();
        let born = if state == LinkState::Unlinking { LinkState::Linked } else { state };
        let mut record = LinkRecord {
            link: Link {
                name: link_name(id),
                uid: format!("uid-{id}"),
                connection: ConnectionId::parse(id_of(&connection.name)).expect("an id"),
                provider: gitmoor::domain::connection::ProviderId::new(connection.provider.clone()),
                instance: connection.effective_api_url.clone(),
                repository: snapshot(row),
                webhook_mode: WebhookMode::None,
                webhook_events: BTreeSet::new(),
                webhook_target_url: String::new(),
                state: born,
                conditions: Vec::new(),
                connection_history: Vec::new(),
                previous_full_names: vec!["acme/named-before".to_owned()],
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                create_time: now,
                update_time: now,
                generation: 1,
            },
            due: Some(now.saturating_add(Duration::from_secs(3_600))),
            attempts: 0,
            revision: Revision(1),
        };
        let mut changes = vec![Change::InsertLink(Box::new(record.clone()))];
        if state == LinkState::Unlinking {
            record.link.state = state;
            (record.due, record.revision) = (None, Revision(2));
            changes.push(Change::ReplaceLink { record: Box::new(record), expected: Revision(1) });
        }
        self.store.commit(changes).await.expect("stored");
    }
}

fn id_of(name: &str) -> &str {
    name.rsplit('/').next().expect("an id")
}

fn link_name(id: &str) -> LinkName {
    LinkName { tenant: TenantId::parse("default").expect("a tenant"), id: LinkId::parse(id).expect("an id") }
}

fn snapshot(row: &v1::Repository) -> Repository {
    Repository {
        provider_id: row.provider_id.clone(),
        full_name: row.full_name.clone(),
        namespace: row.namespace.clone(),
        display_name: row.display_name.clone(),
        description: String::new(),
        default_branch: None,
        clone_https_url: row.clone_https_url.clone(),
        clone_ssh_url: row.clone_ssh_url.clone(),
        web_url: String::new(),
        visibility: Visibility::Private,
        archived: None,
        disabled: false,
        fork: None,
        size_kib: None,
        foreign_clone_host: false,
        update_time: None,
        permission: Permission::Read,
    }
}

/// A connection of the side and one of its repositories.
async fn connected(app: &Running, side: &Side) -> (v1::Connection, v1::Repository) {
    let created = app.create(side.connection(side.provider)).await.expect("created");
    let rows = app.stream(&created.name).await.expect("rows");
    let row = rows.into_iter().find(|row| !row.disabled);
    (created, row.expect("a repository"))
}

fn of(found: &[v1::ConnectionCandidate]) -> Vec<(&str, Match)> {
    found.iter().map(|candidate| (id_of(&candidate.connection), candidate.r#match())).collect()
}

#[tokio::test]
async fn git_gets_user_password_and_clone_url_of_each_provider_and_the_trail_tells() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (created, row) = connected(&app, &side).await;
        let before = app.issued().await.len();
        let answer = app.git_credential(&row.name).await.expect(side.provider);
        assert_eq!(answer.password, side.good, "{}", side.provider);
        let login = match side.provider {
            "azure-devops" => ("git", AuthScheme::Basic),
            "bitbucket-cloud" => ("x-bitbucket-api-token-auth", AuthScheme::Basic),
            // Newer servers refuse Basic; older ones, and older versions of git, want the user's own name.
            "bitbucket-data-center" => ("casey", AuthScheme::Bearer),
            "gitea" => ("casey", AuthScheme::Basic),
            "github" => ("x-access-token", AuthScheme::Basic),
            "gitlab" => ("oauth2", AuthScheme::Basic),
            other => panic!("{other} has no row"),
        };
        assert_eq!((answer.username.as_str(), answer.auth_scheme()), login, "{}", side.provider);
        assert_eq!(answer.clone_url, row.clone_https_url, "{}", side.provider);
        assert!(answer.clone_url.starts_with(&format!("{}/", forge.origin())), "{}", answer.clone_url);
        assert!(!answer.clone_url.contains('@'), "{}", answer.clone_url);
        let info = created.credential_info.expect("info");
        assert_eq!(answer.expire_time, info.expire_time, "{}", side.provider);

        let issued = app.issued().await;
        assert_eq!(issued.len(), before + 1, "{}", side.provider);
        let event = issued.last().expect("an event");
        assert_eq!(event.resource, row.name);
        assert_eq!(
            event.connections.iter().map(ConnectionId::as_str).collect::<Vec<_>>(),
            [id_of(&created.name)]
        );
        assert!(!event.actor.is_empty() && !event.request_id.is_empty());
        assert_eq!(event.after["repository.full_name"], row.full_name);
        assert_eq!(event.after["credential.fingerprint"], info.fingerprint);
        assert!(!format!("{event:?}").contains(side.good), "{event:?}");
        assert!(!format!("{answer:?}").contains(side.good), "{answer:?}");
    }
}

#[tokio::test]
async fn a_link_that_was_seen_needs_no_call_and_one_in_doubt_is_read_first() {
    let (forge, app) = started().await;
    for side in sides(&forge) {
        let (created, row) = connected(&app, &side).await;
        let link = format!("link-{}", side.provider);
        app.put_link(&link, &created, &row, LinkState::Linked).await;
        let name = link_name(&link).to_string();
        forge.forget_requests();
        let answer = app.git_credential(&name).await.expect(side.provider);
        assert_eq!((answer.password.as_str(), &answer.clone_url), (side.good, &row.clone_https_url));
        assert!(forge.requests().is_empty(), "{}: {:?}", side.provider, forge.requests());
        assert_eq!(app.issued().await.last().expect("an event").resource, name);

        // Refused when it was last checked: asked again, refused again, and no secret leaves.
        (side.revoke)(&forge);
        app.verify(&created.name).await.expect("a report");
        forge.forget_requests();
        let issued = app.issued().await.len();
        let refusal = refused(app.git_credential(&name).await);
        assert_eq!(refusal.code, Code::FailedPrecondition, "{}: {refusal:?}", side.provider);
        assert!(
            ["CREDENTIAL_INVALID", "CREDENTIAL_EXPIRED"].contains(&refusal.reason.as_str()),
            "{refusal:?}"
        );
        assert!(!forge.requests().is_empty());
        assert_eq!(app.issued().await.len(), issued, "{}", side.provider);
    }
}

#[tokio::test]
async fn a_link_out_of_sight_is_read_and_one_that_is_being_unlinked_is_gone() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let (created, row) = connected(&app, &side).await;
    app.put_link("lost", &created, &row, LinkState::AccessLost).await;
    forge.forget_requests();
    // It came back since.
    let answer = app.git_credential("tenants/default/repositoryLinks/lost").await.expect("readable");
    assert_eq!(answer.password, side.good);
    assert!(!forge.requests().is_empty());
    let gone = v1::Repository { provider_id: "999999".into(), ..row.clone() };
    app.put_link("gone", &created, &gone, LinkState::NotFound).await;
    let refusal = refused(app.git_credential("tenants/default/repositoryLinks/gone").await);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::FailedPrecondition, "REPOSITORY_NOT_ACCESSIBLE")
    );
    assert!(refusal.details.contains(&"PreconditionFailure".to_owned()), "{refusal:?}");
    let going = v1::Repository { provider_id: "4711".into(), ..row };
    app.put_link("going", &created, &going, LinkState::Unlinking).await;
    for name in ["going", "never"] {
        let refusal = refused(app.git_credential(&format!("tenants/default/repositoryLinks/{name}")).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::NotFound, "REPOSITORY_LINK_NOT_FOUND"));
    }
    assert_eq!(app.issued().await.len(), 1);
}

#[tokio::test]
async fn no_secret_leaves_a_connection_that_is_disabled_gone_or_has_ended() {
    let (forge, app) = started().await;
    let (created, row) = connected(&app, &gitlab(&forge)).await;
    app.put_link("link", &created, &row, LinkState::Linked).await;
    let link = "tenants/default/repositoryLinks/link";

    let missing = format!("{}/repositories/999999", created.name);
    assert_eq!(refused(app.git_credential(&missing).await).reason, "REPOSITORY_NOT_FOUND");
    let nobody = "tenants/default/connections/nobody/repositories/1";
    assert_eq!(refused(app.git_credential(nobody).await).reason, "CONNECTION_NOT_FOUND");
    for bad in ["", "tenants/default", "tenants/default/repositoryLinks/-", "tenants/default/connections/c"] {
        assert_eq!(refused(app.git_credential(bad).await).reason, "INVALID_FIELDS", "{bad}");
    }

    forge.forget_requests();
    let disabled = v1::Connection { name: created.name.clone(), disabled: true, ..Default::default() };
    app.update_with(update(disabled, &["disabled"])).await.expect("disabled");
    for name in [link, &row.name] {
        let refusal = refused(app.git_credential(name).await);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::FailedPrecondition, "CONNECTION_DISABLED")
        );
    }
    let enabled = v1::Connection { name: created.name.clone(), disabled: false, ..Default::default() };
    app.update_with(update(enabled, &["disabled"])).await.expect("enabled");

    forge.forget_requests();
    app.clock.advance(Duration::from_secs(4_000 * 24 * 3_600));
    for name in [link, &row.name] {
        let refusal = refused(app.git_credential(name).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "CREDENTIAL_EXPIRED"));
        assert!(refusal.metadata.contains_key("expireTime"), "{refusal:?}");
        assert!(refusal.details.contains(&"Help".to_owned()), "{refusal:?}");
    }
    assert!(forge.requests().is_empty(), "{:?}", forge.requests());
    assert!(app.issued().await.is_empty());
}

#[tokio::test]
async fn a_secret_is_for_the_connections_own_origin_alone() {
    // What a wrong address of a server, a clone root of its own, and an open door look like.
    for external in
        ["http://localhost:3000/gitlab", "https://clone.forge.example/gitlab", "http://127.0.0.1/gitlab"]
    {
        let config = ForgeConfig {
            gitlab: GitlabConfig { external_url: Some(external.into()), ..Default::default() },
            azure: AzureConfig { external_url: Some(external.into()), ..Default::default() },
            bitbucket_data_center: DataCenterConfig {
                external_url: Some(external.into()),
                ..Default::default()
            },
            ..ForgeConfig::default()
        };
        let forge = Forge::start(config).await.expect("a forge");
        let app = TestApp::new().allow(forge.origin()).start().await;
        for side in sides(&forge) {
            if !["gitlab", "azure-devops", "bitbucket-data-center"].contains(&side.provider) {
                continue;
            }
            let (created, row) = connected(&app, &side).await;
            assert!(row.clone_https_url.starts_with(external), "{}", row.clone_https_url);
            let link = format!("link-{}", side.provider);
            app.put_link(&link, &created, &row, LinkState::Linked).await;
            for name in [row.name, link_name(&link).to_string()] {
                let refusal = refused(app.git_credential(&name).await);
                assert_eq!(refusal.code, Code::FailedPrecondition, "{external}: {refusal:?}");
                assert_eq!(refusal.reason, "REPOSITORY_NOT_ACCESSIBLE", "{external}: {refusal:?}");
            }
        }
        assert!(app.issued().await.is_empty(), "{external}");
    }
}

#[tokio::test]
async fn find_tells_proven_from_namespace_from_host_and_asks_no_disabled_one() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let owner = app.create(side.connection("owner")).await.expect("created");
    let second = app.create(side.with_token("second", gitlab_tokens::PROJECT)).await.expect("created");
    let asleep = app.create(side.asleep("asleep")).await.expect("created");
    let elsewhere =
        v1::Connection { disabled: true, ..connection("gitlab", "cloud", "", gitlab_tokens::GOOD) };
    app.create(elsewhere).await.expect("created");
    let rows = app.stream(&owner.name).await.expect("rows");
    // Open to all people of the instance, and not to the bot behind the other token.
    let row = rows.iter().find(|row| row.visibility() == v1::repository::Visibility::Internal);
    let row = row.expect("an internal project");
    let beside = rows.iter().find(|other| other.namespace == row.namespace && other.name != row.name);
    app.put_link("beside", &second, beside.expect("a neighbour"), LinkState::Linked).await;

    forge.forget_requests();
    let found = app.find(&row.clone_https_url).await.expect("candidates");
    assert_eq!(
        of(&found),
        [
            (id_of(&owner.name), Match::Proven),
            (id_of(&second.name), Match::Namespace),
            (id_of(&asleep.name), Match::Host)
        ]
    );
    let proven = found[0].repository.as_ref().expect("a repository");
    assert_eq!((&proven.name, &proven.repository_link), (&row.name, &String::new()));
    assert!(found[1].repository.is_none() && found[2].repository.is_none());
    // The token of the disabled connection is the owner's: so many calls were made with it, and no more.
    let bearer = format!("Bearer {}", side.good);
    let requests = forge.requests();
    let with_it = requests.iter().filter(|seen| seen.header("authorization") == Some(&*bearer)).count();
    assert_eq!(with_it, 1, "{requests:?}");

    // The same by SSH, and by what people paste with somebody's name and token before it.
    for text in [
        row.clone_ssh_url.clone(),
        row.clone_https_url.replace("://", "://casey:glpat-forgeSecretInUrl00001@"),
        row.clone_https_url.replace(".git", ""),
    ] {
        let found = app.find(&text).await.expect("candidates");
        assert_eq!(found.len(), 3, "{text}: {found:?}");
        assert_eq!(found[0].r#match(), Match::Proven, "{text}: {found:?}");
        assert!(!format!("{found:?}").contains("glpat-"), "{found:?}");
    }
    // Another scheme, another port, another host.
    let plain = &row.clone_https_url;
    for text in [
        plain.replace("http://", "https://"),
        plain.replace(forge.origin(), "http://127.0.0.1:1"),
        plain.replace("127.0.0.1", "localhost"),
    ] {
        assert!(app.find(&text).await.expect("an answer").is_empty(), "{text}");
    }
    for bad in
        ["", "acme/website", "file:///etc/passwd", "ext::sh -c x", "https://h/a\nb", &"x".repeat(3_000)]
    {
        let refusal = refused(app.find(bad).await);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::InvalidArgument, "INVALID_FIELDS"),
            "{bad}"
        );
        assert_eq!(refusal.violations[0].0, "clone_url");
    }
}

#[tokio::test]
async fn find_proves_a_repository_of_each_provider_and_asks_no_other_product_of_the_host() {
    let (forge, app) = started().await;
    let mut all = Vec::new();
    for side in sides(&forge) {
        let (created, row) = connected(&app, &side).await;
        all.push((side, created, row));
    }
    for (side, created, row) in &all {
        forge.forget_requests();
        let found = app.find(&row.clone_https_url).await.expect("candidates");
        assert_eq!(of(&found)[0], (id_of(&created.name), Match::Proven), "{}: {found:?}", side.provider);
        assert_eq!(found[0].repository.as_ref().map(|found| &found.name), Some(&row.name));
        // All products of this forge are at one origin.
        assert_eq!(found.len(), all.len(), "{}", side.provider);
        assert!(found[1..].iter().all(|candidate| candidate.r#match() == Match::Host), "{found:?}");
        for seen in forge.requests() {
            assert!(seen.path.starts_with(side.path), "{}: {}", side.provider, seen.path);
        }
    }
}

#[tokio::test]
async fn find_puts_the_connection_of_the_link_first_and_survives_one_that_fails() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let names = ["a", "b", "c"];
    let mut made = Vec::new();
    for name in names {
        made.push(app.create(side.connection(name)).await.expect("created"));
    }
    let row = app.stream(&made[0].name).await.expect("rows").swap_remove(0);
    app.put_link("chosen", &made[2], &row, LinkState::Linked).await;
    let found = app.find(&row.clone_https_url).await.expect("candidates");
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|candidate| candidate.r#match() == Match::Proven), "{found:?}");
    assert_eq!(found[0].connection, made[2].name);
    for candidate in &found {
        let repository = candidate.repository.as_ref().expect("a repository");
        assert_eq!(repository.repository_link, "tenants/default/repositoryLinks/chosen");
    }
    // One call fails: that connection ranks by what is known without it.
    forge.fault_on("/gitlab/api/v4/projects/", Fault::GarbageJson, 1);
    let found = app.find(&row.clone_https_url).await.expect("candidates");
    assert_eq!(found.iter().filter(|candidate| candidate.r#match() == Match::Proven).count(), 2, "{found:?}");
    assert_eq!(found.len(), 3);
}

#[tokio::test]
async fn find_asks_at_most_twenty_and_a_few_at_a_time() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let first = app.create(side.connection("0")).await.expect("created");
    let row = app.stream(&first.name).await.expect("rows").swap_remove(0);
    for number in 1..25 {
        app.create(v1::Connection { disabled: true, ..side.connection(&format!("{number}")) })
            .await
            .expect("created");
    }
    for created in app.list("default").await {
        let enabled = v1::Connection { name: created.name, ..Default::default() };
        app.update_with(update(enabled, &["disabled"])).await.expect("enabled");
    }
    forge.set_latency(Duration::from_millis(20));
    forge.forget_requests();
    forge.reset_max_in_flight();
    let found = app.find(&row.clone_https_url).await.expect("candidates");
    assert_eq!(found.len(), 25);
    let proven = found.iter().filter(|candidate| candidate.r#match() == Match::Proven).count();
    assert_eq!(proven, 20);
    assert!(forge.max_in_flight() <= 4, "{}", forge.max_in_flight());
}

#[tokio::test]
async fn find_leaves_other_tenants_alone() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let created = app.create_in("other", side.connection("theirs")).await.expect("created");
    let row = app.stream(&created.name).await.expect("rows").swap_remove(0);
    assert!(app.find(&row.clone_https_url).await.expect("an answer").is_empty());
}

#[tokio::test]
async fn a_credential_that_was_replaced_meanwhile_is_not_given_out() {
    let (forge, app) = started().await;
    let side = gitlab(&forge);
    let (created, row) = connected(&app, &side).await;
    // The repository is read with the old token, and while the answer is on its way another one takes its place.
    forge.set_latency(Duration::from_millis(300));
    let app = Arc::new(app);
    let asking = tokio::spawn({
        let (app, name) = (app.clone(), row.name.clone());
        async move { app.git_credential(&name).await }
    });
    while forge.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    forge.set_latency(Duration::ZERO);
    let replace = v1::ReplaceCredentialRequest {
        name: created.name.clone(),
        credential: Some(pat(gitlab_tokens::ENDLESS)),
        allow_account_change: true,
        ..Default::default()
    };
    app.replace(replace).await.expect("replaced");
    let answer = asking.await.expect("ended").expect("a credential");
    assert_eq!(answer.password, gitlab_tokens::ENDLESS);
    assert_eq!(app.issued().await.len(), 1);
}
