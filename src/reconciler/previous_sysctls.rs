//! What kernel parameters of others' links were before they were set: on disk before the change, until it is undone.

use crate::{
    backend::{Loaded, Store, StoreError, Write},
    datapath::Sysctl,
};
use std::collections::BTreeMap;

const PREFIX: &str = "sysctl:";
/// The memo that says in which boot of the host the others were written.
const BOOT: &str = "boot";

pub(super) fn memo(key: &Sysctl) -> String {
    format!("{PREFIX}{}", key.path())
}

/// As the store remembers it.
pub(crate) fn previous_of(loaded: &Loaded) -> BTreeMap<Sysctl, String> {
    let parse = |(key, value): &(String, String)| Some((Sysctl::at(key.strip_prefix(PREFIX)?)?, value.clone()));
    loaded.memos.iter().filter_map(parse).collect()
}

/// Forgets what was remembered before the host was booted: kernel parameters begin anew then. `boot` is the kernel's
/// `random/boot_id`.
pub(crate) async fn forget_former_boot(store: &impl Store, boot: &str) -> Result<(), StoreError> {
    let loaded = store.load().await?;
    if loaded.memos.iter().any(|(key, value)| key == BOOT && value == boot) {
        return Ok(());
    }
    let now = Write::PutMemo { key: BOOT.to_owned(), value: boot.to_owned() };
    store.commit(forgetting(&loaded).chain([now]).collect()).await
}

/// What takes all of it out of the store.
pub(crate) fn forgetting(loaded: &Loaded) -> impl Iterator<Item = Write> {
    let keys = loaded.memos.iter().filter(|(key, _)| key.starts_with(PREFIX));
    keys.map(|(key, _)| Write::DeleteMemo { key: key.clone() })
}
