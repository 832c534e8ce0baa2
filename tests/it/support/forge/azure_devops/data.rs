//! What the fake Azure DevOps holds: projects, repositories, and the rows made of them.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::super::gitlab::data::scatter;
use super::super::template::{Template, quoted};
use super::super::wire::encode;
use super::super::{ORGANIZATION, broken};
use super::tokens::SignIn;

/// The fake Azure DevOps's size and habits.
#[derive(Clone, Debug)]
pub(crate) struct AzureConfig {
    /// Projects whose code everybody in the organization may read.
    pub(crate) projects: usize,
    /// Repositories in each of them.
    pub(crate) repositories_per_project: usize,
    /// The last of them get fewer, so that there are this many in all; `None` is as many as fit.
    pub(crate) repositories: Option<usize>,
    /// Besides them: two projects whose code nobody here may read (403 and 404), and one being deleted.
    pub(crate) unreadable: bool,
    /// Every third project is public and the organization lets strangers in.
    pub(crate) public: bool,
    /// What a refused token gets on a GET without `X-TFS-FedAuthRedirect: Suppress`.
    pub(crate) sign_in: SignIn,
    /// The newest released `api-version` of Services; previews reach one further.
    pub(crate) api_version: (u32, u32),
    /// The newest `api-version` of the Server form.
    pub(crate) server_api_version: (u32, u32),
    /// Old servers send no continuation token: count and skip.
    pub(crate) server_continuation: bool,
    /// The organization URL of which rows are made, such as `https://dev.azure.com/contoso`; `None` is the forge's own.
    pub(crate) external_url: Option<String>,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset` (Unix seconds) on every answer of Services, as near a limit.
    pub(crate) rate_limit: Option<(u64, u64, u64)>,
    /// Give the first repositories names that try to break out.
    pub(crate) hostile_rows: bool,
}

impl Default for AzureConfig {
    fn default() -> Self {
        Self {
            projects: 5,
            repositories_per_project: 4,
            repositories: None,
            unreadable: true,
            public: false,
            sign_in: SignIn::Page,
            api_version: (7, 1),
            server_api_version: (7, 1),
            server_continuation: true,
            external_url: None,
            rate_limit: None,
            hostile_rows: false,
        }
    }
}

/// Under this name project 0 was known before; it still answers.
pub(crate) const OLD_NAME: &str = "Fabrikam Fibre (old)";

/// Who may read a project's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Readable,
    Forbidden,
    Hidden,
}

/// One project.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) public: bool,
    /// `private`, `public`, or the recorded `organization` that no description knows.
    visibility: &'static str,
    pub(super) state: &'static str,
    pub(super) code: Code,
    pub(super) repositories: Vec<Repository>,
    /// Its repository rows, commas between, rendered at the first listing.
    rows: OnceLock<String>,
}

impl Project {
    pub(super) fn is_first(&self) -> bool {
        self.id == guid(1, 0)
    }
}

/// One repository.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) disabled: bool,
    pub(super) empty: bool,
    pub(super) fork: bool,
    pub(super) maintenance: bool,
    pub(super) size: usize,
}

/// The data and the templates of one form.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) projects: Vec<Project>,
    by_project: HashMap<String, usize>,
    by_repository: HashMap<String, (usize, usize)>,
    /// The organization or collection URL of which rows are made.
    pub(super) external: String,
    /// As `external`, with the user part that clone links carry.
    remote: String,
    ssh: String,
    project: Template,
    repository: Template,
    links: Template,
}

impl Data {
    /// Reads the recorded rows and lays out the projects.
    pub(super) fn build(config: &AzureConfig, external: String, server: bool) -> io::Result<Self> {
        let (project, repository, links) = templates()?;
        let mut data = Self {
            projects: projects(config),
            by_project: HashMap::new(),
            by_repository: HashMap::new(),
            remote: remote(&external, server),
            ssh: if server {
                "ssh://tfs.forge.example:22/tfs/DefaultCollection/{{project}}/_git/{{name}}".to_owned()
            } else {
                format!("git@ssh.dev.azure.com:v3/{}/{{{{project}}}}/{{{{name}}}}", ORGANIZATION)
            },
            external,
            project,
            repository,
            links,
        };
        for (place, project) in data.projects.iter().enumerate() {
            data.by_project.insert(project.id.clone(), place);
            data.by_project.insert(project.name.to_lowercase(), place);
            for (number, repository) in project.repositories.iter().enumerate() {
                data.by_repository.insert(repository.id.clone(), (place, number));
            }
        }
        if !data.projects.is_empty() {
            data.by_project.insert(OLD_NAME.to_lowercase(), 0);
        }
        Ok(data)
    }

    /// A project by GUID, name or former name.
    pub(super) fn find_project(&self, id: &str) -> Option<usize> {
        self.by_project.get(&id.to_lowercase()).copied()
    }

    /// A repository by GUID.
    pub(super) fn find_repository(&self, id: &str) -> Option<(usize, usize)> {
        self.by_repository.get(&id.to_lowercase()).copied()
    }

    /// Writes a project's row.
    pub(super) fn render_project(&self, place: usize, out: &mut String) {
        let Some(project) = self.projects.get(place) else {
            return;
        };
        self.project.render(out, |slot, out| self.project_slot(project, slot, out));
    }

    fn project_slot(&self, project: &Project, slot: &str, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = match slot {
            "project_id" => write!(out, "{}", project.id),
            "project_name" => write!(out, "{}", quoted(&project.name)),
            "base" => write!(out, "{}", self.external),
            "state" => write!(out, "{}", project.state),
            "visibility" => write!(out, "{}", project.visibility),
            _ => Ok(()),
        };
    }

    /// All repository rows of a project, commas between.
    pub(super) fn rows(&self, place: usize) -> &str {
        let Some(project) = self.projects.get(place) else {
            return "";
        };
        project.rows.get_or_init(|| {
            let mut out = String::with_capacity(project.repositories.len() * 1_100);
            for number in 0..project.repositories.len() {
                if number > 0 {
                    out.push(',');
                }
                self.render_repository(place, number, false, &mut out);
            }
            out
        })
    }

    /// Writes a repository's row; the single answer has `_links` too.
    pub(super) fn render_repository(&self, place: usize, number: usize, links: bool, out: &mut String) {
        let Some(project) = self.projects.get(place) else {
            return;
        };
        let Some(repository) = project.repositories.get(number) else {
            return;
        };
        let slot = |slot: &str, out: &mut String| {
            // Writing to a string cannot fail.
            let _ = match slot {
                "id" => write!(out, "{}", repository.id),
                "name" => write!(out, "{}", quoted(&repository.name)),
                "remote" => write!(out, "{}", self.remote),
                "project_path" => write!(out, "{}", encode(&project.name)),
                "path" => write!(out, "{}", encode(&repository.name)),
                "ssh" => {
                    let ssh = self.ssh.replace("{{project}}", &encode(&project.name));
                    write!(out, "{}", ssh.replace("{{name}}", &encode(&repository.name)))
                }
                "disabled" => write!(out, "{}", repository.disabled),
                "maintenance" => write!(out, "{}", repository.maintenance),
                "project" => {
                    self.project.render(out, |slot, out| self.project_slot(project, slot, out));
                    Ok(())
                }
                other => {
                    self.project_slot(project, other, out);
                    Ok(())
                }
            };
        };
        out.push('{');
        if !repository.empty && !repository.disabled {
            out.push_str("\"defaultBranch\":\"refs/heads/main\",");
        }
        if repository.fork {
            out.push_str("\"isFork\":true,");
        }
        // Lists leave the size of some out.
        if links || number % 6 != 5 {
            // Writing to a string cannot fail.
            let _ = write!(out, "\"size\":{},", repository.size);
        }
        if links {
            self.links.render(out, slot);
        }
        self.repository.render(out, slot);
    }
}

/// The user part in front of the host, as Services writes it; the Server has none.
fn remote(external: &str, server: bool) -> String {
    match external.split_once("://") {
        Some((scheme, rest)) if !server => format!("{scheme}://{}@{rest}", ORGANIZATION),
        _ => external.to_owned(),
    }
}

fn projects(config: &AzureConfig) -> Vec<Project> {
    let mut all: Vec<Project> = (0..config.projects)
        .map(|place| {
            let name = match place {
                0 => "Fabrikam Fiber".to_owned(),
                1 => "sg test with many           spaces".to_owned(),
                2 => "Größe & Проект".to_owned(),
                _ => format!("Project {place:04}"),
            };
            let size = config.repositories_per_project;
            let left = config.repositories.map(|all| all.saturating_sub(place * size));
            let mut project = project(place, name, config.public && place % 3 == 0, Code::Readable, config);
            project.repositories.truncate(left.unwrap_or(size));
            project
        })
        .collect();
    if config.unreadable {
        all.push(project(all.len(), "Restricted".to_owned(), false, Code::Forbidden, config));
        all.push(project(all.len(), "Restricted too".to_owned(), false, Code::Hidden, config));
        let mut leaving = project(all.len(), "Leaving".to_owned(), false, Code::Hidden, config);
        leaving.state = "deleting";
        all.push(leaving);
    }
    all
}

fn project(place: usize, name: String, public: bool, code: Code, config: &AzureConfig) -> Project {
    let repositories = (0..config.repositories_per_project)
        .map(|number| {
            let first = place == 0;
            let named = match number {
                0 => name.clone(),
                3 if first => "name with   several spaces".to_owned(),
                4 if first => "Überprüfung_代码".to_owned(),
                _ => format!("repo-{place:04}-{number:04}"),
            };
            let named = match (config.hostile_rows && first, number) {
                (true, 0) => "../../etc/passwd".to_owned(),
                (true, 1) => "a%2f..%2fb".to_owned(),
                (true, 2) => "bell\u{7} \u{1b}[31mred\u{1b}[0m \u{202e}txt".to_owned(),
                _ => named,
            };
            let empty = first && number == 2;
            let disabled = number % 37 == 1 && place.is_multiple_of(7);
            Repository {
                id: guid(2, (place as u64) << 24 | number as u64),
                name: named,
                disabled,
                empty,
                fork: number % 11 == 3,
                maintenance: number % 41 == 6,
                size: if empty { 0 } else { 1_232 + 1_000 * number },
            }
        })
        .collect();
    Project {
        id: guid(1, place as u64),
        name,
        public,
        visibility: match place % 5 {
            _ if public => "public",
            4 => "organization",
            _ => "private",
        },
        state: "wellFormed",
        code,
        repositories,
        rows: OnceLock::new(),
    }
}

/// A GUID that looks drawn and is not.
pub(super) fn guid(kind: u64, value: u64) -> String {
    let high = scatter(kind << 56 ^ value);
    let low = scatter(high);
    uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
        .into_uuid()
        .to_string()
}

/// The recorded rows with holes: a project, a repository of a list, and the `_links` of a single one.
fn templates() -> io::Result<(Template, Template, Template)> {
    let recorded = recorded!("azure-devops/exchanges/repo-get-200.json");
    let exchange: Value = serde_json::from_str(recorded).map_err(|error| broken("repo-get-200", error))?;
    let mut row = exchange["response"]["body"].clone();
    let mut project = row["project"].clone();
    let web = "{{base}}/{{project_path}}/_git/{{path}}";
    let api = "{{base}}/{{project_id}}/_apis/git/repositories/{{id}}";
    overwrite(
        &mut project,
        json!({"id": "{{project_id}}", "name": "@@project_name@@", "state": "{{state}}",
            "visibility": "{{visibility}}", "url": "{{base}}/_apis/projects/{{project_id}}"}),
    );
    overwrite(
        &mut row,
        json!({"id": "{{id}}", "name": "@@name@@", "url": api, "project": "@@project@@",
            "remoteUrl": "{{remote}}/{{project_path}}/_git/{{path}}", "sshUrl": "{{ssh}}", "webUrl": web,
            "isDisabled": "@@disabled@@", "isInMaintenance": "@@maintenance@@"}),
    );
    let mut links = row["_links"].clone();
    if let Some(links) = links.as_object_mut() {
        for (name, link) in links.iter_mut() {
            let href = match name.as_str() {
                "self" => api.to_owned(),
                "project" => "vstfs:///Classification/TeamProject/{{project_id}}".to_owned(),
                "web" => web.to_owned(),
                "ssh" => "{{ssh}}".to_owned(),
                other => format!("{api}/{other}"),
            };
            *link = json!({"href": href});
        }
    }
    if let Some(row) = row.as_object_mut() {
        row.remove("_links");
        row.remove("size");
    }
    let mut repository = Template::new(&row)?;
    repository.drop_first_byte();
    let mut links = Template::new(&json!({"_links": links}))?;
    links.drop_first_byte();
    links.end_with_comma();
    Ok((Template::new(&project)?, repository, links))
}

fn overwrite(row: &mut Value, more: Value) {
    if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
    }
}
