use super::{
    ClientKey, Commit, Event, Lease, LeaseChange, Limits, Output, Scope, Sender, UnixSeconds, request::Request,
    scope::Catalog, waiting::Waiting,
};
use crate::{
    net::MacAddr,
    protocol::lease::{Binding, End, GRACE, Holder, InFlight, Space, State, Table},
};
use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
};
use uuid::Uuid;

/// Packets since the engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub received: u64,
    /// Not DHCP, or not what a client may send.
    pub malformed: u64,
    /// `chaddr` is not the frame's source.
    pub spoofed: u64,
    /// Sound, but not for this server, or from a client that it does not serve.
    pub ignored: u64,
    pub offers: u64,
    pub acks: u64,
    pub naks: u64,
    pub declines: u64,
    pub releases: u64,
    /// From a port that held as many addresses as it may.
    pub limited: u64,
    /// Addresses that were found in use.
    pub conflicts: u64,
}

/// The DHCPv4 server of one [`Scope`].
#[derive(Debug)]
pub struct Engine {
    pub(super) catalog: Catalog,
    pub(super) table: Table<Catalog>,
    pub(super) stats: Stats,
    limits: Limits,
    last_ticket: u64,
    /// Who asked for an address while those to be offered were still looked for, oldest first.
    pub(super) waiting: VecDeque<Waiting>,
    /// By subnet: when its exhaustion was last reported, and whether it still lasts.
    exhausted: HashMap<Uuid, (UnixSeconds, bool)>,
    /// Subnets that have addresses again, to be reported.
    recovered: Vec<Uuid>,
    /// When it was last reported that a port has as many addresses as it may.
    pub(super) limit_reported: UnixSeconds,
}

/// Seconds between two reports that the same pool is exhausted.
const REPORT_INTERVAL: UnixSeconds = 60;
/// States that run out in one call, so that none takes long. The rest is due at once.
const EXPIRIES_PER_CALL: usize = 256;
/// Addresses that are looked for in one call, for each subnet.
const PROBES_PER_CALL: usize = 512;
/// How long a declined or conflicting address rests.
const QUARANTINE: UnixSeconds = 600;

impl Engine {
    /// Takes up the leases that the store has for this network, expired ones too: their clients get the same address
    /// again. The outputs remove those that the scope no longer allows.
    pub fn new(scope: Scope, leases: Vec<Lease>, now: UnixSeconds) -> (Self, Vec<Output>) {
        Self::with_limits(scope, leases, now, Limits::default())
    }

    pub fn with_limits(scope: Scope, leases: Vec<Lease>, now: UnixSeconds, limits: Limits) -> (Self, Vec<Output>) {
        let catalog = Catalog::new(scope);
        let table = Table::new(&catalog, limits);
        let (stats, exhausted, recovered) = Default::default();
        let waiting = VecDeque::new();
        let mut engine =
            Self { catalog, table, stats, limits, last_ticket: 0, waiting, exhausted, recovered, limit_reported: 0 };
        let bindings = leases.into_iter().filter(|lease| lease.network == engine.catalog.scope.network).map(|lease| {
            let state = State::Leased { expires: lease.expires };
            let Lease { client, mac, host_name, port, .. } = lease;
            let holder = Holder { client, mac, host_name, port };
            (lease.address, Binding { holder, state, in_flight: None, origin: None })
        });
        let bindings = bindings.collect();
        let mut out = Vec::new();
        engine.adopt(bindings, now, &mut out);
        while let Some(address) = engine.table.expired_lease(now) {
            let since = engine.lease(address).map_or(now, |lease| lease.expires);
            engine.free(address, since);
        }
        engine.finish(&mut out);
        (engine, out)
    }

    /// Serves another version of the same network's scope. Leases that it no longer allows are dropped.
    pub fn update(&mut self, scope: Scope, now: UnixSeconds) -> Vec<Output> {
        self.catalog = Catalog::new(scope);
        let old = std::mem::replace(&mut self.table, Table::new(&self.catalog, self.limits));
        let mut out = Vec::new();
        let (bindings, stocks) = old.into_parts();
        self.adopt(bindings, now, &mut out);
        for (subnet, stock) in stocks.into_iter().enumerate() {
            // Where subnets came or went, their addresses tell.
            self.table.adopt_stock(&self.catalog, subnet, stock);
        }
        // Their subnets may be others.
        self.waiting.clear();
        let dynamic: Vec<usize> = self.catalog.dynamic_subnets().collect();
        dynamic.into_iter().for_each(|subnet| self.report_recovered(subnet));
        self.finish(&mut out);
        out
    }

    /// Acts on one UDP payload that reached port 67 on the scope's interface.
    pub fn handle(&mut self, bytes: &[u8], from: Sender, now: UnixSeconds) -> Vec<Output> {
        let mut out = self.tick(now);
        self.stats.received += 1;
        match Request::parse(bytes) {
            Ok(request) => self.dispatch(&request, from, now, &mut out),
            Err(_) => self.stats.malformed += 1,
        }
        self.finish(&mut out);
        out
    }

    /// Ends what has run out. To be called at [`Engine::next_deadline`].
    pub fn tick(&mut self, now: UnixSeconds) -> Vec<Output> {
        let mut out = Vec::new();
        for _ in 0..EXPIRIES_PER_CALL {
            if let Some(address) = self.table.expired_lease(now) {
                self.expire(address, now, &mut out);
            } else if let Some(address) = self.table.expired_other(now) {
                self.end_wait(address, now, &mut out);
            } else if let Some(address) = self.table.next_stale(now) {
                out.push(Output::Probe(address));
            } else {
                break;
            }
        }
        self.finish(&mut out);
        out
    }

    /// An offer or a quarantine has run out.
    fn end_wait(&mut self, address: Ipv4Addr, now: UnixSeconds, out: &mut Vec<Output>) {
        let rested = self.table.get(address).is_some_and(|b| matches!(b.state, State::Quarantined { .. }));
        self.free(address, now);
        if rested {
            let network = self.catalog.scope.network;
            out.push(Output::Report(Event::QuarantineEnded { network, address }));
            if self.catalog.scope.probe && self.table.probe_again(&self.catalog, address) {
                out.push(Output::Probe(address));
            }
        }
    }

    /// What became of a [`Output::Probe`]: who answered, if anybody did.
    pub fn probed(&mut self, address: Ipv4Addr, conflict: Option<MacAddr>, now: UnixSeconds) -> Vec<Output> {
        let mut out = Vec::new();
        let Some(subnet) = self.catalog.dynamic_at(address) else { return out };
        if self.table.probed(subnet, address) {
            match conflict {
                None => {
                    self.table.stock(subnet, address, now);
                    self.serve_waiting(subnet, address, now, &mut out);
                }
                Some(mac) => {
                    self.stats.conflicts += 1;
                    let holder = Holder { client: ClientKey::hardware(mac), mac, host_name: None, port: None };
                    let state = State::Quarantined { until: now.saturating_add(QUARANTINE) };
                    // Not as the client's address: it did not ask for one.
                    self.table.put(&self.catalog, address, Binding { holder, state, in_flight: None, origin: None });
                    let (network, subnet) = (self.catalog.scope.network, self.catalog.scope.subnets[subnet].id);
                    out.push(Output::Report(Event::AddressConflict { network, subnet, address, mac }));
                }
            }
        }
        self.finish(&mut out);
        out
    }

    /// The link is another one: addresses that were being looked for are looked for anew.
    pub fn reprobe(&mut self) -> Vec<Output> {
        self.table.probing().into_iter().map(Output::Probe).collect()
    }

    /// Ends each call: what became free is told, and what was taken from the stock is looked for anew.
    fn finish(&mut self, out: &mut Vec<Output>) {
        let network = self.catalog.scope.network;
        let recovered = self.recovered.drain(..);
        out.extend(recovered.map(|subnet| Output::Report(Event::PoolRecovered { network, subnet })));
        if !self.catalog.scope.probe {
            return;
        }
        for subnet in 0..self.catalog.scope.subnets.len() {
            for _ in 0..PROBES_PER_CALL {
                let Some(address) = self.table.next_probe(&self.catalog, subnet) else { break };
                out.push(Output::Probe(address));
            }
        }
    }

    pub fn next_deadline(&self) -> Option<UnixSeconds> {
        self.table.next_deadline()
    }

    /// The change is on disk: hands out the reply that waited for it, unless it comes too late to be true.
    pub fn confirm(&mut self, commit: Commit, now: UnixSeconds) -> Vec<Output> {
        let Some(in_flight) = self.landed(&commit) else { return Vec::new() };
        let mut out = Vec::new();
        let address = commit.change.lease().address;
        match (commit.change, commit.end) {
            (LeaseChange::Put(lease), _) => {
                out.push(Output::Report(Event::LeaseGranted(lease)));
                let timely = now.saturating_sub(commit.asked_at) <= GRACE && in_flight.next.is_none();
                if let Some(reply) = commit.reply.filter(|_| timely) {
                    self.stats.acks += 1;
                    out.push(Output::Send(reply));
                }
                if let Some(end) = in_flight.next {
                    self.end(address, end, now, &mut out);
                }
            }
            (LeaseChange::Remove(lease), end) => self.ended(lease, end.unwrap_or(End::Dropped), now, &mut out),
        }
        self.finish(&mut out);
        out
    }

    /// The change could not be stored: the reply is dropped, a grant is undone. An ended lease stays ended; its row is
    /// overwritten with the address's next lease.
    pub fn abandon(&mut self, commit: Commit, now: UnixSeconds) -> Vec<Output> {
        let Some(in_flight) = self.landed(&commit) else { return Vec::new() };
        let mut out = Vec::new();
        match (commit.change, commit.end) {
            (LeaseChange::Put(lease), _) => {
                match in_flight.previous {
                    Some(expires) => self.table.set_state(&self.catalog, lease.address, State::Leased { expires }),
                    None => self.free(lease.address, now),
                }
                if let Some(end) = in_flight.next
                    && in_flight.previous.is_some()
                {
                    self.end(lease.address, end, now, &mut out);
                }
            }
            (LeaseChange::Remove(lease), end) => self.ended(lease, end.unwrap_or(End::Dropped), now, &mut out),
        }
        self.finish(&mut out);
        out
    }

    pub fn scope(&self) -> &Scope {
        &self.catalog.scope
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How many leases are held.
    pub fn leased(&self) -> usize {
        self.table.leased()
    }

    /// How many addresses are held or remembered.
    pub fn bindings(&self) -> usize {
        self.table.len()
    }

    fn adopt(&mut self, mut bindings: Vec<(Ipv4Addr, Binding<ClientKey>)>, now: UnixSeconds, out: &mut Vec<Output>) {
        // The longest lease first: it is the address under which its client is known.
        bindings.sort_by_key(|(address, binding)| {
            let State::Leased { expires } = binding.state else { return (u64::MAX, *address) };
            (u64::MAX - expires, *address)
        });
        for (address, mut binding) in bindings {
            let fits = self.fits(address, &mut binding.holder);
            let held = matches!(binding.state, State::Leased { .. });
            if !fits
                && held
                && let Some(in_flight) = &mut binding.in_flight
            {
                in_flight.next = Some(End::Dropped);
            }
            let drop = !fits && held && binding.in_flight.is_none();
            if fits || held || binding.state == State::Leaving {
                self.table.put(&self.catalog, address, binding);
            }
            if drop {
                self.end(address, End::Dropped, now, out);
            }
        }
    }

    /// Whether this holder may have the address, and for which port, in the scope as it is now.
    fn fits(&self, address: Ipv4Addr, holder: &mut Holder<ClientKey>) -> bool {
        match self.catalog.host_at(address) {
            Some(host) if host.mac == holder.mac || host.client.as_ref() == Some(&holder.client) => {
                holder.port = Some(host.port);
                true
            }
            Some(_) => false,
            None => {
                holder.port.is_none()
                    && self.catalog.dynamic_at(address).is_some()
                    && self.catalog.hosts_of(holder.mac).next().is_none()
            }
        }
    }

    fn expire(&mut self, address: Ipv4Addr, now: UnixSeconds, out: &mut Vec<Output>) {
        if let Some(Some(in_flight)) = self.table.in_flight_mut(address) {
            // The store is slower than the lease is long: end it once the store has answered.
            in_flight.next = Some(End::Dropped);
            self.table.set_state(&self.catalog, address, State::Leaving);
            return;
        }
        out.extend(self.lease(address).map(|lease| Output::Report(Event::LeaseExpired(lease))));
        self.free(address, now);
    }

    /// Ends a lease, now or when its change in flight has landed.
    pub(super) fn end(&mut self, address: Ipv4Addr, end: End, now: UnixSeconds, out: &mut Vec<Output>) {
        let Some(lease) = self.lease(address) else { return };
        if let Some(Some(in_flight)) = self.table.in_flight_mut(address) {
            in_flight.next = Some(end);
            return;
        }
        let commit = self.commit(LeaseChange::Remove(lease), Some(end), None, now);
        self.table.set_state(&self.catalog, address, State::Leaving);
        self.launch(&commit, None);
        out.push(Output::Persist(commit));
    }

    fn ended(&mut self, lease: Lease, end: End, now: UnixSeconds, out: &mut Vec<Output>) {
        let address = lease.address;
        match end {
            // A reserved address is its port's, whatever a guest says of it.
            End::Declined if lease.port.is_none() && self.catalog.dynamic_at(address).is_some() => {
                self.quarantine(address, now);
            }
            _ => self.free(address, now),
        }
        out.push(Output::Report(match end {
            End::Released => Event::LeaseReleased(lease),
            End::Declined => Event::AddressDeclined(lease),
            End::Dropped => Event::LeaseDropped(lease),
        }));
    }

    pub(super) fn quarantine(&mut self, address: Ipv4Addr, now: UnixSeconds) {
        self.table.set_state(&self.catalog, address, State::Quarantined { until: now.saturating_add(QUARANTINE) });
    }

    pub(super) fn free(&mut self, address: Ipv4Addr, now: UnixSeconds) {
        self.table.free(&self.catalog, address, now);
        if let Some(subnet) = self.catalog.dynamic_at(address) {
            self.report_recovered(subnet);
        }
    }

    pub(super) fn commit(
        &mut self,
        change: LeaseChange,
        end: Option<End>,
        reply: Option<super::Datagram>,
        asked_at: UnixSeconds,
    ) -> Commit {
        self.last_ticket += 1;
        Commit { ticket: self.last_ticket, change, end, reply, asked_at, new: false }
    }

    /// Marks the commit's address: nothing else about it goes to the disk until this has landed.
    pub(super) fn launch(&mut self, commit: &Commit, previous: Option<UnixSeconds>) {
        if let Some(slot) = self.table.in_flight_mut(commit.change.lease().address) {
            *slot = Some(InFlight { ticket: commit.ticket, previous, next: None });
        }
    }

    fn landed(&mut self, commit: &Commit) -> Option<InFlight> {
        let slot = self.table.in_flight_mut(commit.change.lease().address)?;
        slot.take_if(|in_flight| in_flight.ticket == commit.ticket)
    }

    /// The lease of this address, as it stands. One that is leaving has run out.
    pub(super) fn lease(&self, address: Ipv4Addr) -> Option<Lease> {
        let binding = self.table.get(address)?;
        let expires = match binding.state {
            State::Leased { expires } => expires,
            State::Leaving => 0,
            _ => return None,
        };
        let Holder { client, mac, host_name, port } = binding.holder.clone();
        Some(Lease { network: self.catalog.scope.network, address, client, mac, host_name, port, expires })
    }

    pub(super) fn report_exhausted(&mut self, subnet: usize, now: UnixSeconds, out: &mut Vec<Output>) {
        let (network, subnet) = (self.catalog.scope.network, self.catalog.scope.subnets[subnet].id);
        let (reported_at, lasts) = self.exhausted.get(&subnet).copied().unwrap_or((0, false));
        if !lasts && now >= reported_at.saturating_add(REPORT_INTERVAL) {
            self.exhausted.insert(subnet, (now, true));
            out.push(Output::Report(Event::PoolExhausted { network, subnet }));
        }
    }

    pub(super) fn report_recovered(&mut self, subnet: usize) {
        let id = self.catalog.scope.subnets[subnet].id;
        if let Some((_, lasts)) = self.exhausted.get_mut(&id)
            && std::mem::take(lasts)
        {
            self.recovered.push(id);
        }
    }
}
