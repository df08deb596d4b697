//! Who is served when not all can be.

use std::{collections::HashMap, net::IpAddr, time::Duration};

/// Guests that are told apart; beyond that, those that come anew share one allowance.
pub const MAX_CLIENTS: usize = 4096;
/// What a guest may ask in a second while others wait, and at once. Far above what a busy mail server asks.
pub const FAIR_RATE: u32 = 2000;
/// A guest that was silent for so long has its whole allowance again, and need not be remembered.
const FORGET: Duration = Duration::from_secs(1);
/// How long ago another guest must have asked for it to count as waiting.
const ACTIVE: Duration = Duration::from_secs(1);

/// A token bucket per guest. It holds a guest back only while more comes in than is answered and another guest asks
/// too: alone, a guest gets all there is. With a limit of the administrator's it always does.
#[derive(Debug, Default)]
pub(super) struct Fair {
    buckets: HashMap<IpAddr, Bucket>,
    swept: Duration,
    /// The two guests that asked last.
    last: [Option<(IpAddr, Duration)>; 2],
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f32,
    at: Duration,
}

/// Whoever finds the table full.
const OTHERS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

impl Fair {
    /// Whether a question is worth an answer. `backlog`: more wait than could be taken at once; `limit`: questions a
    /// second that a guest may ask in any case, 0: as many as it likes.
    pub fn admit(&mut self, now: Duration, client: IpAddr, backlog: bool, limit: u32) -> bool {
        let contended = self.note(now, client) && backlog;
        let rate = if limit > 0 { limit } else { FAIR_RATE } as f32;
        if !self.buckets.contains_key(&client) && self.buckets.len() >= MAX_CLIENTS {
            self.sweep(now);
        }
        let full = self.buckets.len() >= MAX_CLIENTS && !self.buckets.contains_key(&client);
        let key = if full { OTHERS } else { client };
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: rate, at: now });
        let earned = now.saturating_sub(bucket.at).as_secs_f32() * rate;
        *bucket = Bucket { tokens: (bucket.tokens + earned).min(rate), at: now };
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return true;
        }
        limit == 0 && !contended
    }

    /// Whether another guest asked lately.
    fn note(&mut self, now: Duration, client: IpAddr) -> bool {
        let [first, _] = self.last;
        if first.is_none_or(|(address, _)| address != client) {
            self.last = [Some((client, now)), first];
        } else {
            self.last[0] = Some((client, now));
        }
        self.last[1].is_some_and(|(_, at)| now.saturating_sub(at) < ACTIVE)
    }

    fn sweep(&mut self, now: Duration) {
        // Not for every question of a flood from ever new addresses.
        if now.saturating_sub(self.swept) < FORGET / 4 && self.swept > Duration::ZERO {
            return;
        }
        self.swept = now;
        self.buckets.retain(|_, bucket| now.saturating_sub(bucket.at) < FORGET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    const START: Duration = Duration::from_secs(100);

    #[test]
    fn alone_a_guest_gets_all_there_is() {
        let mut fair = Fair::default();
        assert!((0..10 * FAIR_RATE).all(|_| fair.admit(START, ip(1), true, 0)));
    }

    #[test]
    fn a_flood_is_held_back_while_another_asks() {
        let mut fair = Fair::default();
        let (mut flood, mut victim) = (0, 0);
        // Two seconds: 100,000 questions of the one, 200 of the other.
        for n in 0..100_000u32 {
            let now = START + Duration::from_micros(20) * n;
            if n % 500 == 0 {
                victim += u32::from(fair.admit(now, ip(2), true, 0));
            }
            flood += u32::from(fair.admit(now, ip(1), true, 0));
        }
        assert_eq!(victim, 200);
        assert!((2 * FAIR_RATE..4 * FAIR_RATE).contains(&flood), "{flood}");
        assert!(fair.admit(START + Duration::from_secs(2), ip(1), false, 0), "with no backlog all are served");
    }

    #[test]
    fn a_limit_holds_always() {
        let mut fair = Fair::default();
        let asked = (0..1000).filter(|_| fair.admit(START, ip(1), false, 10)).count();
        assert_eq!(asked, 10);
        let later = START + Duration::from_millis(500);
        assert_eq!((0..1000).filter(|_| fair.admit(later, ip(1), false, 10)).count(), 5);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut fair = Fair::default();
        for n in 0..10_000 {
            fair.admit(START, ip(n), true, 0);
        }
        assert!(fair.buckets.len() <= MAX_CLIENTS + 1);
        fair.admit(START + Duration::from_secs(3), ip(99_999), true, 0);
        assert!(fair.buckets.len() <= 2, "those who are silent are forgotten");
    }
}
