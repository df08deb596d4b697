use std::{fmt, net::IpAddr};

/// A connection as the kernel tracks it (`nf_conn`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Tells it from a later one of the same addresses (`CTA_ID`).
    pub id: u32,
    /// 0: of the host's IP stack.
    pub zone: u16,
    /// IANA "Protocol Numbers".
    pub protocol: u8,
    /// `IPS_…` (`linux/netfilter/nf_conntrack_common.h`).
    pub status: u32,
    pub mark: u32,
    /// As its first packet came.
    pub original: Tuple,
    /// As answers come, with what NAT makes of them.
    pub reply: Tuple,
}

/// One direction of a [`Connection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub upper: TupleUpper,
}

/// What tells connections of two addresses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TupleUpper {
    Ports {
        source: u16,
        destination: u16,
    },
    /// Both families.
    Icmp {
        kind: u8,
        code: u8,
        id: u16,
    },
    None,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple { source, destination, upper } = self.original;
        write!(f, "protocol {} from {source}", self.protocol)?;
        match upper {
            TupleUpper::Ports { source, destination: port } => {
                write!(f, " port {source} to {destination} port {port}")?
            }
            TupleUpper::Icmp { kind, code, .. } => write!(f, " to {destination} type {kind} code {code}")?,
            TupleUpper::None => write!(f, " to {destination}")?,
        }
        if self.zone == 0 { Ok(()) } else { write!(f, " in zone {}", self.zone) }
    }
}
