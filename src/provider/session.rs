//! Walking pages: the pages of any provider as one ordered stream, fetched side by side.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::ProviderError;
use crate::domain::page::{Cursor, Page};

/// Most cursors that one listing may have open at a time: 50,000 projects of one row each.
const MAX_OPEN_CURSORS: usize = 50_000;
/// Most pages of one listing: ten million rows at 100 a page.
const MAX_PAGES: usize = 100_000;

/// The pages of a listing, in the provider's order.
///
/// Up to `concurrency` calls are under way or waiting to be handed out, counted from the oldest page that
/// was not read yet, so memory is bounded by that many pages however slow the reader is; a reader that
/// stops polling stops the calls, and dropping the stream cancels them. The cursors of a page take the
/// page's place in the order, so a driver may split a listing as finely as it likes.
///
/// Ends with an error if a cursor comes back (a loop) or a page repeats the one before it to the last row (an
/// endpoint that ignores paging), unless the driver says that it overlaps. A row that an earlier one of the last two
/// pages had is dropped: pages that shift under a reader overlap.
pub struct Pages<'a, T> {
    fetch: Box<Fetch<'a, T>>,
    key: fn(&T) -> &str,
    concurrency: usize,
    slots: VecDeque<Slot<T>>,
    running: FuturesUnordered<Running<'a, T>>,
    next_ticket: u64,
    pages: usize,
    seen_cursors: HashSet<u64>,
    recent: VecDeque<RecentPage>,
}

type Fetch<'a, T> = dyn Fn(Option<Cursor>) -> BoxFuture<'a, Result<Page<T>, ProviderError>> + Send + 'a;

enum Slot<T> {
    Waiting(Option<Cursor>),
    Fetching(u64),
    Ready(Result<Page<T>, ProviderError>),
}

type Running<'a, T> = BoxFuture<'a, (u64, Result<Page<T>, ProviderError>)>;

struct RecentPage {
    rows: HashSet<u64>,
}

impl<T> std::fmt::Debug for Pages<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages")
            .field("pages", &self.pages)
            .field("open", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl<'a, T: Send + 'a> Pages<'a, T> {
    /// A listing that starts without a cursor. `fetch` reads one page, `key` names a row (its stable id).
    pub fn new<F, Fut>(concurrency: usize, key: fn(&T) -> &str, fetch: F) -> Self
    where
        F: Fn(Option<Cursor>) -> Fut + Send + 'a,
        Fut: Future<Output = Result<Page<T>, ProviderError>> + Send + 'a,
    {
        Self {
            fetch: Box::new(move |at| Box::pin(fetch(at))),
            key,
            concurrency: concurrency.max(1),
            slots: VecDeque::from([Slot::Waiting(None)]),
            running: FuturesUnordered::new(),
            next_ticket: 0,
            pages: 0,
            seen_cursors: HashSet::new(),
            recent: VecDeque::new(),
        }
    }

    /// Starts calls for the oldest waiting cursors, up to the bound.
    fn launch(&mut self) {
        for slot in self.slots.iter_mut().take(self.concurrency) {
            if let Slot::Waiting(cursor) = slot {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                let call = (self.fetch)(cursor.take());
                *slot = Slot::Fetching(ticket);
                self.running.push(Box::pin(async move { (ticket, call.await) }));
            }
        }
    }

    /// Files an answer: the page stays in its place, its cursors queue up right behind it.
    fn file(&mut self, ticket: u64, outcome: Result<Page<T>, ProviderError>) {
        let Some(place) =
            self.slots.iter().position(|slot| matches!(slot, Slot::Fetching(t) if *t == ticket))
        else {
            return;
        };
        let outcome = outcome.and_then(|mut page| {
            let next = std::mem::take(&mut page.next);
            self.admit(&next)?;
            for (offset, cursor) in next.into_iter().enumerate() {
                self.slots.insert(place + 1 + offset, Slot::Waiting(Some(cursor)));
            }
            Ok(page)
        });
        self.slots[place] = Slot::Ready(outcome);
    }

    fn admit(&mut self, next: &[Cursor]) -> Result<(), ProviderError> {
        if self.slots.len() + next.len() > MAX_OPEN_CURSORS || self.pages > MAX_PAGES {
            return Err(ProviderError::garbled("its listing has more pages than this service follows"));
        }
        for cursor in next {
            if !self.seen_cursors.insert(hash_of(cursor)) {
                return Err(ProviderError::garbled("its paging led back to a page that was read already"));
            }
        }
        Ok(())
    }

    /// Drops rows that the last two pages had, and notices a page that is wholly a repetition.
    fn accept(&mut self, page: &mut Page<T>) -> Result<(), ProviderError> {
        self.pages += 1;
        if page.items.is_empty() {
            return Ok(());
        }
        let key = self.key;
        let rows: HashSet<u64> = page.items.iter().map(|item| hash_of(key(item))).collect();
        if !page.overlaps && self.recent.iter().any(|recent| recent.rows == rows) {
            return Err(ProviderError::garbled("it answers the same page again and again"));
        }
        page.items.retain(|item| {
            let row = hash_of(key(item));
            !self.recent.iter().any(|recent| recent.rows.contains(&row))
        });
        self.recent.push_back(RecentPage { rows });
        if self.recent.len() > 2 {
            self.recent.pop_front();
        }
        Ok(())
    }
}

impl<'a, T: Send + Unpin + 'a> Stream for Pages<'a, T> {
    /// A page whose `next` is empty, for the order is the stream's; the first error is the last item.
    type Item = Result<Page<T>, ProviderError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match this.slots.front() {
                None => return Poll::Ready(None),
                Some(Slot::Ready(_)) => {
                    let Some(Slot::Ready(outcome)) = this.slots.pop_front() else { return Poll::Ready(None) };
                    // The place is free: the call that takes it runs while the reader is busy with this page.
                    this.launch();
                    let outcome = outcome.and_then(|mut page| this.accept(&mut page).map(|()| page));
                    if outcome.is_err() {
                        this.slots.clear();
                        this.running.clear();
                    }
                    return Poll::Ready(Some(outcome));
                }
                Some(_) => {
                    this.launch();
                    match Pin::new(&mut this.running).poll_next(cx) {
                        Poll::Ready(Some((ticket, outcome))) => this.file(ticket, outcome),
                        Poll::Ready(None) => return Poll::Ready(None),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }
}

fn hash_of<H: Hash + ?Sized>(value: &H) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::StreamExt;

    use super::*;

    fn page(rows: &[&str], next: &[&str]) -> Page<String> {
        Page {
            next: next.iter().map(|&at| Cursor(at.to_owned())).collect(),
            ..Page::last(rows.iter().map(|&row| row.to_owned()).collect())
        }
    }

    fn pages<'a, F>(concurrency: usize, fetch: F) -> Pages<'a, String>
    where
        F: Fn(Option<&str>) -> Result<Page<String>, ProviderError> + Clone + Send + Sync + 'a,
    {
        Pages::new(
            concurrency,
            |row: &String| row.as_str(),
            move |at| {
                let fetch = fetch.clone();
                async move {
                    // The later the page, the sooner the answer: order must not come from luck.
                    tokio::time::sleep(Duration::from_millis(if at.is_some() { 50 } else { 100 })).await;
                    fetch(at.as_ref().map(|cursor| cursor.0.as_str()))
                }
            },
        )
    }

    async fn rows(mut pages: Pages<'_, String>) -> Result<Vec<String>, ProviderError> {
        let mut rows = Vec::new();
        while let Some(page) = pages.next().await {
            rows.extend(page?.items);
        }
        Ok(rows)
    }

    #[tokio::test(start_paused = true)]
    async fn ac_61_pages_of_a_tree_come_in_order() {
        let tree = |at: Option<&str>| {
            Ok(match at {
                None => page(&["0"], &["a", "b"]),
                Some("a") => page(&["1"], &["aa", "ab"]),
                Some("aa") => page(&["2"], &[]),
                Some("ab") => page(&["3"], &[]),
                _ => page(&["4"], &[]),
            })
        };
        for concurrency in [1, 2, 16] {
            assert_eq!(
                rows(pages(concurrency, tree)).await,
                Ok(["0", "1", "2", "3", "4"].map(String::from).to_vec())
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_the_bound_is_fetched_ahead_of_the_reader() {
        let calls = AtomicUsize::new(0);
        let calls = &calls;
        let wide = move |at: Option<&str>| {
            calls.fetch_add(1, Ordering::SeqCst);
            let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
            Ok(at.map_or_else(
                || page(&["root"], &names.iter().map(String::as_str).collect::<Vec<_>>()),
                |at| page(&[at], &[]),
            ))
        };
        let mut stream = pages(4, wide);
        assert!(stream.next().await.is_some());
        assert!(stream.next().await.is_some());
        tokio::time::sleep(Duration::from_secs(60)).await;
        // The root, the page that was read, and the four that may lie ready.
        assert!(calls.load(Ordering::SeqCst) <= 6);
        drop(stream);
        assert!(calls.load(Ordering::SeqCst) <= 6);
    }

    #[tokio::test(start_paused = true)]
    async fn h24_h25_a_cursor_that_comes_back_ends_the_listing() {
        let cycle = |at: Option<&str>| {
            Ok(match at {
                None => page(&["0"], &["a"]),
                Some("a") => page(&["1"], &["b"]),
                _ => page(&["2"], &["a"]),
            })
        };
        assert!(matches!(rows(pages(1, cycle)).await, Err(ProviderError::Failed { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn h27_an_endpoint_that_repeats_its_page_ends_the_listing() {
        let stuck = |at: Option<&str>| Ok(page(&["x", "y"], &[&format!("{}+", at.unwrap_or(""))]));
        assert!(matches!(rows(pages(1, stuck)).await, Err(ProviderError::Failed { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn rows_of_overlapping_pages_come_once() {
        let shifted = |at: Option<&str>| {
            Ok(match at {
                None => page(&["1", "2"], &["a"]),
                Some("a") => page(&["2", "3", "4"], &["b"]),
                _ => page(&["3", "5"], &[]),
            })
        };
        assert_eq!(rows(pages(1, shifted)).await, Ok(["1", "2", "3", "4", "5"].map(String::from).to_vec()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_was_read_again_on_purpose_is_no_repetition() {
        let shrunk = |at: Option<&str>| {
            Ok(match at {
                None => page(&["1", "2"], &["a"]),
                Some("a") => Page { overlaps: true, ..page(&["1", "2"], &["b"]) },
                _ => page(&["3"], &[]),
            })
        };
        assert_eq!(rows(pages(1, shrunk)).await, Ok(["1", "2", "3"].map(String::from).to_vec()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_comes_at_its_place_and_ends_the_stream() {
        let broken = |at: Option<&str>| match at {
            None => Ok(page(&["0"], &["a", "b", "c"])),
            Some("b") => Err(ProviderError::Timeout),
            Some(at) => Ok(page(&[at], &[])),
        };
        let mut stream = pages(16, broken);
        let mut seen = Vec::new();
        while let Some(page) = stream.next().await {
            seen.push(page.map(|page| page.items.concat()));
        }
        assert_eq!(seen, [Ok("0".into()), Ok("a".into()), Err(ProviderError::Timeout)]);
    }
}
