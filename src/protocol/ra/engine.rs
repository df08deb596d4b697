use super::Router;
use crate::net::MacAddr;
use std::{collections::BTreeMap, net::Ipv6Addr};

/// Milliseconds since some moment, by a clock that nobody sets.
pub type Millis = u64;

/// MaxRtrAdvInterval and MinRtrAdvInterval (RFC 4861 section 6.2.1).
const INTERVAL: (Millis, Millis) = (200_000, 600_000);
/// MAX_INITIAL_RTR_ADVERT_INTERVAL and MAX_INITIAL_RTR_ADVERTISEMENTS: so often what is new is said.
const INITIAL_INTERVAL: Millis = 16_000;
const INITIAL: u32 = 3;
/// MIN_DELAY_BETWEEN_RAS and MAX_RA_DELAY_TIME.
const MIN_DELAY: Millis = 3_000;
const MAX_ANSWER_DELAY: u64 = 500;
/// Answers to single hosts that wait; beyond it all are answered as one.
const MAX_WAITING: usize = 256;
/// From an answer to a host to its next: a host that keeps asking is answered no more often than all together.
const MAX_RECENT: usize = 1_024;

const ROUTER_SOLICITATION: u8 = 133;
const SOURCE_LINK_LAYER: u8 = 1;

/// A sound router solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// `None`: the host has no address yet.
    pub source: Option<Ipv6Addr>,
}

impl Solicitation {
    /// Of an ICMPv6 message whose checksum is right (RFC 4861 section 6.1.1).
    pub fn parse(message: &[u8], source: Ipv6Addr, hop_limit: u8) -> Option<Self> {
        let (head, mut rest) = message.split_first_chunk::<8>()?;
        if head[0] != ROUTER_SOLICITATION || head[1] != 0 || hop_limit != 255 {
            return None;
        }
        let source = Some(source).filter(|source| !source.is_unspecified());
        while let [kind, units, ..] = rest {
            let length = usize::from(*units) * 8;
            if length == 0 || (*kind == SOURCE_LINK_LAYER && source.is_none()) {
                return None;
            }
            rest = rest.get(length..)?;
        }
        rest.is_empty().then_some(Self { source })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    AllNodes,
    Host { address: Ipv6Addr, mac: MacAddr },
}

/// An ICMPv6 message, its checksum zero, to be sent from the interface's link-local address with hop limit 255.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub message: Vec<u8>,
    pub destination: Destination,
}

/// The advertising of one interface. The caller gives random bits, and calls [`Engine::tick`] at
/// [`Engine::next_deadline`].
#[derive(Debug)]
pub struct Engine {
    router: Router,
    /// What it said before, to be taken back while `initial` lasts.
    former: Option<Router>,
    /// How many more come at the short interval.
    initial: u32,
    next_multicast: Millis,
    last_multicast: Option<Millis>,
    /// Hosts that wait for an answer of their own, and since when they are due.
    waiting: BTreeMap<Ipv6Addr, (Millis, MacAddr)>,
    /// When hosts were answered last.
    recent: BTreeMap<Ipv6Addr, Millis>,
}

impl Engine {
    /// The first advertisement is due at once.
    pub fn new(router: Router, now: Millis) -> Self {
        Self {
            router,
            former: None,
            initial: INITIAL,
            next_multicast: now,
            last_multicast: None,
            waiting: BTreeMap::new(),
            recent: BTreeMap::new(),
        }
    }

    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Says something else from now on: soon, and as often as at the start (RFC 4861 section 6.2.4).
    pub fn update(&mut self, router: Router, now: Millis) {
        if router == self.router {
            return;
        }
        let old = std::mem::replace(&mut self.router, router);
        // What was taken back a moment ago may not have been heard yet.
        self.former = Some(self.former.take().map_or(old.clone(), |former| old.with_withdrawn(&former)));
        self.initial = INITIAL;
        self.next_multicast = now.max(self.last_multicast.map_or(now, |last| last + MIN_DELAY));
    }

    /// A host asks. `mac`: the source of the frame.
    pub fn solicited(&mut self, solicitation: Solicitation, mac: MacAddr, now: Millis, random: u64) {
        let due = now + random % (MAX_ANSWER_DELAY + 1);
        let rested = |at: &Millis| now.saturating_sub(*at) >= MIN_DELAY;
        match solicitation.source {
            Some(host) if self.waiting.contains_key(&host) || self.recent.get(&host).is_some_and(|at| !rested(at)) => {}
            Some(host) if self.waiting.len() < MAX_WAITING => {
                self.waiting.insert(host, (due, mac));
            }
            // To all, but not more often than every three seconds (RFC 4861 section 6.2.6).
            _ => {
                let earliest = self.last_multicast.map_or(due, |last| due.max(last + MIN_DELAY));
                self.next_multicast = self.next_multicast.min(earliest);
            }
        }
    }

    pub fn next_deadline(&self) -> Millis {
        let host = self.waiting.values().map(|(due, _)| *due).min();
        host.map_or(self.next_multicast, |due| due.min(self.next_multicast))
    }

    pub fn tick(&mut self, now: Millis, random: u64) -> Vec<Output> {
        let mut out = Vec::new();
        if self.next_multicast <= now {
            out.push(self.output(Destination::AllNodes));
            self.waiting.clear();
            self.last_multicast = Some(now);
            self.initial = self.initial.saturating_sub(1);
            let (least, most) = INTERVAL;
            let interval = least + random % (most - least + 1);
            self.next_multicast = now + if self.initial > 0 { interval.min(INITIAL_INTERVAL) } else { interval };
            if self.initial == 0 {
                self.former = None;
            }
        }
        let due: Vec<_> = self.waiting.iter().filter(|(_, (due, _))| *due <= now).map(|(h, (_, m))| (*h, *m)).collect();
        for (address, mac) in due {
            self.waiting.remove(&address);
            if self.recent.len() >= MAX_RECENT {
                self.recent.retain(|_, at| now.saturating_sub(*at) < MIN_DELAY);
            }
            if self.recent.len() < MAX_RECENT {
                self.recent.insert(address, now);
            }
            out.push(self.output(Destination::Host { address, mac }));
        }
        out
    }

    /// The last word: this router is none any more (RFC 4861 section 6.2.5).
    pub fn cease(self) -> Output {
        let router = self.former.as_ref().map_or(self.router.clone(), |former| self.router.with_withdrawn(former));
        Output { message: router.advertise(true), destination: Destination::AllNodes }
    }

    fn output(&self, destination: Destination) -> Output {
        let router = self.former.as_ref().map(|former| self.router.with_withdrawn(former));
        Output { message: router.as_ref().unwrap_or(&self.router).advertise(false), destination }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.waiting.len(), self.recent.len())
    }
}
