//! What the bus carries: networks and ports made by a client that pipelines, listed, and a change seen by another.
//!
//! `cargo bench --bench dbus` (root). It runs in a private host of the test rig, with a bus of its own, the daemon's own
//! binary and a database on the machine's disk; libvirt makes networks beside it, by `virsh`, in the same run.

mod support;

use futures_util::StreamExt;
use std::{
    collections::HashMap,
    fs,
    future::Future,
    num::NonZero,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use support::{Figure, Report, daemon::Daemon};
use tokio::{sync::Semaphore, task::JoinSet};
use vmfabric::dbus::proxy::ManagerProxy;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, Variant, fdo, message::Type};

const NETWORKS: usize = 1_000;
const PORTS: usize = 10_000;
/// Made by `virsh`, which takes much longer.
const LIBVIRT_NETWORKS: usize = 100;
/// Requests on their way at a time; a system bus allows 128 by default.
const WINDOW: usize = 64;
const CHANGES: usize = 300;
const STATE: &str = "/var/lib/vmfabric";

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--inside") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(inside());
        return ExitCode::SUCCESS;
    }
    support::in_a_private_host("dbus", 1200)
}

async fn inside() {
    let disk = format!("{}/bench-dbus-state", env!("CARGO_TARGET_TMPDIR"));
    let _ = fs::remove_dir_all(&disk);
    fs::create_dir_all(&disk).expect("a folder on disk");
    shell(&format!("mount --bind {disk} {STATE}"));
    shell(&format!("make -s -C {} install DESTDIR= BIN_DIR=$(dirname {})", env!("CARGO_MANIFEST_DIR"), DAEMON));
    shell(". $VMFABRIC_RIG/lib.sh; start_bus");
    let libvirt = libvirt_networks();

    let daemon = Daemon::start();
    let bus = Connection::system().await.expect("the bus");
    let manager = ManagerProxy::new(&bus).await.expect("a proxy");
    answers(&manager).await;

    let make_network = |n: usize| {
        let manager = manager.clone();
        async move {
            let properties = HashMap::from([("name", Variant::from(format!("n{n}")))]);
            manager.create_network(&properties).await.expect("a network")
        }
    };
    let started = Instant::now();
    let networks = pipelined(NETWORKS, make_network).await;
    let made_networks = started.elapsed();
    in_place(&manager).await;
    let networks_in_place = started.elapsed();

    let cpu = daemon.cpu();
    let make_port = |n: usize| {
        let (manager, network) = (manager.clone(), format!("n{}", n % NETWORKS));
        async move {
            let properties = HashMap::from([("network", network.into()), ("name", Variant::from(format!("p{n}")))]);
            manager.create_port(&properties).await.expect("a port")
        }
    };
    let started = Instant::now();
    let ports = pipelined(PORTS, make_port).await;
    let made_ports = started.elapsed();
    in_place(&manager).await;
    let cpu = daemon.cpu() - cpu;

    let lists = lists(&bus).await;
    let seen = changes(&bus, &ports).await;

    let report = Report::new("What the bus carries (p50 / p99 where there are two)");
    report.head(&["vmfabric", "virsh"]);
    let rate = |count: usize, took: Duration| Figure::Text(format!("{:.0}/s", count as f64 / took.as_secs_f64()));
    let per_libvirt = rate(LIBVIRT_NETWORKS, libvirt);
    report.row("1,000 networks, each committed", "2,000/s", &[rate(networks.len(), made_networks), Figure::None]);
    report.row("  until all have their bridges", "", &[rate(networks.len(), networks_in_place), per_libvirt]);
    report.row("10,000 ports, each committed", "2,000/s", &[rate(ports.len(), made_ports), Figure::None]);
    report.row("  the daemon's CPU for each", "", &[Figure::Time(cpu / PORTS as u32), Figure::None]);
    report.row("GetManagedObjects with all of them", "< 200 ms", &[Figure::Spread(lists), Figure::None]);
    report.row("a change, from the call to another's signal", "< 5 ms", &[Figure::Spread(seen), Figure::None]);
    report.note(format!(
        "{WINDOW} calls on their way at a time; virsh: net-define and net-start of bridges without DHCP"
    ));
}

const DAEMON: &str = env!("CARGO_BIN_EXE_vmfabricd");

/// How long libvirt takes for networks, each with a bridge and nothing else, by one `virsh`.
fn libvirt_networks() -> Duration {
    shell(". $VMFABRIC_RIG/lib.sh; start_libvirt");
    let mut script = String::new();
    for n in 0..LIBVIRT_NETWORKS {
        let file = format!("/run/rig/l{n}.xml");
        fs::write(&file, format!("<network><name>l{n}</name><bridge name='vl{n}' stp='off'/></network>"))
            .expect("written");
        script += &format!("net-define {file}\nnet-start l{n}\n");
    }
    fs::write("/run/rig/virsh", script).expect("written");
    let started = Instant::now();
    shell("virsh -c qemu:///system -q </run/rig/virsh >/run/rig/virsh.out 2>&1");
    let took = started.elapsed();
    let bridges = fs::read_dir("/sys/class/net").expect("links").filter_map(Result::ok);
    let bridges = bridges.filter(|link| link.file_name().to_string_lossy().starts_with("vl")).count();
    assert_eq!(bridges, LIBVIRT_NETWORKS, "{}", fs::read_to_string("/run/rig/virsh.out").unwrap_or_default());
    shell(". $VMFABRIC_RIG/lib.sh; stop_libvirt; for b in /sys/class/net/vl*; do ip link delete ${b##*/}; done");
    took
}

async fn pipelined<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: usize,
    make: impl Fn(usize) -> F,
) -> Vec<T> {
    let window = Arc::new(Semaphore::new(WINDOW));
    let mut calls = JoinSet::new();
    for n in 0..count {
        let place = Arc::clone(&window).acquire_owned().await.expect("a place");
        let call = make(n);
        calls.spawn(async move {
            let made = call.await;
            drop(place);
            made
        });
    }
    calls.join_all().await
}

/// Until the kernel is what is wanted.
async fn in_place(manager: &ManagerProxy<'_>) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !manager.plan().await.expect("a plan").is_empty() {
        assert!(Instant::now() < deadline, "the plan does not become empty");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn answers(manager: &ManagerProxy<'_>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while manager.version().await.is_err() {
        let log = || fs::read_to_string("/run/rig/vmfabricd.log").unwrap_or_default();
        assert!(Instant::now() < deadline, "vmfabricd does not answer:\n{}", log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn lists(bus: &Connection) -> Vec<Duration> {
    let mut samples = Vec::new();
    for _ in 0..10 {
        let started = Instant::now();
        let (to, path, interface) = ("org.vmfabric1", "/org/vmfabric1", "org.freedesktop.DBus.ObjectManager");
        let reply = bus.call_method(Some(to), path, Some(interface), "GetManagedObjects", &()).await.expect("a list");
        let took = started.elapsed();
        let objects: fdo::ManagedObjects = reply.body().deserialize().expect("objects");
        assert!(objects.len() > NETWORKS + PORTS, "{} objects", objects.len());
        samples.push(took);
    }
    samples
}

/// From the call that changes a port to the signal on another connection.
async fn changes(bus: &Connection, ports: &[OwnedObjectPath]) -> Vec<Duration> {
    let watcher = Connection::system().await.expect("the bus");
    let rule = MatchRule::builder().msg_type(Type::Signal).interface("org.freedesktop.DBus.Properties");
    let rule = rule.member("PropertiesChanged").build().expect("a rule");
    let mut signals = MessageStream::for_match_rule(rule, &watcher, NonZero::new(1024)).await.expect("a match");
    let mut samples = Vec::new();
    for (n, port) in ports.iter().take(CHANGES).enumerate() {
        let wanted = (HashMap::from([("dns_name", Variant::from(format!("renamed-{n}")))]),);
        let started = Instant::now();
        let interface = Some("org.vmfabric1.Port");
        let call = bus.call_method(Some("org.vmfabric1"), port.as_str(), interface, "Update", &wanted);
        let seen = async {
            loop {
                let signal = signals.next().await.expect("the bus").expect("a signal");
                if signal.header().path().is_some_and(|path| path.as_str() == port.as_str()) {
                    return started.elapsed();
                }
            }
        };
        let (changed, took) = tokio::join!(call, seen);
        changed.expect("changed");
        samples.push(took);
    }
    samples
}

fn shell(script: &str) {
    let status = Command::new("bash").args(["-c", script]).stdin(Stdio::null()).status().expect("bash");
    assert!(status.success(), "{script}: {status}");
}
