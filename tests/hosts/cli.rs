//! The command line on a host of its own: tests/cli/cli.sh says what is checked. The guides: what follows `$` there is run,
//! and its output compared.

use super::{on, rig, run};

#[test]
#[ignore = "needs root: runs vmfabricd in namespaces of its own"]
fn as_a_person_at_a_shell_has_it() {
    super::private_host(300, "cli/cli.sh", &[]);
}

#[test]
#[ignore = "needs root: runs libvirtd and a guest in namespaces of its own"]
fn the_manual_names_every_key_of_json() {
    super::private_host(200, "cli/json.sh", &[]);
}

#[test]
#[ignore = "needs root: runs vmfabricd in namespaces of its own"]
fn the_guides_print_what_they_show() {
    super::private_host(120, "cli/docs.sh", &[]);
}

#[test]
#[ignore = "needs root: real guests on a User Mode Linux host with VLAN filtering"]
fn the_readmes_tour_prints_what_it_shows() {
    run(on(rig("umlrun").args(["-m", "1536M"]), 600, "cli/readme.sh", &[]));
}

#[test]
#[ignore = "needs root: runs libvirtd and a guest in namespaces of its own"]
fn the_guide_from_libvirt_prints_what_it_shows() {
    super::private_host(200, "cli/libvirt.sh", &[]);
}

#[test]
#[ignore = "needs root: real guests on a User Mode Linux host with VLAN filtering"]
fn the_guide_to_vlans_prints_what_it_shows() {
    super::uml_host(500, "cli/vlans.sh", &[]);
}

#[test]
#[ignore = "needs root: a real guest on a User Mode Linux host with VLAN filtering"]
fn the_guide_from_neutron_prints_what_it_shows() {
    super::uml_host(500, "cli/neutron.sh", &[]);
}

#[test]
#[ignore = "needs root: a real guest on a User Mode Linux host with every network part"]
fn the_guide_to_upgrades_prints_what_it_shows() {
    super::uml_host(500, "cli/upgrading.sh", &[]);
}
