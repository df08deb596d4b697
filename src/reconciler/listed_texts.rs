//! What nft lists for the tables' parts, so that what is desired can be compared with what is there.

use super::{Engine, Outlets, Problem, Subject};
use crate::{
    backend::{Driver, Store},
    datapath::{Family, Table},
    planner::Plan,
};
use std::collections::BTreeMap;

/// Texts of a family that are remembered, those in use and others.
const SPARE: usize = 4096;

/// What is listed for what is loaded.
#[derive(Debug, Default)]
pub(super) struct ListedTexts(BTreeMap<Family, BTreeMap<String, String>>);

impl ListedTexts {
    /// Writes into the tables what nft lists for each part. False where that is not known of all.
    pub fn tell(&self, tables: &mut BTreeMap<Family, Table>) -> bool {
        let mut all = true;
        for (family, table) in tables {
            let known = self.0.get(family);
            for text in table.texts_mut() {
                match known.and_then(|known| known.get(&text.source)) {
                    Some(listed) => listed.clone_into(&mut text.listed),
                    None => all = false,
                }
            }
        }
        all
    }

    fn learn(&mut self, asked: &BTreeMap<Family, Table>, mut told: BTreeMap<Family, Table>) {
        for (family, table) in asked {
            let Some(told) = told.get_mut(family) else { continue };
            let known = self.0.entry(*family).or_default();
            if known.len() > SPARE {
                known.clear();
            }
            for (name, set) in &table.sets {
                known.extend(told.sets.remove(name).map(|told| (set.spec.source.clone(), told.spec.listed)));
            }
            for (name, rules) in &table.chains {
                known.extend(told.chains.remove(name).map(|told| (rules.source.clone(), told.listed)));
            }
        }
    }
}

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    /// Writes into a plan's tables what nft lists for them, asking the driver where that is not known yet.
    pub(super) async fn fill_listed(&mut self, plan: &mut Plan) {
        let tables = &mut plan.desired.tables;
        if self.listed_texts.tell(tables) {
            return;
        }
        match self.driver.listed(tables).await {
            Ok(told) => {
                self.listed_texts.learn(tables, told);
                self.listed_texts.tell(tables);
            }
            Err(error) => {
                let message = format!("the kernel does not take the rules that filter guests: {error}");
                plan.problems.push(Problem::new(Subject::Host, message));
            }
        }
    }
}
