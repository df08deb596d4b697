//! The clock of leases: seconds since 1970 that nobody sets.
//!
//! The wall clock says once per boot what time it is; from then on the boot's own clock (`CLOCK_BOOTTIME`, which counts
//! while the host sleeps, and which cannot be set) carries on. So a wall clock that jumps, forwards or backwards, neither
//! ends leases nor makes them last. A daemon that is restarted goes on with the same clock, which the store keeps with
//! the boot's identity. At a new boot the wall clock is asked anew, and never believed where it lies before a time that
//! this clock has shown already: leases then last longer, and nobody's address goes to another.

use crate::protocol::dhcpv4::{NEVER, UnixSeconds};
use nix::time::{ClockId, clock_gettime};
use std::time::SystemTime;

/// Where the store keeps it.
pub const MEMO: &str = "lease-clock";

/// Copies show the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseClock {
    /// Seconds from the boot's clock to this one.
    offset: u64,
}

impl Default for LeaseClock {
    /// As the wall clock is now.
    fn default() -> Self {
        Self { offset: wall().saturating_sub(uptime()) }
    }
}

impl LeaseClock {
    /// Goes on where the memo says; gives the memo to store where that is another.
    pub fn resume(memo: Option<&str>) -> (Self, Option<String>) {
        Self::resume_at(memo, &boot_id(), uptime(), wall())
    }

    fn resume_at(memo: Option<&str>, boot: &str, uptime: u64, wall: u64) -> (Self, Option<String>) {
        let fields: Option<(&str, u64, u64)> = memo.and_then(|memo| {
            let mut words = memo.split(' ');
            Some((words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        });
        let offset = match fields {
            Some((known, offset, _)) if known == boot && !boot.is_empty() => return (Self { offset }, None),
            Some((_, _, shown)) => wall.max(shown).saturating_sub(uptime),
            None => wall.saturating_sub(uptime),
        };
        (Self { offset }, Some(format!("{boot} {offset} {}", offset.saturating_add(uptime))))
    }

    pub fn now(self) -> UnixSeconds {
        self.offset.saturating_add(uptime())
    }

    /// What the wall clock shows, as it is set now, when this clock shows `at`.
    pub fn to_wall(self, at: UnixSeconds) -> UnixSeconds {
        if at == NEVER { NEVER } else { at.saturating_add_signed(self.wall_shift()) }
    }

    /// Seconds by which the wall clock, as it is set now, is ahead of this one.
    pub fn wall_shift(self) -> i64 {
        wall().cast_signed().saturating_sub(self.now().cast_signed())
    }
}

/// Which boot of the host this is (`random/boot_id`, proc_sys_kernel(5)). Empty where the kernel does not tell.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn uptime() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME);
    time.ok().and_then(|time| u64::try_from(time.tv_sec()).ok()).unwrap_or(0)
}

fn wall() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_800_000_000;

    fn shows(clock: LeaseClock, uptime: u64) -> u64 {
        clock.offset + uptime
    }

    #[test]
    fn a_restart_goes_on_whatever_the_wall_clock_shows() {
        let (clock, memo) = LeaseClock::resume_at(None, "a", 100, WALL);
        assert_eq!(shows(clock, 100), WALL);
        for wall in [0, WALL - 1_000_000, WALL + 1_000_000, u64::MAX] {
            let (again, memo) = LeaseClock::resume_at(memo.as_deref(), "a", 160, wall);
            assert_eq!((again, memo), (clock, None));
        }
        assert_eq!(shows(clock, 160), WALL + 60);
    }

    #[test]
    fn a_boot_asks_the_wall_clock_and_never_goes_back() {
        let (_, memo) = LeaseClock::resume_at(None, "a", 100, WALL);
        let (clock, later) = LeaseClock::resume_at(memo.as_deref(), "b", 5, WALL + 3_600);
        assert_eq!(shows(clock, 5), WALL + 3_600);
        assert!(later.is_some());
        // A battery that is empty: 1970.
        let (clock, _) = LeaseClock::resume_at(memo.as_deref(), "b", 5, 20);
        assert_eq!(shows(clock, 5), WALL);
        for broken in ["", "a", "a b c", "a 1 -1"] {
            let (clock, memo) = LeaseClock::resume_at(Some(broken), "b", 5, WALL);
            assert_eq!((shows(clock, 5), memo.is_some()), (WALL, true), "{broken}");
        }
    }

    #[test]
    fn leases_without_end_have_none_on_the_wall() {
        assert_eq!(LeaseClock::default().to_wall(NEVER), NEVER);
        let clock = LeaseClock::default();
        assert!(clock.to_wall(clock.now() + 60).abs_diff(wall() + 60) <= 1);
    }
}
