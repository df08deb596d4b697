//! Names that mean the same everywhere, or nothing anywhere, and so are never asked of an upstream resolver.
//!
//! What a site may well serve itself (`.local`, `.test`, `.home.arpa`, other networks' `.internal`, the reverse trees
//! of private addresses) is left to the site's resolver. RFC 6303 asks *iterative* resolvers to answer the latter
//! themselves, so that they do not reach the root; this is a forwarder to one of those, behind which a company's own
//! 10.0.0.0/8 should stay resolvable (dnsmasq and libvirt do the same unless `bogus-priv` is set).

use super::reverse::ReverseName;
use crate::net::{IpNet, Ipv4Net, Ipv6Net};
use hickory_proto::rr::Name;
use std::net::{Ipv4Addr, Ipv6Addr};

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

pub(super) fn classify(name: &Name) -> Option<Special> {
    let mut labels = name.iter().rev();
    let top = labels.next()?;
    if top.eq_ignore_ascii_case(b"localhost") {
        return Some(Special::Localhost);
    }
    // RFC 6761 section 6.4; RFC 7686 section 2.
    if top.eq_ignore_ascii_case(b"invalid") || top.eq_ignore_ascii_case(b"onion") {
        return Some(Special::Nothing);
    }
    if !top.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    if labels.next()?.eq_ignore_ascii_case(b"resolver") {
        return Some(Special::Empty);
    }
    let reverse = ReverseName::parse(name)?;
    NOWHERE.iter().any(|net| net.contains(&reverse.block)).then_some(Special::Nothing)
}

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

    #[test]
    fn knows_what_never_goes_upstream() {
        let of = |name: &str| classify(&Name::from_ascii(name).expect("name"));
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
}
