//! The DHCPv4 engine under arbitrary packets, times, disks and changes of its scope.
//!
//! The input is a sequence of steps, each a byte and its arguments; `fuzz/seeds-from-pcap` writes real packets so.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};
use uuid::Uuid;
use vmfabric::{
    net::MacAddr,
    protocol::dhcpv4::{
        ClientKey, Commit, Datagram, Destination, Engine, Event, Host, Lease, LeaseChange, Limits, Origin, Output,
        Scope, Sender, Subnet, UnixSeconds,
    },
};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const LIMITS: Limits = Limits { dynamic: 64, offers: 4, quarantine: 2 };

fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 1, last]).expect("unicast")
}

fn scope(version: u8) -> Scope {
    let subnet = |id: u128, block: &str, pool: &str, on_link: bool| Subnet {
        id: Uuid::from_u128(id),
        prefix: block.parse().expect("a block"),
        on_link,
        router: Some(SERVER),
        dns_servers: vec![SERVER],
        domain: Some("lab.example".parse().expect("a name")),
        mtu: Some(1_400),
        host_routes: vec![("172.16.0.0/12".parse().expect("a block"), SERVER)],
        pools: vec![pool.parse().expect("a range")],
        lease_time: Duration::from_secs(if version & 4 == 0 { 3_600 } else { u64::from(u32::MAX) }),
        dynamic: true,
        options: [
            "ntp-servers=10.77.0.9",
            "43:hex@MSFT=0102",
            "224:text=a-long-text-that-takes-some-room-in-the-reply",
        ]
        .map(|text| text.parse().expect("an option"))
        .to_vec(),
        boot: ["server=10.77.0.9", "bios=a", "ipxe=http://b", "http=http://c"]
            .map(|text| text.parse().expect("a rule"))
            .to_vec(),
    };
    let host = |number: u8, last: u8| Host {
        mac: mac(number),
        client: ClientKey::new(&[0, number]),
        address: Ipv4Addr::new(10, 77, 0, last),
        host_name: Some(format!("guest{number}").parse().expect("a label")),
        port: Uuid::from_u128(u128::from(number)),
        options: vec!["226:u8=7".parse().expect("an option")],
        boot: Vec::new(),
    };
    Scope {
        network: Uuid::from_u128(1),
        interface: "fuzz".parse().expect("a name"),
        server_address: SERVER,
        other_addresses: Vec::new(),
        subnets: vec![
            subnet(
                2,
                "10.77.0.0/24",
                if version & 1 == 0 { "10.77.0.100-10.77.0.107" } else { "10.77.0.102-10.77.0.120" },
                true,
            ),
            subnet(3, "10.77.1.0/24", "10.77.1.10-10.77.1.13", false),
        ],
        hosts: if version & 2 == 0 { vec![host(7, 50)] } else { vec![host(1, 103), host(7, 51)] },
        relays: vec![RELAY],
        rapid_commit: true,
        probe: version & 8 == 0,
        leases_per_port: u32::from(version >> 6),
        packets_per_port: 0,
    }
}

struct World {
    engine: Engine,
    now: UnixSeconds,
    version: u8,
    disk: HashMap<Ipv4Addr, Lease>,
    in_flight: Vec<Commit>,
    probes: Vec<Ipv4Addr>,
    /// Who believes to hold an address, and until when.
    held: HashMap<Ipv4Addr, (ClientKey, MacAddr, UnixSeconds)>,
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
    let (mut engine, outputs) = Engine::with_limits(scope(0), Vec::new(), 1_000_000, LIMITS);
    let _ = engine.tick(1_000_000);
    let none = HashMap::new();
    let mut world = World {
        engine,
        now: 1_000_000,
        version: 0,
        disk: none,
        in_flight: Vec::new(),
        probes: Vec::new(),
        held: HashMap::new(),
    };
    world.take(outputs);
    for _ in 0..512 {
        if world.step(&mut input).is_none() {
            return;
        }
        world.check();
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
                self.packet(sender, packet);
            }
            6 => {
                self.now += u64::from(input.byte()?);
                self.tick();
            }
            7 => {
                self.now += u64::from(input.byte()?) * 60;
                self.tick();
            }
            8..=10 => self.land(usize::from(input.byte()?), true),
            11 => self.land(usize::from(input.byte()?), false),
            12 | 13 => {
                let (which, verdict) = (usize::from(input.byte()?), input.byte()?);
                if !self.probes.is_empty() {
                    let address = self.probes.swap_remove(which % self.probes.len());
                    let outputs = self.engine.probed(address, (verdict < 32).then(|| mac(200)), self.now);
                    self.take(outputs);
                }
            }
            14 => {
                self.version = input.byte()?;
                let outputs = self.engine.update(scope(self.version), self.now);
                self.take(outputs);
            }
            _ => {
                // The daemon is killed: what was on its way to the disk did not reach it.
                self.in_flight.clear();
                self.probes.clear();
                let leases = self.disk.values().cloned().collect();
                let (engine, outputs) = Engine::with_limits(scope(self.version), leases, self.now, LIMITS);
                self.engine = engine;
                self.take(outputs);
            }
        }
        Some(())
    }

    /// From the MAC address that the packet names, mostly: others are refused by its first line.
    fn packet(&mut self, sender: u8, packet: &[u8]) {
        let named = packet.get(28..34).and_then(|mac| MacAddr::new(mac.try_into().ok()?).ok());
        let mac = named.filter(|_| sender < 224).unwrap_or_else(|| mac(sender));
        let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let from = Sender { source, mac, origin: Origin::interface(u32::from(sender) % 4) };
        let outputs = self.engine.handle(packet, from, self.now);
        self.take(outputs);
    }

    fn tick(&mut self) {
        let outputs = self.engine.tick(self.now);
        self.take(outputs);
    }

    fn land(&mut self, which: usize, stored: bool) {
        if self.in_flight.is_empty() {
            return;
        }
        let commit = self.in_flight.swap_remove(which % self.in_flight.len());
        let outputs = if stored {
            match commit.change().clone() {
                LeaseChange::Put(lease) => drop(self.disk.insert(lease.address, lease)),
                LeaseChange::Remove(lease) => drop(self.disk.remove(&lease.address)),
            }
            self.engine.confirm(commit, self.now)
        } else {
            self.engine.abandon(commit, self.now)
        };
        self.take(outputs);
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send(datagram) => self.sent(&datagram),
                Output::Persist(commit) => {
                    let address = commit.change().lease().address;
                    assert!(
                        self.in_flight.iter().all(|other| other.change().lease().address != address),
                        "two at a time"
                    );
                    self.in_flight.push(commit);
                }
                Output::Probe(address) => self.probes.push(address),
                Output::Report(
                    Event::LeaseDropped(lease) | Event::LeaseReleased(lease) | Event::AddressDeclined(lease),
                ) => drop(self.held.remove(&lease.address)),
                Output::Report(_) => {}
            }
        }
    }

    fn sent(&mut self, Datagram { payload, destination }: &Datagram) {
        assert!((300..=1472).contains(&payload.len()), "{} bytes", payload.len());
        assert_eq!((payload[0], &payload[236..240]), (2, &[99, 130, 83, 99][..]));
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&payload[at..at + 4]).expect("four bytes"));
        let (ciaddr, yiaddr, giaddr) = (address(12), address(16), address(24));
        let options = options(&payload[240..]);
        let kind = options[&53][0];
        assert_eq!(options[&54], SERVER.octets());
        match destination {
            Destination::Relay { address, .. } => assert_eq!((*address, giaddr), (RELAY, RELAY)),
            _ => assert!(giaddr.is_unspecified()),
        }
        if kind != 2 && kind != 5 {
            return;
        }
        let subnets = scope(self.version).subnets;
        // Renewals pass by the relay agent.
        let renewed = ciaddr == yiaddr && subnets[1].prefix.contains(&yiaddr);
        let prefix = subnets[usize::from(renewed || !giaddr.is_unspecified())].prefix;
        if yiaddr.is_unspecified() {
            // Configuration alone, for who has an address already.
            assert!(kind == 5 && prefix.contains(&ciaddr) || !giaddr.is_unspecified(), "INFORM from elsewhere");
            return;
        }
        assert!(prefix.contains(&yiaddr) && yiaddr != SERVER, "{yiaddr} is not of {prefix}");
        if kind != 5 {
            return;
        }
        let lease = self.disk.get(&yiaddr).unwrap_or_else(|| panic!("{yiaddr}: ACK before the disk has it"));
        let seconds = u32::from_be_bytes(options[&51][..].try_into().expect("four bytes"));
        let end = if seconds == u32::MAX { u64::MAX } else { self.now + u64::from(seconds) };
        if let Some((client, mac, until)) = self.held.get(&yiaddr)
            && *until > self.now
        {
            let same = *client == lease.client || *mac == lease.mac || lease.port.is_some();
            assert!(same, "{yiaddr} is held by {client} and given to {}", lease.client);
        }
        self.held.insert(yiaddr, (lease.client.clone(), lease.mac, end));
    }

    fn check(&self) {
        assert!(self.engine.bindings() <= LIMITS.dynamic + 2, "{} bindings", self.engine.bindings());
        assert!(self.in_flight.len() <= self.engine.bindings() + 1 && self.probes.len() < 4_096);
        assert!(self.engine.next_deadline().is_none_or(|at| at > 0));
    }
}

/// The options field, up to its end.
fn options(mut bytes: &[u8]) -> HashMap<u8, Vec<u8>> {
    let mut options: HashMap<u8, Vec<u8>> = HashMap::new();
    loop {
        match bytes {
            [0, rest @ ..] => bytes = rest,
            [255, ..] => return options,
            [code, length, rest @ ..] => {
                let (data, rest) = rest.split_at(usize::from(*length));
                options.entry(*code).or_default().extend(data);
                bytes = rest;
            }
            _ => panic!("options without an end"),
        }
    }
}
