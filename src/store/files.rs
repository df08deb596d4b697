//! The files of a database: who may read them, who holds them, and how the first one comes to be.

use super::{
    error::{damaged, from_io, from_sqlite, locked},
    schema,
};
use crate::backend::StoreError;
use rusqlite::{Connection, OpenFlags};
use std::{
    ffi::OsString,
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a statement waits for another program (an administrator's `sqlite3`) that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

/// The smallest page of a SQLite database, bytes (sqlite.org/fileformat.html, section 1.2).
const MIN_SIZE: u64 = 512;

/// The right to use a database, until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough while a child that was forked, and is about to exec, shares the open file.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the store");
        }
    }
}

/// Makes the directory if need be, takes the lock, and makes the database if there is none.
pub(super) fn prepare(path: &Path) -> Result<Lock, StoreError> {
    make_directory(path).map_err(|error| from_io(path, &error))?;
    let lock = lock(path)?;
    let meta = match path.metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path)?;
            return Ok(lock);
        }
        Err(error) => return Err(from_io(path, &error)),
    };
    if !meta.is_file() {
        return Err(StoreError::Io { path: path.display().to_string(), detail: "this is not a file".into() });
    }
    // It is made whole or not at all, so this is not a new one, although SQLite would take it for one.
    if meta.len() < MIN_SIZE {
        return Err(damaged(path, format!("it is cut to {} bytes", meta.len())));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| from_io(path, &error))?;
    }
    Ok(lock)
}

/// Opens a database that is there. `NO_MUTEX`: one thread has it.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| from_sqlite(path, &error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| from_sqlite(path, &error))?;
    Ok(connection)
}

/// Looks whether the last page is whole: SQLite reads what is missing of it as zeros.
pub(super) fn check_length(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    // A crash while the log is copied into the database may leave part of a page, which the log still has.
    if beside(path, "-wal").metadata().is_ok_and(|log| log.len() > 0) {
        return Ok(());
    }
    let length = path.metadata().map_err(|error| from_io(path, &error))?.len();
    let page = connection.pragma_query_value(None, "page_size", |row| row.get(0));
    let page: u32 = page.map_err(|error| from_sqlite(path, &error))?;
    match length % u64::from(page) {
        0 => Ok(()),
        _ => Err(damaged(path, format!("its end is missing: {length} bytes are not whole pages of {page}"))),
    }
}

/// A neighbour's name: `vmfabric.db` + `-lock`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    let directory = directory(path);
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(above) = directory.parent() {
        std::fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        other => other,
    }
}

/// On a file of its own: SQLite locks the database itself by other means, and those leave readers in.
fn lock(path: &Path) -> Result<Lock, StoreError> {
    let name = beside(path, "-lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name);
    let file = file.map_err(|error| from_io(&name, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(locked(path)),
        Err(TryLockError::Error(error)) => Err(from_io(&name, &error)),
    }
}

/// Makes the database under another name and renames it when it is whole and on disk. So a file without content is
/// never taken for a new database, nor does a crash or a full disk leave one.
fn create(path: &Path) -> Result<(), StoreError> {
    let log = beside(path, "-wal");
    // SQLite would replay it into the new database.
    if log.exists() {
        return Err(damaged(&log, format!("{} to which it belongs is gone", path.display())));
    }
    let fresh = beside(path, "-new");
    let journal = beside(&fresh, "-journal");
    for leftover in [&fresh, &journal] {
        remove(leftover).map_err(|error| from_io(leftover, &error))?;
    }
    let made = fill(&fresh, path).and_then(|()| {
        std::fs::rename(&fresh, path).and_then(|()| sync_directory(path)).map_err(|error| from_io(path, &error))
    });
    if made.is_err() {
        // What cannot be removed now is removed by the next attempt.
        let _ = remove(&fresh);
        let _ = remove(&journal);
    }
    made
}

fn fill(fresh: &Path, path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh);
    made.map_err(|error| from_io(path, &error))?;
    let mut connection = connect(fresh)?;
    let fail = |error| from_sqlite(path, &error);
    connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
    schema::migrate(&mut connection, path, schema::MIGRATIONS)?;
    connection.close().map_err(|(_, error)| fail(error))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
