//! A client's side of the wire, for tests.

use super::{
    ClientKey, Commit, Datagram, Engine, Event, Host, Lease, Limits, Origin, Output, Scope, Sender, Subnet, UnixSeconds,
};
use crate::net::MacAddr;
use dhcproto::{
    Decodable, Decoder, Encodable, Encoder,
    v4::{DhcpOption, Flags, Message, MessageType, OptionCode},
};
use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};
use uuid::Uuid;

pub(super) const NOW: UnixSeconds = 1_800_000_000;
pub(super) const LEASE_TIME: u32 = 3_600;
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Another address of the same server.
pub(super) const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

pub(super) fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

pub(super) fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 0, last]).expect("unicast")
}

/// 10.0.0.0/24 with the pool 10.0.0.100 to `pool_end`, and the given reservations.
pub(super) fn scope(pool_end: u8, reserved: &[(u8, u8)]) -> Scope {
    let host = |(m, a): &(u8, u8)| Host {
        mac: mac(*m),
        address: ip(*a),
        client: None,
        host_name: Some(format!("guest{m}").parse().expect("a label")),
        port: Uuid::from_u128(u128::from(*m)),
        options: Vec::new(),
        boot: Vec::new(),
    };
    Scope {
        network: Uuid::from_u128(1),
        interface: "vmf-test".parse().expect("a name"),
        server_address: SERVER,
        other_addresses: vec![OTHER_SERVER],
        subnets: vec![Subnet {
            id: Uuid::from_u128(2),
            prefix: "10.0.0.0/24".parse().expect("a prefix"),
            on_link: true,
            router: Some(SERVER),
            dns_servers: vec![SERVER],
            domain: Some("lab.example".parse().expect("a name")),
            mtu: Some(1_450),
            host_routes: vec![("172.16.0.0/12".parse().expect("a prefix"), ip(2))],
            pools: vec![format!("10.0.0.100-10.0.0.{pool_end}").parse().expect("a range")],
            lease_time: Duration::from_secs(LEASE_TIME.into()),
            dynamic: true,
            options: Vec::new(),
            boot: Vec::new(),
        }],
        hosts: reserved.iter().map(host).collect(),
        relays: vec![ip(3)],
        rapid_commit: true,
        probe: false,
        leases_per_port: 0,
        packets_per_port: 0,
    }
}

pub(super) fn engine(scope: Scope) -> Engine {
    let (engine, outputs) = Engine::new(scope, Vec::new(), NOW);
    assert!(outputs.is_empty());
    engine
}

pub(super) fn small(scope: Scope) -> Engine {
    Engine::with_limits(scope, Vec::new(), NOW, Limits { dynamic: 64, offers: 4, quarantine: 2 }).0
}

pub(super) fn lease(address: u8, client: u8, expires: UnixSeconds) -> Lease {
    let (network, mac) = (Uuid::from_u128(1), mac(client));
    Lease { network, address: ip(address), client: ClientKey::hardware(mac), mac, host_name: None, port: None, expires }
}

/// A message from the MAC that ends in `client`.
pub(super) fn message(client: u8, kind: MessageType, options: &[DhcpOption]) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(0x1234_5678, none, none, none, none, &mac(client).octets());
    message.set_flags(Flags::default());
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    for option in options {
        message.opts_mut().insert(option.clone());
    }
    message
}

pub(super) fn discover(client: u8) -> Message {
    message(client, MessageType::Discover, &[])
}

pub(super) fn select(client: u8, address: Ipv4Addr) -> Message {
    let options = [DhcpOption::RequestedIpAddress(address), DhcpOption::ServerIdentifier(SERVER)];
    message(client, MessageType::Request, &options)
}

pub(super) fn init_reboot(client: u8, address: Ipv4Addr) -> Message {
    message(client, MessageType::Request, &[DhcpOption::RequestedIpAddress(address)])
}

pub(super) fn renew(client: u8, address: Ipv4Addr) -> Message {
    let mut renew = message(client, MessageType::Request, &[]);
    renew.set_ciaddr(address);
    renew
}

pub(super) fn release(client: u8, address: Ipv4Addr) -> Message {
    let mut release = message(client, MessageType::Release, &[DhcpOption::ServerIdentifier(SERVER)]);
    release.set_ciaddr(address);
    release
}

pub(super) fn decline(client: u8, address: Ipv4Addr) -> Message {
    let options = [DhcpOption::RequestedIpAddress(address), DhcpOption::ServerIdentifier(SERVER)];
    message(client, MessageType::Decline, &options)
}

pub(super) fn bytes(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).expect("fits");
    bytes
}

pub(super) fn sender(client: u8) -> Sender {
    Sender { source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68), mac: mac(client), origin: Origin::mac(mac(client)) }
}

/// What a packet led to, the commits still to land.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) sent: Vec<(Message, Datagram)>,
    pub(super) commits: Vec<Commit>,
    pub(super) events: Vec<Event>,
    pub(super) probes: Vec<Ipv4Addr>,
}

impl Outcome {
    pub(super) fn add(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send(datagram) => {
                    let message = Message::decode(&mut Decoder::new(&datagram.payload)).expect("a sound reply");
                    self.sent.push((message, datagram));
                }
                Output::Persist(commit) => self.commits.push(commit),
                Output::Report(event) => self.events.push(event),
                Output::Probe(address) => self.probes.push(address),
            }
        }
    }

    /// The one reply, if there is one.
    pub(super) fn reply(&self) -> Option<(MessageType, Ipv4Addr)> {
        assert!(self.sent.len() <= 1, "{self:?}");
        self.sent.first().map(|(m, _)| (m.opts().msg_type().expect("a type"), m.yiaddr()))
    }

    pub(super) fn option(&self, code: OptionCode) -> Option<DhcpOption> {
        self.sent.first()?.0.opts().get(code).cloned()
    }
}

pub(super) fn submit(engine: &mut Engine, client: u8, message: &Message, now: UnixSeconds) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.add(engine.handle(&bytes(message), sender(client), now));
    outcome
}

/// As [`submit`], with a disk that stores at once.
pub(super) fn exchange(engine: &mut Engine, client: u8, message: &Message, now: UnixSeconds) -> Outcome {
    let mut outcome = submit(engine, client, message, now);
    while let Some(commit) = outcome.commits.pop() {
        outcome.add(engine.confirm(commit, now));
    }
    outcome
}

/// DISCOVER to ACK.
pub(super) fn acquire(engine: &mut Engine, client: u8, now: UnixSeconds) -> Option<Ipv4Addr> {
    let (kind, address) = exchange(engine, client, &discover(client), now).reply()?;
    assert_eq!(kind, MessageType::Offer);
    let (kind, granted) = exchange(engine, client, &select(client, address), now).reply()?;
    (kind == MessageType::Ack).then_some(granted)
}
