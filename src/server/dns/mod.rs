//! DNS for the guests: listeners on each network's gateway addresses, and the way to the upstream resolvers.
//!
//! hickory-server drives the UDP sockets, hickory's parts the TCP connections (see `tcp`); what is said comes from
//! [`crate::protocol::dns`]. hickory-server logs every query at level `info` and every odd packet at `warn`: the
//! daemon's filter keeps its targets (`hickory_server`, `hickory_net`, `hickory_proto`) at `error` or off, or guests
//! write the host's journal.

mod forward;
mod handler;
mod limit;
mod resolv_conf;
mod socket;
mod tcp;
mod upstream;

pub use upstream::{UpstreamSource, Upstreams};

use crate::{net::IfName, protocol::dns::Zone};
use handler::Handler;
use hickory_server::server::Server;
use limit::Limit;
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};
use tokio::task::JoinSet;
use uuid::Uuid;

/// TCP connections to one network's server, all its guests together and each.
const MAX_CONNECTIONS: usize = 64;
const MAX_CONNECTIONS_PER_CLIENT: usize = 8;

/// A zone that is served while it changes: the next question sees the change.
#[derive(Debug, Clone)]
pub struct SharedZone(Arc<RwLock<Zone>>);

impl SharedZone {
    pub fn new(zone: Zone) -> Self {
        Self(Arc::new(RwLock::new(zone)))
    }

    /// Changes the zone, or replaces it. Questions wait meanwhile: no long work in there.
    pub fn update<T>(&self, change: impl FnOnce(&mut Zone) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Zone> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where one network's guests find their DNS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsListen {
    pub network: Uuid,
    /// Only what comes in by this interface is answered.
    pub interface: IfName,
    /// The gateway's addresses; they need not be up yet.
    pub addresses: Vec<IpAddr>,
    /// [`DnsListen::PORT`]; 0 is any free one (tests).
    pub port: u16,
}

impl DnsListen {
    pub const PORT: u16 = 53;
}

/// Why a network's DNS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "port {port} at {address} on {interface} is taken by another DNS server; `ss -lntup 'sport = :{port}'` shows \
         which: stop it, or keep it off {interface} (dnsmasq: bind-dynamic and except-interface={interface})"
    )]
    PortTaken { interface: IfName, address: IpAddr, port: u16 },
    #[error("cannot serve DNS at {address}: there is no interface {interface}; it must exist first")]
    NoInterface { interface: IfName, address: IpAddr },
    #[error(
        "may not listen on port {port} at {address} on {interface}; it takes root, or CAP_NET_BIND_SERVICE and \
         CAP_NET_RAW"
    )]
    NotPermitted { interface: IfName, address: IpAddr, port: u16 },
    #[error("cannot serve DNS on port {port} at {address} on {interface}: {source}")]
    Socket { interface: IfName, address: IpAddr, port: u16, source: io::Error },
}

impl ServeError {
    fn new(interface: &IfName, address: IpAddr, port: u16, source: io::Error) -> Self {
        let interface = interface.clone();
        if source.raw_os_error().is_some_and(|code| code == libc::ENODEV || code == libc::ENXIO) {
            return Self::NoInterface { interface, address };
        }
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::PortTaken { interface, address, port },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { interface, address, port },
            _ => Self::Socket { interface, address, port, source },
        }
    }
}

/// One network's DNS server. Dropping it stops it too, but only [`DnsServer::stop`] says when the port is free.
pub struct DnsServer {
    listen: DnsListen,
    addresses: Vec<SocketAddr>,
    udp: Server<Handler>,
    tcp: JoinSet<()>,
    _excluded: upstream::Excluded,
}

impl DnsServer {
    /// Binds the sockets, all or none, and begins to answer. The sockets are bound to the interface's index: an
    /// interface that is removed and made anew needs a new server. Call it within a tokio runtime.
    pub fn start(listen: DnsListen, zone: SharedZone, upstreams: Arc<Upstreams>) -> Result<Self, ServeError> {
        let sockets = listen
            .addresses
            .iter()
            .map(|&address| socket::bind(&listen.interface, address, listen.port))
            .collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<_> = sockets.iter().filter_map(|(udp, _)| udp.local_addr().ok()).collect();
        let excluded = upstreams.exclude(addresses.clone());
        let handler = Handler::new(zone, upstreams);
        let connections = Limit::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_CLIENT);
        let mut server =
            Self { listen, addresses, udp: Server::new(handler.clone()), tcp: JoinSet::new(), _excluded: excluded };
        for (udp, tcp) in sockets {
            server.udp.register_socket(udp);
            server.tcp.spawn(tcp::serve(tcp, handler.clone(), connections.clone()));
        }
        tracing::info!(
            network = %server.listen.network,
            interface = %server.listen.interface,
            addresses = ?server.addresses,
            "serving DNS"
        );
        Ok(server)
    }

    pub fn listen(&self) -> &DnsListen {
        &self.listen
    }

    /// The sockets' own addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops answering; the port is free when it returns.
    pub async fn stop(mut self) {
        self.tcp.shutdown().await;
        if let Err(error) = self.udp.shutdown_gracefully().await {
            tracing::debug!(%error, "while stopping DNS");
        }
    }
}

impl fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsServer")
            .field("listen", &self.listen)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
