//! Branches and tags of a repository.

use serde_json::{Value, json};

use super::super::refs::Refs;
use super::super::wire::{Query, Reply, Seen};
use super::data::Repository;
use super::refusal::JSON;
use super::{Instance, Paging};

impl Instance {
    /// `…/branches`: of an empty repository, `null`.
    pub(super) fn branches(
        &self,
        repository: &Repository,
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        self.check_code(repository)?;
        if repository.empty {
            let paging = Paging::read(query, self.config.max_response_items);
            return Ok(self.counted(Reply::new(200, JSON, "null"), &paging, seen, query, 0, true));
        }
        let word = query.first("q").filter(|_| self.product.searches_branches()).unwrap_or_default();
        let names: Vec<&String> = self.refs.names(false).iter().filter(|name| name.contains(word)).collect();
        let paging = Paging::read(query, self.config.max_response_items);
        // A branch without its commit is counted all the same.
        let shown =
            paging.slice(&names).iter().filter(|name| Some(**name) != self.config.lost_branch.as_ref());
        let rows: Vec<Value> = shown.map(|name| self.branch(name)).collect();
        let reply = Reply::new(200, JSON, Value::from(rows).to_string());
        Ok(self.counted(reply, &paging, seen, query, names.len(), true))
    }

    fn branch(&self, name: &str) -> Value {
        let id = Refs::commit(name);
        let person = json!({"name": "casey", "email": "casey@forge.example", "username": "casey"});
        let protected = Refs::is_protected(name);
        json!({"name": name, "protected": protected, "required_approvals": 0, "enable_status_check": false,
            "status_check_contexts": [], "user_can_push": true, "user_can_merge": true,
            "effective_branch_protection_name": if protected { name } else { "" },
            "commit": {"id": id, "message": "Add the page\n", "url": format!("{}/x/commit/{id}", self.data.root),
                "author": person, "committer": person, "timestamp": "2026-02-01T09:00:00Z",
                "verification": {"verified": false, "reason": "gpg.error.not_signed_commit", "signature": "",
                    "signer": null, "payload": ""},
                "added": null, "removed": null, "modified": null}})
    }

    /// `…/tags`: a count without links, an empty array of an empty repository.
    pub(super) fn tags(&self, repository: &Repository, seen: &Seen, query: &Query) -> Result<Reply, Reply> {
        self.check_code(repository)?;
        let names = if repository.empty { &[] } else { self.refs.names(true) };
        let paging = Paging::read(query, self.config.max_response_items);
        let rows: Vec<Value> = paging
            .slice(names)
            .iter()
            .map(|name| {
                let commit = Refs::commit(name);
                let archive = format!("{}/x/archive/{name}", self.data.root);
                json!({"name": name, "message": "m", "id": Refs::tag_object(name),
                    "commit": {"url": format!("{}/api/v1/x/git/commits/{commit}", self.data.root), "sha": commit,
                        "created": "2026-02-01T09:00:00Z"},
                    "zipball_url": format!("{archive}.zip"), "tarball_url": format!("{archive}.tar.gz")})
            })
            .collect();
        let reply = Reply::new(200, JSON, Value::from(rows).to_string());
        Ok(self.counted(reply, &paging, seen, query, names.len(), false))
    }

    fn check_code(&self, repository: &Repository) -> Result<(), Reply> {
        if repository.has_code {
            return Ok(());
        }
        let text = "user should have specific read permission or be a repo admin or a site admin";
        Err(self.message(403, text))
    }
}
