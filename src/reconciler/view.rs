use super::ImportMemo;
use crate::{
    backend::{LeaseRecord, Sender},
    datapath::Capabilities,
    intent::{Device, HostConfig, Intent, Network, NetworkId, Port, PortId, SubnetId},
    net::{IfName, Ipv6Net},
    planner::{DelegatedPrefix, Problem, Subject, gateway_name},
    server::{Histogram, clock::LeaseClock},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What readers see: the intent as committed, and what became of it.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub intent: Intent,
    pub host: HostConfig,
    pub attachments: BTreeMap<PortId, Attachment>,
    pub leases: BTreeMap<(NetworkId, IpAddr), LeaseRecord>,
    /// Those of the leases that are delegated prefixes.
    pub delegated: Vec<DelegatedPrefix>,
    /// What leases' expiries are to be compared with.
    pub lease_clock: LeaseClock,
    /// The DUID of the DHCPv6 servers (RFC 8415 section 11).
    pub server_id: Vec<u8>,
    /// Subnets whose DHCP pools have no address for another guest.
    pub full_pools: BTreeSet<SubnetId>,
    /// What is wrong now, each with what to do about it.
    pub problems: Vec<Problem>,
    /// Networks that were libvirt's, and what they were there.
    pub imports: BTreeMap<NetworkId, ImportMemo>,
    pub capabilities: Capabilities,
    pub libvirt: LibvirtStatus,
    /// Changes that the last full pass made, and how many passes there were.
    pub last_changes: usize,
    pub passes: u64,
    /// Changes that all full passes made, and how many passes failed, so that another followed soon.
    pub changes: u64,
    pub failed_passes: u64,
    pub passes_took: Histogram,
    /// Of ports, until their guests or NICs may go on.
    pub bring_ups_took: Histogram,
}

/// A running guest's NIC on its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub tap: IfName,
    /// `None`: known only from the kernel, until libvirt tells.
    pub guest: Option<Device>,
    /// Its plan is applied and verified.
    pub verified: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LibvirtStatus {
    Connected,
    Disconnected {
        reason: String,
    },
    #[default]
    Connecting,
}

/// A port's state as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortStatus {
    /// No running guest has it.
    Down,
    /// A guest has it and its plan is not verified yet.
    Build,
    Active,
    /// It carries its guest's traffic, but not all that is wanted of it could be done.
    Degraded,
    Error,
}

impl PortStatus {
    pub const ALL: [PortStatus; 5] =
        [PortStatus::Down, PortStatus::Build, PortStatus::Active, PortStatus::Degraded, PortStatus::Error];

    pub fn as_str(self) -> &'static str {
        match self {
            PortStatus::Down => "down",
            PortStatus::Build => "build",
            PortStatus::Active => "active",
            PortStatus::Degraded => "degraded",
            PortStatus::Error => "error",
        }
    }
}

/// The host's state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Ok,
    Degraded,
}

impl View {
    /// Takes up the leases that the store holds. It keeps those that ran out too, so that their clients get the same
    /// address again: these are the servers' to remember.
    pub(super) fn take_leases(&mut self, stored: Vec<LeaseRecord>) {
        let now = self.lease_clock.now();
        let running = stored.into_iter().filter(|lease| lease.expires > now);
        self.leases = running.map(|lease| ((NetworkId(lease.network), lease.address), lease)).collect();
        self.take_delegated();
    }

    /// Whether the delegated prefixes are others than before.
    pub(super) fn take_delegated(&mut self) -> bool {
        let prefix = |lease: &LeaseRecord| match (lease.address, lease.prefix_length) {
            (IpAddr::V6(address), Some(length)) => Ipv6Net::new(address, length).ok(),
            _ => None,
        };
        let delegated = |((network, _), lease): (&(NetworkId, IpAddr), &LeaseRecord)| {
            Some(DelegatedPrefix { network: *network, mac: lease.mac, prefix: prefix(lease)? })
        };
        let delegated: Vec<_> = self.leases.iter().filter_map(delegated).collect();
        let changed = delegated != self.delegated;
        self.delegated = delegated;
        changed
    }

    /// The bridge that a network's ports are on.
    pub fn bridge_of<'a>(&'a self, network: &'a Network) -> Option<&'a IfName> {
        match network.segment.physical_network() {
            None => network.bridge.as_ref(),
            Some(name) => self.host.physical_networks.get(name).map(|physical| physical.bridge()),
        }
    }

    /// As whom a port's guest speaks to the host: by the link that the host is on its network with, and its addresses.
    pub fn senders_of(&self, port: &Port) -> Vec<Sender> {
        let network = self.intent.network(port.network);
        let Some((network, bridge)) = network.and_then(|network| Some((network, self.bridge_of(network)?))) else {
            return Vec::new();
        };
        let link = gateway_name(network, bridge);
        let mut addresses: BTreeSet<IpAddr> = port.addresses().collect();
        addresses.insert(port.mac.link_local().into());
        addresses.into_iter().map(|address| (link.clone(), address)).collect()
    }

    pub fn problems_of(&self, subject: Subject) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(move |problem| problem.subject == subject)
    }

    pub fn port_status(&self, port: PortId) -> PortStatus {
        let mut problems = self.problems_of(Subject::Port(port)).peekable();
        let degraded = problems.peek().is_some();
        if problems.any(|problem| !problem.partial) {
            return PortStatus::Error;
        }
        match self.attachments.get(&port) {
            None => PortStatus::Down,
            Some(attachment) if attachment.verified && degraded => PortStatus::Degraded,
            Some(attachment) if attachment.verified => PortStatus::Active,
            Some(_) => PortStatus::Build,
        }
    }

    pub fn health(&self) -> Health {
        let connected = self.libvirt == LibvirtStatus::Connected;
        if self.problems.is_empty() && connected { Health::Ok } else { Health::Degraded }
    }
}
