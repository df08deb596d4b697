use super::*;
use crate::intent::{Bridging, PhysicalNetwork};
use crate::net::{IfName, VlanId};
use proptest::prelude::*;
use serde_json::json;

fn host() -> HostConfig {
    let name = |text| IfName::new(text).expect("a name");
    let lan = PhysicalNetwork {
        bridging: Bridging::Own { uplink: name("eth1"), bridge: name("vmf-lan"), take_host_nic: false },
        vlans: VlanId::new(2).expect("a VLAN")..=VlanId::new(4094).expect("a VLAN"),
        native_vlan: VlanId::DEFAULT,
    };
    HostConfig { physical_networks: [("lan".parse().expect("a name"), lan)].into(), ..HostConfig::default() }
}

fn document(value: Value) -> Document {
    serde_json::from_value(value).expect("a document")
}

fn seed() -> Uuid {
    Uuid::from_u128(7)
}

fn plan(intent: &Intent, value: Value, prune: bool) -> Result<DocumentPlan, DocumentError> {
    plan_document(&document(value), prune, intent, &host(), seed(), |_, _| false)
}

/// Plans and commits as the loop does.
fn apply(intent: &mut Intent, value: Value, prune: bool) -> Vec<String> {
    let planned = plan(intent, value, prune).unwrap_or_else(|error| panic!("{error}"));
    let _ = intent.apply_whole(planned.changes, &host()).expect("what is planned can be committed");
    assert_eq!(*intent, planned.after);
    planned.differences.iter().map(|d| format!("{:?} {} {}", d.action, d.kind, d.name).to_lowercase()).collect()
}

fn refusal(intent: &Intent, value: Value) -> String {
    plan(intent, value, false).expect_err("refused").to_string()
}

fn lab() -> Value {
    json!({
        "address_groups": [{"name": "office", "addresses": ["192.0.2.0/24"]}],
        "security_groups": [
            // Each names the other one.
            {"name": "web", "rules": ["egress any", "ingress tcp 80", "ingress tcp 22 from group ops"]},
            {"name": "ops", "rules": ["ingress tcp 22 from address-group office", "egress tcp 22 to group web"]},
        ],
        "networks": [
            {"name": "lab", "dns_records": ["www A 10.7.0.9"], "security_groups": ["web"], "dns_shared_with": ["dmz"]},
            {"name": "dmz", "physical_network": "lan", "vlan": 10, "dns_shared_with": ["lab"]},
        ],
        "subnets": [{"network": "lab", "cidr": "10.7.0.0/24", "forward": "nat"}],
        "ports": [
            {"name": "db", "network": "lab", "addresses": ["10.7.0.50"], "dns_name": "db"},
            {"name": "any", "network": "lab"},
            {"network": "dmz", "mac": "52:54:00:00:00:01"},
        ],
    })
}

#[test]
fn a_document_is_applied_once() {
    let mut intent = Intent::default();
    let made = apply(&mut intent, lab(), false);
    let expected = [
        "create address_group office",
        "create security_group web",
        "create security_group ops",
        "create network lab",
        "create network dmz",
        "create subnet lab",
        "create port db",
        "create port 52:54:00:00:00:01 on dmz",
        "create port any",
    ];
    let sorted = |lines: &[String]| lines.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(sorted(&made), sorted(&expected.map(str::to_owned)));
    assert_eq!(apply(&mut intent, lab(), false), Vec::<String>::new());
    assert_eq!(apply(&mut intent, lab(), true), Vec::<String>::new());

    // Only what differs, with what it was; what is not said is at its default again.
    let mut other = lab();
    other["networks"][0] = json!({"name": "lab", "mtu": 1400, "security_groups": ["web"]});
    let planned = plan(&intent, other, false).expect("valid");
    let [difference] = planned.differences.as_slice() else { panic!("{:?}", planned.differences) };
    let told: Vec<_> =
        difference.fields.iter().map(|f| (f.field.as_str(), f.old.as_deref(), f.new.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("dns_records", Some("[\"www A 10.7.0.9\"]"), None),
            ("dns_shared_with", Some("[\"dmz\"]"), None),
            ("mtu", None, Some("1400"))
        ]
    );
}

#[test]
fn what_a_port_does_not_say_it_keeps() {
    let mut intent = Intent::default();
    apply(&mut intent, lab(), false);
    let port = intent.find_port("any").expect("there").clone();
    assert_eq!(port.fixed_ips.len(), 1);
    let mut other = lab();
    other["ports"][1]["dns_name"] = "x".into();
    assert_eq!(apply(&mut intent, other, false), ["update port any"]);
    let now = intent.find_port("any").expect("there");
    assert_eq!((now.mac, &now.fixed_ips, now.id), (port.mac, &port.fixed_ips, port.id));
    // A name can be given to a port that had none.
    let named = json!({"ports": [{"name": "fw", "network": "dmz", "mac": "52:54:00:00:00:01"}]});
    assert_eq!(apply(&mut intent, named, false), ["update port fw"]);
}

#[test]
fn ports_may_trade_what_is_unique() {
    let mut intent = Intent::default();
    apply(
        &mut intent,
        json!({"networks": [{"name": "a"}], "subnets": [{"network": "a", "cidr": "10.1.0.0/24"}]}),
        false,
    );
    let ports = |one: (&str, u8), two: (&str, u8)| {
        let port = |name: &str, (address, mac): (&str, u8)| json!({"name": name, "network": "a", "addresses": [address], "mac": format!("52:54:00:00:00:{mac:02}")});
        json!({"ports": [port("one", one), port("two", two)]})
    };
    apply(&mut intent, ports(("10.1.0.5", 1), ("10.1.0.6", 2)), false);
    apply(&mut intent, ports(("10.1.0.6", 2), ("10.1.0.5", 1)), false);
    let one = intent.find_port("one").expect("there");
    assert_eq!((one.fixed_ips[0].address.to_string(), one.mac.octets()[5]), ("10.1.0.6".into(), 2));
    assert_eq!(
        intent.find_port("52:54:00:00:00:01").expect("indexed").name,
        intent.find_port("two").expect("there").name
    );
    let clash = plan(&intent, ports(("10.1.0.6", 2), ("10.1.0.6", 1)), false).expect_err("refused").to_string();
    assert!(clash.contains("ports[") && clash.contains("10.1.0.6 is held already"), "{clash}");
    let new =
        json!({"ports": [{"name": "three", "network": "a", "mac": "52:54:00:00:00:03", "addresses": ["10.1.0.5"]}]});
    assert_eq!(
        refusal(&intent, new),
        "ports[0]: address 10.1.0.5 is held already by port 'two'; choose another, or take it from that port"
    );
    let new = json!({"ports": [{"name": "three", "network": "a", "mac": "52:54:00:00:00:03"},
        {"name": "one", "network": "a", "mac": "52:54:00:00:00:01"}]});
    assert!(refusal(&intent, new).contains("52:54:00:00:00:01 is used already on network 'a' by port 'two'"));
}

#[test]
fn refusals_say_where_and_change_nothing() {
    let mut intent = Intent::default();
    apply(&mut intent, lab(), false);
    let before = intent.clone();
    for (value, expected) in [
        (json!({"ports": [{"network": "lab"}]}), "ports[0]: a port needs a name or a mac"),
        (json!({"networks": [{"name": "x"}, {"name": "x"}]}), "networks[1]: network 'x' is at networks[0] already"),
        (json!({"subnets": [{"network": "green", "cidr": "10.0.0.0/24"}]}), "subnets[0].network: there is no network"),
        (
            json!({"security_groups": [{"name": "a", "rules": ["ingress from group b"]}]}),
            "security_groups[0].rules: there is no",
        ),
        (json!({"networks": [{"name": "dmz"}]}), "networks[0]: network 'dmz' has ports, so its segment cannot change"),
        (json!({"networks": [{"name": "x", "physical_network": "lan", "vlan": 10}]}), "networks[0]: VLAN 10 on"),
        (
            json!({"subnets": [{"name": "lab", "network": "dmz", "cidr": "10.7.0.0/24"}]}),
            "subnets[0]: subnet 10.7.0.0/24",
        ),
    ] {
        let text = refusal(&intent, value);
        assert!(text.starts_with(expected), "{text}");
    }
    // Valid beginnings are not kept where the end is not.
    let half =
        json!({"networks": [{"name": "new"}], "ports": [{"name": "p", "network": "lab", "addresses": ["10.9.0.1"]}]});
    assert!(refusal(&intent, half).starts_with("ports[0]: address 10.9.0.1 is outside"));
    assert_eq!(intent, before);
    let pruned = plan(&intent, json!({"ports": [{"name": "db", "network": "lab"}]}), true).expect_err("refused");
    assert!(pruned.to_string().contains("does not name it under networks, so that it is pruned"), "{pruned}");
}

#[test]
fn pruning_leaves_guests_what_they_have() {
    let mut intent = Intent::default();
    apply(&mut intent, lab(), false);
    // A guest's own port on lab, with an address, in the network's group.
    let mut guest = intent.find_port("any").expect("there").clone();
    (guest.origin, guest.name) = (Origin::Guest, None);
    let _ = intent.apply(vec![Change::PutPort(guest.clone())], &host()).expect("valid");
    let planned = plan(&intent, json!({}), true).expect("valid");
    let mut gone: Vec<_> = planned.differences.iter().map(|d| format!("{} {}", d.kind, d.name)).collect();
    gone.sort();
    assert_eq!(gone, ["network dmz", "port 52:54:00:00:00:01 on dmz", "port db"]);
    assert_eq!(planned.kept.len(), 5, "{:?}", planned.kept);
    let mut pruned = intent.clone();
    apply(&mut pruned, json!({}), true);
    assert_eq!(pruned.port(guest.id), Some(&guest));
    assert_eq!(apply(&mut pruned, json!({}), true), Vec::<String>::new());
    // Without the guest all goes, groups that name one another too.
    let _ = intent.apply(vec![Change::DeletePort(guest.id)], &host()).expect("valid");
    apply(&mut intent, json!({}), true);
    assert_eq!((intent.networks().len(), intent.security_groups().len(), intent.address_groups().len()), (0, 0, 0));
}

#[test]
fn an_ipv6_subnet_of_a_document_gives_ports_that_are_there_addresses() {
    let mut intent = Intent::default();
    apply(&mut intent, lab(), false);
    let mut guest = intent.find_port("any").expect("there").clone();
    (guest.origin, guest.name) = (Origin::Guest, None);
    let _ = intent.apply(vec![Change::PutPort(guest.clone())], &host()).expect("valid");
    let addresses = |intent: &Intent, port: &str| -> Vec<String> {
        let port = intent.find_port(port).expect("there");
        port.fixed_ips.iter().map(|ip| ip.address.to_string()).filter(|ip| ip.contains(':')).collect()
    };
    let with = |cidr: &str, mode: &str| {
        let mut lab = lab();
        lab["subnets"].as_array_mut().expect("a list").push(json!({"network": "lab", "name": "six", "cidr": cidr,
            "forward": "routed", "ipv6_mode": mode}));
        lab["ports"].as_array_mut().expect("a list").remove(1);
        lab
    };
    let made = apply(&mut intent, with("fd00:7::/64", "slaac"), false);
    let guest = guest.id.to_string();
    let own = |intent: &Intent| (addresses(intent, &guest), addresses(intent, "db"));
    let (of_guest, of_db) = own(&intent);
    assert!(of_guest.len() == 1 && of_db.len() == 1 && of_guest[0].starts_with("fd00:7:"), "{of_guest:?} {of_db:?}");
    assert_eq!(made.iter().filter(|made| made.contains(" port ")).count(), 2, "{made:?}");
    assert_eq!(apply(&mut intent, with("fd00:7::/64", "slaac"), false), Vec::<String>::new());
    // The block moves, and with it what guests make of it; then the server gives the addresses.
    apply(&mut intent, with("fd00:8::/64", "slaac"), false);
    assert!(own(&intent).0[0].starts_with("fd00:8:") && own(&intent).1.len() == 1, "{:?}", own(&intent));
    apply(&mut intent, with("fd00:8::/64", "stateful"), false);
    assert!(own(&intent).0.len() == 1 && own(&intent).0[0] != of_guest[0], "{:?}", own(&intent));
    assert_eq!(apply(&mut intent, with("fd00:8::/64", "stateful"), false), Vec::<String>::new());
}

/// Random documents, made of parts that mostly fit together.
fn any_document() -> impl Strategy<Value = Value> {
    let groups = prop::collection::vec((any::<bool>(), prop::collection::vec((0usize..9, 0usize..4), 0..5)), 0..4);
    let networks = prop::collection::vec((0u8..3, 2u16..40, any::<[bool; 4]>(), 0usize..5), 0..5);
    let subnets = prop::collection::vec((0usize..5, 0u8..8, any::<[bool; 5]>(), 0usize..3), 0..6);
    let ports = prop::collection::vec((0usize..5, any::<[bool; 6]>(), 0u8..12, 2u8..250, 0usize..4), 0..9);
    (groups, networks, subnets, ports).prop_map(|(groups, networks, subnets, ports)| {
        let rules = |rules: &[(usize, usize)]| -> Vec<Value> {
            let rule = |(kind, group): &(usize, usize)| match kind {
                0 => json!("egress any"),
                1 => json!(format!("ingress tcp {} from group g{group}", 80 + group)),
                2 => json!("ingress icmp echo-request from host"),
                3 => json!({"rule": format!("ingress udp 53 from 10.{group}.0.0/16"), "description": "dns"}),
                4 => json!("ingress ipv6 tcp 22 from address-group a"),
                5 => json!({"direction": "ingress", "protocol": "tcp", "port_range_min": 1, "port_range_max": 9}),
                6 => json!("egress ipv4 any"),
                7 => json!("ingress icmpv6 from 2001:db8::/32"),
                _ => json!(format!("egress {}", 47 + group)),
            };
            rules.iter().map(rule).collect()
        };
        let groups: Vec<Value> = groups.iter().enumerate().map(|(i, (stateful, texts))| {
            json!({"name": format!("g{i}"), "stateful": stateful, "description": format!("d{i}"), "rules": rules(texts)})
        }).collect();
        let networks: Vec<Value> = networks.iter().enumerate().map(|(i, (kind, vlan, flags, other))| {
            let mut network = json!({"name": format!("n{i}"), "isolated": flags[0], "port_security": flags[1]});
            if *kind > 0 { network["physical_network"] = "lan".into(); }
            if *kind > 1 { network["vlan"] = (*vlan).into(); }
            if flags[2] { network["mtu"] = (1400 + i).into(); network["dns_domain"] = format!("d{i}.lab").into(); }
            if flags[3] {
                network["dns_records"] = json!(["www 60 A 10.0.0.1", "@ TXT \"a b\" c", "_x._tcp SRV 0 5 80 www"]);
                network["dns_forwarders"] = json!(["10.0.0.53", "corp.example=10.0.0.54:5353"]);
                network["dns_shared_with"] = json!([format!("n{other}")]);
                network["security_groups"] = json!([format!("g{other}")]);
                network["dhcp_options"] = json!(["ntp-servers=10.0.0.3", "150:ip=10.0.0.5"]);
            }
            network
        }).collect();
        let subnets: Vec<Value> = subnets.iter().enumerate().map(|(i, (network, block, flags, forward))| {
            let mut subnet = json!({"name": format!("s{i}"), "network": format!("n{network}"), "cidr": format!("10.{block}.0.0/24")});
            if flags[0] { subnet["forward"] = ["none", "nat", "routed"][*forward].into(); }
            if flags[1] { subnet["dhcp"] = false.into(); }
            if flags[2] { subnet["pools"] = json!([format!("10.{block}.0.100-10.{block}.0.150")]); }
            if flags[4] {
                subnet["cidr"] = format!("fd00:0:0:{block}::/64").into();
                subnet["ipv6_mode"] = ["slaac", "stateful", "stateless"][*forward].into();
                subnet["dhcp"] = (*forward > 0).into();
                if flags[2] { subnet["pools"] = json!([format!("fd00:0:0:{block}::100-fd00:0:0:{block}::1ff")]); }
            }
            if flags[3] && !flags[4] {
                subnet["lease_seconds"] = 600.into();
                subnet["host_routes"] = json!([{"destination": "10.200.0.0/16", "next_hop": format!("10.{block}.0.9")}]);
                subnet["dns_servers"] = json!(["9.9.9.9"]);
            }
            subnet
        }).collect();
        let ports: Vec<Value> = ports.iter().enumerate().map(|(i, (network, flags, block, host, group))| {
            let mut port = json!({"network": format!("n{network}"), "mac": format!("52:54:00:00:01:{i:02x}")});
            if flags[0] { port["name"] = format!("p{i}").into(); }
            if flags[1] { port["addresses"] = json!([format!("10.{block}.0.{host}")]); }
            if flags[2] { port["security_groups"] = json!([format!("g{group}")]); }
            if flags[3] { port["egress_kbps"] = 1000.into(); port["dscp"] = 46.into(); port["isolated"] = true.into(); }
            if flags[4] { port["allowed_address_pairs"] = json!(["10.250.0.0/16,52:54:00:00:00:09"]); }
            if flags[5] { port["trunk_vlans"] = json!([50, 60]); port["addresses"] = json!([]); }
            port
        }).collect();
        json!({"address_groups": [{"name": "a", "addresses": ["2001:db8::/32"]}], "security_groups": groups,
            "networks": networks, "subnets": subnets, "ports": ports})
    })
}

/// Leaves out of a document what makes it invalid, until it is not.
fn valid_part(mut value: Value) -> Value {
    for _ in 0..200 {
        let error = match plan(&Intent::default(), value.clone(), false) {
            Ok(_) => return value,
            Err(error) => error,
        };
        let (list, rest) = error.path.split_once('[').unwrap_or_else(|| panic!("no place: {error}"));
        let index: usize = rest.split(']').next().and_then(|i| i.parse().ok()).expect("an index");
        value[list].as_array_mut().expect("a list").remove(index);
    }
    panic!("200 faults in {value}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// `export | apply` does nothing; `export` of what the export makes is the export; and any document leads to what it
    /// says from wherever.
    #[test]
    fn documents_and_intents_are_each_others_images(one in any_document(), two in any_document()) {
        let (one, two) = (valid_part(one), valid_part(two));
        let mut intent = Intent::default();
        apply(&mut intent, one.clone(), false);
        prop_assert_eq!(apply(&mut intent, one, true), Vec::<String>::new());

        let exported = Value::Object(export_document(&intent, &host()));
        prop_assert_eq!(apply(&mut intent, exported.clone(), true), Vec::<String>::new(), "{}", exported);
        let mut fresh = Intent::default();
        apply(&mut fresh, exported.clone(), false);
        prop_assert_eq!(Value::Object(export_document(&fresh, &host())), exported);

        // Segments of networks with ports, subnets and ports do not move; all else can change.
        if let Ok(planned) = plan(&intent, two.clone(), true) {
            let mut undone = intent.clone();
            let undo = undone.apply_whole(planned.changes.clone(), &host()).expect("valid");
            prop_assert_eq!(&undone, &planned.after);
            undone.undo(undo);
            prop_assert_eq!(&undone, &intent);
            apply(&mut intent, two.clone(), true);
            prop_assert_eq!(apply(&mut intent, two, true), Vec::<String>::new());
        }
    }

    #[test]
    fn no_document_panics(text in "[\\[\\]{}\":,a-z0-9_]{0,80}") {
        if let Ok(document) = serde_json::from_str::<Document>(&text) {
            let _ = plan_document(&document, true, &Intent::default(), &host(), seed(), |_, _| false);
        }
    }
}
