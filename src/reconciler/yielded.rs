//! Limits of traffic that somebody took away.
//!
//! libvirt's `virsh domiftune` deletes what it finds at a tap and then adds its own: were ours put back in between, its
//! command would fail. So they are put back only after a rest, unless another's are there by then.

use crate::{
    datapath::{Change, Datapath, Limit, Way},
    net::IfName,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

const REST: Duration = Duration::from_secs(2);

/// Until when each is left alone.
#[derive(Debug, Default)]
pub(super) struct Yielded(BTreeMap<(IfName, Way), Instant>);

impl Yielded {
    /// Compares two pictures of the host; the later one may be of some links only.
    pub(super) fn note(&mut self, former: &Datapath, seen: &Datapath, now: Instant) {
        for (key, limit) in &former.limits {
            let stays = former.links.get(&key.0).is_some_and(|link| {
                let there = seen.links.get(&key.0);
                // A tap of the same name is another's.
                there.is_some_and(|seen| seen.mac == link.mac && seen.alias == link.alias)
            });
            if stays && matches!(limit, Limit::Ours(_)) && !seen.limits.contains_key(key) {
                self.0.insert(key.clone(), now + REST);
            }
        }
    }

    /// Leaves out what would come too early.
    pub(super) fn spare(&self, changes: &mut Vec<Change>) {
        changes.retain(|change| match change {
            Change::SetLimit { link, way, .. } => !self.0.contains_key(&(link.clone(), *way)),
            _ => true,
        });
    }

    /// When the next may be put back.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().copied().min()
    }

    /// Forgets those that have rested.
    pub(super) fn rested(&mut self, now: Instant) {
        self.0.retain(|_, until| *until > now);
    }
}
