use super::Context;
use crate::datapath::{Admission, Change, Neighbour};
use std::collections::BTreeSet;

impl Context<'_> {
    /// What nothing needs any more goes from others' packet filters.
    pub(super) fn withdraw_admissions(&mut self) {
        if !self.scope.is_full() {
            return;
        }
        for (at, have) in &self.observed.admissions {
            let admissions: BTreeSet<Admission> = have.difference(self.wanted(at)).cloned().collect();
            if !admissions.is_empty() {
                self.changes.push(Change::Withdraw { at: *at, admissions });
            }
        }
    }

    /// Others let pass what our own tables judge, which by now are in place.
    pub(super) fn admit(&mut self) {
        for (at, have) in &self.observed.admissions {
            let admissions: BTreeSet<Admission> = self.wanted(at).difference(have).cloned().collect();
            if !admissions.is_empty() {
                self.changes.push(Change::Admit { at: *at, admissions });
            }
        }
    }

    fn wanted(&self, at: &Neighbour) -> &BTreeSet<Admission> {
        const NOTHING: &BTreeSet<Admission> = &BTreeSet::new();
        self.desired.admissions.get(at).unwrap_or(NOTHING)
    }
}
