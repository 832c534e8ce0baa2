//! The JSON of Azure DevOps, and what becomes of it. Unknown fields and unknown values are ignored: the
//! service sends more than its description says (`visibility: "organization"`).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::url::{cleaned, is_foreign, join};
use crate::domain::credential::Account;
use crate::domain::repository::{Namespace, NamespaceKind, Permission, Repository, Visibility};
use crate::provider::fields::moment;
use crate::provider::inspection::{clean, clean_namespace, clean_repository};

/// The id under which the service treats a caller without a token, or with one that it does not know.
pub(super) const ANONYMOUS_ID: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";
const ZERO_ID: &str = "00000000-0000-0000-0000-000000000000";

/// The envelope of a list. Its `count` repeats the length, so it is not read.
#[derive(Debug, Deserialize)]
pub(super) struct Rows<T> {
    pub(super) value: Vec<T>,
}

/// A project, alone or inside a repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProjectRow {
    #[serde(deserialize_with = "guid")]
    pub(super) id: String,
    pub(super) name: String,
    visibility: Option<String>,
    last_update_time: Option<String>,
}

/// A repository.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RepositoryRow {
    #[serde(deserialize_with = "guid")]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) project: ProjectRow,
    default_branch: Option<String>,
    pub(super) remote_url: Option<String>,
    ssh_url: Option<String>,
    web_url: Option<String>,
    size: Option<i64>,
    is_disabled: Option<bool>,
    is_fork: Option<bool>,
}

/// What an error says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ErrorRow {
    pub(super) message: Option<String>,
    pub(super) type_key: Option<String>,
}

/// `_apis/connectionData`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionRow {
    authenticated_user: Option<IdentityRow>,
    pub(super) instance_id: Option<String>,
    pub(super) deployment_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityRow {
    id: Option<String>,
    descriptor: Option<String>,
    subject_descriptor: Option<String>,
    provider_display_name: Option<String>,
    custom_display_name: Option<String>,
    properties: Option<IdentityProperties>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IdentityProperties {
    account: Option<PropertyRow>,
}

#[derive(Debug, Deserialize)]
struct PropertyRow {
    #[serde(rename = "$value")]
    value: Option<String>,
}

/// Whom the provider took the caller for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// Somebody.
    Known(Account),
    /// Nobody: an organization with public projects answers to anybody.
    Anonymous,
    /// The answer names no user at all.
    Absent,
}

impl ConnectionRow {
    /// Whose token it is.
    pub(super) fn identity(self) -> Identity {
        let Some(user) = self.authenticated_user else { return Identity::Absent };
        let is_public_access = |descriptor: &Option<String>| {
            descriptor.as_ref().is_some_and(|d| d.starts_with("System:PublicAccess"))
        };
        let id = user.id.filter(|id| id != ZERO_ID).unwrap_or_default().to_ascii_lowercase();
        let provider_name = user.provider_display_name.unwrap_or_default();
        if id.is_empty()
            || id == ANONYMOUS_ID
            || provider_name == "Anonymous"
            || is_public_access(&user.descriptor)
            || is_public_access(&user.subject_descriptor)
        {
            return Identity::Anonymous;
        }
        if !is_guid(&id) {
            return Identity::Absent;
        }
        let login =
            user.properties.and_then(|p| p.account).and_then(|account| account.value).unwrap_or_default();
        let login = clean(&login);
        let name = user.custom_display_name.filter(|name| !name.is_empty()).unwrap_or(provider_name);
        let kind = user.subject_descriptor.unwrap_or_default();
        Identity::Known(Account {
            id,
            display_name: clean(&name),
            email: if login.contains('@') { login.clone() } else { String::new() },
            login,
            // Service principals of Entra, and the accounts of the product's own services.
            bot: kind.starts_with("aadsp.") || kind.starts_with("svc."),
        })
    }
}

impl ProjectRow {
    /// The project as a place that holds repositories.
    pub(super) fn into_namespace(self, base: &Url, parent: &str) -> Namespace {
        clean_namespace(Namespace {
            web_url: join(base, [self.name.as_str()]).into(),
            provider_id: self.id,
            full_path: self.name.clone(),
            display_name: self.name,
            kind: NamespaceKind::Project,
            parent_path: parent.to_owned(),
        })
    }

    fn visibility(&self) -> Visibility {
        match self.visibility.as_deref() {
            Some("private") => Visibility::Private,
            Some("public") => Visibility::Public,
            // Not in the description, but recorded: everybody in the organization.
            Some("organization") => Visibility::Internal,
            _ => Visibility::Unknown,
        }
    }
}

impl RepositoryRow {
    /// The default branch without `refs/heads/`; an empty repository has none.
    pub(super) fn default_branch(&self) -> Option<&str> {
        let branch = self.default_branch.as_deref()?;
        Some(branch.strip_prefix("refs/heads/").unwrap_or(branch)).filter(|branch| !branch.is_empty())
    }

    /// The row as the contract has it, seen through the endpoint `base`.
    pub(super) fn into_repository(self, base: &Url) -> Repository {
        let link = |text: &Option<String>| text.as_deref().and_then(|text| cleaned(base, text));
        let clone_url = link(&self.remote_url)
            .unwrap_or_else(|| join(base, [self.project.name.as_str(), "_git", self.name.as_str()]));
        let web_url = link(&self.web_url).unwrap_or_else(|| clone_url.clone());
        let default_branch = self.default_branch().map(str::to_owned);
        clean_repository(Repository {
            provider_id: self.id,
            full_name: format!("{}/{}", self.project.name, self.name),
            visibility: self.project.visibility(),
            update_time: self.project.last_update_time.as_deref().and_then(moment),
            namespace: self.project.name,
            display_name: self.name,
            description: String::new(),
            default_branch,
            foreign_clone_host: is_foreign(base, &clone_url),
            clone_https_url: clone_url.into(),
            clone_ssh_url: self.ssh_url.unwrap_or_default(),
            web_url: web_url.into(),
            archived: None,
            disabled: self.is_disabled.unwrap_or(false),
            fork: self.is_fork,
            // In lists 0 stands for repositories whose size was not counted, too.
            size_kib: self
                .size
                .filter(|bytes| *bytes > 0)
                .map(|bytes| bytes / 1024 + i64::from(bytes % 1024 > 0)),
            permission: Permission::Unknown,
        })
    }
}

/// An id in lower case. It becomes a part of paths, so nothing but a GUID passes.
pub(super) fn guid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut text = String::deserialize(deserializer)?;
    if !is_guid(&text) {
        return Err(D::Error::custom("an id that is no GUID"));
    }
    text.make_ascii_lowercase();
    Ok(text)
}

/// Whether a text is an id: a GUID in its usual form.
pub(super) fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::timestamp::Timestamp;

    fn base() -> Url {
        Url::parse("https://dev.azure.com/fabrikam").expect("a URL")
    }

    fn row(extra: &str) -> Repository {
        let text = format!(
            r#"{{"id":"91F0D4CB-4c36-49a5-b28d-2d72da089c4d","name":"test repo",
                "project":{{"id":"d350c9c0-7749-4ff8-a78f-f9c1f0e56729","name":"a  b","visibility":"organization",
                "lastUpdateTime":"2023-12-29T05:41:14.493Z"}},"unheardOf":[1]{extra}}}"#
        );
        serde_json::from_str::<RepositoryRow>(&text).expect("a row").into_repository(&base())
    }

    #[test]
    fn a_bare_row_has_all_that_can_be_known() {
        let found = row("");
        assert_eq!(found.provider_id, "91f0d4cb-4c36-49a5-b28d-2d72da089c4d");
        assert_eq!((found.full_name.as_str(), found.namespace.as_str()), ("a  b/test repo", "a  b"));
        assert_eq!(found.clone_https_url, "https://dev.azure.com/fabrikam/a%20%20b/_git/test%20repo");
        assert_eq!(found.web_url, found.clone_https_url);
        assert_eq!(found.visibility, Visibility::Internal);
        assert_eq!(found.default_branch, None);
        assert_eq!((found.archived, found.fork, found.size_kib), (None, None, None));
        assert!(!found.disabled && !found.foreign_clone_host);
        assert_eq!(found.update_time, Some(Timestamp::from_unix_micros(1_703_828_474_493_000)));
        assert_eq!(found.permission, Permission::Unknown);
    }

    #[test]
    fn h21_h22_texts_for_people_are_clean_and_names_opaque() {
        let text = r#"{"id":"91F0D4CB-4c36-49a5-b28d-2d72da089c4d","name":"be\u0007ll",
            "project":{"id":"d350c9c0-7749-4ff8-a78f-f9c1f0e56729","name":"a\u001b[31mb"},
            "defaultBranch":"refs/heads/ma\u0000in","sshUrl":"git@ssh.dev.azure.com:v3/f/\r\nx"}"#;
        let row: RepositoryRow = serde_json::from_str(text).expect("a row");
        let place = row.project.clone().into_namespace(&base(), "fabrikam");
        let found = row.into_repository(&base());
        assert_eq!(
            (found.full_name.as_str(), found.display_name.as_str()),
            ("a\u{1b}[31mb/be\u{7}ll", "bell")
        );
        assert_eq!(found.default_branch.as_deref(), Some("main"));
        assert_eq!(found.clone_ssh_url, "git@ssh.dev.azure.com:v3/f/x");
        assert_eq!((place.full_path.as_str(), place.display_name.as_str()), ("a\u{1b}[31mb", "a[31mb"));
    }

    #[test]
    fn a_full_row_is_mapped_field_by_field() {
        let found =
            row(r#","defaultBranch":"refs/heads/release/1.0","size":1232,"isDisabled":true,"isFork":true,
            "remoteUrl":"https://fabrikam@dev.azure.com/fabrikam/a%20%20b/_git/test%20repo",
            "sshUrl":"git@ssh.dev.azure.com:v3/fabrikam/a%20%20b/test%20repo",
            "webUrl":"https://dev.azure.com/fabrikam/a%20%20b/_git/test%20repo""#);
        assert_eq!(found.default_branch.as_deref(), Some("release/1.0"));
        assert_eq!(found.size_kib, Some(2));
        assert!(found.disabled);
        assert_eq!(found.fork, Some(true));
        assert_eq!(found.clone_https_url, "https://dev.azure.com/fabrikam/a%20%20b/_git/test%20repo");
        assert_eq!(found.clone_ssh_url, "git@ssh.dev.azure.com:v3/fabrikam/a%20%20b/test%20repo");
    }

    #[test]
    fn ac_18_an_anonymous_identity_is_nobody() {
        let identity = |user: &str| {
            let text = format!(r#"{{"authenticatedUser":{user},"instanceId":"x"}}"#);
            serde_json::from_str::<ConnectionRow>(&text).expect("JSON").identity()
        };
        for user in [
            r#"{"id":"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa","providerDisplayName":"x"}"#,
            r#"{"id":"473dec3e-03d7-6147-b106-0b0a7f766a92","providerDisplayName":"Anonymous"}"#,
            r#"{"id":"473dec3e-03d7-6147-b106-0b0a7f766a92","descriptor":"System:PublicAccess;aaaa"}"#,
            r#"{"id":"00000000-0000-0000-0000-000000000000"}"#,
            r#"{"providerDisplayName":"somebody"}"#,
        ] {
            assert_eq!(identity(user), Identity::Anonymous, "{user}");
        }
        assert_eq!(identity("null"), Identity::Absent);
        let user = r#"{"id":"473DEC3E-03d7-6147-b106-0b0a7f766a92","providerDisplayName":"Casey",
            "subjectDescriptor":"aadsp.x","properties":{"Account":{"$type":"System.String","$value":"c@x.test"}}}"#;
        let Identity::Known(account) = identity(user) else { panic!("a user") };
        assert_eq!(account.id, "473dec3e-03d7-6147-b106-0b0a7f766a92");
        assert_eq!((account.login.as_str(), account.email.as_str()), ("c@x.test", "c@x.test"));
        assert_eq!(account.display_name, "Casey");
        assert!(account.bot);
    }
}
