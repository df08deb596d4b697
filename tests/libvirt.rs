//! The libvirt side against a real libvirtd with real (empty) QEMU guests, in namespaces of its own.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{Receiver, channel};
use uuid::Uuid;
use vmfabric::libvirt::{
    DomainState, LibvirtConfig, LibvirtEvent, LibvirtHandle, Published,
    domain_xml::{NicSource, parse_domain, parse_network_hook},
    publish::{PublishError, PublishedNetwork},
    spawn,
};

const DEADLINE: Duration = Duration::from_secs(60);
const INSIDE: &str = "VMFABRIC_TEST_INSIDE";
const GUEST: Uuid = Uuid::from_u128(0x7c1f_3f0e_5df4_4b3c_9d6b_1f9e_9c1d_2a3b);

/// Fresh network, mount and pid namespaces with empty state directories, in which a stock libvirtd runs on its stock
/// paths and dies with the test.
const PRIVATE_HOST: &str = r#"
set -e
mount -t sysfs sysfs /sys
for d in /run /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt; do
  mkdir -p $d; mount -t tmpfs -o mode=755 tmpfs $d
done
mkdir -p /run/lock /etc/libvirt/qemu /etc/libvirt/hooks /var/lib/libvirt/dnsmasq
cat >/etc/libvirt/libvirtd.conf <<END
auth_unix_rw = "none"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
END
cat >/etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
END
# What each hook gets, and which taps there are at that time.
for hook in qemu network; do
  cat >/etc/libvirt/hooks/$hook <<END
#!/bin/sh
cat >/run/hook-$hook-\$2.xml
ls /sys/class/net | grep -c vnet >/run/hook-$hook-\$2.taps
exit 0
END
  chmod +x /etc/libvirt/hooks/$hook
done
ip link set lo up
# Not exec: the shell, as pid 1, reaps QEMU, for which libvirt waits.
"$@"
exit $?
"#;

/// Runs the body of the test of that name in a private host.
fn in_private_host(test: &str, body: impl FnOnce(&mut Host)) {
    if env::var_os(INSIDE).is_some() {
        return body(&mut Host::start());
    }
    assert!(nix::unistd::geteuid().is_root(), "{test} needs root: run it with sudo");
    let status = Command::new("unshare")
        .args(["-n", "-m", "-p", "-f", "--kill-child", "--mount-proc", "--propagation", "private"])
        .args(["/bin/bash", "-c", PRIVATE_HOST, "private-host"])
        .arg(env::current_exe().expect("has a path"))
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare (util-linux) runs");
    assert!(status.success(), "{test} failed inside its namespaces");
}

struct Host {
    libvirtd: Child,
    handle: LibvirtHandle,
    events: Receiver<LibvirtEvent>,
    runtime: tokio::runtime::Runtime,
}

fn libvirtd() -> Child {
    Command::new("/usr/sbin/libvirtd").stdin(Stdio::null()).spawn().expect("libvirtd is installed")
}

impl Host {
    /// The handle is there first: a libvirtd that does not run yet is normal.
    fn start() -> Self {
        let (sender, events) = channel(16);
        let config = LibvirtConfig { keepalive: (1, 2), ..LibvirtConfig::default() };
        let handle = spawn(config, sender).expect("spawns");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        for bridge in ["vmf-a", "vmf-b"] {
            run("ip", &["link", "add", bridge, "up", "type", "bridge"]);
        }
        let mut host = Self { handle, events, runtime, libvirtd: Command::new("true").spawn().expect("runs") };
        let reason = host.until(|event| match event {
            LibvirtEvent::Disconnected { reason } => Some(reason),
            _ => None,
        });
        assert!(reason.starts_with("cannot connect to libvirt at qemu:///system: "), "{reason}");
        host.libvirtd = libvirtd();
        assert!(host.connected().is_empty());
        host
    }

    fn until<T>(&mut self, mut pick: impl FnMut(LibvirtEvent) -> Option<T>) -> T {
        let events = &mut self.events;
        let found = async {
            loop {
                let event = events.recv().await.expect("the libvirt thread runs");
                eprintln!("{event:?}");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(DEADLINE, found).await }).expect("in time")
    }

    fn connected(&mut self) -> Vec<DomainState> {
        let version = self.until(|event| match event {
            LibvirtEvent::Connected { version } => Some(version),
            _ => None,
        });
        assert!(version >= 9_000_000);
        self.until(|event| match event {
            LibvirtEvent::Inventory(domains) => Some(domains),
            _ => None,
        })
    }

    fn disconnected(&mut self) -> String {
        self.until(|event| match event {
            LibvirtEvent::Disconnected { reason } => Some(reason),
            _ => None,
        })
    }

    fn domain(&mut self, mut pick: impl FnMut(&DomainState) -> bool) -> DomainState {
        self.until(|event| match event {
            LibvirtEvent::Domain(state) if pick(&state) => Some(state),
            _ => None,
        })
    }

    fn gone(&mut self, uuid: Uuid) {
        self.until(|event| (event == LibvirtEvent::Gone { uuid }).then_some(()));
    }

    fn publish(&mut self, wanted: &[&PublishedNetwork], earlier: &[&PublishedNetwork]) -> Published {
        let wanted: Vec<PublishedNetwork> = wanted.iter().map(|&network| network.clone()).collect();
        let all: BTreeSet<_> = wanted.iter().map(|network| network.uuid).collect();
        let unwanted: BTreeSet<_> = earlier.iter().map(|network| network.uuid).filter(|id| !all.contains(id)).collect();
        self.handle.publish(wanted, earlier.iter().map(|network| network.uuid).collect());
        // What was done by itself before is told, too.
        self.until(|event| match event {
            LibvirtEvent::Published(published) => {
                let gone =
                    published.removed.iter().chain(published.not_removed.keys()).copied().collect::<BTreeSet<_>>();
                (published.networks.keys().eq(&all) && gone == unwanted).then_some(published)
            }
            _ => None,
        })
    }

    fn kill_libvirtd(&mut self) {
        self.libvirtd.kill().expect("runs");
        self.libvirtd.wait().expect("ends");
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Ends a guest's QEMU as a crash would.
fn kill_guest(name: &str) {
    let pid = fs::read_to_string(format!("/run/libvirt/qemu/{name}.pid")).expect("runs");
    run("kill", &["-9", pid.trim()]);
}

fn virsh(args: &[&str]) -> String {
    run("virsh", &[&["-q"], args].concat())
}

fn file(name: &str, content: &str) -> String {
    let path = format!("/run/{name}");
    fs::File::create(&path).and_then(|mut file| file.write_all(content.as_bytes())).expect("writes");
    path
}

fn interface(mac: u8) -> String {
    format!(
        "<interface type='network'><mac address='52:54:00:00:00:{mac:02x}'/><source network='prod'/>\
         <model type='virtio'/><rom enabled='no'/></interface>"
    )
}

fn guest(name: &str, uuid: Uuid, nics: &str) -> String {
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>64</memory>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>\
         <metadata><v:domain xmlns:v='https://vmfabric.org/xmlns/domain/1.0'>\
         <v:interface mac='52:54:00:00:00:01' port='web-0'/></v:domain></metadata>\
         <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{nics}<memballoon model='none'/></devices></domain>"
    );
    file(&format!("{name}.xml"), &xml)
}

fn prod(bridge: &str) -> PublishedNetwork {
    PublishedNetwork { uuid: Uuid::from_u128(1), name: "prod".into(), bridge: bridge.parse().expect("name") }
}

/// The taps of a guest's NICs, each plugged into the bridge that its XML names.
fn taps(state: &DomainState) -> Vec<String> {
    let nics = &state.definition.as_ref().expect("parses").nics;
    let tap = |nic: &vmfabric::libvirt::domain_xml::Nic| {
        let tap = nic.tap.as_ref().expect("a live NIC has a tap").to_string();
        let NicSource::Network { name, bridge: Some(bridge), portid: Some(_), .. } = &nic.source else {
            panic!("{:?}", nic.source)
        };
        assert_eq!(name, "prod");
        let master = fs::read_link(format!("/sys/class/net/{tap}/master")).expect("is on a bridge");
        assert_eq!(master.file_name(), Path::new(bridge.as_str()).file_name());
        tap
    };
    nics.iter().map(tap).collect()
}

fn hooked(name: &str) -> (String, u32) {
    let read = |kind| fs::read_to_string(format!("/run/hook-{name}.{kind}")).expect("the hook ran");
    (read("xml"), read("taps").trim().parse().expect("a number"))
}

#[test]
#[ignore = "needs root: a private libvirtd with QEMU guests"]
fn guests_come_and_go() {
    in_private_host("guests_come_and_go", |host| {
        assert_eq!(host.publish(&[&prod("vmf-a")], &[]).networks[&prod("vmf-a").uuid], Ok(()));
        virsh(&["define", &guest("web", GUEST, &interface(1))]);
        let state = host.domain(|_| true);
        assert!(!state.active && state.persistent && state.uuid == GUEST);

        virsh(&["start", "web"]);
        let state = host.domain(|state| state.active);
        let first = taps(&state);
        let nic = &state.definition.as_ref().expect("parses").nics[0];
        assert_eq!(nic.wish.as_ref().and_then(|wish| wish.port.as_deref()), Some("web-0"));
        assert_eq!(nic.alias.as_deref(), Some("net0"));

        // The hooks' XML: the network's before the tap, and the guest's with it.
        let (xml, taps_then) = hooked("network-port-created");
        let hook = parse_network_hook(&xml).expect("parses");
        let port = hook.port.expect("has a port");
        assert_eq!((hook.network_name.as_str(), hook.network_uuid), ("prod", prod("vmf-a").uuid));
        assert_eq!((port.owner_name.as_str(), port.owner_uuid, port.mac), ("web", GUEST, nic.mac));
        assert_eq!((port.bridge, taps_then), (Some(prod("vmf-a").bridge), 0));
        let (xml, taps_then) = hooked("qemu-prepare");
        assert_eq!((parse_domain(&xml).expect("parses").nics[0].mac, taps_then), (nic.mac, 0));
        let (xml, taps_then) = hooked("qemu-start");
        assert_eq!((&parse_domain(&xml).expect("parses").nics[0].tap, taps_then), (&nic.tap, 1));

        // Hot-plug. An empty guest lets go of an unplugged device when it is reset.
        let second = file("nic.xml", &interface(2));
        virsh(&["attach-device", "web", &second, "--live"]);
        let state = host.domain(|state| state.definition.as_ref().is_ok_and(|d| d.nics.len() == 2));
        assert_eq!(taps(&state)[..1], first);
        let (xml, taps_then) = hooked("network-port-created");
        let port = parse_network_hook(&xml).expect("parses").port.expect("has a port");
        assert_eq!((port.mac.to_string().as_str(), taps_then), ("52:54:00:00:00:02", 1));
        virsh(&["detach-device", "web", &second, "--live"]);
        virsh(&["reset", "web"]);
        let state = host.domain(|state| state.definition.as_ref().is_ok_and(|d| d.nics.len() == 1));
        assert_eq!(taps(&state), first);

        // Stopped in four ways, and what libvirt says then is what is told.
        virsh(&["managedsave", "web"]);
        host.domain(|state| !state.active && state.persistent);
        virsh(&["start", "web"]);
        taps(&host.domain(|state| state.active));
        virsh(&["save", "web", "/run/web.save"]);
        host.domain(|state| !state.active);
        virsh(&["restore", "/run/web.save"]);
        taps(&host.domain(|state| state.active));
        kill_guest("web");
        host.domain(|state| !state.active);
        virsh(&["start", "web"]);
        host.domain(|state| state.active);
        virsh(&["destroy", "web"]);
        host.domain(|state| !state.active);
        virsh(&["undefine", "web"]);
        host.gone(GUEST);

        virsh(&["create", &guest("passing", GUEST, &interface(1))]);
        assert!(!host.domain(|state| state.active).persistent);
        virsh(&["destroy", "passing"]);
        host.gone(GUEST);
    });
}

#[test]
#[ignore = "needs root: a private libvirtd with QEMU guests"]
fn libvirtd_restarts_and_hangs() {
    in_private_host("libvirtd_restarts_and_hangs", |host| {
        host.publish(&[&prod("vmf-a")], &[]);
        virsh(&["create", &guest("web", GUEST, &interface(1))]);
        let before = taps(&host.domain(|state| state.active));

        host.kill_libvirtd();
        assert_eq!(host.disconnected(), "libvirt closed the connection");
        host.libvirtd = libvirtd();
        let domains = host.connected();
        assert!(matches!(domains.as_slice(), [web] if web.active && taps(web) == before), "{domains:?}");

        // The guest ends and the networks change while nobody listens.
        host.kill_libvirtd();
        host.disconnected();
        kill_guest("web");
        for lost in ["/etc/libvirt/qemu/networks/prod.xml", "/etc/libvirt/qemu/networks/autostart/prod.xml"] {
            fs::remove_file(lost).expect("was defined, with autostart");
        }
        fs::remove_file("/run/libvirt/network/prod.xml").expect("was active");
        host.libvirtd = libvirtd();
        assert!(host.connected().iter().all(|domain| !domain.active));
        let deadline = Instant::now() + DEADLINE;
        while !virsh(&["net-list", "--name"]).contains("prod") {
            assert!(Instant::now() < deadline, "prod was not published again");
            thread::yield_now();
        }

        let pid = nix::unistd::Pid::from_raw(i32::try_from(host.libvirtd.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("stops");
        assert_eq!(host.disconnected(), "libvirt does not answer");
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("goes on");
        host.connected();
        // Of four connections, three are closed for good.
        let sockets = || {
            let links =
                fs::read_dir("/proc/self/fd").expect("is there").filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
            links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
        };
        assert_eq!(sockets(), 1);
    });
}

#[test]
#[ignore = "needs root: a private libvirtd with QEMU guests"]
fn networks_are_published_and_kept() {
    in_private_host("networks_are_published_and_kept", |host| {
        let theirs = "<network><name>taken</name><forward mode='bridge'/><bridge name='vmf-b'/></network>";
        virsh(&["net-define", &file("taken.xml", theirs)]);
        let theirs = virsh(&["net-uuid", "taken"]);
        let a = prod("vmf-a");
        let taken = PublishedNetwork { uuid: Uuid::from_u128(2), name: "taken".into(), ..a.clone() };
        let result = host.publish(&[&a, &taken], &[]);
        assert_eq!(result.networks[&a.uuid], Ok(()));
        let holder = theirs.trim().parse().expect("a UUID");
        assert_eq!(result.networks[&taken.uuid], Err(PublishError::NameTaken { name: "taken".into(), holder }));
        let list = virsh(&["net-list", "--all"]);
        let row = list.lines().find(|line| line.contains("prod")).expect("is listed");
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["prod", "active", "yes", "yes"]);

        // The bridge changes under a running guest, which keeps its own until it starts anew.
        virsh(&["define", &guest("web", GUEST, &interface(1))]);
        virsh(&["start", "web"]);
        let before = taps(&host.domain(|state| state.active));
        let b = prod("vmf-b");
        assert_eq!(host.publish(&[&b], &[&a, &taken]).networks[&b.uuid], Ok(()));
        assert!(virsh(&["net-dumpxml", "prod"]).contains("vmf-b"));
        host.handle.refresh_domain(GUEST);
        assert_eq!(taps(&host.domain(|_| true)), before);
        virsh(&["attach-device", "web", &file("nic.xml", &interface(2)), "--live"]);
        let state = host.domain(|state| state.definition.as_ref().is_ok_and(|d| d.nics.len() == 2));
        assert_eq!(taps(&state)[..1], before);

        // A rename, then a restart of libvirtd: the guest that runs is not touched.
        let renamed = PublishedNetwork { name: "production".into(), ..b.clone() };
        assert_eq!(host.publish(&[&renamed], &[&b]).networks[&b.uuid], Ok(()));
        assert!(!virsh(&["net-list", "--all", "--name"]).lines().any(|line| line.trim() == "prod"));
        host.kill_libvirtd();
        host.disconnected();
        host.libvirtd = libvirtd();
        assert!(matches!(host.connected().as_slice(), [web] if web.active && taps(web)[..1] == before));
        virsh(&["destroy", "web"]);
        host.domain(|state| !state.active);

        // Somebody stops it; it comes back.
        virsh(&["net-destroy", "production"]);
        let deadline = Instant::now() + DEADLINE;
        while !virsh(&["net-list", "--name"]).contains("production") {
            assert!(Instant::now() < deadline, "was not started again");
            thread::yield_now();
        }
        assert_eq!(host.publish(&[], &[&renamed, &taken]).removed, BTreeSet::from([b.uuid, taken.uuid]));
        assert_eq!(virsh(&["net-list", "--all", "--name"]).trim(), "taken");
    });
}
