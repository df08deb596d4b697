//! Packets that wait, by the port that they came from: each port gets its turn, and none more than its rate.

use crate::protocol::dhcpv4::Origin;
use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

/// Packets that wait, of one port and of all; of one port where no rate is set, all.
const PER_PORT: usize = 64;
const TOTAL: usize = 4_096;
/// Ports that are told apart. Those that have been still go first; beyond it packets are dropped.
const PORTS: usize = 4_096;

/// Bounded: a guest that floods fills its own queue.
#[derive(Debug)]
pub(in crate::server) struct FairQueue<T> {
    ports: HashMap<Origin, Port<T>>,
    /// Ports with packets, each once, in the order of their turns.
    turns: VecDeque<Origin>,
    waiting: usize,
    dropped: u64,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Port<T> {
    waiting: VecDeque<T>,
    /// Packets that it may still send, and when that was true.
    tokens: f64,
    at: Instant,
    limited: bool,
}

impl<T> FairQueue<T> {
    pub(in crate::server) fn new() -> Self {
        Self { ports: HashMap::new(), turns: VecDeque::new(), waiting: 0, dropped: 0, swept: None }
    }

    /// `rate`: packets a second, and the size of a burst; 0: no limit.
    pub(in crate::server) fn push(&mut self, origin: Origin, packet: T, rate: u32, now: Instant) {
        if self.ports.len() >= PORTS && !self.ports.contains_key(&origin) {
            self.forget_still(now);
        }
        let limit = if rate == 0 { TOTAL } else { PER_PORT };
        if self.waiting >= TOTAL || (self.ports.len() >= PORTS && !self.ports.contains_key(&origin)) {
            self.dropped += 1;
            return;
        }
        let rate = f64::from(rate);
        let fresh = || Port { waiting: VecDeque::new(), tokens: rate, at: now, limited: rate > 0.0 };
        let port = self.ports.entry(origin).or_insert_with(fresh);
        if rate > 0.0 {
            let earned = now.saturating_duration_since(port.at).as_secs_f64() * rate;
            (port.tokens, port.at) = ((port.tokens + earned).min(rate), now);
            if port.tokens < 1.0 {
                self.dropped += 1;
                return;
            }
        }
        if port.waiting.len() >= limit {
            self.dropped += 1;
            return;
        }
        if rate > 0.0 {
            port.tokens -= 1.0;
        }
        if port.waiting.is_empty() {
            self.turns.push_back(origin);
        }
        port.waiting.push_back(packet);
        self.waiting += 1;
    }

    /// The next packet: one of each port in turn.
    pub(in crate::server) fn pop(&mut self) -> Option<T> {
        let origin = self.turns.pop_front()?;
        let port = self.ports.get_mut(&origin)?;
        let packet = port.waiting.pop_front()?;
        self.waiting -= 1;
        if !port.waiting.is_empty() {
            self.turns.push_back(origin);
        } else if !port.limited {
            self.ports.remove(&origin);
        }
        Some(packet)
    }

    pub(in crate::server) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Packets that were dropped since the start, as their port sent too many.
    pub(in crate::server) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Ports that sent nothing for a second have their whole burst again, and need no memory.
    fn forget_still(&mut self, now: Instant) {
        // Not for each packet of a flood.
        if self.swept.is_some_and(|at| now.saturating_duration_since(at).as_millis() < 100) {
            return;
        }
        self.swept = Some(now);
        self.ports.retain(|_, port| !port.waiting.is_empty() || now.saturating_duration_since(port.at).as_secs() < 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn port(n: u32) -> Origin {
        Origin::interface(n)
    }

    #[test]
    fn a_flood_leaves_room_for_others() {
        let (mut queue, now) = (FairQueue::new(), Instant::now());
        for n in 0..100_000 {
            queue.push(port(1), (1, n), 1_000, now);
        }
        queue.push(port(2), (2, 0), 1_000, now);
        assert_eq!(queue.dropped(), 100_000 - PER_PORT as u64);
        let first: Vec<_> = (0..2).filter_map(|_| queue.pop()).collect();
        assert_eq!(first, [(1, 0), (2, 0)]);
    }

    #[test]
    fn a_port_has_its_rate() {
        let (mut queue, start) = (FairQueue::new(), Instant::now());
        let mut taken = 0;
        for millisecond in 0..10_000 {
            for _ in 0..10 {
                queue.push(port(1), (), 100, start + Duration::from_millis(millisecond));
            }
            while queue.pop().is_some() {
                taken += 1;
            }
        }
        assert!((1_000..=1_110).contains(&taken), "{taken} in 10 s at 100/s after a burst of 100");
    }

    #[test]
    fn what_was_sent_without_a_limit_is_not_owed_to_a_later_one() {
        let (mut queue, start) = (FairQueue::new(), Instant::now());
        (0..20).for_each(|_| queue.push(port(1), (), 0, start));
        let later = start + Duration::from_secs(1);
        (0..11).for_each(|_| queue.push(port(1), (), 10, later));
        assert_eq!((queue.waiting, queue.dropped()), (30, 1));
    }

    #[test]
    fn it_holds_no_more_than_its_limits() {
        let (mut queue, now) = (FairQueue::new(), Instant::now());
        for n in 0..3 * PORTS as u32 {
            queue.push(port(n), (), 10, now);
            queue.push(port(n), (), 10, now);
        }
        assert_eq!((queue.ports.len() <= PORTS, queue.waiting), (true, TOTAL));
        while queue.pop().is_some() {}
        assert!(queue.is_empty() && queue.turns.is_empty());
        // Later others have their turn.
        let later = now + Duration::from_secs(2);
        for n in 0..PORTS as u32 {
            queue.push(port(1_000_000 + n), (), 10, later);
        }
        assert_eq!((queue.ports.len(), queue.waiting), (PORTS, PORTS.min(TOTAL)));
        let mut unlimited = FairQueue::new();
        (0..2 * TOTAL).for_each(|_| unlimited.push(port(1), (), 0, now));
        assert_eq!(unlimited.waiting, TOTAL);
    }
}
