//! Planner and diff together, on hosts and intents made at random: proptest prints the seed of a failure.

use super::*;
use crate::{
    datapath::{
        Admission, BridgeSettings, Capabilities, Change, Hold, Iptables, Limit, Link, LinkKind, Neighbour, Obstacle,
        UserChain, VlanEntry, Way,
    },
    diff::{Scope, diff},
    intent::*,
    net::{AddressRange, MacAddr, VlanId},
};
use proptest::prelude::*;
use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;

pub(crate) fn if_name(text: &str) -> IfName {
    IfName::new(text).expect("interface name")
}

fn name(text: &str) -> ResourceName {
    ResourceName::new(text).expect("resource name")
}

fn vid(id: u16) -> VlanId {
    VlanId::new(id).expect("VLAN")
}

/// A host with a NIC of its own, a spare NIC for `lan`, a foreign VLAN-aware bridge for `dc`, and some taps.
pub(crate) fn bare_host(taps: usize) -> Observed {
    let link = |kind: &str| Link {
        kind: Some(LinkKind::Other(kind.into())),
        master: Some(None),
        up: Some(true),
        mtu: Some(1500),
        mac: None,
        alias: Some(String::new()),
    };
    let mut observed = Observed {
        capabilities: Capabilities {
            bridge_vlan_filtering: true,
            nft_bridge_meta: true,
            bridge_conntrack: true,
            shaping: true,
            policing: true,
            nft_log: true,
            nft_owner: true,
        },
        ..Observed::default()
    };
    observed.default_route_links.insert(if_name("eth0"));
    observed.default_route_links6.insert(if_name("eth0"));
    observed.advertised_links.insert(if_name("eth0"));
    let state = &mut observed.datapath;
    for nic in ["eth0", "eth1", "dummy0"] {
        state.links.insert(if_name(nic), link("device"));
    }
    let foreign = BridgeSettings { vlan_filtering: true, default_pvid: Some(1) };
    state.links.insert(if_name("br0"), Link { kind: Some(LinkKind::Bridge(foreign)), ..link("") });
    state.links.insert(if_name("trunk0"), Link { master: Some(Some(if_name("br0"))), ..link("device") });
    for id in [1, 10, 20, 30] {
        state.vlans.insert((if_name("trunk0"), vid(id)), VlanEntry::Tagged);
    }
    state.addresses.insert((if_name("eth0"), "198.51.100.7/24".parse().expect("address")));
    state.sysctls.insert(Sysctl::Ipv4Forwarding(if_name("eth0")), "0".into());
    // A host that learnt its IPv6 default route from advertisements.
    state.sysctls.insert(Sysctl::Ipv6ForwardingPath, "0".into());
    for nic in ["eth0", "eth1", "dummy0"] {
        state.sysctls.insert(Sysctl::Ipv6Forwarding(if_name(nic)), "0".into());
        state.sysctls.insert(Sysctl::Ipv6AcceptRa(if_name(nic)), "1".into());
    }
    for tap in 0..taps {
        state.links.insert(if_name(&format!("vnet{tap}")), link("tun"));
    }
    for tables in Iptables::ALL {
        state.admissions.extend(UserChain::ALL.map(|chain| (Neighbour::Chain(tables, chain), BTreeSet::new())));
    }
    state.admissions.insert(Neighbour::Firewalld, BTreeSet::new());
    observed
}

pub(crate) fn host_config() -> HostConfig {
    let vlans = vid(1)..=vid(4094);
    let lan = PhysicalNetwork {
        bridging: Bridging::Own { uplink: if_name("eth1"), bridge: if_name("vmf-lan"), take_host_nic: false },
        vlans: vlans.clone(),
        native_vlan: vid(1),
    };
    let dc = PhysicalNetwork { bridging: Bridging::Existing { bridge: if_name("br0") }, vlans, native_vlan: vid(1) };
    HostConfig { physical_networks: [(name("lan"), lan), (name("dc"), dc)].into(), ..HostConfig::default() }
}

/// What a random intent is made of.
#[derive(Debug, Clone)]
struct Sketch {
    networks: Vec<(u8, u16, Option<Forward>)>,
    /// (network, has a tap, tagged VLANs, what its rates and mark are)
    ports: Vec<(usize, bool, Vec<u16>, u32)>,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let forward =
        prop_oneof![Just(None), Just(Some(Forward::None)), Just(Some(Forward::Nat)), Just(Some(Forward::Routed))];
    let network = (0u8..4, prop_oneof![Just(10u16), Just(20), Just(30), 2u16..4094], forward);
    let port =
        (0usize..6, any::<bool>(), prop::collection::vec(prop_oneof![Just(10u16), Just(40), 2u16..50], 0..4), 0u32..6);
    (prop::collection::vec(network, 0..6), prop::collection::vec(port, 0..10))
        .prop_map(|(networks, ports)| Sketch { networks, ports })
}

/// Builds as much of a sketch as is valid.
fn build(sketch: &Sketch) -> (Intent, BTreeMap<PortId, IfName>) {
    let (mut intent, host, mut attachments) = (Intent::default(), host_config(), BTreeMap::new());
    for (i, (kind, id, forward)) in sketch.networks.iter().enumerate() {
        let network_id = NetworkId(Uuid::from_u128(i as u128 + 1));
        let (physical_network, vlan) = match kind {
            0 => (None, None),
            1 => (Some(name("lan")), None),
            2 => (Some(name("lan")), Some(vid(*id))),
            _ => (Some(name("dc")), Some(vid(*id))),
        };
        let draft = NetworkDraft { physical_network, vlan, ..NetworkDraft::named(name(&format!("n{i}"))) };
        let network = draft.complete(network_id, &intent, None).expect("complete");
        if intent.apply(vec![super::super::intent::Change::PutNetwork(network)], &host).is_err() {
            continue;
        }
        if let Some(forward) = forward {
            let cidr = format!("10.{i}.0.0/24");
            let draft: SubnetDraft =
                serde_json::from_value(serde_json::json!({ "network": format!("n{i}"), "cidr": cidr, "forward": forward, "dhcp": *kind < 3 && *forward != Forward::None }))
                    .expect("draft");
            if let Ok(subnet) = draft.complete(SubnetId(Uuid::from_u128(i as u128 + 100)), &intent) {
                let _ = intent.apply(vec![super::super::intent::Change::PutSubnet(subnet)], &host);
            }
            let mode = ["stateful", "slaac", "stateless"][i % 3];
            let draft: SubnetDraft = serde_json::from_value(serde_json::json!({
                "network": format!("n{i}"), "cidr": format!("fd00:{id}:{i}::/64"), "forward": forward, "ipv6_mode": mode
            }))
            .expect("draft");
            if *id % 3 == 0
                && let Ok(subnet) = draft.complete(SubnetId(Uuid::from_u128(i as u128 + 200)), &intent)
            {
                let _ = intent.apply(vec![super::super::intent::Change::PutSubnet(subnet)], &host);
            }
        }
    }
    for (i, (network, tap, tagged, qos)) in sketch.ports.iter().enumerate() {
        let id = PortId(Uuid::from_u128(i as u128 + 1000));
        let mac = MacAddr::new([0x52, 0x54, 0, 0, 0, i as u8]).expect("mac");
        let draft: PortDraft = serde_json::from_value(
            serde_json::json!({ "network": format!("n{network}"), "mac": mac, "trunk_vlans": tagged }),
        )
        .expect("draft");
        let Ok(mut port) = draft.complete(id, &intent, None, |_, _| false) else { continue };
        let rate = |bit: u32| (qos & bit != 0).then_some(Rate { kbps: 1000 * qos, burst_kb: 0 });
        port.security.qos = Qos { egress: rate(1), ingress: rate(2), dscp: (qos & 4 != 0).then_some(46) };
        if intent.apply(vec![super::super::intent::Change::PutPort(port)], &host).is_ok() && *tap {
            attachments.insert(id, if_name(&format!("vnet{i}")));
        }
    }
    (intent, attachments)
}

/// What the loop remembers of a host that was as [`bare_host`] is.
fn previous_of(host: &Observed) -> BTreeMap<Sysctl, String> {
    let before = bare_host(0).datapath.sysctls;
    let differs = |(key, value): &(Sysctl, String)| host.datapath.sysctls.get(key).is_some_and(|is| is != value);
    before.into_iter().filter(differs).collect()
}

fn changes_to(
    host: &Observed,
    intent: &Intent,
    attachments: &BTreeMap<PortId, IfName>,
) -> Vec<crate::datapath::Change> {
    let (config, previous) = (host_config(), previous_of(host));
    let plan = plan(Input { intent, host: &config, attachments, observed: host, previous: &previous, delegated: &[] });
    diff(&host.datapath, &plan.desired, Scope::Full)
}

fn settle(host: &mut Observed, intent: &Intent, attachments: &BTreeMap<PortId, IfName>) {
    // The first round may find what only its own changes made true, as a bridge that ports can join.
    for _ in 0..3 {
        for change in changes_to(host, intent, attachments) {
            host.datapath.apply(&change).unwrap_or_else(|error| panic!("{change}: {error}"));
        }
    }
}

type Foreign = (Vec<(IfName, Link)>, Vec<(IfName, VlanId)>);

fn foreign_part(host: &Observed) -> Foreign {
    let mine = |name: &IfName| {
        name.as_str().starts_with("vmf-") || name.as_str().starts_with("vnet") || name.as_str() == "eth1"
    };
    let links =
        host.datapath.links.iter().filter(|(name, _)| !mine(name)).map(|(n, l)| (n.clone(), l.clone())).collect();
    let vlans = host.datapath.vlans.keys().filter(|(name, _)| !mine(name)).cloned().collect();
    (links, vlans)
}

/// What somebody, or the kernel, did to what is ours behind our back.
#[derive(Debug, Clone)]
struct Damage {
    kind: u8,
    which: usize,
    id: u16,
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = (0u8..13, any::<usize>(), 1u16..60).prop_map(|(kind, which, id)| Damage { kind, which, id });
    prop::collection::vec(one, 1..8)
}

fn harm(host: &mut Observed, damage: &Damage) {
    let state = &mut host.datapath;
    let ours: Vec<_> = state.links.iter().filter(|(_, link)| link.is_owned()).map(|(name, _)| name.clone()).collect();
    let bridges = ours.iter().filter(|name| name.as_str().starts_with("vmf-")).cloned().collect::<Vec<_>>();
    let pick = |from: &[IfName]| (!from.is_empty()).then(|| from[damage.which % from.len()].clone());
    let (Some(link), Some(bridge)) = (pick(&ours), pick(&bridges)) else { return };
    match damage.kind {
        0 => state.links.get_mut(&link).expect("ours").master = Some(None),
        1 => state.links.get_mut(&link).expect("ours").master = Some(Some(if_name("br0"))),
        2 => state.links.get_mut(&link).expect("ours").up = Some(false),
        3 => state.links.get_mut(&link).expect("ours").mtu = Some(1280),
        4 => drop(state.vlans.insert((link, vid(damage.id)), VlanEntry::Tagged)),
        5 => state.vlans.retain(|(name, _), _| *name != link),
        6 => drop(state.addresses.insert((bridge, "203.0.113.77/24".parse().expect("address")))),
        7 => state.addresses.retain(|(name, _)| *name != bridge),
        8 => state.tables.clear(),
        9 => state.tables.values_mut().for_each(|table| table.hold = Hold::Open),
        10 => {
            if let Some(LinkKind::Bridge(settings)) = &mut state.links.get_mut(&bridge).expect("ours").kind {
                *settings = BridgeSettings { vlan_filtering: !settings.vlan_filtering, default_pvid: Some(1) };
            }
        }
        11 => {
            // As `ip link delete` does.
            state.links.remove(&bridge);
            for link in state.links.values_mut().filter(|link| link.master() == Some(&bridge)) {
                link.master = Some(None);
            }
            state.vlans.retain(|(name, _), _| *name != bridge);
            state.addresses.retain(|(name, _)| *name != bridge);
        }
        _ => state.limits.retain(|(name, _), _| *name != link),
    }
}

/// Says how the host differs from what was wanted, without asking diff.
fn shortfall(host: &Observed, intent: &Intent, attachments: &BTreeMap<PortId, IfName>) -> Option<String> {
    let (config, previous) = (host_config(), previous_of(host));
    let want =
        plan(Input { intent, host: &config, attachments, observed: host, previous: &previous, delegated: &[] }).desired;
    let have = &host.datapath;
    for (name, link) in &want.links {
        let Some(is) = have.links.get(name) else { return Some(format!("no link {name}")) };
        let same = (link.kind.is_none() || link.kind == is.kind)
            && link.master == is.master
            && link.up == is.up
            && link.alias == is.alias
            && (link.mtu.is_none() || link.mtu == is.mtu)
            && (link.mac.is_none() || link.mac == is.mac);
        if !same {
            return Some(format!("{name}: {is:?} is not {link:?}"));
        }
    }
    let ours = |name: &IfName| {
        let link = have.links.get(name);
        name.as_str().starts_with("vmf-")
            || link.and_then(|l| l.master()).is_some_and(|m| m.as_str().starts_with("vmf-"))
    };
    let tap = |name: &IfName| name.as_str().starts_with("vnet");
    let vlans: BTreeMap<_, _> =
        have.vlans.iter().filter(|((name, _), _)| ours(name) || tap(name)).map(|(k, v)| (k.clone(), *v)).collect();
    let addresses: BTreeSet<_> = have.addresses.iter().filter(|(name, _)| ours(name)).cloned().collect();
    let strays: Vec<_> =
        have.links.keys().filter(|n| n.as_str().starts_with("vmf-") && !want.links.contains_key(*n)).collect();
    match () {
        _ if vlans != want.vlans => Some(format!("VLANs {vlans:?} are not {:?}", want.vlans)),
        _ if addresses != want.addresses => Some(format!("addresses {addresses:?}")),
        _ if have.limits != want.limits => Some(format!("limits {:?} are not {:?}", have.limits, want.limits)),
        _ if have.tables != want.tables => Some(format!("tables {:?} are not {:?}", have.tables, want.tables)),
        _ if !want.sysctls.iter().all(|(k, v)| have.sysctls.get(k) == Some(v)) => Some("sysctls".into()),
        _ if !strays.is_empty() => Some(format!("strays {strays:?}")),
        _ => None,
    }
}

/// What the daemon's end does to its tables.
fn leave(host: &mut Observed) {
    host.datapath.tables.values_mut().for_each(|table| table.hold = Hold::Left);
}

#[test]
fn tables_are_held_where_the_kernel_can() {
    let (mut host, intent, attachments) = host_with_a_vlan_guest();
    settle(&mut host, &intent, &attachments);
    let held = |host: &Observed| host.datapath.tables.values().all(|t| t.hold == Hold::Held);
    assert!(held(&host) && !host.datapath.tables.is_empty());
    leave(&mut host);
    let claims = changes_to(&host, &intent, &attachments);
    assert!(claims.iter().all(|change| matches!(change, Change::ClaimTable { .. })), "{claims:?}");
    assert_eq!(claims.len(), host.datapath.tables.len());
    // Those of a daemon, or on a kernel, that knew no better cannot be claimed.
    host.datapath.tables.values_mut().for_each(|table| table.hold = Hold::Open);
    let made = changes_to(&host, &intent, &attachments);
    assert!(made.iter().all(|change| matches!(change, Change::ReplaceTable { .. })), "{made:?}");
    settle(&mut host, &intent, &attachments);
    assert!(held(&host));
    host.capabilities.nft_owner = false;
    settle(&mut host, &intent, &attachments);
    assert!(host.datapath.tables.values().all(|table| table.hold == Hold::Open));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// From any state that we can have left, each new intent is reached in one round, and then nothing is left to do.
    #[test]
    fn every_intent_is_reached_from_every_other(first in sketch(), second in sketch()) {
        let mut host = bare_host(10);
        let untouched = foreign_part(&host);
        for sketch in [&first, &second] {
            let (intent, attachments) = build(sketch);
            for change in changes_to(&host, &intent, &attachments) {
                prop_assert!(host.datapath.apply(&change).is_ok(), "{change}");
            }
            let left = changes_to(&host, &intent, &attachments);
            prop_assert!(left.is_empty(), "left: {}", left.iter().map(|c| c.to_string()).collect::<Vec<_>>().join("; "));
            prop_assert_eq!(&foreign_part(&host), &untouched);
            prop_assert_eq!(shortfall(&host, &intent, &attachments), None);
            let same = diff(&host.datapath, &host.datapath, Scope::Full);
            prop_assert!(same.is_empty(), "{same:?}");
        }
        let nothing = changes_to(&host, &Intent::default(), &BTreeMap::new());
        for change in &nothing {
            prop_assert!(host.datapath.apply(change).is_ok(), "{change}");
        }
        prop_assert!(host.datapath.links.values().all(|link| !link.is_owned()));
        prop_assert!(host.datapath.tables.is_empty());
        prop_assert!(host.datapath.admissions.values().all(BTreeSet::is_empty));
        prop_assert!(host.datapath.links.keys().all(|name| !name.as_str().starts_with("vmf-")));
    }

    /// Whatever was done to what is ours is put right, and nothing of others is touched.
    #[test]
    fn what_is_damaged_is_mended(sketch in sketch(), damages in damage()) {
        let (intent, attachments) = build(&sketch);
        let mut host = bare_host(10);
        let untouched = foreign_part(&host);
        settle(&mut host, &intent, &attachments);
        for damage in &damages {
            harm(&mut host, damage);
        }
        settle(&mut host, &intent, &attachments);
        let left = changes_to(&host, &intent, &attachments);
        prop_assert!(left.is_empty(), "left: {}", left.iter().map(|c| c.to_string()).collect::<Vec<_>>().join("; "));
        prop_assert_eq!(shortfall(&host, &intent, &attachments), None);
        prop_assert_eq!(&foreign_part(&host), &untouched);
    }

    /// A stop after every single change, then a new plan from what is there, reaches the same state.
    #[test]
    fn a_stop_anywhere_converges(first in sketch(), second in sketch()) {
        let (before, attached_before) = build(&first);
        let (after, attached_after) = build(&second);
        let mut start = bare_host(10);
        settle(&mut start, &before, &attached_before);
        let steps = changes_to(&start, &after, &attached_after);
        let mut whole = start.clone();
        settle(&mut whole, &after, &attached_after);
        for stop in 0..steps.len() {
            let mut host = start.clone();
            for change in &steps[..stop] {
                prop_assert!(host.datapath.apply(change).is_ok());
            }
            leave(&mut host);
            settle(&mut host, &after, &attached_after);
            prop_assert_eq!(&host.datapath, &whole.datapath, "stopped after {}", stop);
            prop_assert_eq!(shortfall(&host, &after, &attached_after), None);
        }
    }

    /// While changes are under way no port that is not wholly in place is in the set of those that may speak, unless it
    /// was there before and stays as it was.
    #[test]
    fn no_port_speaks_before_its_place_is_right(first in sketch(), second in sketch()) {
        let (before, attached_before) = build(&first);
        let (after, attached_after) = build(&second);
        let mut host = bare_host(10);
        settle(&mut host, &before, &attached_before);
        let steps = changes_to(&host, &after, &attached_after);
        let mut end = host.clone();
        for change in &steps {
            prop_assert!(end.datapath.apply(change).is_ok());
        }
        for change in &steps {
            host.datapath.apply(change).expect("applies");
            let Some(table) = host.datapath.tables.get(&crate::datapath::Family::Bridge) else { continue };
            for element in table.elements(BOUND).into_iter().flatten().filter(|name| name.starts_with("\"vnet")) {
                let tap = crate::datapath::element_link(element).expect("a link");
                let newly = matches!(change, crate::datapath::Change::AddElements { set, elements, .. } if set == BOUND && elements.contains(element));
                if newly {
                    prop_assert_eq!(host.datapath.links.get(&tap), end.datapath.links.get(&tap));
                    let vlans = |h: &Observed| h.datapath.vlans.iter().filter(|((l, _), _)| *l == tap).map(|(k, v)| (k.clone(), *v)).collect::<Vec<_>>();
                    prop_assert_eq!(vlans(&host), vlans(&end));
                }
            }
        }
    }

    /// The partial plan of a port does what the whole plan would do for it.
    #[test]
    fn a_port_alone_comes_up_as_in_the_whole(sketch in sketch()) {
        let (intent, attachments) = build(&sketch);
        let (config, previous) = (host_config(), BTreeMap::new());
        let mut host = bare_host(10);
        settle(&mut host, &intent, &BTreeMap::new());
        for (port, tap) in &attachments {
            let so_far: BTreeMap<_, _> = attachments.range(..=port).map(|(p, t)| (*p, t.clone())).collect();
            let input = Input { intent: &intent, host: &config, attachments: &so_far, observed: &host, previous: &previous, delegated: &[] };
            let part = plan_ports(input, &[*port]);
            let links = BTreeSet::from([tap.clone()]);
            let steps = diff(&host.datapath, &part.desired, Scope::Links(&links));
            for change in steps {
                prop_assert!(host.datapath.apply(&change).is_ok(), "{change}");
            }
        }
        let left = changes_to(&host, &intent, &attachments);
        prop_assert!(left.is_empty(), "left: {}", left.iter().map(|c| c.to_string()).collect::<Vec<_>>().join("; "));
    }
}

/// What plans say, as a person reads them; the text that is meant is in `tests/data/plans.txt`.
#[test]
fn plans_read_as_they_did() {
    let guest = |network, tagged: &[u16], qos| (network, true, tagged.to_vec(), qos);
    let cases = [
        ("a network with NAT, and a guest", vec![(0, 2, Some(Forward::Nat))], vec![guest(0, &[], 0)]),
        ("a flat network, and a guest whose rates are limited", vec![(1, 2, None)], vec![guest(0, &[], 3)]),
        ("a VLAN, routed, and a guest", vec![(2, 10, Some(Forward::Routed))], vec![guest(0, &[], 0)]),
        ("a trunk beside a VLAN", vec![(1, 2, None), (2, 10, None)], vec![guest(0, &[20, 30], 0), guest(1, &[], 0)]),
        ("a VLAN on a bridge of somebody else's", vec![(3, 20, None)], vec![guest(0, &[], 0)]),
    ];
    let mut text = String::new();
    for (title, networks, ports) in cases {
        let (intent, attachments) = build(&Sketch { networks, ports });
        let mut host = bare_host(2);
        let mut told = |what: &str, intent: &Intent, attachments: &BTreeMap<PortId, IfName>| {
            text += &format!("# {what}\n");
            for change in changes_to(&host, intent, attachments) {
                text += &format!("{change}\n");
                host.datapath.apply(&change).unwrap_or_else(|error| panic!("{change}: {error}"));
            }
        };
        told(title, &intent, &attachments);
        told(&format!("{title}: its guests stop"), &intent, &BTreeMap::new());
        told(&format!("{title}: all of it goes"), &Intent::default(), &BTreeMap::new());
    }
    let meant = include_str!("../../tests/data/plans.txt");
    assert!(text == meant, "plans read otherwise than in tests/data/plans.txt; if that is meant, it is to be:\n{text}");
}

#[test]
fn names_that_fit_no_interface_get_one_of_their_own() {
    let id = |n: u128| NetworkId(Uuid::from_u128(n << 104));
    let (long, other) = ("a-network-whose-name-is-longer-than-that-of-any-bridge-could-be", "lab");
    let names: BTreeSet<_> = (1..4).map(|n| Network::bridge_name(id(n), long)).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(Network::bridge_name(id(1), other), if_name("vmf-lab"));
    let (mut intent, host) = (Intent::default(), host_config());
    let draft: NetworkDraft =
        serde_json::from_value(serde_json::json!({ "name": long, "physical_network": "lan", "vlan": 4094 }))
            .expect("a draft");
    let network = draft.complete(id(1), &intent, None).expect("complete");
    assert_eq!(gateway_name(&network, &if_name("vmf-elevenchars")), if_name("vmf-000001.4094"));
    assert_eq!(gateway_name(&network, &if_name("vmf-lan")), if_name("vmf-lan.4094"));
    let _ = intent.apply(vec![crate::intent::Change::PutNetwork(network)], &host).expect("valid");
}

#[test]
fn pools_of_a_forwarded_subnet_leave_the_gateway_out() {
    let pools = Subnet::default_pools(
        &"192.168.123.0/24".parse().expect("cidr"),
        &["192.168.123.1".parse::<IpAddr>().expect("a")],
    );
    assert_eq!(pools, ["192.168.123.2-192.168.123.254".parse::<AddressRange>().expect("range")]);
}

/// A VLAN network on `lan` with one guest, settled on a host; and the host's picture for a plan.
fn host_with_a_vlan_guest() -> (Observed, Intent, BTreeMap<PortId, IfName>) {
    let (intent, attachments) = build(&Sketch { networks: vec![(2, 10, None)], ports: vec![(0, true, Vec::new(), 0)] });
    let mut host = bare_host(1);
    settle(&mut host, &intent, &attachments);
    (host, intent, attachments)
}

fn plan_of(host: &Observed, intent: &Intent, attachments: &BTreeMap<PortId, IfName>) -> Plan {
    let (config, previous) = (host_config(), BTreeMap::new());
    plan(Input { intent, host: &config, attachments, observed: host, previous: &previous, delegated: &[] })
}

#[test]
fn an_uplink_that_is_unplugged_leaves_the_guests_their_bridge() {
    let (mut host, intent, attachments) = host_with_a_vlan_guest();
    host.datapath.forget_link(&if_name("eth1"));
    let plan = plan_of(&host, &intent, &attachments);
    assert_eq!(plan.problems.len(), 1, "{:?}", plan.problems);
    assert!(plan.problems[0].message.contains("eth1"), "{:?}", plan.problems);
    assert!(plan.desired.links.contains_key(&if_name("vmf-lan")) && plan.desired.links.contains_key(&if_name("vnet0")));
    assert!(!plan.desired.links.contains_key(&if_name("eth1")));
    host.datapath.links.insert(if_name("eth1"), bare_host(0).datapath.links[&if_name("eth1")].clone());
    settle(&mut host, &intent, &attachments);
    assert_eq!(shortfall(&host, &intent, &attachments), None);
    assert!(host.datapath.vlans.contains_key(&(if_name("eth1"), vid(10))));
}

#[test]
fn an_address_that_the_uplink_gets_later_cuts_nobody_off() {
    let (mut host, intent, attachments) = host_with_a_vlan_guest();
    host.datapath.addresses.insert((if_name("eth1"), "192.0.2.1/24".parse().expect("address")));
    assert_eq!(plan_of(&host, &intent, &attachments).problems.len(), 1);
    assert!(changes_to(&host, &intent, &attachments).is_empty());
    // Without guests and networks it would not be taken.
    let (mut bare, address) = (bare_host(1), (if_name("eth1"), "192.0.2.1/24".parse().expect("address")));
    bare.datapath.addresses.insert(address);
    assert!(!plan_of(&bare, &intent, &attachments).desired.links.contains_key(&if_name("eth1")));
}

#[test]
fn others_filters_let_pass_what_ours_judge() {
    // A NAT network on a bridge of its own, one in a VLAN, and one without a gateway.
    let networks = vec![(0, 10, Some(Forward::Nat)), (2, 20, Some(Forward::Routed)), (3, 30, None)];
    let (intent, attachments) = build(&Sketch { networks, ports: Vec::new() });
    let mut host = bare_host(0);
    let stranger = Admission::Zone(if_name("dummy0"));
    host.datapath.admissions.insert(Neighbour::Firewalld, BTreeSet::from([stranger.clone()]));
    settle(&mut host, &intent, &attachments);
    let shown = |at: Neighbour| host.datapath.admissions[&at].iter().map(ToString::to_string).collect::<Vec<_>>();
    let bridge = intent.networks().find_map(|network| network.bridge.clone()).expect("a bridge of its own");
    let [v4, v6] = [Iptables { legacy: false, ipv6: false }, Iptables { legacy: true, ipv6: true }];
    for chain in [UserChain::DockerUser, UserChain::UfwForward] {
        let mut expected = vec![
            format!("accept to {bridge}"),
            "accept to vmf-lan.20".into(),
            format!("accept {bridge} to eth0"),
            "accept vmf-lan.20 to eth0".into(),
            "accept br0 to br0".into(),
            "accept vmf-lan to vmf-lan".into(),
        ];
        expected.sort();
        let mut is = shown(Neighbour::Chain(v4, chain));
        is.sort();
        assert_eq!(is, expected);
        // IPv6 is bridged alone.
        assert!(shown(Neighbour::Chain(v6, chain)).contains(&format!("accept {bridge} to {bridge}")));
        assert_eq!(shown(Neighbour::Chain(v6, chain)).len(), 3);
    }
    let input = shown(Neighbour::Chain(v4, UserChain::UfwInput));
    assert!(input.contains(&format!("accept from {bridge} to udp/53")) && input.len() == 6, "{input:?}");
    let zone = shown(Neighbour::Firewalld);
    assert!(zone.contains(&"dummy0".into()) && zone.contains(&"vmf-lan".into()) && !zone.contains(&"br0".into()));
    settle(&mut host, &Intent::default(), &BTreeMap::new());
    let left: BTreeSet<_> = host.datapath.admissions.values().flatten().cloned().collect();
    assert_eq!(left, [stranger].into(), "what somebody else put into the zone stays");
}

#[test]
fn what_others_drop_for_good_is_said() {
    let (mut host, intent, attachments) = host_with_a_vlan_guest();
    host.obstacles.insert(Obstacle::NoZone);
    let problems = plan_of(&host, &intent, &attachments).problems;
    assert!(
        problems[0].subject == Subject::Host && problems[0].message.contains("firewall-cmd --reload"),
        "{problems:?}"
    );
    assert!(plan_of(&host, &Intent::default(), &BTreeMap::new()).problems.is_empty(), "nobody is kept from anything");
}

#[test]
fn a_host_that_learnt_its_route_listens_on_before_ipv6_is_forwarded() {
    let sketch = Sketch { networks: vec![(0, 30, Some(Forward::Routed))], ports: Vec::new() };
    let ((intent, attachments), host, config) = (build(&sketch), bare_host(0), host_config());
    let (previous, eth0) = (BTreeMap::new(), if_name("eth0"));
    let input = Input {
        intent: &intent,
        host: &config,
        attachments: &attachments,
        observed: &host,
        previous: &previous,
        delegated: &[],
    };
    let desired = plan(input).desired;
    let changes = diff(&host.datapath, &desired, Scope::Full);
    let sets = |key: &Sysctl| {
        changes.iter().position(|c| matches!(c, crate::datapath::Change::SetSysctl { key: k, .. } if k == key))
    };
    let listens = sets(&Sysctl::Ipv6AcceptRa(eth0.clone())).expect("it listens on");
    let bridge = desired.sysctls.keys().find_map(|key| match key {
        Sysctl::Ipv6Forwarding(link) => Some(Sysctl::Ipv6Forwarding(link.clone())),
        _ => None,
    });
    for key in [Sysctl::Ipv6ForwardingPath, bridge.expect("its bridge")] {
        assert!(sets(&key).is_some_and(|at| at > listens), "{key} in {changes:?}");
    }
    assert_eq!(sets(&Sysctl::Ipv6AcceptRa(if_name("eth1"))), None, "it learnt nothing");
    let hosts = &desired.tables[&crate::datapath::Family::Inet].sets["hosts6"].elements;
    assert_eq!(hosts.len(), 3, "{hosts:?}");
}

#[test]
fn rates_that_cannot_be_are_said_and_keep_nobody_waiting() {
    let sketch = Sketch { networks: vec![(0, 10, None)], ports: vec![(0, true, Vec::new(), 3)] };
    let (intent, attachments) = build(&sketch);
    let mut host = bare_host(1);
    settle(&mut host, &intent, &attachments);
    let tap = if_name("vnet0");
    assert_eq!(host.datapath.limits.len(), 2);
    let said = |host: &Observed| plan_of(host, &intent, &attachments).problems;
    assert!(said(&host).is_empty());
    // libvirt took the tap's root.
    host.datapath.limits.insert((tap.clone(), Way::Out), Limit::Others("htb".into()));
    let problems = said(&host);
    assert!(problems.len() == 1 && problems[0].partial && problems[0].message.contains("(htb)"), "{problems:?}");
    assert!(changes_to(&host, &intent, &attachments).is_empty(), "it is left alone");
    host.capabilities.policing = false;
    let problems = said(&host);
    assert!(
        problems.iter().all(|problem| problem.partial) && problems[1].message.contains("act_police"),
        "{problems:?}"
    );
    // A port without rates leaves what is not ours.
    let (bare, attachments) = build(&Sketch { ports: vec![(0, true, Vec::new(), 0)], ..sketch });
    settle(&mut host, &bare, &attachments);
    assert_eq!(host.datapath.limits, [((tap, Way::Out), Limit::Others("htb".into()))].into());
}
