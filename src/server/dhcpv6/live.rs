//! Real clients on real interfaces. Each test has a network namespace of its own, which ends with its thread.

use super::*;
use crate::{
    net::DnsLabel,
    protocol::{
        dhcpv6::{Host, LeaseChange, Subnet},
        ra::Prefix,
    },
    server::{
        dhcpv4::live::{DEADLINE, Guest, Running, flood, in_namespace, mac, must, send_flood, until},
        leases::CommitError,
    },
};
use nix::sys::signal::Signal;
use std::{
    collections::HashMap,
    fs,
    net::Ipv6Addr,
    path::PathBuf,
    process::{Command as Program, Stdio},
    sync::Mutex,
    time::Duration,
};
use uuid::Uuid;

const HOST: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

fn bridge(name: &str) {
    must(&format!("ip link add {name} address 52:54:00:00:02:01 type bridge"));
    must(&format!("ip addr add {HOST}/64 dev {name} nodad"));
    must(&format!("ip link set {name} up"));
}

fn scope(stateful: bool) -> Scope {
    Scope {
        network: Uuid::from_u128(1),
        interface: "br0".parse().expect("a name"),
        server_id: [&[0, 4][..], &[7; 16]].concat(),
        subnets: vec![Subnet {
            id: Uuid::from_u128(2),
            prefix: "fd77::/64".parse().expect("a prefix"),
            on_link: true,
            stateful,
            pools: vec!["fd77::1000-fd77::10ff".parse().expect("a range")],
            routers: vec![HOST],
            lease_time: Duration::from_secs(3600),
            dynamic: true,
            delegation: Some(("fd78::/56".parse().expect("a prefix"), 60)),
            dns_servers: vec![HOST],
            domain: Some("lab.example".parse().expect("a name")),
            ntp_servers: Vec::new(),
        }],
        hosts: vec![Host {
            mac: mac(7),
            address: "fd77::50".parse().expect("an address"),
            host_name: Some(DnsLabel::new("seven").expect("a label")),
            port: Uuid::from_u128(7),
        }],
        relays: Vec::new(),
        rapid_commit: true,
        leases_per_port: 16,
        packets_per_port: 100,
    }
}

fn router(managed: bool, other: bool) -> Router {
    Router {
        mac: "52:54:00:00:02:01".parse().expect("a MAC address"),
        default_router: true,
        managed,
        other,
        mtu: Some(1400),
        prefixes: vec![Prefix {
            net: "fd77::/64".parse().expect("a prefix"),
            autonomous: !managed,
            valid: 86_400,
            preferred: 14_400,
        }],
        routes: vec!["fd99::/48".parse().expect("a prefix")],
        dns_servers: vec![HOST],
        search: vec!["lab.example".parse().expect("a name")],
    }
}

#[derive(Default)]
struct Disk(Mutex<HashMap<String, Lease>>);

impl Disk {
    fn has(&self, prefix: &str) -> bool {
        self.0.lock().expect("no panic").contains_key(prefix)
    }

    fn len(&self) -> usize {
        self.0.lock().expect("no panic").len()
    }
}

impl LeaseStore<Lease> for Disk {
    async fn load(&self, _network: Uuid) -> Result<Vec<Lease>, CommitError> {
        Ok(self.0.lock().expect("no panic").values().cloned().collect())
    }

    async fn commit(&self, changes: Vec<LeaseChange>) -> Vec<Result<(), CommitError>> {
        let mut leases = self.0.lock().expect("no panic");
        let store = |change| match change {
            LeaseChange::Put(lease) => drop(leases.insert(lease.prefix.to_string(), lease)),
            LeaseChange::Remove(lease) => drop(leases.remove(&lease.prefix.to_string())),
        };
        changes.into_iter().map(store).map(Ok).collect()
    }
}

async fn serve(scope: Scope, router: Router, disk: &Arc<Disk>) -> Ipv6Server {
    let (events, _) = mpsc::channel(64);
    let clock = LeaseClock::default();
    Ipv6Server::start(scope, Some(router), clock, Arc::clone(disk), events).await.expect("served")
}

fn output(guest: &Guest, command: &str) -> String {
    output_of(&format!("{} {command}", guest.enter()))
}

fn output_of(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Program::new(words.next().expect("a program")).args(words).output().expect("a program");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn addresses(guest: &Guest) -> String {
    output(guest, "ip -6 -o addr show dev eth0")
}

/// A guest whose kernel leaves routers and addresses to a client.
async fn guest(number: u8) -> Guest {
    let guest = Guest::new("br0", number).await;
    must(&format!("{} sysctl -qw net.ipv6.conf.eth0.accept_ra=0", guest.enter()));
    until("a link-local address", || addresses(&guest).contains("fe80") && !addresses(&guest).contains("tentative"))
        .await;
    guest
}

#[test]
#[ignore = "needs root: network namespaces; and isc-dhcp-client"]
fn dhclient_gets_an_address_and_a_prefix_and_gives_them_up() {
    in_namespace(async || {
        bridge("br0");
        let (disk, guest) = (Arc::<Disk>::default(), guest(7).await);
        let server = serve(scope(true), router(true, true), &disk).await;
        let _capture = capture("dhclient6").await;
        let (leases, pid) = (guest.file("leases"), guest.file("pid"));
        let files = format!("-sf /bin/true -lf {} -pf {} eth0", leases.display(), pid.display());
        let client = guest.start(&format!("dhclient -6 -1 -d -N -P {files}"));
        let told = || fs::read_to_string(&leases).unwrap_or_default();
        until("a lease", || told().contains("iaaddr fd77::50 ") && told().contains("iaprefix fd78::/60")).await;
        assert!(told().contains("dhcp6.name-servers fd77::1") && told().contains("lab.example"), "{}", told());
        assert!(disk.has("fd77::50/128") && disk.has("fd78::/60"));
        drop(client);
        let mut release = guest.start(&format!("dhclient -6 -r -d -N -P {files}"));
        until("a release", || disk.len() == 0).await;
        assert!(release.success().await);
        let stats = server.stats().await.expect("running").0;
        assert_eq!((stats.malformed, stats.releases), (0, 2), "{stats:?}");
    });
}

#[test]
#[ignore = "needs root: network namespaces; and dhcpcd-base"]
fn dhcpcd_gets_its_address() {
    in_namespace(async || {
        bridge("br0");
        let (disk, guest) = (Arc::<Disk>::default(), guest(7).await);
        let server = serve(scope(true), router(true, true), &disk).await;
        let _capture = capture("dhcpcd6").await;
        let text = "mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib/dhcpcd\n\
                    printf 'duid\\nslaac hwaddr\\noption domain_name_servers\\n' >/run/conf\n\
                    exec dhcpcd -6 -B -f /run/conf -c /bin/true eth0\n";
        let client = guest.script("client", text);
        until("an address", || addresses(&guest).contains("fd77::50/128")).await;
        assert!(output(&guest, "ip -6 route").contains("default via fe80::5054:ff:fe00:201"), "a default route");
        client.signal(Signal::SIGALRM);
        until("a release", || disk.len() == 0).await;
        assert_eq!(server.stats().await.expect("running").0.malformed, 0);
    });
}

/// In each mode, as advertisements tell it.
#[test]
#[ignore = "needs root: network namespaces; and systemd"]
fn systemd_networkd_follows_the_mode() {
    in_namespace(async || {
        bridge("br0");
        for (number, managed, other, own) in [
            (7, true, true, "fd77::50/128"),
            (8, false, false, "fd77::5054:ff:fe00:108/64"),
            (9, false, true, "fd77::5054:ff:fe00:109/64"),
        ] {
            let (disk, guest) = (Arc::<Disk>::default(), guest(number).await);
            let server = serve(scope(managed), router(managed, other), &disk).await;
            let _capture = capture(&format!("networkd6-{number}")).await;
            // With /sys mounted read-only it does not wait for udev.
            let text = "mount -t sysfs -o ro sysfs /sys; mount -t tmpfs -o mode=755 tmpfs /run\n\
                mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp\n\
                chown -R systemd-network: /run/systemd/netif\n\
                printf '[Match]\\nName=eth0\\n[Network]\\nIPv6AcceptRA=yes\\n[IPv6AcceptRA]\\nToken=eui64\\n' \
                >/run/systemd/network/a.network\n\
                exec /lib/systemd/systemd-networkd\n";
            let _client = guest.script("client", text);
            until("an address", || addresses(&guest).contains(own)).await;
            until("a default route", || output(&guest, "ip -6 route").contains("default via fe80::")).await;
            assert_eq!(disk.has("fd77::50/128"), managed);
            if other {
                let mut replies = 0;
                let start = std::time::Instant::now();
                while replies == 0 {
                    assert!(start.elapsed() < Duration::from_secs(20), "it never asked");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    replies = server.stats().await.expect("running").0.replies;
                }
            }
            let stats = server.stats().await.expect("running").0;
            assert_eq!((stats.malformed, stats.received > 0), (0, other), "{stats:?}");
            server.stop().await;
        }
    });
}

#[test]
#[ignore = "needs root: network namespaces; and ndisc6"]
fn an_advertisement_is_what_others_read_it_to_be() {
    in_namespace(async || {
        bridge("br0");
        let guest = guest(8).await;
        let _server = serve(scope(true), router(true, true), &Arc::default()).await;
        let enter = guest.enter();
        let asked = tokio::task::spawn_blocking(move || output_of(&format!("{enter} rdisc6 -1 -r 3 -w 3000 eth0")));
        let told = asked.await.expect("rdisc6");
        for line in [
            "Stateful address conf.    :          Yes",
            "Router lifetime           :         1800",
            " Prefix                   : fd77::/64",
            "  Autonomous address conf.:           No",
            " MTU                      :         1400",
            " Route                    : fd99::/48",
            " Recursive DNS server     : fd77::1",
            " DNS search list          : lab.example",
            "Source link-layer address: 52:54:00:00:02:01",
        ] {
            assert!(told.contains(line), "{line} in {told}");
        }
    });
}

/// The kernel as a client: it makes its address, forgets what is taken back, and notices no restart.
#[test]
#[ignore = "needs root: network namespaces"]
fn a_host_believes_what_it_is_told_and_forgets_what_is_taken_back() {
    in_namespace(async || {
        bridge("br0");
        let disk = Arc::default();
        let server = serve(scope(false), router(false, false), &disk).await;
        let guest = Guest::new("br0", 8).await;
        let own = "fd77::5054:ff:fe00:108/64";
        let default = || output(&guest, "ip -6 route show default").contains("via fe80::5054:ff:fe00:201");
        until("an address of its own", || addresses(&guest).contains(own)).await;
        until("a default route", default).await;

        // The daemon goes and another comes: nothing happens.
        drop(server);
        let server = loop {
            let (events, _) = mpsc::channel(64);
            let router = Some(router(false, false));
            match Ipv6Server::start(scope(false), router, LeaseClock::default(), Arc::clone(&disk), events).await {
                Ok(server) => break server,
                Err(ServeError::PortTaken { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(default() && addresses(&guest).contains(own) && !addresses(&guest).contains("deprecated"));

        // Its prefix goes, then the router's role.
        let mut without = router(false, false);
        without.prefixes.clear();
        server.update(scope(false), Some(without)).await.expect("running");
        until("a deprecated address", || addresses(&guest).contains("deprecated")).await;
        assert!(default());
        server.stop().await;
        until("no default route", || !default()).await;
    });
}

#[test]
#[ignore = "needs root: network namespaces; isc-dhcp-client and ndisc6"]
fn a_flood_from_one_port_does_not_keep_others_from_router_and_lease() {
    in_namespace(async || {
        bridge("br0");
        let disk = Arc::<Disk>::default();
        let server = serve(scope(true), router(true, true), &disk).await;
        let (flooder, guest) = (Guest::new("br0", 9).await, guest(8).await);
        let mut flood = flood(&flooder, "server::dhcpv6::live::floods", router(true, true).mac);
        let start = std::time::Instant::now();
        while server.stats().await.expect("running").1 < 20_000 {
            assert!(start.elapsed() < DEADLINE && flood.runs(), "no flood");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let start = std::time::Instant::now();
        let enter = guest.enter();
        let asked = tokio::task::spawn_blocking(move || output_of(&format!("{enter} rdisc6 -1 -r 1 -w 3000 eth0")));
        let told = asked.await.expect("rdisc6");
        let router_in = start.elapsed();
        assert!(told.contains("Prefix                   : fd77::/64"), "{told}");
        let (leases, pid) = (guest.file("leases"), guest.file("pid"));
        let files = format!("-sf /bin/true -lf {} -pf {} eth0", leases.display(), pid.display());
        let start = std::time::Instant::now();
        let _client = guest.start(&format!("dhclient -6 -1 -d -N {files}"));
        until("a lease", || fs::read_to_string(&leases).is_ok_and(|told| told.contains("iaaddr fd77::"))).await;
        let (stats, dropped) = server.stats().await.expect("running");
        println!("a router in {router_in:?}, a lease in {:?}, {dropped} packets dropped; {stats:?}", start.elapsed());
        assert!(flood.runs());
        // Its share of the pool, and offers for no more.
        assert!(stats.limited > 0 && disk.len() <= 17, "{stats:?}");
    });
}

/// In turn SOLICITs with rapid commit, and router solicitations, from ever new hosts.
#[test]
#[ignore = "is started by another test"]
fn floods() {
    send_flood(crate::ffi::packet::ETHERTYPE_IPV6, |n, mac| {
        let source = mac.link_local();
        let mac = mac.octets();
        if n % 2 == 0 {
            let message = [&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1], &mac[..]].concat();
            return frame::build_icmp(source, crate::protocol::ra::ALL_ROUTERS, &message).expect("short");
        }
        let [_, xid @ ..] = n.to_be_bytes();
        let client = [&[0, 1, 0, 10, 0, 3, 0, 1], &mac[..]].concat();
        let identity = [&[0, 3, 0, 12], &n.to_be_bytes()[..], &[0; 8]].concat();
        let message = [&[1], &xid[..], &client, &identity, &[0, 14, 0, 0]].concat();
        let endpoints = [(source, 546), (crate::protocol::dhcpv6::ALL_SERVERS, 547)];
        let [from, to] = endpoints.map(|(address, port)| std::net::SocketAddrV6::new(address, port, 0, 0));
        frame::build_udp(from, to, &message).expect("short")
    });
}

/// With `VMFABRIC_TEST_CAPTURE` set to a folder, what clients send is written there: the fuzzer's seeds come from it.
async fn capture(client: &str) -> Option<Running> {
    let folder = std::env::var_os("VMFABRIC_TEST_CAPTURE")?;
    let file = PathBuf::from(folder).join(format!("{client}.pcap"));
    let tcpdump = Program::new("tcpdump")
        .args(["--immediate-mode", "-U", "-i", "br0", "-w"])
        .arg(&file)
        .arg("udp port 547 or (icmp6 and ip6[40] == 133)")
        .stderr(Stdio::null())
        .spawn();
    let tcpdump = Running(tcpdump.expect("tcpdump"));
    until("a capture", || fs::metadata(&file).is_ok_and(|file| file.len() >= 24)).await;
    Some(tcpdump)
}
