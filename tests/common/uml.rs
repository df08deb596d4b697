//! Tests in Rust on a kernel that has every network part (`tests/rig/README.md`).

use nix::sched::{CloneFlags, unshare};
use std::{future::Future, process::Command};

const THERE: &str = "VMFABRIC_TEST_ON_UML";

/// Runs a test of this program on User Mode Linux: the program runs itself again there, with these variables, and
/// `test` runs in a network namespace of its own.
pub fn on_uml<F: Future<Output = ()>>(
    this: &str,
    seconds: u32,
    variables: &[(&str, &str)],
    test: impl FnOnce() -> F + Send + 'static,
) {
    if std::env::var_os(THERE).is_some() {
        return in_namespace(test);
    }
    let here = std::env::current_exe().expect("this program");
    let done = Command::new("tests/rig/umlrun")
        .args(["-t", &seconds.to_string(), "--"])
        .arg(&here)
        .args(["--exact", this, "--include-ignored", "--nocapture"])
        .env(THERE, "1")
        .envs(variables.iter().copied())
        .output()
        .expect("umlrun");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    println!("{out}");
    assert!(done.status.success() && out.contains("1 passed"), "{this} on User Mode Linux:\n{err}");
}

/// Runs a test on a thread that is alone in a new network namespace.
pub fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace; run as root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub fn sh(command: &str) {
    let done = Command::new("sh").args(["-ec", command]).status().expect("sh");
    assert!(done.success(), "{command}");
}
