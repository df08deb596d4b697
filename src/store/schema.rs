//! The tables, and the way to them from every version that was ever released.

use super::error::{damaged, from_sqlite};
use crate::backend::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// In the file's header: `vmfb`.
const APPLICATION_ID: i32 = 0x766d_6662;

/// What takes a database from version `index` to `index + 1`.
///
/// Specifications refuse fields that they do not know. So whoever adds a field to one adds a step here, an empty one if
/// need be: an older daemon then says that the file is too new instead of taking it for damaged.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE network (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL
    ) STRICT;
    CREATE TABLE subnet (
        id TEXT NOT NULL PRIMARY KEY,
        network_id TEXT NOT NULL REFERENCES network ON DELETE CASCADE,
        name TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL
    ) STRICT;
    CREATE INDEX subnet_network ON subnet (network_id);
    CREATE TABLE port (
        id TEXT NOT NULL PRIMARY KEY,
        network_id TEXT NOT NULL REFERENCES network ON DELETE CASCADE,
        mac TEXT NOT NULL,
        spec TEXT NOT NULL,
        UNIQUE (network_id, mac)
    ) STRICT;
    CREATE TABLE lease (
        network_id TEXT NOT NULL REFERENCES network ON DELETE CASCADE,
        address TEXT NOT NULL,
        client BLOB NOT NULL,
        mac TEXT NOT NULL,
        host_name TEXT,
        port_id TEXT,
        expires INTEGER NOT NULL,
        PRIMARY KEY (network_id, address)
    ) STRICT, WITHOUT ROWID;
    -- No references: these outlive the network until what they tell of is undone.
    CREATE TABLE published (
        network_id TEXT NOT NULL PRIMARY KEY
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE memo (
        key TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE security_group (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL
    ) STRICT;
    CREATE TABLE address_group (
        id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL
    ) STRICT;
",
    // Networks have `dns`.
    "",
    // DHCP options, boot rules, relays and client identifiers of networks, subnets and ports.
    "",
    // IPv6 modes of subnets; what tells DHCPv6 leases apart.
    "
    ALTER TABLE lease ADD COLUMN iaid INTEGER;
    ALTER TABLE lease ADD COLUMN prefix_length INTEGER;
",
];

/// The version of a database. Reads only, so that a file of a newer version stays as it is.
pub(super) fn version(connection: &Connection, path: &Path, migrations: &[&str]) -> Result<usize, StoreError> {
    let fail = |error| from_sqlite(path, &error);
    let found: i64 = pragma(connection, "user_version").map_err(fail)?;
    let application: i64 = pragma(connection, "application_id").map_err(fail)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fail)?;
    let blank = found == 0 && application == 0 && tables == 0;
    if !blank && application != i64::from(APPLICATION_ID) {
        return Err(damaged(path, "it is not a database of vmfabric"));
    }
    let found = u32::try_from(found).map_err(|_| damaged(path, format!("its schema version is {found}")))?;
    let known = u32::try_from(migrations.len()).expect("fewer than 2^32 migrations");
    if found > known {
        return Err(StoreError::TooNew { path: path.display().to_string(), found, known });
    }
    Ok(found as usize)
}

/// Takes a database to the newest version, one transaction a step.
pub(super) fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), StoreError> {
    let from = version(connection, path, migrations)?;
    for (index, step) in migrations.iter().enumerate().skip(from) {
        take_step(connection, step, index + 1).map_err(|error| from_sqlite(path, &error))?;
    }
    Ok(())
}

fn take_step(connection: &mut Connection, step: &str, version: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(step)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", i64::try_from(version).expect("a small number"))?;
    transaction.commit()
}

/// Looks for damage: of pages, of indexes and of references between rows.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let fail = |error| from_sqlite(path, &error);
    let verdict: String = pragma(connection, "integrity_check(1)").map_err(fail)?;
    if verdict != "ok" {
        return Err(damaged(path, verdict.trim_start_matches("*** in database main ***").trim()));
    }
    let mut orphans = connection.prepare("SELECT \"table\", parent FROM pragma_foreign_key_check").map_err(fail)?;
    let mut rows = orphans.query([]).map_err(fail)?;
    if let Some(row) = rows.next().map_err(fail)? {
        let (table, parent): (String, String) = row.try_into().map_err(fail)?;
        return Err(damaged(path, format!("a {table} belongs to a {parent} that is not there")));
    }
    Ok(())
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, pragma: &str) -> rusqlite::Result<T> {
    connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
}
