//! Hostile guests on a real kernel with every part: the suites of `tests/hostile/`, each on a host of its own. As root:
//! `cargo test --test hostile -- --ignored`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Runs a suite on a host of the rig's; shows its table.
fn suite(tool: &str, seconds: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let daemon = Path::new(env!("CARGO_BIN_EXE_vmfabricd"));
    let mut command = Command::new(root.join("tests/rig").join(tool));
    command.args(["-t", seconds, "-f", "hostile.sh"]).args(arguments);
    command.current_dir(root.join("tests/hostile")).stdin(Stdio::null());
    if std::env::var_os("VMFABRIC_BIN").is_none() {
        command.env("VMFABRIC_BIN", daemon.parent().expect("a binary is in a folder"));
    }
    let output = command.output().unwrap_or_else(|error| panic!("{tool} cannot be run: {error}"));
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool} {}: {}", arguments.join(" "), output.status);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with bridge conntrack"]
fn what_a_hostile_guest_sends_reaches_nobody() {
    suite("umlrun", "500", &["attacks"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with bridge conntrack"]
fn groups_allow_what_their_rules_say_and_no_more() {
    suite("umlrun", "500", &["groups"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with bridge conntrack"]
fn a_port_is_never_open_by_accident() {
    suite("umlrun", "500", &["never"]);
}

#[test]
#[ignore = "needs root: libvirt and a real guest on a User Mode Linux host with bridge conntrack"]
fn a_guest_that_sends_from_its_first_instruction_reaches_nobody() {
    suite("umlrun", "600", &["first"]);
}

#[test]
#[ignore = "needs root: a User Mode Linux host with bridge conntrack"]
fn on_a_bridge_of_somebody_else_what_remains_is_measured() {
    suite("umlrun", "500", &["never", "existing"]);
}
