//! A DHCPv6 server (RFC 8415, with options of 3646, 4704, 5908, 6939, 8415 section 21) without sockets or clock: bytes
//! and the time go in, replies and lease changes come out.
//!
//! - [`Scope`] is what one network serves on one host interface, [`Engine`] serves it: addresses (IA_NA), delegated
//!   prefixes (IA_PD), and configuration alone (stateless).
//! - A lease reaches the disk before its Reply leaves: the reply is locked inside a [`Commit`], and only
//!   [`Engine::confirm`] hands it out.
//! - A port's reserved address is decided by its MAC address alone and always wins. Everyone else is known by MAC
//!   address, DUID and IAID together: guests that were cloned have the same DUID, and no guest can speak for another.
//! - The table of leases, and so its cost and its limits, is the one of DHCPv4 ([`lease`](super::lease)).

mod engine;
mod exchange;
mod message;
mod output;
mod reply;
mod scope;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use super::lease::{INFINITE, Limits, NEVER, Origin, UnixSeconds};
pub use engine::{Engine, Stats};
pub use output::{ClientKey, Commit, Datagram, Event, Lease, LeaseChange, Output, Sender};
pub use scope::{Host, Scope, Subnet};

pub const SERVER_PORT: u16 = 547;
pub const CLIENT_PORT: u16 = 546;

/// `All_DHCP_Relay_Agents_and_Servers` (RFC 8415 section 7.1).
pub const ALL_SERVERS: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// All_DHCP_Servers, where relay agents send that were told of no server (RFC 8415 section 19).
pub const ALL_SERVERS_OF_SITE: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
