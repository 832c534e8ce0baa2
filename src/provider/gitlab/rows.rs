//! GitLab's JSON, and what it means here.

use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use crate::domain::credential::Account;
use crate::domain::repository::{Namespace, NamespaceKind, Permission, Repository, Visibility};
use crate::domain::timestamp::Timestamp;
use crate::provider::ProviderError;
use crate::provider::api::Answer;
use crate::provider::fields::{Id, bounded, lenient, moment};
use crate::provider::inspection::{clean, clean_namespace, clean_repository};
use crate::provider::links::{host, is_foreign, ssh_link, web_link};

/// A project as a listing or a single call shows it.
#[derive(Debug, Deserialize)]
pub(super) struct ProjectRow {
    pub(super) id: Id,
    pub(super) path_with_namespace: String,
    name: Option<String>,
    description: Option<String>,
    namespace: Option<NamespaceRow>,
    default_branch: Option<String>,
    empty_repo: Option<bool>,
    http_url_to_repo: Option<String>,
    ssh_url_to_repo: Option<String>,
    web_url: Option<String>,
    visibility: Option<String>,
    archived: Option<bool>,
    repository_access_level: Option<String>,
    forked_from_project: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "lenient")]
    statistics: Option<Statistics>,
    last_activity_at: Option<String>,
    // The description says that this is a string; servers send an object.
    #[serde(default, deserialize_with = "lenient")]
    permissions: Option<Permissions>,
    #[serde(rename = "_links", default, deserialize_with = "lenient")]
    links: Option<Links>,
}

#[derive(Debug, Deserialize)]
struct NamespaceRow {
    full_path: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Statistics {
    repository_size: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Permissions {
    project_access: Option<Access>,
    group_access: Option<Access>,
}

#[derive(Debug, Deserialize)]
struct Access {
    access_level: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Links {
    #[serde(rename = "self")]
    own: Option<String>,
}

/// The rows of a listing.
///
/// # Errors
///
/// `Failed` for anything but an array of projects of sensible length.
pub(super) fn projects(answer: &Answer) -> Result<Vec<ProjectRow>, ProviderError> {
    bounded(answer.json()?)
}

/// The groups of a listing; errors as [`projects`].
pub(super) fn groups(answer: &Answer) -> Result<Vec<GroupRow>, ProviderError> {
    bounded(answer.json()?)
}

impl ProjectRow {
    /// The row as a repository of the instance at `api`.
    pub(super) fn into_repository(self, api: &Url) -> Repository {
        let clone_https_url = self.http_url_to_repo.as_deref().map_or_else(String::new, web_link);
        let clone_ssh_url = self.ssh_url_to_repo.as_deref().map_or_else(String::new, ssh_link);
        let permission = self.permission();
        let (parent, path) =
            self.path_with_namespace.rsplit_once('/').unwrap_or(("", &self.path_with_namespace));
        let namespace = self.namespace.and_then(|namespace| namespace.full_path);
        clean_repository(Repository {
            provider_id: self.id.0.to_string(),
            namespace: namespace.unwrap_or_else(|| parent.to_owned()),
            display_name: self.name.unwrap_or_else(|| path.to_owned()),
            description: self.description.unwrap_or_default(),
            // An empty project shows the instance's initial branch name, although there is no such branch.
            default_branch: self
                .default_branch
                .filter(|branch| !branch.is_empty() && self.empty_repo != Some(true)),
            foreign_clone_host: is_foreign(&clone_https_url, api),
            clone_https_url,
            clone_ssh_url,
            web_url: self.web_url.as_deref().map_or_else(String::new, web_link),
            visibility: match self.visibility.as_deref() {
                Some("public") => Visibility::Public,
                Some("internal") => Visibility::Internal,
                Some("private") => Visibility::Private,
                _ => Visibility::Unknown,
            },
            archived: self.archived,
            disabled: self.repository_access_level.as_deref() == Some("disabled"),
            fork: Some(self.forked_from_project.is_some()),
            size_kib: self
                .statistics
                .and_then(|statistics| statistics.repository_size)
                .and_then(|bytes| u64::try_from(bytes).ok())
                .and_then(|bytes| i64::try_from(bytes.div_ceil(1_024)).ok()),
            update_time: self.last_activity_at.as_deref().and_then(moment),
            permission,
            full_name: self.path_with_namespace,
        })
    }

    /// The higher of the two levels. Neither knows invited groups, so nothing there proves nothing.
    fn permission(&self) -> Permission {
        let level = |access: Option<&Access>| access.and_then(|access| access.access_level);
        let permissions = self.permissions.as_ref();
        let project = level(permissions.and_then(|both| both.project_access.as_ref()));
        let group = level(permissions.and_then(|both| both.group_access.as_ref()));
        match project.max(group) {
            Some(40..) => Permission::Admin,
            Some(30..) => Permission::Write,
            Some(10..) => Permission::Read,
            _ => Permission::Unknown,
        }
    }

    /// The hosts that the row's own links name, in lower case.
    pub(super) fn link_hosts(&self) -> Vec<String> {
        [
            self.http_url_to_repo.as_deref(),
            self.web_url.as_deref(),
            self.links.as_ref().and_then(|links| links.own.as_deref()),
        ]
        .into_iter()
        .flatten()
        .filter_map(host)
        .collect()
    }
}

/// A group of `/groups`.
#[derive(Debug, Deserialize)]
pub(super) struct GroupRow {
    id: Id,
    full_path: String,
    name: Option<String>,
    web_url: Option<String>,
}

impl GroupRow {
    /// The row as a namespace.
    pub(super) fn into_namespace(self) -> Namespace {
        let (parent, path) = self.full_path.rsplit_once('/').unwrap_or(("", &self.full_path));
        clean_namespace(Namespace {
            provider_id: self.id.0.to_string(),
            display_name: self.name.unwrap_or_else(|| path.to_owned()),
            kind: NamespaceKind::Group,
            parent_path: parent.to_owned(),
            web_url: self.web_url.as_deref().map_or_else(String::new, web_link),
            full_path: self.full_path,
        })
    }
}

/// The token's user, of `/user`.
#[derive(Debug, Deserialize)]
pub(super) struct UserRow {
    pub(super) id: Id,
    username: String,
    name: Option<String>,
    email: Option<String>,
    state: Option<String>,
    bot: Option<bool>,
    web_url: Option<String>,
    namespace_id: Option<Id>,
}

impl UserRow {
    /// Whether the account may be used. The state is an open list; only these two shut it out.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.state.as_deref(), Some("blocked" | "banned" | "deactivated" | "ldap_blocked"))
    }

    /// The account that it describes.
    pub(super) fn account(&self) -> Account {
        Account {
            id: self.id.0.to_string(),
            login: clean(&self.username),
            display_name: self.name.as_deref().map_or_else(String::new, clean),
            email: self.email.as_deref().map_or_else(String::new, clean),
            // Project and group tokens have a user of their own; its name is reserved.
            bot: self.bot == Some(true) || is_token_bot(&self.username),
        }
    }

    /// The space that holds the user's own projects; `None` for a bot, which has no projects.
    pub(super) fn into_namespace(self) -> Option<Namespace> {
        if self.bot == Some(true) || is_token_bot(&self.username) {
            return None;
        }
        Some(clean_namespace(Namespace {
            // Older versions do not tell the namespace; the user's own number is as stable.
            provider_id: self.namespace_id.unwrap_or(self.id).0.to_string(),
            display_name: self.name.unwrap_or_else(|| self.username.clone()),
            kind: NamespaceKind::User,
            parent_path: String::new(),
            web_url: self.web_url.as_deref().map_or_else(String::new, web_link),
            full_path: self.username,
        }))
    }
}

/// `project_{id}_bot_{hash}` or `group_{id}_bot_{hash}`.
fn is_token_bot(username: &str) -> bool {
    let rest = username.strip_prefix("project_").or_else(|| username.strip_prefix("group_"));
    rest.and_then(|rest| rest.split_once("_bot"))
        .is_some_and(|(id, _)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The token itself, of `/personal_access_tokens/self`.
#[derive(Debug, Deserialize)]
pub(super) struct TokenRow {
    #[expect(dead_code, reason = "its presence is what makes the answer a token")]
    id: Id,
    pub(super) scopes: Vec<String>,
    pub(super) expires_at: Option<String>,
    pub(super) active: Option<bool>,
    pub(super) revoked: Option<bool>,
    pub(super) user_id: Option<Id>,
    pub(super) granular: Option<bool>,
}

impl TokenRow {
    /// The moment at which the token ends: 00:00 UTC of its last day's date.
    pub(super) fn expire_time(&self) -> Option<Timestamp> {
        let format = time::macros::format_description!("[year]-[month]-[day]");
        let text = self.expires_at.as_deref()?;
        let date = time::Date::parse(text.get(..10)?, &format).ok()?;
        Some(Timestamp::from_unix_seconds(date.midnight().assume_utc().unix_timestamp()))
    }
}

/// An OAuth token, of `/oauth/token/info`.
#[derive(Debug, Deserialize)]
pub(super) struct OauthRow {
    pub(super) scope: Vec<String>,
    pub(super) expires_in: Option<i64>,
    pub(super) resource_owner_id: Option<Id>,
}

/// The server, of `/metadata` and `/version`.
#[derive(Debug, Deserialize)]
pub(super) struct VersionRow {
    pub(super) version: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::api::test_answer;

    fn api() -> Url {
        Url::parse("https://gitlab.com/api/v4").expect("a URL")
    }

    fn repository(json: serde_json::Value) -> Repository {
        // Through text, as answers come.
        let row: ProjectRow = serde_json::from_str(&json.to_string()).expect("a row");
        row.into_repository(&api())
    }

    fn recorded() -> serde_json::Value {
        let text = include_str!("../../../tests/fixtures/providers/gitlab/go-scm/repo.json");
        serde_json::from_str(text).expect("fixture")
    }

    fn with(changes: &[(&str, serde_json::Value)]) -> Repository {
        let mut row = recorded();
        for (name, value) in changes {
            row[*name] = value.clone();
        }
        repository(row)
    }

    #[test]
    fn a_recorded_project_is_mapped_as_documented() {
        let found = repository(recorded());
        assert_eq!(found.provider_id, "178504");
        assert_eq!(found.full_name, "diaspora/diaspora");
        assert_eq!(found.namespace, "diaspora");
        assert_eq!(found.display_name, "Diaspora");
        assert_eq!(found.default_branch.as_deref(), Some("master"));
        assert_eq!(found.clone_https_url, "https://gitlab.com/diaspora/diaspora.git");
        assert_eq!(found.clone_ssh_url, "git@gitlab.com:diaspora/diaspora.git");
        assert_eq!(found.visibility, Visibility::Public);
        assert_eq!((found.archived, found.fork, found.disabled), (Some(false), Some(false), false));
        assert_eq!(found.update_time, Some(Timestamp::from_unix_micros(1_425_407_840_795_000)));
        assert_eq!((found.size_kib, found.foreign_clone_host), (None, false));
        // Both levels are null: nothing is known.
        assert_eq!(found.permission, Permission::Unknown);
    }

    #[test]
    fn an_anonymous_row_tells_little() {
        let text = include_str!(
            "../../../tests/fixtures/providers/gitlab/exchanges/project-200-unauthenticated.json"
        );
        let exchange: serde_json::Value = serde_json::from_str(text).expect("fixture");
        let found = repository(exchange["response"]["body"].clone());
        assert_eq!((found.visibility, found.permission), (Visibility::Unknown, Permission::Unknown));
        assert_eq!((found.archived, found.size_kib), (None, None));
    }

    #[test]
    fn the_higher_level_counts() {
        let level = |project: serde_json::Value, group: serde_json::Value| {
            with(&[("permissions", serde_json::json!({"project_access": project, "group_access": group}))])
                .permission
        };
        let at = |level: i64| serde_json::json!({"access_level": level, "notification_level": 3});
        assert_eq!(level(at(20), at(40)), Permission::Admin);
        assert_eq!(level(at(50), serde_json::Value::Null), Permission::Admin);
        assert_eq!(level(at(30), at(10)), Permission::Write);
        for reader in [10, 15, 20] {
            assert_eq!(level(serde_json::Value::Null, at(reader)), Permission::Read);
        }
        assert_eq!(level(at(5), at(0)), Permission::Unknown);
        assert_eq!(with(&[("permissions", "a string".into())]).permission, Permission::Unknown);
    }

    #[test]
    fn an_empty_project_has_no_default_branch() {
        assert_eq!(
            with(&[("empty_repo", true.into()), ("default_branch", "main".into())]).default_branch,
            None
        );
        assert_eq!(with(&[("default_branch", serde_json::Value::Null)]).default_branch, None);
    }

    #[test]
    fn open_and_missing_members_stay_open() {
        assert_eq!(with(&[("visibility", "galactic".into())]).visibility, Visibility::Unknown);
        assert_eq!(with(&[("archived", serde_json::Value::Null)]).archived, None);
        assert_eq!(with(&[("statistics", serde_json::json!({"repository_size": 1_025}))]).size_kib, Some(2));
        assert_eq!(with(&[("statistics", serde_json::json!({"repository_size": -1}))]).size_kib, None);
        assert_eq!(with(&[("forked_from_project", serde_json::json!({"id": 1}))]).fork, Some(true));
        assert!(with(&[("repository_access_level", "disabled".into())]).disabled);
        assert_eq!(with(&[("last_activity_at", "yesterday".into())]).update_time, None);
    }

    #[test]
    fn links_carry_no_user_and_no_script() {
        let found = with(&[
            ("http_url_to_repo", "https://oauth2:secret@clone.example/diaspora/diaspora.git".into()),
            ("ssh_url_to_repo", "ssh://git:secret@git.example:2222/diaspora/diaspora.git".into()),
            ("web_url", "javascript:alert(1)".into()),
        ]);
        assert_eq!(found.clone_https_url, "https://clone.example/diaspora/diaspora.git");
        assert_eq!(found.clone_ssh_url, "ssh://git@git.example:2222/diaspora/diaspora.git");
        assert_eq!(found.web_url, "");
        assert!(found.foreign_clone_host);
    }

    #[test]
    fn h19_an_id_is_a_whole_positive_number_below_2_to_the_63() {
        let parse = |id: &str| serde_json::from_str::<Id>(id).is_ok();
        assert!(parse("1") && parse("9223372036854775807"));
        for bad in ["0", "-1", "\"1\"", "1.5", "1.0", "1e400", "9223372036854775808", "null", "[]"] {
            assert!(!parse(bad), "{bad}");
            let body = format!("[{{\"id\":{bad},\"path_with_namespace\":\"a/b\"}}]");
            let answer = test_answer(200, &[("content-type", "application/json")], &body);
            assert!(matches!(projects(&answer), Err(ProviderError::Failed { .. })), "{bad}");
        }
    }

    #[test]
    fn h21_h22_a_hostile_name_is_kept_and_its_texts_for_people_are_clean() {
        let found = with(&[
            ("path_with_namespace", "acme/..%2f\0..%2fetc".into()),
            ("name", "nul\0byte".into()),
            ("description", "two\r\nlines \u{1b}[31m\u{202e}txt".into()),
        ]);
        assert_eq!(
            (found.full_name.as_str(), found.display_name.as_str(), found.description.as_str()),
            ("acme/..%2f\0..%2fetc", "nulbyte", "two lines [31mtxt")
        );
    }

    #[test]
    fn a_token_ends_at_midnight_utc_of_its_date() {
        let text =
            include_str!("../../../tests/fixtures/providers/gitlab/gitlab4j/personal-access-token.json");
        let row: TokenRow = serde_json::from_str(text).expect("fixture");
        assert_eq!(row.expire_time(), Some(Timestamp::from_unix_seconds(1_692_057_600)));
        assert_eq!(row.scopes, ["api"]);
    }

    #[test]
    fn token_bots_are_bots() {
        assert!(is_token_bot("project_1001_bot_4ffca233d8298ea1"));
        assert!(is_token_bot("group_7_bot"));
        assert!(!is_token_bot("project_bot_owner"));
        let text = include_str!("../../../tests/fixtures/providers/gitlab/go-scm/user.json");
        let row: UserRow = serde_json::from_str(text).expect("fixture");
        let account = row.account();
        assert_eq!((account.id.as_str(), account.login.as_str(), account.bot), ("1", "john_smith", false));
    }

    #[test]
    fn a_group_names_its_parent() {
        let row: GroupRow = serde_json::from_str(
            r#"{"id": 7, "full_path": "a/b/c", "name": "C", "web_url": "https://g/groups/a/b/c"}"#,
        )
        .expect("a row");
        let namespace = row.into_namespace();
        assert_eq!((namespace.parent_path.as_str(), namespace.full_path.as_str()), ("a/b", "a/b/c"));
    }
}
