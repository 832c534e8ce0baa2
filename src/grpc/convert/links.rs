//! Repository links, from protobuf and to it.

use std::collections::BTreeSet;

use super::encode::{account, condition, connection_state, repository, time, webhook_event};
use crate::domain::connection::ConnectionName;
use crate::domain::link::{HistoryEntry, LinkState, WebhookMode};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::domain::webhook::WebhookEvent;
use crate::grpc::{names, status};
use crate::proto::v1;
use crate::service::connections::{Affected, AffectedOutcome, CheckLinks};
use crate::service::draft::Violations;
use crate::service::links::{Became, Edit, LinkDraft, Migrated, ShownLink, SwitchTarget, WebhookWish, etag};

/// A link as a reader sees it.
pub(in crate::grpc) fn link(shown: ShownLink) -> v1::RepositoryLink {
    let ShownLink { link, reconciling } = shown;
    let etag = etag(&link);
    let connection = link.connection_name();
    let tenant = &connection.tenant;
    let history = link.connection_history.into_iter().map(|entry| {
        let HistoryEntry { connection, actor, time: since } = entry;
        v1::repository_link::ConnectionHistoryEntry {
            connection: ConnectionName { tenant: tenant.clone(), id: connection }.to_string(),
            actor,
            time: Some(time(since)),
        }
    });
    v1::RepositoryLink {
        name: link.name.to_string(),
        uid: link.uid,
        connection: connection.to_string(),
        provider: link.provider.as_str().to_owned(),
        webhook_mode: match link.webhook_mode {
            WebhookMode::Auto => v1::repository_link::WebhookMode::Auto,
            WebhookMode::Manual => v1::repository_link::WebhookMode::Manual,
            WebhookMode::None => v1::repository_link::WebhookMode::None,
        } as i32,
        webhook_events: link.webhook_events.iter().map(|&event| webhook_event(event)).collect(),
        webhook_target_url: link.webhook_target_url,
        state: match link.state {
            LinkState::Pending => v1::repository_link::State::Pending,
            LinkState::Linked => v1::repository_link::State::Linked,
            LinkState::AccessLost => v1::repository_link::State::AccessLost,
            LinkState::NotFound => v1::repository_link::State::NotFound,
            LinkState::Unlinking => v1::repository_link::State::Unlinking,
        } as i32,
        conditions: link.conditions.into_iter().map(condition).collect(),
        connection_history: history.collect(),
        previous_full_names: link.previous_full_names,
        labels: link.labels.into_iter().collect(),
        annotations: link.annotations.into_iter().collect(),
        create_time: Some(time(link.create_time)),
        update_time: Some(time(link.update_time)),
        etag,
        reconciling,
        repository: Some(repository(&connection, link.repository)),
    }
}

/// A connection that a link can be switched to, or has.
pub(in crate::grpc) fn switch_target(target: SwitchTarget) -> v1::SwitchTarget {
    let SwitchTarget { connection, current, same_instance } = target;
    v1::SwitchTarget {
        connection: connection.name.to_string(),
        display_name: connection.display_name.as_str().to_owned(),
        base_url: connection.base_url,
        account: connection.credential.account.map(account),
        obfuscated_token: connection.credential.obfuscated_token,
        state: connection_state(connection.state),
        current,
        same_instance,
    }
}

/// What became of one link of a migration.
pub(in crate::grpc) fn migrated(moved: Migrated) -> v1::MigrateRepositoryLinksResponse {
    use v1::migrate_repository_links_response::{Outcome, Progress};
    let Migrated { name, became, done, total } = moved;
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let (outcome, reason, message) = match became {
        Became::Moved => (Outcome::Moved, String::new(), String::new()),
        Became::WouldMove => (Outcome::WouldMove, String::new(), String::new()),
        Became::Refused(error) => {
            let status = status::of(error);
            // The call goes well, so its log line will not tell.
            if let Some(cause) = status::Cause::of(&status) {
                tracing::error!(link = %name, %cause, "a link is left out of a migration");
            }
            (Outcome::Refused, status::reason(&status), status.message().to_owned())
        }
    };
    v1::MigrateRepositoryLinksResponse {
        repository_link: name.to_string(),
        outcome: outcome as i32,
        reason,
        message,
        progress: Some(Progress { done: count(done), total: count(total) }),
    }
}

/// Which linked repositories a new credential must reach: all of them where the caller does not say.
pub(in crate::grpc) fn check_links(number: i32, violations: &mut Violations) -> CheckLinks {
    use v1::replace_credential_request::CheckLinks as Wire;
    match Wire::try_from(number) {
        Ok(Wire::None) => CheckLinks::None,
        Ok(Wire::Unspecified | Wire::All) => CheckLinks::All,
        Err(_) => {
            let told = "must be NONE or ALL; left out, it is ALL";
            violations.push(FieldViolation::new("check_links", FieldReason::UnknownValue, told));
            CheckLinks::All
        }
    }
}

/// What a new credential means for one link.
pub(in crate::grpc) fn affected_link(affected: &Affected) -> v1::AffectedLink {
    use v1::affected_link::Outcome;
    v1::AffectedLink {
        repository_link: affected.name.to_string(),
        full_name: affected.full_name.clone(),
        outcome: match affected.outcome {
            AffectedOutcome::Kept => Outcome::Kept,
            AffectedOutcome::Lost => Outcome::Lost,
            AffectedOutcome::Unchecked => Outcome::Unchecked,
        } as i32,
        reason: affected.reason.to_owned(),
        message: affected.message.clone(),
    }
}

/// A link as a caller described it. What only this service sets is passed over.
pub(in crate::grpc) fn link_draft(link: v1::RepositoryLink, violations: &mut Violations) -> LinkDraft {
    LinkDraft {
        connection: names::connection("repository_link.connection", &link.connection, violations),
        webhook: WebhookWish {
            mode: webhook_mode(link.webhook_mode, violations),
            events: webhook_events(&link.webhook_events, violations),
            target_url: link.webhook_target_url,
        },
        labels: link.labels.into_iter().collect(),
        annotations: link.annotations.into_iter().collect(),
    }
}

/// The fields of an update. `None` for the mask: all populated fields; `*`: all of them.
pub(in crate::grpc) fn link_edit(
    link: v1::RepositoryLink,
    mask: Option<&[String]>,
    violations: &mut Violations,
) -> Edit {
    for path in mask.unwrap_or_default() {
        check_path(path, violations);
    }
    let named = |path: &str, is_populated: bool| match mask {
        Some(paths) => paths.iter().any(|named| named == path || named == "*"),
        None => is_populated,
    };
    let mode = webhook_mode(link.webhook_mode, violations);
    let events = webhook_events(&link.webhook_events, violations);
    let target = link.webhook_target_url;
    let (labels, annotations) = (link.labels, link.annotations);
    // An update with `*` may leave the connection out: it cannot change anyway.
    let connection = Some(link.connection).filter(|connection| !connection.is_empty());
    Edit {
        connection: connection
            .and_then(|name| names::connection("repository_link.connection", &name, violations)),
        webhook_mode: named("webhook_mode", mode.is_some()).then_some(mode),
        webhook_events: named("webhook_events", !events.is_empty()).then_some(events),
        webhook_target_url: named("webhook_target_url", !target.is_empty()).then_some(target),
        labels: named("labels", !labels.is_empty()).then(|| labels.into_iter().collect()),
        annotations: named("annotations", !annotations.is_empty()).then(|| annotations.into_iter().collect()),
    }
}

/// Paths that an update may name. Those of output fields are allowed and change nothing (AIP-203).
fn check_path(path: &str, violations: &mut Violations) {
    const INPUT: [&str; 7] =
        ["*", "connection", "webhook_mode", "webhook_events", "webhook_target_url", "labels", "annotations"];
    const OUTPUT: [&str; 12] = [
        "name",
        "uid",
        "repository",
        "provider",
        "state",
        "conditions",
        "connection_history",
        "previous_full_names",
        "create_time",
        "update_time",
        "etag",
        "reconciling",
    ];
    if !INPUT.contains(&path) && !OUTPUT.contains(&path) {
        violations.push(FieldViolation::new(
            "update_mask",
            FieldReason::UnknownPath,
            format!("a path is not a field of RepositoryLink; the paths are {}", INPUT.join(", ")),
        ));
    }
}

/// The mode that a caller chose; `None` if it left the choice to this service.
fn webhook_mode(number: i32, violations: &mut Violations) -> Option<WebhookMode> {
    use v1::repository_link::WebhookMode as Wire;
    match Wire::try_from(number) {
        Ok(Wire::Auto) => Some(WebhookMode::Auto),
        Ok(Wire::Manual) => Some(WebhookMode::Manual),
        Ok(Wire::None) => Some(WebhookMode::None),
        Ok(Wire::Unspecified) => None,
        Err(_) => {
            violations.push(FieldViolation::new(
                "repository_link.webhook_mode",
                FieldReason::UnknownValue,
                "must be AUTO, MANUAL or NONE; left out, it is AUTO with a target and NONE without",
            ));
            None
        }
    }
}

fn webhook_events(numbers: &[i32], violations: &mut Violations) -> BTreeSet<WebhookEvent> {
    let mut found = BTreeSet::new();
    for &number in numbers {
        let event = match v1::WebhookEventType::try_from(number) {
            Ok(v1::WebhookEventType::Push) => WebhookEvent::Push,
            Ok(v1::WebhookEventType::Tag) => WebhookEvent::Tag,
            Ok(v1::WebhookEventType::PullRequest) => WebhookEvent::PullRequest,
            Ok(v1::WebhookEventType::Other | v1::WebhookEventType::Unspecified) | Err(_) => {
                violations.push(FieldViolation::new(
                    "repository_link.webhook_events",
                    FieldReason::UnknownValue,
                    "each must be PUSH, TAG or PULL_REQUEST; leave the list out for all of them",
                ));
                continue;
            }
        };
        found.insert(event);
    }
    found
}
