use super::Context;
use crate::datapath::{Change, Limit};

impl Context<'_> {
    /// Bounds what links carry: before their ports may speak.
    pub(super) fn set_limits(&mut self) {
        for ((link, way), limit) in &self.observed.limits {
            let unwanted = !self.desired.limits.contains_key(&(link.clone(), *way));
            if matches!(limit, Limit::Ours(_)) && unwanted && self.scope.prunes(link) {
                self.changes.push(Change::DeleteLimit { link: link.clone(), way: *way });
            }
        }
        for (key, limit) in &self.desired.limits {
            let Limit::Ours(limit) = limit else { continue };
            if self.observed.limits.get(key) != Some(&Limit::Ours(*limit)) {
                let (link, way) = key.clone();
                self.changes.push(Change::SetLimit { link, way, limit: *limit });
            }
        }
    }
}
