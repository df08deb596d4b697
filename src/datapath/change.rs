use super::{
    Address, Admission, Bandwidth, Datapath, Family, Link, Neighbour, Route, Sysctl, Table, Text, VlanEntry, Way,
};
use crate::net::{IfName, MacAddr, VlanId};
use std::{collections::BTreeSet, fmt};

/// One step from an observed state to a desired one. Its text is what `vmfabric plan` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    CreateLink {
        name: IfName,
        link: Link,
    },
    SetLink {
        name: IfName,
        change: LinkChange,
    },
    DeleteLink {
        name: IfName,
    },
    AddVlan {
        link: IfName,
        vid: VlanId,
        entry: VlanEntry,
    },
    DeleteVlan {
        link: IfName,
        vid: VlanId,
    },
    AddAddress {
        link: IfName,
        address: Address,
    },
    DeleteAddress {
        link: IfName,
        address: Address,
    },
    AddRoute(Route),
    DeleteRoute(Route),
    SetSysctl {
        key: Sysctl,
        value: String,
    },
    /// Bounds a link's traffic in one direction, or changes the bound that is there.
    SetLimit {
        link: IfName,
        way: Way,
        limit: Bandwidth,
    },
    /// Takes our bound away.
    DeleteLimit {
        link: IfName,
        way: Way,
    },
    /// Makes the table, or replaces it whole in one transaction.
    ReplaceTable {
        family: Family,
        table: Table,
    },
    /// From now on nobody else changes the table (see [`super::Hold`]).
    ClaimTable {
        family: Family,
    },
    DeleteTable {
        family: Family,
    },
    /// Makes a set or map without elements.
    AddSet {
        family: Family,
        set: String,
        spec: Text,
    },
    DeleteSet {
        family: Family,
        set: String,
    },
    /// Makes a chain, or replaces its rules.
    PutChain {
        family: Family,
        chain: String,
        rules: Text,
    },
    DeleteChain {
        family: Family,
        chain: String,
    },
    AddElements {
        family: Family,
        set: String,
        elements: BTreeSet<String>,
    },
    DeleteElements {
        family: Family,
        set: String,
        elements: BTreeSet<String>,
    },
    /// Takes elements out of a set that packets fill, whether they are in it or not.
    ForgetElements {
        family: Family,
        set: String,
        elements: BTreeSet<String>,
    },
    /// Puts entries of ours into a packet filter that others run.
    Admit {
        at: Neighbour,
        admissions: BTreeSet<Admission>,
    },
    Withdraw {
        at: Neighbour,
        admissions: BTreeSet<Admission>,
    },
}

/// The attributes of a link that change; `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkChange {
    pub master: Option<Option<IfName>>,
    pub up: Option<bool>,
    pub mtu: Option<u32>,
    pub mac: Option<MacAddr>,
    pub alias: Option<String>,
    pub vlan_filtering: Option<bool>,
    pub default_pvid: Option<u16>,
}

impl LinkChange {
    pub fn is_empty(&self) -> bool {
        *self == LinkChange::default()
    }
}

impl Change {
    /// Whether it is about how much a link may carry: no reason to keep a guest waiting.
    pub fn is_limit(&self) -> bool {
        matches!(self, Change::SetLimit { .. } | Change::DeleteLimit { .. })
    }

    /// The table that it changes, of a change of nftables; neighbouring ones go in as one transaction.
    pub fn family(&self) -> Option<Family> {
        match self {
            Change::ReplaceTable { family, .. }
            | Change::ClaimTable { family }
            | Change::DeleteTable { family }
            | Change::AddSet { family, .. }
            | Change::DeleteSet { family, .. }
            | Change::PutChain { family, .. }
            | Change::DeleteChain { family, .. }
            | Change::AddElements { family, .. }
            | Change::DeleteElements { family, .. }
            | Change::ForgetElements { family, .. } => Some(*family),
            _ => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::CreateLink { name, link } => {
                match &link.kind {
                    Some(kind) => write!(f, "+ {kind} {name}")?,
                    None => write!(f, "+ link {name}")?,
                }
                link.mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))
            }
            Change::SetLink { name, change } => write!(f, "~ {name}:{change}"),
            Change::DeleteLink { name } => write!(f, "- link {name}"),
            Change::AddVlan { link, vid, entry } => write!(f, "+ {link}: VLAN {vid} {entry}"),
            Change::DeleteVlan { link, vid } => write!(f, "- {link}: VLAN {vid}"),
            Change::AddAddress { link, address } => write!(f, "+ {link}: address {address}"),
            Change::DeleteAddress { link, address } => write!(f, "- {link}: address {address}"),
            Change::AddRoute(Route { destination, via, link }) => write!(f, "+ {link}: route {destination} via {via}"),
            Change::DeleteRoute(Route { destination, via, link }) => {
                write!(f, "- {link}: route {destination} via {via}")
            }
            Change::SetSysctl { key, value } => write!(f, "~ {key} = {value}"),
            Change::SetLimit { link, way, limit } => write!(f, "~ {link}: {limit} {way}"),
            Change::DeleteLimit { link, way } => write!(f, "- {link}: limit {way}"),
            Change::ReplaceTable { family, table } => {
                let elements: usize = table.sets.values().map(|set| set.elements.len()).sum();
                write!(f, "+ nftables table {family} vmfabric ({elements} elements)")
            }
            Change::ClaimTable { family } => write!(f, "~ nftables table {family} vmfabric: held by vmfabricd alone"),
            Change::DeleteTable { family } => write!(f, "- nftables table {family} vmfabric"),
            Change::AddSet { family, set, .. } => write!(f, "+ nftables {family} set {set}"),
            Change::DeleteSet { family, set } => write!(f, "- nftables {family} set {set}"),
            Change::PutChain { family, chain, rules } => {
                let count = rules.source.lines().count() - usize::from(rules.hook().is_some());
                write!(f, "~ nftables {family} chain {chain}: {count} rules")
            }
            Change::DeleteChain { family, chain } => write!(f, "- nftables {family} chain {chain}"),
            Change::AddElements { family, set, elements } => {
                write!(f, "+ nftables {family} {set}: {}", Listed(elements))
            }
            Change::DeleteElements { family, set, elements } | Change::ForgetElements { family, set, elements } => {
                write!(f, "- nftables {family} {set}: {}", Listed(elements))
            }
            Change::Admit { at, admissions } => write!(f, "+ {at}: {}", Listed(admissions)),
            Change::Withdraw { at, admissions } => write!(f, "- {at}: {}", Listed(admissions)),
        }
    }
}

struct Listed<'a, T>(&'a BTreeSet<T>);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (i, element) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, element.to_string().replace('"', ""))?;
        }
        if self.0.len() > SHOWN { write!(f, " and {} more", self.0.len() - SHOWN) } else { Ok(()) }
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.master {
            Some(Some(master)) => write!(f, " on {master}")?,
            Some(None) => f.write_str(" off its bridge")?,
            None => {}
        }
        if let Some(on) = self.vlan_filtering {
            write!(f, " vlan_filtering {}", u8::from(on))?;
        }
        if let Some(pvid) = self.default_pvid {
            write!(f, " default_pvid {pvid}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        if let Some(mac) = self.mac {
            write!(f, " address {mac}")?;
        }
        if let Some(alias) = &self.alias {
            if alias.is_empty() { f.write_str(" released")? } else { write!(f, " for {alias}")? }
        }
        match self.up {
            Some(true) => f.write_str(" up"),
            Some(false) => f.write_str(" down"),
            None => Ok(()),
        }
    }
}

/// What a change cannot do because the host is not as the plan thought.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("link {0} does not exist")]
    NoLink(IfName),
    #[error("link {0} exists already")]
    LinkExists(IfName),
    #[error("link {0} is not a bridge port")]
    NotAPort(IfName),
    #[error("there is no nftables table {0} vmfabric")]
    NoTable(Family),
    #[error("table {0} vmfabric has no set {1}")]
    NoSet(Family, String),
    #[error("there is no {0}")]
    NoNeighbour(Neighbour),
}

impl Datapath {
    /// The links that a change speaks of must be there: what every driver checks for itself, here for the simulated
    /// one.
    pub(super) fn link_mut(&mut self, name: &IfName) -> Result<&mut Link, Mismatch> {
        self.links.get_mut(name).ok_or_else(|| Mismatch::NoLink(name.clone()))
    }
}
