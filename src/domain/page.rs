//! One page of something, and where the rest is.

/// Where a driver goes on reading: its own words, meaningless to everybody else.
///
/// Made by a driver, handed back to the same driver. It may travel through a page token, which is
/// authenticated, so a driver may trust its shape but still parses it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cursor(pub String);

/// What one provider call brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, in the provider's order.
    pub items: Vec<T>,
    /// Where the following rows are, in order. None: this was the last page. One: the pages form a
    /// chain. Several: they may be fetched side by side.
    pub next: Vec<Cursor>,
    /// How many rows there are in all, if the provider told.
    pub total: Option<u64>,
    /// What could not be read although the call went well.
    pub warnings: Vec<Warning>,
    /// Whether the driver read rows of the page before once more, because rows had moved. Such a page may
    /// hold nothing new without being a sign that the provider repeats itself.
    pub overlaps: bool,
}

impl<T> Page<T> {
    /// A page of `items` with nothing after it.
    #[must_use]
    pub const fn last(items: Vec<T>) -> Self {
        Self { items, next: Vec::new(), total: None, warnings: Vec::new(), overlaps: false }
    }
}

/// Something a reader of a listing should know: rows that are missing, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// A stable word, such as `PROJECT_NOT_READABLE`.
    pub reason: &'static str,
    /// What happened and what to do, for people.
    pub message: String,
}
