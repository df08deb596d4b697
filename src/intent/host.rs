use super::{HostDns, ResourceName};
use crate::net::{IfName, VlanId};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

/// What the administrator says of this host, from the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostConfig {
    pub physical_networks: BTreeMap<ResourceName, PhysicalNetwork>,
    /// Interfaces that guests' packets may leave by, besides those with a default route.
    pub egress: BTreeSet<IfName>,
    pub dns: HostDns,
    /// What guests may reach of the host itself over their gateways, besides DHCP, DNS and ping.
    pub guest_services: BTreeSet<GuestService>,
}

/// A service of the host: `tcp/3128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestService {
    pub protocol: ServiceProtocol,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceProtocol {
    Tcp,
    Udp,
}

impl ServiceProtocol {
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceProtocol::Tcp => "tcp",
            ServiceProtocol::Udp => "udp",
        }
    }
}

impl std::str::FromStr for GuestService {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is not a service; write tcp/PORT or udp/PORT, as tcp/3128");
        let (protocol, port) = text.split_once('/').ok_or_else(bad)?;
        let protocol = match protocol {
            "tcp" => ServiceProtocol::Tcp,
            "udp" => ServiceProtocol::Udp,
            _ => return Err(bad()),
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        Ok(Self { protocol, port })
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
