//! Ten million parts of joins, spawns and jobs of every kind at once, on 1 to 4 times as many workers
//! as there are cores; each has a number, and each number is run exactly once, or ended as cancelled.
//! In a process of its own, so that it has the cores for itself.

#[path = "engine/size.rs"]
mod size;
#[path = "engine/watchdog.rs"]
mod watchdog;

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use reiver::{
    CancellationToken, Class, Engine, JobContext, JobError, JobHandle, NodeId, Priority, Scope,
    Topology,
};
use size::sized;
use watchdog::watched;

/// A bit for each number.
struct Ledger {
    marked: Box<[AtomicU64]>,
    twice: AtomicU64,
}

impl Ledger {
    fn new(numbers: usize) -> Ledger {
        let words = (0..numbers.div_ceil(64)).map(|_| AtomicU64::new(0));
        Ledger {
            marked: words.collect(),
            twice: AtomicU64::new(0),
        }
    }

    fn mark(&self, number: usize) {
        let bit = 1 << (number % 64);
        if self.marked[number / 64].fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            self.twice.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_marked(&self, number: usize) -> bool {
        self.marked[number / 64].load(Ordering::Relaxed) & (1 << (number % 64)) != 0
    }

    /// Each of the numbers below this is marked, once.
    fn assert_complete(&self, numbers: usize) {
        assert_eq!(self.twice.load(Ordering::Relaxed), 0, "run twice");
        let missing: Vec<_> = (0..numbers)
            .filter(|&number| !self.is_marked(number))
            .collect();
        let first = &missing[..missing.len().min(10)];
        assert!(missing.is_empty(), "{} never ran: {first:?}", missing.len());
    }
}

/// What was done of what, and what became of jobs.
#[derive(Debug, Default)]
struct Done {
    joined: usize,
    spawned: usize,
    spawned_from_outside: usize,
    spawned_on_nodes: usize,
    installs: usize,
    panicking_forks: usize,
    submitted: u64,
    completed: u64,
    panicked: u64,
    cancelled: u64,
}

impl Done {
    fn forks(&self) -> usize {
        self.joined + self.spawned + self.spawned_from_outside + self.spawned_on_nodes
    }

    fn add(&mut self, other: &Done) {
        self.joined += other.joined;
        self.spawned += other.spawned;
        self.spawned_from_outside += other.spawned_from_outside;
        self.spawned_on_nodes += other.spawned_on_nodes;
        self.installs += other.installs;
        self.panicking_forks += other.panicking_forks;
        self.submitted += other.submitted;
        self.completed += other.completed;
        self.panicked += other.panicked;
        self.cancelled += other.cancelled;
    }
}

/// Marks each number by a part of a join.
fn joins(ledger: &Ledger, numbers: Range<usize>) {
    if numbers.len() < 2 {
        return numbers.for_each(|number| ledger.mark(number));
    }
    let middle = numbers.start + numbers.len() / 2;
    reiver::join(
        || joins(ledger, numbers.start..middle),
        || joins(ledger, middle..numbers.end),
    );
}

/// Marks each number by a spawn, which spawns some of the others on the same scope or on one within.
fn spawns<'s>(scope: &Scope<'s>, ledger: &'s Ledger, numbers: Range<usize>) {
    let mut left = numbers;
    while let Some(number) = left.next() {
        match number % 16 {
            // By whoever runs it.
            0 => {
                let more = take(&mut left, 15);
                scope.spawn(move |scope| {
                    ledger.mark(number);
                    for number in more {
                        scope.spawn(move |_| ledger.mark(number));
                    }
                });
            }
            8 => {
                let more = take(&mut left, 7);
                scope.spawn(move |_| {
                    ledger.mark(number);
                    reiver::scope(|scope| {
                        for number in more {
                            scope.spawn(move |_| ledger.mark(number));
                        }
                    });
                });
            }
            _ => scope.spawn(move |_| ledger.mark(number)),
        }
    }
}

/// The first so many of what is left.
fn take(left: &mut Range<usize>, most: usize) -> Range<usize> {
    let end = (left.start + most).min(left.end);
    let taken = left.start..end;
    left.start = end;
    taken
}

fn number_of(panic: Box<dyn Any + Send>) -> usize {
    *panic.downcast::<usize>().unwrap()
}

/// Without a word on stderr: the hook is not called.
fn panic_with(number: usize) -> ! {
    resume_unwind(Box::new(number))
}

/// Two numbers by a join, one side of which panics; then as many by spawns.
fn panicking_forks(engine: &Engine, ledger: &Ledger, numbers: Range<usize>, done: &mut Done) {
    for number in numbers.step_by(4) {
        let (panics, other) = (number + usize::from(number % 8 == 0), number + 1);
        let other = if panics == other { number } else { other };
        let side = |number: usize| {
            ledger.mark(number);
            if number == panics {
                panic_with(number);
            }
        };
        let joined = AssertUnwindSafe(|| engine.join(|| side(other), || side(panics)));
        assert_eq!(number_of(catch_unwind(joined).unwrap_err()), panics);
        let scoped = AssertUnwindSafe(|| {
            engine.scope(|scope| {
                for number in [number + 2, number + 3] {
                    scope.spawn(move |_| {
                        ledger.mark(number);
                        panic_with(number);
                    });
                }
            });
        });
        let panic = number_of(catch_unwind(scoped).unwrap_err());
        assert!([number + 2, number + 3].contains(&panic));
        done.joined += 2;
        done.spawned += 2;
        done.panicking_forks += 3;
    }
}

/// Marks each number by a spawn on one scope: from threads that are nobody's, and on nodes.
fn spawns_from_everywhere(
    engine: &Engine,
    ledger: &Arc<Ledger>,
    numbers: Range<usize>,
    done: &mut Done,
) {
    let mut left = numbers;
    while !left.is_empty() {
        let [mut first, second, third] = [(); 3].map(|()| take(&mut left, 1000));
        done.spawned_from_outside += first.len() + second.len();
        done.spawned_on_nodes += third.len();
        let ledger: &Ledger = ledger;
        engine.scope(|scope| {
            let spawn_all = |numbers: Range<usize>| {
                for number in numbers {
                    scope.spawn(move |_| ledger.mark(number));
                }
            };
            thread::scope(|threads| {
                let half = first.len() / 2;
                let half = take(&mut first, half);
                threads.spawn(move || spawn_all(half));
                threads.spawn(move || spawn_all(first));
                threads.spawn(move || spawn_all(second));
                for number in third {
                    let node = NodeId(u32::try_from(number % 3).unwrap());
                    scope.spawn_on(node, move |_| ledger.mark(number));
                }
            });
        });
    }
}

/// How a job is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Completes,
    Panics,
    /// Its token is cancelled at once; whether it has begun by then is the machine's affair.
    MayBeCancelled,
    IsCancelled,
}

struct Submitted {
    number: usize,
    fate: Fate,
    job: JobHandle<()>,
}

/// Numbers by jobs, in a window of so many at once.
struct Jobs<'t> {
    engine: &'t Engine,
    ledger: &'t Arc<Ledger>,
    in_flight: VecDeque<Submitted>,
    done: Done,
}

impl Jobs<'_> {
    fn run(&mut self, numbers: Range<usize>) {
        let mut left = numbers;
        while !left.is_empty() {
            self.submit(&mut left);
            if self.in_flight.len() > 2000 {
                self.end_oldest();
            }
        }
        while !self.in_flight.is_empty() {
            self.end_oldest();
        }
    }

    /// One job, with as many of the numbers as it takes.
    fn submit(&mut self, left: &mut Range<usize>) {
        let number = left.next().unwrap();
        let token = CancellationToken::new();
        let mut job = self
            .engine
            .job()
            .priority([Priority::P0, Priority::P1, Priority::P2][number % 3])
            .class([Class::Cpu, Class::Io][usize::from(number.is_multiple_of(7))]);
        if number.is_multiple_of(5) {
            job = job.node(NodeId(u32::try_from(number / 5 % 2).unwrap()));
        }
        let ledger = Arc::clone(self.ledger);
        self.done.submitted += 1;
        let (fate, job) = match number % 32 {
            0 => {
                let panics = job.submit(move |_| {
                    ledger.mark(number);
                    panic_with(number)
                });
                (Fate::Panics, panics)
            }
            4 => {
                let job = job.cancel_with(&token).submit(move |_| ledger.mark(number));
                token.cancel();
                (Fate::MayBeCancelled, job)
            }
            8 => {
                let job = job.cancel_with(&token).submit(move |ctx| {
                    ledger.mark(number);
                    while ctx.checkpoint().is_ok() {
                        thread::yield_now();
                    }
                });
                token.cancel();
                (Fate::IsCancelled, job)
            }
            12 => {
                let child = take(left, 1);
                self.done.submitted += child.len() as u64;
                self.done.completed += child.len() as u64;
                let waits = job.submit(move |ctx: &JobContext| {
                    ledger.mark(number);
                    for number in child {
                        let ledger = Arc::clone(&ledger);
                        let class = [Class::Cpu, Class::Io][number / 32 % 2];
                        let child = ctx.engine().job().class(class);
                        let child = child.submit(move |_| ledger.mark(number)).unwrap();
                        child.join().unwrap();
                    }
                });
                (Fate::Completes, waits)
            }
            16 => {
                let more = take(left, 15);
                self.done.joined += more.len();
                let forks = job.submit(move |_| {
                    ledger.mark(number);
                    joins(&ledger, more);
                });
                (Fate::Completes, forks)
            }
            20 => {
                let more = take(left, 11);
                self.done.spawned += more.len();
                let forks = job.submit(move |_| {
                    ledger.mark(number);
                    reiver::scope(|scope| spawns(scope, &ledger, more));
                });
                (Fate::Completes, forks)
            }
            _ => (Fate::Completes, job.submit(move |_| ledger.mark(number))),
        };
        let job = job.unwrap();
        self.in_flight.push_back(Submitted { number, fate, job });
    }

    fn end_oldest(&mut self) {
        let Some(Submitted { number, fate, job }) = self.in_flight.pop_front() else {
            return;
        };
        match (fate, job.join()) {
            (Fate::Completes | Fate::MayBeCancelled, Ok(())) => self.done.completed += 1,
            (Fate::Panics, Err(JobError::Panicked(panic))) => {
                assert_eq!(number_of(panic.into_inner()), number);
                self.done.panicked += 1;
            }
            (Fate::IsCancelled | Fate::MayBeCancelled, Err(JobError::Cancelled)) => {
                self.done.cancelled += 1;
                // One that runs although it has ended is seen as run twice.
                if !self.ledger.is_marked(number) {
                    self.ledger.mark(number);
                } else {
                    assert_eq!(fate, Fate::IsCancelled, "{number} ran and ended unrun");
                }
            }
            (_, outcome) => panic!("{number} was to end so: {fate:?}, and ended so: {outcome:?}"),
        }
    }
}

/// Everything at once on one engine.
fn account(workers: usize, numbers: usize) -> Done {
    let cores = workers.div_ceil(2).max(1);
    let topology = Topology::synthetic(&format!("NUMANode:2 Core:{cores} PU:1")).unwrap();
    let engine = Engine::builder()
        .topology(topology)
        .cpu_workers(workers)
        .io_workers(0..=8)
        .build()
        .unwrap();
    let ledger = Arc::new(Ledger::new(numbers));
    let mut left = 0..numbers;
    let mut part = |percent: usize| take(&mut left, numbers * percent / 400 * 4);
    let (by_spawns, from_everywhere, by_jobs, panicking) = (part(30), part(4), part(9), part(1));
    let by_joins = left;

    let (engine_ref, ledger_ref) = (&engine, &ledger);
    let done = thread::scope(|threads| {
        let joined = threads.spawn(move || {
            let mut done = Done::default();
            let mut left = by_joins;
            while !left.is_empty() {
                let some = take(&mut left, 50_000);
                done.joined += some.len();
                done.installs += 1;
                engine_ref.install(|| joins(ledger_ref, some));
            }
            panicking_forks(engine_ref, ledger_ref, panicking, &mut done);
            done
        });
        let spawned = threads.spawn(move || {
            let mut done = Done::default();
            let mut left = by_spawns;
            while !left.is_empty() {
                let some = take(&mut left, 20_000);
                done.spawned += some.len();
                engine_ref.scope(|scope| spawns(scope, ledger_ref, some));
            }
            spawns_from_everywhere(engine_ref, ledger_ref, from_everywhere, &mut done);
            done
        });
        let mut jobs = Jobs {
            engine: engine_ref,
            ledger: ledger_ref,
            in_flight: VecDeque::new(),
            done: Done::default(),
        };
        jobs.run(by_jobs);
        let mut done = jobs.done;
        done.add(&joined.join().unwrap());
        done.add(&spawned.join().unwrap());
        done
    });

    let total = engine.metrics().total();
    assert_eq!(
        (total.submitted, total.completed),
        (done.submitted, done.completed)
    );
    assert_eq!(
        (total.panicked, total.cancelled),
        (done.panicked, done.cancelled)
    );
    let others = [
        total.deadline_exceeded,
        total.shut_down,
        total.queued,
        total.running,
        total.rejected,
    ];
    assert_eq!(others, [0; 5]);
    let jobs = usize::try_from(done.submitted).unwrap();
    assert_eq!(done.forks() + jobs, numbers);
    let metrics = engine.metrics();
    println!(
        "{workers} workers: {:?}, {} promotions, {} parks, {} wakes",
        metrics.steals(),
        metrics.promotions(),
        metrics.parks(),
        metrics.wakes()
    );
    // Whatever was left in a queue runs now, or never.
    drop(engine);
    ledger.assert_complete(numbers);
    done
}

#[test]
fn ten_million_forks_and_jobs_are_each_run_once_or_cancelled_once() {
    watched();
    let cores = thread::available_parallelism().unwrap().get();
    let numbers = sized(10_000_000) / 4 / 4 * 4;
    let mut all = Done::default();
    for times in 1..=4 {
        all.add(&account(times * cores, numbers));
    }
    println!("{} of {}: {all:?}", 4 * numbers, sized(10_000_000));
    if sized(10_000_000) == 10_000_000 {
        assert_eq!(4 * numbers, 10_000_000);
    }
}
