//! The removal of a webhook that nobody counts on any more, tried until it is proven gone.

use std::sync::Arc;
use std::time::Duration;

use super::keep::{Kept, Pass, Trouble, Way, about_webhook, same_hook, summary};
use crate::domain::event::EventType;
use crate::domain::webhook::RemoteWebhook;
use crate::provider::ProviderError;
use crate::service::audit::{self, Fields, Subject};
use crate::service::error::Error;
use crate::service::verify::reason_of;
use crate::service::work::pause_after;
use crate::store::Change;

/// Tries through a connection that is still there, before a webhook is given up: about a week.
const MAX_TRIES: u32 = 180;
/// Tries while the repository itself is out of sight: about an hour and a half.
const MAX_TRIES_UNSEEN: u32 = 10;

impl<'c> Pass<'c> {
    /// Removes the webhook at the provider, and then its record.
    pub(super) async fn remove(mut self) -> Result<Kept, Error> {
        let trouble = match self.removed().await {
            Ok(true) => return self.forget(EventType::WebhookRemoved).await,
            Ok(false) => {
                self.save(None, Vec::new()).await?;
                return Ok(Kept::Nothing);
            }
            Err(Trouble::Service(
                error @ (Error::Stale { .. } | Error::StoreUnavailable { .. } | Error::Bug { .. }),
            )) => return Err(error),
            Err(trouble) => trouble,
        };
        let before = self.record.conditions.first().map(|known| known.reason.clone());
        let mut asked_for = None;
        let mut most = MAX_TRIES;
        match &trouble {
            Trouble::Provider(error, title) => {
                match error {
                    ProviderError::RateLimited { after } => {
                        asked_for = Some(*after + Duration::from_millis(10));
                    }
                    ProviderError::NotFound => most = MAX_TRIES_UNSEEN,
                    _ => {}
                }
                self.condition(reason_of(error), &format!("{title}: {error}."));
            }
            Trouble::Service(error) => self.condition("CONNECTION_NOT_USABLE", &format!("{error}.")),
        }
        // Another trouble begins to count anew: one refusal after an outage is no reason to give up.
        let same = before.as_ref() == self.record.conditions.first().map(|known| &known.reason);
        self.record.attempts = if same { self.record.attempts.saturating_add(1) } else { 1 };
        let pause = asked_for.unwrap_or_else(|| pause_after(self.record.attempts));
        let now = self.core.clock.now();
        let last = self.record.farewell.as_ref().map(|farewell| farewell.until);
        if last.map_or(self.record.attempts >= most, |last| last <= now) {
            return self.forget(EventType::WebhookOrphaned).await;
        }
        let next = now.saturating_add(pause);
        self.record.due = Some(last.map_or(next, |last| next.min(last)));
        self.save(None, Vec::new()).await?;
        Ok(Kept::Nothing)
    }

    /// Whether nothing of the webhook is left at the provider. `false`: a call to make it may still be on its way.
    async fn removed(&mut self) -> Result<bool, Trouble> {
        let way = self.way_out().await?;
        let repository = self.repository(&way).await?;
        let wanted = self.wanted(&way.connection);
        let listed = way.provider.webhooks(&way.api, &repository, &wanted).await;
        let ours = self.all_ours(&listed.map_err(|error| way.trouble(error))?);
        if ours.is_empty() {
            // Listed, and not there: it is gone, unless it is only now being made.
            return Ok(!self.wait_for_a_lost_call());
        }
        for id in &ours {
            match way.provider.delete_webhook(&way.api, &repository, id).await {
                Ok(()) | Err(ProviderError::NotFound) => {}
                Err(error) => return Err(way.trouble(error)),
            }
        }
        let listed = way.provider.webhooks(&way.api, &repository, &wanted).await;
        if self.all_ours(&listed.map_err(|error| way.trouble(error))?).is_empty() {
            Ok(!self.wait_for_a_lost_call())
        } else {
            Err(way.trouble(ProviderError::garbled("a webhook that it removed is still listed")))
        }
    }

    /// Everything of ours among the webhooks that were found.
    fn all_ours(&self, found: &[RemoteWebhook]) -> Vec<String> {
        let record = &self.record;
        let is_ours = |id: &str| {
            let known = record.remote_id.iter().chain(&record.leaving).any(|known| same_hook(known, id));
            let made = record.making.as_ref();
            known || made.is_some_and(|making| !making.before.iter().any(|before| same_hook(before, id)))
        };
        found.iter().map(|hook| &hook.id).filter(|id| is_ours(id)).cloned().collect()
    }

    /// The way to the provider: the connection of the last link, or what was kept of it.
    async fn way_out(&self) -> Result<Way<'c>, Trouble> {
        if let Some(farewell) = &self.record.farewell {
            return Ok(self.farewell_way(Arc::new((*farewell.record).clone()))?);
        }
        match &self.record.via {
            Some(name) => self.way(name).await,
            None => Err(Error::Bug { problem: "a webhook has no way to be removed".to_owned() }.into()),
        }
    }

    /// Removes the record, and the links that waited for it.
    async fn forget(self, event: EventType) -> Result<Kept, Error> {
        if event == EventType::WebhookOrphaned {
            tracing::warn!(
                repository = self.record.full_name,
                id = self.record.remote_id,
                "a webhook could not be removed and is given up"
            );
        }
        let now = self.core.clock.now();
        let mut changes = self.departed().await?;
        changes.extend(self.record.departing.iter().map(|link| {
            let subject = Subject {
                tenant: link.tenant.clone(),
                resource: format!("{link}/webhook"),
                connections: self.record.via.iter().map(|via| via.id.clone()).collect(),
            };
            let before = summary(&self.stored);
            Change::Append(audit::own_event(event, subject, before, Fields::new(), now))
        }));
        let (key, expected) = (self.record.key.clone(), self.stored.revision);
        changes.push(Change::RemoveWebhook { key, expected });
        self.core.store.commit(changes).await.map_err(about_webhook)?;
        Ok(Kept::Updated)
    }
}
