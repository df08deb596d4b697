//! Guests' NICs: which port each has, and the fast way from a tap to a port that is up.

use super::{
    Attachment, CommandError, Engine, LibvirtStatus, Notice, Outlets, Problem, Subject, View, commands::unix_now,
};
use crate::{
    backend::{Driver, LinkEvent, Store, Write},
    datapath::{Change as KernelChange, Family, Link},
    diff::{Scope, diff},
    intent::{
        Bridging, Change, Device, NetworkId, NicRequest, NicSource, PortId, Resolution, ResolveError, Segment,
        SubnetId, changes_for, resolve,
    },
    libvirt::{
        DomainState, LibvirtEvent,
        domain_xml::{self, Domain, Nic},
        publish::PublishedNetwork,
    },
    net::IfName,
    planner::{BOUND, Input, plan_ports, port_of_alias},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use uuid::Uuid;

/// A NIC that is ours and its port.
#[derive(Debug, Clone)]
pub(super) struct Claimed {
    pub port: PortId,
    pub tap: Option<IfName>,
    pub nic: NicRequest,
}

/// What a message of a link means.
enum Seen {
    /// A new tap, whose port waited for it.
    Waited(PortId),
    /// Something about the tap of this port is not as it was.
    Changed(PortId),
    Nothing,
}

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    /// Finds, and where needed makes, the ports of a domain's NICs. Those that are not ours are left out. Nothing is
    /// made where any NIC fails.
    pub(super) async fn claim_nics(&mut self, domain: &Domain) -> Result<Vec<Claimed>, ClaimError> {
        let (mut claimed, mut changes) = (Vec::new(), Vec::new());
        let mut fresh_addresses = BTreeSet::new();
        {
            let view = self.view();
            for nic in &domain.nics {
                let request = request_of(domain, nic);
                let leased = |subnet: SubnetId, address: IpAddr| {
                    fresh_addresses.contains(&address) || leased_to_other(&view, subnet, address, &request)
                };
                let resolution = resolve(&view.intent, &view.host, &request, leased)?;
                let port = match &resolution {
                    Resolution::NotOurs => continue,
                    Resolution::Port(id) => *id,
                    Resolution::New(port) => {
                        fresh_addresses.extend(port.fixed_ips.iter().map(|ip| ip.address));
                        port.id
                    }
                };
                changes.extend(changes_for(&view.intent, &resolution, &request));
                claimed.push(Claimed { port, tap: nic.tap.clone(), nic: request });
            }
        }
        self.refuse_ports_of_others(&claimed).await?;
        let altered = {
            let view = self.view();
            let known =
                |change: &Change| !matches!(change, Change::PutPort(port) if view.intent.port(port.id).is_none());
            changes.iter().any(known)
        };
        self.commit(changes).await?;
        if altered {
            // A port that was there before may leave VLANs behind, on an uplink say.
            self.mark_dirty();
        }
        Ok(claimed)
    }

    /// A port serves one running guest: a second one with the same MAC address would take the first one's network away.
    async fn refuse_ports_of_others(&mut self, claimed: &[Claimed]) -> Result<(), ResolveError> {
        for claim in claimed {
            let (holder, tap) = {
                let view = self.view();
                let Some(held) = view.attachments.get(&claim.port) else { continue };
                match &held.guest {
                    Some(guest) if guest.domain != claim.nic.domain => (guest.clone(), held.tap.clone()),
                    _ => continue,
                }
            };
            // Its end may be on the way to us still.
            let links = BTreeSet::from([tap.clone()]);
            let there = self.driver.observe_links(&links).await.is_ok_and(|seen| seen.links.contains_key(&tap));
            if there {
                return Err(ResolveError {
                    mac: claim.nic.mac,
                    guest: claim.nic.domain_name.clone(),
                    why: format!(
                        "its port is in use by guest '{}', whose NIC has the same MAC address; give one of them another",
                        holder.name
                    ),
                });
            }
            self.detach(claim.port);
        }
        Ok(())
    }

    /// Brings these ports up and verifies them. The outcome is true for each port by itself.
    pub(super) async fn bring_up(&mut self, claimed: &[Claimed]) -> Result<(), String> {
        let mut taps = BTreeMap::new();
        for claim in claimed {
            let Some(tap) = &claim.tap else { continue };
            self.attach(claim.port, tap.clone(), Some(claim.nic.guest()));
            taps.insert(tap.clone(), claim.port);
        }
        self.bring_up_taps(&taps).await
    }

    pub(super) async fn bring_up_taps(&mut self, taps: &BTreeMap<IfName, PortId>) -> Result<(), String> {
        let links: BTreeSet<IfName> = taps.keys().cloned().collect();
        let ports: Vec<PortId> = taps.values().copied().collect();
        for round in 0..3 {
            let seen = self.driver.observe_links(&links).await.map_err(|error| error.to_string())?;
            self.merge(&links, seen);
            let (problems, changes) = self.plan_part(&ports, &links);
            if let Some(problem) = problems.first() {
                return Err(problem.message.clone());
            }
            if changes.is_empty() {
                self.verified(&ports);
                return Ok(());
            }
            if round == 2 {
                return Err(format!("this does not stick, as if somebody takes it back: {}", changes[0]));
            }
            if let Err(error) = self.driver.apply(&changes).await {
                self.note_done(&changes[..error.done.min(changes.len())]);
                // The table may be gone, or a bridge: the whole pass mends what a part cannot.
                self.full_pass().await;
                let (_, left) = self.plan_part(&ports, &links);
                if !left.is_empty() {
                    return Err(error.to_string());
                }
                continue;
            }
            self.note_done(&changes);
        }
        Ok(())
    }

    fn plan_part(&self, ports: &[PortId], links: &BTreeSet<IfName>) -> (Vec<Problem>, Vec<KernelChange>) {
        let view = self.view();
        let input = Input {
            intent: &view.intent,
            host: &view.host,
            attachments: &self.taps,
            observed: &self.observed,
            previous: &self.previous,
        };
        let plan = plan_ports(input, ports);
        let changes = diff(&self.observed.datapath, &plan.desired, Scope::Links(links));
        (plan.problems, changes)
    }

    /// Takes a fresh look at some links into the picture of the host.
    fn merge(&mut self, links: &BTreeSet<IfName>, seen: crate::datapath::Datapath) {
        let picture = &mut self.observed.datapath;
        picture.vlans.retain(|(link, _), _| !links.contains(link));
        for link in links.iter().filter(|link| !seen.links.contains_key(*link)) {
            picture.forget_link(link);
        }
        picture.links.extend(seen.links);
        picture.vlans.extend(seen.vlans);
    }

    fn verified(&mut self, ports: &[PortId]) {
        for port in ports {
            let mut view = self.view_mut();
            let attachment = view.attachments.get_mut(port);
            let fresh = attachment.is_some_and(|attachment| !std::mem::replace(&mut attachment.verified, true));
            drop(view);
            if fresh {
                self.notify(Notice::PortChanged(*port));
            }
        }
    }

    /// Notes that a port's guest runs with this tap.
    pub(super) fn attach(&mut self, port: PortId, tap: IfName, guest: Option<Device>) {
        let old = self.taps.insert(port, tap.clone());
        self.leaving.remove(&port);
        // A tap serves one port: it may have served another before its guest was redefined.
        let others: Vec<PortId> =
            self.taps.iter().filter(|(p, t)| **p != port && **t == tap).map(|(p, _)| *p).collect();
        others.into_iter().for_each(|other| self.detach(other));
        if old.as_ref().is_some_and(|old| *old != tap) {
            self.mark_dirty();
        }
        let mut view = self.view_mut();
        let known = view.attachments.get(&port).filter(|known| known.tap == tap).cloned();
        let guest = guest.or(known.as_ref().and_then(|known| known.guest.clone()));
        let is_new = known.is_none();
        let verified = known.is_some_and(|known| known.verified);
        view.attachments.insert(port, Attachment { tap, guest, verified });
        drop(view);
        if is_new {
            self.touch_shared(port);
        }
    }

    /// Ends what was noted of a port's tap; a full pass takes away what only this port needed.
    pub(super) fn detach(&mut self, port: PortId) {
        if self.forget_tap(port) {
            self.mark_dirty();
        }
    }

    /// Whether there was a tap to forget.
    fn forget_tap(&mut self, port: PortId) -> bool {
        self.taps.remove(&port);
        let was = self.view_mut().attachments.remove(&port).is_some();
        if was {
            self.touch_shared(port);
            self.notify(Notice::PortChanged(port));
        }
        was
    }

    /// Who is here decides what is served on networks that other hosts share; on a local one all are here.
    fn touch_shared(&mut self, port: PortId) {
        if !self.is_local(port) {
            let network = self.view().intent.port(port).map(|port| port.network);
            self.touched.extend(network);
        }
    }

    fn is_local(&self, port: PortId) -> bool {
        let view = self.view();
        let network = view.intent.port(port).and_then(|port| view.intent.network(port.network));
        network.is_some_and(|network| network.segment == Segment::Local)
    }

    /// Takes over the ports that taps' aliases tell of: what a former daemon had bound is bound.
    pub(super) fn adopt_taps(&mut self) {
        let adopted: Vec<(PortId, IfName)> = {
            let view = self.view();
            let links = self.observed.datapath.links.iter();
            let named = links.filter_map(|(name, link)| Some((port_of_alias(link.owned_for()?)?, name.clone())));
            named.filter(|(port, _)| view.intent.port(*port).is_some()).collect()
        };
        for (port, tap) in adopted {
            tracing::info!(%port, %tap, "adopted");
            self.attach(port, tap, None);
        }
    }

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
                LinkEvent::Layer3 | LinkEvent::Overrun => self.mark_dirty(),
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
        let (problems, changes) = self.plan_part(&ports, &links);
        if !problems.is_empty() || !changes.is_empty() {
            self.mark_dirty();
        }
    }

    async fn link_gone(&mut self, name: &IfName) {
        let known = self.observed.datapath.links.contains_key(name);
        self.observed.datapath.forget_link(name);
        let ports: Vec<PortId> = self.taps.iter().filter(|(_, tap)| *tap == name).map(|(port, _)| *port).collect();
        // The name must not let the next tap that gets it speak.
        let table = self.observed.datapath.tables.get(&Family::Bridge);
        if table.and_then(|table| table.sets.get(BOUND)).is_some_and(|bound| bound.contains(name.as_str())) {
            let elements = BTreeSet::from([name.to_string()]);
            let change = KernelChange::DeleteElements { family: Family::Bridge, set: BOUND.to_owned(), elements };
            match self.driver.apply(std::slice::from_ref(&change)).await {
                Ok(()) => self.note_done(&[change]),
                Err(error) => {
                    tracing::warn!(%error, "a tap that is gone is still allowed to speak");
                    self.mark_dirty();
                }
            }
        }
        // A tap on a local network takes with it all that was there for it alone; others leave VLANs on the uplink.
        let complained = |port: &PortId| self.plan_problems.iter().any(|p| p.subject == Subject::Port(*port));
        let local = !ports.is_empty() && ports.iter().all(|port| self.is_local(*port) && !complained(port));
        if (known || !ports.is_empty()) && !local {
            self.mark_dirty();
        }
        ports.into_iter().for_each(|port| self.tap_gone(port));
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
            if !same {
                self.mark_dirty();
            }
            return Seen::Nothing;
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

    pub(super) async fn take_libvirt_event(&mut self, event: LibvirtEvent) {
        match event {
            LibvirtEvent::Connected { version } => {
                tracing::info!(version, "libvirt is connected");
                self.set_libvirt(LibvirtStatus::Connected);
                self.publish();
            }
            LibvirtEvent::Disconnected { reason } => {
                tracing::info!(reason, "libvirt is not connected; what runs stays as it is");
                self.set_libvirt(LibvirtStatus::Disconnected { reason });
            }
            LibvirtEvent::Inventory(domains) => self.take_inventory(domains).await,
            LibvirtEvent::Domain(state) => self.take_domain(&state).await,
            LibvirtEvent::Gone { uuid } => {
                self.guest_problems.remove(&uuid);
                self.delete_guest_ports(&BTreeSet::from([uuid])).await;
            }
            LibvirtEvent::Published(published) => self.take_published(published).await,
        }
    }

    fn set_libvirt(&mut self, status: LibvirtStatus) {
        self.view_mut().libvirt = status;
        self.notify(Notice::StatusChanged);
    }

    async fn take_inventory(&mut self, domains: Vec<DomainState>) {
        let known: BTreeSet<Uuid> = domains.iter().map(|state| state.uuid).collect();
        for state in &domains {
            self.take_domain(state).await;
        }
        let orphans: BTreeSet<Uuid> = {
            let view = self.view();
            let devices = view.intent.ports().filter_map(|port| port.device.as_ref()).map(|device| device.domain);
            devices.filter(|domain| !known.contains(domain)).collect()
        };
        self.guest_problems.retain(|domain, _| known.contains(domain));
        self.delete_guest_ports(&orphans).await;
        self.mark_dirty();
    }

    async fn take_domain(&mut self, state: &DomainState) {
        let domain = match &state.definition {
            Ok(domain) => domain,
            Err(error) => {
                let message = format!("guest '{}' cannot be read, so its NICs stay as they are: {error}", state.name);
                self.guest_problems.insert(state.uuid, vec![Problem::new(Subject::Host, message)]);
                return;
            }
        };
        for warning in &domain.warnings {
            tracing::warn!(domain = %state.name, "{warning}");
        }
        if state.active
            && let Err(problems) = self.take_active(domain).await
        {
            self.guest_problems.insert(state.uuid, problems);
            return;
        }
        self.guest_problems.remove(&state.uuid);
        self.drop_unplugged(state.uuid, domain).await;
    }

    async fn take_active(&mut self, domain: &Domain) -> Result<(), Vec<Problem>> {
        let claimed = self.claim_nics(domain).await.map_err(|error| {
            vec![Problem::new(Subject::Host, format!("guest '{}' is not connected: {error}", domain.name))]
        })?;
        let (placed, fresh): (Vec<_>, Vec<_>) =
            claimed.into_iter().filter(|c| c.tap.is_some()).partition(|c| self.taps.get(&c.port) == c.tap.as_ref());
        for claim in placed {
            let mut view = self.view_mut();
            if let Some(attachment) = view.attachments.get_mut(&claim.port) {
                attachment.guest = Some(claim.nic.guest());
            }
        }
        for claim in fresh {
            let (port, network) = (claim.port, self.view().intent.port(claim.port).map(|port| port.network));
            if let Err(error) = self.bring_up(&[claim]).await {
                tracing::warn!(domain = %domain.name, ?network, %error, "a port is not up");
                self.mark_dirty();
                return Err(vec![Problem::new(Subject::Port(port), error)]);
            }
        }
        Ok(())
    }

    /// Ports that a guest's NICs had and that are not in its definition any more go, with their addresses.
    async fn drop_unplugged(&mut self, uuid: Uuid, domain: &Domain) {
        let present: BTreeSet<_> = domain.nics.iter().map(|nic| nic.mac).collect();
        let gone = self.guest_ports(uuid, |port| !present.contains(&port.mac));
        self.delete_unserved(gone).await;
    }

    async fn delete_guest_ports(&mut self, domains: &BTreeSet<Uuid>) {
        let gone = domains.iter().flat_map(|domain| self.guest_ports(*domain, |_| true)).collect();
        self.delete_unserved(gone).await;
    }

    /// The guest-made ports of a domain.
    fn guest_ports(&self, domain: Uuid, pick: impl Fn(&crate::intent::Port) -> bool) -> Vec<PortId> {
        let view = self.view();
        let guest = view.intent.guest_ports_of(domain).into_iter();
        guest.filter(|id| view.intent.port(*id).is_some_and(&pick)).collect()
    }

    /// Deletes those of the ports that no tap serves. libvirt may tell of a NIC's end before the kernel does; where the
    /// tap is still there, its end asks libvirt again.
    async fn delete_unserved(&mut self, ports: Vec<PortId>) {
        let links: BTreeSet<IfName> = ports.iter().filter_map(|port| self.taps.get(port)).cloned().collect();
        if !links.is_empty() {
            match self.driver.observe_links(&links).await {
                Ok(seen) => self.merge(&links, seen),
                Err(error) => tracing::warn!(%error, "links cannot be looked at"),
            }
            let there = &self.observed.datapath.links;
            let gone = |port: &&PortId| self.taps.get(port).is_some_and(|tap| !there.contains_key(tap));
            let gone: Vec<PortId> = ports.iter().filter(gone).copied().collect();
            gone.into_iter().for_each(|port| self.detach(port));
        }
        let (served, unserved): (Vec<_>, Vec<_>) = ports.into_iter().partition(|port| self.taps.contains_key(port));
        self.leaving.extend(served);
        self.delete_ports(unserved).await;
    }

    async fn delete_ports(&mut self, ports: Vec<PortId>) {
        if ports.is_empty() {
            return;
        }
        let leases: Vec<(NetworkId, IpAddr)> = {
            let view = self.view();
            let of_port = |port: &Uuid| ports.contains(&PortId(*port));
            view.leases.iter().filter(|(_, l)| l.port.as_ref().is_some_and(of_port)).map(|(key, _)| *key).collect()
        };
        if let Err(error) = self.commit(ports.into_iter().map(Change::DeletePort).collect()).await {
            tracing::warn!(%error, "ports of guests that are gone cannot be deleted yet");
            return;
        }
        let writes = leases.iter().map(|(n, address)| Write::DeleteLease { network: n.0, address: *address }).collect();
        if let Err(error) = self.store.commit(writes).await {
            tracing::warn!(%error, "leases of guests that are gone cannot be deleted yet");
        }
        self.view_mut().leases.retain(|key, _| !leases.contains(key));
    }

    /// Offers our networks to libvirt.
    pub(super) fn publish(&mut self) {
        let wanted = self.offers();
        self.outlets.publish(wanted, self.published.clone());
    }

    /// The same when there are others than before: what libvirt is given is on disk first, so that it can be taken back
    /// whatever happens.
    pub(super) async fn publish_anew(&mut self) {
        let fresh: BTreeSet<Uuid> =
            self.offers().into_iter().map(|offer| offer.uuid).filter(|uuid| !self.published.contains(uuid)).collect();
        if !fresh.is_empty() {
            if let Err(error) = self.store.commit(fresh.iter().copied().map(Write::PutPublished).collect()).await {
                tracing::warn!(%error, "networks cannot be offered to libvirt yet");
                self.retry_later(true);
                return;
            }
            self.published.extend(fresh);
        }
        self.publish();
    }

    pub(super) fn has_unpublished(&self) -> bool {
        self.offers().iter().any(|offer| !self.published.contains(&offer.uuid))
    }

    fn offers(&self) -> Vec<PublishedNetwork> {
        let view = self.view();
        let offer = |network: &crate::intent::Network| {
            let bridge = view.bridge_of(network)?.clone();
            Some(PublishedNetwork { uuid: network.id.0, name: network.name.to_string(), bridge })
        };
        view.intent.networks().filter_map(offer).collect()
    }

    async fn take_published(&mut self, published: crate::libvirt::Published) {
        self.libvirt_problems.clear();
        for (uuid, result) in &published.networks {
            if let Err(error) = result {
                let problem = Problem::new(Subject::Network(NetworkId(*uuid)), error.to_string());
                self.libvirt_problems.insert(*uuid, problem);
            }
        }
        for (uuid, error) in &published.not_removed {
            self.libvirt_problems.insert(*uuid, Problem::new(Subject::Host, error.to_string()));
        }
        if published.removed.is_empty() {
            return;
        }
        let writes = published.removed.iter().map(|uuid| Write::DeletePublished(*uuid)).collect();
        match self.store.commit(writes).await {
            Ok(()) => self.published.retain(|uuid| !published.removed.contains(uuid)),
            Err(error) => tracing::warn!(%error, "a network that libvirt gave back cannot be forgotten yet"),
        }
    }
}

/// Why a domain's NICs have no ports.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Whether an address is leased, by DHCP alone, to somebody else than this NIC.
fn leased_to_other(view: &View, subnet: SubnetId, address: IpAddr, nic: &NicRequest) -> bool {
    let network = view.intent.subnet(subnet).map(|subnet| subnet.network);
    network
        .and_then(|network| view.leases.get(&(network, address)))
        .is_some_and(|lease| lease.mac != nic.mac && lease.expires > unix_now())
}

pub(super) fn request_of(domain: &Domain, nic: &Nic) -> NicRequest {
    let wish = nic.wish.clone().unwrap_or_default();
    let vlan = nic.vlan.clone().or(wish.vlan);
    NicRequest {
        domain: domain.uuid,
        domain_name: domain.name.clone(),
        mac: nic.mac,
        source: source_of(&nic.source),
        wish_network: wish.network,
        wish_port: wish.port,
        vlans: vlan.as_ref().map(|vlan| vlan.tags.iter().copied().collect()).unwrap_or_default(),
        native_vlan: vlan.as_ref().and_then(|vlan| vlan.native),
        trunk: vlan.as_ref().is_some_and(|vlan| vlan.trunk),
    }
}

/// A NIC's source in the intent's words.
pub fn source_of(source: &domain_xml::NicSource) -> NicSource {
    match source {
        domain_xml::NicSource::Network { name, bridge, .. } => {
            NicSource::Network { name: name.clone(), bridge: bridge.clone() }
        }
        domain_xml::NicSource::Bridge { name } => NicSource::Bridge(name.clone()),
        domain_xml::NicSource::Ethernet => NicSource::Ethernet,
        domain_xml::NicSource::Other => NicSource::Other,
    }
}
