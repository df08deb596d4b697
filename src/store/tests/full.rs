//! A full disk: an error that says so, nothing changed, and all is well when there is space again.

use super::*;
use crate::store::{
    files::beside,
    sqlite::{Batch, Request, SqliteStore, Worker},
};
use std::{
    fs,
    ops::{Range, RangeInclusive},
    path::Path,
    process::Command,
};
use tokio::sync::{mpsc, oneshot};

fn big(key: &str, kilobytes: usize) -> Write {
    Write::PutMemo { key: key.into(), value: "x".repeat(kilobytes << 10) }
}

fn assert_full(result: Result<(), StoreError>, path: &Path) {
    let error = result.expect_err("there is no space");
    assert!(matches!(&error, StoreError::Full { path: p } if *p == path.display().to_string()), "{error}");
}

/// SQLite's own limit stands in for the disk's.
#[test]
fn only_what_does_not_fit_fails() {
    let (_directory, path) = place();
    let worker = Worker::open(&path).expect("open");
    let pages: u32 = worker.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("count");
    let limit = |_: &rusqlite::Row<'_>| Ok(());
    worker.connection.pragma_update_and_check(None, "max_page_count", pages + 20, limit).expect("limit");
    let (sender, receiver) = mpsc::channel(8);
    let send = |writes| {
        let (reply, answer) = oneshot::channel();
        sender.try_send(Request::Commit(Batch { writes, reply })).expect("there is room");
        answer
    };
    let fits = send(vec![memo("a")]);
    let too_big = send(vec![memo("b"), big("big", 200)]);
    let fits_too = send(vec![memo("c"), big("small", 10)]);
    drop(sender);
    worker.run(receiver);
    wait(fits).expect("an answer").expect("committed");
    assert_full(wait(too_big).expect("an answer"), &path);
    wait(fits_too).expect("an answer").expect("committed");
    let store = SqliteStore::open(&path).expect("open, without the limit");
    assert_eq!(keys(&wait(store.load()).expect("load")), ["a", "c", "small"]);
    wait(store.commit(vec![big("big", 200)])).expect("there is space again");
}

const ROLE: &str = "VMFABRIC_TEST_FULL_DIRECTORY";

/// Runs itself once more, in a mount namespace with a small file system.
#[test]
#[ignore = "needs root: mounts a small tmpfs in a mount namespace of its own"]
fn survives_a_full_disk() {
    on_a_small_disk("survives_a_full_disk", "1m", fill_the_disk);
}

#[test]
#[ignore = "needs root: mounts a small tmpfs in a mount namespace of its own"]
fn renewals_go_on_where_new_leases_do_not() {
    on_a_small_disk("renewals_go_on_where_new_leases_do_not", "16m", renew_on_a_full_disk);
}

fn on_a_small_disk(test: &str, size: &str, body: fn(&Path)) {
    if let Some(directory) = std::env::var_os(ROLE) {
        return body(Path::new(&directory));
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (_, module) = module_path!().split_once("::").expect("a module of the crate");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!(r#"mount -t tmpfs -o size={size},mode=700 tmpfs "$0"; exec "$@""#))
        .arg(directory.path())
        .arg(std::env::current_exe().expect("this test's binary"))
        .args([&format!("{module}::{test}"), "--exact", "--include-ignored", "--nocapture"])
        .env(ROLE, directory.path())
        .output()
        .expect("unshare(1) of util-linux");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn fill_the_disk(directory: &Path) {
    let (path, ballast) = (directory.join("vmfabric.db"), directory.join("ballast"));
    take_all_space(&ballast);
    // Not even a database can be made, and nothing is left of the attempt that would look like one.
    assert_full(SqliteStore::open(&path).map(drop), &path);
    assert!(!path.exists() && !beside(&path, "-new").exists());
    fs::remove_file(&ballast).expect("remove");

    let store = SqliteStore::open(&path).expect("open");
    let mut whole = wait(fill(&store)).expect("fill");
    take_all_space(&ballast);
    // The log has no room left over after it is filled.
    let mut kept = Vec::new();
    let full = loop {
        let key = format!("z{:03}", kept.len());
        match wait(store.commit(vec![memo(&*key), big(&format!("{key}big"), 8)])) {
            Ok(()) => kept.push(key),
            Err(error) => break error,
        }
    };
    assert_full(Err(full), &path);
    for key in &kept {
        whole.memos.push((key.clone(), "1".into()));
        whole.memos.push((format!("{key}big"), "x".repeat(8 << 10)));
    }
    assert_eq!(wait(store.load()).expect("load"), whole);
    fs::remove_file(&ballast).expect("remove");
    wait(store.commit(vec![memo("zzz")])).expect("there is space again");
    whole.memos.push(("zzz".into(), "1".into()));
    drop(store);

    // A full disk at the start is told as such too, or does no harm.
    take_all_space(&ballast);
    match SqliteStore::open(&path) {
        Ok(store) => assert_eq!(wait(store.load()).expect("load"), whole),
        Err(error) => assert_full(Err(error), &path),
    }
    fs::remove_file(&ballast).expect("remove");
    let store = SqliteStore::open(&path).expect("open again");
    assert_eq!(wait(store.load()).expect("load"), whole);
}

fn renew_on_a_full_disk(directory: &Path) {
    let (path, ballast) = (directory.join("vmfabric.db"), directory.join("ballast"));
    let mut store = SqliteStore::open(&path).expect("open");
    wait(store.commit(vec![put_network(1)])).expect("commit");
    for octet in 1..200 {
        wait(store.commit(vec![Write::PutLease(lease(1, octet))])).expect("commit");
    }
    take_all_space(&ballast);
    renew(&store, &path, 1..200, 1_001..=1_059);
    let mut thief = lease(1, 5);
    thief.client = b"another".to_vec();
    assert_full(wait(store.commit(vec![Write::PutLease(thief)])), &path);
    wait(store.commit(vec![Write::DeleteLease { network: network_id(1).0, address: lease(1, 1).address }]))
        .expect("delete");
    for restart in 1..4 {
        drop(store);
        // Others take whatever was given back.
        take_all_space(&directory.join(format!("stopped-{restart}")));
        store = SqliteStore::open(&path).expect("open on a full disk");
        take_all_space(&directory.join(format!("started-{restart}")));
        let leases = wait(store.leases(network_id(1).0)).expect("read");
        assert_eq!(leases.len(), 198);
        let last = 999 + restart * 60;
        assert!(leases.iter().all(|lease| lease.expires == last), "{:?}", leases[0]);
        renew(&store, &path, 2..200, last + 1..=last + 60);
    }
    fs::remove_file(&ballast).expect("remove");
    wait(store.commit(vec![Write::PutLease(lease(1, 200)), memo("a")])).expect("there is space again");
}

/// Renews what is there, and sees what is new refused after each round. 59 rounds are far more than the log holds, so that
/// it is copied into the database again and again.
fn renew(store: &SqliteStore, path: &Path, octets: Range<u8>, rounds: RangeInclusive<u64>) {
    for expires in rounds {
        for octet in octets.clone() {
            let renewal = Write::PutLease(LeaseRecord { expires, ..lease(1, octet) });
            wait(store.commit(vec![renewal])).unwrap_or_else(|error| panic!("until {expires}, {octet}: {error}"));
        }
        for new in [Write::PutLease(lease(1, 200)), memo("a")] {
            assert_full(wait(store.commit(vec![new])), path);
        }
    }
}

fn take_all_space(ballast: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(ballast).expect("create");
    while file.write_all(&[0; 4096]).is_ok() {}
}
