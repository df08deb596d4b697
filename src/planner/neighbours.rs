//! Our entries in the packet filters that others run on this host: what our own tables judge, those let pass.

use super::{
    Input, Plan, Problem, Subject,
    bridge::Placements,
    l3::{Gateway, outward},
};
use crate::{
    datapath::{Admission, Iptables, Neighbour, Obstacle, UserChain, ZONE},
    intent::Forward,
    net::IfName,
};
use std::collections::BTreeSet;

pub(super) fn plan_admissions(input: Input<'_>, placements: &Placements, gateways: &[Gateway], plan: &mut Plan) {
    let observed = &input.observed.datapath;
    for (at, have) in &observed.admissions {
        let wanted = match at {
            Neighbour::Chain(tables, UserChain::UfwInput) => services(input, of_family(gateways, *tables)),
            Neighbour::Chain(tables, _) => forwarded(input, placements, of_family(gateways, *tables), tables.ipv6),
            Neighbour::Firewalld => {
                let others = have.iter().filter(|admission| is_others(input, admission)).cloned();
                zoned(input, placements, gateways).chain(others).collect()
            }
        };
        plan.desired.admissions.insert(*at, wanted);
    }
    if !placements.is_empty() {
        let messages = input.observed.obstacles.iter().map(describe);
        plan.problems.extend(messages.map(|message| Problem::new(Subject::Host, message)));
    }
}

fn of_family(gateways: &[Gateway], tables: Iptables) -> impl Iterator<Item = &Gateway> + Clone {
    gateways.iter().filter(move |gateway| gateway.is_ipv6() == tables.ipv6)
}

/// All that goes to guests, and what they send to the outside; what they send to others' links, as containers, those
/// judge. On a bridge of its own a frame comes and goes by the same link where br_netfilter shows it to iptables.
fn forwarded<'a>(
    input: Input<'_>,
    placements: &Placements,
    gateways: impl Iterator<Item = &'a Gateway> + Clone,
    ipv6: bool,
) -> BTreeSet<Admission> {
    let forwarding: BTreeSet<&IfName> =
        gateways.filter(|gateway| gateway.forward != Forward::None).map(|gateway| &gateway.link).collect();
    let to_guests = forwarding.iter().map(|link| Admission::Forward { from: None, to: (*link).clone() });
    let outside: BTreeSet<&IfName> = outward(input, ipv6).collect();
    let from_guests = forwarding.iter().flat_map(|from| {
        outside.iter().map(|to| Admission::Forward { from: Some((*from).clone()), to: (*to).clone() })
    });
    let bridges: BTreeSet<&IfName> = placements.values().map(|placement| &placement.bridge).collect();
    let within = bridges.into_iter().filter(|bridge| !forwarding.contains(bridge));
    let within = within.map(|bridge| Admission::Forward { from: Some(bridge.clone()), to: bridge.clone() });
    to_guests.chain(from_guests).chain(within).collect()
}

/// DNS and DHCP, and what the configuration opens.
fn services<'a>(input: Input<'_>, gateways: impl Iterator<Item = &'a Gateway>) -> BTreeSet<Admission> {
    let mut all = BTreeSet::new();
    for gateway in gateways {
        let dhcp = if gateway.is_ipv6() { 547 } else { 67 };
        let opened = input.host.host_services.iter().map(|service| (service.protocol, service.port));
        let ports = [(6, 53), (17, 53), (17, dhcp)].into_iter().chain(opened);
        all.extend(ports.map(|(protocol, port)| Admission::Service { from: gateway.link.clone(), protocol, port }));
    }
    all
}

/// Our own links; not those that somebody has put elsewhere on purpose.
fn zoned<'a>(
    input: Input<'a>,
    placements: &'a Placements,
    gateways: &'a [Gateway],
) -> impl Iterator<Item = Admission> + 'a {
    let bridges = placements.values().filter(|placement| placement.own).map(|placement| &placement.bridge);
    let links: BTreeSet<&IfName> = bridges.chain(gateways.iter().map(|gateway| &gateway.link)).collect();
    links.into_iter().filter(move |link| !input.observed.zoned.contains(*link)).cloned().map(Admission::Zone)
}

/// Whether it concerns a link of others, which somebody has put into our zone.
fn is_others(input: Input<'_>, admission: &Admission) -> bool {
    let Admission::Zone(link) = admission else { return false };
    input.observed.datapath.links.get(link).is_some_and(|link| !link.is_owned())
}

fn describe(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::NoProgram(tables) => format!(
            "Docker or ufw filters guests' packets with {0}, and there is no program {0} to have them let guests' \
             packets pass; install the package iptables",
            tables.program()
        ),
        Obstacle::NoZone => format!(
            "firewalld does not know the zone '{ZONE}', and so keeps guests from the host and from the outside; \
             run 'firewall-cmd --reload' (the zone is in /usr/lib/firewalld/zones/{ZONE}.xml)"
        ),
        Obstacle::Chain { family, table, chain, hook, links } => describe_chain(family, table, chain, hook, links),
    }
}

fn describe_chain(family: &str, table: &str, chain: &str, hook: &str, links: &BTreeSet<IfName>) -> String {
    let names: Vec<&str> = links.iter().take(4).map(IfName::as_str).collect();
    let (first, names) = (names.first().copied().unwrap_or("LINK"), names.join(", "));
    let rules = if hook == "input" {
        format!("nft insert rule {family} {table} {chain} iifname \"{first}\" accept")
    } else {
        format!(
            "nft insert rule {family} {table} {chain} iifname \"{first}\" accept; \
             nft insert rule {family} {table} {chain} oifname \"{first}\" accept"
        )
    };
    format!(
        "nftables table {family} {table}, chain {chain} (hook {hook}, policy drop), keeps guests on {names} from what \
         vmfabric allows them, as no rule there names these links; let them pass where that table is made: {rules}"
    )
}
