//! A look at the repository of a link: does its connection still see it, and what is it called now?

use std::sync::Arc;

use tokio::time::Instant;

use super::replace_change;
use super::shown::ACCESSIBLE;
use crate::domain::connection::{Condition, ConditionStatus, ConnectionName, ConnectionRecord};
use crate::domain::event::EventType;
use crate::domain::link::{Link, LinkName, LinkRecord, LinkState, MAX_PREVIOUS_NAMES};
use crate::domain::repository::Repository;
use crate::domain::timestamp::Timestamp;
use crate::provider::ProviderError;
use crate::service::audit::{Fields, Subject, own_event};
use crate::service::error::Error;
use crate::service::verify::reason_of;
use crate::service::work::{LOOK_EVERY, pause_after, spread};
use crate::service::{Core, store_down};
use crate::store::{Change, StoreError};

/// How often what was found is tried to be stored.
const MAX_ROUNDS: usize = 3;
/// How many other connections are asked about a repository that a connection sees no more.
const MAX_WITNESSES: usize = 5;
/// Connections that are read from the store at a time.
const BATCH: usize = 64;

/// What a look found.
enum Finding {
    /// The repository, as it is now.
    Seen(Box<Repository>),
    /// It is out of sight: the new state, a stable word for why, and the same for people.
    Lost(LinkState, &'static str, String),
    /// Nothing that could be said of the repository.
    Nothing {
        /// How long the provider wants to be left alone.
        pause: Option<std::time::Duration>,
    },
}

impl Core {
    /// Looks at the repository of the link by its id and stores what is found: other names, which are followed; whether
    /// the connection sees it. A link that is gone, or is being unlinked, is left alone. No call is made for a disabled
    /// connection.
    ///
    /// # Errors
    ///
    /// The store; a provider that does not answer is none, the next look then comes sooner.
    pub(in crate::service) async fn look_at_link(
        &self,
        name: &LinkName,
        until: Instant,
    ) -> Result<(), Error> {
        let record = match self.live_link(name).await {
            Ok(record) => record,
            Err(Error::LinkNotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let finding = self.find(&record.link, until).await?;
        self.store_finding(record, &finding).await
    }

    async fn find(&self, link: &Link, until: Instant) -> Result<Finding, Error> {
        let name = link.connection_name();
        let error = match self.sees(&name, link, until).await {
            Ok(Ok(repository)) => return Ok(Finding::Seen(Box::new(repository))),
            Ok(Err(error)) => error,
            // An operator or the connection's owner has to do something first; readers of the link are told what.
            Err(
                Error::Disabled { .. }
                | Error::ConnectionNotFound(_)
                | Error::Unreadable { .. }
                | Error::KeyUnavailable { .. },
            ) => return Ok(Finding::Nothing { pause: Some(LOOK_EVERY) }),
            Err(error) => return Err(error),
        };
        Ok(match error {
            ProviderError::NotFound => match self.witness(link, until).await? {
                Some(other) => Finding::Lost(
                    LinkState::AccessLost,
                    "REPOSITORY_NOT_ACCESSIBLE",
                    format!(
                        "The connection does not see the repository, and {other} does. Give its account access, or \
                         switch the link."
                    ),
                ),
                None => Finding::Lost(
                    LinkState::NotFound,
                    "REPOSITORY_NOT_FOUND",
                    "The provider shows no such repository to the connection.".to_owned(),
                ),
            },
            ProviderError::CredentialRejected { .. }
            | ProviderError::ScopeMissing { .. }
            | ProviderError::Forbidden
            | ProviderError::Restricted { .. } => {
                let told = format!("The provider does not show the repository: {error}.");
                Finding::Lost(LinkState::AccessLost, reason_of(&error), told)
            }
            ProviderError::RateLimited { after } => Finding::Nothing { pause: Some(after) },
            _ => Finding::Nothing { pause: None },
        })
    }

    /// What a connection says of the repository of a link.
    async fn sees(
        &self,
        connection: &ConnectionName,
        link: &Link,
        until: Instant,
    ) -> Result<Result<Repository, ProviderError>, Error> {
        let reach = match self.reach(connection, until).await {
            Ok(reach) => reach,
            Err(Error::Provider { error, .. }) => return Ok(Err(error)),
            Err(error) => return Err(error),
        };
        let api = reach.api.in_background();
        let Repository { provider_id, full_name, .. } = &link.repository;
        Ok(reach.provider.known_repository(&api, provider_id, full_name).await)
    }

    /// Another connection of the tenant to the same instance that sees the repository; of several, one.
    async fn witness(&self, link: &Link, until: Instant) -> Result<Option<ConnectionName>, Error> {
        let (mut after, mut asked) = (None, 0);
        loop {
            let batch = self.store.connections(&link.name.tenant, after.as_ref(), BATCH).await;
            let batch = batch.map_err(store_down)?;
            let at_end = batch.len() < BATCH;
            let readable: Vec<Arc<ConnectionRecord>> = batch.into_iter().filter_map(Result::ok).collect();
            for record in &readable {
                let other = &record.connection;
                let could_see = other.name.id != link.connection
                    && other.provider == link.provider
                    && other.effective_api_url == link.instance
                    && !other.disabled;
                if !could_see {
                    continue;
                }
                if asked == MAX_WITNESSES {
                    return Ok(None);
                }
                asked += 1;
                // One that cannot say is no witness.
                if let Ok(Ok(_)) = self.sees(&other.name, link, until).await {
                    return Ok(Some(other.name.clone()));
                }
            }
            match readable.last() {
                Some(last) if !at_end => after = Some(last.connection.name.id.clone()),
                _ => return Ok(None),
            }
        }
    }

    async fn store_finding(&self, looked_at: Arc<LinkRecord>, finding: &Finding) -> Result<(), Error> {
        let name = looked_at.link.name.clone();
        let mut record = looked_at.clone();
        for _ in 0..MAX_ROUNDS {
            let changes = changes(&record, finding, self.clock.now());
            match self.store.commit(changes).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Stale | StoreError::NotFound) => {}
                Err(error) => return Err(Error::from_link_store(error, &name)),
            }
            record = match self.live_link(&name).await {
                // What was found was found through the connection that it has.
                Ok(record) if record.link.connection == looked_at.link.connection => record,
                Ok(_) | Err(Error::LinkNotFound(_)) => return Ok(()),
                Err(error) => return Err(error),
            };
        }
        Err(Error::Stale { name: name.to_string() })
    }
}

/// What is to be stored of a finding about `record`.
fn changes(record: &LinkRecord, finding: &Finding, now: Timestamp) -> Vec<Change> {
    let mut next = record.link.clone();
    let mut events = Vec::new();
    let (mut attempts, mut due) = (0, now.saturating_add(spread(LOOK_EVERY)));
    match finding {
        Finding::Seen(repository) => {
            if see(&mut next, repository) {
                let name = |link: &Link| full_name(&link.repository);
                events.push((EventType::RepositoryMoved, name(&record.link), name(&next)));
            }
            next.state = LinkState::Linked;
            set_accessible(&mut next, ConditionStatus::True, LinkState::Linked.as_str(), "", now);
        }
        Finding::Lost(state, reason, message) => {
            next.state = *state;
            set_accessible(&mut next, ConditionStatus::False, reason, message, now);
        }
        Finding::Nothing { pause } => {
            attempts = record.attempts.saturating_add(1);
            due = now.saturating_add(pause_after(attempts).max(pause.unwrap_or_default()));
        }
    }
    if next.state != record.link.state {
        let state = |link: &Link| field("state", link.state.as_str());
        events.push((EventType::RepositoryAccessChanged, state(&record.link), state(&next)));
    }
    if !events.is_empty() || is_news(&record.link, &next) {
        next.update_time = now;
        next.generation += 1;
    }
    let events = events.into_iter().map(|(event_type, before, after)| {
        Change::Append(own_event(event_type, Subject::link(&next), before, after, now))
    });
    let events: Vec<_> = events.collect();
    let mut changes = vec![replace_change(record, next, Some(due), attempts)];
    changes.extend(events);
    changes
}

/// Puts the repository as it is now into the link, and says whether it has another name.
fn see(link: &mut Link, repository: &Repository) -> bool {
    let before = std::mem::replace(&mut link.repository, repository.clone());
    let is_moved = before.full_name != repository.full_name;
    if is_moved {
        // A repository that gets back a name that it had, has it now and not before.
        let names = &mut link.previous_full_names;
        names.retain(|name| *name != before.full_name && *name != repository.full_name);
        names.push(before.full_name);
        let surplus = names.len().saturating_sub(MAX_PREVIOUS_NAMES);
        names.drain(..surplus);
    }
    is_moved
}

/// Whether a reader would call the link changed: a push to its repository is no change of the link.
fn is_news(before: &Link, after: &Link) -> bool {
    let settled = |link: &Link| {
        let mut link = link.clone();
        link.repository.update_time = None;
        link.repository.size_kib = None;
        link
    };
    settled(before) != settled(after)
}

fn set_accessible(link: &mut Link, status: ConditionStatus, reason: &str, message: &str, now: Timestamp) {
    let known = link.conditions.iter().position(|found| found.condition_type == ACCESSIBLE);
    let since = match known.map(|at| link.conditions.remove(at)) {
        Some(condition) if condition.status == status => condition.last_transition_time,
        _ => now,
    };
    link.conditions.push(Condition {
        condition_type: ACCESSIBLE.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since,
    });
}

fn full_name(repository: &Repository) -> Fields {
    field("repository.full_name", &repository.full_name)
}

fn field(name: &str, value: &str) -> Fields {
    [(name.to_owned(), value.to_owned())].into()
}
