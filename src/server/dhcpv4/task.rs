use super::{Command, CommitError, DhcpEvent, LeaseStore, Link, probe::Verdict, queue::FairQueue};
use crate::{
    protocol::dhcpv4::{Commit, Engine, Lease, Origin, Output, Sender},
    server::{
        clock::LeaseClock,
        commits::{Commits, Reports, until},
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

/// Packets served at a time, before commits and commands get their turn.
const BATCH: usize = 64;
/// Packets taken from the kernel at a time: more than are served, so that the queue drops what is too much, port by
/// port, and not the kernel, whose queue is one for all.
const INTAKE: usize = 512;
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// The boot's clock counts while the host sleeps, and the runtime's does not: deadlines are looked at again after this.
const LONGEST_SLEEP: u64 = 60;
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Server<S> {
    engine: Engine,
    clock: LeaseClock,
    /// `None` while the interface is gone.
    link: Option<Link>,
    reports: Reports,
    queue: FairQueue<Packet>,
    commits: Commits<S, Commit>,
}

#[derive(Debug)]
struct Packet {
    from: Sender,
    payload: Vec<u8>,
}

impl<S: LeaseStore<Lease>> Server<S> {
    pub(super) fn new(
        engine: Engine,
        clock: LeaseClock,
        link: Link,
        store: Arc<S>,
        events: mpsc::Sender<DhcpEvent>,
    ) -> Self {
        Self {
            engine,
            clock,
            link: Some(link),
            reports: Reports::new("DHCP", events),
            queue: FairQueue::new(),
            commits: Commits::new(store),
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, outputs: Vec<Output>) {
        self.apply(outputs);
        let mut buffer = vec![0; 2048];
        let mut packets = Vec::with_capacity(INTAKE);
        let mut verdicts = Vec::new();
        loop {
            self.serve();
            let busy = !self.queue.is_empty() && !self.commits.is_full();
            let now = self.clock.now();
            let deadline = self.engine.next_deadline().map(|at| at.saturating_sub(now).min(LONGEST_SLEEP));
            let probe = self.link.as_ref().and_then(|link| link.prober.next_deadline());
            let gathered = self.commits.due();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Update(scope)) => {
                        let outputs = self.engine.update(scope, now);
                        self.apply(outputs);
                    }
                    // Who asked may have gone.
                    Some(Command::Stats(answer)) => {
                        let _ = answer.send((self.engine.stats(), self.queue.dropped()));
                    }
                    Some(Command::Stop) | None => break,
                },
                Some(landed) = self.commits.landed() => self.landed(landed),
                // `serve` hands over.
                () = until(gathered) => {}
                lost = receive(self.link.as_ref(), &mut buffer, &mut packets) => {
                    self.take_in(&mut packets);
                    if let Some(error) = lost {
                        self.lose(&error);
                    }
                }
                lost = hear(self.link.as_ref(), &mut verdicts) => {
                    self.judge(&mut verdicts);
                    if let Some(error) = lost {
                        self.lose(&error);
                    }
                }
                () = until(probe), if probe.is_some() => {
                    if let Some(link) = &mut self.link {
                        link.prober.tick(Instant::now(), &mut verdicts);
                    }
                    self.judge(&mut verdicts);
                }
                () = self.reports.room(), if self.reports.is_lagged() => {
                    self.reports.catch_up(self.engine.scope().network);
                }
                () = sleep(REOPEN_INTERVAL), if self.link.is_none() => self.reopen(),
                () = sleep(Duration::from_secs(deadline.unwrap_or(LONGEST_SLEEP))), if deadline.is_some() => {
                    let outputs = self.engine.tick(self.clock.now());
                    self.apply(outputs);
                }
                () = tokio::task::yield_now(), if busy => {}
            }
        }
        self.commits.hand_over_all();
        let drain = async {
            while let Some(landed) = self.commits.landed().await {
                self.landed(landed);
                self.commits.hand_over_all();
            }
        };
        if timeout(STOP_TIMEOUT, drain).await.is_err() {
            warn!(interface = %self.engine.scope().interface, "DHCP server stopped before its last leases were stored");
        }
    }

    /// Puts packets for this server into the queues of their ports.
    fn take_in(&mut self, packets: &mut Vec<Incoming>) {
        let (scope, now) = (self.engine.scope(), Instant::now());
        let counted = scope.packets_per_port > 0 || scope.leases_per_port > 0;
        for Incoming { source, mac, destination, payload } in packets.drain(..) {
            // A guest's packet to a DHCP server elsewhere, which this host only routes, is not for this server.
            let ours = destination.is_broadcast()
                || scope.is_server(destination)
                || scope.subnets.iter().any(|s| s.prefix.broadcast() == destination);
            if !ours {
                continue;
            }
            let origin = match &mut self.link {
                Some(link) if counted => link.ports.find(mac, now),
                _ => Origin::mac(mac),
            };
            let packet = Packet { from: Sender { source, mac, origin }, payload };
            self.queue.push(origin, packet, scope.packets_per_port, now);
        }
    }

    fn serve(&mut self) {
        let now = self.clock.now();
        for _ in 0..BATCH {
            if self.commits.is_full() {
                break;
            }
            let Some(Packet { from, payload }) = self.queue.pop() else { break };
            let outputs = self.engine.handle(&payload, from, now);
            self.apply(outputs);
        }
        self.commits.hand_over();
    }

    fn landed(&mut self, landed: Vec<(Commit, Result<(), CommitError>)>) {
        let (network, now) = (self.engine.scope().network, self.clock.now());
        for (commit, result) in landed {
            let outputs = match result {
                Ok(()) => {
                    self.reports.stored(network, commit.is_new());
                    self.engine.confirm(commit, now)
                }
                Err(reason) => {
                    self.reports.not_stored(network, &reason);
                    self.engine.abandon(commit, now)
                }
            };
            self.apply(outputs);
        }
    }

    fn judge(&mut self, verdicts: &mut Vec<Verdict>) {
        let now = self.clock.now();
        for Verdict { address, holder } in verdicts.drain(..) {
            if holder.is_none() || self.link.as_mut().is_some_and(|link| link.prober.settle(address)) {
                let outputs = self.engine.probed(address, holder, now);
                self.apply(outputs);
            }
        }
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
                Output::Persist(commit) => self.commits.push(commit),
                Output::Probe(address) => {
                    if let Some(link) = &mut self.link {
                        link.prober.start(address, Instant::now());
                    }
                }
                Output::Report(event) => self.reports.tell(DhcpEvent::Protocol(event)),
            }
        }
    }

    fn lose(&mut self, error: &std::io::Error) {
        let (network, interface) = (self.engine.scope().network, self.engine.scope().interface.clone());
        warn!(%interface, %error, "DHCP server lost its interface");
        self.link = None;
        self.reports.tell(DhcpEvent::InterfaceLost { network, interface });
    }

    fn reopen(&mut self) {
        let (network, interface) = (self.engine.scope().network, self.engine.scope().interface.clone());
        match Link::open(&interface) {
            Ok(link) => {
                info!(%interface, "DHCP server has its interface back");
                self.link = Some(link);
                self.reports.tell(DhcpEvent::InterfaceBack { network, interface });
                // What was looked for meanwhile is looked for anew.
                let outputs = self.engine.reprobe();
                self.apply(outputs);
            }
            Err(error) => debug!(%interface, %error, "DHCP server waits for its interface"),
        }
    }
}

struct Incoming {
    source: std::net::SocketAddrV4,
    mac: crate::net::MacAddr,
    destination: std::net::Ipv4Addr,
    payload: Vec<u8>,
}

/// Fills `packets`; the error with which the interface was lost, if it was. Waits for ever without an interface.
async fn receive(link: Option<&Link>, buffer: &mut [u8], packets: &mut Vec<Incoming>) -> Option<std::io::Error> {
    let Some(link) = link else { return std::future::pending().await };
    link.receive(buffer, INTAKE, |received| {
        let (source, mac, destination) = (received.source, received.mac, received.destination);
        packets.push(Incoming { source, mac, destination, payload: received.payload.to_vec() });
    })
    .await
    .err()
}

async fn hear(link: Option<&Link>, verdicts: &mut Vec<Verdict>) -> Option<std::io::Error> {
    let Some(link) = link else { return std::future::pending().await };
    link.prober.receive(verdicts).await.err()
}
