//! Runs scripts on the hosts of the rig (`tests/rig/README.md`).
#![allow(dead_code, reason = "not every test needs every host")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a script of `tests/` in a private host, with the binaries of this build; fails with all it printed.
pub fn private_host(seconds: u32, script: &str, args: &[&str]) {
    run("private-host", None, seconds, script, args);
}

/// The same on a kernel that has every network part (User Mode Linux): bridges there deny by default.
pub fn uml_host(seconds: u32, script: &str, args: &[&str]) {
    run("umlrun", None, seconds, script, args);
}

/// The same with Debian 13 as the host's root: libvirt 11, nftables 1.1. `host-vm` has its kernel
/// too.
pub fn debian_13(host: &str, seconds: u32, script: &str, args: &[&str]) {
    let made = Command::new(tests().join("rig/make-root")).arg("trixie").output().expect("make-root");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "make-root: {}\n{said}", made.status);
    let root = String::from_utf8(made.stdout).expect("a folder");
    run(host, Some(root.trim()), seconds, script, args);
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn run(host: &str, root: Option<&str>, seconds: u32, script: &str, args: &[&str]) {
    let tests = tests();
    let binaries = Path::new(env!("CARGO_BIN_EXE_vmfabricd")).parent().expect("a binary is in a folder");
    let run = Command::new(tests.join("rig").join(host))
        .args(root.into_iter().flat_map(|root| ["-r", root]))
        .args(["-t", &seconds.to_string(), "-f"])
        .arg(tests.join(script))
        .args(args)
        .env("VMFABRIC_BIN", binaries)
        .env("GUEST_KERNEL", "small")
        .output()
        .expect("the tools of tests/rig run");
    let text = [run.stdout, run.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    println!("{}", text[0]);
    assert!(run.status.success(), "{host} {script} {args:?}: {}\n{}{}", run.status, text[0], text[1]);
}
