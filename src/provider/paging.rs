//! The links that providers give for their next pages (RFC 8288), and what of them is followed.

use http::HeaderMap;
use http::header::LINK;
use url::Url;

use super::ProviderError;

/// The longest link that is followed, in bytes: it travels in page tokens.
const MAX_LINK_BYTES: usize = 2_048;

/// The longest name of a default branch that goes along in a cursor, in bytes: git's own are about half as long.
const MAX_CARRIED_BYTES: usize = 512;

/// The target of the first `Link` of that relation, as it stands there.
pub(super) fn target<'a>(headers: &'a HeaderMap, relation: &str) -> Option<&'a str> {
    let values = headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(links).find(|(_, parameters)| is_of(parameters, relation)).map(|(target, _)| target)
}

/// Each link of a header: its target, and the parameters behind it.
fn links(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        let (parameters, next) = after.split_at(after.find('<').unwrap_or(after.len()));
        rest = next;
        Some((target, parameters))
    })
}

fn is_of(parameters: &str, relation: &str) -> bool {
    parameters.split([';', ',']).filter_map(|parameter| parameter.trim().strip_prefix("rel=")).any(|value| {
        value.trim_matches('"').split_whitespace().any(|word| word.eq_ignore_ascii_case(relation))
    })
}

/// The place below an API's `base` that `link` names: its path behind that of the base, and its query.
///
/// A link is taken from the origin of the base alone, so that no other one is ever dialled; behind a gateway the
/// provider's own cloud names itself, so links below one of `clouds` (API bases) are moved onto the base.
///
/// # Errors
///
/// `Failed` for a link to anywhere else.
pub(super) fn below(base: &Url, link: &str, clouds: &[Url]) -> Result<String, ProviderError> {
    const ELSEWHERE: ProviderError = ProviderError::garbled("its link leads to another origin");
    if link.len() > MAX_LINK_BYTES {
        return Err(ProviderError::garbled("its link is too long"));
    }
    let url = base.join(link).map_err(|_| ELSEWHERE)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ELSEWHERE);
    }
    let place = std::iter::once(base).chain(clouds).find_map(|root| {
        let path = url.path().strip_prefix(root.path().trim_end_matches('/'))?;
        (root.origin() == url.origin() && path.starts_with('/')).then_some(path)
    });
    let place = place.ok_or(ELSEWHERE)?;
    Ok(url.query().map_or_else(|| place.to_owned(), |query| format!("{place}?{query}")))
}

/// The URL of a place that [`below`] made; `None` if it is not below `base`.
pub(super) fn url_of(base: &Url, place: &str) -> Option<Url> {
    let root = base.path().trim_end_matches('/');
    let (path, query) = place.split_once('?').map_or((place, None), |(path, query)| (path, Some(query)));
    let mut url = base.clone();
    url.set_path(&format!("{root}{path}"));
    url.set_query(query);
    let inside = path.starts_with('/') && url.path().strip_prefix(root)?.starts_with('/');
    inside.then_some(url)
}

/// The name of a default branch for a cursor; empty if no ref can have one as long.
pub(super) fn carried(default_branch: String) -> String {
    if default_branch.len() <= MAX_CARRIED_BYTES { default_branch } else { String::new() }
}

/// A parameter of the query of a link or a place, decoded.
pub(super) fn parameter(link: &str, name: &str) -> Option<String> {
    let (_, query) = link.split_once('?')?;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_link_is_found_by_its_relation() {
        let mut headers = HeaderMap::new();
        let mut add = |text: &str| headers.append(LINK, HeaderValue::from_str(text).expect("a value"));
        add(
            "<https://git.test/x?a=1,2&page=2>; rel=\"next\", <https://git.test/x?page=9>; rel=\"last first\"",
        );
        add("</y>;rel=prev; title=\"before\"");
        assert_eq!(target(&headers, "next"), Some("https://git.test/x?a=1,2&page=2"));
        assert_eq!(target(&headers, "LAST"), Some("https://git.test/x?page=9"));
        assert_eq!(target(&headers, "prev"), Some("/y"));
        assert_eq!(target(&headers, "nex"), None);
        for odd in ["<", "<>", "rel=next", "<x; rel=next", "<x> next"] {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::from_str(odd).expect("a value"));
            assert_eq!(target(&headers, "next"), None, "{odd}");
        }
    }

    #[test]
    fn ac_61_only_a_link_of_the_own_origin_is_followed() {
        let cloud = [Url::parse("https://api.cloud.example").expect("a URL")];
        let gateway = Url::parse("https://git.test:8443/forge/api/v3").expect("a URL");
        let place = |link: &str| below(&gateway, link, &cloud).ok();
        for (link, expected) in [
            ("https://git.test:8443/forge/api/v3/user/repos?page=2", Some("/user/repos?page=2")),
            ("/forge/api/v3/repositories/1/tags", Some("/repositories/1/tags")),
            ("https://api.cloud.example/user/repos?page=2#x", Some("/user/repos?page=2")),
            ("https://git.test/forge/api/v3/user/repos", None),
            ("http://git.test:8443/forge/api/v3/user/repos", None),
            ("https://git.test:8443/other/user/repos", None),
            ("https://git.test:8443/forge/api/v3x/user", None),
            ("https://git.test:8443/forge/api/v3/../../admin", None),
            ("https://u@git.test:8443/forge/api/v3/user", None),
            ("https://elsewhere.test/forge/api/v3/user", None),
            ("//elsewhere.test/forge/api/v3/user", None),
        ] {
            assert_eq!(place(link).as_deref(), expected, "{link}");
            if let Some(place) = expected {
                let url = url_of(&gateway, place).expect("a URL");
                assert_eq!(url.as_str(), format!("https://git.test:8443/forge/api/v3{place}"));
            }
        }
        assert_eq!(place(&format!("/forge/api/v3/{}", "x".repeat(3_000))), None);
        for outside in ["/../../admin", "", "x"] {
            assert_eq!(url_of(&gateway, outside), None, "{outside}");
        }
        assert_eq!(parameter("/x?page=2&a=b%20c", "a").as_deref(), Some("b c"));
    }
}
