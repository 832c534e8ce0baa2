//! ListConnectionEvents: the audit trail of one connection, or of all that a tenant has.

use super::connections::Connections;
use super::error::Error;
use super::filter::{Filter, Filtered};
use super::listing::{DEFAULT_PAGE_SIZE, MAX_PAGE_BYTES, MAX_PAGE_SIZE, map_weight};
use super::page_token::{self, Binding};
use super::repositories::Parent;
use super::store_down;
use crate::domain::event::{Entry, Event};

/// Most events that are looked at for one page: a filter may pass hardly any, and nobody waits that long.
const MAX_LOOKS: usize = 5_000;
/// Events read from the store at a time.
const BATCH: usize = 256;

/// What ListConnectionEvents asks for.
#[derive(Debug)]
pub struct ListEvents {
    /// Whose trail.
    pub parent: Parent,
    /// Which events.
    pub filter: Filter,
    /// Rows of one page; 0 for the default.
    pub page_size: usize,
    /// Where the last page ended; empty for the first.
    pub page_token: String,
    /// What the token is bound to.
    pub binding: Binding,
}

/// One page of a trail.
#[derive(Debug)]
pub struct EventsPage {
    /// The rows, oldest first.
    pub entries: Vec<Entry>,
    /// Leads to the next page; empty after the last.
    pub next_page_token: String,
}

impl Connections {
    /// One page of a trail, oldest first. A page may be short, or empty, and still lead to a next one. An event that
    /// cannot be read is left out and logged.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionNotFound`] for an id that was never used, [`Error::PageTokenInvalid`],
    /// [`Error::StoreUnavailable`].
    pub async fn events(&self, request: ListEvents) -> Result<EventsPage, Error> {
        let core = self.core();
        let ListEvents { parent, filter, page_size, page_token, binding } = request;
        let (tenant, connection) = match &parent {
            Parent::Tenant(tenant) => (tenant, None),
            Parent::Connection(name) => {
                if !core.store.id_taken(name).await.map_err(store_down)? {
                    return Err(Error::ConnectionNotFound(name.to_string()));
                }
                (&name.tenant, Some(&name.id))
            }
        };
        let size = if page_size == 0 { DEFAULT_PAGE_SIZE } else { page_size.min(MAX_PAGE_SIZE) };
        let now = core.clock.now();
        // The sequence number of the last event that was looked at.
        let mut after = if page_token.is_empty() {
            0
        } else {
            let cursor = page_token::open(&core.secret, &binding, &page_token, now)?;
            u64::from_be_bytes(cursor.try_into().map_err(|_| Error::PageTokenInvalid)?)
        };
        let mut page = EventsPage { entries: Vec::new(), next_page_token: String::new() };
        let (mut looks, mut bytes) = (0, 0);
        loop {
            let batch = core.store.events(tenant, connection, after, BATCH).await.map_err(store_down)?;
            let end = batch.len() < BATCH;
            looks += batch.len();
            for event in batch {
                let entry = match event {
                    Ok(entry) => entry,
                    Err(lost) => {
                        tracing::error!(%tenant, event = lost.sequence, problem = %lost.problem, "unreadable event left out of a listing");
                        after = lost.sequence;
                        continue;
                    }
                };
                let is_shown = connection.is_none_or(|id| entry.event.connections.contains(id));
                if is_shown && filter.matches(&entry.event) {
                    bytes += weight(&entry.event);
                    if page.entries.len() == size || (bytes > MAX_PAGE_BYTES && !page.entries.is_empty()) {
                        page.next_page_token =
                            page_token::issue(&core.secret, &binding, &after.to_be_bytes(), now);
                        return Ok(page);
                    }
                    after = entry.sequence;
                    page.entries.push(entry);
                } else {
                    after = entry.sequence;
                }
            }
            if end {
                return Ok(page);
            }
            if looks >= MAX_LOOKS {
                page.next_page_token = page_token::issue(&core.secret, &binding, &after.to_be_bytes(), now);
                return Ok(page);
            }
            // There may be many; other calls want their turn.
            tokio::task::yield_now().await;
        }
    }
}

/// About how many bytes an event has in a message.
fn weight(event: &Event) -> usize {
    const REST: usize = 512;
    REST + event.resource.len() + map_weight(&event.before) + map_weight(&event.after)
}

impl Filtered for Event {
    const FIELDS: &'static [&'static str] = &["type", "actor"];
    const EXAMPLE: &'static str = "type = \"CREDENTIAL_REPLACED\" AND actor != \"system\"";

    fn has(&self, field: &str, value: &str) -> bool {
        match field {
            "type" => self.event_type.as_str() == value,
            _ => self.actor == value,
        }
    }
}
