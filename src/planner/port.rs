//! A guest's tap on its network.

use super::{Input, Plan, Problem, Subject, bridge::Placements};
use crate::{
    datapath::{Bandwidth, Limit, Link, VlanEntry, Way, owned_alias},
    intent::{Network, Port, PortId, Rate},
    net::IfName,
};

/// Bytes per second, and bytes, of 1,000 bits.
const KILOBIT: u64 = 125;
/// What may go at once where nobody says, in tenths of a second's worth. A queue smooths what it is given; TCP that meets a
/// policer has its rate on average only where much may go at once (Neutron: eight tenths, for both).
const QUEUE_BURST: u64 = 1;
const POLICER_BURST: u64 = 8;
/// What a policer must let through at once, or it never lets through what a guest sends in one piece: 64 KiB of TCP that
/// the host's stack, or its NIC, cuts into frames (`GSO_LEGACY_MAX_SIZE` and headers).
const SUPER_FRAME: u64 = 65_536 + 512;
/// The kernel keeps a burst as a time, in 32 bits of 64 ns.
const LONGEST_BURST: u64 = 60;
const LIMIT_OF_BURST: u64 = 268;

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
    plan_limits(input, network, port, tap, plan);
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

/// What the port's rates ask for, but where somebody else bounds that direction already: what libvirt applies for
/// `<bandwidth>` is left to it.
fn plan_limits(input: Input<'_>, network: &Network, port: &Port, tap: &IfName, plan: &mut Plan) {
    let capabilities = input.observed.capabilities;
    let mtu = u64::from(network.effective_mtu());
    let limits = [
        (Way::Out, port.security.qos.ingress, "in", capabilities.shaping, (QUEUE_BURST, mtu + 64), SHAPING),
        (Way::In, port.security.qos.egress, "out", capabilities.policing, (POLICER_BURST, SUPER_FRAME), POLICING),
    ];
    for (way, rate, option, capable, burst, parts) in limits {
        let Some(rate) = rate else { continue };
        let key = (tap.clone(), way);
        let trouble = match input.observed.datapath.limits.get(&key) {
            Some(Limit::Others(kind)) => format!(
                "its rate of traffic {way} is not applied, as tap {tap} has a limit that somebody else set ({kind}), as \
                 libvirt does for <bandwidth>: remove that from the guest's definition, or the rate from the port \
                 ('vmfabric port set {} rate-{option}=')",
                port.id
            ),
            _ if !capable => format!("its rate of traffic {way} is not applied: this kernel lacks {parts}"),
            _ => {
                plan.desired.limits.insert(key, Limit::Ours(bandwidth(rate, burst)));
                continue;
            }
        };
        plan.problems.push(Problem::partial(Subject::Port(port.id), trouble));
    }
}

const SHAPING: &str = "CONFIG_NET_SCH_TBF or CONFIG_NET_SCH_FQ_CODEL (modules sch_tbf, sch_fq_codel)";
const POLICING: &str = "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_MATCHALL or CONFIG_NET_ACT_POLICE (modules sch_ingress, \
                        cls_matchall, act_police)";

fn bandwidth(rate: Rate, (tenths, least): (u64, u64)) -> Bandwidth {
    let bytes = u64::from(rate.kbps) * KILOBIT;
    let burst = match rate.burst_kb {
        0 => bytes / 10 * tenths,
        kilobits => u64::from(kilobits) * KILOBIT,
    };
    let most = |seconds| bytes.saturating_mul(seconds).min(u64::from(u32::MAX));
    Bandwidth { rate: bytes, burst: burst.min(most(LONGEST_BURST)).max(least).min(most(LIMIT_OF_BURST)) }
}
