//! From what people paste to the API base.

use url::Url;

use crate::domain::base_url::BaseUrl;
use crate::domain::connection::{Hosting, Scope};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::provider::endpoint::{candidates, root_of, unused_scope};
use crate::provider::links::{CloneUrl, without_git};
use crate::provider::{Endpoint, GitHosts};

/// The path of the API below the root, which may be a sub-path of its host.
const API_PATH: &str = "/api/v1";

/// The API bases that `base_url` can mean, the longest path first: a path may be the root, or a user, a repository or
/// a page of it that was pasted.
pub(super) fn endpoints(
    base_url: Option<&BaseUrl>,
    scope: &Scope,
) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
    let mut violations = unused_scope(scope, "Gitea");
    let url = base_url.map(|base_url| base_url.url().clone());
    if url.is_none() {
        violations.push(FieldViolation::new(
            "connection.base_url",
            FieldReason::Required,
            "Gitea has no cloud of its own; send the URL of the server, such as https://codeberg.org",
        ));
    }
    let Some(mut url) = url.filter(|_| violations.is_empty()) else { return Err(violations) };
    url.set_query(None);
    url.set_fragment(None);
    Ok(roots(url.path())
        .into_iter()
        .map(|root| {
            let mut api_url = url.clone();
            api_url.set_path(&format!("{root}{API_PATH}"));
            Endpoint { api_url, hosting: Hosting::SelfHosted }
        })
        .collect())
}

/// The roots that a path can mean, longest first, each empty or with a slash before it alone.
fn roots(path: &str) -> Vec<String> {
    let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    // With the API or its description pasted nothing is open.
    let api = segments.windows(2).position(|pair| matches!(pair, ["api", "v1" | "swagger"]));
    if let Some(at) = api {
        segments.truncate(at);
        return vec![root_of(&segments)];
    }
    // A clone URL ends with an owner and a repository.
    if segments.last().is_some_and(|last| last.ends_with(".git")) {
        segments.truncate(segments.len().saturating_sub(2));
        return vec![root_of(&segments)];
    }
    candidates(segments)
}

/// The full name that a clone URL names at the instance of `api` by its form; see [`crate::provider::Provider::named`].
pub(super) fn named(api: &Url, clone_url: &str) -> Option<String> {
    let url = CloneUrl::parse(clone_url).ok()?;
    let is_here = GitHosts::of(api).serve(clone_url) && url.is_below(root(api));
    let mut segments = url.path_below(root(api)).split('/');
    let (owner, name) = (segments.next()?, segments.next()?);
    is_here.then(|| format!("{owner}/{}", without_git(name)))
}

/// The path of the instance before its API, empty or with a slash before it alone.
pub(super) fn root(api: &Url) -> &str {
    api.path().trim_end_matches('/').strip_suffix(API_PATH).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::endpoint::MAX_CANDIDATES;

    fn bases(text: &str) -> Vec<String> {
        let url = BaseUrl::parse(text).expect("a URL");
        let endpoints = endpoints(Some(&url), &Scope::default()).expect("endpoints");
        assert!(endpoints.iter().all(|endpoint| endpoint.hosting == Hosting::SelfHosted));
        endpoints.into_iter().map(|endpoint| endpoint.api_url.to_string()).collect()
    }

    #[test]
    fn ac_08_a_pasted_url_gives_its_api_bases_longest_first() {
        assert_eq!(bases("https://codeberg.org"), ["https://codeberg.org/api/v1"]);
        assert_eq!(
            bases("https://git.corp.example:8443/gitea/"),
            ["https://git.corp.example:8443/gitea/api/v1", "https://git.corp.example:8443/api/v1"]
        );
        assert_eq!(
            bases("https://git/owner/repo"),
            ["https://git/owner/repo/api/v1", "https://git/owner/api/v1", "https://git/api/v1"]
        );
        assert_eq!(bases("https://git/owner/repo.git"), ["https://git/api/v1"]);
        assert_eq!(bases("https://git/gitea/owner/repo.git"), ["https://git/gitea/api/v1"]);
        for pasted in ["api/v1", "api/v1/", "api/swagger", "api/v1/repos/search"] {
            assert_eq!(bases(&format!("https://git/gitea/{pasted}")), ["https://git/gitea/api/v1"]);
        }
        assert_eq!(root(&Url::parse("https://git/gitea/api/v1").expect("a URL")), "/gitea");
    }

    #[test]
    fn an_instance_must_be_named_and_has_no_scope() {
        let scope = Scope { organization: "o".into(), ..Scope::default() };
        let violations = endpoints(None, &scope).expect_err("refused");
        let told: Vec<_> = violations.iter().map(|v| (v.field.as_str(), v.reason)).collect();
        assert_eq!(
            told,
            [
                ("connection.scope.organization", FieldReason::UnsupportedForProvider),
                ("connection.base_url", FieldReason::Required)
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn ac_08_no_api_base_is_odd(path in "((api|v1|swagger|[a-zA-Z0-9._-]{1,5}|[a-z]{1,3}\\.git)/){0,12}") {
            let text = format!("https://git.example/{path}");
            proptest::prop_assume!(BaseUrl::parse(&text).is_ok());
            let bases = bases(&text);
            proptest::prop_assert!((1..=MAX_CANDIDATES).contains(&bases.len()));
            for base in bases {
                let path = base.strip_prefix("https://git.example").unwrap_or("//");
                proptest::prop_assert!(path.ends_with(API_PATH) && !path.contains("//"), "{base}");
            }
        }
    }
}
