use super::Context;
use crate::datapath::{BOUND, Change, Family, Hold, Set, Table, element_link};
use std::collections::BTreeSet;

/// A set whose elements are let in only when all else is done.
const LAST: &str = BOUND;

impl Context<'_> {
    /// The observed table, where it can be changed into the one that is desired.
    fn standing(&self, family: Family) -> Option<&Table> {
        let (have, want) = (self.observed.tables.get(&family)?, self.desired.tables.get(&family)?);
        // A partial plan cannot mend a table: it adds to what there is.
        (!self.scope.is_full() || can_become(have, want)).then_some(have)
    }

    /// Takes away what lets packets through: ports stop speaking, then the host stops forwarding.
    pub(super) fn withdraw_elements(&mut self) {
        if !self.scope.is_full() {
            return;
        }
        for family in [Family::Bridge, Family::Inet] {
            let (Some(have), Some(want)) = (self.standing(family), self.desired.tables.get(&family)) else { continue };
            let sets = have.sets.iter().filter(|(name, _)| family == Family::Inet || *name == LAST);
            let gone: Vec<_> = sets
                .filter_map(|(name, set)| {
                    let elements = minus(&set.elements, want.elements(name));
                    (!elements.is_empty()).then(|| Change::DeleteElements { family, set: name.clone(), elements })
                })
                .collect();
            self.changes.extend(gone);
        }
    }

    /// Whole tables where they are missing or altered; else, in one transaction, all that differs but for what comes
    /// last, and what still guards a port that is about to go.
    pub(super) fn install_tables(&mut self) {
        for (family, want) in &self.desired.tables {
            match self.standing(*family) {
                None if self.scope.is_full() => {
                    let mut table = want.clone();
                    if let Some(bound) = table.sets.get_mut(LAST) {
                        // What is in place already goes on speaking.
                        bound.elements.retain(|element| self.is_settled(element));
                    }
                    self.changes.push(Change::ReplaceTable { family: *family, table });
                }
                // It fails, and so the port does not come up unfiltered: a full plan makes the table.
                None => {
                    let sets = want.sets.iter().filter(|(name, set)| *name != LAST && !set.elements.is_empty());
                    self.changes.extend(sets.map(|(name, set)| Change::AddElements {
                        family: *family,
                        set: name.clone(),
                        elements: set.elements.clone(),
                    }));
                }
                Some(have) => {
                    let changes = self.edit_table(*family, have, want);
                    self.changes.extend(changes);
                }
            }
        }
    }

    fn edit_table(&self, family: Family, have: &Table, want: &Table) -> Vec<Change> {
        let mut changes = Vec::new();
        if have.hold == Hold::Left && want.hold == Hold::Held {
            changes.push(Change::ClaimTable { family });
        }
        for (name, set) in want.sets.iter().filter(|(name, _)| !have.sets.contains_key(*name)) {
            changes.push(Change::AddSet { family, set: name.clone(), spec: set.spec.clone() });
        }
        for (name, rules) in want.chains.iter().filter(|(name, rules)| have.chains.get(*name) != Some(*rules)) {
            changes.push(Change::PutChain { family, chain: name.clone(), rules: rules.clone() });
        }
        for (name, set) in want.sets.iter().filter(|(name, _)| *name != LAST) {
            let had = have.sets.get(name);
            let gone: BTreeSet<String> = match had {
                // They were withdrawn before.
                Some(_) if self.scope.is_full() && family == Family::Inet => BTreeSet::new(),
                Some(had) if self.scope.is_full() => {
                    minus(&had.elements, Some(&set.elements)).into_iter().filter(|e| !self.is_departing(e)).collect()
                }
                // A partial plan takes away only what it replaces: another value for the same key, or another
                // address of the same port.
                Some(had) => self.replaced(had, set),
                None => BTreeSet::new(),
            };
            let new = minus(&set.elements, had.map(|had| &had.elements));
            if !gone.is_empty() {
                changes.push(Change::DeleteElements { family, set: name.clone(), elements: gone });
            }
            if !new.is_empty() {
                changes.push(Change::AddElements { family, set: name.clone(), elements: new });
            }
        }
        changes
    }

    /// What a port of the scope has in a set and should not.
    fn replaced(&self, had: &Set, want: &Set) -> BTreeSet<String> {
        let super::Scope::Links(links) = self.scope else { return BTreeSet::new() };
        let stale = links.iter().flat_map(|link| had.of_link(link));
        stale.filter(|element| !want.elements.contains(*element)).cloned().collect()
    }

    /// Whether an element speaks of a port that the plan knows no more: it guards the port until it is released.
    fn is_departing(&self, element: &str) -> bool {
        element_link(element).is_some_and(|link| {
            !self.desired.links.contains_key(&link) && self.observed.links.get(&link).is_some_and(|l| l.is_owned())
        })
    }

    pub(super) fn admit_elements(&mut self) {
        for (family, want) in &self.desired.tables {
            let Some(bound) = want.elements(LAST) else { continue };
            let in_place: BTreeSet<String> = match self.standing(*family) {
                Some(have) => have.elements(LAST).cloned().unwrap_or_default(),
                None if self.scope.is_full() => bound.iter().filter(|e| self.is_settled(e)).cloned().collect(),
                None => BTreeSet::new(),
            };
            let elements = minus(bound, Some(&in_place));
            if !elements.is_empty() {
                self.changes.push(Change::AddElements { family: *family, set: LAST.to_owned(), elements });
            }
        }
    }

    /// What nothing refers to any more, and tables that nothing needs.
    pub(super) fn remove_tables(&mut self) {
        if !self.scope.is_full() {
            return;
        }
        let mut changes = Vec::new();
        for (family, have) in &self.observed.tables {
            let Some(want) = self.desired.tables.get(family) else {
                changes.push(Change::DeleteTable { family: *family });
                continue;
            };
            if self.standing(*family).is_none() {
                continue;
            }
            for (name, set) in &want.sets {
                let had = have.elements(name).into_iter().flatten();
                let gone = |e: &&String| *name != LAST && !set.elements.contains(*e) && self.is_departing(e);
                let elements: BTreeSet<String> = had.filter(gone).cloned().collect();
                if !elements.is_empty() {
                    changes.push(Change::DeleteElements { family: *family, set: name.clone(), elements });
                }
            }
            let chains = have.chains.keys().filter(|name| !want.chains.contains_key(*name));
            changes.extend(chains.map(|name| Change::DeleteChain { family: *family, chain: name.clone() }));
            let sets = have.sets.keys().filter(|name| !want.sets.contains_key(*name));
            changes.extend(sets.map(|name| Change::DeleteSet { family: *family, set: name.clone() }));
        }
        self.changes.extend(changes);
    }

    /// Whether a port needs nothing more before it may speak.
    fn is_settled(&self, element: &str) -> bool {
        let Some(name) = element_link(element) else { return false };
        let (Some(want), Some(have)) = (self.desired.links.get(&name), self.observed.links.get(&name)) else {
            return false;
        };
        self.place_change(have, want).is_empty() && want.up == have.up && self.vlan_changes(&name, false).is_empty()
    }
}

/// Whether sets and chains can be added, taken away and filled anew until the one is the other.
fn can_become(have: &Table, want: &Table) -> bool {
    let same_sets = want.sets.iter().all(|(name, set)| have.sets.get(name).is_none_or(|had| had.spec == set.spec));
    let same_hooks = want.chains.iter().all(|(name, rules)| match have.chains.get(name) {
        Some(had) => had.hook() == rules.hook(),
        None => true,
    });
    // A chain that the kernel calls and that is not ours may do anything.
    let strange = have.chains.iter().any(|(name, rules)| rules.hook().is_some() && !want.chains.contains_key(name));
    // The kernel lets nobody claim a table that was made open.
    let claimable = have.hold == want.hold || have.hold == Hold::Left && want.hold == Hold::Held;
    !have.foreign && same_sets && same_hooks && !strange && claimable
}

fn minus(elements: &BTreeSet<String>, other: Option<&BTreeSet<String>>) -> BTreeSet<String> {
    match other {
        Some(other) => elements.difference(other).cloned().collect(),
        None => elements.clone(),
    }
}
