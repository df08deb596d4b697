//! The loop on a simulated host with a store in memory: what is injected here is what real parts do seldom.

use super::*;
use crate::{
    backend::{LeaseRecord, Store as _, StoreError, Write},
    datapath::{Family, Link, LinkKind, Observed, Tuple, TupleUpper},
    driver::sim::{SimDriver, SimHost},
    intent::{HostConfig, PortDraft, PortId, RuleDraft, SecurityGroup},
    libvirt::{
        LibvirtEvent,
        domain_xml::{Domain, parse_domain},
        publish::PublishedNetwork,
    },
    net::IfName,
    planner::BOUND,
    protocol::dhcpv4,
    server::{
        dhcpv4::DhcpEvent,
        hook::{HookCall, HookEvent},
    },
    store::memory::MemoryStore,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};
use uuid::Uuid;

/// Nobody is served, and nobody asked.
#[derive(Debug, Default)]
struct NoOutlets;

impl Outlets for NoOutlets {
    async fn serve(&mut self, _: Vec<NetworkServices>) -> Vec<Problem> {
        Vec::new()
    }
    fn publish(&mut self, _: Vec<PublishedNetwork>, _: BTreeSet<Uuid>) {}
    fn refresh(&mut self) {}
    fn refresh_domain(&mut self, _: Uuid) {}
    fn write_index(&mut self, _: &HookIndex) -> std::io::Result<()> {
        Ok(())
    }
}

/// A daemon without a process around it.
struct Daemon {
    handle: Handle,
    hooks: mpsc::Sender<HookCall>,
    links: mpsc::Sender<crate::backend::LinkEvent>,
    libvirt: mpsc::Sender<LibvirtEvent>,
    leases: mpsc::Sender<DhcpEvent>,
    task: JoinHandle<()>,
    _keep: Vec<Box<dyn std::any::Any + Send>>,
}

impl Daemon {
    async fn start(host: &SimHost, store: &MemoryStore) -> Self {
        let view = Arc::new(RwLock::new(View::default()));
        let (notices, _) = broadcast::channel(64);
        let (commands, command_inbox) = mpsc::channel(64);
        let (hooks, hook_inbox) = mpsc::channel(64);
        let (links, link_inbox) = mpsc::channel(64);
        let (libvirt, libvirt_inbox) = mpsc::channel(64);
        let (lease_sender, leases) = mpsc::channel(64);
        let (config_sender, config) = mpsc::channel(4);
        let engine: Engine<SimDriver, MemoryStore, NoOutlets> = Engine::start(
            host.driver(),
            Arc::new(store.clone()),
            NoOutlets,
            HostConfig::default(),
            view.clone(),
            notices.clone(),
        )
        .await
        .expect("starts");
        let inputs = Inputs {
            commands: command_inbox,
            hooks: hook_inbox,
            links: link_inbox,
            libvirt: libvirt_inbox,
            leases,
            config,
        };
        let task = tokio::spawn(engine.run(inputs));
        let keep: Vec<Box<dyn std::any::Any + Send>> = vec![Box::new(config_sender)];
        let handle = Handle::new(commands, view, notices);
        Self { handle, hooks, links, libvirt, leases: lease_sender, task, _keep: keep }
    }

    async fn hook(&self, event: HookEvent) -> Result<(), String> {
        let (reply, result) = oneshot::channel();
        self.hooks.send(HookCall { event, reply }).await.expect("the loop takes hooks");
        result.await.expect("the loop answers")
    }

    async fn plan(&self) -> Vec<String> {
        self.handle.call(Command::Plan).await.expect("a plan")
    }

    /// As `kill -9`: nothing is said, nothing is finished.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn group(&self, command: impl FnOnce(super::Reply<()>) -> GroupCommand) -> Result<(), super::CommandError> {
        self.handle.call(|reply| Command::Group(command(reply))).await
    }

    async fn settled(&self) {
        let quiet = async { while !self.plan().await.is_empty() {} };
        tokio::time::timeout(Duration::from_secs(20), quiet).await.expect("the host is brought in line");
    }
}

fn if_name(name: &str) -> IfName {
    IfName::new(name).expect("interface name")
}

fn tap() -> Link {
    Link {
        kind: Some(LinkKind::Other("tun".into())),
        master: Some(None),
        up: Some(true),
        mtu: Some(1500),
        mac: None,
        alias: Some(String::new()),
    }
}

fn bare_host() -> SimHost {
    let host = SimHost::new(Observed {
        capabilities: crate::datapath::Capabilities {
            bridge_vlan_filtering: true,
            nft_bridge_meta: true,
            bridge_conntrack: true,
            shaping: true,
            policing: true,
            nft_log: true,
            nft_owner: true,
        },
        ..Observed::default()
    });
    host.plug(if_name("vnet0"), tap());
    host
}

fn guest(name: &str, network: &str) -> Domain {
    let xml = format!(
        "<domain type='kvm' id='1'><name>{name}</name><uuid>6f9e8ff4-0000-4000-8000-000000000001</uuid><devices>\
         <interface type='network'><mac address='52:54:00:00:00:01'/><source network='{network}' bridge='vmf-{network}'/>\
         <target dev='vnet0'/></interface></devices></domain>"
    );
    parse_domain(&xml).expect("valid XML")
}

fn bound(host: &SimHost) -> BTreeSet<String> {
    let tables = host.observed().datapath.tables;
    let bound = tables.get(&Family::Bridge).and_then(|table| table.elements(BOUND)).into_iter().flatten();
    bound.map(|element| element.replace('"', "")).collect()
}

#[tokio::test]
async fn a_guest_starts_on_a_fresh_host_and_survives_a_kill() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    let domain = guest("web", "nat");
    daemon.hook(HookEvent::Prepare(domain.clone())).await.expect("prepared");
    assert!(bound(&host).is_empty(), "no port speaks before its tap is there");
    daemon.hook(HookEvent::Start(domain)).await.expect("started");
    assert_eq!(bound(&host), BTreeSet::from(["vnet0".to_owned()]));
    let ports: Vec<_> = daemon.handle.view().intent.ports().cloned().collect();
    assert_eq!(ports.len(), 1);
    assert!(daemon.handle.view().attachments[&ports[0].id].verified);

    daemon.kill().await;
    host.take_applied();
    let again = Daemon::start(&host, &store).await;
    assert_eq!(again.plan().await, Vec::<String>::new());
    assert!(host.take_applied().is_empty(), "a restart changes nothing");
    assert_eq!(again.handle.view().attachments[&ports[0].id].tap, if_name("vnet0"));
    assert_eq!(again.handle.view().intent.port(ports[0].id), Some(&ports[0]));
}

#[tokio::test]
async fn what_is_told_again_changes_nothing() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    let domain = guest("web", "nat");
    daemon.hook(HookEvent::Start(domain.clone())).await.expect("started");
    daemon.settled().await;
    host.take_applied();
    let name = if_name("vnet0");
    let link = host.observed().datapath.links[&name].clone();
    let state = crate::libvirt::DomainState {
        uuid: domain.uuid,
        name: domain.name.clone(),
        active: true,
        persistent: false,
        definition: Ok(domain.clone()),
    };
    for _ in 0..2 {
        daemon.hook(HookEvent::Prepare(domain.clone())).await.expect("prepared");
        daemon.hook(HookEvent::Start(domain.clone())).await.expect("started");
        let event = crate::backend::LinkEvent::Link { name: name.clone(), link: link.clone(), mac: None };
        daemon.links.send(event).await.expect("told");
        daemon.libvirt.send(LibvirtEvent::Domain(state.clone())).await.expect("told");
        assert_eq!(daemon.plan().await, Vec::<String>::new());
    }
    assert_eq!(host.take_applied(), Vec::new());
    assert_eq!(daemon.handle.view().intent.ports().count(), 1);
}

/// libvirt moves it, and fails where its tap is on another bridge already.
#[tokio::test]
async fn a_nic_that_is_being_taken_over_is_left_to_libvirt() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    let network = daemon.handle.view().intent.networks().next().expect("the first network").clone();
    let memo = ImportMemo {
        uuid: network.id.0,
        name: network.name.to_string(),
        xml: String::new(),
        autostart: true,
        active: true,
        persistent: true,
        bridge: Some(if_name("virbr0")),
    };
    let remember = |reply| Command::Import(ImportCommand::Remember(vec![memo], reply));
    daemon.handle.call(remember).await.expect("remembered");
    let mut domain = guest("web", "nat");
    let mut tell = async |bridge: &str| {
        let crate::libvirt::domain_xml::NicSource::Network { bridge: on, .. } = &mut domain.nics[0].source else {
            panic!("a network");
        };
        *on = Some(if_name(bridge));
        let (uuid, name, definition) = (domain.uuid, domain.name.clone(), Ok(domain.clone()));
        let state = crate::libvirt::DomainState { uuid, name, active: true, persistent: false, definition };
        daemon.libvirt.send(LibvirtEvent::Domain(state)).await.expect("told");
        daemon.settled().await;
    };
    tell("virbr0").await;
    assert_eq!((bound(&host), daemon.handle.view().intent.ports().count()), (BTreeSet::new(), 0));
    tell("vmf-nat").await;
    tokio::time::timeout(Duration::from_secs(20), async {
        while bound(&host).is_empty() {
            daemon.plan().await;
        }
    })
    .await
    .expect("its port comes up");
}

#[tokio::test]
async fn the_first_network_keeps_off_the_hosts_blocks() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    host.plug(if_name("eth0"), tap());
    for address in ["192.168.123.5/24", "192.168.124.1/32"] {
        let address = (if_name("eth0"), address.parse().expect("an address"));
        host.with(|observed| observed.datapath.addresses.insert(address));
    }
    let daemon = Daemon::start(&host, &store).await;
    let blocks: Vec<_> = daemon.handle.view().intent.subnets().map(|subnet| subnet.cidr.to_string()).collect();
    assert_eq!(blocks, ["192.168.125.0/24"]);
}

/// The kernel refuses after every possible number of changes, the daemon is killed, and the next one gets there.
#[tokio::test]
async fn a_failure_anywhere_and_a_restart_converge() {
    let (whole, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&whole, &store).await;
    daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect("started");
    daemon.settled().await;
    let steps = whole.take_applied().len();
    assert!(steps > 5, "{steps} changes are too few to mean anything");
    for fail_after in 0..steps {
        let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
        host.fail_after(Some(fail_after));
        let daemon = Daemon::start(&host, &store).await;
        let started = daemon.hook(HookEvent::Start(guest("web", "nat"))).await;
        assert!(started.is_ok() || bound(&host).is_empty(), "a guest that may not start may not speak");
        daemon.kill().await;
        host.fail_after(None);
        let daemon = Daemon::start(&host, &store).await;
        daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect("started");
        daemon.settled().await;
        assert_eq!(bound(&host), BTreeSet::from(["vnet0".to_owned()]), "failed after {fail_after}");
    }
}

#[tokio::test]
async fn a_rate_that_cannot_be_had_keeps_no_guest_waiting() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect("started");
    let port = daemon.handle.view().intent.ports().next().expect("its port").id;
    let reaches = async |status: PortStatus| {
        let there = async {
            while daemon.handle.view().port_status(port) != status {
                daemon.plan().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), there).await.unwrap_or_else(|_| panic!("never {status:?}"));
    };
    host.refuse_limits(true);
    let patch = serde_json::json!({ "ingress_kbps": 1000, "egress_kbps": 2000 });
    let patch = patch.as_object().cloned().expect("an object");
    daemon.handle.call(|reply| Command::UpdatePort(port, patch, reply)).await.expect("kept");
    reaches(PortStatus::Degraded).await;
    assert!(daemon.handle.view().attachments[&port].verified && host.observed().datapath.limits.is_empty());
    // The fast path of a guest that starts anew.
    host.unplug(&if_name("vnet0"));
    daemon.links.send(crate::backend::LinkEvent::Gone { name: if_name("vnet0") }).await.expect("told");
    reaches(PortStatus::Down).await;
    host.plug(if_name("vnet0"), tap());
    daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect("started without its rates");
    assert_eq!(bound(&host), BTreeSet::from(["vnet0".to_owned()]));
    reaches(PortStatus::Degraded).await;
    host.refuse_limits(false);
    daemon.settled().await;
    reaches(PortStatus::Active).await;
    assert_eq!(host.observed().datapath.limits.len(), 2);
    // Somebody takes them away, maybe for limits of his own: whatever happens meanwhile, they come back after a rest.
    let taken = tokio::time::Instant::now();
    host.drop_limits();
    let patch = serde_json::json!({ "dns_name": "one-more-pass" }).as_object().cloned().expect("an object");
    daemon.handle.call(|reply| Command::UpdatePort(port, patch, reply)).await.expect("kept");
    daemon.links.send(crate::backend::LinkEvent::Limits).await.expect("told");
    let back = async {
        while host.observed().datapath.limits.len() < 2 {
            daemon.plan().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("they come back");
    assert!(taken.elapsed() >= Duration::from_secs(2), "{:?}", taken.elapsed());
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_is_said() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    store.fail_from(1, StoreError::Full { path: "/var/lib/vmfabric/vmfabric.db".into() });
    let network = daemon.handle.view().intent.networks().next().map(|n| n.id).expect("the first network");
    let draft: PortDraft =
        serde_json::from_value(serde_json::json!({ "network": network.to_string() })).expect("a draft");
    let refused = daemon.handle.call(|reply| Command::CreatePort(draft.clone(), reply)).await;
    assert!(matches!(refused, Err(CommandError::Store(StoreError::Full { .. }))));
    let started = daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect_err("refused");
    assert!(started.contains("disk"), "{started}");
    assert_eq!(daemon.handle.view().intent.ports().len(), 0);
    assert!(bound(&host).is_empty());
    store.heal();
    daemon.handle.call(|reply| Command::CreatePort(draft, reply)).await.expect("there is room again");
    daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect("starts");
    assert_eq!(store.load().await.expect("loads").ports.len(), 2);
}

#[tokio::test]
async fn what_is_asked_for_at_once_is_committed_at_once_and_refused_one_by_one() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    let full = || StoreError::Full { path: "/var/lib/vmfabric/vmfabric.db".into() };
    let port = |name: &str| {
        let draft: PortDraft =
            serde_json::from_value(serde_json::json!({ "network": "nat", "name": name })).expect("a draft");
        daemon.handle.call(|reply| Command::CreatePort(draft, reply))
    };
    let names = || -> BTreeSet<String> {
        let view = daemon.handle.view();
        view.intent.ports().filter_map(|port| port.name.as_ref().map(ToString::to_string)).collect()
    };

    let before = store.commits();
    let (a, b, again) = tokio::join!(port("a"), port("b"), port("a"));
    assert!(a.is_ok() && b.is_ok() && matches!(again, Err(CommandError::Intent(_))), "{a:?} {b:?} {again:?}");
    assert_eq!(store.commits() - before, 1);

    // Those before a question are one commit, those behind it another.
    let before = store.commits();
    let (c, d, _, e, f) = tokio::join!(port("c"), port("d"), daemon.plan(), port("e"), port("f"));
    assert!([c, d, e, f].iter().all(Result::is_ok));
    assert_eq!(store.commits() - before, 2);

    // What the store does not take together it may take one by one: what is deleted gives space.
    store.fail_nth(1, full());
    let gone = daemon.handle.view().intent.port_named("a").expect("there").id;
    let delete = daemon.handle.call(|reply| Command::DeletePort(gone, reply));
    let (g, deleted, h) = tokio::join!(port("g"), delete, port("h"));
    assert!(g.is_ok() && deleted.is_ok() && h.is_ok(), "{g:?} {deleted:?} {h:?}");
    store.fail_from(1, full());
    let (i, j) = tokio::join!(port("i"), port("j"));
    for refused in [i, j] {
        assert!(matches!(refused, Err(CommandError::Store(StoreError::Full { .. }))), "{refused:?}");
    }
    let all = ["b", "c", "d", "e", "f", "g", "h"].map(str::to_owned);
    assert_eq!(names(), all.clone().into());
    assert_eq!(store.load().await.expect("loads").ports.len(), all.len());
}

#[tokio::test]
async fn a_stop_behind_other_commands_ends_the_loop() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    let draft: PortDraft = serde_json::from_value(serde_json::json!({ "network": "nat" })).expect("a draft");
    let port = daemon.handle.call(|reply| Command::CreatePort(draft, reply));
    let (port, stopped) = tokio::join!(port, daemon.handle.call(Command::Stop));
    assert!(port.is_ok() && stopped.is_ok());
    tokio::time::timeout(Duration::from_secs(20), daemon.task).await.expect("it ends").expect("well");
}

#[tokio::test]
async fn a_guest_that_names_no_network_of_ours_is_left_alone_and_one_that_cannot_be_is_refused() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    daemon.hook(HookEvent::Start(guest("other", "default"))).await.expect("not ours");
    assert_eq!(daemon.handle.view().intent.ports().len(), 0);

    host.unplug(&if_name("vnet0"));
    let refused = daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect_err("no tap");
    assert!(refused.contains("52:54:00:00:00:01") && refused.contains("nat"), "{refused}");
}

#[tokio::test]
async fn a_tap_that_goes_loses_its_right_to_speak_at_once() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect("started");
    host.unplug(&if_name("vnet0"));
    daemon.links.send(crate::backend::LinkEvent::Gone { name: if_name("vnet0") }).await.expect("told");
    daemon.settled().await;
    assert!(bound(&host).is_empty());
    assert!(daemon.handle.view().attachments.is_empty());
    // The next link of that name is a stranger.
    host.plug(if_name("vnet0"), Link { master: Some(Some(if_name("vmf-nat"))), ..tap() });
    assert!(bound(&host).is_empty());
}

#[tokio::test]
async fn a_bound_tap_that_somebody_takes_off_its_bridge_is_put_back() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect("started");
    daemon.settled().await;
    let name = if_name("vnet0");
    let bound = host.observed().datapath.links[&name].clone();
    let link = Link { master: Some(None), ..bound.clone() };
    host.plug(name.clone(), link.clone());
    daemon.links.send(crate::backend::LinkEvent::Link { name: name.clone(), link, mac: None }).await.expect("told");
    daemon.settled().await;
    assert_eq!(host.observed().datapath.links[&name], bound);
}

#[tokio::test]
async fn whose_a_port_is_is_told_though_its_tap_came_first() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    let draft = serde_json::json!({ "network": "nat", "mac": "52:54:00:00:00:01" });
    let draft: PortDraft = serde_json::from_value(draft).expect("a draft");
    let port = daemon.handle.call(|reply| Command::CreatePort(draft, reply)).await.expect("made").id;
    let name = if_name("vnet0");
    let link = Link { master: Some(Some(if_name("vmf-nat"))), ..tap() };
    host.plug(name.clone(), link.clone());
    let mac = Some([0xfe, 0x54, 0, 0, 0, 1]);
    daemon.links.send(crate::backend::LinkEvent::Link { name, link, mac }).await.expect("told");
    let up = async {
        while !daemon.handle.view().attachments.get(&port).is_some_and(|attachment| attachment.verified) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), up).await.expect("it comes up");
    assert_eq!(daemon.handle.view().attachments[&port].guest, None);

    let mut notices = daemon.handle.watch();
    daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect("started");
    let guest = daemon.handle.view().attachments[&port].guest.clone();
    assert_eq!(guest.map(|guest| guest.name), Some("web".to_owned()));
    let mut told = Vec::new();
    while let Ok(notice) = notices.try_recv() {
        told.push(notice);
    }
    assert!(told.contains(&Notice::PortChanged(port)), "{told:?}");
}

#[tokio::test]
async fn a_guest_that_is_gone_takes_its_ports_and_their_leases_along_in_one_commit() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    daemon.hook(HookEvent::Start(guest("web", "nat"))).await.expect("started");
    let port = daemon.handle.view().intent.ports().next().cloned().expect("its port");
    daemon.kill().await;
    host.unplug(&if_name("vnet0"));
    let lease = LeaseRecord {
        network: port.network.0,
        address: "192.0.2.9".parse().expect("an address"),
        client: vec![1],
        iaid: None,
        prefix_length: None,
        mac: port.mac,
        host_name: None,
        port: Some(port.id.0),
        expires: u64::from(u32::MAX),
    };
    store.commit(vec![Write::PutLease(lease)]).await.expect("commits");
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    assert_eq!(daemon.handle.view().leases.len(), 1);

    let (before, mut notices) = (store.commits(), daemon.handle.watch());
    let domain = port.device.expect("a guest made it").domain;
    daemon.libvirt.send(LibvirtEvent::Gone { uuid: domain }).await.expect("told");
    let removed = async { while notices.recv().await.expect("a notice") != Notice::PortRemoved(port.id) {} };
    tokio::time::timeout(Duration::from_secs(20), removed).await.expect("the port is deleted");
    daemon.handle.call(Command::Ping).await.expect("the loop runs");
    let left = store.load().await.expect("loads");
    assert_eq!((left.ports.len(), left.leases.len(), store.commits()), (0, 0, before + 1));
    assert!(daemon.handle.view().leases.is_empty());
}

/// A server whose network goes sees its interface go first, and says so when nobody knows of the network any more.
#[tokio::test]
async fn the_trouble_of_a_network_goes_with_it_and_does_not_come_after_it() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    let network = daemon.handle.view().intent.networks().next().expect("the first").id;
    let subnet = daemon.handle.view().intent.subnets_of(network).next().expect("its subnet").id;
    let lost = DhcpEvent::InterfaceLost { network: network.0, interface: if_name("vmf-nat") };
    let full = || DhcpEvent::Protocol(dhcpv4::Event::PoolExhausted { network: network.0, subnet: subnet.0 });
    let ping = || daemon.handle.call(Command::Ping);
    let told = async |event: DhcpEvent, problems: usize| {
        daemon.leases.send(event).await.expect("told");
        while daemon.leases.capacity() < 64 {
            ping().await.expect("the loop runs");
        }
        ping().await.expect("it has dealt with what it took");
        assert_eq!(daemon.handle.view().problems.len(), problems);
    };
    told(full(), 1).await;
    told(lost.clone(), 2).await;
    daemon.handle.call(|reply| Command::DeleteNetwork(network, reply)).await.expect("deleted");
    told(lost, 0).await;
    told(full(), 0).await;
    assert!(daemon.handle.view().full_pools.is_empty());
}

/// The host outside: what forwards to it is somebody else's.
fn with_default_route(host: &SimHost, forwarding: &str) -> crate::datapath::Sysctl {
    let key = crate::datapath::Sysctl::Ipv4Forwarding(if_name("eth0"));
    host.plug(if_name("eth0"), Link::default());
    host.with(|observed| {
        observed.default_route_links.insert(if_name("eth0"));
        observed.datapath.sysctls.insert(key.clone(), forwarding.to_owned());
    });
    key
}

async fn remembered(store: &MemoryStore) -> Vec<String> {
    previous_sysctls::previous_of(&store.load().await.expect("loads")).into_values().collect()
}

#[tokio::test]
async fn what_cannot_be_remembered_is_not_changed() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let key = with_default_route(&host, "0");
    // The first commit is the lease clock, the second makes the first group, the third the first network, the fourth is
    // the memory.
    store.fail_from(4, StoreError::Full { path: "/var/lib/vmfabric/vmfabric.db".into() });
    let daemon = Daemon::start(&host, &store).await;
    let full = || daemon.handle.view().problems.iter().any(|problem| problem.message.contains("full"));
    let told = async {
        while !full() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("the disk's fault is told");
    assert_eq!(host.observed().datapath.sysctls[&key], "0");
    store.heal();
    daemon.settled().await;
    assert_eq!(host.observed().datapath.sysctls[&key], "1");
    assert_eq!(remembered(&store).await, ["0"]);
}

#[tokio::test]
async fn what_was_remembered_before_a_boot_is_forgotten() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    with_default_route(&host, "0");
    previous_sysctls::forget_former_boot(&store, "monday").await.expect("commits");
    let daemon = Daemon::start(&host, &store).await;
    daemon.settled().await;
    daemon.kill().await;
    previous_sysctls::forget_former_boot(&store, "monday").await.expect("commits");
    assert_eq!(remembered(&store).await, ["0"]);
    previous_sysctls::forget_former_boot(&store, "tuesday").await.expect("commits");
    assert!(remembered(&store).await.is_empty());
}

#[tokio::test]
async fn security_groups_are_kept_and_told_of() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    let default = SecurityGroup::default_id();
    let shown = |daemon: &Daemon| daemon.handle.view().intent.security_group(default).cloned().expect("there");
    assert_eq!(shown(&daemon), SecurityGroup::default_group().expect("a constant"));
    let mut notices = daemon.handle.watch();
    let passes = daemon.handle.view().passes;
    daemon.group(|reply| GroupCommand::RemoveRule(default, "ingress from host".into(), reply)).await.expect("removed");
    assert_eq!(notices.recv().await, Ok(Notice::SecurityGroupChanged(default)));
    // A full pass follows by itself.
    let passed = async {
        while daemon.handle.view().passes == passes {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), passed).await.expect("a pass");
    let rules = RuleDraft::parse("ingress tcp 22 from group default").expect("a rule");
    let added = daemon.handle.call(|reply| Command::Group(GroupCommand::AddRules(default, rules, reply))).await;
    assert_eq!(added.expect("added").len(), 2);
    daemon.group(|reply| GroupCommand::Delete(default, reply)).await.expect_err("it stays");

    store.fail_from(1, StoreError::Full { path: "/var/lib/vmfabric/vmfabric.db".into() });
    let before = shown(&daemon);
    daemon
        .group(|reply| GroupCommand::RemoveRule(default, "egress any".into(), reply))
        .await
        .expect_err("the disk is full");
    assert_eq!(shown(&daemon), before);
    store.heal();
    // What was changed stays changed; the group is not made anew.
    daemon.kill().await;
    let daemon = Daemon::start(&host, &store).await;
    assert_eq!(shown(&daemon), before);
}

fn connection(id: u32, zone: u16, from: &str, to: &str) -> crate::datapath::Connection {
    let tuple = |from: &str, to: &str, source, destination| Tuple {
        source: from.parse().expect("an address"),
        destination: to.parse().expect("an address"),
        upper: TupleUpper::Ports { source, destination },
    };
    let (original, reply) = (tuple(from, to, 40000, 80), tuple(to, from, 80, 40000));
    crate::datapath::Connection { id, zone, protocol: 6, status: 0, mark: 0, original, reply }
}

#[tokio::test]
async fn connections_that_are_no_longer_allowed_end_and_others_do_not() {
    let (host, store) = (bare_host(), MemoryStore::new().expect("a store"));
    let daemon = Daemon::start(&host, &store).await;
    let create = async |address: &str| {
        let draft = serde_json::json!({ "network": "nat", "addresses": [address] });
        let draft: PortDraft = serde_json::from_value(draft).expect("a draft");
        daemon.handle.call(|reply| Command::CreatePort(draft, reply)).await.expect("made").id
    };
    let first = create("192.168.123.10").await;
    create("192.168.123.11").await;
    daemon.settled().await;
    let zone = daemon.handle.view().intent.find_network("nat").expect("there").zone;
    let others = [
        connection(1, zone, "192.168.123.11", "192.168.123.11"),
        connection(2, zone.wrapping_add(1), "192.168.123.10", "192.168.123.11"),
        connection(3, 0, "192.168.123.11", "192.0.2.1"),
        connection(4, 0, "198.51.100.1", "192.0.2.1"),
    ];
    others.iter().cloned().for_each(|connection| host.connect(connection));
    host.connect(connection(5, zone, "192.168.123.10", "192.168.123.11"));
    host.connect(connection(6, 0, "192.168.123.10", "192.0.2.1"));

    // What only adds does not even look.
    let looked = host.times_listed();
    create("192.168.123.12").await;
    daemon.settled().await;
    assert_eq!((host.times_listed(), host.connections().len()), (looked, 6));

    // What cannot be done now is done later.
    host.fail_after(Some(0));
    daemon.handle.call(|reply| Command::DeletePort(first, reply)).await.expect("deleted");
    let until = async |done: &dyn Fn() -> bool| {
        let wait = async {
            while !done() {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time");
    };
    until(&|| host.times_listed() > looked).await;
    assert_eq!(host.connections().len(), 6);
    host.fail_after(None);
    daemon.handle.call(|reply| Command::DeletePort(PortId(Uuid::nil()), reply)).await.expect_err("no such port");
    create("192.168.123.13").await;
    until(&|| host.connections().len() < 6).await;
    assert_eq!(host.connections(), others);
}
