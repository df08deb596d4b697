//! SQLite's errors in the words of [`StoreError`].

use crate::backend::StoreError;
use rusqlite::{Error, ErrorCode, ffi};
use std::{io, path::Path};

/// A row that cannot be what was written.
#[derive(Debug, thiserror::Error)]
#[error("{table} '{row}': {why}")]
pub(super) struct BadRow {
    pub table: &'static str,
    pub row: String,
    pub why: String,
}

impl From<BadRow> for Error {
    fn from(bad: BadRow) -> Self {
        Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(bad))
    }
}

pub(super) fn damaged(path: &Path, detail: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: path.display().to_string(), detail: detail.into() }
}

pub(super) fn locked(path: &Path) -> StoreError {
    StoreError::Locked { path: path.display().to_string() }
}

pub(super) fn from_io(path: &Path, error: &io::Error) -> StoreError {
    let text = path.display().to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path: text },
        _ => StoreError::Io { path: text, detail: error.to_string() },
    }
}

pub(super) fn from_sqlite(path: &Path, error: &Error) -> StoreError {
    let text = path.display().to_string();
    let failure = match error {
        Error::SqliteFailure(failure, _) => failure,
        // The statements are constant, so where one does not fit the tables, the tables are not those that we made.
        Error::SqlInputError { msg, .. } => return damaged(path, msg.clone()),
        Error::FromSqlConversionFailure(_, _, why) => return damaged(path, why.to_string()),
        Error::InvalidColumnType(..) | Error::IntegralValueOutOfRange(..) | Error::Utf8Error(..) => {
            return damaged(path, error.to_string());
        }
        _ => return StoreError::Io { path: text, detail: error.to_string() },
    };
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Locked { path: text },
        ErrorCode::DiskFull => StoreError::Full { path: text },
        // Of the index file of the log; "may indicate that the volume is out of space" (sqlite.org/rescode.html).
        _ if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => StoreError::Full { path: text },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => damaged(path, error.to_string()),
        ErrorCode::Unknown if failure.extended_code == ffi::SQLITE_ERROR => damaged(path, error.to_string()),
        ErrorCode::ConstraintViolation => StoreError::Io {
            path: text,
            detail: format!(
                "the change does not fit what is stored ({error}); restart vmfabricd, so that it reads the store anew"
            ),
        },
        _ => StoreError::Io { path: text, detail: error.to_string() },
    }
}

/// Whether a batch failed by its own content, so that others in the same transaction can go on.
pub(super) fn is_of_the_batch(error: &Error) -> bool {
    match error {
        Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::ConstraintViolation | ErrorCode::TooBig)
        }
        _ => true,
    }
}

pub(super) fn is_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
