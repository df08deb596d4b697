//! Tracked connections, by ctnetlink (`linux/netfilter/nfnetlink_conntrack.h`): read whole, ended one by one.

use super::netlink::{Error, Netlink};
use crate::{
    backend::DriverError,
    datapath::{Connection, Tuple, TupleUpper},
};
use netlink_packet_core::{NLA_F_NESTED, NlasIterator};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// `NFNL_SUBSYS_CTNETLINK`, and `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE` of it.
const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
/// `CTA_…`.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_TUPLE_…`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const TUPLE_ZONE: u16 = 3;
/// `CTA_IP_…`.
const V4_SOURCE: u16 = 1;
const V4_DESTINATION: u16 = 2;
const V6_SOURCE: u16 = 3;
const V6_DESTINATION: u16 = 4;
/// `CTA_PROTO_…`.
const PROTO_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const ICMP_ID: u16 = 4;
const ICMP_TYPE: u16 = 5;
const ICMP_CODE: u16 = 6;
const ICMPV6_ID: u16 = 7;
const ICMPV6_TYPE: u16 = 8;
const ICMPV6_CODE: u16 = 9;

/// All connections of these zones, of both families.
pub(super) fn list(netlink: &mut Netlink, zones: &BTreeSet<u16>) -> Result<Vec<Connection>, DriverError> {
    let all = netlink.dump(GET, &header(libc::AF_UNSPEC), &mut |payload, found| {
        found.extend(decode(payload).filter(|connection| zones.contains(&connection.zone)));
    });
    all.map_err(lacking)
}

/// Ends these; gives how many there still were. One that is gone, or whose addresses another has by now, is left alone.
pub(super) fn delete(netlink: &mut Netlink, connections: &[Connection]) -> Result<usize, DriverError> {
    let mut ended = 0;
    for connection in connections {
        match netlink.request(DELETE, &encode(connection)) {
            Ok(()) => ended += 1,
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            Err(error) => return Err(lacking(error)),
        }
    }
    Ok(ended)
}

/// Without its module the kernel knows no such request.
fn lacking(error: Error) -> DriverError {
    match error.errno() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => DriverError::Netlink(
            "this kernel does not list connections (CONFIG_NF_CT_NETLINK, module nf_conntrack_netlink), so that those \
             that are no longer allowed cannot be ended; load the module"
                .into(),
        ),
        _ => error.into(),
    }
}

/// `struct nfgenmsg`: family, version, resource.
fn header(family: i32) -> Vec<u8> {
    vec![u8::try_from(family).unwrap_or_default(), 0, 0, 0]
}

fn decode(payload: &[u8]) -> Option<Connection> {
    let (mut original, mut reply) = (None, None);
    let (mut id, mut zone, mut status, mut mark) = (0, 0, 0, 0);
    for attribute in NlasIterator::new(payload.get(4..)?).map_while(Result::ok) {
        let value = attribute.value();
        match attribute.kind() {
            TUPLE_ORIG => original = Some(decode_tuple(value)?),
            TUPLE_REPLY => reply = Some(decode_tuple(value)?),
            ID => id = word(value)?,
            STATUS => status = word(value)?,
            MARK => mark = word(value)?,
            ZONE => zone = half(value)?,
            _ => {}
        }
    }
    let ((original, protocol, own_zone), (reply, ..)) = (original?, reply?);
    // A zone of one direction alone is in its tuple.
    let zone = if zone == 0 { own_zone } else { zone };
    Some(Connection { id, zone, protocol, status, mark, original, reply })
}

fn decode_tuple(value: &[u8]) -> Option<(Tuple, u8, u16)> {
    let (mut source, mut destination, mut protocol, mut zone) = (None, None, 0, 0);
    let (mut ports, mut icmp) = ((None, None), (None, None, 0));
    for attribute in NlasIterator::new(value).map_while(Result::ok) {
        let inner = NlasIterator::new(attribute.value()).map_while(Result::ok);
        match attribute.kind() {
            TUPLE_IP => {
                for address in inner {
                    match address.kind() {
                        V4_SOURCE | V6_SOURCE => source = ip(address.value()),
                        V4_DESTINATION | V6_DESTINATION => destination = ip(address.value()),
                        _ => {}
                    }
                }
            }
            TUPLE_PROTO => {
                for part in inner {
                    let value = part.value();
                    match part.kind() {
                        PROTO_NUMBER => protocol = *value.first()?,
                        SOURCE_PORT => ports.0 = half(value),
                        DESTINATION_PORT => ports.1 = half(value),
                        ICMP_ID | ICMPV6_ID => icmp.2 = half(value)?,
                        ICMP_TYPE | ICMPV6_TYPE => icmp.0 = value.first().copied(),
                        ICMP_CODE | ICMPV6_CODE => icmp.1 = value.first().copied(),
                        _ => {}
                    }
                }
            }
            TUPLE_ZONE => zone = half(attribute.value())?,
            _ => {}
        }
    }
    let upper = match (ports, icmp) {
        ((Some(source), Some(destination)), _) => TupleUpper::Ports { source, destination },
        (_, (Some(kind), Some(code), id)) => TupleUpper::Icmp { kind, code, id },
        _ => TupleUpper::None,
    };
    Some((Tuple { source: source?, destination: destination?, upper }, protocol, zone))
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = || value.try_into().ok().map(|octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets)));
    let v6 = || value.try_into().ok().map(|octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets)));
    v4().or_else(v6)
}

/// Numbers are in network byte order here.
fn word(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn half(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// A connection by its original tuple, its zone and its id.
fn encode(connection: &Connection) -> Vec<u8> {
    let Tuple { source, destination, upper } = connection.original;
    let is_v4 = source.is_ipv4();
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let kinds = if is_v4 { (V4_SOURCE, V4_DESTINATION) } else { (V6_SOURCE, V6_DESTINATION) };
    let addresses = [attribute(kinds.0, &octets(source)), attribute(kinds.1, &octets(destination))].concat();
    let mut proto = attribute(PROTO_NUMBER, &[connection.protocol]);
    match upper {
        TupleUpper::Ports { source, destination } => {
            proto.extend(attribute(SOURCE_PORT, &source.to_be_bytes()));
            proto.extend(attribute(DESTINATION_PORT, &destination.to_be_bytes()));
        }
        TupleUpper::Icmp { kind, code, id } => {
            let kinds = if is_v4 { (ICMP_ID, ICMP_TYPE, ICMP_CODE) } else { (ICMPV6_ID, ICMPV6_TYPE, ICMPV6_CODE) };
            proto.extend(attribute(kinds.0, &id.to_be_bytes()));
            proto.extend(attribute(kinds.1, &[kind]));
            proto.extend(attribute(kinds.2, &[code]));
        }
        TupleUpper::None => {}
    }
    let tuple =
        [attribute(TUPLE_IP | NLA_F_NESTED, &addresses), attribute(TUPLE_PROTO | NLA_F_NESTED, &proto)].concat();
    let mut message = header(if is_v4 { libc::AF_INET } else { libc::AF_INET6 });
    message.extend(attribute(TUPLE_ORIG | NLA_F_NESTED, &tuple));
    message.extend(attribute(ZONE, &connection.zone.to_be_bytes()));
    message.extend(attribute(ID, &connection.id.to_be_bytes()));
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("no attribute here is longer than its addresses");
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_names_a_connection_can_be_read_back() {
        for (address, upper) in [
            ("10.0.0.1", TupleUpper::Ports { source: 1, destination: 443 }),
            ("2001:db8::1", TupleUpper::Icmp { kind: 128, code: 0, id: 9 }),
            ("10.0.0.1", TupleUpper::None),
        ] {
            let source = address.parse().expect("an address");
            let tuple = Tuple { source, destination: source, upper };
            let protocol = if upper == TupleUpper::None { 50 } else { 6 };
            let connection =
                Connection { id: 77, zone: 5, protocol, status: 0, mark: 0, original: tuple, reply: tuple };
            // A delete names no reply; a dump has one.
            let mut message = encode(&connection);
            let again = encode(&connection);
            let length = usize::from(u16::from_ne_bytes([again[4], again[5]]));
            let mut reply = again[4..4 + length].to_vec();
            reply[2..4].copy_from_slice(&(TUPLE_REPLY | NLA_F_NESTED).to_ne_bytes());
            message.extend(reply);
            assert_eq!(decode(&message), Some(connection));
        }
    }

    proptest! {
        #[test]
        fn no_message_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
