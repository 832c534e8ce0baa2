//! What the fake Bitbucket Data Center holds: projects, repositories, who may do what, and the rows made of them.
//!
//! Everything is computed from a repository's index, so a forge with many costs no more memory than one with ten.

use std::fmt::Write;
use std::io;

use serde_json::{Value, json};

use super::super::broken;
use super::super::gitlab::data::scatter;
use super::super::template::{Template, quoted};
use super::tokens::{DataCenterOwner, DataCenterToken, Level};

/// The fake Bitbucket Data Center's size and habits.
#[derive(Clone, Debug)]
pub(crate) struct DataCenterConfig {
    /// Repositories that the good token's user was given.
    pub(crate) repositories: usize,
    /// Public repositories of strangers, which stand between them in listings.
    pub(crate) strangers: usize,
    /// Projects over which the repositories are spread, beside the user's own.
    pub(crate) projects: usize,
    /// What `application-properties` tells.
    pub(crate) version: String,
    /// The *configured* URL, of which links and redirects are made; `None` is the forge's own.
    pub(crate) external_url: Option<String>,
    /// The most rows of one page, as the administrator set it.
    pub(crate) page_cap: usize,
    /// Whether Basic is on, which it is not as version 10 comes.
    pub(crate) basic: bool,
    /// A single sign-on in front drops the header `Authorization`: everybody is a stranger.
    pub(crate) drops_token: bool,
    /// Whether the search for refs minds the case, which is not documented.
    pub(crate) search_minds_case: bool,
    /// Whether personal projects are among the projects, which is not documented.
    pub(crate) lists_personal: bool,
    /// Cloning over HTTP is switched off.
    pub(crate) ssh_only: bool,
    /// Give the first repositories names that try to break out.
    pub(crate) hostile_rows: bool,
}

impl Default for DataCenterConfig {
    fn default() -> Self {
        Self {
            repositories: 25,
            strangers: 5,
            projects: 6,
            version: "9.4.1".to_owned(),
            external_url: None,
            page_cap: 1_000,
            basic: false,
            drops_token: false,
            search_minds_case: true,
            lists_personal: false,
            ssh_only: false,
            hostile_rows: false,
        }
    }
}

/// Who owns most tokens.
pub(super) const OWNER: &str = "casey";
/// The former places of repository 0 and of the owner's first personal one.
pub(crate) const OLD_PATH: (&str, &str) = ("WEB", "old-website");
/// See [`OLD_PATH`].
pub(crate) const OLD_PERSONAL: (&str, &str) = ("~casey", "old-notes");

/// One project.
#[derive(Clone, Debug)]
pub(super) struct Project {
    pub(super) id: u64,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) public: bool,
}

impl Project {
    pub(super) fn is_personal(&self) -> bool {
        self.key.starts_with('~')
    }
}

/// The data and the templates.
#[derive(Debug)]
pub(super) struct Data {
    repositories: usize,
    /// Strangers' repositories that stand between the others; the rest of them comes last.
    mixed: usize,
    total: usize,
    hostile: bool,
    /// The last two are the owner's personal one and the strangers'.
    pub(super) projects: Vec<Project>,
    pub(super) external: String,
    host: String,
    /// With the link for HTTP first, and with that for SSH first.
    rows: [Template; 2],
}

impl Data {
    /// Reads the recorded rows.
    pub(super) fn build(config: &DataCenterConfig, external: String) -> io::Result<Self> {
        let host = external.split("://").nth(1).unwrap_or(&external);
        let host = host.split(['/', ':']).next().unwrap_or(host).to_owned();
        Ok(Self {
            repositories: config.repositories,
            mixed: config.strangers.min(config.repositories / 3),
            total: config.repositories + config.strangers,
            hostile: config.hostile_rows,
            projects: projects(config.projects.max(1)),
            rows: templates(config.ssh_only)?,
            host,
            external,
        })
    }

    /// The repositories that exist.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Whether a repository is a stranger's: public, and nobody was given it.
    pub(super) fn is_strangers(&self, index: usize) -> bool {
        (index % 4 == 3 && index / 4 < self.mixed) || index >= self.repositories + self.mixed
    }

    /// The number of a repository: ascending, with holes.
    pub(super) fn id(index: usize) -> u64 {
        101 + 3 * index as u64 + scatter(index as u64) % 3
    }

    /// The repository at a place, letter case of the key ignored.
    pub(super) fn at(&self, key: &str, slug: &str) -> Option<usize> {
        let digits = slug.rsplit('-').next().and_then(|digits| digits.parse::<usize>().ok());
        (0..self.total.min(8)).chain(digits).find(|&index| {
            index < self.total
                && self.slug(index) == slug
                && self.project(index).key.eq_ignore_ascii_case(key)
        })
    }

    /// The project of a repository: every tenth is the owner's own.
    pub(super) fn project(&self, index: usize) -> &Project {
        let own = self.projects.len() - 2;
        let place = match index % 10 {
            _ if self.is_strangers(index) => own + 1,
            2 | 9 => own,
            _ => index % own,
        };
        &self.projects[place]
    }

    /// What a repository is called.
    pub(super) fn name(&self, index: usize) -> String {
        match index {
            0 => "Acme Website".to_owned(),
            1 => "Übersicht & Prüfung".to_owned(),
            2 => "Dotted.Name_v2".to_owned(),
            4 if self.hostile => "bell\u{7} \u{1b}[31mred\u{1b}[0m \u{202e}txt.exe".to_owned(),
            _ => format!("Repo {index:05}"),
        }
    }

    /// What it is called in URLs.
    pub(super) fn slug(&self, index: usize) -> String {
        match index {
            0 if self.hostile => "..".to_owned(),
            1 if self.hostile => "a%2f..%2fb".to_owned(),
            0 => "acme-website".to_owned(),
            1 => "ubersicht-prufung".to_owned(),
            2 => "dotted.name_v2".to_owned(),
            _ => format!("repo-{index:05}"),
        }
    }

    pub(super) fn is_archived(index: usize) -> bool {
        index % 11 == 5
    }

    /// No branch was ever pushed.
    pub(super) fn is_empty(index: usize) -> bool {
        index % 17 == 4
    }

    /// The configured default branch was deleted.
    pub(super) fn lacks_default(index: usize) -> bool {
        index == 8
    }

    pub(super) fn state(index: usize) -> &'static str {
        if index == 6 { "OFFLINE" } else { "AVAILABLE" }
    }

    pub(super) fn is_public(&self, index: usize) -> bool {
        self.project(index).public || index % 5 == 2
    }

    /// What a token may do with a repository: the least of what it and its user may.
    pub(super) fn level(&self, token: Option<&DataCenterToken>, index: usize) -> Level {
        let Some(token) = token.filter(|_| !self.is_strangers(index)) else { return Level::None };
        let of_user = match token.owner {
            DataCenterOwner::Project if self.project(index).id == self.projects[0].id => Level::Admin,
            DataCenterOwner::Repository if index == 0 => Level::Admin,
            DataCenterOwner::Project | DataCenterOwner::Repository => Level::None,
            DataCenterOwner::User if token.user == "robin" => {
                if index.is_multiple_of(3) {
                    Level::Read
                } else {
                    Level::None
                }
            }
            DataCenterOwner::User => match index % 10 {
                0 | 1 | 2 | 7 | 9 => Level::Admin,
                4 | 8 => Level::Write,
                _ => Level::Read,
            },
        };
        of_user.min(token.level)
    }

    /// Whether a caller sees a repository at all: the implicit read of the description.
    pub(super) fn is_visible(&self, token: Option<&DataCenterToken>, index: usize) -> bool {
        self.level(token, index) > Level::None || self.is_public(index)
    }

    /// The row of a repository, for a caller of that name.
    pub(super) fn row(&self, index: usize, caller: Option<&str>) -> String {
        let mut out = String::with_capacity(1_200);
        let (project, slug) = (self.project(index), self.slug(index));
        let (scheme, rest) = self.external.split_once("://").unwrap_or(("http", &self.external));
        self.rows[index % 2].render(&mut out, |slot, out| {
            // Writing to a string cannot fail.
            let _ = match slot {
                "id" => write!(out, "{}", Self::id(index)),
                "name" => write!(out, "{}", quoted(&self.name(index))),
                "description" => write!(out, "{}", quoted(&format!("What {} is about", self.name(index)))),
                "slug" => write!(out, "{slug}"),
                "hierarchy" => write!(out, "{:020x}", scatter(index as u64)),
                "state" => write!(out, "{}", Self::state(index)),
                "archived" => write!(out, "{}", Self::is_archived(index)),
                "public" => write!(out, "{}", index % 5 == 2),
                "key" => write!(out, "{}", project.key),
                "lower_key" => write!(out, "{}", project.key.to_lowercase()),
                "project_id" => write!(out, "{}", project.id),
                "project_name" => write!(out, "{}", quoted(&project.name)),
                "project_public" => write!(out, "{}", project.public),
                "project_type" => {
                    write!(out, "{}", if project.is_personal() { "PERSONAL" } else { "NORMAL" })
                }
                "project_page" => write!(out, "{}", page(project)),
                "scheme" => write!(out, "{scheme}"),
                // Some versions write the caller's name into the link.
                "user" => match caller.filter(|_| index % 5 == 1) {
                    Some(user) => write!(out, "{user}@"),
                    None => Ok(()),
                },
                "rest" => write!(out, "{rest}"),
                "base" => write!(out, "{}", self.external),
                "host" => write!(out, "{}", self.host),
                "origin" if index % 13 == 5 => {
                    let origin = json!({"slug": "upstream", "id": 90, "name": "upstream", "scmId": "git",
                        "project": {"key": "UP", "id": 90, "name": "Upstream", "public": false, "type": "NORMAL"}});
                    write!(out, "{origin}")
                }
                _ => write!(out, "null"),
            };
        });
        // A repository that is no fork has no such member.
        out.replacen("\"origin\":null,", "", 1)
    }

    /// The row of a project.
    pub(super) fn project_row(&self, project: &Project) -> String {
        let kind = if project.is_personal() { "PERSONAL" } else { "NORMAL" };
        let mut row = json!({"key": project.key, "id": project.id, "name": project.name, "public": project.public,
            "type": kind, "links": {"self": [{"href": format!("{}/{}", self.external, page(project))}]}});
        if project.is_personal() {
            row["owner"] = json!({"name": OWNER, "id": 104, "slug": OWNER, "type": "NORMAL", "active": true});
        }
        row.to_string()
    }
}

/// The page of a project, below the base URL.
fn page(project: &Project) -> String {
    match project.key.strip_prefix('~') {
        Some(user) => format!("users/{user}"),
        None => format!("projects/{}", project.key),
    }
}

/// `WEB`, `PLAT`, `PRJ_2`, …, then the owner's personal one and the strangers'.
fn projects(count: usize) -> Vec<Project> {
    let named = (0..count).map(|index| match index {
        0 => ("WEB".to_owned(), "Web & Söhne".to_owned()),
        1 => ("PLAT".to_owned(), "Platform".to_owned()),
        _ => (format!("PRJ_{index}"), format!("Project {index}")),
    });
    let own = (format!("~{OWNER}"), "Casey Example".to_owned());
    let strangers = ("PUB".to_owned(), "Everybody's".to_owned());
    named
        .chain([own, strangers])
        .enumerate()
        .map(|(index, (key, name))| Project { id: 26 + 3 * index as u64, public: key == "PUB", key, name })
        .collect()
}

/// The recorded row of drone/go-scm with holes, and the members that newer versions add.
fn templates(ssh_only: bool) -> io::Result<[Template; 2]> {
    let recorded = recorded!("bitbucket-data-center/go-scm/repo.json");
    let recorded: Value = serde_json::from_str(recorded).map_err(|error| broken("repo.json", error))?;
    let ssh = json!({"href": "ssh://git@{{host}}:7999/{{lower_key}}/{{slug}}.git", "name": "ssh"});
    let http =
        json!({"href": "{{scheme}}://{{user}}{{rest}}/scm/{{lower_key}}/{{slug}}.git", "name": "http"});
    let row = |clone: Vec<Value>| {
        let clone: Vec<Value> = clone.into_iter().filter(|link| !ssh_only || link["name"] == "ssh").collect();
        let mut row = recorded.clone();
        for (name, value) in [
            ("id", json!("@@id@@")),
            ("slug", json!("{{slug}}")),
            ("name", json!("@@name@@")),
            ("description", json!("@@description@@")),
            ("hierarchyId", json!("{{hierarchy}}")),
            ("state", json!("{{state}}")),
            ("archived", json!("@@archived@@")),
            ("public", json!("@@public@@")),
            ("origin", json!("@@origin@@")),
        ] {
            row[name] = value;
        }
        for (name, value) in [
            ("key", json!("{{key}}")),
            ("id", json!("@@project_id@@")),
            ("name", json!("@@project_name@@")),
            ("public", json!("@@project_public@@")),
            ("type", json!("{{project_type}}")),
            ("links", json!({"self": [{"href": "{{base}}/{{project_page}}"}]})),
        ] {
            row["project"][name] = value;
        }
        let page = json!([{"href": "{{base}}/projects/{{key}}/repos/{{slug}}/browse"}]);
        row["links"] = json!({"clone": clone, "self": page});
        Template::new(&row)
    };
    Ok([row(vec![http.clone(), ssh.clone()])?, row(vec![ssh, http])?])
}
