//! Real clients on real interfaces. Each test has a network namespace of its own, which ends with its thread.

use super::*;
use crate::{
    net::{DnsLabel, MacAddr},
    protocol::dhcpv4::{Host, LeaseChange, Subnet},
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::HashMap,
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

pub(in crate::server) const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a test in a thread, and so in a network namespace, of its own.
pub(in crate::server) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        let body = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(test());
        });
        if let Err(panic) = body.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub(in crate::server) fn run(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a program");
    Command::new(program).args(words).status().unwrap_or_else(|e| panic!("{command}: {e}")).success()
}

pub(in crate::server) fn must(command: &str) {
    assert!(run(command), "{command}");
}

/// The next event, within the deadline.
async fn next(events: &mut mpsc::Receiver<DhcpEvent>) -> DhcpEvent {
    timeout(DEADLINE, events.recv()).await.expect("an event in time").expect("a running server")
}

pub(in crate::server) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A child that ends with the test.
pub(in crate::server) struct Running(pub(in crate::server) Child);

impl Running {
    pub(in crate::server) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().expect("a pid")), signal).expect("the child runs");
    }

    pub(in crate::server) async fn success(&mut self) -> bool {
        let mut status = None;
        until("the client ends", || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        status.expect("ended").success()
    }

    pub(in crate::server) fn runs(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A namespace with one NIC, `eth0`, whose other end is on a bridge.
pub(in crate::server) struct Guest {
    anchor: Running,
    files: TempDir,
}

impl Guest {
    pub(in crate::server) async fn new(bridge: &str, number: u8) -> Self {
        let anchor = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().expect("unshare");
        let (anchor, files) = (Running(anchor), TempDir::new().expect("a directory"));
        let pid = anchor.0.id();
        let own = fs::read_link("/proc/thread-self/ns/net").expect("a namespace");
        until("the guest's namespace", || fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns != own)).await;
        must(&format!("ip link add tap{number} type veth peer name eth0 address {} netns {pid}", mac(number)));
        must(&format!("ip link set tap{number} master {bridge} up"));
        let guest = Self { anchor, files };
        must(&format!("{} ip link set eth0 up", guest.enter()));
        let script = "#!/bin/sh\n[ \"$1\" = bound ] || [ \"$1\" = renew ] || exit 0\nip addr replace $ip/$mask dev eth0\n\
                      { echo \"$1 $ip $mask $router $dns $domain $mtu $lease\"; } >\"${0%/*}/lease.new\"\n\
                      mv \"${0%/*}/lease.new\" \"${0%/*}/lease\"\n";
        let path = guest.file("script");
        fs::write(&path, script).expect("a file");
        must(&format!("chmod 755 {}", path.display()));
        guest
    }

    pub(in crate::server) fn enter(&self) -> String {
        format!("nsenter --net=/proc/{}/ns/net", self.anchor.0.id())
    }

    pub(in crate::server) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(in crate::server) fn start(&self, command: &str) -> Running {
        let command = format!("{} {command}", self.enter());
        let mut words = command.split_whitespace();
        let child = Command::new(words.next().expect("a program")).args(words).stdout(Stdio::null()).spawn();
        Running(child.expect("a client"))
    }

    /// A client with folders of its own, by a shell script.
    pub(in crate::server) fn script(&self, name: &str, text: &str) -> Running {
        let path = self.file(name);
        fs::write(&path, text).expect("a file");
        self.start(&format!("unshare --mount sh -e {}", path.display()))
    }

    fn addresses(&self) -> String {
        let command = format!("{} ip -4 -o addr show dev eth0", self.enter());
        let mut words = command.split_whitespace();
        let output = Command::new(words.next().expect("a program")).args(words).output().expect("ip");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn udhcpc(&self, options: &str) -> Running {
        let script = self.file("script");
        self.start(&format!("busybox udhcpc -f -i eth0 -t 4 -T 1 -O mtu -s {} {options}", script.display()))
    }

    /// `bound`, address, mask, router, DNS server, domain, MTU and lease time, as the client's script saw them.
    fn lease(&self) -> String {
        fs::read_to_string(self.file("lease")).unwrap_or_default().trim().to_owned()
    }
}

pub(in crate::server) fn mac(number: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 1, number]).expect("unicast")
}

fn bridge(name: &str) {
    must(&format!("ip link add {name} type bridge"));
    must(&format!("ip addr add 10.77.0.1/24 dev {name}"));
    must(&format!("ip link set {name} up"));
}

fn scope(interface: &str) -> Scope {
    let server_address = Ipv4Addr::new(10, 77, 0, 1);
    Scope {
        network: Uuid::from_u128(1),
        interface: interface.parse().expect("a name"),
        server_address,
        other_addresses: Vec::new(),
        subnets: vec![Subnet {
            id: Uuid::from_u128(2),
            prefix: "10.77.0.0/24".parse().expect("a prefix"),
            on_link: true,
            router: Some(server_address),
            dns_servers: vec![server_address],
            domain: Some("lab.example".parse().expect("a name")),
            mtu: Some(1400),
            host_routes: Vec::new(),
            pools: vec!["10.77.0.100-10.77.0.120".parse().expect("a range")],
            lease_time: Duration::from_secs(3600),
            dynamic: true,
            options: Vec::new(),
            boot: Vec::new(),
        }],
        hosts: vec![Host {
            mac: mac(7),
            client: None,
            address: Ipv4Addr::new(10, 77, 0, 50),
            host_name: Some(DnsLabel::new("seven").expect("a label")),
            port: Uuid::from_u128(7),
            options: Vec::new(),
            boot: Vec::new(),
        }],
        relays: Vec::new(),
        rapid_commit: true,
        probe: true,
        leases_per_port: 16,
        packets_per_port: 100,
    }
}

/// A disk whose writes can be held up.
struct Disk {
    leases: Mutex<HashMap<Ipv4Addr, Lease>>,
    asked: watch::Sender<u32>,
    open: watch::Sender<bool>,
}

impl Disk {
    fn new() -> Arc<Self> {
        let (leases, asked, open) = (Mutex::default(), watch::Sender::new(0), watch::Sender::new(true));
        Arc::new(Self { leases, asked, open })
    }

    fn get(&self, last: u8) -> Option<Lease> {
        self.leases.lock().expect("no panic").get(&Ipv4Addr::new(10, 77, 0, last)).cloned()
    }
}

impl LeaseStore<Lease> for Disk {
    async fn load(&self, _network: Uuid) -> Result<Vec<Lease>, CommitError> {
        Ok(self.leases.lock().expect("no panic").values().cloned().collect())
    }

    async fn commit(&self, changes: Vec<LeaseChange>) -> Vec<Result<(), CommitError>> {
        self.asked.send_modify(|count| *count += 1);
        self.open.subscribe().wait_for(|open| *open).await.expect("the disk");
        let mut leases = self.leases.lock().expect("no panic");
        let store = |change| match change {
            LeaseChange::Put(lease) => drop(leases.insert(lease.address, lease)),
            LeaseChange::Remove(lease) => drop(leases.remove(&lease.address)),
        };
        changes.into_iter().map(store).map(Ok).collect()
    }
}

async fn serve(scope: Scope, disk: &Arc<Disk>) -> (DhcpServer, mpsc::Receiver<DhcpEvent>) {
    let (events, receiver) = mpsc::channel(64);
    (DhcpServer::start(scope, LeaseClock::default(), Arc::clone(disk), events).await.expect("served"), receiver)
}

#[test]
#[ignore = "needs root: network namespaces"]
fn udhcpc_gets_renews_and_releases_its_lease() {
    in_namespace(async || {
        bridge("br0");
        let (disk, guest) = (Disk::new(), Guest::new("br0", 7).await);
        let (server, mut events) = serve(scope("br0"), &disk).await;
        let _capture = capture("udhcpc").await;
        disk.open.send_replace(false);
        let mut client = guest.udhcpc("-x hostname:Web.lab");
        disk.asked.subscribe().wait_for(|asked| *asked == 1).await.expect("a store");
        assert!(client.runs() && guest.lease().is_empty(), "no ACK before the lease is on disk");
        disk.open.send_replace(true);
        until("a lease", || guest.lease() == "bound 10.77.0.50 24 10.77.0.1 10.77.0.1 lab.example 1400 3600").await;
        let lease = disk.get(50).expect("on disk");
        assert_eq!((lease.mac, lease.port), (mac(7), Some(Uuid::from_u128(7))));
        assert_eq!(lease.host_name.as_ref().map(DnsLabel::as_str), Some("web"));
        assert_eq!(next(&mut events).await, DhcpEvent::Protocol(Event::LeaseGranted(lease)));

        client.signal(Signal::SIGUSR1);
        until("a renewal, by unicast", || guest.lease().starts_with("renew 10.77.0.50")).await;
        client.signal(Signal::SIGUSR2);
        until("a release", || disk.get(50).is_none()).await;
        assert!(matches!(next(&mut events).await, DhcpEvent::Protocol(Event::LeaseReleased(_))));
        let stats = server.stats().await.expect("running").0;
        assert_eq!((stats.offers, stats.releases, stats.malformed), (1, 1, 0));
        // The client may have asked again while its ACK was held back.
        assert!(stats.acks >= 2, "{stats:?}");
        server.stop().await;
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn only_its_own_interface_is_served() {
    in_namespace(async || {
        bridge("br0");
        must("ip link add br1 type bridge");
        must("ip link set br1 up");
        let (server, _events) = serve(scope("br0"), &Disk::new()).await;
        let (ours, other) = (Guest::new("br0", 8).await, Guest::new("br1", 9).await);
        // -B asks for broadcast replies.
        let (mut on_ours, mut on_other) = (ours.udhcpc("-n -q -B"), other.udhcpc("-n -q -B"));
        assert!(on_ours.success().await);
        assert!(ours.lease().starts_with("bound 10.77.0.100 24"));
        assert!(!on_other.success().await);
        let received = server.stats().await.expect("running").0.received;
        assert!(received >= 2);

        // Two served interfaces do not get in each other's way.
        let mut second = scope("br1");
        second.network = Uuid::from_u128(9);
        let (_second, _events) = serve(second, &Disk::new()).await;
        assert!(other.udhcpc("-n -q").success().await);
        assert_eq!(server.stats().await.expect("running").0.received, received);
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_taken_port_67_is_named_with_its_holder() {
    in_namespace(async || {
        bridge("br0");
        let files = TempDir::new().expect("a directory");
        let [config, leases, pid] =
            ["config", "leases", "pid"].map(|name| files.path().join(name).display().to_string());
        let text = format!("start 10.77.0.10\nend 10.77.0.20\ninterface br0\nlease_file {leases}\npidfile {pid}\n");
        fs::write(&config, text).expect("a file");
        fs::write(&leases, "").expect("a file");
        let holder = Command::new("busybox").args(["udhcpd", "-f", &config]).spawn();
        let holder = Running(holder.expect("busybox"));
        let table = || fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
        until("the port to be taken", || table().contains(":0043 ")).await;
        let (events, _receiver) = mpsc::channel(1);
        let error = DhcpServer::start(scope("br0"), LeaseClock::default(), Disk::new(), events)
            .await
            .expect_err("taken")
            .to_string();
        assert!(error.contains("br0") && error.contains(&format!("busybox (pid {})", holder.0.id())), "{error}");

        let (events, _receiver) = mpsc::channel(1);
        let error = DhcpServer::start(scope("br7"), LeaseClock::default(), Disk::new(), events)
            .await
            .expect_err("no such interface");
        assert!(error.to_string().contains("br7"), "{error}");
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn an_interface_that_goes_and_comes_is_served_again() {
    in_namespace(async || {
        bridge("br0");
        let disk = Disk::new();
        let (server, mut events) = serve(scope("br0"), &disk).await;
        must("ip link del br0");
        assert!(matches!(next(&mut events).await, DhcpEvent::InterfaceLost { .. }));
        bridge("br0");
        assert!(matches!(next(&mut events).await, DhcpEvent::InterfaceBack { .. }));
        let guest = Guest::new("br0", 8).await;
        assert!(guest.udhcpc("-n -q").success().await);
        assert!(disk.get(100).is_some());
        server.stop().await;
    });
}

#[test]
#[ignore = "needs root: network namespaces; and isc-dhcp-client"]
fn dhclient_gets_its_lease_and_reboots_with_it() {
    in_namespace(async || {
        bridge("br0");
        let (disk, guest) = (Disk::new(), Guest::new("br0", 8).await);
        let (server, _events) = serve(scope("br0"), &disk).await;
        let (leases, pid) = (guest.file("leases"), guest.file("pid"));
        let dhclient = format!("dhclient -4 -1 -d -sf /bin/true -lf {} -pf {} eth0", leases.display(), pid.display());
        let bound = || fs::read_to_string(&leases).unwrap_or_default().matches("fixed-address 10.77.0.100;").count();
        let _capture = capture("dhclient").await;
        let client = guest.start(&dhclient);
        until("a lease", || bound() == 1).await;
        drop(client);
        let _client = guest.start(&dhclient);
        until("the same lease after a reboot", || bound() >= 2).await;
        assert_eq!(server.stats().await.expect("running").0.offers, 1, "the second time without a DISCOVER");
    });
}

#[test]
#[ignore = "needs root: network namespaces; and dhcpcd-base"]
fn dhcpcd_gets_its_lease() {
    in_namespace(async || {
        bridge("br0");
        let (disk, guest) = (Disk::new(), Guest::new("br0", 7).await);
        let (server, _events) = serve(scope("br0"), &disk).await;
        let capture = capture("dhcpcd").await;
        let folder = TempDir::new().expect("a folder");
        let reasons = folder.path().join("reasons");
        let text = format!(
            "mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib/dhcpcd\n\
             printf '#!/bin/sh\\necho $reason >>{}\\n' >/run/hook; chmod +x /run/hook\n\
             exec dhcpcd -4 -B -c /run/hook eth0\n",
            reasons.display()
        );
        let client = guest.script("client", &text);
        until("a lease", || guest.addresses().contains("10.77.0.50/24")).await;
        // A signal that comes before it told of the lease ends its processes in any order, some without a RELEASE.
        until("its hook", || std::fs::read_to_string(&reasons).is_ok_and(|all| all.contains("BOUND"))).await;
        // Its client identifier is a DUID; the port's address is the MAC's all the same.
        let lease = disk.get(50).expect("on disk");
        assert!(lease.port.is_some() && lease.client.as_bytes()[0] == 0xff, "{lease:?}");
        client.signal(Signal::SIGALRM);
        until("a release", || disk.get(50).is_none()).await;
        assert_eq!(server.stats().await.expect("running").0.malformed, 0);
        drop(capture);
    });
}

#[test]
#[ignore = "needs root: network namespaces; and systemd"]
fn systemd_networkd_gets_its_lease() {
    in_namespace(async || {
        bridge("br0");
        let (disk, guest) = (Disk::new(), Guest::new("br0", 8).await);
        let (server, _events) = serve(scope("br0"), &disk).await;
        let capture = capture("networkd").await;
        // With /sys mounted read-only it does not wait for udev.
        let text = "mount -t sysfs -o ro sysfs /sys; mount -t tmpfs -o mode=755 tmpfs /run\n\
                    mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp\n\
                    chown -R systemd-network: /run/systemd/netif\n\
                    printf '[Match]\\nName=eth0\\n[Network]\\nDHCP=ipv4\\n' >/run/systemd/network/a.network\n\
                    exec /lib/systemd/systemd-networkd\n";
        let _client = guest.script("client", text);
        until("a lease", || guest.addresses().contains("10.77.0.100/24")).await;
        assert!(disk.get(100).is_some());
        assert_eq!(server.stats().await.expect("running").0.malformed, 0);
        drop(capture);
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn an_address_that_somebody_uses_is_not_given() {
    in_namespace(async || {
        bridge("br0");
        let squatter = Guest::new("br0", 9).await;
        must(&format!("{} ip addr add 10.77.0.100/24 dev eth0", squatter.enter()));
        let (server, mut events) = serve(scope("br0"), &Disk::new()).await;
        let conflict = next(&mut events).await;
        let address = Ipv4Addr::new(10, 77, 0, 100);
        assert!(
            matches!(conflict, DhcpEvent::Protocol(Event::AddressConflict { address: a, mac: m, .. }) if a == address && m == mac(9)),
            "{conflict:?}"
        );
        let guest = Guest::new("br0", 8).await;
        assert!(guest.udhcpc("-n -q -r 10.77.0.100").success().await);
        assert!(guest.lease().starts_with("bound 10.77.0.101"), "{}", guest.lease());
        assert_eq!(server.stats().await.expect("running").0.conflicts, 1);
    });
}

/// One port sends thirty times what the filters let through, under ever new names, and to the server alone, so that only
/// the server suffers; another gets its lease as if alone.
#[test]
#[ignore = "needs root: network namespaces"]
fn a_flood_from_one_port_does_not_keep_others_from_their_leases() {
    in_namespace(async || {
        bridge("br0");
        must(&format!("ip link set br0 address {}", mac(0xfe)));
        let mut wide = scope("br0");
        wide.subnets[0].pools = vec!["10.77.0.60-10.77.0.250".parse().expect("a range")];
        let (server, _events) = serve(wide, &Disk::new()).await;
        let (flooder, guest) = (Guest::new("br0", 9).await, Guest::new("br0", 8).await);
        let mut flood = flood(&flooder, "server::dhcpv4::live::floods", mac(0xfe));
        let start = Instant::now();
        while server.stats().await.expect("running").1 < 20_000 {
            assert!(start.elapsed() < DEADLINE && flood.runs(), "no flood");
            sleep(Duration::from_millis(5)).await;
        }
        let start = Instant::now();
        assert!(guest.udhcpc("-n -q").success().await);
        let (stats, dropped) = server.stats().await.expect("running");
        println!("a lease in {:?} while {dropped} packets were dropped; {stats:?}", start.elapsed());
        assert!(flood.runs());
        // Its share of the pool, and offers for no more.
        assert!(stats.limited > 0 && stats.offers <= 16 * 40, "{stats:?}");
    });
}

/// Packets a second.
const FLOOD: u128 = 30_000;

/// This program once more, in a guest: one of its tests floods the server, which has this MAC address.
pub(in crate::server) fn flood(guest: &Guest, test: &str, server: MacAddr) -> Running {
    let enter = guest.enter();
    let mut words = enter.split_whitespace();
    let flood = Command::new(words.next().expect("nsenter"))
        .args(words)
        .arg(std::env::current_exe().expect("this test"))
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("VMFABRIC_TEST_FLOOD", server.to_string())
        .stdout(Stdio::null())
        .spawn();
    Running(flood.expect("this test"))
}

/// The guest's side of it: `packet` by number and MAC address, each packet from an address of its own.
pub(in crate::server) fn send_flood(ethertype: u16, packet: impl Fn(u32, MacAddr) -> Vec<u8>) {
    let Ok(server) = std::env::var("VMFABRIC_TEST_FLOOD") else { return };
    let server = server.parse::<MacAddr>().expect("a MAC address").octets();
    let index = nix::net::if_::if_nametoindex("eth0").expect("an interface");
    let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None).expect("root");
    let address = crate::ffi::packet::link_address(index, ethertype, server).expect("an address");
    let start = Instant::now();
    for n in 0u32.. {
        while u128::from(n) > start.elapsed().as_micros() * FLOOD / 1_000_000 {
            std::thread::yield_now();
        }
        let [_, a, b, c] = n.to_be_bytes();
        let mac = MacAddr::new([0x02, 0, 0, a, b, c]).expect("unicast");
        let frame = [&server[..], &mac.octets(), &ethertype.to_be_bytes(), &packet(n, mac)].concat();
        // A full queue is what a flood meets.
        let _ = socket.send_to(&frame, &address);
    }
}

/// DISCOVERs from ever new clients.
#[test]
#[ignore = "is started by another test"]
fn floods() {
    let endpoints = ("0.0.0.0:68".parse().expect("an address"), "255.255.255.255:67".parse().expect("an address"));
    send_flood(crate::ffi::packet::ETHERTYPE_IPV4, |_, mac| {
        let mut message = vec![0; 240];
        message[..3].copy_from_slice(&[1, 1, 6]);
        message[28..34].copy_from_slice(&mac.octets());
        message[236..].copy_from_slice(&[99, 130, 83, 99]);
        message.extend([53, 1, 1, 255]);
        frame::build(endpoints.0, endpoints.1, &message).expect("short")
    });
}

/// With `VMFABRIC_TEST_CAPTURE` set to a folder, what clients send is written there: the fuzzer's seeds come from it.
async fn capture(client: &str) -> Option<Running> {
    let folder = std::env::var_os("VMFABRIC_TEST_CAPTURE")?;
    let file = PathBuf::from(folder).join(format!("{client}.pcap"));
    let tcpdump = Command::new("tcpdump")
        .args(["--immediate-mode", "-U", "-i", "br0", "-w"])
        .arg(&file)
        .arg("udp port 67")
        .spawn();
    let tcpdump = Running(tcpdump.expect("tcpdump"));
    until("a capture", || fs::metadata(&file).is_ok_and(|file| file.len() >= 24)).await;
    Some(tcpdump)
}
