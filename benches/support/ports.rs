//! Hosts with many ports in groups, and the same for iptables, made the way Neutron's Linux bridge agent made it: chains
//! per port, rules per port.

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};
use uuid::Uuid;
use vmfabric::{
    datapath::{Link, LinkKind, Observed},
    intent::{Change, HostConfig, Intent, Network, NetworkId, PortId, SecurityGroup, SubnetDraft, SubnetId},
    net::IfName,
    planner::Input,
};

/// A bridge holds 1,023 ports.
const PER_BRIDGE: u32 = 1_000;
pub const RULES: u16 = 20;
/// What the last rules let through, by UDP.
pub const OPEN: u16 = 5000;

pub struct Host {
    pub intent: Intent,
    pub config: HostConfig,
    pub attachments: BTreeMap<PortId, IfName>,
    pub observed: Observed,
    pub previous: BTreeMap<vmfabric::datapath::Sysctl, String>,
}

impl Host {
    pub fn input(&self) -> Input<'_> {
        Input {
            intent: &self.intent,
            host: &self.config,
            attachments: &self.attachments,
            observed: &self.observed,
            previous: &self.previous,
            delegated: &[],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// Port security alone.
    None,
    Stateless,
    Stateful,
}

/// Networks of a thousand ports, all in one group whose rules name the group itself among others.
pub fn host(ports: u32, groups: Groups) -> Host {
    let config = HostConfig::default();
    let mut intent = Intent::default();
    let put = |intent: &mut Intent, change| drop(intent.apply(vec![change], &config).expect("valid"));
    let group_id = Uuid::from_u128(1);
    let rules: Vec<Value> = (0..RULES)
        .map(|n| {
            let remote = match n % 4 {
                0 => json!({ "is": "group", "of": group_id }),
                1 => json!({ "is": "prefix", "of": format!("10.{n}.0.0/16") }),
                _ => json!({ "is": "any" }),
            };
            json!({
                "id": Uuid::from_u128(100 + u128::from(n)), "ethertype": "ipv4", "remote": remote,
                "direction": if n % 2 == 0 { "ingress" } else { "egress" },
                "protocol": match n {
                    18 | 19 => json!({ "match": "ports", "protocol": 17, "first": OPEN, "last": OPEN }),
                    _ => json!({ "match": "ports", "protocol": 6, "first": 1000 + n, "last": 1000 + n }),
                },
            })
        })
        .collect();
    let group = json!({ "id": group_id, "name": "g", "stateful": groups == Groups::Stateful, "rules": rules });
    let group: SecurityGroup = serde_json::from_value(group).expect("a group");
    put(&mut intent, Change::PutSecurityGroup(group));
    let mut attachments = BTreeMap::new();
    let mut observed = Observed::default();
    observed.capabilities.bridge_conntrack = true;
    let named = if groups == Groups::None { Vec::new() } else { vec![group_id] };
    for n in 0..ports.div_ceil(PER_BRIDGE) {
        let id = Uuid::from_u128(0x1000 + u128::from(n));
        let network: Network = serde_json::from_value(json!({
            "id": id, "name": format!("net{n}"), "segment": { "type": "local" }, "bridge": format!("vmf-net{n}"),
            "zone": n + 1, "security": { "groups": named },
        }))
        .expect("a network");
        put(&mut intent, Change::PutNetwork(network));
        let draft = json!({ "network": id, "name": format!("s{n}"), "cidr": format!("10.{n}.0.0/16") });
        let draft: SubnetDraft = serde_json::from_value(draft).expect("a draft");
        let subnet = draft.complete(SubnetId(Uuid::from_u128(0x1100 + u128::from(n))), &intent).expect("a subnet");
        put(&mut intent, Change::PutSubnet(subnet));
    }
    for n in 0..ports {
        let (net, number) = (n / PER_BRIDGE, n % PER_BRIDGE + 10);
        let port = json!({
            "id": Uuid::from_u128(0x2000_0000 + u128::from(n)), "network": NetworkId(Uuid::from_u128(0x1000 + u128::from(net))),
            "mac": mac(n), "origin": "admin",
            "fixed_ips": [{ "subnet": Uuid::from_u128(0x1100 + u128::from(net)),
                "address": format!("10.{net}.{}.{}", number >> 8, number & 255) }],
        });
        let port: vmfabric::intent::Port = serde_json::from_value(port).expect("a port");
        let tap = IfName::new(&format!("vnet{n}")).expect("a name");
        attachments.insert(port.id, tap.clone());
        put(&mut intent, Change::PutPort(port));
        let kind = Some(LinkKind::Other("tun".into()));
        let link =
            Link { kind, master: Some(None), up: Some(true), mtu: Some(1500), mac: None, alias: Some(String::new()) };
        observed.datapath.links.insert(tap, link);
    }
    Host { intent, config, attachments, observed, previous: BTreeMap::new() }
}

/// The rules of these ports as Neutron's agent wrote them (iptables_firewall.py): two dispatching chains that name each
/// port twice, source checks, and the groups' rules in chains of each port's own.
pub fn neutron(ports: impl IntoIterator<Item = u32>) -> String {
    let mut chains = String::from("*filter\n:n-forward - [0:0]\n:n-sg - [0:0]\n");
    let (mut forward, mut rules) = (String::new(), String::new());
    for n in ports {
        let (net, number) = (n / PER_BRIDGE, n % PER_BRIDGE + 10);
        let address = format!("10.{net}.{}.{}", number >> 8, number & 255);
        let _ = writeln!(chains, ":i{n} - [0:0]\n:o{n} - [0:0]\n:s{n} - [0:0]");
        for (way, chain) in [("out", 'i'), ("in", 'o')] {
            let matching = format!("-m physdev --physdev-{way} vnet{n} --physdev-is-bridged");
            let _ = writeln!(forward, "-A n-forward {matching} -j n-sg\n-A n-sg {matching} -j {chain}{n}");
        }
        let mac = mac(n);
        let _ = writeln!(rules, "-A s{n} -s {address}/32 -m mac --mac-source {mac} -j RETURN\n-A s{n} -j DROP");
        let _ = writeln!(rules, "-A o{n} -p udp --sport 68 --dport 67 -j RETURN\n-A o{n} -j s{n}");
        let _ = writeln!(rules, "-A o{n} -p udp --sport 67 -j DROP");
        for chain in ['i', 'o'] {
            let _ = writeln!(rules, "-A {chain}{n} -m state --state RELATED,ESTABLISHED -j RETURN");
        }
        for rule in 0..RULES {
            let (chain, side) = if rule % 2 == 0 { ('i', 's') } else { ('o', 'd') };
            let port = 1000 + rule;
            let _ = match rule {
                18 | 19 => writeln!(rules, "-A {chain}{n} -p udp --dport {OPEN} -j RETURN"),
                // An ipset in Neutron; a prefix costs no more.
                _ if rule % 4 == 0 => {
                    writeln!(rules, "-A {chain}{n} -p tcp -{side} 10.{net}.0.0/16 --dport {port} -j RETURN")
                }
                _ if rule % 4 == 1 => {
                    writeln!(rules, "-A {chain}{n} -p tcp -{side} 10.{rule}.0.0/16 --dport {port} -j RETURN")
                }
                _ => writeln!(rules, "-A {chain}{n} -p tcp --dport {port} -j RETURN"),
            };
        }
        for chain in ['i', 'o'] {
            let _ = writeln!(rules, "-A {chain}{n} -m state --state INVALID -j DROP\n-A {chain}{n} -j DROP");
        }
    }
    format!("{chains}-A FORWARD -j n-forward\n{forward}{rules}-A n-sg -j ACCEPT\nCOMMIT\n")
}

pub fn mac(n: u32) -> String {
    format!("52:54:00:01:{:02x}:{:02x}", n >> 8, n & 255)
}

pub fn restore(program: &str, arguments: &[&str], rules: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().expect("iptables is installed");
    child.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("written");
    assert!(child.wait().expect("it ends").success(), "{program} takes the rules");
}
