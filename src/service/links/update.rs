//! UpdateRepositoryLink.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{self, WebhookChoice, WebhookWish};
use super::{Links, MAX_ROUNDS, ShownLink, check_etag, replace_change};
use crate::domain::connection::ConnectionName;
use crate::domain::event::EventType;
use crate::domain::link::{Link, LinkName, LinkRecord, WebhookMode};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::domain::webhook::WebhookEvent;
use crate::service::Context;
use crate::service::audit::{Subject, difference, event, link_summary};
use crate::service::draft::Violations;
use crate::service::error::Error;
use crate::service::once::{Done, Repeat};
use crate::store::{Change, StoreError};

/// What UpdateRepositoryLink asks for.
#[derive(Debug)]
pub struct Update {
    /// Which link.
    pub name: Option<LinkName>,
    /// The etag that the caller read; empty for none.
    pub etag: String,
    /// What to change.
    pub edit: Edit,
    /// What was found wrong while the message was read.
    pub violations: Vec<FieldViolation>,
}

/// The fields that an update sets; `None` leaves one as it is.
#[derive(Debug, Default)]
pub struct Edit {
    /// Must be what it is: SwitchConnection changes it.
    pub connection: Option<ConnectionName>,
    /// `Some(None)`: AUTO with a target, NONE without.
    pub webhook_mode: Option<Option<WebhookMode>>,
    /// Empty: all that can be chosen.
    pub webhook_events: Option<BTreeSet<WebhookEvent>>,
    /// Empty for none.
    pub webhook_target_url: Option<String>,
    /// See `RepositoryLink.labels`.
    pub labels: Option<BTreeMap<String, String>>,
    /// See `RepositoryLink.annotations`.
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Links {
    /// Changes a link, without a call to its provider: what becomes of the webhook is carried out in the background.
    ///
    /// # Errors
    ///
    /// [`Error::LinkNotFound`], [`Error::Stale`]; see [`Error`].
    pub async fn update(
        &self,
        context: &Context,
        request: Update,
        repeat: Option<Repeat<'_, ShownLink>>,
    ) -> Result<Done<ShownLink>, Error> {
        let Some(name) = request.name.clone() else {
            return Err(Error::Invalid(request.violations));
        };
        if let Some(answer) = self.0.answered_before(&name.tenant, repeat.as_ref()).await? {
            return Ok(Done::Before(answer));
        }
        let outcome = self.update_once(context, &name, &request, repeat.as_ref()).await;
        self.0.done_or_before(&name.tenant, repeat.as_ref(), outcome).await
    }

    async fn update_once(
        &self,
        context: &Context,
        name: &LinkName,
        request: &Update,
        repeat: Option<&Repeat<'_, ShownLink>>,
    ) -> Result<ShownLink, Error> {
        let core = &*self.0;
        for _ in 0..MAX_ROUNDS {
            let record = core.live_link(name).await?;
            check_etag(&record.link, &request.etag)?;
            let mut next = self.edited(&record, request)?;
            let now = core.clock.now();
            let mut changes = Vec::new();
            if next != record.link {
                next.update_time = now;
                next.generation += 1;
                let shared = core.share_webhooks(Some(&record.link), Some(&next), now).await?;
                let (was, is) = difference(&link_summary(&record.link), &link_summary(&next));
                let (change, subject) = (EventType::RepositoryLinkUpdated, Subject::link(&next));
                changes.push(replace_change(&record, next.clone(), record.due, record.attempts));
                changes.push(Change::Append(event(context, change, subject, was, is, now)));
                changes.extend(shared.changes);
            }
            let shown = core.show_changed_link(&next, &changes).await?;
            changes.splice(0..0, core.remember(&name.tenant, repeat, &shown, now));
            if changes.is_empty() {
                return Ok(shown);
            }
            match core.store.commit(changes).await {
                Ok(()) => {
                    core.work.wake();
                    return Ok(shown);
                }
                // Bookkeeping, the webhook of a sibling, or somebody whose change this one goes on top of.
                Err(StoreError::Stale | StoreError::NotFound) => {}
                Err(error) => return Err(Error::from_link_store(error, name)),
            }
        }
        Err(Error::Stale { name: name.to_string() })
    }

    /// The stored link with the wished fields.
    fn edited(&self, record: &LinkRecord, request: &Update) -> Result<Link, Error> {
        let mut link = record.link.clone();
        let mut violations = Violations::starting_with(request.violations.clone());
        let Edit { connection, webhook_mode, webhook_events, webhook_target_url, labels, annotations } =
            &request.edit;
        if connection.as_ref().is_some_and(|connection| *connection != link.connection_name()) {
            violations.push(FieldViolation::new(
                "repository_link.connection",
                FieldReason::Immutable,
                "SwitchConnection moves a link to another connection",
            ));
        }
        let mut wish = WebhookWish::of(&link);
        if let Some(mode) = webhook_mode {
            wish.mode = *mode;
        }
        if let Some(events) = webhook_events {
            wish.events.clone_from(events);
        }
        if let Some(target) = webhook_target_url {
            wish.target_url.clone_from(target);
            if target.is_empty() && webhook_events.is_none() {
                // They were told to the target that goes.
                wish.events.clear();
            }
        }
        // What is not touched is not judged anew: the operator may list other targets by now.
        if wish != WebhookWish::of(&link)
            && let Some(choice) = draft::webhook(wish, &self.0.targets, &mut violations)
        {
            let WebhookChoice { mode, events, target_url } = choice;
            link.webhook_mode = mode;
            link.webhook_events = events;
            link.webhook_target_url = target_url;
        }
        if let Some(labels) = labels {
            link.labels.clone_from(labels);
        }
        if let Some(annotations) = annotations {
            link.annotations.clone_from(annotations);
        }
        draft::check_maps(&link.labels, &link.annotations, &mut violations);
        violations.finish()?;
        Ok(link)
    }
}
