//! The tokens of the fake GitLab, and their users.

use super::data::OWNER;

/// The tokens that the fake GitLab knows. They look right and are worth nothing anywhere else.
pub(crate) mod known {
    /// Scope `api`, ends in 300 days.
    pub(crate) const GOOD: &str = "glpat-forgeGoodApi00000001";
    /// Scopes `read_api` and `read_repository`.
    pub(crate) const READ_ONLY: &str = "glpat-forgeReadOnly0000002";
    /// Scope `read_repository` only: clones, but sees no API beyond itself.
    pub(crate) const NARROW: &str = "glpat-forgeNarrowGit000003";
    /// Scope `read_user` only.
    pub(crate) const USER_ONLY: &str = "glpat-forgeReadUser0000013";
    /// Scope `api`, ends in 7 days.
    pub(crate) const EXPIRING: &str = "glpat-forgeExpiresSoon0004";
    /// A service account's, without an end.
    pub(crate) const ENDLESS: &str = "glpat-forgeNoExpiry0000014";
    /// Ended yesterday.
    pub(crate) const EXPIRED: &str = "glpat-forgeExpired00000005";
    /// Revoked.
    pub(crate) const REVOKED: &str = "glpat-forgeRevoked00000006";
    /// Good, but its user is blocked.
    pub(crate) const BLOCKED: &str = "glpat-forgeBlockedUser0007";
    /// Fine-grained: may list projects, nothing about itself.
    pub(crate) const GRANULAR: &str = "glpat-forgeFineGrained0008";
    /// A project access token of the first project.
    pub(crate) const PROJECT: &str = "glpat-forgeProjectBot00009";
    /// A group access token of the first group and its subgroups.
    pub(crate) const GROUP: &str = "glpat-forgeGroupBot0000010";
    /// Another person's, scope `api`.
    pub(crate) const SECOND: &str = "glpat-forgeSecondUser00011";
    /// An OAuth access token of the first person.
    pub(crate) const OAUTH: &str = "5f0e0c7e1d2b4a6988776655443322110f0e0d0c0b0a09080706050403020100";
    /// What no server knows.
    pub(crate) const UNKNOWN: &str = "glpat-forgeNobodyKnows0012";

    /// Every token with what it is, for a person to read.
    pub(crate) const ALL: &[(&str, &str)] = &[
        (GOOD, "api"),
        (READ_ONLY, "read_api, read_repository"),
        (NARROW, "read_repository only"),
        (USER_ONLY, "read_user only"),
        (EXPIRING, "api, ends in 7 days"),
        (ENDLESS, "api, service account, never ends"),
        (EXPIRED, "expired"),
        (REVOKED, "revoked"),
        (BLOCKED, "its user is blocked"),
        (GRANULAR, "fine-grained"),
        (PROJECT, "project access token (bot, one repository)"),
        (GROUP, "group access token (bot)"),
        (SECOND, "api, another user"),
        (OAUTH, "OAuth access token"),
    ];
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A person's or service account's.
    Personal,
    /// Of the first project.
    Project,
    /// Of the first group.
    Group,
    /// From the OAuth flow.
    OAuth,
}

/// Whether a token works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenState {
    /// It does.
    Active,
    /// Past its end.
    Expired,
    /// Taken back.
    Revoked,
    /// Its user is blocked.
    Blocked,
}

/// A token and its user.
#[derive(Clone, Debug)]
pub(crate) struct GitlabToken {
    /// The token.
    pub(crate) token: String,
    /// What it is.
    pub(crate) kind: TokenKind,
    /// Whether it works.
    pub(crate) state: TokenState,
    /// Its scopes.
    pub(crate) scopes: Vec<String>,
    /// Whether it is fine-grained (permissions instead of scopes).
    pub(crate) granular: bool,
    /// `expires_at`, a date; it ends at 00:00 UTC of that day.
    pub(crate) expires_at: Option<String>,
    /// The number of the token itself.
    pub(crate) id: u64,
    /// The user's number.
    pub(crate) user_id: u64,
    /// The user's login.
    pub(crate) username: String,
    /// The user's display name.
    pub(crate) name: String,
    /// The user's address.
    pub(crate) email: String,
}

impl GitlabToken {
    pub(super) fn has(&self, wanted: &[&str]) -> bool {
        self.scopes.iter().any(|scope| wanted.contains(&scope.as_str()))
    }

    /// Whether the user is a service account, which GitLab counts among its bots.
    fn service(&self) -> bool {
        self.username.starts_with("service_account_")
    }

    pub(super) fn bot(&self) -> bool {
        matches!(self.kind, TokenKind::Project | TokenKind::Group) || self.service()
    }
}

/// The tokens of a new forge.
pub(super) fn issue(today: time::Date) -> Vec<GitlabToken> {
    use TokenKind::{Group, OAuth, Personal, Project};
    use TokenState::{Active, Blocked, Expired, Revoked};
    let day = |days: i64| Some((today + time::Duration::days(days)).to_string());
    let casey = (OWNER_ID, OWNER, "Casey Example");
    let robin = (63_001, "robin", "Robin Example");
    let api = &["api"][..];
    [
        (known::GOOD, Personal, Active, api, day(300), casey),
        (known::READ_ONLY, Personal, Active, &["read_api", "read_repository"][..], day(300), casey),
        (known::NARROW, Personal, Active, &["read_repository"][..], day(300), casey),
        (known::USER_ONLY, Personal, Active, &["read_user"][..], day(300), casey),
        (known::EXPIRING, Personal, Active, api, day(7), casey),
        (
            known::ENDLESS,
            Personal,
            Active,
            api,
            None,
            (70_001, "service_account_group_1_ab12", "Deploy service"),
        ),
        (known::EXPIRED, Personal, Expired, api, day(-1), casey),
        (known::REVOKED, Personal, Revoked, api, day(300), casey),
        (known::BLOCKED, Personal, Blocked, api, day(300), (63_002, "blake", "Blake Example")),
        (known::GRANULAR, Personal, Active, &[][..], day(300), casey),
        (
            known::PROJECT,
            Project,
            Active,
            api,
            day(200),
            (70_002, "project_1003_bot_4ffca233d8298ea1", "Project token"),
        ),
        (
            known::GROUP,
            Group,
            Active,
            api,
            day(200),
            (70_003, "group_120836_bot_2fca233d8298ea11", "Group token"),
        ),
        (known::SECOND, Personal, Active, api, day(300), robin),
        (known::OAUTH, OAuth, Active, &["read_user", "read_api", "api"][..], None, casey),
    ]
    .into_iter()
    .enumerate()
    .map(|(place, (token, kind, state, scopes, expires_at, (user_id, username, name)))| GitlabToken {
        token: token.to_owned(),
        kind,
        state,
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        granular: token == known::GRANULAR,
        expires_at,
        id: 4_200 + place as u64,
        user_id,
        username: username.to_owned(),
        name: name.to_owned(),
        email: format!("{username}@forge.example"),
    })
    .collect()
}

/// The number of the good token's user.
pub(super) const OWNER_ID: u64 = 57_658;
