//! Webhooks: who counts on which, the work that keeps them as they are wanted, their secrets, and what they deliver.

pub mod deliveries;
pub(super) mod keep;
mod remove;
pub(super) mod share;

use std::sync::Arc;
use std::time::Duration;

use self::keep::{Kept, Pace};
use super::audit::{self, Fields, Subject};
use super::error::Error;
use super::once::{Done, Repeat};
use super::{Context, Core, origin_of, store_down};
use crate::domain::connection::Revision;
use crate::domain::credential::{Capability, Secret};
use crate::domain::event::EventType;
use crate::domain::link::{Link, LinkName, WebhookMode};
use crate::domain::timestamp::Timestamp;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::domain::webhook::{
    BASIC_AUTH_USERNAME, NextSecret, SecretScheme, WantedWebhook, WebhookEvent, WebhookRecord, WebhookState,
};
use crate::store::Change;

/// How long the old secret verifies where the caller does not say.
pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 3_600);
/// The longest that it may.
pub const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How often a change is tried again because the worker wrote the record meanwhile.
const MAX_ROUNDS: usize = 5;

/// The webhook of one link, as it is shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Whose it is.
    pub link: Link,
    /// The webhook that the link counts on, or that it counted on and that is still being removed.
    pub record: Option<Arc<WebhookRecord>>,
}

/// What EnsureWebhook did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// Nothing.
    Nothing,
    /// It was made.
    Created,
    /// It was repaired.
    Updated,
    /// One that was there was taken over.
    Adopted,
    /// A person has to make it.
    ManualRequired,
}

/// What a person needs to make a webhook by hand.
#[derive(Debug)]
pub struct Setup {
    /// Where it delivers to.
    pub target_url: String,
    /// The secret to enter.
    pub secret: Secret,
    /// The user name that goes with it, where the provider knows basic authentication alone.
    pub username: Option<&'static str>,
    /// The content type to choose.
    pub content_type: &'static str,
    /// The events to choose.
    pub events: Vec<WebhookEvent>,
    /// What to do.
    pub steps: Vec<String>,
}

/// A webhook whose secret was rotated.
#[derive(Debug)]
pub struct Rotated {
    /// The webhook as it is now.
    pub shown: Shown,
    /// Until when the old secret verifies.
    pub overlap_end: Timestamp,
}

/// The operations on webhooks.
#[derive(Debug, Clone)]
pub struct Webhooks(Arc<Core>);

impl Webhooks {
    /// The operations on the webhooks of `core`.
    #[must_use]
    pub const fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// The webhook of a link.
    ///
    /// # Errors
    ///
    /// [`Error::LinkNotFound`], [`Error::Unreadable`], [`Error::StoreUnavailable`].
    pub async fn read(&self, name: &LinkName) -> Result<Shown, Error> {
        self.shown(self.0.link(name).await?.link.clone()).await
    }

    /// Compares the webhook with the provider now, and makes, adopts or repairs it.
    ///
    /// # Errors
    ///
    /// [`Error::LinkNotFound`], [`Error::Invalid`] for a link without a webhook, [`Error::Disabled`],
    /// [`Error::Provider`].
    pub async fn ensure(&self, context: &Context, name: &LinkName) -> Result<(Ensured, Shown), Error> {
        let record = self.0.live_link(name).await?;
        let Some(key) = record.link.webhook_key() else { return Err(without_webhook()) };
        let pace = Pace::awaited(context.deadline, record.link.connection_name());
        let kept = self.0.keep_webhook(&key, pace).await?;
        let shown = self.read(name).await?;
        let manual = shown.record.as_ref().is_some_and(|found| found.state == WebhookState::ManualRequired);
        let ensured = match kept {
            Kept::Nothing if manual => Ensured::ManualRequired,
            Kept::Nothing | Kept::OutOfReach(_) => Ensured::Nothing,
            Kept::Created => Ensured::Created,
            Kept::Updated => Ensured::Updated,
            Kept::Adopted => Ensured::Adopted,
            Kept::ManualRequired(_) => Ensured::ManualRequired,
            Kept::Failed(error) => return Err(error),
        };
        Ok((ensured, shown))
    }

    /// Sets the link's mode to NONE, and has the webhook removed in the background unless other links count on it.
    ///
    /// # Errors
    ///
    /// [`Error::LinkNotFound`], [`Error::Stale`]; [`Error::WebhookPermissionMissing`]: nothing was changed.
    pub async fn delete(&self, context: &Context, name: &LinkName, etag: &str) -> Result<(), Error> {
        let core = &*self.0;
        for _ in 0..MAX_ROUNDS {
            let record = self.0.live_link(name).await?;
            if record.link.webhook_key().is_none() {
                return Ok(());
            }
            let kept = self.kept_record(&record.link).await?;
            if !etag.is_empty() && etag != kept.etag() {
                return Err(Error::Stale { name: format!("{name}/webhook") });
            }
            if kept.users.len() == 1 && kept.may_be_there() {
                self.may_remove(context, &record.link).await?;
            }
            let now = core.clock.now();
            let mut next = (*record).clone();
            next.link.webhook_mode = WebhookMode::None;
            next.link.generation += 1;
            next.link.update_time = now;
            next.revision = Revision(record.revision.0 + 1);
            let shared = core.share_webhooks(Some(&record.link), Some(&next.link), now).await?;
            let mode = |link: &Link| -> Fields {
                [("webhook_mode".to_owned(), link.webhook_mode.as_str().to_owned())].into()
            };
            let mut changes = shared.changes;
            changes.push(Change::Append(audit::event(
                context,
                EventType::RepositoryLinkUpdated,
                Subject { resource: name.to_string(), ..subject(&record.link) },
                mode(&record.link),
                mode(&next.link),
                now,
            )));
            changes.push(Change::ReplaceLink { record: Box::new(next), expected: record.revision });
            match core.store.commit(changes).await.map_err(keep::about_webhook) {
                Err(Error::Stale { .. }) => {}
                outcome => {
                    core.work.wake();
                    return outcome;
                }
            }
        }
        Err(Error::Stale { name: format!("{name}/webhook") })
    }

    /// Refuses what is known to fail: a token without the rights could not remove the webhook.
    async fn may_remove(&self, context: &Context, link: &Link) -> Result<(), Error> {
        let refused = |told: String| Error::WebhookPermissionMissing { link: link.name.clone(), told };
        let reach = self.0.reach(&link.connection_name(), context.deadline).await?;
        if reach.record.connection.credential.capabilities.manage_webhooks == Capability::No {
            return Err(refused("The last verification of the connection found so.".to_owned()));
        }
        let wanted = WantedWebhook {
            target_url: link.webhook_target_url.clone(),
            events: link.webhook_events.clone(),
            server_version: reach.record.connection.server_version.clone(),
        };
        match reach.provider.webhooks(&reach.api, &link.repository, &wanted).await {
            Err(error) if error.lacks_right() => Err(refused(format!("{error}."))),
            // Whatever else stands against it may pass, and the removal is tried until it does.
            _ => Ok(()),
        }
    }

    /// What a person needs to make the webhook by hand: a use of its secret, with an event of its own.
    ///
    /// # Errors
    ///
    /// As [`Self::ensure`], without those of the provider.
    pub async fn setup(&self, context: &Context, name: &LinkName) -> Result<Setup, Error> {
        let core = &*self.0;
        let link = &self.0.live_link(name).await?.link;
        let record = self.kept_record(link).await?;
        let provider = core.provider(link.provider.as_str())?;
        let wanted = WantedWebhook {
            target_url: record.key.target_url.clone(),
            events: record.events(),
            server_version: String::new(),
        };
        let setup = provider.webhook_setup(&link.repository, &wanted);
        let sealed = record.next.as_ref().map_or(&record.sealed, |next| &next.sealed);
        let secret = core.webhook_secret(&record, sealed)?;
        // Before the secret leaves: a use that nobody wrote down must not happen.
        let version = [("secret_version".to_owned(), record.secret_version.to_string())].into();
        let event = audit::event(
            context,
            EventType::WebhookSecretRead,
            subject(link),
            Fields::new(),
            version,
            core.clock.now(),
        );
        core.store.commit(vec![Change::Append(event)]).await.map_err(store_down)?;
        Ok(Setup {
            target_url: wanted.target_url,
            secret,
            username: (setup.scheme == SecretScheme::BasicAuth).then_some(BASIC_AUTH_USERNAME),
            content_type: setup.content_type,
            events: wanted.events.into_iter().collect(),
            steps: setup.steps,
        })
    }

    /// Makes a new secret and gives it to the provider; the old one verifies for `overlap` more.
    ///
    /// # Errors
    ///
    /// As [`Self::ensure`], and [`Error::WebhookPermissionMissing`]: nothing was changed. An error of the provider after
    /// it may have been told leaves both secrets verifying, and the worker finishes.
    pub async fn rotate(
        &self,
        context: &Context,
        name: &LinkName,
        overlap: Duration,
        repeat: Option<Repeat<'_, Rotated>>,
    ) -> Result<Done<Rotated>, Error> {
        let core = &*self.0;
        if let Some(answer) = core.answered_before(&name.tenant, repeat.as_ref()).await? {
            return Ok(Done::Before(answer));
        }
        let link = self.0.live_link(name).await?.link.clone();
        let Some(key) = link.webhook_key() else { return Err(without_webhook()) };
        let now = core.clock.now();
        let refused = |told| Err(Error::WebhookPermissionMissing { link: name.clone(), told });
        let pace = || Pace::awaited(context.deadline, link.connection_name());
        let record = self.kept_record(&link).await?;
        if record.is_kept() {
            // The look before the change: a token without the rights is told while nothing is changed yet.
            match core.keep_webhook(&key, pace()).await? {
                Kept::ManualRequired(told) | Kept::OutOfReach(told) => return refused(told),
                Kept::Failed(error) => return Err(error),
                _ => {}
            }
        }
        let request_id = repeat.as_ref().map_or("", |repeat| repeat.request_id);
        let begun = self.begin_rotation(context, &link, now.saturating_add(overlap), request_id).await?;
        if record.is_kept() && begun.next.is_some() {
            match core.keep_webhook(&key, pace()).await? {
                Kept::Failed(error) => return Err(error),
                // Refused before the provider was told: the pass took the new secret back.
                Kept::ManualRequired(told) | Kept::OutOfReach(told)
                    if self.kept_record(&link).await?.next.is_none() =>
                {
                    return refused(told);
                }
                _ => {}
            }
        }
        let after = self.kept_record(&link).await?;
        let ends = after.next.as_ref().map(|next| next.overlap_until);
        let ends = ends.or_else(|| after.former.last().map(|former| former.until));
        let rotated = Rotated { shown: self.read(name).await?, overlap_end: ends.unwrap_or(now) };
        let Some(change) = core.remember(&name.tenant, repeat.as_ref(), &rotated, now) else {
            return Ok(Done::Now(rotated));
        };
        let outcome = core.store.commit(vec![change]).await;
        let outcome = outcome.map_err(|error| Error::from_link_store(error, name)).map(|()| rotated);
        core.done_or_before(&name.tenant, repeat.as_ref(), outcome).await
    }

    /// Writes the next secret down. Where no call is to tell it, a person does: it is in use at once.
    async fn begin_rotation(
        &self,
        context: &Context,
        link: &Link,
        overlap_until: Timestamp,
        request_id: &str,
    ) -> Result<WebhookRecord, Error> {
        let core = &*self.0;
        for _ in 0..MAX_ROUNDS {
            let record = self.kept_record(link).await?;
            // A rotation that is not finished yet goes on with its own secret: two at once would lose one of them. One
            // that was finished without its answer being remembered is not done twice.
            let done = !request_id.is_empty() && record.rotated_by == request_id;
            if done || record.next.is_some() {
                return Ok(record);
            }
            // Which secret a webhook has that is only now being made, nobody could say afterwards.
            if record.making.is_some() {
                break;
            }
            let mut next = share::next(&record);
            let secret = core.keys.draw_webhook_secret().map_err(share::unsealed)?;
            let origin = origin_of(&record.key.instance)?;
            let sealed =
                core.keys.seal(&secret, &share::binding(&record.uid, &origin)).map_err(share::unsealed)?;
            next.next = Some(NextSecret { sealed, overlap_until, told: false });
            request_id.clone_into(&mut next.rotated_by);
            if record.is_kept() {
                next.due = Some(core.clock.now());
            } else {
                let scheme = record.scheme.unwrap_or_else(|| self.setup_scheme(link));
                keep::promote(&mut next, scheme, core.clock.now());
                next.state = WebhookState::ManualRequired;
            }
            let changes = vec![
                Change::PutWebhook { record: Box::new(next.clone()), expected: Some(record.revision) },
                Change::Append(audit::event(
                    context,
                    EventType::WebhookSecretRotated,
                    subject(link),
                    [("secret_version".to_owned(), record.secret_version.to_string())].into(),
                    [("secret_version".to_owned(), (record.secret_version + 1).to_string())].into(),
                    core.clock.now(),
                )),
            ];
            match core.store.commit(changes).await.map_err(keep::about_webhook) {
                Err(Error::Stale { .. }) => {}
                outcome => return outcome.map(|()| next),
            }
        }
        Err(Error::Stale { name: format!("{}/webhook", link.name) })
    }

    fn setup_scheme(&self, link: &Link) -> SecretScheme {
        let wanted = WantedWebhook {
            target_url: link.webhook_target_url.clone(),
            events: link.webhook_events.clone(),
            server_version: String::new(),
        };
        match self.0.provider(link.provider.as_str()) {
            Ok(provider) => provider.webhook_setup(&link.repository, &wanted).scheme,
            Err(_) => SecretScheme::HmacSha256,
        }
    }

    /// The record that the webhook of a link is kept in.
    async fn kept_record(&self, link: &Link) -> Result<WebhookRecord, Error> {
        let Some(key) = link.webhook_key() else { return Err(without_webhook()) };
        let found = self.0.webhook_record(&key).await?;
        // They are written and removed together, so the link is gone by now, too.
        found.ok_or_else(|| Error::LinkNotFound(link.name.to_string()))
    }

    async fn shown(&self, link: Link) -> Result<Shown, Error> {
        // With mode NONE, too: what is still being removed is shown as such.
        let wanted = Link { webhook_mode: WebhookMode::Manual, ..link.clone() };
        let record = match wanted.webhook_key() {
            Some(key) => self.0.webhook_record(&key).await?,
            None => None,
        };
        let counts = |record: &WebhookRecord| {
            record.users.contains_key(&link.name)
                || record.departing.contains(&link.name)
                || record.users.is_empty() && record.via.as_ref() == Some(&link.connection_name())
        };
        Ok(Shown { record: record.filter(counts).map(Arc::new), link })
    }
}

fn subject(link: &Link) -> Subject {
    Subject {
        tenant: link.name.tenant.clone(),
        resource: format!("{}/webhook", link.name),
        connections: vec![link.connection.clone()],
    }
}

fn without_webhook() -> Error {
    Error::invalid(FieldViolation::new(
        "name",
        FieldReason::Conflicting,
        "the link has no webhook; set webhook_mode and webhook_target_url with UpdateRepositoryLink",
    ))
}
