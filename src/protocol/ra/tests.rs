use super::*;
use crate::net::MacAddr;
use proptest::prelude::*;

fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 0, last]).expect("unicast")
}

fn router() -> Router {
    let net = "2001:db8:7::/64".parse().expect("a prefix");
    Router {
        mac: mac(1),
        default_router: true,
        managed: true,
        other: true,
        mtu: Some(1_450),
        prefixes: vec![Prefix { net, autonomous: false, valid: 86_400, preferred: 14_400 }],
        routes: vec!["fd09::/48".parse().expect("a prefix")],
        dns_servers: vec!["2001:db8:7::1".parse().expect("an address")],
        search: vec!["lab.example".parse().expect("a name")],
    }
}

const SOLICITATION: &[u8] = &[133, 0, 0, 0, 0, 0, 0, 0];

fn host(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n)
}

fn ask(engine: &mut Engine, source: Ipv6Addr, now: Millis, random: u64) {
    let solicitation = Solicitation::parse(SOLICITATION, source, 255).expect("sound");
    engine.solicited(solicitation, mac(2), now, random);
}

/// The options of an advertisement, by type.
fn options(message: &[u8]) -> Vec<(u8, &[u8])> {
    let (mut rest, mut all) = (&message[16..], Vec::new());
    while let [kind, units, ..] = rest {
        let (option, after) = rest.split_at(usize::from(*units) * 8);
        all.push((*kind, &option[2..]));
        rest = after;
    }
    all
}

#[test]
fn an_advertisement_says_all_of_it() {
    let message = router().advertise(false);
    assert_eq!(message[..8], [134, 0, 0, 0, 64, 0xc0, 0x07, 0x08]);
    let kinds: Vec<u8> = options(&message).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [1, 5, 3, 24, 25, 31]);
    let prefix = options(&message)[2].1;
    assert_eq!(prefix[..10], [64, 0x80, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40]);
    assert_eq!(prefix[14..20], [0x20, 0x01, 0x0d, 0xb8, 0, 7]);
    let search = options(&message)[5].1;
    assert_eq!(&search[6..19], b"\x03lab\x07example\0");
    let silent = Router { default_router: false, ..router() }.advertise(false);
    assert_eq!(silent[6..8], [0, 0]);
    let last = router().advertise(true);
    assert_eq!((&last[6..8], &options(&last)[2].1[2..10]), (&[0, 0][..], &[0; 8][..]));
    let many = Router { prefixes: vec![router().prefixes[0]; 100], ..router() };
    assert!(many.advertise(false).len() <= 1_232);
}

#[test]
fn it_speaks_at_the_intervals_of_the_rfc() {
    let mut engine = Engine::new(router(), 1_000);
    let (mut now, mut times) = (1_000, Vec::new());
    for n in 0..20u64 {
        now = engine.next_deadline();
        times.push(now);
        let out = engine.tick(now, n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        assert!(matches!(out.as_slice(), [Output { destination: Destination::AllNodes, .. }]));
    }
    assert_eq!(times[0], 1_000);
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[..2].iter().all(|gap| *gap <= 16_000), "{gaps:?}");
    assert!(gaps[2..].iter().all(|gap| (200_000..=600_000).contains(gap)), "{gaps:?}");
    assert!(gaps[2..].windows(2).any(|pair| pair[0] != pair[1]), "at random");
    assert_eq!(engine.tick(now, 0), []);
}

#[test]
fn hosts_are_answered_soon_each_and_not_too_often() {
    let mut engine = Engine::new(router(), 0);
    assert_eq!(engine.tick(0, 0).len(), 1);
    ask(&mut engine, host(1), 100, 250);
    assert_eq!(engine.next_deadline(), 350);
    assert_eq!(engine.tick(349, 0), []);
    let out = engine.tick(350, 0);
    assert_eq!(out[0].destination, Destination::Host { address: host(1), mac: mac(2) });
    // Again at once: not answered again.
    ask(&mut engine, host(1), 400, 0);
    assert!(engine.next_deadline() > 1_000);
    ask(&mut engine, host(1), 3_400, 0);
    assert_eq!(engine.tick(3_400, 0).len(), 1);
    // Who has no address is answered with all, at most every three seconds.
    ask(&mut engine, Ipv6Addr::UNSPECIFIED, 3_500, 0);
    assert_eq!(engine.tick(3_500, 0)[0].destination, Destination::AllNodes);
    ask(&mut engine, Ipv6Addr::UNSPECIFIED, 3_600, 0);
    assert_eq!(engine.next_deadline(), 6_500);
}

#[test]
fn what_hosts_can_make_wait_has_limits() {
    let mut engine = Engine::new(router(), 0);
    let _ = engine.tick(0, 0);
    for n in 0..10_000 {
        ask(&mut engine, host(n), 10_000, 500);
    }
    assert_eq!(engine.held().0, 256);
    // The others were many enough for one answer to all.
    let out = engine.tick(10_500, 0);
    assert_eq!(out.iter().filter(|o| o.destination == Destination::AllNodes).count(), 1);
    for round in 0..100u64 {
        let now = 11_000 + round * 10;
        (0..200).for_each(|n| ask(&mut engine, host(n + 200 * round as u16), now, 0));
        let _ = engine.tick(now, 0);
    }
    assert!(engine.held().1 <= 1_024, "{:?}", engine.held());
}

#[test]
fn what_goes_is_taken_back() {
    let mut engine = Engine::new(router(), 0);
    let _ = engine.tick(0, 0);
    let other = Prefix { net: "2001:db8:8::/64".parse().expect("a prefix"), ..router().prefixes[0] };
    engine.update(Router { prefixes: vec![other], ..router() }, 10_000);
    assert_eq!(engine.next_deadline(), 10_000);
    let prefixes = |out: &[Output]| {
        let options = options(&out[0].message).into_iter().filter(|(kind, _)| *kind == 3);
        options.map(|(_, value)| (value[19], value[2..10].iter().any(|b| *b > 0))).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        let now = engine.next_deadline();
        assert_eq!(prefixes(&engine.tick(now, 0)), [(8, true), (7, false)]);
    }
    let now = engine.next_deadline();
    assert_eq!(prefixes(&engine.tick(now, 0)), [(8, true)]);
    let last = engine.cease();
    assert_eq!((last.message[6..8].to_vec(), last.destination), (vec![0, 0], Destination::AllNodes));
}

#[test]
fn only_sound_solicitations_count() {
    let with_source = [SOLICITATION, &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
    assert!(Solicitation::parse(&with_source, host(1), 255).is_some());
    assert_eq!(Solicitation::parse(SOLICITATION, Ipv6Addr::UNSPECIFIED, 255), Some(Solicitation { source: None }));
    assert_eq!(Solicitation::parse(&with_source, Ipv6Addr::UNSPECIFIED, 255), None);
    assert_eq!(Solicitation::parse(&with_source, host(1), 254), None);
    assert_eq!(Solicitation::parse(&[SOLICITATION, &[1, 0, 0, 0, 0, 0, 0, 0]].concat(), host(1), 255), None);
    assert_eq!(Solicitation::parse(&[SOLICITATION, &[1, 2, 0, 0, 0, 0, 0, 0]].concat(), host(1), 255), None);
    assert_eq!(Solicitation::parse(&[134, 0, 0, 0, 0, 0, 0, 0], host(1), 255), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Solicitation::parse(&bytes, host(1), 255);
    }
}
