//! The rows of links and webhooks, and of the work that is due for them.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{CLAIM, DUE, LINK, LINK_INDEX, Rows, key, moment, range_of, readable, unreadable};
use crate::domain::connection::{ConnectionName, ProviderId, TenantId};
use crate::domain::link::{Link, LinkId, LinkName, LinkRecord};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{WebhookKey, WebhookRecord};
use crate::store::record::{self, ConnectionLinksRow, DueRow, NameRow};
use crate::store::{Due, ListedLink, RecordProblem, StoreError, UnreadableRecord};

pub(in crate::store) fn link_key(name: &LinkName) -> Vec<u8> {
    key(LINK, &[name.tenant.as_str().as_bytes(), name.id.as_str().as_bytes()])
}

pub(in crate::store) fn retired_link_key(name: &LinkName) -> Vec<u8> {
    key(super::RETIRED_LINK, &[name.tenant.as_str().as_bytes(), name.id.as_str().as_bytes()])
}

/// Where the repository of a link is claimed for its tenant.
pub(in crate::store) fn claim_key(link: &Link) -> Vec<u8> {
    repository_key(&link.name.tenant, &link.provider, &link.instance, &link.repository.provider_id)
}

fn repository_key(tenant: &TenantId, provider: &ProviderId, instance: &str, id: &str) -> Vec<u8> {
    let tenant = tenant.as_str().as_bytes();
    key(CLAIM, &[tenant, provider.as_str().as_bytes(), instance.as_bytes(), id.as_bytes()])
}

/// Where a link stands among those of its connection.
pub(in crate::store) fn link_index_key(link: &Link) -> Vec<u8> {
    let (tenant, id) = (link.name.tenant.as_str(), link.name.id.as_str());
    key(LINK_INDEX, &[tenant.as_bytes(), link.connection.as_str().as_bytes(), id.as_bytes()])
}

pub(in crate::store) fn link_count_key(name: &ConnectionName) -> Vec<u8> {
    key(super::LINK_COUNT, &[name.tenant.as_str().as_bytes(), name.id.as_str().as_bytes()])
}

pub(in crate::store) fn webhook_key(which: &WebhookKey) -> Vec<u8> {
    let WebhookKey { provider, instance, repository_id, target_url } = which;
    let provider = provider.as_str().as_bytes();
    key(super::WEBHOOK, &[provider, instance.as_bytes(), repository_id.as_bytes(), target_url.as_bytes()])
}

/// Where work stands that is due at `time`; `owner` is the key of the record that it is for.
pub(in crate::store) fn due_key(time: Timestamp, owner: &[u8]) -> Vec<u8> {
    let mut bytes = moment(DUE, time);
    bytes.extend_from_slice(owner);
    bytes
}

/// See [`crate::store::Store::link`].
pub(in crate::store) fn link(rows: &impl Rows, name: &LinkName) -> Result<LinkRecord, StoreError> {
    let key = link_key(name);
    let bytes = rows.get(&key)?.ok_or(StoreError::NotFound)?;
    record::decode_link(&key, name.clone(), bytes.as_ref())
        .map_err(|problem| StoreError::Unreadable(unreadable_link(name, problem)))
}

fn unreadable_link(name: &LinkName, problem: RecordProblem) -> UnreadableRecord {
    UnreadableRecord { key: name.to_string(), connection: None, link: Some(name.id.clone()), problem }
}

/// See [`crate::store::Store::links`].
pub(in crate::store) fn links(
    rows: &impl Rows,
    tenant: &TenantId,
    after: Option<&LinkId>,
    limit: usize,
) -> Result<Vec<ListedLink>, StoreError> {
    let (first, to) = range_of(LINK, tenant);
    let prefix = first.len();
    let from = after.map_or(first, |id| next(link_key(&LinkName { tenant: tenant.clone(), id: id.clone() })));
    let mut listed = Vec::new();
    if limit == 0 {
        return Ok(listed);
    }
    rows.walk(&from, &to, &mut |key, bytes| {
        listed.push(match link_id(key, prefix) {
            Some(id) => {
                let name = LinkName { tenant: tenant.clone(), id };
                record::decode_link(key, name.clone(), bytes)
                    .map(Arc::new)
                    .map_err(|problem| unreadable_link(&name, problem))
            }
            None => Err(damaged(key)),
        });
        if listed.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(listed)
}

/// See [`crate::store::Store::links_of`].
pub(in crate::store) fn links_of(
    rows: &impl Rows,
    connection: &ConnectionName,
    after: Option<&LinkId>,
    limit: usize,
) -> Result<Vec<LinkId>, StoreError> {
    let mut first =
        key(LINK_INDEX, &[connection.tenant.as_str().as_bytes(), connection.id.as_str().as_bytes()]);
    let mut to = first.clone();
    first.push(0);
    to.push(1);
    let prefix = first.len();
    let from = after.map_or(first.clone(), |id| {
        first.extend_from_slice(id.as_str().as_bytes());
        next(first)
    });
    let (mut found, mut problem) = (Vec::new(), None);
    if limit == 0 {
        return Ok(found);
    }
    rows.walk(&from, &to, &mut |key, _| {
        match link_id(key, prefix) {
            Some(id) => found.push(id),
            None => problem = Some(StoreError::Unreadable(damaged(key))),
        }
        if found.len() < limit && problem.is_none() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    problem.map_or(Ok(found), Err)
}

/// See [`crate::store::Store::link_count`].
pub(in crate::store) fn link_count(rows: &impl Rows, connection: &ConnectionName) -> Result<u64, StoreError> {
    let key = link_count_key(connection);
    let Some(bytes) = rows.get(&key)? else { return Ok(0) };
    let row: ConnectionLinksRow = record::unwrap(&key, bytes.as_ref()).map_err(unreadable(&key))?;
    Ok(row.links)
}

/// See [`crate::store::Store::link_of`].
pub(in crate::store) fn link_of(
    rows: &impl Rows,
    tenant: &TenantId,
    provider: &ProviderId,
    instance: &str,
    repository_id: &str,
) -> Result<Option<LinkId>, StoreError> {
    claimed_by(rows, &repository_key(tenant, provider, instance, repository_id))
}

/// Which link has the repository that is claimed at `key`.
pub(in crate::store) fn claimed_by(rows: &impl Rows, key: &[u8]) -> Result<Option<LinkId>, StoreError> {
    let Some(bytes) = rows.get(key)? else { return Ok(None) };
    let row: NameRow = record::unwrap(key, bytes.as_ref()).map_err(unreadable(key))?;
    LinkId::parse(&row.owner).map(Some).map_err(|_| unreadable(key)(RecordProblem::Damaged))
}

/// See [`crate::store::Store::link_id_taken`].
pub(in crate::store) fn link_id_taken(rows: &impl Rows, name: &LinkName) -> Result<bool, StoreError> {
    Ok(rows.get(&link_key(name))?.is_some() || rows.get(&retired_link_key(name))?.is_some())
}

/// See [`crate::store::Store::webhook`].
pub(in crate::store) fn webhook(rows: &impl Rows, which: &WebhookKey) -> Result<WebhookRecord, StoreError> {
    let key = webhook_key(which);
    let bytes = rows.get(&key)?.ok_or(StoreError::NotFound)?;
    record::decode_webhook(&key, bytes.as_ref()).map_err(unreadable(&key))
}

/// See [`crate::store::Store::due`].
pub(in crate::store) fn due(
    rows: &impl Rows,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<(Timestamp, Due)>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    // One moment further, so that the work of `until` itself is in.
    let to = moment(DUE, Timestamp::from_unix_micros(until.unix_micros().saturating_add(1)));
    rows.walk(&[DUE], &to, &mut |key, bytes| {
        match record::unwrap::<DueRow>(key, bytes).ok().and_then(DueRow::into_due) {
            Some(due) => found.push(due),
            // The record behind it is whole or not by itself; its next change writes the row anew.
            None => tracing::error!(key = readable(key), "a row of the work that is due is damaged"),
        }
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

fn link_id(key: &[u8], prefix: usize) -> Option<LinkId> {
    LinkId::parse(std::str::from_utf8(key.get(prefix..)?).ok()?).ok()
}

fn damaged(key: &[u8]) -> UnreadableRecord {
    UnreadableRecord { key: readable(key), connection: None, link: None, problem: RecordProblem::Damaged }
}

/// The first key after `key`.
fn next(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}
