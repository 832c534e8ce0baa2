//! Repositories: the search, the user's own, single ones, their webhooks.

use super::super::wire::{Query, Reply, Seen, decode};
use super::data::{Data, OLD_NAME};
use super::refusal::{JSON, unrouted};
use super::tokens::GiteaToken;
use super::{Instance, Paging};

impl Instance {
    /// `/repos/search`: everything visible, or with `uid` what a user owns or contributes to.
    pub(super) fn search(
        &self,
        caller: Option<&GiteaToken>,
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let user = self.anybody(caller, "read:repository")?;
        let order = match query.first("sort").unwrap_or_default() {
            "" | "alpha" => Order::Name,
            "id" | "created" => Order::Id,
            // Not needed: every other order of the real one.
            other => return Err(self.message(422, &format!("Invalid sort mode: \"{other}\""))),
        };
        let descending = match query.first("order").unwrap_or("asc") {
            "asc" => false,
            "desc" => true,
            other => return Err(self.message(422, &format!("Invalid sort order: \"{other}\""))),
        };
        let public_only = caller.is_some_and(GiteaToken::public_only);
        let of = query.first("uid").and_then(|uid| uid.parse::<u64>().ok()).filter(|uid| *uid > 0);
        let archived = query.first("archived").map(|value| value == "true");
        let word = query.first("q").map(str::trim).filter(|word| !word.is_empty()).map(str::to_lowercase);
        let keep = |index: usize| {
            self.is_visible(user, index)
                && !(public_only && self.data.is_private(index))
                && of.is_none_or(|of| self.data.access(of, index).is_some())
                && archived.is_none_or(|wanted| wanted == Data::is_archived(index))
                && word.as_ref().is_none_or(|word| self.is_found(index, word))
        };
        let mut rows: Vec<usize> = (0..self.data.total()).filter(|index| keep(*index)).collect();
        if order == Order::Name {
            rows.sort_by_cached_key(|index| self.data.repository(*index).name);
        }
        if descending {
            rows.reverse();
        }
        Ok(self.page(&rows, user, ("{\"ok\":true,\"data\":[", "]}"), seen, query))
    }

    /// Names, at commas; with one slash in it, owner and name.
    fn is_found(&self, index: usize, word: &str) -> bool {
        let name = self.data.repository(index).name.to_lowercase();
        let owner = self.data.owner(index).login.to_lowercase();
        word.split(',').any(|part| name.contains(part))
            || word
                .split_once('/')
                .is_some_and(|(of, part)| !part.contains('/') && owner.contains(of) && name.contains(part))
    }

    /// `/user/repos`: by name, whatever is asked for, and private ones for a token that may not open them.
    pub(super) fn own_repositories(
        &self,
        caller: Option<&GiteaToken>,
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        self.member(caller, "read:user")?;
        let user = self.member(caller, "read:repository")?.user_id;
        let mut rows: Vec<usize> =
            (0..self.data.total()).filter(|index| self.data.access(user, *index).is_some()).collect();
        rows.sort_by_cached_key(|index| self.data.repository(*index).name);
        Ok(self.page(&rows, user, ("[", "]"), seen, query))
    }

    fn page(
        &self,
        rows: &[usize],
        user: u64,
        (open, close): (&str, &str),
        seen: &Seen,
        query: &Query,
    ) -> Reply {
        let paging = Paging::read(query, self.config.max_response_items);
        let mut body = String::with_capacity(2_400 * paging.size);
        body.push_str(open);
        for (place, index) in paging.slice(rows).iter().enumerate() {
            if place > 0 {
                body.push(',');
            }
            self.data.render(*index, user, &mut body);
        }
        body.push_str(close);
        self.counted(Reply::new(200, JSON, body), &paging, seen, query, rows.len(), true)
    }

    fn is_visible(&self, user: u64, index: usize) -> bool {
        let open = match self.data.owner(index).visibility {
            "public" => true,
            "limited" => user > 0,
            _ => false,
        };
        (open && !self.data.is_private(index)) || self.data.access(user, index).is_some()
    }

    /// `/repositories/{id}`.
    pub(super) fn by_id(&self, caller: Option<&GiteaToken>, id: &str) -> Result<Reply, Reply> {
        self.anybody(caller, "read:repository")?;
        let index = id.parse().ok().and_then(|id| self.data.of_id(id)).ok_or_else(|| self.not_found())?;
        self.one(caller, index)
    }

    fn one(&self, caller: Option<&GiteaToken>, index: usize) -> Result<Reply, Reply> {
        let user = self.open(caller, index)?;
        let mut body = String::new();
        self.data.render(index, user, &mut body);
        Ok(Reply::new(200, JSON, body))
    }

    /// The number of a caller who may see the repository.
    pub(super) fn open(&self, caller: Option<&GiteaToken>, index: usize) -> Result<u64, Reply> {
        let user = self.anybody(caller, "read:repository")?;
        if !self.is_visible(user, index) {
            return Err(self.not_found());
        }
        if caller.is_some_and(GiteaToken::public_only) && self.data.is_private(index) {
            return Err(self.message(403, "token scope is limited to public repos"));
        }
        Ok(user)
    }

    /// `/repos/{owner}/{name}` and below.
    pub(super) fn repository(
        &self,
        method: &str,
        (owner, name): (&str, &str),
        rest: &[&str],
        caller: Option<&GiteaToken>,
        seen: &Seen,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let (owner, name) = (decode(owner), decode(name));
        if (owner.as_str(), name.as_str()) == OLD_NAME {
            return Err(self.moved(rest));
        }
        let index = self.data.of_name(&owner, &name).ok_or_else(|| self.not_found())?;
        match (method, rest) {
            ("GET", []) => self.one(caller, index),
            ("GET", ["branches"]) => {
                self.open(caller, index)?;
                self.branches(&self.data.repository(index), seen, query)
            }
            ("GET", ["tags"]) => {
                self.open(caller, index)?;
                self.tags(&self.data.repository(index), seen, query)
            }
            (_, ["hooks", rest @ ..]) => self.webhooks(caller, index, rest, seen, query),
            _ => Err(unrouted()),
        }
    }

    /// For every method, and for people who may not see the repository: a path, and a page of HTML.
    fn moved(&self, rest: &[&str]) -> Reply {
        let root = self.data.root.split_once("://").map_or("", |(_, rest)| rest);
        let sub_path = root.find('/').map_or("", |at| &root[at..]);
        let tail: String = rest.iter().map(|segment| format!("/{segment}")).collect();
        let target = format!("{sub_path}/api/v1/repos/acme/website{tail}");
        let body = format!("<a href=\"{target}\">Moved Permanently</a>.\n\n");
        Reply::new(301, "text/html; charset=utf-8", body).header("location", target)
    }
}

/// How a search is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Name,
    Id,
}
