//! What becomes of a packet, in words that counters, logs and people share.

use crate::intent::{NetworkId, PortId, ResourceName, SecurityGroupId, SubnetId};
use std::fmt;
use uuid::Uuid;

/// Why a packet is dropped; the name of the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    Vlan,
    Control,
    Mac,
    Ethertype,
    Arp,
    Ip,
    Ip6,
    Nd,
    Dhcp,
    Ra,
    Redirect,
    Options,
    Fragment,
    Isolation,
    Foreign,
    GroupOut,
    GroupIn,
    Host,
    Forward,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Vlan => "vlan",
            Reason::Control => "control",
            Reason::Mac => "mac",
            Reason::Ethertype => "ethertype",
            Reason::Arp => "arp",
            Reason::Ip => "ip",
            Reason::Ip6 => "ip6",
            Reason::Nd => "nd",
            Reason::Dhcp => "dhcp",
            Reason::Ra => "ra",
            Reason::Redirect => "redirect",
            Reason::Options => "options",
            Reason::Fragment => "fragment",
            Reason::Isolation => "isolation",
            Reason::Foreign => "foreign",
            Reason::GroupOut => "group-out",
            Reason::GroupIn => "group-in",
            Reason::Host => "host",
            Reason::Forward => "forward",
        }
    }

    /// The rule that it is, for people.
    pub fn text(self) -> &'static str {
        match self {
            Reason::Vlan => "its VLAN tag is none that the port may use",
            Reason::Control => "guests send no control frames (STP, LLDP, CDP and their like)",
            Reason::Mac => "its source MAC address is not the port's",
            Reason::Ethertype => "only ARP, RARP, IPv4 and IPv6 pass",
            Reason::Arp => "the sender that its ARP names is not the port",
            Reason::Ip => "its IPv4 source address is not the port's",
            Reason::Ip6 => "its IPv6 source address is not the port's",
            Reason::Nd => "the neighbour that it advertises is not the port",
            Reason::Dhcp => "guests are no DHCP servers",
            Reason::Ra => "guests are no routers: no router advertisements",
            Reason::Redirect => "guests send no redirects",
            Reason::Options => "IPv4 options and IPv6 routing headers do not pass",
            Reason::Fragment => "broadcast and multicast do not pass in fragments",
            Reason::Isolation => "isolated ports do not talk with one another",
            Reason::Foreign => "it is for another MAC address",
            Reason::GroupOut => "no rule of the port's security groups lets it out",
            Reason::GroupIn => "no rule of the port's security groups lets it in",
            Reason::Host => {
                "guests reach DHCP, DNS and ping of their gateway on the host, and what host_services names"
            }
            Reason::Forward => "the subnets' forward mode does not let it through the host",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A packet's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drop {
    pub reason: Reason,
    /// The port whose filter it is; `None`: the host's.
    pub port: Option<PortId>,
    /// What is particular, where the reason does not say all; may be empty.
    pub detail: &'static str,
}

/// Why a port's groups let a packet pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// The port is in no filter of groups.
    Unfiltered,
    /// ARP, neighbour discovery, DHCP with our server, router advertisements of the host: they pass always.
    Configuration,
    /// It answers, or belongs to, what was allowed.
    Established,
    Rule {
        group: SecurityGroupId,
        rule: Uuid,
    },
}

/// A layer-2 broadcast domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    Network(NetworkId),
    /// A VLAN that no network is of, and trunks have.
    Vlan {
        physical: ResourceName,
        vid: u16,
    },
}

impl Domain {
    pub fn network(&self) -> Option<NetworkId> {
        match self {
            Domain::Network(id) => Some(*id),
            Domain::Vlan { .. } => None,
        }
    }
}

/// One thing that happens to a packet on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Its source and form are the port's own.
    Secured {
        port: PortId,
    },
    /// Port security is off: neither it nor groups look.
    Unsecured {
        port: PortId,
    },
    Out {
        port: PortId,
        grant: Grant,
    },
    Bridged {
        domain: Domain,
    },
    /// Into the host's IP stack, where it is for the host itself.
    HostService {
        name: &'static str,
    },
    /// Routed; by which subnets' forward mode. `None`: the world outside.
    Routed {
        from: Option<SubnetId>,
        to: Option<SubnetId>,
    },
    /// Leaves with the host's own address.
    Masqueraded {
        subnet: SubnetId,
    },
    In {
        port: PortId,
        grant: Grant,
    },
    /// Out of the host, into a network where no port of ours has the destination.
    Leaves {
        network: Option<NetworkId>,
    },
}

/// What becomes of a packet: the way to its destination, or to what stops it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub steps: Vec<Step>,
    pub outcome: Result<(), Drop>,
}

impl Verdict {
    pub fn is_allowed(&self) -> bool {
        self.outcome.is_ok()
    }
}
