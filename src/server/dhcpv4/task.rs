use super::{Command, CommitError, DhcpEvent, LeaseStore, Link};
use crate::protocol::dhcpv4::{Commit, Engine, Output, Sender, UnixSeconds};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    future::Future,
    net::Ipv4Addr,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

/// Packets are left in the kernel's queue while this many leases are on their way to the disk.
const MAX_IN_FLIGHT: usize = 1_024;
/// Packets taken in at a time, before commits and commands get their turn.
const BATCH: usize = 64;
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// The wall clock may be set meanwhile, so deadlines are looked at again after this long.
const LONGEST_SLEEP: u64 = 60;
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

type InFlight = Pin<Box<dyn Future<Output = (Commit, Result<(), CommitError>)> + Send>>;

pub(super) fn now() -> UnixSeconds {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(super) struct Server<S> {
    engine: Engine,
    /// `None` while the interface is gone.
    link: Option<Link>,
    store: Arc<S>,
    events: mpsc::Sender<DhcpEvent>,
    lagged: bool,
    store_failed: bool,
    in_flight: FuturesUnordered<InFlight>,
}

impl<S: LeaseStore> Server<S> {
    pub(super) fn new(engine: Engine, link: Link, store: Arc<S>, events: mpsc::Sender<DhcpEvent>) -> Self {
        let in_flight = FuturesUnordered::new();
        Self { engine, link: Some(link), store, events, lagged: false, store_failed: false, in_flight }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, outputs: Vec<Output>) {
        self.apply(outputs);
        let mut buffer = vec![0; 2048];
        let mut packets = Vec::with_capacity(BATCH);
        loop {
            let free = MAX_IN_FLIGHT.saturating_sub(self.in_flight.len());
            let deadline = self.engine.next_deadline().map(|at| at.saturating_sub(now()).min(LONGEST_SLEEP));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Update(scope)) => {
                        let outputs = self.engine.update(scope, now());
                        self.apply(outputs);
                    }
                    // Who asked may have gone.
                    Some(Command::Stats(answer)) => drop(answer.send(self.engine.stats())),
                    Some(Command::Stop) | None => break,
                },
                Some((commit, result)) = self.in_flight.next() => self.landed(commit, result),
                lost = receive(self.link.as_ref(), &mut buffer, free.min(BATCH), &mut packets), if free > 0 => {
                    packets.drain(..).for_each(|packet| self.packet(packet));
                    if let Some(error) = lost {
                        self.lose(&error);
                    }
                }
                () = room(&self.events), if self.lagged => {
                    self.lagged = false;
                    self.emit(DhcpEvent::Lagged { network: self.engine.scope().network });
                }
                () = sleep(REOPEN_INTERVAL), if self.link.is_none() => self.reopen(),
                () = sleep(Duration::from_secs(deadline.unwrap_or(LONGEST_SLEEP))), if deadline.is_some() => {
                    let outputs = self.engine.tick(now());
                    self.apply(outputs);
                }
            }
        }
        let drain = async {
            while let Some((commit, result)) = self.in_flight.next().await {
                self.landed(commit, result);
            }
        };
        if timeout(STOP_TIMEOUT, drain).await.is_err() {
            warn!(interface = %self.engine.scope().interface, "DHCP server stopped before its last leases were stored");
        }
    }

    fn packet(&mut self, Packet { from, destination, payload }: Packet) {
        let scope = self.engine.scope();
        // A guest's packet to a DHCP server elsewhere, which this host only routes, is not for this server.
        let ours = destination.is_broadcast()
            || destination == scope.server_address
            || scope.subnets.iter().any(|s| s.prefix.broadcast() == destination);
        if ours {
            let outputs = self.engine.handle(&payload, from, now());
            self.apply(outputs);
        }
    }

    fn landed(&mut self, commit: Commit, result: Result<(), CommitError>) {
        let network = self.engine.scope().network;
        let outputs = match result {
            Ok(()) => {
                if std::mem::take(&mut self.store_failed) {
                    info!(%network, "DHCP leases can be stored again");
                    self.emit(DhcpEvent::StoreRecovered { network });
                }
                self.engine.confirm(commit, now())
            }
            Err(reason) => {
                if !std::mem::replace(&mut self.store_failed, true) {
                    error!(%network, %reason, "DHCP leases cannot be stored, so none are granted");
                    self.emit(DhcpEvent::StoreFailed { network, reason: reason.to_string() });
                }
                self.engine.abandon(commit, now())
            }
        };
        self.apply(outputs);
    }

    fn apply(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send(datagram) => {
                    let Some(link) = &self.link else { continue };
                    let scope = self.engine.scope();
                    if let Err(error) = link.send(scope.server_address, &datagram) {
                        debug!(interface = %scope.interface, %error, to = ?datagram.destination, "DHCP reply not sent");
                    }
                }
                Output::Persist(commit) => {
                    let (store, change) = (Arc::clone(&self.store), commit.change().clone());
                    self.in_flight.push(Box::pin(async move { (commit, store.commit(change).await) }));
                }
                Output::Report(event) => self.emit(DhcpEvent::Protocol(event)),
            }
        }
    }

    fn lose(&mut self, error: &std::io::Error) {
        let (network, interface) = (self.engine.scope().network, self.engine.scope().interface.clone());
        warn!(%interface, %error, "DHCP server lost its interface");
        self.link = None;
        self.emit(DhcpEvent::InterfaceLost { network, interface });
    }

    fn reopen(&mut self) {
        let (network, interface) = (self.engine.scope().network, self.engine.scope().interface.clone());
        match Link::open(&interface) {
            Ok(link) => {
                info!(%interface, "DHCP server has its interface back");
                self.link = Some(link);
                self.emit(DhcpEvent::InterfaceBack { network, interface });
            }
            Err(error) => debug!(%interface, %error, "DHCP server waits for its interface"),
        }
    }

    /// Never waits: the one who takes the events may be waiting for this task.
    fn emit(&mut self, event: DhcpEvent) {
        if self.lagged {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            self.lagged = true;
        }
    }
}

/// Waits until the channel has room; for ever where nobody takes events any more.
async fn room(events: &mpsc::Sender<DhcpEvent>) {
    if events.reserve().await.is_err() {
        std::future::pending().await
    }
}

struct Packet {
    from: Sender,
    destination: Ipv4Addr,
    payload: Vec<u8>,
}

/// Fills `packets`; the error with which the interface was lost, if it was. Waits for ever without an interface.
async fn receive(
    link: Option<&Link>,
    buffer: &mut [u8],
    most: usize,
    packets: &mut Vec<Packet>,
) -> Option<std::io::Error> {
    let Some(link) = link else { return std::future::pending().await };
    link.receive(buffer, most, |received| {
        let (from, destination) = (received.from, received.destination);
        packets.push(Packet { from, destination, payload: received.payload.to_vec() });
    })
    .await
    .err()
}
