//! From what people paste to the API base, and from clone URLs to the place of a repository.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::domain::base_url::BaseUrl;
use crate::domain::connection::{Hosting, Scope};
use crate::domain::violation::{FieldReason, FieldViolation, Refusal};
use crate::provider::endpoint::{MAX_CANDIDATES, candidates, root_of, unused_scope};
use crate::provider::links::{CloneUrl, without_git};
use crate::provider::{Endpoint, GitHosts, ProviderError};

/// The path of the API below the context path.
const API_PATH: &str = "/rest/api/latest";
/// How many segments it has.
pub(super) const API_SEGMENTS: usize = 3;
/// The product's own pages begin with one of these; before them stands the context path.
const PAGES: [&str; 8] = ["projects", "users", "scm", "rest", "dashboard", "login", "profile", "plugins"];
/// The longest name of a project or a repository that is asked for; the server's own limit is 128 characters.
const MAX_NAME_BYTES: usize = 512;

/// The API bases that `base_url` can mean, the best guess first.
pub(super) fn endpoints(
    base_url: Option<&BaseUrl>,
    scope: &Scope,
) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
    let mut violations = unused_scope(scope, "Bitbucket Data Center");
    let Some(base_url) = base_url else {
        violations.push(FieldViolation::new(
            "connection.base_url",
            FieldReason::Required,
            "Bitbucket Data Center has no cloud of its own; give the URL of the server",
        ));
        return Err(violations);
    };
    if !violations.is_empty() {
        return Err(violations);
    }
    let mut url = base_url.url().clone();
    url.set_query(None);
    url.set_fragment(None);
    let endpoint = |root: String| {
        let mut api_url = url.clone();
        api_url.set_path(&format!("{root}{API_PATH}"));
        Endpoint { api_url, hosting: Hosting::SelfHosted }
    };
    Ok(roots(url.path()).into_iter().map(endpoint).collect())
}

/// The context paths that a path can mean, each empty or with a slash before it alone.
fn roots(path: &str) -> Vec<String> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    // With the API path pasted nothing is open.
    if let Some(at) = segments.windows(2).position(|pair| pair == ["rest", "api"]) {
        return vec![root_of(&segments[..at])];
    }
    let is_page = |at: &usize| PAGES.contains(&segments[*at]);
    let pages: Vec<usize> = (0..segments.len()).filter(is_page).collect();
    let lengths: Vec<usize> = match pages.last() {
        // A context path can have such a name, too: `/scm/projects/KEY`, or `/scm` alone.
        Some(last) if last + 1 == segments.len() => pages.iter().copied().chain([segments.len()]).collect(),
        Some(_) => pages,
        None => return candidates(segments),
    };
    lengths.into_iter().take(MAX_CANDIDATES).map(|length| root_of(&segments[..length])).collect()
}

/// Where a repository is: the key of its project, and its own name in URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    key: String,
    slug: String,
}

impl Place {
    /// The place of a key and a slug.
    ///
    /// # Errors
    ///
    /// `NotFound`: no repository has such a name, or it could not stand as one segment of a path.
    pub(super) fn new(key: &str, slug: &str) -> Result<Self, ProviderError> {
        if !is_name(key) || !is_name(slug) {
            return Err(ProviderError::NotFound);
        }
        Ok(Self { key: canonical_key(key), slug: slug.to_owned() })
    }

    /// Reads `KEY/slug`; errors as [`Self::new`].
    pub(super) fn parse(full_name: &str) -> Result<Self, ProviderError> {
        let (key, slug) = full_name.trim_matches('/').split_once('/').ok_or(ProviderError::NotFound)?;
        Self::new(key, slug)
    }

    /// The place that `url` names at an instance, and the context path that it says; errors as [`Self::new`].
    /// The path over SSH begins with the project, without any context path.
    pub(super) fn of_clone_url(url: &CloneUrl) -> Result<(Self, String), ProviderError> {
        let path: Vec<&str> = url.path_below("").split('/').collect();
        if !url.is_web() {
            let [key, slug] = path[..] else { return Err(ProviderError::NotFound) };
            return Ok((Self::new(key, without_git(slug))?, String::new()));
        }
        // The context path comes first, so the first of these is the product's.
        let found = (0..path.len()).find_map(|at| match path[at..] {
            ["scm", key, slug] => Some((at, key.to_owned(), without_git(slug))),
            ["projects", key, "repos", slug, ..] => Some((at, key.to_owned(), slug)),
            ["users", user, "repos", slug, ..] => Some((at, format!("~{user}"), slug)),
            _ => None,
        });
        let (at, key, slug) = found.ok_or(ProviderError::NotFound)?;
        Ok((Self::new(&key, slug)?, path[..at].join("/")))
    }

    /// The place that a redirect leads to: of its location only the path counts, for its origin is the
    /// configured one, which need not be the one that is in reach.
    pub(super) fn of_location(location: &str) -> Option<Self> {
        // A relative location stands for itself; the base only makes it parse.
        let url = Url::parse("https://bitbucket.invalid/").ok()?.join(location).ok()?;
        let decoded =
            |part: &str| percent_decode_str(part).decode_utf8().ok().map(std::borrow::Cow::into_owned);
        let path: Vec<String> = url.path_segments()?.map(decoded).collect::<Option<_>>()?;
        path.windows(4).find_map(|part| match [&*part[0], &*part[1], &*part[2], &*part[3]] {
            ["projects", key, "repos", slug] => Self::new(key, slug).ok(),
            ["users", user, "repos", slug] => Self::new(&format!("~{user}"), slug).ok(),
            _ => None,
        })
    }

    /// The segments of its path below the API.
    pub(super) fn segments(&self) -> [&str; 4] {
        ["projects", &self.key, "repos", &self.slug]
    }

    /// The segments of its other path below the API, which a personal repository has.
    pub(super) fn personal_segments(&self) -> Option<[&str; 4]> {
        Some(["users", self.key.strip_prefix('~')?, "repos", &self.slug])
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.key, self.slug)
    }
}

/// Keys are upper case and stand in clone URLs in lower case; a personal project's is the user's own name.
fn canonical_key(key: &str) -> String {
    if key.starts_with('~') { key.to_owned() } else { key.to_ascii_uppercase() }
}

/// Whether a text can stand as one segment of a path: what a URL parser would take for a step up, or drop, cannot.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && !matches!(text, "." | ".." | "~")
        && !text.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '/' | '\\'))
}

/// The full name that a clone URL names at the instance of `api` by its form; see [`crate::provider::Provider::named`].
pub(super) fn named(api: &Url, clone_url: &str) -> Option<String> {
    let url = CloneUrl::parse(clone_url).ok()?;
    let (place, said) = Place::of_clone_url(&url).ok()?;
    let is_here = GitHosts::of(api).serve(clone_url) && (!url.is_web() || said == root(api));
    is_here.then(|| place.to_string())
}

/// The context path of an instance, without slashes around it.
pub(super) fn root(api: &Url) -> &str {
    let path = api.path().trim_end_matches('/');
    path.strip_suffix(API_PATH).unwrap_or("").trim_matches('/')
}

/// The resource of a token is for people and may be empty; what is there must have so many parts.
pub(super) fn check_resource(resource: &str, parts: usize) -> Result<(), Refusal> {
    let names: Vec<&str> = resource.split('/').collect();
    if resource.is_empty() || (names.len() == parts && names.into_iter().all(is_name)) {
        return Ok(());
    }
    Err(Refusal::new(
        FieldReason::Malformed,
        "`resource` is the key of the project for a PROJECT, such as PRJ, and key and repository for a REPOSITORY, \
         such as PRJ/my-repo",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(text: &str) -> Vec<String> {
        let url = BaseUrl::parse(text).expect("a URL");
        let endpoints = endpoints(Some(&url), &Scope::default()).expect("endpoints");
        endpoints.into_iter().map(|endpoint| endpoint.api_url.to_string()).collect()
    }

    fn at(root: &str) -> String {
        format!("https://git.example{root}/rest/api/latest")
    }

    #[test]
    fn ac_08_a_pasted_url_gives_its_api_bases_the_best_guess_first() {
        for (tail, roots) in [
            ("", &[""][..]),
            (":8443/bitbucket/", &[":8443/bitbucket", ":8443"]),
            ("/projects/KEY", &[""]),
            ("/bitbucket/projects/KEY/repos/my-repo/browse", &["/bitbucket"]),
            ("/users/casey/repos/my-repo", &[""]),
            ("/bitbucket/scm/key/my-repo.git", &["/bitbucket"]),
            ("/git/rest/api/1.0", &["/git"]),
            ("/git/rest/api/latest/projects", &["/git"]),
            ("/bitbucket/dashboard", &["/bitbucket", "/bitbucket/dashboard"]),
            ("/scm", &["", "/scm"]),
            ("/scm/projects/KEY", &["", "/scm"]),
            ("/a/b", &["/a/b", "/a", ""]),
        ] {
            let wanted: Vec<String> = roots.iter().map(|root| at(root)).collect();
            assert_eq!(candidates(&format!("https://git.example{tail}")), wanted, "{tail}");
        }
    }

    #[test]
    fn a_server_and_nothing_else_must_be_named() {
        let reasons = |scope: &Scope| {
            let violations = endpoints(None, scope).expect_err("refused");
            violations.into_iter().map(|v| (v.field, v.reason)).collect::<Vec<_>>()
        };
        let url = ("connection.base_url".to_owned(), FieldReason::Required);
        assert_eq!(reasons(&Scope::default()), std::slice::from_ref(&url));
        let scope = Scope { projects: vec!["PRJ".into()], ..Scope::default() };
        let projects = ("connection.scope.projects".to_owned(), FieldReason::UnsupportedForProvider);
        assert_eq!(reasons(&scope), [projects, url]);
    }

    #[test]
    fn a_clone_url_of_any_form_names_its_place() {
        for (text, place, root) in [
            ("https://git.example/bitbucket/scm/prj/my-repo.git", "PRJ/my-repo", "bitbucket"),
            ("http://jcitizen@git.example:7990/scm/prj/my-repo.git", "PRJ/my-repo", ""),
            ("https://git.example/scm/~casey/notes.git", "~casey/notes", ""),
            ("https://git.example/scm/scm/prj/my-repo", "PRJ/my-repo", "scm"),
            ("https://git.example/projects/PRJ/repos/my-repo/browse", "PRJ/my-repo", ""),
            ("https://git.example/a/b/users/casey/repos/notes", "~casey/notes", "a/b"),
            ("ssh://git@git.example:7999/prj/my-repo.git", "PRJ/my-repo", ""),
            ("ssh://git@git.example:7999/~casey/notes.git", "~casey/notes", ""),
            ("git@git.example:prj/my-repo.git", "PRJ/my-repo", ""),
        ] {
            let found = Place::of_clone_url(&CloneUrl::parse(text).expect("a clone URL"));
            let found = found.map(|(place, root)| (place.to_string(), root));
            assert_eq!(found, Ok((place.to_owned(), root.to_owned())), "{text}");
        }
        for text in [
            "https://git.example/prj/my-repo.git",
            "https://git.example/scm/prj",
            "ssh://git@git.example/a/b/c.git",
            "https://git.example/scm/prj/..",
            "https://git.example/projects/%2e%2e/repos/x",
            "https://git.example/scm/p%2frj/x.git",
        ] {
            let found = CloneUrl::parse(text).and_then(|url| Place::of_clone_url(&url));
            assert_eq!(found, Err(ProviderError::NotFound), "{text}");
        }
    }

    #[test]
    fn ac_64_the_place_of_a_moved_repository_is_read_from_its_location() {
        let place = |location| Place::of_location(location).map(|place| place.to_string());
        for location in [
            "https://elsewhere.example/bitbucket/rest/api/latest/projects/NEW/repos/new-name?x=1",
            "/rest/api/1.0/projects/new/repos/new-name",
            "../../../../projects/NEW/repos/new-name/browse",
        ] {
            assert_eq!(place(location).as_deref(), Some("NEW/new-name"), "{location}");
        }
        assert_eq!(place("/users/casey/repos/notes").as_deref(), Some("~casey/notes"));
        for location in ["", "/login?next=/projects", "/projects/%2E%2E/repos/a%2fb", "https://"] {
            assert_eq!(place(location), None, "{location}");
        }
    }

    proptest::proptest! {
        #[test]
        fn ac_08_no_api_base_is_odd(path in "((scm|projects|rest|api|[a-zA-Z0-9._~-]{1,5})/){0,12}") {
            let text = format!("https://git.example/{path}");
            // What the check of the text lets through is all that ever comes here.
            proptest::prop_assume!(BaseUrl::parse(&text).is_ok());
            let candidates = candidates(&text);
            proptest::prop_assert!((1..=MAX_CANDIDATES).contains(&candidates.len()));
            for candidate in candidates {
                let path = candidate.strip_prefix("https://git.example").unwrap_or("//");
                proptest::prop_assert!(path.ends_with(API_PATH) && !path.contains("//"), "{candidate}");
            }
        }

        #[test]
        fn a_clone_url_of_any_text_is_read_or_refused(text in ".{0,60}") {
            let found = CloneUrl::parse(&text).and_then(|url| Place::of_clone_url(&url));
            if let Ok((place, _)) = found {
                proptest::prop_assert!(place.segments().iter().all(|part| is_name(part)));
            }
        }
    }
}
