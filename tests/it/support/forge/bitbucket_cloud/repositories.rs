//! Repositories: listings, pages, single ones, permissions.

use serde_json::{Value, json};

use super::super::wire::{Query, Reply, Seen, encode};
use super::data::{API, Data, IdOrder, OLD_NAME, Workspace, WorkspaceState, pick};
use super::query::parse;
use super::refusal::{error, forbidden};
use super::tokens::{BitbucketKind, BitbucketToken};
use super::{Instance, MAX_PAGE};

/// Fields of a repository that `q` knows.
const KNOWN: &[&str] = &["uuid", "name", "project.key", "slug", "full_name", "created_on", "updated_on"];

impl Instance {
    /// `/repositories/{workspace}`.
    pub(super) fn repositories(
        &self,
        seen: &Seen,
        workspace: &str,
        caller: Option<&BitbucketToken>,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let workspace = self.open(workspace, caller)?;
        let by_id = match query.first("sort") {
            None | Some("created_on") => false,
            Some("uuid") => match self.config.id_order {
                IdOrder::Sorted | IdOrder::Odd => true,
                IdOrder::Ignored => false,
                IdOrder::Refused => return Err(error(400, "Invalid sort field: uuid")),
            },
            Some(other) => return Err(error(400, &format!("Invalid sort field: {other}"))),
        };
        let known: &[&str] = if self.config.id_order == IdOrder::Refused { &KNOWN[1..] } else { KNOWN };
        let conditions = parse(query.first("q"), known)?;
        let role = match query.first("role") {
            None => None,
            Some("owner" | "admin") => Some(&["admin"][..]),
            Some("contributor") => Some(&["admin", "write"][..]),
            Some("member") => Some(&["admin", "write", "read"][..]),
            Some(_) => return Err(error(400, "Invalid role")),
        };
        let narrowed = conditions.iter().any(|c| matches!(c.field.as_str(), "slug" | "project.key" | "uuid"));
        let is_plain = conditions.iter().all(|condition| condition.field == "uuid");
        let mut rows = Data::rows(workspace, by_id);
        if by_id && self.config.id_order == IdOrder::Odd {
            rows.reverse();
        }
        let rows: Vec<usize> = rows
            .into_iter()
            .filter(|index| self.visible(caller, workspace, *index))
            // A token of a repository is shown itself only where the question is narrowed.
            .filter(|_| narrowed || caller.is_none_or(|token| token.kind != BitbucketKind::Repository))
            .filter(|index| {
                role.is_none_or(|role| self.granted(caller, *index).is_some_and(|p| role.contains(&p)))
            })
            .filter(|index| {
                if conditions.is_empty() {
                    return true;
                }
                let repository = self.data.repository(*index);
                let full_name = format!("{}/{}", workspace.slug, repository.slug);
                conditions.iter().all(|condition| {
                    condition.fits(match condition.field.as_str() {
                        "uuid" => &repository.uuid,
                        _ if is_plain => "",
                        "name" => &repository.name,
                        "project.key" => repository.project,
                        "slug" => &repository.slug,
                        "full_name" => &full_name,
                        _ => "2024-01-01T00:00:00.000000+00:00",
                    })
                })
            })
            .collect();
        let page = Paging::read(query)?;
        let range = page.range(rows.len())?;
        let fields = query.first("fields");
        let template = self.data.template(fields);
        let mut values = String::with_capacity(range.len() * 3_500);
        for (place, index) in rows[range.clone()].iter().enumerate() {
            if place > 0 {
                values.push(',');
            }
            self.data.render(&template, workspace, *index, &mut values);
        }
        Ok(self.envelope(seen, query, &page, rows.len(), &values))
    }

    /// `/repositories/{workspace}/{name}`, the name being a slug or an id.
    pub(super) fn repository(
        &self,
        workspace: &str,
        name: &str,
        caller: Option<&BitbucketToken>,
    ) -> Result<Reply, Reply> {
        let (workspace, index) = self.find(workspace, name, caller)?;
        let mut body = String::new();
        self.data.render(&self.data.template(None), workspace, index, &mut body);
        Ok(Reply::new(200, "application/json", body))
    }

    /// A repository that the caller sees.
    pub(super) fn find(
        &self,
        name: &str,
        repository: &str,
        caller: Option<&BitbucketToken>,
    ) -> Result<(&Workspace, usize), Reply> {
        let missing = || error(404, &format!("Repository {name}/{repository} not found"));
        let workspace = self.open(name, caller).map_err(|refusal| match refusal.status {
            404 => missing(),
            _ => refusal,
        })?;
        if self.config.redirects && repository == OLD_NAME {
            let location = format!("{API}/repositories/{}/website", workspace.slug);
            return Err(Reply::new(301, "text/html", "").header("location", location));
        }
        let index =
            self.data.find(workspace, repository).filter(|index| self.visible(caller, workspace, *index));
        index.map(|index| (workspace, index)).ok_or_else(missing)
    }

    /// A workspace whose repositories may be asked for.
    fn open(&self, name: &str, caller: Option<&BitbucketToken>) -> Result<&Workspace, Reply> {
        let missing = || error(404, &format!("No workspace with identifier '{name}'."));
        let workspace = self.data.workspace(name).ok_or_else(missing)?;
        match workspace.state {
            WorkspaceState::Closed => Err(forbidden("You are not allowed to access this workspace.")),
            WorkspaceState::Spam => Err(error(410, "This account has been marked as spam")),
            WorkspaceState::Strangers => Ok(workspace),
            WorkspaceState::Open if caller.is_none_or(|token| self.belongs(token, workspace)) => {
                Ok(workspace)
            }
            WorkspaceState::Open => Err(missing()),
        }
    }

    /// Whether the token belongs to the workspace, or its user does.
    pub(super) fn belongs(&self, token: &BitbucketToken, workspace: &Workspace) -> bool {
        let is_first = workspace.slug == "acme";
        match token.kind {
            BitbucketKind::ApiToken if token.username == "robin" => is_first,
            BitbucketKind::ApiToken => workspace.state != WorkspaceState::Strangers,
            _ => is_first,
        }
    }

    /// Whether a caller sees a repository.
    fn visible(&self, caller: Option<&BitbucketToken>, workspace: &Workspace, index: usize) -> bool {
        let Some(token) = caller else { return !self.data.private(index) };
        let is_member = self.belongs(token, workspace);
        match token.kind {
            BitbucketKind::Repository => index == 0,
            BitbucketKind::Project => is_member && Data::project(index) == "WEB",
            _ => is_member || !self.data.private(index),
        }
    }

    /// What the caller's user was given in a repository.
    pub(super) fn granted(&self, caller: Option<&BitbucketToken>, index: usize) -> Option<&'static str> {
        match caller {
            Some(token) if token.has_user() && token.username == "robin" => {
                self.data.permission(index).map(|_| "read")
            }
            Some(token) if token.has_user() => self.data.permission(index),
            _ => None,
        }
    }

    /// `/user/workspaces/{workspace}/permissions/repositories`.
    pub(super) fn permissions(
        &self,
        seen: &Seen,
        workspace: &str,
        caller: &BitbucketToken,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let workspace = self.open(workspace, Some(caller))?;
        let conditions = parse(query.first("q"), &["repository.uuid", "repository.name", "permission"])?;
        let rows: Vec<Value> = Data::rows(workspace, false)
            .into_iter()
            .filter_map(|index| {
                let permission = self.granted(Some(caller), index)?;
                let repository = self.data.repository(index);
                let fits = conditions.iter().all(|condition| {
                    condition.fits(match condition.field.as_str() {
                        "repository.uuid" => &repository.uuid,
                        "repository.name" => &repository.name,
                        _ => permission,
                    })
                });
                fits.then(|| {
                    json!({"type": "repository_permission", "permission": permission,
                    "user": {"type": "user", "display_name": caller.display_name, "uuid": caller.uuid},
                    "repository": {"type": "repository", "name": repository.name, "uuid": repository.uuid,
                        "full_name": format!("{}/{}", workspace.slug, repository.slug)}})
                })
            })
            .collect();
        self.listed(seen, query, &rows)
    }

    /// A page of rows that were made already.
    pub(super) fn listed(&self, seen: &Seen, query: &Query, rows: &[Value]) -> Result<Reply, Reply> {
        let page = Paging::read(query)?;
        let range = page.range(rows.len())?;
        let below: Option<Vec<&str>> = query.first("fields").map(|fields| {
            fields.split(',').filter_map(|field| field.trim().strip_prefix("values.")).collect()
        });
        let values: Vec<String> = rows[range]
            .iter()
            .map(|row| match &below {
                Some(below) => pick(row, below).to_string(),
                None => row.to_string(),
            })
            .collect();
        Ok(self.envelope(seen, query, &page, rows.len(), &values.join(",")))
    }

    /// The envelope of a page; in a partial answer, the members that were asked for.
    pub(super) fn envelope(
        &self,
        seen: &Seen,
        query: &Query,
        page: &Paging,
        total: usize,
        values: &str,
    ) -> Reply {
        let fields = query.first("fields");
        let wanted = |name: &str| {
            fields.is_none_or(|fields| {
                fields.split(',').any(|field| field.trim().split('.').next() == Some(name))
            })
        };
        let rest = seen.path.strip_prefix("/bitbucket-cloud/2.0").unwrap_or(&seen.path);
        let link = |number: usize| {
            let query = query.with("pagelen", page.size).with("page", number);
            // As the real one writes it: a space as %20.
            let pairs: Vec<String> =
                query.pairs().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
            format!("{API}{rest}?{}", pairs.join("&"))
        };
        let mut body = format!("{{\"values\":[{values}]");
        if wanted("pagelen") {
            body.push_str(&format!(",\"pagelen\":{}", page.size));
        }
        if self.config.counted && wanted("size") {
            body.push_str(&format!(",\"size\":{total}"));
        }
        if self.config.counted && wanted("page") {
            body.push_str(&format!(",\"page\":{}", page.number));
        }
        if page.number > 1 && wanted("previous") {
            body.push_str(&format!(",\"previous\":\"{}\"", link(page.number - 1)));
        }
        if page.number * page.size < total && wanted("next") {
            body.push_str(&format!(",\"next\":\"{}\"", link(page.number + 1)));
        }
        body.push('}');
        Reply::new(200, "application/json", body)
    }
}

/// Which page was asked for.
#[derive(Debug)]
pub(super) struct Paging {
    number: usize,
    size: usize,
}

impl Paging {
    /// 10 rows unless asked otherwise; more than 100 are refused.
    pub(super) fn read(query: &Query) -> Result<Self, Reply> {
        let number = |name: &str, default: usize| match query.first(name).map(str::parse::<usize>) {
            None => Ok(default),
            Some(Ok(value)) if value > 0 => Ok(value),
            Some(_) => Err(error(400, &format!("Invalid {name}"))),
        };
        let (number, size) = (number("page", 1)?, number("pagelen", 10)?);
        if size > MAX_PAGE {
            return Err(error(400, "Invalid pagelen"));
        }
        Ok(Self { number, size })
    }

    /// The rows of the page; beyond the last one there is none.
    fn range(&self, total: usize) -> Result<std::ops::Range<usize>, Reply> {
        let start = self.size.saturating_mul(self.number - 1);
        if self.number > 1 && start >= total {
            return Err(error(404, "Invalid page"));
        }
        Ok(start..total.min(start + self.size))
    }
}
