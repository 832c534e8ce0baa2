//! Requests that come again (AIP-155): the same id and content get the same answer and have no second effect.

use std::sync::Arc;

use super::{Connections, Next, replace_change};
use crate::domain::connection::{Connection, ConnectionName, ConnectionRecord, TenantId};
use crate::domain::event::Event;
use crate::domain::timestamp::Timestamp;
use crate::service::error::Error;
use crate::service::store_down;
use crate::store::{Change, Remembered};

/// How often a change is tried again over bookkeeping that came in between. One round is the rule: bookkeeping comes
/// once an hour.
const MAX_REBASES: usize = 3;

/// What was done, or what was answered when it was done.
#[derive(Debug)]
pub enum Done<T> {
    /// Done now.
    Now(T),
    /// Done before under the same request id; the answer as it was encoded then.
    Before(Vec<u8>),
}

/// How a request is recognised when it comes again.
#[derive(Debug)]
pub struct Repeat<'a, T> {
    /// The id that the caller gave it: a UUID.
    pub request_id: &'a str,
    /// Method and content, without the id itself.
    pub content: &'a [u8],
    /// Encodes the answer, to be given again.
    pub encode: fn(&T) -> Vec<u8>,
}

impl Connections {
    /// The answer that was given to this request before.
    pub(super) async fn answered_before<T>(
        &self,
        tenant: &TenantId,
        repeat: Option<&Repeat<'_, T>>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(repeat) = repeat else { return Ok(None) };
        let Some(known) = self.0.store.remembered(tenant, repeat.request_id).await.map_err(store_down)?
        else {
            return Ok(None);
        };
        if self.0.secret.verify_request(repeat.content, &known.fingerprint) {
            Ok(Some(known.answer))
        } else {
            Err(Error::RequestIdReused)
        }
    }

    /// Commits the changes about `connection`, and remembers the answer if the request may come again.
    pub(super) async fn commit<T>(
        &self,
        connection: &Connection,
        mut changes: Vec<Change>,
        repeat: Option<&Repeat<'_, T>>,
        answer: &T,
        now: Timestamp,
    ) -> Result<(), Error> {
        let name = &connection.name;
        if let Some(repeat) = repeat {
            // First, so that a request that comes twice at once is told so before it is told that its name is taken.
            changes.insert(
                0,
                Change::Remember(Remembered {
                    tenant: name.tenant.clone(),
                    request_id: repeat.request_id.to_owned(),
                    fingerprint: self.0.secret.request_fingerprint(repeat.content),
                    answer: (repeat.encode)(answer),
                    time: now,
                }),
            );
        }
        let outcome = self.0.store.commit(changes).await;
        outcome.map_err(|error| Error::from_store(error, name, connection.provider.as_str()))
    }

    /// Replaces the record that was read. Somebody else's change in between is [`Error::Stale`]; bookkeeping, which no
    /// reader sees in the etag, is not, and is kept.
    pub(super) async fn replace<T>(
        &self,
        read: &ConnectionRecord,
        next: Next,
        event: Event,
        repeat: Option<&Repeat<'_, T>>,
        answer: &T,
        now: Timestamp,
    ) -> Result<(), Error> {
        let name = &next.connection.name;
        let mut current = Arc::new(read.clone());
        for _ in 0..MAX_REBASES {
            let mut connection = next.connection.clone();
            let known = &current.connection.credential;
            if connection.credential.version == known.version {
                connection.credential.last_use_time =
                    connection.credential.last_use_time.max(known.last_use_time);
            }
            let change = replace_change(&current, connection, next.sealed.clone());
            let changes = vec![change, Change::Append(event.clone())];
            match self.commit(&next.connection, changes, repeat, answer, now).await {
                Err(Error::Stale { .. }) => {
                    current = self.0.record(name).await?;
                    if current.connection.generation != read.connection.generation {
                        break;
                    }
                }
                outcome => return outcome,
            }
        }
        Err(Error::Stale { name: name.to_string() })
    }

    /// Turns a lost race against the same request into its answer.
    pub(super) async fn done_or_before<T>(
        &self,
        name: &ConnectionName,
        repeat: Option<&Repeat<'_, T>>,
        outcome: Result<T, Error>,
    ) -> Result<Done<T>, Error> {
        match outcome {
            Ok(done) => Ok(Done::Now(done)),
            Err(
                error @ (Error::Stale { .. }
                | Error::NameTaken { .. }
                | Error::IdTaken { .. }
                | Error::AlreadyAnswered),
            ) => match self.answered_before(&name.tenant, repeat).await? {
                Some(answer) => Ok(Done::Before(answer)),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}
