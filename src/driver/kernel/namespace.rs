//! A network namespace of one's own for a moment, to try a kernel without touching the host.

use crate::backend::DriverError;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

/// Runs `work` on a thread that is alone in a new network namespace; both end with it. Wants `CAP_SYS_ADMIN`.
pub(super) fn in_throwaway<T: Send>(work: impl FnOnce() -> Result<T, DriverError> + Send) -> Result<T, DriverError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| match error {
                nix::Error::EPERM if !geteuid().is_root() => DriverError::NotPermitted,
                nix::Error::EPERM => DriverError::Netlink(
                    "no network namespace can be made to try what the kernel can do; give vmfabricd CAP_SYS_ADMIN"
                        .into(),
                ),
                error => DriverError::Netlink(format!("no network namespace can be made to try the kernel: {error}")),
            })?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(DriverError::Netlink("the kernel could not be tried".into())))
    })
}
