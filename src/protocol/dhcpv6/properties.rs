//! Clients in any order, with packets that are lost, repeated and late, and a disk that fails: what always holds.

use super::{testing::*, *};
use crate::protocol::lease::GRACE;
use dhcproto::v6::{DhcpOption, MessageType};
use proptest::prelude::*;
use std::{collections::BTreeMap, net::Ipv6Addr};

#[derive(Debug, Clone)]
enum Step {
    Send {
        client: u8,
        kind: u8,
        guess: u16,
        rapid: bool,
        prefix: bool,
    },
    /// The oldest commit lands, or fails.
    Land {
        well: bool,
    },
    Wait(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..6u8, 0..7u8, 0x0ff0..0x1008u16, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(client, kind, guess, rapid, prefix)| Step::Send { client, kind, guess, rapid, prefix }),
        6 => prop::bool::weighted(0.9).prop_map(|well| Step::Land { well }),
        2 => (0..2_500u64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// What clients believe, and what the disk has.
struct World {
    engine: Engine,
    now: UnixSeconds,
    in_flight: std::collections::VecDeque<Commit>,
    disk: BTreeMap<crate::net::Ipv6Net, Lease>,
    /// What each client was told that it has, and until when.
    held: BTreeMap<(u8, String), UnixSeconds>,
}

const RESERVED: &[(u8, u16)] = &[(0, 0x1001), (1, 0x50)];

impl World {
    fn new() -> Self {
        let (in_flight, disk, held) = Default::default();
        Self { engine: engine(scope(0x1004, RESERVED)), now: NOW, in_flight, disk, held }
    }

    fn address_of(&self, client: u8) -> Option<Ipv6Addr> {
        let mut own = self.held.iter().filter(|((of, _), until)| *of == client && **until > self.now);
        own.find_map(|((_, text), _)| text.parse().ok())
    }

    fn take(&mut self, outputs: Vec<Output>) -> Result<(), TestCaseError> {
        for output in outputs {
            match output {
                Output::Persist(commit) => self.in_flight.push_back(commit),
                Output::Report(_) => {}
                Output::Send(datagram) => self.hear(&datagram)?,
            }
        }
        Ok(())
    }

    /// A client hears a reply; what it says is true at that moment.
    fn hear(&mut self, datagram: &Datagram) -> Result<(), TestCaseError> {
        let client = datagram.mac.octets()[5];
        let mut outcome = Outcome::default();
        outcome.add(vec![Output::Send(datagram.clone())]);
        if outcome.kind() != Some(MessageType::Reply) {
            return Ok(());
        }
        for (_, given) in outcome.given() {
            let Ok((text, valid)) = given else { continue };
            if valid == 0 {
                self.held.remove(&(client, text));
                continue;
            }
            let net = text.parse().or_else(|_| text.parse::<Ipv6Addr>().map(crate::net::Ipv6Net::from));
            let net = net.expect("an address or a prefix");
            let others = self.held.iter().find(|((of, t), until)| *of != client && *t == text && **until > self.now);
            prop_assert!(others.is_none(), "{text} for {client} and {others:?}");
            let stored = self.disk.get(&net);
            prop_assert!(
                // Clients count from when they hear it, and the server waits for those that heard it late.
                stored.is_some_and(|lease| {
                    lease.mac == mac(client) && lease.expires + GRACE >= self.now + u64::from(valid)
                }),
                "{text} for {client}: {stored:?}"
            );
            for (of, address) in RESERVED {
                prop_assert_eq!(text == ip(*address).to_string(), *of == client && net.prefix_len() == 128);
            }
            self.held.insert((client, text), self.now + u64::from(valid));
        }
        Ok(())
    }

    fn send(&mut self, client: u8, kind: u8, guess: u16, rapid: bool, prefix: bool) -> Result<(), TestCaseError> {
        use MessageType::{Confirm, Decline, Rebind, Release, Renew, Request, Solicit};
        let kind = [Solicit, Request, Renew, Rebind, Release, Decline, Confirm][usize::from(kind)];
        let own = self.address_of(client);
        let address = own.filter(|_| !guess.is_multiple_of(4)).unwrap_or_else(|| ip(guess));
        let mut options = vec![na(1, (!guess.is_multiple_of(3)).then_some(address))];
        options.extend(prefix.then(|| pd(1, None)));
        options.extend(rapid.then_some(DhcpOption::RapidCommit));
        if matches!(kind, Release | Decline) {
            // The client lets go before it says so.
            self.held.remove(&(client, address.to_string()));
        }
        let packet = bytes(&message(client, kind, &options));
        let outputs = self.engine.handle(&packet, sender(client), self.now);
        self.take(outputs)
    }

    fn land(&mut self, well: bool) -> Result<(), TestCaseError> {
        let Some(commit) = self.in_flight.pop_front() else { return Ok(()) };
        if !well {
            let outputs = self.engine.abandon(commit, self.now);
            return self.take(outputs);
        }
        for change in commit.changes() {
            match change {
                LeaseChange::Put(lease) => drop(self.disk.insert(lease.prefix, lease.clone())),
                LeaseChange::Remove(lease) => drop(self.disk.remove(&lease.prefix)),
            }
        }
        let outputs = self.engine.confirm(commit, self.now);
        self.take(outputs)
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Send { client, kind, guess, rapid, prefix } => self.send(client, kind, guess, rapid, prefix),
            Step::Land { well } => self.land(well),
            Step::Wait(seconds) => {
                self.now += seconds;
                let outputs = self.engine.tick(self.now);
                self.take(outputs)
            }
            Step::Restart => {
                self.in_flight.clear();
                let stored = self.disk.values().cloned().collect();
                let (engine, outputs) = Engine::new(scope(0x1004, RESERVED), stored, self.now);
                self.engine = engine;
                self.take(outputs)
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn two_clients_never_hold_one_address(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step)?;
        }
    }

    #[test]
    fn a_renewing_client_keeps_its_address(steps in prop::collection::vec(step(), 0..80), late in any::<bool>()) {
        let mut world = World::new();
        // Another one than those of the steps, in time each time.
        let Some(address) = acquire(&mut world.engine, 9, world.now) else { return Ok(()) };
        let mut renewed = world.now;
        for step in steps {
            if matches!(step, Step::Restart) {
                // Its lease is not on this world's disk.
                continue;
            }
            world.step(step)?;
            if world.now.saturating_sub(renewed) >= 1_000 && world.now < renewed + 3_600 {
                let kind = if late { MessageType::Rebind } else { MessageType::Renew };
                let renew = message(9, kind, &[na(1, Some(address))]);
                let outcome = exchange(&mut world.engine, 9, &renew, world.now);
                prop_assert_eq!(outcome.address(), Some(address));
                renewed = world.now;
            } else if world.now >= renewed + 3_600 {
                return Ok(());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20)) {
        let mut engine = small(scope(0x1004, RESERVED));
        for mut packet in packets {
            if let Some(first) = packet.first_mut() {
                *first %= 14;
            }
            let _ = engine.handle(&packet, sender(1), NOW);
        }
    }
}
