//! Sockets and timers that drive the protocol engines.

pub mod clock;
mod commits;
pub mod dhcpv4;
pub mod dhcpv6;
pub mod dns;
pub mod greeting;
mod histogram;
pub mod hook;
pub mod leases;
pub mod meters;
pub mod resolved;
pub mod thread;

pub use histogram::Histogram;
