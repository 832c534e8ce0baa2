//! Webhook deliveries: what came in, what it presents as its proof, what it tells.

use std::collections::BTreeMap;

use super::credential::{Account, Secret};
use super::timestamp::Timestamp;
use super::webhook::WebhookEvent;

/// The headers of a delivery, found by their names in any case.
#[derive(Debug, Clone, Default)]
pub struct DeliveryHeaders(BTreeMap<String, String>);

impl DeliveryHeaders {
    /// Of names and values as a caller sent them. Names that differ in case alone are one header, joined by `, `.
    #[must_use]
    pub fn new(headers: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in headers {
            let known = found.entry(name.to_ascii_lowercase()).or_default();
            if !known.is_empty() {
                known.push_str(", ");
            }
            known.push_str(&value);
        }
        Self(found)
    }

    /// The header of that name (lower case), without the space around it; `None` where it is missing or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}

/// What a delivery presents to prove itself. Checking it is for whoever holds the secret.
#[derive(Debug, Clone)]
pub struct Proof {
    /// What was presented.
    pub presented: Presented,
    /// When the provider says that it sent it, where the proof covers that: the check has a window.
    pub sent_time: Option<Timestamp>,
}

/// See [`Proof`].
#[derive(Debug, Clone)]
pub enum Presented {
    /// HMAC-SHA256 tags of `prefix` and the body; any of them may be the right one.
    HmacSha256 {
        /// What is signed before the body; mostly empty.
        prefix: Vec<u8>,
        /// The tags.
        tags: Vec<[u8; 32]>,
        /// What of the secret is the key.
        key: KeyForm,
    },
    /// The secret itself.
    Secret(Secret),
}

/// What of a secret is the key of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyForm {
    /// The bytes of its text.
    Text,
    /// The bytes that its text, hexadecimal, stands for.
    Hex,
}

/// Why a delivery is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryRefusal {
    /// It presents no proof.
    Unsigned,
    /// What it presents is not of the form that the provider documents.
    ProofMalformed,
    /// No secret of the webhook matches what it presents.
    ProofMismatch,
    /// It was sent too long ago, or lies in the future: a replay.
    OutsideWindow,
    /// Its body is not what the provider documents.
    BodyMalformed,
    /// It is about another repository.
    OtherRepository,
    /// No webhook of the tenant is for the repository that it names.
    NoWebhook,
}

impl DeliveryRefusal {
    /// The stable word of this refusal, such as `SIGNATURE_MISMATCH`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "SIGNATURE_MISSING",
            Self::ProofMalformed => "SIGNATURE_MALFORMED",
            Self::ProofMismatch => "SIGNATURE_MISMATCH",
            Self::OutsideWindow => "TIMESTAMP_OUTSIDE_WINDOW",
            Self::BodyMalformed => "BODY_MALFORMED",
            Self::OtherRepository => "REPOSITORY_MISMATCH",
            Self::NoWebhook => "WEBHOOK_NOT_FOUND",
        }
    }
}

/// What a delivery tells, in one vocabulary for all providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What happened.
    pub event: WebhookEvent,
    /// The provider's own word for what exactly, such as `opened`; empty where there is none.
    pub action: String,
    /// The repository's stable id; empty where the delivery names none (a ping of some providers).
    pub repository_id: String,
    /// The repository's full name at that time.
    pub full_name: String,
    /// The branches or tags that changed, in the provider's order.
    pub changes: Vec<RefChange>,
    /// Who did it, if the delivery tells.
    pub actor: Option<Account>,
    /// The pull request, for [`WebhookEvent::PullRequest`].
    pub pull_request: Option<PullRequest>,
    /// When a pull request was last changed, as the provider writes it (`updated_at` and the like); empty where it does
    /// not tell, and for refs. Tells two edits of one pull request apart, and is the same through two webhooks.
    pub moment: String,
    /// The provider's own id of the delivery, constant when it is sent again where the provider keeps it so; empty
    /// where there is none.
    pub delivery_id: String,
}

/// A ref that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefChange {
    /// In full: `refs/heads/...` or `refs/tags/...`.
    pub git_ref: String,
    /// The commit before; empty where there was none or the provider does not tell.
    pub before: String,
    /// The commit now; empty where the ref is gone, or where the provider tells of a new one without its commit: the
    /// action is `create` then.
    pub after: String,
}

/// A pull request as a delivery tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Its number in the repository.
    pub number: i64,
    /// Whether it is open.
    pub state: PullRequestState,
    /// The branch it comes from, without `refs/heads/`.
    pub source_ref: String,
    /// The branch it goes to, without `refs/heads/`.
    pub target_ref: String,
    /// The newest commit of its source.
    pub head_commit_id: String,
}

/// Whether a pull request is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullRequestState {
    /// It is.
    Open,
    /// It was closed without a merge.
    Closed,
    /// It was merged.
    Merged,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_any_case_and_joined() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = DeliveryHeaders::new([pair("X-A", " one "), pair("x-a", "two"), pair("X-Empty", " ")]);
        assert_eq!(headers.get("x-a"), Some("one , two"));
        assert_eq!(headers.get("x-empty"), None);
        assert_eq!(headers.get("x-b"), None);
    }
}
