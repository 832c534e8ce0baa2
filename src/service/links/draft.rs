//! A link as a caller described it, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::connection::{ConnectionName, MAX_ANNOTATION_BYTES, MAX_LABEL_BYTES};
use crate::domain::link::{Link, WebhookMode};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::domain::webhook::WebhookEvent;
use crate::domain::webhook_target::{TargetPolicy, WebhookTarget};
use crate::service::draft::{Violations, check_map};

/// A link as a caller described it, not looked at yet.
#[derive(Debug, Clone, Default)]
pub struct LinkDraft {
    /// See `RepositoryLink.connection`; `None` if it was malformed, which was noted then.
    pub connection: Option<ConnectionName>,
    /// What becomes of the webhook.
    pub webhook: WebhookWish,
    /// See `RepositoryLink.labels`.
    pub labels: BTreeMap<String, String>,
    /// See `RepositoryLink.annotations`.
    pub annotations: BTreeMap<String, String>,
}

/// What a caller wants of a link's webhook, not looked at yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookWish {
    /// `None`: AUTO with a target, NONE without.
    pub mode: Option<WebhookMode>,
    /// Empty: all that can be chosen.
    pub events: BTreeSet<WebhookEvent>,
    /// Empty for none.
    pub target_url: String,
}

impl WebhookWish {
    /// What a stored link has.
    pub(super) fn of(link: &Link) -> Self {
        Self {
            mode: Some(link.webhook_mode),
            events: link.webhook_events.clone(),
            target_url: link.webhook_target_url.clone(),
        }
    }
}

/// What becomes of a link's webhook: mode, events and target fit each other, and the operator admits the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebhookChoice {
    pub(super) mode: WebhookMode,
    pub(super) events: BTreeSet<WebhookEvent>,
    pub(super) target_url: String,
}

/// Checks what a caller wants of a webhook. A target may be kept with mode NONE, so that the mode alone switches the
/// webhook on and off. `None` only if there is at least one violation.
pub(super) fn webhook(
    wish: WebhookWish,
    targets: &TargetPolicy,
    violations: &mut Violations,
) -> Option<WebhookChoice> {
    const EVENTS: &str = "repository_link.webhook_events";
    const TARGET: &str = "repository_link.webhook_target_url";
    let WebhookWish { mode, mut events, target_url } = wish;
    if target_url.is_empty() {
        let wants_one = mode.is_some_and(|mode| mode != WebhookMode::None);
        if wants_one {
            let told = "the modes AUTO and MANUAL need a target; name one, or set webhook_mode to NONE";
            violations.push(FieldViolation::new(TARGET, FieldReason::Required, told));
        } else if !events.is_empty() {
            let told =
                "there is no webhook_target_url that the events could be told to; name it, or leave them out";
            violations.push(FieldViolation::new(EVENTS, FieldReason::Conflicting, told));
        } else {
            return Some(WebhookChoice { mode: WebhookMode::None, events, target_url });
        }
        return None;
    }
    let target = violations.take(TARGET, WebhookTarget::parse(&target_url))?;
    violations.take(TARGET, targets.check(&target))?;
    if events.is_empty() {
        events.extend(WebhookEvent::CHOSEN);
    }
    let target_url = target.as_str().to_owned();
    Some(WebhookChoice { mode: mode.unwrap_or(WebhookMode::Auto), events, target_url })
}

/// Checks labels and annotations.
pub(super) fn check_maps(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    violations: &mut Violations,
) {
    check_map("repository_link.labels", labels, MAX_LABEL_BYTES, violations);
    check_map("repository_link.annotations", annotations, MAX_ANNOTATION_BYTES, violations);
}
