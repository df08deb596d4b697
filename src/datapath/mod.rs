//! The state of a host's kernel as values: one vocabulary for what is there and for what should be.
//!
//! In desired state an attribute that is `None` is not ours to say; in observed state it is not known.

mod apply;
mod change;
mod connection;
mod limit;
mod link;
mod neighbour;
mod table;

pub use change::{Change, LinkChange, Mismatch};
pub use connection::{Connection, Tuple, TupleUpper};
pub use limit::{Bandwidth, Limit, Way};
pub use link::{Address, BridgeSettings, Link, LinkKind, OWNED, VlanEntry, owned_alias};
pub use neighbour::{Admission, Iptables, Neighbour, Obstacle, TAG, UserChain, ZONE};
pub use table::{BOUND, Family, Hold, Set, Table, Text, element_link, link_element};

use crate::net::{IfName, Ipv6Net, VlanId};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

/// What the kernel has, or is to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Datapath {
    pub links: BTreeMap<IfName, Link>,
    /// VLANs that a bridge port, or a bridge itself, belongs to.
    pub vlans: BTreeMap<(IfName, VlanId), VlanEntry>,
    pub addresses: BTreeSet<(IfName, Address)>,
    /// Our own routes, to prefixes that guests were delegated.
    pub routes: BTreeSet<Route>,
    /// What bounds links' traffic; observed: whoever made it.
    pub limits: BTreeMap<(IfName, Way), Limit>,
    pub sysctls: BTreeMap<Sysctl, String>,
    /// Our own nftables tables, each named `vmfabric`.
    pub tables: BTreeMap<Family, Table>,
    /// Our entries in packet filters that others run. Observed: each that is there, with entries or without.
    pub admissions: BTreeMap<Neighbour, BTreeSet<Admission>>,
}

/// A route of ours, known by its protocol number (`RTPROT`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub destination: Ipv6Net,
    pub via: Ipv6Addr,
    pub link: IfName,
}

/// A kernel parameter under `/proc/sys` (kernel `Documentation/networking/ip-sysctl.rst`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sysctl {
    /// `net.ipv4.conf.LINK.forwarding`: 0 or 1.
    Ipv4Forwarding(IfName),
    /// `net.ipv6.conf.LINK.disable_ipv6`: 0 or 1.
    Ipv6Disabled(IfName),
    /// `net.ipv6.conf.LINK.accept_ra`: 0, 1 (where the link does not forward) or 2.
    Ipv6AcceptRa(IfName),
    /// `net.ipv6.conf.LINK.forwarding`: 0, as a host, or 1, as a router. Whether packets are forwarded at all does not
    /// follow from it.
    Ipv6Forwarding(IfName),
    /// `net.ipv6.conf.all.forwarding`: whether packets are forwarded. Setting it leaves the links' own settings as they
    /// were, which the kernel alone would not.
    Ipv6ForwardingPath,
}

impl Sysctl {
    /// `None`: of the host.
    pub fn link(&self) -> Option<&IfName> {
        match self {
            Sysctl::Ipv4Forwarding(link)
            | Sysctl::Ipv6Disabled(link)
            | Sysctl::Ipv6AcceptRa(link)
            | Sysctl::Ipv6Forwarding(link) => Some(link),
            Sysctl::Ipv6ForwardingPath => None,
        }
    }

    /// Its path below `/proc/sys`.
    pub fn path(&self) -> String {
        match self {
            Sysctl::Ipv4Forwarding(link) => format!("net/ipv4/conf/{link}/forwarding"),
            Sysctl::Ipv6Disabled(link) => format!("net/ipv6/conf/{link}/disable_ipv6"),
            Sysctl::Ipv6AcceptRa(link) => format!("net/ipv6/conf/{link}/accept_ra"),
            Sysctl::Ipv6Forwarding(link) => format!("net/ipv6/conf/{link}/forwarding"),
            Sysctl::Ipv6ForwardingPath => "net/ipv6/conf/all/forwarding".to_owned(),
        }
    }

    /// The parameter at this path, where it is one of these.
    pub fn at(path: &str) -> Option<Self> {
        if path == Sysctl::Ipv6ForwardingPath.path() {
            return Some(Sysctl::Ipv6ForwardingPath);
        }
        let mut parts = path.strip_prefix("net/")?.splitn(4, '/');
        let (family, _, link, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let link = IfName::new(link).ok()?;
        let all = match (family, name) {
            ("ipv4", "forwarding") => Sysctl::Ipv4Forwarding(link),
            ("ipv6", "disable_ipv6") => Sysctl::Ipv6Disabled(link),
            ("ipv6", "accept_ra") => Sysctl::Ipv6AcceptRa(link),
            ("ipv6", "forwarding") => Sysctl::Ipv6Forwarding(link),
            _ => return None,
        };
        (all.path() == path).then_some(all)
    }
}

impl std::fmt::Display for Sysctl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path().replace('/', "."))
    }
}

/// What else is known of a host: facts that plans rest on and that nothing of ours changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    pub datapath: Datapath,
    /// Links that an IPv4 default route leaves by.
    pub default_route_links: BTreeSet<IfName>,
    /// Links that an IPv6 default route leaves by.
    pub default_route_links6: BTreeSet<IfName>,
    /// Links that the kernel, or somebody for it, learnt an IPv6 route on from router advertisements.
    pub advertised_links: BTreeSet<IfName>,
    pub capabilities: Capabilities,
    /// What others' packet filters do that ours cannot mend.
    pub obstacles: BTreeSet<Obstacle>,
    /// Links that somebody has put into another zone of firewalld than ours.
    pub zoned: BTreeSet<IfName>,
}

/// Parts that kernels may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// `CONFIG_BRIDGE_VLAN_FILTERING`.
    pub bridge_vlan_filtering: bool,
    /// `CONFIG_NFT_BRIDGE_META`: `meta ibrname`, without which no rule can speak of all ports of a bridge.
    pub nft_bridge_meta: bool,
    /// `CONFIG_NF_CONNTRACK_BRIDGE`: without it nothing knows which bridged packets answer others.
    pub bridge_conntrack: bool,
    /// `CONFIG_NET_SCH_TBF` and `CONFIG_NET_SCH_FQ_CODEL`: a queue that holds back what a link sends.
    pub shaping: bool,
    /// `CONFIG_NET_SCH_INGRESS`, `CONFIG_NET_CLS_MATCHALL` and `CONFIG_NET_ACT_POLICE`: a bound on what comes in.
    pub policing: bool,
    /// `CONFIG_NFT_LOG` and `CONFIG_NF_LOG_SYSLOG`: rules that write into the kernel's log.
    pub nft_log: bool,
    /// Tables that one process holds, and that outlive it: Linux 6.9 with libnftables 1.1.
    pub nft_owner: bool,
}
