//! Runs scripts on the hosts of the rig (`tests/rig/README.md`).

use std::{path::Path, process::Command};

/// Runs a script of `tests/` in a private host, with the binaries of this build; fails with all it printed.
pub fn private_host(seconds: u32, script: &str, args: &[&str]) {
    run("private-host", seconds, script, args);
}

/// The same on a kernel that has every network part (User Mode Linux): bridges there deny by default.
#[allow(dead_code, reason = "not every test needs it")]
pub fn uml_host(seconds: u32, script: &str, args: &[&str]) {
    run("umlrun", seconds, script, args);
}

fn run(host: &str, seconds: u32, script: &str, args: &[&str]) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let binaries = Path::new(env!("CARGO_BIN_EXE_vmfabricd")).parent().expect("a binary is in a folder");
    let run = Command::new(tests.join("rig").join(host))
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
