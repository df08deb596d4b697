//! What is kept across openings, who may open, and from which versions.

use super::*;
use crate::store::{
    files::beside,
    schema,
    sqlite::{SqliteStore, Worker},
};
use rusqlite::Connection;
use std::{fs, os::unix::fs::PermissionsExt};

#[test]
fn keeps_everything_across_a_reopening() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    assert_eq!(wait(store.load()).expect("load"), Loaded::default());
    let whole = wait(fill(&store)).expect("fill");
    assert_eq!(wait(store.load()).expect("load"), whole);
    drop(store);
    let store = SqliteStore::open(&path).expect("open again");
    assert_eq!(wait(store.load()).expect("load"), whole);
}

#[test]
fn forgets_what_is_deleted() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    let whole = wait(fill(&store)).expect("fill");
    let deletes = vec![
        Write::DeleteLease { network: network_id(1).0, address: "10.0.1.9".parse().expect("an address") },
        Write::DeletePublished(network_id(1).0),
        Write::DeleteMemo { key: "default-network-made".into() },
        Write::Intent(Change::DeletePort(port_id(1))),
        Write::Intent(Change::DeleteSubnet(subnet_id(3))),
        // What is not there need not be deleted.
        Write::Intent(Change::DeleteNetwork(network_id(99))),
        Write::DeleteMemo { key: "no such".into() },
    ];
    wait(store.commit(deletes)).expect("commit");
    let loaded = wait(store.load()).expect("load");
    assert_eq!(loaded.leases, whole.leases[1..]);
    assert_eq!(loaded.published, whole.published[1..]);
    assert_eq!(loaded.memos, whole.memos[1..]);
    assert_eq!(loaded.subnets, whole.subnets[..2]);
    assert_eq!(loaded.ports, [port(2, 2, &[(2, 20)]), port(3, 2, &[])]);

    wait(store.commit(vec![Write::Intent(Change::DeleteNetwork(network_id(2)))])).expect("commit");
    let loaded = wait(store.load()).expect("load");
    assert_eq!(loaded.networks, whole.networks[..1]);
    assert_eq!(loaded.subnets, whole.subnets[..1]);
    assert_eq!(loaded.ports, []);
    assert_eq!(loaded.leases, whole.leases[1..2]);
}

#[test]
fn a_replaced_parent_keeps_its_children() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    let mut whole = wait(fill(&store)).expect("fill");
    whole.networks[1].name = "renamed".parse().expect("a name");
    whole.subnets[1].lease_seconds = 60;
    whole.leases[0].expires += 1;
    let writes = vec![
        Write::Intent(Change::PutNetwork(whole.networks[1].clone())),
        Write::Intent(Change::PutSubnet(whole.subnets[1].clone())),
        Write::PutLease(whole.leases[0].clone()),
        Write::PutPublished(whole.published[0]),
    ];
    wait(store.commit(writes)).expect("commit");
    assert_eq!(wait(store.load()).expect("load"), whole);
}

#[test]
fn a_commit_is_on_disk_when_it_returns() {
    let (_directory, path) = place();
    let worker = Worker::open(&path).expect("open");
    let value = |pragma: &str| -> String {
        let sql = format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}");
        worker.connection.query_row(&sql, [], |row| row.get(0)).expect(pragma)
    };
    // FULL is 2 (sqlite.org/pragma.html#pragma_synchronous).
    assert_eq!((value("journal_mode"), value("synchronous")), ("wal".into(), "2".into()));
    assert_eq!(value("foreign_keys"), "1");
}

#[test]
fn only_its_owner_can_read_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("lib/vmfabric/vmfabric.db");
    let mode = |path: &std::path::Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    let store = SqliteStore::open(&path).expect("open");
    wait(fill(&store)).expect("fill");
    assert_eq!(mode(path.parent().expect("a parent")), 0o700);
    for suffix in ["", "-wal", "-shm", "-lock"] {
        assert_eq!(mode(&beside(&path, suffix)), 0o600, "{suffix}");
    }
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    let _store = SqliteStore::open(&path).expect("open again");
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn has_one_user_at_a_time() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    let error = SqliteStore::open(&path).expect_err("a second one");
    assert!(matches!(&error, StoreError::Locked { path: p } if *p == path.display().to_string()), "{error}");
    drop(store);
    SqliteStore::open(&path).expect("open again");
}

#[test]
fn another_programs_transaction_locks_it() {
    let (_directory, path) = place();
    drop(SqliteStore::open(&path).expect("open"));
    let other = Connection::open(&path).expect("another program");
    let store = SqliteStore::open(&path).expect("open beside it");
    other.execute_batch("BEGIN IMMEDIATE").expect("begin");
    let error = wait(store.commit(vec![memo("a")])).expect_err("locked");
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    other.execute_batch("ROLLBACK").expect("rollback");
    wait(store.commit(vec![memo("b")])).expect("free again");
    assert_eq!(keys(&wait(store.load()).expect("load")), ["b"]);
}

#[test]
fn takes_a_blank_database_to_the_newest_version() {
    let (_directory, path) = place();
    Connection::open(&path).expect("open").execute_batch("VACUUM").expect("a file without tables");
    let store = SqliteStore::open(&path).expect("migrate");
    let whole = wait(fill(&store)).expect("fill");
    assert_eq!(wait(store.load()).expect("load"), whole);
    drop(store);
    let raw = Connection::open(&path).expect("open");
    assert_eq!(schema::version(&raw, &path, schema::MIGRATIONS).expect("version"), schema::MIGRATIONS.len());
}

#[test]
fn a_migration_is_done_whole_or_not_at_all() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    let whole = wait(fill(&store)).expect("fill");
    drop(store);
    let now = schema::MIGRATIONS.len();
    let mut raw = Connection::open(&path).expect("open");
    let good = "ALTER TABLE memo ADD COLUMN note TEXT";
    let bad = "CREATE TABLE extra (a); INSERT INTO no_such_table VALUES (1)";
    let steps: Vec<&str> = schema::MIGRATIONS.iter().copied().chain([good, bad]).collect();
    schema::migrate(&mut raw, &path, &steps).expect_err("the last step is bad");
    assert_eq!(schema::version(&raw, &path, &steps).expect("version"), now + 1);
    let extra: i64 =
        raw.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'extra'", [], |row| row.get(0)).expect("count");
    assert_eq!(extra, 0);
    let steps: Vec<&str> = schema::MIGRATIONS.iter().copied().chain([good, ""]).collect();
    schema::migrate(&mut raw, &path, &steps).expect("an empty step is one too");
    assert_eq!(schema::version(&raw, &path, &steps).expect("version"), now + 2);
    assert_eq!(crate::store::statements::load(&raw).expect("load"), whole);
}

#[test]
fn leaves_a_newer_version_alone() {
    let (_directory, path) = place();
    drop(SqliteStore::open(&path).expect("open"));
    Connection::open(&path).expect("open").pragma_update(None, "user_version", 1000).expect("set");
    let before = fs::read(&path).expect("read");
    let error = SqliteStore::open(&path).expect_err("too new");
    let known = u32::try_from(schema::MIGRATIONS.len()).expect("a small number");
    assert!(matches!(error, StoreError::TooNew { found: 1000, known: k, .. } if k == known), "{error}");
    assert!(fs::read(&path).expect("read") == before, "it was written to");
}

#[test]
fn says_what_it_cannot_open() {
    let (directory, _) = place();
    fs::create_dir(directory.path().join("sub")).expect("mkdir");
    fs::write(directory.path().join("file"), "x").expect("write");
    for (path, word) in [("sub", "not a file"), ("file/vmfabric.db", "file")] {
        let error = SqliteStore::open(&directory.path().join(path)).expect_err("no database there");
        assert!(matches!(&error, StoreError::Io { .. }) && error.to_string().contains(word), "{error}");
    }
}

#[test]
fn an_attempt_that_was_cut_short_is_no_obstacle() {
    let (_directory, path) = place();
    fs::write(beside(&path, "-new"), "half a data").expect("write");
    fs::write(beside(&path, "-new-journal"), "base").expect("write");
    let store = SqliteStore::open(&path).expect("open");
    wait(fill(&store)).expect("fill");
    assert!(!beside(&path, "-new").exists());
}
