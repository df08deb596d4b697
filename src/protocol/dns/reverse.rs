//! Names under `in-addr.arpa` (RFC 1035 section 3.5) and `ip6.arpa` (RFC 3596 section 2.5).

use super::name::WireName;
use crate::net::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a reverse name speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReverseName {
    /// The block that its labels spell, from the right as far as they are well-formed: a whole address, or the block
    /// that a shorter name stands for.
    pub block: IpNet,
    /// Whether labels that do not spell an address stand left of it.
    pub below: bool,
}

const IPV4_TREE: &[u8] = b"\x07in-addr\x04arpa\0";
const IPV6_TREE: &[u8] = b"\x03ip6\x04arpa\0";

impl ReverseName {
    /// `None` for a name outside both reverse trees.
    pub fn parse(name: &WireName) -> Option<Self> {
        if !name.ends_with(b"\x04arpa\0") {
            return None;
        }
        // The most labels that a name has.
        let mut labels = [&[][..]; 128];
        let spelled = |tree: &[u8]| name.below(tree).map(|_| name.depth() - 2);
        let (count, v4) = match (spelled(IPV4_TREE), spelled(IPV6_TREE)) {
            (Some(count), _) => (count, true),
            (None, Some(count)) => (count, false),
            (None, None) => return None,
        };
        for (slot, label) in labels.iter_mut().zip(name.labels().take(count)) {
            *slot = label;
        }
        let labels = labels.iter().take(count).rev().copied();
        Some(if v4 { Self::parse_v4(labels) } else { Self::parse_v6(labels) })
    }

    fn parse_v4<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut octets, mut count, mut below) = ([0u8; 4], 0u8, false);
        for label in labels {
            match (octets.get_mut(usize::from(count)), decimal(label)) {
                (Some(octet), Some(value)) => *octet = value,
                _ => {
                    below = true;
                    break;
                }
            }
            count += 1;
        }
        let block = Ipv4Net::new(Ipv4Addr::from(octets), count * 8).expect("at most 32 bits").into();
        Self { block, below }
    }

    fn parse_v6<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut bits, mut count, mut below) = (0u128, 0u8, false);
        for label in labels {
            match nibble(label) {
                Some(value) if count < 32 => bits |= u128::from(value) << (124 - 4 * u32::from(count)),
                _ => {
                    below = true;
                    break;
                }
            }
            count += 1;
        }
        let block = Ipv6Net::new(Ipv6Addr::from_bits(bits), count * 4).expect("at most 128 bits").into();
        Self { block, below }
    }

    /// The address, where the name spells a whole one.
    pub fn address(&self) -> Option<IpAddr> {
        (self.block.prefix_len() == self.block.max_prefix_len()).then(|| self.block.addr())
    }
}

fn step(prefix: &IpNet) -> u8 {
    match prefix {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 4,
    }
}

/// The length, on a label's boundary, of the zone that serves `address` of `prefix`: zones can be cut only at whole
/// octets or nibbles, so a prefix between two boundaries is a set of longer zones (10.0.0.0/22: four of /24), or, where
/// that would be single addresses, part of a shorter one.
pub(super) fn apex_len(prefix: &IpNet) -> u8 {
    let step = step(prefix);
    prefix.prefix_len().div_ceil(step).saturating_mul(step).min(prefix.max_prefix_len() - step)
}

/// The names, without the last dot, below which the reverse names of a prefix stand and no others: at most 128.
/// 10.0.0.0/22 has four of a /24 each, 192.168.1.128/25 one for each address.
pub fn reverse_zones(prefix: &IpNet) -> Vec<String> {
    let len = prefix.prefix_len().div_ceil(step(prefix)).saturating_mul(step(prefix)).min(prefix.max_prefix_len());
    let Ok(blocks) = prefix.subnets(len) else { return Vec::new() };
    blocks.map(|block| zone_name(&block)).collect()
}

/// `block` ends on a label's boundary.
fn zone_name(block: &IpNet) -> String {
    let labels = usize::from(block.prefix_len() / step(block));
    match block.network() {
        IpAddr::V4(address) => {
            let octets = address.octets();
            octets.iter().take(labels).rev().map(|octet| format!("{octet}.")).collect::<String>() + "in-addr.arpa"
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            let nibbles: Vec<u8> = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]).take(labels).collect();
            nibbles.iter().rev().map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// How many labels the name of the zone has that serves addresses of `prefix`; see [`apex_len`].
pub(super) fn apex_depth(prefix: &IpNet) -> usize {
    usize::from(apex_len(prefix) / step(prefix)) + 2
}

/// An octet as it stands in a reverse name: no sign, no leading zero.
fn decimal(label: &[u8]) -> Option<u8> {
    let canonical = matches!(label, [b'0'] | [b'1'..=b'9', ..]);
    if !canonical || label.len() > 3 {
        return None;
    }
    label.iter().try_fold(0u8, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn nibble(label: &[u8]) -> Option<u8> {
    let &[byte] = label else { return None };
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Option<(String, bool)> {
        let name = WireName::from_text(name).expect("name");
        ReverseName::parse(&name).map(|r| (r.block.to_string(), r.below))
    }

    #[test]
    fn names_spell_blocks() {
        let is = |name, block: &str, below| assert_eq!(parse(name), Some((block.to_owned(), below)), "{name}");
        is("7.123.168.192.in-addr.arpa.", "192.168.123.7/32", false);
        is("123.168.192.IN-ADDR.arpa.", "192.168.123.0/24", false);
        is("in-addr.arpa.", "0.0.0.0/0", false);
        is("a.7.123.168.192.in-addr.arpa.", "192.168.123.7/32", true);
        is("1.7.123.168.192.in-addr.arpa.", "192.168.123.7/32", true);
        is("0-127.123.168.192.in-addr.arpa.", "192.168.123.0/24", true);
        is("07.123.168.192.in-addr.arpa.", "192.168.123.0/24", true);
        is("256.123.168.192.in-addr.arpa.", "192.168.123.0/24", true);
        is("8.B.d.0.1.0.0.2.ip6.arpa.", "2001:db8::/32", false);
        is("xx.8.b.d.0.1.0.0.2.ip6.arpa.", "2001:db8::/32", true);
        is(&format!("{}ip6.arpa.", "1.".repeat(122)), "1111:1111:1111:1111:1111:1111:1111:1111/128", true);
        assert_eq!(parse("home.arpa."), None);
        assert_eq!(parse("web.nat.internal."), None);
        assert_eq!(parse("."), None);
    }

    #[test]
    fn zones_hold_a_prefix_and_nothing_else() {
        let of = |prefix: &str| reverse_zones(&prefix.parse().expect("prefix"));
        assert_eq!(of("192.168.123.0/24"), ["123.168.192.in-addr.arpa"]);
        assert_eq!(of("10.0.0.0/8"), ["10.in-addr.arpa"]);
        assert_eq!(of("10.0.0.0/23"), ["0.0.10.in-addr.arpa", "1.0.10.in-addr.arpa"]);
        assert_eq!(of("192.168.1.4/31"), ["4.1.168.192.in-addr.arpa", "5.1.168.192.in-addr.arpa"]);
        assert_eq!(of("fd00:1::/64"), ["0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa"]);
        assert_eq!(of("fd00::/7"), ["c.f.ip6.arpa", "d.f.ip6.arpa"]);
        for prefix in ["10.0.0.0/9", "10.0.0.0/25", "fd00::/65", "::/0", "10.0.0.1/32", "fd00::1/128"] {
            assert!((1..=128).contains(&of(prefix).len()), "{prefix}");
        }
    }

    #[test]
    fn every_prefix_has_its_zones() {
        let of = |prefix: &str| apex_depth(&prefix.parse().expect("prefix"));
        assert_eq!(of("192.168.123.0/24"), 5);
        assert_eq!(of("10.0.0.0/22"), 5);
        assert_eq!(of("192.168.1.128/25"), 5);
        assert_eq!(of("10.0.0.0/8"), 3);
        assert_eq!(of("fd00::/62"), 18);
    }
}
