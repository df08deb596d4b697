//! Space kept for what must go on when the disk is full: renewals of leases, and deletions.
//!
//! A renewal changes a row in place. It needs room in the log, and room in the database for what the log holds already;
//! both are allocated beforehand. Where no more can be allocated, whatever would grow the database is refused, with the
//! reserve untouched. SQLite removes the log when it closes the database; a file holds that space until it is opened again.

use super::files::beside;
use crate::backend::Write;
use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::fstatvfs,
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Bytes for the log at most, and as many beyond the database's end. Of a small file system an eighth of what is free.
const MOST: u64 = 8 << 20;
/// Less than this is of no use.
const LEAST: u64 = 64 << 10;
/// Bytes that the log has besides, for what else needs room when a database is opened: directories, the file system's own.
const BESIDE: u64 = 128 << 10;
/// Bytes of the log's index, a file that comes and goes with the log (sqlite.org/walformat.html, section 2).
const INDEX: u64 = 32 << 10;

#[derive(Debug)]
pub(super) struct Reserve {
    database: File,
    /// Bytes, of each.
    size: u64,
}

/// Bytes that were held for the log while the database was closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held(u64);

impl Held {
    /// Gives back the space that was held for a database, which is about to be opened.
    pub(super) fn release(path: &Path) -> Self {
        let file = beside(path, "-reserve");
        let held = fs::metadata(&file).map_or(0, |meta| allocated(&meta));
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!(%error, "{}", file.display()),
            _ => {}
        }
        Self(held.saturating_sub(BESIDE + INDEX))
    }
}

impl Reserve {
    /// Of a database whose log is open. `None` where the file system has no room for one, or cannot allocate beforehand.
    pub(super) fn take(path: &Path, held: Held) -> Option<Self> {
        Self::try_take(path, held)
            .inspect_err(|error| tracing::warn!(%error, "no disk space is kept for renewals"))
            .ok()?
    }

    fn try_take(path: &Path, Held(held): Held) -> io::Result<Option<Self>> {
        let database = OpenOptions::new().read(true).write(true).open(path)?;
        let log = OpenOptions::new().write(true).open(beside(path, "-wal"))?;
        let free = free(&database)?;
        // Who was killed has left the log as it was.
        let there = allocated(&log.metadata()?);
        let size = (free / 16).max(held).max(there.saturating_sub(BESIDE));
        let size = size.min(free + there).min(MOST) & !4095;
        if size < LEAST {
            return Ok(None);
        }
        allocate(&log, (size + BESIDE).min(free + there))?;
        let reserve = Self { database, size };
        if let Err(error) = reserve.extend() {
            tracing::debug!(%error, "the database is not to grow until there is space");
        }
        Ok(Some(reserve))
    }

    /// Holds what closing the database gave back until it is opened again.
    pub(super) fn hold(self, path: &Path) {
        let hold = || {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(beside(path, "-reserve"))?;
            allocate(&file, (self.size + BESIDE + INDEX).min(free(&self.database)?))
        };
        if let Err(error) = hold() {
            tracing::warn!(%error, "no disk space is kept for renewals after the next start");
        }
    }

    /// Pages of 4 KiB after which the log is to be copied into the database: well before it fills what is kept for it.
    pub(super) fn checkpoint_pages(&self) -> u32 {
        // At most 1,000.
        (self.size / 4096 / 2).min(1000) as u32
    }

    /// Whether the database may grow. Allocates anew each time: what lies beyond the end goes whenever the log is copied
    /// into the database, which SQLite then cuts to its length.
    pub(super) fn allows_growth(&self) -> bool {
        self.extend().is_ok() && self.has_space()
    }

    /// What is allocated already shows nothing of a disk that others fill.
    fn has_space(&self) -> bool {
        free(&self.database).is_ok_and(|bytes| bytes > 0)
    }

    fn extend(&self) -> io::Result<()> {
        allocate(&self.database, self.database.metadata()?.len() + self.size)
    }
}

/// Whether a write may need more space than there was: a lease is told by the database.
pub(super) fn grows(write: &Write) -> bool {
    use crate::intent::Change;
    match write {
        // Every one by its name, so that a new one is thought of here.
        Write::Intent(change) => match change {
            Change::DeleteNetwork(_)
            | Change::DeleteSubnet(_)
            | Change::DeletePort(_)
            | Change::DeleteSecurityGroup(_)
            | Change::DeleteAddressGroup(_) => false,
            Change::PutNetwork(_)
            | Change::PutSubnet(_)
            | Change::PutPort(_)
            | Change::PutSecurityGroup(_)
            | Change::PutAddressGroup(_) => true,
        },
        Write::PutLease(_) | Write::DeleteLease { .. } | Write::DeletePublished(_) | Write::DeleteMemo { .. } => false,
        Write::PutPublished(_) | Write::PutMemo { .. } => true,
    }
}

/// Bytes that anybody may have of a file's file system.
fn free(file: &File) -> io::Result<u64> {
    let space = fstatvfs(file)?;
    Ok((space.blocks_available() as u64).saturating_mul(space.fragment_size() as u64))
}

/// Bytes, those beyond the file's end too (`st_blocks` of stat(2) counts 512 each).
fn allocated(meta: &fs::Metadata) -> u64 {
    meta.blocks() * 512
}

/// Beyond the file's end, so that whoever reads it sees no difference.
fn allocate(file: &File, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).map_err(io::Error::other)?;
    Ok(fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::{AddressGroupId, Change, NetworkId, PortId, SecurityGroupId, SubnetId};
    use uuid::Uuid;

    #[test]
    fn whatever_is_deleted_may_be_on_a_full_disk() {
        let id = Uuid::from_u128(1);
        let deletions = [
            Change::DeleteNetwork(NetworkId(id)),
            Change::DeleteSubnet(SubnetId(id)),
            Change::DeletePort(PortId(id)),
            Change::DeleteSecurityGroup(SecurityGroupId(id)),
            Change::DeleteAddressGroup(AddressGroupId(id)),
        ];
        for change in deletions {
            let write = Write::Intent(change);
            assert!(!grows(&write), "{write:?}");
        }
        assert!(!grows(&Write::DeleteMemo { key: "k".into() }));
        assert!(grows(&Write::PutMemo { key: "k".into(), value: "v".into() }));
    }
}
