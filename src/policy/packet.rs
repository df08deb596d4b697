//! A frame, as far as filters look into it.

use std::net::{IpAddr, Ipv4Addr};

/// As it is on the guest's NIC. Addresses may be anything: a guest sends what it likes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub source: [u8; 6],
    pub destination: [u8; 6],
    /// VLAN IDs of its tags (802.1Q, 802.1ad), the outermost first.
    pub tags: Vec<u16>,
    pub payload: Payload,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// RFC 826.
    Arp {
        request: bool,
        sender_mac: [u8; 6],
        sender_ip: Ipv4Addr,
    },
    /// RFC 903; what QEMU announces a migrated guest with.
    Rarp,
    Ip(IpPacket),
    /// Any other ethertype.
    Other(u16),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpPacket {
    /// Both addresses are of one family.
    pub source: IpAddr,
    pub destination: IpAddr,
    pub upper: Upper,
    pub options: Options,
    /// Whether it is a part of a larger one.
    pub fragment: bool,
}

/// Of IPv4's header, or the extension headers of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Options {
    None,
    /// Router alert alone (RFC 2113, RFC 2711), as IGMP and MLD have it.
    RouterAlert,
    /// Any other option of IPv4; a routing header of IPv6.
    Other,
}

/// What is above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upper {
    /// TCP, UDP, SCTP, UDP-Lite or DCCP. `opens`: a TCP SYN without ACK, RST or FIN; true for the others.
    Ports { protocol: u8, source: u16, destination: u16, opens: bool },
    /// ICMP with IPv4, ICMPv6 with IPv6.
    Icmp {
        kind: u8,
        code: u8,
        /// The target of a neighbour solicitation or advertisement.
        target: Option<IpAddr>,
        /// The source or target link-layer address option (RFC 4861 section 4.6.1).
        link_layer: Option<[u8; 6]>,
    },
    /// Protocol number.
    Other(u8),
}

pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// ICMPv6 types (RFC 4443, RFC 4861, RFC 2710, RFC 3810).
pub mod icmp6 {
    pub const ECHO_REQUEST: u8 = 128;
    pub const MLD_QUERY: u8 = 130;
    pub const MLD_REPORT: u8 = 131;
    pub const MLD_DONE: u8 = 132;
    pub const ROUTER_SOLICITATION: u8 = 133;
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub const REDIRECT: u8 = 137;
    pub const NODE_INFORMATION: u8 = 139;
    pub const MLD2_REPORT: u8 = 143;
}

impl Packet {
    /// To more than one: broadcast and multicast.
    pub fn is_group_addressed(&self) -> bool {
        self.destination[0] & 1 == 1
    }

    pub fn ip(&self) -> Option<&IpPacket> {
        match &self.payload {
            Payload::Ip(ip) => Some(ip),
            _ => None,
        }
    }
}

impl IpPacket {
    /// A packet that opens a connection, or one of a protocol without any.
    pub fn new(source: IpAddr, destination: IpAddr, upper: Upper) -> Self {
        Self { source, destination, upper, options: Options::None, fragment: false }
    }

    /// IANA "Protocol Numbers".
    pub fn protocol(&self) -> u8 {
        match self.upper {
            Upper::Ports { protocol, .. } | Upper::Other(protocol) => protocol,
            Upper::Icmp { .. } if self.source.is_ipv4() => 1,
            Upper::Icmp { .. } => 58,
        }
    }

    /// Type of an ICMPv6 message.
    pub fn icmp6(&self) -> Option<u8> {
        match self.upper {
            Upper::Icmp { kind, .. } if self.source.is_ipv6() => Some(kind),
            _ => None,
        }
    }

    /// Source and destination port of a UDP datagram.
    pub fn udp(&self) -> Option<(u16, u16)> {
        match self.upper {
            Upper::Ports { protocol: UDP, source, destination, .. } => Some((source, destination)),
            _ => None,
        }
    }
}
