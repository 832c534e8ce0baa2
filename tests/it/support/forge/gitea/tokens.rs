//! The tokens of the fake Gitea, and their users.

use super::data::{OWNER, OWNER_ID};

/// The tokens that the fake Gitea knows. They look right and are worth nothing anywhere else.
pub(crate) mod known {
    /// Everything that is needed, and no more.
    pub(crate) const GOOD: &str = "0f0e9e0000000000000000000000000000000001";
    /// As good, without writing.
    pub(crate) const READ_ONLY: &str = "0f0e9e0000000000000000000000000000000002";
    /// Scope `read:repository` only: may not name its user.
    pub(crate) const REPOSITORY_ONLY: &str = "0f0e9e0000000000000000000000000000000003";
    /// Scope `read:user` only.
    pub(crate) const USER_ONLY: &str = "0f0e9e0000000000000000000000000000000004";
    /// Limited to public repositories.
    pub(crate) const PUBLIC_ONLY: &str = "0f0e9e0000000000000000000000000000000005";
    /// May read notifications, too.
    pub(crate) const NOTIFIED: &str = "0f0e9e0000000000000000000000000000000006";
    /// Every scope.
    pub(crate) const ALL_SCOPES: &str = "0f0e9e0000000000000000000000000000000007";
    /// Another person's, who may only read.
    pub(crate) const SECOND: &str = "0f0e9e0000000000000000000000000000000008";
    /// Deleted.
    pub(crate) const DELETED: &str = "0f0e9e0000000000000000000000000000000009";
    /// Good, but its user may not sign in.
    pub(crate) const BLOCKED: &str = "0f0e9e000000000000000000000000000000000a";
    /// Good, but its user is not active yet.
    pub(crate) const INACTIVE: &str = "0f0e9e000000000000000000000000000000000b";
    /// Good, but its user has a password to change first.
    pub(crate) const PASSWORD: &str = "0f0e9e000000000000000000000000000000000c";
    /// An OAuth2 access token of the first person.
    pub(crate) const OAUTH: &str = "eyJhbGciOiJSUzI1NiJ9.eyJnbnQiOjEsInR0IjowfQ.Zm9yZ2VPYXV0aFRva2Vu";
    /// What no server knows.
    pub(crate) const UNKNOWN: &str = "0f0e9e00000000000000000000000000000000ff";

    /// Every token with what it is, for a person to read.
    pub(crate) const ALL: &[(&str, &str)] = &[
        (GOOD, "write:repository, read:user, read:organization"),
        (READ_ONLY, "read:repository, read:user, read:organization"),
        (REPOSITORY_ONLY, "read:repository only"),
        (USER_ONLY, "read:user only"),
        (PUBLIC_ONLY, "public-only"),
        (NOTIFIED, "read:notification, too"),
        (ALL_SCOPES, "all"),
        (SECOND, "another user"),
        (DELETED, "deleted"),
        (BLOCKED, "its user may not sign in"),
        (INACTIVE, "its user is not active"),
        (PASSWORD, "its user must change the password"),
        (OAUTH, "OAuth2 access token"),
    ];
}

/// Whether a token works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiteaTokenState {
    /// It does.
    Active,
    /// It was deleted.
    Deleted,
    /// Its user may not sign in.
    Blocked,
    /// Its user is not active.
    Inactive,
    /// Its user has a password to change.
    Password,
}

/// A token and its user.
#[derive(Clone, Debug)]
pub(crate) struct GiteaToken {
    /// The token.
    pub(crate) token: String,
    /// Whether it works.
    pub(crate) state: GiteaTokenState,
    /// Its scopes.
    pub(crate) scopes: Vec<String>,
    /// The user's number.
    pub(crate) user_id: u64,
    /// The user's login.
    pub(crate) login: String,
    /// The user's display name.
    pub(crate) name: String,
    /// The user's address.
    pub(crate) email: String,
}

impl GiteaToken {
    /// Whether it has a scope, or one that includes it.
    pub(super) fn has(&self, wanted: &str) -> bool {
        self.scopes
            .iter()
            .any(|scope| scope == "all" || scope == wanted || scope.replacen("write:", "read:", 1) == wanted)
    }

    pub(super) fn public_only(&self) -> bool {
        self.scopes.iter().any(|scope| scope == "public-only")
    }
}

/// The tokens of a new forge.
pub(super) fn issue() -> Vec<GiteaToken> {
    use GiteaTokenState::{Active, Blocked, Deleted, Inactive, Password};
    let casey = (OWNER_ID, OWNER, "Casey Example");
    let blake = (91, "blake", "Blake Example");
    let good = &["read:organization", "read:user", "write:repository"][..];
    [
        (known::GOOD, Active, good, casey),
        (known::READ_ONLY, Active, &["read:organization", "read:repository", "read:user"][..], casey),
        (known::REPOSITORY_ONLY, Active, &["read:repository"][..], casey),
        (known::USER_ONLY, Active, &["read:user"][..], casey),
        (known::PUBLIC_ONLY, Active, &["public-only", "read:user", "write:repository"][..], casey),
        (known::NOTIFIED, Active, &["read:notification", "read:user", "write:repository"][..], casey),
        (known::ALL_SCOPES, Active, &["all"][..], casey),
        (known::SECOND, Active, good, (90, "robin", "Robin Example")),
        (known::DELETED, Deleted, good, casey),
        (known::BLOCKED, Blocked, good, blake),
        (known::INACTIVE, Inactive, good, blake),
        (known::PASSWORD, Password, good, blake),
        (known::OAUTH, Active, good, casey),
    ]
    .into_iter()
    .map(|(token, state, scopes, (user_id, login, name))| GiteaToken {
        token: token.to_owned(),
        state,
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        user_id,
        login: login.to_owned(),
        name: name.to_owned(),
        email: format!("{login}@forge.example"),
    })
    .collect()
}
