//! What the threads of an engine share: how work comes in, who is woken for it, what is counted,
//! and how its end is waited for.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use reiver_topology::NodeId;

use crate::builder::Pinning;
use crate::cell::{AnyJob, Meta, Place};
use crate::current::{Current, block_until};
use crate::drain::Drain;
use crate::engine::RunningJob;
use crate::error::{JobError, Phase, SubmitError};
use crate::fork::Fork;
use crate::io::{Io, Wanted};
use crate::machine::Machine;
use crate::metrics::Counters;
use crate::panics::contain;
use crate::queues::{NodeQueues, PRIORITIES, Task};
use crate::sleep::Sleepers;
use crate::spares::Spares;
use crate::spawner::{Request, Spawner};
use crate::stop::Stop;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};
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
    /// By class: how many jobs may wait, and how many do.
    capacity: [Option<usize>; 2],
    queued: [CachePadded<AtomicUsize>; 2],
    /// By class: jobs that have left their queue other than by its end. What they left there is swept
    /// out when it is most of it.
    dead: [AtomicUsize; 2],
    sweeping: Mutex<()>,
    /// Jobs that were taken and have not ended.
    drain: Drain,
    /// Spreads work from outside over nodes where nothing says which is near.
    round_robin: AtomicUsize,
    running: Box<[Mutex<Vec<Running>>]>,
    hurrying: AtomicBool,
    pub(crate) stop: Stop,
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
        capacity: [Option<usize>; 2],
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
            capacity,
            queued: Default::default(),
            drain: Drain::default(),
            round_robin: AtomicUsize::new(0),
            hurrying: AtomicBool::new(false),
            stop: Stop::default(),
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
        if meta
            .token
            .as_ref()
            .is_some_and(|token| token.register(&job))
        {
            // It was cancelled before it came.
            return Ok(());
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
        if self.drain.ends_queued() {
            // It was admitted just before intake stopped, and pushed just after the queues were
            // emptied.
            self.end_queued();
        }
        Ok(())
    }

    /// Counts a job in, if there is room and the engine takes jobs.
    fn admit(&self, class: Class) -> Result<(), SubmitError> {
        if !self.drain.admit() {
            return Err(SubmitError::ShutDown);
        }
        // ORDERING: relaxed: a count that bounds memory and orders nothing.
        let queued = self.queued[class as usize].fetch_add(1, Ordering::Relaxed);
        if self.capacity[class as usize].is_some_and(|most| queued >= most) {
            self.queued[class as usize].fetch_sub(1, Ordering::Relaxed);
            self.note_gone();
            return Err(SubmitError::QueueFull);
        }
        Ok(())
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
        let near = self.machine.near[node].iter().copied();
        let has_strict = || self.queues[node].has_strict_jobs();
        let has_work = || self.has_work();
        let woken = self.sleepers.pass_on(node, near, has_strict, has_work);
        self.wake(woken);
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

    /// So many more spares work, or fewer.
    pub(crate) fn note_spares(&self, more: isize) {
        // ORDERING: relaxed, see `active_spares`.
        self.active_spares
            .fetch_add(more.cast_unsigned(), Ordering::Relaxed);
    }

    /// Runs the forks that came from outside, whatever they wait for: the engine has stopped.
    pub(crate) fn finish_forks(&self, current: &Current) {
        while let Some(fork) = self.queues.iter().find_map(NodeQueues::take_fork) {
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
        let live = self.queued[class as usize].load(Ordering::Relaxed);
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
        self.drain.note_gone();
    }

    pub(crate) fn close(&self) {
        self.drain.close();
    }

    /// Waits until no job is left but those that wait for this too; false at the limit. A CPU
    /// worker does other work meanwhile, so that one in a job of its own drains what is queued.
    pub(crate) fn wait_drained(&self, until: Option<Instant>) -> bool {
        let own = self.jobs_of_thread();
        self.drain
            .wait(&own, |is_drained| block_until(until, is_drained))
    }

    /// The addresses of the engine's jobs that the current thread is in.
    pub(crate) fn jobs_of_thread(&self) -> Vec<usize> {
        Current::with(|current| current.map_or(Vec::new(), |current| current.jobs_of(self)))
    }

    /// Ends all jobs that are queued, and from now on whatever still comes.
    pub(crate) fn end_queued(&self) -> usize {
        self.drain.end_queued();
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
        self.stop.say();
        self.workers
            .iter()
            .for_each(|worker| worker.unparker.unpark());
        self.io.stop();
        self.timer.stop();
        self.spawner.ask(Request::Stop);
    }
}

/// Names of priorities and classes in the order of their numbers, for whoever indexes by them.
const _: () = assert!(Priority::P0 as usize == 0 && Class::Io as usize == 1);
