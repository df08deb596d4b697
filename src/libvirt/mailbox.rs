//! What waits for the libvirt thread. Every entry is a mark, so that any number of events takes bounded room.

use super::publish::PublishedNetwork;
use std::{
    collections::BTreeSet,
    mem::take,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use uuid::Uuid;

/// With more domains marked than this, all are read anew.
const MAX_MARKED: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    pending: Mutex<Pending>,
    changed: Condvar,
}

/// The marks.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) stop: bool,
    /// Why the connection ended.
    pub(super) closed: Option<&'static str>,
    /// All domains are to be read.
    pub(super) resync: bool,
    pub(super) domains: BTreeSet<Uuid>,
    /// libvirt's networks have changed.
    pub(super) networks: bool,
    /// The newest request; it replaces an older one.
    pub(super) publish: Option<PublishRequest>,
    epoch: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct PublishRequest {
    pub(super) wanted: Vec<PublishedNetwork>,
    pub(super) earlier: BTreeSet<Uuid>,
}

impl Pending {
    fn any(&self) -> bool {
        self.stop
            || self.closed.is_some()
            || self.resync
            || !self.domains.is_empty()
            || self.networks
            || self.publish.is_some()
    }
}

impl Mailbox {
    pub(super) fn domain_changed(&self, uuid: Uuid) {
        self.mark(|pending| {
            if pending.domains.len() < MAX_MARKED {
                pending.domains.insert(uuid);
            } else {
                pending.resync = true;
            }
        });
    }

    pub(super) fn resync(&self) {
        self.mark(|pending| pending.resync = true);
    }

    pub(super) fn networks_changed(&self) {
        self.mark(|pending| pending.networks = true);
    }

    pub(super) fn publish(&self, request: PublishRequest) {
        self.mark(|pending| pending.publish = Some(request));
    }

    /// The connection of `epoch` has ended; of no interest if a newer one stands.
    pub(super) fn closed(&self, epoch: u64, reason: &'static str) {
        self.mark(|pending| {
            if pending.epoch == epoch {
                pending.closed.get_or_insert(reason);
            }
        });
    }

    pub(super) fn stop(&self) {
        self.mark(|pending| pending.stop = true);
    }

    pub(super) fn stopped(&self) -> bool {
        self.lock().stop
    }

    /// Begins a connection: the end of an earlier one is forgotten, all other marks are kept.
    pub(super) fn next_epoch(&self) -> u64 {
        let mut pending = self.lock();
        pending.epoch += 1;
        pending.closed = None;
        pending.epoch
    }

    /// Waits for a mark, or until `deadline`, and takes the marks. `stop` stays.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Pending {
        let mut pending = self.wait_while(deadline, |pending| !pending.any());
        let epoch = pending.epoch;
        let taken = take(&mut *pending);
        *pending = Pending { stop: taken.stop, epoch, ..Pending::default() };
        taken
    }

    /// Why the connection ended, if that is told before `deadline`.
    pub(super) fn closed_by(&self, deadline: Instant) -> Option<&'static str> {
        self.wait_while(Some(deadline), |pending| pending.closed.is_none() && !pending.stop).closed
    }

    /// Waits until `deadline` or until told to stop.
    pub(super) fn pause(&self, deadline: Instant) {
        drop(self.wait_while(Some(deadline), |pending| !pending.stop));
    }

    fn wait_while(&self, deadline: Option<Instant>, quiet: impl Fn(&Pending) -> bool) -> MutexGuard<'_, Pending> {
        let mut pending = self.lock();
        while quiet(&pending) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            pending = match left {
                Some(left) if left.is_zero() => break,
                Some(left) => self.changed.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner),
            };
        }
        pending
    }

    fn mark(&self, mark: impl FnOnce(&mut Pending)) {
        mark(&mut self.lock());
        self.changed.notify_one();
    }

    /// A mark is set whole or not at all, so a poisoned lock still guards a sound value.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_coalesce_and_are_taken_once() {
        let mailbox = Mailbox::default();
        for n in 0..10_000 {
            mailbox.domain_changed(Uuid::from_u128(n));
        }
        mailbox.publish(PublishRequest { earlier: [Uuid::nil()].into(), ..PublishRequest::default() });
        mailbox.publish(PublishRequest::default());
        let pending = mailbox.wait(None);
        assert!(pending.resync && pending.domains.len() == MAX_MARKED);
        assert!(pending.publish.expect("newest request").earlier.is_empty());
        assert!(!mailbox.wait(Some(Instant::now())).any());
    }

    #[test]
    fn ignores_the_end_of_an_earlier_connection() {
        let mailbox = Mailbox::default();
        let old = mailbox.next_epoch();
        mailbox.closed(old, "gone");
        let new = mailbox.next_epoch();
        mailbox.closed(old, "gone");
        assert_eq!(mailbox.wait(Some(Instant::now())).closed, None);
        mailbox.closed(new, "gone too");
        assert_eq!(mailbox.wait(None).closed, Some("gone too"));
    }

    #[test]
    fn stop_stays() {
        let mailbox = Mailbox::default();
        mailbox.stop();
        assert!(mailbox.wait(None).stop && mailbox.wait(None).stop && mailbox.stopped());
    }
}
