//! Tests of the envelope.

use std::collections::HashSet;
use std::path::Path;

use proptest::prelude::*;

use super::*;

const TOKEN: &str = "glpat-CANARY0123456789abcd";
const BINDING: Binding<'static> =
    Binding { tenant: "acme", uid: "0190-uid", field: "credential", origin: "https://gitlab.example:443" };

fn ring(keys: &[(&str, u8)]) -> KeyRing {
    let lines: Vec<_> = keys
        .iter()
        .map(|(id, byte)| format!("{id} 2026-01-01T00:00:00Z {}", BASE64.encode([*byte; KEY_BYTES])))
        .collect();
    KeyRing::parse(lines.join("\n").as_bytes(), Path::new("test")).expect("key ring")
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

/// Sealed by the first version that was ever released. It must open for ever.
const GOLDEN: &str = "AQJrMScSz6NG56rbRmX1qOoSn7gS0jV+lsia4rECckTyyq8lWrpFcc6JiRfm7XO4IiKYTAjTrr9fTFiG+bdSf6fUriAPASXp5SkVWaH3kgMpzTn8RGKuTVK45SCrTHCo16J8nsknp2zoYzy8id1yvDcNDbNgHNJHxI/DLrYB/hbqIYAWcgz+L6yZYUMgNtiEd18/pAyU";

#[test]
fn a_blob_of_version_1_still_opens() {
    let sealed = Sealed(BASE64.decode(GOLDEN).expect("base64"));
    let opened = ring(&[("k1", 1), ("k2", 2)]).open(&sealed, &BINDING).expect("opens");
    assert_eq!(opened.expose(), TOKEN);
    assert_eq!(KeyRing::key_id_of(&sealed), Ok("k1"));
}

#[test]
fn the_newest_key_seals_and_all_open() {
    let old = ring(&[("k1", 1)]).seal(&secret(TOKEN), &BINDING).expect("sealed");
    let both = ring(&[("k1", 1), ("k2", 2)]);
    let new = both.seal(&secret(TOKEN), &BINDING).expect("sealed");
    assert_eq!(KeyRing::key_id_of(&new), Ok("k2"));
    for sealed in [&old, &new] {
        assert_eq!(both.open(sealed, &BINDING).expect("opens").expose(), TOKEN);
    }
}

#[test]
fn a_missing_key_is_named_and_a_wrong_key_of_that_name_opens_nothing() {
    let sealed = ring(&[("k1", 1)]).seal(&secret(TOKEN), &BINDING).expect("sealed");
    assert_eq!(
        ring(&[("k2", 2)]).open(&sealed, &BINDING),
        Err(SealError::KeyUnavailable { key_id: "k1".into() })
    );
    assert_eq!(ring(&[("k1", 2)]).open(&sealed, &BINDING), Err(SealError::Unreadable));
}

#[test]
fn s07_every_flipped_bit_and_every_cut_is_noticed() {
    let ring = ring(&[("k1", 1), ("k3", 3)]);
    let sealed = ring.seal(&secret(TOKEN), &BINDING).expect("sealed");
    for at in 0..sealed.0.len() {
        for bit in 0..8 {
            let mut damaged = sealed.clone();
            damaged.0[at] ^= 1 << bit;
            assert!(ring.open(&damaged, &BINDING).is_err(), "byte {at}, bit {bit}");
        }
        let cut = Sealed(sealed.0[..at].to_vec());
        assert_eq!(ring.open(&cut, &BINDING), Err(SealError::Unreadable), "cut at {at}");
    }
    let mut longer = sealed;
    longer.0.push(0);
    assert_eq!(ring.open(&longer, &BINDING), Err(SealError::Unreadable));
}

#[test]
fn s07_a_blob_opens_only_where_it_belongs() {
    let ring = ring(&[("k1", 1)]);
    let sealed = ring.seal(&secret(TOKEN), &BINDING).expect("sealed");
    let others = [
        Binding { tenant: "acme2", ..BINDING },
        Binding { uid: "0190-other", ..BINDING },
        Binding { field: "webhook", ..BINDING },
        Binding { origin: "https://gitlab.example:8443", ..BINDING },
        Binding { origin: "http://gitlab.example:443", ..BINDING },
        // The same letters, divided otherwise.
        Binding { tenant: "acme0", uid: "190-uid", ..BINDING },
    ];
    for other in others {
        assert_eq!(ring.open(&sealed, &other), Err(SealError::Unreadable), "{other:?}");
    }
}

#[test]
fn k06_a_newer_form_is_named_and_not_guessed() {
    let ring = ring(&[("k1", 1)]);
    let mut sealed = ring.seal(&secret(TOKEN), &BINDING).expect("sealed");
    sealed.0[0] = 2;
    assert_eq!(ring.open(&sealed, &BINDING), Err(SealError::TooNew { found: 2, known: 1 }));
}

#[test]
fn k18_no_wrap_key_and_no_nonce_is_used_twice() {
    // 2^16 whole seals; the salts are 256 random bits, so that a repeat would mean a broken source.
    let ring = ring(&[("k1", 1)]);
    let mut seen = HashSet::new();
    for _ in 0..1 << 16 {
        let sealed = ring.seal(&secret(""), &BINDING).expect("sealed");
        let blob = Blob::parse(&sealed.0).expect("parses");
        assert!(seen.insert(<[u8; SALT_BYTES]>::try_from(blob.salt).expect("32 bytes")));
    }
}

#[test]
fn nothing_here_prints_a_key() {
    let ring = ring(&[("k1", b'A')]);
    let identity = ServiceSecret::generate().expect("drawn");
    let printed = format!("{ring:?} {identity:?} {:?}", ring.seal(&secret(TOKEN), &BINDING));
    assert!(!printed.contains("AAAA") && !printed.contains("65") && !printed.contains("CANARY"), "{printed}");
}

#[test]
fn the_service_secret_survives_a_rotation_and_its_codes_never_change() {
    let root = ServiceSecret::from_root(Zeroizing::new([7; KEY_BYTES])).expect("derived");
    let sealed = root.seal(&ring(&[("k1", 1)])).expect("sealed");
    let opened = ServiceSecret::open(&ring(&[("k1", 1), ("k2", 2)]), &sealed).expect("opens");
    // Stored beside connections and requests: these values may never change.
    assert_eq!(opened.fingerprint(&secret(TOKEN)), "8278602a81ee7942");
    let request = opened.request_fingerprint(b"content");
    assert_eq!(BASE64.encode(&request), "7JXXPIf+CLDzLQN9z1O7YcU55c6etj0hKPej1ob2JRY=");
    assert!(opened.verify_request(b"content", &request));
    assert!(!opened.verify_request(b"Content", &request));
    let page = opened.page_token_mac(b"content");
    assert!(opened.verify_page_token(b"content", &page));
    assert!(!opened.verify_page_token(b"content", &page[..31]));
    assert_ne!(page, request, "each use has a key of its own");
    let another = ServiceSecret::generate().expect("drawn");
    assert!(!another.verify_page_token(b"content", &page));
}

#[test]
fn s28_a_foreign_key_file_is_noticed_by_the_service_secret() {
    let sealed = ServiceSecret::generate().expect("drawn").seal(&ring(&[("k1", 1)])).expect("sealed");
    let error = ServiceSecret::open(&ring(&[("k2", 2)]), &sealed).expect_err("refused");
    assert_eq!(error, SealError::KeyUnavailable { key_id: "k1".into() });
}

proptest! {
    #[test]
    fn what_was_sealed_opens_and_does_not_show(
        text in "\\PC{0,200}",
        tenant in "[a-z0-9-]{0,63}",
        uid in "[a-z0-9-]{0,36}",
        origin in "\\PC{0,60}",
    ) {
        let ring = ring(&[("k1", 1)]);
        let binding = Binding { tenant: &tenant, uid: &uid, field: "credential", origin: &origin };
        let sealed = ring.seal(&secret(&text), &binding).expect("sealed");
        if text.len() > 3 {
            prop_assert!(!sealed.0.windows(text.len()).any(|window| window == text.as_bytes()));
        }
        let opened = ring.open(&sealed, &binding).expect("opens");
        prop_assert_eq!(opened.expose(), text);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(ring(&[("k1", 1)]).open(&Sealed(bytes), &BINDING).is_err());
    }
}

#[test]
fn w03_webhook_secrets_have_256_bits_and_never_come_twice() {
    let ring = ring(&[("k1", 1)]);
    let drawn: HashSet<String> =
        (0..10_000).map(|_| ring.draw_webhook_secret().expect("random bytes").expose().to_owned()).collect();
    assert_eq!(drawn.len(), 10_000);
    assert!(drawn.iter().all(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())));
}
