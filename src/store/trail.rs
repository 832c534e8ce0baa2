//! The audit trail of a tenant: reading it, checking its chain, and letting go of what is too old.

use std::ops::{ControlFlow, RangeInclusive};

use super::chain::Chain;
use super::layout::{self, Rows};
use super::plan::Writes;
use super::record::{self, TrailRow, TrailsRow};
use super::{ListedEvent, RecordProblem, StoreError};
use crate::domain::connection::{ConnectionId, TenantId};
use crate::domain::event::Entry;
use crate::domain::timestamp::Timestamp;

/// An event that does not decode, or is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {sequence}: {problem}")]
pub struct UnreadableEvent {
    /// Its place.
    pub sequence: u64,
    /// What is wrong with it.
    pub problem: RecordProblem,
}

/// What [`super::Store::check_trails`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailsReport {
    /// Each tenant, in the order of their ids.
    pub tenants: Vec<TrailReport>,
    /// What is wrong with all of them together, in words for an operator.
    pub problem: Option<String>,
}

/// What was found of one tenant's audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailReport {
    /// Whose it is.
    pub tenant: TenantId,
    /// How many events were looked at, up to the first one that is wrong.
    pub events: u64,
    /// The sequence number of the oldest event that should be there: older ones were let go.
    pub first: u64,
    /// How many of the events are older than the chain, so that nothing proves them.
    pub unchained: u64,
    /// The first thing that is wrong.
    pub problem: Option<TrailProblem>,
}

/// Which event is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {sequence} {fault}")]
pub struct TrailProblem {
    /// Its sequence number.
    pub sequence: u64,
    /// What is wrong with it.
    pub fault: TrailFault,
}

/// What is wrong with an event of a trail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrailFault {
    /// Its row is gone.
    #[error("is missing")]
    Missing,
    /// Its row does not decode.
    #[error("cannot be read: {0}")]
    Unreadable(RecordProblem),
    /// Its hash does not fit.
    #[error("is not what was written there: it was edited, moved or put in")]
    Altered,
    /// Its row stands where none was written.
    #[error("stands outside the trail")]
    Surplus,
    /// The index does not show it.
    #[error("does not show in the trail of connection {0}")]
    NotIndexed(ConnectionId),
    /// It was appended after somebody had been there.
    #[error("was written onto a trail that had been tampered with")]
    Resumed,
    /// The record of where the trail begins and ends is not ours, or not the one of this event.
    #[error(
        "should be the newest, and the head of the trail does not prove it: its end or its start was cut off, or the head was edited"
    )]
    Head,
}

/// The head of a tenant's trail, or what it is where no event was appended since there are chains. `last` is the
/// sequence number of the newest event by the tenant's own row.
pub(super) fn head(rows: &impl Rows, tenant: &TenantId, last: u64) -> Result<Head, StoreError> {
    let key = layout::trail_key(tenant);
    let Some(bytes) = rows.get(&key)? else {
        let row = TrailRow { first: 1, chained: last.saturating_add(1), last, ..TrailRow::default() };
        return Ok(Head { row, is_new: true });
    };
    let row = record::unwrap(&key, bytes.as_ref()).map_err(layout::unreadable(&key))?;
    Ok(Head { row, is_new: false })
}

/// See [`head`].
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) row: TrailRow,
    /// Whether it has no row yet.
    pub(super) is_new: bool,
}

impl Head {
    /// Gets it ready to be written again. One that is not ours, or does not fit to the tenant's own row, is noted:
    /// a new proof must not hide that.
    pub(super) fn take_over(&mut self, chain: &Chain, tenant: &TenantId, last: u64) {
        let row = &mut self.row;
        if self.is_new || (row.mac == chain.head(tenant, row) && row.last == last) {
            return;
        }
        // No number is given out twice.
        row.last = row.last.max(last);
        if row.broken == 0 {
            row.broken = row.last.saturating_add(1);
            tracing::error!(%tenant, event = row.broken, "the audit trail was tampered with before this event");
        }
    }

    /// Its key and row, proven anew.
    pub(super) fn write(mut self, chain: &Chain, tenant: &TenantId) -> (Vec<u8>, Vec<u8>) {
        self.row.mac = chain.head(tenant, &self.row);
        let key = layout::trail_key(tenant);
        let bytes = record::wrap(&key, &self.row);
        (key, bytes)
    }
}

/// The row that counts the heads, with `more` of them.
pub(super) fn count_heads(
    rows: &impl Rows,
    chain: &Chain,
    more: u64,
) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
    let key = layout::TRAILS.to_vec();
    let found = rows.get(&key)?;
    let mut row = match &found {
        Some(bytes) => record::unwrap(&key, bytes.as_ref()).map_err(layout::unreadable(&key))?,
        None => TrailsRow::default(),
    };
    if found.is_some() && row.mac != chain.heads(&row) && !row.broken {
        row.broken = true;
        tracing::error!("the number of audit trails was tampered with");
    }
    row.trails = row.trails.saturating_add(more);
    row.mac = chain.heads(&row);
    let bytes = record::wrap(&key, &row);
    Ok((key, bytes))
}

/// See [`super::Store::event_range`].
pub(super) fn range(rows: &impl Rows, tenant: &TenantId) -> Result<RangeInclusive<u64>, StoreError> {
    let last = layout::tenant_row(rows, tenant)?.unwrap_or_default().last_event;
    Ok(head(rows, tenant, last)?.row.first..=last)
}

/// See [`super::Store::events`].
pub(super) fn events(
    rows: &impl Rows,
    tenant: &TenantId,
    connection: Option<&ConnectionId>,
    after: u64,
    limit: usize,
) -> Result<Vec<ListedEvent>, StoreError> {
    // Read before the walk, which then sees at least the events that this speaks of.
    let last = layout::tenant_row(rows, tenant)?.unwrap_or_default().last_event;
    let head = head(rows, tenant, last)?.row;
    let from = after.saturating_add(1).max(head.first);
    match connection {
        None => in_order(rows, tenant, from, head.last, limit),
        Some(connection) => {
            // Events that are older than the chain are older than the index, too.
            let mut listed =
                in_order(rows, tenant, from, head.last.min(head.chained.saturating_sub(1)), limit)?;
            let from = from.max(head.chained);
            by_index(rows, tenant, connection, from, limit - listed.len(), &mut listed)?;
            Ok(listed)
        }
    }
}

/// The events from `from` to `last`; each one that is not there is one that cannot be read.
fn in_order(
    rows: &impl Rows,
    tenant: &TenantId,
    from: u64,
    last: u64,
    limit: usize,
) -> Result<Vec<ListedEvent>, StoreError> {
    let mut listed = Vec::new();
    if from > last || limit == 0 {
        return Ok(listed);
    }
    let mut expected = from;
    let (start, end) = (layout::event_key(tenant, from), layout::event_key(tenant, last.saturating_add(1)));
    rows.walk(&start, &end, &mut |key, bytes| {
        let Some(found) = layout::sequence_of(key) else { return ControlFlow::Continue(()) };
        while expected < found && listed.len() < limit {
            listed.push(Err(missing(expected)));
            expected += 1;
        }
        if listed.len() < limit {
            listed.push(entry(key, tenant, found, bytes));
            expected = found.saturating_add(1);
        }
        if listed.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    while expected <= last && listed.len() < limit {
        listed.push(Err(missing(expected)));
        expected += 1;
    }
    Ok(listed)
}

fn by_index(
    rows: &impl Rows,
    tenant: &TenantId,
    connection: &ConnectionId,
    from: u64,
    limit: usize,
    listed: &mut Vec<ListedEvent>,
) -> Result<(), StoreError> {
    if limit == 0 {
        return Ok(());
    }
    let (start, end) = layout::trail_index_range(tenant, connection, from);
    let mut found = Vec::new();
    rows.walk(&start, &end, &mut |key, _| {
        found.extend(layout::sequence_of(key));
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    for sequence in found {
        let key = layout::event_key(tenant, sequence);
        listed.push(match rows.get(&key)? {
            Some(bytes) => entry(&key, tenant, sequence, bytes.as_ref()),
            None => Err(missing(sequence)),
        });
    }
    Ok(())
}

fn entry(key: &[u8], tenant: &TenantId, sequence: u64, bytes: &[u8]) -> ListedEvent {
    match record::decode_event(key, tenant, bytes) {
        Ok(stored) => Ok(Entry { sequence, event: stored.event, hash: stored.hash }),
        Err(problem) => Err(UnreadableEvent { sequence, problem }),
    }
}

const fn missing(sequence: u64) -> UnreadableEvent {
    UnreadableEvent { sequence, problem: RecordProblem::Missing }
}

/// What a store says that was not given a chain yet.
pub(super) fn no_chain() -> StoreError {
    StoreError::Unavailable { problem: "the key of the audit trail is not known yet".to_owned() }
}

/// What goes when events before `before` go.
pub(super) struct Forgotten {
    pub(super) writes: Writes,
    /// How many events.
    pub(super) events: usize,
}

/// Whether the oldest event of a tenant is old enough to go, as far as can be told.
pub(super) fn has_old(rows: &impl Rows, tenant: &TenantId, before: Timestamp) -> Result<bool, StoreError> {
    Ok(match events(rows, tenant, None, 0, 1)?.first() {
        None => false,
        Some(Ok(entry)) => entry.event.time < before,
        Some(Err(_)) => true,
    })
}

/// The oldest events of a tenant up to the first one that is not older than `before`, at most `limit` of them. One
/// that cannot be read goes with an old one behind it. The head keeps the hash that the next event builds on.
pub(super) fn forget(
    rows: &impl Rows,
    chain: &Chain,
    tenant: &TenantId,
    before: Timestamp,
    limit: usize,
) -> Result<Forgotten, StoreError> {
    let mut forgotten = Forgotten { writes: Writes::new(), events: 0 };
    let last = layout::tenant_row(rows, tenant)?.unwrap_or_default().last_event;
    let mut head = head(rows, tenant, last)?;
    head.take_over(chain, tenant, last);
    let mut unreadable = Vec::new();
    let start = layout::event_key(tenant, head.row.first);
    let mut seen = 0;
    rows.walk(&start, &layout::events_end(tenant), &mut |key, bytes| {
        seen += 1;
        match (layout::sequence_of(key), record::decode_event(key, tenant, bytes)) {
            (Some(sequence), Ok(stored)) => {
                if stored.event.time >= before {
                    return ControlFlow::Break(());
                }
                for connection in &stored.event.connections {
                    forgotten.writes.insert(layout::trail_index_key(tenant, connection, sequence), None);
                }
                unreadable.push(key.to_vec());
                forgotten.events += unreadable.len();
                forgotten.writes.extend(unreadable.drain(..).map(|key| (key, None)));
                head.row.first = sequence.saturating_add(1);
                head.row.before = stored.hash;
            }
            _ => unreadable.push(key.to_vec()),
        }
        if seen < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if forgotten.events == 0 {
        return Ok(forgotten);
    }
    if head.row.broken < head.row.first {
        head.row.broken = 0;
    }
    if head.is_new {
        let (key, bytes) = count_heads(rows, chain, 1)?;
        forgotten.writes.insert(key, Some(bytes));
    }
    let (key, bytes) = head.write(chain, tenant);
    forgotten.writes.insert(key, Some(bytes));
    Ok(forgotten)
}

/// See [`super::Store::check_trails`].
pub(super) fn check(rows: &impl Rows, chain: &Chain) -> Result<TrailsReport, StoreError> {
    let (mut tenants, heads) =
        (layout::tenants_of(rows, layout::TENANT)?, layout::tenants_of(rows, layout::TRAIL)?);
    let stored = layout::store_row(rows)?.unwrap_or_default().tenants;
    let counted = match rows.get(layout::TRAILS)? {
        Some(bytes) => {
            let row: TrailsRow =
                record::unwrap(layout::TRAILS, bytes.as_ref()).map_err(layout::unreadable(layout::TRAILS))?;
            (row.mac == chain.heads(&row) && !row.broken).then_some(row.trails)
        }
        None => Some(0),
    };
    let problem = match counted {
        _ if tenants.len() as u64 != stored => {
            Some(format!("{} tenants are there and {stored} should be", tenants.len()))
        }
        None => Some("the number of audit trails was tampered with".to_owned()),
        Some(counted) if counted != heads.len() as u64 => {
            Some(format!("{} audit trails are there and {counted} should be", heads.len()))
        }
        Some(_) => None,
    };
    tenants.extend(heads);
    tenants.sort();
    tenants.dedup();
    let tenants =
        tenants.into_iter().map(|tenant| check_one(rows, chain, tenant)).collect::<Result<_, _>>()?;
    Ok(TrailsReport { tenants, problem })
}

fn check_one(rows: &impl Rows, chain: &Chain, tenant: TenantId) -> Result<TrailReport, StoreError> {
    let newest = layout::tenant_row(rows, &tenant)?.unwrap_or_default().last_event;
    let Head { row: head, is_new } = head(rows, &tenant, newest)?;
    let mut walk = Walk {
        rows,
        chain,
        tenant: &tenant,
        head: &head,
        expected: head.first,
        hash: head.before.clone(),
        events: 0,
        unchained: 0,
    };
    let mut problem = None;
    let (start, end) = (layout::event_key(&tenant, 0), layout::events_end(&tenant));
    rows.walk(&start, &end, &mut |key, bytes| match walk.step(key, bytes) {
        Ok(()) => ControlFlow::Continue(()),
        Err(found) => {
            problem = Some(found);
            ControlFlow::Break(())
        }
    })?;
    let Walk { expected, hash, events, unchained, .. } = walk;
    let fits = is_new || (head.mac == chain.head(&tenant, &head) && head.last == newest && head.hash == hash);
    let found = match problem {
        Some(found) => Some(found),
        None if expected <= head.last => Some((expected, TrailFault::Missing)),
        None if !fits || head.broken != 0 => Some((head.last, TrailFault::Head)),
        None => None,
    };
    let problem = found.map(|(sequence, fault)| TrailProblem { sequence, fault });
    Ok(TrailReport { tenant, first: head.first, events, unchained, problem })
}

/// Where the check of one trail is.
struct Walk<'a, R> {
    rows: &'a R,
    chain: &'a Chain,
    tenant: &'a TenantId,
    head: &'a TrailRow,
    /// The sequence number that comes next.
    expected: u64,
    /// The hash that the next event builds on.
    hash: Vec<u8>,
    events: u64,
    unchained: u64,
}

impl<R: Rows> Walk<'_, R> {
    fn step(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), Found> {
        let Self { head, expected, .. } = *self;
        let sequence = layout::sequence_of(key).ok_or((expected, TrailFault::Surplus))?;
        if sequence > expected && expected <= head.last {
            return Err((expected, TrailFault::Missing));
        }
        if sequence < head.first || sequence > head.last {
            return Err((sequence, TrailFault::Surplus));
        }
        let stored = record::decode_event(key, self.tenant, bytes)
            .map_err(|problem| (sequence, TrailFault::Unreadable(problem)))?;
        if sequence == head.broken {
            return Err((sequence, TrailFault::Resumed));
        }
        if sequence < head.chained {
            if !stored.hash.is_empty() {
                return Err((sequence, TrailFault::Altered));
            }
            self.unchained += 1;
        } else {
            self.hash = self.chain.link(&self.hash, self.tenant, sequence, &stored.bytes);
            if stored.hash != self.hash {
                return Err((sequence, TrailFault::Altered));
            }
            for connection in stored.event.connections {
                let key = layout::trail_index_key(self.tenant, &connection, sequence);
                // A row that cannot be read is as good as none.
                if !matches!(self.rows.get(&key), Ok(Some(_))) {
                    return Err((sequence, TrailFault::NotIndexed(connection)));
                }
            }
        }
        self.events += 1;
        self.expected = sequence.saturating_add(1);
        Ok(())
    }
}

/// The first event that is not as it should be, and what is wrong.
type Found = (u64, TrailFault);
