//! Names to addresses, each of which was checked: what comes out of here is what is dialled.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::timeout;

use super::egress::Policy;
use super::{OutboundError, Phase, TransportError};
use crate::domain::base_url::Origin;

/// How long a lookup may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// How long one DNS server may take; two are asked at a time.
const ONE_SERVER: Duration = Duration::from_secs(2);
/// Most links of a chain of names.
const MAX_CNAMES: usize = 8;
/// Most addresses of one name.
const MAX_ADDRESSES: usize = 64;

/// Why a name gave no address.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("the outbound policy refused the target: {rule}")]
    Denied { rule: String },
    #[error("the name does not resolve")]
    Failed,
}

impl From<ResolveError> for TransportError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Denied { rule } => Self::Denied { rule },
            ResolveError::Failed => Self::unreachable(Phase::Dns),
        }
    }
}

/// The resolver of one process. It keeps no answers: each dial asks once and checks what it hears.
#[derive(Debug)]
pub(super) struct Resolver {
    policy: Arc<Policy>,
    dns: TokioResolver,
}

impl Resolver {
    pub(super) fn new(policy: Arc<Policy>, server: Option<SocketAddr>) -> Result<Self, OutboundError> {
        let servers = match server {
            Some(server) => vec![name_server(server)],
            None => read_system_conf().map_err(|error| OutboundError::Dns(error.into()))?.0.name_servers,
        };
        let mut options = ResolverOpts::default();
        options.timeout = ONE_SERVER;
        options.attempts = 1;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        options.preserve_intermediates = true;
        options.case_randomization = false;
        // No domain and no search list: a name is the whole name.
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let dns = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| OutboundError::Dns(error.into()))?;
        Ok(Self { policy, dns })
    }

    /// The addresses of the host of `origin`, all of which may be dialled: one that may not refuses them all.
    pub(super) async fn addresses(&self, origin: &Origin) -> Result<Vec<SocketAddr>, ResolveError> {
        let denied = |rule| ResolveError::Denied { rule };
        let host = origin.host();
        let found = if let Ok(literal) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            vec![literal]
        } else {
            self.policy.check_name(host, origin).map_err(denied)?;
            let lookup = async {
                if self.policy.is_listed(origin) {
                    self.by_system(origin).await
                } else {
                    self.by_dns(origin).await
                }
            };
            timeout(LOOKUP, lookup).await.map_err(|_| ResolveError::Failed)??
        };
        if found.is_empty() || found.len() > MAX_ADDRESSES {
            return Err(ResolveError::Failed);
        }
        for address in &found {
            self.policy.check(*address, origin).map_err(denied)?;
        }
        Ok(found.into_iter().map(|address| SocketAddr::new(address, origin.port())).collect())
    }

    async fn by_dns(&self, origin: &Origin) -> Result<Vec<IpAddr>, ResolveError> {
        // The final dot makes it absolute.
        let lookup =
            self.dns.lookup_ip(format!("{}.", origin.host())).await.map_err(|_| ResolveError::Failed)?;
        self.check_chain(lookup.as_lookup(), origin)?;
        Ok(unique(lookup.iter()))
    }

    /// What the system would say: hosts file, short names, search list. Only for a host that the operator listed.
    async fn by_system(&self, origin: &Origin) -> Result<Vec<IpAddr>, ResolveError> {
        let found = tokio::net::lookup_host((origin.host(), origin.port()))
            .await
            .map_err(|_| ResolveError::Failed)?;
        Ok(unique(found.map(|address| address.ip())))
    }

    fn check_chain(&self, lookup: &Lookup, origin: &Origin) -> Result<(), ResolveError> {
        let mut links = HashSet::new();
        for record in lookup.answers() {
            let RData::CNAME(target) = &record.data else { continue };
            self.policy
                .check_name(&target.to_ascii(), origin)
                .map_err(|rule| ResolveError::Denied { rule })?;
            links.insert(&record.name);
        }
        if links.len() > MAX_CNAMES { Err(ResolveError::Failed) } else { Ok(()) }
    }
}

/// The same addresses without repetition, in their order; one more than allowed is enough to refuse.
fn unique(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    addresses.filter(|address| seen.insert(*address)).take(MAX_ADDRESSES + 1).collect()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .into_iter()
        .map(|mut connection| {
            connection.port = address.port();
            connection
        })
        .collect();
    NameServerConfig::new(address.ip(), true, connections)
}
