//! Who may name whom: the table as data, and a reading of `src/` against it. Code for tests does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What one top module may name.
struct Row {
    module: &'static str,
    /// Top modules of the crate, or a path within one where only that part is open.
    may_use: &'static [&'static str],
    /// Crates, or parts of the standard library, that it never names.
    never_sees: &'static [&'static str],
}

const EVERYTHING: &[&str] = &["*"];

const TABLE: &[Row] = &[
    Row {
        module: "domain",
        may_use: &[],
        never_sees: &[
            "async_trait",
            "futures_util",
            "hyper",
            "prost",
            "prost_types",
            "reqwest",
            "ring",
            "serde",
            "serde_json",
            "sled",
            "std::env",
            "std::fs",
            "std::io",
            "std::process",
            "std::thread",
            "tokio",
            "tonic",
        ],
    },
    // The clock tells a `Timestamp`, which is plain data.
    Row { module: "clock", may_use: &["domain::timestamp"], never_sees: &["tokio", "tonic", "serde"] },
    // What the build generates from proto/.
    Row { module: "proto", may_use: &[], never_sees: &["sled", "reqwest", "ring"] },
    Row { module: "store", may_use: &["domain"], never_sees: &["tonic", "reqwest", "ring"] },
    Row { module: "seal", may_use: &["domain"], never_sees: &["tonic", "reqwest", "sled", "tokio"] },
    Row { module: "outbound", may_use: &["domain"], never_sees: &["tonic", "sled", "prost"] },
    Row {
        module: "provider",
        may_use: &["domain", "outbound"],
        never_sees: &["tonic", "sled", "reqwest", "ring", "prost"],
    },
    Row {
        module: "service",
        may_use: &["domain", "clock", "store", "seal", "provider"],
        never_sees: &["tonic", "sled", "reqwest", "ring", "prost", "hyper"],
    },
    Row {
        module: "grpc",
        // Four plain types of the provider module are part of what the service takes and gives, and the handlers
        // translate them: `About` is the answer of GetProvider, `Lookup` the question of LookupRepository,
        // `CloneAddress` that of FindConnections, and `ProviderError` lies within `service::error::Error`. A copy of each would be one more place to forget.
        // Nothing with behaviour is open: no trait, no session, no implementation.
        may_use: &[
            "domain",
            "service",
            "proto",
            "provider::About",
            "provider::CloneAddress",
            "provider::Lookup",
            "provider::ProviderError",
            "provider::RejectionCause",
        ],
        never_sees: &["sled", "reqwest", "ring"],
    },
    Row { module: "app", may_use: EVERYTHING, never_sees: &["sled", "reqwest", "ring"] },
    Row { module: "main", may_use: EVERYTHING, never_sees: &["sled", "reqwest", "ring"] },
    // The command line of the binary.
    Row { module: "cli", may_use: EVERYTHING, never_sees: &["sled", "reqwest", "ring"] },
    // The commands that ask a server: clients like any other.
    Row { module: "dial", may_use: &["config"], never_sees: &["sled", "reqwest", "ring"] },
    Row {
        module: "git_credential",
        may_use: &["config", "dial", "proto"],
        never_sees: &["sled", "reqwest", "ring", "std::fs", "tracing"],
    },
    Row { module: "config", may_use: EVERYTHING, never_sees: &["sled", "reqwest", "ring"] },
    Row { module: "telemetry", may_use: EVERYTHING, never_sees: &["sled", "reqwest", "ring"] },
    // The list of modules.
    Row { module: "lib", may_use: &[], never_sees: &[] },
];

/// Implementations of a trait: named by the file that wires them and by their own folder, by nothing else.
const IMPLEMENTATIONS: &[(&str, &[&str])] = &[
    ("store::sled", &["app"]),
    ("store::memory", &["app"]),
    ("provider::gitea", &["provider"]),
    ("provider::github", &["provider"]),
    ("provider::gitlab", &["provider"]),
    ("provider::azure_devops", &["provider"]),
    ("provider::bitbucket_cloud", &["provider"]),
    ("provider::bitbucket_data_center", &["provider"]),
];

/// One name that code uses, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Use {
    /// The top module that the code is in.
    from: String,
    /// What it names: the path within the crate, or a path of another crate.
    path: Vec<String>,
    /// Whether the path is one of this crate.
    ours: bool,
}

#[test]
fn no_module_names_what_its_layer_may_not_see() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    read(&root, &root, &mut files);
    assert!(files.len() > 20, "src/ was not read");

    let for_tests: BTreeSet<PathBuf> = files
        .iter()
        .flat_map(|(path, text)| test_modules(text).into_iter().map(move |name| module_file(path, &name)))
        .collect();
    let mut wrong = Vec::new();
    let mut edges = 0;
    for (path, text) in &files {
        let inner = path.with_extension("");
        if for_tests.iter().any(|test| *path == *test || inner.starts_with(test.with_extension(""))) {
            continue;
        }
        for used in uses(path, text) {
            edges += 1;
            if let Some(problem) = judge(&used) {
                wrong.push(format!("src/{}: {problem}", path.display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(edges > 200, "only {edges} names were found in src/");
    assert!(wrong.is_empty(), "layers are crossed:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_top_module_has_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    read(&root, &root, &mut files);
    let modules: BTreeSet<String> = files.keys().map(|path| top(path)).collect();
    let rows: BTreeSet<String> = TABLE.iter().map(|row| row.module.to_owned()).collect();
    assert_eq!(modules, rows);
}

#[test]
fn the_reader_sees_what_is_written() {
    let text = r#"
        //! crate::comment
        use crate::{domain::{page::Page, event}, store::sled::SledStore};
        use super::super::grpc;
        use super::sibling;
        use tonic::Status;
        /* crate::block /* nested */ crate::more */
        fn f<'a>() -> &'a str { let c = '"'; "crate::text"; r"crate::raw"; let t = 'x'; crate::seal::KeyRing::new() }
        #[cfg(test)]
        use crate::outbound::Fake;
        #[cfg(test)]
        mod tests { use crate::config::Flags; fn g() { if true {} } }
        fn last() { ::reqwest::get(); local::reqwest::get(); }
    "#;
    let found: Vec<String> = uses(Path::new("service/deep.rs"), text)
        .into_iter()
        .map(|used| format!("{}{}", if used.ours { "crate " } else { "" }, used.path.join("::")))
        .collect();
    assert_eq!(
        found,
        [
            "crate domain::page::Page",
            "crate domain::event",
            "crate store::sled::SledStore",
            "crate grpc",
            "crate service::sibling",
            "tonic::Status",
            "crate seal::KeyRing::new",
            "reqwest::get",
            "local::reqwest::get",
        ]
    );
    assert_eq!(test_modules("#[cfg(test)]\nmod tests;\nmod real;"), ["tests"]);
}

#[test]
fn the_judge_names_the_wrong_edge() {
    let used = |from: &str, path: &str, ours| Use {
        from: from.to_owned(),
        path: path.split("::").map(str::to_owned).collect(),
        ours,
    };
    for (from, path, ours, right) in [
        ("domain", "store::Store", true, false),
        ("domain", "domain::page::Page", true, true),
        ("domain", "serde::Serialize", false, false),
        ("domain", "std::fs::read", false, false),
        ("domain", "std::fmt::Debug", false, true),
        ("store", "seal::KeyRing", true, false),
        ("store", "sled::Db", false, true),
        ("service", "store::Store", true, true),
        ("service", "store::sled::SledStore", true, false),
        ("service", "provider::gitlab::GitLab", true, false),
        ("service", "tonic::Status", false, false),
        ("grpc", "provider::About", true, true),
        ("grpc", "provider::session::Session", true, false),
        ("grpc", "store::Store", true, false),
        ("app", "store::sled::SledStore", true, true),
        ("unheard_of", "domain::page::Page", true, false),
    ] {
        assert_eq!(judge(&used(from, path, ours)).is_none(), right, "{from} -> {path}");
    }
}

/// Says what is wrong with a name, if something is.
fn judge(used: &Use) -> Option<String> {
    let from = used.from.as_str();
    let path = used.path.join("::");
    let Some(row) = TABLE.iter().find(|row| row.module == from) else {
        return Some(format!("the module `{from}` has no row in the table"));
    };
    if !used.ours {
        return row
            .never_sees
            .iter()
            .find(|never| within(&path, never))
            .map(|never| format!("`{from}` never sees `{never}`, but names `{path}`"));
    }
    if let Some((implementation, homes)) = IMPLEMENTATIONS.iter().find(|(name, _)| within(&path, name)) {
        let own = implementation.split("::").next() == Some(from);
        return (!own && !homes.contains(&from))
            .then(|| format!("`{from}` names the implementation `{path}`; only {} may", homes.join(", ")));
    }
    let open = used.path.first().is_some_and(|module| module == from)
        || row.may_use.iter().any(|may| *may == "*" || within(&path, may));
    (!open).then(|| format!("`{from}` may use {:?}, but names `{path}`", row.may_use))
}

/// Whether `path` is `outer` or lies in it.
fn within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn read(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("text");
            files.insert(path.strip_prefix(root).expect("below src").to_owned(), text);
        }
    }
}

/// `service/connections.rs` lies in `service`.
fn top(path: &Path) -> String {
    let first = path.components().next().expect("a name").as_os_str();
    Path::new(first).with_extension("").to_string_lossy().into_owned()
}

/// The path of the module that a file is: `service/mod.rs` and `service.rs` are `service`.
fn module_path(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// Where the module `name`, declared in the file `path`, is.
fn module_file(path: &Path, name: &str) -> PathBuf {
    let mut file: PathBuf = module_path(path).iter().collect();
    file.push(format!("{name}.rs"));
    file
}

/// The names of the modules that exist for tests only and are files of their own.
fn test_modules(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let found =
        tokens.windows(10).filter(|window| window[..7] == CFG_TEST && window[7] == "mod" && window[9] == ";");
    found.map(|window| window[8].clone()).collect()
}

const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

/// Every path that the code of a file names.
fn uses(file: &Path, text: &str) -> Vec<Use> {
    let module = module_path(file);
    let from = top(file);
    let tokens = without_tests(&tokens(text));
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let begins = is_name(&tokens[at])
            && tokens.get(at + 1).is_some_and(|next| next == "::")
            && (at == 0 || tokens[at - 1] != "::" || at == 1 || !is_name(&tokens[at - 2]));
        if !begins {
            at += 1;
            continue;
        }
        let mut paths = Vec::new();
        at = tree(&tokens, at, &[], &mut paths);
        for path in paths {
            if let Some(used) = resolve(&from, &module, path) {
                found.push(used);
            }
        }
    }
    found
}

/// Reads one path, or all paths of a `use` tree, from `at` on; answers where it ends.
fn tree(tokens: &[String], mut at: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        if is_name(token) {
            path.push(token.clone());
            at += 1;
            if tokens.get(at).is_some_and(|next| next == "::") {
                at += 1;
                continue;
            }
        } else if token == "{" && path.len() > prefix.len() {
            at += 1;
            while tokens.get(at).is_some_and(|token| token != "}") {
                let before = at;
                at = tree(tokens, at, &path, paths);
                // `as NAME`, commas and stars between the branches.
                while tokens.get(at).is_some_and(|token| token == "," || token == "*") {
                    at += 1;
                }
                if tokens.get(at).is_some_and(|token| token == "as") {
                    at += 2;
                }
                at = at.max(before + 1);
            }
            return at + 1;
        }
        break;
    }
    if path.len() > prefix.len() {
        paths.push(path);
    }
    at
}

/// Turns `crate::`, `super::` and `self::` into a path from the root of the crate.
fn resolve(from: &str, module: &[String], path: Vec<String>) -> Option<Use> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let (ours, path) = match path.first().map(String::as_str) {
        Some("crate") => (true, path[1..].to_vec()),
        // The binary names the library so.
        Some("gitmoor") => (true, path[1..].to_vec()),
        Some("super") => {
            let base = module.len().checked_sub(supers)?;
            (true, [&module[..base], &path[supers..]].concat())
        }
        Some("self" | "Self") => return None,
        _ => (false, path),
    };
    // `use crate::*` names nothing in particular.
    (!path.is_empty()).then(|| Use { from: from.to_owned(), path, ours })
}

/// Drops each item that follows `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&CFG_TEST.map(str::to_owned)) {
            at += CFG_TEST.len();
            let mut depth = 0_i32;
            while let Some(token) = tokens.get(at) {
                at += 1;
                match token.as_str() {
                    "{" | "(" | "[" => depth += 1,
                    "}" | ")" | "]" => depth -= 1,
                    _ => {}
                }
                // An item ends with its block or its semicolon, but not with the bracket of another attribute.
                if depth == 0 && (token == ";" || token == "}") {
                    break;
                }
            }
            // The block of `use a::{b};` is followed by its semicolon.
            if tokens.get(at).is_some_and(|token| token == ";") {
                at += 1;
            }
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

/// The names and signs of a source text, without comments, strings and character literals.
fn tokens(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let next_is = |at: usize, sign: char| characters.get(at) == Some(&sign);
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&first) = characters.get(at) {
        if first == '/' && next_is(at + 1, '/') {
            while at < characters.len() && characters[at] != '\n' {
                at += 1;
            }
        } else if first == '/' && next_is(at + 1, '*') {
            let mut depth = 0;
            while at < characters.len() {
                if characters[at] == '/' && next_is(at + 1, '*') {
                    depth += 1;
                    at += 2;
                } else if characters[at] == '*' && next_is(at + 1, '/') {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        break;
                    }
                } else {
                    at += 1;
                }
            }
        } else if let Some(end) = raw_string(&characters, at) {
            at = end;
        } else if first == '"' {
            at += 1;
            while at < characters.len() && characters[at] != '"' {
                at += if characters[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if first == '\'' && next_is(at + 1, '\\') {
            at += 3;
            while at < characters.len() && characters[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else if first == '\'' && next_is(at + 2, '\'') {
            at += 3;
        } else if first.is_ascii_alphanumeric() || first == '_' {
            let start = at;
            while characters.get(at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_') {
                at += 1;
            }
            tokens.push(characters[start..at].iter().collect());
        } else if first == ':' && next_is(at + 1, ':') {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            at += 1;
        }
    }
    tokens
}

/// Where the raw string that begins at `at` ends, if one does.
fn raw_string(characters: &[char], at: usize) -> Option<usize> {
    if at > 0 && (characters[at - 1].is_ascii_alphanumeric() || characters[at - 1] == '_') {
        return None;
    }
    let start = match (characters.get(at)?, characters.get(at + 1)?) {
        ('r', '"' | '#') => at + 1,
        ('b', 'r') => at + 2,
        _ => return None,
    };
    let hashes = characters[start..].iter().take_while(|c| **c == '#').count();
    if characters.get(start + hashes) != Some(&'"') {
        return None;
    }
    let mut end = start + hashes + 1;
    while end < characters.len() {
        if characters[end] == '"'
            && characters[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
        {
            return Some(end + 1 + hashes);
        }
        end += 1;
    }
    Some(end)
}
