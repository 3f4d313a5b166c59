//! What the threads of an engine share: how work comes in, who is woken for it, and what is counted.

mod ending;
mod pools;

use std::any::TypeId;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use reiver_topology::Seat;

use crate::admission::{Closing, Rules};
#[cfg(feature = "tokio")]
use crate::asyncs::Asyncs;
use crate::auto::{Auto, Autos};
use crate::breaker::Verdict;
use crate::builder::Options;
use crate::cell::{AnyJob, Meta, Place};
use crate::crew::{Crew, Rank};
use crate::current::Current;
use crate::error::{JobError, Phase, SubmitError};
use crate::fork::Fork;
use crate::io::{Io, Pool, Wanted};
use crate::machine::Machine;
use crate::metrics::{CLASSES, Counters};
use crate::protocol::doze::Doze;
use crate::protocol::drain::Drain;
use crate::protocol::refs::Ref;
use crate::protocol::stop::Stop;
use crate::protocol::sync::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::queues::{PRIORITIES, Task};
use crate::room::{Entry, Room};
use crate::running::{AllRunning, RunningJob};
use crate::schedule::is_stoppable;
use crate::spawner::{Request, Spawner};
use crate::sweep::Dead;
use crate::timer::Timer;
use crate::watchdog::Watchdog;
use crate::worker::{WorkerFace, run};
use crate::{Class, Priority};

/// What the threads of an engine share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) machine: Machine,
    /// By rank; the ordinary one is there from the start, the others from when they are needed.
    crews: [OnceLock<Crew>; 3],
    seats: Vec<Seat>,
    pub(crate) itself: OnceLock<Weak<Shared>>,
    pub(crate) options: Options,
    /// Ordinary workers yield their CPUs to urgent ones.
    yields: AtomicBool,
    /// The spawner, as one who looks after the background, see [`ageing`](crate::ageing).
    pub(crate) looks_after: Doze,
    /// Threads for jobs that block.
    pub(crate) io: Io,
    /// Those for jobs that also compute: ordinary ones, urgent ones, and those of the background.
    hybrid: [Io; 3],
    /// Made with the first job that asks for it.
    autos: OnceLock<Autos>,
    pub(crate) timer: Timer,
    pub(crate) metrics: Counters,
    pub(crate) spawner: Spawner,
    /// The system gave no threads at all: whoever brings work does it.
    pub(crate) threadless: bool,
    /// By class: the jobs that wait.
    pub(crate) rooms: [Room; CLASSES.len()],
    /// What jobs have to pass before that, if there is anything.
    pub(crate) rules: Option<Rules>,
    pub(crate) closing: Closing,
    pub(crate) watchdog: Option<Watchdog>,
    #[cfg(feature = "tokio")]
    pub(crate) asyncs: Asyncs,
    pub(crate) dead: Dead,
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
        seats: Vec<Seat>,
        main: Crew,
        options: Options,
        rooms: [Room; CLASSES.len()],
        rules: Option<Rules>,
        watchdog: Option<Watchdog>,
        io: Io,
        hybrid: [Io; 3],
        timer: Timer,
        metrics: Counters,
        spawner: Spawner,
        threadless: bool,
    ) -> Shared {
        let drain = Drain::new(main.workers.len());
        let crews: [OnceLock<Crew>; 3] = Default::default();
        crews[Rank::Ordinary as usize]
            .set(main)
            .expect("it is set here first");
        Shared {
            crews,
            seats,
            itself: OnceLock::new(),
            dead: Dead::default(),
            running: AllRunning::default(),
            drain,
            machine,
            options,
            yields: AtomicBool::new(false),
            looks_after: Doze::resting(),
            io,
            hybrid,
            autos: OnceLock::new(),
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

    /// Itself, for who has no owning pointer at hand.
    pub(crate) fn weak(&self) -> Weak<Shared> {
        self.itself.get().cloned().unwrap_or_default()
    }

    /// The crew of ordinary work.
    #[inline]
    pub(crate) fn main(&self) -> &Crew {
        self.crew(Rank::Ordinary)
    }

    /// A crew that is there.
    #[inline]
    pub(crate) fn crew(&self, rank: Rank) -> &Crew {
        self.crews[rank as usize]
            .get()
            .expect("its workers and those who ask for them have seen it")
    }

    /// The crew of background work, if it is there.
    #[inline]
    pub(crate) fn background(&self) -> Option<&Crew> {
        self.crews[Rank::Background as usize].get()
    }

    /// The crew of urgent work, if it is there.
    #[inline]
    pub(crate) fn urgent(&self) -> Option<&Crew> {
        self.crews[Rank::Urgent as usize].get()
    }

    /// True if work of this engine that makes room for urgent work is on every CPU that it uses: a hint.
    pub(crate) fn is_filled(&self) -> bool {
        let main = self.main();
        let is_busy = |crew: &Crew| crew.muster.present() > 0 && crew.sleepers.idle() == 0;
        (self.options.nice > 0 && main.sleepers.idle() == 0)
            || self.background().is_some_and(is_busy)
    }

    /// The number of a worker among all threads of the engine that have one.
    pub(crate) fn number_of(&self, rank: Rank, worker: usize) -> usize {
        let main = self.main().workers.len();
        match rank {
            Rank::Ordinary => worker,
            // After those come the I/O threads, one number a node.
            Rank::Urgent => main + self.machine.nodes.len() + worker,
            Rank::Background => 2 * main + self.machine.nodes.len() + worker,
        }
    }

    /// What is known of jobs of class Auto, of which there is one.
    pub(crate) fn autos(&self) -> &Autos {
        self.autos
            .get()
            .expect("it is made when the first is placed")
    }

    /// As [`autos`](Shared::autos), if there was one.
    pub(crate) fn known_autos(&self) -> Option<&Autos> {
        self.autos.get()
    }

    /// Places a job of class Auto.
    #[cold]
    pub(crate) fn place(self: &Arc<Self>, name: Option<&str>, body: TypeId) -> (Class, Auto) {
        if self.autos.get().is_none() {
            // Others may wait for it while it is made.
            if is_stoppable() && !self.threadless {
                let engine = Arc::clone(self);
                self.spawner.on_behalf(move || {
                    engine.autos.get_or_init(Autos::new);
                });
            } else {
                self.autos.get_or_init(Autos::new);
            }
        }
        self.autos().place(name, body)
    }

    /// All crews that are there.
    pub(crate) fn crews(&self) -> impl Iterator<Item = &Crew> {
        self.crews.iter().filter_map(OnceLock::get)
    }

    /// The crew that does work of a priority; makes it if it is not there yet.
    pub(crate) fn crew_for(&self, priority: Priority) -> &Crew {
        let rank = Rank::of(priority);
        // Beside ordinary threads that do not yield, others are no use to urgent work.
        let is_shared = rank == Rank::Urgent && self.options.nice == 0;
        if rank == Rank::Ordinary || is_shared || self.threadless {
            return self.main();
        }
        let crew = self.crews[rank as usize].get_or_init(|| {
            // Urgent workers sleep after each job or two: a barrier each time would cost more than forks
            // that are shared at once.
            let eager = rank == Rank::Urgent || self.main().sleepers.is_eager();
            self.metrics.prepare(Class::Cpu, priority);
            Crew::new(rank, &self.machine, &self.seats, false, eager)
        });
        if crew.muster.is_given_up() {
            self.main()
        } else {
            crew
        }
    }

    /// Makes what is made when first needed, before there are threads of the background that the kernel may
    /// stop while they make it: others would wait for it.
    pub(crate) fn prepare_for_background(&self) {
        let _ = self.machine.topology.caches();
        self.crew_for(Priority::P2);
        for class in [Class::Hybrid, Class::Auto] {
            self.metrics.prepare(class, Priority::P2);
        }
    }

    /// The crew of forks that the current thread has for this engine: that of the job that it is in.
    pub(crate) fn crew_of_caller(&self) -> &Crew {
        let priority = Current::with(|current| {
            let current = current.filter(|current| current.is_of(self))?;
            Some(current.innermost()?.priority())
        });
        self.crew_for(priority.unwrap_or_default())
    }

    /// Ordinary workers do what nobody of a crew will come to, see [`crew`](crate::crew).
    pub(crate) fn relieve(self: &Arc<Self>, crew: &Crew) {
        if is_stoppable() {
            let rank = crew.rank;
            return self.bring(move |shared| shared.relieve_now(shared.crew(rank)));
        }
        self.relieve_now(crew);
    }

    fn relieve_now(self: &Arc<Self>, crew: &Crew) {
        let main = self.main();
        let is_empty = crew.muster.present() == 0;
        for (node, queues) in crew.queues.iter().enumerate() {
            if crew.muster.present_at(node) > 0 {
                continue;
            }
            while let Some(job) = queues.take_strict() {
                main.push(self, node, true, job);
            }
            if !is_empty {
                continue;
            }
            for priority in PRIORITIES {
                while let Some(job) = queues.take(priority, false) {
                    main.push(self, node, false, job.value);
                }
            }
            while let Some(fork) = queues.take_fork() {
                main.push_fork(self, node, fork.value);
            }
        }
        self.end_queued_if_ending();
    }

    /// Ordinary workers are to yield their CPUs to urgent ones, from now on.
    pub(crate) fn yield_to_urgent(&self) {
        // ORDERING: relaxed: the fences order it.
        if self.options.nice == 0 || self.yields.swap(true, Ordering::Relaxed) {
            return;
        }
        // ORDERING: with the fence in `may_yield`: a worker that shows its thread sees that it is to
        // yield, or is seen here.
        fence(Ordering::SeqCst);
        let threads = self.main().workers.iter().map(WorkerFace::thread);
        threads
            .flatten()
            .for_each(|thread| thread.yield_to_others(self.options.nice));
        self.pools()
            .for_each(|pool| pool.yield_to_urgent(self.options.nice));
    }

    /// True once ordinary workers yield to urgent threads: a hint.
    #[inline]
    pub(crate) fn is_beside_urgent(&self) -> bool {
        // ORDERING: relaxed: who sees it late lets others in a little later.
        self.yields.load(Ordering::Relaxed)
    }

    /// An ordinary worker has shown its thread: true if it is to yield.
    pub(crate) fn yields(&self) -> bool {
        // ORDERING: with the fence in `yield_to_urgent`.
        fence(Ordering::SeqCst);
        self.yields.load(Ordering::Relaxed)
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
        self.metrics.note_submitted(meta.class, meta.priority, 1);
        self.note_watched();
        let (node, strict) = match meta.place {
            Place::Any => (self.node_of_caller(), false),
            Place::Prefer(node) => (node as usize, false),
            Place::Strict(node) => (node as usize, true),
        };
        if is_stoppable() && !self.threadless && !self.may_be_handed_over(meta) {
            return self.bring(move |shared| shared.queue(job, node, strict));
        }
        self.queue(job, node, strict);
    }

    /// True if whoever queues such a job holds nothing meanwhile that others wait for.
    fn may_be_handed_over(&self, meta: &Meta) -> bool {
        let is_there = || self.crews[Rank::Background as usize].get().is_some();
        meta.runs_as == Class::Cpu
            && meta.priority == Priority::P2
            && meta.rare.is_none()
            && is_there()
    }

    /// Has something done by a thread that the kernel does not stop for long.
    pub(crate) fn bring(self: &Arc<Self>, what: impl FnOnce(&Arc<Shared>) + Send + 'static) {
        let engine = Arc::downgrade(self);
        // An engine that is gone has ended what it has taken.
        self.spawner.bring(move || {
            if let Some(shared) = engine.upgrade() {
                what(&shared);
            }
        });
    }

    fn queue(self: &Arc<Self>, job: Ref<dyn AnyJob>, node: usize, strict: bool) {
        let meta = job.meta();
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
        match Pool::of(meta) {
            None => self.crew_for(meta.priority).push(self, node, strict, job),
            Some(pool) => {
                let wanted = self.pool(pool).push(&self.machine.near[node], job);
                if let Wanted::Thread(node) = wanted {
                    self.spawner
                        .ask(Request::Io(Arc::downgrade(self), pool, node));
                }
            }
        }
        // It may have been admitted just before intake stopped, and pushed just after the queues were
        // emptied.
        self.end_queued_if_ending();
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
        if is_stoppable() && !self.threadless {
            let (deadline, entries) = (meta.deadline(), entries.collect());
            self.bring(move |shared| shared.queue_many(priority, deadline, node, entries));
            return Ok(());
        }
        self.queue_many(priority, meta.deadline(), node, entries.collect());
        Ok(())
    }

    fn queue_many(
        self: &Arc<Self>,
        priority: Priority,
        deadline: Option<Instant>,
        node: usize,
        entries: Vec<Ref<dyn AnyJob>>,
    ) {
        let crew = self.crew_for(priority);
        crew.note_first(node);
        let mut pushed = 0;
        for entry in entries {
            let watched = |deadline| self.timer.watch(deadline, &entry);
            if deadline.is_some_and(watched) {
                self.spawner.ask(Request::Timer(Arc::downgrade(self)));
            }
            crew.queues[node].push(priority, false, entry);
            pushed += 1;
        }
        if self.threadless {
            // None before all are there: one that waits for all has to find the others.
            Current::as_worker(self, |current, _| {
                let next = || crew.queues[node].take(priority, true);
                let jobs = std::iter::from_fn(next).map(|taken| taken.value);
                jobs.for_each(|job| run(Task::Job(job), current));
            });
            return;
        }
        // Whoever wakes and finds something wakes another one; but the more begin at once the sooner.
        let mut wakes = 0..pushed.min(crew.workers.len());
        while wakes.next().is_some() && crew.wake_one(self, node) {}
        crew.call_for_more(self);
        self.end_queued_if_ending();
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
            self.leave_room(class);
        }
        Err(SubmitError::ShutDown)
    }

    /// Pushes a fork from outside, for those who share the forks of a rank.
    pub(crate) fn push_fork(self: &Arc<Self>, rank: Rank, node: usize, fork: Fork) {
        if self.threadless {
            return Current::as_worker(self, |current, _| run(Task::Fork(fork), current));
        }
        if is_stoppable() && rank != Rank::Background {
            return self.bring(move |shared| {
                shared.crew(rank).push_fork(shared, node, fork);
                shared.finish_if_stopped();
            });
        }
        self.crew(rank).push_fork(self, node, fork);
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

    pub(crate) fn wake(&self, crew: &Crew, worker: Option<usize>) {
        if let Some(worker) = worker {
            self.metrics.note_wake();
            crew.workers[worker].unparker.unpark();
        }
    }

    /// Where threads count that are no CPU workers.
    pub(crate) fn lane_of_strangers(&self) -> usize {
        self.main().workers.len()
    }

    /// A job no longer waits, or does not come to.
    #[inline]
    pub(crate) fn leave_room(&self, class: Class) {
        if !self.room(class).leave() {
            return;
        }
        if is_stoppable()
            && let Some(shared) = self.weak().upgrade()
        {
            return shared.bring(move |shared| shared.room(class).wake_one());
        }
        self.room(class).wake_one();
    }

    /// The jobs that run just now. Whoever reads holds what threads that end a job may wait for: the
    /// spawner reads for who may be stopped.
    pub(crate) fn running_jobs(self: &Arc<Self>) -> Vec<RunningJob> {
        if is_stoppable() && !self.threadless {
            let engine = Arc::clone(self);
            return self.spawner.on_behalf(move || engine.running_now());
        }
        self.running_now()
    }

    /// A job begins on a thread.
    #[inline]
    pub(crate) fn note_start(&self, lane: usize, meta: &Meta) {
        self.leave_room(meta.class);
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
    #[inline]
    pub(crate) fn note_end(&self, lane: usize, meta: &Meta, error: Option<&JobError>, was: Phase) {
        if was == Phase::Queued {
            self.leave_room(meta.class);
        }
        self.metrics
            .note_end(lane, meta.class, meta.priority, error, was);
    }

    /// A job that was counted in has ended, and has said so.
    #[inline]
    pub(crate) fn note_gone(&self, lane: usize) {
        self.drain.note_gone(lane);
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

    /// As [`running_jobs`](Shared::running_jobs), for a thread that the kernel does not stop.
    pub(crate) fn running_now(&self) -> Vec<RunningJob> {
        let jobs = self.running.jobs();
        #[cfg(feature = "tokio")]
        let jobs = [jobs, self.asyncs.running(self)].concat();
        jobs
    }
}

/// Names of priorities and classes in the order of their numbers, for whoever indexes by them.
const _: () = {
    let mut class = 0;
    while class < CLASSES.len() {
        assert!(CLASSES[class] as usize == class);
        class += 1;
    }
    assert!(Priority::P0 as usize == 0 && Class::Hybrid as usize == 2);
};
