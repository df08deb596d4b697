//! One network's DNS: questions in, answers out, and questions for upstream resolvers. No sockets, no clock.

use super::{
    cache::{Budget, Cache, Hit, Key, MAX_NETWORK_BYTES, STALE_TTL},
    fair::Fair,
    local::{Local, Policy, View},
    name::WireName,
    query::{Edns, Fault, HEADER, Query, Rcode, flag, u32_at},
    upstream::{Ask, Said},
    writer::{self, Writer},
};
use hickory_proto::op::Message;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Questions of one network that are with upstream resolvers, each once however many guests ask it.
pub const MAX_FLIGHTS: usize = 512;
/// Guests' questions that wait for those: all together, and each guest's.
pub const MAX_WAITING: usize = 2048;
pub const MAX_WAITING_PER_CLIENT: usize = 256;
/// How long a guest waits before it is given a stale answer, where there is one (RFC 8767 section 5).
pub const STALE_AFTER: Duration = Duration::from_millis(1800);
/// What TCP can carry (RFC 1035 section 4.2.2).
const MAX_TCP: usize = 65_535;

/// Who asks, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    pub address: IpAddr,
    pub udp: bool,
}

/// What is to be done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it is not from a guest of this network, or nothing that may be answered.
    Drop,
    /// The answer stands in the buffer.
    Answer,
    /// An upstream resolver is to be asked, and [`Engine::answered`] to be told; the answer comes then.
    Ask(Box<Flight>),
    /// Somebody asked the same before; the answer comes with theirs.
    Wait,
}

/// A question that is with upstream resolvers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    pub key: FlightKey,
    pub ask: Ask,
    /// Those to ask; `None`: the usual ones.
    pub servers: Option<Arc<[SocketAddr]>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FlightKey(Arc<[u8]>);

/// Why there is no answer from upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// None of them answered as it should.
    NoAnswer,
    /// Nobody could be asked at all: worth another try at once.
    NotAsked,
}

/// How often what happened, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DnsStats {
    /// Messages from guests of the network.
    pub queries: u64,
    /// Answered from the network's own names, or as what never goes upstream.
    pub local: u64,
    pub cached: u64,
    /// Asked of upstream resolvers.
    pub forwarded: u64,
    /// Joined to an equal question that was under way.
    pub joined: u64,
    /// Stale answers given (RFC 8767).
    pub stale: u64,
    /// Left unanswered, as a guest asked more than its share.
    pub held_back: u64,
    /// Refused, as too much was under way.
    pub busy: u64,
    /// Not from a guest, or nothing that may be answered.
    pub dropped: u64,
    /// Answers refused as they held private addresses.
    pub rebinding: u64,
}

/// `T` is what leads an answer back to whom it is for.
#[derive(Debug)]
pub struct Engine<T> {
    cache: Cache,
    flights: HashMap<FlightKey, InFlight<T>>,
    waiting: HashMap<IpAddr, usize>,
    total_waiting: usize,
    fair: Fair,
    stats: DnsStats,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct InFlight<T> {
    waiters: Vec<Waiter<T>>,
    ask: Ask,
    /// Asked of a forwarder that somebody named for it, who may tell private addresses.
    trusted: bool,
}

#[derive(Debug)]
struct Waiter<T> {
    reply: T,
    client: Client,
    id: u16,
    flags: u16,
    question: Box<[u8]>,
    edns: Option<Edns>,
    /// A message with the question and the CNAMEs of ours that lead to what was asked upstream.
    aliases: Option<Box<[u8]>>,
}

impl<T> Engine<T> {
    pub fn new(budget: Budget) -> Self {
        Self {
            cache: Cache::new(MAX_NETWORK_BYTES, budget),
            flights: HashMap::new(),
            waiting: HashMap::new(),
            total_waiting: 0,
            fair: Fair::default(),
            stats: DnsStats::default(),
            scratch: Vec::new(),
        }
    }

    pub fn stats(&self) -> DnsStats {
        self.stats
    }

    /// Forgets what upstream resolvers said: others are to be asked from now on.
    pub fn forget(&mut self) {
        self.cache.clear();
    }

    /// Whether a datagram is worth reading; see [`Fair`]. `limit`: questions a second that a guest may ask, 0: any.
    pub fn admit(&mut self, now: Duration, client: IpAddr, backlog: bool, limit: u32) -> bool {
        let admitted = self.fair.admit(now, client, backlog, limit);
        self.stats.held_back += u64::from(!admitted);
        admitted
    }

    /// Takes a guest's message. `reply` is called where the answer comes later.
    pub fn query(
        &mut self,
        now: Duration,
        view: &View<'_>,
        client: Client,
        message: &[u8],
        out: &mut Vec<u8>,
        reply: impl FnOnce() -> T,
    ) -> Verdict {
        if !view.zone.serves(client.address) {
            self.stats.dropped += 1;
            return Verdict::Drop;
        }
        self.stats.queries += 1;
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Fault::Silence) => {
                self.stats.dropped += 1;
                return Verdict::Drop;
            }
            Err(Fault::Code { id, flags, code, edns }) => {
                writer::fault(out, id, flags, code, edns);
                return Verdict::Answer;
            }
        };
        let limit = limit_of(&query, client.udp);
        let mut writer = Writer::new(out, &query, limit);
        match view.answer(&query, &mut writer) {
            Local::Answered(code) => {
                self.stats.local += 1;
                writer.end(&query, flag::AA, code);
                Verdict::Answer
            }
            Local::Forward { name, servers } => {
                let aliased = writer.answers() > 0;
                if query.flags & flag::RD == 0 || view.zones_only {
                    // Nobody is to be asked, and what others asked is none of its business.
                    let code = if aliased { Rcode::NoError } else { Rcode::Refused };
                    writer.end(&query, 0, code);
                    return Verdict::Answer;
                }
                let aliases = if aliased {
                    writer.end(&query, 0, Rcode::NoError);
                    Some(out.as_slice().into())
                } else {
                    None
                };
                let ask = Ask {
                    name,
                    record_type: query.record_type,
                    dnssec_ok: query.dnssec_ok(),
                    checking_disabled: query.flags & flag::CD != 0,
                };
                self.forward(now, view.policy, client, &query, ask, servers, aliases, out, reply)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `query`, cut out of it")]
    fn forward(
        &mut self,
        now: Duration,
        policy: &Policy,
        client: Client,
        query: &Query<'_>,
        ask: Ask,
        servers: Option<Arc<[SocketAddr]>>,
        aliases: Option<Box<[u8]>>,
        out: &mut Vec<u8>,
        reply: impl FnOnce() -> T,
    ) -> Verdict {
        let key = Key::new(&ask);
        let limit = limit_of(query, client.udp);
        match self.cache.get(key.as_bytes(), now) {
            Hit::Answer { said, age, stale } => {
                let age = if stale { None } else { Some(age) };
                self.stats.cached += 1;
                self.stats.stale += u64::from(stale);
                respond(out, query, aliases.as_deref(), said, &ask, age, limit);
                return Verdict::Answer;
            }
            Hit::Failure => {
                self.stats.cached += 1;
                Writer::new(out, query, limit).end(query, 0, Rcode::ServFail);
                return Verdict::Answer;
            }
            Hit::Miss => {}
        }
        let key = FlightKey(key.as_bytes().into());
        let joined = self.flights.contains_key(&key);
        let own = self.waiting.get(&client.address).copied().unwrap_or(0);
        let room = self.total_waiting < MAX_WAITING
            && own < MAX_WAITING_PER_CLIENT
            && (joined || self.flights.len() < MAX_FLIGHTS);
        if !room {
            self.stats.busy += 1;
            match self.cache.stale(&key.0, now, policy.max_stale()) {
                Some(said) => {
                    self.stats.stale += 1;
                    respond(out, query, aliases.as_deref(), said, &ask, None, limit);
                }
                None => Writer::new(out, query, limit).end(query, 0, Rcode::ServFail),
            }
            return Verdict::Answer;
        }
        self.total_waiting += 1;
        *self.waiting.entry(client.address).or_default() += 1;
        let waiter = Waiter {
            reply: reply(),
            client,
            id: query.id,
            flags: query.flags,
            question: query.question.into(),
            edns: query.edns,
            aliases,
        };
        if let Some(flight) = self.flights.get_mut(&key) {
            self.stats.joined += 1;
            flight.waiters.push(waiter);
            return Verdict::Wait;
        }
        self.stats.forwarded += 1;
        let flight = InFlight { waiters: vec![waiter], ask: ask.clone(), trusted: servers.is_some() };
        self.flights.insert(key.clone(), flight);
        Verdict::Ask(Box::new(Flight { key, ask, servers }))
    }

    /// Takes what became of a [`Flight`]: an upstream's message that [`classify`](super::classify) calls an answer, or
    /// why there is none. `emit` gets each guest's answer.
    pub fn answered(
        &mut self,
        now: Duration,
        policy: &Policy,
        key: &FlightKey,
        answer: Result<&[u8], Failure>,
        mut emit: impl FnMut(T, &[u8]),
    ) {
        let Some(InFlight { waiters, ask, trusted }) = self.flights.remove(key) else { return };
        let said = answer.and_then(|message| Said::read(message, &ask).map_err(|_| Failure::NoAnswer));
        let said = match said {
            Ok(said) if said.private && policy.refuse_private && !trusted => {
                self.stats.rebinding += 1;
                Ok(refusal(said.ttl))
            }
            other => other,
        };
        let max_stale = policy.max_stale();
        match said {
            // It cannot say, or will not.
            Ok(said) if !matches!(said.code, 0 | 3) && said.ttl.is_none() => {
                if !self.cache.put_failure(&key.0, now, max_stale) {
                    self.release(waiters, Some((&said, &ask)), Some(0), &mut emit);
                    return;
                }
            }
            Ok(said) => {
                self.release(waiters, Some((&said, &ask)), Some(0), &mut emit);
                self.cache.put(&key.0, said, now);
                return;
            }
            Err(Failure::NoAnswer) => drop(self.cache.put_failure(&key.0, now, max_stale)),
            Err(Failure::NotAsked) => {}
        }
        // A stale answer is better than none.
        let stale = self.cache.stale(&key.0, now, max_stale).cloned();
        self.stats.stale += if stale.is_some() { waiters.len() as u64 } else { 0 };
        self.release(waiters, stale.as_ref().map(|said| (said, &ask)), None, &mut emit);
    }

    /// The upstreams take their time: gives those who wait a stale answer, where there is one. To be called
    /// [`STALE_AFTER`] a flight began; it goes on.
    pub fn overdue(&mut self, now: Duration, policy: &Policy, key: &FlightKey, mut emit: impl FnMut(T, &[u8])) {
        let Some(said) = self.cache.stale(&key.0, now, policy.max_stale()).cloned() else { return };
        let Some(flight) = self.flights.get_mut(key) else { return };
        let (waiters, ask) = (std::mem::take(&mut flight.waiters), flight.ask.clone());
        self.stats.stale += waiters.len() as u64;
        self.release(waiters, Some((&said, &ask)), None, &mut emit);
    }

    /// Answers those who waited for a flight; with SERVFAIL where nothing was said. `age`: `None` for a stale answer.
    fn release(
        &mut self,
        waiters: Vec<Waiter<T>>,
        said: Option<(&Said, &Ask)>,
        age: Option<u32>,
        emit: &mut impl FnMut(T, &[u8]),
    ) {
        let mut out = std::mem::take(&mut self.scratch);
        for waiter in waiters {
            self.total_waiting -= 1;
            if let Some(n) = self.waiting.get_mut(&waiter.client.address) {
                *n -= 1;
                if *n == 0 {
                    self.waiting.remove(&waiter.client.address);
                }
            }
            let Some(query) = waiter.query() else { continue };
            let limit = limit_of(&query, waiter.client.udp);
            match said {
                Some((said, ask)) => respond(&mut out, &query, waiter.aliases.as_deref(), said, ask, age, limit),
                None => Writer::new(&mut out, &query, limit).end(&query, 0, Rcode::ServFail),
            }
            emit(waiter.reply, &out);
        }
        self.scratch = out;
        // A single long answer must not keep its room for ever.
        self.scratch.shrink_to(4096);
    }
}

impl<T> Waiter<T> {
    fn query(&self) -> Option<Query<'_>> {
        let (name, after) = WireName::read(&self.question, 0)?;
        let record_type = super::query::u16_at(&self.question, after);
        let (id, flags, edns) = (self.id, self.flags, self.edns);
        Some(Query { id, flags, name, question: &self.question, record_type, edns })
    }
}

fn limit_of(query: &Query<'_>, udp: bool) -> usize {
    if udp { query.udp_limit() } else { MAX_TCP }
}

/// What is given instead of an answer with private addresses.
fn refusal(ttl: Option<u32>) -> Said {
    let (body, ttls) = Default::default();
    let code = Rcode::Refused as u16;
    Said { body, counts: [0; 3], code, authentic: false, ttls, ttl: ttl.or(Some(0)), private: false }
}

/// Writes what an upstream said as our answer: what it says of its own authority and abilities is not true of us.
/// `age`: seconds since it said so, or `None` where it is stale.
fn respond(
    out: &mut Vec<u8>,
    query: &Query<'_>,
    aliases: Option<&[u8]>,
    said: &Said,
    ask: &Ask,
    age: Option<u32>,
    limit: usize,
) {
    if let Some(aliases) = aliases {
        return respond_aliased(out, query, aliases, said, ask, age, limit);
    }
    repeat(out, query.question, said, age);
    let wants_authentic = query.flags & flag::AD != 0 || query.dnssec_ok();
    let flags = if said.authentic && wants_authentic { flag::AD } else { 0 };
    writer::finish(out, query, flags, said.code, said.counts, limit);
}

/// Room for a header, the question, and what was said.
fn repeat(out: &mut Vec<u8>, question: &[u8], said: &Said, age: Option<u32>) {
    out.clear();
    out.extend_from_slice(&[0; HEADER]);
    out.extend_from_slice(question);
    let body_at = out.len();
    out.extend_from_slice(&said.body);
    for &at in &said.ttls {
        let at = body_at + usize::from(at);
        let ttl = match age {
            Some(age) => u32_at(out, at).min(i32::MAX as u32).saturating_sub(age),
            None => STALE_TTL,
        };
        if let Some(slot) = out.get_mut(at..at + 4) {
            slot.copy_from_slice(&ttl.to_be_bytes());
        }
    }
}

/// The same behind CNAMEs of ours. Its names' compression is another one then, so that it is decoded and written anew.
fn respond_aliased(
    out: &mut Vec<u8>,
    query: &Query<'_>,
    aliases: &[u8],
    said: &Said,
    ask: &Ask,
    age: Option<u32>,
    limit: usize,
) {
    let [kind_hi, kind_lo] = ask.record_type.to_be_bytes();
    repeat(out, &[&*ask.name, &[kind_hi, kind_lo, 0, 1]].concat(), said, age);
    let counts = said.counts.map(u16::to_be_bytes);
    out[5] = 1;
    for (slot, count) in out[6..HEADER].chunks_exact_mut(2).zip(counts) {
        slot.copy_from_slice(&count);
    }
    let merged = || {
        let theirs = Message::from_vec(out).ok()?;
        let mut ours = Message::from_vec(aliases).ok()?;
        ours.edns = None;
        ours.answers.extend(theirs.answers);
        ours.authorities = theirs.authorities;
        let counts = [ours.answers.len(), ours.authorities.len()].map(u16::try_from);
        let [Ok(answers), Ok(authorities)] = counts else { return None };
        Some((ours.to_vec().ok()?, [answers, authorities, 0]))
    };
    let Some((bytes, counts)) = merged() else {
        return Writer::new(out, query, limit).end(query, 0, Rcode::ServFail);
    };
    out.clear();
    out.extend_from_slice(&bytes);
    writer::finish(out, query, 0, said.code, counts, limit);
}

#[cfg(test)]
mod tests;
