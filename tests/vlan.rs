//! VLAN and flat networks on real kernels: the scripts of `tests/vlan/`, each on a host of its own. As root:
//! `cargo test --test vlan -- --ignored`.

mod common;

use common::debian_13;
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Runs a tool of the rig on scripts of `tests/vlan/`; shows all that they print.
fn rig(tool: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let daemon = Path::new(env!("CARGO_BIN_EXE_vmfabricd"));
    let binaries = daemon.parent().expect("a binary is in a folder");
    let mut command = Command::new(root.join("tests/rig").join(tool));
    command.args(arguments).current_dir(root.join("tests/vlan")).stdin(Stdio::null());
    if std::env::var_os("VMFABRIC_BIN").is_none() {
        command.env("VMFABRIC_BIN", binaries);
    }
    let output = command.output().unwrap_or_else(|error| panic!("{tool} cannot be run: {error}"));
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool} {}: {}", arguments.join(" "), output.status);
}

const SEGMENTS: &str = "segments.sh";

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn vlans_and_flat_networks_are_apart() {
    rig("umlrun", &["-t", "500", "-f", SEGMENTS]);
}

#[test]
#[ignore = "needs root: Debian's stock kernel under QEMU"]
fn vlans_and_flat_networks_are_apart_on_the_stock_kernel() {
    rig("host-vm", &["-t", "900", "-f", SEGMENTS, "brief"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with traffic control"]
fn ports_have_their_rates_and_marks() {
    rig("umlrun", &["-t", "500", "-f", "qos.sh"]);
}

#[test]
#[ignore = "needs root: two User Mode Linux hosts with VLAN filtering"]
fn vlans_span_hosts() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vlan/two-hosts.sh");
    let host = |name: &str| format!("{name}:{}", script.display());
    rig("umlnet", &["-t", "400", "-H", &host("A"), "-H", &host("B"), "-W", "A:B"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn a_vlan_has_its_gateway_and_a_flat_network_the_dhcp_server_outside() {
    rig("umlrun", &["-t", "400", "-f", "gateway.sh"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn uplinks_that_cannot_be_say_what_to_do() {
    rig("umlrun", &["-t", "500", "-f", "bad-uplinks.sh"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn a_bridge_of_somebody_else_stays_as_it_is() {
    rig("umlrun", &["-t", "500", "-f", "existing-bridge.sh"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn vlan_guests_lose_nothing_when_the_daemon_is_killed() {
    rig("umlrun", &["-t", "400", "-f", "restart.sh"]);
}

#[test]
#[ignore = "needs root: real guests on a User Mode Linux host with VLAN filtering"]
fn libvirt_guests_are_on_their_vlans() {
    rig("umlrun", &["-t", "600", "-f", "libvirt.sh"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host without VLAN filtering"]
fn without_vlan_filtering_the_rest_works() {
    rig("umlrun", &["-k", "linux-uml-few", "-t", "300", "-f", "no-filtering.sh"]);
}

#[test]
#[ignore = "needs root: Debian 13's libvirt and real guests on a User Mode Linux host with VLAN filtering"]
fn a_nic_has_the_vlan_of_its_definition() {
    debian_13("umlrun", 500, "vlan/nic-vlan.sh", &[]);
}
