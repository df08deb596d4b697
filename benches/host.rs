//! What the daemon's work takes on a real kernel: from a hook, or a tap, to a port that is up.
//!
//! `cargo bench --bench host` (root). It runs in a private host of the test rig, with the daemon's own binary, its
//! sockets and a database on the machine's disk. All figures are of one run; compare them with the floor beside them.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use support::{
    Figure, Report,
    daemon::Daemon,
    netlink::{Monitor, Wire},
};
use uuid::Uuid;
use vmfabric::{
    backend::{Driver, Store, Write as Put},
    datapath::{Change as KernelChange, Family, Set, Table, link_element},
    driver::kernel::KernelDriver,
    intent::{Change, HostConfig, Intent, Network, NetworkId, Segment, SubnetDraft, SubnetId},
    server::hook::{HookAnswer, HookRequest, SOCKET},
    store::sqlite::SqliteStore,
};

/// Ports that are there already in the loaded case. A bridge holds 1,023.
const LOAD: u32 = 1_000;
/// Samples at a time, so that there are never many more ports than the case says; and how often.
const BATCH: u32 = 20;
const BATCHES: u32 = 12;
const BURST: u32 = 500;
const IDLE: Duration = Duration::from_secs(30);
const STATE: &str = "/var/lib/vmfabric";

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--inside") {
        inside();
        return ExitCode::SUCCESS;
    }
    support::in_a_private_host("host", 1500)
}

fn inside() {
    // A commit costs what the disk takes: the rig's own folder is in memory.
    let disk = format!("{}/bench-state", env!("CARGO_TARGET_TMPDIR"));
    let _ = fs::remove_dir_all(&disk);
    fs::create_dir_all(&disk).expect("a folder on disk");
    run("mount", &["--bind", &disk, STATE]);
    // What else runs on this machine is to disturb little.
    run("renice", &["-n", "-19", "-p", &std::process::id().to_string()]);

    let report = Report::new("From a guest's hook or tap to a port that is up (p50 / p99)");
    report.head(&["0 ports", "1,000 ports"]);
    let few = case(0);
    let burst = burst();
    clear();
    let many = case(LOAD);
    let elements = [elements(0), elements(LOAD)];

    let row = |what: &str, asked: &str, pick: fn(&Case) -> &Vec<Duration>| {
        let spread = |case| Figure::Spread(pick(case).clone());
        report.row(what, asked, &[spread(&few), spread(&many)]);
        let (few, many) = (spread(&few).ratio(few.floor()), spread(&many).ratio(many.floor()));
        report.row("  in bare attaches", "", &[few, many]);
    };
    row("bare rtnetlink attach on an open socket (floor)", "~0.5 ms", |case| &case.floor);
    row("hook: first start (the port is made: one fsync)", "<= 10 ms", |case| &case.first);
    row("hook: restart of a guest that is known", "<= 10 ms", |case| &case.restart);
    row("hook: restart, another guest stopped just before", "<= 10 ms", |case| &case.beside);
    row("netlink: from the attach of a known guest's tap", "<= 10 ms", |case| &case.tap);
    report.row(
        "500 taps at once: until all are up",
        "< 2 s",
        &[Figure::Time(burst.1), Figure::Time(burst.1).ratio(burst.0)],
    );
    report.row("  attaching them alone (floor)", "", &[Figure::Time(burst.0)]);
    let share = |case: &Case| Figure::Text(format!("{:.3} %", case.idle.as_secs_f64() / IDLE.as_secs_f64() * 100.0));
    report.row("CPU while idle, of one core", "none", &[share(&few), share(&many)]);
    let elements = elements.map(|(add, observe)| (Figure::Spread(add), Figure::Time(observe)));
    report.row("an element into the set of bound ports", "", &[elements[0].0.clone(), elements[1].0.clone()]);
    report.row("the daemon's full look at the host", "", &[elements[0].1.clone(), elements[1].1.clone()]);
    report.note(format!("{} samples each; asked: p99 with 1,000 ports", BATCH * BATCHES));
    if !few.bound {
        report.note(
            "this kernel has no CONFIG_NFT_BRIDGE_META, so no standing drop: on one that has, an element's time is added",
        );
    }
}

struct Case {
    floor: Vec<Duration>,
    first: Vec<Duration>,
    restart: Vec<Duration>,
    beside: Vec<Duration>,
    tap: Vec<Duration>,
    idle: Duration,
    /// Whether this kernel lets us keep a set of bound ports.
    bound: bool,
}

impl Case {
    fn floor(&self) -> Duration {
        Figure::percentile(&self.floor, 0.5)
    }
}

/// All that is measured beside `load` ports; leaves the host as it found it, but for the links.
fn case(load: u32) -> Case {
    let bridge = store();
    let daemon = Daemon::start();
    let everybody: Vec<Guest> = (0..load).map(|n| Guest { n }).collect();
    for guests in everybody.chunks(50) {
        make_taps(guests);
        hook("start", guests, &bridge);
    }
    let (mut first, mut restart, mut beside, mut tap) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut monitor = Monitor::open();
    for batch in 0..BATCHES {
        let guests: Vec<Guest> = (0..BATCH).map(|n| Guest { n: 10_000 + batch * BATCH + n }).collect();
        let fresh = |guests: &[Guest]| {
            make_taps(guests);
            daemon.settle();
        };
        fresh(&guests);
        first.extend(guests.iter().map(|guest| hook("start", &[*guest], &bridge)));
        delete_taps(&guests);
        fresh(&guests);
        restart.extend(guests.iter().map(|guest| hook("start", &[*guest], &bridge)));
        delete_taps(&guests);

        let (going, coming) = guests.split_at(guests.len() / 2);
        fresh(&guests);
        for guest in going {
            hook("start", &[*guest], &bridge);
        }
        daemon.settle();
        for (gone, guest) in going.iter().zip(coming) {
            delete_taps(&[*gone]);
            beside.push(hook("start", &[*guest], &bridge));
        }
        delete_taps(coming);

        let wire = Wire::open();
        fresh(&guests);
        monitor.skip();
        for guest in &guests {
            let (link, onto) = (index(&guest.tap()), index(&bridge));
            let start = Instant::now();
            wire.attach(link, onto);
            wait_up(&mut monitor, BTreeSet::from([guest.tap()]));
            tap.push(start.elapsed());
        }
        delete_taps(&guests);
    }
    daemon.settle();
    let before = daemon.cpu();
    sleep(IDLE);
    let idle = daemon.cpu() - before;
    drop(daemon);

    let wire = Wire::open();
    let guests: Vec<Guest> = (0..BATCH).map(|n| Guest { n: 20_000 + n }).collect();
    let onto = index(&bridge);
    let mut floor = Vec::new();
    for _ in 0..BATCHES {
        make_taps(&guests);
        for guest in &guests {
            let link = index(&guest.tap());
            let start = Instant::now();
            wire.attach(link, onto);
            floor.push(start.elapsed());
        }
        delete_taps(&guests);
    }
    let table = Command::new("nft").args(["list", "table", "bridge", "vmfabric"]).stderr(Stdio::null()).output();
    Case { floor, first, restart, beside, tap, idle, bound: table.is_ok_and(|table| table.status.success()) }
}

/// Taps of guests that are known come onto the bridge one right after another: how long that takes, and until when all
/// are up.
fn burst() -> (Duration, Duration) {
    clear();
    let bridge = store();
    let daemon = Daemon::start();
    let guests: Vec<Guest> = (0..BURST).map(|n| Guest { n }).collect();
    for guests in guests.chunks(50) {
        hook("prepare", guests, &bridge);
    }
    make_taps(&guests);
    daemon.settle();
    let mut monitor = Monitor::open();
    let (wire, onto) = (Wire::open(), index(&bridge));
    let links: Vec<u32> = guests.iter().map(|guest| index(&guest.tap())).collect();
    let start = Instant::now();
    links.into_iter().for_each(|link| wire.attach(link, onto));
    let attached = start.elapsed();
    wait_up(&mut monitor, guests.iter().map(Guest::tap).collect());
    (attached, start.elapsed())
}

/// One element into a set of `count` names beside it, and a whole look at a host that has them.
fn elements(count: u32) -> (Vec<Duration>, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut driver = KernelDriver::new().expect("the kernel");
        // As the planner's, without what this kernel may lack.
        let chain = "type filter hook prerouting priority -350; policy accept;\niifname != @bound counter accept";
        let bound = (0..count).map(|n| link_element(Guest { n }.tap())).collect();
        let table = Table {
            sets: [("bound".to_owned(), Set::new("set type ifname", bound))].into(),
            chains: [("prerouting".to_owned(), chain.into())].into(),
            ..Table::default()
        };
        let replace = KernelChange::ReplaceTable { family: Family::Bridge, table };
        driver.apply(&[replace]).await.expect("a table");
        let mut samples = Vec::new();
        for n in 0..BATCH * BATCHES {
            let elements = BTreeSet::from([link_element(Guest { n: 30_000 + n }.tap())]);
            let (family, set) = (Family::Bridge, "bound".to_owned());
            let add = KernelChange::AddElements { family, set: set.clone(), elements: elements.clone() };
            let start = Instant::now();
            driver.apply(&[add]).await.expect("added");
            samples.push(start.elapsed());
            driver.apply(&[KernelChange::DeleteElements { family, set, elements }]).await.expect("taken out");
        }
        let mut looks = Vec::new();
        for _ in 0..BATCH {
            let start = Instant::now();
            driver.observe().await.expect("observed");
            looks.push(start.elapsed());
        }
        driver.apply(&[KernelChange::DeleteTable { family: Family::Bridge }]).await.expect("deleted");
        (samples, Figure::percentile(&looks, 0.5))
    })
}

/// A guest with one NIC.
#[derive(Debug, Clone, Copy)]
struct Guest {
    n: u32,
}

impl Guest {
    fn tap(&self) -> String {
        format!("vnet{}", self.n)
    }

    fn mac(&self, first: u8) -> String {
        let [_, a, b, c] = self.n.to_be_bytes();
        format!("{first:02x}:54:00:{a:02x}:{b:02x}:{c:02x}")
    }
}

/// Sends what libvirt's hook would, with these NICs in one guest; from the connection to the answer.
fn hook(operation: &str, guests: &[Guest], bridge: &str) -> Duration {
    let nics: String = guests
        .iter()
        .map(|guest| {
            let target = if operation == "start" { format!("<target dev='{}'/>", guest.tap()) } else { String::new() };
            format!(
                "<interface type='bridge'><mac address='{}'/><source bridge='{bridge}'/>{target}\
                 <model type='virtio'/></interface>",
                guest.mac(0x52)
            )
        })
        .collect();
    let (name, uuid) = (format!("g{}", guests[0].n), Uuid::from_u128(0x7000_0000 + u128::from(guests[0].n)));
    let xml =
        format!("<domain type='qemu' id='1'><name>{name}</name><uuid>{uuid}</uuid><devices>{nics}</devices></domain>");
    let request =
        HookRequest { driver: "qemu".into(), object: name, operation: operation.into(), sub_operation: "begin".into() };
    let mut message = serde_json::to_vec(&request).expect("JSON");
    message.push(b'\n');
    message.extend_from_slice(xml.as_bytes());

    let start = Instant::now();
    let mut socket = UnixStream::connect(SOCKET).expect("the daemon's socket");
    socket.write_all(&message).expect("sent");
    socket.shutdown(Shutdown::Write).expect("sent");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer");
    let took = start.elapsed();

    let answer: HookAnswer = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(answer.refuse, None);
    if operation == "start" {
        for guest in guests {
            let link = format!("/sys/class/net/{}", guest.tap());
            let flags = fs::read_to_string(format!("{link}/flags")).expect("a link");
            let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).expect("flags");
            let master = fs::read_link(format!("{link}/master")).expect("on a bridge");
            assert!(flags & 1 == 1 && master.ends_with(bridge), "{link} is not up on {bridge}");
        }
    }
    took
}

/// Until all of these carry a port's alias and are up.
fn wait_up(monitor: &mut Monitor, mut waiting: BTreeSet<String>) {
    while !waiting.is_empty() {
        for link in monitor.next().into_iter().filter(|link| link.up && link.alias.starts_with("vmfabric:port/")) {
            waiting.remove(&link.name);
        }
    }
}

/// Taps as libvirt names them, on no bridge and down: all that a port needs is left to the daemon.
fn make_taps(guests: &[Guest]) {
    let line = |guest: &Guest| {
        let (tap, mac) = (guest.tap(), guest.mac(0xfe));
        format!("tuntap add dev {tap} mode tap\nlink set dev {tap} address {mac}\n")
    };
    ip(&guests.iter().map(line).collect::<String>());
}

fn delete_taps(guests: &[Guest]) {
    ip(&guests.iter().map(|guest| format!("link delete dev {}\n", guest.tap())).collect::<String>());
}

fn ip(batch: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("iproute2");
    child.stdin.take().expect("a pipe").write_all(batch.as_bytes()).expect("written");
    assert!(child.wait().expect("ended").success(), "ip -batch");
}

fn index(link: &str) -> u32 {
    let text = fs::read_to_string(format!("/sys/class/net/{link}/ifindex")).expect("a link");
    text.trim().parse().expect("a number")
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().expect(program).success(), "{program} {arguments:?}");
}

/// A new database with one network, 10.77.0.0/20 behind NAT; gives its bridge.
fn store() -> String {
    for file in fs::read_dir(STATE).expect("the state's folder") {
        fs::remove_file(file.expect("a file").path()).expect("removed");
    }
    let id = NetworkId(Uuid::from_u128(1));
    let bridge = Network::bridge_name(id, "bench");
    let name = "bench".parse().expect("a name");
    let network = Network {
        id,
        name,
        segment: Segment::Local,
        bridge: Some(bridge.clone()),
        mtu: None,
        dns_domain: None,
        zone: 1,
        security: vmfabric::intent::NetworkSecurity::default(),
        dns: vmfabric::intent::NetworkDns::default(),
        dhcp_options: Vec::new(),
        dhcp_boot: Vec::new(),
    };
    let mut intent = Intent::default();
    let _ = intent.apply(vec![Change::PutNetwork(network.clone())], &HostConfig::default()).expect("a network");
    let draft = serde_json::json!({ "network": "bench", "cidr": "10.77.0.0/20", "forward": "nat" });
    let draft: SubnetDraft = serde_json::from_value(draft).expect("a draft");
    let subnet = draft.complete(SubnetId(Uuid::from_u128(2)), &intent).expect("a subnet");
    let store = SqliteStore::open(Path::new("/var/lib/vmfabric/vmfabric.db")).expect("a store");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let writes = [Change::PutNetwork(network), Change::PutSubnet(subnet)].map(Put::Intent);
    runtime.block_on(store.commit(writes.into())).expect("committed");
    bridge.to_string()
}

/// Deletes all links that a case left.
fn clear() {
    let links = fs::read_dir("/sys/class/net").expect("links");
    let names = links.map(|link| link.expect("a link").file_name().to_string_lossy().into_owned());
    let ours = names.filter(|name| name.starts_with("vnet") || name.starts_with("vmf"));
    ip(&ours.map(|name| format!("link delete dev {name}\n")).collect::<String>());
    // There may be none.
    let _ = Command::new("nft").args(["delete", "table", "inet", "vmfabric"]).stderr(Stdio::null()).status();
}
