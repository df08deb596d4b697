//! What the server says.

use super::{
    INFINITE,
    message::{Fqdn, Hop, IaKind, code},
    scope::Subnet,
};
use crate::net::{DomainName, Ipv6Net};
use dhcproto::v6::MessageType;
use std::net::Ipv6Addr;

/// Status codes (RFC 8415 section 21.13) with what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Success,
    NoAddresses,
    NoBinding,
    NotOnLink,
    UseMulticast,
    NoPrefixes,
}

impl Status {
    fn parts(self) -> (u16, &'static str) {
        match self {
            Status::Success => (0, ""),
            Status::NoAddresses => (2, "no address is free for this client"),
            Status::NoBinding => (3, "this client has no such lease"),
            Status::NotOnLink => (4, "the address is not of this link"),
            Status::UseMulticast => (5, "send it to ff02::1:2"),
            Status::NoPrefixes => (6, "no prefix is free for this client"),
        }
    }
}

/// What one identity association is told.
#[derive(Debug, Clone)]
pub(super) struct IaAnswer {
    pub(super) kind: IaKind,
    pub(super) iaid: u32,
    /// Preferred and valid lifetime each.
    pub(super) given: Vec<(Ipv6Net, Lifetimes)>,
    pub(super) status: Option<Status>,
}

/// Seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetimes {
    pub(super) preferred: u32,
    pub(super) valid: u32,
}

impl Lifetimes {
    pub(super) const NONE: Self = Self { preferred: 0, valid: 0 };

    /// A client that renews in time never has a deprecated address.
    pub(super) fn of(valid: u32) -> Self {
        let preferred = if valid == INFINITE { INFINITE } else { (u64::from(valid) * 5 / 8) as u32 };
        Self { preferred, valid }
    }
}

/// A message under construction; nested options are closed by their length.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(kind: MessageType, xid: [u8; 3]) -> Self {
        let mut bytes = vec![kind.into()];
        bytes.extend(xid);
        Self(bytes)
    }

    pub(super) fn option(&mut self, code: u16, value: &[u8]) {
        // What does not fit is left out; nothing of ours is that long.
        let Ok(length) = u16::try_from(value.len()) else { return };
        self.0.extend(code.to_be_bytes());
        self.0.extend(length.to_be_bytes());
        self.0.extend(value);
    }

    fn addresses(&mut self, code: u16, addresses: &[Ipv6Addr]) {
        if !addresses.is_empty() {
            let bytes: Vec<u8> = addresses.iter().flat_map(|address| address.octets()).collect();
            self.option(code, &bytes);
        }
    }

    pub(super) fn status(&mut self, status: Status) {
        let (number, text) = status.parts();
        let mut value = number.to_be_bytes().to_vec();
        value.extend(text.as_bytes());
        self.option(code::STATUS, &value);
    }

    pub(super) fn ia(&mut self, answer: &IaAnswer) {
        let lives = answer.given.iter().map(|(_, life)| life.preferred).filter(|life| *life > 0).min();
        // T1 and T2 as RFC 8415 section 14.2 has them; 0 where there is nothing to renew.
        let part = |tenths: u64| match lives {
            None => 0,
            Some(INFINITE) => INFINITE,
            Some(life) => (u64::from(life) * tenths / 10) as u32,
        };
        let mut body = Writer(answer.iaid.to_be_bytes().to_vec());
        body.0.extend(part(5).to_be_bytes());
        body.0.extend(part(8).to_be_bytes());
        for (prefix, life) in &answer.given {
            let (code, value) = match answer.kind {
                IaKind::Address => {
                    let value = [&prefix.addr().octets()[..], &life.preferred.to_be_bytes(), &life.valid.to_be_bytes()];
                    (code::IA_ADDR, value.concat())
                }
                IaKind::Prefix => {
                    let (preferred, valid) = (life.preferred.to_be_bytes(), life.valid.to_be_bytes());
                    let value = [&preferred[..], &valid, &[prefix.prefix_len()], &prefix.addr().octets()];
                    (code::IA_PREFIX, value.concat())
                }
            };
            body.option(code, &value);
        }
        if let Some(status) = answer.status {
            body.status(status);
        }
        let code = if answer.kind == IaKind::Address { code::IA_NA } else { code::IA_PD };
        self.option(code, &body.0);
    }

    /// An association of temporary addresses, which are not given.
    pub(super) fn temporary(&mut self, iaid: u32) {
        let mut body = Writer(iaid.to_be_bytes().to_vec());
        body.status(Status::NoAddresses);
        self.option(code::IA_TA, &body.0);
    }

    /// What a client asked to be told of its link.
    pub(super) fn configuration(&mut self, subnet: &Subnet, wants: &[u16]) {
        let wants = |code| wants.contains(&code);
        if wants(code::DNS_SERVERS) {
            self.addresses(code::DNS_SERVERS, &subnet.dns_servers);
        }
        if let Some(domain) = subnet.domain.as_ref().filter(|_| wants(code::DOMAIN_LIST)) {
            self.option(code::DOMAIN_LIST, &wire_name(None, domain));
        }
        if wants(code::SNTP_SERVERS) {
            self.addresses(code::SNTP_SERVERS, &subnet.ntp_servers);
        }
        if wants(code::NTP_SERVER) && !subnet.ntp_servers.is_empty() {
            let mut servers = Writer(Vec::new());
            // Suboption 1: the address of a server (RFC 5908 section 4.1).
            subnet.ntp_servers.iter().for_each(|address| servers.option(1, &address.octets()));
            self.option(code::NTP_SERVER, &servers.0);
        }
        if wants(code::REFRESH_TIME) {
            let seconds = u32::try_from(subnet.lease_time.as_secs()).unwrap_or(INFINITE).clamp(600, 86_400);
            self.option(code::REFRESH_TIME, &seconds.to_be_bytes());
        }
    }

    /// The name that DNS has for the client; the server alone sees to it.
    pub(super) fn fqdn(&mut self, asked: &Fqdn, label: &str, domain: Option<&DomainName>) {
        let (s, n) = (asked.flags & Fqdn::S != 0, asked.flags & Fqdn::N != 0);
        let flags = if s && !n { Fqdn::S } else { Fqdn::S | Fqdn::O };
        let name = match domain {
            Some(domain) => wire_name(Some(label), domain),
            None => partial_name(label),
        };
        self.option(code::FQDN, &[&[flags][..], &name].concat());
    }

    /// Puts around it what the relay agents need, and gives the bytes.
    pub(super) fn finish(self, hops: &[Hop]) -> Vec<u8> {
        hops.iter().rev().fold(self.0, |inner, hop| {
            let mut outer = Writer(vec![u8::from(MessageType::RelayRepl), hop.count]);
            outer.0.extend(hop.link.octets());
            outer.0.extend(hop.peer.octets());
            if let Some(id) = &hop.interface_id {
                outer.option(code::INTERFACE_ID, id);
            }
            outer.option(code::RELAY_MSG, &inner);
            outer.0
        })
    }
}

/// A name in wire format (RFC 1035 section 3.1), uncompressed.
fn wire_name(label: Option<&str>, domain: &DomainName) -> Vec<u8> {
    let mut bytes: Vec<u8> = label.into_iter().chain(domain.as_str().split('.')).flat_map(partial_name).collect();
    bytes.push(0);
    bytes
}

fn partial_name(label: &str) -> Vec<u8> {
    // Labels have at most 63 bytes.
    [&[label.len() as u8][..], label.as_bytes()].concat()
}
