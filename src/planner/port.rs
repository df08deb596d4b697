//! A guest's tap on its network.

use super::{Input, Plan, Problem, Subject, bridge::Placements};
use crate::{
    datapath::{Link, VlanEntry, owned_alias},
    intent::PortId,
    net::IfName,
};

pub(super) fn plan_port(input: Input<'_>, placements: &Placements, id: PortId, tap: &IfName, plan: &mut Plan) {
    let Some(port) = input.intent.port(id) else { return };
    let Some(network) = input.intent.network(port.network) else { return };
    let mut fail = |message: String| plan.problems.push(Problem::new(Subject::Port(id), message));
    let Some(placement) = placements.get(&port.network) else {
        return fail(format!(
            "network '{}' cannot be made on this host; see 'vmfabric network show {0}'",
            network.name
        ));
    };
    if !input.observed.datapath.links.contains_key(tap) {
        return fail(format!("its tap {tap} is gone; shut the guest down and start it again, or plug its NIC anew"));
    }
    if port.trunk.is_some() && !placement.vlan_aware {
        return fail(format!("bridge {} does not tell VLANs apart, which a trunk port needs", placement.bridge));
    }
    if let Some(why) = super::filter::refusal(input, network, port) {
        return fail(why);
    }
    let mut vlans = Vec::new();
    match &port.trunk {
        None => vlans.extend(placement.vlan.map(|vid| (vid, VlanEntry::Native))),
        Some(trunk) => {
            vlans.extend(trunk.tagged.iter().map(|vid| (*vid, VlanEntry::Tagged)));
            vlans.extend(placement.vlan.filter(|_| trunk.native).map(|vid| (vid, VlanEntry::Native)));
        }
    }
    if let Some(uplink) = &placement.uplink {
        for (vid, _) in &vlans {
            let entry = if placement.native_vlan == Some(*vid) { VlanEntry::Native } else { VlanEntry::Tagged };
            plan.desired.vlans.insert((uplink.clone(), *vid), entry);
        }
    }
    plan.desired.vlans.extend(vlans.into_iter().map(|(vid, entry)| ((tap.clone(), vid), entry)));
    plan.desired.links.insert(
        tap.clone(),
        Link {
            kind: None,
            master: Some(Some(placement.bridge.clone())),
            up: Some(true),
            mtu: network.mtu.map(u32::from),
            mac: None,
            alias: Some(owned_alias(format_args!("port/{id}"))),
        },
    );
}

/// The port that a tap's alias says it serves.
pub fn port_of_alias(owned_for: &str) -> Option<PortId> {
    owned_for.strip_prefix("port/").and_then(|id| id.parse().ok()).map(PortId)
}
