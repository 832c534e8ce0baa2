//! Secrets at rest: an AEAD envelope under a ring of keys with ids.
//!
//! # The sealed form, version 1
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | format version: 1 |
//! | 1, n | length and text of the id of the key-encryption key |
//! | 32 | salt of this record |
//! | 12, 48 | nonce and wrapped data key (32 bytes and tag) |
//! | 12, m + 16 | nonce and sealed secret (m bytes and tag) |
//!
//! Both layers are AES-256-GCM. The data key is drawn anew for every record. It is wrapped under
//! HKDF-SHA256(salt, key-encryption key), so each key of either layer encrypts exactly one message:
//! the bound of 2^32 random nonces per key never comes near, and the number of records under one
//! key-encryption key is bounded by collisions of 256-bit salts only. Nothing has to be counted.
//!
//! The associated data of both layers holds the format version, tenant, uid, field, origin and key id,
//! each with its length. A blob that is copied to another record, or whose record is pointed at
//! another host, does not open.
//!
//! What is not promised: a rollback of the whole store to an older state of itself is not noticed here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hkdf, hmac};
use zeroize::{Zeroize as _, Zeroizing};

use crate::domain::credential::{Sealed, Secret};

mod key_file;
mod proof;

pub use proof::proves;

pub use key_file::{KeyFile, KeyFileError, KeyProblem};

/// The bytes of every key here: AES-256 and the HMAC keys alike.
pub const KEY_BYTES: usize = 32;

/// The newest sealed form that this program reads, and the one that it writes.
const VERSION: u8 = 1;

const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// What the key of the outer layer is for, so that it serves nothing else.
const WRAP_LABEL: &[u8] = b"gitmoor/seal/v1/wrap-key";

/// The keys that seal and open. The newest seals; all open.
///
/// Cost: one seal or open is two AES-GCM passes and one HKDF, a few microseconds; it never waits.
pub struct KeyRing {
    /// Oldest first, never empty.
    keys: Vec<Kek>,
    random: SystemRandom,
}

/// A key-encryption key. Its bytes are wiped when it is dropped.
struct Kek {
    id: String,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

/// What a sealed secret belongs to. It opens only together with the same values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The tenant of the record.
    pub tenant: &'a str,
    /// The uid of the record: unlike its name it is never given out twice.
    pub uid: &'a str,
    /// Which secret of the record it is.
    pub field: &'static str,
    /// Scheme, host and port where the secret may be sent, as one canonical text.
    pub origin: &'a str,
}

/// Why a secret was not sealed or not opened. Tells nothing of the secret, not even its length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key ring does not hold the key.
    #[error("the key {key_id} is not in the key file")]
    KeyUnavailable {
        /// The id of the missing key; only letters, digits, `.`, `_` and `-`.
        key_id: String,
    },
    /// The bytes, or what they belong to, are not what was sealed.
    #[error("the sealed secret is damaged, or belongs to another record or origin")]
    Unreadable,
    /// A newer version of this program sealed it.
    #[error(
        "the sealed secret has format version {found}, this program knows up to {known}; run the newer version"
    )]
    TooNew {
        /// The version that was found.
        found: u8,
        /// The newest version that this program knows.
        known: u8,
    },
    /// The operating system gave no random bytes, or the secret is too large to seal.
    #[error("the secret could not be sealed")]
    Unsealed,
}

impl KeyRing {
    /// Seals a secret under the newest key.
    ///
    /// # Errors
    ///
    /// [`SealError::Unsealed`] if the operating system gives no random bytes.
    pub fn seal(&self, secret: &Secret, binding: &Binding<'_>) -> Result<Sealed, SealError> {
        let kek = self.newest();
        let [wrap_data, seal_data] = Layer::ALL.map(|layer| associated_data(layer, binding, &kek.id));

        let mut salt = [0; SALT_BYTES];
        self.fill(&mut salt)?;
        let mut data_key = Zeroizing::new([0; KEY_BYTES]);
        self.fill(&mut *data_key)?;

        let id_length = u8::try_from(kek.id.len()).map_err(|_| SealError::Unsealed)?;
        let mut blob = Vec::with_capacity(
            2 + kek.id.len() + SALT_BYTES + 2 * (NONCE_LEN + TAG_BYTES) + KEY_BYTES + secret.expose().len(),
        );
        blob.extend_from_slice(&[VERSION, id_length]);
        blob.extend_from_slice(kek.id.as_bytes());
        blob.extend_from_slice(&salt);
        self.append_encrypted(&mut blob, kek.wrap_key(&salt)?, &wrap_data, &*data_key)?;
        let data_key = UnboundKey::new(&AES_256_GCM, &*data_key).map_err(|_| SealError::Unsealed)?;
        self.append_encrypted(&mut blob, data_key, &seal_data, secret.expose().as_bytes())?;
        Ok(Sealed(blob))
    }

    /// Opens a sealed secret, if it belongs to `binding`.
    ///
    /// # Errors
    ///
    /// [`SealError::KeyUnavailable`], [`SealError::Unreadable`], [`SealError::TooNew`].
    pub fn open(&self, sealed: &Sealed, binding: &Binding<'_>) -> Result<Secret, SealError> {
        let blob = Blob::parse(&sealed.0)?;
        let kek = self
            .keys
            .iter()
            .find(|kek| kek.id == blob.key_id)
            .ok_or_else(|| SealError::KeyUnavailable { key_id: blob.key_id.to_owned() })?;
        let [wrap_data, seal_data] = Layer::ALL.map(|layer| associated_data(layer, binding, &kek.id));

        let data_key = decrypted(kek.wrap_key(blob.salt)?, &wrap_data, blob.wrapped)?;
        let data_key = UnboundKey::new(&AES_256_GCM, &data_key).map_err(|_| SealError::Unreadable)?;
        let mut text = decrypted(data_key, &seal_data, blob.secret)?;
        // The buffer itself becomes the secret, so that no second copy is left behind.
        String::from_utf8(std::mem::take(&mut *text)).map(Secret::new).map_err(|error| {
            error.into_bytes().zeroize();
            SealError::Unreadable
        })
    }

    /// Draws the secret of a webhook: 256 bits as 64 hexadecimal digits, which every provider takes.
    ///
    /// # Errors
    ///
    /// [`SealError::Unsealed`] if the operating system gives no random bytes.
    pub fn draw_webhook_secret(&self) -> Result<Secret, SealError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        self.fill(&mut *bytes)?;
        // With its final capacity, so that it does not move and leave a copy.
        let mut text = String::with_capacity(2 * KEY_BYTES);
        for byte in bytes.iter() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        Ok(Secret::new(text))
    }

    /// The ids of all keys, oldest first.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|kek| kek.id.as_str())
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn newest_id(&self) -> &str {
        &self.newest().id
    }

    /// The id of the key that sealed something, whether or not a ring holds that key.
    ///
    /// # Errors
    ///
    /// [`SealError::Unreadable`], [`SealError::TooNew`].
    pub fn key_id_of(sealed: &Sealed) -> Result<&str, SealError> {
        Blob::parse(&sealed.0).map(|blob| blob.key_id)
    }

    #[expect(clippy::expect_used, reason = "a ring is only made from a file with at least one key")]
    fn newest(&self) -> &Kek {
        self.keys.last().expect("a key ring is never empty")
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), SealError> {
        self.random.fill(bytes).map_err(|_| SealError::Unsealed)
    }

    /// Appends a nonce and the encrypted form of `plain`. `plain` never stands in `blob`, not even for a moment.
    fn append_encrypted(
        &self,
        blob: &mut Vec<u8>,
        key: UnboundKey,
        associated: &[u8],
        plain: &[u8],
    ) -> Result<(), SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.fill(&mut nonce)?;
        // With its final capacity, so that it does not move and leave a copy.
        let mut buffer = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_BYTES));
        buffer.extend_from_slice(plain);
        LessSafeKey::new(key)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated),
                &mut *buffer,
            )
            .map_err(|_| SealError::Unsealed)?;
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(&buffer);
        Ok(())
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("key_ids", &self.key_ids().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Kek {
    fn wrap_key(&self, salt: &[u8]) -> Result<UnboundKey, SealError> {
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(&*self.bytes)
            .expand(&[WRAP_LABEL], &AES_256_GCM)
            .map(UnboundKey::from)
            .map_err(|_| SealError::Unsealed)
    }
}

/// The two encryptions of an envelope. Their associated data differs, so that neither can stand for the other.
#[derive(Clone, Copy)]
enum Layer {
    Wrap,
    Seal,
}

impl Layer {
    const ALL: [Self; 2] = [Self::Wrap, Self::Seal];

    const fn label(self) -> &'static str {
        match self {
            Self::Wrap => "wrap",
            Self::Seal => "seal",
        }
    }
}

fn associated_data(layer: Layer, binding: &Binding<'_>, key_id: &str) -> Vec<u8> {
    let parts = [layer.label(), binding.tenant, binding.uid, binding.field, binding.origin, key_id];
    let mut data = Vec::with_capacity(1 + parts.iter().map(|part| 8 + part.len()).sum::<usize>());
    data.push(VERSION);
    for part in parts {
        // The lengths keep "ab" + "c" and "a" + "bc" apart.
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part.as_bytes());
    }
    data
}

/// Decrypts a nonce with what follows it. The result is wiped when dropped, also when it did not verify.
fn decrypted(key: UnboundKey, associated: &[u8], bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, encrypted) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Unreadable)?;
    let mut buffer = Zeroizing::new(encrypted.to_vec());
    let length = LessSafeKey::new(key)
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(associated), &mut buffer)
        .map_err(|_| SealError::Unreadable)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

/// A sealed form, taken apart but not yet verified.
struct Blob<'a> {
    key_id: &'a str,
    salt: &'a [u8],
    wrapped: &'a [u8],
    secret: &'a [u8],
}

impl<'a> Blob<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, SealError> {
        let (&version, rest) = bytes.split_first().ok_or(SealError::Unreadable)?;
        match version {
            VERSION => Self::parse_v1(rest).ok_or(SealError::Unreadable),
            0 => Err(SealError::Unreadable),
            found => Err(SealError::TooNew { found, known: VERSION }),
        }
    }

    fn parse_v1(bytes: &'a [u8]) -> Option<Self> {
        let (&id_length, rest) = bytes.split_first()?;
        let (key_id, rest) = rest.split_at_checked(usize::from(id_length))?;
        let key_id = std::str::from_utf8(key_id).ok().filter(|id| key_file::is_key_id(id))?;
        let (salt, rest) = rest.split_at_checked(SALT_BYTES)?;
        let (wrapped, secret) = rest.split_at_checked(NONCE_LEN + KEY_BYTES + TAG_BYTES)?;
        Some(Self { key_id, salt, wrapped, secret })
    }
}

/// SHA-256 of texts, each with its length, in hexadecimal: equal for equal texts, and nothing to be kept secret.
#[must_use]
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The service's own secret: drawn once per store and kept there, sealed. The keys of all its message
/// authentication codes come from it, each with a label of its own.
///
/// It does not depend on which key of the ring is the newest, so a rotation changes no fingerprint.
pub struct ServiceSecret {
    root: Zeroizing<[u8; KEY_BYTES]>,
    fingerprint: MacKey,
    page_token: MacKey,
    request: MacKey,
    audit: MacKey,
}

impl ServiceSecret {
    const BINDING: Binding<'static> = Binding { tenant: "", uid: "", field: "identity", origin: "" };

    /// Draws a new one.
    ///
    /// # Errors
    ///
    /// [`SealError::Unsealed`] if the operating system gives no random bytes.
    pub fn generate() -> Result<Self, SealError> {
        let mut root = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(&mut *root).map_err(|_| SealError::Unsealed)?;
        Self::from_root(root)
    }

    /// Its sealed form, to be stored.
    ///
    /// # Errors
    ///
    /// Those of [`KeyRing::seal`].
    pub fn seal(&self, ring: &KeyRing) -> Result<Sealed, SealError> {
        ring.seal(&Secret::new(BASE64.encode(self.root.as_slice())), &Self::BINDING)
    }

    /// Opens the stored one.
    ///
    /// # Errors
    ///
    /// Those of [`KeyRing::open`]; at start, [`SealError::KeyUnavailable`] means that the key file is not
    /// the one of this store.
    pub fn open(ring: &KeyRing, sealed: &Sealed) -> Result<Self, SealError> {
        let text = ring.open(sealed, &Self::BINDING)?;
        let bytes = Zeroizing::new(BASE64.decode(text.expose()).map_err(|_| SealError::Unreadable)?);
        let mut root = Zeroizing::new([0; KEY_BYTES]);
        if bytes.len() != root.len() {
            return Err(SealError::Unreadable);
        }
        root.copy_from_slice(&bytes);
        Self::from_root(root)
    }

    /// A keyed hash of a token, 16 hexadecimal digits: equal for equal tokens, useless without this secret.
    #[must_use]
    pub fn fingerprint(&self, token: &Secret) -> String {
        let tag = self.fingerprint.tag(token.expose().as_bytes());
        tag.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The code that proves a page token to be ours.
    #[must_use]
    pub fn page_token_mac(&self, content: &[u8]) -> Vec<u8> {
        self.page_token.tag(content).as_ref().to_vec()
    }

    /// Whether `mac` is [`Self::page_token_mac`] of `content`. Takes the same time wherever they differ.
    #[must_use]
    pub fn verify_page_token(&self, content: &[u8], mac: &[u8]) -> bool {
        self.page_token.verify(content, mac)
    }

    /// A keyed hash of a request's method and content, kept with its request id. Keyed, because requests
    /// hold tokens.
    #[must_use]
    pub fn request_fingerprint(&self, content: &[u8]) -> Vec<u8> {
        self.request.tag(content).as_ref().to_vec()
    }

    /// Whether `fingerprint` is [`Self::request_fingerprint`] of `content`, in constant time.
    #[must_use]
    pub fn verify_request(&self, content: &[u8], fingerprint: &[u8]) -> bool {
        self.request.verify(content, fingerprint)
    }

    /// What makes the hashes of the audit trail.
    #[must_use]
    pub fn audit_key(&self) -> AuditKey {
        AuditKey(self.audit.clone())
    }

    fn from_root(root: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, SealError> {
        // A fixed salt: the root is uniformly random already, the labels keep the keys apart.
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"gitmoor/identity/v1").extract(&*root);
        Ok(Self {
            fingerprint: MacKey::derive(&prk, b"token-fingerprint")?,
            page_token: MacKey::derive(&prk, b"page-token")?,
            request: MacKey::derive(&prk, b"request-fingerprint")?,
            audit: MacKey::derive(&prk, b"audit-chain")?,
            root,
        })
    }
}

impl fmt::Debug for ServiceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceSecret(..)")
    }
}

/// Makes the hashes of the audit trail, and nothing else.
pub struct AuditKey(MacKey);

impl AuditKey {
    /// The HMAC-SHA256 of `content`.
    #[must_use]
    pub fn hash(&self, content: &[u8]) -> [u8; KEY_BYTES] {
        let mut hash = [0; KEY_BYTES];
        hash.copy_from_slice(self.0.tag(content).as_ref());
        hash
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(..)")
    }
}

/// An HMAC-SHA256 key. The bytes are kept instead of ring's key, which would not be wiped.
#[derive(Clone)]
struct MacKey(Zeroizing<[u8; KEY_BYTES]>);

impl MacKey {
    fn derive(prk: &hkdf::Prk, label: &[u8]) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        prk.expand(&[label], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *bytes))
            .map_err(|_| SealError::Unsealed)?;
        Ok(Self(bytes))
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &*self.0)
    }

    fn tag(&self, content: &[u8]) -> hmac::Tag {
        hmac::sign(&self.key(), content)
    }

    fn verify(&self, content: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.key(), content, tag).is_ok()
    }
}

#[cfg(test)]
mod tests;
