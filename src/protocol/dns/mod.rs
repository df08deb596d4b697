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

pub use cache::Budget;
pub use engine::{Client, DnsStats, Engine, Failure, Flight, MAX_WAITING_PER_CLIENT, STALE_AFTER, Verdict};
pub use local::{Policy, Routes, View, hidden_key, hides};
pub use query::Query;
pub use upstream::{Ask, Reply, classify, is_readable, is_refusal};
pub use zone::{NameSource, SharedZone, Zone, ZoneError};
