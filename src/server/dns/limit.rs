use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How much of something a network's guests may hold at once: together, and each address for itself, so that one guest
/// cannot take it from its neighbours.
#[derive(Debug)]
pub(super) struct Limit {
    total: usize,
    per_client: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

impl Limit {
    pub fn new(total: usize, per_client: usize) -> Arc<Self> {
        Arc::new(Self { total, per_client, held: Mutex::default() })
    }

    /// One more for `client`, until the slot is dropped; `None` at the limit.
    pub fn take(self: &Arc<Self>, client: IpAddr) -> Option<Slot> {
        let mut held = self.lock();
        if held.total >= self.total || held.by_client.get(&client).is_some_and(|&n| n >= self.per_client) {
            return None;
        }
        held.total += 1;
        *held.by_client.entry(client).or_default() += 1;
        Some(Slot { limit: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Slot {
    limit: Arc<Limit>,
    client: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.limit.lock();
        held.total -= 1;
        if let Some(n) = held.by_client.get_mut(&self.client) {
            *n -= 1;
            if *n == 0 {
                held.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_all() {
        let limit = Limit::new(3, 2);
        let [a, b] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let first = limit.take(a).expect("free");
        let _second = limit.take(a).expect("free");
        assert!(limit.take(a).is_none(), "its own share is used up");
        let _third = limit.take(b).expect("free");
        assert!(limit.take(b).is_none(), "all are used up");
        drop(first);
        drop(limit.take(b).expect("free again"));
        assert_eq!(limit.lock().by_client.len(), 2);
    }
}
