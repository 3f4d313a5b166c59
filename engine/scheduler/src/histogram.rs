//! How long things took, as counts by duration: 32 buckets to each doubling, so that a quantile is
//! right within 2 %.

use std::time::Duration;

use crate::protocol::sync::{AtomicU64, Ordering};

/// Buckets to each doubling: their middle is at most 1/64 from their edges.
const STEPS: u64 = 32;
/// Durations from here on are one bucket: 2^44 ns are five hours.
const DOUBLINGS: u64 = 44;
const BUCKETS: usize = 40 * 32;
const _: () = assert!(BUCKETS as u64 == (DOUBLINGS - STEPS.ilog2() as u64 + 1) * STEPS);

/// Counts by duration, written while they are read.
#[derive(Debug)]
pub(crate) struct Recorder {
    buckets: Box<[AtomicU64]>,
    max_ns: AtomicU64,
    sum_ns: AtomicU64,
}

impl Recorder {
    pub(crate) fn new() -> Recorder {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Recorder {
            buckets,
            max_ns: AtomicU64::new(0),
            sum_ns: AtomicU64::new(0),
        }
    }

    /// So many times; `is_own` if the current thread alone writes it.
    pub(crate) fn record(&self, duration: Duration, times: u64, is_own: bool) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &self.buckets[bucket_of(ns)];
        let more_ns = ns.saturating_mul(times);
        // ORDERING: relaxed, here and below: counts for people, each true by itself.
        if is_own {
            bucket.store(bucket.load(Ordering::Relaxed) + times, Ordering::Relaxed);
            let sum_ns = self.sum_ns.load(Ordering::Relaxed).wrapping_add(more_ns);
            self.sum_ns.store(sum_ns, Ordering::Relaxed);
        } else {
            bucket.fetch_add(times, Ordering::Relaxed);
            self.sum_ns.fetch_add(more_ns, Ordering::Relaxed);
        }
        if ns > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.fetch_max(ns, Ordering::Relaxed);
        }
    }

    pub(crate) fn add_to(&self, histogram: &mut Histogram) {
        histogram.buckets.resize(BUCKETS, 0);
        for (sum, bucket) in histogram.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        histogram.sum_ns = histogram
            .sum_ns
            .wrapping_add(self.sum_ns.load(Ordering::Relaxed));
        histogram.max_ns = histogram.max_ns.max(self.max_ns.load(Ordering::Relaxed));
    }
}

/// Exact below `STEPS`; above it the leading bits say which doubling, the five after them which
/// step of it.
fn bucket_of(ns: u64) -> usize {
    let bucket = match ns.checked_ilog2() {
        Some(doubling) if doubling >= STEPS.ilog2() => {
            let shift = doubling - STEPS.ilog2();
            u64::from(shift) * STEPS + (ns >> shift)
        }
        _ => ns,
    };
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// The middle of a bucket.
fn middle_ns(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    let first = (bucket - shift * STEPS) << shift;
    first + (1 << shift) / 2
}

/// How long things took, at the moment it was asked for.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    buckets: Vec<u64>,
    max_ns: u64,
    sum_ns: u64,
}

impl Histogram {
    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The duration that this part of them did not exceed, within 2 %: 0.5 is the median, 1.0 the
    /// longest. Parts below 0 and above 1 count as those; zero where nothing was measured.
    pub fn quantile(&self, part: f64) -> Duration {
        let count = self.count();
        let part = part.clamp(0.0, 1.0);
        if count == 0 || part.is_nan() {
            return Duration::ZERO;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank between 1 and count, of which the last digits do not matter"
        )]
        let rank = ((part * count as f64).ceil() as u64).clamp(1, count);
        if rank == count {
            return self.max();
        }
        let mut below = 0;
        for (bucket, &in_bucket) in self.buckets.iter().enumerate() {
            below += in_bucket;
            if below >= rank {
                return Duration::from_nanos(middle_ns(bucket).min(self.max_ns));
            }
        }
        self.max()
    }

    /// All of them together, exactly; modulo 584 years.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// How many were shorter than this power of two, in nanoseconds.
    #[cfg(feature = "metrics")]
    pub(crate) fn count_below(&self, power: u32) -> u64 {
        let end = bucket_of(1 << power).min(self.buckets.len());
        self.buckets[..end].iter().sum()
    }

    /// The longest, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_within_two_percent_of_its_bucket() {
        let mut ns = 1u64;
        while ns < 1 << 43 {
            for ns in [ns, ns + ns / 3, 2 * ns - 1] {
                let middle = middle_ns(bucket_of(ns));
                assert!(
                    middle.abs_diff(ns) * 100 <= ns * 2,
                    "{ns} ns falls into {middle} ns"
                );
            }
            ns *= 2;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    #[cfg(feature = "metrics")]
    fn what_is_below_a_power_of_two_is_counted_exactly() {
        let recorder = Recorder::new();
        let durations: Vec<u64> = (0..200_000).step_by(7).collect();
        let record = |&ns: &u64| recorder.record(Duration::from_nanos(ns), 1, true);
        durations.iter().for_each(record);
        let mut histogram = Histogram::default();
        assert_eq!(histogram.count_below(20), 0);
        recorder.add_to(&mut histogram);
        for power in [3, 5, 6, 10, 16, 40] {
            let below = durations.iter().filter(|&&ns| ns < 1 << power).count();
            assert_eq!(histogram.count_below(power), below as u64, "{power}");
        }
        assert_eq!(
            histogram.sum(),
            Duration::from_nanos(durations.iter().sum())
        );
    }

    #[test]
    fn quantiles_stand_in_order_and_end_at_the_longest() {
        let recorder = Recorder::new();
        (1..=1000).for_each(|micros| recorder.record(Duration::from_micros(micros), 1, true));
        let mut histogram = Histogram::default();
        recorder.add_to(&mut histogram);
        assert_eq!(histogram.count(), 1000);
        assert_eq!(histogram.max(), Duration::from_millis(1));
        assert_eq!(histogram.quantile(1.0), histogram.max());
        let median = histogram.quantile(0.5).as_nanos();
        assert!(median.abs_diff(500_000) <= 10_000, "{median}");
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
