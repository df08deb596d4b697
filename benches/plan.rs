//! What planning costs, in CPU time: 10,000 ports on ten networks from nothing, and one port among them.
//!
//! `cargo bench --bench plan`

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use support::{Figure, Report, cpu};
use uuid::Uuid;
use vmfabric::{
    datapath::{Capabilities, Link, LinkKind, Observed},
    diff::{Scope, diff},
    intent::{
        Change, Device, FixedIp, HostConfig, Intent, Network, NetworkId, Origin, Port, PortId, Segment, Subnet,
        SubnetDraft, SubnetId,
    },
    net::{IfName, MacAddr},
    planner::{Input, plan, plan_ports},
};

const NETWORKS: u8 = 10;
const PORTS: u32 = 10_000;
const ROUNDS: usize = 21;

struct Host {
    intent: Intent,
    config: HostConfig,
    attachments: BTreeMap<PortId, IfName>,
    observed: Observed,
}

impl Host {
    fn input(&self) -> Input<'_> {
        static NO_SYSCTLS: BTreeMap<vmfabric::datapath::Sysctl, String> = BTreeMap::new();
        Input {
            intent: &self.intent,
            host: &self.config,
            attachments: &self.attachments,
            observed: &self.observed,
            previous: &NO_SYSCTLS,
            delegated: &[],
        }
    }
}

fn main() {
    let report = Report::new("Planning, in CPU time");
    let mut host = host(true);
    let from_nothing = measure(|| {
        let plan = plan(host.input());
        diff(&host.observed.datapath, &plan.desired, Scope::Full)
    });
    let everything = plan(host.input());
    assert!(everything.problems.is_empty(), "{:?}", everything.problems.first());
    let changes = diff(&host.observed.datapath, &everything.desired, Scope::Full);
    for change in &changes {
        host.observed.datapath.apply(change).expect("a change that fits");
    }
    let nothing_left = measure(|| {
        let plan = plan(host.input());
        diff(&host.observed.datapath, &plan.desired, Scope::Full)
    });

    // A guest's tap has just appeared: the event enters the picture, and the port's changes come out.
    let (port, tap) = host.attachments.last_key_value().map(|(port, tap)| (*port, tap.clone())).expect("ports");
    host.attachments.remove(&port);
    let full = plan(host.input());
    for change in diff(&host.observed.datapath, &full.desired, Scope::Full) {
        host.observed.datapath.apply(&change).expect("a change that fits");
    }
    let links = BTreeSet::from([tap.clone()]);
    let mut steps = 0;
    let one = measure(|| {
        host.attachments.insert(port, tap.clone());
        host.observed.datapath.links.insert(tap.clone(), tap_link());
        let plan = plan_ports(host.input(), &[port]);
        steps = diff(&host.observed.datapath, &plan.desired, Scope::Links(&links)).len();
        steps
    });
    assert!(steps > 3, "filtered, placed, raised, admitted");

    // What no planner can be without: the state that is wanted, made once.
    let copy = median(|| everything.desired.clone());
    let rows = [
        ("10,000 ports from nothing to ChangeSet", "< 100 ms", from_nothing),
        ("10,000 ports, nothing to change", "", nothing_left),
        ("one changed port among 10,000, event to ChangeSet", "< 2 ms", one),
    ];
    report.row("a copy of the wanted state, as the floor", "", &[Figure::Time(copy)]);
    for (what, asked, figure) in rows {
        let ratio = figure.ratio(copy);
        report.row(what, asked, &[figure, ratio]);
    }
    report.note(format!("{} changes from nothing; median of {ROUNDS} runs", changes.len()));
}

fn measure<T>(work: impl FnMut() -> T) -> Figure {
    Figure::Time(median(work))
}

/// The median CPU time of a piece of work.
fn median<T>(mut work: impl FnMut() -> T) -> Duration {
    let mut spent: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let before = cpu();
            let result = work();
            let spent = cpu() - before;
            drop(result);
            spent
        })
        .collect();
    spent.sort();
    spent[ROUNDS / 2]
}

fn tap_link() -> Link {
    Link {
        kind: Some(LinkKind::Other("tun".into())),
        master: Some(None),
        up: Some(false),
        mtu: Some(1500),
        mac: None,
        alias: Some(String::new()),
    }
}

/// Ten local networks with NAT and a thousand ports each, whose taps are there and on no bridge.
fn host(nft_bridge_meta: bool) -> Host {
    let config = HostConfig::default();
    let mut intent = Intent::default();
    let capabilities = Capabilities {
        bridge_vlan_filtering: true,
        nft_bridge_meta,
        bridge_conntrack: nft_bridge_meta,
        shaping: true,
        policing: true,
        nft_log: true,
        nft_owner: false,
    };
    let mut observed = Observed { capabilities, ..Observed::default() };
    let mut attachments = BTreeMap::new();
    let mut subnets = Vec::new();
    for n in 0..NETWORKS {
        let (network, subnet) = network(&mut intent, &config, n);
        subnets.push((network, subnet));
    }
    for n in 0..PORTS {
        let (network, subnet) = subnets[(n % u32::from(NETWORKS)) as usize];
        let tap = IfName::new(&format!("vnet{n}")).expect("a name");
        let id = PortId(Uuid::from_u128(0x2000_0000 + u128::from(n)));
        let number = n / u32::from(NETWORKS) + 10;
        let address = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, (n % u32::from(NETWORKS)) as u8, 0, 0)) + number);
        let [_, _, a, b] = n.to_be_bytes();
        let port = Port {
            id,
            network,
            name: None,
            mac: MacAddr::new([0x52, 0x54, 0, 1, a, b]).expect("unicast"),
            fixed_ips: vec![FixedIp { subnet, address: IpAddr::V4(address) }],
            trunk: None,
            dns_name: None,
            dhcp_options: Vec::new(),
            dhcp_boot: Vec::new(),
            dhcp_client_id: None,
            device: Some(Device { domain: Uuid::from_u128(0x3000_0000 + u128::from(n)), name: format!("guest{n}") }),
            security: vmfabric::intent::PortSecurity::default(),
            origin: Origin::Guest,
        };
        let _ = intent.apply(vec![Change::PutPort(port)], &config).expect("a valid port");
        observed.datapath.links.insert(tap.clone(), tap_link());
        attachments.insert(id, tap);
    }
    Host { intent, config, attachments, observed }
}

fn network(intent: &mut Intent, config: &HostConfig, n: u8) -> (NetworkId, SubnetId) {
    let id = NetworkId(Uuid::from_u128(0x1000 + u128::from(n)));
    let name = format!("net{n}").parse().expect("a name");
    let bridge = Some(Network::bridge_name(id, &format!("net{n}")));
    let network = Network {
        id,
        name,
        segment: Segment::Local,
        bridge,
        mtu: None,
        dns_domain: None,
        zone: 1,
        security: vmfabric::intent::NetworkSecurity::default(),
        dns: vmfabric::intent::NetworkDns::default(),
        dhcp_options: Vec::new(),
        dhcp_boot: Vec::new(),
    };
    let _ = intent.apply(vec![Change::PutNetwork(network)], config).expect("a valid network");
    let draft: SubnetDraft = serde_json::from_value(serde_json::json!({
        "network": id.to_string(), "cidr": format!("10.{n}.0.0/16"), "forward": "nat",
    }))
    .expect("a draft");
    let subnet: Subnet = draft.complete(SubnetId(Uuid::from_u128(0x1100 + u128::from(n))), intent).expect("complete");
    let key = (id, subnet.id);
    let _ = intent.apply(vec![Change::PutSubnet(subnet)], config).expect("a valid subnet");
    key
}
