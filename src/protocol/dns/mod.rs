//! What a network's DNS says: the names of its guests, forward and reverse, what people wrote down, and what upstream
//! resolvers said. Pure: [`Engine`] takes messages and the time, and gives messages.
//!
//! A question takes this way: [`Query`] is read by hand; a [`View`] of the zones answers, or says who is to be asked;
//! the cache answers; or it joins the questions that are with upstream resolvers.

mod answer;
mod cache;
mod engine;
mod fair;
mod local;
mod name;
mod query;
mod reverse;
mod special;
mod upstream;
mod writer;
mod zone;

pub use answer::NEGATIVE_TTL;
pub use cache::{Budget, MAX_BYTES, MAX_NETWORK_BYTES};
pub use engine::{
    Client, DnsStats, Engine, Failure, Flight, FlightKey, MAX_FLIGHTS, MAX_WAITING, MAX_WAITING_PER_CLIENT,
    STALE_AFTER, Verdict,
};
pub use fair::{FAIR_RATE, MAX_CLIENTS};
pub use local::{Policy, Routes, View, hidden_key, hides};
pub use name::WireName;
pub use query::{Edns, Fault, MAX_UDP_PAYLOAD, Query, Rcode};
pub use upstream::{Ask, Reply, classify, is_readable, is_refusal};
pub use zone::{MAX_ADDRESSES, MAX_NAMES, NameSource, RECORD_TTL, SharedZone, Zone, ZoneError};
