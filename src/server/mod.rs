//! server.

pub mod dns;
