//! GitHub's JSON, and what it means here.

use serde::Deserialize;
use url::Url;

use super::endpoint::{cloud_api, web};
use crate::domain::credential::Account;
use crate::domain::refs::{Ref, RefKind};
use crate::domain::repository::{Namespace, NamespaceKind, Permission, Repository, Visibility};
use crate::domain::timestamp::Timestamp;
use crate::provider::ProviderError;
use crate::provider::api::Answer;
use crate::provider::fields::{Id, bounded, lenient, moment};
use crate::provider::inspection::{clean, clean_namespace, clean_ref, clean_repository};
use crate::provider::links::{host, is_foreign, ssh_link, web_link};

/// A repository as a listing or a single call shows it.
#[derive(Debug, Deserialize)]
pub(super) struct RepositoryRow {
    pub(super) id: Id,
    pub(super) full_name: String,
    name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    owner: Option<OwnerRow>,
    pub(super) private: Option<bool>,
    /// Missing on old servers.
    visibility: Option<String>,
    description: Option<String>,
    fork: Option<bool>,
    default_branch: Option<String>,
    clone_url: Option<String>,
    ssh_url: Option<String>,
    html_url: Option<String>,
    archived: Option<bool>,
    disabled: Option<bool>,
    size: Option<i64>,
    pushed_at: Option<String>,
    updated_at: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    permissions: Option<Permissions>,
}

#[derive(Debug, Clone, Deserialize)]
struct OwnerRow {
    id: Id,
    login: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    html_url: Option<String>,
}

/// `maintain` and `triage` are missing on rows of old servers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Permissions {
    admin: bool,
    maintain: bool,
    push: bool,
    triage: bool,
    pull: bool,
}

/// What an App's listing wraps its rows in.
#[derive(Debug, Deserialize)]
struct Envelope {
    total_count: Option<u64>,
    repositories: Vec<Option<RepositoryRow>>,
}

/// The rows of a listing, and how many there are in all, which only an App's listing tells.
///
/// # Errors
///
/// `Failed` for anything but repositories of a sensible number.
pub(super) fn repositories(answer: &Answer) -> Result<(Vec<RepositoryRow>, Option<u64>), ProviderError> {
    // A link may lead from one form of path to another, so it is the answer that tells which listing it is of.
    let is_envelope = answer.body.trim_ascii_start().starts_with(b"{");
    let (rows, total) = if is_envelope {
        let envelope: Envelope = answer.json()?;
        (envelope.repositories, envelope.total_count)
    } else {
        (answer.json()?, None)
    };
    // Some lists have a null where a row belongs: `go-scm/reposWithNull.json`.
    Ok((bounded(rows)?.into_iter().flatten().collect(), total))
}

impl RepositoryRow {
    /// The row as a repository of the instance at `api`.
    pub(super) fn into_repository(self, api: &Url) -> Repository {
        let clone_https_url = self.clone_url.as_deref().map_or_else(String::new, web_link);
        let permission = self.permission();
        let visibility = self.visibility();
        let update_time = self.update_time();
        let (parent, path) = self.full_name.rsplit_once('/').unwrap_or(("", &self.full_name));
        clean_repository(Repository {
            provider_id: self.id.0.to_string(),
            namespace: self.owner.map_or_else(|| parent.to_owned(), |owner| owner.login),
            display_name: self.name.unwrap_or_else(|| path.to_owned()),
            description: self.description.unwrap_or_default(),
            // An empty repository names one too, and no member tells that it is empty.
            default_branch: self.default_branch.filter(|branch| !branch.is_empty()),
            foreign_clone_host: is_foreign(&clone_https_url, &web(api)),
            clone_https_url,
            clone_ssh_url: self.ssh_url.as_deref().map_or_else(String::new, ssh_link),
            web_url: self.html_url.as_deref().map_or_else(String::new, web_link),
            visibility,
            archived: self.archived,
            disabled: self.disabled == Some(true),
            fork: self.fork,
            size_kib: self.size.filter(|size| *size >= 0),
            update_time,
            permission,
            full_name: self.full_name,
        })
    }

    fn visibility(&self) -> Visibility {
        match (self.visibility.as_deref(), self.private) {
            (Some("public"), _) | (None, Some(false)) => Visibility::Public,
            (Some("internal"), _) => Visibility::Internal,
            (Some("private"), _) | (None, Some(true)) => Visibility::Private,
            _ => Visibility::Unknown,
        }
    }

    /// The later one: of the code, or of anything else.
    fn update_time(&self) -> Option<Timestamp> {
        let at = |text: &Option<String>| text.as_deref().and_then(moment);
        at(&self.pushed_at).max(at(&self.updated_at))
    }

    pub(super) fn permission(&self) -> Permission {
        match &self.permissions {
            Some(Permissions { admin: true, .. }) => Permission::Admin,
            Some(Permissions { maintain: true, .. } | Permissions { push: true, .. }) => Permission::Write,
            Some(Permissions { triage: true, .. } | Permissions { pull: true, .. }) => Permission::Read,
            _ => Permission::Unknown,
        }
    }

    /// Whether its settings can be asked for at all.
    pub(super) fn is_open(&self) -> bool {
        self.archived != Some(true) && self.disabled != Some(true)
    }

    /// The hosts that the row's own links name, in lower case.
    pub(super) fn link_hosts(&self) -> Vec<String> {
        [self.clone_url.as_deref(), self.html_url.as_deref()].into_iter().flatten().filter_map(host).collect()
    }

    /// Who owns it, as a namespace.
    pub(super) fn owner(&self) -> Option<Namespace> {
        let owner = self.owner.clone()?;
        Some(clean_namespace(Namespace {
            provider_id: owner.id.0.to_string(),
            display_name: owner.login.clone(),
            kind: match owner.kind.as_deref() {
                Some("User") => NamespaceKind::User,
                _ => NamespaceKind::Organization,
            },
            parent_path: String::new(),
            web_url: owner.html_url.as_deref().map_or_else(String::new, web_link),
            full_path: owner.login,
        }))
    }

    pub(super) fn default_branch(self) -> String {
        self.default_branch.unwrap_or_default()
    }
}

/// An organization of `/user/orgs`.
#[derive(Debug, Deserialize)]
pub(super) struct OrganizationRow {
    id: Id,
    login: String,
    /// Of the API: the row has no link for a browser.
    url: Option<String>,
}

/// The organizations of a page; errors as [`repositories`].
pub(super) fn organizations(answer: &Answer) -> Result<Vec<OrganizationRow>, ProviderError> {
    let rows: Vec<Option<OrganizationRow>> = answer.json()?;
    Ok(bounded(rows)?.into_iter().flatten().collect())
}

impl OrganizationRow {
    /// The row as a namespace of the instance at `api`.
    pub(super) fn into_namespace(self, api: &Url) -> Namespace {
        let mut page = web(&self.url.as_deref().and_then(cloud_api).unwrap_or_else(|| api.clone()));
        if let Ok(mut path) = page.path_segments_mut() {
            path.pop_if_empty().push(&self.login);
        }
        clean_namespace(Namespace {
            provider_id: self.id.0.to_string(),
            display_name: self.login.clone(),
            kind: NamespaceKind::Organization,
            parent_path: String::new(),
            web_url: page.into(),
            full_path: self.login,
        })
    }
}

/// The token's user, of `/user`.
#[derive(Debug, Deserialize)]
pub(super) struct UserRow {
    id: Id,
    login: String,
    name: Option<String>,
    email: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    html_url: Option<String>,
}

impl UserRow {
    /// The account that it describes.
    pub(super) fn account(&self) -> Account {
        Account {
            id: self.id.0.to_string(),
            login: clean(&self.login),
            display_name: self.name.as_deref().map_or_else(String::new, clean),
            email: self.email.as_deref().map_or_else(String::new, clean),
            bot: self.kind.as_deref() == Some("Bot"),
        }
    }

    /// The space that holds the user's own repositories.
    pub(super) fn into_namespace(self) -> Namespace {
        clean_namespace(Namespace {
            provider_id: self.id.0.to_string(),
            display_name: self.name.filter(|name| !name.is_empty()).unwrap_or_else(|| self.login.clone()),
            kind: NamespaceKind::User,
            parent_path: String::new(),
            web_url: self.html_url.as_deref().map_or_else(String::new, web_link),
            full_path: self.login,
        })
    }
}

/// The server, of `/meta`; only Enterprise Server names its version.
#[derive(Debug, Deserialize)]
pub(super) struct MetaRow {
    pub(super) installed_version: Option<String>,
}

/// A branch or a tag. A tag's commit is that behind the tag object: `exchanges/tags-page1-200.json`.
#[derive(Debug, Deserialize)]
pub(super) struct RefRow {
    name: String,
    commit: Option<CommitRow>,
    protected: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct CommitRow {
    sha: String,
}

impl RefRow {
    /// The row as a ref of a repository with that default branch; `None` if its name is none.
    pub(super) fn into_ref(self, kind: RefKind, default_branch: &str) -> Option<Ref> {
        clean_ref(Ref {
            is_default: kind == RefKind::Branch && self.name == default_branch,
            name: self.name,
            kind,
            commit_id: self.commit.map(|commit| commit.sha).unwrap_or_default(),
            protected: self.protected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    fn api() -> Url {
        Url::parse("https://api.github.com/").expect("a URL")
    }

    fn recorded(text: &str) -> serde_json::Value {
        let exchange: serde_json::Value = serde_json::from_str(text).expect("fixture");
        exchange["response"]["body"].clone()
    }

    fn single() -> serde_json::Value {
        recorded(include_str!("../../../tests/fixtures/providers/github/exchanges/repo-200-with-etag.json"))
    }

    fn with(changes: &[(&str, serde_json::Value)]) -> Repository {
        let mut row = single();
        for (name, value) in changes {
            row[*name] = value.clone();
        }
        // Through text, as answers come.
        let row: RepositoryRow = serde_json::from_str(&row.to_string()).expect("a row");
        row.into_repository(&api())
    }

    fn listed(body: &str) -> Result<(Vec<RepositoryRow>, Option<u64>), ProviderError> {
        repositories(&test_answer(200, &[("content-type", "application/json")], body))
    }

    #[test]
    fn a_recorded_repository_is_mapped_as_documented() {
        let found = with(&[]);
        assert_eq!(found.provider_id, "206888201");
        assert_eq!(
            (found.full_name.as_str(), found.namespace.as_str()),
            ("hub4j-test-org/github-api", "hub4j-test-org")
        );
        assert_eq!(found.display_name, "github-api");
        assert_eq!(found.default_branch.as_deref(), Some("main"));
        assert_eq!(found.clone_https_url, "https://github.com/hub4j-test-org/github-api.git");
        assert_eq!(found.clone_ssh_url, "git@github.com:hub4j-test-org/github-api.git");
        assert_eq!(found.web_url, "https://github.com/hub4j-test-org/github-api");
        assert_eq!(found.visibility, Visibility::Public);
        assert_eq!((found.archived, found.fork, found.disabled), (Some(false), Some(true), false));
        assert!(found.update_time.is_some() && found.size_kib.is_some() && !found.foreign_clone_host);
        assert_eq!(found.permission, Permission::Admin);
    }

    #[test]
    fn a_recorded_page_is_read_whole() {
        let page =
            include_str!("../../../tests/fixtures/providers/github/exchanges/user-repos-page1-200.json");
        let (rows, total) = listed(&recorded(page).to_string()).expect("rows");
        assert_eq!((rows.len(), total), (30, None));
        let nulls = include_str!("../../../tests/fixtures/providers/github/go-scm/reposWithNull.json");
        let all: Vec<serde_json::Value> = serde_json::from_str(nulls).expect("fixture");
        let (rows, _) = listed(nulls).expect("rows");
        assert!(rows.len() < all.len() && !rows.is_empty());
    }

    #[test]
    fn the_listing_of_an_app_comes_in_an_envelope() {
        let text = include_str!("../../../tests/fixtures/providers/github/go-scm/github_app_repos.json");
        let (rows, total) = listed(text).expect("rows");
        assert_eq!(total, Some(1));
        assert_eq!(rows.len(), 1);
        assert!(listed("{}").is_err());
    }

    #[test]
    fn every_role_has_its_permission() {
        let of = |roles: serde_json::Value| with(&[("permissions", roles)]).permission;
        let json = |text: &str| serde_json::from_str(text).expect("JSON");
        assert_eq!(of(json(r#"{"admin":true,"push":true,"pull":true}"#)), Permission::Admin);
        assert_eq!(of(json(r#"{"admin":false,"maintain":true,"push":true,"pull":true}"#)), Permission::Write);
        assert_eq!(of(json(r#"{"push":false,"triage":true,"pull":true}"#)), Permission::Read);
        assert_eq!(of(json(r#"{"admin":false,"push":false,"pull":true}"#)), Permission::Read);
        for none in ["{}", "null", "\"odd\"", r#"{"admin":false,"push":false,"pull":false}"#] {
            assert_eq!(of(json(none)), Permission::Unknown, "{none}");
        }
    }

    #[test]
    fn an_old_server_tells_only_what_is_private() {
        let old =
            |private: bool| with(&[("visibility", serde_json::Value::Null), ("private", private.into())]);
        assert_eq!(old(true).visibility, Visibility::Private);
        assert_eq!(old(false).visibility, Visibility::Public);
        let internal = with(&[("visibility", "internal".into()), ("private", true.into())]);
        assert_eq!(internal.visibility, Visibility::Internal);
        assert_eq!(with(&[("visibility", "galactic".into())]).visibility, Visibility::Unknown);
    }

    #[test]
    fn missing_members_stay_open() {
        let null = serde_json::Value::Null;
        let found = with(&[
            ("archived", null.clone()),
            ("size", null.clone()),
            ("pushed_at", null.clone()),
            ("updated_at", null.clone()),
            ("owner", null.clone()),
            ("description", null),
        ]);
        assert_eq!((found.archived, found.size_kib, found.update_time), (None, None, None));
        assert_eq!((found.namespace.as_str(), found.description.as_str()), ("hub4j-test-org", ""));
        assert!(with(&[("disabled", true.into())]).disabled);
    }

    #[test]
    fn the_later_moment_counts() {
        let times = |pushed: &str, updated: &str| {
            with(&[("pushed_at", pushed.into()), ("updated_at", updated.into())]).update_time
        };
        let day = |day: i64| Some(Timestamp::from_unix_seconds(1_704_067_200 + (day - 1) * 86_400));
        assert_eq!(times("2024-01-03T00:00:00Z", "2024-01-02T00:00:00Z"), day(3));
        assert_eq!(times("yesterday", "2024-01-02T00:00:00Z"), day(2));
    }

    #[test]
    fn links_carry_no_user_and_no_script() {
        let found = with(&[
            ("clone_url", "https://x:secret@clone.example/a/b.git".into()),
            ("html_url", "javascript:alert(1)".into()),
        ]);
        assert_eq!(
            (found.clone_https_url.as_str(), found.web_url.as_str()),
            ("https://clone.example/a/b.git", "")
        );
        assert!(found.foreign_clone_host);
    }

    #[test]
    fn h19_a_row_with_a_wrong_id_spoils_its_page() {
        for bad in ["0", "\"1\"", "1.5", "null", "9223372036854775808"] {
            let body = format!("[{{\"id\":{bad},\"full_name\":\"a/b\"}}]");
            assert!(matches!(listed(&body), Err(ProviderError::Failed { .. })), "{bad}");
        }
    }

    #[test]
    fn a_recorded_user_is_mapped() {
        let text =
            include_str!("../../../tests/fixtures/providers/github/exchanges/user-200-fine-grained-pat.json");
        let row: UserRow = serde_json::from_value(recorded(text)).expect("a row");
        let account = row.account();
        assert_eq!((account.id.as_str(), account.login.as_str(), account.bot), ("34072742", "fv316", false));
        // A hidden address is null.
        assert_eq!(account.email, "");
    }

    #[test]
    fn an_organization_has_a_page_although_its_row_names_none() {
        let text = include_str!("../../../tests/fixtures/providers/github/go-scm/orgs.json");
        let rows = organizations(&test_answer(200, &[], text)).expect("rows");
        let gateway = Url::parse("https://gateway.example/hub/api/v3").expect("a URL");
        let pages: Vec<String> = rows.into_iter().map(|row| row.into_namespace(&gateway).web_url).collect();
        assert_eq!(pages[0], "https://github.com/github");
        let row = r#"[{"id":7,"login":"acme","url":"https://git.example/api/v3/orgs/acme"}]"#;
        let rows = organizations(&test_answer(200, &[], row)).expect("rows");
        let server = Url::parse("https://git.example/api/v3").expect("a URL");
        let page = rows.into_iter().next().map(|row| row.into_namespace(&server).web_url);
        assert_eq!(page.as_deref(), Some("https://git.example/acme"));
    }
}
