//! DHCP end to end, with the daemon as a whole.

use super::private_host;

#[test]
#[ignore = "needs root: it makes namespaces and runs guests in them"]
fn boot_roms_boot_over_the_network() {
    private_host(300, "dhcp/pxe.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces and runs guests in them; and ovmf and ipxe"]
fn uefi_firmware_boots_by_http_and_by_pxe() {
    private_host(500, "dhcp/uefi.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces and runs vmfabricd and DHCP clients in them"]
fn who_has_a_lease_keeps_it_on_a_full_disk() {
    private_host(400, "dhcp/full.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces and runs vmfabricd, relay agents and DHCP clients in them"]
fn relay_agents_serve_the_link_behind_a_guest() {
    private_host(300, "dhcp/relay.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces; and kea-admin for perfdhcp"]
fn nothing_acknowledged_is_lost_by_a_kill_under_load() {
    kill_under_load("4");
}

#[test]
#[ignore = "needs root: it makes namespaces; and kea-admin for perfdhcp"]
fn nothing_of_dhcpv6_is_lost_by_a_kill_under_load() {
    kill_under_load("6");
}

/// `make soak` runs 1,000 rounds of each.
fn kill_under_load(family: &str) {
    let rounds = std::env::var("VMFABRIC_SOAK_ROUNDS").unwrap_or_else(|_| "20".to_owned());
    let limit = 120 + 20 * rounds.parse::<u32>().expect("VMFABRIC_SOAK_ROUNDS is a number");
    private_host(limit, "dhcp/kill.sh", &[&rounds, family]);
}
