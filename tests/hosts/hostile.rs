//! Hostile guests on a real kernel with every part: the suites of `tests/hostile/`, each on a host of its own.

use super::{stock_host, uml_host};

#[test]
#[ignore = "needs root: a User Mode Linux host with bridge conntrack"]
fn what_a_hostile_guest_sends_reaches_nobody() {
    uml_host(500, "hostile/hostile.sh", &["attacks"]);
}

#[test]
#[ignore = "needs root: Debian's stock kernel under QEMU"]
fn what_a_hostile_guest_sends_reaches_nobody_on_the_stock_kernel() {
    stock_host(900, "hostile/hostile.sh", &["attacks", "brief"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with bridge conntrack"]
fn groups_allow_what_their_rules_say_and_no_more() {
    uml_host(500, "hostile/hostile.sh", &["groups"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with bridge conntrack"]
fn a_port_is_never_open_by_accident() {
    uml_host(500, "hostile/hostile.sh", &["never"]);
}

#[test]
#[ignore = "needs root: libvirt and a real guest on a User Mode Linux host with bridge conntrack"]
fn a_guest_that_sends_from_its_first_instruction_reaches_nobody() {
    uml_host(600, "hostile/hostile.sh", &["first"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with bridge conntrack"]
fn on_a_bridge_of_somebody_else_what_remains_is_measured() {
    uml_host(500, "hostile/hostile.sh", &["never", "existing"]);
}
