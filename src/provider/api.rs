//! JSON over HTTP for the drivers: building a request below the endpoint, reading a bounded answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use memchr::memchr2;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::mask::Mask;
use super::{ProviderError, paging};
use crate::domain::connection::{RateLimit, Scope};
use crate::domain::credential::{CredentialForm, Secret};
use crate::domain::timestamp::Timestamp;
use crate::outbound::{Background, Deadline, Redirects, Transport};

/// The largest answer that is read where a driver names no other limit: a page of 100 rows has about 500 KiB.
pub const DEFAULT_BODY_LIMIT: usize = 8 * 1024 * 1024;
/// The longest pause that a header may ask for; more is a mistake or a trick.
const MAX_PAUSE: Duration = Duration::from_secs(3_600);
/// The pause where none is named or it makes no sense.
const DEFAULT_PAUSE: Duration = Duration::from_secs(60);
/// Deepest nesting of an answer; the deepest recorded one has 7 levels.
const MAX_JSON_DEPTH: usize = 64;
/// Most values in one answer: 100 rows have about 15,000.
const MAX_JSON_VALUES: usize = 4_000_000;

/// One endpoint, with the headers that carry the credential, until one deadline.
#[derive(Debug, Clone)]
pub struct Api {
    base: Url,
    headers: HeaderMap,
    transport: Transport,
    deadline: Instant,
    token: Option<Secret>,
    scope: Scope,
    credential_form: Option<CredentialForm>,
    background: bool,
}

impl Api {
    /// An endpoint at `base` (no slash at its end) whose calls carry `headers` and end by `deadline`.
    ///
    /// What a sensitive header carries is masked in every answer: a server may echo it, and an answer
    /// becomes stored and shown texts.
    #[must_use]
    pub fn new(base: Url, headers: HeaderMap, transport: Transport, deadline: Instant) -> Self {
        Self {
            base,
            headers,
            transport,
            deadline,
            token: None,
            scope: Scope::default(),
            credential_form: None,
            background: false,
        }
    }

    /// The same endpoint for work that nobody waits for: it yields to callers.
    #[must_use]
    pub fn in_background(self) -> Self {
        Self { background: true, ..self }
    }

    /// The same endpoint, masking `token` in every answer, too: a header may carry it encoded.
    #[must_use]
    pub fn masking(self, token: &Secret) -> Self {
        Self { token: Some(token.clone()), ..self }
    }

    /// The same endpoint for a connection that is limited to `scope`.
    #[must_use]
    pub fn within(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// The same endpoint, called with a credential of that form.
    #[must_use]
    pub fn with_form(self, form: CredentialForm) -> Self {
        Self { credential_form: Some(form), ..self }
    }

    /// The same endpoint until another deadline.
    #[must_use]
    pub fn until(&self, deadline: Instant) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The URL below which the calls go.
    #[must_use]
    pub const fn base(&self) -> &Url {
        &self.base
    }

    /// What the connection is limited to.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The form of the credential that goes along, if one does: what a token belongs to, which the provider
    /// need not tell.
    #[must_use]
    pub const fn credential_form(&self) -> Option<&CredentialForm> {
        self.credential_form.as_ref()
    }

    /// A GET of the path below the base that `segments` make; each is percent-encoded as one segment, so a slash
    /// in it becomes `%2F`.
    pub fn get(&self, segments: &[&str]) -> Call<'_> {
        self.call(Method::GET, segments)
    }

    /// Like [`Self::get`], with another method.
    pub fn call(&self, method: Method, segments: &[&str]) -> Call<'_> {
        self.call_at(self.base.clone(), method, segments)
    }

    /// Like [`Self::get`], below the parent of the base by `levels` segments: some providers keep a few calls
    /// beside their API (GitLab: `{base}/oauth/token/info` beside `{base}/api/v4`).
    pub fn get_above(&self, levels: usize, segments: &[&str]) -> Call<'_> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            for _ in 0..levels {
                path.pop();
            }
        }
        self.call_at(url, Method::GET, segments)
    }

    /// A GET of a place that [`paging::below`] made of the provider's own link.
    ///
    /// # Errors
    ///
    /// The place is not below the base.
    pub(super) fn get_place(&self, place: &str) -> Result<Call<'_>, ProviderError> {
        let url = paging::url_of(&self.base, place);
        let url = url.ok_or(ProviderError::garbled("its link leads out of its API"))?;
        Ok(self.call_at(url, Method::GET, &[]))
    }

    /// What must not come back in an answer.
    fn mask(&self) -> Mask<'_> {
        let sent = self.headers.values().filter(|value| value.is_sensitive());
        // Behind the name of a scheme, such as `Bearer`.
        let sent = sent.filter_map(|value| value.as_bytes().rsplit(|byte| *byte == b' ').next());
        Mask::of(sent.chain(self.token.as_ref().map(|token| token.expose().as_bytes())))
    }

    fn call_at(&self, mut url: Url, method: Method, segments: &[&str]) -> Call<'_> {
        // An endpoint is http(s), so it always can be a base; its path has no empty last segment to keep.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        Call {
            api: self,
            method,
            url,
            headers: self.headers.clone(),
            redirects: Redirects::Follow,
            limit: DEFAULT_BODY_LIMIT,
            body: Bytes::new(),
        }
    }
}

/// Adds the header that carries a secret behind the name of a scheme, such as `Bearer`, marked as sensitive.
pub(super) fn authorize_with(scheme: &str, secret: &str, headers: &mut HeaderMap) {
    let text = Zeroizing::new(format!("{scheme} {secret}"));
    // A token is visible ASCII, so this cannot fail; without a header the call is answered with a refusal.
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
}

/// One request that is being put together.
#[derive(Debug)]
#[must_use]
pub struct Call<'a> {
    api: &'a Api,
    method: Method,
    url: Url,
    headers: HeaderMap,
    redirects: Redirects,
    limit: usize,
    body: Bytes,
}

impl Call<'_> {
    /// Adds one parameter to the query.
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.url.query_pairs_mut().append_pair(name, value.as_ref());
        self
    }

    /// Adds a header that says nothing of the credential.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sends `body` as JSON. The bytes are not wiped afterwards: a secret in them is one that the provider is told.
    ///
    /// # Errors
    ///
    /// The body has no JSON form, which is a defect of the driver.
    pub(super) fn json(mut self, body: &impl Serialize) -> Result<Self, ProviderError> {
        let bytes =
            serde_json::to_vec(body).map_err(|_| ProviderError::garbled("the request has no JSON form"))?;
        self.body = bytes.into();
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(self)
    }

    /// Leaves the credential out: some calls are open to a stranger and closed to a weak token.
    pub fn anonymously(mut self) -> Self {
        let carried = self.headers.iter().filter(|(_, value)| value.is_sensitive());
        for name in carried.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.headers.remove(name);
        }
        self
    }

    /// Leaves redirects to the caller instead of following those of the same origin.
    pub const fn return_redirects(mut self) -> Self {
        self.redirects = Redirects::Return;
        self
    }

    /// Reads at most `bytes` of the answer instead of [`DEFAULT_BODY_LIMIT`].
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Sends it and reads the whole answer, whatever its status. Cancel-safe: dropping it drops the call.
    ///
    /// # Errors
    ///
    /// What went wrong below HTTP, a rate limit, and an answer over the limit. A status of 500 and above
    /// is [`ProviderError::Failed`]; every other status is for the driver to read.
    pub async fn send(mut self) -> Result<Answer, ProviderError> {
        self.headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self
            .url
            .as_str()
            .parse()
            .map_err(|_| ProviderError::garbled("the request would have no valid URI"))?;
        *request.headers_mut() = self.headers;
        request.extensions_mut().insert(Deadline(self.api.deadline));
        request.extensions_mut().insert(self.redirects);
        if self.api.background {
            request.extensions_mut().insert(Background);
        }
        let (head, body) = self.api.transport.send(request).await?.into_parts();
        if head.status.is_server_error() {
            return Err(ProviderError::Failed {
                problem: "it answered with a server error",
                status: Some(head.status.as_u16()),
            });
        }
        let body = body.collect(self.limit).await?;
        let url = self.url;
        let rate_limit = head.extensions.get::<RateLimit>().copied();
        let mask = self.api.mask();
        let (headers, body) = (mask.headers(head.headers), mask.body(body));
        Ok(Answer { url, status: head.status, headers, body, rate_limit })
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked.
    pub url: Url,
    /// Its status, below 500.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its decoded body.
    pub body: Bytes,
    /// What its headers said of the quota.
    pub rate_limit: Option<RateLimit>,
}

impl Answer {
    /// The first header of that name as text, if it is visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether this is a redirect to another origin.
    #[must_use]
    pub fn leads_elsewhere(&self) -> bool {
        self.status.is_redirection()
            && self
                .header("location")
                .is_some_and(|to| self.url.join(to).is_ok_and(|to| to.origin() != self.url.origin()))
    }

    /// Whether the body says that it is JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            let essence = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
            essence == "application/json" || essence.ends_with("+json")
        })
    }

    /// The body as `T`.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Failed`] for anything that is not JSON of that shape, nested deeper than 64
    /// levels, or of more than four million values.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ProviderError> {
        let garbled = |problem| ProviderError::Failed { problem, status: Some(self.status.as_u16()) };
        const UNDOCUMENTED: &str = "its answer is not the JSON that it documents";
        check_shape(&self.body).map_err(garbled)?;
        // As text at once: from bytes the parser would look at each string of its own.
        let text = std::str::from_utf8(&self.body).map_err(|_| garbled(UNDOCUMENTED))?;
        serde_json::from_str(text).map_err(|_| garbled(UNDOCUMENTED))
    }

    /// A header that is a number; empty, as at the end of some listings, it is missing.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Failed`] for anything but at most 18 digits.
    pub fn count(&self, name: &str) -> Result<Option<u64>, ProviderError> {
        const GARBLED: ProviderError = ProviderError::garbled("its paging headers make no sense");
        let Some(value) = self.headers.get(name) else { return Ok(None) };
        let text = value.to_str().map_err(|_| GARBLED)?.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > 18 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(GARBLED);
        }
        text.parse().map(Some).map_err(|_| GARBLED)
    }

    /// How long a refusal asks to wait: `Retry-After` in seconds, or as a date measured from the answer's own
    /// `Date`. A minute where it names no sensible time, and an hour at most.
    #[must_use]
    pub fn pause(&self) -> Duration {
        let Some(text) = self.header("retry-after") else { return DEFAULT_PAUSE };
        if let Ok(seconds) = text.trim().parse::<u64>() {
            return Duration::from_secs(seconds).min(MAX_PAUSE);
        }
        let until = httpdate::parse_http_date(text).ok();
        let now = self.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
        match (until, now) {
            (Some(until), Some(now)) => until.duration_since(now).unwrap_or(Duration::ZERO).min(MAX_PAUSE),
            _ => DEFAULT_PAUSE,
        }
    }

    /// The server's clock, from the `Date` header.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        let text = self.headers.get(DATE)?.to_str().ok()?;
        let since = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_secs()).ok().map(Timestamp::from_unix_seconds)
    }
}

/// Bounds the nesting and the number of values before a parser builds anything.
pub(super) fn check_shape(body: &[u8]) -> Result<(), &'static str> {
    let (mut depth, mut values) = (0_usize, 0_usize);
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => at = after_string(body, at),
            b'[' | b'{' => {
                depth += 1;
                values += 1;
                if depth > MAX_JSON_DEPTH {
                    return Err("its JSON is nested too deeply");
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if values > MAX_JSON_VALUES {
            return Err("its JSON has too many values");
        }
    }
    Ok(())
}

/// Where a string that began before `at` is over. Most bytes of an answer stand in strings, so they are leapt over.
fn after_string(body: &[u8], mut at: usize) -> usize {
    while let Some(skip) = body.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += skip;
        if body[at] == b'"' {
            return at + 1;
        }
        // What is escaped can be a quotation mark.
        at += 2;
    }
    body.len()
}

/// An answer for the drivers' own tests.
#[cfg(test)]
pub(crate) fn test_answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().expect("header name");
        map.insert(name, HeaderValue::from_str(value).expect("header value"));
    }
    Answer {
        url: Url::parse("https://git.test/api").expect("a URL"),
        status: StatusCode::from_u16(status).expect("status"),
        headers: map,
        body: Bytes::copy_from_slice(body.as_bytes()),
        rate_limit: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        test_answer(200, &[], body)
    }

    #[test]
    fn h18_deep_json_is_refused_before_it_is_parsed() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(answer(&deep).json::<serde_json::Value>().is_err());
        let fits = "[".repeat(64) + &"]".repeat(64);
        assert!(answer(&fits).json::<serde_json::Value>().is_ok());
        let many = format!("[{}[]]", "[],".repeat(10_000_000));
        assert!(answer(&many).json::<serde_json::Value>().is_err());
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = format!("[\"{}\\\"{}\"]", "[".repeat(100), "[".repeat(100));
        assert!(answer(&text).json::<Vec<String>>().is_ok());
    }
}
