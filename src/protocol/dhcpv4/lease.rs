use super::UnixSeconds;
use crate::net::{DnsLabel, MacAddr};
use std::{fmt, net::Ipv4Addr, sync::Arc};
use uuid::Uuid;

/// Who a client says it is: its client identifier (option 61), or the one that its hardware address stands for. A
/// client that sends no option 61 and one that sends `01` + its MAC are the same client. 2 to 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(Arc<[u8]>);

impl ClientKey {
    /// From option 61 or from storage; `None` outside 2 to 255 bytes (RFC 2132 section 9.14).
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (2..=255).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    pub fn hardware(mac: MacAddr) -> Self {
        let [a, b, c, d, e, f] = mac.octets();
        Self([1, a, b, c, d, e, f].into())
    }

    /// What [`ClientKey::new`] takes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address that a client may use until `expires`. A network has at most one per address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub network: Uuid,
    pub address: Ipv4Addr,
    pub client: ClientKey,
    pub mac: MacAddr,
    /// The name that the client gave itself (option 81 or 12), its first label.
    pub host_name: Option<DnsLabel>,
    /// The port that reserves the address; `None` for one out of the pools.
    pub port: Option<Uuid>,
    pub expires: UnixSeconds,
}

/// What the lease store has to do.
pub type LeaseChange = crate::protocol::lease::LeaseChange<Lease>;
