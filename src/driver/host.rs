//! The whole host: its kernel, and firewalld beside it.

use super::{firewalld::Firewalld, kernel::KernelDriver};
use crate::{
    backend::{ApplyError, Driver, DriverError},
    datapath::{Admission, Change, Connection, Datapath, Family, Neighbour, Observed, Obstacle, Table, ZONE},
    net::IfName,
};
use std::collections::{BTreeMap, BTreeSet};

/// The kernel of the network namespace that it was made in, and the firewalld on the system's bus.
#[derive(Debug)]
pub struct HostDriver {
    kernel: KernelDriver,
    firewalld: Firewalld,
}

impl HostDriver {
    pub fn new(kernel: KernelDriver, firewalld: Firewalld) -> Self {
        Self { kernel, firewalld }
    }

    fn add_firewalld(&self, observed: &mut Observed) {
        let Some(state) = self.firewalld.state() else { return };
        if !state.has_zone {
            observed.obstacles.insert(Obstacle::NoZone);
            return;
        }
        let (ours, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            state.zones.into_iter().partition(|(_, zone)| zone == ZONE);
        let admissions = ours.into_keys().map(Admission::Zone).collect();
        observed.datapath.admissions.insert(Neighbour::Firewalld, admissions);
        observed.zoned = others.into_keys().collect();
    }
}

impl Driver for HostDriver {
    async fn observe(&mut self) -> Result<Observed, DriverError> {
        let mut observed = self.kernel.observe().await?;
        self.add_firewalld(&mut observed);
        Ok(observed)
    }

    async fn observe_links(&mut self, links: &BTreeSet<IfName>) -> Result<Datapath, DriverError> {
        self.kernel.observe_links(links).await
    }

    async fn listed(&mut self, tables: &BTreeMap<Family, Table>) -> Result<BTreeMap<Family, Table>, DriverError> {
        self.kernel.listed(tables).await
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<(), ApplyError> {
        let mut done = 0;
        for part in changes.chunk_by(|a, b| !is_firewalld(a) && !is_firewalld(b)) {
            let outcome = match part {
                [change @ Change::Admit { at: Neighbour::Firewalld, admissions }] => {
                    self.firewalld.change(admissions, true).await.map_err(|source| failed(change, source))
                }
                [change @ Change::Withdraw { at: Neighbour::Firewalld, admissions }] => {
                    self.firewalld.change(admissions, false).await.map_err(|source| failed(change, source))
                }
                part => self.kernel.apply(part).await,
            };
            outcome.map_err(|error| ApplyError { done: done + error.done, ..error })?;
            done += part.len();
        }
        Ok(())
    }

    async fn connections(&mut self, zones: &BTreeSet<u16>) -> Result<Vec<Connection>, DriverError> {
        self.kernel.connections(zones).await
    }

    async fn delete_connections(&mut self, connections: &[Connection]) -> Result<usize, DriverError> {
        self.kernel.delete_connections(connections).await
    }
}

fn is_firewalld(change: &Change) -> bool {
    matches!(change, Change::Admit { at: Neighbour::Firewalld, .. } | Change::Withdraw { at: Neighbour::Firewalld, .. })
}

fn failed(change: &Change, source: DriverError) -> ApplyError {
    ApplyError { done: 0, change: change.to_string(), source }
}
