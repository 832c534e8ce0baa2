//! What the fake GitLab holds: groups, projects, who may do what, and the rows made of them.
//!
//! Everything is computed from a project's index, so a forge with a million projects costs no more
//! memory than one with ten.

use std::fmt::Write;
use std::io;

use serde_json::{Value, json};

use super::super::broken;
use super::super::template::{Template, quoted};

/// The fake GitLab's size and habits.
#[derive(Clone, Debug)]
pub(crate) struct GitlabConfig {
    /// Projects of which the good token's user is a member: what `membership=true` lists for it.
    pub(crate) repositories: usize,
    /// Public projects of strangers, listed only without `membership=true`.
    pub(crate) strangers: usize,
    /// Groups, in a tree three levels deep.
    pub(crate) groups: usize,
    /// What `/version` and `/metadata` tell, such as `18.1.0-ee`.
    pub(crate) version: String,
    /// The *configured* URL, of which `Link` headers and rows are made; `None` is the forge's own.
    pub(crate) external_url: Option<String>,
    /// `page × per_page` above this is refused with 405 (up to GitLab 15 at least: 50,000).
    pub(crate) offset_limit: Option<u64>,
    /// Above this many rows the totals are left out (10,000 at the real one).
    pub(crate) total_limit: usize,
    /// `RateLimit-Limit`, `-Remaining` and `-Reset` (Unix seconds) on every answer, as gitlab.com's front sends them.
    pub(crate) rate_limit: Option<(u64, u64, u64)>,
    /// How many webhooks a project can have (100 at gitlab.com).
    pub(crate) hook_limit: usize,
    /// The administrator lets webhooks go to this machine and its network.
    pub(crate) local_targets: bool,
    /// The flag `webhook_signing_token`, of 19.0 and above.
    pub(crate) signing_tokens: bool,
    /// Test deliveries are not answered with success.
    pub(crate) receivers_fail: bool,
    /// A front proxy that decodes `%2F`, which turns every look-up by path into a 404.
    pub(crate) decodes_slashes: bool,
    /// Give the first projects names that try to break out: `../../etc`, control characters, 1 MB of text.
    pub(crate) hostile_rows: bool,
}

impl Default for GitlabConfig {
    fn default() -> Self {
        Self {
            repositories: 25,
            strangers: 5,
            groups: 6,
            version: "18.1.0-ee".to_owned(),
            external_url: None,
            offset_limit: None,
            total_limit: 10_000,
            rate_limit: None,
            hook_limit: 100,
            local_targets: false,
            signing_tokens: true,
            receivers_fail: false,
            decodes_slashes: false,
            hostile_rows: false,
        }
    }
}

/// The path under which project 0 was known before it moved.
pub(crate) const OLD_PATH: &str = "acme/old-website";
/// The login of the user who owns most tokens.
pub(super) const OWNER: &str = "casey";
/// Added to the ids of the second half: the id space has a hole.
const ID_GAP: u64 = 5_000_000;

/// One project.
#[derive(Clone, Debug)]
pub(super) struct Project {
    pub(super) index: usize,
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) path: String,
    pub(super) description: String,
    pub(super) visibility: &'static str,
    pub(super) archived: bool,
    pub(super) empty: bool,
    pub(super) fork: bool,
    pub(super) pending_deletion: bool,
}

/// One namespace: a group, or the user's own.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) path: String,
    pub(super) full_path: String,
    pub(super) full_name: String,
    pub(super) parent: Option<u64>,
    pub(super) user: bool,
}

/// The levels that `permissions` shows, and the one of an invited group that it never shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Access {
    pub(super) project: Option<u8>,
    pub(super) group: Option<u8>,
    pub(super) invited: Option<u8>,
}

impl Access {
    /// The level that counts; 0 for none.
    pub(super) fn level(self) -> u8 {
        let levels = [self.project, self.group, self.invited];
        levels.into_iter().flatten().max().unwrap_or(0)
    }
}

/// How a row is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// `simple=true`.
    pub(super) simple: bool,
    /// Levels to show as `permissions`; `None` leaves the member out.
    pub(super) access: Option<Access>,
    /// The caller has no identity: no `visibility`, no details.
    pub(super) anonymous: bool,
    /// `statistics=true` and the caller may see them.
    pub(super) statistics: bool,
    /// The caller may read code: `default_branch` is shown.
    pub(super) code: bool,
}

/// The data and the templates.
#[derive(Debug)]
pub(super) struct Data {
    members: usize,
    total: usize,
    hostile: bool,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) external: String,
    host: String,
    full: Template,
    simple: Template,
}

impl Data {
    /// Reads the recorded rows.
    pub(super) fn build(config: &GitlabConfig, external: String) -> io::Result<Self> {
        let host = external.split("://").nth(1).unwrap_or(&external);
        let host = host.split(['/', ':']).next().unwrap_or(host).to_owned();
        let (full, simple) = templates()?;
        Ok(Self {
            members: config.repositories,
            total: config.repositories + config.strangers,
            hostile: config.hostile_rows,
            namespaces: namespaces(config.groups.max(1)),
            host,
            external,
            full,
            simple,
        })
    }

    /// The projects that exist; the members' come first, the strangers' follow.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// How many belong to the good token's user.
    pub(super) fn members(&self) -> usize {
        self.members
    }

    /// The id of the project at `index`: ascending, with holes of changing size.
    pub(super) fn id(&self, index: usize) -> u64 {
        let gap = if index > self.total / 2 { ID_GAP } else { 0 };
        1_001 + 7 * index as u64 + scatter(index as u64) % 7 + gap
    }

    /// The project of an id.
    pub(super) fn of_id(&self, id: u64) -> Option<usize> {
        [Some(id), id.checked_sub(ID_GAP)]
            .into_iter()
            .filter_map(|base| usize::try_from(base?.checked_sub(1_001)? / 7).ok())
            .find(|index| *index < self.total && self.id(*index) == id)
    }

    /// The first index whose id is above `id`.
    pub(super) fn first_after(&self, id: u64) -> usize {
        let (mut low, mut high) = (0, self.total);
        while low < high {
            let middle = low.midpoint(high);
            if self.id(middle) > id {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// The project of a full path, letter case ignored.
    pub(super) fn of_path(&self, path: &str) -> Option<usize> {
        let digits: String = path.chars().rev().take_while(char::is_ascii_digit).collect();
        let number: String = digits.chars().rev().collect();
        let special = 0..self.total.min(8);
        special
            .chain(number.parse::<usize>().ok())
            .filter(|index| *index < self.total)
            .find(|index| self.full_path(*index).eq_ignore_ascii_case(path))
    }

    /// `group/sub/project`.
    pub(super) fn full_path(&self, index: usize) -> String {
        let namespace = self.namespace(index);
        format!("{}/{}", namespace.full_path, self.project(index).path)
    }

    /// The namespace of a project: every tenth is the user's own.
    pub(super) fn namespace(&self, index: usize) -> &Namespace {
        let own = self.namespaces.len() - 1;
        let place = if index % 10 == 9 { own } else { index % own };
        &self.namespaces[place]
    }

    /// Whether a flag of the project stands, without making its strings.
    pub(super) fn archived(index: usize) -> bool {
        index % 11 == 3
    }

    /// The visibility of a project. Strangers' are public.
    pub(super) fn visibility(&self, index: usize) -> &'static str {
        match index % 3 {
            _ if index >= self.members => "public",
            0 => "private",
            1 => "internal",
            _ => "public",
        }
    }

    /// One project.
    pub(super) fn project(&self, index: usize) -> Project {
        let (name, path) = match index {
            0 => ("Acme Website".to_owned(), "website".to_owned()),
            1 => ("Übersicht & Prüfung".to_owned(), "ubersicht".to_owned()),
            2 => ("Dotted.Name v2".to_owned(), "dotted.name_v2".to_owned()),
            _ => (format!("Repo {index:05}"), format!("repo-{index:05}")),
        };
        let mut project = Project {
            index,
            id: self.id(index),
            description: format!("What {name} is about"),
            name,
            path,
            visibility: self.visibility(index),
            archived: Self::archived(index),
            empty: index % 17 == 4,
            fork: index % 13 == 5,
            pending_deletion: index == 6,
        };
        if self.hostile {
            hostile(&mut project);
        }
        project
    }

    /// The good token's user in a project.
    pub(super) fn owner_access(&self, index: usize) -> Access {
        let (project, group, invited) = match index % 10 {
            _ if index >= self.members => (None, None, None),
            0 | 9 => (Some(50), None, None),
            1 => (None, Some(40), None),
            2 => (Some(30), Some(20), None),
            3 => (Some(20), None, None),
            4 => (Some(10), None, None),
            5 => (None, Some(50), None),
            6 => (None, None, Some(40)),
            7 => (Some(40), None, None),
            8 => (None, Some(30), None),
            _ => (None, None, None),
        };
        Access { project, group, invited }
    }

    /// Writes the row of a project.
    pub(super) fn render(&self, project: &Project, view: View, out: &mut String) {
        let namespace = self.namespace(project.index);
        out.push('{');
        self.optional(project, view, out);
        let template = if view.simple || view.anonymous { &self.simple } else { &self.full };
        template.render(out, |slot, out| {
            // Writing to a string cannot fail.
            let _ = match slot {
                "id" => write!(out, "{}", project.id),
                "name" => write!(out, "{}", quoted(&project.name)),
                "full_name" => {
                    let full = format!("{} / {}", namespace.full_name, project.name);
                    write!(out, "{}", quoted(&full))
                }
                "path" => write!(out, "{}", escaped(&project.path)),
                "full" => write!(out, "{}/{}", namespace.full_path, escaped(&project.path)),
                "description" => write!(out, "{}", quoted(&project.description)),
                "base" => write!(out, "{}", self.external),
                "host" => write!(out, "{}", self.host),
                "archived" => write!(out, "{}", project.archived),
                "empty" => write!(out, "{}", project.empty),
                "created" => write!(out, "{}", moment(project.index, 0)),
                "active" => write!(out, "{}", moment(project.index, 40)),
                "ns_id" => write!(out, "{}", namespace.id),
                "ns_name" => write!(out, "{}", quoted(&namespace.name)),
                "ns_path" => write!(out, "{}", namespace.path),
                "ns_full" => write!(out, "{}", namespace.full_path),
                "ns_kind" => write!(out, "{}", if namespace.user { "user" } else { "group" }),
                "ns_parent" => match namespace.parent {
                    Some(parent) => write!(out, "{parent}"),
                    None => write!(out, "null"),
                },
                _ => Ok(()),
            };
        });
    }

    /// The members that a row has or has not.
    fn optional(&self, project: &Project, view: View, out: &mut String) {
        if view.code || project.visibility == "public" {
            out.push_str("\"default_branch\":\"main\",");
        }
        if !view.anonymous {
            // Writing to a string cannot fail.
            let _ = write!(out, "\"visibility\":\"{}\",", project.visibility);
        }
        if view.simple || view.anonymous {
            return;
        }
        if let Some(access) = view.access {
            let level = |level: Option<u8>| {
                level.map_or(Value::Null, |level| json!({"access_level": level, "notification_level": 3}))
            };
            let permissions =
                json!({"project_access": level(access.project), "group_access": level(access.group)});
            let _ = write!(out, "\"permissions\":{permissions},");
        }
        if view.statistics {
            let size = 1_000 * project.index;
            let statistics = json!({"commit_count": 12, "storage_size": size + 20, "repository_size": size, "wiki_size": 0,
                "lfs_objects_size": 0, "job_artifacts_size": 0, "packages_size": 0, "snippets_size": 0});
            let _ = write!(out, "\"statistics\":{statistics},");
        }
        if project.fork {
            let origin = json!({"id": self.id(0), "name": "Acme Website", "path": "website",
                "path_with_namespace": self.full_path(0), "web_url": format!("{}/{}", self.external, self.full_path(0))});
            let _ = write!(out, "\"forked_from_project\":{origin},");
        }
        if project.pending_deletion {
            out.push_str(
                "\"marked_for_deletion_at\":\"2026-11-20\",\"marked_for_deletion_on\":\"2026-11-20\",",
            );
        }
    }
}

/// The groups `acme`, `acme/platform`, `acme/platform/deep`, `group-003`, …, and last the user's namespace.
fn namespaces(groups: usize) -> Vec<Namespace> {
    let mut all: Vec<Namespace> = Vec::with_capacity(groups + 1);
    for index in 0..groups {
        let (name, path) = match index {
            0 => ("Acme & Söhne".to_owned(), "acme".to_owned()),
            1 => ("Platform".to_owned(), "platform".to_owned()),
            2 => ("Deep".to_owned(), "deep".to_owned()),
            _ => (format!("Group {index:03}"), format!("group-{index:03}")),
        };
        let parent = (index % 3 > 0).then(|| all.last()).flatten();
        let full_path = parent.map_or(path.clone(), |p| format!("{}/{path}", p.full_path));
        let full_name = parent.map_or(name.clone(), |p| format!("{} / {name}", p.full_name));
        let parent = parent.map(|parent| parent.id);
        all.push(Namespace {
            id: 120_836 + 11 * index as u64,
            name,
            path,
            full_path,
            full_name,
            parent,
            user: false,
        });
    }
    all.push(Namespace {
        id: 63_972,
        name: "Casey Example".to_owned(),
        path: OWNER.to_owned(),
        full_path: OWNER.to_owned(),
        full_name: "Casey Example".to_owned(),
        parent: None,
        user: true,
    });
    all
}

/// Names that try to break out of logs, paths and terminals.
fn hostile(project: &mut Project) {
    let (name, path) = match project.index {
        0 => ("../../etc/passwd", "..%2f..%2fetc"),
        1 => ("a%2f..%2fb", "a%2f..%2fb"),
        2 => (".git", ".git"),
        3 => ("bell\u{7} \u{1b}[31mred\u{1b}[0m \u{202e}txt.exe", "ansi"),
        4 => ("nul\u{0}byte", "nul"),
        5 => {
            project.description = "long ".repeat(200_000);
            return;
        }
        _ => return,
    };
    project.name = name.to_owned();
    project.path = path.to_owned();
}

/// The recorded rows of drone/go-scm and the newer members of the recorded public project, with holes;
/// the opening brace and the optional members are written by [`Data::render`].
fn templates() -> io::Result<(Template, Template)> {
    let recorded = recorded!("gitlab/go-scm/repo.json");
    let exchange = recorded!("gitlab/exchanges/project-200-unauthenticated.json");
    let exchange: Value = serde_json::from_str(exchange).map_err(|error| broken("project-200", error))?;
    let mut full: Value = serde_json::from_str(recorded).map_err(|error| broken("repo.json", error))?;
    let mut simple = exchange["response"]["body"].clone();
    for row in [&mut full, &mut simple] {
        let namespace = json!({"id": "@@ns_id@@", "name": "@@ns_name@@", "path": "{{ns_path}}", "kind": "{{ns_kind}}",
            "full_path": "{{ns_full}}", "parent_id": "@@ns_parent@@", "avatar_url": null,
            "web_url": "{{base}}/groups/{{ns_full}}"});
        let own = json!({"id": "@@id@@", "name": "@@name@@", "path": "{{path}}", "description": "@@description@@",
            "name_with_namespace": "@@full_name@@", "path_with_namespace": "{{full}}",
            "created_at": "{{created}}", "last_activity_at": "{{active}}", "namespace": namespace,
            "topics": [], "avatar_url": null, "readme_url": "{{base}}/{{full}}/-/blob/main/README.md",
            "ssh_url_to_repo": "git@{{host}}:{{full}}.git", "http_url_to_repo": "{{base}}/{{full}}.git",
            "web_url": "{{base}}/{{full}}"});
        merge(row, own);
    }
    let mut links = full["_links"].clone();
    if let Some(links) = links.as_object_mut() {
        for (name, link) in links.iter_mut() {
            let tail = match name.as_str() {
                "self" => String::new(),
                "repo_branches" => "/repository/branches".to_owned(),
                other => format!("/{other}"),
            };
            *link = format!("{{{{base}}}}/api/v4/projects/{{{{id}}}}{tail}").into();
        }
    }
    merge(
        &mut full,
        json!({"_links": links, "archived": "@@archived@@", "empty_repo": "@@empty@@",
        "repository_access_level": "enabled", "import_status": "none"}),
    );
    for row in [&mut full, &mut simple] {
        if let Some(row) = row.as_object_mut() {
            for optional in ["default_branch", "visibility", "permissions"] {
                row.remove(optional);
            }
        }
    }
    Ok((headless(&full)?, headless(&simple)?))
}

/// A template of a row without its opening brace.
fn headless(row: &Value) -> io::Result<Template> {
    let mut template = Template::new(row)?;
    template.drop_first_byte();
    Ok(template)
}

fn merge(row: &mut Value, more: Value) {
    if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
    }
}

/// JSON text of a string without its quotes.
fn escaped(text: &str) -> String {
    let quoted = quoted(text);
    quoted[1..quoted.len() - 1].to_owned()
}

/// A moment in GitLab's form; later for higher indexes.
fn moment(index: usize, days: usize) -> String {
    let (day, month) = ((index / 86_400 + days) % 28 + 1, (index / 2_419_200) % 12 + 1);
    let (hour, minute, second) = (index / 3_600 % 24, index / 60 % 60, index % 60);
    format!("2024-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", index % 1_000)
}

/// A fixed pseudo-random number (splitmix64).
pub(in super::super) fn scatter(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
