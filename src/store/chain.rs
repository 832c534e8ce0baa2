//! The keyed hashes that tie the events of a tenant together.
//!
//! Each event carries a hash over the hash before it and over itself; a head for each tenant says where its trail
//! begins and ends; and one row counts the heads. Without the key none of them can be made, so that an event that
//! was edited, moved, put in or taken away shows, one at the end as well. What is not promised: rows that were
//! replaced by older ones of themselves, all that belong together at once, show only where their trail went on.

use std::fmt;
use std::sync::Arc;

use super::record::{TrailRow, TrailsRow};
use crate::domain::connection::TenantId;

/// What a hash is made of, so that none can stand for another.
const LINK: u8 = 1;
const HEAD: u8 = 2;
const HEADS: u8 = 3;

/// Makes the hashes of the audit trail, with a key that the store does not know.
#[derive(Clone)]
pub struct Chain(Arc<Keyed>);

/// A keyed hash of 32 bytes that nobody can make without the key.
type Keyed = dyn Fn(&[u8]) -> [u8; 32] + Send + Sync;

impl Chain {
    /// A chain of the hashes that `keyed` makes, which must be those of a message authentication code and the same
    /// for as long as the store lives.
    #[must_use]
    pub fn new(keyed: impl Fn(&[u8]) -> [u8; 32] + Send + Sync + 'static) -> Self {
        Self(Arc::new(keyed))
    }

    /// The hash of an event, given the one before it (empty: there is none) and its encoded form.
    pub(super) fn link(&self, before: &[u8], tenant: &TenantId, sequence: u64, event: &[u8]) -> Vec<u8> {
        self.hash(LINK, &[before, tenant.as_str().as_bytes(), &sequence.to_be_bytes(), event])
    }

    /// What proves the head of a tenant's trail.
    pub(super) fn head(&self, tenant: &TenantId, row: &TrailRow) -> Vec<u8> {
        let TrailRow { first, before, chained, last, hash, broken, mac: _ } = row;
        let numbers = [first, chained, last, broken].map(|number| number.to_be_bytes());
        self.hash(HEAD, &[tenant.as_str().as_bytes(), numbers.as_flattened(), before, hash])
    }

    /// What proves the number of heads.
    pub(super) fn heads(&self, row: &TrailsRow) -> Vec<u8> {
        let TrailsRow { trails, broken, mac: _ } = row;
        self.hash(HEADS, &[&trails.to_be_bytes(), &[u8::from(*broken)]])
    }

    /// Each part with its length, so that no two lists of parts read the same.
    fn hash(&self, label: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut content = Vec::with_capacity(1 + parts.iter().map(|part| part.len() + 8).sum::<usize>());
        content.push(label);
        for part in parts {
            content.extend_from_slice(&(part.len() as u64).to_be_bytes());
            content.extend_from_slice(part);
        }
        (self.0)(&content).to_vec()
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain(..)")
    }
}
