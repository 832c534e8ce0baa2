//! The repositories of all connections of a tenant: one connection after the other, in the order of their ids, so that
//! a place in the listing is a connection and a place in it.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::time::Instant;

use super::{
    Batch, Extent, PageRequest, Position, Repositories, RepositoriesPage, Section, Walked, Wanted, section,
    with_links,
};
use crate::domain::connection::{ConnectionId, ConnectionName, TenantId};
use crate::domain::page::Warning;
use crate::service::error::Error;
use crate::service::{Context, Core, store_down};

/// Connections that are read from the store at a time.
const BATCH: usize = 32;
/// The connections that are left share the time that is left, but as if they were no more than so many: hundreds of
/// them would get too little to answer at all.
const MOST_SHARES: usize = 4;
/// Most connections that one page looks at.
const MOST_CONNECTIONS_A_PAGE: usize = 100;

impl Repositories {
    /// One page out of all connections of a tenant.
    pub(super) async fn list_across(
        &self,
        context: &Context,
        tenant: TenantId,
        wanted: Wanted,
        page: PageRequest,
    ) -> Result<RepositoriesPage, Error> {
        let mut extent = Extent::new(&page, context.deadline);
        let place = match self.opened(&page)? {
            None => None,
            Some(bytes) => Some(Place::decode(&bytes).ok_or(Error::PageTokenInvalid)?),
        };
        let mut queue = Queue::new(self.0.clone(), tenant, place.as_ref());
        let mut resumed = place.and_then(Place::position);
        let mut sections = Vec::new();
        let next = loop {
            let Some(connection) = queue.next().await? else { break None };
            let id = connection.id.clone();
            let at = resumed.take().unwrap_or_else(|| Position::first(extent.page_size));
            let deadline = share(context.deadline, queue.left());
            let walked = match self.0.reach(&connection, deadline).await {
                Ok(reach) => match section(&reach, wanted.clone(), at, extent.within(deadline)).await {
                    Ok(Walked { rows, warnings, next }) => {
                        with_links(&self.0, &reach.record, rows).await.map(|rows| (rows, warnings, next))
                    }
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            let next = match walked {
                Ok((repositories, warnings, next)) => {
                    extent.room -= repositories.len();
                    sections.push(Section { connection, repositories, warnings, failure: None });
                    next
                }
                Err(error) => {
                    sections.extend(without_rows(connection, error));
                    None
                }
            };
            if let Some(position) = next {
                break Some(Place::Within(id, position));
            }
            let is_full = extent.room == 0
                || sections.len() >= MOST_CONNECTIONS_A_PAGE
                || Instant::now() >= extent.half_time;
            if is_full {
                break queue.fill().await?.then_some(Place::Behind(id));
            }
        };
        let next_page_token = self.token(&page, next.map(|place| place.encode()));
        Ok(RepositoriesPage { sections, next_page_token })
    }

    /// Batches out of all connections of a tenant. A store that fails ends the stream.
    pub(super) fn stream_across(
        &self,
        deadline: Instant,
        tenant: TenantId,
        wanted: Wanted,
    ) -> BoxStream<'static, Result<Batch, Error>> {
        let repositories = self.clone();
        let queue = Queue::new(self.0.clone(), tenant, None);
        let connections = stream::try_unfold(queue, |mut queue| async move {
            let next = queue.next().await?;
            Ok::<_, Error>(next.map(|connection| ((connection, queue.left()), queue)))
        });
        let batches = connections.then(move |next| {
            let (repositories, wanted) = (repositories.clone(), wanted.clone());
            async move {
                match next {
                    Ok((connection, left)) => {
                        repositories.batches_of(connection, wanted, share(deadline, left)).await
                    }
                    Err(error) => stream::iter([Err(error)]).boxed(),
                }
            }
        });
        // Each connection counts from zero.
        let (mut before, mut current, mut counted) = (0, 0, None);
        batches
            .flatten()
            .map(move |batch| {
                let mut batch = batch?;
                if counted.as_ref() != Some(&batch.section.connection) {
                    before += std::mem::take(&mut current);
                    counted = Some(batch.section.connection.clone());
                }
                // A failure counts nothing.
                current = batch.seen.max(current);
                batch.seen = before + current;
                batch.total = None;
                Ok(batch)
            })
            .boxed()
    }

    /// The batches of one connection among several, of which the last one tells a failure.
    async fn batches_of(
        &self,
        connection: ConnectionName,
        wanted: Wanted,
        deadline: Instant,
    ) -> BoxStream<'static, Result<Batch, Error>> {
        let ended = |connection: &ConnectionName, error| {
            let section = without_rows(connection.clone(), error);
            section.map(|section| Ok(Batch { section, seen: 0, total: None }))
        };
        match self.stream_one(deadline, connection.clone(), wanted).await {
            Ok(batches) => batches
                .filter_map(move |batch| {
                    let batch = batch.map_or_else(|error| ended(&connection, error), |batch| Some(Ok(batch)));
                    std::future::ready(batch)
                })
                .boxed(),
            Err(error) => stream::iter(ended(&connection, error)).boxed(),
        }
    }
}

/// What a connection brings that has no rows to show; nothing if it was deleted meanwhile. That somebody switched it
/// off is no failure, but should be known.
fn without_rows(connection: ConnectionName, error: Error) -> Option<Section> {
    let (warnings, failure) = match error {
        Error::ConnectionNotFound(_) => return None,
        Error::Disabled { .. } => {
            let message = "The connection is disabled, so its repositories are left out.".to_owned();
            (vec![Warning { reason: "CONNECTION_DISABLED", message }], None)
        }
        error => (Vec::new(), Some(error)),
    };
    Some(Section { connection, repositories: Vec::new(), warnings, failure })
}

/// Until when one connection may take, if it and `left` more are still to be asked: a slow one takes no time from the
/// others.
fn share(deadline: Instant, left: usize) -> Instant {
    let now = Instant::now();
    let shares = u32::try_from((left + 1).min(MOST_SHARES)).unwrap_or(u32::MAX);
    now + deadline.saturating_duration_since(now) / shares
}

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Behind that connection.
    Behind(ConnectionId),
    /// In the middle of that connection.
    Within(ConnectionId, Position),
}

impl Place {
    /// The length of the id, the id, and the place in the connection, if there is one.
    fn encode(&self) -> Vec<u8> {
        let (id, position) = match self {
            Self::Behind(id) => (id, None),
            Self::Within(id, position) => (id, Some(position)),
        };
        // At most 63 characters of ASCII.
        let mut bytes = vec![u8::try_from(id.as_str().len()).unwrap_or(u8::MAX)];
        bytes.extend_from_slice(id.as_str().as_bytes());
        bytes.extend(position.map(Position::encode).unwrap_or_default());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&length, rest) = bytes.split_first()?;
        let (id, rest) = rest.split_at_checked(usize::from(length))?;
        let id = ConnectionId::parse(std::str::from_utf8(id).ok()?).ok()?;
        if rest.is_empty() {
            return Some(Self::Behind(id));
        }
        Position::decode(rest).map(|position| Self::Within(id, position))
    }

    fn position(self) -> Option<Position> {
        match self {
            Self::Behind(_) => None,
            Self::Within(_, position) => Some(position),
        }
    }
}

/// The connections of a tenant that are still to be asked, in the order of their ids.
struct Queue {
    core: Arc<Core>,
    tenant: TenantId,
    waiting: VecDeque<ConnectionName>,
    /// The last one that was read from the store.
    after: Option<ConnectionId>,
    at_end: bool,
}

impl Queue {
    fn new(core: Arc<Core>, tenant: TenantId, place: Option<&Place>) -> Self {
        let (waiting, after) = match place {
            None => (VecDeque::new(), None),
            Some(Place::Behind(id)) => (VecDeque::new(), Some(id.clone())),
            Some(Place::Within(id, _)) => {
                let name = ConnectionName { tenant: tenant.clone(), id: id.clone() };
                (VecDeque::from([name]), Some(id.clone()))
            }
        };
        Self { core, tenant, waiting, after, at_end: false }
    }

    async fn next(&mut self) -> Result<Option<ConnectionName>, Error> {
        self.fill().await?;
        Ok(self.waiting.pop_front())
    }

    /// Reads on if nothing waits, and says whether something does now.
    async fn fill(&mut self) -> Result<bool, Error> {
        while self.waiting.is_empty() && !self.at_end {
            let listed = self.core.store.connections(&self.tenant, self.after.as_ref(), BATCH).await;
            let listed = listed.map_err(store_down)?;
            self.at_end = listed.len() < BATCH;
            let ids: Vec<ConnectionId> = listed
                .into_iter()
                .filter_map(|listed| match listed {
                    Ok(record) => Some(record.connection.name.id.clone()),
                    // Its section will tell that it cannot be read; without an id there is nothing to tell of.
                    Err(unreadable) => unreadable.connection,
                })
                .collect();
            match ids.last() {
                Some(last) => self.after = Some(last.clone()),
                // Without an id to go on from, all that is left has unreadable keys.
                None => self.at_end = true,
            }
            let tenant = &self.tenant;
            self.waiting.extend(ids.into_iter().map(|id| ConnectionName { tenant: tenant.clone(), id }));
        }
        Ok(!self.waiting.is_empty())
    }

    /// How many are known to be left.
    fn left(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::page::Cursor;

    #[test]
    fn a_place_survives_a_token() {
        let id = ConnectionId::parse("a-connection").expect("an id");
        let position = Position { cursor: Some(Cursor("after:9".into())), skip: 3, size: 7 };
        for place in [
            Place::Behind(id.clone()),
            Place::Within(id.clone(), position),
            Place::Within(id, Position::first(50)),
        ] {
            assert_eq!(Place::decode(&place.encode()), Some(place));
        }
        for bad in [&[][..], &[5, b'a'], &[1, b'-'], &[1, b'a', 0], &[0]] {
            assert_eq!(Place::decode(bad), None, "{bad:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_connection_takes_no_more_than_its_share() {
        let now = Instant::now();
        let deadline = now + Duration::from_secs(60);
        assert_eq!([0, 1, 3, 100].map(|left| (share(deadline, left) - now).as_secs()), [60, 30, 15, 15]);
        assert_eq!(share(now, 7), now);
    }
}
