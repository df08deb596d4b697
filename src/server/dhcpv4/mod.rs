//! The sockets and timers that drive [`protocol::dhcpv4`](crate::protocol::dhcpv4): one task per served interface.

mod frame;
pub(in crate::server) mod holders;
mod link;
#[cfg(test)]
pub(in crate::server) mod live;
pub(in crate::server) mod ports;
mod probe;
pub(in crate::server) mod queue;
mod task;

use crate::{
    net::IfName,
    protocol::{
        dhcpv4::{Engine, Event, Lease, Scope, Stats},
        dhcpv6,
    },
    server::{
        clock::LeaseClock,
        leases::{CommitError, LeaseStore},
        meters::ask,
    },
};
use link::Link;
use std::{io, sync::Arc};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use uuid::Uuid;

/// What the servers report. When nobody takes the events they are dropped, and `Lagged` says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DhcpEvent {
    Protocol(Event),
    /// Of a DHCPv6 server.
    Protocol6(dhcpv6::Event),
    /// Leases cannot be stored, so none are granted. Sent when it begins.
    StoreFailed {
        network: Uuid,
        reason: String,
    },
    StoreRecovered {
        network: Uuid,
    },
    /// The interface is gone or down; the server waits for it.
    InterfaceLost {
        network: Uuid,
        interface: IfName,
    },
    InterfaceBack {
        network: Uuid,
        interface: IfName,
    },
    /// Events were dropped: read the store instead.
    Lagged {
        network: Uuid,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "cannot serve DHCP on {interface}: UDP port {port} is taken by {holders}; stop it, or confine it to its own interfaces \
         (dnsmasq: 'bind-dynamic' and 'interface='; systemd-networkd: 'DHCPServer=no')"
    )]
    PortTaken { interface: IfName, port: u16, holders: String },
    #[error("cannot serve DHCP on {interface}: there is no such interface; it may have been removed meanwhile")]
    NoInterface { interface: IfName, source: io::Error },
    #[error("cannot serve DHCP on {interface} without root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW: {source}")]
    NotPermitted { interface: IfName, source: io::Error },
    #[error("cannot serve DHCP on {interface}: {source}")]
    Socket { interface: IfName, source: io::Error },
    #[error("cannot serve DHCP on {interface}: its leases cannot be read: {source}")]
    Leases { interface: IfName, source: CommitError },
}

/// The server's task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the DHCP server of this interface has stopped; start it again")]
pub struct Stopped;

#[derive(Debug)]
enum Command {
    Update(Scope),
    Stats(oneshot::Sender<(Stats, u64)>),
    Stop,
}

/// A running DHCP server of one interface. Dropping it stops it, without waiting.
#[derive(Debug)]
pub struct DhcpServer {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

/// What a server did, while it runs.
#[derive(Debug, Clone)]
pub struct DhcpMeter(mpsc::WeakSender<Command>);

impl DhcpMeter {
    /// As [`DhcpServer::stats`].
    pub async fn stats(&self) -> Result<(Stats, u64), Stopped> {
        ask(self.0.upgrade().ok_or(Stopped)?, Command::Stats).await
    }
}

impl DhcpServer {
    /// Opens the sockets in the calling thread's network namespace, takes up the leases that the store has of this
    /// network, and serves from a task of the calling runtime.
    pub async fn start<S: LeaseStore<Lease>>(
        scope: Scope,
        clock: LeaseClock,
        store: Arc<S>,
        events: mpsc::Sender<DhcpEvent>,
    ) -> Result<Self, ServeError> {
        let link = Link::open(&scope.interface)?;
        let interface = scope.interface.clone();
        let leases = store.load(scope.network).await.map_err(|source| ServeError::Leases { interface, source })?;
        let (engine, outputs) = Engine::new(scope, leases, clock.now());
        let (commands, receiver) = mpsc::channel(8);
        let server = task::Server::new(engine, clock, link, store, events);
        Ok(Self { commands, task: tokio::spawn(server.run(receiver, outputs)) })
    }

    /// Serves another version of the same network's scope, on the same interface. Leases stay as far as it allows.
    pub async fn update(&self, scope: Scope) -> Result<(), Stopped> {
        self.commands.send(Command::Update(scope)).await.map_err(|_| Stopped)
    }

    /// What the engine did, and how many packets were dropped since their port sent too many.
    pub async fn stats(&self) -> Result<(Stats, u64), Stopped> {
        self.meter().stats().await
    }

    /// For whoever asks after the server.
    pub fn meter(&self) -> DhcpMeter {
        DhcpMeter(self.commands.downgrade())
    }

    /// Takes in no more packets, waits a few seconds for the leases on their way to the disk, and closes the sockets.
    pub async fn stop(self) {
        // Either fails only where the task has ended already.
        let _ = self.commands.send(Command::Stop).await;
        let _ = self.task.await;
    }
}
