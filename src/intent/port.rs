use super::{NetworkId, PortId, PortSecurity, ResourceName, SubnetId};
use crate::net::{BootRule, ClientId, DhcpOption, DnsLabel, MacAddr, VlanId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;

/// One virtual NIC's place on a network. Made beforehand it is also the reservation of its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    pub id: PortId,
    pub network: NetworkId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ResourceName>,
    /// Unique on the network.
    pub mac: MacAddr,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed_ips: Vec<FixedIp>,
    /// `None`: an access port, whose frames are untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<Trunk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<DnsLabel>,
    /// DHCP options that guests are told besides; a port's win over its subnet's, those over its network's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_options: Vec<DhcpOption>,
    /// What guests that boot from the network are told, by the same ranks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp_boot: Vec<BootRule>,
    /// Who gets its address besides its MAC address: the client with this identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_client_id: Option<ClientId>,
    /// The guest that it is for. `None`: whichever guest's NIC has its MAC and names its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    #[serde(default, skip_serializing_if = "PortSecurity::is_default")]
    pub security: PortSecurity,
    pub origin: Origin,
}

impl Port {
    /// Its own addresses, and those of its address pairs that name one alone.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let pairs = self.security.address_pairs.iter().map(|pair| pair.ip);
        let single = pairs.filter(|ip| ip.prefix_len() == ip.max_prefix_len()).map(|ip| ip.addr());
        self.fixed_ips.iter().map(|ip| ip.address).chain(single)
    }
}

/// An address that a port holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedIp {
    pub subnet: SubnetId,
    pub address: IpAddr,
}

/// The VLANs of a port that sends and receives tagged frames.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Whether untagged frames belong to the port's own network; else they are dropped.
    pub native: bool,
    pub tagged: BTreeSet<VlanId>,
}

/// A libvirt domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub domain: Uuid,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Who made a port, and so who deletes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A person or a client: it stays until they delete it.
    Admin,
    /// A guest's NIC: it goes when the domain is undefined.
    Guest,
}
