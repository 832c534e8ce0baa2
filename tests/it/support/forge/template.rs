//! JSON rows with holes: the recorded row is rendered to text once, each answer only fills the holes.

use std::io;

use serde_json::Value;

/// Text with holes.
#[derive(Debug)]
pub(crate) struct Template(Vec<(String, Option<String>)>);

impl Template {
    /// Makes a template of a JSON value. A string `"@@x@@"` is a hole for any JSON text, `{{x}}` inside a
    /// string is a hole for text that needs no escaping.
    pub(crate) fn new(value: &Value) -> io::Result<Self> {
        let text = serde_json::to_string(value)?.replace("\"@@", "{{").replace("@@\"", "}}");
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((literal, tail)) = rest.split_once("{{") {
            let Some((slot, tail)) = tail.split_once("}}") else {
                return Err(io::Error::other("a hole without an end"));
            };
            parts.push((literal.to_owned(), Some(slot.to_owned())));
            rest = tail;
        }
        parts.push((rest.to_owned(), None));
        Ok(Self(parts))
    }

    /// Leaves the opening brace to the caller, who writes members of its own first.
    pub(crate) fn drop_first_byte(&mut self) {
        if let Some((literal, _)) = self.0.first_mut() {
            literal.remove(0);
        }
    }

    /// Replaces the closing brace, for members that others follow.
    pub(crate) fn end_with_comma(&mut self) {
        if let Some((literal, _)) = self.0.last_mut() {
            literal.pop();
            literal.push(',');
        }
    }

    /// Writes the row, asking `fill` for each hole.
    pub(crate) fn render(&self, out: &mut String, mut fill: impl FnMut(&str, &mut String)) {
        for (literal, slot) in &self.0 {
            out.push_str(literal);
            if let Some(slot) = slot {
                fill(slot, out);
            }
        }
    }
}

/// A JSON string of `text`, quotes included.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
