//! The ordered changes that lead from an observed state to a desired one.
//!
//! The order is what safety needs: filters come before links, links before forwarding, and a guest's port enters the
//! set of those that may speak last; what goes leaves that set first.

mod admissions;
mod limits;
mod links;
mod tables;
mod vlans;

use crate::{
    datapath::{Change, Datapath},
    net::IfName,
};
use std::collections::BTreeSet;

/// How much of the host the desired state speaks for.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// All that is ours: what is ours and not desired goes.
    Full,
    /// These links alone; beyond them it only adds.
    Links(&'a BTreeSet<IfName>),
}

impl Scope<'_> {
    /// Whether what the desired state lacks is to go from this link.
    fn prunes(&self, link: &IfName) -> bool {
        match self {
            Scope::Full => true,
            Scope::Links(links) => links.contains(link),
        }
    }

    fn is_full(&self) -> bool {
        matches!(self, Scope::Full)
    }
}

/// The changes, in the order to do them; empty where nothing differs.
pub fn diff(observed: &Datapath, desired: &Datapath, scope: Scope<'_>) -> Vec<Change> {
    let mut context = Context { observed, desired, scope, changes: Vec::new() };
    context.withdraw_elements();
    context.withdraw_admissions();
    context.release_links();
    context.install_tables();
    context.make_bridges();
    context.set_limits();
    context.place_links();
    context.make_gateways();
    context.set_sysctls();
    context.raise_links();
    context.admit();
    context.admit_elements();
    context.remove_tables();
    context.changes
}

struct Context<'a> {
    observed: &'a Datapath,
    desired: &'a Datapath,
    scope: Scope<'a>,
    changes: Vec<Change>,
}
