//! Every form in which people write the address of an organization, a collection or a repository.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::domain::base_url::{BaseUrl, MAX_URL_BYTES};
use crate::domain::connection::{Hosting, Scope};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::provider::{Endpoint, GitHosts};

/// Azure DevOps Services.
pub(super) const CLOUD_HOST: &str = "dev.azure.com";
/// The older host of an organization is its name before this; both hosts answer.
const OLD_CLOUD_SUFFIX: &str = ".visualstudio.com";
/// Where Services speaks SSH; the first is the newer one.
const SSH_HOSTS: [&str; 2] = ["ssh.dev.azure.com", "vs-ssh.visualstudio.com"];
/// The only collection of an organization under its older host.
const DEFAULT_COLLECTION: &str = "DefaultCollection";
/// The virtual directory in which a server is installed unless its administrator chose another one.
const DEFAULT_PREFIX: &str = "tfs";

const BASE_URL: &str = "connection.base_url";
const ORGANIZATION: &str = "connection.scope.organization";
const COLLECTION: &str = "connection.scope.collection";

/// The endpoints that a URL and a scope can mean, best guess first. See [`super::AzureDevOps`].
pub(super) fn endpoints(
    base_url: Option<&BaseUrl>,
    scope: &Scope,
) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
    let mut violations = check_scope(scope);
    let found = match base_url.map(BaseUrl::url) {
        None => cloud(None, scope),
        Some(url) => match (segments(url), cloud_organization(url)) {
            (Err(violation), _) => Err(violation),
            (Ok(_), Some(organization)) => cloud(organization.as_deref(), scope),
            (Ok(path), None) => {
                // `_git/repository` and `_apis` are words of the provider below a project or a collection.
                let end = path.iter().position(|part| part.starts_with('_')).unwrap_or(path.len());
                server(url, &path[..end], scope)
            }
        },
    };
    match found {
        Ok(endpoints) if violations.is_empty() => Ok(endpoints),
        Ok(_) => Err(violations),
        Err(violation) => {
            violations.push(violation);
            Err(violations)
        }
    }
}

/// Rewrites what people copy from the "Clone" dialogue, which is no URL that the strict check accepts, to
/// the URL of its organization. `None` for any other text: user info that is not the organization (or `git`,
/// with SSH), a password, and whatever the strict check refuses in the rest of the text. The text itself is
/// kept as the caller's own, so nothing may pass here that could not be stored and shown.
pub(super) fn pasted(text: &str) -> Option<String> {
    if text.len() > MAX_URL_BYTES {
        return None;
    }
    let (user, path, is_ssh) = match cloud_ssh(text) {
        Some((user, path)) => (user, path, true),
        None => {
            let (user, rest) = text.strip_prefix("https://")?.split_once('@')?;
            (user, rest.strip_prefix(CLOUD_HOST)?.strip_prefix('/')?, false)
        }
    };
    let organization = path.split('/').next().filter(|name| is_organization(name))?;
    let is_known_user = user.eq_ignore_ascii_case(organization) || (is_ssh && user == "git");
    if !is_known_user {
        return None;
    }
    // The strict check of all that is left of the text.
    BaseUrl::parse(&format!("https://{CLOUD_HOST}/{path}")).ok()?;
    Some(format!("https://{CLOUD_HOST}/{organization}"))
}

/// Project and repository that a clone URL of the endpoint `base` names; `None` if it is of another host,
/// organization or collection.
pub(super) fn clone_target(base: &Url, clone_url: &str) -> Option<(String, String)> {
    let organization = cloud_organization(base).flatten();
    if let Some(path) = cloud_ssh_path(clone_url) {
        let [of, project, repository] = path.try_into().ok()?;
        return organization?.eq_ignore_ascii_case(&of).then_some((project, repository));
    }
    let url = Url::parse(clone_url).ok()?;
    let path = segments(&url).ok()?;
    if let Some(organization) = organization {
        let of = cloud_organization(&url)??;
        let is_old_host = !url.host_str()?.eq_ignore_ascii_case(CLOUD_HOST);
        let below = path.get(if is_old_host { without_default_collection(&path) } else { 1 }..)?;
        return organization.eq_ignore_ascii_case(&of).then(|| repository_of(below))?;
    }
    let same_host = url.host_str()?.eq_ignore_ascii_case(base.host_str()?);
    // The port of SSH says nothing about the port of HTTPS.
    let same_port = match url.scheme() {
        "ssh" => true,
        "http" | "https" => url.port_or_known_default() == base.port_or_known_default(),
        _ => false,
    };
    let root = segments(base).ok()?;
    let below = path.get(root.len()..)?;
    let same_root = root.iter().zip(&path).all(|(a, b)| a.eq_ignore_ascii_case(b));
    (same_host && same_port && same_root).then(|| repository_of(below))?
}

/// The full name that a clone URL names at the endpoint `base` by its form; see [`crate::provider::Provider::named`].
pub(super) fn named(base: &Url, clone_url: &str) -> Option<String> {
    let (project, name) = clone_target(base, clone_url).filter(|_| git_hosts(base).serve(clone_url))?;
    (is_name(&project) && is_name(&name)).then(|| format!("{project}/{name}"))
}

/// Where git is served: Services has two hosts for an organization, and others for SSH.
pub(super) fn git_hosts(base: &Url) -> GitHosts {
    match cloud_organization(base) {
        Some(Some(organization)) => {
            GitHosts::named(&[CLOUD_HOST, &format!("{organization}{OLD_CLOUD_SUFFIX}")], &SSH_HOSTS)
        }
        _ => GitHosts::of(base),
    }
}

/// Project and repository of a path below an organization or a collection.
fn repository_of(path: &[String]) -> Option<(String, String)> {
    let path: Vec<&str> = path
        .iter()
        .map(String::as_str)
        // `_git/_full/x` and `_git/_optimized/x` are x with all or with some of its refs.
        .filter(|part| !matches!(*part, "_full" | "_optimized"))
        .collect();
    match *path.as_slice() {
        // A repository that is named like its project is shown without the project.
        ["_git" | "_ssh", repository] => Some((repository.to_owned(), repository.to_owned())),
        [project, "_git" | "_ssh", repository] => Some((project.to_owned(), repository.to_owned())),
        _ => None,
    }
}

/// A link as it is given on: without user info, and below `base` where it names the provider's own cloud
/// although the connection goes through a gateway. `None` if it is no URL for HTTP.
pub(super) fn cleaned(base: &Url, link: &str) -> Option<Url> {
    let mut url = Url::parse(link).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    // Neither can fail for a URL that has a host.
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    if is_cloud(base) {
        return Some(url);
    }
    let through_gateway = cloud_organization(&url).flatten().filter(|organization| {
        segments(base)
            .is_ok_and(|path| path.last().is_some_and(|last| last.eq_ignore_ascii_case(organization)))
    });
    if through_gateway.is_none() {
        return Some(url);
    }
    let path = segments(&url).ok()?;
    let is_old_host = !url.host_str()?.eq_ignore_ascii_case(CLOUD_HOST);
    let below = path.get(if is_old_host { without_default_collection(&path) } else { 1 }..)?;
    Some(join(base, below.iter().map(String::as_str)))
}

/// Whether a link names another host than the endpoint. The two hosts of Services are one.
pub(super) fn is_foreign(base: &Url, link: &Url) -> bool {
    match (cloud_organization(base), cloud_organization(link)) {
        (Some(ours), Some(theirs)) => {
            ours.map(|o| o.to_ascii_lowercase()) != theirs.map(|o| o.to_ascii_lowercase())
        }
        _ => !base
            .host_str()
            .zip(link.host_str())
            .is_some_and(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs)),
    }
}

/// Whether the endpoint is Azure DevOps Services itself, not a server and not a gateway.
pub(super) fn is_cloud(base: &Url) -> bool {
    cloud_organization(base).is_some()
}

/// `base` with more path segments, each encoded as one.
pub(super) fn join<'a>(base: &Url, more: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(more);
    }
    url
}

/// The name of the organization or collection at the end of an endpoint.
pub(super) fn last_segment(base: &Url) -> String {
    segments(base).ok().and_then(|mut path| path.pop()).unwrap_or_default()
}

/// `None` if the URL is not of Services; the inner `None` if it names no organization.
fn cloud_organization(url: &Url) -> Option<Option<String>> {
    if url.scheme() != "https" || url.port().is_some() {
        return None;
    }
    let host = url.host_str()?.to_ascii_lowercase();
    if host == CLOUD_HOST {
        let first = segments(url).ok()?.into_iter().next();
        return Some(first.filter(|segment| !segment.starts_with('_')));
    }
    let organization = host.strip_suffix(OLD_CLOUD_SUFFIX)?;
    // `app.vssps.visualstudio.com` and its like are services, not organizations.
    is_organization(organization).then(|| Some(organization.to_owned()))
}

/// How many segments of a path under the older host lie above the project.
fn without_default_collection(path: &[String]) -> usize {
    usize::from(path.first().is_some_and(|first| first.eq_ignore_ascii_case(DEFAULT_COLLECTION)))
}

/// The path of an SSH URL of Services behind its version: organization, project, repository.
fn cloud_ssh_path(text: &str) -> Option<Vec<String>> {
    let (_user, path) = cloud_ssh(text)?;
    let path: Option<Vec<String>> = path.split('/').map(decoded).collect();
    path.filter(|path| path.len() <= 3)
}

/// User and path of an SSH URL of Services, the path from behind its version, both as they were written.
fn cloud_ssh(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix("ssh://").unwrap_or(text);
    let (user, rest) = text.split_once('@')?;
    let rest = SSH_HOSTS.iter().find_map(|host| {
        let (found, rest) = rest.split_at_checked(host.len())?;
        found.eq_ignore_ascii_case(host).then_some(rest)
    })?;
    let path = rest.strip_prefix(":22/").or_else(|| rest.strip_prefix([':', '/']))?.strip_prefix("v3/")?;
    Some((user, path))
}

fn cloud(typed: Option<&str>, scope: &Scope) -> Result<Vec<Endpoint>, FieldViolation> {
    let wanted = scope.organization.trim();
    if !scope.collection.trim().is_empty() {
        return Err(FieldViolation::new(
            COLLECTION,
            FieldReason::Conflicting,
            "Azure DevOps Services has organizations, and only a server has collections; leave it empty, or \
             give the URL of the server in base_url",
        ));
    }
    let organization = match typed {
        Some(typed) if !wanted.is_empty() && !typed.eq_ignore_ascii_case(wanted) => {
            return Err(FieldViolation::new(
                ORGANIZATION,
                FieldReason::Conflicting,
                "base_url names another organization; give one of the two, or both alike",
            ));
        }
        Some(typed) => typed,
        None if wanted.is_empty() => {
            return Err(FieldViolation::new(
                ORGANIZATION,
                FieldReason::Required,
                "Azure DevOps has no address without an organization; give its name here, or in base_url, \
                 such as https://dev.azure.com/fabrikam",
            ));
        }
        None => wanted,
    };
    if !is_organization(organization) {
        let field = if typed.is_some() { BASE_URL } else { ORGANIZATION };
        return Err(FieldViolation::new(
            field,
            FieldReason::Malformed,
            "the name of an organization has 1 to 50 letters, digits and hyphens, such as fabrikam",
        ));
    }
    // Both hosts of an organization answer, and names ignore case: without one canonical form the same
    // organization would be several instances.
    let url = Url::parse(&format!("https://{CLOUD_HOST}/{}", organization.to_ascii_lowercase()));
    url.map(|api_url| vec![Endpoint { api_url, hosting: Hosting::Cloud }]).map_err(|_| {
        FieldViolation::new(ORGANIZATION, FieldReason::Malformed, "not the name of an organization")
    })
}

fn server(url: &Url, path: &[String], scope: &Scope) -> Result<Vec<Endpoint>, FieldViolation> {
    // A gateway in front of Services has organizations where a server has collections.
    let (field, named) = match (scope.collection.trim(), scope.organization.trim()) {
        ("", organization) => (ORGANIZATION, organization),
        (collection, "") => (COLLECTION, collection),
        _ => {
            return Err(FieldViolation::new(
                ORGANIZATION,
                FieldReason::Conflicting,
                "an instance has an organization (Services) or a collection (Server); give one of the two",
            ));
        }
    };
    let named: Vec<String> =
        named.split('/').filter(|part| !part.is_empty()).map(ToOwned::to_owned).collect();
    let paths = if named.is_empty() { guesses(path)? } else { with_name(path, &named, field)? };
    let mut root = url.clone();
    root.set_path("");
    root.set_query(None);
    root.set_fragment(None);
    Ok(paths
        .into_iter()
        .map(|path| Endpoint {
            api_url: join(&root, path.iter().map(String::as_str)),
            hosting: Hosting::SelfHosted,
        })
        .collect())
}

/// The paths at which the collection can end when only the URL tells it, longest first: the last segment
/// may be the collection or a project in it, and a prefix may stand before.
fn guesses(path: &[String]) -> Result<Vec<Vec<String>>, FieldViolation> {
    let at = |name: &str| path.iter().position(|part| part.eq_ignore_ascii_case(name));
    let end = match (at(DEFAULT_COLLECTION), at(DEFAULT_PREFIX)) {
        (Some(collection), _) => Some(collection + 1),
        (None, Some(prefix)) if prefix + 1 < path.len() => Some(prefix + 2),
        (None, Some(_)) => None,
        (None, None) if path.is_empty() => None,
        (None, None) => return Ok((1..=path.len()).rev().map(|len| path[..len].to_vec()).collect()),
    };
    end.map(|end| vec![path[..end].to_vec()]).ok_or_else(|| {
        FieldViolation::new(
            COLLECTION,
            FieldReason::Required,
            "a server is addressed with one of its collections; give its name here, or in base_url, such as \
             https://devops.example.com/tfs/DefaultCollection",
        )
    })
}

/// The path with the collection that the scope names, which the URL may hold already, wholly or in part.
fn with_name(path: &[String], named: &[String], field: &str) -> Result<Vec<Vec<String>>, FieldViolation> {
    let alike = |a: &[String], b: &[String]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    let found: Vec<Vec<String>> = path
        .windows(named.len())
        .enumerate()
        .filter(|(_, window)| alike(window, named))
        .map(|(at, _)| path[..at + named.len()].to_vec())
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    // `/tfs` and the collection `tfs/DefaultCollection` share the prefix.
    let shared = (1..named.len().min(path.len() + 1))
        .rev()
        .find(|&shared| alike(&path[path.len() - shared..], &named[..shared]))
        .unwrap_or(0);
    let holds_another = shared == 0
        && path
            .iter()
            .position(|part| part.eq_ignore_ascii_case(DEFAULT_PREFIX))
            .is_some_and(|at| at + 1 < path.len());
    if holds_another {
        return Err(FieldViolation::new(
            field,
            FieldReason::Conflicting,
            "base_url names another collection; give one of the two, or both alike",
        ));
    }
    Ok(vec![path.iter().chain(&named[shared..]).cloned().collect()])
}

fn check_scope(scope: &Scope) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    if !scope.workspaces.is_empty() {
        violations.push(FieldViolation::new(
            "connection.scope.workspaces",
            FieldReason::UnsupportedForProvider,
            "Azure DevOps has no workspaces; use projects",
        ));
    }
    for (at, project) in scope.projects.iter().enumerate() {
        if !is_name(project) {
            violations.push(FieldViolation::new(
                format!("connection.scope.projects[{at}]"),
                FieldReason::Malformed,
                "a project is given by its name or its id, without its organization",
            ));
        }
    }
    let parts = [(ORGANIZATION, &scope.organization), (COLLECTION, &scope.collection)];
    for (field, text) in parts {
        if !text.is_empty() && !text.trim().split('/').filter(|part| !part.is_empty()).all(is_name) {
            violations.push(FieldViolation::new(
                field,
                FieldReason::Malformed,
                "it is given by its name alone, such as DefaultCollection; a URL belongs into base_url",
            ));
        }
    }
    violations
}

/// Whether a text can stand as one segment of a path: what a URL parser would take for a step up, or drop,
/// cannot.
pub(super) fn is_name(text: &str) -> bool {
    !text.trim().is_empty()
        && !matches!(text.trim(), "." | "..")
        && !text.chars().any(|c| {
            c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | ':' | '<' | '>' | '*' | '|' | '"')
        })
}

fn is_organization(text: &str) -> bool {
    (1..=50).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The decoded segments of a path, without empty ones.
fn segments(url: &Url) -> Result<Vec<String>, FieldViolation> {
    let malformed = || {
        FieldViolation::new(BASE_URL, FieldReason::UrlMalformed, "its path holds a name that cannot be one")
    };
    let mut path = Vec::new();
    for part in url.path_segments().into_iter().flatten().filter(|part| !part.is_empty()) {
        path.push(decoded(part).ok_or_else(malformed)?);
    }
    Ok(path)
}

fn decoded(part: &str) -> Option<String> {
    let text = percent_decode_str(part).decode_utf8().ok()?.into_owned();
    is_name(&text).then_some(text)
}

#[cfg(test)]
mod tests;
