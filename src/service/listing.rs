//! Listings of what is stored: one page out of all rows of a tenant, in any order, by any filter.

use std::collections::{BTreeMap, BinaryHeap};

use super::Core;
use super::error::Error;
use super::filter::{Filter, Filtered, OrderBy, Ordered, Place};
use super::page_token::{self, Binding};

/// Rows of one page where the caller names no number.
pub(super) const DEFAULT_PAGE_SIZE: usize = 50;
/// Most rows of one page; larger wishes are cut to it.
pub(super) const MAX_PAGE_SIZE: usize = 500;
/// Most bytes of one page, roughly: clients refuse messages above 4 MiB unless they are told otherwise.
pub(super) const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024;
/// Records read from the store at a time while a listing looks through a tenant.
pub(super) const SCAN_BATCH: usize = 256;

/// Which rows a listing shows.
#[derive(Debug)]
pub struct Query {
    /// Which of all rows.
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

/// A row that a listing can show.
pub(super) trait Listable: Filtered + Ordered {
    /// About how many bytes it has in a message.
    fn weight(&self) -> usize;
}

/// About how many bytes labels or annotations have in a message.
pub(super) fn map_weight(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// Picks the rows of one page out of all rows, which are shown to it one by one; keeps no more than the page.
pub(super) struct Picker<T> {
    query: Query,
    after: Option<Place>,
    size: usize,
    /// The first rows so far; the greatest of them on top, to be thrown out.
    rows: BinaryHeap<Row<T>>,
    bytes: usize,
    more: bool,
}

impl<T: Listable> Picker<T> {
    /// An empty page.
    ///
    /// # Errors
    ///
    /// [`Error::PageTokenInvalid`].
    pub(super) fn new(core: &Core, query: Query) -> Result<Self, Error> {
        let size = if query.page_size == 0 { DEFAULT_PAGE_SIZE } else { query.page_size.min(MAX_PAGE_SIZE) };
        let after = if query.page_token.is_empty() {
            None
        } else {
            let cursor = page_token::open(&core.secret, &query.binding, &query.page_token, core.clock.now())?;
            Some(Place::decode(&cursor).ok_or(Error::PageTokenInvalid)?)
        };
        Ok(Self { query, after, size, rows: BinaryHeap::new(), bytes: 0, more: false })
    }

    /// Keeps the row if it belongs to the page as far as is known.
    pub(super) fn offer(&mut self, row: T) {
        let order = self.query.order;
        let place = order.place(&row);
        let is_behind = self.after.as_ref().is_none_or(|after| order.compare(&place, after).is_gt());
        if !is_behind || !self.query.filter.matches(&row) {
            return;
        }
        self.bytes += row.weight();
        self.rows.push(Row { order, place, row });
        while self.rows.len() > self.size || (self.bytes > MAX_PAGE_BYTES && self.rows.len() > 1) {
            self.more = true;
            self.bytes -= self.rows.pop().map_or(0, |thrown_out| thrown_out.row.weight());
        }
    }

    /// The page, and the token that leads to the next one; empty after the last.
    pub(super) fn finish(self, core: &Core) -> (Vec<T>, String) {
        let rows = self.rows.into_sorted_vec();
        let next_page_token = match rows.last() {
            Some(last) if self.more => {
                page_token::issue(&core.secret, &self.query.binding, &last.place.encode(), core.clock.now())
            }
            _ => String::new(),
        };
        (rows.into_iter().map(|row| row.row).collect(), next_page_token)
    }
}

/// One row of a listing, ordered as the listing is.
struct Row<T> {
    order: OrderBy,
    place: Place,
    row: T,
}

impl<T> Ord for Row<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.compare(&self.place, &other.place)
    }
}

impl<T> PartialOrd for Row<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Row<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Row<T> {}
