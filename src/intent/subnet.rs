use super::{NetworkId, ResourceName, SubnetId};
use crate::net::{AddressRange, BootRule, DhcpOption, IpNet, Ipv6Net, MacAddr};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// A block of addresses on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    pub id: SubnetId,
    pub network: NetworkId,
    /// Unique.
    pub name: ResourceName,
    pub cidr: IpNet,
    /// The router that guests are told of. With `forward` nat or routed this is the host itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The address that the host itself holds, to route, to serve DHCP and DNS from; `None`: it holds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_address: Option<IpAddr>,
    /// Where addresses are allotted from.
    pub pools: Vec<AddressRange>,
    pub dhcp: bool,
    /// Name servers that guests are told of. Empty: the host's address, where DNS is served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_routes: Vec<HostRoute>,
    pub forward: Forward,
    /// How long a DHCP lease lasts, seconds; [`Subnet::INFINITE_LEASE`]: for ever.
    pub lease_seconds: u32,
    /// DHCP options that guests are told besides; a port's win over its subnet's, those over its network's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_options: Vec<DhcpOption>,
    /// What guests that boot from the network are told, by the same ranks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_boot: Vec<BootRule>,
    /// Relay agents that are served, by their `giaddr` (RFC 2131 section 4.1) or link-address (RFC 8415 section 9.1),
    /// which is in this subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_relays: Vec<IpAddr>,
    /// IPv6: how guests come by their addresses. `None`: the host advertises nothing there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_mode: Option<Ipv6Mode>,
    /// IPv6: what prefixes are delegated from to guests that are routers themselves (IA_PD, RFC 8415 section 6.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<Delegation>,
    /// IPv6: time servers that guests are told of (RFC 5908).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp_servers: Vec<Ipv6Addr>,
}

/// How guests of an IPv6 subnet come by their addresses; the host advertises itself in all of them (RFC 4861).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6Mode {
    /// They make them of the advertised prefix and their MAC address (RFC 4862).
    Slaac,
    /// DHCPv6 gives them (RFC 8415).
    Stateful,
    /// As `Slaac`; DHCPv6 tells the rest, name servers say.
    Stateless,
}

/// A block that prefixes of one length are delegated from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    pub block: Ipv6Net,
    pub length: u8,
}

/// A route that guests are told of (RFC 3442).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRoute {
    pub destination: IpNet,
    pub next_hop: IpAddr,
}

/// What the host does with packets between a subnet and the rest of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Nothing passes.
    None,
    /// Passes both ways unchanged.
    Routed,
    /// Passes outward with the host's address; inward only answers.
    Nat,
}

impl Subnet {
    /// Whether it is on another link, behind relay agents: the host has no address in it, and no port is there.
    pub fn is_behind_relays(&self) -> bool {
        self.host_address.is_none() && !self.dhcp_relays.is_empty()
    }

    pub const DEFAULT_LEASE_SECONDS: u32 = 3600;
    /// RFC 2131 section 3.3.
    pub const INFINITE_LEASE: u32 = u32::MAX;

    /// Whether guests make their addresses themselves.
    pub fn autoconfigured(&self) -> bool {
        matches!(self.ipv6_mode, Some(Ipv6Mode::Slaac | Ipv6Mode::Stateless))
    }

    /// The address that a guest makes itself (RFC 4862 with the identifier of RFC 4291 appendix A), where it does.
    pub fn autoconfigured_address(&self, mac: MacAddr) -> Option<IpAddr> {
        let IpNet::V6(prefix) = self.cidr else { return None };
        self.autoconfigured().then(|| mac.eui64(prefix)).flatten().map(IpAddr::V6)
    }

    /// The addresses that guests can hold when nothing narrower is asked for: all but the network's own, the broadcast
    /// address and `taken`. Of a large IPv6 block those that are short to write, `::1000` to `::ffff`.
    pub fn default_pools(cidr: &IpNet, taken: &[IpAddr]) -> Vec<AddressRange> {
        let (Some(mut first), Some(mut last)) = (first_host(cidr), last_host(cidr)) else { return Vec::new() };
        if let IpNet::V6(net) = cidr
            && net.prefix_len() <= 112
        {
            let base = net.network().to_bits();
            (first, last) = (Ipv6Addr::from(base | 0x1000).into(), Ipv6Addr::from(base | 0xffff).into());
        }
        let mut pools: Vec<AddressRange> = AddressRange::new(first, last).into_iter().collect();
        for address in taken {
            pools = pools.into_iter().flat_map(|pool| without(pool, *address)).collect();
        }
        pools
    }
}

/// The lowest address of a block that a host can hold. IPv6's lowest of all is every router's (RFC 4291 section 2.6.1).
pub fn first_host(cidr: &IpNet) -> Option<IpAddr> {
    match cidr {
        IpNet::V4(_) => cidr.hosts().next(),
        IpNet::V6(net) if net.prefix_len() >= 127 => Some(net.network().into()),
        IpNet::V6(net) => Some(Ipv6Addr::from(net.network().to_bits() | 1).into()),
    }
}

/// The highest address of a block that a host can hold.
pub fn last_host(cidr: &IpNet) -> Option<IpAddr> {
    match cidr {
        IpNet::V4(net) if net.prefix_len() >= 31 => Some(net.broadcast().into()),
        IpNet::V4(net) => Some(IpAddr::V4((net.broadcast().to_bits() - 1).into())),
        IpNet::V6(net) => Some(net.broadcast().into()),
    }
}

fn without(pool: AddressRange, address: IpAddr) -> Vec<AddressRange> {
    if !pool.contains(address) {
        return vec![pool];
    }
    let step = |up: bool| -> Option<IpAddr> {
        Some(match address {
            IpAddr::V4(a) => {
                IpAddr::V4((if up { a.to_bits().checked_add(1) } else { a.to_bits().checked_sub(1) })?.into())
            }
            IpAddr::V6(a) => {
                IpAddr::V6((if up { a.to_bits().checked_add(1) } else { a.to_bits().checked_sub(1) })?.into())
            }
        })
    };
    let below = step(false).and_then(|end| AddressRange::new(pool.first(), end).ok());
    let above = step(true).and_then(|start| AddressRange::new(start, pool.last()).ok());
    below.into_iter().chain(above).collect()
}

impl fmt::Display for Ipv6Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Ipv6Mode::Slaac => "slaac",
            Ipv6Mode::Stateful => "stateful",
            Ipv6Mode::Stateless => "stateless",
        })
    }
}

impl FromStr for Ipv6Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "slaac" => Ok(Ipv6Mode::Slaac),
            "stateful" => Ok(Ipv6Mode::Stateful),
            "stateless" => Ok(Ipv6Mode::Stateless),
            other => Err(format!("'{other}' is not an IPv6 mode; use slaac, stateful or stateless")),
        }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Forward::None => "none",
            Forward::Routed => "routed",
            Forward::Nat => "nat",
        })
    }
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Forward::None),
            "routed" => Ok(Forward::Routed),
            "nat" => Ok(Forward::Nat),
            other => Err(format!("'{other}' is not a way to forward; use none, routed or nat")),
        }
    }
}
