//! Port security and security groups on a kernel that has every part, User Mode Linux: the plan of an intent, as the
//! kernel takes it.
//!
//! As root: `cargo test --test filter -- --include-ignored`.

#[path = "common/uml.rs"]
mod uml;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uml::{on_uml, sh};
use uuid::Uuid;
use vmfabric::{
    backend::Driver,
    datapath::{Change as KernelChange, Observed},
    diff::{Scope, diff},
    driver::kernel::KernelDriver,
    intent::{
        AddressGroup, Bridging, Change, HostConfig, Intent, Network, PhysicalNetwork, Port, PortId, SecurityGroup,
        Subnet, SubnetDraft, SubnetId,
    },
    net::{IfName, VlanId},
    planner::{Input, plan},
};

fn id(n: u32) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

fn link(name: &str) -> IfName {
    name.parse().expect("a link's name")
}

/// An intent and the guests that run.
struct World {
    intent: Intent,
    host: HostConfig,
    attachments: BTreeMap<PortId, IfName>,
}

impl World {
    fn new() -> Self {
        let vid = |id| VlanId::new(id).expect("a VLAN");
        let physical = PhysicalNetwork {
            bridging: Bridging::Own { uplink: link("nic0"), bridge: link("vmf-dc"), take_host_nic: false },
            vlans: vid(2)..=vid(4094),
            native_vlan: vid(1),
        };
        let name = "dc".parse().expect("a name");
        let host = HostConfig { physical_networks: [(name, physical)].into(), ..HostConfig::default() };
        Self { intent: Intent::default(), host, attachments: BTreeMap::new() }
    }

    fn put(&mut self, change: Change) {
        let _ = self.intent.apply(vec![change], &self.host).expect("a valid change");
    }

    fn network(&mut self, n: u32, segment: Value, bridge: Option<&str>, groups: &[u32]) {
        let groups: Vec<Uuid> = groups.iter().map(|n| id(*n)).collect();
        let network: Network = serde_json::from_value(json!({
            "id": id(n), "name": format!("n{n}"), "segment": segment, "bridge": bridge, "zone": n,
            "security": { "groups": groups },
        }))
        .expect("a network");
        self.put(Change::PutNetwork(network));
    }

    fn subnet(&mut self, n: u32, network: u32, cidr: &str, forward: &str) {
        let draft = json!({ "network": id(network), "name": format!("s{n}"), "cidr": cidr, "forward": forward });
        let draft: SubnetDraft = serde_json::from_value(draft).expect("a draft");
        let subnet: Subnet = draft.complete(SubnetId(id(n)), &self.intent).expect("a subnet");
        self.put(Change::PutSubnet(subnet));
    }

    fn port(&mut self, n: u32, network: u32, mut more: Value) {
        let mac = format!("52:54:00:00:00:{n:02x}");
        let fields = json!({ "id": id(n), "network": id(network), "mac": mac, "origin": "admin" });
        let more = more.as_object_mut().expect("an object");
        more.extend(fields.as_object().expect("an object").clone());
        let port: Port = serde_json::from_value(more.clone().into()).expect("a port");
        self.attachments.insert(port.id, link(&format!("vnet{n}")));
        self.put(Change::PutPort(port));
    }

    /// What is to be done on the host, with what it was planned for.
    async fn changes(&self, driver: &mut KernelDriver) -> (Vec<KernelChange>, Vec<String>) {
        let observed: Observed = driver.observe().await.expect("observed");
        let previous = BTreeMap::new();
        let input = Input {
            intent: &self.intent,
            host: &self.host,
            attachments: &self.attachments,
            observed: &observed,
            previous: &previous,
            delegated: &[],
        };
        let mut plan = plan(input);
        let told = driver.listed(&plan.desired.tables).await.expect("the kernel takes the tables");
        for (family, table) in &mut plan.desired.tables {
            for (name, set) in &mut table.sets {
                set.spec.listed.clone_from(&told[family].sets[name].spec.listed);
            }
            for (name, rules) in &mut table.chains {
                rules.listed.clone_from(&told[family].chains[name].listed);
            }
        }
        let problems = plan.problems.iter().map(|problem| problem.message.clone()).collect();
        (diff(&observed.datapath, &plan.desired, Scope::Full), problems)
    }

    /// Makes the host as planned; a second look must find nothing to do.
    async fn settle(&self, driver: &mut KernelDriver) {
        let (changes, problems) = self.changes(driver).await;
        assert_eq!(problems, [""; 0]);
        driver.apply(&changes).await.expect("applied");
        let left: Vec<String> = self.changes(driver).await.0.iter().map(ToString::to_string).collect();
        assert_eq!(left, [""; 0]);
    }
}

/// A group with every kind of rule.
fn every_rule(n: u32, groups: &[u32], addresses: u32) -> SecurityGroup {
    let mut remotes = vec![
        json!({ "is": "any" }),
        json!({ "is": "host" }),
        json!({ "is": "address-group", "of": id(addresses) }),
        json!({ "is": "prefix", "of": "10.0.0.0/8" }),
        json!({ "is": "prefix", "of": "2001:db8::1/128" }),
    ];
    remotes.extend(groups.iter().map(|n| json!({ "is": "group", "of": id(*n) })));
    let protocols = [
        json!({ "match": "any" }),
        json!({ "match": "ports", "protocol": 6, "first": 22, "last": 22 }),
        json!({ "match": "ports", "protocol": 6, "first": 80, "last": 90 }),
        json!({ "match": "ports", "protocol": 6, "first": 85, "last": 100 }),
        json!({ "match": "ports", "protocol": 17, "first": 1, "last": 65535 }),
        json!({ "match": "ports", "protocol": 132, "first": 7, "last": 7 }),
        json!({ "match": "icmp" }),
        json!({ "match": "icmp", "type": 8 }),
        json!({ "match": "icmp", "type": 3, "code": 4 }),
        json!({ "match": "number", "protocol": 47 }),
    ];
    let mut rules = Vec::new();
    for (direction, ethertype) in [("ingress", "ipv4"), ("ingress", "ipv6"), ("egress", "ipv4"), ("egress", "ipv6")] {
        for (remote, protocol) in remotes.iter().flat_map(|remote| protocols.iter().map(move |p| (remote, p))) {
            let prefix = remote["of"].as_str().filter(|of| of.contains('/'));
            if prefix.is_none_or(|net| net.contains(':') == (ethertype == "ipv6")) {
                rules.push(json!({
                    "id": id(n * 10_000 + u32::try_from(rules.len()).expect("few")), "direction": direction,
                    "ethertype": ethertype, "protocol": protocol, "remote": remote,
                }));
            }
        }
    }
    let group = json!({ "id": id(n), "name": format!("g{n}"), "stateful": true, "rules": rules });
    serde_json::from_value(group).expect("a group")
}

fn rich() -> World {
    let mut world = World::new();
    let addresses: AddressGroup = serde_json::from_value(json!({
        "id": id(3), "name": "offices",
        "addresses": ["192.0.2.0/24", "192.0.2.7/32", "198.51.100.9/32", "2001:db8::/32"],
    }))
    .expect("an address group");
    world.put(Change::PutAddressGroup(addresses));
    world.put(Change::PutSecurityGroup(every_rule(1, &[], 3)));
    world.put(Change::PutSecurityGroup(every_rule(2, &[1, 2], 3)));
    world.network(10, json!({ "type": "vlan", "physical_network": "dc", "vid": 10 }), None, &[2]);
    world.network(11, json!({ "type": "local" }), Some("vmf-n11"), &[1]);
    world.network(12, json!({ "type": "local" }), Some("vmf-n12"), &[]);
    world.subnet(20, 10, "10.1.0.0/24", "nat");
    world.subnet(21, 11, "10.2.0.0/24", "nat");
    let address = |subnet: u32, address: &str| json!([{ "subnet": id(subnet), "address": address }]);
    world.port(
        30,
        10,
        json!({ "fixed_ips": address(20, "10.1.0.5"), "trunk": { "native": true, "tagged": [20, 30] } }),
    );
    let pairs = json!([{ "ip": "10.1.0.128/25" }, { "ip": "10.1.0.130/32" }, { "ip": "fd00::/64" },
        { "ip": "10.1.0.9/32", "mac": "52:54:00:ff:ff:ff" }, { "ip": "10.1.0.10/32", "mac": "00:00:5e:00:01:07" },
        { "ip": "64:ff9b::1/128" }]);
    world.port(31, 10, json!({ "fixed_ips": address(20, "10.1.0.6"), "security": { "address_pairs": pairs } }));
    world.port(32, 11, json!({ "fixed_ips": address(21, "10.2.0.5"), "security": { "groups": [id(1), id(2)] } }));
    world.port(33, 11, json!({ "fixed_ips": address(21, "10.2.0.6"), "security": { "groups": [], "isolated": true } }));
    world.port(34, 11, json!({ "security": { "port_security": false } }));
    world.port(35, 12, json!({}));
    world
}

#[test]
#[ignore = "needs root: starts a User Mode Linux host with bridge conntrack"]
fn what_is_loaded_reads_back_as_planned() {
    on_uml("what_is_loaded_reads_back_as_planned", 300, &[], || async {
        sh("ip link set lo up; ip link add nic0 type dummy
            for n in 30 31 32 33 34 35; do ip tuntap add vnet$n mode tap; done");
        let mut driver = KernelDriver::new().expect("a driver");
        let capabilities = driver.capabilities();
        assert!(capabilities.nft_bridge_meta && capabilities.bridge_conntrack, "{capabilities:?}");
        let mut world = rich();
        world.settle(&mut driver).await;
        if std::env::var_os("VMFABRIC_SHOW").is_some() {
            sh("nft -s list table bridge vmfabric");
        }
        // A rule less, a member more, a guest gone, a group that nobody needs any more.
        let mut group = every_rule(2, &[1], 3);
        group.rules.truncate(30);
        world.put(Change::PutSecurityGroup(group));
        world.settle(&mut driver).await;
        world.attachments.retain(|port, _| port.0 != id(32));
        world.settle(&mut driver).await;
        world.put(Change::DeletePort(PortId(id(32))));
        world.settle(&mut driver).await;
        let taps: BTreeSet<_> = world.attachments.keys().copied().collect();
        taps.into_iter().filter(|port| port.0 != id(35)).for_each(|port| drop(world.attachments.remove(&port)));
        world.settle(&mut driver).await;
        // What somebody else does to it is taken back.
        for alteration in [
            "flush chain bridge vmfabric antispoof",
            "insert rule bridge vmfabric postrouting accept",
            "add element bridge vmfabric free '{ \"vnet35\" }'",
            "delete table bridge vmfabric",
            "add chain bridge vmfabric other '{ type filter hook prerouting priority -1000; }'",
        ] {
            sh(&format!("nft {alteration}"));
            let (changes, _) = world.changes(&mut driver).await;
            let harmless = alteration.contains("free");
            assert_eq!(changes.is_empty(), harmless, "{alteration}");
            world.settle(&mut driver).await;
        }
    });
}
