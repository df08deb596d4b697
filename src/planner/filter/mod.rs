//! Our bridge table: what every frame on a bridge with guests of ours goes through.
//!
//! A guest's frame is judged when it comes in (`prerouting`, then its groups' egress) and again where it leaves to another
//! guest (that one's groups' ingress). A port is in the sets and maps of its filters before it is in `bound`.

mod groups;
mod program;

use super::{Input, Plan, Problem, Subject, bridge::Placements};
use crate::{
    datapath::{BOUND, Family, Table, link_element, owned_alias},
    intent::{AddressPair, Direction, Network, NetworkId, Port, PortId, Protection, ResourceName, Segment, Subnet},
    net::{IfName, IpNet, Ipv6Net, MacAddr, VlanId},
};
use groups::{Groups, tracks};
pub(super) use groups::{is_single, plain};
use program::*;
pub(in crate::planner) use program::{drop_rules, log_rate};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// A port that is in place in the plan.
pub(super) struct Guest<'a> {
    tap: &'a IfName,
    port: &'a Port,
    network: &'a Network,
    protection: Protection<'a>,
    /// Nobody knows which addresses are its own: no subnet allots any, and it was given none.
    free: bool,
}

/// Each reason for which a frame is dropped, with the set of the bridge table that counts them by link.
pub fn drop_reasons() -> impl Iterator<Item = (String, &'static str)> {
    program::reasons()
}

/// Why a port cannot be filtered on this kernel as it asks.
pub(super) fn refusal(input: Input<'_>, network: &Network, port: &Port) -> Option<String> {
    let stateful = remembers(input, &Protection::of(&network.security, &port.security));
    (stateful && !input.observed.capabilities.bridge_conntrack).then(|| {
        "it is in security groups that remember connections, and this kernel cannot track those on bridges \
         (CONFIG_NF_CONNTRACK_BRIDGE, module nf_conntrack_bridge): use another kernel, stateless groups, or none"
            .to_owned()
    })
}

/// The whole table, before there is a guest that needs it, so that its start finds it.
pub(super) fn plan_filters(input: Input<'_>, placements: &Placements, plan: &mut Plan) {
    if placements.is_empty() {
        return;
    }
    let guests = all_guests(input, plan);
    let own: BTreeSet<&IfName> = placements.values().filter(|p| p.own).map(|p| &p.bridge).collect();
    let meta = input.observed.capabilities.nft_bridge_meta;
    let stateful = guests.iter().any(|guest| remembers(input, &guest.protection));
    let logs = logs(input);
    if input.host.log_drops && !logs {
        let lacking = "dropped frames are not logged ([filter] log_drops): this kernel lacks CONFIG_NFT_LOG or \
                       CONFIG_NF_LOG_SYSLOG (modules nft_log, nf_log_syslog)";
        plan.problems.push(Problem::partial(Subject::Host, lacking));
    }
    let mut table = fixed(Shape { meta, tracks: stateful, logs });
    if meta {
        let ports = plan.desired.links.iter().filter(|(_, link)| link.master().is_some_and(|m| own.contains(m)));
        insert(&mut table, BOUND, ports.map(|(name, _)| link_element(name)));
        insert(&mut table, BRIDGES, own.iter().map(link_element));
    }
    let mut groups = Groups::new(input.intent, None);
    for guest in &guests {
        add_guest(input, guest, &mut groups, &mut table);
    }
    if stateful {
        add_zones(input, placements, &guests, plan, &mut table);
    }
    plan.desired.tables.insert(Family::Bridge, table);
}

/// The part of it that lets these ports speak.
pub(super) fn plan_filters_of(input: Input<'_>, placements: &Placements, ports: &[PortId], plan: &mut Plan) {
    let attached = |port: &PortId| input.attachments.get(port).map(|tap| (*port, tap));
    let guests = guests(input, ports.iter().filter_map(attached), plan);
    if guests.is_empty() {
        return;
    }
    let meta = input.observed.capabilities.nft_bridge_meta;
    let standing = input.observed.datapath.tables.get(&Family::Bridge);
    let tracked = standing.is_some_and(tracks);
    let stateful = tracked || guests.iter().any(|guest| remembers(input, &guest.protection));
    let mut table = fixed(Shape { meta, tracks: stateful, logs: logs(input) });
    if meta {
        let links = &input.observed.datapath.links;
        let own = |bridge: &IfName| links.get(bridge).is_some_and(|link| link.is_owned());
        let bound = plan.desired.links.iter().filter(|(_, link)| link.master().is_some_and(own));
        insert(&mut table, BOUND, bound.map(|(name, _)| link_element(name)));
    }
    let mut groups = Groups::new(input.intent, standing);
    for guest in &guests {
        add_guest(input, guest, &mut groups, &mut table);
        groups.join(guest.port, guest.network, &mut table);
    }
    if stateful && !tracked {
        // The first that asks for it on this host: from now on all are tracked.
        let mut everything = Plan::default();
        let all = super::bridge::plan_bridges(input, &mut everything);
        for (port, tap) in input.attachments {
            super::port::plan_port(input, &all, *port, tap, &mut everything);
        }
        add_zones(input, &all, &all_guests(input, &everything), &everything, &mut table);
    } else if stateful {
        add_zones(input, placements, &guests, plan, &mut table);
    }
    plan.desired.tables.insert(Family::Bridge, table);
}

/// Whether drops are told, and can be.
pub(super) fn logs(input: Input<'_>) -> bool {
    input.host.log_drops && input.observed.capabilities.nft_log
}

fn all_guests<'a>(input: Input<'a>, plan: &Plan) -> Vec<Guest<'a>> {
    guests(input, input.attachments.iter().map(|(port, tap)| (*port, tap)), plan)
}

/// Those of these ports that are in place in the plan.
fn guests<'a>(input: Input<'a>, ports: impl Iterator<Item = (PortId, &'a IfName)>, plan: &Plan) -> Vec<Guest<'a>> {
    let allots = |subnet: &&Subnet| !subnet.pools.is_empty() || subnet.autoconfigured();
    let allotting: BTreeSet<NetworkId> = input.intent.subnets().filter(allots).map(|subnet| subnet.network).collect();
    ports
        .filter_map(|(id, tap)| {
            let port = input.intent.port(id)?;
            let network = input.intent.network(port.network)?;
            let alias = owned_alias(format_args!("port/{id}"));
            let planned = plan.desired.links.get(tap).is_some_and(|link| link.alias.as_ref() == Some(&alias));
            let protection = Protection::of(&network.security, &port.security);
            let free = port.fixed_ips.is_empty() && !allotting.contains(&port.network);
            planned.then_some(Guest { tap, port, network, protection, free })
        })
        .collect()
}

/// Whether a port's groups let answers pass, so that its connections must be tracked.
fn remembers(input: Input<'_>, protection: &Protection<'_>) -> bool {
    let mut groups = protection.groups.into_iter().flatten().filter_map(|id| input.intent.security_group(*id));
    groups.any(|group| group.stateful)
}

fn add_guest<'a>(input: Input<'_>, guest: &Guest<'a>, groups: &mut Groups<'a>, table: &mut Table) {
    let tap = link_element(guest.tap);
    if guest.protection.isolated {
        insert(table, ISOLATED, [tap.clone()]);
    }
    if let Some(dscp) = guest.port.security.qos.dscp {
        let chain = format!("dscp_{dscp}");
        insert(table, MARKS, [format!("{tap} : goto {chain}")]);
        table.chains.entry(chain).or_insert_with(|| marking(dscp).into());
    }
    if !guest.protection.port_security {
        return;
    }
    insert(table, SECURED, [tap.clone()]);
    if guest.port.trunk.is_none() {
        insert(table, ACCESS, [tap.clone()]);
    }
    add_sources(guest, &tap, table);
    // What it was delegated is behind it, and has no neighbours on this link.
    // nft takes no prefix that is within another of the same set.
    let within = |prefix: &Ipv6Net| {
        let pairs = &guest.port.security.address_pairs;
        let same_mac = |pair: &&AddressPair| pair.mac.is_none_or(|mac| mac == guest.port.mac);
        pairs.iter().filter(same_mac).any(|pair| pair.ip.contains(&IpNet::from(*prefix)))
    };
    for prefix in input.delegated_to(guest.port).filter(|prefix| !within(prefix)) {
        insert(table, PREFIXES6, [format!("{tap} . {} . {prefix}", guest.port.mac)]);
    }
    if guest.protection.groups.is_some() {
        insert(table, GROUPED, [tap.clone()]);
    }
    if remembers(input, &guest.protection) {
        insert(table, STATEFUL, [tap.clone()]);
    }
    for (map, direction) in [(OUT, Direction::Egress), (IN, Direction::Ingress)] {
        if let Some(chain) = groups.chain_of(guest, direction, table) {
            insert(table, map, [format!("{tap} : jump {chain}")]);
        }
    }
}

/// The addresses that a port may send from.
fn add_sources(guest: &Guest<'_>, tap: &str, table: &mut Table) {
    let port = guest.port;
    let pairs = port.security.address_pairs.iter().map(|pair| (pair.mac.unwrap_or(port.mac), pair.ip));
    let own = port.fixed_ips.iter().map(|ip| (port.mac, IpNet::from(ip.address)));
    let mut by_mac: BTreeMap<MacAddr, Vec<IpNet>> = BTreeMap::from([(port.mac, Vec::new())]);
    for (mac, net) in own.chain(pairs) {
        by_mac.entry(mac).or_default().push(net);
    }
    for (mac, nets) in by_mac {
        // As nft lists a number: without zeros before it.
        let number = mac.octets().iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        insert(table, MACS, [format!("{tap} . {mac}")]);
        insert(table, ND_MACS, [format!("{tap} . 0x{number:x}")]);
        insert(table, RS_MACS, [format!("{tap} . 0x{number:x}")]);
        add_address(tap, mac, &IpNet::from(IpAddr::V6(mac.link_local())), table);
        // nft takes no prefix that is within another of the same set.
        for net in IpNet::aggregate(&nets) {
            add_address(tap, mac, &net, table);
        }
    }
    if guest.free {
        insert(table, FREE, [tap.to_owned()]);
        insert(table, ND_FREE, [tap.to_owned()]);
    }
}

fn add_address(tap: &str, mac: MacAddr, net: &IpNet, table: &mut Table) {
    let set = match (net, is_single(net)) {
        (IpNet::V4(_), true) => ADDRESSES4,
        (IpNet::V4(_), false) => PREFIXES4,
        (IpNet::V6(_), true) => ADDRESSES6,
        (IpNet::V6(_), false) => PREFIXES6,
    };
    insert(table, set, [format!("{tap} . {mac} . {}", plain(net))]);
    match net {
        IpNet::V6(net) if net.prefix_len() == 128 => {
            insert(table, ND_TARGETS, [format!("{tap} . 0x{:x}", u128::from(net.addr()))]);
        }
        IpNet::V6(_) => insert(table, ND_FREE, [tap.to_owned()]),
        IpNet::V4(_) => {}
    }
}

/// Which zone the frames of each link are tracked in.
fn add_zones(input: Input<'_>, placements: &Placements, guests: &[Guest<'_>], plan: &Plan, table: &mut Table) {
    let mut by_vlan: BTreeMap<(&ResourceName, VlanId), u16> = BTreeMap::new();
    for network in input.intent.networks() {
        if let Segment::Vlan { physical_network, vid } = &network.segment {
            by_vlan.insert((physical_network, *vid), network.zone);
        }
    }
    let zone_of = |network: &Network, vid: VlanId| {
        let physical = network.segment.physical_network();
        let known = physical.and_then(|physical| by_vlan.get(&(physical, vid)));
        known.copied().unwrap_or(Network::VLAN_ZONES + vid.get())
    };
    let ours: BTreeSet<&IfName> = guests.iter().map(|guest| guest.tap).collect();
    for guest in guests {
        let tap = link_element(guest.tap);
        insert(table, ZONES, [format!("{tap} : {}", guest.network.zone)]);
        for vid in guest.port.trunk.iter().flat_map(|trunk| &trunk.tagged) {
            insert(table, VLAN_ZONES, [format!("{tap} . {vid} : {}", zone_of(guest.network, *vid))]);
        }
    }
    for (id, placement) in placements {
        let Some(network) = input.intent.network(*id) else { continue };
        insert(table, TRACKED, [link_element(&placement.bridge)]);
        let mac = [&plan.desired.links, &input.observed.datapath.links]
            .into_iter()
            .find_map(|links| links.get(&placement.bridge).and_then(|bridge| bridge.mac));
        insert(table, HOST_MACS, mac.map(|mac| mac.to_string()));
        // The other ports: the uplink, and on a bridge that is not ours whoever is there.
        for (link, vlans) in others_on(input, &placement.bridge, plan).into_iter().filter(|(l, _)| !ours.contains(l)) {
            let name = link_element(link);
            match (placement.vlan, &network.segment) {
                (None, _) => insert(table, ZONES, [format!("{name} : {}", network.zone)]),
                (Some(vid), Segment::Vlan { .. }) if vlans.get(&vid) == Some(&false) => {
                    insert(table, VLAN_ZONES, [format!("{name} . {vid} : {}", network.zone)]);
                }
                (Some(vid), _) if vlans.get(&vid) == Some(&true) => {
                    insert(table, ZONES, [format!("{name} : {}", network.zone)]);
                }
                _ => {}
            }
        }
    }
}

/// The ports of a bridge that are not our guests', each with its VLANs and whether its untagged frames are of it.
fn others_on<'a>(input: Input<'a>, bridge: &IfName, plan: &'a Plan) -> BTreeMap<&'a IfName, BTreeMap<VlanId, bool>> {
    let mut others: BTreeMap<&IfName, BTreeMap<VlanId, bool>> = BTreeMap::new();
    for (datapath, desired) in [(&input.observed.datapath, false), (&plan.desired, true)] {
        let on = datapath.links.iter().filter(|(_, link)| link.master() == Some(bridge));
        // What is ours and not desired is about to leave.
        for (name, _) in on.filter(|(_, link)| desired || !link.is_owned()) {
            let vlans =
                datapath.vlans.range((name.clone(), VlanId::LOWEST)..).take_while(|((link, _), _)| link == name);
            others.entry(name).or_default().extend(vlans.map(|((_, vid), entry)| (*vid, entry.flags().0)));
        }
    }
    others
}

fn insert(table: &mut Table, set: &str, elements: impl IntoIterator<Item = String>) {
    if let Some(set) = table.sets.get_mut(set) {
        set.elements.extend(elements);
    }
}
