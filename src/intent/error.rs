use super::ResourceName;
use crate::net::{IpNet, MacAddr, VlanId};
use std::net::IpAddr;

/// Why a change of the intent is refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntentError {
    #[error("there is no {kind} '{name}'{hint}")]
    NotFound { kind: &'static str, name: String, hint: String },
    #[error("a {kind} named '{name}' exists already; choose another name, or change that one")]
    NameTaken { kind: &'static str, name: String },
    #[error("'{name}' is the name of more than one port; use its id")]
    Ambiguous { name: String },
    #[error(
        "MAC address {mac} is used already on network '{network}' by port {port}; choose another, or delete that port"
    )]
    MacTaken { mac: MacAddr, network: ResourceName, port: String },
    #[error("address {address} is held already by port {port}; choose another, or take it from that port")]
    AddressTaken { address: IpAddr, port: String },
    #[error("address {address} is outside subnet {cidr}; choose one inside it")]
    OutsideSubnet { address: IpAddr, cidr: IpNet },
    #[error("address {address} cannot be given to a guest: it is the {what} of subnet {cidr}")]
    AddressReserved { address: IpAddr, what: &'static str, cidr: IpNet },
    #[error(
        "subnet {cidr} overlaps {other} of network '{network}', and both want an address of the host; choose another block, or forward none without dhcp"
    )]
    SubnetOverlap { cidr: IpNet, other: IpNet, network: ResourceName },
    #[error("subnet {cidr} overlaps {other}, which this host has on {link}; choose another block")]
    HostOverlap { cidr: IpNet, other: IpNet, link: String },
    #[error("{cidr} is not a network address; did you mean {truncated}?")]
    HostBitsSet { cidr: IpNet, truncated: IpNet },
    #[error("subnet {cidr}: {why}")]
    BadSubnet { cidr: IpNet, why: String },
    #[error(
        "no address is free in the pools of network '{network}' ({pools}); widen the pools or delete ports that are not needed"
    )]
    PoolExhausted { network: ResourceName, pools: String },
    #[error(
        "there is no physical network '{name}'; vmfabricd.toml knows {known}. Add [physical_networks.{name}] there and reload"
    )]
    UnknownPhysicalNetwork { name: ResourceName, known: String },
    #[error(
        "VLAN {vid} on physical network '{physical_network}' is network '{network}' already; use that network, or choose another VLAN"
    )]
    VlanTaken { vid: VlanId, physical_network: ResourceName, network: ResourceName },
    #[error(
        "physical network '{physical_network}' already carries the flat network '{network}'; one uplink has one untagged network: use that one, or give this one a VLAN"
    )]
    FlatTaken { physical_network: ResourceName, network: ResourceName },
    #[error(
        "VLAN {vid} is outside {first}-{last}, which vmfabricd.toml allows on physical network '{physical_network}'"
    )]
    VlanNotAllowed { vid: VlanId, physical_network: ResourceName, first: VlanId, last: VlanId },
    #[error(
        "VLAN {vid} is where the bridge of physical network '{physical_network}' keeps untagged frames; use another VLAN, or set native_vlan for it in vmfabricd.toml"
    )]
    VlanIsNative { vid: VlanId, physical_network: ResourceName },
    #[error("security group '{group}' has the rule '{rule}' already")]
    RuleTaken { rule: String, group: ResourceName },
    #[error("{what} is in use by {by}; take it away there first")]
    InUse { what: String, by: String },
    #[error("{0}")]
    Invalid(String),
}

impl IntentError {
    pub(crate) fn not_found(kind: &'static str, name: impl ToString) -> Self {
        IntentError::NotFound { kind, name: name.to_string(), hint: String::new() }
    }
}
