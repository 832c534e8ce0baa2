//! The tokens of the fake Bitbucket Data Center, and their users.

/// The tokens that the fake Bitbucket Data Center knows. They look right and are worth nothing anywhere else:
/// base64 of a number of 12 digits, a colon and 20 bytes, since version 8 or so behind `BBDC-`.
pub(crate) mod known {
    /// Repository admin, of a user.
    pub(crate) const GOOD: &str = "BBDC-MjUyOTczNTE1MDAxOmZvcmdlR29vZEFkbWluVG9rZW4w";
    /// Repository read, of the same user.
    pub(crate) const READ_ONLY: &str = "BBDC-MjUyOTczNTE1MDAyOmZvcmdlUmVhZE9ubHlUb2tlbjAw";
    /// Repository write, of the same user.
    pub(crate) const WRITE: &str = "BBDC-MjUyOTczNTE1MDAzOmZvcmdlV3JpdGVUb2tlbjAwMDAw";
    /// Repository admin, of another user who may only read.
    pub(crate) const SECOND: &str = "BBDC-MjUyOTczNTE1MDA0OmZvcmdlU2Vjb25kVXNlclRva2Vu";
    /// Of a user whose name is an e-mail address, so that name and slug differ.
    pub(crate) const MAIL_NAME: &str = "BBDC-MjUyOTczNTE1MDA1OmZvcmdlTWFpbE5hbWVUb2tlbjAw";
    /// Of the first project.
    pub(crate) const PROJECT: &str = "BBDC-MjUyOTczNTE1MDA2OmZvcmdlUHJvamVjdFRva2VuMDAw";
    /// Of the first repository.
    pub(crate) const REPOSITORY: &str = "BBDC-MjUyOTczNTE1MDA3OmZvcmdlUmVwb3NpdG9yeVRva2Vu";
    /// Past its end: the server says of it what it says of any text.
    pub(crate) const EXPIRED: &str = "BBDC-MjUyOTczNTE1MDA4OmZvcmdlRXhwaXJlZFRva2VuMDAw";
    /// Revoked: the same.
    pub(crate) const REVOKED: &str = "BBDC-MjUyOTczNTE1MDA5OmZvcmdlUmV2b2tlZFRva2VuMDAw";
    /// Its user has to solve a captcha in a browser first.
    pub(crate) const CAPTCHA: &str = "BBDC-MjUyOTczNTE1MDEwOmZvcmdlQmxvY2tlZFRva2VuMDAw";
    /// Repository admin, in the form without a prefix.
    pub(crate) const OLD_FORM: &str = "MjUyOTczNTE1MDExOmZvcmdlT2xkRm9ybVRva2VuMDAw";
    /// What no server knows.
    pub(crate) const UNKNOWN: &str = "BBDC-MjUyOTczNTE1MDEyOmZvcmdlTm9ib2R5S25vd3MwMDAw";

    /// Every token with what it is, for a person to read.
    pub(crate) const ALL: &[(&str, &str)] = &[
        (GOOD, "Repository admin"),
        (READ_ONLY, "Repository read"),
        (WRITE, "Repository write"),
        (SECOND, "Repository admin, of another user who may only read"),
        (MAIL_NAME, "Repository admin, its user is named by an e-mail address"),
        (PROJECT, "of the project WEB"),
        (REPOSITORY, "of the repository WEB/acme-website"),
        (EXPIRED, "expired"),
        (REVOKED, "revoked"),
        (CAPTCHA, "its user has to solve a captcha"),
        (OLD_FORM, "Repository admin, without a prefix"),
    ];
}

/// What a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataCenterOwner {
    /// A user.
    User,
    /// The first project.
    Project,
    /// The first repository.
    Repository,
}

/// Whether a token works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataCenterTokenState {
    /// It does.
    Active,
    /// It ended, or somebody revoked it.
    Dead,
    /// Its user has to solve a captcha first.
    Captcha,
}

/// What a token, a user or both may do with a repository, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing beyond what a stranger may.
    None,
    Read,
    Write,
    Admin,
}

/// A token and its user.
#[derive(Clone, Debug)]
pub(crate) struct DataCenterToken {
    /// The token.
    pub(crate) token: String,
    /// What it belongs to.
    pub(crate) owner: DataCenterOwner,
    /// Whether it works.
    pub(crate) state: DataCenterTokenState,
    /// What it may do at most.
    pub(crate) level: Level,
    /// The number of its user.
    pub(crate) user_id: u64,
    /// The name of its user.
    pub(crate) user: String,
    /// The name that people see.
    pub(crate) display_name: String,
}

impl DataCenterToken {
    /// What its user is called in paths.
    pub(super) fn slug(&self) -> String {
        self.user.replace(['@', '/'], "_").to_lowercase()
    }
}

/// The tokens of a new forge; the numbers are those of the first project and the first repository.
pub(super) fn issue(project: u64, repository: u64) -> Vec<DataCenterToken> {
    use DataCenterOwner::{Project, Repository, User};
    use DataCenterTokenState::{Active, Captcha, Dead};
    let casey = || (104, "casey".to_owned(), "Casey Example");
    [
        (known::GOOD, User, Active, Level::Admin, casey()),
        (known::READ_ONLY, User, Active, Level::Read, casey()),
        (known::WRITE, User, Active, Level::Write, casey()),
        (known::SECOND, User, Active, Level::Admin, (105, "robin".to_owned(), "Robin Example")),
        (
            known::MAIL_NAME,
            User,
            Active,
            Level::Admin,
            (106, "jürgen@corp.example".to_owned(), "Jürgen Example"),
        ),
        (
            known::PROJECT,
            Project,
            Active,
            Level::Admin,
            (201, format!("access-token-user/1/{project}"), "Project token"),
        ),
        (
            known::REPOSITORY,
            Repository,
            Active,
            Level::Admin,
            (202, format!("access-token-user/2/{repository}"), "Repository token"),
        ),
        (known::EXPIRED, User, Dead, Level::Admin, casey()),
        (known::REVOKED, User, Dead, Level::Admin, casey()),
        (known::CAPTCHA, User, Captcha, Level::Admin, (107, "blake".to_owned(), "Blake Example")),
        (known::OLD_FORM, User, Active, Level::Admin, casey()),
    ]
    .into_iter()
    .map(|(token, owner, state, level, (user_id, user, name))| DataCenterToken {
        token: token.to_owned(),
        owner,
        state,
        level,
        user_id,
        user,
        display_name: name.to_owned(),
    })
    .collect()
}
