use super::{Bench, Log, core::DISK_FULL, serve_with, within};
use crate::{
    backend::LeaseRecord,
    dbus::{Access, DbusError, Error, Kind, parse_path, proxy::ResourceProxy},
    intent::{NetworkDraft, NetworkId, PortDraft, ResourceName, SubnetDraft},
    reconciler::Attachment,
};
use std::collections::HashMap;
use zbus::{Message, OwnedObjectPath, Variant, fdo};

async fn resource(bench: &Bench, path: &OwnedObjectPath) -> ResourceProxy<'static> {
    let (kind, _) = parse_path(path).expect("a resource's path");
    ResourceProxy::new(&bench.client, kind, path.clone()).await.expect("a proxy")
}

fn changes<const N: usize>(entries: [(&'static str, Variant<'static>); N]) -> HashMap<&'static str, Variant<'static>> {
    entries.into()
}

#[tokio::test]
async fn what_is_created_can_be_read_changed_and_deleted() {
    let bench = Bench::start().await;
    bench.populate().await;
    let manager = bench.manager().await;
    let port = manager.get_port("web").await.expect("there");
    let properties = bench.properties(&port, "org.vmfabric1.Port").await;
    let text = |key: &str| String::try_from(properties[key].try_clone().expect("plain")).expect("text");
    assert_eq!((text("Name").as_str(), text("Status").as_str(), text("Origin").as_str()), ("web", "down", "admin"));
    assert_eq!(properties["Network"], manager.get_network("blue").await.expect("there").into_inner().into());

    let web = resource(&bench, &port).await;
    web.update(&changes([("dns_name", "www".into()), ("addresses", vec!["10.0.0.9"].into())])).await.expect("valid");
    // What a mutation did can be read when it returns.
    let properties = bench.properties(&port, "org.vmfabric1.Port").await;
    assert_eq!(properties["DnsName"], Variant::from("www").try_into().expect("plain"));
    assert_eq!(properties["Addresses"], Variant::from(vec!["10.0.0.9"]).try_into().expect("plain"));
    web.update(&changes([("dns_name", "".into())])).await.expect("unsetting is valid");
    assert_eq!(
        bench.properties(&port, "org.vmfabric1.Port").await["DnsName"],
        Variant::from("").try_into().expect("plain")
    );

    let network = resource(&bench, &manager.get_network("blue").await.expect("there")).await;
    network.delete().await.expect("deleted");
    for gone in [manager.get_network("blue").await, manager.get_subnet("blue").await, manager.get_port("web").await] {
        refused!(gone, NotFound);
    }
    let objects = fdo::ObjectManagerProxy::new(&bench.client, "org.vmfabric1", "/org/vmfabric1").await.expect("proxy");
    let left = objects.get_managed_objects().await.expect("answered");
    let of_it = |kind| matches!(kind, Kind::Network | Kind::Subnet | Kind::Port);
    assert!(left.keys().all(|path| parse_path(path).is_none_or(|(kind, _)| !of_it(kind))), "{left:?}");
}

#[tokio::test]
async fn records_come_and_go_one_by_one() {
    let bench = Bench::start().await;
    bench.populate().await;
    let path = bench.manager().await.get_network("blue").await.expect("there");
    let blue = resource(&bench, &path).await;
    for record in ["www A 10.0.0.9", "www a 10.0.0.10", "www TXT \"a b\"", "@ 60 MX 10 www"] {
        blue.add_record(record).await.expect(record);
    }
    let shown = async || {
        let properties = bench.properties(&path, "org.vmfabric1.Network").await;
        Vec::<String>::try_from(properties["DnsRecords"].try_clone().expect("plain")).expect("texts")
    };
    assert_eq!(shown().await, ["www A 10.0.0.9", "www A 10.0.0.10", "www TXT \"a b\"", "@ 60 MX 10 www"]);
    refused!(blue.add_record("www A 10.0.0.9").await, InvalidArgument);
    refused!(blue.add_record("www A nonsense").await, InvalidArgument);
    assert_eq!(blue.remove_records("WWW", "A", "10.0.0.9").await.expect("there"), 1);
    assert_eq!(blue.remove_records("www", "", "").await.expect("there"), 2);
    assert_eq!(shown().await, ["@ 60 MX 10 www"]);
    let change = |entry| changes([entry]);
    blue.update(&change(("dns_records", vec!["a A 10.0.0.1"].into()))).await.expect("valid");
    blue.update(&change(("dns_forwarders", vec!["corp.example=10.0.0.53"].into()))).await.expect("valid");
    assert_eq!(shown().await, ["a A 10.0.0.1"]);
    refused!(blue.update(&change(("dns_shared_with", vec!["nobody"].into()))).await, NotFound);
    blue.update(&change(("dns_records", "".into()))).await.expect("back to the default");
    assert_eq!(shown().await, Vec::<String>::new());
}

#[tokio::test]
async fn refusals_have_names() {
    let bench = Bench::start().await;
    bench.populate().await;
    let manager = bench.manager().await;
    refused!(manager.get_network("green").await, NotFound);
    refused!(bench.create("network", &[("name", "blue".into())]).await, Conflict);
    let text =
        refused!(bench.create("network", &[("name", "x".into()), ("vlan", 5000u32.into())]).await, InvalidArgument);
    assert!(text.contains("vlan: VLAN 5000 is out of range"), "{text}");
    refused!(bench.create("port", &[("network", "green".into())]).await, NotFound);
    refused!(bench.create("network", &[("name", DISK_FULL.into())]).await, StoreFailed);

    bench.create("network", &[("name", "tiny".into())]).await.expect("network");
    let pools = vec!["10.1.0.9-10.1.0.9"].into();
    let subnet = [("network", "tiny".into()), ("cidr", "10.1.0.0/24".into()), ("pools", pools)];
    bench.create("subnet", &subnet).await.expect("subnet");
    bench.create("port", &[("network", "tiny".into())]).await.expect("the only address");
    refused!(bench.create("port", &[("network", "tiny".into())]).await, AddressExhausted);

    let port = bench.core.view().intent.find_port("web").expect("there").id;
    let tap = crate::net::IfName::new("vnet0").expect("valid");
    bench.core.view().attachments.insert(port, Attachment { tap, guest: None, verified: true });
    let web = resource(&bench, &manager.get_port("web").await.expect("there")).await;
    let statistics = web.get_statistics().await.expect("statistics");
    let number = |key: &str| crate::dbus::to_json(&statistics[key]);
    assert_eq!((number("sent_bytes"), number("received_packets")), (Some(1500.into()), Some(2.into())));
    assert_eq!(number("drops"), Some(serde_json::json!({ "mac": 3 })));
    let explained = manager.explain("web").await.expect("explained");
    assert_eq!(crate::dbus::to_json(&explained["drops"]), Some(serde_json::json!({ "mac": 3 })));
    let blue = resource(&bench, &manager.get_network("blue").await.expect("there")).await;
    refused!(blue.delete().await, InUse);
    refused!(manager.set_log_level("loud").await, InvalidArgument);
    refused!(manager.get_network(&"x".repeat(300)).await, InvalidArgument);
}

#[tokio::test]
async fn a_core_that_does_not_keep_up_makes_busy() {
    let bus = super::Bus::start();
    let (commands, requests) = tokio::sync::mpsc::channel(1);
    let core = super::Core::stalled(commands, super::host());
    let access = Access::new(Some(nix::unistd::getuid().as_raw()));
    let _service = serve_with(bus.builder(), core.handle.clone(), Log::default(), access).await.expect("starts");
    let client = bus.connect().await;
    let manager = super::ManagerProxy::new(&client).await.expect("proxy");
    let properties = changes([("name", "blue".into())]);
    let waiting = manager.create_network(&properties);
    let refused = async {
        loop {
            // The first call may not be queued yet.
            if requests.len() == 1 {
                return manager.create_network(&properties).await;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        result = within(refused) => drop(refused!(result, Busy)),
        other = waiting => panic!("answered by nobody: {other:?}"),
    }
    drop(requests);
}

/// A core that is at work elsewhere, with a kernel or a disk that does not answer, keeps nobody from reading.
#[tokio::test]
async fn readers_wait_for_no_kernel_and_no_store() {
    let bus = super::Bus::start();
    let (commands, requests) = tokio::sync::mpsc::channel(8);
    let core = super::Core::stalled(commands, super::host());
    core.create_network(NetworkDraft::named(ResourceName::new("blue").expect("a name"))).expect("valid");
    core.create_subnet(SubnetDraft::new("blue".into(), "10.0.0.0/24".parse().expect("a prefix"))).expect("valid");
    let web = PortDraft { name: Some(ResourceName::new("web").expect("a name")), ..PortDraft::on("blue") };
    core.create_port(web).expect("valid");
    let access = Access::new(Some(nix::unistd::getuid().as_raw()));
    let service = serve_with(bus.builder(), core.handle.clone(), Log::default(), access).await.expect("starts");
    let bench = Bench { client: bus.connect().await, core, service, bus };
    let manager = bench.manager().await;
    let properties = changes([("name", "red".into())]);
    let reads = async {
        while requests.is_empty() {
            tokio::task::yield_now().await;
        }
        let network = manager.get_network("blue").await.expect("there");
        assert!(bench.properties(&network, "org.vmfabric1.Network").await.contains_key("Name"));
        let port = manager.get_port("web").await.expect("there");
        resource(&bench, &port).await.get_statistics().await.expect("none yet");
        let objects = fdo::ObjectManagerProxy::new(&bench.client, "org.vmfabric1", "/org/vmfabric1").await;
        let objects = objects.expect("proxy").get_managed_objects().await.expect("answered");
        assert_eq!(objects.len(), 3);
        assert_eq!(manager.list_leases("").await.expect("answered"), []);
        assert!(manager.export().await.expect("answered").contains("blue"));
        manager.explain("web").await.expect("answered");
        let packet = changes([("from", "web".into()), ("to", "192.0.2.1".into())]);
        manager.trace(&packet).await.expect("answered");
        assert_eq!(requests.len(), 1, "none of them asked the core");
    };
    tokio::select! {
        () = within(reads) => {}
        other = manager.create_network(&properties) => panic!("answered by nobody: {other:?}"),
    }
}

#[tokio::test]
async fn unknown_keys_are_named() {
    let bench = Bench::start().await;
    bench.populate().await;
    for kind in ["network", "subnet", "port"] {
        let text =
            refused!(bench.create(kind, &[("name", "x".into()), ("colour", "red".into())]).await, InvalidArgument);
        assert!(text.contains("`colour`"), "{kind}: {text}");
    }
    let manager = bench.manager().await;
    for path in [manager.get_network("blue").await, manager.get_subnet("blue").await, manager.get_port("web").await] {
        let object = resource(&bench, &path.expect("there")).await;
        for value in ["red", ""] {
            let text = refused!(object.update(&changes([("colour", value.into())])).await, InvalidArgument);
            assert!(text.contains("`colour`"), "{text}");
        }
    }
}

#[tokio::test]
async fn garbage_is_refused_and_changes_nothing() {
    let bench = Bench::start().await;
    bench.populate().await;
    let call = async |path: &str, interface: &str, method: &str, body: &Variant<'static>| {
        let proxy = zbus::Proxy::new(&bench.client, "org.vmfabric1", path.to_owned(), interface.to_owned()).await;
        within(proxy.expect("a proxy").call_method(method, &(body,))).await.expect_err("refused")
    };
    let manager = ("/org/vmfabric1", "org.vmfabric1.Manager");
    for body in [Variant::from(1u32), "x".into(), vec![1u8].into(), (1u8, "x", 2.5).into()] {
        for method in ["CreateNetwork", "CreatePort", "GetPort", "ListLeases", "Nonsense"] {
            call(manager.0, manager.1, method, &body).await;
        }
    }
    call("/org/vmfabric1/port/zz", "org.vmfabric1.Port", "Delete", &"".into()).await;
    call("/org/vmfabric1", "org.vmfabric1.Port", "Delete", &"".into()).await;

    // Deep, large, many.
    let mut deep = Variant::from("x");
    for _ in 0..20 {
        deep = Variant::Variant(Box::new(deep));
    }
    refused!(bench.create("network", &[("name", vec![deep].into())]).await, InvalidArgument);
    let text = refused!(bench.create("network", &[("name", "x".repeat(100_000).into())]).await, InvalidArgument);
    assert!(text.contains("65536"), "{text}");
    refused!(bench.create("network", &[("name", 0.5.into())]).await, InvalidArgument);

    // Properties are for reading.
    let network = bench.manager().await.get_network("blue").await.expect("there");
    let properties = fdo::PropertiesProxy::new(&bench.client, "org.vmfabric1", network).await.expect("proxy");
    let interface = zbus::names::InterfaceName::from_static_str("org.vmfabric1.Network").expect("valid");
    properties.set(interface, "Name", &"red".into()).await.expect_err("read-only");
    assert_eq!(bench.core.view().intent.networks().len(), 1);
    bench.manager().await.get_network("blue").await.expect("still served");
}

#[tokio::test]
async fn who_floods_and_who_leaves_keep_nobody_from_being_served() {
    let bench = Bench::start().await;
    bench.populate().await;
    let call = |member: &'static str, interface: &'static str| {
        let call = Message::method_call("/org/vmfabric1", member).destination("org.vmfabric1");
        call.interface(interface)
    };
    let flood = bench.bus.connect().await;
    for n in 0..600 {
        let (member, interface) = match n % 3 {
            0 => ("GetManagedObjects", "org.freedesktop.DBus.ObjectManager"),
            1 => ("Plan", "org.vmfabric1.Manager"),
            _ => ("Introspect", "org.freedesktop.DBus.Introspectable"),
        };
        within(flood.send(&call(member, interface).build(&()).expect("a call"))).await.expect("sent");
    }
    let port = bench.create("port", &[("network", "blue".into()), ("name", "amid".into())]).await.expect("served");
    assert_eq!(bench.manager().await.get_port("amid").await.expect("there"), port);

    // What was asked for stands, whoever waits for the answer.
    let leaver = bench.bus.connect().await;
    let properties = changes([("network", "blue".into()), ("name", "left".into())]);
    let create = call("CreatePort", "org.vmfabric1.Manager").build(&(properties,)).expect("a call");
    // Of who is gone the bus does not say who it was; of this one it was asked.
    within(leaver.call_method(Some("org.vmfabric1"), "/org/vmfabric1", Some("org.vmfabric1.Manager"), "Plan", &()))
        .await
        .expect("planned");
    within(leaver.send(&create)).await.expect("sent");
    drop((leaver, flood));
    let made = async {
        while bench.core.view().intent.port_named("left").is_none() {
            tokio::task::yield_now().await;
        }
        bench.manager().await.get_port("left").await.expect("served still")
    };
    within(made).await;
}

#[tokio::test]
async fn leases_plans_and_log_levels() {
    let bench = Bench::start().await;
    bench.populate().await;
    let blue = bench.core.view().intent.find_network("blue").expect("there").id;
    let lease = |network: NetworkId, last: u8| LeaseRecord {
        network: network.0,
        address: [10, 0, 0, last].into(),
        client: vec![1, 2, 3],
        iaid: None,
        prefix_length: None,
        mac: "52:54:00:00:00:01".parse().expect("valid"),
        host_name: Some("web".into()),
        port: None,
        expires: 4_000_000_000,
    };
    let other = NetworkId(uuid::Uuid::nil());
    for (network, last) in [(blue, 7), (blue, 8), (other, 7)] {
        let lease = lease(network, last);
        bench.core.view().leases.insert((network, lease.address), lease);
    }
    let manager = bench.manager().await;
    assert_eq!(manager.list_leases("").await.expect("all").len(), 3);
    let leases = manager.list_leases("blue").await.expect("of one");
    assert_eq!(leases.len(), 2);
    assert_eq!(leases[0]["address"], Variant::from("10.0.0.7").try_into().expect("plain"));
    // Two clocks are read one after the other.
    let expires = crate::dbus::to_json(&leases[0]["expires"]).and_then(|at| at.as_u64()).expect("a number");
    assert!(expires.abs_diff(4_000_000_000) <= 1, "{expires}");
    refused!(manager.list_leases("green").await, NotFound);

    assert_eq!(manager.plan().await.expect("planned"), ["+ bridge vmf-blue"]);
    manager.set_log_level("debug").await.expect("set");
    assert_eq!(manager.log_level().await.expect("read"), "debug");
    assert_eq!(manager.version().await.expect("read"), env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn the_name_is_for_one() {
    let bench = Bench::start().await;
    let second = serve_with(bench.bus.builder(), bench.core.handle.clone(), Log::default(), Access::default());
    assert!(matches!(within(second).await, Err(DbusError::NameTaken)));

    // What was there before is there again, once the name is free.
    bench.populate().await;
    let Bench { bus, core, service, client } = bench;
    service.stop().await;
    let manager = super::ManagerProxy::new(&client).await.expect("proxy");
    assert!(matches!(manager.get_port("web").await, Err(Error::Bus(_))));
    let again = serve_with(bus.builder(), core.handle.clone(), Log::default(), Access::default());
    let _again = within(again).await.expect("the name is free");
    let port = manager.get_port("web").await.expect("exported again");
    assert!(matches!(parse_path(&port), Some((Kind::Port, _))));
}

#[tokio::test]
async fn a_silent_bus_is_not_waited_for_without_end() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let socket = folder.path().join("bus");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let address = format!("unix:path={}", socket.display());
    let core = super::Core::start(super::host());
    let bus = zbus::connection::Builder::address(address.as_str());
    let served = serve_with(bus, core.handle.clone(), Log::default(), Access::default()).await;
    assert!(matches!(served, Err(DbusError::Silent("connecting"))), "{served:?}");
}

#[tokio::test]
async fn a_lost_bus_is_noticed() {
    let mut bench = Bench::start().await;
    bench.bus.kill();
    within(bench.service.lost()).await;
}
