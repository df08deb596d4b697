//! The package as installed: a Debian with systemd as pid 1, polkit and stock libvirt, on a machine of its own.

use super::{finished, run, tests};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The package that is to be tested, `VMFABRIC_DEB`: one of `make deb`, say. Else one of the binaries under test.
fn package(folder: &Path) -> PathBuf {
    if let Some(built) = std::env::var_os("VMFABRIC_DEB") {
        return built.into();
    }
    let binaries = Path::new(env!("CARGO_BIN_EXE_vmfabricd")).parent().expect("a folder");
    let mut build = Command::new(tests().join("../packaging/build-deb"));
    finished(build.arg(folder).env("BIN_DIR", binaries).env("DEB_COMPRESSION", "none")).trim().into()
}

#[test]
#[ignore = "needs root: it boots a Debian of its own under QEMU"]
fn the_package_lives_with_systemd_polkit_and_guests() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut vm = Command::new(tests().join("rig/system-vm"));
    vm.args(["-t", "1200", "-i"]).arg(package(folder.path()));
    run(vm.arg("-f").arg(tests().join("system/installed.sh")));
}

#[test]
#[ignore = "needs root: it boots a Debian of its own under QEMU"]
fn no_acknowledged_lease_is_lost_by_a_power_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    run(Command::new(tests().join("system/power-cut")).arg(package(folder.path())));
}
