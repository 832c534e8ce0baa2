//! A connection: an instance, a credential, and a name that people chose.

use std::collections::BTreeMap;
use std::fmt;

use unicode_normalization::UnicodeNormalization;

use super::credential::{CapabilityType, CredentialInfo, Sealed, looks_like_token};
use super::timestamp::Timestamp;
use super::violation::{FieldReason, Refusal};

/// The longest display name, in characters after trimming.
pub const MAX_DISPLAY_NAME_CHARS: usize = 64;
/// Most labels, and most annotations, of one connection.
pub const MAX_MAP_ENTRIES: usize = 64;
/// Longest label value, in bytes.
pub const MAX_LABEL_BYTES: usize = 256;
/// Longest annotation value, in bytes.
pub const MAX_ANNOTATION_BYTES: usize = 4_096;

/// Who owns connections: one user, team or organization of the calling platform.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(String);

impl TenantId {
    /// Parses `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`, without `root`, which is kept for operators.
    ///
    /// # Errors
    ///
    /// `MALFORMED`, `RESERVED` or `TOKEN_IN_TEXT`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        refuse_token(text)?;
        if text == "root" {
            return Err(Refusal::new(
                FieldReason::Reserved,
                "the tenant id `root` is reserved; choose another one",
            ));
        }
        if !is_dns_label(text) {
            return Err(Refusal::new(
                FieldReason::Malformed,
                "a tenant id has 1 to 63 characters of a-z, 0-9 and -, and neither starts nor ends with -",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a connection inside its tenant; never used again after the connection is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(String);

impl ConnectionId {
    /// Parses an id that a caller chose: `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`.
    ///
    /// # Errors
    ///
    /// `MALFORMED` or `TOKEN_IN_TEXT`.
    pub fn parse_chosen(text: &str) -> Result<Self, Refusal> {
        parse_chosen_id(text, "connection").map(Self)
    }

    /// Parses an id as it may stand in a resource name: a chosen one, or a generated UUID in lower case.
    ///
    /// # Errors
    ///
    /// `MALFORMED` or `TOKEN_IN_TEXT`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        parse_id(text, "connection").map(Self)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An id that a caller chose for a resource called `what`.
pub(super) fn parse_chosen_id(text: &str, what: &str) -> Result<String, Refusal> {
    refuse_token(text)?;
    if is_dns_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(text.to_owned());
    }
    Err(Refusal::new(
        FieldReason::Malformed,
        format!(
            "a {what} id has 1 to 63 characters of a-z, 0-9 and -, starts with a letter and does not end with -"
        ),
    ))
}

/// The same, or a generated UUID in lower case.
pub(super) fn parse_id(text: &str, what: &str) -> Result<String, Refusal> {
    if is_canonical_uuid(text) {
        return Ok(text.to_owned());
    }
    parse_chosen_id(text, what)
}

fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_canonical_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
}

/// Where a connection is found: its tenant and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionName {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which one.
    pub id: ConnectionId,
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/connections/{}", self.tenant, self.id)
    }
}

/// The id of a provider, such as `gitlab`. A text, so that a new provider changes no other place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderId(String);

impl ProviderId {
    /// The id `text`. Whether such a provider exists is for the list of providers to say.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name that people chose, trimmed: 1 to 64 characters, no control characters, no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName(String);

impl DisplayName {
    /// Parses what a caller sent; the same limits on create and update.
    ///
    /// # Errors
    ///
    /// `REQUIRED`, `TOO_LONG`, `CONTROL_CHARACTER` or `TOKEN_IN_TEXT`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Refusal::new(
                FieldReason::Required,
                "a display name must be given: 1 to 64 characters",
            ));
        }
        if text.chars().count() > MAX_DISPLAY_NAME_CHARS {
            return Err(Refusal::new(FieldReason::TooLong, "a display name has at most 64 characters"));
        }
        check_text(text)?;
        Ok(Self(text.to_owned()))
    }

    /// Takes back a name that was parsed before it was stored. It is not checked again: a rule that
    /// became stricter since must not make a stored connection unreadable.
    #[must_use]
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The name as people wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What two names are compared by: trimmed, in Unicode NFC, case-folded.
    #[must_use]
    pub fn fold(&self) -> String {
        // Folding can take a text out of NFC again (U+0345), hence the second round.
        let composed: String = self.0.nfc().collect();
        caseless::default_case_fold_str(&composed).nfc().collect()
    }
}

/// Refuses a text that looks like a token: answers and logs repeat ids and names.
fn refuse_token(text: &str) -> Result<(), Refusal> {
    if looks_like_token(text) {
        return Err(Refusal::new(
            FieldReason::TokenInText,
            "the text looks like a token; tokens go into `credential` alone. Revoke this one if it is real",
        ));
    }
    Ok(())
}

/// Refuses control characters, marks that turn the reading direction, and tokens in a text for people.
///
/// # Errors
///
/// `CONTROL_CHARACTER` or `TOKEN_IN_TEXT`; the text itself is never echoed.
pub fn check_text(text: &str) -> Result<(), Refusal> {
    let turns_direction =
        |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    if text.chars().any(|c| c.is_control() || turns_direction(c)) {
        return Err(Refusal::new(
            FieldReason::ControlCharacter,
            "the text holds a control character; remove it",
        ));
    }
    refuse_token(text)
}

/// Whether the provider runs the instance, or somebody else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hosting {
    /// The provider's own cloud.
    Cloud,
    /// Anybody's own server.
    SelfHosted,
}

/// What a provider needs beside the URL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Azure DevOps Services: the organization.
    pub organization: String,
    /// Azure DevOps Server: the collection.
    pub collection: String,
    /// Azure DevOps: only these projects; empty for all.
    pub projects: Vec<String>,
    /// Bitbucket Cloud: only these workspaces; empty for all.
    pub workspaces: Vec<String>,
}

/// How a connection fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Created disabled; never verified.
    Pending,
    /// Works.
    Active,
    /// Works, but a required capability is missing, the account changed, or the token ends soon.
    Degraded,
    /// The provider refuses the token.
    AuthFailed,
    /// The provider could not be reached.
    Unreachable,
    /// Switched off by its owner.
    Disabled,
}

impl State {
    /// The stable word of this state, such as `AUTH_FAILED`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Active => "ACTIVE",
            Self::Degraded => "DEGRADED",
            Self::AuthFailed => "AUTH_FAILED",
            Self::Unreachable => "UNREACHABLE",
            Self::Disabled => "DISABLED",
        }
    }
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

/// One thing that is or is not so about a connection, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it speaks of, such as `CREDENTIAL_VALID`.
    pub condition_type: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// A stable word for why.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// Since when the status is what it is.
    pub last_transition_time: Timestamp,
}

/// How much of its request quota the provider last said was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests in one window.
    pub limit: i64,
    /// Requests left in this one.
    pub remaining: i64,
    /// When the next window starts, if the provider told.
    pub reset_time: Option<Timestamp>,
    /// When the provider said so.
    pub observe_time: Timestamp,
}

/// Everything about a connection but its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Tenant and id.
    pub name: ConnectionName,
    /// A UUIDv7 that no other connection ever had, not even one of the same id.
    pub uid: String,
    /// The name that people chose.
    pub display_name: DisplayName,
    /// What kind of Git host; never changes.
    pub provider: ProviderId,
    /// The URL as the caller sent it; empty for the provider's own cloud.
    pub base_url: String,
    /// The canonical URL below which the API calls go; with the provider it is the instance.
    pub effective_api_url: String,
    /// What the provider needs beside the URL, as the caller sent it.
    pub scope: Scope,
    /// Certificates (PEM) to trust beside the system's, for this connection alone; empty for none.
    pub ca_certificates_pem: String,
    /// What this connection is for; empty means all three.
    pub required_capabilities: Vec<CapabilityType>,
    /// What is known of the credential.
    pub credential: CredentialInfo,
    /// As the provider told at the last verification; empty if it did not.
    pub server_version: String,
    /// Who runs the instance.
    pub hosting: Hosting,
    /// How it fares.
    pub state: State,
    /// Why.
    pub conditions: Vec<Condition>,
    /// What the provider last said of its quota.
    pub rate_limit: Option<RateLimit>,
    /// Switched off: no call reaches the provider.
    pub disabled: bool,
    /// Short texts to select by.
    pub labels: BTreeMap<String, String>,
    /// Texts that this service keeps without reading them.
    pub annotations: BTreeMap<String, String>,
    /// Who is responsible, in the caller's words.
    pub owner: String,
    /// When it was created.
    pub create_time: Timestamp,
    /// When a caller last changed it.
    pub update_time: Timestamp,
    /// When it was last verified.
    pub last_verify_time: Option<Timestamp>,
    /// Counts the changes that a reader can see, from 1 on; the etag is made of it. Bookkeeping (the time of the
    /// last use) counts in [`ConnectionRecord::revision`] alone.
    pub generation: u64,
}

/// Counts the writes of a record: 1 at its creation, one more with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// A connection as it is kept: with its sealed secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Everything but the secret.
    pub connection: Connection,
    /// The secret, sealed.
    pub sealed: Sealed,
    /// Counts the writes; the store compares it.
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ac_01_names_that_differ_in_case_space_or_composition_are_one() {
        let fold = |text: &str| DisplayName::parse(text).expect("valid").fold();
        assert_eq!(fold(" Instance "), fold("instance"));
        assert_eq!(fold("Stra\u{df}e"), fold("STRASSE"));
        assert_eq!(fold("Caf\u{e9}"), fold("cafe\u{301}"));
        assert_ne!(fold("Instance"), fold("Instance 2"));
    }

    #[test]
    fn ac_07_a_display_name_has_1_to_64_characters() {
        assert!(DisplayName::parse(&"\u{1f600}".repeat(64)).is_ok());
        let reason = |text: &str| DisplayName::parse(text).expect_err("refused").reason;
        assert_eq!(reason(&"x".repeat(65)), FieldReason::TooLong);
        assert_eq!(reason("   "), FieldReason::Required);
        assert_eq!(reason("a\u{7}b"), FieldReason::ControlCharacter);
        assert_eq!(reason("a\u{202e}b"), FieldReason::ControlCharacter);
        assert_eq!(reason("glpat-abcdefghij0123456789"), FieldReason::TokenInText);
    }

    #[test]
    fn p1_an_id_that_looks_like_a_token_is_refused() {
        let token = "a2".repeat(26);
        assert_eq!(ConnectionId::parse(&token).expect_err("refused").reason, FieldReason::TokenInText);
        assert_eq!(TenantId::parse(&token).expect_err("refused").reason, FieldReason::TokenInText);
    }

    #[test]
    fn t06_t07_ids_have_one_canonical_form() {
        for bad in ["root", "-", "*", ".", "..", "", "A", "a ", "-a", "a-", &"a".repeat(64), "t\u{e9}"] {
            assert!(TenantId::parse(bad).is_err(), "tenant {bad:?}");
        }
        for bad in ["-", "*", ".", "..", "", "A", "a ", "9a", "0190a6c0-0000-7000-8000-00000000000A", "{a}"] {
            assert!(ConnectionId::parse(bad).is_err(), "connection {bad:?}");
        }
        assert!(ConnectionId::parse("0190a6c0-0000-7000-8000-00000000000a").is_ok());
        assert!(ConnectionId::parse_chosen("0190a6c0-0000-7000-8000-00000000000a").is_err());
        assert!(TenantId::parse("9-team").is_ok());
    }
}
