//! What the threads of an engine share: how work comes in, who is woken for it, what is counted,
//! and how its end is waited for.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crossbeam_utils::CachePadded;
use reiver_topology::NodeId;

use crate::builder::Pinning;
use crate::cell::{AnyJob, Meta, Place};
use crate::current::{Current, block_until};
use crate::engine::RunningJob;
use crate::error::{JobError, Phase, SubmitError};
use crate::fork::Fork;
use crate::io::{Io, Wanted};
use crate::machine::Machine;
use crate::metrics::Counters;
use crate::panics::contain;
use crate::queues::{NodeQueues, PRIORITIES, Task};
use crate::room::{Entry, Room};
use crate::sleep::Sleepers;
use crate::spares::Spares;
use crate::spawner::{Request, Spawner};
use crate::sync::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::timer::Timer;
use crate::worker::{WorkerFace, run};
use crate::{Class, Priority};

/// What the threads of an engine share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) machine: Machine,
    /// Those that are always there, then the spares.
    pub(crate) workers: Box<[WorkerFace]>,
    /// By node.
    pub(crate) spares: Box<[Spares]>,
    /// The numbers of the spares of each node.
    spare_numbers: Box<[Range<usize>]>,
    /// How many spares work just now.
    active_spares: AtomicUsize,
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
    /// By class: the jobs that wait.
    pub(crate) rooms: [Room; 2],
    /// By class: jobs that have left their queue other than by its end. What they left there is swept
    /// out when it is most of it.
    dead: [AtomicUsize; 2],
    sweeping: Mutex<()>,
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
    /// The addresses of jobs that themselves wait for the end of all others, as often as they do.
    excused: Vec<usize>,
    wakers: Vec<Waker>,
}

impl Ending {
    /// How many jobs are waiting for the others.
    fn excused(&self) -> usize {
        self.excused.iter().collect::<HashSet<_>>().len()
    }
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

impl Shared {
    #[expect(
        clippy::too_many_arguments,
        reason = "the builder's own, made in one place"
    )]
    pub(crate) fn new(
        machine: Machine,
        workers: Box<[WorkerFace]>,
        spares: Vec<(Range<usize>, Spares)>,
        sleepers: Sleepers,
        pinning: Pinning,
        rooms: [Room; 2],
        io: Io,
        timer: Timer,
        metrics: Counters,
        spawner: Spawner,
        threadless: bool,
    ) -> Shared {
        let (spare_numbers, spares): (Vec<_>, Vec<_>) = spares.into_iter().unzip();
        Shared {
            spares: spares.into(),
            spare_numbers: spare_numbers.into(),
            active_spares: AtomicUsize::new(0),
            dead: Default::default(),
            sweeping: Mutex::default(),
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
            rooms,
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
        let entered = self.enter(meta.class);
        let admitted = entered.and_then(|entry| self.admit(meta.class, entry).map(|()| entry));
        match admitted {
            Ok(Entry::Queued) => self.take(job),
            Ok(Entry::Caller) => self.run_on_caller(job),
            Err(error) => {
                self.metrics.note_rejected(meta.class, meta.priority);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes a job for which its room was entered, or says why not.
    pub(crate) fn submit_entered(
        self: &Arc<Self>,
        job: Arc<dyn AnyJob>,
    ) -> Result<(), SubmitError> {
        let meta = job.meta();
        let admitted = self.admit(meta.class, Entry::Queued);
        match &admitted {
            Ok(()) => self.take(job),
            Err(_) => self.metrics.note_rejected(meta.class, meta.priority),
        }
        admitted
    }

    /// Queues a job that was admitted.
    fn take(self: &Arc<Self>, job: Arc<dyn AnyJob>) {
        let meta = job.meta();
        let (class, priority) = (meta.class, meta.priority);
        self.metrics.note_submitted(class, priority);
        let (node, strict) = match meta.place {
            Place::Any => (self.node_of_caller(), false),
            Place::Prefer(node) => (node, false),
            Place::Strict(node) => (node, true),
        };
        if meta
            .token
            .as_ref()
            .is_some_and(|token| token.register(&job))
        {
            // It was cancelled before it came.
            return;
        }
        if self.threadless {
            Current::as_worker(self, |current, _| job.run(current));
            return;
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
                    self.wake(self.sleepers.claim(std::iter::once(node)));
                } else {
                    self.wake_one(node);
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
    }

    /// Counts a job in for which its room was entered, if the engine takes jobs.
    pub(crate) fn admit(&self, class: Class, entry: Entry) -> Result<(), SubmitError> {
        // ORDERING: sequentially consistent, with `close`: either this sees that intake has
        // stopped, or whoever stopped it sees this job.
        self.unfinished.fetch_add(1, Ordering::SeqCst);
        if !self.is_closed() {
            return Ok(());
        }
        if entry == Entry::Queued {
            self.room(class).leave();
        }
        self.note_gone();
        Err(SubmitError::ShutDown)
    }

    /// Pushes a fork from outside.
    pub(crate) fn push_fork(self: &Arc<Self>, node: usize, fork: Fork) {
        if self.threadless {
            return Current::as_worker(self, |current, _| run(Task::Fork(fork), current));
        }
        self.queues[node].push_fork(fork);
        self.wake_one(node);
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

    /// Wakes the sleeper nearest to a node, if there is one and nobody searches, for work that may be
    /// done on any node.
    pub(crate) fn wake_one(&self, node: usize) {
        let near = self.machine.near[node].iter().copied();
        self.wake(self.sleepers.claim_for_any(near));
    }

    /// A worker of a node that searched has found something, or searches no more. Others may have
    /// relied on it, or woken it, for work that it now leaves: somebody else is woken for what there
    /// is, one of its own node for what only those may do.
    pub(crate) fn pass_on(&self, node: usize) {
        // ORDERING: with the fence in `claim_for_any`: whoever relied on this worker's search pushed
        // before, and this sees it.
        fence(Ordering::SeqCst);
        if !self.sleepers.anybody_sleeps() {
            return;
        }
        if self.queues[node].has_strict_jobs() {
            self.wake(self.sleepers.claim(std::iter::once(node)));
        } else if self.has_work() {
            self.wake_one(node);
        }
    }

    /// True if there is something that anybody may take.
    fn has_work(&self) -> bool {
        let has = |queues: &NodeQueues| queues.has_forks() || queues.has_jobs(false);
        self.queues.iter().any(has)
            || self.workers.iter().any(|worker| !worker.stealer.is_empty())
            || self
                .workers
                .iter()
                .any(|worker| worker.robber.is_worth_it())
    }

    /// The spares of a node, if any work just now.
    pub(crate) fn active_spares(&self, node: usize) -> Range<usize> {
        // ORDERING: relaxed: a spare is counted before it pushes anything, and who must not miss
        // what it pushes has the fence of the sleepers in between.
        match self.active_spares.load(Ordering::Relaxed) {
            0 => 0..0,
            _ => self.spare_numbers[node].clone(),
        }
    }

    /// True if at least half of the spares of a node are taken.
    pub(crate) fn are_few_spares(&self, node: usize) -> bool {
        2 * self.spares[node].replaced() >= self.spare_numbers[node].len()
    }

    /// So many more spares work, or fewer.
    pub(crate) fn note_spares(&self, more: isize) {
        // ORDERING: relaxed, see `active_spares`.
        self.active_spares
            .fetch_add(more.cast_unsigned(), Ordering::Relaxed);
    }

    /// Runs the forks that came from outside, whatever they wait for, and those that they begin: the
    /// engine has stopped, or the thread is about to leave it, and nobody else may come to them.
    pub(crate) fn finish_forks(&self, current: &Current) {
        let own = || current.worker()?.pop(self);
        let from_outside = || self.queues.iter().find_map(NodeQueues::take_fork);
        while let Some(fork) = own().or_else(from_outside) {
            run(Task::Fork(fork), current);
        }
    }

    /// A job of a class has ended, or begun, that still lies in a queue.
    pub(crate) fn note_dead(&self, class: Class) {
        /// Fewer are not worth a sweep.
        const FEW: usize = 4096;
        let counter = &self.dead[class as usize];
        // ORDERING: relaxed: a hint for when to look.
        let dead = counter.fetch_add(1, Ordering::Relaxed) + 1;
        let live = self.room(class).queued();
        if dead < FEW.max(live) {
            return;
        }
        let Ok(_sweeping) = self.sweeping.try_lock() else {
            return;
        };
        counter.store(0, Ordering::Relaxed);
        if class == Class::Io {
            self.io.sweep();
            return;
        }
        for (node, queues) in self.queues.iter().enumerate() {
            let left = queues.sweep(|job| job.meta().state.is_queued());
            // A worker that looked meanwhile may have missed one.
            for _ in 0..left.min(self.workers.len()) {
                self.pass_on(node);
            }
        }
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
        self.room(meta.class).leave();
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
            self.room(meta.class).leave();
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
            if left <= ending.excused() {
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

    pub(crate) fn close(&self) {
        // ORDERING: see `admit`.
        self.closed.store(true, Ordering::SeqCst);
        self.rooms.iter().for_each(Room::wake_all);
    }

    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: see `admit`.
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until no job is left but those that wait for this too; false at the limit. A CPU
    /// worker does other work meanwhile, so that one in a job of its own drains what is queued.
    pub(crate) fn wait_drained(&self, until: Option<Instant>) -> bool {
        let own = self.jobs_of_thread();
        {
            let mut ending = self.ending();
            ending.excused.extend(&own);
            Self::wake_waiting(&mut ending);
        }
        let is_drained = block_until(until, |waker| {
            let mut ending = self.ending();
            let excused = if own.is_empty() { 0 } else { ending.excused() };
            // ORDERING: see `note_gone`.
            let is_drained = self.unfinished.load(Ordering::SeqCst) <= excused;
            if !is_drained && !ending.wakers.iter().any(|known| known.will_wake(waker)) {
                ending.wakers.push(waker.clone());
            }
            is_drained
        });
        let mut ending = self.ending();
        for job in own {
            let at = ending.excused.iter().position(|&excused| excused == job);
            ending.excused.swap_remove(at.expect("it was put there"));
        }
        is_drained
    }

    /// The addresses of the engine's jobs that the current thread is in.
    pub(crate) fn jobs_of_thread(&self) -> Vec<usize> {
        Current::with(|current| current.map_or(Vec::new(), |current| current.jobs_of(self)))
    }

    /// Ends all jobs that are queued, and from now on whatever still comes.
    pub(crate) fn end_queued(&self) -> usize {
        self.ending().ends_queued = true;
        let mut jobs = self.io.drain();
        for queues in &self.queues {
            for priority in PRIORITIES {
                jobs.extend(std::iter::from_fn(|| queues.take(priority, true)));
            }
        }
        let ended = jobs.into_iter().filter(|job| {
            let job = Arc::clone(job);
            let mut ended = false;
            contain(|| ended = job.end_queued(JobError::ShutDown));
            ended
        });
        ended.map(|job| contain(|| drop(job))).count()
    }

    fn is_ending_queued(&self) -> bool {
        // ORDERING: sequentially consistent, see `admit`; the flag behind the lock is set before
        // the queues are emptied.
        self.closed.load(Ordering::SeqCst) && self.ending().ends_queued
    }

    pub(crate) fn running_jobs(&self) -> Vec<RunningJob> {
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
    pub(crate) fn hurry(&self) {
        // ORDERING: relaxed: a wish; nothing is published by it.
        self.hurrying.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_hurrying(&self) -> bool {
        // ORDERING: relaxed, see `hurry`.
        self.hurrying.load(Ordering::Relaxed)
    }

    /// Ends the threads once they have nothing to do.
    pub(crate) fn stop(&self) {
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
