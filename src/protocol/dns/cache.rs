//! Upstreams' answers, kept for as long as they say, and longer where that is wanted (RFC 8767).

use super::upstream::{Ask, Said};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// What is kept for all networks together; see [`Budget`].
pub const MAX_BYTES: usize = 64 << 20;
/// What one network's answers may take.
pub const MAX_NETWORK_BYTES: usize = 8 << 20;
/// A longer answer is not kept.
const MAX_ANSWER: usize = 16 << 10;
/// What an entry takes beside its answer and its name: the map's share, the slot, two allocations' heads.
const OVERHEAD: usize = 320;
/// How long a failure is remembered (RFC 9520 section 3.2: at least 1 s), so that guests that ask again and again do
/// not make the upstreams worse.
const FAILURE: Duration = Duration::from_secs(2);
/// What a stale answer is given as, seconds, and how long after a failure the upstreams are left alone (RFC 8767
/// section 5).
pub(super) const STALE_TTL: u32 = 30;
const STALE_RECHECK: Duration = Duration::from_secs(30);

/// Bytes that all caches together may take.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicUsize>);

impl Default for Budget {
    fn default() -> Self {
        Self::new(MAX_BYTES)
    }
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    fn take(&self, bytes: usize) -> bool {
        let left = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What tells one question from another: wire name, type, and the flags that change the answer.
#[derive(Clone, Copy)]
pub(super) struct Key {
    len: usize,
    bytes: [u8; 258],
}

impl Key {
    pub fn new(ask: &Ask) -> Self {
        let (mut bytes, len) = ([0; 258], ask.name.len());
        bytes[..len].copy_from_slice(&ask.name);
        bytes[len..len + 2].copy_from_slice(&ask.record_type.to_be_bytes());
        bytes[len + 2] = u8::from(ask.dnssec_ok) | u8::from(ask.checking_disabled) << 1;
        Self { len: len + 3, bytes }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// One network's cache. When it is full, what was not asked for lately goes (CLOCK).
#[derive(Debug)]
pub(super) struct Cache {
    by_key: HashMap<Arc<[u8]>, usize>,
    slots: Vec<Option<Entry>>,
    free: Vec<usize>,
    hand: usize,
    bytes: usize,
    max_bytes: usize,
    budget: Budget,
}

#[derive(Debug)]
struct Entry {
    key: Arc<[u8]>,
    said: Said,
    stored: Duration,
    /// When it ends, not counting staleness.
    ends: Duration,
    /// Until when it is given though it is stale, and nobody is asked.
    recheck: Duration,
    used: bool,
    /// Whether it stands for a failure to get an answer.
    failure: bool,
}

impl Entry {
    fn size(&self) -> usize {
        OVERHEAD + self.key.len() + self.said.body.len() + 2 * self.said.ttls.len()
    }
}

/// What the cache has of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hit<'c> {
    /// An answer; its times to live are to be lowered by `age` seconds, or all set to [`STALE_TTL`].
    Answer {
        said: &'c Said,
        age: u32,
        stale: bool,
    },
    /// The upstreams failed a moment ago.
    Failure,
    Miss,
}

impl Cache {
    pub fn new(max_bytes: usize, budget: Budget) -> Self {
        let (by_key, slots, free) = Default::default();
        Self { by_key, slots, free, hand: 0, bytes: 0, max_bytes, budget }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&mut self, key: &[u8], now: Duration) -> Hit<'_> {
        let Some(entry) = self.by_key.get(key).and_then(|&slot| self.slots.get_mut(slot)?.as_mut()) else {
            return Hit::Miss;
        };
        entry.used = true;
        match entry {
            Entry { failure: true, ends, .. } => {
                if now < *ends {
                    Hit::Failure
                } else {
                    Hit::Miss
                }
            }
            Entry { said, stored, ends, recheck, .. } if now < *ends || now < *recheck => {
                let stale = now >= *ends;
                let age = u32::try_from(now.saturating_sub(*stored).as_secs()).unwrap_or(u32::MAX);
                Hit::Answer { said, age, stale }
            }
            _ => Hit::Miss,
        }
    }

    /// An answer past its end, for want of a better one, if it is not older than that; `None`: never.
    pub fn stale(&self, key: &[u8], now: Duration, max_stale: Option<Duration>) -> Option<&Said> {
        let max_stale = max_stale?;
        let entry = self.by_key.get(key).and_then(|&slot| self.slots.get(slot)?.as_ref())?;
        let usable = !entry.failure && now < entry.ends + max_stale;
        usable.then_some(&entry.said)
    }

    /// Keeps an answer, if it may be kept.
    pub fn put(&mut self, key: &[u8], said: Said, now: Duration) {
        match said.ttl {
            Some(ttl) if ttl > 0 && said.body.len() <= MAX_ANSWER => {
                self.insert(key, said, now, now + Duration::from_secs(ttl.into()), false);
            }
            _ => self.remove(key),
        }
    }

    /// The upstreams failed. A stale answer, where there is one, will do for a while; else the failure is remembered.
    /// Whether there is one.
    pub fn put_failure(&mut self, key: &[u8], now: Duration, max_stale: Option<Duration>) -> bool {
        if self.stale(key, now, max_stale).is_some() {
            let slot = self.by_key.get(key).copied();
            if let Some(entry) = slot.and_then(|slot| self.slots.get_mut(slot)?.as_mut()) {
                entry.recheck = now + STALE_RECHECK;
            }
            return true;
        }
        let (body, ttls) = Default::default();
        let said = Said { body, counts: [0; 3], code: 2, authentic: false, ttls, ttl: None, private: false };
        self.insert(key, said, now, now + FAILURE, true);
        false
    }

    pub fn clear(&mut self) {
        self.budget.give(self.bytes);
        *self = Self::new(self.max_bytes, self.budget.clone());
    }

    fn insert(&mut self, key: &[u8], said: Said, now: Duration, ends: Duration, failure: bool) {
        self.remove(key);
        let key: Arc<[u8]> = key.into();
        let recheck = Duration::ZERO;
        let entry = Entry { key: Arc::clone(&key), said, stored: now, ends, recheck, used: false, failure };
        let size = entry.size();
        while self.bytes + size > self.max_bytes || !self.budget.take(size) {
            if !self.evict(now) {
                return;
            }
        }
        self.bytes += size;
        let slot = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(place) => *place = Some(entry),
            None => self.slots.push(Some(entry)),
        }
        self.by_key.insert(key, slot);
    }

    /// Makes room; `false` where nothing is left to go.
    fn evict(&mut self, now: Duration) -> bool {
        // The second round finds nothing used.
        for _ in 0..2 * self.slots.len() {
            let at = self.hand % self.slots.len();
            self.hand = at + 1;
            let Some(entry) = &mut self.slots[at] else { continue };
            if now < entry.ends && std::mem::take(&mut entry.used) {
                continue;
            }
            let key = Arc::clone(&entry.key);
            self.remove(&key);
            return true;
        }
        false
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(slot) = self.by_key.remove(key) else { return };
        if let Some(entry) = self.slots.get_mut(slot).and_then(Option::take) {
            let size = entry.size();
            self.bytes -= size;
            self.budget.give(size);
            self.free.push(slot);
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}
