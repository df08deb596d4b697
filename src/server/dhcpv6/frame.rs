//! IPv6 with UDP or ICMPv6 as bytes (RFC 8200, 768, 4443). Packet sockets tell the frame's source, which no guest can be
//! allowed to lie about, and reach guests whose neighbour cache is not the kernel's to fill.

use std::net::{Ipv6Addr, SocketAddrV6};

const IP_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) hop_limit: u8,
    pub(super) content: Content<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Udp {
        source_port: u16,
        destination_port: u16,
        payload: &'a [u8],
    },
    /// Its checksum is right.
    Icmp(&'a [u8]),
}

/// A packet without extension headers; trailing padding is cut off. The UDP checksum is not looked at: a guest that
/// offloads it leaves it unfinished, and the bytes never crossed a wire. ICMPv6 is never offloaded.
pub(super) fn parse(packet: &[u8]) -> Option<Packet<'_>> {
    let (head, rest) = packet.split_first_chunk::<IP_HEADER>()?;
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let body = rest.get(..length)?;
    let address = |at: usize| <[u8; 16]>::try_from(&head[at..at + 16]).ok().map(Ipv6Addr::from);
    let (source, destination) = (address(8)?, address(24)?);
    let content = match (head[0] >> 4, head[6]) {
        (6, UDP) => {
            let (udp, _) = body.split_first_chunk::<UDP_HEADER>()?;
            let end = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
            let payload = body.get(UDP_HEADER..end)?;
            let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
            Content::Udp { source_port: port(0), destination_port: port(2), payload }
        }
        (6, ICMPV6) if checksum(source, destination, ICMPV6, body) == 0 => Content::Icmp(body),
        _ => return None,
    };
    Some(Packet { source, destination, hop_limit: head[7], content })
}

/// A UDP datagram; `None` where the payload is too long for one packet.
pub(super) fn build_udp(source: SocketAddrV6, destination: SocketAddrV6, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let mut body = Vec::with_capacity(UDP_HEADER + payload.len());
    body.extend(source.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    body.extend(length.to_be_bytes());
    body.extend([0, 0]);
    body.extend(payload);
    let sum = match checksum(*source.ip(), *destination.ip(), UDP, &body) {
        0 => 0xffff,
        sum => sum,
    };
    body[6..8].copy_from_slice(&sum.to_be_bytes());
    with_header(*source.ip(), *destination.ip(), UDP, 64, &body)
}

/// An ICMPv6 message whose checksum is zero, with hop limit 255, as neighbour discovery has it.
pub(super) fn build_icmp(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Option<Vec<u8>> {
    let mut body = message.to_vec();
    let sum = checksum(source, destination, ICMPV6, &body);
    body.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    with_header(source, destination, ICMPV6, 255, &body)
}

fn with_header(source: Ipv6Addr, destination: Ipv6Addr, next: u8, hop_limit: u8, body: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(body.len()).ok()?;
    let mut packet = Vec::with_capacity(IP_HEADER + body.len());
    packet.extend([0x60, 0, 0, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(body);
    Some(packet)
}

/// Over the pseudo header (RFC 8200 section 8.1) and the body; 0 where a body with its checksum in is right.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, next: u8, body: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u64 {
        let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
        bytes.chunks(2).map(word).sum()
    };
    let pseudo = words(&source.octets()) + words(&destination.octets()) + body.len() as u64 + u64::from(next);
    let mut sum = pseudo + words(body);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoints() -> (SocketAddrV6, SocketAddrV6) {
        let address = |last| Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, last);
        (SocketAddrV6::new(address(1), 547, 0, 0), SocketAddrV6::new(address(2), 546, 0, 0))
    }

    #[test]
    fn what_is_built_checks_and_parses() {
        let (source, destination) = endpoints();
        for payload in [&b""[..], b"odd", b"even", &[0xff; 1400]] {
            let mut packet = build_udp(source, destination, payload).expect("short");
            assert_eq!(checksum(*source.ip(), *destination.ip(), UDP, &packet[IP_HEADER..]), 0);
            packet.extend([0; 9]);
            let parsed = parse(&packet).expect("sound");
            assert_eq!(parsed.content, Content::Udp { source_port: 547, destination_port: 546, payload });
        }
        let message = [133, 0, 0, 0, 0, 0, 0, 0];
        let mut packet = build_icmp(*source.ip(), *destination.ip(), &message).expect("short");
        let parsed = parse(&packet).expect("sound");
        assert_eq!((parsed.source, parsed.hop_limit), (*source.ip(), 255));
        assert!(matches!(parsed.content, Content::Icmp([133, 0, _, _, 0, 0, 0, 0])));
        packet[47] ^= 1;
        assert_eq!(parse(&packet), None, "a wrong checksum");
        assert!(build_udp(source, destination, &[0; 65_536]).is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..96)) {
            let _ = parse(&bytes);
        }
    }
}
