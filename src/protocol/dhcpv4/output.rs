use super::{CLIENT_PORT, Lease, LeaseChange, Origin, SERVER_PORT, UnixSeconds};
use crate::{net::MacAddr, protocol::lease::End};
use std::net::{Ipv4Addr, SocketAddrV4};
use uuid::Uuid;

/// Where a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    pub source: SocketAddrV4,
    /// Source of the frame. A client that speaks for itself must put the same one into `chaddr`.
    pub mac: MacAddr,
    /// Through which port of the host it came.
    pub origin: Origin,
}

/// Where a reply goes (RFC 2131 section 4.1). Unicast names the link-layer address too: a client that has no address
/// yet cannot answer ARP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Unicast { address: Ipv4Addr, mac: MacAddr },
    Broadcast,
    Relay { address: Ipv4Addr, mac: MacAddr },
}

impl Destination {
    pub fn socket_addr(&self) -> SocketAddrV4 {
        match *self {
            Self::Unicast { address, .. } => SocketAddrV4::new(address, CLIENT_PORT),
            Self::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
            Self::Relay { address, .. } => SocketAddrV4::new(address, SERVER_PORT),
        }
    }

    /// `None` for broadcast.
    pub fn mac(&self) -> Option<MacAddr> {
        match *self {
            Self::Unicast { mac, .. } | Self::Relay { mac, .. } => Some(mac),
            Self::Broadcast => None,
        }
    }
}

/// A UDP payload, to be sent from the scope's server address, port 67.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub payload: Vec<u8>,
    pub destination: Destination,
}

/// Something for the outside to know. Losing one loses no correctness: the store has every lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Granted or renewed, and on disk.
    LeaseGranted(Lease),
    LeaseReleased(Lease),
    LeaseExpired(Lease),
    /// No longer fits the scope: its port or subnet is gone, or its address is now reserved for another.
    LeaseDropped(Lease),
    /// A client found its address in use by somebody else.
    AddressDeclined(Lease),
    /// Somebody uses an address of the pools without a lease; it rests.
    AddressConflict {
        network: Uuid,
        subnet: Uuid,
        address: Ipv4Addr,
        mac: MacAddr,
    },
    /// A declined or conflicting address is tried again.
    QuarantineEnded {
        network: Uuid,
        address: Ipv4Addr,
    },
    /// A port asked for more addresses than it may hold. Not told for each.
    PortLimited {
        network: Uuid,
        mac: MacAddr,
    },
    /// Reported when it becomes so, not for each client that gets nothing.
    PoolExhausted {
        network: Uuid,
        subnet: Uuid,
    },
    /// There are addresses again.
    PoolRecovered {
        network: Uuid,
        subnet: Uuid,
    },
}

#[derive(Debug)]
#[must_use]
pub enum Output {
    Send(Datagram),
    /// To be stored; then [`confirm`](super::Engine::confirm) or [`abandon`](super::Engine::abandon) must follow.
    Persist(Commit),
    Report(Event),
    /// To be looked for on the link; then [`probed`](super::Engine::probed) must follow.
    Probe(Ipv4Addr),
}

/// A change on its way to the disk, with the reply that waits for it. Commits may be confirmed in any order: the
/// engine never has two for one address in flight.
#[derive(Debug)]
#[must_use = "a commit that is neither confirmed nor abandoned locks its address"]
pub struct Commit {
    pub(super) ticket: u64,
    pub(super) change: LeaseChange,
    pub(super) end: Option<End>,
    pub(super) reply: Option<Datagram>,
    pub(super) asked_at: UnixSeconds,
    /// Stores a lease that there was not.
    pub(super) new: bool,
}

impl Commit {
    /// Whether it adds to what is stored; a renewal does not.
    pub fn is_new(&self) -> bool {
        self.new
    }

    pub fn change(&self) -> &LeaseChange {
        &self.change
    }
}
