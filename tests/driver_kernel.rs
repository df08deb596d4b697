//! The kernel driver on a real kernel, each test in a network namespace of its own.
//!
//! As root: `cargo test --test driver_kernel -- --include-ignored`. Tests of parts that this kernel may lack run
//! themselves again on the rig's User Mode Linux, which has them all.

#[path = "common/uml.rs"]
mod uml;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::Duration,
};
use uml::{in_namespace, on_uml, sh};
use vmfabric::{
    backend::{ApplyError, Driver, DriverError, LinkEvent},
    datapath::{
        Bandwidth, BridgeSettings, Change, Family, Limit, Link, LinkChange, LinkKind, Mismatch, Set, Sysctl, Table,
        Text, VlanEntry, Way,
    },
    driver::kernel::{KernelDriver, watch},
    net::{IfName, VlanId},
};

/// Sets with some elements, beside the chains that use them.
fn inet(nets: &[&str], pairs: &[&str], uplinks: &[&str]) -> Table {
    let sets = [
        ("nets", "set type ipv4_addr; flags interval", nets),
        ("pairs", "set type ifname . ifname", pairs),
        ("uplinks", "set type ifname", uplinks),
    ];
    let chains = [
        (
            "forward",
            "type filter hook forward priority 0; policy accept;\niifname . oifname @pairs counter accept\n\
             iifname @uplinks ip saddr @nets counter drop",
        ),
        (
            "postrouting",
            "type nat hook postrouting priority 100; policy accept;\nip saddr @nets oifname @uplinks masquerade",
        ),
    ];
    table(&sets, &chains)
}

fn bridge_table(bound: &[&str]) -> Table {
    let chain =
        "type filter hook prerouting priority -350; policy accept;\niifname \"nobody\" iifname != @bound counter drop";
    table(&[("bound", "set type ifname", bound)], &[("prerouting", chain)])
}

fn output(command: &str) -> String {
    let done = Command::new("sh").args(["-ec", command]).output().expect("sh");
    String::from_utf8(done.stdout).expect("text")
}

fn name(name: &str) -> IfName {
    name.parse().expect("a link's name")
}

fn vid(id: u16) -> VlanId {
    VlanId::new(id).expect("a VLAN")
}

fn set(elements: &[&str]) -> BTreeSet<String> {
    elements.iter().map(|&element| element.to_owned()).collect()
}

/// A table of these sets (name, spec, elements) and chains.
fn table(sets: &[(&str, &str, &[&str])], chains: &[(&str, &str)]) -> Table {
    Table {
        sets: sets.iter().map(|(name, spec, e)| ((*name).to_owned(), Set::new(spec, set(e)))).collect(),
        chains: chains.iter().map(|(name, rules)| ((*name).to_owned(), Text::from(*rules))).collect(),
        ..Table::default()
    }
}

/// The table as the driver says that it is listed.
async fn listed(driver: &mut KernelDriver, family: Family, table: &Table) -> Table {
    let told = driver.listed(&BTreeMap::from([(family, table.clone())])).await.expect("the kernel takes it");
    let mut table = table.clone();
    for (name, set) in &mut table.sets {
        set.spec.listed.clone_from(&told[&family].sets[name].spec.listed);
    }
    for (name, rules) in &mut table.chains {
        rules.listed.clone_from(&told[&family].chains[name].listed);
    }
    table
}

fn bridge(vlan_filtering: bool, default_pvid: Option<u16>) -> Link {
    Link {
        kind: Some(LinkKind::Bridge(BridgeSettings { vlan_filtering, default_pvid })),
        master: Some(None),
        up: Some(true),
        mtu: Some(1500),
        mac: Some("56:4d:00:00:00:01".parse().expect("a MAC")),
        alias: Some("vmfabric:bridge".into()),
    }
}

fn create(bridge_name: &str, link: Link) -> Change {
    Change::CreateLink { name: name(bridge_name), link }
}

fn on(link: &str, change: LinkChange) -> Change {
    Change::SetLink { name: name(link), change }
}

fn attach(tap: &str, bridge: &str) -> Change {
    let change = LinkChange {
        master: Some(Some(name(bridge))),
        alias: Some(format!("vmfabric:{tap}")),
        up: Some(true),
        mtu: Some(1400),
        ..LinkChange::default()
    };
    on(tap, change)
}

async fn link(driver: &mut KernelDriver, of: &str) -> Option<Link> {
    let one = driver.observe_links(&[name(of)].into()).await.expect("one link").links.remove(&name(of));
    let all = driver.observe().await.expect("all").datapath.links.remove(&name(of));
    assert_eq!(one, all, "one link seen alone and among all");
    one
}

fn driver() -> KernelDriver {
    KernelDriver::new().expect("a driver")
}

async fn next(events: &mut tokio::sync::mpsc::Receiver<LinkEvent>) -> LinkEvent {
    tokio::time::timeout(Duration::from_secs(10), events.recv()).await.expect("an event in time").expect("an event")
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_bridge_is_made_as_asked_and_keeps_its_mac_and_mtu() {
    in_namespace(|| async {
        let mut driver = driver();
        let asked = bridge(false, Some(0));
        driver.apply(&[create("vmf-a", asked.clone())]).await.expect("made");
        let mut expected = asked.clone();
        if !driver.capabilities().bridge_vlan_filtering {
            expected.kind = bridge(false, None).kind;
        }
        assert_eq!(link(&mut driver, "vmf-a").await, Some(expected.clone()));

        sh(
            "ip link add d1 type dummy 2>/dev/null || ip tuntap add d1 mode tap; ip link set d1 mtu 1300 master vmf-a up",
        );
        assert_eq!(link(&mut driver, "vmf-a").await, Some(expected), "MAC and MTU stay as ports come");

        let error = driver.apply(&[create("vmf-a", asked)]).await.expect_err("twice");
        assert!(matches!(error.source, DriverError::Mismatch(Mismatch::LinkExists(_))), "{error}");
        driver.apply(&[Change::DeleteLink { name: name("vmf-a") }]).await.expect("deleted");
        assert_eq!(link(&mut driver, "vmf-a").await, None);
        let error = driver.apply(&[Change::DeleteLink { name: name("vmf-a") }]).await.expect_err("twice");
        assert!(matches!(error.source, DriverError::Mismatch(Mismatch::NoLink(_))), "{error}");
    });
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_bridge_that_cannot_filter_vlans_is_refused_and_removed() {
    in_namespace(|| async {
        let mut driver = driver();
        let made = driver.apply(&[create("vmf-v", bridge(true, Some(0)))]).await;
        if driver.capabilities().bridge_vlan_filtering {
            made.expect("made");
            assert_eq!(link(&mut driver, "vmf-v").await, Some(bridge(true, Some(0))));
        } else {
            let error = made.expect_err("refused");
            assert!(error.source.to_string().contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{error}");
            assert_eq!(link(&mut driver, "vmf-v").await, None);
        }
    });
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_tap_is_attached_in_one_change_and_released() {
    in_namespace(|| async {
        let mut driver = driver();
        sh("ip tuntap add vnet0 mode tap");
        let before = link(&mut driver, "vnet0").await.expect("there");
        assert_eq!((before.kind, before.up), (Some(LinkKind::Other("tun".into())), Some(false)));
        assert_eq!((before.master, before.alias.as_deref()), (Some(None), Some("")));
        driver.apply(&[create("vmf-a", bridge(false, None)), attach("vnet0", "vmf-a")]).await.expect("attached");
        let port = link(&mut driver, "vnet0").await.expect("there");
        assert_eq!(port.master(), Some(&name("vmf-a")));
        assert_eq!((port.up, port.mtu, port.owned_for()), (Some(true), Some(1400), Some("vnet0")));

        let release = LinkChange {
            master: Some(None),
            alias: Some(String::new()),
            up: Some(false),
            mtu: Some(1500),
            ..LinkChange::default()
        };
        driver.apply(&[on("vnet0", release)]).await.expect("released");
        let after = link(&mut driver, "vnet0").await.expect("there");
        assert_eq!((after.master(), after.up, after.alias.as_deref()), (None, Some(false), Some("")));
        assert!(!output("ip link show vnet0").contains("alias"));
    });
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn what_is_not_there_is_a_mismatch_and_what_came_before_is_done() {
    in_namespace(|| async {
        let mut driver = driver();
        let changes = [create("vmf-a", bridge(false, None)), attach("vnet9", "vmf-a")];
        let error = driver.apply(&changes).await.expect_err("no tap");
        assert_eq!((error.done, &error.change), (1, &changes[1].to_string()));
        assert!(matches!(&error.source, DriverError::Mismatch(Mismatch::NoLink(link)) if *link == name("vnet9")));
        sh("ip tuntap add vnet9 mode tap");
        let error = driver.apply(&[attach("vnet9", "vmf-b")]).await.expect_err("no bridge");
        assert!(matches!(&error.source, DriverError::Mismatch(Mismatch::NoLink(link)) if *link == name("vmf-b")));
        let key = Sysctl::Ipv4Forwarding(name("vnet8"));
        let error = driver.apply(&[Change::SetSysctl { key, value: "1".into() }]).await.expect_err("no link");
        assert!(matches!(error.source, DriverError::Mismatch(Mismatch::NoLink(_))), "{error}");
        let elements = Change::AddElements { family: Family::Inet, set: "uplinks".into(), elements: set(&["\"a\""]) };
        let error = driver.apply(&[elements]).await.expect_err("no table");
        assert!(matches!(error.source, DriverError::Mismatch(Mismatch::NoTable(Family::Inet))), "{error}");
        let error = driver.apply(&[Change::DeleteTable { family: Family::Inet }]).await.expect_err("no table");
        assert!(matches!(error.source, DriverError::Mismatch(Mismatch::NoTable(Family::Inet))), "{error}");
        // The kernel's own words come through.
        let small = LinkChange { mtu: Some(20), ..LinkChange::default() };
        let error = driver.apply(&[on("vmf-a", small)]).await.expect_err("too small");
        assert!(error.source.to_string().contains("minimum"), "{error}");
    });
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn addresses_routes_and_sysctls_are_set_and_seen() {
    in_namespace(|| async {
        let mut driver = driver();
        let address = "192.0.2.1/24".parse().expect("an address");
        let link = name("vmf-a");
        let add = Change::AddAddress { link: link.clone(), address };
        let forward = |link: &IfName, value: &str| Change::SetSysctl {
            key: Sysctl::Ipv4Forwarding(link.clone()),
            value: value.into(),
        };
        let no_ipv6 = Change::SetSysctl { key: Sysctl::Ipv6Disabled(link.clone()), value: "1".into() };
        let changes = [create("vmf-a", bridge(false, None)), no_ipv6, add.clone(), add, forward(&link, "1")];
        driver.apply(&changes).await.expect("applied, an address twice");
        let seen = driver.observe().await.expect("observed").datapath;
        assert_eq!(seen.addresses.iter().filter(|(l, _)| *l == link).count(), 1);
        assert!(seen.addresses.contains(&(link.clone(), address)));
        assert!(output("ip -4 addr show vmf-a").contains("brd 192.0.2.255"));
        for (key, value) in &seen.sysctls {
            // What the links' messages say is what the files say.
            let file = std::fs::read_to_string(format!("/proc/sys/{}", key.path()));
            assert_eq!(file.map_or("1".into(), |text| text.trim().to_owned()), *value, "{key}");
        }
        assert_eq!(seen.sysctls.get(&Sysctl::Ipv4Forwarding(link.clone())).map(String::as_str), Some("1"));
        assert_eq!(seen.sysctls.get(&Sysctl::Ipv6Disabled(link.clone())).map(String::as_str), Some("1"));
        assert_eq!(seen.sysctls.get(&Sysctl::Ipv4Forwarding(name("lo"))).map(String::as_str), Some("0"));

        sh("ip tuntap add nic0 mode tap; ip tuntap add nic1 mode tap; ip link set nic0 up; ip link set nic1 up
            ip addr add 198.51.100.2/24 dev nic0; ip addr add 203.0.113.2/24 dev nic1
            ip route add default via 198.51.100.1 dev nic0; ip route add default via 203.0.113.1 dev nic1 metric 9
            ip route add 10.0.0.0/8 via 192.0.2.9; ip route add default dev vmf-a table 99");
        let routes = driver.observe().await.expect("observed").default_route_links;
        assert_eq!(routes, [name("nic0"), name("nic1")].into());

        let delete = Change::DeleteAddress { link: link.clone(), address };
        driver.apply(&[delete.clone(), delete, forward(&link, "0")]).await.expect("deleted, twice");
        let seen = driver.observe().await.expect("observed").datapath;
        assert!(!seen.addresses.iter().any(|(l, _)| *l == link));
        assert_eq!(seen.sysctls.get(&Sysctl::Ipv4Forwarding(link)).map(String::as_str), Some("0"));
    });
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_table_reads_back_as_written_and_alterations_show() {
    in_namespace(|| async {
        let mut driver = driver();
        let wanted = inet(
            &["192.0.2.0/24", "198.51.100.7"],
            &["\"vmf-a\" . \"eth0\"", "\"10.0.0.1\" . \"drop\""],
            &["\"10.0.0.1\"", "\"drop\"", "\"eth0\"", "\"vlan\""],
        );
        let wanted = listed(&mut driver, Family::Inet, &wanted).await;
        let guard = listed(&mut driver, Family::Bridge, &bridge_table(&["\"vnet0\""])).await;
        let replace = Change::ReplaceTable { family: Family::Inet, table: wanted.clone() };
        let second = Change::ReplaceTable { family: Family::Bridge, table: guard.clone() };
        driver.apply(&[replace.clone(), second]).await.expect("loaded");
        let seen = |d: &vmfabric::datapath::Observed| d.datapath.tables.get(&Family::Inet).cloned();
        let observed = driver.observe().await.expect("observed");
        assert_eq!(seen(&observed), Some(wanted.clone()));
        assert_eq!(observed.datapath.tables.get(&Family::Bridge), Some(&guard));

        let delta = |verb: fn(Family, String, BTreeSet<String>) -> Change, name: &str, elements: &[&str]| {
            verb(Family::Inet, name.into(), set(elements))
        };
        let add = |family, set, elements| Change::AddElements { family, set, elements };
        let delete = |family, set, elements| Change::DeleteElements { family, set, elements };
        driver
            .apply(&[
                delta(add, "uplinks", &["\"vnet1\"", "\"eth0\""]),
                delta(delete, "uplinks", &["\"drop\"", "\"vlan\""]),
                delta(delete, "pairs", &["\"vmf-a\" . \"eth0\""]),
                delta(add, "nets", &["203.0.113.0/25"]),
            ])
            .await
            .expect("elements");
        // What is gone already is no failure.
        driver
            .apply(&[delta(delete, "uplinks", &["\"gone\"", "\"10.0.0.1\""]), delta(delete, "nets", &["198.51.100.7"])])
            .await
            .expect("deleted");
        let changed =
            inet(&["192.0.2.0/24", "203.0.113.0/25"], &["\"10.0.0.1\" . \"drop\""], &["\"eth0\"", "\"vnet1\""]);
        let changed = listed(&mut driver, Family::Inet, &changed).await;
        assert_eq!(seen(&driver.observe().await.expect("observed")), Some(changed));

        for alteration in [
            "flush chain inet vmfabric forward",
            "add rule inet vmfabric forward accept",
            "add chain inet vmfabric other",
            "add set inet vmfabric other '{ type ifname; }'",
            "chain inet vmfabric forward '{ policy drop; }'",
            "add table inet vmfabric '{ flags dormant; }'",
            "add element inet vmfabric nets '{ 10.0.0.1-10.0.0.6 }'",
            "add element inet vmfabric uplinks '{ \"eth*\" }' 2>/dev/null || nft flush table inet vmfabric",
        ] {
            driver.apply(std::slice::from_ref(&replace)).await.expect("loaded again");
            assert_eq!(seen(&driver.observe().await.expect("observed")), Some(wanted.clone()));
            sh(&format!("nft {alteration}"));
            let found = seen(&driver.observe().await.expect("observed")).expect("a table");
            assert_ne!(found, wanted, "{alteration}");
        }
        driver.apply(std::slice::from_ref(&replace)).await.expect("loaded again");
        sh("nft flush set inet vmfabric uplinks");
        let found = seen(&driver.observe().await.expect("observed")).expect("a table");
        assert_eq!((found.chains, &found.sets["uplinks"].elements), (wanted.chains.clone(), &set(&[])));
        sh("nft flush ruleset");
        assert_eq!(seen(&driver.observe().await.expect("observed")), None);
    });
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_transaction_is_whole_or_not_at_all() {
    in_namespace(|| async {
        let mut driver = driver();
        let first = inet(&[], &[], &["\"eth0\""]);
        driver.apply(&[Change::ReplaceTable { family: Family::Inet, table: first.clone() }]).await.expect("loaded");
        // Other sets under the same names.
        let other = table(&[("uplinks", "set type ipv4_addr", &["192.0.2.1"])], &[]);
        let other = listed(&mut driver, Family::Inet, &other).await;
        driver.apply(&[Change::ReplaceTable { family: Family::Inet, table: other.clone() }]).await.expect("replaced");
        assert_eq!(driver.observe().await.expect("observed").datapath.tables.get(&Family::Inet), Some(&other));
        let bad = [
            Change::ReplaceTable { family: Family::Inet, table: first },
            Change::AddElements { family: Family::Inet, set: "missing".into(), elements: set(&["a"]) },
        ];
        let ApplyError { done, change, source } = driver.apply(&bad).await.expect_err("no such set");
        assert_eq!((done, change.ends_with("and 1 more with it")), (0, true), "{change}: {source}");
        assert_eq!(driver.observe().await.expect("observed").datapath.tables.get(&Family::Inet), Some(&other));
        driver.apply(&[Change::DeleteTable { family: Family::Inet }]).await.expect("deleted");
        assert_eq!(driver.observe().await.expect("observed").datapath.tables, BTreeMap::new());
    });
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn events_tell_what_happens_to_links() {
    in_namespace(|| async {
        let mut driver = driver();
        driver.apply(&[create("vmf-a", bridge(false, None))]).await.expect("made");
        let mut events = watch().expect("watching");
        sh("ip tuntap add vnet0 mode tap");
        let mac = loop {
            if let LinkEvent::Link { name: n, link, mac } = next(&mut events).await
                && n == name("vnet0")
            {
                assert_eq!(link.kind, Some(LinkKind::Other("tun".into())));
                break mac;
            }
        };
        assert!(
            output("ip link show vnet0")
                .contains(&mac.map_or(String::new(), |m| { m.map(|byte| format!("{byte:02x}")).join(":") }))
        );
        driver.apply(&[attach("vnet0", "vmf-a")]).await.expect("attached");
        loop {
            match next(&mut events).await {
                LinkEvent::Link { name: n, link, .. }
                    if n == name("vnet0")
                        && link.owned_for().is_some()
                        && link.master() == Some(&name("vmf-a"))
                        && link.up == Some(true) =>
                {
                    break;
                }
                LinkEvent::Gone { name } => panic!("{name} is not gone"),
                _ => {}
            }
        }
        // Leaving a bridge is no removal.
        sh("ip link set vnet0 nomaster");
        loop {
            match next(&mut events).await {
                LinkEvent::Link { name: n, link, .. } if n == name("vnet0") && link.master == Some(None) => break,
                LinkEvent::Gone { name } => panic!("{name} is not gone"),
                _ => {}
            }
        }
        sh("ip link set vnet0 down; ip link set vnet0 name vnet1; ip link del vnet1");
        for gone in ["vnet0", "vnet1"] {
            while next(&mut events).await != (LinkEvent::Gone { name: name(gone) }) {}
        }
        sh("ip addr add 192.0.2.1/24 dev vmf-a");
        while next(&mut events).await != LinkEvent::Layer3 {}
    });
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn events_that_are_too_many_become_one_overrun() {
    in_namespace(|| async {
        let mut driver = driver();
        let mut events = watch().expect("watching");
        driver.apply(&[create("vmf-a", bridge(false, None))]).await.expect("made");
        let toggle = |up| on("vmf-a", LinkChange { alias: Some(format!("vmfabric:{up}")), ..LinkChange::default() });
        for round in 0..6000 {
            driver.apply(&[toggle(round)]).await.expect("set");
        }
        // The watcher has all of them in when the channel is full and nothing more comes out in between.
        let mut seen = Vec::new();
        while seen.last() != Some(&LinkEvent::Overrun) {
            seen.push(next(&mut events).await);
        }
        assert_eq!(seen.iter().filter(|event| **event == LinkEvent::Overrun).count(), 1);
        driver.apply(&[toggle(7000)]).await.expect("set");
        assert!(matches!(next(&mut events).await, LinkEvent::Link { .. }), "it goes on afterwards");
    });
}

#[test]
#[ignore = "needs root: starts a User Mode Linux host with bridge VLAN filtering"]
fn vlan_entries_are_set_and_seen() {
    on_uml("vlan_entries_are_set_and_seen", 120, &[], || async {
        let mut driver = driver();
        assert!(driver.capabilities().bridge_vlan_filtering, "this kernel has no CONFIG_BRIDGE_VLAN_FILTERING");
        sh("ip tuntap add vnet0 mode tap; ip tuntap add vnet1 mode tap; ip tuntap add vnet2 mode tap");
        let add = |link: &str, id, entry| Change::AddVlan { link: name(link), vid: vid(id), entry };
        let mut changes = vec![create("vmf-v", bridge(true, Some(0)))];
        changes.extend([attach("vnet0", "vmf-v"), attach("vnet1", "vmf-v")]);
        changes.push(add("vnet0", 10, VlanEntry::Native));
        changes.extend((1..=4094).filter(|id| *id != 20).map(|id| add("vnet1", id, VlanEntry::Tagged)));
        changes.push(add("vnet1", 20, VlanEntry::Native));
        changes.push(add("vmf-v", 10, VlanEntry::Tagged));
        driver.apply(&changes).await.expect("applied");
        let observed = driver.observe().await.expect("observed").datapath;
        let mut expected = vmfabric::datapath::Datapath { links: observed.links.clone(), ..Default::default() };
        changes.iter().filter(|c| matches!(c, Change::AddVlan { .. })).for_each(|c| expected.apply(c).expect("model"));
        assert_eq!(observed.vlans, expected.vlans);
        let links = [name("vnet0"), name("vnet1"), name("vmf-v"), name("vnet2"), name("none")].into();
        let some = driver.observe_links(&links).await.expect("observed");
        assert_eq!(some.vlans, expected.vlans);
        assert_eq!(some.links.len(), 4);

        // The model and the kernel agree on a moved PVID too.
        let more = [
            add("vnet0", 30, VlanEntry::Native),
            Change::DeleteVlan { link: name("vnet1"), vid: vid(20) },
            Change::DeleteVlan { link: name("vnet1"), vid: vid(20) },
            Change::DeleteVlan { link: name("vmf-v"), vid: vid(10) },
            on("vnet1", LinkChange { master: Some(None), ..LinkChange::default() }),
        ];
        driver.apply(&more).await.expect("changed");
        more.iter().for_each(|change| expected.apply(change).expect("model"));
        assert_eq!(driver.observe().await.expect("observed").datapath.vlans, expected.vlans);

        let error = driver.apply(&[add("vnet2", 10, VlanEntry::Native)]).await.expect_err("no port");
        assert!(matches!(error.source, DriverError::Mismatch(Mismatch::NotAPort(_))), "{error}");
        let off = LinkChange { vlan_filtering: Some(false), default_pvid: Some(1), ..LinkChange::default() };
        driver.apply(&[on("vmf-v", off)]).await.expect("set");
        assert_eq!(link(&mut driver, "vmf-v").await.and_then(|l| l.kind), bridge(false, Some(1)).kind);
        let both = LinkChange { vlan_filtering: Some(true), default_pvid: Some(0), ..LinkChange::default() };
        driver.apply(&[on("vmf-v", both)]).await.expect("set");
        assert_eq!(link(&mut driver, "vmf-v").await.and_then(|l| l.kind), bridge(true, Some(0)).kind);
    });
}

#[test]
#[ignore = "needs root: starts a User Mode Linux host with 802.1Q interfaces"]
fn vlan_interfaces_are_made_on_top_of_others() {
    on_uml("vlan_interfaces_are_made_on_top_of_others", 120, &[], || async {
        let mut driver = driver();
        sh("ip tuntap add nic0 mode tap; ip link set nic0 up");
        let kind = Some(LinkKind::Vlan { parent: name("nic0"), id: vid(10) });
        let vlan = Link { kind, ..bridge(false, None) };
        driver.apply(&[create("nic0.10", vlan.clone())]).await.expect("made");
        assert_eq!(link(&mut driver, "nic0.10").await, Some(vlan.clone()));
        let error = driver.apply(&[create("other", vlan)]).await.expect_err("the VLAN is taken");
        assert!(!matches!(error.source, DriverError::Mismatch(_)), "{error}");
    });
}

#[test]
#[ignore = "needs root, and User Mode Linux for a kernel with traffic control"]
fn limits_read_back_as_they_were_set() {
    on_uml("limits_read_back_as_they_were_set", 120, &[], || async {
        let mut driver = KernelDriver::new().expect("a driver");
        assert!(driver.capabilities().shaping && driver.capabilities().policing);
        let (tap, links) = (name("vnet0"), BTreeSet::from([name("vnet0")]));
        sh("ip tuntap add vnet0 mode tap; tc qdisc add dev vnet0 root noqueue");
        let seen = async |driver: &mut KernelDriver| {
            let part = driver.observe_links(&links).await.expect("observed").limits;
            let whole = driver.observe().await.expect("observed").datapath.limits;
            assert_eq!(part, whole);
            whole
        };
        assert!(seen(&mut driver).await.is_empty());
        // From a kilobit to the most that there can be, in bytes; bursts of a frame to a minute.
        for (rate, burst) in [
            (125, 7_500),
            (125_000, 66_048),
            (1_250_000, 1_564),
            (12_500_000, 1_250_000),
            (1_250_000_000, 125_000_000),
            (12_500_000_000, 1_250_000_000),
            (u64::from(u32::MAX) * 125, u64::from(u32::MAX)),
        ] {
            let limit = Bandwidth { rate, burst };
            for way in Way::BOTH {
                let change = Change::SetLimit { link: tap.clone(), way, limit };
                driver.apply(&[change]).await.unwrap_or_else(|error| panic!("{rate} {burst}: {error}"));
            }
            let expected = Way::BOTH.map(|way| ((tap.clone(), way), Limit::Ours(limit)));
            assert_eq!(seen(&mut driver).await, BTreeMap::from(expected), "{rate} {burst}");
        }
        let delete = Way::BOTH.map(|way| Change::DeleteLimit { link: tap.clone(), way });
        for _ in 0..2 {
            driver.apply(&delete).await.expect("gone, or gone before");
            assert!(seen(&mut driver).await.is_empty());
        }
        let left = output("tc qdisc show dev vnet0");
        assert!(left.starts_with("qdisc noqueue") && left.lines().count() == 1, "{left}");
        sh("tc qdisc replace dev vnet0 root handle 1: htb; tc qdisc add dev vnet0 ingress");
        let root = BTreeMap::from([((tap.clone(), Way::Out), Limit::Others("htb".into()))]);
        assert_eq!(seen(&mut driver).await, root, "where frames come in nothing bounds them");
        sh("tc filter add dev vnet0 parent ffff: protocol all u32 match u32 0 0 police rate 1mbit burst 64k drop");
        let ingress = ((tap.clone(), Way::In), Limit::Others("ingress".into()));
        assert_eq!(seen(&mut driver).await, root.into_iter().chain([ingress]).collect());
        driver.apply(&delete).await.expect("nothing of ours is there");
        assert_eq!(seen(&mut driver).await.len(), 2, "what others made stays");
        sh("ip link delete vnet0");
        assert!(driver.apply(&delete[..1]).await.is_err());
    });
}
