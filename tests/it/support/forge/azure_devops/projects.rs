//! Projects and repositories.

use super::super::wire::{Query, Reply};
use super::data::Code;
use super::refusal::{bad_value, forbidden, no_project, no_repository};
use super::{Caller, Form, Instance, find_project, need, visible};

/// The largest page of projects.
const MAX_TOP: usize = 1_000;

impl Instance {
    pub(super) fn projects(&self, form: Form<'_>, caller: &Caller, query: &Query) -> Result<Reply, Reply> {
        need(caller, &["vso.project", "vso.profile"])?;
        let read = |name: &str| match query.any_case(name).map(str::parse::<usize>) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(bad_value(name)),
        };
        let top = read("$top")?.unwrap_or(100).clamp(1, MAX_TOP);
        let skip = match read("continuationToken")? {
            Some(token) => token,
            None => read("$skip")?.unwrap_or(0),
        };
        let state = query.any_case("stateFilter").unwrap_or("wellFormed");
        let places: Vec<usize> = (0..form.data.projects.len())
            .filter(|place| {
                let project = &form.data.projects[*place];
                let wanted = state.eq_ignore_ascii_case("all") || state.eq_ignore_ascii_case(project.state);
                wanted && visible(caller, project)
            })
            .collect();
        let start = skip.min(places.len());
        let end = (start + top).min(places.len());
        let mut rows = String::with_capacity((end - start) * 400);
        for (nth, place) in places[start..end].iter().enumerate() {
            if nth > 0 {
                rows.push(',');
            }
            form.data.render_project(*place, &mut rows);
        }
        let reply = list(end - start, &rows);
        let told = !form.server || self.config.server_continuation;
        if end < places.len() && told {
            return Ok(reply.header("x-ms-continuationtoken", end));
        }
        Ok(reply)
    }

    pub(super) fn project(&self, form: Form<'_>, caller: &Caller, id: &str) -> Result<Reply, Reply> {
        need(caller, &["vso.project", "vso.profile"])?;
        let place = find_project(form, caller, id)?;
        let mut body = String::new();
        form.data.render_project(place, &mut body);
        Ok(Reply::new(200, "application/json", body))
    }

    /// The whole organization at once, without paging; what the caller may not read is left out.
    pub(super) fn all_repositories(&self, form: Form<'_>, caller: &Caller) -> Result<Reply, Reply> {
        need(caller, &["vso.code"])?;
        let projects = form.data.projects.iter().enumerate().filter(|(_, project)| {
            let listed = project.code == Code::Readable && project.state == "wellFormed";
            listed && visible(caller, project) && !project.repositories.is_empty()
        });
        let mut count = 0;
        let mut rows = String::new();
        for (place, project) in projects {
            if count > 0 {
                rows.push(',');
            }
            count += project.repositories.len();
            rows.push_str(form.data.rows(place));
        }
        Ok(list(count, &rows))
    }

    pub(super) fn project_repositories(
        &self,
        form: Form<'_>,
        caller: &Caller,
        id: &str,
    ) -> Result<Reply, Reply> {
        need(caller, &["vso.code"])?;
        let place = find_project(form, caller, id)?;
        let project = &form.data.projects[place];
        match project.code {
            Code::Readable => Ok(list(project.repositories.len(), form.data.rows(place))),
            Code::Forbidden => Err(forbidden(caller)),
            Code::Hidden => Err(no_project(id)),
        }
    }

    /// One repository. Disabled and missing are told in the same words.
    pub(super) fn repository(
        &self,
        form: Form<'_>,
        caller: &Caller,
        project: Option<&str>,
        id: &str,
    ) -> Result<Reply, Reply> {
        need(caller, &["vso.code"])?;
        let (place, number) = find(form, caller, project, id)?;
        let mut body = String::new();
        form.data.render_repository(place, number, true, &mut body);
        Ok(Reply::new(200, "application/json", body))
    }
}

/// The project and the place in it of a repository that the caller may read.
pub(super) fn find(
    form: Form<'_>,
    caller: &Caller,
    project: Option<&str>,
    id: &str,
) -> Result<(usize, usize), Reply> {
    let within = project.map(|project| find_project(form, caller, project)).transpose()?;
    let found = match (form.data.find_repository(id), within) {
        (Some((place, number)), within) if within.is_none_or(|within| within == place) => {
            Some((place, number))
        }
        (_, Some(place)) => {
            let repositories = &form.data.projects[place].repositories;
            let number = repositories.iter().position(|known| known.name.to_lowercase() == id.to_lowercase());
            number.map(|number| (place, number))
        }
        _ => None,
    };
    let Some((place, number)) = found else {
        return Err(no_repository(id));
    };
    let project = &form.data.projects[place];
    if project.repositories[number].disabled || project.code == Code::Hidden || !visible(caller, project) {
        return Err(no_repository(id));
    }
    if project.code == Code::Forbidden {
        return Err(forbidden(caller));
    }
    Ok((place, number))
}

pub(super) fn list(count: usize, rows: &str) -> Reply {
    Reply::new(200, "application/json", format!("{{\"count\":{count},\"value\":[{rows}]}}"))
}
