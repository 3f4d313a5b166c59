//! Settings of an engine, and what becomes of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reiver_topology::{CpuSet, NodeId, Seat, Topology};

use crate::Class;
use crate::admission::Rules;
use crate::breaker::Breaker;
use crate::crew::{Crew, Rank};
use crate::engine::Engine;
use crate::error::BuildError;
use crate::io::{Io, Pool};
use crate::limit::HybridLimiter;
use crate::machine::Machine;
use crate::metrics::{CLASSES, Counters};
use crate::protocol::barrier;
use crate::room::{Room, WhenFull};
use crate::running::RunningJob;
use crate::shared::Shared;
use crate::spawner::{Request, Spawner};
use crate::timer::Timer;
use crate::watchdog::{Limit, Watchdog};
use crate::worker::Worker;

/// What workers are confined to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Pinning {
    /// The CPUs of their node; within it the kernel balances. The best where other programs run.
    #[default]
    Node,
    /// One CPU each. For machines that run nothing else.
    Core,
    /// Nothing.
    None,
}

/// A thread that is nicer by so much has a tenth of the weight (`sched(7)`): enough that one that is not
/// takes its CPU at once, as long as that one takes less than all.
const NICE: i32 = 10;
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(1);
/// At most so many I/O threads, unless set.
const IO_WORKERS: RangeInclusive<usize> = 0..=512;
/// At most so many I/O jobs wait, unless set: a queue that grows without limit hides that its
/// threads cannot keep up.
const IO_QUEUE: usize = 65_536;

/// Builds an [`Engine`]; made by [`Engine::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct EngineBuilder {
    topology: Option<Topology>,
    cpu_workers: Option<usize>,
    io_workers: RangeInclusive<usize>,
    options: Options,
    /// By class.
    capacity: [Option<usize>; CLASSES.len()],
    when_full: [WhenFull; CLASSES.len()],
    rules: Rules,
    watchdog: Option<Limit>,
}

/// All of an engine but its threads.
struct Parts {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

/// What threads of an engine do as its builder says.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) pinning: Pinning,
    /// The CPUs for all that compute, where a quota grants fewer than may be used.
    pub(crate) confined: Option<CpuSet>,
    /// CPUs, where a quota grants fewer than may be used.
    pub(crate) quota: Option<f64>,
    /// How much nicer ordinary workers are once there is urgent work.
    pub(crate) nice: i32,
    pub(crate) background_patience: Duration,
}

/// Where a quota grants fewer CPUs than may be used: so many seats, over the nodes as ever, and all that
/// computes stays on their CPUs. Else background work would use up what urgent work needs, on CPUs beside
/// it, and the kernel would stop both. On each node they begin at another CPU in each process, so that
/// processes spread.
fn confined(topology: &Topology, pinning: Pinning) -> Option<Vec<Seat>> {
    if pinning == Pinning::None || !topology.is_this_machine() {
        return None;
    }
    let cpus = topology.cpus().len();
    let granted = topology.worker_count();
    if granted >= cpus {
        return None;
    }
    let all = topology.seats(cpus);
    let process = usize::try_from(std::process::id()).unwrap_or(0);
    let mut given: BTreeMap<NodeId, usize> = BTreeMap::new();
    let place = |seat: Seat| {
        let of_node: Vec<Seat> = all
            .iter()
            .filter(|known| known.node == seat.node)
            .copied()
            .collect();
        let given = given.entry(seat.node).or_insert(0);
        *given += 1;
        of_node[(process + *given) % of_node.len()]
    };
    Some(topology.seats(granted).into_iter().map(place).collect())
}

/// So many seats on the CPUs of these few, nodes ascending.
fn again(few: &[Seat], wanted: usize) -> Vec<Seat> {
    let mut seats: Vec<Seat> = few.iter().cycle().take(wanted).copied().collect();
    seats.sort_by_key(|seat| seat.node);
    seats
}

static GLOBAL: OnceLock<Engine> = OnceLock::new();

impl EngineBuilder {
    pub(crate) fn new() -> EngineBuilder {
        EngineBuilder {
            topology: None,
            cpu_workers: None,
            io_workers: IO_WORKERS,
            options: Options {
                pinning: Pinning::default(),
                confined: None,
                quota: None,
                nice: NICE,
                background_patience: BACKGROUND_PATIENCE,
            },
            capacity: CLASSES.map(|class| (class == Class::Io).then_some(IO_QUEUE)),
            when_full: Default::default(),
            rules: Rules::default(),
            watchdog: None,
        }
    }

    /// The machine to run on. Default: this one, as [`Topology::detect`] finds it.
    ///
    /// With one that is only described, groups and steal order follow it all the same; threads are
    /// not pinned and memory is not placed.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = Some(topology);
        self
    }

    /// How many workers compute, in all; they are spread over the nodes by their cores. Jobs of
    /// [`P0`](crate::Priority::P0) and [`P2`](crate::Priority::P2) have as many again each, from the first
    /// such job on. Default: [`Topology::worker_count`]; inside a CPU quota that is what it grants, and all
    /// of them stay on as many CPUs, unless [`pinning`](EngineBuilder::pinning) is `None`.
    pub fn cpu_workers(mut self, workers: usize) -> Self {
        self.cpu_workers = Some(workers);
        self
    }

    /// How many threads run jobs of class [`Io`](Class::Io), in all: at least the first number once
    /// they have been started, at most the second, not counting those that wait for what this engine does,
    /// in [`JobHandle::join`](crate::JobHandle::join) say: others take their places, up to 256. They start
    /// as jobs come, and the one that worked last works next: those that are not needed end once they have
    /// had nothing to do for 10 s. Default: 0 to 512.
    pub fn io_workers(mut self, workers: RangeInclusive<usize>) -> Self {
        self.io_workers = workers;
        self
    }

    /// What workers are confined to. Default: their node.
    pub fn pinning(mut self, pinning: Pinning) -> Self {
        self.options.pinning = pinning;
        self
    }

    /// How long background work may stand still: where jobs of [`P2`](crate::Priority::P2) wait on a node
    /// and none has ended there for so long, because others take all CPUs, an ordinary worker takes one,
    /// and one again after as long. One that sleeps is woken for that, up to 10 ms later. What has begun on a
    /// background thread stays there. Default: 1 s.
    pub fn background_patience(mut self, patience: Duration) -> Self {
        self.options.background_patience = patience;
        self
    }

    /// As if the process had a quota of so many CPUs.
    #[cfg(test)]
    pub(crate) fn quota(mut self, cpus: f64) -> Self {
        self.options.quota = Some(cpus);
        self
    }

    /// Whether workers of ordinary jobs leave their CPUs to urgent ones. Default: yes.
    ///
    /// From the first job of [`P0`](crate::Priority::P0) on that is not of class Io their threads have a nice
    /// value that is higher by 10, for good: the kernel lets nobody take that back without privilege. An
    /// engine without such jobs pays nothing. One that has some, beside other programs that are not nice and
    /// compute on the same CPUs, gets a tenth of these where it would get half, unless those are in
    /// another session or cgroup. With `false` urgent jobs share the workers of ordinary ones, which take
    /// them first, but only between two jobs and at their
    /// [`checkpoint`](crate::JobContext::checkpoint)s: on two CPUs, beside bulk of 5 ms, a hundredth of
    /// them waits for 6 ms and more. `just bench mixed/others mixed/p1-bulk` measures both.
    pub fn yield_to_urgent(mut self, yields: bool) -> Self {
        self.options.nice = if yields { NICE } else { 0 };
        self
    }

    /// How many jobs of a class may wait. Default: 65,536 of class Io, any number of
    /// the others.
    pub fn queue_capacity(mut self, class: Class, jobs: usize) -> Self {
        self.capacity[class as usize] = Some(jobs);
        self
    }

    /// What becomes of a job for which the queue of its class has no room. Default: it is refused.
    ///
    /// ```
    /// use reiver::{Class, Engine, WhenFull};
    ///
    /// let engine = Engine::builder()
    ///     .queue_capacity(Class::Cpu, 8)
    ///     .when_full(Class::Cpu, WhenFull::Block)
    ///     .build()?;
    /// let jobs = engine.submit_many((0..1000).map(|number| move |_: &_| number));
    /// assert!(jobs.into_iter().enumerate().all(|(number, job)| job.join().is_ok_and(|n| n == number)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn when_full(mut self, class: Class, when_full: WhenFull) -> Self {
        self.when_full[class as usize] = when_full;
        self
    }

    /// Jobs of a class pass this limiter before they are taken, with their
    /// [`weight`](crate::JobBuilder::weight), and leave it when they have ended. One that it refuses is
    /// refused ([`SubmitError::Limited`](crate::SubmitError::Limited)), or, where
    /// [`when_full`](EngineBuilder::when_full) of its class is another than `Reject`, its submitter waits:
    /// a limit is not got around by running the job elsewhere. A [`batch`](Engine::batch) waits too.
    ///
    /// So the concurrency of the limiter is that of jobs which wait and run. A job that waits for a limit
    /// which it holds itself waits for ever. Who
    /// waits does so up to the job's deadline; tokens that cannot come by then are refused at once. What a job refused by one of several limits has taken of the
    /// others' tokens is lost.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use reiver::limit::{HybridLimiter, Refused};
    /// use reiver::{Class, Engine, SubmitError};
    ///
    /// let disk = Arc::new(HybridLimiter::new(1000, 1, 8));
    /// let engine = Engine::builder().limit(Class::Io, disk).build()?;
    /// engine.job().class(Class::Io).submit(|_| ())?.join()?;
    /// let heavy = engine.job().class(Class::Io).weight(2).submit(|_| ());
    /// assert_eq!(heavy.unwrap_err(), SubmitError::Limited(Refused::Rate));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limit(mut self, class: Class, limiter: Arc<HybridLimiter>) -> Self {
        self.rules.limit(class, limiter);
        self
    }

    /// As [`limit`](EngineBuilder::limit), for jobs of this name; those of its class hold too, and are
    /// asked after it.
    pub fn limit_name(mut self, name: &str, limiter: Arc<HybridLimiter>) -> Self {
        self.rules.limit_name(name, limiter);
        self
    }

    /// Calls `report` once for each job that runs for longer than `age`, on a thread of the engine that does
    /// nothing else. It is told soon after that age: as soon as the thread is given a CPU, and at most a
    /// millisecond later. What it does is up to it: log, count, cancel; the job goes on. If it panics, that
    /// is reported as panics are, and nothing else happens; while it blocks, no other job is reported.
    ///
    /// Costs a job some nanoseconds at its submission, and nothing while it runs; a look at what runs
    /// costs a few µs, and there is at most one for each `age`, while there are jobs. With an age of zero each job is
    /// reported that is still running when the thread looks, every millisecond.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    /// use reiver::Engine;
    ///
    /// let (says, hears) = channel();
    /// let engine = Engine::builder()
    ///     .watchdog(Duration::from_millis(5), move |job| {
    ///         let _ = says.send(job.name().map(str::to_owned));
    ///     })
    ///     .build()?;
    /// let stuck = engine.job().name("stuck").submit(move |_| hears.recv())?;
    /// assert_eq!(stuck.join()??.as_deref(), Some("stuck"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watchdog(
        mut self,
        age: Duration,
        report: impl Fn(&RunningJob) + Send + Sync + 'static,
    ) -> Self {
        let report = Arc::new(report);
        self.watchdog = Some(Limit { age, report });
        self
    }

    /// Refuses jobs of this name for a while ([`SubmitError::BreakerOpen`](crate::SubmitError::BreakerOpen))
    /// once too many of them have failed: have panicked, or called
    /// [`report_failure`](crate::JobContext::report_failure). Jobs that are cancelled, late or shut down
    /// count neither way, unless they have reported a failure.
    ///
    /// After `open_for` it lets one job through as a probe: one that succeeds closes it, one that fails
    /// opens it again. [`Metrics::breakers`](crate::Metrics::breakers) shows the states.
    ///
    /// ```
    /// use std::time::Duration;
    /// use reiver::{Breaker, Engine, SubmitError};
    ///
    /// let breaker = Breaker { failures: 0.5, window: 4, open_for: Duration::from_secs(30) };
    /// let engine = Engine::builder().breaker("mirror", breaker).build()?;
    /// let fetch = || engine.job().name("mirror").submit(|ctx| ctx.report_failure());
    /// for _ in 0..4 {
    ///     fetch()?.join()?;
    /// }
    /// assert_eq!(fetch().unwrap_err(), SubmitError::BreakerOpen);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn breaker(mut self, name: &str, breaker: Breaker) -> Self {
        self.rules.breaker(name, breaker);
        self
    }

    /// Builds the engine and starts its workers.
    ///
    /// # Errors
    /// [`BuildError::Setting`] for a setting that no engine can have, [`BuildError::Topology`]
    /// where this machine cannot be read, [`BuildError::Threads`] where the system refuses threads.
    pub fn build(self) -> Result<Engine, BuildError> {
        self.check()?;
        // Before there are threads, see `barrier`.
        let eager = !barrier::register();
        let topology = self.topology.clone().map_or_else(Topology::detect, Ok)?;
        let wanted = self.cpu_workers.unwrap_or_else(|| topology.worker_count());
        let (spawner, parker) = Spawner::new();
        let Parts { shared, workers } = self.assemble(topology, wanted, Some(spawner), eager);
        // Dropping the engine ends what was started.
        let engine = Engine::owning(Arc::clone(&shared));
        let started = shared.spawner.start(&shared, parker, workers);
        started.map_err(|(started, source)| BuildError::Threads {
            started,
            wanted,
            source,
        })?;
        if shared.watchdog.is_some() {
            let watches = Request::Watchdog(Arc::downgrade(&shared));
            shared.spawner.ask(watches);
        }
        Ok(engine)
    }

    /// All of an engine but its threads; without a spawner one that will never have any.
    fn assemble(
        self,
        topology: Topology,
        wanted: usize,
        spawner: Option<Spawner>,
        eager: bool,
    ) -> Parts {
        let threadless = spawner.is_none();
        let mut options = self.options;
        let confined = confined(&topology, options.pinning);
        let seats = match &confined {
            None => topology.seats(wanted),
            Some(few) => again(few, wanted),
        };
        options.confined = confined.map(|few| few.iter().map(|seat| seat.cpu).collect());
        let cpus = u32::try_from(topology.cpus().len()).unwrap_or(u32::MAX);
        let quota = options.quota.or_else(|| topology.cpu_quota());
        options.quota = quota.filter(|&quota| quota < f64::from(cpus));
        let machine = Machine::new(topology, &seats);

        let main = Crew::new(Rank::Ordinary, &machine, &seats, threadless, eager);
        let workers = main.take_unstarted();
        let with_spares = main.workers.len();
        let nodes = machine.nodes.len();
        let rooms =
            [0, 1, 2, 3].map(|class: usize| Room::new(self.capacity[class], self.when_full[class]));
        let patience = options.background_patience;
        let hybrid = [Pool::Hybrid, Pool::UrgentHybrid, Pool::BackgroundHybrid]
            .map(|pool| Io::hybrid(pool, nodes, wanted, *self.io_workers.end(), patience));
        let shared = Arc::new(Shared::new(
            machine,
            seats,
            main,
            options,
            rooms,
            Some(self.rules.begun()).filter(|rules| !rules.is_empty()),
            self.watchdog.map(Watchdog::new),
            Io::new(nodes, self.io_workers, patience),
            hybrid,
            Timer::default(),
            Counters::new(wanted, with_spares),
            spawner.unwrap_or_else(|| Spawner::new().0),
            threadless,
        ));
        let itself = shared.itself.set(Arc::downgrade(&shared));
        itself.expect("it is set here alone");
        Parts { shared, workers }
    }

    /// Builds the engine that [`Engine::global`] gives.
    ///
    /// # Errors
    /// As [`build`](EngineBuilder::build); [`BuildError::GlobalExists`] once there is one.
    pub fn build_global(self) -> Result<&'static Engine, BuildError> {
        if GLOBAL.get().is_some() {
            return Err(BuildError::GlobalExists);
        }
        let engine = self.build()?;
        GLOBAL.set(engine).map_err(|_| BuildError::GlobalExists)?;
        Ok(GLOBAL.get().expect("it was set"))
    }

    fn check(&self) -> Result<(), BuildError> {
        let refuse = |setting, value: String, remedy| {
            Err(BuildError::Setting {
                setting,
                value,
                remedy,
            })
        };
        if self.cpu_workers == Some(0) {
            return refuse("cpu_workers", "0".into(), "1 or more");
        }
        if self.io_workers.is_empty() || *self.io_workers.end() == 0 {
            let range = format!("{:?}", self.io_workers);
            return refuse(
                "io_workers",
                range,
                "a range that is not empty and ends at 1 or more",
            );
        }
        if self.capacity.contains(&Some(0)) {
            return refuse("queue_capacity", "0".into(), "1 or more");
        }
        self.rules.check()
    }
}

impl Engine {
    /// The engine that free functions use outside of any other: built on first use, with the
    /// defaults, and never ended. Where the system refuses threads it has fewer; where it refuses
    /// every one, whoever brings work does it on the spot.
    ///
    /// # Panics
    /// If this machine cannot be read.
    pub fn global() -> &'static Engine {
        GLOBAL.get_or_init(|| {
            let cannot = |error: BuildError| -> ! {
                panic!("the global engine cannot start: {error}");
            };
            let mut workers = None;
            loop {
                let mut builder = Engine::builder();
                builder.cpu_workers = workers;
                match builder.build() {
                    Ok(engine) => return engine,
                    Err(BuildError::Threads {
                        started,
                        wanted,
                        source,
                    }) => {
                        tracing::warn!(
                            "the system gave {started} of {wanted} worker threads ({source}); \
                             the global engine goes on with fewer"
                        );
                        if wanted == 1 {
                            let eager = !barrier::register();
                            let topology = Topology::detect();
                            let topology = topology.unwrap_or_else(|error| cannot(error.into()));
                            let parts = Engine::builder().assemble(topology, 1, None, eager);
                            return Engine::owning(parts.shared);
                        }
                        workers = Some(started.clamp(1, wanted - 1));
                    }
                    Err(error) => cannot(error),
                }
            }
        })
    }
}
