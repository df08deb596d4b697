//! Addresses that nobody had yet and that nobody on the link uses: looked for ahead of demand.

use super::UnixSeconds;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
};

/// How long it counts that nobody answered, in seconds.
const FRESH: UnixSeconds = 600;
/// How many are kept ready, at first and at most: as many as clients ask for while others are looked for.
const FIRST_TARGET: usize = 256;
const MAX_TARGET: usize = 8_192;

/// The addresses of one subnet that are ready or being looked for. At most [`MAX_TARGET`].
#[derive(Debug)]
pub(in crate::protocol) struct Stock<A> {
    /// When nobody answered.
    ready: HashMap<A, UnixSeconds>,
    /// Oldest first; those that are no longer ready are passed over.
    order: VecDeque<(UnixSeconds, A)>,
    probing: BTreeSet<A>,
    target: usize,
}

impl<A> Default for Stock<A> {
    fn default() -> Self {
        Self { ready: HashMap::new(), order: VecDeque::new(), probing: BTreeSet::new(), target: FIRST_TARGET }
    }
}

impl<A: Copy + Ord + Hash> Stock<A> {
    /// How many more are to be looked for.
    pub(super) fn wants(&self) -> usize {
        self.target.saturating_sub(self.ready.len() + self.probing.len())
    }

    pub(super) fn probe(&mut self, address: A) {
        self.probing.insert(address);
    }

    /// Whether it was being looked for.
    pub(super) fn probed(&mut self, address: A) -> bool {
        self.probing.remove(&address)
    }

    pub(super) fn add(&mut self, address: A, now: UnixSeconds) {
        if self.ready.insert(address, now).is_none() {
            self.order.push_back((now, address));
        }
    }

    pub(super) fn probing(&self) -> impl Iterator<Item = A> {
        self.probing.iter().copied()
    }

    pub(super) fn is_ready(&self, address: A) -> bool {
        self.ready.contains_key(&address)
    }

    pub(super) fn holds(&self, address: A) -> bool {
        self.is_ready(address) || self.probing.contains(&address)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.probing.is_empty()
    }

    /// The next one, which stays until it is [taken](Stock::take).
    pub(super) fn next(&mut self) -> Option<A> {
        self.drop_taken();
        // Asked for faster than they are looked for: keep more.
        if self.ready.len() * 4 < self.target && self.target < MAX_TARGET {
            self.target *= 2;
        }
        self.order.front().map(|(_, address)| *address)
    }

    pub(super) fn take(&mut self, address: A) {
        self.ready.remove(&address);
        self.probing.remove(&address);
        if self.order.len() > 2 * self.ready.len() + 64 {
            self.order.retain(|(_, known)| self.ready.contains_key(known));
        }
    }

    /// One for which it no longer counts.
    pub(super) fn stale(&mut self, now: UnixSeconds) -> Option<A> {
        self.drop_taken();
        let (_, address) = self.order.front().filter(|(at, _)| at.saturating_add(FRESH) <= now)?;
        let address = *address;
        self.take(address);
        Some(address)
    }

    pub(super) fn next_deadline(&self) -> Option<UnixSeconds> {
        self.order.front().map(|(at, _)| at.saturating_add(FRESH))
    }

    /// What of it is still true, by `may`.
    pub(super) fn carry_over(self, mut may: impl FnMut(A) -> bool) -> Self {
        let mut stock = Self { target: self.target, ..Self::default() };
        for (address, at) in self.ready {
            if may(address) {
                stock.ready.insert(address, at);
            }
        }
        stock.order = stock.ready.iter().map(|(address, at)| (*at, *address)).collect();
        stock.order.make_contiguous().sort_unstable();
        stock.probing = self.probing.into_iter().filter(|address| may(*address)).collect();
        stock
    }

    fn drop_taken(&mut self) {
        while let Some((at, address)) = self.order.front()
            && self.ready.get(address) != Some(at)
        {
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn ip(n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + n)
    }

    #[test]
    fn grows_with_demand_up_to_its_limit() {
        let (mut stock, mut next) = (Stock::default(), 0);
        for _ in 0..200_000 {
            while stock.wants() > 0 {
                stock.probe(ip(next));
                assert!(stock.probed(ip(next)));
                stock.add(ip(next), 1);
                next += 1;
            }
            // All that is ready goes at once.
            while let Some(address) = stock.next() {
                stock.take(address);
            }
            if stock.target == MAX_TARGET {
                break;
            }
        }
        assert_eq!((stock.target, stock.wants()), (MAX_TARGET, MAX_TARGET));
        assert!(stock.order.len() <= MAX_TARGET + 64);
    }

    #[test]
    fn what_was_seen_long_ago_is_looked_for_again() {
        let mut stock = Stock::default();
        stock.add(ip(1), 100);
        stock.add(ip(2), 200);
        assert_eq!(stock.next_deadline(), Some(700));
        assert_eq!((stock.stale(699), stock.stale(700), stock.stale(700)), (None, Some(ip(1)), None));
        assert!(!stock.holds(ip(1)) && stock.is_ready(ip(2)));
    }
}
