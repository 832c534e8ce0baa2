//! ListConnections.

use std::sync::Arc;

use super::{Connections, ShownConnection};
use crate::domain::connection::{Connection, TenantId};
use crate::service::error::Error;
use crate::service::listing::{Listable, Picker, Query, SCAN_BATCH, map_weight};
use crate::service::store_down;
use crate::service::verify::present;

/// One page of connections.
#[derive(Debug)]
pub struct ConnectionsPage {
    /// The rows.
    pub connections: Vec<ShownConnection>,
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
    pub async fn list(&self, tenant: &TenantId, query: Query) -> Result<ConnectionsPage, Error> {
        let core = &*self.0;
        let now = core.clock.now();
        let mut picker = Picker::new(core, query)?;
        let mut last_id = None;
        loop {
            let batch =
                core.store.connections(tenant, last_id.as_ref(), SCAN_BATCH).await.map_err(store_down)?;
            let last = batch.iter().rev().find_map(|listed| match listed {
                Ok(record) => Some(record.connection.name.id.clone()),
                Err(unreadable) => unreadable.connection.clone(),
            });
            // Without an id to go on from, all that is left has unreadable keys.
            let end = batch.len() < SCAN_BATCH || last.is_none();
            last_id = last;
            for listed in batch {
                match listed {
                    Ok(record) => picker.offer(present(Arc::unwrap_or_clone(record).connection, now)),
                    Err(unreadable) => {
                        tracing::error!(record = %unreadable.key, problem = %unreadable.problem, "unreadable record left out of a listing");
                    }
                }
            }
            if end {
                break;
            }
            // A tenant may have many; other calls want their turn.
            tokio::task::yield_now().await;
        }
        let (rows, next_page_token) = picker.finish(core);
        let mut connections = Vec::with_capacity(rows.len());
        for row in rows {
            connections.push(core.count_links(self.with_quota(row)).await?);
        }
        Ok(ConnectionsPage { connections, next_page_token })
    }
}

impl Listable for Connection {
    fn weight(&self) -> usize {
        const REST: usize = 1_024;
        REST + self.ca_certificates_pem.len() + map_weight(&self.labels) + map_weight(&self.annotations)
    }
}
