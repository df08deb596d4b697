use super::{NetworkId, ResourceName, SubnetId};
use crate::net::{AddressRange, BootRule, DhcpOption, IpNet};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
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
    /// Relay agents that are served, by their `giaddr`, which is in this subnet (RFC 2131 section 4.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_relays: Vec<Ipv4Addr>,
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
    pub const DEFAULT_LEASE_SECONDS: u32 = 3600;
    /// RFC 2131 section 3.3.
    pub const INFINITE_LEASE: u32 = u32::MAX;

    /// The addresses that guests can hold when nothing narrower is asked for: all but the network's own, the broadcast
    /// address and `taken`.
    pub fn default_pools(cidr: &IpNet, taken: &[IpAddr]) -> Vec<AddressRange> {
        let mut hosts = cidr.hosts();
        let (Some(first), Some(last)) = (hosts.next(), last_host(cidr)) else { return Vec::new() };
        let mut pools: Vec<AddressRange> = AddressRange::new(first, last).into_iter().collect();
        for address in taken {
            pools = pools.into_iter().flat_map(|pool| without(pool, *address)).collect();
        }
        pools
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
