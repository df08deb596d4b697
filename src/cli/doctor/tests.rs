//! Hosts made of files, each with one thing wrong.

use super::*;
use std::{fs, os::unix::fs::PermissionsExt};

struct Made(tempfile::TempDir);

impl Made {
    /// A host with nothing wrong but that the daemon, which is not asked here, is not known.
    fn well() -> Self {
        let made = Self(tempfile::tempdir().expect("a directory"));
        made.file("proc/sys/kernel/osrelease", "6.1.0");
        let config = "CONFIG_BRIDGE_VLAN_FILTERING=y\nCONFIG_NFT_BRIDGE_META=m\nCONFIG_NF_CONNTRACK_BRIDGE=m\n";
        made.file("boot/config-6.1.0", config);
        made.file("usr/share/dbus-1/system.d/org.vmfabric1.conf", "");
        made.file("run/libvirt/libvirt-sock", "");
        made.file("proc/stat", "cpu 1\nbtime 1000\n");
        made.file("usr/sbin/vmfabric-hook", "").executable("usr/sbin/vmfabric-hook");
        for hook in ["qemu", "network"] {
            let hook = format!("etc/libvirt/hooks/{hook}.d/vmfabric");
            made.file(&hook, "#!/bin/sh\nexec /usr/sbin/vmfabric-hook qemu \"$@\"\n").executable(&hook);
        }
        made.file("var/lib/vmfabric/vmfabric.db", "");
        made
    }

    fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
        self
    }

    fn executable(&self, path: &str) -> &Self {
        fs::set_permissions(self.0.path().join(path), fs::Permissions::from_mode(0o755)).expect("ours");
        self
    }

    fn remove(&self, path: &str) -> &Self {
        fs::remove_file(self.0.path().join(path)).expect("there");
        self
    }

    /// A process that began so many seconds after 1970.
    fn process(&self, pid: u32, name: &str, began: i64) -> &Self {
        let ticks = (began - 1000) * 100;
        let zeroes = "0 ".repeat(18);
        self.file(&format!("proc/{pid}/comm"), &format!("{name}\n"));
        self.file(&format!("proc/{pid}/stat"), &format!("{pid} (a ) b) S {zeroes}{ticks} 0 0"))
    }

    fn findings(&self, check: &str) -> Vec<(State, String)> {
        let host = Host::at(self.0.path());
        let all = examine(&host, None);
        let check = all.into_iter().find(|c| c.check == check).unwrap_or_else(|| panic!("no check {check}"));
        let state = check.state;
        check.findings.into_iter().map(|finding| (state, finding.what)).collect()
    }

    fn finds(&self, check: &str, state: State, words: &str) {
        let findings = self.findings(check);
        assert!(findings.iter().any(|(is, what)| *is == state && what.contains(words)), "{check}: {findings:?}");
    }
}

#[test]
fn a_host_that_is_well_is_told_so() {
    let made = Made::well();
    for check in examine(&Host::at(made.0.path()), None) {
        assert!(matches!(check.state, State::Ok | State::Skipped), "{check:?}");
    }
    assert_eq!(made.findings("libvirt's hooks"), []);
    assert_eq!(made.findings("kernel"), []);
}

#[test]
fn each_fault_is_found() {
    let made = Made::well();
    made.file("boot/config-6.1.0", "# CONFIG_BRIDGE_VLAN_FILTERING is not set\nCONFIG_NFT_BRIDGE_META=m\n");
    made.finds("kernel", State::Error, "without CONFIG_BRIDGE_VLAN_FILTERING");
    made.finds("kernel", State::Error, "without CONFIG_NF_CONNTRACK_BRIDGE");
    made.file("lib/modules/6.1.0/modules.dep", "kernel/net/bridge/netfilter/nf_conntrack_bridge.ko: a.ko\n");
    made.finds("kernel", State::Error, "nf_conntrack_bridge is not loaded");

    let made = Made::well();
    made.remove("run/libvirt/libvirt-sock").finds("libvirt", State::Error, "does not run");
    assert_eq!(made.process(7, "virtqemud", 2000).findings("libvirt"), []);

    let made = Made::well();
    made.remove("etc/libvirt/hooks/qemu.d/vmfabric").finds(
        "libvirt's hooks",
        State::Error,
        "qemu.d/vmfabric is missing",
    );
    let made = Made::well();
    let hook = made.0.path().join("etc/libvirt/hooks/network.d/vmfabric");
    fs::set_permissions(hook, fs::Permissions::from_mode(0o644)).expect("ours");
    made.finds("libvirt's hooks", State::Error, "network.d/vmfabric is not executable");
    let made = Made::well();
    made.remove("usr/sbin/vmfabric-hook").finds(
        "libvirt's hooks",
        State::Error,
        "runs /usr/sbin/vmfabric-hook, which is not",
    );
    let made = Made::well();
    made.process(9, "libvirtd", 2000).finds("libvirt's hooks", State::Warning, "libvirtd has run since before");
    let made = Made::well();
    let later = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    assert_eq!(made.process(9, "libvirtd", later as i64 + 60).findings("libvirt's hooks"), []);

    let made = Made::well();
    made.file("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n").finds("br_netfilter", State::Warning, "iptables");
    let made = Made::well();
    made.file("proc/sys/net/ipv4/conf/all/rp_filter", "1\n");
    made.file("proc/net/route", "Iface\tDestination\neth0\t00000000\t\neth1\t00000000\t\n");
    made.finds("rp_filter", State::Warning, "2 default routes");

    let made = Made::well();
    let udp = "  sl  local_address\n 1: 00000000:0043 00000000:0000 07 0:0 0:0 0 0 0 4711 2\n";
    made.file("proc/net/udp", udp).finds("other DHCP servers", State::Skipped, "root");
    made.process(40, "dnsmasq", 2000).file("proc/40/cmdline", "/usr/sbin/dnsmasq");
    fs::create_dir(made.0.path().join("proc/40/fd")).expect("made");
    std::os::unix::fs::symlink("socket:[4711]", made.0.path().join("proc/40/fd/3")).expect("made");
    made.finds("other DHCP servers", State::Warning, "dnsmasq (process 40)");
    made.file("proc/40/cmdline", "dnsmasq\0--conf-file=/var/lib/libvirt/dnsmasq/default.conf");
    assert_eq!(made.findings("other DHCP servers"), []);

    let made = Made::well();
    made.process(50, "NetworkManager", 2000);
    made.finds("NetworkManager and systemd-networkd", State::Error, "NetworkManager runs");
    made.file("etc/NetworkManager/conf.d/10-vmfabric.conf", "");
    assert_eq!(made.findings("NetworkManager and systemd-networkd"), []);
    // 15 bytes of its name are what the kernel keeps.
    made.process(51, "systemd-network", 2000);
    made.finds("NetworkManager and systemd-networkd", State::Error, "systemd-networkd runs");

    let made = Made::well();
    let host = Host::at(made.0.path());
    assert!(
        daemon(&host, None, None)
            .iter()
            .any(|(state, what, _)| *state == State::Error && what.contains("does not run"))
    );
    made.remove("usr/share/dbus-1/system.d/org.vmfabric1.conf");
    assert!(daemon(&host, None, Some("gone")).iter().any(|(_, what, _)| what.contains("no policy")));
}

#[test]
fn a_network_larger_than_its_uplink_is_found() {
    let made = Made::well();
    made.file("sys/class/net/vmf-lan/brif/eth1", "").file("sys/class/net/eth1/mtu", "1500\n");
    let network = serde_json::json!({"Id": "", "Name": "lan", "Segment": "flat", "PhysicalNetwork": "lan", "Vlan": 0,
        "Bridge": "vmf-lan", "Mtu": 9000, "DnsDomain": "", "DnsRecords": [], "DnsForwarders": [], "DnsSharedWith": [],
        "DnsForwardUnknown": false, "DhcpOptions": [], "DhcpBoot": [], "Subnets": [], "PortSecurity": true,
        "SecurityGroups": [], "Isolated": false, "Status": "active", "Problems": []});
    let network = serde_json::from_value(network).expect("a network");
    let manager = serde_json::json!({"Health": "ok", "Problems": ["eth9 is gone"], "LibvirtStatus": "disconnected",
        "LibvirtDetail": "no socket", "Capabilities": {"bridge_vlan_filtering": false}, "Networks": 0, "Subnets": 0,
        "Ports": 0, "SecurityGroups": 0, "AddressGroups": 0, "AttachedPorts": 0, "Leases": 0});
    let mut inventory = Inventory::default();
    inventory.networks.insert(uuid::Uuid::nil(), network);
    let told = Told { info: serde_json::from_value(manager).expect("a manager"), inventory };
    let checks = examine(&Host::at(made.0.path()), Some(&told));
    let wrong: Vec<_> = checks.iter().filter(|check| check.state == State::Error).map(|check| check.check).collect();
    assert_eq!(wrong, ["problems that vmfabricd sees", "kernel", "libvirt", "MTU"]);
}
