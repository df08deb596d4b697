//! Metrics for Prometheus and its like, on a loopback address or a Unix socket.
//!
//! What is asked for is gathered when it is asked for, beside the loop: from the view, which is held for a moment only,
//! from the kernel, and from the servers' own counts.

mod gather;
mod http;
mod listen;
mod text;

pub use gather::Sources;
pub use listen::{Listen, ListenError, serve};
