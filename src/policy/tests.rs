use super::{packet::*, *};
use crate::{
    datapath::{Connection, Tuple, TupleUpper},
    intent::{
        AddressPair, Change, Direction, Ethertype, FixedIp, Forward, Intent, Network, NetworkDraft, NetworkId, Origin,
        Port, PortId, PortSecurity, Protocol, Remote, ResourceName, Rule, SecurityGroup, SecurityGroupId, Subnet,
        SubnetId, Trunk,
    },
    net::VlanId,
};
use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;

const WEB: u128 = 100;
const DB: u128 = 101;

fn name(text: &str) -> ResourceName {
    ResourceName::new(text).expect("a name")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn network(n: u128, zone: u16) -> Network {
    let draft = NetworkDraft::named(name(&format!("n{n}")));
    let network = draft.complete(NetworkId(Uuid::from_u128(n)), &Intent::default(), None).expect("a network");
    Network { zone, ..network }
}

fn subnet(n: u128, network: u128, cidr: &str, host: Option<&str>, forward: Forward) -> Subnet {
    Subnet {
        id: SubnetId(Uuid::from_u128(n)),
        network: NetworkId(Uuid::from_u128(network)),
        name: name(&format!("s{n}")),
        cidr: cidr.parse().expect("a block"),
        gateway: host.map(ip),
        host_address: host.map(ip),
        pools: Vec::new(),
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

fn port(n: u128, network: u128, address: Option<(u128, &str)>, groups: Option<&[u128]>) -> Port {
    let groups = groups.map(|groups| groups.iter().map(|id| SecurityGroupId(Uuid::from_u128(*id))).collect());
    Port {
        id: PortId(Uuid::from_u128(n)),
        network: NetworkId(Uuid::from_u128(network)),
        name: Some(name(&format!("p{n}"))),
        mac: format!("52:54:00:00:00:{n:02x}").parse().expect("a MAC address"),
        fixed_ips: address
            .map(|(subnet, address)| FixedIp { subnet: SubnetId(Uuid::from_u128(subnet)), address: ip(address) })
            .into_iter()
            .collect(),
        trunk: None,
        dns_name: None,
        dhcp_options: Vec::new(),
        dhcp_boot: Vec::new(),
        dhcp_client_id: None,
        device: None,
        security: PortSecurity { groups, ..PortSecurity::default() },
        origin: Origin::Admin,
    }
}

fn rule(n: u128, direction: Direction, protocol: Protocol, remote: Remote) -> Rule {
    Rule { id: Uuid::from_u128(n), direction, ethertype: Ethertype::Ipv4, protocol, remote, description: String::new() }
}

fn group(id: u128, stateful: bool, rules: Vec<Rule>) -> Change {
    Change::PutSecurityGroup(SecurityGroup {
        id: SecurityGroupId(Uuid::from_u128(id)),
        name: name(&format!("g{id}")),
        description: String::new(),
        stateful,
        rules,
    })
}

const TCP_80: Protocol = Protocol::Ports { protocol: TCP, first: 80, last: 80 };

/// Two local networks: 1 with 10.0.0.0/24 that the host routes, 2 with the same block that it does not know. Ports 11
/// and 12 are in WEB, 13 in DB, 14 in none, 21 and 22 on network 2 in WEB and DB.
fn house() -> Intent {
    let web = SecurityGroupId(Uuid::from_u128(WEB));
    Intent::restore(vec![
        group(
            WEB,
            true,
            vec![
                rule(1, Direction::Egress, Protocol::Any, Remote::Any),
                rule(2, Direction::Ingress, TCP_80, Remote::Any),
            ],
        ),
        group(DB, true, vec![rule(3, Direction::Ingress, Protocol::Any, Remote::Group(web))]),
        Change::PutNetwork(network(1, 1)),
        Change::PutNetwork(network(2, 2)),
        Change::PutNetwork(network(3, 3)),
        Change::PutSubnet(subnet(1, 1, "10.0.0.0/24", Some("10.0.0.1"), Forward::Nat)),
        Change::PutSubnet(subnet(2, 2, "10.0.0.0/24", None, Forward::None)),
        Change::PutSubnet(subnet(3, 3, "10.3.0.0/24", Some("10.3.0.1"), Forward::Routed)),
        Change::PutPort(port(11, 1, Some((1, "10.0.0.11")), Some(&[WEB]))),
        Change::PutPort(port(12, 1, Some((1, "10.0.0.12")), Some(&[WEB]))),
        Change::PutPort(port(13, 1, Some((1, "10.0.0.13")), Some(&[DB]))),
        Change::PutPort(port(14, 1, Some((1, "10.0.0.14")), None)),
        Change::PutPort(port(15, 1, Some((1, "10.0.0.15")), Some(&[]))),
        Change::PutPort(port(21, 2, Some((2, "10.0.0.12")), Some(&[WEB]))),
        Change::PutPort(port(22, 2, Some((2, "10.0.0.22")), Some(&[DB]))),
        Change::PutPort(port(31, 3, Some((3, "10.3.0.31")), Some(&[DB]))),
    ])
}

fn id(n: u128) -> PortId {
    PortId(Uuid::from_u128(n))
}

fn tcp(intent: &Intent, from: u128, to: u128, destination: u16, opens: bool) -> Packet {
    let [from, to] = [from, to].map(|n| intent.port(id(n)).expect("a port"));
    let upper = Upper::Ports { protocol: TCP, source: 40000, destination, opens };
    Packet {
        source: from.mac.octets(),
        destination: to.mac.octets(),
        tags: Vec::new(),
        payload: Payload::Ip(IpPacket::new(from.fixed_ips[0].address, to.fixed_ips[0].address, upper)),
    }
}

fn bridged(intent: &Intent, from: u128, to: u128, destination: u16, opens: bool) -> Result<(), Reason> {
    let packet = tcp(intent, from, to, destination, opens);
    let verdict = Policy::new(intent, &BTreeSet::new()).bridged(Peer::Port(id(from)), id(to), &packet, State::New);
    verdict.outcome.map_err(|drop| drop.reason)
}

/// The same through the host.
fn routed(intent: &Intent, from: u128, to: u128) -> Result<(), Reason> {
    let mut packet = tcp(intent, from, to, 80, true);
    packet.destination = [2, 0, 0, 0, 0, 0xfe];
    Policy::new(intent, &BTreeSet::new()).to_host(id(from), &packet, State::New).outcome.map_err(|drop| drop.reason)
}

#[test]
fn groups_allow_what_their_rules_say() {
    let intent = house();
    assert_eq!(bridged(&intent, 11, 12, 80, true), Ok(()));
    assert_eq!(bridged(&intent, 11, 12, 81, true), Err(Reason::GroupIn));
    assert_eq!(bridged(&intent, 11, 12, 80, false), Err(Reason::GroupOut), "no SYN opens no connection");
    assert_eq!(bridged(&intent, 11, 13, 3306, true), Ok(()), "a member of the remote group");
    assert_eq!(bridged(&intent, 14, 13, 3306, true), Err(Reason::GroupIn), "not a member");
    assert_eq!(bridged(&intent, 13, 14, 80, true), Err(Reason::GroupOut), "no rule lets it out");
    assert_eq!(bridged(&intent, 14, 11, 80, true), Ok(()));
    assert_eq!(bridged(&intent, 11, 14, 4711, true), Ok(()), "a port without groups takes all");
    assert_eq!(bridged(&intent, 11, 15, 80, true), Err(Reason::GroupIn), "in no group, nothing passes");
    assert_eq!(bridged(&intent, 11, 21, 80, true), Err(Reason::Vlan), "another network");
    assert_eq!(bridged(&intent, 21, 22, 80, true), Ok(()));
    // The member with that address is on the other network.
    let mut packet = tcp(&intent, 14, 13, 80, true);
    let Payload::Ip(inner) = &mut packet.payload else { panic!("IP") };
    inner.source = ip("10.0.0.22");
    let wire = Policy::new(&intent, &BTreeSet::new()).bridged(
        Peer::Wire(NetworkId(Uuid::from_u128(1))),
        id(13),
        &packet,
        State::New,
    );
    assert_eq!(wire.outcome.map_err(|drop| drop.reason), Err(Reason::GroupIn));
    let answer = tcp(&intent, 13, 11, 40000, false);
    let answer =
        Policy::new(&intent, &BTreeSet::new()).bridged(Peer::Port(id(13)), id(11), &answer, State::Established);
    assert!(answer.is_allowed());
}

#[test]
fn guests_send_from_their_own_addresses() {
    let mut intent = house();
    let mut vip = port(16, 1, Some((1, "10.0.0.16")), None);
    let mac = "52:54:00:00:00:aa".parse().expect("a MAC address");
    vip.security.address_pairs = BTreeSet::from([
        AddressPair { ip: "10.0.0.100/32".parse().expect("a block"), mac: None },
        AddressPair { ip: "10.0.0.101/32".parse().expect("a block"), mac: Some(mac) },
    ]);
    let _ = intent.apply(vec![Change::PutPort(vip)], &Default::default()).expect("valid");
    let policy = Policy::new(&intent, &BTreeSet::new());
    let own = intent.port(id(16)).expect("there").mac.octets();
    let sent = |source: [u8; 6], payload: Payload| {
        let packet = Packet { source, destination: [0xff; 6], tags: Vec::new(), payload };
        policy.bridged(Peer::Port(id(16)), id(14), &packet, State::New).outcome.map_err(|drop| drop.reason)
    };
    let udp = |source: &str, from, to| {
        let broadcast = ip(if source.contains(':') { "ff02::1" } else { "255.255.255.255" });
        let upper = Upper::Ports { protocol: UDP, source: from, destination: to, opens: true };
        Payload::Ip(IpPacket::new(ip(source), broadcast, upper))
    };
    let icmp6 = |source: &str, kind, target: Option<&str>, link_layer| {
        let upper = Upper::Icmp { kind, code: 0, target: target.map(ip), link_layer };
        Payload::Ip(IpPacket::new(ip(source), ip("ff02::1"), upper))
    };
    assert_eq!(sent(own, udp("10.0.0.16", 5, 5)), Ok(()));
    assert_eq!(sent(own, udp("10.0.0.100", 5, 5)), Ok(()));
    assert_eq!(sent(own, udp("10.0.0.101", 5, 5)), Err(Reason::Ip), "a pair of another MAC address");
    assert_eq!(sent(mac.octets(), udp("10.0.0.101", 5, 5)), Ok(()));
    assert_eq!(sent(mac.octets(), udp("10.0.0.16", 5, 5)), Err(Reason::Ip));
    assert_eq!(sent([2; 6], udp("10.0.0.16", 5, 5)), Err(Reason::Mac));
    assert_eq!(sent(own, udp("0.0.0.0", 68, 67)), Ok(()));
    assert_eq!(sent(own, udp("0.0.0.0", 68, 68)), Err(Reason::Ip));
    assert_eq!(sent(own, udp("10.0.0.16", 67, 68)), Err(Reason::Dhcp));
    assert_eq!(sent(own, udp("fe80::5054:ff:fe00:10", 5, 5)), Ok(()));
    assert_eq!(sent(own, udp("fe80::1", 5, 5)), Err(Reason::Ip6));
    assert_eq!(sent(own, udp("fe80::5054:ff:fe00:10", 547, 546)), Err(Reason::Dhcp));
    assert_eq!(sent(own, icmp6("::", 135, None, None)), Ok(()));
    assert_eq!(sent(own, icmp6("::", 128, None, None)), Err(Reason::Ip6));
    assert_eq!(sent(own, icmp6("fe80::5054:ff:fe00:10", 134, None, None)), Err(Reason::Ra));
    assert_eq!(sent(own, icmp6("fe80::5054:ff:fe00:10", 136, Some("fe80::1"), None)), Err(Reason::Nd));
    assert_eq!(sent(own, icmp6("fe80::5054:ff:fe00:10", 135, None, Some([2; 6]))), Err(Reason::Nd));
    let arp = |sender_ip: &str, sender_mac| Payload::Arp {
        request: true,
        sender_mac,
        sender_ip: sender_ip.parse().expect("IPv4"),
    };
    assert_eq!(sent(own, arp("10.0.0.16", own)), Ok(()));
    assert_eq!(sent(own, arp("0.0.0.0", own)), Ok(()));
    assert_eq!(sent(own, arp("10.0.0.1", own)), Err(Reason::Arp));
    assert_eq!(sent(own, arp("10.0.0.16", [2; 6])), Err(Reason::Arp));
    assert_eq!(sent(own, Payload::Other(0x88cc)), Err(Reason::Ethertype));
    let stp = Packet { source: own, destination: [1, 0x80, 0xc2, 0, 0, 0], tags: vec![], payload: Payload::Other(0) };
    let stp = policy.bridged(Peer::Port(id(16)), id(14), &stp, State::New);
    assert_eq!(stp.outcome.map_err(|drop| drop.reason), Err(Reason::Control));
}

#[test]
fn the_host_routes_as_subnets_say() {
    let intent = house();
    let policy = Policy::new(&intent, &BTreeSet::from(["tcp/3128".parse().expect("a service")]));
    let to = |from: u128, address: &str, port: u16| {
        let sender = intent.port(id(from)).expect("there");
        let upper = Upper::Ports { protocol: TCP, source: 40000, destination: port, opens: true };
        let ip = IpPacket::new(sender.fixed_ips[0].address, ip(address), upper);
        let packet = Packet {
            source: sender.mac.octets(),
            destination: [2, 0, 0, 0, 0, 1],
            tags: Vec::new(),
            payload: Payload::Ip(ip),
        };
        policy.to_host(id(from), &packet, State::New)
    };
    let reason = |verdict: Verdict| verdict.outcome.map_err(|drop| drop.reason);
    let outward = to(11, "192.0.2.1", 443);
    assert!(outward.steps.iter().any(|step| matches!(step, Step::Masqueraded { .. })), "{outward:?}");
    assert_eq!(reason(outward), Ok(()));
    assert_eq!(reason(to(11, "10.3.0.31", 443)), Ok(()), "nat reaches routed, and a member of a routed subnet");
    assert_eq!(reason(to(31, "10.0.0.11", 80)), Err(Reason::GroupOut));
    assert_eq!(reason(to(11, "10.0.0.1", 53)), Ok(()));
    assert_eq!(reason(to(11, "10.0.0.1", 22)), Err(Reason::Host));
    assert_eq!(reason(to(11, "10.0.0.1", 3128)), Ok(()));
    let upper = Upper::Ports { protocol: TCP, source: 40000, destination: 80, opens: true };
    let inward = |address: &str| policy.from_outside(&IpPacket::new(ip("192.0.2.1"), ip(address), upper), State::New);
    assert_eq!(reason(inward("10.0.0.11")), Err(Reason::Forward));
    assert_eq!(reason(inward("10.3.0.31")), Err(Reason::GroupIn));
}

/// The host goes by the link that a packet came in by: another network's address makes nobody its neighbour.
#[test]
fn an_address_of_another_network_stays_outside_it() {
    let mut intent = house();
    let mut stray = port(32, 3, Some((3, "10.3.0.32")), Some(&[WEB]));
    stray.security.address_pairs = [AddressPair { ip: "10.0.0.100/32".parse().expect("a block"), mac: None }].into();
    let _ = intent.apply(vec![Change::PutPort(stray)], &crate::intent::HostConfig::default()).expect("valid");
    let upper = Upper::Ports { protocol: TCP, source: 40000, destination: 80, opens: true };
    let from = |source: &str| {
        let sender = intent.port(id(32)).expect("there");
        let packet = Packet {
            source: sender.mac.octets(),
            destination: [2, 0, 0, 0, 0, 1],
            tags: Vec::new(),
            payload: Payload::Ip(IpPacket::new(ip(source), ip("10.0.0.11"), upper)),
        };
        let verdict = Policy::new(&intent, &BTreeSet::new()).to_host(id(32), &packet, State::New);
        verdict.outcome.map_err(|drop| drop.reason)
    };
    assert_eq!(from("10.3.0.32"), Err(Reason::Forward), "nat lets nobody in");
    assert_eq!(from("10.0.0.100"), Err(Reason::Forward), "nor who has an address of it");
}

#[test]
fn trunks_and_isolated_ports() {
    let mut intent = house();
    let mut trunk = port(17, 1, Some((1, "10.0.0.17")), None);
    trunk.trunk = Some(Trunk { native: false, tagged: [VlanId::new(10).expect("a VLAN")].into() });
    let lonely = |n, address| {
        let mut port = port(n, 1, Some((1, address)), None);
        port.security.isolated = Some(true);
        port
    };
    intent = Intent::restore(
        [trunk, lonely(18, "10.0.0.18"), lonely(19, "10.0.0.19")]
            .map(Change::PutPort)
            .into_iter()
            .chain(stored(&intent))
            .collect::<Vec<_>>(),
    );
    assert_eq!(bridged(&intent, 17, 14, 80, true), Err(Reason::Vlan), "it has no native VLAN");
    assert_eq!(bridged(&intent, 18, 19, 80, true), Err(Reason::Isolation));
    assert_eq!(bridged(&intent, 18, 14, 80, true), Ok(()));
    assert_eq!(bridged(&intent, 14, 18, 80, true), Ok(()));
    assert_eq!(routed(&intent, 18, 19), Err(Reason::Isolation), "nor through the gateway");
    assert_eq!(routed(&intent, 18, 14), Ok(()));
    // A VLAN that only trunks have; 18's address is of another place.
    let mut grouped = intent.port(id(17)).expect("there").clone();
    grouped.security.groups = Some([SecurityGroupId(Uuid::from_u128(WEB))].into());
    let grouped = Intent::restore(
        stored(&intent)
            .into_iter()
            .filter(|change| !matches!(change, Change::PutPort(port) if port.id == id(17)))
            .chain([Change::PutPort(grouped)])
            .collect::<Vec<_>>(),
    );
    let ended = |port| {
        let connection = connection(Network::VLAN_ZONES + 10, "10.0.0.18", "10.0.0.17", port);
        !revoked(&Policy::new(&grouped, &BTreeSet::new()), &[connection], &BTreeSet::new()).is_empty()
    };
    assert!(!ended(80) && ended(81));
    let mut tagged = tcp(&intent, 14, 11, 80, true);
    tagged.tags = vec![10];
    let verdict = Policy::new(&intent, &BTreeSet::new()).bridged(Peer::Port(id(14)), id(11), &tagged, State::New);
    assert_eq!(verdict.outcome.map_err(|drop| drop.reason), Err(Reason::Vlan));
}

fn stored(intent: &Intent) -> Vec<Change> {
    let networks = intent.networks().cloned().map(Change::PutNetwork);
    let subnets = intent.subnets().cloned().map(Change::PutSubnet);
    let groups = intent.security_groups().cloned().map(Change::PutSecurityGroup);
    networks.chain(subnets).chain(groups).chain(intent.ports().cloned().map(Change::PutPort)).collect()
}

fn connection(zone: u16, from: &str, to: &str, port: u16) -> Connection {
    let tuple = |from: &str, to: &str, source, destination| Tuple {
        source: ip(from),
        destination: ip(to),
        upper: TupleUpper::Ports { source, destination },
    };
    Connection {
        id: 1,
        zone,
        protocol: TCP,
        status: 0,
        mark: 0,
        original: tuple(from, to, 40000, port),
        reply: tuple(to, from, port, 40000),
    }
}

#[test]
fn connections_end_with_the_rule_that_let_them_in() {
    let intent = house();
    let host = BTreeSet::from([ip("10.0.0.1"), ip("10.3.0.1"), ip("198.51.100.1")]);
    let ends = |intent: &Intent, connection: &Connection| {
        !revoked(&Policy::new(intent, &BTreeSet::new()), std::slice::from_ref(connection), &host).is_empty()
    };
    let mut outward = connection(0, "10.0.0.11", "192.0.2.1", 443);
    outward.reply.destination = ip("198.51.100.1");
    let routed = connection(0, "10.0.0.11", "10.3.0.31", 443);
    let bridged = connection(1, "10.0.0.11", "10.0.0.13", 3306);
    let web = connection(1, "10.0.0.14", "10.0.0.11", 80);
    let kept = [
        &outward,
        &routed,
        &bridged,
        &web,
        &connection(1, "10.0.0.11", "10.0.0.12", 80),
        // Not ours: another zone, the host's own, a network without our ports.
        &connection(9, "10.0.0.13", "10.0.0.11", 22),
        &connection(0, "198.51.100.1", "192.0.2.1", 443),
        &connection(0, "10.0.0.1", "10.0.0.11", 80),
        &connection(0, "10.0.0.11", "10.0.0.1", 53),
    ];
    for connection in kept {
        assert!(!ends(&intent, connection), "{connection}");
    }
    for gone in [
        connection(1, "10.0.0.14", "10.0.0.11", 22),
        connection(1, "10.0.0.13", "10.0.0.14", 80),
        connection(1, "10.0.0.99", "10.0.0.11", 80),
        connection(0, "192.0.2.1", "10.0.0.11", 80),
        connection(0, "10.0.0.11", "10.0.0.1", 22),
    ] {
        assert!(ends(&intent, &gone), "{gone}");
    }
    // Link-local addresses are of ports too, and no rule here lets IPv6 in.
    assert!(ends(&intent, &connection(1, "fe80::5054:ff:fe00:e", "fe80::5054:ff:fe00:b", 80)));
    // 11 leaves WEB: what it was let to as a member ends, and what it sent by WEB's rule; what others let in stays.
    let mut after = intent.clone();
    let moved = Change::PutPort(port(11, 1, Some((1, "10.0.0.11")), None));
    assert!(takes_away(&intent, &moved));
    let _ = after.apply(vec![moved], &Default::default()).expect("valid");
    assert!(ends(&after, &bridged) && ends(&after, &routed) && !ends(&after, &outward) && !ends(&after, &web));
}

#[test]
fn what_only_adds_takes_nothing_away() {
    let intent = house();
    let web = intent.security_groups().find(|group| group.name.as_str() == "g100").expect("there").clone();
    let mut more = web.clone();
    more.rules.push(rule(9, Direction::Ingress, Protocol::Any, Remote::Host));
    // The same said anew, in another order.
    more.rules.reverse();
    more.rules[1].id = Uuid::from_u128(77);
    assert!(!takes_away(&intent, &Change::PutSecurityGroup(more)));
    let mut less = web.clone();
    less.rules.pop();
    assert!(takes_away(&intent, &Change::PutSecurityGroup(less)));
    assert!(takes_away(&intent, &Change::PutSecurityGroup(SecurityGroup { stateful: false, ..web })));
    assert!(!takes_away(&intent, &Change::PutPort(port(40, 1, None, None))));
    assert!(takes_away(&intent, &Change::DeletePort(id(11))));
    assert!(takes_away(&intent, &Change::PutPort(port(11, 1, None, Some(&[WEB])))));
}

#[test]
fn ways_are_told_in_words() {
    let intent = house();
    let policy = Policy::new(&intent, &BTreeSet::new());
    let tell = |from: &str, to: &str, port: Option<u16>| {
        trace(&policy, &Request { from: from.into(), to: to.into(), port, ..Request::default() }).expect("a way")
    };
    let through = tell("p11", "10.0.0.13", Some(3306));
    assert!(through.allowed, "{through:?}");
    assert!(through.steps[3].contains("p13: in: group g101 allows IPv4 from members of group g100"), "{through:?}");
    let stopped = tell("p11", "p12", Some(22));
    assert_eq!((stopped.reason.as_deref(), stopped.port), (Some("group-in"), Some(id(12).to_string())));
    let outward = tell("p11", "192.0.2.9", None);
    assert!(outward.allowed && outward.steps.iter().any(|step| step.contains("forward nat")), "{outward:?}");
    assert_eq!(tell("192.0.2.9", "p11", Some(80)).reason.as_deref(), Some("forward"));
    assert_eq!(tell("host", "p12", None).reason.as_deref(), Some("group-in"));
    assert!(tell("p11", "host", Some(53)).allowed);
    assert_eq!(tell("p11", "p31", Some(80)).steps.len(), 4);
    for (from, to) in [("nobody", "p11"), ("host", "host"), ("p11", "2001:db8::1"), ("192.0.2.1", "192.0.2.2")] {
        let request = Request { from: from.into(), to: to.into(), ..Request::default() };
        assert!(trace(&policy, &request).is_err(), "{from} {to}");
    }
    let explained = explain(&policy, id(11)).expect("there");
    assert_eq!(explained.groups.as_deref(), Some(&["g100".to_owned()][..]));
    let lines: Vec<_> = explained.receives.iter().map(|line| line.what.as_str()).collect();
    assert!(lines.contains(&"IPv4 TCP 80 from anywhere"), "{lines:?}");
}

#[test]
fn who_has_an_address_in_several_ways_has_it_once() {
    let mut intent = house();
    let pairs = |blocks: &[&str]| {
        let pair = |block: &&str| AddressPair { ip: block.parse().expect("a block"), mac: None };
        PortSecurity { address_pairs: blocks.iter().map(pair).collect(), ..PortSecurity::default() }
    };
    let change = |n, security| Change::PutPort(Port { security, ..port(n, 1, None, None) });
    let changes = vec![change(41, pairs(&["10.0.0.96/28", "10.0.0.99/32"])), change(42, pairs(&["10.0.0.99/32"]))];
    let _ = intent.apply(changes, &Default::default()).expect("valid");
    let mut own = intent.port(id(11)).expect("there").clone();
    own.security.address_pairs = pairs(&["10.0.0.0/24"]).address_pairs;
    let _ = intent.apply(vec![Change::PutPort(own)], &Default::default()).expect("valid");
    let policy = Policy::new(&intent, &BTreeSet::new());
    let holders = |address| -> Vec<_> {
        policy.holders(NetworkId(Uuid::from_u128(1)), ip(address)).into_iter().map(|port| port.id).collect()
    };
    assert_eq!(holders("10.0.0.11"), [id(11)]);
    let mut several = holders("10.0.0.99");
    several.sort();
    assert_eq!(several, [id(11), id(41), id(42)]);
    // By its MAC address and by a pair, another holder between the two.
    let local = "fe80::5054:ff:fe00:2b";
    let changes = vec![change(43, pairs(&["fe80::/64"])), change(44, pairs(&["fe80::/64"]))];
    let _ = intent.apply(changes, &Default::default()).expect("valid");
    let policy = Policy::new(&intent, &BTreeSet::new());
    let holders = policy.holders(NetworkId(Uuid::from_u128(1)), ip(local));
    assert_eq!(holders.iter().map(|port| port.id).collect::<Vec<_>>(), [id(43), id(44)]);
}
