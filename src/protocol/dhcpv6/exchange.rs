//! The messages of clients, one by one (RFC 8415 section 18.3).

use super::{
    ClientKey, Commit, Datagram, Engine, Event, INFINITE, Lease, LeaseChange, NEVER, Origin, Output, Sender,
    UnixSeconds,
    message::{Hop, Ia, IaKind, Packet, Request, code},
    reply::{IaAnswer, Lifetimes, Status, Writer},
    scope::Subnet,
};
use crate::{
    net::{Ipv6Net, MacAddr},
    protocol::lease::{Binding, End, Holder, Space, State},
};
use dhcproto::v6::MessageType;
use std::{net::Ipv6Addr, sync::Arc};
use uuid::Uuid;

/// How long what was advertised is kept for its client, in seconds.
const OFFER_HOLD: UnixSeconds = 30;
/// A client that asks again within this many seconds is told what is on disk already, so that repeating itself costs
/// no write.
const REPEAT: UnixSeconds = 30;
/// Seconds between two reports that a port has as much as it may.
const LIMIT_REPORT_INTERVAL: UnixSeconds = 60;

/// One packet and its surroundings.
#[derive(Debug, Clone, Copy)]
struct Ask<'a> {
    request: &'a Request,
    hops: &'a [Hop],
    from: Sender,
    /// The client's own.
    mac: MacAddr,
    duid: &'a Arc<[u8]>,
    /// The subnet of the relay agent next to the client; `None`: those of this link.
    relayed: Option<usize>,
    now: UnixSeconds,
}

impl Ask<'_> {
    /// Who is counted for what the client gets. A relay agent is trusted, and its clients are not told apart.
    fn origin(&self) -> Option<Origin> {
        self.hops.is_empty().then_some(self.from.origin)
    }

    fn key(&self, ia: &Ia) -> ClientKey {
        ClientKey { mac: self.mac, duid: Arc::clone(self.duid), iaid: ia.iaid, kind: ia.kind }
    }
}

/// What an association is to be given, and which port reserves it.
type Grant = (ClientKey, Ipv6Net, Option<Uuid>);

impl Engine {
    pub(super) fn dispatch(&mut self, packet: &Packet, from: Sender, now: UnixSeconds, out: &mut Vec<Output>) {
        let Packet { hops, relayed_mac, request } = packet;
        let relayed = match self.relay_of(hops) {
            Ok(relayed) => relayed,
            Err(()) => return self.stats.ignored += 1,
        };
        if hops.is_empty() && !from.address.is_unicast_link_local() {
            return self.stats.ignored += 1;
        }
        let duid: Arc<[u8]> = request.client.clone().unwrap_or_default().into();
        let mac = match hops.last() {
            None => from.mac,
            Some(hop) => relayed_mac.unwrap_or_else(|| mac_of(hop.peer, &duid)),
        };
        let ask = Ask { request, hops, from, mac, duid: &duid, relayed, now };
        if !self.is_sound(request) {
            return self.stats.malformed += 1;
        }
        let ours = request.server.as_ref().is_none_or(|id| *id == self.catalog.scope.server_id);
        if !ours || self.subnets(ask).next().is_none() || !self.serves(ask) {
            return self.stats.ignored += 1;
        }
        if from.unicast && hops.is_empty() {
            return self.refuse_unicast(ask, out);
        }
        match request.kind {
            MessageType::Solicit => self.solicit(ask, out),
            MessageType::Request => self.request(ask, out),
            MessageType::Renew | MessageType::Rebind => self.extend(ask, out),
            MessageType::Confirm => self.confirm_link(ask, out),
            MessageType::Release => self.give_up(ask, End::Released, out),
            MessageType::Decline => self.give_up(ask, End::Declined, out),
            MessageType::InformationRequest => {
                let reply = self.encode(ask, MessageType::Reply, &[], None, false);
                self.send(reply, out);
            }
            _ => self.stats.malformed += 1,
        }
    }

    /// The subnet that relayed clients are of; an error where nobody asked for this relay agent.
    fn relay_of(&self, hops: &[Hop]) -> Result<Option<usize>, ()> {
        if hops.is_empty() {
            return Ok(None);
        }
        let link = hops.iter().rev().map(|hop| hop.link).find(|link| !link.is_unspecified()).ok_or(())?;
        let known = self.catalog.scope.relays.contains(&link);
        self.catalog.subnet_of(link).filter(|_| known).map(Some).ok_or(())
    }

    /// RFC 8415 section 16: which identifiers a message has, and has not.
    fn is_sound(&self, request: &Request) -> bool {
        let (client, server) = (request.client.is_some(), request.server.is_some());
        match request.kind {
            MessageType::Solicit | MessageType::Confirm | MessageType::Rebind => client && !server,
            MessageType::Request | MessageType::Renew | MessageType::Release | MessageType::Decline => client && server,
            MessageType::InformationRequest => request.ias.is_empty() && request.temporary.is_empty(),
            _ => false,
        }
    }

    /// The subnets that a packet may be served from.
    fn subnets(&self, ask: Ask<'_>) -> impl Iterator<Item = (usize, &Subnet)> {
        let subnets = self.catalog.scope.subnets.iter().enumerate();
        subnets.filter(move |(index, subnet)| match ask.relayed {
            Some(only) => only == *index,
            None => subnet.on_link,
        })
    }

    fn allows(&self, ask: Ask<'_>, group: usize) -> bool {
        self.subnets(ask).any(|(subnet, _)| subnet == group / 2)
    }

    /// Whether the client is one of this server's: on a network that others share, only ports are.
    fn serves(&self, ask: Ask<'_>) -> bool {
        self.catalog.knows(ask.mac) || self.subnets(ask).any(|(_, subnet)| subnet.dynamic)
    }

    /// RFC 8415 section 18.3.
    fn refuse_unicast(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        match ask.request.kind {
            MessageType::Request | MessageType::Renew | MessageType::Release | MessageType::Decline => {
                let reply = self.encode(ask, MessageType::Reply, &[], Some(Status::UseMulticast), false);
                self.send(reply, out);
            }
            _ => self.stats.ignored += 1,
        }
    }

    fn solicit(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        let (mut grants, mut answers) = (Vec::new(), Vec::new());
        for ia in &ask.request.ias {
            match self.choose(ask, ia, &grants, out) {
                Ok(grant) => {
                    answers.push(self.answer(ia, grant.1));
                    grants.push(grant);
                }
                Err(status) => answers.push(refusal(ia, status)),
            }
        }
        // Configuration alone is asked for otherwise.
        if answers.is_empty() && ask.request.temporary.is_empty() {
            return self.stats.ignored += 1;
        }
        if ask.request.rapid_commit && self.catalog.scope.rapid_commit && !grants.is_empty() {
            return self.grant(ask, grants, answers, true, out);
        }
        for (client, prefix, port) in grants.into_iter().filter(|(_, _, port)| port.is_none()) {
            let leased =
                self.table.get(prefix).is_some_and(|b| !matches!(b.state, State::Free { .. } | State::Offered { .. }));
            if !leased {
                let host_name = ask.request.fqdn.as_ref().and_then(|fqdn| fqdn.label.clone());
                let holder = Holder { client, mac: ask.mac, host_name, port };
                let state = State::Offered { until: ask.now.saturating_add(OFFER_HOLD) };
                let origin = ask.origin();
                self.table.assign(&self.catalog, prefix, Binding { holder, state, in_flight: None, origin });
            }
        }
        self.stats.advertises += 1;
        out.push(Output::Send(self.encode(ask, MessageType::Advertise, &answers, None, false)));
    }

    fn request(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        let (mut grants, mut answers) = (Vec::new(), Vec::new());
        for ia in &ask.request.ias {
            let foreign = |net: &Ipv6Net| self.catalog.group_of(*net).is_none_or(|group| !self.allows(ask, group));
            if ia.kind == IaKind::Address && !ia.named.is_empty() && ia.named.iter().all(foreign) {
                answers.push(refusal(ia, Status::NotOnLink));
                continue;
            }
            match self.choose(ask, ia, &grants, out) {
                Ok(grant) => {
                    answers.push(self.answer(ia, grant.1));
                    grants.push(grant);
                }
                Err(status) => answers.push(refusal(ia, status)),
            }
        }
        self.grant(ask, grants, answers, false, out);
    }

    /// RENEW and REBIND, which differ only in whom they are for.
    fn extend(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        let (mut grants, mut answers) = (Vec::new(), Vec::new());
        for ia in &ask.request.ias {
            let Some(grant) = self.standing(ask, ia, &grants) else {
                let foreign =
                    |net: &&Ipv6Net| self.catalog.group_of(**net).is_none_or(|group| !self.allows(ask, group));
                let given: Vec<_> = ia.named.iter().filter(foreign).map(|net| (*net, Lifetimes::NONE)).collect();
                let status = given.is_empty().then_some(Status::NoBinding);
                answers.push(IaAnswer { kind: ia.kind, iaid: ia.iaid, given, status });
                continue;
            };
            let mut answer = self.answer(ia, grant.1);
            // What it has besides it is to let go of.
            let others = ia.named.iter().filter(|net| **net != grant.1);
            answer.given.extend(others.map(|net| (*net, Lifetimes::NONE)));
            answers.push(answer);
            grants.push(grant);
        }
        self.grant(ask, grants, answers, false, out);
    }

    /// Whether the client's addresses are right for its link, whoever gave them (RFC 8415 section 18.3.3).
    fn confirm_link(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        let ias = ask.request.ias.iter().filter(|ia| ia.kind == IaKind::Address);
        let mut named = ias.flat_map(|ia| &ia.named).peekable();
        if named.peek().is_none() {
            return self.stats.ignored += 1;
        }
        let right = named.all(|net| self.subnets(ask).any(|(_, subnet)| subnet.prefix.contains(net)));
        let status = if right { Status::Success } else { Status::NotOnLink };
        let reply = self.encode(ask, MessageType::Reply, &[], Some(status), false);
        self.send(reply, out);
    }

    fn give_up(&mut self, ask: Ask<'_>, end: End, out: &mut Vec<Output>) {
        let (mut ending, mut answers) = (Vec::new(), Vec::new());
        for ia in &ask.request.ias {
            let held: Vec<Ipv6Net> = ia.named.iter().copied().filter(|net| self.holds(ask, ia, *net)).collect();
            if held.is_empty() {
                answers.push(refusal(ia, Status::NoBinding));
            }
            ending.extend(held);
        }
        match end {
            End::Declined => self.stats.declines += ending.len() as u64,
            _ => self.stats.releases += ending.len() as u64,
        }
        let offered = |engine: &Self, net: &Ipv6Net| {
            engine.table.get(*net).is_some_and(|b| matches!(b.state, State::Offered { .. }))
        };
        for net in ending.iter().filter(|net| offered(self, net)).copied().collect::<Vec<_>>() {
            match end {
                End::Declined => self.quarantine(net, ask.now),
                _ => self.free(net, ask.now),
            }
        }
        let reply = self.encode(ask, MessageType::Reply, &answers, Some(Status::Success), false);
        match self.ending(&ending, end, Some(reply.clone()), ask.now) {
            Some(commit) => out.push(Output::Persist(commit)),
            None => self.send(reply, out),
        }
    }

    /// Whether this is leased or offered to who asks: nobody can speak for a guest with another NIC.
    fn holds(&self, ask: Ask<'_>, ia: &Ia, net: Ipv6Net) -> bool {
        self.table.get(net).is_some_and(|b| {
            let theirs = if b.holder.port.is_some() { b.holder.mac == ask.mac } else { b.holder.client == ask.key(ia) };
            theirs && matches!(b.state, State::Leased { .. } | State::Offered { .. })
        })
    }

    /// The reservation that an association is given: one that it named, or has, or that nobody has, or the first.
    fn reserved(&self, ask: Ask<'_>, ia: &Ia, grants: &[Grant]) -> Result<Option<Grant>, Status> {
        if ia.kind == IaKind::Prefix {
            return Ok(None);
        }
        let key = ask.key(ia);
        let here = |net: &Ipv6Net| self.catalog.group_of(*net).is_some_and(|group| self.allows(ask, group));
        let all = self.catalog.hosts_of(ask.mac).map(|host| (Ipv6Net::from(host.address), host.port));
        let mut all = all.filter(|(net, _)| here(net)).peekable();
        if all.peek().is_none() {
            return Ok(None);
        }
        let rank = |net: &Ipv6Net| match self.table.get(*net) {
            _ if ia.named.contains(net) => 0,
            Some(binding) if binding.holder.client == key => 1,
            Some(binding) if matches!(binding.state, State::Leased { .. }) => 3,
            _ => 2,
        };
        let left = all.filter(|(net, _)| grants.iter().all(|(_, taken, _)| taken != net));
        let (net, port) = left.min_by_key(|(net, _)| rank(net)).ok_or(Status::NoAddresses)?;
        Ok(Some((key, net, Some(port))))
    }

    /// What an association is given that asks for something.
    fn choose(&mut self, ask: Ask<'_>, ia: &Ia, grants: &[Grant], out: &mut Vec<Output>) -> Result<Grant, Status> {
        if let Some(grant) = self.reserved(ask, ia, grants)? {
            return Ok(grant);
        }
        let (kind, nothing) = match ia.kind {
            IaKind::Address => (0, Status::NoAddresses),
            IaKind::Prefix => (1, Status::NoPrefixes),
        };
        let key = ask.key(ia);
        let groups = self.subnets(ask).map(|(subnet, _)| 2 * subnet + kind);
        let groups: Vec<usize> = groups.filter(|group| self.catalog.pool(*group, 0).is_some()).collect();
        let mut chosen = self.known(ask, ia, &key, grants);
        if chosen.is_none() {
            for group in &groups {
                chosen = self.table.pick(&self.catalog, *group).filter(|net| grants.iter().all(|(_, n, _)| n != net));
                if chosen.is_some() {
                    self.report_recovered(group / 2);
                    break;
                }
            }
        }
        let Some(net) = chosen else {
            groups.iter().for_each(|group| self.report_exhausted(group / 2, ask.now, out));
            return Err(nothing);
        };
        let taken = grants.iter().filter(|(_, _, port)| port.is_none()).count();
        if !self.may_take(ask, &key, net, taken) {
            self.refuse_more(ask, out);
            return Err(nothing);
        }
        Ok((key, net, None))
    }

    /// What a client without a reservation has or had, or names, where it may have it.
    fn known(&self, ask: Ask<'_>, ia: &Ia, key: &ClientKey, grants: &[Grant]) -> Option<Ipv6Net> {
        let (catalog, table) = (&self.catalog, &self.table);
        let allowed = |net: &Ipv6Net| {
            catalog.dynamic_at(*net).is_some_and(|group| self.allows(ask, group))
                && grants.iter().all(|(_, taken, _)| taken != net)
        };
        let own = |net: Ipv6Net| {
            table.get(net).is_some_and(|b| {
                b.holder.client == *key && !matches!(b.state, State::Quarantined { .. } | State::Leaving)
            })
        };
        let candidates = table.address_of(key).into_iter().chain(ia.named.iter().copied());
        candidates.filter(allowed).find(|net| own(*net) || table.available(catalog, *net))
    }

    /// What an association keeps that has it already. A lease that was lost is taken up again, where nobody else has it.
    fn standing(&self, ask: Ask<'_>, ia: &Ia, grants: &[Grant]) -> Option<Grant> {
        match self.reserved(ask, ia, grants) {
            Ok(Some(grant)) => return Some(grant),
            Ok(None) => {}
            Err(_) => return None,
        }
        let key = ask.key(ia);
        let has = |net: &Ipv6Net| {
            let held = |b: &Binding<ClientKey>| b.holder.client == key && matches!(b.state, State::Leased { .. });
            self.table.get(*net).is_some_and(held)
        };
        let net = self.known(ask, ia, &key, grants).filter(|net| ia.named.contains(net) || has(net))?;
        let taken = grants.iter().filter(|(_, _, port)| port.is_none()).count();
        self.may_take(ask, &key, net, taken).then_some((key, net, None))
    }

    /// Whether a port may have more dynamic leases than it has and is about to get, or has this one already.
    fn may_take(&self, ask: Ask<'_>, client: &ClientKey, net: Ipv6Net, about: usize) -> bool {
        let limit = self.catalog.scope.leases_per_port;
        let Some(origin) = ask.origin().filter(|_| limit > 0) else { return true };
        let held = self.table.get(net).is_some_and(|b| {
            b.holder.client == *client && matches!(b.state, State::Offered { .. } | State::Leased { .. })
        });
        held || self.table.held_by(origin) as usize + about < limit as usize
    }

    fn refuse_more(&mut self, ask: Ask<'_>, out: &mut Vec<Output>) {
        self.stats.limited += 1;
        if ask.now >= self.limit_reported.saturating_add(LIMIT_REPORT_INTERVAL) {
            self.limit_reported = ask.now;
            let network = self.catalog.scope.network;
            out.push(Output::Report(Event::PortLimited { network, mac: ask.mac }));
        }
    }

    /// Leases what is granted and answers when all of it is stored.
    fn grant(
        &mut self,
        ask: Ask<'_>,
        grants: Vec<Grant>,
        mut answers: Vec<IaAnswer>,
        rapid: bool,
        out: &mut Vec<Output>,
    ) {
        if grants.iter().any(|(_, net, _)| self.table.get(*net).is_some_and(|b| b.in_flight.is_some())) {
            // An earlier copy of the request is on its way to the disk; its reply answers this one too.
            return self.stats.ignored += 1;
        }
        if let Some(lefts) = self.repeated(ask, &grants) {
            for (net, left) in lefts {
                let given = answers.iter_mut().flat_map(|answer| &mut answer.given).filter(|(given, _)| *given == net);
                given.for_each(|(_, life)| *life = Lifetimes::of(left));
            }
            let reply = self.encode(ask, MessageType::Reply, &answers, None, rapid);
            return self.send(reply, out);
        }
        let reply = self.encode(ask, MessageType::Reply, &answers, None, rapid);
        let mut changes = Vec::new();
        for (client, net, port) in grants {
            let (lease, previous) = self.lease_out(ask, client, net, port, out);
            changes.push((LeaseChange::Put(lease), previous));
        }
        let commit: Commit = self.launch(changes, End::Released, Some(reply), ask.now);
        out.push(Output::Persist(commit));
    }

    /// Makes the lease, and tells the expiry of the one that it renews.
    fn lease_out(
        &mut self,
        ask: Ask<'_>,
        client: ClientKey,
        prefix: Ipv6Net,
        port: Option<Uuid>,
        out: &mut Vec<Output>,
    ) -> (Lease, Option<UnixSeconds>) {
        let expires = self.expiry(prefix, ask.now);
        let named = ask.request.fqdn.as_ref().and_then(|fqdn| fqdn.label.clone());
        let host_name = named.filter(|_| client.kind == IaKind::Address);
        let mut holder = Holder { client, mac: ask.mac, host_name, port };
        let mut previous = None;
        if let Some(Binding { holder: old, state: State::Leased { expires: until }, .. }) = self.table.get(prefix) {
            if old.same_client(&holder) {
                holder.host_name = holder.host_name.or_else(|| old.host_name.clone());
                // Another identity of the same NIC is another row's content.
                previous = (old.client == holder.client).then_some(*until);
            } else {
                out.extend(self.lease(prefix).map(|lease| Output::Report(Event::LeaseDropped(lease))));
            }
        }
        let Holder { client, mac, host_name, port } = holder.clone();
        let ClientKey { duid, iaid, .. } = client;
        let lease = Lease { network: self.catalog.scope.network, prefix, duid, iaid, mac, host_name, port, expires };
        let origin = ask.origin().filter(|_| port.is_none());
        let binding = Binding { holder, state: State::Leased { expires }, in_flight: None, origin };
        self.table.assign(&self.catalog, prefix, binding);
        (lease, previous)
    }

    /// The seconds that each grant has left, where all of it is on disk already and was so a moment ago.
    fn repeated(&self, ask: Ask<'_>, grants: &[Grant]) -> Option<Vec<(Ipv6Net, u32)>> {
        let left = |(client, net, port): &Grant| {
            let expires = self.expiry(*net, ask.now);
            let binding = self.table.get(*net)?;
            let State::Leased { expires: until } = binding.state else { return None };
            let named = ask.request.fqdn.as_ref().and_then(|fqdn| fqdn.label.as_ref());
            let renamed =
                client.kind == IaKind::Address && named.is_some() && named != binding.holder.host_name.as_ref();
            let window = REPEAT.min(u64::from(self.lease_time(*net)) / 20);
            let same = binding.holder.client == *client && binding.holder.port == *port && !renamed;
            let fresh = until > ask.now && until <= expires && expires - until <= window;
            let left = || if until == NEVER { INFINITE } else { u32::try_from(until - ask.now).unwrap_or(INFINITE) };
            (same && fresh).then(|| (*net, left()))
        };
        grants.iter().map(left).collect()
    }

    fn lease_time(&self, net: Ipv6Net) -> u32 {
        let subnet = self.catalog.group_of(net).and_then(|group| self.catalog.scope.subnets.get(group / 2));
        // Not above 32 bits.
        subnet.map_or(0, |s| s.lease_time.as_secs()).clamp(1, u64::from(INFINITE)) as u32
    }

    fn expiry(&self, net: Ipv6Net, now: UnixSeconds) -> UnixSeconds {
        match self.lease_time(net) {
            INFINITE => NEVER,
            seconds => now.saturating_add(seconds.into()),
        }
    }

    fn answer(&self, ia: &Ia, net: Ipv6Net) -> IaAnswer {
        let given = vec![(net, Lifetimes::of(self.lease_time(net)))];
        IaAnswer { kind: ia.kind, iaid: ia.iaid, given, status: None }
    }

    fn send(&mut self, reply: Datagram, out: &mut Vec<Output>) {
        self.stats.replies += 1;
        out.push(Output::Send(reply));
    }

    fn encode(
        &self,
        ask: Ask<'_>,
        kind: MessageType,
        answers: &[IaAnswer],
        status: Option<Status>,
        rapid: bool,
    ) -> Datagram {
        let Ask { request, hops, from, .. } = ask;
        let mut writer = Writer::new(kind, request.xid);
        writer.option(code::SERVER_ID, &self.catalog.scope.server_id);
        if let Some(client) = &request.client {
            writer.option(code::CLIENT_ID, client);
        }
        if kind == MessageType::Advertise && self.catalog.scope.rapid_commit {
            // No other server will answer: the client need not wait for one.
            writer.option(code::PREFERENCE, &[255]);
        }
        if rapid {
            writer.option(code::RAPID_COMMIT, &[]);
        }
        answers.iter().for_each(|answer| writer.ia(answer));
        if status.is_none() {
            request.temporary.iter().for_each(|iaid| writer.temporary(*iaid));
        }
        let given = answers.iter().flat_map(|answer| &answer.given).find(|(_, life)| life.valid > 0);
        let group = given.and_then(|(net, _)| self.catalog.group_of(*net));
        let subnet = group.and_then(|group| self.catalog.scope.subnets.get(group / 2));
        let subnet = subnet.or_else(|| self.subnets(ask).map(|(_, subnet)| subnet).next());
        if let Some(subnet) = subnet.filter(|_| status.is_none()) {
            writer.configuration(subnet, &request.wants);
            let reserved = given.and_then(|(net, _)| self.catalog.host_at(net.addr()));
            let label = reserved.and_then(|host| host.host_name.as_ref());
            if let Some(asked) = &request.fqdn
                && let Some(label) = label.or(asked.label.as_ref())
            {
                writer.fqdn(asked, label.as_str(), subnet.domain.as_ref());
            }
        }
        if let Some(status) = status {
            writer.status(status);
        }
        let payload = writer.finish(hops);
        Datagram { payload, address: from.address, mac: from.mac, relay: !hops.is_empty() }
    }
}

fn refusal(ia: &Ia, status: Status) -> IaAnswer {
    IaAnswer { kind: ia.kind, iaid: ia.iaid, given: Vec::new(), status: Some(status) }
}

/// Who a relayed client is, where the relay agent does not say: by its link-local address, by a DUID that is made of its
/// link-layer address, or by one that stands for its DUID.
fn mac_of(peer: Ipv6Addr, duid: &[u8]) -> MacAddr {
    let in_duid = match duid {
        [0, 1, 0, 1, _, _, _, _, mac @ ..] | [0, 3, 0, 1, mac @ ..] => {
            <[u8; 6]>::try_from(mac).ok().and_then(|octets| MacAddr::new(octets).ok())
        }
        _ => None,
    };
    in_duid.or_else(|| MacAddr::of_link_local(peer)).unwrap_or_else(|| {
        let hash = duid.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        MacAddr::local(hash.to_be_bytes())
    })
}
