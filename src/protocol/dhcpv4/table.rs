use super::{ClientKey, NEVER, Origin, UnixSeconds, scope::Catalog, stock::Stock};
use crate::net::{DnsLabel, MacAddr};
use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
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
pub(super) struct Holder {
    pub(super) client: ClientKey,
    pub(super) mac: MacAddr,
    pub(super) host_name: Option<DnsLabel>,
    pub(super) port: Option<Uuid>,
}

impl Holder {
    /// A reserved address belongs to its MAC, a pooled one to its client.
    pub(super) fn same_client(&self, other: &Self) -> bool {
        match (self.port, other.port) {
            (Some(port), Some(other_port)) => port == other_port || self.mac == other.mac,
            (None, None) => self.client == other.client,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
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
pub(super) enum End {
    Released,
    Declined,
    Dropped,
}

/// A change of this address that is on its way to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) ticket: u64,
    /// The expiry that a renewal replaces.
    pub(super) previous: Option<UnixSeconds>,
    /// What happened meanwhile, to be done next.
    pub(super) next: Option<End>,
}

#[derive(Debug, Clone)]
pub(super) struct Binding {
    pub(super) holder: Holder,
    pub(super) state: State,
    pub(super) in_flight: Option<InFlight>,
    /// Who is to be counted for it; `None` for a reservation, and until it is renewed after a restart.
    pub(super) origin: Option<Origin>,
}

/// A lease is held this long beyond its end: clients count from when they hear the ACK, the server from before.
pub(super) const GRACE: UnixSeconds = 10;

/// Every address that has been handed out, by address and by client, and in the order in which states run out.
///
/// Invariants: each binding is in the one ordered set of its state; `by_client` leads each client without a
/// reservation to the address that it was last offered or granted.
#[derive(Debug)]
pub(super) struct Table {
    bindings: HashMap<Ipv4Addr, Binding>,
    by_client: HashMap<ClientKey, Ipv4Addr>,
    leases: BTreeSet<(UnixSeconds, Ipv4Addr)>,
    offers: BTreeSet<(UnixSeconds, Ipv4Addr)>,
    quarantine: BTreeSet<(UnixSeconds, Ipv4Addr)>,
    /// By subnet, longest free first.
    free: BTreeSet<(usize, UnixSeconds, Ipv4Addr)>,
    /// How many leases and offers each port has.
    by_origin: HashMap<Origin, u32>,
    /// Per subnet, addresses that were never handed out and are free for certain.
    stocks: Vec<Stock>,
    /// Per subnet: pool, and the next address of it that has never been handed out.
    cursors: Vec<(usize, u64)>,
    limits: Limits,
    max_bindings: usize,
    max_quarantine: usize,
}

impl Table {
    pub(super) fn new(catalog: &Catalog, limits: Limits) -> Self {
        Self {
            bindings: HashMap::new(),
            by_client: HashMap::new(),
            leases: BTreeSet::new(),
            offers: BTreeSet::new(),
            quarantine: BTreeSet::new(),
            free: BTreeSet::new(),
            by_origin: HashMap::new(),
            stocks: catalog.scope.subnets.iter().map(|_| Stock::default()).collect(),
            cursors: vec![(0, 0); catalog.scope.subnets.len()],
            limits,
            max_bindings: limits.dynamic.saturating_add(catalog.scope.hosts.len()),
            max_quarantine: limits.quarantine.min(catalog.pooled() / 4).max(1),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bindings.len()
    }

    pub(super) fn get(&self, address: Ipv4Addr) -> Option<&Binding> {
        self.bindings.get(&address)
    }

    pub(super) fn in_flight_mut(&mut self, address: Ipv4Addr) -> Option<&mut Option<InFlight>> {
        Some(&mut self.bindings.get_mut(&address)?.in_flight)
    }

    pub(super) fn address_of(&self, client: &ClientKey) -> Option<Ipv4Addr> {
        self.by_client.get(client).copied()
    }

    /// How many leases and offers a port has.
    pub(super) fn held_by(&self, origin: Origin) -> u32 {
        self.by_origin.get(&origin).copied().unwrap_or(0)
    }

    /// All bindings, in no order, and what else is known of the subnets.
    pub(super) fn into_parts(self) -> (impl Iterator<Item = (Ipv4Addr, Binding)>, Vec<Stock>) {
        (self.bindings.into_iter(), self.stocks)
    }

    /// Takes up what another table knew of a subnet's free addresses.
    pub(super) fn adopt_stock(&mut self, catalog: &Catalog, subnet: usize, stock: Stock) {
        let free = |address| catalog.dynamic_at(address) == Some(subnet) && !self.bindings.contains_key(&address);
        let stock = stock.carry_over(free);
        if let Some(slot) = self.stocks.get_mut(subnet) {
            *slot = stock;
        }
    }

    /// The next address that is to be looked for, `None` where enough are.
    pub(super) fn next_probe(&mut self, catalog: &Catalog, subnet: usize) -> Option<Ipv4Addr> {
        if self.stocks.get(subnet)?.wants() == 0 || self.bindings.len() >= self.max_bindings {
            return None;
        }
        let address = self.fresh(catalog, subnet)?;
        self.stocks.get_mut(subnet)?.probe(address);
        Some(address)
    }

    /// All that are being looked for.
    pub(super) fn probing(&self) -> Vec<Ipv4Addr> {
        self.stocks.iter().flat_map(Stock::probing).collect()
    }

    /// One whose probe is too long ago, to be looked for again.
    pub(super) fn next_stale(&mut self, now: UnixSeconds) -> Option<Ipv4Addr> {
        let (address, stock) = self.stocks.iter_mut().find_map(|stock| Some((stock.stale(now)?, stock)))?;
        stock.probe(address);
        Some(address)
    }

    /// Forgets who had the address, so that it is looked for before it is offered.
    pub(super) fn probe_again(&mut self, catalog: &Catalog, address: Ipv4Addr) -> bool {
        let Some(subnet) = catalog.dynamic_at(address) else { return false };
        self.remove(catalog, address);
        self.stocks.get_mut(subnet).map(|stock| stock.probe(address)).is_some()
    }

    /// Whether the address was looked for, and nobody has it meanwhile.
    pub(super) fn probed(&mut self, subnet: usize, address: Ipv4Addr) -> bool {
        self.stocks.get_mut(subnet).is_some_and(|stock| stock.probed(address)) && !self.bindings.contains_key(&address)
    }

    pub(super) fn stock(&mut self, subnet: usize, address: Ipv4Addr, now: UnixSeconds) {
        if let Some(stock) = self.stocks.get_mut(subnet) {
            stock.add(address, now);
        }
    }

    /// Whether more addresses of this subnet are on the way to be ready.
    pub(super) fn expects_more(&self, subnet: usize) -> bool {
        self.stocks.get(subnet).is_some_and(|stock| !stock.is_empty())
    }

    /// How many leases are held.
    pub(super) fn leased(&self) -> usize {
        self.leases.len()
    }

    /// When the next state runs out.
    pub(super) fn next_deadline(&self) -> Option<UnixSeconds> {
        let first = |set: &BTreeSet<(UnixSeconds, Ipv4Addr)>| set.first().map(|(at, _)| *at);
        let lease = first(&self.leases).map(|at| at.saturating_add(GRACE)).filter(|at| *at != UnixSeconds::MAX);
        let stale = self.stocks.iter().filter_map(Stock::next_deadline).min();
        [lease, first(&self.offers), first(&self.quarantine), stale].into_iter().flatten().min()
    }

    pub(super) fn expired_lease(&self, now: UnixSeconds) -> Option<Ipv4Addr> {
        self.leases
            .first()
            .filter(|(at, _)| *at != NEVER && at.saturating_add(GRACE) <= now)
            .map(|(_, address)| *address)
    }

    pub(super) fn expired_other(&self, now: UnixSeconds) -> Option<Ipv4Addr> {
        let first = |set: &BTreeSet<(UnixSeconds, Ipv4Addr)>| set.first().filter(|(at, _)| *at <= now).map(|(_, a)| *a);
        first(&self.offers).or_else(|| first(&self.quarantine))
    }

    /// Gives the address a holder and a state, whatever it had before.
    pub(super) fn put(&mut self, catalog: &Catalog, address: Ipv4Addr, binding: Binding) {
        self.remove(catalog, address);
        self.index(catalog, address, binding.state);
        self.count(&binding, true);
        if let Some(stock) = catalog.subnet_of(address).and_then(|subnet| self.stocks.get_mut(subnet)) {
            stock.take(address);
        }
        if binding.holder.port.is_none() {
            self.by_client.entry(binding.holder.client.clone()).or_insert(address);
        }
        self.bindings.insert(address, binding);
        if self.offers.len() > self.limits.offers
            && let Some((since, oldest)) = self.offers.first().copied()
        {
            self.free(catalog, oldest, since);
        }
        if self.quarantine.len() > self.max_quarantine
            && let Some((since, oldest)) = self.quarantine.first().copied()
        {
            self.free(catalog, oldest, since);
        }
    }

    /// As [`Table::put`], and this is now the address under which the client is known.
    pub(super) fn assign(&mut self, catalog: &Catalog, address: Ipv4Addr, binding: Binding) {
        if binding.holder.port.is_none() {
            self.by_client.insert(binding.holder.client.clone(), address);
        }
        self.put(catalog, address, binding);
    }

    pub(super) fn remove(&mut self, catalog: &Catalog, address: Ipv4Addr) -> Option<Binding> {
        let old = self.bindings.remove(&address)?;
        self.unindex(catalog, address, old.state);
        self.count(&old, false);
        if old.holder.port.is_none() && self.by_client.get(&old.holder.client) == Some(&address) {
            self.by_client.remove(&old.holder.client);
        }
        Some(old)
    }

    pub(super) fn set_state(&mut self, catalog: &Catalog, address: Ipv4Addr, state: State) {
        if let Some(mut binding) = self.remove(catalog, address) {
            binding.state = state;
            self.put(catalog, address, binding);
        }
    }

    /// Makes the address available. One out of the pools remembers its client, any other needs no memory.
    pub(super) fn free(&mut self, catalog: &Catalog, address: Ipv4Addr, now: UnixSeconds) {
        if let Some(binding) = self.remove(catalog, address)
            && catalog.dynamic_at(address).is_some()
        {
            let holder = Holder { port: None, ..binding.holder };
            self.put(
                catalog,
                address,
                Binding { holder, state: State::Free { since: now }, in_flight: None, origin: None },
            );
        }
    }

    /// Whether a client may be given this address of a pool although it was not offered to it.
    pub(super) fn available(&self, catalog: &Catalog, address: Ipv4Addr) -> bool {
        catalog.dynamic_at(address).is_some()
            && match self.bindings.get(&address) {
                Some(binding) => matches!(binding.state, State::Free { .. }),
                None => self.bindings.len() < self.max_bindings,
            }
    }

    /// As [`Table::available`], to be offered: nobody uses it for certain.
    pub(super) fn offerable(&self, catalog: &Catalog, address: Ipv4Addr) -> bool {
        let known = self.bindings.contains_key(&address) || !catalog.scope.probe;
        let ready = |subnet: usize| self.stocks.get(subnet).is_some_and(|stock| stock.is_ready(address));
        self.available(catalog, address) && (known || catalog.subnet_of(address).is_some_and(ready))
    }

    /// An address of this subnet for a newcomer: one that nobody has had yet, else the one that is free for longest.
    pub(super) fn pick(&mut self, catalog: &Catalog, subnet: usize) -> Option<Ipv4Addr> {
        if self.bindings.len() < self.max_bindings
            && let Some(address) = match catalog.scope.probe {
                true => self.stocks.get_mut(subnet).and_then(Stock::next),
                false => self.fresh(catalog, subnet),
            }
        {
            return Some(address);
        }
        let oldest = (subnet, 0, Ipv4Addr::UNSPECIFIED)..(subnet + 1, 0, Ipv4Addr::UNSPECIFIED);
        self.free.range(oldest).next().map(|(_, _, address)| *address)
    }

    /// Each address is passed at most once, so this costs O(1) in the long run.
    fn fresh(&mut self, catalog: &Catalog, subnet: usize) -> Option<Ipv4Addr> {
        let (pool, next) = self.cursors.get_mut(subnet)?;
        while let Some((first, last)) = catalog.pools(subnet).get(*pool) {
            let number = (*next).max(u64::from(*first));
            if number > u64::from(*last) {
                (*pool, *next) = (*pool + 1, 0);
                continue;
            }
            *next = number + 1;
            // Not above `last`, so it fits.
            let address = Ipv4Addr::from_bits(number as u32);
            let stocked = self.stocks.get(subnet).is_some_and(|stock| stock.holds(address));
            if catalog.assignable(subnet, address) && !self.bindings.contains_key(&address) && !stocked {
                return Some(address);
            }
        }
        None
    }

    /// Leases and offers count for the port that they came from.
    fn count(&mut self, binding: &Binding, more: bool) {
        let held = matches!(binding.state, State::Offered { .. } | State::Leased { .. } | State::Leaving);
        let Some(origin) = binding.origin.filter(|_| held && binding.holder.port.is_none()) else { return };
        let count = self.by_origin.entry(origin).or_default();
        *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
        if *count == 0 {
            self.by_origin.remove(&origin);
        }
    }

    fn index(&mut self, catalog: &Catalog, address: Ipv4Addr, state: State) {
        match state {
            State::Free { since } => catalog.dynamic_at(address).is_some_and(|s| self.free.insert((s, since, address))),
            State::Offered { until } => self.offers.insert((until, address)),
            State::Leased { expires } => self.leases.insert((expires, address)),
            State::Quarantined { until } => self.quarantine.insert((until, address)),
            State::Leaving => false,
        };
    }

    fn unindex(&mut self, catalog: &Catalog, address: Ipv4Addr, state: State) {
        match state {
            State::Free { since } => {
                catalog.dynamic_at(address).is_some_and(|s| self.free.remove(&(s, since, address)))
            }
            State::Offered { until } => self.offers.remove(&(until, address)),
            State::Leased { expires } => self.leases.remove(&(expires, address)),
            State::Quarantined { until } => self.quarantine.remove(&(until, address)),
            State::Leaving => false,
        };
    }
}
