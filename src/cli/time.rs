//! Times as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How long it is until then.
pub fn left(then: u64) -> String {
    match then.checked_sub(now()) {
        None | Some(0) => "expired".to_owned(),
        Some(seconds) => span(seconds),
    }
}

/// The two largest units.
fn span(seconds: u64) -> String {
    match (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, ..) => format!("{d}d {h}h"),
    }
}

/// The time of day in UTC.
pub fn of_day(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}Z", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!([59, 61, 3660, 90_000].map(span), ["59s", "1m 1s", "1h 1m", "1d 1h"]);
        assert_eq!(left(1), "expired");
        assert_eq!(of_day(3661), "01:01:01Z");
    }
}
