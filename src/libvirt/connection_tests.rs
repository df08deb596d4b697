//! On libvirt's `test:` driver, which lives in this process and needs no daemon and no root.

use super::*;
use std::future::Future;
use tokio::sync::mpsc::{Receiver, channel};
use virt::network::Network;

const DEADLINE: Duration = Duration::from_secs(20);

fn config(uri: &str) -> LibvirtConfig {
    LibvirtConfig { uri: uri.to_owned(), ..LibvirtConfig::default() }
}

fn wait<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, what).await }).expect("in time")
}

/// The first event that `pick` takes.
fn until<T>(events: &mut Receiver<LibvirtEvent>, mut pick: impl FnMut(LibvirtEvent) -> Option<T>) -> T {
    wait(async {
        loop {
            if let Some(found) = pick(events.recv().await.expect("the thread runs")) {
                return found;
            }
        }
    })
}

fn guest(uuid: Uuid, extra: &str) -> String {
    format!(
        "<domain type='test'><name>guest</name><uuid>{uuid}</uuid><memory>1024</memory><os><type>hvm</type></os>\
         {extra}<devices><interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/></interface>\
         </devices></domain>"
    )
}

/// One test, because all connections to test:///default share their state.
#[test]
fn follows_domains_and_publishes() {
    let (sender, mut events) = channel(1);
    let handle = spawn(config("test:///default"), sender).expect("spawns");
    assert!(matches!(until(&mut events, Some), LibvirtEvent::Connected { version: 9_000_000.. }));
    let LibvirtEvent::Inventory(domains) = until(&mut events, Some) else { panic!("an inventory follows") };
    assert!(matches!(domains.as_slice(), [test] if test.name == "test" && test.active && test.persistent));

    let mut connect = Connect::open(Some("test:///default")).expect("connects");
    let uuid = Uuid::from_u128(0x5254);
    let domain = VirtDomain::create_xml(&connect, &guest(uuid, ""), 0).expect("starts");
    let state = until(&mut events, |event| match event {
        LibvirtEvent::Domain(state) => Some(state),
        _ => None,
    });
    assert!(state.active && !state.persistent);
    assert_eq!(state.definition.expect("parses").nics[0].mac.to_string(), "52:54:00:00:00:01");
    domain.destroy().expect("stops");
    until(&mut events, |event| (event == LibvirtEvent::Gone { uuid }).then_some(()));

    let bad = "<metadata><v:domain xmlns:v='https://vmfabric.org/xmlns/domain/1.0'><v:interface mac='x'/></v:domain>\
               </metadata>";
    let domain = VirtDomain::define_xml(&connect, &guest(uuid, bad)).expect("defines");
    let state = until(&mut events, |event| match event {
        LibvirtEvent::Domain(state) => Some(state),
        _ => None,
    });
    assert_eq!((state.name.as_str(), state.active, state.persistent), ("guest", false, true));
    assert!(state.definition.expect_err("bad metadata").to_string().starts_with("domain 'guest', vmfabric metadata"));
    domain.undefine().expect("undefines");
    until(&mut events, |event| (event == LibvirtEvent::Gone { uuid }).then_some(()));

    let network = |n, name: &str| PublishedNetwork {
        uuid: Uuid::from_u128(n),
        name: name.to_owned(),
        bridge: "vmf-a".parse().expect("name"),
    };
    let published = |events: &mut Receiver<LibvirtEvent>| {
        until(events, |event| match event {
            LibvirtEvent::Published(published) => Some(published),
            _ => None,
        })
    };
    let (blue, taken) = (network(1, "blue"), network(2, "default"));
    handle.publish(vec![blue.clone(), taken.clone()], BTreeSet::new());
    let result = published(&mut events);
    assert_eq!(result.networks[&blue.uuid], Ok(()));
    let error = result.networks[&taken.uuid].clone().expect_err("the test driver has its own default");
    assert!(error.to_string().contains("virsh net-undefine default"), "{error}");
    let blue_there = Network::lookup_by_name(&connect, "blue").expect("published");
    assert!(blue_there.is_active().expect("answers") && blue_there.get_autostart().expect("answers"));

    // The name becomes free: no request is needed.
    let default = Network::lookup_by_name(&connect, "default").expect("is there");
    default.destroy().and_then(|()| default.undefine()).expect("goes");
    assert_eq!(published(&mut events).networks[&taken.uuid], Ok(()));

    handle.publish(vec![], BTreeSet::from([blue.uuid, taken.uuid]));
    assert_eq!(published(&mut events).removed, BTreeSet::from([blue.uuid, taken.uuid]));
    assert!(connect.list_all_networks(0).expect("lists").is_empty());

    handle.refresh();
    until(&mut events, |event| matches!(event, LibvirtEvent::Inventory(_)).then_some(()));
    handle.stop();
    wait(async { while events.recv().await.is_some() {} });
    drop((domain, default, blue_there));
    connect.close().expect("closes");
}

#[test]
fn an_absent_libvirt_is_told_once() {
    let (sender, mut events) = channel(8);
    let uri = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
    let reconnect = (Duration::from_millis(1), Duration::from_millis(1));
    let handle = spawn(LibvirtConfig { reconnect, ..config(uri) }, sender).expect("spawns");
    let LibvirtEvent::Disconnected { reason } = until(&mut events, Some) else { panic!("cannot connect") };
    assert!(reason.contains(uri) && reason.contains("/nonexistent/libvirt-sock"), "{reason}");
    drop(handle);
    wait(async { assert_eq!(events.recv().await, None) });
}

#[test]
fn a_session_leaves_nothing_behind() {
    let mailbox = Arc::new(Mailbox::default());
    let session = Session::open("test:///default", (5, 3), &mailbox, 1).expect("connects");
    assert!(session.is_alive() && Arc::strong_count(&mailbox) > 1);
    drop(session);
    let deadline = Instant::now() + DEADLINE;
    // libvirt may let go of them on the event loop's thread. The `test:` driver takes a close callback and forgets it
    // (virConnectRegisterCloseCallback, where a driver has none).
    while Arc::strong_count(&mailbox) > 2 {
        assert!(Instant::now() < deadline, "{} listeners are left", Arc::strong_count(&mailbox) - 1);
        thread::yield_now();
    }
    assert!(matches!(Session::open("test:///\0", (5, 3), &mailbox, 2), Err(SessionError::Uri)));
    assert!(Session::open("nonsense:///", (5, 3), &mailbox, 2).is_err());
}
