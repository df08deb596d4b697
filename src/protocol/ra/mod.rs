//! Router advertisements (RFC 4861 section 6.2; 4191, 4862, 8106) without sockets or clock: what came in, the time and
//! random bits go in, packets and the time of the next come out.

mod advertisement;
mod engine;
#[cfg(test)]
mod tests;

pub use advertisement::{Lifetime, Prefix, Router};
pub use engine::{Destination, Engine, Millis, Output, Solicitation};

use std::net::Ipv6Addr;

pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
