//! A process that is killed loses nothing that it acknowledged, and no lock stays behind.

use super::*;
use crate::store::sqlite::SqliteStore;
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const ROLE: &str = "VMFABRIC_TEST_CRASH_DATABASE";

/// Is both sides: with [`ROLE`] set it commits until it is killed.
#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    if let Some(path) = std::env::var_os(ROLE) {
        return commit_forever(Path::new(&path));
    }
    let (_directory, path) = place();
    let mut acknowledged = BTreeSet::new();
    for enough in [1, 40, 300, 3, 500] {
        acknowledged.extend(kill_after(enough, &path));
        let store = open_soon(&path);
        let loaded = wait(store.load()).expect("load");
        let kept: BTreeSet<_> = loaded.memos.iter().map(|(key, _)| key.clone()).collect();
        let lost: Vec<_> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        // Each commit wrote both or neither.
        assert_eq!(loaded.published.len(), kept.len());
    }
    assert!(acknowledged.len() >= 844);
}

/// Runs the other side until it has acknowledged so many commits; gives all that it acknowledged.
fn kill_after(enough: usize, path: &Path) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().expect("this test's binary"))
        .args([&format!("{}::nothing_acknowledged_is_lost_by_a_kill", module()), "--exact", "--nocapture"])
        .env(ROLE, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut acknowledged = Vec::new();
    let mut note = |line: Option<std::io::Result<String>>| {
        let line = line.transpose().expect("text")?;
        acknowledged.extend(line.strip_prefix("committed ").map(str::to_owned));
        Some(acknowledged.len())
    };
    while note(lines.next()).expect("it ended before it was killed") < enough {}
    let error = SqliteStore::open(path).expect_err("it has the database");
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    child.kill().expect("kill");
    while note(lines.next()).is_some() {}
    child.wait().expect("wait");
    acknowledged
}

fn commit_forever(path: &Path) {
    let store = SqliteStore::open(path).expect("open");
    let commit = async || {
        loop {
            let id = Uuid::new_v4();
            store.commit(vec![memo(id.to_string()), Write::PutPublished(id)]).await.expect("commit");
            // One write a line, so that a line is whole or absent.
            let line = format!("committed {id}\n");
            if std::io::stdout().write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    };
    wait(futures_util::future::join_all((0..16).map(|_| commit())));
}

/// A killed process's lock goes when the kernel has taken it apart.
fn open_soon(path: &Path) -> SqliteStore {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match SqliteStore::open(path) {
            Ok(store) => return store,
            Err(StoreError::Locked { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn module() -> &'static str {
    module_path!().split_once("::").expect("a module of the crate").1
}
