//! What the kernel tells of links: taps that come and go, and whatever our networks stand on.

use super::{Engine, Outlets, Subject};
use crate::{
    backend::{Driver, LinkEvent, Store},
    datapath::{Change, Family, Link, Sysctl, link_element},
    intent::{Bridging, PortId},
    net::IfName,
    planner::{BOUND, port_of_alias},
};
use std::collections::{BTreeMap, BTreeSet};

/// What a message of a link means.
enum Seen {
    /// A new tap, whose port waited for it.
    Waited(PortId),
    /// Something about the tap of this port is not as it was.
    Changed(PortId),
    Nothing,
}

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    pub(super) async fn take_link_events(&mut self, events: Vec<LinkEvent>) {
        let (mut taps, mut changed) = (BTreeMap::new(), BTreeMap::new());
        for event in events {
            match event {
                LinkEvent::Gone { name } => {
                    taps.remove(&name);
                    changed.remove(&name);
                    self.link_gone(&name).await;
                }
                LinkEvent::Link { name, link, mac } => match self.link_seen(&name, link, mac) {
                    Seen::Waited(port) => drop(taps.insert(name, port)),
                    Seen::Changed(port) => drop(changed.insert(name, port)),
                    Seen::Nothing => drop(taps.remove(&name)),
                },
                LinkEvent::Tables => {
                    tracing::warn!("somebody changed nftables table vmfabric; it is put right");
                    self.mark_dirty();
                }
                LinkEvent::TablesGone => {
                    tracing::warn!("somebody deleted nftables table vmfabric; it is made anew");
                    self.restore_tables().await;
                    self.mark_dirty();
                }
                LinkEvent::Layer3 | LinkEvent::Limits | LinkEvent::Neighbours | LinkEvent::Overrun => {
                    self.mark_dirty();
                }
            }
        }
        if !changed.is_empty() {
            self.look_again(&changed).await;
        }
        if taps.is_empty() {
            return;
        }
        for (tap, port) in &taps {
            self.attach(*port, tap.clone(), None);
        }
        let ready = self.bring_up_taps(&taps).await;
        if let Err(error) = ready {
            tracing::warn!(%error, "ports of new taps are not up yet");
            self.mark_dirty();
        }
    }

    /// Guests are unfiltered: their filters are made from what is known of the host, before it is looked at.
    async fn restore_tables(&mut self) {
        self.observed.datapath.tables.clear();
        let (_, mut changes) = self.plan_now().await;
        changes.retain(|change| matches!(change, Change::ReplaceTable { .. }));
        match self.driver.apply(&changes).await {
            Ok(()) => self.note_done(&changes),
            Err(error) => tracing::warn!(%error, "filters are not back yet"),
        }
    }

    /// Bound taps changed. Mostly that is the echo of what was done here, which is told from what others did by a look
    /// at these links alone, where a full pass would look at all.
    async fn look_again(&mut self, taps: &BTreeMap<IfName, PortId>) {
        let links: BTreeSet<IfName> = taps.keys().cloned().collect();
        match self.driver.observe_links(&links).await {
            Ok(seen) => self.merge(&links, seen),
            Err(_) => return self.mark_dirty(),
        }
        // The end of one that is gone meanwhile is told next.
        let there = &self.observed.datapath.links;
        let ports: Vec<PortId> = taps.iter().filter(|(tap, _)| there.contains_key(*tap)).map(|(_, p)| *p).collect();
        let (problems, changes) = self.plan_part(&ports, &links).await;
        // Limits have an event of their own, which waits for whoever is about to put another there.
        if problems.iter().any(|problem| !problem.partial) || !changes.iter().all(Change::is_limit) {
            self.mark_dirty();
        }
    }

    async fn link_gone(&mut self, name: &IfName) {
        let known = self.observed.datapath.links.contains_key(name);
        self.observed.datapath.forget_link(name);
        let ports: Vec<PortId> = self.taps.iter().filter(|(_, tap)| *tap == name).map(|(port, _)| *port).collect();
        self.forget_filters(name).await;
        // A tap on a local network takes with it all that was there for it alone; others leave VLANs on the uplink.
        let complained = |port: &PortId| self.plan_problems.iter().any(|p| p.subject == Subject::Port(*port));
        let local = !ports.is_empty() && ports.iter().all(|port| self.is_local(*port) && !complained(port));
        if (known || !ports.is_empty()) && !local {
            self.mark_dirty();
        }
        ports.into_iter().for_each(|port| self.tap_gone(port));
    }

    /// Takes a link that is gone out of the sets, `bound` first: its name must not let the next tap that gets it speak.
    async fn forget_filters(&mut self, name: &IfName) {
        let Some(table) = self.observed.datapath.tables.get(&Family::Bridge) else { return };
        let mut changes: Vec<Change> = (table.sets.iter())
            .map(|(set, content)| (set.clone(), content.of_link(name).cloned().collect::<BTreeSet<_>>()))
            .filter(|(_, elements)| !elements.is_empty())
            .map(|(set, elements)| Change::DeleteElements { family: Family::Bridge, set, elements })
            .collect();
        if changes.is_empty() {
            return;
        }
        let counting = table.sets.iter().filter(|(_, content)| content.is_dynamic());
        changes.extend(counting.map(|(set, _)| Change::ForgetElements {
            family: Family::Bridge,
            set: set.clone(),
            elements: [link_element(name)].into(),
        }));
        changes.sort_by_key(|change| !matches!(change, Change::DeleteElements { set, .. } if set == BOUND));
        match self.driver.apply(&changes).await {
            Ok(()) => self.note_done(&changes),
            Err(error) => {
                tracing::warn!(%error, "a tap that is gone is still known to the filters");
                self.mark_dirty();
            }
        }
    }

    /// A port's tap is gone: the guest stopped, or the NIC was unplugged.
    pub(super) fn tap_gone(&mut self, port: PortId) {
        let domain = self.view().intent.port(port).and_then(|port| port.device.as_ref()).map(|device| device.domain);
        self.forget_tap(port);
        // libvirt told of the NIC's end before the kernel did.
        if self.leaving.remove(&port)
            && let Some(domain) = domain
        {
            self.outlets.refresh_domain(domain);
        }
    }

    /// Takes in a link's new state.
    fn link_seen(&mut self, name: &IfName, link: Link, mac: Option<[u8; 6]>) -> Seen {
        // One that leaves out the kind tells of a port's VLANs or state.
        let whole = link.kind.is_some();
        let picture = &mut self.observed.datapath;
        let before = picture.links.get(name).cloned();
        let known = before.clone().unwrap_or_default();
        // What a message leaves out stays as it was.
        let link = Link {
            kind: link.kind.or(known.kind),
            master: link.master.or(known.master),
            up: link.up.or(known.up),
            mtu: link.mtu.or(known.mtu),
            mac: link.mac.or(known.mac),
            alias: link.alias.or(known.alias),
        };
        picture.links.insert(name.clone(), link.clone());
        let same = whole
            && before.as_ref().is_some_and(|b| {
                b.kind == link.kind && b.master == link.master && b.up == link.up && b.alias == link.alias
            });
        if let Some((port, _)) = self.taps.iter().find(|(_, tap)| *tap == name) {
            // Nothing new may be what a look at the plan has shown before, and nobody has mended.
            return if same && self.is_in_place(*port, &link) { Seen::Nothing } else { Seen::Changed(*port) };
        }
        if self.is_infrastructure(name, &link) {
            // A bridge's own follows its ports', at every guest that comes.
            let resized = link.bridge().is_none() && before.as_ref().is_some_and(|before| before.mtu != link.mtu);
            if !same || resized {
                self.mark_dirty();
            }
            return Seen::Nothing;
        }
        // The kernel forwards IPv6 for guests, and so for whatever comes: others' links are kept out of it one by one.
        if before.is_none() && self.previous.get(&Sysctl::Ipv6ForwardingPath).is_some_and(|value| value == "0") {
            self.mark_dirty();
        }
        // Also where nothing is new about it: a pass, or a message of the same batch, may have shown it before.
        let Some(master) = link.master().filter(|master| self.is_served_bridge(master)) else { return Seen::Nothing };
        match self.port_for_tap(master, mac) {
            Some(port) => Seen::Waited(port),
            None => {
                if !same {
                    // Only libvirt knows whose tap it is.
                    self.outlets.refresh();
                }
                Seen::Nothing
            }
        }
    }

    /// Whether a link is as the tap of this port should be, as far as a message tells.
    fn is_in_place(&self, port: PortId, link: &Link) -> bool {
        let view = self.view();
        let network = view.intent.port(port).and_then(|port| view.intent.network(port.network));
        let bridge = network.and_then(|network| view.bridge_of(network));
        let ours = link.owned_for().and_then(port_of_alias) == Some(port);
        ours && link.up == Some(true) && link.master() == bridge
    }

    fn is_infrastructure(&self, name: &IfName, link: &Link) -> bool {
        let view = self.view();
        let physical = view.host.physical_networks.values().any(|physical| match &physical.bridging {
            Bridging::Own { uplink, bridge, .. } => uplink == name || bridge == name,
            Bridging::Existing { bridge } => bridge == name,
        });
        link.is_owned() || physical || view.host.egress.contains(name)
    }

    fn is_served_bridge(&self, bridge: &IfName) -> bool {
        let view = self.view();
        view.host.physical_networks.values().any(|physical| physical.bridge() == bridge)
            || view.intent.networks().any(|network| network.bridge.as_ref() == Some(bridge))
    }

    /// The one port on the networks of this bridge that waits for a tap whose MAC address ends so; libvirt makes a
    /// tap's address from its guest's (see [`crate::net::MacAddr::tail`]).
    fn port_for_tap(&self, bridge: &IfName, mac: Option<[u8; 6]>) -> Option<PortId> {
        let [_, a, b, c, d, e] = mac?;
        let view = self.view();
        let here = |port: &&crate::intent::Port| {
            let network = view.intent.network(port.network);
            network.and_then(|network| view.bridge_of(network)) == Some(bridge) && !self.taps.contains_key(&port.id)
        };
        let mut waiting = view.intent.ports_with_tail([a, b, c, d, e]).filter(here);
        let first = waiting.next()?;
        waiting.next().is_none().then_some(first.id)
    }
}
