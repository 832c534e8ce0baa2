//! What a token's text tells of its kind.

/// Whether a token is a JSON Web Token, as OAuth access tokens often are; no personal access token resembles one.
pub(crate) fn is_jwt(token: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    token.starts_with("eyJ") && token.split('.').count() == 3 && token.split('.').all(is_part)
}
