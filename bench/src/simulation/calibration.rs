//! The simulation beside the real engine: one node, two cores, the same trees, what things cost here.
//!
//! The engine runs the very trees that are simulated, a leaf being a loop of so many iterations. What an
//! iteration and a fork take is measured on the spot, and so are wakes and cache lines; a barrier and a
//! look are taken as published. One sample is one run from all workers asleep; of the simulation, one
//! seed. Runs beside which one of the CPUs was not free are left out, whatever they gave.

use std::time::{Duration, Instant};
use std::{hint, thread};

use super::costs::Constant;
use super::machine::Machine;
use super::outcome::Run;
use super::policy::POLICIES;
use super::probe::{self, Quiet};
use super::random::Random;
use super::scenario::TREE;
use super::workload::{self, Shape, Then, Workload};
use super::world::simulate;
use crate::case::{Case, Contender, Outcome, Role, Task, Trouble};
use crate::forks::reiver_engine;
use crate::stats;

const WORKERS: usize = 2;
const HERE: &str = "NUMANode:1 L3:1 Core:2 PU:1";
/// So many simulated runs, by their seeds.
const RUNS: u64 = 200;
/// Longer than workers look for work before they sleep.
const PAUSE: Duration = Duration::from_millis(1);
/// So many budgets are spent on waiting for free CPUs; and fewer runs than this are none.
const PATIENCE: u32 = 5;
const FEWEST: usize = 5;

pub(super) fn cases() -> Vec<Case> {
    let case = |(name, unit, what): (&'static str, &'static str, &str)| {
        let what = format!("{what}: the engine on two workers here, and what the simulation says");
        let contenders = [
            ("reiver", Role::Ours, real as fn(&Task) -> Outcome),
            ("simulation", Role::Floor, simulated),
        ]
        .map(|(name, role, run)| Contender { name, role, run });
        let case = Case::new("simulation", (name, unit), what.leak(), contenders.into());
        case.at(&[WORKERS]).no_rate().slow()
    };
    [
        ("calibration-fib", "ms", "Fibonacci numbers"),
        (
            "calibration-fib-steals",
            "steals a run",
            "Fibonacci numbers",
        ),
        ("calibration-uts", "ms", "an unbalanced tree"),
        (
            "calibration-uts-steals",
            "steals a run",
            "an unbalanced tree",
        ),
    ]
    .map(case)
    .into()
}

/// What a case is about, with leaves in iterations of so many nanoseconds.
fn workload(task: &Task, iteration_ns: f64, seed: u64) -> Workload {
    let smaller = u32::from(task.quick) * 2;
    let shape = if task.case.contains("fib") {
        Shape::Fib {
            n: 26 - smaller,
            cut: 8,
            call_ns: 40.0 * iteration_ns,
        }
    } else {
        Shape::Uts {
            depth: 7 - smaller / 2,
            node_ns: 1000.0 * iteration_ns,
            tree: TREE,
        }
    };
    Workload::new(shape, 0.0, seed)
}

fn told(task: &Task, ms: f64, steals: u64) -> f64 {
    if task.case.ends_with("steals") {
        steals as f64
    } else {
        ms
    }
}

/// The tree, by the engine's joins.
fn grow(tree: &Workload, task: workload::Task) -> u64 {
    let step = tree.step(&task);
    probe::work(step.work_ns);
    match step.then {
        Then::Done => 1,
        Then::Next(next) => grow(tree, next),
        Then::Fork(now, later) => {
            let (a, b) = reiver::join(|| grow(tree, now), || grow(tree, later));
            a + b
        }
    }
}

fn real(task: &Task) -> Outcome {
    let tree = workload(task, 1.0, 1);
    let leaves = tree.totals().leaves;
    let root = tree.starts()[0].1;
    let engine = reiver_engine(task.threads);
    let steals = || {
        let steals = engine.metrics().steals();
        steals.same_cache + steals.same_node + steals.remote
    };
    let quiet = Quiet::of(task.threads);
    let runs = quiet.measure(PATIENCE * task.budget, || {
        thread::sleep(PAUSE);
        let before = steals();
        let start = Instant::now();
        let grown = engine.install(|| grow(&tree, hint::black_box(root)));
        let ms = start.elapsed().as_secs_f64() * 1e3;
        assert_eq!(grown, leaves, "all leaves");
        told(task, ms, steals() - before)
    });
    if runs.len() < FEWEST {
        return Err(busy());
    }
    Ok(runs)
}

fn busy() -> Trouble {
    Trouble::Skipped("others are at work on the CPUs".into())
}

fn simulated(task: &Task) -> Outcome {
    let machine = Machine::described(HERE);
    let iteration_ns = Quiet::of(WORKERS).iteration_ns();
    let fork_ns = fork_ns(task).ok_or_else(busy)?;
    let costs = probe::costs().with(Constant::Fork, fork_ns);
    eprintln!("an iteration takes {iteration_ns:.2} ns, {costs:?}");
    let mut seeds = Random::new(task.seed);
    let run = |_| {
        let seed = seeds.next();
        let tree = workload(task, iteration_ns, seed);
        let run: Run = simulate(&machine, &tree, POLICIES[0], &costs, seed);
        told(task, run.makespan_ns as f64 / 1e6, run.near_steals)
    };
    Ok((0..RUNS).map(run).collect())
}

/// What a fork takes beyond its leaves, with all that growing the tree takes, on one worker.
fn fork_ns(task: &Task) -> Option<f64> {
    let tree = workload(task, 1.0, 1);
    let totals = tree.totals();
    let root = tree.starts()[0].1;
    let engine = reiver_engine(1);
    let quiet = Quiet::of(1);
    let work_ns = totals.work_ns as f64 * quiet.iteration_ns();
    let runs = quiet.measure(PATIENCE * task.budget, || {
        let start = Instant::now();
        engine.install(|| grow(&tree, root));
        let ns = start.elapsed().as_secs_f64() * 1e9;
        (ns - work_ns) / totals.forks as f64
    });
    (runs.len() >= FEWEST)
        .then(|| stats::median(&runs))
        .flatten()
        .map(|ns| ns.max(1.0))
}
