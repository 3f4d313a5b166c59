//! The engine: what its threads share, how jobs come in, and how it ends.
//!
//! How it ends, in this order: intake stops; what is queued is drained by the workers, or, at the
//! limit and at a drop, ended; running jobs are told at their checkpoints; when none runs any more
//! the threads are told to stop, woken, and joined.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use reiver_topology::NodeId;

use crate::builder::{EngineBuilder, Pinning};
use crate::cell::{AnyJob, Meta, Place};
use crate::current::{Current, block_until};
use crate::error::{JobError, Phase, SubmitError};
use crate::io::{Io, Wanted};
use crate::job::{JobBuilder, JobContext, JobHandle};
use crate::machine::Machine;
use crate::metrics::{Counters, Metrics};
use crate::queues::{NodeQueues, PRIORITIES, Task};
use crate::sleep::Sleepers;
use crate::spawner::{Request, Spawner};
use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::timer::Timer;
use crate::worker::{WorkerFace, run};
use crate::{Class, Priority};

/// Runs jobs and forks on workers grouped by NUMA node.
///
/// Dropping it ends queued jobs as [`JobError::ShutDown`], waits for running ones, and joins its
/// threads; on one of its own workers it does not wait for itself.
///
/// ```
/// use reiver::{Class, Engine};
///
/// let engine = Engine::builder().cpu_workers(2).build()?;
/// let answer = engine.submit(|_| 6 * 7);
/// let text = engine.job().class(Class::Io).submit(|_| std::fs::read_to_string("/etc/hostname"))?;
/// assert_eq!(answer.join()?, 42);
/// let _ = text.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    /// False for what workers and job contexts hold: dropping those ends nothing.
    owns: bool,
}

/// What the threads of an engine share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) machine: Machine,
    pub(crate) workers: Box<[WorkerFace]>,
    /// By node.
    pub(crate) queues: Box<[NodeQueues]>,
    pub(crate) sleepers: Sleepers,
    pub(crate) pinning: Pinning,
    pub(crate) io: Io,
    pub(crate) timer: Timer,
    pub(crate) metrics: Counters,
    pub(crate) spawner: Spawner,
    /// The system gave no threads at all: whoever brings work does it.
    pub(crate) threadless: bool,
    /// By class: how many jobs may wait, and how many do.
    capacity: [Option<usize>; 2],
    queued: [CachePadded<AtomicUsize>; 2],
    /// Jobs that were taken and have not ended.
    unfinished: CachePadded<AtomicUsize>,
    ending: Mutex<Ending>,
    /// Spreads work from outside over nodes where nothing says which is near.
    round_robin: AtomicUsize,
    running: Box<[Mutex<Vec<Running>>]>,
    closed: AtomicBool,
    hurrying: AtomicBool,
    stopped: AtomicBool,
}

/// Who waits for the end of all jobs.
#[derive(Debug, Default)]
struct Ending {
    /// From now on whatever is queued is ended.
    ends_queued: bool,
    /// Jobs that themselves wait for the end of all others.
    excused: usize,
    wakers: Vec<Waker>,
}

#[derive(Debug)]
struct Running {
    job: Arc<dyn AnyJob>,
    started: Instant,
    node: NodeId,
}

/// Names one entry of the jobs that run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunningEntry(*const ());

/// A job that was running when it was asked for.
#[derive(Debug, Clone)]
pub struct RunningJob {
    job: Arc<dyn AnyJob>,
    started: Instant,
    node: NodeId,
}

impl RunningJob {
    /// Its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.job.meta().name.as_deref()
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.job.meta().class
    }

    /// The node of the thread that runs it.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How long ago it began.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What [`Engine::shutdown`] had to leave.
#[derive(Debug, Clone, Default)]
#[must_use = "it says whether everything was finished"]
pub struct ShutdownReport {
    /// Jobs that were still queued at the limit; they ended as [`JobError::ShutDown`].
    pub queued: usize,
    /// Jobs that still ran at the limit.
    pub running: Vec<RunningJob>,
}

impl ShutdownReport {
    /// True if every job had ended by itself.
    pub fn is_clean(&self) -> bool {
        self.queued == 0 && self.running.is_empty()
    }
}

impl Engine {
    /// Settings, with defaults for all.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    pub(crate) fn owning(shared: Arc<Shared>) -> Engine {
        Engine { shared, owns: true }
    }

    /// The same engine, for those who must not end it.
    pub(crate) fn borrowed(shared: Arc<Shared>) -> Engine {
        Engine {
            shared,
            owns: false,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Calls `code` with the engine of the current thread, or the global one.
    pub(crate) fn of_thread<R>(code: impl FnOnce(&Engine) -> R) -> R {
        Current::with(|current| match current {
            Some(current) => code(current.engine()),
            None => code(Engine::global()),
        })
    }

    /// A job to be described further before it is submitted.
    pub fn job(&self) -> JobBuilder<'_> {
        JobBuilder::new(self)
    }

    /// Submits a job of class Cpu and priority P1. One that is not taken, because the engine is
    /// shut down or the queue is full, says so at its [`join`](JobHandle::join).
    pub fn submit<T, F>(&self, body: F) -> JobHandle<T>
    where
        F: FnOnce(&JobContext) -> T + Send + 'static,
        T: Send + 'static,
    {
        self.job().submit(body).unwrap_or_else(|error| {
            JobHandle::never(match error {
                SubmitError::ShutDown => JobError::ShutDown,
                other => JobError::Rejected(other),
            })
        })
    }

    /// Submits many, in order; the same as calling [`submit`](Engine::submit) for each.
    pub fn submit_many<I, F, T>(&self, jobs: I) -> Vec<JobHandle<T>>
    where
        I: IntoIterator<Item = F>,
        F: FnOnce(&JobContext) -> T + Send + 'static,
        T: Send + 'static,
    {
        jobs.into_iter().map(|job| self.submit(job)).collect()
    }

    /// The jobs that run just now.
    pub fn running(&self) -> Vec<RunningJob> {
        self.shared.running_jobs()
    }

    /// What the engine has done since it was built.
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics.snapshot()
    }

    /// Stops taking jobs and waits until those that were taken have ended, for `limit` at the most.
    /// At the limit queued jobs end as [`JobError::ShutDown`], and running ones are told
    /// [`Interrupted::ShutDown`](crate::Interrupted::ShutDown) at their next checkpoint.
    ///
    /// Threads go on: `join`, `scope` and `install` work until the engine is dropped. Called from
    /// one of its own jobs it does not wait for that job, and a worker does other work while it
    /// waits: it returns after the limit where such a job takes longer.
    pub fn shutdown(&self, limit: Duration) -> ShutdownReport {
        let shared = &self.shared;
        shared.close();
        let until = Instant::now().checked_add(limit);
        if shared.wait_drained(until) {
            return ShutdownReport::default();
        }
        let queued = shared.end_queued();
        shared.hurry();
        let own = Current::with(|current| {
            let current = current.filter(|current| current.is_of(shared))?;
            current
                .innermost()
                .map(|job| Arc::as_ptr(&job).cast::<()>())
        });
        let mut running = shared.running_jobs();
        running.retain(|job| Some(Arc::as_ptr(&job.job).cast()) != own);
        ShutdownReport { queued, running }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.owns {
            return;
        }
        let shared = &self.shared;
        shared.close();
        shared.end_queued();
        shared.hurry();
        shared.wait_drained(None);
        // Forks are waited for by whoever made them, who borrows the engine: there are none.
        shared.stop();
        let on_own_thread = Current::with(|current| current.is_some_and(|c| c.is_of(shared)));
        if !on_own_thread {
            for thread in shared.spawner.take_threads() {
                // Threads contain the panics of jobs; one of our own has been reported.
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    #[expect(
        clippy::too_many_arguments,
        reason = "the builder's own, made in one place"
    )]
    pub(crate) fn new(
        machine: Machine,
        workers: Box<[WorkerFace]>,
        sleepers: Sleepers,
        pinning: Pinning,
        capacity: [Option<usize>; 2],
        io: Io,
        timer: Timer,
        metrics: Counters,
        spawner: Spawner,
        threadless: bool,
    ) -> Shared {
        Shared {
            queues: machine
                .nodes
                .iter()
                .map(|_| NodeQueues::default())
                .collect(),
            running: (0..=workers.len()).map(|_| Mutex::default()).collect(),
            machine,
            workers,
            sleepers,
            pinning,
            io,
            timer,
            metrics,
            spawner,
            threadless,
            capacity,
            queued: Default::default(),
            unfinished: CachePadded::default(),
            ending: Mutex::default(),
            round_robin: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            hurrying: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// Takes a job, or says why not.
    pub(crate) fn submit(self: &Arc<Self>, job: Arc<dyn AnyJob>) -> Result<(), SubmitError> {
        let meta = job.meta();
        let (class, priority) = (meta.class, meta.priority);
        if let Err(error) = self.admit(class) {
            self.metrics.note_rejected(class, priority);
            return Err(error);
        }
        self.metrics.note_submitted(class, priority);
        let (node, strict) = match meta.place {
            Place::Any => (self.node_of_caller(), false),
            Place::Prefer(node) => (node, false),
            Place::Strict(node) => (node, true),
        };
        if let Some(token) = &meta.token {
            token.register(&job);
        }
        if self.threadless {
            Current::as_worker(self, |current, _| job.run(current));
            return Ok(());
        }
        if meta
            .deadline
            .is_some_and(|deadline| self.timer.watch(deadline, &job))
        {
            self.spawner.ask(Request::Timer(Arc::downgrade(self)));
        }
        match class {
            Class::Cpu => {
                self.queues[node].push(priority, strict, job);
                if strict {
                    self.wake(self.sleepers.claim(priority, std::iter::once(node)));
                } else {
                    self.wake_one(node, priority);
                }
            }
            Class::Io => {
                if let Wanted::Thread(node) = self.io.push(&self.machine.near[node], job) {
                    self.spawner.ask(Request::Io(Arc::downgrade(self), node));
                }
            }
        }
        if self.is_ending_queued() {
            // It was admitted just before intake stopped, and pushed just after the queues were
            // emptied.
            self.end_queued();
        }
        Ok(())
    }

    /// Counts a job in, if there is room and the engine takes jobs.
    fn admit(&self, class: Class) -> Result<(), SubmitError> {
        // ORDERING: sequentially consistent, with `close`: either this sees that intake has
        // stopped, or whoever stopped it sees this job.
        self.unfinished.fetch_add(1, Ordering::SeqCst);
        let refusal = if self.closed.load(Ordering::SeqCst) {
            Some(SubmitError::ShutDown)
        } else {
            // ORDERING: relaxed: a count that bounds memory and orders nothing.
            let queued = self.queued[class as usize].fetch_add(1, Ordering::Relaxed);
            let full = self.capacity[class as usize].is_some_and(|most| queued >= most);
            if full {
                self.queued[class as usize].fetch_sub(1, Ordering::Relaxed);
            }
            full.then_some(SubmitError::QueueFull)
        };
        match refusal {
            None => Ok(()),
            Some(error) => {
                self.note_gone();
                Err(error)
            }
        }
    }

    /// Pushes a fork from outside.
    pub(crate) fn push_fork(self: &Arc<Self>, node: usize, fork: Task) {
        if self.threadless {
            return Current::as_worker(self, |current, _| run(fork, current));
        }
        self.queues[node].push_fork(fork);
        self.wake_one(node, Priority::P0);
    }

    /// The node for work that says nothing of its own: that of the engine's thread that brings it,
    /// else that of the CPU it comes from, else one after the other.
    pub(crate) fn node_of_caller(&self) -> usize {
        let own = Current::with(|current| {
            current
                .filter(|current| current.is_of(self))
                .map(Current::node_index)
        });
        own.or_else(|| self.machine.node_of_cpu())
            .unwrap_or_else(|| {
                // ORDERING: relaxed: any spread will do.
                self.round_robin.fetch_add(1, Ordering::Relaxed) % self.machine.nodes.len()
            })
    }

    /// Wakes the sleeper nearest to a node, if there is one, for work of this urgency that may be
    /// done on any node; forks are as P0.
    pub(crate) fn wake_one(&self, node: usize, urgency: Priority) {
        let near = self.machine.near[node].iter().copied();
        self.wake(self.sleepers.claim(urgency, near));
    }

    fn wake(&self, worker: Option<usize>) {
        if let Some(worker) = worker {
            self.metrics.note_wake();
            self.workers[worker].unparker.unpark();
        }
    }

    /// A job begins on a thread.
    pub(crate) fn note_start(
        &self,
        lane: usize,
        job: &Arc<dyn AnyJob>,
        started: Instant,
    ) -> RunningEntry {
        let meta = job.meta();
        let wait = started.saturating_duration_since(meta.submitted);
        self.queued[meta.class as usize].fetch_sub(1, Ordering::Relaxed);
        self.metrics
            .note_start(lane, meta.class, meta.priority, wait);
        let node = Current::with(|current| current.map(Current::node));
        let node = node.unwrap_or(self.machine.nodes[0].id);
        self.lane(lane).push(Running {
            job: Arc::clone(job),
            started,
            node,
        });
        RunningEntry(Arc::as_ptr(job).cast())
    }

    pub(crate) fn forget_running(&self, lane: usize, entry: RunningEntry) {
        let mut running = self.lane(lane);
        let is_it = |running: &Running| Arc::as_ptr(&running.job).cast() == entry.0;
        if let Some(index) = running.iter().rposition(is_it) {
            let ended = running.swap_remove(index);
            drop(running);
            let meta = ended.job.meta();
            let time = ended.started.elapsed();
            self.metrics
                .note_run_time(lane, meta.class, meta.priority, time);
        }
    }

    fn lane(&self, lane: usize) -> MutexGuard<'_, Vec<Running>> {
        self.running[lane]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A job has ended, and is about to say so.
    pub(crate) fn note_end(&self, meta: &Meta, error: Option<&JobError>, was: Phase) {
        if was == Phase::Queued {
            self.queued[meta.class as usize].fetch_sub(1, Ordering::Relaxed);
        }
        let block = Current::with(|current| {
            current
                .filter(|current| current.is_of(self))?
                .worker()
                .map(|worker| worker.index())
        });
        let nobody = self.workers.len();
        self.metrics.note_end(
            block.unwrap_or(nobody),
            meta.class,
            meta.priority,
            error,
            was,
        );
    }

    /// A job that was counted in has ended, and has said so.
    pub(crate) fn note_gone(&self) {
        // ORDERING: sequentially consistent, with `wait_drained`: either that sees the count, or
        // this sees that somebody waits.
        let left = self.unfinished.fetch_sub(1, Ordering::SeqCst) - 1;
        if self.closed.load(Ordering::SeqCst) {
            let mut ending = self.ending();
            if left <= ending.excused {
                Self::wake_waiting(&mut ending);
            }
        }
    }

    fn ending(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_waiting(ending: &mut Ending) {
        ending.wakers.drain(..).for_each(Waker::wake);
    }

    fn close(&self) {
        // ORDERING: see `admit`.
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Waits until no job is left but those that wait for this too; false at the limit. A CPU
    /// worker does other work meanwhile, so that one in a job of its own drains what is queued.
    fn wait_drained(&self, until: Option<Instant>) -> bool {
        let own = Current::with(|current| {
            current
                .filter(|current| current.is_of(self))
                .map_or(0, Current::depth)
        });
        {
            let mut ending = self.ending();
            ending.excused += own;
            Self::wake_waiting(&mut ending);
        }
        let is_drained = block_until(Priority::P2, until, |waker| {
            let mut ending = self.ending();
            let excused = if own > 0 { ending.excused } else { 0 };
            // ORDERING: see `note_gone`.
            let is_drained = self.unfinished.load(Ordering::SeqCst) <= excused;
            if !is_drained && !ending.wakers.iter().any(|known| known.will_wake(waker)) {
                ending.wakers.push(waker.clone());
            }
            is_drained
        });
        self.ending().excused -= own;
        is_drained
    }

    /// Ends all that is queued, and from now on whatever still comes; forks stay.
    fn end_queued(&self) -> usize {
        self.ending().ends_queued = true;
        let mut jobs = self.io.drain();
        for queues in &self.queues {
            for priority in PRIORITIES {
                while let Some(task) = queues.take(priority, true) {
                    match task {
                        Task::Job(job) => jobs.push(job),
                        Task::Fork(_) => queues.push_fork(task),
                    }
                }
            }
        }
        jobs.iter()
            .filter(|job| job.end_queued(JobError::ShutDown))
            .count()
    }

    fn is_ending_queued(&self) -> bool {
        // ORDERING: sequentially consistent, see `admit`; the flag behind the lock is set before
        // the queues are emptied.
        self.closed.load(Ordering::SeqCst) && self.ending().ends_queued
    }

    fn running_jobs(&self) -> Vec<RunningJob> {
        let mut jobs = Vec::new();
        for lane in 0..self.running.len() {
            jobs.extend(self.lane(lane).iter().map(|running| RunningJob {
                job: Arc::clone(&running.job),
                started: running.started,
                node: running.node,
            }));
        }
        jobs
    }

    /// From now on checkpoints tell running jobs to end.
    fn hurry(&self) {
        // ORDERING: relaxed: a wish; nothing is published by it.
        self.hurrying.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_hurrying(&self) -> bool {
        // ORDERING: relaxed, see `hurry`.
        self.hurrying.load(Ordering::Relaxed)
    }

    /// Ends the threads once they have nothing to do.
    fn stop(&self) {
        // ORDERING: release, with the acquire in `is_stopped`; the wakes below make it seen.
        self.stopped.store(true, Ordering::Release);
        self.workers
            .iter()
            .for_each(|worker| worker.unparker.unpark());
        self.io.stop();
        self.timer.stop();
        self.spawner.ask(Request::Stop);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        // ORDERING: acquire, see `stop`.
        self.stopped.load(Ordering::Acquire)
    }
}

/// Names of priorities and classes in the order of their numbers, for whoever indexes by them.
const _: () = assert!(Priority::P0 as usize == 0 && Class::Io as usize == 1);
