//! protocol.

pub mod dhcpv4;
