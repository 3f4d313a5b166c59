//! How background work leaves of a CPU quota what others need: policy alone.
//!
//! Once the threads of a cgroup have used up its quota, the kernel stops all of them for the rest of the
//! period, 0.1 s mostly; urgent work too, whoever used it up. What computes stays on no more CPUs than the
//! quota grants, but I/O threads and whoever submits use it beside that. So a background worker sees to it
//! between two pieces of work that the process as a whole uses a little less than the quota: what was used
//! beyond that is paid back by waiting.
//!
//! It is a leaky bucket for the CPU time of the process. Each worker has one of its own, so that nobody
//! waits for what another holds; all see the same use, and so agree.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// So much of the quota is used: the rest is for the length of a piece of work, which is not stopped in
/// its middle, and for what the kernel has handed out to CPUs and not got back.
const USED: f64 = 0.9;
/// So much may be used at once after a time with less.
const BURST: Duration = Duration::from_millis(2);
/// No more is owed than this: what was used long ago stops nobody.
const MOST_OWED: Duration = Duration::from_millis(100);

/// What a background worker knows of its quota.
#[derive(Debug)]
pub(super) struct Pace {
    /// CPUs.
    rate: f64,
    /// Of the process, at the last look.
    used: Cell<Duration>,
    /// What was used by then is paid for at this time.
    paid: Cell<Instant>,
    /// Nothing is owed until then.
    excused: Cell<Instant>,
}

impl Pace {
    /// For a quota of so many CPUs.
    pub(super) fn new(quota: f64, now: Instant, used: Duration) -> Pace {
        Pace {
            rate: quota * USED,
            used: Cell::new(used),
            paid: Cell::new(now),
            excused: Cell::new(now),
        }
    }

    /// How long to wait, where the process has used so much CPU time by now.
    pub(super) fn owed(&self, now: Instant, used: Duration) -> Duration {
        let more = used.saturating_sub(self.used.replace(used));
        let (unused, most) = (now.checked_sub(BURST).unwrap_or(now), now + MOST_OWED);
        let paid = self.paid.get().checked_add(more.div_f64(self.rate));
        let paid = paid.unwrap_or(most).clamp(unused, most);
        self.paid.set(paid);
        match now < self.excused.get() {
            true => Duration::ZERO,
            false => paid.saturating_duration_since(now),
        }
    }

    /// Nothing is owed until then, whatever is used: others use it all, and this work may not stand still
    /// for ever.
    pub(super) fn excuse(&self, until: Instant) {
        self.excused.set(until);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    proptest! {
        /// Who works whenever nothing is owed, beside others that leave something, brings the use of no period
        /// to more than the quota.
        #[test]
        fn no_period_uses_more_than_the_quota(
            quota in 0.5_f64..8.0,
            piece_us in 200_u64..5_000,
            others in 0.0_f64..0.8,
        ) {
            let start = Instant::now();
            let pace = Pace::new(quota, start, Duration::ZERO);
            let piece = Duration::from_micros(piece_us);
            // It has as many CPUs as the quota grants.
            let (mut now, mut used) = (Duration::ZERO, Duration::ZERO);
            let mut uses = vec![(now, used)];
            while now < 500 * MS {
                let owed = pace.owed(start + now, used);
                // No sleep is shorter than that. It has what others leave of the CPUs that compute; some use is beside that.
                let (lasts, share) = match owed.is_zero() {
                    true => (piece, 1.0),
                    false => (owed.max(50 * MS / 1000), others),
                };
                now += lasts;
                used += lasts.mul_f64(quota * (share + 0.05));
                uses.push((now, used));
            }
            let mut first = 0;
            for &(at, used) in &uses {
                while at - uses[first].0 > 100 * MS {
                    first += 1;
                }
                let most = used - uses[first].1;
                prop_assert!(most <= (100 * MS).mul_f64(quota), "{most:?} until {at:?}");
            }
        }

        #[test]
        fn no_more_is_owed_than_a_period(uses in proptest::collection::vec((0_u64..50_000, 0_u64..900_000), 1..50)) {
            let mut now = Instant::now();
            let mut used = Duration::ZERO;
            let pace = Pace::new(1.0, now, used);
            for (later, more) in uses {
                now += Duration::from_micros(later);
                used += Duration::from_micros(more);
                prop_assert!(pace.owed(now, used) <= MOST_OWED);
            }
        }
    }

    #[test]
    fn who_is_excused_owes_nothing_for_so_long() {
        let start = Instant::now();
        let pace = Pace::new(1.0, start, Duration::ZERO);
        assert!(pace.owed(start, 50 * MS) > Duration::ZERO);
        pace.excuse(start + 5 * MS);
        assert_eq!(pace.owed(start + 4 * MS, 90 * MS), Duration::ZERO);
        assert!(pace.owed(start + 5 * MS, 90 * MS) > 80 * MS);
    }

    #[test]
    fn who_uses_less_than_its_quota_owes_nothing() {
        let start = Instant::now();
        let pace = Pace::new(2.0, start, Duration::ZERO);
        for ms in (10..1000).step_by(10) {
            assert_eq!(
                pace.owed(start + ms * MS, (ms * MS).mul_f64(1.7)),
                Duration::ZERO
            );
        }
        // What was left does not add up.
        assert!(pace.owed(start + 1000 * MS, 1800 * MS) > 20 * MS);
    }
}
