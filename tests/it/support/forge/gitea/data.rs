//! What the fake Gitea holds: organizations, repositories, who may do what, and the rows made of them.
//!
//! Everything is computed from a repository's index, so a large forge costs no more memory than a small one.

use std::fmt::Write;
use std::io;

use serde_json::{Value, json};

use super::super::broken;
use super::super::gitlab::data::scatter;
use super::super::template::{Template, quoted};

/// The fake Gitea's size and habits.
#[derive(Clone, Debug)]
pub(crate) struct GiteaConfig {
    /// Repositories that the good token's user owns or contributes to.
    pub(crate) repositories: usize,
    /// Public repositories of strangers, which only an open search shows.
    pub(crate) strangers: usize,
    /// Organizations of the user.
    pub(crate) organizations: usize,
    /// What `/version` tells; with `+gitea-…` behind it, it is Forgejo.
    pub(crate) version: String,
    /// `MAX_RESPONSE_ITEMS`: pages are cut at this size without a word.
    pub(crate) max_response_items: usize,
    /// `ROOT_URL`, of which links are made; `None` is the forge's own.
    pub(crate) root_url: Option<String>,
    /// `DISABLE_WEBHOOKS`.
    pub(crate) webhooks_disabled: bool,
    /// `REQUIRE_SIGNIN_VIEW`: strangers are told nothing, not even the version.
    pub(crate) sign_in_required: bool,
    /// A front proxy that strips the totals.
    pub(crate) strips_totals: bool,
    /// A branch whose commit is gone: it is counted, and left out of its page.
    pub(crate) lost_branch: Option<String>,
    /// Give the first repositories names that try to break out.
    pub(crate) hostile_rows: bool,
}

impl Default for GiteaConfig {
    fn default() -> Self {
        Self {
            repositories: 25,
            strangers: 5,
            organizations: 4,
            version: "1.27.0".to_owned(),
            max_response_items: 50,
            root_url: None,
            webhooks_disabled: false,
            sign_in_required: false,
            strips_totals: false,
            lost_branch: None,
            hostile_rows: false,
        }
    }
}

impl GiteaConfig {
    /// The same as Forgejo, which tells neither a token nor its scopes.
    pub(crate) fn forgejo() -> Self {
        Self { version: "11.0.3+gitea-1.22.0".to_owned(), ..Self::default() }
    }
}

/// The name under which the first repository was known before it was renamed.
pub(crate) const OLD_NAME: (&str, &str) = ("acme", "old-website");
/// The login of the user who owns most tokens, and its number.
pub(super) const OWNER: &str = "casey";
pub(super) const OWNER_ID: u64 = 2;

/// One repository.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    pub(super) index: usize,
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) empty: bool,
    pub(super) has_code: bool,
}

/// Who owns repositories.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) id: u64,
    pub(super) login: String,
    pub(super) visibility: &'static str,
    pub(super) is_user: bool,
}

/// What a user may do in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    Pull,
    Push,
    Admin,
}

/// The data and the template.
#[derive(Debug)]
pub(super) struct Data {
    members: usize,
    total: usize,
    hostile: bool,
    /// The organizations, then the user, then a stranger.
    pub(super) owners: Vec<Owner>,
    /// The configured URL.
    pub(super) root: String,
    host: String,
    row: Template,
}

impl Data {
    /// Reads the recorded row.
    pub(super) fn build(config: &GiteaConfig, root: String) -> io::Result<Self> {
        let host = root.split("://").nth(1).unwrap_or(&root);
        let host = host.split(['/', ':']).next().unwrap_or(host).to_owned();
        Ok(Self {
            members: config.repositories,
            total: config.repositories + config.strangers,
            hostile: config.hostile_rows,
            owners: owners(config.organizations.max(1)),
            host,
            root,
            row: template()?,
        })
    }

    /// How many repositories there are; the user's come first, the strangers' follow.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// The id of the repository at `index`: ascending, with holes.
    pub(super) fn id(&self, index: usize) -> u64 {
        101 + 3 * index as u64 + scatter(index as u64) % 3
    }

    /// The repository of an id.
    pub(super) fn of_id(&self, id: u64) -> Option<usize> {
        let index = usize::try_from(id.checked_sub(101)? / 3).ok()?;
        (index < self.total && self.id(index) == id).then_some(index)
    }

    /// The repository of a name, letter case ignored.
    pub(super) fn of_name(&self, owner: &str, name: &str) -> Option<usize> {
        let digits: String = name.chars().rev().take_while(char::is_ascii_digit).collect();
        let number = digits.chars().rev().collect::<String>().parse::<usize>().ok();
        (0..self.total.min(16)).chain(number).filter(|index| *index < self.total).find(|index| {
            self.owner(*index).login.eq_ignore_ascii_case(owner)
                && self.repository(*index).name.eq_ignore_ascii_case(name)
        })
    }

    /// The owner of a repository: every tenth is the user's own.
    pub(super) fn owner(&self, index: usize) -> &Owner {
        let own = self.owners.len() - 2;
        &self.owners[match index % 10 {
            _ if index >= self.members => own + 1,
            9 => own,
            _ => index % own,
        }]
    }

    /// Flags that a search looks at, without making strings. Strangers' repositories are public.
    pub(super) fn is_private(&self, index: usize) -> bool {
        index < self.members && index.is_multiple_of(3)
    }

    pub(super) fn is_archived(index: usize) -> bool {
        index % 11 == 3
    }

    /// What a user may do in a repository; `None` for one to whom it is as to everybody.
    pub(super) fn access(&self, user: u64, index: usize) -> Option<Access> {
        match (user, index % 10) {
            _ if index >= self.members => None,
            (OWNER_ID, 0 | 1 | 7 | 9) => Some(Access::Admin),
            (OWNER_ID, 2 | 8) => Some(Access::Push),
            (OWNER_ID, _) => Some(Access::Pull),
            (90, _) if index.is_multiple_of(6) => Some(Access::Pull),
            _ => None,
        }
    }

    /// One repository. The eighth and the ninth have one name, and two owners.
    pub(super) fn repository(&self, index: usize) -> Repository {
        let name = match index {
            0 => "website".to_owned(),
            1 => "Uebersicht".to_owned(),
            2 => "dotted.name_v2".to_owned(),
            7 | 8 => "twin".to_owned(),
            _ => format!("repo-{index:05}"),
        };
        let mut repository = Repository {
            index,
            id: self.id(index),
            description: format!("Worüber {name} geht \u{65e5}\u{672c}"),
            name,
            empty: index % 17 == 4,
            has_code: index != 6,
        };
        if self.hostile {
            hostile(&mut repository);
        }
        repository
    }

    /// Writes the row of a repository as `user` sees it; 0 is a stranger.
    pub(super) fn render(&self, index: usize, user: u64, out: &mut String) {
        let repository = self.repository(index);
        let owner = self.owner(index);
        let private = self.is_private(index);
        let access = self.access(user, index);
        self.row.render(out, |slot, out| {
            // Writing to a string cannot fail.
            let _ = match slot {
                "id" => write!(out, "{}", repository.id),
                "name" => write!(out, "{}", quoted(&repository.name)),
                "path" => write!(out, "{}", escaped(&repository.name)),
                "owner" => write!(out, "{}", owner.login),
                "owner_id" => write!(out, "{}", owner.id),
                "owner_visibility" => write!(out, "{}", owner.visibility),
                "description" => write!(out, "{}", quoted(&repository.description)),
                "root" => write!(out, "{}", self.root),
                "host" => write!(out, "{}", self.host),
                "private" => write!(out, "{private}"),
                "internal" => write!(out, "{}", !private && owner.visibility == "private"),
                "archived" => write!(out, "{}", Self::is_archived(index)),
                "empty" => write!(out, "{}", repository.empty),
                "fork" => write!(out, "{}", index % 13 == 5),
                "code" => write!(out, "{}", repository.has_code),
                "size" => write!(out, "{}", 24 + index % 1_000),
                "updated" => write!(out, "{}", moment(index)),
                "permissions" if user == 0 => write!(out, "null"),
                "permissions" => {
                    let admin = access == Some(Access::Admin);
                    let push = access >= Some(Access::Push);
                    write!(out, "{{\"admin\":{admin},\"push\":{push},\"pull\":true}}")
                }
                _ => Ok(()),
            };
        });
    }
}

/// `acme`, which is open, `inner`, which needs an account, `secret`, which is its members' own, `org-003`, …, and last
/// the user and a stranger.
fn owners(organizations: usize) -> Vec<Owner> {
    let organization = |index: usize| {
        let (login, visibility) = match index {
            0 => ("acme".to_owned(), "public"),
            1 => ("inner".to_owned(), "limited"),
            2 => ("secret".to_owned(), "private"),
            _ => (format!("org-{index:03}"), "public"),
        };
        Owner { id: 1_000 + index as u64, login, visibility, is_user: false }
    };
    let user = |id, login: &str| Owner { id, login: login.to_owned(), visibility: "public", is_user: true };
    (0..organizations).map(organization).chain([user(OWNER_ID, OWNER), user(99, "stranger")]).collect()
}

/// Names that try to break out of logs, paths and terminals. No real server takes them.
fn hostile(repository: &mut Repository) {
    match repository.index {
        0 => "..%2f..%2fetc".clone_into(&mut repository.name),
        1 => "a%2f..%2fb".clone_into(&mut repository.name),
        2 => ".git".clone_into(&mut repository.name),
        3 => "nul\u{0}bell\u{7} \u{1b}[31mred\u{202e}txt.exe".clone_into(&mut repository.name),
        4 => repository.description = "long ".repeat(200_000),
        _ => {}
    }
}

/// The recorded row with holes.
fn template() -> io::Result<Template> {
    let exchange = recorded!("gitea/exchanges/repo_200.json");
    let exchange: Value = serde_json::from_str(exchange).map_err(|error| broken("repo_200", error))?;
    let mut row = exchange["response"]["body"].clone();
    for (name, value) in [
        ("id", "@@id@@"),
        ("name", "@@name@@"),
        ("full_name", "{{owner}}/{{path}}"),
        ("description", "@@description@@"),
        ("empty", "@@empty@@"),
        ("private", "@@private@@"),
        ("internal", "@@internal@@"),
        ("fork", "@@fork@@"),
        ("archived", "@@archived@@"),
        ("has_code", "@@code@@"),
        ("size", "@@size@@"),
        ("updated_at", "{{updated}}"),
        ("permissions", "@@permissions@@"),
        ("html_url", "{{root}}/{{owner}}/{{path}}"),
        ("url", "{{root}}/api/v1/repos/{{owner}}/{{path}}"),
        ("languages_url", "{{root}}/api/v1/repos/{{owner}}/{{path}}/languages"),
        ("clone_url", "{{root}}/{{owner}}/{{path}}.git"),
        ("ssh_url", "git@{{host}}:{{owner}}/{{path}}.git"),
    ] {
        row[name] = value.into();
    }
    let owner = &mut row["owner"];
    for (name, value) in [
        ("id", "@@owner_id@@"),
        ("login", "{{owner}}"),
        ("username", "{{owner}}"),
        ("email", "{{owner}}@forge.example"),
        ("visibility", "{{owner_visibility}}"),
        ("html_url", "{{root}}/{{owner}}"),
        ("avatar_url", "{{root}}/avatars/{{owner_id}}"),
    ] {
        owner[name] = value.into();
    }
    Template::new(&row)
}

/// An organization as `/user/orgs` shows it.
pub(super) fn organization(owner: &Owner, root: &str) -> Value {
    json!({"id": owner.id, "name": owner.login, "full_name": "", "email": "", "description": "",
        "avatar_url": format!("{root}/avatars/{}", owner.id), "website": "", "location": "",
        "visibility": owner.visibility, "repo_admin_change_team_access": false, "username": owner.login})
}

/// JSON text of a string without its quotes.
fn escaped(text: &str) -> String {
    let quoted = quoted(text);
    quoted[1..quoted.len() - 1].to_owned()
}

/// A moment; later for higher indexes.
fn moment(index: usize) -> String {
    let (day, hour) = (index / 86_400 % 28 + 1, index / 3_600 % 24);
    format!("2024-06-{day:02}T{hour:02}:{:02}:{:02}Z", index / 60 % 60, index % 60)
}
