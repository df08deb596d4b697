//! Our inet table: NAT and forwarding for our subnets, and what guests may ask of the host itself.

use super::{Plan, l3::Gateway};
use crate::{
    datapath::{Family, Set, Table, Text, link_element},
    intent::{Forward, HostConfig},
    net::{IfName, protocol},
};
use std::collections::BTreeSet;

/// `hairpin` lets bridged frames be where br_netfilter shows them to the forward hook. DHCP, which passes whatever a
/// guest's groups, stays on its link. IPv6 is forwarded for the host as a whole: its links that are no routers stay so
/// (`hosts6`).
const FORWARD: &str = "\
type filter hook forward priority filter; policy accept;
iifname @hosts6 oifname != @gateways meta nfproto ipv6 counter drop
iifname != @gateways oifname != @gateways accept
iifname . oifname @hairpin accept
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
counter drop";

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
counter drop";

const SETS: [(&str, &str); 8] = [
    ("gateways", "set type ifname"),
    ("hairpin", "set type ifname . ifname"),
    ("nat4", "set type ipv4_addr; flags interval"),
    ("routed4", "set type ipv4_addr; flags interval"),
    ("nat6", "set type ipv6_addr; flags interval"),
    ("routed6", "set type ipv6_addr; flags interval"),
    ("hosts6", "set type ifname"),
    ("host_services", "set type inet_proto . inet_service"),
];
const CHAINS: [(&str, &str); 3] = [("forward", FORWARD), ("postrouting", POSTROUTING), ("input", INPUT)];
/// DNS, DHCP and DHCPv6.
const SERVICES: [&str; 4] = ["tcp . 53", "udp . 53", "udp . 67", "udp . 547"];

pub(super) fn plan_forward_table(host: &HostConfig, gateways: &[Gateway], hosts6: &[IfName], plan: &mut Plan) {
    if gateways.is_empty() {
        return;
    }
    let blocks = |forward, ipv6| -> BTreeSet<String> {
        let of = gateways.iter().filter(|g| g.forward == forward && g.is_ipv6() == ipv6);
        of.flat_map(|g| [Some(g.cidr), g.delegates]).flatten().map(|block| block.to_string()).collect()
    };
    let opened = host.host_services.iter().map(|s| format!("{} . {}", protocol::name(s.protocol), s.port));
    let mut elements = [
        gateways.iter().map(|g| link_element(&g.link)).collect(),
        gateways.iter().map(|g| format!("{0} . {0}", link_element(&g.link))).collect(),
        blocks(Forward::Nat, false),
        blocks(Forward::Routed, false),
        blocks(Forward::Nat, true),
        blocks(Forward::Routed, true),
        hosts6.iter().map(link_element).collect(),
        SERVICES.into_iter().map(str::to_owned).chain(opened).collect(),
    ];
    let sets = SETS.iter().zip(&mut elements);
    let table = Table {
        sets: sets
            .map(|((name, spec), elements)| ((*name).to_owned(), Set::new(spec, std::mem::take(elements))))
            .collect(),
        chains: CHAINS.iter().map(|(name, rules)| ((*name).to_owned(), Text::from(*rules))).collect(),
        foreign: false,
    };
    plan.desired.tables.insert(Family::Inet, table);
}
