use super::*;
use crate::intent::{AddressGroup, AddressGroupId, Change, HostConfig, ResourceName, SecurityGroupId};
use proptest::prelude::*;
use serde_json::json;

fn texts(text: &str) -> Vec<String> {
    let rules = RuleDraft::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    rules.iter().map(ToString::to_string).collect()
}

fn refused(text: &str) -> String {
    RuleDraft::parse(text).expect_err(text).to_string()
}

#[test]
fn lines_become_rules() {
    for (line, meant) in [
        ("ingress ipv4 tcp 22 from 192.0.2.0/24", &["ingress ipv4 tcp 22 from 192.0.2.0/24"][..]),
        ("in tcp 22 from 2001:db8::7", &["ingress ipv6 tcp 22 from 2001:db8::7/128"]),
        (
            "ingress tcp 8000-8080 from group web",
            &["ingress ipv4 tcp 8000-8080 from group web", "ingress ipv6 tcp 8000-8080 from group web"],
        ),
        ("egress any", &["egress ipv4 any", "egress ipv6 any"]),
        ("egress", &["egress ipv4 any", "egress ipv6 any"]),
        ("egress to any", &["egress ipv4 any", "egress ipv6 any"]),
        ("ingress icmp 8/0 from host", &["ingress ipv4 icmp 8/0 from host"]),
        ("ingress icmp", &["ingress ipv4 icmp", "ingress ipv6 icmpv6"]),
        ("ingress 1", &["ingress ipv4 icmp", "ingress ipv6 icmpv6"]),
        ("ingress ipv6 icmp 128/0", &["ingress ipv6 icmpv6 128/0"]),
        ("ingress icmp echo-request", &["ingress ipv4 icmp 8", "ingress ipv6 icmpv6 128"]),
        ("ingress icmp packet-too-big", &["ingress ipv4 icmp 3/4", "ingress ipv6 icmpv6 2"]),
        ("ingress icmpv6 echo-request", &["ingress ipv6 icmpv6 128"]),
        (
            "egress 47 to address-group dc",
            &["egress ipv4 gre to address-group dc", "egress ipv6 gre to address-group dc"],
        ),
        ("egress ipv4 200", &["egress ipv4 200"]),
        ("ingress ipv4 udp 0-65535", &["ingress ipv4 udp"]),
        ("  ingress\tipv4   esp  ", &["ingress ipv4 esp"]),
        // A group may be called as a word of the language.
        ("ingress ipv4 any from group any", &["ingress ipv4 any from group any"]),
    ] {
        assert_eq!(texts(line), meant, "{line}");
    }
}

#[test]
fn what_is_no_rule_says_what_would_be() {
    for (line, part) in [
        ("", "begins with ingress or egress"),
        ("allow tcp", "not with 'allow'"),
        ("ingress tcpp 22", "'tcpp' is no protocol"),
        ("ingress tcp ssh", "'ssh' is no port"),
        ("ingress tcp 65536", "no port"),
        ("ingress tcp 22-", "no port"),
        ("ingress tcp +22", "no port"),
        ("ingress gre 22", "gre has no ports"),
        ("ingress icmp 8/x", "no ICMP type"),
        ("ingress icmp 256", "no ICMP type"),
        ("ingress any 22", "'22' is not understood"),
        ("ingress tcp 22 to 192.0.2.1", "ingress goes with 'from'"),
        ("egress from host", "egress goes with 'to'"),
        ("ingress from", "after 'from' comes"),
        ("ingress from group", "neither an address"),
        ("ingress from host x", "after 'from' comes"),
        ("ingress from group a b", "'b' is too much"),
        ("ingress from 192.0.2.1/24", "did you mean 192.0.2.0/24"),
        ("ingress ipv6 from 192.0.2.0/24", "other family"),
        ("ingress ipv4 icmpv6", "icmpv6 for ipv6"),
        ("ingress icmp 8 from 2001:db8::/32", "icmpv6 for ipv6"),
    ] {
        let told = refused(line);
        assert!(told.contains(part), "{line}: {told}");
    }
    assert!(!refused("ingress \x1b[31m").contains('\x1b'));
    assert!(refused(&"x".repeat(10_000)).len() < 200);
}

#[test]
fn fields_become_rules() {
    let read = |value: serde_json::Value| serde_json::from_value::<RuleDrafts>(value);
    let rules = read(json!({"direction": "ingress", "ethertype": "ipv4", "protocol": 6, "port_range_min": 22,
        "remote_group": "web", "description": "ssh"}));
    assert_eq!(rules.expect("valid").0[0].to_string(), "ingress ipv4 tcp 22 from group web");
    let rules = read(json!({"rule": "egress any", "description": "all"})).expect("valid").0;
    assert_eq!((rules.len(), rules[1].description.as_str()), (2, "all"));
    for (bad, part) in [
        (json!({"direction": "ingress", "colour": "red"}), "unknown field `colour`"),
        (json!({"ethertype": "ipv4"}), "direction is missing"),
        (json!({"rule": "egress any", "protocol": "tcp"}), "leave the other keys out"),
        (json!({"direction": "egress", "port_range_min": 1}), "need a protocol"),
        (json!({"direction": "egress", "protocol": "tcp", "port_range_max": 1}), "needs port_range_min"),
        (json!({"direction": "egress", "protocol": "tcp", "icmp_type": 1}), "go with icmp"),
        (json!({"direction": "egress", "protocol": "icmp", "port_range_min": 1}), "no ports"),
        (json!({"direction": "egress", "protocol": 256}), "256 is no protocol"),
        (json!({"direction": "egress", "remote_host": true, "remote_group": "a"}), "give one of"),
        (json!(7), "a rule in one line"),
    ] {
        let told = read(bad.clone()).expect_err("refused").to_string();
        assert!(told.contains(part), "{bad}: {told}");
    }
}

fn group(n: u128, name: &str) -> SecurityGroup {
    let name = ResourceName::new(name).expect("a name");
    let id = SecurityGroupId(Uuid::from_u128(n));
    SecurityGroup { id, name, description: String::new(), stateful: true, rules: Vec::new() }
}

/// Groups web and db, address group dc.
pub(crate) fn populated() -> Intent {
    let mut intent = Intent::default();
    let name = ResourceName::new("dc").expect("a name");
    let id = AddressGroupId(Uuid::from_u128(9));
    let dc = AddressGroup { id, name, description: String::new(), addresses: [].into() };
    let changes = [Change::PutSecurityGroup(group(1, "web")), Change::PutSecurityGroup(group(2, "db"))];
    let _ = intent
        .apply(changes.into_iter().chain([Change::PutAddressGroup(dc)]).collect(), &HostConfig::default())
        .expect("valid");
    intent
}

pub(crate) fn any_rule() -> impl Strategy<Value = Rule> {
    let direction = prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
    let ethertype = prop_oneof![Just(Ethertype::Ipv4), Just(Ethertype::Ipv6)];
    let protocol = prop_oneof![
        Just(Protocol::Any),
        (prop::sample::select(vec![6u8, 17, 33, 132, 136]), any::<u16>(), any::<u16>())
            .prop_map(|(protocol, a, b)| { Protocol::Ports { protocol, first: a.min(b), last: a.max(b) } }),
        (any::<Option<u8>>(), any::<Option<u8>>())
            .prop_map(|(kind, code)| Protocol::Icmp { kind, code: code.filter(|_| kind.is_some()) }),
        any::<u8>()
            .prop_filter("a protocol", |n| !protocol::is_extension_header(*n) && ![1, 58].contains(n))
            .prop_map(|protocol| Protocol::Number { protocol }),
    ];
    let remote = prop_oneof![
        Just(Remote::Any),
        Just(Remote::Host),
        Just(Remote::Group(SecurityGroupId(Uuid::from_u128(1)))),
        Just(Remote::Group(SecurityGroupId(Uuid::from_u128(2)))),
        Just(Remote::AddressGroup(AddressGroupId(Uuid::from_u128(9)))),
        (any::<u128>(), 0u8..=128).prop_map(|(bits, len)| {
            // The family is put right below.
            Remote::Prefix(IpNet::new(IpAddr::V6(bits.into()), len).expect("a length").trunc())
        }),
    ];
    (direction, ethertype, protocol, remote, "[a-z ]{0,20}").prop_map(
        |(direction, ethertype, protocol, remote, description)| {
            let remote = match (remote, ethertype) {
                (Remote::Prefix(IpNet::V6(prefix)), Ethertype::Ipv4) => {
                    let bits = u32::try_from(u128::from(prefix.addr()) >> 96).unwrap_or_default();
                    Remote::Prefix(IpNet::new(IpAddr::V4(bits.into()), prefix.prefix_len() / 4).expect("len").trunc())
                }
                (remote, _) => remote,
            };
            Rule { id: Uuid::nil(), direction, ethertype, protocol, remote, description }
        },
    )
}

proptest! {
    #[test]
    fn rules_survive_their_text_and_their_fields(rule in any_rule()) {
        let intent = populated();
        let web = group(1, "web");
        let rule = RuleDraft::of(&rule).complete(&intent, &web).expect("complete");
        let line = rule.text(&intent, &web);
        let parsed = RuleDraft::parse(&line).expect("its own text");
        prop_assert_eq!(parsed.len(), 1);
        let again = RuleDraft { description: rule.description.clone(), ..parsed[0].clone() };
        prop_assert_eq!(&again.complete(&intent, &web).expect("complete"), &rule);
        let fields = serde_json::to_value(RuleDraft::of(&rule)).expect("JSON");
        let read: RuleDrafts = serde_json::from_value(fields).expect("its own fields");
        prop_assert_eq!(read.0.len(), 1);
        prop_assert_eq!(&read.0[0].clone().complete(&intent, &web).expect("complete"), &rule);
    }

    #[test]
    fn no_text_panics(text in "(ingress|egress|ipv4|ipv6|tcp|icmp|[0-9/.:-]{1,9}|from|to|group|host|any| |\\PC){0,12}") {
        if let Ok(rules) = RuleDraft::parse(&text) {
            for rule in rules {
                prop_assert_eq!(RuleDraft::parse(&rule.to_string()).expect("its own text"), vec![rule]);
            }
        }
    }
}
