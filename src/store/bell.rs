//! Wakes those who wait for a tenant's next event.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::connection::TenantId;

/// One signal for each tenant that somebody listens to.
#[derive(Debug, Default)]
pub(super) struct Bell(Mutex<HashMap<TenantId, watch::Sender<()>>>);

impl Bell {
    /// A receiver that changes after each commit of an event of the tenant from now on.
    pub(super) fn listen(&self, tenant: &TenantId) -> watch::Receiver<()> {
        let mut signals = self.signals();
        signals.retain(|_, signal| !signal.is_closed());
        signals.entry(tenant.clone()).or_default().subscribe()
    }

    /// Tells that an event of the tenant can be read.
    pub(super) fn ring(&self, tenant: &TenantId) {
        if let Some(signal) = self.signals().get(tenant) {
            signal.send_replace(());
        }
    }

    fn signals(&self) -> MutexGuard<'_, HashMap<TenantId, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
