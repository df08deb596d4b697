//! What each change does to a state: the model that the simulated host runs on, and that keeps the daemon's picture of
//! the real one current between observations.

use super::{
    Admission, Change, Datapath, Family, Hold, Limit, LinkChange, LinkKind, Neighbour, Set, Sysctl, Table, VlanEntry,
    change::Mismatch,
};
use crate::net::{IfName, VlanId};
use std::collections::BTreeSet;

impl Datapath {
    /// Does one change, with what the kernel does along with it.
    pub fn apply(&mut self, change: &Change) -> Result<(), Mismatch> {
        match change {
            Change::CreateLink { name, link } => {
                if self.links.contains_key(name) {
                    return Err(Mismatch::LinkExists(name.clone()));
                }
                if let Some(LinkKind::Vlan { parent, .. }) = &link.kind {
                    self.link_mut(parent)?;
                }
                let mut link = link.clone();
                link.master.get_or_insert(None);
                link.up.get_or_insert(false);
                link.mtu.get_or_insert(1500);
                link.alias.get_or_insert_default();
                self.links.insert(name.clone(), link);
            }
            Change::SetLink { name, change } => self.set_link(name, change)?,
            Change::DeleteLink { name } => {
                self.link_mut(name)?;
                self.forget_link(name);
            }
            Change::AddVlan { link, vid, entry } => {
                let holder = self.link_mut(link)?;
                if !holder.is_bridge() && holder.master().is_none() {
                    return Err(Mismatch::NotAPort(link.clone()));
                }
                if entry.flags().0 {
                    // A port has one PVID: the former holder keeps its VLAN without it.
                    for ((_, _), other) in self.vlans.iter_mut().filter(|((l, v), _)| l == link && v != vid) {
                        *other = VlanEntry::from_flags(false, other.flags().1);
                    }
                }
                self.vlans.insert((link.clone(), *vid), *entry);
            }
            Change::DeleteVlan { link, vid } => {
                self.link_mut(link)?;
                self.vlans.remove(&(link.clone(), *vid));
            }
            Change::AddAddress { link, address } => {
                self.link_mut(link)?;
                self.addresses.insert((link.clone(), *address));
            }
            Change::DeleteAddress { link, address } => {
                self.link_mut(link)?;
                self.addresses.remove(&(link.clone(), *address));
            }
            Change::AddRoute(route) => {
                self.link_mut(&route.link)?;
                self.routes.insert(route.clone());
            }
            Change::DeleteRoute(route) => {
                self.routes.remove(route);
            }
            Change::SetSysctl { key, value } => {
                if let Some(link) = key.link() {
                    self.link_mut(link)?;
                }
                self.sysctls.insert(key.clone(), value.clone());
            }
            Change::SetLimit { link, way, limit } => {
                self.link_mut(link)?;
                self.limits.insert((link.clone(), *way), Limit::Ours(*limit));
            }
            Change::DeleteLimit { link, way } => {
                self.link_mut(link)?;
                self.limits.remove(&(link.clone(), *way));
            }
            Change::ReplaceTable { family, table } => {
                self.tables.insert(*family, table.clone());
            }
            Change::ClaimTable { family } => self.table_mut(*family)?.hold = Hold::Held,
            Change::DeleteTable { family } => {
                self.tables.remove(family).ok_or(Mismatch::NoTable(*family))?;
            }
            Change::AddSet { family, set, spec } => {
                let new = Set { spec: spec.clone(), elements: BTreeSet::new() };
                self.table_mut(*family)?.sets.insert(set.clone(), new);
            }
            Change::DeleteSet { family, set } => {
                self.table_mut(*family)?.sets.remove(set);
            }
            Change::PutChain { family, chain, rules } => {
                self.table_mut(*family)?.chains.insert(chain.clone(), rules.clone());
            }
            Change::DeleteChain { family, chain } => {
                self.table_mut(*family)?.chains.remove(chain);
            }
            Change::AddElements { family, set, elements } => {
                self.set_mut(*family, set)?.elements.extend(elements.iter().cloned());
            }
            // Nothing is noted of such sets.
            Change::ForgetElements { family, set, .. } => drop(self.set_mut(*family, set)?),
            Change::DeleteElements { family, set, elements } => {
                self.set_mut(*family, set)?.elements.retain(|element| !elements.contains(element));
            }
            Change::Admit { at, admissions } => self.admissions_mut(*at)?.extend(admissions.iter().cloned()),
            Change::Withdraw { at, admissions } => {
                self.admissions_mut(*at)?.retain(|admission| !admissions.contains(admission));
            }
        }
        Ok(())
    }

    fn admissions_mut(&mut self, at: Neighbour) -> Result<&mut BTreeSet<Admission>, Mismatch> {
        self.admissions.get_mut(&at).ok_or(Mismatch::NoNeighbour(at))
    }

    fn table_mut(&mut self, family: Family) -> Result<&mut Table, Mismatch> {
        self.tables.get_mut(&family).ok_or(Mismatch::NoTable(family))
    }

    fn set_mut(&mut self, family: Family, set: &str) -> Result<&mut Set, Mismatch> {
        self.table_mut(family)?.sets.get_mut(set).ok_or_else(|| Mismatch::NoSet(family, set.to_owned()))
    }

    fn set_link(&mut self, name: &IfName, change: &LinkChange) -> Result<(), Mismatch> {
        if let Some(Some(master)) = &change.master {
            self.link_mut(master)?;
        }
        let link = self.link_mut(name)?;
        let moved = change.master.is_some() && change.master != link.master;
        link.master = change.master.clone().or(link.master.take());
        link.up = change.up.or(link.up);
        link.mtu = change.mtu.or(link.mtu);
        link.mac = change.mac.or(link.mac);
        link.alias = change.alias.clone().or(link.alias.take());
        if let Some(LinkKind::Bridge(settings)) = &mut link.kind {
            settings.vlan_filtering = change.vlan_filtering.unwrap_or(settings.vlan_filtering);
            settings.default_pvid = change.default_pvid.or(settings.default_pvid);
        }
        if moved {
            self.vlans.retain(|(link, _), _| link != name);
            let pvid = change.master.iter().flatten().find_map(|master| self.links.get(master)?.bridge()?.default_pvid);
            if let Some(pvid) = pvid.and_then(|pvid| VlanId::new(pvid).ok()) {
                self.vlans.insert((name.clone(), pvid), VlanEntry::Native);
            }
        }
        Ok(())
    }

    /// Removes a link and all that the kernel removes with it.
    pub fn forget_link(&mut self, name: &IfName) {
        self.links.remove(name);
        self.vlans.retain(|(link, _), _| link != name);
        self.addresses.retain(|(link, _)| link != name);
        self.routes.retain(|route| route.link != *name);
        self.limits.retain(|(link, _), _| link != name);
        self.sysctls.retain(|key: &Sysctl, _| key.link() != Some(name));
        let ports: Vec<IfName> =
            self.links.iter().filter(|(_, link)| link.master() == Some(name)).map(|(port, _)| port.clone()).collect();
        for port in ports {
            self.vlans.retain(|(link, _), _| *link != port);
            self.links.entry(port).and_modify(|link| link.master = Some(None));
        }
        let stacked: Vec<IfName> = self
            .links
            .iter()
            .filter(|(_, link)| matches!(&link.kind, Some(LinkKind::Vlan { parent, .. }) if parent == name))
            .map(|(name, _)| name.clone())
            .collect();
        stacked.iter().for_each(|child| self.forget_link(child));
    }
}
