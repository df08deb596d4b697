//! Packet filters that others run on this host, and the entries that they provide for.
//!
//! What one table accepts another may still drop. Docker, ufw and firewalld each have a place for entries of others; ours
//! are told from theirs by a comment ([`TAG`]) or by a zone of our own ([`ZONE`]).

use crate::net::{IfName, protocol};
use std::{collections::BTreeSet, fmt};

/// The comment of each of our entries in a chain of iptables.
pub const TAG: &str = "vmfabric";

/// Our zone of firewalld.
pub const ZONE: &str = "vmfabric";

/// A place for our entries in a packet filter that others run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Neighbour {
    /// A chain of iptables' table `filter`.
    Chain(Iptables, UserChain),
    /// firewalld's zone [`ZONE`].
    Firewalld,
}

/// One of the four sets of tables that go by the name of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iptables {
    /// x_tables' own, rather than nftables'.
    pub legacy: bool,
    pub ipv6: bool,
}

/// A chain that its owner makes for others' entries and does not fill itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserChain {
    /// Docker, "Packet filtering and firewalls": passed before Docker's own rules.
    DockerUser,
    /// ufw-framework(8): rules of `ufw route`.
    UfwForward,
    /// ufw-framework(8): rules about the host itself.
    UfwInput,
}

/// What an entry lets pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Admission {
    /// What is forwarded to a link; from one link alone, where it says so.
    Forward { from: Option<IfName>, to: IfName },
    /// What comes in by a link for a port of the host.
    Service { from: IfName, protocol: u8, port: u16 },
    /// The link is in our zone.
    Zone(IfName),
}

/// What keeps guests' packets, and is not ours to change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// There are chains of iptables for our entries, and no program that puts them there.
    NoProgram(Iptables),
    /// firewalld runs and does not know our zone.
    NoZone,
    /// A base chain drops what it does not know.
    Chain { family: String, table: String, chain: String, hook: String, links: BTreeSet<IfName> },
}

impl Iptables {
    pub const ALL: [Iptables; 4] = [
        Iptables { legacy: false, ipv6: false },
        Iptables { legacy: false, ipv6: true },
        Iptables { legacy: true, ipv6: false },
        Iptables { legacy: true, ipv6: true },
    ];

    /// `iptables-nft`, `ip6tables-legacy`.
    pub fn program(self) -> &'static str {
        match (self.legacy, self.ipv6) {
            (false, false) => "iptables-nft",
            (false, true) => "ip6tables-nft",
            (true, false) => "iptables-legacy",
            (true, true) => "ip6tables-legacy",
        }
    }
}

impl UserChain {
    pub const ALL: [UserChain; 3] = [UserChain::DockerUser, UserChain::UfwForward, UserChain::UfwInput];

    pub fn name(self, ipv6: bool) -> &'static str {
        match (self, ipv6) {
            (UserChain::DockerUser, _) => "DOCKER-USER",
            (UserChain::UfwForward, false) => "ufw-user-forward",
            (UserChain::UfwForward, true) => "ufw6-user-forward",
            (UserChain::UfwInput, false) => "ufw-user-input",
            (UserChain::UfwInput, true) => "ufw6-user-input",
        }
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Neighbour::Chain(tables, chain) => write!(f, "{} chain {}", tables.program(), chain.name(tables.ipv6)),
            Neighbour::Firewalld => write!(f, "firewalld zone {ZONE}"),
        }
    }
}

impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Admission::Forward { from: None, to } => write!(f, "accept to {to}"),
            Admission::Forward { from: Some(from), to } => write!(f, "accept {from} to {to}"),
            Admission::Service { from, protocol, port } => {
                write!(f, "accept from {from} to {}/{port}", protocol::name(*protocol))
            }
            Admission::Zone(link) => write!(f, "{link}"),
        }
    }
}
