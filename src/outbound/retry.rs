//! Tries again what can be tried again: a connection that was never made always, the rest for calls without effect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use tokio::time::Instant;
use tower::retry::budget::{Budget, TpsBudget};
use tower::util::rng::{HasherRng, Rng};
use tracing::debug;

use super::trace::Attempts;
use super::{Body, Phase, TransportError, deadline_of};

/// Most attempts of one call, the first one included.
const MAX_ATTEMPTS: u32 = 3;
/// The pause before the second attempt, before jitter; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Whether a call of this method may be sent twice.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The retries that one host may cause: a fifth of its calls, and one a second.
///
/// A host that fails every call is not made to fail three times as many.
pub(super) fn budget() -> Arc<TpsBudget> {
    Arc::new(TpsBudget::new(Duration::from_secs(10), 1, 0.2))
}

/// Decides for one call; cloned for each.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    budget: Arc<TpsBudget>,
    attempts: u32,
}

impl Policy {
    pub(super) const fn new(budget: Arc<TpsBudget>) -> Self {
        Self { budget, attempts: 0 }
    }

    /// How long to wait before the next attempt; `None` to leave it.
    fn pause(
        &self,
        request: &Request<Bytes>,
        result: &Result<Response<Body>, TransportError>,
    ) -> Option<Duration> {
        let idempotent = is_idempotent(request.method());
        let asked_for = match result {
            Ok(response) if idempotent && is_passing(response.status()) => Duration::ZERO,
            Err(TransportError::Unreachable { phase: Phase::Dns | Phase::Connect | Phase::Tls }) => {
                Duration::ZERO
            }
            Err(TransportError::Unreachable { .. } | TransportError::Timeout) if idempotent => Duration::ZERO,
            // The limit below is closed until then, and would refuse what cannot wait that long.
            Err(TransportError::RateLimited { after }) if idempotent => *after,
            _ => return None,
        };
        if self.attempts >= MAX_ATTEMPTS {
            return None;
        }
        let pause = jittered(FIRST_PAUSE * 2_u32.pow(self.attempts - 1));
        let fits = Instant::now() + asked_for.max(pause) < deadline_of(request);
        fits.then_some(pause)
    }
}

/// A server error that may pass; 501 and 505 will not.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Half to one and a half times `pause`, so that calls that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + HasherRng::new().next_f64())
}

impl tower::retry::Policy<Request<Bytes>, Response<Body>, TransportError> for Policy {
    type Future = BoxFuture<'static, ()>;

    fn retry(
        &mut self,
        request: &mut Request<Bytes>,
        result: &mut Result<Response<Body>, TransportError>,
    ) -> Option<Self::Future> {
        self.attempts += 1;
        if let Some(attempts) = request.extensions().get::<Attempts>() {
            attempts.count();
        }
        let Some(pause) = self.pause(request, result) else {
            if result.is_ok() {
                self.budget.deposit();
            }
            return None;
        };
        if !self.budget.withdraw() {
            debug!("the retry budget of the host is spent");
            return None;
        }
        debug!(attempt = self.attempts, pause_ms = pause.as_millis(), "trying again");
        Some(Box::pin(tokio::time::sleep(pause)))
    }

    fn clone_request(&mut self, request: &Request<Bytes>) -> Option<Request<Bytes>> {
        Some(request.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use tower::{Layer, ServiceExt, service_fn};

    use super::super::Deadline;
    use super::*;

    /// How often a call was sent that always ends with `outcome`, and how long that took.
    async fn sent(method: Method, outcome: Result<u16, TransportError>, deadline: u64) -> (usize, Duration) {
        sent_within(method, outcome, deadline, budget()).await
    }

    async fn sent_within(
        method: Method,
        outcome: Result<u16, TransportError>,
        deadline: u64,
        budget: Arc<TpsBudget>,
    ) -> (usize, Duration) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let inner = service_fn(move |_: Request<Bytes>| {
            counter.fetch_add(1, Ordering::SeqCst);
            let outcome = outcome.clone().map(|status| {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                response
            });
            async move { outcome }
        });
        let start = Instant::now();
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        request.extensions_mut().insert(Deadline(start + Duration::from_secs(deadline)));
        let _ = tower::retry::RetryLayer::new(Policy::new(budget)).layer(inner).oneshot(request).await;
        (calls.load(Ordering::SeqCst), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_never_made_is_tried_again_for_any_method() {
        for phase in [Phase::Dns, Phase::Connect, Phase::Tls] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(sent(method, Err(TransportError::Unreachable { phase }), 60).await.0, 3);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn h15_what_may_have_had_an_effect_is_tried_again_only_for_get() {
        for outcome in [
            Ok(500),
            Ok(502),
            Ok(503),
            Err(TransportError::Timeout),
            Err(TransportError::Unreachable { phase: Phase::Read }),
            Err(TransportError::RateLimited { after: Duration::from_secs(2) }),
        ] {
            assert_eq!(sent(Method::GET, outcome.clone(), 60).await.0, 3, "{outcome:?}");
            assert_eq!(sent(Method::POST, outcome, 60).await.0, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_change_is_not_tried_again() {
        for outcome in [
            Ok(200),
            Ok(401),
            Ok(404),
            Ok(501),
            Err(TransportError::Denied { rule: String::new() }),
            Err(TransportError::TlsUntrusted { certificate: None }),
            Err(TransportError::Garbled { problem: "x" }),
        ] {
            assert_eq!(sent(Method::GET, outcome.clone(), 60).await.0, 1, "{outcome:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_begun_that_cannot_end_by_the_deadline() {
        assert_eq!(sent(Method::GET, Ok(503), 0).await, (1, Duration::ZERO));
        let long = TransportError::RateLimited { after: Duration::from_secs(90) };
        assert_eq!(sent(Method::GET, Err(long), 60).await, (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_always_fails_spends_its_budget() {
        let budget = budget();
        let mut total = 0;
        for _ in 0..100 {
            total += sent_within(Method::GET, Err(TransportError::Timeout), 60, Arc::clone(&budget)).await.0;
        }
        assert!(total < 300, "{total} attempts of 100 calls");
    }

    proptest! {
        #[test]
        fn jitter_stays_within_half_and_one_and_a_half(millis in 1_u64..100_000) {
            let pause = Duration::from_millis(millis);
            let drawn = jittered(pause);
            prop_assert!(drawn >= pause / 2 && drawn <= pause * 3 / 2);
        }
    }
}
