use super::*;
use crate::{
    net::{DnsLabel, DomainName},
    protocol::dns::{Budget, Client, Engine, NameSource, Policy, Verdict, View},
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
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

/// What a guest of that zone gets for a question, or `None` where an upstream resolver is asked.
fn message(zone: &Zone, name: Name, record_type: RecordType) -> Option<Message> {
    let mut question = Message::new(1, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, record_type));
    let mut engine = Engine::<()>::new(Budget::default());
    let (policy, mut out) = (Policy::default(), Vec::new());
    let view = View { zone, visible: &[], policy: &policy, zones_only: false };
    let client = Client { address: ip("192.168.123.77"), udp: false };
    let bytes = question.to_vec().expect("encodes");
    match engine.query(std::time::Duration::from_secs(9), &view, client, &bytes, &mut out, || ()) {
        Verdict::Answer => {
            let answer = Message::from_vec(&out).expect("a readable answer");
            assert!(answer.queries == question.queries || answer.metadata.response_code == ResponseCode::FormErr);
            Some(answer)
        }
        Verdict::Ask(_) => None,
        other => panic!("{other:?}"),
    }
}

fn is_soa(record: &Record, name: &Name) {
    assert!(record.name.zone_of(name), "{} is not above {name}", record.name);
    assert_eq!(record.record_type(), RecordType::SOA);
}

/// The answer as a short text: `ADDRESS…`, `nodata SOA`, `nxdomain SOA`, `forward`.
fn ask(name: &str, record_type: RecordType) -> String {
    ask_of(&zone(), name, record_type)
}

fn ask_of(zone: &Zone, name: &str, record_type: RecordType) -> String {
    let name = Name::from_ascii(name).expect("name");
    let Some(answer) = message(zone, name.clone(), record_type) else { return "forward".into() };
    let soa = answer.authorities.first().map(|soa| {
        is_soa(soa, &name);
        format!(" {}", soa.name)
    });
    assert!(answer.answers.first().is_none_or(|r| r.name.eq_case(&name)), "the question's spelling is kept");
    let data: Vec<_> = answer.answers.iter().map(|r| r.data.to_string()).collect();
    match (answer.metadata.response_code, data.is_empty()) {
        (ResponseCode::NoError, false) => data.join(" "),
        (ResponseCode::NoError, true) => format!("nodata{}", soa.unwrap_or_default()),
        (ResponseCode::NXDomain, _) => format!("{}nxdomain{}", data.join(" "), soa.unwrap_or_default()),
        (other, _) => other.to_string(),
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
    assert_eq!(ask("10.123.168.192.IN-ADDR.ARPA.", T::A), "nodata 123.168.192.IN-ADDR.ARPA.");
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
    fn an_answer_names_only_what_is_in_the_zone(labels in labels(), number in 1..=u16::MAX, usual in any::<bool>()) {
        let zone = zone();
        let name = Name::from_labels(labels.iter().map(Vec::as_slice)).expect("short labels");
        let record_type = if usual { [T::A, T::AAAA, T::PTR, T::ANY][usize::from(number) % 4] } else { number.into() };
        let addresses: Vec<IpAddr> = zone.names().flat_map(|(_, a)| a.to_vec()).collect();
        let names: Vec<String> = zone.names().map(|(n, _)| format!("{n}.lab.example.")).collect();
        let local = name.iter().next_back().is_some_and(|l| l.eq_ignore_ascii_case(b"localhost"));
        let Some(answer) = message(&zone, name.clone(), record_type) else {
            let apex = Name::from_ascii("lab.example.").expect("name");
            prop_assert!(!apex.zone_of(&name));
            return Ok(());
        };
        // Types of the message layer are no questions.
        if answer.metadata.response_code == ResponseCode::FormErr || answer.metadata.response_code == ResponseCode::Refused {
            prop_assert!(matches!(number, 0 | 41 | 249..=254));
            return Ok(());
        }
        for record in &answer.answers {
            prop_assert_eq!(&record.name, &name);
            match &record.data {
                RData::A(a) => prop_assert!(local || addresses.contains(&IpAddr::V4(a.0))),
                RData::AAAA(a) => prop_assert!(local || addresses.contains(&IpAddr::V6(a.0))),
                RData::PTR(p) => prop_assert!(names.contains(&p.0.to_ascii())),
                RData::NS(n) => prop_assert!(names.contains(&n.0.to_ascii())),
                RData::SOA(_) => {}
                other => prop_assert!(false, "unexpected {other}"),
            }
        }
        answer.authorities.iter().for_each(|soa| is_soa(soa, &name));
    }
}

#[test]
fn records_that_people_wrote_down() {
    let mut zone = zone();
    let lines = [
        "mail A 192.168.123.25",
        "mail AAAA fd00:0:0:7::25",
        "@ MX 10 mail",
        "@ MX 20 mx.example.org",
        "@ TXT \"v=spf1 mx\" -all",
        "_sip._tcp 60 SRV 0 5 5060 mail",
        "www CNAME web",
        "out CNAME www.example.org.",
        "loop CNAME loop2",
        "loop2 CNAME loop",
        "*.dev A 192.168.123.80",
        "db A 192.168.123.99",
        "web TXT hello",
    ];
    let records: Vec<crate::net::DnsRecord> = lines.iter().map(|line| line.parse().expect(line)).collect();
    assert_eq!(zone.set_records(&records), Vec::<&crate::net::DnsRecord>::new());
    let ask = |name: &str, kind| ask_of(&zone, name, kind);
    assert_eq!(ask("MAIL.lab.example.", T::A), "192.168.123.25");
    assert_eq!(ask("mail.", T::AAAA), "fd00:0:0:7::25");
    assert_eq!(ask("lab.example.", T::MX), "10 mail.lab.example. 20 mx.example.org.");
    assert_eq!(ask("lab.example.", T::TXT), "v=spf1 mx-all", "two strings, shown joined");
    assert_eq!(ask("_sip._tcp.lab.example.", T::SRV), "0 5 5060 mail.lab.example.");
    assert_eq!(ask("_tcp.lab.example.", T::SRV), "nodata lab.example.", "a name that only has others below it");
    assert_eq!(ask("www.lab.example.", T::A), "web.lab.example. 192.168.123.10");
    assert_eq!(ask("www.lab.example.", T::CNAME), "web.lab.example.");
    assert_eq!(ask("www.lab.example.", T::MX), "web.lab.example.", "and no such record");
    assert_eq!(ask("out.lab.example.", T::A), "forward");
    assert_eq!(ask("loop.lab.example.", T::A), ResponseCode::ServFail.to_string());
    assert_eq!(ask("a.dev.lab.example.", T::A), "192.168.123.80");
    assert_eq!(ask("a.b.dev.lab.example.", T::A), "192.168.123.80");
    assert_eq!(ask("a.dev.lab.example.", T::AAAA), "nodata lab.example.");
    assert_eq!(ask("dev.lab.example.", T::A), "nodata lab.example.");
    assert_eq!(ask("a.mail.lab.example.", T::A), "nxdomain lab.example.");
    assert_eq!(ask("db.lab.example.", T::A), "192.168.123.99", "a person's word counts more");
    assert_eq!(ask("web.lab.example.", T::A), "192.168.123.10", "a text beside a guest's address");
    assert_eq!(ask("web.lab.example.", T::TXT), "hello");
    assert_eq!(ask("25.123.168.192.in-addr.arpa.", T::PTR), "mail.lab.example.");
    assert_eq!(ask("10.123.168.192.in-addr.arpa.", T::PTR), "web.lab.example.");
    zone.set_local(false);
    assert_eq!(ask_of(&zone, "none.lab.example.", T::A), "forward");
    zone.set_records([]);
    assert_eq!(ask_of(&zone, "db.lab.example.", T::A), "10.0.3.20");
}
