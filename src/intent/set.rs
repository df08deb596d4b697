use super::{
    AddressGroup, AddressGroupId, Change, FixedIp, HostConfig, IntentError, Network, NetworkId, Origin, Port, PortId,
    ResourceName, SecurityGroup, SecurityGroupId, Subnet, SubnetId, Undo, pick_address,
};
use crate::net::{IpNet, MacAddr};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use uuid::Uuid;

/// All that people want of this host's networks, valid as a whole, with the indexes that lookups need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    pub(super) networks: BTreeMap<NetworkId, Network>,
    pub(super) subnets: BTreeMap<SubnetId, Subnet>,
    pub(super) ports: BTreeMap<PortId, Port>,
    pub(super) groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    pub(super) address_groups: BTreeMap<AddressGroupId, AddressGroup>,
    by_mac: BTreeMap<(NetworkId, MacAddr), PortId>,
    by_device: BTreeMap<(Uuid, MacAddr), PortId>,
    by_tail: BTreeSet<([u8; 5], PortId)>,
    by_network: BTreeSet<(NetworkId, PortId)>,
    network_names: BTreeMap<ResourceName, NetworkId>,
    subnet_names: BTreeMap<ResourceName, SubnetId>,
    port_names: BTreeMap<ResourceName, PortId>,
    subnets_on: BTreeSet<(NetworkId, SubnetId)>,
    addresses: BTreeMap<(SubnetId, IpAddr), PortId>,
}

impl Intent {
    pub fn networks(&self) -> impl ExactSizeIterator<Item = &Network> {
        self.networks.values()
    }

    pub fn subnets(&self) -> impl ExactSizeIterator<Item = &Subnet> {
        self.subnets.values()
    }

    pub fn ports(&self) -> impl ExactSizeIterator<Item = &Port> {
        self.ports.values()
    }

    pub fn security_groups(&self) -> impl ExactSizeIterator<Item = &SecurityGroup> {
        self.groups.values()
    }

    pub fn address_groups(&self) -> impl ExactSizeIterator<Item = &AddressGroup> {
        self.address_groups.values()
    }

    pub fn security_group(&self, id: SecurityGroupId) -> Option<&SecurityGroup> {
        self.groups.get(&id)
    }

    pub fn address_group(&self, id: AddressGroupId) -> Option<&AddressGroup> {
        self.address_groups.get(&id)
    }

    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(&id)
    }

    pub fn subnet(&self, id: SubnetId) -> Option<&Subnet> {
        self.subnets.get(&id)
    }

    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(&id)
    }

    pub fn subnets_of(&self, network: NetworkId) -> impl Iterator<Item = &Subnet> {
        let all = (network, SubnetId(Uuid::nil()))..=(network, SubnetId(Uuid::max()));
        self.subnets_on.range(all).filter_map(|(_, id)| self.subnets.get(id))
    }

    pub fn ports_of(&self, network: NetworkId) -> impl Iterator<Item = &Port> {
        let all = (network, PortId(Uuid::nil()))..=(network, PortId(Uuid::max()));
        self.by_network.range(all).filter_map(|(_, id)| self.ports.get(id))
    }

    pub fn network_named(&self, name: &str) -> Option<&Network> {
        self.network_names.get(name).and_then(|id| self.networks.get(id))
    }

    pub fn subnet_named(&self, name: &str) -> Option<&Subnet> {
        self.subnet_names.get(name).and_then(|id| self.subnets.get(id))
    }

    pub fn port_named(&self, name: &str) -> Option<&Port> {
        self.port_names.get(name).and_then(|id| self.ports.get(id))
    }

    /// A network by its name or the text of its id.
    pub fn find_network(&self, name_or_id: &str) -> Result<&Network, IntentError> {
        let by_id = name_or_id.parse().ok().and_then(|id| self.networks.get(&NetworkId(id)));
        let by_name = || self.network_named(name_or_id);
        by_id.or_else(by_name).ok_or_else(|| IntentError::not_found("network", name_or_id))
    }

    /// A subnet by its name or the text of its id.
    pub fn find_subnet(&self, name_or_id: &str) -> Result<&Subnet, IntentError> {
        let by_id = name_or_id.parse().ok().and_then(|id| self.subnets.get(&SubnetId(id)));
        let by_name = || self.subnet_named(name_or_id);
        by_id.or_else(by_name).ok_or_else(|| IntentError::not_found("subnet", name_or_id))
    }

    /// A security group by its name or the text of its id.
    pub fn find_security_group(&self, name_or_id: &str) -> Result<&SecurityGroup, IntentError> {
        let by_id = name_or_id.parse().ok().and_then(|id| self.groups.get(&SecurityGroupId(id)));
        let by_name = || self.groups.values().find(|group| group.name.as_str() == name_or_id);
        by_id.or_else(by_name).ok_or_else(|| IntentError::not_found("security group", name_or_id))
    }

    /// An address group by its name or the text of its id.
    pub fn find_address_group(&self, name_or_id: &str) -> Result<&AddressGroup, IntentError> {
        let by_id = name_or_id.parse().ok().and_then(|id| self.address_groups.get(&AddressGroupId(id)));
        let by_name = || self.address_groups.values().find(|group| group.name.as_str() == name_or_id);
        by_id.or_else(by_name).ok_or_else(|| IntentError::not_found("address group", name_or_id))
    }

    /// A port by its name, the text of its id, or its MAC address where one port alone has it.
    pub fn find_port(&self, name: &str) -> Result<&Port, IntentError> {
        if let Some(port) = name.parse().ok().and_then(|id| self.ports.get(&PortId(id))) {
            return Ok(port);
        }
        if let Some(port) = self.port_named(name) {
            return Ok(port);
        }
        let mac: MacAddr = name.parse().map_err(|_| IntentError::not_found("port", name))?;
        let mut holders = self.ports_with_tail(mac.tail()).filter(|port| port.mac == mac);
        match (holders.next(), holders.next()) {
            (Some(port), None) => Ok(port),
            (None, _) => Err(IntentError::not_found("port", name)),
            (Some(_), Some(_)) => Err(IntentError::Ambiguous { name: name.to_owned() }),
        }
    }

    pub fn port_by_mac(&self, network: NetworkId, mac: MacAddr) -> Option<&Port> {
        self.by_mac.get(&(network, mac)).and_then(|id| self.ports.get(id))
    }

    pub fn port_by_device(&self, domain: Uuid, mac: MacAddr) -> Option<&Port> {
        self.by_device.get(&(domain, mac)).and_then(|id| self.ports.get(id))
    }

    pub fn ports_of_device(&self, domain: Uuid) -> impl Iterator<Item = &Port> {
        self.by_device
            .range((domain, MacAddr::LOWEST)..)
            .take_while(move |((device, _), _)| *device == domain)
            .filter_map(|(_, id)| self.ports.get(id))
    }

    /// Ports whose MAC address ends so (see [`MacAddr::tail`]).
    pub fn ports_with_tail(&self, tail: [u8; 5]) -> impl Iterator<Item = &Port> {
        let all = (tail, PortId(Uuid::nil()))..=(tail, PortId(Uuid::max()));
        self.by_tail.range(all).filter_map(|(_, id)| self.ports.get(id))
    }

    pub fn address_holder(&self, subnet: SubnetId, address: IpAddr) -> Option<PortId> {
        self.addresses.get(&(subnet, address)).copied()
    }

    /// Picks one address of each family for a NIC, in the first subnet of a network that allots any, and tells those
    /// that its guest makes itself; none where no subnet has any. `leased` tells which addresses others hold by DHCP
    /// alone.
    pub fn allot(
        &self,
        network: &Network,
        mac: MacAddr,
        leased: impl Fn(SubnetId, IpAddr) -> bool,
    ) -> Result<Vec<FixedIp>, IntentError> {
        let v4 = self.allot_of(network, mac, true, &leased)?;
        let v6 = self.allot_of(network, mac, false, &leased)?;
        Ok(v4.into_iter().chain(v6).chain(self.autoconfigured(network.id, mac)).collect())
    }

    fn allot_of(
        &self,
        network: &Network,
        mac: MacAddr,
        v4: bool,
        leased: impl Fn(SubnetId, IpAddr) -> bool,
    ) -> Result<Option<FixedIp>, IntentError> {
        let mut full = Vec::new();
        let here = self.subnets_of(network.id).filter(|subnet| !subnet.is_behind_relays());
        for subnet in here.filter(|subnet| matches!(subnet.cidr, IpNet::V4(_)) == v4 && !subnet.pools.is_empty()) {
            let taken = |address| self.addresses.contains_key(&(subnet.id, address)) || leased(subnet.id, address);
            match pick_address(&subnet.pools, mac, taken) {
                Some(address) => return Ok(Some(FixedIp { subnet: subnet.id, address })),
                None => full.extend(subnet.pools.iter().map(ToString::to_string)),
            }
        }
        if full.is_empty() {
            return Ok(None);
        }
        Err(IntentError::PoolExhausted { network: network.name.clone(), pools: full.join(", ") })
    }

    /// The addresses that the guest behind a NIC makes itself.
    pub fn autoconfigured(&self, network: NetworkId, mac: MacAddr) -> impl Iterator<Item = FixedIp> {
        self.subnets_of(network)
            .filter_map(move |subnet| Some(FixedIp { subnet: subnet.id, address: subnet.autoconfigured_address(mac)? }))
    }

    /// The changes that make a subnet what it is to be. Ports that are there already get their addresses in an IPv6
    /// subnet with it, since their guests make them, or ask for them, from then on.
    pub fn with_subnet(&self, subnet: &Subnet, leased: impl Fn(IpAddr) -> bool) -> Vec<Change> {
        if matches!(subnet.cidr, IpNet::V4(_)) || subnet.is_behind_relays() {
            return vec![Change::PutSubnet(subnet.clone())];
        }
        let old = self.subnets.get(&subnet.id);
        let converted = subnet.autoconfigured() && old.is_some_and(|old| !old.autoconfigured());
        let leaves = |port: &Port, ip: &FixedIp| {
            let made = || old.and_then(|old| old.autoconfigured_address(port.mac)) == Some(ip.address);
            ip.subnet == subnet.id && (converted || !subnet.cidr.contains(&ip.address) && made())
        };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut chosen = BTreeSet::new();
        for port in self.ports_of(subnet.network) {
            let mut kept = port.clone();
            kept.fixed_ips.retain(|ip| !leaves(port, ip));
            if kept != *port {
                before.push(Change::PutPort(kept.clone()));
            }
            let held = |ip: &FixedIp| {
                let of = if ip.subnet == subnet.id { Some(subnet) } else { self.subnets.get(&ip.subnet) };
                ip.address.is_ipv6() && !of.is_some_and(Subnet::autoconfigured)
            };
            let address = match subnet.autoconfigured_address(port.mac) {
                Some(address) => {
                    Some(address).filter(|address| !kept.fixed_ips.iter().any(|ip| ip.address == *address))
                }
                // One of each family is enough, and who was given none on purpose gets none.
                None if kept.fixed_ips.iter().any(held) => None,
                None if port.fixed_ips.is_empty() && port.origin == Origin::Admin => None,
                None => pick_address(&subnet.pools, port.mac, |address| {
                    chosen.contains(&address) || leased(address) || self.addresses.contains_key(&(subnet.id, address))
                }),
            };
            if let Some(address) = address {
                chosen.insert(address);
                kept.fixed_ips.push(FixedIp { subnet: subnet.id, address });
                after.push(Change::PutPort(kept));
            }
        }
        before.into_iter().chain([Change::PutSubnet(subnet.clone())]).chain(after).collect()
    }

    /// What a store held. It was valid when it was stored; what a changed configuration no longer allows stays.
    pub fn restore(stored: Vec<Change>) -> Self {
        let mut intent = Self::default();
        let mut undo = Vec::new();
        for change in stored {
            intent.replace(change, &mut undo);
            undo.clear();
        }
        // Networks made before there were zones.
        let without: Vec<_> = intent.networks.values().filter(|network| network.zone == 0).map(|n| n.id).collect();
        for id in without {
            let zone = Network::free_zone(id, &intent);
            intent.networks.entry(id).and_modify(|network| network.zone = zone);
        }
        intent
    }

    /// Applies the changes in order, or none of them.
    pub fn apply(&mut self, changes: Vec<Change>, host: &HostConfig) -> Result<Undo, IntentError> {
        let mut undo = Undo::default();
        for change in changes {
            if let Err(error) = super::check::check(self, &change, host) {
                self.undo(undo);
                return Err(error);
            }
            self.replace(change, &mut undo.0);
        }
        Ok(undo)
    }

    /// Applies the changes as one: only what comes out of them must be valid, so that two ports may trade addresses; or
    /// none of them.
    pub fn apply_whole(&mut self, changes: Vec<Change>, host: &HostConfig) -> Result<Undo, IntentError> {
        let before = self.clone();
        let mut undo = Undo::default();
        // All that change leave before one comes back: no two hold an address meanwhile, which indexes cannot tell.
        for change in &changes {
            if let Change::PutPort(port) = change {
                self.replace(Change::DeletePort(port.id), &mut undo.0);
            }
        }
        changes.iter().for_each(|change| self.replace(change.clone(), &mut undo.0));
        for change in &changes {
            if let Err(error) = super::check::check_between(&before, self, change, host) {
                *self = before;
                return Err(error);
            }
        }
        Ok(undo)
    }

    /// Takes back what [`Intent::apply`] or [`Intent::apply_whole`] did; nothing else may have been applied since.
    pub fn undo(&mut self, undo: Undo) {
        let mut scratch = Vec::new();
        for change in undo.0.into_iter().rev() {
            self.replace(change, &mut scratch);
        }
    }

    /// Unchecked.
    pub(super) fn replace(&mut self, change: Change, undo: &mut Vec<Change>) {
        match change {
            Change::PutNetwork(network) => {
                let id = network.id;
                let old = self.take_network(id);
                self.network_names.insert(network.name.clone(), id);
                self.networks.insert(id, network);
                undo.push(old.map_or(Change::DeleteNetwork(id), Change::PutNetwork));
            }
            Change::DeleteNetwork(id) => {
                let subnets: Vec<_> = self.subnets_of(id).map(|subnet| subnet.id).collect();
                let ports: Vec<_> = self.ports_of(id).map(|port| port.id).collect();
                ports.into_iter().for_each(|port| self.replace(Change::DeletePort(port), undo));
                subnets.into_iter().for_each(|subnet| self.replace(Change::DeleteSubnet(subnet), undo));
                undo.extend(self.take_network(id).map(Change::PutNetwork));
            }
            Change::PutSubnet(subnet) => {
                let id = subnet.id;
                let old = self.take_subnet(id);
                self.subnet_names.insert(subnet.name.clone(), id);
                self.subnets_on.insert((subnet.network, id));
                self.subnets.insert(id, subnet);
                undo.push(old.map_or(Change::DeleteSubnet(id), Change::PutSubnet));
            }
            Change::DeleteSubnet(id) => {
                let holders: Vec<_> =
                    self.addresses.range((id, LOWEST)..).take_while(|((s, _), _)| *s == id).map(|(_, p)| *p).collect();
                for holder in holders {
                    let Some(mut port) = self.ports.get(&holder).cloned() else { continue };
                    port.fixed_ips.retain(|ip| ip.subnet != id);
                    self.replace(Change::PutPort(port), undo);
                }
                undo.extend(self.take_subnet(id).map(Change::PutSubnet));
            }
            Change::PutPort(port) => {
                let id = port.id;
                let old = self.ports.remove(&id);
                if let Some(old) = &old {
                    self.unindex(old);
                }
                self.index(&port);
                self.ports.insert(id, port);
                undo.push(old.map_or(Change::DeletePort(id), Change::PutPort));
            }
            Change::PutSecurityGroup(group) => {
                let id = group.id;
                let old = self.groups.insert(id, group);
                undo.push(old.map_or(Change::DeleteSecurityGroup(id), Change::PutSecurityGroup));
            }
            Change::DeleteSecurityGroup(id) => {
                undo.extend(self.groups.remove(&id).map(Change::PutSecurityGroup));
            }
            Change::PutAddressGroup(group) => {
                let id = group.id;
                let old = self.address_groups.insert(id, group);
                undo.push(old.map_or(Change::DeleteAddressGroup(id), Change::PutAddressGroup));
            }
            Change::DeleteAddressGroup(id) => {
                undo.extend(self.address_groups.remove(&id).map(Change::PutAddressGroup));
            }
            Change::DeletePort(id) => {
                if let Some(old) = self.ports.remove(&id) {
                    self.unindex(&old);
                    undo.push(Change::PutPort(old));
                }
            }
        }
    }

    fn take_network(&mut self, id: NetworkId) -> Option<Network> {
        let old = self.networks.remove(&id)?;
        forget(&mut self.network_names, &old.name, id);
        Some(old)
    }

    fn take_subnet(&mut self, id: SubnetId) -> Option<Subnet> {
        let old = self.subnets.remove(&id)?;
        forget(&mut self.subnet_names, &old.name, id);
        self.subnets_on.remove(&(old.network, id));
        Some(old)
    }

    fn index(&mut self, port: &Port) {
        if let Some(name) = &port.name {
            self.port_names.insert(name.clone(), port.id);
        }
        self.by_mac.insert((port.network, port.mac), port.id);
        self.by_tail.insert((port.mac.tail(), port.id));
        self.by_network.insert((port.network, port.id));
        if let Some(device) = &port.device {
            self.by_device.insert((device.domain, port.mac), port.id);
        }
        for ip in &port.fixed_ips {
            self.addresses.insert((ip.subnet, ip.address), port.id);
        }
    }

    fn unindex(&mut self, port: &Port) {
        if let Some(name) = &port.name {
            forget(&mut self.port_names, name, port.id);
        }
        self.by_mac.remove(&(port.network, port.mac));
        self.by_tail.remove(&(port.mac.tail(), port.id));
        self.by_network.remove(&(port.network, port.id));
        if let Some(device) = &port.device {
            self.by_device.remove(&(device.domain, port.mac));
        }
        for ip in &port.fixed_ips {
            self.addresses.remove(&(ip.subnet, ip.address));
        }
    }

    /// The guest-made ports of a domain, which go when it is undefined.
    pub fn guest_ports_of(&self, domain: Uuid) -> Vec<PortId> {
        self.ports_of_device(domain).filter(|port| port.origin == Origin::Guest).map(|port| port.id).collect()
    }
}

/// Where several changes are made as one, another may have taken the name already.
fn forget<Id: PartialEq>(names: &mut BTreeMap<ResourceName, Id>, name: &ResourceName, id: Id) {
    if names.get(name) == Some(&id) {
        names.remove(name);
    }
}

const LOWEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::NetworkDraft;

    #[test]
    fn networks_without_a_zone_get_one_each() {
        let network = |n: u128| {
            let name = crate::intent::ResourceName::new(&format!("n{n}")).expect("a name");
            let draft = NetworkDraft::named(name);
            let network = draft.complete(NetworkId(Uuid::from_u128(n)), &Intent::default(), None).expect("a network");
            Change::PutNetwork(Network { zone: 0, ..network })
        };
        // All have the same first bytes of identity, from which the zone is chosen.
        let intent = Intent::restore((1..=50).map(network).collect());
        let zones: BTreeSet<u16> = intent.networks().map(|network| network.zone).collect();
        assert!(zones.len() == 50 && !zones.contains(&0), "{zones:?}");
    }
}
