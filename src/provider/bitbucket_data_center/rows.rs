//! The JSON of Bitbucket Data Center, and what becomes of it.

use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use super::endpoint::{API_SEGMENTS, Place};
use crate::domain::credential::Account;
use crate::domain::repository::{Namespace, NamespaceKind, Permission, Repository, Visibility};
use crate::provider::ProviderError;
use crate::provider::fields::{Id, lenient};
use crate::provider::inspection::{clean, clean_namespace, clean_repository};
use crate::provider::links::{host, is_foreign, ssh_link, web_link};

/// How the names of the users begin that stand behind the tokens of a project (`1`) or a repository (`2`).
const TOKEN_USER: &str = "access-token-user/";

/// The server, of `application-properties`. The number of the build is a string, and nothing but its presence counts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PropertiesRow {
    pub(super) version: String,
    #[expect(dead_code, reason = "its presence is what makes the answer this product's")]
    build_number: IgnoredAny,
}

/// A project, alone or inside a repository.
#[derive(Debug, Deserialize)]
pub(super) struct ProjectRow {
    id: Id,
    pub(super) key: String,
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    links: Option<Links>,
}

/// A repository as a listing or a single call shows it.
#[derive(Debug, Deserialize)]
pub(super) struct RepositoryRow {
    pub(super) id: Id,
    slug: String,
    name: Option<String>,
    description: Option<String>,
    state: Option<String>,
    project: OfProject,
    public: Option<bool>,
    archived: Option<bool>,
    origin: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "lenient")]
    links: Option<Links>,
}

/// What a repository needs of its project.
#[derive(Debug, Deserialize)]
struct OfProject {
    key: String,
    public: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
struct Links {
    #[serde(default)]
    clone: Vec<Link>,
    #[serde(rename = "self", default)]
    own: Vec<Link>,
}

#[derive(Debug, Deserialize)]
struct Link {
    href: Option<String>,
    name: Option<String>,
}

impl Links {
    /// The clone link of that name. Their order changes from one row to the next, and one can be missing.
    fn clone_link(&self, name: &str) -> &str {
        let found = self.clone.iter().find(|link| link.name.as_deref() == Some(name));
        found.and_then(|link| link.href.as_deref()).unwrap_or("")
    }

    /// The page of the thing itself.
    fn page(&self) -> &str {
        self.own.first().and_then(|link| link.href.as_deref()).unwrap_or("")
    }
}

impl RepositoryRow {
    /// Where it is; errors as [`Place::new`].
    pub(super) fn place(&self) -> Result<Place, ProviderError> {
        Place::new(&self.project.key, &self.slug)
    }

    /// The row as a repository of the instance at `api`. No row tells what the caller may do: `permission` is what
    /// the listing was limited to.
    pub(super) fn into_repository(self, api: &Url, permission: Permission) -> Repository {
        let links = self.links.unwrap_or_default();
        let clone_https_url = web_link(links.clone_link("http"));
        let is_public = self.public == Some(true) || self.project.public == Some(true);
        clean_repository(Repository {
            provider_id: self.id.0.to_string(),
            full_name: format!("{}/{}", self.project.key, self.slug),
            web_url: page_or(api, links.page(), &["projects", &self.project.key, "repos", &self.slug]),
            namespace: self.project.key,
            display_name: self.name.unwrap_or(self.slug),
            description: self.description.unwrap_or_default(),
            default_branch: None,
            foreign_clone_host: is_foreign(&clone_https_url, api),
            clone_https_url,
            clone_ssh_url: ssh_link(links.clone_link("ssh")),
            visibility: match self.public.or(self.project.public) {
                _ if is_public => Visibility::Public,
                Some(_) => Visibility::Private,
                None => Visibility::Unknown,
            },
            archived: self.archived,
            // A repository that is being made, was not made, or whose files are gone is listed and serves nothing.
            disabled: self.state.is_some_and(|state| state != "AVAILABLE"),
            fork: Some(self.origin.is_some()),
            size_kib: None,
            update_time: None,
            permission,
        })
    }

    /// The hosts that the row's own links name, in lower case.
    pub(super) fn link_hosts(&self) -> Vec<String> {
        let links = self.links.as_ref();
        links.map_or_else(Vec::new, |links| {
            [links.clone_link("http"), links.page()].into_iter().filter_map(host).collect()
        })
    }
}

impl ProjectRow {
    /// The row as a namespace of the instance at `api`.
    pub(super) fn into_namespace(self, api: &Url) -> Namespace {
        let is_personal = self.kind.as_deref() == Some("PERSONAL") || self.key.starts_with('~');
        clean_namespace(Namespace {
            provider_id: self.id.0.to_string(),
            web_url: page_or(api, self.links.unwrap_or_default().page(), &["projects", &self.key]),
            display_name: self.name.unwrap_or_else(|| self.key.clone()),
            kind: if is_personal { NamespaceKind::User } else { NamespaceKind::Project },
            parent_path: String::new(),
            full_path: self.key,
        })
    }
}

/// The link that was shown, or the page that it should have named.
fn page_or(api: &Url, shown: &str, path: &[&str]) -> String {
    let shown = web_link(shown);
    if !shown.is_empty() {
        return shown;
    }
    let mut url = api.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        for _ in 0..API_SEGMENTS {
            segments.pop();
        }
        segments.extend(path);
    }
    url.into()
}

/// A user, of `users`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserRow {
    pub(super) id: Id,
    pub(super) name: String,
    email_address: Option<String>,
    display_name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl UserRow {
    /// The account that it describes.
    pub(super) fn account(&self) -> Account {
        Account {
            id: self.id.0.to_string(),
            display_name: self.display_name.as_deref().map_or_else(String::new, clean),
            email: self.email_address.as_deref().map_or_else(String::new, clean),
            bot: self.kind.as_deref() == Some("SERVICE") || is_token_user(&self.name),
            ..account_named(&self.name)
        }
    }
}

/// What is known of a user by the name alone.
pub(super) fn account_named(name: &str) -> Account {
    Account { login: clean(name), bot: is_token_user(name), ..Account::default() }
}

/// Whether a user stands behind the tokens of a project or a repository, which all share it.
pub(super) fn is_token_user(name: &str) -> bool {
    name.starts_with(TOKEN_USER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../../tests/fixtures/providers/bitbucket-data-center/", $name))
        };
    }

    fn api() -> Url {
        Url::parse("https://bitbucket.sgdev.org/rest/api/latest").expect("a URL")
    }

    fn repository(text: &str) -> Repository {
        let row: RepositoryRow = serde_json::from_str(text).expect("a row");
        row.into_repository(&api(), Permission::Unknown)
    }

    fn bare(more: &str) -> Repository {
        repository(&format!(r#"{{"id":7,"slug":"my-repo","project":{{"key":"PRJ","id":1}}{more}}}"#))
    }

    #[test]
    fn clone_links_are_taken_by_name() {
        let exchange: serde_json::Value =
            serde_json::from_str(fixture!("exchanges/project-repos-200.json")).expect("fixture");
        let rows = exchange["response"]["body"]["values"].as_array().expect("rows");
        assert_eq!(rows.len(), 6);
        for row in rows {
            let found = repository(&row.to_string());
            let name = row["slug"].as_str().expect("a slug");
            assert_eq!(found.clone_https_url, format!("https://bitbucket.sgdev.org/scm/sgdemo/{name}.git"));
            assert_eq!(found.clone_ssh_url, format!("ssh://git@bitbucket.sgdev.org:7999/sgdemo/{name}.git"));
            assert_eq!(found.full_name, format!("SGDEMO/{name}"));
            assert_eq!(
                found.web_url,
                format!("https://bitbucket.sgdev.org/projects/SGDEMO/repos/{name}/browse")
            );
            assert_eq!((found.visibility, found.disabled), (Visibility::Private, false));
            assert_eq!((found.archived, found.fork), (None, Some(false)));
            assert!(!found.foreign_clone_host);
        }
    }

    #[test]
    fn the_callers_name_is_taken_out_of_the_clone_link() {
        let found = repository(fixture!("go-scm/repo.json"));
        assert_eq!(found.clone_https_url, "http://example.com:7990/scm/prj/my-repo.git");
        assert!(found.foreign_clone_host);
        // The other recorded row has texts where URLs belong.
        let found = repository(fixture!("bitbucket-rest/repository.json"));
        assert_eq!((found.clone_https_url.as_str(), found.clone_ssh_url.as_str()), ("", ""));
        assert_eq!(
            (found.web_url.as_str(), found.visibility),
            ("http://link/to/repository", Visibility::Public)
        );
    }

    #[test]
    fn what_a_row_may_lack_is_unknown_or_made_of_the_rest() {
        let found = bare("");
        assert_eq!(found.web_url, "https://bitbucket.sgdev.org/projects/PRJ/repos/my-repo");
        assert_eq!((found.display_name.as_str(), found.clone_https_url.as_str()), ("my-repo", ""));
        assert_eq!((found.visibility, found.archived), (Visibility::Unknown, None));
        assert!(!found.disabled && !found.foreign_clone_host);
        let found =
            bare(r#","links":{"clone":[{"name":"ssh","href":"ssh://git@x/y/z.git"}]},"archived":true"#);
        assert_eq!((found.clone_https_url.as_str(), found.archived), ("", Some(true)));
        // Links of another shape are no reason to lose the row.
        assert_eq!(bare(r#","links":[1]"#).full_name, "PRJ/my-repo");
    }

    #[test]
    fn a_repository_that_cannot_serve_is_disabled() {
        for (state, disabled) in
            [("AVAILABLE", false), ("INITIALISING", true), ("INITIALISATION_FAILED", true), ("OFFLINE", true)]
        {
            assert_eq!(bare(&format!(r#","state":"{state}""#)).disabled, disabled, "{state}");
        }
        assert_eq!(bare(r#","origin":{"id":3,"slug":"my-repo"}"#).fork, Some(true));
    }

    #[test]
    fn projects_are_namespaces_and_personal_ones_users() {
        let page: serde_json::Value =
            serde_json::from_str(fixture!("bitbucket-rest/project-page-full.json")).expect("fixture");
        let space = |text: &str| {
            let row: ProjectRow = serde_json::from_str(text).expect("a row");
            row.into_namespace(&api())
        };
        let found = space(&page["values"][0].to_string());
        assert_eq!((found.provider_id.as_str(), found.full_path.as_str()), ("1", "PRJ1"));
        assert_eq!((found.display_name.as_str(), found.kind), ("Project 1", NamespaceKind::Project));
        assert_eq!(found.web_url, "http://127.0.0.1:7990/projects/PRJ1");
        let personal = space(r#"{"id":9,"key":"~casey","type":"PERSONAL"}"#);
        assert_eq!((personal.kind, personal.display_name.as_str()), (NamespaceKind::User, "~casey"));
        assert_eq!(personal.web_url, "https://bitbucket.sgdev.org/projects/~casey");
    }

    #[test]
    fn users_are_accounts_and_those_of_tokens_bots() {
        let row: UserRow = serde_json::from_str(fixture!("go-scm/user.json")).expect("a user");
        let account = row.account();
        assert_eq!((account.id.as_str(), account.login.as_str(), account.bot), ("1", "jcitizen", false));
        assert_eq!(
            (account.display_name.as_str(), account.email.as_str()),
            ("Jane Citizen", "jane@example.com")
        );
        let service = r#"{"id":5,"name":"access-token-user/2/11754","type":"SERVICE"}"#;
        let row: UserRow = serde_json::from_str(service).expect("a user");
        assert!(row.account().bot && account_named("access-token-user/1/26").bot);
    }

    #[test]
    fn h19_an_id_is_a_positive_number() {
        for id in ["0", "-1", "\"7\"", "1.5", "null", "9223372036854775808"] {
            let body = format!(r#"{{"id":{id},"slug":"x","project":{{"key":"PRJ"}}}}"#);
            assert!(test_answer(200, &[], &body).json::<RepositoryRow>().is_err(), "{id}");
        }
    }
}
