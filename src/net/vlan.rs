use super::ParseError;
use std::{fmt, str::FromStr};

/// An IEEE 802.1Q VLAN ID, 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u16);

impl VlanId {
    pub const LOWEST: Self = Self(1);
    pub const HIGHEST: Self = Self(4094);
    /// The ID that switches use for untagged frames unless told otherwise.
    pub const DEFAULT: Self = Self(1);

    pub fn new(id: u16) -> Result<Self, ParseError> {
        match id {
            1..=4094 => Ok(Self(id)),
            _ => Err(ParseError::Vlan(id.to_string())),
        }
    }

    pub fn get(self) -> u16 {
        self.0
    }

    /// The IDs of `10` or `20-29`.
    pub fn parse_range(text: &str) -> Result<impl Iterator<Item = Self> + use<>, ParseError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (Self, Self) = (first.trim().parse()?, last.trim().parse()?);
        match first <= last {
            true => Ok((first.0..=last.0).map(Self)),
            false => Err(ParseError::VlanRange { first, last }),
        }
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VlanId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let id: u16 = text.parse().map_err(|_| ParseError::Vlan(text.to_owned()))?;
        Self::new(id)
    }
}

impl serde::Serialize for VlanId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.0)
    }
}

impl<'de> serde::Deserialize<'de> for VlanId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = i64::deserialize(deserializer)?;
        let id = u16::try_from(id).map_err(|_| serde::de::Error::custom(ParseError::Vlan(id.to_string())))?;
        Self::new(id).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_1_to_4094() {
        assert_eq!("4094".parse(), VlanId::new(4094));
        for bad in ["0", "4095", "70000", "-1", "ten"] {
            assert_eq!(bad.parse::<VlanId>(), Err(ParseError::Vlan(bad.into())));
        }
        assert!(serde_json::from_str::<VlanId>("65546").is_err());
    }
}
