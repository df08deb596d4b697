//! server.

pub mod dhcpv4;
