//! The few calls that no crate offers safely: the only files with `unsafe` in them.

pub mod datagrams;
pub mod nftables;
pub mod packet;
