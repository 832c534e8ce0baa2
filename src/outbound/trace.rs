//! One span for each call: host, method, attempts, status. No query, no header, no body.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower::{Service, ServiceExt};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, debug_span};

use super::{Body, Deadline, Sending, TransportError, deadline_of};
use crate::domain::base_url::Origin;

/// Counts the attempts of one call; an extension of its request.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts(Arc<AtomicU32>);

impl Attempts {
    /// One more attempt; how many there are now.
    pub(super) fn count(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Puts each call in a span, and gives it a deadline if it has none.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    host: Arc<str>,
}

impl Layer {
    pub(super) fn new(origin: &Origin) -> Self {
        Self { host: origin.host().into() }
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace { inner, host: Arc::clone(&self.host) }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Trace<S> {
    inner: S,
    host: Arc<str>,
}

impl<S> Service<Request<Bytes>> for Trace<S>
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
        // One deadline for all that follows, so that each layer means the same moment.
        let deadline = Deadline(deadline_of(&request));
        let attempts = Attempts::default();
        request.extensions_mut().insert(deadline);
        request.extensions_mut().insert(attempts.clone());
        let span = debug_span!(
            "provider_call",
            host = &*self.host,
            method = request.method().as_str(),
            attempts = Empty,
            status = Empty
        );
        let inner = self.inner.clone();
        let call = async move {
            let result = inner.oneshot(request).await;
            let span = Span::current();
            span.record("attempts", attempts.0.load(Ordering::Relaxed));
            match &result {
                Ok(response) => {
                    span.record("status", response.status().as_u16());
                    debug!("the provider answered");
                }
                Err(error) => debug!(%error, "the provider call failed"),
            }
            result
        };
        Box::pin(call.instrument(span))
    }
}
