//! Foreign code behind safe wrappers: the only files with `unsafe` in them.

pub mod nftables;
