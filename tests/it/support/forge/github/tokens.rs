//! The tokens of the fake GitHub, and their users.

use super::data::OWNER;

/// The tokens that the fake GitHub knows. They look right and are worth nothing anywhere else.
pub(crate) mod known {
    /// Classic, scopes `repo` and `read:org`, ends in 300 days.
    pub(crate) const GOOD: &str = "ghp_forgeGoodRepoScope000000000000000001";
    /// Classic, scope `public_repo`: public repositories only.
    pub(crate) const PUBLIC: &str = "ghp_forgePublicRepositories0000000000002";
    /// Classic, scopes `read:org` and `read:repo_hook`: lists what is public.
    pub(crate) const READ_ONLY: &str = "ghp_forgeReadsOrgsAndHooks00000000000003";
    /// Classic, without any scope.
    pub(crate) const SCOPELESS: &str = "ghp_forgeNoScopesAtAll000000000000000004";
    /// Classic, ends in 7 days.
    pub(crate) const EXPIRING: &str = "ghp_forgeExpiresSoon00000000000000000005";
    /// Classic, never ends.
    pub(crate) const ENDLESS: &str = "ghp_forgeNeverExpires0000000000000000006";
    /// Ended yesterday, which GitHub does not tell from unknown.
    pub(crate) const EXPIRED: &str = "ghp_forgeExpiredYesterday000000000000007";
    /// Revoked, which GitHub does not tell from unknown.
    pub(crate) const REVOKED: &str = "ghp_forgeRevokedByUser000000000000000008";
    /// Its account was suspended.
    pub(crate) const SUSPENDED: &str = "ghp_forgeSuspendedAccount000000000000009";
    /// Classic, not authorized for the single sign-on of the second organization.
    pub(crate) const UNAUTHORIZED_SSO: &str = "ghp_forgeNoSingleSignOn00000000000000010";
    /// Another person's, scope `repo`, who may only read.
    pub(crate) const SECOND: &str = "ghp_forgeSecondUser000000000000000000011";
    /// A token of the form before April 2021, scope `repo`.
    pub(crate) const OLD_FORM: &str = "f04ce04ce04ce04ce04ce04ce04ce04ce04ce012";
    /// Fine-grained: all that is needed, in the first organization.
    pub(crate) const FINE: &str =
        "github_pat_11FORGE0Y0goodpermissions_forgeFineGrainedAllPermissions00000000000000000000000000013";
    /// Fine-grained: metadata only.
    pub(crate) const FINE_METADATA: &str =
        "github_pat_11FORGE0Y0metadataonly000_forgeFineGrainedMetadataOnly000000000000000000000000000014";
    /// Of an App's installation in the first organization, in the form of 2026.
    pub(crate) const INSTALLATION: &str = "ghs_123456_eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.\
        eyJmb3JnZSI6Imluc3RhbGxhdGlvbiIsInBhZCI6IjAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAifQ.\
        Zm9yZ2UtaW5zdGFsbGF0aW9uLXNpZ25hdHVyZS0wMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw";
    /// From the OAuth flow of an App, scope `repo`.
    pub(crate) const OAUTH: &str = "gho_forgeOauthAppToken000000000000000016";
    /// What no server knows.
    pub(crate) const UNKNOWN: &str = "ghp_forgeNobodyKnowsThisOne0000000000017";

    /// Every token with what it is, for a person to read.
    pub(crate) const ALL: &[(&str, &str)] = &[
        (GOOD, "classic: repo, read:org"),
        (PUBLIC, "classic: public_repo"),
        (READ_ONLY, "classic: read:org, read:repo_hook"),
        (SCOPELESS, "classic: no scope"),
        (EXPIRING, "classic: repo, ends in 7 days"),
        (ENDLESS, "classic: repo, never ends"),
        (EXPIRED, "expired"),
        (REVOKED, "revoked"),
        (SUSPENDED, "its account was suspended"),
        (UNAUTHORIZED_SSO, "classic: repo, not authorized for single sign-on"),
        (SECOND, "classic: repo, another user who may only read"),
        (OLD_FORM, "classic: repo, of the form before 2021"),
        (FINE, "fine-grained: contents, metadata, webhooks"),
        (FINE_METADATA, "fine-grained: metadata only"),
        (INSTALLATION, "of an App's installation"),
        (OAUTH, "OAuth: repo"),
    ];
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// With scopes; OAuth tokens too.
    Classic,
    /// With permissions, of one owner.
    FineGrained,
    /// Of an App's installation: permissions, and no user.
    Installation,
}

/// Whether a token works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenState {
    /// It does.
    Active,
    /// Ended or revoked.
    Dead,
    /// Its account was suspended.
    Suspended,
}

/// A token and its user.
#[derive(Clone, Debug)]
pub(crate) struct GithubToken {
    /// The token.
    pub(crate) token: String,
    /// What it is.
    pub(crate) kind: TokenKind,
    /// Whether it works.
    pub(crate) state: TokenState,
    /// The scopes of a classic one, the permissions (`contents=read`) of another.
    pub(crate) grants: Vec<String>,
    /// The value of `github-authentication-token-expiration`.
    pub(crate) expires: Option<String>,
    /// Whether it is authorized for the single sign-on of the second organization.
    pub(crate) single_sign_on: bool,
    /// Whether its user may only read, everywhere.
    pub(crate) reads_only: bool,
    /// The words of a 403 with which an organization's rule stands against everything but `/user`.
    pub(crate) refused_with: Option<String>,
    /// The user's number.
    pub(crate) user_id: u64,
    /// The user's login.
    pub(crate) login: String,
    /// The user's display name.
    pub(crate) name: String,
    /// The user's address, hidden for `None`.
    pub(crate) email: Option<String>,
}

impl GithubToken {
    /// Whether a classic token has one of these scopes; `repo` holds those of hooks and of public repositories.
    pub(super) fn has(&self, wanted: &[&str]) -> bool {
        self.grants.iter().any(|grant| wanted.contains(&grant.as_str()))
    }
}

/// The tokens of a new forge.
pub(super) fn issue(today: time::Date) -> Vec<GithubToken> {
    use TokenKind::{Classic, FineGrained, Installation};
    use TokenState::{Active, Dead, Suspended};
    let casey = (OWNER_ID, OWNER, "Casey Example");
    let robin = (1_963_001, "robin", "Robin Example");
    let repo = &["repo", "read:org"][..];
    [
        (known::GOOD, Classic, Active, repo, Some(300), casey),
        (known::PUBLIC, Classic, Active, &["public_repo", "read:org"][..], Some(300), casey),
        (known::READ_ONLY, Classic, Active, &["read:org", "read:repo_hook"][..], Some(300), casey),
        (known::SCOPELESS, Classic, Active, &[][..], Some(300), casey),
        (known::EXPIRING, Classic, Active, repo, Some(7), casey),
        (known::ENDLESS, Classic, Active, repo, None, casey),
        (known::EXPIRED, Classic, Dead, repo, Some(-1), casey),
        (known::REVOKED, Classic, Dead, repo, Some(300), casey),
        (known::SUSPENDED, Classic, Suspended, repo, Some(300), (1_963_002, "blake", "Blake Example")),
        (known::UNAUTHORIZED_SSO, Classic, Active, repo, Some(300), casey),
        (known::SECOND, Classic, Active, repo, Some(300), robin),
        (known::OLD_FORM, Classic, Active, repo, None, casey),
        (
            known::FINE,
            FineGrained,
            Active,
            &["metadata=read", "contents=read", "repository_hooks=read", "repository_hooks=write"][..],
            Some(90),
            casey,
        ),
        (known::FINE_METADATA, FineGrained, Active, &["metadata=read"][..], Some(90), casey),
        (
            known::INSTALLATION,
            Installation,
            Active,
            &["metadata=read", "contents=read", "repository_hooks=read", "repository_hooks=write"][..],
            None,
            (0, "", ""),
        ),
        (known::OAUTH, Classic, Active, repo, None, casey),
    ]
    .into_iter()
    .map(|(token, kind, state, grants, days, (user_id, login, name))| GithubToken {
        token: token.to_owned(),
        kind,
        state,
        grants: grants.iter().map(|grant| (*grant).to_owned()).collect(),
        expires: days.map(|days| format!("{} 10:06:09 +0100", today + time::Duration::days(days))),
        single_sign_on: token != known::UNAUTHORIZED_SSO,
        reads_only: false,
        refused_with: None,
        user_id,
        login: login.to_owned(),
        name: name.to_owned(),
        email: (login == "robin").then(|| format!("{login}@forge.example")),
    })
    .collect()
}

/// The number of the good token's user.
pub(super) const OWNER_ID: u64 = 1_958_953;
