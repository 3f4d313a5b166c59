//! How many jobs an engine has taken that have not ended, whether it still takes any, and who waits
//! for the end of all.
//!
//! One word holds the count and whether intake is closed, so of an admission and the close one comes
//! first: the job is refused, or whoever closed counts it. Whoever waits reads the word under the lock
//! under which those are woken that wait, so an end is seen there or wakes. `tests/loom_end.rs` checks
//! it.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::task::Waker;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, needed, total};

/// In the word: no more jobs are taken.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The jobs that were taken and have not ended.
#[derive(Debug)]
pub struct Drain {
    /// How many, and [`CLOSED`].
    jobs: CachePadded<AtomicUsize>,
    ending: Mutex<Ending>,
}

/// Who waits for the end of all jobs.
#[derive(Debug, Default)]
struct Ending {
    /// From now on whatever is queued is ended.
    ends_queued: bool,
    /// The addresses of jobs that themselves wait for the end of all others, as often as they do.
    excused: Vec<usize>,
    wakers: Vec<Waker>,
}

impl Ending {
    /// How many jobs are waiting for the others.
    fn excused(&self) -> usize {
        self.excused.iter().collect::<HashSet<_>>().len()
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Default for Drain {
    fn default() -> Drain {
        Drain {
            jobs: CachePadded::new(AtomicUsize::new(0)),
            ending: Mutex::new(Ending::default()),
        }
    }
}

impl Drain {
    fn ending(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts so many jobs in; false if no more are taken.
    pub fn admit(&self, jobs: usize) -> bool {
        // ORDERING: relaxed: it publishes nothing, and changes of one word have one order.
        let is_open = self.jobs.fetch_add(jobs, Ordering::Relaxed) & CLOSED == 0;
        if !is_open {
            self.note_gone(jobs);
        }
        is_open
    }

    /// So many jobs that were counted in have ended, and have said so.
    pub fn note_gone(&self, jobs: usize) {
        // ORDERING: release, with the acquire in `wait`: what the job did is visible to who waited
        // for its end.
        let before = self
            .jobs
            .fetch_sub(jobs, needed("drain gone", Ordering::Release));
        if before & CLOSED != 0 {
            let left = (before & !CLOSED) - jobs;
            let mut ending = self.ending();
            if left <= ending.excused() {
                ending.wake();
            }
        }
    }

    /// True if no more are taken.
    pub fn is_closed(&self) -> bool {
        // ORDERING: relaxed: a hint; `admit` decides.
        self.jobs.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Takes no more.
    pub fn close(&self) {
        // ORDERING: sequentially consistent, see `ends_queued`.
        self.jobs.fetch_or(CLOSED, Ordering::SeqCst);
    }

    /// After the close: waits until no job is left but those that wait for this too, with `own` (their
    /// addresses) among them. `wait` asks what it is given until that is true, and arranges that the
    /// waker that it gives there makes it ask again; what it returns is returned.
    pub fn wait(
        &self,
        own: &[usize],
        wait: impl FnOnce(&mut dyn FnMut(&Waker) -> bool) -> bool,
    ) -> bool {
        {
            let mut ending = self.ending();
            ending.excused.extend(own);
            ending.wake();
        }
        let is_drained = wait(&mut |waker| {
            let mut ending = self.ending();
            let excused = if own.is_empty() { 0 } else { ending.excused() };
            // ORDERING: acquire, with the release in `note_gone`. That the newest count is read, or
            // its waker found, is the lock's doing.
            let jobs = self.jobs.load(needed("drain wait", Ordering::Acquire));
            let is_drained = jobs & !CLOSED <= excused;
            if !is_drained && !ending.wakers.iter().any(|known| known.will_wake(waker)) {
                ending.wakers.push(waker.clone());
            }
            is_drained
        });
        let mut ending = self.ending();
        for job in own {
            let at = ending.excused.iter().position(|excused| excused == job);
            ending.excused.swap_remove(at.expect("it was put there"));
        }
        is_drained
    }

    /// After the close, and before the queues are emptied: whatever still comes is to be ended.
    pub fn end_queued(&self) {
        self.ending().ends_queued = true;
    }

    /// True for who has put a job into a queue that may have been emptied before: it ends what is
    /// queued.
    pub fn ends_queued(&self) -> bool {
        // ORDERING: sequentially consistent, with `close`, as the steps of the queues are: the job is
        // seen by who empties them, or this sees that intake is closed. The lock does the rest.
        let jobs = self.jobs.load(total("drain ends queued"));
        jobs & CLOSED != 0 && self.ending().ends_queued
    }
}
