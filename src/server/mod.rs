//! Sockets and timers that drive the protocol engines.

pub mod clock;
pub mod dhcpv4;
pub mod dhcpv6;
pub mod dns;
pub mod hook;
pub mod leases;
