use super::Context;
use crate::datapath::{Change, Family, Table};
use std::collections::BTreeSet;

/// A set whose elements are let in only when all else is done.
const LAST: &str = crate::datapath::BOUND;

impl Context<'_> {
    /// The observed table, where it is the one that is desired but for its elements.
    fn standing(&self, family: Family) -> Option<&Table> {
        let (have, want) = (self.observed.tables.get(&family)?, self.desired.tables.get(&family)?);
        // A partial plan cannot mend a table: it adds to what there is.
        (have.skeleton == want.skeleton || !self.scope.is_full()).then_some(have)
    }

    pub(super) fn withdraw_elements(&mut self) {
        if !self.scope.is_full() {
            return;
        }
        for (family, want) in &self.desired.tables {
            let Some(have) = self.standing(*family) else { continue };
            let mut gone: Vec<_> = have
                .sets
                .iter()
                .map(|(set, elements)| (set, minus(elements, want.sets.get(set))))
                .filter(|(_, elements)| !elements.is_empty())
                .map(|(set, elements)| Change::DeleteElements { family: *family, set: set.clone(), elements })
                .collect();
            // Ports stop speaking first.
            gone.sort_by_key(|change| !matches!(change, Change::DeleteElements { set, .. } if set == LAST));
            self.changes.extend(gone);
        }
    }

    /// Whole tables where they are missing or altered, and all new elements but those that come last.
    pub(super) fn install_tables(&mut self) {
        for (family, want) in &self.desired.tables {
            match self.standing(*family) {
                None if self.scope.is_full() => {
                    let mut table = want.clone();
                    if let Some(bound) = table.sets.get_mut(LAST) {
                        // What is in place already goes on speaking.
                        bound.retain(|element| self.is_settled(element));
                    }
                    self.changes.push(Change::ReplaceTable { family: *family, table });
                }
                None => {}
                Some(have) => {
                    let added: Vec<_> = new_elements(have, want).filter(|(set, _)| set != LAST).collect();
                    self.changes.extend(added.into_iter().map(|(set, elements)| Change::AddElements {
                        family: *family,
                        set,
                        elements,
                    }));
                }
            }
        }
    }

    pub(super) fn admit_elements(&mut self) {
        for (family, want) in &self.desired.tables {
            let Some(bound) = want.sets.get(LAST) else { continue };
            let in_place: BTreeSet<String> = match self.standing(*family) {
                Some(have) => have.sets.get(LAST).cloned().unwrap_or_default(),
                None if self.scope.is_full() => bound.iter().filter(|e| self.is_settled(e)).cloned().collect(),
                None => BTreeSet::new(),
            };
            let elements = minus(bound, Some(&in_place));
            if !elements.is_empty() {
                self.changes.push(Change::AddElements { family: *family, set: LAST.to_owned(), elements });
            }
        }
    }

    pub(super) fn remove_tables(&mut self) {
        if self.scope.is_full() {
            let gone = self.observed.tables.keys().filter(|family| !self.desired.tables.contains_key(family));
            self.changes.extend(gone.map(|family| Change::DeleteTable { family: *family }));
        }
    }

    /// Whether a port needs nothing more before it may speak.
    fn is_settled(&self, name: &str) -> bool {
        let Ok(name) = crate::net::IfName::new(name) else { return false };
        let (Some(want), Some(have)) = (self.desired.links.get(&name), self.observed.links.get(&name)) else {
            return false;
        };
        self.place_change(have, want).is_empty() && want.up == have.up && self.vlan_changes(&name, false).is_empty()
    }
}

fn minus(elements: &BTreeSet<String>, other: Option<&BTreeSet<String>>) -> BTreeSet<String> {
    elements.iter().filter(|element| !other.is_some_and(|other| other.contains(*element))).cloned().collect()
}

fn new_elements(have: &Table, want: &Table) -> impl Iterator<Item = (String, BTreeSet<String>)> {
    want.sets
        .iter()
        .map(|(set, elements)| (set.clone(), minus(elements, have.sets.get(set))))
        .filter(|(_, elements)| !elements.is_empty())
}
