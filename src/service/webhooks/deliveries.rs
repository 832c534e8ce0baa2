//! Deliveries: were they made with the webhook's secret, and what do they say?

use std::sync::Arc;
use std::time::Duration;

use super::keep::about_webhook;
use super::{Webhooks, share};
use crate::domain::connection::TenantId;
use crate::domain::delivery::{Delivery, DeliveryHeaders, DeliveryRefusal, RefChange};
use crate::domain::link::{Link, LinkName};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{SecretScheme, WebhookEvent, WebhookRecord, WebhookState};
use crate::provider::Provider;
use crate::seal;
use crate::service::error::Error;
use crate::service::{Core, store_down};
use crate::store::StoreError;

/// How far the time that a signature covers may lie from now, in either direction.
const WINDOW: Duration = Duration::from_secs(300);
/// A larger body is checked on a thread of its own: hashing and reading 26 MiB takes tenths of a second.
const LARGE_BODY: usize = 256 * 1024;
/// Connections that are read in one go while the instances of a tenant are found.
const CONNECTIONS: usize = 500;
/// All schemes there are, the strongest first.
const SCHEMES: [SecretScheme; 4] =
    [SecretScheme::SigningToken, SecretScheme::HmacSha256, SecretScheme::Token, SecretScheme::BasicAuth];

/// Whose delivery it may be.
#[derive(Debug, Clone)]
pub enum Receiver {
    /// The webhook of this link.
    Link(LinkName),
    /// The webhook of any link of the tenant to the repository that the body names.
    Tenant(TenantId),
}

/// What came in.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its headers.
    pub headers: DeliveryHeaders,
    /// Its body, exactly as it came.
    pub body: Vec<u8>,
}

/// A delivery that is genuine.
#[derive(Debug)]
pub struct Genuine {
    /// The link whose webhook it is of.
    pub link: LinkName,
    /// What it says.
    pub delivery: Delivery,
    /// Equal for deliveries that tell the same.
    pub dedupe_key: String,
}

impl Webhooks {
    /// Checks a delivery. One that is not genuine is an answer, not an error.
    ///
    /// # Errors
    ///
    /// [`Error::LinkNotFound`], [`Error::Unreadable`], [`Error::StoreUnavailable`].
    pub async fn verify(
        &self,
        receiver: &Receiver,
        incoming: Incoming,
    ) -> Result<Result<Genuine, DeliveryRefusal>, Error> {
        let incoming = Arc::new(incoming);
        match receiver {
            Receiver::Link(name) => {
                let link = self.0.live_link(name).await?.link.clone();
                match link.webhook_key() {
                    Some(_) => self.verify_for(link, &incoming).await,
                    None => Ok(Err(DeliveryRefusal::NoWebhook)),
                }
            }
            Receiver::Tenant(tenant) => self.verify_for_any(tenant, &incoming).await,
        }
    }

    async fn verify_for_any(
        &self,
        tenant: &TenantId,
        incoming: &Arc<Incoming>,
    ) -> Result<Result<Genuine, DeliveryRefusal>, Error> {
        let named =
            beside(&self.0, incoming, |core, incoming| Ok(named_repositories(core, incoming))).await?;
        let mut refusal = match named.as_slice() {
            [] => DeliveryRefusal::Unsigned,
            _ => DeliveryRefusal::NoWebhook,
        };
        for (provider, repository_id) in &named {
            for name in self.links_to(tenant, provider, repository_id).await? {
                let link = match self.0.live_link(&name).await {
                    Ok(record) => record.link.clone(),
                    Err(Error::LinkNotFound(_)) => continue,
                    Err(error) => return Err(error),
                };
                if link.webhook_key().is_none() {
                    continue;
                }
                match self.verify_for(link, incoming).await? {
                    Ok(genuine) => return Ok(Ok(genuine)),
                    Err(found) => refusal = found,
                }
            }
        }
        Ok(Err(refusal))
    }

    /// The tenant's links to the repository of that id, at whichever of its instances.
    async fn links_to(
        &self,
        tenant: &TenantId,
        provider: &str,
        repository_id: &str,
    ) -> Result<Vec<LinkName>, Error> {
        let store = &self.0.store;
        let mut instances = std::collections::BTreeMap::new();
        let mut after = None;
        loop {
            let rows = store.connections(tenant, after.as_ref(), CONNECTIONS).await.map_err(store_down)?;
            let last = rows.last().and_then(|row| match row {
                Ok(record) => Some(record.connection.name.id.clone()),
                Err(unreadable) => unreadable.connection.clone(),
            });
            let full = rows.len() == CONNECTIONS;
            for record in rows.iter().flatten().filter(|row| row.connection.provider.as_str() == provider) {
                let connection = &record.connection;
                instances.insert(connection.effective_api_url.clone(), connection.provider.clone());
            }
            match last {
                Some(last) if full => after = Some(last),
                _ => break,
            }
        }
        let mut links = Vec::new();
        for (instance, provider) in instances {
            let found = store.link_of(tenant, &provider, &instance, repository_id).await;
            links.extend(found.map_err(store_down)?.map(|id| LinkName { tenant: tenant.clone(), id }));
        }
        Ok(links)
    }

    async fn verify_for(
        &self,
        link: Link,
        incoming: &Arc<Incoming>,
    ) -> Result<Result<Genuine, DeliveryRefusal>, Error> {
        let record = self.kept_record(&link).await?;
        let now = self.0.clock.now();
        let checked = (link.clone(), record.clone());
        let outcome = beside(&self.0, incoming, move |core, incoming| {
            let (link, record) = &checked;
            check(core, link, record, incoming, now)
        })
        .await?;
        let current = outcome.as_ref().is_ok_and(|(_, _, proven)| *proven == Proven::Current);
        if current && record.state == WebhookState::ManualRequired {
            // A delivery is genuine whether or not that can be written down now.
            if let Err(error) = self.is_there(&record).await {
                tracing::warn!(%error, "that a webhook delivers could not be written down");
            }
        }
        Ok(outcome.map(|(delivery, dedupe_key, _)| Genuine { link: link.name, delivery, dedupe_key }))
    }

    /// A webhook that a person had to make has delivered: it is there.
    async fn is_there(&self, record: &WebhookRecord) -> Result<(), Error> {
        let mut next = share::next(record);
        next.state = WebhookState::Active;
        next.conditions.clear();
        let changes = self.0.webhook_changes(record, next);
        match self.0.store.commit(changes).await {
            // Somebody else wrote it: the next delivery tells again.
            Ok(()) | Err(StoreError::Stale | StoreError::NotFound) => Ok(()),
            Err(error) => Err(about_webhook(error)),
        }
    }
}

/// Runs a check where it holds up nobody: a large body on a thread of its own.
async fn beside<T: Send + 'static>(
    core: &Arc<Core>,
    incoming: &Arc<Incoming>,
    check: impl FnOnce(&Core, &Incoming) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if incoming.body.len() <= LARGE_BODY {
        return check(core, incoming);
    }
    let (core, incoming) = (Arc::clone(core), Arc::clone(incoming));
    let done = tokio::task::spawn_blocking(move || check(&core, &incoming)).await;
    done.unwrap_or_else(|_| {
        Err(Error::Bug { problem: "the check of a delivery ended in a defect".to_owned() })
    })
}

/// The repositories that a delivery can be about, by provider: of each provider whose proof it bears.
fn named_repositories(core: &Core, incoming: &Incoming) -> Vec<(&'static str, String)> {
    let bears_proof = |provider: &dyn Provider| {
        SCHEMES.iter().any(|&scheme| {
            !matches!(
                provider.proof(scheme, &incoming.headers, &incoming.body),
                Err(DeliveryRefusal::Unsigned)
            )
        })
    };
    let providers = core.gateway.providers().iter().filter(|provider| bears_proof(*provider));
    providers
        .filter_map(|provider| {
            let delivery = provider.delivery(&incoming.headers, &incoming.body).ok()?;
            Some((provider.about().id, delivery.repository_id)).filter(|(_, id)| !id.is_empty())
        })
        .collect()
}

type Checked = Result<(Delivery, String, Proven), DeliveryRefusal>;

/// Which secret a delivery was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proven {
    /// The one in use.
    Current,
    /// One that takes its place, or that it took the place of.
    Other,
}

/// Whether a delivery is of this webhook, and what it says. The outer error is this service's own.
fn check(
    core: &Core,
    link: &Link,
    record: &WebhookRecord,
    incoming: &Incoming,
    now: Timestamp,
) -> Result<Checked, Error> {
    let provider = core.provider(link.provider.as_str())?;
    let proven = match proven(core, provider, record, incoming, now)? {
        Ok(proven) => proven,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let delivery = match provider.delivery(&incoming.headers, &incoming.body) {
        Ok(delivery) => delivery,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if !delivery.repository_id.is_empty() && delivery.repository_id != link.repository.provider_id {
        return Ok(Err(DeliveryRefusal::OtherRepository));
    }
    let dedupe_key = dedupe_key(link, &delivery, &incoming.body);
    Ok(Ok((delivery, dedupe_key, proven)))
}

fn proven(
    core: &Core,
    provider: &dyn Provider,
    record: &WebhookRecord,
    incoming: &Incoming,
    now: Timestamp,
) -> Result<Result<Proven, DeliveryRefusal>, Error> {
    let former = record.former.iter().filter(|former| now < former.until);
    let secrets = [
        Some((&record.sealed, record.scheme, Proven::Current)),
        // It may have been told to the provider already.
        record.next.as_ref().map(|next| (&next.sealed, None, Proven::Other)),
    ];
    let former = former.map(|former| (&former.sealed, Some(former.scheme), Proven::Other));
    let mut refusal = DeliveryRefusal::Unsigned;
    for (sealed, scheme, which) in secrets.into_iter().flatten().chain(former) {
        let secret = core.webhook_secret(record, sealed)?;
        // Until the provider made it, nobody knows which scheme it took.
        let schemes = scheme.as_ref().map_or(SCHEMES.as_slice(), std::slice::from_ref);
        for &scheme in schemes {
            match provider.proof(scheme, &incoming.headers, &incoming.body) {
                Ok(proof) if seal::proves(&proof.presented, &secret, &incoming.body) => {
                    let away = |sent: Timestamp| now.since(sent).max(sent.since(now));
                    return Ok(if proof.sent_time.is_none_or(|sent| away(sent) <= WINDOW) {
                        Ok(which)
                    } else {
                        Err(DeliveryRefusal::OutsideWindow)
                    });
                }
                Ok(_) => refusal = DeliveryRefusal::ProofMismatch,
                Err(DeliveryRefusal::Unsigned) => {}
                Err(found) if refusal == DeliveryRefusal::Unsigned => refusal = found,
                Err(_) => {}
            }
        }
    }
    Ok(Err(refusal))
}

/// What deliveries that tell the same have in common, and no others: which repository, what, and how it is now.
fn dedupe_key(link: &Link, delivery: &Delivery, body: &[u8]) -> String {
    let mut parts = vec![
        link.provider.as_str().to_owned(),
        link.instance.clone(),
        link.repository.provider_id.clone(),
        delivery.event.as_str().to_owned(),
    ];
    match (delivery.event, &delivery.pull_request) {
        (WebhookEvent::Push | WebhookEvent::Tag, _) => {
            // What was before counts where a ref moved, so that a push which is made once more is another event. Of a ref
            // that came or went, only one of two events about it tells it.
            let told = |change: &RefChange| {
                let before = if change.after.is_empty() { "" } else { change.before.as_str() };
                format!("{} {before} {}", change.git_ref, change.after)
            };
            let mut changes: Vec<_> = delivery.changes.iter().map(told).collect();
            changes.sort();
            // Of a ref that is made without a commit being told, only this says that it is not gone.
            parts.push(delivery.action.clone());
            parts.extend(changes);
        }
        (WebhookEvent::PullRequest, Some(request)) => {
            let state = format!("{:?}", request.state);
            parts.extend([
                request.number.to_string(),
                delivery.action.clone(),
                state,
                request.head_commit_id.clone(),
                delivery.moment.clone(),
            ]);
        }
        _ => parts.extend([delivery.action.clone(), String::from_utf8_lossy(body).into_owned()]),
    }
    seal::digest(parts.iter().map(String::as_str))
}
