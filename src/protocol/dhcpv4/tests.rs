use super::{testing::*, *};
use crate::net::DnsLabel;
use dhcproto::v4::{DhcpOption, Flags, MessageType, OptionCode, UnknownOption, relay};
use std::net::Ipv4Addr;

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
    assert!(matches!(exchange(&mut engine, 20, &release(20, ip(100)), NOW).events[..], [Event::LeaseReleased(_)]));
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
