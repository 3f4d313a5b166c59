//! Which class measured jobs belong to: policy alone.
//!
//! Of the time that jobs of a name were given, waiting for a CPU apart, what share they did not compute:
//! the io_wait_ratio. It is weighted by time, so that a name whose every hundredth job blocks for long is
//! one that blocks, and it forgets, so that a name may change its ways.
//!
//! | runs as | goes to |
//! | --- | --- |
//! | Hybrid | Io above 0.6, Cpu under 0.1 |
//! | Io | Hybrid at 0.5 and under it, Cpu under 0.1 |
//! | Cpu | Hybrid at 0.2 and above it, Io above 0.6 |
//!
//! Between 0.5 and 0.6, and between 0.1 and 0.2, it stays what it is.

use std::time::Duration;

use crate::Class;
use crate::protocol::sync::{AtomicU8, AtomicU64, Ordering};

/// Jobs that are measured before the first of a name is moved.
const FIRST: u64 = 8;
/// After so many jobs what was measured before counts half.
const FORGETS: u64 = 16;
/// A job that takes longer counts as if it took so long: one alone does not outweigh hundreds.
const MOST_COUNTED: Duration = Duration::from_millis(100);

const ABOVE_IS_IO: f64 = 0.6;
const STAYS_IO: f64 = 0.5;
const UNDER_IS_CPU: f64 = 0.1;
const STAYS_CPU: f64 = 0.2;

/// What one job did with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) computed: Duration,
    pub(crate) waited: Duration,
}

/// Where jobs of a class go whose share of waiting is this.
pub(crate) fn class_for(now: Class, io_wait_ratio: f64) -> Class {
    match now {
        Class::Io if io_wait_ratio > STAYS_IO => Class::Io,
        Class::Cpu if io_wait_ratio < STAYS_CPU => Class::Cpu,
        _ if io_wait_ratio > ABOVE_IS_IO => Class::Io,
        _ if io_wait_ratio < UNDER_IS_CPU => Class::Cpu,
        _ => Class::Hybrid,
    }
}

/// What is known of the jobs of a name. Threads write it as they come, and may lose a sample to each
/// other: it is a mean.
#[derive(Debug, Default)]
pub(super) struct Profile {
    computed_ns: AtomicU64,
    waited_ns: AtomicU64,
    samples: AtomicU64,
    class: AtomicU8,
}

const HYBRID: u8 = 0;
const CPU: u8 = 1;
const IO: u8 = 2;

impl Profile {
    // ORDERING: relaxed, all here: numbers of a mean, which publish nothing.

    pub(super) fn class(&self) -> Class {
        match self.class.load(Ordering::Relaxed) {
            CPU => Class::Cpu,
            IO => Class::Io,
            _ => Class::Hybrid,
        }
    }

    /// How many jobs were measured.
    pub(super) fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// It is that of another name from now on.
    pub(super) fn clear(&self) {
        self.computed_ns.store(0, Ordering::Relaxed);
        self.waited_ns.store(0, Ordering::Relaxed);
        self.samples.store(0, Ordering::Relaxed);
        self.class.store(HYBRID, Ordering::Relaxed);
    }

    /// A job was measured.
    pub(super) fn note(&self, sample: Sample) {
        let taken = sample.computed + sample.waited;
        if taken.is_zero() {
            return;
        }
        // Times of at most so long, in the proportion of those measured.
        let counted = taken.min(MOST_COUNTED).as_nanos();
        let nanos = |time: Duration| {
            let nanos = time.as_nanos() * counted / taken.as_nanos();
            u64::try_from(nanos).expect("it is at most what is counted")
        };
        let computed = &self.computed_ns;
        let waited = &self.waited_ns;
        computed.fetch_add(nanos(sample.computed), Ordering::Relaxed);
        waited.fetch_add(nanos(sample.waited), Ordering::Relaxed);
        let samples = self.samples.fetch_add(1, Ordering::Relaxed) + 1;
        let (computed_ns, waited_ns) = (
            computed.load(Ordering::Relaxed),
            waited.load(Ordering::Relaxed),
        );
        if samples >= FIRST {
            let ratio = waited_ns as f64 / (computed_ns + waited_ns).max(1) as f64;
            let class = match class_for(self.class(), ratio) {
                Class::Cpu => CPU,
                Class::Io => IO,
                _ => HYBRID,
            };
            self.class.store(class, Ordering::Relaxed);
        }
        if samples.is_multiple_of(FORGETS) {
            computed.store(computed_ns / 2, Ordering::Relaxed);
            waited.store(waited_ns / 2, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(computed: u64, waited: u64) -> Sample {
        Sample {
            computed: Duration::from_micros(computed),
            waited: Duration::from_micros(waited),
        }
    }

    fn noted(profile: &Profile, samples: usize, computed: u64, waited: u64) -> Class {
        (0..samples).for_each(|_| profile.note(sample(computed, waited)));
        profile.class()
    }

    #[test]
    fn it_begins_as_hybrid_and_moves_after_a_few() {
        let profile = Profile::default();
        assert_eq!(noted(&profile, 7, 1000, 0), Class::Hybrid);
        assert_eq!(noted(&profile, 1, 1000, 0), Class::Cpu);
        let profile = Profile::default();
        assert_eq!(noted(&profile, 7, 10, 1000), Class::Hybrid);
        assert_eq!(noted(&profile, 1, 10, 1000), Class::Io);
        assert_eq!(noted(&Profile::default(), 100, 700, 300), Class::Hybrid);
    }

    #[test]
    fn between_the_thresholds_it_stays_what_it_is() {
        for (ratio, stays) in [(0.55, Class::Io), (0.15, Class::Cpu)] {
            assert_eq!(class_for(stays, ratio), stays);
            assert_eq!(class_for(Class::Hybrid, ratio), Class::Hybrid);
        }
        assert_eq!(class_for(Class::Hybrid, 0.6), Class::Hybrid);
        assert_eq!(class_for(Class::Hybrid, 0.1), Class::Hybrid);
        assert_eq!(class_for(Class::Io, 0.5), Class::Hybrid);
        assert_eq!(class_for(Class::Cpu, 0.2), Class::Hybrid);
        assert_eq!(class_for(Class::Cpu, 0.9), Class::Io);
        assert_eq!(class_for(Class::Io, 0.05), Class::Cpu);
    }

    #[test]
    fn a_name_may_change_its_ways() {
        let profile = Profile::default();
        assert_eq!(noted(&profile, 1000, 1000, 0), Class::Cpu);
        assert_eq!(noted(&profile, 200, 0, 1000), Class::Io);
        assert_eq!(noted(&profile, 200, 1000, 0), Class::Cpu);
    }

    #[test]
    fn a_rare_job_that_blocks_for_long_makes_it_one_that_blocks() {
        let profile = Profile::default();
        for _ in 0..10 {
            noted(&profile, 9, 10, 0);
            noted(&profile, 1, 0, 50_000);
        }
        assert_eq!(profile.class(), Class::Io);
    }

    #[test]
    fn what_takes_no_time_says_nothing() {
        assert_eq!(noted(&Profile::default(), 100, 0, 0), Class::Hybrid);
    }

    proptest! {
        /// Whatever it was before, jobs that are all alike bring it to their class, and nothing that
        /// they do moves it afterwards.
        #[test]
        fn jobs_that_are_alike_settle_it(
            before in proptest::collection::vec((0_u64..200_000, 0_u64..200_000), 0..200),
            taken in 100_u64..200_000,
            percent in 0_u64..=100,
        ) {
            let profile = Profile::default();
            before.into_iter().for_each(|(computed, waited)| profile.note(sample(computed, waited)));
            let waited = taken * percent / 100;
            let settled = noted(&profile, 600, taken - waited, waited);
            let exact = waited as f64 / taken as f64;
            for class in [Class::Cpu, Class::Io, Class::Hybrid] {
                // Right at a threshold rounding decides.
                let stays = [exact - 0.01, exact + 0.01].iter().any(|&ratio| class_for(class, ratio) == class);
                prop_assert!(class != settled || stays, "{settled:?} at {exact}");
            }
            prop_assert_eq!(noted(&profile, 1, taken - waited, waited), settled);
            prop_assert_eq!(noted(&profile, 100, taken - waited, waited), settled);
        }
    }
}
