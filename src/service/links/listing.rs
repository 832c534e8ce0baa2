//! ListRepositoryLinks.

use std::sync::Arc;

use super::Links;
use super::shown::{Known, ShownLink};
use crate::domain::connection::TenantId;
use crate::domain::link::Link;
use crate::service::error::Error;
use crate::service::listing::{Listable, Picker, Query, SCAN_BATCH, map_weight};
use crate::service::store_down;

/// One page of links.
#[derive(Debug)]
pub struct LinksPage {
    /// The rows.
    pub links: Vec<ShownLink>,
    /// Leads to the next page; empty after the last.
    pub next_page_token: String,
}

impl Links {
    /// One page of a tenant's links, as connections are listed; those that are being unlinked too.
    ///
    /// # Errors
    ///
    /// [`Error::PageTokenInvalid`], [`Error::StoreUnavailable`].
    pub async fn list(&self, tenant: &TenantId, query: Query) -> Result<LinksPage, Error> {
        let core = &*self.0;
        let mut picker = Picker::new(core, query)?;
        let mut last_id = None;
        loop {
            let batch = core.store.links(tenant, last_id.as_ref(), SCAN_BATCH).await.map_err(store_down)?;
            let last = batch.iter().rev().find_map(|listed| match listed {
                Ok(record) => Some(record.link.name.id.clone()),
                Err(unreadable) => unreadable.link.clone(),
            });
            // Without an id to go on from, all that is left has unreadable keys.
            let end = batch.len() < SCAN_BATCH || last.is_none();
            last_id = last;
            for listed in batch {
                match listed {
                    Ok(record) => picker.offer(Arc::unwrap_or_clone(record).link),
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
        let (mut links, mut known) = (Vec::with_capacity(rows.len()), Known::default());
        for row in rows {
            links.push(core.show_link(row, &mut known).await?);
        }
        Ok(LinksPage { links, next_page_token })
    }
}

impl Listable for Link {
    fn weight(&self) -> usize {
        // Names, URLs, conditions and history.
        const REST: usize = 8 * 1_024;
        let former: usize = self.previous_full_names.iter().map(String::len).sum();
        let texts = self.repository.description.len() + self.webhook_target_url.len();
        REST + former + texts + map_weight(&self.labels) + map_weight(&self.annotations)
    }
}
