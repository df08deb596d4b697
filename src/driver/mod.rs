//! The hands: what applies changes to a kernel, and tells what it has.

pub mod firewalld;
pub mod host;
pub mod kernel;
pub mod sim;
