use super::{IpNet, ParseError, serde_as_text};
use std::{fmt, net::IpAddr, str::FromStr};

/// An inclusive range of addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, ParseError> {
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return Err(ParseError::Range(format!("{first}-{last}")));
        }
        Ok(Self { first, last })
    }

    pub fn first(&self) -> IpAddr {
        self.first
    }

    pub fn last(&self) -> IpAddr {
        self.last
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && self.first <= address && address <= self.last
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    pub fn within(&self, prefix: &IpNet) -> bool {
        prefix.contains(&self.first) && prefix.contains(&self.last)
    }

    /// How many addresses it holds, saturating.
    pub fn size(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// Its addresses, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.iter_from(0)
    }

    /// Its addresses from the one at `offset` (0 is the first) on.
    pub fn iter_from(&self, offset: u128) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.first.is_ipv4();
        (number(self.first).saturating_add(offset)..=number(self.last)).map(move |n| address(v4, n))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn address(v4: bool, number: u128) -> IpAddr {
    if v4 {
        // A range of IPv4 addresses holds only numbers below 2^32.
        IpAddr::V4((number as u32).into())
    } else {
        IpAddr::V6(number.into())
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for AddressRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::Range(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let parse = |s: &str| s.trim().parse::<IpAddr>().map_err(|_| bad());
        Self::new(parse(first)?, parse(last)?).map_err(|_| bad())
    }
}

serde_as_text!(AddressRange);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range: AddressRange = "10.0.0.254-10.0.1.1".parse().expect("valid");
        assert_eq!(range.size(), 4);
        assert_eq!(
            range.iter().map(|a| a.to_string()).collect::<Vec<_>>(),
            ["10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1"]
        );
        assert!(range.contains("10.0.1.0".parse().expect("address")));
        assert!(!range.contains("::1".parse().expect("address")));
        for bad in ["10.0.0.1", "10.0.0.2-10.0.0.1", "10.0.0.1-::1", "a-b"] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
    }
}
