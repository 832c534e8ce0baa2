//! Makes a webhook at its provider what its links want, and removes it once nobody wants it.
//!
//! One pass looks first and changes then. What is about to be done stands in the store before the provider is asked, so
//! that a pass which ended anywhere, by a crash or a lost answer, is finished by the next one: it lists, and whatever
//! the store did not know before the call is ours. Nothing is ever made without such a listing before it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::share;
use crate::domain::connection::{Condition, ConditionStatus, ConnectionName, ConnectionRecord, Revision};
use crate::domain::credential::Secret;
use crate::domain::event::EventType;
use crate::domain::repository::Repository;
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{
    FormerSecret, MAX_FORMER, Making, RemoteWebhook, SecretScheme, SecretUpdate, WantedWebhook,
    WebhookHealth, WebhookKey, WebhookRecord, WebhookState,
};
use crate::provider::api::Api;
use crate::provider::{Provider, ProviderError, Restriction};
use crate::service::audit::{self, Fields, Subject};
use crate::service::error::{CredentialOrigin, Error};
use crate::service::reach::Reach;
use crate::service::verify::reason_of;
use crate::service::work::{LOOK_EVERY, pause_after, spread};
use crate::service::{Core, origin_of, store_down};
use crate::store::{Change, StoreError};

/// How often a pass begins anew because somebody wrote the record meanwhile.
const MAX_ROUNDS: usize = 5;
/// How long a call whose sender is gone may still be on its way to the provider.
const SETTLE: Duration = Duration::from_secs(10);
/// A suspended webhook is woken once in this time at most.
const WAKE_EVERY: Duration = Duration::from_secs(3_600);
/// The type of the one condition of a webhook.
const READY: &str = "WEBHOOK_READY";

/// How long a pass may take, and whether anybody waits for it.
#[derive(Debug, Clone)]
pub(in crate::service) struct Pace {
    deadline: Instant,
    /// Whose connection is asked first, and whose trouble is told; `None` where nobody waits.
    awaited_by: Option<ConnectionName>,
}

impl Pace {
    /// Somebody with this connection waits until `deadline`.
    pub(in crate::service) const fn awaited(deadline: Instant, by: ConnectionName) -> Self {
        Self { deadline, awaited_by: Some(by) }
    }

    /// Nobody waits.
    pub(in crate::service) const fn background(deadline: Instant) -> Self {
        Self { deadline, awaited_by: None }
    }
}

/// What a pass did.
#[derive(Debug)]
pub(in crate::service) enum Kept {
    /// Nothing was to be done, or nothing could be.
    Nothing,
    /// The webhook was made.
    Created,
    /// It was repaired, woken, or got its new secret.
    Updated,
    /// One that was there was taken over.
    Adopted,
    /// A person has to make it; what is missing, in words.
    ManualRequired(String),
    /// It is known and stays as it is: nobody may look at it or change it. What is missing, in words.
    OutOfReach(String),
    /// The provider stands against it. The next try is due.
    Failed(Error),
}

impl Core {
    /// One pass over the webhook of that key: alone among all passes of this process. Cancel-safe as a crash is.
    pub(in crate::service) async fn keep_webhook(&self, key: &WebhookKey, pace: Pace) -> Result<Kept, Error> {
        let held = tokio::time::timeout_at(pace.deadline, self.work.hold(key)).await;
        let _held = held.map_err(|_| Error::DeadlineExceeded)?;
        for _ in 0..MAX_ROUNDS {
            let Some(record) = self.webhook_record(key).await? else { return Ok(Kept::Nothing) };
            match (Pass { core: self, stored: record.clone(), record, pace: pace.clone() }).run().await {
                Err(Error::Stale { .. }) => {}
                outcome => return outcome,
            }
        }
        Err(Error::Stale { name: "the webhook".to_owned() })
    }

    /// Puts off the next pass over a webhook, of which the last one ended without a word in the store.
    pub(in crate::service) async fn put_off_webhook(&self, key: &WebhookKey) -> Result<(), Error> {
        let Some(record) = self.webhook_record(key).await? else { return Ok(()) };
        let mut next = record.clone();
        next.attempts = record.attempts.saturating_add(1);
        next.due = record.due.map(|_| self.clock.now().saturating_add(pause_after(next.attempts)));
        next.revision = Revision(record.revision.0 + 1);
        let change = Change::PutWebhook { record: Box::new(next), expected: Some(record.revision) };
        match self.store.commit(vec![change]).await {
            // Somebody else wrote it, and with it when it is due.
            Ok(()) | Err(StoreError::Stale) => Ok(()),
            Err(error) => Err(about_webhook(error)),
        }
    }

    /// The changes that put `next` in the place of `stored`, with the event of another state.
    pub(super) fn webhook_changes(&self, stored: &WebhookRecord, next: WebhookRecord) -> Vec<Change> {
        let now = self.clock.now();
        let mut changes = events(EventType::WebhookStateChanged, stored, &next, now);
        changes.push(Change::PutWebhook { record: Box::new(next), expected: Some(stored.revision) });
        changes
    }

    /// A secret of a webhook.
    pub(in crate::service) fn webhook_secret(
        &self,
        record: &WebhookRecord,
        sealed: &crate::domain::credential::Sealed,
    ) -> Result<Secret, Error> {
        let origin = origin_of(&record.key.instance)?;
        self.keys.open(sealed, &share::binding(&record.uid, &origin)).map_err(|error| match error {
            crate::seal::SealError::KeyUnavailable { key_id } => Error::KeyUnavailable { key_id },
            other => {
                Error::Unreadable { name: format!("webhook {}", record.uid), problem: other.to_string() }
            }
        })
    }
}

/// One look at a webhook and what follows from it.
pub(super) struct Pass<'a> {
    pub(super) core: &'a Core,
    /// As it stands in the store.
    pub(super) stored: WebhookRecord,
    /// As it will.
    pub(super) record: WebhookRecord,
    pace: Pace,
}

/// Why one connection could not do it.
pub(super) enum Trouble {
    /// The provider, or the way to it.
    Provider(ProviderError, &'static str),
    /// This service.
    Service(Error),
}

impl Trouble {
    /// Whether another connection would meet the same.
    fn is_everybodys(&self) -> bool {
        match self {
            Self::Provider(error, _) => !is_about_the_token(error),
            Self::Service(error) => {
                matches!(error, Error::Stale { .. } | Error::StoreUnavailable { .. } | Error::Bug { .. })
            }
        }
    }

    /// How much it says of what is to be done: a right that is missing more than a token that is refused, and both more
    /// than a connection that cannot be used.
    fn rank(&self) -> u8 {
        match self {
            Self::Provider(error, _) if error.lacks_right() => 2,
            Self::Provider(..) => 1,
            Self::Service(_) => 0,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Service(error)
    }
}

/// A connection that the pass goes through.
pub(super) struct Way<'a> {
    pub(super) provider: &'a dyn Provider,
    pub(super) api: Api,
    pub(super) connection: Arc<ConnectionRecord>,
}

impl Way<'_> {
    pub(super) fn trouble(&self, error: ProviderError) -> Trouble {
        Trouble::Provider(error, self.provider.about().title)
    }
}

impl<'c> Pass<'c> {
    async fn run(mut self) -> Result<Kept, Error> {
        if self.record.users.is_empty() {
            return self.remove().await;
        }
        if !self.record.is_kept() {
            // Nobody keeps it here; links that waited for its removal wait no longer.
            let gone = self.departed().await?;
            self.record.departing.clear();
            self.record.due = None;
            self.save(None, gone).await?;
            return Ok(Kept::Nothing);
        }
        if !self.record.departing.is_empty() {
            // Somebody wants the webhook again: whoever waits for its removal waits no longer.
            let gone = self.departed().await?;
            self.record.departing.clear();
            self.save(None, gone).await?;
        }
        let mut lacking: Option<Trouble> = None;
        let mut own_is_told = false;
        for name in self.ways() {
            let trouble = match self.way(&name).await {
                Ok(way) => match self.keep(&way).await {
                    Ok(kept) => return Ok(kept),
                    Err(trouble) => trouble,
                },
                Err(trouble) => trouble,
            };
            if trouble.is_everybodys() {
                lacking = Some(trouble);
                break;
            }
            // The trouble of whoever waits is theirs to know; otherwise the one that says most.
            let says_more = lacking.as_ref().is_none_or(|known| known.rank() < trouble.rank());
            if !own_is_told && says_more {
                lacking = Some(trouble);
            }
            own_is_told |= self.pace.awaited_by.as_ref() == Some(&name);
        }
        match lacking {
            Some(Trouble::Provider(error, title)) if is_about_the_token(&error) => {
                self.without_rights(error, title).await
            }
            Some(Trouble::Provider(error, title)) => self.failed(error, title).await,
            Some(Trouble::Service(Error::Provider { error, provider, .. })) => {
                self.failed(error, provider).await
            }
            Some(Trouble::Service(
                error @ (Error::Disabled { .. }
                | Error::ConnectionNotFound(_)
                | Error::Unreadable { .. }
                | Error::KeyUnavailable { .. }),
            )) => self.without_connection(error).await,
            Some(Trouble::Service(error)) => Err(error),
            None => Err(Error::Bug { problem: "a webhook that is kept has no connection".to_owned() }),
        }
    }

    /// The connections of the links for which this service keeps the webhook, that of whoever waits first.
    fn ways(&self) -> Vec<ConnectionName> {
        let kept = self.record.users.iter().filter(|(_, user)| user.auto);
        let ways: BTreeSet<_> = kept
            .map(|(link, user)| ConnectionName { tenant: link.tenant.clone(), id: user.connection.clone() })
            .collect();
        let mut ways: Vec<_> = ways.into_iter().collect();
        ways.sort_by_key(|name| self.pace.awaited_by.as_ref() != Some(name));
        ways
    }

    pub(super) async fn way(&self, name: &ConnectionName) -> Result<Way<'c>, Trouble> {
        let reach = self.core.reach(name, self.pace.deadline).await?;
        // A connection that was moved to another instance since is none for this webhook.
        if reach.record.connection.effective_api_url != self.record.key.instance {
            return Err(Error::ConnectionNotFound(name.to_string()).into());
        }
        Ok(self.through(reach))
    }

    fn through(&self, reach: Reach<'c>) -> Way<'c> {
        let api = if self.pace.awaited_by.is_none() { reach.api.in_background() } else { reach.api };
        Way { provider: reach.provider, api, connection: reach.record }
    }

    /// A connection that is gone, as it was kept for the removal.
    pub(super) fn farewell_way(&self, kept: Arc<ConnectionRecord>) -> Result<Way<'c>, Error> {
        Ok(self.through(self.core.reach_by(kept, self.pace.deadline)?))
    }

    pub(super) fn wanted(&self, connection: &ConnectionRecord) -> WantedWebhook {
        WantedWebhook {
            target_url: self.record.key.target_url.clone(),
            events: self.record.events(),
            server_version: connection.connection.server_version.clone(),
        }
    }

    pub(super) async fn repository(&self, way: &Way<'_>) -> Result<Repository, Trouble> {
        let found = way
            .provider
            .known_repository(&way.api, &self.record.key.repository_id, &self.record.full_name)
            .await;
        found.map_err(|error| way.trouble(error))
    }

    /// Compares the webhook with the provider through one connection, and makes it what it should be.
    async fn keep(&mut self, way: &Way<'_>) -> Result<Kept, Trouble> {
        let core = self.core;
        let repository = self.repository(way).await?;
        let wanted = self.wanted(&way.connection);
        let listed = way.provider.webhooks(&way.api, &repository, &wanted).await;
        let found = listed.map_err(|error| way.trouble(error))?;
        self.record.full_name.clone_from(&repository.full_name);
        self.record.last_check_time = Some(core.clock.now());

        let ours = self.recognise(&found);
        if ours.is_none() && self.wait_for_a_lost_call() {
            self.save(None, Vec::new()).await?;
            return Ok(Kept::Nothing);
        }
        let replaced = self.record.remote_id.as_ref().is_some_and(|id| self.record.leaving.contains(id));
        if ours.is_none() && self.record.remote_id.is_some() && !replaced {
            self.record.state = WebhookState::Missing;
        }
        let in_place = way.provider.about().webhook_secret == SecretUpdate::InPlace;
        let kept = match ours {
            Some(hook) if self.has_its_secret(&hook, in_place) => {
                self.repair(way, &repository, &wanted, hook).await?
            }
            // Its secret can only be changed by another one that takes its place.
            Some(hook) => self.replace(way, &repository, &wanted, &found, vec![hook.id]).await?,
            None => match found.iter().find(|hook| !self.record.leaving.contains(&hook.id)) {
                Some(stranger) if in_place => self.adopt(way, &repository, &wanted, stranger).await?,
                Some(_) => {
                    let strangers = found.iter().map(|hook| hook.id.clone()).collect();
                    self.record.adopted = true;
                    self.replace(way, &repository, &wanted, &found, strangers).await?
                }
                None => self.create(way, &repository, &wanted, &found).await?,
            },
        };
        self.see_off(way, &repository, &wanted).await?;
        Ok(kept)
    }

    /// Ours among those that were found: the one that is known, or one that was not there before the call to make it.
    fn recognise(&mut self, found: &[RemoteWebhook]) -> Option<RemoteWebhook> {
        let known = self.record.remote_id.as_ref();
        if let Some(making) = &self.record.making {
            let leaving = &self.record.leaving;
            let mut made = found.iter().filter(|hook| {
                !making.before.iter().any(|id| same_hook(id, &hook.id)) && !leaving.contains(&hook.id)
            });
            let first = made.next().cloned();
            // A call that was thought lost came through after all.
            let more: Vec<_> = made.map(|hook| hook.id.clone()).collect();
            self.record.leaving.extend(more);
            if first.is_some() {
                return first;
            }
        }
        let known = known?;
        found
            .iter()
            .find(|hook| same_hook(known, &hook.id) && !self.record.leaving.contains(&hook.id))
            .cloned()
    }

    /// Whether a call to make the webhook may still be on its way. Then the look comes later.
    pub(super) fn wait_for_a_lost_call(&mut self) -> bool {
        let now = self.core.clock.now();
        let Some(making) = &self.record.making else { return false };
        let settled = making.since.saturating_add(SETTLE);
        if now >= settled {
            return false;
        }
        self.record.due = Some(settled);
        true
    }

    /// Whether a webhook has, or can be given, the secret that it should have.
    fn has_its_secret(&self, hook: &RemoteWebhook, in_place: bool) -> bool {
        if in_place {
            return true;
        }
        let made_with_it = self
            .record
            .making
            .as_ref()
            .is_some_and(|making| !making.before.iter().any(|id| same_hook(id, &hook.id)));
        made_with_it || self.record.next.is_none() && hook.secret_set != Some(false)
    }

    /// The secret that the provider should have: the next one where a rotation is under way.
    fn secret(&self) -> Result<Secret, Error> {
        let sealed = self.record.next.as_ref().map_or(&self.record.sealed, |next| &next.sealed);
        self.core.webhook_secret(&self.record, sealed)
    }

    /// Makes a webhook that is ours what it should be; a healthy one is not touched.
    async fn repair(
        &mut self,
        way: &Way<'_>,
        repository: &Repository,
        wanted: &WantedWebhook,
        hook: RemoteWebhook,
    ) -> Result<Kept, Trouble> {
        let now = self.core.clock.now();
        let made = self.record.making.is_some();
        let in_place = way.provider.about().webhook_secret == SecretUpdate::InPlace;
        let rotating = in_place && self.record.next.is_some();
        let dead = hook.health == WebhookHealth::Dead;
        let other_scheme = self.record.scheme.is_some_and(|scheme| scheme != hook.scheme);
        let switched_off = hook.health == WebhookHealth::SwitchedOff;
        let drifted = !hook.drift.is_empty() || switched_off || dead || other_scheme;
        let mut done = if made { Kept::Created } else { Kept::Nothing };
        let mut now_there = hook;
        // What a lost call left may have missed its last step: some providers take the secret in a second one.
        if rotating || drifted || made && in_place {
            if drifted && !made {
                self.record.state =
                    if dead { WebhookState::DisabledByProvider } else { WebhookState::Drifted };
            }
            let mut wanted = wanted.clone();
            if !made && !rotating && now_there.scheme == SecretScheme::Token {
                // Without a version the driver keeps to the plain token: a new scheme comes with a new secret.
                wanted.server_version.clear();
            }
            let secret = self.secret()?;
            let first_told = rotating && self.tell_next().await?;
            match way.provider.update_webhook(&way.api, repository, &now_there, &wanted, &secret).await {
                Ok(hook) => now_there = hook,
                Err(error) => {
                    if first_told && error.lacks_right() {
                        // Refused, and never told before: the provider does not have it.
                        self.record.next = None;
                    }
                    return Err(way.trouble(error));
                }
            }
            if in_place {
                promote(&mut self.record, now_there.scheme, now);
            }
            if !made {
                done = Kept::Updated;
            }
        }
        if now_there.health == WebhookHealth::Suspended {
            self.record.state = WebhookState::DisabledByProvider;
            let may_wake = self.record.last_wake_time.is_none_or(|last| now.since(last) >= WAKE_EVERY);
            if !may_wake {
                return self.suspended(&now_there).await;
            }
            self.record.last_wake_time = Some(now);
            // Before the call, so that a crash does not make it more often than once an hour.
            self.save(None, Vec::new()).await?;
            match way.provider.wake_webhook(&way.api, repository, &now_there.id).await {
                Ok(()) => done = Kept::Updated,
                Err(ProviderError::Failed { .. } | ProviderError::WebhookTargetRefused { .. }) => {
                    return self.suspended(&now_there).await;
                }
                Err(error) => return Err(way.trouble(error)),
            }
        }
        self.settle(now_there, done).await
    }

    /// The provider suspended the webhook, and its receiver does not answer yet.
    async fn suspended(&mut self, hook: &RemoteWebhook) -> Result<Kept, Trouble> {
        self.record.remote_id = Some(hook.id.clone());
        let told = "The provider suspended the webhook because its target did not answer. A test delivery is sent once \
                    an hour; it is taken up again when the target answers with 2xx.";
        self.condition("WEBHOOK_SUSPENDED", told);
        let woken = self.record.last_wake_time.unwrap_or_else(|| self.core.clock.now());
        self.record.due = Some(woken.saturating_add(WAKE_EVERY));
        self.save(Some(EventType::WebhookStateChanged), Vec::new()).await?;
        Ok(Kept::Nothing)
    }

    /// Takes over a webhook that somebody made, with a secret of ours.
    async fn adopt(
        &mut self,
        way: &Way<'_>,
        repository: &Repository,
        wanted: &WantedWebhook,
        stranger: &RemoteWebhook,
    ) -> Result<Kept, Trouble> {
        let secret = self.secret()?;
        let updated = way.provider.update_webhook(&way.api, repository, stranger, wanted, &secret).await;
        let hook = updated.map_err(|error| way.trouble(error))?;
        self.record.adopted = true;
        self.settle(hook, Kept::Adopted).await
    }

    /// Makes a webhook that takes the place of others, which go once it is there.
    async fn replace(
        &mut self,
        way: &Way<'_>,
        repository: &Repository,
        wanted: &WantedWebhook,
        found: &[RemoteWebhook],
        others: Vec<String>,
    ) -> Result<Kept, Trouble> {
        let adopting = self.record.remote_id.is_none() && self.record.adopted;
        let known = self.record.leaving.clone();
        for id in others {
            if !self.record.leaving.contains(&id) {
                self.record.leaving.push(id);
            }
        }
        match self.create(way, repository, wanted, found).await {
            Ok(Kept::Created) if adopting => Ok(Kept::Adopted),
            Ok(Kept::Created) => Ok(Kept::Updated),
            Err(trouble) if self.record.making.is_none() => {
                // Nothing takes their place, so they stay.
                self.record.leaving = known;
                Err(trouble)
            }
            outcome => outcome,
        }
    }

    async fn create(
        &mut self,
        way: &Way<'_>,
        repository: &Repository,
        wanted: &WantedWebhook,
        found: &[RemoteWebhook],
    ) -> Result<Kept, Trouble> {
        let now = self.core.clock.now();
        let before = found.iter().map(|hook| hook.id.clone()).collect();
        self.record.making = Some(Making { before, since: now });
        // If this process ends here, the next one looks again when the call must have arrived.
        self.record.due = Some(now.saturating_add(SETTLE));
        self.save(None, Vec::new()).await?;
        let secret = self.secret()?;
        let first_told = self.tell_next().await?;
        match way.provider.create_webhook(&way.api, repository, wanted, &secret).await {
            Ok(hook) => self.settle(hook, Kept::Created).await,
            Err(error) => {
                if !error.leaves_open() {
                    self.record.making = None;
                    if first_told && error.lacks_right() {
                        self.record.next = None;
                    }
                }
                Err(way.trouble(error))
            }
        }
    }

    /// Writes down that the provider is about to be told the next secret. Whether that is the first time.
    async fn tell_next(&mut self) -> Result<bool, Error> {
        let Some(next) = self.record.next.as_mut().filter(|next| !next.told) else { return Ok(false) };
        next.told = true;
        self.save(None, Vec::new()).await?;
        Ok(true)
    }

    /// The provider has the webhook as it is wanted, with the secret that it should have.
    async fn settle(&mut self, hook: RemoteWebhook, done: Kept) -> Result<Kept, Trouble> {
        let now = self.core.clock.now();
        let record = &mut self.record;
        promote(record, hook.scheme, now);
        record.making = None;
        record.remote_id = Some(hook.id);
        record.scheme = Some(hook.scheme);
        record.state = WebhookState::Active;
        record.conditions.clear();
        record.attempts = 0;
        record.due = Some(now.saturating_add(spread(LOOK_EVERY)));
        let event = match done {
            Kept::Created => Some(EventType::WebhookCreated),
            Kept::Adopted => Some(EventType::WebhookAdopted),
            Kept::Updated => Some(EventType::WebhookUpdated),
            _ => None,
        };
        self.save(event, Vec::new()).await?;
        Ok(done)
    }

    /// Removes those that the webhook took the place of.
    async fn see_off(
        &mut self,
        way: &Way<'_>,
        repository: &Repository,
        wanted: &WantedWebhook,
    ) -> Result<(), Trouble> {
        if self.record.leaving.is_empty() || self.record.making.is_some() {
            return Ok(());
        }
        for id in self.record.leaving.clone() {
            match way.provider.delete_webhook(&way.api, repository, &id).await {
                Ok(()) | Err(ProviderError::NotFound) => {}
                Err(error) => return Err(way.trouble(error)),
            }
        }
        let left = way.provider.webhooks(&way.api, repository, wanted).await;
        let left = left.map_err(|error| way.trouble(error))?;
        self.record.leaving.retain(|id| left.iter().any(|hook| same_hook(id, &hook.id)));
        if !self.record.leaving.is_empty() {
            self.record.attempts = self.record.attempts.saturating_add(1);
            let pause = pause_after(self.record.attempts);
            self.record.due = Some(self.core.clock.now().saturating_add(pause));
        }
        self.save(None, Vec::new()).await?;
        Ok(())
    }

    /// Every connection was refused for want of rights.
    async fn without_rights(&mut self, error: ProviderError, title: &'static str) -> Result<Kept, Error> {
        let now = self.core.clock.now();
        let told = format!("{title}: {error}.");
        let reason = if error.lacks_right() { "WEBHOOK_PERMISSION_MISSING" } else { reason_of(&error) };
        self.record.due = Some(now.saturating_add(spread(LOOK_EVERY)));
        self.record.attempts = 0;
        if self.record.remote_id.is_some() || self.record.state == WebhookState::Active {
            // What is known to be there, also by its deliveries, stays as it was: nobody could look.
            self.save(None, Vec::new()).await?;
            return Ok(Kept::OutOfReach(told));
        }
        self.condition(reason, &told);
        if !error.lacks_right() || nobody_could(&error) {
            self.save(Some(EventType::WebhookStateChanged), Vec::new()).await?;
            return Ok(Kept::Failed(stored(error, title)));
        }
        self.record.state = WebhookState::ManualRequired;
        self.save(Some(EventType::WebhookStateChanged), Vec::new()).await?;
        Ok(Kept::ManualRequired(told))
    }

    /// No connection can be used: they are disabled or unreadable. A change of one of them comes back here.
    async fn without_connection(&mut self, error: Error) -> Result<Kept, Error> {
        self.record.due = Some(self.core.clock.now().saturating_add(spread(LOOK_EVERY)));
        self.save(None, Vec::new()).await?;
        Ok(Kept::Failed(error))
    }

    /// The provider could not be asked, or does not want to.
    async fn failed(&mut self, error: ProviderError, title: &'static str) -> Result<Kept, Error> {
        self.record.attempts = self.record.attempts.saturating_add(1);
        let pause = match &error {
            ProviderError::RateLimited { after } => *after + Duration::from_millis(10),
            ProviderError::WebhookTargetRefused { .. } | ProviderError::WebhookLimitReached => {
                spread(Duration::from_secs(3_600))
            }
            _ => pause_after(self.record.attempts),
        };
        // Rounded up to the millisecond: never before the time that the provider named.
        self.record.due = Some(self.core.clock.now().saturating_add(pause));
        if !matches!(error, ProviderError::RateLimited { .. }) {
            self.condition(
                reason_of(&error),
                &match &error {
                    ProviderError::WebhookTargetRefused { setting } => format!("{title}: {error}. {setting}"),
                    error => format!("{title}: {error}."),
                },
            );
        }
        self.save(None, Vec::new()).await?;
        Ok(Kept::Failed(stored(error, title)))
    }

    pub(super) fn condition(&mut self, reason: &str, message: &str) {
        let now = self.core.clock.now();
        let since = match self.record.conditions.first() {
            Some(known) if known.reason == reason => known.last_transition_time,
            _ => now,
        };
        self.record.conditions = vec![Condition {
            condition_type: READY.to_owned(),
            status: ConditionStatus::False,
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: since,
        }];
    }

    /// The removal of the links that wait for the webhook.
    pub(super) async fn departed(&self) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        for name in &self.record.departing {
            match self.core.store.link(name).await {
                Ok(link) if !link.link.is_live() => {
                    changes.push(Change::RemoveLink { name: name.clone(), expected: link.revision });
                }
                Ok(_) | Err(StoreError::NotFound) => {}
                Err(error) => return Err(store_down(error)),
            }
        }
        Ok(changes)
    }

    /// Writes the record, with an event in the trail of each of its links.
    pub(super) async fn save(
        &mut self,
        event: Option<EventType>,
        mut changes: Vec<Change>,
    ) -> Result<(), Error> {
        let record = &mut self.record;
        record.revision = self.stored.revision;
        if *record == self.stored && changes.is_empty() {
            return Ok(());
        }
        let (before, after) = (summary(&self.stored), summary(record));
        if before != after {
            record.generation += 1;
        }
        record.revision = Revision(self.stored.revision.0 + 1);
        let state_changed = record.state != self.stored.state;
        let event = match event {
            Some(EventType::WebhookStateChanged) | None => {
                state_changed.then_some(EventType::WebhookStateChanged)
            }
            event => event,
        };
        if let Some(event) = event {
            changes.extend(events(event, &self.stored, record, self.core.clock.now()));
        }
        changes.push(Change::PutWebhook {
            record: Box::new(record.clone()),
            expected: Some(self.stored.revision),
        });
        self.core.store.commit(changes).await.map_err(about_webhook)?;
        self.stored = self.record.clone();
        Ok(())
    }
}

/// Puts the next secret into use, if there is one; the one before verifies until the overlap ends. Where the provider
/// went over to another scheme, the old one verifies for a while, too.
pub(super) fn promote(record: &mut WebhookRecord, scheme: SecretScheme, now: Timestamp) {
    let before = record.scheme.unwrap_or(scheme);
    if let Some(next) = record.next.take() {
        let former = std::mem::replace(&mut record.sealed, next.sealed);
        record.former.push(FormerSecret { sealed: former, scheme: before, until: next.overlap_until });
        record.secret_version += 1;
    } else if before != scheme {
        let until = now.saturating_add(super::DEFAULT_OVERLAP);
        record.former.push(FormerSecret { sealed: record.sealed.clone(), scheme: before, until });
    }
    record.scheme = Some(scheme);
    record.former.retain(|former| former.until > now);
    let surplus = record.former.len().saturating_sub(MAX_FORMER);
    record.former.drain(..surplus);
}

/// An event in the trail of each link that counts on a webhook.
fn events(event: EventType, before: &WebhookRecord, after: &WebhookRecord, now: Timestamp) -> Vec<Change> {
    let (old, new) = audit::difference(&summary(before), &summary(after));
    let told = after.users.iter().map(|(link, user)| {
        let subject = Subject {
            tenant: link.tenant.clone(),
            resource: format!("{link}/webhook"),
            connections: vec![user.connection.clone()],
        };
        Change::Append(audit::own_event(event, subject, old.clone(), new.clone(), now))
    });
    told.collect()
}

/// What the audit trail keeps of a webhook.
pub(in crate::service) fn summary(record: &WebhookRecord) -> Fields {
    let events: Vec<_> = record.events().iter().map(|event| event.as_str()).collect();
    [
        ("target_url", record.key.target_url.clone()),
        ("repository", record.full_name.clone()),
        ("provider_id", record.remote_id.clone().unwrap_or_default()),
        ("events", events.join(" ")),
        ("state", record.state.as_str().to_owned()),
        ("reason", record.conditions.first().map(|found| found.reason.clone()).unwrap_or_default()),
        ("secret_version", record.secret_version.to_string()),
        ("adopted", record.adopted.to_string()),
    ]
    .into_iter()
    .map(|(field, value)| (field.to_owned(), value))
    .collect()
}

/// Whether two ids are of one webhook. Where it is several subscriptions, some of them may have been made anew.
pub(super) fn same_hook(one: &str, other: &str) -> bool {
    one == other || one.split(',').any(|part| other.split(',').any(|found| found == part))
}

/// Whether another connection may do what this one may not.
fn is_about_the_token(error: &ProviderError) -> bool {
    error.lacks_right() || matches!(error, ProviderError::NotFound | ProviderError::CredentialRejected { .. })
}

/// Whether a person could not make the webhook either.
fn nobody_could(error: &ProviderError) -> bool {
    let closed =
        [Restriction::RepositoryArchived, Restriction::WebhooksDisabled, Restriction::RepositoryBlocked];
    matches!(error, ProviderError::Restricted { by } if closed.contains(by))
}

fn stored(error: ProviderError, provider: &'static str) -> Error {
    Error::Provider { error, credential: CredentialOrigin::Stored { expire_time: None }, provider }
}

pub(super) fn about_webhook(error: StoreError) -> Error {
    match error {
        // Whichever record of the commit it is: the pass begins anew.
        StoreError::Stale | StoreError::NotFound => Error::Stale { name: "the webhook".to_owned() },
        error => store_down(error),
    }
}
