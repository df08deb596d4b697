//! Our nftables tables: the standing drop on our bridges, and NAT and forwarding for our subnets.

use super::{Input, Plan, bridge::Placements, l3::Gateway};
use crate::{
    datapath::{BOUND, Family, Table},
    intent::Forward,
    net::IfName,
};
use std::collections::BTreeSet;

/// The set of our bridges in the bridge table.
pub const BRIDGES: &str = "bridges";
const GATEWAYS: &str = "gateways";
const HAIRPIN: &str = "hairpin";
const NAT: &str = "nat4";
const ROUTED: &str = "routed4";

/// Runs before every other filter of frames that come in, and after every other of frames that leave, so that nothing
/// that another table does lets an unbound port speak or hear.
const BRIDGE_SKELETON: &str = "\
set bridges { type ifname; }
set bound { type ifname; }
chain prerouting {
  type filter hook prerouting priority -350; policy accept;
  meta ibrname @bridges iifname != @bound counter drop
}
chain postrouting {
  type filter hook postrouting priority 350; policy accept;
  meta obrname @bridges oifname != @bound counter drop
}
";

/// `hairpin` lets bridged frames be where br_netfilter shows them to the forward hook.
const INET_SKELETON: &str = "\
set gateways { type ifname; }
set hairpin { type ifname . ifname; }
set nat4 { type ipv4_addr; flags interval; }
set routed4 { type ipv4_addr; flags interval; }
chain forward {
  type filter hook forward priority filter; policy accept;
  iifname != @gateways oifname != @gateways accept
  iifname . oifname @hairpin accept
  ct state established,related accept
  iifname != @gateways oifname @gateways ip daddr @routed4 accept
  iifname @gateways oifname @gateways ip saddr @nat4 ip daddr @routed4 accept
  iifname @gateways oifname @gateways ip saddr @routed4 ip daddr @routed4 accept
  iifname @gateways oifname != @gateways ip saddr @nat4 accept
  iifname @gateways oifname != @gateways ip saddr @routed4 accept
  counter drop
}
chain postrouting {
  type nat hook postrouting priority srcnat; policy accept;
  ip saddr @nat4 ip daddr != 224.0.0.0/4 ip daddr != 255.255.255.255 oifname != @gateways masquerade
}
";

/// Every skeleton that a plan can ask for.
pub fn known_skeletons() -> Vec<(Family, String)> {
    vec![(Family::Bridge, BRIDGE_SKELETON.to_owned()), (Family::Inet, INET_SKELETON.to_owned())]
}

pub(super) fn plan_tables(input: Input<'_>, placements: &Placements, gateways: &[Gateway], plan: &mut Plan) {
    let own: BTreeSet<IfName> = placements.values().filter(|p| p.own).map(|p| p.bridge.clone()).collect();
    if input.observed.capabilities.nft_bridge_meta && !own.is_empty() {
        let ports = plan.desired.links.iter().filter(|(_, link)| link.master().is_some_and(|m| own.contains(m)));
        let bound = ports.map(|(name, _)| name.to_string()).collect();
        let bridges = own.iter().map(ToString::to_string).collect();
        let sets = [(BRIDGES.to_owned(), bridges), (BOUND.to_owned(), bound)].into();
        plan.desired.tables.insert(Family::Bridge, Table { skeleton: BRIDGE_SKELETON.to_owned(), sets });
    }
    if !gateways.is_empty() {
        let blocks = |forward| -> BTreeSet<String> {
            gateways.iter().filter(|g| g.forward == forward).map(|g| g.cidr.to_string()).collect()
        };
        let sets = [
            (GATEWAYS.to_owned(), gateways.iter().map(|g| g.link.to_string()).collect()),
            (HAIRPIN.to_owned(), gateways.iter().map(|g| format!("{0} . {0}", g.link)).collect()),
            (NAT.to_owned(), blocks(Forward::Nat)),
            (ROUTED.to_owned(), blocks(Forward::Routed)),
        ];
        plan.desired.tables.insert(Family::Inet, Table { skeleton: INET_SKELETON.to_owned(), sets: sets.into() });
    }
}

/// Lets the ports of a partial plan speak.
pub(super) fn bind_ports(input: Input<'_>, plan: &mut Plan) {
    if !input.observed.capabilities.nft_bridge_meta {
        return;
    }
    let links = &input.observed.datapath.links;
    let own = |bridge: &IfName| links.get(bridge).is_some_and(|link| link.is_owned());
    let taps = plan.desired.links.iter().filter(|(_, link)| link.master().is_some_and(own));
    let bound: BTreeSet<String> = taps.map(|(name, _)| name.to_string()).collect();
    if !bound.is_empty() {
        let sets = [(BOUND.to_owned(), bound)].into();
        plan.desired.tables.insert(Family::Bridge, Table { skeleton: BRIDGE_SKELETON.to_owned(), sets });
    }
}
