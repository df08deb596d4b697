//! A client's side of the wire, for tests, by another implementation's codec.

use super::{Commit, Datagram, Engine, Event, Host, Limits, Origin, Output, Scope, Sender, Subnet, UnixSeconds};
use crate::net::MacAddr;
use dhcproto::{
    Decodable, Decoder, Encodable, Encoder,
    v6::{DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IAPrefix, Message, MessageType, ORO, OptionCode, Status},
};
use std::{net::Ipv6Addr, time::Duration};
use uuid::Uuid;

pub(super) const NOW: UnixSeconds = 1_800_000_000;
pub(super) const LEASE_TIME: u32 = 3_600;
pub(super) const SERVER_ID: &[u8] = &[0, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

pub(super) fn ip(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, last)
}

pub(super) fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 0, last]).expect("unicast")
}

/// 2001:db8:7::/64 with the pool ::1000 to `pool_end`, four prefixes of fd00:9::/62, and the given reservations.
pub(super) fn scope(pool_end: u16, reserved: &[(u8, u16)]) -> Scope {
    let host = |(m, a): &(u8, u16)| Host {
        mac: mac(*m),
        address: ip(*a),
        host_name: Some(format!("guest{m}").parse().expect("a label")),
        port: Uuid::from_u128(u128::from(*m)),
    };
    Scope {
        network: Uuid::from_u128(1),
        interface: "vmf-test".parse().expect("a name"),
        server_id: SERVER_ID.to_vec(),
        subnets: vec![Subnet {
            id: Uuid::from_u128(2),
            prefix: "2001:db8:7::/64".parse().expect("a prefix"),
            on_link: true,
            stateful: true,
            pools: vec![format!("2001:db8:7::1000-2001:db8:7::{pool_end:x}").parse().expect("a range")],
            routers: vec![ip(1)],
            lease_time: Duration::from_secs(LEASE_TIME.into()),
            dynamic: true,
            delegation: Some(("fd00:9::/62".parse().expect("a prefix"), 64)),
            dns_servers: vec![ip(1)],
            domain: Some("lab.example".parse().expect("a name")),
            ntp_servers: vec![ip(9)],
        }],
        hosts: reserved.iter().map(host).collect(),
        relays: vec![ip(3)],
        rapid_commit: true,
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

pub(super) fn duid(client: u8) -> Vec<u8> {
    [&[0, 3, 0, 1][..], &mac(client).octets()].concat()
}

pub(super) fn na(iaid: u32, address: Option<Ipv6Addr>) -> DhcpOption {
    let mut opts = DhcpOptions::new();
    if let Some(addr) = address {
        opts.insert(DhcpOption::IAAddr(IAAddr { addr, preferred_life: 0, valid_life: 0, opts: DhcpOptions::new() }));
    }
    DhcpOption::IANA(IANA { id: iaid, t1: 0, t2: 0, opts })
}

pub(super) fn pd(iaid: u32, prefix: Option<&str>) -> DhcpOption {
    let mut opts = DhcpOptions::new();
    if let Some(prefix) = prefix {
        let net: crate::net::Ipv6Net = prefix.parse().expect("a prefix");
        opts.insert(DhcpOption::IAPrefix(IAPrefix {
            preferred_lifetime: 0,
            valid_lifetime: 0,
            prefix_len: net.prefix_len(),
            prefix_ip: net.addr(),
            opts: DhcpOptions::new(),
        }));
    }
    DhcpOption::IAPD(IAPD { id: iaid, t1: 0, t2: 0, opts })
}

/// A message from the client of that number.
pub(super) fn message(client: u8, kind: MessageType, options: &[DhcpOption]) -> Message {
    let mut message = Message::new_with_id(kind, [1, 2, 3]);
    let opts = message.opts_mut();
    opts.insert(DhcpOption::ClientId(duid(client)));
    let named = [MessageType::Request, MessageType::Renew, MessageType::Release, MessageType::Decline].contains(&kind);
    if named {
        opts.insert(DhcpOption::ServerId(SERVER_ID.to_vec()));
    }
    opts.insert(DhcpOption::ORO(ORO {
        opts: vec![OptionCode::DomainNameServers, OptionCode::DomainSearchList, OptionCode::NtpServer],
    }));
    options.iter().for_each(|option| opts.insert(option.clone()));
    message
}

pub(super) fn bytes(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).expect("fits");
    bytes
}

pub(super) fn sender(client: u8) -> Sender {
    let mac = mac(client);
    Sender { address: mac.link_local(), mac, origin: Origin::mac(mac), unicast: false }
}

/// An address or prefix with its valid lifetime, or why there is none.
pub(super) type Given = Result<(String, u32), Status>;

/// What a packet led to, the commits still to land.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) sent: Vec<(Message, Datagram)>,
    pub(super) commits: Vec<Commit>,
    pub(super) events: Vec<Event>,
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
            }
        }
    }

    pub(super) fn kind(&self) -> Option<MessageType> {
        assert!(self.sent.len() <= 1, "{self:?}");
        self.sent.first().map(|(message, _)| message.msg_type())
    }

    pub(super) fn options(&self) -> impl Iterator<Item = &DhcpOption> {
        self.sent.iter().flat_map(|(message, _)| message.opts().iter())
    }

    /// What each association was given with its valid lifetime, and the status of those that were refused.
    pub(super) fn given(&self) -> Vec<(u32, Given)> {
        let mut all = Vec::new();
        for option in self.options() {
            let (id, inner) = match option {
                DhcpOption::IANA(ia) => (ia.id, &ia.opts),
                DhcpOption::IAPD(ia) => (ia.id, &ia.opts),
                _ => continue,
            };
            for option in inner.iter() {
                match option {
                    DhcpOption::IAAddr(a) => all.push((id, Ok((a.addr.to_string(), a.valid_life)))),
                    DhcpOption::IAPrefix(p) => {
                        all.push((id, Ok((format!("{}/{}", p.prefix_ip, p.prefix_len), p.valid_lifetime))));
                    }
                    DhcpOption::StatusCode(status) => all.push((id, Err(status.status))),
                    _ => {}
                }
            }
        }
        all
    }

    /// The one address of the one association.
    pub(super) fn address(&self) -> Option<Ipv6Addr> {
        match self.given().as_slice() {
            [(_, Ok((address, 1..)))] => address.parse().ok(),
            _ => None,
        }
    }

    pub(super) fn status(&self) -> Option<Status> {
        self.options().find_map(|option| match option {
            DhcpOption::StatusCode(status) => Some(status.status),
            _ => None,
        })
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

/// SOLICIT to REPLY.
pub(super) fn acquire(engine: &mut Engine, client: u8, now: UnixSeconds) -> Option<Ipv6Addr> {
    let solicit = message(client, MessageType::Solicit, &[na(1, None)]);
    let offered = exchange(engine, client, &solicit, now).address()?;
    let request = message(client, MessageType::Request, &[na(1, Some(offered))]);
    let outcome = exchange(engine, client, &request, now);
    assert_eq!(outcome.kind(), Some(MessageType::Reply));
    outcome.address()
}
