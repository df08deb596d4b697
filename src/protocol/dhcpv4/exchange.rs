//! The messages of clients, one by one (RFC 2131 section 4.3).

use super::{
    ClientKey, Datagram, Destination, Engine, Event, Host, INFINITE, Lease, LeaseChange, NEVER, Origin, Output, Sender,
    UnixSeconds, options::Options, reply::Reply, request::Request,
};
use crate::protocol::lease::{Binding, End, Holder, Space, State};
use dhcproto::v4::MessageType;
use std::net::Ipv4Addr;

/// How long an offered address is kept for its client, in seconds. Boot ROMs gather offers for a while.
const OFFER_HOLD: UnixSeconds = 30;
/// The shortest lease that a client may ask for, in seconds.
const MIN_REQUESTED_LEASE: u32 = 120;
/// A client that asks again within this many seconds is told what is on disk already, so that repeating itself costs
/// no write.
const REPEAT: UnixSeconds = 30;

/// The state a REQUEST comes from (RFC 2131 table 4). RENEWING and REBINDING differ only in how they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Selecting,
    InitReboot,
    Extending,
}

/// Seconds between two reports that a port has as many addresses as it may.
const LIMIT_REPORT_INTERVAL: UnixSeconds = 60;

/// Which subnets a packet may be served from: the relay's, that of a client behind one, or all of the link's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link(Option<usize>);

/// One packet and its surroundings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) request: &'a Request,
    pub(super) from: Sender,
    pub(super) link: Link,
    pub(super) now: UnixSeconds,
}

impl Ask<'_> {
    /// Who is counted for what the client gets. A relay agent is trusted, and its clients are not told apart.
    pub(super) fn origin(&self) -> Option<Origin> {
        (!self.request.relayed()).then_some(self.from.origin)
    }
}

enum Verdict {
    Grant,
    Nak,
    Silence,
}

impl Engine {
    pub(super) fn dispatch(&mut self, request: &Request, from: Sender, now: UnixSeconds, out: &mut Vec<Output>) {
        let routed = !request.relayed() && from.mac != request.mac;
        if routed && !self.may_be_routed(request, from) {
            self.stats.spoofed += 1;
            return;
        }
        let link = if request.relayed() {
            let subnet = self.catalog.subnet_of(request.giaddr);
            if subnet.is_none() || !self.catalog.scope.relays.contains(&request.giaddr) {
                return self.stats.ignored += 1;
            }
            Link(subnet)
        } else if routed {
            // Renewals pass by the relay agent (RFC 2131 section 4.3.2): what was leased by it is extended.
            Link(self.catalog.relayed_subnet_of(request.ciaddr))
        } else {
            Link(None)
        };
        let ask = Ask { request, from, link, now };
        match request.kind {
            MessageType::Discover => self.discover(ask, out),
            MessageType::Request => self.request(ask, out),
            MessageType::Decline => self.decline(ask, out),
            MessageType::Release => self.release(ask, out),
            MessageType::Inform => self.inform(ask, out),
            _ => self.stats.malformed += 1,
        }
    }

    /// Whether a client that has an address may say this through a router, whose frame it then is. It gives its address
    /// up only from behind a relay agent, and with it as its source, which guests of the link cannot forge.
    fn may_be_routed(&self, request: &Request, from: Sender) -> bool {
        let address = request.ciaddr;
        match request.kind {
            MessageType::Request | MessageType::Inform => !address.is_unspecified() && request.server_id.is_none(),
            MessageType::Release => *from.source.ip() == address && self.catalog.relayed_subnet_of(address).is_some(),
            _ => false,
        }
    }

    pub(super) fn allows(&self, link: Link, subnet: usize) -> bool {
        match link.0 {
            Some(only) => only == subnet,
            None => self.catalog.scope.subnets[subnet].on_link,
        }
    }

    fn discover(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        let Ask { request, link, now, .. } = ask;
        let reserved = self.reservation(ask, None).map(|host| (host.address, host.port));
        let address = match reserved.map(|(address, _)| address) {
            Some(reserved) => reserved,
            None if !self.serves_unknown(link) => return self.stats.ignored += 1,
            None => {
                let client = request.client();
                let Some(address) = self.choose(ask, &client, out) else { return self.wait(ask) };
                if !self.may_take(ask, &client, address) {
                    return self.refuse_more(ask, out);
                }
                let leased = self
                    .table
                    .get(address)
                    .is_some_and(|b| !matches!(b.state, State::Free { .. } | State::Offered { .. }));
                if !leased {
                    let host_name = request.host_name.clone();
                    let holder = Holder { client, mac: request.mac, host_name, port: None };
                    let state = State::Offered { until: now.saturating_add(OFFER_HOLD) };
                    let origin = ask.origin();
                    self.table.assign(&self.catalog, address, Binding { holder, state, in_flight: None, origin });
                }
                address
            }
        };
        if request.rapid_commit && self.catalog.scope.rapid_commit {
            return self.grant(ask, address, reserved.map(|(_, port)| port), out);
        }
        self.stats.offers += 1;
        out.push(Output::Send(self.reply(ask, MessageType::Offer, address, None)));
    }

    /// Whether a port may have one more dynamic address, or has this one already.
    fn may_take(&self, ask: Ask<'_>, client: &ClientKey, address: Ipv4Addr) -> bool {
        let limit = self.catalog.scope.leases_per_port;
        let Some(origin) = ask.origin().filter(|_| limit > 0) else { return true };
        let held = self.table.get(address).is_some_and(|b| {
            b.holder.client == *client && matches!(b.state, State::Offered { .. } | State::Leased { .. })
        });
        held || self.table.held_by(origin) < limit
    }

    fn refuse_more(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        self.stats.limited += 1;
        if ask.now >= self.limit_reported.saturating_add(LIMIT_REPORT_INTERVAL) {
            self.limit_reported = ask.now;
            let network = self.catalog.scope.network;
            out.push(Output::Report(Event::PortLimited { network, mac: ask.request.mac }));
        }
    }

    /// The address to offer to a client without a reservation, in the order of RFC 2131 section 4.3.1.
    fn choose(&mut self, ask: Ask<'_>, client: &ClientKey, out: &mut Vec<Output>) -> Option<Ipv4Addr> {
        let (catalog, table) = (&self.catalog, &self.table);
        let allowed = |address| catalog.dynamic_at(address).is_some_and(|subnet| self.allows(ask.link, subnet));
        let own = |address| {
            table.get(address).is_some_and(|b| {
                b.holder.client == *client && !matches!(b.state, State::Quarantined { .. } | State::Leaving)
            })
        };
        let known = [table.address_of(client), ask.request.requested].into_iter().flatten();
        if let Some(address) = known.filter(|a| allowed(*a)).find(|a| own(*a) || table.offerable(catalog, *a)) {
            return Some(address);
        }
        let subnets: Vec<usize> = self.catalog.dynamic_subnets().filter(|s| self.allows(ask.link, *s)).collect();
        for subnet in subnets.iter().copied() {
            if let Some(address) = self.table.pick(&self.catalog, subnet) {
                self.report_recovered(subnet);
                return Some(address);
            }
        }
        for subnet in subnets {
            // Those that are being looked for come next.
            if !self.table.expects_more(subnet) {
                self.report_exhausted(subnet, ask.now, out);
            }
        }
        None
    }

    fn request(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        let request = ask.request;
        let ciaddr = Some(request.ciaddr).filter(|a| !a.is_unspecified());
        if request.server_id.is_some_and(|id| !self.catalog.scope.is_server(id)) {
            self.withdraw_offer(ask);
            return self.stats.ignored += 1;
        }
        let (phase, wanted) = match (request.server_id, ciaddr, request.requested) {
            (Some(_), _, Some(wanted)) | (Some(_), Some(wanted), None) => (Phase::Selecting, wanted),
            (None, Some(wanted), _) => (Phase::Extending, wanted),
            (None, None, Some(wanted)) => (Phase::InitReboot, wanted),
            (_, None, None) => return self.stats.malformed += 1,
        };
        let reserved = self.reservation(ask, Some(wanted)).cloned();
        let verdict = match &reserved {
            Some(host) if host.address == wanted => Verdict::Grant,
            Some(_) => Verdict::Nak,
            None if !self.serves_unknown(ask.link) => Verdict::Silence,
            None => self.judge(ask, phase, wanted),
        };
        if matches!(verdict, Verdict::Grant) && reserved.is_none() && !self.may_take(ask, &request.client(), wanted) {
            return self.refuse_more(ask, out);
        }
        match verdict {
            Verdict::Grant => self.grant(ask, wanted, reserved.map(|host| host.port), out),
            Verdict::Silence => self.stats.ignored += 1,
            Verdict::Nak => {
                self.stats.naks += 1;
                out.push(Output::Send(self.nak(ask)));
            }
        }
    }

    /// What a client without a reservation hears when it asks for this address.
    fn judge(&self, ask: Ask<'_>, phase: Phase, wanted: Ipv4Addr) -> Verdict {
        let client = ask.request.client();
        let on_link = self.catalog.subnet_of(wanted).is_some_and(|subnet| self.allows(ask.link, subnet));
        if !on_link {
            return Verdict::Nak;
        }
        let holds_another = self.table.address_of(&client).is_some_and(|address| {
            address != wanted && self.table.get(address).is_some_and(|b| matches!(b.state, State::Leased { .. }))
        });
        let binding = self.table.get(wanted);
        match binding.map(|b| (b.state, b.holder.port.is_none() && b.holder.client == client)) {
            Some((State::Leaving, _)) => Verdict::Silence,
            Some((State::Leased { .. } | State::Offered { .. }, true)) => Verdict::Grant,
            Some((State::Free { .. }, true)) if self.table.available(&self.catalog, wanted) => Verdict::Grant,
            // There is no record of this client (RFC 2131 section 4.3.2).
            _ if phase == Phase::InitReboot => {
                if holds_another {
                    Verdict::Nak
                } else {
                    Verdict::Silence
                }
            }
            // Not offered to it, or forgotten since, but nobody else's: a lost lease is taken up again.
            _ if self.table.available(&self.catalog, wanted) && !holds_another => Verdict::Grant,
            _ => Verdict::Nak,
        }
    }

    fn grant(&mut self, ask: Ask<'_>, address: Ipv4Addr, port: Option<uuid::Uuid>, out: &mut Vec<Output>) {
        let Ask { request, now, .. } = ask;
        let old = self.table.get(address);
        if old.is_some_and(|b| b.in_flight.is_some()) {
            // An earlier copy of the request is on its way to the disk; its ACK answers this one too.
            return self.stats.ignored += 1;
        }
        let mut holder =
            Holder { client: request.client(), mac: request.mac, host_name: request.host_name.clone(), port };
        let lease_time = self.lease_time(ask, address);
        let expires = if lease_time == INFINITE { NEVER } else { now.saturating_add(lease_time.into()) };
        let mut previous = None;
        if let Some(Binding { holder: old, state: State::Leased { expires: until }, .. }) = old {
            if old.same_client(&holder) {
                holder.host_name = holder.host_name.or_else(|| old.host_name.clone());
                let window = REPEAT.min(u64::from(lease_time) / 20);
                if *old == holder && *until > now && *until <= expires && expires - until <= window {
                    let left = u32::try_from(until - now).unwrap_or(lease_time);
                    self.stats.acks += 1;
                    return out.push(Output::Send(self.reply(ask, MessageType::Ack, address, Some(left))));
                }
                previous = Some(*until);
            } else {
                out.extend(self.lease(address).map(|lease| Output::Report(Event::LeaseDropped(lease))));
            }
        }
        let Holder { client, mac, host_name, port } = holder.clone();
        let network = self.catalog.scope.network;
        let lease = Lease { network, address, client, mac, host_name, port, expires };
        let reply = self.reply(ask, MessageType::Ack, address, Some(lease_time));
        let origin = ask.origin().filter(|_| port.is_none());
        let binding = Binding { holder, state: State::Leased { expires }, in_flight: None, origin };
        self.table.assign(&self.catalog, address, binding);
        let mut commit = self.commit(LeaseChange::Put(lease), None, Some(reply), now);
        commit.new = previous.is_none();
        self.launch(&commit, previous);
        out.push(Output::Persist(commit));
    }

    /// The client took another server's offer.
    fn withdraw_offer(&mut self, ask: Ask<'_>) {
        let Some(address) = self.table.address_of(&ask.request.client()) else { return };
        if self.table.get(address).is_some_and(|b| matches!(b.state, State::Offered { .. })) {
            self.free(address, ask.now);
        }
    }

    fn decline(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        let ours = ask.request.server_id.is_some_and(|id| self.catalog.scope.is_server(id));
        match ask.request.requested.filter(|address| ours && self.holds(ask, *address)) {
            Some(address) => {
                self.stats.declines += 1;
                match self.table.get(address).map(|b| b.state) {
                    Some(State::Offered { .. }) => self.quarantine(address, ask.now),
                    _ => self.end(address, End::Declined, ask.now, out),
                }
            }
            None => self.stats.ignored += 1,
        }
    }

    fn release(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        let Ask { request, now, .. } = ask;
        let ours = request.server_id.is_none_or(|id| self.catalog.scope.is_server(id));
        if ours && self.holds(ask, request.ciaddr) {
            self.stats.releases += 1;
            match self.table.get(request.ciaddr).map(|b| b.state) {
                Some(State::Offered { .. }) => self.free(request.ciaddr, now),
                _ => self.end(request.ciaddr, End::Released, now, out),
            }
        } else {
            self.stats.ignored += 1;
        }
    }

    /// Configuration for a client that has its address from elsewhere; nothing is leased.
    fn inform(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        let address = ask.request.ciaddr;
        let served = self.catalog.subnet_of(address).is_some_and(|subnet| {
            self.catalog.hosts_of(ask.request.mac).next().is_some() || self.catalog.scope.subnets[subnet].dynamic
        });
        if served {
            self.stats.acks += 1;
            let payload = self.encode(ask, MessageType::Ack, Ipv4Addr::UNSPECIFIED, address, None);
            out.push(Output::Send(Datagram {
                payload,
                destination: Destination::Unicast { address, mac: ask.from.mac },
            }));
        } else {
            self.stats.ignored += 1;
        }
    }

    /// Whether this address is leased or offered to who asks.
    fn holds(&self, ask: Ask<'_>, address: Ipv4Addr) -> bool {
        self.table.get(address).is_some_and(|b| {
            let theirs = match b.holder.port {
                Some(_) => b.holder.mac == ask.request.mac || b.holder.client == ask.request.client(),
                None => b.holder.client == ask.request.client(),
            };
            theirs && matches!(b.state, State::Leased { .. } | State::Offered { .. })
        })
    }

    /// The reservation of this MAC for `wanted` if there is one, else its first that the link allows; else the one of
    /// the client identifier.
    fn reservation(&self, ask: Ask<'_>, wanted: Option<Ipv4Addr>) -> Option<&Host> {
        let allowed = |host: &&Host| self.catalog.subnet_of(host.address).is_some_and(|s| self.allows(ask.link, s));
        let mut hosts = self.catalog.hosts_of(ask.request.mac).filter(allowed);
        let Some(first) = hosts.next() else {
            // The port's own NIC comes first.
            let taken = |host: &&Host| {
                let held = self.table.get(host.address).filter(|b| matches!(b.state, State::Leased { .. }));
                held.is_some_and(|b| b.holder.mac == host.mac)
            };
            let host = self.catalog.host_of_client(&ask.request.client());
            return host.filter(allowed).filter(|host| !taken(host));
        };
        if Some(first.address) == wanted {
            return Some(first);
        }
        hosts.find(|host| Some(host.address) == wanted).or(Some(first))
    }

    fn serves_unknown(&self, link: Link) -> bool {
        self.catalog.dynamic_subnets().any(|subnet| self.allows(link, subnet))
    }

    /// Seconds: what the subnet says, or less where the client asks for less.
    fn lease_time(&self, ask: Ask<'_>, address: Ipv4Addr) -> u32 {
        let subnet = self.catalog.subnet_of(address).and_then(|index| self.catalog.scope.subnets.get(index));
        let most = subnet.map_or(0, |s| s.lease_time.as_secs()).clamp(1, u64::from(INFINITE)) as u32;
        ask.request.lease_time.map_or(most, |wish| wish.max(MIN_REQUESTED_LEASE).min(most))
    }

    /// An OFFER, or an ACK with a lease.
    fn reply(&self, ask: Ask<'_>, kind: MessageType, address: Ipv4Addr, lease_time: Option<u32>) -> Datagram {
        let Ask { request, from, .. } = ask;
        let lease_time = lease_time.unwrap_or_else(|| self.lease_time(ask, address));
        let payload = self.encode(ask, kind, address, address, Some(lease_time));
        let destination = if request.relayed() {
            Destination::Relay { address: request.giaddr, mac: from.mac }
        } else if !request.ciaddr.is_unspecified() {
            Destination::Unicast { address: request.ciaddr, mac: from.mac }
        } else if request.wants_broadcast() {
            Destination::Broadcast
        } else {
            Destination::Unicast { address, mac: request.mac }
        };
        Datagram { payload, destination }
    }

    fn nak(&self, ask: Ask<'_>) -> Datagram {
        let none = Ipv4Addr::UNSPECIFIED;
        let payload = self.encode(ask, MessageType::Nak, none, none, None);
        let destination = if ask.request.relayed() {
            Destination::Relay { address: ask.request.giaddr, mac: ask.from.mac }
        } else {
            Destination::Broadcast
        };
        Datagram { payload, destination }
    }

    fn encode(
        &self,
        ask: Ask<'_>,
        kind: MessageType,
        yiaddr: Ipv4Addr,
        configured: Ipv4Addr,
        lease_time: Option<u32>,
    ) -> Vec<u8> {
        let subnet = self.catalog.subnet_of(configured);
        let options = subnet.and_then(|subnet| self.catalog.options.get(subnet));
        let request = ask.request;
        let own = |host: &&Host| host.mac == request.mac || host.client.as_ref() == Some(&request.client());
        let host = self.catalog.host_at(configured).filter(own);
        let domain = subnet.and_then(|subnet| self.catalog.scope.subnets[subnet].domain.as_ref());
        let label = host.and_then(|host| host.host_name.clone()).or_else(|| request.host_name.clone());
        let name = label.map(|label| match domain {
            Some(domain) => format!("{label}.{domain}"),
            None => label.to_string(),
        });
        let rapid = kind == MessageType::Ack && request.kind == MessageType::Discover;
        let server = self.catalog.scope.server_address;
        let options = Options { request, subnet: options, host };
        Reply { kind, server, yiaddr, lease_time, rapid, name, options }.encode()
    }
}
