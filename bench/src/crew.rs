//! Threads that do the same at once, each timed by itself.
//!
//! A sample is what one thread took for a number of operations, some microseconds' worth of them, divided
//! by that number: time on its CPU, so that threads that share one do not pay for each other's turns.
//! Operations a second are by the clock on the wall, and of all threads together.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::case::{Outcome, Task};
use crate::costs::{self, Costs};
use crate::forks::reiver_engine;

/// On which threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// Threads that no engine knows.
    Threads,
    /// Workers of our engine, as many as there are threads.
    Workers,
}

/// What a thread does over and over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// So many operations are one round.
    pub(crate) operations: u64,
    /// Nothing is done for so long after each sample.
    pub(crate) idle: Duration,
}

/// A sample takes so long, where a round does not take longer.
const SAMPLE: Duration = Duration::from_micros(20);
/// Of all threads together.
const MOST_SAMPLES: usize = 4_000;

/// Measures, in ns an operation, what `work` makes for each thread: a function that does so many rounds.
pub(crate) fn measure<W: FnMut(u64)>(
    task: &Task,
    on: On,
    pace: Pace,
    work: impl Fn(usize) -> W + Sync,
) -> Outcome {
    let most = MOST_SAMPLES / task.threads;
    let budget = task.short_budget();
    let plan = Plan {
        budget,
        sample: SAMPLE.max(budget / u32::try_from(most).expect("a few thousand")),
        most,
        pace,
    };
    let together = Barrier::new(task.threads + 1);
    let one = |index| plan.follow(&together, work(index));
    let (samples, costs) = thread::scope(|scope| {
        let crew = scope.spawn(|| on.run(task.threads, &one));
        together.wait();
        let (start, faults) = (Instant::now(), costs::minor_faults());
        together.wait();
        together.wait();
        let faults = costs::minor_faults() - faults;
        let took = start.elapsed();
        together.wait();
        let done = crew.join().expect("it only measures");
        let operations = done
            .iter()
            .map(|(_, operations)| *operations as f64)
            .sum::<f64>();
        let costs = Costs {
            operations_per_second: operations / took.as_secs_f64(),
            minor_faults_per_operation: faults as f64 / operations,
            peak_kib: costs::peak_kib(),
        };
        (
            done.into_iter().flat_map(|(samples, _)| samples).collect(),
            costs,
        )
    });
    task.took(costs);
    Ok(samples)
}

/// A thread's samples, and how many operations it did for them.
type Done = (Vec<f64>, u64);

impl On {
    /// Runs `one` for each index, all at once.
    fn run(self, threads: usize, one: &(impl Fn(usize) -> Done + Sync)) -> Vec<Done> {
        match self {
            On::Threads => thread::scope(|scope| {
                let crew: Vec<_> = (0..threads).map(|i| scope.spawn(move || one(i))).collect();
                let done = crew.into_iter().map(|one| one.join());
                done.map(|done| done.expect("it only measures")).collect()
            }),
            On::Workers => {
                let engine = reiver_engine(threads);
                let mut done: Vec<Option<Done>> = (0..threads).map(|_| None).collect();
                // They wait for each other, so no worker takes two.
                engine.scope(|scope| {
                    for (index, done) in done.iter_mut().enumerate() {
                        scope.spawn(move |_| *done = Some(one(index)));
                    }
                });
                done.into_iter().flatten().collect()
            }
        }
    }
}

struct Plan {
    budget: Duration,
    sample: Duration,
    most: usize,
    pace: Pace,
}

impl Plan {
    /// One thread's part.
    fn follow(&self, together: &Barrier, mut work: impl FnMut(u64)) -> Done {
        let mut timed = |rounds| {
            let start = costs::thread_cpu();
            work(rounds);
            let took = costs::thread_cpu() - start;
            if !self.pace.idle.is_zero() {
                thread::sleep(self.pace.idle);
            }
            took
        };
        // Touched before anybody counts faults.
        let mut samples = vec![1.0; self.most];
        samples.clear();
        let mut rounds = 1;
        let warm = Instant::now();
        loop {
            if timed(rounds) < self.sample {
                rounds *= 2;
            } else if warm.elapsed() >= self.budget / 5 {
                break;
            }
        }
        let operations = rounds * self.pace.operations;
        together.wait();
        together.wait();
        let start = Instant::now();
        while samples.is_empty() || (start.elapsed() < self.budget && samples.len() < self.most) {
            samples.push(timed(rounds).as_secs_f64() * 1e9 / operations as f64);
        }
        together.wait();
        let all = samples.len() as u64 * operations;
        together.wait();
        (samples, all)
    }
}
