//! What the threads of an engine share: how work comes in, who is woken for it, what is counted,
//! and how its end is waited for.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::admission::{Closing, Rules};
#[cfg(feature = "tokio")]
use crate::asyncs::Asyncs;
use crate::breaker::Verdict;
use crate::builder::Pinning;
use crate::cell::{AnyJob, Meta, Place};
use crate::current::{Current, block_until};
use crate::error::{Interrupted, JobError, Phase, SubmitError};
use crate::fork::Fork;
use crate::io::{Io, Wanted};
use crate::machine::{Machine, WorkerNode};
use crate::metrics::Counters;
use crate::panics::contain;
use crate::protocol::drain::Drain;
use crate::protocol::refs::Ref;
use crate::protocol::sleep::Sleepers;
use crate::protocol::stop::Stop;
use crate::protocol::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::queues::{NodeQueues, PRIORITIES, Task};
use crate::room::{Entry, Room};
use crate::running::{AllRunning, RunningJob};
use crate::spares::Spares;
use crate::spawner::{Request, Spawner};
use crate::timer::Timer;
use crate::watchdog::Watchdog;
use crate::worker::{WorkerFace, run};
use crate::{Class, Priority};

/// How often who waits for the end of all jobs looks whether they have, where nobody may tell it.
const LOOKS_AGAIN: Duration = Duration::from_millis(1);

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
    /// What jobs have to pass before that, if there is anything.
    pub(crate) rules: Option<Rules>,
    pub(crate) closing: Closing,
    pub(crate) watchdog: Option<Watchdog>,
    #[cfg(feature = "tokio")]
    pub(crate) asyncs: Asyncs,
    /// By class: jobs that have left their queue other than by its end. What they left there is swept
    /// out when it is most of it.
    dead: [AtomicUsize; 2],
    sweeping: Mutex<()>,
    /// Jobs that were taken and have not ended.
    drain: Drain,
    /// Spreads work from outside over nodes where nothing says which is near.
    round_robin: AtomicUsize,
    pub(crate) running: AllRunning,
    hurrying: AtomicBool,
    /// How many workers may not use the CPUs that they were put on.
    displaced: AtomicUsize,
    pub(crate) stop: Stop,
}

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
        rules: Option<Rules>,
        watchdog: Option<Watchdog>,
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
            running: AllRunning::default(),
            drain: Drain::new(workers.len()),
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
            rules,
            closing: Closing::default(),
            watchdog,
            #[cfg(feature = "tokio")]
            asyncs: Asyncs::default(),
            round_robin: AtomicUsize::new(0),
            hurrying: AtomicBool::new(false),
            displaced: AtomicUsize::new(0),
            stop: Stop::default(),
        }
    }

    /// Takes a job, or says why not.
    pub(crate) fn submit(self: &Arc<Self>, job: Ref<dyn AnyJob>) -> Result<(), SubmitError> {
        let meta = job.meta();
        let entered = self.enter(meta);
        let admitted = entered.and_then(|entry| self.admit(meta.class, entry).map(|()| entry));
        match admitted {
            Ok(Entry::Queued) => self.take(job),
            Ok(Entry::Caller) => self.run_on_caller(job),
            Ok(Entry::Late) => self.end_late(&*job),
            Err(error) => {
                self.note_rejected(meta, &error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes a job for which its room was entered, or says why not.
    pub(crate) fn submit_entered(
        self: &Arc<Self>,
        job: Ref<dyn AnyJob>,
    ) -> Result<(), SubmitError> {
        let meta = job.meta();
        let admitted = self.admit(meta.class, Entry::Queued);
        match &admitted {
            Ok(()) => self.take(job),
            Err(error) => self.note_rejected(meta, error),
        }
        admitted
    }

    /// A job is not taken: it leaves what it has passed.
    pub(crate) fn note_rejected(&self, meta: &Meta, why: &SubmitError) {
        if let Some(pass) = meta.pass() {
            pass.leave(Verdict::None);
        }
        self.metrics
            .note_rejected(meta.class, meta.priority, why, 1);
    }

    /// Queues a job that was admitted.
    fn take(self: &Arc<Self>, job: Ref<dyn AnyJob>) {
        let meta = job.meta();
        let (class, priority) = (meta.class, meta.priority);
        self.metrics.note_submitted(class, priority, 1);
        self.note_watched();
        let (node, strict) = match meta.place {
            Place::Any => (self.node_of_caller(), false),
            Place::Prefer(node) => (node as usize, false),
            Place::Strict(node) => (node as usize, true),
        };
        if meta.token().is_some_and(|token| token.register(&job)) {
            // It was cancelled before it came.
            return;
        }
        if self.threadless {
            Current::as_worker(self, |current, _| job.run(&job, current));
            return;
        }
        if meta
            .deadline()
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
    }

    /// Takes so many jobs, as entries of a queue of any node, if the engine takes any.
    pub(crate) fn submit_many(
        self: &Arc<Self>,
        meta: &Meta,
        jobs: usize,
        entries: impl Iterator<Item = Ref<dyn AnyJob>>,
    ) -> Result<(), SubmitError> {
        let (class, priority) = (meta.class, meta.priority);
        if !self.drain.admit(jobs) {
            let why = SubmitError::ShutDown;
            self.metrics
                .note_rejected(class, priority, &why, jobs as u64);
            return Err(why);
        }
        self.metrics.note_submitted(class, priority, jobs as u64);
        let node = self.node_of_caller();
        let mut pushed = 0;
        for entry in entries {
            let watched = |deadline| self.timer.watch(deadline, &entry);
            if meta.deadline().is_some_and(watched) {
                self.spawner.ask(Request::Timer(Arc::downgrade(self)));
            }
            self.queues[node].push(priority, false, entry);
            pushed += 1;
        }
        if self.threadless {
            // None before all are there: one that waits for all has to find the others.
            Current::as_worker(self, |current, _| {
                let next = || self.queues[node].take(priority, true);
                std::iter::from_fn(next).for_each(|job| run(Task::Job(job), current));
            });
            return Ok(());
        }
        // Whoever wakes and finds something wakes another one; but the more begin at once the sooner.
        let mut wakes = 0..pushed.min(self.workers.len());
        while wakes.next().is_some() && self.wake_one(node) {}
        if self.drain.ends_queued() {
            self.end_queued();
        }
        Ok(())
    }

    /// A job was counted in, which the watchdog is to watch if there is one.
    pub(crate) fn note_watched(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.note_job();
        }
    }

    /// True if all jobs that were taken have ended.
    pub(crate) fn is_idle(&self) -> bool {
        self.drain.is_idle()
    }

    /// Counts a job in for which its room was entered, if the engine takes jobs.
    pub(crate) fn admit(&self, class: Class, entry: Entry) -> Result<(), SubmitError> {
        if self.drain.admit(1) {
            return Ok(());
        }
        if entry == Entry::Queued {
            self.room(class).leave();
        }
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
    /// done on any node. True if it woke one.
    pub(crate) fn wake_one(&self, node: usize) -> bool {
        let near = self.machine.near[node].iter().copied();
        let sleeper = self.sleepers.claim_for_any(near);
        self.wake(sleeper);
        sleeper.is_some()
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
        let lies = |queues: &NodeQueues| queues.has_forks() || queues.has_jobs(false);
        // The look at a private list disturbs its owner, and so comes last.
        let is_held = |worker: &WorkerFace| worker.has_chunk() || worker.robber.is_worth_it();
        let mut nodes = 0..self.queues.len();
        self.queues.iter().any(lies)
            || nodes.clone().any(|node| self.has_forks(node))
            || nodes.any(|node| self.workers_of(node).any(is_held))
    }

    /// True if there are P0 jobs that a worker of this node may take.
    pub(crate) fn has_urgent(&self, node: usize) -> bool {
        let near = self.machine.near[node].iter();
        let mut near = near.map(|&other| (&self.queues[other], other == node));
        near.any(|(queues, is_own)| queues.has(Priority::P0, is_own))
    }

    /// True if other nodes may take something from this one.
    pub(crate) fn has_work_at(&self, node: usize) -> bool {
        let queues = &self.queues[node];
        queues.has_forks() || queues.has_jobs(false) || self.has_forks(node)
    }

    /// True if a worker of the node, or a spare, has forks in its deque.
    pub(crate) fn has_forks(&self, node: usize) -> bool {
        self.workers_of(node).any(WorkerFace::has_forks)
    }

    /// True if a worker or a spare has forks that nobody has asked for.
    pub(crate) fn has_private_forks(&self) -> bool {
        let mut nodes = 0..self.machine.nodes.len();
        nodes.any(|node| {
            self.workers_of(node)
                .any(|worker| worker.robber.is_worth_it())
        })
    }

    /// The workers of a node, and its spares if any work.
    fn workers_of(&self, node: usize) -> impl Iterator<Item = &WorkerFace> {
        let WorkerNode { first, workers, .. } = self.machine.nodes[node];
        let numbers = (first..first + workers).chain(self.active_spares(node));
        numbers.map(|number| &self.workers[number])
    }

    /// A worker of a node that has nothing has taken a job of another node: it fetches more of them for
    /// its mates.
    pub(crate) fn fetch_half(&self, from: usize, home: usize) {
        let (from, to) = (&self.queues[from], &self.queues[home]);
        if from.move_half(Priority::P1, to) {
            // While they were on their way nobody saw them, nor did who empties the queues.
            self.wake_one(home);
            self.end_queued_if_ending();
        }
    }

    /// What was taken from a queue and is not done goes back, or to the queue of another node.
    pub(crate) fn push_again(&self, node: usize, job: Ref<dyn AnyJob>) {
        let priority = job.meta().priority;
        self.queues[node].push(priority, false, job);
        self.wake_one(node);
        self.end_queued_if_ending();
    }

    /// For who has shown queued jobs where they may have been looked for in vain.
    pub(crate) fn end_queued_if_ending(&self) {
        if self.drain.ends_queued() {
            self.end_queued();
        }
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
        let queued = self.queued(class);
        if dead < FEW.max(queued / 2) {
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
            let left = queues.sweep(|job| job.is_queued());
            // A worker that looked meanwhile may have missed one.
            for _ in 0..left.min(self.workers.len()) {
                self.pass_on(node);
            }
        }
    }

    /// About how many jobs lie in the queues of a class, dead ones among them.
    fn queued(&self, class: Class) -> usize {
        match class {
            Class::Cpu => self.queues.iter().map(NodeQueues::len).sum(),
            Class::Io => self.io.len(),
        }
    }

    fn wake(&self, worker: Option<usize>) {
        if let Some(worker) = worker {
            self.metrics.note_wake();
            self.workers[worker].unparker.unpark();
        }
    }

    /// Where threads count that are no CPU workers.
    pub(crate) fn lane_of_strangers(&self) -> usize {
        self.workers.len()
    }

    /// A job begins on a thread.
    pub(crate) fn note_start(&self, lane: usize, meta: &Meta) {
        self.room(meta.class).leave();
        self.metrics.note_start(lane, meta.class, meta.priority);
    }

    /// So many jobs that have begun had waited so long.
    pub(crate) fn note_wait(&self, lane: usize, meta: &Meta, wait: Duration, jobs: u64) {
        self.metrics
            .note_wait(lane, meta.class, meta.priority, wait, jobs);
    }

    /// So many jobs have taken so long each.
    pub(crate) fn note_run_time(&self, lane: usize, meta: &Meta, time: Duration, jobs: u64) {
        self.metrics
            .note_run_time(lane, meta.class, meta.priority, time, jobs);
    }

    /// A job has ended, and is about to say so.
    pub(crate) fn note_end(&self, lane: usize, meta: &Meta, error: Option<&JobError>, was: Phase) {
        if was == Phase::Queued {
            self.room(meta.class).leave();
        }
        self.metrics
            .note_end(lane, meta.class, meta.priority, error, was);
    }

    /// A job that was counted in has ended, and has said so.
    pub(crate) fn note_gone(&self, lane: usize) {
        self.drain.note_gone(lane);
    }

    pub(crate) fn close(&self) {
        self.drain.close();
        self.rooms.iter().for_each(Room::wake_all);
        self.closing.tell();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.drain.is_closed()
    }

    /// Waits until no job is left but those that wait for this too; false at the limit. A CPU
    /// worker does other work meanwhile, so that one in a job of its own drains what is queued.
    pub(crate) fn wait_drained(&self, until: Option<Instant>) -> bool {
        let own = self.jobs_of_thread();
        self.drain.wait(&own, |is_drained| {
            while self.drain.may_miss() {
                let next = Instant::now() + LOOKS_AGAIN;
                if until.is_some_and(|until| until < next) {
                    break;
                }
                if block_until(Some(next), &mut *is_drained) {
                    return true;
                }
            }
            block_until(until, is_drained)
        })
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
        let held = self.workers.iter().flat_map(|worker| worker.holding.all());
        jobs.extend(held);
        let ended = jobs.into_iter().map(|job| {
            let mut ended = 0;
            contain(|| {
                ended = job.end_queued(Interrupted::ShutDown, Some(self));
                drop(job);
            });
            ended
        });
        let ended: usize = ended.sum();
        #[cfg(feature = "tokio")]
        let ended = ended + self.asyncs.end_queued(self);
        ended
    }

    /// A worker has lost the CPUs that it was put on, or has them again; gives how many have not.
    pub(crate) fn note_displaced(&self, is_displaced: bool) -> usize {
        // ORDERING: relaxed, here and below: it publishes nothing.
        if is_displaced {
            self.displaced.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            self.displaced.fetch_sub(1, Ordering::Relaxed) - 1
        }
    }

    /// The jobs that run just now.
    pub(crate) fn running_jobs(&self) -> Vec<RunningJob> {
        let jobs = self.running.jobs();
        #[cfg(feature = "tokio")]
        let jobs = [jobs, self.asyncs.running(self)].concat();
        jobs
    }

    /// From now on checkpoints tell running jobs to end.
    pub(crate) fn hurry(&self) {
        // ORDERING: relaxed: a wish; nothing is published by it.
        self.hurrying.store(true, Ordering::Relaxed);
        #[cfg(feature = "tokio")]
        self.asyncs.wake_all();
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
        self.watchdog.iter().for_each(Watchdog::wake);
        self.spawner.ask(Request::Stop);
    }
}

/// Names of priorities and classes in the order of their numbers, for whoever indexes by them.
const _: () = assert!(Priority::P0 as usize == 0 && Class::Io as usize == 1);
