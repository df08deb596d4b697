use super::{CLIENT_PORT, Origin, SERVER_PORT, UnixSeconds, message::IaKind};
use crate::{
    net::{DnsLabel, Ipv6Net, MacAddr},
    protocol::lease::End,
};
use std::{
    net::{Ipv6Addr, SocketAddrV6},
    sync::Arc,
};
use uuid::Uuid;

/// Where a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    pub address: Ipv6Addr,
    /// Source of the frame.
    pub mac: MacAddr,
    /// Through which port of the host it came.
    pub origin: Origin,
    /// Whether it was sent to one of the host's own addresses.
    pub unicast: bool,
}

/// One identity association of one client behind one NIC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey {
    pub mac: MacAddr,
    /// 3 to 130 bytes.
    pub duid: Arc<[u8]>,
    pub iaid: u32,
    pub(super) kind: IaKind,
}

/// An address (a prefix of 128 bits), or a delegated prefix, that a client may use until `expires`. A network has at most
/// one of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub network: Uuid,
    pub prefix: Ipv6Net,
    pub duid: Arc<[u8]>,
    pub iaid: u32,
    pub mac: MacAddr,
    /// The name that the client gave itself (option 39), its first label; for addresses.
    pub host_name: Option<DnsLabel>,
    /// The port that reserves the address; `None` for one out of the pools.
    pub port: Option<Uuid>,
    pub expires: UnixSeconds,
}

impl Lease {
    pub fn address(&self) -> Ipv6Addr {
        self.prefix.addr()
    }

    pub fn is_delegated(&self) -> bool {
        self.prefix.prefix_len() < 128
    }

    pub(super) fn key(&self) -> ClientKey {
        let kind = if self.is_delegated() { IaKind::Prefix } else { IaKind::Address };
        ClientKey { mac: self.mac, duid: self.duid.clone(), iaid: self.iaid, kind }
    }
}

/// What the lease store has to do.
pub type LeaseChange = crate::protocol::lease::LeaseChange<Lease>;

/// A UDP payload, to be sent from the host's link-local address, port 547.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub payload: Vec<u8>,
    pub address: Ipv6Addr,
    pub mac: MacAddr,
    /// To a relay agent, else to a client.
    pub relay: bool,
}

impl Datagram {
    pub fn socket_addr(&self) -> SocketAddrV6 {
        SocketAddrV6::new(self.address, if self.relay { SERVER_PORT } else { CLIENT_PORT }, 0, 0)
    }
}

/// Something for the outside to know. Losing one loses no correctness: the store has every lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Granted or renewed, and on disk.
    LeaseGranted(Lease),
    LeaseReleased(Lease),
    LeaseExpired(Lease),
    /// No longer fits the scope.
    LeaseDropped(Lease),
    /// A client found its address in use by somebody else.
    AddressDeclined(Lease),
    /// A declined address is tried again.
    QuarantineEnded {
        network: Uuid,
        address: Ipv6Addr,
    },
    /// A port asked for more than it may hold. Not told for each.
    PortLimited {
        network: Uuid,
        mac: MacAddr,
    },
    /// Reported when it becomes so, not for each client that gets nothing.
    PoolExhausted {
        network: Uuid,
        subnet: Uuid,
    },
    /// There are addresses, or prefixes, again.
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
}

/// Changes on their way to the disk, with the reply that waits for all of them. Commits may be confirmed in any order:
/// the engine never has two for one address in flight.
#[derive(Debug)]
#[must_use = "a commit that is neither confirmed nor abandoned locks its addresses"]
pub struct Commit {
    pub(super) ticket: u64,
    pub(super) changes: Vec<LeaseChange>,
    pub(super) end: End,
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

    pub fn changes(&self) -> &[LeaseChange] {
        &self.changes
    }
}
