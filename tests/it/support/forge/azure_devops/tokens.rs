//! The tokens of the fake Azure DevOps, and their users.

/// The tokens that the fake Azure DevOps knows. They look right and are worth nothing anywhere else.
pub(crate) mod known {
    /// Projects, code, hooks.
    pub(crate) const GOOD: &str = "forgegoodpat000000000000000000000000000000000000001a";
    /// The new form of 84 characters, same scopes.
    pub(crate) const GOOD_LONG: &str =
        "9ForgeGoodPat000000000000000000000000000000000000000000000000000000JQQJ99AAAAAZDO2aB1";
    /// Code (read) only: projects are refused, repositories are not.
    pub(crate) const READ_ONLY: &str = "forgecodeonly00000000000000000000000000000000000002a";
    /// Projects only: repositories are refused.
    pub(crate) const NO_CODE: &str = "forgenocode0000000000000000000000000000000000000003a";
    /// Ended.
    pub(crate) const EXPIRED: &str = "forgeexpired000000000000000000000000000000000000004a";
    /// Taken back. It looks like every other dead token.
    pub(crate) const REVOKED: &str = "forgerevoked000000000000000000000000000000000000005a";
    /// Another person's.
    pub(crate) const SECOND: &str = "forgesecond0000000000000000000000000000000000000006a";
    /// An Entra access token of the first person: Bearer only.
    pub(crate) const ENTRA: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJmb3JnZSI6dHJ1ZX0.c2ln";
    /// What no organization knows.
    pub(crate) const UNKNOWN: &str = "forgenobodyknows00000000000000000000000000000000007a";

    /// Every token with what it is, for a person to read.
    pub(crate) const ALL: &[(&str, &str)] = &[
        (GOOD, "vso.project, vso.code"),
        (GOOD_LONG, "the same, in the newer form"),
        (READ_ONLY, "vso.code only"),
        (NO_CODE, "vso.project only"),
        (EXPIRED, "expired"),
        (REVOKED, "revoked"),
        (SECOND, "vso.project, vso.code, another user"),
        (ENTRA, "Entra access token (Bearer)"),
    ];
}

/// What a refused token gets on a GET that does not suppress it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignIn {
    /// 203 with the sign-in page.
    Page,
    /// 302 to the sign-in page.
    Redirect,
}

/// A token and its user.
#[derive(Clone, Debug)]
pub(crate) struct AzureToken {
    /// The token.
    pub(crate) token: String,
    /// Whether it works.
    pub(crate) alive: bool,
    /// Its scopes, such as `vso.code`.
    pub(crate) scopes: Vec<String>,
    /// Whether it is an Entra token, which Basic does not carry here.
    pub(crate) bearer: bool,
    /// Whether the user may edit service hook subscriptions.
    pub(crate) admin: bool,
    /// Whether the user may view them.
    pub(crate) sees_hooks: bool,
    /// Whether the user is a member of the first project alone.
    pub(crate) outsider: bool,
    /// The user's GUID.
    pub(crate) user_id: String,
    /// The user's account name, an address.
    pub(crate) account: String,
    /// The user's display name.
    pub(crate) name: String,
}

impl AzureToken {
    pub(super) fn has(&self, scopes: &[&str]) -> bool {
        self.scopes.iter().any(|scope| scopes.contains(&scope.as_str()))
    }
}

/// The tokens of a new forge.
pub(super) fn issue() -> Vec<AzureToken> {
    let both = &["vso.project", "vso.code"][..];
    let casey = ("473dec3e-03d7-6147-b106-0b0a7f766a92", "casey@forge.example", "Casey Example", true);
    let robin = ("22157d54-1821-6536-a446-928b06348385", "robin@forge.example", "Robin Example", false);
    [
        (known::GOOD, true, both, casey),
        (known::GOOD_LONG, true, both, casey),
        (known::READ_ONLY, true, &["vso.code"][..], casey),
        (known::NO_CODE, true, &["vso.project"][..], casey),
        (known::EXPIRED, false, both, casey),
        (known::REVOKED, false, both, casey),
        (known::SECOND, true, both, robin),
        (known::ENTRA, true, both, casey),
    ]
    .into_iter()
    .map(|(token, alive, scopes, (user_id, account, name, admin))| AzureToken {
        token: token.to_owned(),
        alive,
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        bearer: token == known::ENTRA,
        admin,
        sees_hooks: true,
        outsider: false,
        user_id: user_id.to_owned(),
        account: account.to_owned(),
        name: name.to_owned(),
    })
    .collect()
}
