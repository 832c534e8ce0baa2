//! Gitea's JSON, and what it means here.

use serde::Deserialize;
use url::Url;

use crate::domain::credential::Account;
use crate::domain::repository::{Namespace, NamespaceKind, Permission, Repository, Visibility};
use crate::provider::ProviderError;
use crate::provider::api::Answer;
use crate::provider::fields::{Id, bounded, moment};
use crate::provider::inspection::{clean, clean_namespace, clean_repository};
use crate::provider::links::{host, is_foreign, ssh_link, web_link};

/// A repository as a listing or a single call shows it.
#[derive(Debug, Deserialize)]
pub(super) struct RepositoryRow {
    pub(super) id: Id,
    pub(super) full_name: String,
    name: Option<String>,
    owner: Option<OwnerRow>,
    description: Option<String>,
    empty: Option<bool>,
    private: Option<bool>,
    internal: Option<bool>,
    archived: Option<bool>,
    fork: Option<bool>,
    has_code: Option<bool>,
    size: Option<i64>,
    pub(super) default_branch: Option<String>,
    clone_url: Option<String>,
    ssh_url: Option<String>,
    html_url: Option<String>,
    updated_at: Option<String>,
    permissions: Option<Permissions>,
}

#[derive(Debug, Deserialize)]
struct OwnerRow {
    login: Option<String>,
    visibility: Option<String>,
}

/// What the token's user may do. A token with fewer scopes shows the same.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Permissions {
    admin: Option<bool>,
    push: Option<bool>,
    pull: Option<bool>,
}

/// The answer of a search.
#[derive(Debug, Deserialize)]
struct SearchRow {
    data: Vec<RepositoryRow>,
}

/// The rows of a search.
///
/// # Errors
///
/// `Failed` for anything but repositories in sensible number.
pub(super) fn searched(answer: &Answer) -> Result<Vec<RepositoryRow>, ProviderError> {
    bounded(answer.json::<SearchRow>()?.data)
}

/// The rows of a listing; errors as [`searched`].
pub(super) fn repositories(answer: &Answer) -> Result<Vec<RepositoryRow>, ProviderError> {
    bounded(answer.json()?)
}

/// The organizations of a listing; errors as [`searched`].
pub(super) fn organizations(answer: &Answer) -> Result<Vec<OrganizationRow>, ProviderError> {
    bounded(answer.json()?)
}

impl RepositoryRow {
    /// The row as a repository of the instance at `api`.
    pub(super) fn into_repository(self, api: &Url) -> Repository {
        let permission = self.permission();
        let visibility = self.visibility();
        let clone_https_url = self.clone_url.as_deref().map_or_else(String::new, web_link);
        let (namespace, name) = self.full_name.rsplit_once('/').unwrap_or(("", &self.full_name));
        clean_repository(Repository {
            provider_id: self.id.0.to_string(),
            namespace: self
                .owner
                .and_then(|owner| owner.login)
                .filter(|login| !login.is_empty())
                .unwrap_or_else(|| namespace.to_owned()),
            display_name: self.name.unwrap_or_else(|| name.to_owned()),
            description: self.description.unwrap_or_default(),
            // An empty repository names the branch that it would begin with.
            default_branch: self
                .default_branch
                .filter(|branch| !branch.is_empty() && self.empty != Some(true)),
            foreign_clone_host: is_foreign(&clone_https_url, api),
            clone_https_url,
            clone_ssh_url: self.ssh_url.as_deref().map_or_else(String::new, ssh_link),
            web_url: self.html_url.as_deref().map_or_else(String::new, web_link),
            visibility,
            archived: self.archived,
            // Newer versions tell that the code is switched off: clones and the calls of refs are refused then.
            disabled: self.has_code == Some(false),
            fork: self.fork,
            size_kib: self.size.filter(|size| *size >= 0),
            update_time: self.updated_at.as_deref().and_then(moment),
            permission,
            full_name: self.full_name,
        })
    }

    /// What the token's user may do, as far as the row tells: a stranger is told nothing.
    fn permission(&self) -> Permission {
        match self.permissions {
            Some(Permissions { admin: Some(true), .. }) => Permission::Admin,
            Some(Permissions { push: Some(true), .. }) => Permission::Write,
            Some(Permissions { pull: Some(true), .. }) => Permission::Read,
            _ => Permission::Unknown,
        }
    }

    /// Nobody but members sees what a private owner has, and nobody without an account what a limited one has.
    fn visibility(&self) -> Visibility {
        let limited = self
            .owner
            .as_ref()
            .and_then(|owner| owner.visibility.as_deref())
            .is_some_and(|visibility| matches!(visibility, "limited" | "private"));
        match (self.private, self.internal) {
            (Some(true), _) => Visibility::Private,
            (_, Some(true)) => Visibility::Internal,
            (Some(false), _) if limited => Visibility::Internal,
            (Some(false), _) => Visibility::Public,
            (None, _) => Visibility::Unknown,
        }
    }

    /// Whether the user administers it, and so its webhooks.
    pub(super) fn is_administered(&self) -> bool {
        self.permission() == Permission::Admin
    }

    /// Whether only those to whom it was opened may read it.
    pub(super) fn is_private(&self) -> bool {
        self.private == Some(true)
    }

    /// Whether it is more to the user than what everybody may read.
    pub(super) fn is_own(&self) -> bool {
        self.is_private() || self.permission() >= Permission::Write
    }

    /// The hosts that the row's own links name, in lower case.
    pub(super) fn link_hosts(&self) -> Vec<String> {
        [self.clone_url.as_deref(), self.html_url.as_deref()].into_iter().flatten().filter_map(host).collect()
    }
}

/// The token's user, of `/user`, or with fewer members of `/token`.
#[derive(Debug, Deserialize)]
pub(super) struct UserRow {
    pub(super) id: Id,
    pub(super) login: String,
    full_name: Option<String>,
    email: Option<String>,
    html_url: Option<String>,
}

impl UserRow {
    /// The account that it describes. Gitea has no mark for bots that a token could read.
    pub(super) fn account(&self) -> Account {
        Account {
            id: self.id.0.to_string(),
            login: clean(&self.login),
            display_name: self.full_name.as_deref().map_or_else(String::new, clean),
            email: self.email.as_deref().map_or_else(String::new, clean),
            bot: false,
        }
    }

    /// The space that holds the user's own repositories.
    pub(super) fn into_namespace(self) -> Namespace {
        namespace(self.id, self.login, self.full_name, NamespaceKind::User, self.html_url.as_deref())
    }

    /// The host of the link to the user's page, in lower case.
    pub(super) fn link_host(&self) -> Option<String> {
        self.html_url.as_deref().and_then(host)
    }
}

/// An organization of `/user/orgs`. Older versions call its name `username` alone.
#[derive(Debug, Deserialize)]
pub(super) struct OrganizationRow {
    pub(super) id: Id,
    name: Option<String>,
    username: Option<String>,
    full_name: Option<String>,
}

impl OrganizationRow {
    /// The row as a namespace; `None` for one without a name.
    pub(super) fn into_namespace(self) -> Option<Namespace> {
        let path = self.name.or(self.username).filter(|name| !name.is_empty())?;
        Some(namespace(self.id, path, self.full_name, NamespaceKind::Organization, None))
    }
}

fn namespace(
    id: Id,
    path: String,
    name: Option<String>,
    kind: NamespaceKind,
    web: Option<&str>,
) -> Namespace {
    clean_namespace(Namespace {
        provider_id: id.0.to_string(),
        display_name: name.filter(|name| !name.is_empty()).unwrap_or_else(|| path.clone()),
        kind,
        parent_path: String::new(),
        web_url: web.map_or_else(String::new, web_link),
        full_path: path,
    })
}

/// The token itself, of `/token`.
#[derive(Debug, Deserialize)]
pub(super) struct TokenRow {
    pub(super) scopes: Vec<String>,
    pub(super) user: Option<UserRow>,
}

/// The server, of `/version`.
#[derive(Debug, Deserialize)]
pub(super) struct VersionRow {
    pub(super) version: String,
}

/// A branch or a tag. The `id` of a tag is its own object; its commit has a `sha`.
#[derive(Debug, Deserialize)]
pub(super) struct RefRow {
    pub(super) name: String,
    pub(super) commit: Option<CommitRow>,
    pub(super) protected: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CommitRow {
    pub(super) id: Option<String>,
    pub(super) sha: Option<String>,
}

/// The refs of a page; an empty repository has the branches `null`. Errors as [`searched`].
pub(super) fn refs(answer: &Answer) -> Result<Vec<RefRow>, ProviderError> {
    bounded(answer.json::<Option<Vec<RefRow>>>()?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::timestamp::Timestamp;
    use crate::provider::api::test_answer;

    fn repository(json: &Value) -> Repository {
        // Through text, as answers come.
        let row: RepositoryRow = serde_json::from_str(&json.to_string()).expect("a row");
        row.into_repository(&Url::parse("http://127.0.0.1:3300/api/v1").expect("a URL"))
    }

    fn recorded(text: &str) -> Value {
        let exchange: Value = serde_json::from_str(text).expect("fixture");
        exchange["response"]["body"].clone()
    }

    macro_rules! exchange {
        ($name:literal) => {
            recorded(include_str!(concat!(
                "../../../tests/fixtures/providers/gitea/exchanges/",
                $name,
                ".json"
            )))
        };
    }

    fn with(changes: &[(&str, Value)]) -> Repository {
        let mut row = exchange!("repo_200");
        for (name, value) in changes {
            row[*name] = value.clone();
        }
        repository(&row)
    }

    #[test]
    fn a_recorded_repository_is_mapped_as_documented() {
        let found = repository(&exchange!("repo_200"));
        assert_eq!(found.provider_id, "131");
        assert_eq!((found.full_name.as_str(), found.namespace.as_str()), ("alice/main-repo", "alice"));
        assert_eq!(found.display_name, "main-repo");
        assert_eq!(found.description, "\u{65e5}\u{672c} \"x\" \u{fc}");
        assert_eq!(found.default_branch.as_deref(), Some("main"));
        assert_eq!(found.clone_https_url, "http://127.0.0.1:3300/alice/main-repo.git");
        assert_eq!(found.clone_ssh_url, "git@127.0.0.1:alice/main-repo.git");
        assert_eq!(found.web_url, "http://127.0.0.1:3300/alice/main-repo");
        assert_eq!((found.visibility, found.permission), (Visibility::Private, Permission::Admin));
        assert_eq!((found.archived, found.fork, found.disabled), (Some(false), Some(false), false));
        assert_eq!((found.size_kib, found.foreign_clone_host), (Some(54), false));
        assert_eq!(found.update_time, Some(Timestamp::from_unix_seconds(1_795_266_625)));
    }

    #[test]
    fn an_empty_and_an_archived_repository_say_so() {
        assert_eq!(repository(&exchange!("repo_empty")).default_branch, None);
        let archived = repository(&exchange!("repo_archived"));
        assert_eq!((archived.archived, archived.visibility), (Some(true), Visibility::Public));
    }

    #[test]
    fn an_old_row_tells_less() {
        let text = include_str!("../../../tests/fixtures/providers/gitea/go-scm/repos.json");
        let rows: Vec<RepositoryRow> = serde_json::from_str(text).expect("fixture");
        let api = Url::parse("https://try.gitea.io/api/v1").expect("a URL");
        let found: Vec<_> = rows.into_iter().map(|row| row.into_repository(&api)).collect();
        assert_eq!(found[0].full_name, "go-gitea/gitea");
        assert!(found.iter().all(|row| row.permission == Permission::Admin));
    }

    #[test]
    fn permissions_are_the_users_and_a_stranger_has_none() {
        let of = |permissions: Value| with(&[("permissions", permissions)]).permission;
        assert_eq!(of(json!({"admin": false, "push": true, "pull": true})), Permission::Write);
        assert_eq!(of(json!({"admin": false, "push": false, "pull": true})), Permission::Read);
        assert_eq!(of(Value::Null), Permission::Unknown);
    }

    #[test]
    fn visibility_follows_the_owners() {
        let of = |private: Value, internal: bool, owner: &str| {
            let owner = json!({"login": "acme", "visibility": owner});
            with(&[("private", private), ("internal", internal.into()), ("owner", owner)]).visibility
        };
        assert_eq!(of(true.into(), false, "limited"), Visibility::Private);
        assert_eq!(of(false.into(), true, "private"), Visibility::Internal);
        assert_eq!(of(false.into(), false, "limited"), Visibility::Internal);
        assert_eq!(of(false.into(), false, "public"), Visibility::Public);
        assert_eq!(of(Value::Null, false, "public"), Visibility::Unknown);
    }

    #[test]
    fn a_repository_whose_code_is_switched_off_is_disabled() {
        assert!(with(&[("has_code", false.into())]).disabled);
        assert!(!with(&[("has_code", Value::Null)]).disabled);
        assert_eq!(with(&[("size", (-1).into())]).size_kib, None);
    }

    #[test]
    fn links_carry_no_user_and_no_script() {
        let found = with(&[
            ("clone_url", "http://alice:secret@localhost:3000/alice/main-repo.git".into()),
            ("html_url", "javascript:alert(1)".into()),
        ]);
        assert_eq!(found.clone_https_url, "http://localhost:3000/alice/main-repo.git");
        assert_eq!((found.web_url.as_str(), found.foreign_clone_host), ("", true));
    }

    #[test]
    fn h19_an_id_of_a_wrong_type_is_an_error() {
        for bad in ["\"1\"", "1.5", "1e400", "9223372036854775808", "null", "0"] {
            let body = format!("{{\"ok\":true,\"data\":[{{\"id\":{bad},\"full_name\":\"a/b\"}}]}}");
            let answer = test_answer(200, &[("content-type", "application/json")], &body);
            assert!(matches!(searched(&answer), Err(ProviderError::Failed { .. })), "{bad}");
        }
    }

    #[test]
    fn h21_h22_a_hostile_name_is_kept_and_its_texts_for_people_are_clean() {
        let found = with(&[
            ("full_name", "acme/..%2f\0..%2fetc".into()),
            ("name", "nul\0byte".into()),
            ("description", "two\r\nlines \u{1b}[31m\u{202e}txt".into()),
        ]);
        assert_eq!(
            (found.full_name.as_str(), found.display_name.as_str(), found.description.as_str()),
            ("acme/..%2f\0..%2fetc", "nulbyte", "two lines [31mtxt")
        );
    }

    #[test]
    fn a_recorded_user_and_organization_are_namespaces() {
        let user: UserRow = serde_json::from_str(&exchange!("user_200").to_string()).expect("a user");
        let account = user.account();
        assert_eq!((account.id.as_str(), account.login.as_str(), account.bot), ("2", "alice", false));
        let space = user.into_namespace();
        assert_eq!((space.full_path.as_str(), space.display_name.as_str()), ("alice", "alice"));
        let rows: Vec<OrganizationRow> =
            serde_json::from_str(&exchange!("user_orgs_page1").to_string()).expect("rows");
        let space = rows.into_iter().next().and_then(OrganizationRow::into_namespace).expect("a name");
        assert_eq!((space.provider_id.as_str(), space.full_path.as_str()), ("7", "acme"));
        assert_eq!(space.kind, NamespaceKind::Organization);
        let old = include_str!("../../../tests/fixtures/providers/gitea/go-scm/organizations.json");
        let rows: Vec<OrganizationRow> = serde_json::from_str(old).expect("rows");
        assert!(rows.into_iter().all(|row| row.into_namespace().is_some()));
    }

    #[test]
    fn recorded_branches_and_tags_name_their_commits() {
        let read = |body: &Value| {
            refs(&test_answer(200, &[("content-type", "application/json")], &body.to_string())).expect("rows")
        };
        let branches = read(&exchange!("branches_page1"));
        assert_eq!(branches[0].name, "feature/b-000");
        let id = branches[0].commit.as_ref().and_then(|commit| commit.id.as_deref());
        assert_eq!(id, Some("94bfcd634b82a303835c4890470d51684278ceec"));
        // The recorded tags are annotated: their own id is not the commit's.
        let tags = read(&exchange!("tags_page1"));
        let sha = tags[0].commit.as_ref().and_then(|commit| commit.sha.as_deref());
        assert_eq!(sha, Some("94bfcd634b82a303835c4890470d51684278ceec"));
        assert!(read(&exchange!("empty_branches")).is_empty() && read(&exchange!("empty_tags")).is_empty());
    }
}
