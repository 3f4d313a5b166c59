//! What an engine costs that has little or nothing to do.
//!
//! CPU time of all threads of the process but the one that measures, as a share of one core. Where that
//! one brings jobs, its own part is left out, since it is mostly that of its sleeping.

use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::case::{Case, Contender, Outcome, Task, Trouble, ours, peer};
use crate::forkjoin::case;
use crate::forks::{Chili, Forks, Forte};
use crate::thread_pools::{Pool, Rayon, Reiver, Tokio, pools};

pub(super) fn cases() -> Vec<Case> {
    let unit = "% of a core";
    let each_ms = "an empty job each millisecond, without the thread that brings it";
    let nothing = "nothing to do, once all had something";
    vec![
        case("job-a-ms", unit, each_ms, pools!(sparse)),
        case("idle", unit, nothing, idlers()).at(&[2, 64]),
    ]
}

fn idlers() -> Vec<Contender> {
    vec![
        ours("reiver", idle::<Reiver>),
        peer("rayon", idle::<Rayon>),
        peer("chili", idle_forks::<Chili>),
        peer("forte", idle_forks::<Forte>),
        peer("tokio", idle::<Tokio>),
    ]
}

/// CPU time that this process has used, as the scheduler of the kernel has it, without that of the
/// thread that asks.
fn cpu_time() -> Result<Duration, Trouble> {
    let this = fs::read_link("/proc/thread-self").map_err(|error| skipped(&error))?;
    let threads = fs::read_dir("/proc/self/task").map_err(|error| skipped(&error))?;
    let mut nanos = 0;
    for thread in threads {
        let path = thread.map_err(|error| skipped(&error))?.path();
        if path.file_name() == this.file_name() {
            continue;
        }
        // A thread that has ended meanwhile does not count; none of a contender's does.
        let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let ran = text.split_whitespace().next();
        nanos += ran.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

fn skipped(error: &std::io::Error) -> Trouble {
    Trouble::Skipped(format!("/proc does not tell CPU times: {error}"))
}

/// The share of a core that goes while `pass` lets `budget` pass, in one sample.
fn share(task: &Task, pass: impl FnOnce(Duration)) -> Outcome {
    let (start, before) = (Instant::now(), cpu_time()?);
    pass(task.budget);
    let (time, cpu) = (start.elapsed(), cpu_time()? - before);
    Ok(vec![100.0 * cpu.as_secs_f64() / time.as_secs_f64()])
}

fn sparse<P: Pool>(task: &Task) -> Outcome {
    let pool = P::start(task.threads);
    let bring = |budget: Duration| {
        let start = Instant::now();
        let mut next = Duration::ZERO;
        while next < budget {
            pool.give(|| ());
            next += Duration::from_millis(1);
            thread::sleep(next.saturating_sub(start.elapsed()));
        }
    };
    bring(task.budget / 5);
    share(task, bring)
}

const SETTLE: Duration = Duration::from_millis(100);

fn idle<P: Pool>(task: &Task) -> Outcome {
    let pool = P::start(task.threads);
    (0..10 * task.threads).for_each(|_| pool.give(|| ()));
    thread::sleep(SETTLE);
    share(task, thread::sleep)
}

/// For those who only fork.
fn idle_forks<F: Forks>(task: &Task) -> Outcome {
    let engine = F::start(task.threads);
    engine.enter(|here| {
        for _ in 0..10 * task.threads {
            F::join(here, |_| (), |_| ());
        }
    });
    thread::sleep(SETTLE);
    share(task, thread::sleep)
}
