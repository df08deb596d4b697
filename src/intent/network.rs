use super::{Intent, NetworkDns, NetworkId, NetworkSecurity, ResourceName};
use crate::net::{BootRule, DhcpOption, DomainName, IfName, VlanId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// An isolated layer-2 broadcast domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub id: NetworkId,
    /// Unique; also the name of the libvirt network that offers it.
    pub name: ResourceName,
    pub segment: Segment,
    /// The bridge of a `local` network, chosen when it is made so that a rename does not move guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<IfName>,
    /// Bytes of layer-3 payload, 576 to 65,535; told to guests by DHCP. `None`: 1,500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Where guests' names live, `lab.internal` say. `None`: `<name>.internal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_domain: Option<DomainName>,
    /// The zone that its bridged connections are tracked in, so that networks with the same addresses do not mix:
    /// unique, chosen when the network is made, never 0.
    #[serde(default)]
    pub zone: u16,
    #[serde(default)]
    pub security: NetworkSecurity,
    #[serde(default)]
    pub dns: NetworkDns,
    /// DHCP options that guests are told besides; a port's win over its subnet's, those over its network's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_options: Vec<DhcpOption>,
    /// What guests that boot from the network are told, by the same ranks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_boot: Vec<BootRule>,
}

/// How a network's frames are carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Segment {
    /// On this host only, on a bridge of its own.
    Local,
    /// Untagged on a physical network.
    Flat { physical_network: ResourceName },
    /// With an IEEE 802.1Q tag on a physical network.
    Vlan { physical_network: ResourceName, vid: VlanId },
}

impl Segment {
    pub fn physical_network(&self) -> Option<&ResourceName> {
        match self {
            Segment::Local => None,
            Segment::Flat { physical_network } | Segment::Vlan { physical_network, .. } => Some(physical_network),
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Segment::Local => f.write_str("local"),
            Segment::Flat { physical_network } => write!(f, "flat on {physical_network}"),
            Segment::Vlan { physical_network, vid } => write!(f, "VLAN {vid} on {physical_network}"),
        }
    }
}

impl Network {
    /// Ethernet's.
    pub const DEFAULT_MTU: u16 = 1500;

    /// Its own, or the default.
    pub fn effective_mtu(&self) -> u16 {
        self.mtu.unwrap_or(Self::DEFAULT_MTU)
    }

    /// The name that its bridge gets: `vmf-NAME` where that fits an interface name, else one from the identity.
    pub fn bridge_name(id: NetworkId, name: &str) -> IfName {
        let readable = format!("vmf-{}", name.to_ascii_lowercase());
        IfName::new(&readable).unwrap_or_else(|_| {
            let hex = id.0.simple().to_string();
            IfName::new(&format!("vmf-{}", &hex[..11])).expect("4 + 11 hex digits are an interface name")
        })
    }

    /// Zones of networks are below; VLANs that are no network of ours have theirs from here on.
    pub const VLAN_ZONES: u16 = 0xf000;

    /// A connection tracking zone that no other network has; the same for the same identity where it is free.
    pub fn free_zone(id: NetworkId, intent: &Intent) -> u16 {
        let taken: BTreeSet<u16> = intent.networks().filter(|other| other.id != id).map(|other| other.zone).collect();
        let [a, b, ..] = *id.0.as_bytes();
        let first = u16::from_be_bytes([a, b]);
        let mut zones = (0..Self::VLAN_ZONES).map(|step| first.wrapping_add(step) % Self::VLAN_ZONES);
        zones.find(|zone| *zone != 0 && !taken.contains(zone)).unwrap_or(Self::VLAN_ZONES)
    }

    /// The domain that guests' names live in.
    pub fn domain(&self) -> DomainName {
        self.dns_domain.clone().unwrap_or_else(|| {
            let label = crate::net::DnsLabel::from_free_text(self.name.as_str());
            let label = label.as_ref().map_or("network", |l| l.as_str());
            DomainName::new(&format!("{label}.internal")).expect("a label and a label are a domain name")
        })
    }
}
