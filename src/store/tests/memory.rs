use super::*;
use crate::store::memory::MemoryStore;
use futures_util::FutureExt;

fn full() -> StoreError {
    StoreError::Full { path: "x".into() }
}

#[test]
fn shares_its_content_with_its_clones() {
    let store = MemoryStore::new().expect("new");
    let whole = wait(fill(&store)).expect("fill");
    assert_eq!(wait(store.clone().load()).expect("load"), whole);
    assert_eq!(store.commits(), 1);
}

#[test]
fn fails_when_it_is_told_to_and_changes_nothing_then() {
    let store = MemoryStore::new().expect("new");
    let commit = |key: &str| wait(store.commit(vec![memo(key)]));
    store.fail_nth(2, full());
    commit("a").expect("the first");
    assert!(matches!(commit("b"), Err(StoreError::Full { .. })));
    commit("c").expect("the third");
    store.fail_from(2, StoreError::Closed);
    commit("d").expect("the first");
    for key in ["e", "f"] {
        assert!(matches!(commit(key), Err(StoreError::Closed)));
    }
    store.heal();
    commit("g").expect("healed");
    assert_eq!(keys(&wait(store.load()).expect("load")), ["a", "c", "d", "g"]);
    assert_eq!(store.commits(), 4);
}

#[test]
fn a_batch_that_does_not_fit_changes_nothing() {
    let store = MemoryStore::new().expect("new");
    let writes = vec![memo("a"), Write::Intent(Change::PutPort(port(1, 1, &[])))];
    let error = wait(store.commit(writes)).expect_err("no such network");
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert_eq!(wait(store.load()).expect("load"), Loaded::default());
}

#[test]
fn holds_commits_back() {
    wait(async {
        let store = MemoryStore::new().expect("new");
        let hold = store.hold().await;
        let mut commit = Box::pin(store.commit(vec![memo("a")]));
        assert!((&mut commit).now_or_never().is_none());
        assert_eq!(store.commits(), 0);
        drop(hold);
        commit.await.expect("committed");
        assert_eq!(store.commits(), 1);
    });
}
