//! A store that keeps nothing beyond the process and fails when it is told to: for tests.

use super::{error::from_sqlite, schema, statements};
use crate::backend::{LeaseRecord, Loaded, Store, StoreError, Write};
use rusqlite::Connection;
use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use uuid::Uuid;

/// Clones share one content: give one to what is tested, and another to what is started in its place.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    gate: Arc<RwLock<()>>,
}

/// While it lives, commits wait.
#[derive(Debug)]
pub struct Hold {
    _gate: OwnedRwLockWriteGuard<()>,
}

#[derive(Debug)]
struct State {
    connection: Connection,
    attempts: u64,
    commits: u64,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    /// The number of the first attempt that fails.
    first: u64,
    once: bool,
    error: StoreError,
}

impl MemoryStore {
    pub fn new() -> Result<Self, StoreError> {
        let fail = |error| from_sqlite(path(), &error);
        let mut connection = Connection::open_in_memory().map_err(fail)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(fail)?;
        schema::migrate(&mut connection, path(), schema::MIGRATIONS)?;
        let state = State { connection, attempts: 0, commits: 0, failure: None };
        Ok(Self { state: Arc::new(Mutex::new(state)), gate: Arc::default() })
    }

    /// Lets the `nth` commit from now on fail with `error` (1: the next), and only that one. It changes nothing.
    pub fn fail_nth(&self, nth: u64, error: StoreError) {
        self.fail(nth, true, error);
    }

    /// Lets all commits fail with `error` from the `nth` from now on (1: the next) until [`MemoryStore::heal`].
    pub fn fail_from(&self, nth: u64, error: StoreError) {
        self.fail(nth, false, error);
    }

    /// Takes back what was to fail.
    pub fn heal(&self) {
        self.state().failure = None;
    }

    /// How many commits succeeded.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// Lets commits wait until the guard is dropped; waits for those under way.
    pub async fn hold(&self) -> Hold {
        Hold { _gate: self.gate.clone().write_owned().await }
    }

    fn fail(&self, nth: u64, once: bool, error: StoreError) {
        let mut state = self.state();
        state.failure = Some(Failure { first: state.attempts + nth.max(1), once, error });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A transaction that a panic cut short was rolled back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        statements::load(&self.state().connection).map_err(|error| from_sqlite(path(), &error))
    }

    async fn leases(&self, network: Uuid) -> Result<Vec<LeaseRecord>, StoreError> {
        statements::leases_of(&self.state().connection, network).map_err(|error| from_sqlite(path(), &error))
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let _open = self.gate.read().await;
        self.state().commit(&writes)
    }
}

impl State {
    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.attempts += 1;
        let attempt = self.attempts;
        if let Some(failure) = self.failure.take_if(|failure| failure.once && failure.first == attempt) {
            return Err(failure.error);
        }
        if let Some(failure) = self.failure.as_ref().filter(|failure| !failure.once && failure.first <= attempt) {
            return Err(failure.error.clone());
        }
        self.transact(writes).map_err(|error| from_sqlite(path(), &error))?;
        self.commits += 1;
        Ok(())
    }

    fn transact(&mut self, writes: &[Write]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        writes.iter().try_for_each(|write| statements::apply(&transaction, write))?;
        transaction.commit()
    }
}

/// What errors call it.
fn path() -> &'static Path {
    Path::new("(memory)")
}
