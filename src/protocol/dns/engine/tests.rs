use super::*;
use crate::{
    net::{DnsForwarder, DnsRecord, DomainName},
    protocol::dns::{NameSource, Reply, Routes, SharedZone, Zone, classify, hidden_key},
};
use hickory_proto::{
    op::{Edns as TheirEdns, MessageType, OpCode, Query as TheirQuery, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, SOA},
    },
};
use proptest::prelude::*;
use uuid::Uuid;

/// An engine with a clock of its own, and what it said to whom.
struct World {
    engine: Engine<usize>,
    zone: Zone,
    visible: Vec<SharedZone>,
    policy: Policy,
    now: Duration,
    flights: Vec<Flight>,
    /// By the number of the question: what came back.
    answers: HashMap<usize, Message>,
    asked: usize,
}

fn zone(network: u128, domain: &str, block: &str, guest: &str) -> Zone {
    let domain = DomainName::new(domain).expect("domain");
    let block: crate::net::IpNet = block.parse().expect("block");
    let first = block.hosts().next().expect("a host");
    let mut zone = Zone::new(Uuid::from_u128(network), domain, [block], [first]).expect("zone");
    let address = block.hosts().nth(9).expect("a host");
    let label = guest.parse().expect("label");
    zone.publish(Uuid::from_u128(network + 1000), NameSource::Dhcp, label, 0, vec![address]).expect("room");
    zone
}

fn message(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(TheirQuery::query(Name::from_ascii(name).expect("name"), kind));
    message
}

fn a(name: &Name, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name.clone(), ttl, RData::A(std::net::Ipv4Addr::new(203, 0, 113, last).into()))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let name = |text| Name::from_ascii(text).expect("name");
    let data = SOA::new(name("ns.example."), name("admin.example."), 1, 2, 3, 4, minimum);
    Record::from_rdata(name("example."), ttl, RData::SOA(data))
}

const GUEST: [u8; 4] = [192, 168, 123, 77];

impl World {
    fn new() -> Self {
        Self {
            engine: Engine::new(Budget::default()),
            zone: zone(1, "lab.internal", "192.168.123.0/24", "web"),
            visible: Vec::new(),
            policy: Policy::default(),
            now: Duration::from_secs(1000),
            flights: Vec::new(),
            answers: HashMap::new(),
            asked: 0,
        }
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn send(&mut self, from: [u8; 4], message: &Message) -> (usize, Verdict) {
        let number = self.asked;
        self.asked += 1;
        let view = View { zone: &self.zone, visible: &self.visible, policy: &self.policy, zones_only: false };
        let client = Client { address: from.into(), udp: true };
        let (bytes, mut out) = (message.to_vec().expect("encodes"), Vec::new());
        let verdict = self.engine.query(self.now, &view, client, &bytes, &mut out, || number);
        match &verdict {
            Verdict::Answer => {
                assert!(out.len() <= 1232);
                drop(self.answers.insert(number, Message::from_vec(&out).expect("a readable answer")));
            }
            Verdict::Ask(flight) => self.flights.push((**flight).clone()),
            Verdict::Drop | Verdict::Wait => {}
        }
        (number, verdict)
    }

    /// `A 1.2.3.4 TTL`s, `nodata`, a code, `asked` (a new flight), `waits`, `dropped`.
    fn ask(&mut self, name: &str, kind: RecordType) -> String {
        match self.send(GUEST, &message(name, kind)) {
            (number, Verdict::Answer) => told(&self.answers[&number]),
            (_, Verdict::Ask(_)) => "asked".into(),
            (_, Verdict::Wait) => "waits".into(),
            (_, Verdict::Drop) => "dropped".into(),
        }
    }

    /// The oldest flight ends with these records, or a failure.
    fn land(&mut self, answer: Result<(ResponseCode, Vec<Record>, Vec<Record>), Failure>) {
        let flight = self.flights.remove(0);
        let bytes = answer.map(|(code, answers, authorities)| {
            let question = Message::from_vec(&flight.ask.message(99, &[0])).expect("a question");
            let mut message = Message::response(99, OpCode::Query);
            message.add_queries(question.queries);
            message.metadata.response_code = code;
            message.metadata.authentic_data = true;
            message.answers = answers;
            message.authorities = authorities;
            message.set_edns(TheirEdns::new());
            message.to_vec().expect("encodes")
        });
        self.land_bytes(&flight.key, bytes.as_deref().map_err(|f| *f));
    }

    fn land_bytes(&mut self, key: &FlightKey, answer: Result<&[u8], Failure>) {
        let (answers, policy) = (&mut self.answers, &self.policy);
        self.engine.answered(self.now, policy, key, answer, |number, bytes| {
            let message = Message::from_vec(bytes).expect("a readable answer");
            assert!(answers.insert(number, message).is_none(), "answered twice");
        });
    }

    /// Asks, and has it answered with addresses of these times to live.
    fn learn(&mut self, name: &str, ttls: &[u32]) -> String {
        assert_eq!(self.ask(name, RecordType::A), "asked");
        let owner = Name::from_ascii(name).expect("name");
        let records = ttls.iter().zip(1..).map(|(ttl, last)| a(&owner, *ttl, last)).collect();
        self.land(Ok((ResponseCode::NoError, records, vec![])));
        told(&self.answers[&(self.asked - 1)])
    }
}

fn told(message: &Message) -> String {
    let records: Vec<_> = message.answers.iter().map(|r| format!("{} {}", r.data, r.ttl)).collect();
    match (message.metadata.response_code, records.is_empty()) {
        (ResponseCode::NoError, true) if message.metadata.truncation => "truncated".into(),
        (ResponseCode::NoError, true) => "nodata".into(),
        (ResponseCode::NoError, false) => records.join(", "),
        (code, _) => format!("{code:?}"),
    }
}

use RecordType as T;

#[test]
fn an_answer_is_kept_as_long_as_it_says() {
    let mut world = World::new();
    assert_eq!(world.learn("www.example.com.", &[60, 90]), "203.0.113.1 60, 203.0.113.2 90");
    assert_eq!(world.after(20).ask("WWW.Example.com.", T::A), "203.0.113.1 40, 203.0.113.2 70");
    assert_eq!(world.after(39).ask("www.example.com.", T::A), "203.0.113.1 1, 203.0.113.2 31");
    assert_eq!(world.after(1).ask("www.example.com.", T::A), "asked", "the set ends as a whole");
    world.land(Ok((ResponseCode::NoError, vec![], vec![])));
    assert_eq!(world.learn("zero.example.com.", &[0]), "203.0.113.1 0");
    assert_eq!(world.ask("zero.example.com.", T::A), "asked");
    world.land(Err(Failure::NotAsked));
    assert_eq!(world.learn("long.example.com.", &[u32::MAX / 2]), format!("203.0.113.1 {}", u32::MAX / 2));
    assert_eq!(world.after(86_401).ask("long.example.com.", T::A), "asked", "a day at most");
}

#[test]
fn what_is_not_there_is_kept_as_its_soa_says() {
    let mut world = World::new();
    let negative = |code, soa: Option<Record>| Ok((code, vec![], soa.into_iter().collect()));
    for (name, code, text) in
        [("a.example.", ResponseCode::NXDomain, "NXDomain"), ("b.example.", ResponseCode::NoError, "nodata")]
    {
        assert_eq!(world.ask(name, T::A), "asked");
        world.land(negative(code, Some(soa(300, 100))));
        assert_eq!(world.after(99).ask(name, T::A), text);
        assert_eq!(world.answers[&(world.asked - 1)].authorities[0].ttl, 201);
        assert_eq!(world.ask(name, T::AAAA), "asked", "each type for itself");
        world.land(negative(code, Some(soa(30, 7200))));
        assert_eq!(world.after(29).ask(name, T::AAAA), text);
        assert_eq!(world.after(1).ask(name, T::AAAA), "asked");
        world.land(negative(code, None));
        assert_eq!(world.ask(name, T::AAAA), "asked", "without an SOA it is not kept (RFC 2308 section 5)");
        world.land(Err(Failure::NotAsked));
    }
    let alias = Name::from_ascii("c.example.").expect("name");
    let cname = Record::from_rdata(alias, 600, RData::CNAME(CNAME(Name::from_ascii("d.example.").expect("name"))));
    assert_eq!(world.ask("c.example.", T::A), "asked");
    world.land(Ok((ResponseCode::NoError, vec![cname], vec![soa(900, 50)])));
    assert_eq!(world.after(49).ask("c.example.", T::A), "d.example. 551");
    assert_eq!(world.after(1).ask("c.example.", T::A), "asked");
}

#[test]
fn equal_questions_are_asked_once_and_each_guest_gets_its_own_answer() {
    let mut world = World::new();
    let mut other = message("WWW.example.com.", T::A);
    other.metadata.id = 42;
    other.set_edns(TheirEdns::new());
    let (first, _) = world.send(GUEST, &message("www.example.com.", T::A));
    let (second, verdict) = world.send([192, 168, 123, 78], &other);
    assert_eq!((verdict, world.flights.len()), (Verdict::Wait, 1));
    let mut validating = message("www.example.com.", T::A);
    validating.metadata.checking_disabled = true;
    assert!(matches!(world.send(GUEST, &validating).1, Verdict::Ask(_)), "CD may be answered otherwise");
    let owner = Name::from_ascii("www.example.com.").expect("name");
    world.land(Ok((ResponseCode::NoError, vec![a(&owner, 60, 1)], vec![])));
    let (one, two) = (&world.answers[&first], &world.answers[&second]);
    assert_eq!((one.metadata.id, two.metadata.id), (4711, 42));
    assert_eq!(
        (one.queries[0].name.to_ascii(), two.queries[0].name.to_ascii()),
        ("www.example.com.".into(), "WWW.example.com.".into())
    );
    assert_eq!((one.edns.is_some(), two.edns.is_some()), (false, true));
    assert_eq!((told(one), told(two)), ("203.0.113.1 60".into(), "203.0.113.1 60".into()));
    assert!(!one.metadata.authentic_data, "AD only to those who asked for it");
    assert_eq!(world.engine.stats().joined, 1);
}

#[test]
fn failures_are_remembered_for_a_moment() {
    let mut world = World::new();
    assert_eq!(world.ask("www.example.com.", T::A), "asked");
    world.land(Err(Failure::NoAnswer));
    assert_eq!(told(&world.answers[&0]), "ServFail");
    assert_eq!(world.after(1).ask("www.example.com.", T::A), "ServFail");
    assert_eq!(world.after(1).ask("www.example.com.", T::A), "asked");
    world.land(Ok((ResponseCode::Refused, vec![], vec![])));
    assert_eq!(told(&world.answers[&2]), "Refused", "the last word of the upstreams is passed on");
    assert_eq!(world.ask("www.example.com.", T::A), "ServFail");
    assert_eq!(world.after(2).ask("www.example.com.", T::A), "asked");
    world.land(Err(Failure::NotAsked));
    assert_eq!(world.ask("www.example.com.", T::A), "asked", "nobody failed");
}

#[test]
fn stale_answers_serve_where_that_is_wanted() {
    let mut world = World::new();
    world.policy.stale_seconds = 1000;
    world.learn("www.example.com.", &[60]);
    assert_eq!(world.after(100).ask("www.example.com.", T::A), "asked", "the upstreams first");
    world.land(Err(Failure::NoAnswer));
    assert_eq!(told(&world.answers[&1]), "203.0.113.1 30");
    assert_eq!(world.after(29).ask("www.example.com.", T::A), "203.0.113.1 30", "they are left alone for 30 s");
    assert_eq!(world.after(1).ask("www.example.com.", T::A), "asked");
    // Slow, not silent.
    let key = world.flights[0].key.clone();
    let (answers, policy) = (&mut world.answers, &world.policy);
    world.engine.overdue(world.now, policy, &key, |n, bytes| {
        drop(answers.insert(n, Message::from_vec(bytes).expect("readable")))
    });
    assert_eq!(told(&world.answers[&3]), "203.0.113.1 30");
    assert_eq!(world.ask("www.example.com.", T::A), "waits", "it goes on");
    let owner = Name::from_ascii("www.example.com.").expect("name");
    world.land(Ok((ResponseCode::NoError, vec![a(&owner, 60, 9)], vec![])));
    assert_eq!(told(&world.answers[&4]), "203.0.113.9 60");
    assert_eq!(world.after(1060).ask("www.example.com.", T::A), "asked");
    world.land(Err(Failure::NoAnswer));
    assert_eq!(told(&world.answers[&5]), "ServFail", "too old");
    world.policy.stale_seconds = 0;
    world.learn("off.example.com.", &[60]);
    assert_eq!(world.after(61).ask("off.example.com.", T::A), "asked");
    world.land(Err(Failure::NoAnswer));
    assert_eq!(told(&world.answers[&(world.asked - 1)]), "ServFail", "not without being wanted");
}

#[test]
fn private_addresses_from_outside_are_refused_where_that_is_wanted() {
    let private = |name: &str| {
        let name = Name::from_ascii(name).expect("name");
        vec![a(&name, 60, 1), Record::from_rdata(name, 60, RData::A(std::net::Ipv4Addr::new(192, 168, 123, 1).into()))]
    };
    let mut world = World::new();
    assert_eq!(world.ask("evil.example.", T::A), "asked");
    world.land(Ok((ResponseCode::NoError, private("evil.example."), vec![])));
    assert_eq!(world.answers[&0].answers.len(), 2);
    let mut world = World::new();
    world.policy.refuse_private = true;
    world.policy.routes = Routes::new(&["corp.example=10.0.0.53".parse::<DnsForwarder>().expect("forwarder")], []);
    assert_eq!(world.ask("evil.example.", T::A), "asked");
    world.land(Ok((ResponseCode::NoError, private("evil.example."), vec![])));
    assert_eq!(told(&world.answers[&0]), "Refused");
    assert_eq!(world.after(59).ask("evil.example.", T::A), "Refused");
    assert_eq!(world.ask("app.corp.example.", T::A), "asked");
    world.land(Ok((ResponseCode::NoError, private("app.corp.example."), vec![])));
    assert_eq!(world.answers[&2].answers.len(), 2, "a forwarder that somebody named may");
    assert_eq!(world.engine.stats().rebinding, 1);
    // RFC 9460's hints would do the same.
    let hint = b"\0\x01\0\0\x04\0\x04\x0a\0\0\x01";
    assert_eq!(world.ask("svc.example.", T::HTTPS), "asked");
    let flight = world.flights.remove(0);
    let mut bytes = flight.ask.message(7, &[0]);
    bytes.truncate(HEADER + flight.ask.name.len() + 4);
    bytes[2..HEADER].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0xc0, 12, 0, 65, 0, 1, 0, 0, 0, 60, 0, hint.len() as u8]);
    bytes.extend_from_slice(hint);
    world.land_bytes(&flight.key, Ok(&bytes));
    assert_eq!(told(&world.answers[&3]), "Refused");
}

#[test]
fn only_guests_are_answered() {
    let mut world = World::new();
    for stranger in [[192, 168, 124, 1], [203, 0, 113, 5], [127, 0, 0, 1]] {
        assert_eq!(world.send(stranger, &message("web.lab.internal.", T::A)).1, Verdict::Drop);
    }
    let mut no_recursion = message("www.example.com.", T::A);
    no_recursion.metadata.recursion_desired = false;
    let (number, _) = world.send(GUEST, &no_recursion);
    assert_eq!(told(&world.answers[&number]), "Refused");
    assert!(world.flights.is_empty());
}

#[test]
fn another_networks_names_are_seen_where_that_is_allowed() {
    let mut world = World::new();
    let other = zone(2, "db.internal", "10.7.0.0/16", "master");
    let below = zone(3, "deep.lab.internal", "10.8.0.0/16", "x");
    let key = |domain: &str| hidden_key(&domain.parse().expect("domain")).expect("a name");
    world.policy.hidden = Arc::new(["db.internal", "lab.internal", "deep.lab.internal"].map(key).into());
    assert_eq!(world.ask("master.db.internal.", T::A), "NXDomain", "and never asked of others");
    assert_eq!(world.ask("metadata.google.internal.", T::A), "asked", "what is not ours is");
    world.visible = vec![SharedZone::new(other), SharedZone::new(below)];
    assert_eq!(world.ask("master.db.internal.", T::A), "10.7.0.10 30");
    assert_eq!(world.ask("10.0.7.10.in-addr.arpa.", T::PTR), "master.db.internal. 30");
    assert_eq!(world.ask("x.deep.lab.internal.", T::A), "10.8.0.10 30");
    assert_eq!(world.ask("none.deep.lab.internal.", T::A), "NXDomain");
    assert_eq!(world.ask("web.lab.internal.", T::A), "192.168.123.10 30");
    assert_eq!(world.ask("master.", T::A), "NXDomain", "short names are its own network's");
    assert_eq!(world.ask("www.example.com.", T::A), "asked");
}

#[test]
fn forwarders_are_chosen_by_domain() {
    let mut world = World::new();
    let lines = ["corp.example=10.0.0.53", "corp.example=10.0.0.54:5353", "dc.lab.internal=10.0.0.55", "no.example="];
    let host: Vec<DnsForwarder> = lines.iter().map(|line| line.parse().expect(line)).collect();
    let own: Vec<DnsForwarder> =
        ["corp.example=192.168.123.9", "10.in-addr.arpa=10.0.0.53"].map(|l| l.parse().expect(l)).into();
    world.policy.routes = Routes::new(&own, &host);
    world.policy.local_reverse = true;
    let mut to = |name: &str| {
        let told = world.ask(name, T::PTR);
        let servers =
            world.flights.pop().and_then(|f| f.servers).map(|s| s.iter().map(ToString::to_string).collect::<Vec<_>>());
        servers.map_or(told, |servers| servers.join(" "))
    };
    assert_eq!(to("app.corp.example."), "192.168.123.9:53");
    assert_eq!(to("corp.example."), "192.168.123.9:53");
    assert_eq!(to("x.no.example."), "NXDomain");
    assert_eq!(to("x.dc.lab.internal."), "10.0.0.55:53");
    assert_eq!(to("x.lab.internal."), "NXDomain");
    assert_eq!(to("1.1.1.10.in-addr.arpa."), "10.0.0.53:53");
    assert_eq!(to("1.1.168.192.in-addr.arpa."), "NXDomain", "RFC 6303");
    assert_eq!(to("notcorp.example."), "asked");
}

#[test]
fn an_alias_leads_out_of_the_zone() {
    let mut world = World::new();
    let records: Vec<DnsRecord> =
        ["out 60 CNAME www.example.org.", "web2 CNAME web"].map(|l| l.parse().expect(l)).into();
    world.zone.set_records(&records);
    assert_eq!(world.ask("web2.lab.internal.", T::A), "web.lab.internal. 30, 192.168.123.10 30");
    let owner = Name::from_ascii("www.example.org.").expect("name");
    assert_eq!(world.ask("Out.lab.internal.", T::A), "asked");
    assert_eq!(world.flights[0].ask.name.to_string(), "www.example.org.");
    world.land(Ok((ResponseCode::NoError, vec![a(&owner, 90, 1)], vec![])));
    assert_eq!(told(&world.answers[&1]), "www.example.org. 60, 203.0.113.1 90");
    assert_eq!(world.after(10).ask("out.lab.internal.", T::A), "www.example.org. 60, 203.0.113.1 80");
    assert_eq!(world.ask("www.example.org.", T::A), "203.0.113.1 80", "what was learnt serves both");
}

#[test]
fn what_is_too_long_is_truncated() {
    let mut world = World::new();
    let owner = Name::from_ascii("big.example.").expect("name");
    assert_eq!(world.ask("big.example.", T::A), "asked");
    world.land(Ok((ResponseCode::NoError, (0..60).map(|n| a(&owner, 60, n)).collect(), vec![])));
    assert_eq!(told(&world.answers[&0]), "truncated");
    let mut roomy = message("big.example.", T::A);
    let mut edns = TheirEdns::new();
    edns.set_max_payload(4096);
    roomy.set_edns(edns);
    let (number, _) = world.send(GUEST, &roomy);
    assert_eq!(world.answers[&number].answers.len(), 60);
}

#[test]
fn what_guests_can_make_wait_has_limits() {
    let mut world = World::new();
    // As many guests as it takes, each asking as much as it may.
    let mut refused = 0;
    for n in 0..MAX_WAITING + 200 {
        let guest = [192, 168, 123, (n / MAX_WAITING_PER_CLIENT) as u8 + 10];
        let question = message(&format!("w{}.example.", n % MAX_FLIGHTS), T::A);
        refused += usize::from(world.send(guest, &question).1 == Verdict::Answer);
    }
    assert_eq!((refused, world.flights.len()), (200, MAX_FLIGHTS));
    assert_eq!(world.ask("one-more.example.", T::A), "ServFail", "no more at once");
    assert_eq!(world.ask("web.lab.internal.", T::A), "192.168.123.10 30", "its own names all the same");
    while !world.flights.is_empty() {
        world.land(Err(Failure::NotAsked));
    }
    assert_eq!((world.engine.total_waiting, world.engine.waiting.len()), (0, 0));
    for n in 0..MAX_WAITING_PER_CLIENT {
        assert_eq!(world.ask(&format!("w{n}.example."), T::A), "asked");
    }
    assert_eq!(world.ask("w.example.", T::A), "ServFail", "one guest has its share only");
    assert!(matches!(world.send([192, 168, 123, 5], &message("w.example.", T::A)).1, Verdict::Ask(_)));
    assert_eq!(world.engine.stats().busy, 202);
}

#[test]
fn a_stale_answer_is_given_and_counted_where_nobody_can_be_asked() {
    let mut world = World::new();
    world.policy.stale_seconds = 3600;
    assert_eq!(world.ask("old.example.", T::A), "asked");
    let owner = Name::from_ascii("old.example.").expect("name");
    world.land(Ok((ResponseCode::NoError, vec![a(&owner, 60, 1)], vec![])));
    world.after(61);
    for n in 0..MAX_WAITING_PER_CLIENT {
        assert_eq!(world.ask(&format!("w{n}.example."), T::A), "asked");
    }
    assert_eq!(world.ask("old.example.", T::A), "203.0.113.1 30");
    assert_eq!((world.engine.stats().busy, world.engine.stats().stale), (1, 1));
}

#[test]
fn what_guests_can_make_be_kept_has_limits() {
    let said = || Said {
        body: vec![0; 4000].into(),
        counts: [1, 0, 0],
        code: 0,
        authentic: false,
        ttls: [].into(),
        ttl: Some(60),
        private: false,
    };
    let now = Duration::from_secs(9);
    let budget = Budget::new(MAX_NETWORK_BYTES + 100_000);
    let mut caches = [Cache::new(MAX_NETWORK_BYTES, budget.clone()), Cache::new(MAX_NETWORK_BYTES, budget)];
    for n in 0..5000u32 {
        caches[0].put(&n.to_be_bytes(), said(), now);
        // It is asked for again and again.
        assert!(matches!(caches[0].get(&0u32.to_be_bytes(), now), Hit::Answer { .. }), "{n}");
    }
    assert!(caches[0].bytes() <= MAX_NETWORK_BYTES && caches[0].bytes() > MAX_NETWORK_BYTES - 10_000);
    assert_eq!(caches[0].get(&1u32.to_be_bytes(), now), Hit::Miss, "what nobody asks for goes");
    for n in 0..100u32 {
        caches[1].put(&n.to_be_bytes(), said(), now);
    }
    assert!(caches[1].bytes() <= 100_000 && caches[1].len() > 10, "it has what is left, and makes room in its own");
    caches[0].clear();
    for n in 0..100u32 {
        caches[1].put(&n.to_be_bytes(), said(), now);
    }
    assert_eq!(caches[1].len(), 100);
    let mut long = said();
    long.body = vec![0; 20_000].into();
    caches[1].put(b"long", long, now);
    assert_eq!(caches[1].get(b"long", now), Hit::Miss);
}

#[test]
fn answers_are_matched_with_their_questions() {
    let ask = Ask {
        name: WireName::from_text("www.example.com").expect("name"),
        record_type: 1,
        dnssec_ok: false,
        checking_disabled: false,
    };
    let sent = ask.message(0x1234, &[0xa5; 32]);
    let answer = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sent.clone();
        bytes[2] |= 0x80;
        change(&mut bytes);
        classify(&sent, &bytes)
    };
    assert_eq!(answer(&|_| ()), Reply::Answer);
    assert_eq!(answer(&|b| b[1] ^= 1), Reply::Stray, "another id");
    assert_eq!(answer(&|b| b[2] &= 0x7f), Reply::Stray, "a question");
    assert_eq!(answer(&|b| b[2] |= 0x08), Reply::Stray, "another opcode");
    assert_eq!(answer(&|b| b[14] = b'x'), Reply::Stray, "another name");
    assert_eq!(answer(&|b| b[13] ^= 0x20), Reply::OtherCase);
    assert_eq!(answer(&|b| b[HEADER + ask.name.len() + 1] = 28), Reply::Stray, "another type");
    assert_eq!(answer(&|b| b[2] |= 0x02), Reply::Truncated);
    assert_eq!(answer(&|b| b[5] = 2), Reply::Stray);
    assert_eq!(answer(&|b| b.truncate(20)), Reply::Stray);
    assert_eq!(
        answer(&|b| {
            b.truncate(HEADER);
            b[3] = 1;
            b[5] = 0
        }),
        Reply::Answer,
        "it cannot read the question"
    );
    let upper = sent.iter().filter(|b| b.is_ascii_uppercase()).count();
    assert!(upper > 0 && upper < 13, "the letters' case is drawn");
}

/// What the world does to the engine.
#[derive(Debug, Clone)]
enum Step {
    Ask { guest: u8, name: u8, kind: bool, cd: bool },
    Land { which: usize, ttl: u32, outcome: u8 },
    Garbage { which: usize, bytes: Vec<u8> },
    Overdue { which: usize },
    Wait(u64),
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4u8, 0..6u8, any::<bool>(), any::<bool>()).prop_map(|(guest, name, kind, cd)| Step::Ask { guest, name, kind, cd }),
        4 => (any::<usize>(), 0..90u32, 0..6u8).prop_map(|(which, ttl, outcome)| Step::Land { which, ttl, outcome }),
        1 => (any::<usize>(), prop::collection::vec(any::<u8>(), 0..80)).prop_map(|(which, bytes)| Step::Garbage { which, bytes }),
        1 => any::<usize>().prop_map(|which| Step::Overdue { which }),
        3 => (0..100u64).prop_map(Step::Wait),
        1 => Just(Step::Forget),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// In whatever order answers come, fail, are late or make no sense: every guest is answered once, with its own
    /// question, and never with what has ended, unless stale answers are wanted.
    #[test]
    fn hostile_orderings(steps in steps(), stale in any::<bool>()) {
        let mut world = World::new();
        world.policy.stale_seconds = if stale { 50 } else { 0 };
        // When the last word on a question was said, and for how long it holds; and the question of each number.
        let mut ends: HashMap<FlightKey, Duration> = HashMap::new();
        let mut questions: HashMap<usize, Message> = HashMap::new();
        for step in steps {
            match step {
                Step::Ask { guest, name, kind, cd } => {
                    let mut question = message(&format!("n{name}.example."), if kind { T::A } else { T::AAAA });
                    question.metadata.checking_disabled = cd;
                    question.metadata.id = world.asked as u16;
                    let (number, verdict) = world.send([192, 168, 123, 10 + guest], &question);
                    questions.insert(number, question);
                    if verdict == Verdict::Answer {
                        let ask = Ask {
                            name: WireName::from_text(&format!("n{name}.example.")).expect("name"),
                            record_type: if kind { 1 } else { 28 },
                            dnssec_ok: false,
                            checking_disabled: cd,
                        };
                        let key = FlightKey(Key::new(&ask).as_bytes().into());
                        let told = &world.answers[&number];
                        if told.metadata.response_code != ResponseCode::ServFail {
                            let end = ends[&key] + Duration::from_secs(if stale { 50 + 30 } else { 0 });
                            prop_assert!(world.now < end, "an answer that has ended");
                        }
                    }
                }
                Step::Land { which, ttl, outcome } if !world.flights.is_empty() => {
                    let at = which % world.flights.len();
                    let flight = world.flights[at].clone();
                    world.flights.swap(0, at);
                    let owner = Name::from_ascii(flight.ask.name.to_string()).expect("name");
                    let mut ends_at = None;
                    let answer = match outcome {
                        0 => Err(Failure::NoAnswer),
                        1 => Err(Failure::NotAsked),
                        2 => Ok((ResponseCode::ServFail, vec![], vec![])),
                        3 => { ends_at = Some(ttl.min(77)); Ok((ResponseCode::NXDomain, vec![], vec![soa(ttl, 77)])) }
                        _ => { ends_at = Some(ttl); Ok((ResponseCode::NoError, vec![a(&owner, ttl, 1)], vec![])) }
                    };
                    if let Some(ttl) = ends_at {
                        ends.insert(flight.key.clone(), world.now + Duration::from_secs(ttl.into()));
                    }
                    world.land(answer);
                    // A second answer to the same is nobody's.
                    world.land_bytes(&flight.key, Err(Failure::NoAnswer));
                }
                Step::Garbage { which, bytes } if !world.flights.is_empty() => {
                    let flight = world.flights.remove(which % world.flights.len());
                    let mut message = flight.ask.message(1, &[0]);
                    message.truncate(HEADER + flight.ask.name.len() + 4);
                    message[7] = 2;
                    message.extend(bytes);
                    world.land_bytes(&flight.key, Ok(&message));
                    // It may have been a readable answer after all.
                    ends.insert(flight.key, world.now + Duration::from_secs(86_400));
                }
                Step::Overdue { which } if !world.flights.is_empty() => {
                    let key = world.flights[which % world.flights.len()].key.clone();
                    let (answers, policy) = (&mut world.answers, &world.policy);
                    world.engine.overdue(world.now, policy, &key, |number, bytes| {
                        let message = Message::from_vec(bytes).expect("readable");
                        assert!(answers.insert(number, message).is_none(), "answered twice");
                    });
                }
                Step::Wait(seconds) => drop(world.after(seconds)),
                Step::Forget => world.engine.forget(),
                _ => {}
            }
            let waiting: usize = world.engine.flights.values().map(|f| f.waiters.len()).sum();
            prop_assert_eq!(world.engine.total_waiting, waiting);
            prop_assert_eq!(world.engine.waiting.values().sum::<usize>(), waiting);
            prop_assert_eq!(world.engine.flights.len(), world.flights.len());
        }
        while !world.flights.is_empty() {
            world.land(Err(Failure::NoAnswer));
        }
        for (number, question) in questions {
            let answer = world.answers.get(&number);
            prop_assert_eq!(answer.map(|a| (a.metadata.id, &a.queries)), Some((question.metadata.id, &question.queries)));
        }
    }
}
