//! Members of a provider's JSON that several drivers read alike.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ProviderError;
use crate::domain::timestamp::Timestamp;

/// Most rows that an answer may have: the largest page of any provider.
const MAX_ROWS: usize = 1_000;

/// A database id: a whole number from 1 to 2^63 - 1. A string, a fraction or anything beyond is an error, never
/// a wrapped number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) u64);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = i64::deserialize(deserializer)?;
        match u64::try_from(id) {
            Ok(id) if id > 0 => Ok(Self(id)),
            _ => Err(serde::de::Error::custom("an id is a positive number")),
        }
    }
}

impl Id {
    /// Whether a text is an id as it is written here: no sign, no zero before it. Only such a text becomes a
    /// part of a path.
    pub(crate) fn is_canonical(text: &str) -> bool {
        (1..=19).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && !text.starts_with('0')
    }
}

/// A member that is not needed: of another shape, it counts as missing.
pub(crate) fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    // As raw text first: an untagged enum would keep a copy of every member, for every row.
    let raw = Option::<&'de RawValue>::deserialize(deserializer)?;
    Ok(raw.and_then(|raw| serde_json::from_str(raw.get()).ok()))
}

/// The rows of a page, if they are not far more than any page has.
///
/// # Errors
///
/// `Failed` for more than 1,000 rows.
pub(crate) fn bounded<T>(rows: Vec<T>) -> Result<Vec<T>, ProviderError> {
    if rows.len() > MAX_ROWS {
        return Err(ProviderError::garbled("its page has far more rows than it was asked for"));
    }
    Ok(rows)
}

/// A moment in the form of RFC 3339; `None` for any other text.
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(moment.unix_timestamp_nanos() / 1_000).ok().map(Timestamp::from_unix_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h19_an_id_is_a_whole_positive_number_below_2_to_the_63() {
        let parse = |id: &str| serde_json::from_str::<Id>(id).is_ok();
        assert!(parse("1") && parse("9223372036854775807"));
        for bad in ["0", "-1", "\"1\"", "1.5", "1.0", "1e400", "9223372036854775808", "null", "[]"] {
            assert!(!parse(bad), "{bad}");
        }
    }

    #[test]
    fn a_moment_of_another_form_is_none() {
        assert_eq!(
            moment("2015-03-03T18:37:05.387Z"),
            Some(Timestamp::from_unix_micros(1_425_407_825_387_000))
        );
        assert_eq!(moment("yesterday"), None);
    }
}
