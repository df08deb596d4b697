use super::{
    Command, Link,
    link::{Message, Received},
};
use crate::{
    protocol::{
        dhcpv6::{Commit, Engine, Lease, Origin, Output, Scope, Sender},
        ra::{self, Router},
    },
    server::{
        clock::LeaseClock,
        commits::{Commits, Reports, until},
        dhcpv4::{DhcpEvent, queue::FairQueue},
        leases::{CommitError, LeaseStore},
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

/// As for DHCPv4: packets served at a time, and taken from the kernel at a time.
const BATCH: usize = 64;
const INTAKE: usize = 512;
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// The boot's clock counts while the host sleeps, and the runtime's does not: deadlines are looked at again after this.
const LONGEST_SLEEP: u64 = 60;
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Server<S> {
    engine: Engine,
    advertiser: Option<ra::Engine>,
    /// What the advertiser's time is counted from.
    started: Instant,
    clock: LeaseClock,
    /// `None` while the interface is gone.
    link: Option<Link>,
    reports: Reports,
    queue: FairQueue<(Sender, Message)>,
    commits: Commits<S, Commit>,
}

impl<S: LeaseStore<Lease>> Server<S> {
    pub(super) fn new(
        engine: Engine,
        router: Option<Router>,
        clock: LeaseClock,
        link: Link,
        store: Arc<S>,
        events: mpsc::Sender<DhcpEvent>,
    ) -> Self {
        Self {
            engine,
            advertiser: router.map(|router| ra::Engine::new(router, 0)),
            started: Instant::now(),
            clock,
            link: Some(link),
            reports: Reports::new("DHCPv6", events),
            queue: FairQueue::new(),
            commits: Commits::new(store),
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, outputs: Vec<Output>) {
        self.apply(outputs);
        let mut buffer = vec![0; 2048];
        let mut packets = Vec::with_capacity(INTAKE);
        loop {
            self.serve();
            let busy = !self.queue.is_empty() && !self.commits.is_full();
            let now = self.clock.now();
            let deadline = self.engine.next_deadline().map(|at| at.saturating_sub(now).min(LONGEST_SLEEP));
            let speak = self.advertiser.as_ref().filter(|_| self.link.is_some()).map(ra::Engine::next_deadline);
            let speak = speak.map(|at| Duration::from_millis(at.saturating_sub(self.millis())));
            let gathered = self.commits.due();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Update(scope, router)) => self.update(*scope, router),
                    // Who asked may have gone.
                    Some(Command::Stats(answer)) => {
                        let _ = answer.send((self.engine.stats(), self.queue.dropped()));
                    }
                    Some(Command::Stop) => {
                        self.cease();
                        break;
                    }
                    None => break,
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
                () = sleep(speak.unwrap_or_default()), if speak.is_some() => self.speak(),
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
            warn!(interface = %self.engine.scope().interface, "DHCPv6 server stopped before its last leases were stored");
        }
    }

    fn millis(&self) -> ra::Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn update(&mut self, scope: Scope, router: Option<Router>) {
        let outputs = self.engine.update(scope, self.clock.now());
        self.apply(outputs);
        let now = self.millis();
        match (&mut self.advertiser, router) {
            (Some(advertiser), Some(router)) => advertiser.update(router, now),
            (Some(_), None) => self.cease(),
            (None, router) => self.advertiser = router.map(|router| ra::Engine::new(router, now)),
        }
    }

    /// Takes back all that was advertised.
    fn cease(&mut self) {
        if let Some(advertiser) = self.advertiser.take() {
            self.advertise(&advertiser.cease());
        }
    }

    fn speak(&mut self) {
        let now = self.millis();
        let Some(advertiser) = &mut self.advertiser else { return };
        for output in advertiser.tick(now, random()) {
            self.advertise(&output);
        }
    }

    fn advertise(&self, output: &ra::Output) {
        let Some(link) = &self.link else { return };
        if let Err(error) = link.advertise(output) {
            debug!(interface = %self.engine.scope().interface, %error, "router advertisement not sent");
        }
    }

    /// Puts packets for this server into the queues of their ports.
    fn take_in(&mut self, packets: &mut Vec<Received>) {
        let (scope, now) = (self.engine.scope(), Instant::now());
        let counted = scope.packets_per_port > 0 || scope.leases_per_port > 0;
        for Received { source, mac, content } in packets.drain(..) {
            let origin = match &mut self.link {
                Some(link) if counted => link.ports.find(mac, now),
                _ => Origin::mac(mac),
            };
            let unicast = matches!(content, Message::Dhcp { unicast: true, .. });
            let sender = Sender { address: source, mac, origin, unicast };
            self.queue.push(origin, (sender, content), scope.packets_per_port, now);
        }
    }

    fn serve(&mut self) {
        let (now, millis) = (self.clock.now(), self.millis());
        for _ in 0..BATCH {
            if self.commits.is_full() {
                break;
            }
            let Some((from, message)) = self.queue.pop() else { break };
            match message {
                Message::Dhcp { payload, .. } => {
                    let outputs = self.engine.handle(&payload, from, now);
                    self.apply(outputs);
                }
                Message::Solicitation(solicitation) => {
                    if let Some(advertiser) = &mut self.advertiser {
                        advertiser.solicited(solicitation, from.mac, millis, random());
                    }
                }
            }
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

    fn apply(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send(datagram) => {
                    let Some(link) = &self.link else { continue };
                    if let Err(error) = link.reply(&datagram) {
                        let interface = &self.engine.scope().interface;
                        debug!(%interface, %error, to = %datagram.address, "DHCPv6 reply not sent");
                    }
                }
                Output::Persist(commit) => self.commits.push(commit),
                Output::Report(event) => self.reports.tell(DhcpEvent::Protocol6(event)),
            }
        }
    }

    fn lose(&mut self, error: &std::io::Error) {
        let (network, interface) = (self.engine.scope().network, self.engine.scope().interface.clone());
        warn!(%interface, %error, "DHCPv6 server lost its interface");
        self.link = None;
        self.reports.tell(DhcpEvent::InterfaceLost { network, interface });
    }

    fn reopen(&mut self) {
        let (network, interface) = (self.engine.scope().network, self.engine.scope().interface.clone());
        match Link::open(&interface) {
            Ok(link) => {
                info!(%interface, "DHCPv6 server has its interface back");
                self.link = Some(link);
                self.reports.tell(DhcpEvent::InterfaceBack { network, interface });
                // Hosts hear of their router anew.
                let now = self.millis();
                self.advertiser = self.advertiser.take().map(|old| ra::Engine::new(old.router().clone(), now));
            }
            Err(error) => debug!(%interface, %error, "DHCPv6 server waits for its interface"),
        }
    }
}

/// For delays, which need no secret.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

/// Fills `packets`; the error with which the interface was lost, if it was. Waits for ever without an interface.
async fn receive(link: Option<&Link>, buffer: &mut [u8], packets: &mut Vec<Received>) -> Option<std::io::Error> {
    let Some(link) = link else { return std::future::pending().await };
    link.receive(buffer, INTAKE, packets).await.err()
}
