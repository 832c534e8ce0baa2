//! From what people paste to the API base and a workspace, and from links and clone URLs to places.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::domain::base_url::BaseUrl;
use crate::domain::connection::{Hosting, Scope};
use crate::domain::violation::{FieldReason, FieldViolation};
use crate::provider::endpoint::unused_scope;
use crate::provider::links::{self, CloneUrl, host, without_git};
use crate::provider::{Endpoint, GitHosts, ProviderError};

/// Where people are.
const WEB_HOST: &str = "bitbucket.org";
/// Where the API is; a call without `/2.0` is refused.
const API_HOST: &str = "api.bitbucket.org";
const API_PATH: &str = "/2.0";
/// Where git speaks SSH. The first is the present one: `bitbucket.org` serves HTTPS alone from 2026-11-12 on.
const SSH_HOSTS: [&str; 3] = ["ssh.bitbucket.org", "altssh.bitbucket.org", WEB_HOST];
/// The first words of Bitbucket's own pages, which are no workspaces.
const OWN_PAGES: [&str; 4] = ["account", "dashboard", "repo", "site"];

const BASE_URL: &str = "connection.base_url";

/// The one endpoint of a URL: Bitbucket's own, or a gateway to it.
pub(super) fn endpoints(
    base_url: Option<&BaseUrl>,
    scope: &Scope,
) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
    let mut violations = scope_violations(scope);
    let url = base_url.map(BaseUrl::url);
    let is_slug = |name: &String| !name.starts_with('{');
    if let Some(workspace) = url.and_then(workspace_of)
        && !scope.workspaces.is_empty()
        && std::iter::once(&workspace).chain(&scope.workspaces).all(is_slug)
        && !scope.workspaces.iter().any(|named| named.eq_ignore_ascii_case(&workspace))
    {
        violations.push(FieldViolation::new(
            "connection.scope.workspaces",
            FieldReason::Conflicting,
            "base_url names another workspace; give one of the two, or both alike",
        ));
    }
    let cloud = url.is_none_or(is_cloud);
    let api_url = match url {
        Some(url) if !cloud => {
            let mut url = url.clone();
            let path = url.path().trim_end_matches('/');
            let root = path.split_once("/2.0").filter(|(_, rest)| rest.is_empty() || rest.starts_with('/'));
            let api_path = format!("{}{API_PATH}", root.map_or(path, |(root, _)| root));
            url.set_path(&api_path);
            Ok(url)
        }
        _ => cloud_api(),
    };
    let hosting = if cloud { Hosting::Cloud } else { Hosting::SelfHosted };
    match api_url {
        Ok(api_url) if violations.is_empty() => Ok(vec![Endpoint { api_url, hosting }]),
        Ok(_) => Err(violations),
        Err(_) => Err(vec![FieldViolation::new(BASE_URL, FieldReason::UrlMalformed, "not an https URL")]),
    }
}

/// The endpoint of Bitbucket itself.
pub(super) fn cloud_api() -> Result<Url, ProviderError> {
    let url = Url::parse(&format!("https://{API_HOST}{API_PATH}"));
    url.map_err(|_| ProviderError::garbled("its own address is no URL"))
}

fn scope_violations(scope: &Scope) -> Vec<FieldViolation> {
    let others = Scope { workspaces: Vec::new(), ..scope.clone() };
    let mut violations = unused_scope(&others, "Bitbucket Cloud");
    for (at, workspace) in scope.workspaces.iter().enumerate() {
        if !is_place(workspace) {
            violations.push(FieldViolation::new(
                format!("connection.scope.workspaces[{at}]"),
                FieldReason::Malformed,
                "a workspace is given by its slug, as it stands in bitbucket.org/{slug}, or by its UUID in braces",
            ));
        }
    }
    violations
}

/// Rewrites an SSH clone URL, which is no URL of an instance, to the page of its workspace. The text itself is
/// kept as the caller's own, so nothing may pass here that could not be stored and shown.
pub(super) fn pasted(text: &str) -> Option<String> {
    let is_ssh = text.starts_with("git@") || text.starts_with("ssh://git@");
    if !is_ssh || !SSH_HOSTS.contains(&host(text)?.as_str()) {
        return None;
    }
    let url = CloneUrl::parse(text).ok()?;
    let path = url.path_below("");
    let workspace = path.split('/').next().filter(|name| is_place(name))?;
    // The strict check of all that is left of the text.
    BaseUrl::parse(&format!("https://{WEB_HOST}/{path}")).ok()?;
    Some(format!("https://{WEB_HOST}/{workspace}"))
}

/// `scope`, limited to the workspace that a pasted URL names unless it names workspaces itself.
pub(super) fn scope(base_url: &str, scope: &Scope) -> Scope {
    let mut scope = scope.clone();
    if scope.workspaces.is_empty() {
        let url = Url::parse(pasted(base_url).as_deref().unwrap_or(base_url)).ok();
        scope.workspaces.extend(url.as_ref().and_then(workspace_of));
    }
    scope
}

/// The workspace of a page of Bitbucket's own site. At a gateway a path is a prefix of the API.
fn workspace_of(url: &Url) -> Option<String> {
    if !is_cloud(url) || url.host_str() == Some(API_HOST) {
        return None;
    }
    let first = url.path_segments()?.find(|segment| !segment.is_empty())?;
    let name = percent_decode_str(first).decode_utf8().ok()?.into_owned();
    (is_place(&name) && !OWN_PAGES.contains(&name.as_str())).then_some(name)
}

/// Whether a URL is of Bitbucket itself, not of a gateway to it.
pub(super) fn is_cloud(url: &Url) -> bool {
    url.scheme() == "https"
        && url.port().is_none()
        && matches!(url.host_str(), Some(WEB_HOST | API_HOST | "www.bitbucket.org"))
}

/// Whether a text can stand for a workspace, a project or a repository in a path: a slug, a key, or a UUID.
pub(super) fn is_place(text: &str) -> bool {
    is_uuid(text)
        || ((1..=128).contains(&text.len())
            && !matches!(text, "." | "..")
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)))
}

/// Whether a text is an id as Bitbucket writes it: lower case, in braces.
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 38
        && text.bytes().enumerate().all(|(at, byte)| match at {
            0 => byte == b'{',
            37 => byte == b'}',
            9 | 14 | 19 | 24 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

/// A link as it is given on: without user info (the https clone link names the token's owner), and below the
/// endpoint `api` where it names Bitbucket itself although the connection goes through a gateway. `None` if it
/// is no URL for HTTP.
pub(super) fn cleaned(api: &Url, link: &str) -> Option<Url> {
    if link.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return None;
    }
    let mut url = Url::parse(link).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    // Neither can fail for a URL that has a host.
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    if is_cloud(api) || !is_cloud(&url) {
        return Some(url);
    }
    let mut below = api.clone();
    below.set_path(&format!("{}{}", gateway_root(api), url.path()));
    below.set_query(url.query());
    Some(below)
}

/// Whether a clone link names another host than the endpoint. The hosts of Bitbucket itself are one.
pub(super) fn is_foreign(api: &Url, link: &Url) -> bool {
    if is_cloud(api) { !is_cloud(link) } else { api.host_str() != link.host_str() }
}

/// An SSH link, moved to the host that answers: links to the other one are still shown, and stop on 2026-11-12.
pub(super) fn ssh_link(link: &str) -> String {
    let link = links::ssh_link(link);
    match CloneUrl::parse(&link) {
        Ok(url) if host(&link).as_deref() == Some(WEB_HOST) => {
            format!("git@{}:{}", SSH_HOSTS[0], url.path_below(""))
        }
        _ => link,
    }
}

/// Workspace and repository of a clone URL, or of a page of the repository.
///
/// # Errors
///
/// `NotFound`: a text of another form or of another host names no repository.
pub(super) fn clone_target(api: &Url, text: &str) -> Result<(String, String), ProviderError> {
    let url = CloneUrl::parse(text)?;
    let path = if host(text).is_some_and(|host| SSH_HOSTS.contains(&host.as_str())) {
        url.path_below("")
    } else if url.is_at(api, &[]) {
        url.path_below(gateway_root(api))
    } else {
        return Err(ProviderError::NotFound);
    };
    full_name(path).ok_or(ProviderError::NotFound)
}

/// The full name that a clone URL names by its form; see [`crate::provider::Provider::named`].
pub(super) fn named(api: &Url, clone_url: &str) -> Option<String> {
    let url = CloneUrl::parse(clone_url).ok()?;
    let is_here = git_hosts(api).serve(clone_url) && (is_cloud(api) || url.is_below(gateway_root(api)));
    let (workspace, name) = clone_target(api, clone_url).ok().filter(|_| is_here)?;
    Some(format!("{workspace}/{name}"))
}

/// Where git is served: not where the API is. SSH goes to Bitbucket itself, also behind a gateway.
pub(super) fn git_hosts(api: &Url) -> GitHosts {
    let cloud = GitHosts::named(&[WEB_HOST], &SSH_HOSTS);
    if is_cloud(api) { cloud } else { GitHosts::of(api).with_ssh_of(cloud) }
}

/// Workspace and repository of a path; a page of the repository may follow.
pub(super) fn full_name(path: &str) -> Option<(String, String)> {
    let mut segments = path.split('/');
    let (workspace, name) = (segments.next()?, without_git(segments.next()?));
    (is_place(workspace) && is_place(name)).then(|| (workspace.to_owned(), name.to_owned()))
}

/// The path of a gateway before the API, empty or with a slash before it alone.
fn gateway_root(api: &Url) -> &str {
    api.path().trim_end_matches('/').strip_suffix(API_PATH).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "{4b85b785-1433-4092-8512-20302f4a03be}";

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    fn gateway() -> Url {
        url("https://gateway.example:8443/bb/2.0")
    }

    fn found(text: &str, workspaces: &[&str]) -> Result<Vec<Endpoint>, Vec<FieldViolation>> {
        let base_url = BaseUrl::parse(text).expect("a URL");
        let workspaces = workspaces.iter().map(|&name| name.to_owned()).collect();
        endpoints(Some(&base_url), &Scope { workspaces, ..Scope::default() })
    }

    #[test]
    fn ac_04_every_page_of_the_site_means_the_one_instance() {
        let cloud = endpoints(None, &Scope::default()).expect("endpoints");
        assert_eq!((cloud.len(), cloud[0].hosting), (1, Hosting::Cloud));
        assert_eq!(cloud[0].api_url.as_str(), "https://api.bitbucket.org/2.0");
        for text in [
            "https://bitbucket.org",
            "https://BITBUCKET.org/acme",
            "https://bitbucket.org/acme/website/src/main/",
            "https://bitbucket.org/acme/workspace/projects/WEB",
            "https://bitbucket.org/%7B4b85b785-1433-4092-8512-20302f4a03be%7D/",
            "https://api.bitbucket.org",
            "https://api.bitbucket.org/2.0/repositories/acme",
        ] {
            assert_eq!(found(text, &[]).expect("endpoints"), cloud, "{text}");
        }
        for (text, api_url) in [
            ("https://bitbucket.org:8443", "https://bitbucket.org:8443/2.0"),
            ("https://bitbucket.org.evil.test/", "https://bitbucket.org.evil.test/2.0"),
            ("https://gateway.example:8443/bb/", "https://gateway.example:8443/bb/2.0"),
            ("https://gateway.example:8443/bb/2.0/user", "https://gateway.example:8443/bb/2.0"),
        ] {
            let endpoint = found(text, &[]).expect("endpoints").remove(0);
            assert_eq!((endpoint.api_url.as_str(), endpoint.hosting), (api_url, Hosting::SelfHosted));
        }
    }

    #[test]
    fn a_pasted_page_limits_to_its_workspace() {
        let limits = |text: &str, named: &[&str]| {
            let workspaces = named.iter().map(|&name| name.to_owned()).collect();
            scope(text, &Scope { workspaces, ..Scope::default() }).workspaces
        };
        for text in [
            "https://bitbucket.org/acme",
            "https://bitbucket.org/acme/website/src",
            "https://bitbucket.org/acme/workspace/projects/WEB",
            "git@bitbucket.org:acme/website.git",
            "git@ssh.bitbucket.org:acme/website.git",
            "ssh://git@altssh.bitbucket.org:443/acme/website.git",
        ] {
            assert_eq!(limits(text, &[]), ["acme"], "{text}");
            assert_eq!(limits(text, &["other"]), ["other"], "{text}");
        }
        assert_eq!(limits("https://bitbucket.org/%7B4b85b785-1433-4092-8512-20302f4a03be%7D/", &[]), [UUID]);
        for text in [
            "",
            "https://bitbucket.org/",
            "https://bitbucket.org/dashboard/overview",
            "https://bitbucket.org/account/settings/app-passwords/",
            "https://api.bitbucket.org/2.0",
            "https://gateway.example/acme",
        ] {
            assert!(limits(text, &[]).is_empty(), "{text}");
        }
    }

    #[test]
    fn an_ssh_url_is_understood_and_nothing_else_is() {
        assert_eq!(
            pasted("git@ssh.bitbucket.org:acme/website.git").as_deref(),
            Some("https://bitbucket.org/acme")
        );
        for text in [
            "https://casey@bitbucket.org/acme/website.git",
            "ssh://git:secret@bitbucket.org/acme/website.git",
            "casey@bitbucket.org:acme/website.git",
            "git@elsewhere.test:acme/website.git",
            "git@bitbucket.org:../website.git",
            "git@bitbucket.org:acme/web site.git",
            "git@bitbucket.org:acme/web\\site.git",
            "git@bitbucket.org:",
        ] {
            assert_eq!(pasted(text), None, "{text}");
        }
    }

    #[test]
    fn wrong_scopes_are_told_one_by_one() {
        let scope = Scope {
            organization: "o".into(),
            collection: "c".into(),
            projects: vec!["p".into()],
            workspaces: vec!["acme".into(), UUID.into(), "https://bitbucket.org/acme".into(), "..".into()],
        };
        let violations = endpoints(None, &scope).expect_err("refused");
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "connection.scope.organization",
                "connection.scope.collection",
                "connection.scope.projects",
                "connection.scope.workspaces[2]",
                "connection.scope.workspaces[3]",
            ]
        );
        let conflict = found("https://bitbucket.org/acme/website", &["other"]).expect_err("refused");
        assert_eq!(conflict[0].reason, FieldReason::Conflicting);
        assert!(found("https://bitbucket.org/acme/website", &["other", "ACME"]).is_ok());
        assert!(found("https://bitbucket.org/acme/website", &[UUID]).is_ok());
    }

    #[test]
    fn links_of_the_cloud_are_given_on_below_a_gateway() {
        let cloud = url("https://api.bitbucket.org/2.0");
        let clone = "https://casey@bitbucket.org/acme/website.git";
        let text = |api: &Url, link: &str| cleaned(api, link).map(String::from);
        assert_eq!(text(&cloud, clone).as_deref(), Some("https://bitbucket.org/acme/website.git"));
        assert_eq!(
            text(&gateway(), clone).as_deref(),
            Some("https://gateway.example:8443/bb/acme/website.git")
        );
        assert_eq!(
            text(&gateway(), "https://api.bitbucket.org/2.0/user/workspaces?page=2").as_deref(),
            Some("https://gateway.example:8443/bb/2.0/user/workspaces?page=2")
        );
        assert_eq!(
            text(&gateway(), "https://u:p@elsewhere.test/x").as_deref(),
            Some("https://elsewhere.test/x")
        );
        for bad in ["", "javascript:alert(1)", "git@bitbucket.org:a/b.git", "https://bitbucket.org/a b"] {
            assert_eq!(cleaned(&cloud, bad), None, "{bad}");
        }
        assert!(!is_foreign(&cloud, &url("https://bitbucket.org/acme/website.git")));
        assert!(is_foreign(&cloud, &url("https://bitbucket.org:8443/acme/website.git")));
        assert!(!is_foreign(&gateway(), &url("https://gateway.example/acme/website.git")));
        assert!(is_foreign(&gateway(), &url("https://elsewhere.test/acme/website.git")));
    }

    #[test]
    fn an_ssh_link_names_the_host_that_answers() {
        for link in ["git@bitbucket.org:acme/website.git", "ssh://git:x@bitbucket.org/acme/website.git"] {
            assert_eq!(ssh_link(link), "git@ssh.bitbucket.org:acme/website.git");
        }
        let present = "git@ssh.bitbucket.org:acme/website.git";
        assert_eq!(ssh_link(present), present);
        for bad in ["", "-oProxyCommand=x@bitbucket.org:a/b", "https://bitbucket.org/a/b", "git@host:a b"] {
            assert_eq!(ssh_link(bad), "", "{bad}");
        }
    }

    #[test]
    fn a_clone_url_of_any_form_names_its_repository() {
        let cloud = url("https://api.bitbucket.org/2.0");
        for text in [
            "https://bitbucket.org/acme/website.git",
            "https://casey@bitbucket.org/acme/website.git",
            "https://x-token-auth:secret@bitbucket.org/acme/website",
            "https://bitbucket.org/acme/website/src/main/README.md",
            "git@bitbucket.org:acme/website.git",
            "git@ssh.bitbucket.org:acme/website.git",
            "ssh://git@altssh.bitbucket.org:443/acme/website.git",
        ] {
            for api in [&cloud, &gateway()] {
                assert_eq!(clone_target(api, text), Ok(("acme".to_owned(), "website".to_owned())), "{text}");
            }
        }
        let own = "https://gateway.example:8443/bb/acme/website.git";
        assert_eq!(clone_target(&gateway(), own), Ok(("acme".to_owned(), "website".to_owned())));
        assert_eq!(clone_target(&cloud, own), Err(ProviderError::NotFound));
        for text in [
            "",
            "acme/website",
            "https://bitbucket.org/acme",
            "https://bitbucket.org/acme/%2e%2e",
            "https://elsewhere.test/acme/website.git",
            "git@elsewhere.test:acme/website.git",
            "https://gateway.example/bb/acme/website.git",
            "https://gateway.example:8443/acme",
            "file:///etc/passwd",
        ] {
            assert_eq!(clone_target(&gateway(), text), Err(ProviderError::NotFound), "{text}");
        }
    }

    #[test]
    fn h22_only_plain_names_get_into_a_path() {
        assert!(is_place("acme") && is_place("my_repo.v2-x") && is_place(UUID));
        for bad in ["", ".", "..", "a/b", "a%2fb", "a b", "h\u{e4}us", "{}", "{4b85b785}", &"x".repeat(129)] {
            assert!(!is_place(bad), "{bad}");
        }
        assert!(!is_uuid(&UUID.to_uppercase()) && !is_uuid(UUID.trim_matches(['{', '}'])));
    }

    proptest::proptest! {
        #[test]
        fn a_clone_url_of_any_text_is_read_or_refused(text in ".{0,60}") {
            if let Ok((workspace, name)) = clone_target(&gateway(), &text) {
                proptest::prop_assert!(is_place(&workspace) && is_place(&name));
            }
            let _ = (pasted(&text), ssh_link(&text), cleaned(&gateway(), &text), scope(&text, &Scope::default()));
        }
    }
}
