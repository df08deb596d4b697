//! What the DHCP servers tell: leases, and what keeps guests from them.

use super::{Engine, Notice, Outlets, Problem, Subject};
use crate::{
    backend::{Driver, LeaseRecord, Store},
    intent::{Intent, NetworkId, SubnetId},
    protocol::{dhcpv4::Event, dhcpv6},
    server::dhcpv4::DhcpEvent,
};
use std::net::IpAddr;

/// What may keep guests of a network from leases, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    Store,
    Interface,
    PoolFull(SubnetId),
    /// As many of these as the engine keeps in quarantine.
    Conflict(IpAddr),
}

impl Trouble {
    /// Whether somebody is still served whom it could trouble: a server tells of its last trouble when what it served may be
    /// gone already, and of that nobody tells when the trouble is over.
    pub(super) fn concerns(self, intent: &Intent, network: NetworkId) -> bool {
        match self {
            Self::PoolFull(subnet) => intent.subnet(subnet).is_some(),
            Self::Conflict(address) => intent.subnets_of(network).any(|subnet| subnet.cidr.contains(&address)),
            Self::Store | Self::Interface => {
                intent.subnets_of(network).any(|subnet| subnet.dhcp || subnet.ipv6_mode.is_some())
            }
        }
    }
}

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    pub(super) async fn take_lease_event(&mut self, event: DhcpEvent) {
        match event {
            DhcpEvent::Protocol(Event::LeaseGranted(lease)) => self.lease_granted((&lease).into()),
            DhcpEvent::Protocol(
                Event::LeaseReleased(lease) | Event::LeaseExpired(lease) | Event::LeaseDropped(lease),
            ) => self.lease_ended(&(&lease).into()),
            DhcpEvent::Protocol(Event::AddressDeclined(lease)) => self.address_declined(&(&lease).into()),
            DhcpEvent::Protocol6(event) => self.take_ipv6_event(event),
            DhcpEvent::Lagged { network } => {
                tracing::warn!(%network, "more lease events than can be taken; reading the store");
                self.reload_leases().await;
            }
            other => self.note_dhcp_trouble(other),
        }
    }

    fn take_ipv6_event(&mut self, event: dhcpv6::Event) {
        use dhcpv6::Event as V6;
        match event {
            V6::LeaseGranted(lease) => self.lease_granted((&lease).into()),
            V6::LeaseReleased(lease) | V6::LeaseExpired(lease) | V6::LeaseDropped(lease) => {
                self.lease_ended(&(&lease).into());
            }
            V6::AddressDeclined(lease) => self.address_declined(&(&lease).into()),
            V6::PoolExhausted { network, subnet } => {
                self.note_dhcp_trouble(DhcpEvent::Protocol(Event::PoolExhausted { network, subnet }));
            }
            V6::PoolRecovered { network, subnet } => {
                self.note_dhcp_trouble(DhcpEvent::Protocol(Event::PoolRecovered { network, subnet }));
            }
            V6::PortLimited { network, mac } => {
                self.note_dhcp_trouble(DhcpEvent::Protocol(Event::PortLimited { network, mac }));
            }
            V6::QuarantineEnded { network, address } => {
                self.set_trouble(NetworkId(network), Trouble::Conflict(address.into()), None);
            }
        }
    }

    fn address_declined(&mut self, lease: &LeaseRecord) {
        self.lease_ended(lease);
        let text = format!(
            "guest {} found {} in use by somebody else and declined it; it rests for 10 minutes",
            lease.mac, lease.address
        );
        self.set_trouble(NetworkId(lease.network), Trouble::Conflict(lease.address), Some(text));
    }

    fn lease_granted(&mut self, lease: LeaseRecord) {
        let network = NetworkId(lease.network);
        // Its name is in DNS already: the outlets see to that when it is stored.
        let delegated = lease.prefix_length.is_some();
        self.view_mut().leases.insert((network, lease.address), lease);
        self.note_delegated(delegated);
        self.notify(Notice::LeasesChanged(network));
    }

    fn lease_ended(&mut self, lease: &LeaseRecord) {
        let network = NetworkId(lease.network);
        let old = self.view_mut().leases.remove(&(network, lease.address));
        self.note_delegated(lease.prefix_length.is_some());
        // One that runs out stays in the store as it is, which the outlets do not hear of.
        if old.is_some_and(|old| old.host_name.is_some()) {
            self.touched.insert(network);
        }
        self.notify(Notice::LeasesChanged(network));
    }

    /// Routes lead to delegated prefixes, and filters let them speak.
    fn note_delegated(&mut self, concerned: bool) {
        if concerned && self.view_mut().take_delegated() {
            self.mark_dirty();
        }
    }

    async fn reload_leases(&mut self) {
        match self.store.load().await {
            Ok(loaded) => {
                self.view_mut().take_leases(loaded.leases);
                self.touch_all();
                // Prefixes may have been delegated.
                self.mark_dirty();
            }
            Err(error) => tracing::warn!(%error, "leases cannot be read"),
        }
    }

    /// What keeps guests from leases is said where people look.
    fn note_dhcp_trouble(&mut self, event: DhcpEvent) {
        match event {
            DhcpEvent::Protocol(Event::PoolExhausted { network, subnet }) => {
                let id = SubnetId(subnet);
                let text =
                    "no address is free for more guests: its pools are full; widen them, or shorten its lease time";
                self.set_trouble(NetworkId(network), Trouble::PoolFull(id), Some(text.to_owned()));
                if Trouble::PoolFull(id).concerns(&self.view().intent, NetworkId(network)) {
                    self.view_mut().full_pools.insert(id);
                    self.notify(Notice::SubnetChanged(id));
                }
            }
            DhcpEvent::Protocol(Event::PoolRecovered { network, subnet }) => {
                let id = SubnetId(subnet);
                self.set_trouble(NetworkId(network), Trouble::PoolFull(id), None);
                self.view_mut().full_pools.remove(&id);
                self.notify(Notice::SubnetChanged(id));
            }
            DhcpEvent::Protocol(Event::AddressConflict { network, address, mac, .. }) => {
                let text = format!(
                    "{address} is in use by {mac}, which has no lease; it is not given to guests. Take it out of the pools, \
                     or make a port with this address for {mac}"
                );
                self.set_trouble(NetworkId(network), Trouble::Conflict(address.into()), Some(text));
            }
            DhcpEvent::Protocol(Event::QuarantineEnded { network, address }) => {
                self.set_trouble(NetworkId(network), Trouble::Conflict(address.into()), None);
            }
            DhcpEvent::Protocol(Event::PortLimited { network, mac }) => {
                tracing::warn!(%network, %mac, "a guest asks for more addresses than one port may hold");
            }
            DhcpEvent::StoreFailed { network, reason } => {
                let text = format!("no new leases are granted, as they cannot be stored: {reason}");
                self.set_trouble(NetworkId(network), Trouble::Store, Some(text));
            }
            DhcpEvent::StoreRecovered { network } => self.set_trouble(NetworkId(network), Trouble::Store, None),
            DhcpEvent::InterfaceLost { network, interface } => {
                let text = format!("no DHCP: its interface {interface} is gone or down");
                self.set_trouble(NetworkId(network), Trouble::Interface, Some(text));
            }
            DhcpEvent::InterfaceBack { network, .. } => self.set_trouble(NetworkId(network), Trouble::Interface, None),
            DhcpEvent::Protocol(_) | DhcpEvent::Protocol6(_) | DhcpEvent::Lagged { .. } => {}
        }
    }

    fn set_trouble(&mut self, network: NetworkId, trouble: Trouble, text: Option<String>) {
        let concerns = trouble.concerns(&self.view().intent, network);
        let subject = match trouble {
            Trouble::PoolFull(subnet) => Subject::Subnet(subnet),
            _ => Subject::Network(network),
        };
        match text.filter(|_| concerns) {
            Some(text) => drop(self.dhcp_problems.insert((network, trouble), Problem::new(subject, text))),
            None => drop(self.dhcp_problems.remove(&(network, trouble))),
        }
    }
}
