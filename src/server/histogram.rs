/// How long things took, in classes: what it holds does not grow.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// Up to each of [`Histogram::BOUNDS`], beyond the one before it; and beyond the last.
    counts: [u64; Self::BOUNDS.len() + 1],
    sum: f64,
}

impl Histogram {
    /// The upper ends of the classes, in seconds.
    pub const BOUNDS: [f64; 16] =
        [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

    pub fn observe(&mut self, took: std::time::Duration) {
        self.observe_many(took, 1);
    }

    /// The same for as many that took as long.
    pub fn observe_many(&mut self, took: std::time::Duration, times: u64) {
        let seconds = took.as_secs_f64();
        let class = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[class] += times;
        self.sum += seconds * times as f64;
    }

    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    /// For each bound, how many took no longer; all at the end.
    pub fn cumulative(&self) -> [u64; Self::BOUNDS.len() + 1] {
        let mut total = 0;
        self.counts.map(|count| {
            total += count;
            total
        })
    }

    /// Seconds.
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bound_belongs_to_its_class() {
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1));
        histogram.observe_many(Duration::from_micros(1001), 2);
        histogram.observe(Duration::from_secs(60));
        let cumulative = histogram.cumulative();
        assert_eq!((cumulative[2], cumulative[3], cumulative[4], cumulative[15], cumulative[16]), (0, 1, 3, 3, 4));
        let mut both = histogram.clone();
        both.add(&histogram);
        assert_eq!(both.cumulative()[16], 8);
    }
}
