//! Masks the caller's own secrets in what a server sends: a hostile one echoes them in a name or a
//! description, which would be stored and shown.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use memchr::memchr2;

/// Shorter texts are not masked: they are no provider's token (the shortest have 20 characters), and would
/// hit words and numbers of honest answers.
const MIN_SECRET_BYTES: usize = 12;
/// What stands for a byte of a secret.
const MASK: u8 = b'*';

/// The secrets of one endpoint, borrowed for one answer.
pub(super) struct Mask<'a>(Vec<&'a [u8]>);

impl<'a> Mask<'a> {
    /// Masks each of `secrets` that is long enough to be one.
    pub(super) fn of(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut secrets: Vec<_> =
            secrets.into_iter().filter(|secret| secret.len() >= MIN_SECRET_BYTES).collect();
        secrets.sort_unstable();
        secrets.dedup();
        Self(secrets)
    }

    /// The body with every secret replaced by as many asterisks as it had bytes, also where its characters
    /// are written as JSON escapes. Copies the body only if it holds one.
    pub(super) fn body(&self, body: Bytes) -> Bytes {
        let mut masked: Option<Vec<u8>> = None;
        for secret in &self.0 {
            for (start, end) in places(&body, secret) {
                masked.get_or_insert_with(|| body.to_vec())[start..end].fill(MASK);
            }
        }
        masked.map_or(body, Bytes::from)
    }

    /// The headers, each value that holds a secret replaced by asterisks.
    pub(super) fn headers(&self, mut headers: HeaderMap) -> HeaderMap {
        for value in headers.values_mut() {
            if self.0.iter().any(|secret| !places(value.as_bytes(), secret).is_empty()) {
                *value = HeaderValue::from_static("***");
            }
        }
        headers
    }
}

/// Whether a secret was masked in a text.
pub(super) fn is_masked(text: &str) -> bool {
    text.as_bytes().windows(MIN_SECRET_BYTES).any(|run| run.iter().all(|byte| *byte == MASK))
}

/// Where `secret` stands in `text`.
fn places(text: &[u8], secret: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let Some(&first) = secret.first() else { return found };
    let mut at = 0;
    // Only a byte that can begin the secret is looked at more closely.
    while let Some(skip) = memchr2(first, b'\\', &text[at..]) {
        let start = at + skip;
        if let Some(end) = end_of(text, start, secret) {
            found.push((start, end));
            at = end;
        } else {
            // A backslash and what it escapes are one character.
            at = unit(text, start).map_or(start + 1, |(_, end)| end);
        }
        if at >= text.len() {
            break;
        }
    }
    found
}

/// The end of `secret` in `text` if it starts at `start`.
fn end_of(text: &[u8], start: usize, secret: &[u8]) -> Option<usize> {
    secret.iter().try_fold(start, |at, wanted| {
        let (byte, end) = unit(text, at)?;
        (byte == Some(*wanted)).then_some(end)
    })
}

/// The character at `at`, written out or as a JSON escape, if it is one byte long, and where the next begins.
fn unit(text: &[u8], at: usize) -> Option<(Option<u8>, usize)> {
    let byte = *text.get(at)?;
    if byte != b'\\' {
        return Some((Some(byte), at + 1));
    }
    match text.get(at + 1) {
        Some(b'u') => {
            let digits = text.get(at + 2..at + 6).and_then(|digits| std::str::from_utf8(digits).ok());
            let code = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
            Some(match code {
                Some(code) => (u8::try_from(code).ok(), at + 6),
                None => (None, at + 2),
            })
        }
        Some(escaped @ (b'"' | b'\\' | b'/')) => Some((Some(*escaped), at + 2)),
        Some(_) => Some((None, at + 2)),
        // Not JSON: the backslash is one.
        None => Some((Some(byte), at + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "corp/n0t-a-\\known-prefix\"x";

    fn masked(body: &str) -> String {
        let mask = Mask::of([TOKEN.as_bytes(), b"Y29ycDpzZWNyZXQ="]);
        let body = mask.body(Bytes::copy_from_slice(body.as_bytes()));
        String::from_utf8(body.to_vec()).expect("text")
    }

    #[test]
    fn h42_an_echoed_token_is_masked_however_it_is_written() {
        let all: String = TOKEN.chars().map(|c| format!("\\u{:04X}", u32::from(c))).collect();
        let json = serde_json::to_string(TOKEN).expect("JSON");
        let slashed = json.replace('/', "\\/");
        for form in [json.trim_matches('"'), slashed.trim_matches('"'), &all] {
            let text = format!(r#"{{"name":"\n\\{form}{form}.","id":7}}"#);
            let answer: serde_json::Value = serde_json::from_str(&masked(&text)).expect("still JSON");
            let name = answer["name"].as_str().expect("a name");
            assert_eq!(name.replace('*', ""), "\n\\.", "{form}");
            assert_eq!(answer["id"], 7);
        }
        assert_eq!(
            masked("Basic Y29ycDpzZWNyZXQ= Y29ycDpzZWNyZXQ="),
            "Basic **************** ****************"
        );
    }

    #[test]
    fn an_answer_without_the_token_stays_as_it_is() {
        for text in ["", "c", "\\", "\\u00", "\\u00zz corp", "[\"corp\\/n0t\"]", &TOKEN[1..]] {
            assert_eq!(masked(text), text);
        }
        let short = Mask::of([&b"id"[..]]);
        assert_eq!(short.body(Bytes::from_static(b"{\"id\":1}")), &b"{\"id\":1}"[..]);
    }

    #[test]
    fn h42_a_header_with_the_token_is_masked() {
        let mut headers = HeaderMap::new();
        let echo = HeaderValue::from_static("token=corp-no-known-prefix");
        headers.insert("x-echo", echo);
        headers.insert("x-total", HeaderValue::from_static("7"));
        let headers = Mask::of([&b"corp-no-known-prefix"[..]]).headers(headers);
        assert_eq!((headers["x-echo"].as_bytes(), headers["x-total"].as_bytes()), (&b"***"[..], &b"7"[..]));
    }
}
