//! The tokens of the fake Bitbucket Cloud, and their users.

/// The tokens that the fake Bitbucket Cloud knows. They look right and are worth nothing anywhere else.
pub(crate) mod known {
    /// The address that the first person's API tokens go with.
    pub(crate) const EMAIL: &str = "casey@forge.example";
    /// The address that the other person's goes with.
    pub(crate) const SECOND_EMAIL: &str = "robin@forge.example";
    /// An API token with every scope that is used.
    pub(crate) const GOOD: &str = "ATATT3xFfGF0forgeGoodApiToken000000000001aB3dE5fG7hJ9kL=1A2B3C01";
    /// Reads user, workspaces and repositories.
    pub(crate) const READ_ONLY: &str = "ATATT3xFfGF0forgeReadOnlyToken00000000002aB3dE5fG7hJ9kL=1A2B3C02";
    /// Reads repositories alone: neither its user nor its workspaces.
    pub(crate) const NARROW: &str = "ATATT3xFfGF0forgeNarrowToken000000000003aB3dE5fG7hJ9kL=1A2B3C03";
    /// Reads its user alone.
    pub(crate) const USER_ONLY: &str = "ATATT3xFfGF0forgeUserOnlyToken00000000004aB3dE5fG7hJ9kL=1A2B3C04";
    /// Made without scopes: refused like a dead one.
    pub(crate) const SCOPELESS: &str = "ATATT3xFfGF0forgeScopelessToken0000000005aB3dE5fG7hJ9kL=1A2B3C05";
    /// Past its end.
    pub(crate) const EXPIRED: &str = "ATATT3xFfGF0forgeExpiredToken00000000006aB3dE5fG7hJ9kL=1A2B3C06";
    /// Taken back.
    pub(crate) const REVOKED: &str = "ATATT3xFfGF0forgeRevokedToken00000000007aB3dE5fG7hJ9kL=1A2B3C07";
    /// Another person's, every scope.
    pub(crate) const SECOND: &str = "ATATT3xFfGF0forgeSecondUserToken0000008aB3dE5fG7hJ9kL=1A2B3C08";
    /// What no server knows.
    pub(crate) const UNKNOWN: &str = "ATATT3xFfGF0forgeNobodyKnows00000000009aB3dE5fG7hJ9kL=1A2B3C09";
    /// An access token of the repository `acme/website`.
    pub(crate) const REPOSITORY: &str = "ATCTT3xFfGN0forgeRepositoryToken0000010aB3dE5fG7hJ9kL=1A2B3C10";
    /// An access token of the project `WEB` of `acme`.
    pub(crate) const PROJECT: &str = "ATCTT3xFfGN0forgeProjectToken000000000011aB3dE5fG7hJ9kL=1A2B3C11";
    /// An access token of the workspace `acme`.
    pub(crate) const WORKSPACE: &str = "ATCTT3xFfGN0forgeWorkspaceToken0000000012aB3dE5fG7hJ9kL=1A2B3C12";
    /// An access token of the workspace `acme` that reads repositories alone.
    pub(crate) const WORKSPACE_READ: &str =
        "ATCTT3xFfGN0forgeWorkspaceRead00000000013aB3dE5fG7hJ9kL=1A2B3C13";
    /// An app password: refused since they were removed.
    pub(crate) const APP_PASSWORD: &str = "ATBBforgeAppPassword00000000014C3D4E5F60";

    /// Every token with what it is, for a person to read.
    pub(crate) const ALL: &[(&str, &str)] = &[
        (GOOD, "API token of casey@forge.example, every scope"),
        (READ_ONLY, "API token of casey@forge.example, no webhooks"),
        (NARROW, "API token of casey@forge.example, read:repository only"),
        (USER_ONLY, "API token of casey@forge.example, read:user only"),
        (SCOPELESS, "API token without scopes, refused"),
        (EXPIRED, "expired"),
        (REVOKED, "revoked"),
        (SECOND, "API token of robin@forge.example, every scope"),
        (REPOSITORY, "access token of the repository acme/website"),
        (PROJECT, "access token of the project acme/WEB"),
        (WORKSPACE, "access token of the workspace acme"),
        (WORKSPACE_READ, "access token of the workspace acme, repository only"),
        (APP_PASSWORD, "app password, refused"),
    ];
}

/// What a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BitbucketKind {
    /// A person's, used with the e-mail address.
    ApiToken,
    /// Of the first repository.
    Repository,
    /// Of the project `WEB` of the first workspace.
    Project,
    /// Of the first workspace.
    Workspace,
    /// A person's, of the kind that was removed.
    AppPassword,
}

impl BitbucketKind {
    /// What `x-credential-type` says.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::ApiToken => "api_token",
            Self::Repository => "repo_access_token",
            Self::Project => "project_access_token",
            Self::Workspace => "workspace_access_token",
            Self::AppPassword => "apppassword",
        }
    }
}

/// A token and its user.
#[derive(Clone, Debug)]
pub(crate) struct BitbucketToken {
    /// The token.
    pub(crate) token: String,
    /// What it is.
    pub(crate) kind: BitbucketKind,
    /// Whether it works.
    pub(crate) alive: bool,
    /// Its scopes.
    pub(crate) scopes: Vec<String>,
    /// The user's address.
    pub(crate) email: String,
    /// The user's id, with its braces.
    pub(crate) uuid: String,
    /// The user's login.
    pub(crate) username: String,
    /// The user's display name.
    pub(crate) display_name: String,
}

impl BitbucketToken {
    /// Whether somebody stands behind it.
    pub(super) fn has_user(&self) -> bool {
        self.kind == BitbucketKind::ApiToken
    }
}

/// The tokens of a new forge.
pub(super) fn issue() -> Vec<BitbucketToken> {
    use BitbucketKind::{ApiToken, AppPassword, Project, Repository, Workspace};
    const EVERY: &[&str] = &[
        "read:user:bitbucket",
        "read:workspace:bitbucket",
        "read:project:bitbucket",
        "read:repository:bitbucket",
        "read:pullrequest:bitbucket",
        "read:webhook:bitbucket",
        "write:webhook:bitbucket",
        "delete:webhook:bitbucket",
    ];
    const ACCESS: &[&str] = &["repository", "pullrequest", "webhook"];
    let casey = ("{5d1d2a66-9a2c-4d2f-8f0e-57658c0ffee0}", known::EMAIL, "casey", "Casey Example");
    let robin = ("{a1b2c3d4-0001-4002-8003-63001c0ffee1}", known::SECOND_EMAIL, "robin", "Robin Example");
    [
        (known::GOOD, ApiToken, true, EVERY, casey),
        (known::READ_ONLY, ApiToken, true, &[EVERY[0], EVERY[1], EVERY[3]][..], casey),
        (known::NARROW, ApiToken, true, &[EVERY[3]][..], casey),
        (known::USER_ONLY, ApiToken, true, &[EVERY[0]][..], casey),
        (known::SCOPELESS, ApiToken, false, &[][..], casey),
        (known::EXPIRED, ApiToken, false, EVERY, casey),
        (known::REVOKED, ApiToken, false, EVERY, casey),
        (known::SECOND, ApiToken, true, EVERY, robin),
        (known::REPOSITORY, Repository, true, ACCESS, casey),
        (known::PROJECT, Project, true, ACCESS, casey),
        (known::WORKSPACE, Workspace, true, ACCESS, casey),
        (known::WORKSPACE_READ, Workspace, true, &["repository"][..], casey),
        (known::APP_PASSWORD, AppPassword, false, &["account", "repository"][..], casey),
    ]
    .into_iter()
    .map(|(token, kind, alive, scopes, (uuid, email, username, display_name))| BitbucketToken {
        token: token.to_owned(),
        kind,
        alive,
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        email: email.to_owned(),
        uuid: uuid.to_owned(),
        username: username.to_owned(),
        display_name: display_name.to_owned(),
    })
    .collect()
}
