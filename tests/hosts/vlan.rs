//! VLAN and flat networks on real kernels: the scripts of `tests/vlan/`, each on a host of its own.

use super::{debian_13, rig, run, stock_host, tests, uml_host};

const SEGMENTS: &str = "vlan/segments.sh";

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn vlans_and_flat_networks_are_apart() {
    uml_host(500, SEGMENTS, &[]);
}

#[test]
#[ignore = "needs root: Debian's stock kernel under QEMU"]
fn a_stock_kernel_keeps_vlans_and_flat_networks_apart() {
    stock_host(900, SEGMENTS, &["brief"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with traffic control"]
fn ports_have_their_rates_and_marks() {
    uml_host(500, "vlan/qos.sh", &[]);
}

#[test]
#[ignore = "needs root: two User Mode Linux hosts with VLAN filtering"]
fn vlans_span_hosts() {
    let script = tests().join("vlan/two-hosts.sh");
    let host = |name: &str| format!("{name}:{}", script.display());
    run(rig("umlnet").args(["-t", "400", "-H", &host("A"), "-H", &host("B"), "-W", "A:B"]));
}

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn a_vlan_has_its_gateway_and_a_flat_network_the_dhcp_server_outside() {
    uml_host(400, "vlan/gateway.sh", &[]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn uplinks_that_cannot_be_say_what_to_do() {
    uml_host(500, "vlan/bad-uplinks.sh", &[]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn a_bridge_of_somebody_else_stays_as_it_is() {
    uml_host(500, "vlan/existing-bridge.sh", &[]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn vlan_guests_lose_nothing_when_the_daemon_is_killed() {
    uml_host(400, "vlan/restart.sh", &[]);
}

#[test]
#[ignore = "needs root: real guests on a User Mode Linux host with VLAN filtering"]
fn libvirt_guests_are_on_their_vlans() {
    uml_host(600, "vlan/libvirt.sh", &[]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host without VLAN filtering"]
fn without_vlan_filtering_the_rest_works() {
    let script = tests().join("vlan/no-filtering.sh");
    run(rig("umlrun").args(["-k", "linux-uml-few", "-t", "300", "-f"]).arg(script));
}

#[test]
#[ignore = "needs root: Debian 13's libvirt and real guests on a User Mode Linux host with VLAN filtering"]
fn a_nic_has_the_vlan_of_its_definition() {
    debian_13("umlrun", 500, "vlan/nic-vlan.sh", &[]);
}
