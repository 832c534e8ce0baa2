//! What a request is recognised by: when it comes again (AIP-155), and when it asks for the next page (AIP-158).

use prost::Message;
use zeroize::Zeroizing;

use crate::service::error::Error;
use crate::service::once::Repeat;

/// Method and message as bytes: what a page token is bound to.
pub(super) fn content<M: Message>(method: &str, message: &M) -> Vec<u8> {
    let mut content = Vec::with_capacity(method.len() + 1 + message.encoded_len());
    content.extend_from_slice(method.as_bytes());
    content.push(0);
    content.extend_from_slice(&message.encode_to_vec());
    content
}

/// The same for a request that may come again. It may hold a token, so it is wiped; nothing is made without an id.
pub(super) fn content_of<M: Message>(
    method: &str,
    message: &M,
    request_id: Option<&str>,
) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(if request_id.is_some() { content(method, message) } else { Vec::new() })
}

/// A dry run has no effect to be remembered.
pub(super) fn repeat<'a, T: ?Sized>(
    request_id: Option<&'a str>,
    content: &'a [u8],
    validate_only: bool,
    encode: fn(&T) -> Vec<u8>,
) -> Option<Repeat<'a, T>> {
    request_id.filter(|_| !validate_only).map(|request_id| Repeat { request_id, content, encode })
}

/// The answer that was remembered.
///
/// # Errors
///
/// A defect: it was encoded by this program.
pub(super) fn decode<M: Message + Default>(answer: &[u8]) -> Result<M, Error> {
    M::decode(answer).map_err(|_| Error::Bug { problem: "a remembered answer does not decode".to_owned() })
}
