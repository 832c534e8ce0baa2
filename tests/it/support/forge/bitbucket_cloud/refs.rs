//! Branches and tags of a repository.

use serde_json::{Value, json};

use super::super::refs::Refs;
use super::super::wire::{Query, Reply, Seen};
use super::Instance;
use super::data::API;
use super::query::parse;
use super::refusal::error;
use super::tokens::BitbucketToken;

impl Instance {
    /// `/repositories/{workspace}/{name}/refs/branches` and `/refs/tags`.
    pub(super) fn repository_refs(
        &self,
        seen: &Seen,
        (workspace, name): (&str, &str),
        tags: bool,
        caller: Option<&BitbucketToken>,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let (workspace, index) = self.find(workspace, name, caller)?;
        let conditions = parse(query.first("q"), &["name"])?;
        let repository = self.data.repository(index);
        let full_name = format!("{}/{}", workspace.slug, repository.slug);
        let all: &[String] = if repository.empty { &[] } else { self.refs.names(tags) };
        let mut names: Vec<&String> =
            all.iter().filter(|name| conditions.iter().all(|condition| condition.fits(name))).collect();
        match query.first("sort") {
            None | Some("name") => {}
            Some("-name") => names.reverse(),
            Some(other) => return Err(error(400, &format!("Invalid sort field: {other}"))),
        }
        let row = |name: &String| row(name, tags, &full_name, &repository.uuid);
        let rows: Vec<Value> = names.into_iter().map(row).collect();
        self.listed(seen, query, &rows)
    }
}

fn row(name: &str, tag: bool, full_name: &str, uuid: &str) -> Value {
    let folder = if tag { "tags" } else { "branches" };
    let mut row = json!({"name": name, "type": if tag { "tag" } else { "branch" },
        "links": {"self": {"href": format!("{API}/repositories/{full_name}/refs/{folder}/{name}")}},
        "target": {"type": "commit", "hash": Refs::commit(name), "date": "2026-02-01T09:00:00+00:00",
            "message": "Add the page\n", "parents": [],
            "author": {"type": "author", "raw": "Casey <masked@example.com>"},
            "repository": {"type": "repository", "full_name": full_name, "uuid": uuid}}});
    if tag && Refs::tag_object(name) != Refs::commit(name) {
        row["message"] = json!("A release\n");
        row["date"] = json!("2026-02-02T09:00:00+00:00");
        row["tagger"] = json!({"type": "author", "raw": "Casey <masked@example.com>"});
    }
    row
}
