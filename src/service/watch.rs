//! WatchConnections: what happens to the connections of a tenant, while it happens.
//!
//! A watcher has no buffer that could fill up: it follows the audit trail by its numbers, and reads the next event when
//! its reader wants the next message. What a message shows is read from the store at that moment.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connections::{Connections, ShownConnection};
use super::error::Error;
use super::resume_token::{self, Listing, Position};
use super::{Context, Core, store_down};
use crate::domain::connection::{ConnectionId, ConnectionName, TenantId};
use crate::domain::event::{Entry, EventType};
use crate::domain::timestamp::Timestamp;
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::store::ListedEvent;

/// How long a watcher is told nothing before it is told that nothing happened.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a reader may take until it asks for the next message.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// How many events more than at its start a watcher may be behind.
const MAX_BEHIND: u64 = 10_000;
/// Events that are read from the store at a time.
const BATCH: usize = 32;

/// What WatchConnections asks for.
#[derive(Debug)]
pub struct Watch {
    /// Whose connections.
    pub tenant: TenantId,
    /// Where to go on; empty for a start from now.
    pub resume_token: String,
    /// Whether a start tells all connections first.
    pub include_initial: bool,
}

/// One message to a watcher.
#[derive(Debug)]
pub struct Notice {
    /// What is told.
    pub news: News,
    /// Goes on behind this message.
    pub resume_token: String,
    /// When it happened.
    pub time: Timestamp,
}

/// What a watcher is told.
#[derive(Debug)]
pub enum News {
    /// Something of a connection, as it is now.
    Connection(Kind, Box<ShownConnection>),
    /// A connection was deleted.
    Deleted(Gone),
    /// The initial state is told.
    InitialDone,
    /// Nothing happened.
    Heartbeat,
}

/// What happened to a connection that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was made, or is part of the initial state.
    Added,
    /// Something of it was changed.
    Modified,
    /// A verification found another state than before.
    StateChanged,
    /// Its credential ends soon.
    CredentialExpiring,
}

/// What the trail keeps of a connection that was deleted.
#[derive(Debug)]
pub struct Gone {
    /// Its name.
    pub name: ConnectionName,
    /// What was kept of it: field path to text.
    pub fields: BTreeMap<String, String>,
}

impl Connections {
    /// Tells the initial state if that is wanted, then what happens, until the stream is dropped. Each message can be
    /// the last one that a later watch goes on behind.
    ///
    /// # Errors
    ///
    /// A token that is not ours, [`Error::ResumeTokenExpired`], [`Error::StoreUnavailable`]; in the stream also
    /// [`Error::WatcherTooSlow`] and [`Error::DeadlineExceeded`].
    pub async fn watch(
        &self,
        context: &Context,
        request: Watch,
    ) -> Result<impl Stream<Item = Result<Notice, Error>> + Send + use<>, Error> {
        let Watch { tenant, resume_token, include_initial } = request;
        let core = self.core();
        // Before anything is read, so that what happens from here on is told.
        let appended = core.store.appended(&tenant);
        let kept = core.store.event_range(&tenant).await.map_err(store_down)?;
        let (position, greeted) = if resume_token.is_empty() {
            let listing = if include_initial { Listing::Start } else { Listing::Done };
            // With the initial state comes a token soon enough.
            (Position { after: *kept.end(), listing }, include_initial)
        } else {
            let position = resume_token::open(&core.secret, &tenant, &resume_token).ok_or_else(not_ours)?;
            if position.after > *kept.end() || position.after.saturating_add(1) < *kept.start() {
                return Err(Error::ResumeTokenExpired);
            }
            (position, true)
        };
        let watcher = Watcher {
            connections: self.clone(),
            max_behind: MAX_BEHIND.saturating_add(*kept.end() - position.after),
            tenant,
            appended,
            resume_token,
            position,
            greeted,
            events: VecDeque::new(),
            found: VecDeque::new(),
            told: Instant::now(),
            asked: Instant::now(),
            deadline: context.stream_deadline,
        };
        Ok(futures_util::stream::try_unfold(watcher, |mut watcher| async move {
            let notice = watcher.next().await?;
            Ok(Some((notice, watcher)))
        }))
    }
}

fn not_ours() -> Error {
    Error::invalid(FieldViolation::new(
        "resume_token",
        FieldReason::Malformed,
        "this is no resume token of this tenant's watch; start again without one",
    ))
}

/// Where one watcher is.
struct Watcher {
    connections: Connections,
    tenant: TenantId,
    /// Changes when there is something to read.
    appended: watch::Receiver<()>,
    position: Position,
    /// Events that were read; behind `position`.
    events: VecDeque<ListedEvent>,
    /// What is to be told of the event at `position`.
    found: VecDeque<Found>,
    /// The token of the last message.
    resume_token: String,
    /// Whether there was a first message.
    greeted: bool,
    /// When the last message was handed out.
    told: Instant,
    /// When the reader asked for the next one.
    asked: Instant,
    /// How far it may fall behind.
    max_behind: u64,
    /// When the caller stops reading.
    deadline: Option<Instant>,
}

/// What is to be told of a connection.
struct Found {
    what: What,
    id: ConnectionId,
    time: Timestamp,
    /// The sequence number that a watch goes on behind after this.
    after: u64,
}

enum What {
    Is(Kind),
    Deleted(BTreeMap<String, String>),
}

impl Watcher {
    fn core(&self) -> &Core {
        self.connections.core()
    }

    async fn next(&mut self) -> Result<Notice, Error> {
        self.asked = Instant::now();
        if self.asked.duration_since(self.told) > READ_LIMIT {
            return Err(self.too_slow());
        }
        let notice = match self.deadline {
            Some(deadline) => {
                let found = tokio::time::timeout_at(deadline, self.find()).await;
                found.map_err(|_| Error::DeadlineExceeded)??
            }
            None => self.find().await?,
        };
        self.told = Instant::now();
        self.greeted = true;
        self.resume_token.clone_from(&notice.resume_token);
        Ok(notice)
    }

    fn too_slow(&self) -> Error {
        Error::WatcherTooSlow { resume_token: self.resume_token.clone() }
    }

    /// Waits for the next message.
    async fn find(&mut self) -> Result<Notice, Error> {
        loop {
            if let Some(found) = self.found.pop_front() {
                if let Some(notice) = self.tell(found).await? {
                    return Ok(notice);
                }
            } else if !self.greeted || self.asked.elapsed() >= HEARTBEAT {
                return Ok(self.notice(News::Heartbeat, self.core().clock.now()));
            } else if self.position.listing != Listing::Done {
                if let Some(notice) = self.list().await? {
                    return Ok(notice);
                }
            } else if let Some(event) = self.events.pop_front() {
                self.take(event)?;
            } else {
                self.read().await?;
            }
        }
    }

    /// Reads the next events; where there are none, waits for one or for the time of the next heartbeat.
    async fn read(&mut self) -> Result<(), Error> {
        // Other calls want their turn, where nothing in all the events is for this watcher.
        tokio::task::yield_now().await;
        self.appended.mark_unchanged();
        let after = self.position.after;
        let store = &self.core().store;
        let kept = store.event_range(&self.tenant).await.map_err(store_down)?;
        if after.saturating_add(1) < *kept.start() {
            return Err(Error::ResumeTokenExpired);
        }
        if kept.end().saturating_sub(after) > self.max_behind {
            return Err(self.too_slow());
        }
        let events = store.events(&self.tenant, None, after, BATCH).await.map_err(store_down)?;
        if events.is_empty() {
            let heartbeat = self.asked + HEARTBEAT;
            // Either of them, and an error as well, is a reason to look again.
            let _ = tokio::time::timeout_at(heartbeat, self.appended.changed()).await;
        }
        self.events = events.into();
        Ok(())
    }

    /// The next connection of the initial state, or its end. `None`: that one cannot be told.
    async fn list(&mut self) -> Result<Option<Notice>, Error> {
        let after = match &self.position.listing {
            Listing::After(id) => Some(id),
            Listing::Start | Listing::Done => None,
        };
        let listed = self.core().store.connections(&self.tenant, after, 1).await.map_err(store_down)?;
        let now = self.core().clock.now();
        let id = match listed.into_iter().next() {
            Some(Ok(record)) => record.connection.name.id.clone(),
            // Where not even the key can be read, neither can those behind it.
            Some(Err(unreadable)) => match unreadable.connection {
                Some(id) => id,
                None => return Ok(Some(self.listed(now))),
            },
            None => return Ok(Some(self.listed(now))),
        };
        self.position.listing = Listing::After(id.clone());
        self.tell(Found { what: What::Is(Kind::Added), id, time: now, after: self.position.after }).await
    }

    fn listed(&mut self, now: Timestamp) -> Notice {
        self.position.listing = Listing::Done;
        self.notice(News::InitialDone, now)
    }

    /// Goes behind an event, and finds out what of it is to be told.
    fn take(&mut self, event: ListedEvent) -> Result<(), Error> {
        let Entry { sequence, event, hash: _ } = event.map_err(|lost| {
            tracing::error!(tenant = %self.tenant, event = lost.sequence, problem = %lost.problem, "a watch ends at an unreadable event");
            // Nobody knows what it was: only the whole state can make up for it.
            Error::ResumeTokenExpired
        })?;
        self.position.after = sequence;
        for id in event.connections {
            let what = match event.event_type {
                EventType::ConnectionCreated => What::Is(Kind::Added),
                EventType::ConnectionUpdated | EventType::CredentialReplaced => What::Is(Kind::Modified),
                EventType::StateChanged => What::Is(Kind::StateChanged),
                EventType::CredentialExpiring => What::Is(Kind::CredentialExpiring),
                EventType::ConnectionDeleted => What::Deleted(event.before.clone()),
                // How many repositories are linked changes; told once, where many are linked in a row.
                counted if counts_links(counted) && !self.counts_links_soon(&id) => What::Is(Kind::Modified),
                _ => continue,
            };
            // A watch that goes on behind the first of two is told the second.
            self.found.push_back(Found { what, id, time: event.time, after: sequence.saturating_sub(1) });
        }
        if let Some(last) = self.found.back_mut() {
            last.after = sequence;
        }
        Ok(())
    }

    /// Whether one of the events that were read already will change the number of links of the connection again.
    fn counts_links_soon(&self, id: &ConnectionId) -> bool {
        let mut later = self.events.iter().flatten().map(|entry| &entry.event);
        later.any(|event| counts_links(event.event_type) && event.connections.contains(id))
    }

    /// The message about a connection; `None` if it is not there any more, or cannot be read.
    async fn tell(&self, found: Found) -> Result<Option<Notice>, Error> {
        let Found { what, id, time, after } = found;
        let name = ConnectionName { tenant: self.tenant.clone(), id };
        let news = match what {
            What::Deleted(fields) => News::Deleted(Gone { name, fields }),
            What::Is(kind) => match self.connections.read(&name).await {
                Ok(connection) => News::Connection(kind, Box::new(connection)),
                // That it was deleted is told when its event comes.
                Err(Error::ConnectionNotFound(_)) => return Ok(None),
                Err(Error::Unreadable { problem, .. }) => {
                    tracing::error!(record = %name, %problem, "unreadable record left out of a watch");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        };
        let position = Position { after, listing: self.position.listing.clone() };
        Ok(Some(self.notice_at(news, time, &position)))
    }

    fn notice(&self, news: News, time: Timestamp) -> Notice {
        self.notice_at(news, time, &self.position)
    }

    fn notice_at(&self, news: News, time: Timestamp, position: &Position) -> Notice {
        let resume_token = resume_token::issue(&self.core().secret, &self.tenant, position);
        Notice { news, resume_token, time }
    }
}

/// Whether an event changes how many repositories are linked through a connection.
const fn counts_links(event_type: EventType) -> bool {
    matches!(
        event_type,
        EventType::RepositoryLinked | EventType::RepositoryUnlinked | EventType::ConnectionSwitched
    )
}
