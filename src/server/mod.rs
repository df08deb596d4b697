//! Sockets and timers that drive the protocol engines.

pub mod clock;
pub mod dhcpv4;
pub mod dns;
mod histogram;
pub mod hook;
pub mod meters;

pub use histogram::Histogram;
