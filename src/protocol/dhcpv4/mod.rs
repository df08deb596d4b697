//! A DHCPv4 server (RFC 2131, 2132, 3442, 6842) without sockets or clock: bytes and the time go in, replies and lease
//! changes come out.
//!
//! - [`Scope`] is what one network serves on one host interface, [`Engine`] serves it.
//! - A lease reaches the disk before its ACK leaves: the reply is locked inside a [`Commit`], and only
//!   [`Engine::confirm`] hands it out.
//! - A port's reserved address is decided by MAC alone and always wins. Everyone else is known by client identifier,
//!   or by hardware address where it sends none.
//! - The cost of an exchange does not grow with the number of leases held (hash tables, and ordered sets for what runs
//!   out), and whatever a guest can grow has a limit ([`Limits`]).

mod engine;
mod exchange;
mod lease;
mod output;
mod reply;
mod request;
mod scope;
mod table;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use engine::{Engine, Stats};
pub use lease::{ClientKey, Lease, LeaseChange};
pub use output::{Commit, Datagram, Destination, Event, Output, Sender};
pub use scope::{Host, Scope, Subnet};
pub use table::Limits;

/// Wall-clock seconds since 1970: leases outlive the process and the boot.
pub type UnixSeconds = u64;

pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;
