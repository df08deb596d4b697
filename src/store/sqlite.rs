//! The store of one host, in a SQLite database.
//!
//! One thread owns the connection. It takes all commits that wait and makes them one transaction, so that however many
//! come at once, the disk is waited for once. Each keeps a savepoint of its own: one that fails fails alone.

use super::{
    error::{from_sqlite, is_full, is_of_the_batch},
    files,
    reserve::{Held, Reserve, grows},
    schema, statements,
};
use crate::backend::{LeaseRecord, Loaded, Store, StoreError, Write};
use rusqlite::{Connection, TransactionBehavior};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// How many commits may wait, and how many make one transaction.
pub(super) const MAX_ROUND: usize = 512;

/// Statements that stay prepared; more than there are.
const STATEMENTS: usize = 64;

/// A SQLite database that this process alone uses. Dropping it first commits all that was accepted, and blocks so long.
#[derive(Debug)]
pub struct SqliteStore {
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    transactions: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(super) enum Request {
    Load(oneshot::Sender<Result<Loaded, StoreError>>),
    Leases(Uuid, oneshot::Sender<Result<Vec<LeaseRecord>, StoreError>>),
    Commit(Batch),
}

#[derive(Debug)]
pub(super) struct Batch {
    pub writes: Vec<Write>,
    pub reply: oneshot::Sender<Result<(), StoreError>>,
}

/// The thread's side.
#[derive(Debug)]
pub(super) struct Worker {
    // In this order: the lock goes last.
    pub connection: Connection,
    path: PathBuf,
    reserve: Option<Reserve>,
    transactions: Arc<AtomicU64>,
    _lock: files::Lock,
}

impl SqliteStore {
    /// Opens the database, or makes it (mode 0600, its directory 0700), and takes it to the newest schema. Blocks.
    ///
    /// Errors: [`StoreError::Locked`] at once where another process has it; [`StoreError::Damaged`] where SQLite's
    /// integrity check finds fault; [`StoreError::TooNew`]; [`StoreError::Full`]; [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let worker = Worker::open(path)?;
        let transactions = worker.transactions();
        let (requests, queue) = mpsc::channel(MAX_ROUND);
        let thread = std::thread::Builder::new().name("vmfabric-store".into()).spawn(move || worker.run(queue));
        let thread = thread.map_err(|error| super::error::from_io(path, &error))?;
        Ok(Self { requests: Some(requests), thread: Some(thread), transactions })
    }

    /// How many transactions were committed since it was opened; each waited once for the disk.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(request(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Store for SqliteStore {
    /// Sees every commit that was accepted before.
    async fn load(&self) -> Result<Loaded, StoreError> {
        self.ask(Request::Load).await
    }

    async fn leases(&self, network: Uuid) -> Result<Vec<LeaseRecord>, StoreError> {
        self.ask(|reply| Request::Leases(network, reply)).await
    }

    /// Commits in the order of the calls. A future that is dropped after its first poll may have committed.
    async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.ask(|reply| Request::Commit(Batch { writes, reply })).await
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked");
        }
    }
}

impl Worker {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = files::prepare(path)?;
        let held = Held::release(path);
        let mut connection = files::connect(path)?;
        schema::version(&connection, path, schema::MIGRATIONS)?;
        schema::check(&connection, path)?;
        files::check_length(&connection, path)?;
        configure(&connection).map_err(|error| from_sqlite(path, &error))?;
        schema::migrate(&mut connection, path, schema::MIGRATIONS)?;
        let reserve = Reserve::take(path, held);
        if let Some(reserve) = &reserve {
            let checkpoint =
                connection.pragma_update_and_check(None, "wal_autocheckpoint", reserve.checkpoint_pages(), |_| Ok(()));
            checkpoint.map_err(|error| from_sqlite(path, &error))?;
        }
        Ok(Self { connection, path: path.to_owned(), reserve, transactions: Arc::default(), _lock: lock })
    }

    /// Counts the transactions that it commits.
    pub(super) fn transactions(&self) -> Arc<AtomicU64> {
        self.transactions.clone()
    }

    /// Serves until all senders are gone and the queue is empty.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut round = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            let mut next = Some(first);
            let mut load = None;
            while let Some(request) = next.take() {
                match request {
                    Request::Commit(batch) => round.push(batch),
                    // It is to see what was committed before it, so it ends the round.
                    read => load = Some(read),
                }
                if load.is_none() && round.len() < MAX_ROUND {
                    next = queue.try_recv().ok();
                }
            }
            self.serve(std::mem::take(&mut round));
            let fail = |error| from_sqlite(&self.path, &error);
            // Who asked may have gone; here and below that is no matter.
            match load {
                Some(Request::Load(reply)) => {
                    let _ = reply.send(statements::load(&self.connection).map_err(fail));
                }
                Some(Request::Leases(network, reply)) => {
                    let _ = reply.send(statements::leases_of(&self.connection, network).map_err(fail));
                }
                Some(Request::Commit(_)) | None => {}
            }
        }
        self.close();
    }

    fn close(self) {
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(%error, "the store is not closed well; nothing is lost");
        } else if let Some(reserve) = self.reserve {
            reserve.hold(&self.path);
        }
    }

    fn serve(&mut self, round: Vec<Batch>) {
        match self.transact(&round) {
            Ok(results) => {
                for (batch, result) in round.into_iter().zip(results) {
                    let _ = batch.reply.send(result);
                }
            }
            // A batch may be too large for the space that is left, and the others not.
            Err(error) if is_full(&error) && round.len() > 1 => {
                for batch in round {
                    self.serve(vec![batch]);
                }
            }
            Err(error) => {
                let error = from_sqlite(&self.path, &error);
                tracing::debug!(%error, commits = round.len(), "cannot commit");
                for batch in round {
                    let _ = batch.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// One transaction of all batches. An error is of all of them, and none has changed anything.
    fn transact(&mut self, round: &[Batch]) -> rusqlite::Result<Vec<Result<(), StoreError>>> {
        if round.is_empty() {
            return Ok(Vec::new());
        }
        let may_grow = self.reserve.as_ref().is_none_or(Reserve::allows_growth);
        let full = || Err(StoreError::Full { path: self.path.display().to_string() });
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut results = Vec::with_capacity(round.len());
        for batch in round {
            if !may_grow && batch.writes.iter().any(grows) {
                results.push(full());
                continue;
            }
            let mut savepoint = transaction.savepoint()?;
            let applied = batch.writes.iter().try_fold(true, |fits, write| match write {
                Write::PutLease(lease) if !may_grow => Ok(statements::renew_lease(&savepoint, lease)? && fits),
                write => statements::apply(&savepoint, write).map(|()| fits),
            });
            results.push(match applied {
                Ok(false) => {
                    savepoint.rollback()?;
                    full()
                }
                Ok(true) => {
                    savepoint.commit()?;
                    Ok(())
                }
                Err(error) if is_of_the_batch(&error) => {
                    savepoint.rollback()?;
                    Err(from_sqlite(&self.path, &error))
                }
                Err(error) => return Err(error),
            });
        }
        transaction.commit()?;
        self.transactions.fetch_add(1, Ordering::Relaxed);
        Ok(results)
    }
}

/// WAL with `synchronous=FULL`: a commit is one `fsync` of the log, and is on disk when it returns. Where the file system
/// cannot have a WAL, SQLite keeps the journal that it had, which is slower and no less safe.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // What a burst made the log grow to is given back.
    connection.pragma_update_and_check(None, "journal_size_limit", 8 << 20, |_| Ok(()))
}
