//! The filter (AIP-160) and the order (AIP-132) of listings.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::domain::connection::{Connection, Hosting};
use crate::domain::link::Link;
use crate::domain::timestamp::Timestamp;
use crate::domain::violation::{FieldReason, Refusal};

/// Longest filter, in bytes.
const MAX_FILTER_BYTES: usize = 2_048;
/// Most terms of a filter.
const MAX_TERMS: usize = 20;
/// Stands among the fields of rows that have labels.
const LABELS: &str = "labels.KEY";

/// A kind of rows that a filter selects from.
pub trait Filtered {
    /// The fields that a filter may name; `labels.KEY` stands for every label.
    const FIELDS: &'static [&'static str];
    /// A filter as it may look.
    const EXAMPLE: &'static str;

    /// Whether the field has that value; a field that is not there has none.
    fn has(&self, field: &str, value: &str) -> bool;
}

/// A kind of rows that a listing orders.
pub trait Ordered {
    /// The fields that an order may name; `create_time` is one of them.
    const ORDERS: &'static [&'static str];

    /// A text by which rows are sorted as they are by that field.
    fn sort_key(&self, field: &str) -> String;

    /// What tells rows apart that are equal in the order.
    fn id(&self) -> &str;
}

/// Terms that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl Filter {
    /// Parses terms `field = "value"` or `field != "value"`, joined by `AND`, for rows of the kind `T`. Empty:
    /// everything.
    ///
    /// # Errors
    ///
    /// `TOO_LONG`, `TOO_MANY` or `MALFORMED`, saying where.
    pub fn parse<T: Filtered>(text: &str) -> Result<Self, Refusal> {
        if text.len() > MAX_FILTER_BYTES {
            return Err(Refusal::new(FieldReason::TooLong, "a filter has at most 2,048 bytes"));
        }
        let malformed = |what: String| {
            Refusal::new(FieldReason::Malformed, format!("{what}; an example: {}", T::EXAMPLE))
        };
        let mut terms = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            if !terms.is_empty() {
                rest = rest
                    .strip_prefix("AND")
                    .filter(|after| after.starts_with(char::is_whitespace))
                    .ok_or_else(|| malformed("terms are joined by AND".to_owned()))?
                    .trim_start();
            }
            let (term, after) = parse_term(rest, T::FIELDS).map_err(malformed)?;
            terms.push(term);
            rest = after.trim_start();
        }
        if terms.len() > MAX_TERMS {
            return Err(Refusal::new(FieldReason::TooMany, "a filter has at most 20 terms"));
        }
        Ok(Self(terms))
    }

    /// Whether a row fulfils every term.
    #[must_use]
    pub fn matches<T: Filtered>(&self, row: &T) -> bool {
        self.0.iter().all(|term| row.has(&term.field, &term.value) == term.equal)
    }
}

fn parse_term<'a>(text: &'a str, fields: &[&str]) -> Result<(Term, &'a str), String> {
    let name_end = text.find(|c: char| c.is_whitespace() || c == '=' || c == '!').unwrap_or(text.len());
    let (name, rest) = text.split_at(name_end);
    let is_label = fields.contains(&LABELS) && label_key(name).is_some_and(|key| !key.is_empty());
    if !is_label && (name == LABELS || !fields.contains(&name)) {
        return Err(format!("the fields are {}", fields.join(", ")));
    }
    let rest = rest.trim_start();
    let (equal, rest) = match (rest.strip_prefix("!="), rest.strip_prefix('=')) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        _ => return Err("a field is followed by = or !=".to_owned()),
    };
    let (value, rest) = parse_value(rest.trim_start())?;
    Ok((Term { field: name.to_owned(), equal, value }, rest))
}

fn label_key(field: &str) -> Option<&str> {
    field.strip_prefix("labels.")
}

/// Whether the label that `field` names has that value.
fn has_label(labels: &BTreeMap<String, String>, field: &str, value: &str) -> bool {
    label_key(field).and_then(|key| labels.get(key)).is_some_and(|found| found == value)
}

/// A quoted text, or a bare word for `true`, `ACTIVE` and the like.
fn parse_value(text: &str) -> Result<(String, &str), String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end =
            text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        return if word.is_empty() {
            Err("a value stands in quotation marks".to_owned())
        } else {
            Ok((word.to_owned(), rest))
        };
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                _ => return Err("a backslash stands only before \" or \\".to_owned()),
            },
            other => value.push(other),
        }
    }
    Err("a quotation mark is not closed".to_owned())
}

/// The order of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderBy {
    field: &'static str,
    descending: bool,
}

/// Where a row stands in an order; ties are broken by the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    key: String,
    id: String,
}

impl OrderBy {
    /// Parses one of the orders of `T`, with ` desc` if wanted. Empty: `create_time`.
    ///
    /// # Errors
    ///
    /// `MALFORMED`.
    pub fn parse<T: Ordered>(text: &str) -> Result<Self, Refusal> {
        let mut words = text.split_whitespace();
        let wanted = words.next().unwrap_or("create_time");
        let descending = match words.next() {
            None => Some(false),
            Some("desc") => Some(true),
            Some(_) => None,
        };
        let field = T::ORDERS.iter().copied().find(|known| *known == wanted);
        match (field, descending, words.next()) {
            (Some(field), Some(descending), None) => Ok(Self { field, descending }),
            _ => Err(Refusal::new(
                FieldReason::Malformed,
                format!("order by one of {}, with ` desc` behind it for the reverse", T::ORDERS.join(", ")),
            )),
        }
    }

    /// Where a row stands.
    #[must_use]
    pub fn place<T: Ordered>(self, row: &T) -> Place {
        Place { key: row.sort_key(self.field), id: row.id().to_owned() }
    }

    /// Which of two places comes first.
    #[must_use]
    pub fn compare(self, left: &Place, right: &Place) -> Ordering {
        let keys = left.key.cmp(&right.key);
        if self.descending { keys.reverse() } else { keys }.then_with(|| left.id.cmp(&right.id))
    }
}

/// Twenty digits hold every time, so that texts sort as times do.
fn time_key(time: Timestamp) -> String {
    format!("{:020}", time.unix_micros().max(0))
}

impl Place {
    /// As bytes for a page token.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = (self.key.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        bytes
    }

    /// The place that was encoded; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_at_checked(4)?;
        let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
        let (key, id) = rest.split_at_checked(length)?;
        Some(Self { key: String::from_utf8(key.to_vec()).ok()?, id: String::from_utf8(id.to_vec()).ok()? })
    }
}

/// A connection as it is presented.
impl Filtered for Connection {
    const FIELDS: &'static [&'static str] =
        &["provider", "state", "hosting", "disabled", "display_name", LABELS];
    const EXAMPLE: &'static str = "provider = \"gitlab\" AND state != \"ACTIVE\"";

    fn has(&self, field: &str, value: &str) -> bool {
        match field {
            "provider" => self.provider.as_str() == value,
            "state" => self.state.as_str() == value,
            "hosting" => {
                let hosting = match self.hosting {
                    Hosting::Cloud => "CLOUD",
                    Hosting::SelfHosted => "SELF_HOSTED",
                };
                hosting == value
            }
            "disabled" => value == if self.disabled { "true" } else { "false" },
            "display_name" => self.display_name.as_str() == value,
            label => has_label(&self.labels, label, value),
        }
    }
}

impl Ordered for Connection {
    const ORDERS: &'static [&'static str] = &["display_name", "create_time", "update_time"];

    fn sort_key(&self, field: &str) -> String {
        match field {
            "display_name" => self.display_name.fold(),
            "update_time" => time_key(self.update_time),
            _ => time_key(self.create_time),
        }
    }

    fn id(&self) -> &str {
        self.name.id.as_str()
    }
}

/// A name that its repository had before is as good as its name now.
impl Filtered for Link {
    const FIELDS: &'static [&'static str] =
        &["connection", "provider", "state", "repository.full_name", "repository.provider_id", LABELS];
    const EXAMPLE: &'static str = "repository.full_name = \"acme/website\" AND state = \"LINKED\"";

    fn has(&self, field: &str, value: &str) -> bool {
        match field {
            "connection" => self.connection_name().to_string() == value,
            "provider" => self.provider.as_str() == value,
            "state" => self.state.as_str() == value,
            "repository.full_name" => {
                self.repository.full_name == value
                    || self.previous_full_names.iter().any(|name| name == value)
            }
            "repository.provider_id" => self.repository.provider_id == value,
            label => has_label(&self.labels, label, value),
        }
    }
}

impl Ordered for Link {
    const ORDERS: &'static [&'static str] = &["full_name", "create_time", "update_time"];

    fn sort_key(&self, field: &str) -> String {
        match field {
            "full_name" => caseless::default_case_fold_str(&self.repository.full_name),
            "update_time" => time_key(self.update_time),
            _ => time_key(self.create_time),
        }
    }

    fn id(&self) -> &str {
        self.name.id.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_joins_terms_by_and() {
        let filter = Filter::parse::<Connection>(
            r#"provider = "gitlab" AND labels.team != "a \"b\"" AND disabled=true"#,
        );
        assert_eq!(filter.expect("valid").0.len(), 3);
        assert_eq!(Filter::parse::<Connection>("  ").expect("valid"), Filter::default());
    }

    #[test]
    fn a_malformed_filter_is_refused() {
        for bad in [
            "provider",
            "provider =",
            "provider = \"x",
            "provider = \"x\" OR state = \"ACTIVE\"",
            "provider = \"x\" state = \"ACTIVE\"",
            "token = \"x\"",
            "labels.KEY.x > \"x\"",
            "labels. = \"x\"",
            "provider > \"x\"",
            "provider = \"a\\n\"",
        ] {
            assert_eq!(
                Filter::parse::<Connection>(bad).expect_err(bad).reason,
                FieldReason::Malformed,
                "{bad}"
            );
        }
        let many = vec!["disabled = true"; 21].join(" AND ");
        assert_eq!(Filter::parse::<Connection>(&many).expect_err("many").reason, FieldReason::TooMany);
        assert_eq!(
            Filter::parse::<Connection>(&" ".repeat(2_049)).expect_err("long").reason,
            FieldReason::TooLong
        );
    }

    #[test]
    fn an_order_names_one_field() {
        assert!(OrderBy::parse::<Connection>("").is_ok());
        assert!(OrderBy::parse::<Connection>("display_name desc").is_ok());
        for bad in ["name", "display_name asc", "display_name desc x", "create_time,update_time"] {
            assert!(OrderBy::parse::<Connection>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_survives_a_token() {
        let place = Place { key: "stra\u{df}e".into(), id: "a".into() };
        assert_eq!(Place::decode(&place.encode()), Some(place));
        assert_eq!(Place::decode(&[0, 0, 0, 9, 1]), None);
    }
}
