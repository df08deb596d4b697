//! Our inet table: NAT and forwarding for our subnets, and what guests may ask of the host itself.

use super::{
    Input, Plan,
    bridge::Placements,
    filter::{drop_rules, is_single, log_rate, logs, plain},
    l3::{Gateway, gateway_name},
};
use crate::{
    datapath::{Family, Set, Table, Text, link_element},
    intent::{Forward, NetworkId, Port, PortId, Protection},
    net::{IfName, IpNet, protocol},
};
use std::collections::{BTreeMap, BTreeSet};

/// `same_link` lets bridged frames be where br_netfilter shows them to the forward hook. DHCP, which passes whatever a
/// guest's groups, stays on its link. IPv6 is forwarded for the host as a whole: its links that are no routers stay so
/// (`hosts6`), but for what br_netfilter shows of others' bridges (`hosts6_same`).
const FORWARD: &str = "\
type filter hook forward priority filter; policy accept;
iifname . oifname @hosts6_same accept
iifname @hosts6 oifname != @gateways meta nfproto ipv6 counter drop
iifname != @gateways oifname != @gateways accept
iifname . oifname @hairpin goto same_link
udp sport . udp dport { 67 . 68, 68 . 67, 546 . 547, 547 . 546 } counter drop
ct state established,related accept
iifname != @gateways oifname @gateways ip daddr @routed4 accept
iifname @gateways oifname @gateways ip saddr @nat4 ip daddr @routed4 accept
iifname @gateways oifname @gateways ip saddr @routed4 ip daddr @routed4 accept
iifname @gateways oifname != @gateways ip saddr @nat4 accept
iifname @gateways oifname != @gateways ip saddr @routed4 accept
iifname != @gateways oifname @gateways ip6 daddr @routed6 accept
iifname @gateways oifname @gateways ip6 saddr @nat6 ip6 daddr @routed6 accept
iifname @gateways oifname @gateways ip6 saddr @routed6 ip6 daddr @routed6 accept
iifname @gateways oifname != @gateways ip6 saddr @nat6 accept
iifname @gateways oifname != @gateways ip6 saddr @routed6 accept
iifname @gateways goto drop_forward
counter drop";

/// What the bridge keeps apart does not meet through the gateway.
const SAME_LINK: &str = "\
iifname . ip saddr @isolated4 goto from_isolated
iifname . ip saddr @isolated4_prefixes goto from_isolated
iifname . ip6 saddr @isolated6 goto from_isolated
iifname . ip6 saddr @isolated6_prefixes goto from_isolated
accept";

const FROM_ISOLATED: &str = "\
oifname . ip daddr @isolated4 goto drop_isolation
oifname . ip daddr @isolated4_prefixes goto drop_isolation
oifname . ip6 daddr @isolated6 goto drop_isolation
oifname . ip6 daddr @isolated6_prefixes goto drop_isolation
accept";

/// Why the host does not take or route what a guest sends: each a chain `drop_REASON` that counts by link and source in
/// `drops_REASON4` and `drops_REASON6`, as long as there is room.
const REASONS: [&str; 3] = ["host", "forward", "isolation"];
/// How a set's name ends, the protocol, and the type of its addresses.
const VERSIONS: [(&str, &str, &str); 2] = [("4", "ip", "ipv4_addr"), ("6", "ip6", "ipv6_addr")];

/// Each reason for which the host drops what guests send, with the sets of the inet table that count them by link and
/// source.
pub fn host_drop_reasons() -> impl Iterator<Item = (String, &'static str)> {
    REASONS.into_iter().flat_map(|reason| VERSIONS.map(|(end, ..)| (format!("drops_{reason}{end}"), reason)))
}

fn counting_sets() -> impl Iterator<Item = (String, Set)> {
    REASONS.into_iter().flat_map(|reason| {
        VERSIONS.map(|(end, _, address)| {
            let spec = format!("set type ifname . {address}; size 65536; flags dynamic");
            (format!("drops_{reason}{end}"), Set::new(&spec, BTreeSet::new()))
        })
    })
}

fn drop_chain(reason: &str, logs: bool) -> (String, Text) {
    let counts =
        VERSIONS.map(|(end, ip, _)| format!("update @drops_{reason}{end} {{ iifname . {ip} saddr counter }}\n"));
    (format!("drop_{reason}"), drop_rules(reason, &counts.concat(), logs).into())
}

const POSTROUTING: &str = "\
type nat hook postrouting priority srcnat; policy accept;
iifname @gateways ip saddr @nat4 ip daddr != 224.0.0.0/4 ip daddr != 255.255.255.255 oifname != @gateways masquerade
iifname @gateways ip6 saddr @nat6 ip6 daddr != ff00::/8 oifname != @gateways masquerade";

/// Guests reach of the host what they need it for, and what the configuration opens to them. Unicast or not: a broadcast
/// to a service is one too.
const INPUT: &str = "\
type filter hook input priority filter; policy accept;
iifname != @gateways accept
ct state established,related accept
meta l4proto . th dport @host_services accept
icmp type echo-request accept
icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
meta l4proto igmp accept
icmpv6 type { 130, 131, 132, 143 } accept
goto drop_host";

const SETS: [(&str, &str); 9] = [
    ("gateways", "set type ifname"),
    ("hairpin", "set type ifname . ifname"),
    ("nat4", "set type ipv4_addr; flags interval"),
    ("routed4", "set type ipv4_addr; flags interval"),
    ("nat6", "set type ipv6_addr; flags interval"),
    ("routed6", "set type ipv6_addr; flags interval"),
    ("hosts6", "set type ifname"),
    ("hosts6_same", "set type ifname . ifname"),
    ("host_services", "set type inet_proto . inet_service"),
];
/// Addresses of isolated ports, by the link that the host's own addresses of their network are on.
const ISOLATED: [(&str, &str); 4] = [
    ("isolated4", "set type ifname . ipv4_addr"),
    ("isolated4_prefixes", "set type ifname . ipv4_addr; flags interval"),
    ("isolated6", "set type ifname . ipv6_addr"),
    ("isolated6_prefixes", "set type ifname . ipv6_addr; flags interval"),
];
const CHAINS: [(&str, &str); 5] = [
    ("forward", FORWARD),
    ("same_link", SAME_LINK),
    ("from_isolated", FROM_ISOLATED),
    ("postrouting", POSTROUTING),
    ("input", INPUT),
];
/// DNS, DHCP and DHCPv6.
const SERVICES: [&str; 4] = ["tcp . 53", "udp . 53", "udp . 67", "udp . 547"];

pub(super) fn plan_forward_table(input: Input<'_>, gateways: &[Gateway], hosts6: &[IfName], plan: &mut Plan) {
    if gateways.is_empty() {
        return;
    }
    let blocks = |forward, ipv6| -> BTreeSet<String> {
        let of = gateways.iter().filter(|g| g.forward == forward && g.is_ipv6() == ipv6);
        of.flat_map(|g| [Some(g.cidr), g.delegates]).flatten().map(|block| block.to_string()).collect()
    };
    let opened = input.host.host_services.iter().map(|s| format!("{} . {}", protocol::name(s.protocol), s.port));
    let mut elements = [
        gateways.iter().map(|g| link_element(&g.link)).collect(),
        gateways.iter().map(|g| format!("{0} . {0}", link_element(&g.link))).collect(),
        blocks(Forward::Nat, false),
        blocks(Forward::Routed, false),
        blocks(Forward::Nat, true),
        blocks(Forward::Routed, true),
        hosts6.iter().map(link_element).collect(),
        hosts6.iter().map(|link| format!("{0} . {0}", link_element(link))).collect(),
        SERVICES.into_iter().map(str::to_owned).chain(opened).collect(),
    ];
    let sets = SETS.iter().zip(&mut elements);
    let sets = sets.map(|((name, spec), elements)| ((*name).to_owned(), Set::new(spec, std::mem::take(elements))));
    let links: BTreeMap<NetworkId, &IfName> = gateways.iter().map(|g| (g.network, &g.link)).collect();
    let isolated = isolated(input, input.intent.ports(), |network| links.get(&network).copied().cloned());
    let drops = REASONS.iter().map(|reason| drop_chain(reason, logs(input)));
    let chains = CHAINS.iter().map(|(name, rules)| ((*name).to_owned(), Text::from(*rules)));
    let table = Table {
        sets: sets.chain(isolated).chain(counting_sets()).collect(),
        chains: chains.chain(drops).chain(log_rate(logs(input))).collect(),
        ..Table::default()
    };
    plan.desired.tables.insert(Family::Inet, table);
}

/// The part of it that keeps these ports apart.
pub(super) fn plan_isolation_of(input: Input<'_>, placements: &Placements, ports: &[PortId], plan: &mut Plan) {
    let link = |id| {
        let placement = placements.get(&id).filter(|placement| placement.own)?;
        let routed = input.intent.subnets_of(id).any(|subnet| subnet.host_address.is_some());
        input.intent.network(id).filter(|_| routed).map(|network| gateway_name(network, &placement.bridge))
    };
    let mut sets = isolated(input, ports.iter().filter_map(|id| input.intent.port(*id)), link);
    sets.retain(|_, set| !set.elements.is_empty());
    if !sets.is_empty() {
        plan.desired.tables.insert(Family::Inet, Table { sets, ..Table::default() });
    }
}

/// The sets of the addresses of those of some ports that are isolated.
fn isolated<'a>(
    input: Input<'_>,
    ports: impl Iterator<Item = &'a Port>,
    link: impl Fn(NetworkId) -> Option<IfName>,
) -> BTreeMap<String, Set> {
    let mut sets: BTreeMap<String, Set> =
        ISOLATED.iter().map(|(name, spec)| ((*name).to_owned(), Set::new(spec, BTreeSet::new()))).collect();
    let mut insert = |link: &IfName, net: &IpNet| {
        let family = if net.addr().is_ipv4() { 4 } else { 6 };
        let name = format!("isolated{family}{}", if is_single(net) { "" } else { "_prefixes" });
        if let Some(set) = sets.get_mut(&name) {
            set.elements.insert(format!("{} . {}", link_element(link), plain(net)));
        }
    };
    // nft takes no prefix that is within another of the same set.
    let mut prefixes: BTreeMap<IfName, Vec<IpNet>> = BTreeMap::new();
    for port in ports {
        let Some(network) = input.intent.network(port.network) else { continue };
        if !Protection::of(&network.security, &port.security).isolated {
            continue;
        }
        let Some(link) = link(port.network) else { continue };
        port.fixed_ips.iter().for_each(|ip| insert(&link, &IpNet::from(ip.address)));
        prefixes.entry(link.clone()).or_default().extend(input.delegated_to(port).map(IpNet::from));
        for pair in &port.security.address_pairs {
            match is_single(&pair.ip) {
                true => insert(&link, &pair.ip),
                false => prefixes.entry(link.clone()).or_default().push(pair.ip),
            }
        }
    }
    for (link, nets) in prefixes {
        IpNet::aggregate(&nets).iter().for_each(|net| insert(&link, net));
    }
    sets
}
