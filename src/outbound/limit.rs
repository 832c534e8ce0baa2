//! How many calls may be under way to one host and for one account, and when none may.
//!
//! A provider counts the calls of an account, so the pause that it asks for closes the account, not the host: one
//! account's spent quota is no other's wait. Background calls leave to callers half of the places and the last tenth of
//! the quota.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};
use tower::retry::budget::TpsBudget;
use tower::{Service, ServiceExt};
use tracing::debug;
use url::Url;

use super::{Background, Body, Sending, TransportError, WallClock, deadline_of, pushback, retry};
use crate::domain::base_url::Origin;
use crate::domain::connection::RateLimit;

/// Most calls under way to one host, for all connections together.
const HOST_CONCURRENCY: usize = 128;
/// The part of a quota that background calls leave to callers: one in so many.
const RESERVE: i64 = 10;
/// Most gates that are kept. One that is in use, or closed, is kept as long as that lasts.
const MAX_GATES: usize = 8_192;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Host(Origin),
    Account(Origin, String),
}

/// The gates of one process.
pub(super) struct Limits {
    gates: Mutex<HashMap<Key, Arc<Gate>>>,
    /// Whether any provider told of a quota so far: most never do, and this is asked with every connection that is read.
    told: Arc<AtomicBool>,
    wall_clock: WallClock,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

impl Limits {
    pub(super) fn new(wall_clock: WallClock) -> Self {
        Self { gates: Mutex::default(), told: Arc::default(), wall_clock }
    }

    /// The gates that a call of `account` to `origin` goes through. The first caller's `concurrency` holds
    /// as long as the gate is in use.
    pub(super) fn gates(&self, origin: &Origin, account: &str, concurrency: usize) -> Gates {
        Gates {
            account: self.gate(Key::Account(origin.clone(), account.to_owned()), concurrency.max(1)),
            host: self.gate(Key::Host(origin.clone()), HOST_CONCURRENCY),
            told: Arc::clone(&self.told),
            wall_clock: Arc::clone(&self.wall_clock),
        }
    }

    /// What the provider at the origin of `url` last said of the account's quota.
    pub(super) fn last_told(&self, url: &str, account: &str) -> Option<RateLimit> {
        if !self.told.load(Ordering::Relaxed) {
            return None;
        }
        let origin = Origin::of(&Url::parse(url).ok()?);
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.get(&Key::Account(origin, account.to_owned()))?.told()
    }

    fn gate(&self, key: Key, permits: usize) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(&key) {
            return Arc::clone(gate);
        }
        if gates.len() >= MAX_GATES {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1 || gate.closed_until().is_some());
        }
        let gate = Arc::new(Gate::new(permits));
        // With every gate in use, a new one is not shared: its calls are still bounded, only not together.
        if gates.len() < MAX_GATES {
            gates.insert(key, Arc::clone(&gate));
        }
        gate
    }
}

#[derive(Debug)]
struct Gate {
    permits: Arc<Semaphore>,
    /// What background calls take first: half of the permits, one at least.
    background: Arc<Semaphore>,
    closed_until: Mutex<Option<Instant>>,
    told: Mutex<Option<RateLimit>>,
    budget: Arc<TpsBudget>,
}

impl Gate {
    fn new(permits: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits)),
            background: Arc::new(Semaphore::new((permits / 2).max(1))),
            closed_until: Mutex::default(),
            told: Mutex::default(),
            budget: retry::budget(),
        }
    }

    /// Until when nothing may be sent, if that is not yet past.
    fn closed_until(&self) -> Option<Instant> {
        let mut until = self.closed_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = until.filter(|until| *until > Instant::now());
        *until
    }

    fn told(&self) -> Option<RateLimit> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, rate_limit: RateLimit) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(rate_limit);
    }

    fn close_until(&self, moment: Instant) {
        let mut until = self.closed_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = Some(until.map_or(moment, |until| until.max(moment)));
    }
}

/// What the calls of one account go through.
#[derive(Clone)]
pub(super) struct Gates {
    account: Arc<Gate>,
    host: Arc<Gate>,
    told: Arc<AtomicBool>,
    wall_clock: WallClock,
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gates").finish_non_exhaustive()
    }
}

impl Gates {
    /// The retry budget of the host.
    pub(super) fn budget(&self) -> Arc<TpsBudget> {
        Arc::clone(&self.host.budget)
    }

    /// Waits until the account is open.
    async fn wait_open(&self, deadline: Instant) -> Result<(), TransportError> {
        while let Some(until) = self.account.closed_until() {
            if until >= deadline {
                return Err(TransportError::RateLimited { after: until - Instant::now() });
            }
            sleep_until(until).await;
        }
        Ok(())
    }

    /// Refuses a background call while no more is left of the quota than callers should find.
    fn leave_a_reserve(&self) -> Result<(), TransportError> {
        let now = (self.wall_clock)();
        let low = self.account.told().filter(|told| told.remaining <= told.limit / RESERVE);
        match low.and_then(|told| told.reset_time).map(|reset| reset.since(now)) {
            Some(after) if !after.is_zero() => Err(TransportError::RateLimited { after }),
            _ => Ok(()),
        }
    }

    async fn send<S>(&self, inner: S, request: Request<Bytes>) -> Result<Response<Body>, TransportError>
    where
        S: Service<Request<Bytes>, Response = Response<Body>, Error = TransportError>,
    {
        let deadline = deadline_of(&request);
        let is_background = request.extensions().get::<Background>().is_some();
        // Work that nobody waits for is put off by whoever does it, instead of holding a place while it waits.
        let patience = if is_background { Instant::now() } else { deadline };
        self.wait_open(patience).await?;
        let mut permits = Vec::with_capacity(3);
        if is_background {
            self.leave_a_reserve()?;
        }
        // Always in this order, so that no two calls wait for each other.
        let background = is_background.then_some(&self.account.background);
        for permit in background.into_iter().chain([&self.account.permits, &self.host.permits]) {
            let permit = timeout_at(deadline, Arc::clone(permit).acquire_owned()).await;
            // The semaphores are never closed, so there is one way to get none: the time was up.
            permits.push(permit.ok().and_then(Result::ok).ok_or(TransportError::Timeout)?);
        }
        // A call that was under way may have closed the gate meanwhile.
        self.wait_open(deadline).await?;
        let mut response = inner.oneshot(request).await?;
        let said = pushback::read(response.status(), response.headers(), (self.wall_clock)());
        if let Some(pause) = said.pause {
            debug!(seconds = pause.as_secs(), refused = said.refused, "the provider asks for a pause");
            self.account.close_until(Instant::now() + pause);
        }
        if said.refused {
            return Err(TransportError::RateLimited { after: said.pause.unwrap_or_default() });
        }
        if let Some(rate_limit) = said.rate_limit {
            self.account.tell(rate_limit);
            self.told.store(true, Ordering::Relaxed);
            response.extensions_mut().insert(rate_limit);
        }
        for permit in permits {
            response.body_mut().hold(permit);
        }
        Ok(response)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Layer {
    gates: Gates,
}

impl Layer {
    pub(super) const fn new(gates: Gates) -> Self {
        Self { gates }
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit { inner, gates: self.gates.clone() }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Limit<S> {
    inner: S,
    gates: Gates,
}

impl<S> Service<Request<Bytes>> for Limit<S>
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

    fn call(&mut self, request: Request<Bytes>) -> Sending {
        let (inner, gates) = (self.inner.clone(), self.gates.clone());
        Box::pin(async move { gates.send(inner, request).await })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use http::StatusCode;
    use tower::service_fn;

    use super::super::Deadline;
    use super::*;
    use crate::domain::timestamp::Timestamp;

    fn limits() -> Limits {
        Limits::new(Arc::new(|| Timestamp::from_unix_seconds(1_790_000_000)))
    }

    fn origin(host: &str) -> Origin {
        Origin::of(&Url::parse(&format!("https://{host}")).expect("a URL"))
    }

    fn request(seconds: u64) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        request.extensions_mut().insert(Deadline(Instant::now() + Duration::from_secs(seconds)));
        request
    }

    fn response(status: u16, headers: &[(&'static str, &'static str)]) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        response
    }

    async fn send(gates: &Gates, seconds: u64, response: Response<Body>) -> Result<u16, TransportError> {
        let response = Mutex::new(Some(response));
        let inner = service_fn(|_: Request<Bytes>| {
            let response = response.lock().expect("the lock").take().expect("one call");
            async move { Ok(response) }
        });
        gates.send(inner, request(seconds)).await.map(|response| response.status().as_u16())
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_asked_for_with_a_200_holds_the_next_call() {
        let limits = limits();
        let gates = limits.gates(&origin("git.test"), "a", 4);
        let start = Instant::now();
        assert_eq!(send(&gates, 60, response(200, &[("retry-after", "7")])).await, Ok(200));
        assert_eq!(start.elapsed().as_secs(), 0);
        assert_eq!(send(&limits.gates(&origin("git.test"), "a", 4), 60, response(200, &[])).await, Ok(200));
        assert_eq!(start.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_past_the_deadline_is_told_at_once() {
        let limits = limits();
        let gates = limits.gates(&origin("git.test"), "a", 4);
        let limited = |seconds| Err(TransportError::RateLimited { after: Duration::from_secs(seconds) });
        assert_eq!(send(&gates, 60, response(429, &[("retry-after", "90")])).await, limited(90));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(send(&gates, 60, response(200, &[])).await, limited(80));
        // Neither another account nor another host waits.
        assert_eq!(send(&limits.gates(&origin("git.test"), "b", 4), 1, response(200, &[])).await, Ok(200));
        assert_eq!(send(&limits.gates(&origin("git2.test"), "a", 4), 1, response(200, &[])).await, Ok(200));
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_quota_closes_until_its_reset() {
        let gates = limits().gates(&origin("git.test"), "a", 4);
        let empty =
            [("ratelimit-limit", "600"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "1790000020")];
        let start = Instant::now();
        assert_eq!(send(&gates, 60, response(200, &empty)).await, Ok(200));
        assert_eq!(send(&gates, 60, response(200, &[])).await, Ok(200));
        assert_eq!(start.elapsed().as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_calls_are_under_way_than_may_be() {
        let gates = limits().gates(&origin("git.test"), "a", 2);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let inner = || {
            service_fn(|_: Request<Bytes>| async {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, TransportError>(response(200, &[]))
            })
        };
        let calls = (0..6).map(|_| async {
            let response = gates.send(inner(), request(60)).await?;
            response.into_body().collect(0).await
        });
        let start = Instant::now();
        for result in futures_util::future::join_all(calls).await {
            assert_eq!(result, Ok(Bytes::new()));
        }
        assert_eq!((most.load(Ordering::SeqCst), start.elapsed().as_secs()), (2, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_is_held_until_the_body_was_read_or_dropped() {
        let gates = limits().gates(&origin("git.test"), "a", 1);
        let answer = || service_fn(|_: Request<Bytes>| async { Ok::<_, TransportError>(response(200, &[])) });
        let first = gates.send(answer(), request(60)).await.expect("an answer");
        assert_eq!(gates.send(answer(), request(5)).await.map(|_| ()), Err(TransportError::Timeout));
        drop(first);
        assert!(gates.send(answer(), request(5)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn background_calls_leave_half_of_the_places_to_callers() {
        let gates = limits().gates(&origin("git.test"), "a", 4);
        let answer = || service_fn(|_: Request<Bytes>| async { Ok::<_, TransportError>(response(200, &[])) });
        let background = || {
            let mut request = request(5);
            request.extensions_mut().insert(Background);
            gates.send(answer(), request)
        };
        let held = [background().await.expect("an answer"), background().await.expect("an answer")];
        assert_eq!(background().await.map(|_| ()), Err(TransportError::Timeout));
        let callers = [gates.send(answer(), request(5)).await, gates.send(answer(), request(5)).await];
        assert!(callers.iter().all(Result::is_ok));
        drop(held);
        assert!(background().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn background_calls_leave_the_last_tenth_of_the_quota_to_callers() {
        let limits = limits();
        let gates = limits.gates(&origin("git.test"), "a", 4);
        let quota = |remaining| {
            response(
                200,
                &[
                    ("ratelimit-limit", "600"),
                    ("ratelimit-remaining", remaining),
                    ("ratelimit-reset", "1790000020"),
                ],
            )
        };
        let background = || async {
            let mut request = request(60);
            request.extensions_mut().insert(Background);
            let inner = service_fn(|_: Request<Bytes>| async { Ok::<_, TransportError>(response(200, &[])) });
            gates.send(inner, request).await.map(|_| ())
        };
        assert_eq!(limits.last_told("https://git.test", "a"), None);
        assert_eq!(send(&gates, 60, quota("61")).await, Ok(200));
        assert_eq!(background().await, Ok(()));
        assert_eq!(send(&gates, 60, quota("60")).await, Ok(200));
        let after = Duration::from_secs(20);
        assert_eq!(background().await, Err(TransportError::RateLimited { after }));
        assert_eq!(send(&gates, 60, quota("500")).await, Ok(200));
        assert_eq!(background().await, Ok(()));
        let told = limits.last_told("https://git.test", "a").expect("told");
        assert_eq!((told.limit, told.remaining), (600, 500));
        assert_eq!(limits.last_told("https://git.test", "b"), None);
    }

    #[tokio::test]
    async fn the_number_of_gates_is_bounded() {
        let limits = limits();
        for at in 0..3 * MAX_GATES {
            limits.gates(&origin("git.test"), &at.to_string(), 1);
        }
        assert!(limits.gates.lock().expect("the lock").len() <= MAX_GATES);
    }
}
