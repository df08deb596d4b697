use std::time::Duration;

/// Delays that double from `min` to `max`, each shortened by up to a quarter so that hosts do not retry in step.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next delay; `random` is any number.
    pub(super) fn delay(&mut self, random: u32) -> Duration {
        let delay = self.next.min(self.max);
        self.next = delay.saturating_mul(2).min(self.max);
        delay - delay.mul_f64(0.25 * f64::from(random) / f64::from(u32::MAX))
    }

    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_limit() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let delays: Vec<_> = (0..9).map(|_| backoff.delay(0).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.delay(u32::MAX).as_millis(), 7500);
        backoff.reset();
        assert_eq!(backoff.delay(0).as_millis(), 100);
    }
}
