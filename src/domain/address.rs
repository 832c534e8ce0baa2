//! Which IP addresses are not the public Internet.
//!
//! The table is the service's own: the predicates of the standard library miss most of these ranges.
//! Its sources are the IANA registries of special-purpose addresses and the documentation of the clouds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of special range an address lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Not globally reachable, or of a meaning of its own.
    Special,
    /// Hands out the credentials of the machine; admitted only by a rule for this one address.
    Metadata,
}

/// One range of addresses that is not the public Internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The addresses.
    pub network: Network,
    /// What it is, for people; the end of a sentence such as "the address is loopback".
    pub name: &'static str,
    /// Where that is said.
    pub source: &'static str,
    /// What kind of range it is.
    pub class: Class,
}

/// A network in CIDR form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of the first `prefix` bits of `address`; `None` if `prefix` is longer than the address,
    /// or `address` has bits behind it.
    #[must_use]
    pub const fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let network = Self { address, prefix };
        if prefix > network.width() {
            return None;
        }
        let host_bits = network.width() - prefix;
        let rest = match address {
            IpAddr::V4(v4) => v4.to_bits() as u128,
            IpAddr::V6(v6) => v6.to_bits(),
        };
        if host_bits < 128 && rest & ((1 << host_bits) - 1) != 0 || host_bits == 128 && rest != 0 {
            return None;
        }
        Some(network)
    }

    /// The network that holds `address` alone.
    #[must_use]
    pub const fn single(address: IpAddr) -> Self {
        let network = Self { address, prefix: 0 };
        Self { address, prefix: network.width() }
    }

    /// Whether the network is one address.
    #[must_use]
    pub const fn is_single(&self) -> bool {
        self.prefix == self.width()
    }

    /// Whether `address` lies in it. An address of the other family never does, not even in its mapped form.
    #[must_use]
    pub const fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => (net.to_bits() ^ ip.to_bits()) as u128,
            (IpAddr::V6(net), IpAddr::V6(ip)) => net.to_bits() ^ ip.to_bits(),
            _ => return false,
        };
        let host_bits = self.width() - self.prefix;
        host_bits == 128 || differing >> host_bits == 0
    }

    const fn width(&self) -> u8 {
        match self.address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The special range that `address` lies in, the narrowest meaning first; `None` for the public Internet.
#[must_use]
pub fn classify(address: IpAddr) -> Option<&'static Range> {
    RANGES.iter().find(|range| range.network.contains(address))
}

/// The IPv4 address that a translator or tunnel would reach for `address`: a rule that admits such a range
/// says nothing of what lies behind it, so that address is looked at as well.
#[must_use]
pub fn embedded_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let segments = v6.segments();
    let pair = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match segments {
        // Unspecified and loopback lie among the IPv4-compatible ones and mean nothing of the kind.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible, IPv4-mapped, IPv4-translated (SIIT, RFC 2765), and NAT64 in its /96 form.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low] => Some(pair(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(pair(high, low)),
        // Teredo (RFC 4380) keeps the client's address with its bits turned over.
        [0x2001, 0, _, _, _, _, high, low] => Some(pair(!high, !low)),
        _ => None,
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Network {
    Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
}

const fn v6(segments: [u16; 8], prefix: u8) -> Network {
    let [a, b, c, d, e, f, g, h] = segments;
    Network { address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), prefix }
}

const fn special(network: Network, name: &'static str, source: &'static str) -> Range {
    Range { network, name, source, class: Class::Special }
}

const fn metadata(network: Network, source: &'static str) -> Range {
    Range { network, name: "a cloud metadata service", source, class: Class::Metadata }
}

/// Metadata services stand first, because most lie in a wider range. A range inside another one is listed
/// only where its name says more.
static RANGES: &[Range] = &[
    metadata(v4(169, 254, 169, 254, 32), "AWS, Azure, Google Cloud and others"),
    metadata(v4(169, 254, 170, 2, 32), "AWS ECS task credentials"),
    metadata(v4(169, 254, 170, 23, 32), "AWS EKS pod identity"),
    metadata(v4(169, 254, 42, 42, 32), "Scaleway"),
    metadata(v4(169, 254, 0, 23, 32), "Tencent Cloud"),
    metadata(v4(100, 100, 100, 200, 32), "Alibaba Cloud"),
    metadata(v4(192, 0, 0, 192, 32), "Oracle Cloud Infrastructure Classic"),
    metadata(v4(168, 63, 129, 16, 32), "Azure platform (WireServer)"),
    metadata(v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), "AWS"),
    metadata(v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128), "AWS EKS pod identity"),
    metadata(v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), "Google Cloud"),
    metadata(v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128), "Scaleway"),
    special(v4(0, 0, 0, 0, 8), "\"this network\"", "RFC 791"),
    special(v4(10, 0, 0, 0, 8), "private", "RFC 1918"),
    special(v4(100, 64, 0, 0, 10), "shared by carriers (CGNAT)", "RFC 6598"),
    special(v4(127, 0, 0, 0, 8), "loopback", "RFC 1122"),
    special(v4(169, 254, 0, 0, 16), "link-local", "RFC 3927"),
    special(v4(172, 16, 0, 0, 12), "private", "RFC 1918"),
    special(v4(192, 0, 0, 0, 24), "kept for protocols", "RFC 6890"),
    special(v4(192, 0, 2, 0, 24), "for documentation", "RFC 5737"),
    special(v4(192, 31, 196, 0, 24), "an AS112 sink", "RFC 7535"),
    special(v4(192, 52, 193, 0, 24), "for automatic multicast tunnels", "RFC 7450"),
    special(v4(192, 88, 99, 0, 24), "a 6to4 relay", "RFC 7526"),
    special(v4(192, 168, 0, 0, 16), "private", "RFC 1918"),
    special(v4(192, 175, 48, 0, 24), "an AS112 sink", "RFC 7534"),
    special(v4(198, 18, 0, 0, 15), "for benchmarks", "RFC 2544"),
    special(v4(198, 51, 100, 0, 24), "for documentation", "RFC 5737"),
    special(v4(203, 0, 113, 0, 24), "for documentation", "RFC 5737"),
    special(v4(224, 0, 0, 0, 4), "multicast", "RFC 5771"),
    special(v4(255, 255, 255, 255, 32), "broadcast", "RFC 919"),
    special(v4(240, 0, 0, 0, 4), "reserved", "RFC 1112"),
    special(v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified", "RFC 4291"),
    special(v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback", "RFC 4291"),
    special(v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), "an IPv4-mapped address", "RFC 4291"),
    special(v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), "an IPv4-translated address", "RFC 2765"),
    special(v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "an IPv4-compatible address", "RFC 4291"),
    special(v6([0, 0, 0, 0, 0, 0, 0, 0], 8), "reserved", "RFC 4291"),
    special(v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), "a NAT64 address", "RFC 6052"),
    special(v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "a local NAT64 address", "RFC 8215"),
    special(v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discard-only", "RFC 6666"),
    special(v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64), "a dummy prefix", "RFC 9780"),
    special(v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "a Teredo address", "RFC 4380"),
    special(v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "kept for protocols", "RFC 2928"),
    special(v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "for documentation", "RFC 3849"),
    special(v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "a 6to4 address", "RFC 3056"),
    special(v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), "an AS112 sink", "RFC 7534"),
    special(v6([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16), "the former 6bone", "RFC 3701"),
    special(v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "for documentation", "RFC 9637"),
    special(v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "for segment routing", "RFC 9602"),
    special(v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private (unique local)", "RFC 4193"),
    special(v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local", "RFC 4291"),
    special(v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local", "RFC 3879"),
    special(v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast", "RFC 4291"),
    // Only 2000::/3 is given out (RFC 4291, section 2.4 and the IANA registry): nothing else is the Internet.
    special(v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2), "not given out", "RFC 4291"),
    special(v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 1), "not given out", "RFC 4291"),
    special(v6([0x0100, 0, 0, 0, 0, 0, 0, 0], 8), "not given out", "RFC 4291"),
    special(v6([0x0200, 0, 0, 0, 0, 0, 0, 0], 7), "not given out", "RFC 4291"),
    special(v6([0x0400, 0, 0, 0, 0, 0, 0, 0], 6), "not given out", "RFC 4291"),
    special(v6([0x0800, 0, 0, 0, 0, 0, 0, 0], 5), "not given out", "RFC 4291"),
    special(v6([0x1000, 0, 0, 0, 0, 0, 0, 0], 4), "not given out", "RFC 4291"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn d16_every_special_range_is_known() {
        for text in [
            "100.64.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "192.0.2.1",
            "192.88.99.1",
            "192.0.0.8",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "0.1.2.3",
            "0.0.0.0",
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.51.100.7",
            "203.0.113.7",
            "169.254.1.1",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a9fe:a9fe",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "100::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
            "1::1",
        ] {
            assert_eq!(classify(ip(text)).map(|range| range.class), Some(Class::Special), "{text}");
        }
    }

    #[test]
    fn u40_metadata_services_are_a_class_of_their_own() {
        for text in ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"] {
            assert_eq!(classify(ip(text)).map(|range| range.class), Some(Class::Metadata), "{text}");
        }
    }

    #[test]
    fn the_public_internet_is_in_no_range() {
        for text in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "172.15.255.255", "100.128.0.1", "192.0.1.1"]
            .into_iter()
            .chain(["223.255.255.255", "168.63.129.17", "2606:4700::1111", "2a00:1450::1", "2001:4860::8888"])
        {
            assert_eq!(classify(ip(text)), None, "{text}");
        }
    }

    #[test]
    fn the_address_behind_a_translation_is_found() {
        for (text, inner) in [
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("::127.0.0.1", "127.0.0.1"),
            ("64:ff9b::a9fe:a9fe", "169.254.169.254"),
            ("64:ff9b:1::a9fe:a9fe", "169.254.169.254"),
            ("2002:a00:1::", "10.0.0.1"),
            ("2001:0:1:2:3:4:f5ff:fffe", "10.0.0.1"),
        ] {
            assert_eq!(embedded_ipv4(ip(text)).map(IpAddr::V4), Some(ip(inner)), "{text}");
        }
        assert_eq!(embedded_ipv4(ip("2606:4700::1111")), None);
        assert_eq!(embedded_ipv4(ip("::1")), None);
    }

    #[test]
    fn every_row_of_the_table_is_a_network() {
        for range in RANGES {
            let Network { address, prefix } = range.network;
            assert_eq!(Network::new(address, prefix), Some(range.network), "{}", range.network);
        }
    }

    #[test]
    fn a_network_with_host_bits_is_refused() {
        assert!(Network::new(ip("10.0.0.1"), 8).is_none());
        assert!(Network::new(ip("10.0.0.0"), 33).is_none());
        assert!(Network::new(ip("::1"), 0).is_none());
        assert!(Network::new(ip("::"), 0).is_some_and(|all| all.contains(ip("fd00::1"))));
        assert!(Network::new(ip("0.0.0.0"), 0).is_some_and(|all| !all.contains(ip("::1"))));
    }

    proptest! {
        #[test]
        fn the_standard_library_knows_nothing_that_the_table_misses(bits: u32, wide: u128) {
            let v4 = Ipv4Addr::from_bits(bits);
            if v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified()
            {
                prop_assert!(classify(IpAddr::V4(v4)).is_some());
            }
            let v6 = Ipv6Addr::from_bits(wide);
            // Only 2000::/3 is given out.
            prop_assert!(classify(IpAddr::V6(v6)).is_some() || wide >> 125 == 1);
            prop_assert!(classify(IpAddr::V6(v4.to_ipv6_mapped())).is_some());
        }
    }
}
