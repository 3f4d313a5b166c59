//! Many small jobs that are submitted together: one allocation for all, queued as chunks, stamped and
//! counted by the chunk.
//!
//! A worker that has taken a chunk runs its jobs one after the other, and holds the chunk where all
//! can see it meanwhile: a worker that has nothing else takes jobs of it too, from the other end. So
//! none waits behind a long one while somebody is idle. Who runs a job is settled job by job, by its
//! [`slot`](crate::slot).

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crate::cell::{AnyJob, Meta};
use crate::current::{Current, unstopped};
use crate::error::{Interrupted, JobError, Phase};
use crate::job::JobContext;
use crate::protocol::refs::{Inner, Ref};
use crate::schedule::note_lock_of_all;
use crate::shared::Shared;
use crate::slot::{Ended, Slot, error_of};

/// A chunk has no more jobs: few enough that the mean of their times says something.
const CHUNK: usize = 32;
/// Of what is submitted together there are so many chunks for each worker, if it is enough for that.
const CHUNKS_PER_WORKER: usize = 4;

/// Jobs that were submitted together. Apart from the count of its owners, in which every handle that
/// goes writes: who runs them reads it for each.
#[repr(align(128))]
pub(crate) struct Many<T, F> {
    meta: Meta,
    slots: Box<[Slot<T, F>]>,
    /// Who waits for which; few do at once.
    waiters: Waiters,
}

type Waiters = Arc<Mutex<HashMap<usize, Waker>>>;

/// As its handles see it.
pub(crate) trait Outcomes<T>: Send + Sync {
    /// As [`Outcome`](crate::cell::Outcome), of one of the jobs.
    fn take(&self, job: usize, waker: Option<&Waker>) -> Option<Result<T, JobError>>;
    fn is_queued(&self, job: usize) -> bool;
    fn is_ended(&self, job: usize) -> bool;
    /// Runs one of the jobs on the thread that waits for it, if it is still queued and may run there.
    fn run_if_queued(&self, job: usize, current: &Current);
}

/// Some of the jobs, as one entry of a queue.
struct Chunk<T, F> {
    many: Ref<Many<T, F>>,
    jobs: Range<usize>,
}

impl<T, F> Many<T, F>
where
    T: Send + 'static,
    F: FnOnce(&JobContext) -> T + Send + 'static,
{
    pub(crate) fn new(meta: Meta, slots: Box<[Slot<T, F>]>) -> Many<T, F> {
        Many {
            meta,
            slots,
            waiters: Waiters::default(),
        }
    }

    /// As handles see it.
    pub(crate) fn outcomes(this: Ref<Self>) -> Ref<dyn Outcomes<T>> {
        // SAFETY: the same pointer.
        unsafe { this.cast(|many| many as *mut Inner<dyn Outcomes<T>>) }
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// As entries of a queue, for so many workers.
    pub(crate) fn chunks(
        this: &Ref<Self>,
        workers: usize,
    ) -> impl Iterator<Item = Ref<dyn AnyJob>> {
        let jobs = this.slots.len();
        let size = (jobs / (workers * CHUNKS_PER_WORKER)).clamp(1, CHUNK);
        (0..jobs).step_by(size).map(move |first| {
            let many = Ref::clone(this);
            let jobs = first..jobs.min(first + size);
            let chunk = Ref::new(Chunk { many, jobs });
            // SAFETY: the same pointer.
            unsafe { chunk.cast(|chunk| chunk as *mut Inner<dyn AnyJob>) }
        })
    }

    /// Runs those of these jobs that are still queued, unless more urgent ones come; gives how many
    /// those were.
    fn run(&self, jobs: impl Iterator<Item = usize>, current: &Current) -> u64 {
        let shared = current.engine().shared();
        let is_urgent = || shared.main().has_urgent(shared, current.node_index());
        // What others know this thread's part of them by.
        let meta = self.meta.copied();
        let lane = current.lane();
        let started = current.stamp();
        let mut ran = 0;
        // The end of each is made known before the next one begins, and that of the last once nothing
        // is shown as running any more.
        let mut last: Option<(usize, Ended<T>)> = None;
        let tell = |last: Option<(usize, Ended<T>)>| {
            if let Some((job, outcome)) = last {
                // Whoever has joined a job finds it in the metrics.
                shared.note_end(lane, &meta, error_of(&outcome), Phase::Running);
                self.slots[job].end(outcome, || shared.note_gone(lane), || self.wake(job));
            }
        };
        let ((), ended) = current.running(&meta, started, || {
            for job in jobs.take_while(|_| !is_urgent()) {
                let slot = &self.slots[job];
                let Some(body) = slot.claim() else {
                    continue;
                };
                tell(last.take());
                let deadline = meta.deadline();
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    let why = Interrupted::DeadlineExceeded;
                    // No part of a job that runs: it may wait for the end of all others.
                    current.within(None, || {
                        meta.end_unrun((slot, body), why, Some((shared, lane)), || self.wake(job));
                    });
                    continue;
                }
                ran += 1;
                shared.note_start(lane, &meta);
                let context = JobContext::new(&meta, current);
                last = Some((job, context.call(body)));
            }
        });
        tell(last);
        if ran > 0 {
            shared.note_wait(lane, &meta, started.since(meta.submitted), ran);
            let each = ended.since(started) / u32::try_from(ran).unwrap_or(u32::MAX);
            shared.note_run_time(lane, &meta, each, ran);
        }
        ran
    }
}

impl<T, F> Many<T, F> {
    /// Leaves word who waits for a job, and gives who did before.
    fn leave(&self, job: usize, waker: Waker) -> Option<Waker> {
        let waiters = Arc::clone(&self.waiters);
        unstopped(move || lock(&waiters).insert(job, waker))
    }

    fn wake(&self, job: usize) {
        let waiters = Arc::clone(&self.waiters);
        let waker = unstopped(move || lock(&waiters).remove(&job));
        waker.into_iter().for_each(Waker::wake);
    }
}

fn lock(waiters: &Waiters) -> MutexGuard<'_, HashMap<usize, Waker>> {
    note_lock_of_all();
    waiters.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T, F> Outcomes<T> for Many<T, F>
where
    T: Send + 'static,
    F: FnOnce(&JobContext) -> T + Send + 'static,
{
    fn take(&self, job: usize, waker: Option<&Waker>) -> Option<Result<T, JobError>> {
        // A waker is somebody else's code: cloned and dropped outside of the lock.
        let leave = waker.map(|waker| || drop(self.leave(job, waker.clone())));
        self.slots[job].take(leave)
    }

    fn is_queued(&self, job: usize) -> bool {
        self.slots[job].is_queued()
    }

    fn is_ended(&self, job: usize) -> bool {
        self.slots[job].is_ended()
    }

    fn run_if_queued(&self, job: usize, current: &Current) {
        if current.may_run(&self.meta) && self.run(std::iter::once(job), current) > 0 {
            // Its chunk may have no other, and still lie in a queue.
            current.engine().shared().note_dead(self.meta.runs_as);
        }
    }
}

impl<T, F> AnyJob for Chunk<T, F>
where
    T: Send + 'static,
    F: FnOnce(&JobContext) -> T + Send + 'static,
{
    fn meta(&self) -> &Meta {
        &self.many.meta
    }

    fn is_queued(&self) -> bool {
        self.many.slots[self.jobs.clone()]
            .iter()
            .any(Slot::is_queued)
    }

    fn run(&self, job: &Ref<dyn AnyJob>, current: &Current) -> bool {
        let shared = current.engine().shared();
        // Guests are not known to others.
        let holding = shared.main().workers.get(current.lane());
        let holding = holding.filter(|_| self.jobs.len() > 1);
        if let Some(worker) = holding {
            worker.holding.push(job.clone());
            shared.main().wake_one(shared, current.node_index());
            shared.end_queued_if_ending();
        }
        let ran = self.many.run(self.jobs.clone(), current);
        if let Some(worker) = holding {
            worker.holding.pop();
        }
        if self.is_queued() {
            // Something more urgent has come: the rest waits again.
            let main = shared.main();
            main.push_again(shared, current.node_index(), job.clone());
        }
        ran > 0
    }

    fn end_queued(&self, why: Interrupted, engine: Option<&Shared>) -> usize {
        self.meta().with_engine(engine, |engine| {
            let counted = engine.map(|engine| (engine, engine.lane_of_strangers()));
            let ended = self.jobs.clone().filter(|&job| {
                let slot = &self.many.slots[job];
                let Some(body) = slot.claim() else {
                    return false;
                };
                let wake = || self.many.wake(job);
                self.meta().end_unrun((slot, body), why, counted, wake);
                true
            });
            let ended = ended.count();
            if let Some(engine) = engine.filter(|_| ended > 0) {
                engine.note_dead(self.meta().runs_as);
            }
            ended
        })
    }

    fn help(&self, current: &Current) {
        let left = self.jobs.clone().rev();
        let left = left.filter(|&job| self.many.slots[job].is_queued());
        self.many.run(left, current);
    }
}

impl<T, F> fmt::Debug for Chunk<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("meta", &self.many.meta)
            .field("jobs", &self.jobs)
            .finish()
    }
}
