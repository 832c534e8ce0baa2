//! Listing repositories and projects: one chain of pages, for only the server knows where the next one starts.

use super::READ;
use super::rows::{ProjectRow, RepositoryRow, is_token_user};
use super::wire::{Rows, fetch, page};
use crate::domain::page::{Cursor, Page};
use crate::domain::repository::{Namespace, Permission, Repository};
use crate::provider::api::{Api, Call};
use crate::provider::{List, ProviderError, Walk};

/// The most rows of one page, unless the administrator set it lower.
pub(super) const MAX_PAGE_SIZE: u64 = 1_000;

/// One page of the repositories that the token's user was given. Without `permission` the public ones of everybody
/// would be listed, too.
pub(super) async fn repositories(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Repository>, ProviderError> {
    let start = at.map_or(Ok(0), start_of)?;
    let limit = match list.walk {
        Walk::Fan => MAX_PAGE_SIZE,
        // The filter by name is one for display names, which need not hold what the slug holds: the rows are read
        // and filtered here, so the pages are as large as they may be.
        Walk::Chain if !list.query.is_empty() => MAX_PAGE_SIZE,
        Walk::Chain => (list.page_size as u64).clamp(1, MAX_PAGE_SIZE),
    };
    let Rows { rows, next, .. } = page::<RepositoryRow>(api, call(api, list), start, limit).await?;
    // Rows tell no permission, but each has at least the one that was asked for.
    let into_repository = |row: RepositoryRow| row.into_repository(api.base(), list.min_permission);
    Ok(continued(rows.into_iter().map(into_repository).collect(), next))
}

/// A call of `repos` with everything that the listing is narrowed by. The state is not: a repository that cannot
/// serve is shown as disabled.
fn call<'a>(api: &'a Api, list: &List) -> Call<'a> {
    let permission = match list.min_permission {
        Permission::Unknown | Permission::Read => READ,
        Permission::Write => "REPO_WRITE",
        Permission::Admin => super::ADMIN,
    };
    // Archived ones are left out unless they are asked for, since 8.0.
    let archived = if list.include_archived { "ALL" } else { "ACTIVE" };
    let call = api.get(&["repos"]).query("permission", permission).query("archived", archived);
    if list.namespace.is_empty() { call } else { call.query("projectkey", &list.namespace) }
}

/// One page of the projects that the token's user sees, after the user's own.
pub(super) async fn namespaces(
    api: &Api,
    list: &List,
    at: Option<&Cursor>,
) -> Result<Page<Namespace>, ProviderError> {
    let start = at.map_or(Ok(0), start_of)?;
    let limit = (list.page_size as u64).clamp(1, MAX_PAGE_SIZE);
    let Rows { rows, next, user } = page::<ProjectRow>(api, api.get(&["projects"]), start, limit).await?;
    let own_key = format!("~{}", slug_of(&user));
    let mut items = Vec::with_capacity(rows.len() + 1);
    // The user behind a project's or repository's token has no project.
    if at.is_none() && !is_token_user(&user) {
        match fetch::<ProjectRow>(api, api.get(&["projects", &own_key])).await {
            Ok(row) => items.push(row.into_namespace(api.base())),
            // It comes with the first repository in it.
            Err(ProviderError::NotFound | ProviderError::Forbidden) => {}
            Err(error) => return Err(error),
        }
    }
    // Whether personal projects are listed is not documented.
    let others = rows.into_iter().filter(|row| !row.key.eq_ignore_ascii_case(&own_key));
    items.extend(others.map(|row| row.into_namespace(api.base())));
    Ok(continued(items, next))
}

/// What a user's name becomes in paths: characters such as `@` and `/` are replaced.
pub(super) fn slug_of(user: &str) -> String {
    let fits = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    user.chars().map(|c| if fits(&c) { c } else { '_' }).flat_map(char::to_lowercase).collect()
}

/// A page with the start of the next one as its cursor.
pub(super) fn continued<T>(items: Vec<T>, next: Option<u64>) -> Page<T> {
    Page { next: next.map(|start| Cursor(start.to_string())).into_iter().collect(), ..Page::last(items) }
}

fn start_of(cursor: &Cursor) -> Result<u64, ProviderError> {
    cursor.0.parse().map_err(|_| ProviderError::garbled("the cursor is none of this listing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_user_becomes_a_slug() {
        assert_eq!(slug_of("jcitizen"), "jcitizen");
        assert_eq!(slug_of("jane@example"), "jane_example");
        assert_eq!(slug_of("Jane.Doe-2"), "jane.doe-2");
        assert_eq!(slug_of("access-token-user/2/11754"), "access-token-user_2_11754");
    }

    #[test]
    fn a_cursor_is_a_number() {
        assert_eq!(start_of(&Cursor("1000".to_owned())), Ok(1_000));
        for bad in ["", "-1", "x", "18446744073709551616"] {
            assert!(start_of(&Cursor(bad.to_owned())).is_err(), "{bad}");
        }
    }
}
