//! Messages of clients and relay agents, read by hand: what a relay agent sent must go back to it byte by byte.

use crate::net::{DnsLabel, Ipv6Net, MacAddr};
use dhcproto::v6::MessageType;
use std::net::Ipv6Addr;

/// Option codes (RFC 8415 section 21; 3646, 4704, 5908, 6939).
pub(super) mod code {
    pub(crate) const CLIENT_ID: u16 = 1;
    pub(crate) const SERVER_ID: u16 = 2;
    pub(crate) const IA_NA: u16 = 3;
    pub(crate) const IA_TA: u16 = 4;
    pub(crate) const IA_ADDR: u16 = 5;
    pub(crate) const ORO: u16 = 6;
    pub(crate) const PREFERENCE: u16 = 7;
    pub(crate) const RELAY_MSG: u16 = 9;
    pub(crate) const STATUS: u16 = 13;
    pub(crate) const RAPID_COMMIT: u16 = 14;
    pub(crate) const INTERFACE_ID: u16 = 18;
    pub(crate) const DNS_SERVERS: u16 = 23;
    pub(crate) const DOMAIN_LIST: u16 = 24;
    pub(crate) const IA_PD: u16 = 25;
    pub(crate) const IA_PREFIX: u16 = 26;
    pub(crate) const SNTP_SERVERS: u16 = 31;
    pub(crate) const REFRESH_TIME: u16 = 32;
    pub(crate) const FQDN: u16 = 39;
    pub(crate) const NTP_SERVER: u16 = 56;
    pub(crate) const LINK_LAYER: u16 = 79;
}

/// Not a message that a client or relay agent sends to a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// HOP_COUNT_LIMIT (RFC 8415 section 7.6).
const MAX_HOPS: usize = 8;
/// Identity associations of one message, and addresses in one, that are looked at.
const MAX_IAS: usize = 8;
const MAX_HINTS: usize = 8;
/// A DUID (RFC 8415 section 11.1), with its type.
const DUID_LENGTH: std::ops::RangeInclusive<usize> = 3..=130;

/// Whether an identity association is of addresses or of prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IaKind {
    Address,
    Prefix,
}

/// What one relay agent put around a message, to be put around the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) count: u8,
    pub(super) link: Ipv6Addr,
    pub(super) peer: Ipv6Addr,
    pub(super) interface_id: Option<Vec<u8>>,
}

/// A client's message with the way it came.
#[derive(Debug)]
pub(super) struct Packet {
    /// The one next to this server first.
    pub(super) hops: Vec<Hop>,
    /// The client's address as the relay agent next to it saw it (RFC 6939).
    pub(super) relayed_mac: Option<MacAddr>,
    pub(super) request: Request,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) kind: MessageType,
    pub(super) xid: [u8; 3],
    pub(super) client: Option<Vec<u8>>,
    pub(super) server: Option<Vec<u8>>,
    pub(super) ias: Vec<Ia>,
    /// Temporary addresses are not given.
    pub(super) temporary: Vec<u32>,
    /// What it asked to be told (option 6).
    pub(super) wants: Vec<u16>,
    pub(super) rapid_commit: bool,
    pub(super) fqdn: Option<Fqdn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ia {
    pub(super) kind: IaKind,
    pub(super) iaid: u32,
    /// Addresses (of length 128) or prefixes that it names.
    pub(super) named: Vec<Ipv6Net>,
}

/// Option 39 (RFC 4704).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fqdn {
    pub(super) flags: u8,
    pub(super) label: Option<DnsLabel>,
}

impl Fqdn {
    /// The server is to update AAAA records.
    pub(super) const S: u8 = 1;
    /// The server overrode the client's wish.
    pub(super) const O: u8 = 2;
    /// The server is to update nothing.
    pub(super) const N: u8 = 4;
}

impl Packet {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut rest, mut hops, mut relayed_mac) = (bytes, Vec::new(), None);
        while rest.first() == Some(&u8::from(MessageType::RelayForw)) {
            if hops.len() == MAX_HOPS {
                return Err(Malformed);
            }
            let (hop, mac, inner) = relay_forward(rest)?;
            hops.push(hop);
            // The innermost counts: it is next to the client.
            relayed_mac = mac;
            rest = inner;
        }
        Ok(Self { hops, relayed_mac, request: Request::parse(rest)? })
    }
}

fn relay_forward(bytes: &[u8]) -> Result<(Hop, Option<MacAddr>, &[u8]), Malformed> {
    let (head, body) = bytes.split_first_chunk::<34>().ok_or(Malformed)?;
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&head[at..at + 16]).unwrap_or_default());
    let mut hop = Hop { count: head[1], link: address(2), peer: address(18), interface_id: None };
    let (mut inner, mut mac) = (None, None);
    for option in options(body) {
        match option? {
            (code::RELAY_MSG, value) => inner = Some(value),
            (code::INTERFACE_ID, value) => hop.interface_id = Some(value.to_vec()),
            // Hardware type Ethernet.
            (code::LINK_LAYER, [0, 1, address @ ..]) => {
                mac = <[u8; 6]>::try_from(address).ok().and_then(|octets| MacAddr::new(octets).ok());
            }
            _ => {}
        }
    }
    Ok((hop, mac, inner.ok_or(Malformed)?))
}

impl Request {
    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let ([kind, xid @ ..], body) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
        let mut request = Self {
            kind: MessageType::from(*kind),
            xid: *xid,
            client: None,
            server: None,
            ias: Vec::new(),
            temporary: Vec::new(),
            wants: Vec::new(),
            rapid_commit: false,
            fqdn: None,
        };
        for option in options(body) {
            let (code, value) = option?;
            match code {
                code::CLIENT_ID if DUID_LENGTH.contains(&value.len()) => request.client = Some(value.to_vec()),
                code::CLIENT_ID => return Err(Malformed),
                code::SERVER_ID => request.server = Some(value.to_vec()),
                code::IA_NA => request.add(IaKind::Address, value)?,
                code::IA_PD => request.add(IaKind::Prefix, value)?,
                code::IA_TA if request.temporary.len() < MAX_IAS => {
                    request.temporary.push(u32::from_be_bytes(*value.first_chunk().ok_or(Malformed)?));
                }
                code::ORO => {
                    let codes = value.chunks_exact(2).take(64).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                    request.wants = codes.collect();
                }
                code::RAPID_COMMIT => request.rapid_commit = true,
                code::FQDN => request.fqdn = fqdn(value),
                _ => {}
            }
        }
        Ok(request)
    }

    fn add(&mut self, kind: IaKind, value: &[u8]) -> Result<(), Malformed> {
        let (head, body) = value.split_first_chunk::<12>().ok_or(Malformed)?;
        let iaid = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if self.ias.len() >= MAX_IAS || self.ias.iter().any(|ia| (ia.kind, ia.iaid) == (kind, iaid)) {
            return Ok(());
        }
        let mut named = Vec::new();
        for option in options(body) {
            let net = match (option?, kind) {
                ((code::IA_ADDR, value), IaKind::Address) => {
                    let address: &[u8; 16] = value.first_chunk().ok_or(Malformed)?;
                    Ipv6Net::new(Ipv6Addr::from(*address), 128)
                }
                ((code::IA_PREFIX, value), IaKind::Prefix) => {
                    let fields: &[u8; 25] = value.first_chunk().ok_or(Malformed)?;
                    let address = <[u8; 16]>::try_from(&fields[9..]).map_err(|_| Malformed)?;
                    Ipv6Net::new(Ipv6Addr::from(address), fields[8])
                }
                _ => continue,
            };
            if named.len() < MAX_HINTS {
                named.push(net.map_err(|_| Malformed)?.trunc());
            }
        }
        self.ias.push(Ia { kind, iaid, named });
        Ok(())
    }
}

/// Flags and a name in wire format; its first label is the guest's.
fn fqdn(value: &[u8]) -> Option<Fqdn> {
    let (flags, name) = value.split_first()?;
    let label = name.split_first().and_then(|(length, rest)| {
        let text = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        DnsLabel::new(text).ok()
    });
    Some(Fqdn { flags: *flags, label })
}

/// Code and value each; an error where the last is cut short.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some(([a, b, c, d], rest)) = bytes.split_first_chunk::<4>() else {
            bytes = &[];
            return Some(Err(Malformed));
        };
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        let Some((value, rest)) = rest.split_at_checked(length) else {
            bytes = &[];
            return Some(Err(Malformed));
        };
        bytes = rest;
        Some(Ok((u16::from_be_bytes([*a, *b]), value)))
    })
}
