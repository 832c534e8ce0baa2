//! The body of an answer: decoded, and bounded in time and bytes.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::TransportError;

/// How long the next bytes may take.
const IDLE: Duration = Duration::from_secs(10);

/// Most bytes that are set aside for an answer because its head promises them: a promise costs nothing.
const BELIEVED: u64 = 1024 * 1024;

/// The bytes of an answer, as the leaf reads them.
type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

/// The decoded body of an answer, bounded in time: 10 seconds between bytes, 30 seconds in total unless the
/// request says otherwise, and never past the deadline of the call.
///
/// Dropping it closes the connection if there is more to come.
pub struct Body {
    chunks: Chunks,
    declared: Option<u64>,
    until: Instant,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Body {
    /// A body that `chunks` bring by `until`; `declared` is the length that the head promised.
    pub(super) fn new(
        chunks: impl Stream<Item = Result<Bytes, TransportError>> + Send + 'static,
        declared: Option<u64>,
        until: Instant,
    ) -> Self {
        Self { chunks: Box::pin(chunks), declared, until, permits: Vec::new() }
    }

    /// A body of no bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(stream::empty(), Some(0), Instant::now())
    }

    /// Keeps `permit` until the body was read or dropped.
    pub(super) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.permits.push(permit);
    }

    /// The next bytes; `None` at the end.
    ///
    /// Cancel-safe: bytes that were not returned are returned by the next call.
    ///
    /// # Errors
    ///
    /// `Timeout` if they do not come in time, `Unreachable` with phase `Read` if the connection breaks, `Garbled`
    /// if they cannot be decoded.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, TransportError> {
        let by = self.until.min(Instant::now() + IDLE);
        let next = timeout_at(by, self.chunks.next()).await.map_err(|_| TransportError::Timeout)?;
        if next.is_none() {
            self.permits.clear();
        }
        next.transpose()
    }

    /// Reads the whole body.
    ///
    /// # Errors
    ///
    /// `Garbled` over `limit` bytes (before any is read if the head says so), and those of [`Self::chunk`].
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, TransportError> {
        const TOO_LARGE: TransportError = TransportError::garbled("the answer is too large");
        if self.declared.is_some_and(|declared| usize::try_from(declared).map_or(true, |all| all > limit)) {
            return Err(TOO_LARGE);
        }
        let promised = usize::try_from(self.declared.unwrap_or(0).min(BELIEVED)).unwrap_or(0);
        let mut whole = BytesMut::new();
        let mut first = None;
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + first.as_ref().map_or(0, Bytes::len) + chunk.len() > limit {
                return Err(TOO_LARGE);
            }
            // Most answers are one chunk, which need not be copied.
            match first.take() {
                None if whole.is_empty() => first = Some(chunk),
                None => whole.extend_from_slice(&chunk),
                Some(start) => {
                    whole.reserve(promised.max(start.len() + chunk.len()));
                    whole.extend_from_slice(&start);
                    whole.extend_from_slice(&chunk);
                }
            }
        }
        Ok(first.unwrap_or_else(|| whole.freeze()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("declared", &self.declared).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(count: usize, every: Duration) -> impl Stream<Item = Result<Bytes, TransportError>> + Send {
        stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(every).await;
            Ok(Bytes::from_static(b"x"))
        })
    }

    fn body(count: usize, every: Duration) -> Body {
        Body::new(chunks(count, every), None, Instant::now() + Duration::from_secs(30))
    }

    #[tokio::test(start_paused = true)]
    async fn h12_a_trickle_ends_with_the_total_and_a_pause_with_the_idle_limit() {
        let start = Instant::now();
        let trickle = body(1_000, Duration::from_secs(1)).collect(1_000).await;
        assert_eq!((trickle, start.elapsed().as_secs()), (Err(TransportError::Timeout), 30));
        let start = Instant::now();
        let silent = body(1, Duration::from_secs(60)).collect(1_000).await;
        assert_eq!((silent, start.elapsed().as_secs()), (Err(TransportError::Timeout), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn h10_a_declared_length_over_the_limit_is_refused_before_reading() {
        let endless = Body::new(stream::pending(), Some(10 << 40), Instant::now() + Duration::from_secs(30));
        let start = Instant::now();
        assert!(matches!(endless.collect(1_000).await, Err(TransportError::Garbled { .. })));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_up_to_the_limit() {
        assert_eq!(body(5, Duration::ZERO).collect(5).await, Ok(Bytes::from_static(b"xxxxx")));
        assert!(matches!(body(6, Duration::ZERO).collect(5).await, Err(TransportError::Garbled { .. })));
        assert_eq!(Body::empty().collect(0).await, Ok(Bytes::new()));
    }
}
