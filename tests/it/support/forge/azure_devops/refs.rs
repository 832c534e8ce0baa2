//! Branches and tags of a repository.

use serde_json::{Value, json};

use super::super::refs::Refs;
use super::super::wire::{Query, Reply};
use super::projects::find;
use super::refusal::bad_value;
use super::{Caller, Form, Instance, need};

impl Instance {
    /// `refs`: `filter` is a prefix of the name without `refs/`, `filterContains` a substring of it; everything at once
    /// unless `$top` or a token is given.
    pub(super) fn repository_refs(
        &self,
        form: Form<'_>,
        caller: &Caller,
        project: &str,
        id: &str,
        query: &Query,
    ) -> Result<Reply, Reply> {
        need(caller, &["vso.code"])?;
        let (place, number) = find(form, caller, Some(project), id)?;
        let repository = &form.data.projects[place].repositories[number];
        let number = |name: &str| match query.any_case(name).map(str::parse::<usize>) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(bad_value(name)),
        };
        let (top, skip) = (number("$top")?, number("continuationToken")?);
        let filter = query.any_case("filter").unwrap_or("");
        let contains = query.any_case("filterContains").unwrap_or("");
        let peel = query.any_case("peelTags").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let names = |tags: bool| {
            let folder = if tags { "tags/" } else { "heads/" };
            self.refs.names(tags).iter().map(move |name| (tags, format!("{folder}{name}")))
        };
        let found: Vec<(bool, String)> = names(false)
            .chain(names(true))
            .filter(|(_, name)| !repository.empty && name.starts_with(filter) && name.contains(contains))
            .collect();
        let start = skip.unwrap_or(0).min(found.len());
        let end = match (top, skip) {
            (Some(top), _) => found.len().min(start + top.clamp(1, 1_000)),
            (None, Some(_)) => found.len().min(start + 100),
            (None, None) => found.len(),
        };
        let rows: Vec<Value> = found[start..end].iter().map(|(tag, name)| row(name, *tag, peel)).collect();
        let reply = Reply::json(200, &json!({"value": rows, "count": rows.len()}));
        if end < found.len() { Ok(reply.header("x-ms-continuationtoken", end)) } else { Ok(reply) }
    }
}

fn row(name: &str, tag: bool, peel: bool) -> Value {
    let short = name.split_once('/').map_or(name, |(_, short)| short);
    let commit = Refs::commit(short);
    let object = if tag { Refs::tag_object(short) } else { commit.clone() };
    let mut row = json!({"name": format!("refs/{name}"), "objectId": object,
        "creator": {"displayName": "Casey", "uniqueName": "masked@example.com",
            "id": "473dec3e-03d7-6147-b106-0b0a7f766a92"}});
    if peel && tag && object != commit {
        row["peeledObjectId"] = json!(commit);
    }
    row
}
