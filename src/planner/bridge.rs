//! The bridges that networks live on, and their uplinks.

use super::{Input, Plan, Problem, Subject};
use crate::{
    datapath::{BridgeSettings, Link, LinkKind, VlanEntry, owned_alias},
    intent::{Bridging, Network, NetworkId, PhysicalNetwork, ResourceName, Segment},
    net::{IfName, MacAddr, VlanId},
};
use std::collections::BTreeMap;

/// How a network's ports are placed.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    pub bridge: IfName,
    /// Whether the bridge is ours.
    pub own: bool,
    /// The VLAN of the network's untagged frames, on a VLAN-aware bridge.
    pub vlan: Option<VlanId>,
    /// Whether the bridge tells VLANs apart, so that trunks may be on it.
    pub vlan_aware: bool,
    pub uplink: Option<IfName>,
    /// The VLAN that is untagged on the uplink.
    pub native_vlan: Option<VlanId>,
}

/// The placement of every network that can be.
pub(super) type Placements = BTreeMap<NetworkId, Placement>;

pub(super) fn plan_bridges(input: Input<'_>, plan: &mut Plan) -> Placements {
    let mut placements = Placements::new();
    for network in input.intent.networks() {
        placements.extend(bridges_of(input, network, plan));
    }
    placements
}

/// Plans the bridge of one network; says where its ports go, unless it cannot be.
pub(super) fn bridges_of(input: Input<'_>, network: &Network, plan: &mut Plan) -> Placements {
    let placed = match &network.segment {
        Segment::Local => place_local(input, network, plan),
        Segment::Flat { physical_network } => place_physical(input, network, physical_network, None, plan),
        Segment::Vlan { physical_network, vid } => place_physical(input, network, physical_network, Some(*vid), plan),
    };
    match placed {
        Ok(placement) => Placements::from([(network.id, placement)]),
        Err(message) => {
            plan.problems.push(Problem::new(Subject::Network(network.id), message));
            Placements::new()
        }
    }
}

fn place_local(input: Input<'_>, network: &Network, plan: &mut Plan) -> Result<Placement, String> {
    let bridge = network.bridge.clone().ok_or("it has no bridge name; delete it and make it anew")?;
    let link = own_bridge(owned_alias(format_args!("network/{}", network.id)), network.id.0.as_bytes(), false, input);
    ours_or_free(input, &bridge, &link)?;
    plan.desired.links.insert(bridge.clone(), Link { mtu: network.mtu.map(u32::from), ..link });
    Ok(Placement { bridge, own: true, vlan: None, vlan_aware: false, uplink: None, native_vlan: None })
}

fn place_physical(
    input: Input<'_>,
    network: &Network,
    name: &ResourceName,
    vid: Option<VlanId>,
    plan: &mut Plan,
) -> Result<Placement, String> {
    let physical = input.host.physical_networks.get(name).ok_or_else(|| {
        format!("vmfabricd.toml no longer has the physical network '{name}'; add it again, or delete this network")
    })?;
    match &physical.bridging {
        Bridging::Existing { bridge } => place_on_existing(input, physical, bridge, vid),
        Bridging::Own { uplink, bridge, take_host_nic } => {
            let vlan_aware = input.observed.capabilities.bridge_vlan_filtering;
            if vid.is_some() && !vlan_aware {
                return Err(
                    "this kernel has no bridge VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING), which VLAN networks \
                            need; boot a kernel that has it"
                        .into(),
                );
            }
            let links = &input.observed.datapath.links;
            let uplink = match usable_uplink(input, name, uplink, bridge, *take_host_nic) {
                Ok(()) => Some(uplink),
                // Guests that run stay on the bridge, and on the uplink where it is one of the bridge's ports.
                Err(message) if links.contains_key(bridge) => {
                    plan.problems.push(Problem::new(Subject::Network(network.id), message));
                    links.get(uplink).filter(|link| link.master() == Some(bridge)).map(|_| uplink)
                }
                Err(message) => return Err(message),
            };
            if !plan.desired.links.contains_key(bridge) {
                let seed = name.as_str().bytes().fold([0u8; 16], |mut seed, byte| {
                    seed.rotate_left(1);
                    seed[0] = seed[0].wrapping_mul(31) ^ byte;
                    seed
                });
                let alias = owned_alias(format_args!("physical/{name}"));
                let link = own_bridge(alias, &seed, vlan_aware, input);
                ours_or_free(input, bridge, &link)?;
                let mtu = bridge_mtu(input, name, uplink);
                plan.desired.links.insert(bridge.clone(), Link { mtu, ..link });
                if let Some(uplink) = uplink {
                    plan.desired.links.insert(uplink.clone(), uplink_link(input, name, uplink, bridge));
                }
            }
            let vlan = vlan_aware.then(|| vid.unwrap_or(physical.native_vlan));
            // The native VLAN is carried as soon as a flat network asks for it: what comes untagged is its own.
            if vid.is_none()
                && let (Some(uplink), Some(vlan)) = (uplink, vlan)
            {
                plan.desired.vlans.insert((uplink.clone(), vlan), VlanEntry::Native);
            }
            Ok(Placement {
                bridge: bridge.clone(),
                own: true,
                vlan,
                vlan_aware,
                uplink: uplink.cloned(),
                native_vlan: Some(physical.native_vlan),
            })
        }
    }
}

/// Left to itself a bridge has the least of its ports, taps of smaller networks among them, and the gateways on it no more.
/// None where nobody asked for a size.
fn bridge_mtu(input: Input<'_>, name: &ResourceName, uplink: Option<&IfName>) -> Option<u32> {
    let on = || input.intent.networks().filter(|network| network.segment.physical_network() == Some(name));
    if on().all(|network| network.mtu.is_none()) {
        return None;
    }
    let most = on().map(|network| u32::from(network.effective_mtu())).max()?;
    let carried = uplink.and_then(|uplink| input.observed.datapath.links.get(uplink)?.mtu);
    Some(most.min(carried.unwrap_or(most)))
}

fn place_on_existing(
    input: Input<'_>,
    physical: &PhysicalNetwork,
    bridge: &IfName,
    vid: Option<VlanId>,
) -> Result<Placement, String> {
    let link = input
        .observed
        .datapath
        .links
        .get(bridge)
        .ok_or_else(|| format!("bridge {bridge} does not exist; make it, or name another in vmfabricd.toml"))?;
    let settings = link.bridge().ok_or_else(|| {
        format!("{bridge} is not a bridge; in vmfabricd.toml give it as 'interface' if it is a NIC, or name a bridge")
    })?;
    if vid.is_some() && !settings.vlan_filtering {
        return Err(format!(
            "bridge {bridge} does not tell VLANs apart; switch it on with \
             'ip link set {bridge} type bridge vlan_filtering 1' where its owner's configuration lives"
        ));
    }
    let vlan = settings.vlan_filtering.then(|| vid.unwrap_or(physical.native_vlan));
    let vlan_aware = settings.vlan_filtering;
    Ok(Placement { bridge: bridge.clone(), own: false, vlan, vlan_aware, uplink: None, native_vlan: None })
}

/// A bridge's own MAC address is fixed, else it would follow the lowest of its ports' and change under the guests.
fn own_bridge(alias: String, seed: &[u8; 16], vlan_filtering: bool, input: Input<'_>) -> Link {
    let hash = seed.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let default_pvid = input.observed.capabilities.bridge_vlan_filtering.then_some(0);
    Link {
        kind: Some(LinkKind::Bridge(BridgeSettings { vlan_filtering, default_pvid })),
        master: Some(None),
        up: Some(true),
        mtu: None,
        mac: Some(MacAddr::local(hash.to_be_bytes())),
        alias: Some(alias),
    }
}

fn uplink_link(input: Input<'_>, name: &ResourceName, uplink: &IfName, bridge: &IfName) -> Link {
    // An alias that the administrator gave the NIC stays.
    let alias = input.observed.datapath.links.get(uplink).and_then(|link| link.alias.clone());
    let alias = alias.filter(|alias| !alias.is_empty()).unwrap_or_else(|| owned_alias(format_args!("uplink/{name}")));
    Link { master: Some(Some(bridge.clone())), up: Some(true), alias: Some(alias), ..Link::default() }
}

/// A bridge with the address that ours is to have was made by us: its alias comes a message later, and a stop in between
/// leaves it without.
fn ours_or_free(input: Input<'_>, bridge: &IfName, wanted: &Link) -> Result<(), String> {
    match input.observed.datapath.links.get(bridge) {
        Some(link) if !link.is_owned() && link.mac != wanted.mac => {
            Err(format!("link {bridge} exists and is not vmfabric's; rename or delete it ('ip link delete {bridge}')"))
        }
        _ => Ok(()),
    }
}

fn usable_uplink(
    input: Input<'_>,
    name: &ResourceName,
    uplink: &IfName,
    bridge: &IfName,
    take_host_nic: bool,
) -> Result<(), String> {
    let observed = &input.observed.datapath;
    let link = observed.links.get(uplink).ok_or_else(|| {
        format!(
            "interface {uplink}, the uplink of physical network '{name}', does not exist; \
             plug it in, or name another in vmfabricd.toml"
        )
    })?;
    if let Some(master) = link.master().filter(|master| *master != bridge) {
        return Err(format!(
            "interface {uplink}, the uplink of physical network '{name}', belongs to {master}; take it out, or in \
             vmfabricd.toml give physical network '{name}' bridge = \"{master}\" instead of interface"
        ));
    }
    let holds_address = observed.addresses.iter().any(|(link, address)| link == uplink && is_global(address));
    let holds_route = input.observed.default_route_links.contains(uplink);
    if (holds_address || holds_route) && !take_host_nic {
        let what = if holds_address { "the host's own address" } else { "the host's default route" };
        return Err(format!(
            "interface {uplink} holds {what}, which would be cut off; use another NIC, make a bridge that holds the \
             address and name that, or say take_host_nic = true for physical network '{name}' in vmfabricd.toml"
        ));
    }
    Ok(())
}

/// Whether an address reaches further than its own link.
fn is_global(address: &crate::net::IpNet) -> bool {
    match address {
        crate::net::IpNet::V4(net) => !net.addr().is_link_local(),
        crate::net::IpNet::V6(net) => !net.addr().is_unicast_link_local(),
    }
}
