//! Security groups and address groups on the bus.

use super::{Bench, within};
use crate::dbus::{Kind, proxy::ResourceProxy, to_json};
use serde_json::{Value, json};
use std::collections::HashMap;
use zbus::Variant;

async fn resource(bench: &Bench, kind: Kind, path: &str) -> ResourceProxy<'static> {
    let path = zbus::ObjectPath::try_from(path.to_owned()).expect("a path").into();
    ResourceProxy::new(&bench.client, kind, path).await.expect("a proxy")
}

async fn show(bench: &Bench, path: &str, kind: Kind) -> Value {
    let properties = bench.properties(path, kind.interface()).await;
    let field = |(key, value): (&String, &zbus::OwnedVariant)| (key.clone(), to_json(value).expect("plain"));
    Value::Object(properties.iter().map(field).collect())
}

fn keys<const N: usize>(entries: [(&'static str, Variant<'static>); N]) -> HashMap<&'static str, Variant<'static>> {
    entries.into()
}

#[tokio::test]
async fn rules_come_and_go() {
    let bench = Bench::start().await;
    bench.populate().await;
    let path = bench.manager().await.get_security_group("web").await.expect("there");
    let web = resource(&bench, Kind::SecurityGroup, &path).await;
    let ids = within(web.add_rule(&keys([
        ("direction", "ingress".into()),
        ("ethertype", "ipv4".into()),
        ("protocol", "tcp".into()),
        ("port_range_min", Variant::U16(8000)),
        ("port_range_max", Variant::U16(8080)),
        ("remote_address_group", "dc".into()),
        ("description", "from the data centre".into()),
    ])))
    .await
    .expect("added");
    let dc = bench.core.view().intent.find_address_group("dc").expect("there").id.to_string();
    let shown = show(&bench, &path, Kind::SecurityGroup).await;
    assert_eq!(shown["Rules"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        shown["Rules"][2],
        json!({"id": ids[0], "direction": "ingress", "ethertype": "ipv4", "protocol": "tcp", "port_range_min": 8000,
            "port_range_max": 8080, "remote_address_group": dc, "description": "from the data centre"})
    );

    // In one line, for both families; back by the line, and by the id.
    let pair = within(web.add_rule(&keys([("rule", "ingress icmp echo-request from group web".into())]))).await;
    assert_eq!(pair.expect("added").len(), 2);
    let text =
        refused!(within(web.add_rule(&keys([("rule", "ingress icmpv6 128 from group web".into())]))).await, Conflict);
    assert!(text.contains("has the rule 'ingress ipv6 icmpv6 128 from group web' already"), "{text}");
    within(web.remove_rule("ingress icmp echo-request from group web")).await.expect("removed");
    within(web.remove_rule(&ids[0])).await.expect("removed");
    assert_eq!(show(&bench, &path, Kind::SecurityGroup).await["Rules"].as_array().map(Vec::len), Some(2));
    let text = refused!(within(web.remove_rule(&ids[0])).await, NotFound);
    assert!(text.contains("in security group 'web'; 'vmfabric security-group show web'"), "{text}");

    let text = refused!(within(web.add_rule(&keys([("colour", "red".into())]))).await, InvalidArgument);
    assert!(text.contains("unknown field `colour`"), "{text}");
    let text = refused!(within(web.add_rule(&keys([("rule", "ingress tcp 99999".into())]))).await, InvalidArgument);
    assert!(text.contains("'99999' is no port"), "{text}");
    let text = refused!(within(web.update(&keys([("colour", "red".into())]))).await, InvalidArgument);
    assert!(text.contains("unknown field `colour`"), "{text}");
    refused!(bench.create("security_group", &[("name", "web".into())]).await, Conflict);

    // All rules at once; their ids follow from what they say.
    let before = show(&bench, &path, Kind::SecurityGroup).await["Rules"][0]["id"].clone();
    let rules = vec!["egress ipv4 any", "ingress tcp 22"];
    within(web.update(&keys([("rules", rules.into()), ("description", "new".into())]))).await.expect("changed");
    let shown = show(&bench, &path, Kind::SecurityGroup).await;
    assert_eq!((&shown["Rules"][0]["id"], &shown["Description"]), (&before, &json!("new")));
    assert_eq!(shown["Rules"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn addresses_come_and_go() {
    let bench = Bench::start().await;
    bench.populate().await;
    let path = bench.manager().await.get_address_group("dc").await.expect("there");
    let dc = resource(&bench, Kind::AddressGroup, &path).await;
    // Half a megabyte: as much as a group may hold passes in one call.
    let many: Vec<String> = (0..9_998u32).map(|n| format!("2001:db8:1:2:3:4:{:x}:{:x}", n / 256, n % 256)).collect();
    within(dc.add_addresses(&many)).await.expect("added");
    let shown = show(&bench, &path, Kind::AddressGroup).await;
    assert_eq!(shown["Addresses"].as_array().map(Vec::len), Some(10_000));
    let text = refused!(within(dc.add_addresses(&["192.0.2.99".into()])).await, InvalidArgument);
    assert!(text.contains("10000 are the most"), "{text}");
    within(dc.remove_addresses(&many)).await.expect("removed");
    let text = refused!(within(dc.remove_addresses(&["192.0.2.7".into(), "192.0.2.99".into()])).await, NotFound);
    assert!(text.contains("192.0.2.99"), "{text}");
    assert_eq!(show(&bench, &path, Kind::AddressGroup).await["Addresses"], json!(["192.0.2.7/32", "2001:db8::/32"]));
    let text = refused!(within(dc.add_addresses(&["192.0.2.1/24".into()])).await, InvalidArgument);
    assert!(text.contains("did you mean 192.0.2.0/24"), "{text}");
}

#[tokio::test]
async fn ports_show_what_applies_to_them() {
    let bench = Bench::start().await;
    bench.populate().await;
    let manager = bench.manager().await;
    let (network, port) = (manager.get_network("blue").await, manager.get_port("web").await);
    let (network, port) = (network.expect("there"), port.expect("there"));
    let group = manager.get_security_group("web").await.expect("there");
    let shown = show(&bench, &port, Kind::Port).await;
    assert_eq!(
        (&shown["PortSecurity"], &shown["Filtered"], &shown["Inherited"]),
        (&json!(true), &json!(false), &json!(["port_security", "security_groups", "isolated"]))
    );

    // What its network says shows in the port before the call has returned.
    let blue = resource(&bench, Kind::Network, &network).await;
    within(blue.update(&keys([("security_groups", vec!["web"].into()), ("isolated", true.into())])))
        .await
        .expect("set");
    let shown = show(&bench, &port, Kind::Port).await;
    assert_eq!(
        (&shown["EffectiveSecurityGroups"], &shown["SecurityGroups"], &shown["Filtered"], &shown["Isolated"]),
        (&json!([group.as_str()]), &json!([]), &json!(true), &json!(true))
    );
    let text = refused!(within(resource(&bench, Kind::SecurityGroup, &group).await.delete()).await, InUse);
    assert!(text.contains("in use by network 'blue'"), "{text}");

    let web = resource(&bench, Kind::Port, &port).await;
    within(web.update(&keys([
        ("security_groups", Vec::<String>::new().into()),
        ("allowed_address_pairs", vec![("10.0.9.0/24", "52:54:00:00:00:09"), ("10.0.0.200", "")].into()),
        ("egress_kbps", Variant::U32(1000)),
        ("dscp", Variant::U8(0)),
    ])))
    .await
    .expect("set");
    let shown = show(&bench, &port, Kind::Port).await;
    assert_eq!(shown["AllowedAddressPairs"], json!([["10.0.0.200/32", ""], ["10.0.9.0/24", "52:54:00:00:00:09"]]));
    assert_eq!(
        (&shown["EffectiveSecurityGroups"], &shown["Filtered"], &shown["EgressKbps"], &shown["Dscp"]),
        (&json!([]), &json!(true), &json!(1000), &json!(0))
    );
    assert_eq!(shown["Inherited"], json!(["port_security", "isolated"]));
    // An empty text takes them back.
    within(web.update(&keys([("security_groups", "".into()), ("dscp", "".into())]))).await.expect("set");
    let shown = show(&bench, &port, Kind::Port).await;
    assert_eq!((&shown["EffectiveSecurityGroups"], &shown["Dscp"]), (&json!([group.as_str()]), &json!(-1)));
}
