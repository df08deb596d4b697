//! Protocol numbers by the names that Neutron knows (neutron-lib `IP_PROTOCOL_MAP`; IANA "Protocol Numbers").

use std::str::FromStr;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const DCCP: u8 = 33;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;
pub const UDPLITE: u8 = 136;

/// The first name of a number is the one that is shown.
const NAMES: &[(&str, u8)] = &[
    ("icmp", ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", TCP),
    ("egp", 8),
    ("udp", UDP),
    ("dccp", DCCP),
    ("ipv6-encap", 41),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", ICMPV6),
    ("ipv6-icmp", ICMPV6),
    ("ipv6-nonxt", 59),
    ("ospf", 89),
    ("vrrp", 112),
    ("pgm", 113),
    ("sctp", SCTP),
    ("udplite", UDPLITE),
];

/// Protocols whose headers begin with a source and a destination port.
const WITH_PORTS: [u8; 5] = [TCP, UDP, DCCP, SCTP, UDPLITE];

/// What IPv6 has as headers between its own and the protocol's, or, with IPv4, nobody uses (RFC 8200 §4.1).
const NOT_PROTOCOLS: [u8; 4] = [0, 43, 44, 60];

/// A protocol by its name, in whatever case, or its number.
pub fn number(text: &str) -> Option<u8> {
    let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map(|(_, number)| *number).or_else(|| digits(text))
}

/// A number without a sign.
pub fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The name of a protocol, or its number where it has none.
pub fn name(number: u8) -> String {
    NAMES.iter().find(|(_, known)| *known == number).map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// A protocol as sentences name it: `TCP`, `ICMPv6`, `protocol 200`.
pub fn title(number: u8) -> String {
    let known = NAMES.iter().find(|(_, known)| *known == number);
    match (number, known) {
        (UDPLITE, _) => "UDP-Lite".to_owned(),
        (_, Some((name, _))) => name.to_ascii_uppercase().replace("V6", "v6"),
        (_, None) => format!("protocol {number}"),
    }
}

/// All names, as errors list them.
pub fn names() -> String {
    NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

pub fn has_ports(number: u8) -> bool {
    WITH_PORTS.contains(&number)
}

pub fn is_extension_header(number: u8) -> bool {
    NOT_PROTOCOLS.contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_to_each_other() {
        for protocol in 0..=u8::MAX {
            assert_eq!(number(&name(protocol)), Some(protocol));
            assert_eq!(number(&protocol.to_string()), Some(protocol));
        }
        for (number, shown) in [(TCP, "TCP"), (ICMPV6, "ICMPv6"), (UDPLITE, "UDP-Lite"), (200, "protocol 200")] {
            assert_eq!(title(number), shown);
        }
        assert_eq!(number("TCP"), Some(6));
        assert_eq!(number("ipv6-icmp"), Some(ICMPV6));
        for bad in ["", "256", "+6", "-1", "tcpx", "6 "] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
