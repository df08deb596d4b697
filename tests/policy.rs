//! The kernel against the model: random policies, loaded as planned, and random frames of guests, each of which must
//! reach just those whom `policy` says. On User Mode Linux, whose kernel has every part.
//!
//! As root: `cargo test --test policy -- --include-ignored`. `VMFABRIC_SEED` repeats a run, `VMFABRIC_POLICIES` says how
//! many policies are tried.

#[path = "policy/frame.rs"]
mod frame;
#[path = "policy/generate.rs"]
mod generate;
#[path = "policy/tap.rs"]
mod tap;
#[path = "common/uml.rs"]
mod uml;

use frame::{Mark, encode};
use generate::{NETWORKS, PORTS, Random, Towards, mac, port_id};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};
use tap::{HostSocket, Tap};
use uml::{on_uml, sh};
use vmfabric::{
    backend::Driver,
    datapath::{Connection, Family, Tuple, TupleUpper},
    diff::{Scope, diff},
    driver::kernel::KernelDriver,
    intent::{HostConfig, Intent, Protection},
    net::{IfName, MacAddr},
    planner::{Input, plan},
    policy::{IpPacket, Packet, Payload, Peer, Policy, State, Step, Upper, Verdict, packet::TCP, revoked},
};

/// Policies of a run.
const POLICIES: usize = 1000;
/// Frames for each.
const FRAMES: usize = 30;
/// The world beyond the host.
const OUTSIDE: &str = "out0";

fn link(name: &str) -> IfName {
    name.parse().expect("a link's name")
}

/// The host, with the guests' ends of their taps.
struct House {
    driver: KernelDriver,
    attachments: BTreeMap<vmfabric::intent::PortId, IfName>,
    taps: BTreeMap<usize, Tap>,
    outside: Tap,
    sockets: BTreeMap<usize, HostSocket>,
    /// This host's MAC address on each network that it routes.
    host: BTreeMap<usize, MacAddr>,
    sent: u32,
    /// Whether what is loaded tracks connections: where no port's groups are stateful nobody asks for it.
    tracks: bool,
}

/// `IPS_SEEN_REPLY` (kernel nf_conntrack_common.h).
const SEEN_REPLY: u32 = 2;

/// A connection that was answered, and the frame that opened it.
#[derive(Debug)]
struct Stream {
    zone: u16,
    from: usize,
    to: usize,
    first: Packet,
}

impl Stream {
    /// Whether a connection is this one.
    fn is(&self, connection: &Connection) -> bool {
        let Some(inner) = self.first.ip() else { return false };
        let Upper::Ports { protocol, source, destination, .. } = inner.upper else { return false };
        let upper = TupleUpper::Ports { source, destination };
        connection.zone == self.zone
            && connection.protocol == protocol
            && connection.original == Tuple { source: inner.source, destination: inner.destination, upper }
    }

    /// A frame from the midst of it.
    fn next(&self) -> Packet {
        let mut packet = self.first.clone();
        if let Payload::Ip(inner) = &mut packet.payload
            && let Upper::Ports { protocol: TCP, opens, .. } = &mut inner.upper
        {
            *opens = false;
        }
        packet
    }
}

/// What became of streams when the policy changed.
#[derive(Debug, Default)]
struct Outcome {
    kept: usize,
    ended: usize,
    /// Connection tracking took no answer of theirs for one.
    unanswered: usize,
}

/// Who got a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Port(usize),
    Outside,
}

impl House {
    async fn build(intent: &Intent) -> Self {
        let taps: BTreeMap<usize, Tap> = PORTS.iter().map(|(n, ..)| (*n, Tap::open(&format!("vnet{n}")))).collect();
        let outside = Tap::open(OUTSIDE);
        sh("ip link set lo up
            ip link set out0 address 52:54:00:00:99:01 up; ip address add 198.51.100.1/24 dev out0
            ip route add default via 198.51.100.2
            for n in 2 3; do ip neigh replace 198.51.100.$n lladdr 52:54:00:00:99:0$n dev out0 nud permanent; done
            sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 \
              net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.icmp_ratemask=0");
        let attachments = PORTS.iter().map(|(n, ..)| (port_id(*n), link(&format!("vnet{n}")))).collect();
        let driver = KernelDriver::new().expect("a driver");
        let mut house = Self {
            driver,
            attachments,
            taps,
            outside,
            sockets: BTreeMap::new(),
            host: BTreeMap::new(),
            sent: 0,
            tracks: false,
        };
        house.settle(intent).await;
        // Frames for whomever flood, so that each port's filter sees all of them.
        sh("for n in 1 2 3 4; do ip link set vmf-n$n type bridge mcast_snooping 0; done
            for n in 11 12 13 14 21 22 23 31 32 41 42; do ip link set vnet$n type bridge_slave learning off; done");
        for (n, network, address) in PORTS {
            if let (1 | 3, Some(address)) = (network, address) {
                sh(&format!("ip neigh replace {address} lladdr {} dev vmf-n{network} nud permanent", mac(n)));
            }
        }
        let observed = house.driver.observe().await.expect("observed");
        for network in NETWORKS {
            house.sockets.insert(network, HostSocket::open(&format!("vmf-n{network}")));
            let bridge = &observed.datapath.links[&link(&format!("vmf-n{network}"))];
            house.host.extend(bridge.mac.filter(|_| matches!(network, 1 | 3)).map(|mac| (network, mac)));
        }
        house
    }

    /// Loads a policy, as the daemon's full pass would.
    async fn settle(&mut self, intent: &Intent) {
        self.load(intent).await;
        self.forget().await;
    }

    async fn load(&mut self, intent: &Intent) {
        // Now and then a second look: it must find nothing to do.
        let rounds = if self.sent.is_multiple_of(7) { 2 } else { 1 };
        for round in 0..rounds {
            let observed = self.driver.observe().await.expect("observed");
            let input = Input {
                intent,
                host: &HostConfig::default(),
                attachments: &self.attachments,
                observed: &observed,
                previous: &BTreeMap::new(),
                delegated: &[],
            };
            let mut plan = plan(input);
            assert!(plan.problems.is_empty(), "{:?}", plan.problems);
            let told = self.driver.listed(&plan.desired.tables).await.expect("the kernel takes the tables");
            for (family, table) in &mut plan.desired.tables {
                for (name, set) in &mut table.sets {
                    set.spec.listed.clone_from(&told[family].sets[name].spec.listed);
                }
                for (name, rules) in &mut table.chains {
                    rules.listed.clone_from(&told[family].chains[name].listed);
                }
            }
            self.tracks = plan.desired.tables[&Family::Bridge].chains.contains_key("tracking");
            let changes = diff(&observed.datapath, &plan.desired, Scope::Full);
            assert!(round == 0 || changes.is_empty(), "it does not stick: {}", changes[0]);
            self.driver.apply(&changes).await.expect("applied");
        }
    }

    /// Ends all connections.
    async fn forget(&mut self) {
        let zones: BTreeSet<u16> = (0..=4).collect();
        let connections = self.driver.connections(&zones).await.expect("listed");
        self.driver.delete_connections(&connections).await.expect("ended");
        assert!(self.driver.connections(&zones).await.expect("listed").is_empty(), "connections outlive their end");
    }

    /// Ends what the loaded policy does not allow any more, and sends on all streams: what was ended must not come back
    /// to life from either side.
    async fn revoke(
        &mut self,
        intent: &Intent,
        policy: &Policy<'_>,
        streams: &[Stream],
        faults: &mut Vec<String>,
    ) -> Outcome {
        let host = ["10.1.0.1", "10.3.0.1", "198.51.100.1"].map(generate::ip).into();
        let connections = self.driver.connections(&(0..=4).collect()).await.expect("listed");
        let ended: Vec<Connection> = revoked(policy, &connections, &host).into_iter().cloned().collect();
        let done = self.driver.delete_connections(&ended).await.expect("ended");
        assert_eq!(done, ended.len(), "a connection could not be ended");
        let (mut kept, mut unanswered) = (0, 0);
        for stream in streams {
            let Some(connection) = connections.iter().find(|connection| stream.is(connection)) else {
                faults.push(format!("no connection of {stream:?}"));
                continue;
            };
            // Where no port's groups judge it, an answer passes that connection tracking did not take for one.
            if connection.status & SEEN_REPLY == 0 {
                unanswered += 1;
                continue;
            }
            let goes_on = !ended.iter().any(|connection| stream.is(connection));
            kept += usize::from(goes_on);
            let state = if goes_on { State::Established } else { State::New };
            let next = stream.next();
            let is_tcp = next.ip().is_some_and(|inner| inner.protocol() == TCP);
            let back = answer(&next).filter(|_| goes_on || is_tcp).map(|back| (stream.to, back));
            for (from, packet) in [(stream.from, next)].into_iter().chain(back) {
                if are_kept_apart(intent, from, &packet) {
                    continue;
                }
                let mark = self.mark();
                let wanted = expected(policy, from, &packet, Towards::Bridge, state);
                let got = self.reached(from, &encode(&packet, mark, false), mark, Towards::Bridge, &wanted);
                let revived = !goes_on && !got.is_empty();
                if got != wanted {
                    faults.push(format!("{stream:?} ({state:?}) from {from}: model {wanted:?}, kernel {got:?}"));
                }
                if revived {
                    // Nobody filters who sent it: whoever heard it made it a connection anew.
                    break;
                }
            }
        }
        Outcome { kept, ended: streams.len() - unanswered - kept, unanswered }
    }

    fn mark(&mut self) -> Mark {
        self.sent += 1;
        let [a, b, c, d] = self.sent.to_be_bytes();
        [0xfe, 0xed, 0xfa, 0xce, a, b, c, d]
    }

    fn drain(&mut self) {
        self.taps.values_mut().for_each(|tap| drop(tap.received()));
        drop(self.outside.received());
    }

    /// Sends, and gives who got it: the frame itself on a bridge, its payload where it was routed. Those who should have
    /// it get a while: softirqs may run late.
    fn reached(
        &mut self,
        from: usize,
        frame: &[u8],
        mark: Mark,
        towards: Towards,
        wanted: &BTreeSet<Place>,
    ) -> BTreeSet<Place> {
        self.drain();
        self.taps.get_mut(&from).expect("a tap").send(frame);
        self.who_got(from, frame, mark, towards, wanted)
    }

    /// The same for what the host sends on a network.
    fn reached_by_host(&mut self, network: usize, frame: &[u8], wanted: &BTreeSet<Place>) -> BTreeSet<Place> {
        self.drain();
        self.sockets[&network].send(frame);
        self.who_got(0, frame, [0; 8], Towards::Bridge, wanted)
    }

    fn who_got(
        &mut self,
        from: usize,
        frame: &[u8],
        mark: Mark,
        towards: Towards,
        wanted: &BTreeSet<Place>,
    ) -> BTreeSet<Place> {
        let is_it = |got: &Vec<u8>| match towards {
            Towards::Bridge => got.starts_with(frame),
            Towards::Host => got.windows(mark.len()).any(|window| window == mark),
        };
        let deadline = Instant::now() + Duration::from_secs(3);
        let mut places = BTreeSet::new();
        loop {
            for (n, tap) in &mut self.taps {
                if tap.received().iter().any(is_it) && *n != from {
                    places.insert(Place::Port(*n));
                }
            }
            if self.outside.received().iter().any(is_it) {
                places.insert(Place::Outside);
            }
            if places.is_superset(wanted) || Instant::now() > deadline {
                return places;
            }
            std::thread::yield_now();
        }
    }
}

/// Whom the model lets it reach.
fn expected(policy: &Policy<'_>, from: usize, packet: &Packet, towards: Towards, state: State) -> BTreeSet<Place> {
    let mut places = BTreeSet::new();
    match towards {
        Towards::Bridge => {
            for (n, ..) in PORTS.into_iter().filter(|(n, ..)| *n != from) {
                if policy.bridged(Peer::Port(port_id(from)), port_id(n), packet, state).is_allowed() {
                    places.insert(Place::Port(n));
                }
            }
        }
        Towards::Host => {
            let Verdict { steps, outcome } = policy.to_host(port_id(from), packet, state);
            let Some(Step::Routed { to, .. }) = steps.iter().find(|step| matches!(step, Step::Routed { .. })) else {
                return places;
            };
            if to.is_none() {
                places.extend(outcome.is_ok().then_some(Place::Outside));
                return places;
            }
            // As every frame here it floods, to whom it is for and to those that nothing filters.
            let Some(inner) = packet.ip() else { return places };
            let holder = PORTS.into_iter().find(|(_, network, address)| {
                [1, 3].contains(network) && address.is_some_and(|address| generate::ip(address) == inner.destination)
            });
            let Some((holder, network, _)) = holder else { return places };
            let routed = Packet { source: [2, 0, 0, 0, 0, 0], destination: mac(holder).octets(), ..packet.clone() };
            for (n, ..) in PORTS.into_iter().filter(|(n, of, _)| *of == network && *n != from) {
                if policy.bridged(Peer::Host, port_id(n), &routed, state).is_allowed() {
                    places.insert(Place::Port(n));
                }
            }
        }
    }
    places
}

/// The answer to a packet, as its receiver would send it; for those that have one.
fn answer(packet: &Packet) -> Option<Packet> {
    let inner = packet.ip()?;
    let upper = match inner.upper {
        Upper::Ports { protocol, source, destination, .. } => {
            Upper::Ports { protocol, source: destination, destination: source, opens: protocol != TCP }
        }
        Upper::Icmp { kind: 8, code, target, link_layer } if inner.source.is_ipv4() => {
            Upper::Icmp { kind: 0, code, target, link_layer }
        }
        Upper::Icmp { kind: 128, code, target, link_layer } if inner.source.is_ipv6() => {
            Upper::Icmp { kind: 129, code, target, link_layer }
        }
        _ => return None,
    };
    Some(Packet {
        source: packet.destination,
        destination: packet.source,
        tags: packet.tags.clone(),
        payload: Payload::Ip(IpPacket::new(inner.destination, inner.source, upper)),
    })
}

/// What the model has to say of a difference.
fn why(
    intent: &Intent,
    policy: &Policy<'_>,
    from: usize,
    packet: &Packet,
    wanted: &BTreeSet<Place>,
    got: &BTreeSet<Place>,
) -> String {
    let mut text = String::new();
    for place in wanted.symmetric_difference(got) {
        let Place::Port(n) = place else { continue };
        let verdict = policy.bridged(Peer::Port(port_id(from)), port_id(*n), packet, State::New);
        let security = |n| intent.port(port_id(n)).map(|port| &port.security);
        text += &format!("\n    to {n}: {verdict:?}\n      {:?}\n      {:?}", security(from), security(*n));
    }
    text
}

/// What the host sends below IP, and to one alone: no connection tracking sees it, and it must not be taken for what
/// belongs to no connection.
fn host_speaks(house: &mut House, policy: &Policy<'_>, network: usize, random: &mut Random, faults: &mut Vec<String>) {
    let ports: Vec<_> = PORTS.into_iter().filter(|(_, of, _)| *of == network).collect();
    let (n, _, address) = random.one(&ports);
    let source = [2, 0, 0, 0, 0, 0xfe];
    let packet =
        Packet { source, destination: mac(n).octets(), tags: Vec::new(), payload: generate::of_host(address, random) };
    let mark = house.mark();
    let hears = |n| policy.bridged(Peer::Host, port_id(n), &packet, State::New).is_allowed();
    let wanted: BTreeSet<Place> = ports.iter().filter(|(n, ..)| hears(*n)).map(|(n, ..)| Place::Port(*n)).collect();
    let got = house.reached_by_host(network, &encode(&packet, mark, false), &wanted);
    if got != wanted {
        faults.push(format!("the host to {n}: {packet:?}: model {wanted:?}, kernel {got:?}"));
    }
}

/// The filter lets a port that has a block of IPv6 addresses advertise any address (`nd_free`): sets of ranges are not
/// compared with what is inside a message.
fn advertises_from_block(intent: &Intent, from: usize, packet: &Packet) -> bool {
    let port = intent.port(port_id(from)).expect("there");
    let pairs = &port.security.address_pairs;
    let has_block = pairs.iter().any(|pair| pair.ip.addr().is_ipv6() && pair.ip.prefix_len() < 128);
    let upper = packet.ip().map(|inner| inner.upper);
    has_block && matches!(upper, Some(Upper::Icmp { kind: 135 | 136, .. }))
}

/// Through the gateway, isolated ports' addresses are kept apart; br_netfilter, which is on here, shows bridged frames to
/// that filter too, so that nobody overhears them either.
fn are_kept_apart(intent: &Intent, from: usize, packet: &Packet) -> bool {
    let port = intent.port(port_id(from)).expect("there");
    let network = intent.network(port.network).expect("there");
    let isolated = |address: IpAddr| {
        let mut ports = intent.ports_of(port.network);
        ports.any(|port| {
            let pairs = &port.security.address_pairs;
            let has = port.fixed_ips.iter().any(|ip| ip.address == address)
                || pairs.iter().any(|pair| pair.ip.contains(&address));
            has && Protection::of(&network.security, &port.security).isolated
        })
    };
    packet.ip().is_some_and(|inner| isolated(inner.source) && isolated(inner.destination))
}

/// What a port without port security sends through the host may be anything, which the host's IP stack has an opinion of
/// that no filter of ours has: martians, source routes, tags.
fn is_secured(intent: &Intent, from: usize) -> bool {
    intent.port(port_id(from)).expect("there").security.port_security != Some(false)
}

/// The rest never comes. What is tracked leaves frames for many to themselves; without it br_netfilter, which is on here,
/// has the kernel put their fragments together first.
fn waits_for_the_rest(packet: &Packet, tracks: bool) -> bool {
    !tracks && packet.ip().is_some_and(|inner| inner.fragment)
}

/// Whether ports tell one connection of two addresses from another.
fn tracked(inner: &IpPacket) -> bool {
    !matches!(inner.upper, Upper::Other(_))
}

#[test]
#[ignore = "needs root: starts a User Mode Linux host with bridge conntrack"]
fn the_kernel_judges_as_the_model() {
    let seed = std::env::var("VMFABRIC_SEED").unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        now.as_nanos().to_string()
    });
    println!("VMFABRIC_SEED={seed}");
    on_uml("the_kernel_judges_as_the_model", 900, &[("VMFABRIC_SEED", &seed)], || async {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seed = number("VMFABRIC_SEED").expect("a seed");
        let policies = number("VMFABRIC_POLICIES").map_or(POLICIES, |n| usize::try_from(n).expect("small"));
        let started = Instant::now();
        let mut random = Random(seed);
        let mut house = House::build(&generate::intent(&mut random)).await;
        let (mut frames, mut passed, mut answers, mut faults) = (0usize, 0usize, 0usize, Vec::new());
        let (mut streams, mut total) = (Vec::new(), Outcome::default());
        for round in 0..policies {
            let intent = generate::intent(&mut random);
            let policy = Policy::new(&intent, &BTreeSet::new());
            house.load(&intent).await;
            let outcome = house.revoke(&intent, &policy, &std::mem::take(&mut streams), &mut faults).await;
            total.kept += outcome.kept;
            total.ended += outcome.ended;
            total.unanswered += outcome.unanswered;
            house.forget().await;
            for network in NETWORKS {
                host_speaks(&mut house, &policy, network, &mut random, &mut faults);
            }
            let mut flows: BTreeSet<(IpAddr, IpAddr, u8, usize)> = BTreeSet::new();
            for _ in 0..FRAMES {
                let (from, network, _) = random.one(&PORTS);
                let (packet, towards) = generate::packet(from, house.host.get(&network).copied(), &mut random);
                if let Some(inner) = packet.ip().filter(|inner| !tracked(inner)) {
                    // A protocol without ports has one connection between two addresses. Behind NAT all guests have the
                    // host's: of two that speak to one address, the kernel drops the second.
                    let (zone, a, b) = match towards {
                        Towards::Host => (0, inner.destination, inner.destination),
                        Towards::Bridge => {
                            (network, inner.source.min(inner.destination), inner.source.max(inner.destination))
                        }
                    };
                    if !flows.insert((a, b, inner.protocol(), zone)) {
                        continue;
                    }
                }
                if advertises_from_block(&intent, from, &packet)
                    || are_kept_apart(&intent, from, &packet)
                    || towards == Towards::Host && !is_secured(&intent, from)
                    || waits_for_the_rest(&packet, house.tracks)
                {
                    continue;
                }
                let mark = house.mark();
                let wanted = expected(&policy, from, &packet, towards, State::New);
                let got = house.reached(from, &encode(&packet, mark, false), mark, towards, &wanted);
                frames += 1;
                passed += usize::from(!got.is_empty());
                if got != wanted {
                    if faults.is_empty() && std::env::var_os("VMFABRIC_SHOW").is_some() {
                        sh("nft -s list table bridge vmfabric; nft -s list table inet vmfabric");
                    }
                    let why = why(&intent, &policy, from, &packet, &wanted, &got);
                    let seen = format!("model {wanted:?}, kernel {got:?}");
                    faults.push(format!("policy {round}: port {from}, {packet:?} ({towards:?}): {seen}{why}"));
                    continue;
                }
                // Its receiver answers; and where it was stopped, the other side tries to be taken for one that does.
                let receiver =
                    PORTS.into_iter().find(|(n, of, _)| mac(*n).octets() == packet.destination && *of == network);
                if let (Towards::Bridge, Some((to, ..)), Some(back)) = (towards, receiver, answer(&packet)) {
                    let state = if got.contains(&Place::Port(to)) { State::Established } else { State::New };
                    if state == State::New && !got.is_empty() {
                        // Somebody else on the bridge heard it, so that the kernel knows the connection.
                        continue;
                    }
                    let mark = house.mark();
                    let mut wanted = expected(&policy, to, &back, towards, state);
                    wanted.retain(|place| *place != Place::Port(to));
                    let back_frame = encode(&back, same_id(&packet, mark, house.sent - 1), true);
                    let got = house.reached(to, &back_frame, mark, towards, &wanted);
                    answers += 1;
                    // No guest opens connections to a group's address.
                    let many = packet.ip().is_some_and(|inner| match inner.destination {
                        IpAddr::V4(address) => address.is_broadcast() || address.is_multicast(),
                        IpAddr::V6(address) => address.is_multicast(),
                    });
                    let has_ports = matches!(back.ip().map(|inner| inner.upper), Some(Upper::Ports { .. }));
                    if got == wanted && state == State::Established && has_ports && !many && house.tracks {
                        streams.push(Stream {
                            zone: u16::try_from(network).expect("small"),
                            from,
                            to,
                            first: packet.clone(),
                        });
                    }
                    if got != wanted {
                        faults.push(format!(
                            "policy {round}: port {to} answers {back:?} ({state:?}): model {wanted:?}, kernel {got:?}"
                        ));
                    }
                }
            }
            if faults.len() > 20 {
                break;
            }
        }
        println!(
            "seed {seed}: {policies} policies, {frames} frames of which {passed} passed, {answers} answers; of connections \
             {} went on after a change and {} ended; in {:?}",
            total.kept,
            total.ended,
            started.elapsed()
        );
        assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
        assert!(policies < 50 || total.kept > 0 && total.ended > 0, "no connection met a change");
        assert!(policies < 50 || total.unanswered * 10 < total.kept + total.ended, "too few were answered: {total:?}");
        assert!(passed * 10 > frames && passed < frames, "a test of one kind of verdict tells nothing");
    });
}

/// An echo reply has the identifier of its request.
fn same_id(packet: &Packet, mark: Mark, sent: u32) -> Mark {
    let is_icmp = packet.ip().is_some_and(|inner| matches!(inner.upper, Upper::Icmp { .. }));
    let [a, b, c, d] = sent.to_be_bytes();
    if is_icmp { [0xfe, 0xed, 0xfa, 0xce, a, b, c, d] } else { mark }
}
