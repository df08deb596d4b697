//! The files in `dbus/` say what the daemon exports.

use super::{Bench, FILES, parse};
use roxmltree::{Document, Node};
use std::collections::BTreeSet;

/// An interface in one canonical line per member, without comments and order.
fn members(interface: Node<'_, '_>) -> BTreeSet<String> {
    let attribute = |node: Node<'_, '_>, name: &str| node.attribute(name).unwrap_or("").to_owned();
    let describe = |member: Node<'_, '_>| {
        let mut line = format!("{} {}", member.tag_name().name(), attribute(member, "name"));
        for name in ["type", "access"] {
            line += &format!(" {}", attribute(member, name));
        }
        for child in member.children().filter(Node::is_element) {
            for name in ["name", "direction", "type", "value"] {
                line += &format!(" {}", attribute(child, name));
            }
        }
        line
    };
    interface.children().filter(Node::is_element).map(describe).collect()
}

fn interface<'a>(document: &'a Document<'_>, name: &str) -> Node<'a, 'a> {
    let found = document.descendants().find(|n| n.has_tag_name("interface") && n.attribute("name") == Some(name));
    found.unwrap_or_else(|| panic!("{name} is exported"))
}

#[tokio::test]
async fn the_files_say_what_is_exported() {
    let bench = Bench::start().await;
    bench.populate().await;
    for (name, path, file) in bench.described().await {
        let proxy = zbus::Proxy::new(&bench.client, "org.vmfabric1", path, name).await.expect("proxy");
        let live = proxy.introspect().await.expect("introspectable");
        let (live, file) = (parse(&live), parse(file));
        assert_eq!(members(interface(&live, name)), members(interface(&file, name)), "dbus/{name}.xml");
    }
}

/// A property that signals its changes and is forgotten where changes are found would never be seen to change.
#[test]
fn every_property_that_signals_changes_is_compared() {
    let source = include_str!("../info.rs");
    for (name, file) in FILES {
        let kind = name.rsplit('.').next().expect("a name");
        let document = parse(file);
        let quiet = |property: &Node<'_, '_>| property.descendants().any(|n| n.has_tag_name("annotation"));
        let compared = source.split(&format!("impl {kind}Info {{")).nth(1).expect("it has an impl");
        let compared = compared.split("changes!(").nth(1).and_then(|text| text.split(')').next()).expect("it compares");
        for property in document.descendants().filter(|n| n.has_tag_name("property") && !quiet(n)) {
            let name = property.attribute("name").expect("a name");
            assert!(compared.contains(&format!("\"{name}\" =>")), "{kind}: {name}");
        }
    }
}

#[tokio::test]
async fn the_list_of_all_objects_says_what_each_says_itself() {
    let bench = Bench::start().await;
    bench.populate().await;
    let objects = zbus::fdo::ObjectManagerProxy::new(&bench.client, "org.vmfabric1", "/org/vmfabric1").await;
    let listed = objects.expect("proxy").get_managed_objects().await.expect("answered");
    let mut kinds = BTreeSet::new();
    for (path, interfaces) in &listed {
        assert_eq!(interfaces.len(), 1, "{path}");
        for (interface, properties) in interfaces {
            assert_eq!(*properties, bench.properties(path, interface).await, "{path}");
            kinds.insert(interface.to_string());
        }
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
    let name = "org.freedesktop.DBus.ObjectManager";
    let proxy = zbus::Proxy::new(&bench.client, "org.vmfabric1", "/org/vmfabric1", name).await.expect("proxy");
    let xml = proxy.introspect().await.expect("introspectable");
    let document = parse(&xml);
    let members = members(interface(&document, name));
    let standard = [
        "method GetManagedObjects   object_paths_interfaces_and_properties out a{oa{sa{sv}}} ",
        "signal InterfacesAdded   object_path  o  interfaces_and_properties  a{sa{sv}} ",
        "signal InterfacesRemoved   object_path  o  interfaces  as ",
    ];
    assert_eq!(members, standard.map(str::to_owned).into());
}
