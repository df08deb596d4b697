//! Values of the network world, checked when they are made: whoever holds one need not check it again.

pub mod dhcp;
mod dns_forwarder;
mod dns_name;
mod dns_record;
mod if_name;
mod mac;
pub mod protocol;
mod range;
mod vlan;

pub use dhcp::{BootRule, BootSelector, ClientId, DhcpOption};
pub use dns_forwarder::DnsForwarder;
pub use dns_name::{DnsLabel, DomainName};
pub use dns_record::{DnsRecord, RecordData, RecordName, RecordTarget};
pub use if_name::IfName;
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use mac::MacAddr;
pub use range::AddressRange;
pub use vlan::VlanId;

/// Why a text is not the value that it should be. Says what is wrong and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("'{0}' is not a MAC address; write it as 52:54:00:12:34:56")]
    Mac(String),
    #[error("'{0}' is a multicast or all-zero MAC address; a NIC needs a unicast one")]
    MacNotUnicast(String),
    #[error("VLAN {0} is out of range; VLAN IDs are 1 to 4094")]
    Vlan(String),
    #[error("the range {first}-{last} is empty; write the lower VLAN first")]
    VlanRange { first: VlanId, last: VlanId },
    #[error("'{name}' cannot name a network interface: {why}")]
    IfName { name: String, why: &'static str },
    #[error("'{name}' is not a DNS name: {why}")]
    DnsName { name: String, why: &'static str },
    #[error("'{text}' is not a DNS record: {why}")]
    DnsRecord { text: String, why: String },
    #[error("'{0}' is not a DNS forwarder; write DOMAIN=ADDRESS, DOMAIN=ADDRESS:PORT, or DOMAIN= for nobody")]
    DnsForwarder(String),
    #[error("'{text}' is not a DHCP option: {why}")]
    DhcpOption { text: String, why: String },
    #[error("'{text}' is not a boot rule: {why}")]
    BootRule { text: String, why: String },
    #[error("'{0}' is not a DHCP client identifier; write 2 to 255 bytes in hexadecimal, or text:NAME")]
    ClientId(String),
    #[error("'{0}' is not an address range; write FIRST-LAST, both of one family, FIRST not above LAST")]
    Range(String),
}

/// Serde through `Display` and `FromStr`, for the types whose text form is their one true form.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;
