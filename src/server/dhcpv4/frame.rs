//! UDP in IPv4 as bytes (RFC 791, RFC 768). DHCP needs it spelled out: a client without an address cannot answer ARP,
//! so the kernel's own UDP cannot reach it; and a guest must not see the half-made checksums of an offloading kernel.

use std::net::{Ipv4Addr, SocketAddrV4};

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) source: SocketAddrV4,
    pub(super) destination: SocketAddrV4,
    pub(super) payload: &'a [u8],
}

/// The UDP datagram in an unfragmented IPv4 packet; trailing padding is cut off. The UDP checksum is not looked at: a
/// guest that offloads it leaves it unfinished, and the bytes never crossed a wire.
pub(super) fn parse(packet: &[u8]) -> Option<Packet<'_>> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let address = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok().map(Ipv4Addr::from);
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    let fragment = word(6)? & 0x3fff;
    if first >> 4 != 4 || header < IP_HEADER || fragment != 0 || *packet.get(9)? != UDP {
        return None;
    }
    let end = usize::from(word(2)?).min(header + usize::from(word(header + 4)?));
    Some(Packet {
        source: SocketAddrV4::new(address(12)?, word(header)?),
        destination: SocketAddrV4::new(address(16)?, word(header + 2)?),
        payload: packet.get(header + UDP_HEADER..end)?,
    })
}

/// `None` where the payload is too long for one packet.
pub(super) fn build(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    let udp_length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let length = u16::try_from(IP_HEADER + UDP_HEADER + payload.len()).ok()?;
    let mut packet = Vec::with_capacity(usize::from(length));
    // Version and header length, type of service, length; no identification, don't fragment; time to live 64.
    packet.extend([0x45, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    packet.extend(source.ip().octets());
    packet.extend(destination.ip().octets());
    let checksum = !fold(sum(&packet));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());

    packet.extend(source.port().to_be_bytes());
    packet.extend(destination.port().to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    // The pseudo header is the two addresses, the protocol and the length.
    let pseudo = sum(&packet[12..20]) + u32::from(UDP) + u32::from(udp_length);
    let checksum = match !fold(pseudo + sum(&packet[IP_HEADER..])) {
        0 => 0xffff,
        checksum => checksum,
    };
    packet[IP_HEADER + 6..IP_HEADER + 8].copy_from_slice(&checksum.to_be_bytes());
    Some(packet)
}

/// The sum of big-endian words; at most 64 KiB, so that 32 bits hold it.
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    bytes.chunks(2).map(word).sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    // At most 0x1fffe before, so the carry fits.
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoints() -> (SocketAddrV4, SocketAddrV4) {
        (SocketAddrV4::new([10, 0, 0, 1].into(), 67), SocketAddrV4::new([10, 0, 0, 9].into(), 68))
    }

    #[test]
    fn what_is_built_checks_and_parses() {
        let (source, destination) = endpoints();
        for payload in [&b""[..], b"odd", b"even", &[0xff; 1400]] {
            let mut packet = build(source, destination, payload).expect("short");
            assert_eq!(fold(sum(&packet[..20])), 0xffff);
            let pseudo = sum(&packet[12..20]) + 17 + (packet.len() - 20) as u32;
            assert_eq!(fold(pseudo + sum(&packet[20..])), 0xffff);
            packet.extend([0; 9]);
            assert_eq!(parse(&packet), Some(Packet { source, destination, payload }));
        }
        assert!(build(source, destination, &[0; 65_536]).is_none());
    }

    #[test]
    fn fragments_and_other_protocols_are_refused() {
        let (source, destination) = endpoints();
        let packet = build(source, destination, b"x").expect("short");
        for (at, value) in [(0, 0x44), (0, 0x65), (6, 0x20), (7, 1), (9, 6), (25, 0)] {
            let mut bad = packet.clone();
            bad[at] = value;
            assert_eq!(parse(&bad), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }
    }
}
