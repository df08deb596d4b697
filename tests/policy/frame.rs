//! Frames as bytes, of the model's packets.

use std::net::{IpAddr, Ipv4Addr};
use vmfabric::policy::{IpPacket, Options, Packet, Payload, Upper, packet::*};

/// What marks a frame's payload: no two of one run have the same.
pub type Mark = [u8; 8];

/// `answers`: TCP's SYN with ACK, echo replies are by type.
pub fn encode(packet: &Packet, mark: Mark, answers: bool) -> Vec<u8> {
    let mut frame = [packet.destination, packet.source].concat();
    for tag in &packet.tags {
        frame.extend(0x8100u16.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    let (ethertype, body) = match &packet.payload {
        Payload::Arp { request, sender_mac, sender_ip } => (0x0806, arp(*request, *sender_mac, *sender_ip, mark)),
        Payload::Rarp => (0x8035, arp(true, packet.source, Ipv4Addr::UNSPECIFIED, mark)),
        Payload::Ip(ip) if ip.source.is_ipv4() => (0x0800, ipv4(ip, mark, answers)),
        Payload::Ip(ip) => (0x86dd, ipv6(ip, mark, answers)),
        Payload::Other(ethertype) => (*ethertype, [&mark[..], &[0; 40]].concat()),
    };
    frame.extend(ethertype.to_be_bytes());
    frame.extend(body);
    frame
}

fn arp(request: bool, sender_mac: [u8; 6], sender_ip: Ipv4Addr, mark: Mark) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, if request { 1 } else { 2 }];
    body.extend(sender_mac);
    body.extend(sender_ip.octets());
    body.extend([0; 6]);
    body.extend([10, 99, 99, 99]);
    body.extend(mark);
    body
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn ipv4(ip: &IpPacket, mark: Mark, answers: bool) -> Vec<u8> {
    let options: &[u8] = match ip.options {
        Options::None => &[],
        Options::RouterAlert => &[0x94, 4, 0, 0],
        // A loose source route.
        Options::Other => &[131, 3, 4, 0],
    };
    let upper = upper(ip, mark, answers);
    let length = u16::try_from(20 + options.len() + upper.len()).expect("short");
    let words = u8::try_from(5 + options.len() / 4).expect("few");
    let mut header = vec![0x40 | words, 0];
    header.extend(length.to_be_bytes());
    header.extend([mark[6], mark[7], if ip.fragment { 0x20 } else { 0 }, 0, 64, ip.protocol(), 0, 0]);
    header.extend(octets(ip.source));
    header.extend(octets(ip.destination));
    header.extend(options);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(upper);
    header
}

fn ipv6(ip: &IpPacket, mark: Mark, answers: bool) -> Vec<u8> {
    let upper = upper(ip, mark, answers);
    let (mut next, mut extensions) = (ip.protocol(), Vec::new());
    if ip.fragment {
        extensions.extend([next, 0, 0, 1, 0, 0, mark[6], mark[7]]);
        next = 44;
    }
    match ip.options {
        Options::None => {}
        Options::RouterAlert => {
            extensions = [&[next, 0, 5, 2, 0, 0, 1, 0][..], &extensions].concat();
            next = 0;
        }
        Options::Other => {
            extensions = [&[next, 0, 0, 0, 0, 0, 0, 0][..], &extensions].concat();
            next = 43;
        }
    }
    let length = u16::try_from(extensions.len() + upper.len()).expect("short");
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length.to_be_bytes());
    header.extend([next, 255]);
    header.extend(octets(ip.source));
    header.extend(octets(ip.destination));
    header.extend(extensions);
    header.extend(upper);
    header
}

fn upper(ip: &IpPacket, mark: Mark, answers: bool) -> Vec<u8> {
    let (mut bytes, sum_at) = match ip.upper {
        Upper::Ports { protocol: TCP, source, destination, opens } => {
            let flags = match (opens, answers) {
                (_, true) => 0x12,
                (true, _) => 0x02,
                (false, _) => 0x10,
            };
            let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
            bytes.extend([0, 0, 0, 1]);
            bytes.extend(if answers { [0, 0, 0, 2] } else { [0; 4] });
            bytes.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
            // A SYN with data is lawful, and an answer acknowledges the SYN alone.
            (bytes, Some(16))
        }
        Upper::Ports { source, destination, .. } => {
            let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
            bytes.extend(16u16.to_be_bytes());
            bytes.extend([0, 0]);
            (bytes, Some(6))
        }
        Upper::Icmp { kind, code, target, link_layer } => {
            let mut bytes = vec![kind, code, 0, 0];
            let is_nd =
                ip.source.is_ipv6() && (icmp6::ROUTER_SOLICITATION..=icmp6::NEIGHBOUR_ADVERTISEMENT).contains(&kind);
            if !is_nd {
                // Identifier and number; of a listener report, its group.
                bytes.extend([mark[6], mark[7], mark[4], mark[5]]);
                if ip.source.is_ipv6() && matches!(kind, 130..=132) {
                    bytes.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0x42]);
                }
                bytes.extend(mark);
                return sealed(ip, bytes, Some(2));
            }
            bytes.extend([0; 4]);
            if kind == icmp6::ROUTER_ADVERTISEMENT {
                bytes.extend([0; 8]);
            }
            bytes.extend(target.map(octets).unwrap_or_default());
            if let Some(mac) = link_layer {
                bytes.extend([if kind == icmp6::NEIGHBOUR_ADVERTISEMENT { 2 } else { 1 }, 1]);
                bytes.extend(mac);
            }
            return sealed(ip, bytes, Some(2));
        }
        // A report of IGMPv2; GRE without a key.
        Upper::Other(IGMP) => (vec![0x16, 0, 0x09, 0x04, 224, 0, 0, 251], None),
        Upper::Other(_) => (vec![0, 0, 8, 0], None),
    };
    bytes.extend(mark);
    sealed(ip, bytes, sum_at)
}

fn sealed(ip: &IpPacket, mut bytes: Vec<u8>, sum_at: Option<usize>) -> Vec<u8> {
    if let Some(at) = sum_at {
        let mut summed = Vec::new();
        if ip.source.is_ipv6() || ip.protocol() != 1 {
            summed.extend(octets(ip.source));
            summed.extend(octets(ip.destination));
            summed.extend(u32::try_from(bytes.len()).expect("short").to_be_bytes());
            summed.extend([0, 0, 0, ip.protocol()]);
        }
        summed.extend(&bytes);
        let sum = checksum(&summed);
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
