//! `q`: conditions joined by AND, as far as the fake knows fields. An unknown field is a 400.

use super::super::wire::Reply;
use super::refusal::error;

/// One condition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) field: String,
    operator: Operator,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Contains,
    Above,
    AtLeast,
    Below,
    AtMost,
}

const OPERATORS: [(&str, Operator); 7] = [
    ("!=", Operator::NotEqual),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=", Operator::Equal),
    ("~", Operator::Contains),
    (">", Operator::Above),
    ("<", Operator::Below),
];

impl Condition {
    /// Whether a value fits. Text compares without case in `~` alone.
    pub(super) fn fits(&self, text: &str) -> bool {
        match self.operator {
            Operator::Equal => text == self.value,
            Operator::NotEqual => text != self.value,
            Operator::Contains => text.to_lowercase().contains(&self.value.to_lowercase()),
            Operator::Above => text > self.value.as_str(),
            Operator::AtLeast => text >= self.value.as_str(),
            Operator::Below => text < self.value.as_str(),
            Operator::AtMost => text <= self.value.as_str(),
        }
    }
}

/// Reads a query whose fields are among `known`.
pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Vec<Condition>, Reply> {
    let mut rest = query.unwrap_or("").trim();
    let mut conditions = Vec::new();
    while !rest.is_empty() {
        let (condition, after) = condition(rest).ok_or_else(|| error(400, "Invalid query"))?;
        if !known.contains(&condition.field.as_str()) {
            return Err(error(400, &format!("Invalid field name: {}", condition.field)));
        }
        conditions.push(condition);
        rest = after.trim_start();
        rest = match rest.strip_prefix("AND ") {
            Some(more) if !more.trim().is_empty() => more.trim_start(),
            None if rest.is_empty() => rest,
            _ => return Err(error(400, "Invalid query")),
        };
    }
    Ok(conditions)
}

fn condition(text: &str) -> Option<(Condition, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "._".contains(c)))?;
    let (field, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let (operator, rest) =
        OPERATORS.iter().find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)))?;
    let (value, rest) = literal(rest.trim_start())?;
    Some((Condition { field: field.to_owned(), operator, value }, rest))
}

/// A text in quotation marks, with backslashes before what is meant as it stands, or a bare word.
fn literal(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        return (!word.is_empty()).then(|| (word.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_unknown_fields_refused() {
        let all = parse(
            Some(r#"project.key="WEB" AND name ~ "a\"b" AND size >= 5"#),
            &["project.key", "name", "size"],
        );
        let all = all.expect("conditions");
        assert_eq!(all.len(), 3);
        assert!(all[0].fits("WEB") && !all[0].fits("web"));
        assert!(all[1].fits("xA\"Bx") && !all[1].fits("ab"));
        assert!(parse(None, &[]).expect("none").is_empty());
        for bad in [
            "name",
            "name ~",
            r#"name ~ "open"#,
            r#"name = "a" AND "#,
            r#"name = "a" name = "b""#,
            r#"stars = "a""#,
        ] {
            assert!(parse(Some(bad), &["name"]).is_err(), "{bad}");
        }
    }
}
