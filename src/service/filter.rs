//! The filter (AIP-160) and the order (AIP-132) of ListConnections.

use std::cmp::Ordering;

use crate::domain::connection::{Connection, Hosting};
use crate::domain::violation::{FieldReason, Refusal};

/// Longest filter, in bytes.
const MAX_FILTER_BYTES: usize = 2_048;
/// Most terms of a filter.
const MAX_TERMS: usize = 20;
const FIELDS: &str = "provider, state, hosting, disabled, display_name and labels.KEY";

/// Terms that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: Field,
    equal: bool,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Provider,
    State,
    Hosting,
    Disabled,
    DisplayName,
    Label(String),
}

impl Filter {
    /// Parses terms `field = "value"` or `field != "value"`, joined by `AND`. Empty: everything.
    ///
    /// # Errors
    ///
    /// `TOO_LONG`, `TOO_MANY` or `MALFORMED`, saying where.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() > MAX_FILTER_BYTES {
            return Err(Refusal::new(FieldReason::TooLong, "a filter has at most 2,048 bytes"));
        }
        let mut terms = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            if !terms.is_empty() {
                rest = rest
                    .strip_prefix("AND")
                    .filter(|after| after.starts_with(char::is_whitespace))
                    .ok_or_else(|| malformed("terms are joined by AND"))?
                    .trim_start();
            }
            let (term, after) = parse_term(rest)?;
            terms.push(term);
            rest = after.trim_start();
        }
        if terms.len() > MAX_TERMS {
            return Err(Refusal::new(FieldReason::TooMany, "a filter has at most 20 terms"));
        }
        Ok(Self(terms))
    }

    /// Whether a connection, as it is presented, fulfils every term.
    #[must_use]
    pub fn matches(&self, connection: &Connection) -> bool {
        self.0.iter().all(|term| term.matches(connection))
    }
}

impl Term {
    fn matches(&self, connection: &Connection) -> bool {
        let found = match &self.field {
            Field::Provider => connection.provider.as_str(),
            Field::State => connection.state.as_str(),
            Field::Hosting => match connection.hosting {
                Hosting::Cloud => "CLOUD",
                Hosting::SelfHosted => "SELF_HOSTED",
            },
            Field::Disabled if connection.disabled => "true",
            Field::Disabled => "false",
            Field::DisplayName => connection.display_name.as_str(),
            // A label that is not there equals nothing, not even the empty text.
            Field::Label(key) => match connection.labels.get(key) {
                Some(value) => value,
                None => return !self.equal,
            },
        };
        (found == self.value) == self.equal
    }
}

fn parse_term(text: &str) -> Result<(Term, &str), Refusal> {
    let name_end = text.find(|c: char| c.is_whitespace() || c == '=' || c == '!').unwrap_or(text.len());
    let (name, rest) = text.split_at(name_end);
    let field = match name {
        "provider" => Field::Provider,
        "state" => Field::State,
        "hosting" => Field::Hosting,
        "disabled" => Field::Disabled,
        "display_name" => Field::DisplayName,
        _ => match name.strip_prefix("labels.") {
            Some(key) if !key.is_empty() => Field::Label(key.to_owned()),
            _ => return Err(malformed(&format!("the fields are {FIELDS}"))),
        },
    };
    let rest = rest.trim_start();
    let (equal, rest) = match (rest.strip_prefix("!="), rest.strip_prefix('=')) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        _ => return Err(malformed("a field is followed by = or !=")),
    };
    let (value, rest) = parse_value(rest.trim_start())?;
    Ok((Term { field, equal, value }, rest))
}

/// A quoted text, or a bare word for `true`, `ACTIVE` and the like.
fn parse_value(text: &str) -> Result<(String, &str), Refusal> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end =
            text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        return if word.is_empty() {
            Err(malformed("a value stands in quotation marks"))
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
                _ => return Err(malformed("a backslash stands only before \" or \\")),
            },
            other => value.push(other),
        }
    }
    Err(malformed("a quotation mark is not closed"))
}

fn malformed(what: &str) -> Refusal {
    Refusal::new(
        FieldReason::Malformed,
        format!("{what}; an example: provider = \"gitlab\" AND state != \"ACTIVE\""),
    )
}

/// The order of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderBy {
    key: SortKey,
    descending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SortKey {
    DisplayName,
    CreateTime,
    UpdateTime,
}

/// Where a connection stands in an order; ties are broken by the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    key: String,
    id: String,
}

impl OrderBy {
    /// Parses `display_name`, `create_time` or `update_time`, each with ` desc` if wanted. Empty: `create_time`.
    ///
    /// # Errors
    ///
    /// `MALFORMED`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut words = text.split_whitespace();
        let key = match words.next() {
            None | Some("create_time") => SortKey::CreateTime,
            Some("display_name") => SortKey::DisplayName,
            Some("update_time") => SortKey::UpdateTime,
            Some(_) => return Err(Self::unknown()),
        };
        let descending = match words.next() {
            None => false,
            Some("desc") => true,
            Some(_) => return Err(Self::unknown()),
        };
        if words.next().is_some() {
            return Err(Self::unknown());
        }
        Ok(Self { key, descending })
    }

    fn unknown() -> Refusal {
        Refusal::new(
            FieldReason::Malformed,
            "order by display_name, create_time or update_time, with ` desc` behind it for the reverse",
        )
    }

    /// Where a connection stands.
    #[must_use]
    pub fn place(self, connection: &Connection) -> Place {
        // Twenty digits hold every time, so that texts sort as times do.
        let time = |time: crate::domain::timestamp::Timestamp| format!("{:020}", time.unix_micros().max(0));
        let key = match self.key {
            SortKey::DisplayName => connection.display_name.fold(),
            SortKey::CreateTime => time(connection.create_time),
            SortKey::UpdateTime => time(connection.update_time),
        };
        Place { key, id: connection.name.id.as_str().to_owned() }
    }

    /// Which of two places comes first.
    #[must_use]
    pub fn compare(self, left: &Place, right: &Place) -> Ordering {
        let keys = left.key.cmp(&right.key);
        if self.descending { keys.reverse() } else { keys }.then_with(|| left.id.cmp(&right.id))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_joins_terms_by_and() {
        let filter = Filter::parse(r#"provider = "gitlab" AND labels.team != "a \"b\"" AND disabled=true"#);
        assert_eq!(filter.expect("valid").0.len(), 3);
        assert_eq!(Filter::parse("  ").expect("valid"), Filter::default());
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
            "labels. = \"x\"",
            "provider > \"x\"",
            "provider = \"a\\n\"",
        ] {
            assert_eq!(Filter::parse(bad).expect_err(bad).reason, FieldReason::Malformed, "{bad}");
        }
        let many = vec!["disabled = true"; 21].join(" AND ");
        assert_eq!(Filter::parse(&many).expect_err("many").reason, FieldReason::TooMany);
        assert_eq!(Filter::parse(&" ".repeat(2_049)).expect_err("long").reason, FieldReason::TooLong);
    }

    #[test]
    fn an_order_names_one_field() {
        assert!(OrderBy::parse("").is_ok());
        assert!(OrderBy::parse("display_name desc").is_ok());
        for bad in ["name", "display_name asc", "display_name desc x", "create_time,update_time"] {
            assert!(OrderBy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_survives_a_token() {
        let place = Place { key: "stra\u{df}e".into(), id: "a".into() };
        assert_eq!(Place::decode(&place.encode()), Some(place));
        assert_eq!(Place::decode(&[0, 0, 0, 9, 1]), None);
    }
}
