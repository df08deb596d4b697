use super::{Context, vlans::entries};
use crate::{
    datapath::{BridgeSettings, Change, Link, LinkChange, LinkKind, Sysctl},
    net::IfName,
};
use std::collections::BTreeSet;

/// How a link that is ours and there already relates to the one that is desired.
enum Fit {
    Same,
    /// It must be deleted and made anew.
    Remake,
    Missing,
}

impl Context<'_> {
    fn fit(&self, name: &IfName, want: &Link) -> Fit {
        let Some(have) = self.observed.links.get(name) else { return Fit::Missing };
        match (&have.kind, &want.kind) {
            (_, None) => Fit::Same,
            (Some(LinkKind::Bridge(_)), Some(LinkKind::Bridge(_))) => Fit::Same,
            (Some(have), Some(want)) if have == want => Fit::Same,
            _ => Fit::Remake,
        }
    }

    /// Lets go of what is ours and no longer wanted.
    pub(super) fn release_links(&mut self) {
        if !self.scope.is_full() {
            return;
        }
        for (link, address) in &self.observed.addresses {
            let ours = self.desired.links.get(link).is_some_and(|want| want.kind.is_some());
            if ours && !address_is_kernels(address) && !self.desired.addresses.contains(&(link.clone(), *address)) {
                self.changes.push(Change::DeleteAddress { link: link.clone(), address: *address });
            }
        }
        let gone = self.observed.routes.iter().filter(|route| !self.desired.routes.contains(*route));
        self.changes.extend(gone.map(|route| Change::DeleteRoute(route.clone())));
        let (mut stacked, mut base, mut released) = (Vec::new(), Vec::new(), Vec::new());
        for (name, have) in self.observed.links.iter().filter(|(_, have)| have.is_owned()) {
            let want = self.desired.links.get(name);
            let goes = match want {
                None => true,
                Some(want) => matches!(self.fit(name, want), Fit::Remake),
            };
            match &have.kind {
                _ if !goes => {}
                Some(LinkKind::Vlan { .. }) => stacked.push(name),
                Some(LinkKind::Bridge(_)) => base.push(name),
                _ => released.push(name),
            }
        }
        for name in released {
            let vlans = entries(&self.observed.vlans, name);
            self.changes.extend(vlans.into_keys().map(|vid| Change::DeleteVlan { link: name.clone(), vid }));
            let change = LinkChange { master: Some(None), alias: Some(String::new()), ..LinkChange::default() };
            self.changes.push(Change::SetLink { name: name.clone(), change });
        }
        // A VLAN interface goes with its bridge, so it goes first.
        let gone = stacked.into_iter().chain(base);
        self.changes.extend(gone.map(|name| Change::DeleteLink { name: name.clone() }));
    }

    pub(super) fn make_bridges(&mut self) {
        for (name, want) in &self.desired.links {
            if let Some(LinkKind::Bridge(_)) = &want.kind {
                self.make_or_set(name, want);
            }
        }
    }

    /// Makes a link that is ours, down, or sets right what differs of the one that is there.
    fn make_or_set(&mut self, name: &IfName, want: &Link) {
        match (self.fit(name, want), self.observed.links.get(name)) {
            (Fit::Same, Some(have)) => {
                let mut change = self.attribute_change(have, want);
                if let (Some(is), Some(settings)) = (have.bridge(), want.bridge()) {
                    set_bridge(&mut change, is, settings);
                }
                self.push_set(name, change);
            }
            _ => {
                let link = Link { up: Some(false), ..want.clone() };
                self.changes.push(Change::CreateLink { name: name.clone(), link });
            }
        }
    }

    /// Puts ports on their bridges, and ports and bridges into their VLANs.
    pub(super) fn place_links(&mut self) {
        for link in self.links_with_vlans() {
            let mut moved = false;
            if let (Some(want), Some(have)) = (self.desired.links.get(&link), self.observed.links.get(&link))
                && want.kind.is_none()
            {
                let change = self.place_change(have, want);
                moved = change.master.is_some();
                self.push_set(&link, change);
            }
            let changes = self.vlan_changes(&link, moved || self.is_made(&link));
            self.changes.extend(changes);
        }
    }

    /// The links that there are, or are about to be, whose VLANs are ours to say: those placed by the plan, and every
    /// port of a bridge of ours, whoever put it there.
    fn links_with_vlans(&self) -> BTreeSet<IfName> {
        let observed = &self.observed.links;
        let ours = |name: &IfName| self.desired.links.get(name).is_some_and(|want| want.kind.is_some());
        let placed = self.desired.links.iter().filter(|(_, want)| want.kind.is_none()).map(|(name, _)| name);
        let wanted = self.desired.vlans.keys().map(|(link, _)| link);
        let mut links: BTreeSet<IfName> =
            placed.chain(wanted).filter(|name| observed.contains_key(*name) || ours(name)).cloned().collect();
        if self.scope.is_full() {
            // What is ours and not wanted was released before.
            let stray = self.observed.vlans.keys().map(|(link, _)| link).filter(|name| match observed.get(name) {
                Some(have) => ours(name) || !have.is_owned() && have.master().is_some_and(ours),
                None => false,
            });
            links.extend(stray.cloned());
        }
        links
    }

    /// Whether the changes make this link, so that nothing observed of it counts.
    fn is_made(&self, name: &IfName) -> bool {
        self.desired.links.get(name).is_some_and(|want| !matches!(self.fit(name, want), Fit::Same))
    }

    pub(super) fn make_gateways(&mut self) {
        for (name, want) in &self.desired.links {
            if let Some(LinkKind::Vlan { .. }) = &want.kind {
                self.make_or_set(name, want);
            }
        }
        // A link without IPv6 takes no IPv6 address.
        self.set_sysctls(|key| matches!(key, Sysctl::Ipv6Disabled(_)));
        for (link, address) in &self.desired.addresses {
            if self.is_made(link) || !self.observed.addresses.contains(&(link.clone(), *address)) {
                self.changes.push(Change::AddAddress { link: link.clone(), address: *address });
            }
        }
    }

    pub(super) fn set_other_sysctls(&mut self) {
        self.set_sysctls(|key| !matches!(key, Sysctl::Ipv6Disabled(_)));
    }

    fn set_sysctls(&mut self, which: impl Fn(&Sysctl) -> bool) {
        for (key, value) in self.desired.sysctls.iter().filter(|(key, _)| which(key)) {
            if key.link().is_some_and(|link| self.is_made(link)) || self.observed.sysctls.get(key) != Some(value) {
                self.changes.push(Change::SetSysctl { key: key.clone(), value: value.clone() });
            }
        }
    }

    pub(super) fn raise_links(&mut self) {
        // Bridges first: a port that is up on a bridge that is down carries nothing, and a VLAN interface cannot be
        // up before what it is on.
        let mut links: Vec<_> = self.desired.links.iter().collect();
        links.sort_by_key(|(_, want)| !matches!(want.kind, Some(LinkKind::Bridge(_))));
        for (name, want) in links {
            let exists = self.observed.links.contains_key(name);
            let made = want.kind.is_some();
            let have = self.observed.links.get(name).filter(|_| !self.is_made(name));
            let is_up = have.and_then(|have| have.up).unwrap_or(false);
            if (exists || made) && want.up.is_some_and(|up| up != is_up) {
                let change = LinkChange { up: want.up, ..LinkChange::default() };
                self.changes.push(Change::SetLink { name: name.clone(), change });
            }
        }
    }

    /// Routes lead by links that are up.
    pub(super) fn add_routes(&mut self) {
        for route in &self.desired.routes {
            if self.is_made(&route.link) || !self.observed.routes.contains(route) {
                self.changes.push(Change::AddRoute(route.clone()));
            }
        }
    }

    /// What must change for a link to be where it belongs, short of raising it.
    pub(super) fn place_change(&self, have: &Link, want: &Link) -> LinkChange {
        let mut change = self.attribute_change(have, want);
        if want.master().is_some_and(|master| self.is_made(master)) {
            change.master = want.master.clone();
        }
        change
    }

    fn attribute_change(&self, have: &Link, want: &Link) -> LinkChange {
        LinkChange {
            master: want.master.clone().filter(|_| want.master != have.master),
            mtu: want.mtu.filter(|_| want.mtu != have.mtu),
            mac: want.mac.filter(|_| want.mac != have.mac),
            alias: want.alias.clone().filter(|_| want.alias != have.alias),
            ..LinkChange::default()
        }
    }

    fn push_set(&mut self, name: &IfName, change: LinkChange) {
        if !change.is_empty() {
            self.changes.push(Change::SetLink { name: name.clone(), change });
        }
    }
}

fn set_bridge(change: &mut LinkChange, have: &BridgeSettings, want: &BridgeSettings) {
    change.vlan_filtering = Some(want.vlan_filtering).filter(|_| want.vlan_filtering != have.vlan_filtering);
    change.default_pvid = want.default_pvid.filter(|_| want.default_pvid != have.default_pvid);
}

/// IPv6 link-local addresses come and go with the kernel's own mind.
fn address_is_kernels(address: &crate::net::IpNet) -> bool {
    matches!(address, crate::net::IpNet::V6(net) if net.addr().is_unicast_link_local())
}
