//! Protocol engines without sockets: packets and time in, packets and events out.

pub mod dhcpv4;
pub mod dhcpv6;
pub mod dns;
pub mod lease;
pub mod ra;
