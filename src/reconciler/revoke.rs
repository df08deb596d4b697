//! Ending the connections that a change of policy no longer allows: filters let pass what belongs to one.

use super::{Engine, Outlets, Problem, Subject};
use crate::{
    backend::{Driver, DriverError, Store},
    intent::Network,
    policy::{Policy, revoked},
};
use std::collections::BTreeSet;

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    /// Ends what may not go on, where something was taken away since the last time; `settled`: the pass before did all
    /// that it had to. The filters are in place by then, so that what was ended cannot come back.
    pub(super) async fn revoke(&mut self, settled: bool) -> Option<Problem> {
        if !self.revoking {
            return None;
        }
        match self.end_revoked().await {
            Ok(0) => {}
            Ok(ended) => tracing::info!(ended, "connections that are no longer allowed are ended"),
            Err(error) => {
                if !self.has_filtered_ports() {
                    // Nobody relies on it; the next pass tries again.
                    tracing::debug!(%error, "connections cannot be looked through");
                    return None;
                }
                let text = format!("connections that are no longer allowed may go on: {error}");
                return Some(Problem::new(Subject::Host, text));
            }
        }
        self.revoking = !settled;
        None
    }

    async fn end_revoked(&mut self) -> Result<usize, DriverError> {
        let zones: BTreeSet<u16> = {
            let view = self.view();
            let trunks = view.intent.ports().filter_map(|port| port.trunk.as_ref());
            let vlans = trunks.flat_map(|trunk| &trunk.tagged).map(|vid| Network::VLAN_ZONES + vid.get());
            view.intent.networks().map(|network| network.zone).chain(vlans).chain([0]).collect()
        };
        let connections = self.driver.connections(&zones).await?;
        let host: BTreeSet<_> = self.observed.datapath.addresses.iter().map(|(_, address)| address.addr()).collect();
        let ended: Vec<_> = {
            let view = self.view();
            let policy = Policy::new(&view.intent, &view.host.host_services);
            revoked(&policy, &connections, &host).into_iter().cloned().collect()
        };
        for connection in &ended {
            tracing::debug!(%connection, "end");
        }
        if ended.is_empty() { Ok(0) } else { self.driver.delete_connections(&ended).await }
    }

    fn has_filtered_ports(&self) -> bool {
        let view = self.view();
        let mut networks = view.intent.networks();
        networks.any(|network| !network.security.groups.is_empty())
            || view.intent.ports().any(|port| port.security.groups.is_some())
    }
}
