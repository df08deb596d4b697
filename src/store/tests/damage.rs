//! A damaged database is said to be damaged; it is neither used nor made anew over.

use super::*;
use crate::store::{files::beside, sqlite::SqliteStore};
use rusqlite::Connection;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A filled database, closed, of more pages than tables.
fn filled() -> (TempDir, PathBuf, Loaded) {
    let (directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    wait(fill(&store)).expect("fill");
    let ports = (10..=200).map(|n| Write::Intent(Change::PutPort(port(n, 1, &[(1, n)]))));
    let leases = (10..=200).map(|n| Write::PutLease(lease(1, n)));
    wait(store.commit(ports.chain(leases).collect())).expect("commit");
    let whole = wait(store.load()).expect("load");
    (directory, path, whole)
}

fn read(path: &Path) -> Result<Loaded, StoreError> {
    let store = SqliteStore::open(path)?;
    wait(store.load())
}

fn assert_damaged(path: &Path, what: &str) {
    let before = fs::read(path).expect("read");
    let error = read(path).err().unwrap_or(StoreError::Closed);
    assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()) && text.contains("restore it from a backup"), "{text}");
    assert!(fs::read(path).expect("read") == before, "{what}: it was written to");
}

#[test]
fn overwritten_blocks_are_noticed_wherever_they_are() {
    let (_directory, path, whole) = filled();
    let good = fs::read(&path).expect("read");
    let mut damaged = 0;
    for start in (0..good.len()).step_by(512) {
        let mut bad = good.clone();
        bad[start..start + 512].fill(0xa5);
        fs::write(&path, &bad).expect("write");
        match read(&path) {
            Err(StoreError::Damaged { .. }) => damaged += 1,
            // The block was free space.
            Ok(loaded) if loaded == whole => {}
            Ok(_) => panic!("block at {start}: other content than was written"),
            Err(error) => panic!("block at {start}: {error}"),
        }
    }
    assert!(damaged > good.len() / 512 / 2, "{damaged} of {} blocks", good.len() / 512);
}

#[test]
fn truncated_garbage_and_foreign_files_are_refused() {
    let (directory, path, _) = filled();
    let good = fs::read(&path).expect("read");
    for length in [0, 1, 99, 512, 4096, 5000, good.len() / 2, good.len() - 4096, good.len() - 2048, good.len() - 1] {
        fs::write(&path, &good[..length]).expect("write");
        assert_damaged(&path, &format!("cut to {length}"));
    }
    fs::write(&path, "garbage ".repeat(4096)).expect("write");
    assert_damaged(&path, "garbage");
    fs::write(&path, vec![0; 8192]).expect("write");
    assert_damaged(&path, "zeros");

    let foreign = directory.path().join("foreign.db");
    Connection::open(&foreign).expect("open").execute_batch("CREATE TABLE a (b)").expect("create");
    assert_damaged(&foreign, "foreign");
}

#[test]
fn rows_that_make_no_sense_are_refused() {
    for (sql, word) in [
        ("UPDATE port SET spec = '{}'", "port '00000000-0000-0000-0000-000000003001'"),
        ("UPDATE port SET spec = json_set(spec, '$.colour', 'red')", "colour"),
        ("UPDATE lease SET mac = 'x' WHERE address = '10.0.1.9'", "lease '10.0.1.9'"),
        ("UPDATE lease SET address = 'x' WHERE address = '10.0.1.9'", "lease 'x'"),
        ("UPDATE memo SET value = CAST(x'ff' AS TEXT)", "utf-8"),
        ("INSERT INTO published VALUES ('x')", "published 'x'"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM network WHERE name = 'net1'", "belongs to a network"),
        ("DROP TABLE memo", "no such table: memo"),
        ("PRAGMA user_version = -1", "-1"),
    ] {
        let (_directory, path, _) = filled();
        Connection::open(&path).expect("open").execute_batch(sql).expect(sql);
        assert_damaged(&path, sql);
        let text = read(&path).expect_err("damaged").to_string();
        assert!(text.contains(word), "{sql}: {text}");
    }
}

#[test]
fn the_log_of_a_lost_database_is_not_replayed_into_a_new_one() {
    let (_directory, path) = place();
    let log = beside(&path, "-wal");
    fs::write(&log, "log").expect("write");
    let error = SqliteStore::open(&path).expect_err("a log without its database");
    assert!(matches!(&error, StoreError::Damaged { path, .. } if *path == log.display().to_string()), "{error}");
    assert!(!path.exists());
    fs::remove_file(&log).expect("remove");
    SqliteStore::open(&path).expect("open");
}
