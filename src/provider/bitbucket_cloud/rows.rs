//! Bitbucket Cloud's JSON, and what it means here. A listing asks for the members that are read alone, which makes
//! its pages a tenth as long (`fields`, a partial response).

use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use url::Url;

use super::endpoint::{cleaned, is_foreign, is_place, is_uuid, ssh_link};
use crate::domain::credential::Account;
use crate::domain::repository::{Namespace, NamespaceKind, Permission, Repository, Visibility};
use crate::provider::ProviderError;
use crate::provider::api::Answer;
use crate::provider::fields::{bounded, lenient, moment};
use crate::provider::inspection::{clean, clean_namespace, clean_repository};

/// The members of a [`RepositoryRow`] in a listing.
pub(super) const REPOSITORY_FIELDS: &str = "size,next,values.uuid,values.full_name,values.name,values.description,\
    values.is_private,values.parent.uuid,values.mainbranch.name,values.size,values.updated_on,values.links.html,\
    values.links.clone,values.workspace.uuid";

/// An id: a UUID in braces. It becomes a part of paths, so nothing else passes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Uuid(pub(super) String);

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        text.make_ascii_lowercase();
        if is_uuid(&text) { Ok(Self(text)) } else { Err(D::Error::custom("an id that is no UUID in braces")) }
    }
}

/// One page of a listing. `size` and `next` may be missing; what is not the last page has a `next`.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) size: Option<u64>,
    next: Option<String>,
    pub(super) values: Vec<T>,
}

impl<T> Envelope<T> {
    /// Where the next page is; empty in some answers, which is the end, too.
    pub(super) fn next(&self) -> Option<&str> {
        self.next.as_deref().filter(|link| !link.is_empty())
    }
}

/// A page of rows.
///
/// # Errors
///
/// `Failed` for anything but an envelope of rows of sensible length.
pub(super) fn page<T: DeserializeOwned>(answer: &Answer) -> Result<Envelope<T>, ProviderError> {
    let page: Envelope<T> = answer.json()?;
    Ok(Envelope { values: bounded(page.values)?, ..page })
}

/// A repository as a listing or a single call shows it.
#[derive(Debug, Deserialize)]
pub(super) struct RepositoryRow {
    pub(super) uuid: Uuid,
    pub(super) full_name: String,
    name: Option<String>,
    description: Option<String>,
    is_private: Option<bool>,
    parent: Option<IgnoredAny>,
    mainbranch: Option<BranchRow>,
    #[serde(default, deserialize_with = "lenient")]
    size: Option<i64>,
    updated_on: Option<String>,
    links: Option<LinksRow>,
    pub(super) workspace: Option<OwnerRow>,
}

#[derive(Debug, Deserialize)]
struct BranchRow {
    name: Option<String>,
}

/// The workspace of a repository.
#[derive(Debug, Deserialize)]
pub(super) struct OwnerRow {
    pub(super) uuid: Uuid,
}

#[derive(Debug, Deserialize)]
struct LinksRow {
    html: Option<LinkRow>,
    #[serde(default)]
    clone: Vec<LinkRow>,
}

#[derive(Debug, Deserialize)]
struct LinkRow {
    name: Option<String>,
    href: String,
}

impl RepositoryRow {
    /// The slug of the workspace: what the full name says before the last part.
    pub(super) fn workspace_slug(&self) -> &str {
        self.full_name.rsplit_once('/').map_or("", |(workspace, _)| workspace)
    }

    /// What names the workspace in a path: the slug, which every call takes, unless it cannot stand there.
    pub(super) fn workspace_segment(&self) -> &str {
        match &self.workspace {
            Some(owner) if !is_place(self.workspace_slug()) => &owner.uuid.0,
            _ => self.workspace_slug(),
        }
    }

    /// The default branch; an empty repository has none.
    pub(super) fn default_branch(&self) -> Option<&str> {
        self.mainbranch.as_ref()?.name.as_deref().filter(|branch| !branch.is_empty())
    }

    /// The row as a repository seen through the endpoint `api`.
    pub(super) fn into_repository(self, api: &Url, permission: Permission) -> Repository {
        let links = self.links.as_ref();
        let clone = |name: &str| {
            let mut all = links.into_iter().flat_map(|links| &links.clone);
            all.find(|link| link.name.as_deref() == Some(name)).map_or("", |link| &link.href)
        };
        let clone_url = cleaned(api, clone("https"));
        let web_url = links.and_then(|links| cleaned(api, &links.html.as_ref()?.href));
        clean_repository(Repository {
            namespace: self.workspace_slug().to_owned(),
            display_name: self.name.clone().unwrap_or_else(|| self.full_name.clone()),
            description: self.description.clone().unwrap_or_default(),
            default_branch: self.default_branch().map(str::to_owned),
            foreign_clone_host: clone_url.as_ref().is_some_and(|link| is_foreign(api, link)),
            clone_https_url: clone_url.map_or_else(String::new, String::from),
            clone_ssh_url: ssh_link(clone("ssh")),
            web_url: web_url.map_or_else(String::new, String::from),
            visibility: match self.is_private {
                Some(true) => Visibility::Private,
                Some(false) => Visibility::Public,
                None => Visibility::Unknown,
            },
            // Nothing of the kind exists there.
            archived: None,
            disabled: false,
            fork: Some(self.parent.is_some()),
            size_kib: self
                .size
                .and_then(|bytes| u64::try_from(bytes).ok())
                .and_then(|bytes| i64::try_from(bytes.div_ceil(1_024)).ok()),
            update_time: self.updated_on.as_deref().and_then(moment),
            permission,
            provider_id: self.uuid.0,
            full_name: self.full_name,
        })
    }
}

/// A row of `/user/workspaces`.
#[derive(Debug, Deserialize)]
pub(super) struct AccessRow {
    pub(super) administrator: Option<bool>,
    pub(super) workspace: WorkspaceRow,
}

/// A workspace.
#[derive(Debug, Deserialize)]
pub(super) struct WorkspaceRow {
    pub(super) uuid: Uuid,
    pub(super) slug: String,
    name: Option<String>,
    links: Option<LinksRow>,
}

impl WorkspaceRow {
    /// The row as a namespace.
    pub(super) fn into_namespace(self, api: &Url) -> Namespace {
        let web_url = self.links.and_then(|links| cleaned(api, &links.html?.href));
        clean_namespace(Namespace {
            provider_id: self.uuid.0,
            display_name: self.name.unwrap_or_else(|| self.slug.clone()),
            kind: NamespaceKind::Workspace,
            parent_path: String::new(),
            web_url: web_url.map_or_else(String::new, String::from),
            full_path: self.slug,
        })
    }
}

/// A row of `/user/workspaces/{workspace}/permissions/repositories`.
#[derive(Debug, Deserialize)]
pub(super) struct PermissionRow {
    permission: String,
    repository: OwnerRow,
}

impl PermissionRow {
    /// What the caller may do, if the row is about that repository.
    pub(super) fn of(&self, repository: &Uuid) -> Option<Permission> {
        (self.repository.uuid == *repository).then_some(match self.permission.as_str() {
            "admin" => Permission::Admin,
            "write" => Permission::Write,
            "read" => Permission::Read,
            _ => Permission::Unknown,
        })
    }
}

/// The token's user, of `/user`.
#[derive(Debug, Deserialize)]
pub(super) struct UserRow {
    uuid: Uuid,
    username: Option<String>,
    nickname: Option<String>,
    display_name: Option<String>,
    account_status: Option<String>,
}

impl UserRow {
    /// Whether the account may be used. The only documented status is `active`.
    pub(super) fn is_blocked(&self) -> bool {
        self.account_status.as_deref().is_some_and(|status| status != "active")
    }

    /// The account that it describes. Its e-mail address needs a call and a scope of its own.
    pub(super) fn account(&self) -> Account {
        let text = |text: &Option<String>| text.as_deref().map_or_else(String::new, clean);
        let username = text(&self.username);
        Account {
            id: self.uuid.0.clone(),
            login: if username.is_empty() { text(&self.nickname) } else { username },
            display_name: text(&self.display_name),
            email: String::new(),
            bot: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::timestamp::Timestamp;
    use crate::provider::api::test_answer;

    fn cloud() -> Url {
        Url::parse("https://api.bitbucket.org/2.0").expect("a URL")
    }

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).expect("fixture")
    }

    /// Through text, as answers come.
    fn row(json: &Value) -> RepositoryRow {
        serde_json::from_str(&json.to_string()).expect("a row")
    }

    fn recorded() -> Value {
        let text =
            include_str!("../../../tests/fixtures/providers/bitbucket-cloud/exchanges/repos-page1-200.json");
        parsed(text)["response"]["body"].clone()
    }

    fn with(changes: &[(&str, Value)]) -> Repository {
        let mut value = recorded()["values"][0].clone();
        for (name, change) in changes {
            value[*name] = change.clone();
        }
        row(&value).into_repository(&cloud(), Permission::Unknown)
    }

    #[test]
    fn a_recorded_page_is_mapped_as_documented() {
        let answer = test_answer(200, &[("content-type", "application/json")], &recorded().to_string());
        let page: Envelope<RepositoryRow> = page(&answer).expect("a page");
        assert_eq!((page.size, page.next().is_some()), (Some(2), true));
        let found = with(&[]);
        assert_eq!(found.provider_id, "{b090a669-ac7b-44cd-9610-02d027cb39f3}");
        assert_eq!(found.full_name, "sourcegraph-testing/src-cli");
        assert_eq!(
            (found.namespace.as_str(), found.display_name.as_str()),
            ("sourcegraph-testing", "src-cli")
        );
        assert_eq!(found.default_branch.as_deref(), Some("master"));
        assert_eq!(found.clone_https_url, "https://bitbucket.org/sourcegraph-testing/src-cli.git");
        assert_eq!(found.clone_ssh_url, "git@ssh.bitbucket.org:sourcegraph-testing/src-cli.git");
        assert_eq!(found.web_url, "https://bitbucket.org/sourcegraph-testing/src-cli");
        assert_eq!(found.visibility, Visibility::Private);
        assert_eq!((found.archived, found.fork, found.disabled), (None, Some(false), false));
        assert_eq!(found.size_kib, Some(3_419));
        assert_eq!(found.update_time, Some(Timestamp::from_unix_micros(1_647_515_869_067_413)));
        assert!(!found.foreign_clone_host);
    }

    #[test]
    fn older_rows_and_partial_ones_are_read_too() {
        let text = include_str!("../../../tests/fixtures/providers/bitbucket-cloud/go-scm/repos.json");
        let old = row(&parsed(text)["values"][0]).into_repository(&cloud(), Permission::Read);
        assert_eq!(
            (old.full_name.as_str(), old.permission),
            ("atlassian/stash-example-plugin", Permission::Read)
        );
        assert_eq!(old.clone_https_url, "https://bitbucket.org/atlassian/stash-example-plugin.git");
        let bare = row(&json!({"uuid": "{B090A669-AC7B-44CD-9610-02D027CB39F3}", "full_name": "a/b"}));
        let bare = bare.into_repository(&cloud(), Permission::Unknown);
        assert_eq!(bare.provider_id, "{b090a669-ac7b-44cd-9610-02d027cb39f3}");
        assert_eq!((bare.visibility, bare.size_kib, bare.default_branch), (Visibility::Unknown, None, None));
        assert!(bare.clone_https_url.is_empty() && bare.web_url.is_empty());
    }

    #[test]
    fn open_and_missing_members_stay_open() {
        assert_eq!(with(&[("mainbranch", Value::Null)]).default_branch, None);
        assert_eq!(with(&[("parent", json!({"uuid": "{x}"}))]).fork, Some(true));
        assert_eq!(with(&[("parent", Value::Null)]).fork, Some(false));
        assert_eq!(with(&[("is_private", false.into())]).visibility, Visibility::Public);
        assert_eq!(with(&[("size", (-1).into())]).size_kib, None);
        assert_eq!(with(&[("size", "large".into())]).size_kib, None);
        assert_eq!(with(&[("updated_on", "yesterday".into())]).update_time, None);
    }

    #[test]
    fn h19_an_id_is_a_uuid_in_braces() {
        for bad in [
            "17",
            "\"17\"",
            "17.5",
            "1e400",
            "null",
            "\"b090a669-ac7b-44cd-9610-02d027cb39f3\"",
            "\"{../../hooks}\"",
        ] {
            assert!(serde_json::from_str::<Uuid>(bad).is_err(), "{bad}");
            let body = format!("{{\"values\":[{{\"uuid\":{bad},\"full_name\":\"a/b\"}}]}}");
            let answer = test_answer(200, &[("content-type", "application/json")], &body);
            assert!(matches!(page::<RepositoryRow>(&answer), Err(ProviderError::Failed { .. })), "{bad}");
        }
    }

    #[test]
    fn h31_a_size_is_a_number() {
        for bad in ["\"abc\"", "-1", "1.5", "18446744073709551616"] {
            let body = format!("{{\"values\":[],\"size\":{bad}}}");
            let answer = test_answer(200, &[("content-type", "application/json")], &body);
            assert!(page::<RepositoryRow>(&answer).is_err(), "{bad}");
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
    fn workspaces_come_with_and_without_links_and_an_empty_next_is_the_end() {
        let text =
            include_str!("../../../tests/fixtures/providers/bitbucket-cloud/go-scm/user_workspaces.json");
        let answer = test_answer(200, &[("content-type", "application/json")], text);
        let page: Envelope<AccessRow> = page(&answer).expect("a page");
        assert_eq!(page.next(), None);
        let space = page.values.into_iter().next().expect("a row").workspace.into_namespace(&cloud());
        assert_eq!((space.full_path.as_str(), space.display_name.as_str()), ("my-workspace", "My Workspace"));
        assert_eq!(
            (space.kind, space.web_url.as_str()),
            (NamespaceKind::Workspace, "https://bitbucket.org/my-workspace/")
        );
        let bare = r#"{"uuid":"{123e4567-e89b-12d3-a456-426614174000}","slug":"w"}"#;
        let bare: WorkspaceRow = serde_json::from_str(bare).expect("a row");
        assert_eq!(bare.into_namespace(&cloud()).display_name, "w");
    }

    #[test]
    fn a_permission_counts_for_its_own_repository() {
        let text = include_str!("../../../tests/fixtures/providers/bitbucket-cloud/go-scm/perms.json");
        let answer = test_answer(200, &[("content-type", "application/json")], text);
        let page: Envelope<PermissionRow> = page(&answer).expect("a page");
        let id = |text: &str| serde_json::from_str::<Uuid>(&format!("\"{text}\"")).expect("an id");
        let row = &page.values[0];
        assert_eq!(row.of(&id("{c179f544-ba1f-4ea9-bd8f-2b2c1efa4046}")), Some(Permission::Admin));
        assert_eq!(row.of(&id("{00000000-0000-4000-8000-000000000000}")), None);
    }

    #[test]
    fn a_user_is_named_by_uuid_and_by_what_people_call_it() {
        let text = include_str!(
            "../../../tests/fixtures/providers/bitbucket-cloud/exchanges/user-200-app-password.json"
        );
        let user: UserRow =
            serde_json::from_str(&parsed(text)["response"]["body"].to_string()).expect("a user");
        let account = user.account();
        assert_eq!(account.id, "{4b85b785-1433-4092-8512-20302f4a03be}");
        assert_eq!(
            (account.login.as_str(), account.display_name.as_str()),
            ("sourcegraph-testing", "Sourcegraph Testing")
        );
        assert!(!user.is_blocked());
        let newer =
            r#"{"uuid":"{4b85b785-1433-4092-8512-20302f4a03be}","nickname":"sam","account_status":"closed"}"#;
        let newer: UserRow = serde_json::from_str(newer).expect("a user");
        assert_eq!(newer.account().login, "sam");
        assert!(newer.is_blocked());
    }
}
