//! libvirt's hooks: the guest waits for these, so that none of it waits for libvirt, nor for anything slow.

use super::{Engine, Outlets};
use crate::{
    backend::{Driver, Store},
    libvirt::domain_xml::{Domain, NetworkPort, Nic, NicSource},
    planner::{Input, Problem, Subject, plan},
    server::hook::{HookCall, HookEvent},
};
use std::collections::BTreeMap;

impl<D: Driver, S: Store, O: Outlets> Engine<D, S, O> {
    pub(super) async fn serve_hook(&mut self, call: HookCall) {
        let domain = match &call.event {
            HookEvent::Prepare(domain) | HookEvent::Start(domain) | HookEvent::Changed { domain, .. } => &domain.name,
            HookEvent::PortCreated { port, .. } => &port.owner_name,
        };
        let domain = domain.clone();
        let result = match call.event {
            HookEvent::Prepare(domain) => self.prepare(&domain).await,
            HookEvent::Start(domain) => self.start_guest(&domain).await,
            HookEvent::Changed { domain, ended } => {
                self.outlets.refresh_domain(domain.uuid);
                if ended {
                    self.mark_dirty();
                }
                Ok(())
            }
            HookEvent::PortCreated { network, port } => self.prepare_nic(&network, port).await,
        };
        if let Err(reason) = &result {
            tracing::warn!(domain, reason, "a guest or NIC is kept from starting");
        }
        // A hook that gave up waiting has failed the start by itself.
        let _ = call.reply.send(result);
    }

    /// Makes the ports, and finds out whether their networks can be, before libvirt goes to any trouble.
    async fn prepare(&mut self, domain: &Domain) -> Result<(), String> {
        let claimed = self.claim_nics(domain).await.map_err(|error| error.to_string())?;
        if claimed.is_empty() {
            return Ok(());
        }
        let view = self.view();
        // What is wrong with a network does not depend on who is on it.
        let nobody = BTreeMap::new();
        let input = Input {
            intent: &view.intent,
            host: &view.host,
            attachments: &nobody,
            observed: &self.observed,
            previous: &self.previous,
            delegated: &view.delegated,
        };
        let problems: Vec<Problem> =
            plan(input).problems.into_iter().chain(self.plan_problems.iter().cloned()).collect();
        for claim in &claimed {
            let Some(network) = view.intent.port(claim.port).and_then(|port| view.intent.network(port.network)) else {
                continue;
            };
            if let Some(problem) = problems.iter().find(|p| p.subject == Subject::Network(network.id)) {
                return Err(format!(
                    "NIC {} of guest '{}' cannot be on network '{}': {}",
                    claim.nic.mac, domain.name, network.name, problem.message
                ));
            }
        }
        Ok(())
    }

    async fn start_guest(&mut self, domain: &Domain) -> Result<(), String> {
        let claimed = self.claim_nics(domain).await.map_err(|error| error.to_string())?;
        let name_of = |engine: &Self, port| {
            let view = engine.view();
            let network = view.intent.port(port).and_then(|port| view.intent.network(port.network));
            network.map_or_else(|| "?".to_owned(), |network| network.name.to_string())
        };
        if let Some(claim) = claimed.iter().find(|claim| claim.tap.is_none()) {
            return Err(format!(
                "NIC {} of guest '{}' is on network '{}' but has no tap; use <interface type='network'> or 'bridge'",
                claim.nic.mac,
                domain.name,
                name_of(self, claim.port)
            ));
        }
        if let Err(error) = self.bring_up(&claimed).await {
            let nics: Vec<String> = claimed
                .iter()
                .map(|claim| format!("{} on network '{}'", claim.nic.mac, name_of(self, claim.port)))
                .collect();
            for claim in &claimed {
                self.detach(claim.port);
            }
            return Err(format!("NICs of guest '{}' are not up ({}): {error}", domain.name, nics.join(", ")));
        }
        Ok(())
    }

    /// A NIC on its way into a libvirt network of ours: its port waits for the tap.
    async fn prepare_nic(&mut self, network: &str, port: NetworkPort) -> Result<(), String> {
        let nic = Nic {
            mac: port.mac,
            source: NicSource::Network { name: network.to_owned(), bridge: port.bridge, portid: None, portgroup: None },
            tap: None,
            vlan: None,
            link_up: true,
            isolated: false,
            alias: None,
            wish: None,
        };
        let (uuid, name) = (port.owner_uuid, port.owner_name);
        let known = self.view().intent.port_by_device(uuid, port.mac).is_some();
        if known {
            // The guest's own definition, with its metadata, has been seen already and says more than this.
            return Ok(());
        }
        self.prepare(&Domain { uuid, name, id: None, nics: vec![nic], warnings: Vec::new() }).await
    }
}
