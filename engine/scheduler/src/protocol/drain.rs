//! How many jobs an engine has taken that have not ended, whether it still takes any, and who waits
//! for the end of all.
//!
//! One word counts what was taken and says whether intake is closed, so of an admission and the close
//! one comes first: the job is refused, or whoever closed counts it. What has ended each worker counts
//! for itself, so that jobs that end cost those who bring others nothing. The number of those that are
//! left is the difference; who waits for it is found thus:
//!
//! | a worker that ends a job | whoever closes and waits |
//! | --- | --- |
//! | 1. counts it | 1. says that intake is closed |
//! | 2. fence, which costs nothing: the other side pays | 2. fence, by the [`barrier`] |
//! | 3. if intake is closed: fence, and if none is left, wakes, under the lock | 3. leaves its waker, under the lock, and counts; sleeps if any is left |
//!
//! Of the fences of two one comes first: what the worker has counted is seen, or it sees the close; and
//! of two workers one sees what both have counted. `tests/loom_end.rs` checks it.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::task::Waker;

use crossbeam_utils::CachePadded;

use crate::protocol::barrier;
use crate::protocol::sync::{
    AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, fence_needed, needed, total,
};

/// In the word: no more jobs are taken.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The jobs that were taken and have not ended.
#[derive(Debug)]
pub struct Drain {
    /// How many were ever taken, and [`CLOSED`].
    taken: CachePadded<AtomicUsize>,
    /// How many of them have ended: a word for each who counts alone, and a last one for the others.
    gone: Box<[CachePadded<AtomicUsize>]>,
    /// As [`CLOSED`], for who ends a job: nobody else writes beside it.
    is_closed: AtomicBool,
    /// The kernel has refused the barrier.
    is_unfenced: AtomicBool,
    /// How many jobs wait for the others; see [`Ending`].
    excused: AtomicUsize,
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
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

impl Drain {
    /// With so many who count alone, by their numbers.
    pub fn new(lanes: usize) -> Drain {
        Drain {
            taken: CachePadded::new(AtomicUsize::new(0)),
            gone: (0..=lanes)
                .map(|_| CachePadded::new(AtomicUsize::new(0)))
                .collect(),
            is_closed: AtomicBool::new(false),
            is_unfenced: AtomicBool::new(false),
            excused: AtomicUsize::new(0),
            ending: Mutex::new(Ending::default()),
        }
    }

    fn ending(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts so many jobs in; false if no more are taken.
    pub fn admit(&self, jobs: usize) -> bool {
        // ORDERING: relaxed: it publishes nothing, and changes of one word have one order.
        let is_open = self.taken.fetch_add(jobs, Ordering::Relaxed) & CLOSED == 0;
        if !is_open {
            self.taken.fetch_sub(jobs, Ordering::Relaxed);
            self.look();
        }
        is_open
    }

    /// A job that was counted in has ended, and has said so. `lane` is the number of who counts alone,
    /// or a larger one.
    #[inline]
    pub fn note_gone(&self, lane: usize) {
        // ORDERING: release, with the acquire in `left`: what the job did is visible to who waited
        // for its end.
        let release = needed("drain gone", Ordering::Release);
        let others = self.gone.len() - 1;
        if lane < others {
            let gone = &self.gone[lane];
            gone.store(gone.load(Ordering::Relaxed) + 1, release);
            // ORDERING: with the heavy side in `wait`.
            barrier::light("drain gone fence");
        } else {
            self.gone[others].fetch_add(1, release);
            // ORDERING: with the same.
            fence_needed("drain gone together fence");
        }
        // ORDERING: relaxed: the fences order it.
        if self.is_closed.load(Ordering::Relaxed) {
            self.look();
        }
    }

    /// After the close, when something has changed: wakes who waits, if it is for nothing now.
    #[cold]
    fn look(&self) {
        // ORDERING: with itself in others, and with that in `wait`: of two changes one is seen by
        // whoever makes the other.
        fence_needed("drain look fence");
        // ORDERING: relaxed: the fence orders it.
        if self.left() <= self.excused.load(Ordering::Relaxed) {
            self.ending().wake();
        }
    }

    /// How many are left, or more; after the close those that are.
    fn left(&self) -> usize {
        // ORDERING: acquire, with the release in `note_gone`. Of what is seen as gone it is seen, too,
        // that it was taken, for that was before.
        let acquire = needed("drain left", Ordering::Acquire);
        let gone: usize = self.gone.iter().map(|gone| gone.load(acquire)).sum();
        (self.taken.load(Ordering::Relaxed) & !CLOSED) - gone
    }

    /// True if all that were taken have ended.
    pub fn is_idle(&self) -> bool {
        self.left() == 0
    }

    /// True if no more are taken.
    pub fn is_closed(&self) -> bool {
        // ORDERING: relaxed: a hint; `admit` decides.
        self.taken.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Takes no more.
    pub fn close(&self) {
        // ORDERING: sequentially consistent, see `ends_queued`.
        self.taken.fetch_or(CLOSED, Ordering::SeqCst);
        // ORDERING: relaxed: the barrier in `wait` orders it.
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// True if the end of a job may escape who waits, because the kernel has refused the barrier: it
    /// has to look again by the clock.
    pub fn may_miss(&self) -> bool {
        // ORDERING: relaxed: who asks has set it.
        self.is_unfenced.load(Ordering::Relaxed)
    }

    /// After the close: waits until no job is left but those that wait for this too, with `own` (their
    /// addresses) among them. `wait` asks what it is given until that is true, and arranges that the
    /// waker that it gives there makes it ask again; what it returns is returned.
    pub fn wait(
        &self,
        own: &[usize],
        wait: impl FnOnce(&mut dyn FnMut(&Waker) -> bool) -> bool,
    ) -> bool {
        self.excuse(|excused| excused.extend(own));
        // ORDERING: with the light side in `note_gone`, and with the fence in `look`: whoever ends a
        // job sees that intake is closed and who is excused, or what it has counted is seen.
        if !barrier::heavy("drain wait fence") {
            self.is_unfenced.store(true, Ordering::Relaxed);
        }
        self.ending().wake();
        let is_drained = wait(&mut |waker| {
            let mut ending = self.ending();
            // ORDERING: relaxed: written under the lock.
            let excused = self.excused.load(Ordering::Relaxed);
            let excused = if own.is_empty() { 0 } else { excused };
            let is_drained = self.left() <= excused;
            if self.may_miss() {
                // Whoever waits looks by the clock, each time with a waker of its own.
                ending.wakers.clear();
            }
            if !is_drained && !ending.wakers.iter().any(|known| known.will_wake(waker)) {
                ending.wakers.push(waker.clone());
            }
            is_drained
        });
        self.excuse(|excused| {
            for job in own {
                let at = excused.iter().position(|excused| excused == job);
                excused.swap_remove(at.expect("it was put there"));
            }
        });
        is_drained
    }

    /// Changes which jobs wait for the others.
    fn excuse(&self, change: impl FnOnce(&mut Vec<usize>)) {
        let mut ending = self.ending();
        change(&mut ending.excused);
        let jobs = ending.excused.iter().collect::<HashSet<_>>().len();
        // ORDERING: relaxed: of more the barrier in `wait` orders it; of fewer nobody need know.
        self.excused.store(jobs, Ordering::Relaxed);
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
        let taken = self.taken.load(total("drain ends queued"));
        taken & CLOSED != 0 && self.ending().ends_queued
    }
}
