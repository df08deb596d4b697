//! DHCP end to end, with the daemon as a whole.

use super::private_host;

#[test]
#[ignore = "needs root: it makes namespaces and runs guests in them"]
fn boot_roms_boot_over_the_network() {
    private_host(300, "dhcp/pxe.sh", &[]);
}

/// `make soak` runs 1,000 rounds.
#[test]
#[ignore = "needs root: it makes namespaces; and kea-admin for perfdhcp"]
fn nothing_acknowledged_is_lost_by_a_kill_under_load() {
    let rounds = std::env::var("VMFABRIC_SOAK_ROUNDS").unwrap_or_else(|_| "20".to_owned());
    let limit = 120 + 20 * rounds.parse::<u32>().expect("VMFABRIC_SOAK_ROUNDS is a number");
    private_host(limit, "dhcp/kill.sh", &[&rounds]);
}
