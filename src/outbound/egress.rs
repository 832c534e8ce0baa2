//! Where calls may go: https to the public Internet, and what the operator lists.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower::{Service, ServiceExt};
use tracing::debug;
use url::{Host, Url};

use super::{Body, Sending, TransportError};
use crate::domain::address::{self, Class, Network};
use crate::domain::base_url::{BaseUrl, Origin};
use crate::domain::violation::{FieldReason, Refusal};

/// Names that mean this machine, its cluster or its cloud. None is asked of a DNS server.
const LOCAL_NAMES: [&str; 5] = ["localhost", "instance-data", "metadata", "kubernetes", "kubernetes.default"];
/// Endings of such names.
const LOCAL_SUFFIXES: [&str; 4] = [".localhost", ".internal", ".svc", ".cluster.local"];

/// One thing that the operator admits beyond https to the public Internet.
///
/// - `git.corp.example`: this host. Its name is resolved as the system does (hosts file and short names included),
///   and may lead to private or loopback addresses.
/// - `git.corp.example:8443`: the same at this port alone; a port below 1024 is admitted too.
/// - `10.1.0.0/16`, `fd12::/16`, `10.1.2.3`: addresses, as what a public DNS name leads to and as literals.
/// - `http://git.corp.example:8080`: plain text to exactly this origin; otherwise like `host:port`.
///
/// No rule admits a listener of this service. A cloud metadata service is admitted only by a rule that names
/// its one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowRule(Rule);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Network(Network),
    Host { host: String, port: Option<u16> },
    Plaintext(Origin),
}

/// Why a text is no [`AllowRule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a host, host:port, CIDR or http://host:port: {problem}")]
pub struct AllowRuleError {
    text: String,
    problem: &'static str,
}

impl AllowRule {
    /// Parses a rule as it stands in the configuration.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, for people.
    pub fn parse(text: &str) -> Result<Self, AllowRuleError> {
        let refuse = |problem| AllowRuleError { text: text.chars().take(100).collect(), problem };
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self(Rule::Network(Network::single(address))));
        }
        if text.starts_with("https://") {
            return Err(refuse("https needs no scheme here; list the host, or host:port"));
        }
        if text.starts_with("http://") {
            let url =
                BaseUrl::parse(text).map_err(|_| refuse("the origin is not of the form http://host:port"))?;
            if url.url().path() != "/" || text.ends_with('/') {
                return Err(refuse("an origin has no path, and no slash at its end"));
            }
            return Ok(Self(Rule::Plaintext(url.origin())));
        }
        if let Some((address, prefix)) = text.split_once('/') {
            let address =
                address.parse().map_err(|_| refuse("what stands before the slash is no IP address"))?;
            let prefix =
                prefix.parse().map_err(|_| refuse("what stands behind the slash is no prefix length"))?;
            let network = Network::new(address, prefix)
                .ok_or_else(|| refuse("the address has bits behind its prefix, or the prefix is too long"))?;
            return Ok(Self(Rule::Network(network)));
        }
        // The rest is read as the host and port of an https URL, so that one check decides what a host is.
        let url = BaseUrl::parse(&format!("https://{text}")).map_err(|_| {
            refuse("a host has labels of letters, digits and hyphens, and a port is a number")
        })?;
        let origin = url.origin();
        let port = text.ends_with(&format!(":{}", origin.port())).then(|| origin.port());
        Ok(Self(Rule::Host { host: origin.host().to_owned(), port }))
    }

    /// Whether the rule names this host and port, whatever addresses that leads to.
    fn names(&self, origin: &Origin) -> bool {
        match &self.0 {
            Rule::Network(_) => false,
            Rule::Host { host, port } => {
                host == origin.host() && port.is_none_or(|port| port == origin.port())
            }
            Rule::Plaintext(listed) => listed.host() == origin.host() && listed.port() == origin.port(),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        matches!(&self.0, Rule::Network(network) if network.contains(address))
    }

    /// Whether the rule is about this one address.
    fn is_exactly(&self, address: IpAddr, origin: &Origin) -> bool {
        match &self.0 {
            Rule::Network(network) => network.is_single() && network.contains(address),
            Rule::Host { .. } | Rule::Plaintext(_) => {
                self.names(origin) && origin.host().trim_matches(['[', ']']).parse() == Ok(address)
            }
        }
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Network(network) => network.fmt(f),
            Rule::Host { host, port: None } => f.write_str(host),
            Rule::Host { host, port: Some(port) } => write!(f, "{host}:{port}"),
            Rule::Plaintext(origin) => write!(f, "http://{}:{}", origin.host(), origin.port()),
        }
    }
}

impl std::str::FromStr for AllowRule {
    type Err = AllowRuleError;

    fn from_str(text: &str) -> Result<Self, AllowRuleError> {
        Self::parse(text)
    }
}

/// The policy of one process.
#[derive(Debug)]
pub(super) struct Policy {
    allow: Vec<AllowRule>,
    own: RwLock<Vec<SocketAddr>>,
}

impl Policy {
    pub(super) const fn new(allow: Vec<AllowRule>, own: Vec<SocketAddr>) -> Self {
        Self { allow, own: RwLock::new(own) }
    }

    pub(super) fn deny_own(&self, listeners: &[SocketAddr]) {
        self.own.write().unwrap_or_else(PoisonError::into_inner).extend(listeners);
    }

    /// See [`super::Outbound::admit`].
    pub(super) fn admit(&self, url: &Url) -> Result<(), Refusal> {
        let origin = Origin::of(url);
        let denied = |rule: String| Refusal::new(FieldReason::EndpointNotAllowed, rule);
        let is_plaintext =
            self.allow.iter().any(|rule| matches!(&rule.0, Rule::Plaintext(o) if *o == origin));
        if origin.scheme() != "https" && !is_plaintext {
            return Err(Refusal::new(
                FieldReason::UrlSchemeForbidden,
                "only https:// is accepted, and http:// towards an origin that the operator listed \
                 (--egress-allow http://host:port)",
            ));
        }
        let port_is_listed = is_plaintext
            || self.allow.iter().any(|rule| {
                matches!(&rule.0, Rule::Host { host, port: Some(port) }
                    if host == origin.host() && *port == origin.port())
            });
        if origin.port() < 1_024 && origin.port() != 443 && !port_is_listed {
            return Err(Refusal::new(
                FieldReason::UrlPortForbidden,
                "below 1024 only port 443 is accepted; the operator can list host:port (--egress-allow)",
            ));
        }
        match url.host() {
            Some(Host::Ipv4(v4)) => self.check(IpAddr::V4(v4), &origin).map_err(denied),
            Some(Host::Ipv6(v6)) => self.check(IpAddr::V6(v6), &origin).map_err(denied),
            Some(Host::Domain(name)) => self.check_name(name, &origin).map_err(denied),
            None => Err(Refusal::new(FieldReason::UrlMalformed, "the URL has no host")),
        }
    }

    /// Whether the operator listed this host by its name, so that the system resolves it.
    pub(super) fn is_listed(&self, origin: &Origin) -> bool {
        self.allow.iter().any(|rule| rule.names(origin))
    }

    /// Refuses a name that means this machine, its cluster or its cloud.
    pub(super) fn check_name(&self, name: &str, origin: &Origin) -> Result<(), String> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_local = LOCAL_NAMES.contains(&name.as_str())
            || LOCAL_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
        if is_local && !self.is_listed(origin) {
            return Err(format!(
                "names such as {} or below {} belong to this machine, its cluster or its cloud; \
                 the operator can list the host (--egress-allow)",
                LOCAL_NAMES[0],
                LOCAL_SUFFIXES.join(", ")
            ));
        }
        Ok(())
    }

    /// Refuses an address of the service itself, and a special one that no rule admits. The text of the
    /// refusal names the rule, not the address.
    pub(super) fn check(&self, address: IpAddr, origin: &Origin) -> Result<(), String> {
        if self.is_own(SocketAddr::new(address.to_canonical(), origin.port())) {
            return Err("the address is one on which this service listens".to_owned());
        }
        let behind = address::embedded_ipv4(address).map(IpAddr::V4);
        for address in std::iter::once(address).chain(behind) {
            let Some(range) = address::classify(address) else { continue };
            let by = self.allow.iter().find(|rule| match range.class {
                Class::Special => rule.names(origin) || rule.contains(address),
                Class::Metadata => rule.is_exactly(address, origin),
            });
            let Some(by) = by else {
                return Err(format!(
                    "the address is {} ({}); the operator can list the host or its network (--egress-allow)",
                    range.name, range.source
                ));
            };
            debug!(host = origin.host(), rule = %by, "a special address is admitted by a rule");
        }
        Ok(())
    }

    fn is_own(&self, target: SocketAddr) -> bool {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        own.iter().any(|listener| {
            listener.port() == target.port()
                && (listener.ip().to_canonical() == target.ip()
                    || listener.ip().is_unspecified() && is_local(target.ip()))
        })
    }
}

/// Whether `address` is one of this machine: only such an address can be bound.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

/// Lets a request pass that goes to the origin of its connection, as far as the policy admits that.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    policy: Arc<Policy>,
    origin: Origin,
}

impl Layer {
    pub(super) const fn new(policy: Arc<Policy>, origin: Origin) -> Self {
        Self { policy, origin }
    }

    fn check(&self, request: &Request<Bytes>) -> Result<(), TransportError> {
        let url = Url::parse(&request.uri().to_string())
            .map_err(|_| TransportError::garbled("the request has no absolute URL"))?;
        if Origin::of(&url) != self.origin || !url.username().is_empty() || url.password().is_some() {
            return Err(TransportError::garbled("a link to another origin is not followed"));
        }
        self.policy.admit(&url).map_err(|refusal| TransportError::Denied { rule: refusal.description })
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Egress<S>;

    fn layer(&self, inner: S) -> Egress<S> {
        Egress { inner, gate: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Egress<S> {
    inner: S,
    gate: Layer,
}

impl<S> Service<Request<Bytes>> for Egress<S>
where
    S: Service<Request<Bytes>, Response = Response<Body>, Error = TransportError>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = Sending;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Sending {
        if let Err(error) = self.gate.check(&request) {
            return Box::pin(async move { Err(error) });
        }
        Box::pin(self.inner.clone().oneshot(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[&str]) -> Policy {
        let allow = rules.iter().map(|text| AllowRule::parse(text).expect("a rule")).collect();
        Policy::new(allow, Vec::new())
    }

    fn reason(policy: &Policy, url: &str) -> Option<FieldReason> {
        policy.admit(&Url::parse(url).expect("a URL")).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn a_rule_is_printed_as_it_was_written() {
        for text in [
            "git.corp.test",
            "git.corp.test:8443",
            "git.corp.test:443",
            "10.0.0.0/8",
            "fd12::/16",
            "10.1.2.3:8443",
            "[fd12::1]:8443",
            "http://git.corp.test:8080",
            "http://127.0.0.1:9001",
            "localhost",
        ] {
            assert_eq!(AllowRule::parse(text).map(|rule| rule.to_string()), Ok(text.to_owned()));
        }
        for (text, printed) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("[fd12::1]", "fd12::1/128"),
            ("http://git.test", "http://git.test:80"),
        ] {
            assert_eq!(AllowRule::parse(text).map(|rule| rule.to_string()), Ok(printed.to_owned()));
        }
    }

    #[test]
    fn what_is_no_rule_is_told() {
        for text in [
            "",
            " git.test",
            "git test",
            "https://git.test",
            "ftp://git.test",
            "http://git.test/",
            "http://git.test/path",
            "http://user@git.test",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/x",
            "git.test/24",
            "git.test:99999",
            "*.git.test",
            "user@git.test",
        ] {
            let error = AllowRule::parse(text).expect_err(text);
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn without_rules_only_https_to_the_public_internet_passes() {
        let policy = policy(&[]);
        assert_eq!(reason(&policy, "https://git.test/"), None);
        assert_eq!(reason(&policy, "https://git.test:8443/"), None);
        assert_eq!(reason(&policy, "https://1.1.1.1/"), None);
        assert_eq!(reason(&policy, "http://git.test/"), Some(FieldReason::UrlSchemeForbidden));
        assert_eq!(reason(&policy, "https://git.test:22/"), Some(FieldReason::UrlPortForbidden));
        assert_eq!(reason(&policy, "https://10.0.0.1/"), Some(FieldReason::EndpointNotAllowed));
        assert_eq!(reason(&policy, "https://git.internal/"), Some(FieldReason::EndpointNotAllowed));
    }

    #[test]
    fn u01_plain_text_is_admitted_to_exactly_one_origin() {
        let policy = policy(&["http://127.0.0.1:9001"]);
        assert_eq!(reason(&policy, "http://127.0.0.1:9001/gitlab"), None);
        for url in [
            "http://127.0.0.1:9002/",
            "http://127.0.0.2:9001/",
            "http://localhost:9001/",
            "http://127.0.0.1/",
        ] {
            assert_eq!(reason(&policy, url), Some(FieldReason::UrlSchemeForbidden), "{url}");
        }
        assert_eq!(reason(&policy, "https://127.0.0.1:9002/"), Some(FieldReason::EndpointNotAllowed));
    }

    #[test]
    fn u22_a_listed_port_is_admitted_for_its_host_alone() {
        let policy = policy(&["git.test:22", "other.test"]);
        assert_eq!(reason(&policy, "https://git.test:22/"), None);
        assert_eq!(reason(&policy, "https://git.test:23/"), Some(FieldReason::UrlPortForbidden));
        assert_eq!(reason(&policy, "https://other.test:22/"), Some(FieldReason::UrlPortForbidden));
        assert_eq!(reason(&policy, "https://git.test:0/"), Some(FieldReason::UrlPortForbidden));
    }

    #[test]
    fn a_listed_host_may_be_local_and_no_other() {
        let policy = policy(&["git.internal", "10.1.0.0/16"]);
        assert_eq!(reason(&policy, "https://git.internal/"), None);
        assert_eq!(reason(&policy, "https://git2.internal/"), Some(FieldReason::EndpointNotAllowed));
        assert_eq!(reason(&policy, "https://10.1.2.3/"), None);
        assert_eq!(reason(&policy, "https://10.2.0.1/"), Some(FieldReason::EndpointNotAllowed));
        let listed = Origin::of(&Url::parse("https://git.internal/").expect("a URL"));
        assert!(policy.check("127.0.0.1".parse().expect("an address"), &listed).is_ok());
        assert!(policy.check("169.254.169.254".parse().expect("an address"), &listed).is_err());
    }

    #[test]
    fn d10_no_rule_admits_the_service_itself() {
        let policy = policy(&["127.0.0.0/8", "::1", "localhost"]);
        policy.deny_own(&["127.0.0.1:50051".parse().expect("an address")]);
        assert_eq!(reason(&policy, "https://127.0.0.1:50051/"), Some(FieldReason::EndpointNotAllowed));
        assert_eq!(reason(&policy, "https://127.0.0.1:50052/"), None);
        policy.deny_own(&["[::]:50052".parse().expect("an address")]);
        assert_eq!(reason(&policy, "https://127.0.0.1:50052/"), Some(FieldReason::EndpointNotAllowed));
        assert_eq!(reason(&policy, "https://[::1]:50052/"), Some(FieldReason::EndpointNotAllowed));
        let own = Origin::of(&Url::parse("https://localhost:50052/").expect("a URL"));
        assert!(policy.check("127.0.0.1".parse().expect("an address"), &own).is_err());
    }
}
