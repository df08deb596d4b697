//! One network's DNS engine between hostile guests and hostile upstream resolvers.
//!
//! The input is a list of steps: a byte that says what happens, a length of two bytes (network order), and that many
//! bytes of it; the rest, where it is no step, is one guest's datagram.

use std::{collections::HashMap, net::IpAddr, time::Duration};
use uuid::Uuid;
use vmfabric::{
    net::{DnsForwarder, DnsRecord},
    protocol::dns::{
        Budget, Client, Engine, Failure, Flight, NameSource, Policy, Query, Routes, Verdict, View, Zone, classify,
    },
};

struct World {
    engine: Engine<usize>,
    zone: Zone,
    policy: Policy,
    now: Duration,
    flights: Vec<Flight>,
    /// What each guest's question was that waits.
    waiting: HashMap<usize, (Vec<u8>, Client)>,
    asked: usize,
}

pub fn run(bytes: &[u8]) {
    let mut world = World::new();
    let mut rest = bytes;
    while let [step, high, low, after @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (payload, next) = after.split_at(len);
        world.step(*step, payload);
        rest = next;
    }
    world.guest(rest, true);
    while !world.flights.is_empty() {
        world.land(0, Err(Failure::NoAnswer));
    }
    assert!(world.waiting.is_empty(), "a guest was never answered");
}

impl World {
    fn new() -> Self {
        let block = "192.168.123.0/24".parse().expect("a block");
        let domain = "lab.internal".parse().expect("a domain");
        let mut zone = Zone::new(Uuid::nil(), domain, [block], [ip(1)]).expect("a zone");
        zone.publish(Uuid::from_u128(1), NameSource::Port, "web".parse().expect("a label"), 0, vec![ip(9)])
            .expect("room");
        let lines = ["www CNAME web", "out CNAME www.example.com", "*.dev A 192.168.123.7", "@ MX 10 web", "t TXT a b"];
        let records: Vec<DnsRecord> = lines.iter().map(|line| line.parse().expect("a record")).collect();
        zone.set_records(&records);
        let forwarder: DnsForwarder = "corp.example=10.0.0.53".parse().expect("a forwarder");
        let routes = Routes::new(&[forwarder], []);
        let policy = Policy { routes, refuse_private: true, stale_seconds: 100, ..Policy::default() };
        let (flights, waiting) = Default::default();
        let engine = Engine::new(Budget::new(1 << 20));
        Self { engine, zone, policy, now: Duration::from_secs(1), flights, waiting, asked: 0 }
    }

    fn step(&mut self, step: u8, payload: &[u8]) {
        match step % 10 {
            0 => self.guest(payload, true),
            1 => self.guest(payload, false),
            // An upstream's answer, as it is, or behind a header and a question that fit.
            2 | 3 if !self.flights.is_empty() => {
                let at = usize::from(step) % self.flights.len();
                let flight = &self.flights[at];
                let mut message = flight.ask.message(7, &[0xff; 4]);
                let sent = message.clone();
                if step % 10 == 2 {
                    message = payload.to_vec();
                } else {
                    let end = 12 + flight.ask.name.len() + 4;
                    message.truncate(end);
                    let (counts, body) = payload.split_at(payload.len().min(6));
                    message[2] = 0x81;
                    for (slot, count) in message[6..12].iter_mut().zip(counts) {
                        *slot = *count;
                    }
                    message.extend_from_slice(body);
                }
                let _ = classify(&sent, &message);
                self.land(at, Ok(&message));
            }
            4 if !self.flights.is_empty() => self.land(usize::from(step) % self.flights.len(), Err(Failure::NoAnswer)),
            5 if !self.flights.is_empty() => {
                let key = self.flights[usize::from(step) % self.flights.len()].key.clone();
                let waiting = &mut self.waiting;
                self.engine.overdue(self.now, &self.policy, &key, |number, answer| {
                    let (question, client) = waiting.remove(&number).expect("answered once");
                    check(&question, client, answer);
                });
            }
            6 => self.now += Duration::from_secs(payload.len() as u64),
            7 => {
                let Ok(text) = std::str::from_utf8(payload) else { return };
                let Ok(record) = text.parse::<DnsRecord>() else { return };
                assert_eq!(record.to_string().parse::<DnsRecord>().as_ref(), Ok(&record), "written as it is read");
                self.zone.set_records([&record]);
            }
            8 => {
                let Ok(text) = std::str::from_utf8(payload) else { return };
                let Ok(forwarder) = text.parse::<DnsForwarder>() else { return };
                assert_eq!(forwarder.to_string().parse::<DnsForwarder>().as_ref(), Ok(&forwarder));
                self.policy.routes = Routes::new(&[forwarder], []);
            }
            _ => drop(self.engine.admit(self.now, ip(payload.len() as u8), step & 1 == 0, u32::from(step))),
        }
    }

    fn guest(&mut self, bytes: &[u8], udp: bool) {
        let client = Client { address: ip(77), udp };
        let view = View { zone: &self.zone, visible: &[], policy: &self.policy, zones_only: false };
        let (number, mut out) = (self.asked, Vec::new());
        self.asked += 1;
        match self.engine.query(self.now, &view, client, bytes, &mut out, || number) {
            Verdict::Drop => assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0, "a question is answered"),
            Verdict::Answer => check(bytes, client, &out),
            Verdict::Ask(flight) => {
                self.flights.push(*flight);
                self.waiting.insert(number, (bytes.to_vec(), client));
            }
            Verdict::Wait => drop(self.waiting.insert(number, (bytes.to_vec(), client))),
        }
    }

    fn land(&mut self, at: usize, answer: Result<&[u8], Failure>) {
        let flight = self.flights.remove(at);
        let waiting = &mut self.waiting;
        self.engine.answered(self.now, &self.policy, &flight.key, answer, |number, answer| {
            let (question, client) = waiting.remove(&number).expect("answered once");
            check(&question, client, answer);
        });
    }
}

/// An answer is to its question, and no longer than its guest can take.
fn check(question: &[u8], client: Client, answer: &[u8]) {
    assert!(answer.len() >= 12 && answer[..2] == question[..2] && answer[2] & 0x80 != 0);
    match Query::parse(question) {
        Ok(query) => {
            let limit =
                if client.udp { query.edns.map_or(512, |edns| edns.payload.clamp(512, 1232)) } else { u16::MAX };
            assert!(answer.len() <= usize::from(limit), "{} > {limit}", answer.len());
            assert_eq!(answer[12..].get(..query.question.len()), Some(query.question));
        }
        Err(_) => assert!(answer.len() <= 23),
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 168, 123, last])
}
