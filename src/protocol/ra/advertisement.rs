use crate::net::{DomainName, Ipv6Net, MacAddr};
use std::net::Ipv6Addr;

/// Seconds; [`u32::MAX`]: for ever.
pub type Lifetime = u32;

/// What a router says of itself and its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// The link-layer address of the interface.
    pub mac: MacAddr,
    /// Whether it forwards, so that hosts take it for a default router.
    pub default_router: bool,
    /// Hosts ask DHCPv6 for addresses (M), or for all else (O).
    pub managed: bool,
    pub other: bool,
    pub mtu: Option<u32>,
    pub prefixes: Vec<Prefix>,
    /// Routes through this router (RFC 4191).
    pub routes: Vec<Ipv6Net>,
    /// Name servers and search domains (RFC 8106).
    pub dns_servers: Vec<Ipv6Addr>,
    pub search: Vec<DomainName>,
}

/// A prefix of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub net: Ipv6Net,
    /// Whether hosts make addresses of it (RFC 4862).
    pub autonomous: bool,
    pub valid: Lifetime,
    pub preferred: Lifetime,
}

const ROUTER_ADVERTISEMENT: u8 = 134;
const HOP_LIMIT: u8 = 64;
/// AdvDefaultLifetime: three times the longest interval.
const ROUTER_LIFETIME: u16 = 1_800;
/// A host has to hear it twice before it forgets (RFC 8106 section 5.1).
const DNS_LIFETIME: Lifetime = 1_800;
/// The most that one packet carries on any link; what does not fit is left out.
const MAX_LENGTH: usize = 1_232;

/// Option types (RFC 4861 section 4.6, 4191, 8106).
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;
const ROUTE_INFORMATION: u8 = 24;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;

impl Router {
    /// The ICMPv6 message, its checksum zero. `ending`: the router's last, which takes back all that it said; prefixes
    /// stay on the link for as long as they were to, as addresses do that DHCPv6 gave.
    pub fn advertise(&self, ending: bool) -> Vec<u8> {
        let life = |seconds: Lifetime| if ending { 0 } else { seconds };
        let flags = u8::from(self.managed) << 7 | u8::from(self.other) << 6;
        let mut bytes = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, flags];
        let lifetime = if self.default_router && !ending { ROUTER_LIFETIME } else { 0 };
        bytes.extend(lifetime.to_be_bytes());
        // Reachable time and retransmission timer: unspecified.
        bytes.extend([0; 8]);
        option(&mut bytes, SOURCE_LINK_LAYER, &self.mac.octets());
        if let Some(mtu) = self.mtu {
            option(&mut bytes, MTU, &[&[0; 2][..], &mtu.to_be_bytes()].concat());
        }
        for prefix in &self.prefixes {
            let flags = 0x80 | u8::from(prefix.autonomous) << 6;
            let (valid, preferred) = (life(prefix.valid).to_be_bytes(), life(prefix.preferred).to_be_bytes());
            let head = [prefix.net.prefix_len(), flags];
            let parts = [&head[..], &valid, &preferred, &[0; 4], &prefix.net.network().octets()];
            option(&mut bytes, PREFIX_INFORMATION, &parts.concat());
        }
        for route in &self.routes {
            let head = [route.prefix_len(), 0];
            let lifetime = life(ROUTER_LIFETIME.into()).to_be_bytes();
            option(&mut bytes, ROUTE_INFORMATION, &[&head[..], &lifetime, &route.network().octets()].concat());
        }
        if !self.dns_servers.is_empty() {
            let servers: Vec<u8> = self.dns_servers.iter().flat_map(|server| server.octets()).collect();
            option(&mut bytes, RDNSS, &[&[0; 2][..], &life(DNS_LIFETIME).to_be_bytes(), &servers].concat());
        }
        if !self.search.is_empty() {
            let names: Vec<u8> = self.search.iter().flat_map(wire_name).collect();
            option(&mut bytes, DNSSL, &[&[0; 2][..], &life(DNS_LIFETIME).to_be_bytes(), &names].concat());
        }
        bytes
    }

    /// The same, with prefixes, routes and names that it no longer has taken back.
    pub(super) fn with_withdrawn(&self, old: &Self) -> Self {
        let mut both = self.clone();
        let gone = old.prefixes.iter().filter(|old| self.prefixes.iter().all(|new| new.net != old.net));
        both.prefixes.extend(gone.map(|prefix| Prefix { valid: 0, preferred: 0, ..*prefix }));
        both
    }
}

/// Type, length in units of 8 bytes, value, zeros.
fn option(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = (value.len() + 2).next_multiple_of(8);
    let Ok(units) = u8::try_from(length / 8) else { return };
    if bytes.len() + length > MAX_LENGTH {
        return;
    }
    let end = bytes.len() + length;
    bytes.extend([kind, units]);
    bytes.extend(value);
    bytes.resize(end, 0);
}

fn wire_name(name: &DomainName) -> Vec<u8> {
    let labels = name.as_str().split('.');
    // Labels have at most 63 bytes.
    let mut bytes: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}
