//! One suite for all providers: it walks the list of those that the program knows, so a new one is tested the moment it
//! is listed. A provider without a subject here fails the suite.

use std::collections::BTreeSet;

use gitmoor::domain::webhook::WebhookEvent;
use gitmoor::proto::v1;
use gitmoor::proto::v1::connection::State;
use gitmoor::provider::{About, Providers};
use tonic::{Code, Request, Response, Status};

use crate::support::app::{Refused, Running, TestApp, connection, refused};
use crate::support::forge::{
    AzureConfig, BitbucketCloudConfig, DataCenterConfig, Fault, Forge, ForgeConfig, GiteaConfig,
    GithubConfig, GitlabConfig, azure_tokens, bitbucket_cloud_tokens, data_center_tokens, gitea_tokens,
    github_tokens, gitlab_tokens,
};

mod bench;
pub(crate) mod deliveries;
mod habits;
mod told;
mod webhooks;

/// What the suite needs to know of one provider.
struct Subject {
    /// What a person would paste.
    url: fn(&Forge) -> String,
    good: &'static str,
    dead: &'static str,
    /// Good for something, but not for all three capabilities.
    weak: &'static str,
    /// The address that the tokens go with; empty for personal access tokens.
    email: &'static str,
    /// Calls that it takes to find a repository by its id, where the provider has no such call.
    calls_by_id: usize,
    /// A token that ended; empty where the provider says of one what it says of any text.
    expired: &'static str,
    /// Under what name a repository was known before; empty where the provider does not promise to keep it.
    former_name: &'static str,
    /// What people paste beside the address itself, as it goes on behind it.
    pasted: &'static [&'static str],
    /// Whether repositories can be archived, and switched off.
    archives: bool,
    disables: bool,
    /// A version below the lowest; `None` for a cloud alone.
    too_old: Option<fn() -> ForgeConfig>,
    /// What a sign-in page becomes: most providers never show one to a token, Azure DevOps shows it to a dead one.
    sign_in: (Code, &'static str),
}

const FAILED: (Code, &str) = (Code::Unavailable, "PROVIDER_ERROR");
const BROKEN: (Code, &str) = (Code::Unavailable, "PROVIDER_UNREACHABLE");
const LIMITED: (Code, &str) = (Code::ResourceExhausted, "PROVIDER_RATE_LIMITED");
const DEAD: (Code, &str) = (Code::FailedPrecondition, "CREDENTIAL_INVALID");

fn subject(about: &About) -> Subject {
    match about.id {
        "github" => Subject {
            url: Forge::github_url,
            good: github_tokens::GOOD,
            dead: github_tokens::UNKNOWN,
            weak: github_tokens::READ_ONLY,
            email: "",
            calls_by_id: 1,
            expired: "",
            former_name: "acme/old-website",
            pasted: &["/", "/acme/website", "/acme/website.git", "/api/v3"],
            archives: true,
            disables: true,
            too_old: Some(|| ForgeConfig {
                github: GithubConfig { version: Some("3.8.9".to_owned()), ..GithubConfig::default() },
                ..ForgeConfig::default()
            }),
            sign_in: FAILED,
        },
        "gitlab" => Subject {
            url: Forge::gitlab_url,
            good: gitlab_tokens::GOOD,
            dead: gitlab_tokens::UNKNOWN,
            weak: gitlab_tokens::READ_ONLY,
            email: "",
            calls_by_id: 1,
            expired: gitlab_tokens::EXPIRED,
            former_name: "acme/old-website",
            pasted: &["/", "/acme/website", "/acme/website.git", "/api/v4"],
            archives: true,
            disables: false,
            too_old: Some(|| ForgeConfig {
                gitlab: GitlabConfig { version: "15.4.6-ee".to_owned(), ..GitlabConfig::default() },
                ..ForgeConfig::default()
            }),
            sign_in: FAILED,
        },
        "azure-devops" => Subject {
            url: Forge::azure_url,
            good: azure_tokens::GOOD,
            dead: azure_tokens::UNKNOWN,
            weak: azure_tokens::READ_ONLY,
            email: "",
            calls_by_id: 1,
            expired: "",
            former_name: "Fabrikam Fibre (old)/Fabrikam Fiber",
            pasted: &["/", "/Fabrikam%20Fiber/_git/Fabrikam%20Fiber"],
            archives: false,
            disables: true,
            too_old: None,
            sign_in: DEAD,
        },
        "gitea" => Subject {
            url: Forge::gitea_url,
            good: gitea_tokens::GOOD,
            dead: gitea_tokens::UNKNOWN,
            weak: gitea_tokens::READ_ONLY,
            email: "",
            calls_by_id: 1,
            expired: "",
            former_name: "acme/old-website",
            pasted: &["/", "/acme/website", "/acme/website.git", "/api/v1"],
            archives: true,
            disables: true,
            too_old: Some(|| ForgeConfig {
                gitea: GiteaConfig { version: "1.19.4".to_owned(), ..GiteaConfig::default() },
                ..ForgeConfig::default()
            }),
            sign_in: FAILED,
        },
        "bitbucket-cloud" => Subject {
            url: Forge::bitbucket_cloud_url,
            good: bitbucket_cloud_tokens::GOOD,
            dead: bitbucket_cloud_tokens::UNKNOWN,
            weak: bitbucket_cloud_tokens::READ_ONLY,
            email: bitbucket_cloud_tokens::EMAIL,
            // The list of workspaces, and each of the three.
            calls_by_id: 4,
            expired: "",
            former_name: "",
            pasted: &["/", "/2.0"],
            archives: false,
            disables: false,
            too_old: None,
            sign_in: FAILED,
        },
        "bitbucket-data-center" => Subject {
            url: Forge::bitbucket_data_center_url,
            good: data_center_tokens::GOOD,
            dead: data_center_tokens::UNKNOWN,
            weak: data_center_tokens::READ_ONLY,
            email: "",
            // A look through all, in one page. The second page of refs makes sure of the place besides.
            calls_by_id: 1,
            expired: "",
            former_name: "WEB/old-website",
            pasted: &[
                "/",
                "/projects/WEB/repos/acme-website/browse",
                "/scm/web/acme-website.git",
                "/rest/api/1.0",
            ],
            archives: true,
            disables: true,
            too_old: Some(|| ForgeConfig {
                bitbucket_data_center: DataCenterConfig {
                    version: "7.21.0".to_owned(),
                    ..DataCenterConfig::default()
                },
                ..ForgeConfig::default()
            }),
            sign_in: FAILED,
        },
        other => panic!("the provider {other} has no subject: write one, with a fake of it in the forge"),
    }
}

impl Subject {
    /// A connection with a credential of the kind that the tokens are.
    fn connection(&self, about: &About, display_name: &str, url: &str, token: &str) -> v1::Connection {
        let made = connection(about.id, display_name, url, token);
        if self.email.is_empty() {
            return made;
        }
        let (email, token) = (self.email.to_owned(), token.to_owned());
        let kind = v1::credential::Kind::EmailApiToken(v1::EmailApiToken { email, token });
        let credential = v1::Credential { kind: Some(kind), declared_expire_time: None };
        v1::Connection { credential: Some(credential), ..made }
    }
}

fn all() -> Vec<(&'static About, Subject)> {
    let all: Vec<_> =
        Providers::builtin().iter().map(|provider| (provider.about(), subject(provider.about()))).collect();
    assert!(!all.is_empty(), "the list of providers is empty");
    all
}

async fn started(config: ForgeConfig) -> (Forge, Running) {
    let forge = Forge::start(config).await.expect("a forge");
    let app = TestApp::new().allow(forge.origin()).start().await;
    (forge, app)
}

async fn connected(app: &Running, forge: &Forge, about: &About, subject: &Subject) -> v1::Connection {
    let wanted = subject.connection(about, about.title, &(subject.url)(forge), subject.good);
    app.create(wanted).await.unwrap_or_else(|status| panic!("{}: {status}", about.id))
}

#[test]
fn what_is_told_of_a_provider_is_complete() {
    for (about, _) in all() {
        let id = about.id;
        assert!(!about.title.is_empty() && about.concurrency > 0 && about.max_page_size > 0, "{id}");
        assert!(!about.credential_kinds.is_empty() && !about.documentation_urls.is_empty(), "{id}");
        for kind in about.credential_kinds {
            assert!(
                kind.fields.iter().any(|field| field.secret && field.required),
                "{id}: a kind without a secret"
            );
        }
        assert_eq!(about.capability_scopes.len(), 3, "{id}: scopes for each capability");
        assert!(about.documentation_urls.iter().all(|url| url.starts_with("https://")), "{id}");
        assert!(!about.webhook_events.contains(&WebhookEvent::Other), "{id}: that one is only told");
    }
}

#[tokio::test]
async fn the_same_calls_create_verify_list_and_look_up() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let id = about.id;
        let made = connected(&app, &forge, about, &subject).await;
        assert_eq!(made.state(), State::Active, "{id}: {:?}", made.conditions);
        let request = v1::VerifyConnectionRequest { name: made.name.clone(), ..Default::default() };
        let verified = app.connections().verify_connection(request).await.expect("a report").into_inner();
        let report = verified.report.expect("a report");
        assert_ne!(report.result(), v1::Outcome::Fail, "{id}: {report:?}");

        let streamed = app.stream(&made.name).await.expect("a stream");
        assert!(!streamed.is_empty(), "{id}");
        let wanted = streamed.iter().find(|row| !row.disabled).expect("a repository that is not disabled");
        for selector in [
            v1::lookup_repository_request::Selector::FullName(wanted.full_name.clone()),
            v1::lookup_repository_request::Selector::CloneUrl(wanted.clone_https_url.clone()),
        ] {
            let request = v1::LookupRepositoryRequest { parent: made.name.clone(), selector: Some(selector) };
            let found = app.repositories().lookup_repository(request).await.expect("found").into_inner();
            assert_eq!(found.name, wanted.name, "{id}");
        }
        let request = v1::GetRepositoryRequest { name: wanted.name.clone() };
        let found = app.repositories().get_repository(request).await.expect("found").into_inner();
        assert_eq!(found.full_name, wanted.full_name, "{id}");
    }
}

#[tokio::test]
async fn ac_61_pages_and_stream_show_the_same_rows_in_the_same_order() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        let streamed: Vec<_> =
            app.stream(&made.name).await.expect("a stream").into_iter().map(|row| row.name).collect();
        let unique: BTreeSet<_> = streamed.iter().collect();
        assert_eq!(unique.len(), streamed.len(), "{}: a row came twice", about.id);
        for page_size in [7, 100] {
            assert_eq!(
                paged(&app, &made.name, page_size).await,
                streamed,
                "{}: pages of {page_size}",
                about.id
            );
        }
    }
}

#[tokio::test]
async fn ac_10_a_dead_token_is_refused_and_nothing_is_stored() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let outcome =
            app.create(subject.connection(about, "Dead", &(subject.url)(&forge), subject.dead)).await;
        let refusal = refused(outcome);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "CREDENTIAL_REJECTED"));
        assert!(app.list("default").await.is_empty(), "{}", about.id);
    }
}

#[tokio::test]
async fn ac_15_a_weak_token_makes_a_degraded_connection_that_names_what_is_missing() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let made = app
            .create(subject.connection(about, "Weak", &(subject.url)(&forge), subject.weak))
            .await
            .expect("made");
        assert_eq!(made.state(), State::Degraded, "{}", about.id);
        assert!(!made.credential_info.expect("told").missing_scopes.is_empty(), "{}", about.id);
    }
}

#[tokio::test]
async fn another_product_behind_the_url_is_told_as_such() {
    let (forge, app) = started(ForgeConfig::default()).await;
    let all = all();
    for (about, subject) in &all {
        for (other, elsewhere) in all.iter().filter(|(other, _)| other.id != about.id) {
            let url = (elsewhere.url)(&forge);
            let wanted = subject.connection(about, "Elsewhere", &url, subject.good);
            let refusal = refused(app.create(wanted).await);
            assert_eq!(
                refusal.reason, "PROVIDER_MISMATCH",
                "{} at {}: {}",
                about.id, other.id, refusal.message
            );
        }
    }
    assert!(app.list("default").await.is_empty());
}

#[tokio::test]
async fn an_account_without_repositories_lists_as_empty() {
    let nothing = ForgeConfig {
        gitea: GiteaConfig { repositories: 0, ..GiteaConfig::default() },
        github: GithubConfig { repositories: 0, ..GithubConfig::default() },
        gitlab: GitlabConfig { repositories: 0, ..GitlabConfig::default() },
        azure: AzureConfig { projects: 0, unreadable: false, ..AzureConfig::default() },
        bitbucket_cloud: BitbucketCloudConfig { repositories: 0, ..BitbucketCloudConfig::default() },
        bitbucket_data_center: DataCenterConfig { repositories: 0, ..DataCenterConfig::default() },
        ..ForgeConfig::default()
    };
    let (forge, app) = started(nothing).await;
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        assert_eq!(paged(&app, &made.name, 50).await, Vec::<String>::new(), "{}", about.id);
        assert_eq!(app.stream(&made.name).await.expect("a stream").len(), 0, "{}", about.id);
    }
}

/// All refs of a repository, read in pages.
async fn refs(app: &Running, parent: &str, kind: v1::RefType, query: &str, page_size: i32) -> Vec<v1::Ref> {
    let mut request = v1::ListRefsRequest {
        parent: parent.to_owned(),
        r#type: kind as i32,
        query: query.to_owned(),
        page_size,
        ..Default::default()
    };
    let mut rows = Vec::new();
    for _ in 0..1_000 {
        let page = app.repositories().list_refs(request.clone()).await.expect("a page").into_inner();
        rows.extend(page.refs);
        if page.next_page_token.is_empty() {
            return rows;
        }
        request.page_token = page.next_page_token;
    }
    panic!("the pages never end");
}

/// A repository with code. Some providers tell the default branch of a single repository alone.
async fn with_code(app: &Running, parent: &str) -> String {
    for row in app.stream(parent).await.expect("a stream").into_iter().filter(|row| !row.disabled) {
        let request = v1::GetRepositoryRequest { name: row.name };
        let row = app.repositories().get_repository(request).await.expect("found").into_inner();
        if row.default_branch == "main" {
            return row.name;
        }
    }
    panic!("no repository has a default branch");
}

#[tokio::test]
async fn branches_and_tags_come_in_pages_with_their_commits() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let id = about.id;
        let made = connected(&app, &forge, about, &subject).await;
        let parent = with_code(&app, &made.name).await;
        let branches = refs(&app, &parent, v1::RefType::Unspecified, "", 100).await;
        assert_eq!(branches.len(), 30, "{id}");
        assert!(branches.iter().all(|row| row.r#type() == v1::RefType::Branch), "{id}");
        for name in ["main", "feature/gr\u{fc}n", "feature/00007", "Hotfix/Login"] {
            let row = branches.iter().find(|row| row.name == name);
            let row = row.unwrap_or_else(|| panic!("{id}: {name} is not there"));
            assert_eq!(row.commit_id, Forge::commit_of(name), "{id}: {name}");
            assert_eq!(row.is_default, name == "main", "{id}: {name}");
            assert!(row.protected.is_none_or(|protected| protected == (name == "main")), "{id}: {name}");
        }
        let tags = refs(&app, &parent, v1::RefType::Tag, "", 100).await;
        assert_eq!(tags.len(), 12, "{id}");
        for tag in &tags {
            // Peeled: every second tag is annotated.
            assert_eq!(tag.commit_id, Forge::commit_of(&tag.name), "{id}: {}", tag.name);
            assert!(!tag.is_default && tag.r#type() == v1::RefType::Tag, "{id}");
        }
        for page_size in [7, 10] {
            let names = |rows: Vec<v1::Ref>| rows.into_iter().map(|row| row.name).collect::<Vec<_>>();
            let paged = refs(&app, &parent, v1::RefType::Branch, "", page_size).await;
            assert_eq!(names(paged), names(branches.clone()), "{id}: pages of {page_size}");
            let paged = refs(&app, &parent, v1::RefType::Tag, "", page_size).await;
            assert_eq!(names(paged), names(tags.clone()), "{id}: pages of {page_size}");
        }
        for (query, count) in
            [("hotfix/LOGIN", 1), ("gr\u{dc}n", 1), ("feature/0000", 10), ("^main$", 0), ("nothing", 0)]
        {
            let found = refs(&app, &parent, v1::RefType::Branch, query, 4).await;
            assert_eq!(found.len(), count, "{id}: {query}");
        }
        assert_eq!(refs(&app, &parent, v1::RefType::Tag, "v1.0000", 4).await.len(), 10, "{id}");
    }
}

#[tokio::test]
async fn a_page_of_many_branches_does_not_fetch_all_of_them() {
    let (forge, app) = started(ForgeConfig { branches: 10_000, ..ForgeConfig::default() }).await;
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        let parent = with_code(&app, &made.name).await;
        forge.forget_requests();
        let request = v1::ListRefsRequest { parent, ..Default::default() };
        let page = app.repositories().list_refs(request.clone()).await.expect("a page").into_inner();
        assert_eq!(page.refs.len(), 50, "{}", about.id);
        let request = v1::ListRefsRequest { page_token: page.next_page_token, ..request };
        let next = app.repositories().list_refs(request).await.expect("a page").into_inner();
        assert_eq!(next.refs.len(), 50, "{}", about.id);
        assert_ne!(next.refs[0].name, page.refs[0].name, "{}", about.id);
        let calls = forge.requests().len();
        assert!(calls <= 3 + subject.calls_by_id, "{}: {calls} calls for two pages", about.id);
    }
}

#[tokio::test]
async fn refs_of_no_repository_and_of_no_type_are_refused() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        for id in [
            "..",
            "999999999",
            "{00000000-0000-4000-8000-00000000ffff}",
            "00000000-0000-4000-8000-00000000ffff",
        ] {
            let parent = format!("{}/repositories/{id}", made.name);
            let refusal = refused(
                app.repositories().list_refs(v1::ListRefsRequest { parent, ..Default::default() }).await,
            );
            assert_eq!(
                (refusal.code, refusal.reason.as_str()),
                (Code::NotFound, "REPOSITORY_NOT_FOUND"),
                "{}: {id}",
                about.id
            );
        }
        let parent = format!("{}/repositories/1", made.name);
        let request = v1::ListRefsRequest { parent, r#type: 9, page_size: -1, ..Default::default() };
        let refusal = refused(app.repositories().list_refs(request).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
    }
}

/// The rows of group H that a listing meets, each with the reason that it ends in. Every one is a switch of the
/// forge; none may hang, and none may tell the token.
#[tokio::test]
async fn what_goes_wrong_in_a_listing_has_one_reason_for_all_providers() {
    let (forge, app) = started(ForgeConfig::default()).await;
    for (about, subject) in all() {
        let made = connected(&app, &forge, about, &subject).await;
        for (fault, expected) in [
            ("redirect-metadata", FAILED),
            ("redirect-other-origin", FAILED),
            ("html-signin", subject.sign_in),
            ("html-ok", subject.sign_in),
            ("server-error-500", FAILED),
            ("unavailable-503", FAILED),
            ("error-5mb", FAILED),
            ("close-before-head", BROKEN),
            ("reset-after-headers", BROKEN),
            ("reset-mid-body", BROKEN),
            ("short-body", BROKEN),
            ("huge-content-length", FAILED),
            ("unknown-encoding", FAILED),
            ("garbage-json", FAILED),
            ("empty-body", FAILED),
            ("deep-json", FAILED),
            ("many-elements-json", FAILED),
            ("wrong-types", FAILED),
            ("wrong-types-float", FAILED),
            ("http10", FAILED),
            ("garbage-protocol", FAILED),
            ("upgrade", FAILED),
            // Last: it closes the connection's calls for a minute.
            ("rate-limited-bare", LIMITED),
        ] {
            forge.set_fault(Fault::named(fault).unwrap_or_else(|| panic!("the forge has no fault {fault}")));
            let refusal = Refused::from(&first_page(&app, &made.name).await.expect_err(fault));
            assert_eq!(
                (refusal.code, refusal.reason.as_str()),
                expected,
                "{} with {fault}: {}",
                about.id,
                refusal.message
            );
            assert!(!refusal.message.contains(subject.good), "{fault}");
            forge.clear_faults();
        }
        forge.assert_no_leftovers();
    }
}

/// The first page of a connection.
async fn first_page(app: &Running, parent: &str) -> Result<v1::ListRepositoriesResponse, Status> {
    let mut request =
        Request::new(v1::ListRepositoriesRequest { parent: parent.to_owned(), ..Default::default() });
    request.set_timeout(std::time::Duration::from_secs(20));
    app.repositories().list_repositories(request).await.map(Response::into_inner)
}

async fn paged(app: &Running, parent: &str, page_size: i32) -> Vec<String> {
    let mut names = Vec::new();
    let mut page_token = String::new();
    for _ in 0..1_000 {
        let request = v1::ListRepositoriesRequest {
            parent: parent.to_owned(),
            page_size,
            include_archived: true,
            page_token,
            ..Default::default()
        };
        let page = app.repositories().list_repositories(request).await.expect("a page").into_inner();
        names.extend(page.repositories.into_iter().map(|row| row.name));
        if page.next_page_token.is_empty() {
            return names;
        }
        page_token = page.next_page_token;
    }
    panic!("the pages never end");
}
