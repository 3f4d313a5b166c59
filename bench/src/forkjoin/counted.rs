//! What does not depend on the machine's mood: counts, by those who count.
//!
//! - `instructions`: fib(21) less fib(16) under callgrind, on one worker with the other held asleep.
//!   Chili's and forte's heartbeats go by the clock, which callgrind slows down about fifty times: they
//!   have some more of them here than in life.
//! - `futex`: calls while all workers are free to steal, by perf or, where that may not, strace; less
//!   those of a run that forks nothing.
//! - `steals`, `failed-searches`, `parks`: as the engine's own metrics have them; peers have none.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use crate::case::{Case, Outcome, Task, Trouble, ours};
use crate::forkjoin::case;
use crate::forkjoin::fib::{Fib, fibonacci, joins};
use crate::forks::{Forks, Reiver, forkers, reiver_engine};
use crate::hold::{Hold, held};
use crate::outside;

const WORKERS: &[usize] = &[2, 16, 64];

pub(super) fn cases() -> Vec<Case> {
    let forks = "per million forks";
    vec![
        case(
            "instructions",
            "instructions a join",
            "fib(21) less fib(16) under callgrind, the other worker held",
            forkers!(instructions),
        )
        .at(&[2])
        .once()
        .slow(),
        case(
            "futex",
            forks,
            "futex calls of fib(35) (quick 30), all workers free to steal",
            forkers!(futex),
        )
        .at(WORKERS),
        case(
            "steals",
            forks,
            "forks stolen, in fib(35) (quick 30)",
            vec![ours("reiver", steals)],
        )
        .at(WORKERS),
        case(
            "failed-searches",
            forks,
            "searches of all other workers that found nothing, in fib(35) (quick 30)",
            vec![ours("reiver", failed_searches)],
        )
        .at(WORKERS),
        case(
            "parks",
            forks,
            "workers gone to sleep, in fib(35) (quick 30)",
            vec![ours("reiver", parks)],
        )
        .at(WORKERS),
    ]
}

fn instructions<F: Fib>(task: &Task) -> Outcome {
    if let Some(n) = task.probe {
        return probe_held::<F>(task, n);
    }
    let count = |n| {
        let output = outside::probe(&mut callgrind(Path::new("/dev/null")), task, n)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let count = errors
            .lines()
            .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
        count.ok_or_else(|| Trouble::Failed("callgrind tells no number of instructions".into()))
    };
    let (large, small): (f64, f64) = (count(21)?, count(16)?);
    Ok(vec![(large - small) / (joins(21) - joins(16)) as f64])
}

/// Callgrind, to count what `probe_held` is about. Fair, or a thread that waits for another one keeps it
/// from running.
pub(super) fn callgrind(profile: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--fair-sched=yes"]);
    valgrind.arg("--toggle-collect=*counted_by_callgrind*");
    valgrind.arg(format!("--callgrind-out-file={}", profile.display()));
    valgrind
}

/// The work that is counted: fib(n) on one worker, with the others asleep in jobs.
pub(super) fn probe_held<F: Fib>(task: &Task, n: u64) -> Outcome {
    let engine = F::start(task.threads);
    let hold = Hold::asleep();
    let value = held(&engine, task.threads - 1, &hold, |here| {
        counted_by_callgrind::<F>(here, n)
    });
    assert_eq!(value, fibonacci(n), "a Fibonacci number");
    Ok(vec![0.0])
}

/// Callgrind counts while a thread is in here, and goes by the name.
#[inline(never)]
fn counted_by_callgrind<F: Fib>(here: &mut F::Here<'_>, n: u64) -> u64 {
    // Not in a way that leaves nothing of this function but a jump.
    black_box(F::fib(here, black_box(n)))
}

fn futex<F: Fib>(task: &Task) -> Outcome {
    if let Some(n) = task.probe {
        let engine = F::start(task.threads);
        let value = engine.enter(|here| F::fib(here, n));
        assert_eq!(value, fibonacci(n), "a Fibonacci number");
        return Ok(vec![0.0]);
    }
    let n = task.size(35, 30);
    let count = |n| futex_by_perf(task, n).or_else(|_| futex_by_strace(task, n));
    let calls = count(n)? - count(1)?;
    Ok(vec![calls.max(0.0) * 1e6 / joins(n) as f64])
}

fn futex_by_perf(task: &Task, n: u64) -> Result<f64, Trouble> {
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x,", "-e", "syscalls:sys_enter_futex", "--"]);
    let output = outside::probe(&mut perf, task, n)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().find(|line| line.contains("sys_enter_futex"));
    let calls = line.and_then(|line| line.split(',').next()?.parse().ok());
    calls.ok_or_else(|| Trouble::Skipped("perf may not count futex calls".into()))
}

fn futex_by_strace(task: &Task, n: u64) -> Result<f64, Trouble> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-U", "calls,name", "-e", "trace=futex"]);
    let output = outside::probe(&mut strace, task, n)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = errors.lines().find(|line| line.ends_with(" futex"));
    let calls = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    // Who calls none has no line.
    Ok(calls.unwrap_or(0.0))
}

fn steals(task: &Task) -> Outcome {
    per_million(task, |metrics| {
        let steals = metrics.steals();
        steals.same_cache + steals.same_node + steals.remote
    })
}

fn failed_searches(task: &Task) -> Outcome {
    per_million(task, reiver::Metrics::failed_searches)
}

fn parks(task: &Task) -> Outcome {
    per_million(task, reiver::Metrics::parks)
}

/// What `count` grows by in a fib, for a million of its forks.
fn per_million(task: &Task, count: impl Fn(&reiver::Metrics) -> u64) -> Outcome {
    let n = task.size(35, 30);
    let engine = Reiver::of(reiver_engine(task.threads));
    Ok(task.sample(|| {
        let before = count(&engine.metrics());
        let value = engine.enter(|here| Reiver::fib(here, n));
        assert_eq!(value, fibonacci(n), "a Fibonacci number");
        (count(&engine.metrics()) - before) as f64 * 1e6 / joins(n) as f64
    }))
}
