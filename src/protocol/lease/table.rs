use super::{NEVER, Origin, Space, UnixSeconds, stock::Stock};
use crate::net::{DnsLabel, MacAddr};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};
use uuid::Uuid;

/// How much of each kind one scope holds, whatever its guests do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Addresses out of the pools that are in use or remember their last client.
    pub dynamic: usize,
    /// Offers that still wait for a request. Beyond it the oldest is forgotten.
    pub offers: usize,
    /// Declined addresses that rest. Beyond it, or beyond a quarter of the pools, the oldest is used again.
    pub quarantine: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { dynamic: 131_072, offers: 4_096, quarantine: 256 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::protocol) struct Holder<K> {
    pub(in crate::protocol) client: K,
    pub(in crate::protocol) mac: MacAddr,
    pub(in crate::protocol) host_name: Option<DnsLabel>,
    pub(in crate::protocol) port: Option<Uuid>,
}

impl<K: PartialEq> Holder<K> {
    /// A reserved address belongs to its MAC, a pooled one to its client.
    pub(in crate::protocol) fn same_client(&self, other: &Self) -> bool {
        match (self.port, other.port) {
            (Some(port), Some(other_port)) => port == other_port || self.mac == other.mac,
            (None, None) => self.client == other.client,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum State {
    /// To be had; the holder is the last one.
    Free {
        since: UnixSeconds,
    },
    Offered {
        until: UnixSeconds,
    },
    Leased {
        expires: UnixSeconds,
    },
    /// No longer leased, once the disk says so too.
    Leaving,
    Quarantined {
        until: UnixSeconds,
    },
}

/// Why a lease ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum End {
    Released,
    Declined,
    Dropped,
}

/// A change of this address that is on its way to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) struct InFlight {
    pub(in crate::protocol) ticket: u64,
    /// The expiry that a renewal replaces.
    pub(in crate::protocol) previous: Option<UnixSeconds>,
    /// What happened meanwhile, to be done next.
    pub(in crate::protocol) next: Option<End>,
}

#[derive(Debug, Clone)]
pub(in crate::protocol) struct Binding<K> {
    pub(in crate::protocol) holder: Holder<K>,
    pub(in crate::protocol) state: State,
    pub(in crate::protocol) in_flight: Option<InFlight>,
    /// Who is to be counted for it; `None` for a reservation, and until it is renewed after a restart.
    pub(in crate::protocol) origin: Option<Origin>,
}

/// A lease is held this long beyond its end: clients count from when they hear the ACK, the server from before.
pub(in crate::protocol) const GRACE: UnixSeconds = 10;

/// Every address that has been handed out, by address and by client, and in the order in which states run out.
///
/// Invariants: each binding is in the one ordered set of its state; `by_client` leads each client without a
/// reservation to the address that it was last offered or granted.
pub(in crate::protocol) struct Table<S: Space> {
    bindings: HashMap<S::Address, Binding<S::Client>>,
    by_client: HashMap<S::Client, S::Address>,
    leases: BTreeSet<(UnixSeconds, S::Address)>,
    offers: BTreeSet<(UnixSeconds, S::Address)>,
    quarantine: BTreeSet<(UnixSeconds, S::Address)>,
    /// By group, longest free first.
    free: BTreeSet<(usize, UnixSeconds, S::Address)>,
    /// How many leases and offers each port has.
    by_origin: HashMap<Origin, u32>,
    /// Per group, addresses that were never handed out and are free for certain.
    stocks: Vec<Stock<S::Address>>,
    /// Per group: pool, and the next address of it that has never been handed out.
    cursors: Vec<(usize, u128)>,
    limits: Limits,
    max_bindings: usize,
    max_quarantine: usize,
}

/// Bindings, and what else is known of each group.
type Parts<S> = (Vec<(<S as Space>::Address, Binding<<S as Space>::Client>)>, Vec<Stock<<S as Space>::Address>>);

impl<S: Space> fmt::Debug for Table<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("bindings", &self.bindings).finish_non_exhaustive()
    }
}

impl<S: Space> Table<S> {
    pub(in crate::protocol) fn new(space: &S, limits: Limits) -> Self {
        Self {
            bindings: HashMap::new(),
            by_client: HashMap::new(),
            leases: BTreeSet::new(),
            offers: BTreeSet::new(),
            quarantine: BTreeSet::new(),
            free: BTreeSet::new(),
            by_origin: HashMap::new(),
            stocks: (0..space.groups()).map(|_| Stock::default()).collect(),
            cursors: vec![(0, 0); space.groups()],
            limits,
            max_bindings: limits.dynamic.saturating_add(space.hosts()),
            max_quarantine: limits.quarantine.min(space.pooled() / 4).max(1),
        }
    }

    pub(in crate::protocol) fn len(&self) -> usize {
        self.bindings.len()
    }

    pub(in crate::protocol) fn get(&self, address: S::Address) -> Option<&Binding<S::Client>> {
        self.bindings.get(&address)
    }

    pub(in crate::protocol) fn in_flight_mut(&mut self, address: S::Address) -> Option<&mut Option<InFlight>> {
        Some(&mut self.bindings.get_mut(&address)?.in_flight)
    }

    pub(in crate::protocol) fn address_of(&self, client: &S::Client) -> Option<S::Address> {
        self.by_client.get(client).copied()
    }

    /// How many leases and offers a port has.
    pub(in crate::protocol) fn held_by(&self, origin: Origin) -> u32 {
        self.by_origin.get(&origin).copied().unwrap_or(0)
    }

    /// All bindings, in no order, and what else is known of the groups.
    pub(in crate::protocol) fn into_parts(self) -> Parts<S> {
        (self.bindings.into_iter().collect(), self.stocks)
    }

    /// Takes up what another table knew of a group's free addresses.
    pub(in crate::protocol) fn adopt_stock(&mut self, space: &S, group: usize, stock: Stock<S::Address>) {
        let free = |address| space.dynamic_at(address) == Some(group) && !self.bindings.contains_key(&address);
        let stock = stock.carry_over(free);
        if let Some(slot) = self.stocks.get_mut(group) {
            *slot = stock;
        }
    }

    /// The next address that is to be looked for, `None` where enough are.
    pub(in crate::protocol) fn next_probe(&mut self, space: &S, group: usize) -> Option<S::Address> {
        if self.stocks.get(group)?.wants() == 0 || self.bindings.len() >= self.max_bindings {
            return None;
        }
        let address = self.fresh(space, group)?;
        self.stocks.get_mut(group)?.probe(address);
        Some(address)
    }

    /// All that are being looked for.
    pub(in crate::protocol) fn probing(&self) -> Vec<S::Address> {
        self.stocks.iter().flat_map(Stock::probing).collect()
    }

    /// One whose probe is too long ago, to be looked for again.
    pub(in crate::protocol) fn next_stale(&mut self, now: UnixSeconds) -> Option<S::Address> {
        let (address, stock) = self.stocks.iter_mut().find_map(|stock| Some((stock.stale(now)?, stock)))?;
        stock.probe(address);
        Some(address)
    }

    /// Forgets who had the address, so that it is looked for before it is offered.
    pub(in crate::protocol) fn probe_again(&mut self, space: &S, address: S::Address) -> bool {
        let Some(group) = space.dynamic_at(address) else { return false };
        self.remove(space, address);
        self.stocks.get_mut(group).map(|stock| stock.probe(address)).is_some()
    }

    /// Whether the address was looked for, and nobody has it meanwhile.
    pub(in crate::protocol) fn probed(&mut self, group: usize, address: S::Address) -> bool {
        self.stocks.get_mut(group).is_some_and(|stock| stock.probed(address)) && !self.bindings.contains_key(&address)
    }

    pub(in crate::protocol) fn stock(&mut self, group: usize, address: S::Address, now: UnixSeconds) {
        if let Some(stock) = self.stocks.get_mut(group) {
            stock.add(address, now);
        }
    }

    /// Whether more addresses of this group are on the way to be ready.
    pub(in crate::protocol) fn expects_more(&self, group: usize) -> bool {
        self.stocks.get(group).is_some_and(|stock| !stock.is_empty())
    }

    /// How many leases are held.
    pub(in crate::protocol) fn leased(&self) -> usize {
        self.leases.len()
    }

    /// When the next state runs out.
    pub(in crate::protocol) fn next_deadline(&self) -> Option<UnixSeconds> {
        let first = |set: &BTreeSet<(UnixSeconds, S::Address)>| set.first().map(|(at, _)| *at);
        let lease = first(&self.leases).map(|at| at.saturating_add(GRACE)).filter(|at| *at != UnixSeconds::MAX);
        let stale = self.stocks.iter().filter_map(Stock::next_deadline).min();
        [lease, first(&self.offers), first(&self.quarantine), stale].into_iter().flatten().min()
    }

    pub(in crate::protocol) fn expired_lease(&self, now: UnixSeconds) -> Option<S::Address> {
        self.leases
            .first()
            .filter(|(at, _)| *at != NEVER && at.saturating_add(GRACE) <= now)
            .map(|(_, address)| *address)
    }

    pub(in crate::protocol) fn expired_other(&self, now: UnixSeconds) -> Option<S::Address> {
        let first =
            |set: &BTreeSet<(UnixSeconds, S::Address)>| set.first().filter(|(at, _)| *at <= now).map(|(_, a)| *a);
        first(&self.offers).or_else(|| first(&self.quarantine))
    }

    /// Gives the address a holder and a state, whatever it had before.
    pub(in crate::protocol) fn put(&mut self, space: &S, address: S::Address, binding: Binding<S::Client>) {
        self.remove(space, address);
        self.index(space, address, binding.state);
        self.count(&binding, true);
        if let Some(stock) = space.group_of(address).and_then(|group| self.stocks.get_mut(group)) {
            stock.take(address);
        }
        if binding.holder.port.is_none() {
            self.by_client.entry(binding.holder.client.clone()).or_insert(address);
        }
        self.bindings.insert(address, binding);
        if self.offers.len() > self.limits.offers
            && let Some((since, oldest)) = self.offers.first().copied()
        {
            self.free(space, oldest, since);
        }
        if self.quarantine.len() > self.max_quarantine
            && let Some((since, oldest)) = self.quarantine.first().copied()
        {
            self.free(space, oldest, since);
        }
    }

    /// As [`Table::put`], and this is now the address under which the client is known.
    pub(in crate::protocol) fn assign(&mut self, space: &S, address: S::Address, binding: Binding<S::Client>) {
        if binding.holder.port.is_none() {
            self.by_client.insert(binding.holder.client.clone(), address);
        }
        self.put(space, address, binding);
    }

    pub(in crate::protocol) fn remove(&mut self, space: &S, address: S::Address) -> Option<Binding<S::Client>> {
        let old = self.bindings.remove(&address)?;
        self.unindex(space, address, old.state);
        self.count(&old, false);
        if old.holder.port.is_none() && self.by_client.get(&old.holder.client) == Some(&address) {
            self.by_client.remove(&old.holder.client);
        }
        Some(old)
    }

    pub(in crate::protocol) fn set_state(&mut self, space: &S, address: S::Address, state: State) {
        if let Some(mut binding) = self.remove(space, address) {
            binding.state = state;
            self.put(space, address, binding);
        }
    }

    /// Makes the address available. One out of the pools remembers its client, any other needs no memory.
    pub(in crate::protocol) fn free(&mut self, space: &S, address: S::Address, now: UnixSeconds) {
        if let Some(binding) = self.remove(space, address)
            && space.dynamic_at(address).is_some()
        {
            let holder = Holder { port: None, ..binding.holder };
            self.put(
                space,
                address,
                Binding { holder, state: State::Free { since: now }, in_flight: None, origin: None },
            );
        }
    }

    /// Whether a client may be given this address of a pool although it was not offered to it.
    pub(in crate::protocol) fn available(&self, space: &S, address: S::Address) -> bool {
        space.dynamic_at(address).is_some()
            && match self.bindings.get(&address) {
                Some(binding) => matches!(binding.state, State::Free { .. }),
                None => self.bindings.len() < self.max_bindings,
            }
    }

    /// As [`Table::available`], to be offered: nobody uses it for certain.
    pub(in crate::protocol) fn offerable(&self, space: &S, address: S::Address) -> bool {
        let known = self.bindings.contains_key(&address) || !space.probes();
        let ready = |group: usize| self.stocks.get(group).is_some_and(|stock| stock.is_ready(address));
        self.available(space, address) && (known || space.group_of(address).is_some_and(ready))
    }

    /// An address of this group for a newcomer: one that nobody has had yet, else the one that is free for longest.
    pub(in crate::protocol) fn pick(&mut self, space: &S, group: usize) -> Option<S::Address> {
        if self.bindings.len() < self.max_bindings
            && let Some(address) = match space.probes() {
                true => self.stocks.get_mut(group).and_then(Stock::next),
                false => self.fresh(space, group),
            }
        {
            return Some(address);
        }
        let oldest = (group, 0, S::LOWEST)..(group + 1, 0, S::LOWEST);
        self.free.range(oldest).next().map(|(_, _, address)| *address)
    }

    /// Each address is passed at most once, so this costs O(1) in the long run.
    fn fresh(&mut self, space: &S, group: usize) -> Option<S::Address> {
        let (pool, next) = self.cursors.get_mut(group)?;
        while let Some((first, last)) = space.pool(group, *pool) {
            let number = (*next).max(first);
            if number > last {
                (*pool, *next) = (*pool + 1, 0);
                continue;
            }
            *next = number.saturating_add(1);
            let address = space.address(group, number);
            let stocked = self.stocks.get(group).is_some_and(|stock| stock.holds(address));
            if space.assignable(group, address) && !self.bindings.contains_key(&address) && !stocked {
                return Some(address);
            }
        }
        None
    }

    /// Leases and offers count for the port that they came from.
    fn count(&mut self, binding: &Binding<S::Client>, more: bool) {
        let held = matches!(binding.state, State::Offered { .. } | State::Leased { .. } | State::Leaving);
        let Some(origin) = binding.origin.filter(|_| held && binding.holder.port.is_none()) else { return };
        let count = self.by_origin.entry(origin).or_default();
        *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
        if *count == 0 {
            self.by_origin.remove(&origin);
        }
    }

    fn index(&mut self, space: &S, address: S::Address, state: State) {
        match state {
            State::Free { since } => space.dynamic_at(address).is_some_and(|s| self.free.insert((s, since, address))),
            State::Offered { until } => self.offers.insert((until, address)),
            State::Leased { expires } => self.leases.insert((expires, address)),
            State::Quarantined { until } => self.quarantine.insert((until, address)),
            State::Leaving => false,
        };
    }

    fn unindex(&mut self, space: &S, address: S::Address, state: State) {
        match state {
            State::Free { since } => space.dynamic_at(address).is_some_and(|s| self.free.remove(&(s, since, address))),
            State::Offered { until } => self.offers.remove(&(until, address)),
            State::Leased { expires } => self.leases.remove(&(expires, address)),
            State::Quarantined { until } => self.quarantine.remove(&(until, address)),
            State::Leaving => false,
        };
    }
}
