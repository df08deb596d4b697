//! What each port may send and receive, computed from the intent alone.
//!
//! It is the reference: the kernel's rules are compiled from the same intent by other code (`planner`), and tests hold
//! the two against each other with real packets. It is written to be read, in the order in which packets meet the
//! rules: [`source`], [`groups`], then [`path`] for what lies between two ports. Rates (storms, QoS) are not modelled.

mod explain;
mod groups;
mod index;
pub mod packet;
mod path;
mod revoke;
mod source;
#[cfg(test)]
mod tests;
mod trace;
mod verdict;

pub use explain::{Explanation, Line, explain};
pub use index::Policy;
pub use packet::{IpPacket, Options, Packet, Payload, Upper};
pub use path::{Peer, State};
pub use revoke::{revoked, takes_away};
pub use trace::{Request, Trace, TraceError, trace};
pub use verdict::{Domain, Drop, Grant, Reason, Step, Verdict};
