//! Commits that overlap share a transaction, and fail each for itself.

use super::*;
use crate::store::sqlite::{Batch, MAX_ROUND, Request, SqliteStore, Worker};
use futures_util::{FutureExt, future::join_all};
use tokio::sync::{mpsc, oneshot};

type Answer = oneshot::Receiver<Result<(), StoreError>>;

/// Puts commits into the queue of a worker that has not started yet.
fn queue(commits: impl IntoIterator<Item = Vec<Write>>) -> (mpsc::Receiver<Request>, Vec<Answer>) {
    let commits: Vec<_> = commits.into_iter().collect();
    let (sender, receiver) = mpsc::channel(commits.len());
    let enqueue = |writes| {
        let (reply, answer) = oneshot::channel();
        sender.try_send(Request::Commit(Batch { writes, reply })).expect("there is room");
        answer
    };
    let answers = commits.into_iter().map(enqueue).collect();
    (receiver, answers)
}

fn answer(answer: Answer) -> Result<(), StoreError> {
    wait(answer).expect("every commit is answered")
}

#[test]
fn what_waits_is_one_transaction() {
    let (_directory, path) = place();
    let worker = Worker::open(&path).expect("open");
    let transactions = worker.transactions();
    let (receiver, answers) = queue((0..MAX_ROUND + 1).map(|n| vec![memo(format!("{n:04}"))]));
    worker.run(receiver);
    for one in answers {
        answer(one).expect("committed");
    }
    assert_eq!(transactions.load(std::sync::atomic::Ordering::Relaxed), 2);
    let store = SqliteStore::open(&path).expect("open");
    assert_eq!(wait(store.load()).expect("load").memos.len(), MAX_ROUND + 1);
}

#[test]
fn commits_at_once_take_far_fewer_transactions() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    wait(store.commit(vec![put_network(1)])).expect("commit");
    let before = store.transactions();
    let commits = 1500;
    let writes =
        |n: usize| vec![memo(format!("{n:04}")), Write::PutLease(lease(1, u8::try_from(n % 250).expect("u8")))];
    let results = wait(join_all((0..commits).map(|n| store.commit(writes(n)))));
    results.into_iter().collect::<Result<Vec<_>, _>>().expect("all committed");
    let taken = usize::try_from(store.transactions() - before).expect("a small number");
    assert!(taken <= commits / 10, "{taken} transactions for {commits} commits");
    let loaded = wait(store.load()).expect("load");
    assert_eq!((loaded.memos.len(), loaded.leases.len()), (commits, 250));
}

#[test]
fn a_failing_batch_fails_alone_and_whole() {
    let (_directory, path) = place();
    let worker = Worker::open(&path).expect("open");
    let mut same_name = network(2);
    same_name.name = network(1).name;
    let (receiver, answers) = queue([
        vec![memo("a"), put_network(1)],
        vec![memo("b"), Write::Intent(Change::PutNetwork(same_name))],
        vec![memo("c"), Write::Intent(Change::PutSubnet(subnet(1, 77))), memo("d")],
        vec![memo("e"), Write::Intent(Change::PutPort(port(1, 1, &[])))],
    ]);
    worker.run(receiver);
    let results: Vec<_> = answers.into_iter().map(answer).collect();
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
    let text = results[1].as_ref().expect_err("failed").to_string();
    assert!(text.contains("network.name") && text.contains("restart vmfabricd"), "{text}");
    let loaded = wait(SqliteStore::open(&path).expect("open").load()).expect("load");
    assert_eq!(keys(&loaded), ["a", "e"]);
    assert_eq!((loaded.networks, loaded.ports), (vec![network(1)], vec![port(1, 1, &[])]));
}

#[test]
fn a_lease_of_a_network_that_is_gone_is_dropped() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    let writes = vec![put_network(1), Write::PutLease(lease(1, 5)), Write::PutLease(lease(2, 5)), memo("a")];
    wait(store.commit(writes)).expect("commit");
    let gone = vec![
        Write::Intent(Change::DeleteNetwork(network_id(1))),
        Write::PutLease(lease(1, 6)),
        Write::DeleteLease { network: network_id(1).0, address: lease(1, 5).address },
        memo("b"),
    ];
    wait(store.commit(gone)).expect("commit");
    let loaded = wait(store.load()).expect("load");
    assert_eq!((loaded.leases.len(), keys(&loaded)), (0, vec!["a", "b"]));
}

#[test]
fn a_load_sees_what_was_committed_before_it() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    let (first, loaded, second) =
        wait(async { tokio::join!(store.commit(vec![memo("a")]), store.load(), store.commit(vec![memo("b")])) });
    first.and(second).expect("committed");
    assert_eq!(keys(&loaded.expect("loaded")), ["a"]);
}

#[test]
fn what_is_queued_is_committed_when_it_is_dropped() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    for n in 0..200 {
        // One poll hands it over; nobody waits for its end.
        let _ = store.commit(vec![memo(format!("{n:03}"))]).now_or_never();
    }
    drop(store);
    let loaded = wait(SqliteStore::open(&path).expect("open").load()).expect("load");
    assert_eq!(loaded.memos.len(), 200);
}

#[test]
fn an_empty_commit_costs_nothing() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).expect("open");
    wait(store.commit(Vec::new())).expect("commit");
    assert_eq!(store.transactions(), 0);
}
