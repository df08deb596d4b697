//! What nft lists for the tables' parts, so that what is desired can be compared with what is there.

use super::{Engine, Outlets};
use crate::{
    backend::{Driver, DriverError, Store},
    datapath::{Family, Table},
};
use std::collections::BTreeMap;

/// Texts that are remembered beyond those in use.
const SPARE: usize = 4096;

/// Listed by loaded.
#[derive(Debug, Default)]
pub(super) struct Forms(BTreeMap<(Family, String), String>);

impl Forms {
    /// Writes into the tables what nft lists for each part. False where that is not known of all.
    pub fn tell(&self, tables: &mut BTreeMap<Family, Table>) -> bool {
        let mut all = true;
        for (family, table) in tables {
            for text in table.texts_mut() {
                match self.0.get(&(*family, text.source.clone())) {
                    Some(listed) => listed.clone_into(&mut text.listed),
                    None => all = false,
                }
            }
        }
        all
    }

    fn learn(&mut self, asked: &mut BTreeMap<Family, Table>, mut told: BTreeMap<Family, Table>) {
        if self.0.len() > SPARE {
            self.0.clear();
        }
        for (family, table) in asked {
            let Some(told) = told.get_mut(family) else { continue };
            for (name, set) in &mut table.sets {
                let listed = told.sets.remove(name).map(|set| set.spec.listed);
                self.0.extend(listed.map(|listed| ((*family, set.spec.source.clone()), listed)));
            }
            for (name, rules) in &mut table.chains {
                let listed = told.chains.remove(name).map(|rules| rules.listed);
                self.0.extend(listed.map(|listed| ((*family, rules.source.clone()), listed)));
            }
        }
    }
}

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    /// Writes into desired tables what nft lists for them, asking the driver where that is not known yet.
    pub(super) async fn tell_forms(&mut self, tables: &mut BTreeMap<Family, Table>) -> Result<(), DriverError> {
        if !self.forms.tell(tables) {
            let told = self.driver.listed(tables).await?;
            self.forms.learn(tables, told);
            self.forms.tell(tables);
        }
        Ok(())
    }
}
