//! Names that mean the same everywhere, or nothing anywhere, and so are never asked of an upstream resolver.
//!
//! What a site may well serve itself (`.local`, `.test`, `.home.arpa`, other networks' `.internal`, the reverse trees
//! of private addresses) is left to the site's resolver. RFC 6303 asks *iterative* resolvers to answer the latter
//! themselves, so that they do not reach the root; this is a forwarder to one of those, behind which a company's own
//! 10.0.0.0/8 should stay resolvable (dnsmasq and libvirt do the same unless `bogus-priv` is set). Where the resolvers
//! are the Internet's, [`is_private_reverse`] names what should stay here.

use super::{name::WireName, reverse::ReverseName};
use crate::net::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    /// `localhost` and what is below it: the loopback addresses (RFC 6761 section 6.3).
    Localhost,
    /// Does not exist, by decree.
    Nothing,
    /// Exists and is empty: `resolver.arpa`, through which a guest would be led past this server (RFC 9462
    /// section 6.1).
    Empty,
}

pub(super) fn classify(name: &WireName) -> Option<Special> {
    let top = |top: &[u8]| name.below(top).is_some();
    if top(b"\x09localhost\0") {
        return Some(Special::Localhost);
    }
    // RFC 6761 section 6.4; RFC 7686 section 2.
    if top(b"\x07invalid\0") || top(b"\x05onion\0") {
        return Some(Special::Nothing);
    }
    if top(b"\x08resolver\x04arpa\0") {
        return Some(Special::Empty);
    }
    let reverse = ReverseName::parse(name)?;
    NOWHERE.iter().any(|net| net.contains(&reverse.block)).then_some(Special::Nothing)
}

/// Whether a name is one of the reverse names of private addresses (RFC 6303 sections 4.1 and 4.4).
pub(super) fn is_private_reverse(name: &WireName) -> bool {
    ReverseName::parse(name).is_some_and(|reverse| PRIVATE.iter().any(|net| net.contains(&reverse.block)))
}

/// Whether an address means something within a site, a link or a host only, so that a name from outside must not lead
/// there (DNS rebinding): private (RFC 1918, RFC 4193), shared (RFC 6598), link-local, loopback, "this host", and
/// those of them that are dressed up as IPv6 addresses.
pub(super) fn is_private_address(address: IpAddr) -> bool {
    let v4 = match address {
        IpAddr::V4(v4) => Some(v4),
        // Mapped and IPv4-compatible addresses, and NAT64's well-known prefix (RFC 6052).
        IpAddr::V6(v6) => match v6.octets() {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 | 0xff, 0 | 0xff, a, b, c, d]
            | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
            _ => None,
        },
    };
    let within = |address: IpAddr| PRIVATE.iter().chain(&UNROUTED).any(|net| net.contains(&address));
    within(address) || v4.is_some_and(|v4| within(v4.into()))
}

const PRIVATE: [IpNet; 4] = [
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
];

const UNROUTED: [IpNet; 8] = [
    v4([0, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v6(Ipv6Addr::UNSPECIFIED, 128),
    v6(Ipv6Addr::LOCALHOST, 128),
    v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    v6(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// RFC 6303 section 4, without the private blocks: addresses that mean nothing beyond one host or one link, or that
/// stand in documentation only.
const NOWHERE: [IpNet; 11] = [
    v4([0, 0, 0, 0], 8),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([192, 0, 2, 0], 24),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([255, 255, 255, 255], 32),
    v6(Ipv6Addr::UNSPECIFIED, 128),
    v6(Ipv6Addr::LOCALHOST, 128),
    v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
];

const fn v4([a, b, c, d]: [u8; 4], len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len))
}

const fn v6(address: Ipv6Addr, len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WireName {
        WireName::from_text(text).expect("name")
    }

    #[test]
    fn knows_what_never_goes_upstream() {
        let of = |text: &str| classify(&name(text));
        for name in ["localhost.", "LocalHost.", "a.localhost."] {
            assert_eq!(of(name), Some(Special::Localhost), "{name}");
        }
        for name in [
            "invalid.",
            "x.invalid.",
            "abc.onion.",
            "1.0.0.127.in-addr.arpa.",
            "127.in-addr.arpa.",
            "1.1.254.169.in-addr.arpa.",
            "8.e.f.ip6.arpa.",
            "b.e.f.ip6.arpa.",
        ] {
            assert_eq!(of(name), Some(Special::Nothing), "{name}");
        }
        assert_eq!(of("_dns.resolver.arpa."), Some(Special::Empty));
        for name in ["example.com.", ".", "com.", "arpa.", "1.0.0.10.in-addr.arpa.", "c.e.f.ip6.arpa.", "a.local."] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn knows_what_is_private() {
        for private in ["1.0.0.10.in-addr.arpa", "31.172.in-addr.arpa", "168.192.in-addr.arpa", "d.f.ip6.arpa"] {
            assert!(is_private_reverse(&name(private)), "{private}");
        }
        for public in ["192.in-addr.arpa", "32.172.in-addr.arpa", "8.8.8.8.in-addr.arpa", "f.ip6.arpa", "example.com"] {
            assert!(!is_private_reverse(&name(public)), "{public}");
        }
        let private = |text: &str| is_private_address(text.parse().expect("address"));
        for address in ["10.1.1.1", "127.0.0.1", "0.0.0.0", "169.254.1.1", "100.64.0.1", "::1", "::", "fd00::1"] {
            assert!(private(address), "{address}");
        }
        for address in ["::ffff:10.0.0.1", "::192.168.0.1", "64:ff9b::a00:1", "fe80::1"] {
            assert!(private(address), "{address}");
        }
        for address in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
            assert!(!private(address), "{address}");
        }
    }
}
