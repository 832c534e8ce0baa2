//! Page tokens: opaque, authenticated, bound to the request, dead after an hour.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::Error;
use crate::domain::timestamp::Timestamp;
use crate::seal::ServiceSecret;

/// How long a token lives.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// Longest token that is looked at, in characters.
const MAX_LENGTH: usize = 4_096;
/// Bytes of the authentication code, an HMAC-SHA256.
const MAC_BYTES: usize = 32;

/// What a page token is bound to: the method, the caller and every field but `page_size` and `page_token`.
#[derive(Debug, Clone)]
pub struct Binding(pub Vec<u8>);

/// Issues a token that carries `cursor` to the next call of the same request.
#[must_use]
pub(super) fn issue(secret: &ServiceSecret, binding: &Binding, cursor: &[u8], now: Timestamp) -> String {
    let mut content = now.unix_micros().to_be_bytes().to_vec();
    content.extend_from_slice(cursor);
    sign(secret, binding, content)
}

/// The cursor of a token that was issued for this very request in the last hour.
///
/// # Errors
///
/// [`Error::PageTokenInvalid`] for everything else, without saying what is wrong with it.
pub(super) fn open(
    secret: &ServiceSecret,
    binding: &Binding,
    token: &str,
    now: Timestamp,
) -> Result<Vec<u8>, Error> {
    let content = verify(secret, binding, token).ok_or(Error::PageTokenInvalid)?;
    let (time, cursor) = content.split_first_chunk().ok_or(Error::PageTokenInvalid)?;
    let issued = Timestamp::from_unix_micros(i64::from_be_bytes(*time));
    // A token from the future is as wrong as an old one: the clock was turned back since.
    if now.since(issued) >= LIFETIME || issued.since(now) >= LIFETIME {
        return Err(Error::PageTokenInvalid);
    }
    Ok(cursor.to_vec())
}

/// A token that carries `content` and proves that it is ours, for whoever has the same binding.
pub(super) fn sign(secret: &ServiceSecret, binding: &Binding, content: Vec<u8>) -> String {
    let mut token = content;
    let mac = secret.page_token_mac(&input(binding, &token));
    token.extend_from_slice(&mac);
    URL_SAFE_NO_PAD.encode(token)
}

/// The content of a token of [`sign`] for the same binding; `None` for everything else.
pub(super) fn verify(secret: &ServiceSecret, binding: &Binding, token: &str) -> Option<Vec<u8>> {
    if token.len() > MAX_LENGTH {
        return None;
    }
    let mut bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let split = bytes.len().checked_sub(MAC_BYTES)?;
    let (content, mac) = bytes.split_at(split);
    if !secret.verify_page_token(&input(binding, content), mac) {
        return None;
    }
    bytes.truncate(split);
    Some(bytes)
}

fn input(binding: &Binding, signed: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(8 + binding.0.len() + signed.len());
    input.extend_from_slice(&(binding.0.len() as u64).to_be_bytes());
    input.extend_from_slice(&binding.0);
    input.extend_from_slice(signed);
    input
}
