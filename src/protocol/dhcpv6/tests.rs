use super::{testing::*, *};
use dhcproto::{
    Decodable, Decoder,
    v6::{DhcpOption, MessageType, RelayMessage, Status},
};

fn text(address: u16) -> String {
    ip(address).to_string()
}

#[test]
fn a_client_gets_an_address_stored_before_the_reply() {
    let mut engine = engine(scope(0x1fff, &[]));
    let solicit = message(1, MessageType::Solicit, &[na(7, None)]);
    let advertised = submit(&mut engine, 1, &solicit, NOW);
    assert_eq!(advertised.kind(), Some(MessageType::Advertise));
    let address = advertised.address().expect("offered");
    assert!(advertised.options().any(|option| matches!(option, DhcpOption::Preference(255))));
    let request = message(1, MessageType::Request, &[na(7, Some(address))]);
    let mut outcome = submit(&mut engine, 1, &request, NOW);
    assert!(outcome.sent.is_empty(), "nothing leaves before the disk has it");
    let commit = outcome.commits.pop().expect("a commit");
    assert!(commit.is_new());
    // A copy of the request waits with it.
    assert!(submit(&mut engine, 1, &request, NOW).commits.is_empty());
    outcome.add(engine.confirm(commit, NOW));
    assert_eq!(outcome.given(), [(7, Ok((address.to_string(), LEASE_TIME)))]);
    let told: Vec<String> = outcome.options().map(|option| format!("{option:?}")).collect();
    for part in ["DomainNameServers([2001:db8:7::1])", "lab.example", "2001:db8:7::9", "ServerId"] {
        assert!(told.iter().any(|option| option.contains(part)), "{part} in {told:?}");
    }
    // A moment later it costs no write; later it does.
    assert!(submit(&mut engine, 1, &request, NOW + 5).commits.is_empty());
    let renewed = exchange(&mut engine, 1, &message(1, MessageType::Renew, &[na(7, Some(address))]), NOW + 1_800);
    assert_eq!(renewed.given(), [(7, Ok((address.to_string(), LEASE_TIME)))]);
}

#[test]
fn cloned_guests_with_one_duid_get_an_address_each() {
    let mut engine = engine(scope(0x1fff, &[]));
    let solicit = message(1, MessageType::Solicit, &[na(7, None), DhcpOption::RapidCommit]);
    let first = exchange(&mut engine, 1, &solicit, NOW).address().expect("an address");
    let second = exchange(&mut engine, 2, &solicit, NOW).address().expect("an address");
    assert_ne!(first, second);
    // Nor can one give up the other's.
    let release = message(1, MessageType::Release, &[na(7, Some(first))]);
    let refused = exchange(&mut engine, 2, &release, NOW);
    assert_eq!((refused.given(), engine.leased()), (vec![(7, Err(Status::NoBinding))], 2));
    let released = exchange(&mut engine, 1, &release, NOW);
    assert_eq!((released.status(), engine.leased()), (Some(Status::Success), 1));
}

#[test]
fn a_reservation_is_its_ports_alone() {
    let mut engine = engine(scope(0x1002, &[(1, 0x1000), (2, 0x50)]));
    assert_eq!(acquire(&mut engine, 1, NOW), Some(ip(0x1000)));
    assert_eq!(acquire(&mut engine, 2, NOW), Some(ip(0x50)));
    assert_eq!(acquire(&mut engine, 3, NOW), Some(ip(0x1001)), "never a reserved one");
    // Who asks for another's gets its own, or what is free.
    let wish = message(2, MessageType::Request, &[na(9, Some(ip(0x1000)))]);
    assert_eq!(exchange(&mut engine, 2, &wish, NOW).address(), Some(ip(0x50)));
    // One address a port: a second association gets none.
    let two = message(1, MessageType::Request, &[na(1, None), na(2, None)]);
    let given: Vec<_> = exchange(&mut engine, 1, &two, NOW).given().into_iter().map(|(_, given)| given).collect();
    assert_eq!(given, [Ok((text(0x1000), LEASE_TIME)), Err(Status::NoAddrsAvail)]);
    // A reservation that changes reaches the guest when it renews.
    let _ = engine.update(scope(0x1002, &[(1, 0x60), (2, 0x50)]), NOW + 10);
    let renew = message(1, MessageType::Renew, &[na(1, Some(ip(0x1000)))]);
    let given = exchange(&mut engine, 1, &renew, NOW + 20).given();
    assert_eq!(given, [(1, Ok((text(0x60), LEASE_TIME))), (1, Ok((text(0x1000), 0)))]);
}

#[test]
fn prefixes_are_delegated_and_run_out() {
    let mut engine = engine(scope(0x1fff, &[(1, 0x50)]));
    let both = |n| message(n, MessageType::Solicit, &[na(1, None), pd(1, None), DhcpOption::RapidCommit]);
    let given = exchange(&mut engine, 1, &both(1), NOW).given();
    assert_eq!(given, [(1, Ok((text(0x50), LEASE_TIME))), (1, Ok(("fd00:9::/64".into(), LEASE_TIME)))]);
    let wish = message(2, MessageType::Request, &[pd(1, Some("fd00:9:0:3::/64"))]);
    let given = exchange(&mut engine, 2, &wish, NOW).given();
    assert_eq!(given, [(1, Ok(("fd00:9:0:3::/64".into(), LEASE_TIME)))]);
    for n in [3, 4] {
        assert_eq!(exchange(&mut engine, n, &message(n, MessageType::Request, &[pd(1, None)]), NOW).given().len(), 1);
    }
    let last = exchange(&mut engine, 5, &message(5, MessageType::Request, &[pd(1, None)]), NOW);
    assert_eq!(last.given(), [(1, Err(Status::NoPrefixAvail))]);
    let (network, subnet) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    assert_eq!(last.events, [Event::PoolExhausted { network, subnet }]);
    let release = message(2, MessageType::Release, &[pd(1, Some("fd00:9:0:3::/64"))]);
    let events = exchange(&mut engine, 2, &release, NOW).events;
    assert!(events.contains(&Event::PoolRecovered { network, subnet }), "{events:?}");
    assert!(exchange(&mut engine, 5, &message(5, MessageType::Request, &[pd(1, None)]), NOW).given()[0].1.is_ok());
}

#[test]
fn confirm_renew_and_rebind_tell_the_truth() {
    let mut engine = engine(scope(0x1fff, &[]));
    let confirm = |address| message(1, MessageType::Confirm, &[na(1, Some(address))]);
    assert_eq!(exchange(&mut engine, 1, &confirm(ip(0x77)), NOW).status(), Some(Status::Success));
    let foreign = "2001:db8:9::1".parse().expect("an address");
    assert_eq!(exchange(&mut engine, 1, &confirm(foreign), NOW).status(), Some(Status::NotOnLink));
    assert_eq!(exchange(&mut engine, 1, &message(1, MessageType::Confirm, &[na(1, None)]), NOW).kind(), None);
    // A lease that this server lost is taken up again, unless somebody has it meanwhile.
    let rebind = |n, address| message(n, MessageType::Rebind, &[na(1, Some(address))]);
    assert_eq!(exchange(&mut engine, 1, &rebind(1, ip(0x1005)), NOW).address(), Some(ip(0x1005)));
    assert_eq!(exchange(&mut engine, 2, &rebind(2, ip(0x1005)), NOW).given(), [(1, Err(Status::NoBinding))]);
    assert_eq!(exchange(&mut engine, 2, &rebind(2, foreign), NOW).given(), [(1, Ok((foreign.to_string(), 0)))]);
    let request = message(3, MessageType::Request, &[na(1, Some(foreign))]);
    assert_eq!(exchange(&mut engine, 3, &request, NOW).given(), [(1, Err(Status::NotOnLink))]);
}

#[test]
fn a_declined_address_rests() {
    let mut engine = engine(scope(0x1001, &[]));
    let address = acquire(&mut engine, 1, NOW).expect("an address");
    let decline = message(1, MessageType::Decline, &[na(1, Some(address))]);
    let outcome = exchange(&mut engine, 1, &decline, NOW);
    assert_eq!(outcome.status(), Some(Status::Success));
    assert!(matches!(outcome.events.as_slice(), [Event::AddressDeclined(_)]));
    let other = acquire(&mut engine, 2, NOW).expect("the other one");
    assert_ne!(other, address);
    assert_eq!(acquire(&mut engine, 3, NOW), None);
    let mut events = Outcome::default();
    events.add(engine.tick(NOW + 600));
    assert!(matches!(events.events[..], [Event::QuarantineEnded { .. }, Event::PoolRecovered { .. }]));
    assert_eq!(acquire(&mut engine, 3, NOW + 601), Some(address));
}

#[test]
fn who_asks_otherwise_is_told_or_hears_nothing() {
    let mut engine = engine(scope(0x1fff, &[]));
    let information = message(1, MessageType::InformationRequest, &[]);
    let told = exchange(&mut engine, 1, &information, NOW);
    assert!(told.options().any(|option| matches!(option, DhcpOption::DomainNameServers(_))));
    assert_eq!(engine.bindings(), 0);
    // By unicast, which clients may not.
    let mut unicast = sender(1);
    unicast.unicast = true;
    let mut outcome = Outcome::default();
    outcome.add(engine.handle(&bytes(&message(1, MessageType::Renew, &[na(1, None)])), unicast, NOW));
    assert_eq!(outcome.status(), Some(Status::UseMulticast));
    assert_eq!(engine.handle(&bytes(&message(1, MessageType::Solicit, &[na(1, None)])), unicast, NOW).len(), 0);
    // For another server, without who it is, from elsewhere, or no message of a client.
    let mut other = message(1, MessageType::Solicit, &[na(1, None)]);
    other.opts_mut().insert(DhcpOption::ServerId(vec![0, 4, 9, 9]));
    assert_eq!(exchange(&mut engine, 1, &other, NOW).kind(), None);
    let mut nobody = message(1, MessageType::Solicit, &[na(1, None)]);
    nobody.opts_mut().remove(dhcproto::v6::OptionCode::ClientId);
    assert_eq!(exchange(&mut engine, 1, &nobody, NOW).kind(), None);
    assert_eq!(exchange(&mut engine, 1, &message(1, MessageType::Reply, &[]), NOW).kind(), None);
    let global = Sender { address: ip(0x77), ..sender(1) };
    assert_eq!(engine.handle(&bytes(&message(1, MessageType::Solicit, &[na(1, None)])), global, NOW).len(), 0);
}

#[test]
fn on_a_shared_network_only_ports_are_answered() {
    let mut shared = scope(0x1fff, &[(1, 0x50)]);
    (shared.subnets[0].dynamic, shared.rapid_commit) = (false, false);
    let mut engine = engine(shared);
    let solicit = |n| message(n, MessageType::Solicit, &[na(1, None), DhcpOption::RapidCommit]);
    assert_eq!(exchange(&mut engine, 2, &solicit(2), NOW).kind(), None);
    assert_eq!(exchange(&mut engine, 2, &message(2, MessageType::InformationRequest, &[]), NOW).kind(), None);
    let outcome = exchange(&mut engine, 1, &solicit(1), NOW);
    assert_eq!((outcome.kind(), outcome.address()), (Some(MessageType::Advertise), Some(ip(0x50))));
}

#[test]
fn relay_agents_are_served_that_were_named() {
    let mut engine = engine(scope(0x1fff, &[(9, 0x50)]));
    let wrap = |link: std::net::Ipv6Addr, inner: &[u8], interface: &[u8]| {
        let mut bytes = vec![12, 0];
        bytes.extend(link.octets());
        bytes.extend(mac(9).link_local().octets());
        let mut add = |code: u16, value: &[u8]| {
            bytes.extend(code.to_be_bytes());
            bytes.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
            bytes.extend(value);
        };
        add(18, interface);
        add(9, inner);
        bytes
    };
    let client = bytes(&message(9, MessageType::Solicit, &[na(1, None)]));
    let relay = Sender { address: ip(3), unicast: true, ..sender(3) };
    let (inner, nowhere) = (wrap(ip(3), &client, b"port \xff7"), std::net::Ipv6Addr::UNSPECIFIED);
    let mut out = engine.handle(&wrap(nowhere, &inner, b"up"), relay, NOW);
    let Some(Output::Send(reply)) = out.pop() else { panic!("an answer") };
    assert!(reply.relay && reply.socket_addr().port() == 547);
    let outer = RelayMessage::decode(&mut Decoder::new(&reply.payload)).expect("sound");
    assert_eq!(outer.msg_type(), MessageType::RelayRepl);
    // What the relay agent sent comes back byte by byte.
    assert!(reply.payload.windows(7).any(|bytes| bytes == b"port \xff7"));
    assert!(reply.payload.windows(16).any(|bytes| bytes == ip(0x50).octets()), "its reserved address");
    // One that nobody named.
    assert_eq!(engine.handle(&wrap(ip(4), &client, b""), relay, NOW).len(), 0);
    // Deeper than RFC 8415 lets them be.
    let deep = (0..9).fold(client, |inner, _| wrap(ip(3), &inner, b""));
    assert_eq!(engine.handle(&deep, relay, NOW).len(), 0);
    assert_eq!(engine.stats().malformed, 1);
}

#[test]
fn a_port_holds_no_more_than_its_share() {
    let mut limited = scope(0x1fff, &[]);
    limited.leases_per_port = 3;
    let mut engine = engine(limited);
    let origin = Origin::interface(7);
    let mut granted = 0;
    for n in 0..200u8 {
        let packet = bytes(&message(n, MessageType::Solicit, &[na(1, None), pd(1, None), DhcpOption::RapidCommit]));
        let mut outcome = Outcome::default();
        outcome.add(engine.handle(&packet, Sender { origin, ..sender(n) }, NOW));
        while let Some(commit) = outcome.commits.pop() {
            outcome.add(engine.confirm(commit, NOW));
        }
        granted += outcome.given().iter().filter(|(_, given)| given.is_ok()).count();
    }
    assert_eq!((granted, engine.leased()), (3, 3));
    assert!(acquire(&mut engine, 250, NOW).is_some(), "others get theirs");
}

#[test]
fn what_guests_can_grow_has_limits() {
    let mut engine = small(scope(0xffff, &[]));
    for n in 0..=255u8 {
        for iaid in 0..20 {
            let solicit = message(n, MessageType::Solicit, &[na(iaid, None)]);
            let _ = exchange(&mut engine, n, &solicit, NOW);
        }
    }
    assert!(engine.bindings() <= 64, "{}", engine.bindings());
    for n in 0..=255u8 {
        let all: Vec<_> = (0..40).map(|iaid| na(iaid, None)).collect();
        let many = exchange(&mut engine, n, &message(n, MessageType::Request, &all), NOW);
        assert!(many.given().len() <= 8);
    }
    assert!(engine.bindings() <= 64, "{}", engine.bindings());
    let last = engine.next_deadline().expect("leases end");
    assert!(last >= NOW);
    let _ = engine.tick(NOW + 2 * u64::from(LEASE_TIME));
    assert_eq!(engine.leased(), 0);
}

#[test]
fn a_disk_that_fails_undoes_the_grant() {
    let mut engine = engine(scope(0x1000, &[]));
    let request = message(1, MessageType::Request, &[na(1, None)]);
    let mut outcome = submit(&mut engine, 1, &request, NOW);
    let commit = outcome.commits.pop().expect("a commit");
    assert_eq!(engine.abandon(commit, NOW).len(), 0);
    assert_eq!(engine.leased(), 0);
    assert_eq!(acquire(&mut engine, 2, NOW), Some(ip(0x1000)));
}

#[test]
fn leases_are_taken_up_after_a_restart() {
    let mut first = engine(scope(0x1fff, &[(2, 0x50)]));
    let mut stored: Vec<Lease> = Vec::new();
    for n in [1, 2] {
        let all = [na(1, None), pd(2, None), DhcpOption::RapidCommit];
        let mut outcome = submit(&mut first, n, &message(n, MessageType::Solicit, &all), NOW);
        let commit = outcome.commits.pop().expect("a commit");
        stored.extend(commit.changes().iter().map(|change| change.lease().clone()));
        outcome.add(first.confirm(commit, NOW));
    }
    assert_eq!(stored.len(), 4);
    let (mut second, outputs) = Engine::new(scope(0x1fff, &[(2, 0x50)]), stored.clone(), NOW + 100);
    assert_eq!((second.leased(), outputs.len()), (4, 0));
    let renew = message(1, MessageType::Renew, &[na(1, Some(stored[0].address()))]);
    assert_eq!(exchange(&mut second, 1, &renew, NOW + 1_800).address(), Some(stored[0].address()));
    assert_ne!(acquire(&mut second, 3, NOW + 100), Some(stored[0].address()));
    // The port is gone: its address is nobody's, and its row goes.
    let mut outcome = Outcome::default();
    outcome.add(second.update(scope(0x1fff, &[]), NOW + 200));
    let gone: Vec<_> = outcome.commits.iter().flat_map(|commit| commit.changes()).cloned().collect();
    let [LeaseChange::Remove(lease)] = gone.as_slice() else { panic!("{gone:?}") };
    assert_eq!(lease.address(), ip(0x50));
}

#[test]
fn names_go_with_addresses() {
    let mut engine = engine(scope(0x1fff, &[(2, 0x50)]));
    let named = |n, name: &[u8], flags| {
        let mut bytes = bytes(&message(n, MessageType::Solicit, &[na(1, None), DhcpOption::RapidCommit]));
        bytes.extend([0, 39]);
        bytes.extend(u16::try_from(name.len() + 1).expect("short").to_be_bytes());
        bytes.push(flags);
        bytes.extend(name);
        bytes
    };
    let mut outcome = Outcome::default();
    outcome.add(engine.handle(&named(1, b"\x03web\x05other\x04test\0", 0), sender(1), NOW));
    let commit = outcome.commits.pop().expect("a commit");
    assert_eq!(commit.changes()[0].lease().host_name.as_ref().map(|label| label.as_str()), Some("web"));
    outcome.add(engine.confirm(commit, NOW));
    // The server sees to it, against the client's wish, and in its own domain (RFC 4704 section 6).
    let answer = b"\x00\x27\x00\x12\x03\x03web\x03lab\x07example\0";
    assert!(outcome.sent[0].1.payload.windows(answer.len()).any(|bytes| bytes == answer));
    // A port's name wins.
    let out = engine.handle(&named(2, b"\x04evil", 1), sender(2), NOW);
    let [Output::Persist(_)] = out.as_slice() else { panic!("{out:?}") };
    for garbage in [&b"\xff"[..], b"", b"\x03a b", b"\x05ab"] {
        let _ = engine.handle(&named(3, garbage, 0), sender(3), NOW);
    }
}
