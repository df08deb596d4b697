use super::output::ClientKey;
use crate::{
    net::{AddressRange, DnsLabel, DomainName, IfName, Ipv6Net, MacAddr},
    protocol::lease::Space,
};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};
use uuid::Uuid;

/// What DHCPv6 serves for one network on one interface of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub network: Uuid,
    pub interface: IfName,
    /// The server's DUID (RFC 8415 section 11), which never changes.
    pub server_id: Vec<u8>,
    pub subnets: Vec<Subnet>,
    pub hosts: Vec<Host>,
    /// The relay agents to serve, by link-address. A relay speaks for any client, so no guest may play one unasked.
    pub relays: Vec<Ipv6Addr>,
    /// Whether this is the only server: it answers at once what it may (RFC 8415 section 18.3.1).
    pub rapid_commit: bool,
    /// Dynamic addresses and prefixes that one port may hold or be offered at a time. 0: no limit.
    pub leases_per_port: u32,
    /// Packets of one port that are looked at, per second; bursts of as many. 0: no limit.
    pub packets_per_port: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    pub id: Uuid,
    pub prefix: Ipv6Net,
    /// Whether clients of this link are served from it; else only those of its relay agents.
    pub on_link: bool,
    /// Whether addresses are given; else configuration alone, and prefixes.
    pub stateful: bool,
    /// For unknown clients, where `dynamic`. Reserved addresses and those of `routers` are left out.
    pub pools: Vec<AddressRange>,
    /// Addresses that no guest can have.
    pub routers: Vec<Ipv6Addr>,
    /// The valid lifetime. [`INFINITE`](super::INFINITE) seconds and more: for ever.
    pub lease_time: Duration,
    /// Whether clients without a reservation are given addresses and prefixes.
    pub dynamic: bool,
    /// The block that prefixes are delegated from, and the length of one.
    pub delegation: Option<(Ipv6Net, u8)>,
    pub dns_servers: Vec<Ipv6Addr>,
    pub domain: Option<DomainName>,
    pub ntp_servers: Vec<Ipv6Addr>,
}

/// A port's reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub mac: MacAddr,
    pub address: Ipv6Addr,
    pub host_name: Option<DnsLabel>,
    pub port: Uuid,
}

/// A scope with what every packet needs looked up beforehand. Its groups are the subnets' addresses (`2 * subnet`) and
/// the prefixes that they delegate (`2 * subnet + 1`).
#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) scope: Scope,
    pools: Vec<Vec<(u128, u128)>>,
    by_mac: HashMap<MacAddr, Vec<usize>>,
    by_address: HashMap<Ipv6Addr, usize>,
    /// Of all reservations, those of subnets without DHCPv6 too.
    known: HashSet<MacAddr>,
}

impl Catalog {
    pub(super) fn new(scope: Scope) -> Self {
        let mut catalog = Self {
            pools: scope.subnets.iter().flat_map(|subnet| [addresses(subnet), prefixes(subnet)]).collect(),
            by_mac: HashMap::with_capacity(scope.hosts.len()),
            by_address: HashMap::with_capacity(scope.hosts.len()),
            known: scope.hosts.iter().map(|host| host.mac).collect(),
            scope,
        };
        for (index, host) in catalog.scope.hosts.iter().enumerate() {
            let served = catalog.subnet_of(host.address).is_some_and(|s| catalog.scope.subnets[s].stateful);
            if served && !catalog.by_address.contains_key(&host.address) {
                catalog.by_mac.entry(host.mac).or_default().push(index);
                catalog.by_address.insert(host.address, index);
            }
        }
        catalog
    }

    pub(super) fn subnet_of(&self, address: Ipv6Addr) -> Option<usize> {
        self.scope.subnets.iter().position(|subnet| subnet.prefix.contains(&address))
    }

    pub(super) fn host_at(&self, address: Ipv6Addr) -> Option<&Host> {
        self.scope.hosts.get(*self.by_address.get(&address)?)
    }

    pub(super) fn knows(&self, mac: MacAddr) -> bool {
        self.known.contains(&mac)
    }

    pub(super) fn hosts_of(&self, mac: MacAddr) -> impl Iterator<Item = &Host> {
        self.by_mac.get(&mac).into_iter().flatten().filter_map(|i| self.scope.hosts.get(*i))
    }

    /// What a group hands out: prefixes of this length.
    fn length(&self, group: usize) -> u8 {
        let delegation = self.scope.subnets.get(group / 2).and_then(|subnet| subnet.delegation);
        delegation.filter(|_| group % 2 == 1).map_or(128, |(_, length)| length)
    }
}

/// The pools of a subnet that gives addresses to anybody, cut to its prefix.
fn addresses(subnet: &Subnet) -> Vec<(u128, u128)> {
    let (low, high) = (subnet.prefix.network().to_bits(), subnet.prefix.broadcast().to_bits());
    let cut = |range: &AddressRange| match (range.first(), range.last()) {
        (IpAddr::V6(first), IpAddr::V6(last)) => Some((first.to_bits().max(low), last.to_bits().min(high))),
        _ => None,
    };
    let pools = subnet.pools.iter().filter(|_| subnet.dynamic && subnet.stateful).filter_map(cut);
    pools.filter(|(first, last)| first <= last).collect()
}

/// Prefixes by their number: the address without the bits that a client has to itself.
fn prefixes(subnet: &Subnet) -> Vec<(u128, u128)> {
    let Some((block, length)) = subnet.delegation.filter(|_| subnet.dynamic) else { return Vec::new() };
    let shift = 128 - u32::from(length.min(127));
    vec![(block.network().to_bits() >> shift, block.broadcast().to_bits() >> shift)]
}

impl Space for Catalog {
    type Address = Ipv6Net;
    type Client = ClientKey;
    const LOWEST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);

    fn groups(&self) -> usize {
        self.pools.len()
    }

    fn hosts(&self) -> usize {
        self.scope.hosts.len()
    }

    fn pooled(&self) -> usize {
        let sizes =
            self.pools.iter().flatten().map(|(first, last)| usize::try_from(last - first).unwrap_or(usize::MAX));
        sizes.fold(0, |sum, size| sum.saturating_add(size).saturating_add(1))
    }

    fn group_of(&self, prefix: Ipv6Net) -> Option<usize> {
        if prefix.prefix_len() == 128 {
            return self.subnet_of(prefix.addr()).map(|subnet| 2 * subnet);
        }
        let delegates = |subnet: &Subnet| {
            subnet.delegation.is_some_and(|(block, length)| length == prefix.prefix_len() && block.contains(&prefix))
        };
        self.scope.subnets.iter().position(delegates).map(|subnet| 2 * subnet + 1)
    }

    fn dynamic_at(&self, prefix: Ipv6Net) -> Option<usize> {
        let group = self.group_of(prefix)?;
        let number = prefix.addr().to_bits() >> (128 - u32::from(prefix.prefix_len()));
        let pooled = self.pools[group].iter().any(|&(first, last)| (first..=last).contains(&number));
        (pooled && self.assignable(group, prefix)).then_some(group)
    }

    fn pool(&self, group: usize, index: usize) -> Option<(u128, u128)> {
        self.pools.get(group)?.get(index).copied()
    }

    fn address(&self, group: usize, number: u128) -> Ipv6Net {
        let length = self.length(group);
        let address = Ipv6Addr::from_bits(number << (128 - u32::from(length)));
        Ipv6Net::new(address, length).unwrap_or(Self::LOWEST)
    }

    fn assignable(&self, group: usize, prefix: Ipv6Net) -> bool {
        let address = prefix.addr();
        if group % 2 == 1 {
            return true;
        }
        let subnet = &self.scope.subnets[group / 2];
        let anycast = address == subnet.prefix.network() && subnet.prefix.prefix_len() < 127;
        !anycast && !subnet.routers.contains(&address) && !self.by_address.contains_key(&address)
    }

    fn probes(&self) -> bool {
        false
    }
}
