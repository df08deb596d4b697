use super::{
    Command, HookIndex, ImportMemo, Notice, Outlets, Problem, View, leases::Trouble, listed_texts::ListedTexts,
    previous_sysctls, services::services_of, yielded::Yielded,
};
use crate::{
    backend::{Driver, LinkEvent, Loaded, Store, StoreError, Write},
    datapath::{Observed, Sysctl},
    intent::{HostConfig, Intent, NetworkId, PortId},
    libvirt::LibvirtEvent,
    net::IfName,
    server::{
        clock::{self, LeaseClock},
        dhcpv4::DhcpEvent,
        hook::HookCall,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc},
    time::Instant,
};
use uuid::Uuid;

/// From a change to the full pass that it asks for: changes that come together share one.
const GATHER: Duration = Duration::from_millis(20);
/// How long a full pass may be put off by more changes.
const PATIENCE: Duration = Duration::from_millis(250);
/// A full pass comes at least so often, whatever was missed.
const TICK: Duration = Duration::from_secs(60);
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// From a server that could not start, as its port was taken, to the next attempt.
const SERVICE_RETRY: Duration = Duration::from_secs(3);
/// How long services may be behind: a guest asks for its address long after its start has waited for its port, and
/// changes that come together cost one update.
const BEHIND: Duration = Duration::from_millis(10);
/// How many events of a kind are taken together.
pub(super) const BATCH: usize = 256;

/// Where the loop's work comes from.
#[derive(Debug)]
pub struct Inputs {
    pub commands: mpsc::Receiver<Command>,
    pub hooks: mpsc::Receiver<HookCall>,
    pub links: mpsc::Receiver<LinkEvent>,
    pub libvirt: mpsc::Receiver<LibvirtEvent>,
    pub leases: mpsc::Receiver<DhcpEvent>,
    /// A configuration read anew.
    pub config: mpsc::Receiver<HostConfig>,
}

/// The one owner of all changes.
#[derive(Debug)]
pub struct Engine<D, S, O> {
    pub(super) view: Arc<RwLock<View>>,
    pub(super) notices: broadcast::Sender<Notice>,
    pub(super) driver: D,
    pub(super) store: Arc<S>,
    pub(super) outlets: O,
    pub(super) observed: Observed,
    pub(super) listed_texts: ListedTexts,
    /// What kernel parameters were before we set them.
    pub(super) previous: BTreeMap<Sysctl, String>,
    /// The running guests' NICs that libvirt or the hook told of: the tap of each port, and whose it is.
    pub(super) taps: BTreeMap<PortId, IfName>,
    /// Ports whose NICs libvirt has no more, and whose taps the kernel still has.
    pub(super) leaving: BTreeSet<PortId>,
    pub(super) published: BTreeSet<Uuid>,
    pub(super) index: Option<HookIndex>,
    /// Networks whose services must be brought up to date.
    pub(super) touched: BTreeSet<NetworkId>,
    pub(super) plan_problems: Vec<Problem>,
    pub(super) service_problems: Vec<Problem>,
    pub(super) dhcp_problems: BTreeMap<(NetworkId, Trouble), Problem>,
    pub(super) libvirt_problems: BTreeMap<Uuid, Problem>,
    pub(super) guest_problems: BTreeMap<Uuid, Vec<Problem>>,
    pub(super) yielded: Yielded,
    /// Whether a change may have taken away what connections under way were allowed by.
    pub(super) revoking: bool,
    dirty: Option<Dirty>,
    retry: Option<(Duration, Instant)>,
    tick: Instant,
    service_retry: Option<Instant>,
    /// When the services of what was touched are to be up to date.
    services_due: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Dirty {
    since: Instant,
    due: Instant,
}

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    /// Takes up what the store holds and what the kernel shows: nothing of what runs is changed before the first pass,
    /// and that finds nothing to do on a host that nobody touched.
    pub async fn start(
        mut driver: D,
        store: Arc<S>,
        outlets: O,
        host: HostConfig,
        view: Arc<RwLock<View>>,
        notices: broadcast::Sender<Notice>,
    ) -> Result<Self, StartError> {
        let loaded = store.load().await?;
        let observed = driver.observe().await?;
        let (fresh, previous) = (is_fresh(&loaded), previous_sysctls::previous_of(&loaded));
        let memo = loaded.memos.iter().find(|(key, _)| key == clock::MEMO).map(|(_, value)| value.as_str());
        let (lease_clock, memo) = LeaseClock::resume(memo);
        let (server_id, drawn) = server_id(&loaded);
        let memos = [memo.map(|value| (clock::MEMO, value)), drawn.map(|value| (SERVER_ID, value))];
        let memos = memos.into_iter().flatten().map(|(key, value)| Write::PutMemo { key: key.to_owned(), value });
        let memos: Vec<Write> = memos.collect();
        if !memos.is_empty() {
            store.commit(memos).await?;
        }
        let mut engine = Self {
            view,
            notices,
            driver,
            store,
            outlets,
            observed,
            listed_texts: ListedTexts::default(),
            previous,
            taps: BTreeMap::new(),
            leaving: BTreeSet::new(),
            published: loaded.published.iter().copied().collect(),
            index: None,
            touched: BTreeSet::new(),
            plan_problems: Vec::new(),
            service_problems: Vec::new(),
            dhcp_problems: BTreeMap::new(),
            libvirt_problems: BTreeMap::new(),
            guest_problems: BTreeMap::new(),
            yielded: Yielded::default(),
            // The daemon may have ended between a change and what follows from it.
            revoking: true,
            dirty: None,
            retry: None,
            tick: Instant::now() + TICK,
            service_retry: None,
            services_due: None,
        };
        engine.view_mut().server_id = server_id;
        engine.take_up(loaded, host, lease_clock);
        engine.make_default_group().await?;
        if fresh {
            engine.make_default_network().await?;
        }
        engine.adopt_taps();
        engine.touch_all();
        engine.full_pass().await;
        engine.flush().await;
        engine.refresh_problems();
        engine.refresh_index();
        engine.publish_anew().await;
        Ok(engine)
    }

    /// Loads what is stored, leniently: what a changed configuration no longer allows is still there, and is reported
    /// by the plan.
    fn take_up(&mut self, mut loaded: Loaded, host: HostConfig, lease_clock: LeaseClock) {
        let mut view = self.view_mut();
        view.lease_clock = lease_clock;
        view.intent = Intent::restore(loaded.take_intent());
        view.host = host;
        view.take_leases(loaded.leases);
        view.imports = ImportMemo::all(&loaded.memos);
    }

    /// Runs until it is told to stop, or every sender of commands is gone.
    pub async fn run(mut self, mut inputs: Inputs) {
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                Some(hook) = inputs.hooks.recv() => self.serve_hook(hook).await,
                () = sleep_until(self.services_due) => self.flush().await,
                () = tokio::time::sleep_until(due) => self.full_turn().await,
                command = inputs.commands.recv() => match command {
                    Some(command) => {
                        if self.serve_commands(command, &mut inputs.commands).await.is_break() {
                            break;
                        }
                    }
                    None => break,
                },
                Some(event) = inputs.links.recv() => {
                    let mut events = vec![event];
                    while events.len() < BATCH && let Ok(event) = inputs.links.try_recv() {
                        events.push(event);
                    }
                    self.take_link_events(events).await;
                }
                Some(event) = inputs.libvirt.recv() => self.take_libvirt_event(event).await,
                Some(event) = inputs.leases.recv() => self.take_lease_event(event).await,
                Some(host) = inputs.config.recv() => {
                    tracing::info!(physical_networks = host.physical_networks.len(), "configuration taken up");
                    self.view_mut().host = host;
                    self.touch_all();
                    self.mark_dirty();
                    self.refresh_index();
                    self.publish_anew().await;
                }
                () = sleep_until(self.service_retry) => {
                    self.service_retry = None;
                    self.touch_all();
                }
            }
            if !self.touched.is_empty() {
                self.services_due.get_or_insert_with(|| Instant::now() + BEHIND);
            }
            self.refresh_problems();
        }
    }

    async fn full_turn(&mut self) {
        let now = Instant::now();
        self.dirty = None;
        self.yielded.rested(now);
        if self.tick <= now {
            // Some changes of a domain, as of the network that a NIC is plugged into, come without an event.
            self.outlets.refresh();
        }
        self.tick = now + TICK;
        self.full_pass().await;
        if self.index.is_none() {
            self.refresh_index();
        }
        if self.has_unpublished() {
            self.publish_anew().await;
        }
    }

    pub(super) fn touch_all(&mut self) {
        let all: Vec<_> = self.view().intent.networks().map(|network| network.id).collect();
        self.touched.extend(all);
    }

    fn due(&self) -> Instant {
        let retry = self.retry.map(|(_, at)| at);
        let dirty = self.dirty.map(|dirty| dirty.due);
        dirty.into_iter().chain(retry).chain(self.yielded.due()).fold(self.tick, Instant::min)
    }

    /// Asks for a full pass soon.
    pub(super) fn mark_dirty(&mut self) {
        let now = Instant::now();
        let since = self.dirty.map_or(now, |dirty| dirty.since);
        self.dirty = Some(Dirty { since, due: (now + GATHER).min(since + PATIENCE) });
    }

    /// Another full pass follows after a while that grows, until one has nothing to complain of.
    pub(super) fn retry_later(&mut self, failed: bool) {
        let delay = self.retry.map_or(RETRY.0, |(delay, _)| (delay * 2).min(RETRY.1));
        self.retry = failed.then(|| (delay, Instant::now() + delay));
    }

    /// Brings the services of what was touched since the last time up to date.
    pub(super) async fn flush(&mut self) {
        self.services_due = None;
        if !self.touched.is_empty() {
            let touched = std::mem::take(&mut self.touched);
            let services = {
                let view = self.view();
                touched.into_iter().map(|network| services_of(&view, &self.observed.datapath, network)).collect()
            };
            self.service_problems = self.outlets.serve(services).await;
            self.service_retry = (!self.service_problems.is_empty()).then(|| Instant::now() + SERVICE_RETRY);
        }
    }

    pub(super) fn refresh_index(&mut self) {
        let index = HookIndex::of(&self.view());
        if self.index.as_ref() != Some(&index) {
            match self.outlets.write_index(&index) {
                Ok(()) => self.index = Some(index),
                Err(error) => tracing::error!(%error, "the index for libvirt's hook cannot be written"),
            }
        }
    }

    fn refresh_problems(&mut self) {
        let mut problems: Vec<Problem> = self.plan_problems.clone();
        problems.extend(self.service_problems.iter().cloned());
        problems.extend(self.dhcp_problems.values().cloned());
        problems.extend(self.libvirt_problems.values().cloned());
        problems.extend(self.guest_problems.values().flatten().cloned());
        problems.sort();
        problems.dedup();
        if self.view().problems == problems {
            return;
        }
        for problem in problems.iter().filter(|problem| !self.view().problems.contains(problem)) {
            tracing::warn!(subject = ?problem.subject, "{}", problem.message);
        }
        self.view_mut().problems = problems;
        self.notify(Notice::StatusChanged);
    }

    pub(super) fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn notify(&self, notice: Notice) {
        // No receiver is no fault.
        let _ = self.notices.send(notice);
    }
}

/// Where the store keeps what the DHCPv6 servers call themselves, in hexadecimal.
const SERVER_ID: &str = "dhcpv6-server-id";

/// The DUID of this host's DHCPv6 servers, and what is to be stored of one that is new: of a UUID (RFC 6355), drawn at
/// the first start and kept for ever, since clients renew with the server that they know.
fn server_id(loaded: &Loaded) -> (Vec<u8>, Option<String>) {
    let stored =
        loaded.memos.iter().find(|(key, _)| key == SERVER_ID).and_then(|(_, value)| value.parse::<Uuid>().ok());
    let uuid = stored.unwrap_or_else(Uuid::new_v4);
    ([&[0, 4][..], uuid.as_bytes()].concat(), stored.is_none().then(|| uuid.to_string()))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Driver(#[from] crate::backend::DriverError),
    #[error("what a host has from its first start cannot be made: {0}")]
    FirstStart(#[from] super::CommandError),
}

fn is_fresh(loaded: &Loaded) -> bool {
    loaded.networks.is_empty() && !loaded.memos.iter().any(|(key, _)| key == super::bootstrap::MADE)
}
