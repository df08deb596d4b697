use super::super::*;
use crate::intent::rule::tests::any_rule;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

/// Draft by draft, as the loop does it.
#[derive(Debug, Default)]
struct Desk {
    intent: Intent,
    made: u128,
}

impl Desk {
    fn apply(&mut self, change: Change) -> Result<(), String> {
        let before = self.intent.clone();
        let result = self.intent.apply(vec![change], &HostConfig::default()).map(drop);
        if result.is_err() {
            assert_eq!(self.intent, before, "a refused change has changed something");
        }
        result.map_err(|error| error.to_string())
    }

    fn id(&mut self) -> Uuid {
        self.made += 1;
        Uuid::from_u128(self.made)
    }

    fn group(&mut self, fields: Value) -> Result<SecurityGroup, String> {
        let draft: SecurityGroupDraft = serde_json::from_value(fields).map_err(|error| error.to_string())?;
        let group = draft.complete(SecurityGroupId(self.id()), &self.intent).map_err(|error| error.to_string())?;
        self.apply(Change::PutSecurityGroup(group.clone())).map(|()| group)
    }

    fn addresses(&mut self, fields: Value) -> Result<AddressGroup, String> {
        let draft: AddressGroupDraft = serde_json::from_value(fields).map_err(|error| error.to_string())?;
        let group = draft.complete(AddressGroupId(self.id()));
        self.apply(Change::PutAddressGroup(group.clone())).map(|()| group)
    }

    fn network(&mut self, fields: Value) -> Result<Network, String> {
        let draft: NetworkDraft = serde_json::from_value(fields).map_err(|error| error.to_string())?;
        let old = self.intent.find_network(draft.name.as_str()).ok().cloned();
        let id = old.as_ref().map_or_else(|| NetworkId(self.id()), |old| old.id);
        let network = draft.complete(id, &self.intent, old.as_ref()).map_err(|error| error.to_string())?;
        self.apply(Change::PutNetwork(network.clone())).map(|()| network)
    }

    fn port(&mut self, fields: Value) -> Result<Port, String> {
        let draft: PortDraft = serde_json::from_value(fields).map_err(|error| error.to_string())?;
        let old = draft.name.as_ref().and_then(|name| self.intent.find_port(name.as_str()).ok()).cloned();
        let id = old.as_ref().map_or_else(|| PortId(self.id()), |old| old.id);
        let port = draft.complete(id, &self.intent, old.as_ref(), |_, _| false).map_err(|error| error.to_string())?;
        self.apply(Change::PutPort(port.clone())).map(|()| port)
    }
}

fn told<T: std::fmt::Debug>(result: Result<T, String>, part: &str) {
    let text = result.expect_err(part);
    assert!(text.contains(part), "'{text}' does not say '{part}'");
}

#[test]
fn groups_are_checked() {
    let mut desk = Desk::default();
    let web = desk.group(json!({"name": "web", "rules": ["ingress tcp 80 from group web"]})).expect("its own group");
    assert_eq!(web.rules[0].remote, Remote::Group(web.id));
    let open = desk.group(json!({"name": "open"})).expect("a group");
    assert_eq!(
        open.rules.iter().map(|r| r.text(&desk.intent, &open)).collect::<Vec<_>>(),
        ["egress ipv4 any", "egress ipv6 any"]
    );
    told(desk.group(json!({"name": "web"})), "a security group named 'web' exists already");
    told(
        desk.group(json!({"name": "twice", "rules": ["ingress tcp 80", "ingress ipv4 tcp 80-80"]})),
        "security group 'twice' has the rule 'ingress ipv4 tcp 80' already",
    );
    told(
        desk.group(json!({"name": "twice", "rules": ["ingress from 0.0.0.0/0", "ingress ipv4"]})),
        "'ingress ipv4 any' already",
    );
    told(desk.group(json!({"name": "x", "rules": ["ingress from group dbs"]})), "there is no security group 'dbs'");
    told(desk.group(json!({"name": "x", "rules": ["egress to address-group dc"]})), "there is no address group 'dc'");
    told(desk.group(json!({"name": "x", "rules": ["ingress tcp 90-80"]})), "write the lower one first");
    told(desk.group(json!({"name": "x", "rules": ["ingress ipv6 43"]})), "extension header");
    told(
        desk.group(json!({"name": "x", "rules": [{"direction": "egress", "protocol": "icmp", "icmp_code": 1}]})),
        "an ICMP code needs its type",
    );
    told(desk.group(json!({"name": "x", "description": "x".repeat(256)})), "too long");
    told(desk.group(json!({"name": "x", "description": "a\u{7}b"})), "control characters");
    let rules: Vec<String> = (1..=1001).map(|port| format!("ingress ipv4 tcp {port}")).collect();
    told(desk.group(json!({"name": "x", "rules": rules})), "1000 are the most");
    desk.group(json!({"name": "x", "rules": rules[..1000]})).expect("as many as may be");
}

#[test]
fn what_is_used_stays() {
    let mut desk = Desk::default();
    let default = SecurityGroup::default_group().expect("a constant");
    desk.apply(Change::PutSecurityGroup(default.clone())).expect("the first");
    told(desk.apply(Change::DeleteSecurityGroup(default.id)), "'default' is not deleted");
    let renamed = SecurityGroup { name: ResourceName::new("other").expect("a name"), ..default };
    told(desk.apply(Change::PutSecurityGroup(renamed)), "keeps its name");

    let web = desk.group(json!({"name": "web", "rules": ["ingress from group web"]})).expect("made");
    let dc = desk.addresses(json!({"name": "dc", "addresses": ["192.0.2.1", "2001:db8::/32"]})).expect("made");
    desk.network(json!({"name": "lab", "security_groups": ["web"]})).expect("made");
    desk.port(json!({"network": "lab", "name": "p", "security_groups": ["web"]})).expect("made");
    let db = desk.group(json!({"name": "db", "rules": ["ingress from group web", "egress to address-group dc"]}));
    let db = db.expect("made");
    told(
        desk.apply(Change::DeleteSecurityGroup(web.id)),
        "security group 'web' is in use by network 'lab', port 'p', a rule of security group 'db'",
    );
    told(desk.apply(Change::DeleteAddressGroup(dc.id)), "in use by a rule of security group 'db'");
    desk.apply(Change::DeleteSecurityGroup(db.id)).expect("nobody uses it");
    desk.apply(Change::DeleteAddressGroup(dc.id)).expect("nobody uses it any more");
    desk.network(json!({"name": "lab"})).expect("changed");
    desk.port(json!({"network": "lab", "name": "p"})).expect("changed");
    // That its own rules name it does not keep it.
    desk.apply(Change::DeleteSecurityGroup(web.id)).expect("nobody uses it any more");
    told(desk.apply(Change::DeleteSecurityGroup(web.id)), "there is no security group");
}

#[test]
fn address_groups_are_checked() {
    let mut desk = Desk::default();
    desk.addresses(json!({"name": "dc", "addresses": ["192.0.2.1"]})).expect("made");
    told(desk.addresses(json!({"name": "dc"})), "an address group named 'dc' exists already".trim_start_matches("an "));
    told(desk.addresses(json!({"name": "x", "addresses": ["192.0.2.1/24"]})), "did you mean 192.0.2.0/24");
    told(desk.addresses(json!({"name": "x", "addresses": ["here"]})), "neither an address nor a prefix");
    let many: Vec<String> = (0..10_001).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    told(desk.addresses(json!({"name": "x", "addresses": many})), "10000 are the most");
    desk.addresses(json!({"name": "x", "addresses": many[..10_000]})).expect("as many as may be");
}

#[test]
fn ports_are_checked() {
    let mut desk = Desk::default();
    for (name, stateful) in [("a", true), ("b", true), ("c", false)] {
        desk.group(json!({"name": name, "stateful": stateful})).expect("made");
    }
    desk.network(json!({"name": "lab"})).expect("made");
    let port = |more: Value| {
        let mut fields = json!({"network": "lab", "name": "p"});
        fields.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        fields
    };
    told(desk.port(port(json!({"security_groups": ["a", "c"]}))), "'a' is stateful and 'c' is stateless");
    told(desk.port(port(json!({"security_groups": ["d"]}))), "there is no security group 'd'");
    told(desk.port(port(json!({"dscp": 64}))), "DSCPs are 0 to 63");
    told(desk.port(port(json!({"egress_kbps": 0}))), "a rate of 0");
    told(desk.port(port(json!({"ingress_burst_kb": 9}))), "ingress_burst_kb needs ingress_kbps");
    told(desk.port(port(json!({"allowed_address_pairs": ["192.0.2.1/24"]}))), "did you mean");
    told(desk.port(port(json!({"allowed_address_pairs": ["192.0.2.1,ff:ff:ff:ff:ff:ff"]}))), "unicast");
    told(desk.port(port(json!({"allowed_address_pairs": ["192.0.2.1", "192.0.2.1/32"]}))), "twice");
    let pairs: Vec<String> = (0..65).map(|n| format!("192.0.2.{n}")).collect();
    told(desk.port(port(json!({"allowed_address_pairs": pairs}))), "64 are the most");
    told(desk.port(port(json!({"port_security": false, "security_groups": ["a"]}))), "which need port security");
    told(desk.port(port(json!({"port_security": false, "allowed_address_pairs": ["192.0.2.1"]}))), "mean nothing");
    let made = desk.port(port(json!({"security_groups": ["a", "b"], "allowed_address_pairs":
        ["192.0.2.0/24", ["2001:db8::1", "52:54:00:00:00:01"], ["192.0.2.7", ""]],
        "egress_kbps": 1000, "ingress_kbps": 2000, "ingress_burst_kb": 99, "dscp": 46, "isolated": true})));
    let made = made.expect("valid");
    assert_eq!(made.security.address_pairs.len(), 3);
    let again = PortDraft::of(&made).complete(made.id, &desk.intent, Some(&made), |_, _| false).expect("complete");
    assert_eq!(again, made);

    // What others change may not loosen it either.
    told(desk.network(json!({"name": "lab", "port_security": false})), "port 'p' has security groups");
    let a = desk.intent.find_security_group("a").expect("there").clone();
    told(
        desk.apply(Change::PutSecurityGroup(SecurityGroup { stateful: false, ..a })),
        "security group 'a' cannot become stateless: port 'p' has it beside 'b'",
    );
    let empty = desk.port(port(json!({"security_groups": [], "port_security": false}))).expect("in no group");
    assert_eq!(empty.security.groups, Some([].into()));
    desk.network(json!({"name": "lab", "port_security": false})).expect("nobody is in a group");
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let group = (1u128..4, 0usize..4, any::<bool>(), prop::collection::vec(any_rule(), 0..4)).prop_map(
        |(id, name, stateful, rules)| {
            let id = SecurityGroupId(Uuid::from_u128(id));
            let name = ResourceName::new(["web", "db", "dc", "x"][name]).expect("a name");
            let numbered = rules.into_iter().enumerate();
            let rules = numbered.map(|(n, rule)| Rule { id: Uuid::from_u128(n as u128), ..rule }).collect();
            Change::PutSecurityGroup(SecurityGroup { id, name, description: String::new(), stateful, rules })
        },
    );
    let addresses = (8u128..10, 0usize..3).prop_map(|(id, name)| {
        let name = ResourceName::new(["dc", "lan", "x"][name]).expect("a name");
        let addresses = [parse_prefix("192.0.2.0/24").expect("a prefix")].into();
        Change::PutAddressGroup(AddressGroup {
            id: AddressGroupId(Uuid::from_u128(id)),
            name,
            description: String::new(),
            addresses,
        })
    });
    let groups = || prop::collection::btree_set((1u128..4).prop_map(|id| SecurityGroupId(Uuid::from_u128(id))), 0..3);
    let network = (groups(), any::<bool>()).prop_map(|(groups, port_security)| {
        let name = ResourceName::new("lab").expect("a name");
        let id = NetworkId(Uuid::from_u128(20));
        let network = NetworkDraft::named(name).complete(id, &Intent::default(), None).expect("complete");
        let security = NetworkSecurity { port_security, groups, isolated: false };
        Change::PutNetwork(Network { security, ..network })
    });
    let port = (30u8..34, prop::option::of(groups()), any::<Option<bool>>()).prop_map(|(n, groups, port_security)| {
        Change::PutPort(Port {
            id: PortId(Uuid::from_u128(n.into())),
            network: NetworkId(Uuid::from_u128(20)),
            name: None,
            mac: crate::net::MacAddr::local([0, 0, 0, n]),
            fixed_ips: Vec::new(),
            trunk: None,
            dns_name: None,
            dhcp_options: Vec::new(),
            dhcp_boot: Vec::new(),
            dhcp_client_id: None,
            device: None,
            security: PortSecurity { groups, port_security, ..PortSecurity::default() },
            origin: Origin::Admin,
        })
    });
    let delete = (1u128..34).prop_map(|id| match id {
        1..8 => Change::DeleteSecurityGroup(SecurityGroupId(Uuid::from_u128(id))),
        8..20 => Change::DeleteAddressGroup(AddressGroupId(Uuid::from_u128(id))),
        20..24 => Change::DeleteNetwork(NetworkId(Uuid::from_u128(20))),
        _ => Change::DeletePort(PortId(Uuid::from_u128(id))),
    });
    prop::collection::vec(prop_oneof![3 => group, 1 => addresses, 1 => network, 3 => port, 1 => delete], 1..40)
}

/// What the checks promise of the whole.
fn assert_valid(intent: &Intent) {
    for group in intent.security_groups() {
        for rule in &group.rules {
            match rule.remote {
                Remote::Group(id) => assert!(intent.security_group(id).is_some()),
                Remote::AddressGroup(id) => assert!(intent.address_group(id).is_some()),
                Remote::Prefix(prefix) => assert_eq!(prefix.trunc(), prefix),
                Remote::Any | Remote::Host => {}
            }
        }
        let said: std::collections::BTreeSet<_> = group.rules.iter().map(|rule| format!("{:?}", rule.says())).collect();
        assert_eq!(said.len(), group.rules.len());
    }
    let names: std::collections::BTreeSet<_> = intent.security_groups().map(|group| &group.name).collect();
    assert_eq!(names.len(), intent.security_groups().len());
    for port in intent.ports() {
        let network = intent.network(port.network).expect("its network");
        let protection = Protection::of(&network.security, &port.security);
        let groups = protection.groups.into_iter().flatten();
        let kinds: std::collections::BTreeSet<_> =
            groups.map(|id| intent.security_group(*id).expect("its group").stateful).collect();
        assert!(kinds.len() <= 1);
        let own = port.security.groups.as_ref().is_some_and(|groups| !groups.is_empty());
        assert!(protection.port_security || !own);
    }
}

proptest! {
    #[test]
    fn every_change_leaves_a_valid_whole_and_can_be_undone(changes in changes()) {
        let mut intent = Intent::default();
        let mut undos = Vec::new();
        for change in changes {
            let before = intent.clone();
            match intent.apply(vec![change], &HostConfig::default()) {
                Ok(undo) => undos.push((before, undo)),
                Err(_) => prop_assert_eq!(&intent, &before),
            }
            assert_valid(&intent);
        }
        while let Some((before, undo)) = undos.pop() {
            intent.undo(undo);
            prop_assert_eq!(&intent, &before);
        }
    }
}
