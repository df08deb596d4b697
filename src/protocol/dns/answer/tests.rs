use super::*;
use crate::{
    net::{DnsLabel, DomainName},
    protocol::dns::NameSource,
};
use proptest::prelude::*;
use uuid::Uuid;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn zone() -> Zone {
    let prefixes = ["192.168.123.0/24", "10.0.0.0/22", "fd00:0:0:7::/64"].map(|p| p.parse().expect("prefix"));
    let domain = DomainName::new("lab.example").expect("domain");
    let mut zone = Zone::new(Uuid::nil(), domain, prefixes, [ip("192.168.123.1"), ip("fd00:0:0:7::1")]).expect("zone");
    let guests: [(u128, &str, &[&str]); 4] = [
        (1, "web", &["192.168.123.10", "fd00:0:0:7::10"]),
        (2, "db", &["10.0.3.20"]),
        (3, "six", &["fd00:0:0:7::30"]),
        (4, "bare", &[]),
    ];
    for (id, label, addresses) in guests {
        let addresses = addresses.iter().map(|a| ip(a)).collect();
        let label = DnsLabel::new(label).expect("label");
        zone.publish(Uuid::from_u128(id), NameSource::Port, label, 0, addresses).expect("room");
    }
    zone
}

/// The answer as a short text: `ADDRESS…`, `nodata SOA`, `nxdomain SOA`, `forward`.
fn ask(name: &str, record_type: RecordType) -> String {
    let name = Name::from_ascii(name).expect("name");
    let soa = |soa: Option<Box<Record>>| match soa {
        Some(soa) => {
            assert!(soa.name.zone_of(&name), "{} is not above {name}", soa.name);
            assert_eq!(soa.record_type(), RecordType::SOA);
            format!(" {}", soa.name)
        }
        None => String::new(),
    };
    match zone().answer(&Question { name: &name, record_type }) {
        Answer::Records(records) => {
            assert!(records.iter().all(|r| r.name.eq_case(&name)), "the question's spelling is kept");
            records.iter().map(|r| r.data.to_string()).collect::<Vec<_>>().join(" ")
        }
        Answer::NoData(s) => format!("nodata{}", soa(s)),
        Answer::NxDomain(s) => format!("nxdomain{}", soa(s)),
        Answer::Forward => "forward".into(),
    }
}

use RecordType as T;

#[test]
fn names_of_the_domain() {
    assert_eq!(ask("web.lab.example.", T::A), "192.168.123.10");
    assert_eq!(ask("WEB.Lab.eXample.", T::AAAA), "fd00:0:0:7::10");
    assert_eq!(ask("web.lab.example.", T::ANY), "192.168.123.10");
    assert_eq!(ask("six.lab.example.", T::ANY), "fd00:0:0:7::30");
    assert_eq!(ask("six.lab.example.", T::A), "nodata lab.example.");
    assert_eq!(ask("web.lab.example.", T::MX), "nodata lab.example.");
    assert_eq!(ask("bare.lab.example.", T::ANY), "nodata lab.example.");
    assert_eq!(ask("none.lab.example.", T::A), "nxdomain lab.example.");
    assert_eq!(ask("a.web.lab.example.", T::A), "nxdomain lab.example.");
    assert_eq!(ask("gateway.lab.example.", T::A), "192.168.123.1");
}

#[test]
fn the_apex_of_the_domain() {
    assert_eq!(ask("lab.example.", T::NS), "gateway.lab.example.");
    assert!(ask("lab.example.", T::SOA).starts_with("gateway.lab.example. hostmaster.lab.example. "));
    assert_eq!(ask("lab.example.", T::A), "nodata lab.example.");
    assert_eq!(ask("example.", T::A), "nxdomain");
    assert_eq!(ask("other.example.", T::A), "forward");
    assert_eq!(ask("notlab.example.", T::A), "forward");
    assert_eq!(ask("*.lab.example.", T::SOA), "nxdomain lab.example.");
    assert_eq!(ask("*.", T::A), "nxdomain");
}

#[test]
fn reverse_names() {
    assert_eq!(ask("10.123.168.192.in-addr.arpa.", T::PTR), "web.lab.example.");
    assert_eq!(ask("10.123.168.192.IN-ADDR.ARPA.", T::A), "nodata 123.168.192.in-addr.arpa.");
    assert_eq!(ask("99.123.168.192.in-addr.arpa.", T::PTR), "nxdomain 123.168.192.in-addr.arpa.");
    assert_eq!(ask("x.10.123.168.192.in-addr.arpa.", T::PTR), "nxdomain 123.168.192.in-addr.arpa.");
    assert_eq!(ask("0-63.123.168.192.in-addr.arpa.", T::NS), "nxdomain 123.168.192.in-addr.arpa.");
    assert_eq!(ask("123.168.192.in-addr.arpa.", T::NS), "gateway.lab.example.");
    assert_eq!(ask("20.3.0.10.in-addr.arpa.", T::PTR), "db.lab.example.");
    assert_eq!(ask("21.3.0.10.in-addr.arpa.", T::PTR), "nxdomain 3.0.10.in-addr.arpa.");
    let v6 = Name::from(ip("fd00:0:0:7::30"));
    assert_eq!(ask(&v6.to_ascii(), T::PTR), "six.lab.example.");
    let apex = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(ask(&Name::from(ip("fd00:0:0:7::31")).to_ascii(), T::PTR), format!("nxdomain {apex}"));
    assert_eq!(ask(&format!("0.{apex}"), T::PTR), format!("nodata {apex}"));
    assert_eq!(ask(apex, T::NS), "gateway.lab.example.");
}

#[test]
fn other_reverse_names_are_the_sites() {
    for name in
        ["1.1.168.192.in-addr.arpa.", "168.192.in-addr.arpa.", "1.4.0.10.in-addr.arpa.", "8.8.8.8.in-addr.arpa."]
    {
        assert_eq!(ask(name, T::PTR), "forward", "{name}");
    }
    assert_eq!(ask("1.0.0.127.in-addr.arpa.", T::PTR), "nxdomain");
}

#[test]
fn names_without_a_dot_stay_here() {
    assert_eq!(ask("web.", T::A), "192.168.123.10");
    assert_eq!(ask("Web.", T::HTTPS), "nodata");
    assert_eq!(ask("none.", T::A), "nxdomain");
    assert_eq!(ask("none.", T::HTTPS), "nxdomain");
    assert_eq!(ask("web.", T::DS), "nodata");
    assert_eq!(ask("com.", T::DS), "forward");
    assert_eq!(ask(".", T::NS), "forward");
}

#[test]
fn special_names() {
    assert_eq!(ask("localhost.", T::A), "127.0.0.1");
    assert_eq!(ask("x.localhost.", T::AAAA), "::1");
    assert_eq!(ask("localhost.", T::MX), "nodata");
    assert_eq!(ask("x.invalid.", T::A), "nxdomain");
    assert_eq!(ask("_dns.resolver.arpa.", T::SVCB), "nodata");
    assert_eq!(ask("www.example.com.", T::A), "forward");
    assert_eq!(ask("printer.local.", T::A), "forward");
}

/// Labels that are near the zone's own, or any bytes at all.
fn labels() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let known = prop::sample::select(vec![
        "web",
        "WEB",
        "db",
        "six",
        "gateway",
        "lab",
        "example",
        "arpa",
        "in-addr",
        "ip6",
        "192",
        "168",
        "123",
        "10",
        "0",
        "3",
        "f",
        "d",
        "localhost",
        "com",
        "7",
        "*",
    ]);
    let label = prop_oneof![
        8 => known.prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..20),
    ];
    let tail = prop::sample::select(vec!["", "lab.example", "123.168.192.in-addr.arpa", "3.0.10.in-addr.arpa"]);
    (prop::collection::vec(label, 0..6), tail).prop_map(|(mut labels, tail)| {
        labels.extend(tail.split('.').filter(|l| !l.is_empty()).map(|l| l.as_bytes().to_vec()));
        labels
    })
}

proptest! {
    #[test]
    fn an_answer_names_only_what_is_in_the_zone(labels in labels(), number in any::<u16>(), usual in any::<bool>()) {
        let zone = zone();
        let name = Name::from_labels(labels.iter().map(Vec::as_slice)).expect("short labels");
        let record_type = if usual { [T::A, T::AAAA, T::PTR, T::ANY][usize::from(number) % 4] } else { number.into() };
        let addresses: Vec<IpAddr> = zone.names().flat_map(|(_, a)| a.to_vec()).collect();
        let names: Vec<String> = zone.names().map(|(n, _)| format!("{n}.lab.example.")).collect();
        let local = name.iter().next_back().is_some_and(|l| l.eq_ignore_ascii_case(b"localhost"));
        match zone.answer(&Question { name: &name, record_type }) {
            Answer::Records(records) => {
                prop_assert!(!records.is_empty());
                for record in records {
                    prop_assert_eq!(&record.name, &name);
                    match record.data {
                        RData::A(a) => prop_assert!(local || addresses.contains(&IpAddr::V4(a.0))),
                        RData::AAAA(a) => prop_assert!(local || addresses.contains(&IpAddr::V6(a.0))),
                        RData::PTR(p) => prop_assert!(names.contains(&p.0.to_ascii())),
                        RData::NS(n) => prop_assert!(names.contains(&n.0.to_ascii())),
                        RData::SOA(_) => {}
                        other => prop_assert!(false, "unexpected {other}"),
                    }
                }
            }
            Answer::NoData(Some(soa)) | Answer::NxDomain(Some(soa)) => prop_assert!(soa.name.zone_of(&name)),
            Answer::NoData(None) | Answer::NxDomain(None) => {}
            Answer::Forward => prop_assert!(!zone.apex.zone_of(&name)),
        }
    }
}
