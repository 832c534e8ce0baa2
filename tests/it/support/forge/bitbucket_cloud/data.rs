//! What the fake Bitbucket Cloud holds: workspaces, repositories, who may do what, and the rows made of them.
//!
//! Everything but the order of the ids is computed from a repository's index.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use super::super::gitlab::data::scatter;
use super::super::template::{Template, quoted};
use super::super::{broken, lock};

/// The fake Bitbucket Cloud's size and habits.
#[derive(Clone, Debug)]
pub(crate) struct BitbucketCloudConfig {
    /// Repositories in the workspaces of the good token's user, spread over them.
    pub(crate) repositories: usize,
    /// Workspaces of that user.
    pub(crate) workspaces: usize,
    /// Public repositories in a workspace of strangers.
    pub(crate) strangers: usize,
    /// Whether pages tell `size` and `page`, which they need not.
    pub(crate) counted: bool,
    /// What becomes of `sort=uuid`.
    pub(crate) id_order: IdOrder,
    /// One more workspace of the user, whose repositories are closed to every token.
    pub(crate) closed: bool,
    /// One more workspace of the user, which was marked as spam.
    pub(crate) spam: bool,
    /// A former name redirects instead of being unknown.
    pub(crate) redirects: bool,
    /// `/user` answers 410, as it did to some tokens.
    pub(crate) user_gone: bool,
    /// No headers tell kind and scopes of the credential, as behind a gateway that drops them.
    pub(crate) silent_headers: bool,
    /// SSH links name the former host.
    pub(crate) old_ssh: bool,
    /// `X-RateLimit-Limit`, which only scaled limits have, with the resource that it counts.
    pub(crate) scaled_limit: Option<u64>,
    /// Give the first repositories names that try to break out.
    pub(crate) hostile_rows: bool,
}

/// What becomes of `sort=uuid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdOrder {
    /// Rows are sorted by it.
    Sorted,
    /// It is refused with a 400, and so is `uuid` in `q`.
    Refused,
    /// It is ignored.
    Ignored,
    /// Rows are sorted by it, and not as texts are.
    Odd,
}

impl Default for BitbucketCloudConfig {
    fn default() -> Self {
        Self {
            repositories: 25,
            workspaces: 3,
            strangers: 5,
            counted: true,
            id_order: IdOrder::Sorted,
            closed: false,
            spam: false,
            redirects: false,
            user_gone: false,
            silent_headers: false,
            old_ssh: false,
            scaled_limit: None,
            hostile_rows: false,
        }
    }
}

/// Where the real one's links lead.
pub(super) const API: &str = "https://api.bitbucket.org/2.0";
/// The former name of repository 0.
pub(crate) const OLD_NAME: &str = "old-website";

/// A workspace.
#[derive(Clone, Debug)]
pub(super) struct Workspace {
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) state: WorkspaceState,
    /// Its repositories, by id.
    by_id: Vec<(u128, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkspaceState {
    Open,
    Closed,
    Spam,
    /// The user is no member.
    Strangers,
}

/// One repository.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    pub(super) index: usize,
    pub(super) uuid: String,
    pub(super) name: String,
    pub(super) slug: String,
    pub(super) description: String,
    pub(super) project: &'static str,
    pub(super) private: bool,
    pub(super) empty: bool,
    fork: bool,
}

/// The data and the templates.
#[derive(Debug)]
pub(super) struct Data {
    members: usize,
    hostile: bool,
    ssh_host: &'static str,
    pub(super) workspaces: Vec<Workspace>,
    row: Value,
    partial: Mutex<HashMap<String, Arc<Template>>>,
}

impl Data {
    /// Reads the recorded row.
    pub(super) fn build(config: &BitbucketCloudConfig) -> io::Result<Self> {
        let total = config.repositories + config.strangers;
        let mut workspaces: Vec<Workspace> = (0..config.workspaces)
            .map(|index| match index {
                0 => workspace("acme", "Acme & S\u{f6}hne", WorkspaceState::Open),
                1 => workspace("casey", "Casey Example", WorkspaceState::Open),
                _ => {
                    workspace(&format!("team-{index:03}"), &format!("Team {index:03}"), WorkspaceState::Open)
                }
            })
            .collect();
        for index in 0..config.repositories.min(if workspaces.is_empty() { 0 } else { total }) {
            let place = index % config.workspaces;
            workspaces[place].by_id.push((id(index), index));
        }
        if config.closed {
            workspaces.push(workspace("closed-shop", "Closed Shop", WorkspaceState::Closed));
        }
        if config.spam {
            workspaces.push(workspace("spam-shop", "Spam Shop", WorkspaceState::Spam));
        }
        let mut strangers = workspace("strangers", "Strangers", WorkspaceState::Strangers);
        strangers.by_id = (config.repositories..total).map(|index| (id(index), index)).collect();
        workspaces.push(strangers);
        for workspace in &mut workspaces {
            workspace.by_id.sort_unstable();
        }
        Ok(Self {
            members: config.repositories,
            hostile: config.hostile_rows,
            ssh_host: if config.old_ssh { "bitbucket.org" } else { "ssh.bitbucket.org" },
            workspaces,
            row: row()?,
            partial: Mutex::default(),
        })
    }

    /// The workspace of a slug or an id, the letter case of a slug ignored.
    pub(super) fn workspace(&self, name: &str) -> Option<&Workspace> {
        self.workspaces.iter().find(|known| known.slug.eq_ignore_ascii_case(name) || known.uuid == name)
    }

    /// The repository of a slug or an id in a workspace.
    pub(super) fn find(&self, workspace: &Workspace, name: &str) -> Option<usize> {
        if name.starts_with('{') {
            let id = parse_id(name)?;
            let place = workspace.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            return Some(workspace.by_id[place].1);
        }
        let all = workspace.by_id.iter().map(|(_, index)| *index);
        all.into_iter().find(|index| self.repository(*index).slug.eq_ignore_ascii_case(name))
    }

    /// The repositories of a workspace: by id, or in the order in which they were made.
    pub(super) fn rows(workspace: &Workspace, by_id: bool) -> Vec<usize> {
        let mut rows: Vec<usize> = workspace.by_id.iter().map(|(_, index)| *index).collect();
        if !by_id {
            rows.sort_unstable();
        }
        rows
    }

    /// Whether strangers see a repository, without making its strings.
    pub(super) fn private(&self, index: usize) -> bool {
        index < self.members && index % 4 != 1
    }

    /// The key of the project of a repository.
    pub(super) fn project(index: usize) -> &'static str {
        if (index / 3).is_multiple_of(2) { "WEB" } else { "OPS" }
    }

    /// One repository.
    pub(super) fn repository(&self, index: usize) -> Repository {
        let (name, slug) = match index {
            0 => ("Acme Website".to_owned(), "website".to_owned()),
            1 => ("\u{dc}bersicht & Pr\u{fc}fung".to_owned(), "ubersicht".to_owned()),
            2 => ("Dotted.Name v2".to_owned(), "dotted.name_v2".to_owned()),
            _ => (format!("Repo {index:05}"), format!("repo-{index:05}")),
        };
        let mut repository = Repository {
            index,
            uuid: written(id(index)),
            description: format!("What {name} is about"),
            name,
            slug,
            project: Self::project(index),
            private: self.private(index),
            empty: index % 17 == 4,
            fork: index % 13 == 5,
        };
        if self.hostile {
            hostile(&mut repository);
        }
        repository
    }

    /// What the first person was given in a repository; `None` for a public one without a grant.
    pub(super) fn permission(&self, index: usize) -> Option<&'static str> {
        match index % 5 {
            _ if index >= self.members => None,
            0 => Some("admin"),
            1 => Some("write"),
            2 | 3 => Some("read"),
            _ if self.private(index) => Some("read"),
            _ => None,
        }
    }

    /// Writes the row of a repository; `fields` are those of a partial answer, without `values.`.
    pub(super) fn render(&self, template: &Template, workspace: &Workspace, index: usize, out: &mut String) {
        let repository = self.repository(index);
        template.render(out, |slot, out| {
            // Writing to a string cannot fail.
            let _ = match slot {
                "uuid" => write!(out, "{}", repository.uuid),
                "name" => write!(out, "{}", quoted(&repository.name)),
                "slug" => write!(out, "{}", escaped(&repository.slug)),
                "description" => write!(out, "{}", quoted(&repository.description)),
                "private" => write!(out, "{}", repository.private),
                "size" => write!(out, "{}", 1_000 * index),
                "project" => write!(out, "{}", repository.project),
                "ssh" => write!(out, "{}", self.ssh_host),
                "created" => write!(out, "{}", moment(index, 0)),
                "updated" => write!(out, "{}", moment(index, 40)),
                "branch" if repository.empty => write!(out, "null"),
                "branch" => write!(out, r#"{{"type":"branch","name":"main"}}"#),
                "parent" if !repository.fork => write!(out, "null"),
                "parent" => {
                    write!(out, r#"{{"type":"repository","uuid":"{}","full_name":"acme/website","name":"Acme Website"}}"#, written(id(0)))
                }
                "ws" => write!(out, "{}", workspace.slug),
                "ws_name" => write!(out, "{}", quoted(&workspace.name)),
                "ws_uuid" => write!(out, "{}", workspace.uuid),
                _ => Ok(()),
            };
        });
    }

    /// The template of a whole row, or of the members that `fields` names below `values.`.
    pub(super) fn template(&self, fields: Option<&str>) -> Arc<Template> {
        let key = fields.unwrap_or("").to_owned();
        let mut known = lock(&self.partial);
        let made = known.entry(key).or_insert_with(|| {
            let row = match fields {
                None => self.row.clone(),
                Some(fields) => {
                    let below = fields.split(',').filter_map(|field| field.trim().strip_prefix("values."));
                    pick(&self.row, &below.collect::<Vec<_>>())
                }
            };
            // The recorded row makes a template, and so does each part of it.
            Arc::new(Template::new(&row).unwrap_or_else(|_| unreachable!("a hole without an end")))
        });
        Arc::clone(made)
    }
}

/// The members of a value that dotted paths name. What has a hole in its place is kept whole.
pub(super) fn pick(value: &Value, paths: &[&str]) -> Value {
    match value {
        Value::Object(members) => {
            let mut picked = Map::new();
            for (name, member) in members {
                let below: Vec<&str> = paths
                    .iter()
                    .filter_map(|path| path.strip_prefix(name.as_str()))
                    .filter(|rest| rest.is_empty() || rest.starts_with('.'))
                    .map(|rest| rest.trim_start_matches('.'))
                    .collect();
                if below.iter().any(|rest| rest.is_empty()) {
                    picked.insert(name.clone(), member.clone());
                } else if !below.is_empty() {
                    picked.insert(name.clone(), pick(member, &below));
                }
            }
            Value::Object(picked)
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| pick(item, paths)).collect()),
        other => other.clone(),
    }
}

fn workspace(slug: &str, name: &str, state: WorkspaceState) -> Workspace {
    let seed = slug.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let uuid = written(u128::from(scatter(seed)) << 64 | u128::from(scatter(seed + 1)));
    Workspace { slug: slug.to_owned(), name: name.to_owned(), uuid, state, by_id: Vec::new() }
}

/// The id of a repository: no order of theirs is that in which they were made.
fn id(index: usize) -> u128 {
    let index = index as u64;
    u128::from(scatter(index ^ 0x00b1_7b0c)) << 64 | u128::from(scatter(index + 0x5eed_0000))
}

fn written(id: u128) -> String {
    let text = format!("{id:032x}");
    format!("{{{}-{}-{}-{}-{}}}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

fn parse_id(text: &str) -> Option<u128> {
    let digits = text.strip_prefix('{')?.strip_suffix('}')?.replace('-', "");
    u128::from_str_radix(&digits, 16).ok()
}

/// Names that try to break out of logs, paths and terminals.
fn hostile(repository: &mut Repository) {
    let (name, slug) = match repository.index {
        0 => ("../../etc/passwd", "..%2f..%2fetc"),
        1 => ("a%2f..%2fb", "a%2f..%2fb"),
        2 => (".git", ".git"),
        3 => ("bell\u{7} \u{1b}[31mred\u{1b}[0m \u{202e}txt.exe", "ansi"),
        4 => ("nul\u{0}byte", "nul"),
        5 => {
            repository.description = "long ".repeat(200_000);
            return;
        }
        _ => return,
    };
    repository.name = name.to_owned();
    repository.slug = slug.to_owned();
}

/// The recorded row with holes.
fn row() -> io::Result<Value> {
    let recorded = recorded!("bitbucket-cloud/exchanges/repos-page1-200.json");
    let recorded: Value = serde_json::from_str(recorded).map_err(|error| broken("repos-page1-200", error))?;
    let row = &recorded["response"]["body"]["values"][0];
    // Every link of the row, and whom it names.
    let text = row
        .to_string()
        .replace(
            "sourcegraph-testing@bitbucket.org/sourcegraph-testing/src-cli",
            "casey@bitbucket.org/{{ws}}/{{slug}}",
        )
        .replace("git@bitbucket.org:sourcegraph-testing/src-cli", "git@{{ssh}}:{{ws}}/{{slug}}")
        .replace("sourcegraph-testing/src-cli", "{{ws}}/{{slug}}")
        .replace("workspaces/sourcegraph-testing/projects/SOUR", "workspaces/{{ws}}/projects/{{project}}")
        .replace("sourcegraph-testing/workspace/projects/SOUR", "{{ws}}/workspace/projects/{{project}}")
        .replace("workspaces/sourcegraph-testing", "workspaces/{{ws}}")
        .replace("https://bitbucket.org/sourcegraph-testing/", "https://bitbucket.org/{{ws}}/");
    let mut row: Value = serde_json::from_str(&text).map_err(|error| broken("repos-page1-200", error))?;
    for (place, hole) in [
        ("/uuid", "{{uuid}}"),
        ("/name", "@@name@@"),
        ("/slug", "{{slug}}"),
        ("/description", "@@description@@"),
        ("/is_private", "@@private@@"),
        ("/size", "@@size@@"),
        ("/created_on", "{{created}}"),
        ("/updated_on", "{{updated}}"),
        ("/mainbranch", "@@branch@@"),
        ("/project/key", "{{project}}"),
        ("/project/name", "{{project}}"),
        ("/workspace/slug", "{{ws}}"),
        ("/workspace/name", "@@ws_name@@"),
        ("/workspace/uuid", "{{ws_uuid}}"),
        ("/owner/display_name", "@@ws_name@@"),
        ("/owner/nickname", "@@ws_name@@"),
        ("/owner/uuid", "{{ws_uuid}}"),
    ] {
        let member =
            row.pointer_mut(place).ok_or_else(|| io::Error::other(format!("no {place} in the row")))?;
        *member = json!(hole);
    }
    row["parent"] = json!("@@parent@@");
    Ok(row)
}

/// JSON text of a string without its quotes.
fn escaped(text: &str) -> String {
    let quoted = quoted(text);
    quoted[1..quoted.len() - 1].to_owned()
}

/// A moment in Bitbucket's form; later for higher indexes.
fn moment(index: usize, days: usize) -> String {
    let (day, month) = ((index / 86_400 + days) % 28 + 1, (index / 2_419_200) % 12 + 1);
    let (hour, minute, second) = (index / 3_600 % 24, index / 60 % 60, index % 60);
    format!("2024-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}+00:00", index % 1_000_000)
}
