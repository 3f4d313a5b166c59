//! The time, for measuring how long jobs wait and run: the processor's own counter where the kernel
//! keeps its time by it, else the kernel's clock.
//!
//! A job is stamped twice, and the kernel's clock costs 19 ns of the 100 or so that a tiny one has; the
//! counter 8. What must be right to the microsecond, deadlines, goes by [`Instant`].

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stamp(u64);

/// Where stamps come from.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// The counter, of which 2^32 ticks are so many nanoseconds.
    #[cfg(target_arch = "x86_64")]
    Counter { scale: u64 },
    /// Nanoseconds since this.
    Kernel { start: Instant },
}

static CLOCK: OnceLock<Clock> = OnceLock::new();

impl Stamp {
    #[inline]
    pub(crate) fn now() -> Stamp {
        match CLOCK.get_or_init(Clock::new) {
            #[cfg(target_arch = "x86_64")]
            Clock::Counter { .. } => Stamp(counter()),
            Clock::Kernel { start } => Stamp(nanos(start.elapsed())),
        }
    }

    /// How long after an earlier one it is; nothing if it is not.
    #[inline]
    pub(crate) fn since(self, earlier: Stamp) -> Duration {
        let ticks = self.0.saturating_sub(earlier.0);
        Duration::from_nanos(match CLOCK.get() {
            #[cfg(target_arch = "x86_64")]
            Some(Clock::Counter { scale }) => {
                let nanos = (u128::from(ticks) * u128::from(*scale)) >> 32;
                u64::try_from(nanos).unwrap_or(u64::MAX)
            }
            _ => ticks,
        })
    }

    /// For a word that threads share.
    pub(crate) fn ticks(self) -> u64 {
        self.0
    }

    pub(crate) fn from_ticks(ticks: u64) -> Stamp {
        Stamp(ticks)
    }

    pub(crate) fn elapsed(self) -> Duration {
        Stamp::now().since(self)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Clock {
    #[cfg(target_arch = "x86_64")]
    fn new() -> Clock {
        const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        // The kernel has checked that it runs evenly, and on all CPUs alike.
        let by_counter = std::fs::read_to_string(SOURCE).is_ok_and(|source| source.trim() == "tsc");
        by_counter
            .then(Clock::measured)
            .flatten()
            .unwrap_or(Clock::Kernel {
                start: Instant::now(),
            })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn new() -> Clock {
        Clock::Kernel {
            start: Instant::now(),
        }
    }

    /// Measures the counter by the kernel's clock. The two are read one after the other, some 50 ns
    /// apart, so over 20 µs it is right within a percent; of some attempts the best is taken, for a
    /// thread may be interrupted in between.
    #[cfg(target_arch = "x86_64")]
    fn measured() -> Option<Clock> {
        const SPAN: Duration = Duration::from_micros(20);
        let read = || {
            let before = counter();
            let now = Instant::now();
            let after = counter();
            (now, before + (after - before) / 2, after - before)
        };
        let best = || (0..4).map(|_| read()).min_by_key(|&(.., taken)| taken);
        let (start, first, _) = best()?;
        while start.elapsed() < SPAN {
            std::hint::spin_loop();
        }
        let (end, last, _) = best()?;
        let ticks = last.checked_sub(first).filter(|&ticks| ticks > 0)?;
        let scale = (u128::from(nanos(end - start)) << 32) / u128::from(ticks);
        let scale = u64::try_from(scale).ok().filter(|&scale| scale > 0)?;
        Some(Clock::Counter { scale })
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn counter() -> u64 {
    // SAFETY: every x86-64 has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_as_the_kernels_clock_does() {
        // What a preempted thread adds falls between the outer and the inner.
        let (outer, first) = (Instant::now(), Stamp::now());
        let inner = Instant::now();
        while inner.elapsed() < Duration::from_millis(20) {}
        let inner = inner.elapsed();
        let (measured, outer) = (Stamp::now().since(first), outer.elapsed());
        assert!(measured >= inner.mul_f64(0.98), "{measured:?} of {inner:?}");
        assert!(measured <= outer.mul_f64(1.02), "{measured:?} of {outer:?}");
    }

    #[test]
    fn nothing_is_before_its_beginning() {
        let (earlier, later) = (Stamp(5), Stamp(7));
        assert_eq!(earlier.since(later), Duration::ZERO);
    }
}
