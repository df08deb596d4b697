//! The host's own layer 3 on networks: addresses, forwarding.

use super::{
    DelegatedPrefix, Input, Plan, Problem, Subject,
    bridge::{Placement, Placements},
};
use crate::{
    datapath::{Link, LinkKind, Route, Sysctl, VlanEntry, owned_alias},
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
    /// What guests are delegated prefixes from.
    pub delegates: Option<IpNet>,
}

impl Gateway {
    pub fn is_ipv6(&self) -> bool {
        matches!(self.cidr, IpNet::V6(_))
    }
}

pub(super) fn plan_gateways(input: Input<'_>, placements: &Placements, plan: &mut Plan) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for network in input.intent.networks() {
        let Some(placement) = placements.get(&network.id).filter(|placement| placement.own) else { continue };
        let mut link = None;
        for subnet in input.intent.subnets_of(network.id) {
            let Some(address) = subnet.host_address else { continue };
            let link = link.get_or_insert_with(|| gateway_link(input, network, placement, plan)).clone();
            report_overlap(input, subnet, plan);
            let address = IpNet::new(address, subnet.cidr.prefix_len()).expect("a prefix length of its own family");
            plan.desired.addresses.insert((link.clone(), address));
            let delegates = subnet.delegation.map(|delegation| IpNet::V6(delegation.block));
            plan_delegated(input, subnet, &link, plan);
            gateways.push(Gateway { network: network.id, link, cidr: subnet.cidr, forward: subnet.forward, delegates });
        }
    }
    // The host shows itself on guests' networks only where it was given an address.
    for (name, _) in plan.desired.links.iter().filter(|(_, link)| link.kind.is_some()) {
        let shows = gateways.iter().any(|gateway: &Gateway| gateway.is_ipv6() && gateway.link == *name);
        let disabled = if shows { "0" } else { "1" };
        plan.desired.sysctls.insert(Sysctl::Ipv6Disabled(name.clone()), disabled.into());
        if shows {
            // What guests say of routers is nothing to the host.
            plan.desired.sysctls.insert(Sysctl::Ipv6AcceptRa(name.clone()), "0".into());
            plan.desired.sysctls.insert(Sysctl::Ipv6Forwarding(name.clone()), "0".into());
        }
    }
    gateways
}

/// What guests were delegated out of a subnet's block is behind them. Their link-local address is the one that port
/// security knows.
fn plan_delegated(input: Input<'_>, subnet: &Subnet, link: &IfName, plan: &mut Plan) {
    let Some(delegation) = subnet.delegation else { return };
    let here = |d: &&DelegatedPrefix| d.network == subnet.network && delegation.block.contains(&d.prefix);
    let routes = input.delegated.iter().filter(here);
    plan.desired.routes.extend(routes.map(|delegated| Route {
        destination: delegated.prefix,
        via: delegated.mac.link_local(),
        link: link.clone(),
    }));
}

/// The interface that the host's addresses on a network are on.
pub fn gateway_name(network: &Network, bridge: &IfName) -> IfName {
    let Segment::Vlan { vid, .. } = &network.segment else { return bridge.clone() };
    IfName::new(&format!("{bridge}.{vid}")).unwrap_or_else(|_| {
        let hex = network.id.0.simple().to_string();
        IfName::new(&format!("vmf-{}.{vid}", &hex[..6])).expect("4 + 6 + 1 + 4 bytes are an interface name")
    })
}

fn gateway_link(input: Input<'_>, network: &Network, placement: &Placement, plan: &mut Plan) -> IfName {
    let name = gateway_name(network, &placement.bridge);
    let bridge = placement.bridge.clone();
    match (&network.segment, placement.vlan) {
        (Segment::Vlan { .. }, Some(vid)) => {
            plan.desired.vlans.insert((bridge.clone(), vid), VlanEntry::Tagged);
            carry(placement, vid, plan);
            let mtu = gateway_mtu(input, network, placement, plan);
            let link = Link {
                kind: Some(LinkKind::Vlan { parent: bridge, id: vid }),
                master: Some(None),
                up: Some(true),
                mtu,
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

/// A VLAN's interface has no more than what it is on (`vlan_dev_change_mtu`).
fn gateway_mtu(input: Input<'_>, network: &Network, placement: &Placement, plan: &mut Plan) -> Option<u32> {
    let sized = plan.desired.links.get(&placement.bridge).is_some_and(|bridge| bridge.mtu.is_some());
    // Unsaid, it would start with the bridge's, which another network asked for.
    let wanted = (sized || network.mtu.is_some()).then(|| u32::from(network.effective_mtu()))?;
    let known = [&plan.desired.links, &input.observed.datapath.links];
    let Some(most) =
        known.into_iter().find_map(|links| links.get(&placement.bridge)?.mtu).filter(|most| *most < wanted)
    else {
        return Some(wanted);
    };
    let link = placement.uplink.as_ref().unwrap_or(&placement.bridge);
    plan.problems.push(Problem::partial(
        Subject::Network(network.id),
        format!(
            "guests are told an MTU of {wanted}, and {link} carries {most}: large packets are lost; vmfabric network set {} \
             mtu={most}, or: ip link set {link} mtu {wanted}",
            network.name
        ),
    ));
    Some(most)
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
pub(super) fn outward<'a>(input: Input<'a>, ipv6: bool) -> impl Iterator<Item = &'a IfName> {
    let links = &input.observed.datapath.links;
    let routes = match ipv6 {
        true => &input.observed.default_route_links6,
        false => &input.observed.default_route_links,
    };
    routes.iter().chain(&input.host.egress).filter(|link| links.get(*link).is_some_and(|link| !link.is_owned()))
}

/// Forwarding is on where guests' packets come in, and where their answers do, and nowhere else.
pub(super) fn plan_forwarding(input: Input<'_>, gateways: &[Gateway], plan: &mut Plan) {
    let forwards = |ipv6| gateways.iter().filter(move |g| g.forward != Forward::None && g.is_ipv6() == ipv6);
    let sysctls = &mut plan.desired.sysctls;
    if forwards(false).next().is_some() {
        for link in outward(input, false) {
            sysctls.insert(Sysctl::Ipv4Forwarding(link.clone()), "1".into());
        }
        for gateway in forwards(false) {
            sysctls.insert(Sysctl::Ipv4Forwarding(gateway.link.clone()), "1".into());
        }
    }
    if forwards(true).next().is_some() {
        for link in learning(input) {
            sysctls.insert(Sysctl::Ipv6AcceptRa(link.clone()), "2".into());
        }
        for gateway in forwards(true) {
            sysctls.insert(Sysctl::Ipv6Forwarding(gateway.link.clone()), "1".into());
        }
        sysctls.insert(Sysctl::Ipv6ForwardingPath, "1".into());
    }
    for (key, value) in input.previous {
        if key.link().is_none_or(|link| input.observed.datapath.links.contains_key(link)) {
            sysctls.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Links of others that hear of their routers by advertisements, and would forget them when forwarding is switched on
/// (`rt6_purge_dflt_routers` leaves links alone whose `accept_ra` is 2).
fn learning<'a>(input: Input<'a>) -> impl Iterator<Item = &'a IfName> {
    let state = &input.observed.datapath;
    input.observed.advertised_links.iter().filter(move |link| {
        let key = Sysctl::Ipv6AcceptRa((*link).clone());
        let accepts = state.sysctls.get(&key).is_some_and(|value| value == "1") || input.previous.contains_key(&key);
        accepts && state.links.get(*link).is_some_and(|link| !link.is_owned())
    })
}

/// Links of others that were no routers before IPv6 was forwarded for guests: what comes in there goes to guests alone.
pub(super) fn hosts6(input: Input<'_>, plan: &Plan) -> Vec<IfName> {
    let observed = &input.observed.datapath;
    let path = Sysctl::Ipv6ForwardingPath;
    let forwarding = plan.desired.sysctls.get(&path).is_some_and(|value| value == "1");
    let before = input.previous.get(&path).or(observed.sysctls.get(&path));
    if !forwarding || before.is_none_or(|value| value != "0") {
        return Vec::new();
    }
    let host = |key: &Sysctl, value: &String| match key {
        Sysctl::Ipv6Forwarding(link) if value == "0" => Some(link.clone()),
        _ => None,
    };
    let hosts = observed.sysctls.iter().filter_map(|(key, value)| host(key, value));
    // What is ours goes, or is about to be let go of.
    let others = |link: &IfName| {
        let made = |link: &Link| link.is_owned() && !matches!(link.kind, Some(LinkKind::Other(_)));
        !plan.desired.links.contains_key(link) && observed.links.get(link).is_some_and(|link| !made(link))
    };
    hosts.filter(others).collect()
}
