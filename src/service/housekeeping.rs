//! What has to be done now and then, for as long as the service runs.

use std::time::Duration;

use super::Core;
use crate::domain::connection::TenantId;
use crate::domain::timestamp::Timestamp;
use crate::store::StoreError;

/// How often what is too old is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// How often credentials that end soon are looked for.
const LOOK_FOR_ENDS_EVERY: Duration = Duration::from_secs(3_600);
/// How often the times of last use are written.
const WRITE_USES_EVERY: Duration = Duration::from_secs(60);
/// Tenants that are read from the store at a time.
const TENANTS: usize = 256;

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Audit events.
    pub events: Duration,
    /// Outcomes of requests, under their request ids.
    pub requests: Duration,
}

impl Core {
    /// Works until it is dropped: at once, and then at intervals.
    pub async fn keep_house(&self, keep: Retention) {
        let mut forget = tokio::time::interval(FORGET_EVERY);
        let mut look = tokio::time::interval(LOOK_FOR_ENDS_EVERY);
        let mut write = tokio::time::interval(WRITE_USES_EVERY);
        loop {
            tokio::select! {
                _ = forget.tick() => self.forget(keep).await,
                _ = look.tick() => self.look_for_ends().await,
                _ = write.tick() => self.write_uses_or_warn().await,
            }
        }
    }

    /// [`Core::write_uses`]; where that fails, the log tells.
    pub async fn write_uses_or_warn(&self) {
        if let Err(error) = self.write_uses().await {
            tracing::warn!(%error, "the times of last use could not be written");
        }
    }

    async fn forget(&self, keep: Retention) {
        let now = self.clock.now();
        match self.store.forget_requests(now.saturating_sub(keep.requests)).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "forgot old requests"),
            Err(error) => tracing::warn!(%error, "old requests could not be forgotten"),
        }
        match self.forget_events(now.saturating_sub(keep.events)).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "forgot old audit events"),
            Err(error) => tracing::warn!(%error, "old audit events could not be forgotten"),
        }
    }

    /// Forgets the events of all tenants from before `before`. Returns how many.
    async fn forget_events(&self, before: Timestamp) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        let mut after = None;
        loop {
            let tenants = self.store.tenants(after.as_ref(), TENANTS).await?;
            for tenant in &tenants {
                match self.store.forget_events(tenant, before).await {
                    Ok(count) => forgotten += count,
                    // The others are no worse for it.
                    Err(error @ StoreError::Unreadable(_)) => {
                        tracing::error!(%tenant, %error, "the audit trail cannot be shortened");
                    }
                    Err(error) => return Err(error),
                }
            }
            match self.next_tenants(tenants).await {
                Some(last) => after = Some(last),
                None => return Ok(forgotten),
            }
        }
    }

    async fn look_for_ends(&self) {
        match self.tell_expiring_everywhere().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "credentials end within 14 days"),
            Err(error) => tracing::warn!(%error, "credentials that end soon could not be looked for"),
        }
    }

    async fn tell_expiring_everywhere(&self) -> Result<usize, StoreError> {
        let mut told = 0;
        let mut after = None;
        loop {
            let tenants = self.store.tenants(after.as_ref(), TENANTS).await?;
            for tenant in &tenants {
                told += self.tell_expiring(tenant).await?;
            }
            match self.next_tenants(tenants).await {
                Some(last) => after = Some(last),
                None => return Ok(told),
            }
        }
    }

    /// Where the next tenants begin; `None` behind the last. Other calls get their turn.
    async fn next_tenants(&self, tenants: Vec<TenantId>) -> Option<TenantId> {
        tokio::task::yield_now().await;
        let end = tenants.len() < TENANTS;
        tenants.into_iter().next_back().filter(|_| !end)
    }
}
