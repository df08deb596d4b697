//! Protocol numbers by the names that Neutron knows (neutron-lib `IP_PROTOCOL_MAP`; IANA "Protocol Numbers").

pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// The first name of a number is the one that is shown.
const NAMES: &[(&str, u8)] = &[
    ("icmp", ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("egp", 8),
    ("udp", 17),
    ("dccp", 33),
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
    ("sctp", 132),
    ("udplite", 136),
];

/// Protocols whose headers begin with a source and a destination port.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// What IPv6 has as headers between its own and the protocol's, or, with IPv4, nobody uses (RFC 8200 §4.1).
const NOT_PROTOCOLS: [u8; 4] = [0, 43, 44, 60];

/// A protocol by its name, in whatever case, or its number.
pub fn number(text: &str) -> Option<u8> {
    let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let digits = || text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    named.map(|(_, number)| *number).or_else(digits)
}

/// The name of a protocol, or its number where it has none.
pub fn name(number: u8) -> String {
    NAMES.iter().find(|(_, known)| *known == number).map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
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
        assert_eq!(number("TCP"), Some(6));
        assert_eq!(number("ipv6-icmp"), Some(ICMPV6));
        for bad in ["", "256", "+6", "-1", "tcpx", "6 "] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
