//! The sockets and timers that drive [`protocol::dhcpv6`](crate::protocol::dhcpv6) and
//! [`protocol::ra`](crate::protocol::ra): one task per served interface does both.

mod frame;
mod link;
#[cfg(test)]
mod live;
mod task;

use crate::{
    protocol::{
        dhcpv6::{Engine, Lease, Scope, Stats},
        ra::Router,
    },
    server::{
        clock::LeaseClock,
        dhcpv4::{DhcpEvent, ServeError, Stopped},
        leases::LeaseStore,
        meters::ask,
    },
};
use link::Link;
use std::sync::Arc;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

#[derive(Debug)]
enum Command {
    Update(Box<Scope>, Option<Router>),
    Stats(oneshot::Sender<(Stats, u64)>),
    Stop,
}

/// A running DHCPv6 server and advertiser of one interface. Dropping it stops it, without waiting and without a word to
/// hosts: who starts another in its place takes up what it did.
#[derive(Debug)]
pub struct Ipv6Server {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

/// What a server did, while it runs.
#[derive(Debug, Clone)]
pub struct Ipv6Meter(mpsc::WeakSender<Command>);

impl Ipv6Meter {
    /// As [`Ipv6Server::stats`].
    pub async fn stats(&self) -> Result<(Stats, u64), Stopped> {
        ask(self.0.upgrade().ok_or(Stopped)?, Command::Stats).await
    }
}

impl Ipv6Server {
    /// Opens the sockets in the calling thread's network namespace, takes up the leases that the store has of this
    /// network, and serves from a task of the calling runtime. `router`: what is advertised.
    pub async fn start<S: LeaseStore<Lease>>(
        scope: Scope,
        router: Option<Router>,
        clock: LeaseClock,
        store: Arc<S>,
        events: mpsc::Sender<DhcpEvent>,
    ) -> Result<Self, ServeError> {
        let link = Link::open(&scope.interface)?;
        let interface = scope.interface.clone();
        let leases = store.load(scope.network).await.map_err(|source| ServeError::Leases { interface, source })?;
        let (engine, outputs) = Engine::new(scope, leases, clock.now());
        let (commands, receiver) = mpsc::channel(8);
        let server = task::Server::new(engine, router, clock, link, store, events);
        Ok(Self { commands, task: tokio::spawn(server.run(receiver, outputs)) })
    }

    /// Serves and advertises something else of the same network, on the same interface. Leases stay as far as it allows;
    /// what is no longer advertised is taken back.
    pub async fn update(&self, scope: Scope, router: Option<Router>) -> Result<(), Stopped> {
        self.commands.send(Command::Update(Box::new(scope), router)).await.map_err(|_| Stopped)
    }

    /// What the engine did, and how many packets were dropped since their port sent too many.
    pub async fn stats(&self) -> Result<(Stats, u64), Stopped> {
        self.meter().stats().await
    }

    /// For whoever asks after the server.
    pub fn meter(&self) -> Ipv6Meter {
        Ipv6Meter(self.commands.downgrade())
    }

    /// Tells hosts that this is no router any more, waits a few seconds for the leases on their way to the disk, and
    /// closes the sockets.
    pub async fn stop(self) {
        // Either fails only where the task has ended already.
        let _ = self.commands.send(Command::Stop).await;
        let _ = self.task.await;
    }
}
