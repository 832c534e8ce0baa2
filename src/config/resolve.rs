//! Finds the value of each key among the sources, and collects what is wrong.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::file::{ConfigFile, FileValue};
use super::value::Setting;
use super::{Environment, Flags, KEYS, PREFIX, Shown, Source, nearest, variable};

/// The sources, and what was found out so far.
pub(super) struct Resolver<'a> {
    pub(super) flags: &'a Flags,
    pub(super) environment: &'a Environment,
    file: Option<ConfigFile>,
    shown: Vec<Shown>,
    /// The keys that a source has, readable or not.
    set: BTreeSet<&'static str>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

/// The texts of one key before they are read, from the first source that has it.
struct Raw {
    texts: Vec<String>,
    source: Source,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(flags: &'a Flags, environment: &'a Environment) -> Self {
        let mut resolver = Self {
            flags,
            environment,
            file: None,
            shown: Vec::new(),
            set: BTreeSet::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        let path = match (&flags.config, environment.text("GITMOOR_CONFIG")) {
            (Some(path), _) => Some(PathBuf::from(path)),
            (None, Some(Ok(path))) => Some(PathBuf::from(path)),
            (None, Some(Err(_))) => {
                resolver.problem("GITMOOR_CONFIG is not UTF-8".to_owned());
                None
            }
            (None, None) => None,
        };
        if let Some(path) = path {
            let (file, problems) = ConfigFile::read(&path);
            resolver.problems.extend(problems);
            resolver.file = Some(file);
        }
        resolver
    }

    /// Whether the flag or the variable asks for `dev`.
    pub(super) fn dev(&mut self) -> bool {
        self.flags.dev
            || match self.environment.text("GITMOOR_DEV") {
                None | Some(Ok("0" | "false")) => false,
                Some(Ok("1" | "true")) => true,
                Some(_) => {
                    self.problem("dev (GITMOOR_DEV): expected true or false".to_owned());
                    false
                }
            }
    }

    /// The value of a key that has a default. A value that does not parse counts as the default, beside the problem.
    pub(super) fn one<T: Setting>(&mut self, key: &'static str, flag: Option<&String>, default: T) -> T {
        let fallback = default.clone();
        self.resolve(key, flag, Some((default, Source::Default))).unwrap_or(fallback)
    }

    /// The value of a key that may be without one. `default` is what `--dev` gives.
    pub(super) fn optional<T: Setting>(
        &mut self,
        key: &'static str,
        flag: Option<&String>,
        default: Option<T>,
    ) -> Option<T> {
        self.resolve(key, flag, default.map(|default| (default, Source::Dev)))
    }

    /// The values of a key that is a list. An entry that does not parse is left out, beside the problem.
    pub(super) fn list<T: Setting>(
        &mut self,
        key: &'static str,
        flags: &[String],
        default: Vec<T>,
    ) -> Vec<T> {
        let flags = (!flags.is_empty()).then(|| flags.to_vec());
        let raw = match self.raw(key, flags, Shape::List, T::NUMBER) {
            Found::Texts(raw) => raw,
            Found::Nothing => {
                self.show_list(key, &default, Source::Default);
                return default;
            }
            Found::Unusable => return default,
        };
        if raw.texts.is_empty() && !default.is_empty() {
            self.problem(format!("{key} ({}): the list is empty", raw.source));
        }
        let mut values = Vec::with_capacity(raw.texts.len());
        for (index, text) in raw.texts.iter().enumerate() {
            match T::parse(text) {
                Some(value) => values.push(value),
                None => {
                    self.problem(format!(
                        "{key} ({}), entry {}: expected {}",
                        raw.source,
                        index + 1,
                        T::EXPECTED
                    ));
                }
            }
        }
        self.show_list(key, &values, raw.source);
        values
    }

    /// Whether any source has the key.
    pub(super) fn is_set(&self, key: &'static str) -> bool {
        self.set.contains(key)
    }

    /// Adds a problem, unless the value of the key is within its range.
    pub(super) fn check_range(&mut self, key: &'static str, is_within: bool, range: &str) {
        if !is_within {
            let source =
                self.shown.iter().find(|shown| shown.key == key).map(|shown| shown.source.to_string());
            self.problem(format!("{key} ({}): it must be {range}", source.unwrap_or_default()));
        }
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub(super) fn warn_if(&mut self, condition: bool, warning: &str) {
        if condition {
            self.warnings.push(warning.to_owned());
        }
    }

    /// All warnings. An unknown variable is only worth one if it nearly has the name of a key: Kubernetes sets
    /// `GITMOOR_SERVICE_HOST` and the like by itself.
    pub(super) fn unknown_variables(&mut self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut self.warnings);
        for name in self.environment.0.keys() {
            let Some(key) = name.strip_prefix(PREFIX).map(str::to_ascii_lowercase) else { continue };
            let known = || KEYS.iter().copied().chain(super::NOT_IN_FILE.iter().copied());
            if let Some(meant) = nearest(&key, known()).filter(|_| !known().any(|known| known == key)) {
                warnings.push(format!("the variable {name} is not read; {} is", variable(meant)));
            }
        }
        warnings
    }

    /// What is to be printed, and what is wrong.
    pub(super) fn finish(self) -> (Vec<Shown>, Vec<String>) {
        (self.shown, self.problems)
    }

    fn resolve<T: Setting>(
        &mut self,
        key: &'static str,
        flag: Option<&String>,
        default: Option<(T, Source)>,
    ) -> Option<T> {
        let raw = match self.raw(key, flag.map(|text| vec![text.clone()]), Shape::Single, T::NUMBER) {
            Found::Texts(raw) => raw,
            Found::Nothing => {
                let (default, source) = default?;
                self.shown.push(Shown { key, value: default.show(), source });
                return Some(default);
            }
            Found::Unusable => return None,
        };
        let value = raw.texts.first().and_then(|text| T::parse(text));
        match &value {
            Some(value) => self.shown.push(Shown { key, value: value.show(), source: raw.source }),
            None => self.problem(format!("{key} ({}): expected {}", raw.source, T::EXPECTED)),
        }
        value
    }

    fn show_list<T: Setting>(&mut self, key: &'static str, values: &[T], source: Source) {
        let values: Vec<_> = values.iter().map(Setting::show).collect();
        self.shown.push(Shown { key, value: format!("[{}]", values.join(", ")), source });
    }

    /// The texts of a key from the first source that has it. A text that is none stands as a NUL, which no type accepts.
    fn raw(&mut self, key: &'static str, flag: Option<Vec<String>>, shape: Shape, number: bool) -> Found {
        let found = self.find(key, flag, shape, number);
        if !matches!(found, Found::Nothing) {
            self.set.insert(key);
        }
        found
    }

    fn find(&mut self, key: &'static str, flag: Option<Vec<String>>, shape: Shape, number: bool) -> Found {
        if let Some(texts) = flag {
            return Found::Texts(Raw { texts, source: Source::Flag(key) });
        }
        let name = variable(key);
        if let Some(text) = self.environment.text(&name) {
            let text = text.unwrap_or("\0");
            let texts = match shape {
                Shape::Single => vec![text.to_owned()],
                Shape::List => text
                    .split(',')
                    .map(str::trim)
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned)
                    .collect(),
            };
            return Found::Texts(Raw { texts, source: Source::Variable(name) });
        }
        let Some((file, (value, line))) = self.file.as_ref().and_then(|file| Some((file, file.value(key)?)))
        else {
            return Found::Nothing;
        };
        let source = Source::File { path: file.path.clone(), line };
        let texts = match (value, shape) {
            (FileValue::Text(text), Shape::Single) => vec![text.clone()],
            (FileValue::Number(text), Shape::Single) if number => vec![text.clone()],
            (FileValue::List(entries), Shape::List) => {
                entries.iter().map(|entry| entry.clone().unwrap_or_else(|| "\0".to_owned())).collect()
            }
            (value, shape) => {
                let expected = match shape {
                    Shape::Single if number => "a number or a text",
                    Shape::Single => "a text in quotes",
                    Shape::List => "a list of texts",
                };
                let found = value.kind();
                self.problem(format!("{key} ({source}): expected {expected}, found {found}"));
                return Found::Unusable;
            }
        };
        Found::Texts(Raw { texts, source })
    }
}

/// What the sources say about a key.
enum Found {
    /// No source has it.
    Nothing,
    /// The first source that has it, has it in a form that is no text. Reported already; no later source takes its
    /// place.
    Unusable,
    /// The texts to read.
    Texts(Raw),
}

/// Whether a key has one value or a list.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Single,
    List,
}
