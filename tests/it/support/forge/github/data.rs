//! What the fake GitHub holds: organizations, repositories, who may do what, and the rows made of them.
//!
//! Everything is computed from a repository's index, so a forge with a million repositories costs no more memory
//! than one with ten.

use std::fmt::Write;
use std::io;

use serde_json::{Value, json};

use super::super::broken;
use super::super::template::{Template, quoted};
use super::tokens::OWNER_ID;

/// The fake GitHub's size and habits.
#[derive(Clone, Debug)]
pub(crate) struct GithubConfig {
    /// Repositories that the good token's user sees.
    pub(crate) repositories: usize,
    /// Organizations that own them, beside the user.
    pub(crate) organizations: usize,
    /// What `/meta` and `X-GitHub-Enterprise-Version` tell; `None` is the cloud, which tells nothing.
    pub(crate) version: Option<String>,
    /// The *configured* URL, of which links and rows are made, without `/api/v3`; `None` is the forge's own.
    pub(crate) external_url: Option<String>,
    /// Links name the API without `/api/v3`, as those of the cloud do, which a gateway passes through.
    pub(crate) cloud_links: bool,
    /// Strangers are refused everywhere.
    pub(crate) private_mode: bool,
    /// The links to further pages of `/user/repos` have the form `/user/{number}/repos`.
    pub(crate) moved_links: bool,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset` (Unix seconds) on every answer.
    pub(crate) rate_limit: Option<(u64, u64, u64)>,
    /// Every tenth row of a listing is `null`.
    pub(crate) null_rows: bool,
    /// A page of more rows than this takes too long: 502.
    pub(crate) slow_above: Option<usize>,
    /// Webhooks of one event that a repository can have.
    pub(crate) hooks_per_event: usize,
    /// Give the first repositories names and texts that try to break out: `..%2f..%2fetc`, control characters, 1 MB.
    pub(crate) hostile_rows: bool,
}

impl Default for GithubConfig {
    fn default() -> Self {
        Self {
            repositories: 25,
            organizations: 4,
            version: Some("3.14.2".to_owned()),
            external_url: None,
            cloud_links: false,
            private_mode: false,
            moved_links: false,
            rate_limit: None,
            null_rows: false,
            slow_above: None,
            hooks_per_event: 20,
            hostile_rows: false,
        }
    }
}

/// The name under which repository 0 was known before it moved.
pub(super) const OLD_NAME: &str = "acme/old-website";
/// The login of the user who owns most tokens.
pub(super) const OWNER: &str = "casey";

/// Who owns repositories.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) id: u64,
    pub(super) login: String,
    pub(super) user: bool,
}

/// The role of a caller in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Stranger,
    Pull,
    Triage,
    Push,
    Maintain,
    Admin,
}

/// The data and the template of a row.
#[derive(Debug)]
pub(super) struct Data {
    count: usize,
    hostile: bool,
    pub(super) owners: Vec<Owner>,
    pub(super) web: String,
    pub(super) api: String,
    host: String,
    row: Template,
}

impl Data {
    /// Reads the recorded row.
    pub(super) fn build(config: &GithubConfig, web: String) -> io::Result<Self> {
        let host = web.split("://").nth(1).unwrap_or(&web);
        let host = host.split(['/', ':']).next().unwrap_or(host).to_owned();
        let api = if config.cloud_links { web.replace("://", "://api.") } else { format!("{web}/api/v3") };
        Ok(Self {
            count: config.repositories,
            hostile: config.hostile_rows,
            owners: owners(config.organizations.max(2)),
            row: template()?,
            web,
            api,
            host,
        })
    }

    /// How many repositories there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Ascending ids with holes.
    pub(super) fn id(index: usize) -> u64 {
        1_296_269 + 7 * index as u64
    }

    /// The repository of an id.
    pub(super) fn of_id(&self, id: u64) -> Option<usize> {
        let base = id.checked_sub(Self::id(0))?;
        let index = usize::try_from(base / 7).ok()?;
        (base.is_multiple_of(7) && index < self.count).then_some(index)
    }

    /// The repository of a full name, letter case ignored.
    pub(super) fn of_name(&self, owner: &str, name: &str) -> Option<usize> {
        let digits: String = name.chars().rev().take_while(char::is_ascii_digit).collect();
        let number: String = digits.chars().rev().collect();
        let special = 0..self.count.min(8);
        special
            .chain(number.parse::<usize>().ok())
            .filter(|index| *index < self.count)
            .find(|index| format!("{owner}/{name}").eq_ignore_ascii_case(&self.full_name(*index)))
    }

    /// `owner/name`.
    pub(super) fn full_name(&self, index: usize) -> String {
        format!("{}/{}", self.owner(index).login, self.name(index))
    }

    /// The owner of a repository: every tenth is the user's own.
    pub(super) fn owner(&self, index: usize) -> &Owner {
        let own = self.owners.len() - 1;
        let place = if index % 10 == 9 { own } else { index % own };
        &self.owners[place]
    }

    fn name(&self, index: usize) -> String {
        match index {
            0 if self.hostile => "..%2f..%2fetc".to_owned(),
            1 if self.hostile => "a%2f..%2fb".to_owned(),
            2 if self.hostile => ".git".to_owned(),
            3 if self.hostile => "bell\u{7}\u{1b}[31m\u{202e}txt.exe".to_owned(),
            0 => "website".to_owned(),
            1 => "Dotted.Name_v2".to_owned(),
            2 => ".github".to_owned(),
            _ => format!("repo-{index:05}"),
        }
    }

    fn description(&self, index: usize) -> String {
        match index {
            4 if self.hostile => "nul\u{0}byte\r\nand a line".to_owned(),
            5 if self.hostile => "long ".repeat(200_000),
            1 => "\u{dc}bersicht & Pr\u{fc}fung \u{1f600}".to_owned(),
            _ => format!("What {} is about", self.name(index)),
        }
    }

    pub(super) fn archived(index: usize) -> bool {
        index % 11 == 3
    }

    /// Shut by GitHub: still listed.
    pub(super) fn blocked(index: usize) -> bool {
        index % 19 == 7
    }

    pub(super) fn empty(index: usize) -> bool {
        index % 17 == 4
    }

    /// `private`, `internal` or `public`.
    pub(super) fn visibility(index: usize) -> &'static str {
        ["private", "internal", "public"][index % 3]
    }

    /// The role of the good token's user.
    pub(super) fn role(index: usize) -> Role {
        match index % 10 {
            2 | 8 => Role::Push,
            3 => Role::Triage,
            4 => Role::Pull,
            6 => Role::Maintain,
            _ => Role::Admin,
        }
    }

    /// Writes the row of a repository.
    pub(super) fn render(&self, index: usize, role: Role, out: &mut String) {
        let (owner, name) = (self.owner(index), self.name(index));
        let name = escaped(&name);
        let visibility = Self::visibility(index);
        self.row.render(out, |slot, out| {
            // Writing to a string cannot fail.
            let _ = match slot {
                "id" => write!(out, "{}", Self::id(index)),
                "name" => write!(out, "{name}"),
                "login" => write!(out, "{}", owner.login),
                "owner_id" => write!(out, "{}", owner.id),
                "owner_type" => write!(out, "{}", if owner.user { "User" } else { "Organization" }),
                "description" => write!(out, "{}", quoted(&self.description(index))),
                "api" => write!(out, "{}", self.api),
                "web" => write!(out, "{}", self.web),
                "host" => write!(out, "{}", self.host),
                "private" => write!(out, "{}", visibility != "public"),
                "visibility" => write!(out, "{visibility}"),
                "fork" => write!(out, "{}", index % 13 == 5),
                "archived" => write!(out, "{}", Self::archived(index)),
                "disabled" => write!(out, "{}", Self::blocked(index)),
                "size" => write!(out, "{}", if Self::empty(index) { 0 } else { 10 + index }),
                "created" => write!(out, "{}", moment(index, 0)),
                "updated" => write!(out, "{}", moment(index, 3)),
                "pushed" => write!(out, "{}", moment(index, 5)),
                "admin" => write!(out, "{}", role >= Role::Admin),
                "maintain" => write!(out, "{}", role >= Role::Maintain),
                "push" => write!(out, "{}", role >= Role::Push),
                "triage" => write!(out, "{}", role >= Role::Triage),
                "pull" => write!(out, "{}", role >= Role::Pull),
                _ => Ok(()),
            };
        });
    }
}

/// `acme`, `platform`, `org-002`, …, and last the user.
fn owners(organizations: usize) -> Vec<Owner> {
    let mut all: Vec<Owner> = (0..organizations)
        .map(|index| Owner {
            id: 21_955_855 + 11 * index as u64,
            login: match index {
                0 => "acme".to_owned(),
                1 => "platform".to_owned(),
                _ => format!("org-{index:03}"),
            },
            user: false,
        })
        .collect();
    all.push(Owner { id: OWNER_ID, login: OWNER.to_owned(), user: true });
    all
}

/// The recorded row of an organization's repository, with holes and the newer members of the description.
fn template() -> io::Result<Template> {
    let recorded = recorded!("github/exchanges/user-repos-page1-200.json");
    let recorded: Value = serde_json::from_str(recorded).map_err(|error| broken("user-repos", error))?;
    let rows = recorded["response"]["body"].as_array();
    let row = rows.and_then(|rows| rows.iter().find(|row| row["full_name"] == "beautifier/beautifier.io"));
    let text = row.map(Value::to_string).unwrap_or_default();
    let text = text
        .replace("https://api.github.com/repos/beautifier/beautifier.io", "{{api}}/repos/{{login}}/{{name}}")
        .replace("https://api.github.com/users/beautifier", "{{api}}/users/{{login}}")
        .replace("https://api.github.com", "{{api}}")
        .replace("https://github.com/beautifier/beautifier.io", "{{web}}/{{login}}/{{name}}")
        .replace("https://github.com/beautifier", "{{web}}/{{login}}")
        .replace("git://github.com/beautifier/beautifier.io", "git://{{host}}/{{login}}/{{name}}")
        .replace("git@github.com:beautifier/beautifier.io", "git@{{host}}:{{login}}/{{name}}");
    let mut row: Value = serde_json::from_str(&text).map_err(|error| broken("row", error))?;
    let own = json!({"id": "@@id@@", "name": "{{name}}", "full_name": "{{login}}/{{name}}", "private": "@@private@@",
        "visibility": "{{visibility}}", "description": "@@description@@", "fork": "@@fork@@", "homepage": null,
        "archived": "@@archived@@", "disabled": "@@disabled@@", "size": "@@size@@", "default_branch": "main",
        "created_at": "{{created}}", "updated_at": "{{updated}}", "pushed_at": "{{pushed}}",
        "permissions": {"admin": "@@admin@@", "maintain": "@@maintain@@", "push": "@@push@@", "triage": "@@triage@@",
            "pull": "@@pull@@"},
        "topics": [], "is_template": false, "allow_forking": true, "web_commit_signoff_required": false});
    if let (Some(row), Value::Object(own)) = (row.as_object_mut(), own) {
        row.extend(own);
    }
    row["owner"]["login"] = "{{login}}".into();
    row["owner"]["id"] = "@@owner_id@@".into();
    row["owner"]["type"] = "{{owner_type}}".into();
    Template::new(&row)
}

/// JSON text of a string without its quotes.
fn escaped(text: &str) -> String {
    let quoted = quoted(text);
    quoted[1..quoted.len() - 1].to_owned()
}

/// A moment in GitHub's form; later for higher indexes.
fn moment(index: usize, days: usize) -> String {
    let (day, month) = ((index / 86_400 + days) % 28 + 1, (index / 2_419_200) % 12 + 1);
    let (hour, minute, second) = (index / 3_600 % 24, index / 60 % 60, index % 60);
    format!("2024-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
