use super::{ClientKey, options::OptionSet};
use crate::{
    net::{AddressRange, BootRule, DhcpOption, DnsLabel, DomainName, IfName, Ipv4Net, MacAddr},
    protocol::lease::Space,
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use uuid::Uuid;

/// What DHCPv4 serves for one network on one interface of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub network: Uuid,
    pub interface: IfName,
    /// An address of this host on that interface: source and server identifier of every reply.
    pub server_address: Ipv4Addr,
    /// Its others there: what is for one of them is for this server too (RFC 2131 section 4.1).
    pub other_addresses: Vec<Ipv4Addr>,
    pub subnets: Vec<Subnet>,
    pub hosts: Vec<Host>,
    /// The relay agents to serve, by `giaddr`. A relay speaks for any client, so no guest may play one unasked.
    pub relays: Vec<Ipv4Addr>,
    /// Whether a DISCOVER with option 80 is answered with an ACK (RFC 4039): where no other server answers.
    pub rapid_commit: bool,
    /// Whether an address that was never handed out is looked for on the link before it is.
    pub probe: bool,
    /// Dynamic addresses that one port may hold or be offered at a time. 0: no limit.
    pub leases_per_port: u32,
    /// Packets of one port that are looked at, per second; bursts of as many. 0: no limit.
    pub packets_per_port: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    pub id: Uuid,
    pub prefix: Ipv4Net,
    /// Whether clients of this link are served from it; else only those of its relay agents.
    pub on_link: bool,
    pub router: Option<Ipv4Addr>,
    pub dns_servers: Vec<Ipv4Addr>,
    pub domain: Option<DomainName>,
    pub mtu: Option<u16>,
    /// Destination and next hop.
    pub host_routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// For unknown clients, where `dynamic`. Network, broadcast, router, server, relay agents' and reserved addresses are
    /// left out.
    pub pools: Vec<AddressRange>,
    /// [`INFINITE`](super::INFINITE) seconds and more: for ever.
    pub lease_time: Duration,
    /// Whether clients without a reservation are served; else they hear nothing.
    pub dynamic: bool,
    /// Win over what the fields above say. One of a class wins over one for all.
    pub options: Vec<DhcpOption>,
    pub boot: Vec<BootRule>,
}

/// A port's reservation. One whose address is in none of the subnets is not served. Of several for one MAC, the first
/// that fits where the client asks is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub mac: MacAddr,
    /// Who else it is for; a port that has this MAC wins.
    pub client: Option<ClientKey>,
    pub address: Ipv4Addr,
    /// Sent as option 12.
    pub host_name: Option<DnsLabel>,
    pub port: Uuid,
    /// Win over the subnet's.
    pub options: Vec<DhcpOption>,
    pub boot: Vec<BootRule>,
}

impl Scope {
    /// Whether this is an address of the server.
    pub fn is_server(&self, address: Ipv4Addr) -> bool {
        address == self.server_address || self.other_addresses.contains(&address)
    }
}

/// A scope with what every packet needs looked up or encoded beforehand.
#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) scope: Scope,
    pub(super) options: Vec<OptionSet>,
    pools: Vec<Vec<Pool>>,
    by_mac: HashMap<MacAddr, Vec<usize>>,
    by_client: HashMap<ClientKey, usize>,
    by_address: HashMap<Ipv4Addr, usize>,
}

/// First and last address, as numbers.
type Pool = (u32, u32);

impl Catalog {
    pub(super) fn new(scope: Scope) -> Self {
        let mut catalog = Self {
            options: scope.subnets.iter().map(OptionSet::new).collect(),
            pools: scope.subnets.iter().map(pools).collect(),
            by_mac: HashMap::with_capacity(scope.hosts.len()),
            by_client: HashMap::new(),
            by_address: HashMap::with_capacity(scope.hosts.len()),
            scope,
        };
        for (index, host) in catalog.scope.hosts.iter().enumerate() {
            if catalog.subnet_of(host.address).is_some() && !catalog.by_address.contains_key(&host.address) {
                catalog.by_mac.entry(host.mac).or_default().push(index);
                if let Some(client) = &host.client {
                    catalog.by_client.entry(client.clone()).or_insert(index);
                }
                catalog.by_address.insert(host.address, index);
            }
        }
        catalog
    }

    pub(super) fn subnet_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.scope.subnets.iter().position(|s| s.prefix.contains(&address))
    }

    /// The subnet of this address, if it has relay agents.
    pub(super) fn relayed_subnet_of(&self, address: Ipv4Addr) -> Option<usize> {
        let index = self.subnet_of(address)?;
        let Subnet { prefix, .. } = &self.scope.subnets[index];
        self.scope.relays.iter().any(|relay| prefix.contains(relay)).then_some(index)
    }

    pub(super) fn host_at(&self, address: Ipv4Addr) -> Option<&Host> {
        self.scope.hosts.get(*self.by_address.get(&address)?)
    }

    pub(super) fn hosts_of(&self, mac: MacAddr) -> impl Iterator<Item = &Host> {
        self.by_mac.get(&mac).into_iter().flatten().filter_map(|i| self.scope.hosts.get(*i))
    }

    pub(super) fn host_of_client(&self, client: &ClientKey) -> Option<&Host> {
        self.scope.hosts.get(*self.by_client.get(client)?)
    }

    pub(super) fn dynamic_subnets(&self) -> impl Iterator<Item = usize> {
        (0..self.pools.len()).filter(|i| self.scope.subnets[*i].dynamic)
    }
}

impl Space for Catalog {
    type Address = Ipv4Addr;
    type Client = ClientKey;
    const LOWEST: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    fn groups(&self) -> usize {
        self.scope.subnets.len()
    }

    fn hosts(&self) -> usize {
        self.scope.hosts.len()
    }

    fn pooled(&self) -> usize {
        self.pools.iter().flatten().map(|(first, last)| (last - first) as usize + 1).sum()
    }

    fn group_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.subnet_of(address)
    }

    fn dynamic_at(&self, address: Ipv4Addr) -> Option<usize> {
        let index = self.subnet_of(address)?;
        let number = address.to_bits();
        let pooled = self.pools[index].iter().any(|&(first, last)| (first..=last).contains(&number));
        (pooled && self.assignable(index, address)).then_some(index)
    }

    fn pool(&self, subnet: usize, index: usize) -> Option<(u128, u128)> {
        self.pools.get(subnet)?.get(index).map(|(first, last)| (u128::from(*first), u128::from(*last)))
    }

    fn address(&self, _: usize, number: u128) -> Ipv4Addr {
        // Numbers are those of pools, which have 32 bits.
        Ipv4Addr::from_bits(number as u32)
    }

    fn assignable(&self, subnet: usize, address: Ipv4Addr) -> bool {
        let Subnet { prefix, router, .. } = &self.scope.subnets[subnet];
        let edge = prefix.prefix_len() < 31 && (address == prefix.network() || address == prefix.broadcast());
        !edge
            && Some(address) != *router
            && !self.scope.is_server(address)
            && !self.scope.relays.contains(&address)
            && !self.by_address.contains_key(&address)
    }

    fn probes(&self) -> bool {
        self.scope.probe
    }
}

/// The pools of a dynamic subnet, cut to its prefix.
fn pools(subnet: &Subnet) -> Vec<Pool> {
    let (low, high) = (subnet.prefix.network().to_bits(), subnet.prefix.broadcast().to_bits());
    subnet
        .pools
        .iter()
        .filter(|_| subnet.dynamic)
        .filter_map(|range| match (range.first(), range.last()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Some((first.to_bits().max(low), last.to_bits().min(high))),
            _ => None,
        })
        .filter(|(first, last)| first <= last)
        .collect()
}
