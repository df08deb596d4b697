//! What libvirt tells of guests, and the networks that it is offered.

use super::{Engine, LibvirtStatus, Notice, Outlets, Problem, Subject};
use crate::{
    backend::{Driver, Store, Write},
    intent::{Change, NetworkId, PortId},
    libvirt::{DomainState, LibvirtEvent, domain_xml::Domain, publish::PublishedNetwork},
    net::IfName,
};
use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
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
        let changes = ports.into_iter().map(Change::DeletePort).collect();
        let writes = leases.iter().map(|(n, address)| Write::DeleteLease { network: n.0, address: *address }).collect();
        if let Err(error) = self.commit_with(changes, writes).await {
            tracing::warn!(%error, "ports of guests that are gone, and their leases, cannot be deleted yet");
            return;
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
        self.notify(Notice::LibvirtNetworksChanged);
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
            Ok(()) => {
                self.published.retain(|uuid| !published.removed.contains(uuid));
                // The request that stands must not take away what another may define under that UUID.
                self.publish();
            }
            Err(error) => tracing::warn!(%error, "a network that libvirt gave back cannot be forgotten yet"),
        }
    }
}
