//! DNS for the guests: listeners on each network's gateway addresses, and the way to the upstream resolvers.
//!
//! Datagrams are taken and answered in batches (see `udp`), TCP connections by hickory's parts (see `tcp`); what is said
//! comes from [`crate::protocol::dns`]. hickory logs odd packets at `warn`: the daemon's filter keeps its targets
//! (`hickory_server`, `hickory_net`, `hickory_proto`) at `error` or off, or guests write the host's journal.

mod forward;
mod limit;
mod resolv_conf;
mod service;
mod socket;
mod tcp;
mod udp;
mod upstream;

pub use crate::protocol::dns::SharedZone;
pub use upstream::{UpstreamSource, Upstreams};

use crate::{
    net::IfName,
    protocol::dns::{Budget, DnsStats, Policy},
    server::{Histogram, thread::ServerThread},
};
use limit::Limit;
use service::Service;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
};
use tokio::task::JoinSet;
use uuid::Uuid;

/// TCP connections to one network's server, all its guests together and each.
const MAX_CONNECTIONS: usize = 64;
const MAX_CONNECTIONS_PER_CLIENT: usize = 8;

/// What the DNS servers of all networks have in common, a thread of their own among it.
#[derive(Debug)]
pub struct DnsShared {
    pub upstreams: Arc<Upstreams>,
    budget: Budget,
    batches: Arc<udp::Batches>,
    thread: ServerThread,
}

impl DnsShared {
    /// The thread is in the calling thread's network namespace.
    pub fn new(upstreams: Arc<Upstreams>) -> io::Result<Arc<Self>> {
        let thread = ServerThread::start("dns")?;
        Ok(Arc::new(Self { upstreams, budget: Budget::default(), batches: Arc::default(), thread }))
    }
}

/// What one network's guests may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsScope {
    /// Other networks' zones that they may see.
    pub visible: Vec<SharedZone>,
    pub policy: Policy,
    /// Questions a second that a guest may ask in any case; 0: as many as it likes while no other is kept waiting.
    pub rate_limit: u32,
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

/// How long answers took.
#[derive(Debug, Clone, Default)]
pub struct Took {
    /// Those that were given at once.
    pub here: Histogram,
    /// Those that upstream resolvers were asked for.
    pub upstream: Histogram,
}

/// What a server did, while it runs.
#[derive(Debug, Clone)]
pub struct DnsMeter(Weak<Service>);

impl DnsMeter {
    pub fn read(&self) -> Option<(DnsStats, Took)> {
        self.0.upgrade().map(|service| service.read())
    }
}

/// One network's DNS server. Dropping it stops it too, but only [`DnsServer::stop`] says when the port is free.
#[derive(Debug)]
pub struct DnsServer {
    listen: DnsListen,
    addresses: Vec<SocketAddr>,
    service: Arc<Service>,
    tasks: JoinSet<()>,
    _excluded: upstream::Excluded,
}

impl DnsServer {
    /// Binds the sockets, all or none, and begins to answer. The sockets are bound to the interface's index: an
    /// interface that is removed and made anew needs a new server.
    pub fn start(
        listen: DnsListen,
        zone: SharedZone,
        scope: DnsScope,
        shared: Arc<DnsShared>,
    ) -> Result<Self, ServeError> {
        let thread = shared.thread.handle().clone();
        // Whoever makes a socket decides who waits for it.
        let _entered = thread.enter();
        let sockets = listen
            .addresses
            .iter()
            .map(|&address| socket::bind(&listen.interface, address, listen.port))
            .collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<_> = sockets.iter().filter_map(|(_, tcp)| tcp.local_addr().ok()).collect();
        let excluded = shared.upstreams.exclude(addresses.clone());
        let service = Service::new(listen.addresses.clone(), zone, scope, shared);
        let connections = Limit::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_CLIENT);
        let mut tasks = JoinSet::new();
        for (udp, tcp) in sockets {
            tasks.spawn_on(udp::serve(Arc::new(udp), Arc::clone(&service)), &thread);
            tasks.spawn_on(tcp::serve(tcp, Arc::clone(&service), connections.clone()), &thread);
        }
        tracing::info!(
            network = %listen.network,
            interface = %listen.interface,
            ?addresses,
            "serving DNS"
        );
        Ok(Self { listen, addresses, service, tasks, _excluded: excluded })
    }

    /// What guests may ask from now on.
    pub fn set_scope(&self, scope: DnsScope) {
        self.service.set_scope(scope);
    }

    pub fn listen(&self) -> &DnsListen {
        &self.listen
    }

    /// The sockets' own addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// For whoever asks after the server.
    pub fn meter(&self) -> DnsMeter {
        DnsMeter(Arc::downgrade(&self.service))
    }

    /// Stops answering; the port is free when it returns.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
