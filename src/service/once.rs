//! Requests that come again (AIP-155): the same id and content get the same answer and have no second effect.

use super::error::Error;
use super::{Core, store_down};
use crate::domain::connection::TenantId;
use crate::domain::timestamp::Timestamp;
use crate::store::{Change, Remembered};

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
pub struct Repeat<'a, T: ?Sized> {
    /// The id that the caller gave it: a UUID.
    pub request_id: &'a str,
    /// Method and content, without the id itself.
    pub content: &'a [u8],
    /// Encodes the answer, to be given again.
    pub encode: fn(&T) -> Vec<u8>,
}

impl Core {
    /// The answer that was given to this request before.
    pub(super) async fn answered_before<T: ?Sized>(
        &self,
        tenant: &TenantId,
        repeat: Option<&Repeat<'_, T>>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(repeat) = repeat else { return Ok(None) };
        let Some(known) = self.store.remembered(tenant, repeat.request_id).await.map_err(store_down)? else {
            return Ok(None);
        };
        if self.secret.verify_request(repeat.content, &known.fingerprint) {
            Ok(Some(known.answer))
        } else {
            Err(Error::RequestIdReused)
        }
    }

    /// The change that remembers the answer, if the request may come again. It belongs first in its commit, so that a
    /// request that comes twice at once is told so before it is told that its name is taken.
    pub(super) fn remember<T: ?Sized>(
        &self,
        tenant: &TenantId,
        repeat: Option<&Repeat<'_, T>>,
        answer: &T,
        now: Timestamp,
    ) -> Option<Change> {
        repeat.map(|repeat| {
            Change::Remember(Remembered {
                tenant: tenant.clone(),
                request_id: repeat.request_id.to_owned(),
                fingerprint: self.secret.request_fingerprint(repeat.content),
                answer: (repeat.encode)(answer),
                time: now,
            })
        })
    }

    /// Turns a lost race against the same request into its answer.
    pub(super) async fn done_or_before<T, R: ?Sized>(
        &self,
        tenant: &TenantId,
        repeat: Option<&Repeat<'_, R>>,
        outcome: Result<T, Error>,
    ) -> Result<Done<T>, Error> {
        match outcome {
            Ok(done) => Ok(Done::Now(done)),
            Err(error) if may_be_a_race(&error) => match self.answered_before(tenant, repeat).await? {
                Some(answer) => Ok(Done::Before(answer)),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

/// Whether a request that is answered for the first time right now may be what the other one of its kind ran into.
fn may_be_a_race(error: &Error) -> bool {
    match error {
        Error::Stale { .. }
        | Error::NameTaken { .. }
        | Error::IdTaken { .. }
        | Error::AlreadyLinked { .. }
        | Error::AlreadyAnswered => true,
        Error::Entry { error, .. } => may_be_a_race(error),
        _ => false,
    }
}
