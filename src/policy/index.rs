use crate::{
    intent::{
        Forward, HostService, Intent, Network, NetworkId, Port, PortId, Protection, Remote, ResourceName,
        SecurityGroup, SecurityGroupId, Segment, Subnet,
    },
    net::{IpNet, MacAddr, VlanId},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

/// An intent with the indexes that judging takes: a packet costs the rules of two ports, and a
/// look at the subnets, VLANs and trunk ports that there are.
#[derive(Debug)]
pub struct Policy<'a> {
    pub(super) intent: &'a Intent,
    /// What `[filter] host_services` opens on the host: protocol and port.
    pub(super) host_services: HashSet<(u8, u16)>,
    /// Of a group's members on one network.
    members: HashMap<(SecurityGroupId, NetworkId), Addresses>,
    /// Of a group's members in subnets that the host routes, for networks that it routes to.
    routed: HashMap<SecurityGroupId, Addresses>,
    /// Address pairs by network: who else may have an address.
    pairs: HashMap<NetworkId, Vec<(IpNet, PortId)>>,
    host_addresses: HashSet<IpAddr>,
    /// The network of a connection tracking zone; the first of those that share one.
    pub(super) by_zone: HashMap<u16, &'a Network>,
    /// Ports that have tagged VLANs besides their network.
    trunks: Vec<&'a Port>,
}

/// A set of addresses and blocks.
#[derive(Debug, Default)]
struct Addresses {
    single: HashSet<IpAddr>,
    blocks: Vec<IpNet>,
}

impl Addresses {
    fn insert(&mut self, net: IpNet) {
        if net.prefix_len() == net.max_prefix_len() {
            self.single.insert(net.addr());
        } else {
            self.blocks.push(net);
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.single.contains(&address) || self.blocks.iter().any(|block| block.contains(&address))
    }
}

impl<'a> Policy<'a> {
    /// `opened`: what guests may reach on the host besides the services that all may.
    pub fn new(intent: &'a Intent, opened: &BTreeSet<HostService>) -> Self {
        let mut policy = Self {
            intent,
            host_services: opened.iter().map(|service| (service.protocol, service.port)).collect(),
            members: HashMap::new(),
            routed: HashMap::new(),
            pairs: HashMap::new(),
            by_zone: HashMap::new(),
            trunks: intent.ports().filter(|port| port.trunk.is_some()).collect(),
            host_addresses: intent.subnets().filter_map(|subnet| subnet.host_address).collect(),
        };
        for network in intent.networks() {
            policy.by_zone.entry(network.zone).or_insert(network);
        }
        for port in intent.ports() {
            let pairs = port.security.address_pairs.iter().flat_map(|pair| {
                let local = pair.mac.map(|mac| IpNet::from(IpAddr::V6(mac.link_local())));
                [Some(pair.ip), local].into_iter().flatten().map(|net| (net, port.id))
            });
            if !port.security.address_pairs.is_empty() {
                policy.pairs.entry(port.network).or_default().extend(pairs);
            }
            let Some(groups) = policy.protection(port).and_then(|protection| protection.groups) else { continue };
            for group in groups {
                policy.add_member(*group, port);
            }
        }
        policy
    }

    fn add_member(&mut self, group: SecurityGroupId, port: &Port) {
        let fixed = port.fixed_ips.iter().map(|ip| IpNet::from(ip.address));
        let pairs = port.security.address_pairs.iter().map(|pair| pair.ip);
        for net in fixed.chain(pairs) {
            self.members.entry((group, port.network)).or_default().insert(net);
            let mut subnets = self.intent.subnets_of(port.network);
            if subnets.any(|subnet| is_routed(subnet) && subnet.cidr.contains(&net)) {
                self.routed.entry(group).or_default().insert(net);
            }
        }
    }

    /// What a port has; `None` where its network is not there.
    pub(super) fn protection(&self, port: &'a Port) -> Option<Protection<'a>> {
        let network = self.intent.network(port.network)?;
        Some(Protection::of(&network.security, &port.security))
    }

    pub(super) fn network(&self, port: &Port) -> Option<&'a Network> {
        self.intent.network(port.network)
    }

    /// A port's groups in the order of their ids; those that do not exist allow nothing.
    pub(super) fn groups_of(&self, port: &'a Port) -> Option<impl Iterator<Item = &'a SecurityGroup>> {
        let groups = self.protection(port)?.groups?;
        Some(groups.iter().filter_map(|id| self.intent.security_group(*id)))
    }

    /// Whether a rule's remote is this address.
    pub(super) fn is_remote(&self, remote: Remote, address: IpAddr, network: NetworkId) -> bool {
        match remote {
            Remote::Any => true,
            Remote::Prefix(prefix) => prefix.contains(&address),
            Remote::Host => self.intent.subnets_of(network).any(|subnet| subnet.host_address == Some(address)),
            Remote::AddressGroup(id) => {
                let group = self.intent.address_group(id);
                group.is_some_and(|group| group.addresses.iter().any(|block| block.contains(&address)))
            }
            Remote::Group(id) => {
                let here = self.members.get(&(id, network)).is_some_and(|members| members.contains(address));
                here || self.is_routed(network) && self.routed.get(&id).is_some_and(|members| members.contains(address))
            }
        }
    }

    /// Whether the host routes between a network and others.
    fn is_routed(&self, network: NetworkId) -> bool {
        self.intent.subnets_of(network).any(is_routed)
    }

    pub(super) fn is_host(&self, address: IpAddr) -> bool {
        self.host_addresses.contains(&address)
    }

    /// Ports of a network that an address belongs to: its fixed address, one of its pairs, or the link-local one of its
    /// MAC address.
    pub(super) fn holders(&self, network: NetworkId, address: IpAddr) -> Vec<&'a Port> {
        let fixed = self.intent.subnets_of(network).filter(|subnet| subnet.cidr.contains(&address));
        let fixed = fixed.filter_map(|subnet| self.intent.address_holder(subnet.id, address));
        let pairs = self.pairs.get(&network).into_iter().flatten();
        let pairs = pairs.filter(|(net, _)| net.contains(&address)).map(|(_, port)| *port);
        let local = match address {
            IpAddr::V6(address) => {
                MacAddr::of_link_local(address).and_then(|mac| self.intent.port_by_mac(network, mac))
            }
            IpAddr::V4(_) => None,
        };
        let mut ids: Vec<PortId> = fixed.chain(pairs).chain(local.map(|port| port.id)).collect();
        let mut seen = HashSet::new();
        ids.retain(|id| seen.insert(*id));
        let mut holders: Vec<&Port> = ids.into_iter().filter_map(|id| self.intent.port(id)).collect();
        if let Some(Segment::Vlan { physical_network, vid }) = self.intent.network(network).map(|n| &n.segment) {
            holders.extend(self.trunks_with(*vid, Some(physical_network), address));
        }
        holders
    }

    /// Trunk ports that have a VLAN tagged, of one physical network or whichever, and this address.
    pub(super) fn trunks_with(
        &self,
        vid: VlanId,
        physical: Option<&ResourceName>,
        address: IpAddr,
    ) -> impl Iterator<Item = &'a Port> {
        self.trunks.iter().copied().filter(move |port| {
            let tagged = port.trunk.as_ref().is_some_and(|trunk| trunk.tagged.contains(&vid));
            let there = self.network(port).and_then(|network| network.segment.physical_network());
            let fixed = port.fixed_ips.iter().any(|ip| ip.address == address);
            let pair = port.security.address_pairs.iter().any(|pair| pair.ip.contains(&address));
            let local = macs(port).any(|mac| IpAddr::V6(mac.link_local()) == address);
            tagged && (physical.is_none() || there == physical) && (fixed || pair || local)
        })
    }

    /// The subnet that the host itself has an address in, and that an address is in.
    pub(super) fn gateway_subnet(&self, address: IpAddr) -> Option<&'a Subnet> {
        self.intent.subnets().find(|subnet| subnet.host_address.is_some() && subnet.cidr.contains(&address))
    }
}

fn is_routed(subnet: &Subnet) -> bool {
    subnet.host_address.is_some() && subnet.forward != Forward::None
}

/// The MAC addresses that a port may have: its own, and those of its address pairs.
pub(super) fn macs(port: &Port) -> impl Iterator<Item = MacAddr> {
    std::iter::once(port.mac).chain(port.security.address_pairs.iter().filter_map(|pair| pair.mac))
}
