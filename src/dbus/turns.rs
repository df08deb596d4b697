//! Who may have how much under way: of the questions that cost much, one is worked on at a time, and each user has a few
//! that wait, so that nobody keeps others from asking.

use super::Error;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many of something each user, and all together, have at once.
#[derive(Debug, Clone)]
pub struct Quota {
    held: Arc<Mutex<HashMap<u32, usize>>>,
    per_user: usize,
    total: usize,
}

/// One of them; given back when dropped.
#[derive(Debug)]
pub struct Held {
    uid: u32,
    held: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Quota {
    pub fn new(per_user: usize, total: usize) -> Self {
        Self { held: Arc::default(), per_user, total }
    }

    pub fn take(&self, uid: u32) -> Option<Held> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = held.get(&uid).copied().unwrap_or_default();
        if mine >= self.per_user || held.values().sum::<usize>() >= self.total {
            return None;
        }
        held.insert(uid, mine + 1);
        Some(Held { uid, held: Arc::clone(&self.held) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(all.remove(&self.uid)),
        }
    }
}

/// The turns of one kind of question.
#[derive(Debug)]
pub struct Turns {
    one: Arc<Semaphore>,
    waiting: Quota,
}

/// A turn; over when dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Turns {
    pub fn new(per_user: usize, total: usize) -> Self {
        Self { one: Arc::new(Semaphore::new(1)), waiting: Quota::new(per_user, total) }
    }

    /// Waits for a turn. root's own are not limited.
    pub async fn take(&self, uid: u32) -> Result<Turn, Error> {
        let busy = || Error::Busy("many of your requests, or of all users', wait already; try again".into());
        let _waiting = if uid == 0 { None } else { Some(self.waiting.take(uid).ok_or_else(busy)?) };
        let permit = Arc::clone(&self.one).acquire_owned().await;
        Ok(Turn { _permit: permit.map_err(|_| Error::Failed("vmfabricd is stopping".into()))? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_by_user_and_by_all() {
        let quota = Quota::new(4, 128);
        let mine: Vec<_> = (0..4).map(|_| quota.take(1).expect("room")).collect();
        assert!(quota.take(1).is_none());
        let others: Vec<_> = (2..).map_while(|uid| quota.take(uid)).collect();
        assert_eq!(mine.len() + others.len(), 128);
        drop((mine, others));
        assert!(quota.held.lock().expect("not poisoned").is_empty());
    }

    #[tokio::test]
    async fn one_has_its_turn_and_nobody_takes_all_the_places() {
        let turns = Turns::new(2, 3);
        let turn = turns.take(1000).await.expect("the first");
        let waiting = || async { turns.take(1000).await.map(drop) };
        let (one, two, three, other, root) =
            tokio::join!(waiting(), waiting(), waiting(), async { turns.take(1001).await.map(drop) }, async {
                // All the others wait now.
                drop(turn);
                turns.take(0).await.map(drop)
            });
        assert!(one.is_ok() && two.is_ok() && other.is_ok() && root.is_ok());
        assert!(matches!(three, Err(Error::Busy(_))));
    }
}
