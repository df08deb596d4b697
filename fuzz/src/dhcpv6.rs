//! The DHCPv6 engine and the advertiser under arbitrary packets, times, disks and changes of their scope.
//!
//! The input is a sequence of steps, each a byte and its arguments; `fuzz/seeds-from-pcap` writes real packets so.

use std::{collections::HashMap, net::Ipv6Addr, time::Duration};
use uuid::Uuid;
use vmfabric::{
    net::{Ipv6Net, MacAddr},
    protocol::{
        dhcpv6::{
            Commit, Datagram, Engine, Host, Lease, LeaseChange, Limits, Origin, Output, Scope, Sender, Subnet,
            UnixSeconds,
        },
        ra::{self, Solicitation},
    },
};

const LINK: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 3);
const LIMITS: Limits = Limits { dynamic: 64, offers: 4, quarantine: 2 };

fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 1, last]).expect("unicast")
}

fn scope(version: u8) -> Scope {
    let subnet = |id: u128, block: &str, pool: &str, delegated: Option<&str>, on_link: bool| Subnet {
        id: Uuid::from_u128(id),
        prefix: block.parse().expect("a block"),
        on_link,
        stateful: version & 8 == 0,
        pools: vec![pool.parse().expect("a range")],
        routers: vec![Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)],
        lease_time: Duration::from_secs(if version & 4 == 0 { 3_600 } else { u64::from(u32::MAX) }),
        dynamic: true,
        delegation: delegated.map(|block| (block.parse().expect("a block"), 64)),
        dns_servers: vec![Ipv6Addr::LOCALHOST],
        domain: Some("lab.example".parse().expect("a name")),
        ntp_servers: vec![Ipv6Addr::LOCALHOST],
    };
    let host = |number: u8, last: u16| Host {
        mac: mac(number),
        address: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last),
        host_name: Some(format!("guest{number}").parse().expect("a label")),
        port: Uuid::from_u128(u128::from(number)),
    };
    let pool = if version & 1 == 0 { "fd77::100-fd77::107" } else { "fd77::102-fd77::120" };
    Scope {
        network: Uuid::from_u128(1),
        interface: "fuzz".parse().expect("a name"),
        server_id: [&[0, 4][..], &[7; 16]].concat(),
        subnets: vec![
            subnet(2, "fd77::/64", pool, Some("fd78::/62"), true),
            subnet(3, "fd77:1::/64", "fd77:1::10-fd77:1::13", None, false),
        ],
        hosts: if version & 2 == 0 { vec![host(7, 0x50)] } else { vec![host(1, 0x103), host(7, 0x51)] },
        relays: vec![LINK, Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 1)],
        rapid_commit: version & 16 == 0,
        leases_per_port: u32::from(version >> 6),
        packets_per_port: 0,
    }
}

fn router() -> ra::Router {
    ra::Router {
        mac: mac(1),
        default_router: true,
        managed: true,
        other: true,
        mtu: None,
        prefixes: Vec::new(),
        routes: Vec::new(),
        dns_servers: Vec::new(),
        search: Vec::new(),
    }
}

struct World {
    engine: Engine,
    advertiser: ra::Engine,
    now: UnixSeconds,
    version: u8,
    disk: HashMap<Ipv6Net, Lease>,
    in_flight: Vec<Commit>,
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (first, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        first
    }
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let now = 1_000_000;
    let (engine, outputs) = Engine::with_limits(scope(0), Vec::new(), now, LIMITS);
    let advertiser = ra::Engine::new(router(), now * 1_000);
    let (disk, in_flight) = Default::default();
    let mut world = World { engine, advertiser, now, version: 0, disk, in_flight };
    world.take(outputs);
    for _ in 0..512 {
        if world.step(&mut input).is_none() {
            return;
        }
        assert!(world.engine.bindings() <= 64 + 2 + 64, "a table without a limit");
    }
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.byte()? % 16 {
            // A packet: its sender, its length, itself.
            0..=5 => {
                let sender = input.byte()?;
                let length = usize::from(u16::from_be_bytes([input.byte()?, input.byte()?]));
                let packet = input.bytes(length);
                let mac = mac(sender & 15);
                let address = if sender & 32 == 0 { mac.link_local() } else { LINK };
                let from = Sender { address, mac, origin: Origin::mac(mac), unicast: sender & 64 != 0 };
                let outputs = self.engine.handle(packet, from, self.now);
                self.take(outputs);
                let hop_limit = if sender & 128 == 0 { 255 } else { 64 };
                if let Some(solicitation) = Solicitation::parse(packet, address, hop_limit) {
                    self.advertiser.solicited(solicitation, mac, self.now * 1_000, u64::from(sender));
                }
            }
            // The oldest or newest commit lands, or fails.
            kind @ 6..=9 if !self.in_flight.is_empty() => {
                let at = if kind % 2 == 0 { 0 } else { self.in_flight.len() - 1 };
                let commit = self.in_flight.remove(at);
                let outputs = if kind == 9 {
                    self.engine.abandon(commit, self.now)
                } else {
                    for change in commit.changes() {
                        match change {
                            LeaseChange::Put(lease) => drop(self.disk.insert(lease.prefix, lease.clone())),
                            LeaseChange::Remove(lease) => drop(self.disk.remove(&lease.prefix)),
                        }
                    }
                    self.engine.confirm(commit, self.now)
                };
                self.take(outputs);
            }
            10 | 11 => {
                self.now += u64::from(input.byte()?) * 16;
                let outputs = self.engine.tick(self.now);
                self.take(outputs);
                for output in self.advertiser.tick(self.now * 1_000, self.now) {
                    assert_eq!(output.message[0], 134);
                }
            }
            12 => {
                self.version = input.byte()?;
                let outputs = self.engine.update(scope(self.version), self.now);
                self.take(outputs);
            }
            13 => {
                self.in_flight.clear();
                let leases = self.disk.values().cloned().collect();
                let (engine, outputs) = Engine::with_limits(scope(self.version), leases, self.now, LIMITS);
                self.engine = engine;
                self.take(outputs);
            }
            _ => {}
        }
        Some(())
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send(datagram) => check(&datagram),
                Output::Persist(commit) => {
                    for change in commit.changes() {
                        let of = |commit: &Commit| {
                            commit.changes().iter().any(|c| c.lease().prefix == change.lease().prefix)
                        };
                        assert!(!self.in_flight.iter().any(of), "two changes of one address in flight");
                        let address = change.lease().address();
                        let ours = scope(0).subnets.iter().any(|subnet| {
                            subnet.prefix.contains(&address)
                                || subnet.delegation.is_some_and(|(block, _)| block.contains(&address))
                        });
                        assert!(ours, "a lease of a subnet that is not its own: {address}");
                    }
                    self.in_flight.push(commit);
                }
                Output::Report(_) => {}
            }
        }
    }
}

/// What is sent is a sound message of a server, its options whole.
fn check(datagram: &Datagram) {
    let mut bytes = datagram.payload.as_slice();
    let mut depth = 0;
    while bytes[0] == 13 {
        let inner = options(&bytes[34..]).find(|(code, _)| *code == 9).expect("a relayed message").1;
        bytes = inner;
        depth += 1;
    }
    assert_eq!(depth > 0, datagram.relay);
    assert!(matches!(bytes[0], 2 | 7), "type {}", bytes[0]);
    assert!(options(&bytes[4..]).any(|(code, _)| code == 2), "it names no server");
}

fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at(usize::from(u16::from_be_bytes([head[2], head[3]])));
        bytes = rest;
        Some((u16::from_be_bytes([head[0], head[1]]), value))
    })
}
