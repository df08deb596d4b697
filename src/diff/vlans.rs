use super::Context;
use crate::{
    datapath::{Change, VlanEntry},
    net::{IfName, VlanId},
};
use std::collections::BTreeMap;

impl Context<'_> {
    /// The changes of one link's VLANs. `moved`: it is about to join its bridge, so that it has what the bridge gives
    /// to every new port.
    pub(super) fn vlan_changes(&self, link: &IfName, moved: bool) -> Vec<Change> {
        let want: BTreeMap<VlanId, VlanEntry> = entries(&self.desired.vlans, link);
        let have = if moved { self.given_to_new_ports(link) } else { entries(&self.observed.vlans, link) };
        let mut changes = Vec::new();
        if self.scope.prunes(link) {
            // Out of the old VLAN before into the new one: never in both.
            let gone = have.keys().filter(|vid| !want.contains_key(vid));
            changes.extend(gone.map(|vid| Change::DeleteVlan { link: link.clone(), vid: *vid }));
        }
        let mut missing: Vec<_> = want.iter().filter(|(vid, entry)| have.get(vid) != Some(entry)).collect();
        // A new PVID takes that flag from its former holder, which is then set right.
        missing.sort_by_key(|(_, entry)| **entry != VlanEntry::Native);
        changes.extend(missing.into_iter().map(|(vid, entry)| Change::AddVlan {
            link: link.clone(),
            vid: *vid,
            entry: *entry,
        }));
        changes
    }

    fn given_to_new_ports(&self, link: &IfName) -> BTreeMap<VlanId, VlanEntry> {
        let master = self.desired.links.get(link).and_then(|link| link.master());
        let pvid = master.and_then(|master| self.observed.links.get(master)?.bridge()?.default_pvid);
        pvid.and_then(|pvid| VlanId::new(pvid).ok()).map(|vid| (vid, VlanEntry::Native)).into_iter().collect()
    }
}

pub(super) fn entries(vlans: &BTreeMap<(IfName, VlanId), VlanEntry>, link: &IfName) -> BTreeMap<VlanId, VlanEntry> {
    let from = (link.clone(), VlanId::LOWEST);
    vlans.range(from..).take_while(|((l, _), _)| l == link).map(|((_, vid), entry)| (*vid, *entry)).collect()
}
