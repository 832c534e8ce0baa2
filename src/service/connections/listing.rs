//! ListConnections.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use super::Connections;
use crate::domain::connection::{Connection, TenantId};
use crate::service::error::Error;
use crate::service::filter::{Filter, OrderBy, Place};
use crate::service::page_token::{self, Binding};
use crate::service::store_down;
use crate::service::verify::present;

/// Rows of one page where the caller names no number.
const DEFAULT_PAGE_SIZE: usize = 50;
/// Most rows of one page; larger wishes are cut to it.
const MAX_PAGE_SIZE: usize = 500;
/// Most bytes of one page, roughly: clients refuse messages above 4 MiB unless they are told otherwise.
const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024;
/// Records read from the store at a time while a listing looks through a tenant.
const SCAN_BATCH: usize = 256;

/// What ListConnections asks for.
#[derive(Debug)]
pub struct ListConnections {
    /// Whose connections.
    pub tenant: TenantId,
    /// Which of them.
    pub filter: Filter,
    /// In which order.
    pub order: OrderBy,
    /// Rows of one page; 0 for the default.
    pub page_size: usize,
    /// Where the last page ended; empty for the first.
    pub page_token: String,
    /// What the token is bound to.
    pub binding: Binding,
}

/// One page of connections.
#[derive(Debug)]
pub struct ConnectionsPage {
    /// The rows.
    pub connections: Vec<Connection>,
    /// Leads to the next page; empty after the last.
    pub next_page_token: String,
}

impl Connections {
    /// One page of a tenant's connections. Looks through all of them, so that any order and filter work; keeps
    /// no more than one page in memory. A record that cannot be read is left out and logged.
    ///
    /// # Errors
    ///
    /// [`Error::PageTokenInvalid`], [`Error::StoreUnavailable`].
    pub async fn list(&self, request: ListConnections) -> Result<ConnectionsPage, Error> {
        let core = &*self.0;
        let now = core.clock.now();
        let size =
            if request.page_size == 0 { DEFAULT_PAGE_SIZE } else { request.page_size.min(MAX_PAGE_SIZE) };
        let after = if request.page_token.is_empty() {
            None
        } else {
            let cursor = page_token::open(&core.secret, &request.binding, &request.page_token, now)?;
            Some(Place::decode(&cursor).ok_or(Error::PageTokenInvalid)?)
        };
        // The first rows so far; the greatest of them on top, to be thrown out.
        let mut rows = BinaryHeap::new();
        let (mut bytes, mut more) = (0_usize, false);
        let mut last_id = None;
        loop {
            let batch = core
                .store
                .connections(&request.tenant, last_id.as_ref(), SCAN_BATCH)
                .await
                .map_err(store_down)?;
            let last = batch.iter().rev().find_map(|listed| match listed {
                Ok(record) => Some(record.connection.name.id.clone()),
                Err(unreadable) => unreadable.connection.clone(),
            });
            // Without an id to go on from, all that is left has unreadable keys.
            let end = batch.len() < SCAN_BATCH || last.is_none();
            last_id = last;
            for listed in batch {
                let record = match listed {
                    Ok(record) => record,
                    Err(unreadable) => {
                        tracing::error!(record = %unreadable.key, problem = %unreadable.problem, "unreadable record left out of a listing");
                        continue;
                    }
                };
                let shown = present(Arc::unwrap_or_clone(record).connection, now);
                let place = request.order.place(&shown);
                let behind = after.as_ref().is_none_or(|after| request.order.compare(&place, after).is_gt());
                if behind && request.filter.matches(&shown) {
                    bytes += weight(&shown);
                    rows.push(Row { order: request.order, place, connection: shown });
                    while rows.len() > size || (bytes > MAX_PAGE_BYTES && rows.len() > 1) {
                        more = true;
                        bytes -= rows.pop().map_or(0, |row| weight(&row.connection));
                    }
                }
            }
            if end {
                break;
            }
            // A tenant may have many; other calls want their turn.
            tokio::task::yield_now().await;
        }
        let rows = rows.into_sorted_vec();
        let next_page_token = match rows.last() {
            Some(last) if more => {
                page_token::issue(&core.secret, &request.binding, &last.place.encode(), now)
            }
            _ => String::new(),
        };
        Ok(ConnectionsPage {
            connections: rows.into_iter().map(|row| self.with_quota(row.connection)).collect(),
            next_page_token,
        })
    }
}

/// About how many bytes a connection has in a message.
fn weight(connection: &Connection) -> usize {
    const REST: usize = 1_024;
    let of = |map: &BTreeMap<String, String>| {
        map.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    };
    REST + connection.ca_certificates_pem.len() + of(&connection.labels) + of(&connection.annotations)
}

/// One row of a listing, ordered as the listing is.
struct Row {
    order: OrderBy,
    place: Place,
    connection: Connection,
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.compare(&self.place, &other.place)
    }
}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Row {}
