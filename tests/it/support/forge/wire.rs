//! Requests as they were seen, and answers before they are written.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::Full;
use serde_json::Value;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The method.
    pub(crate) method: String,
    /// The path as sent, percent-encoding untouched.
    pub(crate) path: String,
    /// The query as sent, without the question mark; empty when absent.
    pub(crate) query: String,
    /// Header names (lower case) and values, in the order sent.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Bytes,
}

impl Seen {
    /// The first value of a header; `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    /// Path and query as sent.
    pub(crate) fn target(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query) }
    }

    /// The decoded query.
    pub(crate) fn params(&self) -> Query {
        Query::parse(&self.query)
    }

    /// The decoded value of a query parameter.
    pub(crate) fn param(&self, name: &str) -> Option<String> {
        self.params().first(name).map(str::to_owned)
    }
}

/// A decoded query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    /// Decodes a query; of repeated names the last one counts, as in Rails.
    pub(crate) fn parse(query: &str) -> Self {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The value of `name`.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names that were sent.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Names and values, decoded, names in alphabetical order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of `name` in any letter case, as ASP.NET reads it.
    pub(crate) fn any_case(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether `name` is switched on.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.first(name), Some("true" | "1" | "yes" | "t"))
    }

    /// The same query with one value changed.
    pub(crate) fn with(&self, name: &str, value: impl ToString) -> Self {
        let mut changed = self.clone();
        changed.0.insert(name.to_owned(), value.to_string());
        changed
    }

    /// The same query without `name`.
    pub(crate) fn without(&self, name: &str) -> Self {
        let mut changed = self.clone();
        changed.0.remove(name);
        changed
    }

    /// The query, encoded, names in alphabetical order (as Rails writes it).
    pub(crate) fn encode(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// Names and values, in order, repeated ones kept.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Bytes,
}

impl Reply {
    /// An answer of a content type.
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: body.into(),
        }
    }

    /// A JSON answer.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// An HTML answer.
    pub(crate) fn html(status: u16, body: &'static str) -> Self {
        Self::new(status, "text/html; charset=utf-8", body)
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Replaces a header.
    pub(crate) fn set(&mut self, name: &str, value: impl ToString) {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_string()));
    }

    /// The first value of a header.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    /// For the HTTP library; what it cannot express is left out.
    pub(crate) fn into_response(self) -> http::Response<Full<Bytes>> {
        let mut response = http::Response::new(Full::new(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }

    /// The head as bytes, for answers that are written by hand.
    pub(crate) fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} \r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head
    }
}

/// Decodes the percent-encoding of one path segment.
pub(crate) fn decode(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// Percent-encodes one path segment, a space as `%20`.
pub(crate) fn encode(segment: &str) -> String {
    const UNSAFE: percent_encoding::AsciiSet =
        percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(segment, &UNSAFE).to_string()
}
