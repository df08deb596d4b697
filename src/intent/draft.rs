//! Resources as people ask for them: what is left out gets its default when the draft is completed.

use super::{
    Delegation, Device, FixedIp, Forward, HostConfig, HostRoute, Intent, IntentError, Ipv6Mode, Network, NetworkDns,
    NetworkId, Origin, Port, PortId, ResourceName, Segment, Subnet, SubnetId, Trunk,
    draft_security::{PairDraft, names_of},
    subnet::{first_host, last_host},
};
use crate::net::{
    AddressRange, BootRule, ClientId, DhcpOption, DnsForwarder, DnsLabel, DnsRecord, DomainName, IpNet, Ipv6Net,
    MacAddr, VlanId,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};
use uuid::Uuid;

/// A network to be. With neither `vlan` nor `flat` it is local.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkDraft {
    pub name: ResourceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_network: Option<ResourceName>,
    /// With a physical network: the VLAN; none: flat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_domain: Option<DomainName>,
    /// Default: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_security: Option<bool>,
    /// Names or ids. Default: those that vmfabricd.toml gives to new networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// Default: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_records: Vec<DnsRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_forwarders: Vec<DnsForwarder>,
    /// Networks' names or ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_shared_with: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dns_forward_unknown: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_options: Vec<DhcpOption>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_boot: Vec<BootRule>,
}

/// A subnet to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetDraft {
    /// Name or id.
    pub network: String,
    /// Default: the network's name, with a number where that is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ResourceName>,
    pub cidr: IpNet,
    /// Default: the first address where the host forwards; none where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Default: the gateway where the host forwards; the first free address where it only serves DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_address: Option<IpAddr>,
    /// Default: all that is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<AddressRange>>,
    /// Default: yes on a local network, no on a physical one, which may have a server already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_routes: Vec<HostRoute>,
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<Forward>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_options: Vec<DhcpOption>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_boot: Vec<BootRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_relays: Vec<IpAddr>,
    /// Default for IPv6: stateful where DHCP is served, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_mode: Option<Ipv6Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pd_block: Option<Ipv6Net>,
    /// Default with a `pd_block`: 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pd_length: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp_servers: Vec<Ipv6Addr>,
}

/// A port to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortDraft {
    /// Name or id.
    pub network: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ResourceName>,
    /// Default: a locally administered one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Default: one out of the pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<IpAddr>>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub trunk_vlans: BTreeSet<VlanId>,
    /// With `trunk_vlans`: whether untagged frames are dropped. Default: they are the port's network's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trunk_only_tagged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<DnsLabel>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_options: Vec<DhcpOption>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_boot: Vec<BootRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_client_id: Option<ClientId>,
    /// UUID of the libvirt domain that it is for. Default: whichever guest's NIC has its MAC and names its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Uuid>,
    /// Default, as of the next two: what its network says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_security: Option<bool>,
    /// Names or ids; an empty list: in no group, so that nothing but address configuration passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_address_pairs: Vec<PairDraft>,
    /// What the guest may send, and may be sent: 1,000 bits per second, and 1,000 bits at once. Default: no limit; a
    /// tenth of a second's worth to the guest, eight tenths from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_kbps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_burst_kb: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_kbps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_burst_kb: Option<u32>,
    /// Written into what the guest sends. Default: left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
}

/// A draft with some of its fields replaced; `null` takes a field back to its default.
pub fn patched<T: Serialize + DeserializeOwned>(draft: &T, patch: Map<String, Value>) -> Result<T, IntentError> {
    let invalid = |error: serde_json::Error| IntentError::Invalid(error.to_string());
    let mut value = serde_json::to_value(draft).map_err(invalid)?;
    if let Value::Object(fields) = &mut value {
        for (key, new) in patch {
            if new.is_null() { drop(fields.remove(&key)) } else { drop(fields.insert(key, new)) }
        }
    }
    serde_json::from_value(value).map_err(invalid)
}

impl NetworkDraft {
    /// Fills in what the administrator of this host gives to networks that say nothing of it.
    pub fn with_defaults(mut self, host: &HostConfig) -> Self {
        let default = || host.default_security_groups.iter().map(ToString::to_string).collect();
        self.security_groups.get_or_insert_with(default);
        self
    }

    pub fn of(network: &Network) -> Self {
        let (physical_network, vlan) = match &network.segment {
            Segment::Local => (None, None),
            Segment::Flat { physical_network } => (Some(physical_network.clone()), None),
            Segment::Vlan { physical_network, vid } => (Some(physical_network.clone()), Some(*vid)),
        };
        let (name, mtu, dns_domain) = (network.name.clone(), network.mtu, network.dns_domain.clone());
        let security = &network.security;
        let NetworkDns { records, forwarders, shared_with, forward_unknown } = network.dns.clone();
        Self {
            physical_network,
            vlan,
            mtu,
            dns_domain,
            port_security: Some(security.port_security),
            security_groups: Some(names_of(&security.groups)),
            isolated: Some(security.isolated),
            dns_records: records,
            dns_forwarders: forwarders,
            dns_shared_with: shared_with.iter().map(ToString::to_string).collect(),
            dns_forward_unknown: forward_unknown,
            dhcp_options: network.dhcp_options.clone(),
            dhcp_boot: network.dhcp_boot.clone(),
            ..Self::named(name)
        }
    }

    /// The same without networks that are gone.
    pub fn of_in(network: &Network, intent: &Intent) -> Self {
        let mut draft = Self::of(network);
        draft.dns_shared_with.retain(|id| intent.find_network(id).is_ok());
        draft
    }

    /// A local one, with the defaults of all else.
    pub fn named(name: ResourceName) -> Self {
        Self {
            name,
            physical_network: None,
            vlan: None,
            mtu: None,
            dns_domain: None,
            port_security: None,
            security_groups: None,
            isolated: None,
            dns_records: Vec::new(),
            dns_forwarders: Vec::new(),
            dns_shared_with: Vec::new(),
            dns_forward_unknown: false,
            dhcp_options: Vec::new(),
            dhcp_boot: Vec::new(),
        }
    }

    /// `old` is what it replaces, which keeps its bridge.
    pub fn complete(self, id: NetworkId, intent: &Intent, old: Option<&Network>) -> Result<Network, IntentError> {
        let security = self.security(intent)?;
        let segment = match (self.physical_network, self.vlan) {
            (None, None) => Segment::Local,
            (Some(physical_network), None) => Segment::Flat { physical_network },
            (Some(physical_network), Some(vid)) => Segment::Vlan { physical_network, vid },
            (None, Some(vid)) => {
                return Err(IntentError::Invalid(format!(
                    "VLAN {vid} of which physical network? Name one of vmfabricd.toml's"
                )));
            }
        };
        let bridge = (segment == Segment::Local).then(|| match old.and_then(|old| old.bridge.clone()) {
            Some(bridge) => bridge,
            None => {
                let readable = Network::bridge_name(id, self.name.as_str());
                let taken = intent.networks().any(|other| other.bridge.as_ref() == Some(&readable));
                // No name of a network is this long, so that the identity decides.
                if taken { Network::bridge_name(id, "an-interface-name-is-not-this-long") } else { readable }
            }
        });
        let zone = old.map_or_else(|| Network::free_zone(id, intent), |old| old.zone);
        let shared_with = self.dns_shared_with.iter().map(|name| Ok(intent.find_network(name)?.id));
        let dns = NetworkDns {
            records: self.dns_records,
            forwarders: self.dns_forwarders,
            shared_with: shared_with.collect::<Result<_, IntentError>>()?,
            forward_unknown: self.dns_forward_unknown,
        };
        let Self { name, mtu, dns_domain, dhcp_options, dhcp_boot, .. } = self;
        Ok(Network { id, name, segment, bridge, mtu, dns_domain, zone, security, dns, dhcp_options, dhcp_boot })
    }
}

impl SubnetDraft {
    /// A block on a network, given by name or identity; all else by default.
    pub fn new(network: String, cidr: IpNet) -> Self {
        Self {
            network,
            name: None,
            cidr,
            gateway: None,
            host_address: None,
            pools: None,
            dhcp: None,
            dns_servers: Vec::new(),
            host_routes: Vec::new(),
            forward: None,
            lease_seconds: None,
            dhcp_options: Vec::new(),
            dhcp_boot: Vec::new(),
            dhcp_relays: Vec::new(),
            ipv6_mode: None,
            pd_block: None,
            pd_length: None,
            ntp_servers: Vec::new(),
        }
    }

    pub fn of(subnet: &Subnet) -> Self {
        let taken: Vec<IpAddr> = subnet.gateway.into_iter().chain(subnet.host_address).collect();
        let chosen = match subnet.dhcp && !subnet.autoconfigured() {
            true => Subnet::default_pools(&subnet.cidr, &taken),
            false => Vec::new(),
        };
        let default_pools = subnet.pools == chosen;
        Self {
            network: subnet.network.to_string(),
            name: Some(subnet.name.clone()),
            cidr: subnet.cidr,
            gateway: subnet.gateway,
            host_address: subnet.host_address,
            // IPv6's follow the mode, unless somebody chose them.
            pools: (!default_pools || matches!(subnet.cidr, IpNet::V4(_))).then(|| subnet.pools.clone()),
            // Where a mode is set, that says it.
            dhcp: subnet.ipv6_mode.is_none().then_some(subnet.dhcp),
            dns_servers: subnet.dns_servers.clone(),
            host_routes: subnet.host_routes.clone(),
            forward: Some(subnet.forward),
            lease_seconds: Some(subnet.lease_seconds),
            dhcp_options: subnet.dhcp_options.clone(),
            dhcp_boot: subnet.dhcp_boot.clone(),
            dhcp_relays: subnet.dhcp_relays.clone(),
            ipv6_mode: subnet.ipv6_mode,
            pd_block: subnet.delegation.map(|delegation| delegation.block),
            pd_length: subnet.delegation.map(|delegation| delegation.length),
            ntp_servers: subnet.ntp_servers.clone(),
        }
    }

    pub fn complete(self, id: SubnetId, intent: &Intent) -> Result<Subnet, IntentError> {
        let network = intent.find_network(&self.network)?;
        let name = match self.name {
            Some(name) => name,
            None => free_subnet_name(intent, network)?,
        };
        let forward = self.forward.unwrap_or(Forward::None);
        let local = network.segment == Segment::Local;
        let ipv6 = matches!(self.cidr, IpNet::V6(_));
        let ipv6_mode = self.ipv6_mode.or((ipv6 && self.dhcp.unwrap_or(local)).then_some(Ipv6Mode::Stateful));
        let dhcp = self.dhcp.unwrap_or(match ipv6_mode {
            Some(mode) => mode != Ipv6Mode::Slaac,
            None => local && !ipv6,
        });
        let serves = dhcp || ipv6_mode.is_some();
        let first = first_host(&self.cidr);
        let gateway = self.gateway.or(if forward == Forward::None { None } else { first });
        let host_address = match (self.host_address, forward) {
            (Some(address), _) => Some(address),
            (None, Forward::Nat | Forward::Routed) => gateway,
            // What is behind relay agents is served from the host's address elsewhere on the network.
            (None, _) if !self.dhcp_relays.is_empty() && serves_elsewhere(intent, network, id, ipv6) => None,
            (None, Forward::None) if serves => free_host(&self.cidr, gateway, &self.dhcp_relays),
            (None, Forward::None) => None,
        };
        let taken: Vec<IpAddr> = gateway.into_iter().chain(host_address).collect();
        // Where somebody else serves DHCP, addresses are theirs to allot.
        let autoconfigured = matches!(ipv6_mode, Some(Ipv6Mode::Slaac | Ipv6Mode::Stateless));
        let pools = self.pools.unwrap_or_else(|| match dhcp && !autoconfigured {
            true => Subnet::default_pools(&self.cidr, &taken),
            false => Vec::new(),
        });
        let delegation = match (self.pd_block, self.pd_length) {
            (None, None) => None,
            (Some(block), length) => Some(Delegation { block, length: length.unwrap_or(64) }),
            (None, Some(_)) => return Err(IntentError::Invalid("pd_length needs a pd_block".into())),
        };
        Ok(Subnet {
            id,
            network: network.id,
            name,
            cidr: self.cidr,
            gateway,
            host_address,
            pools,
            dhcp,
            dns_servers: self.dns_servers,
            host_routes: self.host_routes,
            forward,
            lease_seconds: self.lease_seconds.unwrap_or(Subnet::DEFAULT_LEASE_SECONDS),
            dhcp_options: self.dhcp_options,
            dhcp_boot: self.dhcp_boot,
            dhcp_relays: self.dhcp_relays,
            ipv6_mode,
            delegation,
            ntp_servers: self.ntp_servers,
        })
    }
}

/// The first address of a block that a host can hold, but for the gateway's and those of relay agents.
fn free_host(cidr: &IpNet, gateway: Option<IpAddr>, relays: &[IpAddr]) -> Option<IpAddr> {
    let mut range = AddressRange::new(first_host(cidr)?, last_host(cidr)?).ok()?.iter();
    range.find(|address| Some(*address) != gateway && !relays.contains(address))
}

/// Whether the host has an address in another of the network's subnets, from which relay agents are answered.
fn serves_elsewhere(intent: &Intent, network: &Network, id: SubnetId, ipv6: bool) -> bool {
    let mut others = intent.subnets_of(network.id).filter(|other| other.id != id && other.host_address.is_some());
    // DHCPv6 speaks from the link-local address.
    others.any(|other| ipv6 || other.dhcp && matches!(other.cidr, IpNet::V4(_)))
}

fn free_subnet_name(intent: &Intent, network: &Network) -> Result<ResourceName, IntentError> {
    let base = network.name.as_str();
    let mut candidates = std::iter::once(base.to_owned()).chain((2..1000).map(|n| format!("{base}-{n}")));
    let free = candidates.find(|name| intent.subnet_named(name).is_none());
    let free =
        free.ok_or_else(|| IntentError::Invalid(format!("name the subnet: {base}-2 to {base}-999 are taken")))?;
    ResourceName::new(&free).map_err(|error| IntentError::Invalid(error.to_string()))
}

impl PortDraft {
    /// A port on a network, by name or id, with nothing else said.
    pub fn on(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            name: None,
            mac: None,
            addresses: None,
            trunk_vlans: BTreeSet::new(),
            trunk_only_tagged: false,
            dns_name: None,
            dhcp_options: Vec::new(),
            dhcp_boot: Vec::new(),
            dhcp_client_id: None,
            device: None,
            port_security: None,
            security_groups: None,
            isolated: None,
            allowed_address_pairs: Vec::new(),
            egress_kbps: None,
            egress_burst_kb: None,
            ingress_kbps: None,
            ingress_burst_kb: None,
            dscp: None,
        }
    }

    pub fn of(port: &Port) -> Self {
        let mut draft = Self {
            network: port.network.to_string(),
            name: port.name.clone(),
            mac: Some(port.mac),
            addresses: Some(port.fixed_ips.iter().map(|ip| ip.address).collect()),
            trunk_vlans: port.trunk.as_ref().map(|trunk| trunk.tagged.clone()).unwrap_or_default(),
            trunk_only_tagged: port.trunk.as_ref().is_some_and(|trunk| !trunk.native),
            dns_name: port.dns_name.clone(),
            dhcp_options: port.dhcp_options.clone(),
            dhcp_boot: port.dhcp_boot.clone(),
            dhcp_client_id: port.dhcp_client_id.clone(),
            device: port.device.as_ref().map(|device| device.domain),
            ..Self::on(port.network.to_string())
        };
        draft.take_security(&port.security);
        draft
    }

    /// `old` is what it replaces; `leased` tells which addresses others hold by DHCP alone.
    pub fn complete(
        self,
        id: PortId,
        intent: &Intent,
        old: Option<&Port>,
        leased: impl Fn(SubnetId, IpAddr) -> bool,
    ) -> Result<Port, IntentError> {
        let network = intent.find_network(&self.network)?;
        let security = self.security(intent)?;
        let mac = self.mac.unwrap_or_else(|| {
            let [.., a, b, c, d] = *id.0.as_bytes();
            MacAddr::local([a, b, c, d])
        });
        let fixed_ips = match self.addresses {
            None => intent.allot(network, mac, leased)?,
            Some(mut addresses) => {
                if let Some(old) = old.filter(|old| old.mac != mac) {
                    // What the guest made of its former MAC address.
                    addresses
                        .retain(|address| !intent.autoconfigured(network.id, old.mac).any(|ip| ip.address == *address));
                }
                let placed = addresses.into_iter().map(|address| place(intent, network, address));
                let mut placed: Vec<FixedIp> = placed.collect::<Result<_, _>>()?;
                for ip in intent.autoconfigured(network.id, mac) {
                    if !placed.contains(&ip) {
                        placed.push(ip);
                    }
                }
                placed
            }
        };
        let trunk = (!self.trunk_vlans.is_empty())
            .then(|| Trunk { native: !self.trunk_only_tagged, tagged: self.trunk_vlans.clone() });
        if trunk.is_none() && self.trunk_only_tagged {
            return Err(IntentError::Invalid("trunk_only_tagged needs trunk_vlans".into()));
        }
        let device = self.device.map(|domain| {
            let known = old.and_then(|old| old.device.as_ref()).filter(|device| device.domain == domain);
            Device { domain, name: known.map(|device| device.name.clone()).unwrap_or_default() }
        });
        Ok(Port {
            id,
            network: network.id,
            name: self.name,
            mac,
            fixed_ips,
            trunk,
            dns_name: self.dns_name,
            dhcp_options: self.dhcp_options,
            dhcp_boot: self.dhcp_boot,
            dhcp_client_id: self.dhcp_client_id,
            device,
            security,
            origin: old.map_or(Origin::Admin, |old| old.origin),
        })
    }
}

/// The subnet of a network that an address is in.
fn place(intent: &Intent, network: &Network, address: IpAddr) -> Result<FixedIp, IntentError> {
    let subnet = intent.subnets_of(network.id).find(|subnet| subnet.cidr.contains(&address));
    subnet.map(|subnet| FixedIp { subnet: subnet.id, address }).ok_or_else(|| {
        let blocks: Vec<_> = intent.subnets_of(network.id).map(|subnet| subnet.cidr.to_string()).collect();
        let blocks = if blocks.is_empty() { "it has none".to_owned() } else { format!("it has {}", blocks.join(", ")) };
        IntentError::Invalid(format!(
            "address {address} is outside the subnets of network '{}' ({blocks}); choose one inside, or create a subnet for it",
            network.name
        ))
    })
}
