//! VLAN and flat networks on real kernels: the scripts of `tests/vlan/`, each on a host of its own. As root:
//! `cargo test --test vlan -- --ignored`.

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

#[test]
#[ignore = "needs root: a User Mode Linux host with VLAN filtering"]
fn vlans_and_flat_networks_are_apart() {
    rig("umlrun", &["-t", "400", "-f", "segments.sh"]);
}
