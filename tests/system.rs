//! The package as installed: a Debian with systemd as pid 1, polkit and stock libvirt, on a machine of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The package that `make deb` built, where `make test` says so; else one of the binaries under test.
fn package(folder: &Path) -> PathBuf {
    if let Some(built) = std::env::var_os("VMFABRIC_DEB") {
        return built.into();
    }
    let binaries = Path::new(env!("CARGO_BIN_EXE_vmfabricd")).parent().expect("a folder");
    let mut build = Command::new("packaging/build-deb");
    build.arg(folder).env("BIN_DIR", binaries).env("DEB_COMPRESSION", "none");
    let output = build.current_dir(repository()).output().expect("packaging/build-deb");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

fn run(command: &mut Command) {
    let output = command.current_dir(repository()).output().expect("the tools of tests run");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    println!("{out}");
}

#[test]
#[ignore = "needs root: it boots a Debian of its own under QEMU"]
fn the_package_lives_with_systemd_polkit_and_guests() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = ["-f", "tests/system/installed.sh"];
    run(Command::new("tests/rig/system-vm").args(["-t", "1200", "-i"]).arg(package(folder.path())).args(script));
}

#[test]
#[ignore = "needs root: it boots a Debian of its own under QEMU"]
fn no_acknowledged_lease_is_lost_by_a_power_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    run(Command::new("tests/system/power-cut").arg(package(folder.path())));
}
