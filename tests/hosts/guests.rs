//! End to end: a stock libvirtd and real guests in private namespaces. Each script prints a line for each check.

use super::{debian_13, private_host, uml_host};

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn demo() {
    private_host(300, "demo", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn the_hook_alone_suffices() {
    private_host(200, "guests/triggers.sh", &["hook"]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn netlink_alone_suffices_for_known_ports() {
    private_host(200, "guests/triggers.sh", &["netlink"]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn the_network_hook_makes_the_port_of_a_hot_plugged_nic() {
    private_host(200, "guests/triggers.sh", &["port-created"]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn libvirts_events_alone_suffice() {
    private_host(200, "guests/triggers.sh", &["libvirt"]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn a_nic_that_cannot_be_connected_keeps_its_guest_from_starting() {
    private_host(300, "guests/refusals.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn without_the_daemon_no_guest_starts_unconnected() {
    private_host(400, "guests/no-daemon.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn nics_are_hot_plugged_and_unplugged() {
    private_host(400, "guests/hotplug.sh", &[]);
}

#[test]
#[ignore = "needs root: it runs libvirtd and guests on a User Mode Linux host"]
fn what_libvirt_limits_is_left_to_it() {
    uml_host(400, "guests/bandwidth.sh", &[]);
}

#[test]
#[ignore = "needs root: it runs libvirtd and guests on a User Mode Linux host"]
fn a_stream_between_guests_ends_when_its_rule_goes() {
    uml_host(600, "guests/groups.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn a_guest_that_stops_leaves_nothing_and_comes_back_to_its_port() {
    private_host(400, "guests/lifecycle.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn a_restart_loses_no_packet_and_no_lease() {
    private_host(400, "guests/restart.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn libvirt_comes_and_goes_and_ten_guests_start_at_once() {
    private_host(400, "guests/libvirt-restart.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn networks_are_offered_to_libvirt() {
    private_host(400, "guests/publish.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn libvirt_shows_our_leases() {
    private_host(200, "guests/leases.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs systemd-resolved, libvirtd and guests in them"]
fn the_host_knows_its_guests_by_name() {
    private_host(200, "guests/host-names.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn libvirts_networks_are_taken_over_with_their_guests() {
    private_host(300, "guests/import.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn libvirts_networks_of_every_mode_are_taken_over_with_ipv6() {
    private_host(300, "guests/import-kinds.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn virt_install_and_pythons_libvirt_work_unchanged() {
    private_host(200, "guests/tools.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn bad_input_is_told_and_nothing_is_lost() {
    private_host(400, "guests/bad-input.sh", &[]);
}

#[test]
#[ignore = "needs root: it runs libvirtd and guests on a User Mode Linux host"]
fn the_hook_alone_suffices_where_bridges_deny_by_default() {
    uml_host(400, "guests/triggers.sh", &["hook"]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs virtqemud, virtnetworkd and guests in them"]
fn the_modular_daemons_of_libvirt_serve_as_well() {
    private_host(400, "guests/modular.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn a_guest_that_is_taken_back_to_a_snapshot_is_on_its_network() {
    private_host(400, "guests/snapshots.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs libvirtd and guests in them"]
fn a_guest_whose_kernel_panics_keeps_its_port() {
    private_host(400, "guests/panic.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes network namespaces and sets kernel parameters in them"]
fn forwarding_of_others_links_is_given_back() {
    private_host(300, "guests/forwarding.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs vmfabricd in them"]
fn altered_tables_are_put_right_at_once() {
    private_host(200, "guests/flush.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs Debian 13's libvirtd and guests in them"]
fn demo_on_debian_13() {
    debian_13("private-host", 300, "demo", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and runs Debian 13's libvirtd and guests in them"]
fn guests_stop_and_come_back_on_debian_13() {
    debian_13("private-host", 400, "guests/lifecycle.sh", &[]);
}

#[test]
#[ignore = "needs root: it boots Debian 13's kernel under QEMU, and runs libvirtd and a guest on it"]
fn nobody_else_changes_our_tables_where_the_kernel_can_keep_them_out() {
    debian_13("host-vm", 600, "guests/held.sh", &[]);
}
