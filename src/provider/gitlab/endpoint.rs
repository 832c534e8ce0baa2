//! From what people paste to the API base, and from clone URLs to full paths.

use url::Url;

use crate::domain::base_url::BaseUrl;
use crate::domain::connection::{Hosting, Scope};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::provider::endpoint::{candidates, root_of, unused_scope};
use crate::provider::links::{CloneUrl, without_git};
use crate::provider::{Endpoint, GitHosts};

/// The host of GitLab's own cloud.
const CLOUD_HOST: &str = "gitlab.com";
/// The path of the API below the relative root.
const API_PATH: &str = "/api/v4";

/// The API bases that `base_url` can mean, the longest path first: a path may be a relative root, or a group
/// or project that was pasted with it.
pub(super) fn endpoints(
    base_url: Option<&BaseUrl>,
    scope: &Scope,
) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
    let violations = unused_scope(scope, "GitLab");
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
        return vec![root_of(&segments)];
    }
    // A clone URL ends with a project, which always lies in a group or a person's space.
    if segments.last().is_some_and(|last| last.ends_with(".git")) {
        segments.truncate(segments.len().saturating_sub(2));
    }
    candidates(segments)
}

/// The full path of the project that a clone URL names at the instance of `api`: without the instance's relative
/// root, and without the page of the project that was copied with it.
pub(super) fn full_path(url: &CloneUrl, api: &Url) -> String {
    let path = url.path_below(relative_root(api));
    without_git(path.split("/-/").next().unwrap_or("").trim_end_matches('/')).to_owned()
}

/// The full path that a clone URL names at the instance of `api` by its form; see
/// [`crate::provider::Provider::named`].
pub(super) fn named(api: &Url, clone_url: &str) -> Option<String> {
    let url = CloneUrl::parse(clone_url).ok()?;
    let is_here = GitHosts::of(api).serve(clone_url) && url.is_below(relative_root(api));
    Some(full_path(&url, api)).filter(|path| is_here && path.contains('/'))
}

/// The path of the instance before its API, empty or with a slash before it alone.
fn relative_root(api: &Url) -> &str {
    api.path().trim_end_matches('/').strip_suffix(API_PATH).unwrap_or("")
}

/// Whether a host is that of GitLab's own cloud.
pub(super) fn is_cloud(host: &str) -> bool {
    host == CLOUD_HOST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ProviderError;
    use crate::provider::endpoint::MAX_CANDIDATES;

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
            assert_eq!(full_path(&url, &api), path, "{text}");
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
                let path = full_path(&url, &api);
                proptest::prop_assert!(!path.ends_with('/'));
            }
        }
    }
}
