//! What both DHCP servers' tasks have in common: commits on their way to the disk, and events on their way to the loop.

use super::{
    dhcpv4::DhcpEvent,
    leases::{CommitError, LeaseStore},
};
use crate::protocol::{dhcpv4, dhcpv6, lease::LeaseChange};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::sleep_until,
};
use tracing::{error, info};
use uuid::Uuid;

/// So many replies may wait for the disk at a time; packets wait in their ports' queues beyond it.
const MAX_IN_FLIGHT: usize = 1_024;

/// From one hand-over to the store to the next, where there is more than one: those that come meanwhile share the wait
/// for the disk, which costs more than all else that a lease needs. Who comes alone does not wait.
const GATHER: Duration = Duration::from_millis(8);

/// A reply that is locked until its changes are on disk.
pub(super) trait Commit: Send + 'static {
    type Lease: Clone + Send;

    fn changes(&self) -> &[LeaseChange<Self::Lease>];
}

impl Commit for dhcpv4::Commit {
    type Lease = dhcpv4::Lease;

    fn changes(&self) -> &[LeaseChange<Self::Lease>] {
        std::slice::from_ref(self.change())
    }
}

impl Commit for dhcpv6::Commit {
    type Lease = dhcpv6::Lease;

    fn changes(&self) -> &[LeaseChange<Self::Lease>] {
        self.changes()
    }
}

type Landed<C> = Vec<(C, Result<(), CommitError>)>;

/// Commits, those that come together handed to the store as one.
pub(super) struct Commits<S, C> {
    store: Arc<S>,
    waiting: Vec<C>,
    in_flight: FuturesUnordered<Pin<Box<dyn Future<Output = Landed<C>> + Send>>>,
    /// How many are in `in_flight`.
    committing: usize,
    /// What waits is handed over from then on.
    due: Instant,
}

impl<C: Commit, S: LeaseStore<C::Lease>> Commits<S, C> {
    pub(super) fn new(store: Arc<S>) -> Self {
        Self { store, waiting: Vec::new(), in_flight: FuturesUnordered::new(), committing: 0, due: Instant::now() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.committing + self.waiting.len() >= MAX_IN_FLIGHT
    }

    pub(super) fn push(&mut self, commit: C) {
        self.waiting.push(commit);
    }

    /// All that waits goes to the store, if its time has come.
    pub(super) fn hand_over(&mut self) {
        let now = Instant::now();
        if now >= self.due && !self.waiting.is_empty() {
            self.due = now + GATHER;
            self.hand_over_all();
        }
    }

    /// When [`Self::hand_over`] has something to do; `None` while nothing waits.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.due)
    }

    /// All that waits goes to the store, now.
    pub(super) fn hand_over_all(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (store, commits) = (Arc::clone(&self.store), std::mem::take(&mut self.waiting));
        self.committing += commits.len();
        let changes = commits.iter().flat_map(|commit| commit.changes().iter().cloned()).collect();
        self.in_flight.push(Box::pin(async move {
            let mut results = store.commit(changes).await.into_iter();
            // A commit is stored when all of its changes are.
            let whole = |commit: C| {
                let own: Vec<_> = results.by_ref().take(commit.changes().len()).collect();
                (commit, own.into_iter().collect::<Result<(), _>>())
            };
            commits.into_iter().map(whole).collect()
        }));
    }

    /// The next that the store has answered for; `None` while none is under way.
    pub(super) async fn landed(&mut self) -> Option<Landed<C>> {
        let landed = self.in_flight.next().await?;
        self.committing = self.committing.saturating_sub(landed.len());
        Some(landed)
    }
}

/// For ever where there is no deadline.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Tells the loop, and the log, what it should know; never waits for it, for it may be waiting for the task.
pub(super) struct Reports {
    /// As the log calls the server: `DHCP`.
    server: &'static str,
    events: mpsc::Sender<DhcpEvent>,
    lagged: bool,
    store_failed: bool,
}

impl Reports {
    pub(super) fn new(server: &'static str, events: mpsc::Sender<DhcpEvent>) -> Self {
        Self { server, events, lagged: false, store_failed: false }
    }

    pub(super) fn tell(&mut self, event: DhcpEvent) {
        if self.lagged {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            self.lagged = true;
        }
    }

    /// Whether events are lost at present.
    pub(super) fn is_lagged(&self) -> bool {
        self.lagged
    }

    /// Waits until there is room for events; for ever where nobody takes them any more.
    pub(super) async fn room(&self) {
        if self.events.reserve().await.is_err() {
            std::future::pending().await
        }
    }

    /// There is room: tells that something was lost.
    pub(super) fn catch_up(&mut self, network: Uuid) {
        self.lagged = false;
        self.tell(DhcpEvent::Lagged { network });
    }

    /// A commit was stored. `new`: it grants what was not granted before; renewals are stored on a full disk too.
    pub(super) fn stored(&mut self, network: Uuid, new: bool) {
        if new && std::mem::take(&mut self.store_failed) {
            info!(%network, "{} leases can be stored again", self.server);
            self.tell(DhcpEvent::StoreRecovered { network });
        }
    }

    pub(super) fn not_stored(&mut self, network: Uuid, reason: &CommitError) {
        if !std::mem::replace(&mut self.store_failed, true) {
            error!(%network, %reason, "{} leases cannot be stored, so no new ones are granted", self.server);
            self.tell(DhcpEvent::StoreFailed { network, reason: reason.to_string() });
        }
    }
}
