use super::{ParseError, serde_as_text};
use ipnet::Ipv6Net;
use std::{fmt, net::Ipv6Addr, str::FromStr};

/// A 48-bit unicast IEEE 802 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Sorts before every address that a NIC can have.
    pub const LOWEST: Self = Self([0; 6]);

    /// Checks that the address is unicast and not all zero.
    pub fn new(octets: [u8; 6]) -> Result<Self, ParseError> {
        if octets[0] & 1 == 1 || octets == [0; 6] {
            return Err(ParseError::MacNotUnicast(Self(octets).to_string()));
        }
        Ok(Self(octets))
    }

    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The five octets that libvirt keeps when it derives a tap's own address from the guest's
    /// (the first becomes 0xfe; libvirt `virNetDevTapCreateInBridgePort`).
    pub fn tail(self) -> [u8; 5] {
        let [_, a, b, c, d, e] = self.0;
        [a, b, c, d, e]
    }

    /// The link-local address that follows from it (RFC 4291 appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(self.identifier()))
    }

    /// The address of a prefix that follows from it (RFC 4862 section 5.5.3); `None` where that is not of 64 bits.
    pub fn eui64(self, prefix: Ipv6Net) -> Option<Ipv6Addr> {
        let bits = prefix.network().to_bits() | u128::from(self.identifier());
        (prefix.prefix_len() == 64).then(|| Ipv6Addr::from_bits(bits))
    }

    /// The modified EUI-64 identifier (RFC 4291 appendix A).
    fn identifier(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The MAC address that a link-local address was made of, where it was made of one.
    pub fn of_link_local(address: Ipv6Addr) -> Option<Self> {
        let [.., a, b, c, _, _, d, e, f] = address.octets();
        Self::new([a ^ 2, b, c, d, e, f]).ok().filter(|mac| mac.link_local() == address)
    }

    /// A locally administered unicast address made from four bytes of `seed`: stable for a stable seed.
    pub fn local(seed: [u8; 4]) -> Self {
        let [a, b, c, d] = seed;
        Self([0x56, 0x4d, a, b, c, d])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::Mac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(bad)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Self::new(octets)
    }
}

serde_as_text!(MacAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_six_two_digit_octets() {
        let mac: MacAddr = "52:54:00:Ab:cd:ef".parse().expect("valid");
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
        for bad in ["", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:01", "5:54:00:ab:cd:ef", "+1:54:00:ab:cd:ef"] {
            assert_eq!(bad.parse::<MacAddr>(), Err(ParseError::Mac(bad.into())));
        }
    }

    #[test]
    fn makes_addresses_of_prefixes() {
        let mac: MacAddr = "52:54:00:12:34:56".parse().expect("valid");
        assert_eq!(mac.link_local().to_string(), "fe80::5054:ff:fe12:3456");
        assert_eq!(MacAddr::of_link_local(mac.link_local()), Some(mac));
        let address = |prefix: &str| mac.eui64(prefix.parse().expect("a prefix")).map(|a| a.to_string());
        assert_eq!(address("2001:db8:7::/64").as_deref(), Some("2001:db8:7:0:5054:ff:fe12:3456"));
        assert_eq!(address("2001:db8:7::/80"), None);
    }

    #[test]
    fn refuses_multicast_and_zero() {
        for bad in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
            assert_eq!(bad.parse::<MacAddr>(), Err(ParseError::MacNotUnicast(bad.into())));
        }
    }
}
