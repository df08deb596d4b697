//! One network's engine, among the sockets of its listeners and the upstream resolvers.

use super::{DnsScope, DnsShared, Took, udp::Batches, upstream::ForwardError};
use crate::{
    ffi::{datagrams::Batch, packet::WatchedSocket},
    protocol::dns::{Client, DnsStats, Engine, Failure, Flight, STALE_AFTER, SharedZone, Verdict, View},
};
use std::{
    net::SocketAddr,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Where an answer goes that comes later.
#[derive(Debug)]
pub(super) enum ReplyTo {
    /// Weak: a question that is under way does not keep the port.
    Udp(Weak<WatchedSocket>, SocketAddr),
    Tcp(oneshot::Sender<Vec<u8>>),
}

/// Answers one network's guests.
#[derive(Debug)]
pub(super) struct Service {
    zone: SharedZone,
    scope: RwLock<Arc<DnsScope>>,
    engine: Mutex<Engine<ReplyTo>>,
    shared: Arc<DnsShared>,
    /// The upstreams' [`changes`](super::Upstreams::changes) that the engine's memory is from.
    known: AtomicU64,
    epoch: Instant,
    took: Mutex<Took>,
}

impl Service {
    pub fn new(zone: SharedZone, scope: DnsScope, shared: Arc<DnsShared>) -> Arc<Self> {
        let engine = Mutex::new(Engine::new(shared.budget.clone()));
        let known = AtomicU64::new(shared.upstreams.changes());
        let scope = RwLock::new(Arc::new(scope));
        Arc::new(Self { zone, scope, engine, shared, known, epoch: Instant::now(), took: Mutex::default() })
    }

    pub fn set_scope(&self, scope: DnsScope) {
        let mut current = self.scope.write().unwrap_or_else(PoisonError::into_inner);
        if **current == scope {
            return;
        }
        let other_answers = current.policy != scope.policy;
        *current = Arc::new(scope);
        drop(current);
        if other_answers {
            self.engine().forget();
        }
    }

    pub fn read(&self) -> (DnsStats, Took) {
        (self.engine().stats(), self.took().clone())
    }

    pub fn batches(&self) -> Arc<Batches> {
        Arc::clone(&self.shared.batches)
    }

    /// Where the upstream resolvers became others, what the former said may not be what these say.
    fn follow_upstreams(&self) {
        let changes = self.shared.upstreams.changes();
        if self.known.swap(changes, Ordering::Relaxed) != changes {
            self.engine().forget();
        }
    }

    /// Answers the datagrams of a batch, or begins to. `backlog`: more of them wait.
    pub fn take_batch(self: &Arc<Self>, socket: &Arc<WatchedSocket>, batch: &mut Batch, count: usize, backlog: bool) {
        self.follow_upstreams();
        let (began, mut at_once) = (Instant::now(), 0);
        let mut flights = Vec::new();
        {
            let scope = self.scope();
            let zone = self.zone.read();
            let view = View { zone: &zone, visible: &scope.visible, policy: &scope.policy };
            let now = self.now();
            let mut engine = self.engine();
            for at in 0..count {
                let Some((message, from, answer)) = batch.get(at) else { continue };
                let address = from.ip();
                if !engine.admit(now, address, backlog, scope.rate_limit) {
                    continue;
                }
                let reply = || ReplyTo::Udp(Arc::downgrade(socket), from);
                match engine.query(now, &view, Client { address, udp: true }, message, answer, reply) {
                    Verdict::Answer => {
                        batch.answer(at);
                        at_once += 1;
                    }
                    Verdict::Ask(flight) => flights.push(flight),
                    Verdict::Drop | Verdict::Wait => {}
                }
            }
        }
        batch.send(socket.socket().as_fd());
        if at_once > 0 {
            self.took().here.observe_many(began.elapsed(), at_once);
        }
        for flight in flights {
            tokio::spawn(Arc::clone(self).fly(*flight));
        }
    }

    /// The answer to a message that came by TCP; `None` where it earns none.
    pub async fn answer_tcp(self: &Arc<Self>, message: &[u8], peer: SocketAddr) -> Option<Vec<u8>> {
        self.follow_upstreams();
        let (reply, answer) = oneshot::channel();
        let mut out = Vec::new();
        let verdict = {
            let scope = self.scope();
            let zone = self.zone.read();
            let view = View { zone: &zone, visible: &scope.visible, policy: &scope.policy };
            let client = Client { address: peer.ip(), udp: false };
            let (now, mut engine) = (self.now(), self.engine());
            if !engine.admit(now, client.address, false, scope.rate_limit) {
                return None;
            }
            engine.query(now, &view, client, message, &mut out, || ReplyTo::Tcp(reply))
        };
        match verdict {
            Verdict::Drop => None,
            Verdict::Answer => Some(out),
            Verdict::Ask(flight) => {
                tokio::spawn(Arc::clone(self).fly(*flight));
                answer.await.ok()
            }
            Verdict::Wait => answer.await.ok(),
        }
    }

    /// Asks the upstreams, and tells all who wait.
    async fn fly(self: Arc<Self>, flight: Flight) {
        let (Flight { key, ask, servers }, began) = (flight, Instant::now());
        let asked = self.shared.upstreams.ask(&ask, servers.as_deref());
        tokio::pin!(asked);
        let stale_after = tokio::time::sleep(STALE_AFTER);
        let answer = tokio::select! {
            answer = &mut asked => answer,
            () = stale_after => {
                let scope = self.scope();
                let now = self.now();
                self.engine().overdue(now, &scope.policy, &key, send);
                asked.await
            }
        };
        let answer = answer.map_err(|error| {
            tracing::debug!(name = %ask.name, %error, "cannot resolve");
            match error {
                ForwardError::NoAnswer => Failure::NoAnswer,
                ForwardError::Busy | ForwardError::NoUpstream => Failure::NotAsked,
            }
        });
        let scope = self.scope();
        let now = self.now();
        self.engine().answered(now, &scope.policy, &key, answer.as_deref().map_err(|failure| *failure), send);
        self.took().upstream.observe(began.elapsed());
    }

    fn scope(&self) -> Arc<DnsScope> {
        Arc::clone(&self.scope.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn engine(&self) -> MutexGuard<'_, Engine<ReplyTo>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self) -> MutexGuard<'_, Took> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never zero, so that "never" can be.
    fn now(&self) -> Duration {
        self.epoch.elapsed() + Duration::from_secs(1)
    }
}

/// A guest that has gone, or cannot be reached, asks again if it is still there.
fn send(to: ReplyTo, answer: &[u8]) {
    match to {
        ReplyTo::Udp(socket, address) => {
            if let Some(socket) = socket.upgrade()
                && let Err(error) = socket.socket().send_to(answer, &address.into())
            {
                tracing::debug!(client = %address, %error, "cannot send a DNS answer");
            }
        }
        ReplyTo::Tcp(connection) => drop(connection.send(answer.to_vec())),
    }
}
