//! What must hold in whatever order packets, disk writes, time and scope changes come.

use super::{testing::*, *};
use dhcproto::v4::{DhcpOption, MessageType, OptionCode};
use proptest::prelude::*;
use std::{collections::HashMap, net::Ipv4Addr};

const CLIENTS: u8 = 8;

/// One step of a hostile history. Clients 1 to 3 have reservations in some versions of the scope.
#[derive(Debug, Clone)]
enum Step {
    Discover(u8),
    /// SELECTING: of the offered address, or of any.
    Select(u8, Option<u8>),
    InitReboot(u8, u8),
    Renew(u8),
    RenewAny(u8, u8),
    Release(u8),
    Decline(u8),
    /// Client 1's messages under another's name.
    Forge(u8, u8),
    /// One of the commits in flight lands.
    Land(prop::sample::Index),
    Fail(prop::sample::Index),
    /// It is known who has one of the addresses that are looked for, if anybody has.
    Probed(prop::sample::Index, bool),
    Wait(u16),
    Update(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 1..=CLIENTS;
    let address = || prop_oneof![1 => 0..=255u8, 3 => 98..=107u8];
    prop_oneof![
        4 => client().prop_map(Step::Discover),
        6 => (client(), prop_oneof![3 => Just(None), 1 => address().prop_map(Some)]).prop_map(|(c, a)| Step::Select(c, a)),
        2 => (client(), address()).prop_map(|(c, a)| Step::InitReboot(c, a)),
        3 => client().prop_map(Step::Renew),
        1 => (client(), address()).prop_map(|(c, a)| Step::RenewAny(c, a)),
        1 => client().prop_map(Step::Release),
        1 => client().prop_map(Step::Decline),
        1 => (client(), client()).prop_map(|(c, v)| Step::Forge(c, v)),
        10 => any::<prop::sample::Index>().prop_map(Step::Land),
        2 => any::<prop::sample::Index>().prop_map(Step::Fail),
        6 => (any::<prop::sample::Index>(), prop::bool::weighted(0.1)).prop_map(|(i, taken)| Step::Probed(i, taken)),
        3 => prop_oneof![0..20u16, 0..4_000u16].prop_map(Step::Wait),
        1 => (0..8u8).prop_map(Step::Update),
        1 => Just(Step::Restart),
    ]
}

/// From 4 on with probes.
fn version(number: u8) -> Scope {
    let mut version = match number % 4 {
        0 => scope(104, &[]),
        1 => scope(104, &[(1, 50), (2, 101)]),
        2 => scope(102, &[(1, 100), (3, 101)]),
        _ => scope(106, &[(2, 103), (3, 50)]),
    };
    version.probe = number >= 4;
    version
}

/// The clients as they see themselves, the disk, and the engine under test.
struct World {
    engine: Engine,
    now: UnixSeconds,
    disk: HashMap<Ipv4Addr, Lease>,
    in_flight: Vec<Commit>,
    probes: Vec<Ipv4Addr>,
    offered: HashMap<u8, Ipv4Addr>,
    /// Address and end of each client's lease.
    held: HashMap<u8, (Ipv4Addr, UnixSeconds)>,
    /// Who asked for the change in flight, and when.
    asked: HashMap<u64, (u8, UnixSeconds)>,
    current: u8,
}

impl World {
    fn new() -> Self {
        let (offered, held, asked, disk, probes) = Default::default();
        let engine = small(version(0));
        Self { engine, now: NOW, disk, in_flight: Vec::new(), probes, offered, held, asked, current: 0 }
    }

    fn act(&mut self, step: &Step) {
        match *step {
            Step::Discover(c) => self.send(c, &discover(c)),
            Step::Select(c, address) => {
                if let Some(address) = address.map(ip).or(self.offered.get(&c).copied()) {
                    self.send(c, &select(c, address));
                }
            }
            Step::InitReboot(c, a) => self.send(c, &init_reboot(c, ip(a))),
            Step::Renew(c) => {
                if let Some((address, end)) = self.holding(c)
                    && !self.in_flight.iter().any(|commit| commit.change().lease().address == address)
                {
                    let outcome = submit(&mut self.engine, c, &renew(c, address), self.now);
                    let kept = outcome.reply() == Some((MessageType::Ack, address)) || outcome.commits.len() == 1;
                    assert!(kept, "client {c} could not renew {address} at {} of {end}: {outcome:?}", self.now);
                    self.settle(Some(c), outcome);
                }
            }
            Step::RenewAny(c, a) => self.send(c, &renew(c, ip(a))),
            Step::Release(c) => {
                if let Some((address, _)) = self.held.remove(&c) {
                    self.send(c, &release(c, address));
                }
            }
            Step::Decline(c) => {
                if let Some((address, _)) = self.held.remove(&c) {
                    self.send(c, &decline(c, address));
                }
            }
            Step::Forge(c, victim) if c != victim => {
                if let Some((address, _)) = self.holding(victim) {
                    for forged in [release(victim, address), decline(victim, address), discover(victim)] {
                        assert!(submit(&mut self.engine, c, &forged, self.now).sent.is_empty());
                    }
                }
            }
            Step::Forge(..) => {}
            Step::Land(which) => self.land(which, true),
            Step::Fail(which) => self.land(which, false),
            Step::Probed(which, taken) => {
                if !self.probes.is_empty() {
                    let address = self.probes.swap_remove(which.index(self.probes.len()));
                    let outputs = self.engine.probed(address, taken.then(|| mac(200)), self.now);
                    self.take(None, outputs);
                }
            }
            Step::Wait(seconds) => {
                self.now += u64::from(seconds);
                let outputs = self.engine.tick(self.now);
                self.take(None, outputs);
            }
            Step::Update(number) => {
                self.current = number;
                let outputs = self.engine.update(version(number), self.now);
                self.take(None, outputs);
            }
            Step::Restart => {
                // What was on its way to the disk may have reached it; here it has not. Nobody got an ACK for it.
                self.in_flight.clear();
                self.asked.clear();
                self.probes.clear();
                let leases = self.disk.values().cloned().collect();
                let limits = Limits { dynamic: 64, offers: 4, quarantine: 2 };
                let (engine, outputs) = Engine::with_limits(version(self.current), leases, self.now, limits);
                self.engine = engine;
                self.take(None, outputs);
            }
        }
    }

    fn holding(&self, client: u8) -> Option<(Ipv4Addr, UnixSeconds)> {
        self.held.get(&client).copied().filter(|(_, end)| self.now < *end)
    }

    fn send(&mut self, client: u8, message: &dhcproto::v4::Message) {
        let outcome = submit(&mut self.engine, client, message, self.now);
        self.settle(Some(client), outcome);
    }

    fn take(&mut self, client: Option<u8>, outputs: Vec<Output>) {
        let mut outcome = Outcome::default();
        outcome.add(outputs);
        self.settle(client, outcome);
    }

    fn land(&mut self, which: prop::sample::Index, stored: bool) {
        if self.in_flight.is_empty() {
            return;
        }
        let commit = self.in_flight.swap_remove(which.index(self.in_flight.len()));
        let asked = self.asked.remove(&commit.ticket);
        let outputs = if stored {
            match commit.change().clone() {
                LeaseChange::Put(lease) => drop(self.disk.insert(lease.address, lease)),
                LeaseChange::Remove(lease) => drop(self.disk.remove(&lease.address)),
            }
            self.engine.confirm(commit, self.now)
        } else {
            self.engine.abandon(commit, self.now)
        };
        let mut outcome = Outcome::default();
        outcome.add(outputs);
        let now = self.now;
        self.now = asked.map_or(now, |(_, at)| at);
        self.settle(asked.map(|(client, _)| client), outcome);
        self.now = now;
    }

    /// Takes in what came of a packet. A client counts its lease from when it asked.
    fn settle(&mut self, client: Option<u8>, outcome: Outcome) {
        for event in outcome.events {
            // The administrator took the address away; its client learns so when it renews.
            if let Event::LeaseDropped(lease) = event {
                self.held.retain(|_, (address, _)| *address != lease.address);
            }
        }
        self.probes.extend(outcome.probes);
        for commit in outcome.commits {
            if let (LeaseChange::Put(lease), Some(client)) = (commit.change(), client) {
                assert_eq!(lease.mac, mac(client));
                self.asked.insert(commit.ticket, (client, self.now));
            }
            let address = commit.change().lease().address;
            assert!(self.in_flight.iter().all(|other| other.change().lease().address != address), "two at a time");
            self.in_flight.push(commit);
        }
        for (message, _) in outcome.sent {
            // Who waited for an address is answered when there is one.
            let waited = (1..=CLIENTS).find(|client| message.chaddr() == mac(*client).octets());
            let client = client.or(waited).expect("a reply has an asker");
            assert_eq!(Some(client), waited);
            let address = message.yiaddr();
            match message.opts().msg_type() {
                Some(MessageType::Nak) => drop(self.held.remove(&client)),
                Some(MessageType::Offer) => {
                    self.allowed(client, address);
                    self.offered.insert(client, address);
                }
                Some(MessageType::Ack) => {
                    self.allowed(client, address);
                    assert!(self.disk.get(&address).is_some_and(|lease| lease.mac == mac(client)), "ACK before disk");
                    let Some(DhcpOption::AddressLeaseTime(time)) = message.opts().get(OptionCode::AddressLeaseTime)
                    else {
                        panic!("an ACK without a lease time");
                    };
                    let end = self.now + u64::from(*time);
                    assert!(self.disk[&address].expires >= end, "longer than on disk");
                    self.held.insert(client, (address, end));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn allowed(&self, client: u8, address: Ipv4Addr) {
        let scope = self.engine.scope();
        assert!(scope.subnets[0].prefix.contains(&address) && address != SERVER);
        match scope.hosts.iter().find(|host| host.address == address || host.mac == mac(client)) {
            Some(host) => assert_eq!((host.address, host.mac), (address, mac(client))),
            None => assert!(scope.subnets[0].pools[0].contains(address.into())),
        }
    }

    /// No address has two clients that both believe to hold it.
    fn check(&self) {
        let mut holders: HashMap<Ipv4Addr, u8> = HashMap::new();
        for client in 1..=CLIENTS {
            if let Some((address, _)) = self.holding(client) {
                let other = holders.insert(address, client);
                assert_eq!(other, None, "client {client} also holds {address}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_two_clients_hold_one_address(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.act(step);
            world.check();
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), client in 1..=CLIENTS) {
        let mut engine = engine(version(1));
        let _ = engine.handle(&bytes, sender(client), NOW);
    }

    /// Deeper than arbitrary bytes reach: a sound head with arbitrary options.
    #[test]
    fn arbitrary_options_never_panic(
        flip in prop::collection::vec((0..240usize, any::<u8>()), 0..4),
        options in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)), 0..12),
        kind in 0..9u8,
        cut in 0..400usize,
    ) {
        let mut bytes = bytes(&discover(4));
        bytes.truncate(240);
        flip.iter().for_each(|(at, value)| bytes[*at] = *value);
        bytes.extend([53, 1, kind]);
        for (code, data) in &options {
            bytes.extend([*code, data.len() as u8]);
            bytes.extend(data);
        }
        bytes.truncate(bytes.len().saturating_sub(cut).max(240));
        let mut engine = engine(version(1));
        for output in engine.handle(&bytes, sender(4), NOW) {
            if let Output::Persist(commit) = output {
                let _ = engine.confirm(commit, NOW);
            }
        }
    }
}
