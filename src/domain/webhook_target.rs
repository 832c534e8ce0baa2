//! Where webhooks may deliver to: the URL of a receiver, and what the operator admits.
//!
//! It is the provider that calls a receiver, not this service, so the outbound policy has no say. What decides is the
//! operator's list alone; an empty list admits nothing.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::base_url::{BaseUrl, MAX_URL_BYTES, Origin};
use super::credential::looks_like_token;
use super::violation::{FieldReason, Refusal};

/// The URL of a receiver in its canonical form: scheme and host in lower case, no default port, a path of at least `/`
/// without empty or dot segments, no user name, no fragment. It may have a query: receivers tell their sources by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    text: String,
    origin: Origin,
    /// Without the query; begins with a slash.
    path: String,
}

impl WebhookTarget {
    /// Checks and parses what a caller wrote.
    ///
    /// # Errors
    ///
    /// `URL_TOO_LONG`, `URL_SCHEME_FORBIDDEN`, `URL_USERINFO_FORBIDDEN`, `URL_MALFORMED`, `TOKEN_IN_TEXT` (everybody who
    /// may read the link reads the URL), and `WEBHOOK_TARGET_NOT_ALLOWED` for a hidden form of a special address.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        check_length(text)?;
        if looks_like_token(text) {
            let told = "the URL looks like it holds a token, and everybody who reads the link would see it. Revoke \
                        this one if it is real";
            return Err(Refusal::new(FieldReason::TokenInText, told));
        }
        let (before, query) = match text.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (text, None),
        };
        // Nothing of it is dialled from here, so no address is refused for what it is; only its hidden forms are.
        let base = BaseUrl::parse(before).map_err(|refusal| match refusal.reason {
            FieldReason::EndpointNotAllowed => {
                Refusal::new(FieldReason::WebhookTargetNotAllowed, refusal.description)
            }
            _ => refusal,
        })?;
        let mut canonical = base.url().as_str().to_owned();
        if let Some(query) = query {
            check_query(query)?;
            canonical.push('?');
            canonical.push_str(query);
        }
        // It may have got a slash, and must be accepted when it comes back.
        check_length(&canonical)?;
        Ok(Self { text: canonical, origin: base.origin(), path: base.url().path().to_owned() })
    }

    /// The canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for WebhookTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn check_length(text: &str) -> Result<(), Refusal> {
    if text.len() <= MAX_URL_BYTES {
        return Ok(());
    }
    Err(Refusal::new(FieldReason::UrlTooLong, format!("a URL has at most {MAX_URL_BYTES} bytes")))
}

fn check_query(query: &str) -> Result<(), Refusal> {
    let malformed = |told: &str| Err(Refusal::new(FieldReason::UrlMalformed, told));
    if query.is_empty() {
        return malformed("nothing follows the question mark; leave it out");
    }
    // The characters of RFC 3986, with whole percent-encodings.
    let mut bytes = query.bytes();
    while let Some(byte) = bytes.next() {
        let ok = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(|b| b.is_ascii_hexdigit())),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&()*+,;=:@/?".contains(&byte),
        };
        if !ok {
            return malformed("the query has a character that must be percent-encoded, or a fragment");
        }
    }
    match percent_decode_str(query).decode_utf8() {
        Ok(decoded) if !decoded.chars().any(char::is_control) => Ok(()),
        _ => malformed("the query hides a control character, or is not UTF-8 behind its percent-encoding"),
    }
}

/// One thing that the operator admits as a target.
///
/// - `https://hooks.corp.example`: every path of this origin.
/// - `https://hooks.corp.example/git`: this path and those below it, such as `/git/a`, but not `/github`.
/// - `http://receiver:8080`: plain text to exactly this origin, for a receiver inside a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRule {
    origin: Origin,
    /// Without a slash at its end; empty for every path.
    prefix: String,
}

impl TargetRule {
    /// Parses a rule as it stands in the configuration; `None` if the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = BaseUrl::parse(text).ok()?;
        let prefix = url.url().path().trim_end_matches('/').to_owned();
        let rule = Self { origin: url.origin(), prefix };
        (rule.origin.scheme() == "https" || rule.prefix.is_empty()).then_some(rule)
    }

    fn admits(&self, target: &WebhookTarget) -> bool {
        self.origin == target.origin
            && target
                .path
                .strip_prefix(&self.prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for TargetRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.prefix)
    }
}

/// What the operator admits as targets: nothing that no rule lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetPolicy(Vec<TargetRule>);

impl TargetPolicy {
    /// The policy of these rules.
    #[must_use]
    pub const fn new(rules: Vec<TargetRule>) -> Self {
        Self(rules)
    }

    /// Refuses a target that no rule admits.
    ///
    /// # Errors
    ///
    /// `WEBHOOK_TARGET_NOT_ALLOWED`, naming the setting and none of its rules.
    pub fn check(&self, target: &WebhookTarget) -> Result<(), Refusal> {
        if self.0.iter().any(|rule| rule.admits(target)) {
            return Ok(());
        }
        let told = if self.0.is_empty() {
            "this server admits no webhook target yet; its operator can list one with --webhook-target-allow"
        } else {
            "the operator does not list this target (--webhook-target-allow): scheme, host, port and path must fit"
        };
        Err(Refusal::new(FieldReason::WebhookTargetNotAllowed, told))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(text: &str) -> WebhookTarget {
        WebhookTarget::parse(text).expect(text)
    }

    fn policy(rules: &[&str]) -> TargetPolicy {
        TargetPolicy::new(rules.iter().map(|rule| TargetRule::parse(rule).expect(rule)).collect())
    }

    #[test]
    fn ac_54_a_target_has_one_form_without_empty_segments() {
        for (text, canonical) in [
            ("HTTPS://Hooks.Corp.Example:443", "https://hooks.corp.example/"),
            ("https://hooks.corp.example/", "https://hooks.corp.example/"),
            (
                "https://hooks.corp.example/git?source=a%20b&x=/?",
                "https://hooks.corp.example/git?source=a%20b&x=/?",
            ),
            ("http://receiver:8080/in", "http://receiver:8080/in"),
        ] {
            assert_eq!(target(text).as_str(), canonical);
            assert_eq!(target(canonical).as_str(), canonical);
        }
    }

    #[test]
    fn w01_a_text_that_is_no_plain_target_is_refused() {
        let reason = |text: &str| WebhookTarget::parse(text).expect_err(text).reason;
        for bad in [
            "",
            "hooks.corp.example/x",
            "https://hooks.corp.example//x",
            "https://hooks.corp.example/a/../b",
            "https://hooks.corp.example/%2e%2e/b",
            "https://hooks.corp.example/a%2Fb",
            "https://hooks.corp.example/x#y",
            "https://hooks.corp.example/x?a#y",
            "https://hooks.corp.example/x?",
            "https://hooks.corp.example/x?a=%0d%0aX:1",
            "https://hooks.corp.example/x?a=\"b\"",
            "https://hooks.corp.example/x?a=%f",
            "https://hooks.corp.example/x?a=\u{fc}",
        ] {
            assert_eq!(reason(bad), FieldReason::UrlMalformed, "{bad}");
        }
        assert_eq!(reason("https://a:b@hooks.corp.example/"), FieldReason::UrlUserinfoForbidden);
        assert_eq!(reason("ftp://hooks.corp.example/"), FieldReason::UrlSchemeForbidden);
        assert_eq!(reason("https://0x7f.1/"), FieldReason::WebhookTargetNotAllowed);
        let token = "https://hooks.corp.example/?token=glpat-abcdefghij0123456789";
        assert_eq!(reason(token), FieldReason::TokenInText);
        let long = format!("https://hooks.corp.example/?{}", "a".repeat(2_048));
        assert_eq!(reason(&long), FieldReason::UrlTooLong);
    }

    #[test]
    fn w01_only_what_the_operator_lists_is_admitted() {
        let rules =
            policy(&["https://hooks.corp.example/git/", "https://any.example", "http://receiver:8080"]);
        for admitted in [
            "https://hooks.corp.example/git",
            "https://hooks.corp.example/git/",
            "https://hooks.corp.example/git/a?b=c",
            "https://hooks.corp.example:443/git?x",
            "https://any.example",
            "https://ANY.example/deep/path",
            "http://receiver:8080/in",
        ] {
            assert!(rules.check(&target(admitted)).is_ok(), "{admitted}");
        }
        for refused in [
            "https://hooks.corp.example/",
            "https://hooks.corp.example/github",
            "https://hooks.corp.example/Git",
            "https://hooks.corp.example/%67it",
            "https://hooks.corp.example:8443/git",
            "http://hooks.corp.example/git",
            "https://hooks.corp.example.evil.example/git",
            "https://any.example:444/",
            "http://any.example/",
            "http://receiver/in",
            "https://receiver:8080/in",
            "https://127.0.0.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://[::1]/",
            "https://10.0.0.1/",
        ] {
            let refusal = rules.check(&target(refused)).expect_err(refused);
            assert_eq!(refusal.reason, FieldReason::WebhookTargetNotAllowed, "{refused}");
            assert!(refusal.description.contains("--webhook-target-allow"));
            assert!(policy(&[]).check(&target(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_rule_is_an_origin_with_or_without_a_path() {
        for (text, shown) in [
            ("https://Hooks.example:443/", "https://hooks.example"),
            ("https://hooks.example:8443/a/b/", "https://hooks.example:8443/a/b"),
            ("http://receiver:8080", "http://receiver:8080"),
            ("http://receiver:80/", "http://receiver"),
            ("https://[::1]:9000", "https://[::1]:9000"),
        ] {
            let rule = TargetRule::parse(text).expect(text);
            assert_eq!(rule.to_string(), shown);
            assert_eq!(TargetRule::parse(shown), Some(rule));
        }
        for bad in [
            "",
            "hooks.example",
            "https://",
            "https://*.example",
            "https://a:b@hooks.example",
            "https://hooks.example?x",
            "http://receiver:8080/in",
            "https://hooks.example//a",
        ] {
            assert_eq!(TargetRule::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_canonical(text in "(?i:https?)://[ -~]{1,60}") {
            if let Ok(parsed) = WebhookTarget::parse(&text) {
                prop_assert_eq!(&WebhookTarget::parse(parsed.as_str()).expect("its canonical form"), &parsed);
                let url = url::Url::parse(parsed.as_str()).expect("a URL");
                prop_assert_eq!(url.as_str(), parsed.as_str(), "nothing changes when a provider parses it");
                prop_assert!(!url.path().contains("//"));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = WebhookTarget::parse(&text);
            let _ = WebhookTarget::parse(&format!("https://hooks.example/?{text}"));
            let _ = TargetRule::parse(&text);
        }
    }
}
