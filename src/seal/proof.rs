//! Whether what a webhook delivery presents was made with a secret.

use ring::hmac;
use zeroize::Zeroizing;

use crate::domain::credential::Secret;
use crate::domain::delivery::{KeyForm, Presented};

/// Whether `presented`, found with `body`, was made with `secret`. Takes the same time wherever they differ.
#[must_use]
pub fn proves(presented: &Presented, secret: &Secret, body: &[u8]) -> bool {
    match presented {
        Presented::HmacSha256 { prefix, tags, key } => {
            let Some(key) = key_of(secret, *key) else { return false };
            let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
            context.update(prefix);
            context.update(body);
            let right = context.sign();
            // The comparison of ring's own `verify`, once for each tag, without hashing the body again.
            let blind = hmac::Key::new(hmac::HMAC_SHA256, right.as_ref());
            tags.iter()
                .any(|tag| hmac::verify(&blind, tag, hmac::sign(&blind, right.as_ref()).as_ref()).is_ok())
        }
        Presented::Secret(found) => {
            // Tags of both under one key: their comparison tells nothing of where the texts differ.
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
            let right = hmac::sign(&key, secret.expose().as_bytes());
            hmac::verify(&key, found.expose().as_bytes(), right.as_ref()).is_ok()
        }
    }
}

fn key_of(secret: &Secret, form: KeyForm) -> Option<Zeroizing<Vec<u8>>> {
    let text = secret.expose();
    match form {
        KeyForm::Text => Some(Zeroizing::new(text.as_bytes().to_vec())),
        KeyForm::Hex => {
            let digits = text.as_bytes().chunks_exact(2);
            if !digits.remainder().is_empty() {
                return None;
            }
            let mut key = Zeroizing::new(Vec::with_capacity(text.len() / 2));
            for pair in digits {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                key.push(u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?);
            }
            Some(key)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(key: &[u8], text: &[u8]) -> [u8; 32] {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().try_into().expect("32 bytes")
    }

    #[test]
    fn any_of_the_tags_may_be_the_right_one() {
        let right = signed(b"secret", b"1.body");
        let presented = |tags| Presented::HmacSha256 { prefix: b"1.".to_vec(), tags, key: KeyForm::Text };
        let secret = Secret::new("secret".to_owned());
        assert!(proves(&presented(vec![[0; 32], right]), &secret, b"body"));
        assert!(!proves(&presented(vec![right]), &secret, b"bodY"));
        assert!(!proves(&presented(vec![right]), &Secret::new("other".to_owned()), b"body"));
        assert!(!proves(&presented(Vec::new()), &secret, b"body"));
    }

    #[test]
    fn a_key_can_be_written_in_hexadecimal() {
        let presented = Presented::HmacSha256 {
            prefix: Vec::new(),
            tags: vec![signed(&[0, 255, 16], b"body")],
            key: KeyForm::Hex,
        };
        assert!(proves(&presented, &Secret::new("00ff10".to_owned()), b"body"));
        for wrong in ["00ff11", "00ff1", "00ff1x", ""] {
            assert!(!proves(&presented, &Secret::new(wrong.to_owned()), b"body"), "{wrong}");
        }
    }

    #[test]
    fn a_presented_secret_is_compared_whole() {
        let secret = Secret::new("secret".to_owned());
        for (found, right) in [("secret", true), ("secre", false), ("secret ", false), ("", false)] {
            assert_eq!(
                proves(&Presented::Secret(Secret::new(found.to_owned())), &secret, b""),
                right,
                "{found}"
            );
        }
    }
}
