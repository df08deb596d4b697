//! The host's own layer 3 on networks: addresses, forwarding.

use super::{
    Input, Plan, Problem, Subject,
    bridge::{Placement, Placements},
};
use crate::{
    datapath::{Link, LinkKind, Sysctl, VlanEntry, owned_alias},
    intent::{Forward, Network, NetworkId, Segment, Subnet},
    net::{IfName, IpNet, VlanId},
};

/// A subnet that the host has an address in.
#[derive(Debug)]
pub(super) struct Gateway {
    pub network: NetworkId,
    pub link: IfName,
    pub cidr: IpNet,
    pub forward: Forward,
}

pub(super) fn plan_gateways(input: Input<'_>, placements: &Placements, plan: &mut Plan) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for network in input.intent.networks() {
        let Some(placement) = placements.get(&network.id).filter(|placement| placement.own) else { continue };
        let mut link = None;
        for subnet in input.intent.subnets_of(network.id) {
            let Some(address) = subnet.host_address else { continue };
            let link = link.get_or_insert_with(|| gateway_link(network, placement, plan)).clone();
            report_overlap(input, subnet, plan);
            let address = IpNet::new(address, subnet.cidr.prefix_len()).expect("a prefix length of its own family");
            plan.desired.addresses.insert((link.clone(), address));
            gateways.push(Gateway { network: network.id, link, cidr: subnet.cidr, forward: subnet.forward });
        }
    }
    // The host shows itself on guests' networks only where it was given an address.
    for (name, _) in plan.desired.links.iter().filter(|(_, link)| link.kind.is_some()) {
        plan.desired.sysctls.insert(Sysctl::Ipv6Disabled(name.clone()), "1".into());
    }
    gateways
}

/// The interface that the host's addresses on a network are on.
pub fn gateway_name(network: &Network, bridge: &IfName) -> IfName {
    let Segment::Vlan { vid, .. } = &network.segment else { return bridge.clone() };
    IfName::new(&format!("{bridge}.{vid}")).unwrap_or_else(|_| {
        let hex = network.id.0.simple().to_string();
        IfName::new(&format!("vmf-{}.{vid}", &hex[..6])).expect("4 + 6 + 1 + 4 bytes are an interface name")
    })
}

fn gateway_link(network: &Network, placement: &Placement, plan: &mut Plan) -> IfName {
    let name = gateway_name(network, &placement.bridge);
    let bridge = placement.bridge.clone();
    match (&network.segment, placement.vlan) {
        (Segment::Vlan { .. }, Some(vid)) => {
            plan.desired.vlans.insert((bridge.clone(), vid), VlanEntry::Tagged);
            carry(placement, vid, plan);
            let link = Link {
                kind: Some(LinkKind::Vlan { parent: bridge, id: vid }),
                master: Some(None),
                up: Some(true),
                mtu: network.mtu.map(u32::from),
                mac: None,
                alias: Some(owned_alias(format_args!("network/{}", network.id))),
            };
            plan.desired.links.insert(name.clone(), link);
        }
        (_, Some(native)) => {
            plan.desired.vlans.insert((bridge, native), VlanEntry::Native);
        }
        (_, None) => {}
    }
    name
}

/// The uplink carries the VLANs that are in use: by a guest, or by the host itself.
fn carry(placement: &Placement, vid: VlanId, plan: &mut Plan) {
    if let Some(uplink) = &placement.uplink {
        plan.desired.vlans.entry((uplink.clone(), vid)).or_insert(VlanEntry::Tagged);
    }
}

/// The host may have joined, since the subnet was made, a network with the same addresses.
fn report_overlap(input: Input<'_>, subnet: &Subnet, plan: &mut Plan) {
    let observed = &input.observed.datapath;
    let foreign = observed.addresses.iter().filter(|(link, _)| !observed.links.get(link).is_some_and(Link::is_owned));
    for (link, address) in foreign {
        if address.contains(&subnet.cidr.network()) || subnet.cidr.contains(&address.addr()) {
            plan.problems.push(Problem::new(
                Subject::Subnet(subnet.id),
                format!(
                    "subnet {} overlaps {address}, which this host has on {link}: guests there cannot be told from hosts \
                     here; give the subnet another block",
                    subnet.cidr
                ),
            ));
        }
    }
}

/// Links of others that guests' packets leave by.
pub(super) fn outward<'a>(input: Input<'a>) -> impl Iterator<Item = &'a IfName> {
    let links = &input.observed.datapath.links;
    let named = input.observed.default_route_links.iter().chain(&input.host.egress);
    named.filter(|link| links.get(*link).is_some_and(|link| !link.is_owned()))
}

/// Forwarding is on where guests' packets come in, and where their answers do, and nowhere else.
pub(super) fn plan_forwarding(input: Input<'_>, gateways: &[Gateway], plan: &mut Plan) {
    let forwarding: Vec<_> = gateways.iter().filter(|gateway| gateway.forward != Forward::None).collect();
    let sysctls = &mut plan.desired.sysctls;
    if !forwarding.is_empty() {
        for link in outward(input) {
            sysctls.insert(Sysctl::Ipv4Forwarding(link.clone()), "1".into());
        }
        for gateway in forwarding {
            sysctls.insert(Sysctl::Ipv4Forwarding(gateway.link.clone()), "1".into());
        }
    }
    for (key, value) in input.previous {
        if input.observed.datapath.links.contains_key(key.link()) {
            sysctls.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}
