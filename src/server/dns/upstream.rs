//! The resolvers that are asked for what is not ours.
//!
//! Why not hickory-resolver: it answers "which records has this name" for a program, not a guest's question for a
//! guest. It follows CNAMEs and retries types itself, loses header bits and sections (AD, CD, the authority of a
//! negative answer), keeps a cache per resolver and reads resolv.conf once. A forwarder passes one question on and one
//! answer back; that is less code than to undo the rest.

use super::{
    forward::{ExchangeError, exchange},
    resolv_conf::ResolvConf,
};
use crate::protocol::dns::{Ask, is_refusal};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};

/// The most questions under way at once, all networks together; each holds a socket for each resolver it asks.
const MAX_IN_FLIGHT: usize = 1024;
/// When the next resolver is asked too, the one before being silent so far. Not much sooner: where the first knows the
/// site's own names and the second does not, the second's answer is second best.
const NEXT_AFTER: Duration = Duration::from_secs(1);
/// When to give up: stub resolvers ask again after five seconds.
const GIVE_UP_AFTER: Duration = Duration::from_millis(4500);
/// How long a resolver that did not answer is asked last.
const AVOID_FOR: Duration = Duration::from_secs(10);
/// The most resolvers that one question is put to.
const MAX_ASKED: usize = 8;
/// How often, at most, the host's resolv.conf is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where upstream resolvers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamSource {
    /// These, in this order of preference.
    Fixed(Vec<SocketAddr>),
    /// The host's own: a resolv.conf(5), or, where that only points at systemd-resolved's stub, the file in which
    /// systemd-resolved lists its upstreams. Followed as it changes.
    ResolvConf { path: PathBuf, resolved: PathBuf },
}

impl UpstreamSource {
    /// This host's files.
    pub fn host() -> Self {
        Self::ResolvConf { path: "/etc/resolv.conf".into(), resolved: "/run/systemd/resolve/resolv.conf".into() }
    }
}

/// The upstream resolvers, shared by all networks. They are reached from the daemon's own network namespace.
#[derive(Debug)]
pub struct Upstreams {
    state: Mutex<State>,
    in_flight: Semaphore,
    /// How often the usual resolvers became others.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    conf: Option<ResolvConf>,
    looked: Option<Instant>,
    servers: Vec<SocketAddr>,
    /// Resolvers that did not answer, and until when they are asked last.
    avoided: HashMap<SocketAddr, Instant>,
    /// Where this process itself listens: the host's resolv.conf may well name one of our gateways.
    ourselves: Vec<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    #[error("too many questions are under way")]
    Busy,
    #[error("no upstream resolver is known; name some in the configuration, or in /etc/resolv.conf")]
    NoUpstream,
    #[error("no upstream resolver answered")]
    NoAnswer,
}

impl Upstreams {
    pub fn new(source: UpstreamSource) -> Arc<Self> {
        let mut state = State::default();
        state.take(source);
        Arc::new(Self {
            state: Mutex::new(state),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            changes: AtomicU64::new(0),
        })
    }

    /// Takes another source, for the questions from now on.
    pub fn set_source(&self, source: UpstreamSource) {
        let mut state = self.lock();
        let same = match (&source, &state.conf) {
            (UpstreamSource::Fixed(servers), None) => state.servers == *servers,
            (UpstreamSource::ResolvConf { path, resolved }, Some(conf)) => conf.reads(path, resolved),
            _ => false,
        };
        if same {
            return;
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        state.take(source);
    }

    /// Whether somebody named them; else they are the host's own.
    pub fn is_fixed(&self) -> bool {
        self.lock().conf.is_none()
    }

    /// The resolvers in use now, in the order in which they would be asked.
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.look();
        self.lock().in_order(Instant::now())
    }

    /// How often the usual resolvers became others, as far as is known; looks for changes, but not often.
    pub(super) fn changes(&self) -> u64 {
        self.look();
        self.changes.load(Ordering::Relaxed)
    }

    fn look(&self) {
        if self.lock().look(Instant::now()) {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks the upstreams in order: the next one as soon as one fails, or says that it cannot or will not answer, or
    /// has been silent for a second; the first good answer counts. `servers`: those to ask; `None`: the usual ones.
    pub(super) async fn ask(&self, ask: &Ask, servers: Option<&[SocketAddr]>) -> Result<Vec<u8>, ForwardError> {
        let _permit = self.in_flight.try_acquire().map_err(|_| ForwardError::Busy)?;
        let servers = match servers {
            None => self.servers(),
            Some(servers) => self.lock().usable(servers, Instant::now()),
        };
        if servers.is_empty() {
            return Err(ForwardError::NoUpstream);
        }
        timeout(GIVE_UP_AFTER, self.race(ask, servers)).await.unwrap_or(Err(ForwardError::NoAnswer))
    }

    async fn race(&self, ask: &Ask, servers: Vec<SocketAddr>) -> Result<Vec<u8>, ForwardError> {
        let mut waiting = servers.into_iter().peekable();
        let mut asked = Vec::new();
        let mut under_way = FuturesUnordered::new();
        let mut next_at = Instant::now();
        let mut refusal = None;
        loop {
            if (under_way.is_empty() || Instant::now() >= next_at)
                && let Some(server) = waiting.next()
            {
                next_at = Instant::now() + NEXT_AFTER;
                asked.push(server);
                under_way.push(async move { (server, exchange(ask, server).await) });
            }
            tokio::select! {
                done = under_way.next() => match done {
                    Some((server, Ok(answer))) => {
                        asked.retain(|a| *a != server);
                        self.lock().answered(server);
                        if !is_refusal(&answer) {
                            // Those who are still silent were given their second.
                            asked.iter().for_each(|silent| self.failed(*silent, &ExchangeError::Timeout));
                            return Ok(answer);
                        }
                        refusal = refusal.or(Some(answer));
                        next_at = Instant::now();
                    }
                    Some((server, Err(error))) => {
                        asked.retain(|a| *a != server);
                        self.failed(server, &error);
                        next_at = Instant::now();
                    }
                    None => return refusal.ok_or(ForwardError::NoAnswer),
                },
                () = sleep_until(next_at), if waiting.peek().is_some() => {}
            }
        }
    }

    fn failed(&self, server: SocketAddr, error: &ExchangeError) {
        if self.lock().avoid(server, Instant::now()) {
            tracing::info!(upstream = %server, %error, "an upstream resolver does not answer");
        }
    }

    /// Says that this process listens at these addresses, until the guard is dropped.
    pub(super) fn exclude(self: &Arc<Self>, ourselves: Vec<SocketAddr>) -> Excluded {
        self.lock().ourselves.extend(&ourselves);
        Excluded { upstreams: self.clone(), ourselves }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The resolvers of another source, from now on; those of a file once it was looked at.
    fn take(&mut self, source: UpstreamSource) {
        self.looked = None;
        (self.conf, self.servers) = match source {
            UpstreamSource::Fixed(servers) => (None, servers),
            UpstreamSource::ResolvConf { path, resolved } => (Some(ResolvConf::new(path, resolved)), Vec::new()),
        };
    }

    /// Whether the usual resolvers are others now.
    fn look(&mut self, now: Instant) -> bool {
        if self.conf.is_none() || self.looked.is_some_and(|looked| now < looked + LOOK_EVERY) {
            return false;
        }
        self.looked = Some(now);
        // Two stat(2) a second on small local files are not worth another thread.
        let Some(servers) = self.conf.as_mut().and_then(ResolvConf::changed) else { return false };
        if self.servers == servers {
            return false;
        }
        tracing::info!(upstreams = ?servers, "taking the host's resolvers");
        self.servers = servers;
        true
    }

    fn in_order(&self, now: Instant) -> Vec<SocketAddr> {
        self.usable(&self.servers, now)
    }

    /// Those of these resolvers that are not this process, the ones that did not answer lately last.
    fn usable(&self, servers: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let ourselves = |a: &SocketAddr| self.ourselves.iter().any(|o| o.ip() == a.ip() && o.port() == a.port());
        let usable = servers.iter().copied().filter(|server| !ourselves(server));
        let (last, first): (Vec<_>, Vec<_>) =
            usable.take(MAX_ASKED).partition(|s| self.avoided.get(s).is_some_and(|until| now < *until));
        first.into_iter().chain(last).collect()
    }

    fn answered(&mut self, address: SocketAddr) {
        self.avoided.remove(&address);
    }

    /// Whether that is news.
    fn avoid(&mut self, address: SocketAddr, now: Instant) -> bool {
        // Resolvers are named by people, so that they are few; those of long ago go.
        self.avoided.retain(|_, until| now < *until + AVOID_FOR);
        self.avoided.insert(address, now + AVOID_FOR).is_none()
    }
}

#[derive(Debug)]
pub(super) struct Excluded {
    upstreams: Arc<Upstreams>,
    ourselves: Vec<SocketAddr>,
}

impl Drop for Excluded {
    fn drop(&mut self) {
        self.upstreams.lock().ourselves.retain(|address| !self.ourselves.contains(address));
    }
}
