//! What a case is: a piece of work, a unit, and the contenders that do it.
//!
//! A contender is a plain function from a [`Task`] to samples in the case's unit, of which less is always
//! better. It checks what it computed, and panics where that is wrong.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::costs::Costs;
use crate::threads;

/// A piece of work that several contenders do.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) suite: &'static str,
    pub(crate) name: &'static str,
    /// What a number means, and of what.
    pub(crate) unit: &'static str,
    /// One sentence for people.
    pub(crate) what: &'static str,
    /// With how many threads, each in turn; in a quick run others.
    pub(crate) threads: Vec<usize>,
    pub(crate) quick_threads: Vec<usize>,
    /// Those, whatever is asked for on the command line.
    pub(crate) fixed: bool,
    /// A sample is the time of operations one after the other, so that its inverse is a rate.
    pub(crate) is_rate: bool,
    /// In the first round only: what is counted is the same each time.
    pub(crate) once: bool,
    /// How often it is measured unless that is said, or it is a quick run.
    pub(crate) rounds: u32,
    /// The contender that the figures of all are compared with, round by round.
    pub(crate) bar: Option<&'static str>,
    /// Left out of a quick run of everything or of its suite; not where it is asked for by name.
    pub(crate) slow: bool,
    pub(crate) contenders: Vec<Contender>,
}

impl Case {
    /// With 1, 2, 4 threads and so on to twice the CPUs, in a quick run with as many as CPUs; or with as many as
    /// are asked for. If the unit is a time, its inverse is a rate.
    pub(crate) fn new(
        suite: &'static str,
        (name, unit): (&'static str, &'static str),
        what: &'static str,
        contenders: Vec<Contender>,
    ) -> Case {
        Case {
            suite,
            name,
            unit,
            what,
            threads: threads::up_to_twice_the_cpus(),
            quick_threads: vec![threads::cpus()],
            fixed: false,
            is_rate: unit_seconds(unit).is_some(),
            once: false,
            rounds: 5,
            bar: None,
            slow: false,
            contenders,
        }
    }

    /// All are compared with this contender, round by round.
    pub(crate) fn against(self, bar: &'static str) -> Case {
        Case {
            bar: Some(bar),
            ..self
        }
    }

    /// Fixes the numbers of threads.
    pub(crate) fn at(self, threads: &[usize]) -> Case {
        Case {
            threads: threads.to_vec(),
            quick_threads: threads.to_vec(),
            fixed: true,
            ..self
        }
    }

    /// With as many threads as CPUs, in a quick run too.
    pub(crate) fn on_all_cpus(self) -> Case {
        Case {
            threads: vec![threads::cpus()],
            ..self
        }
    }

    /// With these numbers of threads, unless others are asked for.
    pub(crate) fn usually_at(self, threads: &[usize]) -> Case {
        Case {
            threads: threads.to_vec(),
            quick_threads: threads.to_vec(),
            ..self
        }
    }

    /// With other numbers of threads in a quick run.
    pub(crate) fn quickly_at(self, threads: &[usize]) -> Case {
        Case {
            quick_threads: threads.to_vec(),
            ..self
        }
    }

    /// Its unit is a time that says nothing of how many there are a second.
    pub(crate) fn no_rate(self) -> Case {
        Case {
            is_rate: false,
            ..self
        }
    }

    /// Operations a second, where one takes so much of the case's unit.
    pub(crate) fn rate(&self, median: f64) -> Option<f64> {
        let seconds = unit_seconds(self.unit).filter(|_| self.is_rate && median > 0.0)?;
        Some(1.0 / (median * seconds))
    }

    /// So often unless somebody says otherwise: for tails.
    pub(crate) fn in_rounds(self, rounds: u32) -> Case {
        Case { rounds, ..self }
    }

    /// What it counts is the same each time.
    pub(crate) fn once(self) -> Case {
        Case { once: true, ..self }
    }

    /// A quick run does without it.
    pub(crate) fn slow(self) -> Case {
        Case { slow: true, ..self }
    }
}

/// What the unit is in seconds, if it is a time.
fn unit_seconds(unit: &str) -> Option<f64> {
    match unit.split_whitespace().next()? {
        "ns" => Some(1e-9),
        "us" => Some(1e-6),
        "ms" => Some(1e-3),
        _ => None,
    }
}

/// Who does it.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// Begins with the peer's name, as `versions` knows it.
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) run: fn(&Task) -> Outcome,
}

/// What a contender is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ours,
    Peer,
    /// No competitor: what the machine itself allows, or one thread without any engine.
    Floor,
}

/// Samples in the case's unit, or why there are none.
pub(crate) type Outcome = Result<Vec<f64>, Trouble>;

/// Why there are no samples.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// Something that this machine lacks.
    Skipped(String),
    Failed(String),
}

/// One measurement, as a child is asked for it.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) case: &'static str,
    pub(crate) contender: &'static str,
    pub(crate) threads: usize,
    pub(crate) quick: bool,
    pub(crate) budget: Duration,
    /// Another one each round, the same in each run.
    pub(crate) seed: u64,
    /// Where what is compiled on the way goes.
    pub(crate) out: PathBuf,
    /// Run the work once, so big, under somebody who counts.
    pub(crate) probe: Option<u64>,
    /// What was measured beside the samples, by name.
    pub(crate) figures: Arc<Mutex<Figures>>,
    /// What it took beside time, where somebody looked.
    pub(crate) costs: OnceLock<Costs>,
}

/// Numbers with names, in the order in which they are told.
pub(crate) type Figures = Vec<(String, f64)>;

/// More than enough for a 99th percentile, and little enough to print.
const MOST_SAMPLES: usize = 5_000;

impl Task {
    pub(crate) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that was measured beside the samples.
    pub(crate) fn tell(&self, figures: Figures) {
        self.figures().extend(figures);
    }

    /// The size to work at.
    pub(crate) fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// For suites of many short loops: a quarter of the time is enough for each.
    pub(crate) fn short_budget(&self) -> Duration {
        self.budget / 4
    }

    /// Says what the measurement took beside time; once.
    pub(crate) fn took(&self, costs: Costs) {
        let _ = self.costs.set(costs);
    }

    /// Measures until the budget is spent, at least once, after a fifth of it to warm up.
    pub(crate) fn sample(&self, mut measure: impl FnMut() -> f64) -> Vec<f64> {
        let warm = Instant::now();
        loop {
            measure();
            if warm.elapsed() >= self.budget / 5 {
                break;
            }
        }
        let mut samples = Vec::new();
        let start = Instant::now();
        loop {
            samples.push(measure());
            if start.elapsed() >= self.budget || samples.len() == MOST_SAMPLES {
                return samples;
            }
        }
    }

    /// Times `body` in milliseconds.
    pub(crate) fn sample_ms(&self, mut body: impl FnMut()) -> Vec<f64> {
        self.sample(|| {
            let start = Instant::now();
            body();
            start.elapsed().as_secs_f64() * 1e3
        })
    }
}

pub(crate) fn ours(name: &'static str, run: fn(&Task) -> Outcome) -> Contender {
    contender(name, Role::Ours, run)
}

pub(crate) fn peer(name: &'static str, run: fn(&Task) -> Outcome) -> Contender {
    contender(name, Role::Peer, run)
}

pub(crate) fn floor(name: &'static str, run: fn(&Task) -> Outcome) -> Contender {
    contender(name, Role::Floor, run)
}

fn contender(name: &'static str, role: Role, run: fn(&Task) -> Outcome) -> Contender {
    Contender { name, role, run }
}
