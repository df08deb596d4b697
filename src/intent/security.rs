//! What a port may send and receive: port security, security groups, and what else bounds its traffic.

use super::{AddressGroupId, ResourceName, SecurityGroupId};
use crate::net::{IpNet, MacAddr};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What a network's ports have unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSecurity {
    /// Whether ports may send from their own addresses alone, and are kept from playing server or router.
    pub port_security: bool,
    /// The groups of ports that name none; empty: such ports are not filtered by groups.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<SecurityGroupId>,
    /// Whether ports may talk with the gateway and the uplink alone, not with one another.
    pub isolated: bool,
}

impl Default for NetworkSecurity {
    fn default() -> Self {
        Self { port_security: true, groups: BTreeSet::new(), isolated: false }
    }
}

/// What a port has of its own; `None` is as its network says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortSecurity {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_security: Option<bool>,
    /// `Some` of an empty set: in no group, so that nothing but address configuration passes (as in Neutron).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<SecurityGroupId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// Addresses besides its own that it may send from; at most [`PortSecurity::MAX_PAIRS`].
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub address_pairs: BTreeSet<AddressPair>,
    #[serde(skip_serializing_if = "Qos::is_default")]
    pub qos: Qos,
}

impl PortSecurity {
    pub const MAX_PAIRS: usize = 64;
    /// Of one port or network.
    pub const MAX_GROUPS: usize = 64;

    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An address that a port may use besides its own (Neutron: `allowed_address_pairs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPair {
    pub ip: IpNet,
    /// `None`: the port's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
}

/// Limits of a port's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Qos {
    /// What the guest may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Rate>,
    /// What the guest may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Rate>,
    /// Written into what the guest sends: 0 to 63 (RFC 2474).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
}

impl Qos {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Neutron's bandwidth limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// 1,000 bits per second; more than 0.
    pub kbps: u32,
    /// 1,000 bits that may go at once; 0: a tenth of a second's worth to the guest, eight tenths from it.
    #[serde(default)]
    pub burst_kb: u32,
}

/// Named rules of what its ports may send and receive: what no rule allows is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    /// Unique.
    pub name: ResourceName,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether answers to what was allowed are allowed. Groups of one port are all of one kind.
    pub stateful: bool,
    /// At most [`SecurityGroup::MAX_RULES`]; no two say the same.
    pub rules: Vec<Rule>,
}

impl SecurityGroup {
    pub const MAX_RULES: usize = 1000;
    /// On one host.
    pub const MAX_GROUPS: usize = 10_000;
}

/// One allowance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub id: Uuid,
    pub direction: Direction,
    pub ethertype: Ethertype,
    #[serde(default)]
    pub protocol: Protocol,
    #[serde(default)]
    pub remote: Remote,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// As the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the guest.
    Ingress,
    /// From the guest.
    Egress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ethertype {
    Ipv4,
    Ipv6,
}

/// What is above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(tag = "match", rename_all = "lowercase", deny_unknown_fields)]
pub enum Protocol {
    #[default]
    Any,
    /// TCP (6), UDP (17), SCTP (132), UDP-Lite (136) or DCCP (33), to these destination ports, both ends included.
    Ports { protocol: u8, first: u16, last: u16 },
    /// ICMP (1) with IPv4, ICMPv6 (58) with IPv6.
    Icmp {
        #[serde(default, rename = "type")]
        kind: Option<u8>,
        /// Only with a type.
        #[serde(default)]
        code: Option<u8>,
    },
    /// Any other protocol number, or one of those above with whatever ports (IANA "Protocol Numbers").
    Number { protocol: u8 },
}

/// The other end: the source of what comes in, the destination of what goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(tag = "is", content = "of", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Remote {
    #[default]
    Any,
    /// Of the rule's ethertype.
    Prefix(IpNet),
    /// The addresses of the ports in a group: their own, and their address pairs.
    Group(SecurityGroupId),
    AddressGroup(AddressGroupId),
    /// This host: the gateway addresses of our subnets.
    Host,
}

/// Prefixes under one name, of both families.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressGroup {
    pub id: AddressGroupId,
    /// Unique.
    pub name: ResourceName,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// At most [`AddressGroup::MAX_ADDRESSES`].
    pub addresses: BTreeSet<IpNet>,
}

impl AddressGroup {
    pub const MAX_ADDRESSES: usize = 10_000;
    /// On one host.
    pub const MAX_GROUPS: usize = 1000;
}

/// What a port has, with its network's say in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection<'a> {
    pub port_security: bool,
    /// `None`: not filtered by groups.
    pub groups: Option<&'a BTreeSet<SecurityGroupId>>,
    pub isolated: bool,
}

impl<'a> Protection<'a> {
    /// Without port security there are no groups either, since nothing tells whose a packet is (as in Neutron).
    pub fn of(network: &'a NetworkSecurity, port: &'a PortSecurity) -> Self {
        let port_security = port.port_security.unwrap_or(network.port_security);
        let inherited = Some(&network.groups).filter(|groups| !groups.is_empty());
        Self {
            port_security,
            groups: port.groups.as_ref().or(inherited).filter(|_| port_security),
            isolated: port.isolated.unwrap_or(network.isolated),
        }
    }
}
