//! What a provider shows through a connection; never stored.

use super::timestamp::Timestamp;

/// Who may read a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Everybody.
    Public,
    /// Everybody with an account at the instance or organization.
    Internal,
    /// Only those who were given access.
    Private,
    /// The provider did not tell.
    Unknown,
}

/// What the connection's token may do with a repository, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// The provider did not tell.
    Unknown,
    /// Read its code.
    Read,
    /// Push to it.
    Write,
    /// Change its settings and webhooks.
    Admin,
}

/// One repository, as the provider described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The provider's own stable id: a number or a UUID, never a path that a rename would change.
    pub provider_id: String,
    /// Namespace and name, as people write it: `group/sub/project`.
    pub full_name: String,
    /// `full_name` without the last part; exactly what the namespace filter compares.
    pub namespace: String,
    /// The name that people chose.
    pub display_name: String,
    /// Free text; empty where there is none.
    pub description: String,
    /// Without `refs/heads/`; `None` for an empty repository.
    pub default_branch: Option<String>,
    /// For `git clone` over HTTPS, without user info; empty where the provider names none.
    pub clone_https_url: String,
    /// For `git clone` over SSH; empty where the provider names none.
    pub clone_ssh_url: String,
    /// For a browser.
    pub web_url: String,
    /// Who may read it.
    pub visibility: Visibility,
    /// Read-only by its owner's choice; `None` where the provider has no such thing or did not tell.
    pub archived: Option<bool>,
    /// Switched off at the provider: listed, but it refuses every call.
    pub disabled: bool,
    /// Whether it was forked from another one, if the provider told.
    pub fork: Option<bool>,
    /// Size in KiB, if the provider told.
    pub size_kib: Option<i64>,
    /// Whether the clone URL names another host than the connection.
    pub foreign_clone_host: bool,
    /// Last activity, if the provider told.
    pub update_time: Option<Timestamp>,
    /// What the connection's token may do with it.
    pub permission: Permission,
}

/// What kind of thing holds repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NamespaceKind {
    /// A person's own space.
    User,
    /// An organization.
    Organization,
    /// A group, which may lie in another one.
    Group,
    /// A workspace.
    Workspace,
    /// A project.
    Project,
    /// A collection of projects.
    Collection,
}

/// A place that holds repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The provider's own stable id.
    pub provider_id: String,
    /// As it stands in `Repository::namespace`.
    pub full_path: String,
    /// The name that people chose.
    pub display_name: String,
    /// What it is.
    pub kind: NamespaceKind,
    /// The path it lies in; empty at the top.
    pub parent_path: String,
    /// For a browser; empty where the provider names none.
    pub web_url: String,
}
