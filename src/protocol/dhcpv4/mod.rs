//! A DHCPv4 server (RFC 2131, 2132, 3046, 3396, 3397, 3442, 4039, 4578, 4702, 6842) without sockets or clock: bytes and
//! the time go in, replies and lease changes come out.
//!
//! - [`Scope`] is what one network serves on one host interface, [`Engine`] serves it.
//! - A lease reaches the disk before its ACK leaves: the reply is locked inside a [`Commit`], and only
//!   [`Engine::confirm`] hands it out.
//! - A port's reserved address is decided by MAC alone and always wins. Everyone else is known by client identifier,
//!   or by hardware address where it sends none.
//! - An address that nobody had yet is looked for on the link before it is offered ([`Output::Probe`],
//!   [`Engine::probed`]), ahead of demand, so that no client waits for that; in a burst of newcomers some do, a moment.
//! - The cost of an exchange does not grow with the number of leases held (hash tables, and ordered sets for what runs
//!   out), and whatever a guest can grow has a limit ([`Limits`]).

mod engine;
mod exchange;
mod lease;
mod options;
mod output;
mod reply;
mod request;
mod scope;
mod waiting;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use super::lease::{INFINITE, Limits, NEVER, Origin, UnixSeconds};
pub use engine::{Engine, Stats};
pub use lease::{ClientKey, Lease, LeaseChange};
pub use output::{Commit, Datagram, Destination, Event, Output, Sender};
pub use scope::{Host, Scope, Subnet};

pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;
