//! Webhooks and deliveries, to protobuf.

use super::encode::{account, condition, time, webhook_event};
use crate::domain::delivery::{Delivery, PullRequestState};
use crate::domain::link::WebhookMode;
use crate::domain::webhook::WebhookState;
use crate::proto::v1;
use crate::service::webhooks::{Rotated, Shown};

/// The webhook of a link.
pub(in crate::grpc) fn webhook(shown: Shown) -> v1::Webhook {
    use v1::webhook::State;
    let Shown { link, record } = shown;
    let name = format!("{}/webhook", link.name);
    let Some(record) = record else {
        // A link with a webhook has a record of it, so this one has none.
        return v1::Webhook { name, state: State::Absent as i32, ..Default::default() };
    };
    let state = match record.state {
        _ if link.webhook_mode == WebhookMode::None && record.state != WebhookState::Deleting => {
            State::Absent
        }
        WebhookState::Pending => State::Pending,
        WebhookState::Active => State::Active,
        WebhookState::ManualRequired => State::ManualRequired,
        WebhookState::Missing => State::Missing,
        WebhookState::DisabledByProvider => State::DisabledByProvider,
        WebhookState::Drifted => State::Drifted,
        WebhookState::Deleting => State::Deleting,
    };
    v1::Webhook {
        name,
        provider_id: record.remote_id.clone().unwrap_or_default(),
        target_url: record.key.target_url.clone(),
        events: record.events().into_iter().map(webhook_event).collect(),
        state: state as i32,
        secret_set: true,
        secret_version: record.secret_version,
        adopted: record.adopted,
        conditions: record.conditions.iter().cloned().map(condition).collect(),
        last_check_time: record.last_check_time.map(time),
        etag: record.etag(),
    }
}

/// A webhook whose secret was rotated.
pub(in crate::grpc) fn rotated(rotated: &Rotated) -> v1::RotateWebhookSecretResponse {
    v1::RotateWebhookSecretResponse {
        webhook: Some(webhook(rotated.shown.clone())),
        overlap_end_time: Some(time(rotated.overlap_end)),
    }
}

/// What a delivery says.
pub(in crate::grpc) fn delivery(delivery: Delivery, dedupe_key: String) -> v1::DeliveryEvent {
    use v1::delivery_event::pull_request::State;
    v1::DeliveryEvent {
        r#type: webhook_event(delivery.event),
        action: delivery.action,
        repository_id: delivery.repository_id,
        full_name: delivery.full_name,
        changes: delivery
            .changes
            .into_iter()
            .map(|change| v1::delivery_event::RefChange {
                r#ref: change.git_ref,
                before: change.before,
                after: change.after,
            })
            .collect(),
        actor: delivery.actor.map(account),
        pull_request: delivery.pull_request.map(|request| v1::delivery_event::PullRequest {
            number: request.number,
            state: match request.state {
                PullRequestState::Open => State::Open,
                PullRequestState::Closed => State::Closed,
                PullRequestState::Merged => State::Merged,
            } as i32,
            source_ref: request.source_ref,
            target_ref: request.target_ref,
            head_commit_id: request.head_commit_id,
        }),
        delivery_id: delivery.delivery_id,
        dedupe_key,
    }
}
