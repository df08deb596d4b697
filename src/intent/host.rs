use super::{HostDns, IntentError, ResourceName};
use crate::net::{IfName, VlanId, protocol};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    str::FromStr,
};

/// What the administrator says of this host, from the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostConfig {
    pub physical_networks: BTreeMap<ResourceName, PhysicalNetwork>,
    /// Interfaces that guests' packets may leave by, besides those with a default route.
    pub egress: BTreeSet<IfName>,
    pub dns: HostDns,
    /// Names of the security groups that new networks get.
    pub default_security_groups: Vec<ResourceName>,
    /// What of this host guests may reach over its gateways, besides DHCP, DNS and ping.
    pub host_services: BTreeSet<HostService>,
    /// Whether a guest's metadata may take port security off its NICs.
    pub metadata_port_security_off: bool,
    /// Whether the kernel's log tells of dropped frames, some of them.
    pub log_drops: bool,
    pub dhcp: DhcpLimits,
}

/// What one guest's port may ask of DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DhcpLimits {
    /// Addresses out of the pools, besides those reserved for the port. 0: no limit.
    pub leases_per_port: u32,
    /// Packets a second. 0: no limit.
    pub packets_per_port: u32,
}

impl Default for DhcpLimits {
    fn default() -> Self {
        Self { leases_per_port: 16, packets_per_port: 100 }
    }
}

/// A port of this host that guests may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostService {
    /// TCP (6), UDP (17), SCTP (132), UDP-Lite (136) or DCCP (33).
    pub protocol: u8,
    pub port: u16,
}

impl FromStr for HostService {
    type Err = IntentError;

    /// `tcp/3128`.
    fn from_str(text: &str) -> Result<Self, IntentError> {
        let parsed = text.split_once('/').and_then(|(protocol, port)| {
            let protocol = protocol::number(protocol).filter(|number| protocol::has_ports(*number))?;
            Some(Self { protocol, port: port.parse().ok().filter(|port| *port != 0)? })
        });
        parsed.ok_or_else(|| IntentError::Invalid(format!("'{text}' is no service; write tcp/3128 or udp/123")))
    }
}

/// A name for an uplink of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhysicalNetwork {
    pub bridging: Bridging,
    /// The VLANs that networks here may use.
    pub vlans: RangeInclusive<VlanId>,
    /// The VLAN that the bridge keeps untagged frames in; a flat network lives there.
    pub native_vlan: VlanId,
}

/// Whose the bridge is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bridging {
    /// Ours, made on this NIC.
    Own {
        uplink: IfName,
        bridge: IfName,
        /// Whether the NIC may be taken although it holds the host's address or default route.
        take_host_nic: bool,
    },
    /// Somebody else's: only our guests' ports on it are ours.
    Existing { bridge: IfName },
}

impl PhysicalNetwork {
    pub fn bridge(&self) -> &IfName {
        match &self.bridging {
            Bridging::Own { bridge, .. } | Bridging::Existing { bridge } => bridge,
        }
    }

    pub fn is_own(&self) -> bool {
        matches!(self.bridging, Bridging::Own { .. })
    }
}
