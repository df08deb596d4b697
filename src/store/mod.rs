//! Durable memory of one host: intent, leases, and what must survive a restart.
//!
//! [`sqlite`] is what the daemon uses. [`memory`] keeps nothing and fails when told to, for tests. Both run the same
//! statements on the same schema, so that what one accepts the other does.

mod error;
mod files;
pub mod memory;
mod reserve;
mod schema;
pub mod sqlite;
mod statements;

#[cfg(test)]
mod tests;
