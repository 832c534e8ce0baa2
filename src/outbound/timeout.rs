//! Bounds one attempt, up to the head of its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::{Instant, timeout_at};
use tower::{Service, ServiceExt};

use super::retry::is_idempotent;
use super::{Body, Phase, Sending, TransportError, deadline_of};

/// How far an attempt came; an extension of its request, written by the leaf.
///
/// It only chooses the word in an error. An attempt that waits for a new connection may be given one that
/// another call gave back, and then still says `connect`.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

impl Progress {
    /// The attempt entered `phase`.
    pub(super) fn enter(&self, phase: Phase) {
        let step = match phase {
            Phase::Dns => 1,
            Phase::Connect => 2,
            Phase::Tls => 3,
            Phase::Read => 4,
        };
        self.0.store(step, Ordering::Relaxed);
    }

    /// The last phase entered; `Read` if none was, as on a connection that was there already.
    pub(super) fn phase(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            1 => Phase::Dns,
            2 => Phase::Connect,
            3 => Phase::Tls,
            _ => Phase::Read,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    attempt: Duration,
}

impl Layer {
    pub(super) const fn new(attempt: Duration) -> Self {
        Self { attempt }
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner, attempt: self.attempt }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Timeout<S> {
    inner: S,
    attempt: Duration,
}

impl<S> Service<Request<Bytes>> for Timeout<S>
where
    S: Service<Request<Bytes>, Response = Response<Body>, Error = TransportError>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = Sending;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Bytes>) -> Sending {
        let until = deadline_of(&request).min(Instant::now() + self.attempt);
        let progress = Progress::default();
        request.extensions_mut().insert(progress.clone());
        // Of a call that may have an effect, "not sent" is only said when it is certain.
        let may_guess = is_idempotent(request.method());
        let inner = self.inner.clone();
        Box::pin(async move {
            match timeout_at(until, inner.oneshot(request)).await {
                Ok(result) => result,
                Err(_) => match progress.phase() {
                    phase @ (Phase::Dns | Phase::Connect | Phase::Tls) if may_guess => {
                        Err(TransportError::unreachable(phase))
                    }
                    _ => Err(TransportError::Timeout),
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use tower::service_fn;

    use super::super::Deadline;
    use super::*;

    async fn silent(reached: Option<Phase>, method: Method, deadline: u64) -> (TransportError, u64) {
        let inner = service_fn(move |request: Request<Bytes>| async move {
            let progress = request.extensions().get::<Progress>().expect("progress");
            if let Some(phase) = reached {
                progress.enter(phase);
            }
            std::future::pending::<Result<Response<Body>, TransportError>>().await
        });
        let start = Instant::now();
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        request.extensions_mut().insert(Deadline(start + Duration::from_secs(deadline)));
        let result = Timeout { inner, attempt: Duration::from_secs(10) }.oneshot(request).await;
        (result.expect_err("a timeout"), start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn h13_the_head_must_come_within_the_attempt() {
        assert_eq!(silent(None, Method::GET, 60).await, (TransportError::Timeout, 10));
        assert_eq!(silent(Some(Phase::Read), Method::GET, 60).await, (TransportError::Timeout, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_the_call_holds() {
        assert_eq!(silent(None, Method::GET, 3).await, (TransportError::Timeout, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_request_was_sent_the_phase_is_named() {
        for phase in [Phase::Dns, Phase::Connect, Phase::Tls] {
            assert_eq!(
                silent(Some(phase), Method::GET, 60).await,
                (TransportError::Unreachable { phase }, 10)
            );
            assert_eq!(silent(Some(phase), Method::POST, 60).await, (TransportError::Timeout, 10));
        }
    }
}
