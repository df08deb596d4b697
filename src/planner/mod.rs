//! What a host's kernel should be, as a pure function of the intent, the guests that run, and what the host has.

mod bridge;
mod filter;
mod forward;
mod l3;
mod neighbours;
mod port;
mod problem;

pub use crate::datapath::BOUND;
pub use filter::drop_reasons;
pub use forward::host_drop_reasons;
pub use l3::gateway_name;
pub use port::port_of_alias;
pub use problem::{Problem, Subject};

use crate::{
    datapath::{Datapath, Hold, Observed, Sysctl},
    intent::{HostConfig, Intent, NetworkId, Port, PortId},
    net::{IfName, Ipv6Net, MacAddr},
};
use std::collections::BTreeMap;

/// All that a plan follows from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub intent: &'a Intent,
    pub host: &'a HostConfig,
    /// The tap of each port that a running guest has.
    pub attachments: &'a BTreeMap<PortId, IfName>,
    pub observed: &'a Observed,
    /// What kernel parameters were before we set them.
    pub previous: &'a BTreeMap<Sysctl, String>,
    /// Prefixes that guests were delegated by DHCPv6.
    pub delegated: &'a [DelegatedPrefix],
}

impl<'a> Input<'a> {
    /// The prefixes that a port's guest was delegated.
    fn delegated_to(&self, port: &Port) -> impl Iterator<Item = Ipv6Net> + use<'a> {
        let (network, mac) = (port.network, port.mac);
        let own = self.delegated.iter().filter(move |delegated| (delegated.network, delegated.mac) == (network, mac));
        own.map(|delegated| delegated.prefix)
    }
}

/// A prefix behind the guest with this NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegatedPrefix {
    pub network: NetworkId,
    pub mac: MacAddr,
    pub prefix: Ipv6Net,
}

/// What should be, and what cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub desired: Datapath,
    pub problems: Vec<Problem>,
}

/// The whole host.
pub fn plan(input: Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let bridges = bridge::plan_bridges(input, &mut plan);
    for (port, tap) in input.attachments {
        port::plan_port(input, &bridges, *port, tap, &mut plan);
    }
    let gateways = l3::plan_gateways(input, &bridges, &mut plan);
    l3::plan_forwarding(input, &gateways, &mut plan);
    filter::plan_filters(input, &bridges, &mut plan);
    let hosts6 = l3::hosts6(input, &plan);
    forward::plan_forward_table(input, &gateways, &hosts6, &mut plan);
    neighbours::plan_admissions(input, &bridges, &gateways, &mut plan);
    hold_tables(input, &mut plan);
    plan
}

/// Where the kernel can, nobody but the daemon changes its tables while it runs.
fn hold_tables(input: Input<'_>, plan: &mut Plan) {
    let hold = if input.observed.capabilities.nft_owner { Hold::Held } else { Hold::Open };
    plan.desired.tables.values_mut().for_each(|table| table.hold = hold);
}

/// The part of [`plan`] that brings just these ports up; [`crate::diff::Scope::Links`] of their taps is its scope. It
/// takes away nothing, so that a full plan must follow where something may have to go.
pub fn plan_ports(input: Input<'_>, ports: &[PortId]) -> Plan {
    let mut plan = Plan::default();
    let mut placements = bridge::Placements::new();
    for port in ports {
        let Some(tap) = input.attachments.get(port) else { continue };
        let Some(network) = input.intent.port(*port).and_then(|port| input.intent.network(port.network)) else {
            continue;
        };
        let mut nowhere = Plan::default();
        let bridges = bridge::bridges_of(input, network, &mut nowhere);
        port::plan_port(input, &bridges, *port, tap, &mut plan);
        placements.extend(bridges);
    }
    filter::plan_filters_of(input, &placements, ports, &mut plan);
    forward::plan_isolation_of(input, &placements, ports, &mut plan);
    hold_tables(input, &mut plan);
    plan
}

#[cfg(test)]
mod tests;
