use super::{testing::*, *};
use crate::net::DnsLabel;
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, OptionCode, UnknownOption, relay};
use std::net::{Ipv4Addr, SocketAddrV4};

const ACK: MessageType = MessageType::Ack;
const NAK: MessageType = MessageType::Nak;

#[test]
fn a_dora_stores_the_lease_before_the_ack_leaves() {
    let mut engine = engine(scope(200, &[]));
    let offer = submit(&mut engine, 9, &discover(9), NOW);
    assert_eq!(offer.reply(), Some((MessageType::Offer, ip(100))));
    assert!(offer.commits.is_empty());
    let mut request = submit(&mut engine, 9, &select(9, ip(100)), NOW);
    assert!(request.sent.is_empty());
    let commit = request.commits.pop().expect("a lease to store");
    assert_eq!(*commit.change(), LeaseChange::Put(lease(100, 9, NOW + u64::from(LEASE_TIME))));

    // The client asks again meanwhile: nothing is stored twice, and one ACK answers both.
    let again = submit(&mut engine, 9, &select(9, ip(100)), NOW + 1);
    assert!(again.sent.is_empty() && again.commits.is_empty());
    request.add(engine.confirm(commit, NOW + 1));
    assert_eq!(request.reply(), Some((ACK, ip(100))));
    assert!(matches!(request.events[..], [Event::LeaseGranted(_)]));
    assert_eq!(request.sent[0].1.destination, Destination::Unicast { address: ip(100), mac: mac(9) });
    assert_eq!(engine.leased(), 1);
}

#[test]
fn a_grant_that_cannot_be_stored_is_undone() {
    let mut engine = engine(scope(100, &[]));
    let mut first = submit(&mut engine, 9, &select(9, ip(100)), NOW);
    assert!(engine.abandon(first.commits.pop().expect("a lease"), NOW).is_empty());
    assert_eq!(engine.leased(), 0);
    assert_eq!(acquire(&mut engine, 8, NOW), Some(ip(100)));

    // A renewal that cannot be stored leaves the lease as it was.
    let mut renewal = submit(&mut engine, 8, &renew(8, ip(100)), NOW + 1_800);
    assert!(engine.abandon(renewal.commits.pop().expect("a lease"), NOW + 1_800).is_empty());
    assert_eq!(engine.next_deadline(), Some(NOW + 3_600 + 10));
}

#[test]
fn an_ack_that_took_too_long_is_not_sent() {
    let mut engine = engine(scope(200, &[]));
    let mut request = submit(&mut engine, 9, &select(9, ip(100)), NOW);
    let commit = request.commits.pop().expect("a lease");
    request.add(engine.confirm(commit, NOW + 60));
    assert!(request.sent.is_empty());
    assert_eq!(exchange(&mut engine, 9, &select(9, ip(100)), NOW + 61).reply(), Some((ACK, ip(100))));
}

#[test]
fn the_reserved_address_always_wins() {
    let mut engine = engine(scope(200, &[(7, 50), (6, 101)]));
    assert_eq!(acquire(&mut engine, 7, NOW), Some(ip(50)));
    assert_eq!(exchange(&mut engine, 7, &init_reboot(7, ip(60)), NOW).reply(), Some((NAK, Ipv4Addr::UNSPECIFIED)));
    assert_eq!(acquire(&mut engine, 9, NOW), Some(ip(100)));
    assert_eq!(acquire(&mut engine, 8, NOW), Some(ip(102)));
    assert_eq!(exchange(&mut engine, 9, &select(9, ip(101)), NOW).reply(), Some((NAK, Ipv4Addr::UNSPECIFIED)));

    // A client identifier does not matter to a reservation, nor can it take one.
    let mut posing = discover(5);
    posing.opts_mut().insert(DhcpOption::ClientIdentifier(ClientKey::hardware(mac(7)).as_bytes().to_vec()));
    assert_eq!(exchange(&mut engine, 5, &posing, NOW).reply(), Some((MessageType::Offer, ip(103))));

    // A reservation that is made later takes the address from whoever leased it.
    let mut update = Outcome::default();
    update.add(engine.update(scope(200, &[(7, 50), (4, 100)]), NOW));
    let commit = update.commits.pop().expect("a removal");
    assert_eq!(commit.change().lease().address, ip(100));
    assert!(update.commits.is_empty());
    update.add(engine.confirm(commit, NOW));
    assert!(matches!(&update.events[..], [Event::LeaseDropped(lease)] if lease.mac == mac(9)));
    assert_eq!(acquire(&mut engine, 4, NOW), Some(ip(100)));
    assert_eq!(exchange(&mut engine, 9, &renew(9, ip(100)), NOW).reply(), Some((NAK, Ipv4Addr::UNSPECIFIED)));
    assert_eq!(exchange(&mut engine, 8, &renew(8, ip(102)), NOW + 900).reply(), Some((ACK, ip(102))));
}

#[test]
fn unknown_clients_hear_nothing_where_the_subnet_is_not_dynamic() {
    let mut scope = scope(200, &[(7, 50)]);
    scope.subnets[0].dynamic = false;
    let mut engine = engine(scope);
    let inform = {
        let mut m = message(9, MessageType::Inform, &[]);
        m.set_ciaddr(ip(9));
        m
    };
    for m in [discover(9), select(9, ip(100)), init_reboot(9, ip(100)), renew(9, Ipv4Addr::new(9, 9, 9, 9)), inform] {
        let outcome = submit(&mut engine, 9, &m, NOW);
        assert!(outcome.sent.is_empty() && outcome.commits.is_empty() && outcome.events.is_empty());
    }
    assert_eq!(acquire(&mut engine, 7, NOW), Some(ip(50)));
}

#[test]
fn init_reboot_follows_rfc_2131_section_4_3_2() {
    let mut engine = engine(scope(200, &[]));
    assert_eq!(acquire(&mut engine, 9, NOW), Some(ip(100)));
    let mut ask = |client, address| exchange(&mut engine, client, &init_reboot(client, address), NOW + 60).reply();
    assert_eq!(ask(9, ip(100)), Some((ACK, ip(100))));
    assert_eq!(ask(9, ip(120)), Some((NAK, Ipv4Addr::UNSPECIFIED)), "known, but with another address");
    assert_eq!(ask(8, ip(120)), None, "no record of this client");
    assert_eq!(ask(8, Ipv4Addr::new(192, 168, 7, 7)), Some((NAK, Ipv4Addr::UNSPECIFIED)), "wrong network");
}

#[test]
fn a_renewing_client_keeps_its_address_and_a_lost_lease_is_taken_up_again() {
    let mut engine = engine(scope(200, &[]));
    let address = acquire(&mut engine, 9, NOW).expect("an address");
    let renewed = exchange(&mut engine, 9, &renew(9, address), NOW + 1_800);
    assert_eq!(renewed.reply(), Some((ACK, address)));
    assert_eq!(renewed.option(OptionCode::AddressLeaseTime), Some(DhcpOption::AddressLeaseTime(LEASE_TIME)));
    assert_eq!(renewed.option(OptionCode::Renewal), Some(DhcpOption::Renewal(1_800)));
    assert_eq!(renewed.option(OptionCode::Rebinding), Some(DhcpOption::Rebinding(3_150)));
    assert_eq!(exchange(&mut engine, 8, &renew(8, address), NOW).reply(), Some((NAK, Ipv4Addr::UNSPECIFIED)));
    assert_eq!(exchange(&mut engine, 8, &renew(8, ip(150)), NOW).reply(), Some((ACK, ip(150))));
}

#[test]
fn a_repeated_request_costs_no_write() {
    let mut engine = engine(scope(200, &[]));
    let address = acquire(&mut engine, 9, NOW).expect("an address");
    let again = submit(&mut engine, 9, &select(9, address), NOW + 20);
    assert_eq!(again.reply(), Some((ACK, address)));
    assert_eq!(again.option(OptionCode::AddressLeaseTime), Some(DhcpOption::AddressLeaseTime(LEASE_TIME - 20)));
    assert!(again.commits.is_empty());
    assert_eq!(submit(&mut engine, 9, &select(9, address), NOW + 31).commits.len(), 1);
}

#[test]
fn leases_survive_a_restart_and_run_out() {
    let held = vec![lease(120, 9, NOW + 500), lease(121, 8, NOW - 500), lease(9, 6, NOW + 500)];
    let (mut engine, outputs) = Engine::new(scope(200, &[]), held, NOW);
    assert!(
        matches!(&outputs[..], [Output::Persist(c)] if matches!(c.change(), LeaseChange::Remove(l) if l.mac == mac(6)))
    );
    assert_eq!(exchange(&mut engine, 9, &init_reboot(9, ip(120)), NOW).reply(), Some((ACK, ip(120))));
    assert_eq!(acquire(&mut engine, 8, NOW), Some(ip(121)), "its old address, although the lease ran out");
    assert_eq!(engine.next_deadline(), Some(NOW + 3_610));
    let mut ends = Outcome::default();
    ends.add(engine.tick(NOW + 3_610));
    assert_eq!(ends.events.len(), 2);
    assert!(ends.commits.is_empty());
    assert_eq!((engine.leased(), engine.next_deadline()), (0, None));
}

#[test]
fn an_exhausted_pool_is_reported_once() {
    let mut engine = engine(scope(101, &[]));
    assert!(acquire(&mut engine, 20, NOW).is_some() && acquire(&mut engine, 21, NOW).is_some());
    let events: Vec<Event> = (22..90).flat_map(|c| exchange(&mut engine, c, &discover(c), NOW).events).collect();
    assert!(matches!(events[..], [Event::PoolExhausted { .. }]));
    let freed = exchange(&mut engine, 20, &release(20, ip(100)), NOW).events;
    assert!(matches!(freed[..], [Event::LeaseReleased(_), Event::PoolRecovered { .. }]), "{freed:?}");
    assert_eq!(acquire(&mut engine, 30, NOW), Some(ip(100)));
}

#[test]
fn the_address_that_is_free_for_longest_is_given_first() {
    let mut engine = engine(scope(102, &[]));
    for client in 20..23 {
        assert!(acquire(&mut engine, client, NOW).is_some());
    }
    exchange(&mut engine, 21, &release(21, ip(101)), NOW + 1);
    exchange(&mut engine, 20, &release(20, ip(100)), NOW + 2);
    assert_eq!(acquire(&mut engine, 20, NOW + 3), Some(ip(100)), "its own");
    assert_eq!(acquire(&mut engine, 23, NOW + 4), Some(ip(101)));
}

#[test]
fn a_declined_address_rests() {
    let mut engine = engine(scope(107, &[(7, 50)]));
    let address = acquire(&mut engine, 9, NOW).expect("an address");
    assert!(matches!(exchange(&mut engine, 9, &decline(9, address), NOW).events[..], [Event::AddressDeclined(_)]));
    assert_ne!(acquire(&mut engine, 9, NOW), Some(address));
    assert!(exchange(&mut engine, 8, &decline(8, ip(101)), NOW).events.is_empty(), "not its own");
    // A reserved one stays its port's.
    assert_eq!(acquire(&mut engine, 7, NOW), Some(ip(50)));
    assert!(matches!(exchange(&mut engine, 7, &decline(7, ip(50)), NOW).events[..], [Event::AddressDeclined(_)]));
    assert_eq!(acquire(&mut engine, 7, NOW), Some(ip(50)));
    // A client that declines all that it is offered cannot empty the pool.
    for _ in 0..50 {
        if let Some(address) = acquire(&mut engine, 6, NOW) {
            exchange(&mut engine, 6, &decline(6, address), NOW);
        }
    }
    assert!(acquire(&mut engine, 5, NOW).is_some());
}

#[test]
fn a_release_during_the_grant_is_done_after_it() {
    let mut engine = engine(scope(200, &[]));
    let mut outcome = submit(&mut engine, 9, &select(9, ip(100)), NOW);
    let put = outcome.commits.pop().expect("a lease");
    let released = submit(&mut engine, 9, &release(9, ip(100)), NOW);
    assert!(released.commits.is_empty());
    outcome.add(engine.confirm(put, NOW));
    assert!(outcome.sent.is_empty());
    let remove = outcome.commits.pop().expect("a removal");
    assert!(matches!(remove.change(), LeaseChange::Remove(_)));
    outcome.add(engine.confirm(remove, NOW));
    assert!(matches!(outcome.events[..], [Event::LeaseGranted(_), Event::LeaseReleased(_)]));
    assert_eq!(acquire(&mut engine, 8, NOW), Some(ip(101)));
}

#[test]
fn another_servers_offer_frees_ours() {
    let mut engine = engine(scope(100, &[]));
    exchange(&mut engine, 9, &discover(9), NOW);
    assert_eq!(acquire(&mut engine, 8, NOW), None);
    let mut other = select(9, ip(77));
    other.opts_mut().insert(DhcpOption::ServerIdentifier(ip(250)));
    assert_eq!(exchange(&mut engine, 9, &other, NOW).reply(), None);
    assert_eq!(acquire(&mut engine, 8, NOW), Some(ip(100)));
}

#[test]
fn the_client_identifier_names_the_client() {
    let mut engine = engine(scope(200, &[]));
    let with_id = |client, mut m: dhcproto::v4::Message| {
        m.opts_mut().insert(DhcpOption::ClientIdentifier(vec![0, 1, 2, client]));
        m
    };
    let first = exchange(&mut engine, 9, &with_id(1, discover(9)), NOW);
    assert_eq!(first.option(OptionCode::ClientIdentifier), Some(DhcpOption::ClientIdentifier(vec![0, 1, 2, 1])));
    let second = exchange(&mut engine, 9, &with_id(2, discover(9)), NOW);
    let same = exchange(&mut engine, 8, &with_id(1, discover(8)), NOW);
    assert_ne!(first.reply(), second.reply());
    assert_eq!(first.reply(), same.reply());
}

#[test]
fn a_frame_from_another_mac_is_ignored() {
    let mut engine = engine(scope(200, &[]));
    let address = acquire(&mut engine, 9, NOW).expect("an address");
    for m in [discover(9), init_reboot(9, address), release(9, address), decline(9, address)] {
        assert!(submit(&mut engine, 8, &m, NOW).sent.is_empty());
    }
    assert_eq!((engine.stats().spoofed, engine.leased()), (4, 1));
}

#[test]
fn relays_are_served_where_the_scope_names_them() {
    let mut engine = engine(scope(200, &[]));
    let mut relayed = discover(9);
    let mut info = relay::RelayAgentInformation::default();
    info.insert(relay::RelayInfo::AgentCircuitId(vec![1, 2, 3]));
    relayed.set_giaddr(ip(3)).opts_mut().insert(DhcpOption::RelayAgentInformation(info.clone()));
    let offer = submit(&mut engine, 3, &relayed, NOW);
    assert_eq!(offer.reply(), Some((MessageType::Offer, ip(100))));
    assert_eq!(offer.sent[0].1.destination, Destination::Relay { address: ip(3), mac: mac(3) });
    assert_eq!(offer.option(OptionCode::RelayAgentInformation), Some(DhcpOption::RelayAgentInformation(info)));
    relayed.set_giaddr(ip(4));
    assert!(submit(&mut engine, 3, &relayed, NOW).sent.is_empty());
}

#[test]
fn options_are_what_the_client_asks_for() {
    let mut engine = engine(scope(200, &[(7, 50)]));
    let all = exchange(&mut engine, 7, &discover(7), NOW);
    let routes =
        vec![("172.16.0.0/12".parse().expect("a prefix"), ip(2)), ("0.0.0.0/0".parse().expect("a prefix"), SERVER)];
    for option in [
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![SERVER]),
        DhcpOption::DomainNameServer(vec![SERVER]),
        DhcpOption::DomainName("lab.example".into()),
        DhcpOption::DomainSearch(vec!["lab.example.".parse().expect("a name")]),
        DhcpOption::InterfaceMtu(1_450),
        DhcpOption::Hostname("guest7".into()),
        DhcpOption::ClasslessStaticRoute(routes),
        DhcpOption::ServerIdentifier(SERVER),
        DhcpOption::AddressLeaseTime(LEASE_TIME),
    ] {
        assert_eq!(all.option(OptionCode::from(&option)), Some(option));
    }
    let wish = DhcpOption::ParameterRequestList(vec![OptionCode::Router, OptionCode::NtpServers, OptionCode::Router]);
    let some = exchange(&mut engine, 7, &message(7, MessageType::Discover, &[wish]), NOW);
    assert!(some.option(OptionCode::SubnetMask).is_some() && some.option(OptionCode::Router).is_some());
    assert!(some.option(OptionCode::DomainNameServer).is_none() && some.option(OptionCode::NtpServers).is_none());
}

#[test]
fn replies_fit_576_bytes_unless_the_client_takes_more() {
    let mut scope = scope(200, &[]);
    let route = |i: u8| (format!("172.16.{i}.0/24").parse().expect("a prefix"), ip(2));
    scope.subnets[0].host_routes = (0..100).map(route).collect();
    let mut engine = engine(scope);
    let size = |engine: &mut Engine, options: &[DhcpOption]| {
        let outcome = exchange(engine, 9, &message(9, MessageType::Discover, options), NOW);
        (outcome.sent[0].1.payload.len(), outcome.option(OptionCode::ClasslessStaticRoute).is_some())
    };
    let (length, routes) = size(&mut engine, &[]);
    assert!(length <= 548 && !routes);
    let (length, routes) = size(&mut engine, &[DhcpOption::MaxMessageSize(1_400)]);
    assert!(length > 548 && length <= 1_372 && routes);
    let (length, _) = size(&mut engine, &[DhcpOption::MaxMessageSize(0)]);
    assert!(length <= 548);
}

#[test]
fn replies_go_where_the_client_can_hear_them() {
    let mut engine = engine(scope(200, &[]));
    let to = |engine: &mut Engine, m: &dhcproto::v4::Message| exchange(engine, 9, m, NOW).sent[0].1.destination;
    let mut flagged = discover(9);
    flagged.set_flags(Flags::default().set_broadcast());
    assert_eq!(to(&mut engine, &flagged), Destination::Broadcast);
    assert_eq!(to(&mut engine, &select(9, ip(100))), Destination::Unicast { address: ip(100), mac: mac(9) });
    assert_eq!(to(&mut engine, &select(9, ip(99))), Destination::Broadcast);
    let mut inform = message(9, MessageType::Inform, &[]);
    inform.set_ciaddr(ip(40));
    let answer = exchange(&mut engine, 9, &inform, NOW);
    assert_eq!(answer.reply(), Some((ACK, Ipv4Addr::UNSPECIFIED)));
    assert_eq!(answer.sent[0].1.destination, Destination::Unicast { address: ip(40), mac: mac(9) });
    assert_eq!(answer.option(OptionCode::AddressLeaseTime), None);
}

#[test]
fn the_clients_name_is_kept_if_it_is_one() {
    let mut engine = engine(scope(200, &[]));
    let fqdn = |flags: u8, name: &[u8]| {
        let data = [&[flags, 0, 0][..], name].concat();
        DhcpOption::Unknown(UnknownOption::new(OptionCode::ClientFQDN, data))
    };
    for (client, options, name) in [
        (20, vec![DhcpOption::Hostname("Web-1.lab".into())], Some("web-1")),
        (21, vec![DhcpOption::Hostname("no_name".into())], None),
        (22, vec![DhcpOption::Hostname("other".into()), fqdn(4, b"\x02db\x03lab\x00")], Some("db")),
        (23, vec![fqdn(0, b"mail.lab")], Some("mail")),
        (24, vec![fqdn(4, b"\x3fshort")], None),
    ] {
        let mut request = select(client, ip(client + 100));
        options.iter().for_each(|o| drop(request.opts_mut().insert(o.clone())));
        let outcome = submit(&mut engine, client, &request, NOW);
        let stored = outcome.commits[0].change().lease().host_name.clone();
        assert_eq!(stored.as_ref().map(DnsLabel::as_str), name, "client {client}");
    }
}

#[test]
fn malformed_packets_are_counted() {
    let mut engine = engine(scope(200, &[]));
    let sound = bytes(&discover(9));
    let mut bad = vec![Vec::new(), vec![0; 239], vec![0xff; 300], sound[..240].to_vec()];
    for (at, value) in [(0, 2), (1, 6), (2, 16), (2, 255), (28, 0xff), (236, 0), (241, 0), (241, 255), (242, 99)] {
        let mut packet = sound.clone();
        packet[at] = value;
        bad.push(packet);
    }
    let count = bad.len() as u64;
    for packet in bad {
        assert!(engine.handle(&packet, sender(9), NOW).is_empty());
    }
    assert_eq!(engine.stats().malformed, count);
}

#[test]
fn what_guests_can_grow_has_limits() {
    let mut engine = small(scope(250, &[]));
    for client in 1..=255 {
        exchange(&mut engine, client, &discover(client), NOW);
    }
    // The last four offers stand; the first ones are forgotten, not their addresses.
    assert_eq!(exchange(&mut engine, 255, &select(255, ip(100)), NOW).reply().map(|(kind, _)| kind), Some(ACK));
    assert!(engine.tick(NOW + 60).is_empty());
    assert_eq!(engine.next_deadline(), Some(NOW + 3_610));
}

#[test]
fn rapid_commit_needs_no_request() {
    let mut engine = engine(scope(110, &[]));
    let mut wish = discover(20);
    wish.opts_mut().insert(DhcpOption::RapidCommit);
    let outcome = exchange(&mut engine, 20, &wish, NOW);
    assert_eq!(outcome.reply(), Some((ACK, ip(100))));
    assert_eq!(outcome.option(OptionCode::RapidCommit), Some(DhcpOption::RapidCommit));
    // Where another server may answer, it is an offer as any.
    let mut shared = scope(110, &[]);
    shared.rapid_commit = false;
    let _ = engine.update(shared, NOW);
    let mut wish = discover(21);
    wish.opts_mut().insert(DhcpOption::RapidCommit);
    assert_eq!(exchange(&mut engine, 21, &wish, NOW).reply(), Some((MessageType::Offer, ip(101))));
}

#[test]
fn a_lease_may_have_no_end() {
    let mut scope = scope(110, &[]);
    scope.subnets[0].lease_time = std::time::Duration::from_secs(INFINITE.into());
    let (mut engine, _) = Engine::new(scope.clone(), Vec::new(), NOW);
    assert_eq!(acquire(&mut engine, 20, NOW), Some(ip(100)));
    let outcome = exchange(&mut engine, 20, &renew(20, ip(100)), NOW + 1_000_000_000);
    for (code, option) in [
        (OptionCode::AddressLeaseTime, DhcpOption::AddressLeaseTime(INFINITE)),
        (OptionCode::Renewal, DhcpOption::Renewal(INFINITE)),
        (OptionCode::Rebinding, DhcpOption::Rebinding(INFINITE)),
    ] {
        assert_eq!(outcome.option(code), Some(option));
    }
    assert_eq!((engine.next_deadline(), engine.leased()), (None, 1));
    assert!(engine.tick(NEVER - 1).is_empty());
    // A client may want less.
    let mut less = renew(20, ip(100));
    less.opts_mut().insert(DhcpOption::AddressLeaseTime(600));
    let outcome = exchange(&mut engine, 20, &less, NOW);
    assert_eq!(outcome.option(OptionCode::AddressLeaseTime), Some(DhcpOption::AddressLeaseTime(600)));
    // From the store as well.
    let mut held = lease(100, 20, NEVER);
    held.host_name = None;
    let (engine, _) = Engine::new(scope, vec![held], NOW);
    assert_eq!((engine.next_deadline(), engine.leased()), (None, 1));
}

fn boot_scope() -> Scope {
    let mut scope = scope(110, &[(1, 50)]);
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a rule")).collect();
    scope.subnets[0].boot = rules(&[
        "server=10.0.0.9",
        "bios=undionly.kpxe",
        "uefi-x64=snponly.efi",
        "ipxe=http://10.0.0.9/boot.ipxe",
        "http-x64=http://10.0.0.9/boot.efi",
    ]);
    scope.hosts[0].boot = rules(&["bios=own.kpxe"]);
    scope
}

fn boot(client: u8, class: &[u8], arch: u16, user: Option<&[u8]>) -> Message {
    let mut message = discover(client);
    message.opts_mut().insert(DhcpOption::ClassIdentifier(class.to_vec()));
    message.opts_mut().insert(DhcpOption::ClientSystemArchitecture(arch.into()));
    message.opts_mut().insert(DhcpOption::ClientMachineIdentifier(vec![0; 17]));
    if let Some(user) = user {
        message.opts_mut().insert(DhcpOption::UserClass(user.to_vec()));
    }
    message
}

#[test]
fn each_machine_is_told_its_boot_file() {
    let pxe = b"PXEClient:Arch:00000:UNDI:002001";
    let http = b"HTTPClient:Arch:00016:UNDI:003016";
    type Case<'a> = (u8, &'a [u8], u16, Option<&'a [u8]>, &'a str);
    let cases: [Case<'_>; 8] = [
        (20, pxe, 0, None, "undionly.kpxe"),
        (1, pxe, 0, None, "own.kpxe"),
        (1, pxe, 7, None, "snponly.efi"),
        (21, pxe, 9, None, "snponly.efi"),
        (22, pxe, 0, Some(b"iPXE"), "http://10.0.0.9/boot.ipxe"),
        (23, pxe, 7, Some(b"\x04iPXE"), "http://10.0.0.9/boot.ipxe"),
        (24, http, 16, None, "http://10.0.0.9/boot.efi"),
        (25, pxe, 11, None, ""),
    ];
    for (client, class, arch, user, file) in cases {
        let mut engine = engine(boot_scope());
        let outcome = exchange(&mut engine, client, &boot(client, class, arch, user), NOW);
        let (message, _) = &outcome.sent[0];
        let said = message.fname().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        assert_eq!(said.trim_end_matches('\0'), file, "{client} {arch}");
        assert_eq!(message.siaddr(), ip(9));
        assert_eq!(
            outcome.option(OptionCode::ClientMachineIdentifier),
            Some(DhcpOption::ClientMachineIdentifier(vec![0; 17]))
        );
        let told = outcome.option(OptionCode::ClassIdentifier);
        assert_eq!(told.is_some(), arch == 16, "{told:?}");
    }
}

#[test]
fn a_port_wins_over_its_subnet_and_a_class_over_all() {
    let mut scope = scope(110, &[(1, 50)]);
    let options = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an option")).collect();
    scope.subnets[0].options = options(&[
        "ntp-servers=10.0.0.7",
        "224:text=subnet",
        "43:hex@MSFT=01",
        "routers=10.0.0.254",
        "renewal-time=60",
    ]);
    scope.hosts[0].options = options(&["224:text=port", "mtu=1300", "host-name=other"]);
    let ask = |engine: &mut Engine, client: u8, class: &[u8]| {
        let mut message = discover(client);
        message.opts_mut().insert(DhcpOption::ClassIdentifier(class.to_vec()));
        let wanted = [42, 224, 43, 26, 12, 3, 121, 249].map(OptionCode::from).to_vec();
        message.opts_mut().insert(DhcpOption::ParameterRequestList(wanted));
        exchange(engine, client, &message, NOW)
    };
    let mut engine = engine(scope);
    let text = |outcome: &Outcome| match outcome.option(OptionCode::Unknown(224)) {
        Some(DhcpOption::Unknown(option)) => String::from_utf8_lossy(option.data()).into_owned(),
        other => panic!("{other:?}"),
    };
    let of_port = ask(&mut engine, 1, b"x");
    assert_eq!(text(&of_port), "port");
    assert_eq!(of_port.option(OptionCode::InterfaceMtu), Some(DhcpOption::InterfaceMtu(1_300)));
    assert_eq!(of_port.option(OptionCode::Hostname), Some(DhcpOption::Hostname("other".into())));
    assert_eq!(of_port.option(OptionCode::VendorExtensions), None);
    let of_subnet = ask(&mut engine, 20, b"MSFT 5.0");
    assert_eq!(text(&of_subnet), "subnet");
    assert_eq!(of_subnet.option(OptionCode::VendorExtensions), Some(DhcpOption::VendorExtensions(vec![1])));
    assert_eq!(of_subnet.option(OptionCode::NtpServers), Some(DhcpOption::NtpServers(vec![ip(7)])));
    assert_eq!(of_subnet.option(OptionCode::Router), Some(DhcpOption::Router(vec![ip(254)])));
    assert_eq!(of_subnet.option(OptionCode::Renewal), Some(DhcpOption::Renewal(60)));
    // The routes name the router that the clients are told, also to those who know them by Microsoft's number.
    let bytes = &of_subnet.sent[0].1.payload;
    let routes = [12, 172, 16, 10, 0, 0, 2, 0, 10, 0, 0, 254];
    for code in [121, 249] {
        let told = [&[code, 12][..], &routes].concat();
        assert!(bytes.windows(told.len()).any(|window| window == told), "{code}");
    }
}

#[test]
fn a_reply_that_is_too_long_goes_on_in_other_fields() {
    let mut scope = scope(110, &[]);
    let long = |code: u8, length: usize| format!("{code}:text={}", "x".repeat(length)).parse().expect("an option");
    scope.subnets[0].options = vec![long(224, 200), long(225, 90), long(226, 50), long(227, 255)];
    let mut engine = engine(scope);
    let mut message = discover(20);
    let wanted = [224, 225, 226, 227].map(OptionCode::from).to_vec();
    message.opts_mut().insert(DhcpOption::ParameterRequestList(wanted));
    let outcome = exchange(&mut engine, 20, &message, NOW);
    let payload = &outcome.sent[0].1.payload;
    assert!(payload.len() <= 548, "{}", payload.len());
    assert!(matches!(outcome.option(OptionCode::OptionOverload), Some(DhcpOption::OptionOverload(_))));
    let told = |code: u8, length: u8| payload.windows(3).any(|window| window == [code, length, b'x']);
    assert!(told(224, 200) && told(225, 90) && told(226, 50) && !told(227, 255));
    // A client that takes more gets all of it, split where it must be.
    message.opts_mut().insert(DhcpOption::MaxMessageSize(1_500));
    let outcome = exchange(&mut engine, 20, &message, NOW);
    assert_eq!(outcome.option(OptionCode::OptionOverload), None);
    assert!(outcome.sent[0].1.payload.windows(3).any(|window| window == [227, 255, b'x']));
}

#[test]
fn a_full_name_is_answered_with_one() {
    let mut engine = engine(scope(110, &[]));
    for (client, flags, said) in [(20, 0x05, 0x05), (21, 0x04, 0x07), (22, 0x08, 0x08), (23, 0x01, 0x01)] {
        let mut bytes = bytes(&discover(client));
        let end = bytes.iter().rposition(|byte| *byte == 255).expect("an end");
        let name: &[u8] = if flags & 4 != 0 { b"\x03web\x03lab\x00" } else { b"web.lab" };
        bytes.truncate(end);
        bytes.extend([81, 3 + name.len() as u8, flags, 0, 0]);
        bytes.extend(name);
        bytes.push(255);
        let mut outcome = Outcome::default();
        outcome.add(engine.handle(&bytes, sender(client), NOW));
        let wire: &[u8] = b"\x03web\x03lab\x07example\x00";
        let name: &[u8] = match flags {
            0x08 => b"",
            _ if flags & 4 != 0 => wire,
            _ => b"web.lab.example",
        };
        let told = [&[81, 3 + name.len() as u8, said, 255, 255][..], name].concat();
        assert!(outcome.sent[0].1.payload.windows(told.len()).any(|window| window == told), "{flags}");
    }
}

#[test]
fn an_address_that_nobody_had_is_looked_for_before_it_is_offered() {
    let mut scope = scope(109, &[]);
    scope.probe = true;
    let (mut engine, outputs) = Engine::new(scope.clone(), vec![lease(100, 40, NOW + 500)], NOW);
    let mut start = Outcome::default();
    start.add(outputs);
    assert_eq!(start.probes, (101..=109).map(ip).collect::<Vec<_>>());
    let nothing = exchange(&mut engine, 20, &discover(20), NOW);
    assert!(nothing.sent.is_empty() && nothing.events.is_empty(), "not full: they are on the way");
    assert!(engine.probed(ip(101), Some(mac(77)), NOW).iter().any(|output| matches!(
        output,
        Output::Report(Event::AddressConflict { address, mac: holder, .. }) if *address == ip(101) && *holder == mac(77)
    )));
    for last in 102..=109 {
        let mut found = Outcome::default();
        found.add(engine.probed(ip(last), None, NOW));
        // Who came too early gets the first.
        assert_eq!(found.reply(), (last == 102).then_some((MessageType::Offer, ip(102))));
        assert_eq!(
            found.sent.iter().map(|(m, _)| m.xid()).collect::<Vec<_>>(),
            vec![discover(20).xid(); found.sent.len()]
        );
    }
    assert!(engine.probed(ip(102), Some(mac(9)), NOW).is_empty(), "nobody asked");
    // A wish for one that is not known to be free is no reason to offer it.
    let mut wish = discover(21);
    wish.opts_mut().insert(DhcpOption::RequestedIpAddress(ip(101)));
    assert_eq!(exchange(&mut engine, 21, &wish, NOW).reply(), Some((MessageType::Offer, ip(103))));
    assert_eq!(acquire(&mut engine, 20, NOW), Some(ip(102)));
    // A change of the scope keeps what is known.
    let _ = engine.update(scope, NOW);
    assert_eq!(acquire(&mut engine, 22, NOW), Some(ip(104)));
    // After a while they are looked for again, the one that was in use too.
    let mut later = Outcome::default();
    later.add(engine.tick(NOW + 600));
    assert_eq!(later.probes.len(), 6, "{:?}", later.probes);
    assert!(later.events.contains(&Event::QuarantineEnded { network: uuid::Uuid::from_u128(1), address: ip(101) }));
    assert_eq!(engine.stats().conflicts, 1);
}

#[test]
fn who_waits_for_an_address_waits_in_turn_and_not_for_long() {
    let mut scope = scope(150, &[]);
    scope.probe = true;
    scope.leases_per_port = 2;
    let (mut engine, _) = Engine::new(scope, Vec::new(), NOW);
    let ask = |engine: &mut Engine, number: u32, port: u32, now| {
        let [high, low] = u16::try_from(number).expect("few").to_be_bytes();
        let mac = crate::net::MacAddr::new([2, 0, 0, 0, high, low]).expect("unicast");
        let mut message = discover(1);
        message.set_chaddr(&mac.octets()).set_xid(number);
        let from = Sender { mac, origin: Origin::interface(port), ..sender(1) };
        let mut outcome = Outcome::default();
        outcome.add(engine.handle(&bytes(&message), from, now));
        assert!(outcome.sent.is_empty());
    };
    let free = |engine: &mut Engine, last: u8, now| {
        let mut outcome = Outcome::default();
        outcome.add(engine.probed(ip(last), None, now));
        outcome.sent.iter().map(|(message, _)| message.xid()).collect::<Vec<_>>()
    };
    ask(&mut engine, 1, 1, NOW);
    ask(&mut engine, 2, 1, NOW + 2);
    ask(&mut engine, 3, 1, NOW + 2);
    ask(&mut engine, 4, 1, NOW + 2);
    ask(&mut engine, 5, 2, NOW + 2);
    assert_eq!(free(&mut engine, 100, NOW + 3), [2], "the first has asked again by now");
    assert_eq!(free(&mut engine, 101, NOW + 3), [3]);
    assert_eq!(free(&mut engine, 102, NOW + 3), [5], "the fourth is more than its port may have");
    assert_eq!(engine.stats().limited, 1);
    assert_eq!(free(&mut engine, 103, NOW + 3), [0; 0]);
    // However many ask, so many wait.
    let ignored = engine.stats().ignored;
    let mut fresh = Engine::new(Scope { leases_per_port: 0, ..engine.scope().clone() }, Vec::new(), NOW).0;
    (0..3_000).for_each(|number| ask(&mut fresh, number, number, NOW));
    assert_eq!((fresh.stats().ignored, ignored), (3_000 - 2_048, 1));
    assert_eq!(free(&mut fresh, 100, NOW), [0]);
}

#[test]
fn a_port_holds_no_more_than_its_share() {
    let mut scope = scope(150, &[]);
    scope.leases_per_port = 3;
    let mut engine = engine(scope);
    let through = |n: u8, port: u32| Sender { origin: Origin::interface(port), ..sender(n) };
    let offered = |engine: &mut Engine, n: u8, port: u32| {
        let mut outcome = Outcome::default();
        outcome.add(engine.handle(&bytes(&discover(n)), through(n, port), NOW));
        (outcome.reply().map(|(_, address)| address), outcome.events)
    };
    for n in 20..23 {
        let (address, _) = offered(&mut engine, n, 1);
        let request = bytes(&select(n, address.expect("an offer")));
        for output in engine.handle(&request, through(n, 1), NOW) {
            if let Output::Persist(commit) = output {
                let _ = engine.confirm(commit, NOW);
            }
        }
    }
    let (none, events) = offered(&mut engine, 23, 1);
    assert!(none.is_none() && matches!(events[..], [Event::PortLimited { .. }]));
    assert!(offered(&mut engine, 24, 1).1.is_empty(), "told once");
    let mut outcome = Outcome::default();
    outcome.add(engine.handle(&bytes(&select(25, ip(140))), through(25, 1), NOW));
    assert!(outcome.sent.is_empty() && outcome.commits.is_empty(), "nor by asking for one outright");
    assert!(offered(&mut engine, 20, 1).0.is_some(), "what it has it keeps");
    assert!(offered(&mut engine, 30, 2).0.is_some(), "others have theirs");
    assert_eq!(engine.stats().limited, 3);
    exchange(&mut engine, 20, &release(20, ip(100)), NOW);
    assert!(offered(&mut engine, 23, 1).0.is_some());
}

#[test]
fn a_client_identifier_may_have_the_reservation() {
    let mut scope = scope(110, &[(1, 50)]);
    let id = vec![0, b'd', b'b'];
    scope.hosts[0].client = ClientKey::new(&id);
    let mut engine = engine(scope);
    let with_id = |mut message: Message| {
        message.opts_mut().insert(DhcpOption::ClientIdentifier(id.clone()));
        message
    };
    assert_eq!(exchange(&mut engine, 9, &with_id(discover(9)), NOW).reply(), Some((MessageType::Offer, ip(50))));
    assert_eq!(exchange(&mut engine, 9, &with_id(select(9, ip(50))), NOW).reply(), Some((ACK, ip(50))));
    // The port's own NIC always wins.
    assert_eq!(acquire(&mut engine, 1, NOW), Some(ip(50)));
    let refused = exchange(&mut engine, 9, &with_id(renew(9, ip(50))), NOW).reply();
    assert_eq!(refused, Some((NAK, Ipv4Addr::UNSPECIFIED)));
    assert_eq!(exchange(&mut engine, 9, &with_id(discover(9)), NOW).reply().map(|(_, a)| a), Some(ip(100)));
}

#[test]
fn a_subnet_behind_a_relay_is_served_to_its_relay_alone() {
    let mut scope = scope(110, &[]);
    let mut far = scope.subnets[0].clone();
    far.id = uuid::Uuid::from_u128(3);
    far.prefix = "10.9.0.0/24".parse().expect("a prefix");
    far.pools = vec!["10.9.0.10-10.9.0.20".parse().expect("a range")];
    far.on_link = false;
    scope.subnets.insert(0, far);
    let relay = Ipv4Addr::new(10, 9, 0, 1);
    scope.relays = vec![relay];
    let mut engine = engine(scope);
    assert_eq!(exchange(&mut engine, 20, &discover(20), NOW).reply(), Some((MessageType::Offer, ip(100))));
    let mut relayed = discover(21);
    relayed.set_giaddr(relay);
    let outcome = exchange(&mut engine, 9, &relayed, NOW);
    assert_eq!(outcome.reply(), Some((MessageType::Offer, Ipv4Addr::new(10, 9, 0, 10))));
    assert_eq!(outcome.sent[0].1.destination, Destination::Relay { address: relay, mac: mac(9) });
}

/// 10.0.0.0/24 on the link, and 10.9.0.0/24 behind the relay agent 10.9.0.1, where 21 has 10.9.0.10.
fn with_a_client_behind_a_relay() -> (Engine, Ipv4Addr) {
    let mut scope = scope(110, &[]);
    let mut far = scope.subnets[0].clone();
    far.id = uuid::Uuid::from_u128(3);
    far.prefix = "10.9.0.0/24".parse().expect("a prefix");
    far.pools = vec!["10.9.0.1-10.9.0.20".parse().expect("a range")];
    far.router = None;
    far.on_link = false;
    scope.subnets.push(far);
    let [relay, address] = [1, 2].map(|last| Ipv4Addr::new(10, 9, 0, last));
    scope.relays = vec![relay];
    let mut engine = engine(scope);
    for mut m in [discover(21), select(21, address)] {
        m.set_giaddr(relay);
        let reply = exchange(&mut engine, 9, &m, NOW).reply();
        // Not the relay agent's own address.
        assert_eq!(reply.map(|(_, given)| given), Some(address));
    }
    (engine, address)
}

#[test]
fn who_is_behind_a_relay_renews_and_releases_through_a_router() {
    let (mut engine, address) = with_a_client_behind_a_relay();
    let later = NOW + u64::from(LEASE_TIME) / 2;
    let renewed = exchange(&mut engine, 9, &renew(21, address), later);
    assert_eq!(renewed.reply(), Some((ACK, address)));
    assert_eq!(renewed.sent[0].1.destination, Destination::Unicast { address, mac: mac(9) });
    // From the link itself it is in the wrong place, and so is what is not of the relay agent's subnet.
    assert_eq!(exchange(&mut engine, 21, &renew(21, address), later).reply().map(|(kind, _)| kind), Some(NAK));

    let from = |source| Sender { source: SocketAddrV4::new(source, 68), ..sender(9) };
    let given_up = |engine: &mut Engine, message: &Message, source| {
        let mut outcome = Outcome::default();
        outcome.add(engine.handle(&bytes(message), from(source), later));
        outcome.commits.len()
    };
    assert_eq!(given_up(&mut engine, &release(21, address), ip(9)), 0);
    assert_eq!(given_up(&mut engine, &release(22, address), address), 0);
    assert_eq!(given_up(&mut engine, &decline(21, address), address), 0);
    assert_eq!(given_up(&mut engine, &release(21, address), address), 1);
}

#[test]
fn a_server_is_known_by_each_of_its_addresses() {
    let mut engine = engine(scope(200, &[]));
    let (_, address) = exchange(&mut engine, 9, &discover(9), NOW).reply().expect("an offer");
    let options = [DhcpOption::RequestedIpAddress(address), DhcpOption::ServerIdentifier(OTHER_SERVER)];
    let selected = exchange(&mut engine, 9, &message(9, MessageType::Request, &options), NOW);
    assert_eq!(selected.reply(), Some((ACK, address)));
}
