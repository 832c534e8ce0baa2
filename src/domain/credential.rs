//! Tokens and what is known of them.

use std::fmt;

use zeroize::Zeroizing;

use super::timestamp::Timestamp;
use super::violation::{FieldReason, Refusal};

/// The longest token that is accepted, in bytes. The longest known ones (Entra access tokens) have about 3,000.
pub const MAX_TOKEN_BYTES: usize = 8_192;

/// A text that must not be seen: it is wiped when dropped, and prints as `Secret(..)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over. No copy is made; the caller's string is the one that is wiped.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Takes over a token that a caller sent.
    ///
    /// # Errors
    ///
    /// `TOKEN_MALFORMED` for an empty one, one over [`MAX_TOKEN_BYTES`], and one with a character
    /// other than visible ASCII: no provider makes such a token, and it could split a header. The
    /// text is wiped and never echoed, not even partly.
    pub fn token(text: String) -> Result<Self, Refusal> {
        let secret = Self::new(text);
        let text = secret.expose();
        let problem = if text.is_empty() {
            "the token is empty"
        } else if text.len() > MAX_TOKEN_BYTES {
            "the token is longer than 8,192 bytes"
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            "the token holds a character that is not visible ASCII, such as a space or a line break"
        } else {
            return Ok(secret);
        };
        Err(Refusal::new(
            FieldReason::TokenMalformed,
            format!("{problem}; send it as the provider showed it"),
        ))
    }

    /// The text itself. Callers hand it to a cipher or a header and keep no copy.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The form of a credential: all but its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialForm {
    /// A person's or a service account's token.
    PersonalAccessToken {
        /// The user name that git wants beside it, where the provider cares.
        username: Option<String>,
    },
    /// An API token that goes with an e-mail address (Bitbucket Cloud).
    EmailApiToken {
        /// The account's e-mail address.
        email: String,
    },
    /// A token that belongs to one resource instead of a person.
    ResourceToken {
        /// What kind of resource.
        resource_type: ResourceType,
        /// Which one, in the provider's own path form.
        resource: String,
    },
}

impl CredentialForm {
    /// Which kind of credential this is.
    #[must_use]
    pub const fn kind(&self) -> CredentialKind {
        match self {
            Self::PersonalAccessToken { .. } => CredentialKind::PersonalAccessToken,
            Self::EmailApiToken { .. } => CredentialKind::EmailApiToken,
            Self::ResourceToken { .. } => CredentialKind::ResourceToken,
        }
    }
}

/// What a resource token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResourceType {
    /// One repository.
    Repository,
    /// One project.
    Project,
    /// One workspace.
    Workspace,
    /// One group.
    Group,
}

/// The kinds of credentials that this version accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// See [`CredentialForm::PersonalAccessToken`].
    PersonalAccessToken,
    /// See [`CredentialForm::EmailApiToken`].
    EmailApiToken,
    /// See [`CredentialForm::ResourceToken`].
    ResourceToken,
}

/// A credential that can be used: its form and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// All but the secret.
    pub form: CredentialForm,
    /// The secret.
    pub token: Secret,
}

/// How git signs in over HTTPS, beside the token as its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitLogin {
    /// The user name that goes with the token.
    pub username: String,
    /// What to try first.
    pub scheme: AuthScheme,
}

/// How a credential travels with git's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthScheme {
    /// As user name and password.
    Basic,
    /// Behind `Bearer`, without a user name.
    Bearer,
}

/// The sealed form of a secret: bytes that only the key ring opens.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// The account behind a token, as the provider named it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// The provider's own stable id; empty where an accepted token may not ask for it.
    pub id: String,
    /// The login name.
    pub login: String,
    /// The name that people see.
    pub display_name: String,
    /// The e-mail address, if the provider told.
    pub email: String,
    /// Whether it is no person but a bot or a service account.
    pub bot: bool,
}

/// Whether a token can do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Capability {
    /// It can.
    Yes,
    /// It cannot.
    No,
    /// The provider did not tell.
    #[default]
    Unknown,
}

/// The things that a connection can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapabilityType {
    /// Find repositories.
    ListRepositories,
    /// Clone them.
    ReadCode,
    /// Create and remove their webhooks.
    ManageWebhooks,
}

impl CapabilityType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ListRepositories, Self::ReadCode, Self::ManageWebhooks];

    /// The stable word of this capability, such as `LIST_REPOSITORIES`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ListRepositories => "LIST_REPOSITORIES",
            Self::ReadCode => "READ_CODE",
            Self::ManageWebhooks => "MANAGE_WEBHOOKS",
        }
    }
}

/// What a token can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Capabilities {
    /// Find repositories.
    pub list_repositories: Capability,
    /// Clone them.
    pub read_code: Capability,
    /// Create and remove their webhooks.
    pub manage_webhooks: Capability,
}

impl Capabilities {
    /// What is known of one capability.
    #[must_use]
    pub const fn of(&self, which: CapabilityType) -> Capability {
        match which {
            CapabilityType::ListRepositories => self.list_repositories,
            CapabilityType::ReadCode => self.read_code,
            CapabilityType::ManageWebhooks => self.manage_webhooks,
        }
    }
}

/// Who told when a token ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ExpireTimeSource {
    /// The provider.
    Provider,
    /// Whoever supplied the token.
    Declared,
    /// Nobody.
    #[default]
    Unknown,
}

/// What may be shown of a stored credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialInfo {
    /// The form of the credential, without its secret.
    pub form: CredentialForm,
    /// Known prefix, `****`, last four characters; empty for a token below 16 characters.
    pub obfuscated_token: String,
    /// A keyed hash: equal for the same token in two connections, and useless to anybody else.
    pub fingerprint: String,
    /// Whose it is; `None` where an accepted token may not ask.
    pub account: Option<Account>,
    /// What the provider said that it may do.
    pub granted_scopes: Vec<String>,
    /// What the required capabilities need beyond that.
    pub missing_scopes: Vec<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether the audit trail has told that it ends soon.
    pub expiry_told: bool,
    /// When it ends.
    pub expire_time: Option<Timestamp>,
    /// Who said so.
    pub expire_time_source: ExpireTimeSource,
    /// 1 for the first credential of a connection, one more with each replacement.
    pub version: i64,
    /// When this version was stored.
    pub create_time: Timestamp,
    /// When it was last used, to the hour.
    pub last_use_time: Option<Timestamp>,
}

/// Token prefixes that providers document; used to obfuscate, and to notice a token in a field for text.
/// A prefix never decides whether a token is accepted: most servers let the administrator change it.
const KNOWN_PREFIXES: &[&str] = &[
    "github_pat_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "glpat-",
    "gloas-",
    "gldt-",
    "glrt-",
    "glptt-",
    "glft-",
    "glsoat-",
    "glcbt-",
    "glagent-",
    "ATATT3",
    "ATCTT3",
    "ATBB",
    "BBDC-",
];

/// Azure DevOps tokens have no prefix, but this in the middle of 84 characters.
const AZURE_DEVOPS_MARK: &str = "AZDO";

/// How a token is shown to people: known prefix, `****`, last four characters. Empty for a token below
/// 16 characters, of which four would be too much.
#[must_use]
pub fn obfuscate(token: &Secret) -> String {
    let text = token.expose();
    if text.len() < 16 {
        return String::new();
    }
    let prefix = KNOWN_PREFIXES.iter().find(|prefix| text.starts_with(**prefix)).copied().unwrap_or("");
    // Tokens are visible ASCII (`Secret::token`), so every byte is a boundary; `get` covers the rest.
    format!("{prefix}****{}", text.get(text.len() - 4..).unwrap_or(""))
}

/// Whether a text for people holds something that looks like a token, anywhere in it.
#[must_use]
pub fn looks_like_token(text: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '=')))
        .any(|word| is_prefixed_token(word) || is_azure_devops_token(word))
}

/// Every call brings texts here, so no searcher is built: few places are left where so long a token can begin.
fn is_prefixed_token(word: &str) -> bool {
    const REST: usize = 16;
    let is_plain = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let word = word.as_bytes();
    (0..word.len().saturating_sub(REST)).any(|at| {
        KNOWN_PREFIXES.iter().any(|prefix| {
            let rest = word[at..].strip_prefix(prefix.as_bytes());
            rest.is_some_and(|rest| rest.iter().take_while(is_plain).count() >= REST)
        })
    })
}

fn is_azure_devops_token(word: &str) -> bool {
    let lower_base32 = |b: u8| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b);
    (word.len() == 52 && word.bytes().all(lower_base32))
        || (word.len() == 84
            && word.contains(AZURE_DEVOPS_MARK)
            && word.bytes().all(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        assert_eq!(format!("{:?}", Secret::new("glpat-abcdefghijklmnop".into())), "Secret(..)");
    }

    #[test]
    fn s10_a_malformed_token_is_refused_without_an_echo() {
        for bad in ["", "a b", "a\r\nb", "a\0b", "tök", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
            let refusal = Secret::token(bad.to_owned()).expect_err("refused");
            assert_eq!(refusal.reason, FieldReason::TokenMalformed);
            assert!(bad.is_empty() || !refusal.description.contains(bad));
        }
        assert!(Secret::token("x".repeat(MAX_TOKEN_BYTES)).is_ok());
    }

    #[test]
    fn a_token_is_shown_by_prefix_and_last_four() {
        assert_eq!(obfuscate(&Secret::new("glpat-abcdefghijklx9Qa".into())), "glpat-****x9Qa");
        assert_eq!(obfuscate(&Secret::new("abcdefghijklmnop".into())), "****mnop");
        assert_eq!(obfuscate(&Secret::new("abcdefghijklmno".into())), "");
    }

    #[test]
    fn a_token_in_a_text_is_noticed() {
        assert!(looks_like_token("my glpat-abcdefghij0123456789"));
        assert!(looks_like_token("x:ghp_abcdefghij0123456789@host"));
        assert!(looks_like_token(&"a2".repeat(26)));
        assert!(!looks_like_token("glpat- is the prefix"));
        assert!(!looks_like_token("Instance"));
        assert!(!looks_like_token("our ghp_ tokens"));
    }
}
