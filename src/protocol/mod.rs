//! protocol.

pub mod dns;
