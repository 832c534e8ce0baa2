//! From what people paste to the API base, and from the API base to the pages for people.

use url::Url;

use crate::domain::base_url::BaseUrl;
use crate::domain::connection::{Hosting, Scope};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::provider::endpoint::{candidates, root_of, unused_scope};
use crate::provider::links::{CloneUrl, without_git};
use crate::provider::{Endpoint, GitHosts};

/// The hosts of GitHub's own cloud that people paste, the one of its pages first.
const CLOUD_HOSTS: [&str; 3] = ["github.com", "www.github.com", "api.github.com"];
/// Where it speaks SSH besides: through the port of HTTPS.
const CLOUD_SSH_HOST: &str = "ssh.github.com";
/// Enterprise Cloud with data residency: each enterprise has a host below it.
const RESIDENCY_SUFFIX: &str = ".ghe.com";
/// The path of the API of Enterprise Server. The cloud has none (actions/actions-sync#164).
const API_PATH: &str = "/api/v3";

/// The API bases that `base_url` can mean. Enterprise Server has no context path, so the root of the host comes
/// first; a gateway before it may have one.
pub(super) fn endpoints(
    base_url: Option<&BaseUrl>,
    scope: &Scope,
) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
    let violations = unused_scope(scope, "GitHub");
    if !violations.is_empty() {
        return Err(violations);
    }
    let malformed =
        || vec![FieldViolation::new("connection.base_url", FieldReason::UrlMalformed, "not an https URL")];
    let url = match base_url {
        Some(base_url) => base_url.url().clone(),
        None => Url::parse(super::CLOUD_BASE_URL).map_err(|_| malformed())?,
    };
    if url.cannot_be_a_base() || !url.has_host() {
        return Err(malformed());
    }
    if let Some(cloud) = Cloud::of(&url) {
        let api_url = Url::parse(&cloud.api_origin()).map_err(|_| malformed())?;
        return Ok(vec![Endpoint { api_url, hosting: Hosting::Cloud }]);
    }
    Ok(roots(url.path())
        .into_iter()
        .map(|root| {
            let mut api_url = url.clone();
            api_url.set_query(None);
            api_url.set_fragment(None);
            api_url.set_path(&format!("{root}{API_PATH}"));
            Endpoint { api_url, hosting: Hosting::SelfHosted }
        })
        .collect())
}

fn roots(path: &str) -> Vec<String> {
    let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    // With the API path pasted nothing is open.
    if let Some(at) = segments.windows(2).position(|pair| pair == ["api", "v3"]) {
        segments.truncate(at);
        return vec![root_of(&segments)];
    }
    // A clone URL ends with an owner and a repository.
    if segments.last().is_some_and(|last| last.ends_with(".git")) {
        segments.truncate(segments.len().saturating_sub(2));
    }
    let mut roots = candidates(segments);
    roots.reverse();
    roots
}

/// One of GitHub's own clouds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cloud {
    /// github.com.
    Main,
    /// `{0}.ghe.com`.
    Residency(String),
}

impl Cloud {
    fn of(url: &Url) -> Option<Self> {
        if url.scheme() != "https" || url.port().is_some() {
            return None;
        }
        Self::of_host(url.host_str()?)
    }

    fn of_host(host: &str) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        if CLOUD_HOSTS.contains(&host.as_str()) || host == CLOUD_SSH_HOST {
            return Some(Self::Main);
        }
        let enterprise = host.strip_suffix(RESIDENCY_SUFFIX)?;
        let enterprise = enterprise.strip_prefix("api.").unwrap_or(enterprise);
        (!enterprise.is_empty() && !enterprise.contains('.')).then(|| Self::Residency(enterprise.to_owned()))
    }

    fn web_host(&self) -> String {
        match self {
            Self::Main => CLOUD_HOSTS[0].to_owned(),
            Self::Residency(enterprise) => format!("{enterprise}{RESIDENCY_SUFFIX}"),
        }
    }

    fn api_origin(&self) -> String {
        format!("https://api.{}", self.web_host())
    }
}

/// Whether a host, in lower case, is one of GitHub's own clouds.
pub(super) fn is_cloud(host: &str) -> bool {
    Cloud::of_host(host).is_some()
}

/// The API base of GitHub's own cloud that `link` names, if it names one: behind a gateway, the cloud's answers do.
pub(super) fn cloud_api(link: &str) -> Option<Url> {
    let cloud = Cloud::of(&Url::parse(link).ok()?)?;
    Url::parse(&cloud.api_origin()).ok()
}

/// Where the pages for people are, whose host is also that of the clone URLs.
pub(super) fn web(api: &Url) -> Url {
    let mut web = api.clone();
    match Cloud::of(api) {
        // The host of a URL with a host can always be replaced by another name.
        Some(cloud) => drop(web.set_host(Some(&cloud.web_host()))),
        None => web.set_path(root(api)),
    }
    web
}

/// The path of the instance before its API, empty or with a slash before it alone.
fn root(api: &Url) -> &str {
    api.path().trim_end_matches('/').strip_suffix(API_PATH).unwrap_or("")
}

/// Owner and name of the repository that a clone URL, or a page of the repository, names at the instance of `api`.
pub(super) fn full_name(url: &CloneUrl, api: &Url) -> Option<String> {
    let mut segments = url.path_below(root(api)).split('/');
    let (owner, name) = (segments.next()?, segments.next()?);
    Some(format!("{owner}/{}", without_git(name)))
}

/// The full name that a clone URL names at the instance of `api` by its form; see [`crate::provider::Provider::named`].
pub(super) fn named(api: &Url, clone_url: &str) -> Option<String> {
    let url = CloneUrl::parse(clone_url).ok()?;
    let is_here = git_hosts(api).serve(clone_url) && url.is_below(root(api));
    is_here.then(|| full_name(&url, api))?
}

/// Where git is served: in the cloud not where the API is.
pub(super) fn git_hosts(api: &Url) -> GitHosts {
    match Cloud::of(api) {
        Some(Cloud::Main) => {
            GitHosts::named(&CLOUD_HOSTS[..2], &[CLOUD_HOSTS[0], CLOUD_HOSTS[1], CLOUD_SSH_HOST])
        }
        Some(cloud) => GitHosts::named(&[&cloud.web_host()], &[&cloud.web_host()]),
        None => GitHosts::of(api),
    }
}

/// Whether a clone URL is of the instance of `api`, whose repository shows the clone URLs `shown`.
pub(super) fn is_at(url: &CloneUrl, text: &str, api: &Url, shown: &[&str]) -> bool {
    let cloud = crate::provider::links::host(text).and_then(|host| Cloud::of_host(&host));
    (cloud.is_some() && cloud == Cloud::of(api)) || url.is_at(&web(api), shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::endpoint::MAX_CANDIDATES;

    fn bases(text: &str) -> Vec<String> {
        let url = BaseUrl::parse(text).expect("a URL");
        let endpoints = endpoints(Some(&url), &Scope::default()).expect("endpoints");
        endpoints.into_iter().map(|endpoint| endpoint.api_url.to_string()).collect()
    }

    #[test]
    fn ac_04_ac_08_every_way_to_write_the_cloud_is_one_instance() {
        let cloud = endpoints(None, &Scope::default()).expect("endpoints");
        assert_eq!((cloud.len(), cloud[0].hosting), (1, Hosting::Cloud));
        assert_eq!(cloud[0].api_url.as_str(), "https://api.github.com/");
        for text in [
            "https://github.com",
            "https://GitHub.com/",
            "https://www.github.com",
            "https://github.com/acme/website",
            "https://github.com/acme/website.git",
            "https://api.github.com",
            "https://api.github.com/api/v3",
        ] {
            assert_eq!(bases(text), ["https://api.github.com/"], "{text}");
        }
        for text in ["https://acme.ghe.com", "https://api.acme.ghe.com/", "https://ACME.ghe.com/org/repo"] {
            assert_eq!(bases(text), ["https://api.acme.ghe.com/"], "{text}");
        }
        let residency = BaseUrl::parse("https://acme.ghe.com").expect("a URL");
        let residency = endpoints(Some(&residency), &Scope::default()).expect("endpoints");
        assert_eq!(residency[0].hosting, Hosting::Cloud);
    }

    #[test]
    fn ac_08_a_server_answers_below_api_v3_of_its_root() {
        assert_eq!(bases("https://git.corp.example"), ["https://git.corp.example/api/v3"]);
        assert_eq!(bases("https://git:8443/api/v3/"), ["https://git:8443/api/v3"]);
        assert_eq!(bases("https://git/api/v3/repos/a/b"), ["https://git/api/v3"]);
        assert_eq!(bases("https://git/hub/api/v3"), ["https://git/hub/api/v3"]);
        assert_eq!(bases("https://git/org"), ["https://git/api/v3", "https://git/org/api/v3"]);
        assert_eq!(bases("https://git/org/repo.git"), ["https://git/api/v3"]);
        assert_eq!(bases("https://git/1/2/3/4/5/6/7/8/9").len(), MAX_CANDIDATES);
        for other in [
            "https://github.com.evil.test",
            "https://github.com:8443",
            "https://notghe.com",
            "https://a.b.ghe.com",
            "https://gist.github.com",
        ] {
            assert_eq!(bases(other).len(), 1, "{other}");
            assert!(bases(other)[0].ends_with("/api/v3"), "{other}");
        }
    }

    #[test]
    fn the_pages_of_an_instance_lie_beside_its_api() {
        for (api, expected) in [
            ("https://api.github.com/", "https://github.com/"),
            ("https://api.acme.ghe.com", "https://acme.ghe.com/"),
            ("https://git:8443/api/v3", "https://git:8443/"),
            ("https://git/hub/api/v3", "https://git/hub"),
        ] {
            assert_eq!(web(&Url::parse(api).expect("a URL")).as_str(), expected);
        }
    }

    #[test]
    fn a_clone_url_of_any_form_names_its_repository() {
        let cloud = Url::parse("https://api.github.com/").expect("a URL");
        let residency = Url::parse("https://api.acme.ghe.com/").expect("a URL");
        let server = Url::parse("https://git.example:8443/hub/api/v3").expect("a URL");
        for (api, text, at) in [
            (&cloud, "https://github.com/o/r.git", true),
            (&cloud, "https://www.github.com/o/r", true),
            (&cloud, "https://x:secret@github.com/o/r.git", true),
            (&cloud, "https://github.com/o/r/tree/main/src", true),
            (&cloud, "git@github.com:o/r.git", true),
            (&cloud, "ssh://git@ssh.github.com:443/o/r.git", true),
            (&cloud, "https://acme.ghe.com/o/r.git", false),
            (&cloud, "https://git.example:8443/o/r.git", false),
            // The user of data residency is the enterprise (network-details-for-ghecom).
            (&residency, "acme@acme.ghe.com:o/r.git", true),
            (&residency, "https://acme.ghe.com/o/r.git", true),
            (&residency, "https://other.ghe.com/o/r.git", false),
            (&server, "https://git.example:8443/hub/o/r.git", true),
            (&server, "git@git.example:o/r.git", true),
            (&server, "https://git.example/hub/o/r.git", false),
        ] {
            let url = CloneUrl::parse(text).expect("a clone URL");
            assert_eq!(is_at(&url, text, api, &[]), at, "{text}");
            let address = crate::provider::CloneAddress::parse(text).expect("a clone URL");
            assert_eq!(named(api, address.as_str()).is_some(), at, "{text}");
            if at {
                assert_eq!(full_name(&url, api).as_deref(), Some("o/r"), "{text}");
                assert_eq!(named(api, address.as_str()).as_deref(), Some("o/r"), "{text}");
            }
        }
    }

    #[test]
    fn each_filled_scope_field_is_a_violation() {
        let scope = Scope { organization: "o".into(), ..Scope::default() };
        assert_eq!(endpoints(None, &scope).expect_err("refused")[0].field, "connection.scope.organization");
    }

    proptest::proptest! {
        #[test]
        fn ac_08_no_api_base_is_odd(path in "((-|api|v3|[a-zA-Z0-9._-]{1,5}|[a-z]{1,3}\\.git)/){0,12}") {
            let text = format!("https://git.example/{path}");
            proptest::prop_assume!(BaseUrl::parse(&text).is_ok());
            for base in bases(&text) {
                let path = base.strip_prefix("https://git.example").unwrap_or("//");
                proptest::prop_assert!(path.ends_with(API_PATH) && !path.contains("//"), "{base}");
            }
        }
    }
}
