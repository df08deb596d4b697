//! The daemon and the package on hosts of their own, of `tests/rig/`: each test runs a script of `tests/` there, which prints
//! a line for each check. One program, so that hosts of every kind run beside each other. As root:
//! `cargo test --test hosts -- --ignored`, with `dns::` or a test's name before the `--` for some of them.

mod cli;
mod dhcp;
mod dns;
mod guests;
mod hostile;
mod installed;
mod ipv6;
mod neighbours;
mod vlan;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// A host in namespaces of this machine, with its kernel.
fn private_host(seconds: u32, script: &str, args: &[&str]) {
    run(on(&mut rig("private-host"), seconds, script, args));
}

/// A User Mode Linux host, whose kernel has every network part: bridges there deny by default.
fn uml_host(seconds: u32, script: &str, args: &[&str]) {
    run(on(&mut rig("umlrun"), seconds, script, args));
}

/// A host under QEMU with Debian's kernel.
fn stock_host(seconds: u32, script: &str, args: &[&str]) {
    run(on(&mut rig("host-vm"), seconds, script, args));
}

/// A host of one of these kinds with Debian 13 as its root: libvirt 11, nftables 1.1. `host-vm` has
/// its kernel too.
fn debian_13(tool: &str, seconds: u32, script: &str, args: &[&str]) {
    let root = finished(Command::new(tests().join("rig/make-root")).arg("trixie"));
    run(on(rig(tool).args(["-r", root.trim()]), seconds, script, args));
}

fn on<'a>(host: &'a mut Command, seconds: u32, script: &str, args: &[&str]) -> &'a mut Command {
    host.args(["-t", &seconds.to_string(), "-f"]).arg(tests().join(script)).args(args)
}

/// A tool of `tests/rig/`, with the binaries of this build.
fn rig(tool: &str) -> Command {
    let binaries = Path::new(env!("CARGO_BIN_EXE_vmfabricd")).parent().expect("a binary is in a folder");
    let mut command = Command::new(tests().join("rig").join(tool));
    command.env("VMFABRIC_BIN", binaries).env("GUEST_KERNEL", "small");
    command
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Runs a script on its host; shows what it printed.
fn run(command: &mut Command) {
    println!("{}", finished(command));
}

/// What a command that succeeds prints; fails with all that one prints that does not, and keeps it where `make test` finds it
/// to show it last. How long each took is there too.
fn finished(command: &mut Command) -> String {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let name = std::thread::current().name().unwrap_or("main").to_owned();
    let took = format!("{:6.1} s  {name}\n", start.elapsed().as_secs_f64());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let list = File::options().create(true).append(true).open(folder.join("took"));
    list.and_then(|mut list| list.write_all(took.as_bytes())).expect("cargo's folder can be written to");
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if !output.status.success() {
        let told = format!("{command:?}: {}\n{out}\n{err}", output.status);
        let folder = folder.join("failed");
        let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(name.replace("::", ".")), &told));
        panic!("{told}\n{kept:?}");
    }
    out
}
