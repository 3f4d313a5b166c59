//! A worker's turn on its CPU: between two pieces of work it lets in who is more urgent.
//!
//! The kernel lets a thread in that wakes, unless that one has had more than its share, or the running one
//! is not yet done with the slice that it has begun. Then it looks again when it ticks, which is every 4 ms
//! on many machines, when another thread wakes on that CPU, or when the running one asks how much of the
//! CPU it has had. So an ordinary worker asks, as often as its slices are short
//! ([`schedule`](crate::schedule)), from the first urgent job on. It helps whoever wants the CPU, those too
//! that submit.

use std::thread;
use std::time::{Duration, Instant};

use super::Worker;
use super::pace::Pace;
use crate::Priority;
use crate::clock::Stamp;
use crate::cpu_time;
use crate::crew::{Crew, Rank};
use crate::shared::Shared;

/// It asks no more often: half of the slice that it asks for. The kernel takes some 0.3 µs to answer.
const LOOKS_APART: Duration = Duration::from_micros(50);
/// A background worker that waits looks so often whether its engine ends.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// One that has waited for as long as its work may stand still then works for this part of that time.
const EXCUSED_PART: u32 = 20;

impl Worker {
    /// Between two pieces of work. Costs a load where there are no urgent threads, else a look at the clock.
    #[inline]
    pub(crate) fn give_way(&self, shared: &Shared) {
        if shared.is_beside_urgent() && self.rank != Rank::Urgent {
            self.give_way_to_urgent(shared);
        }
    }

    fn give_way_to_urgent(&self, shared: &Shared) {
        let now = Stamp::now();
        if now.since(self.looked.get()) < LOOKS_APART {
            return;
        }
        if let (Rank::Background, Some(quota)) = (self.rank, shared.options.quota) {
            self.keep_pace(shared, quota);
        }
        self.looked.set(Stamp::now());
        let lies = |urgent: &Crew| urgent.queues[self.node].has(Priority::P0, true);
        if shared.urgent().is_some_and(lies) {
            // One that was woken for it has not had a CPU yet.
            thread::yield_now();
        }
        if self.rank == Rank::Ordinary {
            cpu_time::of_thread();
        }
    }

    /// Leaves of a CPU quota what others need, see [`pace`](super::pace). Where they use it up for as long as
    /// background work may stand still, that goes on all the same for a part of the time.
    #[cold]
    fn keep_pace(&self, shared: &Shared, quota: f64) {
        let patience = shared.options.background_patience;
        let (begun, mut used) = (Instant::now(), cpu_time::of_process());
        let pace = || Box::new(Pace::new(quota, begun, used));
        let pace = self.pace.get_or_init(pace);
        let mut now = begun;
        while now.duration_since(begun) < patience
            && !shared.stop.is_said()
            && !shared.is_hurrying()
        {
            let owed = pace.owed(now, used);
            if owed.is_zero() {
                return;
            }
            thread::sleep(owed.min(LONGEST_WAIT));
            (now, used) = (Instant::now(), cpu_time::of_process());
        }
        pace.excuse(now + patience / EXCUSED_PART);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::current::Current;
    use crate::{Engine, par_chunks_mut, par_for};

    fn last_look() -> Stamp {
        Current::with(|current| {
            let worker = current.and_then(Current::worker);
            worker.expect("this is one").looked.get()
        })
    }

    fn pause() {
        let begun = Stamp::now();
        while begun.elapsed() < LOOKS_APART {
            std::hint::spin_loop();
        }
    }

    /// If a worker of this priority looks inside of `code`.
    fn looks(engine: &Engine, priority: Priority, code: impl FnOnce() + Send) -> bool {
        engine.install_at(priority, || {
            let before = last_look();
            pause();
            code();
            last_look() != before
        })
    }

    #[test]
    fn an_ordinary_worker_lets_others_in_between_pieces_once_there_are_urgent_jobs() {
        let engine = Engine::builder().cpu_workers(1).build().unwrap();
        let of_loop = |priority| looks(&engine, priority, || par_for(0..4, 1, |_| pause()));
        assert!(!of_loop(Priority::P1));
        let urgent = engine.job().priority(Priority::P0).submit(|_| ());
        urgent.unwrap().join().unwrap();
        assert!(of_loop(Priority::P1));
        assert!(!of_loop(Priority::P0));
        let of_chunks = || par_chunks_mut(&mut [0; 4], 1, |_, _| pause());
        assert!(looks(&engine, Priority::P1, of_chunks));
        let of_scope = || {
            crate::scope(|scope| (0..4).for_each(|_| scope.spawn(|_| pause())));
        };
        assert!(looks(&engine, Priority::P1, of_scope));
        let of_closure = || pause();
        assert!(!looks(&engine, Priority::P1, of_closure));
    }

    /// How often a worker of this priority sleeps between pieces that use the CPU alone; none if it has never
    /// thought of it.
    fn sleeps(engine: &Engine, priority: Priority) -> Option<u64> {
        engine.install_at(priority, || {
            let before = cpu_time::switches_of_thread();
            par_for(0..8, 1, |_| pause());
            let after = cpu_time::switches_of_thread();
            let has_pace = Current::with(|current| {
                let worker = current.and_then(Current::worker);
                worker.expect("this is one").pace.get().is_some()
            });
            has_pace.then_some(after.gave_up - before.gave_up)
        })
    }

    fn engine_with_quota(patience: Duration) -> Engine {
        let builder = Engine::builder().cpu_workers(1).quota(0.001);
        builder.background_patience(patience).build().unwrap()
    }

    #[test]
    fn a_background_worker_waits_where_a_quota_is_used_up_beside_urgent_jobs() {
        let engine = engine_with_quota(Duration::from_millis(20));
        assert_eq!(sleeps(&engine, Priority::P2), None);
        let urgent = engine.job().priority(Priority::P0).submit(|_| ());
        urgent.unwrap().join().unwrap();
        assert!(sleeps(&engine, Priority::P2) > Some(0));
        for priority in [Priority::P0, Priority::P1] {
            assert_eq!(sleeps(&engine, priority), None);
        }
    }

    #[test]
    fn a_background_worker_that_may_not_stand_still_waits_for_nobody() {
        let engine = engine_with_quota(Duration::ZERO);
        let urgent = engine.job().priority(Priority::P0).submit(|_| ());
        urgent.unwrap().join().unwrap();
        assert_eq!(sleeps(&engine, Priority::P2), Some(0));
    }

    #[test]
    fn background_work_goes_on_for_a_part_of_the_time_where_others_use_up_the_quota() {
        let engine = engine_with_quota(Duration::from_secs(1));
        let urgent = engine.job().priority(Priority::P0).submit(|_| ());
        urgent.unwrap().join().unwrap();
        // One wait of a second, in pieces, and then an excuse that is longer than all that is left to do.
        let slept = sleeps(&engine, Priority::P2).unwrap();
        let a_wait = 1000 / u64::try_from(LONGEST_WAIT.as_millis()).unwrap();
        assert!((1..=2 * a_wait).contains(&slept), "{slept}");
    }
}
