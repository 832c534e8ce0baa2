//! What every call passes on its way in: request id, deadline, shedding of load, the log line.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::status::{self, Cause};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::service::Context;
use crate::service::error::Error;

/// The metadata key that carries the request id in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that a unary call may take, whatever its caller says.
pub const UNARY_LIMIT: Duration = Duration::from_secs(60);
/// Longest request id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 64;
/// A call ends this much before its caller stops waiting, so that the answer arrives; its provider calls end twice as
/// early, so that their own reason does.
const MARGIN: Duration = Duration::from_millis(50);
/// The longest that one reflection stream is kept: a client asks what it needs and goes.
const REFLECTION_LIMIT: Duration = Duration::from_secs(60);

/// Whether the process is about to stop. Shared by the listeners and the inbound layers.
#[derive(Debug, Clone, Default)]
pub struct Draining(Arc<watch::Sender<bool>>);

impl Draining {
    /// From now on new calls are turned away; those under way go on.
    pub fn start(&self) {
        self.0.send_replace(true);
    }

    fn has_started(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it starts.
    pub(super) async fn started(self) {
        // The sender is here, so that there is no error.
        let _ = self.0.subscribe().wait_for(|started| *started).await;
    }
}

/// The inbound layers, as one: they share what they know of a call.
#[derive(Debug, Clone)]
pub struct Inbound {
    permits: Arc<Semaphore>,
    draining: Draining,
}

impl Inbound {
    /// Layers that let at most `max_calls` calls be under way, streams included; health checks are not counted.
    #[must_use]
    pub fn new(max_calls: usize, draining: Draining) -> Self {
        Self { permits: Arc::new(Semaphore::new(max_calls.min(Semaphore::MAX_PERMITS))), draining }
    }
}

impl<S> Layer<S> for Inbound {
    type Service = InboundService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InboundService { inner, inbound: self.clone() }
    }
}

/// See [`Inbound`].
#[derive(Debug, Clone)]
pub struct InboundService<S> {
    inner: S,
    inbound: Inbound,
}

impl<S, B> Service<Request<B>> for InboundService<S>
where
    S: Service<Request<B>, Response = Response<tonic::body::Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Logged>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let (request_id, header) = request_id(request.headers());
        let mut line = Line {
            method: method_name(request.uri().path()),
            request_id: request_id.clone(),
            started,
            code: None,
            cause: None,
            permit: None,
        };
        let limit = match self.admit(&line.method, request.headers()) {
            Ok((permit, timeout)) => {
                line.permit = permit;
                let limit = timeout.map_or(UNARY_LIMIT, |timeout| timeout.min(UNARY_LIMIT));
                request.extensions_mut().insert(Context {
                    actor: "anonymous".to_owned(),
                    request_id,
                    deadline: started + earlier(limit, 2 * MARGIN),
                    stream_deadline: timeout.map(|timeout| started + earlier(timeout, 2 * MARGIN)),
                });
                limit
            }
            Err(refusal) => {
                return Box::pin(async move { Ok(line.finish_head(refusal.into_http(), header)) });
            }
        };
        // A panic while the future is made or polled ends this call, not the process.
        let Ok(future) = catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) else {
            return Box::pin(async move { Ok(line.finish_head(panicked(), header)) });
        };
        // From the first byte of the request to the head of the answer, so that a caller who never ends its request
        // does not keep its place.
        let until = started + earlier(limit, MARGIN);
        Box::pin(async move {
            let response = match timeout_at(until, AssertUnwindSafe(future).catch_unwind()).await {
                Ok(Ok(response)) => response?,
                Ok(Err(_)) => panicked(),
                Err(_) => status::of(Error::DeadlineExceeded).into_http(),
            };
            Ok(line.finish_head(response, header))
        })
    }
}

impl<S> InboundService<S> {
    /// Whether a call may start: not while draining, not beyond the bound, not with a timeout that is none.
    fn admit(&self, method: &str, headers: &HeaderMap) -> Result<Admission, Box<Status>> {
        if method.starts_with("/grpc.health.v1.Health/") {
            return Ok((None, None));
        }
        if self.inbound.draining.has_started() {
            return Err(Box::new(status::draining()));
        }
        let timeout = match headers.get("grpc-timeout") {
            None => None,
            Some(value) => Some(parse_timeout(value).ok_or_else(|| {
                Box::new(status::of(Error::invalid(FieldViolation::new(
                    "grpc-timeout",
                    FieldReason::Malformed,
                    "a timeout is up to eight digits and one of H, M, S, m, u, n",
                ))))
            })?),
        };
        match self.inbound.permits.clone().try_acquire_owned() {
            Ok(permit) => Ok((Some(permit), timeout)),
            Err(_) => Err(Box::new(status::overloaded())),
        }
    }
}

type Admission = (Option<OwnedSemaphorePermit>, Option<Duration>);

fn panicked() -> Response<tonic::body::Body> {
    status::internal("a handler panicked; the panic is in the log").into_http()
}

/// `span` less a margin, which is small for a small span.
fn earlier(span: Duration, margin: Duration) -> Duration {
    span - (span / 5).min(margin)
}

/// A method as it may stand in the log: a path of a service that exists, not what a caller made up.
fn method_name(path: &str) -> String {
    const LONGEST: usize = 96;
    let known = path.starts_with("/gitmoor.v1.") || path.starts_with("/grpc.");
    if known && path.len() <= LONGEST && !crate::domain::credential::looks_like_token(path) {
        path.to_owned()
    } else {
        "unknown".to_owned()
    }
}

/// The caller's request id if it has a safe form, else a new one.
fn request_id(headers: &HeaderMap) -> (String, HeaderValue) {
    if let Some(value) = headers.get(REQUEST_ID)
        && let Ok(text) = value.to_str()
        && (1..=MAX_REQUEST_ID).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !crate::domain::credential::looks_like_token(text)
    {
        return (text.to_owned(), value.clone());
    }
    let id = uuid::Uuid::now_v7().to_string();
    let header = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("-"));
    (id, header)
}

/// The timeout of a gRPC call: `TimeoutValue TimeoutUnit` of the gRPC over HTTP/2 specification.
fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The log line of a call. Written when it is dropped: at the end of the answer, or when the caller went away.
#[derive(Debug)]
struct Line {
    method: String,
    request_id: String,
    started: Instant,
    code: Option<Code>,
    cause: Option<String>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Line {
    /// Notes the status, if the head tells it, and lets the line travel with the body.
    fn finish_head(
        mut self,
        response: Response<tonic::body::Body>,
        request_id: HeaderValue,
    ) -> Response<Logged> {
        let (mut head, body) = response.into_parts();
        if let Some(status) = head.extensions.get::<Status>() {
            self.code = Some(status.code());
            self.cause = Cause::of(status).map(ToString::to_string);
        }
        head.headers.insert(REQUEST_ID, request_id);
        // Other streams bring limits of their own.
        let limit = self
            .method
            .starts_with("/grpc.reflection.")
            .then(|| Box::pin(sleep_until(self.started + REFLECTION_LIMIT)));
        Response::from_parts(head, Logged { body, line: self, limit })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // A call without a status was given up by its caller.
        let code = self.code.map_or("CANCELLED", code_name);
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let Self { method, request_id, .. } = self;
        match &self.cause {
            Some(cause) => {
                tracing::error!(target: "gitmoor::request", %method, code, %request_id, micros, %cause, "request failed");
            }
            None => tracing::info!(target: "gitmoor::request", %method, code, %request_id, micros, "request"),
        }
    }
}

/// The body of an answer, together with the log line of its call and its place among those under way.
#[derive(Debug)]
pub struct Logged {
    body: tonic::body::Body,
    line: Line,
    limit: Option<Pin<Box<Sleep>>>,
}

impl Logged {
    /// Ends the body with `status`.
    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.body = tonic::body::Body::empty();
        self.line.code = Some(status.code());
        self.line.cause = Cause::of(status).map(ToString::to_string);
        let mut trailers = HeaderMap::new();
        // Fails only for a message that is no header value; ours is fixed text.
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

impl Body for Logged {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx)));
        let Ok(polled) = polled else {
            return this.end(&status::internal("a stream panicked; the panic is in the log"));
        };
        if polled.is_pending()
            && let Some(limit) = &mut this.limit
            && limit.as_mut().poll(cx).is_ready()
        {
            this.limit = None;
            return this.end(&status::of(Error::DeadlineExceeded));
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            this.line.code = trailers
                .get("grpc-status")
                .map(|value| Code::from_bytes(value.as_bytes()))
                .or(this.line.code);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The names of gRPC's own documentation.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g12_a_timeout_has_one_form() {
        let parse = |text: &str| parse_timeout(&HeaderValue::from_str(text).expect("a header value"));
        assert_eq!(parse("0n"), Some(Duration::ZERO));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(parse("15S"), Some(Duration::from_secs(15)));
        for bad in ["-1S", "1X", "S", "", "123456789S", "1.5S", "1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_handler_that_panics_ends_its_call_and_no_other() {
        // Either while the future is made or while it is polled; one place, which has to come free again.
        let handler = tower::service_fn(|request: Request<()>| {
            let path = request.uri().path().to_owned();
            assert_ne!(path, "/at-once");
            async move {
                tokio::task::yield_now().await;
                assert_ne!(path, "/later");
                Ok::<_, std::convert::Infallible>(Response::new(tonic::body::Body::empty()))
            }
        });
        let mut service = Inbound::new(1, Draining::default()).layer(handler);
        let mut call = async |path: &str| {
            let request = Request::builder().uri(path).body(()).expect("a request");
            service.call(request).await.expect("an answer")
        };
        for path in ["/at-once", "/later"] {
            let answer = call(path).await;
            let status = Status::from_header_map(answer.headers()).expect("a status in the head");
            assert_eq!(status.code(), Code::Internal, "{path}");
            let info = tonic_types::StatusExt::get_details_error_info(&status).expect("an ErrorInfo");
            assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INTERNAL", "gitmoor.dev"));
            assert!(answer.headers().contains_key(REQUEST_ID));
            assert!(!status.message().contains(path), "what a panic says is nobody's to read");
            drop(answer);
            let next = call("/fine").await;
            assert!(Status::from_header_map(next.headers()).is_none(), "the next call works");
        }
    }

    #[test]
    fn s22_a_request_id_that_is_not_safe_is_replaced() {
        let id = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(text));
            request_id(&headers).0
        };
        assert_eq!(id("abc-1.2_3"), "abc-1.2_3");
        assert_ne!(id("a b"), "a b");
        assert_ne!(id("glpat-abcdefghij0123456789"), "glpat-abcdefghij0123456789");
        let long: &'static str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        assert_ne!(id(long), long);
    }
}
