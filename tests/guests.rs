//! End to end: a stock libvirtd and real guests in private namespaces. Each script prints a line for each check.

mod common;

use common::private_host;

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
