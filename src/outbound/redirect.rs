//! Follows up to three redirects of a GET on the same origin; every other one is refused.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use tower::{Service, ServiceExt};
use url::Url;

use super::{Body, Redirects, Sending, TransportError};
use crate::domain::base_url::Origin;

/// Most redirects that one call follows.
const MAX_REDIRECTS: usize = 3;
/// What a call ends with that was sent elsewhere.
const REFUSED: TransportError = TransportError::garbled("refused redirect");

#[derive(Debug, Clone, Copy)]
pub(super) struct Layer;

impl<S> tower::Layer<S> for Layer {
    type Service = Redirect<S>;

    fn layer(&self, inner: S) -> Redirect<S> {
        Redirect { inner }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Redirect<S> {
    inner: S,
}

impl<S> Service<Request<Bytes>> for Redirect<S>
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
        let inner = self.inner.clone();
        Box::pin(async move {
            let redirects = request.extensions().get::<Redirects>().copied().unwrap_or(Redirects::Follow);
            for _ in 0..=MAX_REDIRECTS {
                let response = inner.clone().oneshot(request.clone()).await?;
                if redirects == Redirects::Return || !is_redirect(response.status()) {
                    return Ok(response);
                }
                if request.method() != Method::GET {
                    return Err(REFUSED);
                }
                *request.uri_mut() = next(request.uri(), response.headers()).ok_or(REFUSED)?;
            }
            Err(REFUSED)
        })
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where the redirect leads, if it stays on the origin.
fn next(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let mut locations = headers.get_all(LOCATION).iter();
    let location = locations.next()?.to_str().ok()?;
    if locations.next().is_some() {
        return None;
    }
    let from = Url::parse(&from.to_string()).ok()?;
    let mut to = from.join(location).ok()?;
    to.set_fragment(None);
    let stays = Origin::of(&from) == Origin::of(&to) && to.username().is_empty() && to.password().is_none();
    stays.then(|| to.as_str().parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tower::service_fn;

    use super::*;

    /// Sends one request to a server that answers `status` with `location`, and then 200 from `/end`.
    async fn follow(
        method: Method,
        status: u16,
        location: &'static str,
    ) -> (Result<u16, TransportError>, usize) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let inner = service_fn(move |request: Request<Bytes>| {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut response = Response::new(Body::empty());
            if request.uri().path() != "/end" {
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                response.headers_mut().insert(LOCATION, location.parse().expect("a value"));
            }
            async move { Ok::<_, TransportError>(response) }
        });
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static("https://git.test/api/start?x=1");
        let result = Redirect { inner }.oneshot(request).await;
        (result.map(|response| response.status().as_u16()), calls.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn ac_66_a_get_follows_on_the_same_origin() {
        for location in ["/end", "../end", "https://git.test/end", "HTTPS://GIT.test:443/end#x"] {
            for status in [301, 302, 303, 307, 308] {
                assert_eq!(follow(Method::GET, status, location).await, (Ok(200), 2), "{status} {location}");
            }
        }
    }

    #[tokio::test]
    async fn h01_h04_h07_another_origin_is_refused() {
        for location in [
            "http://169.254.169.254/",
            "http://git.test/end",
            "http://git.test:443/end",
            "https://sub.git.test/end",
            "https://git.test:8443/end",
            "//evil.test/end",
            "https://user@git.test/end",
            "https://[",
        ] {
            assert_eq!(follow(Method::GET, 302, location).await, (Err(REFUSED), 1), "{location}");
        }
    }

    #[tokio::test]
    async fn h03_another_method_is_never_followed() {
        for status in [301, 302, 303, 307, 308] {
            for method in [Method::POST, Method::PUT, Method::HEAD, Method::DELETE] {
                assert_eq!(follow(method, status, "/end").await, (Err(REFUSED), 1));
            }
        }
    }

    #[tokio::test]
    async fn h06_a_loop_ends_after_three() {
        assert_eq!(follow(Method::GET, 302, "/api/start?x=1").await, (Err(REFUSED), 4));
    }

    #[tokio::test]
    async fn a_304_is_no_redirect() {
        assert_eq!(follow(Method::GET, 304, "/end").await, (Ok(304), 1));
    }
}
