use super::{
    ClientKey, Commit, Datagram, Event, Lease, LeaseChange, Limits, Output, Scope, Sender, UnixSeconds,
    message::{IaKind, Packet},
    scope::Catalog,
};
use crate::{
    net::Ipv6Net,
    protocol::lease::{Binding, End, GRACE, Holder, InFlight, Space, State, Table},
};
use std::collections::HashMap;
use uuid::Uuid;

/// Packets since the engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub received: u64,
    /// Not DHCPv6, or not what a client may send.
    pub malformed: u64,
    /// Sound, but not for this server, or from a client that it does not serve.
    pub ignored: u64,
    pub advertises: u64,
    pub replies: u64,
    pub declines: u64,
    pub releases: u64,
    /// From a port that held as much as it may.
    pub limited: u64,
}

/// The DHCPv6 server of one [`Scope`].
#[derive(Debug)]
pub struct Engine {
    pub(super) catalog: Catalog,
    pub(super) table: Table<Catalog>,
    pub(super) stats: Stats,
    limits: Limits,
    last_ticket: u64,
    /// By subnet: when its exhaustion was last reported, and whether it still lasts.
    exhausted: HashMap<Uuid, (UnixSeconds, bool)>,
    /// Subnets that have addresses again, to be reported.
    recovered: Vec<Uuid>,
    /// When it was last reported that a port has as much as it may.
    pub(super) limit_reported: UnixSeconds,
}

/// Seconds between two reports that the same pool is exhausted.
const REPORT_INTERVAL: UnixSeconds = 60;
/// States that run out in one call, so that none takes long. The rest is due at once.
const EXPIRIES_PER_CALL: usize = 256;
/// How long a declined address rests.
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
        let mut engine =
            Self { catalog, table, stats, limits, last_ticket: 0, exhausted, recovered, limit_reported: 0 };
        let bindings = leases.into_iter().filter(|lease| lease.network == engine.catalog.scope.network).map(|lease| {
            let (state, client) = (State::Leased { expires: lease.expires }, lease.key());
            let Lease { mac, host_name, port, prefix, .. } = lease;
            (prefix, Binding { holder: Holder { client, mac, host_name, port }, state, in_flight: None, origin: None })
        });
        let bindings = bindings.collect();
        let mut out = Vec::new();
        engine.adopt(bindings, now, &mut out);
        while let Some(prefix) = engine.table.expired_lease(now) {
            let since = engine.lease(prefix).map_or(now, |lease| lease.expires);
            engine.free(prefix, since);
        }
        engine.finish(&mut out);
        (engine, out)
    }

    /// Serves another version of the same network's scope. Leases that it no longer allows are dropped.
    pub fn update(&mut self, scope: Scope, now: UnixSeconds) -> Vec<Output> {
        self.catalog = Catalog::new(scope);
        let old = std::mem::replace(&mut self.table, Table::new(&self.catalog, self.limits));
        let mut out = Vec::new();
        let (bindings, _) = old.into_parts();
        self.adopt(bindings, now, &mut out);
        (0..self.catalog.scope.subnets.len()).for_each(|subnet| self.report_recovered(subnet));
        self.finish(&mut out);
        out
    }

    /// Acts on one UDP payload that reached port 547 on the scope's interface.
    pub fn handle(&mut self, bytes: &[u8], from: Sender, now: UnixSeconds) -> Vec<Output> {
        let mut out = self.tick(now);
        self.stats.received += 1;
        match Packet::parse(bytes) {
            Ok(packet) => self.dispatch(&packet, from, now, &mut out),
            Err(_) => self.stats.malformed += 1,
        }
        self.finish(&mut out);
        out
    }

    /// Ends what has run out. To be called at [`Engine::next_deadline`].
    pub fn tick(&mut self, now: UnixSeconds) -> Vec<Output> {
        let mut out = Vec::new();
        for _ in 0..EXPIRIES_PER_CALL {
            if let Some(prefix) = self.table.expired_lease(now) {
                self.expire(prefix, now, &mut out);
            } else if let Some(prefix) = self.table.expired_other(now) {
                let rested = self.table.get(prefix).is_some_and(|b| matches!(b.state, State::Quarantined { .. }));
                self.free(prefix, now);
                if rested {
                    let (network, address) = (self.catalog.scope.network, prefix.addr());
                    out.push(Output::Report(Event::QuarantineEnded { network, address }));
                }
            } else {
                break;
            }
        }
        self.finish(&mut out);
        out
    }

    fn finish(&mut self, out: &mut Vec<Output>) {
        let network = self.catalog.scope.network;
        let recovered = self.recovered.drain(..);
        out.extend(recovered.map(|subnet| Output::Report(Event::PoolRecovered { network, subnet })));
    }

    pub fn next_deadline(&self) -> Option<UnixSeconds> {
        self.table.next_deadline()
    }

    /// The changes are on disk: hands out the reply that waited for them, unless it comes too late to be true.
    pub fn confirm(&mut self, commit: Commit, now: UnixSeconds) -> Vec<Output> {
        let (mut out, mut true_still) = (Vec::new(), now.saturating_sub(commit.asked_at) <= GRACE);
        for change in &commit.changes {
            let Some(in_flight) = self.landed(change, commit.ticket) else {
                true_still = false;
                continue;
            };
            match change {
                LeaseChange::Put(lease) => {
                    out.push(Output::Report(Event::LeaseGranted(lease.clone())));
                    if let Some(end) = in_flight.next {
                        true_still = false;
                        self.end(lease.prefix, end, now, &mut out);
                    }
                }
                LeaseChange::Remove(lease) => self.ended(lease.clone(), commit.end, now, &mut out),
            }
        }
        if let Some(reply) = commit.reply.filter(|_| true_still) {
            self.stats.replies += 1;
            out.push(Output::Send(reply));
        }
        self.finish(&mut out);
        out
    }

    /// The changes could not be stored: the reply is dropped, a grant is undone. An ended lease stays ended; its row is
    /// overwritten with the address's next lease.
    pub fn abandon(&mut self, commit: Commit, now: UnixSeconds) -> Vec<Output> {
        let mut out = Vec::new();
        for change in &commit.changes {
            let Some(in_flight) = self.landed(change, commit.ticket) else { continue };
            match change {
                LeaseChange::Put(lease) => {
                    match in_flight.previous {
                        Some(expires) => self.table.set_state(&self.catalog, lease.prefix, State::Leased { expires }),
                        None => self.free(lease.prefix, now),
                    }
                    if let Some(end) = in_flight.next
                        && in_flight.previous.is_some()
                    {
                        self.end(lease.prefix, end, now, &mut out);
                    }
                }
                LeaseChange::Remove(lease) => self.ended(lease.clone(), commit.end, now, &mut out),
            }
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

    /// How many addresses and prefixes are held or remembered.
    pub fn bindings(&self) -> usize {
        self.table.len()
    }

    fn adopt(&mut self, mut bindings: Vec<(Ipv6Net, Binding<ClientKey>)>, now: UnixSeconds, out: &mut Vec<Output>) {
        // The longest lease first: it is the one under which its client is known.
        bindings.sort_by_key(|(prefix, binding)| {
            let State::Leased { expires } = binding.state else { return (u64::MAX, *prefix) };
            (u64::MAX - expires, *prefix)
        });
        for (prefix, mut binding) in bindings {
            let fits = self.fits(prefix, &mut binding.holder);
            let held = matches!(binding.state, State::Leased { .. });
            if !fits
                && held
                && let Some(in_flight) = &mut binding.in_flight
            {
                in_flight.next = Some(End::Dropped);
            }
            let drop = !fits && held && binding.in_flight.is_none();
            if fits || held || binding.state == State::Leaving {
                self.table.put(&self.catalog, prefix, binding);
            }
            if drop {
                self.end(prefix, End::Dropped, now, out);
            }
        }
    }

    /// Whether this holder may have it, and for which port, in the scope as it is now.
    fn fits(&self, prefix: Ipv6Net, holder: &mut Holder<ClientKey>) -> bool {
        let is_address = holder.client.kind == IaKind::Address;
        match self.catalog.host_at(prefix.addr()).filter(|_| is_address) {
            Some(host) if host.mac == holder.mac => {
                holder.port = Some(host.port);
                true
            }
            Some(_) => false,
            None => {
                holder.port.is_none()
                    && self.catalog.dynamic_at(prefix).is_some()
                    && (!is_address || self.catalog.hosts_of(holder.mac).next().is_none())
            }
        }
    }

    fn expire(&mut self, prefix: Ipv6Net, now: UnixSeconds, out: &mut Vec<Output>) {
        if let Some(Some(in_flight)) = self.table.in_flight_mut(prefix) {
            // The store is slower than the lease is long: end it once the store has answered.
            in_flight.next = Some(End::Dropped);
            self.table.set_state(&self.catalog, prefix, State::Leaving);
            return;
        }
        out.extend(self.lease(prefix).map(|lease| Output::Report(Event::LeaseExpired(lease))));
        self.free(prefix, now);
    }

    /// Ends a lease, now or when its change in flight has landed.
    fn end(&mut self, prefix: Ipv6Net, end: End, now: UnixSeconds, out: &mut Vec<Output>) {
        if let Some(commit) = self.ending(&[prefix], end, None, now) {
            out.push(Output::Persist(commit));
        }
    }

    /// Ends leases; those with a change in flight when that has landed.
    pub(super) fn ending(
        &mut self,
        prefixes: &[Ipv6Net],
        end: End,
        reply: Option<Datagram>,
        now: UnixSeconds,
    ) -> Option<Commit> {
        let mut changes = Vec::new();
        for prefix in prefixes {
            let Some(lease) = self.lease(*prefix) else { continue };
            if let Some(Some(in_flight)) = self.table.in_flight_mut(*prefix) {
                in_flight.next = Some(end);
                continue;
            }
            self.table.set_state(&self.catalog, *prefix, State::Leaving);
            changes.push((LeaseChange::Remove(lease), None));
        }
        (!changes.is_empty()).then(|| self.launch(changes, end, reply, now))
    }

    fn ended(&mut self, lease: Lease, end: End, now: UnixSeconds, out: &mut Vec<Output>) {
        let prefix = lease.prefix;
        match end {
            // A reserved address is its port's, whatever a guest says of it.
            End::Declined if lease.port.is_none() && self.catalog.dynamic_at(prefix).is_some() => {
                self.quarantine(prefix, now);
            }
            _ => self.free(prefix, now),
        }
        out.push(Output::Report(match end {
            End::Released => Event::LeaseReleased(lease),
            End::Declined => Event::AddressDeclined(lease),
            End::Dropped => Event::LeaseDropped(lease),
        }));
    }

    pub(super) fn quarantine(&mut self, prefix: Ipv6Net, now: UnixSeconds) {
        self.table.set_state(&self.catalog, prefix, State::Quarantined { until: now.saturating_add(QUARANTINE) });
    }

    pub(super) fn free(&mut self, prefix: Ipv6Net, now: UnixSeconds) {
        self.table.free(&self.catalog, prefix, now);
        if let Some(group) = self.catalog.dynamic_at(prefix) {
            self.report_recovered(group / 2);
        }
    }

    /// A commit of these changes, each with the expiry that a renewal replaces. Nothing else about their addresses goes
    /// to the disk until it has landed.
    pub(super) fn launch(
        &mut self,
        changes: Vec<(LeaseChange, Option<UnixSeconds>)>,
        end: End,
        reply: Option<Datagram>,
        asked_at: UnixSeconds,
    ) -> Commit {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let new = changes.iter().any(|(change, previous)| matches!(change, LeaseChange::Put(_)) && previous.is_none());
        for (change, previous) in &changes {
            if let Some(slot) = self.table.in_flight_mut(change.lease().prefix) {
                *slot = Some(InFlight { ticket, previous: *previous, next: None });
            }
        }
        Commit { ticket, changes: changes.into_iter().map(|(change, _)| change).collect(), end, reply, asked_at, new }
    }

    fn landed(&mut self, change: &LeaseChange, ticket: u64) -> Option<InFlight> {
        self.table.in_flight_mut(change.lease().prefix)?.take_if(|in_flight| in_flight.ticket == ticket)
    }

    /// The lease of this address or prefix, as it stands. One that is leaving has run out.
    pub(super) fn lease(&self, prefix: Ipv6Net) -> Option<Lease> {
        let binding = self.table.get(prefix)?;
        let expires = match binding.state {
            State::Leased { expires } => expires,
            State::Leaving => 0,
            _ => return None,
        };
        let Holder { client, mac, host_name, port } = binding.holder.clone();
        let ClientKey { duid, iaid, .. } = client;
        Some(Lease { network: self.catalog.scope.network, prefix, duid, iaid, mac, host_name, port, expires })
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
