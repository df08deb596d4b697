use crate::net::{IfName, IpNet, MacAddr, VlanId};
use std::fmt;

/// What the alias (`IFLA_IFALIAS`) of every link of ours begins with; the rest names what it is for.
pub const OWNED: &str = "vmfabric:";

/// The alias of a link that serves `what`.
pub fn owned_alias(what: impl fmt::Display) -> String {
    format!("{OWNED}{what}")
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Desired: `Some` for a link that we make, `None` for one that others make and we only place.
    pub kind: Option<LinkKind>,
    /// `Some(None)`: no master.
    pub master: Option<Option<IfName>>,
    pub up: Option<bool>,
    /// Bytes.
    pub mtu: Option<u32>,
    pub mac: Option<MacAddr>,
    /// Empty: no alias.
    pub alias: Option<String>,
}

/// How a link is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    Bridge(BridgeSettings),
    /// An 802.1Q interface on top of another.
    Vlan {
        parent: IfName,
        id: VlanId,
    },
    /// Any that we do not make; the kernel's name for it, `tun` or `veth` say.
    Other(String),
}

/// What safety rests on in a bridge; read back, since a kernel without VLAN filtering takes the settings and ignores
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeSettings {
    pub vlan_filtering: bool,
    /// 0: a new port belongs to no VLAN. `None` where the kernel has no VLAN filtering.
    pub default_pvid: Option<u16>,
}

/// How a port belongs to a VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VlanEntry {
    /// Frames carry the tag on the wire.
    Tagged,
    /// Untagged frames come in and leave as this VLAN's (PVID, egress untagged).
    Native,
    /// Some other pair of flags, which we never ask for: (pvid, untagged).
    Other(bool, bool),
}

impl VlanEntry {
    pub fn from_flags(pvid: bool, untagged: bool) -> Self {
        match (pvid, untagged) {
            (false, false) => VlanEntry::Tagged,
            (true, true) => VlanEntry::Native,
            other => VlanEntry::Other(other.0, other.1),
        }
    }

    /// (pvid, untagged).
    pub fn flags(self) -> (bool, bool) {
        match self {
            VlanEntry::Tagged => (false, false),
            VlanEntry::Native => (true, true),
            VlanEntry::Other(pvid, untagged) => (pvid, untagged),
        }
    }
}

/// An interface address with its prefix length.
pub type Address = IpNet;

impl Link {
    /// Whether we made it, or have placed it.
    pub fn is_owned(&self) -> bool {
        self.owned_for().is_some()
    }

    /// What the link serves, where it is ours: a port's id for a tap.
    pub fn owned_for(&self) -> Option<&str> {
        self.alias.as_deref().and_then(|alias| alias.strip_prefix(OWNED))
    }

    pub fn master(&self) -> Option<&IfName> {
        self.master.as_ref().and_then(Option::as_ref)
    }

    pub fn is_bridge(&self) -> bool {
        matches!(self.kind, Some(LinkKind::Bridge(_)))
    }

    pub fn bridge(&self) -> Option<&BridgeSettings> {
        match &self.kind {
            Some(LinkKind::Bridge(settings)) => Some(settings),
            _ => None,
        }
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkKind::Bridge(settings) if settings.vlan_filtering => f.write_str("VLAN-aware bridge"),
            LinkKind::Bridge(_) => f.write_str("bridge"),
            LinkKind::Vlan { parent, id } => write!(f, "VLAN {id} interface on {parent}"),
            LinkKind::Other(kind) => write!(f, "{kind} link"),
        }
    }
}

impl fmt::Display for VlanEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VlanEntry::Tagged => f.write_str("tagged"),
            VlanEntry::Native => f.write_str("untagged"),
            VlanEntry::Other(pvid, untagged) => write!(f, "pvid={pvid} untagged={untagged}"),
        }
    }
}
