//! Guests' NICs: which port each has, and the fast way from a tap to a port that is up.

use super::{Attachment, CommandError, Engine, ImportMemo, Notice, Outlets, Problem, View};
use crate::{
    backend::{Driver, Store},
    datapath::Change as KernelChange,
    diff::{Scope, diff},
    intent::{
        Change, Device, NicRequest, NicSource, PortId, Resolution, ResolveError, Segment, SubnetId, changes_for,
        resolve,
    },
    libvirt::domain_xml::{self, Domain, Nic},
    net::IfName,
    planner::{Input, plan_ports, port_of_alias},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// A NIC that is ours and its port.
#[derive(Debug, Clone)]
pub(super) struct Claimed {
    pub port: PortId,
    pub tap: Option<IfName>,
    pub nic: NicRequest,
}

/// Whether a NIC is on the bridge that its network had before it was taken over: libvirt moves it, and cannot once its tap
/// is on ours.
fn waits_for_libvirt(view: &View, nic: &Nic) -> bool {
    let domain_xml::NicSource::Network { name, bridge: Some(bridge), .. } = &nic.source else { return false };
    let left = |memo: &ImportMemo| memo.name == *name && memo.bridge.as_ref() == Some(bridge);
    view.imports.values().filter(|memo| left(memo)).any(|memo| {
        let network = view.intent.network(memo.id());
        network.is_some_and(|network| view.bridge_of(network) != Some(bridge))
    })
}

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    /// Finds, and where needed makes, the ports of a domain's NICs. Those that are not ours are left out. Nothing is
    /// made where any NIC fails.
    pub(super) async fn claim_nics(&mut self, domain: &Domain) -> Result<Vec<Claimed>, ClaimError> {
        let (mut claimed, mut changes) = (Vec::new(), Vec::new());
        let mut fresh_addresses = BTreeSet::new();
        {
            let view = self.view();
            for nic in domain.nics.iter().filter(|nic| !waits_for_libvirt(&view, nic)) {
                let request = request_of(domain, nic);
                let leased = |subnet: SubnetId, address: IpAddr| {
                    fresh_addresses.contains(&address) || leased_to_other(&view, subnet, address, &request)
                };
                let resolution = resolve(&view.intent, &view.host, &request, leased)?;
                let port = match &resolution {
                    Resolution::NotOurs => continue,
                    Resolution::Port(id) => *id,
                    Resolution::New(port) => {
                        if let domain_xml::NicSource::Network { portgroup: Some(group), .. } = &nic.source {
                            let (domain, mac) = (&domain.name, nic.mac);
                            let group: String = group.chars().filter(|c| !c.is_control()).take(64).collect();
                            tracing::warn!(domain, %mac, "its portgroup '{group}' means nothing on a network of vmfabric's; say it of the port");
                        }
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
        let started = tokio::time::Instant::now();
        let outcome = self.try_taps(taps).await;
        if !taps.is_empty() {
            self.view_mut().bring_ups_took.observe(started.elapsed());
        }
        outcome
    }

    async fn try_taps(&mut self, taps: &BTreeMap<IfName, PortId>) -> Result<(), String> {
        let links: BTreeSet<IfName> = taps.keys().cloned().collect();
        let ports: Vec<PortId> = taps.values().copied().collect();
        for round in 0..3 {
            let seen = self.driver.observe_links(&links).await.map_err(|error| error.to_string())?;
            self.merge(&links, seen);
            let (problems, changes) = self.plan_part(&ports, &links).await;
            if let Some(problem) = problems.iter().find(|problem| !problem.partial) {
                return Err(problem.message.clone());
            }
            let (mut limits, changes): (Vec<_>, Vec<_>) = changes.into_iter().partition(KernelChange::is_limit);
            self.yielded.spare(&mut limits);
            self.set_limits(&limits).await;
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
                let (_, left) = self.plan_part(&ports, &links).await;
                if !left.iter().all(KernelChange::is_limit) {
                    return Err(error.to_string());
                }
                continue;
            }
            self.note_done(&changes);
        }
        Ok(())
    }

    /// No guest waits for a rate that cannot be had: the full pass says why.
    async fn set_limits(&mut self, limits: &[KernelChange]) {
        if limits.is_empty() {
            return;
        }
        match self.driver.apply(limits).await {
            Ok(()) => self.note_done(limits),
            Err(error) => {
                tracing::warn!(%error, "a port comes up without its rate");
                self.note_done(&limits[..error.done.min(limits.len())]);
                self.mark_dirty();
            }
        }
    }

    pub(super) async fn plan_part(
        &mut self,
        ports: &[PortId],
        links: &BTreeSet<IfName>,
    ) -> (Vec<Problem>, Vec<KernelChange>) {
        let mut plan = {
            let view = self.view();
            let input = Input {
                intent: &view.intent,
                host: &view.host,
                attachments: &self.taps,
                observed: &self.observed,
                previous: &self.previous,
                delegated: &view.delegated,
            };
            plan_ports(input, ports)
        };
        self.fill_listed(&mut plan).await;
        let changes = diff(&self.observed.datapath, &plan.desired, Scope::Links(links));
        (plan.problems, changes)
    }

    /// Takes a fresh look at some links into the picture of the host.
    pub(super) fn merge(&mut self, links: &BTreeSet<IfName>, seen: crate::datapath::Datapath) {
        let picture = &mut self.observed.datapath;
        self.yielded.note(picture, &seen, tokio::time::Instant::now());
        picture.vlans.retain(|(link, _), _| !links.contains(link));
        picture.limits.retain(|(link, _), _| !links.contains(link));
        for link in links.iter().filter(|link| !seen.links.contains_key(*link)) {
            picture.forget_link(link);
        }
        picture.links.extend(seen.links);
        picture.vlans.extend(seen.vlans);
        picture.limits.extend(seen.limits);
    }

    fn verified(&mut self, ports: &[PortId]) {
        for port in ports {
            let mut view = self.view_mut();
            let attachment = view.attachments.get_mut(port);
            let fresh = attachment.is_some_and(|attachment| !std::mem::replace(&mut attachment.verified, true));
            drop(view);
            if fresh {
                self.log_port(*port, "port is up");
                self.notify(Notice::PortChanged(*port));
            }
        }
    }

    fn log_port(&self, port: PortId, what: &str) {
        let view = self.view();
        let Some(known) = view.intent.port(port) else { return };
        let network = view.intent.network(known.network).map(|network| network.name.to_string()).unwrap_or_default();
        let attachment = view.attachments.get(&port);
        let domain = attachment.and_then(|attachment| attachment.guest.as_ref()).or(known.device.as_ref());
        let domain = domain.map(|guest| guest.name.as_str()).unwrap_or_default();
        let tap = attachment.map(|attachment| attachment.tap.as_str()).unwrap_or_default();
        tracing::info!(network, %port, mac = %known.mac, domain, tap, "{what}");
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
        // The tap may have come before it was told whose it is.
        let is_named = known.as_ref().is_some_and(|known| known.guest != guest);
        let verified = known.is_some_and(|known| known.verified);
        view.attachments.insert(port, Attachment { tap, guest, verified });
        drop(view);
        if is_named {
            self.notify(Notice::PortChanged(port));
        }
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
    pub(super) fn forget_tap(&mut self, port: PortId) -> bool {
        if self.taps.remove(&port).is_some() {
            self.log_port(port, "port is down");
        }
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

    pub(super) fn is_local(&self, port: PortId) -> bool {
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
        .is_some_and(|lease| lease.mac != nic.mac && lease.expires > view.lease_clock.now())
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
        wish_groups: wish.security_groups,
        wish_port_security: wish.port_security,
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
