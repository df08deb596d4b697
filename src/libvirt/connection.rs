//! The one thread that talks with libvirt, and how the daemon talks with that thread.
//!
//! Level-triggered: an event only marks a domain, and what is told about it is read from libvirt afterwards. The thread
//! may block for as long as libvirt likes (a domain is locked while its hook runs); nobody waits for it.

use super::{
    backoff::Backoff,
    domain_xml::{Domain, XmlError, parse_domain},
    events::{Session, SessionError, open_bare},
    mailbox::{Mailbox, Pending, PublishRequest},
    publish::{self, PublishError, PublishedNetwork, plan_publish},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::Sender;
use uuid::Uuid;
use virt::{
    connect::Connect,
    domain::Domain as VirtDomain,
    error::{Error, ErrorNumber},
};

/// A connection that stood for this long starts its successor's back-off anew, and may be renewed.
const STABLE: Duration = Duration::from_secs(10);
/// From a change of libvirt's networks to our look at them: gathers changes, and bounds a quarrel with another program.
const NETWORKS_SETTLE: Duration = Duration::from_millis(500);
/// From a call's failure on a broken connection to the callback that tells what broke it.
const CLOSE_TOLD: Duration = Duration::from_millis(500);
const PUBLISH_RETRY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct LibvirtConfig {
    /// `qemu:///system` reaches the monolithic and the modular daemons alike.
    pub uri: String,
    /// Seconds between keepalive messages, and how many may go unanswered (`virConnectSetKeepAlive`).
    pub keepalive: (i32, u32),
    /// First and longest delay between attempts to connect.
    pub reconnect: (Duration, Duration),
}

impl Default for LibvirtConfig {
    fn default() -> Self {
        Self {
            uri: "qemu:///system".to_owned(),
            keepalive: (5, 3),
            reconnect: (Duration::from_millis(100), Duration::from_secs(10)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibvirtEvent {
    /// An `Inventory` follows. `version` is the other side's: major × 1,000,000 + minor × 1,000 + release.
    Connected { version: u32 },
    /// No connection, now or from the start; told again only when the reason changes.
    Disconnected { reason: String },
    /// All domains, running or not: whatever is not in it is gone.
    Inventory(Vec<DomainState>),
    /// One domain as it is now, after something happened to it.
    Domain(DomainState),
    /// The domain is neither running nor defined.
    Gone { uuid: Uuid },
    /// How the networks stand in libvirt: after each request, and whenever that changes or something was done about it.
    Published(Published),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainState {
    pub uuid: Uuid,
    pub name: String,
    /// Runs, or is paused; taps exist only then.
    pub active: bool,
    /// Stays defined when it stops.
    pub persistent: bool,
    /// The live XML of an active domain, else the configured one.
    pub definition: Result<Domain, DomainError>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    #[error(transparent)]
    Xml(#[from] XmlError),
    #[error("libvirt does not show the domain's XML: {0}")]
    Libvirt(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// One entry for each network asked for.
    pub networks: BTreeMap<Uuid, Result<(), PublishError>>,
    /// Published earlier, wanted no more, and no longer in libvirt.
    pub removed: BTreeSet<Uuid>,
    /// Published earlier, wanted no more, and still there.
    pub not_removed: BTreeMap<Uuid, PublishError>,
}

/// Asks the libvirt thread for things; none of it waits. Dropping it stops the thread.
#[derive(Debug)]
pub struct LibvirtHandle {
    mailbox: Arc<Mailbox>,
}

impl LibvirtHandle {
    /// Asks for an `Inventory`, and for a look at the published networks.
    pub fn refresh(&self) {
        self.mailbox.resync();
        self.mailbox.networks_changed();
    }

    /// Asks for a `Domain` or `Gone`.
    pub fn refresh_domain(&self, uuid: Uuid) {
        self.mailbox.domain_changed(uuid);
    }

    /// Makes libvirt's networks agree with `wanted`, now and as long as this thread lives. Of all others only those in
    /// `earlier` are removed. Answered by `Published`.
    ///
    /// Record the UUIDs as published *before* calling this, and forget those that come back as `removed`: then a crash
    /// in between leaves nothing behind.
    pub fn publish(&self, wanted: Vec<PublishedNetwork>, earlier: BTreeSet<Uuid>) {
        self.mailbox.publish(PublishRequest { wanted, earlier });
    }

    /// Ends the thread after the libvirt call that it may be in. Published networks stay.
    pub fn stop(self) {}
}

impl Drop for LibvirtHandle {
    fn drop(&mut self) {
        self.mailbox.stop();
    }
}

/// Starts the libvirt thread. It connects, and connects again, for as long as the handle lives; the channel closes when
/// it has ended. While the channel is full it waits and gathers marks, so that no news is lost and none piles up.
pub fn spawn(config: LibvirtConfig, events: Sender<LibvirtEvent>) -> io::Result<LibvirtHandle> {
    let mailbox = Arc::new(Mailbox::default());
    let handle = LibvirtHandle { mailbox: Arc::clone(&mailbox) };
    let worker = Worker { config, mailbox, events, down: None, request: None, publish_due: None, published: None };
    thread::Builder::new().name("libvirt".to_owned()).spawn(move || worker.run())?;
    Ok(handle)
}

/// Why the thread ends: nobody wants to hear from it any more.
struct Done;

/// Why a connection is of no more use.
enum Lost {
    Done,
    Connection(String),
    /// It stands, but its way to virtnetworkd does not: only a new one has network events.
    Networks,
}

impl From<Done> for Lost {
    fn from(Done: Done) -> Self {
        Self::Done
    }
}

impl From<Error> for Lost {
    fn from(e: Error) -> Self {
        Self::Connection(e.message().to_owned())
    }
}

struct Worker {
    config: LibvirtConfig,
    mailbox: Arc<Mailbox>,
    events: Sender<LibvirtEvent>,
    /// What `Disconnected` said last.
    down: Option<String>,
    request: Option<PublishRequest>,
    publish_due: Option<Instant>,
    published: Option<Published>,
}

impl Worker {
    fn run(mut self) {
        let (min, max) = self.config.reconnect;
        let mut backoff = Backoff::new(min, max);
        while !self.mailbox.stopped() {
            let epoch = self.mailbox.next_epoch();
            let (since, reason) = match Session::open(&self.config.uri, self.config.keepalive, &self.mailbox, epoch) {
                Err(e) => (Instant::now(), explain(&self.config.uri, &e)),
                Ok(session) => {
                    let since = Instant::now();
                    match self.serve(&session) {
                        Lost::Done => return,
                        Lost::Connection(reason) => (since, reason),
                        Lost::Networks => continue,
                    }
                }
            };
            if self.tell_down(reason).is_err() {
                return;
            }
            if since.elapsed() >= STABLE {
                backoff.reset();
            }
            // The low bits of a version 4 UUID are random.
            self.mailbox.pause(Instant::now() + backoff.delay(Uuid::new_v4().as_u128() as u32));
        }
    }

    fn tell(&self, event: LibvirtEvent) -> Result<(), Done> {
        self.events.blocking_send(event).map_err(|_| Done)
    }

    fn tell_down(&mut self, reason: String) -> Result<(), Done> {
        if self.down.as_ref() == Some(&reason) {
            return Ok(());
        }
        tracing::warn!(uri = self.config.uri, "no connection to libvirt: {reason}");
        self.down = Some(reason.clone());
        self.tell(LibvirtEvent::Disconnected { reason })
    }

    /// Works on one connection until it ends.
    fn serve(&mut self, session: &Session) -> Lost {
        let version = match session.connect().get_lib_version() {
            Ok(version) => version,
            Err(e) => return e.into(),
        };
        tracing::info!(uri = self.config.uri, version, "connected to libvirt");
        self.down = None;
        // Subscribed already: what changes from here on is marked again.
        self.mailbox.resync();
        self.mailbox.networks_changed();
        if let Err(done) = self.tell(LibvirtEvent::Connected { version }) {
            return done.into();
        }
        loop {
            let pending = self.mailbox.wait(self.publish_due);
            if pending.stop {
                return Lost::Done;
            }
            if let Some(reason) = pending.closed {
                self.keep(pending);
                return Lost::Connection(reason.to_owned());
            }
            match self.work(session, pending) {
                Ok(()) => {}
                // The callback knows why the call failed.
                Err(Lost::Connection(reason)) if !session.is_alive() => {
                    let told = self.mailbox.closed_by(Instant::now() + CLOSE_TOLD);
                    return Lost::Connection(told.map_or(reason, str::to_owned));
                }
                Err(lost) => return lost,
            }
        }
    }

    /// Keeps the request of a connection that ended for the next one.
    fn keep(&mut self, pending: Pending) {
        if pending.publish.is_some() {
            self.request = pending.publish;
            self.published = None;
        }
    }

    fn work(&mut self, session: &Session, mut pending: Pending) -> Result<(), Lost> {
        let requested = pending.publish.is_some();
        if pending.networks {
            self.publish_due.get_or_insert(Instant::now() + NETWORKS_SETTLE);
        }
        let marked = std::mem::take(&mut pending.domains);
        let resync = pending.resync;
        self.keep(pending);
        if resync {
            self.tell(LibvirtEvent::Inventory(inventory(session.connect())?))?;
        } else {
            for uuid in marked {
                let event =
                    read_domain(session.connect(), uuid)?.map_or(LibvirtEvent::Gone { uuid }, LibvirtEvent::Domain);
                self.tell(event)?;
            }
        }
        if requested || self.publish_due.is_some_and(|due| due <= Instant::now()) {
            self.publish_due = None;
            self.publish(session, requested)?;
        }
        Ok(())
    }

    fn publish(&mut self, session: &Session, requested: bool) -> Result<(), Lost> {
        let Some(request) = &self.request else { return Ok(()) };
        // Behind modular daemons our connection keeps one of its own to virtnetworkd, which that one's restart breaks. It
        // has no network events where virtnetworkd was not there when it began.
        let ((published, acted), stale) = match publish_all(session.connect(), request) {
            Ok(done) => (done, session.lacks_network_events()),
            Err(e) if !session.is_alive() => return Err(e.into()),
            Err(_) => on_fresh_connection(&self.config.uri, request),
        };
        let results = published.networks.values().filter_map(|result| result.as_ref().err());
        if results.chain(published.not_removed.values()).any(PublishError::is_transient) {
            self.publish_due = Some(Instant::now() + PUBLISH_RETRY);
        }
        if requested || acted || self.published.as_ref() != Some(&published) {
            self.published = Some(published.clone());
            self.tell(LibvirtEvent::Published(published))?;
        }
        if stale && session.age() >= STABLE {
            tracing::info!(uri = self.config.uri, "connecting to libvirt anew: its network daemon has restarted");
            return Err(Lost::Networks);
        }
        if stale {
            self.publish_due = Some(Instant::now() + PUBLISH_RETRY);
        }
        Ok(())
    }
}

fn explain(uri: &str, e: &SessionError) -> String {
    format!("cannot connect to libvirt at {uri}: {e}")
}

fn inventory(connect: &Connect) -> Result<Vec<DomainState>, Error> {
    let listed = connect.list_all_domains(0)?;
    listed.iter().filter_map(|domain| unless_gone(state(domain)).transpose()).collect()
}

fn read_domain(connect: &Connect, uuid: Uuid) -> Result<Option<DomainState>, Error> {
    unless_gone(VirtDomain::lookup_by_uuid(connect, uuid).and_then(|domain| state(&domain)))
}

fn state(domain: &VirtDomain) -> Result<DomainState, Error> {
    let definition = match domain.get_xml_desc(0) {
        Ok(xml) => parse_domain(&xml).map_err(DomainError::from),
        Err(e) if e.code() == ErrorNumber::NoDomain => return Err(e),
        Err(e) => Err(DomainError::Libvirt(e.message().to_owned())),
    };
    // The XML knows best: it and what is said of it are of one moment.
    let active = match &definition {
        Ok(parsed) => parsed.id.is_some(),
        Err(_) => domain.is_active()?,
    };
    let persistent = domain.is_persistent()?;
    Ok(DomainState { uuid: domain.get_uuid()?, name: domain.get_name()?, active, persistent, definition })
}

/// `None` for a domain that is gone.
fn unless_gone(result: Result<DomainState, Error>) -> Result<Option<DomainState>, Error> {
    match result {
        Ok(state) => Ok(Some(state)),
        Err(e) if e.code() == ErrorNumber::NoDomain => Ok(None),
        Err(e) => Err(e),
    }
}

/// Plans, applies, and looks again: how it stands, and whether there was something to do. Fails only where libvirt's
/// networks cannot be listed.
fn publish_all(connect: &Connect, request: &PublishRequest) -> Result<(Published, bool), Error> {
    let PublishRequest { wanted, earlier } = request;
    let before = publish::list(connect)?;
    let plan = plan_publish(&before, wanted, earlier);
    let acted = !plan.actions.is_empty();
    let (after, mut errors) = if plan.actions.is_empty() {
        (before, plan.errors)
    } else {
        let errors = publish::apply(connect, plan);
        (publish::list(connect)?, errors)
    };
    for action in plan_publish(&after, wanted, earlier).actions {
        let reason = "libvirt took it, but does not show it".to_owned();
        let left = || PublishError::Libvirt { action: action.to_string(), reason };
        errors.entry(action.uuid()).or_insert_with(left);
    }
    Ok((
        results(request, &errors, |uuid| after.iter().any(|network| network.uuid == uuid && network.may_be_ours())),
        acted,
    ))
}

fn results(
    request: &PublishRequest,
    errors: &BTreeMap<Uuid, PublishError>,
    present: impl Fn(Uuid) -> bool,
) -> Published {
    let networks: BTreeMap<_, _> =
        request.wanted.iter().map(|n| (n.uuid, errors.get(&n.uuid).map_or(Ok(()), |e| Err(e.clone())))).collect();
    let unwanted = || request.earlier.iter().copied().filter(|uuid| !networks.contains_key(uuid));
    Published {
        removed: unwanted().filter(|uuid| !present(*uuid)).collect(),
        not_removed: unwanted().filter_map(|uuid| Some((uuid, errors.get(&uuid)?.clone()))).collect(),
        networks,
    }
}

/// The outcome, and whether it could be had.
fn on_fresh_connection(uri: &str, request: &PublishRequest) -> ((Published, bool), bool) {
    let outcome = open_bare(uri).and_then(|mut connect| {
        let outcome = publish_all(&connect, request);
        if let Err(e) = connect.close() {
            tracing::debug!("closing the libvirt connection: {}", e.message());
        }
        Ok(outcome?)
    });
    let e = match outcome {
        Ok(done) => return (done, true),
        Err(e) => e,
    };
    let failed = PublishError::Libvirt { action: "list libvirt's networks".to_owned(), reason: e.to_string() };
    let all = request.wanted.iter().map(|n| n.uuid).chain(request.earlier.iter().copied());
    ((results(request, &all.map(|uuid| (uuid, failed.clone())).collect(), |_| true), false), false)
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
