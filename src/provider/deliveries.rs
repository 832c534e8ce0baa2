//! What the drivers share in reading webhook deliveries. A delivery is a stranger's text until its proof was checked, and
//! its repository is read before that: everything here is bounded, and what has no sensible form stays empty.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use url::Url;

use super::api::check_shape;
use crate::domain::delivery::{DeliveryRefusal, KeyForm, Presented, Proof, RefChange};
use crate::domain::webhook::WebhookEvent;

/// The longest name of a ref or of a repository that is told, in bytes; git's own are shorter.
const MAX_NAME_BYTES: usize = 1_024;
/// Most rows that are read of a list in a delivery, such as the refs of a push; a few thousand are the most that were seen.
/// A row of two bytes becomes one of a hundred.
const MAX_ROWS: usize = 10_000;

/// The body of a delivery as `T`, whose members should be lenient. It is as bounded as a provider's answer.
///
/// # Errors
///
/// `BodyMalformed` for anything but a JSON object of that shape.
pub(crate) fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, DeliveryRefusal> {
    // A struct is read from an array, too.
    let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let text = std::str::from_utf8(body).ok().filter(|_| is_object && check_shape(body).is_ok());
    text.and_then(|text| serde_json::from_str(text).ok()).ok_or(DeliveryRefusal::BodyMalformed)
}

/// A list in a delivery: the first 10,000 rows of it.
#[derive(Debug)]
pub(crate) struct Rows<T>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Rows<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(First(PhantomData))
    }
}

struct First<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for First<T> {
    type Value = Rows<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Rows<T>, A::Error> {
        let mut rows = Vec::new();
        while rows.len() < MAX_ROWS {
            match list.next_element()? {
                Some(row) => rows.push(row),
                None => return Ok(Rows(rows)),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Rows(rows))
    }
}

/// What a header presents that is the HMAC-SHA256 of the body: 64 hexadecimal digits behind `prefix`.
///
/// # Errors
///
/// `Unsigned` without the header, `ProofMalformed` for another form.
pub(crate) fn hmac_proof(header: Option<&str>, prefix: &str) -> Result<Proof, DeliveryRefusal> {
    let text = header.ok_or(DeliveryRefusal::Unsigned)?;
    let tag = text.strip_prefix(prefix).and_then(tag).ok_or(DeliveryRefusal::ProofMalformed)?;
    let presented = Presented::HmacSha256 { prefix: Vec::new(), tags: vec![tag], key: KeyForm::Text };
    Ok(Proof { presented, sent_time: None })
}

/// The 32 bytes of 64 hexadecimal digits, and of nothing else.
fn tag(text: &str) -> Option<[u8; 32]> {
    let mut tag = [0; 32];
    if text.len() != 2 * tag.len() {
        return None;
    }
    for (byte, pair) in tag.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(tag)
}

/// A commit id, which some providers shorten; empty for the zeros that stand for none, and for what is none.
pub(crate) fn commit_id(text: Option<&str>) -> String {
    let text = text.unwrap_or("");
    let is_id = (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_zero = text.bytes().all(|byte| byte == b'0');
    if is_id && !is_zero { text.to_owned() } else { String::new() }
}

/// A name of a ref, a repository or the like, as it is; empty for one that neither git nor a provider allows.
pub(crate) fn name(text: Option<&str>) -> String {
    let fits = |text: &&str| text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control);
    text.filter(fits).unwrap_or("").to_owned()
}

/// The name of a branch without `refs/heads/`.
pub(crate) fn branch(text: Option<&str>) -> String {
    name(text.map(|text| text.strip_prefix("refs/heads/").unwrap_or(text)))
}

/// The event that changes of refs are: one of tags if all of them are tags.
pub(crate) fn event_of(changes: &[RefChange]) -> WebhookEvent {
    let is_tag = |change: &RefChange| change.git_ref.starts_with("refs/tags/");
    if !changes.is_empty() && changes.iter().all(is_tag) { WebhookEvent::Tag } else { WebhookEvent::Push }
}

/// Whether a webhook's URL is the target, however either is written.
pub(crate) fn same_target(url: &str, target: &str) -> bool {
    url == target || matches!((Url::parse(url), Url::parse(target)), (Ok(url), Ok(target)) if url == target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Row {
        #[serde(default)]
        id: u64,
    }

    #[test]
    fn h18_only_a_bounded_object_is_a_body() {
        let id = |body: &[u8]| object::<Row>(body).map(|row| row.id);
        assert_eq!(id(b" \n{\"id\":7,\"more\":[[]]}"), Ok(7));
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(100), "]".repeat(100));
        for bad in ["", "[7]", "null", "{\"id\":\"7\"}", "{\"id\":7", "payload=%7B%7D", "{}x", deep.as_str()]
        {
            assert_eq!(id(bad.as_bytes()), Err(DeliveryRefusal::BodyMalformed), "{bad}");
        }
        assert_eq!(id(b"{\"x\":\"\xff\"}"), Err(DeliveryRefusal::BodyMalformed));
    }

    #[test]
    fn h18_a_list_without_end_is_cut() {
        let rows = |text: &str| serde_json::from_str::<Rows<Row>>(text).map(|rows| rows.0.len()).ok();
        assert_eq!((rows("[]"), rows("[{},{\"id\":7}]")), (Some(0), Some(2)));
        assert_eq!(rows(&format!("[{}{{}}]", "{},".repeat(1_000_000))), Some(MAX_ROWS));
        assert_eq!((rows("{}"), rows("[7]"), rows("[{},")), (None, None, None));
    }

    #[test]
    fn a_signature_is_64_digits_behind_its_prefix() {
        let digits = "0f".repeat(32);
        let refused = |header: Option<&str>| hmac_proof(header, "sha256=").err();
        let right = format!("sha256={digits}");
        let found = hmac_proof(Some(&right), "sha256=").map(|proof| proof.presented);
        assert!(matches!(found, Ok(Presented::HmacSha256 { tags, .. }) if tags == [[15; 32]]));
        assert_eq!(refused(None), Some(DeliveryRefusal::Unsigned));
        for bad in [
            digits.clone(),
            format!("sha1={digits}"),
            format!("sha256={}", &digits[1..]),
            format!("sha256={digits}0f"),
            format!("sha256={}+f", &digits[2..]),
            format!("sha256={}\u{e9}", &digits[2..]),
            format!("{right}, {right}"),
            "sha256=".to_owned(),
        ] {
            assert_eq!(refused(Some(&bad)), Some(DeliveryRefusal::ProofMalformed), "{bad}");
        }
    }

    #[test]
    fn a_commit_id_of_zeros_is_none() {
        let id = "40e7580cf11311d84a6e5e97e2cbba6df1675750";
        assert_eq!(commit_id(Some(id)), id);
        assert_eq!(commit_id(Some("7d1a175411ef")), "7d1a175411ef");
        for none in
            [None, Some(""), Some(&*"0".repeat(40)), Some("abc"), Some("main\n"), Some(&*"a".repeat(65))]
        {
            assert_eq!(commit_id(none), "", "{none:?}");
        }
    }

    #[test]
    fn names_that_cannot_be_are_left_out() {
        assert_eq!(name(Some("refs/heads/gr\u{fc}n")), "refs/heads/gr\u{fc}n");
        assert_eq!(
            (branch(Some("refs/heads/a/b")), branch(Some("a/b"))),
            ("a/b".to_owned(), "a/b".to_owned())
        );
        for none in [None, Some("a\nb"), Some(&*"x".repeat(2_000))] {
            assert_eq!(name(none), "");
        }
    }

    #[test]
    fn changes_are_of_tags_only_if_all_are() {
        let change = |git_ref: &str| RefChange {
            git_ref: git_ref.to_owned(),
            before: String::new(),
            after: String::new(),
        };
        assert_eq!(event_of(&[change("refs/tags/a"), change("refs/tags/b")]), WebhookEvent::Tag);
        assert_eq!(event_of(&[change("refs/tags/a"), change("refs/heads/b")]), WebhookEvent::Push);
        assert_eq!(event_of(&[]), WebhookEvent::Push);
    }

    #[test]
    fn ac_54_targets_are_compared_as_urls() {
        let target = "https://hooks.example/a?x=1";
        assert!(same_target(target, target) && same_target("HTTPS://Hooks.example:443/a?x=1", target));
        assert!(same_target("https://hooks.example", "https://hooks.example/"));
        for other in
            ["", "https://hooks.example/a", "http://hooks.example/a?x=1", "https://hooks.example/A?x=1"]
        {
            assert!(!same_target(other, target), "{other}");
        }
    }
}
