//! The configuration file: TOML, flat, without unknown or repeated keys.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{KEYS, NOT_IN_FILE, nearest};

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What a configuration file says.
#[derive(Debug, Clone, Default)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    values: Vec<(String, FileValue, usize)>,
}

/// A value of the file, reduced to what a setting can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileValue {
    /// A text.
    Text(String),
    /// A whole number, in decimal digits.
    Number(String),
    /// A list; an entry that is no text is `None`.
    List(Vec<Option<String>>),
    /// Anything else, by its name.
    Other(&'static str),
}

impl FileValue {
    /// What it is, for a problem.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
        }
    }
}

impl ConfigFile {
    /// Reads a file, and tells all that is wrong with it as a whole. Values are not looked at yet.
    #[must_use]
    pub fn read(path: &Path) -> (Self, Vec<String>) {
        match read_text(path) {
            Ok(text) => Self::parse(path, &text),
            Err(problem) => (
                Self { path: path.to_owned(), values: Vec::new() },
                vec![format!("config: cannot read {}: {problem}", path.display())],
            ),
        }
    }

    /// As [`Self::read`], from its text.
    #[must_use]
    pub fn parse(path: &Path, text: &str) -> (Self, Vec<String>) {
        let at = |offset: usize| 1 + text.get(..offset).unwrap_or(text).matches('\n').count();
        let place = |line: usize| format!("{}, line {line}", path.display());
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut problems: Vec<String> = errors
            .iter()
            // The message alone: printed as a whole, the error would quote the line.
            .map(|error| {
                format!("{}: {}", place(at(error.span().map_or(0, |span| span.start))), error.message())
            })
            .collect();
        let mut values = Vec::new();
        for (key, value) in table.get_ref() {
            let (name, line) = (key.get_ref().as_ref(), at(key.span().start));
            if KEYS.contains(&name) {
                values.push((name.to_owned(), reduce(value), line));
            } else if NOT_IN_FILE.contains(&name) {
                problems.push(format!(
                    "{}: {name} cannot stand in the file; use its flag or variable",
                    place(line)
                ));
            } else {
                let hint = match nearest(name, KEYS.iter().copied()) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("the keys are {}", KEYS.join(", ")),
                };
                problems.push(format!("{}: unknown key {}; {hint}", place(line), name.escape_debug()));
            }
        }
        (Self { path: path.to_owned(), values }, problems)
    }

    /// The value of a key, and its line.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<(&FileValue, usize)> {
        self.values.iter().find(|(name, ..)| name == key).map(|(_, value, line)| (value, *line))
    }
}

fn reduce(value: &Spanned<DeValue<'_>>) -> FileValue {
    match value.get_ref() {
        DeValue::String(text) => FileValue::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => FileValue::Number(number.to_string()),
            Err(_) => FileValue::Other("a number that is too large"),
        },
        DeValue::Array(entries) => {
            FileValue::List(entries.iter().map(|entry| entry.get_ref().as_str().map(str::to_owned)).collect())
        }
        other => FileValue::Other(kind(other)),
    }
}

const fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("it is larger than 1 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}
