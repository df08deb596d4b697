//! Random policies for a house that stands, and random packets of its guests.

use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;
use vmfabric::{
    intent::{
        AddressGroup, AddressGroupId, AddressPair, Change, Direction, Ethertype, FixedIp, Forward, Intent, Network,
        NetworkDraft, NetworkId, Origin, Port, PortId, PortSecurity, Protocol, Remote, ResourceName, Rule,
        SecurityGroup, SecurityGroupId, Subnet, SubnetId,
    },
    net::{IpNet, MacAddr},
    policy::{IpPacket, Options, Packet, Payload, Upper, packet::*},
};

/// SplitMix64.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).expect("small")).expect("small")
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a block")
}

fn name(text: String) -> ResourceName {
    ResourceName::new(&text).expect("a name")
}

fn id(n: usize) -> Uuid {
    Uuid::from_u128(u128::try_from(n).expect("small"))
}

/// A port's number, its network and its IPv4 address. Networks 1 and 2 have the same block; 1 and 3 are routed by the
/// host; 4 has no subnet.
pub const PORTS: [(usize, usize, Option<&str>); 11] = [
    (11, 1, Some("10.1.0.11")),
    (12, 1, Some("10.1.0.12")),
    (13, 1, Some("10.1.0.13")),
    (14, 1, Some("10.1.0.14")),
    (21, 2, Some("10.1.0.12")),
    (22, 2, Some("10.1.0.13")),
    (23, 2, Some("10.1.0.23")),
    (31, 3, Some("10.3.0.31")),
    (32, 3, Some("10.3.0.32")),
    (41, 4, None),
    (42, 4, None),
];
pub const NETWORKS: [usize; 4] = [1, 2, 3, 4];
const GROUPS: [usize; 5] = [101, 102, 103, 104, 105];
const STATELESS: [usize; 2] = [104, 105];
const ADDRESS_GROUP: usize = 201;
/// The MAC address of some address pairs.
const VIRTUAL: [u8; 6] = [0, 0, 0x5e, 0, 1, 7];
/// Nobody has it.
const NOBODY: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xee];

pub fn mac(n: usize) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 0, u8::try_from(n).expect("small")]).expect("unicast")
}

pub fn port_id(n: usize) -> PortId {
    PortId(id(n))
}

fn network(n: usize, random: &mut Random) -> Network {
    let draft: NetworkDraft = serde_json::from_value(serde_json::json!({ "name": format!("n{n}") })).expect("a draft");
    let mut network = draft.complete(NetworkId(id(n)), &Intent::default(), None).expect("a network");
    network.zone = u16::try_from(n).expect("small");
    if n == 3 && random.percent(30) {
        network.security.groups = [SecurityGroupId(id(101))].into();
    }
    network
}

fn subnet(n: usize, cidr: &str, host: Option<&str>, forward: Forward) -> Subnet {
    let cidr = net(cidr);
    Subnet {
        id: SubnetId(id(n)),
        network: NetworkId(id(n)),
        name: name(format!("s{n}")),
        cidr,
        gateway: host.map(ip),
        host_address: host.map(ip),
        pools: Subnet::default_pools(&cidr, &[ip("10.1.0.1"), ip("10.3.0.1")]),
        dhcp: false,
        dns_servers: Vec::new(),
        host_routes: Vec::new(),
        forward,
        lease_seconds: 3600,
        dhcp_options: Vec::new(),
        dhcp_boot: Vec::new(),
        dhcp_relays: Vec::new(),
        ipv6_mode: None,
        delegation: None,
        ntp_servers: Vec::new(),
    }
}

/// The house with a policy of its own.
pub fn intent(random: &mut Random) -> Intent {
    let mut changes = vec![address_group(random)];
    changes.extend(GROUPS.map(|n| group(n, random)));
    changes.extend(NETWORKS.map(|n| Change::PutNetwork(network(n, random))));
    changes.push(Change::PutSubnet(subnet(1, "10.1.0.0/24", Some("10.1.0.1"), Forward::Nat)));
    changes.push(Change::PutSubnet(subnet(2, "10.1.0.0/24", None, Forward::None)));
    changes.push(Change::PutSubnet(subnet(3, "10.3.0.0/24", Some("10.3.0.1"), Forward::Routed)));
    changes.extend(PORTS.map(|(n, network, address)| Change::PutPort(port(n, network, address, random))));
    Intent::restore(changes)
}

fn address_group(random: &mut Random) -> Change {
    let all = ["10.1.0.11/32", "10.1.0.12/32", "10.3.0.0/24", "198.51.100.2/32", "fd00::b/32", "fd00::16/128"];
    let addresses = all.into_iter().filter(|_| random.percent(40)).map(|text| net(text).trunc()).collect();
    let id = AddressGroupId(id(ADDRESS_GROUP));
    Change::PutAddressGroup(AddressGroup { id, name: name("addresses".into()), description: String::new(), addresses })
}

fn group(n: usize, random: &mut Random) -> Change {
    let rules = (0..random.below(6)).map(|i| rule(n * 100 + i, random)).collect();
    Change::PutSecurityGroup(SecurityGroup {
        id: SecurityGroupId(id(n)),
        name: name(format!("g{n}")),
        description: String::new(),
        stateful: !STATELESS.contains(&n),
        rules,
    })
}

fn rule(n: usize, random: &mut Random) -> Rule {
    let ethertype = random.one(&[Ethertype::Ipv4, Ethertype::Ipv4, Ethertype::Ipv6]);
    let v4 = ethertype == Ethertype::Ipv4;
    let protocol = match random.below(10) {
        0..=2 => Protocol::Any,
        3..=5 => {
            let first = random.one(&[80, 443, 1000]);
            let last = if random.percent(50) { first } else { random.one(&[1500, 2000, 65535]) };
            Protocol::Ports { protocol: random.one(&[TCP, TCP, UDP]), first, last }
        }
        6..=7 => {
            let kind = random.one(&[None, Some(if v4 { 8 } else { 128 }), Some(3)]);
            Protocol::Icmp { kind, code: kind.and_then(|_| random.one(&[None, Some(0), Some(1)])) }
        }
        _ => Protocol::Number { protocol: random.one(&[47, 50, TCP, UDP]) },
    };
    let remote = match random.below(10) {
        0..=2 => Remote::Any,
        3..=4 => {
            let blocks = ["10.1.0.0/24", "10.1.0.12/32", "10.3.0.32/31", "0.0.0.0/0", "198.51.100.0/24"];
            Remote::Prefix(net(random.one(if v4 { &blocks } else { &["fd00::/64", "fd00::c/128", "::/0"] })))
        }
        5..=7 => Remote::Group(SecurityGroupId(id(random.one(&GROUPS)))),
        8 => Remote::AddressGroup(AddressGroupId(id(ADDRESS_GROUP))),
        _ => Remote::Host,
    };
    let direction = random.one(&[Direction::Ingress, Direction::Egress]);
    Rule { id: id(n), direction, ethertype, protocol, remote, description: String::new() }
}

/// The IPv6 address that most ports have as a pair.
fn v6(n: usize) -> IpAddr {
    format!("fd00::{n:x}").parse().expect("an address")
}

fn port(n: usize, network: usize, address: Option<&str>, random: &mut Random) -> Port {
    let mut security = PortSecurity::default();
    let some = |of: &[usize], random: &mut Random| -> BTreeSet<SecurityGroupId> {
        of.iter().filter(|_| random.percent(50)).map(|n| SecurityGroupId(id(*n))).collect()
    };
    security.groups = match random.below(20) {
        0..=3 => None,
        4 => Some(BTreeSet::new()),
        5..=15 => Some(some(&GROUPS[..3], random)),
        _ => Some(some(&STATELESS, random)),
    };
    if random.percent(8) {
        security.port_security = Some(false);
    }
    if random.percent(20) {
        security.isolated = Some(true);
    }
    let mut pair = |chance, block: IpNet, mac: Option<MacAddr>| {
        if random.percent(chance) {
            security.address_pairs.insert(AddressPair { ip: block, mac });
        }
    };
    let virtual_mac = MacAddr::new(VIRTUAL).expect("unicast");
    pair(80, v6(n).into(), None);
    pair(15, net("10.1.0.100/32"), None);
    pair(15, net("10.1.0.100/32"), Some(virtual_mac));
    pair(10, net("10.1.0.128/26"), None);
    // A port with a block of IPv6 addresses may advertise any: sets of ranges are not compared with what is in a message.
    pair(10, net("fd00:5::/64"), None);
    Port {
        id: port_id(n),
        network: NetworkId(id(network)),
        name: Some(name(format!("p{n}"))),
        mac: mac(n),
        fixed_ips: address
            .map(|address| FixedIp { subnet: SubnetId(id(network)), address: ip(address) })
            .into_iter()
            .collect(),
        trunk: None,
        dns_name: None,
        device: None,
        dhcp_options: Vec::new(),
        dhcp_boot: Vec::new(),
        dhcp_client_id: None,
        security,
        origin: Origin::Admin,
    }
}

/// Whom a packet is addressed to on the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    Bridge,
    Host,
}

/// A packet that a guest sends; `host`: the MAC address of this host on its network, where it has one.
pub fn packet(n: usize, host: Option<MacAddr>, random: &mut Random) -> (Packet, Towards) {
    let (_, network, own) = PORTS.into_iter().find(|(own, ..)| *own == n).expect("a port");
    let neighbours: Vec<_> = PORTS.into_iter().filter(|(other, of, _)| *of == network && *other != n).collect();
    let (other, _, theirs) = random.one(&neighbours);
    let via_host = host.filter(|_| random.percent(30));
    let source = match random.below(20) {
        0 => NOBODY,
        1 => VIRTUAL,
        _ => mac(n).octets(),
    };
    let destination = match (via_host, random.below(20)) {
        (Some(host), _) => host.octets(),
        (_, 0) => NOBODY,
        (_, 1) => VIRTUAL,
        _ => mac(other).octets(),
    };
    let towards = if via_host.is_some() { Towards::Host } else { Towards::Bridge };
    let tags = if random.percent(2) { vec![10] } else { Vec::new() };
    let mut packet = Packet { source, destination, tags, payload: Payload::Rarp };
    if towards == Towards::Bridge && random.percent(25) {
        packet.payload = particular(n, own, source, random);
        packet.destination = random.one(&[[0xff; 6], mac(other).octets(), [0x33, 0x33, 0, 0, 0, 1]]);
        if random.percent(5) {
            packet.destination = [1, 0x80, 0xc2, 0, 0, u8::try_from(random.below(18)).expect("small")];
        }
        return (packet, Towards::Bridge);
    }
    let is_v4 = random.percent(if via_host.is_some() { 100 } else { 65 });
    let from = match (is_v4, random.below(12)) {
        (true, 0) => random.one(&["10.1.0.100", "10.1.0.130", "10.1.0.1", "10.3.0.31"]).parse().expect("IPv4"),
        (true, _) => ip(own.unwrap_or("10.4.0.4")),
        (false, 0) => random.one(&[ip("fd00:5::9"), ip("fe80::1"), ip("fd00::ffff")]),
        (false, 1) => link_local(source),
        (false, _) => v6(n),
    };
    let to = match (is_v4, via_host.is_some()) {
        (true, true) => {
            let all = ["10.1.0.11", "10.1.0.12", "10.1.0.14", "10.3.0.31", "10.3.0.32", "198.51.100.2", "198.51.100.3"];
            ip(random.one(&all))
        }
        (true, false) => ip(theirs.unwrap_or("10.4.0.5")),
        (false, _) => v6(other),
    };
    let mut inner = IpPacket::new(from, to, upper(is_v4, random));
    if random.percent(3) {
        inner.options = Options::Other;
    }
    if towards == Towards::Bridge && random.percent(10) {
        (packet.destination, inner.destination) = random.one(&if is_v4 {
            [([0xff; 6], ip("255.255.255.255")), ([1, 0, 0x5e, 0, 0, 0xfb], ip("224.0.0.251"))]
        } else {
            [([0x33, 0x33, 0, 0, 0, 0xfb], ip("ff02::fb")), ([0x33, 0x33, 0, 0, 0, 1], ip("ff02::1"))]
        });
        inner.fragment = random.percent(20);
    }
    packet.payload = Payload::Ip(inner);
    (packet, towards)
}

fn upper(is_v4: bool, random: &mut Random) -> Upper {
    // With the marks' help no two flows of a policy are the same.
    let source = u16::try_from(10_000 + random.below(50_000)).expect("small");
    match random.below(20) {
        0..=13 => {
            let destination = random.one(&[80, 80, 443, 1000, 1200, 1500, 2000, 3000]);
            let protocol = random.one(&[TCP, TCP, UDP]);
            Upper::Ports { protocol, source, destination, opens: protocol == UDP || random.percent(85) }
        }
        14..=17 => {
            let kinds: &[u8] = if is_v4 { &[8, 8, 8, 0, 3, 13, 5] } else { &[128, 128, 128, 129, 1] };
            Upper::Icmp { kind: random.one(kinds), code: random.one(&[0, 0, 1]), target: None, link_layer: None }
        }
        _ => Upper::Other(random.one(&[47, 50])),
    }
}

/// What guests send besides payload: ARP, neighbours, servers' and routers' words.
fn particular(n: usize, own: Option<&str>, source: [u8; 6], random: &mut Random) -> Payload {
    let own = ip(own.unwrap_or("10.4.0.4"));
    let IpAddr::V4(own4) = own else { panic!("IPv4") };
    let named = random.one(&[source, source, source, VIRTUAL, NOBODY]);
    let icmp6 = |source: IpAddr, kind: u8, target: Option<IpAddr>, link_layer| {
        let upper = Upper::Icmp { kind, code: 0, target, link_layer };
        Payload::Ip(IpPacket::new(source, ip("ff02::1"), upper))
    };
    let udp = |source: IpAddr, from: u16, to: u16| {
        let destination = if source.is_ipv4() { ip("255.255.255.255") } else { ip("ff02::1:2") };
        let upper = Upper::Ports { protocol: UDP, source: from, destination: to, opens: true };
        Payload::Ip(IpPacket::new(source, destination, upper))
    };
    let local = link_local(source);
    match random.below(16) {
        0..=3 => {
            let sender_ip =
                random.one(&[own4, own4, [0, 0, 0, 0].into(), [10, 1, 0, 1].into(), [10, 1, 0, 100].into()]);
            Payload::Arp { request: random.percent(60), sender_mac: named, sender_ip }
        }
        4 => Payload::Rarp,
        5..=8 => {
            let kind = random.one(&[icmp6::NEIGHBOUR_SOLICITATION, icmp6::NEIGHBOUR_ADVERTISEMENT]);
            let target = random.one(&[v6(n), local, ip("fe80::1")]);
            if kind == icmp6::NEIGHBOUR_SOLICITATION && random.percent(40) {
                return icmp6(ip("::"), kind, Some(target), None);
            }
            icmp6(random.one(&[v6(n), local, ip("fe80::1")]), kind, Some(target), random.one(&[None, Some(named)]))
        }
        9 => icmp6(random.one(&[local, ip("::")]), icmp6::ROUTER_SOLICITATION, None, None),
        10 => icmp6(local, random.one(&[icmp6::ROUTER_ADVERTISEMENT, icmp6::REDIRECT]), None, None),
        11 => {
            let kind = random.one(&[icmp6::MLD_REPORT, icmp6::MLD_DONE, icmp6::MLD_QUERY]);
            let mut report = icmp6(random.one(&[local, ip("::")]), kind, None, None);
            if let Payload::Ip(inner) = &mut report {
                inner.options = Options::RouterAlert;
            }
            report
        }
        12 => {
            let mut report = IpPacket::new(random.one(&[own, ip("0.0.0.0")]), ip("224.0.0.251"), Upper::Other(IGMP));
            report.options = random.one(&[Options::None, Options::RouterAlert, Options::RouterAlert, Options::Other]);
            Payload::Ip(report)
        }
        13 => {
            let (from, to) = random.one(&[(68, 67), (67, 68), (68, 68)]);
            udp(random.one(&[own, ip("0.0.0.0")]), from, to)
        }
        14 => {
            let (from, to) = random.one(&[(546, 547), (547, 546)]);
            udp(local, from, to)
        }
        _ => Payload::Other(random.one(&[0x88cc, 0x8863, 0x0842])),
    }
}

/// What the host says to a guest without its IP stack: DHCP's answers, ARP, neighbour discovery.
pub fn of_host(address: Option<&str>, random: &mut Random) -> Payload {
    let source = [2, 0, 0, 0, 0, 0xfe];
    let gateway = ip("10.1.0.1");
    match random.below(4) {
        0..=1 => {
            let upper = Upper::Ports { protocol: UDP, source: 67, destination: 68, opens: true };
            Payload::Ip(IpPacket::new(gateway, ip(address.unwrap_or("10.4.0.4")), upper))
        }
        2 => Payload::Arp { request: random.percent(50), sender_mac: source, sender_ip: [10, 1, 0, 1].into() },
        _ => {
            let target = Some(ip("fe80::fe"));
            let upper = Upper::Icmp { kind: icmp6::NEIGHBOUR_ADVERTISEMENT, code: 0, target, link_layer: Some(source) };
            Payload::Ip(IpPacket::new(ip("fe80::fe"), ip("fd00::b"), upper))
        }
    }
}

fn link_local([a, b, c, d, e, f]: [u8; 6]) -> IpAddr {
    let octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    IpAddr::from(octets)
}
