//! The server as guests see it: an interface of the host, another host behind it, `dig` on both sides.

use super::{super::*, rig};
use nix::sched::{CloneFlags, unshare};
use std::process::{Child, Command};

/// A network namespace, held by a process that does nothing else in it.
struct Guest(Child);

impl Guest {
    fn new() -> Self {
        Self(Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().expect("unshare(1)"))
    }

    fn run(&self, command: &str) -> String {
        run(&format!("nsenter --net=/proc/{}/ns/net {command}", self.0.id()))
    }

    /// Moves an interface of ours into it, once it has a namespace of its own.
    fn adopt(&self, interface: &str) {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while of(&self.0.id().to_string()) == of("thread-self") || of(&self.0.id().to_string()) == of("self") {
            assert!(std::time::Instant::now() < deadline, "unshare(1) made no namespace");
            std::thread::yield_now();
        }
        run(&format!("ip link set {interface} netns {}", self.0.id()));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Standard output; a command that fails gives what it printed too, for `dig` exits with 9 where nobody answers.
fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("sh");
    assert!(output.status.code().is_some_and(|code| code != 127), "'{command}' is not installed");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[test]
#[ignore = "needs root: network namespaces (and dig, from bind9-dnsutils)"]
fn only_guests_on_the_interface_are_answered() {
    // A thread, for the namespace is the thread's; a runtime of one thread, so that every socket is made in it.
    let host = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(host())
    });
    host.join().expect("no panic");
}

async fn host() {
    let (guest, stranger) = (Guest::new(), Guest::new());
    run("ip link set lo up");
    for (other, inside, outside, net) in [(&guest, "g0", "h0", "192.168.123"), (&stranger, "g1", "h1", "10.9.9")] {
        run(&format!("ip link add {outside} type veth peer name {inside}"));
        other.adopt(inside);
        run(&format!("ip link set {outside} up"));
        other.run(&format!("ip addr add {net}.10/24 dev {inside}"));
        other.run(&format!("ip addr add fe80::10/64 dev {inside} nodad"));
        other.run(&format!("ip link set {inside} up"));
        other.run(&format!("ip route add default via {net}.1"));
    }
    // Before the addresses are there.
    let listen = DnsListen {
        interface: "h0".parse().expect("name"),
        addresses: ["192.168.123.1", "fe80::53"].map(|a| a.parse().expect("address")).into(),
        port: DnsListen::PORT,
        network: Uuid::nil(),
    };
    let upstream = rig::StandIn::start(rig::Behaviour::Truncate { records: 100 }).await;
    let upstreams = Upstreams::new(UpstreamSource::Fixed(vec![upstream.address]));
    let server = rig::start(listen, &SharedZone::new(rig::zone()), &upstreams).expect("port 53 is free here");
    run("ip addr add 192.168.123.1/24 dev h0; ip addr add fe80::53/64 dev h0 nodad; ip addr add 10.9.9.1/24 dev h1");

    tokio::task::spawn_blocking(move || {
        let dig = |who: &Guest, what: &str| who.run(&format!("dig +time=2 +tries=2 {what}"));
        assert_eq!(dig(&guest, "+short @192.168.123.1 web.nat.internal"), "192.168.123.10");
        assert_eq!(dig(&guest, "+short +tcp @192.168.123.1 web.nat.internal"), "192.168.123.10");
        assert_eq!(dig(&guest, "+short @192.168.123.1 -x 192.168.123.10"), "web.nat.internal.");
        assert_eq!(dig(&guest, "+short @fe80::53%g0 web.nat.internal"), "192.168.123.10");
        let missing = dig(&guest, "@192.168.123.1 nobody.nat.internal");
        assert!(missing.contains("NXDOMAIN") && missing.contains("SOA"), "{missing}");
        assert!(missing.contains("flags: qr aa rd ra;"), "{missing}");
        // dig itself goes over to TCP when it is told to.
        assert_eq!(dig(&guest, "+short @192.168.123.1 big.example.com").lines().count(), 100);
        let cut = dig(&guest, "+ignore @192.168.123.1 big.example.com");
        assert!(cut.contains("flags: qr tc rd ra ad;"), "{cut}");
        assert!(dig(&guest, "@192.168.123.1 CH TXT version.bind").contains("REFUSED"));
        assert!(dig(&guest, "@192.168.123.1 AXFR nat.internal").contains("Transfer failed"));

        run("sysctl -qw net.ipv4.ip_forward=1");
        let other = dig(&stranger, "@192.168.123.1 web.nat.internal");
        assert!(!other.contains("ANSWER: 1"), "another network's guest is answered: {other}");
    })
    .await
    .expect("no panic");
    server.stop().await;
}
