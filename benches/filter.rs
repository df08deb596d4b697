//! What filters take to load and to change, beside a ruleset of iptables for the same ports and rules, made the way
//! Neutron's Linux bridge agent made it: chains per port, rules per port.
//!
//! `cargo bench --bench filter` (root), in a network namespace of its own. Stateless groups, so that it runs on kernels
//! without bridge conntrack: loading and changing stateful ones takes two rules more for each set of groups.

mod support;

use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write as _,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};
use support::{Figure, Report};
use uuid::Uuid;
use vmfabric::{
    backend::Driver,
    datapath::{Capabilities, Change as KernelChange, Datapath, Family, Link, LinkKind, Observed},
    diff::{Scope, diff},
    driver::kernel::KernelDriver,
    intent::{Change, HostConfig, Intent, Network, NetworkId, PortId, SecurityGroup, SubnetDraft, SubnetId},
    net::IfName,
    planner::{Input, plan, plan_ports},
};

/// A bridge holds 1,023 ports.
const PER_BRIDGE: u32 = 1_000;
const RULES: u16 = 20;
const SAMPLES: usize = 20;

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("bench filter: needs root: it loads tables in a network namespace");
        return ExitCode::FAILURE;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for ports in [1_000, 10_000] {
        let report = Report::new(&format!("filters of {ports} ports, {RULES} rules each"));
        report.head(&["vmfabric", "iptables"]);
        runtime.block_on(run(ports, &report));
    }
    ExitCode::SUCCESS
}

struct Host {
    intent: Intent,
    config: HostConfig,
    attachments: BTreeMap<PortId, IfName>,
    observed: Observed,
    previous: BTreeMap<vmfabric::datapath::Sysctl, String>,
}

impl Host {
    fn input(&self) -> Input<'_> {
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

async fn run(ports: u32, report: &Report) {
    let mut driver = KernelDriver::new().expect("a driver");
    let mut host = host(ports);
    // All but the last, which comes later.
    let (last, tap) = host.attachments.pop_last().expect("ports");
    let before = cpu();
    let desired = plan(host.input()).desired;
    let planned = cpu() - before;
    let table = desired.tables[&Family::Bridge].clone();
    let replace = KernelChange::ReplaceTable { family: Family::Bridge, table };
    let (start, before) = (Instant::now(), cpu());
    driver.apply(std::slice::from_ref(&replace)).await.expect("loaded");
    let (loaded, loading) = (start.elapsed(), cpu() - before);
    host.observed.datapath = Datapath { tables: desired.tables.clone(), ..host.observed.datapath };
    let _ = host.observed.datapath.tables.remove(&Family::Inet);
    for (name, link) in &desired.links {
        host.observed.datapath.links.entry(name.clone()).or_insert_with(|| link.clone());
    }

    // One port more, from its plan to the kernel, and away again.
    host.attachments.insert(last, tap.clone());
    let links = BTreeSet::from([tap.clone()]);
    let (mut added, mut joined) = (Vec::new(), Vec::new());
    for n in 0..SAMPLES {
        let before = cpu();
        let part = plan_ports(host.input(), &[last]);
        let changes = diff(&host.observed.datapath, &part.desired, Scope::Links(&links));
        let changes: Vec<KernelChange> = changes.into_iter().filter(|change| change.family().is_some()).collect();
        driver.apply(&changes).await.expect("added");
        added.push(cpu() - before);
        let undo: Vec<KernelChange> = changes.into_iter().filter_map(undone).collect();
        driver.apply(&undo).await.expect("taken away");
        // One member more of a group that all ports' rules name.
        let set = desired.tables[&Family::Bridge].sets.keys().find(|set| set.starts_with("members4")).expect("members");
        let elements = BTreeSet::from([format!("192.0.2.{n}")]);
        let join = KernelChange::AddElements { family: Family::Bridge, set: set.clone(), elements };
        let before = cpu();
        driver.apply(std::slice::from_ref(&join)).await.expect("joined");
        joined.push(cpu() - before);
        driver.apply(&undone(join).into_iter().collect::<Vec<_>>()).await.expect("left");
    }
    driver.apply(&[KernelChange::DeleteTable { family: Family::Bridge }]).await.expect("deleted");

    let (start, before) = (Instant::now(), children());
    restore("iptables-restore", &[], &neutron(0..ports));
    let (their_load, their_loading) = (start.elapsed(), children() - before);
    let mut theirs = Vec::new();
    for n in 0..3 {
        let before = children();
        restore("iptables-restore", &["--noflush"], &neutron(ports + n..ports + n + 1));
        theirs.push(children() - before);
    }
    restore("iptables-restore", &[], "*filter\nCOMMIT\n");

    report.row("plan", "", &[Figure::Time(planned)]);
    report.row("load, wall", "< 2 s with 10,000", &[Figure::Time(loaded), Figure::Time(their_load)]);
    report.row("load, CPU", "", &[Figure::Time(loading), Figure::Time(their_loading)]);
    report.row("one port added, CPU", "< 2 ms", &[median(added), median(theirs)]);
    report.row("one member added, CPU", "< 2 ms", &[median(joined)]);
}

fn undone(change: KernelChange) -> Option<KernelChange> {
    match change {
        KernelChange::AddElements { family, set, elements } => {
            Some(KernelChange::DeleteElements { family, set, elements })
        }
        _ => None,
    }
}

fn median(mut samples: Vec<Duration>) -> Figure {
    samples.sort();
    Figure::Time(samples[samples.len() / 2])
}

/// CPU time of this process, the kernel's for it included.
fn cpu() -> Duration {
    spent(nix::sys::resource::UsageWho::RUSAGE_SELF)
}

/// The same of the processes that it waited for.
fn children() -> Duration {
    spent(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)
}

fn spent(who: nix::sys::resource::UsageWho) -> Duration {
    let usage = nix::sys::resource::getrusage(who).expect("usage");
    let time = |value: nix::sys::time::TimeVal| {
        Duration::new(value.tv_sec().unsigned_abs(), u32::try_from(value.tv_usec() * 1000).unwrap_or_default())
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Networks of a thousand ports, all in one group whose rules name the group itself among others.
fn host(ports: u32) -> Host {
    let config = HostConfig::default();
    let mut intent = Intent::default();
    let put = |intent: &mut Intent, change| drop(intent.apply(vec![change], &config).expect("valid"));
    let group_id = Uuid::from_u128(1);
    let rules: Vec<_> = (0..RULES)
        .map(|n| {
            let remote = match n % 4 {
                0 => json!({ "is": "group", "of": group_id }),
                1 => json!({ "is": "prefix", "of": format!("10.{n}.0.0/16") }),
                _ => json!({ "is": "any" }),
            };
            json!({
                "id": Uuid::from_u128(100 + u128::from(n)), "ethertype": "ipv4", "remote": remote,
                "direction": if n % 2 == 0 { "ingress" } else { "egress" },
                "protocol": { "match": "ports", "protocol": 6, "first": 1000 + n, "last": 1000 + n },
            })
        })
        .collect();
    let group = json!({ "id": group_id, "name": "g", "stateful": false, "rules": rules });
    let group: SecurityGroup = serde_json::from_value(group).expect("a group");
    put(&mut intent, Change::PutSecurityGroup(group));
    let mut attachments = BTreeMap::new();
    let mut observed = Observed { capabilities: Capabilities::default(), ..Observed::default() };
    for n in 0..ports.div_ceil(PER_BRIDGE) {
        let id = Uuid::from_u128(0x1000 + u128::from(n));
        let network: Network = serde_json::from_value(json!({
            "id": id, "name": format!("net{n}"), "segment": { "type": "local" }, "bridge": format!("vmf-net{n}"),
            "zone": n + 1, "security": { "groups": [group_id] },
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
            "mac": format!("52:54:00:01:{:02x}:{:02x}", n >> 8, n & 255), "origin": "admin",
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

/// Chains and rules of these ports: dispatch by link, source checks, the groups' rules in chains of each port's own.
fn neutron(ports: std::ops::Range<u32>) -> String {
    let mut chains = String::from("*filter\n");
    let mut rules = String::new();
    for n in ports {
        let (net, number) = (n / PER_BRIDGE, n % PER_BRIDGE + 10);
        let address = format!("10.{net}.{}.{}", number >> 8, number & 255);
        let _ = writeln!(chains, ":i{n} - [0:0]\n:o{n} - [0:0]\n:s{n} - [0:0]");
        let _ = writeln!(rules, "-A FORWARD -o vnet{n} -j i{n}\n-A FORWARD -i vnet{n} -j o{n}");
        let _ = writeln!(rules, "-A s{n} -s {address}/32 -j RETURN\n-A s{n} -j DROP");
        let _ = writeln!(
            rules,
            "-A o{n} -p udp --sport 68 --dport 67 -j RETURN\n-A o{n} -j s{n}\n-A o{n} -p udp --sport 67 -j DROP"
        );
        for rule in 0..RULES {
            let (chain, side) = if rule % 2 == 0 { ('i', 's') } else { ('o', 'd') };
            let port = 1000 + rule;
            let _ = match rule % 4 {
                // An ipset in Neutron; a prefix costs no more.
                0 => writeln!(rules, "-A {chain}{n} -p tcp -{side} 10.{net}.0.0/16 --dport {port} -j RETURN"),
                1 => writeln!(rules, "-A {chain}{n} -p tcp -{side} 10.{rule}.0.0/16 --dport {port} -j RETURN"),
                _ => writeln!(rules, "-A {chain}{n} -p tcp --dport {port} -j RETURN"),
            };
        }
        let _ = writeln!(rules, "-A i{n} -j DROP\n-A o{n} -j DROP");
    }
    chains + &rules + "COMMIT\n"
}

fn restore(program: &str, arguments: &[&str], rules: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().expect("iptables is installed");
    child.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("written");
    assert!(child.wait().expect("it ends").success(), "{program} takes the rules");
}
