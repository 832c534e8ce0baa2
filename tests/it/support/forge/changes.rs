//! Repositories that get another name or go out of sight while the forge runs, laid over what the fakes answer: in the
//! paths that are asked for, and in every row of every answer that is about the repository.

use serde_json::Value;

use super::wire::{Reply, Seen, decode, encode};
use super::{Forge, Shared};

/// What becomes of one repository.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Where the provider's paths begin: `/gitlab`.
    root: String,
    id: String,
    /// The last part of its full name.
    name: String,
    /// The new one; `None`: it is out of sight.
    becomes: Option<String>,
    /// Only for calls with this token.
    token: Option<String>,
}

impl Forge {
    /// Gives a repository of the provider below `root` another last part of its name. Its id stays.
    pub(crate) fn rename(&self, root: &str, id: &str, name: &str, becomes: &str) {
        self.change(root, id, name, Some(becomes), None);
    }

    /// Takes a repository out of sight: of everybody, or of a token.
    pub(crate) fn hide(&self, root: &str, id: &str, name: &str, token: Option<&str>) {
        self.change(root, id, name, None, token);
    }

    /// All repositories are again as they were.
    pub(crate) fn forget_changes(&self) {
        self.shared.control().changes.clear();
    }

    fn change(&self, root: &str, id: &str, name: &str, becomes: Option<&str>, token: Option<&str>) {
        self.shared.control().changes.push(Change {
            root: root.trim_end_matches('/').to_owned(),
            id: bare(id).to_owned(),
            name: name.to_owned(),
            becomes: becomes.map(str::to_owned),
            token: token.map(str::to_owned),
        });
    }
}

impl Shared {
    /// What the real host would say after the changes.
    pub(super) fn truth(&self, seen: &Seen) -> Reply {
        let changes: Vec<Change> =
            self.control().changes.iter().filter(|change| change.concerns(seen)).cloned().collect();
        if changes.is_empty() {
            return self.unchanged(seen);
        }
        let mut asked = seen.clone();
        for change in &changes {
            asked.path =
                asked.path.split('/').map(|segment| change.segment(segment)).collect::<Vec<_>>().join("/");
        }
        let mut reply = self.unchanged(&asked);
        if let Ok(mut body) = serde_json::from_slice::<Value>(&reply.body) {
            for change in &changes {
                change.apply(&mut body);
            }
            reply.body = body.to_string().into();
        }
        reply
    }
}

impl Change {
    fn concerns(&self, seen: &Seen) -> bool {
        let below = seen.path.strip_prefix(&self.root).is_some_and(|rest| rest.starts_with('/'));
        below && self.token.as_ref().is_none_or(|token| sent(seen, token))
    }

    /// The segment of a path that stands for what was asked for, among names that the fakes know.
    fn segment(&self, segment: &str) -> String {
        let text = decode(segment);
        let with_last = |last: &str| match text.rsplit_once('/') {
            Some((before, _)) => encode(&format!("{before}/{last}")),
            None => encode(last),
        };
        let last = text.rsplit('/').next().unwrap_or(&text);
        match &self.becomes {
            Some(becomes) if last == becomes => with_last(&self.name),
            Some(_) if last == self.name => with_last("there-is-none"),
            None if last == self.name => with_last("there-is-none"),
            None if bare(&text) == self.id => encode(
                &text.chars().map(|c| if c.is_ascii_alphanumeric() { '9' } else { c }).collect::<String>(),
            ),
            _ => segment.to_owned(),
        }
    }

    fn apply(&self, value: &mut Value) {
        match value {
            Value::Array(rows) => {
                if self.becomes.is_none() {
                    rows.retain(|row| !self.is_about(row));
                }
                rows.iter_mut().for_each(|row| self.apply(row));
            }
            Value::Object(_) if self.is_about(value) => {
                if let Some(becomes) = &self.becomes {
                    rename(value, &self.name, becomes);
                }
            }
            Value::Object(members) => members.values_mut().for_each(|member| self.apply(member)),
            _ => {}
        }
    }

    fn is_about(&self, row: &Value) -> bool {
        ["id", "uuid"].into_iter().any(|member| match &row[member] {
            Value::String(text) => bare(text) == self.id,
            Value::Number(number) => number.to_string() == self.id,
            _ => false,
        })
    }
}

fn rename(value: &mut Value, name: &str, becomes: &str) {
    match value {
        Value::String(text) => *text = text.replace(name, becomes),
        Value::Array(rows) => rows.iter_mut().for_each(|row| rename(row, name, becomes)),
        Value::Object(members) => members.values_mut().for_each(|member| rename(member, name, becomes)),
        _ => {}
    }
}

/// Whether the call carries the token, in the clear or in a basic authorization.
fn sent(seen: &Seen, token: &str) -> bool {
    use base64::Engine as _;
    seen.headers.iter().any(|(_, value)| {
        let basic = value.strip_prefix("Basic ").or_else(|| value.strip_prefix("basic "));
        let basic = basic.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
        value.contains(token) || basic.is_some_and(|text| String::from_utf8_lossy(&text).contains(token))
    })
}

/// An id without the braces that some providers put around it.
fn bare(id: &str) -> &str {
    id.trim_matches(['{', '}'])
}
