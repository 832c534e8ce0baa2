//! From what people paste to the API base, and from clone URLs to full paths.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::domain::base_url::BaseUrl;
use crate::domain::connection::{Hosting, Scope};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::provider::{Endpoint, ProviderError};

/// The host of GitLab's own cloud.
const CLOUD_HOST: &str = "gitlab.com";
/// Most API bases that one URL stands for; deeper paths are projects, relative roots are short.
const MAX_CANDIDATES: usize = 8;
/// The path of the API below the relative root.
const API_PATH: &str = "/api/v4";

/// The API bases that `base_url` can mean, the longest path first: a path may be a relative root, or a group
/// or project that was pasted with it.
pub(super) fn endpoints(
    base_url: Option<&BaseUrl>,
    scope: &Scope,
) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
    let violations = scope_violations(scope);
    if !violations.is_empty() {
        return Err(violations);
    }
    let malformed =
        || vec![FieldViolation::new("connection.base_url", FieldReason::UrlMalformed, "not an https URL")];
    let mut url = match base_url {
        Some(base_url) => base_url.url().clone(),
        None => Url::parse(super::CLOUD_BASE_URL).map_err(|_| malformed())?,
    };
    if url.cannot_be_a_base() || !url.has_host() {
        return Err(malformed());
    }
    url.set_query(None);
    url.set_fragment(None);
    let cloud = url.host_str() == Some(CLOUD_HOST) && url.scheme() == "https" && url.port().is_none();
    let roots = if cloud { vec![String::new()] } else { roots(url.path()) };
    let hosting = if cloud { Hosting::Cloud } else { Hosting::SelfHosted };
    Ok(roots
        .into_iter()
        .map(|root| {
            let mut api_url = url.clone();
            api_url.set_path(&format!("{root}{API_PATH}"));
            Endpoint { api_url, hosting }
        })
        .collect())
}

fn scope_violations(scope: &Scope) -> Vec<FieldViolation> {
    [
        ("organization", scope.organization.is_empty()),
        ("collection", scope.collection.is_empty()),
        ("projects", scope.projects.is_empty()),
        ("workspaces", scope.workspaces.is_empty()),
    ]
    .into_iter()
    .filter(|(_, empty)| !empty)
    .map(|(field, _)| {
        FieldViolation::new(
            format!("connection.scope.{field}"),
            FieldReason::UnsupportedForProvider,
            "GitLab has no such thing; leave it empty",
        )
    })
    .collect()
}

/// The relative roots that a path can mean, longest first, each empty or with a slash before it alone.
fn roots(path: &str) -> Vec<String> {
    let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    // Behind `/-/` stand GitLab's own pages, never a root.
    if let Some(at) = segments.iter().position(|segment| *segment == "-") {
        segments.truncate(at);
    }
    // With the API path pasted nothing is open.
    if let Some(at) = segments.windows(2).position(|pair| pair == ["api", "v4"]) {
        segments.truncate(at);
        return vec![join(&segments)];
    }
    // A clone URL ends with a project, which always lies in a group or a person's space.
    if segments.last().is_some_and(|last| last.ends_with(".git")) {
        segments.truncate(segments.len().saturating_sub(2));
    }
    segments.truncate(MAX_CANDIDATES - 1);
    (0..=segments.len()).rev().map(|length| join(&segments[..length])).collect()
}

fn join(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |path, segment| path + "/" + segment)
}

/// The host and the port of a URL, as far as they tell one web server from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Site {
    host: String,
    /// `None` for SSH, whose port says nothing about the web server.
    port: Option<u16>,
}

impl Site {
    fn of(url: &Url) -> Option<Self> {
        let host = url.host_str()?.to_ascii_lowercase();
        let web = matches!(url.scheme(), "http" | "https");
        let port = if web { url.port_or_known_default() } else { None };
        Some(Self { host, port })
    }

    /// Whether both can be the same machine: the same host, and the same port where both name one.
    fn fits(&self, other: &Self) -> bool {
        self.host == other.host && (self.port.is_none() || other.port.is_none() || self.port == other.port)
    }
}

/// What a clone URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CloneUrl {
    site: Site,
    /// The path without slashes around it, `.git` and percent-encoding.
    path: String,
}

impl CloneUrl {
    /// Reads `https://host[:port]/path.git`, `ssh://git@host[:port]/path.git` and `git@host:path.git`.
    ///
    /// # Errors
    ///
    /// `NotFound`: a text of another form names no project.
    pub(super) fn parse(text: &str) -> Result<Self, ProviderError> {
        let (site, path) = if text.contains("://") {
            let url = Url::parse(text).map_err(|_| ProviderError::NotFound)?;
            if !matches!(url.scheme(), "http" | "https" | "ssh") {
                return Err(ProviderError::NotFound);
            }
            let path = percent_decode_str(url.path()).decode_utf8().map_err(|_| ProviderError::NotFound)?;
            (Site::of(&url).ok_or(ProviderError::NotFound)?, path.into_owned())
        } else {
            let (before, path) = text.split_once(':').ok_or(ProviderError::NotFound)?;
            let host = before.rsplit_once('@').map_or(before, |(_, host)| host).to_ascii_lowercase();
            if host.is_empty() || host.contains('/') {
                return Err(ProviderError::NotFound);
            }
            (Site { host, port: None }, path.to_owned())
        };
        let path = path.split("/-/").next().unwrap_or("").trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/').to_owned();
        Ok(Self { site, path })
    }

    /// The full path of the project at the instance of `api`: without the instance's relative root, which
    /// web URLs carry and SSH ones do not.
    pub(super) fn full_path(&self, api: &Url) -> String {
        let root = relative_root(api);
        let inside = self.path.strip_prefix(root.trim_matches('/')).and_then(|rest| rest.strip_prefix('/'));
        match (self.site.port, inside) {
            (Some(_), Some(inside)) if !root.is_empty() => inside.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// Whether the URL names the instance of `api` itself, or the place of one of `shown`: the clone URLs
    /// of the project that was found. The administrator can set another clone root.
    pub(super) fn is_at(&self, api: &Url, shown: &[&str]) -> bool {
        Site::of(api).is_some_and(|site| site.fits(&self.site))
            || shown.iter().any(|text| Self::parse(text).is_ok_and(|other| other.site.fits(&self.site)))
    }
}

/// The path of the instance before its API, empty or with a slash before it alone.
fn relative_root(api: &Url) -> &str {
    api.path().trim_end_matches('/').strip_suffix(API_PATH).unwrap_or("")
}

/// The host that a URL of any form names, in lower case; `None` for a text that is no URL.
pub(super) fn host(text: &str) -> Option<String> {
    CloneUrl::parse(text).ok().map(|url| url.site.host)
}

/// Whether a host is that of GitLab's own cloud.
pub(super) fn is_cloud(host: &str) -> bool {
    host == CLOUD_HOST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(text: &str) -> Vec<String> {
        let url = BaseUrl::parse(text).expect("a URL");
        let endpoints = endpoints(Some(&url), &Scope::default()).expect("endpoints");
        endpoints.into_iter().map(|endpoint| endpoint.api_url.to_string()).collect()
    }

    #[test]
    fn ac_08_a_pasted_url_gives_its_api_bases_longest_first() {
        assert_eq!(candidates("https://git.corp.example"), ["https://git.corp.example/api/v4"]);
        assert_eq!(
            candidates("https://git.corp.example:8443/gitlab/"),
            ["https://git.corp.example:8443/gitlab/api/v4", "https://git.corp.example:8443/api/v4"]
        );
        assert_eq!(candidates("https://git/gitlab/api/v4/"), ["https://git/gitlab/api/v4"]);
        assert_eq!(candidates("https://git:443/api/v4/projects"), ["https://git/api/v4"]);
        assert_eq!(
            candidates("https://git/a/b/-/merge_requests/1"),
            ["https://git/a/b/api/v4", "https://git/a/api/v4", "https://git/api/v4"]
        );
        assert_eq!(candidates("https://git/group/project.git"), ["https://git/api/v4"]);
        assert_eq!(
            candidates("https://git/root/group/project.git/"),
            ["https://git/root/api/v4", "https://git/api/v4"]
        );
        assert_eq!(candidates("https://x.gitlab-dedicated.com"), ["https://x.gitlab-dedicated.com/api/v4"]);
    }

    #[test]
    fn at_most_eight_bases_are_asked_and_the_shortest_among_them() {
        let deep = candidates("https://git/1/2/3/4/5/6/7/8/9/10");
        assert_eq!(deep.len(), MAX_CANDIDATES);
        assert_eq!(deep.last().map(String::as_str), Some("https://git/api/v4"));
        assert!(deep.iter().all(|url| !url.trim_start_matches("https://").contains("//")));
    }

    #[test]
    fn ac_04_the_cloud_is_known_by_its_host() {
        let endpoints = |text: Option<&str>| {
            let url = text.map(|text| BaseUrl::parse(text).expect("a URL"));
            super::endpoints(url.as_ref(), &Scope::default()).expect("endpoints")
        };
        let cloud = endpoints(None);
        assert_eq!((cloud.len(), cloud[0].hosting), (1, Hosting::Cloud));
        assert_eq!(cloud[0].api_url.as_str(), "https://gitlab.com/api/v4");
        assert_eq!(endpoints(Some("https://GitLab.com/group/project")), cloud);
        assert_eq!(endpoints(Some("https://gitlab.com:8443"))[0].hosting, Hosting::SelfHosted);
        assert_eq!(endpoints(Some("https://gitlab.com.evil.test"))[0].hosting, Hosting::SelfHosted);
    }

    #[test]
    fn each_filled_scope_field_is_a_violation() {
        let scope = Scope {
            organization: "o".into(),
            collection: String::new(),
            projects: vec!["p".into()],
            workspaces: Vec::new(),
        };
        let violations = endpoints(None, &scope).expect_err("refused");
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["connection.scope.organization", "connection.scope.projects"]);
        assert!(violations.iter().all(|v| v.reason == FieldReason::UnsupportedForProvider));
    }

    #[test]
    fn a_clone_url_of_any_form_names_its_project() {
        let api = Url::parse("https://git.example:8443/gitlab/api/v4").expect("a URL");
        for (text, path, at) in [
            ("https://git.example:8443/gitlab/group/sub/project.git", "group/sub/project", true),
            ("https://oauth2:secret@git.example:8443/gitlab/group/project", "group/project", true),
            ("https://git.example:8443/gitlab/group/project/-/tree/main", "group/project", true),
            ("https://git.example:8443/gitlab/gr%6Fup/project.git/", "group/project", true),
            ("ssh://git@git.example:2222/group/project.git", "group/project", true),
            ("git@git.example:group/sub/project.git", "group/sub/project", true),
            ("git@GIT.example:/group/project.git", "group/project", true),
            ("https://git.example/gitlab/group/project.git", "group/project", false),
            ("https://other.example:8443/gitlab/group/project.git", "group/project", false),
        ] {
            let url = CloneUrl::parse(text).expect("a clone URL");
            assert_eq!(url.full_path(&api), path, "{text}");
            assert_eq!(url.is_at(&api, &[]), at, "{text}");
        }
        let other = CloneUrl::parse("https://clone.example/group/project.git").expect("a clone URL");
        assert!(other.is_at(&api, &["", "https://clone.example/group/project.git"]));
        for text in ["", "group/project", "file:///etc/passwd", "git://git.example/x", "https://", "/a:b"] {
            assert_eq!(CloneUrl::parse(text), Err(ProviderError::NotFound), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn ac_08_no_api_base_is_odd(path in "((-|api|v4|[a-zA-Z0-9._-]{1,5}|[a-z]{1,3}\\.git)/){0,12}") {
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
            let api = Url::parse("https://git.example/gitlab/api/v4").expect("a URL");
            if let Ok(url) = CloneUrl::parse(&text) {
                let path = url.full_path(&api);
                proptest::prop_assert!(!path.ends_with('/'));
            }
        }
    }
}
