//! The disk as servers of leases see it.

use crate::protocol::lease::LeaseChange;
use std::future::Future;
use uuid::Uuid;

/// Where leases are kept. Replies wait for it; packets go on being served meanwhile.
pub trait LeaseStore<L>: Send + Sync + 'static {
    /// Returns once the changes are durable, with what became of each. Many calls run at a time, so that many changes
    /// can share one fsync; never two for one address, so their order does not matter.
    fn commit(&self, changes: Vec<LeaseChange<L>>) -> impl Future<Output = Vec<Result<(), CommitError>>> + Send;

    /// All leases of a network, those that ran out too.
    fn load(&self, network: Uuid) -> impl Future<Output = Result<Vec<L>, CommitError>> + Send;
}

/// Why leases could not be read or stored; the client gets no answer, and asks again.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CommitError(Box<dyn std::error::Error + Send + Sync>);

impl CommitError {
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}
